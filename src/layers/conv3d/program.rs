//! Which kernels a convolution runs, with which blocks, and in which pieces.
//!
//! CPU adapters run the register-blocked family (`shaders/conv3d/blocked.wgsl`), GPUs the workgroup-tiled one
//! (`shaders/conv3d/tiled.wgsl`), as do CPU adapters without subgroups for the weight gradient. Both first rearrange the
//! weight in a scratch tensor, and both sum weight gradients in two stages, so that no order of execution shows in a result.

use super::{Geometry, blocked, tiled};
use crate::Result;
use crate::graph::{Kernel, OpContext, Program};

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

/// One of the two passes that multiply by the weight; `backward_data` is a convolution with the flipped, transposed weight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pass {
    pub transposed: bool,
    pub bias: bool,
    pub activation: bool,
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
    let g = g.normalised();
    let lanes = context.limits.min_subgroup_lanes;
    if context.limits.is_cpu && lanes >= blocked::LANES {
        blocked::weight_gradient(context, &g, bias)
    } else {
        tiled::weight_gradient(context, &g, bias)
    }
}

fn multiply(context: &OpContext, g: &Geometry, pass: Pass) -> Result<Program> {
    if context.limits.is_cpu { blocked::multiply(context, g, pass) } else { tiled::multiply(context, g, pass) }
}

impl Pass {
    /// The kernel that multiplies, with what both families define.
    pub(super) fn kernel(&self, g: &Geometry, tiled: bool) -> Kernel {
        let names = g.names();
        g.kernel_named(if self.transposed { names.backward_data } else { names.forward }, tiled)
            .define("bias", i64::from(self.bias))
            .define("activation", i64::from(self.activation))
    }

    /// The kernel that rearranges the weight before.
    pub(super) fn pack_kernel(&self, g: &Geometry, tiled: bool) -> Kernel {
        Kernel::new("conv3d.wgsl", g.names().pack)
            .define("tiled", i64::from(tiled))
            .define("transposed", i64::from(self.transposed))
            .define("bias", i64::from(self.bias))
    }
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

    pub(super) fn pointwise(&self) -> bool {
        self.taps() == 1
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

    /// A kernel of either family, with what is known of the operands.
    pub(super) fn kernel_named(&self, entry: &'static str, tiled: bool) -> Kernel {
        Kernel::new("conv3d.wgsl", entry)
            .define("tiled", i64::from(tiled))
            .define("pointwise", i64::from(self.pointwise()))
            .define("vin", i64::from(self.i.is_multiple_of(4)))
            .define("vout", i64::from(self.o.is_multiple_of(4)))
    }
}
