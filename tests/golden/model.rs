//! SEP-4D, its variants and DynamicCity as a whole against the independent PyTorch implementations in `tests/golden`.

use std::sync::Arc;

use safetensors::tensor::Dtype;
use sep4d::data::batch::{Batch, Motion, to_blocked};
use sep4d::data::{Pose, pose_of_rows};
use sep4d::gpu::{Context, DeviceChoice};
use sep4d::graph::execute::{Executor, Memory};
use sep4d::graph::interpret::{self, Values};
use sep4d::graph::plan::Plan;
use sep4d::graph::{Block, Graph, KernelLimits, TensorId, TensorSpec};
use sep4d::layers::pointwise::weighted_sum;
use sep4d::layers::segmentation_loss::segmentation_loss;
use sep4d::models::dynamic_city::DYNAMIC_CITY;
use sep4d::models::sep4d::SEP4D;
use sep4d::models::{BatchShape, Built, Mode, ModelConfig, Terms};
use sep4d::selftest::relative_error;
use sep4d::train::session::{LossWeights, NamedTensor, Session, StepConfig, TrainingState};

use crate::fixture::Fixture;

const CLASSES: usize = 11;
const SEED: u32 = 7;

/// The variants of the second fixture that are named after a choice, with its key.
const VARIANTS: [(&str, &str); 7] = [
    ("concat", "model.fusion"),
    ("conv1d", "model.fusion"),
    ("mlp", "model.fusion"),
    ("averaging", "model.fusion"),
    ("dynamic", "model.fusion"),
    ("conv3d_se", "model.encoder"),
    ("bev", "model.encoder"),
];
/// Those of more features than latent channels.
const WIDE: [(&str, &str, &str); 3] = [
    ("wide", "model.encoder", "planes"),
    ("wide_conv3d_se", "model.encoder", "conv3d_se"),
    ("aligned", "model.align", "pose"),
];

/// A fixture's figures of one model.
struct Golden {
    fixture: &'static Fixture,
    /// What its names begin with, unless all variants share what they name.
    prefix: String,
    config: ModelConfig,
    shape: BatchShape,
    /// Weight of the divergence in the loss.
    kl: f32,
}

impl Golden {
    /// SEP-4D itself: C = 4, D = 6, hid = 8, hr = 4.
    fn load() -> Golden {
        let shape = BatchShape { batch: 2, frames: 3, size: [8, 6, 4] };
        Golden::read("model", "", ModelConfig::of(&SEP4D, 0), shape, 0.005)
    }

    /// It and all its variants, and DynamicCity of two sizes.
    fn all() -> impl Iterator<Item = Golden> {
        let narrow =
            [("model.latent_channels", 3), ("model.plane_features", 4), ("model.hidden", 6), ("model.head", 4)];
        let variant = move |name: &'static str, wide: &[(&str, usize)], key: &str, choice: &str| {
            let config = ModelConfig::of(&SEP4D, 0).with(&narrow).unwrap().with(wide).unwrap();
            let config = config.with_choice(key, choice).unwrap();
            Golden::read("variants", name, config, BatchShape { batch: 2, frames: 3, size: [12, 8, 4] }, 0.005)
        };
        let named = VARIANTS.into_iter().map(move |(name, key)| variant(name, &[], key, name));
        let wide = WIDE
            .into_iter()
            .map(move |(name, key, choice)| variant(name, &[("model.features", 5), ("model.margin", 1)], key, choice));
        let city = |(name, widths, shape): (&str, [usize; 7], BatchShape)| {
            let keys = ["latent_channels", "query_channels", "hidden", "head", "mlp", "depth", "heads"];
            let keys = keys.map(|key| format!("model.{key}"));
            let mut values: Vec<(&str, usize)> = keys.iter().map(String::as_str).zip(widths).collect();
            values.push(("model.dropout", 0));
            let config = ModelConfig::of(&DYNAMIC_CITY, 0).with(&values).unwrap();
            Golden::read("rivals", name, config, shape, 0.0015)
        };
        let cities = [
            ("dynamic_city_1", [4, 6, 6, 4, 8, 2, 2], BatchShape { batch: 2, frames: 4, size: [10, 6, 4] }),
            ("dynamic_city_2", [6, 5, 7, 3, 5, 1, 3], BatchShape { batch: 1, frames: 6, size: [4, 10, 6] }),
        ];
        std::iter::once(Golden::load()).chain(named).chain(wide).chain(cities.into_iter().map(city))
    }

    fn read(fixture: &str, name: &str, config: ModelConfig, shape: BatchShape, kl: f32) -> Golden {
        let prefix = if name.is_empty() { String::new() } else { format!("{name}.") };
        Golden { fixture: Fixture::named(fixture), prefix, config, shape, kl }
    }

    /// The name in the file, if there is such a tensor.
    fn name(&self, name: &str) -> Option<String> {
        let own = format!("{}{name}", self.prefix);
        [own, name.to_owned()].into_iter().find(|name| self.fixture.tensors.tensor(name).is_ok())
    }

    fn has(&self, name: &str) -> bool {
        self.name(name).is_some()
    }

    fn f32(&self, name: &str) -> Vec<f32> {
        let tensor = self.fixture.tensors.tensor(&self.name(name).expect(name)).unwrap();
        assert_eq!(tensor.dtype(), Dtype::F32, "{name}");
        tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    fn f64(&self, name: &str) -> Vec<f64> {
        self.f32(name).into_iter().map(f64::from).collect()
    }

    /// Labels `[N, X', Y', Z', 8]`.
    fn labels(&self) -> Vec<u8> {
        let plain = self.fixture.tensors.tensor(&self.name("labels").unwrap()).unwrap();
        let size = self.shape.size;
        plain.data().chunks(size.iter().product()).flat_map(|frame| to_blocked(frame, size)).collect()
    }

    /// The same, four to a word.
    fn label_words(&self) -> Vec<f64> {
        let word = |bytes: &[u8]| f64::from(u32::from_le_bytes(bytes.try_into().unwrap()));
        self.labels().chunks(4).map(word).collect()
    }

    /// What it is given, beside the labels: how the frames lie, where it asks for that.
    fn motion(&self, model: &Built) -> Option<(TensorId, Vec<f32>)> {
        Some((model.motion?.maps, self.f32("motion")))
    }

    fn parameter(&self, name: &str) -> Vec<f32> {
        self.f32(&format!("param.{name}"))
    }
}

/// Logits in blocked order from the fixture's `[N, X, Y, Z, K]`.
fn blocked_logits(golden: &Golden) -> Vec<f64> {
    let plain = golden.f64("eval.logits");
    let voxels: usize = golden.shape.size.iter().product();
    let frames = plain.len() / (voxels * CLASSES);
    let rows: Vec<usize> = (0..frames * voxels).collect();
    let order: Vec<usize> = rows.chunks(voxels).flat_map(|frame| to_blocked(frame, golden.shape.size)).collect();
    order.iter().flat_map(|row| plain[row * CLASSES..(row + 1) * CLASSES].to_vec()).collect()
}

struct Training {
    graph: Graph,
    model: Built,
    rng: TensorId,
    class_weights: TensorId,
    losses: [TensorId; 4],
}

fn training_graph(golden: &Golden) -> Training {
    let mut g = Graph::new();
    let class_weights = g.input("class_weights", TensorSpec::f32(&[CLASSES]));
    let rng = g.input("rng", TensorSpec::u32(&[3]));
    let model = golden.config.build(&mut g, &golden.shape, Mode::Train { rng }).unwrap();
    let (ce, lovasz) = segmentation_loss(&mut g, model.logits, model.labels, class_weights).unwrap();
    let [("kl", kl)] = model.losses[..] else { panic!("{:?}", model.losses) };
    let total = weighted_sum(&mut g, &[(1.0, ce), (1.0, lovasz), (golden.kl, kl)]).unwrap();
    let seed = g.constant("d_loss", &[1], vec![1.0]).unwrap();
    g.backward(&[(total, seed)], &[]).unwrap();
    let losses = [total, ce, lovasz, kl];
    losses.iter().for_each(|&loss| g.keep(loss));
    Training { graph: g, model, rng, class_weights, losses }
}

/// The kernels that a model may run with.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Family {
    Own,
    Other,
    /// A GPU's, by Winograd's algorithm wherever a tuner may choose it.
    Winograd,
    /// Its own, where no two bindings may overlap.
    Apart,
}

fn on_device(graph: &Graph, golden: &Golden, family: Family) -> (Executor, Arc<Memory>) {
    let context = Context::open(&DeviceChoice::Best).unwrap();
    let own = context.limits();
    let for_cpu = own.is_software == matches!(family, Family::Own | Family::Apart);
    let mut limits = KernelLimits { forbids_aliasing: family == Family::Apart, ..own.for_cpu(for_cpu) };
    if family == Family::Winograd {
        limits.policy.for_cpu = false;
        let choices = graph.forced_tunings(&limits).into_iter().flatten();
        limits.policy.tuning = choices.filter(|(_, name)| name.starts_with("Winograd")).collect();
        // The narrow variants have none.
        assert!(limits.policy.tuning.len() > 3 || !golden.prefix.is_empty(), "{:?}", limits.policy.tuning);
    }
    let plan = Plan::new(graph, &limits).unwrap();
    let memory = Memory::new(&context, &[&plan]).unwrap();
    let mut block = vec![0.0; graph.block_elements(Block::Parameters)];
    for p in graph.parameters() {
        block[p.offset..p.offset + p.elements()].copy_from_slice(&golden.parameter(&p.name));
    }
    memory.write_block(Block::Parameters, &block).unwrap();
    (Executor::new(&context, graph.clone(), plan, &memory).unwrap(), memory)
}

fn twin_values(graph: &Graph, golden: &Golden) -> Values {
    let mut values = Values::default();
    for (i, p) in graph.parameters().iter().enumerate() {
        let (tensor, _) = graph.parameter_tensors(i);
        values.set(graph, tensor.unwrap(), golden.f64(&format!("param.{}", p.name)));
    }
    values
}

#[test]
fn every_parameter_has_its_pytorch_name_and_shape() {
    for golden in Golden::all() {
        let mut graph = Graph::new();
        golden.config.build(&mut graph, &golden.shape, Mode::Look).unwrap();
        let tensors = &golden.fixture.tensors;
        for p in graph.parameters() {
            let name = golden.name(&format!("param.{}", p.name));
            let name = name.unwrap_or_else(|| panic!("{}{} is not PyTorch's", golden.prefix, p.name));
            assert_eq!(tensors.tensor(&name).unwrap().shape(), p.shape, "{name}");
        }
        let own = format!("{}param.", golden.prefix);
        for name in tensors.names().into_iter().filter_map(|name| name.strip_prefix(&own)) {
            assert!(graph.parameters().iter().any(|p| p.name == name), "{}{name} is missing", golden.prefix);
        }
    }
}

#[test]
fn presets_have_the_published_parameter_counts() {
    for (hidden, count) in [(128, 1_248_343), (64, 541_463)] {
        let config = ModelConfig::of(&SEP4D, 3).with(&[("model.hidden", hidden)]).unwrap();
        let mut graph = Graph::new();
        config.build(&mut graph, &Golden::load().shape, Mode::Look).unwrap();
        assert_eq!(graph.parameter_count(), count);
    }
}

#[test]
fn logits_agree() {
    for golden in Golden::all() {
        let expected = blocked_logits(&golden);
        let mut graph = Graph::new();
        let model = golden.config.build(&mut graph, &golden.shape, Mode::Look).unwrap();
        graph.keep(model.logits);

        let mut values = twin_values(&graph, &golden);
        values.set(&graph, model.label_bytes, golden.label_words());
        let motion = golden.motion(&model);
        if let Some((maps, motion)) = &motion {
            values.set(&graph, *maps, motion.iter().copied().map(f64::from).collect());
        }
        interpret::run(&graph, &mut values).unwrap();
        // The variants' are those of the first clip.
        let twin = relative_error(&values.get(&graph, model.logits).unwrap()[..expected.len()], &expected);

        let (executor, _memory) = on_device(&graph, &golden, Family::Own);
        executor.write(model.label_bytes, &golden.labels()).unwrap();
        if let Some((maps, motion)) = &motion {
            executor.write(*maps, motion).unwrap();
        }
        executor.run().unwrap();
        let logits: Vec<f64> = executor.read::<f32>(model.logits).unwrap().into_iter().map(f64::from).collect();
        let device = relative_error(&logits[..expected.len()], &expected);
        println!("{}logits: twin {twin:.1e}, device {device:.1e}", golden.prefix);
        assert!(twin < 1e-6 && device < 1e-4, "{}logits deviate by {twin} and {device}", golden.prefix);
    }
}

#[test]
fn frames_that_lie_still_are_as_without_alignment_to_the_bit() {
    let golden = Golden::all().find(|golden| golden.prefix == "wide.").unwrap();
    let logits = |config: &ModelConfig, family| {
        let mut graph = Graph::new();
        let model = config.build(&mut graph, &golden.shape, Mode::Look).unwrap();
        graph.keep(model.logits);
        let (executor, _memory) = on_device(&graph, &golden, family);
        executor.write(model.label_bytes, &golden.labels()).unwrap();
        if let Some(motion) = model.motion {
            let still = Motion { from_middle: Pose::IDENTITY, to_middle: Pose::IDENTITY };
            let frames = vec![still.maps(motion.margin); golden.shape.total_frames()];
            executor.write(motion.maps, &frames.concat()).unwrap();
        }
        executor.run().unwrap();
        executor.read::<u32>(model.logits).unwrap()
    };
    let apart = golden.config.clone().with(&[("model.margin", 0)]).unwrap();
    let aligned = apart.clone().with_choice("model.align", "pose").unwrap();
    for family in [Family::Own, Family::Other] {
        assert_eq!(logits(&apart, family), logits(&aligned, family), "{family:?}");
    }
}

#[test]
fn losses_and_gradients_agree() {
    for golden in Golden::all() {
        let training = training_graph(&golden);
        let mut values = twin_values(&training.graph, &golden);
        values.set(&training.graph, training.model.label_bytes, golden.label_words());
        if let Some((maps, motion)) = golden.motion(&training.model) {
            values.set(&training.graph, maps, motion.into_iter().map(f64::from).collect());
        }
        values.set(&training.graph, training.rng, [SEED, 0, 0].map(f64::from).to_vec());
        values.set(&training.graph, training.class_weights, golden.f64("class_weights"));
        interpret::run(&training.graph, &mut values).unwrap();
        // The fusions differ from SEP-4D in a few small ops, which the tests of kernels hold to their twins in all families.
        let is_fusion = VARIANTS.contains(&(golden.prefix.trim_end_matches('.'), "model.fusion"));
        let families = [Family::Own, Family::Other, Family::Winograd, Family::Apart];
        for &family in if is_fusion { &families[..2] } else { &families } {
            losses_and_gradients(&golden, &training, &values, family);
        }
    }
}

/// Compares the twin's `values`, and what a device computes with the kernels of `family`, with the figures.
fn losses_and_gradients(golden: &Golden, training: &Training, values: &Values, family: Family) {
    let Training { graph, model, rng, class_weights, losses } = training;
    let (executor, memory) = on_device(graph, golden, family);
    executor.write(model.label_bytes, &golden.labels()).unwrap();
    if let Some((maps, motion)) = golden.motion(model) {
        executor.write(maps, &motion).unwrap();
    }
    executor.write(*rng, &[SEED, 0, 0]).unwrap();
    executor.write(*class_weights, &golden.f32("class_weights")).unwrap();
    executor.run().unwrap();

    for (loss, name) in losses.iter().zip(["total", "ce", "lovasz", "kl"]) {
        let name = format!("loss.{name}");
        let expected = golden.f64(&name)[0];
        let twin = values.get(graph, *loss).unwrap()[0];
        let device = f64::from(executor.read::<f32>(*loss).unwrap()[0]);
        println!("{}{name}: {expected} twin {twin} device {device}", golden.prefix);
        assert!((twin - expected).abs() < 1e-6 * expected.abs(), "{name}: {twin} instead of {expected}");
        assert!((device - expected).abs() < 1e-4 * expected.abs(), "{name}: {device} instead of {expected}");
    }

    let no_effect = golden.fixture.no_effect(&golden.prefix);
    let block = memory.read_block(Block::Gradients).unwrap();
    let mut worst = (0.0, 0.0, String::new());
    // The fixture of the variants leaves out the largest.
    let stored = |name: &str| golden.has(&format!("grad.{name}")) || golden.prefix.is_empty();
    for (i, p) in graph.parameters().iter().enumerate().filter(|(_, p)| stored(&p.name)) {
        let expected = golden.f64(&format!("grad.{}", p.name));
        let device: Vec<f64> = block[p.offset..p.offset + p.elements()].iter().map(|&v| f64::from(v)).collect();
        let twin = values.get(graph, graph.parameter_tensors(i).1.unwrap()).unwrap();
        if no_effect.contains(&p.name.as_str()) {
            let norm = device.iter().map(|v| v * v).sum::<f64>().sqrt();
            assert!(norm < 1e-5, "{} has no effect but a gradient of norm {norm}", p.name);
            continue;
        }
        let errors = (relative_error(twin, &expected), relative_error(&device, &expected));
        assert!(errors.0 < 1e-5 && errors.1 < 1e-3, "{}{}: {errors:?}", golden.prefix, p.name);
        if errors.1 > worst.1 {
            worst = (errors.0, errors.1, p.name.clone());
        }
    }
    println!("{}worst gradient: {worst:?}", golden.prefix);
}

#[test]
fn reconstructions_are_the_largest_logits_in_plain_order() {
    let golden = Golden::load();
    let mut session = session(&golden);
    let batch = batch(&golden);
    let plain = golden.f32("eval.logits");
    let largest = |row: &[f32]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap() as u8;
    let expected: Vec<u8> = plain.chunks(CLASSES).map(largest).collect();

    let mut labels = Vec::new();
    for (labels_of_clip, observed) in
        batch.labels.chunks(batch.labels.len() / 2).zip(batch.observed.chunks(batch.labels.len() / 2))
    {
        let clip = Batch { labels: labels_of_clip.to_vec(), observed: observed.to_vec(), batch: 1, ..batch.clone() };
        let latents = session.inference().encode(&clip).unwrap();
        let means: Vec<Vec<f32>> = latents.into_iter().map(|latent| latent.mu).collect();
        labels.extend(session.inference().decode(&means).unwrap().into_iter().map(|likely| likely.classes()[0]));
    }
    assert_eq!(labels, expected);

    let truth: Vec<u8> = golden.fixture.tensors.tensor("labels").unwrap().data().to_vec();
    let voxels: usize = golden.shape.size.iter().product();
    let mut confusion = vec![0u64; 6 * 11 * 11];
    for (i, (&truth, &predicted)) in truth.iter().zip(&expected).enumerate() {
        confusion[(i / voxels * 11 + usize::from(truth)) * 11 + usize::from(predicted)] += 1;
    }
    assert_eq!(session.inference().evaluate(&batch).unwrap().confusion, confusion);
}

fn batch(golden: &Golden) -> Batch {
    let labels = golden.labels();
    let observed = vec![1; labels.len()];
    let BatchShape { batch, frames, size } = golden.shape;
    // The fixture's maps are those of a canonical grid with a margin.
    let shift = Pose::from_translation([1.0, 1.0, 0.0].into());
    let pose = |rows: &[f32]| pose_of_rows(&std::array::from_fn(|i| f64::from(rows[i])));
    let motion = |maps: &[f32]| Motion {
        from_middle: pose(&maps[..12]) * shift,
        to_middle: shift.inverse() * pose(&maps[12..]),
    };
    let motions = golden.has("motion").then(|| golden.f32("motion").chunks(24).map(motion).collect());
    Batch { labels, observed, motions, batch, frames, size }
}

/// A session that starts from the fixture's parameters.
fn session(golden: &Golden) -> Session {
    let context = Context::open(&DeviceChoice::Best).unwrap();
    let step = StepConfig {
        weights: LossWeights { cross_entropy: 1.0, lovasz: 1.0, terms: Terms::of([("kl", golden.kl)]) },
        ..StepConfig::default()
    };
    let weights = golden.f32("class_weights");
    let mut session = Session::new(&context, &golden.config, &golden.shape, &step, &weights, u64::from(SEED)).unwrap();
    let fresh = session.export().unwrap();
    let parameters: Vec<NamedTensor> =
        fresh.parameters.iter().map(|p| NamedTensor { values: golden.parameter(&p.name), ..p.clone() }).collect();
    session.import(&TrainingState { parameters, ..fresh }).unwrap();
    session
}

#[test]
fn ten_adam_losses_agree() {
    for golden in Golden::all() {
        let mut session = session(&golden);
        let batch = batch(&golden);
        for (step, expected) in golden.f32("adam.losses").into_iter().enumerate() {
            session.train_step(std::slice::from_ref(&batch), 1e-3).unwrap();
            let loss = session.report().unwrap().loss;
            let step = format!("{}step {step}", golden.prefix);
            println!("{step}: {loss} against {expected}");
            assert!((loss - expected).abs() <= 1e-4 * expected, "{step}: {loss} instead of {expected}");
        }
    }
}
