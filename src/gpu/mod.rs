//! Adapter choice, the device, and shader assembly. Nothing here knows the model.

mod context;
pub mod grouped;
mod shader;
mod tuning;

pub use context::{
    AdapterSummary, BoundKernel, Context, DeviceChoice, MemoryUse, PARAMETER_BYTES, adapters, best_for, choose,
};
pub use shader::{render_shader, shader_files};
