//! Carrying out orders, whether they come from a key, a button or the command palette.

use eframe::egui::{Context, KeyboardShortcut, ThemePreference, ViewportCommand};

use super::App;
use super::actions::{Action, ENTRIES};
use super::dialogs::Purpose;
use super::layout::{self, Pane};
use super::playback::DEFAULT_FRAME_SECS;
use super::scores::{Place, Scope, lack_of_miou, worst};
use super::sequence;
use super::state::Page;
use super::style;
use super::view::{Coloring, View};
use super::widgets;
use crate::train::events::Command;

/// One press of a key turns the camera by this much, radians.
const TURN_RAD: f32 = 0.12;
/// One press moves it by this part of the view's height.
const MOVE: f32 = 0.06;
/// One press brings it closer by this factor.
const CLOSER: f32 = 0.88;

impl App {
    /// Carries out what the pressed keys stand for, unless somebody types, or moves with them what has the focus.
    pub(super) fn obey_keys(&mut self, context: &Context) {
        let covered = context.memory(|memory| memory.top_modal_layer().is_some());
        if context.text_edit_focused() || self.palette.is_open() || covered {
            return;
        }
        let is_used = widgets::uses_keys(context);
        let pressed = |key: &KeyboardShortcut| {
            let is_its = is_used && key.modifiers.is_none() && widgets::USED_KEYS.contains(&key.logical_key);
            !is_its && context.input_mut(|input| input.consume_shortcut(key))
        };
        let mut wanted: Vec<Action> = Vec::new();
        // Shortcuts with more modifiers come first: a plain one would take their key.
        for modifiers in (0..=2).rev() {
            for entry in ENTRIES {
                for key in entry.keys.iter().filter(|key| count(key.modifiers) == modifiers) {
                    if pressed(key) {
                        wanted.push(entry.action);
                    }
                }
            }
        }
        for action in wanted {
            if action.is_enabled(&self.state) {
                self.perform(context, action);
            }
        }
    }

    /// Carries out `action`.
    pub fn perform(&mut self, context: &Context, action: Action) {
        let frames = self.state.shown.as_ref().map_or(1, |shown| shown.frames);
        let state = &mut self.state;
        match action {
            Action::GenerateTown => self.generate(),
            Action::OpenDataset => self.choose(Purpose::Dataset),
            Action::OpenRun => self.choose(Purpose::Run),
            Action::OpenOverlay => self.choose(Purpose::Rival),
            Action::CloseOverlay => state.rivals.clear(),
            Action::Welcome => {
                state.page = if state.page == Page::Welcome { Page::Workspace } else { Page::Welcome };
            }
            Action::Train => self.train(),
            Action::NewRun => self.train_anew(),
            Action::Pause => drop(state.engine.send(Command::Pause)),
            Action::Step => drop(state.engine.send(Command::Step)),
            Action::Stop => drop(state.engine.send(Command::Stop)),
            Action::Save => drop(state.engine.send(Command::Save)),
            Action::Validate => drop(state.engine.send(Command::Validate)),
            Action::PlayPause => state.playback.toggle(frames),
            Action::Frames(by) => self.step(by.into()),
            Action::FirstFrame => state.playback.seek(0, frames),
            Action::LastFrame => state.playback.seek(usize::MAX, frames),
            Action::Loop => state.playback.looping = !state.playback.looping,
            Action::Slower => state.playback.change_speed(-1),
            Action::Faster => state.playback.change_speed(1),
            Action::PreviousClip => self.change_clip(-1),
            Action::NextClip => self.change_clip(1),
            Action::PreviousSequence => self.change_sequence(-1),
            Action::NextSequence => self.change_sequence(1),
            Action::ResetCamera => state.view.reset_camera(),
            Action::TopView => state.view.look_from_top(),
            Action::FollowEgo => state.view.follow_ego = !state.view.follow_ego,
            Action::Orthographic => state.view.orthographic = !state.view.orthographic,
            Action::Orbit(right, up) => {
                state.view.orbit(f32::from(right) * TURN_RAD, f32::from(up) * TURN_RAD);
            }
            Action::Pan(right, up) => self.viewports.pan(state, [right, up].map(|n| f32::from(n) * MOVE)),
            Action::Zoom(closer) => state.view.zoom_by(CLOSER.powi(closer.into())),
            Action::ToggleClass(class) => state.view.toggle_class(class),
            Action::SoloClass(class) => state.view.toggle_solo(class),
            Action::AllClasses => {
                state.view.hidden.clear();
                state.view.solo = None;
            }
            Action::ResetCrop => state.view.crop = View::default().crop,
            Action::Uncertainty => state.view.toggle_coloring(Coloring::Uncertainty),
            Action::Errors => state.view.toggle_coloring(Coloring::Errors),
            Action::SafeColors => state.view.safe_colors = !state.view.safe_colors,
            Action::Ornaments => state.view.ornaments = !state.view.ornaments,
            Action::SelectCentre => self.viewports.select_centre(state, self.used_pane),
            Action::MoveSelection(x, y, z) => self.move_selection([x, y, z]),
            Action::Deselect => {
                if state.selected.take().is_none() {
                    state.view.solo = None;
                }
            }
            Action::WorstFrame => self.go_to_worst(),
            Action::WidestDifference => {
                if let Some(frame) = state.widest_difference() {
                    state.playback.playing = false;
                    state.playback.seek(frame, frames);
                }
            }
            Action::Screenshot => self.take_screenshot(context),
            Action::ExportGif => self.export_gif(style::scene_theme(&context.global_style().visuals)),
            Action::ExportFrames => self.export_frames(style::scene_theme(&context.global_style().visuals)),
            Action::ExportCsv => self.export_csv(),
            Action::ExportComparison => {
                self.export_comparison(style::scene_theme(&context.global_style().visuals));
            }
            Action::Undo => {
                if let Some(view) = self.undo.undo(&state.view) {
                    state.view = view.clone();
                }
            }
            Action::Redo => {
                if let Some(view) = self.undo.redo(&state.view) {
                    state.view = view.clone();
                }
            }
            Action::Palette => self.palette.open(),
            Action::Keys => self.keys_are_shown = true,
            Action::ToggleTheme => {
                let dark = context.global_style().visuals.dark_mode;
                context.set_theme(if dark { ThemePreference::Light } else { ThemePreference::Dark });
            }
            Action::ResetLayout => self.tree = layout::default_tree(),
            Action::Show(pane) => {
                state.page = Page::Workspace;
                self.used_pane = pane;
                layout::bring_up(&mut self.tree, pane);
            }
            Action::NextPanel => {
                let place = Pane::ALL.iter().position(|pane| *pane == self.used_pane).unwrap_or(0);
                let mut next = Pane::ALL.iter().cycle().skip(place + 1);
                if let Some(&pane) = next.find(|pane| pane.is_of_use(&self.state)) {
                    self.perform(context, Action::Show(pane));
                }
            }
            Action::ClosePanel => layout::close(&mut self.tree, self.used_pane),
            Action::Resize(larger) => layout::resize(&mut self.tree, self.used_pane, 1.15f32.powi(larger.into())),
            Action::DismissNotices => state.notices.clear(),
            Action::Quit => context.send_viewport_cmd(ViewportCommand::Close),
        }
    }

    /// Lets time run in the views: around the clip, or, where it does not loop, on through the sequence.
    pub(super) fn play(&mut self, context: &Context) {
        let Some(shown) = &self.state.shown else { return };
        let passed = f64::from(context.input(|input| input.stable_dt).min(0.1));
        let secs = shown.frame_secs().unwrap_or(DEFAULT_FRAME_SECS);
        let (clip, was_playing) = (shown.clip, self.state.playback.playing);
        if let Some(due) = self.state.playback.advance(passed, secs, shown.frames) {
            context.request_repaint_after_secs(due as f32);
        } else if was_playing && !self.state.playback.playing {
            let next = self.beyond(1).filter(|place| place.clip != clip);
            if let Some(place) = next {
                self.go_to(place);
                self.state.playback.playing = true;
            }
        }
    }

    /// Goes `by` frames on or back, through the sequence where the clip ends.
    fn step(&mut self, by: isize) {
        let Some(shown) = &self.state.shown else { return };
        let (frames, t) = (shown.frames, self.state.frame());
        let stays = t.checked_add_signed(by).is_some_and(|target| target < frames);
        match self.beyond(by).filter(|_| !stays) {
            Some(place) => self.go_to(place),
            None => self.state.playback.step(by, frames),
        }
    }

    /// Where `by` frames from the one in view lead in its sequence, if it has one.
    fn beyond(&self, by: isize) -> Option<Place> {
        let (source, shown) = (self.state.source.as_ref()?, self.state.shown.as_ref()?);
        sequence::step(&source.held_out, shown.clip, self.state.frame(), by)
    }

    /// Goes `by` clips on or back in the watched split.
    fn change_clip(&mut self, by: isize) {
        let Some(source) = &self.state.source else { return };
        let last = source.held_out.len().saturating_sub(1);
        self.go_to_clip(self.state.wanted_clip.saturating_add_signed(by).min(last));
    }

    /// Goes to the first clip of the sequence before or after.
    fn change_sequence(&mut self, by: isize) {
        let Some(source) = &self.state.source else { return };
        let sequences = sequence::all(&source.held_out);
        let current = sequences.iter().position(|sequence| sequence.clips.contains(&self.state.wanted_clip));
        let place = current.unwrap_or(0).saturating_add_signed(by).min(sequences.len().saturating_sub(1));
        if let Some(first) = sequences.get(place).map(|sequence| sequence.clips.start) {
            self.go_to_clip(first);
        }
    }

    /// Shows clip `index` of the watched split.
    pub(super) fn go_to_clip(&mut self, index: usize) {
        let state = &mut self.state;
        if state.wanted_clip != index {
            state.wanted_clip = index;
            // What was awaited in another clip is not any more.
            state.playback.seek(state.playback.frame, usize::MAX);
            self.read_clip();
        }
    }

    fn move_selection(&mut self, by: [i8; 3]) {
        let (Some(voxel), Some(shown)) = (&mut self.state.selected, &self.state.shown) else { return };
        for axis in 0..3 {
            let last = shown.grid.size[axis].saturating_sub(1);
            voxel[axis] = voxel[axis].saturating_add_signed(by[axis].into()).min(last);
        }
    }

    /// Goes to the frame with the lowest mIoU: of the validated clips, or of the clip in view.
    fn go_to_worst(&mut self) {
        if let Some(place) = worst(&self.state, Scope::Validation, lack_of_miou) {
            self.go_to(place);
        }
    }

    /// Shows a frame of a clip.
    pub(super) fn go_to(&mut self, place: Place) {
        self.go_to_clip(place.clip);
        let playback = &mut self.state.playback;
        playback.playing = false;
        match &self.state.shown {
            Some(shown) if shown.clip == place.clip => playback.seek(place.frame, shown.frames),
            _ => playback.await_frame(place.frame),
        }
    }
}

fn count(modifiers: eframe::egui::Modifiers) -> usize {
    [modifiers.shift, modifiers.alt, modifiers.command || modifiers.ctrl].into_iter().filter(|held| *held).count()
}
