//! `sep4d --train`: one consumer of the trainer's events.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sep4d::train::config::RunConfig;
use sep4d::train::events::{Command, Event, Finished, Started, StepMetrics};
use sep4d::train::run_folder::RunFolder;
use sep4d::train::trainer::{Place, Request, Task, Trainer};
use sep4d::{Error, Result};

use super::console::Console;
use super::dry_run;
use super::output::tell;
use super::signals::{Signals, Wish};
use sep4d::figures::{bytes, duration, percent, shell_quoted, thousands};

/// Where runs go that were given no folder.
const RUNS: &str = "runs";

/// How long the kernels must still take for that to be worth a line in a log.
const WORTH_TELLING: Duration = Duration::from_secs(3);

/// Options of --train.
#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Training (with --train)")]
pub struct Args {
    /// Configuration file (TOML); its values replace the preset's
    #[arg(long, value_name = "FILE", requires = "train")]
    config: Option<PathBuf>,
    /// Where the defaults come from
    #[arg(long, value_parser = ["tiny", "demo", "base", "paper"], requires = "train")]
    preset: Option<String>,
    /// Set a key, such as train.steps=1000; may be repeated, and wins over the file
    #[arg(long, value_name = "KEY=VALUE", requires = "train")]
    set: Vec<String>,
    /// Folder of the data set (data.root)
    #[arg(long, value_name = "DIR", requires = "train")]
    data: Option<PathBuf>,
    /// Run folder to make (output.dir)
    #[arg(long, value_name = "DIR", requires = "train")]
    output: Option<PathBuf>,
    /// Go on with a run: this folder, that of --output, or the newest below runs/
    #[arg(long, value_name = "RUN", requires = "train", conflicts_with_all = ["config", "preset"])]
    resume: Option<Option<PathBuf>>,
    /// Go on with the run in --output if there is one, else begin it: for jobs that are queued again
    #[arg(long, requires_all = ["train", "output"], conflicts_with = "resume")]
    resume_or_start: bool,
    /// Print parameters and memory for several T, and stop
    #[arg(long, requires = "train")]
    dry_run: bool,
    /// Seed of everything random (train.seed)
    #[arg(long, requires = "train")]
    seed: Option<u64>,
    /// Adapter: its number or a part of its name (train.device)
    #[arg(long, requires = "train")]
    device: Option<String>,
    /// Device memory to plan for, such as 8GiB or 900MiB; what exceeds it is recomputed (train.memory_budget)
    #[arg(long, value_name = "SIZE", value_parser = gibibytes, requires = "train")]
    memory_budget: Option<f64>,
}

impl Args {
    /// `--set` and the options that stand for a key.
    fn settings(&self) -> Result<Vec<String>> {
        let mut settings = self.set.clone();
        let root = self.data.as_ref().map(|path| {
            path.to_str().map(str::to_owned).ok_or_else(|| {
                Error::Usage(format!(
                    "--data {}: the path is not UTF-8; rename the folder or link to it",
                    path.display()
                ))
            })
        });
        let options = [
            ("data.root", root.transpose()?),
            ("train.seed", self.seed.map(|seed| seed.to_string())),
            ("train.device", self.device.clone()),
            ("train.memory_budget", self.memory_budget.map(|gib| format!("{gib:?}"))),
        ];
        settings.extend(options.into_iter().filter_map(|(key, value)| Some(format!("{key}={}", value?))));
        Ok(settings)
    }

    /// The configuration and the run folder.
    fn request(&self) -> Result<Request> {
        let (mut config, place, resume) = match &self.resume {
            Some(run) => {
                let newest = || RunFolder::newest(Path::new(RUNS));
                let path = run.clone().or_else(|| self.output.clone()).or_else(newest).ok_or_else(|| {
                    Error::Usage(format!("there is no run below {RUNS}/ to go on with; use --resume RUN"))
                })?;
                (RunFolder::open(&path)?.config()?.resumed_with(&self.settings()?)?, Place::At(path), true)
            }
            None => {
                let preset = self.preset.as_deref().map(str::parse).transpose()?;
                let mut config = RunConfig::resolve(preset, self.config.as_deref(), &self.settings()?)?;
                if let Some(output) = &self.output {
                    config.output.dir = output.clone();
                }
                let place = Place::of(&config, Path::new(RUNS));
                let begun = match place.known() {
                    Some(path) if self.resume_or_start => RunFolder::find(path)?,
                    _ => None,
                };
                if let Some(begun) = &begun {
                    let before = begun.config()?;
                    config.output.dir.clone_from(&before.output.dir);
                    config = before.resumed_as(config)?;
                }
                (config, place, begun.is_some())
            }
        };
        let root = &mut config.data.root;
        if !root.as_os_str().is_empty() {
            // So that the run can be resumed or repeated from anywhere.
            *root = std::path::absolute(&*root).unwrap_or_else(|_| root.clone());
        }
        let task = Task::Train { resume };
        Ok(Request { config, place, task, background: false, command_line: command_line(), wake: None })
    }
}

/// GiB of a size such as `8GiB`, `900MiB` or `8` (GiB).
fn gibibytes(size: &str) -> Result<f64, String> {
    let units = [("GiB", 1.0), ("MiB", 1.0 / 1024.0), ("", 1.0)];
    let split = units.into_iter().find_map(|(name, unit)| Some((size.strip_suffix(name)?, unit)));
    let gib = split.and_then(|(number, unit)| Some(number.trim().parse::<f64>().ok()? * unit));
    gib.filter(|gib| *gib > 0.0 && gib.is_finite()).ok_or_else(|| "give a size such as 8GiB or 900MiB".into())
}

/// Trains, or says what training would need.
///
/// # Errors
/// [`Error::Usage`] for a wrong configuration, [`Error::Interrupted`] after a signal, and what the trainer fails with.
pub fn run(args: Args) -> Result<()> {
    let mut signals = if args.dry_run { None } else { Some(Signals::register()?) };
    let request = args.request()?;
    request.config.validate()?;
    let Some(signals) = &mut signals else { return dry_run::run(&request.config) };
    let steps = request.config.train.steps as u64;
    let mut reporter = Reporter {
        console: Console::new(steps, "steps"),
        config: request.config.clone(),
        folder: request.place.known().map(Path::to_path_buf),
        started: false,
        foretold: false,
        first: true,
        saved: None,
    };
    let trainer = Trainer::start(request)?;
    let (mut stopping, mut is_told) = (None, false);
    loop {
        match trainer.next_event(Duration::from_millis(100))? {
            Some(Event::Finished(finished)) => {
                reporter.console.end();
                return reporter.finish(&finished, stopping);
            }
            Some(Event::Failed(why)) => {
                reporter.console.end();
                reporter.fail(&why);
                return Err(why);
            }
            Some(event) => reporter.show(event),
            None => {}
        }
        match signals.take() {
            Some(Wish::Save) => drop(trainer.send(Command::Save)),
            Some(Wish::Stop(signal)) => {
                reporter.console.line(&format!("stopping {}", reporter.when_it_stops()));
                stopping = Some(signal);
            }
            Some(Wish::Hasten(signal)) => {
                reporter.console.end();
                tell(&format!("error: {}", Error::Interrupted { signal, saved: reporter.given_up() }));
                // The trainer is left where it is: whatever it writes comes into its place whole, or not at all.
                signal_hook::low_level::exit(128 + signal);
            }
            None => {}
        }
        // Where too many orders wait already, it is told as soon as there is room.
        is_told = is_told || stopping.is_some() && trainer.send(Command::Stop);
    }
}

/// The command line, for the record.
pub fn command_line() -> Vec<String> {
    std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect()
}

/// Turns events into lines.
struct Reporter {
    console: Console,
    config: RunConfig,
    /// The run folder, once it is known.
    folder: Option<PathBuf>,
    started: bool,
    /// How long the kernels take has been told.
    foretold: bool,
    first: bool,
    /// The last checkpoint that was written.
    saved: Option<PathBuf>,
}

impl Reporter {
    /// How to go on with the run, if there is one.
    fn way_on(&self) -> Option<String> {
        let folder = self.folder.as_ref().filter(|folder| RunFolder::open(folder).is_ok())?;
        Some(format!("go on with `sep4d --train --resume {}`", shell_quoted(folder)))
    }

    /// Says how to go on after a failure. What failed for its numbers says so itself: the same again would fail again.
    fn fail(&self, why: &Error) {
        if let (true, Some(way_on)) = (self.started && !matches!(why, Error::NonFinite(_)), self.way_on()) {
            self.console.line(&format!("the run is kept; {way_on}"));
        }
    }

    fn when_it_stops(&self) -> &'static str {
        if self.started {
            "after this step, and saving a checkpoint (after 3 seconds, Ctrl-C again quits without)"
        } else {
            "before the first step (after 3 seconds, Ctrl-C again quits at once)"
        }
    }

    /// What is left of a run that is ended in haste.
    fn given_up(&self) -> String {
        let saved = match &self.saved {
            Some(path) => format!("the steps since {} are lost", path.display()),
            None => "nothing was saved in this time".into(),
        };
        self.way_on().map_or(saved.clone(), |way_on| format!("{saved}; {way_on}"))
    }

    fn show(&mut self, event: Event) {
        match event {
            Event::Preparing(preparing) => {
                if preparing.done == 0 {
                    self.console.line(&preparing.what);
                } else if self.console.has_bar() {
                    self.console.advance(0, preparing.to_string());
                } else if preparing.left.is_some_and(|left| left >= WORTH_TELLING) && !self.foretold {
                    self.foretold = true;
                    self.console.line(&preparing.to_string());
                }
            }
            Event::Started(started) => {
                self.started = true;
                self.folder = Some(started.folder.clone());
                self.begin(&started);
            }
            Event::Step(metrics) => self.step(&metrics),
            Event::Validation(metrics) => {
                let (total, clips) = (&metrics.evaluation.total, metrics.evaluation.clips);
                self.console.line(&format!(
                    "step {}  mIoU {}  IoU {}  on {clips} held-out clips in {:.1} s{}",
                    thousands(metrics.step.into()),
                    percent(total.miou),
                    percent(total.iou),
                    metrics.seconds,
                    if metrics.is_best { ", the best so far" } else { "" }
                ));
            }
            Event::Checkpoint { path, .. } => {
                self.console.line(&format!("saved {}", path.display()));
                self.saved = Some(path);
            }
            Event::Paused(true) => self.console.line("paused"),
            Event::Paused(false) => self.console.line("going on"),
            Event::Warning(text) => self.console.warn(&text),
            Event::Recovered { step, why } => {
                self.console.warn(&format!("{why}; the adapter was opened again and the run goes on from step {step}"));
                self.console.begin(step.into(), self.config.train.steps as u64);
            }
            Event::Reconstruction(_)
            | Event::Decoded(_)
            | Event::Memory { .. }
            | Event::Showing(_)
            | Event::Finished(_)
            | Event::Failed(_) => {}
        }
    }

    fn begin(&self, started: &Started) {
        let [x, y, z] = started.size;
        let config = &self.config;
        self.console.line(&started.data);
        self.console.line(&format!(
            "{} on {}: {} parameters, T = {}, batch {}, grid {x}x{y}x{z}, {} planned",
            config.train.preset.name(),
            started.adapter,
            thousands(started.parameters as u64),
            config.data.frames,
            dry_run::clips_of_a_step(config.train.batch, config.train.accumulate),
            bytes(started.peak_bytes as u64),
        ));
        self.console.line(&format!(
            "steps {} to {}, {} clips to train on, {} held out; run folder {}",
            thousands(started.step.into()),
            thousands(started.steps.into()),
            thousands(started.train_clips as u64),
            started.validation_clips,
            started.folder.display()
        ));
        self.console.begin(started.step.into(), started.steps.into());
    }

    fn step(&mut self, metrics: &StepMetrics) {
        let StepMetrics { step, loss, cross_entropy, lovasz, terms, learning_rate, steps_per_sec, .. } = *metrics;
        let own: String = terms.iter().map(|(term, value)| format!(", {} {value:.3}", term.name)).collect();
        let parts = format!("loss {loss:.4} (ce {cross_entropy:.4}, lovasz {lovasz:.4}{own})");
        self.console.advance(step.into(), parts.clone());
        let steps = self.config.train.steps;
        let due = self.first || (step as usize).is_multiple_of(self.config.train.log_every) || step as usize == steps;
        self.first = false;
        if due && !self.console.has_bar() {
            let left = (steps as f64 - f64::from(step)) / steps_per_sec;
            self.console.line(&format!(
                "step {}/{}  {parts}  lr {learning_rate:.1e}  {steps_per_sec:.2} steps/s  {} left",
                thousands(step.into()),
                thousands(steps as u64),
                duration(left)
            ));
        }
    }

    fn finish(&self, finished: &Finished, signal: Option<i32>) -> Result<()> {
        let saved = match &finished.checkpoint {
            Some(path) => format!("saved {}", path.display()),
            None => "nothing new to save".into(),
        };
        if let (Some(signal), true) = (signal, finished.stopped) {
            let saved = match self.way_on() {
                Some(way_on) => format!("{saved}; {way_on}"),
                None => "nothing had begun and nothing was written".into(),
            };
            return Err(Error::Interrupted { signal, saved });
        }
        let best = finished.best.map_or(String::new(), |best| {
            format!(", best mIoU {} at step {}", percent(Some(best.miou)), thousands(best.step.into()))
        });
        self.console.line(&format!("done: {} steps{best}; {saved}", thousands(finished.step.into())));
        if let Some(folder) = &self.folder {
            self.console.line(&format!("next: sep4d eval {0}, sep4d render {0}", shell_quoted(folder)));
        }
        Ok(())
    }
}
