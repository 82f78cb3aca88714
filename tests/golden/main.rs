//! Layers and models against PyTorch's figures.

#![allow(clippy::unwrap_used)]

mod by_heart;
mod convolutions;
mod dynamic_city;
mod fixture;
mod layers;
mod model;
mod norms;
mod occ_sora;
mod resample;
mod tokens;
