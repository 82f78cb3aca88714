//! What an op knows when it says which kernels it runs.

use std::ops::Range;

use super::TensorSpec;
pub use crate::kernel::{
    Grouping, Kernel, KernelLimits, LAYER, LAYER_BYTES, Launch, MatrixUnits, Operand, Policy, Program, Scratch, Slot,
    WORD_BYTES, WORKGROUP,
};
use crate::{Error, Result};

/// Neighbours along the innermost extent that an invocation takes at once: a vector of four where they divide it, or one.
///
/// Software Vulkan loads four values at once for little more than one.
pub(crate) fn vector_width(extent: usize) -> usize {
    if extent.is_multiple_of(4) { 4 } else { 1 }
}

/// The operands' specs and the limits, for [`super::Op::program`].
#[derive(Debug)]
pub struct OpContext<'a> {
    /// Specs of the inputs.
    pub inputs: &'a [TensorSpec],
    /// Specs of the outputs.
    pub outputs: &'a [TensorSpec],
    /// The adapter's limits.
    pub limits: &'a KernelLimits,
}

impl OpContext<'_> {
    /// All of input `i`.
    pub fn input(&self, i: usize) -> Operand {
        Operand { slot: Slot::Input(i), elements: 0..self.inputs[i].elements() }
    }

    /// All of output `i`.
    pub fn output(&self, i: usize) -> Operand {
        Operand { slot: Slot::Output(i), elements: 0..self.outputs[i].elements() }
    }

    /// Splits `count` equal units (frames, rows or elements) into windows such that each tensor's part fits a binding.
    ///
    /// `unit_elements` has each windowed tensor's elements per unit. Windows start at aligned offsets in all of them, whichever
    /// of the op's element types they have.
    ///
    /// # Errors
    /// [`Error::Device`] if even the smallest aligned window exceeds the binding limit.
    pub fn windows(&self, count: usize, unit_elements: &[usize]) -> Result<Vec<Range<usize>>> {
        let element_bytes = || self.inputs.iter().chain(self.outputs).map(|spec| spec.dtype.bytes());
        let widest = element_bytes().max().unwrap_or(WORD_BYTES);
        let narrowest = element_bytes().min().unwrap_or(WORD_BYTES);
        let largest = unit_elements.iter().copied().max().unwrap_or(0).max(1) * widest;
        let limit = self.limits.max_storage_binding_bytes;
        if count * largest <= limit {
            return Ok(std::iter::once(0..count).collect());
        }
        let alignment = self.limits.offset_alignment_bytes;
        let aligned_units = |unit: usize| alignment / gcd(alignment, unit * narrowest);
        let step = unit_elements.iter().fold(1, |step, &unit| lcm(step, aligned_units(unit)));
        let window = (limit / largest) / step * step;
        if window == 0 {
            return Err(Error::Device(format!(
                "this adapter binds at most {limit} bytes at once, but an operation needs {step} parts of {largest} bytes; \
                 use a smaller grid (data.crop), narrower layers (preset, model.*) or another adapter (--device)"
            )));
        }
        Ok((0..count).step_by(window).map(|start| start..count.min(start + window)).collect())
    }

    /// Workgroups for `groups` one-dimensional workgroups, folded into x and y where a dimension's limit asks for it.
    ///
    /// Kernels recover the number with `workgroup_index` of `common/index.wgsl` and must ignore those past the end.
    pub fn grid(&self, groups: usize) -> [u32; 3] {
        let limit = self.limits.max_workgroups_per_dimension;
        let rows = groups.div_ceil(limit).max(1);
        [groups.div_ceil(rows) as u32, rows as u32, 1]
    }

    /// Workgroups for one invocation per element.
    pub fn grid_for(&self, invocations: usize) -> [u32; 3] {
        self.grid(invocations.div_ceil(WORKGROUP))
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn lcm(a: usize, b: usize) -> usize {
    a / gcd(a, b) * b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_everything_within_the_limit_at_aligned_starts() {
        let limits = KernelLimits { max_storage_binding_bytes: 4096, ..KernelLimits::portable() };
        let context = OpContext { inputs: &[], outputs: &[], limits: &limits };
        let windows = context.windows(100, &[12, 40]).unwrap();
        assert_eq!(windows.first().unwrap().start, 0);
        assert_eq!(windows.last().unwrap().end, 100);
        for pair in windows.windows(2) {
            assert_eq!(pair[0].end, pair[1].start);
            assert_eq!((pair[1].start * 12 * 4) % 256, 0);
            assert_eq!((pair[1].start * 40 * 4) % 256, 0);
        }
        assert!(windows.iter().all(|w| w.len() * 40 * 4 <= 4096));
        assert!(context.windows(100, &[2000]).is_err());
    }
}
