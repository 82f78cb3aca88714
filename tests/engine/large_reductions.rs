//! Reductions over large inputs whose result is known exactly.
//!
//! Some software drivers end an invocation's loops after 65,535 iterations in all, without a word: the sum is then simply too
//! small. Cases that are small enough for the f64 twins do not come near that, so these do, at sizes of real runs.

use sep4d::gpu::{Context, DeviceChoice};
use sep4d::graph::execute::{Executor, Memory};
use sep4d::graph::plan::Plan;
use sep4d::graph::{Graph, Op, TensorId, TensorSpec};
use sep4d::layers::adam::GradientNorm;
use sep4d::layers::attention::{Attention, AttentionBackward};
use sep4d::layers::axis_pool::axis_pool;
use sep4d::layers::broadcast_mul::BroadcastSum;
use sep4d::layers::commitment_loss::CommitmentLoss;
use sep4d::layers::conv3d::{Conv3dBackwardWeight, same_padding};
use sep4d::layers::gate::GateBackwardPlane;
use sep4d::layers::gather::GatherBackward;
use sep4d::layers::group_norm::{GroupNorm, GroupNormBackward};
use sep4d::layers::instance_norm::{EPS, InstanceNorm, InstanceNormBackward};
use sep4d::layers::label_conv::LabelConvBackward;
use sep4d::layers::label_table::LabelTableBackward;
use sep4d::layers::layer_norm::LayerNormBackward;
use sep4d::layers::lift::{LiftBackwardFactor, Plane};
use sep4d::layers::linear::LinearBackwardWeight;
use sep4d::layers::metrics::Confusion;
use sep4d::layers::nearest_code::CodeUsage;
use sep4d::layers::plane_product::PlaneProductBackwardPlane;
use sep4d::layers::reparameterise::Reparameterise;
use sep4d::layers::resample::{Direction, ResampleBackward};
use sep4d::layers::segmentation_loss::SegmentationLoss;
use sep4d::layers::softmax::Softmax;

/// A tensor and what the host writes into it.
enum Input {
    Floats(TensorId, Vec<f32>),
    Words(TensorId, Vec<u32>),
}

/// A graph on its way to the device.
#[derive(Default)]
struct Probe {
    graph: Graph,
    inputs: Vec<Input>,
}

impl Probe {
    fn floats(&mut self, shape: &[usize], value: impl Fn(usize) -> f32) -> TensorId {
        let id = self.graph.input("input", TensorSpec::f32(shape));
        self.inputs.push(Input::Floats(id, (0..shape.iter().product()).map(value).collect()));
        id
    }

    fn words(&mut self, shape: &[usize], value: impl Fn(usize) -> u32) -> TensorId {
        let id = self.graph.input("input", TensorSpec::u32(shape));
        self.inputs.push(Input::Words(id, (0..shape.iter().product()).map(value).collect()));
        id
    }

    /// Appends `op`, and runs everything once for each kernel family; calls `check` with a reader of the op's outputs.
    fn run(mut self, op: impl Op + 'static, inputs: &[TensorId], check: impl Fn(&dyn Fn(usize) -> Vec<f32>)) {
        let outputs = self.graph.push(op, inputs).unwrap();
        self.finish(&outputs, check);
    }

    fn finish(mut self, outputs: &[TensorId], check: impl Fn(&dyn Fn(usize) -> Vec<f32>)) {
        outputs.iter().for_each(|&id| self.graph.keep(id));
        let context = Context::open(&DeviceChoice::Best).unwrap();
        let mut plans: Vec<Plan> = Vec::new();
        for for_cpu in [true, false] {
            let limits = context.limits().for_cpu(for_cpu);
            let plan = Plan::new(&self.graph, &limits).unwrap();
            // A layer without families of its own need not run twice.
            if plans.iter().any(|other| format!("{:?}", other.steps) == format!("{:?}", plan.steps)) {
                continue;
            }
            plans.push(plan.clone());
            let memory = Memory::new(&context, &[&plan]).unwrap();
            let executor = Executor::new(&context, self.graph.clone(), plan, &memory).unwrap();
            for input in &self.inputs {
                match input {
                    Input::Floats(id, values) => executor.write(*id, values).unwrap(),
                    Input::Words(id, values) => executor.write(*id, values).unwrap(),
                }
            }
            executor.run().unwrap();
            check(&|output| executor.read::<f32>(outputs[output]).unwrap());
        }
    }
}

/// Every value within `tolerance` of the expected one, relatively.
fn near(found: &[f32], expected: impl Fn(usize) -> f64, tolerance: f64) {
    for (i, &found) in found.iter().enumerate() {
        let expected = expected(i);
        let error = (f64::from(found) - expected).abs();
        assert!(error <= tolerance * expected.abs().max(1e-3), "element {i} is {found}, not {expected}");
    }
}

/// Counts below 2^24 are exact in f32 in whatever order they are summed.
fn equal(found: &[f32], expected: f32) {
    assert!(found.iter().all(|&v| v == expected), "{:?}.. instead of {expected}", &found[..found.len().min(8)]);
}

#[test]
fn weight_gradients_of_many_rows() {
    // The head of the smallest preset on clips of 36 frames of 128 x 128 x 8 voxels, and a wider layer.
    for (rows, i, o) in [(36 << 17, 4, 4), ((1 << 20) + 3, 32, 11)] {
        let mut probe = Probe::default();
        let (x, d_y) = (probe.floats(&[rows, i], |_| 1.0), probe.floats(&[rows, o], |_| 1.0));
        probe.run(LinearBackwardWeight { bias: true }, &[x, d_y], |read| {
            equal(&read(0), rows as f32);
            equal(&read(1), rows as f32);
        });
    }
}

#[test]
fn weight_gradients_of_a_convolution() {
    let [n, x, y, z] = [4, 128, 128, 16];
    // A tap misses one layer of voxels, unless it is the one at which x and y lie alike.
    for (k, padding) in [(3, same_padding([3; 3])), (2, [[1, 0]; 3])] {
        let mut probe = Probe::default();
        let ones = [probe.floats(&[n, x, y, z, 4], |_| 1.0), probe.floats(&[n, x, y, z, 4], |_| 1.0)];
        probe.run(Conv3dBackwardWeight { kernel: [k; 3], padding, bias: true }, &ones, |read| {
            let inside = |extent: usize, tap: usize| extent - usize::from(tap != 1);
            near(&read(0), |i| (n * inside(x, i / k / k % k) * inside(y, i / k % k) * inside(z, i % k)) as f64, 0.0);
            equal(&read(1), (n * x * y * z) as f32);
        });
    }
}

#[test]
fn statistics_of_one_channel_of_a_large_volume() {
    let rows = 200 * 200 * 16;
    let sign = |i: usize| if i.is_multiple_of(2) { 1.0 } else { -1.0 };
    // Mean 3 and variance 1 overall, but not in any first part: the second half alternates around 6, the first around 0.
    let value = move |i: usize| if i < rows / 2 { sign(i) } else { 6.0 + sign(i) };
    let norm = InstanceNorm { pre_activation: false, residual: false, post_activation: false };
    let rstd = 1.0 / (10.0 + EPS).sqrt();
    let mut probe = Probe::default();
    let x = probe.floats(&[1, 200, 200, 16, 1], value);
    probe.run(norm.clone(), &[x], |read| near(&read(1), |i| [3.0, rstd][i], 1e-5));

    // d_y is 1 in the second half only, so that mean(g) = 1/2 and mean(g n) = 3 rstd / 2.
    let mut probe = Probe::default();
    let x = probe.floats(&[1, 200, 200, 16, 1], value);
    let stats = probe.floats(&[1, 1, 2], |i| [3.0, rstd as f32][i]);
    let d_y = probe.floats(&[1, 200, 200, 16, 1], |i| if i < rows / 2 { 0.0 } else { 1.0 });
    probe.run(InstanceNormBackward { forward: norm }, &[x, stats, d_y], |read| {
        let expected = |i: usize| {
            let normalised = (f64::from(value(i)) - 3.0) * rstd;
            rstd * (f64::from(u8::from(i >= rows / 2)) - 0.5 - normalised * 1.5 * rstd)
        };
        near(&read(0), expected, 1e-4);
    });
}

#[test]
fn weights_of_norms_of_many_rows() {
    let rows = (1 << 20) + 3;
    // x and d_y are 1, the statistics such that this is its own normalised value.
    let mut probe = Probe::default();
    let [x, d_y] = [(); 2].map(|()| probe.floats(&[rows, 4], |_| 1.0));
    let (weight, stats) = (probe.floats(&[4], |_| 1.0), probe.floats(&[rows, 2], |i| [0.0, 1.0][i % 2]));
    probe.run(LayerNormBackward, &[x, weight, stats, d_y], |read| {
        equal(&read(1), rows as f32);
        equal(&read(2), rows as f32);
    });
    let mut probe = Probe::default();
    let [x, d_y] = [(); 2].map(|()| probe.floats(&[1, rows, 4], |_| 1.0));
    let (weight, stats) = (probe.floats(&[4], |_| 1.0), probe.floats(&[1, 4, 2], |i| [0.0, 1.0][i % 2]));
    probe.run(GroupNormBackward { groups: 4, eps: 0.0 }, &[x, weight, stats, d_y], |read| {
        equal(&read(1), rows as f32);
        equal(&read(2), rows as f32);
    });
}

#[test]
fn statistics_of_the_groups_of_a_large_volume() {
    let rows = 200 * 200 * 16;
    let sign = |i: usize| if i.is_multiple_of(2) { 1.0 } else { -1.0 };
    // Of each group one channel alternates around 0; the first half of the other does around 3, the second around 9.
    let means = move |i: usize| if i < 2 * rows { [0.0, 3.0] } else { [0.0, 9.0] };
    let value = move |i: usize| sign(i / 4) + means(i)[i % 2];
    let mut probe = Probe::default();
    let (x, ones) = (probe.floats(&[1, 200, 200, 16, 4], value), probe.floats(&[4], |_| 1.0));
    // Variances 1 and 10 within the channels, and 9 between them.
    let op = GroupNorm { groups: 2, eps: 1e-5 };
    probe.run(op, &[x, ones, ones], |read| near(&read(1), |i| [3.0, 14.5][i % 2], 1e-5));
}

#[test]
fn softmax_of_a_million() {
    let mut probe = Probe::default();
    let x = probe.floats(&[1, 1 << 20], |_| 3.0);
    probe.run(Softmax, &[x], |read| equal(&read(0), 1.0 / (1 << 20) as f32));
}

#[test]
fn attention_of_long_sequences() {
    let long = 1 << 16;
    let attention = Attention { heads: 1, dropout: None };
    // All weights are equal, but the values of the second half are not those of the first. One query has the keys in parts.
    for queries in [1, 8] {
        let mut probe = Probe::default();
        let (q, k) = (probe.floats(&[1, queries, 1], |_| 0.0), probe.floats(&[1, long, 1], |_| 1.0));
        let v = probe.floats(&[1, long, 1], |i| if i < long / 2 { 0.0 } else { 3.0 });
        probe.run(attention.clone(), &[q, k, v], |read| {
            near(&read(0), |_| 1.5, 1e-5);
            near(&read(1), |_| (long as f64).ln(), 1e-6);
        });
    }
    let mut probe = Probe::default();
    let q = probe.floats(&[1, long, 1], |_| 0.0);
    let [k, v] = [(); 2].map(|()| probe.floats(&[1, 8, 1], |_| 1.0));
    let [y, d_y] = [(); 2].map(|()| probe.floats(&[1, long, 1], |_| 1.0));
    let lse = probe.floats(&[1, 1, long], |_| 8f32.ln());
    probe.run(AttentionBackward { forward: attention }, &[q, k, v, y, lse, d_y], |read| {
        near(&read(2), |_| (long / 8) as f64, 1e-5);
    });
}

#[test]
fn sums_over_the_axes_of_a_volume() {
    let [b, x, y, z, d] = [1, 256, 256, 16, 4];
    let sqrt_third = 1.0 / 3f64.sqrt();
    for axis in 0..3 {
        let mut probe = Probe::default();
        let psi = probe.floats(&[b, x, y, z, 3 * d], |_| 1.0);
        let d_w = probe.floats(&[b, 1, x, y, z, d], |_| 1.0);
        let summed = x * y * z / [x, y, z][axis];
        probe.run(GateBackwardPlane { axis }, &[psi, d_w], |read| near(&read(0), |_| summed as f64 * sqrt_third, 1e-5));

        let mut probe = Probe::default();
        let still = probe.floats(&[b, x, y, z, d], |_| 0.5);
        let d_product = probe.floats(&[b, 1, x, y, z, d], |_| 1.0);
        let others = [x, y, z].into_iter().enumerate().filter(|&(other, _)| other != axis);
        let planes: Vec<TensorId> = others.map(|(_, extent)| probe.floats(&[b, 1, extent, d], |_| 1.0)).collect();
        let operands = [still, d_product, planes[0], planes[1]];
        probe.run(PlaneProductBackwardPlane { axis }, &operands, |read| equal(&read(0), summed as f32 / 2.0));
    }
    let mut probe = Probe::default();
    let plane = probe.floats(&[b, x, y, d], |_| 1.0);
    let d_v = probe.floats(&[b, x, y, z, d], |_| 1.0);
    probe.run(LiftBackwardFactor { plane: Plane::Xy }, &[plane, d_v], |read| {
        near(&read(0), |_| (x * y) as f64 * sqrt_third, 1e-5);
    });
}

#[test]
fn pools_over_large_planes() {
    let [x, y, z] = [256, 256, 4];
    // Scores differ by exactly ln 2 between the first and the second half of x, so that the weights are 1:2; the values
    // differ too. A sum that ends early sees the first half only.
    let is_late = move |i: usize| i / (y * z) >= x / 2;
    let score = move |i: usize| if is_late(i) { 2f32.ln() } else { 0.0 };
    let value = move |i: usize| if is_late(i) { 3.0 } else { 0.0 };
    for axes in [[false, true, true, true], [false, true, true, false]] {
        let mut probe = Probe::default();
        let shape = [1, x, y, z, 1];
        let (v, s) = (probe.floats(&shape, value), probe.floats(&shape, score));
        let reduced = x * y * if axes[3] { z } else { 1 };
        let bias = probe.floats(&[reduced, 1], |_| 0.0);
        let pooled = axis_pool(&mut probe.graph, v, s, &[(axes, bias)]).unwrap();
        let shape = probe.graph.shape(pooled[0]).to_vec();
        let d_pooled = probe.floats(&shape, |_| 1.0);
        let gradients = probe.graph.backward(&[(pooled[0], d_pooled)], &[v, bias]).unwrap();
        let d_v = gradients.of(&probe.graph, v).unwrap();
        probe.finish(&[pooled[0], d_v], |read| {
            near(&read(0), |_| 2.0, 1e-5);
            let share = 2.0 / (3.0 * reduced as f64);
            for (i, &d) in read(1).iter().enumerate() {
                let expected = if is_late(i) { 2.0 * share } else { share };
                assert!((f64::from(d) - expected).abs() < 1e-4 * expected, "{i}: {d} instead of {expected}");
            }
        });
    }
    // The bias of one cell of x collects the gradient of all kept cells.
    let mut probe = Probe::default();
    let shape = [1, 4, 256, 256, 1];
    let sign = |i: usize| if i / (256 * 256) < 2 { 1.0 } else { -1.0 };
    let (v, s) = (probe.floats(&shape, sign), probe.floats(&shape, |_| 0.0));
    let bias = probe.floats(&[4, 1], |_| 0.0);
    let pooled = axis_pool(&mut probe.graph, v, s, &[([false, true, false, false], bias)]).unwrap();
    let d_pooled = probe.floats(&[1, 256, 256, 1], |_| 1.0);
    let gradients = probe.graph.backward(&[(pooled[0], d_pooled)], &[bias]).unwrap();
    let d_bias = gradients.of(&probe.graph, bias).unwrap();
    probe.finish(&[d_bias], |read| near(&read(0), |i| if i < 2 { 16384.0 } else { -16384.0 }, 1e-5));
}

#[test]
fn divergence_of_two_million_elements() {
    let rows = 1 << 17;
    let mut probe = Probe::default();
    // mu = 1 and logvar = 0: half a nat each.
    let m = probe.floats(&[rows, 32], |i| if i % 32 < 16 { 1.0 } else { 0.0 });
    let rng = probe.words(&[3], |_| 1);
    let op = Reparameterise { stream: 0, kl_elements: rows * 16 };
    probe.run(op, &[m, rng], |read| near(&read(1), |_| 0.5, 1e-6));
}

#[test]
fn norm_of_four_million_ones() {
    let mut probe = Probe::default();
    // Gradients of twice the loss.
    let (gradients, scale) = (probe.floats(&[1 << 22], |_| 1.0), probe.floats(&[1], |_| 2.0));
    probe.run(GradientNorm, &[gradients, scale], |read| assert_eq!(read(0), [1024.0, 1.0, 2.0]));
}

#[test]
fn counts_of_two_million_voxels() {
    let voxels = 128 * 128 * 8 * 16;
    let mut probe = Probe::default();
    let predicted = probe.words(&[voxels], |i| (i % 4) as u32);
    let labels = probe.words(&[voxels], |i| (i / 4 % 2) as u32);
    let observed = probe.words(&[voxels], |_| 1);
    probe.run(Confusion { frames: 2, classes: 11 }, &[predicted, labels, observed], |read| {
        for (i, bits) in read(0).into_iter().map(f32::to_bits).enumerate() {
            let (truth, guess) = (i / 11 % 11, i % 11);
            let expected = if truth < 2 && guess < 4 { voxels / 16 } else { 0 };
            assert_eq!(bits as usize, expected, "label {truth} taken for {guess}");
        }
    });
}

#[test]
fn losses_of_a_million_voxels() {
    let voxels = 1 << 20;
    let mut probe = Probe::default();
    // Class 0 has the probability 1/2 everywhere, the other two a quarter each.
    let logits = probe.floats(&[voxels, 3], |i| if i % 3 == 0 { 2f32.ln() } else { 0.0 });
    let labels = probe.words(&[voxels], |i| u32::from(i >= voxels / 2));
    let weights = probe.floats(&[3], |_| 1.0);
    probe.run(SegmentationLoss, &[logits, labels, weights], |read| {
        // Half the voxels cost ln 2, the others ln 4.
        near(&read(0), |_| 1.5 * 2f64.ln(), 1e-5);
        assert_eq!(read(3), [voxels as f32, 2.0]);
        // The largest errors of a class that make its Jaccard loss 1: 1/2 for class 0, 3/4 for class 1. Bins are 1/1024 wide.
        assert!((read(1)[0] - 0.625).abs() < 1e-3, "{:?}", read(1));
    });
}

#[test]
fn gradient_of_a_label_table() {
    // Sixteen frames of 128 x 128 x 8 cells; label k in one cell out of eleven, shifted by the sub-voxel.
    let cells = 16 << 17;
    let count = |k: usize, s: usize| (cells + 10 - (k + 11 - s % 11) % 11) / 11;
    let mut probe = Probe::default();
    let labels = probe.words(&[16, 128, 128, 8, 8], |i| ((i / 8 + i % 8) % 11) as u32);
    let d_y = probe.floats(&[16, 128, 128, 8, 2], |_| 1.0);
    probe.run(LabelTableBackward { classes: 11 }, &[labels, d_y], |read| {
        near(&read(0), |i| count(i / 16, i / 2 % 8) as f64, 0.0);
        equal(&read(1), cells as f32);
    });
}

#[test]
fn gradient_of_a_label_convolution() {
    // A tap meets as many voxels as there are, of one label in every other frame: more than one launch adds.
    let [n, x, y, z] = [9, 256, 256, 16];
    let frame = x * y * z;
    let mut probe = Probe::default();
    let labels = probe.words(&[n, x / 2, y / 2, z / 2, 8], |i| (i / frame % 2) as u32);
    let d_y = probe.floats(&[n, x, y, z, 1], |_| 1.0);
    probe.run(LabelConvBackward { classes: 2 }, &[labels, d_y], |read| {
        equal(&read(0)[..27], (5 * frame) as f32);
        equal(&read(0)[27..], (4 * frame) as f32);
        equal(&read(1), (9 * frame) as f32);
    });
}

#[test]
fn sums_of_what_was_repeated() {
    let cells = 256 * 256 * 16;
    for (shape, terms) in [([1, 1, 1, 1, 4], cells), ([1, 256, 1, 16, 1], 256 * 4), ([1, 1, 1, 1, 1], 4 * cells)] {
        let mut probe = Probe::default();
        let long = [1, 256, 256, 16, 4];
        let (a, d_y) = (probe.floats(&long, |_| 2.0), probe.floats(&long, |_| 0.5));
        let op = BroadcastSum { shape: shape.to_vec(), product: true };
        probe.run(op, &[a, d_y], |read| equal(&read(0), terms as f32));
    }
}

#[test]
fn gradient_of_a_gathered_table() {
    let rows = 1 << 20;
    for entries in [16, 4096] {
        let mut probe = Probe::default();
        let index = probe.words(&[rows], |i| (i % entries) as u32);
        let d_y = probe.floats(&[rows, 4], |_| 1.0);
        probe.run(GatherBackward { entries }, &[index, d_y], |read| equal(&read(0), (rows / entries) as f32));
    }
}

#[test]
fn distance_of_four_million_elements_from_their_codes() {
    let mut probe = Probe::default();
    let (z, zq) = (probe.floats(&[1 << 20, 4], |_| 1.0), probe.floats(&[1 << 20, 4], |_| 3.0));
    probe.run(CommitmentLoss { beta: 0.25 }, &[z, zq], |read| near(&read(0), |_| 5.0, 1e-6));
}

#[test]
fn usage_of_codes_by_two_million_rows() {
    let rows = 1 << 21;
    let mut probe = Probe::default();
    let index = probe.words(&[rows], |i| (i % 1024) as u32);
    probe.run(CodeUsage { codes: 512 }, &[index], |read| {
        assert!(read(0).into_iter().all(|count| count.to_bits() as usize == rows / 1024));
    });
}

#[test]
fn gradient_of_a_still_volume_in_many_frames() {
    // Cells of the result are a third of those of the volume, so that most of its cells look at seven along each axis.
    let (frames, extent) = (200, 4);
    let finer = 3 * extent - 2;
    let scale = |factor: f32| [factor, 0.0, 0.0, 0.0, 0.0, factor, 0.0, 0.0, 0.0, 0.0, factor, 0.0];
    let maps = [scale(1.0 / 3.0), scale(3.0)].concat();
    let mut probe = Probe::default();
    let d_y = probe.floats(&[1, frames, finer, finer, finer, 1], |_| 1.0);
    let motion = probe.floats(&[1, frames, 24], |i| maps[i % 24]);
    let backward = ResampleBackward { direction: Direction::ToCanonical, shape: vec![1, 1, extent, extent, extent, 1] };
    probe.run(backward, &[d_y, motion], |read| {
        // A third and two thirds from each side, where there is one.
        let along = |at: usize| if at == 0 || at == extent - 1 { 2.0 } else { 3.0 };
        let volume = |i: usize| along(i / extent / extent) * along(i / extent % extent) * along(i % extent);
        near(&read(0), |i| frames as f64 * volume(i), 1e-4);
    });
}
