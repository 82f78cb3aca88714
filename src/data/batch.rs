//! Batches in the order the kernels read, and the flips and turns that augment them.

use glam::{DAffine3, DMat3, DVec3};

use super::pose::invert;
use super::{Clip, Grid, Pose, pose_of_rows, rows_of_pose};
use crate::rng::Rng;
use crate::{Error, Result};

/// How a frame lies in its clip: two affine maps of the indices of cells, which are 2x2x2 voxels each and have their centres at
/// whole numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Motion {
    /// From the middle frame's cells to this frame's.
    pub from_middle: DAffine3,
    /// From this frame's cells to the middle frame's.
    pub to_middle: DAffine3,
}

impl Motion {
    /// That of a frame whose points `pose` takes to where they are in the middle frame; `None` if it has no inverse.
    pub fn of(pose: &Pose, grid: &Grid) -> Option<Motion> {
        let (voxel, low) = (DVec3::from(grid.voxel_size_m), DVec3::from(grid.min_bound_m));
        let centres = DAffine3::from_mat3_translation(DMat3::from_diagonal(2.0 * voxel), low + voxel);
        let in_cells =
            |motion: DAffine3| if motion == DAffine3::IDENTITY { motion } else { centres.inverse() * motion * centres };
        Some(Motion { from_middle: in_cells(invert(pose)?), to_middle: in_cells(*pose) })
    }

    /// Both maps, row by row, where the canonical grid has `margin` more cells than the middle frame before its first.
    pub fn maps(&self, margin: [usize; 3]) -> [f32; 24] {
        let shift = DAffine3::from_translation(DVec3::from(margin.map(|cells| cells as f64)));
        let rows = [self.from_middle * shift.inverse(), shift * self.to_middle].map(|map| rows_of_pose(&map));
        std::array::from_fn(|i| rows[i / 12][i % 12] as f32)
    }
}

/// Several clips in blocked order: the 8 voxels of every 2x2x2 block stand together.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Classes, 255 where there is none to be seen or learnt, `[N = B*T, X/2, Y/2, Z/2, 8]`; voxel `s = 4*(x&1) + 2*(y&1) + (z&1)` of its block.
    pub labels: Vec<u8>,
    /// 1 where the voxel was observed, in the same order.
    pub observed: Vec<u8>,
    /// `[B*T]`, how each frame lies in its clip; absent unless every clip has poses.
    pub motions: Option<Vec<Motion>>,
    /// B, the number of clips.
    pub batch: usize,
    /// T, the number of frames of a clip.
    pub frames: usize,
    /// X, Y, Z.
    pub size: [usize; 3],
}

impl Batch {
    /// Puts clips of equal length together.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is no clip, a side of the grid is odd, or clips differ in length or grid.
    pub fn from_clips(clips: &[Clip], grid: &Grid) -> Result<Batch> {
        let size = grid.size;
        let frames = clips.first().map_or(0, |clip| clip.frames.len());
        if frames == 0 || size.iter().any(|side| side % 2 == 1) {
            return Err(Error::Shape(format!("a batch needs clips with frames and even sides, got {size:?}")));
        }
        let voxels: usize = size.iter().product();
        let mut labels = Vec::with_capacity(clips.len() * frames * voxels);
        let mut observed = Vec::with_capacity(labels.capacity());
        for clip in clips {
            for frame in &clip.frames {
                if frame.labels.len() != voxels || frame.observed.len() != voxels || clip.frames.len() != frames {
                    return Err(Error::Shape(format!(
                        "a clip of {} frames of {} voxels does not fit a batch of {frames} frames of {voxels}",
                        clip.frames.len(),
                        frame.labels.len()
                    )));
                }
                push_blocked(&mut labels, &frame.labels, size, |label| label);
                push_blocked(&mut observed, &frame.observed, size, u8::from);
            }
        }
        let poses: Option<Vec<&Vec<Pose>>> = clips.iter().map(|clip| clip.poses.as_ref()).collect();
        let motions = poses.and_then(|all| all.into_iter().flatten().map(|pose| Motion::of(pose, grid)).collect());
        Ok(Batch { labels, observed, motions, batch: clips.len(), frames, size })
    }
}

fn push_blocked<V: Copy, W>(out: &mut Vec<W>, values: &[V], [x, y, z]: [usize; 3], convert: impl Fn(V) -> W) {
    for bx in (0..x).step_by(2) {
        for by in (0..y).step_by(2) {
            for bz in (0..z).step_by(2) {
                for s in 0..8 {
                    out.push(convert(values[((bx + (s >> 2)) * y + by + (s >> 1 & 1)) * z + bz + (s & 1)]));
                }
            }
        }
    }
}

/// One frame from C order `[X, Y, Z]` into blocked order `[X/2, Y/2, Z/2, 8]`; all sides even, `values` of that length.
pub fn to_blocked<V: Copy>(values: &[V], size: [usize; 3]) -> Vec<V> {
    let mut out = Vec::with_capacity(values.len());
    push_blocked(&mut out, values, size, |v| v);
    out
}

/// The inverse of [`to_blocked`].
pub fn from_blocked<V: Copy + Default>(values: &[V], [x, y, z]: [usize; 3]) -> Vec<V> {
    let mut out = vec![V::default(); values.len()];
    let mut source = values.iter();
    for bx in (0..x).step_by(2) {
        for by in (0..y).step_by(2) {
            for bz in (0..z).step_by(2) {
                for (s, &value) in source.by_ref().take(8).enumerate() {
                    out[((bx + (s >> 2)) * y + by + (s >> 1 & 1)) * z + bz + (s & 1)] = value;
                }
            }
        }
    }
    out
}

/// A symmetry of the ground plane about the grid's middle: first the flips, then the turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Symmetry {
    /// Mirror x.
    pub flip_x: bool,
    /// Mirror y.
    pub flip_y: bool,
    /// Swap x and y afterwards: with the flips this makes the quarter turns. Square grids and voxels only.
    pub swap: bool,
}

impl Symmetry {
    /// One of the symmetries that the grid has, all equally likely.
    pub fn random(rng: &mut Rng, grid: &Grid) -> Self {
        let square = grid.size[0] == grid.size[1] && grid.voxel_size_m[0] == grid.voxel_size_m[1];
        let bits = rng.next_u32();
        Symmetry { flip_x: bits & 1 != 0, flip_y: bits & 2 != 0, swap: square && bits & 4 != 0 }
    }

    /// The clip seen through the symmetry: all its frames and its poses alike.
    pub fn apply(&self, clip: &Clip, grid: &Grid) -> Clip {
        let mut clip = clip.clone();
        if *self == Symmetry::default() {
            return clip;
        }
        for frame in &mut clip.frames {
            frame.labels = self.turn(&frame.labels, grid.size);
            frame.observed = self.turn(&frame.observed, grid.size);
        }
        let (there, back) = self.motions(grid);
        for pose in clip.poses.iter_mut().flatten() {
            *pose = there * *pose * back;
        }
        clip
    }

    fn turn<V: Copy>(&self, values: &[V], [nx, ny, nz]: [usize; 3]) -> Vec<V> {
        let mut out = Vec::with_capacity(values.len());
        for x in 0..nx {
            for y in 0..ny {
                let (x, y) = if self.swap { (y, x) } else { (x, y) };
                let x = if self.flip_x { nx - 1 - x } else { x };
                let y = if self.flip_y { ny - 1 - y } else { y };
                let from = (x * ny + y) * nz;
                out.extend_from_slice(&values[from..from + nz]);
            }
        }
        out
    }

    /// The symmetry as an affine map of sensor coordinates, and its inverse.
    fn motions(&self, grid: &Grid) -> (Pose, Pose) {
        let max = grid.max_bound_m();
        let middle = [(grid.min_bound_m[0] + max[0]) / 2.0, (grid.min_bound_m[1] + max[1]) / 2.0];
        let fx = if self.flip_x { -1.0 } else { 1.0 };
        let fy = if self.flip_y { -1.0 } else { 1.0 };
        let m = if self.swap { [[0.0, fy], [fx, 0.0]] } else { [[fx, 0.0], [0.0, fy]] };
        let about = |m: [[f64; 2]; 2]| {
            let shift = |r: usize| middle[r] - m[r][0] * middle[0] - m[r][1] * middle[1];
            pose_of_rows(&[m[0][0], m[0][1], 0.0, shift(0), m[1][0], m[1][1], 0.0, shift(1), 0.0, 0.0, 1.0, 0.0])
        };
        (about(m), about([[m[0][0], m[1][0]], [m[0][1], m[1][1]]]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Frame;

    const GRID: Grid = Grid { size: [4, 4, 2], voxel_size_m: [1.0; 3], min_bound_m: [-1.5, -2.5, 0.0] };

    #[test]
    fn blocked_order_is_the_documented_one_and_inverts() {
        let size = [4, 6, 2];
        let values: Vec<u32> = (0..48).collect();
        let blocked = to_blocked(&values, size);
        let (x, y, z) = (3, 2, 1);
        let block = ((x / 2) * 3 + y / 2) + z / 2;
        assert_eq!(blocked[block * 8 + 4 * (x & 1) + 2 * (y & 1) + (z & 1)], ((x * 6 + y) * 2 + z) as u32);
        assert_eq!(from_blocked(&blocked, size), values);
    }

    /// A clip whose frame 0 has one marked voxel at `at`, and frame 1 the same point of the world moved by `pose`.
    fn marked(at: [usize; 3]) -> Frame {
        let mut labels = vec![0; GRID.voxels()];
        labels[GRID.index(at[0], at[1], at[2])] = 1;
        Frame { observed: labels.iter().map(|&l| l == 1).collect(), labels }
    }

    fn centre(frame: &Frame) -> [f64; 3] {
        let i = frame.labels.iter().position(|&l| l == 1).unwrap();
        let at = [i / 8, i / 2 % 4, i % 2];
        std::array::from_fn(|a| GRID.min_bound_m[a] + (at[a] as f64 + 0.5) * GRID.voxel_size_m[a])
    }

    #[test]
    fn symmetries_move_poses_with_the_voxels() {
        // The pose takes the marked point of frame 0 to that of frame 1; it must do so in every symmetry.
        let pose = pose_of_rows(&[0.0, -1.0, 0.0, 1.0, 1.0, 0.0, 0.0, -1.0, 0.0, 0.0, 1.0, 0.0]);
        let (a, b) = (marked([1, 3, 1]), marked([1, 1, 1]));
        let moved = |pose: &Pose, at: [f64; 3]| pose.transform_point3(at.into()).to_array();
        assert_eq!(moved(&pose, centre(&a)), centre(&b));
        let clip = Clip {
            frames: vec![a, b],
            poses: Some(vec![pose, Pose::IDENTITY]),
            times_secs: vec![0.0, 0.1],
            sequence: "test".into(),
            first_frame: 0,
            frame_step: 1,
        };
        for bits in 0..8 {
            let symmetry = Symmetry { flip_x: bits & 1 != 0, flip_y: bits & 2 != 0, swap: bits & 4 != 0 };
            let turned = symmetry.apply(&clip, &GRID);
            let poses = turned.poses.unwrap();
            assert_eq!(moved(&poses[0], centre(&turned.frames[0])), centre(&turned.frames[1]), "{symmetry:?}");
            assert_eq!(poses[1], Pose::IDENTITY, "{symmetry:?}");
        }
    }

    #[test]
    fn a_batch_lacks_poses_if_any_clip_does() {
        let clip = Clip {
            frames: vec![marked([0, 0, 0])],
            poses: Some(vec![Pose::IDENTITY]),
            times_secs: vec![0.0],
            sequence: "test".into(),
            first_frame: 0,
            frame_step: 1,
        };
        let without = Clip { poses: None, ..clip.clone() };
        let batch = Batch::from_clips(&[clip.clone(), clip.clone()], &GRID).unwrap();
        assert_eq!((batch.batch, batch.frames, batch.labels.len(), batch.motions.unwrap().len()), (2, 1, 64, 2));
        assert!(Batch::from_clips(&[clip, without], &GRID).unwrap().motions.is_none());
        assert!(Batch::from_clips(&[], &GRID).is_err());
    }

    #[test]
    fn motions_are_those_of_cells() {
        let grid = Grid { size: [8, 8, 4], voxel_size_m: [0.5, 1.0, 0.25], min_bound_m: [-3.0, 1.0, 0.0] };
        let pose = pose_of_rows(&[0.0, -1.0, 0.0, 1.0, 1.0, 0.0, 0.0, -1.0, 0.0, 0.0, 1.0, 0.5]);
        let motion = Motion::of(&pose, &grid).unwrap();
        let cell = DVec3::new(1.0, 3.0, 0.0);
        // Its centre is at (-1.5, 8, 0.25) m, which the pose takes to (-7, -2.5, 0.75) m.
        assert!(motion.to_middle.transform_point3(cell).abs_diff_eq(DVec3::new(-4.5, -2.25, 1.0), 1e-12));
        assert!((motion.from_middle * motion.to_middle).abs_diff_eq(DAffine3::IDENTITY, 1e-12));
        let [to_frame, to_canonical] = [0, 12].map(|at| {
            let maps = motion.maps([2, 0, 1]).map(f64::from);
            pose_of_rows(&std::array::from_fn(|i| maps[at + i]))
        });
        assert!(to_canonical.transform_point3(cell).abs_diff_eq(DVec3::new(-2.5, -2.25, 2.0), 1e-6));
        assert!((to_frame * to_canonical).abs_diff_eq(DAffine3::IDENTITY, 1e-6));
        let still = Motion::of(&Pose::IDENTITY, &grid).unwrap();
        assert_eq!((still.from_middle, still.to_middle), (DAffine3::IDENTITY, DAffine3::IDENTITY));
    }
}
