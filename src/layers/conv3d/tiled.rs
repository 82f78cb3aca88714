//! The workgroup-tiled family, for GPUs (`shaders/conv3d/tiled.wgsl`).

use super::Geometry;
use super::program::Pass;
use crate::Result;
use crate::graph::program::{Operand, WORKGROUP};
use crate::graph::{Kernel, OpContext, Program, WORD_BYTES};

/// Workgroups of a weight gradient that fill any GPU; voxels are cut in chunks until there are as many.
const WEIGHT_WORKGROUPS: usize = 1024;

/// Voxels of a chunk: fewest, so that partial results cost little, and most, so that no loop is long.
const CHUNK_VOXELS: (usize, usize) = (512, 32_768);

/// Memory for partial weight gradients, unless one set alone needs more.
const PARTIAL_BYTES: usize = 64 << 20;

/// Words of `Parameters` in `shaders/conv3d/tiled.wgsl`.
#[derive(Debug, Clone, Copy, Default)]
struct Words {
    size: [usize; 3],
    count: usize,
    bias_at: usize,
    chunk: usize,
    parts: usize,
    accumulate: bool,
}

impl Words {
    fn list(&self, g: &Geometry) -> Vec<u32> {
        let [x, y, z] = self.size;
        let last = [self.count, self.bias_at, self.chunk, self.parts, usize::from(self.accumulate)];
        [x, y, z, g.i, g.o, g.taps()].iter().chain(&last).map(|&word| word as u32).collect()
    }
}

/// Output channels of a tile: as many as possible, unless that wastes more than the better reuse gains.
fn tile_columns(channels: usize) -> usize {
    let cost = |&(tile, percent): &(usize, usize)| channels.next_multiple_of(tile) * percent;
    [(64, 100), (32, 110), (16, 140)].iter().min_by_key(|tile| cost(tile)).map_or(64, |tile| tile.0)
}

fn define_taps(kernel: Kernel, g: &Geometry) -> Kernel {
    let [kx, ky, kz] = g.kernel.map(|k| k as i64);
    kernel.define("kx", kx).define("ky", ky).define("kz", kz)
}

/// The forward product; see [`super::program`].
pub(super) fn multiply(context: &OpContext, g: &Geometry, pass: Pass) -> Result<Program> {
    let tn = tile_columns(g.o);
    let tm = if tn == 64 { 64 } else { 128 };
    let co_padded = g.o.next_multiple_of(tn);
    let matrix = (g.taps() * g.i.div_ceil(4)).next_multiple_of(4) * 4 * co_padded;
    let elements = matrix + co_padded;

    let mut program = Program::default();
    let packed = program.scratch(elements);
    let words = Words { count: elements, bias_at: matrix / 4, ..Words::default() };
    let mut operands = vec![context.input(1), Operand::scratch(packed, elements)];
    operands.extend(pass.bias.then(|| context.input(2)));
    let pack = pass.pack_kernel(g, true).define("tn", tn as i64);
    program.dispatch(pack, words.list(g), operands, context.grid_for(elements));

    let (from, to) = (g.voxels() * g.i, g.voxels() * g.o);
    let kernel = define_taps(pass.kernel(g, true), g).define("tm", tm as i64).define("tn", tn as i64);
    for window in context.windows(g.n, &[from, to])? {
        let count = window.len() * g.voxels();
        let words = Words { size: g.extents(window.len()), count, bias_at: matrix / 4, ..Words::default() };
        let operands = vec![
            context.input(0).window(&window, from),
            Operand::scratch(packed, elements),
            context.output(0).window(&window, to),
        ];
        let [x, y, _] = context.grid(count.div_ceil(tm));
        program.dispatch(kernel.clone(), words.list(g), operands, [x, y, (co_padded / tn) as u32]);
    }
    Ok(program)
}

/// The weight gradient; see [`super::program`].
pub(super) fn weight_gradient(context: &OpContext, g: &Geometry, bias: bool) -> Result<Program> {
    let tn = tile_columns(g.o);
    let tq = if tn == 64 { 16 } else { 32 };
    let columns = g.taps() * g.i.div_ceil(4) + 1;
    let set = g.o * columns * 4;
    let tiles = columns.div_ceil(tq) * g.o.div_ceil(tn);
    let (x, y) = (g.voxels() * g.i, g.voxels() * g.o);
    let windows = context.windows(g.n, &[x, y])?;
    let limit = context.limits.max_storage_binding_bytes.min(PARTIAL_BYTES);
    let most_sets = (limit / (set * WORD_BYTES)).max(1);
    let chunks_of = |frames: usize| -> (usize, usize, usize) {
        let count = frames * g.voxels();
        let wanted = WEIGHT_WORKGROUPS.div_ceil(tiles).min(count.div_ceil(CHUNK_VOXELS.0)).min(most_sets);
        let chunk = count.div_ceil(wanted).min(CHUNK_VOXELS.1);
        (count, chunk, count.div_ceil(chunk))
    };
    let sets = windows.iter().map(|window| chunks_of(window.len()).2).max().unwrap_or(1);

    let mut program = Program::default();
    let elements = sets * set;
    let partial = program.scratch(elements);
    let names = g.names();
    let gradient =
        define_taps(g.kernel_named(names.backward_weight, true), g).define("tn", tn as i64).define("tq", tq as i64);
    let reduce = g.kernel_named(names.reduce_weight, true).define("bias", i64::from(bias));
    for (number, window) in windows.iter().enumerate() {
        let (count, chunk, chunks) = chunks_of(window.len());
        let words = Words { size: g.extents(window.len()), count, chunk, ..Words::default() };
        let operands = vec![
            context.input(0).window(window, x),
            context.input(1).window(window, y),
            Operand::scratch(partial, elements),
        ];
        let workgroups = [columns.div_ceil(tq) as u32, chunks as u32, g.o.div_ceil(tn) as u32];
        program.dispatch(gradient.clone(), words.list(g), operands, workgroups);

        let count = g.o * columns;
        let words = Words { count, parts: chunks, accumulate: number > 0, ..Words::default() };
        let mut operands = vec![Operand::scratch(partial, elements), context.output(0)];
        operands.extend(bias.then(|| context.output(1)));
        program.dispatch(reduce.clone(), words.list(g), operands, context.grid(count.div_ceil(WORKGROUP)));
    }
    Ok(program)
}
