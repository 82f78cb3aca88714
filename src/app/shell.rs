//! The frame around the panels: the bar at the top, messages and the progress of jobs, and what covers the whole window.

use std::time::Duration;

use eframe::egui::{
    self, Align2, Area, Color32, Context, FontId, Frame, Id, Label, Order, Panel, RichText, Stroke, Ui, vec2,
};

use super::actions::Action;
use super::icons::Icon;
use super::menu::Choice;
use super::notices::{Notice, Severity};
use super::state::State;
use super::training::name;
use super::{App, menu, run_bar, style, widgets};

/// Jobs that take longer than this are shown.
const NOTICEABLE: Duration = Duration::from_millis(250);
/// How wide messages are at most.
const MESSAGE_WIDTH: f32 = 420.0;
/// Names in the bar are at most so wide.
const NAME_WIDTH: f32 = 120.0;

/// Draws the bar with what is open and the run's controls and figures.
pub fn top_bar(ui: &mut Ui, app: &mut App) {
    let context = ui.ctx().clone();
    let mut wanted = None;
    Panel::top("top").exact_size(40.0).frame(style::BAR).show(ui, |ui| {
        ui.horizontal_centered(|ui| {
            let state = &app.state;
            ui.spacing_mut().item_spacing.x = 6.0;
            wanted = menu::ui(ui, state);
            let order = |action: Action| Some(Choice::Order(action));
            let title = egui::Button::new(RichText::new("sep4d").size(15.0).strong()).frame_when_inactive(false);
            let response = ui.add(title);
            response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, true, Action::Welcome.entry().name));
            if response.on_hover_text(widgets::tip(ui, Action::Welcome)).clicked() {
                wanted = order(Action::Welcome);
            }
            if let Some(source) = &state.source {
                let about = format!("Data set {}: {} held-out clips", source.root.display(), source.held_out.len());
                let orders = [Action::OpenDataset, Action::GenerateTown];
                wanted = open_button(ui, state, &source.name(), ("Data set", &about), &orders).or(wanted.take());
            }
            if let Some(run) = &state.run {
                let about = format!("Run {}", run.display());
                let orders = [Action::OpenRun, Action::OpenOverlay];
                wanted = open_button(ui, state, &name(run), ("Run", &about), &orders).or(wanted.take());
            }
            ui.separator();
            wanted = run_bar::ui(ui, state).and_then(order).or(wanted.take());
        });
    });
    match wanted {
        Some(Choice::Order(action)) => app.perform(&context, action),
        Some(Choice::Recent(path)) => app.open_recent(path),
        None => {}
    }
}

/// The name of what is open; a click shows what else can be opened.
fn open_button(
    ui: &mut Ui,
    state: &State,
    name: &str,
    (kind, about): (&str, &str),
    orders: &[Action],
) -> Option<Choice> {
    let text = RichText::new(name).color(style::colors(ui.visuals()).quiet);
    let width = ui.painter().layout_no_wrap(name.into(), egui::TextStyle::Button.resolve(ui.style()), Color32::WHITE);
    let width = (width.size().x + 2.0 * ui.spacing().button_padding.x + 1.0).min(NAME_WIDTH);
    let button = egui::Button::new(text).frame_when_inactive(false).truncate();
    let response = ui.add_sized(vec2(width, 26.0), button);
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, true, format!("{kind}: {name}")));
    menu::below(&response.on_hover_text(about), state, orders)
}

/// Draws messages and the progress of jobs over everything else, in the lower right.
pub fn notices(context: &Context, state: &mut State) {
    let jobs = state.jobs.list().iter().filter(|job| job.since.elapsed() > NOTICEABLE);
    let jobs: Vec<(String, Option<f32>)> = jobs.map(|job| (job.what.clone(), job.progress.fraction())).collect();
    if state.notices.list().is_empty() && jobs.is_empty() {
        return;
    }
    let mut dismissed = None;
    let height = context.content_rect().height() * 0.6;
    Area::new(Id::unique("notices")).order(Order::Foreground).anchor(Align2::RIGHT_BOTTOM, [-14.0, -62.0]).show(
        context,
        |ui| {
            ui.set_width(MESSAGE_WIDTH);
            egui::ScrollArea::vertical().max_height(height).stick_to_bottom(true).show(ui, |ui| {
                for (i, notice) in state.notices.list().iter().enumerate() {
                    if message(ui, notice) {
                        dismissed = Some(i);
                    }
                }
                for (what, fraction) in &jobs {
                    job(ui, what, *fraction);
                }
            });
        },
    );
    if let Some(i) = dismissed {
        state.notices.dismiss(i);
    }
}

fn card(ui: &mut Ui, line: Color32, add: impl FnOnce(&mut Ui)) {
    let shadow = egui::Shadow { offset: [0, 2], blur: 8, spread: 0, color: Color32::from_black_alpha(60) };
    let frame = Frame::popup(ui.style()).inner_margin(egui::Margin::symmetric(12, 8)).shadow(shadow);
    frame.stroke(Stroke::new(1.0, line)).show(ui, |ui| {
        ui.set_width(ui.available_width());
        add(ui);
    });
}

/// One message; true if it was dismissed.
fn message(ui: &mut Ui, notice: &Notice) -> bool {
    let colors = style::colors(ui.visuals());
    let color = match notice.severity {
        Severity::Info => colors.good,
        Severity::Warning => colors.warning,
        Severity::Error => colors.error,
    };
    let mut dismissed = false;
    card(ui, color, |ui| {
        ui.horizontal_top(|ui| {
            let width = ui.available_width() - 34.0;
            ui.allocate_ui(vec2(width, 0.0), |ui| {
                ui.set_width(width);
                ui.add_space(4.0);
                ui.add(Label::new(&notice.text).wrap().selectable(true));
            });
            dismissed = widgets::icon_button(ui, Icon::Close, "Dismiss this message", "Dismiss", true, false).clicked();
        });
    });
    dismissed
}

fn job(ui: &mut Ui, what: &str, fraction: Option<f32>) {
    let colors = style::colors(ui.visuals());
    card(ui, colors.line, |ui| {
        ui.horizontal(|ui| {
            let mut text = what.to_owned();
            if let Some(first) = text.get_mut(..1) {
                first.make_ascii_uppercase();
            }
            ui.label(format!("{text}…"));
            if let Some(fraction) = fraction {
                let percent = format!("{:3.0} %", 100.0 * fraction);
                ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                    ui.label(RichText::new(percent).monospace());
                });
            }
        });
        if let Some(fraction) = fraction {
            let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), 3.0), egui::Sense::hover());
            ui.painter().rect_filled(rect, 1.5, colors.line);
            let done = rect.with_max_x(rect.left() + rect.width() * fraction.clamp(0.0, 1.0));
            ui.painter().rect_filled(done, 1.5, colors.accent);
            response.widget_info(|| {
                let mut info = egui::WidgetInfo::labeled(egui::Role::ProgressIndicator, true, what);
                info.value = Some(f64::from(fraction));
                info
            });
        }
    });
}

/// Covers the window while something is held over it, or while it waits for a run to be saved.
pub fn overlay(context: &Context, closing: bool) {
    let hovering = context.input(|input| !input.raw.hovered_files.is_empty());
    let text = match (closing, hovering) {
        (true, _) => "Saving the run…",
        (false, true) => "Drop to open: a data set, a run, or a checkpoint",
        (false, false) => return,
    };
    let rect = context.content_rect();
    let visuals = context.global_style().visuals.clone();
    let colors = style::colors(&visuals);
    Area::new(Id::unique("overlay")).order(Order::Tooltip).fixed_pos(rect.min).interactable(closing).show(
        context,
        |ui| {
            // Nothing below takes the pointer while the window closes.
            let sense = if closing { egui::Sense::click_and_drag() } else { egui::Sense::hover() };
            let response = ui.allocate_rect(rect, sense);
            response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Label, true, text));
            let painter = ui.painter();
            painter.rect_filled(rect, 0.0, visuals.panel_fill.gamma_multiply(0.94));
            painter.rect_stroke(rect.shrink(14.0), 12.0, Stroke::new(2.0, colors.accent), egui::StrokeKind::Inside);
            painter.text(rect.center(), Align2::CENTER_CENTER, text, FontId::proportional(22.0), visuals.text_color());
        },
    );
}
