//! Training: the device side of a run.

pub mod session;
