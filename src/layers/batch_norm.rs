//! Batch norm: in training with the batch's statistics, in evaluation with their running averages.

use super::case::{Case, CaseBuilder};
use super::common::expect;
use super::group_norm::{GroupNorm, Launches, Norm, check};
use crate::Result;
use crate::graph::{CpuTensor, Graph, Kernel, Node, Op, OpContext, Operand, Program, Slot, TensorId, TensorSpec};

/// What [`batch_norm`] makes.
#[derive(Debug, Clone, Copy)]
pub struct BatchNorm {
    /// `[.., C]`.
    pub y: TensorId,
    /// The batch's mean, `[C]`.
    pub mean: TensorId,
    /// The batch's unbiased variance, `[C]`.
    pub variance: TensorId,
}

/// Appends batch norm in training, `y = (x - mean) / sqrt(variance + eps) * weight + bias` with mean and biased variance of
/// each channel over all rows of `x [.., C]` (torch `nn.BatchNorm3d(C, eps)` in training mode): a group norm of one frame
/// with as many groups as channels. `mean` and the unbiased `variance` are for [`RunningAverage`]; nothing is differentiated
/// through them.
///
/// # Errors
/// [`crate::Error::Shape`] if `weight` or `bias` is not `[C]`, or `x` has less than two rows.
pub fn batch_norm(graph: &mut Graph, x: TensorId, weight: TensorId, bias: TensorId, eps: f32) -> Result<BatchNorm> {
    let spec = graph.tensor(x).spec.clone();
    let (rows, channels) = (spec.rows(), spec.channels());
    let frame = graph.reshape(x, &[1, rows, channels])?;
    let normalised = graph.push(GroupNorm { groups: channels, eps }, &[frame, weight, bias])?;
    let y = graph.reshape(normalised[0], &spec.shape)?;
    let figures = graph.push(BatchStatistics { rows }, &normalised[1..])?;
    Ok(BatchNorm { y, mean: figures[0], variance: figures[1] })
}

/// Appends [`BatchNormInference`] and returns `y`; `running` are the mean and the variance.
///
/// # Errors
/// [`crate::Error::Shape`] if `weight`, `bias`, or what is `running` is not `[C]`.
pub fn batch_norm_inference(
    graph: &mut Graph,
    x: TensorId,
    weight: TensorId,
    bias: TensorId,
    running: [TensorId; 2],
    eps: f32,
) -> Result<TensorId> {
    graph.push_one(BatchNormInference { eps }, &[x, weight, bias, running[0], running[1]])
}

/// `mean` and unbiased `variance`, `[C]` each, of the batch whose `stats`, `[1, C, 2]`, are mean and biased variance.
///
/// # Errors
/// [`crate::Error::Shape`] if the batch has less than two rows: they have no unbiased variance.
#[derive(Debug)]
pub struct BatchStatistics {
    /// How many rows the batch has.
    pub rows: usize,
}

impl BatchStatistics {
    /// Unbiased variance by biased variance.
    fn factor(&self) -> f64 {
        self.rows as f64 / (self.rows as f64 - 1.0)
    }
}

/// The launch for operands of one value a channel.
fn launch(program: &mut Program, context: &OpContext, entry: &'static str, factor: f32, operands: Vec<Operand>) {
    let channels = operands[0].elements.len();
    let words = vec![channels as u32, factor.to_bits()];
    program.dispatch(Kernel::new("batch_norm.wgsl", entry), words, operands, context.grid_for(channels));
}

impl Op for BatchStatistics {
    fn name(&self) -> &'static str {
        "batch_norm_statistics"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [stats] = inputs else { return Err("needs one operand".into()) };
        if self.rows < 2 {
            return Err(format!("a batch of {} rows has no unbiased variance", self.rows));
        }
        let channels = stats.elements() / 2;
        expect("stats", stats, &[1, channels, 2])?;
        Ok(vec![TensorSpec::f32(&[channels]); 2])
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let (means, variances) = inputs[0].data.chunks(2).map(|stat| (stat[0], stat[1] * self.factor())).unzip();
        vec![means, variances]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let mut program = Program::default();
        let operands = vec![context.output(0), context.output(1), context.input(0)];
        launch(&mut program, context, "batch_norm_statistics", self.factor() as f32, operands);
        Ok(program)
    }
}

/// `y = (x - mean) / sqrt(variance + eps) * weight + bias` with given statistics (torch `nn.BatchNorm3d(C, eps)` in evaluation
/// mode).
///
/// # Shapes
/// - `x`: `[.., C]`
/// - `weight`, `bias`, `mean`, `variance`: `[C]`
/// - `y`: that of `x`
///
/// Saves `x`; may overwrite it where nothing is differentiated. The backward pass overwrites `d_x` (perhaps in `d_y`'s place),
/// `d_weight` and `d_bias`; the statistics get no gradient.
///
/// # Errors
/// [`crate::Error::Shape`] if an operand other than x is not `[C]`.
#[derive(Debug)]
pub struct BatchNormInference {
    /// Added to the variance.
    pub eps: f32,
}

/// With `rstd = 1 / sqrt(variance + eps)`: `d_x = d_y * weight * rstd`, `d_weight = sum d_y (x - mean) * rstd` and
/// `d_bias = sum d_y`, the sums over the rows.
///
/// # Shapes
/// - `x`, `weight`, `mean`, `variance`: those of the forward pass
/// - `d_y`, `d_x`: as `x`
/// - `d_weight`, `d_bias`: `[C]`
///
/// May overwrite `d_y` with `d_x`.
#[derive(Debug)]
pub struct BatchNormInferenceBackward {
    /// That of the forward pass.
    pub eps: f32,
}

fn norm(shape: &[usize], eps: f32) -> Norm {
    let channels = shape.last().copied().unwrap_or(1);
    Norm { frames: 1, rows: shape.iter().product::<usize>() / channels, channels, groups: channels, eps }
}

fn pairs(mean: &[f64], variance: &[f64]) -> Vec<f64> {
    mean.iter().zip(variance).flat_map(|(&mean, &variance)| [mean, variance]).collect()
}

/// Launches for x, and `stats` gathered from the inputs from `mean` on.
fn gathered<'a>(context: &'a OpContext, eps: f32, mean: usize) -> Result<(Launches<'a>, Operand)> {
    let mut launches = Launches::new(context, norm(&context.inputs[0].shape, eps))?;
    let stats = launches.temporary(2 * context.inputs[mean].elements());
    let operands = vec![context.input(mean), context.input(mean + 1), stats.clone()];
    launch(&mut launches.program, context, "batch_norm_gather", 0.0, operands);
    Ok((launches, stats))
}

impl Op for BatchNormInference {
    fn name(&self) -> &'static str {
        "batch_norm_inference_forward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [x, weight, bias, mean, variance] = inputs else {
            return Err("needs 5 operands: x, weight, bias, mean, variance".into());
        };
        check(x, &[("weight", weight), ("bias", bias), ("mean", mean), ("variance", variance)])?;
        Ok(vec![x.clone()])
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let stats = pairs(inputs[3].data, inputs[4].data);
        vec![norm(inputs[0].shape, self.eps).forward_of(inputs[0].data, &stats, inputs[1].data, inputs[2].data)]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let (mut launches, stats) = gathered(context, self.eps, 3)?;
        let [x, weight, bias] = [0, 1, 2].map(|i| context.input(i));
        launches.forward(&x, &context.output(0), &stats, [&weight, &bias]);
        Ok(launches.program)
    }

    fn backward(
        &self,
        graph: &mut Graph,
        node: &Node,
        d_outputs: &[Option<TensorId>],
        _: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None; 5]) };
        let [x, weight, _, mean, variance] = node.inputs[..] else { return Ok(vec![None; node.inputs.len()]) };
        let gradients = graph.push(BatchNormInferenceBackward { eps: self.eps }, &[x, weight, mean, variance, d_y])?;
        Ok(gradients.into_iter().map(Some).chain([None, None]).collect())
    }

    fn in_place(&self) -> Option<(usize, usize)> {
        Some((0, 0))
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(0) | Slot::Output(0))
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        3 * inputs[0].elements() as u64
    }
}

impl Op for BatchNormInferenceBackward {
    fn name(&self) -> &'static str {
        "batch_norm_inference_backward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [x, weight, mean, variance, d_y] = inputs else {
            return Err("needs 5 operands: x, weight, mean, variance, d_y".into());
        };
        check(x, &[("weight", weight), ("mean", mean), ("variance", variance)])?;
        expect("d_y", d_y, &x.shape)?;
        Ok(vec![x.clone(), weight.clone(), weight.clone()])
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let stats = pairs(inputs[2].data, inputs[3].data);
        let norm = norm(inputs[0].shape, self.eps);
        norm.backward_of(inputs[0].data, &stats, inputs[1].data, inputs[4].data, false)
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let (mut launches, stats) = gathered(context, self.eps, 2)?;
        let [x, weight, d_y] = [0, 1, 4].map(|i| context.input(i));
        let [d_x, d_weight, d_bias] = [0, 1, 2].map(|i| context.output(i));
        launches.backward([&x, &d_y], &stats, &weight, [&d_x, &d_weight, &d_bias], false);
        Ok(launches.program)
    }

    fn in_place(&self) -> Option<(usize, usize)> {
        Some((0, 4))
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(0 | 4) | Slot::Output(0))
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        6 * inputs[0].elements() as u64
    }
}

/// `average = (1 - momentum) * running + momentum * batch`, all `[C]`: how torch's `nn.BatchNorm3d(momentum)` keeps its statistics.
/// Where `batch` is not finite it is `running`, so that a step that the optimiser skips for it leaves nothing behind. One whose
/// gradients alone are not finite, for the scale of the loss, has seen its batch like any other, as in torch.
///
/// Meant for [`Graph::push_into`] with `running` as target, which it may overwrite; has no derivative.
///
/// # Errors
/// [`crate::Error::Shape`] if the operands are not both `[C]`.
#[derive(Debug)]
pub struct RunningAverage {
    /// The share of the batch.
    pub momentum: f32,
}

impl Op for RunningAverage {
    fn name(&self) -> &'static str {
        "batch_norm_average"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [running, batch] = inputs else { return Err("needs 2 operands: running, batch".into()) };
        expect("running", running, &[running.elements()])?;
        expect("batch", batch, &running.shape)?;
        Ok(vec![running.clone()])
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let momentum = f64::from(self.momentum);
        let average = |(&running, &batch): (&f64, &f64)| match batch.is_finite() {
            true => (1.0 - momentum) * running + momentum * batch,
            false => running,
        };
        vec![inputs[0].data.iter().zip(inputs[1].data).map(average).collect()]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let mut program = Program::default();
        let operands = vec![context.input(0), context.input(1), context.output(0)];
        launch(&mut program, context, "batch_norm_average", self.momentum, operands);
        Ok(program)
    }

    fn in_place(&self) -> Option<(usize, usize)> {
        Some((0, 0))
    }
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    fn weights(b: &mut CaseBuilder, shape: &[usize]) -> [TensorId; 2] {
        ["weight", "bias"].map(|name| b.normal(name, &shape[shape.len() - 1..]))
    }
    let training = |shape: &'static [usize]| {
        Case::new(format!("batch_norm {shape:?}"), move |b| {
            let x = b.normal("x", shape);
            let [weight, bias] = weights(b, shape);
            Ok(vec![batch_norm(&mut b.graph, x, weight, bias, 1e-5)?.y])
        })
    };
    let inference = |shape: &'static [usize]| {
        Case::new(format!("batch_norm inference {shape:?}"), move |b| {
            let channels = shape[shape.len() - 1];
            let x = b.normal("x", shape);
            let [weight, bias] = weights(b, shape);
            let mean = b.constant_normal("mean", &[channels]);
            let variances = (0..channels).map(|_| 0.1 + b.rng.normal().powi(2)).collect();
            let variance = b.values("variance", &[channels], variances);
            Ok(vec![batch_norm_inference(&mut b.graph, x, weight, bias, [mean, variance], 1e-5)?])
        })
    };
    vec![
        training(&[2, 3, 7, 5]),
        training(&[4095, 36]).windowed(200_000),
        training(&[3, 6]),
        Case::new("batch_norm statistics", |b| {
            let x = b.constant_normal("x", &[5, 3, 67, 7]);
            let [weight, bias] = ["weight", "bias"].map(|name| b.constant_normal(name, &[7]));
            let norm = batch_norm(&mut b.graph, x, weight, bias, 1e-3)?;
            let running = b.constant_normal("running", &[7]);
            let average = b.graph.push_one(RunningAverage { momentum: 0.1 }, &[running, norm.variance])?;
            Ok(vec![norm.y, norm.mean, norm.variance, average])
        }),
        Case::new("batch_norm average of what is not finite", |b| {
            let running = b.constant_normal("running", &[5]);
            let batch = b.values("batch", &[5], vec![f64::NAN, 0.5, f64::INFINITY, f64::NEG_INFINITY, -3.0]);
            Ok(vec![b.graph.push_one(RunningAverage { momentum: 0.1 }, &[running, batch])?])
        }),
        inference(&[3, 37, 7]),
        inference(&[4095, 36]).windowed(200_000),
    ]
}
