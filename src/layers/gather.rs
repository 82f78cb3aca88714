//! Rows of a table by their numbers, and one token of a sequence.

use super::case::Case;
use super::common::expect;
use super::concat::slice;
use super::reduce::{Chunks, sum_chunks};
use crate::Result;
use crate::graph::program::vector_width;
use crate::graph::{
    CpuTensor, DType, Graph, Kernel, Node, Op, OpContext, Operand, Program, Slot, TensorId, TensorSpec, WORD_BYTES,
};

/// Rows of a first-stage sum, at least: fewer make more partial tables than they save time.
const ROWS_PER_CHUNK: usize = 256;

/// Rows that an invocation adds in one launch, at most; a chunk with more takes several launches.
const MOST_ROWS: usize = 16_384;

/// Partial tables, at most: on a GPU, which has many invocations to keep busy, and on a CPU adapter.
const MOST_CHUNKS: usize = 512;
const MOST_CHUNKS_CPU: usize = 16;

/// Elements of all partial tables together, at most, unless one alone has more (32 MiB).
const PARTIAL_ELEMENTS: usize = 1 << 23;

fn kernel(entry: &'static str, width: usize) -> Kernel {
    Kernel::new("gather.wgsl", entry).define("width", width as i64)
}

fn check_index(index: &TensorSpec) -> Result<(), String> {
    if index.dtype == DType::U32 && index.elements() > 0 { Ok(()) } else { Err(format!("index is {index}, not u32")) }
}

fn with_channels(index: &TensorSpec, channels: usize) -> Vec<usize> {
    index.shape.iter().copied().chain([channels]).collect()
}

/// `y[..] = table[index[..]]` (torch `nn.functional.embedding`).
///
/// An index of `K` or more gives zeros.
///
/// # Shapes
/// - `table`: `[K, C]`
/// - `index`: u32 `[..]`
/// - `y`: `[.., C]`
///
/// Saves `index`. The backward pass overwrites `d_table`.
///
/// # Errors
/// [`crate::Error::Shape`] if an operand has another shape or type.
#[derive(Debug)]
pub struct Gather;

/// Appends [`Gather`] to `graph`.
///
/// # Errors
/// [`crate::Error::Shape`] if an operand has another shape or type.
pub fn gather(graph: &mut Graph, table: TensorId, index: TensorId) -> Result<TensorId> {
    graph.push_one(Gather, &[table, index])
}

/// Token `i` of each sequence (torch `x[..., i, :]`): a slice of all tokens' channels.
///
/// # Shapes
/// - `x`: `[.., L, C]`
/// - result: `[.., C]`
///
/// # Errors
/// [`crate::Error::Shape`] if `x` has fewer than two axes or no token `i`.
pub fn take_token(graph: &mut Graph, x: TensorId, i: usize) -> Result<TensorId> {
    let &[ref sequences @ .., tokens, channels] = graph.shape(x) else {
        return Err(crate::Error::Shape(format!("{} has no tokens; needed is [.., L, C]", graph.describe(x))));
    };
    let shape = [sequences, &[tokens * channels]].concat();
    let flat = graph.reshape(x, &shape)?;
    slice(graph, flat, i * channels, channels)
}

impl Op for Gather {
    fn name(&self) -> &'static str {
        "gather_forward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [table, index] = inputs else { return Err("needs 2 operands: table, index".to_owned()) };
        check_index(index)?;
        let &[entries, channels] = &table.shape[..] else {
            return Err(format!("the table is {table} but must be [K, C]"));
        };
        expect("the table", table, &[entries, channels])?;
        Ok(vec![TensorSpec::f32(&with_channels(index, channels))])
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let channels = inputs[0].shape[1];
        let entries: Vec<&[f64]> = inputs[0].data.chunks(channels).collect();
        let zeros = vec![0.0; channels];
        let row = |&number: &f64| entries.get(number as usize).copied().unwrap_or(&zeros);
        vec![inputs[1].data.iter().flat_map(row).copied().collect()]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let y = &context.outputs[0];
        let channels = y.channels();
        let width = vector_width(channels);
        let mut program = Program::default();
        for window in context.windows(y.rows(), &[1, channels])? {
            let parameters = [window.len(), channels / width, context.inputs[0].rows()].map(|v| v as u32).to_vec();
            let operands = vec![
                context.input(1).window(&window, 1),
                context.output(0).window(&window, channels),
                context.input(0),
            ];
            let grid = context.grid_for(window.len() * channels / width);
            program.dispatch(kernel("gather_forward", width), parameters, operands, grid);
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
        let Some(d_y) = d_outputs[0].filter(|_| needs[0]) else { return Ok(vec![None; 2]) };
        let entries = graph.shape(node.inputs[0])[0];
        Ok(vec![Some(graph.push_one(GatherBackward { entries }, &[node.inputs[1], d_y])?), None])
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Output(0))
    }

    fn flops(&self, _: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        0
    }
}

/// `d_table[k] = sum of d_y over the rows whose index is k`, from `index` and `d_y`.
///
/// Deterministic without atomics: each chunk of rows is added, in order, to a table of its own, and a second stage adds the
/// tables.
///
/// # Shapes
/// - `index`: u32 `[..]`
/// - `d_y`: `[.., C]`
/// - `d_table`: `[K, C]`
#[derive(Debug)]
pub struct GatherBackward {
    /// K.
    pub entries: usize,
}

impl Op for GatherBackward {
    fn name(&self) -> &'static str {
        "gather_backward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [index, d_y] = inputs else { return Err("needs 2 operands: index, d_y".to_owned()) };
        check_index(index)?;
        expect("d_y", d_y, &with_channels(index, d_y.channels()))?;
        Ok(vec![TensorSpec::f32(&[self.entries, d_y.channels()])])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let channels = outputs[0].channels();
        let mut d_table = vec![0.0; outputs[0].elements()];
        for (&number, d_y) in inputs[0].data.iter().zip(inputs[1].data.chunks(channels)) {
            if let Some(sums) = d_table.chunks_mut(channels).nth(number as usize) {
                sums.iter_mut().zip(d_y).for_each(|(sum, d)| *sum += d);
            }
        }
        vec![d_table]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let (rows, channels) = (context.inputs[1].rows(), context.inputs[1].channels());
        let table = self.entries * channels;
        let width = vector_width(channels);
        let most = if context.limits.policy.for_cpu { MOST_CHUNKS_CPU } else { MOST_CHUNKS };
        let fitting = PARTIAL_ELEMENTS.min(context.limits.max_storage_binding_bytes / WORD_BYTES) / table;
        let chunks = rows.div_ceil(ROWS_PER_CHUNK).min(most).min(fitting.max(1));

        let mut program = Program::default();
        let slot = program.scratch(chunks * table);
        let partial = Operand::scratch(slot, chunks * table);
        program.clear(partial.clone());
        for window in context.windows(rows, &[1, channels])? {
            for first in (0..window.len()).step_by(chunks * MOST_ROWS) {
                let rows = (window.len() - first).min(chunks * MOST_ROWS);
                let words = [rows, channels / width, self.entries, first, chunks, rows.div_ceil(chunks)];
                let operands = vec![
                    context.input(0).window(&window, 1),
                    context.input(1).window(&window, channels),
                    partial.clone(),
                ];
                let grid = context.grid_for(chunks * channels / width);
                let parameters = words.map(|word| word as u32).to_vec();
                program.dispatch(kernel("gather_backward", width), parameters, operands, grid);
            }
        }
        let sums = Chunks { chunks, stride: table, first: 0, target: 0, count: table, accumulate: false };
        sum_chunks(&mut program, context, sums, partial, context.output(0));
        Ok(program)
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(1))
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        inputs[1].elements() as u64
    }
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    let case = |name: &str, rows: &'static [usize], [entries, channels]: [usize; 2], bound: usize| {
        Case::new(format!("gather {name}"), move |b| {
            let table = b.normal("table", &[entries, channels]);
            let index = b.labels("index", rows, bound);
            Ok(vec![gather(&mut b.graph, table, index)?])
        })
    };
    vec![
        case("odd", &[3, 7, 5], [11, 5], 11),
        case("windows", &[2, 401], [12, 8], 12).windowed(8_192),
        case("several chunks", &[3001], [64, 12], 64),
        case("beyond the table", &[5, 9], [4, 6], 6),
        Case::new("take_token", |b| {
            let x = b.normal("x", &[3, 5, 4, 7]);
            Ok(vec![take_token(&mut b.graph, x, 2)?])
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misfits_are_named() {
        let mut graph = Graph::new();
        let table = graph.input("table", TensorSpec::f32(&[4, 3]));
        let floats = graph.input("floats", TensorSpec::f32(&[5]));
        assert!(gather(&mut graph, table, floats).unwrap_err().to_string().contains("index is [5], not u32"));
        assert!(take_token(&mut graph, table, 4).unwrap_err().to_string().contains("channels 12..15 wanted"));
        assert!(take_token(&mut graph, floats, 0).unwrap_err().to_string().contains("needed is [.., L, C]"));
    }
}
