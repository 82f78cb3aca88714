//! The trainer as a server of pictures: reconstructions, decoded latents, and models that are shown without training.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use sep4d::models::ARCHITECTURES;
use sep4d::train::config::{Preset, RunConfig};
use sep4d::train::events::{Command, DecodeRequest, Event, Preparing, ReconstructedClip};
use sep4d::train::metrics::Confusion;
use sep4d::train::trainer::{Task, Trainer};

use crate::common;
use crate::driving::{start, wait};

/// A tiny run of batches of two clips.
fn config(parent: &Path) -> RunConfig {
    let mut config = RunConfig::preset(Preset::Tiny, None);
    config.data.root = common::town(parent);
    config.data.validation_clips = 3;
    config.train.batch = 2;
    config.train.steps = 4;
    config
}

fn reconstruct(trainer: &Trainer, clip: usize) -> ReconstructedClip {
    assert!(trainer.send(Command::Reconstruct { clip }));
    wait(trainer, |event| if let Event::Reconstruction(clip) = event { Some((**clip).clone()) } else { None })
}

fn warning(trainer: &Trainer, command: Command) -> String {
    assert!(trainer.send(command));
    wait(trainer, |event| if let Event::Warning(why) = event { Some(why.clone()) } else { None })
}

fn means(clip: &ReconstructedClip) -> Vec<Vec<f32>> {
    clip.latents.iter().map(|latent| latent.mu.clone()).collect()
}

/// Every file of a folder with its contents.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => drop(found.insert(path.display().to_string(), std::fs::read(&path).unwrap())),
        }
    }
    found
}

#[test]
fn a_reconstruction_has_all_that_is_to_be_seen_and_its_latents_mean_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let trainer = start(&config(dir.path()), &dir.path().join("run"), Task::Train { resume: false }, false);
    trainer.send(Command::Pause);
    trainer.send(Command::Step);
    let (mut progress, mut planned, mut used) = (Vec::new(), 0, None);
    wait(&trainer, |event| {
        match event {
            Event::Preparing(Preparing { what, done, total, .. }) if *total > 0 => {
                assert!(what.contains("kernels"), "{what}");
                progress.push((*done, *total));
            }
            Event::Memory { planned_bytes, used_bytes } => (planned, used) = (*planned_bytes, *used_bytes),
            Event::Started(started) => {
                assert_eq!((started.grid.size, started.frames), ([16, 16, 4], 2));
                assert_eq!(started.classes.len(), 11);
            }
            _ => {}
        }
        // The second pause comes after the step.
        (matches!(event, Event::Paused(true)) && planned > 0).then_some(())
    });
    let total = progress[0].1;
    assert!(progress[0] == (0, total) && progress.iter().all(|&(_, other)| other == total), "{progress:?}");
    assert!(progress.windows(2).all(|pair| pair[0].0 < pair[1].0), "{progress:?}");
    assert!(used.is_none_or(|used| used >= planned), "{used:?} of {planned}");

    let clip = reconstruct(&trainer, 1);
    let voxels = 16 * 16 * 4;
    assert_eq!((clip.step, clip.clip, clip.frames, clip.size), (1, 1, 2, [16, 16, 4]));
    assert_eq!((clip.times_secs.len(), clip.poses.as_ref().map(Vec::len)), (2, Some(2)));
    assert!(clip.seconds > 0.0);
    let first: Vec<u8> = clip.likely.iter().map(|likely| likely.classes()[0]).collect();
    assert_eq!((first.len(), &first), (2 * voxels, &clip.labels));
    for likely in &clip.likely {
        let [a, b, c] = likely.probabilities();
        assert!(a >= b && b >= c && a > 0.09 && a + b + c <= 1.01 && likely.entropy() <= 1.0, "{likely:?}");
    }
    assert_eq!(clip.confusion.iter().map(Confusion::scores).collect::<Vec<_>>(), clip.scores);
    let names: Vec<&str> = clip.latents.iter().map(|latent| latent.spec.name).collect();
    assert_eq!(names, ["xy", "xz", "yz", "tx", "ty", "tz"]);
    let channels = clip.latents[0].shape[3];
    assert_eq!(clip.latents[1].shape, [1, 8, 2, channels]);
    assert_eq!(clip.latents[5].shape, [1, 2, 2, channels]);
    assert!(
        clip.latents.iter().all(|p| p.mu.len() == p.shape.iter().product::<usize>() && p.logvar.len() == p.mu.len())
    );

    trainer.send(Command::Decode(Arc::new(DecodeRequest { id: 42, latents: means(&clip) })));
    let decoded = wait(&trainer, |event| if let Event::Decoded(clip) = event { Some(clip.clone()) } else { None });
    assert_eq!((decoded.id, decoded.frames, decoded.size), (42, 2, [16, 16, 4]));
    assert!(decoded.labels == clip.labels && decoded.likely == clip.likely);
    // Other planes mean something else.
    let other = means(&clip).iter().map(|plane| plane.iter().map(|v| v + 3.0).collect()).collect();
    trainer.send(Command::Decode(Arc::new(DecodeRequest { id: 43, latents: other })));
    let moved = wait(&trainer, |event| if let Event::Decoded(clip) = event { Some(clip.clone()) } else { None });
    assert!(moved.id == 43 && moved.likely != clip.likely);

    let why = warning(&trainer, Command::Decode(Arc::new(DecodeRequest { id: 44, latents: vec![vec![0.0]] })));
    assert!(why.contains("cannot be decoded"), "{why}");
}

#[test]
fn every_other_model_decodes_its_latents_to_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let others = ARCHITECTURES[1..].iter().map(|other| (other.name, format!("model.architecture={}", other.name)));
    for (name, setting) in others.chain([("aligned", "model.align=pose".to_owned())]) {
        let config = config.with(&[setting]).unwrap();
        let trainer = start(&config, &dir.path().join(name), Task::Train { resume: false }, false);
        trainer.send(Command::Pause);
        trainer.send(Command::Step);
        let clip = reconstruct(&trainer, 1);
        assert!(clip.latents.iter().all(|latent| latent.shape.len() == latent.spec.axes.len() + 2), "{name}");
        trainer.send(Command::Decode(Arc::new(DecodeRequest { id: 7, latents: means(&clip) })));
        let decoded = wait(&trainer, |event| if let Event::Decoded(clip) = event { Some(clip.clone()) } else { None });
        assert!(decoded.labels == clip.labels && decoded.likely == clip.likely, "{name}");
    }
}

#[test]
fn a_validation_tells_which_clip_is_worst() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let trainer = start(&config, &dir.path().join("run"), Task::Train { resume: false }, false);
    trainer.send(Command::Pause);
    trainer.send(Command::Validate);
    let metrics =
        wait(&trainer, |event| if let Event::Validation(metrics) = event { Some(metrics.clone()) } else { None });
    assert_eq!(metrics.confusion.scores(), metrics.evaluation.total);
    let clips: Vec<usize> = metrics.clips.iter().map(|scores| scores.clip).collect();
    assert_eq!(clips, [0, 1, 3]);
    let mut total = Confusion::new(11);
    for scores in &metrics.clips {
        let clip = reconstruct(&trainer, scores.clip);
        assert_eq!(clip.scores, scores.per_frame);
        clip.confusion.iter().for_each(|frame| total.add(frame.counts()));
    }
    assert_eq!(total, metrics.confusion);
}

#[test]
fn a_model_is_shown_as_it_was_trained_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    let folder = dir.path().join("run");
    let trainer = start(&config, &folder, Task::Train { resume: false }, false);
    trainer.send(Command::Reconstruct { clip: 2 });
    let mut last = None;
    let checkpoint = wait(&trainer, |event| {
        match event {
            Event::Reconstruction(clip) => last = Some(clip.clone()),
            Event::Finished(end) => return end.checkpoint.clone(),
            _ => {}
        }
        None
    });
    let trained = last.unwrap();
    assert_eq!(trained.step, 4);
    let before = files(&folder);

    // Elsewhere by now, and asked for by a configuration that knows nothing of the model.
    let moved = dir.path().join("moved");
    std::fs::rename(&config.data.root, &moved).unwrap();
    config = RunConfig::preset(Preset::Demo, None);
    config.data.root = moved;
    let trainer = start(&config, &folder, Task::Show { checkpoint: checkpoint.clone() }, true);
    let showing =
        wait(&trainer, |event| if let Event::Showing(showing) = event { Some(showing.clone()) } else { None });
    assert_eq!((showing.step, showing.clips, showing.frames, showing.grid.size), (4, 5, 2, [16, 16, 4]));
    assert_eq!((&showing.checkpoint, &showing.folder), (&checkpoint, &folder));
    #[cfg(target_os = "linux")]
    assert!(niceness_of("trainer").contains(&15));
    let shown = reconstruct(&trainer, 2);
    assert_eq!(ReconstructedClip { seconds: 0.0, ..shown }, ReconstructedClip { seconds: 0.0, ..*trained });
    trainer.send(Command::Validate);
    let metrics =
        wait(&trainer, |event| if let Event::Validation(metrics) = event { Some(metrics.clone()) } else { None });
    assert_eq!((metrics.step, metrics.is_best, metrics.clips.len()), (4, false, 3));
    assert!(warning(&trainer, Command::Save).contains("only shown"));
    assert!(warning(&trainer, Command::Reconstruct { clip: 99 }).contains("no clip 99"));
    trainer.send(Command::Stop);
    let end = wait(&trainer, |event| if let Event::Finished(end) = event { Some(end.clone()) } else { None });
    assert_eq!((end.step, end.stopped, end.checkpoint), (4, true, None));
    assert!(files(&folder) == before);
}

/// Nice values of this process' threads of that name.
#[cfg(target_os = "linux")]
fn niceness_of(name: &str) -> Vec<i64> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok());
    stats
        .filter_map(|stat| {
            let (head, fields) = stat.rsplit_once(')')?;
            head.ends_with(&format!("({name}")).then(|| fields.split_whitespace().nth(16)?.parse().ok())?
        })
        .collect()
}

#[test]
fn what_cannot_be_shown_is_told_in_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let task = Task::Show { checkpoint: dir.path().join("missing.safetensors") };
    let trainer = start(&config, &dir.path().join("run"), task, false);
    let why = wait(&trainer, |event| if let Event::Failed(why) = event { Some(why.clone()) } else { None });
    assert!(why.exit_code() == 3 && why.to_string().contains("missing.safetensors"), "{why}");
    assert!(!dir.path().join("run").exists());
}
