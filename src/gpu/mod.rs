//! Adapter choice and the device. Nothing here knows a graph or a model.

mod adapters;
mod context;
mod tuning;

pub use adapters::{AdapterSummary, DeviceChoice, adapters, backends, best_for, choose};
#[cfg(test)]
pub(crate) use context::faults;
pub use context::{BuildProgress, Context, MemoryUse};
