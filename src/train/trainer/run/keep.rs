//! What a run keeps to go on from: its checkpoints, a copy of its state, and the ways back to them.

use std::time::{Duration, Instant};

use super::{Clock, Run, loader};
use crate::figures::shell_quoted;
use crate::gpu::Context;
use crate::train::checkpoint::{Checkpoint, first_not_finite};
use crate::train::events::{Event, Preparing};
use crate::train::session::Session;
use crate::train::trainer::{MOST_LOSSES, Port};
use crate::{Error, Result};

/// How long a device that could not be opened again is left alone.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);

/// So many checkpoints are kept at least: whether the newest is of use shows the loss of the step after it, and that of the
/// newest has shown it of the one before.
const LEAST_KEPT: usize = 2;

impl Run {
    /// The state as it is, or why nothing could go on from it.
    pub(super) fn sane_checkpoint(&self, session: &Session) -> Result<Result<Checkpoint, String>> {
        let (loss, largest) = (self.loss, self.largest_sane());
        if loss.is_nan() || loss > largest {
            return Ok(Err(format!("the loss is {loss}, and a run does not recover from more than {largest:.0}")));
        }
        let state = session.export()?;
        Ok(match first_not_finite(state.tensors()) {
            Some(tensor) => Err(format!("there is NaN or infinity in {}", tensor.name)),
            None => Ok(Checkpoint { config: self.config().clone(), state, cursor: self.cursor }),
        })
    }

    pub(super) fn largest_sane(&self) -> f32 {
        let config = self.config();
        config.step().weights.largest_sane(config.model.classes)
    }

    /// Takes the newest checkpoint out of the way of the one before if the very next step showed that it is of no use.
    pub(super) fn set_unproven_aside(&mut self) -> Result<()> {
        let newest = self.saved.as_ref().map_or(self.start, |(step, _)| *step);
        if self.sane_at <= newest {
            self.saved = None;
            self.index.best = self.index.best.filter(|best| best.step != newest);
            self.folder.checkpoints().set_aside(newest, &self.index)?;
        }
        Ok(())
    }

    /// How to go on after numbers that are not finite, or too large.
    pub(super) fn way_back(&self) -> String {
        let from = match self.folder.checkpoints().latest().ok().and_then(|newest| newest.found) {
            Some((_, checkpoint)) => format!("step {}", checkpoint.state.steps),
            None => "the beginning".to_owned(),
        };
        format!(
            "go on from {from} at a lower rate (`sep4d --train --resume {} --set train.learning_rate={:e}`) or with \
             train.clip_norm",
            shell_quoted(self.folder.path()),
            self.config().train.learning_rate / 10.0
        )
    }

    /// Remembers a state from which the run can go on.
    pub(super) fn remember(&mut self, checkpoint: Checkpoint) {
        if checkpoint.state.steps > self.snapshot.0.state.steps {
            self.losses = 0;
        }
        self.snapshot = (checkpoint, Instant::now());
    }

    /// Saves the state, unless nothing could go on from it.
    pub(super) fn save(&mut self, session: &Session, port: &mut Port, is_best: bool) -> Result<()> {
        let step = session.steps();
        if self.saved.as_ref().is_some_and(|(saved, _)| *saved == step) && !is_best {
            return Ok(());
        }
        match self.sane_checkpoint(session)? {
            Ok(checkpoint) => {
                self.write(&checkpoint, port, is_best)?;
                self.remember(checkpoint);
                self.unsaved = None;
            }
            Err(defect) => {
                if self.unsaved.is_none() {
                    let way_back = self.way_back();
                    port.tell(Event::Warning(format!(
                        "step {step} is not saved: {defect}; stop the run and {way_back}"
                    )));
                }
                self.unsaved = Some(defect);
            }
        }
        Ok(())
    }

    fn write(&mut self, checkpoint: &Checkpoint, port: &mut Port, is_best: bool) -> Result<()> {
        let step = checkpoint.state.steps;
        let folder = self.folder.checkpoints();
        let path = folder.save(checkpoint, &self.index)?;
        folder.prune(step, &self.index, self.config().train.keep_last.max(LEAST_KEPT))?;
        self.saved = Some((step, path.clone()));
        port.tell(Event::Checkpoint { step, path, is_best });
        Ok(())
    }

    /// Saves the state of which the host has a copy, then goes on from there on a device opened anew.
    pub(super) fn recover(&mut self, mut why: Error, port: &mut Port) -> Result<Session> {
        let checkpoint = self.snapshot.0.clone();
        let step = checkpoint.state.steps;
        if step > 0 && self.saved.as_ref().is_none_or(|(saved, _)| *saved != step) {
            self.write(&checkpoint, port, false)?;
        }
        loop {
            self.losses += 1;
            if self.losses >= MOST_LOSSES {
                return Err(why);
            }
            match self.go_back(&checkpoint, port) {
                Ok(session) => {
                    port.tell(Event::Recovered { step, why: why.to_string() });
                    return Ok(session);
                }
                Err(again @ (Error::Device(_) | Error::Memory(_))) => why = again,
                Err(other) => return Err(other),
            }
            // A driver that was reset needs a moment.
            std::thread::sleep(REOPEN_INTERVAL);
        }
    }

    /// A session on a device opened anew, and this run, as they were at `checkpoint`.
    fn go_back(&mut self, checkpoint: &Checkpoint, port: &mut Port) -> Result<Session> {
        port.tell(Event::Preparing(Preparing::new("opening the adapter again")));
        let step = checkpoint.state.steps;
        let context = Context::open(&self.config().device())?.with_tuning(self.blueprint.tuning.clone());
        let mut session = self.blueprint.build(&context)?;
        port.build(&context, &session.preflight().kernels)?;
        session.import(&checkpoint.state)?;
        self.loader = loader(&self.blueprint, &self.dataset, checkpoint.cursor)?;
        self.cursor = checkpoint.cursor;
        self.log = self.folder.open_metrics(step)?;
        self.skipped.1 = checkpoint.state.skipped.saturating_sub(self.skipped.0);
        self.validated_at = self.validated_at.filter(|&validated| validated <= step);
        (self.loss, self.clock) = (0.0, Clock::start());
        Ok(session)
    }
}
