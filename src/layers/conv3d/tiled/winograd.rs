//! Winograd's algorithm F(4, 3) along y for the workgroup-tiled family (Lavin and Gray 2016): six products with a quarter of the
//! rows each, none of which has taps along y, instead of one with three (`shaders/conv3d/transform.wgsl`).

use std::ops::Range;

use super::{Packed, Tile, Words, columns};
use crate::Result;
use crate::graph::program::Operand;
use crate::graph::{Kernel, KernelLimits, OpContext, Program, WORD_BYTES};
use crate::layers::conv3d::Geometry;
use crate::layers::conv3d::program::Pass;

/// Rows along y that the products make together.
pub(super) const ROWS: usize = 4;

/// Products that make them.
pub(super) const PRODUCTS: usize = ROWS + 2;

/// Channels on either side from which on a tuner tries it.
const LEAST_CHANNELS: usize = 8;

/// Memory for what the products are of, and for what they make, unless one frame alone needs more.
const TRANSFORMED_BYTES: usize = 128 << 20;

/// The convolution that each product is; channels are padded to vectors.
pub(super) fn product_of(g: &Geometry) -> Geometry {
    let ([x, y, z], [kx, _, kz]) = (g.size, g.kernel);
    let [i, o] = [g.i, g.o].map(|channels| channels.next_multiple_of(4));
    Geometry::same(g.n, [x, y.div_ceil(ROWS), z], [i, o], [kx, 1, kz])
}

/// Whether a tuner tries it, where so many bytes are to be bound beside what is transformed.
pub(super) fn is_tried(context: &OpContext, g: &Geometry, bytes: usize) -> bool {
    g.is_same()
        && g.kernel[1] == 3
        && g.i.min(g.o) >= LEAST_CHANNELS
        && bytes <= context.limits.max_storage_binding_bytes
        && windows(context, g).is_ok()
}

/// The frames that are multiplied at once.
///
/// # Errors
/// As [`OpContext::windows`].
pub(super) fn windows(context: &OpContext, g: &Geometry) -> Result<Vec<Range<usize>>> {
    let product = product_of(g);
    let [from, to] = [product.i, product.o].map(|channels| PRODUCTS * product.voxels() * channels);
    let most = TRANSFORMED_BYTES.max(WORD_BYTES * from.max(to)).min(context.limits.max_storage_binding_bytes);
    let limits = &KernelLimits { max_storage_binding_bytes: most, ..context.limits.clone() };
    let within = OpContext { limits, ..*context };
    within.windows(g.n, &[g.voxels() * g.i, g.voxels() * g.o, from, to])
}

/// Bytes of the packed weight.
pub(super) fn packed_bytes(g: &Geometry, tile: &Tile) -> usize {
    PRODUCTS * Packed::new(&product_of(g), tile).matrix * WORD_BYTES
}

/// Bytes of one set of partial weight gradients.
pub(super) fn partial_bytes(g: &Geometry) -> usize {
    let product = product_of(g);
    PRODUCTS * product.o * columns(&product) * 4 * WORD_BYTES
}

/// What makes the products' operand of a tensor.
pub(super) struct Transform {
    /// Of the tensor, whose channels are the inputs.
    of: Geometry,
    kernel: Kernel,
    to: Operand,
}

impl Transform {
    /// Adds a scratch tensor for the operand of any window; `of_gradient`: as the result's gradient is in the weight gradient.
    pub fn new(program: &mut Program, of: Geometry, windows: &[Range<usize>], of_gradient: bool) -> Transform {
        let kernel = kernel("conv3d_transform")
            .define("vin", i64::from(of.i.is_multiple_of(4)))
            .define("of_gradient", i64::from(of_gradient));
        let to = scratch(program, &of, windows, product_of(&of).i);
        Transform { of, kernel, to }
    }

    /// Adds the launch for so many frames of `x`; returns the operand.
    pub fn of(&self, program: &mut Program, context: &OpContext, x: Operand, frames: usize) -> Operand {
        let product = product_of(&self.of);
        let words = Words { size: self.of.size, count: frames * self.of.voxels(), ..Words::default() };
        let invocations = frames * product.voxels() * product.i / 4;
        let operands = vec![x, self.to.clone()];
        program.dispatch(self.kernel.clone(), words.list(&self.of), operands, context.grid_for(invocations));
        self.to.clone()
    }
}

fn kernel(name: &'static str) -> Kernel {
    Kernel::new("conv3d.wgsl", name).define("tiled", 1).define("winograd", ROWS as i64)
}

/// Room for all products' tensors of so many channels in any window.
fn scratch(program: &mut Program, g: &Geometry, windows: &[Range<usize>], channels: usize) -> Operand {
    let frames = windows.iter().map(Range::len).max().unwrap_or(0);
    let elements = PRODUCTS * frames * product_of(g).voxels() * channels;
    Operand::scratch(program.scratch(elements), elements)
}

/// The forward product; see [`super::super::program`].
pub(super) fn multiply(context: &OpContext, g: &Geometry, pass: Pass, tile: &Tile) -> Result<Program> {
    let windows = windows(context, g)?;
    let product = product_of(g);
    let Packed { co_padded, matrix, .. } = Packed::new(&product, tile);
    let mut program = Program::default();
    let packed = program.scratch(PRODUCTS * matrix);
    let packed = Operand::scratch(packed, PRODUCTS * matrix);
    let packed_words = Words { co_padded, bias_at: matrix / 4, ..Words::default() };
    let words = Words { count: matrix, ..packed_words };
    let pack = tile.define_pack(Pass { bias: false, ..pass }.pack_kernel(g, true));
    program.dispatch(pack, words.list(g), vec![context.input(1), packed.clone()], context.grid_for(matrix));

    let transform = Transform::new(&mut program, g.clone(), &windows, false);
    let made = scratch(&mut program, g, &windows, product.o);
    let plain = Pass { transposed: pass.transposed, ..Pass::default() };
    let multiply = tile.define(plain.kernel(&product, true), context.limits.matrix_units());
    let inverse = kernel("conv3d_inverse_transform")
        .define("vout", i64::from(g.o.is_multiple_of(4)))
        .define("bias", i64::from(pass.bias))
        .define("activation", i64::from(pass.activation))
        .define("masked", i64::from(pass.masked));
    let (from, to) = (g.voxels() * g.i, g.voxels() * g.o);
    for window in windows {
        let x = transform.of(&mut program, context, context.input(0).window(&window, from), window.len());
        let count = window.len() * product.voxels();
        let words = Words { size: product.size, count, ..packed_words };
        let [across, down, _] = context.grid(count.div_ceil(tile.rows));
        let grid = [across, down, (PRODUCTS * co_padded / tile.columns) as u32];
        program.dispatch(multiply.clone(), words.list(&product), vec![x, packed.clone(), made.clone()], grid);

        let words = Words { size: g.size, count: window.len() * g.voxels(), ..Words::default() };
        let mut operands = vec![made.clone(), context.output(0).window(&window, to)];
        operands.extend(pass.bias.then(|| context.input(2)));
        operands.extend(pass.masked.then(|| context.input(2).window(&window, to)));
        program.dispatch(inverse.clone(), words.list(g), operands, context.grid_for(count * product.o / 4));
    }
    Ok(program)
}
