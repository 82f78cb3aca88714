//! Driving a trainer from its events.

use std::path::Path;
use std::time::Duration;

use sep4d::train::config::RunConfig;
use sep4d::train::events::Event;
use sep4d::train::trainer::{Place, Request, Task, Trainer};

/// A trainer at work in `folder`.
pub fn start(config: &RunConfig, folder: &Path, task: Task, background: bool) -> Trainer {
    let (config, place) = (config.clone(), Place::At(folder.to_path_buf()));
    Trainer::start(Request { config, place, task, background, command_line: vec!["test".into()], wake: None }).unwrap()
}

/// The next event that `wanted` takes; fails if the run ends before, or takes ten minutes.
pub fn wait<R>(trainer: &Trainer, mut wanted: impl FnMut(&Event) -> Option<R>) -> R {
    for _ in 0..600 {
        let event = trainer.next_event(Duration::from_secs(1)).unwrap();
        if let Some(result) = event.as_ref().and_then(&mut wanted) {
            return result;
        }
        assert!(!matches!(event, Some(Event::Failed(_) | Event::Finished(_))), "{event:?}");
    }
    panic!("nothing came");
}
