use super::*;
use crate::models::by_name;

const SHAPE: BatchShape = BatchShape { batch: 1, frames: 8, size: [16, 16, 8] };

fn model(preset: usize) -> ModelConfig {
    ModelConfig::of(by_name("occ_sora").unwrap(), preset)
}

fn built(config: &ModelConfig, shape: &BatchShape, mode: fn(&mut Graph) -> Mode) -> Result<(Graph, Built)> {
    let mut g = Graph::new();
    let mode = mode(&mut g);
    let built = config.build(&mut g, shape, mode)?;
    Ok((g, built))
}

fn look(_: &mut Graph) -> Mode {
    Mode::Look
}

fn train(g: &mut Graph) -> Mode {
    Mode::Train { rng: g.input("rng", TensorSpec::u32(&[3])) }
}

#[test]
fn it_has_the_published_number_of_parameters() {
    let (graph, _) = built(&model(3), &SHAPE, look).unwrap();
    assert_eq!(graph.parameter_count(), 133_175_320);
    // As released: 16 voxels high, 18 classes.
    let mut config = model(3);
    config.classes = 18;
    let (graph, _) = built(&config, &BatchShape { size: [16, 16, 16], ..SHAPE }, look).unwrap();
    assert!((137.35e6..137.45e6).contains(&(graph.parameter_count() as f64)), "{}", graph.parameter_count());
}

#[test]
fn any_number_of_frames_is_decoded_from_cells_of_eight() {
    for (frames, cells) in [(2, 1), (3, 1), (7, 1), (8, 1), (9, 2), (12, 2), (16, 2), (63, 8)] {
        let shape = BatchShape { frames, ..SHAPE };
        for mode in [look, train, |_: &mut Graph| Mode::Decode] {
            let (graph, built) = built(&model(0), &shape, mode).unwrap();
            assert_eq!(graph.shape(built.latents[0].encoded), [1, cells, 2, 2, 1]);
            assert_eq!(graph.shape(built.logits), [frames, 8, 8, 4, 8, 11]);
        }
    }
}

#[test]
fn no_parameter_depends_on_the_extents() {
    let shapes = |shape: &BatchShape| {
        let (graph, _) = built(&model(0), shape, look).unwrap();
        graph.parameters().iter().map(|p| (p.name.clone(), p.shape.clone())).collect::<Vec<_>>()
    };
    assert_eq!(shapes(&SHAPE), shapes(&BatchShape { batch: 2, frames: 12, size: [8, 24, 8] }));
}

#[test]
fn what_cannot_be_built_is_refused_in_one_sentence() {
    let why = |config: ModelConfig, shape: BatchShape, mode: fn(&mut Graph) -> Mode| {
        let why = built(&config, &shape, mode).unwrap_err();
        assert_eq!(why.exit_code(), 2, "{why}");
        why.to_string()
    };
    let odd = BatchShape { size: [16, 12, 8], ..SHAPE };
    assert!(why(model(0), odd, look).contains("12 voxels along y, but the model occ_sora needs a multiple of 8"));
    let narrow = model(0).with(&[("model.width", 6)]).unwrap();
    assert!(why(narrow, SHAPE, look).contains("model.width is 6"));
    let many = model(0).with(&[("model.codes", 4096), ("model.code_channels", 129)]).unwrap();
    assert!(why(many, SHAPE, look).contains("too many"));
    // PyTorch refuses it too.
    let single = BatchShape { size: [8, 8, 8], ..SHAPE };
    assert!(why(model(0), single.clone(), train).contains("a single code"));
    built(&model(0), &single, look).unwrap();
}
