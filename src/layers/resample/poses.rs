//! How the frames of the layer's cases lie in the canonical grid.

use super::{Direction, MOTION, only_seen, resample};
use crate::Result;
use crate::graph::TensorId;
use crate::layers::case::CaseBuilder;

/// The frame's grid is the canonical one.
pub(super) const IDENTITY: Pose = Pose { angles: [0.0; 3], shift: [0.0; 3] };

/// How a frame lies in the canonical grid, for tests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pose {
    /// About z, y and x, in degrees.
    pub angles: [f64; 3],
    /// Where the middle of the canonical grid lies in the frame, from the frame's own middle, in cells of the frame.
    pub shift: [f64; 3],
}

impl Pose {
    /// The frame's motion between grids of these extents whose cells have the edges `edges`, all in one unit.
    pub fn motion(self, canonical: [usize; 3], frame: [usize; 3], edges: [f64; 3]) -> Vec<f64> {
        let [(sin_z, cos_z), (sin_y, cos_y), (sin_x, cos_x)] = self.angles.map(|angle| angle.to_radians().sin_cos());
        let turn = [
            [cos_z * cos_y, cos_z * sin_y * sin_x - sin_z * cos_x, cos_z * sin_y * cos_x + sin_z * sin_x],
            [sin_z * cos_y, sin_z * sin_y * sin_x + cos_z * cos_x, sin_z * sin_y * cos_x - cos_z * sin_x],
            [-sin_y, cos_y * sin_x, cos_y * cos_x],
        ];
        let middle = |size: [usize; 3]| size.map(|extent| (extent as f64 - 1.0) / 2.0);
        let there = [0, 1, 2].map(|axis| middle(frame)[axis] + self.shift[axis]);
        let map = |entry: &dyn Fn(usize, usize) -> f64, from: [f64; 3], to: [f64; 3]| {
            let mut rows = Vec::new();
            for i in 0..3 {
                let row = [0, 1, 2].map(|j| entry(i, j) * edges[j] / edges[i]);
                rows.extend(row);
                rows.push(to[i] - row.iter().zip(from).map(|(a, b)| a * b).sum::<f64>());
            }
            rows
        };
        let mut motion = map(&|i, j| turn[i][j], middle(canonical), there);
        motion.extend(map(&|i, j| turn[j][i], there, middle(canonical)));
        motion
    }
}

/// What is resampled in a case.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting {
    pub batch: usize,
    pub channels: usize,
    pub canonical: [usize; 3],
    pub frame: [usize; 3],
    /// Of a cell.
    pub edges: [f64; 3],
    /// One a frame.
    pub poses: &'static [Pose],
}

impl Setting {
    pub fn motion(&self, b: &mut CaseBuilder) -> TensorId {
        // Each sequence begins with another pose.
        let poses = (0..self.batch).flat_map(|b| self.poses.iter().cycle().skip(b).take(self.poses.len()));
        let values = poses.flat_map(|pose| pose.motion(self.canonical, self.frame, self.edges)).collect();
        b.values("motion", &[self.batch, self.poses.len(), MOTION], values)
    }

    pub fn shape(&self, volumes: usize, [x, y, z]: [usize; 3]) -> Vec<usize> {
        vec![self.batch, volumes, x, y, z, self.channels]
    }

    /// Appends the layer: all frames read one volume if `is_still`.
    pub fn resample(&self, b: &mut CaseBuilder, direction: Direction, is_still: bool) -> Result<Vec<TensorId>> {
        let [from, to] = match direction {
            Direction::ToCanonical => [self.frame, self.canonical],
            Direction::ToFrames => [self.canonical, self.frame],
        };
        let volumes = if is_still { 1 } else { self.poses.len() };
        let x = b.normal("x", &self.shape(volumes, from));
        let motion = self.motion(b);
        Ok(vec![resample(&mut b.graph, x, motion, direction, to)?])
    }

    pub fn only_seen(&self, b: &mut CaseBuilder) -> Result<Vec<TensorId>> {
        let scores = b.normal("scores", &self.shape(self.poses.len(), self.canonical));
        let motion = self.motion(b);
        Ok(vec![only_seen(&mut b.graph, scores, motion, self.frame)?])
    }
}

/// Poses that see the grid wholly, in part, from behind and not at all.
pub(super) const POSES: [Pose; 4] = [
    Pose { angles: [30.0, 0.0, 0.0], shift: [0.3, -0.2, 0.0] },
    Pose { angles: [-75.0, 0.0, 0.0], shift: [2.6, 1.0, 0.4] },
    Pose { angles: [180.0, 0.0, 0.0], shift: [0.0, 0.0, 0.0] },
    Pose { angles: [12.0, 0.0, 0.0], shift: [40.0, 0.0, 0.0] },
];

/// Poses on a slope.
pub(super) const TILTED: [Pose; 3] = [
    Pose { angles: [100.0, 3.0, -2.0], shift: [0.0, 0.7, 0.2] },
    Pose { angles: [-20.0, -6.0, 4.0], shift: [-1.3, 0.1, -0.6] },
    Pose { angles: [5.0, 0.5, 8.0], shift: [0.5, 0.5, 0.5] },
];

/// Upside down and on edge.
pub(super) const TUMBLED: [Pose; 3] = [
    Pose { angles: [45.0, 90.0, 0.0], shift: [0.2, 0.0, 0.0] },
    Pose { angles: [10.0, 40.0, 160.0], shift: [0.0, -0.4, 0.3] },
    Pose { angles: [35.0, 54.7, 45.0], shift: [0.0, 0.0, 0.0] },
];
