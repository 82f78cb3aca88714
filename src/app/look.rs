
use super::*;
use eframe::egui::{Theme, vec2};
use egui_kittest::Harness;
use crate::train::events::*;
use crate::train::config::*;
use super::history::{History, tests::{step, validation}};
use std::sync::Arc;

fn history(name: &str, n: u32) -> History {
    let mut h = History::new(format!("runs/{name}").into());
    let mut seed = 7u32;
    let mut random = || { seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223); (seed >> 8) as f32 / (1 << 24) as f32 };
    for i in 1..=n {
        let s = i * 10;
        let x = (-(s as f32) / 600.0).exp();
        let ce = 0.1 + 1.2 * x + 0.2 * (random() - 0.5) * (0.3 + x);
        let lovasz = 0.3 + 0.6 * x + 0.1 * (random() - 0.5);
        let kl = 1.5 + 0.5 * (1.0 - x) + 0.2 * (random() - 0.5);
        let mut m = step(s, f64::from(s) / 7.3, 1.0 / 7.3);
        m.cross_entropy = ce; m.lovasz = lovasz; m.kl = kl; m.loss = ce + lovasz + 0.005 * kl;
        m.learning_rate = 3e-3 * 0.7f64.powi((s / 500) as i32);
        m.gradient_norm = 0.5 + random();
        if i == 90 { m.loss = f32::NAN; m.skipped = 1; }
        if i > 90 { m.skipped = 1; }
        h.step(m);
        if i % 25 == 0 { h.validation(validation(s, f64::from(0.32 * (1.0 - x) + 0.02 * random()))); }
    }
    h
}

fn state() -> State {
    let mut s = State { page: Page::Workspace, ..State::default() };
    let synth = crate::data::synth::SynthOptions { grid: crate::data::synth::grid([16, 16, 4], [0.8, 0.8, 0.375]).unwrap(), frames: 6, towns: [1, 1, 1], ..Default::default() };
    let root = std::env::temp_dir().join("sep4d-look/Town10_Heavy");
    if !root.exists() { crate::data::synth::write(&root, &synth, |_| {}).unwrap(); }
    s.source = Some(state::Source { root: root.clone(), held_out: Arc::new(crate::data::Dataset::open(&root, crate::data::Split::Val, Default::default()).unwrap()) });
    s.history = history("demo-t4-001", 124);
    s.run = Some("runs/demo-t4-001".into());
    s
}

fn save(name: &str, size: [f32; 2], theme: Theme, state: State, setup: impl Fn(&mut App)) {
    let mut harness = Harness::builder().with_size(vec2(size[0], size[1])).with_theme(theme).with_max_steps(30).wgpu().build_eframe(|cc| {
        let mut app = App::new(cc);
        app.state = state;
        setup(&mut app);
        app
    });
    for _ in 0..10 { harness.run_steps(3); std::thread::sleep(Duration::from_millis(60)); }
    harness.render().unwrap().save(format!("/tmp/look-{name}.png")).unwrap();
}

#[test]
#[ignore]
fn look() {
    let training = || {
        let mut s = state();
        s.engine.phase = engine::Phase::Training;
        s.engine.training = Some(RunConfig::preset(Preset::Demo, None));
        s.engine.last = s.history.steps.last().copied();
        s.engine.facts = Some(engine::Facts { folder: "runs/demo-t4-001".into(), adapter: "llvmpipe (LLVM 19.1.7, 256 bits)".into(), parameters: 123_456, steps: 2500, grid: s.source.as_ref().unwrap().held_out.grid(), classes: s.source.as_ref().unwrap().held_out.classes(), planned_bytes: 305 << 20, used_bytes: Some(411 << 20) });
        s
    };
    save("training", [1280.0, 800.0], Theme::Dark, training(), |_| {});
    let mut s = state();
    s.overlay = Some(history("base-t4-003", 200));
    s.draft.train.kl = 0.1; s.draft.train.steps = 3000; s.draft.train.keep_last = 0;
    save("idle-light", [1280.0, 800.0], Theme::Light, s, |app| layout::bring_up(&mut app.tree, Pane::Accuracy));
    let mut s = state();
    s.overlay = Some(history("base-t4-003", 200));
    s.engine.training = Some(RunConfig::preset(Preset::Demo, None));
    s.engine.phase = engine::Phase::Preparing { what: "building the kernels for llvmpipe (LLVM 19.1.7, 256 bits)".into(), done: 12, total: 41 };
    save("preparing", [1280.0, 800.0], Theme::Dark, s, |app| layout::bring_up(&mut app.tree, Pane::LearningRate));
    let mut s = state();
    s.overlay = Some(history("base-t4-003", 200));
    save("large", [2560.0, 1440.0], Theme::Dark, s, |app| { app.panels.plots_for_look(); });
}
