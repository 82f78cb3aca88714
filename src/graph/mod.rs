//! Graph of typed ops -> autodiff -> plan -> execute.
//!
//! A model is a function that appends nodes to a [`Graph`]; shapes are checked as it is built. [`Graph::backward`]
//! appends the backward ops to the same graph, [`plan`] decides once where every tensor lives, [`execute`] encodes the
//! same dispatches step after step, and [`interpret`] runs the same nodes through their f64 CPU twins.
//!
//! Nothing in this module or in a layer names wgpu except [`execute`].

mod add;
mod autodiff;
pub mod execute;
mod half;
pub mod interpret;
mod parameter;
pub mod plan;
pub mod program;
pub mod recompute;
pub mod tune;

use std::fmt;
use std::sync::Arc;

pub use add::Add;
pub(crate) use add::elementwise;
pub use autodiff::Gradients;
pub use parameter::{Init, ParameterKind, ParameterSpec};
pub use program::{
    Grouping, Kernel, KernelLimits, Launch, MatrixUnits, OpContext, Operand, Policy, Program, Scratch, Slot, WORD_BYTES,
};
pub use tune::Variants;

pub use crate::kernel::Tuning;

use crate::{Error, Result};

/// Element type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision; only [`Graph::halve`] makes such tensors.
    F16,
    /// Unsigned words: labels, counts, bits.
    U32,
}

impl DType {
    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            DType::F32 | DType::U32 => WORD_BYTES,
            DType::F16 => WORD_BYTES / 2,
        }
    }
}

/// Shape and element type. Storage is dense, the last axis fastest (channels-last).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Extents, outermost first; `[]` is a scalar.
    pub shape: Vec<usize>,
    /// Element type.
    pub dtype: DType,
}

impl TensorSpec {
    /// An f32 tensor.
    pub fn f32(shape: &[usize]) -> Self {
        TensorSpec { shape: shape.to_vec(), dtype: DType::F32 }
    }

    /// A u32 tensor.
    pub fn u32(shape: &[usize]) -> Self {
        TensorSpec { shape: shape.to_vec(), dtype: DType::U32 }
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes of all elements.
    pub fn bytes(&self) -> usize {
        self.elements() * self.dtype.bytes()
    }

    /// Extent of the last axis (1 for a scalar).
    pub fn channels(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Elements divided by channels: the number of channel vectors.
    pub fn rows(&self) -> usize {
        self.elements() / self.channels().max(1)
    }
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.dtype {
            DType::F32 => "",
            DType::F16 => "f16 ",
            DType::U32 => "u32 ",
        };
        write!(f, "{kind}{:?}", self.shape)
    }
}

/// A tensor of one [`Graph`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId(pub(crate) usize);

/// Where a tensor lives.
#[derive(Debug, Clone, PartialEq)]
pub enum Storage {
    /// In an arena, while it is needed.
    Transient,
    /// Parameter number `i`, inside the flat parameter block.
    Parameter(usize),
    /// Gradient of parameter number `i`, inside the flat gradient block.
    Gradient(usize),
    /// The whole of one flat block (what the optimiser works on).
    Block(Block),
    /// Written by the host before a step; keeps its place and its value.
    Input,
    /// Written once when the executor is made.
    Constant(Arc<Vec<f32>>),
}

/// The flat blocks that outlive a step and are shared by the graphs of a run. Each parameter starts at a multiple of 64
/// elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Block {
    /// All parameters that are trained, `[P]`.
    Parameters,
    /// Their gradients, `[P]`.
    Gradients,
    /// The sums of their gradients over the batches of a step, `[P]`.
    GradientSums,
    /// Adam's first and second moments, `[2, P]`.
    Moments,
    /// Moving averages of the parameters over the steps, `[P]`.
    Averages,
    /// What a model keeps that no gradient reaches, [`ParameterKind::Buffer`].
    Buffers,
    /// The losses of a batch, at most 64.
    Losses,
    /// Their sums over the batches of a step.
    LossSums,
    /// What a loss is multiplied by before it is differentiated, `[1]`.
    LossScale,
}

/// A tensor's name, spec and storage.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// Dotted name for messages and profiles.
    pub name: String,
    /// Shape and element type.
    pub spec: TensorSpec,
    /// Where it lives (that of `root` if this is a reshaped view).
    pub storage: Storage,
    /// The tensor whose memory this one shares; itself unless it is a view.
    pub root: TensorId,
    /// Readable by the host after a step.
    pub kept: bool,
}

/// One op with its operands.
#[derive(Debug, Clone)]
pub struct Node {
    /// What is computed.
    pub op: Arc<dyn Op>,
    /// Operands, in the order the op documents.
    pub inputs: Vec<TensorId>,
    /// Results, in the order the op documents.
    pub outputs: Vec<TensorId>,
    /// The dotted path of the part of the model it belongs to.
    pub scope: String,
}

impl Node {
    /// The tensor of an operand of the op's program; `None` for scratch.
    fn tensor(&self, slot: Slot) -> Option<TensorId> {
        match slot {
            Slot::Input(i) => Some(self.inputs[i]),
            Slot::Output(i) => Some(self.outputs[i]),
            Slot::Scratch(_) => None,
        }
    }

    fn dtype(&self, graph: &Graph, slot: Slot) -> DType {
        self.tensor(slot).map_or(DType::F32, |id| graph.tensor(id).spec.dtype)
    }
}

/// A tensor's shape and f64 values for the CPU twins. Labels and counts are exact in f64.
#[derive(Debug, Clone, Copy)]
pub struct CpuTensor<'a> {
    /// Extents, outermost first.
    pub shape: &'a [usize],
    /// Values in storage order.
    pub data: &'a [f64],
}

/// An operator: shape rule, kernels, f64 CPU twin and derivative.
///
/// Backward passes are ops too, so that each has kernels and a twin of its own.
pub trait Op: fmt::Debug + Send + Sync {
    /// Layer and pass, as in `conv3d_forward`; the profile row and the name in messages.
    fn name(&self) -> &'static str;

    /// Specs of the outputs, or a sentence that says what does not fit.
    ///
    /// # Errors
    /// A plain sentence; the graph adds the op's name, its place and the operands' shapes.
    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String>;

    /// The naive f64 twin: every output from every input.
    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>>;

    /// Scratch tensors and kernel launches for operands of these shapes under these limits.
    ///
    /// # Errors
    /// [`Error::Device`] or [`Error::Memory`] where the limits cannot hold even one frame window.
    fn program(&self, context: &OpContext) -> Result<Program>;

    /// The variants of [`Op::program`], if there are several under these limits.
    fn variants(&self, _context: &OpContext) -> Option<Variants> {
        None
    }

    /// Appends the backward ops; returns the gradient of each input (`None` where there is none or `needs` is false).
    ///
    /// `d_outputs` has the gradient of each output, `None` where nothing depends on it.
    ///
    /// # Errors
    /// [`Error::Shape`] as for any node.
    fn backward(
        &self,
        _graph: &mut Graph,
        _node: &Node,
        _d_outputs: &[Option<TensorId>],
        _needs: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        Err(Error::Shape(format!("{} has no derivative; take it out of the differentiated part", self.name())))
    }

    /// `(output, input)` that may share memory, because every element is read before it is written by one invocation.
    fn in_place(&self) -> Option<(usize, usize)> {
        None
    }

    /// Whether it multiplies its first operand by the derivative of leaky ReLU at the second, which other ops may do with their
    /// results besides ([`Op::masked`]).
    fn is_mask(&self) -> bool {
        false
    }

    /// The op that multiplies its only result by the derivative of leaky ReLU besides, at `y`, which is one more input.
    fn masked(&self) -> Option<Arc<dyn Op>> {
        None
    }

    /// Whether the kernels take this operand in f16 too: they load it as f32 and round what they store
    /// ([`Kernel::half_bindings`]).
    fn takes_half(&self, _operand: Slot) -> bool {
        false
    }

    /// Floating-point operations of one execution (multiply and add count as two).
    fn flops(&self, _inputs: &[TensorSpec], outputs: &[TensorSpec]) -> u64 {
        outputs.iter().map(|o| o.elements() as u64).sum()
    }
}

/// Ops and tensors in the order of execution.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) parameters: Vec<ParameterSpec>,
    scope: Vec<String>,
    /// Whether parameters are read where their moving averages are.
    averaged: bool,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// All nodes, in order of execution.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The tensor's name, spec and storage.
    pub fn tensor(&self, id: TensorId) -> &Tensor {
        &self.tensors[id.0]
    }

    /// The tensor's shape.
    pub fn shape(&self, id: TensorId) -> &[usize] {
        &self.tensors[id.0].spec.shape
    }

    /// The parameters in order of declaration.
    pub fn parameters(&self) -> &[ParameterSpec] {
        &self.parameters
    }

    /// The tensor that owns `id`'s memory.
    pub fn root(&self, id: TensorId) -> TensorId {
        self.tensors[id.0].root
    }

    /// Runs `build` with `name` appended to the dotted path of parameters and nodes.
    ///
    /// # Errors
    /// Those of `build`.
    pub fn scope<R>(&mut self, name: &str, build: impl FnOnce(&mut Graph) -> Result<R>) -> Result<R> {
        self.scope.push(name.to_owned());
        let result = build(self);
        self.scope.pop();
        result
    }

    /// `name` below the present scope.
    pub fn path(&self, name: &str) -> String {
        let mut path = self.scope.join(".");
        if !path.is_empty() && !name.is_empty() {
            path.push('.');
        }
        path + name
    }

    fn add_tensor(&mut self, name: String, spec: TensorSpec, storage: Storage) -> TensorId {
        let id = TensorId(self.tensors.len());
        self.tensors.push(Tensor { name, spec, storage, root: id, kept: false });
        id
    }

    /// A tensor that the host writes before a step.
    pub fn input(&mut self, name: &str, spec: TensorSpec) -> TensorId {
        self.add_tensor(name.to_owned(), spec, Storage::Input)
    }

    /// An f32 tensor of fixed values.
    ///
    /// # Errors
    /// [`Error::Shape`] if `values` does not fill `shape`.
    pub fn constant(&mut self, name: &str, shape: &[usize], values: Vec<f32>) -> Result<TensorId> {
        let spec = TensorSpec::f32(shape);
        if spec.elements() != values.len() {
            return Err(Error::Shape(format!("constant {name}: {} values for shape {spec}", values.len())));
        }
        Ok(self.add_tensor(self.path(name), spec, Storage::Constant(Arc::new(values))))
    }

    /// The whole of a flat block as one tensor, or, of one that is no list of parameters, its first elements. Declare every
    /// parameter before.
    pub fn block(&mut self, block: Block, shape: &[usize]) -> TensorId {
        self.add_tensor(format!("{block:?}"), TensorSpec::f32(shape), Storage::Block(block))
    }

    /// Lets the host read `id` after a step.
    pub fn keep(&mut self, id: TensorId) {
        let root = self.root(id);
        self.tensors[root.0].kept = true;
    }

    /// A view of `id` with another shape and the same number of elements; it costs nothing.
    ///
    /// # Errors
    /// [`Error::Shape`] if the numbers of elements differ.
    pub fn reshape(&mut self, id: TensorId, shape: &[usize]) -> Result<TensorId> {
        let old = &self.tensors[id.0];
        let spec = TensorSpec { shape: shape.to_vec(), dtype: old.spec.dtype };
        if spec.elements() != old.spec.elements() {
            return Err(Error::Shape(format!("cannot view {} {} as {spec}", old.name, old.spec)));
        }
        let (name, storage, root) = (old.name.clone(), old.storage.clone(), old.root);
        let view = self.add_tensor(name, spec, storage);
        self.tensors[view.0].root = root;
        Ok(view)
    }

    /// Appends `op` and returns its outputs.
    ///
    /// # Errors
    /// [`Error::Shape`] naming the op, its place and the operands if they do not fit.
    pub fn push(&mut self, op: impl Op + 'static, inputs: &[TensorId]) -> Result<Vec<TensorId>> {
        self.push_shared(Arc::new(op), inputs)
    }

    fn push_shared(&mut self, op: Arc<dyn Op>, inputs: &[TensorId]) -> Result<Vec<TensorId>> {
        let specs: Vec<TensorSpec> = inputs.iter().map(|&i| self.tensors[i.0].spec.clone()).collect();
        let scope = self.path("");
        let outputs = op.outputs(&specs).map_err(|why| {
            let operands: Vec<String> = inputs.iter().map(|&i| self.describe(i)).collect();
            Error::Shape(format!("{} in '{scope}': {why}; operands: {}", op.name(), operands.join(", ")))
        })?;
        let name = self.path(op.name());
        let outputs: Vec<TensorId> =
            outputs.into_iter().map(|spec| self.add_tensor(name.clone(), spec, Storage::Transient)).collect();
        self.nodes.push(Node { op, inputs: inputs.to_vec(), outputs: outputs.clone(), scope });
        Ok(outputs)
    }

    /// Appends an op with exactly one output.
    ///
    /// # Errors
    /// As [`Graph::push`].
    pub fn push_one(&mut self, op: impl Op + 'static, inputs: &[TensorId]) -> Result<TensorId> {
        Ok(self.push(op, inputs)?[0])
    }

    /// Appends an op whose outputs overwrite the given tensors of equal shape (the optimiser's updates).
    ///
    /// # Errors
    /// As [`Graph::push`].
    pub fn push_into(&mut self, op: impl Op + 'static, inputs: &[TensorId], targets: &[TensorId]) -> Result<()> {
        let outputs = self.push(op, inputs)?;
        for (&output, &target) in outputs.iter().zip(targets) {
            if self.shape(output) != self.shape(target) {
                return Err(Error::Shape(format!(
                    "{} cannot overwrite {}",
                    self.describe(output),
                    self.describe(target)
                )));
            }
            self.tensors[output.0].storage = self.tensors[target.0].storage.clone();
            self.tensors[output.0].root = self.tensors[target.0].root;
        }
        Ok(())
    }

    /// `name shape`, for messages.
    pub fn describe(&self, id: TensorId) -> String {
        let tensor = &self.tensors[id.0];
        format!("{} {}", tensor.name, tensor.spec)
    }

    /// Floating-point operations of one execution.
    pub fn flops(&self) -> u64 {
        self.nodes.iter().map(|node| self.node_flops(node)).sum()
    }

    /// Floating-point operations of one node.
    pub fn node_flops(&self, node: &Node) -> u64 {
        node.op.flops(&self.specs(&node.inputs), &self.specs(&node.outputs))
    }

    /// Bytes of a node's operands and results, each counted once: what one execution cannot do without moving. Scratch is left
    /// out, and so is what a kernel reads again.
    pub fn node_bytes(&self, node: &Node) -> u64 {
        let tensors = node.inputs.iter().chain(&node.outputs);
        tensors.map(|&id| self.tensors[id.0].spec.bytes() as u64).sum()
    }

    /// The specs of several tensors.
    pub fn specs(&self, ids: &[TensorId]) -> Vec<TensorSpec> {
        ids.iter().map(|&id| self.tensors[id.0].spec.clone()).collect()
    }
}
