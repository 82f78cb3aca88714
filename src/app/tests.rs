//! A model of which nothing but its own file knows, in the real window: trained, shown, mixed, stopped and resumed.

use std::fs;
use std::path::PathBuf;

use eframe::egui::Key;
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;
use toml::Value;

use super::App;
use super::actions::Action;
use super::engine::Phase;
use super::layout::Pane;
use super::state::State;
use crate::data::synth::{self, Level, SynthOptions};
use crate::train::config::{Preset, RunConfig};
use wait::wait;

#[path = "../../tests/app/wait.rs"]
mod wait;

fn order(harness: &mut Harness<'static, App>, action: Action) {
    let context = harness.ctx.clone();
    harness.state_mut().perform(&context, action);
    harness.run_steps(3);
}

#[test]
fn any_model_trains_shows_mixes_and_resumes_in_the_window() {
    let dir = tempfile::tempdir().unwrap();
    let (town, run): (PathBuf, PathBuf) = (dir.path().join("town"), dir.path().join("run"));
    let grid = synth::grid([16, 16, 4], [1.6, 1.6, 0.75]).unwrap();
    let options = SynthOptions { grid, seed: 3, frames: 6, towns: [1, 1, 0], levels: vec![Level::Light] };
    synth::write(&town, &options, |_| {}).unwrap();
    let draft = RunConfig::preset(Preset::Tiny, None).with_values([
        ("model.architecture", Value::String("toy".into())),
        ("train.steps", Value::Integer(100_000)),
        ("train.validate_every", Value::Integer(5)),
        ("train.log_every", Value::Integer(1)),
        ("output.dir", Value::String(run.display().to_string())),
    ]);
    let mut harness = Harness::builder().with_size([1280.0, 800.0]).wgpu().build_eframe(|creation| App::new(creation));
    harness.state_mut().state.draft = draft.unwrap();
    harness.state_mut().open_dataset(town);
    wait(&mut harness, "the town", |state| state.source.is_some() && state.shown.is_some());

    harness.key_press(Key::F5);
    let has_model = |state: &State| state.shown.as_ref().is_some_and(|shown| shown.model.is_some());
    wait(&mut harness, "a reconstruction", |state| has_model(state) && !state.history.validations.is_empty());
    harness.key_press(Key::F6);
    wait(&mut harness, "the pause", |state| matches!(state.engine.phase, Phase::Paused));
    // Only what every model has: no curve of a loss that this one lacks, no figure of a distribution.
    order(&mut harness, Action::Show(Pane::Losses));
    assert!(harness.query_by_label("Lovász").is_some() && harness.query_by_label("KL").is_none());
    order(&mut harness, Action::Show(Pane::Latents));
    assert!(harness.query_by_label("Latent volume").is_some() && harness.query_by_label("σ").is_none());
    order(&mut harness, Action::Show(Pane::Mix));
    harness.get_by_label("Show the mix").click_accesskit();
    wait(&mut harness, "the mix", |state| state.mixed.is_some());

    order(&mut harness, Action::Stop);
    wait(&mut harness, "the stop", |state| state.engine.training.is_none());
    let stopped = harness.state().state.history.steps.last().unwrap().step;
    assert!(run.join("checkpoints").is_dir());
    assert!(!fs::read_to_string(run.join("metrics.jsonl")).unwrap().contains("kl"));
    harness.key_press(Key::F5);
    wait(&mut harness, "more steps", |state| state.history.steps.last().is_some_and(|last| last.step > stopped));
    order(&mut harness, Action::Stop);
    wait(&mut harness, "the end", |state| matches!(state.engine.phase, Phase::Showing));
    order(&mut harness, Action::Show(Pane::Settings));
    // Wherever it stands: what the window has to tell may lie over it.
    harness.get_by_label("Model").click_accesskit();
    harness.run_steps(20);
    assert!(harness.query_by_label("Toy features").is_some() && harness.query_by_label("Hidden").is_none());
}
