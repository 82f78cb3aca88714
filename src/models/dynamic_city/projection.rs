//! Projections of a volume onto some of its axes by transformers.

use super::Widths;
use crate::Result;
use crate::graph::{Add, Graph, Init, TensorId};
use crate::layers::activation::{Activation, activate};
use crate::layers::attention::{Dropout, attention};
use crate::layers::broadcast_add::broadcast_plus;
use crate::layers::concat::slice;
use crate::layers::dropout::dropout;
use crate::layers::gather::take_token;
use crate::layers::layer_norm::{EPS, layer_norm};
use crate::layers::linear::linear;
use crate::layers::pad3d::{PadMode, Padding, pad3d};
use crate::layers::permute::permute;
use crate::models::Mode;
use crate::models::modules::{LinearOptions, default_init, linear_layer};

/// A tensor `[B, .., C]` with these axes between batch and channels.
#[derive(Debug, Clone, Copy)]
pub struct Volume {
    /// Of `t`, `x`, `y` and `z`, in this order.
    pub axes: &'static str,
    /// Its values.
    pub tensor: TensorId,
}

/// The dropout of a model, each place with random numbers of its own.
#[derive(Debug)]
pub struct Dropouts {
    rng: Option<TensorId>,
    probability: f32,
    next_stream: u32,
}

impl Dropouts {
    /// Of so many per cent where a model is trained; its streams of random numbers are those from `first_stream` on.
    pub fn new(mode: Mode, per_cent: usize, first_stream: u32) -> Dropouts {
        let rng = if let Mode::Train { rng } = mode { Some(rng).filter(|_| per_cent > 0) } else { None };
        Dropouts { rng, probability: per_cent as f32 / 100.0, next_stream: first_stream }
    }

    /// That of the next place; nothing where nothing is dropped.
    fn next(&mut self) -> Option<Dropout> {
        let rng = self.rng?;
        let stream = self.next_stream;
        self.next_stream += 1;
        Some(Dropout { rng, stream, probability: self.probability })
    }

    /// `x` after the next place.
    fn apply(&mut self, g: &mut Graph, x: TensorId) -> Result<TensorId> {
        match self.next() {
            Some(Dropout { rng, stream, probability }) => dropout(g, x, rng, stream, probability),
            None => Ok(x),
        }
    }
}

/// `[B, .., C]` with the axes `kept`, whose letters are the scope of the parameters: for each of their cells, what a transformer
/// makes of the cells along the other axes.
pub fn project(
    g: &mut Graph,
    widths: &Widths,
    volume: Volume,
    kept: &str,
    dropouts: &mut Dropouts,
) -> Result<TensorId> {
    let (shape, c) = (g.shape(volume.tensor).to_vec(), widths.latent_channels);
    let places = |is_kept: bool| volume.axes.char_indices().filter(move |(_, axis)| kept.contains(*axis) == is_kept);
    let numbers = |is_kept: bool| places(is_kept).map(|(place, _)| 1 + place);
    let order: Vec<usize> =
        std::iter::once(0).chain(numbers(true)).chain(numbers(false)).chain([shape.len() - 1]).collect();
    let tokens: usize = numbers(false).map(|axis| shape[axis]).product();
    let result: Vec<usize> = std::iter::once(0).chain(numbers(true)).map(|axis| shape[axis]).chain([c]).collect();

    let is_in_order = order.is_sorted();
    let cells = if is_in_order { volume.tensor } else { permute(g, volume.tensor, &order)? };
    let cells = g.reshape(cells, &[result.iter().product::<usize>() / c, tokens, c])?;
    g.scope(kept, |g| {
        let mut x = with_token(g, cells)?;
        for i in 1..=widths.depth {
            x = g.scope(&format!("layer{i}"), |g| layer(g, widths, x, i == widths.depth, dropouts))?;
        }
        let x = linear_layer(g, x, "out1", c, LinearOptions::default())?;
        let x = activate(g, x, Activation::Tanh)?;
        let x = linear_layer(g, x, "out2", c, LinearOptions::default())?;
        g.reshape(x, &result)
    })
}

/// Sequences `[S, N + 1, C]` of `cells [S, N, C]`, the learned token after them, and learned positions added.
fn with_token(g: &mut Graph, cells: TensorId) -> Result<TensorId> {
    let &[_, tokens, c] = g.shape(cells) else { return Ok(cells) };
    let token = g.parameter("token", &[c], Init::Normal)?;
    let positions = g.parameter("positions", &[tokens + 1, c], Init::Normal)?;
    // The token is what its position adds to nothing.
    let token = g.reshape(token, &[1, 1, c])?;
    let token = padded(g, token, [tokens, 0])?;
    let positions = g.reshape(positions, &[1, tokens + 1, c])?;
    let positions = g.push_one(Add, &[positions, token])?;
    let cells = padded(g, cells, [0, 1])?;
    broadcast_plus(g, cells, positions)
}

/// `x [S, N, C]` with tokens of zeros before and after each sequence.
fn padded(g: &mut Graph, x: TensorId, [before, after]: [usize; 2]) -> Result<TensorId> {
    let &[sequences, tokens, c] = g.shape(x) else { return Ok(x) };
    let x = g.reshape(x, &[sequences, 1, 1, tokens, c])?;
    let [first, last] = [before, after].map(|tokens| [0, 0, tokens as isize]);
    let x = pad3d(g, x, Padding { before: first, after: last, mode: PadMode::Zero })?;
    g.reshape(x, &[sequences, before + tokens + after, c])
}

/// A layer of a transformer on `x [S, N, C]`; of the last one only the first token is read, so it makes `[S, 1, C]`.
fn layer(g: &mut Graph, widths: &Widths, x: TensorId, is_last: bool, dropouts: &mut Dropouts) -> Result<TensorId> {
    let (c, sequences) = (widths.latent_channels, g.shape(x)[0]);
    let normalised = norm(g, x, "norm1")?;
    let first = |g: &mut Graph, x: TensorId| {
        let first = take_token(g, x, 0)?;
        g.reshape(first, &[sequences, 1, c])
    };
    let (x, asking) = if is_last { (first(g, x)?, first(g, normalised)?) } else { (x, normalised) };
    let [q, k, v] = g.scope("qkv", |g| {
        let weight = g.parameter("weight", &[3 * c, c], default_init(c))?;
        let weight = g.reshape(weight, &[1, 3 * c * c])?;
        let mut parts = [asking, normalised, normalised];
        for (i, part) in parts.iter_mut().enumerate() {
            let weight = slice(g, weight, i * c * c, c * c)?;
            let weight = g.reshape(weight, &[c, c])?;
            *part = linear(g, *part, weight, None, false)?;
        }
        Ok(parts)
    })?;
    let attended = attention(g, q, k, v, widths.heads, dropouts.next())?;
    let attended = linear_layer(g, attended, "proj", c, LinearOptions::default())?;
    let attended = dropouts.apply(g, attended)?;
    let x = g.push_one(Add, &[attended, x])?;

    let hidden = norm(g, x, "norm2")?;
    let hidden = linear_layer(g, hidden, "fc1", widths.mlp, LinearOptions::default())?;
    let hidden = activate(g, hidden, Activation::Gelu)?;
    let hidden = dropouts.apply(g, hidden)?;
    let hidden = linear_layer(g, hidden, "fc2", c, LinearOptions::default())?;
    let hidden = dropouts.apply(g, hidden)?;
    g.push_one(Add, &[hidden, x])
}

/// `nn.LayerNorm` of the channels, parameters `name.weight`, `name.bias`.
fn norm(g: &mut Graph, x: TensorId, name: &str) -> Result<TensorId> {
    let channels = g.tensor(x).spec.channels();
    g.scope(name, |g| {
        let weight = g.parameter("weight", &[channels], Init::Constant(1.0))?;
        let bias = g.parameter("bias", &[channels], Init::Constant(0.0))?;
        layer_norm(g, x, weight, bias, EPS)
    })
}
