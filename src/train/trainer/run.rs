//! One run on the trainer's thread, from its first step to its last checkpoint.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::prepare::Blueprint;
use super::{Port, serve};
use crate::data::{Cursor, Dataset, Loader, LoaderOptions};
use crate::train::checkpoint::{Best, Checkpoint, Index};
use crate::train::config::RunConfig;
use crate::train::events::{Command, Event, Finished, StepMetrics, ValidationMetrics};
use crate::train::metrics::Confusion;
use crate::train::run_folder::{MetricsLog, Row, RunFolder, WriterLock};
use crate::train::session::{Session, StepReport};
use crate::{Error, Result};

mod keep;

/// How long the device may be left to itself: commands wait at most this long, and on a slow adapter every step is told.
const LEASH: Duration = Duration::from_millis(500);

/// How often the state is copied to the host, where it survives the device.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 20 });

/// How often the memory in use is told.
const MEMORY_INTERVAL: Duration = Duration::from_secs(5);

/// What a run writes.
pub(super) struct Writing {
    pub folder: RunFolder,
    /// Keeps other processes from writing the folder.
    pub lock: WriterLock,
    pub log: MetricsLog,
    /// What the checkpoints amount to.
    pub index: Index,
    /// Begun here rather than resumed.
    pub is_new: bool,
}

/// Everything of a run but its device.
pub(super) struct Run {
    blueprint: Blueprint,
    folder: RunFolder,
    _lock: WriterLock,
    dataset: Arc<Dataset>,
    loader: Loader,
    cursor: Cursor,
    held_out: Option<(Dataset, Vec<usize>)>,
    log: MetricsLog,
    index: Index,
    watched: Option<usize>,
    paused: bool,
    validated_at: Option<u32>,
    saved: Option<(u32, PathBuf)>,
    /// Steps skipped until this start, and of those since then the ones that were told.
    skipped: (u32, u32),
    /// The last that was reported; 0 before any step.
    loss: f32,
    /// The last step whose loss was within reason, which shows that the state before it was of use.
    sane_at: u32,
    /// Why the state of late was not saved.
    unsaved: Option<String>,
    /// It was told that validations have nothing to score.
    told_unscored: bool,
    /// Begun here rather than resumed.
    is_new: bool,
    /// Steps done before.
    start: u32,
    /// When it would have begun if it had never been stopped.
    began: Instant,
    clock: Clock,
    /// Where to go on if the device is lost, and when it was copied.
    snapshot: (Checkpoint, Instant),
    /// Losses of the device since the snapshot before this one.
    losses: u32,
    memory_told: Option<Instant>,
}

/// Times steps from one report to the next.
struct Clock {
    since: Instant,
    steps: u32,
    secs_per_step: Option<f64>,
}

impl Clock {
    fn start() -> Self {
        Clock { since: Instant::now(), steps: 0, secs_per_step: None }
    }

    /// Whether the steps under way take longer than the leash, or nobody knows.
    fn is_due(&self) -> bool {
        self.secs_per_step.is_none_or(|secs| secs * f64::from(self.steps + 1) > LEASH.as_secs_f64())
    }

    /// Ends the interval; returns steps a second.
    fn lap(&mut self) -> f64 {
        let secs = self.since.elapsed().as_secs_f64().max(1e-9) / f64::from(self.steps.max(1));
        *self = Clock { secs_per_step: Some(secs), ..Clock::start() };
        1.0 / secs
    }

    /// Leaves out the time since `began`, when no step was under way.
    fn leave_out(&mut self, began: Instant) {
        let now = Instant::now();
        self.since = (self.since + (now - began)).min(now);
    }
}

impl Run {
    pub fn new(
        blueprint: Blueprint,
        writing: Writing,
        dataset: Arc<Dataset>,
        held_out: Option<(Dataset, Vec<usize>)>,
        start: Checkpoint,
    ) -> Result<Run> {
        let Writing { folder, lock, log, index, is_new } = writing;
        let now = Instant::now();
        let before = Duration::try_from_secs_f64(log.elapsed_secs).unwrap_or_default();
        Ok(Run {
            loader: loader(&blueprint, &dataset, start.cursor)?,
            dataset,
            cursor: start.cursor,
            held_out,
            log,
            index,
            watched: None,
            paused: false,
            validated_at: None,
            saved: None,
            skipped: (start.state.skipped, 0),
            loss: 0.0,
            sane_at: 0,
            unsaved: None,
            told_unscored: false,
            is_new,
            start: start.state.steps,
            began: now.checked_sub(before).unwrap_or(now),
            clock: Clock::start(),
            snapshot: (start, now),
            losses: 0,
            memory_told: None,
            blueprint,
            folder,
            _lock: lock,
        })
    }

    fn config(&self) -> &RunConfig {
        &self.blueprint.config
    }

    /// Trains to the end, over losses of the device.
    pub fn train(&mut self, mut session: Session, port: &mut Port) -> Result<Finished> {
        let end = loop {
            match self.go_on(&mut session, port) {
                Err(why @ (Error::Device(_) | Error::Memory(_))) => {
                    drop(session);
                    match self.recover(why, port) {
                        Ok(new) => session = new,
                        // What could be saved is.
                        Err(why) => {
                            if self.is_new && self.saved.is_none() {
                                self.folder.discard();
                            }
                            return Err(why);
                        }
                    }
                }
                end => break end,
            }
        };
        let has_steps = session.steps() > 0;
        match &end {
            Err(Error::NonFinite(why)) => {
                self.set_unproven_aside()?;
                return Err(Error::NonFinite(format!("{why}; {}", self.way_back())));
            }
            // A file that cannot be read does not cost the steps since the last checkpoint.
            Err(Error::Data(_) | Error::Unreadable(_) | Error::Usage(_) | Error::Shape(_)) if has_steps => {
                // The error that ended the run is the one to tell.
                let _ = self.save(&session, port, false);
            }
            Err(_) if self.is_new && !has_steps && self.saved.is_none() => self.folder.discard(),
            _ => {}
        }
        end
    }

    fn go_on(&mut self, session: &mut Session, port: &mut Port) -> Result<Finished> {
        let last = self.config().train.steps as u32;
        let step = session.steps();
        if step >= last {
            port.tell(Event::Warning(format!(
                "the run has done {step} steps and train.steps is {last}; set it to more to go on (--set train.steps={})",
                step.saturating_mul(2)
            )));
            return Ok(self.finished(session, false));
        }
        while session.steps() < last {
            if self.obey(session, port)? {
                self.save(session, port, false)?;
                if self.unsaved.is_some() {
                    self.set_unproven_aside()?;
                }
                return Ok(self.finished(session, true));
            }
            self.step(session)?;
            let step = session.steps();
            let due = |every: usize| every > 0 && (step as usize).is_multiple_of(every) || step == last;
            let train = &self.blueprint.config.train;
            let (log, save) = (due(train.log_every), due(train.checkpoint_every));
            let validate = train.validate_every > 0 && due(train.validate_every);
            let after_save = self.saved.as_ref().is_some_and(|(saved, _)| saved + 1 == step);
            let report = log || save || validate || after_save || self.clock.is_due();
            if report {
                self.report(session, port, log)?;
            }
            let reported = Instant::now();
            let improved = validate && self.validate(session, port)?;
            if save || improved {
                self.save(session, port, improved)?;
            }
            // Last, so that what is due at this step comes again if the device is lost meanwhile; after a report the device
            // is idle, and a copy costs little.
            let remember = report && self.snapshot.1.elapsed() > SNAPSHOT_INTERVAL;
            if remember && let Ok(checkpoint) = self.sane_checkpoint(session)? {
                self.remember(checkpoint);
            }
            if report {
                self.clock.leave_out(reported);
            }
        }
        session.context().save_pipeline_cache();
        match self.unsaved.take() {
            Some(why) => Err(Error::NonFinite(format!("the run ends in a state that is of no use: {why}"))),
            None => Ok(self.finished(session, false)),
        }
    }

    fn finished(&mut self, session: &Session, stopped: bool) -> Finished {
        let checkpoint = self.saved.take().map(|(_, path)| path);
        Finished { step: session.steps(), stopped, best: self.index.best, checkpoint }
    }

    /// Carries out what was ordered; true if the run is to end.
    fn obey(&mut self, session: &mut Session, port: &mut Port) -> Result<bool> {
        let began = Instant::now();
        let ends = self.carry_out(session, port);
        self.clock.leave_out(began);
        ends
    }

    fn carry_out(&mut self, session: &mut Session, port: &mut Port) -> Result<bool> {
        loop {
            port.listen(self.paused);
            // Where the run stands, for whoever saves or looks at it, before anything else uses the device.
            if self.clock.steps > 0 && (port.closed || !port.pending.is_empty()) {
                self.report(session, port, false)?;
            }
            if port.closed {
                return Ok(true);
            }
            while let Some(command) = port.pending.pop_front() {
                match command {
                    Command::Stop => return Ok(true),
                    Command::Pause if !self.paused => {
                        self.paused = true;
                        port.tell(Event::Paused(true));
                    }
                    Command::Pause => {}
                    Command::Resume => {
                        if self.paused {
                            port.tell(Event::Paused(false));
                        }
                        self.paused = false;
                    }
                    Command::Step => {
                        // One step, then the pause that comes first in line.
                        port.pending.push_front(Command::Pause);
                        self.paused = false;
                        return Ok(false);
                    }
                    Command::Save => self.save(session, port, false)?,
                    Command::Validate => {
                        if self.validate(session, port)? {
                            self.save(session, port, true)?;
                        }
                    }
                    Command::Reconstruct { clip } => {
                        self.watched = Some(clip);
                        if let Some(event) = self.reconstruct(session, port)? {
                            port.tell(event);
                        }
                    }
                    Command::Decode(request) => serve::decode(session.inference(), &request, port)?,
                    #[cfg(test)]
                    Command::LoseDevice => session.context().device.destroy(),
                }
            }
            if !self.paused {
                return Ok(false);
            }
        }
    }

    fn step(&mut self, session: &mut Session) -> Result<()> {
        let mut cursor = self.cursor;
        for number in 0..self.config().train.accumulate {
            let delivery = self.loader.next_batch()?;
            session.add_gradient(number, &delivery.batch)?;
            cursor = delivery.cursor;
        }
        let rate = self.config().schedule().at(session.steps() as usize);
        session.update(rate as f32)?;
        session.pace()?;
        self.cursor = cursor;
        self.clock.steps += 1;
        Ok(())
    }

    /// Waits for the device, tells the last step's scalars, and ends the run if too many steps were skipped.
    fn report(&mut self, session: &mut Session, port: &mut Port, log: bool) -> Result<()> {
        let StepReport { loss, cross_entropy, lovasz, terms, gradient_norm, finite, loss_scale, skipped } =
            session.report()?;
        let step = session.steps();
        self.loss = loss;
        if loss <= self.largest_sane() {
            self.sane_at = step;
        }
        let metrics = StepMetrics {
            step,
            elapsed_secs: self.began.elapsed().as_secs_f64(),
            steps_per_sec: self.clock.lap(),
            learning_rate: self.config().schedule().at(step as usize - 1),
            loss,
            cross_entropy,
            lovasz,
            terms,
            gradient_norm,
            loss_scale,
            skipped,
        };
        if log {
            self.log.append(&Row::Step(metrics))?;
        }
        port.mention(Event::Step(metrics));
        if self.memory_told.is_none_or(|told| told.elapsed() > MEMORY_INTERVAL) {
            self.memory_told = Some(Instant::now());
            port.mention(Event::Memory {
                planned_bytes: session.preflight().peak_bytes as u64,
                used_bytes: session.context().memory_use().map(|memory| memory.allocated_bytes),
            });
        }
        let skipped = skipped.saturating_sub(self.skipped.0);
        if skipped > self.skipped.1 {
            let limit = self.config().train.max_skipped;
            if skipped as usize >= limit {
                return Err(Error::NonFinite(format!(
                    "by step {step} the loss or a gradient was NaN or infinite {skipped} times, and train.max_skipped is {limit}"
                )));
            }
            port.tell(Event::Warning(format!(
                "by step {step} the loss or a gradient was NaN or infinite {skipped} times; such steps are skipped, at most {limit}"
            )));
            self.skipped.1 = skipped;
        } else if finite && !loss.is_finite() {
            port.tell(Event::Warning(format!(
                "the loss of step {step} is NaN or infinite, though its gradient is not"
            )));
        }
        Ok(())
    }

    /// Scores the held-out clips; true if the model is the best so far.
    fn validate(&mut self, session: &mut Session, port: &mut Port) -> Result<bool> {
        let step = session.steps();
        let Some((set, clips)) = &self.held_out else {
            port.tell(Event::Warning("there is nothing to validate on: train.validate_every is 0".into()));
            return Ok(false);
        };
        if self.validated_at == Some(step) {
            return Ok(false);
        }
        let Some(metrics) = serve::validate(session.inference(), set, clips, port)? else { return Ok(false) };
        self.validated_at = Some(step);
        let improved =
            metrics.evaluation.total.miou.filter(|&miou| self.index.best.is_none_or(|best| miou > best.miou));
        let is_best = improved.is_some() && self.sane_checkpoint(session)?.is_ok();
        if is_best {
            self.index.best = improved.map(|miou| Best { step, miou });
        }
        if metrics.evaluation.total.miou.is_none() && !std::mem::replace(&mut self.told_unscored, true) {
            port.tell(Event::Warning(unscored(&metrics.confusion)));
        }
        let metrics = ValidationMetrics { is_best, ..metrics };
        self.log.append(&Row::Validation(metrics.clone()))?;
        port.tell(Event::Validation(metrics));
        // Nobody asked for it now, so that it may be left out.
        if self.watched.is_some()
            && let Some(event) = self.reconstruct(session, port)?
        {
            port.mention(event);
        }
        Ok(is_best)
    }

    /// The reconstruction of the watched clip, if it has one.
    fn reconstruct(&mut self, session: &mut Session, port: &mut Port) -> Result<Option<Event>> {
        let Some((set, _)) = &self.held_out else {
            port.tell(Event::Warning("there are no clips to reconstruct: train.validate_every is 0".into()));
            return Ok(None);
        };
        let Some(clip) = self.watched else { return Ok(None) };
        let event = serve::reconstruct(session.inference(), set, clip, port)?;
        self.watched = self.watched.filter(|_| event.is_some());
        Ok(event)
    }
}

/// Why validations have no mIoU.
fn unscored(confusion: &Confusion) -> String {
    let why = match confusion.counts().iter().sum::<u64>() {
        0 => "no voxel of the held-out clips was observed (their masks are all zero)",
        _ => "the held-out clips hold nothing but free space",
    };
    format!("nothing can be scored: {why}, so no model is the best and the latest is used; see to data.val_split")
}

fn loader(blueprint: &Blueprint, dataset: &Arc<Dataset>, cursor: Cursor) -> Result<Loader> {
    let config = &blueprint.config;
    let options = LoaderOptions {
        batch: config.train.batch,
        seed: config.train.seed,
        augment: config.data.augment,
        cursor,
        prefetch: config.train.prefetch,
    };
    Loader::new(dataset.clone(), options)
}
