//! Opening data sets, runs and checkpoints, generating towns: all as jobs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use eframe::egui::Context;

use super::dialogs::Purpose;
use super::example::Example;
use super::history::History;
use super::jobs::{OpenedRun, Outcome};
use super::state::{Resumable, Source};
use super::{App, places, rivals};
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
    let what = if path.exists() {
        "is neither a data set's folder, nor a run folder, nor a checkpoint"
    } else {
        "is not there"
    };
    Err(Error::Data(format!("{} {what}; open a data set, a run folder or a checkpoint (.safetensors)", path.display())))
}

fn open_source(root: &Path, config: &RunConfig) -> Result<Source> {
    let held_out = Dataset::open(root, config.data.val_split, config.dataset_options())?;
    Ok(Source { root: root.to_path_buf(), held_out: Arc::new(held_out) })
}

/// Opens a run, with its data at `data` or where the run says; if they are not there, the outcome asks for them.
fn open_run(folder: &Path, checkpoint: Option<PathBuf>, data: Option<PathBuf>) -> Result<Outcome> {
    let chosen = checkpoint.clone();
    let run = RunFolder::open(folder)?;
    let checkpoint = match checkpoint {
        Some(path) => path,
        None => run.checkpoints().best_path().or_else(|_| run.checkpoints().latest_path())?,
    };
    let step = run.checkpoints().index()?.latest.unwrap_or(0);
    let mut config = run.config()?;
    if let Some(data) = data {
        config.data.root = data;
    }
    let source = match open_source(&config.data.root, &config) {
        Ok(source) => source,
        Err(_) if !config.data.root.is_dir() => {
            let (run, root) = (folder.display(), config.data.root.display());
            let why = Error::Data(format!("the data of the run {run} are no longer at {root}; choose their folder"));
            let purpose = Purpose::DataOf { run: folder.to_path_buf(), checkpoint: chosen };
            return Ok(Outcome::DataMoved { why, purpose });
        }
        Err(why) => return Err(why),
    };
    let history = History { steps_per_epoch: rivals::steps_per_epoch(&config), ..History::read(&run)? };
    // A model that came without Adam's moments cannot be trained further.
    let moments = folder.join(format!("checkpoints/step-{step:08}.optim.safetensors"));
    let resumable = (step == 0 || moments.is_file()).then(|| Resumable { config: config.clone(), step });
    Ok(Outcome::Run(Box::new(OpenedRun {
        folder: folder.to_path_buf(),
        config,
        resumable,
        checkpoint,
        source,
        history,
    })))
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
        self.open_run_with(folder, None, None);
    }

    /// Opens a run and shows a model of it, the best if none is named, with its data where the run says or at `data`.
    pub(super) fn open_run_with(&mut self, folder: PathBuf, checkpoint: Option<PathBuf>, data: Option<PathBuf>) {
        self.state.jobs.start("opening the run", move |_| open_run(&folder, checkpoint, data));
    }

    /// Shows the example's clip.
    pub(super) fn unpack_example(&mut self, data: Option<&Path>) {
        let unpacked = Example::unpack(data).and_then(|example| Ok((example.shown()?, example)));
        match unpacked {
            Ok((shown, example)) => {
                self.state.shown = Some(shown);
                self.state.playback.playing = true;
                self.example = Some(example);
            }
            Err(why) => self.state.notices.error(&why),
        }
    }

    /// Loads the example's model, to show it if nothing else has been opened meanwhile.
    pub(super) fn load_example(&mut self) {
        let Some(run) = self.example.as_ref().map(|example| example.run()) else { return };
        self.state.jobs.start("loading the example", move |_| {
            Ok(match open_run(&run, None, None)? {
                Outcome::Run(run) => Outcome::Example(run),
                other => other,
            })
        });
    }

    pub(super) fn take_example(&mut self, run: OpenedRun) {
        if self.state.source.is_none() {
            // What is trained next is not the example again, and its clip is in view already.
            let (draft, shown) = (self.state.draft.clone(), self.state.shown.take());
            self.show_run(run);
            (self.state.draft, self.state.shown) = (draft, shown);
        }
    }

    /// Whether the example is what is open.
    pub(super) fn is_example(&self) -> bool {
        let Some(example) = &self.example else { return false };
        self.state.source.as_ref().is_none_or(|source| example.holds(&source.root))
    }

    /// Opens what was opened before; what is gone is forgotten.
    pub(super) fn open_recent(&mut self, path: PathBuf) {
        if recognise(&path).is_err() {
            self.state.recent.forget(&path);
        }
        self.open(&path);
    }

    /// Opens a run beside the open one, to compare them.
    pub fn open_rival(&mut self, folder: PathBuf) {
        let source = self.state.source.clone();
        self.state.jobs.start("opening the other run", move |_| {
            Ok(Outcome::Rival(rivals::open(&folder, source.as_ref())?.into()))
        });
    }

    fn open_checkpoint(&mut self, file: PathBuf) {
        self.state.jobs.start("opening the checkpoint", move |_| {
            let folder = file.parent().and_then(Path::parent).unwrap_or(Path::new(".")).to_path_buf();
            open_run(&folder, Some(file), None)
        });
    }

    /// Generates a small town and opens it.
    pub(super) fn generate(&mut self) {
        let mut config = self.state.draft.clone();
        self.state.jobs.start("generating a town", move |progress| {
            let options = town()?;
            let root = places::town(&places::folder("runs"), &options);
            let frames = options.towns.iter().sum::<usize>() * options.levels.len() * options.frames;
            // A run may be reading the town that is there.
            if !synth::is_written(&root, &options) {
                synth::write(&root, &options, |done| progress.set(done, frames))?;
            }
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
        self.state.rivals.ask(index);
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
        assert!(
            recognise(&folder.path().join("nothing"))
                .unwrap_err()
                .to_string()
                .contains("open a data set, a run folder")
        );
    }
}
