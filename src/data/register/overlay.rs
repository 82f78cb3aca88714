//! Several frames laid over each other, to look at.

use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;

use super::Registered;
use super::motion::Motion;
use crate::data::source::{self, Findings};
use crate::data::{ClassSet, Frame, Grid, formats};
use crate::{Error, Result};

/// The static voxels of some frames of a sequence in the grid of the middle one.
#[derive(Debug, Clone, PartialEq)]
pub struct Overlay {
    /// The grid of the middle frame.
    pub grid: Grid,
    /// The name of the sequence.
    pub sequence: String,
    /// What its labels mean.
    pub classes: Arc<ClassSet>,
    /// The numbers of the first and the last frame.
    pub frames: [usize; 2],
    /// Class of every voxel, brought there by the motion that was found, `[X, Y, Z]` in C order.
    pub aligned: Vec<u8>,
    /// The same as if the sensor had not moved.
    pub unaligned: Vec<u8>,
}

/// Lays `frames` consecutive frames over each other: those of all sequences between which the sensor moved farthest without a
/// flagged pair. `None` if there are no such frames.
///
/// # Errors
/// [`Error::Data`] if the data set at `root` is not what was registered any more, or a frame cannot be read.
pub fn overlay(root: &Path, sequences: &[Registered], frames: usize) -> Result<Option<Overlay>> {
    let windows = sequences.iter().flat_map(|sequence| {
        let trajectory = &sequence.trajectory;
        (0..=trajectory.pairs.len()).filter_map(move |first| {
            let sound = frames > 0 && trajectory.across(first..first + frames).is_some();
            let pairs = trajectory.pairs.get(first..(first + frames).saturating_sub(1)).filter(|_| sound)?;
            Some((pairs.iter().map(|pair| pair.motion.length_m()).sum::<f64>(), sequence, first, pairs))
        })
    });
    let Some((_, registered, first, pairs)) = windows.max_by(|a, b| a.0.total_cmp(&b.0)) else { return Ok(None) };
    let source = formats::recognise(root)?;
    let found = source.scan(registered.split, &[], &mut Findings::default());
    let sequence = found.into_iter().find(|sequence| sequence.name == registered.name);
    let gone = || Error::Data(format!("the sequence {} is not there any more; try again", registered.name));
    let sequence = sequence.filter(|sequence| first + frames <= sequence.numbers.len()).ok_or_else(gone)?;
    let places: Vec<usize> = (first..first + frames).collect();
    let read: Vec<Result<Frame>> = places.par_iter().map(|&i| source::frame(&*source, &sequence, i)).collect();
    let read = read.into_iter().collect::<Result<Vec<Frame>>>()?;
    let rest = pairs.iter().scan(Motion::default(), |at, pair| {
        *at = at.after(pair.motion);
        Some(*at)
    });
    let at: Vec<Motion> = std::iter::once(Motion::default()).chain(rest).collect();
    let back = at[frames / 2].inverse();
    let moved: Vec<Motion> = at.iter().map(|at| back.after(*at)).collect();
    let union = |motions: &[Motion]| {
        let mut labels = vec![0; sequence.grid.voxels()];
        for (frame, motion) in read.iter().zip(motions) {
            add(&mut labels, frame, &sequence.grid, *motion, source.classes());
        }
        labels
    };
    Ok(Some(Overlay {
        grid: sequence.grid,
        sequence: sequence.name.clone(),
        classes: source.classes().clone(),
        frames: [sequence.numbers[first], sequence.numbers[first + frames - 1]],
        aligned: union(&moved),
        unaligned: union(&vec![Motion::default(); frames]),
    }))
}

/// Adds the static voxels of a frame where nothing stands yet.
fn add(labels: &mut [u8], frame: &Frame, grid: &Grid, motion: Motion, classes: &ClassSet) {
    let [_, ny, nz] = grid.size;
    for (v, &class) in frame.labels.iter().enumerate() {
        if class == 0 || classes.moves[usize::from(class)] {
            continue;
        }
        let place = [v / (ny * nz), v / nz % ny, v % nz];
        let middle = |a: usize| grid.min_bound_m[a] + (place[a] as f64 + 0.5) * grid.voxel_size_m[a];
        let there = motion.apply(std::array::from_fn(middle));
        let cell: [f64; 3] = std::array::from_fn(|a| ((there[a] - grid.min_bound_m[a]) / grid.voxel_size_m[a]).floor());
        if (0..3).all(|a| cell[a] >= 0.0 && cell[a] < grid.size[a] as f64) {
            let slot = &mut labels[grid.index(cell[0] as usize, cell[1] as usize, cell[2] as usize)];
            if *slot == 0 {
                *slot = class;
            }
        }
    }
}
