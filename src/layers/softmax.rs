//! Softmax over the last axis.

use super::case::Case;
use super::common::{Rows, expect};
use crate::Result;
use crate::graph::{CpuTensor, Graph, Node, Op, OpContext, Program, Slot, TensorId, TensorSpec};

/// Appends [`Softmax`] and returns `y`.
///
/// # Errors
/// [`crate::Error::Shape`] if `x` is not `[.., N]` in f32, or N is more than 1,048,576.
pub fn softmax(graph: &mut Graph, x: TensorId) -> Result<TensorId> {
    graph.push_one(Softmax, &[x])
}

/// `y = exp(x) / sum exp(x)`, the sum over the last axis (torch `x.softmax(-1)`).
///
/// # Shapes
/// - `x`: `[.., N]`
/// - `y`: that of `x`
///
/// Saves `y`; may overwrite `x`. The backward pass overwrites `d_x` (perhaps in `d_y`'s place).
///
/// # Errors
/// [`crate::Error::Shape`] if `x` is not `[.., N]` in f32, or N is more than 1,048,576.
#[derive(Debug)]
pub struct Softmax;

/// `d_x = y (d_y - sum y d_y)` from `y` and `d_y`, which it may overwrite.
#[derive(Debug)]
pub struct SoftmaxBackward;

/// The one launch a window; all operands are as large as the result.
fn program(context: &OpContext, entry: &'static str) -> Result<Program> {
    let rows = Rows::of(&context.outputs[0]);
    let mut program = Program::default();
    for window in context.windows(rows.rows, &[rows.channels])? {
        let (kernel, grid) = rows.shared("softmax.wgsl", entry, context, window.len());
        let inputs = (0..context.inputs.len()).map(|i| context.input(i));
        let operands = inputs.chain([context.output(0)]).map(|operand| operand.window(&window, rows.channels));
        program.dispatch(kernel, vec![window.len() as u32, rows.vectors() as u32], operands.collect(), grid);
    }
    Ok(program)
}

impl Op for Softmax {
    fn name(&self) -> &'static str {
        "softmax_forward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [x] = inputs else { return Err("needs one operand".into()) };
        Rows::check(x)?;
        Ok(vec![x.clone()])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let mut y = inputs[0].data.to_vec();
        for row in y.chunks_mut(outputs[0].channels()) {
            let maximum = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            row.iter_mut().for_each(|x| *x = (*x - maximum).exp());
            let sum: f64 = row.iter().sum();
            row.iter_mut().for_each(|x| *x /= sum);
        }
        vec![y]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        program(context, self.name())
    }

    fn backward(
        &self,
        graph: &mut Graph,
        node: &Node,
        d_outputs: &[Option<TensorId>],
        _: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None]) };
        Ok(vec![Some(graph.push_one(SoftmaxBackward, &[node.outputs[0], d_y])?)])
    }

    fn in_place(&self) -> Option<(usize, usize)> {
        Some((0, 0))
    }

    fn takes_half(&self, _: Slot) -> bool {
        true
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        5 * inputs[0].elements() as u64
    }
}

impl Op for SoftmaxBackward {
    fn name(&self) -> &'static str {
        "softmax_backward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [y, d_y] = inputs else { return Err("needs 2 operands: y, d_y".into()) };
        expect("d_y", d_y, &y.shape)?;
        Ok(vec![y.clone()])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let channels = outputs[0].channels();
        let rows = inputs[0].data.chunks(channels).zip(inputs[1].data.chunks(channels));
        let d_x = rows.flat_map(|(y, d_y)| {
            let mean: f64 = y.iter().zip(d_y).map(|(y, d_y)| y * d_y).sum();
            y.iter().zip(d_y).map(move |(y, d_y)| y * (d_y - mean))
        });
        vec![d_x.collect()]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        program(context, self.name())
    }

    fn in_place(&self) -> Option<(usize, usize)> {
        Some((0, 1))
    }

    fn takes_half(&self, _: Slot) -> bool {
        true
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        4 * inputs[0].elements() as u64
    }
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    let case = |shape: &'static [usize]| {
        Case::new(format!("softmax {shape:?}"), move |b| {
            let x = b.normal("x", shape);
            Ok(vec![softmax(&mut b.graph, x)?])
        })
    };
    vec![
        case(&[7, 1]),
        case(&[3, 5, 29, 5]).windowed(4096),
        case(&[37, 8]).windowed(512),
        case(&[131, 65]),
        case(&[39, 300]).windowed(24_000),
        case(&[2, 9001]),
        Case::new("softmax far from zero", |b| {
            let values = (0..330).map(|i| 200.0 * f64::from(i % 3) - 300.0 + b.rng.normal()).collect();
            let x = b.differentiable("x", &[30, 11], values);
            Ok(vec![softmax(&mut b.graph, x)?])
        }),
    ]
}
