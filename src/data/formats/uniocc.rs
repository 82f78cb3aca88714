//! Reader of UniOcc (Wang et al., ICCV 2025): nuScenes, Waymo, CARLA and OPV2V in one layout.
//!
//! ```text
//! ROOT[/<name>]/<scene>[/<vehicle>]/<n>.npz   occ_label, occ_mask_camera [200, 200, 16], ego_to_world_transformation [4, 4]
//! ```
//!
//! Names that end in `-train`, `-val` or `-test` are of those splits. Pickles, such as scene_infos.pkl, are not read: numbers
//! order the frames.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::listing::{Listed, Listing, numbered};
use super::npz_frames::{NpzFrames, PLANES, Recording};
use super::occ3d_nuscenes::GRID;
use crate::Result;
use crate::data::classes::Row;
use crate::data::folders::{entries, look};
use crate::data::npy::Arrays;
use crate::data::source::{Source, name};
use crate::data::{ClassSet, Handedness, Split};

const LABELS: &str = "occ_label";
const MASK: &str = "occ_mask_camera";
const POSE: &str = "ego_to_world_transformation";
/// How many folders may lie between the root and the frames.
const DEEPEST: usize = 3;
/// So many folders are looked into before something else is taken for another format.
const MOST_LOOKS: usize = 256;

const CLASSES: [Row; 11] = [
    (10, "Free", [255, 255, 255]),
    (0, "Undefined", [60, 190, 200]),
    (1, "Car", [70, 125, 235]),
    (2, "Bicycle", [235, 130, 150]),
    (3, "Motorcycle", [200, 160, 30]),
    (4, "Pedestrian", [230, 60, 70]),
    (5, "Traffic cone", [250, 150, 60]),
    (6, "Vegetation", [70, 165, 80]),
    (7, "Road", [122, 92, 140]),
    (8, "Terrain", [150, 190, 90]),
    (9, "Building", [214, 158, 74]),
];

/// The data set at `root`, if there are numbered frames with UniOcc's labels.
pub(super) fn open(root: &Path) -> Result<Option<Arc<dyn Source>>> {
    let Some(first) = first_frame(root) else { return Ok(None) };
    let mut arrays = Arrays::open(&first)?;
    if arrays.header(LABELS)?.is_none() {
        return Ok(None);
    }
    let mut scenes = Vec::new();
    find(root, DEEPEST, &mut scenes)?;
    let has_mask = arrays.header(MASK)?.is_some();
    // The parts of a path that tell one scene from another.
    let below = |folder: &Path| folder.strip_prefix(root).unwrap_or(folder).components().count();
    let all = scenes.into_iter().map(|(folder, frames)| {
        let parts: Vec<String> = folder.ancestors().take(below(&folder).max(1)).map(name).collect();
        let name = parts.into_iter().rev().collect::<Vec<_>>().join("-");
        Listed { split: split_of(&folder), name, part: Recording { frames, ..Recording::default() } }
    });
    let all: Vec<Listed<Recording>> = all.collect();
    let is_fast = first.to_string_lossy().contains("10Hz");
    Ok(Some(Arc::new(NpzFrames {
        format: "UniOcc".into(),
        classes: ClassSet::known("UniOcc", Handedness::Right, &CLASSES, &[]),
        grid: GRID,
        labels: LABELS,
        mask: MASK,
        has_mask,
        pose: Some(POSE),
        secs: if is_fast { 0.1 } else { 0.5 },
        whole: None,
        listing: Listing::new(root, all),
    })))
}

/// The split that the nearest folder around a scene names.
fn split_of(folder: &Path) -> Split {
    let of = |folder: &Path| {
        let name = name(folder);
        Split::ALL.into_iter().find(|split| name.ends_with(&format!("-{}", split.folder().to_lowercase())))
    };
    folder.ancestors().take(DEEPEST + 1).find_map(of).unwrap_or(Split::Train)
}

/// A numbered frame not far from `root`, if there is one.
fn first_frame(root: &Path) -> Option<PathBuf> {
    let mut folders = vec![(root.to_path_buf(), 0)];
    for looks in 0..MOST_LOOKS {
        let (folder, depth) = folders.get(looks).cloned()?;
        // What cannot be looked into is another format's to tell.
        let found = entries(&folder).unwrap_or_default();
        if let Some((_, frame)) = numbered(&found, ".npz").into_iter().next() {
            return Some(frame);
        }
        let room = MOST_LOOKS.saturating_sub(folders.len());
        let below = found.into_iter().filter(|path| depth < DEEPEST && path.is_dir() && !path.ends_with(PLANES));
        folders.extend(below.take(room).map(|path| (path, depth + 1)));
    }
    None
}

/// The folders of numbered frames in `folder` and `deeper` levels below it.
fn find(folder: &Path, deeper: usize, scenes: &mut Vec<(PathBuf, Vec<(usize, PathBuf)>)>) -> Result<()> {
    let found = entries(folder)?;
    let frames = numbered(&found, ".npz");
    if !frames.is_empty() {
        scenes.push((folder.to_path_buf(), frames));
        return Ok(());
    }
    for path in found.iter().filter(|_| deeper > 0) {
        if !path.ends_with(PLANES) && look(path)?.is_some_and(|found| found.is_dir()) {
            find(path, deeper - 1, scenes)?;
        }
    }
    Ok(())
}
