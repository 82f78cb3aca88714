//! The text files of a sequence: its grid, its poses and its times.

use std::path::Path;

use crate::data::folders::look;
use crate::data::numbers::{listed, runs};
use crate::data::{Grid, by};
use crate::files::{read_at_most, text_of};
use crate::{Error, Result};

/// No grid side is longer than this, and no grid has more voxels: it keeps nonsense in a params.json from becoming a huge
/// file size.
const LONGEST_SIDE: f64 = 4096.0;
const MOST_VOXELS: usize = 1 << 28;
/// No text file of a sequence is larger than this (a million lines of poses).
const LARGEST_TEXT: u64 = 256 << 20;

/// The rows of a text table that belong to the frames, or `None` if there is no such file.
///
/// # Errors
/// [`Error::Data`] as for [`parse_table`], or if the file is there but cannot be read.
pub(in crate::data::formats) fn read_table<const N: usize>(
    path: &Path,
    frames: &[usize],
) -> Result<Option<Vec<[f64; N]>>> {
    if look(path)?.is_none() {
        return Ok(None);
    }
    let rows = parse_table(read_at_most(path, LARGEST_TEXT)?, path)?;
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

/// Parses a table of N finite numbers a line, in UTF-8 with or without a byte-order mark; empty lines may follow it.
///
/// Line n belongs to frame n; a table with exactly one line a frame is also accepted where frame numbers do not start at 0.
///
/// # Errors
/// [`Error::Data`], naming `path`, if it is no text or has other lines.
pub fn parse_table<const N: usize>(bytes: Vec<u8>, path: &Path) -> Result<Vec<[f64; N]>> {
    let text = text_of(bytes, path)?;
    let mut rows = Vec::new();
    let mut wrong = Vec::new();
    for (i, line) in text.trim_end().lines().enumerate() {
        let mut row = [f64::NAN; N];
        let mut words = line.split_whitespace();
        // A word too few or in excess leaves the row as wrong as one that is no number.
        row.iter_mut().zip(&mut words).for_each(|(value, word)| *value = word.parse().unwrap_or(f64::NAN));
        if words.next().is_none() && row.iter().all(|value| value.is_finite()) {
            rows.push(row);
        } else {
            wrong.push(i + 1);
        }
    }
    if wrong.is_empty() {
        return Ok(rows);
    }
    let (lines, are) = if wrong.len() == 1 { ("line", "is") } else { ("lines", "are") };
    Err(Error::Data(format!(
        "{lines} {} of {} {are} not {N} finite number{}; correct or remove the file",
        listed(&runs(wrong), 1),
        path.display(),
        if N == 1 { "" } else { "s" }
    )))
}

#[derive(serde::Deserialize)]
struct Params {
    grid_size: [f64; 3],
    min_bound: [f64; 3],
    max_bound: [f64; 3],
    coordinates: Option<String>,
}

/// The grid of `evaluation/params.json` or the `params.json` beside that folder, if there is one.
///
/// # Errors
/// [`Error::Data`] as for [`parse_grid`], or if the file is there but cannot be read.
pub(super) fn read_grid(inner: &Path) -> Result<Option<Grid>> {
    for path in [inner.join("evaluation/params.json"), inner.join("params.json")] {
        if look(&path)?.is_some() {
            return parse_grid(read_at_most(&path, LARGEST_TEXT)?, &path).map(Some);
        }
    }
    Ok(None)
}

/// Parses the text of a params.json.
///
/// # Errors
/// [`Error::Data`], naming `path`, if it does not describe a cartesian grid.
pub fn parse_grid(bytes: Vec<u8>, path: &Path) -> Result<Grid> {
    let wrong = |why: &dyn std::fmt::Display| {
        Error::Data(format!("{} does not describe a grid ({why}); correct the file or remove it", path.display()))
    };
    let params: Params = serde_json::from_str(&text_of(bytes, path)?).map_err(|e| wrong(&e))?;
    if let Some(coordinates) = params.coordinates.filter(|name| !name.eq_ignore_ascii_case("cartesian")) {
        return Err(Error::Data(format!(
            "{} says that the grid has {coordinates:?} coordinates, but only cartesian grids can be read; give the cartesian \
             files of the data set",
            path.display()
        )));
    }
    let mut grid = Grid::CARLA_SC;
    for a in 0..3 {
        let (side, low, high) = (params.grid_size[a], params.min_bound[a], params.max_bound[a]);
        if !(1.0..=LONGEST_SIDE).contains(&side) || side.fract() != 0.0 {
            return Err(wrong(&format!("grid_size has {side}, which is no number of voxels from 1 to {LONGEST_SIDE}")));
        }
        let voxel = (high - low) / side;
        grid.size[a] = side as usize;
        // Written as f32 by CarlaSC: -25.600000381469727 means -25.6.
        grid.min_bound_m[a] = (low * 1e6).round() / 1e6;
        grid.voxel_size_m[a] = (voxel * 1e6).round() / 1e6;
        let fits = grid.min_bound_m[a].is_finite() && grid.voxel_size_m[a].is_finite() && grid.voxel_size_m[a] > 0.0;
        if !fits {
            return Err(wrong(&format!("the bounds {low} and {high} enclose nothing")));
        }
    }
    if grid.voxels() > MOST_VOXELS {
        return Err(wrong(&format!("{} are more than {MOST_VOXELS} voxels", by(grid.size))));
    }
    Ok(grid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "a/times.txt";

    fn table<const N: usize>(text: impl Into<Vec<u8>>) -> Result<Vec<[f64; N]>> {
        parse_table(text.into(), Path::new(PATH))
    }

    #[test]
    fn tables_of_every_system_are_read() {
        let rows = [[0.0, 0.5], [1.0, -2e3]];
        for text in ["0 .5\n1 -2e3\n", "\u{feff}0 0.5\r\n1\t-2000.0\r\n\r\n", "0 0.5\n1 -2000\n \n\n"] {
            assert_eq!(table::<2>(text).unwrap(), rows);
        }
        assert!(table::<2>("").unwrap().is_empty() && table::<1>("\u{feff}").unwrap().is_empty());
    }

    #[test]
    fn every_wrong_line_is_named() {
        let message = |text: &str| table::<1>(text).unwrap_err().to_string();
        // A line that is left empty in the middle would shift all that follow.
        assert!(message("0\n\n2\n").contains("line 2 of a/times.txt is not 1 finite number;"));
        assert!(message("0 1\nx\nnan\n3\n1e999\n").contains("lines 1 to 3, 5 of a/times.txt are not"));
        let utf16: Vec<u8> = [0xFF, 0xFE].into_iter().chain("0\n".encode_utf16().flat_map(u16::to_le_bytes)).collect();
        assert!(table::<1>(utf16).unwrap_err().to_string().contains("UTF-16"));
    }

    #[test]
    fn only_cartesian_grids_are_read() {
        let grid = |coordinates: &str, side: u32| {
            let text = format!(
                r#"{{"grid_size": [{side}, 2, 2], "min_bound": [0, 0, 0], "max_bound": [1, 1, 1], "coordinates": {coordinates}}}"#
            );
            parse_grid(text.into_bytes(), Path::new("params.json"))
        };
        assert!(grid("\"cartesian\"", 2).is_ok() && grid("null", 2).is_ok());
        let why = grid("\"cylindrical\"", 2).unwrap_err().to_string();
        assert!(why.contains("params.json says that the grid has \"cylindrical\" coordinates"), "{why}");
        assert!(grid("7", 2).is_err() && grid("\"cartesian\"", 5000).is_err());
        let huge = r#"{"grid_size": [4096, 4096, 4096], "min_bound": [0, 0, 0], "max_bound": [1, 1, 1]}"#;
        let why = parse_grid(huge.into(), Path::new("params.json")).unwrap_err().to_string();
        assert!(why.contains("4096x4096x4096 are more than"), "{why}");
        assert!(parse_grid(format!("\u{feff}{}", huge.replace("4096", "2")).into_bytes(), Path::new("x")).is_ok());
    }
}
