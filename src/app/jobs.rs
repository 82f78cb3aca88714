//! Work that must not block the window: each job is a thread that reports how far it is and ends with an outcome.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Instant;

use super::dialogs::Purpose;
use super::history::History;
use super::rivals::OpenedRival;
use super::state::{Resumable, Source};
use crate::train::config::RunConfig;
use crate::{Error, Result};

/// How far a job is, shared with its thread.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<[AtomicUsize; 2]>);

impl Progress {
    /// Says that `done` of `total` is done.
    pub fn set(&self, done: usize, total: usize) {
        self.0[0].store(done, Ordering::Relaxed);
        self.0[1].store(total, Ordering::Relaxed);
    }

    /// The part that is done, 0..1, if it is known.
    pub fn fraction(&self) -> Option<f32> {
        let [done, total] = [0, 1].map(|i| self.0[i].load(Ordering::Relaxed));
        (total > 0).then(|| done as f32 / total as f32)
    }
}

/// What a job comes to.
#[derive(Debug)]
pub enum Outcome {
    /// A data set was opened, or generated and opened.
    Source(Source),
    /// The open data set was cut into other clips.
    Recut(Source),
    /// A run was opened: its configuration, model file, data and metrics.
    Run(Box<OpenedRun>),
    /// A run to compare with was read.
    Rival(Box<OpenedRival>),
    /// A clip of the data was read, for when there is no model.
    Clip(usize, Box<crate::data::Clip>),
    /// Files were written.
    Written(PathBuf),
    /// The user chose a path, to open it or to compare with it.
    Chosen {
        /// The path.
        path: PathBuf,
        /// What for.
        purpose: Purpose,
    },
    /// The system has no dialog to choose a path in.
    NoDialog(Purpose),
    /// The data of a run are not where they were.
    DataMoved {
        /// Why they cannot be opened.
        why: Error,
        /// What is asked for.
        purpose: Purpose,
    },
    /// The example's run was opened.
    Example(Box<OpenedRun>),
    /// The user chose nothing.
    Nothing,
}

/// A run that was opened.
#[derive(Debug)]
pub struct OpenedRun {
    /// The run folder.
    pub folder: PathBuf,
    /// Its configuration.
    pub config: RunConfig,
    /// From where it can go on, if it can.
    pub resumable: Option<Resumable>,
    /// The model file to show.
    pub checkpoint: PathBuf,
    /// Its data.
    pub source: Source,
    /// Its metrics so far.
    pub history: History,
}

/// One job.
#[derive(Debug)]
pub struct Job {
    /// What it does, as "generating a town".
    pub what: String,
    /// How far it is.
    pub progress: Progress,
    /// When it began.
    pub since: Instant,
    outcome: Receiver<Result<Outcome>>,
}

/// The jobs under way.
#[derive(Debug, Default)]
pub struct Jobs {
    list: Vec<Job>,
    /// Wakes the window when a job ends.
    pub wake: Option<eframe::egui::Context>,
}

impl Jobs {
    /// Starts `work` on a thread of its own.
    pub fn start(&mut self, what: impl Into<String>, work: impl FnOnce(&Progress) -> Result<Outcome> + Send + 'static) {
        let (sender, outcome) = channel();
        let progress = Progress::default();
        let (shared, wake) = (progress.clone(), self.wake.clone());
        std::thread::spawn(move || {
            // If the window has gone, nobody waits for the outcome.
            let _ = sender.send(work(&shared));
            if let Some(context) = wake {
                context.request_repaint();
            }
        });
        self.list.push(Job { what: what.into(), progress, since: Instant::now(), outcome });
    }

    /// The jobs under way.
    pub fn list(&self) -> &[Job] {
        &self.list
    }

    /// Takes out what has ended.
    pub fn finished(&mut self) -> Vec<Result<Outcome>> {
        let mut ended = Vec::new();
        self.list.retain(|job| match job.outcome.try_recv() {
            Ok(outcome) => {
                ended.push(outcome);
                false
            }
            Err(TryRecvError::Empty) => true,
            Err(TryRecvError::Disconnected) => {
                ended.push(Err(Error::Data(format!("{} ended unexpectedly; try again", job.what))));
                false
            }
        });
        ended
    }
}
