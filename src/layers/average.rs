//! Sums over the batches of a step, and averages over the steps.

use super::case::Case;
use crate::Result;
use crate::graph::{Block, CpuTensor, Graph, Kernel, Op, OpContext, Program, TensorId, TensorSpec};

/// Elements that kernels load at once where there are whole vectors.
const VECTOR: usize = 4;

/// `sum' = x` where `first` is 1, else `sum + x`: torch's `p.grad += ..` over several batches.
///
/// # Shapes
/// - `sum`, `x`: of one size
/// - `first`: u32 `[1]`
/// - output: as `sum`, whose memory it may be
#[derive(Debug)]
pub struct Accumulate;

/// `average' = kept average + (1 - kept) w` (torch `AveragedModel` with `get_ema_multi_avg_fn(kept)`), where `state` says that
/// the step was not skipped.
///
/// # Shapes
/// - `average`, `w`: `[P]`, `P` a multiple of 64
/// - `state`: `[3]` from [`GradientNorm`](super::adam::GradientNorm)
/// - `hyper`: `[4]`, the last of which is `kept`, from [`Adam::hyper`](super::adam::Adam::hyper)
/// - output: as `average`, whose memory it may be
#[derive(Debug)]
pub struct MovingAverage;

/// Adds what is in a flat block to another of the same size, or overwrites that where `first` (u32 `[1]`) is 1.
///
/// # Errors
/// [`crate::Error::Shape`] if the operands do not fit.
pub fn accumulate(graph: &mut Graph, [from, to]: [Block; 2], elements: usize, first: TensorId) -> Result<()> {
    let (from, to) = (graph.block(from, &[elements]), graph.block(to, &[elements]));
    graph.push_into(Accumulate, &[to, from, first], &[to])
}

/// Launches over two operands `[P]` and an output, with the small ones after them.
fn program(context: &OpContext, entry: &'static str) -> Result<Program> {
    let count = context.outputs[0].elements();
    let width = if count.is_multiple_of(VECTOR) { VECTOR } else { 1 };
    let mut program = Program::default();
    for window in context.windows(count, &[1])? {
        let mut operands: Vec<_> = (0..2).map(|i| context.input(i).window(&window, 1)).collect();
        operands.push(context.output(0).window(&window, 1));
        operands.extend((2..context.inputs.len()).map(|i| context.input(i)));
        let kernel = Kernel::new("average.wgsl", entry).define("width", width as i64);
        let vectors = window.len() / width;
        program.dispatch(kernel, vec![vectors as u32], operands, context.grid_for(vectors));
    }
    Ok(program)
}

impl Op for Accumulate {
    fn name(&self) -> &'static str {
        "accumulate"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        match inputs {
            [sum, x, first] if sum.elements() == x.elements() && *first == TensorSpec::u32(&[1]) => {
                Ok(vec![sum.clone()])
            }
            _ => Err("needs a sum, what is added to it, of the same size, and first, u32 [1]".into()),
        }
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let kept = if inputs[2].data[0] == 1.0 { 0.0 } else { 1.0 };
        vec![inputs[0].data.iter().zip(inputs[1].data).map(|(sum, x)| kept * sum + x).collect()]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        program(context, self.name())
    }
}

impl Op for MovingAverage {
    fn name(&self) -> &'static str {
        "moving_average"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        match inputs {
            [average, w, state, hyper]
                if average.elements() == w.elements() && state.elements() == 3 && hyper.elements() == 4 =>
            {
                Ok(vec![average.clone()])
            }
            _ => Err("needs an average, what is averaged, of the same size, state [3] and hyper [4]".into()),
        }
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let kept = if inputs[2].data[1] > 0.5 { inputs[3].data[3] } else { 1.0 };
        vec![inputs[0].data.iter().zip(inputs[1].data).map(|(average, w)| kept * average + (1.0 - kept) * w).collect()]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        program(context, self.name())
    }
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    let sum = |elements: usize, first: u32| {
        Case::new(format!("accumulate {elements}, first {first}"), move |b| {
            let operands = ["sum", "x"].map(|name| b.constant_normal(name, &[elements]));
            let first = b.words("first", &[1], &[first]);
            b.graph.push(Accumulate, &[operands[0], operands[1], first])
        })
    };
    let average = |finite: f64| {
        Case::new(format!("moving_average, finite {finite}"), move |b| {
            let operands = ["average", "w"].map(|name| b.constant_normal(name, &[64 * 31]));
            let state = b.values("state", &[3], vec![1.5, finite, 1.0]);
            let hyper = b.values("hyper", &[4], vec![0.05, 0.1, 0.001, 0.875]);
            b.graph.push(MovingAverage, &[operands[0], operands[1], state, hyper])
        })
        .windowed(2048)
    };
    vec![sum(64 * 31, 0).windowed(2048), sum(13, 0), sum(5, 1), average(1.0), average(0.0)]
}
