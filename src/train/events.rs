//! What a trainer is told and what it tells: CPU data only.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

use super::checkpoint::Best;
use super::metrics::{Evaluation, Scores};
use crate::Error;

/// An order to the trainer; it obeys between two steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Wait before the next step.
    Pause,
    /// Go on.
    Resume,
    /// Run one step, then wait.
    Step,
    /// Write a checkpoint now.
    Save,
    /// Validate now.
    Validate,
    /// Reconstruct this clip of the validation split now and after every validation.
    Reconstruct {
        /// Number of the clip in its split.
        clip: usize,
    },
    /// Write a checkpoint and end.
    Stop,
}

/// Scalars of a training step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// Steps done, this one included.
    pub step: u32,
    /// Seconds since training started or was resumed.
    pub elapsed_secs: f64,
    /// Steps a second since the metrics before.
    pub steps_per_sec: f64,
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// Weighted sum of the parts.
    #[serde(deserialize_with = "null_is_nan")]
    pub loss: f32,
    /// Cross entropy.
    #[serde(deserialize_with = "null_is_nan")]
    pub cross_entropy: f32,
    /// Lovasz-softmax.
    #[serde(deserialize_with = "null_is_nan")]
    pub lovasz: f32,
    /// KL divergence.
    #[serde(deserialize_with = "null_is_nan")]
    pub kl: f32,
    /// Norm of the gradient before clipping.
    #[serde(deserialize_with = "null_is_nan")]
    pub gradient_norm: f32,
    /// Steps skipped since the start of the run because something was not finite.
    pub skipped: u32,
}

/// JSON has no NaN: it is written as null.
fn null_is_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f32, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f32::NAN))
}

/// Scores on the validation clips.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ValidationMetrics {
    /// Steps done before.
    pub step: u32,
    /// Seconds that the validation took.
    pub seconds: f64,
    /// Whether the mIoU is the best of the run so far.
    pub is_best: bool,
    /// The scores.
    pub evaluation: Evaluation,
}

/// A clip beside its reconstruction. Arrays are `[T, X, Y, Z]` in C order.
#[derive(Debug, Clone, PartialEq)]
pub struct ReconstructedClip {
    /// Steps done before.
    pub step: u32,
    /// Number of the clip in its split.
    pub clip: usize,
    /// Name of its sequence.
    pub sequence: String,
    /// Number of its first frame within the sequence.
    pub first_frame: usize,
    /// T.
    pub frames: usize,
    /// X, Y, Z.
    pub size: [usize; 3],
    /// Classes in the data.
    pub truth: Vec<u8>,
    /// Whether the voxel was observed.
    pub observed: Vec<bool>,
    /// Classes according to the model.
    pub labels: Vec<u8>,
    /// Scores of each frame, `[T]`.
    pub scores: Vec<Scores>,
}

/// How a run is set up, known before its first step.
#[derive(Debug, Clone, PartialEq)]
pub struct Started {
    /// The run folder.
    pub folder: PathBuf,
    /// The adapter's name.
    pub adapter: String,
    /// Number of parameters.
    pub parameters: usize,
    /// Planned device memory, bytes.
    pub peak_bytes: usize,
    /// Floating-point operations of a step.
    pub flops_per_step: u64,
    /// Steps done before (not 0 when resumed).
    pub step: u32,
    /// Steps of the whole run.
    pub steps: u32,
    /// Clips to train on.
    pub train_clips: usize,
    /// Clips of a validation.
    pub validation_clips: usize,
    /// X, Y, Z.
    pub size: [usize; 3],
}

/// How a run ended without an error.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// Steps done.
    pub step: u32,
    /// Ended by [`Command::Stop`], or because nobody listens any more, rather than by reaching its last step.
    pub stopped: bool,
    /// The best model.
    pub best: Option<Best>,
    /// The last checkpoint.
    pub checkpoint: Option<PathBuf>,
}

/// What the trainer reports.
#[derive(Debug, Clone)]
pub enum Event {
    /// What it is doing before the first step.
    Preparing(String),
    /// The first step comes next.
    Started(Started),
    /// A step is done. Not every step is reported; those at multiples of `train.log_every` are, if the consumer keeps up.
    Step(StepMetrics),
    /// A validation is done.
    Validation(ValidationMetrics),
    /// The clip that was asked for. Left out if the consumer does not keep up.
    Reconstruction(Box<ReconstructedClip>),
    /// A checkpoint was written.
    Checkpoint {
        /// Steps done.
        step: u32,
        /// The model file.
        path: PathBuf,
        /// Whether it holds the best model so far.
        is_best: bool,
    },
    /// It waits for [`Command::Resume`] (true), or goes on (false).
    Paused(bool),
    /// Something is odd, but training goes on.
    Warning(String),
    /// The run has ended well; nothing comes after.
    Finished(Finished),
    /// The run has ended with an error; nothing comes after.
    Failed(Error),
}
