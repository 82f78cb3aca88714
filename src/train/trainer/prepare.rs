//! What comes before the first step: data, adapter, memory, kernels, the run folder.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::run::{Run, Writing};
use super::{Place, Port, Request};
use crate::data::{Cursor, Dataset, check};
use crate::gpu::Context;
use crate::graph::Tuning;
use crate::graph::tune::tuned;
use crate::models::BatchShape;
use crate::train::checkpoint::{Checkpoint, Index, Newest, conform};
use crate::train::config::RunConfig;
use crate::train::events::{Event, Finished, Preparing, Started};
use crate::train::run_folder::{Environment, RunFolder, ScoredOn, WriterLock};
use crate::train::session::{Planned, Session, graphs};
use crate::train::validation::evenly_spaced;
use crate::{Error, Result};

/// What preparing comes to.
pub(super) enum Prepared {
    /// The first step can come.
    Ready(Box<Run>, Box<Session>),
    /// It was told to stop; nothing was written.
    Stopped(Finished),
}

/// What a session is built from, the first time and after its device was lost.
pub(super) struct Blueprint {
    pub config: RunConfig,
    pub shape: BatchShape,
    pub class_weights: Vec<f32>,
    /// The choices with which the run began, so that it goes on to the same bits.
    pub tuning: Tuning,
    /// For the adapter with which it began.
    pub planned: Planned,
}

impl Blueprint {
    /// Builds a session on `context`.
    ///
    /// # Errors
    /// As for [`Planned::new`] and [`Session::of`].
    pub fn build(&self, context: &Arc<Context>) -> Result<Session> {
        let (RunConfig { model, train, .. }, limits) = (&self.config, context.limits());
        // The adapter that is opened after a loss may be another one.
        let anew = match self.planned.fits(limits) {
            true => None,
            false => Some(Planned::new(model, &self.shape, &self.config.step(), limits)?),
        };
        Session::of(context, anew.as_ref().unwrap_or(&self.planned), &self.class_weights, train.seed)
    }
}

/// Makes everything ready to train; `resume` goes on from the folder's last checkpoint.
///
/// # Errors
/// Anything that keeps a run from beginning; nothing was written then.
pub(super) fn prepare(request: Request, resume: bool, port: &mut Port) -> Result<Prepared> {
    let Request { mut config, place, command_line, .. } = request;
    // What takes no time comes first, so that a mistake is told at once.
    config.validate()?;
    let resumed = match &place {
        Place::At(path) if resume => Some(Resumed::open(path, port)?),
        Place::At(path) => {
            RunFolder::check_free(path)?;
            None
        }
        Place::Next { .. } => None,
    };
    let stopped = || {
        let index = resumed.as_ref().map_or(Ok(Index::default()), |resumed| resumed.folder.checkpoints().index())?;
        let (step, best) = (index.latest.unwrap_or(0), index.best);
        Ok(Prepared::Stopped(Finished { step, stopped: true, best, checkpoint: None }))
    };
    port.tell(Event::Preparing(Preparing::new("reading the data set")));
    let dataset = open_split(&config, true)?;
    config.settle(dataset.classes(), dataset.has_poses())?;
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
    let sets: Vec<&Dataset> = [&dataset].into_iter().chain(&held_out).collect();
    let doubts = check::doubts(&config.data.root, &sets);
    if let Some(doubts) = &doubts {
        port.tell(Event::Warning(doubts.clone()));
    }
    if let Some(set) = held_out.as_ref().filter(|set| set.grid().size != dataset.grid().size) {
        return Err(Error::Data(format!(
            "the clips to validate on have the grid {:?}, those to train on {:?}; set data.crop so that they agree",
            set.grid().size,
            dataset.grid().size
        )));
    }
    let shape = BatchShape { batch: config.train.batch, frames: config.data.frames, size: dataset.grid().size };
    let mut context = Context::open(&config.device())?;
    if let Some(resumed) = resumed.as_ref().filter(|_| context.is_tunable()) {
        let mut tuning = context.limits().policy.tuning.clone();
        tuning.extend(resumed.folder.tuning(&context.adapter)?);
        context = context.with_tuning(tuning);
    }
    let context = tuned(context, &graphs(&config.model, &shape, &config.step())?, |done, total| {
        port.tell(Event::Preparing(Preparing { what: "measuring kernels".into(), done, total, left: None }));
        !port.stop_wanted()
    })?;
    let planned = Planned::new(&config.model, &shape, &config.step(), context.limits())?;
    let plan = planned.preflight().clone();
    if let Some(budget) = config.memory_budget_bytes() {
        plan.check(budget)?;
    }
    if port.stop_wanted() {
        return stopped();
    }
    port.tell(Event::Preparing(Preparing::new("counting the classes")));
    let class_weights = config.train.class_weights.of(&dataset.class_counts()?);
    if port.stop_wanted() {
        return stopped();
    }
    let held_out = held_out.map(|set| {
        let clips = evenly_spaced(set.len(), config.data.validation_clips);
        (set, clips)
    });
    if let (Some(_), Some((set, clips))) = (&doubts, &held_out) {
        port.tell(Event::Preparing(Preparing::new("reading the clips to validate on")));
        // A few at a time, so that a stop is obeyed.
        for part in clips.chunks(rayon::current_num_threads()) {
            if port.stop_wanted() {
                return stopped();
            }
            set.read(part).map_err(without_validation)?;
        }
    }
    if !port.build(&context, &plan.kernels)? {
        return stopped();
    }
    let tuning = context.limits().policy.tuning.clone();
    let mut blueprint = Blueprint { config, shape, class_weights, tuning, planned };
    let mut session = blueprint.build(&context)?;

    let cursor = match resumed.as_ref().and_then(|resumed| resumed.found.as_ref()) {
        Some((path, checkpoint)) => {
            conform(&checkpoint.state.parameters, &session.inference().export()?, path)?;
            session.import(&checkpoint.state)?;
            checkpoint.cursor
        }
        None => Cursor::default(),
    };
    let scored_on = held_out.as_ref().map(|(set, _)| ScoredOn::of(set));
    let (step, state) = (session.steps(), session.export()?);
    let is_new = resumed.is_none();
    // Only now is anything written.
    let (folder, lock, index) = match resumed {
        Some(Resumed { folder, lock, .. }) => {
            let index = index_of(&folder, step, scored_on.as_ref(), port)?;
            folder.write_config(&blueprint.config)?;
            (folder, lock, index)
        }
        None => {
            let (folder, lock) = make(place, &mut blueprint.config)?;
            (folder, lock, Index::default())
        }
    };
    if !lock.is_enforced {
        port.tell(Event::Warning(format!(
            "the file system of {} has no locks; see to it that no other process trains there",
            folder.path().display()
        )));
    }
    let begin = || {
        let environment = Environment { scored_on, ..environment(&context, command_line, step) };
        folder.add_environment(environment)?;
        folder.open_metrics(step)
    };
    let log = begin().inspect_err(|_| {
        if is_new {
            folder.discard();
        }
    })?;
    let config = &blueprint.config;
    let start = Checkpoint { config: config.clone(), state, cursor };
    port.tell(Event::Started(Started {
        data: dataset.about(),
        folder: folder.path().to_path_buf(),
        adapter: context.adapter.name.clone(),
        parameters: plan.parameters,
        peak_bytes: plan.peak_bytes,
        flops_per_step: plan.flops_per_step,
        step,
        steps: config.train.steps as u32,
        train_clips: dataset.len(),
        validation_clips: held_out.as_ref().map_or(0, |(_, clips)| clips.len()),
        frames: blueprint.shape.frames,
        size: blueprint.shape.size,
        grid: dataset.grid(),
        classes: dataset.classes().clone(),
    }));
    let run = Run::new(blueprint, Writing { folder, lock, log, index, is_new }, Arc::new(dataset), held_out, start)?;
    Ok(Prepared::Ready(Box::new(run), Box::new(session)))
}

/// Makes the folder of a new run, which `config` names from then on.
///
/// # Errors
/// As for [`RunFolder::create`].
fn make(place: Place, config: &mut RunConfig) -> Result<(RunFolder, WriterLock)> {
    match place {
        Place::At(path) => RunFolder::create(&path, config),
        Place::Next { parent, name } => {
            config.output.dir = RunFolder::claim(&parent, &name)?;
            RunFolder::create(&config.output.dir, config)
        }
    }
}

/// What a run's checkpoints amount to when it goes on from `step`. Scores on other clips than before do not compete.
///
/// # Errors
/// [`Error::Unreadable`] if what the run has written cannot be read now.
fn index_of(folder: &RunFolder, step: u32, scored_on: Option<&ScoredOn>, port: &mut Port) -> Result<Index> {
    let mut index = folder.index_up_to(step)?;
    let before = folder.scored_on()?;
    if let (Some(before), Some(now), Some(best)) = (&before, scored_on, index.best)
        && before != now
    {
        port.tell(Event::Warning(format!(
            "until now this run was scored on {before}, from now on it is on {now}: its scores before and after cannot be \
             compared, so step {} is kept but is no longer the best",
            best.step
        )));
        index.kept.push(best.step);
        index.best = None;
    }
    Ok(index)
}

/// A run that goes on: nobody else writes it any more.
struct Resumed {
    folder: RunFolder,
    lock: WriterLock,
    /// The newest whole checkpoint, with the path of its model.
    found: Option<(PathBuf, Checkpoint)>,
}

impl Resumed {
    fn open(path: &Path, port: &mut Port) -> Result<Resumed> {
        let folder = RunFolder::open(path)?;
        let lock = WriterLock::take(path)?;
        folder.remove_leftovers();
        let Newest { found, passed_over } = folder.checkpoints().latest()?;
        for why in passed_over {
            port.tell(Event::Warning(format!("the newest checkpoint is left out and the one before is used: {why}")));
        }
        if found.is_none() {
            port.tell(Event::Warning("the run has no checkpoint yet; it starts from the beginning".into()));
        }
        Ok(Resumed { folder, lock, found })
    }
}

/// Opens the split to train on, or that to validate on.
///
/// # Errors
/// [`Error::Data`] if it cannot be read, [`Error::Usage`] if it does not fit the configuration.
pub(super) fn open_split(config: &RunConfig, train: bool) -> Result<Dataset> {
    let root = &config.data.root;
    if root.as_os_str().is_empty() {
        return Err(Error::Usage(
            "no data set was given; add --data DIR (or data.root to the configuration), or make one with `sep4d synth DIR`"
                .into(),
        ));
    }
    let split = if train { config.data.train_split } else { config.data.val_split };
    let dataset = Dataset::open(root, split, config.dataset_options());
    let dataset = dataset.map_err(|why| if train { why } else { without_validation(why) })?;
    config.clone().settle(dataset.classes(), dataset.has_poses())?;
    Ok(dataset)
}

/// Proposes another way out of what is wrong with the split to validate on.
fn without_validation(why: Error) -> Error {
    match why {
        Error::Data(why) => Error::Data(format!("{why}, or train without validation (--set train.validate_every=0)")),
        why => why,
    }
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
        tuning: context.limits().policy.tuning.clone(),
        command_line,
        started_unix_secs: now.as_secs(),
        from_step,
        scored_on: None,
    }
}
