//! SEP-4D (`docs/model.md`; equation numbers of the paper).

mod align;
mod encoders;
mod fusion;

use align::{ALIGNMENTS, Frames};
use encoders::ENCODERS;
use fusion::FUSIONS;

use super::modules::{
    Kernel, LinearOptions, PLANES, Sampler, conv_layer, default_init, distribution_layer, linear_layer,
    positional_code, residual_block,
};
use super::{ALIGN, Architecture, BY_POSES, BY_REGISTRATION, BatchShape, Built, Key, Mode, ModelConfig, Values, keys};
use crate::graph::{Add, Graph, Init, TensorId, TensorSpec, WORD_BYTES};
use crate::layers::axis_pool::axis_pool;
use crate::layers::concat::slice;
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
            key: "model.features",
            doc: "F, channels of a frame's features, from which the latent is made; 0 for as many as the latent planes have.",
            values: Values::Width { defaults: [0, 32, 32, 32], needed_for: None },
        },
        Key {
            key: "model.plane_features",
            doc: "D, channels of a plane's features.",
            values: Values::Width {
                defaults: [6, 32, 32, 32],
                needed_for: Some("the planes need at least one feature"),
            },
        },
        keys::HIDDEN,
        keys::HEAD,
        Key {
            key: "model.fusion",
            doc: "How the latent planes become one 4D latent.",
            values: Values::Choice { names: FUSIONS, defaults: [0; 4] },
        },
        Key {
            key: "model.encoder",
            doc: "What the latent is.",
            values: Values::Choice { names: ENCODERS, defaults: [0; 4] },
        },
        Key {
            key: ALIGN,
            doc: "By which motion of the sensor the frames of a clip meet before what they share is pooled: that of poses, if known (auto), or of `sep4d register`.",
            values: Values::Choice { names: ALIGNMENTS, defaults: [0, 3, 3, 0] },
        },
        Key {
            key: "model.margin",
            doc: "Cells by which the grid in which aligned frames meet is larger than theirs, at either end of x and y.",
            values: Values::Width { defaults: [0; 4], needed_for: None },
        },
        Key {
            key: "model.volume_channels",
            doc: "c, latent channels of the encoders conv3d_se and bev; 0 for as many as give the latent planes' floats.",
            values: Values::Width { defaults: [0; 4], needed_for: None },
        },
    ],
    losses: &[keys::KL],
    training: &[],
    later: &[("model.features", "0"), (ALIGN, "\"none\"")],
    aligns: |config| config.choice("model.encoder") == ENCODERS[0].0 && config.choice("model.fusion") == FUSIONS[0].0,
    build,
};

/// Widths of the model.
struct Widths {
    /// K: semantic classes, free included.
    classes: usize,
    /// C: channels of the latent planes.
    latent_channels: usize,
    /// F: channels of a frame's features.
    features: usize,
    /// D: features of the planes after their blocks.
    plane_features: usize,
    /// hid: width of the decoder at half resolution.
    hidden: usize,
    /// hr: width of the head at full resolution.
    head: usize,
    /// How planes are fused.
    fusion: &'static str,
    /// Whether the frames of a clip are aligned.
    aligned: bool,
    /// By how many cells the grid in which they are is larger at either end of x and y.
    margin: usize,
    /// c: channels of a latent that is no plane, or 0.
    volume_channels: usize,
}

impl Widths {
    fn of(config: &ModelConfig) -> Widths {
        let latent_channels = config.get("model.latent_channels");
        Widths {
            classes: config.classes,
            latent_channels,
            features: match config.get("model.features") {
                0 => latent_channels,
                given => given,
            },
            plane_features: config.get("model.plane_features"),
            hidden: config.get("model.hidden"),
            head: config.get("model.head"),
            fusion: config.choice("model.fusion"),
            aligned: [BY_POSES, BY_REGISTRATION].contains(&config.choice(ALIGN)),
            margin: config.get("model.margin"),
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
    if widths.aligned && !(SEP4D.aligns)(config) {
        return Err(Error::Usage(format!(
            "only the encoder {} with the fusion {} aligns frames; set {ALIGN} to none, or model.encoder and model.fusion to these",
            ENCODERS[0].0, FUSIONS[0].0
        )));
    }
    let [x, y, _] = shape.cells();
    if widths.aligned && widths.margin > x.max(y) {
        return Err(Error::Usage(format!(
            "model.margin is {}, but frames have {x} and {y} cells along x and y; set it to no more",
            widths.margin
        )));
    }
    let frames = Frames::of(g, widths.aligned, shape, widths.margin);
    let (z, sampler) = match config.choice("model.encoder") {
        "conv3d_se" => encoders::conv3d_se(g, widths, shape, labels, mode)?,
        "bev" => encoders::bev(g, widths, shape, labels, mode)?,
        _ => planes(g, widths, &frames, labels, mode)?,
    };
    let logits = g.scope("decoder", |g| decoder(g, widths, z))?;
    let (mut latents, losses) = sampler.finish(g)?;
    latents.extend(frames.latent());
    Ok(Built { label_bytes, motion: frames.motion, labels, logits, losses, latents })
}

/// The latent planes, and `z [N, X', Y', Z', D]` that is fused from samples of them.
fn planes(
    g: &mut Graph,
    widths: &Widths,
    frames: &Frames,
    labels: TensorId,
    mode: Mode,
) -> Result<(TensorId, Sampler)> {
    let features = extractor(g, widths, labels)?;
    let planes = g.scope("planes", |g| factorise(g, widths, frames, features))?;
    let distributions = g.scope("distributions", |g| {
        planes.try_map(|_, name, plane| g.scope(name, |g| distribution(g, widths, plane)))
    })?;
    let elements = distributions.all().iter().map(|&d| g.tensor(d).spec.elements()).sum();
    let mut sampler = Sampler::new(mode, elements);
    let latents = distributions.try_map(|_, name, distribution| sampler.decoded(g, name, name, distribution))?;
    let blocks =
        g.scope("blocks", |g| latents.try_map(|_, name, plane| g.scope(name, |g| plane_block(g, widths, plane))))?;
    let [x, y, z] = frames.shape.cells();
    let fused = g.scope("fusion", |g| fusion::fuse(g, widths.fusion, &blocks, frames))?;
    Ok((g.reshape(fused, &[frames.shape.total_frames(), x, y, z, widths.plane_features])?, sampler))
}

/// Width of the extractor before its output layer, fixed by the design.
const EXTRACTOR_WIDTH: usize = 32;
/// Size of a class embedding, fixed by the design.
const EMBEDDING: usize = 4;

/// f_theta: `[N, X', Y', Z', F]` from labels.
fn extractor(g: &mut Graph, widths: &Widths, labels: TensorId) -> Result<TensorId> {
    g.scope("extractor", |g| {
        let x = embedded(g, widths, labels)?;
        let x = residual_block(g, x, "res", Kernel::Three, false, true)?;
        linear_layer(g, x, "out", widths.features, LinearOptions::default())
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

/// The axes that a pool is over, with their extents.
type Axes = (&'static str, Vec<usize>);

/// PF (Eq. 6): separable attention pooling of `features [N, X', Y', Z', F]` onto six planes of F channels. What the frames share is
/// pooled where they meet, what each has of its own where it is.
fn factorise(g: &mut Graph, widths: &Widths, frames: &Frames, features: TensorId) -> Result<Planes> {
    let f = widths.features;
    let (t, [x, y, z]) = (frames.shape.frames, frames.shape.cells());
    let volume = g.reshape(features, &[frames.shape.batch, t, x, y, z, f])?;
    let shared: Axes = ("t", vec![t]);
    let own: [Axes; 3] = [("yz", vec![y, z]), ("xz", vec![x, z]), ("xy", vec![x, y])];
    let parts = match frames.meet(g, volume)? {
        Some(aligned) => vec![(aligned, vec![shared]), (volume, own.to_vec())],
        None => vec![(volume, [&[shared], &own[..]].concat())],
    };
    let pooled = pool(g, f, "volume", frames, &parts)?;
    let [x, y, z] = frames.canonical();
    let still: [Axes; 3] = [("z", vec![z]), ("y", vec![y]), ("x", vec![x])];
    let flat = pool(g, f, "static", frames, &[(pooled[0], still.to_vec())])?;
    Ok(Planes { xy: flat[0], xz: flat[1], yz: flat[2], tx: pooled[1], ty: pooled[2], tz: pooled[3] })
}

/// Attention poolings of tensors, with values, scores and positional biases of their own; one linear layer makes the values of all, and
/// one the scores. What is pooled over time alone is where the frames meet.
fn pool(
    g: &mut Graph,
    f: usize,
    name: &str,
    frames: &Frames,
    parts: &[(TensorId, Vec<Axes>)],
) -> Result<Vec<TensorId>> {
    let width = f * parts.iter().map(|(_, pools)| pools.len()).sum::<usize>();
    let layer = |g: &mut Graph, name: &str, init: Init| {
        g.scope(name, |g| Ok([g.parameter("weight", &[width, f], init.clone())?, g.parameter("bias", &[width], init)?]))
    };
    let (values, scores) =
        g.scope(name, |g| Ok((layer(g, "values", default_init(f))?, layer(g, "scores", Init::Constant(0.0))?)))?;
    let mut results = Vec::new();
    let mut begun = 0;
    for (from, pools) in parts {
        let rows = f * pools.len();
        let part = |g: &mut Graph, [weight, bias]: [TensorId; 2]| {
            let (weight, bias) = (some_rows(g, weight, begun, rows)?, some_rows(g, bias, begun, rows)?);
            linear(g, *from, weight, Some(bias), false)
        };
        let (values, mut scores) = (part(g, values)?, part(g, scores)?);
        if let [("t", _)] = pools[..] {
            scores = frames.only_seen(g, scores)?;
        }
        begun += rows;
        let mut biases = Vec::new();
        for (axes, extents) in pools {
            let code = positional_code(extents);
            let bias = g.scope(&format!("bias.{axes}"), |g| {
                let code = g.constant("code", &[extents.iter().product(), 9 * extents.len()], code)?;
                let hidden = LinearOptions { activation: true, ..Default::default() };
                let hidden = linear_layer(g, code, "hidden", 2 * f, hidden)?;
                linear_layer(g, hidden, "out", f, LinearOptions::default())
            })?;
            biases.push((['t', 'x', 'y', 'z'].map(|axis| axes.contains(axis)), bias));
        }
        results.extend(axis_pool(g, values, scores, &biases)?);
    }
    Ok(results)
}

/// Rows `first..first + rows` of a matrix, or elements of a vector.
fn some_rows(g: &mut Graph, from: TensorId, first: usize, rows: usize) -> Result<TensorId> {
    let shape = g.shape(from).to_vec();
    if shape[0] == rows {
        return Ok(from);
    }
    let row: usize = shape[1..].iter().product();
    let flat = g.reshape(from, &[1, shape[0] * row])?;
    let some = slice(g, flat, first * row, rows * row)?;
    g.reshape(some, &[&[rows], &shape[1..]].concat())
}

/// E_k (Eq. 7): `(mu, logvar)` of one plane, `[.., 2C]`. The log-variances start near -4.
fn distribution(g: &mut Graph, widths: &Widths, plane: TensorId) -> Result<TensorId> {
    let activated = LinearOptions { activation: true, ..Default::default() };
    let hidden = linear_layer(g, plane, "hidden", widths.features, activated)?;
    distribution_layer(g, hidden, "out", widths.latent_channels)
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
