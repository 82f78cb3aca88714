//! Adapter choice, the device, and shader assembly. Nothing here knows the model.

mod adapters;
mod context;
pub mod grouped;
mod shader;
mod tuning;

pub use adapters::{AdapterSummary, DeviceChoice, adapters, backends, best_for, choose};
#[cfg(test)]
pub(crate) use context::faults;
pub use context::{BoundKernel, BuildProgress, Context, MemoryUse, PARAMETER_BYTES};
pub use shader::{render_shader, shader_files};
