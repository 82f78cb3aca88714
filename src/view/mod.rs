//! Pictures of labelled voxel grids: the camera, the GPU voxel renderer, and the sheets and animations made with it.
//!
//! Two layers, kept apart so that a window can use the first without the second:
//! - [`camera`], [`mesh`], [`renderer`], [`error_view`], [`theme`] draw one grid into any rectangle of any render pass;
//! - [`headless`] gives that renderer an offscreen target, and [`picture`], [`animation`] compose figures from it.
//!
//! World space is metres with the grid's lowest corner at the origin, x forward, z up, right-handed.
//! What is absent here: class names and colours (callers pass them in), adapters, and anything of training.

pub mod animation;
pub mod camera;
pub mod error_view;
pub mod headless;
mod layout;
pub mod mesh;
pub mod picture;
pub mod renderer;
mod text;
pub mod theme;

pub use animation::gif;
pub use camera::{Camera, Projection};
pub use error_view::{ErrorCounts, VoxelOutcome};
pub use headless::Headless;
pub use mesh::{ClassMask, Face, visible_faces};
pub use picture::{ClassStyle, FramePair, PictureInput, save_png, sheet};
pub use renderer::{Look, Palette, Viewport, VoxelRenderer, VoxelScene};
pub use theme::Theme;
