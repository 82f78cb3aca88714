//! What graphs and the GPU both speak of: kernels with their operands and programs, what an adapter allows, and the texts of
//! shaders. Knows neither wgpu nor graphs.

pub mod grouped;
mod limits;
mod program;
mod shader;

pub use limits::{ALONE, Grouping, KernelLimits, MatrixUnits, Policy, SHARED, Tuning};
pub use program::{
    BoundKernel, Kernel, LAYER, LAYER_BYTES, Launch, Operand, PARAMETER_BYTES, Program, Scratch, Slot, WORD_BYTES,
    WORKGROUP,
};
pub use shader::{render_shader, shader_files};
