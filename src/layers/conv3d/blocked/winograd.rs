//! Winograd's algorithm along y for the register-blocked family (Lavin and Gray 2016): a tile of m rows takes m + r - 1 products
//! where r taps, two or three, take r m (`shaders/conv3d/winograd.wgsl`).

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
    /// Rows of y in a tile.
    pub m: usize,
    /// Taps along y.
    pub taps: usize,
    /// Tiles along y.
    tiles: usize,
    pub windows: Vec<Range<usize>>,
}

impl Tiling {
    /// For a product with the weight; `None` where the plain algorithm is the faster.
    pub fn of_product(context: &OpContext, g: &Geometry) -> Option<Tiling> {
        let [taps, rows] = [g.kernel[1], g.size[1]];
        let products = |m: usize| rows.div_ceil(m) * (m + taps - 1);
        let m = match taps {
            // The fewer rows, those that a last tile lacks included.
            3 if products(4) < products(2) => 4,
            3 => 2,
            2 if products(4) < 2 * rows => 4,
            _ => return None,
        };
        Tiling::new(context, g, m, |tiling| tiling.elements(g))
    }

    /// For the weight gradient, likewise.
    pub fn of_gradient(context: &OpContext, g: &Geometry) -> Option<Tiling> {
        let m = Tiling::of_product(context, g).filter(|tiling| tiling.m == 4)?.m;
        let turned = g.clone().turned();
        let most = |tiling: &Tiling| tiling.elements(g).max(tiling.elements(&turned));
        (g.i.min(g.o) >= LEAST_CHANNELS).then(|| Tiling::new(context, g, m, most))?
    }

    /// With a transformed frame of at most so many elements.
    fn new(context: &OpContext, g: &Geometry, m: usize, elements: impl Fn(&Tiling) -> usize) -> Option<Tiling> {
        let products = g.n * g.voxels() * g.taps() * g.i * g.o;
        if products < LEAST_PRODUCTS {
            return None;
        }
        let tiling = Tiling { m, taps: g.kernel[1], tiles: g.size[1].div_ceil(m), windows: Vec::new() };
        let transformed = elements(&tiling);
        let limits = context.limits;
        let most = TRANSFORMED_BYTES.max(WORD_BYTES * transformed).min(limits.max_image_bytes);
        let max_storage_binding_bytes = limits.max_storage_binding_bytes.min(most);
        let within = OpContext { limits: &KernelLimits { max_storage_binding_bytes, ..limits.clone() }, ..*context };
        let [x, y] = g.frame_elements();
        let windows = within.windows(g.n, &[x, y, transformed]).ok()?;
        Some(Tiling { windows, ..tiling })
    }

    /// What a kernel knows of a tiling, or of none.
    pub fn define(tiling: Option<&Tiling>, kernel: Kernel) -> Kernel {
        match tiling {
            Some(tiling) => kernel.define("winograd", tiling.m as i64).define("taps_y", tiling.taps as i64),
            None => kernel.define("winograd", 0),
        }
    }

    /// Rows, and products, of a transformed tile.
    pub fn rows(&self) -> usize {
        self.m + self.taps - 1
    }

    /// The volumes in tiles along y, of which those of x and y lie at the same places.
    pub fn tiled(&self, g: &Geometry) -> Geometry {
        let in_tiles = |[x, _, z]: [usize; 3]| [x, self.tiles, z];
        let [before_x, _, before_z] = g.before;
        Geometry { size: in_tiles(g.size), x_size: in_tiles(g.x_size), before: [before_x, 0, before_z], ..g.clone() }
    }

    /// Elements of a transformed frame of x.
    fn elements(&self, g: &Geometry) -> usize {
        let [x, _, z] = g.x_size;
        x * self.tiles * self.rows() * z * g.i.next_multiple_of(4)
    }

    /// Adds an image for the transformed input of any window.
    pub fn image(&self, program: &mut Program, g: &Geometry) -> Operand {
        program.image(self.windows.iter().map(Range::len).max().unwrap_or(0) * self.elements(g))
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
            .define("of_gradient", i64::from(of_gradient))
            .writes_image(2);
        let kernel = Tiling::define(Some(self), if g.is_same() { kernel } else { kernel.define("padded", 1) });
        let count = frames * self.tiled(g).x_size.iter().product::<usize>();
        let words = Words { size: g.size, count, ..Words::default() };
        program.dispatch(kernel, words.list(g), vec![from, to], context.grid_for(count));
    }
}
