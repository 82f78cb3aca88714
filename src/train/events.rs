//! What a trainer is told and what it tells: CPU data only.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use super::checkpoint::Best;
use super::inference::Latent;
pub use super::metrics::ClipScores;
use super::metrics::{Confusion, Evaluation, Scores};
use crate::Error;
use crate::data::{ClassSet, Grid, Pose};
pub use crate::layers::likely::Likely;
use crate::models::Terms;

/// An order to the trainer; it obeys between two steps.
#[derive(Debug, Clone, PartialEq)]
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
    /// Decode latents. Of several such orders that wait only the last is carried out.
    Decode(Arc<DecodeRequest>),
    /// Write a checkpoint and end.
    Stop,
    /// Lose the device, as a driver that crashes would.
    #[cfg(test)]
    LoseDevice,
}

impl Command {
    /// Whether an order that still waits is pointless once this one waits too.
    pub(super) fn replaces(&self, waiting: &Command) -> bool {
        match (self, waiting) {
            (Command::Decode(_), Command::Decode(_)) => true,
            (Command::Reconstruct { clip }, Command::Reconstruct { clip: other }) => clip == other,
            _ => false,
        }
    }
}

/// Latents of one clip to decode.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodeRequest {
    /// Comes back with the answer.
    pub id: u64,
    /// The values of each, in the order and of the extents of [`ReconstructedClip::latents`].
    pub latents: Vec<Vec<f32>>,
}

/// Scalars of a training step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// Steps done, this one included.
    pub step: u32,
    /// Seconds of training up to this step, those before a stop included.
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
    /// The model's own losses, before their weights.
    #[serde(flatten)]
    pub terms: Terms,
    /// Norm of the gradient before clipping.
    #[serde(deserialize_with = "null_is_nan")]
    pub gradient_norm: f32,
    /// What the loss was multiplied by before it was differentiated; 1 unless `train.precision` is f16.
    #[serde(default = "unscaled")]
    pub loss_scale: f32,
    /// Steps skipped since the start of the run because something was not finite.
    pub skipped: u32,
}

impl StepMetrics {
    /// The columns of [`StepMetrics::csv`].
    pub fn columns() -> String {
        let own = Terms::columns();
        format!(
            "elapsed_secs,steps_per_sec,learning_rate,loss,cross_entropy,lovasz{own},gradient_norm,loss_scale,skipped"
        )
    }

    /// All but the step, separated by commas.
    pub fn csv(&self) -> String {
        format!(
            "{},{},{},{},{},{}{},{},{},{}",
            self.elapsed_secs,
            self.steps_per_sec,
            self.learning_rate,
            self.loss,
            self.cross_entropy,
            self.lovasz,
            self.terms.csv(),
            self.gradient_norm,
            self.loss_scale,
            self.skipped
        )
    }
}

/// In rows written before there was a scale.
fn unscaled() -> f32 {
    1.0
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
    /// The counts that [`Evaluation::total`] was scored from; without classes in rows written before they were kept.
    #[serde(default)]
    pub confusion: Confusion,
    /// Each clip by itself; none in a row that was read from a file.
    #[serde(skip)]
    pub clips: Vec<ClipScores>,
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
    /// By how much the number grows from one frame to the next.
    pub frame_step: usize,
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
    /// What the model makes of each voxel; its first class is the one in `labels`.
    pub likely: Vec<Likely>,
    /// Scores of each frame, `[T]`.
    pub scores: Vec<Scores>,
    /// What each frame is scored from, `[T]`.
    pub confusion: Vec<Confusion>,
    /// What lies between encoder and decoder, in the model's order.
    pub latents: Vec<Latent>,
    /// When each frame was taken, `[T]`.
    pub times_secs: Vec<f64>,
    /// The motion from each frame into the clip's middle frame, `[T]`, if the data set has poses.
    pub poses: Option<Vec<Pose>>,
    /// Seconds that all this took.
    pub seconds: f64,
}

/// The answer to a [`DecodeRequest`]. Arrays are `[T, X, Y, Z]` in C order.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodedClip {
    /// That of the request.
    pub id: u64,
    /// T.
    pub frames: usize,
    /// X, Y, Z.
    pub size: [usize; 3],
    /// Classes according to the model.
    pub labels: Vec<u8>,
    /// What the model makes of each voxel.
    pub likely: Vec<Likely>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// What is being done before the first step or the first picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preparing {
    /// A phrase such as `reading the data set`.
    pub what: String,
    /// How many parts of it are done.
    pub done: usize,
    /// How many parts it has; 0 if nobody knows.
    pub total: usize,
    /// How long the others will take, if that can be told.
    pub left: Option<Duration>,
}

impl Preparing {
    /// Of unknown length.
    pub(super) fn new(what: impl Into<String>) -> Self {
        Preparing { what: what.into(), done: 0, total: 0, left: None }
    }
}

impl fmt::Display for Preparing {
    /// `building the kernels for llvmpipe, 53 of 161, about 7 s left`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if self.total > 0 {
            write!(f, ", {} of {}", self.done, self.total)?;
        }
        match self.left {
            Some(left) => write!(f, ", about {} s left", left.as_secs_f64().ceil()),
            None => Ok(()),
        }
    }
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
    /// What the data were recognised as, which id is free and what counts as observed.
    pub data: String,
    /// T, frames of a clip.
    pub frames: usize,
    /// X, Y, Z.
    pub size: [usize; 3],
    /// The voxels' place and size.
    pub grid: Grid,
    /// What the labels mean.
    pub classes: Arc<ClassSet>,
}

/// A model that is shown without being trained, known before anything is asked of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Showing {
    /// The folder that was asked for.
    pub folder: PathBuf,
    /// The model file.
    pub checkpoint: PathBuf,
    /// Steps it was trained for.
    pub step: u32,
    /// The adapter's name.
    pub adapter: String,
    /// Number of parameters.
    pub parameters: usize,
    /// Planned device memory, bytes.
    pub peak_bytes: usize,
    /// Clips of the validation split.
    pub clips: usize,
    /// T, frames of a clip.
    pub frames: usize,
    /// X, Y, Z.
    pub size: [usize; 3],
    /// The voxels' place and size.
    pub grid: Grid,
    /// What the labels mean.
    pub classes: Arc<ClassSet>,
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
    Preparing(Preparing),
    /// The first step comes next.
    Started(Started),
    /// The model is ready to be looked at; nothing is trained.
    Showing(Showing),
    /// A step is done. Not every step is reported; those at multiples of `train.log_every` are, if the consumer keeps up.
    Step(StepMetrics),
    /// A validation is done.
    Validation(ValidationMetrics),
    /// The clip that was asked for. Those that follow a validation unasked are left out if the consumer does not keep up.
    Reconstruction(Box<ReconstructedClip>),
    /// The latents that were to be decoded.
    Decoded(Box<DecodedClip>),
    /// Device memory, told now and then. Left out if the consumer does not keep up.
    Memory {
        /// What the plan needs.
        planned_bytes: u64,
        /// What the driver has given out, textures and staging included, where the backend counts it.
        used_bytes: Option<u64>,
    },
    /// The device failed, what was learnt was saved, and the run goes on from there on a device opened anew. Metrics of
    /// later steps than this one are to be forgotten: the steps come again.
    Recovered {
        /// Steps done.
        step: u32,
        /// What had happened.
        why: String,
    },
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
