//! One run on the trainer's thread, from opening its data to its last checkpoint.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::{Port, Request};
use crate::data::{Cursor, Dataset, Loader, LoaderOptions, class_weights};
use crate::gpu::Context;
use crate::models::sep4d::BatchShape;
use crate::train::checkpoint::{Best, Checkpoint, Newest, check_finite, conform};
use crate::train::config::RunConfig;
use crate::train::events::{Command, Event, Finished, Started, StepMetrics, ValidationMetrics};
use crate::train::run_folder::{Environment, MetricsLog, Row, RunFolder};
use crate::train::session::{Session, StepReport, preflight};
use crate::train::validation::{evaluate, evenly_spaced, reconstruct};
use crate::{Error, Result};

/// How long the device may be left to itself: commands wait at most this long, and on a slow adapter every step is told.
const LEASH: Duration = Duration::from_millis(500);

/// Everything of a run that lives on the trainer's thread.
pub(super) struct Run {
    config: RunConfig,
    folder: RunFolder,
    context: Arc<Context>,
    session: Session,
    loader: Loader,
    cursor: Cursor,
    held_out: Option<(Dataset, Vec<usize>)>,
    log: MetricsLog,
    best: Option<Best>,
    watched: Option<usize>,
    validated_at: Option<u32>,
    saved: Option<(u32, PathBuf)>,
    skipped: u32,
    /// Begun here rather than resumed.
    is_new: bool,
    began: Instant,
    clock: Clock,
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

    /// Leaves out the time since the last lap, when no step was under way.
    fn skip(&mut self) {
        self.since = Instant::now();
    }
}

/// What preparing comes to.
pub(super) enum Prepared {
    /// The first step can come.
    Ready(Box<Run>),
    /// It was told to stop; nothing was written.
    Stopped(Finished),
}

impl Run {
    pub(super) fn prepare(request: Request, port: &mut Port) -> Result<Prepared> {
        let Request { config, folder: path, resume, command_line } = request;
        let stopped = || {
            let index = RunFolder::open(&path).map(|folder| folder.checkpoints().index()).unwrap_or_default();
            let (step, best) = (index.latest.unwrap_or(0), index.best);
            Ok(Prepared::Stopped(Finished { step, stopped: true, best, checkpoint: None }))
        };
        // What takes no time comes first, so that a mistake is told at once.
        config.validate()?;
        let found = if resume {
            newest(&RunFolder::open(&path)?, port)?
        } else {
            RunFolder::check_free(&path)?;
            None
        };
        port.tell(Event::Preparing("reading the data set".into()));
        let dataset = open_split(&config, true)?;
        let held_out = match config.train.validate_every {
            0 => None,
            _ => Some(open_split(&config, false)?),
        };
        // Both splits may have the same to say.
        let warnings: BTreeSet<&String> =
            dataset.warnings().iter().chain(held_out.iter().flat_map(|set| set.warnings())).collect();
        for warning in warnings {
            port.tell(Event::Warning(warning.clone()));
        }
        if let Some(set) = held_out.as_ref().filter(|set| set.grid().size != dataset.grid().size) {
            return Err(Error::Data(format!(
                "the clips to validate on have the grid {:?}, those to train on {:?}; set data.crop so that they agree",
                set.grid().size,
                dataset.grid().size
            )));
        }
        let shape = BatchShape { batch: config.train.batch, frames: config.data.frames, size: dataset.grid().size };
        let context = Context::open(&config.device())?;
        let plan = preflight(&config.model, &shape, &config.optimiser(), context.limits())?;
        if let Some(budget) = config.memory_budget_bytes() {
            plan.check(budget)?;
        }
        if port.stop_wanted() {
            return stopped();
        }
        port.tell(Event::Preparing("counting the classes".into()));
        let weights = class_weights(&dataset.class_counts()?);
        if port.stop_wanted() {
            return stopped();
        }
        port.tell(Event::Preparing(format!("building the kernels for {}", context.adapter.name)));
        let mut session =
            Session::new(&context, &config.model, &shape, &config.optimiser(), &weights, config.train.seed)?;
        if port.stop_wanted() {
            return stopped();
        }

        let (cursor, skipped) = match &found {
            Some((path, checkpoint)) => {
                conform(&checkpoint.state.parameters, &session.export()?.parameters, path)?;
                session.import(&checkpoint.state)?;
                (checkpoint.cursor, checkpoint.state.skipped)
            }
            None => (Cursor::default(), 0),
        };
        let step = session.steps();
        let loader = Loader::new(
            Arc::new(dataset.clone()),
            LoaderOptions {
                batch: config.train.batch,
                seed: config.train.seed,
                augment: config.data.augment,
                cursor,
                prefetch: config.train.prefetch,
            },
        )?;
        let held_out = held_out.map(|set| {
            let clips = evenly_spaced(set.len(), config.data.validation_clips);
            (set, clips)
        });
        // Only now is anything written.
        let folder = if resume { RunFolder::open(&path)? } else { RunFolder::create(&path, &config)? };
        let begin = || {
            if resume {
                folder.write_config(&config)?;
            }
            folder.add_environment(environment(&context, command_line, step))?;
            folder.open_metrics(step)
        };
        let log = begin().inspect_err(|_| {
            if !resume {
                folder.discard();
            }
        })?;
        port.tell(Event::Started(Started {
            folder: folder.path().to_path_buf(),
            adapter: context.adapter.name.clone(),
            parameters: plan.parameters,
            peak_bytes: plan.peak_bytes,
            flops_per_step: plan.flops_per_step,
            step,
            steps: config.train.steps as u32,
            train_clips: dataset.len(),
            validation_clips: held_out.as_ref().map_or(0, |(_, clips)| clips.len()),
            size: shape.size,
        }));
        Ok(Prepared::Ready(Box::new(Run {
            best: folder.checkpoints().index().best.filter(|best| best.step <= step && resume),
            log,
            skipped,
            is_new: !resume,
            config,
            folder,
            context,
            session,
            loader,
            cursor,
            held_out,
            watched: None,
            validated_at: None,
            saved: None,
            began: Instant::now(),
            clock: Clock::start(),
        })))
    }

    pub(super) fn train(&mut self, port: &mut Port) -> Result<Finished> {
        let end = self.go_on(port);
        // A file that cannot be read does not cost the steps since the last checkpoint. After a lost device or NaN there is
        // nothing worth keeping.
        let worth_keeping = self.session.steps() > 0;
        match &end {
            Err(Error::Data(_) | Error::Usage(_) | Error::Shape(_)) if worth_keeping => {
                // The error that ended the run is the one to tell.
                let _ = self.save(port, false);
            }
            Err(_) if self.is_new && !worth_keeping && self.saved.is_none() => self.folder.discard(),
            _ => {}
        }
        end
    }

    fn go_on(&mut self, port: &mut Port) -> Result<Finished> {
        let last = self.config.train.steps as u32;
        let step = self.session.steps();
        if step >= last {
            port.tell(Event::Warning(format!(
                "the run has done {step} steps and train.steps is {last}; set it to more to go on (--set train.steps={})",
                step.saturating_mul(2)
            )));
            return Ok(self.finished(false));
        }
        while self.session.steps() < last {
            if self.obey(port)? {
                self.save(port, false)?;
                return Ok(self.finished(true));
            }
            self.step()?;
            let step = self.session.steps();
            let due = |every: usize| every > 0 && (step as usize).is_multiple_of(every) || step == last;
            let train = &self.config.train;
            let (log, save) = (due(train.log_every), due(train.checkpoint_every));
            let validate = train.validate_every > 0 && due(train.validate_every);
            if log || save || validate || self.clock.is_due() {
                self.report(port, log)?;
            }
            let improved = validate && self.validate(port)?;
            if save || improved {
                self.save(port, improved)?;
            }
            if log || save || validate {
                self.clock.skip();
            }
        }
        self.context.save_pipeline_cache();
        Ok(self.finished(false))
    }

    fn finished(&mut self, stopped: bool) -> Finished {
        let checkpoint = self.saved.take().map(|(_, path)| path);
        Finished { step: self.session.steps(), stopped, best: self.best, checkpoint }
    }

    /// Carries out what was ordered; true if the run is to end.
    fn obey(&mut self, port: &mut Port) -> Result<bool> {
        let mut paused = false;
        loop {
            port.listen(paused);
            if port.closed {
                return Ok(true);
            }
            while let Some(command) = port.pending.pop_front() {
                match command {
                    Command::Stop => return Ok(true),
                    Command::Pause if !paused => {
                        self.context.wait()?;
                        paused = true;
                        port.tell(Event::Paused(true));
                    }
                    Command::Pause => {}
                    Command::Resume => {
                        if paused {
                            port.tell(Event::Paused(false));
                        }
                        paused = false;
                    }
                    Command::Step => {
                        // One step, then the pause that comes first in line.
                        port.pending.push_front(Command::Pause);
                        self.clock.skip();
                        return Ok(false);
                    }
                    Command::Save => self.save(port, false)?,
                    Command::Validate => {
                        if self.validate(port)? {
                            self.save(port, true)?;
                        }
                    }
                    Command::Reconstruct { clip } => {
                        self.watched = Some(clip);
                        self.show(port)?;
                    }
                }
                self.clock.skip();
            }
            if !paused {
                return Ok(false);
            }
        }
    }

    fn step(&mut self) -> Result<()> {
        let delivery = self.loader.next_batch()?;
        let rate = self.config.schedule().at(self.session.steps() as usize);
        self.session.train_step(&delivery.batch, rate as f32)?;
        self.cursor = delivery.cursor;
        self.clock.steps += 1;
        Ok(())
    }

    /// Waits for the device, tells the last step's scalars, and ends the run if too many steps were skipped.
    fn report(&mut self, port: &mut Port, log: bool) -> Result<()> {
        let StepReport { loss, cross_entropy, lovasz, kl, gradient_norm, finite, skipped } = self.session.report()?;
        let step = self.session.steps();
        let metrics = StepMetrics {
            step,
            elapsed_secs: self.began.elapsed().as_secs_f64(),
            steps_per_sec: self.clock.lap(),
            learning_rate: self.config.schedule().at(step as usize - 1),
            loss,
            cross_entropy,
            lovasz,
            kl,
            gradient_norm,
            skipped,
        };
        if log {
            self.log.append(&Row::Step(metrics))?;
        }
        port.mention(Event::Step(metrics));
        if skipped > self.skipped {
            let limit = self.config.train.max_skipped;
            if skipped as usize >= limit {
                return Err(Error::NonFinite(format!(
                    "by step {step} the loss or a gradient was NaN or infinite {skipped} times, and train.max_skipped is {limit}; \
                     start again with a lower train.learning_rate or with train.clip_norm, or remove the checkpoints since then \
                     and --resume"
                )));
            }
            port.tell(Event::Warning(format!(
                "by step {step} the loss or a gradient was NaN or infinite {skipped} times; such steps are skipped, at most {limit}"
            )));
            self.skipped = skipped;
        } else if !finite {
            port.tell(Event::Warning(format!(
                "the loss of step {step} is NaN or infinite, though its gradient is not"
            )));
        }
        Ok(())
    }

    /// Scores the held-out clips; true if the model is the best so far.
    fn validate(&mut self, port: &mut Port) -> Result<bool> {
        let step = self.session.steps();
        let Some((set, clips)) = &self.held_out else {
            port.tell(Event::Warning("there is nothing to validate on: train.validate_every is 0".into()));
            return Ok(false);
        };
        if self.validated_at == Some(step) {
            return Ok(false);
        }
        let start = Instant::now();
        let tally = evaluate(&mut self.session, set, clips, self.config.train.batch, |_| !port.stop_wanted())?;
        let Some(tally) = tally else { return Ok(false) };
        self.validated_at = Some(step);
        let evaluation = tally.evaluation();
        let miou = evaluation.total.miou.unwrap_or(0.0);
        let is_best = self.best.is_none_or(|best| miou > best.miou);
        if is_best {
            self.best = Some(Best { step, miou });
        }
        let metrics = ValidationMetrics { step, seconds: start.elapsed().as_secs_f64(), is_best, evaluation };
        self.log.append(&Row::Validation(metrics.clone()))?;
        port.tell(Event::Validation(metrics));
        self.show(port)?;
        Ok(is_best)
    }

    /// Tells the reconstruction of the watched clip.
    fn show(&mut self, port: &mut Port) -> Result<()> {
        if let (Some(clip), Some((set, _))) = (self.watched, &self.held_out) {
            match reconstruct(&mut self.session, set, clip, self.config.train.batch) {
                Ok(shown) => port.mention(Event::Reconstruction(Box::new(shown))),
                Err(Error::Usage(why)) => {
                    self.watched = None;
                    port.tell(Event::Warning(why));
                }
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }

    fn save(&mut self, port: &mut Port, is_best: bool) -> Result<()> {
        let step = self.session.steps();
        if self.saved.as_ref().is_some_and(|(saved, _)| *saved == step) && !is_best {
            return Ok(());
        }
        let checkpoint = Checkpoint { config: self.config.clone(), state: self.session.export()?, cursor: self.cursor };
        let folder = self.folder.checkpoints();
        let path = folder.save(&checkpoint, self.best)?;
        folder.prune(step, self.best.map(|best| best.step), self.config.train.keep_last)?;
        self.saved = Some((step, path.clone()));
        port.tell(Event::Checkpoint { step, path, is_best });
        Ok(())
    }
}

fn open_split(config: &RunConfig, train: bool) -> Result<Dataset> {
    let root = &config.data.root;
    if root.as_os_str().is_empty() {
        return Err(Error::Usage(
            "no data set was given; add --data DIR (or data.root to the configuration), or make one with `sep4d synth DIR`"
                .into(),
        ));
    }
    let split = if train { config.data.train_split } else { config.data.val_split };
    let dataset = Dataset::open(root, split, config.dataset_options()).map_err(|why| match why {
        Error::Data(why) if !train => {
            Error::Data(format!("{why}, or train without validation (--set train.validate_every=0)"))
        }
        why => why,
    })?;
    if dataset.classes().len() != config.model.classes {
        return Err(Error::Usage(format!(
            "model.classes is {}, but {} has {} classes; set model.classes to that",
            config.model.classes,
            dataset.classes().name,
            dataset.classes().len()
        )));
    }
    Ok(dataset)
}

/// The newest whole checkpoint of a run that goes on, with the path of its model.
fn newest(folder: &RunFolder, port: &mut Port) -> Result<Option<(PathBuf, Checkpoint)>> {
    let Newest { found, damaged } = folder.checkpoints().latest()?;
    for why in damaged {
        port.tell(Event::Warning(format!("the newest checkpoint is left out and the one before is used: {why}")));
    }
    match &found {
        Some((path, Checkpoint { state, .. })) => {
            check_finite(state.parameters.iter().chain(&state.first_moments).chain(&state.second_moments), path)?;
        }
        None => port.tell(Event::Warning("the run has no checkpoint yet; it starts from the beginning".into())),
    }
    Ok(found)
}

fn environment(context: &Context, command_line: Vec<String>, from_step: u32) -> Environment {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Environment {
        version: env!("CARGO_PKG_VERSION").into(),
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        adapter: context.adapter.name.clone(),
        backend: context.adapter.backend.clone(),
        driver: context.adapter.driver.clone(),
        command_line,
        started_unix_secs: now.as_secs(),
        from_step,
    }
}
