//! Writes towns as a data set in CarlaSC's layout.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::raster::{self, Volume};
use super::town::Town;
use super::traffic::{FRAME_SECS, Level, Moment, Traffic};
use super::{SynthOptions, pose_of};
use crate::data::formats::carla_sc::{CARLA_SC, CLASS_OF_RAW, published_frequencies};
use crate::data::{Grid, Split, by, check, invert, rows_of_pose};
use crate::files::{IncompleteMark, check_can_be_folder, is_incomplete, is_vacant, make_folder, unwritable};
use crate::rng::philox;
use crate::{Error, Result};

/// The file that marks a folder as written by this module.
const MARKER: &str = "sep4d_synth.json";
/// No more frames than this are generated at once: at CarlaSC's grid they would fill a tebibyte.
const MOST_FRAMES: usize = 1_000_000;
/// Frames that are simulated before they are drawn and written by all cores.
const CHUNK: usize = 64;

/// What was written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// Frames in all splits.
    pub frames: usize,
    /// Voxels of each class over all frames, `[K]`.
    pub class_counts: Vec<u64>,
    /// Voxels that were observed over all frames.
    pub observed: u64,
}

/// Writes the towns under `out/Cartesian` and calls `progress` with the number of frames done after every few of them.
///
/// The bytes depend on the options only; a hidden file remembers that they need no check. An earlier result in `out` is replaced. Until all is written, a file
/// `INCOMPLETE.txt` keeps [`Dataset::open`](crate::data::Dataset::open) from taking a part for the whole.
///
/// # Errors
/// [`Error::Usage`] if `out` holds anything but an earlier result, or nothing or far too much is asked for; [`Error::Data`] if a file cannot be
/// written.
pub fn write(out: &Path, options: &SynthOptions, mut progress: impl FnMut(usize)) -> Result<Summary> {
    if options.frames == 0 || options.levels.is_empty() || options.towns == [0; 3] {
        return Err(Error::Usage(
            "nothing to generate; ask for at least one town, one traffic level and one frame".into(),
        ));
    }
    let frames = options.towns.iter().fold(0usize, |sum, &towns| sum.saturating_add(towns));
    let frames = frames.saturating_mul(options.levels.len()).saturating_mul(options.frames);
    if frames > MOST_FRAMES {
        return Err(Error::Usage(format!(
            "at most {MOST_FRAMES} frames are generated at once, and that would be {}; ask for fewer towns or frames",
            if frames == usize::MAX { "far more".to_owned() } else { frames.to_string() }
        )));
    }
    let (base, mark) = prepare(out, options)?;
    let mut summary = Summary { class_counts: vec![0; CARLA_SC.len()], ..Summary::default() };
    let mut number = 0;
    for (split, towns) in [Split::Train, Split::Val, Split::Test].into_iter().zip(options.towns) {
        for _ in 0..towns {
            number += 1;
            // Every town has its own seed, so no split sees another's towns.
            let seed = subseed(options.seed, number, 0);
            let town = Town::new(seed);
            for &level in &options.levels {
                let name = format!("Town{number:02}_{}", level.name());
                let folder = base.join(split.folder()).join(name).join("cartesian");
                let seed = subseed(options.seed, number, 1 + level as u32);
                sequence(&folder, options, (&town, level, seed), &mut summary, &mut progress)?;
            }
        }
    }
    mark.clear()?;
    // What was just written need not be read to be known.
    check::vouch(out)?;
    Ok(summary)
}

fn subseed(seed: u64, town: u32, part: u32) -> u64 {
    let words = philox([town, part, 0x5EED, 0], [seed as u32, (seed >> 32) as u32]);
    u64::from(words[0]) << 32 | u64::from(words[1])
}

/// Makes the folder ready, or refuses to touch it.
fn prepare(out: &Path, options: &SynthOptions) -> Result<(PathBuf, IncompleteMark)> {
    let base = out.join("Cartesian");
    check_can_be_folder(out)?;
    // The marker comes before anything but the mark, so a folder with the mark alone was given up before it.
    if !is_vacant(out)? && !out.join(MARKER).is_file() {
        return Err(Error::Usage(format!(
            "{} is not empty and was not written by `sep4d synth`; choose another folder or empty it",
            out.display()
        )));
    }
    let mark = IncompleteMark::set(out, "sep4d synth")?;
    write_file(&out.join(MARKER), marker(options).as_bytes())?;
    for split in [Split::Train, Split::Val, Split::Test] {
        let folder = base.join(split.folder());
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(|e| unwritable(&folder, &e))?;
        }
    }
    make_folder(&base)?;
    Ok((base, mark))
}

/// What the marker says of the options.
fn marker(options: &SynthOptions) -> String {
    let levels: Vec<&str> = options.levels.iter().map(|level| level.name()).collect();
    let marker = serde_json::json!({
        "generator": "sep4d synth",
        "seed": options.seed,
        "grid": options.grid,
        "frames": options.frames,
        "towns": options.towns,
        "levels": levels,
    });
    format!("{marker:#}\n")
}

/// Whether [`write()`] has already written `out` whole with these options.
pub fn is_written(out: &Path, options: &SynthOptions) -> bool {
    !is_incomplete(out) && fs::read(out.join(MARKER)).is_ok_and(|found| found == marker(options).as_bytes())
}

fn sequence(
    folder: &Path,
    options: &SynthOptions,
    (town, level, seed): (&Town, Level, u64),
    summary: &mut Summary,
    progress: &mut impl FnMut(usize),
) -> Result<()> {
    let evaluation = folder.join("evaluation");
    make_folder(&evaluation)?;
    write_file(&evaluation.join("params.json"), params(&options.grid).as_bytes())?;
    let mut traffic = Traffic::new(town, level, seed);
    let mut origin = None;
    let (mut poses, mut times) = (String::new(), String::new());
    for start in (0..options.frames).step_by(CHUNK) {
        let moments: Vec<(usize, Moment)> =
            (start..options.frames.min(start + CHUNK)).map(|i| (i, traffic.next_moment())).collect();
        for (i, moment) in &moments {
            let pose = pose_of(moment);
            let inverse = *origin.get_or_insert_with(|| invert(&pose).unwrap_or(pose));
            // What is written as zero has no sign.
            let numbers =
                rows_of_pose(&(inverse * pose)).map(|v| format!("{:.9}", if v.abs() < 5e-10 { 0.0 } else { v }));
            poses += &(numbers.join(" ") + "\n");
            times += &format!("{:.6}\n", *i as f64 * FRAME_SECS);
        }
        let counts = moments
            .par_iter()
            .map(|(i, moment)| {
                let volume = raster::draw(town, moment, &options.grid, seed);
                write_frame(&evaluation, *i, &volume)?;
                Ok(count(&volume))
            })
            .try_reduce(
                || (vec![0; CARLA_SC.len()], 0),
                |a, b| Ok((a.0.iter().zip(&b.0).map(|(a, b)| a + b).collect(), a.1 + b.1)),
            )?;
        summary.class_counts.iter_mut().zip(&counts.0).for_each(|(sum, count)| *sum += count);
        summary.observed += counts.1;
        summary.frames += moments.len();
        progress(summary.frames);
    }
    write_file(&folder.join("poses.txt"), poses.as_bytes())?;
    write_file(&folder.join("times.txt"), times.as_bytes())
}

fn count(volume: &Volume) -> (Vec<u64>, u64) {
    let mut raw = [0u64; 256];
    volume.raw.iter().for_each(|&id| raw[usize::from(id)] += 1);
    let mut counts = vec![0; CARLA_SC.len()];
    for (&class, count) in CLASS_OF_RAW.iter().zip(raw) {
        counts[usize::from(class)] += count;
    }
    (counts, volume.rays.iter().filter(|&&rays| rays != 0).count() as u64)
}

fn write_frame(evaluation: &Path, i: usize, volume: &Volume) -> Result<()> {
    let mut bytes = Vec::with_capacity(volume.raw.len() * 4);
    volume.raw.iter().for_each(|&id| bytes.extend_from_slice(&u32::from(id).to_le_bytes()));
    write_file(&evaluation.join(format!("{i:06}.label")), &bytes)?;
    bytes.clear();
    volume.rays.iter().for_each(|&rays| bytes.extend_from_slice(&f32::from(rays).to_le_bytes()));
    write_file(&evaluation.join(format!("{i:06}.bin")), &bytes)
}

/// The grid as CarlaSC writes it: bounds in single precision.
fn params(grid: &Grid) -> String {
    let list = |values: [f64; 3]| values.map(|v| format!("{v:?}")).join(", ");
    let single = |values: [f64; 3]| values.map(|v| f64::from(v as f32));
    format!(
        "{{\"grid_size\": [{}], \"min_bound\": [{}], \"max_bound\": [{}], \"num_channels\": 25, \"coordinates\": \
         \"cartesian\"}}",
        list(grid.size.map(|side| side as f64)),
        list(single(grid.min_bound_m)),
        list(single(grid.max_bound_m()))
    )
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    File::create(path).and_then(|mut file| file.write_all(bytes)).map_err(|e| unwritable(path, &e))
}

impl Summary {
    /// Mean voxels of each class in a frame beside CarlaSC's, with their ratio, as lines of text.
    pub fn table(&self, grid: &Grid) -> String {
        let voxels = grid.voxels() as f64;
        let frames = self.frames.max(1) as f64;
        let share = |count: f64| 100.0 * count / (frames * voxels);
        let mut lines = format!("{:<12}{:>14}{:>14}{:>8}\n", "class", "voxels/frame", "CarlaSC", "ratio");
        let published = published_frequencies();
        for (c, name) in CARLA_SC.names.iter().enumerate().skip(1) {
            let have = self.class_counts.get(c).copied().unwrap_or(0) as f64 / frames;
            let want = published[c] * voxels;
            lines += &format!("{name:<12}{have:>14.1}{want:>14.1}{:>8.2}\n", have / want);
        }
        let free = self.class_counts.first().copied().unwrap_or(0) as f64;
        lines += &format!(
            "occupied {:.2} % (CarlaSC {:.2} %), observed {:.1} %, {} frames of {}\n",
            100.0 - share(free),
            100.0 * (1.0 - published[0]),
            share(self.observed as f64),
            self.frames,
            by(grid.size)
        );
        if *grid != Grid::CARLA_SC {
            lines += "(the shares are made to agree at CarlaSC's own grid, 128x128x8 voxels of 0.4x0.4x0.375 m)\n";
        }
        lines
    }
}
