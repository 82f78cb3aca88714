//! The linked 3D views in the window: pointer and keys move one camera, each view draws one side of the comparison.

use eframe::egui::{self, PointerButton, Rect, Response, Sense, Ui, pos2, vec2};
use eframe::egui_wgpu::RenderState;
use glam::{Vec2, Vec3};

use super::canvas::Canvas;
use super::engine::Phase;
use super::layout::Pane;
use super::rivals::MOST;
use super::state::State;
use super::style;
use super::view::View;
use super::view_camera::camera;
use super::widgets;
use crate::view::{Camera, Hit, pick};

mod labels;
mod overlay;
mod scene;

use labels::Labels;

/// A drag across the height of a view turns the camera by this much, radians.
const TURN_PER_VIEW_RAD: f32 = 3.6;
/// One point of scrolling brings the camera closer by this factor.
const ZOOM_PER_POINT: f32 = 0.998;
/// How quickly the camera glides to where an order sends it, per second.
const GLIDE_PER_SEC: f32 = 14.0;

/// The views and the camera that they share.
#[derive(Default)]
pub struct Viewports {
    /// Where there is a device to draw on.
    scenes: Option<scene::Scenes>,
    /// Where the camera is on its way to where the view wants it, for each view's own shape.
    gliding: [Option<Camera>; PLACES],
    /// The shape of the view that was last under the pointer, width over height, and its height in points.
    last_size: Option<[f32; 2]>,
}

/// How many views there are.
const PLACES: usize = 4 + MOST;

fn place(pane: Pane) -> usize {
    match pane {
        Pane::Original => 0,
        Pane::Reconstruction => 1,
        Pane::Difference => 3,
        Pane::Rival(number) => 4 + usize::from(number).min(MOST - 1),
        _ => 2,
    }
}

impl Viewports {
    /// Views on the window's device.
    pub fn new(gpu: &RenderState, canvas: Canvas) -> Viewports {
        Viewports { scenes: Some(scene::Scenes::new(gpu, canvas)), ..Viewports::default() }
    }

    /// Moves the camera by parts of a view's height, to the right and up.
    pub fn pan(&self, state: &mut State, [right, up]: [f32; 2]) {
        let Some(shown) = &state.shown else { return };
        let aspect = self.last_size.map_or(1.0, |[width, height]| width / height);
        let geometry = shown.geometry();
        let mut moved = camera(&state.view, &geometry, shown.sensor_m(), aspect);
        let before = moved.target_m;
        moved.pan(-right, -up);
        state.view.shift((moved.target_m - before) / geometry.extent_m());
    }

    /// Selects the voxel in the middle of `pane`, or of the reconstruction where `pane` is no view.
    pub fn select_centre(&self, state: &mut State, pane: Pane) {
        let pane = if pane.is_view() { pane } else { Pane::Original };
        let Some(shown) = &state.shown else { return };
        let aspect = self.last_size.map_or(1.0, |[width, height]| width / height);
        let camera = camera(&state.view, &shown.geometry(), shown.sensor_m(), aspect);
        if let Some(hit) = self.pick(state, pane, &camera, Vec2::ZERO, aspect) {
            state.selected = Some(hit.voxel);
        }
    }

    fn pick(&self, state: &State, pane: Pane, camera: &Camera, ndc: Vec2, aspect: f32) -> Option<Hit> {
        let shown = state.shown.as_ref()?;
        let labels = Labels::of(state, pane)?;
        let (origin, direction) = camera.world_ray_from_ndc(ndc, aspect);
        pick(&labels.ids, &shown.geometry(), &labels.visible, origin, direction).ok().flatten()
    }

    /// Draws one view, as large as there is room, and obeys the pointer.
    pub fn ui(&mut self, ui: &mut Ui, state: &mut State, pane: Pane) -> Option<Response> {
        let Some(shown) = &state.shown else {
            let hint = match state.source {
                Some(_) if state.jobs.list().is_empty() => "The clip cannot be read; the message says why.",
                Some(_) => "One moment: reading the clip…",
                None => "Open a data set or a run, or generate a town.",
            };
            widgets::empty(ui, hint);
            return None;
        };
        if !pane.has_content(state) {
            let rival = match pane {
                Pane::Rival(number) => state.rivals.list.get(usize::from(number)),
                Pane::Difference => state.rivals.list.get(state.rivals.against),
                _ => None,
            };
            let hint = match (&state.engine.phase, rival) {
                (_, Some(rival)) => rival.hint(),
                _ if !pane.is_of_use(state) => "Open another run to compare with.".to_owned(),
                (Phase::Preparing { what, .. }, _) => format!("One moment: {what}…"),
                _ => "There is no model yet.\nPress Train (F5), or open a run.".to_owned(),
            };
            widgets::empty(ui, &hint);
            return None;
        }
        let points = ui.ctx().pixels_per_point();
        let room = ui.available_rect_before_wrap();
        // Whole pixels, so that each pixel of the texture falls on one of the screen.
        let min = pos2((room.min.x * points).round() / points, (room.min.y * points).round() / points);
        let size_px =
            [(room.max.x - min.x) * points, (room.max.y - min.y) * points].map(|side| side.floor().max(8.0) as u32);
        let rect = Rect::from_min_size(min, vec2(size_px[0] as f32, size_px[1] as f32) / points);
        let response = ui.allocate_rect(rect, Sense::click_and_drag());
        let aspect = rect.width() / rect.height();
        let geometry = shown.geometry();
        let sensor_m = shown.sensor_m();

        let goal = camera(&state.view, &geometry, sensor_m, aspect);
        let directly = self.obey_pointer(ui, &response, state, &goal, aspect);
        let goal = camera(&state.view, &geometry, sensor_m, aspect);
        let camera = self.glide(ui, place(pane), goal, directly);
        self.point(ui, &response, state, pane, &camera, aspect);

        response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Image, true, format!("{} view", pane.title())));
        if let Some(scenes) = &mut self.scenes {
            scenes.show(ui, state, (place(pane), pane), &camera, rect, size_px);
        }
        overlay::ui(ui, rect, state, pane, &camera);
        widgets::leave_keys(&response);
        if response.has_focus() {
            let stroke = egui::Stroke::new(1.0, style::colors(ui.visuals()).accent);
            ui.painter().rect_stroke(rect, 0.0, stroke, egui::StrokeKind::Inside);
        }
        Some(response)
    }

    /// Moves the camera as the pointer says; true if it is under the pointer's control.
    fn obey_pointer(&mut self, ui: &Ui, response: &Response, state: &mut State, goal: &Camera, aspect: f32) -> bool {
        let rect = response.rect;
        if response.contains_pointer() || response.dragged() {
            self.last_size = Some([rect.width(), rect.height()]);
        }
        let moved = response.drag_delta() / rect.height();
        let (shift, scroll) = ui.input(|input| (input.modifiers.shift, input.smooth_scroll_delta().y));
        let pans = response.dragged_by(PointerButton::Secondary)
            || response.dragged_by(PointerButton::Middle)
            || response.dragged_by(PointerButton::Primary) && shift;
        let extent = state.shown.as_ref().map_or(Vec3::ONE, |shown| shown.geometry().extent_m());
        if pans {
            let mut camera = *goal;
            camera.pan(moved.x, -moved.y);
            state.view.shift((camera.target_m - goal.target_m) / extent);
        } else if response.dragged_by(PointerButton::Primary) {
            state.view.orbit(-moved.x * TURN_PER_VIEW_RAD, moved.y * TURN_PER_VIEW_RAD);
        }
        let zooms = scroll != 0.0 && response.contains_pointer();
        if zooms {
            let before = state.view.zoom;
            state.view.zoom_by(ZOOM_PER_POINT.powf(scroll));
            if let Some(at) = response.hover_pos() {
                let mut camera = *goal;
                camera.zoom_at(ndc(rect, at), aspect, state.view.zoom / before);
                state.view.shift((camera.target_m - goal.target_m) / extent);
            }
        }
        if response.double_clicked() {
            state.view.reset_camera();
        }
        pans || zooms || response.dragged()
    }

    /// Brings a view's camera nearer to where it is to be; at once if `directly`.
    fn glide(&mut self, ui: &Ui, place: usize, goal: Camera, directly: bool) -> Camera {
        let animates = ui.style().animation_time > 0.0;
        let passed = ui.input(|input| input.stable_dt).min(0.1);
        let part = 1.0 - (-GLIDE_PER_SEC * passed).exp();
        let camera = match self.gliding[place] {
            Some(from) if animates && !directly && from.scene_center_m == goal.scene_center_m => {
                Camera::lerp(&from, &goal, part)
            }
            _ => goal,
        };
        let arrived = (camera.eye_m() - goal.eye_m()).length() < 2e-3 * goal.distance_m;
        let camera = if arrived { goal } else { camera };
        if !arrived {
            ui.ctx().request_repaint();
        }
        self.gliding[place] = Some(camera);
        camera
    }

    /// Hovers and selects.
    fn point(&self, ui: &Ui, response: &Response, state: &mut State, pane: Pane, camera: &Camera, aspect: f32) {
        if response.clicked_by(PointerButton::Primary) {
            response.request_focus();
        }
        let at = response.hover_pos().filter(|_| !response.dragged());
        let Some(at) = at else {
            if state.hovered_in == Some(pane) {
                state.hovered = None;
                state.hovered_in = None;
            }
            return;
        };
        let hit = self.pick(state, pane, camera, ndc(response.rect, at), aspect).map(|hit| hit.voxel);
        state.hovered = hit;
        state.hovered_in = Some(pane);
        if response.clicked_by(PointerButton::Primary) {
            state.selected = hit.filter(|voxel| state.selected != Some(*voxel));
        }
        if let Some(voxel) = hit {
            overlay::tooltip(ui, response, state, voxel);
        }
    }
}

/// A point of the screen in a view's coordinates: -1 (left, bottom) to 1 (right, top).
fn ndc(rect: Rect, at: egui::Pos2) -> Vec2 {
    let part = (at - rect.min) / rect.size();
    Vec2::new(part.x * 2.0 - 1.0, 1.0 - part.y * 2.0)
}

impl View {
    /// Moves the middle of the view by a part of the grid's extent.
    fn shift(&mut self, by: Vec3) {
        self.target = (self.target + by).clamp(Vec3::splat(-0.5), Vec3::splat(1.5));
    }
}
