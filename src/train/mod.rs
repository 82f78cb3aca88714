//! The trainer: one thread that turns batches into checkpoints, metrics and events.
//!
//! [`trainer`] drives a [`session`] (the only part here that knows a device) and tells its consumers what happens through
//! [`events`] that carry CPU data only, so that a command line, an app or a replayed file are equal consumers.

pub mod checkpoint;
pub mod config;
pub mod events;
pub mod inference;
pub mod metrics;
pub mod run_folder;
pub mod schedule;
pub mod session;
pub mod trainer;
pub mod validation;
