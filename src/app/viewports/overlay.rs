//! What is written over a view: which side it is, the axes' names, the scale, and the voxel under the pointer.

use eframe::egui::{self, Align2, Color32, FontId, Pos2, Rect, Response, RichText, Stroke, Ui, pos2, vec2};

use crate::app::layout::Pane;
use crate::app::rivals::letter;
use crate::app::shown::Reconstructed;
use crate::app::state::State;
use crate::app::style;
use crate::figures::{percent, thousands};
use crate::view::difference::{count, verdicts};
use crate::view::ornament::{AXES_CENTER_POINTS, AXES_COLORS, AXES_LENGTH_POINTS};
use crate::view::{Camera, Handedness, round_length_m};

/// Longest scale bar, points.
const SCALE_POINTS: f32 = 110.0;

/// Draws all of it.
pub fn ui(ui: &Ui, rect: Rect, state: &State, pane: Pane, camera: &Camera) {
    let painter = ui.painter_at(rect);
    let (ink, halo) = if ui.visuals().dark_mode {
        (Color32::from_gray(225), Color32::from_black_alpha(150))
    } else {
        (Color32::from_gray(30), Color32::from_white_alpha(190))
    };
    let text = |at: Pos2, align: Align2, text: &str, font: FontId, color: Color32| {
        let galley = painter.layout_no_wrap(text.to_owned(), font, color);
        let place = align.anchor_size(at, galley.size());
        painter.rect_filled(place.expand2(vec2(4.0, 2.0)), 3.0, halo);
        painter.galley(place.min, galley, color);
    };
    let font = FontId::proportional(12.0);
    if let Some(caption) = caption(state, pane) {
        text(rect.left_top() + vec2(10.0, 8.0), Align2::LEFT_TOP, &caption, font.clone(), ink);
    }
    if !state.view.ornaments {
        return;
    }
    let center = rect.left_bottom() + vec2(AXES_CENTER_POINTS.x, -AXES_CENTER_POINTS.y);
    let handedness = state.shown.as_ref().map_or(Handedness::Left, |shown| shown.classes.handedness);
    for ((axis, name), color) in camera.axes_on_screen(handedness).into_iter().zip(["x", "y", "z"]).zip(AXES_COLORS) {
        let end = center + vec2(axis.x, -axis.y) * (AXES_LENGTH_POINTS + 9.0);
        painter.text(end, Align2::CENTER_CENTER, name, font.clone(), Color32::from_rgb(color[0], color[1], color[2]));
    }
    let metres_per_point = camera.metres_per_pixel(rect.height());
    let length_m = round_length_m(metres_per_point * SCALE_POINTS);
    let (right, y) = (rect.right() - 14.0, rect.bottom() - 14.0);
    let left = right - length_m / metres_per_point;
    let label = if length_m < 1.0 { format!("{:.0} cm", length_m * 100.0) } else { format!("{length_m:.0} m") };
    let stroke = Stroke::new(1.5, ink);
    painter.rect_filled(Rect::from_min_max(pos2(left - 6.0, y - 20.0), pos2(right + 6.0, y + 6.0)), 3.0, halo);
    painter.hline(left..=right, y, stroke);
    painter.vline(left, y - 4.0..=y + 0.75, stroke);
    painter.vline(right, y - 4.0..=y + 0.75, stroke);
    painter.text(pos2((left + right) * 0.5, y - 3.0), Align2::CENTER_BOTTOM, label, FontId::proportional(11.0), ink);
}

/// One line about what a view holds.
fn caption(state: &State, pane: Pane) -> Option<String> {
    let shown = state.shown.as_ref()?;
    let t = state.frame();
    match pane {
        Pane::Original => {
            let occupied = shown.frame(&shown.truth, t).iter().filter(|label| **label != 0).count();
            Some(format!("{} voxels", thousands(occupied as u64)))
        }
        Pane::Rival(number) => scores(state.rival(number.into())?, t),
        Pane::Difference => {
            let visible = state.view.visible(shown.grid.size);
            let observed = shown.frame(&shown.observed, t);
            let found = verdicts(shown.frame(&shown.truth, t), state.compared_labels(t)?, observed, &visible.classes);
            let [_, first, second, _] = count(&found).map(thousands);
            Some(format!("only A right {first}   only {} right {second}", letter(state.rivals.against + 1)))
        }
        _ if state.mixed_version().is_some() => Some("mixed latents".to_owned()),
        Pane::Reconstruction => scores(shown.model.as_ref()?, t),
        _ => {
            let counts = shown.model.as_ref()?.counts.get(t)?;
            Some(format!("{} of occupied voxels correct", percent(counts.share(crate::view::VoxelOutcome::Correct))))
        }
    }
}

/// What a model scores in frame `t`.
fn scores(model: &Reconstructed, t: usize) -> Option<String> {
    let scores = model.scores.get(t)?;
    let step = thousands(model.step.into());
    Some(format!("step {step}   mIoU {}   IoU {}", percent(scores.miou), percent(scores.iou)))
}

/// Says all that is known about the voxel under the pointer.
pub fn tooltip(ui: &Ui, response: &Response, state: &State, voxel: [usize; 3]) {
    let Some(shown) = &state.shown else { return };
    let t = state.frame();
    let [x, y, z] = voxel;
    let at = shown.grid.index(x, y, z);
    let name = |class: u8| shown.classes.names.get(usize::from(class)).map_or("?", String::as_str);
    let quiet = style::colors(ui.visuals()).quiet;
    response.clone().on_hover_ui_at_pointer(|ui| {
        ui.set_max_width(260.0);
        ui.style_mut().wrap_mode = Some(egui::TextWrapMode::Extend);
        let [px, py, pz] = shown.position_m(voxel);
        ui.label(RichText::new(format!("x {px:.1} m   y {py:.1} m   z {pz:.1} m")).monospace().color(quiet));
        egui::Grid::new("voxel tip").num_columns(2).spacing([10.0, 2.0]).show(ui, |ui| {
            if let Some(&truth) = shown.frame(&shown.truth, t).get(at) {
                let observed = shown.frame(&shown.observed, t).get(at).copied().unwrap_or(true);
                ui.label(RichText::new("Original").color(quiet));
                ui.label(format!("{}{}", name(truth), if observed { "" } else { " (not observed)" }));
                ui.end_row();
            }
            if let Some(&label) = state.model_labels(t).and_then(|labels| labels.get(at)) {
                ui.label(RichText::new("Model").color(quiet));
                ui.label(name(label));
                ui.end_row();
            }
            for number in 0..state.rivals.list.len() {
                let labels = state.rival(number).map(|rival| shown.frame(&rival.labels, t));
                if let Some(&label) = labels.and_then(|labels| labels.get(at)) {
                    ui.label(RichText::new(format!("Model {}", letter(number + 1))).color(quiet));
                    ui.label(name(label));
                    ui.end_row();
                }
            }
            if let Some(likely) = state.model_likely(t).and_then(|likely| likely.get(at)) {
                for (class, probability) in likely.classes().into_iter().zip(likely.probabilities()) {
                    ui.label("");
                    ui.label(RichText::new(format!("{:>5.1} %  {}", probability * 100.0, name(class))).monospace());
                    ui.end_row();
                }
                ui.label(RichText::new("Entropy").color(quiet));
                ui.label(RichText::new(format!("{:.2}", likely.entropy())).monospace());
                ui.end_row();
            }
        });
    });
}
