//! Moving voxel scenes: what a frame, a clip and a data set are, how they are read, batched and generated.
//!
//! This module knows files and numbers only; it never sees the GPU.

use crate::{Error, Result};

pub mod batch;
pub mod check;
pub mod classes;
mod counts;
mod dataset;
mod folders;
pub mod formats;
mod frames;
pub mod loader;
mod npy;
mod numbers;
mod pose;
mod record;
pub mod register;
pub mod sampler;
mod source;
pub mod synth;

pub use batch::Batch;
pub use classes::{ClassSet, Handedness};
pub use counts::ClassWeights;
pub use dataset::{Dataset, DatasetOptions, Unobserved};
pub use loader::{Delivery, Loader, LoaderOptions};
pub use pose::{Pose, invert, pose_of_rows, rows_of_pose};
pub use sampler::{Cursor, Sampler};
pub use source::{Exported, Sink};

pub(crate) use pose::relative_to_middle;

/// A voxel grid around the sensor: x forward, y right, z up, in the sensor's frame.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Grid {
    /// Voxels along x, y and z.
    pub size: [usize; 3],
    /// Edge lengths of one voxel, metres.
    pub voxel_size_m: [f64; 3],
    /// The corner of voxel (0, 0, 0), metres from the sensor.
    pub min_bound_m: [f64; 3],
}

impl Grid {
    /// The grid of CarlaSC: 128 x 128 x 8 voxels of 0.4 x 0.4 x 0.375 m.
    pub const CARLA_SC: Grid =
        Grid { size: [128, 128, 8], voxel_size_m: [0.4, 0.4, 0.375], min_bound_m: [-25.6, -25.6, -2.0] };

    /// How many voxels the grid has.
    pub fn voxels(&self) -> usize {
        self.size.iter().product()
    }

    /// The place of voxel (x, y, z) in a frame's arrays.
    pub fn index(&self, x: usize, y: usize, z: usize) -> usize {
        (x * self.size[1] + y) * self.size[2] + z
    }

    /// The corner opposite to `min_bound_m`, metres.
    pub fn max_bound_m(&self) -> [f64; 3] {
        std::array::from_fn(|a| self.min_bound_m[a] + self.size[a] as f64 * self.voxel_size_m[a])
    }

    /// The middle part of the grid: centred in x and y, from the bottom in z. Also returns the part's first voxel.
    ///
    /// # Errors
    /// [`Error::Data`] if the part is larger than the grid or empty.
    pub fn crop(&self, size: [usize; 3]) -> Result<(Grid, [usize; 3])> {
        if (0..3).any(|a| size[a] == 0 || size[a] > self.size[a]) {
            return Err(Error::Data(format!(
                "the crop {} does not fit into the grid {}; set data.crop to at most the grid, or remove it",
                by(size),
                by(self.size)
            )));
        }
        let first = [(self.size[0] - size[0]) / 2, (self.size[1] - size[1]) / 2, 0];
        let min_bound_m = std::array::from_fn(|a| self.min_bound_m[a] + first[a] as f64 * self.voxel_size_m[a]);
        Ok((Grid { size, min_bound_m, ..*self }, first))
    }
}

/// One moment: a class and a visibility flag for every voxel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Class of every voxel, `[X, Y, Z]` in C order.
    pub labels: Vec<u8>,
    /// Whether the sensors saw the voxel, `[X, Y, Z]` in C order. Unobserved voxels are left out of the metrics, and in
    /// training they are what [`Unobserved`] says.
    pub observed: Vec<bool>,
}

/// Frames of one sequence, evenly spaced in time.
#[derive(Debug, Clone, PartialEq)]
pub struct Clip {
    /// The T frames.
    pub frames: Vec<Frame>,
    /// The motion that takes a point in frame t's sensor frame into that of the middle frame (`T / 2`), if poses are known.
    pub poses: Option<Vec<Pose>>,
    /// When each frame was taken, seconds.
    pub times_secs: Vec<f64>,
    /// The sequence's name.
    pub sequence: String,
    /// The number of the first frame within its sequence.
    pub first_frame: usize,
    /// By how much the number grows from one frame to the next.
    pub frame_step: usize,
}

impl Clip {
    /// The numbers of its frames within their sequence.
    pub fn numbers(&self) -> impl Iterator<Item = usize> {
        let (first, step) = (self.first_frame, self.frame_step);
        (0..self.frames.len()).map(move |t| first + t * step)
    }
}

/// A part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// What is trained on.
    Train,
    /// What is validated on.
    Val,
    /// What is tested on.
    Test,
}

impl Split {
    /// All splits, in the order in which they are spoken of.
    pub const ALL: [Split; 3] = [Split::Train, Split::Val, Split::Test];

    /// The name of the split's folder.
    pub fn folder(self) -> &'static str {
        match self {
            Split::Train => "Train",
            Split::Val => "Val",
            Split::Test => "Test",
        }
    }
}

/// Sizes in the form `128x128x8`.
pub(crate) fn by(size: [usize; 3]) -> String {
    format!("{}x{}x{}", size[0], size[1], size[2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crop_is_centred_and_stands_on_the_floor() {
        let (grid, first) = Grid::CARLA_SC.crop([64, 32, 4]).unwrap();
        assert_eq!(first, [32, 48, 0]);
        assert_eq!(grid.size, [64, 32, 4]);
        assert!((grid.min_bound_m[0] + 12.8).abs() < 1e-9 && grid.min_bound_m[2] == -2.0);
        assert!(Grid::CARLA_SC.crop([130, 2, 2]).is_err());
    }
}
