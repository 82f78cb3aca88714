//! `sep4d reproduce`: the paper's tables and figures, measured.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sep4d::data::{Dataset, Split, synth};
use sep4d::figures::{bytes, duration, percent, shell_quoted, thousands};
use sep4d::files::make_folder;
use sep4d::gpu::{Context, DeviceChoice};
use sep4d::reproduce::{Measured, Outcome, Run, Scale, State, Study, needs, runs, seconds_of_a_step, write};
use sep4d::train::config::RunConfig;
use sep4d::train::events::{Command, Event};
use sep4d::train::run_folder::{RunFolder, ScoredOn};
use sep4d::train::trainer::{Place, Request, Task, Trainer};
use sep4d::view::{Headless, Theme, save_png, sheet};
use sep4d::{Error, Result};

use super::console::Console;
use super::model;
use super::output::{put, say, tell};
use super::render::Drawing;
use super::signals::{Signals, Wish};
use super::table::table;
use super::train::command_line;

/// Train and measure what the paper's tables and figures compare, beside what was published
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which tables and figures
    #[arg(required = true, value_parser = STUDIES)]
    what: Vec<String>,
    /// How large: tiny (minutes), small (hours on two cores, both on generated towns) or paper
    #[arg(long, default_value = "small", value_parser = ["tiny", "small", "paper"])]
    scale: String,
    /// Folder of a data set with the splits Train, Val and Test; generated towns where the scale has them
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where runs and report are kept, and found again [default: runs/reproduce-SCALE]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Runs of each model that differ in their seed [default: 3 where the scale affords them]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: Option<u64>,
    /// Set a key of all runs, such as train.steps=5000; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Adapter: its number or a part of its name
    #[arg(long)]
    device: Option<String>,
    /// Print the runs with what they take, and stop
    #[arg(long)]
    list: bool,
    /// Only the runs with these numbers of the list, for machines that share the work
    #[arg(long, value_name = "NUMBER", value_delimiter = ',')]
    only: Vec<usize>,
    /// Write the report of what is finished, and stop
    #[arg(long, conflicts_with_all = ["list", "only"])]
    report: bool,
}

/// The names of all studies, and of the sum of the paper's.
const STUDIES: [&str; 9] = ["table1", "table2", "table3", "table4", "figure3", "figure4", "figure5", "all", "ablation"];

/// Keys by which runs differ, or that follow from other options.
const GIVEN: [&str; 11] = [
    "model.architecture",
    "model.fusion",
    "model.encoder",
    "model.features",
    "model.align",
    "model.classes",
    "data.root",
    "data.frames",
    "train.preset",
    "train.seed",
    "output.dir",
];

/// A run with what is known of it.
struct Job {
    run: Run,
    folder: PathBuf,
    config: RunConfig,
    /// What it is to be scored on, if that is at hand.
    data: Option<ScoredOn>,
    state: State,
    /// Seconds that it still takes, bytes of memory, and parameters.
    needs: Option<(f64, usize, usize)>,
    /// Why it cannot run here.
    misfit: Option<Error>,
}

impl Job {
    /// Looks again how far it is.
    fn look(&mut self) -> Result<()> {
        self.state = State::of(&self.folder, &self.config, self.data.as_ref())?;
        Ok(())
    }

    /// Steps of its newest checkpoint.
    fn steps_done(&self) -> Result<usize> {
        let Some(run) = RunFolder::find(&self.folder)? else { return Ok(0) };
        Ok(run.checkpoints().index()?.latest.unwrap_or(0) as usize)
    }
}

/// What is asked for.
struct Order {
    scale: Scale,
    studies: Vec<Study>,
    output: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// [`Error::Usage`] for a wrong option, [`Error::Interrupted`] after a signal, and the first thing that a run fails with.
pub fn run(args: Args) -> Result<()> {
    let mut signals = Signals::register()?;
    let scale: Scale = args.scale.parse()?;
    let all = args.what.iter().any(|name| name == "all");
    let named = |study: &Study| args.what.iter().any(|name| name == study.name());
    let of_the_paper = Study::OF_THE_PAPER.into_iter().filter(|study| all || named(study));
    let studies = of_the_paper.chain([Study::Ablation].into_iter().filter(named));
    let output = args.output.clone().unwrap_or_else(|| Path::new("runs").join(format!("reproduce-{}", scale.name())));
    let order = Order { scale, studies: studies.collect(), output };

    if let Some(pair) = args.set.iter().find(|pair| GIVEN.iter().any(|key| pair.trim_start().starts_with(key))) {
        return Err(Error::Usage(format!(
            "--set {pair}: runs differ by this, or another option says it; leave it out"
        )));
    }
    let data = data(&args, &order)?;
    let mut jobs = jobs(&args, &order, &data)?;
    if let Some(wrong) = args.only.iter().find(|number| !(1..=jobs.len()).contains(number)) {
        return Err(Error::Usage(format!("--only {wrong}: there are runs 1 to {}; see --list", jobs.len())));
    }
    if args.report {
        return order.report(&jobs, args.device.as_deref());
    }
    let choice: DeviceChoice = args.device.as_deref().unwrap_or("best").parse().unwrap_or(DeviceChoice::Best);
    let chosen: Vec<usize> = match args.only.as_slice() {
        [] => (0..jobs.len()).collect(),
        only => only.iter().map(|number| number - 1).collect(),
    };
    stopped(&mut signals)?;
    estimate(&choice, &mut jobs, &chosen, &mut signals)?;
    list(&jobs, &chosen)?;
    if args.list {
        return Ok(());
    }
    let mut failure = None;
    for (done, &i) in chosen.iter().enumerate() {
        stopped(&mut signals)?;
        if let Some(why) = &jobs[i].misfit {
            tell(&format!("warning: {} is left out: {why}", jobs[i].run.name()));
            failure = failure.or(Some(why.clone()));
            continue;
        }
        // Another process may have come to it since.
        jobs[i].look()?;
        if matches!(jobs[i].state, State::Finished(_)) {
            continue;
        }
        let title = format!("[{}/{}] {}", done + 1, chosen.len(), jobs[i].run.name());
        match work(&title, &jobs[i], scale, &choice, &mut signals) {
            Ok(true) => {
                jobs.iter_mut().try_for_each(Job::look)?;
                order.write(&jobs, &[])?;
            }
            Ok(false) => {}
            Err(why @ Error::Interrupted { .. }) => return Err(why),
            Err(why) => {
                tell(&format!("warning: {} is left out: {why}", jobs[i].run.name()));
                failure = failure.or(Some(why));
            }
        }
    }
    jobs.iter_mut().try_for_each(Job::look)?;
    order.report(&jobs, args.device.as_deref())?;
    failure.map_or(Ok(()), Err)
}

/// The data set that was given, or generated towns, complete.
fn data(args: &Args, order: &Order) -> Result<PathBuf> {
    if let Some(root) = &args.data {
        return Ok(std::path::absolute(root).unwrap_or_else(|_| root.clone()));
    }
    let Some(towns) = order.scale.towns()? else {
        return Err(Error::Usage(
            "the scale paper has no data of its own; give the folder of a data set by --data DIR, or choose --scale small"
                .into(),
        ));
    };
    let folder = order.output.join("data");
    if !args.report && !synth::is_written(&folder, &towns) {
        say!("generating towns in {}", folder.display())?;
        synth::write(&folder, &towns, |_| {})?;
    }
    Ok(std::path::absolute(&folder).unwrap_or(folder))
}

fn jobs(args: &Args, order: &Order, data: &Path) -> Result<Vec<Job>> {
    let device = args.device.iter().map(|device| format!("train.device={device}"));
    let set: Vec<String> = args.set.iter().cloned().chain(device).collect();
    // By length: the classes, and what is scored on.
    let mut known: BTreeMap<usize, Option<(Dataset, ScoredOn)>> = BTreeMap::new();
    let job = |run: Run| {
        let folder = order.output.join("runs").join(run.name());
        let mut config = run.config(order.scale, data, &set)?;
        let found = match known.entry(run.frames) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(place) => place.insert(match Dataset::open(data, Split::Test, config.dataset_options()) {
                Ok(set) => {
                    let scored_on = ScoredOn::of(&set);
                    Some((set, scored_on))
                }
                // A report needs the runs alone.
                Err(_) if args.report => None,
                Err(why) => return Err(why),
            }),
        };
        if let Some((set, _)) = found {
            config.settle(set.classes(), set.has_poses())?;
        }
        config.output.dir.clone_from(&folder);
        let data = found.as_ref().map(|(_, data)| data.clone());
        let state = State::of(&folder, &config, data.as_ref())?;
        Ok(Job { run, folder, config, data, state, needs: None, misfit: None })
    };
    runs(&order.studies, order.scale, args.seeds).into_iter().map(job).collect()
}

/// Plans each of the chosen runs that is not finished, and times a step of each model at its shortest clips; its other lengths take as much longer as they
/// have more operations.
fn estimate(choice: &DeviceChoice, jobs: &mut [Job], chosen: &[usize], signals: &mut Signals) -> Result<()> {
    if chosen.iter().all(|&i| matches!(jobs[i].state, State::Finished(_))) {
        return Ok(());
    }
    let context = Context::open(choice)?;
    let console = Console::new(chosen.len() as u64, "runs planned");
    // By model: seconds for an operation; by model and length: what it needs.
    let (mut pace, mut plans) = (BTreeMap::new(), BTreeMap::new());
    for (done, &i) in chosen.iter().enumerate() {
        let job = &mut jobs[i];
        console.advance(done as u64, job.run.name());
        stopped(signals)?;
        if matches!(job.state, State::Finished(_)) {
            continue;
        }
        let (name, frames) = (job.run.variant.name, job.run.frames);
        let dataset = Dataset::open(&job.config.data.root, job.config.data.train_split, job.config.dataset_options())?;
        let planned = plans.entry((name, frames)).or_insert_with(|| needs(&context, &job.config, dataset.grid().size));
        let plan = match planned {
            Ok(plan) => plan,
            Err(why) => {
                job.misfit = Some(why.clone());
                continue;
            }
        };
        let per_flop = match pace.get(name) {
            Some(per_flop) => *per_flop,
            None => match seconds_of_a_step(&context, &job.config, &dataset) {
                Ok(seconds) => *pace.entry(name).or_insert(seconds / plan.flops_per_step as f64),
                Err(why) => {
                    job.misfit = Some(why);
                    continue;
                }
            },
        };
        let steps = job.config.train.steps.saturating_sub(job.steps_done()?) as f64;
        job.needs = Some((steps * per_flop * plan.flops_per_step as f64, plan.peak_bytes, plan.parameters));
    }
    console.end();
    context.save_pipeline_cache();
    Ok(())
}

fn list(jobs: &[Job], chosen: &[usize]) -> Result<()> {
    let row = |(i, job): (usize, &Job)| {
        let (state, miou) = match &job.state {
            _ if job.misfit.is_some() => ("does not fit", String::new()),
            State::Open => ("open", String::new()),
            State::Begun => ("begun", String::new()),
            State::Finished(outcome) => ("finished", percent(outcome.evaluation.total.miou)),
        };
        let costs = job.needs.map_or([String::new(), String::new(), String::new()], |(seconds, memory, parameters)| {
            [thousands(parameters as u64), bytes(memory as u64), duration(seconds)]
        });
        [job.run.name(), (i + 1).to_string(), thousands(job.config.train.steps as u64)]
            .into_iter()
            .chain(costs)
            .chain([state.to_owned(), miou])
            .collect()
    };
    let rows: Vec<Vec<String>> = chosen.iter().map(|&i| row((i, &jobs[i]))).collect();
    put!("{}", table(&["run", "number", "steps", "parameters", "memory", "time", "state", "mIoU"], &rows))?;
    let left: f64 = jobs.iter().filter_map(|job| Some(job.needs?.0)).sum();
    let open = jobs.iter().filter(|job| job.needs.is_some()).count();
    match open {
        0 => say!("all {} runs are finished", chosen.len()),
        _ => say!("{open} runs to go, about {} of training, measurements left out", duration(left)),
    }
}

/// Brings a run to its end and measures it; false if another process is at it.
fn work(title: &str, job: &Job, scale: Scale, choice: &DeviceChoice, signals: &mut Signals) -> Result<bool> {
    let console = Console::new(job.config.train.steps as u64, "steps");
    console.line(title);
    if !train(job, &console, signals)? {
        console.end();
        console.line(&format!("{title} is under way in another process; it is left to that"));
        return Ok(false);
    }
    console.end();
    let context = Context::open(choice)?;
    let console = Console::new(0, "clips scored");
    let mut wish = None;
    let outcome = Outcome::measure(&context, &job.folder, &job.config.data.root, scale.scored_clips(), |done, all| {
        console.begin(done as u64, all as u64);
        wish = signals.take().or(wish);
        !matches!(wish, Some(Wish::Stop(_) | Wish::Hasten(_)))
    })?;
    console.end();
    context.save_pipeline_cache();
    if let (None, Some(Wish::Stop(signal) | Wish::Hasten(signal))) = (&outcome, wish) {
        return Err(interrupted(signal));
    }
    if let Some(Outcome { evaluation, seconds, .. }) = &outcome {
        let (miou, iou) = (percent(evaluation.total.miou), percent(evaluation.total.iou));
        say!("{title}: mIoU {miou}, IoU {iou}, trained in {}", duration(*seconds))?;
    }
    Ok(true)
}

/// Trains a run to its last step; false if another process does.
fn train(job: &Job, console: &Console, signals: &mut Signals) -> Result<bool> {
    if job.steps_done()? >= job.config.train.steps {
        return Ok(true);
    }
    let (config, resume) = match RunFolder::find(&job.folder)? {
        Some(begun) => {
            let before = begun.config()?;
            let mut config = job.config.clone();
            config.output.dir.clone_from(&before.output.dir);
            (before.resumed_as(config)?, true)
        }
        None => (job.config.clone(), false),
    };
    let (place, task) = (Place::At(job.folder.clone()), Task::Train { resume });
    let trainer =
        Trainer::start(Request { config, place, task, background: false, command_line: command_line(), wake: None })?;
    let mut stopping = None;
    loop {
        match trainer.next_event(Duration::from_millis(100))? {
            // What was stopped stays stopped: a run that has just come to its end is measured next time.
            Some(Event::Finished(_) | Event::Failed(_)) if stopping.is_some() => {
                return Err(interrupted(stopping.unwrap_or_default()));
            }
            Some(Event::Finished(_)) => return Ok(true),
            Some(Event::Failed(Error::Busy(_))) => return Ok(false),
            Some(Event::Failed(why)) => return Err(why),
            Some(Event::Started(started)) => console.begin(started.step.into(), started.steps.into()),
            Some(Event::Step(metrics)) => console.advance(metrics.step.into(), format!("loss {:.3}", metrics.loss)),
            Some(Event::Warning(text)) => console.warn(&text),
            _ => {}
        }
        match signals.take() {
            Some(Wish::Save) => drop(trainer.send(Command::Save)),
            Some(Wish::Stop(signal)) => {
                console.line("stopping after this step, and saving a checkpoint");
                stopping = Some(signal);
            }
            Some(Wish::Hasten(signal)) => {
                console.end();
                tell(&format!("error: {}", interrupted(signal)));
                // Whatever the trainer writes comes into its place whole, or not at all.
                signal_hook::low_level::exit(128 + signal);
            }
            None => {}
        }
        if stopping.is_some() {
            trainer.send(Command::Stop);
        }
    }
}

fn interrupted(signal: i32) -> Error {
    Error::Interrupted { signal, saved: "what is finished is kept; the same command goes on from there".into() }
}

fn stopped(signals: &mut Signals) -> Result<()> {
    match signals.take() {
        Some(Wish::Stop(signal) | Wish::Hasten(signal)) => Err(interrupted(signal)),
        Some(Wish::Save) | None => Ok(()),
    }
}

impl Order {
    /// Draws the clip of Figure 3 as the systems that are finished reconstruct it, and returns what it shows and the file.
    fn pictures(&self, jobs: &[Job], device: Option<&str>) -> Result<Vec<(String, PathBuf)>> {
        let is_drawn = |job: &&Job| {
            let is_finished = matches!(job.state, State::Finished(_));
            is_finished && job.run.seed == 0 && Study::Figure3.has(&job.run)
        };
        let drawn: Vec<&Job> = jobs.iter().filter(is_drawn).collect();
        let (true, [first, others @ ..]) = (self.studies.contains(&Study::Figure3), drawn.as_slice()) else {
            return Ok(Vec::new());
        };
        let args = model::Args {
            run: first.folder.clone(),
            checkpoint: "last".into(),
            split: Some("test".into()),
            data: Some(first.config.data.root.clone()),
            device: device.map(str::to_owned),
        };
        let others: Vec<PathBuf> = others.iter().map(|job| job.folder.clone()).collect();
        let drawing = Drawing::of(&args, &others, None)?;
        let mut renderer = Headless::new(&drawing.context.device, &drawing.context.queue)?;
        let path = self.output.join("report").join("figure3.png");
        make_folder(&self.output.join("report"))?;
        drawing.draw(Theme::Light, false, 3, |input| save_png(&sheet(&mut renderer, input)?, &path))?;
        let caption = "Figure 3: one clip of the test split, original beside reconstructions, with their errors below";
        Ok(vec![(caption.into(), path)])
    }

    /// The report of what is finished.
    fn write(&self, jobs: &[Job], pictures: &[(String, PathBuf)]) -> Result<PathBuf> {
        let mut measured = Vec::new();
        for job in jobs {
            if let State::Finished(outcome) = &job.state {
                let history = RunFolder::open(&job.folder)?.history()?;
                measured.push(Measured { run: job.run.clone(), outcome: Outcome::clone(outcome), history });
            }
        }
        write(&self.output.join("report"), self.scale, &self.studies, &measured, jobs.len(), pictures)
    }

    /// The same with its pictures, and where it is.
    fn report(&self, jobs: &[Job], device: Option<&str>) -> Result<()> {
        let pictures = self.pictures(jobs, device).unwrap_or_else(|why| {
            tell(&format!("warning: Figure 3 is not drawn: {why}"));
            Vec::new()
        });
        let page = self.write(jobs, &pictures)?;
        say!("wrote {}", shell_quoted(&page))
    }
}
