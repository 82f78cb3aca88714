//! Two clips' latents mixed, in space and in time, and decoded while the sliders move.

use eframe::egui::{self, RichText, Ui};

use super::common::{heading, note};
use crate::app::icons::Icon;
use crate::app::mix::Mix;
use crate::app::state::State;
use crate::app::widgets::{self, icon_button, named_button};
use crate::models::LatentKind;

/// Draws the panel.
pub fn ui(ui: &mut Ui, state: &mut State, mix: &mut Mix) {
    mix.is_watched = true;
    let in_view = state.shown.as_ref().filter(|shown| shown.model.is_some()).map(|shown| shown.clip);
    let clips = state.source.as_ref().map_or(0, |source| source.held_out.len());
    let (Some(a), 2..) = (in_view, clips) else {
        widgets::empty(ui, "Train a model or open a run with several clips\nto mix what it encodes.");
        return;
    };
    let place = |state: &State, clip: usize| {
        let place = state.source.as_ref().and_then(|source| source.held_out.origin(clip));
        place.map_or_else(String::new, |(sequence, frame)| format!("{sequence}, from frame {frame}"))
    };
    ui.spacing_mut().item_spacing.y = 5.0;
    note(ui, "Part of clip A's latent is replaced by clip B's; the reconstruction shows what the mix means.");
    ui.add_space(2.0);
    heading(ui, &format!("A: clip {a}, in view"));
    note(ui, place(state, a));
    ui.add_space(2.0);
    let mut b = mix.other.unwrap_or((a + clips / 2) % clips).min(clips - 1);
    ui.horizontal(|ui| {
        let label = ui.label(RichText::new("B: clip").strong());
        let before = icon_button(ui, Icon::Previous, "Previous clip for B", "Previous clip for B", b > 0, false);
        ui.add(egui::DragValue::new(&mut b).range(0..=clips - 1).speed(0.1)).labelled_by(label.id);
        let after = icon_button(ui, Icon::Next, "Next clip for B", "Next clip for B", b + 1 < clips, false);
        b = (b + usize::from(after.clicked())).saturating_sub(usize::from(before.clicked()));
    });
    mix.other = Some(b);
    note(ui, place(state, b));
    ui.add_space(4.0);

    let before = [mix.spatial, mix.temporal];
    let specs = || {
        let latents = state.shown.iter().filter_map(|shown| shown.model.as_ref()).flat_map(|model| &model.latents);
        latents.map(|latent| latent.spec)
    };
    let names = |temporal: bool| -> String {
        let mixed = specs().filter(|spec| spec.kind != LatentKind::Motion && spec.is_temporal() == temporal);
        mixed.map(|spec| spec.name).collect::<Vec<_>>().join(", ")
    };
    let has_motion = specs().any(|spec| spec.kind == LatentKind::Motion);
    let (over_space, over_time) = (names(false), names(true));
    for (name, latents, part) in [("Space", &over_space, &mut mix.spatial), ("Time", &over_time, &mut mix.temporal)] {
        if latents.is_empty() {
            continue;
        }
        widgets::figure(ui, &format!("{name}: {latents}"), format!("{:>3.0} % B", *part * 100.0));
        ui.horizontal(|ui| {
            ui.label("A");
            ui.spacing_mut().slider_width = ui.available_width() - 20.0;
            let slider = egui::Slider::new(part, 0.0..=1.0).show_value(false).step_by(0.01);
            let response = ui.add(slider);
            let value = f64::from(*part);
            response.widget_info(|| egui::WidgetInfo::slider(true, value, format!("{name}: part of clip B")));
            ui.label("B");
        });
    }
    // With one kind alone, its slider says it all.
    if !over_space.is_empty() && !over_time.is_empty() {
        ui.horizontal_wrapped(|ui| {
            for (what, part) in [("time", &mut mix.temporal), ("space", &mut mix.spatial)] {
                let name = format!("Swap what A and B hold of {what}");
                if named_button(ui, &format!("Swap {what}"), &name, true, None).clicked() {
                    *part = 1.0 - *part;
                }
            }
        });
    }
    if has_motion {
        note(ui, "The sensor moves as in clip A.");
    }
    if before != [mix.spatial, mix.temporal] {
        mix.on = true;
    }
    ui.add_space(4.0);
    ui.horizontal(|ui| {
        ui.checkbox(&mut mix.on, "Show the mix")
            .on_hover_text("The reconstruction shows the mix instead of clip A's own");
        let name = "Show clip A's own reconstruction again";
        if named_button(ui, "Clear", name, mix.on, None).clicked() {
            mix.clear(state);
        }
    });
    note(ui, status(state, mix, a, b));
}

/// Where the mix has got to, in a line.
fn status(state: &State, mix: &Mix, a: usize, b: usize) -> String {
    if !mix.on {
        "The reconstruction is clip A's own.".into()
    } else if a == b {
        "A and B are the same clip; choose another for B.".into()
    } else if !state.engine.is_live() {
        "No model is at work: open a run, or train.".into()
    } else if mix.wants_other() {
        format!("Waiting for the latent of clip {b}…")
    } else {
        match &state.mixed {
            Some(mixed) => format!(
                "Decoded in {:.2} s{}",
                mixed.seconds,
                if mix.is_waiting() { ", the next is under way…" } else { "." }
            ),
            None => "Decoding…".into(),
        }
    }
}
