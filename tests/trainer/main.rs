//! Runs as the trainer makes them.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod driving;
mod memory_budget;
mod mixed_precision;
mod resume;
mod serve;
