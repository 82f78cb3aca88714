//! What an op tells the executor: scratch tensors and kernel launches over ranges of its operands.

use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes of an f32 or u32 element: what scratch tensors, flat blocks and parameter blocks consist of. Bindings are whole
/// words.
pub const WORD_BYTES: usize = 4;

/// What a launch's parameter block is aligned to, and its size unless launches share a dispatch, in bytes.
pub const PARAMETER_BYTES: usize = 256;

/// Invocations of a workgroup in kernels that run one invocation per element.
pub const WORKGROUP: usize = 64;

/// Vectors of four f32 in a layer of the storage images that hold [`Scratch::Image`] (`shaders/common/operands.wgsl`).
pub const LAYER: [u32; 2] = [64, 32];

/// Bytes of such a layer.
pub const LAYER_BYTES: usize = 16 * (LAYER[0] * LAYER[1]) as usize;

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
    /// a buffer of `element[b]`, or of vectors of that, works with both types.
    pub half_bindings: u32,
    /// The bindings that are images of which it reads, as bits.
    pub read_images: u32,
    /// Those that are images to which it writes.
    pub written_images: u32,
    /// It runs several launches in one dispatch ([`super::grouped`]). The plan sets it.
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

/// A kernel with the number of its operands: what a pipeline is made of.
pub type BoundKernel = (Kernel, usize);

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
    /// Elements bound; the start must be aligned (`graph::OpContext::windows`).
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
