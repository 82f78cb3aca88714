//! The `checkpoints/` folder of a run: pairs, and the index that says which is the latest and which the best.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Checkpoint, MODEL_SUFFIX, OPTIMISER_SUFFIX, Weights, check_finite, optimiser_path};
use crate::files::{is_file, make_folder, read_if_there, unreadable, unwritable, write_atomically};
use crate::{Error, Result};

/// No index has more bytes.
const LONGEST_INDEX: u64 = 1 << 20;

/// The best model so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Its step.
    pub step: u32,
    /// Its mIoU on the validation clips, a fraction of 1.
    pub miou: f64,
}

/// What `index.json` says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Index {
    /// The last step saved.
    pub latest: Option<u32>,
    /// The best step saved.
    pub best: Option<Best>,
    /// Steps that were the best on other held-out clips than those of now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<u32>,
}

/// What a folder of checkpoints has to go on from.
#[derive(Debug, Clone, PartialEq)]
pub struct Newest {
    /// The newest whole pair, with the path of its model file; `None` if there are no pairs at all.
    pub found: Option<(PathBuf, Checkpoint)>,
    /// A sentence for each newer pair that is damaged or not finite.
    pub passed_over: Vec<String>,
}

/// The `checkpoints/` folder of a run.
#[derive(Debug, Clone)]
pub struct CheckpointFolder {
    path: PathBuf,
}

impl CheckpointFolder {
    /// The folder `path`, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        CheckpointFolder { path: path.into() }
    }

    /// Writes a pair and an index that says what `index` does, this pair being the latest. Returns the model file's path.
    ///
    /// # Errors
    /// [`Error::Data`] if anything cannot be written; the pairs and the index from before are then as they were.
    pub fn save(&self, checkpoint: &Checkpoint, index: &Index) -> Result<PathBuf> {
        make_folder(&self.path)?;
        let path = self.path_of(checkpoint.state.steps);
        checkpoint.save(&path)?;
        self.write_index(&Index { latest: Some(checkpoint.state.steps), ..index.clone() })?;
        Ok(path)
    }

    /// Removes all pairs but the last `keep_last` up to `step` and those that `index` keeps; what is beyond `step` was found
    /// unusable when `step` was resumed from.
    ///
    /// # Errors
    /// [`Error::Data`] if a file cannot be removed.
    pub fn prune(&self, step: u32, index: &Index, keep_last: usize) -> Result<()> {
        let steps = self.steps()?;
        let last = steps.iter().copied().filter(|&s| s <= step).rev().take(keep_last);
        let kept: Vec<u32> = last.chain(index.kept.iter().copied()).chain(index.best.map(|best| best.step)).collect();
        for old in steps.into_iter().filter(|step| !kept.contains(step)) {
            let path = self.path_of(old);
            for file in [optimiser_path(&path), path] {
                match fs::remove_file(&file) {
                    Err(why) if why.kind() != std::io::ErrorKind::NotFound => {
                        return Err(unwritable(&file, &why));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Takes the pair of `step`, if there is one, out of the way of those before it: it is renamed to `step-....unusable....`,
    /// and the index says what `index` does, the latest being the one before.
    ///
    /// # Errors
    /// [`Error::Data`] if a file cannot be renamed or the index cannot be written.
    pub fn set_aside(&self, step: u32, index: &Index) -> Result<()> {
        let path = self.path_of(step);
        let aside = self.path.join(format!("step-{step:08}.unusable{MODEL_SUFFIX}"));
        for (file, aside) in [(optimiser_path(&path), optimiser_path(&aside)), (path, aside)] {
            match fs::rename(&file, aside) {
                Err(why) if why.kind() != std::io::ErrorKind::NotFound => return Err(unwritable(&file, &why)),
                _ => {}
            }
        }
        let latest = self.steps()?.into_iter().rev().find(|&before| before < step);
        self.write_index(&Index { latest, ..index.clone() })
    }

    fn write_index(&self, index: &Index) -> Result<()> {
        let text = serde_json::to_vec_pretty(index).map_err(|why| Error::Data(why.to_string()))?;
        write_atomically(&self.path.join("index.json"), &text)
    }

    /// The newest whole pair whose values are all finite.
    ///
    /// # Errors
    /// [`Error::Data`] if there are pairs, but none is whole, [`Error::NonFinite`] if the newest whole one is not finite, nor
    /// is any before it, [`Error::Unreadable`] if one cannot be read now.
    pub fn latest(&self) -> Result<Newest> {
        let mut passed_over = Vec::new();
        let indexed = self.index()?.latest;
        for step in self.steps()?.into_iter().rev() {
            let path = self.path_of(step);
            // The model is written after its moments and before the index: such a save was cut off, nothing is damaged.
            if !is_file(&path)? && indexed.is_none_or(|indexed| step > indexed) {
                continue;
            }
            let usable = Checkpoint::load(&path).and_then(|checkpoint| {
                check_finite(checkpoint.state.tensors(), &path)?;
                Ok(checkpoint)
            });
            match usable {
                Ok(checkpoint) => {
                    let passed_over = passed_over.iter().map(Error::to_string).collect();
                    return Ok(Newest { found: Some((path, checkpoint)), passed_over });
                }
                // Whole or not, it may be there again when the disk or the network is.
                Err(why @ Error::Unreadable(_)) => return Err(why),
                Err(why) => passed_over.push(why),
            }
        }
        match passed_over.into_iter().next() {
            Some(why @ Error::NonFinite(_)) => Err(why),
            Some(why) => Err(self.none_is_whole(&why.to_string())),
            None => Ok(Newest { found: None, passed_over: Vec::new() }),
        }
    }

    fn none_is_whole(&self, newest: &str) -> Error {
        Error::Data(format!("no checkpoint in {} can be used: {newest}, or start a new run", self.path.display()))
    }

    /// What `index.json` says; nothing if it is missing or damaged, for the pairs themselves are what counts.
    ///
    /// # Errors
    /// [`Error::Unreadable`] if it is there, but cannot be read now.
    pub fn index(&self) -> Result<Index> {
        match read_if_there(&self.path.join("index.json"), LONGEST_INDEX) {
            Ok(text) => Ok(text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()),
            Err(why @ Error::Unreadable(_)) => Err(why),
            Err(_) => Ok(Index::default()),
        }
    }

    /// The path of the best model, or of the latest where none was validated.
    ///
    /// # Errors
    /// [`Error::Data`] if there is none.
    pub fn best_path(&self) -> Result<PathBuf> {
        match self.index()?.best.map(|best| self.path_of(best.step)) {
            Some(path) if is_file(&path)? => Ok(path),
            _ => self.latest_path(),
        }
    }

    /// The path of the latest whole model; whether its moments are there too does not matter.
    ///
    /// # Errors
    /// [`Error::Data`] if there is none.
    pub fn latest_path(&self) -> Result<PathBuf> {
        let mut damaged = None;
        for step in self.steps()?.into_iter().rev() {
            let path = self.path_of(step);
            match Weights::load(&path) {
                Ok(_) => return Ok(path),
                Err(why @ Error::Unreadable(_)) => return Err(why),
                Err(why) => damaged = damaged.or(Some(why.to_string())),
            }
        }
        Err(match damaged {
            Some(first) => self.none_is_whole(&first),
            None => {
                Error::Data(format!("{} has no checkpoint yet; train for longer, then try again", self.path.display()))
            }
        })
    }

    pub(super) fn path_of(&self, step: u32) -> PathBuf {
        self.path.join(format!("step-{step:08}{MODEL_SUFFIX}"))
    }

    /// The steps of all files named like one of a pair, in order.
    pub(super) fn steps(&self) -> Result<Vec<u32>> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(why) => return Err(unreadable(&self.path, &why)),
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
