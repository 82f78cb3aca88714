//! What the trainer and the jobs tell, taken in once a frame.

use std::path::PathBuf;
use std::time::Duration;

use eframe::egui::Context;

use super::App;
use super::dialogs::PathField;
use super::engine::Phase;
use super::jobs::{OpenedRun, Outcome};
use super::layout::{self, Pane};
use super::notices::Severity;
use super::rivals::OpenedRival;
use super::shown::Shown;
use super::state::{Page, Resumable, Source, State};
use crate::data::Clip;
use crate::train::config::{OutputConfig, RunConfig};
use crate::train::events::{Event, Finished};

/// How often the progress of jobs is looked at.
const PROGRESS: Duration = Duration::from_millis(200);

/// How often the trainer is looked at even if it does not wake the window: its thread may have died.
const ALIVE: Duration = Duration::from_secs(1);

impl App {
    /// Takes in all that was told since the last frame.
    pub(super) fn take_in(&mut self, context: &Context) {
        while let Some(event) = self.state.engine.next_event() {
            self.take_event(event);
        }
        for outcome in self.state.jobs.finished() {
            match outcome {
                Ok(outcome) => self.take_outcome(outcome),
                Err(why) => {
                    self.reopening = None;
                    self.state.notices.error(&why);
                }
            }
        }
        let State { wanted_clip, engine, rivals, notices, .. } = &mut self.state;
        engine.refresh(*wanted_clip);
        rivals.take_in(*wanted_clip, notices);
        self.panels.mix.keep_up(&mut self.state);
        if !self.state.jobs.list().is_empty() {
            context.request_repaint_after(PROGRESS);
        } else if self.state.engine.is_training() || self.panels.mix.is_waiting() {
            context.request_repaint_after(ALIVE);
        }
        if let Some(due) = self.state.notices.expire() {
            context.request_repaint_after(due);
        }
    }

    fn take_event(&mut self, event: Event) {
        let state = &mut self.state;
        match event {
            Event::Started(started) => {
                let config = state.engine.training.clone().map(|mut config| {
                    if config.output.dir.as_os_str().is_empty() {
                        config.output.dir.clone_from(&started.folder);
                    }
                    config
                });
                state.resumable = config.map(|config| Resumable { config, step: started.step });
                state.recent.opened(&started.folder);
                state.run = Some(started.folder.clone());
                if state.history.folder != started.folder {
                    state.history = super::history::History::new(started.folder);
                }
                if let Some(Resumable { config, .. }) = &state.resumable {
                    let clips_of_a_step = (config.train.batch * config.train.accumulate) as f64;
                    state.history.steps_per_epoch = Some((started.train_clips as f64 / clips_of_a_step).max(1.0));
                }
                state.history.forget_after(started.step);
                state.validation = None;
                self.panels.mix.forget(state);
                state.engine.ask(state.wanted_clip);
            }
            Event::Showing(showing) => {
                state.run = Some(showing.folder);
                self.panels.mix.forget(state);
                state.engine.ask(state.wanted_clip);
            }
            Event::Step(metrics) => state.history.step(metrics),
            Event::Validation(metrics) => {
                // A shown model is no later part of the run's history.
                if !matches!(state.engine.phase, Phase::Showing) {
                    state.history.validation(metrics.clone());
                }
                state.validation = Some(metrics);
            }
            Event::Reconstruction(clip) => {
                self.panels.mix.offer(&clip);
                let Some(facts) = state.engine.facts.as_ref().filter(|_| clip.clip == state.wanted_clip) else {
                    return;
                };
                let version = state.shown.as_ref().map_or(0, |shown| shown.version) + 1;
                match Shown::of_model(version, *clip, facts.grid, facts.classes.clone()) {
                    Ok(shown) => state.show(shown),
                    Err(why) => state.notices.error(&why),
                }
            }
            Event::Decoded(clip) => self.panels.mix.decoded(*clip, state),
            Event::Checkpoint { step, path, is_best } => {
                if let Some(resumable) = &mut state.resumable {
                    resumable.step = step;
                }
                let best = if is_best { ", the best so far" } else { "" };
                state.notices.info(format!("Saved step {step}{best}: {}", path.display()));
            }
            Event::Recovered { step, why } => {
                let text = if state.engine.is_training() {
                    state.history.forget_after(step);
                    format!("{why}. The run was saved and goes on from step {step} on a new device.")
                } else {
                    format!("{why}. The model was loaded again on a new device.")
                };
                state.engine.ask(state.wanted_clip);
                state.notices.add(Severity::Warning, text);
            }
            Event::Warning(text) => state.notices.add(Severity::Warning, text),
            Event::Finished(_) if self.closing => {}
            Event::Finished(finished) => self.after_run(&finished),
            Event::Failed(why) => self.fail(why),
            Event::Preparing(_) | Event::Memory { .. } | Event::Paused(_) => {}
        }
    }

    fn take_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Source(source) => self.take_source(source),
            Outcome::Recut(source) => self.take_recut(source),
            Outcome::Run(run) => {
                let trains = self.reopening.take() == Some(true);
                self.take_run(*run);
                if trains {
                    self.train();
                }
            }
            Outcome::Rival(rival) => self.take_rival(*rival),
            Outcome::Clip(index, clip) => self.take_clip(index, *clip),
            Outcome::Written(path) => self.state.notices.info(format!("Wrote {}", path.display())),
            Outcome::Chosen { path, purpose } => self.take_chosen(path, purpose),
            Outcome::NoDialog(purpose) => self.path_field = Some(PathField::new(purpose)),
            Outcome::DataMoved { why, purpose } => {
                self.state.notices.error(&why);
                self.choose(purpose);
            }
            Outcome::Example(run) => self.take_example(*run),
            Outcome::Nothing => {}
        }
    }

    /// Shows a run beside the open one.
    fn take_rival(&mut self, rival: OpenedRival) {
        let State { rivals, engine, wanted_clip, notices, source, .. } = &mut self.state;
        if let Err(why) = rivals.add(rival.beside(source.as_ref()), engine.wake.clone(), *wanted_clip) {
            return notices.error(&why);
        }
        for pane in [Pane::Rival(rivals.list.len() as u8 - 1), Pane::Difference] {
            layout::uncover(&mut self.tree, pane);
        }
        layout::bring_up(&mut self.tree, Pane::Compare);
    }

    fn take_source(&mut self, source: Source) {
        let state = &mut self.state;
        state.leave_run();
        state.leave_clip();
        state.recent.opened(&source.root);
        state.run = None;
        state.resumable = None;
        state.history = super::history::History::default();
        state.validation = None;
        self.panels.mix.forget(state);
        state.draft.data.root = source.root.clone();
        state.page = Page::Workspace;
        state.playback.playing = false;
        state.wanted_clip = source.held_out.len() / 2;
        for warning in source.held_out.warnings() {
            state.notices.add(Severity::Warning, warning.clone());
        }
        state.source = Some(source);
        self.read_clip();
    }

    fn take_run(&mut self, run: OpenedRun) {
        let state = &mut self.state;
        state.leave_run();
        state.recent.opened(&run.folder);
        state.page = Page::Workspace;
        state.playback.playing = false;
        self.show_run(run);
    }

    /// Shows a run's model; the page stays.
    pub(super) fn show_run(&mut self, run: OpenedRun) {
        let state = &mut self.state;
        state.draft = RunConfig { output: OutputConfig { dir: PathBuf::new() }, ..run.config.clone() };
        state.resumable = run.resumable;
        state.history = run.history;
        let validations = &state.history.validations;
        state.validation = validations.iter().rfind(|validation| validation.is_best).cloned();
        // A run that has just ended stays on the clip that was watched.
        let clips = |source: &Source| {
            let set = &source.held_out;
            (source.root.clone(), set.split(), set.options().clone(), set.len())
        };
        if state.source.as_ref().map(clips) != Some(clips(&run.source)) {
            state.leave_clip();
            state.wanted_clip = run.source.held_out.len() / 2;
        }
        state.source = Some(run.source);
        state.run = Some(run.folder.clone());
        if let Err(why) = state.engine.show(run.config, run.folder, run.checkpoint) {
            state.notices.error(&why);
        }
        self.read_clip();
    }

    fn take_clip(&mut self, index: usize, clip: Clip) {
        let state = &mut self.state;
        let Some(source) = &state.source else { return };
        // A reconstruction that came meanwhile is worth more, and so is one that comes at once.
        let newer = state.shown.as_ref().is_some_and(|shown| shown.clip == index && shown.model.is_some());
        let better = newer && state.engine.is_live() || state.shown.is_some() && state.engine.answers_at_once();
        if index != state.wanted_clip || better {
            return;
        }
        let version = state.shown.as_ref().map_or(0, |shown| shown.version) + 1;
        let set = &source.held_out;
        let shown = Shown::of_data(version, index, clip, set.grid(), set.classes().clone());
        state.show(shown);
    }

    /// A run that has ended is shown from its best checkpoint.
    fn after_run(&mut self, finished: &Finished) {
        let state = &mut self.state;
        if state.engine.facts.is_some() {
            state.notices.info(format!("Training ended at step {}.", finished.step));
        } else {
            state.notices.info("Training was stopped before its first step; nothing was written.");
        }
        if let Some(folder) = state.run.clone() {
            self.reopening = Some(false);
            self.open_run(folder);
        }
    }
}
