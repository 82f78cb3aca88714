//! The window around the panels: first page, menu, palette, drops, memory, the end of a run.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use eframe::egui::{DroppedFile, HoveredFile, Key, Modifiers, ViewportEvent, ViewportId};
use eframe::{App as _, Storage, get_value};
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;
use egui_tiles::Tree;
use sep4d::app::App;
use sep4d::app::actions::Action;
use sep4d::app::layout::Pane;
use sep4d::app::state::Page;
use sep4d::data::synth::{self, Level, SynthOptions};
use sep4d::train::trainer::Place;

/// The app as a new user starts it, without the example's model: that would work in the background.
fn first_start(size: [f32; 2]) -> Harness<'static, App> {
    let mut harness = Harness::builder().with_size(size).build_eframe(|creation| App::new(creation));
    harness.run_steps(2);
    harness
}

/// A small data set.
fn write_town(folder: &Path) -> PathBuf {
    let root = folder.join("town");
    let grid = synth::grid([16, 16, 8], [0.8, 0.8, 0.375]).unwrap();
    let options = SynthOptions { grid, frames: 8, towns: [1, 1, 0], levels: vec![Level::Light], ..Default::default() };
    synth::write(&root, &options, |_| {}).unwrap();
    root
}

/// Steps until `done`, or fails.
fn wait(harness: &mut Harness<'static, App>, what: &str, done: impl Fn(&App) -> bool) {
    for _ in 0..3000 {
        harness.run_steps(1);
        if done(harness.state()) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("waited in vain until {what}: {:?}", harness.state().state.notices.list());
}

#[derive(Debug)]
struct Dropped(PathBuf);

impl DroppedFile for Dropped {
    fn path(&self) -> &Path {
        &self.0
    }

    fn bytes(&self) -> Result<Vec<u8>, String> {
        Err("it is a folder".into())
    }
}

#[derive(Default)]
struct Store(HashMap<String, String>);

impl Storage for Store {
    fn get_string(&self, key: &str) -> Option<String> {
        self.0.get(key).cloned()
    }

    fn set_string(&mut self, key: &str, value: String) {
        self.0.insert(key.to_owned(), value);
    }

    fn remove_string(&mut self, key: &str) {
        self.0.remove(key);
    }

    fn flush(&mut self) {}
}

fn restored(store: Store) -> Harness<'static, App> {
    // The toolkit lends its store for as long as the app is made; a test's may as well stay.
    let store: &'static Store = Box::leak(Box::new(store));
    Harness::builder().with_size([1280.0, 800.0]).build_eframe(move |creation| {
        creation.storage = Some(store);
        App::new(creation)
    })
}

#[test]
fn the_first_page_has_three_choices() {
    for size in [[800.0, 520.0], [1280.0, 800.0]] {
        let harness = first_start(size);
        let mut bottom = 0.0;
        for name in ["Generate a town", "Open data set…", "Open run…"] {
            let card = harness.get_by_label(name).rect();
            assert!(card.top() >= bottom && card.bottom() < size[1] && card.width() > 300.0, "{name}: {card:?}");
            bottom = card.bottom();
        }
    }
}

#[test]
fn the_example_is_there_at_once_and_can_be_explored() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_path_buf();
    let mut harness = Harness::builder().with_size([1280.0, 800.0]).build_eframe(move |creation| {
        let mut app = App::new(creation);
        app.start(None, Some(&data));
        app
    });
    let shown = harness.state().state.shown.as_ref().unwrap();
    assert!(shown.model.is_some() && shown.frames == 8);
    assert_eq!(shown.class_counts(0).iter().filter(|count| **count > 0).count(), 10, "all classes but one are there");
    harness.run_steps(2);
    harness.get_by_label("Explore this example").click();
    harness.run_steps(2);
    assert_eq!(harness.state().state.page, Page::Workspace);
    wait(&mut harness, "the model is loaded", |app| {
        app.state.shown.as_ref().and_then(|shown| shown.model.as_ref()).is_some_and(|model| !model.likely.is_empty())
    });
    let state = &harness.state().state;
    assert!(state.recent.paths.is_empty() && state.resumable.is_none());
    assert!(!state.history.validations.is_empty());
}

#[test]
fn the_palette_is_worked_by_keys() {
    let mut harness = first_start([1280.0, 800.0]);
    harness.key_press_modifiers(Modifiers::COMMAND, Key::P);
    harness.run_steps(2);
    harness.get_by_label("Find a command").type_text("reset lay");
    harness.run_steps(2);
    assert!(harness.query_by_label_contains("Reset the layout").is_none(), "there is no layout on the first page");
    harness.key_press(Key::Escape);
    harness.run_steps(2);
    assert!(harness.query_by_label("Find a command").is_none());

    harness.state_mut().state.page = Page::Workspace;
    harness.key_press_modifiers(Modifiers::COMMAND, Key::P);
    harness.run_steps(2);
    harness.get_by_label("Find a command").type_text("start pa");
    harness.run_steps(2);
    harness.key_press(Key::Enter);
    harness.run_steps(2);
    assert_eq!(harness.state().state.page, Page::Welcome);
}

#[test]
fn what_is_dropped_is_opened_and_what_cannot_be_is_told() {
    let mut harness = first_start([1280.0, 800.0]);
    harness.input_mut().hovered_files.push(HoveredFile::default());
    harness.run_steps(2);
    assert!(harness.query_by_label_contains("Drop to open").is_some());
    harness.input_mut().hovered_files.clear();
    let folder = tempfile::tempdir().unwrap();
    let root = write_town(folder.path());
    harness.input_mut().dropped_files.push(Arc::new(Dropped(root.clone())));
    wait(&mut harness, "the data set is open", |app| app.state.source.is_some());
    assert_eq!(harness.state().state.page, Page::Workspace);
    assert_eq!(harness.state().state.recent.paths, [root]);
    assert!(harness.query_by_label_contains("Drop to open").is_none());

    harness.input_mut().dropped_files.push(Arc::new(Dropped(folder.path().join("nothing"))));
    harness.run_steps(4);
    assert!(harness.query_by_label_contains("open a data set, a run folder").is_some());
    harness.get_by_label("Dismiss this message").click();
    harness.run_steps(2);
    assert!(harness.state().state.notices.list().is_empty());
}

#[test]
fn the_menu_leads_to_orders() {
    let mut harness = first_start([1280.0, 800.0]);
    harness.state_mut().state.page = Page::Workspace;
    harness.run_steps(2);
    harness.get_by_label("Menu").click();
    harness.run_steps(2);
    harness.get_by_label("Help").click();
    harness.run_steps(2);
    harness.get_all_by_label("Start page and back").last().unwrap().click();
    harness.run_steps(2);
    assert_eq!(harness.state().state.page, Page::Welcome);
}

#[test]
fn layout_view_and_settings_are_remembered() {
    let mut first = first_start([1280.0, 800.0]);
    let context = first.ctx.clone();
    first.state_mut().perform(&context, Action::Show(Pane::Latents));
    let state = &mut first.state_mut().state;
    state.view.toggle_class(3);
    state.playback.change_speed(-1);
    state.draft.train.steps = 77;
    state.recent.opened(Path::new("/data/town"));
    let (view, speed) = (state.view.clone(), state.playback.speed);
    let mut store = Store::default();
    first.state_mut().save(&mut store);
    let layout: Tree<Pane> = get_value(&store, "layout").unwrap();

    let mut second = restored(store);
    let state = &second.state().state;
    assert_eq!((&state.view, state.playback.speed, state.draft.train.steps), (&view, speed, 77));
    assert_eq!(state.recent.open.as_deref(), Some(Path::new("/data/town")));
    let mut again = Store::default();
    second.state_mut().save(&mut again);
    assert_eq!(get_value(&again, "layout"), Some(layout.clone()));
    first.state_mut().perform(&context, Action::ResetLayout);
    first.state_mut().save(&mut again);
    assert_ne!(get_value(&again, "layout"), Some(layout));
}

#[test]
fn a_broken_memory_is_forgotten() {
    let mut store = Store::default();
    for key in ["layout", "view", "playback", "recent", "settings"] {
        store.set_string(key, "(no: such \"thing\"".into());
    }
    store.set_string("recent", "(paths: [\"/data/town\"], of_another_version: 3)".into());
    let mut harness = restored(store);
    harness.state_mut().state.page = Page::Workspace;
    harness.run_steps(2);
    assert!(harness.query_by_label(Pane::Settings.title()).is_some());
    assert_eq!(harness.state().state.recent.paths, [Path::new("/data/town")]);
}

#[test]
fn a_run_whose_data_have_moved_asks_for_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = first_start([1280.0, 800.0]);
    harness.state_mut().start(None, Some(folder.path()));
    // Else the example, whose run this is, asks for its data too, at any time.
    wait(&mut harness, "the example", |app| app.state.shown.as_ref().is_some_and(|shown| shown.model.is_some()));
    wait(&mut harness, "its end", |app| app.state.jobs.list().is_empty());
    let (town, run) = (folder.path().join("welcome/example-town"), folder.path().join("welcome/example-run"));
    let moved = folder.path().join("moved");
    std::fs::rename(&town, &moved).unwrap();
    harness.input_mut().dropped_files.push(Arc::new(Dropped(run.clone())));
    wait(&mut harness, "the missing data are told", |app| {
        app.state.notices.list().iter().any(|notice| notice.text.contains("are no longer at"))
    });
    wait(&mut harness, "the field is open", |app| app.state.jobs.list().is_empty());
    harness.run_steps(2);
    assert!(harness.query_by_label_contains("Choose the folder of the data").is_some());
    // Not with the pointer: the field takes some frames until it is in its place.
    harness.get_by_label("Cancel").click_accesskit();
    harness.run_steps(2);
    assert!(harness.query_by_label("Path").is_none());
}

#[test]
fn a_window_that_is_closed_while_it_trains_saves_first() {
    let folder = tempfile::tempdir().unwrap();
    let root = write_town(folder.path());
    let mut harness = first_start([1280.0, 800.0]);
    let run = folder.path().join("run");
    let mut config = sep4d::train::config::RunConfig::preset(sep4d::train::config::Preset::Tiny, None);
    config.data.root = root;
    config.train.steps = 100_000;
    harness.state_mut().state.engine.train(config, Place::At(run.clone()), false).unwrap();
    wait(&mut harness, "training has begun", |app| app.state.engine.last.is_some());
    let events = &mut harness.input_mut().viewports.entry(ViewportId::ROOT).or_default().events;
    events.push(ViewportEvent::Close);
    harness.run_steps(2);
    assert!(harness.query_by_label("Saving the run…").is_some());
    wait(&mut harness, "the run is saved", |app| !app.state.engine.is_training());
    assert!(sep4d::train::run_folder::RunFolder::open(&run).unwrap().checkpoints().latest_path().is_ok());
}

#[test]
fn what_was_opened_lately_is_in_the_menu_and_below_what_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let root = write_town(folder.path());
    let mut harness = first_start([1280.0, 800.0]);
    harness.input_mut().dropped_files.push(Arc::new(Dropped(root.clone())));
    wait(&mut harness, "the data set is open", |app| app.state.source.is_some());
    harness.get_by_label("Menu").click();
    harness.run_steps(2);
    harness.get_by_label("Open recent").click();
    harness.run_steps(2);
    assert!(harness.query_by_label("Open town").is_some());
    harness.key_press(Key::Escape);
    harness.run_steps(2);
    harness.get_by_label("Data set: town").click();
    harness.run_steps(2);
    std::fs::remove_dir_all(&root).unwrap();
    harness.get_by_label("Open town").click();
    harness.run_steps(4);
    assert!(harness.state().state.recent.paths.is_empty(), "what is gone is forgotten");
    assert!(harness.query_by_label_contains("open a data set, a run folder").is_some());
}

#[test]
fn all_keys_are_listed() {
    let mut harness = first_start([1280.0, 800.0]);
    harness.key_press(Key::F1);
    harness.run_steps(3);
    for entry in sep4d::app::actions::ENTRIES {
        assert!(harness.query_all_by_label(entry.name).next().is_some(), "{}", entry.name);
    }
    harness.key_press(Key::Escape);
    harness.run_steps(2);
    assert!(harness.query_by_label("Close the list of keys").is_none());
}
