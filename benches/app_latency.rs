//! How soon the window shows what was ordered while a run is at work on the same adapter.
//! Without a display; pictures are read back, which a window on a screen does not do.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use eframe::egui::Key;
use egui_kittest::Harness;
use sep4d::app::App;
use sep4d::app::engine::Phase;
use sep4d::app::state::State;
use sep4d::data::synth::{self, SynthOptions};
use sep4d::train::config::{Preset, RunConfig};

/// Of the window, points.
const SIZE: [f32; 2] = [1280.0, 800.0];
/// Keys that are pressed in each phase.
const KEYS: usize = 60;

fn wait(harness: &mut Harness<'static, App>, done: impl Fn(&State) -> bool) {
    while !done(&harness.state().state) {
        harness.step();
        harness.render().unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// From a key that goes one frame on to the end of the picture that shows it, milliseconds, sorted.
fn latencies(harness: &mut Harness<'static, App>) -> Vec<f64> {
    let mut found = Vec::new();
    for i in 0..KEYS {
        // The window of a run is drawn anew ten times a second; keys come at any time between.
        std::thread::sleep(Duration::from_millis(100 + (i as u64 * 37) % 100));
        harness.step();
        harness.render().unwrap();
        let before = harness.state().state.frame();
        let pressed = Instant::now();
        harness.key_press(if i % 8 < 4 { Key::ArrowRight } else { Key::ArrowLeft });
        harness.step();
        harness.render().unwrap();
        if harness.state().state.frame() != before {
            found.push(1e3 * pressed.elapsed().as_secs_f64());
        }
    }
    found.sort_by(f64::total_cmp);
    found
}

/// What reading back an empty picture of the same size takes.
fn empty() -> Vec<f64> {
    let mut harness = Harness::builder().with_size(SIZE).wgpu().build_ui(|_| {});
    let picture = |harness: &mut Harness<'_>| {
        let start = Instant::now();
        harness.step();
        harness.render().unwrap();
        1e3 * start.elapsed().as_secs_f64()
    };
    let mut found: Vec<f64> = (0..KEYS).map(|_| picture(&mut harness)).collect();
    found.sort_by(f64::total_cmp);
    found
}

fn tell(what: &str, sorted: &[f64]) {
    let at = |part: f64| sorted[((sorted.len() - 1) as f64 * part) as usize];
    println!(
        "{what}: median {:.0} ms, 95 % {:.0} ms, most {:.0} ms ({} keys)",
        at(0.5),
        at(0.95),
        at(1.0),
        sorted.len()
    );
}

fn main() {
    tell("an empty picture", &empty());
    let dir = tempfile::tempdir().unwrap();
    let town = dir.path().join("town");
    let grid = synth::grid([32, 32, 8], [0.8, 0.8, 0.375]).unwrap();
    let options = SynthOptions { grid, frames: 20, towns: [2, 1, 0], ..SynthOptions::default() };
    synth::write(&town, &options, |_| {}).unwrap();
    let mut harness = Harness::builder().with_size(SIZE).wgpu().build_eframe(|creation| {
        let mut app = App::new(creation);
        app.start(Some(&town), None);
        app
    });
    wait(&mut harness, |state| state.shown.is_some());
    tell("the data alone", &latencies(&mut harness));
    let draft = &mut harness.state_mut().state.draft;
    *draft = RunConfig { data: draft.data.clone(), ..RunConfig::preset(Preset::Demo, None) };
    draft.output.dir = dir.path().join("run");
    harness.key_press(Key::F5);
    wait(&mut harness, |state| state.shown.as_ref().is_some_and(|shown| shown.model.is_some()));
    tell("while the demo preset trains", &latencies(&mut harness));
    let state = &harness.state().state;
    assert!(matches!(state.engine.phase, Phase::Training));
    println!("training takes {:.2} steps a second meanwhile", state.history.pace().unwrap());
    harness.key_press(Key::F6);
    wait(&mut harness, |state| matches!(state.engine.phase, Phase::Paused));
    tell("the same views while it is paused", &latencies(&mut harness));
}
