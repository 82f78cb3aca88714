//! The menu: every order of the table under its heading, with its key.

use eframe::egui::{self, Button, Popup, Ui};

use super::actions::{Action, ENTRIES, Entry};
use super::icons::Icon;
use super::state::State;
use super::widgets::icon_button;

/// A part of the menu.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    File,
    Training,
    View,
    Classes,
    Time,
    Panels,
    Help,
}

impl Group {
    const ALL: [Group; 7] =
        [Group::File, Group::Training, Group::View, Group::Classes, Group::Time, Group::Panels, Group::Help];

    fn title(self) -> &'static str {
        match self {
            Group::File => "File",
            Group::Training => "Training",
            Group::View => "View",
            Group::Classes => "Classes",
            Group::Time => "Time",
            Group::Panels => "Panels",
            Group::Help => "Help",
        }
    }

    fn of(action: Action) -> Group {
        match action {
            Action::GenerateTown
            | Action::OpenDataset
            | Action::OpenRun
            | Action::OpenOverlay
            | Action::CloseOverlay
            | Action::Screenshot
            | Action::ExportGif
            | Action::ExportFrames
            | Action::ExportCsv
            | Action::Quit => Group::File,
            Action::Train
            | Action::NewRun
            | Action::Pause
            | Action::Step
            | Action::Stop
            | Action::Save
            | Action::Validate => Group::Training,
            Action::PlayPause
            | Action::Frames(_)
            | Action::FirstFrame
            | Action::LastFrame
            | Action::Loop
            | Action::Slower
            | Action::Faster
            | Action::PreviousClip
            | Action::NextClip
            | Action::WorstFrame => Group::Time,
            Action::ToggleClass(_) | Action::SoloClass(_) | Action::AllClasses => Group::Classes,
            Action::ResetCamera
            | Action::TopView
            | Action::FollowEgo
            | Action::Orthographic
            | Action::Orbit(..)
            | Action::Pan(..)
            | Action::Zoom(_)
            | Action::ResetCrop
            | Action::Uncertainty
            | Action::SafeColors
            | Action::Ornaments
            | Action::SelectCentre
            | Action::MoveSelection(..)
            | Action::Deselect
            | Action::Undo
            | Action::Redo
            | Action::ToggleTheme => Group::View,
            Action::ResetLayout | Action::Show(_) | Action::NextPanel | Action::Resize(_) => Group::Panels,
            Action::Welcome | Action::Palette | Action::DismissNotices => Group::Help,
        }
    }

    fn entries(self) -> impl Iterator<Item = &'static Entry> {
        ENTRIES.iter().filter(move |entry| Group::of(entry.action) == self)
    }
}

/// Draws the menu's button, and the menu while it is open; returns what was ordered.
pub fn ui(ui: &mut Ui, state: &State) -> Option<Action> {
    let mut wanted = None;
    let button = icon_button(ui, Icon::Menu, "Menu", "All commands", true, false);
    Popup::menu(&button).show(|ui| {
        ui.set_min_width(140.0);
        for group in Group::ALL {
            ui.menu_button(group.title(), |ui| {
                ui.set_min_width(290.0);
                egui::ScrollArea::vertical().max_height(ui.ctx().content_rect().height() - 80.0).show(ui, |ui| {
                    for entry in group.entries() {
                        let key = entry.keys.first().map(|key| ui.ctx().format_shortcut(key)).unwrap_or_default();
                        let row = Button::new(entry.name).shortcut_text(key).min_size([290.0, 22.0].into());
                        if ui.add_enabled(entry.action.is_enabled(state), row.frame_when_inactive(false)).clicked() {
                            wanted = Some(entry.action);
                            ui.close();
                        }
                    }
                });
            });
        }
    });
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_menu_holds_every_order_once_and_no_part_is_empty() {
        let listed: Vec<Action> = Group::ALL.into_iter().flat_map(Group::entries).map(|entry| entry.action).collect();
        assert_eq!(listed.len(), ENTRIES.len());
        assert!(ENTRIES.iter().all(|entry| listed.contains(&entry.action)));
        assert!(Group::ALL.into_iter().all(|group| group.entries().next().is_some()));
    }
}
