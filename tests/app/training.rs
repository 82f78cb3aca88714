//! Training in the real window, by the names of its buttons and settings.

use eframe::egui::{Key, Modifiers};
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;
use sep4d::app::App;
use sep4d::app::engine::Phase;
use sep4d::app::state::State;
use sep4d::train::config::Preset;
use sep4d::train::run_folder::{Row, RunFolder};

use crate::wait::wait;

use crate::common;

fn click(harness: &mut Harness<'static, App>, name: &str) {
    harness.get_by_label(name).click();
    harness.run_steps(3);
}

fn shows_step(state: &State, step: u32) -> bool {
    matches!(state.engine.phase, Phase::Showing) && state.resumable.as_ref().is_some_and(|run| run.step == step)
}

#[test]
fn the_buttons_train_pause_step_save_stop_resume_and_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (town, runs) = (common::town(dir.path()), [dir.path().join("first"), dir.path().join("second")]);
    let mut harness = Harness::builder().with_size([1280.0, 800.0]).wgpu().build_eframe(|creation| {
        let mut app = App::new(creation);
        app.start(Some(&town), None);
        app
    });
    wait(&mut harness, "the data", |state| state.source.is_some());
    click(&mut harness, "Preset");
    click(&mut harness, "tiny");
    let held_out = |state: &State| state.source.as_ref().map(|source| source.held_out.frames_per_clip());
    wait(&mut harness, "clips of two frames", |state| held_out(state) == Some(2));
    let draft = &mut harness.state_mut().state.draft;
    assert_eq!(draft.train.preset, Preset::Tiny);
    draft.output.dir = runs[0].clone();
    (draft.train.log_every, draft.train.validate_every) = (1, 10);
    harness.get_by_label("Steps").set_value_accesskit(5000.0);
    harness.run_steps(3);

    click(&mut harness, "Train");
    wait(&mut harness, "step 20", |state| state.engine.last.is_some_and(|last| last.step >= 20));
    assert!(harness.query_by_label_contains("the run under way").is_some(), "its settings are only shown");
    assert!(harness.query_by_label("Chart: Loss").is_some());
    click(&mut harness, "Pause training");
    wait(&mut harness, "the pause", |state| matches!(state.engine.phase, Phase::Paused));
    let paused = harness.state().state.engine.last.unwrap().step;
    click(&mut harness, "Train one step");
    wait(&mut harness, "one more step", |state| state.engine.last.is_some_and(|last| last.step == paused + 1));
    wait(&mut harness, "the pause after it", |state| matches!(state.engine.phase, Phase::Paused));
    let saved = paused + 1;
    click(&mut harness, "Save a checkpoint");
    wait(&mut harness, "the checkpoint", |state| state.resumable.as_ref().is_some_and(|run| run.step == saved));
    harness.state_mut().state.wanted_clip = 1;
    click(&mut harness, "Stop training");
    wait(&mut harness, "the trained model", |state| shows_step(state, saved));
    assert_eq!(harness.state().state.wanted_clip, 1, "the watched clip stays");

    let last = saved + 10;
    harness.get_by_label("Steps").set_value_accesskit(f64::from(last));
    harness.run_steps(3);
    click(&mut harness, "Train");
    wait(&mut harness, "the end of the run", |state| shows_step(state, last));
    // Now Train goes on to twice as many steps.
    click(&mut harness, "Train");
    wait(&mut harness, "the end of the longer run", |state| shows_step(state, 2 * last));
    let state = &harness.state().state;
    assert_eq!(state.run.as_ref(), Some(&runs[0]));
    assert_eq!(state.draft.train.steps, 2 * last as usize);
    let steps: Vec<u32> = state.history.steps.iter().map(|metrics| metrics.step).collect();
    assert_eq!(steps, (1..=2 * last).collect::<Vec<_>>(), "no step is missing or comes twice");
    let rows = RunFolder::open(&runs[0]).unwrap().metrics().unwrap();
    assert_eq!(rows.iter().filter(|row| matches!(row, Row::Step(_))).count(), steps.len());

    harness.state_mut().state.draft.output.dir = runs[1].clone();
    harness.key_press_modifiers(Modifiers::COMMAND, Key::F5);
    wait(&mut harness, "another run", |state| state.run.as_ref() == Some(&runs[1]));
    click(&mut harness, "Stop training");
    wait(&mut harness, "its end", |state| matches!(state.engine.phase, Phase::Showing));

    // A chart that was clicked does not keep the keys for itself.
    click(&mut harness, "Chart: Loss");
    let playing = harness.state().state.playback.playing;
    harness.key_press(Key::Space);
    harness.run_steps(2);
    assert_ne!(harness.state().state.playback.playing, playing);
}
