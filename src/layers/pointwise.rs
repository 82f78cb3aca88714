//! Element by element: sums, scaling, activations, sigmoid, and weighted sums of scalars.

use super::activation::{normal_cdf, normal_density, sigmoid};
use super::case::Case;
use crate::graph::{
    Add, CpuTensor, Graph, Kernel, Node, Op, OpContext, Program, Slot, TensorId, TensorSpec, elementwise,
};
use crate::{Error, Result};

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

/// One function of each element of one or two operands of one size, into an output of that size.
///
/// Every one of them may overwrite its first operand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pointwise {
    /// `y = x` where `x > 0`, else `0.1 x` (torch `leaky_relu`). Saves `y`.
    Lrelu,
    /// `d_x = d_y * lrelu'(y)` from `d_y` and `y`.
    LreluBackward,
    /// `y = max(x, 0)` (torch `relu`). Saves `y`.
    Relu,
    /// `d_x = d_y` where `y > 0`, else 0, from `d_y` and `y`.
    ReluBackward,
    /// `y = x / (1 + exp(-x))` (torch `silu`). Saves `x`.
    Silu,
    /// `d_x = d_y * s * (1 + x * (1 - s))` with `s = 1 / (1 + exp(-x))`, from `d_y` and `x`.
    SiluBackward,
    /// `y = x * Phi(x) = x * (1 + erf(x / sqrt(2))) / 2` (torch `gelu`, not its approximation by tanh). Saves `x`.
    Gelu,
    /// `d_x = d_y * (Phi(x) + x * phi(x))`, `phi` being the density of the standard normal, from `d_y` and `x`.
    GeluBackward,
    /// `y = tanh(x)` (torch `tanh`). Saves `y`.
    Tanh,
    /// `d_x = d_y * (1 - y^2)` from `d_y` and `y`.
    TanhBackward,
    /// `y = scale / (1 + exp(-x))` (torch `scale * sigmoid(x)`; paper: the gate psi with scale 2). Saves `y`.
    Sigmoid {
        /// The upper limit of `y`.
        scale: f32,
    },
    /// `d_x = d_y * y * (1 - y / scale)` from `d_y` and `y`.
    SigmoidBackward {
        /// That of the forward op.
        scale: f32,
    },
    /// `y = factor * x`.
    Scale {
        /// What every element is multiplied by.
        factor: f32,
    },
}

impl Pointwise {
    fn operands(self) -> usize {
        match self {
            Pointwise::LreluBackward
            | Pointwise::ReluBackward
            | Pointwise::SiluBackward
            | Pointwise::GeluBackward
            | Pointwise::TanhBackward
            | Pointwise::SigmoidBackward { .. } => 2,
            _ => 1,
        }
    }

    /// The constant of the function, 0 where it has none.
    fn constant(self) -> f32 {
        match self {
            Pointwise::Sigmoid { scale } | Pointwise::SigmoidBackward { scale } => scale,
            Pointwise::Scale { factor } => factor,
            _ => 0.0,
        }
    }

    fn of(self, a: f64, b: f64) -> f64 {
        let constant = f64::from(self.constant());
        match self {
            Pointwise::Lrelu => lrelu(a),
            Pointwise::LreluBackward => a * lrelu_slope(b),
            Pointwise::Relu => a.max(0.0),
            Pointwise::ReluBackward => a * f64::from(u8::from(b > 0.0)),
            Pointwise::Silu => a * sigmoid(a),
            Pointwise::SiluBackward => a * sigmoid(b) * (1.0 + b * (1.0 - sigmoid(b))),
            Pointwise::Gelu => a * normal_cdf(a),
            Pointwise::GeluBackward => a * (normal_cdf(b) + b * normal_density(b)),
            Pointwise::Tanh => a.tanh(),
            Pointwise::TanhBackward => a * (1.0 - b * b),
            Pointwise::Sigmoid { .. } => constant * sigmoid(a),
            Pointwise::SigmoidBackward { .. } => a * b * (1.0 - b / constant),
            Pointwise::Scale { .. } => constant * a,
        }
    }
}

impl Op for Pointwise {
    fn name(&self) -> &'static str {
        match self {
            Pointwise::Lrelu => "lrelu_forward",
            Pointwise::LreluBackward => "lrelu_backward",
            Pointwise::Relu => "relu_forward",
            Pointwise::ReluBackward => "relu_backward",
            Pointwise::Silu => "silu_forward",
            Pointwise::SiluBackward => "silu_backward",
            Pointwise::Gelu => "gelu_forward",
            Pointwise::GeluBackward => "gelu_backward",
            Pointwise::Tanh => "tanh_forward",
            Pointwise::TanhBackward => "tanh_backward",
            Pointwise::Sigmoid { .. } => "sigmoid_forward",
            Pointwise::SigmoidBackward { .. } => "sigmoid_backward",
            Pointwise::Scale { .. } => "scale",
        }
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let count = self.operands();
        match inputs {
            [first, rest @ ..] if inputs.len() == count && rest.iter().all(|i| i.elements() == first.elements()) => {
                Ok(vec![first.clone()])
            }
            _ => Err(format!("needs {count} operands of one size")),
        }
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let second = &inputs[self.operands() - 1];
        vec![inputs[0].data.iter().zip(second.data).map(|(&a, &b)| self.of(a, b)).collect()]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        elementwise(context, self.name(), self.constant())
    }

    fn backward(
        &self,
        graph: &mut Graph,
        node: &Node,
        d_outputs: &[Option<TensorId>],
        _: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None; self.operands()]) };
        let (x, y) = (node.inputs[0], node.outputs[0]);
        let d_x = match *self {
            Pointwise::Lrelu => graph.push_one(Pointwise::LreluBackward, &[d_y, y])?,
            Pointwise::Relu => graph.push_one(Pointwise::ReluBackward, &[d_y, y])?,
            Pointwise::Silu => graph.push_one(Pointwise::SiluBackward, &[d_y, x])?,
            Pointwise::Gelu => graph.push_one(Pointwise::GeluBackward, &[d_y, x])?,
            Pointwise::Tanh => graph.push_one(Pointwise::TanhBackward, &[d_y, y])?,
            Pointwise::Sigmoid { scale } => graph.push_one(Pointwise::SigmoidBackward { scale }, &[d_y, y])?,
            Pointwise::Scale { factor } => graph.push_one(Pointwise::Scale { factor }, &[d_y])?,
            _ => return Err(Error::Shape(format!("{} is not differentiated again", self.name()))),
        };
        Ok(vec![Some(d_x)])
    }

    fn in_place(&self) -> Option<(usize, usize)> {
        Some((0, 0))
    }

    fn is_mask(&self) -> bool {
        *self == Pointwise::LreluBackward
    }

    fn takes_half(&self, _: Slot) -> bool {
        true
    }
}

/// `y = sum over i of weights[i] * x_i` of scalars: the total loss.
///
/// # Shapes
/// - `x_i`: `[1]`, one to seven of them
/// - `y`: `[1]`
///
/// Saves nothing. The backward pass overwrites each `d_x_i` with a multiple of `d_y`.
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
        let terms = self.weights.len();
        let parameters = (0..8).map(|i| self.weights.get(i).copied().unwrap_or(0.0).to_bits()).collect();
        let operands = (0..terms).map(|i| context.input(i)).chain([context.output(0)]).collect();
        let kernel = Kernel::new("pointwise.wgsl", "weighted_sum").define("width", 1).define("terms", terms as i64);
        let mut program = Program::default();
        program.dispatch(kernel, parameters, operands, [1, 1, 1]);
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
                d_inputs[i] = Some(graph.push_one(Pointwise::Scale { factor }, &[d_y])?);
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
        Case::new("add in fours", |b| {
            let (x, y) = (b.normal("a", &[4, 77]), b.normal("b", &[4, 77]));
            b.graph.push(Add, &[x, y])
        })
        .windowed(512),
        Case::new("lrelu in fours", |b| {
            let x = b.normal("x", &[8, 41]);
            b.graph.push(Pointwise::Lrelu, &[x])
        })
        .windowed(512),
        Case::new("lrelu", |b| {
            let x = b.normal("x", &[5, 41]);
            b.graph.push(Pointwise::Lrelu, &[x])
        })
        .windowed(512),
        Case::new("sigmoid", |b| {
            let x = b.normal("x", &[9, 31]);
            b.graph.push(Pointwise::Sigmoid { scale: 2.0 }, &[x])
        })
        .windowed(512),
        Case::new("sigmoid in fours", |b| {
            let x = b.normal("x", &[12, 31]);
            b.graph.push(Pointwise::Sigmoid { scale: 2.0 }, &[x])
        })
        .windowed(512),
        Case::new("scale", |b| {
            let x = b.normal("x", &[7, 37]);
            b.graph.push(Pointwise::Scale { factor: -1.75 }, &[x])
        })
        .windowed(512),
        Case::new("weighted_sum", |b| {
            let terms = [1.0, -0.5, 0.005, 3.0, 0.25, 2.0, 0.125].map(|weight| (weight, b.normal("x", &[1])));
            Ok(vec![weighted_sum(&mut b.graph, &terms)?])
        }),
    ]
}
