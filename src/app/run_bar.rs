//! The run's controls and figures in the bar at the top. Every part has a fixed width, so that nothing moves when a figure
//! changes.

use eframe::egui::{self, Align, Color32, Label, Layout, Response, RichText, Sense, Ui, Vec2, vec2};

use super::actions::Action;
use super::engine::Phase;
use super::icons::Icon;
use super::state::State;
use super::style;
use super::training::Intent;
use super::widgets::action_button;
use crate::figures::{bytes, duration, thousands};

const HEIGHT: f32 = 26.0;
/// The bar's parts; the adapter takes what is left between the two.
const TRAIN_WIDTH: f32 = 86.0;
const STATE_WIDTH: f32 = 76.0;
const PREPARING_WIDTH: f32 = 420.0;
const ADAPTER_WIDTHS: [f32; 2] = [70.0, 260.0];

/// Draws the controls and figures; returns what was ordered.
pub fn ui(ui: &mut Ui, state: &State) -> Option<Action> {
    let mut wanted = None;
    ui.spacing_mut().item_spacing.x = 4.0;
    wanted = wanted.or(train_button(ui, state));
    wanted = wanted.or(more_button(ui, state));
    ui.add_space(4.0);
    let buttons = [
        (Icon::Pause, Action::Pause),
        (Icon::Step, Action::Step),
        (Icon::Stop, Action::Stop),
        (Icon::Save, Action::Save),
    ];
    for (icon, action) in buttons {
        if action_button(ui, state, icon, action) {
            wanted = Some(action);
        }
    }
    ui.add_space(8.0);
    figures(ui, state);
    wanted
}

fn train_button(ui: &mut Ui, state: &State) -> Option<Action> {
    let intent = Intent::of(state);
    let enabled = Action::Train.is_enabled(state);
    let colors = style::colors(ui.visuals());
    let mut button = egui::Button::new("").min_size(vec2(TRAIN_WIDTH, HEIGHT));
    if enabled {
        button = button.fill(colors.accent_fill);
    }
    let response = ui.add_enabled(enabled, button);
    let color = if enabled { Color32::WHITE } else { ui.visuals().text_color().gamma_multiply(0.4) };
    let rect = response.rect;
    Icon::Play.paint(ui.painter(), rect.with_max_x(rect.left() + 28.0), 11.0, color);
    let verb = if enabled { intent.verb() } else { "Train" };
    let font = egui::TextStyle::Button.resolve(ui.style());
    let at = egui::pos2(rect.left() + 27.0, rect.center().y);
    ui.painter().text(at, egui::Align2::LEFT_CENTER, verb, font, color);
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, enabled, Action::Train.entry().name));
    let hint = if state.source.is_none() {
        "Open a data set or generate a town first".to_owned()
    } else if enabled {
        format!("{} (F5)", intent.sentence(state))
    } else {
        "Training is under way".to_owned()
    };
    response.on_hover_text(&hint).on_disabled_hover_text(hint).clicked().then_some(Action::Train)
}

/// What Train would not do by itself.
fn more_button(ui: &mut Ui, state: &State) -> Option<Action> {
    let mut wanted = None;
    let menu = ui.menu_button("   ", |ui| {
        for (text, action) in [
            (Intent::of(state).sentence(state), Action::Train),
            (Action::NewRun.entry().name.to_owned(), Action::NewRun),
            (Action::Validate.entry().name.to_owned(), Action::Validate),
        ] {
            let key = action.entry().keys.first().map(|key| ui.ctx().format_shortcut(key)).unwrap_or_default();
            let button = egui::Button::new(text).shortcut_text(key);
            if ui.add_enabled(action.is_enabled(state), button).clicked() {
                wanted = Some(action);
            }
        }
    });
    menu.response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, true, "More ways to train"));
    let color = ui.visuals().text_color();
    Icon::More.paint(ui.painter(), menu.response.rect, 10.0, color);
    menu.response.on_hover_text("More ways to train");
    wanted
}

/// What is shown of the run.
struct Status {
    word: &'static str,
    color: Color32,
    hint: Option<String>,
    progress: Option<f32>,
}

fn status(ui: &Ui, state: &State) -> Status {
    let colors = style::colors(ui.visuals());
    let engine = &state.engine;
    let (word, color, hint) = match &engine.phase {
        _ if engine.stopping => ("Stopping", colors.warning, Some("It saves a checkpoint after this step".to_owned())),
        Phase::Idle => ("Ready", colors.quiet, None),
        Phase::Preparing { .. } if engine.is_training() => ("Preparing", colors.accent, None),
        Phase::Preparing { .. } => ("Loading", colors.accent, None),
        Phase::Training => ("Training", colors.good, None),
        Phase::Paused => ("Paused", colors.warning, None),
        Phase::Showing => ("Trained", colors.quiet, Some("A trained model is shown; nothing is trained".to_owned())),
        Phase::Finished(finished) if finished.stopped => ("Stopped", colors.quiet, None),
        Phase::Finished(_) => ("Finished", colors.good, None),
        Phase::Failed(why) => ("Failed", colors.error, Some(why.to_string())),
    };
    let progress = match &engine.phase {
        Phase::Preparing { total: 0, .. } => None,
        Phase::Preparing { done, total, .. } => Some(*done as f32 / *total as f32),
        _ => steps(state).map(|(done, all)| done as f32 / all.max(1) as f32),
    };
    Status { word, color, hint, progress }
}

/// Steps done and to do, of the run at work or open.
fn steps(state: &State) -> Option<(u32, usize)> {
    let resumable = state.resumable.as_ref();
    let all = state.engine.training.as_ref().or(resumable.map(|run| &run.config))?.train.steps;
    let last = state.engine.last.map(|metrics| metrics.step);
    Some((last.or(resumable.map(|run| run.step)).unwrap_or(0), all))
}

fn figures(ui: &mut Ui, state: &State) {
    let digit = ui.fonts_mut(|fonts| fonts.glyph_width(&egui::TextStyle::Monospace.resolve(ui.style()), '0'));
    let width = |characters: usize| (characters as f32 * digit).ceil() + 2.0;
    let colors = style::colors(ui.visuals());
    let now = status(ui, state);
    let left = ui.cursor().left();
    let state_text = RichText::new(now.word).color(now.color).strong();
    let shown = cell(ui, STATE_WIDTH, Align::Min, state_text);
    if let Some(hint) = &now.hint {
        shown.on_hover_text(hint);
    }
    let all = steps(state).map_or(0, |(_, all)| all);
    let widest = thousands(all as u64).len().max(5);
    let [step_width, rate_width, left_width] = [width(2 * widest + 8), width(10), width(13)];
    if let Phase::Preparing { what, done, total, left } = &state.engine.phase {
        let left = left.map_or(String::new(), |left| format!(", about {:.0} s left", left.as_secs_f64().ceil()));
        let count = if *total > 0 { format!("{done} of {total}{left}") } else { String::new() };
        let count_width = width(27);
        let text = RichText::new(format!("{what}…"));
        let gap = ui.spacing().item_spacing.x;
        let room = (ui.available_width() - count_width - gap).min(PREPARING_WIDTH);
        cell(ui, room, Align::Min, text).on_hover_text(what);
        cell(ui, count_width, Align::Max, RichText::new(count).monospace());
    } else {
        let step = steps(state).map_or(String::new(), |(done, all)| {
            format!("step {:>widest$} / {}", thousands(done.into()), thousands(all as u64))
        });
        let at_work = matches!(state.engine.phase, Phase::Training | Phase::Paused) && state.engine.last.is_some();
        let pace = state.history.pace().filter(|_| at_work);
        let rate = pace.map_or(String::new(), rate);
        let secs = state.history.secs_left(all as u32).filter(|_| at_work);
        let eta = secs.map_or(String::new(), |secs| format!("{} left", duration(secs)));
        cell(ui, step_width, Align::Max, RichText::new(step).monospace())
            .on_hover_text("Steps done, and of the whole run");
        cell(ui, rate_width, Align::Max, RichText::new(rate).monospace().color(colors.quiet))
            .on_hover_text("Steps a second, over the last reports");
        cell(ui, left_width, Align::Max, RichText::new(eta).monospace().color(colors.quiet))
            .on_hover_text("Time until the last step at this pace, without validations");
    }
    let right = ui.cursor().left() - ui.spacing().item_spacing.x;
    progress_line(ui, left, right, &now);
    memory_and_adapter(ui, state, width(28));
}

/// `7.32/s`, or `12.4 s/step` if it is slow.
fn rate(pace: f64) -> String {
    if pace >= 0.1 { format!("{pace:.2}/s") } else { format!("{:.0} s/step", 1.0 / pace) }
}

/// A thin line below the figures.
fn progress_line(ui: &mut Ui, left: f32, right: f32, now: &Status) {
    let Some(progress) = now.progress.map(|progress| progress.clamp(0.0, 1.0)) else { return };
    let bottom = ui.max_rect().center().y + HEIGHT / 2.0 + 1.0;
    let rect = egui::Rect::from_min_max(egui::pos2(left, bottom), egui::pos2(right, bottom + 3.0));
    let colors = style::colors(ui.visuals());
    ui.painter().rect_filled(rect, 1.5, colors.line);
    ui.painter().rect_filled(rect.with_max_x(left + rect.width() * progress), 1.5, colors.accent);
    let response = ui.interact(rect, ui.scope_id().with("progress"), Sense::hover());
    response.widget_info(|| {
        let mut info = egui::WidgetInfo::labeled(egui::Role::ProgressIndicator, true, "Progress of the run");
        info.value = Some(f64::from(progress));
        info
    });
}

fn memory_and_adapter(ui: &mut Ui, state: &State, memory_width: f32) {
    let Some(facts) = &state.engine.facts else { return };
    let colors = style::colors(ui.visuals());
    if ui.available_width() < memory_width {
        return;
    }
    let planned = bytes(facts.planned_bytes);
    let text = facts.used_bytes.map_or(String::new(), |used| format!("  used {}", bytes(used)));
    let used = facts.used_bytes.map_or("not told by this driver".to_owned(), bytes);
    cell(ui, memory_width, Align::Max, RichText::new(format!("plan {planned}{text}")).monospace().color(colors.quiet))
        .on_hover_text(format!(
            "Device memory: {planned} planned for the model, {used} in use with the driver's reserves"
        ));
    let [least, most] = ADAPTER_WIDTHS;
    let room = (ui.available_width() - 8.0).min(most);
    if room >= least {
        ui.add_space(8.0);
        cell(ui, room, Align::Min, RichText::new(&facts.adapter).small().color(colors.quiet))
            .on_hover_text(format!("Adapter: {}", facts.adapter));
    }
}

/// Text in a place of fixed width.
fn cell(ui: &mut Ui, width: f32, align: Align, text: RichText) -> Response {
    let layout = match align {
        Align::Max => Layout::right_to_left(Align::Center),
        _ => Layout::left_to_right(Align::Center),
    };
    let inner = ui.allocate_ui_with_layout(Vec2::new(width, HEIGHT), layout, |ui| {
        ui.set_min_width(width);
        ui.add(Label::new(text).truncate().selectable(false).sense(Sense::hover()))
    });
    inner.inner
}
