//! The linked 3D views in the window: pointer and keys move one camera, one frame is drawn in each.

use eframe::egui::{self, Sense, Ui};
use eframe::egui_wgpu::RenderState;

use super::layout::Pane;
use super::state::State;
use super::view::View;
use super::widgets;

/// The views' textures and what is in them.
#[derive(Debug, Default)]
pub struct Viewports {}

impl Viewports {
    /// Moves the camera by parts of the view's height, to the right and up.
    pub fn pan(&self, view: &mut View, [right, up]: [f32; 2]) {
        view.target.x += up * 0.1;
        view.target.y += right * 0.1;
    }

    /// Selects the voxel in the middle of `pane`, or of the reconstruction.
    pub fn select_centre(&self, _state: &mut State, _pane: Pane) {}

    /// Draws one view.
    pub fn ui(&mut self, ui: &mut Ui, state: &mut State, pane: Pane, gpu: Option<&RenderState>) {
        let (Some(_shown), Some(_gpu)) = (&state.shown, gpu) else {
            widgets::empty(ui, "Nothing to show yet");
            return;
        };
        let (_rect, response) = ui.allocate_exact_size(ui.available_size(), Sense::click_and_drag());
        response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Image, true, pane.title()));
    }
}
