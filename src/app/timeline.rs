//! The time of all views: one scrubber, with each frame's mIoU behind it.

use eframe::egui::{self, Align, Layout, Panel, RichText, Sense, Ui, pos2, vec2};

use super::actions::Action;
use super::playback::SPEEDS;
use super::state::State;
use super::style;
use super::widgets::{named_button, tip};

/// Draws the bar; what was ordered is done at once, for it changes nothing but the playback.
pub fn ui(ui: &mut Ui, state: &mut State) {
    Panel::bottom("timeline").exact_size(52.0).show(ui, |ui| {
        ui.horizontal_centered(|ui| {
            let Some(shown) = &state.shown else {
                ui.label(RichText::new("Nothing is open.").color(style::colors(ui.visuals()).quiet));
                return;
            };
            let frames = shown.frames;
            let scores: Vec<Option<f64>> = match &shown.model {
                Some(model) => model.scores.iter().map(|scores| scores.miou).collect(),
                None => vec![None; frames],
            };
            let first = shown.first_frame;
            let sequence = shown.sequence.clone();
            let playback = &mut state.playback;
            let (icon, name) = if playback.playing { ("⏸", "Pause") } else { ("▶", "Play") };
            if named_button(ui, icon, name, frames > 1, Some(Action::PlayPause)).clicked() {
                playback.toggle(frames);
            }
            let looping = ui.selectable_label(playback.looping, "🔁").on_hover_text(tip(ui, Action::Loop));
            looping.widget_info(|| egui::WidgetInfo::selected(egui::Role::CheckBox, true, playback.looping, "Loop"));
            if looping.clicked() {
                playback.looping = !playback.looping;
            }
            let speed = egui::ComboBox::from_id_salt("speed")
                .width(58.0)
                .selected_text(format!("{}×", playback.rate()))
                .show_ui(ui, |ui| {
                    for (i, rate) in SPEEDS.iter().enumerate() {
                        ui.selectable_value(&mut playback.speed, i, format!("{rate}×"));
                    }
                });
            speed.response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::ComboBox, true, "Speed"));
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                ui.label(RichText::new(format!("{:>2} / {frames}", playback.frame + 1)).monospace());
                ui.label(format!("{sequence}, frame {}", first + playback.frame));
                track(ui, &mut playback.frame, &scores);
            });
        });
    });
}

/// The scrubber: a bar a frame, as high as its mIoU, and the place in time.
fn track(ui: &mut Ui, frame: &mut usize, scores: &[Option<f64>]) {
    let colors = style::colors(ui.visuals());
    let frames = scores.len();
    let (rect, mut response) = ui.allocate_exact_size(vec2(ui.available_width(), 36.0), Sense::click_and_drag());
    let width = rect.width() / frames.max(1) as f32;
    if let Some(at) = response.interact_pointer_pos() {
        let wanted = (((at.x - rect.left()) / width).floor().max(0.0) as usize).min(frames.saturating_sub(1));
        if wanted != *frame {
            *frame = wanted;
            response.mark_changed();
        }
    }
    let (now, last) = (*frame as f64, frames.saturating_sub(1) as f64);
    response.widget_info(|| {
        let mut info = egui::WidgetInfo::slider(true, now, "Frame");
        info.label = Some(format!("Frame, 0 to {last}"));
        info
    });
    let painter = ui.painter_at(rect);
    painter.rect_filled(rect, 3.0, colors.bar);
    for (t, score) in scores.iter().enumerate() {
        let left = rect.left() + t as f32 * width;
        let slot = egui::Rect::from_min_size(pos2(left, rect.top()), vec2(width, rect.height()));
        if t == *frame {
            painter.rect_filled(slot, 2.0, colors.accent.gamma_multiply(0.25));
        }
        if let Some(score) = score {
            let height = (rect.height() - 4.0) * *score as f32;
            let bar = egui::Rect::from_min_max(
                pos2(slot.left() + 1.0, slot.bottom() - height - 1.0),
                pos2(slot.right() - 1.0, slot.bottom() - 1.0),
            );
            let color = if t == *frame { colors.accent } else { colors.quiet.gamma_multiply(0.5) };
            painter.rect_filled(bar, 1.0, color);
        }
    }
    let x = rect.left() + (*frame as f32 + 0.5) * width;
    painter.vline(x, rect.y_range(), egui::Stroke::new(2.0, colors.accent));
    if let Some(at) = response.hover_pos() {
        let t = (((at.x - rect.left()) / width).floor().max(0.0) as usize).min(frames.saturating_sub(1));
        let score = scores.get(t).copied().flatten();
        response.on_hover_text(format!("Frame {}, mIoU {}", t + 1, super::widgets::percent(score)));
    }
}
