//! The device side of training.

use std::sync::Arc;

use crate::data::Batch;
use crate::gpu::Context;
use crate::graph::KernelLimits;
use crate::models::sep4d::ModelConfig;
use crate::{Error, Result};

/// The shape of every batch of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchShape {
    /// B, clips.
    pub batch: usize,
    /// T, frames of a clip.
    pub frames: usize,
    /// X, Y, Z.
    pub size: [usize; 3],
}

/// What a session needs, known before anything is allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preflight {
    /// Number of parameters.
    pub parameters: usize,
    /// Device memory, bytes.
    pub peak_bytes: usize,
    /// Largest range bound to a kernel, bytes.
    pub largest_binding: usize,
    /// Largest tensor, bytes.
    pub largest_tensor: usize,
    /// Floating-point operations of one training step.
    pub flops_per_step: u64,
}

/// Plans a session without a device.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Memory`] if the shapes or the limits do not fit.
pub fn preflight(_model: &ModelConfig, _shape: &BatchShape, _limits: &KernelLimits) -> Result<Preflight> {
    Err(absent())
}

/// Weights of the loss's parts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossWeights {
    /// Of the cross entropy.
    pub cross_entropy: f32,
    /// Of the Lovasz-softmax.
    pub lovasz: f32,
    /// Of the KL divergence.
    pub kl: f32,
}

/// Settings of the optimiser and the loss.
#[derive(Debug, Clone, PartialEq)]
pub struct OptimiserConfig {
    /// Weight decay.
    pub weight_decay: f32,
    /// Largest norm of the gradient.
    pub clip_norm: Option<f32>,
    /// The loss's weights.
    pub weights: LossWeights,
}

/// Scalars of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Weighted sum of the parts.
    pub loss: f32,
    /// Cross entropy.
    pub cross_entropy: f32,
    /// Lovasz-softmax.
    pub lovasz: f32,
    /// KL divergence.
    pub kl: f32,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f32,
    /// Whether all of it was finite.
    pub finite: bool,
    /// Steps skipped since the start of the run because something was not finite.
    pub skipped: u32,
}

/// A batch put through the model in evaluation mode.
#[derive(Debug, Clone, PartialEq)]
pub struct Reconstruction {
    /// Predicted classes, `[N, X, Y, Z]` in C order.
    pub labels: Vec<u8>,
    /// `[N, K, K]`: row truth, column prediction, observed voxels only.
    pub confusion: Vec<u64>,
}

/// The distribution of one latent plane.
#[derive(Debug, Clone, PartialEq)]
pub struct Latent {
    /// `xy`, `tx` and so on.
    pub name: String,
    /// `[B, A1, A2, C]`.
    pub shape: Vec<usize>,
    /// Means.
    pub mu: Vec<f32>,
    /// Logarithms of the variances.
    pub logvar: Vec<f32>,
}

/// A tensor with its name, in PyTorch's layout.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// Dotted path.
    pub name: String,
    /// Extents.
    pub shape: Vec<usize>,
    /// Values in C order.
    pub values: Vec<f32>,
}

/// Everything that a session carries from step to step.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingState {
    /// Parameters.
    pub parameters: Vec<NamedTensor>,
    /// Adam's first moments.
    pub first_moments: Vec<NamedTensor>,
    /// Adam's second moments.
    pub second_moments: Vec<NamedTensor>,
    /// Steps so far, skipped ones included: the random numbers' counter.
    pub steps: u32,
    /// Steps that changed the parameters: Adam's t.
    pub taken_steps: u32,
    /// Steps skipped.
    pub skipped: u32,
}

/// A model on a device.
#[derive(Debug)]
pub struct Session {
    steps: u32,
}

fn absent() -> Error {
    Error::Device("this build has no device session".into())
}

impl Session {
    /// Puts a freshly initialised model on the device.
    ///
    /// # Errors
    /// [`Error::Memory`] if it does not fit, [`Error::Device`] if the device fails.
    pub fn new(
        _context: &Arc<Context>,
        _model: &ModelConfig,
        _shape: &BatchShape,
        _optimiser: &OptimiserConfig,
        _class_weights: &[f32],
        _seed: u64,
    ) -> Result<Session> {
        Err(absent())
    }

    /// Enqueues one step.
    ///
    /// # Errors
    /// [`Error::Device`] if the device fails.
    pub fn train_step(&mut self, _batch: &Batch, _learning_rate: f32) -> Result<()> {
        Err(absent())
    }

    /// Waits for the last step and reads its scalars.
    ///
    /// # Errors
    /// [`Error::Device`] if the device fails.
    pub fn report(&mut self) -> Result<StepReport> {
        Err(absent())
    }

    /// Steps so far.
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// Puts a batch through the model in evaluation mode.
    ///
    /// # Errors
    /// [`Error::Device`] if the device fails.
    pub fn reconstruct(&mut self, _batch: &Batch) -> Result<Reconstruction> {
        Err(absent())
    }

    /// The latent planes of a batch.
    ///
    /// # Errors
    /// [`Error::Device`] if the device fails.
    pub fn latents(&mut self, _batch: &Batch) -> Result<Vec<Latent>> {
        Err(absent())
    }

    /// Reads everything that a checkpoint holds.
    ///
    /// # Errors
    /// [`Error::Device`] if the device fails.
    pub fn export(&self) -> Result<TrainingState> {
        Err(absent())
    }

    /// Restores what [`Session::export`] gave.
    ///
    /// # Errors
    /// [`Error::Shape`] if it belongs to another model.
    pub fn import(&mut self, _state: &TrainingState) -> Result<()> {
        Err(absent())
    }
}
