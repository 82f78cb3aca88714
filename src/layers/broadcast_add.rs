//! Adds a term without a time index to every frame, with leaky ReLU fused.

use super::case::Case;
use super::common::{expect, frame_windows};
use super::pointwise::{lrelu, lrelu_slope};
use crate::Result;
use crate::graph::{CpuTensor, Graph, Kernel, Node, Op, OpContext, Program, Slot, TensorId, TensorSpec};

/// `[B, T, R..]` as sequences, frames a sequence and elements a frame.
fn split(shape: &[usize]) -> Result<[usize; 3], String> {
    match shape {
        [batch, time, rest @ ..] if !rest.is_empty() => Ok([*batch, *time, rest.iter().product()]),
        _ => Err(format!("x is {shape:?} but must be [B, T, ..]")),
    }
}

/// `shape` without its time axis.
fn still(shape: &[usize]) -> Vec<usize> {
    shape.iter().enumerate().filter(|&(axis, _)| axis != 1).map(|(_, &extent)| extent).collect()
}

/// `y[b,t] = lrelu(x[b,t] + s[b])`, or without leaky ReLU (torch `leaky_relu(x + s.unsqueeze(1), 0.1)`; paper: `A V` in
/// the fusion MLP, which has no time index).
///
/// # Shapes
/// - `x`: `[B, T, R..]`, mostly `[B, T, X, Y, Z, H]`
/// - `s`: `[B, R..]`
/// - `y`: that of `x`
///
/// Saves `y` if there is leaky ReLU; may overwrite `x`. The backward pass overwrites `d_x` (perhaps in `d_y`'s place) and
/// `d_s`.
///
/// # Errors
/// [`crate::Error::Shape`] if `s` is not `x` without its time axis.
#[derive(Debug)]
pub struct BroadcastAdd {
    /// Applies leaky ReLU to the sum.
    pub activation: bool,
}

/// Appends [`BroadcastAdd`] to `graph`.
///
/// # Errors
/// [`crate::Error::Shape`] if `s` is not `x` without its time axis.
pub fn broadcast_add(graph: &mut Graph, x: TensorId, s: TensorId, activation: bool) -> Result<TensorId> {
    graph.push_one(BroadcastAdd { activation }, &[x, s])
}

impl Op for BroadcastAdd {
    fn name(&self) -> &'static str {
        "broadcast_add_forward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [x, s] = inputs else { return Err("needs 2 operands: x, s".to_owned()) };
        split(&x.shape)?;
        expect("x", x, &x.shape)?;
        expect("s", s, &still(&x.shape))?;
        Ok(vec![x.clone()])
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let (x, s) = (&inputs[0], &inputs[1]);
        let Ok([_, time, unit]) = split(x.shape) else { return Vec::new() };
        let sum = x.data.iter().enumerate().map(|(i, x)| x + s.data[i / (time * unit) * unit + i % unit]);
        vec![if self.activation { sum.map(lrelu).collect() } else { sum.collect() }]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let [batch, time, unit] = split(&context.inputs[0].shape).map_err(crate::Error::Shape)?;
        let mut program = Program::default();
        for window in frame_windows(context, batch, time, unit)? {
            let mut parameters = window.words(time);
            parameters.extend([unit, window.sequences.len(), usize::from(self.activation)].map(|v| v as u32));
            let operands = vec![
                context.input(0).window(&window.frames, unit),
                context.input(1),
                context.output(0).window(&window.frames, unit),
            ];
            let kernel = Kernel::new("broadcast_add.wgsl", "broadcast_add_forward");
            program.dispatch(kernel, parameters, operands, context.grid_for(window.sequences.len() * unit));
        }
        Ok(program)
    }

    fn backward(
        &self,
        graph: &mut Graph,
        node: &Node,
        d_outputs: &[Option<TensorId>],
        needs: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None; 2]) };
        if self.activation {
            let gradients = graph.push(BroadcastAddBackward, &[d_y, node.outputs[0]])?;
            return Ok(gradients.into_iter().map(Some).collect());
        }
        let d_s = if needs[1] { Some(graph.push_one(SumFrames, &[d_y])?) } else { None };
        Ok(vec![Some(d_y), d_s])
    }

    fn in_place(&self) -> Option<(usize, usize)> {
        Some((0, 0))
    }

    fn takes_half(&self, _: Slot) -> bool {
        true
    }
}

/// `d_x = d_y * lrelu'(y)` and `d_s = sum over t of d_x`, from `d_y` and `y`.
///
/// # Shapes
/// - `d_y`, `y`, `d_x`: `[B, T, R..]`
/// - `d_s`: `[B, R..]`
///
/// May overwrite `d_y` with `d_x`.
#[derive(Debug)]
pub struct BroadcastAddBackward;

impl Op for BroadcastAddBackward {
    fn name(&self) -> &'static str {
        "broadcast_add_backward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [d_y, y] = inputs else { return Err("needs 2 operands: d_y, y".to_owned()) };
        split(&y.shape)?;
        expect("d_y", d_y, &y.shape)?;
        Ok(vec![d_y.clone(), TensorSpec::f32(&still(&y.shape))])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let Ok([_, time, unit]) = split(inputs[0].shape) else { return Vec::new() };
        let mut d_x = vec![0.0; outputs[0].elements()];
        let mut d_s = vec![0.0; outputs[1].elements()];
        for (i, (d_y, y)) in inputs[0].data.iter().zip(inputs[1].data).enumerate() {
            d_x[i] = d_y * lrelu_slope(*y);
            d_s[i / (time * unit) * unit + i % unit] += d_x[i];
        }
        vec![d_x, d_s]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let [batch, time, unit] = split(&context.inputs[0].shape).map_err(crate::Error::Shape)?;
        let mut program = Program::default();
        for window in frame_windows(context, batch, time, unit)? {
            let mut parameters = window.words(time);
            parameters.extend([unit, window.sequences.len()].map(|v| v as u32));
            let operands = vec![
                context.input(0).window(&window.frames, unit),
                context.output(1),
                context.input(1).window(&window.frames, unit),
                context.output(0).window(&window.frames, unit),
            ];
            let kernel = Kernel::new("broadcast_add.wgsl", "broadcast_add_backward");
            program.dispatch(kernel, parameters, operands, context.grid_for(window.sequences.len() * unit));
        }
        Ok(program)
    }

    fn in_place(&self) -> Option<(usize, usize)> {
        Some((0, 0))
    }

    fn takes_half(&self, _: Slot) -> bool {
        true
    }

    fn flops(&self, _: &[TensorSpec], outputs: &[TensorSpec]) -> u64 {
        2 * outputs[0].elements() as u64
    }
}

/// `d_s = sum over t of d_y`: the backward pass of [`BroadcastAdd`] without leaky ReLU.
#[derive(Debug)]
pub struct SumFrames;

impl Op for SumFrames {
    fn name(&self) -> &'static str {
        "broadcast_add_sum_frames"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [d_y] = inputs else { return Err("needs 1 operand: d_y".to_owned()) };
        split(&d_y.shape)?;
        expect("d_y", d_y, &d_y.shape)?;
        Ok(vec![TensorSpec::f32(&still(&d_y.shape))])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let Ok([_, time, unit]) = split(inputs[0].shape) else { return Vec::new() };
        let mut d_s = vec![0.0; outputs[0].elements()];
        for (i, d_y) in inputs[0].data.iter().enumerate() {
            d_s[i / (time * unit) * unit + i % unit] += d_y;
        }
        vec![d_s]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let [batch, time, unit] = split(&context.inputs[0].shape).map_err(crate::Error::Shape)?;
        let mut program = Program::default();
        for window in frame_windows(context, batch, time, unit)? {
            let mut parameters = window.words(time);
            parameters.extend([unit, window.sequences.len()].map(|v| v as u32));
            let operands = vec![context.input(0).window(&window.frames, unit), context.output(0)];
            let kernel = Kernel::new("broadcast_add.wgsl", "broadcast_add_sum_frames");
            program.dispatch(kernel, parameters, operands, context.grid_for(window.sequences.len() * unit));
        }
        Ok(program)
    }

    fn takes_half(&self, _: Slot) -> bool {
        true
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        inputs[0].elements() as u64
    }
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    let case = |name: &str, x_shape: [usize; 6], activation: bool| {
        Case::new(name, move |b| {
            let x = b.normal("x", &x_shape);
            let s = b.normal("s", &still(&x_shape));
            Ok(vec![broadcast_add(&mut b.graph, x, s, activation)?])
        })
    };
    vec![
        case("broadcast_add lrelu odd", [2, 3, 5, 3, 2, 5], true),
        // Two frames a window, so that one of them spans two sequences.
        case("broadcast_add lrelu windows", [2, 3, 5, 3, 2, 32], true).windowed(8_000),
        case("broadcast_add sum windows", [3, 3, 5, 3, 2, 32], false).windowed(12_000),
        case("broadcast_add T=1", [2, 1, 3, 3, 2, 5], true),
    ]
}
