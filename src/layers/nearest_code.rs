//! Vector quantisation: which code of a codebook is nearest to each vector, and how often each is used.

use super::case::{Case, CaseBuilder};
use super::common::expect;
use crate::Result;
use crate::graph::program::WORKGROUP;
use crate::graph::{CpuTensor, DType, Graph, Kernel, Op, OpContext, Operand, Program, Slot, TensorId, TensorSpec};

/// Codes that an invocation compares at once.
const GROUP: usize = 16;

/// Iterations of an invocation, at most.
const MOST_ITERATIONS: usize = 8_192;

/// Values of a codebook, at most, if it has whole groups of 16 codes and whole vectors of 4 channels.
pub const MOST_CODE_VALUES: usize = MOST_ITERATIONS * GROUP * 4;

/// Most codes that are counted: a counter of each fits a workgroup's memory.
const MOST_COUNTED: usize = 4096;

/// Rows that an invocation of a CPU adapter compares at once, or one of a GPU where enough others are left.
const ROWS: usize = 4;

/// Rows from which a GPU has enough invocations with [`ROWS`] each.
const MANY_ROWS: usize = 1 << 19;

/// Rows that an invocation counts; a workgroup touches each counter once for 64 times as many.
const COUNTED_ROWS: usize = 32;

/// `y = argmin_k |z - codebook_k|^2`, the lowest index among equals (the quantisation of VQ-VAE; torch
/// `cdist(z, codebook).argmin(-1)`), without a derivative.
///
/// Computed as `|e|^2 / 2 - z.e`, so codes whose distances differ by less than rounding may change places.
///
/// # Shapes
/// - `z`: `[.., C]`
/// - `codebook`: `[K, C]`, `K * C` up to 2^19
/// - `y`: u32 `[..]`
///
/// # Errors
/// [`crate::Error::Shape`] if the codebook has other channels, or is too large.
#[derive(Debug)]
pub struct NearestCode;

/// Appends [`NearestCode`] to `graph`.
///
/// # Errors
/// [`crate::Error::Shape`] as [`NearestCode`].
pub fn nearest_code(graph: &mut Graph, z: TensorId, codebook: TensorId) -> Result<TensorId> {
    graph.push_one(NearestCode, &[z, codebook])
}

impl Op for NearestCode {
    fn name(&self) -> &'static str {
        "nearest_code"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [z, codebook] = inputs else { return Err("needs 2 operands: z, codebook".to_owned()) };
        expect("z", z, &z.shape)?;
        expect("the codebook", codebook, &[codebook.rows(), z.channels()])?;
        if codebook.rows().div_ceil(GROUP) * z.channels().div_ceil(4) > MOST_ITERATIONS {
            return Err(format!("the codebook is {codebook}, but may have {MOST_CODE_VALUES} values"));
        }
        Ok(vec![TensorSpec::u32(&z.shape[..z.shape.len() - 1])])
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let channels = inputs[1].shape[1];
        let nearest = |z: &[f64]| {
            let distance = |code: &[f64]| z.iter().zip(code).map(|(z, e)| (z - e).powi(2)).sum::<f64>();
            let distances: Vec<f64> = inputs[1].data.chunks(channels).map(distance).collect();
            (1..distances.len()).fold(0, |best, k| if distances[k] < distances[best] { k } else { best }) as f64
        };
        vec![inputs[0].data.chunks(channels).map(nearest).collect()]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let (z, codebook) = (&context.inputs[0], &context.inputs[1]);
        let channels = z.channels();
        let groups = codebook.rows().div_ceil(GROUP);
        let many = context.limits.policy.for_cpu || z.rows() >= MANY_ROWS;
        let rows_each = if many { ROWS } else { ROWS / 2 };
        // What all lanes of a CPU adapter need costs less if each loads a part of it.
        let shared = context.limits.policy.for_cpu && context.limits.min_subgroup_lanes >= 4;
        let lanes = if shared { context.limits.min_subgroup_lanes.min(GROUP) } else { 1 };
        let kernel = |entry| {
            let kernel = Kernel::new("nearest_code.wgsl", entry).define("channels", channels as i64);
            kernel.define("rows", rows_each as i64).define("lanes", lanes as i64)
        };
        let words = |rows: usize| [rows, codebook.rows(), groups].map(|word| word as u32).to_vec();

        let mut program = Program::default();
        let (codes, packed_elements) = (groups * GROUP, groups * GROUP * channels.next_multiple_of(4));
        let packed = Operand::scratch(program.scratch(packed_elements), packed_elements);
        let halves = Operand::scratch(program.scratch(codes), codes);
        let operands = vec![context.input(1), packed.clone(), halves.clone()];
        program.dispatch(kernel("nearest_code_pack"), words(0), operands, context.grid_for(codes));
        for window in context.windows(z.rows(), &[channels, 1])? {
            let operands = vec![
                context.input(0).window(&window, channels),
                packed.clone(),
                halves.clone(),
                context.output(0).window(&window, 1),
            ];
            let grid = context.grid(window.len().div_ceil(WORKGROUP * rows_each));
            program.dispatch(kernel("nearest_code_assign"), words(window.len()), operands, grid);
        }
        Ok(program)
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(0))
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        2 * (inputs[0].rows() * inputs[1].elements()) as u64
    }
}

/// `counts[k]` = how often `k` occurs in `index` (torch `bincount(index, minlength=codes)`), for the perplexity of a codebook.
///
/// An index of `codes` or more counts nowhere.
///
/// # Shapes
/// - `index`: u32 `[..]`
/// - `counts`: u32 `[codes]`, overwritten
///
/// # Errors
/// [`crate::Error::Shape`] if `index` is not u32 or there are more than 4096 codes.
#[derive(Debug)]
pub struct CodeUsage {
    /// K.
    pub codes: usize,
}

/// Appends [`CodeUsage`] to `graph`.
///
/// # Errors
/// [`crate::Error::Shape`] as [`CodeUsage`].
pub fn code_usage(graph: &mut Graph, index: TensorId, codes: usize) -> Result<TensorId> {
    graph.push_one(CodeUsage { codes }, &[index])
}

impl Op for CodeUsage {
    fn name(&self) -> &'static str {
        "nearest_code_usage"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        match inputs {
            [index] if index.dtype == DType::U32 && (1..=MOST_COUNTED).contains(&self.codes) => {
                Ok(vec![TensorSpec::u32(&[self.codes])])
            }
            _ => Err(format!("needs a u32 index of 1 to {MOST_COUNTED} codes, {} given", self.codes)),
        }
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let mut counts = vec![0.0; self.codes];
        for &index in inputs[0].data {
            if let Some(count) = counts.get_mut(index as usize) {
                *count += 1.0;
            }
        }
        vec![counts]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let mut program = Program::default();
        program.clear(context.output(0));
        for window in context.windows(context.inputs[0].elements(), &[1])? {
            let kernel = Kernel::new("nearest_code.wgsl", self.name()).define("codes", self.codes as i64);
            let operands = vec![context.input(0).window(&window, 1), context.output(0)];
            let grid = context.grid(window.len().div_ceil(WORKGROUP * COUNTED_ROWS));
            program.dispatch(kernel, vec![window.len() as u32, COUNTED_ROWS as u32], operands, grid);
        }
        Ok(program)
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        inputs[0].elements() as u64
    }
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    let nearest = |name: &str, rows: &'static [usize], codes: usize, channels: usize| {
        Case::new(format!("nearest_code {name}"), move |b| {
            let z = b.constant_normal("z", &[rows, &[channels]].concat());
            let codebook = b.constant_normal("codebook", &[codes, channels]);
            Ok(vec![nearest_code(&mut b.graph, z, codebook)?])
        })
    };
    vec![
        nearest("odd", &[3, 5, 7], 13, 5),
        nearest("windows", &[2, 601], 40, 8).windowed(8_192),
        nearest("of many codes", &[301], 512, 32),
        nearest("of one code", &[9], 1, 3),
        Case::new("nearest_code ties", |b| {
            let few = |b: &mut CaseBuilder, count| (0..count).map(|_| b.rng.below(2) as f64).collect();
            let (z, codebook) = (few(b, 200 * 3), few(b, 21 * 3));
            let (z, codebook) = (b.values("z", &[200, 3], z), b.values("codebook", &[21, 3], codebook));
            Ok(vec![nearest_code(&mut b.graph, z, codebook)?])
        }),
        Case::new("nearest_code usage", |b| {
            // Some are no code.
            let index = b.labels("index", &[5, 999], 70);
            Ok(vec![code_usage(&mut b.graph, index, 67)?])
        })
        .windowed(8_192),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misfits_are_named() {
        let mut graph = Graph::new();
        let z = graph.input("z", TensorSpec::f32(&[9, 256]));
        let (other, large) = ([4, 8], [4096, 256]);
        let [other, large] = [other, large].map(|shape| graph.input("codebook", TensorSpec::f32(&shape)));
        let message = |result: Result<TensorId>| result.unwrap_err().to_string();
        assert!(message(nearest_code(&mut graph, z, other)).contains("must be [4, 256]"));
        assert!(message(nearest_code(&mut graph, z, large)).contains("may have 524288 values"));
        assert!(message(code_usage(&mut graph, z, 8)).contains("u32 index"));
    }
}
