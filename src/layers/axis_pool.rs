//! Separable attention pooling: several softmax-weighted sums over axes of one volume, in one op.

mod parts;

use std::ops::Range;

use parts::{Part, Segment, Volume};

use super::case::Case;
use super::reduce::run_length;
use crate::Result;
use crate::graph::{CpuTensor, Graph, Kernel, Node, Op, OpContext, Operand, Program, Slot, TensorId, TensorSpec};

/// Which of t, x, y, z a pool sums over.
pub type Axes = [bool; 4];

/// Appends [`AxisPool`] with one pool per element of `pools`, given as the axes it sums over and its bias, and returns the
/// pools' outputs.
///
/// # Errors
/// [`crate::Error::Shape`] if the operands do not have the shapes that [`AxisPool`] lists.
pub fn axis_pool(graph: &mut Graph, v: TensorId, s: TensorId, pools: &[(Axes, TensorId)]) -> Result<Vec<TensorId>> {
    let channels = graph.tensor(v).spec.channels() / pools.len().max(1);
    let op = AxisPool { pools: pools.iter().map(|(axes, _)| *axes).collect(), channels };
    let inputs: Vec<TensorId> = [v, s].into_iter().chain(pools.iter().map(|(_, bias)| *bias)).collect();
    let mut outputs = graph.push(op, &inputs)?;
    outputs.truncate(pools.len());
    Ok(outputs)
}

/// Separable attention pooling, `o_i = sum over A_i of softmax over A_i of (s + b_i) * v` per channel (torch
/// `((s + b).softmax(A) * v).sum(A)`; paper: the planar factorisation PF, Eq. 6).
///
/// Pool `i` works on channels `i*C..(i+1)*C` of `v` and `s` and sums over its own axes `A_i`.
///
/// # Shapes
/// - `v`, `s`: `[B, T, X, Y, Z, P*C]`, or `[B, X, Y, Z, P*C]` where there is no time axis
/// - `b_i`: `[.., C]`, as many rows as `A_i` has cells, row-major in the order t, x, y, z
/// - `o_i`, then `lse_i`: `[B, ..kept axes.., C]`; `lse` is the logarithm of the summed exponentials
///
/// Saves `v`, `s`, `b_i`, `o_i`, `lse_i`. The backward pass overwrites `d_v`, `d_s`, `d_b_i`.
///
/// # Errors
/// [`crate::Error::Shape`] if a pool sums over no axis or one that is not there, or the operands' shapes do not fit.
#[derive(Debug, Clone)]
pub struct AxisPool {
    /// The axes of each pool.
    pub pools: Vec<Axes>,
    /// Channels of one pool, C.
    pub channels: usize,
}

impl AxisPool {
    fn kernel(entry: &'static str, direct: bool) -> Kernel {
        Kernel::new("axis_pool.wgsl", entry).define("direct", direct)
    }

    /// The parts of pool `index`, grouped by the outputs they share: a pool over t needs all frames of a batch.
    fn groups<'a>(&self, volume: Volume, segments: &'a [Segment], index: usize) -> Vec<Vec<Part<'a>>> {
        let pool = self.pools[index];
        let part = |segment| Part { volume, segment, pool, index, pools: self.pools.len(), channels: self.channels };
        segments
            .chunk_by(|a, b| pool[0] && a.batches == b.batches)
            .map(|group| group.iter().map(part).collect())
            .collect()
    }

    fn check(&self, v: &TensorSpec, s: &TensorSpec, biases: &[TensorSpec]) -> Result<Volume, String> {
        let count = self.pools.len();
        if !(5..=6).contains(&v.shape.len()) || v.shape != s.shape || v.elements() == 0 {
            return Err("values and scores must both be [B, T, X, Y, Z, P*C] or [B, X, Y, Z, P*C]".into());
        }
        if count == 0 || v.channels() != count * self.channels {
            return Err(format!("{count} pools of {} channels do not make {}", self.channels, v.channels()));
        }
        let volume = Volume::of(&v.shape);
        for (i, (pool, bias)) in self.pools.iter().zip(biases).enumerate() {
            if !pool.contains(&true) || (pool[0] && !volume.has_time) {
                return Err(format!("pool {i} must sum over at least one axis, and over t only where there is one"));
            }
            let rows = volume.reduced_count(pool);
            if bias.channels() != self.channels || bias.rows() != rows {
                return Err(format!("the bias of pool {i} must be [{rows}, {}], not {bias}", self.channels));
            }
        }
        Ok(volume)
    }

    /// Elements of `v` and `s` per frame, and the windows of frames they are bound in.
    fn windows(&self, context: &OpContext, volume: Volume) -> Result<(usize, Vec<Range<usize>>)> {
        let unit = volume.frame_cells() * self.pools.len() * self.channels;
        Ok((unit, context.windows(volume.batches * volume.frames(), &[unit])?))
    }
}

impl Op for AxisPool {
    fn name(&self) -> &'static str {
        "axis_pool_forward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [v, s, biases @ ..] = inputs else { return Err("needs values, scores and biases".into()) };
        if biases.len() != self.pools.len() {
            return Err(format!("needs {} biases", self.pools.len()));
        }
        let volume = self.check(v, s, biases)?;
        let outputs = self.pools.iter().map(|pool| TensorSpec::f32(&volume.output_shape(pool, self.channels)));
        let outputs: Vec<TensorSpec> = outputs.collect();
        Ok([outputs.clone(), outputs].concat())
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let volume = Volume::of(inputs[0].shape);
        let (v, s) = (inputs[0].data, inputs[1].data);
        let (mut os, mut lses) = (Vec::new(), Vec::new());
        for (i, pool) in self.pools.iter().enumerate() {
            let bias = inputs[2 + i].data;
            let count = outputs[i].elements();
            let for_each = |f: &mut dyn FnMut(usize, f64, f64)| {
                for cell in 0..volume.cells() {
                    let (kept, reduced) = volume.split(pool, cell);
                    for c in 0..self.channels {
                        let e = (cell * self.pools.len() + i) * self.channels + c;
                        f(kept * self.channels + c, s[e] + bias[reduced * self.channels + c], v[e]);
                    }
                }
            };
            let (mut largest, mut total, mut o) = (vec![f64::NEG_INFINITY; count], vec![0.0; count], vec![0.0; count]);
            for_each(&mut |k, score, _| largest[k] = largest[k].max(score));
            for_each(&mut |k, score, _| total[k] += (score - largest[k]).exp());
            for_each(&mut |k, score, value| o[k] += (score - largest[k]).exp() / total[k] * value);
            os.push(o);
            lses.push(largest.iter().zip(&total).map(|(largest, total)| largest + total.ln()).collect());
        }
        [os, lses].concat()
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let volume = Volume::of(&context.inputs[0].shape);
        let (unit, windows) = self.windows(context, volume)?;
        let segments = volume.segments(&windows);
        let pools = self.pools.len();
        let mut program = Program::default();
        for index in 0..pools {
            let (o, lse, bias) = (context.output(index), context.output(pools + index), context.input(2 + index));
            let groups = self.groups(volume, &segments, index);
            let runs_of = |part: &Part| part.reduced_count().div_ceil(run_length(part.reduced_count()));
            // One run writes o at once; several, or those of a further window of the same batch, are merged into it.
            let is_direct = |number: usize, part: &Part| number == 0 && runs_of(part) == 1;
            let results_of = |part: &Part| 3 * runs_of(part) * part.outputs();
            let merged = groups.iter().flat_map(|group| group.iter().enumerate());
            let merged = merged.filter(|(number, part)| !is_direct(*number, part)).map(|(_, part)| results_of(part));
            let scratch = merged.max().map(|elements| program.scratch(elements));
            for (number, part) in groups.iter().flat_map(|group| group.iter().enumerate()) {
                let results = scratch.filter(|_| !is_direct(number, part));
                let results = results.map(|slot| Operand::scratch(slot, results_of(part)));
                let window = &part.segment.window;
                let mut operands: Vec<_> = (0..2).map(|i| context.input(i).window(window, unit)).collect();
                operands.push(bias.clone());
                match &results {
                    Some(results) => operands.push(results.clone()),
                    None => operands.extend([o.clone(), lse.clone()]),
                }
                let runs = runs_of(part);
                let words = part.words(run_length(part.reduced_count()), runs, number);
                let kernel = Self::kernel("axis_pool_forward", results.is_none());
                program.dispatch(kernel, words.clone(), operands, context.grid_for(part.outputs() * runs));
                if let Some(results) = results {
                    let operands = vec![results, o.clone(), lse.clone()];
                    let kernel = Self::kernel("axis_pool_merge", false);
                    program.dispatch(kernel, words, operands, context.grid_for(part.outputs()));
                }
            }
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
        let pools = self.pools.len();
        let mut inputs = node.inputs.clone();
        let mut has_gradient = Vec::with_capacity(pools);
        for (i, d_o) in d_outputs.iter().take(pools).enumerate() {
            has_gradient.push(d_o.is_some());
            if let Some(d_o) = *d_o {
                inputs.extend([node.outputs[i], node.outputs[pools + i], d_o]);
            }
        }
        if !has_gradient.contains(&true) {
            return Ok(vec![None; node.inputs.len()]);
        }
        let gradients = graph.push(AxisPoolBackward { forward: self.clone(), has_gradient }, &inputs)?;
        Ok(gradients.into_iter().map(Some).collect())
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(0 | 1))
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        6 * inputs[0].elements() as u64
    }
}

/// `d_v = p * d_o`, `d_s = p * (v - o) * d_o`, `d_b_i = sum of d_s` over batches and kept cells, `p = exp(s + b_i - lse_i)`.
///
/// Inputs `v`, `s`, `b_0..`, then `o_i`, `lse_i`, `d_o_i` of each pool that has a gradient; outputs `d_v`, `d_s`, `d_b_0..`,
/// zero for the pools that have none.
#[derive(Debug)]
pub struct AxisPoolBackward {
    /// The op it belongs to.
    pub forward: AxisPool,
    /// The pools whose output has a gradient.
    pub has_gradient: Vec<bool>,
}

impl AxisPoolBackward {
    /// Each pool and, if it has a gradient, the number of the input that holds its `o`.
    fn saved(&self) -> Vec<(usize, Option<usize>)> {
        let mut next = 2 + self.forward.pools.len();
        let saved = self.has_gradient.iter().enumerate().map(|(i, &has_gradient)| {
            let first = has_gradient.then_some(next);
            next += if has_gradient { 3 } else { 0 };
            (i, first)
        });
        saved.collect()
    }
}

impl Op for AxisPoolBackward {
    fn name(&self) -> &'static str {
        "axis_pool_backward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let pools = self.forward.pools.len();
        let count = 2 + pools + 3 * self.has_gradient.iter().filter(|&&has| has).count();
        if inputs.len() != count || self.has_gradient.len() != pools {
            return Err(format!("needs {count} operands for {pools} pools"));
        }
        let volume = self.forward.check(&inputs[0], &inputs[1], &inputs[2..2 + pools])?;
        for (i, first) in self.saved() {
            let shape = volume.output_shape(&self.forward.pools[i], self.forward.channels);
            let elements = shape.iter().product::<usize>();
            if first.is_some_and(|first| inputs[first..first + 3].iter().any(|input| input.elements() != elements)) {
                return Err(format!("output, log-sum-exp and gradient of pool {i} must be {shape:?}"));
            }
        }
        Ok(inputs[..2 + pools].to_vec())
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let AxisPool { pools, channels } = &self.forward;
        let volume = Volume::of(inputs[0].shape);
        let (v, s) = (inputs[0].data, inputs[1].data);
        let mut results: Vec<Vec<f64>> = outputs.iter().map(|output| vec![0.0; output.elements()]).collect();
        for (i, first) in self.saved() {
            let Some(first) = first else { continue };
            let (o, lse, d_o) = (inputs[first].data, inputs[first + 1].data, inputs[first + 2].data);
            for cell in 0..volume.cells() {
                let (kept, reduced) = volume.split(&pools[i], cell);
                for c in 0..*channels {
                    let e = (cell * pools.len() + i) * channels + c;
                    let (k, a) = (kept * channels + c, reduced * channels + c);
                    let weight = (s[e] + inputs[2 + i].data[a] - lse[k]).exp();
                    let d_score = weight * (v[e] - o[k]) * d_o[k];
                    results[0][e] = weight * d_o[k];
                    results[1][e] = d_score;
                    results[2 + i][a] += d_score;
                }
            }
        }
        results
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let forward = &self.forward;
        let volume = Volume::of(&context.inputs[0].shape);
        let (unit, windows) = forward.windows(context, volume)?;
        let segments = volume.segments(&windows);
        let mut program = Program::default();
        if self.has_gradient.contains(&false) {
            for window in &windows {
                program.clear(context.output(0).window(window, unit));
                program.clear(context.output(1).window(window, unit));
            }
        }
        for (index, first) in self.saved() {
            let Some(first) = first else {
                program.clear(context.output(2 + index));
                continue;
            };
            let groups = forward.groups(volume, &segments, index);
            let run_of = |part: &Part| run_length(part.kept_count());
            let runs_of = |part: &Part| part.kept_count().div_ceil(run_of(part));
            // Parts of one group add to different rows of the bias, so that they share their runs.
            let all_runs = groups.iter().map(|group| runs_of(&group[0])).sum::<usize>();
            let bias_elements = context.inputs[2 + index].elements();
            let d_bias = context.output(2 + index);
            let run_d_bias = if all_runs == 1 {
                d_bias.clone()
            } else {
                Operand::scratch(program.scratch(all_runs * bias_elements), all_runs * bias_elements)
            };
            let packed: Slot = program.scratch(3 * groups.iter().map(|g| g[0].outputs()).max().unwrap_or(0));
            let mut first_run = 0;
            for group in &groups {
                let packed = Operand::scratch(packed, 3 * group[0].outputs());
                let mut operands: Vec<_> = (first..first + 3).map(|i| context.input(i)).collect();
                operands.push(packed.clone());
                let kernel = AxisPool::kernel("axis_pool_pack", false);
                let grid = context.grid_for(group[0].outputs());
                program.dispatch(kernel, group[0].words(1, 1, 0), operands, grid);
                for part in group {
                    let input = |i| context.input(i).window(&part.segment.window, unit);
                    let output = |i| context.output(i).window(&part.segment.window, unit);
                    let bias = context.input(2 + index);
                    let operands =
                        vec![input(0), input(1), bias, packed.clone(), output(0), output(1), run_d_bias.clone()];
                    let kernel = AxisPool::kernel("axis_pool_backward", false);
                    let grid = context.grid_for(part.reduced_count() * forward.channels * runs_of(part));
                    program.dispatch(kernel, part.words(run_of(part), runs_of(part), first_run), operands, grid);
                }
                first_run += runs_of(&group[0]);
            }
            if all_runs > 1 {
                let kernel = AxisPool::kernel("axis_pool_backward_bias", false);
                let words = groups[0][0].words(1, all_runs, 0);
                program.dispatch(kernel, words, vec![run_d_bias, d_bias], context.grid_for(bias_elements));
            }
        }
        Ok(program)
    }

    // Every element of v and s is read by the one invocation that then writes it; but clearing comes before reading.
    fn in_place(&self) -> Option<(usize, usize)> {
        (!self.has_gradient.contains(&false)).then_some((0, 0))
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(0 | 1) | Slot::Output(0 | 1))
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        6 * inputs[0].elements() as u64
    }
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    const T: Axes = [true, false, false, false];
    const X: Axes = [false, true, false, false];
    const Y: Axes = [false, false, true, false];
    const Z: Axes = [false, false, false, true];
    const YZ: Axes = [false, false, true, true];
    const XZ: Axes = [false, true, false, true];
    const XY: Axes = [false, true, true, false];
    // `used`: how many of the outputs lead anywhere.
    let case = |name: &str, shape: &'static [usize], channels: usize, pools: &'static [Axes], used: usize| {
        Case::new(format!("axis_pool {name}"), move |b| {
            let mut packed = shape.to_vec();
            packed.push(pools.len() * channels);
            let volume = Volume::of(&packed);
            let (v, s) = (b.normal("v", &packed), b.normal("s", &packed));
            let biases: Vec<(Axes, TensorId)> =
                pools.iter().map(|pool| (*pool, b.normal("b", &[volume.reduced_count(pool), channels]))).collect();
            let mut outputs = axis_pool(&mut b.graph, v, s, &biases)?;
            outputs.truncate(used);
            Ok(outputs)
        })
    };
    vec![
        case("frames", &[2, 3, 5, 3, 2], 5, &[T, YZ, XZ, XY], 4),
        case("volume", &[2, 7, 5, 3], 17, &[Z, Y, X], 3),
        case("32 channels", &[1, 4, 4, 6, 3], 32, &[T, YZ, XZ, XY], 4),
        case("several runs", &[2, 2, 13, 11, 7], 3, &[T, YZ, XZ, XY], 4),
        case("many frames", &[2, 70, 2, 3, 1], 3, &[T, XY], 2),
        case("everything summed", &[2, 3, 4, 5, 3], 2, &[[true; 4], [true, false, true, true]], 2),
        case("no gradient of two pools", &[2, 3, 4, 5, 2], 4, &[T, YZ, XZ, XY], 2),
        case("in windows", &[2, 5, 3, 5, 2], 8, &[T, YZ, XZ, XY], 4).windowed(12_000),
        case("in windows, some without gradient", &[2, 5, 3, 5, 2], 8, &[XZ, T, [true, true, false, true], XY], 3)
            .windowed(12_000),
        case("volume in windows", &[5, 3, 5, 2], 32, &[Z, Y, X], 3).windowed(30_000),
        // The sum is needed no more once the backward pass has read it, so that d_v takes its memory.
        Case::new("axis_pool in place", |b| {
            let shape = [2, 5, 3, 5, 2, 16];
            let (v0, v1, s) = (b.normal("v0", &shape), b.normal("v1", &shape), b.normal("s", &shape));
            let biases = [(T, b.normal("b", &[5, 8])), (YZ, b.normal("b", &[10, 8]))];
            let v = b.graph.push_one(crate::graph::Add, &[v0, v1])?;
            axis_pool(&mut b.graph, v, s, &biases)
        })
        .windowed(8000),
        Case::new("axis_pool large scores", |b| {
            let shape = [1, 4, 3, 40, 3, 4];
            let v = b.normal("v", &shape);
            let scores = (0..shape.iter().product()).map(|_| 60.0 * b.rng.normal() - 500.0).collect();
            let s = b.differentiable("s", &shape, scores);
            let bias = b.normal("b", &[120, 4]);
            axis_pool(&mut b.graph, v, s, &[(YZ, bias)])
        }),
    ]
}
