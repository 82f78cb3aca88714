//! Encoders that code every frame by itself: the controls that the latent planes are compared with (`docs/model.md`).

use super::{EXTRACTOR_WIDTH, Widths, embedded, extractor};
use crate::graph::{Graph, TensorId};
use crate::layers::axis_mean::axis_mean;
use crate::layers::broadcast_mul::broadcast_mul;
use crate::layers::instance_norm::instance_norm;
use crate::layers::pointwise::Pointwise;
use crate::models::modules::{
    Kernel, LinearOptions, Sampler, distribution_layer, down_layer, linear_layer, residual_block, up_layer,
};
use crate::models::{BatchShape, Mode};
use crate::{Error, Result};

/// The values of `model.encoder`, with what they mean.
pub const ENCODERS: &[(&str, &str)] =
    &[("planes", "six latent planes"), ("conv3d_se", "a volume a frame"), ("bev", "a map from above a frame")];

/// c, channels of a latent with so many cells.
fn channels(widths: &Widths, shape: &BatchShape, cells: usize) -> usize {
    let [x, y, z] = shape.cells();
    let planes = widths.latent_channels * (x * y + x * z + y * z + shape.frames * (x + y + z));
    match widths.volume_channels {
        0 => (planes / cells).max(1),
        given => given,
    }
}

/// The extents of cells of twice the size.
fn halved(name: &str, shape: &BatchShape, axes: &[usize]) -> Result<[usize; 3]> {
    let mut cells = shape.cells();
    for &axis in axes {
        if !cells[axis].is_multiple_of(2) {
            return Err(Error::Usage(format!(
                "the grid has {} voxels along {}, but the encoder {name} needs a multiple of 4; set data.crop, or another \
                 model.encoder",
                2 * cells[axis],
                ["x", "y", "z"][axis]
            )));
        }
        cells[axis] /= 2;
    }
    Ok(cells)
}

/// Convolutions and squeeze-excitation (the paper's Table 4): `[N, X', Y', Z', F]` from a latent volume a frame.
pub fn conv3d_se(
    g: &mut Graph,
    widths: &Widths,
    shape: &BatchShape,
    labels: TensorId,
    mode: Mode,
) -> Result<(TensorId, Sampler)> {
    let [x, y, z] = halved("conv3d_se", shape, &[0, 1, 2])?;
    let (frames, f) = (shape.total_frames(), widths.features);
    let features = extractor(g, widths, labels)?;
    g.scope("volume", |g| {
        let u = down_layer(g, features, "down", 2 * f, [2, 2, 2])?;
        let u = instance_norm(g, u, None, false, false)?;
        // The mean of what was normalised is zero, of which nothing could be learnt: the activation comes first.
        let v = residual_block(g, u, "res", Kernel::Three, false, true)?;
        let w = squeeze_excitation(g, v, f)?;
        let width = channels(widths, shape, shape.frames * x * y * z);
        let encoded = distribution_layer(g, w, "distribution", width)?;
        let mut sampler = Sampler::new(mode, g.tensor(encoded).spec.elements());
        let encoded = g.reshape(encoded, &[shape.batch, shape.frames, x, y, z, 2 * width])?;
        let decoded = sampler.decoded(g, "volume", "txyz", encoded)?;
        let decoded = g.reshape(decoded, &[frames, x, y, z, width])?;
        Ok((up_layer(g, decoded, "up", f, [2, 2, 2])?, sampler))
    })
}

/// `x` times what a small network makes of its mean over each frame (Hu et al. 2018).
fn squeeze_excitation(g: &mut Graph, x: TensorId, hidden: usize) -> Result<TensorId> {
    let &[n, rows, columns, height, width] = g.shape(x) else {
        return Err(Error::Shape(format!("{} is no volume", g.describe(x))));
    };
    g.scope("squeeze", |g| {
        let flat = g.reshape(x, &[n, rows, columns * height, width])?;
        let sections = axis_mean(g, flat, 1)?;
        let sections = g.reshape(sections, &[n, 1, columns * height, width])?;
        let mean = axis_mean(g, sections, 2)?;
        let hidden = linear_layer(g, mean, "hidden", hidden, LinearOptions { activation: true, ..Default::default() })?;
        let scale = linear_layer(g, hidden, "out", width, LinearOptions::default())?;
        let scale = g.push_one(Pointwise::Sigmoid { scale: 1.0 }, &[scale])?;
        let scale = g.reshape(scale, &[n, 1, 1, 1, width])?;
        broadcast_mul(g, x, scale)
    })
}

/// Columns as channels, and 2D convolutions: `[N, X', Y', Z', D]` from a latent map a frame.
pub fn bev(
    g: &mut Graph,
    widths: &Widths,
    shape: &BatchShape,
    labels: TensorId,
    mode: Mode,
) -> Result<(TensorId, Sampler)> {
    let [x, y, z] = halved("bev", shape, &[0, 1])?;
    let (frames, h, d) = (shape.total_frames(), widths.hidden, widths.plane_features);
    let activated = || LinearOptions { activation: true, ..Default::default() };
    let res = |g: &mut Graph, x, name: &str| residual_block(g, x, name, Kernel::Plane, true, false);
    let columns = g.scope("extractor", |g| embedded(g, widths, labels))?;
    // An axis of one cell in place of x makes 2D convolutions of y and z.
    let columns = g.reshape(columns, &[frames, 1, 2 * x, 2 * y, z * EXTRACTOR_WIDTH])?;
    g.scope("bev", |g| {
        let a = linear_layer(g, columns, "in", h, activated())?;
        let a = res(g, a, "res1")?;
        let b = down_layer(g, a, "down", h, [1, 2, 2])?;
        let b = instance_norm(g, b, None, true, false)?;
        let b = res(g, b, "res2")?;
        let width = channels(widths, shape, shape.frames * x * y);
        let encoded = distribution_layer(g, b, "distribution", width)?;
        let mut sampler = Sampler::new(mode, g.tensor(encoded).spec.elements());
        let encoded = g.reshape(encoded, &[shape.batch, shape.frames, x, y, 2 * width])?;
        let decoded = sampler.decoded(g, "bev", "txy", encoded)?;
        let decoded = g.reshape(decoded, &[frames, 1, x, y, width])?;
        let expanded = linear_layer(g, decoded, "expand", h, activated())?;
        let expanded = res(g, expanded, "res3")?;
        let up = up_layer(g, expanded, "up", h, [1, 2, 2])?;
        let up = g.push_one(Pointwise::Lrelu, &[up])?;
        let up = res(g, up, "res4")?;
        let columns = linear_layer(g, up, "out", z * d, LinearOptions::default())?;
        Ok((g.reshape(columns, &[frames, 2 * x, 2 * y, z, d])?, sampler))
    })
}
