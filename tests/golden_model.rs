//! The whole model against the independent PyTorch implementation in `tests/golden`.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use sep4d::data::batch::{Batch, to_blocked};
use sep4d::gpu::{Context, DeviceChoice};
use sep4d::graph::execute::{Executor, Memory};
use sep4d::graph::interpret::{self, Values};
use sep4d::graph::plan::Plan;
use sep4d::graph::{Block, Graph, KernelLimits, TensorId, TensorSpec};
use sep4d::layers::pointwise::weighted_sum;
use sep4d::layers::segmentation_loss::segmentation_loss;
use sep4d::models::sep4d::SEP4D;
use sep4d::models::{BatchShape, Built, Mode, ModelConfig, Terms};
use sep4d::selftest::relative_error;
use sep4d::train::session::{LossWeights, NamedTensor, Session, StepConfig, TrainingState};

const CLASSES: usize = 11;
const SIZE: [usize; 3] = [8, 6, 4];
const SEED: u32 = 7;

struct Golden {
    bytes: Vec<u8>,
}

impl Golden {
    fn load() -> Golden {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/model.safetensors");
        Golden { bytes: std::fs::read(path).unwrap() }
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap()
    }

    fn f32(&self, name: &str) -> Vec<f32> {
        let tensors = self.tensors();
        let tensor = tensors.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), Dtype::F32, "{name}");
        tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    fn f64(&self, name: &str) -> Vec<f64> {
        self.f32(name).into_iter().map(f64::from).collect()
    }

    /// Labels `[N, X', Y', Z', 8]`.
    fn labels(&self) -> Vec<u8> {
        let tensors = self.tensors();
        let plain = tensors.tensor("labels").unwrap();
        plain.data().chunks(SIZE.iter().product()).flat_map(|frame| to_blocked(frame, SIZE)).collect()
    }

    /// The same, four to a word.
    fn label_words(&self) -> Vec<f64> {
        let word = |bytes: &[u8]| f64::from(u32::from_le_bytes(bytes.try_into().unwrap()));
        self.labels().chunks(4).map(word).collect()
    }

    /// Parameters whose gradient is rounding noise, because they have no effect.
    fn no_effect(&self) -> Vec<String> {
        let (_, header) = SafeTensors::read_metadata(&self.bytes).unwrap();
        let metadata = header.metadata().clone().unwrap();
        metadata["no_effect"].split(' ').map(str::to_owned).collect()
    }

    fn parameter(&self, name: &str) -> Vec<f32> {
        self.f32(&format!("param.{name}"))
    }
}

/// C = 4, D = 6, hid = 8, hr = 4.
fn config() -> ModelConfig {
    ModelConfig::of(&SEP4D, 0)
}

fn shape() -> BatchShape {
    BatchShape { batch: 2, frames: 3, size: SIZE }
}

/// Logits in blocked order from the fixture's `[N, X, Y, Z, K]`.
fn blocked_logits(golden: &Golden) -> Vec<f64> {
    let plain = golden.f64("eval.logits");
    let voxels: usize = SIZE.iter().product();
    let frames = plain.len() / (voxels * CLASSES);
    let rows: Vec<usize> = (0..frames * voxels).collect();
    let order: Vec<usize> = rows.chunks(voxels).flat_map(|frame| to_blocked(frame, SIZE)).collect();
    order.iter().flat_map(|row| plain[row * CLASSES..(row + 1) * CLASSES].to_vec()).collect()
}

struct Training {
    graph: Graph,
    model: Built,
    rng: TensorId,
    class_weights: TensorId,
    losses: [TensorId; 4],
}

fn training_graph() -> Training {
    let mut g = Graph::new();
    let class_weights = g.input("class_weights", TensorSpec::f32(&[CLASSES]));
    let rng = g.input("rng", TensorSpec::u32(&[3]));
    let model = config().build(&mut g, &shape(), Mode::Train { rng }).unwrap();
    let (ce, lovasz) = segmentation_loss(&mut g, model.logits, model.labels, class_weights).unwrap();
    let [("kl", kl)] = model.losses[..] else { panic!("{:?}", model.losses) };
    let total = weighted_sum(&mut g, &[(1.0, ce), (1.0, lovasz), (0.005, kl)]).unwrap();
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
}

fn on_device(graph: &Graph, golden: &Golden, family: Family) -> (Executor, Arc<Memory>) {
    let context = Context::open(&DeviceChoice::Best).unwrap();
    let own = context.limits();
    let mut limits = KernelLimits { is_cpu: own.is_cpu == (family == Family::Own), ..own.clone() };
    if family == Family::Winograd {
        limits.is_cpu = false;
        let choices = graph.forced_tunings(&limits).into_iter().flatten();
        limits.tuning = choices.filter(|(_, name)| name.starts_with("Winograd")).collect();
        assert!(limits.tuning.len() > 3, "{:?}", limits.tuning);
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
    let golden = Golden::load();
    let mut graph = Graph::new();
    config().build(&mut graph, &shape(), Mode::Look).unwrap();
    let tensors = golden.tensors();
    let mut expected: Vec<(String, Vec<usize>)> = tensors
        .iter()
        .filter_map(|(name, t)| Some((name.strip_prefix("param.")?.to_owned(), t.shape().to_vec())))
        .collect();
    let mut actual: Vec<_> = graph.parameters().iter().map(|p| (p.name.clone(), p.shape.clone())).collect();
    expected.sort();
    actual.sort();
    assert_eq!(actual, expected);
}

#[test]
fn presets_have_the_published_parameter_counts() {
    for (hidden, count) in [(128, 1_215_095), (64, 508_215)] {
        let config = ModelConfig::of(&SEP4D, 3).with(&[("model.hidden", hidden)]).unwrap();
        let mut graph = Graph::new();
        config.build(&mut graph, &shape(), Mode::Look).unwrap();
        assert_eq!(graph.parameter_count(), count);
    }
}

#[test]
fn logits_agree() {
    let golden = Golden::load();
    let expected = blocked_logits(&golden);
    let mut graph = Graph::new();
    let model = config().build(&mut graph, &shape(), Mode::Look).unwrap();
    graph.keep(model.logits);

    let mut values = twin_values(&graph, &golden);
    values.set(&graph, model.label_bytes, golden.label_words());
    interpret::run(&graph, &mut values).unwrap();
    let twin = relative_error(values.get(&graph, model.logits).unwrap(), &expected);

    let (executor, _memory) = on_device(&graph, &golden, Family::Own);
    executor.write(model.label_bytes, &golden.labels()).unwrap();
    executor.run().unwrap();
    let logits: Vec<f64> = executor.read::<f32>(model.logits).unwrap().into_iter().map(f64::from).collect();
    let device = relative_error(&logits, &expected);
    println!("logits: twin {twin:.1e}, device {device:.1e}");
    assert!(twin < 1e-6 && device < 1e-4);
}

#[test]
fn losses_and_gradients_agree() {
    let golden = Golden::load();
    let Training { graph, model, rng, class_weights, losses } = training_graph();
    let key = [SEED, 0, 0];

    let mut values = twin_values(&graph, &golden);
    values.set(&graph, model.label_bytes, golden.label_words());
    values.set(&graph, rng, key.map(f64::from).to_vec());
    values.set(&graph, class_weights, golden.f64("class_weights"));
    interpret::run(&graph, &mut values).unwrap();

    for family in [Family::Own, Family::Other, Family::Winograd] {
        let (executor, memory) = on_device(&graph, &golden, family);
        executor.write(model.label_bytes, &golden.labels()).unwrap();
        executor.write(rng, &key).unwrap();
        executor.write(class_weights, &golden.f32("class_weights")).unwrap();
        executor.run().unwrap();

        for (loss, name) in losses.into_iter().zip(["total", "ce", "lovasz", "kl"]) {
            let expected = golden.f64(&format!("loss.{name}"))[0];
            let twin = values.get(&graph, loss).unwrap()[0];
            let device = f64::from(executor.read::<f32>(loss).unwrap()[0]);
            println!("{name}: {expected} twin {twin} device {device}");
            assert!((twin - expected).abs() < 1e-6 * expected.abs(), "{name}: {twin} instead of {expected}");
            assert!((device - expected).abs() < 1e-4 * expected.abs(), "{name}: {device} instead of {expected}");
        }

        let no_effect = golden.no_effect();
        let block = memory.read_block(Block::Gradients).unwrap();
        let mut worst = (0.0, 0.0, String::new());
        for (i, p) in graph.parameters().iter().enumerate() {
            let expected = golden.f64(&format!("grad.{}", p.name));
            let device: Vec<f64> = block[p.offset..p.offset + p.elements()].iter().map(|&v| f64::from(v)).collect();
            let twin = values.get(&graph, graph.parameter_tensors(i).1.unwrap()).unwrap();
            if no_effect.contains(&p.name) {
                let norm = device.iter().map(|v| v * v).sum::<f64>().sqrt();
                assert!(norm < 1e-5, "{} has no effect but a gradient of norm {norm}", p.name);
                continue;
            }
            let errors = (relative_error(twin, &expected), relative_error(&device, &expected));
            assert!(errors.0 < 1e-5 && errors.1 < 1e-3, "{}: {errors:?}", p.name);
            if errors.1 > worst.1 {
                worst = (errors.0, errors.1, p.name.clone());
            }
        }
        println!("worst gradient: {worst:?}");
    }
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

    let truth: Vec<u8> = golden.tensors().tensor("labels").unwrap().data().to_vec();
    let voxels: usize = SIZE.iter().product();
    let mut confusion = vec![0u64; 6 * 11 * 11];
    for (i, (&truth, &predicted)) in truth.iter().zip(&expected).enumerate() {
        confusion[(i / voxels * 11 + usize::from(truth)) * 11 + usize::from(predicted)] += 1;
    }
    assert_eq!(session.inference().evaluate(&batch).unwrap().confusion, confusion);
}

fn batch(golden: &Golden) -> Batch {
    let labels = golden.labels();
    let observed = vec![1; labels.len()];
    Batch { labels, observed, poses: None, batch: 2, frames: 3, size: SIZE }
}

/// A session that starts from the fixture's parameters.
fn session(golden: &Golden) -> Session {
    let context = Context::open(&DeviceChoice::Best).unwrap();
    let step = StepConfig {
        weights: LossWeights { cross_entropy: 1.0, lovasz: 1.0, terms: Terms::of([("kl", 0.005)]) },
        ..StepConfig::default()
    };
    let weights = golden.f32("class_weights");
    let mut session = Session::new(&context, &config(), &shape(), &step, &weights, u64::from(SEED)).unwrap();
    let fresh = session.export().unwrap();
    let parameters: Vec<NamedTensor> =
        fresh.parameters.iter().map(|p| NamedTensor { values: golden.parameter(&p.name), ..p.clone() }).collect();
    session.import(&TrainingState { parameters, ..fresh }).unwrap();
    session
}

#[test]
fn ten_adam_losses_agree() {
    let golden = Golden::load();
    let mut session = session(&golden);
    let batch = batch(&golden);
    for (step, expected) in golden.f32("adam.losses").into_iter().enumerate() {
        session.train_step(std::slice::from_ref(&batch), 1e-3).unwrap();
        let loss = session.report().unwrap().loss;
        println!("step {step}: {loss} against {expected}");
        assert!((loss - expected).abs() <= 1e-4 * expected, "step {step}: {loss} instead of {expected}");
    }
}
