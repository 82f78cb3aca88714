//! Layer norm over the channel axis.

use super::case::Case;
use super::common::{Rows, expect};
use super::reduce::{Chunks, sum_chunks};
use crate::Result;
use crate::graph::{CpuTensor, Graph, Node, Op, OpContext, Operand, Program, Slot, TensorId, TensorSpec};

/// PyTorch's default of what is added to the variance.
pub const EPS: f32 = 1e-5;

/// Appends [`LayerNorm`] and returns `y`.
///
/// # Errors
/// [`crate::Error::Shape`] if `weight` or `bias` is not `[C]`, or C is more than 1,048,576.
pub fn layer_norm(graph: &mut Graph, x: TensorId, weight: TensorId, bias: TensorId, eps: f32) -> Result<TensorId> {
    graph.push_one(LayerNorm { eps }, &[x, weight, bias])
}

/// `y = (x - mean) * rstd * weight + bias` with `rstd = 1 / sqrt(variance + eps)`, mean and biased variance of each row's channels
/// (torch `nn.LayerNorm(C, eps)`).
///
/// # Shapes
/// - `x`: `[.., C]`
/// - `weight`, `bias`: `[C]`
/// - `y`: that of `x`
/// - `stats`: `[.., 2]`, mean and rstd
///
/// Saves `x` and `stats`; may overwrite `x` where nothing is differentiated. The backward pass overwrites `d_x` (perhaps in
/// `d_y`'s place), `d_weight` and `d_bias`.
///
/// # Errors
/// [`crate::Error::Shape`] if `weight` or `bias` is not `[C]`, or C is more than 1,048,576.
#[derive(Debug)]
pub struct LayerNorm {
    /// Added to the variance.
    pub eps: f32,
}

fn stats_spec(x: &TensorSpec) -> TensorSpec {
    TensorSpec::f32(&[&x.shape[..x.shape.len() - 1], &[2]].concat())
}

impl Op for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm_forward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [x, weight, bias] = inputs else { return Err("needs 3 operands: x, weight, bias".into()) };
        Rows::check(x)?;
        expect("weight", weight, &[x.channels()])?;
        expect("bias", bias, &[x.channels()])?;
        Ok(vec![x.clone(), stats_spec(x)])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let [x, weight, bias] = [0, 1, 2].map(|i| inputs[i].data);
        let (mut y, mut stats) = (Vec::with_capacity(x.len()), Vec::with_capacity(outputs[1].elements()));
        for row in x.chunks(weight.len()) {
            let count = row.len() as f64;
            let mean = row.iter().sum::<f64>() / count;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
            let rstd = 1.0 / (variance + f64::from(self.eps)).sqrt();
            stats.extend([mean, rstd]);
            y.extend(row.iter().zip(weight).zip(bias).map(|((x, weight), bias)| (x - mean) * rstd * weight + bias));
        }
        vec![y, stats]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let rows = Rows::of(&context.inputs[0]);
        let mut program = Program::default();
        for window in context.windows(rows.rows, &[rows.channels, 2])? {
            let (kernel, grid) = rows.shared("layer_norm.wgsl", "layer_norm_forward", context, window.len());
            let operands = vec![
                context.input(0).window(&window, rows.channels),
                context.output(1).window(&window, 2),
                context.output(0).window(&window, rows.channels),
                context.input(1),
                context.input(2),
            ];
            let words = vec![window.len() as u32, rows.vectors() as u32, 0, self.eps.to_bits()];
            program.dispatch(kernel, words, operands, grid);
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
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None; 3]) };
        let operands = [node.inputs[0], node.inputs[1], node.outputs[1], d_y];
        Ok(graph.push(LayerNormBackward, &operands)?.into_iter().map(Some).collect())
    }

    fn in_place(&self) -> Option<(usize, usize)> {
        Some((0, 0))
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(0) | Slot::Output(0))
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        8 * inputs[0].elements() as u64
    }
}

/// With `n = (x - mean) * rstd` and `g = d_y * weight`: `d_x = rstd (g - mean(g) - n mean(g n))`, the means over the channels,
/// `d_weight = sum d_y n` and `d_bias = sum d_y`, the sums over the rows.
///
/// # Shapes
/// - `x`, `weight`, `stats`: those of the forward pass
/// - `d_y`, `d_x`: as `x`
/// - `d_weight`, `d_bias`: `[C]`
///
/// May overwrite `d_y` with `d_x`.
#[derive(Debug)]
pub struct LayerNormBackward;

impl Op for LayerNormBackward {
    fn name(&self) -> &'static str {
        "layer_norm_backward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [x, weight, stats, d_y] = inputs else { return Err("needs 4 operands: x, weight, stats, d_y".into()) };
        expect("weight", weight, &[x.channels()])?;
        expect("stats", stats, &stats_spec(x).shape)?;
        expect("d_y", d_y, &x.shape)?;
        Ok(vec![x.clone(), weight.clone(), weight.clone()])
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let [x, weight, stats, d_y] = [0, 1, 2, 3].map(|i| inputs[i].data);
        let channels = weight.len();
        let mut d_x = Vec::with_capacity(x.len());
        let (mut d_weight, mut d_bias) = (vec![0.0; channels], vec![0.0; channels]);
        for ((x, d_y), stat) in x.chunks(channels).zip(d_y.chunks(channels)).zip(stats.chunks(2)) {
            let n: Vec<f64> = x.iter().map(|x| (x - stat[0]) * stat[1]).collect();
            let g: Vec<f64> = d_y.iter().zip(weight).map(|(d_y, weight)| d_y * weight).collect();
            let mean_g = g.iter().sum::<f64>() / channels as f64;
            let mean_gn = g.iter().zip(&n).map(|(g, n)| g * n).sum::<f64>() / channels as f64;
            d_x.extend(g.iter().zip(&n).map(|(g, n)| stat[1] * (g - mean_g - n * mean_gn)));
            for (c, d_y) in d_y.iter().enumerate() {
                d_weight[c] += d_y * n[c];
                d_bias[c] += d_y;
            }
        }
        vec![d_x, d_weight, d_bias]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let rows = Rows::of(&context.inputs[0]);
        let (channels, run) = (rows.channels, rows.run(context));
        let windows = context.windows(rows.rows, &[channels, 2])?;
        let mut program = Program::default();
        // The first window is the longest.
        let run_sums = program.scratch(2 * windows[0].len().div_ceil(run) * channels);
        for (index, window) in windows.into_iter().enumerate() {
            let x = context.input(0).window(&window, channels);
            let stats = context.input(2).window(&window, 2);
            let d_y = context.input(3).window(&window, channels);
            let words = [window.len(), rows.vectors(), run, 0].map(|word| word as u32).to_vec();
            let runs = window.len().div_ceil(run);
            let sums = Operand::scratch(run_sums, 2 * runs * channels);
            let (kernel, grid) = rows.summed("layer_norm.wgsl", "layer_norm_backward_sums", context, runs);
            program.dispatch(kernel, words.clone(), vec![x.clone(), stats.clone(), d_y.clone(), sums.clone()], grid);
            for (first, output) in [(channels, 1), (0, 2)] {
                let accumulate = index > 0;
                let chunks =
                    Chunks { chunks: runs, stride: 2 * channels, first, target: 0, count: channels, accumulate };
                sum_chunks(&mut program, context, chunks, sums.clone(), context.output(output));
            }
            let d_x = context.output(0).window(&window, channels);
            let (kernel, grid) = rows.shared("layer_norm.wgsl", "layer_norm_backward", context, window.len());
            program.dispatch(kernel, words, vec![x, stats, d_y, context.input(1), d_x], grid);
        }
        Ok(program)
    }

    // The sums over a window's d_y are complete before the launch that overwrites it.
    fn in_place(&self) -> Option<(usize, usize)> {
        Some((0, 3))
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(0 | 3) | Slot::Output(0))
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        15 * inputs[0].elements() as u64
    }
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    let case = |shape: &'static [usize]| {
        Case::new(format!("layer_norm {shape:?}"), move |b| {
            let channels = shape[shape.len() - 1];
            let x = b.normal("x", shape);
            let (weight, bias) = (b.normal("weight", &[channels]), b.normal("bias", &[channels]));
            Ok(vec![layer_norm(&mut b.graph, x, weight, bias, EPS)?])
        })
    };
    vec![
        case(&[3, 7, 5]),
        case(&[2, 5, 3, 29, 8]).windowed(4096),
        case(&[1031, 36]).windowed(40_000),
        case(&[5, 259]),
        case(&[1, 6]),
        case(&[2, 8500]),
        Case::new("layer_norm mean 100 deviations", |b| {
            let values = (0..40 * 64).map(|_| 100.0 + b.rng.normal()).collect();
            let x = b.differentiable("x", &[40, 64], values);
            let (weight, bias) = (b.normal("weight", &[64]), b.normal("bias", &[64]));
            Ok(vec![layer_norm(&mut b.graph, x, weight, bias, 1e-6)?])
        }),
    ]
}
