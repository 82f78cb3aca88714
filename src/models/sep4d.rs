//! SEP-4D (`docs/model.md`; equation numbers of the paper).

mod encoders;
mod fusion;

use encoders::ENCODERS;
use fusion::FUSIONS;

use super::modules::{
    Kernel, LinearOptions, PLANES, Sampler, conv_layer, default_init, distribution_layer, linear_layer,
    positional_code, residual_block,
};
use super::{Architecture, BatchShape, Built, Key, Mode, ModelConfig, Values, keys};
use crate::graph::{Add, Graph, Init, TensorId, TensorSpec, WORD_BYTES};
use crate::layers::axis_pool::axis_pool;
use crate::layers::instance_norm::instance_norm;
use crate::layers::label_table::label_table;
use crate::layers::linear::{linear, residual_linear};
use crate::layers::permute::{permute, tile};
use crate::layers::unpack::unpack_bytes;
use crate::{Error, Result};

/// The architecture. No parameter depends on T, X, Y or Z, unless the encoder is one of the controls.
pub static SEP4D: Architecture = Architecture {
    name: "sep4d",
    about: "six Gaussian latent planes, fused by the structure-equivalence prior",
    keys: &[
        keys::LATENT_CHANNELS,
        Key {
            key: "model.plane_features",
            doc: "D, channels of a plane's features.",
            values: Values::Width {
                defaults: [6, 16, 32, 32],
                needed_for: Some("the planes need at least one feature"),
            },
        },
        keys::HIDDEN,
        keys::HEAD,
        Key {
            key: "model.fusion",
            doc: "How the latent planes become one 4D latent.",
            values: Values::Choice(FUSIONS),
        },
        Key { key: "model.encoder", doc: "What the latent is.", values: Values::Choice(ENCODERS) },
        Key {
            key: "model.volume_channels",
            doc: "c, latent channels of the encoders conv3d_se and bev; 0 for as many as give the latent planes' floats.",
            values: Values::Width { defaults: [0; 4], needed_for: None },
        },
    ],
    losses: &[keys::KL],
    training: &[],
    build,
};

/// Widths of the model.
struct Widths {
    /// K: semantic classes, free included.
    classes: usize,
    /// C: channels of the latent planes.
    latent_channels: usize,
    /// D: features of the planes after their blocks.
    plane_features: usize,
    /// hid: width of the decoder at half resolution.
    hidden: usize,
    /// hr: width of the head at full resolution.
    head: usize,
    /// How planes are fused.
    fusion: &'static str,
    /// c: channels of a latent that is no plane, or 0.
    volume_channels: usize,
}

impl Widths {
    fn of(config: &ModelConfig) -> Widths {
        Widths {
            classes: config.classes,
            latent_channels: config.get("model.latent_channels"),
            plane_features: config.get("model.plane_features"),
            hidden: config.get("model.hidden"),
            head: config.get("model.head"),
            fusion: config.choice("model.fusion"),
            volume_channels: config.get("model.volume_channels"),
        }
    }
}

/// One tensor per plane: `xy [B, X', Y', .]`, `tx [B, T, X', .]` and so on.
#[derive(Debug, Clone, Copy)]
pub struct Planes {
    /// Over x and y.
    pub xy: TensorId,
    /// Over x and z.
    pub xz: TensorId,
    /// Over y and z.
    pub yz: TensorId,
    /// Over t and x.
    pub tx: TensorId,
    /// Over t and y.
    pub ty: TensorId,
    /// Over t and z.
    pub tz: TensorId,
}

impl Planes {
    /// In the order of `PLANES`.
    pub fn all(&self) -> [TensorId; 6] {
        [self.xy, self.xz, self.yz, self.tx, self.ty, self.tz]
    }

    /// `f` of every plane, with its name.
    fn try_map(&self, mut f: impl FnMut(usize, &'static str, TensorId) -> Result<TensorId>) -> Result<Planes> {
        let planes = self.all();
        let mut map = |i: usize| f(i, PLANES[i], planes[i]);
        Ok(Planes { xy: map(0)?, xz: map(1)?, yz: map(2)?, tx: map(3)?, ty: map(4)?, tz: map(5)? })
    }
}

/// Appends the whole model to `g`.
///
/// # Errors
/// [`Error::Usage`] for extents that do not work, [`Error::Shape`] otherwise.
fn build(g: &mut Graph, config: &ModelConfig, shape: &BatchShape, mode: Mode) -> Result<Built> {
    let widths = &Widths::of(config);
    let [x, y, z] = shape.cells();
    let label_bytes = g.input("labels", TensorSpec::u32(&[shape.total_frames(), x, y, z, 8 / WORD_BYTES]));
    let labels = unpack_bytes(g, label_bytes)?;
    let (z, sampler) = match config.choice("model.encoder") {
        "conv3d_se" => encoders::conv3d_se(g, widths, shape, labels, mode)?,
        "bev" => encoders::bev(g, widths, shape, labels, mode)?,
        _ => planes(g, widths, shape, labels, mode)?,
    };
    let logits = g.scope("decoder", |g| decoder(g, widths, z))?;
    let (latents, losses) = sampler.finish(g)?;
    Ok(Built { label_bytes, labels, logits, losses, latents })
}

/// The latent planes, and `z [N, X', Y', Z', D]` that is fused from samples of them.
fn planes(
    g: &mut Graph,
    widths: &Widths,
    shape: &BatchShape,
    labels: TensorId,
    mode: Mode,
) -> Result<(TensorId, Sampler)> {
    let features = extractor(g, widths, labels)?;
    let planes = g.scope("planes", |g| factorise(g, widths, shape, features))?;
    let distributions = g.scope("distributions", |g| {
        planes.try_map(|_, name, plane| g.scope(name, |g| distribution(g, widths, plane)))
    })?;
    let elements = distributions.all().iter().map(|&d| g.tensor(d).spec.elements()).sum();
    let mut sampler = Sampler::new(mode, elements);
    let latents = distributions.try_map(|_, name, distribution| sampler.decoded(g, name, name, distribution))?;
    let blocks =
        g.scope("blocks", |g| latents.try_map(|_, name, plane| g.scope(name, |g| plane_block(g, widths, plane))))?;
    let [x, y, z] = shape.cells();
    let fused = g.scope("fusion", |g| fusion::fuse(g, widths.fusion, &blocks, shape))?;
    Ok((g.reshape(fused, &[shape.total_frames(), x, y, z, widths.plane_features])?, sampler))
}

/// Width of the extractor before its output layer, fixed by the design.
const EXTRACTOR_WIDTH: usize = 32;
/// Size of a class embedding, fixed by the design.
const EMBEDDING: usize = 4;

/// f_theta: `[N, X', Y', Z', C]` from labels.
fn extractor(g: &mut Graph, widths: &Widths, labels: TensorId) -> Result<TensorId> {
    g.scope("extractor", |g| {
        let x = embedded(g, widths, labels)?;
        let x = residual_block(g, x, "res", Kernel::Three, false, true)?;
        linear_layer(g, x, "out", widths.latent_channels, LinearOptions::default())
    })
}

/// Its first layers, `[N, X', Y', Z', 32]`: the embedding and the k2 s2 convolution fold into one table of K x 8 sub-positions x
/// 32 values, so that nothing is ever stored at full resolution.
fn embedded(g: &mut Graph, widths: &Widths, labels: TensorId) -> Result<TensorId> {
    let embedding = g.scope("embedding", |g| g.parameter("weight", &[widths.classes, EMBEDDING], Init::Normal))?;
    let x = g.scope("down", |g| {
        let init = default_init(EMBEDDING * 8);
        let weight = g.parameter("weight", &[EXTRACTOR_WIDTH, EMBEDDING, 2, 2, 2], init.clone())?;
        let bias = g.parameter("bias", &[EXTRACTOR_WIDTH], init)?;
        let weight = permute(g, weight, &[2, 3, 4, 0, 1])?;
        let weight = g.reshape(weight, &[8 * EXTRACTOR_WIDTH, EMBEDDING])?;
        let table = linear(g, embedding, weight, None, false)?;
        let table = g.reshape(table, &[widths.classes, 8, EXTRACTOR_WIDTH])?;
        label_table(g, labels, table, bias)
    })?;
    instance_norm(g, x, None, false, false)
}

/// PF (Eq. 6): separable attention pooling of `features [N, X', Y', Z', C]` onto six planes of C channels.
fn factorise(g: &mut Graph, widths: &Widths, shape: &BatchShape, features: TensorId) -> Result<Planes> {
    let c = widths.latent_channels;
    let [x, y, z] = shape.cells();
    let t = shape.frames;
    let volume = g.reshape(features, &[shape.batch, t, x, y, z, c])?;
    let pooled = pool(g, c, volume, "volume", &[("t", &[t]), ("yz", &[y, z]), ("xz", &[x, z]), ("xy", &[x, y])])?;
    let flat = pool(g, c, pooled[0], "static", &[("z", &[z]), ("y", &[y]), ("x", &[x])])?;
    Ok(Planes { xy: flat[0], xz: flat[1], yz: flat[2], tx: pooled[1], ty: pooled[2], tz: pooled[3] })
}

/// One attention pooling per `(axes, extents)`, with values, scores and positional biases of its own.
fn pool(g: &mut Graph, c: usize, from: TensorId, name: &str, pools: &[(&str, &[usize])]) -> Result<Vec<TensorId>> {
    let width = pools.len() * c;
    let zero = || Some(Init::Constant(0.0));
    let (values, scores) = g.scope(name, |g| {
        let values = linear_layer(g, from, "values", width, LinearOptions::default())?;
        let flat = LinearOptions { weight: zero(), bias: zero(), ..Default::default() };
        Ok((values, linear_layer(g, from, "scores", width, flat)?))
    })?;
    let mut biases = Vec::new();
    for (axes, extents) in pools {
        let bias = g.scope(&format!("bias.{axes}"), |g| {
            let code = g.constant("code", &[extents.iter().product(), 9 * extents.len()], positional_code(extents))?;
            let hidden = LinearOptions { activation: true, ..Default::default() };
            let hidden = linear_layer(g, code, "hidden", 2 * c, hidden)?;
            linear_layer(g, hidden, "out", c, LinearOptions::default())
        })?;
        biases.push((['t', 'x', 'y', 'z'].map(|axis| axes.contains(axis)), bias));
    }
    axis_pool(g, values, scores, &biases)
}

/// E_k (Eq. 7): `(mu, logvar)` of one plane, `[.., 2C]`. The log-variances start near -4.
fn distribution(g: &mut Graph, widths: &Widths, plane: TensorId) -> Result<TensorId> {
    let c = widths.latent_channels;
    let hidden = linear_layer(g, plane, "hidden", c, LinearOptions { activation: true, ..Default::default() })?;
    distribution_layer(g, hidden, "out", c)
}

/// `1x1(C->D) + conv3x3(D->D)(lrelu(IN(conv3x3(C->D))))`; the second convolution starts at zero.
fn plane_block(g: &mut Graph, widths: &Widths, plane: TensorId) -> Result<TensorId> {
    let d = widths.plane_features;
    let skip = linear_layer(g, plane, "skip", d, LinearOptions::default())?;
    let &[b, rows, columns, c] = g.shape(plane) else {
        return Err(Error::Shape(format!("{} is not a plane", g.describe(plane))));
    };
    let x = g.reshape(plane, &[b, 1, rows, columns, c])?;
    let x = conv_layer(g, x, "conv1", d, [1, 3, 3], None)?;
    let x = instance_norm(g, x, None, true, false)?;
    let x = conv_layer(g, x, "conv2", d, [1, 3, 3], Some(Init::Constant(0.0)))?;
    let x = g.reshape(x, &[b, rows, columns, d])?;
    g.push_one(Add, &[x, skip])
}

/// Logits `[N, X', Y', Z', 8, K]` from `z [N, X', Y', Z', D]` (Eq. 11).
///
/// The transposed k2 s2 convolution is a linear layer to 8 sub-voxels, and the head is pointwise, so full resolution keeps the
/// blocked order `[cell, sub-voxel]` from here to the loss.
fn decoder(g: &mut Graph, widths: &Widths, z: TensorId) -> Result<TensorId> {
    let (hid, hr) = (widths.hidden, widths.head);
    let x = linear_layer(g, z, "in", hid, LinearOptions { activation: true, ..Default::default() })?;
    let x = residual_block(g, x, "res3", Kernel::Three, true, false)?;
    let x = residual_block(g, x, "res1", Kernel::One, true, false)?;
    let x = g.scope("up", |g| {
        // PyTorch's fan-in of a transposed convolution counts its output channels.
        let init = default_init(hr * 8);
        let weight = g.parameter("weight", &[hid, hr, 2, 2, 2], init.clone())?;
        let bias = g.parameter("bias", &[hr], init)?;
        let weight = permute(g, weight, &[2, 3, 4, 1, 0])?;
        let weight = g.reshape(weight, &[8 * hr, hid])?;
        let bias = tile(g, bias, 8)?;
        linear(g, x, weight, Some(bias), true)
    })?;
    let shape = g.shape(x).to_vec();
    let x = g.reshape(x, &[&shape[..4], &[8, hr]].concat())?;
    g.scope("head", |g| {
        let x = g.scope("mix", |g| {
            let weight = g.parameter("weight", &[hr, hr], default_init(hr))?;
            let bias = g.parameter("bias", &[hr], default_init(hr))?;
            residual_linear(g, x, weight, bias)
        })?;
        linear_layer(g, x, "out", widths.classes, LinearOptions::default())
    })
}
