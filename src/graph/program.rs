//! What an op tells the executor: scratch tensors and kernel launches over ranges of its operands.

use std::collections::BTreeMap;
use std::ops::Range;

use super::tune::Tuning;
use super::{TensorSpec, WORD_BYTES};
use crate::{Error, Result};

/// Invocations of a workgroup in kernels that run one invocation per element.
pub const WORKGROUP: usize = 64;

/// Vectors of four f32 in a layer of the storage images that hold [`Scratch::Image`] (`shaders/common/image.wgsl`).
pub const LAYER: [u32; 2] = [64, 32];

/// Bytes of such a layer.
pub const LAYER_BYTES: usize = 16 * (LAYER[0] * LAYER[1]) as usize;

/// The adapter's limits as far as kernels care.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelLimits {
    /// Largest range of a buffer that one storage binding may cover, in bytes.
    pub max_storage_binding_bytes: usize,
    /// Largest buffer, in bytes.
    pub max_buffer_bytes: usize,
    /// Largest storage image, in bytes.
    pub max_image_bytes: usize,
    /// Alignment of a binding's start, in bytes.
    pub offset_alignment_bytes: usize,
    /// Largest number of workgroups along one dimension.
    pub max_workgroups_per_dimension: usize,
    /// Workgroup memory, in bytes.
    pub max_workgroup_bytes: usize,
    /// The adapter is a CPU (software Vulkan): the register-blocked kernels run instead of the tiled ones.
    pub is_cpu: bool,
    /// Fewest lanes that a subgroup may have; 0 where kernels must do without subgroup operations.
    pub min_subgroup_lanes: usize,
    /// How products of f16 are made.
    pub matrices: MatrixUnits,
    /// Which variants of programs run; none are chosen for CPU adapters.
    pub tuning: Tuning,
    /// Kernels may use 16-bit floats.
    pub has_f16: bool,
    /// Which launches share a dispatch.
    pub grouping: Grouping,
}

/// What a tuning says of a kernel whose launches may share a dispatch ([`Kernel::sharing`]), and of one whose launches may not.
pub(super) const SHARED: &str = "shared";
pub(super) const ALONE: &str = "alone";

/// Which launches of one kernel share a dispatch, so that a step has fewer of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grouping {
    /// None.
    Off,
    /// Small ones that do not depend on each other.
    Small,
    /// Of the small ones those of kernels for which the tuning says so.
    Tried,
    /// Each is made as if it shared one, even if there is no other: for tests of the kernels.
    Every,
}

/// What multiplies 16 x 16 matrices of f16 and sums in f32, together in a subgroup of 32 lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatrixUnits {
    /// Nothing: kernels multiply numbers.
    None,
    /// The adapter's units.
    Present,
    /// The lanes by themselves, in the same kernels: for tests where there are no units.
    Emulated,
}

impl KernelLimits {
    /// Whether small launches of `kernel` share dispatches.
    pub fn shares(&self, kernel: &Kernel) -> bool {
        match self.grouping {
            Grouping::Off | Grouping::Every => false,
            Grouping::Small => true,
            Grouping::Tried => self.tuning.get(&kernel.sharing()).is_some_and(|choice| choice == SHARED),
        }
    }

    /// What WebGPU guarantees everywhere.
    pub fn portable() -> Self {
        KernelLimits {
            max_storage_binding_bytes: 128 << 20,
            max_buffer_bytes: 256 << 20,
            max_image_bytes: 256 * LAYER_BYTES,
            offset_alignment_bytes: 256,
            max_workgroups_per_dimension: 65_535,
            max_workgroup_bytes: 16 << 10,
            is_cpu: false,
            min_subgroup_lanes: 0,
            tuning: Tuning::new(),
            has_f16: false,
            matrices: MatrixUnits::None,
            grouping: Grouping::Small,
        }
    }
}

/// A shader template, the entry point in it, and what its text is generated with.
///
/// All of it is the key of the pipeline cache, so that two kernels are never confused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kernel {
    /// File below `shaders/`, as in `linear.wgsl`.
    pub shader: &'static str,
    /// Entry point; the pipeline's label and profile row.
    pub entry: &'static str,
    /// Template values.
    pub defines: BTreeMap<&'static str, i64>,
    /// The bindings whose elements are f16, as bits. The plan sets it; a template that declares binding `b` as
    /// `array<{{ element[b] }}>`, or of vectors of that, works with both types.
    pub half_bindings: u32,
    /// The bindings that are images of which it reads, as bits.
    pub read_images: u32,
    /// Those that are images to which it writes.
    pub written_images: u32,
    /// It runs several launches in one dispatch. The plan sets it; templates need not know (`gpu::grouped`).
    pub is_grouped: bool,
}

impl Kernel {
    /// A kernel without template values.
    pub fn new(shader: &'static str, entry: &'static str) -> Self {
        let defines = BTreeMap::new();
        Kernel { shader, entry, defines, half_bindings: 0, read_images: 0, written_images: 0, is_grouped: false }
    }

    /// The same, of which `binding` is an image that it reads.
    #[must_use]
    pub fn reads_image(self, binding: u32) -> Self {
        Kernel { read_images: self.read_images | 1 << binding, ..self }
    }

    /// The same, of which `binding` is an image that it writes.
    #[must_use]
    pub fn writes_image(self, binding: u32) -> Self {
        Kernel { written_images: self.written_images | 1 << binding, ..self }
    }

    /// Whether it multiplies by matrix units.
    pub fn on_matrix_units(&self) -> bool {
        self.defines.get("matrix_units") == Some(&1)
    }

    /// What a tuning calls the question whether its launches may share a dispatch.
    pub fn sharing(&self) -> String {
        let values: String = self.defines.iter().map(|(name, value)| format!(" {name}={value}")).collect();
        format!("dispatches of {} {}{values} f16={:b}", self.shader, self.entry, self.half_bindings)
    }

    /// The same with the template value `name = value`.
    #[must_use]
    pub fn define(mut self, name: &'static str, value: impl Into<i64>) -> Self {
        self.defines.insert(name, value.into());
        self
    }
}

/// Which of the op's tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// Input number `i`.
    Input(usize),
    /// Output number `i`.
    Output(usize),
    /// Scratch tensor number `i`.
    Scratch(usize),
}

/// A range of elements of one tensor, bound to a kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct Operand {
    /// The tensor.
    pub slot: Slot,
    /// Elements bound; the start must be aligned (see [`OpContext::windows`]).
    pub elements: Range<usize>,
}

/// One dispatch, or the clearing of a range to zero.
#[derive(Debug, Clone, PartialEq)]
pub enum Launch {
    /// Runs a kernel: binding 0 is the uniform parameter block, bindings 1.. the operands.
    Dispatch {
        /// Shader and entry point.
        kernel: Kernel,
        /// Words of the parameter block (`f32` as bits).
        parameters: Vec<u32>,
        /// Tensors, from binding 1 on; `var<storage, read_write>` unless the kernel says that they are images.
        operands: Vec<Operand>,
        /// Workgroups along x, y, z.
        workgroups: [u32; 3],
    },
    /// Sets a range of elements to zero bits.
    Clear {
        /// What is cleared.
        operand: Operand,
    },
}

/// A temporary of so many elements of four bytes, alive during its op only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scratch {
    /// In storage memory.
    Buffer(usize),
    /// Vectors of four f32 in a storage image, of which software Vulkan reads in half the time: it has no loop over the lanes
    /// there. A kernel either reads or writes it ([`Kernel::reads_image`], [`Kernel::writes_image`]).
    Image(usize),
}

impl Scratch {
    /// Its size.
    pub fn bytes(&self) -> usize {
        match self {
            Scratch::Buffer(elements) | Scratch::Image(elements) => elements * WORD_BYTES,
        }
    }
}

/// Everything an op runs, in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Program {
    /// The temporaries.
    pub scratch: Vec<Scratch>,
    /// Launches, in order; each sees the writes of those before it.
    pub launches: Vec<Launch>,
}

impl Program {
    /// Adds a temporary in storage memory and returns its slot.
    pub fn scratch(&mut self, elements: usize) -> Slot {
        self.scratch.push(Scratch::Buffer(elements));
        Slot::Scratch(self.scratch.len() - 1)
    }

    /// Adds a temporary in a storage image and returns all of it.
    pub fn image(&mut self, elements: usize) -> Operand {
        self.scratch.push(Scratch::Image(elements));
        Operand::scratch(Slot::Scratch(self.scratch.len() - 1), elements)
    }

    /// Appends a dispatch.
    pub fn dispatch(&mut self, kernel: Kernel, parameters: Vec<u32>, operands: Vec<Operand>, workgroups: [u32; 3]) {
        self.launches.push(Launch::Dispatch { kernel, parameters, operands, workgroups });
    }

    /// Appends the clearing of `operand`.
    pub fn clear(&mut self, operand: Operand) {
        self.launches.push(Launch::Clear { operand });
    }
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

impl Operand {
    /// The part of a tensor that belongs to units `window`, with `unit` elements each.
    #[must_use]
    pub fn window(mut self, window: &Range<usize>, unit: usize) -> Self {
        let base = self.elements.start;
        self.elements = base + window.start * unit..base + window.end * unit;
        self
    }

    /// All `elements` of a scratch tensor.
    pub fn scratch(slot: Slot, elements: usize) -> Self {
        Operand { slot, elements: 0..elements }
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
