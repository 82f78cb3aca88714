//! What several of the analysis panels draw alike.

use eframe::egui::{
    self, Align2, Color32, CornerRadius, FontId, Painter, Rangef, Rect, Response, RichText, StrokeKind, Ui,
};

use egui_plot::AxisHints;

use crate::app::scores::Scope;
use crate::app::shown::Shown;
use crate::app::state::State;
use crate::app::style;
use crate::train::metrics::Confusion;

/// Lines for numbers in narrow columns.
pub const FIGURE: FontId = FontId::new(11.0, egui::FontFamily::Monospace);
/// Lines of secondary text.
pub const SMALL: FontId = FontId::new(11.0, egui::FontFamily::Proportional);

/// The colour of a class; none for free space, which is never drawn.
pub fn class_color(shown: &Shown, safe: bool, class: usize) -> Option<Color32> {
    let [r, g, b] = *shown.colors(safe).get(class).filter(|_| class > 0)?;
    Some(Color32::from_rgb(r, g, b))
}

/// The name of a class.
pub fn class_name(shown: &Shown, class: usize) -> &str {
    shown.classes.names.get(class).map_or("Unknown", String::as_str)
}

/// Black or white, whichever is legible on `color`.
pub fn ink_on(color: Color32) -> Color32 {
    let [r, g, b, _] = color.to_array().map(f32::from);
    if 0.299 * r + 0.587 * g + 0.114 * b > 140.0 { Color32::BLACK } else { Color32::WHITE }
}

/// A square of `color`, or an empty one.
pub fn swatch(ui: &Ui, painter: &Painter, rect: Rect, color: Option<Color32>) {
    let radius = CornerRadius::same(2);
    match color {
        Some(color) => painter.rect_filled(rect, radius, color),
        None => painter.rect_stroke(rect, radius, (1.0, style::colors(ui.visuals()).quiet), StrokeKind::Inside),
    };
}

/// The outline of what has the keyboard's focus.
pub fn focus_ring(ui: &Ui, response: &Response) {
    if response.has_focus() {
        let stroke = (1.5, style::colors(ui.visuals()).accent);
        ui.painter().rect_stroke(response.rect, 3.0, stroke, StrokeKind::Inside);
    }
}

/// A heading within a panel.
pub fn heading(ui: &mut Ui, text: &str) {
    ui.label(RichText::new(text).strong());
}

/// A secondary line.
pub fn note(ui: &mut Ui, text: impl Into<String>) -> Response {
    ui.label(RichText::new(text).color(style::colors(ui.visuals()).quiet).small())
}

/// Text that stays within `width` of `painter`, cut with an ellipsis.
pub fn text_within(
    painter: &Painter,
    at: egui::Pos2,
    align: Align2,
    text: &str,
    font: FontId,
    color: Color32,
    width: f32,
) {
    let mut job = egui::text::LayoutJob::simple_singleline(text.to_owned(), font, color);
    job.wrap = egui::text::TextWrapping::truncate_at_width(width);
    let galley = painter.layout_job(job);
    painter.galley(align.anchor_size(at, galley.size()).min, galley, color);
}

/// The switch between frame, clip and validation, and what was counted there. Where nothing was, the widest scope below
/// stands in and the switch says so.
pub fn scope_switch(ui: &mut Ui, state: &State, scope: &mut Scope) -> Option<(Scope, Confusion)> {
    let counted = Scope::ALL.map(|scope| scope.confusion(state));
    let last = Scope::ALL.iter().position(|other| other == scope).unwrap_or(0);
    let place = (0..=last).rev().chain(last..Scope::ALL.len()).find(|&place| counted[place].is_some());
    ui.horizontal(|ui| {
        ui.spacing_mut().item_spacing.x = 2.0;
        ui.spacing_mut().button_padding.x = 6.0;
        for (i, choice) in Scope::ALL.into_iter().enumerate() {
            let is_on = Some(i) == place;
            let button = egui::Button::selectable(is_on, RichText::new(choice.name()).font(SMALL));
            let response = ui.add_enabled(counted[i].is_some(), button);
            let tip = format!("Scores of {}", choice.phrase());
            let response = response.on_hover_text(&tip);
            let response = response.on_disabled_hover_text(match choice {
                Scope::Validation => "There was no validation yet (F7 validates now)",
                _ => "There is no model yet",
            });
            response.widget_info(|| egui::WidgetInfo::selected(egui::Role::Button, counted[i].is_some(), is_on, &tip));
            if response.clicked() {
                *scope = choice;
            }
        }
    });
    let place = place?;
    counted.into_iter().nth(place).flatten().map(|confusion| (Scope::ALL[place], confusion))
}

/// A share as `64.0`, for columns whose head says `%`.
pub fn bare_percent(fraction: Option<f64>) -> String {
    fraction.map_or_else(|| "–".to_owned(), |fraction| format!("{:.1}", fraction * 100.0))
}

/// Divides the room into `count` equal parts: beside each other where it is wide, else below each other.
pub fn parts(ui: &mut Ui, count: usize) -> Vec<Ui> {
    const GAP: f32 = 16.0;
    const LEAST_HEIGHT: f32 = 90.0;
    let room = ui.available_size();
    let share = |side: f32| (side - GAP * (count - 1) as f32) / count as f32;
    let is_wide = room.x >= 280.0 * count as f32;
    let size = if is_wide {
        egui::vec2(share(room.x), room.y.max(LEAST_HEIGHT))
    } else {
        egui::vec2(room.x, share(room.y).max(LEAST_HEIGHT))
    };
    let step = if is_wide { egui::vec2(size.x + GAP, 0.0) } else { egui::vec2(0.0, size.y + GAP) };
    let (whole, _) = ui.allocate_exact_size(size + step * (count - 1) as f32, egui::Sense::hover());
    let part = |i: usize| {
        let rect = Rect::from_min_size(whole.min + step * i as f32, size);
        let layout = egui::Layout::top_down(egui::Align::Min);
        ui.new_child(egui::UiBuilder::new().max_rect(rect).layout(layout).id_salt(i))
    };
    (0..count).map(part).collect()
}

/// An axis with small, quiet numbers at every mark.
pub fn axis<'a>(hints: AxisHints<'a>, ui: &Ui) -> AxisHints<'a> {
    let font = egui::TextStyle::Small.resolve(ui.style());
    hints.label_spacing(Rangef::new(1.0, 2.0)).tick_label_color(style::colors(ui.visuals()).quiet).tick_label_font(font)
}
