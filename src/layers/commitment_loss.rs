//! What trains a codebook and what it quantises: the straight-through estimator and the embedding loss of VQ-VAE
//! (van den Oord et al., NeurIPS 2017).

use super::case::Case;
use super::common::expect;
use crate::Result;
use crate::graph::program::{WORKGROUP, vector_width};
use crate::graph::{CpuTensor, Graph, Kernel, Node, Op, OpContext, Operand, Program, Slot, TensorId, TensorSpec};

/// Vectors of one invocation, at most, and workgroups that keep a GPU busy.
const MOST_VECTORS: usize = 64;
const ENOUGH_WORKGROUPS: usize = 1024;

fn kernel(entry: &'static str, width: usize) -> Kernel {
    Kernel::new("commitment_loss.wgsl", entry).define("width", width as i64)
}

/// `y = zq`, through which the gradient passes to `z` as if it were `y = z` (torch `z + (zq - z).detach()`).
///
/// # Shapes
/// - `z`, `zq`, `y`: `[..]`, the same
///
/// Saves nothing; may overwrite `zq`. `d_z` is `d_y`, and there is no `d_zq`.
///
/// # Errors
/// [`crate::Error::Shape`] if the shapes differ.
#[derive(Debug)]
pub struct StraightThrough;

/// Appends [`StraightThrough`] to `graph`.
///
/// # Errors
/// [`crate::Error::Shape`] if the shapes differ.
pub fn straight_through(graph: &mut Graph, z: TensorId, zq: TensorId) -> Result<TensorId> {
    graph.push_one(StraightThrough, &[z, zq])
}

impl Op for StraightThrough {
    fn name(&self) -> &'static str {
        "straight_through"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [z, zq] = inputs else { return Err("needs 2 operands: z, zq".to_owned()) };
        expect("zq", zq, &z.shape)?;
        Ok(vec![zq.clone()])
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        vec![inputs[1].data.to_vec()]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let count = context.outputs[0].elements();
        let width = vector_width(count);
        let mut program = Program::default();
        for window in context.windows(count, &[1])? {
            let vectors = window.len() / width;
            let kernel = Kernel::new("pointwise.wgsl", "scale").define("width", width as i64);
            let operands = vec![context.input(1).window(&window, 1), context.output(0).window(&window, 1)];
            program.dispatch(kernel, vec![vectors as u32, 1f32.to_bits()], operands, context.grid_for(vectors));
        }
        Ok(program)
    }

    fn backward(
        &self,
        _: &mut Graph,
        _: &Node,
        d_outputs: &[Option<TensorId>],
        _: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        Ok(vec![d_outputs[0], None])
    }

    fn in_place(&self) -> Option<(usize, usize)> {
        Some((0, 1))
    }

    fn takes_half(&self, _: Slot) -> bool {
        true
    }

    fn flops(&self, _: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        0
    }
}

/// `loss = mean((sg(zq) - z)^2) + beta * mean((zq - sg(z))^2)`, `sg` being the identity without a gradient (torch
/// `mse_loss(z, zq.detach()) + beta * mse_loss(zq, z.detach())`).
///
/// The first term pulls `z` to its code, the second the code to `z`.
///
/// # Shapes
/// - `z`, `zq`: `[..]`, the same
/// - `loss`: `[1]`
///
/// Saves both. The backward pass overwrites `d_z` (perhaps in `z`'s place) and `d_zq` (perhaps in `zq`'s).
///
/// # Errors
/// [`crate::Error::Shape`] if the shapes differ.
#[derive(Debug)]
pub struct CommitmentLoss {
    /// Weight of the codes' term.
    pub beta: f32,
}

/// Appends [`CommitmentLoss`] to `graph`.
///
/// # Errors
/// [`crate::Error::Shape`] if the shapes differ.
pub fn commitment_loss(graph: &mut Graph, z: TensorId, zq: TensorId, beta: f32) -> Result<TensorId> {
    graph.push_one(CommitmentLoss { beta }, &[z, zq])
}

impl Op for CommitmentLoss {
    fn name(&self) -> &'static str {
        "commitment_loss_forward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [z, zq] = inputs else { return Err("needs 2 operands: z, zq".to_owned()) };
        expect("zq", zq, &z.shape)?;
        Ok(vec![TensorSpec::f32(&[1])])
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let (z, zq) = (inputs[0].data, inputs[1].data);
        let squares: f64 = z.iter().zip(zq).map(|(z, zq)| (z - zq).powi(2)).sum();
        vec![vec![(1.0 + f64::from(self.beta)) * squares / z.len() as f64]]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let count = context.inputs[0].elements();
        let width = vector_width(count);
        let each = (count / width / (WORKGROUP * ENOUGH_WORKGROUPS)).clamp(1, MOST_VECTORS);
        let windows = context.windows(count, &[1])?;
        let groups_of = |window: &std::ops::Range<usize>| (window.len() / width).div_ceil(WORKGROUP * each);
        let all_groups: usize = windows.iter().map(groups_of).sum();
        let mut program = Program::default();
        let partials = Operand::scratch(program.scratch(all_groups), all_groups);
        let mut first_group = 0;
        for window in &windows {
            let groups = groups_of(window);
            let words = [window.len() / width, each, first_group, groups, 0].map(|word| word as u32).to_vec();
            let operands =
                vec![context.input(0).window(window, 1), context.input(1).window(window, 1), partials.clone()];
            program.dispatch(kernel("commitment_loss_forward", width), words, operands, context.grid(groups));
            first_group += groups;
        }
        let factor = (1.0 + self.beta) / count as f32;
        let words = vec![0, 0, 0, all_groups as u32, factor.to_bits()];
        let operands = vec![partials, context.output(0)];
        program.dispatch(kernel("commitment_loss_merge", width), words, operands, [1, 1, 1]);
        Ok(program)
    }

    fn backward(
        &self,
        graph: &mut Graph,
        node: &Node,
        d_outputs: &[Option<TensorId>],
        needs: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        let mut d_inputs = vec![None; 2];
        let Some(d_loss) = d_outputs[0] else { return Ok(d_inputs) };
        for (i, weight) in [1.0, self.beta].into_iter().enumerate() {
            if needs[i] {
                let operands = [node.inputs[i], node.inputs[1 - i], d_loss];
                d_inputs[i] = Some(graph.push_one(CommitmentLossBackward { weight }, &operands)?);
            }
        }
        Ok(d_inputs)
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(_))
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        3 * inputs[0].elements() as u64
    }
}

/// `d_x = 2 * weight / n * d_loss * (x - target)`: the gradient of `weight * mean((x - target)^2)` of `n` elements, from `x`,
/// `target` and `d_loss`.
#[derive(Debug)]
pub struct CommitmentLossBackward {
    /// Of the term.
    pub weight: f32,
}

impl Op for CommitmentLossBackward {
    fn name(&self) -> &'static str {
        "commitment_loss_backward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [x, target, d_loss] = inputs else { return Err("needs 3 operands: x, target, d_loss".to_owned()) };
        expect("the target", target, &x.shape)?;
        expect("d_loss", d_loss, &[1])?;
        Ok(vec![x.clone()])
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let factor = 2.0 * f64::from(self.weight) / inputs[0].data.len() as f64 * inputs[2].data[0];
        vec![inputs[0].data.iter().zip(inputs[1].data).map(|(x, target)| factor * (x - target)).collect()]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let count = context.inputs[0].elements();
        let width = vector_width(count);
        let factor = 2.0 * self.weight / count as f32;
        let mut program = Program::default();
        for window in context.windows(count, &[1])? {
            let vectors = window.len() / width;
            let operands = vec![
                context.input(0).window(&window, 1),
                context.input(1).window(&window, 1),
                context.input(2),
                context.output(0).window(&window, 1),
            ];
            let words = vec![vectors as u32, 0, 0, 0, factor.to_bits()];
            let grid = context.grid_for(vectors);
            program.dispatch(kernel("commitment_loss_backward", width), words, operands, grid);
        }
        Ok(program)
    }

    fn in_place(&self) -> Option<(usize, usize)> {
        Some((0, 0))
    }

    fn takes_half(&self, operand: Slot) -> bool {
        operand != Slot::Input(2)
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        2 * inputs[0].elements() as u64
    }
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    const STOPPED: &str = "stops gradients, so that its derivative is not its function's";
    let loss = |name: &str, shape: &'static [usize]| {
        Case::new(format!("commitment_loss{name}"), move |b| {
            let (z, zq) = (b.normal("z", shape), b.normal("zq", shape));
            Ok(vec![commitment_loss(&mut b.graph, z, zq, 0.25)?])
        })
        .windowed(4_096)
        .without_central_difference(STOPPED)
    };
    vec![
        loss("", &[7, 11, 31]),
        loss(" in fours", &[5, 61, 12]),
        Case::new("straight_through", |b| {
            let (z, zq) = (b.normal("z", &[5, 61, 3]), b.normal("zq", &[5, 61, 3]));
            Ok(vec![straight_through(&mut b.graph, z, zq)?])
        })
        .windowed(2_048)
        .without_central_difference(STOPPED),
    ]
}
