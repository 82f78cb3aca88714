//! Models as functions that append to a graph, and the registry of them. Nothing here knows the GPU.
//!
//! A model is a file here and a row in [`ARCHITECTURES`]. Whatever trains it, looks at it or shows it goes by the lists in its
//! [`Architecture`] and in what it has [`Built`].

use crate::Result;
use crate::graph::{Graph, TensorId};
pub use crate::layers::resample::MOTION;

mod config;
pub mod dynamic_city;
mod keys;
mod losses;
mod modules;
pub mod occ_sora;
pub mod sep4d;
mod shape;
#[cfg(test)]
mod toy;

pub use config::{
    ALIGN, ARCHITECTURE, BY_POSES, BY_REGISTRATION, ModelConfig, OF_THE_DATA, OF_THE_POSES, by_name, keys_of_all,
};
pub use losses::{LossTerm, Terms, loss_terms};
pub use shape::{BatchShape, FRAMES, MOST_VOXELS};

/// Every model, the one that is trained where none is named first.
pub static ARCHITECTURES: &[&Architecture] = &[
    &sep4d::SEP4D,
    &dynamic_city::DYNAMIC_CITY,
    &occ_sora::OCC_SORA,
    #[cfg(test)]
    &toy::TOY,
];

/// No layer may be wider: with [`MOST_VOXELS`] it keeps sizes and counts of operations within 64 bits.
pub const WIDEST: usize = 4096;

/// One kind of model.
#[derive(Debug)]
pub struct Architecture {
    /// Its value of `model.architecture`.
    pub name: &'static str,
    /// What it is, in a few words.
    pub about: &'static str,
    /// What can be set about it, beside `model.architecture` and `model.classes`.
    pub keys: &'static [Key],
    /// What training minimises beside the losses of the reconstruction.
    pub losses: &'static [LossTerm],
    /// Other keys that have defaults of their own with this model, because its authors train it so: each with its value in
    /// TOML in the presets, the smallest preset first.
    pub training: &'static [(&'static str, [&'static str; 4])],
    /// Keys that came later, with the value in TOML that says what models were before.
    pub later: &'static [(&'static str, &'static str)],
    /// Whether such a model aligns the frames of a clip, if it is told to.
    pub aligns: fn(&ModelConfig) -> bool,
    /// Appends the whole model to a graph, for batches of a shape that [`BatchShape::check`] has found to work.
    pub build: fn(&mut Graph, &ModelConfig, &BatchShape, Mode) -> Result<Built>,
}

impl PartialEq for Architecture {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// Something that can be set about a model.
#[derive(Debug)]
pub struct Key {
    /// Its full name, `model.hidden`. Keys of several models that mean the same have the same name and meaning.
    pub key: &'static str,
    /// What it means, in a sentence.
    pub doc: &'static str,
    /// What it can be.
    pub values: Values,
}

/// What a key can be.
#[derive(Debug)]
pub enum Values {
    /// A whole number from 0 or 1 to [`WIDEST`].
    Width {
        /// Its values in the presets, the smallest preset first.
        defaults: [usize; 4],
        /// Why it cannot be 0, if it cannot.
        needed_for: Option<&'static str>,
    },
    /// One of these names, each with what it means in a few words.
    Choice {
        /// Those.
        names: &'static [(&'static str, &'static str)],
        /// The places among them of those of the presets, the smallest preset first.
        defaults: [usize; 4],
    },
}

/// What a model is built for.
#[derive(Debug, Clone, Copy)]
pub enum Mode {
    /// To be trained: latents are sampled, with noise from the Philox key and step in this tensor (`u32 [3]`: seed low, seed
    /// high, step).
    Train {
        /// That tensor.
        rng: TensorId,
    },
    /// To be looked at: latents are what they are expected to be.
    Look,
    /// To decode latents that are inputs of the graph, on which the encoder has no influence.
    Decode,
}

/// What a latent holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LatentKind {
    /// A normal distribution for each element. The encoder makes `[.., 2C]`, means before log-variances; decoded is `[.., C]`.
    Gaussian,
    /// Values as they are.
    Plain,
    /// How each frame lies in its clip, as [`BuiltMotion`] has it: given, not encoded.
    Motion,
    /// The number of a code for each cell, u32 `[.., 1]`, both encoded and decoded: a row of the codebook.
    Code {
        /// Codes of the codebook.
        codes: usize,
        /// Values of a code.
        channels: usize,
    },
}

/// One of the tensors between encoder and decoder, and what is known of it without running anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatentSpec {
    /// What it is called in the window and in files.
    pub name: &'static str,
    /// Its axes between that of the batch and its channels, in order, of `t`, `x`, `y` and `z`: `tx` is `[B, T, X', C]`, where its
    /// cells may be several frames long.
    pub axes: &'static str,
    /// What it holds.
    pub kind: LatentKind,
}

impl LatentSpec {
    /// Whether it changes in time.
    pub fn is_temporal(&self) -> bool {
        self.axes.contains('t')
    }

    /// How many numbers publications count of a latent of which the encoder makes so many: one for mean and log-variance, and of
    /// a code all of its values.
    pub fn floats(&self, encoded: usize) -> usize {
        match self.kind {
            LatentKind::Gaussian => encoded / 2,
            LatentKind::Plain => encoded,
            // Rigid motions have six degrees of freedom.
            LatentKind::Motion => 6 * encoded / MOTION,
            LatentKind::Code { channels, .. } => encoded * channels,
        }
    }

    /// How many bits name so many codes; `None` if it does not consist of codes.
    pub fn bits(&self, encoded: usize) -> Option<f64> {
        match self.kind {
            LatentKind::Code { codes, .. } => Some(encoded as f64 * (codes as f64).log2()),
            LatentKind::Gaussian | LatentKind::Plain | LatentKind::Motion => None,
        }
    }
}

/// A latent in a graph.
#[derive(Debug, Clone, Copy)]
pub struct BuiltLatent {
    /// What it is.
    pub latent: LatentSpec,
    /// What the encoder makes of a batch.
    pub encoded: TensorId,
    /// What is decoded: a sample, what is expected, or an input, by [`Mode`].
    pub decoded: TensorId,
}

/// Where a model is told how the frames of a clip lie in its canonical grid.
#[derive(Debug, Clone, Copy)]
pub struct BuiltMotion {
    /// Input: `[B, T, 24]`. Two affine maps of cell indices for each frame, 3x4 row by row: from the canonical grid into the
    /// frame's, and back.
    pub maps: TensorId,
    /// By how many cells the canonical grid is larger than the middle frame's at either end, along x, y and z.
    pub margin: [usize; 3],
}

/// Losses by their names, `[1]` each.
pub type Losses = Vec<(&'static str, TensorId)>;

/// The tensors of a model in a graph.
#[derive(Debug, Clone)]
pub struct Built {
    /// Input: the labels, a byte each, `u32 [N, X', Y', Z', 2]` in blocked order.
    pub label_bytes: TensorId,
    /// Input: the clips' motion, if the model asks for it.
    pub motion: Option<BuiltMotion>,
    /// The labels in words, `u32 [N, X', Y', Z', 8]`.
    pub labels: TensorId,
    /// `[N, X', Y', Z', 8, K]` in blocked order.
    pub logits: TensorId,
    /// What training minimises beside the losses of the reconstruction, by the names of [`Architecture::losses`], `[1]` each; none where
    /// nothing is trained.
    pub losses: Losses,
    /// What lies between encoder and decoder.
    pub latents: Vec<BuiltLatent>,
}
