//! How soon the window shows what was ordered while a run is at work on the same adapter.
//!
//! The window is driven as its event loop drives it: it draws when something is due and sleeps in between; keys come at any
//! time, also while it draws. Without a display; each picture is waited for and read back, which a window on a screen does not
//! do, so the times are upper bounds.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use eframe::egui::{Event, Key, Modifiers};
use eframe::egui_wgpu::RendererOptions;
use egui_kittest::Harness;
use egui_kittest::wgpu::WgpuTestRenderer;
use sep4d::app::App;
use sep4d::app::engine::Phase;
use sep4d::app::state::State;
use sep4d::data::synth::{self, SynthOptions};
use sep4d::train::config::{Preset, RunConfig};

/// Of the window, points.
const SIZE: [f32; 2] = [1280.0, 800.0];
/// Keys that are pressed in each phase.
const KEYS: usize = 80;
/// The shortest and the longest time between two keys, milliseconds.
const PAUSE_MS: [u64; 2] = [120, 420];
/// A screen shows no more than one picture in this time.
const REFRESH: Duration = Duration::from_millis(16);
/// What users are promised, milliseconds.
const PROMISED_MS: f64 = 100.0;

/// Paints as the window does; the renderer of tests filters textures by hand, which takes several times as long.
fn renderer() -> WgpuTestRenderer {
    WgpuTestRenderer::with_render_options(RendererOptions { dithering: true, ..RendererOptions::default() })
}

/// The window, and when it is to be drawn again.
struct Window {
    harness: Harness<'static, App>,
    due: Arc<Mutex<Option<Instant>>>,
}

impl Window {
    fn open(create: impl FnOnce(&mut eframe::CreationContext<'_>) -> App) -> Window {
        let harness = Harness::builder().with_size(SIZE).renderer(renderer()).build_eframe(create);
        let due: Arc<Mutex<Option<Instant>>> = Arc::default();
        let shared = due.clone();
        // What egui, the trainer and the jobs ask of the event loop.
        harness.ctx.set_request_repaint_callback(move |info| {
            let at = Instant::now() + info.delay.max(REFRESH);
            let mut due = shared.lock().unwrap();
            *due = Some(due.map_or(at, |earlier| earlier.min(at)));
        });
        Window { harness, due }
    }

    /// One frame, drawn to its end.
    fn frame(&mut self) {
        *self.due.lock().unwrap() = None;
        self.harness.step();
        self.harness.render().unwrap();
    }

    /// Lets the window live until `end`.
    fn live(&mut self, end: Instant) {
        while Instant::now() < end {
            let due = *self.due.lock().unwrap();
            if due.is_some_and(|due| due <= Instant::now()) {
                self.frame();
            }
            std::thread::sleep(Duration::from_millis(1).min(end.saturating_duration_since(Instant::now())));
        }
    }

    fn wait(&mut self, done: impl Fn(&State) -> bool) {
        while !done(self.state()) {
            self.live(Instant::now() + Duration::from_millis(200));
        }
    }

    fn key(&mut self, key: Key, pressed: bool) {
        let modifiers = Modifiers::NONE;
        self.harness.event(Event::Key { key, physical_key: None, pressed, repeat: false, modifiers });
        self.frame();
    }

    fn state(&self) -> &State {
        &self.harness.state().state
    }

    /// From a key that goes one frame on, or back, to the end of the picture that shows it, milliseconds.
    fn latencies(&mut self) -> Vec<f64> {
        let mut found = Vec::new();
        let mut at = Instant::now();
        for i in 0..KEYS {
            let spread = PAUSE_MS[1] - PAUSE_MS[0];
            at += Duration::from_millis(PAUSE_MS[0] + (i as u64 * 7919) % spread);
            // Where drawing the release of the last key took longer than the pause, this one comes right after it. Otherwise
            // the window may be drawing when it comes, and the key waits.
            at = at.max(Instant::now());
            self.live(at);
            let before = self.state().frame();
            let key = if i % 6 < 3 { Key::ArrowRight } else { Key::ArrowLeft };
            self.key(key, true);
            if self.state().frame() != before {
                found.push(1e3 * at.elapsed().as_secs_f64());
            }
            self.key(key, false);
        }
        found
    }
}

/// What reading back an empty picture of the same size takes.
fn empty() -> Vec<f64> {
    let mut window = Harness::builder().with_size(SIZE).renderer(renderer()).build_ui(|_| {});
    let mut picture = || {
        let start = Instant::now();
        window.step();
        window.render().unwrap();
        1e3 * start.elapsed().as_secs_f64()
    };
    (0..KEYS).map(|_| picture()).collect()
}

fn tell(what: &str, mut found: Vec<f64>) {
    found.sort_by(f64::total_cmp);
    let at = |part: f64| found[((found.len() - 1) as f64 * part).round() as usize];
    let late = found.iter().filter(|ms| **ms > PROMISED_MS).count();
    println!(
        "{what}: median {:.0} ms, 95 % {:.0} ms, most {:.0} ms; {late} of {} above {PROMISED_MS} ms",
        at(0.5),
        at(0.95),
        at(1.0),
        found.len()
    );
}

fn main() {
    tell("an empty picture", empty());
    let dir = tempfile::tempdir().unwrap();
    let town = dir.path().join("town");
    let grid = synth::grid([32, 32, 8], [0.8, 0.8, 0.375]).unwrap();
    let options = SynthOptions { grid, frames: 20, towns: [2, 1, 0], ..SynthOptions::default() };
    synth::write(&town, &options, |_| {}).unwrap();
    let mut window = Window::open(|creation| {
        let mut app = App::new(creation);
        app.start(Some(&town), None);
        app
    });
    window.frame();
    window.wait(|state| state.shown.is_some());
    tell("the data alone", window.latencies());
    let draft = &mut window.harness.state_mut().state.draft;
    *draft = RunConfig { data: draft.data.clone(), ..RunConfig::preset(Preset::Demo, None) };
    draft.output.dir = dir.path().join("run");
    window.key(Key::F5, true);
    window.wait(|state| state.shown.as_ref().is_some_and(|shown| shown.model.is_some()));
    window.wait(|state| state.history.pace().is_some());
    tell("while the demo preset trains", window.latencies());
    assert!(matches!(window.state().engine.phase, Phase::Training));
    println!("training takes {:.2} steps a second meanwhile", window.state().history.pace().unwrap());
    window.key(Key::F6, true);
    window.wait(|state| matches!(state.engine.phase, Phase::Paused));
    tell("the same views while it is paused", window.latencies());
}
