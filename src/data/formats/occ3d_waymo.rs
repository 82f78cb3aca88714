//! Reader of Occ3D-Waymo (Tian et al., NeurIPS 2023) at 0.4 m.
//!
//! ```text
//! ROOT/{training,validation,test}/<NNN>/<fff>_04.npz   voxel_label, origin_voxel_state [200, 200, 16]
//! ```

use std::path::Path;
use std::sync::Arc;

use super::listing::{Listed, Listing, numbered};
use super::npz_frames::{NpzFrames, Recording};
use super::occ3d_nuscenes::GRID;
use super::volumes::{Volume, commonest};
use crate::data::classes::Row;
use crate::data::folders::{entries, look};
use crate::data::npy::Arrays;
use crate::data::source::{Source, name};
use crate::data::{ClassSet, Handedness, Split};
use crate::{Error, Result};

const FOLDERS: [(&str, Split); 3] = [("training", Split::Train), ("validation", Split::Val), ("test", Split::Test)];
const LABELS: &str = "voxel_label";
const MASK: &str = "origin_voxel_state";
/// The ids that stand for free space: the authors' and that of other releases.
const FREE: [u16; 2] = [15, 23];

const CLASSES: [Row; 15] = [
    (0, "General object", [60, 190, 200]),
    (1, "Vehicle", [70, 125, 235]),
    (2, "Pedestrian", [230, 60, 70]),
    (3, "Sign", [250, 150, 60]),
    (4, "Cyclist", [150, 60, 220]),
    (5, "Traffic light", [240, 210, 60]),
    (6, "Pole", [200, 160, 30]),
    (7, "Construction cone", [255, 110, 20]),
    (8, "Bicycle", [235, 130, 150]),
    (9, "Motorcycle", [0, 140, 140]),
    (10, "Building", [214, 158, 74]),
    (11, "Vegetation", [70, 165, 80]),
    (12, "Tree trunk", [130, 75, 40]),
    (13, "Road", [122, 92, 140]),
    (14, "Walkable", [216, 120, 190]),
];

/// The data set at `root`, if a split of it has frames at 0.4 m.
pub(super) fn open(root: &Path) -> Result<Option<Arc<dyn Source>>> {
    let mut all = Vec::new();
    for (folder, split) in FOLDERS {
        let folder = root.join(folder);
        if !look(&folder)?.is_some_and(|found| found.is_dir()) {
            continue;
        }
        for scene in entries(&folder)? {
            if look(&scene)?.is_some_and(|found| found.is_dir()) {
                let frames = numbered(&entries(&scene)?, "_04.npz");
                let part = Recording { frames, ..Recording::default() };
                all.extend((!part.frames.is_empty()).then(|| Listed { split, name: name(&scene), part }));
            }
        }
    }
    let Some(first) = all.first().and_then(|listed| Some(listed.part.frames.first()?.1.clone())) else {
        return Ok(None);
    };
    let listing = Listing::new(root, all);
    Ok(Some(Arc::new(NpzFrames {
        format: "Occ3D-Waymo".into(),
        classes: classes(&first)?,
        grid: GRID,
        labels: LABELS,
        mask: MASK,
        has_mask: Arrays::open(&first)?.header(MASK)?.is_some(),
        pose: None,
        secs: 0.1,
        whole: None,
        listing,
    })))
}

/// The classes, with the id of free space that the file has most of.
fn classes(path: &Path) -> Result<Arc<ClassSet>> {
    let most = commonest(&Volume::of(path, LABELS, &GRID))?;
    let Some(free) = FREE.into_iter().find(|free| Some(u64::from(*free)) == most) else {
        return Err(Error::Data(format!(
            "{} is mostly of the id {}, where free space is 15 or 23 in Occ3D-Waymo; give a data set of that kind",
            path.display(),
            most.map_or("none".to_owned(), |id| id.to_string())
        )));
    };
    let rows: Vec<Row> = [(free, "Free", [255; 3])].into_iter().chain(CLASSES).collect();
    let other = FREE.map(|id| (id, 0));
    Ok(ClassSet::known("Occ3D-Waymo", Handedness::Right, &rows, &other))
}
