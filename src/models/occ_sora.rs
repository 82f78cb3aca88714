//! OccSora's 4D occupancy tokenizer (`docs/rivals.md`): a clip as a small volume of codes, each a row of a codebook.

mod blocks;

use blocks::{block, norm_relu};

use super::modules::{LinearOptions, conv_layer, default_init, linear_layer};
use super::{
    Architecture, BatchShape, Built, BuiltLatent, Key, LatentKind, LatentSpec, LossTerm, Losses, Mode, ModelConfig,
    Values,
};
use crate::graph::{Graph, Init, TensorId, TensorSpec, WORD_BYTES};
use crate::layers::commitment_loss::{commitment_loss, straight_through};
use crate::layers::conv3d::{ConvGeometry, conv_transpose3d, conv3d_with};
use crate::layers::gather::gather;
use crate::layers::linear::linear;
use crate::layers::nearest_code::{MOST_CODE_VALUES, nearest_code};
use crate::layers::pad3d::{PadMode, Padding, pad3d};
use crate::layers::pointwise::Pointwise;
use crate::layers::space_to_depth::{depth_to_space, space_to_depth};
use crate::layers::unpack::unpack_bytes;
use crate::{Error, Result};

/// The architecture. No parameter depends on T, X or Y.
pub static OCC_SORA: Architecture = Architecture {
    name: "occ_sora",
    about: "OccSora's 4D tokenizer: a codebook between 3D convolutions along t, x and y",
    keys: &[
        Key {
            key: "model.width",
            doc: "W, width of encoder and decoder, a multiple of 4.",
            values: Values::Width {
                defaults: [16, 64, 128, 512],
                needed_for: Some("encoder and decoder need channels"),
            },
        },
        Key {
            key: "model.blocks",
            doc: "R, blocks of the encoder, and of the decoder.",
            values: Values::Width { defaults: [1, 2, 4, 4], needed_for: None },
        },
        Key {
            key: "model.code_features",
            doc: "E, features of a voxel.",
            values: Values::Width { defaults: [4, 8, 8, 8], needed_for: Some("a voxel needs at least one feature") },
        },
        Key {
            key: "model.code_channels",
            doc: "V, values of a code.",
            values: Values::Width { defaults: [16, 32, 128, 128], needed_for: Some("a code needs at least one value") },
        },
        Key {
            key: "model.codes",
            doc: "Codes of the codebook.",
            values: Values::Width {
                defaults: [32, 256, 512, 512],
                needed_for: Some("the codebook needs at least one code"),
            },
        },
    ],
    losses: &[LossTerm {
        name: "embedding",
        title: "Embedding",
        about: "Embedding loss of the codebook, before its weight",
        weight: "train.embedding",
    }],
    training: &[
        ("train.cross_entropy", ["10.0"; 4]),
        ("train.class_weights", ["\"none\""; 4]),
        ("train.weight_decay", ["0.01"; 4]),
        ("train.clip_norm", ["35.0"; 4]),
        ("train.schedule", ["\"cosine\""; 4]),
        // 200 steps of many thousand; as small a part of shorter runs.
        ("train.warmup", ["4", "100", "200", "200"]),
    ],
    later: &[],
    aligns: |_| false,
    build,
};

/// Voxels along x and y, and frames, of a cell that has one code.
const CELL: usize = 8;

#[derive(Debug, Clone, Copy)]
struct Widths {
    /// W: channels of encoder and decoder.
    width: usize,
    /// R: blocks of each.
    blocks: usize,
    /// E: features of a voxel.
    features: usize,
    /// V: values of a code.
    channels: usize,
    /// How many codes there are.
    codes: usize,
}

impl Widths {
    fn of(config: &ModelConfig) -> Widths {
        Widths {
            width: config.get("model.width"),
            blocks: config.get("model.blocks"),
            features: config.get("model.code_features"),
            channels: config.get("model.code_channels"),
            codes: config.get("model.codes"),
        }
    }

    /// Refuses what no such model can be built for.
    fn check(&self, shape: &BatchShape, mode: Mode) -> Result<()> {
        let Widths { width, channels, codes, .. } = *self;
        if !width.is_multiple_of(4) {
            return Err(Error::Usage(format!("model.width is {width}; set it to a multiple of 4")));
        }
        if codes.next_multiple_of(16) * channels.next_multiple_of(4) > MOST_CODE_VALUES {
            return Err(Error::Usage(format!(
                "{codes} codes (model.codes) of {channels} values (model.code_channels) are too many; together they may have \
                 {MOST_CODE_VALUES}"
            )));
        }
        let [x, y, _] = shape.size;
        for (extent, axis) in [(x, "x"), (y, "y")] {
            if !extent.is_multiple_of(CELL) {
                return Err(Error::Usage(format!(
                    "the grid has {extent} voxels along {axis}, but the model {} needs a multiple of {CELL}; set data.crop",
                    OCC_SORA.name
                )));
            }
        }
        let cells = shape.batch * shape.frames.div_ceil(CELL) * (x / CELL) * (y / CELL);
        match mode {
            Mode::Train { .. } if cells < 2 => Err(Error::Usage(format!(
                "a batch of one clip of {} frames of {x}x{y} voxels has a single code, of which batch norm has no variance; set a \
                 larger train.batch, data.crop or data.frames",
                shape.frames
            ))),
            _ => Ok(()),
        }
    }
}

fn build(g: &mut Graph, config: &ModelConfig, shape: &BatchShape, mode: Mode) -> Result<Built> {
    let widths = &Widths::of(config);
    widths.check(shape, mode)?;
    let [x, y, z] = shape.cells();
    let label_bytes = g.input("labels", TensorSpec::u32(&[shape.total_frames(), x, y, z, 8 / WORD_BYTES]));
    let labels = unpack_bytes(g, label_bytes)?;
    let table = g.scope("embedding", |g| g.parameter("weight", &[config.classes, widths.features], Init::Normal))?;
    let columns = embedded(g, table, labels, shape)?;
    let encoded = g.scope("encoder", |g| encoder(g, widths, columns, mode))?;
    let (decoded, latent, losses) = g.scope("quantizer", |g| quantizer(g, widths, encoded, mode))?;
    let columns = g.scope("decoder", |g| decoder(g, widths, shape, decoded, mode))?;
    let logits = products(g, columns, table, shape)?;
    Ok(Built { label_bytes, motion: None, labels, logits, losses, latents: vec![latent] })
}

/// `[B, T, X, Y, Z E]`, of T frames up to a multiple of 8 of which the last repeats: the rows of `table [K, E]` that `labels` name. A
/// label that is no class has zeros.
fn embedded(g: &mut Graph, table: TensorId, labels: TensorId, shape: &BatchShape) -> Result<TensorId> {
    let ([x, y, z], features, frames) = (shape.cells(), g.tensor(table).spec.channels(), shape.total_frames());
    let blocks = gather(g, table, labels)?;
    let blocks = g.reshape(blocks, &[frames, x, y, z, 8 * features])?;
    let volumes = depth_to_space(g, blocks, [2; 3], [0; 3], shape.size)?;
    let [x, y, z] = shape.size;
    let columns = g.reshape(volumes, &[shape.batch, shape.frames, x, y, z * features])?;
    match shape.frames.next_multiple_of(CELL) - shape.frames {
        0 => Ok(columns),
        more => {
            let padding = Padding { before: [0; 3], after: [more as isize, 0, 0], mode: PadMode::Replicate };
            pad3d(g, columns, padding)
        }
    }
}

/// The logits `[N, X', Y', Z', 8, K]` of `columns [B, T, X, Y, Z E]`: products of a voxel's values with the rows of `table [K, E]`.
fn products(g: &mut Graph, columns: TensorId, table: TensorId, shape: &BatchShape) -> Result<TensorId> {
    let ([x, y, z], features, frames) = (shape.size, g.tensor(table).spec.channels(), shape.total_frames());
    let volumes = g.reshape(columns, &[frames, x, y, z, features])?;
    let [x, y, z] = shape.cells();
    let blocks = space_to_depth(g, volumes, [2; 3], [0; 3], [x, y, z])?;
    let blocks = g.reshape(blocks, &[frames, x, y, z, 8, features])?;
    linear(g, blocks, table, None, false)
}

/// `[B, T / 8, X / 8, Y / 8, V]` from `columns`.
fn encoder(g: &mut Graph, widths: &Widths, columns: TensorId, mode: Mode) -> Result<TensorId> {
    let mut x = columns;
    for name in ["down1", "down2", "down3"] {
        x = halved(g, x, name, widths.width)?;
        x = g.push_one(Pointwise::Relu, &[x])?;
    }
    x = conv_layer(g, x, "conv", widths.width, [3; 3], None)?;
    x = blocks(g, widths, x, mode)?;
    linear_layer(g, x, "out", widths.channels, LinearOptions::default())
}

/// `[B, T, X, Y, Z E]` from what the quantizer makes of the encoder's result.
///
/// At each extent only the frames are computed that those of the clip depend on.
fn decoder(g: &mut Graph, widths: &Widths, shape: &BatchShape, x: TensorId, mode: Mode) -> Result<TensorId> {
    let (cells, clip) = (shape.frames.div_ceil(CELL), shape.frames);
    let half = (4 * cells).min(clip / 2 + 1);
    let quarter = (2 * cells).min(half / 2 + 1);
    let mut x = linear_layer(g, x, "in", widths.width, LinearOptions::default())?;
    x = blocks(g, widths, x, mode)?;
    for (name, frames) in [("up1", quarter), ("up2", half)] {
        x = doubled(g, x, name, widths.width, frames)?;
        x = g.push_one(Pointwise::Relu, &[x])?;
    }
    doubled(g, x, "up3", shape.size[2] * widths.features, clip)
}

/// The blocks `block1`, `block2`.. and what follows them.
fn blocks(g: &mut Graph, widths: &Widths, x: TensorId, mode: Mode) -> Result<TensorId> {
    let blocks = (1..=widths.blocks).try_fold(x, |x, i| g.scope(&format!("block{i}"), |g| block(g, x, mode)))?;
    norm_relu(g, blocks, "norm", mode)
}

/// `nn.Conv3d(I, outputs, 4, stride=2, padding=1)`.
fn halved(g: &mut Graph, x: TensorId, name: &str, outputs: usize) -> Result<TensorId> {
    let inputs = g.tensor(x).spec.channels();
    let init = default_init(inputs * 64);
    g.scope(name, |g| {
        let weight = g.parameter("weight", &[outputs, inputs, 4, 4, 4], init.clone())?;
        let bias = g.parameter("bias", &[outputs], init)?;
        conv3d_with(g, x, weight, Some(bias), ConvGeometry::new([4; 3], [2; 3], [1; 3]))
    })
}

/// `nn.ConvTranspose3d(I, outputs, 4, stride=2, padding=1)`, of whose frames only the first `frames` are computed; at most two may
/// be left out.
fn doubled(g: &mut Graph, x: TensorId, name: &str, outputs: usize, frames: usize) -> Result<TensorId> {
    let inputs = g.tensor(x).spec.channels();
    let left_out = (2 * g.shape(x)[1]).saturating_sub(frames);
    let geometry = ConvGeometry { kernel: [4; 3], stride: [2; 3], padding: [[1, 1 + left_out], [1; 2], [1; 2]] };
    // PyTorch's fan-in of a transposed convolution counts its output channels.
    let init = default_init(outputs * 64);
    g.scope(name, |g| {
        let weight = g.parameter("weight", &[inputs, outputs, 4, 4, 4], init.clone())?;
        let bias = g.parameter("bias", &[outputs], init)?;
        conv_transpose3d(g, x, weight, Some(bias), geometry)
    })
}

/// What is decoded of `x [B, T / 8, X / 8, Y / 8, V]`, with its codes, and where they are trained with their loss.
fn quantizer(g: &mut Graph, widths: &Widths, x: TensorId, mode: Mode) -> Result<(TensorId, BuiltLatent, Losses)> {
    let Widths { channels, codes, .. } = *widths;
    let z = linear_layer(g, x, "in", channels, LinearOptions::default())?;
    let table = g.parameter("codes", &[codes, channels], Init::Uniform(1.0 / codes as f64))?;
    let nearest = nearest_code(g, z, table)?;
    let numbers = [g.shape(nearest), &[1]].concat();
    let encoded = g.reshape(nearest, &numbers)?;
    let decoded = match mode {
        Mode::Train { .. } | Mode::Look => encoded,
        Mode::Decode => g.input("codes", TensorSpec::u32(&numbers)),
    };
    let read = g.reshape(decoded, &numbers[..4])?;
    let mut q = gather(g, table, read)?;
    let mut losses = Losses::new();
    if let Mode::Train { .. } = mode {
        losses.push(("embedding", g.scope("loss", |g| commitment_loss(g, z, q, 1.0))?));
        q = straight_through(g, z, q)?;
    }
    let out = linear_layer(g, q, "out", channels, LinearOptions::default())?;
    let latent = LatentSpec { name: "codes", axes: "txy", kind: LatentKind::Code { codes, channels } };
    Ok((out, BuiltLatent { latent, encoded, decoded }, losses))
}

#[cfg(test)]
mod tests;
