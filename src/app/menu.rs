//! The menu: every order of the table under its heading, with its key; what was opened lately; and the list of all keys.

use std::path::PathBuf;

use eframe::egui::{self, AtomExt, Button, Context, Id, Modal, Popup, Response, RichText, Ui};

use super::actions::{Action, ENTRIES, Entry};
use super::icons::Icon;
use super::state::State;
use super::style;
use super::training::name;
use super::widgets::icon_button;

/// Width of a row, points.
const ROW: f32 = 290.0;

/// What was taken from a menu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// An order.
    Order(Action),
    /// Something that was opened lately.
    Recent(PathBuf),
}

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
            | Action::ExportComparison
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
            | Action::PreviousSequence
            | Action::NextSequence
            | Action::WorstFrame
            | Action::WidestDifference => Group::Time,
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
            | Action::Errors
            | Action::SafeColors
            | Action::Ornaments
            | Action::SelectCentre
            | Action::MoveSelection(..)
            | Action::Deselect
            | Action::Undo
            | Action::Redo
            | Action::ToggleTheme => Group::View,
            Action::ResetLayout | Action::Show(_) | Action::NextPanel | Action::ClosePanel | Action::Resize(_) => {
                Group::Panels
            }
            Action::Welcome | Action::Palette | Action::Keys | Action::DismissNotices => Group::Help,
        }
    }

    fn entries(self) -> impl Iterator<Item = &'static Entry> {
        ENTRIES.iter().filter(move |entry| Group::of(entry.action) == self)
    }
}

/// Draws the menu's button, and the menu while it is open; returns what was taken.
pub fn ui(ui: &mut Ui, state: &State) -> Option<Choice> {
    let mut taken = None;
    let button = icon_button(ui, Icon::Menu, "Menu", "All commands", true, false);
    Popup::menu(&button).show(|ui| {
        ui.set_min_width(140.0);
        for group in Group::ALL {
            ui.menu_button(group.title(), |ui| {
                ui.set_min_width(ROW);
                egui::ScrollArea::vertical().max_height(ui.ctx().content_rect().height() - 80.0).show(ui, |ui| {
                    for entry in group.entries() {
                        row(ui, state, entry, &mut taken);
                    }
                });
            });
            if group == Group::File && !state.recent.paths.is_empty() {
                ui.menu_button("Open recent", |ui| recent(ui, state, &mut taken));
            }
        }
    });
    taken
}

/// A menu below `button`: `orders`, then what was opened lately.
pub fn below(button: &Response, state: &State, orders: &[Action]) -> Option<Choice> {
    let mut taken = None;
    Popup::menu(button).show(|ui| {
        for order in orders {
            row(ui, state, order.entry(), &mut taken);
        }
        if !state.recent.paths.is_empty() {
            ui.separator();
            recent(ui, state, &mut taken);
        }
    });
    taken
}

fn row(ui: &mut Ui, state: &State, entry: &Entry, taken: &mut Option<Choice>) {
    let key = entry.keys.first().map(|key| ui.ctx().format_shortcut(key)).unwrap_or_default();
    let row = Button::new(entry.name).shortcut_text(key).min_size([ROW, 22.0].into()).frame_when_inactive(false);
    if ui.add_enabled(entry.action.is_enabled(state), row).clicked() {
        *taken = Some(Choice::Order(entry.action));
        ui.close();
    }
}

fn recent(ui: &mut Ui, state: &State, taken: &mut Option<Choice>) {
    ui.set_max_width(ROW);
    for path in &state.recent.paths {
        if recent_row(ui, path).clicked() {
            *taken = Some(Choice::Recent(path.clone()));
            ui.close();
        }
    }
}

/// The name of a path, and where it lies as far as there is room.
pub fn recent_row(ui: &mut Ui, path: &std::path::Path) -> Response {
    let title = name(path);
    let place = path.parent().map(|parent| parent.display().to_string()).unwrap_or_default();
    let place = RichText::new(place).size(12.0).color(style::colors(ui.visuals()).quiet).atom_shrink(true);
    let button = Button::new((RichText::new(&title), place)).frame_when_inactive(false).truncate();
    let response = ui.add(button.min_size(egui::vec2(0.0, 24.0)));
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, true, format!("Open {title}")));
    response.on_hover_text(path.display().to_string())
}

/// Draws the list of all keys, if it is open.
pub fn keys(context: &Context, is_open: &mut bool) {
    if !*is_open {
        return;
    }
    let room = context.content_rect().size();
    let frame = egui::Frame::popup(&context.global_style()).inner_margin(16.0);
    let modal = Modal::new(Id::unique("keys")).frame(frame).show(context, |ui| {
        ui.set_width((room.x - 80.0).min(760.0));
        ui.horizontal(|ui| {
            ui.heading("All keys");
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                *is_open &=
                    !icon_button(ui, Icon::Close, "Close the list of keys", "Close (Escape)", true, false).clicked();
            });
        });
        let height = room.y - 160.0;
        egui::ScrollArea::vertical().max_height(height).min_scrolled_height(height).auto_shrink(false).show(ui, |ui| {
            // Room for the scroll bar.
            ui.set_width(ui.available_width() - 10.0);
            ui.spacing_mut().item_spacing = egui::vec2(28.0, 2.0);
            ui.columns(2, |columns| {
                for group in Group::ALL {
                    let long = matches!(group, Group::View | Group::Time);
                    let ui = &mut columns[usize::from(!long)];
                    group_keys(ui, group);
                }
            });
        });
    });
    *is_open &= !modal.should_close();
}

fn group_keys(ui: &mut Ui, group: Group) {
    ui.add_space(8.0);
    let colors = style::colors(ui.visuals());
    ui.label(RichText::new(group.title()).strong().color(colors.accent));
    for entry in group.entries() {
        let keys: Vec<String> = entry.keys.iter().map(|key| ui.ctx().format_shortcut(key)).collect();
        ui.horizontal(|ui| {
            ui.label(entry.name);
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                ui.label(RichText::new(keys.join("  ")).monospace().color(colors.quiet));
            });
        });
    }
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
