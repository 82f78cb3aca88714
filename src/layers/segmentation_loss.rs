//! Weighted cross-entropy and Lovasz-softmax of one set of logits (paper: the reconstruction loss).
//!
//! Lovasz-softmax (Berman et al., CVPR 2018) weighs a class's errors by how much each changes the Jaccard loss when the
//! errors are sorted. Here nothing is sorted: errors are counted in [`BINS`] bins, foreground and background apart, with
//! integer atomics (hence deterministic), and every voxel of a bin gets the slope of the Jaccard loss at the bin's
//! midpoint, rescaled so that the bin's voxels together make the bin's exact increment. [`lovasz_softmax_exact`] is the
//! sorted form, the oracle of the tests.

mod exact;

pub use exact::lovasz_softmax_exact;
use half::f16;

use super::case::{Case, CaseBuilder};
use crate::graph::program::WORKGROUP;
use crate::graph::{
    CpuTensor, DType, Graph, Kernel, Node, Op, OpContext, Operand, Program, Slot, TensorId, TensorSpec,
};
use crate::rng::Rng;
use crate::{Error, Result};

/// Error bins of a class.
pub const BINS: usize = 1024;

/// Most classes that the unrolled kernels are generated for.
pub const MAX_CLASSES: usize = 64;

/// Most voxels of one invocation; a workgroup's count of one bin fits 16 bits.
const MAX_VOXELS_PER_INVOCATION: usize = 16;

/// Workgroups that keep a GPU busy; larger inputs give each invocation more voxels.
const ENOUGH_WORKGROUPS: usize = 1024;

/// Appends the loss; returns `(ce, lovasz)`, both `[1]`.
///
/// # Errors
/// [`Error::Shape`] as [`SegmentationLoss`].
pub fn segmentation_loss(
    graph: &mut Graph,
    logits: TensorId,
    labels: TensorId,
    class_weights: TensorId,
) -> Result<(TensorId, TensorId)> {
    let outputs = graph.push(SegmentationLoss, &[logits, labels, class_weights])?;
    Ok((outputs[0], outputs[1]))
}

/// `ce = sum_v w[y_v] * -log softmax(logits_v)[y_v] / sum_v w[y_v]` (torch `cross_entropy(weight=w)`) and
/// `lovasz = mean over classes present of sum over bins of e_b * (J_b - J_{b-1})` (binned Lovasz-softmax).
///
/// A voxel's error for class `c` is `e = 1 - p_c` where `c` is its label and `p_c` elsewhere; bin `b` holds
/// `b <= 1024 e < b + 1` and stands for `e_b = (b + 1/2) / 1024`. With `F` and `B` the foreground and background voxels at
/// larger errors and `G` all foreground voxels, `J(F, B) = 1 - (G - F) / (G + B)`.
///
/// A label of `K` or more (255 by convention) is a voxel that counts nowhere. Without any counted voxel both losses are 0.
///
/// # Shapes
/// - `logits`: `[R.., K]`
/// - `labels`: u32 `[R..]`
/// - `class_weights`: `[K]`
/// - `ce`, `lovasz`: `[1]`
/// - `slopes`: `[K, BINS, 2]`, of foreground and background, saved
/// - `totals`: `[2]` = (sum of weights, classes present), saved
///
/// The backward pass recomputes the softmax and may overwrite `logits`. Being piecewise constant in the bins, the slopes
/// are the gradient of the exact loss up to the binning, not of the binned value.
///
/// # Errors
/// [`Error::Shape`] if `labels` or `class_weights` do not fit `logits`, or there are more than [`MAX_CLASSES`] classes.
#[derive(Debug)]
pub struct SegmentationLoss;

/// `d_logits` of [`SegmentationLoss`]:
/// `sum_c p_k (delta_kc - p_c) d_p_c + d_ce * w[y] / sum w * (p_k - [k = y])`, `d_p_c = -+slope * d_lovasz / present`.
///
/// # Shapes
/// - `logits`, `labels`, `class_weights`, `slopes`, `totals`: those of the forward pass
/// - `d_ce`, `d_lovasz`: `[1]`
/// - `d_logits`: as `logits`, which it may overwrite
///
/// # Errors
/// [`Error::Shape`] if the operands are not those of a forward pass.
#[derive(Debug)]
pub struct SegmentationLossBackward;

fn check(inputs: &[TensorSpec], count: usize) -> Result<usize, String> {
    if inputs.len() != count {
        return Err(format!("needs {count} operands, not {}", inputs.len()));
    }
    let (logits, labels, weights) = (&inputs[0], &inputs[1], &inputs[2]);
    let classes = logits.channels();
    if logits.shape.is_empty() || logits.elements() == 0 || classes > MAX_CLASSES {
        return Err(format!("logits must be [R.., K] with 1 to {MAX_CLASSES} classes and at least one voxel"));
    }
    if labels.dtype != DType::U32 || labels.elements() != logits.rows() {
        return Err(format!("labels must be u32, one for each of the {} voxels", logits.rows()));
    }
    if weights.elements() != classes {
        return Err(format!("class_weights must have one value for each of the {classes} classes"));
    }
    Ok(classes)
}

fn kernel(entry: &'static str, classes: usize) -> Kernel {
    Kernel::new("segmentation_loss.wgsl", entry).define("CLASSES", classes as i64).define("BINS", BINS as i64)
}

impl Op for SegmentationLoss {
    fn name(&self) -> &'static str {
        "segmentation_loss_forward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let classes = check(inputs, 3)?;
        Ok(vec![
            TensorSpec::f32(&[1]),
            TensorSpec::f32(&[1]),
            TensorSpec::f32(&[classes, BINS, 2]),
            TensorSpec::f32(&[2]),
        ])
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let (logits, labels, weights) = (inputs[0].data, inputs[1].data, inputs[2].data);
        let classes = weights.len();
        let (mut ce, mut weight_sum) = (0.0, 0.0);
        let mut histogram = vec![[0.0; 2]; classes * BINS];
        for (row, label) in logits.chunks_exact(classes).zip(labels) {
            let label = *label as usize;
            if label >= classes {
                continue;
            }
            let p = softmax(row);
            ce -= weights[label] * log_softmax(row, label);
            weight_sum += weights[label];
            for (c, &p) in p.iter().enumerate() {
                let (error, side) = if c == label { (1.0 - p, 0) } else { (p, 1) };
                histogram[c * BINS + error_bin(error)][side] += 1.0;
            }
        }
        let mut slopes = vec![0.0; classes * BINS * 2];
        let (mut loss, mut present) = (0.0, 0.0);
        for c in 0..classes {
            let counts = &histogram[c * BINS..(c + 1) * BINS];
            let all: f64 = counts.iter().map(|n| n[0]).sum();
            if all == 0.0 {
                continue;
            }
            present += 1.0;
            let jaccard = |foreground: f64, background: f64| 1.0 - (all - foreground) / (all + background);
            let (mut foreground, mut background) = (0.0, 0.0);
            for b in (0..BINS).rev() {
                let [nf, nb] = counts[b];
                let increment = jaccard(foreground + nf, background + nb) - jaccard(foreground, background);
                let joined = all + background + nb / 2.0;
                let (sf, sb) = (1.0 / joined, (all - foreground - nf / 2.0) / (joined * joined));
                let midpoint_increment = nf * sf + nb * sb;
                if midpoint_increment > 0.0 {
                    slopes[(c * BINS + b) * 2] = sf * increment / midpoint_increment;
                    slopes[(c * BINS + b) * 2 + 1] = sb * increment / midpoint_increment;
                }
                loss += (b as f64 + 0.5) / BINS as f64 * increment;
                foreground += nf;
                background += nb;
            }
        }
        let ce = if weight_sum > 0.0 { ce / weight_sum } else { 0.0 };
        vec![vec![ce], vec![loss / f64::max(present, 1.0)], slopes, vec![weight_sum, present]]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let classes = context.inputs[0].channels();
        let voxels = context.inputs[0].rows();
        let mut program = Program::default();
        let table = classes * BINS * 2;
        let histogram = program.scratch(table);
        program.clear(Operand::scratch(histogram, table));

        let windows = context.windows(voxels, &[classes, 1])?;
        let each = if context.limits.policy.for_cpu {
            MAX_VOXELS_PER_INVOCATION
        } else {
            (voxels / (WORKGROUP * ENOUGH_WORKGROUPS)).clamp(1, MAX_VOXELS_PER_INVOCATION)
        };
        let groups_of = |window: &std::ops::Range<usize>| window.len().div_ceil(WORKGROUP * each);
        let all_groups: usize = windows.iter().map(groups_of).sum();
        let partials = program.scratch(2 * all_groups);
        let mut first_group = 0;
        for window in &windows {
            let groups = groups_of(window);
            program.dispatch(
                kernel("segmentation_loss_count", classes),
                vec![window.len() as u32, each as u32, first_group as u32, groups as u32],
                vec![
                    context.input(0).window(window, classes),
                    context.input(1).window(window, 1),
                    context.input(2),
                    Operand::scratch(histogram, table),
                    Operand::scratch(partials, 2 * all_groups),
                ],
                context.grid(groups),
            );
            first_group += groups;
        }
        let class_losses = program.scratch(2 * classes);
        program.dispatch(
            kernel("segmentation_loss_slopes", classes),
            vec![0; 4],
            vec![Operand::scratch(histogram, table), context.output(2), Operand::scratch(class_losses, 2 * classes)],
            [classes as u32, 1, 1],
        );
        program.dispatch(
            kernel("segmentation_loss_finish", classes),
            vec![0, 0, 0, all_groups as u32],
            vec![
                Operand::scratch(partials, 2 * all_groups),
                Operand::scratch(class_losses, 2 * classes),
                context.output(0),
                context.output(1),
                context.output(3),
            ],
            [1, 1, 1],
        );
        Ok(program)
    }

    fn backward(
        &self,
        graph: &mut Graph,
        node: &Node,
        d_outputs: &[Option<TensorId>],
        needs: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        if needs[1..].contains(&true) {
            return Err(Error::Shape("segmentation_loss differentiates by logits only".to_owned()));
        }
        let mut d_losses = Vec::with_capacity(2);
        for d_output in &d_outputs[..2] {
            d_losses.push(match d_output {
                Some(d) => *d,
                None => graph.constant("segmentation_loss_unused", &[1], vec![0.0])?,
            });
        }
        let mut operands = node.inputs.clone();
        operands.extend([node.outputs[2], node.outputs[3], d_losses[0], d_losses[1]]);
        let d_logits = graph.push_one(SegmentationLossBackward, &operands)?;
        Ok(vec![Some(d_logits), None, None])
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(0))
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        12 * inputs[0].elements() as u64
    }
}

impl Op for SegmentationLossBackward {
    fn name(&self) -> &'static str {
        "segmentation_loss_backward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let classes = check(inputs, 7)?;
        let expected = [classes * BINS * 2, 2, 1, 1];
        if inputs[3..].iter().zip(expected).any(|(input, elements)| input.elements() != elements) {
            return Err(format!("slopes, totals, d_ce and d_lovasz must have {expected:?} elements"));
        }
        Ok(vec![inputs[0].clone()])
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let [logits, labels, weights, slopes, totals, d_ce, d_lovasz] = inputs else { return Vec::new() };
        let classes = weights.data.len();
        let mut d_logits = Vec::with_capacity(logits.data.len());
        for (row, label) in logits.data.chunks_exact(classes).zip(labels.data) {
            let label = *label as usize;
            if label >= classes {
                d_logits.extend(std::iter::repeat_n(0.0, classes));
                continue;
            }
            let p = softmax(row);
            let scale = d_lovasz.data[0] / f64::max(totals.data[1], 1.0);
            let d_p: Vec<f64> = (0..classes)
                .map(|c| {
                    let (error, side, sign) = if c == label { (1.0 - p[c], 0, -1.0) } else { (p[c], 1, 1.0) };
                    sign * scale * slopes.data[(c * BINS + error_bin(error)) * 2 + side]
                })
                .collect();
            // A positive label weight is in the sum, so that this divides by zero only for weight zero.
            let weight = if totals.data[0] > 0.0 { d_ce.data[0] * weights.data[label] / totals.data[0] } else { 0.0 };
            for (c, d_logit) in softmax_backward(&p, &d_p).into_iter().enumerate() {
                let target = if c == label { 1.0 } else { 0.0 };
                d_logits.push(d_logit + weight * (p[c] - target));
            }
        }
        vec![d_logits]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let classes = context.inputs[0].channels();
        let mut program = Program::default();
        let table = classes * BINS * 2 + classes;
        let scaled: Slot = program.scratch(table);
        program.dispatch(
            kernel("segmentation_loss_backward_scale", classes),
            vec![0; 4],
            vec![
                context.input(3),
                context.input(2),
                context.input(4),
                context.input(5),
                context.input(6),
                Operand::scratch(scaled, table),
            ],
            context.grid_for(table),
        );
        for window in context.windows(context.inputs[0].rows(), &[classes, 1, classes])? {
            program.dispatch(
                kernel("segmentation_loss_backward", classes),
                vec![window.len() as u32, 0, 0, 0],
                vec![
                    context.input(0).window(&window, classes),
                    context.input(1).window(&window, 1),
                    Operand::scratch(scaled, table),
                    context.output(0).window(&window, classes),
                ],
                context.grid_for(window.len()),
            );
        }
        Ok(program)
    }

    fn in_place(&self) -> Option<(usize, usize)> {
        Some((0, 0))
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(0) | Slot::Output(0))
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        16 * inputs[0].elements() as u64
    }
}

fn softmax(row: &[f64]) -> Vec<f64> {
    let highest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exps: Vec<f64> = row.iter().map(|x| (x - highest).exp()).collect();
    let total: f64 = exps.iter().sum();
    exps.into_iter().map(|e| e / total).collect()
}

fn log_softmax(row: &[f64], class: usize) -> f64 {
    let highest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    row[class] - highest - row.iter().map(|x| (x - highest).exp()).sum::<f64>().ln()
}

fn softmax_backward(p: &[f64], d_p: &[f64]) -> Vec<f64> {
    let mean: f64 = p.iter().zip(d_p).map(|(p, d)| p * d).sum();
    p.iter().zip(d_p).map(|(p, d)| p * (d - mean)).collect()
}

fn error_bin(error: f64) -> usize {
    ((error.max(0.0) * BINS as f64) as usize).min(BINS - 1)
}

/// Normal logits (`bias` more for the label), redrawn where an error is so near the edge of a bin that f32 and f64 could
/// count it apart.
fn clear_logits(rng: &mut Rng, labels: &[u32], classes: usize, spread: f64, bias: f64) -> Vec<f64> {
    let clear = |row: &[f64], label: usize| {
        softmax(row).into_iter().enumerate().all(|(c, p)| {
            let bins = if c == label { 1.0 - p } else { p } * BINS as f64;
            let edge = bins.round();
            (bins - edge).abs() > 1e-2 || edge < 1.0 || edge >= BINS as f64
        })
    };
    let mut logits = Vec::with_capacity(labels.len() * classes);
    for &label in labels {
        let row = loop {
            let draw = |c: usize| spread * rng.normal() + if c == label as usize { bias } else { 0.0 };
            // The same in f16.
            let row: Vec<f64> = (0..classes).map(draw).map(|x| f16::from_f32(x as f32).to_f64()).collect();
            if clear(&row, label as usize) {
                break row;
            }
        };
        logits.extend(row);
    }
    logits
}

/// Logits, labels (some of them ignored, the last class rare or absent) and class weights.
fn operands(b: &mut CaseBuilder, voxels: usize, classes: usize, spread: f64, bias: f64) -> [TensorId; 3] {
    let labels: Vec<u32> = (0..voxels)
        .map(|_| match b.rng.below(20) {
            0 => 255,
            1..=10 => 0,
            _ => b.rng.below(classes - 1) as u32,
        })
        .collect();
    let logits = clear_logits(&mut b.rng, &labels, classes, spread, bias);
    let weights = (0..classes).map(|_| b.rng.uniform(0.2, 3.0)).collect();
    [
        b.differentiable("logits", &[voxels, classes], logits),
        b.words("labels", &[voxels], &labels),
        b.values("class_weights", &[classes], weights),
    ]
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    const STEPS: &str = "the binned Lovasz loss is a step function; its slopes are compared with the exact form's";
    let both = |name: &str, voxels: usize, classes: usize, spread: f64, bias: f64| {
        Case::new(name, move |b| {
            let [logits, labels, weights] = operands(b, voxels, classes, spread, bias);
            let (ce, lovasz) = segmentation_loss(&mut b.graph, logits, labels, weights)?;
            Ok(vec![ce, lovasz])
        })
        .without_central_difference(STEPS)
    };
    vec![
        both("segmentation_loss k3", 5001, 3, 2.0, 0.0).windowed(24_832),
        both("segmentation_loss k11", 4999, 11, 1.5, 1.0).windowed(90_368),
        both("segmentation_loss k11 confident", 3001, 11, 1.0, 12.0),
        both("segmentation_loss one voxel", 1, 3, 1.0, 0.0),
        Case::new("segmentation_loss cross-entropy only", |b| {
            let [logits, labels, weights] = operands(b, 333, 11, 1.5, 1.0);
            let (ce, _) = segmentation_loss(&mut b.graph, logits, labels, weights)?;
            Ok(vec![ce])
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misfits_are_named() {
        let mut graph = Graph::new();
        let logits = graph.input("logits", TensorSpec::f32(&[5, 3]));
        let labels = graph.input("labels", TensorSpec::u32(&[4]));
        let weights = graph.input("weights", TensorSpec::f32(&[3]));
        let error = segmentation_loss(&mut graph, logits, labels, weights).unwrap_err().to_string();
        assert!(error.contains("one for each of the 5 voxels"), "{error}");
    }
}
