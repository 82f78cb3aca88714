//! The real window from the first page to a saved run, with a real trainer behind it.
#![cfg(feature = "desktop")]
#![allow(clippy::unwrap_used)]

use eframe::egui::{Event, Key, Modifiers, PointerButton};
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;
use sep4d::app::App;
use sep4d::app::actions::Action;
use sep4d::app::engine::Phase;
use sep4d::app::layout::Pane;
use sep4d::app::state::Page;
use sep4d::train::config::Preset;

#[path = "app/wait.rs"]
mod wait;

use wait::wait;

fn click(harness: &mut Harness<'static, App>, name: &str) {
    harness.get_by_label(name).click();
    harness.run_steps(3);
}

/// Types into a field of the settings, as after a click on it.
fn type_in(harness: &mut Harness<'static, App>, name: &str, text: &str) {
    harness.get_by_label(name).scroll_to_me();
    harness.run_steps(3);
    click(harness, name);
    harness.event(Event::Text(text.to_owned()));
    harness.step();
    harness.key_press(Key::Enter);
    harness.run_steps(3);
}

#[test]
fn a_newcomer_generates_trains_scrubs_exports_saves_and_comes_back() {
    let home = tempfile::tempdir().unwrap();
    // Towns, runs and pictures go below the current folder; this file has no other test that would mind.
    std::env::set_current_dir(home.path()).unwrap();
    let mut harness = Harness::builder().with_size([1280.0, 800.0]).wgpu().build_eframe(|creation| App::new(creation));
    assert_eq!(harness.state().state.page, Page::Welcome);

    harness.get_by_label_contains("Generate a town").click();
    wait(&mut harness, "the town", |state| state.page == Page::Workspace && state.shown.is_some());
    assert!(home.path().join("runs/town/Cartesian").is_dir());

    click(&mut harness, "Preset");
    click(&mut harness, "tiny");
    type_in(&mut harness, "Steps", "5000");
    click(&mut harness, "Validation and saving");
    type_in(&mut harness, "Validate every", "10");
    let train = &harness.state().state.draft.train;
    assert_eq!((train.preset, train.steps, train.validate_every), (Preset::Tiny, 5000, 10));
    harness.key_press(Key::F5);
    wait(&mut harness, "step 20", |state| state.engine.last.is_some_and(|last| last.step >= 20));
    harness.key_press(Key::F6);
    wait(&mut harness, "the pause", |state| matches!(state.engine.phase, Phase::Paused));
    wait(&mut harness, "a reconstruction", |state| state.shown.as_ref().is_some_and(|shown| shown.model.is_some()));
    let state = &harness.state().state;
    assert!(!state.history.steps.is_empty() && !state.history.validations.is_empty());

    harness.key_press(Key::End);
    harness.step();
    let frames = harness.state().state.shown.as_ref().unwrap().frames;
    assert_eq!(harness.state().state.frame(), frames - 1);
    harness.key_press(Key::Home);
    harness.step();
    assert_eq!(harness.state().state.frame(), 0);

    harness.get_by_label("Show Road").click();
    harness.step();
    assert!(!harness.state().state.view.shows(6), "roads are hidden");
    harness.get_by_label("Show Road").click();
    harness.step();
    assert!(harness.state().state.view.shows(6));

    harness.key_press(Key::T);
    harness.run_steps(3);
    let at = harness.get_by_label("Original view").rect().center();
    harness.event(Event::PointerMoved(at));
    harness.step();
    for pressed in [true, false] {
        let modifiers = Modifiers::NONE;
        harness.event(Event::PointerButton { pos: at, button: PointerButton::Primary, pressed, modifiers });
        harness.step();
    }
    assert!(harness.state().state.selected.is_some(), "the voxel in the middle is selected");
    let context = harness.ctx.clone();
    for pane in [Pane::Voxel, Pane::Error] {
        harness.state_mut().perform(&context, Action::Show(pane));
        harness.run_steps(2);
    }
    assert!(harness.query_by_label("Error view").is_some());

    harness.key_press_modifiers(Modifiers::COMMAND, Key::E);
    let run = harness.state().state.run.clone().unwrap();
    harness.step();
    wait(&mut harness, "the GIF", |state| state.jobs.list().is_empty());
    let gif = std::fs::read_dir(run.join("renders")).unwrap().flatten().map(|entry| entry.path());
    let gif = gif.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "gif")).unwrap();
    assert!(std::fs::read(gif).unwrap().starts_with(b"GIF89a"));

    harness.key_press_modifiers(Modifiers::COMMAND, Key::S);
    harness.step();
    wait(&mut harness, "the checkpoint", |state| state.notices.list().iter().any(|n| n.text.starts_with("Saved step")));
    let steps = harness.state().state.history.steps.clone();
    harness.key_press_modifiers(Modifiers::SHIFT, Key::F5);
    wait(&mut harness, "the saved model", |state| matches!(state.engine.phase, Phase::Showing));
    harness.state_mut().state.engine.finish();
    drop(harness);

    // The next day: the program starts anew, and the run is opened by its folder.
    let mut harness = Harness::builder().with_size([1280.0, 800.0]).wgpu().build_eframe(|creation| App::new(creation));
    assert_eq!(harness.state().state.page, Page::Welcome);
    harness.get_by_label("Open run…").click();
    harness.run_steps(3);
    harness.key_press_modifiers(Modifiers::COMMAND, Key::A);
    harness.event(Event::Text(run.display().to_string()));
    harness.step();
    harness.key_press(Key::Enter);
    harness.step();
    wait(&mut harness, "the reopened model", |state| matches!(state.engine.phase, Phase::Showing));
    wait(&mut harness, "its reconstruction", |state| state.shown.as_ref().is_some_and(|shown| shown.model.is_some()));
    let state = &harness.state().state;
    assert_eq!((state.page, state.run.as_ref(), state.draft.train.steps), (Page::Workspace, Some(&run), 5000));
    let logged = &state.history.steps;
    assert!(logged.len() >= 2);
    assert!(logged.iter().all(|step| step.step % 10 == 0 || steps.contains(step)), "the curves are the run's own");
}
