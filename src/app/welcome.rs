//! The first-run page: three ways to begin, beside a living comparison.

use eframe::egui::{self, CentralPanel, RichText, Ui};
use eframe::egui_wgpu::RenderState;

use super::App;
use super::actions::Action;

/// Draws the page.
pub fn ui(ui: &mut Ui, app: &mut App, _gpu: Option<&RenderState>) {
    let context = ui.ctx().clone();
    CentralPanel::default().show(ui, |ui| {
        ui.heading("sep4d");
        ui.label(RichText::new("Reconstruct moving 3D semantic occupancy."));
        for action in [Action::GenerateTown, Action::OpenDataset, Action::OpenRun] {
            if ui.add(egui::Button::new(action.entry().name)).clicked() {
                app.perform(&context, action);
            }
        }
    });
}
