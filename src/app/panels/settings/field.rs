//! One key: its name, its value as a fitting widget, what it means on hover, and what is wrong with it.

use eframe::egui::{self, Align, ComboBox, DragValue, Label, Layout, Response, RichText, Sense, Ui, vec2};
use toml::Value;

use super::{Change, Memory};
use crate::app::icons::Icon;
use crate::app::{draft, style};
use crate::data::Split;
use crate::models::{ARCHITECTURES, Values, keys_of_all};
use crate::train::config::{Preset, RunConfig};

/// Of the column of values.
pub const WIDTH: f32 = 112.0;
/// Of the mark of what was changed.
const MARK: f32 = 22.0;

/// Draws `key` of `config`; `why` says what is wrong with it.
pub fn ui(
    ui: &mut Ui,
    config: &RunConfig,
    key: &'static str,
    memory: &mut Memory,
    why: Option<&str>,
) -> Option<Change> {
    let value = config.value(key)?;
    let doc = RunConfig::keys().find(|(other, _)| *other == key).map_or("", |(_, doc)| doc);
    let edited = draft::is_edited(config, key);
    let preset = draft::preset_value(config, key).map(|value| shown(&value)).unwrap_or_default();
    let mut hint = format!("{doc}\n\n{key}");
    if edited {
        hint += &format!("; {} has {preset}", config.train.preset.name());
    }
    let mut change = None;
    ui.horizontal(|ui| {
        ui.spacing_mut().item_spacing.x = 0.0;
        let room = ui.available_width() - WIDTH - MARK;
        let label = left_cell(ui, room, |ui| {
            let mut text = RichText::new(title(key));
            if edited {
                text = text.strong();
            }
            ui.add(Label::new(text).truncate().selectable(false).sense(Sense::hover()))
        });
        left_cell(ui, MARK, |ui| {
            if edited && reset_button(ui, key, &preset).clicked() {
                change = Some(Change::Reset);
            }
        });
        let response = left_cell(ui, WIDTH, |ui| editor(ui, key, &value, config, memory, &mut change));
        let response = response.labelled_by(label.id);
        for response in [label, response] {
            response.on_hover_text(&hint).on_disabled_hover_text(&hint);
        }
    });
    if let Some(why) = why {
        ui.label(RichText::new(why).small().color(style::colors(ui.visuals()).error));
    }
    change
}

/// A part of a row with a fixed width.
pub fn left_cell<R>(ui: &mut Ui, width: f32, contents: impl FnOnce(&mut Ui) -> R) -> R {
    let size = vec2(width, ui.spacing().interact_size.y);
    let layout = Layout::left_to_right(Align::Center);
    let inner = ui.allocate_ui_with_layout(size, layout, |ui| {
        ui.set_min_width(width);
        contents(ui)
    });
    inner.inner
}

fn reset_button(ui: &mut Ui, key: &str, preset: &str) -> Response {
    let button = egui::Button::new("").frame(false).min_size(vec2(18.0, 18.0));
    let response = ui.add(button);
    let name = format!("Set {} back to {preset}", title(key));
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, ui.is_enabled(), &name));
    let color = style::colors(ui.visuals()).accent;
    let color = if ui.is_enabled() { color } else { color.gamma_multiply(0.4) };
    Icon::Reset.paint(ui.painter(), response.rect, 10.0, color);
    response.on_hover_text(name)
}

fn editor(
    ui: &mut Ui,
    key: &'static str,
    value: &Value,
    config: &RunConfig,
    memory: &mut Memory,
    change: &mut Option<Change>,
) -> Response {
    ui.set_min_width(ui.available_width());
    match value {
        Value::Integer(number) => {
            let mut number = *number;
            let speed = (number as f64 * 0.01).max(0.05);
            let drag = DragValue::new(&mut number).range(0..=i64::MAX).speed(speed).update_while_editing(false);
            let drag = drag.custom_formatter(|number, _| crate::figures::thousands(number as u64));
            let drag = drag.custom_parser(|text| text.replace([',', ' ', '_'], "").parse().ok());
            let response = ui.add_sized(ui.available_size(), drag);
            if response.changed() {
                *change = Some(Change::To(Value::Integer(number)));
            }
            response
        }
        Value::Float(number) => {
            let mut number = *number;
            let speed = (number.abs() * 0.01).max(1e-6);
            let drag = DragValue::new(&mut number).speed(speed).update_while_editing(false);
            let drag = drag.custom_formatter(|number, _| decimal(number));
            let response = ui.add_sized(ui.available_size(), drag.custom_parser(|text| text.trim().parse().ok()));
            if response.changed() {
                *change = Some(Change::To(Value::Float(number)));
            }
            response
        }
        Value::Boolean(on) => {
            let mut on = *on;
            let response = ui.checkbox(&mut on, "");
            if response.changed() {
                *change = Some(Change::To(Value::Boolean(on)));
            }
            response
        }
        Value::String(text) => match choices(key) {
            Some(choices) => choose(ui, key, text, &choices, change),
            None => type_in(ui, key, value, config, memory, change),
        },
        _ => type_in(ui, key, value, config, memory, change),
    }
}

/// What a key of text may be, each with what it means, if that is known.
fn choices(key: &str) -> Option<Vec<(&'static str, &'static str)>> {
    match key {
        "train.preset" => Some(Preset::ALL.map(|preset| (preset.name(), draft::about(preset))).to_vec()),
        "train.schedule" => Some(vec![("steps", "by a factor"), ("cosine", "to 0")]),
        "data.unobserved" => Some(vec![("free", "free space"), ("ignore", "unknown")]),
        "train.class_weights" => Some(vec![("cube_root", "of rarity"), ("none", "all alike")]),
        "train.precision" => Some(vec![("f32", "4 bytes"), ("f16", "2 bytes")]),
        "model.architecture" => Some(ARCHITECTURES.iter().map(|kind| (kind.name, kind.about)).collect()),
        "data.train_split" | "data.val_split" => {
            let splits = [(Split::Train, "train"), (Split::Val, "val"), (Split::Test, "test")];
            Some(splits.map(|(split, name)| (name, split.folder())).to_vec())
        }
        key => keys_of_all().into_iter().find(|known| known.key == key).and_then(|known| match known.values {
            Values::Choice { names, .. } => Some(names.to_vec()),
            Values::Width { .. } => None,
        }),
    }
}

fn choose(
    ui: &mut Ui,
    key: &str,
    text: &str,
    choices: &[(&'static str, &str)],
    change: &mut Option<Change>,
) -> Response {
    let combo = ComboBox::from_id_salt(key).selected_text(text).width(ui.available_width());
    let shown = combo.show_ui(ui, |ui| {
        for (name, about) in choices {
            let button = egui::Button::selectable(*name == text, *name).shortcut_text(*about);
            let response = ui.add(button);
            response.widget_info(|| egui::WidgetInfo::selected(egui::Role::Button, true, *name == text, *name));
            if response.clicked() && *name != text {
                *change = Some(Change::To(Value::String((*name).to_owned())));
            }
        }
    });
    shown.response
}

/// A text, or a list with commas; taken over when the field is left.
fn type_in(
    ui: &mut Ui,
    key: &'static str,
    value: &Value,
    config: &RunConfig,
    memory: &mut Memory,
    change: &mut Option<Change>,
) -> Response {
    let mut text = match &memory.typing {
        Some((typed, text)) if *typed == key => text.clone(),
        _ => shown(value),
    };
    let hint = match key {
        "data.crop" => "whole grid",
        "data.sequences" => "all",
        "output.dir" => "next in runs/",
        _ => "none",
    };
    let edit = egui::TextEdit::singleline(&mut text).hint_text(hint).desired_width(f32::INFINITY);
    let response = ui.add(edit);
    if response.changed() {
        memory.typing = Some((key, text.clone()));
    }
    if response.lost_focus() && memory.typing.as_ref().is_some_and(|(typed, _)| *typed == key) {
        match parse(config, key, value, &text) {
            Some(new) => {
                memory.typing = None;
                *change = (new != *value).then_some(Change::To(new));
                memory.unreadable = memory.unreadable.take().filter(|(unreadable, _)| *unreadable != key);
            }
            None => {
                memory.unreadable =
                    Some((key, format!("{text:?} is no list of numbers; write them with commas between")));
            }
        }
    }
    response
}

fn parse(config: &RunConfig, key: &'static str, old: &Value, text: &str) -> Option<Value> {
    if !old.is_array() {
        return Some(Value::String(text.trim().to_owned()));
    }
    let words = || text.trim_matches(['[', ']', ' ']).split([',', ' ']).filter(|word| !word.is_empty());
    let whole = words().map(|word| word.parse().map(Value::Integer).ok()).collect::<Option<Vec<_>>>();
    let decimals = words().map(|word| word.parse().map(Value::Float).ok()).collect::<Option<Vec<_>>>();
    let names = text.trim_matches(['[', ']', ' ']).split(',').map(|name| name.trim().trim_matches('"'));
    let names = names.filter(|name| !name.is_empty()).map(|name| Value::String(name.to_owned())).collect();
    let lists = [whole, decimals, Some(names)].into_iter().flatten().map(Value::Array);
    lists.into_iter().find(|list| config.with_values([(key, list.clone())]).is_ok())
}

/// A value for people.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Integer(number) => crate::figures::thousands(number.unsigned_abs()),
        Value::Float(number) => decimal(*number),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// `0.003`, `1e-5`, `2`.
fn decimal(number: f64) -> String {
    let size = number.abs();
    if number != 0.0 && !(1e-4..1e6).contains(&size) { format!("{number:e}") } else { format!("{number}") }
}

/// What the panel calls a key.
pub fn title(key: &str) -> String {
    let name = key.rsplit('.').next().unwrap_or(key);
    let given = match name {
        "frames" => "Frames, T",
        "batch" => "Batch size, B",
        "steps" => "Steps",
        "kl" => "KL divergence",
        "lovasz" => "Lovász",
        "val_split" => "Validate on",
        "train_split" => "Train on",
        "architecture" => "Kind of model",
        "latent_channels" => "Latent channels, C",
        "plane_features" => "Plane features, D",
        "warmup" => "Warm-up, steps",
        "dir" => "Run folder",
        "clip_norm" => "Gradient limit",
        "validation_clips" => "Validation clips",
        "memory_budget" => "Memory limit, GiB",
        _ => "",
    };
    if !given.is_empty() {
        return given.to_owned();
    }
    let words = name.replace('_', " ");
    let mut letters = words.chars();
    letters.next().map_or(words.clone(), |first| first.to_uppercase().collect::<String>() + letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_they_are_written() {
        let config = RunConfig::preset(Preset::Demo, None);
        let read = |key, text| parse(&config, key, &config.value(key).unwrap(), text).map(|value| shown(&value));
        assert_eq!(read("data.crop", "[64, 64,8]").as_deref(), Some("64, 64, 8"));
        assert_eq!(read("data.crop", "").as_deref(), Some(""));
        assert_eq!(read("data.crop", "a lot"), None);
        assert_eq!(read("data.crop", "0.5"), None, "voxels are whole");
        assert_eq!(read("train.milestones", "0 0.5 1").as_deref(), Some("0, 0.5, 1"));
        assert_eq!(read("data.sequences", "[\"Town 1\", 08]").as_deref(), Some("Town 1, 08"));
        assert_eq!(read("data.sequences", "10").as_deref(), Some("10"));
        assert_eq!(read("output.dir", " some where ").as_deref(), Some("some where"));
    }

    #[test]
    fn numbers_and_names_are_written_for_people() {
        assert_eq!([3e-3, 1e-5, 2.0, 0.0, 2e9].map(decimal), ["0.003", "1e-5", "2", "0", "2e9"]);
        assert_eq!(title("train.learning_rate"), "Learning rate");
        let titles: Vec<String> = RunConfig::keys().map(|(key, _)| title(key)).collect();
        assert!(titles.iter().all(|title| titles.iter().filter(|other| *other == title).count() == 1), "{titles:?}");
    }
}
