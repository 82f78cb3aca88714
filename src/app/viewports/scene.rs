//! The textures that the views are drawn into. A view is drawn again only when something in it has changed.

use std::sync::Arc;
use std::time::Duration;

use eframe::egui::{TextureId, Ui};
use eframe::egui_wgpu::RenderState;

use super::labels::{Labels, palette};
use crate::app::layout::Pane;
use crate::app::state::State;
use crate::app::style;
use crate::app::view::{Coloring, View};
use crate::view::{Antialiasing, Camera, Look, Mesh, Offscreen, Ornaments, Theme, VoxelRenderer, VoxelScene};

/// A software adapter smooths edges only when nothing has moved for this long.
const STILL: Duration = Duration::from_millis(150);

/// The renderer and the scene of each view.
#[derive(Debug)]
pub struct Scenes {
    renderer: Arc<VoxelRenderer>,
    scenes: [Option<Scene>; 3],
    is_software: bool,
}

impl Scenes {
    /// Builds the renderer on the window's device.
    pub fn new(gpu: &RenderState) -> Scenes {
        let is_software = gpu.adapter.get_info().device_type == eframe::wgpu::DeviceType::Cpu;
        Scenes { renderer: Arc::new(VoxelRenderer::new(&gpu.device)), scenes: [None, None, None], is_software }
    }

    /// The scene of view `place`, its texture `size_px` large.
    pub fn of(&mut self, place: usize, gpu: &RenderState, size_px: [u32; 2]) -> &mut Scene {
        let (renderer, is_software) = (&self.renderer, self.is_software);
        let scene = self.scenes[place].get_or_insert_with(|| Scene::new(gpu, renderer, is_software, size_px));
        scene.resize(gpu, size_px);
        scene
    }
}

/// What the faces depend on.
#[derive(Debug, Clone, PartialEq)]
struct MeshKey {
    version: u64,
    mixed: Option<u64>,
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
#[derive(Debug)]
pub struct Scene {
    renderer: Arc<VoxelRenderer>,
    scene: VoxelScene,
    target: Offscreen,
    texture: TextureId,
    is_software: bool,
    mesh: Option<MeshKey>,
    look: Option<LookKey>,
    /// When it last changed, in the window's time, and whether edges have been smoothed since.
    changed: (f64, bool),
}

impl Scene {
    fn new(gpu: &RenderState, renderer: &Arc<VoxelRenderer>, is_software: bool, size_px: [u32; 2]) -> Scene {
        let target = Offscreen::new(&gpu.device, size_px);
        let filter = eframe::wgpu::FilterMode::Linear;
        let texture = gpu.renderer.write().register_native_texture(&gpu.device, target.color_view(), filter);
        Scene {
            scene: renderer.scene(&gpu.device),
            renderer: renderer.clone(),
            target,
            texture,
            is_software,
            mesh: None,
            look: None,
            changed: (0.0, false),
        }
    }

    fn resize(&mut self, gpu: &RenderState, size_px: [u32; 2]) {
        if self.target.resize(&gpu.device, size_px) {
            let (view, filter) = (self.target.color_view(), eframe::wgpu::FilterMode::Linear);
            gpu.renderer.write().update_egui_texture_from_wgpu_texture(&gpu.device, view, filter, self.texture);
            self.look = None;
        }
    }

    /// Draws `pane` if it has changed; returns its texture, and when to look again.
    pub fn draw(
        &mut self,
        gpu: &RenderState,
        ui: &Ui,
        state: &State,
        pane: Pane,
        camera: &Camera,
    ) -> Option<(TextureId, Option<Duration>)> {
        let shown = state.shown.as_ref()?;
        let View { hidden, solo, crop, coloring, .. } = &state.view;
        let mesh = MeshKey {
            version: shown.version,
            mixed: state.mixed_version(),
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
        let mut smooth = !self.is_software;
        if changed {
            // The first picture of a view is as good as it gets; only what moves is drawn in haste.
            smooth |= self.look.is_none();
            self.changed = (now, smooth);
        } else {
            let is_still = now - self.changed.0 >= STILL.as_secs_f64();
            if self.changed.1 || !is_still {
                let left = STILL.as_secs_f64() - (now - self.changed.0);
                return Some((self.texture, (!self.changed.1).then(|| Duration::from_secs_f64(left.max(0.001)))));
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
        self.target.draw(&gpu.device, &mut encoder, &self.renderer, &self.scene, antialiasing);
        gpu.queue.submit([encoder.finish()]);
        self.look = Some(look);
        Some((self.texture, (!smooth).then_some(STILL)))
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
