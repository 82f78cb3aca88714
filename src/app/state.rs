//! Everything the panels show and change. No widget and no GPU object lives here.

use std::path::PathBuf;
use std::sync::Arc;

use super::engine::Engine;
use super::history::History;
use super::jobs::Jobs;
use super::layout::Pane;
use super::memory::Recent;
use super::mix::Mixed;
use super::notices::Notices;
use super::playback::Playback;
use super::rivals::Rivals;
use super::shown::Shown;
use super::view::View;
use crate::data::Dataset;
use crate::train::config::{Preset, RunConfig};
use crate::train::events::{Likely, ValidationMetrics};

/// The app's state.
#[derive(Debug)]
pub struct State {
    /// What the page shows.
    pub page: Page,
    /// The data set that is open: what is trained on and compared.
    pub source: Option<Source>,
    /// Settings of the next run.
    pub draft: RunConfig,
    /// The run folder that is open.
    pub run: Option<PathBuf>,
    /// From where the open run can go on, if it can.
    pub resumable: Option<Resumable>,
    /// The trainer, or the model that is shown.
    pub engine: Engine,
    /// Metrics of the open run.
    pub history: History,
    /// Other runs, beside the open one.
    pub rivals: Rivals,
    /// The clip in the views.
    pub shown: Option<Shown>,
    /// What a mix of latents means, in the place of the reconstruction.
    pub mixed: Option<Mixed>,
    /// The last validation, with what was confused in it.
    pub validation: Option<ValidationMetrics>,
    /// The clip of the source that the user wants to see.
    pub wanted_clip: usize,
    /// Where in the clip the views are, and whether time runs.
    pub playback: Playback,
    /// How it is looked at.
    pub view: View,
    /// The voxel under the pointer, `[x, y, z]` in the data's order.
    pub hovered: Option<[usize; 3]>,
    /// The view that the pointer is in.
    pub hovered_in: Option<Pane>,
    /// The voxel whose details are shown.
    pub selected: Option<[usize; 3]>,
    /// Work in the background.
    pub jobs: Jobs,
    /// What the user is to know.
    pub notices: Notices,
    /// What was opened lately.
    pub recent: Recent,
}

/// From where the open run can go on.
#[derive(Debug, Clone)]
pub struct Resumable {
    /// Its settings.
    pub config: RunConfig,
    /// The step of its last checkpoint; 0 if it has none yet.
    pub step: u32,
}

/// The two faces of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// The first-run page with its three choices.
    Welcome,
    /// The panels.
    Workspace,
}

/// A data set that is open: the split that is watched.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its folder.
    pub root: PathBuf,
    /// The clips that are watched and validated on.
    pub held_out: Arc<Dataset>,
}

impl Source {
    /// What titles call it: the folder's name.
    pub fn name(&self) -> String {
        self.root
            .file_name()
            .map_or_else(|| self.root.display().to_string(), |name| name.to_string_lossy().into_owned())
    }
}

impl Default for State {
    fn default() -> State {
        State {
            page: Page::Welcome,
            source: None,
            draft: RunConfig::preset(Preset::default(), None),
            run: None,
            resumable: None,
            engine: Engine::default(),
            history: History::default(),
            rivals: Rivals::default(),
            shown: None,
            mixed: None,
            validation: None,
            wanted_clip: 0,
            playback: Playback::default(),
            view: View::default(),
            hovered: None,
            hovered_in: None,
            selected: None,
            jobs: Jobs::default(),
            notices: Notices::default(),
            recent: Recent::default(),
        }
    }
}

impl State {
    /// Lets go of the run or model at work, because something else is opened; a run saves first.
    pub fn leave_run(&mut self) {
        if self.engine.is_training()
            && let Some(run) = &self.run
        {
            self.notices.info(format!("The run in {} is saved and stopped.", run.display()));
        }
        self.engine.leave();
    }

    /// Takes the clip out of the views, because those of other data come; nothing of it may be taken for theirs.
    pub fn leave_clip(&mut self) {
        self.shown = None;
        self.selected = None;
        self.rivals.leave_clips();
    }

    /// Puts another clip, or another reconstruction of it, into the views.
    pub fn show(&mut self, shown: Shown) {
        let (clip, frames) = (shown.clip, shown.frames);
        let moved = self.shown.replace(shown).is_none_or(|before| before.clip != clip);
        if moved {
            self.playback.arrive(frames);
        }
    }

    /// The number of the frame in view, within the shown clip.
    pub fn frame(&self) -> usize {
        let frames = self.shown.as_ref().map_or(1, |shown| shown.frames);
        self.playback.frame.min(frames.saturating_sub(1))
    }

    /// The labels of frame `t` that the reconstruction draws, if there is a model.
    pub fn model_labels(&self, t: usize) -> Option<&[u8]> {
        let shown = self.shown.as_ref()?;
        let labels = match &self.mixed {
            Some(mixed) => &mixed.labels,
            None => &shown.model.as_ref()?.labels,
        };
        Some(shown.frame(labels, t))
    }

    /// The likeliest classes of frame `t` according to the model, if they are known.
    pub fn model_likely(&self, t: usize) -> Option<&[Likely]> {
        let shown = self.shown.as_ref()?;
        let likely = match &self.mixed {
            Some(mixed) => &mixed.likely,
            None => &shown.model.as_ref()?.likely,
        };
        Some(shown.frame(likely, t)).filter(|likely| !likely.is_empty())
    }

    /// Tells one mixed latent in the views from the next; `None` if the reconstruction is the model's own.
    pub fn mixed_version(&self) -> Option<u64> {
        self.mixed.as_ref().map(|mixed| mixed.version)
    }
}
