//! The clip in the views: what the data says, and what the model makes of it.

use std::mem::take;
use std::sync::Arc;

use glam::Vec3;

use crate::data::{ClassSet, Clip, Grid};
use crate::train::events::{Likely, ReconstructedClip};
use crate::train::inference::Latent;
use crate::train::metrics::{Confusion, Scores};
use crate::view::error_view::outcomes;
use crate::view::{ErrorCounts, Geometry, VoxelOutcome};
use crate::{Error, Result};

/// A clip, ready to be drawn frame by frame. Volumes are `[T, X, Y, Z]` in C order.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Tells one content from the next: views redraw when it changes.
    pub version: u64,
    /// Its number in the watched split.
    pub clip: usize,
    /// Name of its sequence.
    pub sequence: String,
    /// Number of its first frame within the sequence.
    pub first_frame: usize,
    /// By how much the number grows from one frame to the next.
    pub frame_step: usize,
    /// T.
    pub frames: usize,
    /// The grid.
    pub grid: Grid,
    /// What labels mean.
    pub classes: Arc<ClassSet>,
    /// When each frame was taken, seconds.
    pub times_secs: Vec<f64>,
    /// Classes in the data.
    pub truth: Vec<u8>,
    /// Whether the sensors saw the voxel.
    pub observed: Vec<bool>,
    /// The model's part, once there is a model.
    pub model: Option<Reconstructed>,
    /// Voxels of each class in each frame of the data, `[T]` of `[K]`.
    class_counts: Vec<Vec<u64>>,
}

/// How often each of `classes` stands in each of `frames`.
fn class_counts<'a>(frames: impl Iterator<Item = &'a [u8]>, classes: &ClassSet) -> Vec<Vec<u64>> {
    let count = |labels: &[u8]| {
        let mut counts = [0; 256];
        labels.iter().for_each(|&label| counts[usize::from(label)] += 1);
        counts[..classes.len().min(256)].to_vec()
    };
    frames.map(count).collect()
}

/// What a model makes of the clip.
#[derive(Debug, Clone)]
pub struct Reconstructed {
    /// Steps it was trained for.
    pub step: u32,
    /// Classes according to the model.
    pub labels: Vec<u8>,
    /// The likeliest classes of every voxel; empty if they are not known.
    pub likely: Vec<Likely>,
    /// [`VoxelOutcome`] of every voxel.
    pub outcomes: Vec<u8>,
    /// How many of each, `[T]`.
    pub counts: Vec<ErrorCounts>,
    /// What was taken for what, `[T]`.
    pub confusion: Vec<Confusion>,
    /// Scores, `[T]`.
    pub scores: Vec<Scores>,
    /// What lies between encoder and decoder.
    pub latents: Vec<Latent>,
}

impl Reconstructed {
    /// Takes the model's part out of a clip of `voxels` voxels a frame.
    ///
    /// # Errors
    /// [`Error::Shape`] if the parts differ in size.
    pub fn of(clip: &mut ReconstructedClip, voxels: usize) -> Result<Reconstructed> {
        let mut counts = Vec::with_capacity(clip.frames);
        let mut results = Vec::with_capacity(clip.truth.len());
        let whole = clip.frames * voxels;
        if [clip.truth.len(), clip.labels.len(), clip.observed.len()] != [whole; 3] {
            return Err(Error::Shape(format!(
                "a clip of {} voxels does not fill {} frames of {voxels}",
                clip.truth.len(),
                clip.frames
            )));
        }
        for t in 0..clip.frames {
            let range = t * voxels..(t + 1) * voxels;
            let observed = Some(&clip.observed[range.clone()]);
            let (frame, frame_counts) = outcomes(&clip.truth[range.clone()], &clip.labels[range], observed)?;
            results.extend(frame);
            counts.push(frame_counts);
        }
        Ok(Reconstructed {
            step: clip.step,
            labels: take(&mut clip.labels),
            likely: take(&mut clip.likely),
            outcomes: results,
            counts,
            confusion: take(&mut clip.confusion),
            scores: take(&mut clip.scores),
            latents: take(&mut clip.latents),
        })
    }
}

impl Shown {
    /// A clip without a model.
    pub fn of_data(version: u64, index: usize, clip: Clip, grid: Grid, classes: Arc<ClassSet>) -> Shown {
        Shown {
            version,
            clip: index,
            class_counts: class_counts(clip.frames.iter().map(|frame| frame.labels.as_slice()), &classes),
            frames: clip.frames.len(),
            grid,
            classes,
            truth: clip.frames.iter().flat_map(|frame| frame.labels.iter().copied()).collect(),
            observed: clip.frames.iter().flat_map(|frame| frame.observed.iter().copied()).collect(),
            sequence: clip.sequence,
            first_frame: clip.first_frame,
            frame_step: clip.frame_step,
            times_secs: clip.times_secs,
            model: None,
        }
    }

    /// A clip and what the model made of it.
    ///
    /// # Errors
    /// [`Error::Shape`] if the parts differ in size.
    pub fn of_model(version: u64, mut clip: ReconstructedClip, grid: Grid, classes: Arc<ClassSet>) -> Result<Shown> {
        let voxels = grid.voxels();
        if clip.size != grid.size {
            return Err(Error::Shape(format!("a clip of {:?} voxels is none of {:?}", clip.size, grid.size)));
        }
        let model = Reconstructed::of(&mut clip, voxels)?;
        Ok(Shown {
            version,
            clip: clip.clip,
            class_counts: class_counts(clip.truth.chunks_exact(voxels.max(1)), &classes),
            sequence: clip.sequence,
            first_frame: clip.first_frame,
            frame_step: clip.frame_step,
            frames: clip.frames,
            grid,
            classes,
            times_secs: clip.times_secs,
            truth: clip.truth,
            observed: clip.observed,
            model: Some(model),
        })
    }

    /// The grid as the renderer sees it.
    pub fn geometry(&self) -> Geometry {
        let voxel_size_m = self.grid.voxel_size_m.map(|edge| edge as f32);
        Geometry { size: self.grid.size, voxel_size_m, handedness: self.classes.handedness }
    }

    /// Where the sensor stands over the ground, metres in the renderer's world.
    pub fn sensor_m(&self) -> Vec3 {
        let [x, y, _] = self.grid.min_bound_m.map(|bound| -bound as f32);
        self.geometry().flip_m(Vec3::new(x, y, 0.0))
    }

    /// The colours of the classes.
    pub fn colors(&self, safe: bool) -> &[[u8; 3]] {
        if safe { &self.classes.safe_colors } else { &self.classes.colors }
    }

    /// The part of a volume that belongs to frame `t`.
    pub fn frame<'a, V>(&self, volume: &'a [V], t: usize) -> &'a [V] {
        let voxels = self.grid.voxels();
        volume.get(t * voxels..(t + 1) * voxels).unwrap_or_default()
    }

    /// How long a frame lasts, seconds, if the data says so.
    pub fn frame_secs(&self) -> Option<f64> {
        let mut gaps = self.times_secs.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.next().filter(|secs| *secs > 0.0)
    }

    /// Voxels of each class in frame `t` of the data, `[K]`.
    pub fn class_counts(&self, t: usize) -> &[u64] {
        self.class_counts.get(t).map(Vec::as_slice).unwrap_or_default()
    }

    /// The outcome of a voxel of frame `t`, if there is a model.
    pub fn outcome(&self, t: usize, [x, y, z]: [usize; 3]) -> Option<VoxelOutcome> {
        let model = self.model.as_ref()?;
        let at = self.grid.index(x, y, z);
        let (truth, label) = (self.frame(&self.truth, t).get(at)?, self.frame(&model.labels, t).get(at)?);
        Some(VoxelOutcome::of(*truth, *label, *self.frame(&self.observed, t).get(at)?))
    }

    /// The middle of a voxel, metres from the sensor.
    pub fn position_m(&self, voxel: [usize; 3]) -> [f64; 3] {
        std::array::from_fn(|a| self.grid.min_bound_m[a] + (voxel[a] as f64 + 0.5) * self.grid.voxel_size_m[a])
    }
}

#[cfg(test)]
mod tests {
    use super::super::panels::sample;

    #[test]
    fn classes_are_counted_frame_by_frame() {
        let state = sample::state();
        let shown = state.shown.as_ref().unwrap();
        for t in 0..shown.frames {
            let labels = shown.frame(&shown.truth, t);
            let counts = shown.class_counts(t);
            assert_eq!(counts.iter().sum::<u64>(), shown.grid.voxels() as u64);
            assert_eq!(counts[6], labels.iter().filter(|label| **label == 6).count() as u64);
        }
        assert!(shown.class_counts(shown.frames).is_empty());
    }
}
