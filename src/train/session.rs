//! The device side of a run: the training graph beside the graphs that look at its model, sharing parameters and arenas.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::inference::Inference;
use crate::data::batch::Batch;
use crate::gpu::Context;
use crate::graph::execute::{Executor, Memory, OpProfile};
use crate::graph::{Block, ParameterKind};
use crate::kernel::BoundKernel;
use crate::layers::adam::LossScaling;
use crate::models::{BatchShape, ModelConfig, Terms};
use crate::{Error, Result};

pub(super) mod graphs;
pub(super) mod layout;

use graphs::{GradientGraph, UpdateGraph};
pub use graphs::{Planned, graphs, preflight};

/// Weights of the loss' parts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossWeights {
    /// Of the weighted cross entropy.
    pub cross_entropy: f32,
    /// Of the Lovasz-softmax loss.
    pub lovasz: f32,
    /// Of the model's own losses; 1 for one that is not among them.
    pub terms: Terms,
}

impl LossWeights {
    /// The largest loss of a model that training can still mend: ten times that of one which knows nothing, with uniform
    /// probabilities over `classes`, a Lovasz-softmax loss of 1 and 10 for each of the model's own, such as 10 nats an
    /// element of a Gaussian latent.
    pub fn largest_sane(&self, classes: usize) -> f32 {
        let own: f32 = self.terms.iter().map(|(_, weight)| weight * 10.0).sum();
        10.0 * (self.cross_entropy * (classes as f32).ln() + self.lovasz + own)
    }
}

/// How activations and their gradients are stored while a model is trained. Parameters, their gradients and moments, and all
/// sums are f32 either way, and so is a model that is looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Four bytes each.
    #[default]
    F32,
    /// Two bytes each, where a tensor is large; the loss is scaled so that no gradient gets too small.
    F16,
}

impl Precision {
    /// Its name in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::F16 => "f16",
        }
    }

    /// How the loss is scaled.
    pub fn loss_scaling(self) -> LossScaling {
        match self {
            Precision::F32 => LossScaling::NONE,
            Precision::F16 => LossScaling::HALF,
        }
    }
}

/// What a training step minimises, how, and in how much memory.
#[derive(Debug, Clone, PartialEq)]
pub struct StepConfig {
    /// Of activations and their gradients.
    pub precision: Precision,
    /// Weights of the loss' parts.
    pub weights: LossWeights,
    /// Decoupled weight decay (AdamW); 0 is plain Adam.
    pub weight_decay: f32,
    /// Global gradient norm above which gradients are scaled down to it.
    pub clip_norm: Option<f32>,
    /// Batches whose mean gradient makes a step.
    pub accumulate: usize,
    /// What the moving average of the parameters, which is what is looked at, keeps of itself in a step; 0: there is none.
    pub ema: f32,
    /// Bytes that all device buffers of the run may take; what does not fit is recomputed instead of kept.
    pub memory_budget: Option<usize>,
}

impl Default for StepConfig {
    /// One batch in f32 with plain Adam, and all losses as they are.
    fn default() -> Self {
        StepConfig {
            precision: Precision::F32,
            weights: LossWeights { cross_entropy: 1.0, lovasz: 1.0, terms: Terms::default() },
            weight_decay: 0.0,
            clip_norm: None,
            accumulate: 1,
            ema: 0.0,
            memory_budget: None,
        }
    }
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
    /// What [`Context::build`] can build beforehand.
    pub kernels: Vec<BoundKernel>,
}

impl Preflight {
    /// # Errors
    /// [`Error::Memory`] saying what is needed if that is more than `budget_bytes`.
    pub fn check(&self, budget_bytes: usize) -> Result<()> {
        if self.peak_bytes <= budget_bytes {
            return Ok(());
        }
        Err(Error::Memory(format!(
            "training needs {} of device memory even if it keeps as little as it can, but train.memory_budget is {}; use a \
             smaller T (data.frames), batch (train.batch), crop (data.crop) or preset, or raise train.memory_budget (GiB)",
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
    /// The model's own losses, before their weights.
    pub terms: Terms,
    /// Global norm of the gradient before clipping.
    pub gradient_norm: f32,
    /// Whether the gradient was finite; if not, the step was skipped.
    pub finite: bool,
    /// What the loss was multiplied by before it was differentiated; 1 unless activations are f16.
    pub loss_scale: f32,
    /// Steps skipped since the start of the run, those not counted that a lower scale of the loss may cure.
    pub skipped: u32,
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
    /// Parameters, buffers among them.
    pub parameters: Vec<NamedTensor>,
    /// The same with moving averages for what is trained, if there are any: what is looked at.
    pub averages: Option<Vec<NamedTensor>>,
    /// Adam's first moments.
    pub first_moments: Vec<NamedTensor>,
    /// Adam's second moments.
    pub second_moments: Vec<NamedTensor>,
    /// Steps so far, skipped ones included: the counter of the latent noise.
    pub steps: u32,
    /// Steps skipped for non-finite gradients.
    pub skipped: u32,
    /// The scale of the loss; `None` if activations are f32.
    pub loss_scale: Option<LossScale>,
}

impl TrainingState {
    /// All its tensors.
    pub fn tensors(&self) -> impl Iterator<Item = &NamedTensor> {
        let averages = self.averages.iter().flatten();
        [&self.parameters, &self.first_moments, &self.second_moments].into_iter().flatten().chain(averages)
    }

    /// What is looked at.
    pub fn model(&self) -> &[NamedTensor] {
        self.averages.as_ref().unwrap_or(&self.parameters)
    }
}

/// Where the scale of the loss has got to ([`LossScaling`]).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossScale {
    /// That of the next step.
    pub scale: f32,
    /// Good steps since it last changed.
    pub good_steps: u32,
}

/// A model on a device, ready to be trained and looked at, at one batch shape.
#[derive(Debug)]
pub struct Session {
    inference: Inference,
    gradients: (Executor, GradientGraph),
    update: (Executor, UpdateGraph),
    preflight: Preflight,
    step: StepConfig,
    seed: u64,
}

impl Session {
    /// Plans, allocates and initialises; parameters start from `seed`.
    ///
    /// # Errors
    /// As for [`Planned::new`] and [`Session::of`].
    pub fn new(
        context: &Arc<Context>,
        model: &ModelConfig,
        shape: &BatchShape,
        step: &StepConfig,
        class_weights: &[f32],
        seed: u64,
    ) -> Result<Session> {
        Session::of(context, &Planned::new(model, shape, step, context.limits())?, class_weights, seed)
    }

    /// Allocates and initialises what was planned for the adapter of `context`; parameters start from `seed`.
    ///
    /// # Errors
    /// [`Error::Usage`] for weights that do not fit, [`Error::Memory`] and [`Error::Device`] from the adapter.
    pub fn of(context: &Arc<Context>, planned: &Planned, class_weights: &[f32], seed: u64) -> Result<Session> {
        let Planned { gradients, update, parts, .. } = planned;
        let parts = parts.weighted(class_weights)?;
        let memory = Memory::new(context, &[&[&gradients.plan, &update.plan], &parts.plans()[..]].concat())?;
        let blocks = [Block::Parameters, Block::Averages, Block::Buffers];
        for block in blocks.into_iter().filter(|&block| memory.has(block)) {
            memory.write_block(block, &gradients.graph.initial_values(block, seed))?;
        }
        let executor = Executor::new(context, gradients.graph.clone(), gradients.plan.clone(), &memory)?;
        executor.write(gradients.ids.class_weights, class_weights)?;
        let updater = Executor::new(context, update.graph.clone(), update.plan.clone(), &memory)?;
        let session = Session {
            inference: Inference::of(context, memory, parts, &planned.shape),
            gradients: (executor, gradients.ids.clone()),
            update: (updater, update.ids.clone()),
            preflight: planned.preflight().clone(),
            step: planned.step.clone(),
            seed,
        };
        session.set_scaling(0, None)?;
        Ok(session)
    }

    /// What the run needs.
    pub fn preflight(&self) -> &Preflight {
        &self.preflight
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u32 {
        self.inference.steps()
    }

    /// The device.
    pub fn context(&self) -> &Arc<Context> {
        self.inference.context()
    }

    /// The model as it is now, to be looked at.
    pub fn inference(&mut self) -> &mut Inference {
        &mut self.inference
    }

    /// Enqueues one step, by the mean gradient of `batches`; returns before it is done.
    ///
    /// # Errors
    /// [`Error::Usage`] if there are not as many batches as a step has, or one has other extents, [`Error::Device`] if the
    /// device failed.
    pub fn train_step(&mut self, batches: &[Batch], learning_rate: f32) -> Result<()> {
        let needed = self.step.accumulate;
        if batches.len() != needed {
            return Err(Error::Usage(format!("{} batches for a step of {needed}", batches.len())));
        }
        batches.iter().enumerate().try_for_each(|(number, batch)| self.add_gradient(number, batch))?;
        self.update(learning_rate)
    }

    /// Enqueues the gradient of the batch of this number in a step, the first of which is 0.
    ///
    /// # Errors
    /// [`Error::Usage`] if it has other extents, [`Error::Device`] if the device failed.
    pub fn add_gradient(&mut self, number: usize, batch: &Batch) -> Result<()> {
        self.inference.check(batch, self.inference.shape().batch)?;
        let (executor, ids) = &self.gradients;
        ids.inputs.write(executor, batch)?;
        // Not every model samples.
        if executor.uses(ids.rng) {
            let draw = self.steps().wrapping_mul(self.step.accumulate as u32).wrapping_add(number as u32);
            executor.write(ids.rng, &[self.seed as u32, (self.seed >> 32) as u32, draw])?;
        }
        if let Some(first) = ids.first {
            executor.write(first, &[u32::from(number == 0)])?;
        }
        executor.run()
    }

    /// Enqueues the end of a step, once all its batches were added. Adam's bias correction counts skipped steps too, so that it
    /// does not depend on when the host learns of them.
    ///
    /// # Errors
    /// [`Error::Device`] if the device failed.
    pub fn update(&mut self, learning_rate: f32) -> Result<()> {
        let steps = self.steps();
        let (executor, ids) = &self.update;
        executor.write(ids.optimiser.hyper, &ids.adam.hyper(f64::from(learning_rate), u64::from(steps)))?;
        executor.run()?;
        self.inference.set_steps(steps + 1);
        Ok(())
    }

    /// Waits for the last step where it gains nothing to go ahead of it: a CPU adapter has no time of its own, and takes a step
    /// faster while nobody else's thread stirs (docs/rejected.md). Comes after [`Session::train_step`] in a loop.
    ///
    /// # Errors
    /// [`Error::Device`] if the device failed.
    pub fn pace(&self) -> Result<()> {
        if self.context().limits().is_software { self.context().wait() } else { Ok(()) }
    }

    /// Waits for the last step and reads its losses.
    ///
    /// # Errors
    /// [`Error::Device`] if the device failed.
    pub fn report(&mut self) -> Result<StepReport> {
        let (executor, ids) = &self.update;
        let values = executor.read::<f32>(ids.report)?;
        let [skipped, _] = self.counters()?;
        let &[loss, cross_entropy, lovasz, ref own @ .., gradient_norm, finite, loss_scale] = values.as_slice() else {
            return Err(Error::Device(format!("the step's report has {} values", values.len())));
        };
        let terms = Terms::of(self.gradients.1.terms.iter().copied().zip(own.iter().copied()));
        let finite = finite == 1.0;
        Ok(StepReport { loss, cross_entropy, lovasz, terms, gradient_norm, finite, loss_scale, skipped })
    }

    /// Skipped steps, and good ones since the scale of the loss last changed.
    fn counters(&self) -> Result<[u32; 2]> {
        let (executor, ids) = &self.update;
        let counters = executor.read::<u32>(ids.optimiser.counters)?;
        counters.as_slice().try_into().map_err(|_| Error::Device(format!("there are {} counters", counters.len())))
    }

    fn loss_scale(&self) -> Result<f32> {
        Ok(self.inference.memory().read_block(Block::LossScale)?.first().copied().unwrap_or(1.0))
    }

    /// Without `loss_scale`, or where this precision needs none, the scale is that of a first step.
    fn set_scaling(&self, skipped: u32, loss_scale: Option<LossScale>) -> Result<()> {
        let precision = self.step.precision;
        let start = LossScale { scale: precision.loss_scaling().start, good_steps: 0 };
        let LossScale { scale, good_steps } = loss_scale.filter(|_| precision == Precision::F16).unwrap_or(start);
        let (executor, ids) = &self.update;
        let mut block = vec![0.0; executor.graph().block_elements(Block::LossScale)];
        block[0] = scale;
        self.inference.memory().write_block(Block::LossScale, &block)?;
        executor.write(ids.optimiser.counters, &[skipped, good_steps])
    }

    /// Reads the whole state back.
    ///
    /// # Errors
    /// [`Error::Device`] if the device failed.
    pub fn export(&self) -> Result<TrainingState> {
        let (memory, layout) = (self.inference.memory(), self.inference.layout());
        let moments = memory.read_block(Block::Moments)?;
        let (first, second) = moments.split_at(moments.len() / 2);
        let [skipped, good_steps] = self.counters()?;
        let loss_scale = match self.step.precision {
            Precision::F32 => None,
            Precision::F16 => Some(LossScale { scale: self.loss_scale()?, good_steps }),
        };
        Ok(TrainingState {
            parameters: layout.read(memory, Block::Parameters)?,
            averages: match self.step.ema > 0.0 {
                true => Some(layout.read(memory, Block::Averages)?),
                false => None,
            },
            first_moments: layout.named(ParameterKind::Trained, first),
            second_moments: layout.named(ParameterKind::Trained, second),
            steps: self.steps(),
            skipped,
            loss_scale,
        })
    }

    /// Goes on from `state`.
    ///
    /// # Errors
    /// [`Error::Data`] naming the parameter that is missing or has another shape.
    pub fn import(&mut self, state: &TrainingState) -> Result<()> {
        let layout = self.inference.layout();
        let flat = |moments: &[NamedTensor]| layout.flat(ParameterKind::Trained, moments);
        let moments = [flat(&state.first_moments)?, flat(&state.second_moments)?].concat();
        // What began without an average goes on as one of what there is.
        self.inference.import(state.model(), state.steps)?;
        let (memory, layout) = (self.inference.memory(), self.inference.layout());
        layout.write(memory, Block::Parameters, &state.parameters)?;
        memory.write_block(Block::Moments, &moments)?;
        self.set_scaling(state.skipped, state.loss_scale)
    }

    /// Times each op of a training step, all batches of which are taken to be as the last. Parameters change, so use a session
    /// that is thrown away.
    ///
    /// # Errors
    /// [`Error::Device`] if the device failed.
    pub fn profile(&mut self) -> Result<Vec<OpProfile>> {
        let batches = self.step.accumulate as u64;
        let mut ops = self.gradients.0.profile()?;
        for op in &mut ops {
            (op.flops, op.bytes) = (op.flops * batches, op.bytes * batches);
            op.launches.iter_mut().for_each(|launch| launch.secs *= batches as f64);
        }
        ops.extend(self.update.0.profile()?);
        Ok(ops)
    }

    /// Seconds that the device is at a training step on the last batch, by [`Executor::device_secs`]. Parameters change as in
    /// [`Session::profile`].
    ///
    /// # Errors
    /// [`Error::Device`] if the device failed.
    pub fn device_secs(&mut self) -> Result<Option<f64>> {
        let [gradients, update] = [self.gradients.0.device_secs()?, self.update.0.device_secs()?];
        Ok(gradients.zip(update).map(|(gradients, update)| self.step.accumulate as f64 * gradients + update))
    }
}

#[cfg(test)]
mod tests;
