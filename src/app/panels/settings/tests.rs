//! What the settings do, driven by the names that screen readers say.

use std::time::Duration;

use eframe::egui::{Key, Theme};
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;

use super::*;
use crate::app::layout::Pane;
use crate::app::panels::tests::{Bench, bench};
use crate::train::config::Preset;

const SIZE: [f32; 2] = [264.0, 900.0];

fn settings(draft: RunConfig) -> Harness<'static, Bench> {
    bench(Pane::Settings, State { draft, ..State::default() }, SIZE, Theme::Dark)
}

fn demo() -> RunConfig {
    RunConfig::preset(Preset::Demo, None)
}

#[test]
fn every_key_has_one_place() {
    let placed: Vec<&str> = sections().into_iter().flat_map(|(_, keys)| keys).chain(ELSEWHERE).collect();
    for (key, _) in RunConfig::keys() {
        assert_eq!(placed.iter().filter(|placed| **placed == key).count(), 1, "{key}");
    }
    assert_eq!(placed.len(), RunConfig::keys().count());
}

#[test]
fn a_value_is_set_marked_and_set_back() {
    let mut harness = settings(demo());
    assert!(harness.query_by_label("Set Steps back to 2,500").is_none());
    harness.get_by_label("Steps").set_value_accesskit(77.0);
    harness.run_ok();
    assert_eq!(harness.state().state.draft.train.steps, 77);
    assert!(harness.query_by_label("Basics  (1 changed)").is_some());
    harness.get_by_label("Set Steps back to 2,500").click();
    harness.run_ok();
    assert_eq!(harness.state().state.draft, demo());
}

#[test]
fn a_wrong_value_is_told_below_its_field() {
    let mut harness = settings(demo());
    harness.get_by_label("Batch size, B").set_value_accesskit(0.0);
    harness.run_ok();
    let why = harness.get_by_label_contains("train.batch is 0").rect();
    let (field, next) = (harness.get_by_label("Batch size, B").rect(), harness.get_by_label("Learning rate").rect());
    assert!(why.top() >= field.bottom() && why.bottom() <= next.top());
    harness.get_by_label("Batch size, B").set_value_accesskit(2.0);
    harness.run_ok();
    assert!(harness.query_by_label_contains("train.batch is 0").is_none());
}

#[test]
fn a_closed_section_opens_for_what_is_wrong_in_it() {
    let mut config = demo();
    config.train.keep_last = 0;
    let mut harness = settings(config);
    harness.run_ok();
    assert!(harness.query_by_label_contains("train.keep_last is 0").is_some());
    assert!(settings(demo()).query_by_label("Keep last").is_none());
}

#[test]
fn another_preset_keeps_what_was_set() {
    let mut harness = settings(demo());
    harness.get_by_label("Learning rate").set_value_accesskit(0.01);
    harness.run_ok();
    harness.get_by_label("Preset").click();
    harness.run_ok();
    harness.get_by_label("paper").click();
    harness.run_ok();
    let draft = &harness.state().state.draft;
    assert_eq!((draft.train.preset, draft.model.get("model.hidden"), draft.data.frames), (Preset::Paper, 128, 16));
    assert_eq!(draft.train.learning_rate, 0.01);
}

#[test]
fn lists_are_typed() {
    let mut harness = settings(demo());
    let enter = |harness: &mut Harness<'static, Bench>, text: &str| {
        harness.get_by_label("Crop").focus();
        harness.run_ok();
        harness.get_by_label("Crop").type_text(text);
        harness.run_ok();
        harness.key_press(Key::Enter);
        harness.run_ok();
    };
    enter(&mut harness, "many");
    assert!(harness.query_by_label_contains("is no list of numbers").is_some());
    assert!(harness.state().state.draft.data.crop.is_empty());
    harness.state_mut().memory.settings.typing = None;
    harness.run_ok();
    enter(&mut harness, "8, 8, 4");
    assert_eq!(harness.state().state.draft.data.crop, [8, 8, 4]);
    assert!(harness.query_by_label_contains("is no list of numbers").is_none());
}

#[test]
fn the_settings_of_a_run_under_way_are_only_shown() {
    let mut state = State::default();
    let mut config = demo();
    config.train.steps = 1234;
    state.engine.training = Some(config);
    let mut harness = bench(Pane::Settings, state, SIZE, Theme::Light);
    assert!(harness.query_by_label_contains("run under way").is_some());
    let steps = harness.get_by_label("Steps");
    assert!(
        steps.value().is_some_and(|value| value.contains("1,234") || value.contains("1234")),
        "{:?}",
        steps.value()
    );
    steps.set_value_accesskit(5.0);
    harness.run_ok();
    assert_eq!(harness.state().state.draft, demo());
}

#[test]
fn what_a_run_needs_is_planned_before_its_first_step() {
    let mut config = demo();
    config.data.crop = vec![16, 16, 4];
    let mut harness = settings(config.clone());
    let mut plan = |config: &RunConfig| {
        harness.state_mut().state.draft = config.clone();
        for _ in 0..3000 {
            harness.step();
            if harness.query_all_by_label_contains(" MiB of ").count() > 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("no plan came");
    };
    plan(&config);
    // What an adapter cannot hold is told, too.
    config.train.memory_budget = 1e-6;
    plan(&config);
    assert!(harness.query_by_label_contains("training needs").is_some());
}
