//! Faults of the device at every place where it is asked for something: while a run is prepared, trained, validated, saved, looked
//! at and resumed, and while a model is shown.
//!
//! A trial has the n-th thing fail that is asked for. It passes if the work ends as if nothing had happened, or with one
//! sentence and the exit code of its cause, and if the run, begun again or resumed, then ends in the very files that a run
//! without faults has. `cargo test` tries a share; `SEP4D_FAULTS=1000 cargo test --release --lib device_faults` tries up to so
//! many of each stage and kind.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::*;
use super::{config, curve};
use crate::gpu::faults::{Fault, Faults};
use crate::train::checkpoint::Checkpoint;
use crate::train::events::{DecodeRequest, Likely};
use crate::train::run_folder::RunFolder;

const KINDS: [Fault; 3] = [Fault::Loss, Fault::Memory, Fault::Refusal];

/// What is asked of a trainer, and where a trial of it begins.
struct Stage {
    name: &'static str,
    config: RunConfig,
    task: Task,
    /// The run folder as it is before, if there is one.
    before: Option<PathBuf>,
}

/// What came of it.
#[derive(Debug)]
struct Outcome {
    end: Result<()>,
    /// What was looked at: after how many steps, and what the model made of it.
    seen: Vec<(u32, Vec<Likely>)>,
}

/// Runs a trainer whose devices have `faults`, if any. It is asked for a reconstruction and what its latents decode to.
fn run(stage: &Stage, folder: &Path, faults: Option<Arc<Faults>>) -> Outcome {
    let (sender, commands) = sync_channel(COMMANDS);
    let (events, receiver) = sync_channel(EVENTS);
    let request = Request {
        config: stage.config.clone(),
        place: Place::At(folder.to_path_buf()),
        task: stage.task.clone(),
        background: false,
        command_line: vec![],
        wake: None,
    };
    let thread = std::thread::spawn(move || {
        if let Some(faults) = faults {
            faults.enter();
        }
        work(request, Port { commands, pending: VecDeque::new(), events, wake: None, closed: false });
    });
    let shows = matches!(stage.task, Task::Show { .. });
    let ask = |command| assert!(sender.try_send(command).is_ok());
    let mut seen = Vec::new();
    ask(Command::Reconstruct { clip: 0 });
    if shows {
        ask(Command::Validate);
    }
    let end = loop {
        match receiver.recv_timeout(Duration::from_secs(600)) {
            Ok(Event::Reconstruction(clip)) => {
                let latents = clip.latents.iter().map(|latent| latent.mu.clone()).collect();
                if shows {
                    ask(Command::Decode(Arc::new(DecodeRequest { id: 1, latents })));
                }
                seen.push((clip.step, clip.likely));
            }
            Ok(Event::Decoded(_)) if shows => ask(Command::Stop),
            // What was asked of the lost device is not answered.
            Ok(Event::Recovered { .. }) if shows => {
                ask(Command::Reconstruct { clip: 0 });
            }
            Ok(Event::Failed(why)) => break Err(why),
            Ok(Event::Finished(_)) => break Ok(()),
            Ok(_) => {}
            Err(why) => panic!("{}: the trainer ended without a word: {why}", stage.name),
        }
    };
    thread.join().unwrap();
    Outcome { end, seen }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

/// The names of all files of a run.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path)
            } else {
                files.push(path.strip_prefix(folder).unwrap().to_path_buf())
            }
        }
    }
    files.sort();
    files
}

/// What a finished run amounts to: its files' names, its newest checkpoint, its curves.
fn result(folder: &Path) -> (Vec<PathBuf>, Checkpoint, Vec<String>) {
    let newest = RunFolder::open(folder).unwrap().checkpoints().latest().unwrap();
    assert!(newest.passed_over.is_empty(), "{:?}", newest.passed_over);
    (files(folder), newest.found.unwrap().1, curve(folder))
}

/// Why the error that ended a trial is not what a user should get, if so.
fn objection(why: &Error, fault: Fault) -> Option<String> {
    let text = why.to_string();
    let codes: &[i32] = if fault == Fault::Memory { &[4, 5] } else { &[4] };
    let is_sentence = !text.contains('\n') && !text.contains("panicked") && text.len() < 600;
    (!codes.contains(&why.exit_code()) || !is_sentence).then(|| format!("exit code {}: {text}", why.exit_code()))
}

/// Tries up to `most` places of each kind of fault; what went wrong.
fn campaign(stage: &Stage, scratch: &Path, most: usize) -> Vec<String> {
    let place = |name: &str| {
        let folder = scratch.join(name);
        let _ = fs::remove_dir_all(&folder);
        if let Some(before) = &stage.before {
            copy(before, &folder);
        }
        folder
    };
    let trains = matches!(stage.task, Task::Train { .. });
    let whole = place("whole");
    let counted = Faults::new(Fault::Loss, 0);
    let expected = run(stage, &whole, Some(counted.clone()));
    assert!(expected.end.is_ok(), "{:?}", expected.end);
    let wanted = trains.then(|| result(&whole));
    let mut wrong = Vec::new();
    for fault in KINDS {
        let places = counted.places(fault);
        let (mut ended, mut endured) = (0, 0);
        for trial in 0..most.min(places) {
            let at = 1 + (trial * places + places / 2) / most.min(places);
            let folder = place("trial");
            let mut fail = |why: String| wrong.push(format!("{}, {fault:?} at {at} of {places}: {why}", stage.name));
            let outcome = run(stage, &folder, Some(Faults::new(fault, at)));
            if let Err(why) = &outcome.end {
                ended += 1;
                objection(why, fault).into_iter().for_each(&mut fail);
            } else {
                endured += 1;
                if !outcome.seen.iter().all(|clip| expected.seen.contains(clip)) || outcome.seen.is_empty() {
                    fail("another reconstruction".into());
                }
            }
            let Some(wanted) = &wanted else { continue };
            if outcome.end.is_err() {
                let resume = RunFolder::open(&folder).is_ok();
                if !resume && folder.exists() && fs::read_dir(&folder).unwrap().next().is_some() {
                    fail("something was left of a run that had not begun".into());
                }
                let again = Stage {
                    name: stage.name,
                    config: stage.config.clone(),
                    task: Task::Train { resume },
                    before: None,
                };
                if let Err(why) = run(&again, &folder, None).end {
                    fail(format!("it does not go on: {why}"));
                    continue;
                }
            }
            if result(&folder) != *wanted {
                fail("it ends in another state".into());
            }
        }
        println!("{}, {fault:?}: {places} places, {endured} endured, {ended} ended with a sentence", stage.name);
    }
    wrong
}

#[test]
fn device_faults_anywhere_cost_nothing_that_was_there() {
    let most = std::env::var("SEP4D_FAULTS").ok().map_or(2, |most| most.parse().unwrap());
    let scratch = tempfile::tempdir().unwrap();
    let mut config = config(scratch.path());
    (config.train.steps, config.train.validate_every, config.train.checkpoint_every) = (2, 2, 1);
    config.train.log_every = 1;
    config.data.validation_clips = 1;
    let begin = Stage { name: "train", config: config.clone(), task: Task::Train { resume: false }, before: None };
    let mut wrong = campaign(&begin, scratch.path(), most);
    let before = scratch.path().join("before");
    fs::rename(scratch.path().join("whole"), &before).unwrap();
    let checkpoint = RunFolder::open(&before).unwrap().checkpoints().latest().unwrap().found.unwrap().0;
    let (before, shown) = (Some(before), Task::Show { checkpoint });
    let shown = Stage { name: "show", config: config.clone(), task: shown, before: None };
    wrong.extend(campaign(&shown, scratch.path(), most));
    (config.train.steps, config.train.validate_every) = (4, 4);
    let resumed = Stage { name: "resume", config, task: Task::Train { resume: true }, before };
    wrong.extend(campaign(&resumed, scratch.path(), most));
    assert!(wrong.is_empty(), "{wrong:#?}");
}
