//! Reader of SemanticKITTI's voxels (Behley et al., ICCV 2019), as its scene completion benchmark has them.
//!
//! ```text
//! ROOT[/dataset]/sequences/<NN>/voxels/NNNNNN.label     u16 little endian, [256, 256, 32] in C order: raw ids
//! ROOT[/dataset]/sequences/<NN>/voxels/NNNNNN.invalid   one bit a voxel, most significant first: 1 = never seen (optional)
//! ROOT[/dataset]/sequences/<NN>/poses.txt, calib.txt    motions of the left camera, and Tr from the scanner to it (optional)
//! ROOT[/dataset]/sequences/<NN>/times.txt               seconds (optional)
//! ```
//!
//! Sequence 08 is there to validate on, 11 to 21 to test on. Every fifth scan has voxels.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::carla_sc::read_table;
use super::listing::{Listed, Listing, numbered};
use super::npz_frames::PLANES;
use super::volumes::{embedded, unknown_id};
use crate::data::classes::{IGNORED, Row};
use crate::data::folders::{entries, look};
use crate::data::numbers::step;
use crate::data::source::{Exported, Findings, Sequence, Sink, Source, name};
use crate::data::{ClassSet, Grid, Handedness, Pose, Split, invert, pose_of_rows};
use crate::files::{make_folder, read_text_at_most, unreadable, write_atomically};
use crate::{Error, Result};

/// The grid before the scanner.
const GRID: Grid = Grid { size: [256, 256, 32], voxel_size_m: [0.2; 3], min_bound_m: [0.0, -25.6, -2.0] };
/// Seconds from one scan to the next.
const SCAN_SECS: f64 = 0.1;
const LONGEST_CALIBRATION: u64 = 1 << 20;

const CLASSES: [Row; 20] = [
    (0, "Free", [255, 255, 255]),
    (10, "Car", [70, 125, 235]),
    (11, "Bicycle", [235, 130, 150]),
    (15, "Motorcycle", [200, 160, 30]),
    (18, "Truck", [150, 60, 220]),
    (20, "Other vehicle", [0, 140, 140]),
    (30, "Person", [230, 60, 70]),
    (31, "Bicyclist", [240, 110, 200]),
    (32, "Motorcyclist", [140, 30, 60]),
    (40, "Road", [122, 92, 140]),
    (44, "Parking", [170, 120, 220]),
    (48, "Sidewalk", [216, 120, 190]),
    (49, "Other ground", [110, 110, 125]),
    (50, "Building", [214, 158, 74]),
    (51, "Fence", [190, 110, 60]),
    (70, "Vegetation", [70, 165, 80]),
    (71, "Trunk", [130, 75, 40]),
    (72, "Terrain", [150, 190, 90]),
    (80, "Pole", [240, 210, 60]),
    (81, "Traffic sign", [250, 150, 60]),
];

/// Further ids: things that move, what is merged, and what no class takes in.
const OTHER_IDS: [(u16, u8); 16] = [
    (1, IGNORED),
    (52, IGNORED),
    (99, IGNORED),
    (13, 5),
    (16, 5),
    (60, 9),
    (252, 1),
    (253, 7),
    (254, 6),
    (255, 8),
    (256, 5),
    (257, 5),
    (258, 4),
    (259, 5),
    // Names of other releases for the same.
    (21, 5),
    (22, 5),
];

/// Frames by their numbers, and the folder of their sequence.
#[derive(Debug, Clone)]
struct Part {
    folder: PathBuf,
    frames: Vec<(usize, PathBuf)>,
}

#[derive(Debug)]
struct SemanticKitti {
    listing: Listing<Part>,
    classes: Arc<ClassSet>,
}

/// The data set at `root`, if it has sequences of voxels.
pub(super) fn open(root: &Path) -> Result<Option<Arc<dyn Source>>> {
    let parent = root.parent().filter(|_| root.ends_with("sequences")).map(Path::to_path_buf);
    for base in parent.into_iter().chain([root.to_path_buf(), root.join("dataset")]) {
        let sequences = base.join("sequences");
        if !look(&sequences).is_ok_and(|found| found.is_some_and(|found| found.is_dir())) {
            continue;
        }
        let mut all = Vec::new();
        for folder in entries(&sequences)? {
            let voxels = folder.join("voxels");
            if look(&voxels)?.is_none_or(|found| !found.is_dir()) {
                continue;
            }
            let frames = numbered(&entries(&voxels)?, ".label");
            if !frames.is_empty() {
                let name = name(&folder);
                let split = match name.parse() {
                    Ok(8) => Split::Val,
                    Ok(11..=21) => Split::Test,
                    Ok(0u32..=10) | Ok(22..) | Err(_) => Split::Train,
                };
                all.push(Listed { split, name, part: Part { folder, frames } });
            }
        }
        if !all.is_empty() {
            let classes = ClassSet::known("SemanticKITTI", Handedness::Right, &CLASSES, &OTHER_IDS);
            return Ok(Some(Arc::new(SemanticKitti { listing: Listing::new(&base, all), classes })));
        }
    }
    Ok(None)
}

/// The file of a frame's `.label` that says where nothing was seen.
fn invalid(label: &Path) -> PathBuf {
    label.with_extension("invalid")
}

/// The bytes of a file that must have so many; nothing is allocated before that is known.
fn read_exactly(path: &Path, bytes: usize) -> Result<Vec<u8>> {
    check_size(path, bytes)?;
    let file = File::open(path).map_err(|why| unreadable(path, &why))?;
    let mut found = Vec::with_capacity(bytes);
    file.take(bytes as u64 + 1).read_to_end(&mut found).map_err(|why| unreadable(path, &why))?;
    if found.len() == bytes { Ok(found) } else { Err(wrong_size(path, found.len() as u64, bytes)) }
}

fn check_size(path: &Path, bytes: usize) -> Result<()> {
    match look(path)? {
        Some(found) if found.is_file() && found.len() == bytes as u64 => Ok(()),
        Some(found) if found.is_file() => Err(wrong_size(path, found.len(), bytes)),
        _ => Err(Error::Data(format!("{} is missing or no regular file; copy it again", path.display()))),
    }
}

fn wrong_size(path: &Path, have: u64, need: usize) -> Error {
    Error::Data(format!(
        "{} has {have} bytes, but SemanticKITTI's 256x256x32 grid needs {need}; copy the file again",
        path.display()
    ))
}

/// The motions of the scanner, from those of the camera beside it.
fn poses(folder: &Path, numbers: &[usize]) -> Result<Option<Vec<Pose>>> {
    let calibration = folder.join("calib.txt");
    let Some(poses) = read_table::<12>(&folder.join("poses.txt"), numbers)? else { return Ok(None) };
    if look(&calibration)?.is_none() {
        return Ok(None);
    }
    let text = read_text_at_most(&calibration, LONGEST_CALIBRATION)?;
    let line = text.lines().find_map(|line| line.strip_prefix("Tr:").or(line.strip_prefix("Tr_velo_to_cam:")));
    let values: Option<Vec<f64>> =
        line.and_then(|line| line.split_whitespace().map(|word| word.parse().ok()).collect());
    let to_camera = values.and_then(|values| values.try_into().ok()).map(|rows| pose_of_rows(&rows));
    let motion = to_camera.and_then(|to_camera| Some((to_camera, invert(&to_camera)?)));
    let (to_camera, back) = motion.ok_or_else(|| {
        Error::Data(format!(
            "{} has no line `Tr:` with the 12 numbers of a motion; correct or remove it",
            calibration.display()
        ))
    })?;
    Ok(Some(poses.iter().map(|rows| back * pose_of_rows(rows) * to_camera).collect()))
}

impl SemanticKitti {
    fn sequence(listed: &Listed<Part>) -> Result<Sequence> {
        let (numbers, labels): (Vec<usize>, Vec<PathBuf>) = listed.part.frames.iter().cloned().unzip();
        let folder = &listed.part.folder;
        let times = read_table::<1>(&folder.join("times.txt"), &numbers)?;
        let texts = ["poses.txt", "calib.txt", "times.txt"].map(|name| folder.join(name));
        Ok(Sequence {
            name: listed.name.clone(),
            grid: GRID,
            step: step(&numbers),
            masks: labels.iter().map(|label| invalid(label)).filter(|path| path.is_file()).collect(),
            labels,
            texts: texts.into_iter().filter(|path| path.is_file()).collect(),
            has_times: times.is_some(),
            times_secs: match times {
                Some(times) => times.into_iter().map(|[secs]| secs).collect(),
                None => numbers.iter().map(|&number| number as f64 * SCAN_SECS).collect(),
            },
            poses: poses(folder, &numbers)?,
            numbers,
        })
    }
}

impl Source for SemanticKitti {
    fn base(&self) -> &Path {
        self.listing.base()
    }

    fn about(&self) -> String {
        format!(
            "SemanticKITTI's voxels; id 0 is free, and ids 1, 52 and 99 count as unobserved; a voxel is observed where its bit \
             of .invalid is 0{}",
            self.listing.held_out()
        )
    }

    fn classes(&self) -> &Arc<ClassSet> {
        &self.classes
    }

    fn place(&self, split: Split) -> String {
        self.listing.place(split)
    }

    fn has(&self, split: Split) -> Result<bool> {
        Ok(self.listing.has(split))
    }

    fn scan(&self, split: Split, wanted: &[String], findings: &mut Findings) -> Vec<Sequence> {
        self.listing.scan(split, wanted, findings, |listed, _| SemanticKitti::sequence(listed))
    }

    fn inspect(&self, sequence: &Sequence, i: usize) -> Result<()> {
        check_size(&sequence.labels[i], GRID.voxels() * 2)?;
        let invalid = invalid(&sequence.labels[i]);
        look(&invalid)?.map_or(Ok(()), |_| check_size(&invalid, GRID.voxels() / 8))
    }

    fn labels(&self, sequence: &Sequence, i: usize) -> Result<Vec<u8>> {
        let path = &sequence.labels[i];
        let bytes = read_exactly(path, GRID.voxels() * 2)?;
        let ids = bytes.as_chunks::<2>().0.iter().map(|word| u16::from_le_bytes(*word)).enumerate();
        ids.map(|(at, id)| {
            let class = self.classes.class_of(id.into());
            class.ok_or_else(|| unknown_id(path, id.into(), at, &GRID, &self.classes))
        })
        .collect()
    }

    fn observed(&self, sequence: &Sequence, i: usize) -> Result<Vec<bool>> {
        let path = invalid(&sequence.labels[i]);
        if look(&path)?.is_none() {
            return Ok(vec![true; GRID.voxels()]);
        }
        let bytes = read_exactly(&path, GRID.voxels() / 8)?;
        Ok(bytes.iter().flat_map(|byte| (0..8).map(move |bit| byte >> (7 - bit) & 1 == 0)).collect())
    }

    fn sink(&self, out: &Path, grid: &Grid) -> Result<Box<dyn Sink>> {
        Ok(Box::new(Writer { out: out.to_path_buf(), part: *grid, classes: self.classes.clone() }))
    }
}

/// Writes `.label` and `.invalid` files.
struct Writer {
    out: PathBuf,
    /// The grid of the frames.
    part: Grid,
    classes: Arc<ClassSet>,
}

impl Sink for Writer {
    fn put(&mut self, frame: &Exported) -> Result<()> {
        let folder = self.out.join("sequences").join(frame.sequence).join("voxels");
        make_folder(&folder)?;
        let labels = embedded(frame.labels, &self.part, &GRID, 0)?;
        let observed = embedded(frame.observed, &self.part, &GRID, false)?;
        let ids: Vec<u8> = labels.iter().flat_map(|&class| self.classes.id_of(class).to_le_bytes()).collect();
        let pack = |bits: &[bool]| bits.iter().fold(0, |byte, seen| byte << 1 | u8::from(!seen));
        let invalid: Vec<u8> = observed.chunks(8).map(pack).collect();
        write_atomically(&folder.join(format!("{:06}.label", frame.number)), &ids)?;
        write_atomically(&folder.join(format!("{:06}.invalid", frame.number)), &invalid)
    }

    fn beside(&self, _: Split, sequence: &str) -> PathBuf {
        self.out.join(PLANES).join(sequence)
    }
}
