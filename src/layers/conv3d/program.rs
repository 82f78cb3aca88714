//! Which kernels a convolution runs, with which blocks, and in which pieces.
//!
//! CPU adapters run the register-blocked family (`shaders/conv3d/blocked.wgsl`), GPUs the workgroup-tiled one
//! (`shaders/conv3d/tiled.wgsl`). Both first rearrange the weight in a scratch tensor, and both sum weight gradients in two
//! stages, so that no order of execution shows in a result.

use std::ops::Range;

use super::Geometry;
use crate::Result;
use crate::graph::program::{Operand, WORKGROUP};
use crate::graph::{ELEMENT_BYTES, Kernel, OpContext, Program, Slot};

/// Lanes of one workgroup of the blocked weight gradient.
const WEIGHT_LANES: usize = 8;

/// Voxel blocks over which one workgroup of the blocked weight gradient sums, so that they stay in the cache while all
/// channel blocks read them.
const CHUNK_BLOCKS: usize = 256;

/// Most voxel blocks of a chunk, far below the number of iterations after which software Vulkan gives up.
const MAX_CHUNK_BLOCKS: usize = 200_000;

/// Memory for partial weight gradients, unless one set alone needs more.
const PARTIAL_BYTES: usize = 32 << 20;

/// The kernels' names, after the layer that runs them.
#[derive(Debug, Clone, Copy)]
struct Names {
    pack: &'static str,
    forward: &'static str,
    backward_data: &'static str,
    backward_weight: &'static str,
    reduce_weight: &'static str,
}

const CONV3D: Names = Names {
    pack: "conv3d_pack",
    forward: "conv3d_forward",
    backward_data: "conv3d_backward_data",
    backward_weight: "conv3d_backward_weight",
    reduce_weight: "conv3d_reduce_weight",
};

const LINEAR: Names = Names {
    pack: "linear_pack",
    forward: "linear_forward",
    backward_data: "linear_backward_data",
    backward_weight: "linear_backward_weight",
    reduce_weight: "linear_reduce_weight",
};

/// One of the two passes that multiply by the weight; `backward_data` is a convolution with the flipped, transposed weight.
#[derive(Debug, Clone, Copy)]
struct Pass {
    transposed: bool,
    bias: bool,
    activation: bool,
}

/// `y = act(w * x + b)`; inputs x, weight and, if `bias`, bias.
pub(in crate::layers) fn forward_program(
    context: &OpContext,
    g: &Geometry,
    bias: bool,
    activation: bool,
) -> Result<Program> {
    multiply(context, &g.normalised(), Pass { transposed: false, bias, activation })
}

/// `d_x`; inputs d_y and weight.
pub(in crate::layers) fn backward_data_program(context: &OpContext, g: &Geometry) -> Result<Program> {
    let Geometry { n, size, i, o, kernel } = g.normalised();
    let g = Geometry { n, size, i: o, o: i, kernel };
    multiply(context, &g, Pass { transposed: true, bias: false, activation: false })
}

/// `d_weight` and, if `bias`, `d_bias`; inputs x and d_y.
pub(in crate::layers) fn backward_weight_program(context: &OpContext, g: &Geometry, bias: bool) -> Result<Program> {
    weight_gradient(context, &g.normalised(), bias)
}

impl Geometry {
    /// A kernel of one tap does not care where a voxel is: every voxel is a frame.
    fn normalised(&self) -> Geometry {
        if self.taps() == 1 {
            Geometry { n: self.n * self.voxels(), size: [1; 3], ..self.clone() }
        } else {
            self.clone()
        }
    }

    fn pointwise(&self) -> bool {
        self.taps() == 1
    }

    fn names(&self) -> Names {
        if self.pointwise() { LINEAR } else { CONV3D }
    }

    /// The extents that a kernel sees in a window of so many frames: a linear layer has its rows along Z.
    fn extents(&self, frames: usize) -> [usize; 3] {
        if self.pointwise() { [1, 1, frames] } else { self.size }
    }

    /// How often a window's extents repeat.
    fn repeats(&self, frames: usize) -> usize {
        if self.pointwise() { 1 } else { frames }
    }
}

/// The voxels that one lane works on, along y and z.
#[derive(Debug, Clone, Copy, PartialEq)]
struct VoxelBlock {
    y: usize,
    z: usize,
    /// Voxels loaded beyond either end along z.
    halo: usize,
    /// The block may reach beyond the volume along z.
    checked: bool,
}

impl VoxelBlock {
    /// About `target` voxels, the whole of Z if that is short.
    fn new(g: &Geometry, target: usize) -> VoxelBlock {
        let [_, y, z] = g.size;
        if g.pointwise() {
            VoxelBlock { y: 1, z: target, halo: 0, checked: false }
        } else if z <= 8 {
            VoxelBlock { y: (target / z).clamp(1, y), z, halo: 0, checked: false }
        } else {
            let block = z.div_ceil(z.div_ceil(8));
            VoxelBlock { y: 1, z: block, halo: g.kernel[2] / 2, checked: g.kernel[2] > 1 || !z.is_multiple_of(block) }
        }
    }

    fn count(&self, g: &Geometry, frames: usize) -> usize {
        let [x, y, z] = g.extents(frames);
        g.repeats(frames) * x * y.div_ceil(self.y) * z.div_ceil(self.z)
    }

    fn define(&self, kernel: Kernel, g: &Geometry) -> Kernel {
        kernel
            .define("pointwise", i64::from(g.pointwise()))
            .define("by", self.y as i64)
            .define("bz", self.z as i64)
            .define("halo", self.halo as i64)
            .define("zcheck", i64::from(self.checked))
            .define("kz", g.kernel[2] as i64)
            .define("vin", i64::from(g.i.is_multiple_of(4)))
            .define("vout", i64::from(g.o.is_multiple_of(4)))
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
}

impl Words {
    fn list(&self, g: &Geometry) -> Vec<u32> {
        let ([x, y, z], [kx, ky, _]) = (self.size, g.kernel);
        let last = [self.count, self.bias_at, self.chunk, self.co_first, self.parts, usize::from(self.accumulate)];
        [x, y, z, g.i, g.o, kx, ky].iter().chain(&last).map(|&word| word as u32).collect()
    }
}

fn kernel(entry: &'static str) -> Kernel {
    Kernel::new("conv3d.wgsl", entry).define("tiled", 0)
}

fn multiply(context: &OpContext, g: &Geometry, pass: Pass) -> Result<Program> {
    // Sixteen output channels where that wastes none, else eight.
    let cb = if g.o.div_ceil(8).is_multiple_of(2) { 16 } else { 8 };
    let block = VoxelBlock::new(g, if cb == 16 || g.pointwise() { 4 } else { 8 });
    let lanes = match context.limits.min_subgroup_lanes {
        16.. => cb,
        8.. => 8,
        4.. => 4,
        _ => 1,
    };
    let co_blocks = g.o.div_ceil(cb);
    let vectors = co_blocks * cb * g.taps() * g.i.div_ceil(4);
    let elements = 4 * vectors + co_blocks * cb;

    let mut program = Program::default();
    let packed = program.scratch(elements);
    let names = g.names();
    let words = Words { count: co_blocks, bias_at: vectors, ..Words::default() };
    let mut operands = vec![context.input(1), Operand::scratch(packed, elements)];
    operands.extend(pass.bias.then(|| context.input(2)));
    let pack = kernel(names.pack)
        .define("transposed", i64::from(pass.transposed))
        .define("bias", i64::from(pass.bias))
        .define("kz", g.kernel[2] as i64)
        .define("cb", cb as i64);
    program.dispatch(pack, words.list(g), operands, context.grid_for(co_blocks * cb * g.i.div_ceil(4)));

    let (from, to) = (g.voxels() * g.i, g.voxels() * g.o);
    let entry = if pass.transposed { names.backward_data } else { names.forward };
    let forward = block
        .define(kernel(entry), g)
        .define("cb", cb as i64)
        .define("lanes", lanes as i64)
        .define("bias", i64::from(pass.bias))
        .define("activation", i64::from(pass.activation));
    for window in context.windows(g.n, &[from, to])? {
        let count = block.count(g, window.len());
        let words = Words { size: g.extents(window.len()), count, bias_at: vectors, ..Words::default() };
        let operands = vec![
            context.input(0).window(&window, from),
            Operand::scratch(packed, elements),
            context.output(0).window(&window, to),
        ];
        let [x, y, _] = context.grid_for(count);
        program.dispatch(forward.clone(), words.list(g), operands, [x, y, co_blocks as u32]);
    }
    Ok(program)
}

/// How the weight gradient of one launch is cut: blocks of channels, and chunks of voxel blocks.
struct WeightBlocks {
    block: VoxelBlock,
    /// Vectors of four input and output channels in a block.
    ni: usize,
    no: usize,
    ci_blocks: usize,
    co_blocks: usize,
    /// Vectors of four output channels in one lane's result for one block of output channels.
    row: usize,
}

impl WeightBlocks {
    fn new(g: &Geometry) -> WeightBlocks {
        let vectors = |channels: usize| match channels.div_ceil(4) {
            _ if !g.pointwise() => 1,
            1 => 1,
            2 => 2,
            _ => 4,
        };
        let (ni, no) = (vectors(g.i), vectors(g.o));
        let block = VoxelBlock::new(g, if g.pointwise() { 2 } else { 8 });
        let [kx, ky, kz] = g.kernel;
        let ci_blocks = g.i.div_ceil(4 * ni);
        let row = ci_blocks * kx * (ky * kz * 4 * ni + 1) * no;
        WeightBlocks { block, ni, no, ci_blocks, co_blocks: g.o.div_ceil(4 * no), row }
    }

    fn define(&self, kernel: Kernel, g: &Geometry) -> Kernel {
        kernel
            .define("ni", self.ni as i64)
            .define("no", self.no as i64)
            .define("ky", g.kernel[1] as i64)
            .define("kz", g.kernel[2] as i64)
    }
}

fn weight_gradient(context: &OpContext, g: &Geometry, bias: bool) -> Result<Program> {
    let blocks = WeightBlocks::new(g);
    let names = g.names();
    let (x, y) = (g.voxels() * g.i, g.voxels() * g.o);
    let windows = context.windows(g.n, &[x, y])?;

    // Output channels are cut so that one set of partial results fits a binding.
    let limit = context.limits.max_storage_binding_bytes;
    let set_bytes = |co: usize| WEIGHT_LANES * co * blocks.row * 4 * ELEMENT_BYTES;
    let co_step = (limit / set_bytes(1)).clamp(1, blocks.co_blocks);
    let most_sets = (limit.min(PARTIAL_BYTES) / set_bytes(co_step)).max(1);
    let chunks_of = |frames: usize| -> (usize, usize, usize) {
        let count = blocks.block.count(g, frames);
        let wanted = count.div_ceil(CHUNK_BLOCKS).min(most_sets).max(count.div_ceil(MAX_CHUNK_BLOCKS));
        let chunk = count.div_ceil(wanted);
        (count, chunk, count.div_ceil(chunk))
    };
    let sets = windows.iter().map(|window| chunks_of(window.len()).2).max().unwrap_or(1);

    let mut program = Program::default();
    let elements = sets * set_bytes(co_step) / ELEMENT_BYTES;
    let partial: Slot = program.scratch(elements);
    let gradient = blocks.block.define(blocks.define(kernel(names.backward_weight), g), g);
    let reduce = blocks.define(kernel(names.reduce_weight), g).define("bias", i64::from(bias));
    for co_first in (0..blocks.co_blocks).step_by(co_step) {
        let co: Range<usize> = co_first..blocks.co_blocks.min(co_first + co_step);
        for (number, window) in windows.iter().enumerate() {
            let (count, chunk, chunks) = chunks_of(window.len());
            let words = Words { size: g.extents(window.len()), count, chunk, co_first, ..Words::default() };
            let operands = vec![
                context.input(0).window(window, x),
                context.input(1).window(window, y),
                Operand::scratch(partial, elements),
            ];
            let workgroups = [(blocks.ci_blocks * g.kernel[0]) as u32, chunks as u32, co.len() as u32];
            program.dispatch(gradient.clone(), words.list(g), operands, workgroups);

            let count = co.len() * blocks.row;
            let parts = chunks * WEIGHT_LANES;
            let words = Words { count, co_first, parts, accumulate: number > 0, ..Words::default() };
            let mut operands = vec![Operand::scratch(partial, elements), context.output(0)];
            operands.extend(bias.then(|| context.output(1)));
            program.dispatch(reduce.clone(), words.list(g), operands, context.grid(count.div_ceil(WORKGROUP)));
        }
    }
    Ok(program)
}
