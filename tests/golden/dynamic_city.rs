//! DynamicCity as a whole: whether it learns, and takes the released parameters.

use sep4d::data::batch::Batch;
use sep4d::data::synth;
use sep4d::gpu::{Context, DeviceChoice};
use sep4d::graph::Graph;
use sep4d::models::dynamic_city::DYNAMIC_CITY;
use sep4d::models::dynamic_city::released::{Tensors, parameters};
use sep4d::models::{BatchShape, Mode, ModelConfig, Terms};
use sep4d::train::session::{LossWeights, Session, StepConfig};

use crate::by_heart::learns_by_heart;
use crate::fixture::Fixture;

#[test]
fn one_clip_is_learnt_by_heart() {
    let shape = BatchShape { batch: 1, frames: 8, size: [8, 8, 4] };
    let grid = synth::grid(shape.size, [3.2, 3.2, 0.75]).unwrap();
    let batch = Batch::from_clips(&[synth::clip(&grid, 3, shape.frames)], &grid).unwrap();
    let config = ModelConfig::of(&DYNAMIC_CITY, 1).with(&[("model.dropout", 0)]).unwrap();
    let weights = LossWeights { cross_entropy: 1.0, lovasz: 1.0, terms: Terms::of([("kl", 0.0015)]) };
    let step = StepConfig { weights, ..StepConfig::default() };
    let context = Context::open(&DeviceChoice::Best).unwrap();
    let mut session = Session::new(&context, &config, &shape, &step, &[1.0; 11], 0).unwrap();
    assert!(learns_by_heart(&mut session, &batch, 2e-2));
}

/// The tensors of a fixture whose names begin so, without that.
fn fixture(name: &str, prefix: &str) -> Tensors {
    let named = Fixture::named(name).tensors.tensors();
    let own = named.into_iter().filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor)));
    let values = |data: &[u8]| data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    own.map(|(name, tensor)| (name, (tensor.shape().to_vec(), values(tensor.data())))).collect()
}

#[test]
fn a_released_checkpoint_has_all_parameters() {
    let widths = [("model.query_channels", 6), ("model.hidden", 6)];
    let config = ModelConfig::of(&DYNAMIC_CITY, 0).with(&widths).unwrap();
    let mut graph = Graph::new();
    config.build(&mut graph, &BatchShape { batch: 1, frames: 4, size: [10, 6, 4] }, Mode::Look).unwrap();
    let mut released = fixture("dynamic_city_released", "");
    let expected = fixture("rivals", "dynamic_city_1.param.");
    let values = parameters(graph.parameters(), &released).unwrap();
    for (parameter, values) in graph.parameters().iter().zip(values) {
        assert_eq!(values, expected[&parameter.name].1, "{}", parameter.name);
    }

    let refusal = |released: &Tensors| parameters(graph.parameters(), released).unwrap_err().to_string();
    let (shape, _) = released.get_mut("encoder.pos_encodings.tz").unwrap();
    *shape = vec![1, 8, 8];
    assert!(refusal(&released).contains("encoder.pos_encodings.tz as [1, 8, 8], but the model needs [16, 4]"));
    released.remove("decoder.conv_block.shortcut_h.bias");
    released.remove("encoder.pos_encodings.tz");
    assert!(
        refusal(&released).contains("lacks the tensor encoder.pos_encodings.tz, which becomes encoder.projection.tz")
    );
}
