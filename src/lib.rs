//! sep4d trains SEP-4D, a variational auto-encoder that reconstructs moving 3D semantic occupancy
//! through one continuous 4D latent, with its own WGSL kernels on any Vulkan-class adapter.
//!
//! Data flows one way: `data -> graph/models -> plan -> gpu -> metrics -> events -> cli | app`.

// Tests in here share helpers with those in `tests/`, which know the crate by its name.
#[cfg(test)]
extern crate self as sep4d;

pub use error::{Error, Result};

#[cfg(feature = "desktop")]
pub mod app;
pub mod data;
pub mod error;
pub mod figures;
pub mod files;
pub mod gpu;
pub mod graph;
pub mod hash;
pub mod kernel;
pub mod layers;
pub mod models;
pub mod reproduce;
pub mod rng;
pub mod roofline;
pub mod selftest;
pub mod signals;
pub mod train;
pub mod view;
