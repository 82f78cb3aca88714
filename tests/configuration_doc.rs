//! The tables of `docs/configuration.md` are those of the keys and presets. `UPDATE_DOCS=1` writes them anew.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::path::Path;

use sep4d::models::{ARCHITECTURE, ARCHITECTURES, Architecture, FRAMES};
use sep4d::train::config::{Preset, RunConfig};

/// What stands around the tables in the file.
const BEGIN: &str = "<!-- Made from the keys: UPDATE_DOCS=1 cargo test --test configuration_doc -->\n";
const END: &str = "<!-- The end of what is made from the keys -->\n";

#[test]
fn configuration_md_lists_the_keys_as_they_are() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let expected = format!("{before}{BEGIN}\n{}\n{END}{after}", tables());
    if std::env::var_os("UPDATE_DOCS").is_some_and(|value| value == "1") {
        std::fs::write(&path, expected).unwrap();
    } else {
        assert!(
            text == expected,
            "docs/configuration.md is not what the keys and presets are; run UPDATE_DOCS=1 cargo test --test configuration_doc"
        );
    }
}

/// A table a section: a row a key, with its default in each preset and its meaning. Defaults are of the first model that has the key.
fn tables() -> String {
    let mut text = String::new();
    let mut section = "";
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (key, doc) in RunConfig::keys() {
        let parent = key.split_once('.').unwrap().0;
        if parent != section {
            finish(&mut text, section, &mut rows);
            section = parent;
        }
        let first = ARCHITECTURES.iter().find(|model| default_in(model, key, Preset::Demo, None).is_some()).unwrap();
        let cells = Preset::ALL.into_iter().map(|preset| default_of(first, key, preset));
        let meaning = format!("{doc}{}", of_models(first, key));
        rows.push([format!("`{key}`")].into_iter().chain(cells).chain([meaning]).collect());
    }
    finish(&mut text, section, &mut rows);
    text
}

/// Which models have the key, if not all; and the defaults of those where they are others.
fn of_models(first: &Architecture, key: &str) -> String {
    let of = |model: &Architecture| {
        let all = Preset::ALL.map(|preset| default_in(model, key, preset, None));
        all.into_iter().collect::<Option<Vec<String>>>()
    };
    let usual = of(first);
    let have: Vec<&&Architecture> = ARCHITECTURES.iter().filter(|model| of(model).is_some()).collect();
    let mut text = String::new();
    if have.len() < ARCHITECTURES.len() {
        let names: Vec<String> = have.iter().map(|model| format!("`{}`", model.name)).collect();
        write!(text, " ({})", names.join(", ")).unwrap();
    }
    for model in have.iter().filter(|model| key != ARCHITECTURE && of(model) != usual) {
        let mut values = of(model).unwrap();
        values.dedup();
        write!(text, " With `{}`: {}.", model.name, values.join(", ")).unwrap();
    }
    text
}

/// The default of `key` with `model` in `preset`, and what it becomes where other T change it.
fn default_of(model: &Architecture, key: &str, preset: Preset) -> String {
    let at = |frames| default_in(model, key, preset, frames).unwrap();
    let own = at(None);
    if key == "data.frames" {
        return own;
    }
    let mut runs: Vec<(usize, String)> = Vec::new();
    for frames in FRAMES {
        let value = at(Some(frames));
        if runs.last().is_none_or(|(_, last)| *last != value) {
            runs.push((frames, value));
        }
    }
    let first = runs.remove(0).1;
    runs.into_iter().fold(first, |cell, (from, value)| format!("{cell}; from T = {from} on {value}"))
}

/// The value as a configuration file has it, if the model has the key.
fn default_in(model: &Architecture, key: &str, preset: Preset, frames: Option<usize>) -> Option<String> {
    let config = RunConfig::preset(preset, frames).with_values([(ARCHITECTURE, model.name.into())]).unwrap();
    config.value(key).map(|value| format!("`{value}`"))
}

/// Appends the rows as an aligned table.
fn finish(text: &mut String, section: &str, rows: &mut Vec<Vec<String>>) {
    if rows.is_empty() {
        return;
    }
    let presets = Preset::ALL.into_iter().map(|preset| format!("`{}`", preset.name()));
    let head: Vec<String> = ["key".to_owned()].into_iter().chain(presets).chain(["meaning".to_owned()]).collect();
    rows.insert(0, head);
    let columns = rows[0].len();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &[String]| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    if !text.is_empty() {
        text.push('\n');
    }
    let _ = write!(text, "### `[{section}]`\n\n{}", line(&rows[0]));
    let rule: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
    text.push_str(&line(&rule));
    rows.drain(..).skip(1).for_each(|row| text.push_str(&line(&row)));
}
