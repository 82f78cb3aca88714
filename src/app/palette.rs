//! The command palette: every order by its name.

use eframe::egui::{self, Align2, Context, Key, RichText};

use super::actions::{Action, ENTRIES, Entry};
use super::state::State;
use super::style;

/// Rows in view at once.
const ROWS: usize = 12;

/// The palette, open or not.
#[derive(Debug, Default)]
pub struct Palette {
    is_open: bool,
    query: String,
    chosen: usize,
}

impl Palette {
    /// Opens it, empty.
    pub fn open(&mut self) {
        *self = Palette { is_open: true, ..Palette::default() };
    }

    /// Whether it takes the keys.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Draws it; returns what was chosen.
    pub fn ui(&mut self, context: &Context, state: &State) -> Option<Action> {
        if !self.is_open {
            return None;
        }
        let found = matches(&self.query, state);
        let mut taken = None;
        let pressed = |key| context.input_mut(|input| input.consume_key(egui::Modifiers::NONE, key));
        if pressed(Key::Escape) {
            self.is_open = false;
        }
        if pressed(Key::ArrowDown) {
            self.chosen += 1;
        }
        if pressed(Key::ArrowUp) {
            self.chosen = self.chosen.saturating_sub(1);
        }
        self.chosen = self.chosen.min(found.len().saturating_sub(1));
        if pressed(Key::Enter) {
            taken = found.get(self.chosen).map(|entry| entry.action);
        }
        let response = egui::Window::new("Commands")
            .title_bar(false)
            .resizable(false)
            .anchor(Align2::CENTER_TOP, [0.0, 96.0])
            .fixed_size([420.0, 0.0])
            .show(context, |ui| {
                let hint = egui::TextEdit::singleline(&mut self.query)
                    .hint_text("Find a command")
                    .desired_width(f32::INFINITY);
                let edit = ui.add(hint);
                edit.widget_info(|| egui::WidgetInfo::labeled(egui::Role::TextInput, true, "Find a command"));
                edit.request_focus();
                if edit.changed() {
                    self.chosen = 0;
                }
                ui.separator();
                let first = (self.chosen + 1).saturating_sub(ROWS);
                for (row, entry) in found.iter().enumerate().skip(first).take(ROWS) {
                    if row_ui(ui, entry, row == self.chosen) {
                        taken = Some(entry.action);
                    }
                }
                if found.is_empty() {
                    ui.label(RichText::new("No command has these letters.").color(style::colors(ui.visuals()).quiet));
                }
            });
        let clicked_outside = response.is_some_and(|window| window.response.clicked_elsewhere());
        if taken.is_some() || clicked_outside {
            self.is_open = false;
        }
        taken
    }
}

fn row_ui(ui: &mut egui::Ui, entry: &Entry, chosen: bool) -> bool {
    let key = entry.keys.first().map(|key| ui.ctx().format_shortcut(key)).unwrap_or_default();
    let button =
        egui::Button::selectable(chosen, entry.name).shortcut_text(key).min_size([ui.available_width(), 24.0].into());
    ui.add(button).clicked()
}

/// The orders that are possible now and whose names hold the letters of `query` in order; names that begin with it first.
fn matches(query: &str, state: &State) -> Vec<&'static Entry> {
    let query = query.trim().to_lowercase();
    let mut found: Vec<(usize, &Entry)> = ENTRIES
        .iter()
        .filter(|entry| entry.action != Action::Palette && entry.action.is_enabled(state))
        .filter_map(|entry| Some((rank(&entry.name.to_lowercase(), &query)?, entry)))
        .collect();
    found.sort_by_key(|(rank, _)| *rank);
    found.into_iter().map(|(_, entry)| entry).collect()
}

/// How well `name` answers `query`, 0 best; `None` if not at all.
fn rank(name: &str, query: &str) -> Option<usize> {
    if name.starts_with(query) {
        return Some(0);
    }
    if name.split(|c: char| !c.is_alphanumeric()).any(|word| word.starts_with(query)) {
        return Some(1);
    }
    if name.contains(query) {
        return Some(2);
    }
    let mut letters = name.chars();
    query.chars().all(|wanted| letters.any(|letter| letter == wanted)).then_some(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_by_word_and_by_letters() {
        let names = |query: &str| matches(query, &State::default()).iter().map(|entry| entry.name).collect::<Vec<_>>();
        assert_eq!(names("open d").first(), Some(&"Open data set…"));
        assert_eq!(names("a town"), ["Generate a town"]);
        assert!(names("gnrt").contains(&"Generate a town"));
        assert!(names("xyzzy").is_empty());
        assert!(!names("").contains(&"Pause training"), "there is no training to pause");
    }
}
