//! OccSora's tokenizer: against the independent PyTorch implementation in `tests/golden`, and as a whole.

use std::sync::Arc;

use sep4d::data::batch::{Batch, from_blocked};
use sep4d::data::synth;
use sep4d::gpu::{Context, DeviceChoice};
use sep4d::graph::execute::{Executor, Memory};
use sep4d::graph::interpret::{self, Values};
use sep4d::graph::plan::Plan;
use sep4d::graph::{Block, Graph, KernelLimits, TensorId, TensorSpec};
use sep4d::layers::pointwise::weighted_sum;
use sep4d::layers::segmentation_loss::segmentation_loss;
use sep4d::models::occ_sora::OCC_SORA;
use sep4d::models::{BatchShape, Built, LatentKind, Mode, ModelConfig, Terms};
use sep4d::selftest::relative_error;
use sep4d::train::session::{LossWeights, NamedTensor, Session, StepConfig, TrainingState};

use crate::by_heart::learns_by_heart;
use crate::fixture::{self, Fixture, figures};

const CLASSES: usize = 11;

/// A model of the fixture, with a batch.
struct Golden {
    name: &'static str,
    config: ModelConfig,
    shape: BatchShape,
}

impl Golden {
    fn all() -> [Golden; 2] {
        let case = |name, [features, width, blocks, channels, codes]: [usize; 5], batch, frames, size| {
            let widths = [
                ("model.code_features", features),
                ("model.width", width),
                ("model.blocks", blocks),
                ("model.code_channels", channels),
                ("model.codes", codes),
            ];
            let config = ModelConfig::of(&OCC_SORA, 0).with(&widths).unwrap();
            Golden { name, config, shape: BatchShape { batch, frames, size } }
        };
        [case("occ_sora_1", [3, 12, 1, 6, 12], 4, 2, [24, 8, 2]), case("occ_sora_2", [2, 8, 2, 5, 9], 2, 9, [8, 16, 2])]
    }

    fn figures(&self, name: &str) -> fixture::Array {
        figures("rivals", &format!("{}.{name}", self.name))
    }

    fn f64(&self, name: &str) -> Vec<f64> {
        self.figures(name).values
    }

    fn f32(&self, name: &str) -> Vec<f32> {
        self.f64(name).into_iter().map(|value| value as f32).collect()
    }

    /// Labels `[N, X', Y', Z', 8]`.
    fn labels(&self) -> Vec<u8> {
        let mut labels = self.figures("labels");
        let [x, y, z] = self.shape.size;
        labels.shape = vec![self.shape.total_frames(), x, y, z, 1];
        labels.blocked().values.into_iter().map(|label| label as u8).collect()
    }

    /// The same, four to a word.
    fn label_words(&self) -> Vec<f64> {
        let word = |bytes: &[u8]| f64::from(u32::from_le_bytes(bytes.try_into().unwrap()));
        self.labels().chunks(4).map(word).collect()
    }

    /// Logits of the first clip in blocked order.
    fn logits(&self) -> Vec<f64> {
        let mut logits = self.figures("eval.logits");
        logits.shape.remove(0);
        logits.blocked().values
    }

    fn graph(&self, mode: impl FnOnce(&mut Graph) -> Mode) -> (Graph, Built) {
        let mut graph = Graph::new();
        let mode = mode(&mut graph);
        let built = self.config.build(&mut graph, &self.shape, mode).unwrap();
        (graph, built)
    }

    fn twin_values(&self, graph: &Graph, built: &Built) -> Values {
        let mut values = Values::default();
        for (i, p) in graph.parameters().iter().enumerate() {
            let (tensor, _) = graph.parameter_tensors(i);
            values.set(graph, tensor.unwrap(), self.f64(&format!("param.{}", p.name)));
        }
        values.set(graph, built.label_bytes, self.label_words());
        values
    }

    fn on_device(&self, graph: &Graph, built: &Built, family: Family) -> (Executor, Arc<Memory>) {
        let context = Context::open(&DeviceChoice::Best).unwrap();
        let own = context.limits();
        let for_cpu = own.is_software != (family == Family::Other);
        let limits = KernelLimits { forbids_aliasing: family == Family::Apart, ..own.for_cpu(for_cpu) };
        let plan = Plan::new(graph, &limits).unwrap();
        let memory = Memory::new(&context, &[&plan]).unwrap();
        for block in [Block::Parameters, Block::Buffers] {
            let mut values = vec![0.0; graph.block_elements(block)];
            for p in graph.parameters().iter().filter(|p| p.block() == block) {
                values[p.offset..p.offset + p.elements()].copy_from_slice(&self.f32(&format!("param.{}", p.name)));
            }
            memory.write_block(block, &values).unwrap();
        }
        let executor = Executor::new(&context, graph.clone(), plan, &memory).unwrap();
        executor.write(built.label_bytes, &self.labels()).unwrap();
        (executor, memory)
    }
}

/// The kernels that a model may run with.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Family {
    Own,
    Other,
    /// Its own, where no two bindings may overlap.
    Apart,
}

const FAMILIES: [Family; 3] = [Family::Own, Family::Other, Family::Apart];

fn read(executor: &Executor, id: TensorId) -> Vec<f64> {
    executor.read::<f32>(id).unwrap().into_iter().map(f64::from).collect()
}

fn codes(executor: &Executor, id: TensorId) -> Vec<f64> {
    executor.read::<u32>(id).unwrap().into_iter().map(f64::from).collect()
}

#[test]
fn every_parameter_has_its_pytorch_name_and_shape() {
    let tensors = &Fixture::named("rivals").tensors;
    for golden in Golden::all() {
        let (graph, _) = golden.graph(|_| Mode::Look);
        for p in graph.parameters() {
            assert_eq!(golden.figures(&format!("param.{}", p.name)).shape, p.shape, "{}", p.name);
        }
        let own = format!("{}.param.", golden.name);
        for name in tensors.names().into_iter().filter_map(|name| name.strip_prefix(&own)) {
            assert!(graph.parameters().iter().any(|p| p.name == name), "{own}{name} is missing");
        }
    }
}

#[test]
fn logits_and_codes_agree() {
    for golden in Golden::all() {
        let (mut graph, built) = golden.graph(|_| Mode::Look);
        let (expected, numbers, encoded) = (golden.logits(), golden.f64("codes.eval"), built.latents[0].encoded);
        [built.logits, encoded].into_iter().for_each(|id| graph.keep(id));

        let mut values = golden.twin_values(&graph, &built);
        interpret::run(&graph, &mut values).unwrap();
        let twin = relative_error(&values.get(&graph, built.logits).unwrap()[..expected.len()], &expected);
        assert_eq!(values.get(&graph, encoded).unwrap(), numbers);
        assert!(twin < 1e-6, "{} logits of the twin deviate by {twin}", golden.name);
        for family in FAMILIES {
            let (executor, _memory) = golden.on_device(&graph, &built, family);
            executor.run().unwrap();
            let device = relative_error(&read(&executor, built.logits)[..expected.len()], &expected);
            println!("{} logits: twin {twin:.1e}, {family:?} {device:.1e}", golden.name);
            assert!(device < 1e-5, "{} logits deviate by {device}", golden.name);
            assert_eq!(codes(&executor, encoded), numbers);
        }
    }
}

#[test]
fn losses_gradients_codes_and_statistics_agree() {
    for golden in Golden::all() {
        let (mut graph, built) = golden.graph(|g| Mode::Train { rng: g.input("rng", TensorSpec::u32(&[3])) });
        let class_weights = graph.constant("class_weights", &[CLASSES], vec![1.0; CLASSES]).unwrap();
        let (ce, lovasz) = segmentation_loss(&mut graph, built.logits, built.labels, class_weights).unwrap();
        let [("embedding", embedding)] = built.losses[..] else { panic!("{:?}", built.losses) };
        let total = weighted_sum(&mut graph, &[(10.0, ce), (1.0, lovasz), (1.0, embedding)]).unwrap();
        let seed = graph.constant("d_loss", &[1], vec![1.0]).unwrap();
        graph.backward(&[(total, seed)], &[]).unwrap();
        let losses = [("total", total), ("ce", ce), ("lovasz", lovasz), ("embedding", embedding)];
        losses.iter().for_each(|&(_, loss)| graph.keep(loss));
        graph.keep(built.latents[0].encoded);

        let mut values = golden.twin_values(&graph, &built);
        interpret::run(&graph, &mut values).unwrap();
        for family in FAMILIES {
            let (executor, memory) = golden.on_device(&graph, &built, family);
            executor.run().unwrap();
            let compared = Compared { golden: &golden, graph: &graph, values: &values, family };
            for (name, loss) in losses {
                let [twin, device] = [values.get(&graph, loss).unwrap().to_vec(), read(&executor, loss)];
                compared.check(&format!("loss.{name}"), &twin, &device, [1e-6, 1e-5]);
            }
            assert_eq!(codes(&executor, built.latents[0].encoded), golden.f64("codes.train"));
            compared.check_parameters(&memory);
        }
    }
}

/// What the twin has computed, and a device with the kernels of a family.
struct Compared<'a> {
    golden: &'a Golden,
    graph: &'a Graph,
    values: &'a Values,
    family: Family,
}

impl Compared<'_> {
    /// Compares with figures; returns how far the device is off.
    fn check(&self, name: &str, twin: &[f64], device: &[f64], tolerances: [f64; 2]) -> f64 {
        let expected = self.golden.f64(name);
        let [twin, device] = [twin, device].map(|values| relative_error(values, &expected));
        let Compared { golden, family, .. } = self;
        assert!(
            twin < tolerances[0] && device < tolerances[1],
            "{} {name}: the twin is off by {twin}, {family:?} by {device}",
            golden.name
        );
        device
    }

    /// Every gradient, and every running statistic after the step.
    fn check_parameters(&self, memory: &Memory) {
        let no_effect = Fixture::named("rivals").no_effect(&format!("{}.", self.golden.name));
        let blocks = [Block::Gradients, Block::Buffers].map(|block| memory.read_block(block).unwrap());
        let mut worst = (0.0, String::new());
        for (i, p) in self.graph.parameters().iter().enumerate() {
            let is_trained = p.block() == Block::Parameters;
            let device = &blocks[usize::from(!is_trained)][p.offset..p.offset + p.elements()];
            let device: Vec<f64> = device.iter().map(|&value| f64::from(value)).collect();
            let (tensor, gradient) = self.graph.parameter_tensors(i);
            let twin = self.values.get(self.graph, if is_trained { gradient } else { tensor }.unwrap()).unwrap();
            let error = match is_trained {
                true if no_effect.contains(&p.name.as_str()) => {
                    let norm = device.iter().map(|d| d * d).sum::<f64>().sqrt();
                    assert!(norm < 1e-5, "{} has no effect but a gradient of norm {norm}", p.name);
                    continue;
                }
                true => self.check(&format!("grad.{}", p.name), twin, &device, [1e-5, 1e-4]),
                false => self.check(&format!("running.{}", p.name), twin, &device, [1e-6, 1e-5]),
            };
            if error > worst.0 {
                worst = (error, p.name.clone());
            }
        }
        println!("{} {:?}, worst gradient or statistic: {worst:?}", self.golden.name, self.family);
    }
}

#[test]
fn ten_losses_of_adamw_agree() {
    for golden in Golden::all() {
        let context = Context::open(&DeviceChoice::Best).unwrap();
        let (step, shape) = (as_released(), &golden.shape);
        let mut session = Session::new(&context, &golden.config, shape, &step, &[1.0; CLASSES], 0).unwrap();
        let fresh = session.export().unwrap();
        let of_fixture =
            |p: &NamedTensor| NamedTensor { values: golden.f32(&format!("param.{}", p.name)), ..p.clone() };
        let parameters = fresh.parameters.iter().map(of_fixture).collect();
        session.import(&TrainingState { parameters, ..fresh }).unwrap();
        let labels = golden.labels();
        let (observed, size) = (vec![1; labels.len()], shape.size);
        let batch = Batch { labels, observed, motions: None, batch: shape.batch, frames: shape.frames, size };
        for (step, expected) in golden.f64("adam.losses").into_iter().enumerate() {
            session.train_step(std::slice::from_ref(&batch), 1e-3).unwrap();
            let loss = f64::from(session.report().unwrap().loss);
            println!("{} step {step}: {loss} against {expected}", golden.name);
            assert!((loss - expected).abs() <= 1e-5 * expected, "{} step {step}: {loss}", golden.name);
        }
    }
}

/// A clip of a small town, and a model of the preset's widths that starts from a seed.
fn begun(preset: usize, frames: usize) -> (Batch, Session) {
    let size = [16, 16, 4];
    let grid = synth::grid(size, [1.6, 1.6, 0.75]).unwrap();
    let batch = Batch::from_clips(&[synth::clip(&grid, 3, frames)], &grid).unwrap();
    let context = Context::open(&DeviceChoice::Best).unwrap();
    let shape = BatchShape { batch: 1, frames, size };
    let session =
        Session::new(&context, &ModelConfig::of(&OCC_SORA, preset), &shape, &as_released(), &[1.0; CLASSES], 3);
    (batch, session.unwrap())
}

fn as_released() -> StepConfig {
    let weights = LossWeights { cross_entropy: 10.0, lovasz: 1.0, terms: Terms::of([("embedding", 1.0)]) };
    StepConfig { weights, weight_decay: 0.01, clip_norm: Some(35.0), ..StepConfig::default() }
}

#[test]
fn one_clip_is_learnt_by_heart() {
    let (batch, mut session) = begun(1, 8);
    assert!(learns_by_heart(&mut session, &batch, 2e-3));
}

#[test]
fn codes_are_numbers_that_decode_to_what_was_reconstructed() {
    // A clip whose last frame is repeated.
    let (mut batch, mut session) = begun(0, 12);
    batch.observed.fill(1);
    for _ in 0..5 {
        session.train_step(std::slice::from_ref(&batch), 1e-3).unwrap();
    }
    let latents = session.inference().encode(&batch).unwrap();
    let [codes] = &latents[..] else { panic!("{latents:?}") };
    let LatentKind::Code { codes: all, .. } = codes.spec.kind else { panic!("{codes:?}") };
    assert_eq!((codes.shape.as_slice(), codes.logvar.len()), (&[1, 2, 2, 2, 1][..], 0));
    assert!(codes.mu.iter().all(|code| code.fract() == 0.0 && (0.0..all as f32).contains(code)), "{:?}", codes.mu);

    let scores = session.inference().evaluate(&batch).unwrap();
    let numbers: Vec<f32> = scores.codes[0].1.iter().map(|&code| code as f32).collect();
    assert_eq!((scores.codes[0].0, &numbers), (codes.spec, &codes.mu));

    let likely = session.inference().decode(&[&codes.mu]).unwrap();
    let mut confusion = vec![0; 12 * 121];
    let truth = batch.labels.chunks(16 * 16 * 4).flat_map(|frame| from_blocked(frame, batch.size));
    for (i, (truth, likely)) in truth.zip(&likely).enumerate() {
        confusion[(i / 1024 * 11 + usize::from(truth)) * 11 + usize::from(likely.classes()[0])] += 1;
    }
    assert_eq!(scores.confusion, confusion);
    let other: Vec<f32> = codes.mu.iter().map(|code| (code + 1.0) % all as f32).collect();
    assert_ne!(session.inference().decode(&[&other]).unwrap(), likely);
}
