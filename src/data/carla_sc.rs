//! Reader of CarlaSC's layout (Wilson et al., "MotionSC", RA-L 2022).
//!
//! ```text
//! ROOT[/Cartesian]/{Train,Val,Test}/<Sequence>/cartesian/
//!     evaluation/NNNNNN.label   u32 little endian, [X, Y, Z] in C order: raw class ids
//!     evaluation/NNNNNN.bin     f32 little endian, the same shape: how many rays saw the voxel (0 = unobserved)
//!     evaluation/params.json    the grid (optional; 128x128x8 without it)
//!     poses.txt                 12 numbers a frame: a row-major 3x4 matrix (optional)
//!     times.txt                 one number a frame: seconds (optional; 10 Hz without it)
//! ```

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::classes::CARLA_SC;
use super::{Grid, Sequence, Split, by};
use crate::files::{is_incomplete, read_text_at_most, unreadable};
use crate::{Error, Result};

/// No grid side is longer than this; it keeps nonsense in a params.json from becoming a huge file size.
const LONGEST_SIDE: f64 = 4096.0;
/// No text file of a sequence is larger than this (a million lines of poses).
const LARGEST_TEXT: u64 = 256 << 20;

/// The folder that holds the splits: `root` itself or its `Cartesian` folder.
pub(super) fn base(root: &Path) -> Result<PathBuf> {
    let splits = |folder: &Path| {
        [Split::Train, Split::Val, Split::Test].into_iter().any(|split| folder.join(split.folder()).is_dir())
    };
    // The mark stands at the root, which may be given by its `Cartesian` folder.
    let whole = [Some(root), root.parent().filter(|_| root.ends_with("Cartesian"))];
    if let Some(folder) = whole.into_iter().flatten().find(|folder| is_incomplete(folder)) {
        return Err(Error::Data(format!(
            "{} is not complete: what wrote it was stopped or failed; run it again (see INCOMPLETE.txt there)",
            folder.display()
        )));
    }
    if !root.is_dir() {
        return Err(Error::Data(format!(
            "{} is not a folder; give the folder of a CarlaSC data set, or make one with `sep4d synth {}`",
            root.display(),
            root.display()
        )));
    }
    [root.join("Cartesian"), root.to_path_buf()].into_iter().find(|folder| splits(folder)).ok_or_else(|| {
        Error::Data(format!(
            "{} has no Train, Val or Test folder (nor Cartesian/Train ...); give the data set's root, or make one with \
             `sep4d synth`",
            root.display()
        ))
    })
}

/// The split itself, or Test in place of a missing Val.
pub(super) fn available_split(base: &Path, split: Split, warnings: &mut Vec<String>) -> Result<Split> {
    let filled = |split: Split| {
        entries(&base.join(split.folder())).is_ok_and(|entries| entries.iter().any(|entry| entry.is_dir()))
    };
    if split == Split::Val && !filled(Split::Val) && filled(Split::Test) {
        warnings.push(format!("{} has no Val split: validating on Test", base.display()));
        return Ok(Split::Test);
    }
    if filled(split) {
        return Ok(split);
    }
    let others: Vec<&str> =
        [Split::Train, Split::Val, Split::Test].into_iter().filter(|&s| filled(s)).map(Split::folder).collect();
    let advice = if others.is_empty() {
        "add sequences, or make a data set with `sep4d synth`".to_owned()
    } else {
        format!("choose a split that is there ({}), or add it", others.join(", "))
    };
    Err(Error::Data(format!("{} is missing or has no sequences; {advice}", base.join(split.folder()).display())))
}

/// Lists the frames of every sequence of a split, in order of the sequences' names, and their common grid.
pub(super) fn scan(base: &Path, split: Split, warnings: &mut Vec<String>) -> Result<(Grid, Vec<Sequence>)> {
    let folder = base.join(split.folder());
    let mut sequences = Vec::new();
    let mut common: Option<(Grid, PathBuf)> = None;
    let mut without_grid = Vec::new();
    for path in entries(&folder)?.into_iter().filter(|path| path.is_dir()) {
        let inner = path.join("cartesian");
        if !inner.join("evaluation").is_dir() {
            warnings.push(format!("{} has no cartesian/evaluation folder and is left out", path.display()));
            continue;
        }
        let grid = match read_grid(&inner)? {
            Some(grid) => grid,
            None => {
                without_grid.push(name(&path));
                Grid::CARLA_SC
            }
        };
        match &common {
            Some((first, from)) if *first != grid => {
                return Err(Error::Data(format!(
                    "{} and {} have different grids ({} of {:?} m and {} of {:?} m); keep only sequences of one grid",
                    from.display(),
                    path.display(),
                    by(first.size),
                    first.voxel_size_m,
                    by(grid.size),
                    grid.voxel_size_m
                )));
            }
            Some(_) => {}
            None => common = Some((grid, path.clone())),
        }
        sequences.push(read_sequence(&inner, name(&path))?);
    }
    let Some((grid, _)) = common else {
        return Err(Error::Data(format!(
            "{} has no sequence with a cartesian/evaluation folder; check the layout, or make a data set with `sep4d synth`",
            folder.display()
        )));
    };
    let poseless: Vec<&str> = sequences.iter().filter(|s| s.poses.is_none()).map(|s| s.name.as_str()).collect();
    if !without_grid.is_empty() {
        let grid = by(Grid::CARLA_SC.size);
        warnings.push(format!("no params.json in {}: the grid is taken to be {grid}", listed(&without_grid)));
    }
    if !poseless.is_empty() {
        warnings.push(format!("no poses.txt in {}: clips from there have no poses", listed(&poseless)));
    }
    let timeless: Vec<&str> = sequences.iter().filter(|s| s.times_secs.is_empty()).map(|s| s.name.as_str()).collect();
    if !timeless.is_empty() {
        warnings.push(format!("no times.txt in {}: frames are taken to be 0.1 s apart", listed(&timeless)));
    }
    for sequence in sequences.iter_mut().filter(|s| s.times_secs.is_empty()) {
        sequence.times_secs = sequence.numbers.iter().map(|&number| number as f64 * 0.1).collect();
    }
    Ok((grid, sequences))
}

/// Reads a frame's classes, `[X, Y, Z]`.
///
/// # Errors
/// [`Error::Data`] if the file is unreadable, has another size than the grid, or holds an id that CarlaSC does not have.
pub fn read_labels(path: &Path, grid: &Grid) -> Result<Vec<u8>> {
    let bytes = read_grid_file(path, grid)?;
    let mut classes = Vec::with_capacity(grid.voxels());
    for (i, word) in bytes.as_chunks::<4>().0.iter().enumerate() {
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
/// [`Error::Data`] if the file is unreadable, has another size than the grid, or holds NaN or infinity.
pub fn read_mask(path: &Path, grid: &Grid) -> Result<Vec<bool>> {
    let bytes = read_grid_file(path, grid)?;
    let mut observed = Vec::with_capacity(grid.voxels());
    for (i, word) in bytes.as_chunks::<4>().0.iter().enumerate() {
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

fn voxel(i: usize, grid: &Grid) -> String {
    let [_, ny, nz] = grid.size;
    format!("({}, {}, {})", i / (ny * nz), i / nz % ny, i % nz)
}

/// Checks that a file of four bytes a voxel has the size that the grid asks for; it is not opened, for opening a pipe would
/// wait for its writer.
pub(super) fn check_size(path: &Path, grid: &Grid) -> Result<()> {
    let metadata = fs::metadata(path).map_err(|e| unreadable(path, &e))?;
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
    let have = bytes.len() as u64;
    if have != expected { Err(wrong_size(path, grid, have)) } else { Ok(bytes) }
}

fn read_sequence(inner: &Path, name: String) -> Result<Sequence> {
    let evaluation = inner.join("evaluation");
    let mut frames = Vec::new();
    for path in entries(&evaluation)? {
        if path.extension().is_some_and(|e| e == "label") {
            let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
            let number: u32 = stem.parse().map_err(|_| {
                Error::Data(format!(
                    "{} is not named by a frame number; name it like 000000.label or remove it",
                    path.display()
                ))
            })?;
            frames.push((number as usize, path));
        }
    }
    frames.sort();
    if frames.is_empty() {
        return Err(Error::Data(format!(
            "{} has no .label files; add them, or remove the sequence",
            evaluation.display()
        )));
    }
    if let Some(pair) = frames.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let (a, b) = (pair[0].1.display(), pair[1].1.display());
        return Err(Error::Data(format!("{a} and {b} have the same frame number; remove one of them")));
    }
    let (numbers, labels): (Vec<usize>, Vec<PathBuf>) = frames.into_iter().unzip();
    let masks: Vec<PathBuf> = labels.iter().map(|path| path.with_extension("bin")).collect();
    if let Some(missing) = masks.iter().find(|path| !path.is_file()) {
        return Err(Error::Data(format!(
            "{} is missing beside its .label file; copy the mask files too",
            missing.display()
        )));
    }
    let times = read_table::<1>(&inner.join("times.txt"), &numbers)?.unwrap_or_default();
    let poses = read_table::<12>(&inner.join("poses.txt"), &numbers)?;
    Ok(Sequence { name, numbers, labels, masks, times_secs: times.into_iter().map(|[t]| t).collect(), poses })
}

/// The lines of a text table that belong to the frames, or `None` if there is no such file.
///
/// Line n is frame n; a table with exactly one line a frame is also accepted where frame numbers do not start at 0.
fn read_table<const N: usize>(path: &Path, frames: &[usize]) -> Result<Option<Vec<[f64; N]>>> {
    if !path.exists() {
        return Ok(None);
    }
    let text = read_text_at_most(path, LARGEST_TEXT)?;
    let mut rows = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let numbers: Vec<f64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
        let row: Option<[f64; N]> = numbers.try_into().ok().filter(|_| line.split_whitespace().count() == N);
        let row = row.filter(|row| row.iter().all(|v| v.is_finite())).ok_or_else(|| {
            Error::Data(format!(
                "line {} of {} is not {N} finite number{}; correct or remove the file",
                i + 1,
                path.display(),
                if N == 1 { "" } else { "s" }
            ))
        })?;
        rows.push(row);
    }
    if rows.len() == frames.len() {
        return Ok(Some(rows));
    }
    let wanted: Option<Vec<[f64; N]>> = frames.iter().map(|&number| rows.get(number).copied()).collect();
    wanted.map(Some).ok_or_else(|| {
        Error::Data(format!(
            "{} has {} lines, too few for the frames up to {}; correct or remove the file",
            path.display(),
            rows.len(),
            frames.last().copied().unwrap_or(0)
        ))
    })
}

#[derive(serde::Deserialize)]
struct Params {
    grid_size: [f64; 3],
    min_bound: [f64; 3],
    max_bound: [f64; 3],
}

/// The grid of `evaluation/params.json` or the `params.json` beside that folder, if there is one.
fn read_grid(inner: &Path) -> Result<Option<Grid>> {
    let Some(path) =
        [inner.join("evaluation/params.json"), inner.join("params.json")].into_iter().find(|path| path.exists())
    else {
        return Ok(None);
    };
    let wrong = |why: &dyn std::fmt::Display| {
        Error::Data(format!("{} does not describe a grid ({why}); correct the file or remove it", path.display()))
    };
    let params: Params = serde_json::from_str(&read_text_at_most(&path, LARGEST_TEXT)?).map_err(|e| wrong(&e))?;
    let mut grid = Grid::CARLA_SC;
    for a in 0..3 {
        let (side, low, high) = (params.grid_size[a], params.min_bound[a], params.max_bound[a]);
        if !(1.0..=LONGEST_SIDE).contains(&side) || side.fract() != 0.0 {
            return Err(wrong(&format!("grid_size has {side}, which is no number of voxels from 1 to {LONGEST_SIDE}")));
        }
        let voxel = (high - low) / side;
        if !low.is_finite() || !voxel.is_finite() || voxel <= 0.0 {
            return Err(wrong(&format!("the bounds {low} and {high} enclose nothing")));
        }
        grid.size[a] = side as usize;
        // Written as f32 by CarlaSC: -25.600000381469727 means -25.6.
        grid.min_bound_m[a] = (low * 1e6).round() / 1e6;
        grid.voxel_size_m[a] = (voxel * 1e6).round() / 1e6;
        if grid.voxel_size_m[a] <= 0.0 {
            return Err(wrong(&format!("the bounds {low} and {high} enclose nothing")));
        }
    }
    Ok(Some(grid))
}

/// The paths in a folder, sorted by name.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>())
        .map_err(|e| unreadable(folder, &e))?;
    paths.sort();
    Ok(paths)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// "A", or "A and 3 more sequences".
fn listed(names: &[impl AsRef<str>]) -> String {
    match names {
        [] => String::new(),
        [one] => one.as_ref().to_string(),
        [first, ..] => format!("{} and {} more sequences", first.as_ref(), names.len() - 1),
    }
}
