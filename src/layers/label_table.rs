//! Labels straight to features: embedding and k2s2 convolution folded into one table per sub-voxel.

use super::case::Case;
use super::common::expect;
use super::reduce::{Chunks, sum_chunks};
use crate::Result;
use crate::graph::program::vector_width;
use crate::graph::{
    CpuTensor, DType, Graph, Kernel, Node, Op, OpContext, Operand, Program, Slot, TensorId, TensorSpec, WORD_BYTES,
};

/// Sub-voxels of a coarse cell; number `4*(x&1) + 2*(y&1) + (z&1)`.
const SUB_VOXELS: usize = 8;

/// The backward kernel keeps one sum per class in registers.
const MAX_CLASSES: usize = 64;

/// Cells of a first-stage sum, at least: fewer make more partial tables than they save time.
const CELLS_PER_CHUNK: usize = 256;

/// Partial tables, at most (a table of 11 classes and 32 channels has 11 KiB).
const MAX_CHUNKS: usize = 512;

fn cells_of(labels: &TensorSpec) -> Result<&[usize], String> {
    match &labels.shape[..] {
        [cells @ .., SUB_VOXELS] if labels.dtype == DType::U32 && cells.len() > 1 && labels.elements() > 0 => Ok(cells),
        _ => Err(format!("labels are {labels} but must be u32 [N, X, Y, Z, 8]")),
    }
}

fn with_channels(cells: &[usize], channels: usize) -> Vec<usize> {
    cells.iter().copied().chain([channels]).collect()
}

fn kernel(entry: &'static str, classes: usize, width: usize) -> Kernel {
    Kernel::new("label_table.wgsl", entry).define("classes", classes as i64).define("width", width as i64)
}

/// `y[n,x,y,z] = bias + sum over s of table[label[n,x,y,z,s], s]` (torch `conv3d(embedding(labels), w, bias, stride=2)`
/// with `table[k,s] = w[:, :, s] @ embedding[k]`; paper: the first layer of the extractor f_theta).
///
/// A label that is no class (K or more) contributes nothing, like a voxel of padding.
///
/// # Shapes
/// - `labels`: u32 `[N, X, Y, Z, 8]`, `N = B*T`, coarse cells, sub-voxel `s = 4*(x&1) + 2*(y&1) + (z&1)`
/// - `table`: `[K, 8, O]`, K up to 64
/// - `bias`: `[O]`
/// - `y`: `[N, X, Y, Z, O]`
///
/// Saves `labels`. The backward pass overwrites `d_table` and `d_bias`.
///
/// # Errors
/// [`crate::Error::Shape`] if an operand has another shape or type.
#[derive(Debug)]
pub struct LabelTable;

/// Appends [`LabelTable`] to `graph`.
///
/// # Errors
/// [`crate::Error::Shape`] if an operand has another shape or type.
pub fn label_table(graph: &mut Graph, labels: TensorId, table: TensorId, bias: TensorId) -> Result<TensorId> {
    graph.push_one(LabelTable, &[labels, table, bias])
}

impl Op for LabelTable {
    fn name(&self) -> &'static str {
        "label_table_forward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [labels, table, bias] = inputs else { return Err("needs 3 operands: labels, table, bias".to_owned()) };
        let cells = cells_of(labels)?;
        let &[classes, _, channels] = &table.shape[..] else {
            return Err(format!("the table is {table} but must be [K, 8, O]"));
        };
        expect("the table", table, &[classes, SUB_VOXELS, channels])?;
        expect("the bias", bias, &[channels])?;
        if classes > MAX_CLASSES {
            return Err(format!("the table has {classes} classes, at most {MAX_CLASSES} are supported"));
        }
        Ok(vec![TensorSpec::f32(&with_channels(cells, channels))])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let (labels, table, bias) = (inputs[0].data, &inputs[1], inputs[2].data);
        let (classes, channels) = (table.shape[0], bias.len());
        let mut y = vec![0.0; outputs[0].elements()];
        for (cell, y) in y.chunks_mut(channels).enumerate() {
            y.copy_from_slice(bias);
            for s in 0..SUB_VOXELS {
                let label = labels[cell * SUB_VOXELS + s] as usize;
                if label < classes {
                    let row = (label * SUB_VOXELS + s) * channels;
                    y.iter_mut().zip(&table.data[row..]).for_each(|(y, entry)| *y += entry);
                }
            }
        }
        vec![y]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let (table, y) = (&context.inputs[1], &context.outputs[0]);
        let (frames, channels) = (y.shape[0], y.channels());
        let cells = y.rows() / frames;
        let width = vector_width(channels);
        let mut program = Program::default();
        for window in context.windows(frames, &[cells * SUB_VOXELS, cells * channels])? {
            let parameters = [window.len() * cells, channels / width].map(|v| v as u32).to_vec();
            let operands = vec![
                context.input(0).window(&window, cells * SUB_VOXELS),
                context.output(0).window(&window, cells * channels),
                context.input(1),
                context.input(2),
            ];
            let kernel = kernel("label_table_forward", table.shape[0], width);
            program.dispatch(kernel, parameters, operands, context.grid_for(window.len() * cells * channels / width));
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
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None; 3]) };
        let classes = graph.shape(node.inputs[1])[0];
        let gradients = graph.push(LabelTableBackward { classes }, &[node.inputs[0], d_y])?;
        Ok(vec![None, Some(gradients[0]), Some(gradients[1])])
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Output(0))
    }

    fn flops(&self, _: &[TensorSpec], outputs: &[TensorSpec]) -> u64 {
        (SUB_VOXELS * outputs[0].elements()) as u64
    }
}

/// `d_table[k,s] = sum of d_y over the cells whose sub-voxel s has label k` and `d_bias = sum of d_y`, from `labels` and
/// `d_y`.
///
/// Deterministic without atomics: each invocation sums one (chunk of cells, s, o) for all classes in registers, and a
/// second stage adds the chunks.
///
/// # Shapes
/// - `labels`: u32 `[N, X, Y, Z, 8]`
/// - `d_y`: `[N, X, Y, Z, O]`
/// - `d_table`: `[K, 8, O]`
/// - `d_bias`: `[O]`
#[derive(Debug)]
pub struct LabelTableBackward {
    /// K.
    pub classes: usize,
}

impl Op for LabelTableBackward {
    fn name(&self) -> &'static str {
        "label_table_backward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [labels, d_y] = inputs else { return Err("needs 2 operands: labels, d_y".to_owned()) };
        expect("d_y", d_y, &with_channels(cells_of(labels)?, d_y.channels()))?;
        if !(1..=MAX_CLASSES).contains(&self.classes) {
            return Err(format!("{} classes given, 1 to {MAX_CLASSES} are supported", self.classes));
        }
        let channels = d_y.channels();
        Ok(vec![TensorSpec::f32(&[self.classes, SUB_VOXELS, channels]), TensorSpec::f32(&[channels])])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let (labels, d_y) = (inputs[0].data, inputs[1].data);
        let channels = outputs[1].elements();
        let mut d_table = vec![0.0; outputs[0].elements()];
        let mut d_bias = vec![0.0; channels];
        for (cell, d_y) in d_y.chunks(channels).enumerate() {
            d_bias.iter_mut().zip(d_y).for_each(|(sum, d)| *sum += d);
            for s in 0..SUB_VOXELS {
                let label = labels[cell * SUB_VOXELS + s] as usize;
                if label < self.classes {
                    let row = (label * SUB_VOXELS + s) * channels;
                    d_table[row..].iter_mut().zip(d_y).for_each(|(sum, d)| *sum += d);
                }
            }
        }
        vec![d_table, d_bias]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let d_y = &context.inputs[1];
        let (frames, channels) = (d_y.shape[0], d_y.channels());
        let cells_per_frame = d_y.rows() / frames;
        let table = self.classes * SUB_VOXELS * channels;
        // A chunk's sums: its table, then its bias.
        let stride = table + channels;
        let most_chunks = (context.limits.max_storage_binding_bytes / WORD_BYTES / stride).clamp(1, MAX_CHUNKS);
        let chunks_of = |cells: usize| {
            let cells_per_chunk = cells.div_ceil(most_chunks).max(CELLS_PER_CHUNK);
            (cells.div_ceil(cells_per_chunk), cells_per_chunk)
        };
        let windows = context.windows(frames, &[cells_per_frame * SUB_VOXELS, cells_per_frame * channels])?;
        let longest = windows.iter().map(|window| window.len()).max().unwrap_or(0);

        // A GPU needs the more invocations.
        let width = if context.limits.policy.for_cpu { vector_width(channels) } else { 1 };
        let mut program = Program::default();
        let slot = program.scratch(chunks_of(longest * cells_per_frame).0 * stride);
        for window in windows {
            let cells = window.len() * cells_per_frame;
            let (chunks, cells_per_chunk) = chunks_of(cells);
            let partial = Operand::scratch(slot, chunks * stride);
            let parameters = [cells, channels / width, chunks, cells_per_chunk].map(|v| v as u32).to_vec();
            let operands = vec![
                context.input(0).window(&window, cells_per_frame * SUB_VOXELS),
                context.input(1).window(&window, cells_per_frame * channels),
                partial.clone(),
            ];
            let kernel = kernel("label_table_backward", self.classes, width);
            program.dispatch(kernel, parameters, operands, context.grid_for(chunks * SUB_VOXELS * channels / width));
            for (output, first, count) in [(0, 0, table), (1, table, channels)] {
                let sums = Chunks { chunks, stride, first, target: 0, count, accumulate: window.start > 0 };
                sum_chunks(&mut program, context, sums, partial.clone(), context.output(output));
            }
        }
        Ok(program)
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(1))
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        (SUB_VOXELS * inputs[1].elements()) as u64
    }
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    let case = |name: &str, [frames, x, y, z, classes, channels]: [usize; 6], bound: usize| {
        Case::new(name, move |b| {
            let labels = b.labels("labels", &[frames, x, y, z, SUB_VOXELS], bound);
            let table = b.normal("table", &[classes, SUB_VOXELS, channels]);
            let bias = b.normal("bias", &[channels]);
            Ok(vec![label_table(&mut b.graph, labels, table, bias)?])
        })
    };
    vec![
        case("label_table odd", [6, 5, 3, 2, 5, 5], 5),
        case("label_table K=11 windows", [10, 5, 3, 2, 11, 32], 11).windowed(31_000),
        case("label_table several chunks", [4, 9, 8, 4, 11, 32], 11),
        case("label_table labels beyond K", [3, 3, 3, 2, 4, 7], 6),
    ]
}
