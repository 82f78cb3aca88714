//! The fusion g_theta (Eqs. 9-10), by which six sampled planes become one continuous 4D latent, and those it is compared with
//! (Table 3).

use super::align::Frames;
use super::{PLANES, Planes};
use crate::graph::{Add, Graph, Init, TensorId};
use crate::layers::axis_mean::axis_mean;
use crate::layers::broadcast_add::{broadcast_add, broadcast_plus};
use crate::layers::broadcast_mul::{broadcast_mul, broadcast_to};
use crate::layers::concat::{concat, slice};
use crate::layers::gate::gate;
use crate::layers::lift::lift;
use crate::layers::linear::linear;
use crate::layers::permute::permute;
use crate::layers::pointwise::Pointwise;
use crate::layers::softmax::softmax;
use crate::models::BatchShape;
use crate::models::modules::{LinearOptions, conv_layer, default_init, linear_layer, positional_code};
use crate::{Error, Result};

/// The values of `model.fusion`, with what they mean.
pub const FUSIONS: &[(&str, &str)] = &[
    ("sep", "structure-equivalent"),
    ("concat", "one linear layer"),
    ("conv1d", "convolutions along the planes"),
    ("mlp", "two linear layers"),
    ("averaging", "their mean"),
    ("dynamic", "softmax weights"),
];

/// `z [B, T, X', Y', Z', D]` from planes of D features, by the fusion of that name (`docs/model.md`).
///
/// # Errors
/// [`Error::Shape`] if the planes do not belong together.
pub fn fuse(g: &mut Graph, name: &str, planes: &Planes, frames: &Frames) -> Result<TensorId> {
    let space = Space::of(&frames.shape);
    match name {
        "concat" => concatenated(g, planes, &space, "out", g.tensor(planes.xy).spec.channels(), false),
        "conv1d" => along_planes(g, planes, &space),
        "mlp" => {
            let features = g.tensor(planes.xy).spec.channels();
            let hidden = concatenated(g, planes, &space, "hidden", 2 * features, true)?;
            linear_layer(g, hidden, "out", features, LinearOptions::default())
        }
        "averaging" => {
            let factor = 1.0 / 6f32.sqrt();
            let scaled = planes.try_map(|_, _, plane| g.push_one(Pointwise::Scale { factor }, &[plane]))?;
            space.sum(g, &terms(&scaled), false)
        }
        "dynamic" => weighted(g, planes, &space),
        _ => structure_equivalent(g, planes, frames),
    }
}

/// `z [B, T, X', Y', Z', D]` from planes of D features (`docs/model.md`).
///
/// The static planes are lifted to a volume V, whose 3x3x3 stencil gates the temporal planes, so that whatever changes in
/// time is a function of V and its gradient (Eq. 5).
///
/// # Errors
/// [`Error::Shape`] if the planes do not belong together.
fn structure_equivalent(g: &mut Graph, planes: &Planes, frames: &Frames) -> Result<TensorId> {
    let features = g.tensor(planes.xy).spec.channels();
    // Per plane: the two other static planes, averaged onto the axis that it lacks.
    let phi_xy = phi(g, "xy", [(planes.xz, 1), (planes.yz, 1)])?;
    let phi_xz = phi(g, "xz", [(planes.xy, 1), (planes.yz, 2)])?;
    let phi_yz = phi(g, "yz", [(planes.xy, 2), (planes.xz, 2)])?;
    let volume = lift(g, [phi_xy, planes.xy, phi_xz, planes.xz, phi_yz, planes.yz])?;
    let psi = conv_layer(g, volume, "psi", 3 * features, [3, 3, 3], None)?;
    let psi = g.push_one(Pointwise::Sigmoid { scale: 2.0 }, &[psi])?;
    // Where frames were aligned, each sees V and psi where they are to it, and is a clip of its own from here on.
    let mut moving = [planes.tx, planes.ty, planes.tz];
    let psi = match frames.part(g, psi)? {
        Some(psi) => {
            for plane in &mut moving {
                let &[b, t, cells, features] = g.shape(*plane) else { continue };
                *plane = g.reshape(*plane, &[b * t, 1, cells, features])?;
            }
            psi
        }
        None => psi,
    };
    let change = gate(g, psi, moving)?;
    g.scope("mlp", |g| {
        let hidden = 2 * features;
        let still = linear_layer(g, volume, "static", hidden, LinearOptions { no_bias: true, ..Default::default() })?;
        let still = frames.part(g, still)?.unwrap_or(still);
        let moving = linear_layer(g, change, "dynamic", hidden, LinearOptions::default())?;
        let hidden = broadcast_add(g, moving, still)?;
        linear_layer(g, hidden, "out", features, LinearOptions::default())
    })
}

/// Geometry-aware attention along the axis that plane `name` lacks, `[B, n, D]`: from that axis' positional code and the
/// other two static planes averaged onto it. Each of `others` comes with the axis to average over.
fn phi(g: &mut Graph, name: &str, others: [(TensorId, usize); 2]) -> Result<TensorId> {
    let means = others.map(|(plane, axis)| axis_mean(g, plane, axis));
    let [first, second] = means;
    let (first, second) = (first?, second?);
    let &[batch, extent, features] = g.shape(first) else {
        return Err(Error::Shape(format!("phi.{name}: {} is not [B, n, D]", g.describe(first))));
    };
    g.scope(&format!("phi.{name}"), |g| {
        let code = g.constant("code", &[batch, extent, 9], positional_code(&[extent]).repeat(batch))?;
        let joined = concat(g, &[code, first, second])?;
        let hidden =
            linear_layer(g, joined, "hidden", features, LinearOptions { activation: true, ..Default::default() })?;
        let one = LinearOptions { bias: Some(Init::Constant(1.0)), ..Default::default() };
        linear_layer(g, hidden, "out", features, one)
    })
}

/// A tensor with the axes of a plane, and which they are.
type Term = (&'static str, TensorId);

fn terms(planes: &Planes) -> Vec<Term> {
    PLANES.into_iter().zip(planes.all()).collect()
}

/// The extents that planes are repeated over.
struct Space {
    batch: usize,
    /// T, X', Y', Z'.
    extents: [usize; 4],
}

impl Space {
    fn of(shape: &BatchShape) -> Space {
        let [x, y, z] = shape.cells();
        Space { batch: shape.batch, extents: [shape.frames, x, y, z] }
    }

    /// A term with an extent of 1 along the axes of `over` that it lacks.
    fn placed(&self, g: &mut Graph, (axes, term): Term, over: &str) -> Result<TensorId> {
        let channels = g.tensor(term).spec.channels();
        let extents = over.chars().map(|axis| if axes.contains(axis) { self.extent(axis) } else { 1 });
        let shape: Vec<usize> = [self.batch].into_iter().chain(extents).chain([channels]).collect();
        g.reshape(term, &shape)
    }

    /// A term repeated along the axes of `over` that it lacks.
    fn repeated(&self, g: &mut Graph, (axes, term): Term, over: &str) -> Result<TensorId> {
        let channels = g.tensor(term).spec.channels();
        let term = self.placed(g, (axes, term), over)?;
        let extents = over.chars().map(|axis| self.extent(axis));
        let shape: Vec<usize> = [self.batch].into_iter().chain(extents).chain([channels]).collect();
        if g.shape(term) == shape { Ok(term) } else { broadcast_to(g, term, &shape) }
    }

    fn extent(&self, axis: char) -> usize {
        "txyz".find(axis).map_or(1, |place| self.extents[place])
    }

    /// The sum of terms, each repeated: over time and space if any of them has time, and over space alone if none has. What has
    /// no time is summed before it is repeated there. Leaky ReLU follows if `activation`.
    fn sum(&self, g: &mut Graph, terms: &[Term], activation: bool) -> Result<TensorId> {
        let (moving, still): (Vec<Term>, Vec<Term>) = terms.iter().partition(|(axes, _)| axes.contains('t'));
        let mut sum_over = |terms: &[Term], over: &str| -> Result<Option<TensorId>> {
            let mut sum = None;
            for &term in terms {
                sum = Some(match sum {
                    None => self.repeated(g, term, over)?,
                    Some(sum) => {
                        let term = self.placed(g, term, over)?;
                        broadcast_plus(g, sum, term)?
                    }
                });
            }
            Ok(sum)
        };
        let (moving, still) = (sum_over(&moving, "txyz")?, sum_over(&still, "xyz")?);
        match (moving, still) {
            (Some(moving), Some(still)) if activation => broadcast_add(g, moving, still),
            (Some(moving), Some(still)) => {
                let still = self.placed(g, ("xyz", still), "txyz")?;
                broadcast_plus(g, moving, still)
            }
            (Some(sum), None) | (None, Some(sum)) if activation => g.push_one(Pointwise::Lrelu, &[sum]),
            (Some(sum), None) | (None, Some(sum)) => Ok(sum),
            (None, None) => Err(Error::Shape("a sum needs a term".into())),
        }
    }
}

/// A linear layer of all planes, one after the other: the sum of one of each, for a linear layer may come before a repetition.
fn concatenated(
    g: &mut Graph,
    planes: &Planes,
    space: &Space,
    name: &str,
    outputs: usize,
    activation: bool,
) -> Result<TensorId> {
    let features = g.tensor(planes.xy).spec.channels();
    let terms = g.scope(name, |g| {
        let init = default_init(6 * features);
        let weight = g.parameter("weight", &[outputs, 6 * features], init.clone())?;
        let bias = g.parameter("bias", &[outputs], init)?;
        planes.try_map(|k, _, plane| {
            let weight = slice(g, weight, k * features, features)?;
            linear(g, plane, weight, (k == 0).then_some(bias), false)
        })
    })?;
    space.sum(g, &self::terms(&terms), activation)
}

/// `conv6(lrelu(conv3(..)))` along the row of the six planes.
fn along_planes(g: &mut Graph, planes: &Planes, space: &Space) -> Result<TensorId> {
    let features = g.tensor(planes.xy).spec.channels();
    // A matrix [D, D] for each tap, from PyTorch's [O, I, taps].
    let taps = |g: &mut Graph, name: &str, taps: usize| -> Result<(Vec<TensorId>, TensorId)> {
        g.scope(name, |g| {
            let init = default_init(features * taps);
            let weight = g.parameter("weight", &[features, features, taps], init.clone())?;
            let bias = g.parameter("bias", &[features], init)?;
            let weight = permute(g, weight, &[0, 2, 1])?;
            let weight = g.reshape(weight, &[features, taps * features])?;
            let matrices = (0..taps).map(|tap| slice(g, weight, tap * features, features)).collect::<Result<_>>()?;
            Ok((matrices, bias))
        })
    };
    let (along, bias) = taps(g, "along", 3)?;
    let (out, out_bias) = taps(g, "out", 6)?;
    let planes = terms(planes);
    let mut results = Vec::new();
    for (k, out) in out.into_iter().enumerate() {
        let mut products = Vec::new();
        for (tap, &matrix) in along.iter().enumerate() {
            let Some(&(axes, plane)) = (k + tap).checked_sub(1).and_then(|from| planes.get(from)) else { continue };
            products.push((axes, linear(g, plane, matrix, (tap == 1).then_some(bias), false)?));
        }
        let hidden = space.sum(g, &products, true)?;
        let axes = if products.iter().any(|(axes, _)| axes.contains('t')) { "txyz" } else { "xyz" };
        results.push((axes, linear(g, hidden, out, (k == 0).then_some(out_bias), false)?));
    }
    space.sum(g, &results, false)
}

/// The mean of all planes, weighted by the softmax of their scores at each place.
fn weighted(g: &mut Graph, planes: &Planes, space: &Space) -> Result<TensorId> {
    let scores = g.scope("scores", |g| {
        planes.try_map(|_, name, plane| linear_layer(g, plane, name, 1, LinearOptions::default()))
    })?;
    let scores =
        terms(&scores).into_iter().map(|score| space.repeated(g, score, "txyz")).collect::<Result<Vec<_>>>()?;
    let scores = concat(g, &scores)?;
    let weights = softmax(g, scores)?;
    let mut sum = None;
    for (k, plane) in terms(planes).into_iter().enumerate() {
        let plane = space.repeated(g, plane, "txyz")?;
        let weight = slice(g, weights, k, 1)?;
        let product = broadcast_mul(g, plane, weight)?;
        sum = Some(sum.map_or(Ok(product), |sum| g.push_one(Add, &[sum, product]))?);
    }
    sum.ok_or_else(|| Error::Shape("a sum needs a term".into()))
}
