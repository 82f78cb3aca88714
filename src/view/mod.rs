//! Pictures of labelled voxel grids: the camera, the GPU voxel renderer, and the sheets and animations made with it.
//!
//! Two layers, kept apart so that a window can use the first without the second:
//! - [`geometry`], [`mesh`], [`camera`], [`motion`], [`renderer`], [`ornament`], [`offscreen`] draw grids of labels into textures,
//!   and [`mod@pick`] tells which voxel is where; [`palette`], [`theme`], [`error_view`] and [`difference`] say in which colours;
//! - [`headless`] reads such a texture back, and [`picture`], [`animation`] compose figures from them; [`top`] draws maps without a GPU.
//!
//! World space is metres with the grid's lowest corner at the origin, x forward, y left, z up. Labels stay in the
//! order of the data `[X, Y, Z]`; [`Geometry`] knows which way their y axis points.
//! What is absent here: class names and colours (callers pass them in), adapters, and anything of training.

pub mod animation;
pub mod camera;
pub mod difference;
pub mod error_view;
pub mod geometry;
pub mod headless;
mod layout;
pub mod mesh;
pub mod motion;
pub mod offscreen;
pub mod ornament;
pub mod palette;
pub mod pick;
pub mod picture;
pub mod renderer;
mod text;
pub mod theme;
pub mod top;

pub use animation::gif;
pub use camera::{Camera, Projection};
pub use error_view::{ErrorCounts, VoxelOutcome};
pub use geometry::{ClassMask, Geometry, Handedness, Visible};
pub use headless::{Headless, read_texture};
pub use mesh::{Face, Mesh};
pub use motion::Transition;
pub use offscreen::Offscreen;
pub use ornament::{Ornaments, round_length_m};
pub use palette::{Palette, heat_color, heat_palette};
pub use pick::{Hit, pick};
pub use picture::{ClassStyle, ComparedFrame, PictureInput, save_png, sheet};
pub use renderer::{Antialiasing, Look, VoxelRenderer, VoxelScene};
pub use theme::Theme;
