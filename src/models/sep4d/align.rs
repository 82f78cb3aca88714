//! Frames of a clip that meet in its canonical grid: that of the middle frame, into which the sensor's motion takes the others
//! (`docs/model.md`).

use crate::Result;
use crate::graph::{Graph, TensorId, TensorSpec};
use crate::layers::resample::{Direction, only_seen, resample};
use crate::models::{
    BY_POSES, BY_REGISTRATION, BatchShape, BuiltLatent, BuiltMotion, LatentKind, LatentSpec, MOTION, OF_THE_POSES,
};

/// The values of `model.align`, with what they mean.
pub const ALIGNMENTS: &[(&str, &str)] = &[
    ("none", "frames stay as they are"),
    (BY_POSES, "by the poses"),
    (BY_REGISTRATION, "by what `sep4d register` found"),
    (OF_THE_POSES, "by the poses, if known"),
];

/// The frames of clips, and how they lie.
pub struct Frames {
    /// Extents of the batch.
    pub shape: BatchShape,
    /// Where they are told how they lie, if they are aligned.
    pub motion: Option<BuiltMotion>,
}

impl Frames {
    /// Frames of `shape`; if they are to be aligned, in a grid with `margin` more cells at either end of x and y.
    pub fn of(g: &mut Graph, aligned: bool, shape: &BatchShape, margin: usize) -> Frames {
        let motion = aligned.then(|| BuiltMotion {
            maps: g.input("motion", TensorSpec::f32(&[shape.batch, shape.frames, MOTION])),
            margin: [margin, margin, 0],
        });
        Frames { shape: shape.clone(), motion }
    }

    /// The motion as a latent: what is decoded depends on it.
    pub fn latent(&self) -> Option<BuiltLatent> {
        let maps = self.motion?.maps;
        let latent = LatentSpec { name: "motion", axes: "t", kind: LatentKind::Motion };
        Some(BuiltLatent { latent, encoded: maps, decoded: maps })
    }

    /// Extents of the grid in which the frames meet.
    pub fn canonical(&self) -> [usize; 3] {
        let (cells, margin) = (self.shape.cells(), self.motion.map_or([0; 3], |motion| motion.margin));
        std::array::from_fn(|axis| cells[axis] + 2 * margin[axis])
    }

    /// `x [B, T, X', Y', Z', C]` in the canonical grid, zero where a frame has seen nothing; `None` if frames are not aligned.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] if `x` has other extents.
    pub fn meet(&self, g: &mut Graph, x: TensorId) -> Result<Option<TensorId>> {
        let meet = |motion: BuiltMotion| resample(g, x, motion.maps, Direction::ToCanonical, self.canonical());
        self.motion.map(meet).transpose()
    }

    /// Scores in the canonical grid, low where a frame has seen nothing.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] if they have other extents.
    pub fn only_seen(&self, g: &mut Graph, scores: TensorId) -> Result<TensorId> {
        match self.motion {
            Some(motion) => only_seen(g, scores, motion.maps, self.shape.cells()),
            None => Ok(scores),
        }
    }

    /// What lies still in the canonical grid, `[B, U, V, W, C]`, as each frame sees it, `[B T, X', Y', Z', C]`; `None` if frames are
    /// not aligned.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] if `still` has other extents.
    pub fn part(&self, g: &mut Graph, still: TensorId) -> Result<Option<TensorId>> {
        let Some(motion) = self.motion else { return Ok(None) };
        let (cells, [u, v, w]) = (self.shape.cells(), self.canonical());
        let channels = g.tensor(still).spec.channels();
        let still = g.reshape(still, &[self.shape.batch, 1, u, v, w, channels])?;
        let seen = resample(g, still, motion.maps, Direction::ToFrames, cells)?;
        let [x, y, z] = cells;
        Ok(Some(g.reshape(seen, &[self.shape.total_frames(), x, y, z, channels])?))
    }
}
