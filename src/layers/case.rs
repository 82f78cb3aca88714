//! Cases: what a layer contributes to the comparison of its kernels with its f64 CPU twin (`selftest`).

use std::fmt;

use super::pointwise::Pointwise;
use crate::Result;
use crate::graph::{DType, Graph, TensorId, TensorSpec};
use crate::rng::Rng;

type Build = dyn Fn(&mut CaseBuilder) -> Result<Vec<TensorId>> + Send + Sync;

/// A small graph around one layer: inputs, the layer, and the outputs to compare.
pub struct Case {
    /// Layer and variant, as in `conv3d 3x3x3 odd`.
    pub name: String,
    /// A storage-binding limit that forces several windows, if the case is to run so too.
    pub window_bytes: Option<usize>,
    /// Why the twin cannot be compared with central differences, if it cannot.
    pub no_central_difference: Option<&'static str>,
    build: Box<Build>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Case {
    /// A case named `name`; `build` appends the layer to the builder's graph and returns the outputs to compare.
    pub fn new(
        name: impl Into<String>,
        build: impl Fn(&mut CaseBuilder) -> Result<Vec<TensorId>> + Send + Sync + 'static,
    ) -> Case {
        Case { name: name.into(), window_bytes: None, no_central_difference: None, build: Box::new(build) }
    }

    /// Runs the case also with storage bindings of at most `bytes` bytes, so that it needs several windows.
    #[must_use]
    pub fn windowed(mut self, bytes: usize) -> Case {
        self.window_bytes = Some(bytes);
        self
    }

    /// Leaves out the comparison of the twin with central differences, for a reason that does not lie in the twin.
    #[must_use]
    pub fn without_central_difference(mut self, reason: &'static str) -> Case {
        self.no_central_difference = Some(reason);
        self
    }

    /// The graph that runs: the layer, its backward pass, and what is compared kept.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] if the layer does not fit its inputs.
    pub fn graph(&self) -> Result<Graph> {
        Ok(build(self, Operands::Stay)?.graph)
    }

    /// The same with everything in f16 that may be; `None` if nothing of the layer may.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] if the layer does not fit its inputs.
    pub fn half_graph(&self) -> Result<Option<Graph>> {
        Ok(build_half(self)?.map(|built| built.graph))
    }
}

/// Collects a case's graph and the values of its inputs.
#[derive(Debug)]
pub struct CaseBuilder {
    /// The graph under construction.
    pub graph: Graph,
    /// Random numbers that depend on the case's name only.
    pub rng: Rng,
    values: Vec<(TensorId, Vec<f64>)>,
    differentiable: Vec<TensorId>,
    operands: Operands,
}

/// What becomes of a layer's operands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Operands {
    /// They are inputs of the graph, which keep their values.
    Stay,
    /// They are made in the graph and die in their last use, so that the layer may overwrite them: those of the backward
    /// pass too, or else the forward pass' alone, which then has no backward pass to save them for.
    Die {
        /// Whether the graph has a backward pass.
        with_backward: bool,
    },
}

impl CaseBuilder {
    fn new(name: &str, operands: Operands) -> Self {
        let stream = name.bytes().fold(0, |hash: u64, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let (graph, rng) = (Graph::new(), Rng::new(1, stream));
        CaseBuilder { graph, rng, values: Vec::new(), differentiable: Vec::new(), operands }
    }

    /// A differentiable input of standard normal values.
    pub fn normal(&mut self, name: &str, shape: &[usize]) -> TensorId {
        let id = self.constant_normal(name, shape);
        self.differentiable.push(id);
        id
    }

    /// An input of standard normal values without a gradient.
    pub fn constant_normal(&mut self, name: &str, shape: &[usize]) -> TensorId {
        let count = shape.iter().product();
        let values = (0..count).map(|_| self.rng.normal()).collect();
        self.values(name, shape, values)
    }

    /// A differentiable input of given values.
    pub fn differentiable(&mut self, name: &str, shape: &[usize], values: Vec<f64>) -> TensorId {
        let id = self.values(name, shape, values);
        self.differentiable.push(id);
        id
    }

    /// An f32 input of given values (rounded to f32 for the twin as well) without a gradient.
    pub fn values(&mut self, name: &str, shape: &[usize], values: Vec<f64>) -> TensorId {
        let id = self.graph.input(name, TensorSpec::f32(shape));
        self.values.push((id, values.into_iter().map(|v| f64::from(v as f32)).collect()));
        match self.operands {
            Operands::Stay => id,
            // One operand always fits.
            Operands::Die { .. } => self.graph.push_one(Pointwise::Scale { factor: 1.0 }, &[id]).unwrap_or(id),
        }
    }

    /// A u32 input of given values.
    pub fn words(&mut self, name: &str, shape: &[usize], values: &[u32]) -> TensorId {
        let id = self.graph.input(name, TensorSpec::u32(shape));
        self.values.push((id, values.iter().map(|&v| f64::from(v)).collect()));
        id
    }

    /// A u32 input of uniform values below `bound`.
    pub fn labels(&mut self, name: &str, shape: &[usize], bound: usize) -> TensorId {
        let values: Vec<u32> = (0..shape.iter().product()).map(|_| self.rng.below(bound) as u32).collect();
        self.words(name, shape, &values)
    }
}

/// A case's graph with what its values are, and what is compared.
pub struct Built {
    /// The layer and its backward pass.
    pub graph: Graph,
    /// Of its inputs.
    pub values: Vec<(TensorId, Vec<f64>)>,
    /// Outputs with what stands for the gradient of each.
    pub seeds: Vec<(TensorId, TensorId)>,
    /// Those that have gradients.
    pub inputs: Vec<TensorId>,
    /// Results.
    pub outputs: Vec<TensorId>,
    /// Those of `inputs`.
    pub gradients: Vec<TensorId>,
}

/// The graph of a case.
///
/// # Errors
/// [`crate::Error::Shape`] if the layer does not fit its inputs.
pub fn build(case: &Case, operands: Operands) -> Result<Built> {
    Ok(build_as(case, operands, false)?.0)
}

/// The same in f16; `None` if nothing but the copies of the operands would be.
///
/// # Errors
/// [`crate::Error::Shape`] if the layer does not fit its inputs.
pub fn build_half(case: &Case) -> Result<Option<Built>> {
    let (built, halved) = build_as(case, Operands::Die { with_backward: true }, true)?;
    Ok((halved > 0).then_some(built))
}

/// With the number of tensors in f16.
fn build_as(case: &Case, operands: Operands, half: bool) -> Result<(Built, usize)> {
    let mut builder = CaseBuilder::new(&case.name, operands);
    let outputs = (case.build)(&mut builder)?;
    let mut seeds = Vec::new();
    if !builder.differentiable.is_empty() && operands != (Operands::Die { with_backward: false }) {
        for &output in &outputs {
            let spec = builder.graph.tensor(output).spec.clone();
            if spec.dtype == DType::F32 {
                let seed = builder.constant_normal("seed", &spec.shape);
                seeds.push((output, seed));
            }
        }
    }
    let CaseBuilder { mut graph, values, differentiable, .. } = builder;
    let gradients = graph.backward(&seeds, &differentiable)?;
    let (mut inputs, mut d_inputs) = (Vec::new(), Vec::new());
    for &input in &differentiable {
        if let Some(gradient) = gradients.of(&graph, input) {
            inputs.push(input);
            d_inputs.push(gradient);
        }
    }
    // Before they are kept, so that results are in f16 too.
    let halved = if half { graph.halve(0) } else { 0 };
    for &id in outputs.iter().chain(&d_inputs) {
        graph.keep(id);
    }
    Ok((Built { graph, values, seeds, inputs, outputs, gradients: d_inputs }, halved))
}
