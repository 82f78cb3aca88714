//! Winograd's algorithm along y for the register-blocked family (Lavin and Gray 2016): a tile of m rows takes m + 2 products
//! where three taps take 3 m (`shaders/conv3d/winograd.wgsl`).

use std::ops::Range;

use super::Words;
use crate::graph::program::Operand;
use crate::graph::{Kernel, KernelLimits, OpContext, Program, WORD_BYTES};
use crate::layers::conv3d::Geometry;

/// Products of a convolution from which on the algorithm is worth its launches.
const LEAST_PRODUCTS: usize = 8 << 20;

/// Channels on either side from which on it is worth them in the weight gradient, which has two tensors to transform.
const LEAST_CHANNELS: usize = 16;

/// Memory for a transformed tensor, unless one frame alone needs more.
const TRANSFORMED_BYTES: usize = 32 << 20;

/// How a tensor is cut along y, and which frames are transformed at once.
pub(super) struct Tiling {
    /// Rows of a tile.
    pub m: usize,
    pub windows: Vec<Range<usize>>,
}

impl Tiling {
    /// For a product with the weight; `None` where the plain algorithm is the faster.
    pub fn of_product(context: &OpContext, g: &Geometry) -> Option<Tiling> {
        // The fewer rows, those that a last tile lacks included.
        let m = if transformed_elements(g, 4) < transformed_elements(g, 2) { 4 } else { 2 };
        Tiling::new(context, g, m, transformed_elements(g, m))
    }

    /// For the weight gradient, likewise.
    pub fn of_gradient(context: &OpContext, g: &Geometry) -> Option<Tiling> {
        let tiling = Tiling::of_product(context, g).filter(|tiling| tiling.m == 4)?;
        let transformed = transformed_elements(g, 4).max(transformed_elements(&g.clone().turned(), 4));
        (g.i.min(g.o) >= LEAST_CHANNELS).then(|| Tiling::new(context, g, tiling.m, transformed))?
    }

    fn new(context: &OpContext, g: &Geometry, m: usize, transformed: usize) -> Option<Tiling> {
        let products = g.n * g.voxels() * g.taps() * g.i * g.o;
        if !g.is_same() || g.kernel[1] != 3 || products < LEAST_PRODUCTS {
            return None;
        }
        let limits = context.limits;
        let most = TRANSFORMED_BYTES.max(WORD_BYTES * transformed).min(limits.max_image_bytes);
        let max_storage_binding_bytes = limits.max_storage_binding_bytes.min(most);
        let within = OpContext { limits: &KernelLimits { max_storage_binding_bytes, ..limits.clone() }, ..*context };
        let windows = within.windows(g.n, &[g.voxels() * g.i, g.voxels() * g.o, transformed]).ok()?;
        Some(Tiling { m, windows })
    }

    /// Rows, and products, of a transformed tile.
    pub fn rows(&self) -> usize {
        self.m + 2
    }

    /// The extents of a frame in tiles.
    pub fn extents(&self, g: &Geometry) -> [usize; 3] {
        let [x, y, z] = g.size;
        [x, y.div_ceil(self.m), z]
    }

    /// Adds an image for the transformed input of any window.
    pub fn image(&self, program: &mut Program, g: &Geometry) -> Operand {
        program.image(self.windows.iter().map(Range::len).max().unwrap_or(0) * transformed_elements(g, self.m))
    }

    /// Adds the launch that transforms the input `from` of so many frames; `of_gradient`: as the result's gradient is in the
    /// weight gradient.
    pub fn transform(
        &self,
        program: &mut Program,
        context: &OpContext,
        g: &Geometry,
        [from, to]: [Operand; 2],
        frames: usize,
        of_gradient: bool,
    ) {
        let kernel = Kernel::new("conv3d.wgsl", "conv3d_transform")
            .define("tiled", 0)
            .define("vin", i64::from(g.i.is_multiple_of(4)))
            .define("winograd", self.m as i64)
            .define("of_gradient", i64::from(of_gradient))
            .writes_image(2);
        let count = frames * self.extents(g).iter().product::<usize>();
        let words = Words { size: g.size, count, ..Words::default() };
        program.dispatch(kernel, words.list(g), vec![from, to], context.grid_for(count));
    }
}

/// Elements of a transformed frame.
fn transformed_elements(g: &Geometry, m: usize) -> usize {
    let [x, y, z] = g.size;
    x * y.div_ceil(m) * (m + 2) * z * g.i.next_multiple_of(4)
}
