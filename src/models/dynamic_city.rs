//! DynamicCity's HexPlane VAE (`docs/rivals.md`): transformers project voxels onto six Gaussian planes, whose product is decoded.

mod decoder;
mod encoder;
mod projection;
pub mod released;

use super::modules::{LinearOptions, PLANES, Sampler, linear_layer};
use super::{Architecture, BatchShape, Built, Key, Mode, ModelConfig, Values, keys};
use crate::graph::{Graph, TensorSpec, WORD_BYTES};
use crate::layers::unpack::unpack_bytes;
use crate::{Error, Result};
use projection::Dropouts;

/// The architecture. Its parameters depend on T, X, Y and Z.
pub static DYNAMIC_CITY: Architecture = Architecture {
    name: "dynamic_city",
    about: "six Gaussian latent planes, projected by transformers and multiplied",
    keys: &[
        keys::LATENT_CHANNELS,
        Key {
            key: "model.query_channels",
            doc: "Q, channels of a plane before the planes are multiplied.",
            values: Values::Width {
                defaults: [8, 32, 64, 64],
                needed_for: Some("the planes need at least one channel to be multiplied in"),
            },
        },
        keys::HIDDEN,
        keys::HEAD,
        Key {
            key: "model.mlp",
            doc: "M, width of the transformers' MLPs.",
            values: Values::Width {
                defaults: [8, 16, 32, 32],
                needed_for: Some("the transformers' MLPs need at least one channel"),
            },
        },
        Key {
            key: "model.depth",
            doc: "Layers of each transformer.",
            values: Values::Width { defaults: [2; 4], needed_for: Some("a transformer needs at least one layer") },
        },
        Key {
            key: "model.heads",
            doc: "Heads of an attention, which share its channels.",
            values: Values::Width { defaults: [2; 4], needed_for: Some("an attention needs at least one head") },
        },
        Key {
            key: "model.dropout",
            doc: "Dropout in the transformers while they are trained, per cent, below 100.",
            values: Values::Width { defaults: [10; 4], needed_for: None },
        },
    ],
    losses: &[keys::KL],
    training: &[("train.kl", ["0.0015"; 4]), ("train.clip_norm", ["0.0"; 4])],
    later: &[],
    aligns: |_| false,
    build,
};

/// Widths of the model.
struct Widths {
    /// K: semantic classes, free included.
    classes: usize,
    /// C: channels of the latent planes, and of the encoder.
    latent_channels: usize,
    /// Q: channels of a plane before the planes are multiplied.
    query_channels: usize,
    /// h: width of the decoder at half resolution.
    hidden: usize,
    /// r: width of the decoder at full resolution.
    head: usize,
    /// M: width of the transformers' MLPs.
    mlp: usize,
    /// L: layers of a transformer.
    depth: usize,
    /// H: heads of an attention.
    heads: usize,
    /// Per cent.
    dropout: usize,
}

impl Widths {
    fn of(config: &ModelConfig) -> Result<Widths> {
        let widths = Widths {
            classes: config.classes,
            latent_channels: config.get("model.latent_channels"),
            query_channels: config.get("model.query_channels"),
            hidden: config.get("model.hidden"),
            head: config.get("model.head"),
            mlp: config.get("model.mlp"),
            depth: config.get("model.depth"),
            heads: config.get("model.heads"),
            dropout: config.get("model.dropout"),
        };
        let Widths { latent_channels, heads, dropout, .. } = widths;
        if !latent_channels.is_multiple_of(heads) {
            return Err(Error::Usage(format!(
                "model.latent_channels is {latent_channels}, which {heads} heads cannot share; set it to a multiple of model.heads"
            )));
        }
        if dropout >= 100 {
            return Err(Error::Usage(format!("model.dropout is {dropout} per cent; set it below 100")));
        }
        Ok(widths)
    }
}

/// Appends the whole model to `g`.
///
/// # Errors
/// [`Error::Usage`] for extents that do not work, [`Error::Shape`] otherwise.
fn build(g: &mut Graph, config: &ModelConfig, shape: &BatchShape, mode: Mode) -> Result<Built> {
    let widths = &Widths::of(config)?;
    if !shape.frames.is_multiple_of(2) {
        return Err(Error::Usage(format!(
            "data.frames is {}, but the model dynamic_city halves the number of frames; set it to an even one",
            shape.frames
        )));
    }
    let [x, y, z] = shape.cells();
    let label_bytes = g.input("labels", TensorSpec::u32(&[shape.total_frames(), x, y, z, 8 / WORD_BYTES]));
    let labels = unpack_bytes(g, label_bytes)?;
    let mut dropouts = Dropouts::new(mode, widths.dropout, PLANES.len() as u32);
    let planes = g.scope("encoder", |g| encoder::encode(g, widths, shape, labels, &mut dropouts))?;
    let distributions = g.scope("distributions", |g| {
        let of_plane =
            |(name, plane)| linear_layer(g, plane, name, 2 * widths.latent_channels, LinearOptions::default());
        PLANES.into_iter().zip(planes).map(of_plane).collect::<Result<Vec<_>>>()
    })?;
    let elements = distributions.iter().map(|&distribution| g.tensor(distribution).spec.elements()).sum();
    let mut sampler = Sampler::new(mode, elements);
    let latents = PLANES.into_iter().zip(distributions).map(|(name, plane)| sampler.decoded(g, name, name, plane));
    let latents = latents.collect::<Result<Vec<_>>>()?;
    let logits = g.scope("decoder", |g| decoder::decode(g, widths, shape, &latents))?;
    let (latents, losses) = sampler.finish(g)?;
    Ok(Built { label_bytes, motion: None, labels, logits, losses, latents })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(frames: usize, set: &[(&str, usize)]) -> Result<Graph> {
        let mut config = ModelConfig::of(&DYNAMIC_CITY, 3).with(set)?;
        config.classes = 12;
        let mut graph = Graph::new();
        let shape = BatchShape { batch: 1, frames, size: [128, 128, 8] };
        config.build(&mut graph, &shape, Mode::Look)?;
        Ok(graph)
    }

    #[test]
    fn there_are_as_many_parameters_as_in_the_release() {
        for (frames, count) in [(4, 1_693_912), (8, 1_695_704), (16, 1_699_288), (32, 1_706_456), (64, 1_720_792)] {
            assert_eq!(built(frames, &[]).unwrap().parameter_count(), count, "T = {frames}");
        }
    }

    #[test]
    fn what_cannot_be_halved_or_shared_is_refused() {
        let refusal = |frames, set: &[(&str, usize)]| match built(frames, set) {
            Err(Error::Usage(why)) => why,
            other => panic!("{:?}", other.map(|_| ())),
        };
        assert!(refusal(5, &[]).contains("data.frames is 5"));
        assert!(refusal(4, &[("model.heads", 3)]).contains("model.latent_channels is 16, which 3 heads cannot share"));
        assert!(refusal(4, &[("model.dropout", 100)]).contains("below 100"));
    }
}
