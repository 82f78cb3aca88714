//! Reading data sets, and generating them.

#![allow(clippy::unwrap_used)]

mod carla_sc;
mod check;
mod files;
mod formats;
#[cfg(unix)]
mod layout;
mod synth;
