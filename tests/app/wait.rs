//! Waiting for what the trainer and the jobs tell the window.

use std::time::Duration;

use egui_kittest::Harness;
use sep4d::app::App;
use sep4d::app::state::State;

/// Lets time pass until `done`; a slow machine gets several minutes.
pub fn wait(harness: &mut Harness<'static, App>, what: &str, done: impl Fn(&State) -> bool) {
    for _ in 0..6000 {
        harness.step();
        if done(&harness.state().state) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let state = &harness.state().state;
    panic!("{what} never came: {:?}, {:?}", state.engine.phase, state.notices.list());
}
