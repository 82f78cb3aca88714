//! Linear layer over the channel axis; the same as a 1x1x1 convolution.

use std::sync::Arc;

use half::f16;

use super::case::{Case, CaseBuilder};
use super::conv3d::{self, Geometry, Pass};
use super::pointwise::{Pointwise, lrelu, lrelu_slope};
use crate::Result;
use crate::graph::{CpuTensor, Graph, Node, Op, OpContext, Program, Slot, TensorId, TensorSpec, Variants};

/// `y = act(x W^T + b)` (torch `nn.Linear`, or `nn.Conv3d` with kernel 1), leaky ReLU fused where `activation` is set, or
/// `y = act(x + x W^T + b)` where `residual` is, which costs nothing: the identity is added to the weight.
///
/// # Shapes
/// - `x`: `[.., I]`
/// - `weight`: `[O, I]`, `bias`: `[O]` (an operand only if `bias` is set)
/// - `y`: `[.., O]`
///
/// Saves `x`, and `y` where activated.
#[derive(Debug)]
pub struct Linear {
    /// Whether there is a third operand.
    pub bias: bool,
    /// Whether leaky ReLU follows.
    pub activation: bool,
    /// Whether `x` is added to the product; needs `O = I`.
    pub residual: bool,
}

fn with_channels(spec: &TensorSpec, channels: usize) -> TensorSpec {
    let mut shape = spec.shape.clone();
    if let Some(last) = shape.last_mut() {
        *last = channels;
    }
    TensorSpec::f32(&shape)
}

impl Op for Linear {
    fn name(&self) -> &'static str {
        "linear_forward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let expected = if self.bias { 3 } else { 2 };
        if inputs.len() != expected || inputs[1].shape.len() != 2 {
            return Err("needs x, a weight [O, I] and, with a bias, a bias [O]".into());
        }
        let (o, i) = (inputs[1].shape[0], inputs[1].shape[1]);
        if inputs[0].channels() != i {
            return Err(format!("x has {} channels, the weight takes {i}", inputs[0].channels()));
        }
        if self.bias && inputs[2].elements() != o {
            return Err(format!("the bias needs {o} elements"));
        }
        if self.residual && o != i {
            return Err(format!("{i} channels cannot be added to {o}"));
        }
        Ok(vec![with_channels(&inputs[0], o)])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let (x, w) = (inputs[0].data, inputs[1].data);
        let (o, i) = (inputs[1].shape[0], inputs[1].shape[1]);
        let mut y = vec![0.0; outputs[0].elements()];
        for (x, y) in x.chunks(i).zip(y.chunks_mut(o)) {
            for (co, y) in y.iter_mut().enumerate() {
                let bias = if self.bias { inputs[2].data[co] } else { 0.0 };
                *y = bias + x.iter().zip(&w[co * i..]).map(|(x, w)| x * w).sum::<f64>();
                if self.residual {
                    *y += x[co];
                }
                if self.activation {
                    *y = lrelu(*y);
                }
            }
        }
        vec![y]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let g = Geometry::rows(&context.inputs[0], &context.inputs[1]);
        let Linear { bias, activation, residual } = *self;
        conv3d::forward_program(context, &g, Pass { bias, activation, residual, ..Pass::default() })
    }

    fn variants(&self, context: &OpContext) -> Option<Variants> {
        conv3d::forward_variants(context, &Geometry::rows(&context.inputs[0], &context.inputs[1]))
    }

    fn backward(
        &self,
        graph: &mut Graph,
        node: &Node,
        d_outputs: &[Option<TensorId>],
        needs: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        let Some(mut d_y) = d_outputs[0] else { return Ok(vec![None; node.inputs.len()]) };
        if self.activation {
            d_y = graph.push_one(Pointwise::LreluBackward, &[d_y, node.outputs[0]])?;
        }
        let data = LinearBackwardData { residual: self.residual, masked: false };
        let d_x = if needs[0] { Some(graph.push_one(data, &[d_y, node.inputs[1]])?) } else { None };
        let gradients = graph.push(LinearBackwardWeight { bias: self.bias }, &[node.inputs[0], d_y])?;
        Ok(std::iter::once(d_x).chain(gradients.into_iter().map(Some)).collect())
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(0) | Slot::Output(0))
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        2 * inputs[0].rows() as u64 * inputs[1].elements() as u64
    }
}

/// `d_x = d_y W`, or `d_y + d_y W`, from `d_y [.., O]` and `weight [O, I]`; where `masked`, times `lrelu'(x)`, from the layer's
/// input `x`, an activation, as third operand.
#[derive(Debug, Clone)]
pub struct LinearBackwardData {
    /// Whether `d_y` is added to the product.
    pub residual: bool,
    /// Whether the product is multiplied by the derivative of the leaky ReLU that came before the layer.
    pub masked: bool,
}

impl LinearBackwardData {
    fn pass(&self) -> Pass {
        Pass { transposed: true, residual: self.residual, masked: self.masked, ..Pass::default() }
    }
}

impl Op for LinearBackwardData {
    fn name(&self) -> &'static str {
        "linear_backward_data"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        match inputs {
            [d_y, w, x @ ..] if w.shape.len() == 2 && d_y.channels() == w.shape[0] => {
                let d_x = with_channels(d_y, w.shape[1]);
                match x {
                    [] if !self.masked => Ok(vec![d_x]),
                    [x] if self.masked && x.elements() == d_x.elements() => Ok(vec![d_x]),
                    _ => Err("needs x, of the gradient's size, where it is masked, and only there".into()),
                }
            }
            _ => Err("needs d_y [.., O] and a weight [O, I]".into()),
        }
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let (o, i) = (inputs[1].shape[0], inputs[1].shape[1]);
        let mut d_x = if self.residual { inputs[0].data.to_vec() } else { vec![0.0; outputs[0].elements()] };
        for (d_y, d_x) in inputs[0].data.chunks(o).zip(d_x.chunks_mut(i)) {
            for (co, d_y) in d_y.iter().enumerate() {
                for (d_x, w) in d_x.iter_mut().zip(&inputs[1].data[co * i..]) {
                    *d_x += d_y * w;
                }
            }
        }
        if self.masked {
            d_x.iter_mut().zip(inputs[2].data).for_each(|(d_x, &x)| *d_x *= lrelu_slope(x));
        }
        vec![d_x]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        conv3d::backward_data_program(context, &Geometry::rows(&context.outputs[0], &context.inputs[1]), self.pass())
    }

    fn variants(&self, context: &OpContext) -> Option<Variants> {
        let g = Geometry::rows(&context.outputs[0], &context.inputs[1]);
        conv3d::backward_data_variants(context, &g, self.pass())
    }

    fn masked(&self) -> Option<Arc<dyn Op>> {
        (!self.masked).then(|| Arc::new(LinearBackwardData { masked: true, ..self.clone() }) as Arc<dyn Op>)
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(0 | 2) | Slot::Output(0))
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        2 * inputs[0].rows() as u64 * inputs[1].elements() as u64
    }
}

/// `d_W = d_y^T x` and, with a bias, `d_b = sum d_y`, from `x [.., I]` and `d_y [.., O]`; both are overwritten.
#[derive(Debug)]
pub struct LinearBackwardWeight {
    /// Whether there is a second output.
    pub bias: bool,
}

impl Op for LinearBackwardWeight {
    fn name(&self) -> &'static str {
        "linear_backward_weight"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        match inputs {
            [x, d_y] if x.rows() == d_y.rows() => {
                let (o, i) = (d_y.channels(), x.channels());
                let mut outputs = vec![TensorSpec::f32(&[o, i])];
                outputs.extend(self.bias.then(|| TensorSpec::f32(&[o])));
                Ok(outputs)
            }
            _ => Err("needs x and d_y with equal leading extents".into()),
        }
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let (o, i) = (outputs[0].shape[0], outputs[0].shape[1]);
        let (mut d_w, mut d_b) = (vec![0.0; o * i], vec![0.0; o]);
        for (x, d_y) in inputs[0].data.chunks(i).zip(inputs[1].data.chunks(o)) {
            for (co, d_y) in d_y.iter().enumerate() {
                d_b[co] += d_y;
                for (ci, x) in x.iter().enumerate() {
                    d_w[co * i + ci] += d_y * x;
                }
            }
        }
        if self.bias { vec![d_w, d_b] } else { vec![d_w] }
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        conv3d::backward_weight_program(context, &Geometry::rows(&context.inputs[0], &context.outputs[0]), self.bias)
    }

    fn variants(&self, context: &OpContext) -> Option<Variants> {
        conv3d::backward_weight_variants(context, &Geometry::rows(&context.inputs[0], &context.outputs[0]))
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(_))
    }

    fn flops(&self, inputs: &[TensorSpec], outputs: &[TensorSpec]) -> u64 {
        2 * inputs[0].rows() as u64 * outputs[0].elements() as u64
    }
}

/// Appends `act(x W^T + b)`.
///
/// # Errors
/// [`crate::Error::Shape`] if the operands do not fit.
pub fn linear(
    graph: &mut Graph,
    x: TensorId,
    weight: TensorId,
    bias: Option<TensorId>,
    activation: bool,
) -> Result<TensorId> {
    let mut inputs = vec![x, weight];
    inputs.extend(bias);
    graph.push_one(Linear { bias: bias.is_some(), activation, residual: false }, &inputs)
}

/// Appends `lrelu(x + x W^T + b)`.
///
/// # Errors
/// [`crate::Error::Shape`] if the operands do not fit.
pub fn residual_linear(graph: &mut Graph, x: TensorId, weight: TensorId, bias: TensorId) -> Result<TensorId> {
    graph.push_one(Linear { bias: true, activation: true, residual: true }, &[x, weight, bias])
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    // Numbers of f16, so that the sign before an activation does not depend on whether a kernel rounds the weight to it.
    let weight = |b: &mut CaseBuilder, name: &str, o: usize, i: usize| {
        let values = (0..o * i).map(|_| f16::from_f64(b.rng.normal()).to_f64()).collect();
        b.differentiable(name, &[o, i], values)
    };
    let case = |rows: &'static [usize], i: usize, o: usize, bias: bool, activation: bool| {
        let name = format!("linear {rows:?} {i}->{o}{}", if activation { " lrelu" } else { "" });
        Case::new(name, move |b| {
            let x = b.normal("x", &[rows, &[i]].concat());
            let w = weight(b, "weight", o, i);
            let bias = bias.then(|| b.normal("bias", &[o]));
            Ok(vec![linear(&mut b.graph, x, w, bias, activation)?])
        })
    };
    let residual = |rows: &'static [usize], channels: usize| {
        Case::new(format!("linear {rows:?} {channels} residual"), move |b| {
            let x = b.normal("x", &[rows, &[channels]].concat());
            let (w, bias) = (b.normal("weight", &[channels, channels]), b.normal("bias", &[channels]));
            Ok(vec![residual_linear(&mut b.graph, x, w, bias)?])
        })
    };
    // The second layer's data gradient takes the derivative of the first one's activation along.
    let stacked = |rows: &'static [usize], channels: [usize; 3]| {
        Case::new(format!("linear {rows:?} {channels:?} stacked"), move |b| {
            let x = b.normal("x", &[rows, &channels[..1]].concat());
            let weights = [0, 1].map(|k| weight(b, ["first", "second"][k], channels[k + 1], channels[k]));
            let hidden = linear(&mut b.graph, x, weights[0], None, true)?;
            Ok(vec![linear(&mut b.graph, hidden, weights[1], None, false)?])
        })
    };
    vec![
        // Few products take the weight as it is, many rearrange it first.
        stacked(&[1111], [16, 20, 16]).windowed(32 << 10),
        stacked(&[203], [16, 32, 8]).windowed(8192),
        stacked(&[5, 37], [7, 13, 11]),
        residual(&[1040], 16).windowed(32 << 10),
        residual(&[203], 16).windowed(8192),
        residual(&[2, 37], 13),
        case(&[150, 3], 7, 5, true, false).windowed(4096),
        case(&[301], 32, 48, true, true).windowed(32 << 10),
        case(&[2, 67], 17, 11, false, false),
        case(&[70], 73, 129, true, false),
        case(&[1], 8, 16, true, true),
        case(&[1031], 16, 11, true, false),
    ]
}
