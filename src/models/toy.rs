//! The smallest model that can be trained, for tests: a linear layer from labels to a volume of features, and one from there to
//! logits.

use super::modules::{LinearOptions, linear_layer};
use super::{Architecture, BatchShape, Built, BuiltLatent, Key, LatentKind, LatentSpec, Mode, ModelConfig, Values};
use crate::Result;
use crate::graph::{Graph, Init, TensorSpec, WORD_BYTES};
use crate::layers::batch_norm::RunningAverage;
use crate::layers::label_table::label_table;
use crate::layers::unpack::unpack_bytes;

/// Its only key is its own.
const FEATURES: &str = "model.toy_features";

pub static TOY: Architecture = Architecture {
    name: "toy",
    about: "two linear layers",
    keys: &[Key {
        key: FEATURES,
        doc: "Features of a cell.",
        values: Values::Width { defaults: [4, 4, 4, 4], needed_for: Some("the volume needs at least one feature") },
    }],
    losses: &[],
    training: &[("train.lovasz", ["0.5", "1.0", "1.0", "1.0"]), ("train.class_weights", ["\"none\""; 4])],
    later: &[],
    aligns: |_| false,
    build,
};

fn build(g: &mut Graph, config: &ModelConfig, shape: &BatchShape, mode: Mode) -> Result<Built> {
    let ([x, y, z], features) = (shape.cells(), config.get(FEATURES));
    let label_bytes = g.input("labels", TensorSpec::u32(&[shape.total_frames(), x, y, z, 8 / WORD_BYTES]));
    let labels = unpack_bytes(g, label_bytes)?;
    let table = g.parameter("table", &[config.classes, 8, features], Init::Normal)?;
    let bias = g.parameter("bias", &[features], Init::Constant(0.0))?;
    let volume = label_table(g, labels, table, bias)?;
    // Nothing but a buffer's value depends on it: what no gradient reaches, but training changes.
    let seen = g.buffer("seen", &[features], Init::Constant(1.0))?;
    if let Mode::Train { .. } = mode {
        g.push_into(RunningAverage { momentum: 0.5 }, &[seen, bias], &[seen])?;
    }
    let encoded = g.reshape(volume, &[shape.batch, shape.frames, x, y, z, features])?;
    let decoded = match mode {
        Mode::Train { .. } | Mode::Look => encoded,
        Mode::Decode => g.input("volume", TensorSpec::f32(&[shape.batch, shape.frames, x, y, z, features])),
    };
    let logits = linear_layer(g, decoded, "out", 8 * config.classes, LinearOptions::default())?;
    let logits = g.reshape(logits, &[shape.total_frames(), x, y, z, 8, config.classes])?;
    let latent = LatentSpec { name: "volume", axes: "txyz", kind: LatentKind::Plain };
    let latents = vec![BuiltLatent { latent, encoded, decoded }];
    Ok(Built { label_bytes, motion: None, labels, logits, losses: Vec::new(), latents })
}
