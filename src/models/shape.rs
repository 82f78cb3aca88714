//! The extents of what a model is given.

use crate::{Error, Result};

/// The numbers of frames of a clip, T, that models take.
pub const FRAMES: std::ops::RangeInclusive<usize> = 2..=64;
/// No batch may have more voxels.
pub const MOST_VOXELS: usize = 1 << 32;

/// Extents of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchShape {
    /// B: clips.
    pub batch: usize,
    /// T: frames per clip.
    pub frames: usize,
    /// X, Y, Z: voxels, all even.
    pub size: [usize; 3],
}

impl BatchShape {
    /// X', Y', Z': cells at half resolution.
    pub fn cells(&self) -> [usize; 3] {
        self.size.map(|extent| extent / 2)
    }

    /// N = B * T.
    pub fn total_frames(&self) -> usize {
        self.batch * self.frames
    }

    /// Voxels of the whole batch.
    pub fn voxels(&self) -> usize {
        self.total_frames() * self.size.iter().product::<usize>()
    }

    /// # Errors
    /// [`Error::Usage`] naming the extent that does not work.
    pub fn check(&self) -> Result<()> {
        if self.batch == 0 || !FRAMES.contains(&self.frames) {
            return Err(Error::Usage(format!(
                "train.batch is {} and data.frames is {}, but models take at least 1 clip of {} to {} frames; set them so",
                self.batch,
                self.frames,
                FRAMES.start(),
                FRAMES.end()
            )));
        }
        let extents = [self.batch, self.frames].into_iter().chain(self.size);
        if extents.clone().try_fold(1usize, usize::checked_mul).is_none_or(|voxels| voxels > MOST_VOXELS) {
            return Err(Error::Usage(format!(
                "a batch of {} clips of {} frames of {:?} voxels is too large for any adapter; use a smaller train.batch, T \
                 (data.frames) or grid (data.crop)",
                self.batch, self.frames, self.size
            )));
        }
        match self.size.iter().zip(["X", "Y", "Z"]).find(|(extent, _)| **extent == 0 || !extent.is_multiple_of(2)) {
            Some((extent, axis)) => Err(Error::Usage(format!(
                "{axis} = {extent} voxels cannot be halved; crop the grid to even extents (data.crop)"
            ))),
            None => Ok(()),
        }
    }
}
