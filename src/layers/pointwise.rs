//! Element by element: sums, scaling, leaky ReLU, sigmoid, and weighted sums of scalars.

use crate::Result;
use crate::graph::program::WORKGROUP;
use crate::graph::{CpuTensor, Graph, Kernel, Node, Op, OpContext, Program, TensorId, TensorSpec};
use crate::selftest::Case;

/// Slope of leaky ReLU below zero, everywhere in the model (`common/activation.wgsl` has the same).
pub const LRELU_SLOPE: f64 = 0.1;

/// `lrelu(x)` in f64.
pub fn lrelu(x: f64) -> f64 {
    if x > 0.0 { x } else { LRELU_SLOPE * x }
}

/// Derivative of [`lrelu`] at `x`; the output's sign serves as well.
pub fn lrelu_slope(x: f64) -> f64 {
    if x > 0.0 { 1.0 } else { LRELU_SLOPE }
}

/// A program of one kernel over all elements, with every input and the output of one size, in windows.
fn elementwise(context: &OpContext, entry: &'static str, words: &[u32]) -> Result<Program> {
    let count = context.outputs[0].elements();
    let operands = context.inputs.len() + 1;
    let mut program = Program::default();
    for window in context.windows(count, &vec![1; operands])? {
        let mut parameters = vec![window.len() as u32];
        parameters.extend_from_slice(words);
        let mut bound: Vec<_> = (0..context.inputs.len()).map(|i| context.input(i).window(&window, 1)).collect();
        bound.push(context.output(0).window(&window, 1));
        let kernel = Kernel::new("pointwise.wgsl", entry);
        program.dispatch(kernel, parameters, bound, context.grid(window.len().div_ceil(WORKGROUP)));
    }
    Ok(program)
}

fn same_shapes(inputs: &[TensorSpec], count: usize) -> Result<Vec<TensorSpec>, String> {
    match inputs {
        [first, rest @ ..] if inputs.len() == count && rest.iter().all(|i| i.elements() == first.elements()) => {
            Ok(vec![first.clone()])
        }
        _ => Err(format!("needs {count} operands of one size")),
    }
}

fn map(a: &CpuTensor, f: impl Fn(f64) -> f64) -> Vec<Vec<f64>> {
    vec![a.data.iter().map(|&a| f(a)).collect()]
}

fn zip(a: &CpuTensor, b: &CpuTensor, f: impl Fn(f64, f64) -> f64) -> Vec<Vec<f64>> {
    vec![a.data.iter().zip(b.data).map(|(&a, &b)| f(a, b)).collect()]
}

/// `y = a + b`, all of one shape (torch `a + b`).
#[derive(Debug)]
pub struct Add;

impl Op for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        same_shapes(inputs, 2)
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        zip(&inputs[0], &inputs[1], |a, b| a + b)
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        elementwise(context, "add", &[])
    }

    fn backward(
        &self,
        _: &mut Graph,
        _: &Node,
        d_outputs: &[Option<TensorId>],
        _: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        Ok(vec![d_outputs[0]; 2])
    }

    fn in_place(&self) -> Option<(usize, usize)> {
        Some((0, 0))
    }
}

/// `y = x` where `x > 0`, else `0.1 x` (torch `leaky_relu`). The backward pass works from `y`.
#[derive(Debug)]
pub struct Lrelu;

impl Op for Lrelu {
    fn name(&self) -> &'static str {
        "lrelu_forward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        same_shapes(inputs, 1)
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        map(&inputs[0], lrelu)
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        elementwise(context, "lrelu_forward", &[])
    }

    fn backward(
        &self,
        graph: &mut Graph,
        node: &Node,
        d_outputs: &[Option<TensorId>],
        _: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None]) };
        Ok(vec![Some(graph.push_one(LreluBackward, &[d_y, node.outputs[0]])?)])
    }

    fn in_place(&self) -> Option<(usize, usize)> {
        Some((0, 0))
    }
}

/// `d_x = d_y * lrelu'(y)` from `d_y` and `y`.
#[derive(Debug)]
pub struct LreluBackward;

impl Op for LreluBackward {
    fn name(&self) -> &'static str {
        "lrelu_backward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        same_shapes(inputs, 2)
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        zip(&inputs[0], &inputs[1], |d_y, y| d_y * lrelu_slope(y))
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        elementwise(context, "lrelu_backward", &[])
    }

    fn in_place(&self) -> Option<(usize, usize)> {
        Some((0, 0))
    }
}

/// `y = scale / (1 + exp(-x))` (torch `scale * sigmoid(x)`; paper: the gate psi with scale 2). Backward from `y`.
#[derive(Debug)]
pub struct Sigmoid {
    /// The upper limit of `y`.
    pub scale: f32,
}

impl Op for Sigmoid {
    fn name(&self) -> &'static str {
        "sigmoid_forward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        same_shapes(inputs, 1)
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        map(&inputs[0], |x| f64::from(self.scale) / (1.0 + (-x).exp()))
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        elementwise(context, "sigmoid_forward", &[self.scale.to_bits()])
    }

    fn backward(
        &self,
        graph: &mut Graph,
        node: &Node,
        d_outputs: &[Option<TensorId>],
        _: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None]) };
        Ok(vec![Some(graph.push_one(SigmoidBackward { scale: self.scale }, &[d_y, node.outputs[0]])?)])
    }

    fn in_place(&self) -> Option<(usize, usize)> {
        Some((0, 0))
    }
}

/// `d_x = d_y * y * (1 - y / scale)`.
#[derive(Debug)]
pub struct SigmoidBackward {
    /// That of the forward op.
    pub scale: f32,
}

impl Op for SigmoidBackward {
    fn name(&self) -> &'static str {
        "sigmoid_backward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        same_shapes(inputs, 2)
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        zip(&inputs[0], &inputs[1], |d_y, y| d_y * y * (1.0 - y / f64::from(self.scale)))
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        elementwise(context, "sigmoid_backward", &[self.scale.to_bits()])
    }

    fn in_place(&self) -> Option<(usize, usize)> {
        Some((0, 0))
    }
}

/// `y = factor * x` (torch `factor * x`).
#[derive(Debug)]
pub struct Scale {
    /// The factor.
    pub factor: f32,
}

impl Op for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        same_shapes(inputs, 1)
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        map(&inputs[0], |x| f64::from(self.factor) * x)
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        elementwise(context, "scale", &[self.factor.to_bits()])
    }

    fn backward(
        &self,
        graph: &mut Graph,
        _: &Node,
        d_outputs: &[Option<TensorId>],
        _: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None]) };
        Ok(vec![Some(graph.push_one(Scale { factor: self.factor }, &[d_y])?)])
    }

    fn in_place(&self) -> Option<(usize, usize)> {
        Some((0, 0))
    }
}

/// `y = sum over i of weights[i] * x_i` of scalars: the total loss.
///
/// # Shapes
/// - `x_i`: `[1]`, one to seven of them
/// - `y`: `[1]`
///
/// Saves nothing. The backward pass overwrites each `d_x_i` with a [`Scale`] of `d_y`.
///
/// # Errors
/// [`crate::Error::Shape`] if there are not as many operands as weights, or one is not `[1]`.
#[derive(Debug)]
pub struct WeightedSum {
    /// One weight an operand.
    pub weights: Vec<f32>,
}

/// Appends [`WeightedSum`] of `(weight, x)` terms to `graph`.
///
/// # Errors
/// [`crate::Error::Shape`] if there are no terms or more than seven, or one is not `[1]`.
pub fn weighted_sum(graph: &mut Graph, terms: &[(f32, TensorId)]) -> Result<TensorId> {
    let (weights, operands): (Vec<f32>, Vec<TensorId>) = terms.iter().copied().unzip();
    graph.push_one(WeightedSum { weights }, &operands)
}

impl Op for WeightedSum {
    fn name(&self) -> &'static str {
        "weighted_sum"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let scalar = TensorSpec::f32(&[1]);
        let fits = (1..=7).contains(&inputs.len()) && inputs.len() == self.weights.len();
        if fits && inputs.iter().all(|input| *input == scalar) {
            return Ok(vec![scalar]);
        }
        Err(format!("{} operands for {} weights; needs 1 to 7, all [1]", inputs.len(), self.weights.len()))
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        vec![vec![self.weights.iter().zip(inputs).map(|(&weight, x)| f64::from(weight) * x.data[0]).sum()]]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let mut program = Program::default();
        // One launch a term, so that the number of bindings does not depend on the number of terms.
        for (i, weight) in self.weights.iter().enumerate() {
            let parameters = vec![1, weight.to_bits(), u32::from(i > 0)];
            let kernel = Kernel::new("pointwise.wgsl", "weighted_sum");
            program.dispatch(kernel, parameters, vec![context.input(i), context.output(0)], [1, 1, 1]);
        }
        Ok(program)
    }

    fn backward(
        &self,
        graph: &mut Graph,
        _: &Node,
        d_outputs: &[Option<TensorId>],
        needs: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        let mut d_inputs = vec![None; needs.len()];
        let Some(d_y) = d_outputs[0] else { return Ok(d_inputs) };
        for (i, &factor) in self.weights.iter().enumerate() {
            if needs[i] {
                d_inputs[i] = Some(graph.push_one(Scale { factor }, &[d_y])?);
            }
        }
        Ok(d_inputs)
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        2 * inputs.len() as u64
    }
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new("add", |b| {
            let (x, y) = (b.normal("a", &[3, 77]), b.normal("b", &[3, 77]));
            b.graph.push(Add, &[x, y])
        })
        .windowed(512),
        Case::new("lrelu", |b| {
            let x = b.normal("x", &[5, 41]);
            b.graph.push(Lrelu, &[x])
        })
        .windowed(256),
        Case::new("sigmoid", |b| {
            let x = b.normal("x", &[9, 31]);
            b.graph.push(Sigmoid { scale: 2.0 }, &[x])
        })
        .windowed(512),
        Case::new("scale", |b| {
            let x = b.normal("x", &[7, 37]);
            b.graph.push(Scale { factor: -1.75 }, &[x])
        })
        .windowed(512),
        Case::new("weighted_sum", |b| {
            let terms = [1.0, -0.5, 0.005, 3.0, 0.25, 2.0, 0.125].map(|weight| (weight, b.normal("x", &[1])));
            Ok(vec![weighted_sum(&mut b.graph, &terms)?])
        }),
    ]
}
