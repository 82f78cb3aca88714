//! Reader of Occ3D-nuScenes (Tian et al., NeurIPS 2023) and of OpenOcc-v2, which has its layout and other ids.
//!
//! ```text
//! ROOT[/trainval|/mini]/annotations.json                   the order of the frames, times, poses and splits
//! ROOT[/trainval|/mini]/gts/<scene>/<token>/labels.npz     semantics, mask_lidar, mask_camera [200, 200, 16]
//! ```
//!
//! Tokens do not order the frames, so nothing is read without annotations.json.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use glam::DQuat;

use super::listing::{Listed, Listing};
use super::npz_frames::{NpzFrames, Recording};
use super::volumes::{Volume, commonest};
use crate::data::classes::Row;
use crate::data::folders::{entries, look};
use crate::data::npy::Arrays;
use crate::data::source::{Source, name};
use crate::data::{ClassSet, Grid, Handedness, Pose, Split};
use crate::files::unreadable;
use crate::{Error, Result};

/// The grid around the ego vehicle.
pub(super) const GRID: Grid = Grid { size: [200, 200, 16], voxel_size_m: [0.4; 3], min_bound_m: [-40.0, -40.0, -1.0] };

const ANNOTATIONS: &str = "annotations.json";
/// Folders of labels: those of Occ3D and of OpenOcc-v2.
const FOLDERS: [&str; 2] = ["gts", "openocc_v2"];
const LABELS: &str = "semantics";
const MASK: &str = "mask_lidar";

/// The classes of Occ3D.
const OCC3D: [Row; 18] = [
    (17, "Free", [255, 255, 255]),
    (0, "Others", [60, 190, 200]),
    (1, "Barrier", [190, 110, 60]),
    (2, "Bicycle", [235, 130, 150]),
    (3, "Bus", [240, 210, 60]),
    (4, "Car", [70, 125, 235]),
    (5, "Construction vehicle", [0, 140, 140]),
    (6, "Motorcycle", [200, 160, 30]),
    (7, "Pedestrian", [230, 60, 70]),
    (8, "Traffic cone", [250, 150, 60]),
    (9, "Trailer", [130, 75, 40]),
    (10, "Truck", [150, 60, 220]),
    (11, "Driveable surface", [122, 92, 140]),
    (12, "Other flat", [110, 110, 125]),
    (13, "Sidewalk", [216, 120, 190]),
    (14, "Terrain", [150, 190, 90]),
    (15, "Manmade", [214, 158, 74]),
    (16, "Vegetation", [70, 165, 80]),
];

/// Those of OpenOcc-v2 by their ids, as places in [`OCC3D`].
const OPEN_OCC: [usize; 17] = [0, 5, 11, 10, 4, 6, 3, 7, 8, 9, 2, 12, 13, 14, 15, 16, 17];

/// What is read of annotations.json.
#[derive(serde::Deserialize)]
struct Annotations {
    #[serde(default)]
    val_split: Vec<String>,
    scene_infos: BTreeMap<String, BTreeMap<String, Info>>,
}

/// What is read of one frame.
#[derive(serde::Deserialize)]
struct Info {
    #[serde(default)]
    timestamp: serde_json::Value,
    #[serde(default)]
    next: Option<String>,
    #[serde(default)]
    ego_pose: Option<EgoPose>,
}

/// The vehicle in the world.
#[derive(serde::Deserialize)]
struct EgoPose {
    translation: [f64; 3],
    /// w, x, y, z.
    rotation: [f64; 4],
}

impl Info {
    /// When the frame was taken, microseconds.
    fn micros(&self) -> Option<u64> {
        self.timestamp.as_u64().or_else(|| self.timestamp.as_str()?.parse().ok())
    }
}

/// The data set at `root`, if there is a folder of labels.
pub(super) fn open(root: &Path) -> Result<Option<Arc<dyn Source>>> {
    let parent = root.parent().filter(|_| FOLDERS.iter().any(|folder| root.ends_with(folder)));
    let bases = [root.join("trainval"), root.join("mini"), root.to_path_buf()];
    for base in parent.map(Path::to_path_buf).into_iter().chain(bases) {
        for folder in FOLDERS {
            if look(&base.join(folder)).is_ok_and(|found| found.is_some_and(|found| found.is_dir())) {
                return read(&base, &base.join(folder)).map(Some);
            }
        }
    }
    Ok(None)
}

fn read(base: &Path, labels: &Path) -> Result<Arc<dyn Source>> {
    let path = base.join(ANNOTATIONS);
    if look(&path)?.is_none() {
        return Err(Error::Data(format!(
            "{} is not there, and the names of the folders in {} do not order the frames; copy it from Occ3D-nuScenes",
            path.display(),
            labels.display()
        )));
    }
    let annotations = annotations(&path)?;
    let mut all = Vec::new();
    for scene in entries(labels)? {
        if !look(&scene)?.is_some_and(|found| found.is_dir()) {
            continue;
        }
        let name = name(&scene);
        let infos = annotations.scene_infos.get(&name).ok_or_else(|| {
            Error::Data(format!(
                "{} does not have the scene {name} of {}; copy both again",
                path.display(),
                labels.display()
            ))
        })?;
        let split = if annotations.val_split.contains(&name) { Split::Val } else { Split::Train };
        let part = recording(&scene, infos).map_err(|why| Error::Data(format!("{}: {why}", path.display())))?;
        all.extend((!part.frames.is_empty()).then_some(Listed { split, name, part }));
    }
    let Some(first) = all.first().and_then(|listed| Some(&listed.part.frames.first()?.1)) else {
        return Err(Error::Data(format!("{} has no labels.npz of any frame; copy them", labels.display())));
    };
    let (format, classes) = classes(first)?;
    let has_mask = Arrays::open(first)?.header(MASK)?.is_some();
    Ok(Arc::new(NpzFrames {
        format: format!("{format}, in the order of {ANNOTATIONS}"),
        classes,
        grid: GRID,
        labels: LABELS,
        mask: MASK,
        has_mask,
        pose: None,
        secs: 0.5,
        whole: Some(path),
        listing: Listing::new(base, all),
    }))
}

fn annotations(path: &Path) -> Result<Annotations> {
    let file = File::open(path).map_err(|why| unreadable(path, &why))?;
    serde_json::from_reader(BufReader::new(file)).map_err(|why| {
        Error::Data(format!("{} does not describe scenes as Occ3D's does ({why}); copy it again", path.display()))
    })
}

/// The frames of a scene that have labels, each with its number in the order of time.
fn recording(scene: &Path, infos: &BTreeMap<String, Info>) -> Result<Recording, String> {
    let (mut frames, mut times, mut poses) = (Vec::new(), Vec::new(), Vec::new());
    let order = order(infos).map_err(|why| format!("the frames of {} {why}; copy it again", name(scene)))?;
    let start = order.first().and_then(|token| infos[*token].micros());
    for (number, token) in order.into_iter().enumerate() {
        let path = scene.join(token).join("labels.npz");
        // What cannot be looked at is told when it is read.
        if look(&path).is_ok_and(|there| there.is_none()) {
            continue;
        }
        let info = &infos[token];
        times.push(start.zip(info.micros()).map(|(start, now)| (now as f64 - start as f64) / 1e6));
        poses.push(info.ego_pose.as_ref().and_then(EgoPose::matrix));
        frames.push((number, path));
    }
    // Known of all frames or not at all.
    Ok(Recording { frames, times_secs: times.into_iter().collect(), poses: poses.into_iter().collect() })
}

/// The tokens of a scene by time: by their timestamps, or where there are none, along `next`.
fn order(infos: &BTreeMap<String, Info>) -> Result<Vec<&String>, &'static str> {
    let timed: Option<Vec<(u64, &String)>> = infos.iter().map(|(token, info)| Some((info.micros()?, token))).collect();
    if let Some(mut timed) = timed {
        timed.sort();
        if timed.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err("have a timestamp twice");
        }
        return Ok(timed.into_iter().map(|(_, token)| token).collect());
    }
    let next = |token: &String| infos.get_key_value(infos[token].next.as_ref()?).map(|(token, _)| token);
    let followers: HashSet<&String> = infos.keys().filter_map(next).collect();
    let mut firsts = infos.keys().filter(|token| !followers.contains(token));
    let mut chain = vec![firsts.next().ok_or("have no first one")?];
    while let Some(token) = chain.last().and_then(|last| next(last)).filter(|_| chain.len() < infos.len()) {
        chain.push(token);
    }
    if chain.len() == infos.len() { Ok(chain) } else { Err("have no timestamps and are no chain by prev and next") }
}

impl EgoPose {
    /// As a motion of the vehicle into the world, if the quaternion is one.
    fn matrix(&self) -> Option<Pose> {
        let [w, x, y, z] = self.rotation;
        let pose = Pose::from_rotation_translation(DQuat::from_xyzw(x, y, z, w).normalize(), self.translation.into());
        pose.is_finite().then_some(pose)
    }
}

/// Whose ids the file has, by what is most of it: free space.
fn classes(path: &Path) -> Result<(&'static str, Arc<ClassSet>)> {
    match commonest(&Volume::of(path, LABELS, &GRID))? {
        Some(16) => {
            let rows = OPEN_OCC.iter().enumerate().map(|(at, &class)| {
                let (_, name, color) = OCC3D[class];
                // Free space comes first, and has the last id.
                (if at == 0 { 16 } else { at as u16 - 1 }, name, color)
            });
            let rows: Vec<Row> = rows.collect();
            Ok(("OpenOcc-v2's layout", ClassSet::known("OpenOcc-v2", Handedness::Right, &rows, &[])))
        }
        Some(17) => Ok(("Occ3D-nuScenes", ClassSet::known("Occ3D-nuScenes", Handedness::Right, &OCC3D, &[]))),
        other => Err(Error::Data(format!(
            "{} is mostly of the id {}, where free space is 17 in Occ3D-nuScenes and 16 in OpenOcc-v2; give a data set of \
             one of these",
            path.display(),
            other.map_or("none".to_owned(), |id| id.to_string())
        ))),
    }
}
