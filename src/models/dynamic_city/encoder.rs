//! From labels to planes: two encoders of voxels, and the projections of what they make.

use super::Widths;
use super::projection::{Dropouts, Volume, project};
use crate::graph::{Graph, Init, TensorId};
use crate::layers::concat::slice;
use crate::layers::instance_norm::instance_norm;
use crate::layers::label_conv::label_conv;
use crate::layers::linear::linear;
use crate::layers::permute::permute;
use crate::models::BatchShape;
use crate::models::modules::{Kernel, default_init, down_layer, residual_block};
use crate::{Error, Result};

/// Taps of a kernel of 3x3x3.
const TAPS: usize = 27;

/// The six planes, `xy [B, X', Y', C]` and so on, those over time `[B, T/2, X', C]` and so on, from labels in blocked order.
pub fn encode(
    g: &mut Graph,
    widths: &Widths,
    shape: &BatchShape,
    labels: TensorId,
    dropouts: &mut Dropouts,
) -> Result<[TensorId; 6]> {
    let embedding =
        g.scope("embedding", |g| g.parameter("weight", &[widths.classes, widths.latent_channels], Init::Normal))?;
    let space = voxel_encoder(g, "space", labels, embedding, 0)?;
    let time = voxel_encoder(g, "time", labels, embedding, shape.frames)?;
    let ([x, y, z], c) = (shape.cells(), widths.latent_channels);
    let volume = |g: &mut Graph, tensor| {
        let tensor = g.reshape(tensor, &[shape.batch, shape.frames, x, y, z, c])?;
        Ok::<_, Error>(Volume { axes: "txyz", tensor })
    };
    let (space, time) = (volume(g, space)?, volume(g, time)?);
    let [xy, xz, yz, tx, ty, tz] = g.scope("projection", |g| {
        let mut onto = |g: &mut Graph, from, axes| project(g, widths, from, axes, dropouts);
        let still = Volume { axes: "xyz", tensor: onto(g, space, "xyz")? };
        let (xy, xz, yz) = (onto(g, still, "xy")?, onto(g, still, "xz")?, onto(g, still, "yz")?);
        let (tx, ty, tz) = (onto(g, time, "tx")?, onto(g, time, "ty")?, onto(g, time, "tz")?);
        Ok([xy, xz, yz, tx, ty, tz])
    })?;
    g.scope("down", |g| Ok([xy, xz, yz, halved(g, tx, "tx")?, halved(g, ty, "ty")?, halved(g, tz, "tz")?]))
}

/// `[N, X', Y', Z', C]` from labels `[N, X', Y', Z', 8]` and what they are embedded in, to which `appended` values would be
/// appended.
fn voxel_encoder(
    g: &mut Graph,
    name: &str,
    labels: TensorId,
    embedding: TensorId,
    appended: usize,
) -> Result<TensorId> {
    let width = g.tensor(embedding).spec.channels();
    g.scope(name, |g| {
        let u = g.scope("conv0", |g| first_convolution(g, labels, embedding, appended))?;
        let v = residual_block(g, u, "res0", Kernel::Continued, false, false)?;
        let w = down_layer(g, v, "down", width, [2; 3])?;
        let w = instance_norm(g, w, None, false, false)?;
        residual_block(g, w, "res1", Kernel::Continued, false, false)
    })
}

/// The convolution of embedded labels, `[N, X, Y, Z, C]`, as one table of K x 27 taps x C values, so that nothing is embedded at full
/// resolution.
///
/// The values that are appended tell the frame. They are the same all over it, and so is what the convolutions make of them, up
/// to the norm after `down`, which takes it away: their weights are parameters without effect, of which nothing is computed.
fn first_convolution(g: &mut Graph, labels: TensorId, embedding: TensorId, appended: usize) -> Result<TensorId> {
    let &[classes, width] = g.shape(embedding) else { return Ok(embedding) };
    let inputs = width + appended;
    let init = default_init(TAPS * inputs);
    let weight = g.parameter("weight", &[width, inputs, 3, 3, 3], init.clone())?;
    let bias = g.parameter("bias", &[width], init)?;
    let mut weight = g.reshape(weight, &[width, inputs * TAPS])?;
    if appended > 0 {
        weight = slice(g, weight, 0, width * TAPS)?;
    }
    let weight = g.reshape(weight, &[width, width, TAPS])?;
    let weight = permute(g, weight, &[2, 0, 1])?;
    let weight = g.reshape(weight, &[TAPS * width, width])?;
    let table = linear(g, embedding, weight, None, false)?;
    let table = g.reshape(table, &[classes, TAPS, width])?;
    label_conv(g, labels, table, bias)
}

/// A plane `[B, T, A, C]` at half as many times.
fn halved(g: &mut Graph, plane: TensorId, name: &str) -> Result<TensorId> {
    let &[b, t, a, c] = g.shape(plane) else { return Ok(plane) };
    let plane = g.reshape(plane, &[b, 1, t, a, c])?;
    let plane = down_layer(g, plane, name, c, [1, 2, 1])?;
    g.reshape(plane, &[b, t / 2, a, c])
}
