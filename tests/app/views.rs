//! The linked views of the real window: pointer, keys, selection, classes, crop, and what is drawn.

use eframe::egui::{
    Event, Key, Modifiers, MouseWheelSource, MouseWheelUnit, PointerButton, Pos2, Rect, Theme, TouchPhase, vec2,
};
use egui_kittest::kittest::Queryable;
use egui_kittest::{Harness, SnapshotOptions};
use sep4d::app::App;
use sep4d::app::actions::Action;
use sep4d::app::layout::Pane;

use crate::example::{GRID, open_example};
use crate::wait::wait;

fn harness() -> Harness<'static, App> {
    let mut harness = Harness::builder().with_size([1280.0, 800.0]).wgpu().build_eframe(|creation| {
        let mut app = App::new(creation);
        open_example(&mut app);
        app
    });
    harness.run_steps(3);
    harness
}

fn view(harness: &Harness<'static, App>, name: &str) -> Rect {
    harness.get_by_label(name).rect()
}

fn press(harness: &mut Harness<'static, App>, at: Pos2, button: PointerButton, pressed: bool) {
    harness.event(Event::PointerButton { pos: at, button, pressed, modifiers: Modifiers::NONE });
    harness.run_steps(1);
}

fn drag(harness: &mut Harness<'static, App>, from: Pos2, by: eframe::egui::Vec2, button: PointerButton) {
    harness.event(Event::PointerMoved(from));
    harness.run_steps(1);
    press(harness, from, button, true);
    for part in [0.25, 0.5, 1.0] {
        harness.event(Event::PointerMoved(from + by * part));
        harness.run_steps(1);
    }
    press(harness, from + by, button, false);
}

#[test]
fn the_pointer_orbits_pans_and_zooms_all_views() {
    let mut harness = harness();
    let center = view(&harness, "Original view").center();
    let before = harness.state().state.view.clone();
    drag(&mut harness, center, vec2(80.0, 30.0), PointerButton::Primary);
    let orbited = harness.state().state.view.clone();
    assert!(orbited.yaw_rad != before.yaw_rad && orbited.pitch_rad > before.pitch_rad);
    drag(&mut harness, center, vec2(40.0, 0.0), PointerButton::Secondary);
    let panned = harness.state().state.view.clone();
    assert!(panned.target != orbited.target && panned.yaw_rad == orbited.yaw_rad);
    harness.event(Event::PointerMoved(center));
    harness.event(Event::MouseWheel {
        unit: MouseWheelUnit::Point,
        delta: vec2(0.0, 120.0),
        modifiers: Modifiers::NONE,
        phase: TouchPhase::Move,
        source: MouseWheelSource::Wheel,
    });
    harness.run_steps(4);
    assert!(harness.state().state.view.zoom < panned.zoom, "scrolling up comes closer");
}

#[test]
fn every_move_of_the_camera_has_a_key() {
    let mut harness = harness();
    let mut seen = vec![harness.state().state.view.clone()];
    for key in [Key::A, Key::W, Key::Plus, Key::T, Key::F, Key::O] {
        harness.key_press(key);
        harness.run_steps(2);
        let view = harness.state().state.view.clone();
        assert!(!seen.contains(&view), "{key:?} changes nothing");
        seen.push(view);
    }
    for key in [Key::A, Key::W] {
        harness.key_press_modifiers(Modifiers::SHIFT, key);
        harness.run_steps(2);
        let view = harness.state().state.view.clone();
        assert!(!seen.contains(&view), "shift {key:?} changes nothing");
        seen.push(view);
    }
    harness.key_press(Key::R);
    harness.run_steps(2);
    let view = &harness.state().state.view;
    assert_eq!((view.yaw_rad, view.zoom, view.target), (seen[0].yaw_rad, seen[0].zoom, seen[0].target));
}

#[test]
fn a_click_selects_the_voxel_in_all_views_and_keys_move_it() {
    let mut harness = harness();
    harness.key_press(Key::T);
    harness.run_steps(3);
    let center = view(&harness, "Original view").center();
    harness.event(Event::PointerMoved(center));
    harness.run_steps(2);
    let hovered = harness.state().state.hovered.expect("the ground is under the pointer");
    press(&mut harness, center, PointerButton::Primary, true);
    press(&mut harness, center, PointerButton::Primary, false);
    let selected = harness.state().state.selected.unwrap();
    assert_eq!(selected, hovered);
    // Seen from the top, the middle of the view is the middle of the grid.
    assert!(selected[0].abs_diff(GRID[0] / 2) <= 1 && selected[1].abs_diff(GRID[1] / 2) <= 1, "{selected:?}");
    harness.key_press_modifiers(Modifiers::ALT, Key::ArrowUp);
    harness.run_steps(1);
    assert_eq!(harness.state().state.selected.unwrap()[0], selected[0] + 1);
    harness.key_press(Key::Escape);
    harness.run_steps(1);
    assert_eq!(harness.state().state.selected, None);
    harness.remove_cursor();
    harness.key_press(Key::V);
    harness.run_steps(1);
    let by_key = harness.state().state.selected.unwrap();
    assert!(by_key[0].abs_diff(selected[0]) <= 1 && by_key[1].abs_diff(selected[1]) <= 1);
}

#[test]
fn what_is_hidden_is_neither_drawn_nor_picked() {
    let mut harness = harness();
    let rect = view(&harness, "Original view");
    let before = harness.render().unwrap();
    for class in 1..=10u8 {
        harness.state_mut().state.view.toggle_class(class);
    }
    harness.event(Event::PointerMoved(rect.center()));
    harness.run_steps(2);
    assert_eq!(harness.state().state.hovered, None);
    let after = harness.render().unwrap();
    let differs = |a: &image::RgbaImage, b: &image::RgbaImage, rect: Rect| {
        let inside = |x: u32, y: u32| rect.shrink(40.0).contains(Pos2::new(x as f32, y as f32));
        let pixels = a.enumerate_pixels().filter(|(x, y, _)| inside(*x, *y));
        pixels.filter(|(x, y, pixel)| *pixel != b.get_pixel(*x, *y)).count()
    };
    assert!(differs(&before, &after, rect) > 2000, "the voxels have gone");
    harness.key_press(Key::Backtick);
    harness.remove_cursor();
    // Until the view rests and its edges are smooth again.
    harness.run_steps(4);
    let again = harness.render().unwrap();
    assert!(differs(&before, &again, rect) < 200, "and come back");
}

#[test]
fn time_is_scrubbed_by_keys_and_changes_of_view_are_undone() {
    let mut harness = harness();
    harness.key_press(Key::ArrowRight);
    harness.run_steps(1);
    assert_eq!(harness.state().state.frame(), 1);
    harness.key_press(Key::End);
    harness.run_steps(1);
    assert_eq!(harness.state().state.frame(), 3);
    harness.key_press(Key::Home);
    harness.run_steps(1);
    assert_eq!(harness.state().state.frame(), 0);
    // The view is remembered when it has been left alone for a second.
    harness.run_steps(8);
    let before = harness.state().state.view.clone();
    harness.key_press(Key::A);
    harness.run_steps(8);
    assert_ne!(harness.state().state.view, before);
    harness.key_press_modifiers(Modifiers::COMMAND, Key::Z);
    harness.run_steps(1);
    assert_eq!(harness.state().state.view, before);
}

/// The window as a picture; drivers round the edges of letters differently, and those of voxels more so.
fn looks(harness: &mut Harness<'static, App>, name: &str, has_voxels: bool) {
    let pixels = if has_voxels { 2000 } else { 200 };
    harness.snapshot_options(name, &SnapshotOptions::new().max_failed_pixels(pixels));
}

/// Leaves views out of the picture: what they draw is compared once.
fn hide(harness: &mut Harness<'static, App>, views: &[&str]) {
    for view in views {
        let rect = harness.get_by_label(view).rect();
        harness.mask(rect);
    }
}

#[test]
fn the_window_looks_as_it_did() {
    let folder = tempfile::tempdir().unwrap();
    // One window for all pictures: each takes a software driver seconds to open.
    let mut harness = Harness::builder().with_size([1280.0, 800.0]).wgpu().build_eframe(|creation| App::new(creation));
    let context = harness.ctx.clone();
    for (action, theme, name) in [
        (Action::Keys, Theme::Dark, "keys-dark"),
        (Action::Keys, Theme::Light, "keys-light"),
        (Action::Palette, Theme::Light, "palette-light"),
    ] {
        context.set_theme(theme);
        harness.state_mut().perform(&context, action);
        harness.run_steps(4);
        looks(&mut harness, name, false);
        harness.key_press(Key::Escape);
        harness.run_steps(3);
    }

    harness.state_mut().start(None, Some(folder.path()));
    wait(&mut harness, "the example", |state| state.jobs.list().is_empty());
    wait(&mut harness, "its model", |state| {
        state.shown.as_ref().and_then(|shown| shown.model.as_ref()).is_some_and(|model| !model.likely.is_empty())
    });
    let playback = &mut harness.state_mut().state.playback;
    (playback.frame, playback.playing) = (0, false);
    for (theme, name) in [(Theme::Dark, "first-page-dark"), (Theme::Light, "first-page-light")] {
        context.set_theme(theme);
        harness.run_steps(4);
        hide(&mut harness, &["Original view", "Reconstruction view"]);
        looks(&mut harness, name, false);
    }

    let app = harness.state_mut();
    app.state.engine.finish();
    (app.state.source, app.state.run) = (None, None);
    open_example(app);
    app.state.selected = Some([30, 34, 0]);
    app.perform(&context, Action::Show(Pane::Voxel));
    context.set_theme(Theme::Dark);
    harness.run_steps(6);
    looks(&mut harness, "workspace-dark", true);
    for (theme, size, name) in
        [(Theme::Light, [1280.0, 800.0], "workspace-light"), (Theme::Dark, [2560.0, 1440.0], "workspace-large-dark")]
    {
        context.set_theme(theme);
        harness.set_size(size.into());
        harness.run_steps(6);
        hide(&mut harness, &["Original view", "Reconstruction view", "Error view"]);
        looks(&mut harness, name, false);
    }
}
