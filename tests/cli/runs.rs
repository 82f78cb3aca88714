//! What keeps a run from being lost: signals, one writer a folder, states that are worth keeping, jobs that are queued again.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use sep4d::data::Split;
use sep4d::data::synth::{self, Level, SynthOptions};
use sep4d::train::checkpoint::{Checkpoint, CheckpointFolder};
use sep4d::train::run_folder::{Row, RunFolder};
use tempfile::TempDir;

use crate::common;

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sep4d"));
    common::heeding_signals(&mut command).args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Options of a small run on `town` in `out`, with `key=value` pairs.
fn train<'a>(town: &'a Path, out: &'a Path, set: &[&'a str]) -> Vec<&'a str> {
    let [town, out] = [town, out].map(|path| path.to_str().expect("temporary paths are text"));
    let mut args = vec!["--train", "--preset", "tiny", "--data", town, "--output", out];
    args.extend(set.iter().flat_map(|pair| ["--set", pair]));
    args
}

/// What endless training needs beside that.
const ENDLESS: [&str; 2] = ["train.steps=1000000", "train.validate_every=0"];

/// The exit code, and all that was printed.
fn outcome(output: &Output) -> (Option<i32>, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

fn run(args: &[&str]) -> (Option<i32>, String) {
    outcome(&program(args).output().expect("the program starts"))
}

/// Reads the child's lines until one contains `words`.
fn await_line(child: &mut Child, words: &str) {
    let stdout = child.stdout.as_mut().expect("stdout is piped");
    let found = BufReader::new(stdout).lines().map_while(Result::ok).any(|line| line.contains(words));
    assert!(found, "it ended before it said {words}");
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status();
    assert!(status.expect("kill is there").success());
}

fn newest(run: &Path) -> Checkpoint {
    let newest = CheckpointFolder::new(run.join("checkpoints")).latest().expect("a checkpoint is whole");
    newest.found.expect("there is a checkpoint").1
}

fn town() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let town = common::town(dir.path());
    (dir, town)
}

/// Puts `byte` into every byte of the files with this extension in the split.
fn fill(town: &Path, split: &str, extension: &str, byte: u8) {
    for sequence in fs::read_dir(town.join("Cartesian").join(split)).unwrap() {
        for file in fs::read_dir(sequence.unwrap().path().join("cartesian/evaluation")).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|found| found == extension) {
                fs::write(&path, vec![byte; fs::metadata(&path).unwrap().len() as usize]).unwrap();
            }
        }
    }
}

#[test]
fn whatever_asks_it_to_end_however_often_at_once_saves_and_says_what() {
    let (dir, town) = town();
    for (first, second, code) in
        [("TERM", "TERM", 143), ("INT", "TERM", 130), ("HUP", "HUP", 129), ("XCPU", "HUP", 152)]
    {
        let out = dir.path().join(format!("{first}-{second}"));
        let mut child = program(&train(&town, &out, &ENDLESS)).spawn().unwrap();
        await_line(&mut child, "step 1/");
        signal(&child, first);
        std::thread::sleep(Duration::from_millis(10));
        // It may have ended already.
        let _ =
            Command::new("kill").args([format!("-{second}"), child.id().to_string()]).stderr(Stdio::null()).status();
        let (found, text) = outcome(&child.wait_with_output().unwrap());
        assert!(found == Some(code) || found == Some(143) || found == Some(129), "{first}: {found:?} {text}");
        let state = newest(&out).state;
        assert!(text.contains(&format!("step-{:08}.safetensors", state.steps)) && text.contains("--resume"), "{text}");
    }
}

#[test]
fn a_hangup_that_is_to_be_ignored_is_and_usr2_saves_and_goes_on() {
    let (dir, town) = town();
    let out = dir.path().join("run");
    let mut nohup = Command::new("nohup");
    let mut child = nohup
        .arg(env!("CARGO_BIN_EXE_sep4d"))
        .args(train(&town, &out, &ENDLESS))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    await_line(&mut child, "step 1/");
    for name in ["HUP", "USR2"] {
        signal(&child, name);
        std::thread::sleep(Duration::from_millis(50));
    }
    await_line(&mut child, "saved");
    let before = newest(&out).state.steps;
    signal(&child, "USR1");
    await_line(&mut child, "saved");
    assert!(newest(&out).state.steps > before);
    signal(&child, "TERM");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(143));
}

#[test]
fn a_run_folder_has_one_writer_and_any_number_of_readers() {
    let (dir, town) = town();
    let out = dir.path().join("run");
    let path = out.to_str().unwrap();
    let mut first =
        program(&train(&town, &out, &[ENDLESS[0], ENDLESS[1], "train.checkpoint_every=1"])).spawn().unwrap();
    await_line(&mut first, "saved");
    let (code, text) = run(&["--train", "--resume", path]);
    assert_eq!(code, Some(7), "{text}");
    assert!(text.contains(&format!("process {} on ", first.id())) && text.lines().count() == 1, "{text}");
    let (code, text) = run(&["eval", path, "--checkpoint", "last", "--clips", "1", "--split", "val"]);
    assert_eq!(code, Some(0), "{text}");
    // The lock of a process that was killed is none, and what it was writing is cleared away.
    first.kill().unwrap();
    first.wait().unwrap();
    let leftover = out.join("checkpoints/.step-00000001.safetensors.Ab3dE9");
    fs::write(&leftover, "half a checkpoint").unwrap();
    let last = newest(&out).state.steps;
    let steps = format!("train.steps={}", last + 1);
    let (code, text) = run(&["--train", "--resume", path, "--set", &steps]);
    assert_eq!((code, newest(&out).state.steps), (Some(0), last + 1), "{text}");
    assert!(!leftover.exists() && !out.join("writer.lock").exists());
}

#[test]
fn runs_that_start_together_get_a_folder_each() {
    let (dir, town) = town();
    let args = ["--train", "--preset", "tiny", "--data", town.to_str().unwrap(), "--set", "train.steps=1"];
    let children: Vec<Child> = (0..3).map(|_| program(&args).current_dir(dir.path()).spawn().unwrap()).collect();
    for child in children {
        let (code, text) = outcome(&child.wait_with_output().unwrap());
        assert_eq!(code, Some(0), "{text}");
    }
    for number in 1..=3 {
        let run = dir.path().join(format!("runs/tiny-t2-{number:03}"));
        assert_eq!(newest(&run).state.steps, 1);
        let dir = RunFolder::open(&run).unwrap().config().unwrap().output.dir;
        assert!(dir.ends_with(run.file_name().unwrap()), "{}", dir.display());
    }
}

#[test]
fn one_command_begins_a_run_and_goes_on_with_it_to_the_bit() {
    let (dir, town) = town();
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    let set = ["train.checkpoint_every=1", "train.log_every=1"];
    let again = |out| [train(&town, out, &set), vec!["--resume-or-start"]].concat();
    assert_eq!(run(&again(&whole)).0, Some(0));
    let mut first = program(&again(&parts)).spawn().unwrap();
    await_line(&mut first, "saved");
    first.kill().unwrap();
    first.wait().unwrap();
    let (code, text) = run(&again(&parts));
    assert!(code == Some(0) && !text.contains("steps 0 to"), "{text}");
    let [a, b] = [&whole, &parts].map(|run| newest(run));
    assert_eq!((a.state, a.cursor), (b.state, b.cursor));
    // A run that is at its end stays as it is, and the time that it took is counted through.
    assert_eq!(run(&again(&parts)).0, Some(0));
    let rows = RunFolder::open(&parts).unwrap().metrics().unwrap();
    let times: Vec<f64> =
        rows.iter().filter_map(|row| if let Row::Step(m) = row { Some(m.elapsed_secs) } else { None }).collect();
    assert!(times.len() == 40 && times.is_sorted(), "{times:?}");
    let (code, text) = run(&[again(&parts), vec!["--seed", "5"]].concat());
    assert!(code == Some(2) && text.contains("train.seed cannot change"), "{text}");
    let (code, text) = run(&["--train", "--resume-or-start"]);
    assert!(code == Some(2) && text.contains("--output"), "{text}");
}

#[test]
fn without_a_score_no_model_is_the_best() {
    for (split, extension, why) in [("Val", "bin", "was observed"), ("Val", "label", "nothing but free space")] {
        let (dir, town) = town();
        fill(&town, split, extension, 0);
        let out = dir.path().join("run");
        let set = ["train.steps=4", "train.validate_every=1", "train.checkpoint_every=1"];
        let (code, text) = run(&train(&town, &out, &set));
        assert!(code == Some(0) && !text.contains("the best so far"), "{text}");
        assert_eq!(text.matches("nothing can be scored").count(), 1, "{text}");
        assert!(text.contains(why), "{text}");
        let (_, text) = run(&["eval", out.to_str().unwrap(), "--split", "train", "--clips", "1"]);
        assert!(text.contains("step-00000004"), "{text}");
    }
}

#[test]
fn a_run_that_diverges_keeps_a_state_from_which_a_lower_rate_goes_on() {
    let (dir, town) = town();
    let out = dir.path().join("run");
    let set = ["train.steps=60", "train.checkpoint_every=1", "train.validate_every=0", "train.keep_last=1"];
    assert_eq!(run(&train(&town, &out, &["train.steps=4", set[1], set[2], set[3]])).0, Some(0));
    let path = out.to_str().unwrap();
    // Steps this large leave numbers that nothing recovers from.
    let (code, text) = run(&["--train", "--resume", path, "--set", set[0], "--set", "train.learning_rate=1"]);
    assert_eq!(code, Some(6), "{text}");
    let advice = text.lines().last().unwrap();
    assert!(advice.contains("--set train.learning_rate=1e-1") && !text.contains("the run is kept"), "{text}");
    let kept = newest(&out).state;
    assert!(advice.contains(&format!("go on from step {}", kept.steps)), "{advice} {}", kept.steps);
    assert!(kept.steps >= 4 && kept.skipped == 0, "{}", kept.steps);
    let (code, text) = run(&["--train", "--resume", path, "--set", set[0], "--set", "train.learning_rate=1e-3"]);
    assert_eq!((code, newest(&out).state.steps), (Some(0), 60), "{text}");
}

#[test]
fn scores_on_another_grid_do_not_compete() {
    let (dir, small) = town();
    let grid = synth::grid([20, 20, 4], [1.6, 1.6, 0.75]).unwrap();
    let options = SynthOptions { grid, seed: 3, frames: 6, towns: [1, 1, 1], levels: vec![Level::Light] };
    let large = dir.path().join("large");
    synth::write(&large, &options, |_| {}).unwrap();
    let out = dir.path().join("run");
    let set = ["train.steps=2", "train.validate_every=1", "train.keep_last=1"];
    assert_eq!(run(&train(&small, &out, &set)).0, Some(0));
    let folder = CheckpointFolder::new(out.join("checkpoints"));
    let before = folder.index().unwrap().best.expect("it was scored").step;
    let args =
        ["--train", "--resume", out.to_str().unwrap(), "--data", large.to_str().unwrap(), "--set", "train.steps=6"];
    let (code, text) = run(&args);
    assert!(code == Some(0) && text.contains("20x20x4") && text.contains("no longer the best"), "{text}");
    let index = folder.index().unwrap();
    assert!(index.best.expect("it was scored anew").step > 2 && index.kept == [before], "{index:?}");
    assert!(out.join(format!("checkpoints/step-{before:08}.safetensors")).is_file());
    let (code, text) = run(&["eval", out.to_str().unwrap()]);
    assert_eq!(code, Some(0), "the data that it was resumed with are those to evaluate on: {text}");
    let scored_on = RunFolder::open(&out).unwrap().scored_on().unwrap().unwrap();
    assert_eq!((scored_on.grid.size, scored_on.split), ([20, 20, 4], Split::Val));
}

#[test]
fn a_limit_of_the_size_of_files_is_told() {
    let (dir, town) = town();
    let out = dir.path().join("run");
    // In units of 512 or 1,024 bytes: less than a checkpoint.
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -f 16; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_sep4d")]).args(train(
        &town,
        &out,
        &["train.steps=1"],
    ));
    let (code, text) = outcome(&shell.output().unwrap());
    assert!(code == Some(3) && text.contains("ulimit -f"), "{code:?} {text}");
}
