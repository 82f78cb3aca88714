//! What the plots do, driven as a user does.

use eframe::egui::{Event, Modifiers, PointerButton, Pos2, Theme};
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;

use super::*;
use crate::app::history::History;
use crate::app::history::tests::{step, validation};
use crate::app::panels::tests::{Bench, bench};
use crate::app::rivals::OpenedRival;
use crate::models::Terms;

fn history(name: &str, reports: u32) -> History {
    let mut history = History::new(format!("runs/{name}").into());
    for i in 1..=reports {
        history.step(step(10 * i, f64::from(i), 0.1));
    }
    history
}

fn plots(pane: Pane, history: History, overlay: Option<History>) -> Harness<'static, Bench> {
    let mut state = State { history, ..State::default() };
    if let Some(overlay) = overlay {
        state.rivals.add(OpenedRival::of_curves(overlay), None, 0).unwrap();
    }
    bench(pane, state, [800.0, 200.0], Theme::Dark)
}

fn memory<'a>(harness: &'a Harness<'static, Bench>) -> &'a Memory {
    &harness.state().memory.plots
}

#[test]
fn curves_are_switched_off_and_on() {
    let mut harness = plots(Pane::Losses, history("a", 100), None);
    harness.get_by_label("KL").click();
    harness.run_ok();
    assert_eq!(memory(&harness).hidden, ["KL"]);
    harness.get_by_label("KL").click();
    harness.run_ok();
    assert!(memory(&harness).hidden.is_empty());
}

#[test]
fn buttons_zoom_and_move() {
    let mut harness = plots(Pane::Losses, history("a", 100), None);
    harness.get_by_label("Zoom in").click();
    harness.run_ok();
    assert_eq!(memory(&harness).range, Some(250.0..=750.0));
    harness.get_by_label("Show what comes after").click();
    harness.run_ok();
    assert_eq!(memory(&harness).range, Some(500.0..=1000.0));
    harness.get_by_label("Show all of it").click();
    harness.run_ok();
    assert_eq!(memory(&harness).range, None);
    harness.get_by_label("Over time").click();
    harness.run_ok();
    assert_eq!(memory(&harness).along, Along::Seconds);
}

fn press(harness: &mut Harness<'static, Bench>, pos: Pos2, pressed: bool) {
    harness.event(Event::PointerMoved(pos));
    harness.step();
    harness.event(Event::PointerButton { pos, button: PointerButton::Primary, pressed, modifiers: Modifiers::NONE });
    harness.step();
}

#[test]
fn a_drag_selects_a_part() {
    let mut harness = plots(Pane::Losses, history("a", 100), None);
    let chart = harness.get_by_label("Chart: Loss").rect();
    let at = |part: f32| chart.left() + part * chart.width();
    press(&mut harness, Pos2::new(at(0.25), chart.center().y), true);
    harness.event(Event::PointerMoved(Pos2::new(at(0.4), chart.center().y)));
    harness.step();
    press(&mut harness, Pos2::new(at(0.5), chart.center().y), false);
    let range = memory(&harness).range.clone().unwrap();
    assert!((range.start() - 250.0).abs() < 20.0 && (range.end() - 500.0).abs() < 20.0, "{range:?}");
}

#[test]
fn the_pointer_reads_all_curves_of_both_runs() {
    let mut harness = plots(Pane::Losses, history("a", 100), Some(history("b", 50)));
    let chart = harness.get_by_label("Chart: Loss").rect();
    harness.hover_at(Pos2::new(chart.left() + 0.75 * chart.width(), chart.center().y));
    harness.run_ok();
    let steps: Vec<_> = harness.query_all_by_label_contains("step ").collect();
    assert_eq!(steps.len(), 2, "each run tells its nearest step");
    assert!(harness.query_by_label("step 500").is_some(), "the second run ends there");
    assert_eq!(harness.query_all_by_label_contains("2.0000").count(), 2);
}

#[test]
fn a_long_run_is_thinned_out_and_kept_from_frame_to_frame() {
    let mut harness = plots(Pane::Losses, history("a", 100_000), None);
    let drawn = memory(&harness).drawn[&Pane::Losses].points();
    assert!(drawn > 2000 && drawn < 7 * 4 * 900, "{drawn} points are drawn");
    harness.run_ok();
    harness.state_mut().state.history.step(step(2_000_000, 1e5, 0.1));
    harness.run_ok();
    assert!(memory(&harness).drawn[&Pane::Losses].points() > 2000);
}

#[test]
fn what_is_not_finite_does_no_harm() {
    let mut broken = history("a", 3);
    for metrics in &mut broken.steps {
        (metrics.loss, metrics.terms, metrics.skipped) = (f32::NAN, Terms::of([("kl", f32::INFINITY)]), 1);
    }
    let mut harness = plots(Pane::Losses, broken, None);
    harness.get_by_label("Logarithmic scale").click();
    harness.run_ok();
    assert!(memory(&harness).logarithmic);
}

#[test]
fn panels_without_curves_say_when_there_will_be_some() {
    let harness = plots(Pane::Accuracy, history("a", 3), None);
    assert!(harness.query_by_label_contains("first validation").is_some());
    let mut scored = history("a", 3);
    scored.validation(validation(20, 0.5));
    let harness = plots(Pane::Accuracy, scored, None);
    assert!(harness.query_by_label("Chart: mIoU").is_some());
    assert!(plots(Pane::Losses, History::default(), None).query_by_label_contains("first step").is_some());
}

#[test]
fn zooming_stays_within_the_run() {
    let full = 0.0..=100.0;
    assert_eq!(zoomed_at(&full, &full, 0.5, 0.5), Some(25.0..=75.0));
    assert_eq!(zoomed_at(&(25.0..=75.0), &full, 2.0, 0.5), None);
    assert_eq!(zoomed_at(&(25.0..=75.0), &full, 0.5, 0.0), Some(25.0..=50.0));
    assert_eq!(moved(&(25.0..=75.0), &full, 0.5), Some(50.0..=100.0));
    assert_eq!(moved(&(50.0..=100.0), &full, 0.5), Some(50.0..=100.0));
    assert_eq!(moved(&(20.0..=70.0), &full, -0.5), Some(0.0..=50.0));
    assert!(fitting(50.0..=50.0, &full).is_some_and(|range| range.end() > range.start()));
}

#[test]
fn numbers_have_their_units() {
    let written = [Unit::Plain.write(0.42311), Unit::Plain.write(3e-5), Unit::Percent.write(0.641)];
    assert_eq!(written, ["0.4231", "3.00e-5", "64.1 %"]);
    assert_eq!(Unit::PerSecond.write(7.318), "7.32/s");
    assert_eq!(Unit::Plain.write(f64::NAN), "not finite");
}
