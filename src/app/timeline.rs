//! The time of all views: one scrubber, with each frame's mIoU behind it.

use eframe::egui::{self, Align, Layout, Panel, Rect, RichText, Sense, Stroke, Ui, pos2, vec2};

use super::actions::Action;
use super::icons::Icon;
use super::playback::{DEFAULT_FRAME_SECS, SPEEDS};
use super::state::State;
use super::style;
use super::widgets::{icon_button, tip};
use crate::figures::percent;

/// Draws the bar; returns what was ordered.
pub fn ui(ui: &mut Ui, state: &mut State) -> Option<Action> {
    let mut wanted = None;
    let height = 48.0;
    Panel::bottom("timeline").exact_size(height).show(ui, |ui| {
        ui.horizontal_centered(|ui| {
            let Some(shown) = &state.shown else {
                ui.label(RichText::new("Nothing is open").color(style::colors(ui.visuals()).quiet));
                return;
            };
            let (frames, t) = (shown.frames, state.frame());
            let scores: Vec<Option<f64>> = match &shown.model {
                Some(model) if model.scores.len() == frames => model.scores.iter().map(|scores| scores.miou).collect(),
                _ => vec![None; frames],
            };
            let secs = shown.frame_secs().unwrap_or(DEFAULT_FRAME_SECS);
            let place = format!("{}, frame {}", shown.sequence, shown.first_frame + t);
            let clips = state.source.as_ref().map_or(0, |source| source.held_out.len());

            let playing = state.playback.playing;
            let (icon, name) = if playing { (Icon::Pause, "Pause") } else { (Icon::Play, "Play") };
            let about = tip(ui, Action::PlayPause);
            if icon_button(ui, icon, name, &about, frames > 1, false).clicked() {
                wanted = Some(Action::PlayPause);
            }
            let about = tip(ui, Action::Loop);
            if icon_button(ui, Icon::Loop, "Loop", &about, true, state.playback.looping).clicked() {
                wanted = Some(Action::Loop);
            }
            speed(ui, state);
            ui.separator();
            for (icon, action) in [(Icon::First, Action::PreviousClip), (Icon::Last, Action::NextClip)] {
                let about = tip(ui, action);
                if icon_button(ui, icon, action.entry().name, &about, action.is_enabled(state), false).clicked() {
                    wanted = Some(action);
                }
            }
            ui.add(egui::Label::new(place).selectable(false)).on_hover_text(format!(
                "Clip {} of {clips} held-out ones; each has {frames} frames, {secs:.2} s apart",
                state.wanted_clip + 1
            ));
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                let width = frames.to_string().len();
                ui.label(RichText::new(format!("frame {:>width$} / {frames}", t + 1)).monospace());
                track(ui, &mut state.playback.frame, t, &scores);
            });
        });
    });
    wanted
}

fn speed(ui: &mut Ui, state: &mut State) {
    let playback = &mut state.playback;
    let speed = egui::ComboBox::from_id_salt("speed")
        .width(52.0)
        .selected_text(format!("{}×", playback.rate()))
        .show_ui(ui, |ui| {
            for (i, rate) in SPEEDS.iter().enumerate() {
                ui.selectable_value(&mut playback.speed, i, format!("{rate}×"));
            }
        });
    speed.response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::ComboBox, true, "Speed"));
    let keys = [Action::Slower, Action::Faster].map(|action| tip(ui, action));
    speed.response.on_hover_text(format!("Speed; {}, {}", keys[0], keys[1]));
}

/// The scrubber: a bar a frame, as high as its mIoU, and the place in time.
fn track(ui: &mut Ui, frame: &mut usize, t: usize, scores: &[Option<f64>]) {
    let colors = style::colors(ui.visuals());
    let frames = scores.len().max(1);
    let (rect, mut response) = ui.allocate_exact_size(vec2(ui.available_width(), 34.0), Sense::click_and_drag());
    let width = rect.width() / frames as f32;
    let under = |x: f32| (((x - rect.left()) / width).floor().max(0.0) as usize).min(frames - 1);
    if let Some(at) = response.interact_pointer_pos()
        && under(at.x) != t
    {
        *frame = under(at.x);
        response.mark_changed();
    }
    response.widget_info(|| egui::WidgetInfo::slider(true, t as f64, "Frame"));
    let painter = ui.painter_at(rect.expand(1.0));
    painter.rect_filled(rect, 3.0, colors.bar);
    for (i, score) in scores.iter().enumerate() {
        let slot = Rect::from_min_size(pos2(rect.left() + i as f32 * width, rect.top()), vec2(width, rect.height()));
        if i == t {
            painter.rect_filled(slot, 2.0, colors.accent.gamma_multiply(0.22));
        } else if i > 0 {
            painter.vline(slot.left(), slot.bottom() - 5.0..=slot.bottom(), Stroke::new(1.0, colors.line));
        }
        if let Some(score) = score {
            let top = slot.bottom() - 1.0 - (rect.height() - 4.0) * *score as f32;
            let bar = Rect::from_x_y_ranges(slot.left() + 1.5..=slot.right() - 1.5, top..=slot.bottom() - 1.0);
            painter.rect_filled(
                bar,
                1.0,
                if i == t { colors.accent.gamma_multiply(0.8) } else { colors.quiet.gamma_multiply(0.45) },
            );
        }
    }
    let x = rect.left() + (t as f32 + 0.5) * width;
    painter.vline(x, rect.y_range(), Stroke::new(2.0, colors.accent));
    super::widgets::leave_keys(&response);
    if response.has_focus() {
        painter.rect_stroke(rect, 3.0, Stroke::new(1.0, colors.accent), egui::StrokeKind::Outside);
    }
    if let Some(at) = response.hover_pos() {
        let i = under(at.x);
        response.on_hover_text(match scores.get(i).copied().flatten() {
            Some(miou) => format!("Frame {} of {frames}, mIoU {}", i + 1, percent(Some(miou))),
            None => format!("Frame {} of {frames}", i + 1),
        });
    }
}
