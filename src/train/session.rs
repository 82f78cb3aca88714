//! The device side of a run: the training graph beside the graphs that look at its model, sharing parameters and arenas.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::inference::Inference;
use crate::data::batch::Batch;
use crate::gpu::{BoundKernel, Context};
use crate::graph::execute::{Executor, Memory, OpProfile};
use crate::graph::{Block, TensorId};
use crate::layers::adam::{Adam, LossScaling};
use crate::models::{BatchShape, ModelConfig, Terms};
use crate::{Error, Result};

pub(super) mod graphs;

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
    /// Bytes that all device buffers of the run may take; what does not fit is recomputed instead of kept.
    pub memory_budget: Option<usize>,
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
    /// The scale of the loss; `None` if activations are f32.
    pub loss_scale: Option<LossScale>,
}

impl TrainingState {
    /// All its tensors.
    pub fn tensors(&self) -> impl Iterator<Item = &NamedTensor> {
        [&self.parameters, &self.first_moments, &self.second_moments].into_iter().flatten()
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
    executor: Executor,
    ids: Ids,
    preflight: Preflight,
    adam: Adam,
    precision: Precision,
    seed: u64,
}

#[derive(Debug)]
struct Ids {
    labels: TensorId,
    rng: TensorId,
    hyper: TensorId,
    scale: TensorId,
    counters: TensorId,
    report: TensorId,
    terms: Vec<&'static str>,
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
        let (train, precision) = (planned.train.clone(), planned.precision);
        let parts = planned.parts.weighted(class_weights)?;
        let memory = Memory::new(context, &[&[&planned.plan], &parts.plans()[..]].concat())?;
        memory.write_block(Block::Parameters, &train.graph.initial_parameters(seed))?;
        let executor = Executor::new(context, train.graph, planned.plan.clone(), &memory)?;
        executor.write(train.class_weights, class_weights)?;
        let inference = Inference::of(context, memory, parts, &planned.shape);
        let preflight = planned.preflight().clone();
        let ids = Ids {
            labels: train.labels,
            rng: train.rng,
            hyper: train.optimiser.hyper,
            scale: train.scale,
            counters: train.optimiser.counters,
            report: train.report,
            terms: train.terms,
        };
        let session = Session { inference, executor, ids, preflight, adam: train.adam, precision, seed };
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

    /// Enqueues one step; returns before it is done. Adam's bias correction counts skipped steps too, so that it does not
    /// depend on when the host learns of them.
    ///
    /// # Errors
    /// [`Error::Usage`] if the batch has other extents, [`Error::Device`] if the device failed.
    pub fn train_step(&mut self, batch: &Batch, learning_rate: f32) -> Result<()> {
        let steps = self.steps();
        self.inference.check(batch, self.inference.shape().batch)?;
        self.executor.write(self.ids.labels, &batch.labels)?;
        // Not every model samples.
        if self.executor.uses(self.ids.rng) {
            self.executor.write(self.ids.rng, &[self.seed as u32, (self.seed >> 32) as u32, steps])?;
        }
        self.executor.write(self.ids.hyper, &self.adam.hyper(f64::from(learning_rate), u64::from(steps)))?;
        self.executor.run()?;
        self.inference.set_steps(steps + 1);
        Ok(())
    }

    /// Waits for the last step where it gains nothing to go ahead of it: a CPU adapter has no time of its own, and takes a step
    /// faster while nobody else's thread stirs (docs/rejected.md). Comes after [`Session::train_step`] in a loop.
    ///
    /// # Errors
    /// [`Error::Device`] if the device failed.
    pub fn pace(&self) -> Result<()> {
        if self.context().limits().is_cpu { self.context().wait() } else { Ok(()) }
    }

    /// Waits for the last step and reads its losses.
    ///
    /// # Errors
    /// [`Error::Device`] if the device failed.
    pub fn report(&mut self) -> Result<StepReport> {
        let values = self.executor.read::<f32>(self.ids.report)?;
        let [skipped, _] = self.counters()?;
        let &[loss, cross_entropy, lovasz, ref own @ .., gradient_norm, finite, loss_scale] = values.as_slice() else {
            return Err(Error::Device(format!("the step's report has {} values", values.len())));
        };
        let terms = Terms::of(self.ids.terms.iter().copied().zip(own.iter().copied()));
        let finite = finite == 1.0;
        Ok(StepReport { loss, cross_entropy, lovasz, terms, gradient_norm, finite, loss_scale, skipped })
    }

    /// Skipped steps, and good ones since the scale of the loss last changed.
    fn counters(&self) -> Result<[u32; 2]> {
        let counters = self.executor.read::<u32>(self.ids.counters)?;
        counters.as_slice().try_into().map_err(|_| Error::Device(format!("there are {} counters", counters.len())))
    }

    fn loss_scale(&self) -> Result<f32> {
        Ok(self.executor.read::<f32>(self.ids.scale)?.first().copied().unwrap_or(1.0))
    }

    /// Without `loss_scale`, or where this precision needs none, the scale is that of a first step.
    fn set_scaling(&self, skipped: u32, loss_scale: Option<LossScale>) -> Result<()> {
        let start = LossScale { scale: self.precision.loss_scaling().start, good_steps: 0 };
        let LossScale { scale, good_steps } = loss_scale.filter(|_| self.precision == Precision::F16).unwrap_or(start);
        self.executor.write(self.ids.scale, &[scale])?;
        self.executor.write(self.ids.counters, &[skipped, good_steps])
    }

    /// Reads the whole state back.
    ///
    /// # Errors
    /// [`Error::Device`] if the device failed.
    pub fn export(&self) -> Result<TrainingState> {
        let moments = self.inference.memory().read_block(Block::Moments)?;
        let (first, second) = moments.split_at(moments.len() / 2);
        let [skipped, good_steps] = self.counters()?;
        let loss_scale = match self.precision {
            Precision::F32 => None,
            Precision::F16 => Some(LossScale { scale: self.loss_scale()?, good_steps }),
        };
        Ok(TrainingState {
            parameters: self.inference.export()?,
            first_moments: self.inference.named(first),
            second_moments: self.inference.named(second),
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
        let inference = &mut self.inference;
        let moments = [inference.flat(&state.first_moments)?, inference.flat(&state.second_moments)?].concat();
        inference.import(&state.parameters, state.steps)?;
        inference.memory().write_block(Block::Moments, &moments)?;
        self.set_scaling(state.skipped, state.loss_scale)
    }

    /// Times each op of a training step on the last batch. Parameters change, so use a session that is thrown away.
    ///
    /// # Errors
    /// [`Error::Device`] if the device failed.
    pub fn profile(&mut self) -> Result<Vec<OpProfile>> {
        self.executor.profile()
    }

    /// Seconds that the device is at a training step on the last batch, by [`Executor::device_secs`]. Parameters change as in
    /// [`Session::profile`].
    ///
    /// # Errors
    /// [`Error::Device`] if the device failed.
    pub fn device_secs(&mut self) -> Result<Option<f64>> {
        self.executor.device_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::DeviceChoice;
    use crate::graph::plan::Plan;
    use crate::graph::tune::tune;
    use crate::graph::{Grouping, KernelLimits};
    use crate::models::ARCHITECTURES;

    /// That of the preset `demo`.
    fn model() -> ModelConfig {
        ModelConfig::of(ARCHITECTURES[0], 1)
    }

    fn plan(shape: (usize, usize, [usize; 3]), limits: &KernelLimits) -> Result<Preflight> {
        plan_in(Precision::F32, shape, limits)
    }

    fn plan_in(
        precision: Precision,
        (batch, frames, size): (usize, usize, [usize; 3]),
        limits: &KernelLimits,
    ) -> Result<Preflight> {
        preflight(&model(), &BatchShape { batch, frames, size }, &step_in(precision), limits)
    }

    fn step_in(precision: Precision) -> StepConfig {
        let weights = LossWeights { cross_entropy: 1.0, lovasz: 1.0, terms: Terms::of([("kl", 0.005)]) };
        StepConfig { precision, weights, weight_decay: 0.0, clip_norm: Some(1.0), memory_budget: None }
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
    fn activations_in_f16_take_half_and_need_an_adapter_that_has_them() {
        let carla = (1, 16, [128, 128, 8]);
        let limits = KernelLimits { has_f16: true, max_buffer_bytes: 1 << 34, ..KernelLimits::portable() };
        let [single, half] =
            [Precision::F32, Precision::F16].map(|precision| plan_in(precision, carla, &limits).unwrap().peak_bytes);
        assert!((0.45..0.65).contains(&(half as f64 / single as f64)), "{half} bytes instead of {single}");

        let why = plan_in(Precision::F16, carla, &KernelLimits::portable()).unwrap_err();
        assert_eq!(why.exit_code(), 4, "{why}");
        assert!(why.to_string().contains("train.precision") && why.to_string().contains("--device"), "{why}");
    }

    #[test]
    fn launches_share_dispatches_and_large_tensors_live_no_longer() {
        let gpu = KernelLimits {
            max_storage_binding_bytes: (1 << 31) - 4,
            max_buffer_bytes: 1 << 32,
            min_subgroup_lanes: 32,
            ..KernelLimits::portable()
        };
        // Bindings that hold a window of the frames only, too.
        let cpu = KernelLimits { is_cpu: true, max_buffer_bytes: 1 << 31, ..KernelLimits::portable() };
        for (limits, most) in [(gpu, 0.5), (cpu, 0.9)] {
            let shape = BatchShape { batch: 1, frames: 64, size: [128, 128, 8] };
            let [training, ..] = graphs(&model(), &shape, &step_in(Precision::F32)).unwrap();
            let [apart, together] = [Grouping::Off, Grouping::Small]
                .map(|grouping| Plan::new(&training, &KernelLimits { grouping, ..limits.clone() }).unwrap());
            let (few, many) = (together.steps.len(), apart.steps.len());
            assert!((few as f64) < most * many as f64, "{few} dispatches instead of {many}");
            let (more, less) = (together.arenas.iter().sum::<usize>(), apart.arenas.iter().sum::<usize>());
            assert!(more as f64 <= 1.01 * less as f64, "{more} bytes instead of {less}");
        }
    }

    #[test]
    fn a_gpu_shares_the_dispatches_of_kernels_that_then_give_the_same() {
        let context = Context::open(&DeviceChoice::Best).unwrap();
        let shape = BatchShape { batch: 1, frames: 4, size: [16, 16, 4] };
        for precision in [Precision::F32, Precision::F16] {
            let graphs = graphs(&model(), &shape, &step_in(precision)).unwrap();
            let own = context.limits().clone();
            let untried = KernelLimits { is_cpu: false, grouping: Grouping::Tried, ..own };
            let tuning = tune(&context, &graphs, &untried, |_, _| false).unwrap();
            let tried = KernelLimits { tuning, ..untried.clone() };
            let dispatches = |grouping, limits: &KernelLimits| -> Vec<usize> {
                let limits = KernelLimits { grouping, ..limits.clone() };
                graphs.iter().map(|graph| Plan::new(graph, &limits).unwrap().steps.len()).collect()
            };
            assert_eq!(dispatches(Grouping::Tried, &untried), dispatches(Grouping::Off, &tried));
            assert_eq!(dispatches(Grouping::Tried, &tried), dispatches(Grouping::Small, &tried));
        }
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
