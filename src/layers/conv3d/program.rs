//! Which kernels a convolution runs, with which blocks, and in which pieces.
//!
//! CPU adapters run the register-blocked family (`shaders/conv3d/blocked.wgsl`), GPUs the workgroup-tiled one
//! (`shaders/conv3d/tiled.wgsl`), as do CPU adapters without subgroups for the weight gradient. Both rearrange the weight in a
//! scratch tensor first, unless a layer is too small for that, and the blocked one also x where Winograd's algorithm saves
//! multiplications. Weight gradients are summed in a fixed order, so that no order of execution shows in a result.

use super::tiled::Tile;
use super::{Geometry, blocked, tiled};
use crate::Result;
use crate::graph::{DType, Kernel, OpContext, Program, TensorSpec, Variants};

/// Voxels from which on more of them make no difference to a tuner.
const MOST_TUNED_VOXELS: usize = 1 << 16;

/// The kernels' names, after the layer that runs them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names {
    pub pack: &'static str,
    pub forward: &'static str,
    pub backward_data: &'static str,
    pub backward_weight: &'static str,
    pub reduce_weight: &'static str,
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

/// One of the two passes that multiply by the weight.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::layers) struct Pass {
    /// The weight is flipped and transposed, as `backward_data` needs it.
    pub transposed: bool,
    pub bias: bool,
    pub activation: bool,
    /// The identity is added to the weight of a kernel of one tap, and so the input to the product.
    pub residual: bool,
    /// Results are multiplied by the derivative of leaky ReLU at the third input.
    pub masked: bool,
}

/// `y = act(w * x + b)`; inputs x, weight and, if `pass.bias`, bias.
pub(in crate::layers) fn forward_program(context: &OpContext, g: &Geometry, pass: Pass) -> Result<Program> {
    multiply(context, &g.normalised(), pass)
}

/// The variants of [`forward_program`].
pub(in crate::layers) fn forward_variants(context: &OpContext, g: &Geometry) -> Option<Variants> {
    let g = g.normalised();
    on_gpu(context, || multiply_tiles(context, &g, Pass::default()))
}

/// `d_x`; inputs d_y, weight and, if `pass.masked`, x.
pub(in crate::layers) fn backward_data_program(context: &OpContext, g: &Geometry, pass: Pass) -> Result<Program> {
    multiply(context, &g.normalised().turned(), pass)
}

/// The variants of [`backward_data_program`].
pub(in crate::layers) fn backward_data_variants(context: &OpContext, g: &Geometry, pass: Pass) -> Option<Variants> {
    let g = g.normalised().turned();
    on_gpu(context, || multiply_tiles(context, &g, pass))
}

/// `d_weight` and, if `bias`, `d_bias`; inputs x and d_y.
pub(in crate::layers) fn backward_weight_program(context: &OpContext, g: &Geometry, bias: bool) -> Result<Program> {
    let g = g.normalised();
    let limits = context.limits;
    if limits.policy.for_cpu && limits.min_subgroup_lanes >= blocked::LANES {
        return blocked::weight_gradient(context, &g, bias);
    }
    tiled::weight_gradient(context, &g, bias, weight_gradient_tiles(context, &g).chosen(context))
}

/// The variants of [`backward_weight_program`].
pub(in crate::layers) fn backward_weight_variants(context: &OpContext, g: &Geometry) -> Option<Variants> {
    on_gpu(context, || weight_gradient_tiles(context, &g.normalised()))
}

fn multiply(context: &OpContext, g: &Geometry, pass: Pass) -> Result<Program> {
    if context.limits.policy.for_cpu {
        return blocked::multiply(context, g, pass);
    }
    tiled::multiply(context, g, pass, multiply_tiles(context, g, pass).chosen(context))
}

/// Tiles worth a try, and how a tuner knows them.
struct Tiles {
    tiles: Vec<&'static Tile>,
    variants: Variants,
}

fn multiply_tiles(context: &OpContext, g: &Geometry, pass: Pass) -> Tiles {
    let (from, to) = ((0, g.x_size, g.i), (2, g.size, g.o));
    let framed: &[_] = if pass.masked { &[from, to] } else { &[from] };
    let entry = format!("{}{}", pass.entry(g), if pass.masked { " masked" } else { "" });
    Tiles::new(context, g, &entry, framed, tiled::multiply_tiles(context, g))
}

fn weight_gradient_tiles(context: &OpContext, g: &Geometry) -> Tiles {
    let framed = [(0, g.x_size, g.i), (1, g.size, g.o)];
    Tiles::new(context, g, g.names().backward_weight, &framed, tiled::weight_gradient_tiles(context, g))
}

fn on_gpu(context: &OpContext, tiles: impl FnOnce() -> Tiles) -> Option<Variants> {
    (!context.limits.policy.for_cpu).then(|| tiles().variants)
}

impl Tiles {
    /// Of the inputs, the `framed` ones have frames of such extents and so many channels a voxel; the others have none.
    fn new(
        context: &OpContext,
        g: &Geometry,
        entry: &str,
        framed: &[(usize, [usize; 3], usize)],
        tiles: Vec<&'static Tile>,
    ) -> Tiles {
        let Geometry { n, i, o, kernel: [kx, ky, kz], before, .. } = *g;
        let voxels = (n * g.voxels()).next_power_of_two().min(MOST_TUNED_VOXELS);
        let frames = n.min((MOST_TUNED_VOXELS / g.voxels()).max(1));
        let mut sample = context.inputs.to_vec();
        for &(input, [x, y, z], channels) in framed {
            sample[input].shape = vec![frames, x, y, z, channels];
        }
        let is_half = |spec: &&TensorSpec| spec.dtype == DType::F16;
        let half = context.inputs.iter().chain(context.outputs).filter(is_half).count();
        let padding = if g.is_same() { String::new() } else { format!(" padded by {before:?}") };
        let problem = format!("{entry} {kx}x{ky}x{kz}{padding} {i}->{o} {voxels} voxels, {half} of the operands f16");
        let names = tiles.iter().map(|tile| tile.name).collect();
        Tiles { tiles, variants: Variants { problem, names, sample } }
    }

    /// The tile that a tuner has chosen, or else the default.
    fn chosen(&self, context: &OpContext) -> &'static Tile {
        self.tiles[self.variants.chosen(&context.limits.policy.tuning)]
    }
}

impl Pass {
    fn entry(&self, g: &Geometry) -> &'static str {
        if self.transposed { g.names().backward_data } else { g.names().forward }
    }

    /// The kernel that multiplies, with what both families define. One of the blocked family serves layers with and without a
    /// bias or an activation, because software Vulkan takes long to compile each.
    pub(super) fn kernel(&self, g: &Geometry, tiled: bool) -> Kernel {
        let kernel = g.kernel_named(self.entry(g), tiled).define("masked", i64::from(self.masked));
        if !tiled {
            return kernel;
        }
        kernel.define("bias", i64::from(self.bias)).define("activation", i64::from(self.activation))
    }

    /// The kernel that rearranges the weight before.
    pub(super) fn pack_kernel(&self, g: &Geometry, tiled: bool) -> Kernel {
        Kernel::new("conv3d.wgsl", g.names().pack)
            .define("tiled", i64::from(tiled))
            .define("transposed", i64::from(self.transposed))
            .define("bias", i64::from(self.bias))
            .define("residual", i64::from(self.residual))
    }
}

impl Geometry {
    /// A kernel of one tap does not care where a voxel is: every voxel is a frame.
    fn normalised(&self) -> Geometry {
        if self.pointwise() {
            Geometry { n: self.n * self.voxels(), size: [1; 3], x_size: [1; 3], ..self.clone() }
        } else {
            self.clone()
        }
    }

    /// That of the data gradient: from d_y to d_x.
    pub(super) fn turned(self) -> Geometry {
        let before = [0, 1, 2].map(|axis| self.kernel[axis] as isize - 1 - self.before[axis]);
        Geometry { size: self.x_size, x_size: self.size, i: self.o, o: self.i, before, ..self }
    }

    pub(super) fn pointwise(&self) -> bool {
        self.taps() == 1 && self.is_same()
    }

    pub(super) fn names(&self) -> Names {
        if self.pointwise() { LINEAR } else { CONV3D }
    }

    /// The extents that a kernel sees in a window of so many frames: a linear layer has its rows along Z.
    pub(super) fn extents(&self, frames: usize) -> [usize; 3] {
        if self.pointwise() { [1, 1, frames] } else { self.size }
    }

    /// How often a window's extents repeat.
    pub(super) fn repeats(&self, frames: usize) -> usize {
        if self.pointwise() { 1 } else { frames }
    }

    /// Words that both families' `Parameters` have after the fourteenth where x and y lie otherwise than is usual.
    pub(super) fn padded_words(&self) -> Vec<u32> {
        if self.is_same() {
            return Vec::new();
        }
        let ([x, y, z], before) = (self.x_size.map(|extent| extent as u32), self.before.map(|layers| layers as u32));
        vec![0, 0, x, y, z, 0, before[0], before[1], before[2]]
    }

    /// A kernel of either family, with what is known of the operands.
    pub(super) fn kernel_named(&self, entry: &'static str, tiled: bool) -> Kernel {
        let kernel = Kernel::new("conv3d.wgsl", entry);
        let kernel = if self.is_same() { kernel } else { kernel.define("padded", 1) };
        kernel
            .define("tiled", i64::from(tiled))
            .define("pointwise", i64::from(self.pointwise()))
            .define("vin", i64::from(self.i.is_multiple_of(4)))
            .define("vout", i64::from(self.o.is_multiple_of(4)))
    }
}
