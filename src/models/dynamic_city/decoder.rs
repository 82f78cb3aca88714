//! From sampled planes to logits.

use super::Widths;
use crate::graph::{Add, Graph, Init, TensorId};
use crate::layers::activation::{Activation, activate};
use crate::layers::broadcast_add::broadcast_plus;
use crate::layers::broadcast_mul::{broadcast_mul, broadcast_to};
use crate::layers::concat::slice;
use crate::layers::group_norm::group_norm;
use crate::layers::instance_norm::instance_norm;
use crate::layers::linear::linear;
use crate::layers::permute::{permute, tile};
use crate::layers::plane_product::plane_product;
use crate::models::BatchShape;
use crate::models::modules::{
    Kernel, LinearOptions, PLANES, conv_layer, default_init, linear_layer, residual_block, up_layer,
};
use crate::{Error, Result};

/// What is added to the variance in the norm of a plane's block.
const BLOCK_EPS: f32 = 1e-6;

/// Values of a place's code: sine and cosine of each coordinate of time and space, times each of the frequencies 1, 2 and 4.
const CODE: usize = 24;
const FREQUENCIES: [f64; 3] = [1.0, 2.0, 4.0];

/// Logits `[N, X', Y', Z', 8, K]` in blocked order, from the planes in the order of their names.
pub fn decode(g: &mut Graph, widths: &Widths, shape: &BatchShape, planes: &[TensorId]) -> Result<TensorId> {
    let [x, y, z] = shape.cells();
    let named = || PLANES.into_iter().zip(planes);
    let blocks = g.scope("blocks", |g| {
        named().map(|(name, &plane)| g.scope(name, |g| block(g, widths, plane))).collect::<Result<Vec<_>>>()
    })?;
    let planes = g.scope("up", |g| {
        let up = PLANES.into_iter().zip(blocks).map(|(name, plane)| g.scope(name, |g| up(g, name, plane)));
        up.collect::<Result<Vec<_>>>()
    })?;
    let product = multiplied(g, shape, &planes)?;
    let product = g.reshape(product, &[shape.total_frames(), x, y, z, widths.query_channels])?;
    let activated = LinearOptions { activation: true, ..Default::default() };
    let a = linear_layer(g, product, "in", widths.hidden, activated)?;
    let b = residual_block(g, a, "res3", Kernel::Three, true, false)?;
    let c = residual_block(g, b, "res1", Kernel::One, true, false)?;
    head(g, widths, shape, c)
}

/// An image `[B, 1, A1, A2, Q]` from a plane `[B, A1, A2, C]`; the second convolution starts at zero.
fn block(g: &mut Graph, widths: &Widths, plane: TensorId) -> Result<TensorId> {
    let q = widths.query_channels;
    let &[b, rows, columns, c] = g.shape(plane) else {
        return Err(Error::Shape(format!("{} is not a plane", g.describe(plane))));
    };
    let image = g.reshape(plane, &[b, 1, rows, columns, c])?;
    let skip = linear_layer(g, image, "skip", q, LinearOptions::default())?;
    let x = conv_layer(g, image, "conv1", q, [1, 3, 3], None)?;
    let x = g.scope("norm", |g| {
        let weight = g.parameter("weight", &[q], Init::Constant(1.0))?;
        let bias = g.parameter("bias", &[q], Init::Constant(0.0))?;
        group_norm(g, x, weight, bias, q, BLOCK_EPS)
    })?;
    let x = activate(g, x, Activation::Silu)?;
    let x = conv_layer(g, x, "conv2", q, [1, 3, 3], Some(Init::Constant(0.0)))?;
    g.push_one(Add, &[x, skip])
}

/// The image with twice as many times, if it has any.
fn up(g: &mut Graph, name: &str, image: TensorId) -> Result<TensorId> {
    let channels = g.tensor(image).spec.channels();
    let times = if name.contains('t') { 2 } else { 1 };
    let x = up_layer(g, image, "transposed", channels, [1, times, 1])?;
    let x = instance_norm(g, x, None, true, false)?;
    let x = conv_layer(g, x, "conv", channels, [1, 3, 3], None)?;
    instance_norm(g, x, None, true, false)
}

/// The product of all planes, each repeated along the axes that it lacks: `[B, T, X', Y', Z', Q]`. Those without time are multiplied
/// once a clip.
fn multiplied(g: &mut Graph, shape: &BatchShape, planes: &[TensorId]) -> Result<TensorId> {
    let &[xy, xz, yz, tx, ty, tz] = planes else { return Err(Error::Shape("a plane is missing".into())) };
    let ([x, y, z], b, q) = (shape.cells(), shape.batch, g.tensor(xy).spec.channels());
    let xy = g.reshape(xy, &[b, x, y, 1, q])?;
    let xz = g.reshape(xz, &[b, x, 1, z, q])?;
    let yz = g.reshape(yz, &[b, 1, y, z, q])?;
    let still = broadcast_to(g, xy, &[b, x, y, z, q])?;
    let still = broadcast_mul(g, still, xz)?;
    let still = broadcast_mul(g, still, yz)?;
    let [tx, ty, tz] = [(tx, x), (ty, y), (tz, z)].map(|(plane, n)| g.reshape(plane, &[b, shape.frames, n, q]));
    plane_product(g, still, [tx?, ty?, tz?])
}

/// Logits from `c [N, X', Y', Z', h]`.
///
/// Between `expand` and `head.hidden` is nothing, so that they are one layer, and what is made of the place is added to it: neither
/// the r channels nor their code exist at full resolution. The code of time is the same all over a frame, and the norm takes it
/// away: its weights are parameters without effect.
fn head(g: &mut Graph, widths: &Widths, shape: &BatchShape, c: TensorId) -> Result<TensorId> {
    let Widths { classes, hidden, head, .. } = *widths;
    let ([x, y, z], frames) = (shape.cells(), shape.total_frames());
    let (expand, expand_bias) = g.scope("expand", |g| {
        // PyTorch's fan-in of a transposed convolution counts its output channels.
        let init = default_init(head * 8);
        Ok((g.parameter("weight", &[hidden, head, 2, 2, 2], init.clone())?, g.parameter("bias", &[head], init)?))
    })?;
    g.scope("head", |g| {
        let (weight, bias) = g.scope("hidden", |g| {
            let init = default_init(head + CODE);
            Ok((g.parameter("weight", &[classes, head + CODE], init.clone())?, g.parameter("bias", &[classes], init)?))
        })?;
        let of_features = slice(g, weight, 0, head)?;
        let expand = g.reshape(expand, &[hidden, head, 8])?;
        let expand = permute(g, expand, &[2, 0, 1])?;
        let both = linear(g, expand, of_features, None, false)?;
        let both = permute(g, both, &[0, 2, 1])?;
        let both = g.reshape(both, &[8 * classes, hidden])?;
        let expand_bias = g.reshape(expand_bias, &[1, head])?;
        let both_bias = linear(g, expand_bias, of_features, Some(bias), false)?;
        let both_bias = g.reshape(both_bias, &[classes])?;
        let both_bias = tile(g, both_bias, 8)?;
        let features = linear(g, c, both, Some(both_bias), false)?;

        let of_place = places(g, widths, shape, weight)?;
        let frame = x * y * z * 8 * classes;
        let features = g.reshape(features, &[frames, frame])?;
        let of_place = g.reshape(of_place, &[1, frame])?;
        let sum = broadcast_plus(g, features, of_place)?;
        let sum = g.reshape(sum, &[frames, x, y, z, 8, classes])?;
        let normalised = instance_norm(g, sum, None, true, false)?;
        linear_layer(g, normalised, "out", classes, LinearOptions::default())
    })
}

/// What the first layer of the head, of that weight, makes of each voxel's place in space: `[X', Y', Z', 2, 2, 2, K]`, in blocked
/// order.
fn places(g: &mut Graph, widths: &Widths, shape: &BatchShape, weight: TensorId) -> Result<TensorId> {
    let classes = widths.classes;
    let per_axis = CODE / 4;
    // Of each frequency the sines, then the cosines, each of t, x, y and z.
    let weight = slice(g, weight, widths.head, CODE)?;
    let weight = g.reshape(weight, &[classes, per_axis, 4])?;
    let weight = permute(g, weight, &[2, 0, 1])?;
    let weight = g.reshape(weight, &[1, 4 * classes * per_axis])?;
    let mut sum = None;
    for (axis, extent) in shape.size.into_iter().enumerate() {
        let weight = slice(g, weight, (1 + axis) * classes * per_axis, classes * per_axis)?;
        let weight = g.reshape(weight, &[classes, per_axis])?;
        let code = g.constant("code", &[extent, per_axis], code(extent))?;
        let term = linear(g, code, weight, None, false)?;
        let mut along = [1, 1, 1, 1, 1, 1, classes];
        (along[axis], along[3 + axis]) = (extent / 2, 2);
        let term = g.reshape(term, &along)?;
        sum = Some(match sum {
            None => {
                let [x, y, z] = shape.cells();
                broadcast_to(g, term, &[x, y, z, 2, 2, 2, classes])?
            }
            Some(sum) => broadcast_plus(g, sum, term)?,
        });
    }
    sum.ok_or_else(|| Error::Shape("a volume needs an axis".into()))
}

/// The code of each of so many whole numbers: sine and cosine for each frequency.
fn code(extent: usize) -> Vec<f32> {
    let of_angle = |angle: f64| [angle.sin() as f32, angle.cos() as f32];
    (0..extent).flat_map(|at| FREQUENCIES.into_iter().flat_map(move |f| of_angle(f * at as f64))).collect()
}
