//! The tables of `docs/configuration.md` are those of the keys and presets. `UPDATE_DOCS=1` writes them anew.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::path::Path;

use sep4d::models::FRAMES;
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

/// A table a section: a row a key, with its default in each preset and its meaning.
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
        let cells = Preset::ALL.into_iter().map(|preset| default_of(key, preset));
        rows.push([format!("`{key}`")].into_iter().chain(cells).chain([doc.to_owned()]).collect());
    }
    finish(&mut text, section, &mut rows);
    text
}

/// The default of `key` in `preset`, and what it becomes where other T change it.
fn default_of(key: &str, preset: Preset) -> String {
    let at = |frames| shown(&RunConfig::preset(preset, frames), key);
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

/// The value as a configuration file has it.
fn shown(config: &RunConfig, key: &str) -> String {
    format!("`{}`", config.value(key).unwrap())
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
