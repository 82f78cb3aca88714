//! The trainer as a library: commands, events, and runs that go on bit for bit.

use std::fs;
use std::path::Path;
use std::time::Duration;

use sep4d::gpu::{Context, DeviceChoice};
use sep4d::train::checkpoint::{Checkpoint, CheckpointFolder, Index};
use sep4d::train::config::{Preset, RunConfig};
use sep4d::train::events::{Command, Event, Finished};
use sep4d::train::metrics::Confusion;
use sep4d::train::run_folder::{Row, RunFolder};
use sep4d::train::session::Precision;
use sep4d::train::trainer::{Task, Trainer};

use crate::common;
use crate::driving::{self, wait};

fn config(root: &Path) -> RunConfig {
    let mut config = RunConfig::preset(Preset::Tiny, None);
    config.data.root = root.to_path_buf();
    config.data.augment = true;
    config.data.validation_clips = 2;
    config.train.validate_every = 20;
    config.train.checkpoint_every = 20;
    config.train.keep_last = 5;
    config
}

fn start(config: &RunConfig, folder: &Path, resume: bool) -> Trainer {
    driving::start(config, folder, Task::Train { resume }, false)
}

fn finished(trainer: &Trainer) -> Finished {
    wait(trainer, |event| if let Event::Finished(finished) = event { Some(finished.clone()) } else { None })
}

fn checkpoint(folder: &Path, step: u32) -> Checkpoint {
    Checkpoint::load(&folder.join(format!("checkpoints/step-{step:08}.safetensors"))).expect("the checkpoint is whole")
}

/// Losses and scores without the times that they took.
fn curve(folder: &Path) -> Vec<(u32, String)> {
    let rows = RunFolder::open(folder).and_then(|folder| folder.metrics()).expect("the run has metrics");
    rows.into_iter()
        .map(|row| match row {
            Row::Step(m) => (m.step, format!("{} {} {} {}", m.loss, m.gradient_norm, m.terms.csv(), m.learning_rate)),
            Row::Validation(m) => (m.step, format!("{:?}", m.evaluation)),
        })
        .collect()
}

#[test]
fn a_resumed_run_is_the_run_that_was_never_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&common::town(dir.path()));
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    let end = finished(&start(&config, &whole, false));
    assert_eq!((end.step, end.stopped), (40, false));
    assert!(end.best.is_some());

    // The same run as it was after 20 steps: without what came later, but with metrics from beyond the checkpoint.
    fs::create_dir_all(parts.join("checkpoints")).unwrap();
    for name in ["config.toml", "metrics.jsonl", "metrics.csv"] {
        fs::copy(whole.join(name), parts.join(name)).unwrap();
    }
    for suffix in ["safetensors", "optim.safetensors"] {
        let name = format!("checkpoints/step-00000020.{suffix}");
        fs::copy(whole.join(&name), parts.join(&name)).unwrap();
    }
    let trainer = start(&config, &parts, true);
    let begin = wait(&trainer, |event| if let Event::Started(started) = event { Some(started.step) } else { None });
    assert_eq!(begin, 20);
    finished(&trainer);
    assert_eq!(checkpoint(&parts, 40), checkpoint(&whole, 40));
    assert_eq!(curve(&parts), curve(&whole));
}

#[test]
fn a_run_that_was_stopped_anywhere_ends_the_same() {
    stopped_ends_the_same(|_| {});
}

#[test]
fn a_run_of_several_batches_a_step_and_their_average_that_was_stopped_anywhere_ends_the_same() {
    stopped_ends_the_same(|config| (config.train.accumulate, config.train.ema) = (3, 0.9));
}

#[test]
fn a_run_of_aligned_frames_that_was_stopped_anywhere_ends_the_same() {
    stopped_ends_the_same(|config| {
        let wide = [("model.features", 6), ("model.margin", 1)];
        let model = config.model.clone().with(&wide).and_then(|model| model.with_choice("model.align", "pose"));
        config.model = model.expect("the model has these keys");
    });
}

#[test]
fn a_run_in_f16_that_was_stopped_anywhere_ends_the_same() {
    if Context::open(&DeviceChoice::Best).expect("there is an adapter").limits().has_f16 {
        stopped_ends_the_same(|config| config.train.precision = Precision::F16);
    }
}

fn stopped_ends_the_same(change: impl FnOnce(&mut RunConfig)) {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let mut config = config(&common::town(dir.path()));
    change(&mut config);
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    finished(&start(&config, &whole, false));

    let trainer = start(&config, &parts, false);
    assert!(trainer.send(Command::Pause));
    wait(&trainer, |event| matches!(event, Event::Paused(true)).then_some(()));
    for _ in 0..3 {
        trainer.send(Command::Step);
        wait(&trainer, |event| matches!(event, Event::Paused(true)).then_some(()));
    }
    trainer.send(Command::Stop);
    let end = finished(&trainer);
    assert_eq!((end.step, end.stopped), (3, true));
    drop(trainer);

    finished(&start(&config, &parts, true));
    assert_eq!(checkpoint(&parts, 40), checkpoint(&whole, 40));
}

#[test]
fn commands_are_obeyed_between_steps() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&common::town(dir.path()));
    let folder = dir.path().join("run");
    let trainer = start(&config, &folder, false);
    trainer.send(Command::Pause);
    trainer.send(Command::Save);
    let saved = wait(&trainer, |event| if let Event::Checkpoint { step, .. } = event { Some(*step) } else { None });
    assert_eq!(saved, 0);
    trainer.send(Command::Validate);
    let scores = wait(&trainer, |event| if let Event::Validation(m) = event { Some(m.clone()) } else { None });
    assert_eq!((scores.step, scores.evaluation.clips, scores.evaluation.per_frame.len()), (0, 2, 2));
    trainer.send(Command::Reconstruct { clip: 1 });
    let clip = wait(&trainer, |event| if let Event::Reconstruction(clip) = event { Some(clip.clone()) } else { None });
    let voxels = clip.size.iter().product::<usize>() * clip.frames;
    assert_eq!((clip.clip, clip.truth.len(), clip.labels.len(), clip.observed.len()), (1, voxels, voxels, voxels));
    // The labels, counted here, give the scores that the device counted.
    for (t, expected) in clip.scores.iter().enumerate() {
        let frame = t * voxels / clip.frames..(t + 1) * voxels / clip.frames;
        let mut counts = vec![0; 11 * 11];
        for i in frame.filter(|&i| clip.observed[i]) {
            counts[usize::from(clip.truth[i]) * 11 + usize::from(clip.labels[i])] += 1;
        }
        let mut confusion = Confusion::new(11);
        confusion.add(&counts);
        assert_eq!(&confusion.scores(), expected, "frame {t}");
    }
    trainer.send(Command::Reconstruct { clip: 1000 });
    let warning = wait(&trainer, |event| if let Event::Warning(text) = event { Some(text.clone()) } else { None });
    assert!(warning.contains("no clip 1000"), "{warning}");
    // Dropping the trainer stops it, and it saves first.
    trainer.send(Command::Step);
    wait(&trainer, |event| matches!(event, Event::Paused(true)).then_some(()));
    drop(trainer);
    assert_eq!(checkpoint(&folder, 1).state.steps, 1);
}

#[test]
fn a_run_of_another_model_is_not_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&common::town(dir.path()));
    config.train.steps = 1;
    let folder = dir.path().join("run");
    finished(&start(&config, &folder, false));
    config.train.steps = 2;
    config.model = config.model.clone().with(&[("model.hidden", 16)]).unwrap();
    let trainer = start(&config, &folder, true);
    let why = loop {
        if let Some(Event::Failed(why)) = trainer.next_event(Duration::from_secs(60)).unwrap() {
            break why;
        }
    };
    assert_eq!(why.exit_code(), 3);
    assert!(why.to_string().contains("but the model needs"), "{why}");
}

#[test]
fn a_run_that_only_makes_nan_ends_with_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&common::town(dir.path()));
    config.train.steps = 1;
    config.train.max_skipped = 3;
    let folder = dir.path().join("run");
    finished(&start(&config, &folder, false));
    let mut poisoned = checkpoint(&folder, 1);
    // Log-variances of 200: their exponential is infinite in f32, and so is the KL divergence.
    let bias = poisoned.state.parameters.iter_mut().find(|p| p.name == "distributions.xy.out.bias").unwrap();
    bias.values.fill(200.0);
    CheckpointFolder::new(folder.join("checkpoints")).save(&poisoned, &Index::default()).unwrap();

    config.train.steps = 40;
    let trainer = start(&config, &folder, true);
    let mut warnings = 0;
    let why = loop {
        match trainer.next_event(Duration::from_secs(60)).unwrap() {
            Some(Event::Failed(why)) => break why,
            Some(Event::Finished(end)) => panic!("it should have failed: {end:?}"),
            Some(Event::Warning(_)) => warnings += 1,
            _ => {}
        }
    };
    assert_eq!(why.exit_code(), 6, "{why}");
    assert!(warnings > 0 && why.to_string().contains("train.learning_rate"), "{warnings}: {why}");
    // Nothing can go on from there, and nothing is before it.
    assert!(why.to_string().contains("go on from the beginning"), "{why}");
    assert!(folder.join("checkpoints/step-00000001.unusable.safetensors").is_file());
}
