//! What was taken for what: a matrix whose cells lead to where it was worst.

use eframe::egui::epaint::TextShape;
use eframe::egui::{self, Align2, Color32, FontId, Rect, RichText, Sense, StrokeKind, Ui, pos2, vec2};

use super::common::{
    FIGURE, SMALL, class_color, class_name, focus_ring, heading, note, scope_switch, swatch, text_within,
};
use super::heat::mix;
use crate::app::scores::{Place, Scope, worst};
use crate::app::shown::Shown;
use crate::app::state::State;
use crate::app::style;
use crate::app::widgets;
use crate::figures::thousands;
use crate::train::metrics::Confusion;

/// So many mistakes are listed.
const LISTED: usize = 5;

/// What the panel remembers.
#[derive(Debug, Default)]
pub struct Settings {
    /// Colours by the count itself, on a logarithmic scale, rather than by the share of the row.
    by_count: bool,
    /// The cell that was last pointed at or focused: truth and prediction.
    read: Option<[usize; 2]>,
}

/// Draws the panel; returns where to go.
pub fn ui(ui: &mut Ui, state: &mut State, scope: &mut Scope, settings: &mut Settings) -> Option<Place> {
    ui.spacing_mut().item_spacing.y = 4.0;
    let counted = state.shown.is_some().then(|| scope_switch(ui, state, scope)).flatten();
    let (Some((scope, confusion)), Some(shown)) = (counted, &state.shown) else {
        widgets::empty(ui, "Train a model or open a run\nto see what it takes for what.");
        return None;
    };
    ui.horizontal(|ui| {
        ui.spacing_mut().item_spacing.x = 2.0;
        for (by_count, name, tip) in [
            (false, "Share of row", "Colours show which part of a class was taken for another"),
            (true, "Count", "Colours show how many voxels were taken for another class, on a logarithmic scale"),
        ] {
            let button = egui::Button::selectable(settings.by_count == by_count, RichText::new(name).font(SMALL));
            if ui.add(button).on_hover_text(tip).clicked() {
                settings.by_count = by_count;
            }
        }
    });
    let mut clicked = matrix(ui, state, shown, &confusion, settings);
    let [truth, prediction] = settings.read.unwrap_or([0, 0]);
    match settings.read.filter(|read| read.iter().all(|class| *class < confusion.classes())) {
        Some(_) => ui.label(sentence(shown, &confusion, truth, prediction)),
        None => note(ui, "Point at a cell, or reach it with Tab and the arrow keys, to read it."),
    };
    ui.add_space(4.0);
    heading(ui, "Most frequent mistakes");
    for (rank, cell) in most_frequent(&confusion).into_iter().enumerate() {
        if mistake(ui, state, shown, &confusion, rank, cell) {
            clicked = Some(cell);
        }
    }
    ui.add_space(4.0);
    note(
        ui,
        format!(
            "Rows: the class in the data. Columns: what it was taken for. Blue: recognised; orange: mistaken. Counted over {}.",
            scope.phrase()
        ),
    );
    note(ui, "A click shows the class alone, in the frame where this happened most.");
    let [truth, prediction] = clicked?;
    let place = worst(state, scope, |frame| {
        let count = frame.count(truth, prediction);
        (count > 0).then_some(count as f64)
    });
    state.view.solo = u8::try_from(truth).ok().filter(|class| *class > 0);
    place
}

/// The mistakes that happened most, the most frequent first.
fn most_frequent(confusion: &Confusion) -> Vec<[usize; 2]> {
    let classes = 0..confusion.classes();
    let cells = classes.clone().flat_map(|truth| classes.clone().map(move |prediction| [truth, prediction]));
    let mut mistakes: Vec<_> = cells.filter(|[t, p]| t != p && confusion.count(*t, *p) > 0).collect();
    mistakes.sort_by_key(|[t, p]| std::cmp::Reverse(confusion.count(*t, *p)));
    mistakes.truncate(LISTED);
    mistakes
}

/// A line about a mistake; true if it was clicked.
fn mistake(
    ui: &mut Ui,
    state: &State,
    shown: &Shown,
    confusion: &Confusion,
    rank: usize,
    [truth, prediction]: [usize; 2],
) -> bool {
    let (row, response) = ui.allocate_exact_size(vec2(ui.available_width(), 18.0), Sense::click());
    response.widget_info(|| {
        let text = format!("{}. {}", rank + 1, sentence(shown, confusion, truth, prediction));
        egui::WidgetInfo::labeled(egui::Role::Button, true, text)
    });
    let painter = ui.painter();
    if response.hovered() {
        painter.rect_filled(row, 3.0, ui.visuals().widgets.hovered.weak_bg_fill);
    }
    let ink = ui.visuals().text_color();
    let room = (row.width() - 104.0) / 2.0;
    for (i, class) in [truth, prediction].into_iter().enumerate() {
        let left = row.left() + room * i as f32;
        let square = Rect::from_center_size(pos2(left + 6.0, row.center().y), vec2(9.0, 9.0));
        swatch(ui, painter, square, class_color(shown, state.view.safe_colors, class));
        let at = pos2(square.right() + 5.0, row.center().y);
        let name = class_name(shown, class);
        text_within(painter, at, Align2::LEFT_CENTER, name, FontId::proportional(12.0), ink, room - 18.0);
    }
    let count = thousands(confusion.count(truth, prediction));
    painter.text(row.right_center() - vec2(50.0, 0.0), Align2::RIGHT_CENTER, count, FIGURE, ink);
    let share = crate::figures::percent(share(confusion, truth, prediction));
    painter.text(row.right_center() - vec2(1.0, 0.0), Align2::RIGHT_CENTER, share, FIGURE, ink);
    focus_ring(ui, &response);
    response.clicked()
}

/// "Road taken for Sidewalk: 123 voxels, 2.1 % of Road".
fn sentence(shown: &Shown, confusion: &Confusion, truth: usize, prediction: usize) -> String {
    let count = confusion.count(truth, prediction);
    let [is, taken_for] = [truth, prediction].map(|class| class_name(shown, class));
    let what = if truth == prediction { format!("{is} recognised") } else { format!("{is} taken for {taken_for}") };
    let share = crate::figures::percent(share(confusion, truth, prediction));
    format!("{what}: {} voxels, {share} of {is}", thousands(count))
}

/// The part of a row that stands in one column.
fn share(confusion: &Confusion, truth: usize, prediction: usize) -> Option<f64> {
    let row = confusion.truth(truth);
    (row > 0).then(|| confusion.count(truth, prediction) as f64 / row as f64)
}

/// How strongly a cell is coloured, 0..1.
fn strength(confusion: &Confusion, by_count: bool, truth: usize, prediction: usize) -> f64 {
    if by_count {
        let classes = 0..confusion.classes();
        let most = classes.clone().flat_map(|t| classes.clone().map(move |p| (t, p)));
        let most = most.map(|(t, p)| confusion.count(t, p)).max().unwrap_or(0).max(1) as f64;
        (confusion.count(truth, prediction) as f64).ln_1p() / most.ln_1p()
    } else {
        // The root brings out the small shares, which are what one looks for.
        share(confusion, truth, prediction).unwrap_or(0.0).sqrt()
    }
}

/// Draws the cells with their names around; returns the one that was clicked.
fn matrix(
    ui: &mut Ui,
    state: &State,
    shown: &Shown,
    confusion: &Confusion,
    settings: &mut Settings,
) -> Option<[usize; 2]> {
    let classes = confusion.classes();
    let names = if ui.available_width() < 400.0 { 84.0 } else { 92.0 };
    let colors = style::colors(ui.visuals());
    // Room is left for the lines below.
    let room = vec2(ui.available_width() - names, (ui.available_height() - names - 210.0).max(11.0 * classes as f32));
    let cell = (room.x.min(room.y) / classes as f32).floor().clamp(8.0, 46.0);
    let (rect, _) = ui.allocate_exact_size(egui::Vec2::splat(names + cell * classes as f32), Sense::hover());
    let origin = rect.min + vec2(names, names);
    let font = FontId::proportional((cell * 0.72).clamp(8.0, 12.5));
    let square = (cell * 0.6).min(10.0);
    let is_dark = ui.visuals().dark_mode;
    let [ground, hit, miss] = if is_dark {
        [[30, 33, 39], [86, 180, 240], [240, 120, 40]]
    } else {
        [[240, 242, 245], [0, 90, 170], [206, 72, 0]]
    };
    let mut clicked = None;
    let mut read = None;
    for truth in 0..classes {
        for prediction in 0..classes {
            let min = origin + vec2(prediction as f32 * cell, truth as f32 * cell);
            let place = Rect::from_min_size(min, vec2(cell - 1.0, cell - 1.0));
            let strength = strength(confusion, settings.by_count, truth, prediction);
            let color = mix(ground, if truth == prediction { hit } else { miss }, strength as f32);
            ui.painter().rect_filled(place, 1.0, color);
            if confusion.count(truth, prediction) == 0 {
                continue;
            }
            let response = ui.interact(place, ui.scope_id().with((truth, prediction)), Sense::click());
            response.widget_info(|| {
                egui::WidgetInfo::labeled(egui::Role::Button, true, sentence(shown, confusion, truth, prediction))
            });
            if cell >= 34.0 {
                let share = share(confusion, truth, prediction).unwrap_or(0.0) * 100.0;
                let ink = super::common::ink_on(color);
                ui.painter().text(place.center(), Align2::CENTER_CENTER, format!("{share:.1}"), FIGURE, ink);
            }
            if response.hovered() || response.has_focus() && read.is_none() {
                read = Some([truth, prediction]);
            }
            if response.clicked() {
                clicked = Some([truth, prediction]);
            }
        }
    }
    settings.read = read.or(settings.read);
    for class in 0..classes {
        let color = class_color(shown, state.view.safe_colors, class);
        let is_read = |i: usize| settings.read.is_some_and(|read| read[i] == class);
        let ink = |is_read| if is_read { ui.visuals().strong_text_color() } else { colors.quiet };
        let middle = (class as f32 + 0.5) * cell - 0.5;
        let name = class_name(shown, class);

        let y = origin.y + middle;
        let mark = Rect::from_center_size(pos2(origin.x - 4.0 - square / 2.0, y), vec2(square, square));
        swatch(ui, ui.painter(), mark, color);
        let at = pos2(mark.left() - 4.0, y);
        text_within(ui.painter(), at, Align2::RIGHT_CENTER, name, font.clone(), ink(is_read(0)), names - 22.0);

        let x = origin.x + middle;
        let mark = Rect::from_center_size(pos2(x, origin.y - 4.0 - square / 2.0), vec2(square, square));
        swatch(ui, ui.painter(), mark, color);
        upright(ui, pos2(x, mark.top() - 4.0), name, font.clone(), ink(is_read(1)));
    }
    if let Some([truth, prediction]) = settings.read.filter(|read| read.iter().all(|class| *class < classes)) {
        let min = origin + vec2(prediction as f32 * cell, truth as f32 * cell);
        let place = Rect::from_min_size(min, vec2(cell - 1.0, cell - 1.0));
        ui.painter().rect_stroke(place, 1.0, (1.5, ui.visuals().strong_text_color()), StrokeKind::Outside);
    }
    clicked
}

/// Text that runs upwards from `at`, which is the middle of its lower end.
fn upright(ui: &Ui, at: egui::Pos2, text: &str, font: FontId, color: Color32) {
    let galley = ui.painter().layout_no_wrap(text.to_owned(), font, color);
    let min = pos2(at.x - galley.size().y / 2.0, at.y);
    ui.painter().add(TextShape::new(min, galley, color).with_angle(-std::f32::consts::FRAC_PI_2));
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn cells_are_told_in_a_sentence() {
        let state = sample::state();
        let shown = state.shown.as_ref().unwrap();
        let mut confusion = Confusion::new(11);
        let counts = [(6, 6, 3), (6, 8, 1)];
        for (truth, prediction, count) in counts {
            (0..count).for_each(|_| confusion.count_one(truth, prediction));
        }
        assert_eq!(sentence(shown, &confusion, 6, 8), "Road taken for Sidewalk: 1 voxels, 25.0 % of Road");
        assert_eq!(sentence(shown, &confusion, 6, 6), "Road recognised: 3 voxels, 75.0 % of Road");
        assert_eq!(sentence(shown, &confusion, 8, 6), "Sidewalk taken for Road: 0 voxels, - of Sidewalk");
    }

    #[test]
    fn strengths_run_from_none_to_full() {
        let mut confusion = Confusion::new(3);
        (0..100).for_each(|_| confusion.count_one(0, 0));
        (0..4).for_each(|_| confusion.count_one(1, 2));
        assert_eq!([false, true].map(|by_count| strength(&confusion, by_count, 0, 0)), [1.0, 1.0]);
        assert_eq!(strength(&confusion, false, 1, 2), 1.0);
        let few = strength(&confusion, true, 1, 2);
        assert!(few > 0.2 && few < 0.5, "{few}");
        assert_eq!([false, true].map(|by_count| strength(&confusion, by_count, 2, 0)), [0.0, 0.0]);
    }
}
