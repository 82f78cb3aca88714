//! The complete configuration of a run: presets, file, `--set`, in this order.
//!
//! A key is documented once, where it is declared; the command line's help and the comments of a run's `config.toml` come
//! from there.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::schedule::{Decay, Schedule};
use super::session::{LossWeights, Precision, StepConfig};
use crate::data::{ClassSet, ClassWeights, DatasetOptions, Split, Unobserved};
use crate::gpu::DeviceChoice;
use crate::layers::segmentation_loss::MAX_CLASSES;
use crate::models::{
    ALIGN, ARCHITECTURE, ARCHITECTURES, BY_POSES, BY_REGISTRATION, FRAMES, LossTerm, ModelConfig, OF_THE_DATA, Terms,
};
use crate::{Error, Result};

mod resolve;
mod suggest;

/// No clip takes its frames further apart.
const LARGEST_STRIDE: usize = 1000;
/// No batch has more clips and no step more batches, nor are more batches read ahead.
const LARGEST_BATCH: usize = 1024;
/// A moving average that keeps more of itself in a step would never move in f32.
const MOST_KEPT: f64 = 0.999_999;

/// Declares a section's struct and the table of its keys from the same doc comments.
macro_rules! section {
    ($(#[doc = $about:literal])+ $section:literal $name:ident { $($(#[doc = $doc:literal])+ $field:ident: $type:ty,)+ }) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name { $($(#[doc = $doc])+ pub $field: $type,)+ }

        impl $name {
            const KEYS: &'static [(&'static str, &'static str)] =
                &[$((concat!($section, ".", stringify!($field)), concat!($($doc),+)),)+];
        }
    };
}

section! {
    /// What is trained and validated on.
    "data" DataConfig {
        /// Folder of a data set, in any format of docs/datasets.md.
        root: PathBuf,
        /// T, frames of a clip: 2 to 64.
        frames: usize,
        /// Middle part of the grid to use, as [X, Y, Z] in even numbers of voxels; [] for all of it.
        crop: Vec<usize>,
        /// k: clips take every k-th frame of a sequence, 1 to 1000. They begin at every frame all the same, and overlap.
        stride: usize,
        /// Names of the sequences to use, such as ["Town01_Light"]; [] for all. A split with none of them is used whole.
        sequences: Vec<String>,
        /// Voxels that nobody saw are trained as free space ("free") or left out of the loss ("ignore"); metrics leave them out.
        unobserved: Unobserved,
        /// Split to train on: train, val or test.
        train_split: Split,
        /// Split to validate on: train, val or test.
        val_split: Split,
        /// Flip and turn clips at random.
        augment: bool,
        /// Held-out clips of a validation, evenly spaced over the split.
        validation_clips: usize,
    }
}

section! {
    /// How it is trained.
    "train" TrainConfig {
        /// Preset that the other keys' defaults come from: tiny, demo, base or paper.
        preset: Preset,
        /// Length of the run, optimiser steps.
        steps: usize,
        /// B, clips of a batch.
        batch: usize,
        /// Batches of a step, whose mean gradient is taken: many clips in the memory of few.
        accumulate: usize,
        /// Activations in f32, or in f16 for half of the memory.
        precision: Precision,
        /// Adam's learning rate at the start.
        learning_rate: f64,
        /// Steps over which the learning rate rises at the start; 0 for none.
        warmup: usize,
        /// How the learning rate falls: steps (by a factor at the milestones) or cosine (to 0 at the end).
        schedule: Decay,
        /// Fractions of the run at which the learning rate drops.
        milestones: Vec<f64>,
        /// Factor by which it drops.
        decay: f64,
        /// Decoupled weight decay, which makes Adam AdamW.
        weight_decay: f64,
        /// Largest norm of the gradient; 0 for no limit.
        clip_norm: f64,
        /// What the moving average of the parameters keeps of itself in a step, such as 0.999; it is what is validated and saved as the
        /// model. 0 for none.
        ema: f64,
        /// Weight of the cross entropy in the loss.
        cross_entropy: f64,
        /// How much a class counts in the cross entropy: the cube root of its rarity (cube_root), or as much as any (none).
        class_weights: ClassWeights,
        /// Weight of the Lovasz-softmax in the loss.
        lovasz: f64,
        /// Weight of the KL divergence in the loss.
        kl: f64,
        /// Weight of the embedding loss of a codebook in the loss.
        embedding: f64,
        /// Seed of initialisation, shuffling, augmentation and sampling.
        seed: u64,
        /// Batches read ahead.
        prefetch: usize,
        /// Steps between two lines of metrics.
        log_every: usize,
        /// Steps between two validations; 0 for none at all.
        validate_every: usize,
        /// Steps between two checkpoints; 0 for one at the end only. The best model and a stopped run are saved anyway.
        checkpoint_every: usize,
        /// Checkpoints to keep beside the best one, at least two.
        keep_last: usize,
        /// The run ends when this many steps since it began or was resumed had to be skipped because of NaN or infinity.
        max_skipped: usize,
        /// Device memory that training may plan for, GiB; what exceeds it is recomputed. 0 for no limit.
        memory_budget: f64,
        /// Adapter: best, its number, or a part of its name (see `sep4d devices`).
        device: String,
    }
}

section! {
    /// Where the results go.
    "output" OutputConfig {
        /// Run folder; empty for the next free one below runs/.
        dir: PathBuf,
    }
}

/// Everything that determines a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// What is trained and validated on.
    pub data: DataConfig,
    /// The kind of model and its widths.
    pub model: ModelConfig,
    /// How it is trained.
    pub train: TrainConfig,
    /// Where the results go.
    pub output: OutputConfig,
}

/// A complete set of defaults.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Seconds on any machine; for tests.
    Tiny,
    /// Minutes on a CPU.
    #[default]
    Demo,
    /// The paper's design at half its decoder width.
    Base,
    /// The paper's.
    Paper,
}

impl Preset {
    /// All presets, the smallest first.
    pub const ALL: [Preset; 4] = [Preset::Tiny, Preset::Demo, Preset::Base, Preset::Paper];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Preset::Tiny => "tiny",
            Preset::Demo => "demo",
            Preset::Base => "base",
            Preset::Paper => "paper",
        }
    }
}

impl std::str::FromStr for Preset {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Preset::ALL
            .into_iter()
            .find(|preset| preset.name() == name)
            .ok_or_else(|| Error::Usage(format!("there is no preset {name:?}; choose tiny, demo, base or paper")))
    }
}

impl RunConfig {
    /// The preset's defaults for clips of `frames` frames (the preset's own number if `None`).
    pub fn preset(preset: Preset, frames: Option<usize>) -> RunConfig {
        let (frames, steps, learning_rate) = match preset {
            Preset::Tiny => (frames.unwrap_or(2), 40, 3e-3),
            Preset::Demo => (frames.unwrap_or(4), 2_500, 3e-3),
            Preset::Base => (frames.unwrap_or(4), 20_000, 1e-3),
            Preset::Paper => (frames.unwrap_or(16), 200_000, 1e-3),
        };
        let small = matches!(preset, Preset::Tiny | Preset::Demo);
        RunConfig {
            data: DataConfig {
                root: PathBuf::new(),
                frames,
                crop: Vec::new(),
                stride: 1,
                sequences: Vec::new(),
                unobserved: Unobserved::Free,
                train_split: Split::Train,
                val_split: Split::Val,
                augment: preset == Preset::Base,
                validation_clips: if small { 8 } else { 64 },
            },
            model: ModelConfig::of(ARCHITECTURES[0], preset as usize),
            train: TrainConfig {
                preset,
                steps,
                batch: if small || frames > 8 { 1 } else { 2 },
                accumulate: 1,
                precision: Precision::F32,
                learning_rate,
                warmup: 0,
                schedule: Decay::Steps,
                milestones: vec![0.5, 0.6, 0.7, 0.8, 0.9],
                decay: 0.7,
                weight_decay: 0.0,
                // A step sees one clip, and a single odd one moves the weights too far.
                clip_norm: if preset == Preset::Demo { 1.0 } else { 0.0 },
                ema: 0.0,
                cross_entropy: 1.0,
                class_weights: ClassWeights::CubeRoot,
                lovasz: 1.0,
                kl: 0.005,
                embedding: 1.0,
                seed: 0,
                prefetch: 2,
                log_every: if small { 10 } else { 50 },
                validate_every: if small { (steps / 5).max(1) } else { steps / 100 },
                checkpoint_every: if small { (steps / 5).max(1) } else { 500 },
                keep_last: 2,
                max_skipped: 20,
                memory_budget: 0.0,
                device: "best".into(),
            },
            output: OutputConfig { dir: PathBuf::new() },
        }
    }

    /// The defaults of `preset`, as [`RunConfig::preset`] has them, for the kind of model of this configuration.
    ///
    /// # Errors
    /// [`Error::Usage`] if a path is not UTF-8.
    pub fn like(&self, preset: Preset, frames: Option<usize>) -> Result<RunConfig> {
        RunConfig::preset(preset, frames).with_values([(ARCHITECTURE, self.model.architecture().name.into())])
    }

    /// Every key with its documentation, in the order of the file; those of all kinds of models.
    pub fn keys() -> impl Iterator<Item = (&'static str, &'static str)> {
        let fixed = |keys: &'static [(&str, &str)]| keys.iter().map(|(key, doc)| (*key, doc.trim()));
        let before = fixed(DataConfig::KEYS).chain(ModelConfig::keys());
        before.chain(fixed(TrainConfig::KEYS)).chain(fixed(OutputConfig::KEYS))
    }

    /// Checks every value that its type does not confine.
    ///
    /// # Errors
    /// [`Error::Usage`] with one sentence about the first key that is wrong.
    pub fn validate(&self) -> Result<()> {
        let (data, train) = (&self.data, &self.train);
        let positive = [
            ("data.stride", data.stride, "a clip takes one frame after another"),
            ("train.steps", train.steps, "a run needs at least one step"),
            ("train.batch", train.batch, "a batch needs at least one clip"),
            ("train.accumulate", train.accumulate, "a step needs at least one batch"),
            ("train.prefetch", train.prefetch, "at least one batch must be read ahead"),
            ("train.log_every", train.log_every, "metrics come every so many steps"),
            ("train.keep_last", train.keep_last, "at least one checkpoint must be kept"),
            ("train.max_skipped", train.max_skipped, "a run ends after so many skipped steps"),
        ];
        for (key, value, why) in positive {
            if value == 0 {
                return Err(Error::Usage(format!("{key} is 0, but {why}; set it to 1 or more")));
            }
        }
        let limits = [
            ("data.stride", data.stride, LARGEST_STRIDE),
            ("train.batch", train.batch, LARGEST_BATCH),
            ("train.accumulate", train.accumulate, LARGEST_BATCH),
            ("train.prefetch", train.prefetch, LARGEST_BATCH),
        ];
        for (key, value, most) in limits {
            if value > most {
                return Err(Error::Usage(format!("{key} is {value}; set it to at most {most}")));
            }
        }
        if !FRAMES.contains(&data.frames) {
            let (least, most) = (FRAMES.start(), FRAMES.end());
            return Err(Error::Usage(format!(
                "data.frames is {}, but models take clips of {least} to {most} frames; set it to one of these",
                data.frames
            )));
        }
        for (key, path) in [("data.root", &data.root), ("output.dir", &self.output.dir)] {
            if path.to_str().is_none() {
                return Err(Error::Usage(format!(
                    "{key} is {}, which is not UTF-8 and cannot be kept in a configuration; rename the folder or link to it",
                    path.display()
                )));
            }
        }
        if !(data.crop.is_empty() || data.crop.len() == 3 && data.crop.iter().all(|side| *side > 0 && side % 2 == 0)) {
            return Err(Error::Usage(format!(
                "data.crop is {:?}, but it must be three even numbers of voxels such as [64, 64, 8], or [] for the whole grid",
                data.crop
            )));
        }
        if train.validate_every > 0 && data.validation_clips == 0 {
            return Err(Error::Usage(
                "data.validation_clips is 0, but a validation needs clips; set it to 1 or more, or train.validate_every to 0"
                    .into(),
            ));
        }
        self.model.validate()?;
        if train.steps > u32::MAX as usize || train.seed > i64::MAX as u64 {
            return Err(Error::Usage(format!(
                "train.steps must be at most {} and train.seed at most {}",
                u32::MAX,
                i64::MAX
            )));
        }
        if train.warmup > train.steps {
            return Err(Error::Usage(format!(
                "train.warmup is {} and train.steps is {}; let the learning rate rise over no more steps than there are",
                train.warmup, train.steps
            )));
        }
        let ranges = [
            ("train.learning_rate", train.learning_rate, f64::MIN_POSITIVE, 1.0),
            ("train.decay", train.decay, f64::MIN_POSITIVE, 1.0),
            ("train.weight_decay", train.weight_decay, 0.0, 1.0),
            ("train.clip_norm", train.clip_norm, 0.0, 1e30),
            ("train.ema", train.ema, 0.0, MOST_KEPT),
            ("train.cross_entropy", train.cross_entropy, 0.0, 1e6),
            ("train.lovasz", train.lovasz, 0.0, 1e6),
            ("train.kl", train.kl, 0.0, 1e6),
            ("train.embedding", train.embedding, 0.0, 1e6),
            ("train.memory_budget", train.memory_budget, 0.0, 1e6),
        ];
        let milestones = train.milestones.iter().map(|&m| ("train.milestones", m, 0.0, 1.0));
        for (key, value, low, high) in ranges.into_iter().chain(milestones) {
            if !(low..=high).contains(&value) {
                let low = if low > 0.0 { "above 0" } else { "0 or more" };
                return Err(Error::Usage(format!("{key} has {value:?}; set it to {low} and at most {high:?}")));
            }
        }
        Ok(())
    }

    /// Takes from the data what was not given: `model.classes`, and whether poses are there to align frames by.
    ///
    /// # Errors
    /// [`Error::Usage`] if another number was given, the data have more classes than can be trained on, or poses are needed that they
    /// lack.
    pub fn settle(&mut self, data: &ClassSet, has_poses: bool) -> Result<()> {
        let classes = data.len();
        if classes > MAX_CLASSES {
            return Err(Error::Usage(format!(
                "{} has {classes} classes, but at most {MAX_CLASSES} can be trained on; merge some",
                data.name
            )));
        }
        if ![OF_THE_DATA, classes].contains(&self.model.classes) {
            return Err(Error::Usage(format!(
                "model.classes is {}, but {} has {classes} classes; set model.classes to that",
                self.model.classes, data.name
            )));
        }
        self.model.classes = classes;
        self.model = self.model.clone().for_data(has_poses)?;
        if self.model.choice(ALIGN) == BY_POSES && !has_poses {
            return Err(Error::Usage(format!(
                "{ALIGN} is {BY_POSES}, but not every sequence of the data has poses; set {ALIGN} to {BY_REGISTRATION} after \
                 `sep4d register`, or to none"
            )));
        }
        Ok(())
    }

    /// How the data set is cut into clips.
    pub fn dataset_options(&self) -> DatasetOptions {
        DatasetOptions {
            frames_per_clip: self.data.frames,
            crop: self.crop(),
            stride: self.data.stride,
            sequences: self.data.sequences.clone(),
            unobserved: self.data.unobserved,
            registered: self.model.choice(ALIGN) == BY_REGISTRATION,
        }
    }

    /// `data.crop` as sizes along x, y and z.
    pub fn crop(&self) -> Option<[usize; 3]> {
        self.data.crop.as_slice().try_into().ok()
    }

    /// `train.memory_budget` in bytes, if there is a limit.
    pub fn memory_budget_bytes(&self) -> Option<usize> {
        let gib = self.train.memory_budget;
        (gib > 0.0).then_some((gib * f64::from(1 << 30)) as usize)
    }

    /// `train.device` as a choice.
    pub fn device(&self) -> DeviceChoice {
        let Ok(choice) = self.train.device.parse();
        choice
    }

    /// How a step is taken.
    pub fn step(&self) -> StepConfig {
        let train = &self.train;
        let weight = |term: &LossTerm| Some((term.name, self.value(term.weight)?.as_float()? as f32));
        StepConfig {
            precision: train.precision,
            weight_decay: train.weight_decay as f32,
            clip_norm: (train.clip_norm > 0.0).then_some(train.clip_norm as f32),
            accumulate: train.accumulate,
            ema: train.ema as f32,
            memory_budget: self.memory_budget_bytes(),
            weights: LossWeights {
                cross_entropy: train.cross_entropy as f32,
                lovasz: train.lovasz as f32,
                terms: Terms::of(self.model.architecture().losses.iter().filter_map(weight)),
            },
        }
    }

    /// The learning rate over the run.
    pub fn schedule(&self) -> Schedule {
        let train = &self.train;
        Schedule {
            initial: train.learning_rate,
            kind: train.schedule,
            warmup: train.warmup,
            decay: train.decay,
            milestones: train.milestones.clone(),
            steps: train.steps,
        }
    }
}
