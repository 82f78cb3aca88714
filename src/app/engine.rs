//! The app's end of the trainer: starts it, listens to it, and keeps what it last said.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::data::{ClassSet, Grid};
use crate::train::config::RunConfig;
use crate::train::events::{Command, Event, Finished, Preparing, StepMetrics};
use crate::train::trainer::{Place, Request, Task, Trainer, Wake};
use crate::{Error, Result};

/// Least time between two refreshes of the reconstruction while training.
const REFRESH: Duration = Duration::from_secs(2);

/// A refresh may take this part of the time.
const REFRESH_SHARE: f64 = 0.1;

/// Seconds for which the views keep the last clip rather than show the next without its reconstruction.
const AT_ONCE_SECS: f64 = 0.6;

/// What the trainer does.
#[derive(Debug, Clone, Default)]
pub enum Phase {
    /// There is none.
    #[default]
    Idle,
    /// It gets ready.
    Preparing {
        /// With what.
        what: String,
        /// How many parts of it are done.
        done: usize,
        /// How many parts it has; 0 if nobody knows.
        total: usize,
        /// How long the others will take, if that can be told.
        left: Option<Duration>,
    },
    /// Steps are taken.
    Training,
    /// It waits.
    Paused,
    /// It shows a trained model.
    Showing,
    /// The run came to its end, or was stopped.
    Finished(Finished),
    /// It ended with an error.
    Failed(Error),
}

/// What is known of the run or model at work.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The adapter's name.
    pub adapter: String,
    /// Steps of the whole run; 0 when a model is only shown.
    pub steps: u32,
    /// The grid of its clips.
    pub grid: Grid,
    /// What labels mean.
    pub classes: Arc<ClassSet>,
    /// Device memory that was planned, bytes.
    pub planned_bytes: u64,
    /// Device memory in use, bytes, where the driver tells.
    pub used_bytes: Option<u64>,
}

/// The trainer, if there is one, and its state.
#[derive(Debug, Default)]
pub struct Engine {
    /// Wakes the window when there is something to take in.
    pub wake: Option<Wake>,
    trainer: Option<Trainer>,
    /// Trainers that were let go of and still save.
    leaving: Vec<JoinHandle<()>>,
    /// What it does.
    pub phase: Phase,
    /// The settings of the run that is under way, from its preparation to its end.
    pub training: Option<RunConfig>,
    /// What is known of the run or model.
    pub facts: Option<Facts>,
    /// The last step that was told.
    pub last: Option<StepMetrics>,
    /// It was told to stop, and has not yet.
    pub stopping: bool,
    paused: bool,
    /// When the reconstruction was last asked for, and whether the answer is still to come.
    asked: Option<(Instant, bool)>,
    /// Seconds that the last reconstruction took.
    took_secs: f64,
}

impl Engine {
    /// Starts to train, or goes on.
    ///
    /// # Errors
    /// [`Error::Device`] if no thread can be started.
    pub fn train(&mut self, config: RunConfig, place: Place, resume: bool) -> Result<()> {
        self.start(config.clone(), place, Task::Train { resume })?;
        self.training = Some(config);
        Ok(())
    }

    /// Shows a trained model.
    ///
    /// # Errors
    /// [`Error::Device`] if no thread can be started.
    pub fn show(&mut self, config: RunConfig, folder: PathBuf, checkpoint: PathBuf) -> Result<()> {
        self.start(config, Place::At(folder), Task::Show { checkpoint })
    }

    fn start(&mut self, config: RunConfig, place: Place, task: Task) -> Result<()> {
        self.leave();
        let command_line = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
        let request = Request { config, place, task, command_line, background: true, wake: self.wake.clone() };
        self.trainer = Some(Trainer::start(request)?);
        self.phase = Phase::Preparing { what: "starting".into(), done: 0, total: 0, left: None };
        Ok(())
    }

    /// Lets go of the trainer, which saves and ends on its own.
    pub fn leave(&mut self) {
        self.let_go();
        let leaving = std::mem::take(&mut self.leaving);
        *self = Engine { wake: self.wake.take(), leaving, ..Engine::default() };
    }

    fn let_go(&mut self) {
        self.leaving.retain(|thread| !thread.is_finished());
        if let Some(trainer) = self.trainer.take() {
            // Dropping waits for the step under way, and the window must not.
            self.leaving.push(std::thread::spawn(move || drop(trainer)));
        }
    }

    /// Lets go of the trainer and waits until it has saved, as at the end of the program.
    pub fn finish(&mut self) {
        self.leave();
        for thread in self.leaving.drain(..) {
            // A panic there has been reported on its own.
            let _ = thread.join();
        }
    }

    /// Gives an order; false if there is nobody to take it.
    pub fn send(&mut self, command: Command) -> bool {
        let stops = command == Command::Stop;
        let sent = self.trainer.as_ref().is_some_and(|trainer| trainer.send(command));
        self.stopping |= stops && sent;
        sent
    }

    /// Whether a trainer is at work or waits.
    pub fn is_live(&self) -> bool {
        self.trainer.is_some()
    }

    /// Whether a run is under way: being prepared, at work or paused.
    pub fn is_training(&self) -> bool {
        self.training.is_some()
    }

    /// Whether a reconstruction that was asked for comes sooner than anybody would miss it: no step is in its way.
    pub fn answers_at_once(&self) -> bool {
        let idles = matches!(self.phase, Phase::Showing | Phase::Paused);
        let waits = self.asked.is_some_and(|(_, waiting)| waiting);
        idles && waits && (1e-3..AT_ONCE_SECS).contains(&self.took_secs)
    }

    /// Asks for the reconstruction of `clip` now.
    pub fn ask(&mut self, clip: usize) {
        if self.send(Command::Reconstruct { clip }) {
            self.asked = Some((Instant::now(), true));
        }
    }

    /// Asks again while training, if the last answer has come and is old enough.
    pub fn refresh(&mut self, clip: usize) {
        let pause = REFRESH.max(Duration::from_secs_f64(self.took_secs / REFRESH_SHARE));
        let due = self.asked.is_none_or(|(when, waiting)| !waiting && when.elapsed() >= pause);
        if due && matches!(self.phase, Phase::Training) {
            self.ask(clip);
        }
    }

    /// The next thing that was told, if there is one; keeps what concerns the engine itself.
    pub fn next_event(&mut self) -> Option<Event> {
        let event = match self.trainer.as_ref()?.next_event(Duration::ZERO) {
            Ok(event) => event?,
            Err(why) => Event::Failed(why),
        };
        match &event {
            Event::Preparing(preparing) => {
                let Preparing { what, done, total, left } = preparing.clone();
                self.phase = Phase::Preparing { what, done, total, left };
            }
            Event::Started(started) => {
                self.phase = Phase::Training;
                self.facts = Some(Facts {
                    adapter: started.adapter.clone(),
                    steps: started.steps,
                    grid: started.grid,
                    classes: started.classes.clone(),
                    planned_bytes: started.peak_bytes as u64,
                    used_bytes: None,
                });
            }
            Event::Showing(showing) => {
                self.phase = Phase::Showing;
                self.facts = Some(Facts {
                    adapter: showing.adapter.clone(),
                    steps: 0,
                    grid: showing.grid,
                    classes: showing.classes.clone(),
                    planned_bytes: showing.peak_bytes as u64,
                    used_bytes: None,
                });
            }
            Event::Step(metrics) => self.last = Some(*metrics),
            Event::Memory { planned_bytes, used_bytes } => {
                if let Some(facts) = &mut self.facts {
                    facts.planned_bytes = *planned_bytes;
                    facts.used_bytes = *used_bytes;
                }
            }
            Event::Reconstruction(clip) => {
                self.took_secs = clip.seconds;
                if let Some((_, waiting)) = &mut self.asked {
                    *waiting = false;
                }
            }
            Event::Paused(paused) => {
                self.paused = *paused;
                self.resume_phase();
            }
            Event::Recovered { .. } => {
                // What was ordered of the lost device may never come.
                self.asked = None;
                self.last = None;
                self.resume_phase();
            }
            Event::Finished(finished) => self.end(Phase::Finished(finished.clone())),
            Event::Failed(why) => self.end(Phase::Failed(why.clone())),
            _ => {}
        }
        Some(event)
    }

    fn resume_phase(&mut self) {
        self.phase = match (self.is_training(), self.paused) {
            (false, _) => Phase::Showing,
            (true, true) => Phase::Paused,
            (true, false) => Phase::Training,
        };
    }

    fn end(&mut self, phase: Phase) {
        self.let_go();
        self.phase = phase;
        self.training = None;
        self.stopping = false;
    }
}
