//! Sums that repeat a tensor along axes of another that it lacks; with leaky ReLU fused, along that of time.

use super::broadcast_mul::{self, Axes, BroadcastSum};
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

/// `y[b,t] = lrelu(x[b,t] + s[b])` (torch `leaky_relu(x + s.unsqueeze(1), 0.1)`; paper: `A V` in the fusion MLP, which has no
/// time index).
///
/// # Shapes
/// - `x`: `[B, T, R..]`, mostly `[B, T, X, Y, Z, H]`
/// - `s`: `[B, R..]`
/// - `y`: that of `x`
///
/// Saves `y`; may overwrite `x`. The backward pass overwrites `d_x` (perhaps in `d_y`'s place) and
/// `d_s`.
///
/// # Errors
/// [`crate::Error::Shape`] if `s` is not `x` without its time axis.
#[derive(Debug)]
pub struct BroadcastAdd;

/// Appends [`BroadcastAdd`] to `graph`.
///
/// # Errors
/// [`crate::Error::Shape`] if `s` is not `x` without its time axis.
pub fn broadcast_add(graph: &mut Graph, x: TensorId, s: TensorId) -> Result<TensorId> {
    graph.push_one(BroadcastAdd, &[x, s])
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
        vec![sum.map(lrelu).collect()]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let [batch, time, unit] = split(&context.inputs[0].shape).map_err(crate::Error::Shape)?;
        let mut program = Program::default();
        for window in frame_windows(context, batch, time, unit, unit)? {
            let mut parameters = window.words(time);
            parameters.extend([unit, window.sequences.len()].map(|v| v as u32));
            let operands = vec![
                context.input(0).window(&window.frames, unit),
                window.still(context.input(1), time, unit),
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
        _: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None; 2]) };
        let gradients = graph.push(BroadcastAddBackward, &[d_y, node.outputs[0]])?;
        Ok(gradients.into_iter().map(Some).collect())
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
        for window in frame_windows(context, batch, time, unit, unit)? {
            let mut parameters = window.words(time);
            parameters.extend([unit, window.sequences.len()].map(|v| v as u32));
            let operands = vec![
                context.input(0).window(&window.frames, unit),
                window.still(context.output(1), time, unit),
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

/// `y = a + b`, where `b` repeats along the axes of which it has but one index (torch `a + b`).
///
/// # Shapes
/// - `a`, `y`: `[d_0, .., d_k]`
/// - `b`: of the same rank, with the extent of `a` or 1 along each axis
///
/// Saves nothing; may overwrite `a`. The backward pass overwrites `d_b`; `d_a` is `d_y`.
///
/// # Errors
/// [`crate::Error::Shape`] if `b` does not repeat in `a`.
#[derive(Debug)]
pub struct BroadcastPlus;

/// Appends [`BroadcastPlus`] to `graph`.
///
/// # Errors
/// [`crate::Error::Shape`] if `b` does not repeat in `a`.
pub fn broadcast_plus(graph: &mut Graph, a: TensorId, b: TensorId) -> Result<TensorId> {
    graph.push_one(BroadcastPlus, &[a, b])
}

impl Op for BroadcastPlus {
    fn name(&self) -> &'static str {
        "broadcast_mul_add"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [a, b] = inputs else { return Err("needs 2 operands: a, b".to_owned()) };
        expect("a", a, &a.shape)?;
        expect("b", b, &b.shape)?;
        Axes::new(&a.shape, &b.shape)?;
        Ok(vec![a.clone()])
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let Ok(axes) = Axes::new(inputs[0].shape, inputs[1].shape) else { return Vec::new() };
        let b = inputs[1].data;
        vec![inputs[0].data.iter().enumerate().map(|(i, a)| a + b[axes.short_index(i)]).collect()]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        broadcast_mul::forward(context, self.name())
    }

    fn backward(
        &self,
        graph: &mut Graph,
        node: &Node,
        d_outputs: &[Option<TensorId>],
        needs: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None; 2]) };
        let sum = BroadcastSum { shape: graph.shape(node.inputs[1]).to_vec(), product: false };
        let d_b = if needs[1] { Some(graph.push_one(sum, &[d_y])?) } else { None };
        Ok(vec![Some(d_y), d_b])
    }

    fn in_place(&self) -> Option<(usize, usize)> {
        Some((0, 0))
    }

    fn takes_half(&self, _: Slot) -> bool {
        true
    }
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    let case = |name: &str, x_shape: [usize; 6]| {
        Case::new(name, move |b| {
            let x = b.normal("x", &x_shape);
            let s = b.normal("s", &still(&x_shape));
            Ok(vec![broadcast_add(&mut b.graph, x, s)?])
        })
    };
    let plus = |name: &str, a: &'static [usize], b: &'static [usize]| {
        Case::new(format!("broadcast_plus {name}"), move |builder| {
            let (a, b) = (builder.normal("a", a), builder.normal("b", b));
            Ok(vec![broadcast_plus(&mut builder.graph, a, b)?])
        })
    };
    vec![
        case("broadcast_add odd", [2, 3, 5, 3, 2, 5]),
        // Two frames a window, so that one of them spans two sequences.
        case("broadcast_add windows", [2, 3, 5, 3, 2, 32]).windowed(8_000),
        case("broadcast_add frames apart", [7, 1, 5, 3, 2, 32]).windowed(8_000),
        case("broadcast_add T=1", [2, 1, 3, 3, 2, 5]),
        plus("frames", &[3, 3, 5, 3, 2, 32], &[3, 1, 5, 3, 2, 32]).windowed(12_000),
        plus("positions", &[133, 5, 8], &[1, 5, 8]).windowed(4096),
        plus("odd", &[2, 3, 5, 3, 2, 5], &[1, 1, 5, 1, 2, 1]),
    ]
}
