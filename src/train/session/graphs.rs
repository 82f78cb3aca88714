//! The graphs of a model: for training, for scoring, and for looking at one clip.

use std::collections::BTreeSet;

use super::super::inference::Parts;
use super::{Precision, Preflight, StepConfig};
use crate::Result;
use crate::graph::plan::{Plan, shared_bytes};
use crate::graph::recompute::plan_within;
use crate::graph::{Graph, KernelLimits, TensorId, TensorSpec};
use crate::layers::adam::{Adam, OptimiserStep, optimiser_step};
use crate::layers::concat::concat;
use crate::layers::likely::likely;
use crate::layers::metrics::{argmax, confusion};
use crate::layers::pointwise::weighted_sum;
use crate::layers::segmentation_loss::segmentation_loss;
use crate::layers::unpack::unpack_bytes;
use crate::models::{BatchShape, Built, BuiltLatent, Mode, ModelConfig};

/// Smaller tensors stay f32 where activations are f16: they take no memory to speak of.
const SMALLEST_HALF: usize = 1 << 12;

/// A step of training.
#[derive(Debug, Clone)]
pub(super) struct TrainingGraph {
    pub graph: Graph,
    pub labels: TensorId,
    pub class_weights: TensorId,
    pub rng: TensorId,
    pub scale: TensorId,
    pub adam: Adam,
    pub optimiser: OptimiserStep,
    /// The loss, cross entropy, Lovasz-softmax, those of the model, and the optimiser's state.
    pub report: TensorId,
    /// The names of the model's losses.
    pub terms: Vec<&'static str>,
}

pub(super) fn training_graph(model: &ModelConfig, shape: &BatchShape, step: &StepConfig) -> Result<TrainingGraph> {
    let mut g = Graph::new();
    let class_weights = g.input("class_weights", TensorSpec::f32(&[model.classes]));
    let rng = g.input("rng", TensorSpec::u32(&[3]));
    let Built { label_bytes, labels, logits, losses, .. } = model.build(&mut g, shape, Mode::Train { rng })?;
    let (mut report, loss) = g.scope("loss", |g| {
        let (ce, lovasz) = segmentation_loss(g, logits, labels, class_weights)?;
        let mut terms = vec![(step.weights.cross_entropy, ce), (step.weights.lovasz, lovasz)];
        terms.extend(losses.iter().map(|&(name, loss)| (step.weights.terms.get(name).unwrap_or(1.0), loss)));
        let loss = weighted_sum(g, &terms)?;
        let report: Vec<TensorId> = [loss].into_iter().chain(terms.into_iter().map(|(_, loss)| loss)).collect();
        Ok((report, loss))
    })?;
    let scale = g.input("loss_scale", TensorSpec::f32(&[1]));
    g.backward(&[(loss, scale)], &[])?;
    let precision = step.precision;
    let adam = Adam { weight_decay: f64::from(step.weight_decay), clip_norm: step.clip_norm, ..Adam::default() };
    let optimiser = g.scope("optimiser", |g| optimiser_step(g, adam.clone(), scale, precision.loss_scaling()))?;
    report.push(optimiser.state);
    let report = concat(&mut g, &report)?;
    g.keep(report);
    if precision == Precision::F16 {
        g.halve(SMALLEST_HALF);
    }
    let terms = losses.into_iter().map(|(name, _)| name).collect();
    Ok(TrainingGraph { graph: g, labels: label_bytes, class_weights, rng, scale, adam, optimiser, report, terms })
}

/// Scores a batch, with latents as they are expected to be.
#[derive(Debug, Clone)]
pub(in crate::train) struct EvaluationGraph {
    pub labels: TensorId,
    pub class_weights: TensorId,
    pub observed: TensorId,
    pub confusion: TensorId,
    pub losses: TensorId,
}

pub(in crate::train) fn evaluation_graph(model: &ModelConfig, shape: &BatchShape) -> Result<(Graph, EvaluationGraph)> {
    let mut g = Graph::new();
    let class_weights = g.input("class_weights", TensorSpec::f32(&[model.classes]));
    let built = model.build(&mut g, shape, Mode::Look)?;
    let observed_bytes = g.input("observed", TensorSpec::u32(g.shape(built.label_bytes)));
    let observed = unpack_bytes(&mut g, observed_bytes)?;
    let (ce, lovasz) = g.scope("loss", |g| segmentation_loss(g, built.logits, built.labels, class_weights))?;
    let losses = concat(&mut g, &[ce, lovasz])?;
    let predicted = argmax(&mut g, built.logits)?;
    let confusion = confusion(&mut g, predicted, built.labels, observed, shape.total_frames(), model.classes)?;
    g.keep(confusion);
    g.keep(losses);
    Ok((g, EvaluationGraph { labels: built.label_bytes, class_weights, observed: observed_bytes, confusion, losses }))
}

/// The latents of one clip.
#[derive(Debug, Clone)]
pub(in crate::train) struct EncoderGraph {
    pub labels: TensorId,
    pub latents: Vec<BuiltLatent>,
}

/// The whole model, so that parameters lie where they do in training; the plan drops the decoder.
pub(in crate::train) fn encoder_graph(model: &ModelConfig, shape: &BatchShape) -> Result<(Graph, EncoderGraph)> {
    let mut g = Graph::new();
    let built = model.build(&mut g, &one_clip(shape), Mode::Look)?;
    built.latents.iter().for_each(|latent| g.keep(latent.encoded));
    Ok((g, EncoderGraph { labels: built.label_bytes, latents: built.latents }))
}

/// What latents of one clip mean.
#[derive(Debug, Clone)]
pub(in crate::train) struct DecoderGraph {
    pub latents: Vec<BuiltLatent>,
    pub likely: TensorId,
}

/// The whole model, as in [`encoder_graph`]; the plan drops the encoder.
pub(in crate::train) fn decoder_graph(model: &ModelConfig, shape: &BatchShape) -> Result<(Graph, DecoderGraph)> {
    let mut g = Graph::new();
    let built = model.build(&mut g, &one_clip(shape), Mode::Decode)?;
    let likely = likely(&mut g, built.logits)?;
    g.keep(likely);
    Ok((g, DecoderGraph { latents: built.latents, likely }))
}

fn one_clip(shape: &BatchShape) -> BatchShape {
    BatchShape { batch: 1, ..shape.clone() }
}

/// The graphs of a run: training, evaluation, encoder and decoder.
///
/// # Errors
/// [`Error::Usage`](crate::Error::Usage) for extents that do not work, [`Error::Shape`](crate::Error::Shape) otherwise.
pub fn graphs(model: &ModelConfig, shape: &BatchShape, step: &StepConfig) -> Result<[Graph; 4]> {
    Ok([
        training_graph(model, shape, step)?.graph,
        evaluation_graph(model, shape)?.0,
        encoder_graph(model, shape)?.0,
        decoder_graph(model, shape)?.0,
    ])
}

/// Plans a run without a device.
///
/// # Errors
/// As for [`Planned::new`].
pub fn preflight(
    model: &ModelConfig,
    shape: &BatchShape,
    step: &StepConfig,
    limits: &KernelLimits,
) -> Result<Preflight> {
    Ok(Planned::new(model, shape, step, limits)?.preflight)
}

/// The graphs of a run with their plans: what is told of them before anything is allocated is what runs.
#[derive(Debug)]
pub struct Planned {
    pub(super) train: TrainingGraph,
    pub(super) plan: Plan,
    pub(super) parts: Parts,
    pub(super) shape: BatchShape,
    pub(super) precision: Precision,
    preflight: Preflight,
    limits: KernelLimits,
}

impl Planned {
    /// Plans the training graph beside the others of the run, recomputing as much as the memory budget demands.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) for extents that do not work, [`Error::Memory`](crate::Error::Memory) or
    /// [`Error::Device`](crate::Error::Device) if `limits` are too small.
    pub fn new(model: &ModelConfig, shape: &BatchShape, step: &StepConfig, limits: &KernelLimits) -> Result<Planned> {
        let train = training_graph(model, shape, step)?;
        let parts = Parts::new(model, shape, limits)?;
        let (graph, plan) = plan_within(train.graph, limits, |plan| match step.memory_budget {
            Some(budget) => peak_bytes(&[&[plan], &parts.plans()[..]].concat()).saturating_sub(budget),
            None => 0,
        })?;
        let train = TrainingGraph { graph, ..train };
        let preflight = Preflight::of(&train.graph, &[&[&plan], &parts.plans()[..]].concat());
        let (shape, precision, limits) = (shape.clone(), step.precision, limits.clone());
        Ok(Planned { train, plan, parts, shape, precision, preflight, limits })
    }

    /// What the run needs.
    pub fn preflight(&self) -> &Preflight {
        &self.preflight
    }

    /// Whether it was planned for an adapter with these limits.
    pub fn fits(&self, limits: &KernelLimits) -> bool {
        self.limits == *limits
    }
}

/// Bytes of all device buffers of a run.
fn peak_bytes(plans: &[&Plan]) -> usize {
    shared_bytes(plans).values().sum::<usize>() + plans.iter().map(|plan| plan.own_bytes()).sum::<usize>()
}

impl Preflight {
    /// What `plans` need together; `graph` is the first one's.
    pub(in crate::train) fn of(graph: &Graph, plans: &[&Plan]) -> Preflight {
        let most = |of: fn(&Plan) -> usize| plans.iter().map(|plan| of(plan)).max().unwrap_or(0);
        Preflight {
            parameters: graph.parameter_count(),
            peak_bytes: peak_bytes(plans),
            largest_binding: most(|plan| plan.largest_binding),
            largest_tensor: most(|plan| plan.largest_tensor),
            flops_per_step: graph.flops(),
            kernels: plans.iter().flat_map(|plan| plan.kernels()).collect::<BTreeSet<_>>().into_iter().collect(),
        }
    }
}
