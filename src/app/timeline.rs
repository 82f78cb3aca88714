//! The time of all views: one scrubber, with each frame's mIoU behind it, below the sequence that the clip is a part of.

use eframe::egui::{self, Align, Layout, Panel, Rect, RichText, Sense, Stroke, Ui, pos2, vec2};

use super::actions::Action;
use super::icons::Icon;
use super::playback::{DEFAULT_FRAME_SECS, SPEEDS};
use super::sequence::{self, Sequence};
use super::state::State;
use super::style;
use super::widgets::{icon_button, tip};
use crate::data::Dataset;
use crate::figures::percent;

/// Height of the scrubber, points.
const TRACK: f32 = 32.0;
/// Height of the strip that stands for the sequence, points.
const STRIP: f32 = 8.0;
/// Room for the name of the sequence, points.
const NAME: f32 = 132.0;

/// What was ordered of the bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// An order.
    Order(Action),
    /// To show a clip.
    Clip(usize),
}

/// Draws the bar; returns what was ordered.
pub fn ui(ui: &mut Ui, state: &mut State) -> Option<Choice> {
    let mut wanted = None;
    Panel::bottom("timeline").exact_size(56.0).frame(style::BAR).show(ui, |ui| {
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
            let number = shown.first_frame + t * shown.frame_step;
            let name = shown.sequence.clone();
            let source = state.source.clone();
            let sequence = source.as_ref().and_then(|source| sequence::of(&source.held_out, state.wanted_clip));

            let playing = state.playback.playing;
            let (icon, title) = if playing { (Icon::Pause, "Pause") } else { (Icon::Play, "Play") };
            let about = tip(ui, Action::PlayPause);
            if icon_button(ui, icon, title, &about, frames > 1, false).clicked() {
                wanted = Some(Choice::Order(Action::PlayPause));
            }
            let about = format!("{}: the clip, or else time leads on through the sequence", tip(ui, Action::Loop));
            if icon_button(ui, Icon::Loop, "Loop", &about, true, state.playback.looping).clicked() {
                wanted = Some(Choice::Order(Action::Loop));
            }
            speed(ui, state);
            ui.separator();
            match &source {
                Some(source) => {
                    wanted = sequences(ui, &source.held_out, state.wanted_clip).map(Choice::Clip).or(wanted)
                }
                None => drop(ui.add(egui::Label::new(&name).selectable(false))),
            }
            for (icon, action) in [(Icon::First, Action::PreviousClip), (Icon::Last, Action::NextClip)] {
                let about = tip(ui, action);
                if icon_button(ui, icon, action.entry().name, &about, action.is_enabled(state), false).clicked() {
                    wanted = Some(Choice::Order(action));
                }
            }
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                let last = sequence.as_ref().map_or(number + frames, |sequence| sequence.frames.end - 1);
                let widths = [last, frames].map(|number| number.to_string().len());
                let place = format!("frame {number:>a$}   {:>b$} / {frames}", t + 1, a = widths[0], b = widths[1]);
                ui.label(RichText::new(place).monospace()).on_hover_text(format!(
                    "Frame {number} of {name}; frame {} of the {frames} in this clip, {secs:.2} s apart",
                    t + 1
                ));
                let room = ui.available_size();
                ui.allocate_ui_with_layout(room, Layout::top_down(Align::Min), |ui| {
                    ui.spacing_mut().item_spacing.y = 4.0;
                    let parts = source.as_ref().zip(sequence).filter(|(_, sequence)| sequence.clips.len() > 1);
                    let strip_height = if parts.is_some() { STRIP + 4.0 } else { 0.0 };
                    ui.add_space(((room.y - TRACK - strip_height) / 2.0).max(0.0));
                    if let Some((source, sequence)) = parts {
                        let part = strip(ui, &source.held_out, &sequence, state.wanted_clip);
                        wanted = part.map(Choice::Clip).or(wanted);
                    }
                    track(ui, &mut state.playback.frame, t, &scores);
                });
            });
        });
    });
    wanted
}

/// The sequence in view and all others; returns the first clip of the one that was chosen.
fn sequences(ui: &mut Ui, set: &Dataset, clip: usize) -> Option<usize> {
    let mut wanted = None;
    let all = sequence::all(set);
    let current = all.iter().find(|sequence| sequence.clips.contains(&clip));
    let name = current.map_or("", |sequence| sequence.name);
    let combo = egui::ComboBox::from_id_salt("sequence").width(NAME).selected_text(name).truncate();
    let combo = combo.show_ui(ui, |ui| {
        for sequence in &all {
            let is_current = sequence.clips.contains(&clip);
            let text = format!("{} frames", sequence.count());
            let row = egui::Button::selectable(is_current, sequence.name).shortcut_text(text);
            if ui.add(row).clicked() && !is_current {
                wanted = Some(sequence.clips.start);
            }
        }
    });
    combo.response.widget_info(|| {
        let mut info = egui::WidgetInfo::labeled(egui::Role::ComboBox, true, "Sequence");
        info.current_text_value = Some(name.to_owned());
        info
    });
    let keys = [Action::PreviousSequence, Action::NextSequence].map(|action| tip(ui, action));
    combo.response.on_hover_text(format!("The held-out sequence that is watched; {}, {}", keys[0], keys[1]));
    wanted
}

/// The whole sequence, and which part of it the clip is; returns the clip that was dragged to.
fn strip(ui: &mut Ui, set: &Dataset, sequence: &Sequence<'_>, clip: usize) -> Option<usize> {
    let colors = style::colors(ui.visuals());
    let (rect, mut response) = ui.allocate_exact_size(vec2(ui.available_width(), STRIP), Sense::click_and_drag());
    let (first, frames) = (sequence.frames.start, sequence.frames.len() as f32);
    let x = |frame: usize| rect.left() + rect.width() * (frame - first) as f32 / frames;
    let under = |x: f32| {
        let part = ((x - rect.left()) / rect.width()).clamp(0.0, 1.0);
        sequence::around(set, sequence, first + ((part * frames) as usize).min(sequence.frames.len() - 1))
    };
    let wanted = response.interact_pointer_pos().map(|at| under(at.x)).filter(|wanted| *wanted != clip);
    if wanted.is_some() {
        response.mark_changed();
    }
    let place = clip - sequence.clips.start;
    response.widget_info(|| egui::WidgetInfo::slider(true, place as f64, "Part of the sequence"));
    let lit = response.hovered() || response.dragged() || response.has_focus();
    ui.painter().rect_filled(rect, 3.0, if lit { colors.line } else { colors.bar });
    if let Some((_, start)) = set.origin(clip) {
        let end = sequence::end(set, clip, start).min(sequence.frames.end);
        let middle = (x(start) + x(end)) / 2.0;
        // Wide enough to be found in a long sequence.
        let half = ((x(end) - x(start)) / 2.0).max(3.0);
        ui.painter().rect_filled(rect.with_min_x(middle - half).with_max_x(middle + half), 3.0, colors.accent);
    }
    super::widgets::leave_keys(&response);
    if response.has_focus() {
        ui.painter().rect_stroke(rect, 3.0, Stroke::new(1.0, colors.accent), egui::StrokeKind::Outside);
    }
    let keys = [Action::PreviousClip, Action::NextClip].map(|action| tip(ui, action));
    response.on_hover_text(format!(
        "Clip {} of {} in {}: drag to another part of it; {}, {}",
        place + 1,
        sequence.clips.len(),
        sequence.name,
        keys[0],
        keys[1]
    ));
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
    let (rect, mut response) = ui.allocate_exact_size(vec2(ui.available_width(), TRACK), Sense::click_and_drag());
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
