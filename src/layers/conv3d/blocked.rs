//! The register-blocked family, for CPU adapters (`shaders/conv3d/blocked.wgsl`).

mod winograd;

use std::ops::Range;

use super::Geometry;
use super::program::Pass;
use crate::Result;
use crate::graph::program::{Operand, WORKGROUP};
use crate::graph::{Kernel, OpContext, Program, Slot, WORD_BYTES};
use crate::layers::pointwise::LRELU_SLOPE;
use winograd::Tiling;

/// Lanes of one workgroup of the weight gradient, and fewest lanes of a subgroup on which it runs.
pub(super) const LANES: usize = 8;

/// Bytes of x and d_y that one chunk of the weight gradient reads, so that they stay in the cache while all channel blocks
/// read them.
const CHUNK_BYTES: usize = 1 << 20;

/// The same of all transformed rows, of which a workgroup reads a sixth.
const TILED_CHUNK_BYTES: usize = 2 << 20;

/// Voxel blocks of a chunk: fewest, so that partial results cost little, and most, far below the number of iterations after
/// which software Vulkan gives up.
const MIN_CHUNK_BLOCKS: usize = 32;
const MAX_CHUNK_BLOCKS: usize = 30_000;

/// Products of a linear layer up to which its weight is read as it is: rearranging takes a launch.
const DIRECT_PRODUCTS: usize = 256 << 10;

/// Workgroups of a weight gradient that keep every core busy.
const WORKGROUPS: usize = 64;

/// Memory for partial weight gradients, unless one set alone needs more.
const PARTIAL_BYTES: usize = 32 << 20;

/// Most voxels along z that one lane works on.
const LONGEST_BLOCK: usize = 8;

/// The voxels that one lane works on, along y and z.
#[derive(Debug, Clone, Copy, PartialEq)]
struct VoxelBlock {
    y: usize,
    z: usize,
    /// Voxels of x loaded before the block along z.
    halo: isize,
    /// The block may reach beyond the volume along z.
    checked: bool,
}

impl VoxelBlock {
    /// About `target` voxels, the whole of Z if that is short, else at most `longest` along it.
    fn new(g: &Geometry, target: usize, longest: usize) -> VoxelBlock {
        let [_, y, z] = g.size;
        let longer = z.max(g.x_size[2]);
        if g.pointwise() {
            VoxelBlock { y: 1, z: target, halo: 0, checked: false }
        } else if longer <= 8 {
            VoxelBlock { y: (target / longer).clamp(1, y), z, halo: 0, checked: false }
        } else {
            let block = z.div_ceil(z.div_ceil(longest));
            let checked = !g.is_same() || g.kernel[2] > 1 || !z.is_multiple_of(block);
            VoxelBlock { y: 1, z: block, halo: g.before[2], checked }
        }
    }

    fn count(&self, g: &Geometry, frames: usize) -> usize {
        let [x, y, z] = g.extents(frames);
        g.repeats(frames) * x * y.div_ceil(self.y) * z.div_ceil(self.z)
    }

    fn define(&self, kernel: Kernel, g: &Geometry) -> Kernel {
        let kernel = kernel
            .define("by", self.y as i64)
            .define("bz", self.z as i64)
            .define("halo", self.halo as i64)
            .define("zcheck", i64::from(self.checked))
            .define("kz", g.kernel[2] as i64);
        if g.is_same() {
            return kernel;
        }
        let z_loaded = if self.checked { self.z + g.kernel[2] - 1 } else { g.x_size[2] };
        kernel.define("z_loaded", z_loaded as i64).define("z_before", g.before[2] as i64)
    }
}

/// Words of `Parameters` in `shaders/conv3d/blocked.wgsl`.
#[derive(Debug, Clone, Copy, Default)]
struct Words {
    size: [usize; 3],
    count: usize,
    bias_at: usize,
    chunk: usize,
    co_first: usize,
    parts: usize,
    accumulate: bool,
    activation: bool,
}

impl Words {
    fn list(&self, g: &Geometry) -> Vec<u32> {
        let ([x, y, z], [kx, ky, _]) = (self.size, g.kernel);
        let last = [self.count, self.bias_at, self.chunk, self.co_first, self.parts, usize::from(self.accumulate)];
        let slope = if self.activation { LRELU_SLOPE as f32 } else { 1.0 };
        let whole = [x, y, z, g.i, g.o, kx, ky].into_iter().chain(last).map(|word| word as u32);
        whole.chain([slope.to_bits()]).chain(g.padded_words()).collect()
    }
}

/// How the output channels of a product are cut, and by how many lanes its weights are loaded.
struct ChannelBlocks {
    /// Output channels of a lane.
    width: usize,
    count: usize,
    lanes: usize,
}

impl ChannelBlocks {
    /// As many output channels as waste none; more than sixteen pay only where few taps keep the code short.
    fn new(context: &OpContext, g: &Geometry) -> ChannelBlocks {
        let widest = if g.pointwise() { 32 } else { 16 };
        let wastes_none = |width: &usize| *width <= widest && g.o.next_multiple_of(8).is_multiple_of(*width);
        let width = [32, 16].into_iter().find(wastes_none).unwrap_or(8);
        let lanes = match context.limits.min_subgroup_lanes {
            16.. => width.min(16),
            8.. => 8,
            4.. => 4,
            _ => 1,
        };
        ChannelBlocks { width, count: g.o.div_ceil(width), lanes }
    }

    /// Adds the kernel that rearranges the weight, perhaps for Winograd's algorithm; returns its place and where the bias
    /// begins, in vectors.
    fn pack(
        &self,
        program: &mut Program,
        context: &OpContext,
        g: &Geometry,
        pass: Pass,
        tiling: Option<&Tiling>,
    ) -> (Operand, usize) {
        let (vectors, elements) = self.packed(g, tiling);
        let packed = program.image(elements);
        let words = Words { count: self.count, bias_at: vectors, ..Words::default() };
        let mut operands = vec![context.input(1), packed.clone()];
        operands.extend(pass.bias.then(|| context.input(2)));
        let kernel =
            pass.pack_kernel(g, false).writes_image(2).define("kz", g.kernel[2] as i64).define("cb", self.width as i64);
        let kernel = Tiling::define(tiling, kernel);
        program.dispatch(kernel, words.list(g), operands, context.grid_for(self.count * self.width * g.i.div_ceil(4)));
        (packed, vectors)
    }

    /// Vectors of the rearranged weight, and elements with the bias, which follows.
    fn packed(&self, g: &Geometry, tiling: Option<&Tiling>) -> (usize, usize) {
        let taps = tiling.map_or(g.taps(), |tiling| g.taps() / tiling.taps * tiling.rows());
        let vectors = self.count * self.width * taps * g.i.div_ceil(4);
        (vectors, 4 * vectors + self.count * self.width)
    }

    fn define(&self, kernel: Kernel) -> Kernel {
        kernel.define("cb", self.width as i64).define("lanes", self.lanes as i64)
    }

    /// Adds the launch of `kernel` on so many blocks of voxels, with workgroups of which not half idles.
    fn dispatch(
        &self,
        program: &mut Program,
        context: &OpContext,
        kernel: &Kernel,
        words: (&Words, &Geometry),
        operands: Vec<Operand>,
    ) {
        let (words, g) = words;
        let few = self.lanes.max(LANES);
        let lanes = |threads: usize| words.count.next_multiple_of(threads);
        let threads = if lanes(WORKGROUP) >= 2 * lanes(few) { few } else { WORKGROUP };
        let [x, y, _] = context.grid(words.count.div_ceil(threads));
        let kernel = kernel.clone().define("threads", threads as i64);
        program.dispatch(kernel, words.list(g), operands, [x, y, self.count as u32]);
    }
}

/// The forward product; see [`super::program`].
pub(super) fn multiply(context: &OpContext, g: &Geometry, pass: Pass) -> Result<Program> {
    let channels = ChannelBlocks::new(context, g);
    let target = if channels.width >= 16 || g.pointwise() { 4 } else { 8 };
    let block = VoxelBlock::new(g, target, if g.is_same() { LONGEST_BLOCK } else { target });
    // Transformed, a wide weight may be more than an image holds.
    let fits = |tiling: &Tiling| WORD_BYTES * channels.packed(g, Some(tiling)).1 <= context.limits.max_image_bytes;
    if let Some(tiling) = Tiling::of_product(context, g).filter(|tiling| block.y == 1 && fits(tiling)) {
        return Ok(winograd_product(context, g, pass, &channels, block, &tiling));
    }
    let mut program = Program::default();
    let direct = g.pointwise() && g.n * g.i * g.o <= DIRECT_PRODUCTS;
    let mut kernel = Tiling::define(None, channels.define(block.define(pass.kernel(g, false), g)));
    kernel = kernel.define("direct", i64::from(direct));
    let (weight, bias_at) = if direct {
        let read_as_it_is = [("transposed", pass.transposed), ("residual", pass.residual), ("bias", pass.bias)];
        kernel = read_as_it_is.into_iter().fold(kernel, |kernel, (name, value)| kernel.define(name, i64::from(value)));
        (context.input(1), 0)
    } else {
        kernel = kernel.reads_image(2);
        channels.pack(&mut program, context, g, pass, None)
    };
    let [from, to] = g.frame_elements();
    for window in context.windows(g.n, &[from, to])? {
        let count = block.count(g, window.len());
        let words =
            Words { size: g.extents(window.len()), count, bias_at, activation: pass.activation, ..Words::default() };
        let mut operands =
            vec![context.input(0).window(&window, from), weight.clone(), context.output(0).window(&window, to)];
        operands.extend(pass.masked.then(|| context.input(2).window(&window, to)));
        operands.extend((direct && pass.bias).then(|| context.input(2)));
        channels.dispatch(&mut program, context, &kernel, (&words, g), operands);
    }
    Ok(program)
}

/// The same by Winograd's algorithm along y.
fn winograd_product(
    context: &OpContext,
    g: &Geometry,
    pass: Pass,
    channels: &ChannelBlocks,
    block: VoxelBlock,
    tiling: &Tiling,
) -> Program {
    let mut program = Program::default();
    let (packed, bias_at) = channels.pack(&mut program, context, g, pass, Some(tiling));
    let transformed = tiling.image(&mut program, g);
    let kernel = channels.define(block.define(pass.kernel(g, false), g)).define("vin", 1).define("direct", 0);
    let kernel = Tiling::define(Some(tiling), kernel).reads_image(1).reads_image(2);
    let [from, to] = g.frame_elements();
    let tile = VoxelBlock { y: tiling.m, ..block };
    for window in &tiling.windows {
        let x = context.input(0).window(window, from);
        tiling.transform(&mut program, context, g, [x, transformed.clone()], window.len(), false);
        let count = tile.count(g, window.len());
        let words = Words { size: g.size, count, bias_at, activation: pass.activation, ..Words::default() };
        let operands = vec![transformed.clone(), packed.clone(), context.output(0).window(window, to)];
        channels.dispatch(&mut program, context, &kernel, (&words, g), operands);
    }
    program
}

/// How the weight gradient is cut into blocks of channels.
struct WeightBlocks {
    block: VoxelBlock,
    /// Output channels of a lane.
    width: usize,
    /// Vectors of four input channels in a block.
    civ: usize,
    ci_blocks: usize,
    co_blocks: usize,
    /// Taps along x, y and z of which a workgroup has all along y and z. By Winograd's algorithm there are none along y, but
    /// for each along x as many as a tile has products.
    taps: [usize; 3],
    /// Vectors of `width` output channels in the partial result of one block of output channels.
    members: usize,
}

impl WeightBlocks {
    fn new(g: &Geometry, tiling: Option<&Tiling>) -> WeightBlocks {
        // As many output channels a lane as waste none compared to one a lane; enough sums to keep the lanes busy.
        let padded = |width: usize| g.o.next_multiple_of(LANES * width);
        let width = [4, 2].into_iter().find(|&width| padded(width) == padded(1)).unwrap_or(1);
        let ci_vectors = g.i.div_ceil(4);
        let most = match tiling {
            Some(_) => 16 / width,
            None if g.pointwise() => 8,
            None => 4 / width,
        };
        // A power of two, so that few kernels serve all layers.
        let civ = ci_vectors.next_power_of_two().min(most);
        let [kx, _, kz] = g.kernel;
        let (voxels, taps) = match tiling {
            Some(tiling) => (1, [kx * tiling.rows(), 1, kz]),
            None if g.pointwise() => (16_usize.div_ceil(civ), g.kernel),
            None => (8, g.kernel),
        };
        let block = VoxelBlock::new(g, voxels, LONGEST_BLOCK);
        let ci_blocks = ci_vectors.div_ceil(civ);
        let members = ci_blocks * taps[0] * (taps[1] * kz * civ * 4 + 1) * LANES;
        WeightBlocks { block, width, civ, ci_blocks, co_blocks: g.o.div_ceil(LANES * width), taps, members }
    }

    fn define(&self, kernel: Kernel, g: &Geometry, tiling: Option<&Tiling>) -> Kernel {
        let kernel = kernel
            .define("width", self.width as i64)
            .define("civ", self.civ as i64)
            .define("ky", self.taps[1] as i64)
            .define("kz", g.kernel[2] as i64);
        Tiling::define(tiling, kernel)
    }
}

/// The weight gradient; see [`super::program`].
pub(super) fn weight_gradient(context: &OpContext, g: &Geometry, bias: bool) -> Result<Program> {
    let tiling = Tiling::of_gradient(context, g);
    let blocks = WeightBlocks::new(g, tiling.as_ref());
    let names = g.names();
    let [x, y] = g.frame_elements();
    let windows = match &tiling {
        Some(tiling) => tiling.windows.clone(),
        None => context.windows(g.n, &[x, y])?,
    };
    // What a workgroup takes for voxels: with Winograd's algorithm, tiles along y.
    let tiled = tiling.as_ref().map_or_else(|| g.clone(), |tiling| tiling.tiled(g));

    // Output channels are cut so that one set of partial results fits a binding.
    let limit = context.limits.max_storage_binding_bytes;
    let set_bytes = |co: usize| co * blocks.members * blocks.width * WORD_BYTES;
    let co_step = (limit / set_bytes(1)).clamp(1, blocks.co_blocks);
    let most_sets = (limit.min(PARTIAL_BYTES) / set_bytes(co_step)).max(1);
    let workgroups = blocks.ci_blocks * blocks.taps[0] * co_step;
    let chunks_of = |frames: usize| -> (usize, usize, usize) {
        let count = blocks.block.count(&tiled, frames);
        let (bytes, rows) =
            tiling.as_ref().map_or((CHUNK_BYTES, blocks.block.y), |tiling| (TILED_CHUNK_BYTES, tiling.rows()));
        let cached = bytes / (rows * blocks.block.z * (g.i + g.o) * WORD_BYTES);
        let chunk = cached.min(count.div_ceil(WORKGROUPS.div_ceil(workgroups))).max(MIN_CHUNK_BLOCKS);
        let wanted = count.div_ceil(chunk).min(most_sets).max(count.div_ceil(MAX_CHUNK_BLOCKS));
        let chunk = count.div_ceil(wanted);
        (count, chunk, count.div_ceil(chunk))
    };
    let sets = windows.iter().map(|window| chunks_of(window.len()).2).max().unwrap_or(1);

    let mut program = Program::default();
    let gradient = g.kernel_named(names.backward_weight, false);
    let gradient = blocks.define(blocks.block.define(gradient, g), g, tiling.as_ref());
    let gradient = gradient.define("vout", i64::from(g.o.is_multiple_of(blocks.width)));
    if g.pointwise() && windows.len() == 1 && sets == 1 && co_step == blocks.co_blocks {
        let (count, chunk, _) = chunks_of(g.n);
        let words = Words { size: g.extents(g.n), count, chunk, ..Words::default() };
        let mut operands = vec![context.input(0), context.input(1), context.output(0)];
        operands.extend(bias.then(|| context.output(1)));
        let workgroups = [blocks.ci_blocks as u32, 1, blocks.co_blocks as u32];
        let gradient = gradient.define("direct", 1).define("bias", i64::from(bias));
        program.dispatch(gradient, words.list(g), operands, workgroups);
        return Ok(program);
    }
    let gradient = gradient.define("direct", 0);
    let elements = sets * set_bytes(co_step) / WORD_BYTES;
    let partial: Slot = program.scratch(elements);
    let turned = g.clone().turned();
    let images = tiling.as_ref().map(|tiling| [g, &turned].map(|g| tiling.image(&mut program, g)));
    // What lies as is usual needs no words that tell it, tiled or not.
    let listed = if g.is_same() { g } else { &tiled };
    let gradient = if tiling.is_some() { gradient.reads_image(1).reads_image(2) } else { gradient };
    let reduce = Kernel::new("conv3d.wgsl", names.reduce_weight).define("tiled", 0).define("bias", i64::from(bias));
    let reduce = blocks.define(reduce, g, tiling.as_ref());
    for co_first in (0..blocks.co_blocks).step_by(co_step) {
        let co: Range<usize> = co_first..blocks.co_blocks.min(co_first + co_step);
        for (number, window) in windows.iter().enumerate() {
            let (count, chunk, chunks) = chunks_of(window.len());
            let words = Words { size: tiled.extents(window.len()), count, chunk, co_first, ..Words::default() };
            let mut operands = vec![context.input(0).window(window, x), context.input(1).window(window, y)];
            if let (Some(tiling), Some(images)) = (&tiling, &images) {
                for (i, of) in [g, &turned].into_iter().enumerate() {
                    let ends = [operands[i].clone(), images[i].clone()];
                    tiling.transform(&mut program, context, of, ends, window.len(), i == 1);
                }
                operands = images.to_vec();
            }
            operands.push(Operand::scratch(partial, elements));
            let workgroups = [(blocks.ci_blocks * blocks.taps[0]) as u32, chunks as u32, co.len() as u32];
            program.dispatch(gradient.clone(), words.list(listed), operands, workgroups);

            let count = co.len() * blocks.members / (blocks.taps[0] / g.kernel[0]);
            let words = Words { count, co_first, parts: chunks, accumulate: number > 0, ..Words::default() };
            let mut operands = vec![Operand::scratch(partial, elements), context.output(0)];
            operands.extend(bias.then(|| context.output(1)));
            program.dispatch(reduce.clone(), words.list(g), operands, context.grid(count.div_ceil(WORKGROUP)));
        }
    }
    Ok(program)
}
