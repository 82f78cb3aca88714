//! The analysis panels in the real window, with a real model behind them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use eframe::egui::{Key, Modifiers};
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;
use sep4d::app::App;
use sep4d::app::actions::Action;
use sep4d::app::layout::Pane;
use sep4d::app::state::{Page, Source};
use sep4d::data::Dataset;
use sep4d::train::config::{Preset, RunConfig};
use sep4d::train::events::{Command, Event, ReconstructedClip};
use sep4d::train::trainer::{Place, Request, Task, Trainer};

use crate::common;
use crate::example;

fn window(open: impl FnOnce(&mut App) + 'static) -> Harness<'static, App> {
    let mut harness = Harness::builder().with_size([1280.0, 800.0]).wgpu().build_eframe(|creation| {
        let mut app = App::new(creation);
        open(&mut app);
        app
    });
    harness.run_steps(3);
    harness
}

fn order(harness: &mut Harness<'static, App>, action: Action) {
    let context = harness.ctx.clone();
    harness.state_mut().perform(&context, action);
    harness.run_steps(3);
}

/// Lets the window run until `done`.
fn until(harness: &mut Harness<'static, App>, what: &str, done: impl Fn(&App) -> bool) {
    for _ in 0..3000 {
        harness.run_steps(1);
        if done(harness.state()) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("waited in vain for {what}");
}

#[test]
fn the_legend_obeys_names_and_keys() {
    let mut harness = window(example::open_example);
    harness.get_by_label("Show Road").click();
    harness.run_steps(2);
    assert_eq!(harness.state().state.view.hidden, [6]);
    harness.key_press_modifiers(Modifiers::SHIFT, Key::Num8);
    harness.run_steps(2);
    assert_eq!(harness.state().state.view.solo, Some(8));
    harness.get_by_label("Only Sidewalk").click();
    harness.run_steps(2);
    assert_eq!(harness.state().state.view.solo, None);
}

#[test]
fn a_slider_with_the_focus_keeps_the_arrow_keys_and_a_view_does_not() {
    let mut harness = window(example::open_example);
    harness.get_by_label("Crop x from").focus();
    harness.run_steps(2);
    harness.key_press(Key::ArrowRight);
    harness.run_steps(2);
    let app = harness.state();
    assert_eq!((app.state.view.crop_voxels(0, example::GRID[0]).start, app.state.frame()), (1, 0));
    harness.get_by_label("Original view").focus();
    harness.run_steps(2);
    harness.key_press(Key::ArrowRight);
    harness.run_steps(2);
    let app = harness.state();
    assert_eq!((app.state.view.crop_voxels(0, example::GRID[0]).start, app.state.frame()), (1, 1));
    assert!(harness.get_by_label("Original view").is_focused());
}

#[test]
fn the_worst_frame_of_the_clip_is_gone_to() {
    let mut harness = window(example::open_example);
    let miou = |app: &App, t: usize| app.state.shown.as_ref().unwrap().model.as_ref().unwrap().scores[t].miou.unwrap();
    let app = harness.state();
    let worst = (0..4).min_by(|&a, &b| miou(app, a).total_cmp(&miou(app, b))).unwrap();
    harness.state_mut().state.playback.frame = (worst + 1) % 4;
    harness.key_press(Key::N);
    harness.run_steps(2);
    assert_eq!(harness.state().state.frame(), worst);
}

/// Trains a tiny model; returns its configuration, its file, and what it makes of clip `other`.
fn trained(dir: &Path, other: usize) -> (RunConfig, PathBuf, ReconstructedClip) {
    let mut config = RunConfig::preset(Preset::Tiny, None);
    config.data.root = common::town(dir);
    config.data.validation_clips = 3;
    config.train.steps = 30;
    let (request, folder) = (config.clone(), dir.join("run"));
    let task = Task::Train { resume: false };
    let request = Request {
        config: request,
        place: Place::At(folder),
        task,
        background: false,
        command_line: vec!["test".into()],
        wake: None,
    };
    let trainer = Trainer::start(request).unwrap();
    // Comes again after each validation, the last of them after the last step.
    trainer.send(Command::Reconstruct { clip: other });
    let mut last = None;
    for _ in 0..600 {
        match trainer.next_event(Duration::from_secs(1)).unwrap() {
            Some(Event::Reconstruction(clip)) => last = Some(*clip),
            Some(Event::Finished(end)) => return (config, end.checkpoint.unwrap(), last.unwrap()),
            Some(Event::Failed(why)) => panic!("{why}"),
            _ => {}
        }
    }
    panic!("the run does not end");
}

#[test]
fn latents_of_two_clips_are_mixed_and_decoded_in_the_window() {
    let dir = tempfile::tempdir().unwrap();
    let (config, checkpoint, other) = trained(dir.path(), 3);
    let set = Dataset::open(&config.data.root, config.data.val_split, config.dataset_options()).unwrap();
    let source = Source { root: config.data.root.clone(), held_out: Arc::new(set) };
    let run = dir.path().join("run");
    let mut harness = window(move |app| {
        app.state.page = Page::Workspace;
        app.state.source = Some(source);
        app.state.wanted_clip = 0;
        app.state.engine.show(config, run, checkpoint).unwrap();
    });
    until(&mut harness, "clip A", |app| app.state.shown.as_ref().is_some_and(|shown| shown.model.is_some()));
    order(&mut harness, Action::Show(Pane::Mix));
    // Of five clips, the one half the split away is proposed.
    harness.get_by_label("Next clip for B").click();
    harness.run_steps(3);
    harness.get_by_label("Swap what A and B hold of time").click();
    until(&mut harness, "the swapped latents", |app| app.state.mixed.is_some());
    let swapped = harness.state().state.mixed.clone().unwrap();
    let own = harness.state().state.shown.as_ref().unwrap().clone();
    assert_eq!((swapped.clip, own.clip), (0, 0));
    harness.get_by_label("Swap what A and B hold of space").click();
    until(&mut harness, "B itself", |app| {
        app.state.mixed.as_ref().is_some_and(|mixed| mixed.version > swapped.version)
    });
    let whole = harness.state().state.mixed.clone().unwrap();
    assert!(whole.labels == other.labels && whole.likely == other.likely, "all latents of B are not B");
    assert!(swapped.likely != whole.likely && swapped.likely != own.model.unwrap().likely);
    // The views draw the mix, and the clip itself stays what it was.
    let app = harness.state();
    assert_eq!(app.state.model_labels(1).unwrap(), &other.labels[other.labels.len() / 2..]);
    harness.get_by_label("Show clip A's own reconstruction again").click();
    harness.run_steps(3);
    assert!(harness.state().state.mixed.is_none());
}
