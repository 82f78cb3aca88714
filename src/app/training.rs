//! What Train means at the moment: to go on, to train longer, or to begin a new run. And that the watched data follow the
//! settings.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use eframe::egui::Context;

use super::engine::Phase;
use super::jobs::Outcome;
use super::state::{Resumable, Source, State};
use super::{App, places};
use crate::data::{Dataset, DatasetOptions, Split};
use crate::figures::thousands;
use crate::models::{ALIGN, OF_THE_POSES};
use crate::train::config::RunConfig;
use crate::train::events::Command;
use crate::train::trainer::Place;

/// Where runs go that were given no folder.
const RUNS: &str = "runs";

/// What Train would do.
#[derive(Debug, Clone, PartialEq)]
pub enum Intent {
    /// The paused run takes its next steps.
    Unpause,
    /// The open run goes on to the end of its settings.
    Resume {
        /// The step of its last checkpoint.
        from: u32,
        /// The step at which it will end.
        to: usize,
    },
    /// The open run has reached its end and goes on to twice as many steps.
    Extend {
        /// The step of its last checkpoint.
        from: u32,
        /// The step at which it will end.
        to: usize,
    },
    /// A new run begins.
    New {
        /// The setting because of which the open run cannot go on.
        because: Option<&'static str>,
    },
}

impl Intent {
    /// What Train means in `state`.
    pub fn of(state: &State) -> Intent {
        if matches!(state.engine.phase, Phase::Paused) {
            return Intent::Unpause;
        }
        let (Some(_), Some(resumable)) = (&state.run, &state.resumable) else { return Intent::New { because: None } };
        match resumable.config.another_run(&continued(state, resumable)) {
            Ok(Some(because)) => Intent::New { because: Some(because) },
            Ok(None) if (resumable.step as usize) < state.draft.train.steps => {
                Intent::Resume { from: resumable.step, to: state.draft.train.steps }
            }
            Ok(None) => Intent::Extend { from: resumable.step, to: 2 * resumable.step as usize },
            Err(_) => Intent::New { because: None },
        }
    }

    /// One word for a button.
    pub fn verb(&self) -> &'static str {
        match self {
            Intent::Unpause | Intent::Extend { .. } => "Go on",
            Intent::Resume { .. } => "Resume",
            Intent::New { .. } => "Train",
        }
    }

    /// What will happen, as a sentence without its full stop.
    pub fn sentence(&self, state: &State) -> String {
        let run = state.run.as_deref().map(name).unwrap_or_default();
        let steps = |n: usize| thousands(n as u64);
        match self {
            Intent::Unpause => "Go on with training".into(),
            Intent::Resume { from, to } => {
                format!("Resume {run} from step {} to {}", steps(*from as usize), steps(*to))
            }
            Intent::Extend { from, to } => {
                format!("{run} has done its {} steps: go on to twice as many, {}", steps(*from as usize), steps(*to))
            }
            Intent::New { because: Some(key) } => format!("Start a new run ({key} differs from {run})"),
            Intent::New { because: None } => "Start a new run".into(),
        }
    }
}

/// The last part of a path, for people.
pub fn name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// The draft as the settings of the open run.
fn continued(state: &State, resumable: &Resumable) -> RunConfig {
    let mut config = bound(state);
    config.output = resumable.config.output.clone();
    if config.model.choice(ALIGN) == OF_THE_POSES {
        let before = resumable.config.model.choice(ALIGN);
        config.model = config.model.clone().with_choice(ALIGN, before).unwrap_or(config.model);
    }
    config
}

/// The draft with what the open data set decides.
pub fn bound(state: &State) -> RunConfig {
    let mut config = state.draft.clone();
    if let Some(source) = &state.source {
        config.data.root = std::path::absolute(&source.root).unwrap_or_else(|_| source.root.clone());
        config.model.classes = source.held_out.classes().len();
    }
    config
}

/// What decides which clips are watched.
pub type Watched = (PathBuf, DatasetOptions, Split);

impl App {
    /// Does what Train means.
    pub(super) fn train(&mut self) {
        // What Train means is known again once the run that has just ended is open.
        if let Some(wanted) = &mut self.reopening {
            *wanted = true;
            return;
        }
        let state = &mut self.state;
        match Intent::of(state) {
            Intent::Unpause => drop(state.engine.send(Command::Resume)),
            Intent::New { .. } => self.train_anew(),
            Intent::Resume { to, .. } | Intent::Extend { to, .. } => {
                let (Some(folder), Some(resumable)) = (state.run.clone(), &state.resumable) else { return };
                let mut config = continued(state, resumable);
                config.train.steps = to;
                self.begin(config, Place::At(folder), true);
            }
        }
    }

    /// Begins a new run whatever is open.
    pub(super) fn train_anew(&mut self) {
        let config = bound(&self.state);
        let place = Place::of(&config, &places::folder(RUNS));
        self.begin(config, place, false);
    }

    fn begin(&mut self, config: RunConfig, place: Place, resume: bool) {
        let state = &mut self.state;
        state.draft.train.steps = config.train.steps;
        let begun = config.validate().and_then(|()| state.engine.train(config, place, resume));
        if let Err(why) = begun {
            state.notices.error(&why);
        }
    }

    /// Cuts the watched data anew when the settings ask for other clips. A model that is shown keeps those that it was
    /// trained on.
    pub(super) fn follow_draft(&mut self, context: &Context) {
        let state = &mut self.state;
        let Some(source) = &state.source else { return };
        let config = state.engine.training.as_ref().unwrap_or(&state.draft);
        let wanted = (source.root.clone(), config.dataset_options(), config.data.val_split);
        let Some(watched) = self.watched.as_ref().filter(|watched| watched.0 == wanted.0) else {
            self.watched = Some(wanted);
            return;
        };
        let shows = state.engine.is_live() && !state.engine.is_training();
        if *watched == wanted || shows || context.input(|input| input.pointer.any_down()) {
            return;
        }
        self.watched = Some(wanted.clone());
        if config.validate().is_err() {
            return;
        }
        state.jobs.start("cutting the data into clips", move |_| {
            let (root, options, split) = wanted;
            let held_out = Arc::new(Dataset::open(&root, split, options)?);
            Ok(Outcome::Recut(Source { root, held_out }))
        });
    }

    /// Takes in data that were cut anew.
    pub(super) fn take_recut(&mut self, source: Source) {
        let state = &mut self.state;
        if state.source.as_ref().is_none_or(|old| old.root != source.root) {
            return;
        }
        state.wanted_clip = state.wanted_clip.min(source.held_out.len().saturating_sub(1));
        state.source = Some(source);
        self.read_clip();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::config::Preset;

    /// A finished run of 40 steps is open, its settings in the draft.
    fn finished(step: u32) -> State {
        let mut config = RunConfig::preset(Preset::Tiny, None);
        config.output.dir = "runs/tiny-t2-001".into();
        State {
            run: Some("runs/tiny-t2-001".into()),
            draft: RunConfig::preset(Preset::Tiny, None),
            resumable: Some(Resumable { config, step }),
            ..State::default()
        }
    }

    #[test]
    fn train_goes_on_while_steps_remain() {
        let state = finished(16);
        assert_eq!(Intent::of(&state), Intent::Resume { from: 16, to: 40 });
        assert_eq!(Intent::of(&state).sentence(&state), "Resume tiny-t2-001 from step 16 to 40");
    }

    #[test]
    fn train_offers_twice_the_steps_at_the_end() {
        let mut state = finished(40);
        assert_eq!(Intent::of(&state), Intent::Extend { from: 40, to: 80 });
        state.draft.train.steps = 1000;
        assert_eq!(Intent::of(&state), Intent::Resume { from: 40, to: 1000 });
    }

    #[test]
    fn other_settings_make_another_run() {
        let mut state = finished(16);
        state.draft.train.learning_rate = 1e-4;
        assert!(matches!(Intent::of(&state), Intent::Resume { .. }), "a run may go on at another rate");
        state.draft.model = state.draft.model.clone().with(&[("model.hidden", 12)]).unwrap();
        assert_eq!(Intent::of(&state), Intent::New { because: Some("model.hidden") });
        assert!(Intent::of(&state).sentence(&state).contains("model.hidden differs from tiny-t2-001"));
        assert_eq!(Intent::of(&State::default()), Intent::New { because: None });
    }
}
