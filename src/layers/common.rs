//! What several layers share: shape messages and windows of frames.

use std::ops::Range;

use crate::Result;
use crate::graph::{OpContext, TensorSpec};

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
    /// The words that `common/frames.wgsl` expects first in a parameter block.
    pub fn words(&self, time: usize) -> Vec<u32> {
        [self.frames.start, self.frames.end, self.sequences.start, time].map(|v| v as u32).to_vec()
    }
}

/// Windows over `sequences * time` frames such that `unit` elements a frame fit a binding.
pub(super) fn frame_windows(
    context: &OpContext,
    sequences: usize,
    time: usize,
    unit: usize,
) -> Result<Vec<FrameWindow>> {
    let windows = context.windows(sequences * time, &[unit])?;
    Ok(windows
        .into_iter()
        .map(|frames| FrameWindow { sequences: frames.start / time..frames.end.div_ceil(time), frames })
        .collect())
}
