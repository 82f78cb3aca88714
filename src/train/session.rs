//! The device side of a run: the training graph and the evaluation graph of one model, sharing parameters and arenas.

use std::sync::Arc;

use crate::data::batch::{Batch, from_blocked};
use crate::gpu::Context;
use crate::graph::execute::{Executor, Memory, ProfileRow};
use crate::graph::plan::Plan;
use crate::graph::{Block, Graph, KernelLimits, ParameterSpec, TensorId, TensorSpec};
use crate::layers::adam::{Adam, OptimiserStep, optimiser_step};
use crate::layers::concat::concat;
use crate::layers::metrics::{argmax, confusion};
use crate::layers::pointwise::weighted_sum;
use crate::layers::segmentation_loss::segmentation_loss;
use crate::models::sep4d::{self, BatchShape, Latent, ModelConfig, PLANES};
use crate::{Error, Result};

/// Weights of the loss' parts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossWeights {
    /// Of the weighted cross entropy.
    pub cross_entropy: f32,
    /// Of the Lovasz-softmax loss.
    pub lovasz: f32,
    /// Of the KL divergence, averaged over all plane elements.
    pub kl: f32,
}

/// What is minimised, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct OptimiserConfig {
    /// Weights of the loss' parts.
    pub weights: LossWeights,
    /// Decoupled weight decay (AdamW); 0 is plain Adam.
    pub weight_decay: f32,
    /// Global gradient norm above which gradients are scaled down to it.
    pub clip_norm: Option<f32>,
}

/// What a run will need, known before anything is allocated.
#[derive(Debug, Clone, PartialEq)]
pub struct Preflight {
    /// Parameter values.
    pub parameters: usize,
    /// Bytes of all device buffers at once.
    pub peak_bytes: usize,
    /// Largest range bound to a kernel, in bytes.
    pub largest_binding: usize,
    /// Largest tensor, in bytes.
    pub largest_tensor: usize,
    /// Floating-point operations of one training step.
    pub flops_per_step: u64,
}

impl Preflight {
    /// # Errors
    /// [`Error::Memory`] saying what is needed if that is more than `budget_bytes`.
    pub fn check(&self, budget_bytes: usize) -> Result<()> {
        if self.peak_bytes <= budget_bytes {
            return Ok(());
        }
        Err(Error::Memory(format!(
            "training needs {} of device memory, but train.memory_budget is {}; use a smaller T (data.frames), batch \
             (train.batch), crop (data.crop) or preset, or raise train.memory_budget (GiB)",
            amount(self.peak_bytes),
            amount(budget_bytes)
        )))
    }
}

/// `1.25 GiB`, `3.40 MiB`.
fn amount(bytes: usize) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 1024.0 { format!("{mib:.2} MiB") } else { format!("{:.2} GiB", mib / 1024.0) }
}

/// Losses and health of one training step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// The weighted sum.
    pub loss: f32,
    /// Weighted cross entropy.
    pub cross_entropy: f32,
    /// Lovasz-softmax.
    pub lovasz: f32,
    /// KL divergence per plane element.
    pub kl: f32,
    /// Global norm of the gradient before clipping.
    pub gradient_norm: f32,
    /// Whether the gradient was finite; if not, the step was skipped.
    pub finite: bool,
    /// Steps skipped since the session began or since the imported state was saved.
    pub skipped: u32,
}

/// What the model makes of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Reconstruction {
    /// Classes `[N, X, Y, Z]`.
    pub labels: Vec<u8>,
    /// Counts `[N, K, K]`, row truth, column prediction, observed voxels only.
    pub confusion: Vec<u64>,
    /// Weighted cross entropy.
    pub cross_entropy: f32,
    /// Lovasz-softmax.
    pub lovasz: f32,
}

/// The distribution of one latent plane.
#[derive(Debug, Clone, PartialEq)]
pub struct LatentPlane {
    /// `xy`, `xz`, `yz`, `tx`, `ty` or `tz`.
    pub name: &'static str,
    /// `[B, A1, A2, C]`.
    pub shape: Vec<usize>,
    /// Means.
    pub mu: Vec<f32>,
    /// Log-variances.
    pub logvar: Vec<f32>,
}

/// A parameter's values or moments under its name, in PyTorch's layout.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// Dotted path.
    pub name: String,
    /// PyTorch's shape.
    pub shape: Vec<usize>,
    /// Values, last axis fastest.
    pub values: Vec<f32>,
}

/// All that a step depends on besides its batch and learning rate.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingState {
    /// Parameters.
    pub parameters: Vec<NamedTensor>,
    /// Adam's first moments.
    pub first_moments: Vec<NamedTensor>,
    /// Adam's second moments.
    pub second_moments: Vec<NamedTensor>,
    /// Steps so far, skipped ones included: the counter of the latent noise.
    pub steps: u32,
    /// Steps skipped for non-finite gradients.
    pub skipped: u32,
}

struct TrainingGraph {
    graph: Graph,
    labels: TensorId,
    class_weights: TensorId,
    rng: TensorId,
    adam: Adam,
    optimiser: OptimiserStep,
    report: TensorId,
}

fn training_graph(model: &ModelConfig, shape: &BatchShape, optimiser: &OptimiserConfig) -> Result<TrainingGraph> {
    let mut g = Graph::new();
    let class_weights = g.input("class_weights", TensorSpec::f32(&[model.classes]));
    let rng = g.input("rng", TensorSpec::u32(&[3]));
    let built = sep4d::build(&mut g, model, shape, Latent::Sample(rng))?;
    let (report, loss) = g.scope("loss", |g| {
        let (ce, lovasz) = segmentation_loss(g, built.logits, built.labels, class_weights)?;
        let kl = weighted_sum(g, &built.kl.iter().map(|&kl| (1.0, kl)).collect::<Vec<_>>())?;
        let weights = &optimiser.weights;
        let loss = weighted_sum(g, &[(weights.cross_entropy, ce), (weights.lovasz, lovasz), (weights.kl, kl)])?;
        Ok(([loss, ce, lovasz, kl], loss))
    })?;
    let seed = g.constant("d_loss", &[1], vec![1.0])?;
    g.backward(&[(loss, seed)], &[])?;
    let adam =
        Adam { weight_decay: f64::from(optimiser.weight_decay), clip_norm: optimiser.clip_norm, ..Adam::default() };
    let optimiser = g.scope("optimiser", |g| optimiser_step(g, adam.clone()))?;
    let report = concat(&mut g, &[report[0], report[1], report[2], report[3], optimiser.state])?;
    g.keep(report);
    Ok(TrainingGraph { graph: g, labels: built.labels, class_weights, rng, adam, optimiser, report })
}

struct EvaluationGraph {
    graph: Graph,
    labels: TensorId,
    class_weights: TensorId,
    observed: TensorId,
    predicted: TensorId,
    confusion: TensorId,
    losses: TensorId,
    distributions: [TensorId; 6],
}

fn evaluation_graph(model: &ModelConfig, shape: &BatchShape) -> Result<EvaluationGraph> {
    let mut g = Graph::new();
    let class_weights = g.input("class_weights", TensorSpec::f32(&[model.classes]));
    let built = sep4d::build(&mut g, model, shape, Latent::Mean)?;
    let observed = g.input("observed", TensorSpec::u32(g.shape(built.labels)));
    let (ce, lovasz) = g.scope("loss", |g| segmentation_loss(g, built.logits, built.labels, class_weights))?;
    let losses = concat(&mut g, &[ce, lovasz])?;
    let predicted = argmax(&mut g, built.logits)?;
    let confusion = confusion(&mut g, predicted, built.labels, observed, shape.total_frames(), model.classes)?;
    let distributions = built.distributions.all();
    for id in [predicted, confusion, losses].into_iter().chain(distributions) {
        g.keep(id);
    }
    Ok(EvaluationGraph {
        graph: g,
        labels: built.labels,
        class_weights,
        observed,
        predicted,
        confusion,
        losses,
        distributions,
    })
}

/// The training and the evaluation graph of a run.
///
/// # Errors
/// [`Error::Usage`] for extents that do not work, [`Error::Shape`] otherwise.
pub fn graphs(model: &ModelConfig, shape: &BatchShape, optimiser: &OptimiserConfig) -> Result<[Graph; 2]> {
    Ok([training_graph(model, shape, optimiser)?.graph, evaluation_graph(model, shape)?.graph])
}

/// Plans a run without a device.
///
/// # Errors
/// [`Error::Usage`] for extents that do not work, [`Error::Memory`] or [`Error::Device`] if `limits` are too small.
pub fn preflight(
    model: &ModelConfig,
    shape: &BatchShape,
    optimiser: &OptimiserConfig,
    limits: &KernelLimits,
) -> Result<Preflight> {
    let [training, evaluation] = graphs(model, shape, optimiser)?;
    let plans = [Plan::new(&training, limits)?, Plan::new(&evaluation, limits)?];
    Ok(summarise(&training, &plans))
}

fn summarise(training: &Graph, plans: &[Plan; 2]) -> Preflight {
    let [train, evaluate] = plans;
    // Arenas are shared, so each is as large as the larger plan needs it.
    let arenas = |of: fn(&Plan) -> &Vec<usize>| -> usize {
        let (a, b) = (of(train), of(evaluate));
        (0..a.len().max(b.len())).map(|i| a.get(i).copied().unwrap_or(0).max(b.get(i).copied().unwrap_or(0))).sum()
    };
    let outlives_a_step: usize = plans.iter().flat_map(|p| &p.persistent).chain(train.blocks.values()).sum();
    Preflight {
        parameters: training.parameter_count(),
        peak_bytes: arenas(|p| &p.arenas) + arenas(|p| &p.uniform_arenas) + outlives_a_step,
        largest_binding: train.largest_binding.max(evaluate.largest_binding),
        largest_tensor: train.largest_tensor.max(evaluate.largest_tensor),
        flops_per_step: training.flops(),
    }
}

/// A model on a device, ready to be trained and evaluated at one batch shape.
#[derive(Debug)]
pub struct Session {
    memory: Arc<Memory>,
    training: Executor,
    evaluation: Executor,
    ids: Ids,
    parameters: Vec<ParameterSpec>,
    shape: BatchShape,
    preflight: Preflight,
    adam: Adam,
    seed: u64,
    steps: u32,
}

#[derive(Debug)]
struct Ids {
    labels: TensorId,
    rng: TensorId,
    hyper: TensorId,
    skipped: TensorId,
    report: TensorId,
    evaluation_labels: TensorId,
    observed: TensorId,
    predicted: TensorId,
    confusion: TensorId,
    losses: TensorId,
    distributions: [TensorId; 6],
}

impl Session {
    /// Plans, allocates and initialises; parameters start from `seed`.
    ///
    /// # Errors
    /// [`Error::Usage`] for extents or weights that do not fit, [`Error::Memory`] and [`Error::Device`] from the adapter.
    pub fn new(
        context: &Arc<Context>,
        model: &ModelConfig,
        shape: &BatchShape,
        optimiser: &OptimiserConfig,
        class_weights: &[f32],
        seed: u64,
    ) -> Result<Session> {
        if class_weights.len() != model.classes {
            return Err(Error::Usage(format!("{} class weights for {} classes", class_weights.len(), model.classes)));
        }
        let train = training_graph(model, shape, optimiser)?;
        let evaluate = evaluation_graph(model, shape)?;
        let plans = [Plan::new(&train.graph, context.limits())?, Plan::new(&evaluate.graph, context.limits())?];
        let preflight = summarise(&train.graph, &plans);
        let memory = Memory::new(context, &[&plans[0], &plans[1]])?;
        memory.write_block(Block::Parameters, &train.graph.initial_parameters(seed))?;
        let parameters = train.graph.parameters().to_vec();
        let [train_plan, evaluate_plan] = plans;
        let training = Executor::new(context, train.graph, train_plan, &memory)?;
        let evaluation = Executor::new(context, evaluate.graph, evaluate_plan, &memory)?;
        training.write(train.class_weights, class_weights)?;
        training.write(train.optimiser.skipped, &[0u32])?;
        evaluation.write(evaluate.class_weights, class_weights)?;
        let ids = Ids {
            labels: train.labels,
            rng: train.rng,
            hyper: train.optimiser.hyper,
            skipped: train.optimiser.skipped,
            report: train.report,
            evaluation_labels: evaluate.labels,
            observed: evaluate.observed,
            predicted: evaluate.predicted,
            confusion: evaluate.confusion,
            losses: evaluate.losses,
            distributions: evaluate.distributions,
        };
        let shape = shape.clone();
        let adam = train.adam;
        Ok(Session { memory, training, evaluation, ids, parameters, shape, preflight, adam, seed, steps: 0 })
    }

    /// What the run needs.
    pub fn preflight(&self) -> &Preflight {
        &self.preflight
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u32 {
        self.steps
    }

    fn check(&self, batch: &Batch) -> Result<()> {
        if (batch.batch, batch.frames, batch.size) == (self.shape.batch, self.shape.frames, self.shape.size) {
            return Ok(());
        }
        Err(Error::Usage(format!(
            "a batch of {} x {} frames of {:?} voxels does not fit a session made for {} x {} frames of {:?}",
            batch.batch, batch.frames, batch.size, self.shape.batch, self.shape.frames, self.shape.size
        )))
    }

    /// Enqueues one step; returns before it is done. Adam's bias correction counts skipped steps too, so that it does not
    /// depend on when the host learns of them.
    ///
    /// # Errors
    /// [`Error::Usage`] if the batch has other extents, [`Error::Device`] if the device failed.
    pub fn train_step(&mut self, batch: &Batch, learning_rate: f32) -> Result<()> {
        self.check(batch)?;
        self.training.write(self.ids.labels, &batch.labels)?;
        self.training.write(self.ids.rng, &[self.seed as u32, (self.seed >> 32) as u32, self.steps])?;
        self.training.write(self.ids.hyper, &self.adam.hyper(f64::from(learning_rate), u64::from(self.steps)))?;
        self.training.run()?;
        self.steps += 1;
        Ok(())
    }

    /// Waits for the last step and reads its losses.
    ///
    /// # Errors
    /// [`Error::Device`] if the device failed.
    pub fn report(&mut self) -> Result<StepReport> {
        let values = self.training.read::<f32>(self.ids.report)?;
        let skipped = self.training.read::<u32>(self.ids.skipped)?[0];
        let &[loss, cross_entropy, lovasz, kl, gradient_norm, finite] = values.as_slice() else {
            return Err(Error::Device(format!("the step's report has {} values", values.len())));
        };
        // A non-finite loss whose gradient is finite would go unnoticed on the device.
        let finite = finite == 1.0 && loss.is_finite();
        Ok(StepReport { loss, cross_entropy, lovasz, kl, gradient_norm, finite, skipped })
    }

    /// Runs the model on `batch` with the latent means.
    ///
    /// # Errors
    /// As [`Session::train_step`].
    pub fn reconstruct(&mut self, batch: &Batch) -> Result<Reconstruction> {
        self.evaluate(batch)?;
        let blocked = self.evaluation.read::<u32>(self.ids.predicted)?;
        let labels = blocked
            .chunks(self.shape.size.iter().product())
            .flat_map(|frame| from_blocked(frame, self.shape.size))
            .map(|label| label as u8)
            .collect();
        let confusion = self.evaluation.read::<u32>(self.ids.confusion)?.into_iter().map(u64::from).collect();
        let losses = self.evaluation.read::<f32>(self.ids.losses)?;
        Ok(Reconstruction { labels, confusion, cross_entropy: losses[0], lovasz: losses[1] })
    }

    fn evaluate(&mut self, batch: &Batch) -> Result<()> {
        self.check(batch)?;
        self.evaluation.write(self.ids.evaluation_labels, &batch.labels)?;
        self.evaluation.write(self.ids.observed, &batch.observed)?;
        self.evaluation.run()
    }

    /// The distributions of the six latent planes of `batch`.
    ///
    /// # Errors
    /// As [`Session::train_step`].
    pub fn latents(&mut self, batch: &Batch) -> Result<Vec<LatentPlane>> {
        self.evaluate(batch)?;
        let mut planes = Vec::new();
        for (name, id) in PLANES.into_iter().zip(self.ids.distributions) {
            let mut shape = self.evaluation.graph().shape(id).to_vec();
            let channels = self.evaluation.graph().tensor(id).spec.channels() / 2;
            if let Some(last) = shape.last_mut() {
                *last = channels;
            }
            let (mut mu, mut logvar) = (Vec::new(), Vec::new());
            for row in self.evaluation.read::<f32>(id)?.chunks(2 * channels) {
                mu.extend_from_slice(&row[..channels]);
                logvar.extend_from_slice(&row[channels..]);
            }
            planes.push(LatentPlane { name, shape, mu, logvar });
        }
        Ok(planes)
    }

    /// Reads the whole state back.
    ///
    /// # Errors
    /// [`Error::Device`] if the device failed.
    pub fn export(&self) -> Result<TrainingState> {
        let parameters = self.named(&self.memory.read_block(Block::Parameters)?);
        let moments = self.memory.read_block(Block::Moments)?;
        let (first, second) = moments.split_at(moments.len() / 2);
        Ok(TrainingState {
            parameters,
            first_moments: self.named(first),
            second_moments: self.named(second),
            steps: self.steps,
            skipped: self.training.read::<u32>(self.ids.skipped)?[0],
        })
    }

    /// Goes on from `state`.
    ///
    /// # Errors
    /// [`Error::Data`] naming the parameter that is missing or has another shape.
    pub fn import(&mut self, state: &TrainingState) -> Result<()> {
        let parameters = self.flat(&state.parameters)?;
        let moments = [self.flat(&state.first_moments)?, self.flat(&state.second_moments)?].concat();
        self.memory.write_block(Block::Parameters, &parameters)?;
        self.memory.write_block(Block::Moments, &moments)?;
        self.training.write(self.ids.skipped, &[state.skipped])?;
        self.steps = state.steps;
        Ok(())
    }

    /// Replaces the parameters only, as for evaluating a checkpoint.
    ///
    /// # Errors
    /// As [`Session::import`].
    pub fn import_parameters(&mut self, parameters: &[NamedTensor]) -> Result<()> {
        let values = self.flat(parameters)?;
        self.memory.write_block(Block::Parameters, &values)
    }

    fn named(&self, block: &[f32]) -> Vec<NamedTensor> {
        let tensor = |p: &ParameterSpec| NamedTensor {
            name: p.name.clone(),
            shape: p.shape.clone(),
            values: block[p.offset..p.offset + p.elements()].to_vec(),
        };
        self.parameters.iter().map(tensor).collect()
    }

    fn flat(&self, tensors: &[NamedTensor]) -> Result<Vec<f32>> {
        let mut block = vec![0.0; self.training.graph().block_elements()];
        for p in &self.parameters {
            let tensor = tensors.iter().find(|t| t.name == p.name).ok_or_else(|| {
                Error::Data(format!("the checkpoint has no tensor {}; it belongs to another model", p.name))
            })?;
            if tensor.shape != p.shape || tensor.values.len() != p.elements() {
                return Err(Error::Data(format!(
                    "{} is {:?} in the checkpoint but {:?} in the model; use the model configuration of its run",
                    p.name, tensor.shape, p.shape
                )));
            }
            block[p.offset..p.offset + p.elements()].copy_from_slice(&tensor.values);
        }
        match tensors.iter().find(|t| self.parameters.iter().all(|p| p.name != t.name)) {
            Some(extra) => Err(Error::Data(format!("the checkpoint's tensor {} is not in this model", extra.name))),
            None => Ok(block),
        }
    }

    /// Times each kernel of a training step on the last batch. Parameters change, so use a session that is thrown away.
    ///
    /// # Errors
    /// [`Error::Device`] if the device failed.
    pub fn profile(&mut self) -> Result<Vec<ProfileRow>> {
        self.training.profile()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: ModelConfig =
        ModelConfig { classes: 11, latent_channels: 8, plane_features: 16, hidden: 32, head: 16 };

    fn plan(shape: (usize, usize, [usize; 3]), limits: &KernelLimits) -> Result<Preflight> {
        let (batch, frames, size) = shape;
        let weights = LossWeights { cross_entropy: 1.0, lovasz: 1.0, kl: 0.005 };
        let optimiser = OptimiserConfig { weights, weight_decay: 0.0, clip_norm: Some(1.0) };
        preflight(&MODEL, &BatchShape { batch, frames, size }, &optimiser, limits)
    }

    #[test]
    fn an_adapter_with_too_small_limits_is_told_before_anything_is_allocated() {
        let carla = (1, 4, [128, 128, 8]);
        let sentence = |limits: &KernelLimits, code: i32| {
            let why = plan(carla, limits).unwrap_err();
            assert_eq!(why.exit_code(), code, "{why}");
            let why = why.to_string();
            assert!(why.contains("data.crop") && !why.contains("mistake"), "{why}");
            why
        };
        plan(carla, &KernelLimits::portable()).unwrap();
        for binding in [16 << 10, 256 << 10, 1 << 20] {
            let limits = KernelLimits { max_storage_binding_bytes: binding, ..KernelLimits::portable() };
            assert!(sentence(&limits, 4).contains("--device"), "{binding}");
        }
        let limits = KernelLimits { max_buffer_bytes: 1 << 20, ..KernelLimits::portable() };
        assert!(sentence(&limits, 5).contains("largest buffer"));
    }

    #[test]
    fn extents_that_no_adapter_has_room_for_are_wrong_usage() {
        for shape in [(1 << 40, 64, [4096; 3]), (1, 2, [usize::MAX - 1; 3]), (1, 64, [4096; 3])] {
            let why = plan(shape, &KernelLimits::portable()).unwrap_err();
            assert!(why.exit_code() == 2 && why.to_string().contains("too large"), "{why}");
        }
        for shape in [(0, 4, [4; 3]), (1, 1, [4; 3]), (1, 65, [4; 3]), (1, 4, [4, 3, 4])] {
            assert_eq!(plan(shape, &KernelLimits::portable()).unwrap_err().exit_code(), 2);
        }
    }

    #[test]
    fn what_exceeds_the_budget_is_told_in_fitting_units() {
        let preflight = plan((1, 2, [16, 16, 4]), &KernelLimits::portable()).unwrap();
        let why = preflight.check(1 << 20).unwrap_err();
        assert!(why.exit_code() == 5 && why.to_string().contains("train.memory_budget is 1.00 MiB"), "{why}");
        preflight.check(preflight.peak_bytes).unwrap();
        assert_eq!(amount(3 << 29), "1.50 GiB");
    }
}
