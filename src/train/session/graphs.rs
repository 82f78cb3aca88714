//! The graphs of a model: for training, for scoring, and for looking at one clip.

use std::collections::BTreeSet;

use super::super::inference::{Parts, Stage};
use super::{Precision, Preflight, StepConfig};
use crate::data::batch::Batch;
use crate::graph::execute::Executor;
use crate::graph::plan::{Plan, shared_bytes};
use crate::graph::recompute::plan_within;
use crate::graph::{Block, Graph, KernelLimits, TensorId, TensorSpec};
use crate::layers::adam::{Adam, OptimiserStep, optimiser_step};
use crate::layers::average::accumulate;
use crate::layers::concat::{Concat, concat};
use crate::layers::likely::likely;
use crate::layers::metrics::{argmax, confusion};
use crate::layers::pointwise::{Pointwise, weighted_sum};
use crate::layers::segmentation_loss::segmentation_loss;
use crate::layers::unpack::unpack_bytes;
use crate::models::{BatchShape, Built, BuiltLatent, BuiltMotion, LatentKind, Mode, ModelConfig};
use crate::{Error, Result};

/// Smaller tensors stay f32 where activations are f16: they take no memory to speak of.
const SMALLEST_HALF: usize = 1 << 12;

/// What a model is given of a batch.
#[derive(Debug, Clone, Copy)]
pub(in crate::train) struct Inputs {
    labels: TensorId,
    motion: Option<BuiltMotion>,
}

impl Inputs {
    fn of(built: &Built) -> Inputs {
        Inputs { labels: built.label_bytes, motion: built.motion }
    }

    /// # Errors
    /// [`Error::Data`] if the model asks for motion and the batch has none, [`Error::Device`] if the device failed.
    pub fn write(&self, executor: &Executor, batch: &Batch) -> Result<()> {
        executor.write(self.labels, &batch.labels)?;
        let Some(BuiltMotion { maps, margin }) = self.motion else { return Ok(()) };
        let motions = batch.motions.as_ref().ok_or_else(|| {
            Error::Data(
                "a clip has no poses, without which its frames cannot be aligned; add them, or use a model without"
                    .into(),
            )
        })?;
        let values: Vec<f32> = motions.iter().flat_map(|motion| motion.maps(margin)).collect();
        executor.write(maps, &values)
    }
}

/// The losses of a batch and their gradients, which it leaves in the flat blocks.
#[derive(Debug, Clone)]
pub(super) struct GradientGraph {
    pub inputs: Inputs,
    pub class_weights: TensorId,
    pub rng: TensorId,
    /// Input, u32 `[1]`, where a step has several batches: whether this is the first of them.
    pub first: Option<TensorId>,
    /// The names of the model's losses, which come after the whole loss, cross entropy and Lovasz-softmax.
    pub terms: Vec<&'static str>,
}

pub(super) fn gradient_graph(
    model: &ModelConfig,
    shape: &BatchShape,
    step: &StepConfig,
) -> Result<(Graph, GradientGraph)> {
    let mut g = Graph::new();
    let class_weights = g.input("class_weights", TensorSpec::f32(&[model.classes]));
    let rng = g.input("rng", TensorSpec::u32(&[3]));
    let built = model.build(&mut g, shape, Mode::Train { rng })?;
    let inputs = Inputs::of(&built);
    let Built { labels, logits, losses, .. } = built;
    let (report, loss) = g.scope("loss", |g| {
        let (ce, lovasz) = segmentation_loss(g, logits, labels, class_weights)?;
        let mut terms = vec![(step.weights.cross_entropy, ce), (step.weights.lovasz, lovasz)];
        terms.extend(losses.iter().map(|&(name, loss)| (step.weights.terms.get(name).unwrap_or(1.0), loss)));
        let loss = weighted_sum(g, &terms)?;
        let report: Vec<TensorId> = [loss].into_iter().chain(terms.into_iter().map(|(_, loss)| loss)).collect();
        Ok((report, loss))
    })?;
    let mut seed = g.block(Block::LossScale, &[1]);
    if step.accumulate > 1 {
        seed = g.push_one(Pointwise::Scale { factor: 1.0 / step.accumulate as f32 }, &[seed])?;
    }
    g.backward(&[(loss, seed)], &[])?;
    let losses_of_batch = g.block(Block::Losses, &[report.len()]);
    g.push_into(Concat, &report, &[losses_of_batch])?;
    let first = (step.accumulate > 1).then(|| g.input("first", TensorSpec::u32(&[1])));
    if let Some(first) = first {
        let elements = g.block_elements(Block::Gradients);
        accumulate(&mut g, [Block::Gradients, Block::GradientSums], elements, first)?;
        accumulate(&mut g, [Block::Losses, Block::LossSums], report.len(), first)?;
    }
    if step.precision == Precision::F16 {
        g.halve(SMALLEST_HALF);
    }
    let terms = losses.into_iter().map(|(name, _)| name).collect();
    Ok((g, GradientGraph { inputs, class_weights, rng, first, terms }))
}

/// What changes the parameters once the gradients are there.
#[derive(Debug, Clone)]
pub(super) struct UpdateGraph {
    pub adam: Adam,
    pub optimiser: OptimiserStep,
    /// The loss, cross entropy, Lovasz-softmax, those of the model, and the optimiser's state.
    pub report: TensorId,
}

/// `gradients` has the parameters, and `losses` is how many it has.
pub(super) fn update_graph(gradients: &Graph, losses: usize, step: &StepConfig) -> Result<(Graph, UpdateGraph)> {
    let mut g = gradients.with_the_same_parameters();
    let adam = Adam {
        weight_decay: f64::from(step.weight_decay),
        clip_norm: step.clip_norm,
        average_decay: f64::from(step.ema),
        ..Adam::default()
    };
    let summed = step.accumulate > 1;
    let (gradients, reported) =
        if summed { (Block::GradientSums, Block::LossSums) } else { (Block::Gradients, Block::Losses) };
    let (optimiser, report) = g.scope("optimiser", |g| {
        let scaling = step.precision.loss_scaling();
        let optimiser = optimiser_step(g, adam.clone(), gradients, scaling, step.ema > 0.0)?;
        let mut mean = g.block(reported, &[losses]);
        if summed {
            mean = g.push_one(Pointwise::Scale { factor: 1.0 / step.accumulate as f32 }, &[mean])?;
        }
        Ok((optimiser, concat(g, &[mean, optimiser.state])?))
    })?;
    g.keep(report);
    Ok((g, UpdateGraph { adam, optimiser, report }))
}

impl GradientGraph {
    /// How many losses are reported.
    fn losses(&self) -> usize {
        3 + self.terms.len()
    }
}

/// Scores a batch, with latents as they are expected to be.
#[derive(Debug, Clone)]
pub(in crate::train) struct EvaluationGraph {
    pub inputs: Inputs,
    pub class_weights: TensorId,
    pub observed: TensorId,
    pub confusion: TensorId,
    pub losses: TensorId,
    /// The latents that consist of codes.
    pub codes: Vec<BuiltLatent>,
}

pub(in crate::train) fn evaluation_graph(model: &ModelConfig, shape: &BatchShape) -> Result<(Graph, EvaluationGraph)> {
    let mut g = Graph::new();
    let class_weights = g.input("class_weights", TensorSpec::f32(&[model.classes]));
    let built = model.build(&mut g, shape, Mode::Look)?;
    let inputs = Inputs::of(&built);
    let observed_bytes = g.input("observed", TensorSpec::u32(g.shape(built.label_bytes)));
    let observed = unpack_bytes(&mut g, observed_bytes)?;
    let (ce, lovasz) = g.scope("loss", |g| segmentation_loss(g, built.logits, built.labels, class_weights))?;
    let losses = concat(&mut g, &[ce, lovasz])?;
    let predicted = argmax(&mut g, built.logits)?;
    let confusion = confusion(&mut g, predicted, built.labels, observed, shape.total_frames(), model.classes)?;
    let is_code = |latent: &BuiltLatent| matches!(latent.latent.kind, LatentKind::Code { .. });
    let codes: Vec<BuiltLatent> = built.latents.into_iter().filter(is_code).collect();
    [confusion, losses].into_iter().chain(codes.iter().map(|latent| latent.encoded)).for_each(|id| g.keep(id));
    Ok((g, EvaluationGraph { inputs, class_weights, observed: observed_bytes, confusion, losses, codes }))
}

/// The latents of one clip.
#[derive(Debug, Clone)]
pub(in crate::train) struct EncoderGraph {
    pub inputs: Inputs,
    pub latents: Vec<BuiltLatent>,
}

/// The whole model, so that parameters lie where they do in training; the plan drops the decoder.
pub(in crate::train) fn encoder_graph(model: &ModelConfig, shape: &BatchShape) -> Result<(Graph, EncoderGraph)> {
    let mut g = Graph::new();
    let built = model.build(&mut g, &one_clip(shape), Mode::Look)?;
    built.latents.iter().for_each(|latent| g.keep(latent.encoded));
    Ok((g, EncoderGraph { inputs: Inputs::of(&built), latents: built.latents }))
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

/// The graphs of a run: gradients, their update, evaluation, encoder and decoder.
///
/// # Errors
/// [`Error::Usage`](crate::Error::Usage) for extents that do not work, [`Error::Shape`](crate::Error::Shape) otherwise.
pub fn graphs(model: &ModelConfig, shape: &BatchShape, step: &StepConfig) -> Result<[Graph; 5]> {
    let (gradients, ids) = gradient_graph(model, shape, step)?;
    let update = update_graph(&gradients, ids.losses(), step)?.0;
    Ok([
        gradients,
        update,
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
    pub(super) gradients: Stage<GradientGraph>,
    pub(super) update: Stage<UpdateGraph>,
    pub(super) parts: Parts,
    pub(super) shape: BatchShape,
    pub(super) step: StepConfig,
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
        let (graph, ids) = gradient_graph(model, shape, step)?;
        let update = Stage::new(update_graph(&graph, ids.losses(), step)?, limits)?;
        let parts = Parts::new(model, shape, limits, step.ema > 0.0)?;
        let others = [&[&update.plan], &parts.plans()[..]].concat();
        let (graph, plan) = plan_within(graph, limits, |plan| match step.memory_budget {
            Some(budget) => peak_bytes(&[&[plan], &others[..]].concat()).saturating_sub(budget),
            None => 0,
        })?;
        let of_plans = Preflight::of(&graph, &[&[&plan], &others[..]].concat());
        let flops_per_step = step.accumulate as u64 * graph.flops() + update.graph.flops();
        let preflight = Preflight { flops_per_step, ..of_plans };
        let gradients = Stage { graph, plan, ids, executor: None };
        let (shape, step, limits) = (shape.clone(), step.clone(), limits.clone());
        Ok(Planned { gradients, update, parts, shape, step, preflight, limits })
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
