//! Labels straight to the result of a 3x3x3 convolution of what they are embedded in: nothing is embedded at full resolution.

use super::case::Case;
use super::common::expect;
use super::reduce::{Chunks, sum_chunks};
use crate::Result;
use crate::graph::program::vector_width;
use crate::graph::{
    CpuTensor, DType, Graph, Kernel, Node, Op, OpContext, Operand, Program, Slot, TensorId, TensorSpec, WORD_BYTES,
};

/// Sub-voxels of a cell; number `4*(x&1) + 2*(y&1) + (z&1)`.
const SUB_VOXELS: usize = 8;

/// Of the kernel, x before y before z.
const TAPS: usize = 27;

/// The backward kernel keeps one sum per class in registers.
const MAX_CLASSES: usize = 64;

/// Most voxels along z that an invocation takes one after the other.
const LONGEST_RUN: usize = 64;

/// Most classes for which it has the sums of all three taps along z at once.
const MOST_WITH_TAPS: usize = 16;

/// Voxels of a first-stage sum, at least, and at most in one launch.
const CHUNK_VOXELS: (usize, usize) = (256, 16_384);

/// Partial tables, at most, and the elements of all of them together, unless one alone has more (32 MiB).
const MAX_CHUNKS: usize = 512;
const PARTIAL_ELEMENTS: usize = 1 << 23;

/// X, Y and Z of the voxels, with their number of frames before.
fn volume(labels: &TensorSpec) -> Result<[usize; 4], String> {
    match labels.shape[..] {
        [n, x, y, z, SUB_VOXELS] if labels.dtype == DType::U32 && labels.elements() > 0 => Ok([n, 2 * x, 2 * y, 2 * z]),
        _ => Err(format!("labels are {labels} but must be u32 [N, X/2, Y/2, Z/2, 8]")),
    }
}

fn kernel(entry: &'static str, width: usize) -> Kernel {
    Kernel::new("label_conv.wgsl", entry).define("width", width as i64)
}

/// Calls `visit(voxel, tap, label)` with every label that a tap meets, those at the edge for what lies beyond.
fn for_each(labels: &CpuTensor, [n, x, y, z]: [usize; 4], mut visit: impl FnMut(usize, usize, usize)) {
    let size = [x, y, z];
    for voxel in 0..n * x * y * z {
        let at = [voxel / (y * z) % x, voxel / z % y, voxel % z];
        for tap in 0..TAPS {
            let offset = [tap / 9, tap / 3 % 3, tap % 3];
            let from = [0, 1, 2].map(|axis| (at[axis] + offset[axis]).saturating_sub(1).min(size[axis] - 1));
            let cell = ((voxel / (x * y * z) * (x / 2) + from[0] / 2) * (y / 2) + from[1] / 2) * (z / 2) + from[2] / 2;
            let sub_voxel = 4 * (from[0] % 2) + 2 * (from[1] % 2) + from[2] % 2;
            visit(voxel, tap, labels.data[cell * SUB_VOXELS + sub_voxel] as usize);
        }
    }
}

/// `y[n,x,y,z] = bias + sum over the taps d of table[label[n, x+d_x, y+d_y, z+d_z], d]`, coordinates beyond the edge being those of
/// the edge (torch `conv3d(pad(embedding(labels), [1] * 6, mode="replicate"), w, bias)` with `table[k,d] = w[:, :, d] @
/// embedding[k]`).
///
/// A label that is no class (K or more) contributes nothing.
///
/// # Shapes
/// - `labels`: u32 `[N, X/2, Y/2, Z/2, 8]` in blocked order, sub-voxel `4*(x&1) + 2*(y&1) + (z&1)`
/// - `table`: `[K, 27, O]`, K up to 64
/// - `bias`: `[O]`
/// - `y`: `[N, X, Y, Z, O]`
///
/// Saves `labels`. The backward pass overwrites `d_table` and `d_bias`.
///
/// # Errors
/// [`crate::Error::Shape`] if an operand has another shape or type.
#[derive(Debug)]
pub struct LabelConv;

/// Appends [`LabelConv`] to `graph`.
///
/// # Errors
/// [`crate::Error::Shape`] if an operand has another shape or type.
pub fn label_conv(graph: &mut Graph, labels: TensorId, table: TensorId, bias: TensorId) -> Result<TensorId> {
    graph.push_one(LabelConv, &[labels, table, bias])
}

impl Op for LabelConv {
    fn name(&self) -> &'static str {
        "label_conv_forward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [labels, table, bias] = inputs else { return Err("needs 3 operands: labels, table, bias".to_owned()) };
        let [n, x, y, z] = volume(labels)?;
        let &[classes, _, channels] = &table.shape[..] else {
            return Err(format!("the table is {table} but must be [K, 27, O]"));
        };
        expect("the table", table, &[classes, TAPS, channels])?;
        expect("the bias", bias, &[channels])?;
        if classes > MAX_CLASSES {
            return Err(format!("the table has {classes} classes, at most {MAX_CLASSES} are supported"));
        }
        Ok(vec![TensorSpec::f32(&[n, x, y, z, channels])])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let (table, bias) = (&inputs[1], inputs[2].data);
        let (classes, channels) = (table.shape[0], bias.len());
        let mut y = bias.repeat(outputs[0].rows());
        let [n, x, y_extent, z] = [0, 1, 2, 3].map(|axis| outputs[0].shape[axis]);
        for_each(&inputs[0], [n, x, y_extent, z], |voxel, tap, label| {
            if label < classes {
                let entries = &table.data[(label * TAPS + tap) * channels..];
                y[voxel * channels..][..channels].iter_mut().zip(entries).for_each(|(y, entry)| *y += entry);
            }
        });
        vec![y]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let [n, x, y, z] = volume(&context.inputs[0]).map_err(crate::Error::Shape)?;
        let channels = context.outputs[0].channels();
        let (width, voxels) = (vector_width(channels), x * y * z);
        let classes = context.inputs[1].shape[0];
        let mut program = Program::default();
        let mut forward = kernel("label_conv_forward", width);
        let (mut table, mut run) = (context.input(1), 1);
        // A CPU adapter reads vectors of an image in half the time, and an invocation that takes a run of voxels along z
        // reads their labels once.
        if context.limits.policy.for_cpu {
            run = z.min(LONGEST_RUN);
            if width > 1 && WORD_BYTES * table.elements.len() <= context.limits.max_image_bytes {
                let vectors = table.elements.len() / width;
                let image = program.image(table.elements.len());
                let pack = kernel("label_conv_pack", width).writes_image(2);
                let words = vec![0, 0, 0, vectors as u32];
                program.dispatch(pack, words, vec![table, image.clone()], context.grid_for(vectors));
                (forward, table) = (forward.reads_image(3), image);
            }
        }
        let forward = forward.define("image", table.slot != Slot::Input(1));
        for window in context.windows(n, &[voxels, voxels * channels])? {
            let rows = window.len() * x * y;
            let words = [x, y, z, rows, channels / width, classes, 0, 0, 0, run];
            let operands = vec![
                context.input(0).window(&window, voxels),
                context.output(0).window(&window, voxels * channels),
                table.clone(),
                context.input(2),
            ];
            let grid = context.grid_for(rows * z.div_ceil(run) * channels / width);
            let words = words.map(|word| word as u32).to_vec();
            program.dispatch(forward.clone(), words, operands, grid);
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
        let gradients = graph.push(LabelConvBackward { classes }, &[node.inputs[0], d_y])?;
        Ok(vec![None, Some(gradients[0]), Some(gradients[1])])
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Output(0))
    }

    fn flops(&self, _: &[TensorSpec], outputs: &[TensorSpec]) -> u64 {
        (TAPS * outputs[0].elements()) as u64
    }
}

/// `d_table[k,d] = sum of d_y over the voxels whose tap d meets label k` and `d_bias = sum of d_y`, from `labels` and `d_y`.
///
/// Deterministic without atomics: each invocation sums one (chunk of voxels, d, o), or those of all d along z, for all classes in
/// registers, and a second stage adds the chunks.
///
/// # Shapes
/// - `labels`: u32 `[N, X/2, Y/2, Z/2, 8]`
/// - `d_y`: `[N, X, Y, Z, O]`
/// - `d_table`: `[K, 27, O]`
/// - `d_bias`: `[O]`
#[derive(Debug)]
pub struct LabelConvBackward {
    /// K.
    pub classes: usize,
}

impl Op for LabelConvBackward {
    fn name(&self) -> &'static str {
        "label_conv_backward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [labels, d_y] = inputs else { return Err("needs 2 operands: labels, d_y".to_owned()) };
        let [n, x, y, z] = volume(labels)?;
        let channels = d_y.channels();
        expect("d_y", d_y, &[n, x, y, z, channels])?;
        if !(1..=MAX_CLASSES).contains(&self.classes) {
            return Err(format!("{} classes given, 1 to {MAX_CLASSES} are supported", self.classes));
        }
        Ok(vec![TensorSpec::f32(&[self.classes, TAPS, channels]), TensorSpec::f32(&[channels])])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let channels = outputs[1].elements();
        let (mut d_table, mut d_bias) = (vec![0.0; outputs[0].elements()], vec![0.0; channels]);
        for d_y in inputs[1].data.chunks(channels) {
            d_bias.iter_mut().zip(d_y).for_each(|(sum, d)| *sum += d);
        }
        let [n, x, y, z] = [0, 1, 2, 3].map(|axis| inputs[1].shape[axis]);
        for_each(&inputs[0], [n, x, y, z], |voxel, tap, label| {
            if label < self.classes {
                let sums = &mut d_table[(label * TAPS + tap) * channels..];
                sums.iter_mut().zip(&inputs[1].data[voxel * channels..][..channels]).for_each(|(sum, d)| *sum += d);
            }
        });
        vec![d_table, d_bias]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let [n, x, y, z] = volume(&context.inputs[0]).map_err(crate::Error::Shape)?;
        let channels = context.inputs[1].channels();
        let voxels = x * y * z;
        // A chunk's sums: its table, then its bias. It has whole rows along z.
        let table = self.classes * TAPS * channels;
        let stride = table + channels;
        let fitting = PARTIAL_ELEMENTS.min(context.limits.max_storage_binding_bytes / WORD_BYTES) / stride;
        let most_chunks = fitting.clamp(1, MAX_CHUNKS);
        let (fewest, most) = ((CHUNK_VOXELS.0 / z).max(1), (CHUNK_VOXELS.1 / z).max(1));
        let rows_per_chunk = |rows: usize| rows.div_ceil(most_chunks).clamp(fewest, most);
        let windows = context.windows(n, &[voxels, voxels * channels])?;
        let longest = windows.iter().map(|window| window.len()).max().unwrap_or(0) * x * y;
        let chunks = longest.div_ceil(rows_per_chunk(longest)).min(most_chunks);

        // A GPU needs the more invocations.
        let for_cpu = context.limits.policy.for_cpu;
        let width = if for_cpu { vector_width(channels) } else { 1 };
        let taps = if for_cpu && self.classes <= MOST_WITH_TAPS { 3 } else { 1 };
        let mut program = Program::default();
        let slot = program.scratch(chunks * stride);
        for window in windows {
            let rows = window.len() * x * y;
            let per_chunk = rows_per_chunk(rows);
            for first in (0..rows).step_by(most_chunks * per_chunk) {
                let chunks = (rows - first).div_ceil(per_chunk).min(most_chunks);
                let partial = Operand::scratch(slot, chunks * stride);
                let end = (rows - first).min(chunks * per_chunk);
                let words = [x, y, z, end, channels / width, self.classes, first, chunks, per_chunk];
                let operands = vec![
                    context.input(0).window(&window, voxels),
                    context.input(1).window(&window, voxels * channels),
                    partial.clone(),
                ];
                let grid = context.grid_for(chunks * TAPS / taps * channels / width);
                let kernel = kernel("label_conv_backward", width)
                    .define("classes", self.classes as i64)
                    .define("taps", taps as i64);
                program.dispatch(kernel, words.map(|word| word as u32).to_vec(), operands, grid);
                for (output, first_sum, count) in [(0, 0, table), (1, table, channels)] {
                    let accumulate = window.start + first > 0;
                    let sums = Chunks { chunks, stride, first: first_sum, target: 0, count, accumulate };
                    sum_chunks(&mut program, context, sums, partial.clone(), context.output(output));
                }
            }
        }
        Ok(program)
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(1))
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        (TAPS * inputs[1].elements()) as u64
    }
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    let case = |name: &str, [frames, x, y, z, classes, channels]: [usize; 6], bound: usize| {
        Case::new(name, move |b| {
            let labels = b.labels("labels", &[frames, x, y, z, SUB_VOXELS], bound);
            let table = b.normal("table", &[classes, TAPS, channels]);
            let bias = b.normal("bias", &[channels]);
            Ok(vec![label_conv(&mut b.graph, labels, table, bias)?])
        })
    };
    vec![
        case("label_conv odd", [2, 3, 5, 2, 5, 5], 5),
        case("label_conv K=11 windows", [5, 2, 2, 4, 11, 8], 11).windowed(12_000),
        case("label_conv several chunks", [3, 5, 4, 3, 11, 4], 11),
        case("label_conv labels beyond K", [2, 1, 3, 2, 4, 7], 6),
        case("label_conv of many classes", [1, 2, 3, 2, 20, 8], 21),
    ]
}
