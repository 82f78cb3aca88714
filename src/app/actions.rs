//! Everything the user can order, in one table: the menus, the buttons, the keyboard and the command palette read it.

use eframe::egui::{Key, KeyboardShortcut, Modifiers};

use super::engine::Phase;
use super::layout::Pane;
use super::rivals::MOST;
use super::state::{Page, State};

/// An order.
#[expect(missing_docs, reason = "ENTRIES says what each is")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    GenerateTown,
    OpenDataset,
    OpenRun,
    OpenOverlay,
    CloseOverlay,
    Welcome,
    Train,
    NewRun,
    Pause,
    Step,
    Stop,
    Save,
    Validate,
    PlayPause,
    /// So many frames on or back.
    Frames(i8),
    FirstFrame,
    LastFrame,
    Loop,
    Slower,
    Faster,
    PreviousClip,
    NextClip,
    PreviousSequence,
    NextSequence,
    ResetCamera,
    TopView,
    FollowEgo,
    Orthographic,
    /// Turns the camera, in steps to the right and up.
    Orbit(i8, i8),
    /// Moves the camera, in steps to the right and up.
    Pan(i8, i8),
    /// Comes closer (above 0) or goes away.
    Zoom(i8),
    /// Draws a class or not.
    ToggleClass(u8),
    /// Draws only a class.
    SoloClass(u8),
    AllClasses,
    ResetCrop,
    Uncertainty,
    Errors,
    SafeColors,
    Ornaments,
    SelectCentre,
    /// Moves the selection by so many voxels along x, y and z.
    MoveSelection(i8, i8, i8),
    Deselect,
    WorstFrame,
    WidestDifference,
    Screenshot,
    ExportGif,
    ExportFrames,
    ExportCsv,
    ExportComparison,
    Undo,
    Redo,
    Palette,
    Keys,
    ToggleTheme,
    ResetLayout,
    /// Brings a panel to the front.
    Show(Pane),
    /// Makes the last panel that was used larger (above 0) or smaller.
    Resize(i8),
    NextPanel,
    /// Takes the last panel that was used away.
    ClosePanel,
    DismissNotices,
    Quit,
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// What to do.
    pub action: Action,
    /// What menus and buttons call it.
    pub name: &'static str,
    /// Its keys; the first is shown.
    pub keys: &'static [KeyboardShortcut],
}

const fn key(key: Key) -> KeyboardShortcut {
    KeyboardShortcut::new(Modifiers::NONE, key)
}

const fn shift(key: Key) -> KeyboardShortcut {
    KeyboardShortcut::new(Modifiers::SHIFT, key)
}

const fn alt(key: Key) -> KeyboardShortcut {
    KeyboardShortcut::new(Modifiers::ALT, key)
}

const fn command(key: Key) -> KeyboardShortcut {
    KeyboardShortcut::new(Modifiers::COMMAND, key)
}

const fn command_shift(key: Key) -> KeyboardShortcut {
    KeyboardShortcut::new(Modifiers::COMMAND.plus(Modifiers::SHIFT), key)
}

macro_rules! entries {
    ($($action:expr, $name:literal, [$($key:expr),*];)+) => {
        &[$(Entry { action: $action, name: $name, keys: &[$($key),*] }),+]
    };
}

/// All orders, grouped as menus show them.
pub const ENTRIES: &[Entry] = entries! {
    Action::GenerateTown, "Generate a town", [command(Key::G)];
    Action::OpenDataset, "Open data set…", [command(Key::O)];
    Action::OpenRun, "Open run…", [command_shift(Key::O)];
    Action::OpenOverlay, "Compare with another run…", [command(Key::D)];
    Action::CloseOverlay, "End the comparison of runs", [command_shift(Key::D)];
    Action::Welcome, "Start page and back", [command(Key::H)];
    Action::Train, "Train", [key(Key::F5)];
    Action::NewRun, "Start a new run", [command(Key::F5)];
    Action::Pause, "Pause training", [key(Key::F6)];
    Action::Step, "Train one step", [key(Key::F10)];
    Action::Stop, "Stop training", [shift(Key::F5)];
    Action::Save, "Save a checkpoint", [command(Key::S)];
    Action::Validate, "Validate now", [key(Key::F7)];
    Action::PlayPause, "Play or pause", [key(Key::Space)];
    Action::Frames(-1), "Previous frame", [key(Key::ArrowLeft)];
    Action::Frames(1), "Next frame", [key(Key::ArrowRight)];
    Action::Frames(-10), "Ten frames back", [shift(Key::ArrowLeft)];
    Action::Frames(10), "Ten frames on", [shift(Key::ArrowRight)];
    Action::FirstFrame, "First frame", [key(Key::Home)];
    Action::LastFrame, "Last frame", [key(Key::End)];
    Action::Loop, "Loop", [key(Key::L)];
    Action::Slower, "Slower", [key(Key::Comma)];
    Action::Faster, "Faster", [key(Key::Period)];
    Action::PreviousClip, "Previous clip", [key(Key::PageUp)];
    Action::NextClip, "Next clip", [key(Key::PageDown)];
    Action::PreviousSequence, "Previous sequence", [shift(Key::PageUp)];
    Action::NextSequence, "Next sequence", [shift(Key::PageDown)];
    Action::WorstFrame, "Go to the worst frame", [key(Key::N)];
    Action::WidestDifference, "Go to where the runs differ most", [key(Key::B)];
    Action::ResetCamera, "Reset the camera", [key(Key::R)];
    Action::TopView, "View from the top", [key(Key::T)];
    Action::FollowEgo, "Follow the ego vehicle", [key(Key::F)];
    Action::Orthographic, "Parallel projection", [key(Key::O)];
    Action::Orbit(-1, 0), "Turn left", [key(Key::A)];
    Action::Orbit(1, 0), "Turn right", [key(Key::D)];
    Action::Orbit(0, 1), "Look from higher up", [key(Key::W)];
    Action::Orbit(0, -1), "Look from lower down", [key(Key::S)];
    Action::Pan(-1, 0), "Move left", [shift(Key::A)];
    Action::Pan(1, 0), "Move right", [shift(Key::D)];
    Action::Pan(0, 1), "Move up", [shift(Key::W)];
    Action::Pan(0, -1), "Move down", [shift(Key::S)];
    Action::Zoom(1), "Closer", [key(Key::Plus), key(Key::Equals)];
    Action::Zoom(-1), "Further away", [key(Key::Minus)];
    Action::ToggleClass(1), "Show or hide class 1", [key(Key::Num1)];
    Action::ToggleClass(2), "Show or hide class 2", [key(Key::Num2)];
    Action::ToggleClass(3), "Show or hide class 3", [key(Key::Num3)];
    Action::ToggleClass(4), "Show or hide class 4", [key(Key::Num4)];
    Action::ToggleClass(5), "Show or hide class 5", [key(Key::Num5)];
    Action::ToggleClass(6), "Show or hide class 6", [key(Key::Num6)];
    Action::ToggleClass(7), "Show or hide class 7", [key(Key::Num7)];
    Action::ToggleClass(8), "Show or hide class 8", [key(Key::Num8)];
    Action::ToggleClass(9), "Show or hide class 9", [key(Key::Num9)];
    Action::ToggleClass(10), "Show or hide class 10", [key(Key::Num0)];
    Action::SoloClass(1), "Only class 1", [shift(Key::Num1)];
    Action::SoloClass(2), "Only class 2", [shift(Key::Num2)];
    Action::SoloClass(3), "Only class 3", [shift(Key::Num3)];
    Action::SoloClass(4), "Only class 4", [shift(Key::Num4)];
    Action::SoloClass(5), "Only class 5", [shift(Key::Num5)];
    Action::SoloClass(6), "Only class 6", [shift(Key::Num6)];
    Action::SoloClass(7), "Only class 7", [shift(Key::Num7)];
    Action::SoloClass(8), "Only class 8", [shift(Key::Num8)];
    Action::SoloClass(9), "Only class 9", [shift(Key::Num9)];
    Action::SoloClass(10), "Only class 10", [shift(Key::Num0)];
    Action::AllClasses, "Show all classes", [key(Key::Backtick)];
    Action::ResetCrop, "Show the whole grid", [key(Key::G)];
    Action::Uncertainty, "Colour by uncertainty", [key(Key::U)];
    Action::Errors, "Colour models by their errors", [key(Key::E)];
    Action::SafeColors, "Colours for colour-blind readers", [key(Key::C)];
    Action::Ornaments, "Axes and scale", [key(Key::X)];
    Action::SelectCentre, "Select the voxel in the middle of the view", [key(Key::V)];
    Action::MoveSelection(1, 0, 0), "Selection forward (x)", [alt(Key::ArrowUp)];
    Action::MoveSelection(-1, 0, 0), "Selection back (x)", [alt(Key::ArrowDown)];
    Action::MoveSelection(0, 1, 0), "Selection right (y)", [alt(Key::ArrowRight)];
    Action::MoveSelection(0, -1, 0), "Selection left (y)", [alt(Key::ArrowLeft)];
    Action::MoveSelection(0, 0, 1), "Selection up (z)", [alt(Key::PageUp)];
    Action::MoveSelection(0, 0, -1), "Selection down (z)", [alt(Key::PageDown)];
    Action::Deselect, "Deselect", [key(Key::Escape)];
    Action::Screenshot, "Screenshot of the window", [key(Key::F12)];
    Action::ExportGif, "Export GIF", [command(Key::E)];
    Action::ExportFrames, "Export PNG sequence", [command_shift(Key::E)];
    Action::ExportCsv, "Export metrics as CSV", [command_shift(Key::C)];
    Action::ExportComparison, "Save a report of the comparison", [command(Key::R)];
    Action::Undo, "Undo the change of view", [command(Key::Z)];
    Action::Redo, "Redo the change of view", [command_shift(Key::Z), command(Key::Y)];
    Action::Palette, "Find a command…", [command(Key::P), command(Key::K)];
    Action::Keys, "All keys", [key(Key::F1)];
    Action::ToggleTheme, "Dark or light", [command_shift(Key::L)];
    Action::ResetLayout, "Reset the layout", [command(Key::Num0)];
    Action::Show(Pane::Original), "Panel: original", [command(Key::Num1)];
    Action::Show(Pane::Reconstruction), "Panel: reconstruction", [command(Key::Num2)];
    Action::Show(Pane::Error), "Panel: error", [command(Key::Num3)];
    Action::Show(Pane::Classes), "Panel: classes", [command(Key::Num4)];
    Action::Show(Pane::Settings), "Panel: settings", [command(Key::Num5)];
    Action::Show(Pane::Voxel), "Panel: voxel", [command(Key::Num6)];
    Action::Show(Pane::Confusion), "Panel: confusion matrix", [command(Key::Num7)];
    Action::Show(Pane::Latents), "Panel: latents", [command(Key::Num8)];
    Action::Show(Pane::Mix), "Panel: latent mixing", [command(Key::Num9)];
    Action::Show(Pane::Losses), "Panel: losses", [command_shift(Key::Num1)];
    Action::Show(Pane::Accuracy), "Panel: mIoU and IoU", [command_shift(Key::Num2)];
    Action::Show(Pane::Frames), "Panel: IoU of frames", [command_shift(Key::Num3)];
    Action::Show(Pane::PerClass), "Panel: IoU of classes", [command_shift(Key::Num4)];
    Action::Show(Pane::LearningRate), "Panel: learning rate", [command_shift(Key::Num5)];
    Action::Show(Pane::Rival(0)), "Panel: model B", [command_shift(Key::Num6)];
    Action::Show(Pane::Rival(1)), "Panel: model C", [command_shift(Key::Num7)];
    Action::Show(Pane::Rival(2)), "Panel: model D", [command_shift(Key::Num8)];
    Action::Show(Pane::Difference), "Panel: difference of models", [command_shift(Key::Num9)];
    Action::Show(Pane::Compare), "Panel: comparison of runs", [command_shift(Key::Num0)];
    Action::NextPanel, "Next panel", [key(Key::F8)];
    Action::ClosePanel, "Close the panel", [command(Key::W)];
    Action::Resize(1), "Larger panel", [command(Key::CloseBracket)];
    Action::Resize(-1), "Smaller panel", [command(Key::OpenBracket)];
    Action::DismissNotices, "Dismiss all messages", [command(Key::M)];
    Action::Quit, "Quit", [command(Key::Q)];
};

impl Action {
    /// Its row.
    pub fn entry(self) -> &'static Entry {
        // A test holds the table to every action that is asked for.
        ENTRIES.iter().find(|entry| entry.action == self).unwrap_or(&ENTRIES[0])
    }

    /// Whether it can be carried out now.
    pub fn is_enabled(self, state: &State) -> bool {
        let engine = &state.engine;
        let workspace = state.page == Page::Workspace;
        let has_model = state.shown.as_ref().is_some_and(|shown| shown.model.is_some());
        match self {
            Action::GenerateTown
            | Action::OpenDataset
            | Action::OpenRun
            | Action::Palette
            | Action::Keys
            | Action::ToggleTheme
            | Action::DismissNotices
            | Action::Screenshot
            | Action::Quit => true,
            Action::Welcome => workspace || state.shown.is_some(),
            Action::Train => state.source.is_some() && (!engine.is_training() || matches!(engine.phase, Phase::Paused)),
            Action::NewRun => state.source.is_some() && !engine.is_training(),
            Action::Pause => matches!(engine.phase, Phase::Training),
            Action::Step | Action::Save => matches!(engine.phase, Phase::Training | Phase::Paused),
            Action::Stop => engine.is_training() && !engine.stopping,
            Action::Validate => matches!(engine.phase, Phase::Training | Phase::Paused | Phase::Showing),
            Action::OpenOverlay => workspace && state.rivals.list.len() < MOST,
            Action::CloseOverlay => !state.rivals.list.is_empty(),
            Action::WidestDifference | Action::ExportComparison => state.compared_labels(0).is_some(),
            Action::PreviousClip | Action::NextClip | Action::PreviousSequence | Action::NextSequence => {
                state.source.is_some()
            }
            Action::WorstFrame | Action::Uncertainty | Action::Errors | Action::ExportGif | Action::ExportFrames => {
                has_model
            }
            Action::Deselect => state.selected.is_some() || state.view.solo.is_some(),
            Action::MoveSelection(..) => state.selected.is_some(),
            Action::ExportCsv => !state.history.steps.is_empty() || !state.history.validations.is_empty(),
            Action::ToggleClass(class) | Action::SoloClass(class) => {
                state.shown.as_ref().is_some_and(|shown| usize::from(class) < shown.classes.len())
            }
            Action::Show(pane) => workspace && pane.is_of_use(state),
            Action::ResetLayout | Action::NextPanel | Action::ClosePanel | Action::Resize(_) | Action::Ornaments => {
                workspace
            }
            Action::Undo | Action::Redo => true,
            _ => state.shown.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_and_no_name_means_two_things() {
        let mut keys = Vec::new();
        let mut names = Vec::new();
        for entry in ENTRIES {
            assert!(!entry.keys.is_empty(), "{} has no key", entry.name);
            for key in entry.keys {
                assert!(!keys.contains(key), "{} shares its key {key:?}", entry.name);
                keys.push(*key);
            }
            assert!(!names.contains(&entry.name), "{} is there twice", entry.name);
            names.push(entry.name);
            assert_eq!(entry.action.entry().name, entry.name);
        }
    }

    #[test]
    fn every_panel_can_be_brought_up() {
        for pane in Pane::ALL {
            assert!(ENTRIES.iter().any(|entry| entry.action == Action::Show(pane)), "{pane:?}");
        }
    }
}
