//! The frame around the panels: the bar at the top, and messages.

use eframe::egui::{self, Align, Align2, Context, Layout, Panel, RichText, Ui};

use super::App;
use super::actions::Action;
use super::icons::Icon;
use super::notices::Severity;
use super::state::State;
use super::widgets;
use super::{run_bar, style};

/// Draws the bar with the run's controls and figures.
pub fn top_bar(ui: &mut Ui, app: &mut App) {
    let context = ui.ctx().clone();
    let mut wanted = None;
    Panel::top("top").exact_size(40.0).show(ui, |ui| {
        ui.horizontal_centered(|ui| {
            let state = &app.state;
            if ui.button(RichText::new("sep4d").strong()).on_hover_text(widgets::tip(ui, Action::Welcome)).clicked() {
                wanted = Some(Action::Welcome);
            }
            ui.label(state.source.as_ref().map(|source| source.name()).unwrap_or_default());
            ui.separator();
            if let Some(action) = run_bar::ui(ui, state) {
                wanted = Some(action);
            }
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                for job in state.jobs.list() {
                    ui.label(&job.what);
                }
            });
        });
    });
    if let Some(action) = wanted {
        app.perform(&context, action);
    }
}

/// Draws the messages over everything else, in the lower right.
pub fn notices(context: &Context, state: &mut State) {
    let mut dismissed = None;
    for (i, notice) in state.notices.list().iter().enumerate().rev() {
        let above = (state.notices.list().len() - 1 - i) as f32;
        egui::Area::new(egui::Id::unique(("notice", i)))
            .anchor(Align2::RIGHT_BOTTOM, [-16.0, -68.0 - above * 64.0])
            .show(context, |ui| {
                let colors = style::colors(ui.visuals());
                let color = match notice.severity {
                    Severity::Info => colors.good,
                    Severity::Warning => colors.warning,
                    Severity::Error => colors.error,
                };
                egui::Frame::popup(ui.style()).stroke(egui::Stroke::new(1.0, color)).show(ui, |ui| {
                    ui.set_max_width(420.0);
                    ui.horizontal(|ui| {
                        ui.label(&notice.text);
                        if widgets::icon_button(ui, Icon::Close, "Dismiss this message", "Dismiss", true, false)
                            .clicked()
                        {
                            dismissed = Some(i);
                        }
                    });
                });
            });
    }
    if let Some(i) = dismissed {
        state.notices.dismiss(i);
    }
}
