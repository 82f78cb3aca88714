//! A procedural town that stands in for CarlaSC: the same layout on disk, the same classes in about the same shares.
//!
//! Roads wind around blocks of shops, houses, walls, parks and car parks; vehicles queue and turn, people walk, and the
//! ego drives among them. Everything is a function of the seed, whatever the number of threads.

use super::formats::carla_sc::CLASS_OF_RAW;
/// The classes of a town, and how its frames' labels are read.
pub use super::formats::carla_sc::{CARLA_SC as CLASSES, read_labels};
use super::{Clip, Frame, Grid, Pose, pose_of_rows, relative_to_middle};
use crate::{Error, Result};

mod raster;
mod roads;
mod routes;
mod shapes;
mod town;
mod traffic;
mod write;

/// The grid of a town where no other is asked for.
pub const GRID: Grid = Grid::CARLA_SC;

pub use traffic::Level;
pub use write::{Summary, is_written, write};

use roads::Vec2;
use town::Town;
use traffic::{FRAME_SECS, Moment, Traffic};

/// What to generate.
#[derive(Debug, Clone, PartialEq)]
pub struct SynthOptions {
    /// The grid of every frame; make it with [`grid`].
    pub grid: Grid,
    /// Everything depends on it.
    pub seed: u64,
    /// Frames of every sequence, 0.1 s apart.
    pub frames: usize,
    /// How many towns Train, Val and Test get; no town is in two of them.
    pub towns: [usize; 3],
    /// The sequences of every town: one for each amount of traffic.
    pub levels: Vec<Level>,
}

impl Default for SynthOptions {
    /// CarlaSC's grid, four towns to train on and one each to validate and test on, 50 frames at each traffic level.
    fn default() -> Self {
        SynthOptions { grid: Grid::CARLA_SC, seed: 0, frames: 50, towns: [4, 1, 1], levels: Level::ALL.to_vec() }
    }
}

/// A grid around the ego: centred in x and y, the ground in the lowest layer, 1.8 m below the sensor.
///
/// # Errors
/// [`Error::Usage`] if a side is odd or 0, a voxel has no size, or the grid has more than 2^28 voxels.
pub fn grid(size: [usize; 3], voxel_size_m: [f64; 3]) -> Result<Grid> {
    if size.iter().any(|side| *side == 0 || side % 2 == 1) {
        return Err(Error::Usage(format!("the grid {} needs even sides; try 128x128x8 or 32x32x8", super::by(size))));
    }
    if size.iter().try_fold(1usize, |product, side| product.checked_mul(*side)).is_none_or(|n| n > 1 << 28) {
        return Err(Error::Usage(format!("the grid {} has too many voxels; try 128x128x8", super::by(size))));
    }
    if voxel_size_m.iter().any(|d| !(0.01..=100.0).contains(d)) {
        return Err(Error::Usage(format!(
            "voxels of {voxel_size_m:?} m are not between 0.01 and 100 m; try 0.4x0.4x0.375"
        )));
    }
    let min_bound_m = [
        -0.5 * size[0] as f64 * voxel_size_m[0],
        -0.5 * size[1] as f64 * voxel_size_m[1],
        -raster::SENSOR_M - raster::GROUND_VOXELS * voxel_size_m[2],
    ];
    Ok(Grid { size, voxel_size_m, min_bound_m: min_bound_m.map(|v| (v * 1e6).round() / 1e6) })
}

/// A clip of consecutive frames of a town with medium traffic, without any file.
pub fn clip(grid: &Grid, seed: u64, frames: usize) -> Clip {
    let town = Town::new(seed);
    let mut traffic = Traffic::new(&town, Level::Medium, seed);
    let mut poses = Vec::with_capacity(frames);
    let mut drawn = Vec::with_capacity(frames);
    for _ in 0..frames {
        let moment = traffic.next_moment();
        let volume = raster::draw(&town, &moment, grid, seed);
        poses.push(pose(moment.ego, moment.heading));
        drawn.push(Frame {
            labels: volume.raw.iter().map(|&id| CLASS_OF_RAW[usize::from(id)]).collect(),
            observed: volume.rays.iter().map(|&rays| rays != 0).collect(),
        });
    }
    Clip {
        frames: drawn,
        poses: relative_to_middle(&poses),
        times_secs: (0..frames).map(|i| i as f64 * FRAME_SECS).collect(),
        sequence: format!("Town_{}", Level::Medium.name()),
        first_frame: 0,
        frame_step: 1,
    }
}

/// The motion from the ego's frame into the world.
fn pose(at: Vec2, [c, s]: Vec2) -> Pose {
    pose_of_rows(&[c, -s, 0.0, at[0], s, c, 0.0, at[1], 0.0, 0.0, 1.0, 0.0])
}

/// The pose of a moment.
fn pose_of(moment: &Moment) -> Pose {
    pose(moment.ego, moment.heading)
}
