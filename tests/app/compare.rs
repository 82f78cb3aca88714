//! Two runs of different models side by side in the real window, from their folders to a saved report.

use std::path::{Path, PathBuf};
use std::time::Duration;

use eframe::egui::{Event, Key, Modifiers};
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;
use sep4d::app::App;
use sep4d::app::actions::Action;
use sep4d::app::layout::Pane;
use sep4d::app::shown::Shown;
use sep4d::app::view::Coloring;
use sep4d::data::synth::{self, Level, SynthOptions};
use sep4d::train::config::RunConfig;
use sep4d::train::events::Event as Told;
use sep4d::train::trainer::{Place, Request, Task, Trainer};

use crate::wait::wait;

/// Trains a few steps of a model on `town`; returns its folder.
fn trained(town: &Path, folder: PathBuf, set: &[&str]) -> PathBuf {
    let usual = [
        "train.preset=tiny",
        "train.steps=12",
        "train.validate_every=6",
        "train.log_every=2",
        "data.validation_clips=2",
    ];
    let settings: Vec<String> = usual.iter().chain(set).map(|pair| (*pair).to_owned()).collect();
    let mut config = RunConfig::resolve(None, None, &settings).unwrap();
    config.data.root = town.to_path_buf();
    let (place, task) = (Place::At(folder.clone()), Task::Train { resume: false });
    let request = Request { config, place, task, background: false, command_line: Vec::new(), wake: None };
    let trainer = Trainer::start(request).unwrap();
    for _ in 0..1200 {
        match trainer.next_event(Duration::from_secs(1)).unwrap() {
            Some(Told::Finished(_)) => return folder,
            Some(Told::Failed(why)) => panic!("{why}"),
            _ => {}
        }
    }
    panic!("the run does not end");
}

/// Types a path into the window's field, as a user who knows where the run is.
fn choose(harness: &mut Harness<'static, App>, path: &Path) {
    harness.run_steps(3);
    harness.key_press_modifiers(Modifiers::COMMAND, Key::A);
    harness.event(Event::Text(path.display().to_string()));
    harness.step();
    harness.key_press(Key::Enter);
    harness.run_steps(2);
}

#[test]
fn runs_of_different_models_are_compared_and_a_report_is_saved() {
    let dir = tempfile::tempdir().unwrap();
    let (town, grid) = (dir.path().join("town"), synth::grid([16, 16, 8], [1.6, 1.6, 0.375]).unwrap());
    let options = SynthOptions { grid, seed: 3, frames: 10, towns: [1, 1, 1], levels: vec![Level::Light] };
    synth::write(&town, &options, |_| {}).unwrap();
    let ours = trained(&town, dir.path().join("ours"), &["data.frames=4"]);
    let city = trained(&town, dir.path().join("city"), &["data.frames=4", "model.architecture=dynamic_city"]);
    let sora = trained(&town, dir.path().join("sora"), &["data.frames=4", "model.architecture=occ_sora"]);
    let longer = trained(&town, dir.path().join("longer"), &["data.frames=8"]);

    let mut harness = Harness::builder().with_size([1280.0, 800.0]).wgpu().build_eframe(|creation| App::new(creation));
    let run = ours.clone();
    harness.state_mut().start(Some(&run), Some(dir.path()));
    wait(&mut harness, "the run", |state| state.run.as_ref() == Some(&run));
    let of_the_run = |shown: &Shown| shown.grid.size == grid.size;
    assert!(harness.state().state.shown.as_ref().is_none_or(of_the_run), "the example is not taken for the run");
    wait(&mut harness, "the first model", |state| state.shown.as_ref().is_some_and(|shown| shown.model.is_some()));
    assert!(!Action::ExportComparison.is_enabled(&harness.state().state));

    harness.key_press_modifiers(Modifiers::COMMAND, Key::D);
    choose(&mut harness, &city);
    wait(&mut harness, "the second model", |state| state.rival(0).is_some());
    harness.key_press_modifiers(Modifiers::COMMAND, Key::D);
    choose(&mut harness, &sora);
    wait(&mut harness, "the third model", |state| state.rival(1).is_some());
    harness.run_steps(3);
    for view in ["Original view", "Reconstruction view", "Model B view", "Model C view"] {
        assert!(harness.query_by_label(view).is_some(), "{view}");
    }
    // One that sees other clips is compared by its curves alone, and says why.
    harness.key_press_modifiers(Modifiers::COMMAND, Key::D);
    choose(&mut harness, &longer);
    wait(&mut harness, "the fourth run", |state| state.rivals.list.len() == 3);
    assert!(harness.state().state.rivals.list[2].hint().contains("clips of 8 frames, those in view have 4"));
    assert!(!Action::OpenOverlay.is_enabled(&harness.state().state), "four are enough");
    harness.get_by_label("End the comparison with longer").scroll_to_me();
    harness.run_steps(3);
    harness.get_by_label("End the comparison with longer").click();
    harness.run_steps(3);
    assert_eq!(harness.state().state.compared_names(), ["ours", "city", "sora"]);

    // One scrubber: another clip comes for all of them.
    let clip = harness.state().state.wanted_clip;
    harness.key_press(Key::PageDown);
    wait(&mut harness, "the next clip of all models", |state| {
        state.shown.as_ref().is_some_and(|shown| shown.clip == clip + 1 && shown.model.is_some())
            && state.rival(0).is_some()
            && state.rival(1).is_some()
    });
    // One selection of classes, from the table.
    let context = harness.ctx.clone();
    harness.state_mut().perform(&context, Action::Show(Pane::Compare));
    harness.run_steps(3);
    harness.get_by_label("Road").scroll_to_me();
    harness.run_steps(3);
    harness.get_by_label("Road").click();
    harness.run_steps(3);
    assert_eq!(harness.state().state.view.solo, Some(6));
    harness.key_press(Key::Escape);
    harness.run_steps(3);
    assert_eq!(harness.state().state.view.solo, None);

    harness.get_by_label("Differences with sora").scroll_to_me();
    harness.run_steps(3);
    harness.get_by_label("Differences with sora").click();
    harness.run_steps(3);
    assert_eq!(harness.state().state.rivals.against, 1);
    let widest = harness.state().state.widest_difference().unwrap();
    harness.state_mut().state.playback.frame = (widest + 1) % 4;
    harness.key_press(Key::B);
    harness.run_steps(3);
    assert_eq!(harness.state().state.frame(), widest);
    harness.state_mut().perform(&context, Action::Show(Pane::Difference));
    harness.run_steps(3);
    assert!(harness.query_by_label("Difference view").is_some());
    harness.key_press(Key::E);
    harness.run_steps(3);
    assert_eq!(harness.state().state.view.coloring, Coloring::Errors);
    harness.key_press_modifiers(Modifiers::COMMAND, Key::R);
    harness.run_steps(2);
    wait(&mut harness, "the report", |state| state.jobs.list().is_empty());
    let report = std::fs::read_to_string(ours.join("renders/comparison.html")).unwrap();
    for part in ["A ours", "B city", "C sora", "C - A", "Mean (mIoU)", "data:image/png;base64,", "<svg"] {
        assert!(report.contains(part), "{part}");
    }
    let namespaces = report.matches("http://www.w3.org/2000/svg").count();
    assert_eq!(report.matches("://").count(), namespaces, "the page needs nothing from elsewhere");
    harness.key_press_modifiers(Modifiers::COMMAND | Modifiers::SHIFT, Key::D);
    harness.run_steps(3);
    assert!(harness.state().state.rivals.list.is_empty() && harness.query_by_label("Model B view").is_none());
    harness.state_mut().state.engine.finish();
}
