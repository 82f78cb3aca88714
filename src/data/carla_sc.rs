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

use super::classes::CARLA_SC;
use super::{Grid, Split, by};
use crate::figures::shell_quoted;
use crate::files::{is_incomplete, unreadable};
use crate::{Error, Result};

mod folders;
mod scan;
mod text;

pub use text::{parse_grid, parse_table};

pub(super) use scan::{Findings, listed, scan};

use folders::{entries, is_folder, look};

/// The folder that holds the splits: `root` itself or its `Cartesian` folder.
pub(super) fn base(root: &Path) -> Result<PathBuf> {
    // The mark stands at the root, which may be given by its `Cartesian` folder.
    let whole = [Some(root), root.parent().filter(|_| root.ends_with("Cartesian"))];
    if let Some(folder) = whole.into_iter().flatten().find(|folder| is_incomplete(folder)) {
        return Err(Error::Data(format!(
            "{} is not complete: what wrote it was stopped or failed; run it again (see INCOMPLETE.txt there)",
            folder.display()
        )));
    }
    if !look(root)?.is_some_and(|found| found.is_dir()) {
        return Err(Error::Data(format!(
            "{} is not a folder; give the folder of a CarlaSC data set, or make one with `sep4d synth {}`",
            root.display(),
            shell_quoted(root)
        )));
    }
    for folder in [root.join("Cartesian"), root.to_path_buf()] {
        for split in Split::ALL {
            // Only `root` itself is known to be a folder, but then nothing is below the other.
            if look(&folder)?.is_some_and(|found| found.is_dir()) && is_folder(&folder.join(split.folder()))? {
                return Ok(folder);
            }
        }
    }
    if entries(root)?.is_empty() {
        return Err(Error::Data(format!(
            "{} is empty, with no Train, Val or Test folder; mount its disk, give the data set's root, or make one with `sep4d synth`",
            root.display()
        )));
    }
    Err(Error::Data(format!(
        "{} has no Train, Val or Test folder (nor Cartesian/Train ...); give the data set's root, or make one with `sep4d synth`",
        root.display()
    )))
}

/// The split itself, or Test in place of a missing Val.
pub(super) fn available_split(base: &Path, split: Split, warnings: &mut Vec<String>) -> Result<Split> {
    if is_filled(base, split)? {
        return Ok(split);
    }
    if split == Split::Val && is_filled(base, Split::Test)? {
        warnings.push(format!("{} has no Val split: validating on Test", base.display()));
        return Ok(Split::Test);
    }
    // Of the other splits only those are proposed that can be read.
    let others = Split::ALL.into_iter().filter(|&other| is_filled(base, other).unwrap_or(false));
    let others: Vec<&str> = others.map(Split::folder).collect();
    let advice = if others.is_empty() {
        "add sequences, or make a data set with `sep4d synth`".to_owned()
    } else {
        format!("choose a split that is there ({}), or add it", others.join(", "))
    };
    Err(Error::Data(format!("{} is missing or has no sequences; {advice}", base.join(split.folder()).display())))
}

/// Whether a split has anything that could be a sequence.
pub(super) fn is_filled(base: &Path, split: Split) -> Result<bool> {
    let folder = base.join(split.folder());
    if !is_folder(&folder)? {
        return Ok(false);
    }
    // What cannot be looked at could be one.
    Ok(entries(&folder)?.iter().any(|path| look(path).map_or(true, |found| found.is_some_and(|found| found.is_dir()))))
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
        match usize::try_from(id).ok().and_then(|id| CARLA_SC.class_of_raw.get(id)) {
            Some(&class) => classes.push(class),
            None => {
                return Err(Error::Data(format!(
                    "{} has the class id {id} at voxel {}, but CarlaSC's ids are 0 to {}; the file is damaged or of another \
                     data set",
                    path.display(),
                    voxel(i, grid),
                    CARLA_SC.class_of_raw.len() - 1
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

fn voxel(i: usize, grid: &Grid) -> String {
    let [_, ny, nz] = grid.size;
    format!("({}, {}, {})", i / (ny * nz), i / nz % ny, i % nz)
}

/// Checks that a file of four bytes a voxel has the size that the grid asks for; it is not opened, for opening a pipe would
/// wait for its writer.
pub(super) fn check_size(path: &Path, grid: &Grid) -> Result<()> {
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
