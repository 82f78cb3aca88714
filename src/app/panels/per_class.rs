//! The IoU of every class: bars that lead to where the class is worst, and its course over the training.

use eframe::egui::{self, Align2, Color32, FontId, Rangef, Rect, Sense, Ui, Vec2b, pos2, vec2};
use egui_plot::{AxisHints, Line, Plot, PlotPoints};

use super::common::{FIGURE, axis, class_color, class_name, focus_ring, heading, parts, scope_switch};
use crate::app::scores::{Place, Scope, worst};
use crate::app::shown::Shown;
use crate::app::state::State;
use crate::app::style;
use crate::app::widgets;
use crate::figures::percent;
use crate::train::metrics::Confusion;

/// Draws the panel; returns where to go.
pub fn ui(ui: &mut Ui, state: &mut State, scope: &mut Scope) -> Option<Place> {
    let has_model = Scope::ALL.iter().any(|scope| scope.confusion(state).is_some());
    let Some(shown) = state.shown.as_ref().filter(|_| has_model) else {
        widgets::empty(ui, "Train a model or open a run to see how well each class is reconstructed.");
        return None;
    };
    let has_course = state.history.validations.len() > 1;
    let mut parts = parts(ui, 1 + usize::from(has_course)).into_iter();
    let clicked = parts.next().and_then(|mut part| {
        part.spacing_mut().item_spacing.y = 3.0;
        let (scope, confusion) = scope_switch(&mut part, state, scope)?;
        Some((scope, bars(&mut part, state, shown, &confusion)?))
    });
    if let Some(mut part) = parts.next() {
        course(&mut part, state, shown);
    }
    let (scope, class) = clicked?;
    let place = worst(state, scope, |frame| frame.class_iou(class).map(|iou| 1.0 - iou));
    state.view.solo = u8::try_from(class).ok();
    place
}

/// A row a class; returns the class that was clicked.
fn bars(ui: &mut Ui, state: &State, shown: &Shown, confusion: &Confusion) -> Option<usize> {
    let classes = shown.classes.len();
    let room = ui.available_height() / (classes.max(2) - 1) as f32;
    let height = room.floor().clamp(13.0, 26.0);
    let colors = style::colors(ui.visuals());
    let mut clicked = None;
    ui.spacing_mut().item_spacing.y = 0.0;
    egui::ScrollArea::vertical().show(ui, |ui| {
        for class in 1..classes {
            let (row, response) = ui.allocate_exact_size(vec2(ui.available_width(), height), Sense::click());
            let (name, iou) = (class_name(shown, class), confusion.class_iou(class));
            let is_solo = state.view.solo == u8::try_from(class).ok();
            let text = format!("{name}: IoU {}", percent(iou));
            response.widget_info(|| egui::WidgetInfo::selected(egui::Role::Button, true, is_solo, &text));
            let painter = ui.painter();
            if is_solo || response.hovered() {
                painter.rect_filled(row, 2.0, colors.accent.gamma_multiply(0.16));
            }
            let ink = ui.visuals().text_color();
            let font = FontId::proportional((height - 2.0).min(12.5));
            painter.text(pos2(row.left() + 4.0, row.center().y), Align2::LEFT_CENTER, name, font, ink);
            let right = pos2(row.right() - 4.0, row.center().y);
            painter.text(right, Align2::RIGHT_CENTER, percent(iou), FIGURE, ink);
            let track = Rect::from_min_max(
                pos2(row.left() + 82.0, row.top() + 2.5),
                pos2(row.right() - 62.0, row.bottom() - 2.5),
            );
            painter.rect_filled(track, 2.0, colors.line);
            if let Some(iou) = iou {
                let color = class_color(shown, state.view.safe_colors, class).unwrap_or(Color32::GRAY);
                painter.rect_filled(track.with_max_x(track.left() + track.width() * iou as f32), 2.0, color);
            }
            focus_ring(ui, &response);
            let tip = format!("{text}. A click shows the class alone, in the frame where it is worst.");
            if response.on_hover_text(tip).clicked() {
                clicked = Some(class);
            }
        }
    });
    clicked
}

/// Each class over the validations of the run.
fn course(ui: &mut Ui, state: &State, shown: &Shown) {
    heading(ui, "Validation IoU over steps");
    let plot = Plot::new("per class")
        .show_axes(Vec2b::TRUE)
        .include_y(0.0)
        .include_y(1.0)
        .allow_scroll(false)
        .show_background(false)
        .grid_color(style::colors(ui.visuals()).line)
        .custom_y_axes(vec![
            axis(AxisHints::new_y(), ui)
                .min_thickness(40.0)
                .formatter(|mark, _| format!("{:.0} %", mark.value * 100.0)),
        ])
        .custom_x_axes(vec![
            axis(AxisHints::new_x(), ui)
                .label_spacing(Rangef::new(40.0, 60.0))
                .formatter(|mark, _| crate::figures::thousands(mark.value.max(0.0) as u64)),
        ]);
    let response = plot.show(ui, |plot| {
        for class in 1..shown.classes.len() {
            let points: Vec<[f64; 2]> = state
                .history
                .validations
                .iter()
                .filter_map(|v| Some([f64::from(v.step), (*v.evaluation.total.per_class.get(class)?)?]))
                .collect();
            let is_shown = state.view.shows(class as u8);
            let color = class_color(shown, state.view.safe_colors, class).unwrap_or(Color32::GRAY);
            let color = if is_shown { color } else { color.gamma_multiply(0.2) };
            plot.line(Line::new(class_name(shown, class), PlotPoints::from(points)).color(color).width(1.6));
        }
    });
    response.response.widget_info(|| {
        egui::WidgetInfo::labeled(egui::Role::Image, true, "IoU of each class over the steps of the run")
    });
}
