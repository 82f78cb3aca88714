//! What an adapter can do at best: kernels of nothing but multiply-adds, of numbers or matrices, or nothing but memory traffic.
//! No model uses them; [`crate::roofline`] times them.

use super::case::Case;
use crate::Result;
use crate::graph::{CpuTensor, Graph, Kernel, Op, OpContext, Program, TensorId, TensorSpec};

/// Independent chains of multiply-adds in one invocation, or of matrices in one subgroup.
const CHAINS: usize = 12;
const MATRIX_CHAINS: usize = 8;
/// Sides of these matrices, and how many a workgroup has.
const SIDE: usize = 16;
const MATRICES: usize = 4;
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

/// Appends [`Ceiling::Matrices`] of `iterations` iterations.
///
/// # Errors
/// [`crate::Error::Shape`] if `x` is not in fours of rows of 64 elements, or for too many iterations.
pub fn multiply_matrices(graph: &mut Graph, x: TensorId, iterations: usize) -> Result<TensorId> {
    graph.push_one(Ceiling::Matrices { iterations }, &[x])
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
    /// Four rows are a matrix `A [16, 16]`, whose product is of f16: `y = sum over chains j of A + (n + j) A A`, where `n` is 16
    /// times the iterations.
    Matrices {
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
            Ceiling::Matrices { .. } => "ceiling_matrices",
            Ceiling::Copy => "ceiling_copy",
        }
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [x] = inputs else { return Err("needs one operand".into()) };
        match self {
            _ if *x != TensorSpec::f32(&[x.rows(), ROW]) || x.elements() == 0 => {
                Err(format!("needs rows of {ROW} f32"))
            }
            Ceiling::Matrices { .. } if !x.elements().is_multiple_of(SIDE * SIDE) => Err("needs rows in fours".into()),
            Ceiling::MultiplyAdd { iterations } | Ceiling::Matrices { iterations } if *iterations > MOST_ITERATIONS => {
                Err(format!("loops at most {MOST_ITERATIONS} times, not {iterations}"))
            }
            _ => Ok(vec![x.clone()]),
        }
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let iterations = match *self {
            Ceiling::Copy => return vec![inputs[0].data.to_vec()],
            Ceiling::Matrices { iterations } => return vec![squares(inputs[0].data, iterations)],
            Ceiling::MultiplyAdd { iterations } => iterations,
        };
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
        let chained = |chains: usize| kernel.clone().define("chains", chains as i64).define("rounds", ROUNDS as i64);
        let (kernel, width, iterations) = match *self {
            Ceiling::MultiplyAdd { iterations } => (chained(CHAINS), 1, iterations),
            Ceiling::Matrices { iterations } => {
                let has_units = context.limits.has_matrix_units;
                (chained(MATRIX_CHAINS).define("matrix_units", i64::from(has_units)), 4, iterations)
            }
            Ceiling::Copy => (kernel, 4, 0),
        };
        let kernel = kernel.define("width", width as i64);
        let mut program = Program::default();
        let is_matrix = matches!(self, Ceiling::Matrices { .. });
        let unit = if is_matrix { SIDE * SIDE } else { ROW };
        for window in context.windows(context.inputs[0].elements() / unit, &[unit])? {
            let count = window.len() * unit / width;
            let words = vec![count as u32, iterations as u32, FACTOR.to_bits(), ADDEND.to_bits()];
            let operands = vec![context.input(0).window(&window, unit), context.output(0).window(&window, unit)];
            let workgroups =
                if is_matrix { context.grid(window.len().div_ceil(MATRICES)) } else { context.grid_for(count) };
            program.dispatch(kernel.clone(), words, operands, workgroups);
        }
        Ok(program)
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        match self {
            Ceiling::MultiplyAdd { iterations } => (2 * CHAINS * ROUNDS * iterations * inputs[0].elements()) as u64,
            Ceiling::Matrices { iterations } => {
                let products = MATRIX_CHAINS * (ROUNDS * iterations + 1) - 1;
                (2 * SIDE * products * inputs[0].elements()) as u64
            }
            Ceiling::Copy => 0,
        }
    }
}

/// What [`Ceiling::Matrices`] gives.
fn squares(x: &[f64], iterations: usize) -> Vec<f64> {
    let (chains, n) = (MATRIX_CHAINS as f64, (ROUNDS * iterations) as f64);
    let times = chains * n + chains * (chains - 1.0) / 2.0;
    let rounded = |value: f64| half::f16::from_f64(value).to_f64();
    let square = |matrix: &[f64], i: usize| -> f64 {
        (0..SIDE).map(|k| rounded(matrix[i / SIDE * SIDE + k]) * rounded(matrix[k * SIDE + i % SIDE])).sum()
    };
    let of = |matrix: &[f64]| -> Vec<f64> {
        (0..matrix.len()).map(|i| chains * matrix[i] + times * square(matrix, i)).collect()
    };
    x.chunks(SIDE * SIDE).flat_map(of).collect()
}

/// The cases for the self-test.
pub fn cases() -> Vec<Case> {
    let case = |name: &str, rows: usize, op: Ceiling| {
        Case::new(format!("ceiling {name}"), move |b| {
            let x = b.constant_normal("x", &[rows, ROW]);
            Ok(vec![b.graph.push_one(op, &[x])?])
        })
    };
    // Of values that f16 has, as drivers may round the others either way.
    let matrices = |name: &str, count: usize, iterations: usize| {
        Case::new(format!("ceiling {name}"), move |b| {
            let elements = count * SIDE * SIDE;
            let values = (0..elements).map(|i| (i * 37 % 129) as f64 / 64.0 - 1.0).collect();
            let x = b.values("x", &[elements / ROW, ROW], values);
            Ok(vec![multiply_matrices(&mut b.graph, x, iterations)?])
        })
    };
    vec![
        case("multiply-add once", 3, Ceiling::MultiplyAdd { iterations: 1 }),
        case("multiply-add", 3, Ceiling::MultiplyAdd { iterations: 3 }),
        matrices("matrices once", 1, 1),
        matrices("matrices", 7, 3).windowed(4096),
        case("copy", 5, Ceiling::Copy),
        case("copy in windows", 9, Ceiling::Copy).windowed(1024),
    ]
}
