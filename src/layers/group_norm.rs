//! Group norm with weight and bias; with as many groups as channels, instance norm with them.

use std::ops::Range;

use super::case::Case;
use super::common::expect;
use super::reduce::{Chunks, run_length, sum_chunks};
use crate::Result;
use crate::graph::{CpuTensor, Graph, Kernel, Node, Op, OpContext, Operand, Program, Slot, TensorId, TensorSpec};

/// Most frames, and channels: an invocation adds the sums of all frames' or all of a group's.
const MOST: usize = 16_384;

/// Rows that an invocation of the pointwise stages handles, to load its channel's statistics once for all of them.
const POINTWISE_RUN: usize = 32;

/// Invocations of a GPU that share in a run's sums, and in a frame's.
const SHARED: (usize, usize) = (8, 16);

/// Appends [`GroupNorm`] and returns `y`.
///
/// # Errors
/// [`crate::Error::Shape`] as [`GroupNorm`].
pub fn group_norm(
    graph: &mut Graph,
    x: TensorId,
    weight: TensorId,
    bias: TensorId,
    groups: usize,
    eps: f32,
) -> Result<TensorId> {
    graph.push_one(GroupNorm { groups, eps }, &[x, weight, bias])
}

/// `y = (x - mean) / sqrt(variance + eps) * weight + bias`, mean and biased variance over all spatial axes and the channels of each
/// group of each frame (torch `nn.GroupNorm(groups, C, eps)`; with `groups = C`, `nn.InstanceNorm3d(C, eps, affine=True)`).
///
/// # Shapes
/// - `x`: `[N, ..spatial.., C]`
/// - `weight`, `bias`: `[C]`
/// - `y`: that of `x`
/// - `stats`: `[N, groups, 2]`, mean and variance
///
/// Saves `x` and `stats`; may overwrite `x` where nothing is differentiated. The backward pass overwrites `d_x` (perhaps in
/// `d_y`'s place), `d_weight` and `d_bias`.
///
/// # Errors
/// [`crate::Error::Shape`] if C is no multiple of `groups`, `weight` or `bias` is not `[C]`, or there are more than
/// 16,384 frames or channels.
#[derive(Debug)]
pub struct GroupNorm {
    /// Groups of consecutive channels.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f32,
}

/// With `rstd = 1 / sqrt(variance + eps)`, `n = (x - mean) * rstd` and `g = d_y * weight`:
/// `d_x = rstd (g - mean(g) - n mean(g n))`, the means over each frame's group, `d_weight = sum d_y n` and
/// `d_bias = sum d_y`, the sums over everything but the channels.
///
/// # Shapes
/// - `x`, `weight`, `stats`: those of the forward pass
/// - `d_y`, `d_x`: as `x`
/// - `d_weight`, `d_bias`: `[C]`
///
/// May overwrite `d_y` with `d_x`.
#[derive(Debug)]
pub struct GroupNormBackward {
    /// Those of the forward pass.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f32,
}

/// `x` seen as `[N, S, C]`, its channels in groups.
#[derive(Debug, Clone, Copy)]
pub(super) struct Norm {
    pub frames: usize,
    pub rows: usize,
    pub channels: usize,
    pub groups: usize,
    pub eps: f32,
}

impl Norm {
    fn of(shape: &[usize], groups: usize, eps: f32) -> Norm {
        let (frames, channels) = (shape[0], shape[shape.len() - 1]);
        Norm { frames, rows: shape[1..shape.len() - 1].iter().product(), channels, groups, eps }
    }

    /// The group, over all frames, and the channel of element `e`.
    fn place(&self, e: usize) -> (usize, usize) {
        let (frame, channel) = (e / (self.rows * self.channels), e % self.channels);
        (frame * self.groups + channel * self.groups / self.channels, channel)
    }

    fn group_elements(&self) -> f64 {
        (self.rows * self.channels / self.groups) as f64
    }

    /// Means and variances, `[N, groups, 2]`, in f64.
    fn statistics_of(&self, x: &[f64]) -> Vec<f64> {
        let mut stats = vec![0.0; 2 * self.frames * self.groups];
        for (e, x) in x.iter().enumerate() {
            stats[2 * self.place(e).0] += x / self.group_elements();
        }
        for (e, x) in x.iter().enumerate() {
            let group = self.place(e).0;
            stats[2 * group + 1] += (x - stats[2 * group]).powi(2) / self.group_elements();
        }
        stats
    }

    /// Rstd and normalised value of element `e`.
    fn normalised(&self, x: &[f64], stats: &[f64], e: usize) -> (f64, f64) {
        let group = self.place(e).0;
        let rstd = 1.0 / (stats[2 * group + 1] + f64::from(self.eps)).sqrt();
        (rstd, (x[e] - stats[2 * group]) * rstd)
    }

    /// `y` in f64.
    pub fn forward_of(&self, x: &[f64], stats: &[f64], weight: &[f64], bias: &[f64]) -> Vec<f64> {
        let value = |e| self.normalised(x, stats, e).1 * weight[self.place(e).1] + bias[self.place(e).1];
        (0..x.len()).map(value).collect()
    }

    /// `d_x`, `d_weight` and `d_bias` in f64; where the statistics `depend` on x, through them as well.
    pub fn backward_of(&self, x: &[f64], stats: &[f64], weight: &[f64], d_y: &[f64], depend: bool) -> Vec<Vec<f64>> {
        let (mut d_weight, mut d_bias) = (vec![0.0; self.channels], vec![0.0; self.channels]);
        let mut means = vec![0.0; stats.len()];
        for (e, d_y) in d_y.iter().enumerate() {
            let ((group, channel), (_, n)) = (self.place(e), self.normalised(x, stats, e));
            d_weight[channel] += d_y * n;
            d_bias[channel] += d_y;
            if depend {
                means[2 * group] += d_y * weight[channel] / self.group_elements();
                means[2 * group + 1] += d_y * weight[channel] * n / self.group_elements();
            }
        }
        let d_x = |e| {
            let ((group, channel), (rstd, n)) = (self.place(e), self.normalised(x, stats, e));
            rstd * (d_y[e] * weight[channel] - means[2 * group] - n * means[2 * group + 1])
        };
        vec![(0..x.len()).map(d_x).collect(), d_weight, d_bias]
    }
}

/// A part of x that fits a binding: some frames, or some runs of the only one.
#[derive(Debug, Clone)]
struct Window {
    frames: Range<usize>,
    runs: Range<usize>,
    /// Rows of a frame in this window.
    rows: usize,
    elements: Range<usize>,
}

/// The launches of a norm under way.
pub(super) struct Launches<'a> {
    context: &'a OpContext<'a>,
    norm: Norm,
    /// Rows whose terms are added first, and how many such runs a frame has.
    run: usize,
    runs: usize,
    windows: Vec<Window>,
    pub program: Program,
}

impl<'a> Launches<'a> {
    pub fn new(context: &'a OpContext<'a>, norm: Norm) -> Result<Self> {
        let Norm { frames, rows, channels, .. } = norm;
        let run = run_length(rows);
        let runs = rows.div_ceil(run);
        let windows = if frames == 1 {
            let windows = context.windows(runs, &[run * channels])?.into_iter().map(|runs| {
                let window = runs.start * run..rows.min(runs.end * run);
                let elements = window.start * channels..window.end * channels;
                Window { frames: 0..1, runs, rows: window.len(), elements }
            });
            windows.collect()
        } else {
            let unit = rows * channels;
            let windows = context.windows(frames, &[unit])?.into_iter().map(|frames| {
                let elements = frames.start * unit..frames.end * unit;
                Window { frames, runs: 0..runs, rows, elements }
            });
            windows.collect()
        };
        Ok(Launches { context, norm, run, runs, windows, program: Program::default() })
    }

    /// The window of everything, for what does not touch x.
    fn whole(&self) -> Window {
        let Norm { frames, rows, .. } = self.norm;
        Window { frames: 0..frames, runs: 0..self.runs, rows, elements: 0..0 }
    }

    fn launch(&mut self, kernel: Kernel, window: &Window, run: usize, tasks: usize, operands: Vec<Operand>) {
        let in_fours = self.norm.channels.is_multiple_of(4) && !kernel.defines.contains_key("width");
        let width = if in_fours { 4 } else { 1 };
        let slices = kernel.defines.get("slices").map_or(1, |&slices| slices as usize);
        let kernel = kernel.define("width", width);
        let words = [
            window.frames.len(),
            window.rows,
            self.norm.channels / width as usize,
            run,
            window.rows.div_ceil(run),
            window.frames.start,
            window.runs.start,
            self.runs,
            self.norm.groups,
        ];
        let mut words: Vec<u32> = words.map(|word| word as u32).to_vec();
        words.push(self.norm.eps.to_bits());
        let grid = self.context.grid_for(tasks / width as usize * slices);
        self.program.dispatch(kernel, words, operands, grid);
    }

    fn kernel(entry: &'static str) -> Kernel {
        Kernel::new("group_norm.wgsl", entry)
    }

    pub fn temporary(&mut self, elements: usize) -> Operand {
        Operand::scratch(self.program.scratch(elements), elements)
    }

    /// Two sums of each frame and channel, `[N, 2, C]`; `operands` of a window become those of the kernel `of_runs`.
    fn frame_sums(
        &mut self,
        of_runs: &'static str,
        merge: &'static str,
        operands: impl Fn(&Window, Operand) -> Vec<Operand>,
    ) -> Operand {
        let Norm { frames, channels, .. } = self.norm;
        let (of_run, of_frame) = if self.context.limits.policy.for_cpu { (1, 1) } else { SHARED };
        let run_sums = self.temporary(2 * frames * self.runs * channels);
        for window in self.windows.clone() {
            let kernel = Self::kernel(of_runs).define("slices", of_run as i64);
            let tasks = window.frames.len() * window.runs.len() * channels;
            self.launch(kernel, &window, self.run, tasks, operands(&window, run_sums.clone()));
        }
        if self.runs == 1 {
            return run_sums;
        }
        let frame_sums = self.temporary(2 * frames * channels);
        let kernel = Self::kernel(merge).define("slices", of_frame as i64);
        self.launch(kernel, &self.whole(), self.run, frames * channels, vec![run_sums, frame_sums.clone()]);
        frame_sums
    }

    /// Makes `stats` of `x`.
    fn statistics(&mut self, x: &Operand, stats: &Operand) {
        let sums = self.frame_sums("group_norm_statistics", "group_norm_merge", |window, sums| {
            vec![x.clone().window(&window.elements, 1), sums]
        });
        self.combine("group_norm_combine", vec![sums, stats.clone()]);
    }

    fn combine(&mut self, entry: &'static str, operands: Vec<Operand>) {
        let tasks = self.norm.frames * self.norm.groups;
        self.launch(Self::kernel(entry).define("width", 1), &self.whole(), self.run, tasks, operands);
    }

    fn pointwise(&mut self, kernel: &Kernel, operands: impl Fn(&Window) -> Vec<Operand>) {
        for window in self.windows.clone() {
            let tasks = window.frames.len() * window.rows.div_ceil(POINTWISE_RUN) * self.norm.channels;
            self.launch(kernel.clone(), &window, POINTWISE_RUN, tasks, operands(&window));
        }
    }

    /// Makes `y` of `x`.
    pub fn forward(&mut self, x: &Operand, y: &Operand, stats: &Operand, [weight, bias]: [&Operand; 2]) {
        self.pointwise(&Self::kernel("group_norm_forward"), |window| {
            let [x, y] = [x, y].map(|operand| operand.clone().window(&window.elements, 1));
            vec![x, y, stats.clone(), weight.clone(), bias.clone()]
        });
    }

    /// Makes the `gradients` of x, weight and bias; where the statistics `depend` on x, through them as well.
    pub fn backward(
        &mut self,
        [x, d_y]: [&Operand; 2],
        stats: &Operand,
        weight: &Operand,
        [d_x, d_weight, d_bias]: [&Operand; 3],
        depend: bool,
    ) {
        let Norm { frames, channels, groups, .. } = self.norm;
        let sums = self.frame_sums("group_norm_backward_sums", "group_norm_backward_merge", |window, sums| {
            let [x, d_y] = [x, d_y].map(|operand| operand.clone().window(&window.elements, 1));
            vec![x, d_y, stats.clone(), sums]
        });
        for (first, gradient) in [(channels, d_weight), (0, d_bias)] {
            let stride = 2 * channels;
            let chunks = Chunks { chunks: frames, stride, first, target: 0, count: channels, accumulate: false };
            sum_chunks(&mut self.program, self.context, chunks, sums.clone(), gradient.clone());
        }
        let mut means = Vec::new();
        if depend {
            means.push(self.temporary(2 * frames * groups));
            self.combine("group_norm_backward_combine", vec![sums, weight.clone(), means[0].clone()]);
        }
        let kernel = Self::kernel("group_norm_backward").define("constant_stats", !depend);
        self.pointwise(&kernel, |window| {
            let [x, d_y, d_x] = [x, d_y, d_x].map(|operand| operand.clone().window(&window.elements, 1));
            let operands = vec![x, d_y, stats.clone(), weight.clone(), d_x];
            operands.into_iter().chain(means.clone()).collect()
        });
    }
}

/// Checks x, and that the others are one value a channel.
pub(super) fn check(x: &TensorSpec, others: &[(&str, &TensorSpec)]) -> Result<(), String> {
    expect("x", x, &x.shape)?;
    others.iter().try_for_each(|(name, spec)| expect(name, spec, &[x.channels()]))
}

impl GroupNorm {
    fn stats_spec(&self, x: &TensorSpec) -> Result<TensorSpec, String> {
        if x.shape.len() < 2 || x.shape[0].max(x.channels()) > MOST {
            return Err(format!("needs [N, ..spatial.., C] with at most {MOST} frames and channels"));
        }
        if self.groups == 0 || !x.channels().is_multiple_of(self.groups) {
            return Err(format!("{} channels do not make {} groups", x.channels(), self.groups));
        }
        Ok(TensorSpec::f32(&[x.shape[0], self.groups, 2]))
    }
}

impl Op for GroupNorm {
    fn name(&self) -> &'static str {
        "group_norm_forward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [x, weight, bias] = inputs else { return Err("needs 3 operands: x, weight, bias".into()) };
        check(x, &[("weight", weight), ("bias", bias)])?;
        Ok(vec![x.clone(), self.stats_spec(x)?])
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let norm = Norm::of(inputs[0].shape, self.groups, self.eps);
        let stats = norm.statistics_of(inputs[0].data);
        vec![norm.forward_of(inputs[0].data, &stats, inputs[1].data, inputs[2].data), stats]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let mut launches = Launches::new(context, Norm::of(&context.inputs[0].shape, self.groups, self.eps))?;
        let [x, weight, bias] = [0, 1, 2].map(|i| context.input(i));
        launches.statistics(&x, &context.output(1));
        launches.forward(&x, &context.output(0), &context.output(1), [&weight, &bias]);
        Ok(launches.program)
    }

    fn backward(
        &self,
        graph: &mut Graph,
        node: &Node,
        d_outputs: &[Option<TensorId>],
        _: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None; 3]) };
        let op = GroupNormBackward { groups: self.groups, eps: self.eps };
        let operands = [node.inputs[0], node.inputs[1], node.outputs[1], d_y];
        Ok(graph.push(op, &operands)?.into_iter().map(Some).collect())
    }

    // The statistics are complete before the launches that overwrite x element by element.
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

impl Op for GroupNormBackward {
    fn name(&self) -> &'static str {
        "group_norm_backward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [x, weight, stats, d_y] = inputs else { return Err("needs 4 operands: x, weight, stats, d_y".into()) };
        check(x, &[("weight", weight)])?;
        expect("stats", stats, &[x.shape[0], self.groups, 2])?;
        expect("d_y", d_y, &x.shape)?;
        Ok(vec![x.clone(), weight.clone(), weight.clone()])
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let norm = Norm::of(inputs[0].shape, self.groups, self.eps);
        norm.backward_of(inputs[0].data, inputs[2].data, inputs[1].data, inputs[3].data, true)
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let mut launches = Launches::new(context, Norm::of(&context.inputs[0].shape, self.groups, self.eps))?;
        let [x, weight, stats, d_y] = [0, 1, 2, 3].map(|i| context.input(i));
        let [d_x, d_weight, d_bias] = [0, 1, 2].map(|i| context.output(i));
        launches.backward([&x, &d_y], &stats, &weight, [&d_x, &d_weight, &d_bias], true);
        Ok(launches.program)
    }

    fn in_place(&self) -> Option<(usize, usize)> {
        Some((0, 3))
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(0 | 3) | Slot::Output(0))
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        14 * inputs[0].elements() as u64
    }
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    let case = |shape: &'static [usize], groups: usize| {
        Case::new(format!("group_norm {shape:?} in {groups}"), move |b| {
            let channels = shape[shape.len() - 1];
            let x = b.normal("x", shape);
            let (weight, bias) = (b.normal("weight", &[channels]), b.normal("bias", &[channels]));
            Ok(vec![group_norm(&mut b.graph, x, weight, bias, groups, 1e-6)?])
        })
    };
    vec![
        case(&[3, 5, 3, 2, 6], 3),
        case(&[5, 8, 16, 24], 4).windowed(30_000),
        case(&[2, 7, 77, 5], 5),
        case(&[5, 5, 3, 10, 32], 32).windowed(40_000),
        case(&[1, 64, 66, 8], 1).windowed(20_000),
        case(&[7, 30], 3),
        Case::new("group_norm mean 100 deviations", |b| {
            let values = (0..2 * 300 * 8).map(|i| (100.0 + b.rng.normal()) * f64::from(1 + i % 8 / 4)).collect();
            let x = b.differentiable("x", &[2, 300, 8], values);
            let (weight, bias) = (b.normal("weight", &[8]), b.normal("bias", &[8]));
            Ok(vec![group_norm(&mut b.graph, x, weight, bias, 2, 1e-5)?])
        }),
    ]
}
