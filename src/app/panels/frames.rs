//! The scores of every frame of the clip, and of every validated clip: bars that lead there.

use eframe::egui::{self, Align2, Color32, Rect, RichText, Sense, Ui, pos2, vec2};

use super::common::{focus_ring, note, parts};
use crate::app::scores::{Place, sum};
use crate::app::state::State;
use crate::app::style::{self, Colors};
use crate::app::widgets;
use crate::figures::{percent, thousands};
use crate::train::metrics::Confusion;

/// A column of a chart.
struct Column {
    /// What it stands for, as its tip says.
    name: String,
    miou: Option<f64>,
    iou: Option<f64>,
    /// It is what the views show.
    is_current: bool,
    /// Where it leads.
    place: Place,
}

/// Draws the panel; returns where to go.
pub fn ui(ui: &mut Ui, state: &State) -> Option<Place> {
    let clip = frames_of_clip(state);
    let clips = validated_clips(state);
    if clip.is_empty() && clips.is_empty() {
        widgets::empty(ui, "Train a model or open a run to see how well each frame is reconstructed.");
        return None;
    }
    let title = state.shown.as_ref().map_or_else(String::new, |shown| format!("Frames of clip {}", shown.clip));
    let validation = state.validation.as_ref().map_or(0, |validation| validation.step);
    let charts = [(clip, title), (clips, format!("Validation, step {}", thousands(validation.into())))];
    let charts: Vec<_> = charts.into_iter().filter(|(columns, _)| !columns.is_empty()).collect();
    let parts = parts(ui, charts.len());
    let places = parts.into_iter().zip(&charts).map(|(mut part, (columns, title))| chart(&mut part, title, columns));
    // Each chart is drawn, whichever was clicked.
    places.collect::<Vec<_>>().into_iter().flatten().next()
}

fn frames_of_clip(state: &State) -> Vec<Column> {
    let Some((shown, model)) = state.shown.as_ref().and_then(|shown| Some((shown, shown.model.as_ref()?))) else {
        return Vec::new();
    };
    let column = |(t, scores): (usize, &crate::train::metrics::Scores)| Column {
        name: format!("Frame {}", t + 1),
        miou: scores.miou,
        iou: scores.iou,
        is_current: t == state.frame(),
        place: Place { clip: shown.clip, frame: t },
    };
    model.scores.iter().enumerate().map(column).collect()
}

/// Each validated clip leads to its worst frame.
fn validated_clips(state: &State) -> Vec<Column> {
    let clips = state.validation.iter().flat_map(|validation| &validation.clips);
    let shown = state.shown.as_ref().map(|shown| shown.clip);
    let column = |clip: &crate::train::events::ClipScores| {
        let total = sum(&clip.confusion);
        let scores = clip.confusion.iter().map(Confusion::miou).enumerate();
        let scored = scores.filter_map(|(t, miou)| Some((t, miou?)));
        let (frame, _) = scored.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((0, 0.0));
        Column {
            name: format!("Clip {}, worst in frame {}", clip.clip, frame + 1),
            miou: total.as_ref().and_then(Confusion::miou),
            iou: total.as_ref().and_then(Confusion::iou),
            is_current: shown == Some(clip.clip),
            place: Place { clip: clip.clip, frame },
        }
    };
    clips.map(column).collect()
}

/// A column with the lowest mIoU.
fn worst(columns: &[Column]) -> Option<usize> {
    let scored = columns.iter().enumerate().filter_map(|(i, column)| Some((i, column.miou?)));
    scored.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(i, _)| i)
}

/// Bars under a title; returns where the clicked one leads.
fn chart(ui: &mut Ui, title: &str, columns: &[Column]) -> Option<Place> {
    const SCALE: f32 = 34.0;
    const WIDEST: f32 = 44.0;
    let colors = style::colors(ui.visuals());
    let worst = worst(columns);
    ui.horizontal(|ui| {
        ui.label(RichText::new(title).strong());
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            ui.spacing_mut().item_spacing.x = 4.0;
            if ui.available_width() > 150.0 {
                note(ui, "worst");
                let (mark, _) = ui.allocate_exact_size(vec2(11.0, 9.0), Sense::hover());
                triangle(ui, mark.center_top() + vec2(0.0, 1.0), colors.warning);
                ui.add_space(4.0);
            }
            for (name, color) in [("IoU", fill(&colors)[1]), ("mIoU", fill(&colors)[0])] {
                note(ui, name);
                let (square, _) = ui.allocate_exact_size(vec2(9.0, 9.0), Sense::hover());
                ui.painter().rect_filled(square, 1.0, color);
                ui.add_space(4.0);
            }
        });
    });
    let (rect, _) = ui.allocate_exact_size(ui.available_size(), Sense::hover());
    let plot = Rect::from_min_max(rect.min + vec2(SCALE, 12.0), rect.max - vec2(0.0, 14.0));
    let y = |score: f64| plot.bottom() - plot.height() * score as f32;
    for score in [0.0, 0.5, 1.0] {
        ui.painter().hline(plot.x_range(), y(score), (1.0, colors.line));
        let text = format!("{:.0} %", score * 100.0);
        ui.painter().text(pos2(plot.left() - 4.0, y(score)), Align2::RIGHT_CENTER, text, FIGURE_SMALL, colors.quiet);
    }
    let width = plot.width() / columns.len() as f32;
    let gap = (width * 0.14).min(4.0);
    let mut clicked = None;
    for (i, column) in columns.iter().enumerate() {
        let slot = Rect::from_min_max(
            pos2(plot.left() + i as f32 * width, plot.top() - 12.0),
            pos2(plot.left() + (i + 1) as f32 * width, plot.bottom()),
        );
        let response = ui.interact(slot, ui.scope_id().with(("column", i)), Sense::click());
        let name = format!("{}: mIoU {}, IoU {}", column.name, percent(column.miou), percent(column.iou));
        response.widget_info(|| egui::WidgetInfo::selected(egui::Role::Button, true, column.is_current, &name));
        let spare = ((width - WIDEST) / 2.0).max(0.0);
        if column.is_current || response.hovered() {
            let strength = if column.is_current { 0.35 } else { 0.16 };
            let behind = slot.with_min_y(plot.top()).shrink2(vec2((spare - 8.0).max(0.0), 0.0));
            ui.painter().rect_filled(behind, 0.0, colors.accent.gamma_multiply(strength));
        }
        let bars = [(column.iou, gap.max(spare)), (column.miou, (width * 0.28).min(gap * 2.5).max(spare + 4.0))];
        for ((score, inset), color) in bars.into_iter().zip(fill(&colors).into_iter().rev()) {
            let Some(score) = score else { continue };
            let bar = Rect::from_x_y_ranges(slot.x_range().shrink(inset), y(score)..=plot.bottom());
            ui.painter().rect_filled(bar, 1.0, color);
        }
        if worst == Some(i) {
            triangle(ui, pos2(slot.center().x, plot.top() - 11.0), colors.warning);
        }
        focus_ring(ui, &response);
        if response.on_hover_text(name).clicked() {
            clicked = Some(column.place);
        }
    }
    axis_numbers(ui, plot, columns);
    clicked
}

const FIGURE_SMALL: egui::FontId = egui::FontId::new(10.0, egui::FontFamily::Monospace);

/// mIoU in front, IoU behind.
fn fill(colors: &Colors) -> [Color32; 2] {
    [colors.accent, colors.quiet.gamma_multiply(0.45)]
}

/// Numbers below the columns, as many as there is room for.
fn axis_numbers(ui: &Ui, plot: Rect, columns: &[Column]) {
    let width = plot.width() / columns.len() as f32;
    let is_clips = columns.windows(2).any(|pair| pair[0].place.clip != pair[1].place.clip);
    let number = |column: &Column| if is_clips { column.place.clip } else { column.place.frame + 1 };
    let digits = columns.iter().map(|column| number(column).to_string().len()).max().unwrap_or(1);
    let every = ((digits as f32 * 6.5 + 6.0) / width).ceil().max(1.0) as usize;
    let quiet = style::colors(ui.visuals()).quiet;
    for (i, column) in columns.iter().enumerate().step_by(every) {
        let ink = if column.is_current { ui.visuals().strong_text_color() } else { quiet };
        let at = pos2(plot.left() + (i as f32 + 0.5) * width, plot.bottom() + 3.0);
        ui.painter().text(at, Align2::CENTER_TOP, number(column).to_string(), FIGURE_SMALL, ink);
    }
}

/// A triangle that points down from `top`.
fn triangle(ui: &Ui, top: egui::Pos2, color: Color32) {
    let points = vec![top + vec2(-4.5, 0.0), top + vec2(4.5, 0.0), top + vec2(0.0, 7.0)];
    ui.painter().add(egui::Shape::convex_polygon(points, color, egui::Stroke::NONE));
}
