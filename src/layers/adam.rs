//! The optimiser: the gradient's norm, Adam over the flat blocks, and the scale of the loss in mixed precision.

mod loss_scaling;

pub use loss_scaling::LossScaling;

use super::average::MovingAverage;
use super::case::Case;
use crate::Result;
use crate::graph::program::WORKGROUP;
use crate::graph::{Block, CpuTensor, Graph, Kernel, Op, OpContext, Operand, Program, TensorId, TensorSpec};

/// Elements that kernels load at once.
const VECTOR: usize = 4;

/// Vectors of one invocation of the norm.
const VECTORS_PER_INVOCATION: usize = 4;

/// Elements to which a flat block is padded, so that the second moments start at an aligned offset and in a vector.
const BLOCK_ALIGNMENT: usize = 64;

/// What the host writes before an optimiser's step and may read after it.
#[derive(Debug, Clone, Copy)]
pub struct OptimiserStep {
    /// `[4]`, written before each step: [`Adam::hyper`].
    pub hyper: TensorId,
    /// `[3]`: the gradient's norm, 1 if it was finite, and the scale of the loss.
    pub state: TensorId,
    /// u32 `[2]`, kept, written before the first step: steps skipped so far, and good ones since the scale last changed.
    pub counters: TensorId,
}

/// Appends the update of the flat blocks by the gradients in the block `gradients`, those of a loss that was multiplied by what
/// is in [`Block::LossScale`], which the host writes before the first step. With `averages`, those of the parameters follow
/// ([`MovingAverage`]).
///
/// # Errors
/// [`crate::Error::Shape`] if the graph has no parameters.
pub fn optimiser_step(
    graph: &mut Graph,
    adam: Adam,
    gradients: Block,
    scaling: LossScaling,
    averages: bool,
) -> Result<OptimiserStep> {
    let length = graph.block_elements(Block::Parameters);
    let parameters = graph.block(Block::Parameters, &[length]);
    let gradients = graph.block(gradients, &[length]);
    let moments = graph.block(Block::Moments, &[2, length]);
    let scale = graph.block(Block::LossScale, &[1]);
    let hyper = graph.input("optimiser.hyper", TensorSpec::f32(&[4]));
    let counters = graph.input("optimiser.counters", TensorSpec::u32(&[2]));
    let state = graph.push_one(GradientNorm, &[gradients, scale])?;
    graph.push_into(adam, &[parameters, gradients, moments, state, hyper], &[parameters, moments])?;
    if averages {
        let averages = graph.block(Block::Averages, &[length]);
        graph.push_into(MovingAverage, &[averages, parameters, state, hyper], &[averages])?;
    }
    graph.push_into(scaling, &[state, counters], &[scale, counters])?;
    graph.keep(counters);
    Ok(OptimiserStep { hyper, state, counters })
}

/// `state = (sqrt(sum g^2) / scale, 1 if that is finite else 0, scale)` (torch `clip_grad_norm_`'s total norm, of a loss that
/// was multiplied by `scale`).
///
/// # Shapes
/// - `gradients`: `[P]`
/// - `scale`: `[1]`
/// - `state`: `[3]`
///
/// A sum of squares beyond f32 counts as not finite.
///
/// # Errors
/// [`crate::Error::Shape`] if `gradients` is empty or no multiple of 64.
#[derive(Debug)]
pub struct GradientNorm;

/// `m' = beta1 m + (1 - beta1) g`, `v' = beta2 v + (1 - beta2) g^2`,
/// `w' = w - rate * weight_decay * w - rate * (m' / c1) / (sqrt(v' / c2) + epsilon)` (torch `AdamW`; `Adam` where
/// `weight_decay` is 0), with `g` first divided by the loss' scale and multiplied by `min(1, clip_norm / (norm + 1e-6))` (torch
/// `clip_grad_norm_`).
///
/// Where `state` says that the gradient was not finite, the step is skipped: parameters and moments stay as they are.
///
/// # Shapes
/// - `parameters`, `gradients`: `[P]`, `P` a multiple of 64 (as the flat blocks are)
/// - `moments`: `[2, P]`
/// - `state`: `[3]` from [`GradientNorm`]
/// - `hyper`: `[4]` = (rate, `c1 = 1 - beta1^t`, `c2 = 1 - beta2^t`, for [`MovingAverage`]), from [`Adam::hyper`]
/// - outputs: `parameters`, `moments`, each of which may be the input's memory
///
/// # Errors
/// [`crate::Error::Shape`] if the operands do not fit.
#[derive(Debug, Clone, PartialEq)]
pub struct Adam {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Largest norm of the gradient.
    pub clip_norm: Option<f32>,
    /// What a moving average of the parameters keeps of itself in a step, once there were many.
    pub average_decay: f64,
}

impl Default for Adam {
    /// PyTorch's defaults.
    fn default() -> Self {
        Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0, clip_norm: None, average_decay: 0.0 }
    }
}

impl Adam {
    /// The `hyper` operand of the step that follows `taken_steps` taken (not skipped) ones.
    pub fn hyper(&self, learning_rate: f64, taken_steps: u64) -> [f32; 4] {
        let t = (taken_steps + 1) as f64;
        let correction = |beta: f64| (1.0 - beta.powf(t)) as f32;
        // Early on the average follows closely, for where a model begins is worth nothing.
        let kept = self.average_decay.min((1.0 + t) / (10.0 + t)) as f32;
        [learning_rate as f32, correction(self.beta1), correction(self.beta2), kept]
    }

    fn words(&self, vectors: usize) -> Vec<u32> {
        let floats = [
            self.beta1,
            self.beta2,
            1.0 - self.beta1,
            1.0 - self.beta2,
            self.epsilon,
            self.weight_decay,
            self.clip_norm.map_or(0.0, f64::from),
        ];
        let mut words = vec![vectors as u32, 0, 0, 0];
        words.extend(floats.map(|v| (v as f32).to_bits()));
        words
    }
}

fn check_block(block: &TensorSpec) -> Result<(), String> {
    match block.elements() {
        0 => Err("there are no parameters".to_owned()),
        elements if elements.is_multiple_of(BLOCK_ALIGNMENT) => Ok(()),
        _ => Err(format!("a block must be a multiple of {BLOCK_ALIGNMENT} values")),
    }
}

impl Op for GradientNorm {
    fn name(&self) -> &'static str {
        "gradient_norm"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        match inputs {
            [gradients, scale] if scale.elements() == 1 => {
                check_block(gradients)?;
                Ok(vec![TensorSpec::f32(&[3])])
            }
            _ => Err("needs the gradients and the scale of the loss, [1]".to_owned()),
        }
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let scale = inputs[1].data[0];
        let norm = inputs[0].data.iter().map(|g| g * g).sum::<f64>().sqrt() / scale;
        vec![vec![norm, if norm.is_finite() { 1.0 } else { 0.0 }, scale]]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let windows = context.windows(context.inputs[0].elements(), &[1])?;
        let groups_of =
            |window: &std::ops::Range<usize>| window.len().div_ceil(VECTOR * WORKGROUP * VECTORS_PER_INVOCATION);
        let all_groups: usize = windows.iter().map(groups_of).sum();
        let mut program = Program::default();
        let partials = program.scratch(2 * all_groups);
        let words = |vectors: usize, first_group: usize, groups: usize| {
            let mut words = vec![vectors as u32, VECTORS_PER_INVOCATION as u32, first_group as u32, groups as u32];
            words.resize(11, 0);
            words
        };
        let mut first_group = 0;
        for window in &windows {
            let groups = groups_of(window);
            program.dispatch(
                Kernel::new("adam.wgsl", "gradient_norm_partial"),
                words(window.len() / VECTOR, first_group, groups),
                vec![context.input(0).window(window, 1), Operand::scratch(partials, 2 * all_groups)],
                context.grid(groups),
            );
            first_group += groups;
        }
        program.dispatch(
            Kernel::new("adam.wgsl", "gradient_norm_finish"),
            words(0, 0, all_groups),
            vec![Operand::scratch(partials, 2 * all_groups), context.output(0), context.input(1)],
            [1, 1, 1],
        );
        Ok(program)
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        2 * inputs[0].elements() as u64
    }
}

impl Op for Adam {
    fn name(&self) -> &'static str {
        "adam"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [parameters, gradients, moments, state, hyper] = inputs else {
            return Err("needs parameters, gradients, moments, state and hyper".to_owned());
        };
        check_block(parameters)?;
        let elements = parameters.elements();
        if gradients.elements() != elements || moments.elements() != 2 * elements {
            return Err("gradients must have the parameters' size, moments twice that".to_owned());
        }
        if state.elements() != 3 || hyper.elements() != 4 {
            return Err("state must be [3] and hyper [4]".to_owned());
        }
        Ok(vec![parameters.clone(), moments.clone()])
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let [parameters, gradients, moments, state, hyper] = inputs else { return Vec::new() };
        if state.data[1] == 0.0 {
            return vec![parameters.data.to_vec(), moments.data.to_vec()];
        }
        let clip = self.clip_norm.map_or(1.0, |norm| (f64::from(norm) / (state.data[0] + 1e-6)).min(1.0));
        let scale = clip / state.data[2];
        let (mut m, mut v) = (moments.data.to_vec(), Vec::new());
        v.extend(m.drain(parameters.data.len()..));
        let mut w = parameters.data.to_vec();
        let (rate, correction1, correction2) = (hyper.data[0], hyper.data[1], hyper.data[2]);
        for (i, g) in gradients.data.iter().map(|g| scale * g).enumerate() {
            m[i] = self.beta1 * m[i] + (1.0 - self.beta1) * g;
            v[i] = self.beta2 * v[i] + (1.0 - self.beta2) * g * g;
            w[i] -= rate * self.weight_decay * w[i];
            w[i] -= rate * (m[i] / correction1) / ((v[i] / correction2).sqrt() + self.epsilon);
        }
        m.extend(v);
        vec![w, m]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let elements = context.inputs[0].elements();
        let mut program = Program::default();
        let half = |moments: &Operand, number: usize| {
            let start = moments.elements.start + number * elements;
            Operand { elements: start..start + elements, ..moments.clone() }
        };
        let (old, new) = (context.input(2), context.output(1));
        for window in context.windows(elements, &[1])? {
            program.dispatch(
                Kernel::new("adam.wgsl", "adam_moments"),
                self.words(window.len() / VECTOR),
                vec![
                    context.input(1).window(&window, 1),
                    half(&old, 0).window(&window, 1),
                    half(&old, 1).window(&window, 1),
                    context.input(3),
                    half(&new, 0).window(&window, 1),
                    half(&new, 1).window(&window, 1),
                ],
                context.grid_for(window.len() / VECTOR),
            );
            program.dispatch(
                Kernel::new("adam.wgsl", "adam_parameters"),
                self.words(window.len() / VECTOR),
                vec![
                    context.input(0).window(&window, 1),
                    half(&new, 0).window(&window, 1),
                    half(&new, 1).window(&window, 1),
                    context.input(3),
                    context.input(4),
                    context.output(0).window(&window, 1),
                ],
                context.grid_for(window.len() / VECTOR),
            );
        }
        Ok(program)
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        15 * inputs[0].elements() as u64
    }
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    let step = |name: &str, adam: Adam, scale: f64, finite: bool| {
        Case::new(name, move |b| {
            let elements = 64 * 31;
            let parameters = b.constant_normal("parameters", &[elements]);
            let mut g: Vec<f64> = (0..elements).map(|_| scale * b.rng.normal()).collect();
            if !finite {
                g[1234] = f64::INFINITY;
            }
            let gradients = b.values("gradients", &[elements], g);
            let mut moments: Vec<f64> = (0..2 * elements).map(|_| b.rng.normal()).collect();
            moments[elements..].iter_mut().for_each(|v| *v *= *v);
            let moments = b.values("moments", &[2, elements], moments);
            let hyper = b.values("hyper", &[4], adam.hyper(0.05, 2).map(f64::from).to_vec());
            let scale = b.values("scale", &[1], vec![scale]);
            let state = b.graph.push_one(GradientNorm, &[gradients, scale])?;
            b.graph.push(adam.clone(), &[parameters, gradients, moments, state, hyper])
        })
        .windowed(2048)
    };
    let clipped = Adam { weight_decay: 0.1, clip_norm: Some(0.5), ..Adam::default() };
    let mut cases = vec![
        Case::new("gradient_norm", |b| {
            let gradients = b.constant_normal("gradients", &[70_016]);
            let scale = b.values("scale", &[1], vec![4.0]);
            b.graph.push(GradientNorm, &[gradients, scale])
        })
        .windowed(32_768),
        step("adam", Adam::default(), 1.0, true),
        step("adam with decay and clipping", clipped.clone(), 1.0, true),
        step("adam of a scaled loss", clipped.clone(), 1024.0, true),
        step("adam skips what is not finite", clipped, 1.0, false),
    ];
    cases.extend(loss_scaling::cases());
    cases
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::gpu::{Context, DeviceChoice};
    use crate::graph::execute::{Executor, Memory};
    use crate::graph::plan::Plan;
    use crate::graph::{Init, KernelLimits};

    // import torch
    // def run(cls, clip, **options):
    //     p = torch.nn.Parameter(torch.tensor([0.5, -1.25, 2.0, -0.01]))
    //     o = cls([p], lr=1e-2, **options)
    //     for t, g in enumerate([[0.1, -2.0, 1e-4, 3.0], [-0.3, 0.0, 2e-4, 1.0], [0.7, 5.0, -1e-4, -4.0]]):
    //         o.param_groups[0]["lr"] = 1e-2 * 0.7 ** t
    //         p.grad = torch.tensor(g)
    //         if clip:
    //             torch.nn.utils.clip_grad_norm_([p], clip)
    //         o.step()
    //     print(p.tolist(), o.state[p]["exp_avg"].tolist(), o.state[p]["exp_avg_sq"].tolist())
    // run(torch.optim.Adam, None)
    // run(torch.optim.AdamW, 1.0, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.1)
    const START: [f32; 4] = [0.5, -1.25, 2.0, -0.01];
    const GRADIENTS: [[f32; 4]; 3] = [[0.1, -2.0, 1e-4, 3.0], [-0.3, 0.0, 2e-4, 1.0], [0.7, 5.0, -1e-4, -4.0]];
    const ADAM: [[f32; 4]; 3] = [
        [0.491_376_8, -1.237_274_5, 1.981_186_9, -0.025_686],
        [0.051_1, 0.338, 1.61e-5, -0.067],
        [5.898_901e-4, 2.899_200_7e-2, 5.994_001e-11, 2.598_100_9e-2],
    ];
    const ADAMW_CLIPPED: [[f32; 4]; 3] = [
        [0.495_120_9, -1.234_401_5, 1.977_210_2, -0.028_667_6],
        [-0.020_692_1, 0.084_274_5, 3.11e-5, 0.135_514_5],
        [9.430_64e-4, 9.038_919e-3, 3.732_457e-10, 1.971_899_2e-2],
    ];

    fn three_steps(adam: Adam, expected: [[f32; 4]; 3]) {
        let context = Context::open(&DeviceChoice::Best).unwrap();
        // What overwrites its operands must do so as well where it is bound to them once only.
        for forbids_aliasing in [false, true] {
            let limits = KernelLimits { forbids_aliasing, ..context.limits().clone() };
            three_steps_under(&context, &limits, &adam, expected);
        }
    }

    /// Three steps, with one in between whose gradient is not a number.
    fn three_steps_under(context: &Arc<Context>, limits: &KernelLimits, adam: &Adam, expected: [[f32; 4]; 3]) {
        let mut graph = Graph::new();
        graph.parameter("w", &[4], Init::Constant(0.0)).unwrap();
        let step = optimiser_step(&mut graph, adam.clone(), Block::Gradients, LossScaling::NONE, true).unwrap();
        graph.keep(step.state);
        let plan = Plan::new(&graph, limits).unwrap();
        let memory = Memory::new(context, &[&plan]).unwrap();
        let executor = Executor::new(context, graph, plan, &memory).unwrap();
        let padded = |values: [f32; 4]| {
            let mut block = values.to_vec();
            block.resize(64, 0.0);
            block
        };
        memory.write_block(Block::Parameters, &padded(START)).unwrap();
        memory.write_block(Block::Averages, &padded(START)).unwrap();
        memory.write_block(Block::LossScale, &padded([1.0; 4])).unwrap();
        executor.write(step.counters, &[0u32; 2]).unwrap();
        let run = |gradients: [f32; 4], taken: usize| {
            memory.write_block(Block::Gradients, &padded(gradients)).unwrap();
            executor.write(step.hyper, &adam.hyper(1e-2 * 0.7f64.powi(taken as i32), taken as u64)).unwrap();
            executor.run().unwrap();
        };
        let mut average = START.map(f64::from);
        for (taken, gradients) in GRADIENTS.into_iter().enumerate() {
            if taken == 2 {
                run([1.0, f32::NAN, 0.0, 0.0], taken);
                assert_eq!(executor.read::<f32>(step.state).unwrap()[1], 0.0);
            }
            run(gradients, taken);
            let kept = adam.average_decay.min((taken as f64 + 2.0) / (taken as f64 + 11.0));
            let parameters = memory.read_block(Block::Parameters).unwrap();
            average.iter_mut().zip(parameters).for_each(|(a, w)| *a = kept * *a + (1.0 - kept) * f64::from(w));
        }
        let averages = memory.read_block(Block::Averages).unwrap();
        for (found, expected) in averages.into_iter().zip(average) {
            assert!((f64::from(found) - expected).abs() < 1e-6, "{found} against {expected}");
        }
        assert_eq!(executor.read::<u32>(step.counters).unwrap()[0], 1);
        let norm = executor.read::<f32>(step.state).unwrap();
        assert!((norm[0] - 6.441_273).abs() < 1e-5 && norm[1] == 1.0, "{norm:?}");
        let moments = memory.read_block(Block::Moments).unwrap();
        let found = [&memory.read_block(Block::Parameters).unwrap()[..4], &moments[..4], &moments[64..68]];
        for (found, expected) in found.into_iter().zip(expected) {
            for (found, expected) in found.iter().zip(expected) {
                let slack = 2e-6 * expected.abs() + if expected.abs() > 1e-8 { 1e-7 } else { 0.0 };
                assert!((found - expected).abs() <= slack, "{found} against {expected}");
            }
        }
    }

    #[test]
    fn three_steps_agree_with_torch_adam() {
        three_steps(Adam::default(), ADAM);
    }

    #[test]
    fn three_steps_agree_with_torch_adamw_and_clipping() {
        let adam = Adam {
            beta1: 0.8,
            beta2: 0.99,
            epsilon: 1e-6,
            weight_decay: 0.1,
            clip_norm: Some(1.0),
            average_decay: 0.9,
        };
        three_steps(adam, ADAMW_CLIPPED);
    }

    #[test]
    fn misfits_are_named() {
        let mut graph = Graph::new();
        let step = optimiser_step(&mut graph, Adam::default(), Block::Gradients, LossScaling::NONE, false);
        let error = step.unwrap_err().to_string();
        assert!(error.contains("gradient_norm"), "{error}");
    }
}
