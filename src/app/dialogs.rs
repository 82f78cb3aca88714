//! Native file dialogs. They run on threads of their own; what was chosen arrives as a job's outcome.

use eframe::egui::Context;

use super::App;
use super::jobs::Outcome;

impl App {
    pub(super) fn choose_dataset(&mut self, _: &Context) {
        self.choose("Choose a data set's folder", false);
    }

    pub(super) fn choose_run(&mut self, _: &Context) {
        self.choose("Choose a run folder", false);
    }

    pub(super) fn choose_overlay(&mut self, _: &Context) {
        self.choose("Choose a run folder to compare with", true);
    }

    fn choose(&mut self, title: &str, overlay: bool) {
        let dialog = rfd::AsyncFileDialog::new().set_title(title).pick_folder();
        self.state.jobs.start("choosing a folder", move |_| {
            Ok(match pollster::block_on(dialog) {
                Some(folder) => Outcome::Chosen { path: folder.path().to_path_buf(), overlay },
                None => Outcome::Nothing,
            })
        });
    }
}
