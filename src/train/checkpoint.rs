//! Checkpoints: a pair of safetensors files that a kill at any moment leaves whole.
//!
//! ```text
//! checkpoints/step-00000040.safetensors         parameters; metadata: format version, step, config (TOML), checksum
//! checkpoints/step-00000040.optim.safetensors   Adam's moments; metadata: counters, data cursor, both checksums
//! checkpoints/index.json                        the latest and the best step
//! ```
//!
//! Each file is written to a temporary name, synced and renamed; the index comes last. A pair counts only if both files
//! are whole and belong together (the checksums say so), so a reader falls back to the pair before a damaged one.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use serde::{Deserialize, Serialize};

use super::config::RunConfig;
use super::session::{NamedTensor, TrainingState};
use crate::data::Cursor;
use crate::files::write_atomically;
use crate::{Error, Result};

/// Version of the files' layout.
pub const FORMAT_VERSION: &str = "1";

const MODEL_SUFFIX: &str = ".safetensors";
const OPTIMISER_SUFFIX: &str = ".optim.safetensors";
const FIRST: &str = "first_moment.";
const SECOND: &str = "second_moment.";

/// A model as one file holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    /// The run's configuration.
    pub config: RunConfig,
    /// Steps it was trained for.
    pub step: u32,
    /// Parameters in PyTorch's layouts, in order of their names.
    pub parameters: Vec<NamedTensor>,
}

/// Everything that resuming needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// The run's configuration.
    pub config: RunConfig,
    /// Parameters, moments and counters.
    pub state: TrainingState,
    /// Where the data go on.
    pub cursor: Cursor,
}

/// The best model so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Its step.
    pub step: u32,
    /// Its mIoU on the validation clips, a fraction of 1.
    pub miou: f64,
}

/// What `index.json` says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Index {
    /// The last step saved.
    pub latest: Option<u32>,
    /// The best step saved.
    pub best: Option<Best>,
}

/// What a folder of checkpoints has to go on from.
#[derive(Debug, Clone, PartialEq)]
pub struct Newest {
    /// The newest whole pair, with the path of its model file; `None` if there are no pairs at all.
    pub found: Option<(PathBuf, Checkpoint)>,
    /// A sentence for each newer pair that is damaged.
    pub damaged: Vec<String>,
}

/// The `checkpoints/` folder of a run.
#[derive(Debug, Clone)]
pub struct CheckpointFolder {
    path: PathBuf,
}

impl Weights {
    /// Reads a model file.
    ///
    /// # Errors
    /// [`Error::Data`] if it is unreadable, truncated, damaged, of another version, or no sep4d model.
    pub fn load(path: &Path) -> Result<Weights> {
        Ok(Self::load_with_checksum(path)?.0)
    }

    fn load_with_checksum(path: &Path) -> Result<(Weights, String)> {
        let file = TensorFile::load(path)?;
        let config = RunConfig::from_toml(file.text("config")?, &format!("the configuration in {}", path.display()))
            .map_err(|why| Error::Data(why.to_string()))?;
        // A file converted by another program may lack both.
        let checksum = if file.metadata.contains_key("checksum") { file.verified_checksum()? } else { String::new() };
        let step = if file.metadata.contains_key("step") { file.number("step")? } else { 0 };
        Ok((Weights { config, step, parameters: file.tensors }, checksum))
    }

    /// A state for a session that only evaluates: these parameters, no moments gathered yet.
    pub fn into_state(self) -> TrainingState {
        let zero = |tensor: &NamedTensor| NamedTensor { values: vec![0.0; tensor.values.len()], ..tensor.clone() };
        let moments: Vec<NamedTensor> = self.parameters.iter().map(zero).collect();
        TrainingState {
            first_moments: moments.clone(),
            second_moments: moments,
            parameters: self.parameters,
            steps: self.step,
            skipped: 0,
        }
    }
}

impl Checkpoint {
    /// Reads the pair whose model file is `path`.
    ///
    /// # Errors
    /// [`Error::Data`] as for [`Weights::load`], and if the two files do not belong together.
    pub fn load(path: &Path) -> Result<Checkpoint> {
        let (weights, checksum) = Weights::load_with_checksum(path)?;
        let beside = optimiser_path(path);
        let file = TensorFile::load(&beside)?;
        file.verified_checksum()?;
        if file.text("model_checksum")? != checksum {
            return Err(Error::Data(format!(
                "{} belongs to another model than {}; they must come from one save",
                beside.display(),
                path.display()
            )));
        }
        let moments = |prefix: &str| -> Result<Vec<NamedTensor>> {
            let moments: Vec<NamedTensor> = file.tensors.iter().filter_map(|t| strip(t, prefix)).collect();
            conform(&moments, &weights.parameters, &beside)?;
            Ok(moments)
        };
        let state = TrainingState {
            first_moments: moments(FIRST)?,
            second_moments: moments(SECOND)?,
            steps: file.number("step")?,
            skipped: file.number("skipped")?,
            parameters: weights.parameters,
        };
        let cursor = Cursor { epoch: file.number("cursor_epoch")?, position: file.number("cursor_position")? };
        Ok(Checkpoint { config: weights.config, state, cursor })
    }
}

/// Checks that `have` holds the tensors of `expected`: the same names and shapes.
///
/// # Errors
/// [`Error::Data`] naming the file and the first tensor that is missing, foreign or of another shape.
pub fn conform(have: &[NamedTensor], expected: &[NamedTensor], path: &Path) -> Result<()> {
    let path = path.display();
    for tensor in expected {
        match have.iter().find(|other| other.name == tensor.name) {
            None => {
                return Err(Error::Data(format!(
                    "{path} lacks the tensor {}; it belongs to another model, so choose the checkpoint of this one",
                    tensor.name
                )));
            }
            Some(other) if other.shape != tensor.shape => {
                return Err(Error::Data(format!(
                    "{path} has {} as {:?}, but the model needs {:?}; resume with the model.* values it was trained with",
                    tensor.name, other.shape, tensor.shape
                )));
            }
            Some(_) => {}
        }
    }
    match have.iter().find(|tensor| !expected.iter().any(|other| other.name == tensor.name)) {
        Some(foreign) => Err(Error::Data(format!(
            "{path} has the tensor {}, which this model does not have; choose the checkpoint of this model",
            foreign.name
        ))),
        None => Ok(()),
    }
}

impl CheckpointFolder {
    /// The folder `path`, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        CheckpointFolder { path: path.into() }
    }

    /// Writes a pair and the index; `best` is the best model including this one. Returns the model file's path.
    ///
    /// # Errors
    /// [`Error::Data`] if anything cannot be written; the pairs and the index from before are then as they were.
    pub fn save(&self, checkpoint: &Checkpoint, best: Option<Best>) -> Result<PathBuf> {
        fs::create_dir_all(&self.path).map_err(|why| {
            Error::Data(format!("cannot make the folder {}: {why}; choose another --output", self.path.display()))
        })?;
        let state = &checkpoint.state;
        let path = self.path_of(state.steps);
        let model = [("step", state.steps.to_string()), ("config", checkpoint.config.to_toml())];
        let (model, model_checksum) = complete_metadata(&model, &state.parameters);
        let moments: Vec<NamedTensor> = state
            .first_moments
            .iter()
            .map(|tensor| (FIRST, tensor))
            .chain(state.second_moments.iter().map(|tensor| (SECOND, tensor)))
            .map(|(prefix, tensor)| NamedTensor { name: format!("{prefix}{}", tensor.name), ..tensor.clone() })
            .collect();
        let optimiser = [
            ("step", state.steps.to_string()),
            ("skipped", state.skipped.to_string()),
            ("cursor_epoch", checkpoint.cursor.epoch.to_string()),
            ("cursor_position", checkpoint.cursor.position.to_string()),
            ("model_checksum", model_checksum),
        ];
        let (optimiser, _) = complete_metadata(&optimiser, &moments);
        write_tensors(&optimiser_path(&path), &moments, optimiser)?;
        write_tensors(&path, &state.parameters, model)?;
        let index = Index { latest: Some(state.steps), best };
        let text = serde_json::to_vec_pretty(&index).map_err(|why| Error::Data(why.to_string()))?;
        write_atomically(&self.path.join("index.json"), &text)?;
        Ok(path)
    }

    /// Removes all pairs but the last `keep_last` up to `step` and that of step `best`; what is beyond `step` was found
    /// damaged when `step` was resumed from.
    ///
    /// # Errors
    /// [`Error::Data`] if a file cannot be removed.
    pub fn prune(&self, step: u32, best: Option<u32>, keep_last: usize) -> Result<()> {
        let steps = self.steps()?;
        let kept: Vec<u32> = steps.iter().copied().filter(|&s| s <= step).rev().take(keep_last).collect();
        for old in steps.into_iter().filter(|s| !kept.contains(s) && Some(*s) != best) {
            let path = self.path_of(old);
            for file in [optimiser_path(&path), path] {
                match fs::remove_file(&file) {
                    Err(why) if why.kind() != std::io::ErrorKind::NotFound => {
                        return Err(Error::Data(format!("cannot remove {}: {why}", file.display())));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// The newest whole pair.
    ///
    /// # Errors
    /// [`Error::Data`] if there are pairs, but every one is damaged.
    pub fn latest(&self) -> Result<Newest> {
        let mut damaged = Vec::new();
        for step in self.steps()?.into_iter().rev() {
            let path = self.path_of(step);
            match Checkpoint::load(&path) {
                Ok(checkpoint) => return Ok(Newest { found: Some((path, checkpoint)), damaged }),
                Err(why) => damaged.push(format!("{why}; going back to the checkpoint before it")),
            }
        }
        match damaged.first() {
            Some(first) => Err(Error::Data(format!(
                "no checkpoint in {} is whole ({first}); start a new run",
                self.path.display()
            ))),
            None => Ok(Newest { found: None, damaged }),
        }
    }

    /// What `index.json` says; nothing if it is missing or damaged, for the pairs themselves are what counts.
    pub fn index(&self) -> Index {
        let text = fs::read(self.path.join("index.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// The path of the best model, or of the latest where none was validated.
    ///
    /// # Errors
    /// [`Error::Data`] if there is none.
    pub fn best_path(&self) -> Result<PathBuf> {
        match self.index().best.map(|best| self.path_of(best.step)).filter(|path| path.is_file()) {
            Some(path) => Ok(path),
            None => self.latest_path(),
        }
    }

    /// The path of the latest whole pair's model.
    ///
    /// # Errors
    /// [`Error::Data`] if there is none.
    pub fn latest_path(&self) -> Result<PathBuf> {
        self.latest()?.found.map(|(path, _)| path).ok_or_else(|| {
            Error::Data(format!("{} has no checkpoint yet; train for longer, then try again", self.path.display()))
        })
    }

    fn path_of(&self, step: u32) -> PathBuf {
        self.path.join(format!("step-{step:08}{MODEL_SUFFIX}"))
    }

    /// The steps of all files named like one of a pair, in order.
    fn steps(&self) -> Result<Vec<u32>> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(why) => return Err(Error::Data(format!("{} cannot be read: {why}", self.path.display()))),
        };
        let mut steps: Vec<u32> = entries
            .filter_map(|entry| {
                let name = entry.ok()?.file_name();
                let stem = name.to_str()?.strip_prefix("step-")?;
                stem.strip_suffix(OPTIMISER_SUFFIX).or_else(|| stem.strip_suffix(MODEL_SUFFIX))?.parse().ok()
            })
            .collect();
        steps.sort_unstable();
        steps.dedup();
        Ok(steps)
    }
}

fn optimiser_path(model: &Path) -> PathBuf {
    model.with_extension(OPTIMISER_SUFFIX.trim_start_matches('.'))
}

fn strip(tensor: &NamedTensor, prefix: &str) -> Option<NamedTensor> {
    let name = tensor.name.strip_prefix(prefix)?.to_owned();
    Some(NamedTensor { name, ..tensor.clone() })
}

/// `entries` with format version and checksum; also returns the checksum.
fn complete_metadata(entries: &[(&str, String)], tensors: &[NamedTensor]) -> (HashMap<String, String>, String) {
    let mut metadata: HashMap<String, String> =
        entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    metadata.insert("format_version".into(), FORMAT_VERSION.into());
    let checksum = checksum(&metadata, tensors);
    metadata.insert("checksum".into(), checksum.clone());
    (metadata, checksum)
}

/// FNV-1a over the metadata and over names, shapes and values, each in order of the names.
fn checksum(metadata: &HashMap<String, String>, tensors: &[NamedTensor]) -> String {
    let mut entries: Vec<(&String, &String)> = metadata.iter().filter(|(key, _)| *key != "checksum").collect();
    entries.sort();
    let mut order: Vec<&NamedTensor> = tensors.iter().collect();
    order.sort_by(|a, b| a.name.cmp(&b.name));
    let mut hash = 0xCBF2_9CE4_8422_2325_u64;
    let mut feed = |word: u64| hash = (hash ^ word).wrapping_mul(0x100_0000_01B3);
    for (key, value) in entries {
        key.bytes().chain(value.bytes()).for_each(|byte| feed(u64::from(byte)));
    }
    for tensor in order {
        tensor.name.bytes().for_each(|byte| feed(u64::from(byte)));
        tensor.shape.iter().for_each(|&side| feed(side as u64));
        tensor.values.iter().for_each(|value| feed(u64::from(value.to_bits())));
    }
    format!("{hash:016x}")
}

fn write_tensors(path: &Path, tensors: &[NamedTensor], metadata: HashMap<String, String>) -> Result<()> {
    let wrong = |why: safetensors::SafeTensorError| Error::Data(format!("{} cannot be written: {why}", path.display()));
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|tensor| tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect()).collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|(tensor, bytes)| Ok((tensor.name.as_str(), TensorView::new(Dtype::F32, tensor.shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(wrong)?;
    write_atomically(path, &serialize(views, Some(metadata)).map_err(wrong)?)
}

/// A safetensors file of ours: f32 tensors in order of their names, and the metadata.
struct TensorFile {
    path: PathBuf,
    metadata: HashMap<String, String>,
    tensors: Vec<NamedTensor>,
}

impl TensorFile {
    fn load(path: &Path) -> Result<TensorFile> {
        let bytes = fs::read(path).map_err(|why| Error::Data(format!("{} cannot be read: {why}", path.display())))?;
        let damaged = |why: safetensors::SafeTensorError| {
            Error::Data(format!("{} is no whole safetensors file ({why}); it is damaged or cut off", path.display()))
        };
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(damaged)?;
        let metadata = header.metadata().clone().unwrap_or_default();
        match metadata.get("format_version").map(String::as_str) {
            Some(FORMAT_VERSION) => {}
            Some(other) => {
                return Err(Error::Data(format!(
                    "{} has format version {other:?}, but this program reads {FORMAT_VERSION}; use the sep4d that wrote it",
                    path.display()
                )));
            }
            None => {
                return Err(Error::Data(format!(
                    "{} was not written by sep4d: its metadata has no format_version",
                    path.display()
                )));
            }
        }
        let mut tensors = Vec::new();
        for (name, view) in SafeTensors::deserialize(&bytes).map_err(damaged)?.tensors() {
            if view.dtype() != Dtype::F32 {
                return Err(Error::Data(format!(
                    "{} has {name} as {:?}, but every tensor must be F32; convert it",
                    path.display(),
                    view.dtype()
                )));
            }
            let values = view.data().as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
            tensors.push(NamedTensor { name, shape: view.shape().to_vec(), values });
        }
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(TensorFile { path: path.to_path_buf(), metadata, tensors })
    }

    fn text(&self, key: &str) -> Result<&str> {
        self.metadata.get(key).map(String::as_str).ok_or_else(|| {
            Error::Data(format!("{} has no {key} in its metadata; it is no sep4d checkpoint", self.path.display()))
        })
    }

    fn number<N: std::str::FromStr>(&self, key: &str) -> Result<N> {
        let text = self.text(key)?;
        text.parse().map_err(|_| {
            Error::Data(format!("{} has {text:?} as {key} in its metadata, which is no number", self.path.display()))
        })
    }

    fn verified_checksum(&self) -> Result<String> {
        let checksum = checksum(&self.metadata, &self.tensors);
        if self.text("checksum")? == checksum {
            return Ok(checksum);
        }
        Err(Error::Data(format!("{} is damaged: its contents do not match their checksum", self.path.display())))
    }
}

#[cfg(test)]
mod tests;
