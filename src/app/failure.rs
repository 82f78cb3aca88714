//! What ends a run or a model that is shown: told in the middle of the window, with what to do, until it is read.

use eframe::egui::{Button, Context, Frame, Id, Label, Modal, RichText};

use super::App;
use super::actions::Action;
use super::style;
use super::training::Intent;
use crate::Error;
use crate::train::run_folder::RunFolder;

/// What happened, in a few words.
fn title(why: &Error) -> &'static str {
    match why {
        Error::Usage(_) | Error::Shape(_) => "This run cannot be started",
        Error::Data(_) | Error::Unreadable(_) => "The data cannot be used",
        Error::Device(_) => "The GPU has failed",
        Error::Memory(_) => "The GPU has too little memory",
        Error::NonFinite(_) => "The numbers of the run are no longer finite",
        Error::Busy(_) => "This run is written elsewhere",
        Error::Interrupted { .. } => "The run was interrupted",
    }
}

impl App {
    /// Tells why the trainer has ended. A window that was about to close stays, or nobody would read it.
    pub(super) fn fail(&mut self, why: Error) {
        self.closing = false;
        self.failure = Some(why);
        // A run that could not begin leaves nothing to go on with.
        let state = &mut self.state;
        if state.run.as_deref().is_some_and(|folder| RunFolder::open(folder).is_err()) {
            (state.run, state.resumable) = (None, None);
        }
    }

    /// Draws it, if something has failed.
    pub(super) fn failure(&mut self, context: &Context) {
        let Some(why) = &self.failure else { return };
        let state = &self.state;
        let resumes = matches!(Intent::of(state), Intent::Resume { from: 1.., .. }) && Action::Train.is_enabled(state);
        let (mut closed, mut resumed) = (false, false);
        let frame = Frame::popup(&context.global_style()).inner_margin(16.0);
        let modal = Modal::new(Id::unique("failure")).frame(frame).show(context, |ui| {
            ui.set_width(460.0);
            let color = style::colors(ui.visuals()).error;
            ui.label(RichText::new(title(why)).heading().color(color));
            ui.add_space(6.0);
            ui.add(Label::new(why.to_string()).wrap().selectable(true));
            ui.add_space(10.0);
            ui.horizontal(|ui| {
                if resumes {
                    resumed = ui.button(Intent::of(state).sentence(state)).clicked();
                }
                let close = ui.add(Button::new("Close"));
                if ui.memory(|memory| memory.focused().is_none()) {
                    close.request_focus();
                }
                closed = close.clicked();
            });
        });
        if closed || resumed || modal.should_close() {
            self.failure = None;
        }
        if resumed {
            self.train();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_that_was_to_close_stays_to_tell_that_saving_failed() {
        let mut harness = egui_kittest::Harness::builder().build_eframe(|creation| App::new(creation));
        harness.state_mut().closing = true;
        harness.state_mut().fail(Error::Data("the disk is full; make room and resume".into()));
        harness.run_steps(2);
        use egui_kittest::kittest::Queryable;
        assert!(!harness.state().closing);
        assert!(harness.query_by_label_contains("the disk is full").is_some());
        harness.key_press(eframe::egui::Key::Escape);
        harness.run_steps(2);
        assert!(harness.query_by_label_contains("the disk is full").is_none());
    }
}
