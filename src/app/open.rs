//! Opening data sets, runs and checkpoints, generating towns: all as jobs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use eframe::egui::Context;

use super::App;
use super::history::History;
use super::jobs::{OpenedRun, Outcome};
use super::state::{Resumable, Source};
use crate::data::Dataset;
use crate::data::synth::{self, SynthOptions};
use crate::train::config::RunConfig;
use crate::train::run_folder::RunFolder;
use crate::{Error, Result};

/// What a path that was dropped or chosen turns out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A run folder.
    Run(PathBuf),
    /// A model file of a run.
    Checkpoint(PathBuf),
    /// A data set's folder.
    Dataset(PathBuf),
}

/// Tells what `path` is.
///
/// # Errors
/// [`Error::Data`] if it is nothing that can be opened.
pub fn recognise(path: &Path) -> Result<Found> {
    if path.is_file() && path.extension().is_some_and(|extension| extension == "safetensors") {
        return Ok(Found::Checkpoint(path.to_path_buf()));
    }
    if path.is_dir() && path.join("config.toml").is_file() {
        return Ok(Found::Run(path.to_path_buf()));
    }
    if path.is_dir() {
        return Ok(Found::Dataset(path.to_path_buf()));
    }
    Err(Error::Data(format!(
        "{} is neither a data set's folder, nor a run folder, nor a checkpoint (.safetensors); drop one of these",
        path.display()
    )))
}

fn open_source(root: &Path, config: &RunConfig) -> Result<Source> {
    let held_out = Dataset::open(root, config.data.val_split, config.dataset_options())?;
    Ok(Source { root: root.to_path_buf(), held_out: Arc::new(held_out) })
}

fn open_run(folder: &Path, checkpoint: Option<PathBuf>) -> Result<OpenedRun> {
    let run = RunFolder::open(folder)?;
    let checkpoint = match checkpoint {
        Some(path) => path,
        None => run.checkpoints().best_path().or_else(|_| run.checkpoints().latest_path())?,
    };
    let step = run.checkpoints().index().latest.unwrap_or(0);
    let config = run.config()?;
    let source = open_source(&config.data.root, &config)?;
    let history = History::read(&run)?;
    let resumable = Some(Resumable { config: config.clone(), step });
    Ok(OpenedRun { folder: folder.to_path_buf(), config, resumable, checkpoint, source, history })
}

/// The town of the first-run page: small enough to train on any machine.
///
/// # Errors
/// None that can happen: the grid is a valid one.
fn town() -> Result<SynthOptions> {
    let grid = synth::grid([32, 32, 8], [0.8, 0.8, 0.375])?;
    Ok(SynthOptions { grid, frames: 60, towns: [4, 1, 1], ..SynthOptions::default() })
}

impl App {
    /// Opens what `path` turns out to be.
    pub(super) fn open(&mut self, path: &Path) {
        match recognise(path) {
            Ok(Found::Run(folder)) => self.open_run(folder),
            Ok(Found::Checkpoint(file)) => self.open_checkpoint(file),
            Ok(Found::Dataset(root)) => self.open_dataset(root),
            Err(why) => self.state.notices.error(&why),
        }
    }

    /// Opens a data set with the draft's settings.
    pub(super) fn open_dataset(&mut self, root: PathBuf) {
        let config = self.state.draft.clone();
        self.state.jobs.start("opening the data set", move |_| Ok(Outcome::Source(open_source(&root, &config)?)));
    }

    /// Opens a run and shows its best model.
    pub(super) fn open_run(&mut self, folder: PathBuf) {
        self.state.jobs.start("opening the run", move |_| Ok(Outcome::Run(Box::new(open_run(&folder, None)?))));
    }

    /// Reads the metrics of a second run, to draw them behind those of the first.
    pub(super) fn open_overlay(&mut self, folder: PathBuf) {
        self.state
            .jobs
            .start("reading the other run", move |_| Ok(Outcome::Overlay(History::read(&RunFolder::open(&folder)?)?)));
    }

    fn open_checkpoint(&mut self, file: PathBuf) {
        self.state.jobs.start("opening the checkpoint", move |_| {
            let folder = file.parent().and_then(Path::parent).unwrap_or(Path::new(".")).to_path_buf();
            Ok(Outcome::Run(Box::new(open_run(&folder, Some(file))?)))
        });
    }

    /// Generates a small town and opens it.
    pub(super) fn generate(&mut self) {
        let mut config = self.state.draft.clone();
        self.state.jobs.start("generating a town", move |progress| {
            let root = PathBuf::from("runs/town");
            let options = town()?;
            let frames = options.towns.iter().sum::<usize>() * options.levels.len() * options.frames;
            synth::write(&root, &options, |done| progress.set(done, frames))?;
            config.data.root = root.clone();
            Ok(Outcome::Source(open_source(&root, &config)?))
        });
    }

    /// Reads the wanted clip's data, for the time until a model has something to say.
    pub(super) fn read_clip(&mut self) {
        let Some(source) = &self.state.source else { return };
        let (set, index) = (source.held_out.clone(), self.state.wanted_clip);
        self.state.jobs.start("reading the clip", move |_| Ok(Outcome::Clip(index, Box::new(set.clip(index)?))));
        self.state.engine.ask(index);
    }

    /// Opens what was dropped on the window.
    pub(super) fn take_dropped(&mut self, context: &Context) {
        let dropped = context.input(|input| input.raw.dropped_files.clone());
        for file in dropped {
            self.open(file.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_recognised_by_what_they_hold() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(recognise(folder.path()).unwrap(), Found::Dataset(folder.path().to_path_buf()));
        let file = folder.path().join("step.safetensors");
        std::fs::write(&file, b"").unwrap();
        assert_eq!(recognise(&file).unwrap(), Found::Checkpoint(file));
        std::fs::write(folder.path().join("config.toml"), b"").unwrap();
        assert_eq!(recognise(folder.path()).unwrap(), Found::Run(folder.path().to_path_buf()));
        assert!(recognise(&folder.path().join("nothing")).unwrap_err().to_string().contains("drop one of these"));
    }
}
