//! Instance norm with the activations and the residual sum that surround it in the model.

use super::case::Case;
use super::pointwise::{lrelu, lrelu_slope};
use super::reduce::run_length;
use crate::Result;
use crate::graph::program::WORKGROUP;
use crate::graph::{CpuTensor, Graph, Kernel, Node, Op, OpContext, Operand, Program, Slot, TensorId, TensorSpec};

/// Added to the variance (`shaders/instance_norm.wgsl` has the same).
pub const EPS: f64 = 1e-5;

/// Rows that an invocation of the pointwise stages handles, to load its channel's statistics once for all of them.
const POINTWISE_RUN: usize = 32;

/// Sums that a workgroup of a GPU makes, and the invocations that share in each.
const SHARED: (usize, usize) = (32, 8);

/// Appends [`InstanceNorm`] and returns `y = post(residual + pre((x - mean) * rstd))`.
///
/// # Errors
/// [`crate::Error::Shape`] if `x` has no spatial axis or `residual` another size.
pub fn instance_norm(
    graph: &mut Graph,
    x: TensorId,
    residual: Option<TensorId>,
    pre_activation: bool,
    post_activation: bool,
) -> Result<TensorId> {
    let op = InstanceNorm { pre_activation, residual: residual.is_some(), post_activation };
    let inputs: Vec<TensorId> = std::iter::once(x).chain(residual).collect();
    graph.push_one(op, &inputs)
}

/// Instance norm without affine, `y = post(residual + pre((x - mean) * rstd))` (torch `nn.InstanceNorm3d`; paper: IN of the
/// extractor and the residual blocks), `pre` and `post` being leaky ReLU or nothing.
///
/// Mean and biased variance are taken over all spatial axes of each frame and channel.
///
/// # Shapes
/// - `x`, and `residual` if there is one: `[N, ..spatial.., C]`
/// - `y`: that of `x`
/// - `stats`: `[N, C, 2]`, mean and rstd
///
/// Saves `x`, `stats`, and `y` where a residual is added and `post` follows. The backward pass overwrites `d_x` and
/// `d_residual`.
///
/// # Errors
/// [`crate::Error::Shape`] if `x` has no spatial axis or `residual` another size.
#[derive(Debug, Clone)]
pub struct InstanceNorm {
    /// Leaky ReLU between norm and sum.
    pub pre_activation: bool,
    /// A second input is added.
    pub residual: bool,
    /// Leaky ReLU after the sum.
    pub post_activation: bool,
}

/// `x` seen as `[N, S, C]`.
#[derive(Debug, Clone, Copy)]
struct Extents {
    frames: usize,
    rows: usize,
    channels: usize,
}

impl Extents {
    fn of(shape: &[usize]) -> Extents {
        let (frames, channels) = (shape[0], shape[shape.len() - 1]);
        Extents { frames, rows: shape[1..shape.len() - 1].iter().product(), channels }
    }

    fn frame_elements(&self) -> usize {
        self.rows * self.channels
    }

    /// The elements of channel `c` of frame `n`.
    fn channel(self, n: usize, c: usize) -> impl Iterator<Item = usize> {
        (0..self.rows).map(move |row| (n * self.rows + row) * self.channels + c)
    }
}

fn checked(x: &TensorSpec) -> Result<(), String> {
    if x.shape.len() < 3 {
        return Err("needs [N, ..spatial.., C]".into());
    }
    if x.elements() == 0 { Err("has no elements to take a mean of".into()) } else { Ok(()) }
}

fn stats_spec(x: &TensorSpec) -> TensorSpec {
    TensorSpec::f32(&[x.shape[0], x.channels(), 2])
}

/// The launches of one window of frames.
struct Window {
    extents: Extents,
    frames: std::ops::Range<usize>,
}

impl Window {
    fn launch(&self, program: &mut Program, context: &OpContext, kernel: Kernel, run: usize, operands: Vec<Operand>) {
        let runs = self.extents.rows.div_ceil(run);
        let Extents { rows, channels, .. } = self.extents;
        let merges = kernel.entry.ends_with("_merge");
        let width = if channels.is_multiple_of(4) && !merges { 4 } else { 1 };
        let (kernel, channels) = (kernel.define("width", width as i64), channels / width);
        // A GPU needs many invocations; a CPU adapter has but a few lanes.
        let (owners, slices) = if context.limits.policy.for_cpu { (WORKGROUP, 1) } else { SHARED };
        let kernel = kernel.define("owners", owners as i64).define("slices", slices as i64);
        let owned = self.frames.len() * channels * if merges { 1 } else { runs };
        let shares = merges || ["instance_norm_statistics", "instance_norm_backward_sums"].contains(&kernel.entry);
        let grid = context.grid(owned.div_ceil(if shares { owners } else { WORKGROUP }));
        let words = [self.frames.len(), rows, channels, run, runs, self.frames.start].map(|word| word as u32);
        program.dispatch(kernel, words.to_vec(), operands, grid);
    }

    /// Elements of the runs' sums.
    fn run_sums(&self, run: usize) -> usize {
        2 * self.frames.len() * self.extents.rows.div_ceil(run) * self.extents.channels
    }
}

impl InstanceNorm {
    fn kernel(entry: &'static str, pre: bool, residual: bool, post: bool) -> Kernel {
        Kernel::new("instance_norm.wgsl", entry).define("pre", pre).define("residual", residual).define("post", post)
    }

    fn fused_kernel(&self, entry: &'static str) -> Kernel {
        Self::kernel(entry, self.pre_activation, self.residual, self.post_activation)
    }

    /// The sign of `y` decides the gradient of both branch and residual.
    fn is_gated(&self) -> bool {
        self.residual && self.post_activation
    }

    /// Slopes of the activations that the normalised value alone decides.
    fn slope(&self, normalised: f64) -> f64 {
        let pre = if self.pre_activation { lrelu_slope(normalised) } else { 1.0 };
        let post = if self.post_activation && !self.residual { lrelu_slope(normalised) } else { 1.0 };
        pre * post
    }
}

impl Op for InstanceNorm {
    fn name(&self) -> &'static str {
        "instance_norm_forward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let count = 1 + usize::from(self.residual);
        if inputs.len() != count {
            return Err(format!("needs {count} operands"));
        }
        checked(&inputs[0])?;
        if inputs.iter().any(|input| input.elements() != inputs[0].elements()) {
            return Err("the residual must have the size of x".into());
        }
        Ok(vec![inputs[0].clone(), stats_spec(&inputs[0])])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let x = inputs[0].data;
        let extents = Extents::of(inputs[0].shape);
        let (mut y, mut stats) = (vec![0.0; x.len()], Vec::with_capacity(outputs[1].elements()));
        for n in 0..extents.frames {
            for c in 0..extents.channels {
                let count = extents.rows as f64;
                let mean = extents.channel(n, c).map(|e| x[e]).sum::<f64>() / count;
                let variance = extents.channel(n, c).map(|e| (x[e] - mean).powi(2)).sum::<f64>() / count;
                let rstd = 1.0 / (variance + EPS).sqrt();
                stats.extend([mean, rstd]);
                for e in extents.channel(n, c) {
                    let normalised = (x[e] - mean) * rstd;
                    let branch = if self.pre_activation { lrelu(normalised) } else { normalised };
                    let sum = if self.residual { inputs[1].data[e] + branch } else { branch };
                    y[e] = if self.post_activation { lrelu(sum) } else { sum };
                }
            }
        }
        vec![y, stats]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let extents = Extents::of(&context.inputs[0].shape);
        let unit = extents.frame_elements();
        let run = run_length(extents.rows);
        let windows = context.windows(extents.frames, &[unit])?;
        let mut program = Program::default();
        // The first window is the longest.
        let longest = Window { extents, frames: windows[0].clone() };
        let sums = program.scratch(longest.run_sums(run));
        for frames in windows {
            let x = context.input(0).window(&frames, unit);
            let mut pointwise = vec![x.clone(), context.output(0).window(&frames, unit), context.output(1)];
            if self.residual {
                pointwise.push(context.input(1).window(&frames, unit));
            }
            let window = Window { extents, frames };
            let sums = Operand::scratch(sums, window.run_sums(run));
            let statistics = Self::kernel("instance_norm_statistics", false, false, false);
            window.launch(&mut program, context, statistics, run, vec![x.clone(), sums.clone()]);
            let merge = Self::kernel("instance_norm_merge", false, false, false);
            window.launch(&mut program, context, merge, run, vec![x, sums, context.output(1)]);
            let forward = self.fused_kernel("instance_norm_forward");
            window.launch(&mut program, context, forward, POINTWISE_RUN, pointwise);
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
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None; node.inputs.len()]) };
        if !self.is_gated() && !needs[0] {
            return Ok(vec![None, Some(d_y)]);
        }
        let mut inputs = vec![node.inputs[0], node.outputs[1], d_y];
        if self.is_gated() {
            inputs.push(node.outputs[0]);
        }
        let gradients = graph.push(InstanceNormBackward { forward: self.clone() }, &inputs)?;
        let mut d_inputs = vec![Some(gradients[0])];
        if self.residual {
            d_inputs.push(Some(if self.is_gated() { gradients[1] } else { d_y }));
        }
        Ok(d_inputs)
    }

    fn in_place(&self) -> Option<(usize, usize)> {
        Some((0, 0))
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(_) | Slot::Output(0))
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        7 * inputs[0].elements() as u64
    }
}

/// `d_x = rstd * (g - mean(g) - n * mean(g * n))`, `n = (x - mean) * rstd`, `g` the gradient of `n`.
///
/// Inputs `x`, `stats`, `d_y`, and `y` where a residual is added and `post` follows; outputs `d_x`, and in that same case
/// `d_residual = d_y * lrelu'(y)` (elsewhere it is `d_y`).
#[derive(Debug)]
pub struct InstanceNormBackward {
    /// The op it belongs to.
    pub forward: InstanceNorm,
}

impl Op for InstanceNormBackward {
    fn name(&self) -> &'static str {
        "instance_norm_backward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let gated = usize::from(self.forward.is_gated());
        if inputs.len() != 3 + gated {
            return Err(format!("needs {} operands", 3 + gated));
        }
        checked(&inputs[0])?;
        let fits = inputs[1].elements() == stats_spec(&inputs[0]).elements()
            && inputs[2..].iter().all(|input| input.elements() == inputs[0].elements());
        if !fits {
            return Err("stats must be [N, C, 2], the gradients as large as x".into());
        }
        Ok(vec![inputs[0].clone(); 1 + gated])
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let (x, stats) = (inputs[0].data, inputs[1].data);
        let mut d_sum = inputs[2].data.to_vec();
        if self.forward.is_gated() {
            d_sum.iter_mut().zip(inputs[3].data).for_each(|(d, &y)| *d *= lrelu_slope(y));
        }
        let extents = Extents::of(inputs[0].shape);
        let mut d_x = vec![0.0; x.len()];
        for n in 0..extents.frames {
            for c in 0..extents.channels {
                let at = (n * extents.channels + c) * 2;
                let (mean, rstd) = (stats[at], stats[at + 1]);
                let terms: Vec<(usize, f64, f64)> = extents
                    .channel(n, c)
                    .map(|e| {
                        let normalised = (x[e] - mean) * rstd;
                        (e, d_sum[e] * self.forward.slope(normalised), normalised)
                    })
                    .collect();
                let count = extents.rows as f64;
                let mean_g = terms.iter().map(|(_, g, _)| g).sum::<f64>() / count;
                let mean_gn = terms.iter().map(|(_, g, normalised)| g * normalised).sum::<f64>() / count;
                for (e, g, normalised) in terms {
                    d_x[e] = rstd * (g - mean_g - normalised * mean_gn);
                }
            }
        }
        if self.forward.is_gated() { vec![d_x, d_sum] } else { vec![d_x] }
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let gated = self.forward.is_gated();
        let extents = Extents::of(&context.inputs[0].shape);
        let unit = extents.frame_elements();
        let run = run_length(extents.rows);
        let windows = context.windows(extents.frames, &[unit])?;
        let mut program = Program::default();
        // The first window is the longest.
        let longest = Window { extents, frames: windows[0].clone() };
        let run_sums = program.scratch(longest.run_sums(run));
        let means = program.scratch(longest.run_sums(extents.rows));
        for frames in windows {
            let input = |i| context.input(i).window(&frames, unit);
            let output = |i| context.output(i).window(&frames, unit);
            let window = Window { extents, frames: frames.clone() };
            let run_sums = Operand::scratch(run_sums, window.run_sums(run));
            let means = Operand::scratch(means, window.run_sums(extents.rows));
            let mut summed = vec![input(0), run_sums.clone(), context.input(1), input(2)];
            let mut pointwise = vec![input(0), means.clone(), context.input(1), input(2)];
            if gated {
                summed.push(input(3));
                pointwise.extend([input(3), output(0), output(1)]);
            } else {
                pointwise.push(output(0));
            }
            let sums = self.forward.fused_kernel("instance_norm_backward_sums");
            window.launch(&mut program, context, sums, run, summed);
            let merge = InstanceNorm::kernel("instance_norm_backward_merge", false, false, false);
            window.launch(&mut program, context, merge, run, vec![run_sums, means]);
            let backward = self.forward.fused_kernel("instance_norm_backward");
            window.launch(&mut program, context, backward, POINTWISE_RUN, pointwise);
        }
        Ok(program)
    }

    // The sums over d_y are complete before the launch that overwrites it element by element.
    fn in_place(&self) -> Option<(usize, usize)> {
        Some((0, 2))
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(0 | 2 | 3) | Slot::Output(_))
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        13 * inputs[0].elements() as u64
    }
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    let case = |name: &str, shape: &'static [usize], residual: bool, pre: bool, post: bool| {
        Case::new(format!("instance_norm {name}"), move |b| {
            let x = b.normal("x", shape);
            let residual = residual.then(|| b.normal("residual", shape));
            Ok(vec![instance_norm(&mut b.graph, x, residual, pre, post)?])
        })
    };
    vec![
        case("plain", &[3, 5, 3, 2, 5], false, false, false),
        case("activated", &[3, 5, 3, 2, 17], false, true, false),
        case("residual", &[2, 13, 11, 32], true, false, false),
        case("residual, activated branch", &[2, 9, 7, 3, 5], true, true, false),
        case("residual, activated sum", &[2, 9, 7, 3, 17], true, false, true),
        case("everything", &[2, 7, 5, 4, 3], true, true, true),
        case("twice activated", &[2, 77, 6], false, true, true),
        case("plain in windows", &[5, 5, 3, 10, 32], false, false, false).windowed(40_000),
        case("activated sum in windows", &[5, 5, 3, 10, 32], true, false, true).windowed(40_000),
        case("long", &[1, 64, 66, 4, 2], true, true, false),
        // The gradient between the two is overwritten; so is the sum where nothing is differentiated.
        Case::new("instance_norm in place, backward", |b| {
            let shape = [5, 75, 64];
            let (x, residual) = (b.normal("x", &shape), b.normal("residual", &shape));
            let y = instance_norm(&mut b.graph, x, Some(residual), false, true)?;
            let y = instance_norm(&mut b.graph, y, None, true, false)?;
            Ok(vec![instance_norm(&mut b.graph, y, None, false, false)?])
        })
        .windowed(40_000),
        Case::new("instance_norm in place, forward", |b| {
            let shape = [5, 75, 64];
            let (x0, x1) = (b.constant_normal("x0", &shape), b.constant_normal("x1", &shape));
            let x = b.graph.push_one(crate::graph::Add, &[x0, x1])?;
            Ok(vec![instance_norm(&mut b.graph, x, None, true, false)?])
        })
        .windowed(40_000),
        Case::new("instance_norm mean 100 deviations", |b| {
            let (shape, scale) = ([2, 300, 7], [0.01, 1.0, 3.0, 10.0, 0.5, 2.0, 100.0]);
            let count = shape.iter().product::<usize>();
            let values = (0..count).map(|i| (100.0 + b.rng.normal()) * scale[i % 7]).collect();
            let x = b.differentiable("x", &shape, values);
            Ok(vec![instance_norm(&mut b.graph, x, None, false, false)?])
        }),
    ]
}
