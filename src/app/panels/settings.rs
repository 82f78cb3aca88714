//! The settings of the next run, or of the one under way: every key of the configuration with its meaning.

use eframe::egui::{self, CollapsingHeader, RichText, Ui};
use toml::Value;

use self::needs::Needs;
use crate::app::actions::Action;
use crate::app::draft;
use crate::app::state::State;
use crate::app::{style, training};
use crate::train::config::RunConfig;

mod field;
mod needs;
#[cfg(test)]
mod tests;

/// Groups of keys. A key that is in none of them is in the last one.
const SECTIONS: [(&str, &[&str]); 6] = [
    ("Basics", &["train.preset", "train.steps", "train.batch", "train.learning_rate", "data.frames"]),
    ("Data", &["data.crop", "data.train_split", "data.val_split", "data.augment"]),
    ("Loss", &["train.cross_entropy", "train.class_weights", "train.lovasz", "train.kl", "train.embedding"]),
    // With all keys of all models; a model shows those that it has.
    (MODEL, &[]),
    (
        "Optimiser",
        &[
            "train.schedule",
            "train.warmup",
            "train.milestones",
            "train.decay",
            "train.weight_decay",
            "train.clip_norm",
            "train.accumulate",
            "train.ema",
        ],
    ),
    (
        "Validation and saving",
        &[
            "train.validate_every",
            "data.validation_clips",
            "train.checkpoint_every",
            "train.keep_last",
            "train.log_every",
            "output.dir",
        ],
    ),
];
const MODEL: &str = "Model";
const REST: &str = "Advanced";

/// Keys with a place of their own.
const ELSEWHERE: [&str; 3] = ["data.root", "model.classes", "train.device"];

/// What the panel remembers.
#[derive(Debug, Default)]
pub struct Memory {
    /// The key that is being typed, and what was typed.
    typing: Option<(&'static str, String)>,
    /// A key whose text cannot be read, and why.
    unreadable: Option<(&'static str, String)>,
    needs: Needs,
}

/// A change that the user made to a key.
enum Change {
    To(Value),
    Reset,
}

/// Draws the panel; returns what was ordered.
pub fn ui(ui: &mut Ui, state: &mut State, memory: &mut Memory) -> Option<Action> {
    let under_way = state.engine.training.clone();
    let editable = under_way.is_none();
    let config = under_way.unwrap_or_else(|| training::bound(state));
    let colors = style::colors(ui.visuals());
    if !editable {
        ui.label(
            RichText::new("These are the settings of the run under way. Stop it to change them.").color(colors.quiet),
        );
        ui.add_space(4.0);
    }
    let complaint = config.validate().err().map(|why| why.to_string());
    let culprit = complaint.as_deref().and_then(draft::culprit);
    let mut ordered = None;
    let mut change = None;
    ui.spacing_mut().item_spacing.y = 4.0;
    ui.add_enabled_ui(editable, |ui| {
        for (i, (title, keys)) in sections().into_iter().enumerate() {
            let edited = keys.iter().filter(|key| draft::is_edited(&config, key)).count();
            let wrong = culprit.is_some_and(|key| keys.contains(&key));
            let mark = if edited > 0 { format!("{title}  ({edited} changed)") } else { title.to_owned() };
            let mut text = RichText::new(mark).strong();
            if wrong {
                text = text.color(colors.error);
            }
            let header = CollapsingHeader::new(text).id_salt(title).default_open(i < 2).open(wrong.then_some(true));
            header.show_unindented(ui, |ui| {
                if title == "Data" {
                    ordered = ordered.or(data_ui(ui, state));
                }
                for key in keys {
                    let why = memory.unreadable.as_ref().filter(|(unreadable, _)| *unreadable == key);
                    let why = why.map(|(_, why)| why.clone());
                    let why = why.or(complaint.clone().filter(|_| culprit == Some(key)));
                    let changed = field::ui(ui, &config, key, memory, why.as_deref());
                    change = changed.map(|change| (key, change)).or(change.take());
                }
                if i == 0 {
                    let changed = memory.needs.ui(ui, &config, state.source.as_ref());
                    change = changed.map(|value| ("train.device", Change::To(value))).or(change.take());
                }
                ui.add_space(4.0);
            });
        }
        if draft::edited(&config).len() > 1 {
            let all = ui.button(format!("Set everything back to {}", config.train.preset.name()));
            if all.clicked() {
                apply(state, memory, draft::reset_all(&config));
            }
        }
    });
    // Screen readers can set the values of widgets that are not enabled.
    if let Some((key, change)) = change.filter(|_| editable) {
        let changed = match change {
            Change::To(value) => draft::set(&config, key, value),
            Change::Reset => draft::reset(&config, key),
        };
        apply(state, memory, changed);
    }
    ordered
}

fn apply(state: &mut State, memory: &mut Memory, changed: crate::Result<RunConfig>) {
    match changed {
        Ok(changed) => {
            state.draft = changed;
            memory.unreadable = None;
        }
        Err(why) => state.notices.error(&why),
    }
}

/// The sections with their keys; new keys come last.
fn sections() -> Vec<(&'static str, Vec<&'static str>)> {
    let placed = |key: &&str| SECTIONS.iter().any(|(_, keys)| keys.contains(key)) || ELSEWHERE.contains(key);
    let others = RunConfig::keys().map(|(key, _)| key).filter(|key| !placed(key));
    let (of_model, rest): (Vec<_>, Vec<_>) = others.partition(|key| key.starts_with("model."));
    let named =
        SECTIONS.iter().map(|&(title, keys)| (title, if title == MODEL { of_model.clone() } else { keys.to_vec() }));
    named.chain([(REST, rest)]).collect()
}

/// The data set that is open, and how to open another.
fn data_ui(ui: &mut Ui, state: &State) -> Option<Action> {
    let mut wanted = None;
    let quiet = style::colors(ui.visuals()).quiet;
    ui.horizontal(|ui| {
        ui.spacing_mut().item_spacing.x = 0.0;
        let room = ui.available_width() - field::WIDTH;
        field::left_cell(ui, room, |ui| {
            let name = state.source.as_ref().map_or("No data set yet".to_owned(), |source| source.name());
            let label = ui.add(egui::Label::new(name).truncate());
            if let Some(source) = &state.source {
                label.on_hover_text(source.held_out.about());
            }
        });
        let button = egui::Button::new("Open…").min_size(egui::vec2(field::WIDTH, 0.0));
        if ui.add(button).on_hover_text(crate::app::widgets::tip(ui, Action::OpenDataset)).clicked() {
            wanted = Some(Action::OpenDataset);
        }
    });
    if let Some(source) = &state.source {
        let [x, y, z] = source.held_out.grid().size;
        let clips = crate::figures::thousands(source.held_out.len() as u64);
        ui.label(RichText::new(format!("{clips} held-out clips of {x} x {y} x {z} voxels")).small().color(quiet));
    }
    wanted
}
