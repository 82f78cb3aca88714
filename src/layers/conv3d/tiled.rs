//! The workgroup-tiled family, for GPUs (`shaders/conv3d/tiled.wgsl`, and `cooperative.wgsl` for matrix units).

mod winograd;

use super::Geometry;
use super::program::Pass;
use crate::Result;
use crate::graph::program::Operand;
use crate::graph::{DType, Kernel, MatrixUnits, OpContext, Program, WORD_BYTES};

/// Workgroups that fill any GPU; the voxels of a weight gradient are cut in chunks until there are as many.
const WORKGROUPS: usize = 1024;

/// Voxels of a chunk: fewest, so that a workgroup has something to do, and most, so that no loop is long.
const CHUNK_VOXELS: (usize, usize) = (64, 32_768);

/// Most chunks, so that their partial results cost little beside reading x and d_y.
const MOST_CHUNKS: usize = 512;

/// Memory for partial weight gradients, unless one set alone needs more.
const PARTIAL_BYTES: usize = 64 << 20;

/// Columns that a workgroup of the reduction has, and how many invocations share one.
const REDUCED: (usize, usize) = (32, 8);

/// What a workgroup computes: `rows x columns` results, the columns being output channels of a product, or channels of x of
/// a weight gradient, whose rows are output channels.
#[derive(Debug, PartialEq)]
pub(super) struct Tile {
    /// Name among those that a tuner tries.
    pub name: &'static str,
    rows: usize,
    columns: usize,
    work: Work,
    /// Rows along y of Winograd's algorithm, or 0 without it.
    winograd: usize,
}

/// How a tile is shared out.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Work {
    /// Results of a thread, along both dimensions.
    Threads { rows: usize, columns: usize },
    /// Subgroups along both dimensions, that multiply matrices.
    Matrices { rows: usize, columns: usize },
}

const fn tile(name: &'static str, [rows, columns]: [usize; 2], thread: [usize; 2]) -> Tile {
    Tile { name, rows, columns, work: Work::Threads { rows: thread[0], columns: thread[1] }, winograd: 0 }
}

const fn winograd_tile(name: &'static str, extents: [usize; 2], thread: [usize; 2]) -> Tile {
    Tile { winograd: winograd::ROWS, ..tile(name, extents, thread) }
}

const fn matrices(name: &'static str, [rows, columns]: [usize; 2], subgroups: [usize; 2]) -> Tile {
    Tile { name, rows, columns, work: Work::Matrices { rows: subgroups[0], columns: subgroups[1] }, winograd: 0 }
}

/// Tiles with Winograd's algorithm that are worth a try: whether it is the faster hardly depends on them.
const MOST_WINOGRAD: usize = 2;

const MULTIPLY: [Tile; 6] = [
    tile("128x128 by 16x8", [128, 128], [16, 8]),
    tile("128x128 by 8x8", [128, 128], [8, 8]),
    tile("64x64 by 4x4", [64, 64], [4, 4]),
    tile("128x32 by 4x4", [128, 32], [4, 4]),
    tile("64x32 by 4x4", [64, 32], [4, 4]),
    tile("128x16 by 4x4", [128, 16], [4, 4]),
];

const MULTIPLY_WINOGRAD: [Tile; 3] = [
    winograd_tile("Winograd, 128x128 by 16x8", [128, 128], [16, 8]),
    winograd_tile("Winograd, 64x64 by 4x4", [64, 64], [4, 4]),
    winograd_tile("Winograd, 128x32 by 4x4", [128, 32], [4, 4]),
];

const MULTIPLY_MATRICES: [Tile; 6] = [
    matrices("256x128 matrices by 4x2", [256, 128], [4, 2]),
    matrices("128x128 matrices by 2x2", [128, 128], [2, 2]),
    matrices("128x64 matrices by 4x2", [128, 64], [4, 2]),
    matrices("128x32 matrices by 4x1", [128, 32], [4, 1]),
    matrices("64x32 matrices by 2x2", [64, 32], [2, 2]),
    matrices("128x16 matrices by 4x1", [128, 16], [4, 1]),
];

const WEIGHT_GRADIENT: [Tile; 7] = [
    tile("128x128 by 16x8", [128, 128], [16, 8]),
    tile("128x128 by 8x8", [128, 128], [8, 8]),
    tile("64x128 by 8x8", [64, 128], [8, 8]),
    tile("64x64 by 4x4", [64, 64], [4, 4]),
    tile("32x128 by 4x4", [32, 128], [4, 4]),
    tile("32x64 by 4x4", [32, 64], [4, 4]),
    tile("16x64 by 4x4", [16, 64], [4, 4]),
];

const WEIGHT_GRADIENT_WINOGRAD: [Tile; 3] = [
    winograd_tile("Winograd, 128x128 by 16x8", [128, 128], [16, 8]),
    winograd_tile("Winograd, 64x128 by 8x8", [64, 128], [8, 8]),
    winograd_tile("Winograd, 32x64 by 4x4", [32, 64], [4, 4]),
];

const WEIGHT_GRADIENT_MATRICES: [Tile; 5] = [
    matrices("128x128 matrices by 2x2", [128, 128], [2, 2]),
    matrices("64x128 matrices by 2x4", [64, 128], [2, 4]),
    matrices("32x128 matrices by 2x4", [32, 128], [2, 4]),
    matrices("32x64 matrices by 2x2", [32, 64], [2, 2]),
    matrices("16x64 matrices by 1x4", [16, 64], [1, 4]),
];

impl Tile {
    /// Results that are summed at once for each load from workgroup memory: `a` x `b` for `a + b` loads.
    fn shared(&self) -> [usize; 2] {
        match self.work {
            Work::Threads { rows, columns } => [rows, columns],
            Work::Matrices { rows, columns } => [self.rows / rows / 16, self.columns / columns / 16],
        }
    }

    /// Values of the inner dimension of a product that are loaded at once, of which channels are padded to a multiple.
    fn vector(&self) -> usize {
        if self.is_half() { 8 } else { 4 }
    }

    /// Values of the inner dimension of a step: four vectors.
    fn step(&self) -> usize {
        4 * self.vector()
    }

    /// Operands lie in workgroup memory as f16.
    fn is_half(&self) -> bool {
        matches!(self.work, Work::Matrices { .. })
    }

    /// What so many results cost beside the same number by another tile: those that are computed for nothing, those that
    /// wait for operands, and units of the GPU that have no work.
    fn cost(&self, rows: usize, columns: usize, split: usize) -> usize {
        let tiles = rows.div_ceil(self.rows) * columns.div_ceil(self.columns);
        let results = tiles.max(WORKGROUPS / 4 / split) * self.rows * self.columns;
        let [a, b] = self.shared();
        results * (a * b + 2 * (a + b)) / (a * b)
    }

    /// Bytes of workgroup memory of a product, or of a weight gradient.
    fn workgroup_bytes(&self, gradient: bool) -> usize {
        let (rows, columns, step) = (self.rows, self.columns, self.step());
        match self.work {
            Work::Threads { .. } => (rows + columns) * step * WORD_BYTES,
            // Each row of an operand is padded by a vector.
            Work::Matrices { rows: down, columns: across } => {
                let vector = self.vector();
                let operands =
                    if gradient { step * (rows + columns + 2 * vector) } else { (rows + columns) * (step + vector) };
                operands * WORD_BYTES / 2 + down * across * 16 * 16 * WORD_BYTES
            }
        }
    }

    fn define_pack(&self, kernel: Kernel) -> Kernel {
        kernel.define("half", i64::from(self.is_half())).define("winograd", self.winograd as i64)
    }

    fn define(&self, kernel: Kernel, units: MatrixUnits) -> Kernel {
        let kernel = kernel.define("tm", self.rows as i64).define("tn", self.columns as i64);
        match self.work {
            Work::Threads { rows, columns } => {
                kernel.define("rm", rows as i64).define("rn", columns as i64).define("winograd", self.winograd as i64)
            }
            Work::Matrices { rows, columns } => kernel
                .define("subgroup_rows", rows as i64)
                .define("subgroup_columns", columns as i64)
                .define("matrix_units", i64::from(units == MatrixUnits::Present)),
        }
    }
}

/// Words of `Parameters` in `shaders/conv3d/volume.wgsl`.
#[derive(Debug, Clone, Copy, Default)]
struct Words {
    size: [usize; 3],
    count: usize,
    co_padded: usize,
    bias_at: usize,
    chunk: usize,
    parts: usize,
    accumulate: bool,
}

impl Words {
    fn list(&self, g: &Geometry) -> Vec<u32> {
        let ([x, y, z], [kx, ky, kz]) = (self.size, g.kernel);
        let last = [self.count, self.co_padded, self.bias_at, self.chunk, self.parts, usize::from(self.accumulate)];
        let whole = [x, y, z, g.i, kx, ky, kz, g.o].into_iter().chain(last).map(|word| word as u32);
        whole.chain(g.padded_words()).collect()
    }
}

/// Those of `tiles` that compute at most twice the `channels` that the narrowest would.
fn narrow(tiles: &'static [Tile], channels: usize, extent: fn(&Tile) -> usize) -> Vec<&'static Tile> {
    let padded = |tile: &Tile| channels.next_multiple_of(extent(tile));
    let fewest = tiles.iter().map(padded).min().unwrap_or(0);
    tiles.iter().filter(|tile| padded(tile) <= 2 * fewest).collect()
}

/// Whether matrices of f16 are multiplied: operand `i` has that type and eights of `channels`.
fn takes_matrices(context: &OpContext, operands: &[(usize, usize)]) -> bool {
    let fits = |&(i, channels): &(usize, usize)| context.inputs[i].dtype == DType::F16 && channels.is_multiple_of(8);
    context.limits.matrix_units() != MatrixUnits::None && operands.iter().all(fits)
}

/// The tiles of the forward product worth a try, the default first. It never multiplies matrices or uses Winograd's algorithm: what
/// that gives is compared with the default before it is used.
pub(super) fn multiply_tiles(context: &OpContext, g: &Geometry) -> Vec<&'static Tile> {
    let candidates = |tiles: &'static [Tile]| {
        let mut tiles = narrow(tiles, g.o, |tile| tile.columns);
        let narrowest = tiles.iter().map(|tile| tile.columns).min().unwrap_or(0);
        let limit = context.limits.max_storage_binding_bytes / WORD_BYTES;
        tiles.retain(|tile| tile.columns == narrowest || Packed::new(g, tile).elements <= limit);
        tiles.retain(|tile| tile.workgroup_bytes(false) <= context.limits.max_workgroup_bytes);
        tiles.sort_by_key(|tile| tile.cost(g.n * g.voxels(), g.o, 1));
        tiles
    };
    let mut tiles = candidates(&MULTIPLY);
    if takes_matrices(context, &[(0, g.i)]) {
        tiles.extend(candidates(&MULTIPLY_MATRICES));
    } else {
        let mut with_winograd = candidates(&MULTIPLY_WINOGRAD);
        with_winograd.retain(|tile| winograd::is_tried(context, g, winograd::packed_bytes(g, tile)));
        tiles.extend(with_winograd.into_iter().take(MOST_WINOGRAD));
    }
    tiles
}

/// The tiles of the weight gradient worth a try, the default first.
pub(super) fn weight_gradient_tiles(context: &OpContext, g: &Geometry) -> Vec<&'static Tile> {
    let split = (g.n * g.voxels()).div_ceil(CHUNK_VOXELS.0);
    let columns = g.taps() * g.i.next_multiple_of(4);
    let candidates = |tiles: &'static [Tile]| {
        let mut tiles = narrow(tiles, g.o, |tile| tile.rows);
        tiles.retain(|tile| tile.workgroup_bytes(true) <= context.limits.max_workgroup_bytes);
        tiles.sort_by_key(|tile| tile.cost(g.o, columns, split));
        tiles
    };
    let mut tiles = candidates(&WEIGHT_GRADIENT);
    if takes_matrices(context, &[(0, g.i), (1, g.o)]) {
        tiles.extend(candidates(&WEIGHT_GRADIENT_MATRICES));
    } else if winograd::is_tried(context, g, winograd::partial_bytes(g)) {
        let with_winograd = candidates(&WEIGHT_GRADIENT_WINOGRAD);
        tiles.extend(with_winograd.into_iter().take(MOST_WINOGRAD));
    }
    tiles
}

/// The packed weight: a matrix of f32 or, two in a word, f16, and the bias.
struct Packed {
    co_padded: usize,
    matrix: usize,
    elements: usize,
}

impl Packed {
    fn new(g: &Geometry, tile: &Tile) -> Packed {
        let co_padded = g.o.next_multiple_of(tile.columns);
        let rows = (g.taps() * g.i.next_multiple_of(tile.vector())).next_multiple_of(tile.step());
        let matrix = rows * co_padded / if tile.is_half() { 2 } else { 1 };
        Packed { co_padded, matrix, elements: matrix + co_padded }
    }
}

/// The forward product; see [`super::program`].
pub(super) fn multiply(context: &OpContext, g: &Geometry, pass: Pass, tile: &Tile) -> Result<Program> {
    if tile.winograd > 0 {
        return winograd::multiply(context, g, pass, tile);
    }
    let Packed { co_padded, matrix, elements } = Packed::new(g, tile);
    let mut program = Program::default();
    let packed = program.scratch(elements);
    let packed_words = Words { co_padded, bias_at: matrix / 4, ..Words::default() };
    let words = Words { count: elements, ..packed_words };
    let mut operands = vec![context.input(1), Operand::scratch(packed, elements)];
    operands.extend(pass.bias.then(|| context.input(2)));
    let pack = tile.define_pack(pass.pack_kernel(g, true));
    program.dispatch(pack, words.list(g), operands, context.grid_for(elements));

    let [from, to] = g.frame_elements();
    let kernel = tile.define(pass.kernel(g, true), context.limits.matrix_units());
    let scratch = |elements| Operand { slot: packed, elements };
    for window in context.windows(g.n, &[from, to])? {
        let count = window.len() * g.voxels();
        let words = Words { size: g.extents(window.len()), count, ..packed_words };
        let weights = scratch(0..if tile.is_half() { matrix } else { elements });
        let mut operands = vec![context.input(0).window(&window, from), weights, context.output(0).window(&window, to)];
        operands.extend(tile.is_half().then(|| scratch(matrix..elements)));
        operands.extend(pass.masked.then(|| context.input(2).window(&window, to)));
        let [x, y, _] = context.grid(count.div_ceil(tile.rows));
        program.dispatch(kernel.clone(), words.list(g), operands, [x, y, (co_padded / tile.columns) as u32]);
    }
    Ok(program)
}

/// Columns of a weight gradient's partial results: x in vectors of four channels, and one for the bias.
fn columns(g: &Geometry) -> usize {
    g.taps() * g.i.div_ceil(4) + 1
}

/// The weight gradient; see [`super::program`].
pub(super) fn weight_gradient(context: &OpContext, g: &Geometry, bias: bool, tile: &Tile) -> Result<Program> {
    let (of, products) = if tile.winograd > 0 { (winograd::product_of(g), winograd::PRODUCTS) } else { (g.clone(), 1) };
    let columns = columns(&of);
    let (across, down) = ((4 * (columns - 1)).div_ceil(tile.columns), products * of.o.div_ceil(tile.rows));
    let set = products * of.o * columns * 4;
    let [x, y] = g.frame_elements();
    let windows = if tile.winograd > 0 { winograd::windows(context, g)? } else { context.windows(g.n, &[x, y])? };
    let limit = context.limits.max_storage_binding_bytes.min(PARTIAL_BYTES);
    let most_sets = (limit / (set * WORD_BYTES)).clamp(1, MOST_CHUNKS);
    let chunks_of = |frames: usize| -> (usize, usize, usize) {
        let count = frames * of.voxels();
        let wanted = WORKGROUPS.div_ceil(across * down).min(count.div_ceil(CHUNK_VOXELS.0)).min(most_sets);
        let chunk = count.div_ceil(wanted).next_multiple_of(tile.step()).min(CHUNK_VOXELS.1);
        (count, chunk, count.div_ceil(chunk))
    };
    let sets = windows.iter().map(|window| chunks_of(window.len()).2).max().unwrap_or(1);

    let mut program = Program::default();
    let elements = sets * set;
    let partial = program.scratch(elements);
    let transforms = (tile.winograd > 0).then(|| {
        [(g.clone(), false), (g.clone().turned(), true)]
            .map(|(of, of_gradient)| winograd::Transform::new(&mut program, of, &windows, of_gradient))
    });
    let names = g.names();
    let gradient = tile.define(of.kernel_named(names.backward_weight, true), context.limits.matrix_units());
    let reduce = Kernel::new("conv3d.wgsl", names.reduce_weight)
        .define("tiled", 1)
        .define("bias", i64::from(bias))
        .define("columns", REDUCED.0 as i64)
        .define("slices", REDUCED.1 as i64)
        .define("winograd", tile.winograd as i64);
    for (number, window) in windows.iter().enumerate() {
        let (count, chunk, chunks) = chunks_of(window.len());
        let words = Words { size: of.extents(window.len()), count, chunk, ..Words::default() };
        let mut operands = vec![context.input(0).window(window, x), context.input(1).window(window, y)];
        if let Some(transforms) = &transforms {
            for (operand, transform) in operands.iter_mut().zip(transforms) {
                *operand = transform.of(&mut program, context, operand.clone(), window.len());
            }
        }
        operands.push(Operand::scratch(partial, elements));
        program.dispatch(gradient.clone(), words.list(&of), operands, [across as u32, chunks as u32, down as u32]);

        let count = of.o * columns;
        let words = Words { count, parts: chunks, accumulate: number > 0, ..Words::default() };
        let mut operands = vec![Operand::scratch(partial, elements), context.output(0)];
        operands.extend(bias.then(|| context.output(1)));
        program.dispatch(reduce.clone(), words.list(g), operands, context.grid(count.div_ceil(REDUCED.0)));
    }
    Ok(program)
}
