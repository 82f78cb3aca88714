//! What several layers share: shape messages, windows of frames, and kernels of rows.

use std::ops::Range;

use super::reduce::run_length;
use crate::Result;
use crate::graph::program::{WORKGROUP, vector_width};
use crate::graph::{Kernel, OpContext, Operand, TensorSpec};

/// Checks that `given` is f32, of shape `needed` and not empty; the message says both.
pub(super) fn expect(name: &str, given: &TensorSpec, needed: &[usize]) -> Result<(), String> {
    let needed = TensorSpec::f32(needed);
    if *given != needed {
        return Err(format!("{name} is {given} but must be {needed}"));
    }
    if given.elements() == 0 {
        return Err(format!("{name} is {given}, but no extent may be 0"));
    }
    Ok(())
}

/// A window of frames `n = b*T + t`, and the sequences `b` that have frames in it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FrameWindow {
    /// Frames.
    pub frames: Range<usize>,
    /// Sequences, the first and the last perhaps in part.
    pub sequences: Range<usize>,
}

impl FrameWindow {
    /// The window of `frames`, of sequences of `time`.
    pub fn of(frames: Range<usize>, time: usize) -> FrameWindow {
        FrameWindow { sequences: frames.start / time..frames.end.div_ceil(time), frames }
    }

    /// What a launch binds of a tensor without time that has `unit` elements a sequence.
    pub fn still(&self, tensor: Operand, time: usize, unit: usize) -> Operand {
        if time == 1 { tensor.window(&self.frames, unit) } else { tensor }
    }

    /// The words that `common/frames.wgsl` expects first in a parameter block.
    pub fn words(&self, time: usize) -> Vec<u32> {
        [self.frames.start, self.frames.end, self.sequences.start, time].map(|v| v as u32).to_vec()
    }
}

/// Windows over `sequences * time` frames such that `unit` elements a frame fit a binding; and so do, where every sequence is but
/// one frame, the `still` elements that it has in a tensor without time, which is bound whole otherwise.
pub(super) fn frame_windows(
    context: &OpContext,
    sequences: usize,
    time: usize,
    unit: usize,
    still: usize,
) -> Result<Vec<FrameWindow>> {
    let units = [unit, still];
    let windows = context.windows(sequences * time, if time == 1 { &units } else { &units[..1] })?;
    Ok(windows.into_iter().map(|frames| FrameWindow::of(frames, time)).collect())
}

/// Most channels of a row: a workgroup's invocations share three loops over it.
const LONGEST_ROW: usize = 1 << 20;

/// Most vectors of a row that one invocation of a CPU adapter loops over.
const LONGEST_UNSHARED: usize = 8192;

/// Invocations of a GPU that share in the sums of a run of rows.
const RUN_SLICES: usize = 8;

/// A tensor as rows of channels, `[R, C]`, for kernels in which invocations share rows (`shaders/common/slices.wgsl`).
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows {
    /// R.
    pub rows: usize,
    /// C.
    pub channels: usize,
}

impl Rows {
    /// Checks that `x` is made of rows that kernels can share.
    pub fn check(x: &TensorSpec) -> Result<(), String> {
        expect("x", x, &x.shape)?;
        if x.shape.is_empty() || x.channels() > LONGEST_ROW {
            return Err(format!("x is {x} but must be [.., C] with at most {LONGEST_ROW} channels"));
        }
        Ok(())
    }

    pub fn of(spec: &TensorSpec) -> Rows {
        Rows { rows: spec.rows(), channels: spec.channels() }
    }

    /// Channels that are loaded at once.
    pub fn width(&self) -> usize {
        vector_width(self.channels)
    }

    /// Loads of a row.
    pub fn vectors(&self) -> usize {
        self.channels / self.width()
    }

    /// Rows of a run whose terms are added first. Where invocations share in them a run may be longer, so that fewer are left
    /// to the second stage, in which none share.
    pub fn run(&self, context: &OpContext) -> usize {
        run_length(self.rows) * if context.limits.policy.for_cpu { 1 } else { RUN_SLICES / 2 }
    }

    /// The kernel `entry`, in which invocations share a row, and its grid for `rows` of them.
    pub fn shared(&self, shader: &'static str, entry: &'static str, context: &OpContext, rows: usize) -> Shared {
        let slices = match self.vectors() {
            // A CPU adapter has but a few lanes, and shares nothing fast.
            vectors if context.limits.policy.for_cpu && vectors <= LONGEST_UNSHARED => 1,
            vectors => vectors.div_ceil(4).next_power_of_two().min(WORKGROUP),
        };
        (self.kernel(shader, entry, slices), context.grid_for(rows * slices))
    }

    /// The kernel `entry`, in which invocations share in the sums of a run of rows, channel by channel, and its grid for
    /// `runs`.
    pub fn summed(&self, shader: &'static str, entry: &'static str, context: &OpContext, runs: usize) -> Shared {
        let slices = if context.limits.policy.for_cpu { 1 } else { RUN_SLICES };
        (self.kernel(shader, entry, slices), context.grid_for(runs * self.vectors() * slices))
    }

    fn kernel(&self, shader: &'static str, entry: &'static str, slices: usize) -> Kernel {
        Kernel::new(shader, entry).define("width", self.width() as i64).define("slices", slices as i64)
    }
}

/// A kernel and its grid.
type Shared = (Kernel, [u32; 3]);
