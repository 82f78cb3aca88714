//! Curves of the run, and of those that it is compared with behind them: losses, accuracy, learning rate.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use eframe::egui::{self, Color32, Response, RichText, Ui, vec2};

use self::chart::Drawn;
use self::series::{Along, Quantity};
use crate::app::actions::Action;
use crate::app::history::History;
use crate::app::icons::Icon;
use crate::app::layout::Pane;
use crate::app::state::State;
use crate::app::{style, widgets};
use crate::models::loss_terms;
use crate::train::metrics::CodeUse;

mod chart;
mod series;
#[cfg(test)]
mod tests;

/// What a curve's numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Plain,
    Percent,
    PerSecond,
}

/// A curve that can be drawn.
#[derive(Debug, Clone, Copy)]
struct Curve {
    name: &'static str,
    about: &'static str,
    unit: Unit,
    /// It has no noise: it is not smoothed.
    exact: bool,
    /// Place among [`style::curves`].
    color: usize,
    quantity: Quantity,
}

const LOSSES: [Curve; 3] = [
    curve("Loss", "Weighted sum of the parts", 0, Quantity::Step(|m| f64::from(m.loss))),
    curve("Cross entropy", "Cross entropy of the classes", 1, Quantity::Step(|m| f64::from(m.cross_entropy))),
    curve("Lovász", "Lovász-softmax, a stand-in for 1 - mIoU", 2, Quantity::Step(|m| f64::from(m.lovasz))),
];

const SCORES: [Curve; 2] = [
    Curve {
        unit: Unit::Percent,
        exact: true,
        ..curve("mIoU", "Mean IoU over the classes", 0, Quantity::Validation(|m| m.evaluation.total.miou))
    },
    Curve {
        unit: Unit::Percent,
        exact: true,
        ..curve("IoU", "Occupied against free", 1, Quantity::Validation(|m| m.evaluation.total.iou))
    },
];

const CODES: [Curve; 2] = [
    Curve {
        unit: Unit::Percent,
        exact: true,
        ..curve(
            "Codes used",
            "Codes that occur in the held-out clips, of all codes",
            2,
            Quantity::Validation(|m| m.evaluation.codes.first().map(CodeUse::used_share)),
        )
    },
    Curve {
        unit: Unit::Percent,
        exact: true,
        ..curve(
            "Perplexity",
            "How many codes tell as much where all occur equally often, of all codes",
            3,
            Quantity::Validation(|m| m.evaluation.codes.first().map(CodeUse::perplexity_share)),
        )
    },
];

const PROGRESS: [Curve; 3] = [
    Curve { exact: true, ..curve("Learning rate", "Adam's learning rate", 0, Quantity::Step(|m| m.learning_rate)) },
    curve("Gradient norm", "Norm of the gradient before clipping", 1, Quantity::Step(|m| f64::from(m.gradient_norm))),
    Curve {
        unit: Unit::PerSecond,
        ..curve("Steps a second", "Speed of training", 2, Quantity::Step(|m| m.steps_per_sec))
    },
];

/// The loss and its parts, those of models too that only some of `runs` have; all, while there is no run.
fn losses(runs: &[&History]) -> Vec<Curve> {
    let last = || runs.iter().filter_map(|run| run.steps.last());
    let has = |name| last().next().is_none() || last().any(|metrics| metrics.terms.get(name).is_some());
    let own = loss_terms().into_iter().filter(|term| has(term.name)).zip(LOSSES.len()..);
    let own = own.map(|(term, i)| curve(term.title, term.about, i % style::CURVES, Quantity::Term(term.name)));
    LOSSES.into_iter().chain(own).collect()
}

const fn curve(name: &'static str, about: &'static str, color: usize, quantity: Quantity) -> Curve {
    Curve { name, about, unit: Unit::Plain, exact: false, color, quantity }
}

/// Scores, and how codes are used where one of `runs` has any.
fn scores(runs: &[&History]) -> Vec<Curve> {
    let last = || runs.iter().filter_map(|run| run.validations.last());
    let has_codes = last().any(|metrics| !metrics.evaluation.codes.is_empty());
    SCORES.into_iter().chain(CODES.into_iter().filter(|_| has_codes)).collect()
}

/// What the plots remember.
#[derive(Debug)]
pub struct Memory {
    /// Weight of what was before, 0 for no smoothing.
    smoothing: f64,
    logarithmic: bool,
    along: Along,
    /// Names of the curves that are switched off.
    hidden: Vec<&'static str>,
    /// The one of [`PROGRESS`] that is drawn: they have nothing in common but their x.
    progress: usize,
    /// The part along x that is in view; `None` for all of it.
    range: Option<RangeInclusive<f64>>,
    /// Where a drag along x began.
    selecting: Option<f64>,
    drawn: HashMap<Pane, Drawn>,
}

impl Default for Memory {
    fn default() -> Self {
        Memory {
            smoothing: 0.6,
            logarithmic: false,
            along: Along::default(),
            hidden: Vec::new(),
            progress: 0,
            range: None,
            selecting: None,
            drawn: HashMap::new(),
        }
    }
}

/// Draws `pane`; returns what was ordered.
pub fn ui(ui: &mut Ui, state: &State, memory: &mut Memory, pane: Pane) -> Option<Action> {
    let rivals = state.rivals.list.iter().map(|rival| &rival.history);
    let runs: Vec<&History> = std::iter::once(&state.history).chain(rivals).collect();
    let curves = match pane {
        Pane::Losses => losses(&runs),
        Pane::Accuracy => scores(&runs),
        _ => PROGRESS.to_vec(),
    };
    let empty = runs.iter().all(|history| match pane {
        Pane::Accuracy => history.validations.is_empty(),
        _ => history.steps.is_empty(),
    });
    if empty {
        let hint = match pane {
            Pane::Accuracy => "mIoU and IoU on held-out clips appear here with the first validation.",
            _ => "Curves appear here with the first step.",
        };
        widgets::empty(ui, hint);
        return None;
    }
    let full = chart::full_range(&runs, &curves, memory.along);
    let ordered = toolbar(ui, state, memory, pane, &curves, &full);
    let shown: Vec<Curve> = match pane {
        Pane::LearningRate => vec![PROGRESS[memory.progress]],
        _ => curves.iter().filter(|curve| !memory.hidden.contains(&curve.name)).copied().collect(),
    };
    chart::ui(ui, &runs, memory, pane, &shown, &full);
    ordered
}

fn toolbar(
    ui: &mut Ui,
    state: &State,
    memory: &mut Memory,
    pane: Pane,
    curves: &[Curve],
    full: &RangeInclusive<f64>,
) -> Option<Action> {
    let mut ordered = None;
    ui.horizontal_wrapped(|ui| {
        // All parts are as high as the highest, so that they stand on one line.
        ui.spacing_mut().interact_size.y = widgets::ICON_SIDE;
        ui.spacing_mut().item_spacing.x = 4.0;
        for (i, curve) in curves.iter().enumerate() {
            let on = match pane {
                Pane::LearningRate => memory.progress == i,
                _ => !memory.hidden.contains(&curve.name),
            };
            if chip(ui, curve, on, pane == Pane::LearningRate).clicked() {
                match pane {
                    Pane::LearningRate => memory.progress = i,
                    _ if on => memory.hidden.push(curve.name),
                    _ => memory.hidden.retain(|name| *name != curve.name),
                }
            }
        }
        ui.add_space(8.0);
        ordered = runs_ui(ui, state);
        ui.add_space(8.0);
        view_ui(ui, memory, pane, full);
    });
    ordered
}

/// A switch that shows its curve's colour; one of several if `exclusive`.
fn chip(ui: &mut Ui, curve: &Curve, on: bool, exclusive: bool) -> Response {
    let colors = style::colors(ui.visuals());
    let text_color = if on { ui.visuals().text_color() } else { colors.quiet };
    let text = RichText::new(format!("      {}", curve.name)).small().color(text_color);
    let response = ui.add(egui::Button::selectable(on && exclusive, text));
    response.widget_info(|| egui::WidgetInfo::selected(egui::Role::CheckBox, true, on, curve.name));
    let color = style::curves(ui.visuals())[curve.color];
    let rect = response.rect;
    let square = egui::Rect::from_center_size(egui::pos2(rect.left() + 14.0, rect.center().y), vec2(10.0, 10.0));
    if on {
        ui.painter().rect_filled(square, 2.0, color);
    } else {
        ui.painter().rect_stroke(square, 2.0, egui::Stroke::new(1.5, color), egui::StrokeKind::Inside);
    }
    response.on_hover_text(curve.about)
}

/// The other runs with how their lines are drawn, and how to get one.
fn runs_ui(ui: &mut Ui, state: &State) -> Option<Action> {
    let quiet = style::colors(ui.visuals()).quiet;
    for (number, rival) in state.rivals.list.iter().enumerate() {
        sample(ui, number + 1, quiet);
        ui.label(RichText::new(&rival.history.name).small().color(quiet));
    }
    let action = if state.rivals.list.is_empty() { Action::OpenOverlay } else { Action::CloseOverlay };
    if action == Action::CloseOverlay {
        let (name, tip) = (action.entry().name, widgets::tip(ui, action));
        return widgets::icon_button(ui, Icon::Close, name, &tip, true, false).clicked().then_some(action);
    }
    let button = ui.button(RichText::new("Compare…").small()).on_hover_text(widgets::tip(ui, action));
    button.clicked().then_some(action)
}

/// A piece of another run's lines.
fn sample(ui: &mut Ui, run: usize, color: Color32) {
    let (rect, _) = ui.allocate_exact_size(vec2(20.0, 12.0), egui::Sense::hover());
    let stroke = egui::Stroke::new(chart::OVERLAY_WIDTH, color);
    let dash = chart::dash(run);
    let dashes = egui::Shape::dashed_line(&[rect.left_center(), rect.right_center()], stroke, dash, dash / 2.0);
    ui.painter().extend(dashes);
}

/// Smoothing, scales and the part in view.
fn view_ui(ui: &mut Ui, memory: &mut Memory, pane: Pane, full: &RangeInclusive<f64>) {
    if pane != Pane::Accuracy {
        ui.spacing_mut().slider_width = 60.0;
        let label = ui.label(RichText::new("Smoothing").small());
        let slider = egui::Slider::new(&mut memory.smoothing, 0.0..=0.99).step_by(0.01).show_value(false);
        let response = ui.add(slider).labelled_by(label.id);
        response.on_hover_text(format!("{:.2}, the weight of what was before in a moving average", memory.smoothing));
    }
    let log = ui.selectable_label(memory.logarithmic, RichText::new("log").small());
    log.widget_info(|| egui::WidgetInfo::selected(egui::Role::CheckBox, true, memory.logarithmic, "Logarithmic scale"));
    if log.on_hover_text("Logarithmic scale").clicked() {
        memory.logarithmic = !memory.logarithmic;
    }
    for (along, text, name, tip) in [
        (Along::Seconds, "time", "Over time", "Over the time of training instead of steps"),
        (Along::Epochs, "epochs", "Over epochs", "Over passes through the data instead of steps"),
    ] {
        let on = memory.along == along;
        let button = ui.selectable_label(on, RichText::new(text).small());
        button.widget_info(|| egui::WidgetInfo::selected(egui::Role::CheckBox, true, on, name));
        if button.on_hover_text(tip).clicked() {
            memory.along = if on { Along::Steps } else { along };
            memory.range = None;
        }
    }
    let zoomed = memory.range.is_some();
    let range = memory.range.clone().unwrap_or_else(|| full.clone());
    let buttons = [
        (Icon::Previous, "Show what was before", zoomed, moved(&range, full, -0.5)),
        (Icon::Next, "Show what comes after", zoomed, moved(&range, full, 0.5)),
        (Icon::Out, "Zoom out", zoomed, zoomed_at(&range, full, 2.0, 0.5)),
        (Icon::In, "Zoom in", true, zoomed_at(&range, full, 0.5, 0.5)),
        (Icon::Reset, "Show all of it", zoomed, None),
    ];
    for (icon, name, enabled, range) in buttons {
        if widgets::icon_button(ui, icon, name, name, enabled, false).clicked() {
            memory.range = range;
        }
    }
}

/// `range` moved by a part of its width, within `full`.
fn moved(range: &RangeInclusive<f64>, full: &RangeInclusive<f64>, by: f64) -> Option<RangeInclusive<f64>> {
    let width = range.end() - range.start();
    let start = (range.start() + by * width).min(full.end() - width).max(*full.start());
    fitting(start..=start + width, full)
}

/// `range` with `factor` times its width; the point at part `at` of it stays where it is.
fn zoomed_at(
    range: &RangeInclusive<f64>,
    full: &RangeInclusive<f64>,
    factor: f64,
    at: f64,
) -> Option<RangeInclusive<f64>> {
    let width = range.end() - range.start();
    let start = range.start() + at * width * (1.0 - factor);
    fitting(start..=start + width * factor, full)
}

/// `range` as far as it is within `full`; `None` if it is all of it.
fn fitting(range: RangeInclusive<f64>, full: &RangeInclusive<f64>) -> Option<RangeInclusive<f64>> {
    let least = (full.end() - full.start()) * 1e-5;
    let (start, end) = (range.start().max(*full.start()), range.end().min(*full.end()));
    if end - start < least {
        return Some(start..=start + least);
    }
    (start > *full.start() || end < *full.end()).then_some(start..=end)
}

impl Unit {
    /// A number with its unit.
    fn write(self, number: f64) -> String {
        match self {
            _ if !number.is_finite() => "not finite".to_owned(),
            Unit::Plain if number != 0.0 && !(1e-3..1e5).contains(&number.abs()) => format!("{number:.2e}"),
            Unit::Plain => format!("{number:.4}"),
            Unit::Percent => crate::figures::percent(Some(number)),
            Unit::PerSecond => format!("{number:.2}/s"),
        }
    }
}
