//! Reader of CarlaSC's layout (Wilson et al., "MotionSC", RA-L 2022).
//!
//! ```text
//! ROOT[/Cartesian]/{Train,Val,Test}/<Sequence>/cartesian/
//!     evaluation/NNNNNN.label   u32 little endian, [X, Y, Z] in C order: raw class ids
//!     evaluation/NNNNNN.bin     f32 little endian, the same shape: how many rays saw the voxel (0 = unobserved)
//!     evaluation/params.json    the grid (optional; that of the other sequences without it, or 128x128x8)
//!     poses.txt                 12 numbers a frame: a row-major 3x4 matrix (optional)
//!     times.txt                 one number a frame: seconds (optional; 10 Hz without it)
//! ```
//!
//! Hidden files are no part of a data set. Everything else that cannot be read is told, never left out.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::volumes::voxel;
use crate::data::folders::{entries, is_folder, look};
use crate::data::source::{Exported, Findings, Sequence, Sink, Source};
use crate::data::{ClassSet, Grid, Split, by};
use crate::files::{make_folder, unreadable, write_atomically};
use crate::{Error, Result};

mod classes;
mod scan;
mod text;

pub use classes::{CARLA_SC, CLASS_OF_RAW, published_counts, published_frequencies};
pub use text::{parse_grid, parse_table};

pub(super) use text::read_table;

/// A data set in CarlaSC's layout.
#[derive(Debug)]
struct CarlaSc {
    /// The folder that holds the splits.
    base: PathBuf,
}

/// The data set at `root` or in its `Cartesian` folder, if there is a split's folder.
pub(super) fn open(root: &Path) -> Result<Option<Arc<dyn Source>>> {
    for base in [root.join("Cartesian"), root.to_path_buf()] {
        for split in Split::ALL {
            // Only `root` itself is known to be a folder, but then nothing is below the other.
            if look(&base)?.is_some_and(|found| found.is_dir()) && is_folder(&base.join(split.folder()))? {
                return Ok(Some(Arc::new(CarlaSc { base })));
            }
        }
    }
    Ok(None)
}

impl Source for CarlaSc {
    fn base(&self) -> &Path {
        &self.base
    }

    fn about(&self) -> String {
        "CarlaSC's layout; id 0 is free; a voxel is observed where its .bin is not 0".into()
    }

    fn classes(&self) -> &Arc<ClassSet> {
        &CARLA_SC
    }

    fn place(&self, split: Split) -> String {
        self.base.join(split.folder()).display().to_string()
    }

    fn has(&self, split: Split) -> Result<bool> {
        let folder = self.base.join(split.folder());
        if !is_folder(&folder)? {
            return Ok(false);
        }
        // What cannot be looked at could be one.
        let could_be = |path: &PathBuf| look(path).map_or(true, |found| found.is_some_and(|found| found.is_dir()));
        Ok(entries(&folder)?.iter().any(could_be))
    }

    fn scan(&self, split: Split, wanted: &[String], findings: &mut Findings) -> Vec<Sequence> {
        scan::scan(&self.base, split, wanted, findings)
    }

    fn inspect(&self, sequence: &Sequence, i: usize) -> Result<()> {
        check_size(&sequence.labels[i], &sequence.grid)?;
        check_size(&sequence.masks[i], &sequence.grid)
    }

    fn labels(&self, sequence: &Sequence, i: usize) -> Result<Vec<u8>> {
        read_labels(&sequence.labels[i], &sequence.grid)
    }

    fn observed(&self, sequence: &Sequence, i: usize) -> Result<Vec<bool>> {
        read_mask(&sequence.masks[i], &sequence.grid)
    }

    fn sink(&self, out: &Path, grid: &Grid) -> Result<Box<dyn Sink>> {
        Ok(Box::new(Writer { out: out.to_path_buf(), grid: *grid, begun: None }))
    }
}

/// Writes frames in CarlaSC's layout.
struct Writer {
    out: PathBuf,
    grid: Grid,
    /// The folder whose grid was written last.
    begun: Option<PathBuf>,
}

impl Writer {
    fn sequence(&self, split: Split, sequence: &str) -> PathBuf {
        self.out.join(split.folder()).join(sequence)
    }
}

impl Sink for Writer {
    fn put(&mut self, frame: &Exported) -> Result<()> {
        let evaluation = self.sequence(frame.split, frame.sequence).join("cartesian/evaluation");
        let grid = &self.grid;
        if self.begun.as_ref() != Some(&evaluation) {
            make_folder(&evaluation)?;
            let text = serde_json::json!({
                "grid_size": grid.size.map(|side| side as f64),
                "min_bound": grid.min_bound_m,
                "max_bound": grid.max_bound_m(),
                "coordinates": "cartesian",
            });
            write_atomically(&evaluation.join("params.json"), text.to_string().as_bytes())?;
            self.begun = Some(evaluation.clone());
        }
        let ids = frame.labels.iter().flat_map(|&class| u32::from(CARLA_SC.id_of(class)).to_le_bytes());
        let rays = frame.observed.iter().flat_map(|&seen| f32::from(u8::from(seen)).to_le_bytes());
        write_atomically(&evaluation.join(format!("{:06}.label", frame.number)), &ids.collect::<Vec<u8>>())?;
        write_atomically(&evaluation.join(format!("{:06}.bin", frame.number)), &rays.collect::<Vec<u8>>())
    }

    fn beside(&self, split: Split, sequence: &str) -> PathBuf {
        self.sequence(split, sequence)
    }
}

/// Reads a frame's classes, `[X, Y, Z]`.
///
/// # Errors
/// [`Error::Data`] if the file is unreadable, and as for [`parse_labels`].
pub fn read_labels(path: &Path, grid: &Grid) -> Result<Vec<u8>> {
    parse_labels(&read_grid_file(path, grid)?, grid, path)
}

/// The classes in the bytes of a label file, `[X, Y, Z]`.
///
/// # Errors
/// [`Error::Data`], naming `path`, if it has another size than the grid, or holds an id that CarlaSC does not have.
pub fn parse_labels(bytes: &[u8], grid: &Grid, path: &Path) -> Result<Vec<u8>> {
    let words = words(bytes, grid, path)?;
    let mut classes = Vec::with_capacity(words.len());
    for (i, word) in words.iter().enumerate() {
        let id = u32::from_le_bytes(*word);
        match CARLA_SC.class_of(id.into()) {
            Some(class) => classes.push(class),
            None => {
                return Err(Error::Data(format!(
                    "{} has the class id {id} at voxel {}, but CarlaSC's ids are 0 to {}; the file is damaged or of another \
                     data set",
                    path.display(),
                    voxel(i, grid),
                    CARLA_SC.largest_id()
                )));
            }
        }
    }
    Ok(classes)
}

/// Reads which voxels of a frame were observed, `[X, Y, Z]`.
///
/// # Errors
/// [`Error::Data`] if the file is unreadable, and as for [`parse_mask`].
pub fn read_mask(path: &Path, grid: &Grid) -> Result<Vec<bool>> {
    parse_mask(&read_grid_file(path, grid)?, grid, path)
}

/// Which voxels were observed, by the bytes of a mask file, `[X, Y, Z]`.
///
/// # Errors
/// [`Error::Data`], naming `path`, if it has another size than the grid, or holds NaN or infinity.
pub fn parse_mask(bytes: &[u8], grid: &Grid, path: &Path) -> Result<Vec<bool>> {
    let words = words(bytes, grid, path)?;
    let mut observed = Vec::with_capacity(words.len());
    for (i, word) in words.iter().enumerate() {
        let rays = f32::from_le_bytes(*word);
        if !rays.is_finite() {
            return Err(Error::Data(format!(
                "{} holds {rays} at voxel {}; the file is damaged: copy or generate it again",
                path.display(),
                voxel(i, grid)
            )));
        }
        observed.push(rays != 0.0);
    }
    Ok(observed)
}

/// The four bytes of each voxel.
fn words<'a>(bytes: &'a [u8], grid: &Grid, path: &Path) -> Result<&'a [[u8; 4]]> {
    let have = bytes.len() as u64;
    if have != file_bytes(grid) { Err(wrong_size(path, grid, have)) } else { Ok(bytes.as_chunks::<4>().0) }
}

/// Checks that a file of four bytes a voxel has the size that the grid asks for; it is not opened, for opening a pipe would
/// wait for its writer.
fn check_size(path: &Path, grid: &Grid) -> Result<()> {
    let Some(metadata) = look(path)? else {
        return Err(Error::Data(format!(
            "{} is missing; copy it too, for every frame needs its .label and its .bin file",
            path.display()
        )));
    };
    if !metadata.is_file() {
        return Err(Error::Data(format!("{} is no regular file; copy or generate it again", path.display())));
    }
    if metadata.len() != file_bytes(grid) { Err(wrong_size(path, grid, metadata.len())) } else { Ok(()) }
}

fn file_bytes(grid: &Grid) -> u64 {
    grid.voxels() as u64 * 4
}

fn wrong_size(path: &Path, grid: &Grid, have: u64) -> Error {
    Error::Data(format!(
        "{} has {have} bytes, but a {} grid needs {}; copy or generate the file again, or correct params.json",
        path.display(),
        by(grid.size),
        file_bytes(grid)
    ))
}

/// The bytes of a file of four bytes a voxel; its size is checked before anything is allocated.
fn read_grid_file(path: &Path, grid: &Grid) -> Result<Vec<u8>> {
    check_size(path, grid)?;
    let expected = file_bytes(grid);
    let mut bytes = Vec::with_capacity(expected as usize);
    let file = File::open(path).map_err(|e| unreadable(path, &e))?;
    file.take(expected + 1).read_to_end(&mut bytes).map_err(|e| unreadable(path, &e))?;
    Ok(bytes)
}
