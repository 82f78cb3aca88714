//! The first-run page: three ways to begin, beside a living comparison.

use std::path::PathBuf;

use eframe::egui::{
    self, Align2, CentralPanel, FontId, Label, Rect, RichText, Sense, Stroke, StrokeKind, Ui, UiBuilder, pos2, vec2,
};

use super::App;
use super::actions::Action;
use super::icons::Icon;
use super::layout::Pane;
use super::menu::recent_row;
use super::state::Page;
use super::style;
use super::view::View;
use super::widgets;
use crate::data::formats::FORMAT_NAMES;

/// The three choices.
const CHOICES: [(Action, Icon, &str); 3] = [
    (Action::GenerateTown, Icon::Town, "A small moving town, made here in seconds: nothing to download"),
    (Action::OpenDataset, Icon::Folder, FORMAT_NAMES),
    (Action::OpenRun, Icon::Curve, "A trained model with its curves: look at it, or train on"),
];

/// How fast the comparison turns, radians a second.
const TURN_RAD_PER_SEC: f32 = 0.12;
/// Time between two pictures of the turning scene, seconds.
const PICTURE_SECS: f32 = 1.0 / 30.0;

const MARGIN: f32 = 36.0;
/// Above each view stands its name.
const NAME_HEIGHT: f32 = 34.0;
/// Recent data sets and runs in view.
const RECENT_ROWS: usize = 8;

/// What the page remembers: its own view, so that its slow turn is nobody's setting.
#[derive(Debug)]
pub struct Memory {
    view: View,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory { view: View { ornaments: false, pitch_rad: 0.66, zoom: 1.15, ..View::default() } }
    }
}

/// Draws the page.
pub fn ui(ui: &mut Ui, app: &mut App) {
    let context = ui.ctx().clone();
    let mut wanted = None;
    let mut recent = None;
    CentralPanel::no_frame().show(ui, |ui| {
        let room = ui.max_rect();
        let left = (room.width() * 0.34).clamp(330.0, 520.0);
        let column = Rect::from_min_max(
            pos2(room.left() + MARGIN, room.top() + MARGIN),
            pos2(room.left() + MARGIN + left, room.bottom() - MARGIN / 2.0),
        );
        ui.scope_builder(UiBuilder::new().max_rect(column), |ui| {
            (wanted, recent) = choices(ui, app);
        });
        let rest = Rect::from_min_max(pos2(column.right() + MARGIN, room.top()), room.max);
        ui.painter().vline(rest.left(), rest.y_range(), Stroke::new(1.0, style::colors(ui.visuals()).line));
        ui.scope_builder(UiBuilder::new().max_rect(rest), |ui| comparison(ui, app));
    });
    if let Some(action) = wanted {
        app.perform(&context, action);
    }
    if let Some(path) = recent {
        app.open_recent(path);
    }
}

fn choices(ui: &mut Ui, app: &App) -> (Option<Action>, Option<PathBuf>) {
    let colors = style::colors(ui.visuals());
    let (mut wanted, mut recent) = (None, None);
    // Low windows have no room for air.
    let height = ui.max_rect().height();
    let air = ((height - 620.0) / 6.0).clamp(2.0, 130.0);
    let card_height = ((height - 270.0) / 3.0).clamp(62.0, 88.0);
    ui.add_space(air);
    ui.label(RichText::new("sep4d").size(38.0).strong());
    let about = "Compress moving 3D scenes into one continuous 4D latent, and watch what comes back.";
    ui.add(Label::new(RichText::new(about).size(15.0).color(colors.quiet)).wrap());
    ui.add_space(14.0 + air / 3.0);
    ui.spacing_mut().item_spacing.y = 12.0;
    for (action, icon, about) in CHOICES {
        if card(ui, card_height, (action, icon, about)) {
            wanted = Some(action);
        }
    }
    ui.spacing_mut().item_spacing.y = 2.0;
    ui.add_space(10.0 + air / 2.0);
    if !app.state.recent.paths.is_empty() {
        ui.label(RichText::new("Recent").strong());
        ui.add_space(4.0);
        let rows = ((ui.available_height() - 60.0) / 26.0).max(1.0) as usize;
        for path in app.state.recent.paths.iter().take(rows.min(RECENT_ROWS)) {
            if recent_row(ui, path).clicked() {
                recent = Some(path.clone());
            }
        }
        ui.add_space(10.0);
    }
    let key = ui.ctx().format_shortcut(&Action::Palette.entry().keys[0]);
    let hint = format!("Or drop a folder or a checkpoint here. {key} finds commands, F1 lists keys.");
    ui.add(Label::new(RichText::new(hint).size(12.0).color(colors.quiet)).wrap());
    (wanted, recent)
}

/// One large choice; true if it was taken.
fn card(ui: &mut Ui, height: f32, (action, icon, about): (Action, Icon, &str)) -> bool {
    let colors = style::colors(ui.visuals());
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), height), Sense::click());
    let entry = action.entry();
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, true, entry.name));
    let first = action == CHOICES[0].0;
    let lit = response.hovered() || response.has_focus();
    let fill = if first { colors.accent.gamma_multiply(if lit { 0.3 } else { 0.18 }) } else { colors.bar };
    let line = if lit {
        colors.accent
    } else if first {
        colors.accent.gamma_multiply(0.6)
    } else {
        colors.line
    };
    let painter = ui.painter();
    painter.rect(rect, 10.0, fill, Stroke::new(1.0, line), StrokeKind::Inside);
    let square = Rect::from_center_size(pos2(rect.left() + 44.0, rect.center().y), vec2(52.0, 52.0));
    icon.paint(painter, square, 30.0, colors.accent);
    let text = ui.visuals().text_color();
    let left = rect.left() + 88.0;
    let width = rect.right() - 16.0 - left;
    let key = ui.ctx().format_shortcut(&entry.keys[0]);
    let key = painter.layout_no_wrap(key, FontId::monospace(11.0), colors.quiet);
    let title = entry.name.trim_end_matches('…').to_owned();
    let title = painter.layout_no_wrap(title, FontId::proportional(17.0), text);
    let about = painter.layout(about.to_owned(), FontId::proportional(13.0), colors.quiet, width);
    let top = rect.center().y - (title.size().y + 4.0 + about.size().y) / 2.0;
    painter.galley(pos2(rect.right() - 16.0 - key.size().x, top + 3.0), key, colors.quiet);
    painter.galley(pos2(left, top + title.size().y + 4.0), about, colors.quiet);
    painter.galley(pos2(left, top), title, text);
    response.on_hover_text(widgets::tip(ui, action)).on_hover_cursor(egui::CursorIcon::PointingHand).clicked()
}

/// The clip in two linked views that slowly turn, and the way to explore it.
fn comparison(ui: &mut Ui, app: &mut App) {
    let colors = style::colors(ui.visuals());
    let room = ui.max_rect();
    let (views, foot) = room.split_top_bottom_at_y(room.bottom() - 64.0);
    let whose = match &app.state.shown {
        None => "Nothing is open yet",
        Some(_) if app.is_example() => "A town that the bundled model has never seen, and what it makes of it",
        Some(_) => "What is open",
    };
    ui.scope_builder(UiBuilder::new().max_rect(foot.shrink2(vec2(20.0, 14.0))), |ui| {
        ui.horizontal_centered(|ui| {
            let label = if app.is_example() { "Explore this example" } else { "Go to the workspace" };
            let button = egui::Button::new(RichText::new(label).size(14.0)).min_size(vec2(168.0, 34.0));
            let button = button.stroke(Stroke::new(1.0, colors.accent));
            let key = ui.ctx().format_shortcut(&Action::Welcome.entry().keys[0]);
            let tip = format!("Scrub, turn, hover over voxels ({key})");
            if ui.add_enabled(app.state.shown.is_some(), button).on_hover_text(tip).clicked() {
                app.state.page = Page::Workspace;
            }
            ui.label(RichText::new(key).monospace().size(11.0).color(colors.quiet));
            ui.add_space(8.0);
            ui.add(Label::new(RichText::new(whose).color(colors.quiet)).truncate());
        });
    });
    if ui.style().animation_time > 0.0 && app.gpu.is_some() {
        let passed = ui.input(|input| input.stable_dt).min(0.1);
        app.welcome.view.orbit(TURN_RAD_PER_SEC * passed, 0.0);
        ui.ctx().request_repaint_after_secs(PICTURE_SECS);
        // The turn is smooth by itself.
        ui.style_mut().animation_time = 0.0;
    }
    let beside = views.width() > 1.3 * views.height();
    let (first, second) = match beside {
        true => views.split_left_right_at_fraction(0.5),
        false => views.split_top_bottom_at_fraction(0.5),
    };
    std::mem::swap(&mut app.welcome.view, &mut app.state.view);
    for (rect, pane) in [(first, Pane::Original), (second, Pane::Reconstruction)] {
        let (above, rect) = rect.split_top_bottom_at_y(rect.top() + NAME_HEIGHT);
        let at = above.left_center() + vec2(20.0, 0.0);
        ui.painter().text(at, Align2::LEFT_CENTER, pane.title(), FontId::proportional(15.0), ui.visuals().text_color());
        ui.scope_builder(UiBuilder::new().max_rect(rect.shrink2(vec2(1.0, 0.0))), |ui| {
            app.viewports.ui(ui, &mut app.state, pane);
        });
    }
    std::mem::swap(&mut app.welcome.view, &mut app.state.view);
}
