//! What an adapter can do at best: kernels of nothing but multiply-adds, or nothing but memory traffic. No model uses them;
//! [`crate::roofline`] times them.

use crate::Result;
use crate::graph::{CpuTensor, Graph, Kernel, Op, OpContext, Program, TensorId, TensorSpec};
use crate::selftest::Case;

/// Independent chains of multiply-adds in one invocation.
const CHAINS: usize = 12;
/// Multiply-adds of a chain between two tests of the loop's end.
const ROUNDS: usize = 16;
/// Below the 65,535 iterations at which software drivers stop without a word.
const MOST_ITERATIONS: usize = 1 << 14;
/// Chains converge to `ADDEND / (1 - FACTOR)`, so that nothing overflows however long they are.
const FACTOR: f32 = 0.99;
const ADDEND: f32 = 0.01;

/// Elements of a row, the unit in which tensors are cut into windows.
pub const ROW: usize = 64;

/// Appends [`Ceiling::MultiplyAdd`] of `iterations` iterations.
///
/// # Errors
/// [`crate::Error::Shape`] if `x` is not in rows of 64 elements, or for too many iterations.
pub fn multiply_add(graph: &mut Graph, x: TensorId, iterations: usize) -> Result<TensorId> {
    graph.push_one(Ceiling::MultiplyAdd { iterations }, &[x])
}

/// Appends [`Ceiling::Copy`].
///
/// # Errors
/// [`crate::Error::Shape`] if `x` is not in rows of 64 elements.
pub fn copy(graph: &mut Graph, x: TensorId) -> Result<TensorId> {
    graph.push_one(Ceiling::Copy, &[x])
}

/// Element by element, and without a derivative.
///
/// # Shapes
/// - `x`, `y`: `[R, 64]`
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ceiling {
    /// `y = sum over chains j of f(f(...f(x + j)))`, `f(c) = 0.99 c + 0.01`, 16 times an iteration.
    MultiplyAdd {
        /// Times that the loop runs.
        iterations: usize,
    },
    /// `y = x`.
    Copy,
}

impl Op for Ceiling {
    fn name(&self) -> &'static str {
        match self {
            Ceiling::MultiplyAdd { .. } => "ceiling_multiply_add",
            Ceiling::Copy => "ceiling_copy",
        }
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [x] = inputs else { return Err("needs one operand".into()) };
        match self {
            _ if *x != TensorSpec::f32(&[x.rows(), ROW]) || x.elements() == 0 => {
                Err(format!("needs rows of {ROW} f32"))
            }
            Ceiling::MultiplyAdd { iterations } if *iterations > MOST_ITERATIONS => {
                Err(format!("loops at most {MOST_ITERATIONS} times, not {iterations}"))
            }
            _ => Ok(vec![x.clone()]),
        }
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let Ceiling::MultiplyAdd { iterations } = *self else { return vec![inputs[0].data.to_vec()] };
        let chain = |mut c: f64| {
            for _ in 0..iterations * ROUNDS {
                c = c * f64::from(FACTOR) + f64::from(ADDEND);
            }
            c
        };
        vec![inputs[0].data.iter().map(|x| (0..CHAINS).map(|j| chain(x + j as f64)).sum()).collect()]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let kernel = Kernel::new("ceiling.wgsl", self.name());
        let (kernel, width, iterations) = match *self {
            Ceiling::MultiplyAdd { iterations } => {
                (kernel.define("chains", CHAINS as i64).define("rounds", ROUNDS as i64), 1, iterations)
            }
            Ceiling::Copy => (kernel, 4, 0),
        };
        let kernel = kernel.define("width", width as i64);
        let mut program = Program::default();
        for window in context.windows(context.inputs[0].rows(), &[ROW])? {
            let count = window.len() * ROW / width;
            let words = vec![count as u32, iterations as u32, FACTOR.to_bits(), ADDEND.to_bits()];
            let operands = vec![context.input(0).window(&window, ROW), context.output(0).window(&window, ROW)];
            program.dispatch(kernel.clone(), words, operands, context.grid_for(count));
        }
        Ok(program)
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        match self {
            Ceiling::MultiplyAdd { iterations } => (2 * CHAINS * ROUNDS * iterations * inputs[0].elements()) as u64,
            Ceiling::Copy => 0,
        }
    }
}

/// The cases for the self-test.
pub fn cases() -> Vec<Case> {
    let case = |name: &str, rows: usize, op: Ceiling| {
        Case::new(format!("ceiling {name}"), move |b| {
            let x = b.constant_normal("x", &[rows, ROW]);
            Ok(vec![b.graph.push_one(op, &[x])?])
        })
    };
    vec![
        case("multiply-add once", 3, Ceiling::MultiplyAdd { iterations: 1 }),
        case("multiply-add", 3, Ceiling::MultiplyAdd { iterations: 3 }),
        case("copy", 5, Ceiling::Copy),
        case("copy in windows", 9, Ceiling::Copy).windowed(1024),
    ]
}
