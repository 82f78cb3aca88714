//! What the launches of an axis pool cover: the cells of a volume that are kept and those that are summed over, in windows of its
//! frames.

use std::ops::Range;

use super::Axes;

/// The cells of a volume.
#[derive(Debug, Clone, Copy)]
pub struct Volume {
    pub batches: usize,
    /// T, X, Y, Z.
    pub extents: [usize; 4],
    pub has_time: bool,
}

impl Volume {
    /// Of a shape with five or six axes.
    pub fn of(shape: &[usize]) -> Volume {
        let has_time = shape.len() == 6;
        let frames = if has_time { shape[1] } else { 1 };
        let spatial = &shape[shape.len() - 4..shape.len() - 1];
        Volume { batches: shape[0], extents: [frames, spatial[0], spatial[1], spatial[2]], has_time }
    }

    pub fn frames(&self) -> usize {
        self.extents[0]
    }

    pub fn frame_cells(&self) -> usize {
        self.extents[1..].iter().product()
    }

    pub fn cells(&self) -> usize {
        self.batches * self.frames() * self.frame_cells()
    }

    /// Cells that `pool` sums over.
    pub fn reduced_count(&self, pool: &Axes) -> usize {
        reduced(pool, self.extents).iter().product()
    }

    /// `[B, ..kept axes.., C]`.
    pub fn output_shape(&self, pool: &Axes, channels: usize) -> Vec<usize> {
        let axes = usize::from(!self.has_time)..4;
        let kept = axes.filter(|&axis| !pool[axis]).map(|axis| self.extents[axis]);
        std::iter::once(self.batches).chain(kept).chain([channels]).collect()
    }

    /// The kept cell (batches included) and the reduced cell of a cell.
    pub fn split(&self, pool: &Axes, cell: usize) -> (usize, usize) {
        let mut rest = cell;
        let mut coordinates = [0; 4];
        for axis in (0..4).rev() {
            coordinates[axis] = rest % self.extents[axis];
            rest /= self.extents[axis];
        }
        let (mut kept, mut reduced) = (rest, 0);
        for axis in 0..4 {
            let index = if pool[axis] { &mut reduced } else { &mut kept };
            *index = *index * self.extents[axis] + coordinates[axis];
        }
        (kept, reduced)
    }

    /// What each launch covers: everything, or one batch's frames of one window.
    pub fn segments(&self, windows: &[Range<usize>]) -> Vec<Segment> {
        if let [window] = windows {
            return vec![Segment { window: window.clone(), batches: 0..self.batches, frames: 0..self.frames() }];
        }
        let mut segments = Vec::new();
        for window in windows {
            for batch in window.start / self.frames()..window.end.div_ceil(self.frames()) {
                let first = batch * self.frames();
                let frames = window.start.max(first) - first..window.end.min(first + self.frames()) - first;
                segments.push(Segment { window: window.clone(), batches: batch..batch + 1, frames });
            }
        }
        segments
    }
}

pub fn reduced(pool: &Axes, extents: [usize; 4]) -> [usize; 4] {
    std::array::from_fn(|axis| if pool[axis] { extents[axis] } else { 1 })
}

pub fn kept(pool: &Axes, extents: [usize; 4]) -> [usize; 4] {
    reduced(&pool.map(|is_reduced| !is_reduced), extents)
}

/// Frames of one batch, or all frames of all batches, within a window of frames.
#[derive(Debug, Clone)]
pub struct Segment {
    pub window: Range<usize>,
    pub batches: Range<usize>,
    pub frames: Range<usize>,
}

/// One pool over one segment.
#[derive(Debug)]
pub struct Part<'a> {
    pub volume: Volume,
    pub segment: &'a Segment,
    pub pool: Axes,
    /// Number of the pool.
    pub index: usize,
    pub pools: usize,
    pub channels: usize,
}

impl Part<'_> {
    /// Extents of t, x, y, z within the segment.
    pub fn extents(&self) -> [usize; 4] {
        let [_, x, y, z] = self.volume.extents;
        [self.segment.frames.len(), x, y, z]
    }

    pub fn kept_count(&self) -> usize {
        self.segment.batches.len() * kept(&self.pool, self.extents()).iter().product::<usize>()
    }

    pub fn reduced_count(&self) -> usize {
        reduced(&self.pool, self.extents()).iter().product()
    }

    /// Elements of `o` within the segment.
    pub fn outputs(&self) -> usize {
        self.kept_count() * self.channels
    }

    /// The kernels' parameters for runs of `run` cells.
    pub fn words(&self, run: usize, runs: usize, first_run: usize) -> Vec<u32> {
        let Volume { extents, .. } = self.volume;
        let (kept_extents, reduced_extents) = (kept(&self.pool, self.extents()), reduced(&self.pool, self.extents()));
        let frame_cells = self.volume.frame_cells();
        let strides = [frame_cells, extents[2] * extents[3], extents[3], 1];
        let first_frame = self.segment.batches.start * self.volume.frames() + self.segment.frames.start;
        let frame_outputs = kept_extents[1..].iter().product::<usize>() * self.channels;
        // A pool over t has one output per batch, the others one per frame.
        let first_output = if self.pool[0] { self.segment.batches.start } else { first_frame } * frame_outputs;
        let frame_reduced = reduced_extents[1..].iter().product::<usize>();
        let scalars = [
            self.volume.frames() * frame_cells,
            (first_frame - self.segment.window.start) * frame_cells,
            self.pools * self.channels,
            self.index * self.channels,
            self.channels,
            self.kept_count(),
            self.reduced_count(),
            if self.pool[0] { self.segment.frames.start * frame_reduced } else { 0 },
            self.volume.reduced_count(&self.pool),
            first_output,
            run,
            runs,
            first_run,
        ];
        let vectors = [kept_extents, reduced_extents, strides];
        vectors.as_flattened().iter().chain(&scalars).map(|&word| word as u32).collect()
    }
}
