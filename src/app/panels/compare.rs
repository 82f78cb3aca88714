//! The runs that are compared: which they are, how they score the clip in view, and where they differ.

use eframe::egui::{self, Align, Color32, Layout, RichText, Ui};

use super::common::{FIGURE, bare_percent, class_color, class_name, heading, note, swatch};
use crate::app::actions::Action;
use crate::app::icons::Icon;
use crate::app::rivals::letter;
use crate::app::state::State;
use crate::app::style;
use crate::app::widgets::{self, tip};
use crate::figures::thousands;
use crate::train::metrics::Confusion;
use crate::view::ClassMask;
use crate::view::difference::{Verdict, count, verdicts};

/// With so much room the table stands beside the runs, points.
const WIDE: f32 = 560.0;

/// Draws the panel; returns what was ordered.
pub fn ui(ui: &mut Ui, state: &mut State) -> Option<Action> {
    let mut ordered = None;
    let mut button = |ui: &mut Ui, action: Action| {
        let enabled = action.is_enabled(state);
        if widgets::named_button(ui, action.entry().name, action.entry().name, enabled, Some(action)).clicked() {
            ordered = Some(action);
        }
    };
    ui.horizontal_wrapped(|ui| {
        button(ui, Action::OpenOverlay);
        if !state.rivals.list.is_empty() {
            button(ui, Action::WidestDifference);
            button(ui, Action::ExportComparison);
        }
    });
    if state.rivals.list.is_empty() {
        note(ui, "Up to three more runs, of any models, are shown beside the open one: views, curves and scores.");
        return ordered;
    }
    ui.add_space(6.0);
    let mut closed = None;
    if ui.available_width() >= WIDE {
        ui.columns(2, |columns| {
            closed = runs(&mut columns[0], state);
            differences(&mut columns[0], state);
            table(&mut columns[1], state);
        });
    } else {
        closed = runs(ui, state);
        differences(ui, state);
        table(ui, state);
    }
    if let Some(number) = closed {
        state.rivals.remove(number);
    }
    ordered
}

/// A row a run; returns the number of the one that was closed.
fn runs(ui: &mut Ui, state: &mut State) -> Option<usize> {
    let (names, mut closed) = (state.compared_names(), None);
    let quiet = style::colors(ui.visuals()).quiet;
    for (i, name) in names.iter().enumerate() {
        ui.horizontal(|ui| {
            ui.label(RichText::new(letter(i)).strong());
            ui.label(name);
            let Some(number) = i.checked_sub(1) else {
                ui.label(RichText::new("open").small().color(quiet));
                return;
            };
            let is_chosen = state.rivals.against == number;
            let choice = ui.selectable_label(is_chosen, RichText::new("differences").small());
            choice.widget_info(|| {
                egui::WidgetInfo::selected(egui::Role::RadioButton, true, is_chosen, format!("Differences with {name}"))
            });
            if choice.on_hover_text("Show where this one and A differ").clicked() {
                state.rivals.against = number;
                state.rivals.version += 1;
            }
            let title = format!("End the comparison with {name}");
            if widgets::icon_button(ui, Icon::Close, &title, &title, true, false).clicked() {
                closed = Some(number);
            }
        });
        if let Some(rival) = i.checked_sub(1).and_then(|number| state.rivals.list.get(number))
            && rival.lack.is_some()
        {
            note(ui, rival.hint());
        }
    }
    closed
}

/// How many voxels of the frame in view only one of the two gets right.
fn differences(ui: &mut Ui, state: &State) {
    let (Some(shown), t) = (&state.shown, state.frame()) else { return };
    let Some(labels) = state.compared_labels(t) else { return };
    let (truth, observed) = (shown.frame(&shown.truth, t), shown.frame(&shown.observed, t));
    let counts = count(&verdicts(truth, labels, observed, &ClassMask::all()));
    let other = letter(state.rivals.against + 1);
    ui.add_space(6.0);
    heading(ui, &format!("A and {other} in the frame"));
    let names = ["Both right".to_owned(), "Only A right".into(), format!("Only {other} right"), "Both wrong".into()];
    let theme = style::scene_theme(ui.visuals());
    for ((verdict, name), count) in Verdict::JUDGED.into_iter().zip(names).zip(counts) {
        ui.horizontal(|ui| {
            let (rect, _) = ui.allocate_exact_size(egui::vec2(12.0, 12.0), egui::Sense::hover());
            let [r, g, b] = verdict.color(theme);
            swatch(ui, ui.painter(), rect, Some(Color32::from_rgb(r, g, b)));
            ui.label(name);
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                ui.label(RichText::new(thousands(count)).font(FIGURE));
            });
        });
    }
}

/// IoU of every class over the clip for each run, and by how much each differs from A.
fn table(ui: &mut Ui, state: &mut State) {
    let Some(shown) = &state.shown else { return };
    let confusions = state.compared_confusions();
    ui.add_space(6.0);
    heading(ui, "IoU over the clip, %");
    let quiet = style::colors(ui.visuals()).quiet;
    let mut solo = None;
    egui::Grid::new("compared").num_columns(1 + 2 * confusions.len()).spacing([10.0, 3.0]).striped(true).show(
        ui,
        |ui| {
            ui.label("");
            for i in 0..confusions.len() {
                ui.label(RichText::new(letter(i)).strong());
                if i > 0 {
                    ui.label(RichText::new(format!("{} - A", letter(i))).small().color(quiet));
                }
            }
            ui.end_row();
            let row = |ui: &mut Ui, of: &dyn Fn(&Confusion) -> Option<f64>| {
                let values: Vec<Option<f64>> = confusions.iter().map(|confusion| of(confusion.as_ref()?)).collect();
                for (i, value) in values.iter().enumerate() {
                    ui.label(RichText::new(bare_percent(*value)).font(FIGURE));
                    if i > 0 {
                        let gain = value.zip(values[0]).map(|(value, own)| 100.0 * (value - own));
                        let text = gain.map_or_else(|| "–".to_owned(), |gain| format!("{gain:+.1}"));
                        ui.label(RichText::new(text).font(FIGURE).color(quiet));
                    }
                }
                ui.end_row();
            };
            for class in 1..shown.classes.len() {
                let id = class as u8;
                ui.horizontal(|ui| {
                    let (rect, _) = ui.allocate_exact_size(egui::vec2(10.0, 10.0), egui::Sense::hover());
                    swatch(ui, ui.painter(), rect, class_color(shown, state.view.safe_colors, class));
                    let name = class_name(shown, class);
                    let label = ui.selectable_label(state.view.solo == Some(id), name);
                    if label.on_hover_text(format!("Show only {name}")).clicked() {
                        solo = Some(id);
                    }
                });
                row(ui, &|confusion| confusion.class_iou(class));
            }
            ui.label(RichText::new("Occupied").strong());
            row(ui, &Confusion::iou);
            ui.label(RichText::new("Mean (mIoU)").strong());
            row(ui, &Confusion::miou);
        },
    );
    note(ui, format!("A row of a class shows it alone. {}", tip(ui, Action::WidestDifference)));
    if let Some(class) = solo {
        state.view.toggle_solo(class);
    }
}
