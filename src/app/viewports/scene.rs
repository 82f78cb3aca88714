//! The textures that the views are drawn into. A view is drawn again only when something in it has changed.

use std::sync::Arc;
use std::time::Duration;

use eframe::egui::{Rect, Ui};
use eframe::egui_wgpu::RenderState;
use eframe::wgpu::{BindGroup, DeviceType};

use super::PLACES;
use super::labels::{Labels, palette};
use crate::app::canvas::Canvas;
use crate::app::layout::Pane;
use crate::app::state::State;
use crate::app::style;
use crate::app::view::{Coloring, View};
use crate::view::{Antialiasing, Camera, Look, Mesh, Offscreen, Ornaments, Theme, VoxelRenderer, VoxelScene};

/// A software adapter smooths edges only when nothing has moved for this long.
const STILL: Duration = Duration::from_millis(300);

/// The scenes, and what draws and shows them.
pub struct Scenes {
    studio: Studio,
    scenes: [Option<Scene>; PLACES],
}

/// What all scenes share.
struct Studio {
    gpu: RenderState,
    renderer: VoxelRenderer,
    canvas: Canvas,
    is_software: bool,
}

impl Scenes {
    /// Builds the pipelines on the window's device; `canvas` is the window's.
    pub fn new(gpu: &RenderState, canvas: Canvas) -> Scenes {
        let is_software = gpu.adapter.get_info().device_type == DeviceType::Cpu;
        let renderer = VoxelRenderer::new(&gpu.device);
        Scenes { studio: Studio { gpu: gpu.clone(), renderer, canvas, is_software }, scenes: Default::default() }
    }

    /// Shows view `place` of `pane` in `rect`, which is `size_px` large; drawn anew if it has changed.
    pub fn show(
        &mut self,
        ui: &Ui,
        state: &State,
        (place, pane): (usize, Pane),
        camera: &Camera,
        rect: Rect,
        size_px: [u32; 2],
    ) {
        let studio = &self.studio;
        let scene = self.scenes[place].get_or_insert_with(|| Scene::new(studio, size_px));
        scene.resize(studio, size_px);
        if scene.draw(studio, ui, state, pane, camera).is_some() {
            studio.canvas.show(ui.painter(), rect, &scene.picture);
        }
    }
}

/// What the faces depend on.
#[derive(Debug, Clone, PartialEq)]
struct MeshKey {
    version: u64,
    mixed: Option<u64>,
    rivals: u64,
    frame: usize,
    hidden: Vec<u8>,
    solo: Option<u8>,
    crop: [[f32; 2]; 3],
    coloring: Coloring,
}

/// What the picture depends on besides.
#[derive(Debug, Clone, PartialEq)]
struct LookKey {
    camera: Camera,
    theme: bool,
    safe_colors: bool,
    ornaments: Ornaments,
    pixels_per_point: f32,
}

/// One view's scene and texture.
struct Scene {
    scene: VoxelScene,
    target: Offscreen,
    picture: Arc<BindGroup>,
    mesh: Option<MeshKey>,
    look: Option<LookKey>,
    /// When it last changed, in the window's time, and whether edges have been smoothed since.
    changed: (f64, bool),
}

impl Scene {
    fn new(Studio { gpu, renderer, canvas, .. }: &Studio, size_px: [u32; 2]) -> Scene {
        let target = Offscreen::new(&gpu.device, size_px);
        Scene {
            scene: renderer.scene(&gpu.device),
            picture: canvas.picture(&gpu.device, target.color_view()),
            target,
            mesh: None,
            look: None,
            changed: (0.0, false),
        }
    }

    fn resize(&mut self, Studio { gpu, canvas, .. }: &Studio, size_px: [u32; 2]) {
        if self.target.resize(&gpu.device, size_px) {
            self.picture = canvas.picture(&gpu.device, self.target.color_view());
            self.look = None;
        }
    }

    /// Draws `pane` if it has changed, and asks to be called again when there is more to do; `None` if there is nothing to draw.
    fn draw(&mut self, studio: &Studio, ui: &Ui, state: &State, pane: Pane, camera: &Camera) -> Option<()> {
        let Studio { gpu, renderer, is_software, .. } = studio;
        let shown = state.shown.as_ref()?;
        let View { hidden, solo, crop, coloring, .. } = &state.view;
        let mesh = MeshKey {
            version: shown.version,
            mixed: state.mixed_version(),
            rivals: state.rivals.version,
            frame: state.frame(),
            hidden: hidden.clone(),
            solo: *solo,
            crop: *crop,
            coloring: *coloring,
        };
        let theme = style::scene_theme(ui.visuals());
        let look = LookKey {
            camera: *camera,
            theme: theme == Theme::Dark,
            safe_colors: state.view.safe_colors,
            ornaments: ornaments(state),
            pixels_per_point: ui.ctx().pixels_per_point(),
        };
        let now = ui.input(|input| input.time);
        let is_new = self.mesh.as_ref() != Some(&mesh);
        let changed = is_new || self.look.as_ref() != Some(&look);
        let mut smooth = !is_software;
        if changed {
            // The first picture of a view is as good as it gets; only what moves is drawn in haste.
            smooth |= self.look.is_none();
            self.changed = (now, smooth);
        } else {
            let is_still = now - self.changed.0 >= STILL.as_secs_f64();
            if self.changed.1 || !is_still {
                if !self.changed.1 {
                    let left = STILL.as_secs_f64() - (now - self.changed.0);
                    ui.ctx().request_repaint_after_secs(left.max(0.001) as f32);
                }
                return Some(());
            }
            smooth = true;
            self.changed.1 = true;
        }
        if is_new {
            let labels = Labels::of(state, pane)?;
            // Labels come from a grid of this size, so the mesh can be made.
            let faces = Mesh::new(&labels.ids, &shown.geometry(), &labels.visible).ok()?;
            self.scene.set_mesh(&gpu.device, &gpu.queue, faces);
            self.mesh = Some(mesh);
        }
        let colors = palette(state, pane, theme);
        let seen = Look {
            camera,
            geometry: shown.geometry(),
            palette: &colors,
            theme,
            ornaments: &look.ornaments,
            pixels_per_point: look.pixels_per_point,
        };
        self.scene.set_look(&gpu.device, &gpu.queue, &seen, self.target.size_px());
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        let antialiasing = if smooth { Antialiasing::Msaa4 } else { Antialiasing::Off };
        self.target.draw(&gpu.device, &mut encoder, renderer, &self.scene, antialiasing);
        gpu.queue.submit([encoder.finish()]);
        self.look = Some(look);
        if !smooth {
            ui.ctx().request_repaint_after(STILL);
        }
        Some(())
    }
}

fn ornaments(state: &State) -> Ornaments {
    let view = &state.view;
    let crop = (view.crop != View::default().crop).then_some(()).and_then(|()| {
        let size = state.shown.as_ref()?.grid.size;
        Some(std::array::from_fn(|axis| view.crop_voxels(axis, size[axis])))
    });
    Ornaments {
        selected: state.selected,
        hovered: state.hovered.filter(|hovered| state.selected != Some(*hovered)),
        crop,
        ego: state.shown.as_ref().filter(|_| view.ornaments).map(|shown| (shown.sensor_m(), 0.0)),
        axes: view.ornaments,
    }
}
