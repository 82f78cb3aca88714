//! All that is known about one voxel: the one under the pointer, else the selected one.

use eframe::egui::{self, Align2, Color32, FontId, Rect, Sense, StrokeKind, Ui, pos2, vec2};

use super::common::{FIGURE, SMALL, class_color, class_name, focus_ring, heading, note, swatch};
use crate::app::actions::Action;
use crate::app::shown::Shown;
use crate::app::state::State;
use crate::app::style;
use crate::app::widgets;
use crate::train::events::Likely;
use crate::view::VoxelOutcome;

/// Draws the panel.
pub fn ui(ui: &mut Ui, state: &mut State) {
    let Some(shown) = &state.shown else {
        widgets::empty(ui, "Open a data set or a run first.");
        return;
    };
    let Some(voxel) = state.hovered.or(state.selected) else {
        heading(ui, "No voxel is selected");
        hints(ui, None);
        return;
    };
    let t = state.frame();
    let at = shown.grid.index(voxel[0], voxel[1], voxel[2]);
    let Some(&truth) = shown.frame(&shown.truth, t).get(at) else { return };
    let label = state.model_labels(t).and_then(|labels| labels.get(at)).copied();
    let observed = shown.frame(&shown.observed, t).get(at).copied().unwrap_or(true);

    ui.spacing_mut().item_spacing.y = 4.0;
    let [x, y, z] = voxel;
    heading(ui, if state.hovered.is_some() { "Under the pointer" } else { "Selected voxel" });
    widgets::figure(ui, "Index x, y, z", format!("{x:>3}, {y:>3}, {z:>3}"));
    let [px, py, pz] = shown.position_m(voxel);
    widgets::figure(ui, "Position", format!("{px:>6.2}, {py:>6.2}, {pz:>5.2} m"))
        .on_hover_text("Metres forward (x), to the right (y) and up (z) from the sensor to the voxel's middle");
    widgets::figure(ui, "Observed", if observed { "yes" } else { "no" })
        .on_hover_text("Voxels that no sensor ray met are neither scored nor judged");
    ui.add_space(2.0);
    let safe = state.view.safe_colors;
    class_line(ui, "Original", class_name(shown, truth.into()), class_color(shown, safe, truth.into()));
    if let Some(label) = label {
        let (name, source) = (class_name(shown, label.into()), if state.mixed.is_some() { "Mixed" } else { "Model" });
        class_line(ui, source, name, class_color(shown, safe, label.into()));
        let outcome = VoxelOutcome::of(truth, label, observed);
        let [r, g, b] = outcome.color(style::scene_theme(ui.visuals()));
        let color = (outcome != VoxelOutcome::Free).then(|| Color32::from_rgb(r, g, b));
        let name = if outcome == VoxelOutcome::Free { "Free in both" } else { outcome.name() };
        class_line(ui, "Outcome", name, color);
    }
    if let Some(likely) = state.model_likely(t).and_then(|likely| likely.get(at)) {
        ui.add_space(4.0);
        probabilities(ui, shown, safe, *likely);
    }
    ui.add_space(4.0);
    let seek = over_time(ui, state, shown, at);
    ui.add_space(4.0);
    hints(ui, state.selected);
    if let Some(frame) = seek {
        let frames = shown.frames;
        state.playback.seek(frame, frames);
    }
}

fn class_line(ui: &mut Ui, what: &str, name: &str, color: Option<Color32>) {
    let (row, response) = ui.allocate_exact_size(vec2(ui.available_width(), 18.0), Sense::hover());
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Label, true, format!("{what}: {name}")));
    let (painter, quiet) = (ui.painter(), style::colors(ui.visuals()).quiet);
    painter.text(row.left_center(), Align2::LEFT_CENTER, what, FontId::proportional(13.0), quiet);
    let square = Rect::from_center_size(pos2(row.left() + 82.0, row.center().y), vec2(12.0, 12.0));
    swatch(ui, painter, square, color);
    let at = pos2(square.right() + 7.0, row.center().y);
    painter.text(at, Align2::LEFT_CENTER, name, FontId::proportional(13.0), ui.visuals().strong_text_color());
}

/// The three likeliest classes, and how undecided the model is.
fn probabilities(ui: &mut Ui, shown: &Shown, safe: bool, likely: Likely) {
    heading(ui, "Probabilities");
    for (class, probability) in likely.classes().into_iter().zip(likely.probabilities()) {
        let (row, response) = ui.allocate_exact_size(vec2(ui.available_width(), 17.0), Sense::hover());
        if class == Likely::NO_CLASS {
            continue;
        }
        let name = class_name(shown, class.into());
        let figure = format!("{:.1} %", probability * 100.0);
        response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Label, true, format!("{name} {figure}")));
        let colors = style::colors(ui.visuals());
        let painter = ui.painter();
        painter.text(
            row.left_center(),
            Align2::LEFT_CENTER,
            name,
            FontId::proportional(12.5),
            ui.visuals().text_color(),
        );
        painter.text(row.right_center(), Align2::RIGHT_CENTER, figure, FIGURE, ui.visuals().text_color());
        let track = Rect::from_min_max(
            pos2(row.left() + 76.0, row.center().y - 4.0),
            pos2(row.right() - 54.0, row.center().y + 4.0),
        );
        painter.rect_filled(track, 2.0, colors.line);
        let color = class_color(shown, safe, class.into()).unwrap_or(colors.quiet);
        painter.rect_filled(track.with_max_x(track.left() + track.width() * probability), 2.0, color);
    }
    let bits = bits(likely.entropy(), shown.classes.len());
    widgets::figure(ui, "Entropy", format!("{:.2}   {bits:.2} bit", likely.entropy())).on_hover_text(format!(
        "0: the model is certain; 1: all {} classes are alike to it, which is {:.2} bit",
        shown.classes.len(),
        (shown.classes.len() as f32).log2()
    ));
}

/// An entropy that is 1 when all `classes` are alike, in bits.
fn bits(entropy: f32, classes: usize) -> f32 {
    entropy * (classes.max(1) as f32).log2()
}

/// The voxel in every frame of the clip; returns the frame that was clicked.
fn over_time(ui: &mut Ui, state: &State, shown: &Shown, at: usize) -> Option<usize> {
    heading(ui, "Over time");
    let has_model = state.model_labels(0).is_some();
    let (rows, height) = (1 + usize::from(has_model), 15.0);
    let size = vec2(ui.available_width(), rows as f32 * (height + 2.0) + 12.0);
    let (rect, _) = ui.allocate_exact_size(size, Sense::hover());
    let colors = style::colors(ui.visuals());
    let names = 58.0;
    for (row, name) in ["Original", "Model"].into_iter().take(rows).enumerate() {
        let y = rect.top() + row as f32 * (height + 2.0) + height / 2.0;
        ui.painter().text(pos2(rect.left(), y), Align2::LEFT_CENTER, name, FontId::proportional(11.0), colors.quiet);
    }
    let width = (rect.width() - names) / shown.frames.max(1) as f32;
    let mut clicked = None;
    for t in 0..shown.frames {
        let left = rect.left() + names + t as f32 * width;
        let column = Rect::from_min_size(pos2(left, rect.top()), vec2(width, rows as f32 * (height + 2.0)));
        let response = ui.interact(column, ui.scope_id().with(("time", t)), Sense::click());
        let labels = [Some(shown.frame(&shown.truth, t)), state.model_labels(t)];
        let labels = labels.map(|labels| labels.and_then(|labels| labels.get(at)).copied().map(usize::from));
        let name = match labels {
            [Some(truth), Some(label)] if truth != label => {
                format!("Frame {}: {} taken for {}", t + 1, class_name(shown, truth), class_name(shown, label))
            }
            [truth, _] => format!("Frame {}: {}", t + 1, class_name(shown, truth.unwrap_or(0))),
        };
        let is_now = t == state.frame();
        response.widget_info(|| egui::WidgetInfo::selected(egui::Role::Button, true, is_now, &name));
        let response = response.on_hover_text(&name);
        if response.clicked() {
            clicked = Some(t);
        }
        let gap = (width * 0.12).min(1.0);
        for (row, label) in labels.into_iter().enumerate() {
            let Some(label) = label else { continue };
            let min = pos2(left + gap, rect.top() + row as f32 * (height + 2.0));
            let cell = Rect::from_min_size(min, vec2(width - 2.0 * gap, height));
            let color = class_color(shown, state.view.safe_colors, label).unwrap_or(colors.bar);
            ui.painter().rect_filled(cell, 1.0, color);
        }
        if is_now || response.hovered() {
            let stroke = (1.5, if is_now { colors.accent } else { colors.quiet });
            ui.painter().rect_stroke(column.shrink2(vec2(0.0, -1.0)), 2.0, stroke, StrokeKind::Outside);
        }
        focus_ring(ui, &response);
    }
    let (y, last) = (rect.bottom(), shown.frames);
    let quiet = colors.quiet;
    ui.painter().text(pos2(rect.left() + names, y), Align2::LEFT_BOTTOM, "1", FIGURE, quiet);
    ui.painter().text(pos2(rect.right(), y), Align2::RIGHT_BOTTOM, last.to_string(), FIGURE, quiet);
    clicked
}

/// How to get at a voxel.
fn hints(ui: &mut Ui, selected: Option<[usize; 3]>) {
    let context = ui.ctx().clone();
    let key = |action: Action| action.entry().keys.first().map(|key| context.format_shortcut(key)).unwrap_or_default();
    if selected.is_none() {
        note(ui, "Point at a voxel in a view to read it here; click to keep it.");
        note(ui, format!("{} selects the voxel in the middle of the view.", key(Action::SelectCentre)));
        return;
    }
    for (name, there, back) in [
        ("Move along x", Action::MoveSelection(1, 0, 0), Action::MoveSelection(-1, 0, 0)),
        ("Move along y", Action::MoveSelection(0, 1, 0), Action::MoveSelection(0, -1, 0)),
        ("Move along z", Action::MoveSelection(0, 0, 1), Action::MoveSelection(0, 0, -1)),
    ] {
        key_row(ui, name, &format!("{}, {}", key(there), key(back)));
    }
    key_row(ui, "Deselect", &key(Action::Deselect));
}

fn key_row(ui: &mut Ui, name: &str, keys: &str) {
    let (row, response) = ui.allocate_exact_size(vec2(ui.available_width(), 14.0), Sense::hover());
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Label, true, format!("{name}: {keys}")));
    let quiet = style::colors(ui.visuals()).quiet;
    ui.painter().text(row.left_center(), Align2::LEFT_CENTER, name, SMALL, quiet);
    ui.painter().text(row.right_center(), Align2::RIGHT_CENTER, keys, SMALL, quiet);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_is_told_in_bits_too() {
        assert_eq!(bits(1.0, 8), 3.0);
        assert_eq!(bits(0.5, 16), 2.0);
        assert_eq!(bits(0.0, 11), 0.0);
        assert_eq!(bits(1.0, 1), 0.0);
    }
}
