//! Kernels, plans and devices.

#![allow(clippy::unwrap_used)]

mod aliasing;
mod device;
mod kernels;
mod large_reductions;
mod planner;
mod resample;
mod shaders;
