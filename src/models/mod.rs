//! Models as functions that append to a graph. Nothing here knows the GPU.

pub mod fusion;
mod modules;
pub mod sep4d;
