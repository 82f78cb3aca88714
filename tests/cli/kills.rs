//! A run that is killed, or told to end twice within a moment, at random times, and begun again as a queue would: it goes on
//! from a whole checkpoint that is no older than the last one announced, and what it was told to save is saved.
//!
//! `SEP4D_KILLS=1000 cargo test --release --test cli kills` tries more often than the test suite does.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sep4d::rng::philox;
use sep4d::train::checkpoint::CheckpointFolder;

use crate::common;

/// Trials in the test suite.
const FEW: usize = 50;
/// Runs side by side.
const WORKERS: usize = 2;
/// So often one run is killed before another is begun.
const LIVES: usize = 25;
/// Longest time before the first signal: from the start, and from the first checkpoint.
const EARLY: Duration = Duration::from_millis(1500);
const LATE: Duration = Duration::from_millis(250);
/// Longest time between two stop signals.
const APART: Duration = Duration::from_millis(200);

/// Random numbers of a trial.
struct Dice {
    trial: u32,
    drawn: u32,
}

impl Dice {
    fn below(&mut self, end: u32) -> u32 {
        self.drawn += 1;
        philox([self.trial, self.drawn, 0, 0], [0x4B11, 0])[0] % end
    }

    fn time_up_to(&mut self, longest: Duration) -> Duration {
        Duration::from_micros(self.below(longest.as_micros() as u32).into())
    }
}

/// What one life of a run said and how it ended.
#[derive(Debug, Default)]
struct Life {
    signals: Vec<Signal>,
    lines: Vec<String>,
    error: String,
    code: Option<i32>,
    killed_by: Option<i32>,
}

fn sep4d(town: &Path, run: &Path, more: &[&str]) -> Command {
    // What starts the tests may ignore signals, as `nohup` does, and the program respects that.
    let mut command = Command::new("env");
    command.args(["--default-signal", env!("CARGO_BIN_EXE_sep4d")]);
    command.args(["--train", "--preset", "tiny", "--resume-or-start"]).arg("--data").arg(town).arg("--output").arg(run);
    for setting in ["checkpoint_every=2", "validate_every=5", "log_every=1"] {
        command.args(["--set", &format!("train.{setting}")]);
    }
    command.args(["--set", "data.validation_clips=1"]).args(more);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Reads the child's lines while it runs.
fn listen(child: &mut Child) -> Receiver<String> {
    let (sender, lines) = channel();
    let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
    std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

/// Starts the run and ends it by one kill or two stop signals.
fn live(town: &Path, run: &Path, dice: &mut Dice) -> Life {
    let mut child = sep4d(town, run, &["--set", "train.steps=1000000"]).spawn().expect("the program starts");
    let lines = listen(&mut child);
    let mut life = Life::default();
    if dice.below(2) == 0 {
        std::thread::sleep(dice.time_up_to(EARLY));
    } else {
        for line in lines.iter() {
            let saved = line.starts_with("saved");
            life.lines.push(line);
            if saved {
                break;
            }
        }
        std::thread::sleep(dice.time_up_to(LATE));
    }
    let stops = [Signal::TERM, Signal::INT, Signal::HUP];
    life.signals = match dice.below(2) {
        0 => vec![Signal::KILL],
        _ => (0..2).map(|_| stops[dice.below(3) as usize]).collect(),
    };
    let id = Pid::from_child(&child);
    for (i, &signal) in life.signals.iter().enumerate() {
        if i > 0 {
            std::thread::sleep(dice.time_up_to(APART));
        }
        // It may have ended after the first already; it is not waited for yet, so the number is no other process's.
        kill_process(id, signal).expect("the child is ours");
    }
    life.lines.extend(lines.iter());
    let output = child.wait_with_output().expect("the child ends");
    life.error = String::from_utf8_lossy(&output.stderr).into_owned();
    (life.code, life.killed_by) = (output.status.code(), output.status.signal());
    life
}

/// The number that follows `words` in a line.
fn number_after(line: &str, words: &str) -> Option<u32> {
    let digits: String = line
        .strip_prefix(words)?
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == ',')
        .filter(|c| *c != ',')
        .collect();
    digits.parse().ok()
}

/// The step of the checkpoint that a text names.
fn saved_step(text: &str) -> Option<u32> {
    let (_, name) = text.rsplit_once("step-")?;
    name.get(..8)?.parse().ok()
}

fn newest(run: &Path) -> Result<u32, String> {
    let newest = CheckpointFolder::new(run.join("checkpoints")).latest();
    match newest {
        Ok(newest) if newest.passed_over.is_empty() => Ok(newest.found.map_or(0, |(_, last)| last.state.steps)),
        Ok(newest) => Err(newest.passed_over.join("; ")),
        // It was ended before it had a folder.
        Err(_) if !run.join("config.toml").exists() => Ok(0),
        Err(why) => Err(why.to_string()),
    }
}

/// Judges a life; `announced` is the newest step that was said to be saved, in this life or before.
fn judge(life: &Life, run: &Path, announced: &mut u32) -> Result<(), String> {
    if let Some(from) = life.lines.iter().find_map(|line| number_after(line, "steps "))
        && from < *announced
    {
        return Err(format!("it went on from step {from}, though {announced} was saved"));
    }
    let said = life.lines.iter().filter(|line| line.starts_with("saved ")).filter_map(|line| saved_step(line)).max();
    *announced = said.unwrap_or(0).max(*announced);
    let have = newest(run)?;
    if have < *announced {
        return Err(format!("step {announced} was saved, but the newest is {have}"));
    }
    if life.signals == [Signal::KILL] {
        return if life.killed_by == Some(9) { Ok(()) } else { Err("it did not die of SIGKILL".into()) };
    }
    if life.code.is_none() {
        // Before it has made itself known to the system, a signal does what it always does.
        let begun = life.lines.iter().any(|line| line.starts_with("reading") || line.starts_with("saved"));
        return if begun { Err(format!("it died of signal {:?}", life.killed_by)) } else { Ok(()) };
    }
    if life.code != Some(128 + life.signals[0].as_raw()) && life.code != Some(128 + life.signals[1].as_raw()) {
        return Err(format!("it ended with the exit code {:?}", life.code));
    }
    if life.error.lines().filter(|line| line.starts_with("error: stopped by signal")).count() != 1 {
        return Err("it did not say once that it was stopped".into());
    }
    // No step that was told is lost: all that was done before the signal is saved.
    let told = life.lines.iter().filter_map(|line| number_after(line, "step ")).max().unwrap_or(0);
    if have < told {
        return Err(format!("step {told} was done, but the newest checkpoint is of step {have}"));
    }
    Ok(())
}

/// One more start goes to its end and leaves no file of a save that was cut off.
fn finish(town: &Path, run: &Path) -> Result<(), String> {
    let steps = format!("train.steps={}", newest(run)? + 3);
    let output = sep4d(town, run, &["--set", &steps]).output().expect("the program starts");
    if !output.status.success() {
        return Err(format!("it does not come to its end: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let left: Vec<PathBuf> = [run.to_path_buf(), run.join("checkpoints")]
        .iter()
        .flat_map(|folder| fs::read_dir(folder).into_iter().flatten().map_while(Result::ok))
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".step")))
        .collect();
    if left.is_empty() { Ok(()) } else { Err(format!("it leaves {left:?}")) }
}

#[test]
fn killed_or_stopped_twice_at_any_moment_nothing_announced_is_lost() {
    let trials = std::env::var("SEP4D_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(FEW);
    let dir = tempfile::tempdir().unwrap();
    let town = common::town(dir.path());
    let (next, failures, ends) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Mutex::new([0; 3]));
    let work = |worker: usize| {
        let mut begun = 0;
        while next.load(Ordering::Relaxed) < trials {
            let run = dir.path().join(format!("run-{worker}-{begun}"));
            begun += 1;
            let mut announced = 0;
            for _ in 0..LIVES {
                let trial = next.fetch_add(1, Ordering::Relaxed);
                if trial >= trials {
                    break;
                }
                let life = live(&town, &run, &mut Dice { trial: trial as u32, drawn: 0 });
                let end = if life.killed_by == Some(9) { 0 } else { 1 + usize::from(life.lines.is_empty()) };
                ends.lock().unwrap()[end] += 1;
                if let Err(why) = judge(&life, &run, &mut announced) {
                    failures.lock().unwrap().push(format!("trial {trial}: {why}\n{life:#?}"));
                    break;
                }
            }
            if let Err(why) = finish(&town, &run) {
                failures.lock().unwrap().push(format!("run {worker}-{begun}: {why}"));
            }
            fs::remove_dir_all(&run).unwrap();
        }
    };
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            scope.spawn(move || work(worker));
        }
    });
    let (failures, [killed, stopped, early]) = (failures.into_inner().unwrap(), ends.into_inner().unwrap());
    println!("{trials} trials: {killed} killed, {stopped} stopped, {early} stopped before they said a word");
    assert!(failures.is_empty(), "{} of {trials} trials failed:\n{}", failures.len(), failures.join("\n"));
}
