//! What only the crate itself can provoke: orders that wait together, and a device that is lost.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::data::synth::{self, Level, SynthOptions};
use crate::train::checkpoint::Checkpoint;
use crate::train::config::Preset;
use crate::train::events::DecodeRequest;
use crate::train::run_folder::RunFolder;

mod device_faults;

fn config(parent: &Path) -> RunConfig {
    let grid = synth::grid([16, 16, 4], [1.6, 1.6, 0.75]).unwrap();
    let options = SynthOptions { grid, seed: 3, frames: 6, towns: [1, 1, 0], levels: vec![Level::Light] };
    let town = parent.join("town");
    synth::write(&town, &options, |_| {}).unwrap();
    let mut config = RunConfig::preset(Preset::Tiny, None);
    config.data.root = town;
    config.data.augment = true;
    config.data.validation_clips = 2;
    config.train.steps = 8;
    config.train.validate_every = 8;
    config.train.checkpoint_every = 0;
    config.train.log_every = 4;
    config.train.keep_last = 5;
    config
}

fn start(config: &RunConfig, folder: &Path, task: Task) -> Trainer {
    let (config, folder) = (config.clone(), folder.to_path_buf());
    Trainer::start(Request {
        config,
        place: Place::At(folder),
        task,
        background: false,
        command_line: vec![],
        wake: None,
    })
    .unwrap()
}

/// The next event that `wanted` takes.
fn wait<R>(trainer: &Trainer, mut wanted: impl FnMut(&Event) -> Option<R>) -> R {
    for _ in 0..600 {
        let event = trainer.next_event(Duration::from_secs(1)).unwrap();
        if let Some(result) = event.as_ref().and_then(&mut wanted) {
            return result;
        }
        assert!(!matches!(event, Some(Event::Failed(_) | Event::Finished(_))), "{event:?}");
    }
    panic!("nothing came");
}

fn paused(event: &Event) -> Option<()> {
    matches!(event, Event::Paused(true)).then_some(())
}

fn recovered(event: &Event) -> Option<(u32, String)> {
    if let Event::Recovered { step, why } = event { Some((*step, why.clone())) } else { None }
}

fn step(trainer: &Trainer) {
    assert!(trainer.send(Command::Step));
    wait(trainer, paused);
}

fn checkpoint(folder: &Path, step: u32) -> Checkpoint {
    Checkpoint::load(&folder.join(format!("checkpoints/step-{step:08}.safetensors"))).unwrap()
}

/// Losses and scores without the times that they took.
fn curve(folder: &Path) -> Vec<String> {
    let history = RunFolder::open(folder).unwrap().history().unwrap();
    let steps = history.steps.iter().map(|m| format!("{} {} {}", m.step, m.loss, m.gradient_norm));
    steps.chain(history.validations.iter().map(|m| format!("{} {:?} {:?}", m.step, m.is_best, m.confusion))).collect()
}

#[test]
fn a_run_survives_the_loss_of_its_device_to_the_bit() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let (whole, broken) = (dir.path().join("whole"), dir.path().join("broken"));
    let finished = |event: &Event| matches!(event, Event::Finished(_)).then_some(());
    wait(&start(&config, &whole, Task::Train { resume: false }), finished);

    let trainer = start(&config, &broken, Task::Train { resume: false });
    trainer.send(Command::Pause);
    wait(&trainer, paused);
    for _ in 0..6 {
        step(&trainer);
    }
    // The next step finds out. The host knows the state after step 4, or a later one on a machine that is slow enough to
    // report every step.
    trainer.send(Command::LoseDevice);
    trainer.send(Command::Step);
    let mut saved = None;
    let (step, why) = wait(&trainer, |event| {
        if let Event::Checkpoint { step, .. } = event {
            saved = Some(*step);
        }
        recovered(event)
    });
    assert!((4..=6).contains(&step) && saved == Some(step), "{step} {saved:?}");
    assert!(why.contains("lost"), "{why}");
    wait(&trainer, paused);
    trainer.send(Command::Resume);
    wait(&trainer, finished);
    assert_eq!(checkpoint(&broken, 8), checkpoint(&whole, 8));
    assert_eq!(curve(&broken), curve(&whole));
}

#[test]
fn a_device_that_is_lost_again_and_again_ends_the_run_which_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let folder = dir.path().join("run");
    let trainer = start(&config, &folder, Task::Train { resume: false });
    trainer.send(Command::Pause);
    wait(&trainer, paused);
    step(&trainer);
    for _ in 1..MOST_LOSSES {
        trainer.send(Command::LoseDevice);
        trainer.send(Command::Step);
        assert_eq!(wait(&trainer, recovered).0, 1);
        wait(&trainer, paused);
    }
    trainer.send(Command::LoseDevice);
    trainer.send(Command::Step);
    let why = wait(&trainer, |event| if let Event::Failed(why) = event { Some(why.clone()) } else { None });
    assert_eq!(why.exit_code(), 4, "{why}");
    assert_eq!(checkpoint(&folder, 1).state.steps, 1);
}

#[test]
fn a_model_is_shown_again_after_its_device_was_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.train.steps = 1;
    let folder = dir.path().join("run");
    let trainer = start(&config, &folder, Task::Train { resume: false });
    let checkpoint =
        wait(&trainer, |event| if let Event::Finished(end) = event { end.checkpoint.clone() } else { None });
    let trainer = start(&config, &folder, Task::Show { checkpoint });
    let labels = |event: &Event| if let Event::Reconstruction(clip) = event { Some(clip.labels.clone()) } else { None };
    trainer.send(Command::Reconstruct { clip: 0 });
    let before = wait(&trainer, labels);
    trainer.send(Command::LoseDevice);
    trainer.send(Command::Reconstruct { clip: 0 });
    assert_eq!(wait(&trainer, recovered).0, 1);
    trainer.send(Command::Reconstruct { clip: 0 });
    assert_eq!(wait(&trainer, labels), before);
}

#[test]
fn of_orders_that_wait_only_the_last_of_its_kind_is_carried_out() {
    let (_commands, receiver) = sync_channel(1);
    let (events, _receiver) = sync_channel(1);
    let mut port = Port { commands: receiver, pending: VecDeque::new(), events, wake: None, closed: false };
    let decode = |id| Command::Decode(Arc::new(DecodeRequest { id, latents: vec![] }));
    let (zero, one) = (Command::Reconstruct { clip: 0 }, Command::Reconstruct { clip: 1 });
    for command in
        [decode(1), zero.clone(), decode(2), one.clone(), zero.clone(), Command::Step, Command::Step, decode(3)]
    {
        port.queue(command);
    }
    assert_eq!(Vec::from(port.pending), [one, zero, Command::Step, Command::Step, decode(3)]);
}
