//! Checkpoints: a pair of safetensors files that a kill at any moment leaves whole.
//!
//! ```text
//! checkpoints/step-00000040.safetensors         parameters; metadata: format version, step, config (TOML), checksum
//! checkpoints/step-00000040.optim.safetensors   Adam's moments, and the parameters where those above are their moving
//!                                               averages; metadata: counters, data cursor, both checksums
//! checkpoints/index.json                        the latest and the best step
//! ```
//!
//! Each file is written to a temporary name, synced and renamed; the index comes last. A pair counts only if both files
//! are whole and belong together (the checksums say so), so a reader falls back to the pair before a damaged one.

use std::path::{Path, PathBuf};

use super::config::RunConfig;
use super::session::{LossScale, NamedTensor, TrainingState};
use crate::data::Cursor;
use crate::{Error, Result};

mod checks;
mod file;
mod folder;

use checks::belong;
pub use checks::{check_finite, conform, first_not_finite};
pub use file::FORMAT_VERSION;
use file::{TensorFile, complete_metadata, write_tensors};
pub use folder::{Best, CheckpointFolder, Index, Newest};

const MODEL_SUFFIX: &str = ".safetensors";
const OPTIMISER_SUFFIX: &str = ".optim.safetensors";
const TRAINED: &str = "trained.";
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
                "{} belongs to another model than {}; restore the pair of one save",
                beside.display(),
                path.display()
            )));
        }
        let among =
            |prefix: &str| -> Vec<NamedTensor> { file.tensors.iter().filter_map(|t| strip(t, prefix)).collect() };
        let (first_moments, second_moments) = (among(FIRST), among(SECOND));
        // Not every parameter is trained; before that was so, the file did not say how many are.
        let given = file.metadata.contains_key("moments");
        let expected = if given { file.number("moments")? } else { weights.parameters.len() };
        for moments in [&first_moments, &second_moments] {
            if moments.len() == expected {
                belong(moments, &weights.parameters, &beside)?;
            } else {
                conform(moments, &weights.parameters, &beside)?;
            }
        }
        let trained = among(TRAINED);
        let (parameters, averages) = if trained.is_empty() {
            (weights.parameters, None)
        } else {
            conform(&trained, &weights.parameters, &beside)?;
            (trained, Some(weights.parameters))
        };
        let loss_scale = match file.metadata.contains_key("loss_scale") {
            true => Some(LossScale { scale: file.number("loss_scale")?, good_steps: file.number("good_steps")? }),
            false => None,
        };
        let state = TrainingState {
            parameters,
            averages,
            first_moments,
            second_moments,
            steps: file.number("step")?,
            skipped: file.number("skipped")?,
            loss_scale,
        };
        let cursor = Cursor { epoch: file.number("cursor_epoch")?, position: file.number("cursor_position")? };
        Ok(Checkpoint { config: weights.config, state, cursor })
    }

    /// Writes the pair whose model file is `path`, that one last.
    ///
    /// # Errors
    /// [`Error::Data`] if it cannot be written.
    fn save(&self, path: &Path) -> Result<()> {
        let state = &self.state;
        let model = [("step", state.steps.to_string()), ("config", self.config.to_toml())];
        let (model, model_checksum) = complete_metadata(&model, state.model());
        let trained: &[NamedTensor] = if state.averages.is_some() { &state.parameters } else { &[] };
        let beside = [(FIRST, &state.first_moments[..]), (SECOND, &state.second_moments), (TRAINED, trained)];
        let prefixed = |(prefix, tensors): (&str, &[NamedTensor])| -> Vec<NamedTensor> {
            let named =
                |tensor: &NamedTensor| NamedTensor { name: format!("{prefix}{}", tensor.name), ..tensor.clone() };
            tensors.iter().map(named).collect()
        };
        let beside: Vec<NamedTensor> = beside.into_iter().flat_map(prefixed).collect();
        let mut optimiser = vec![
            ("step", state.steps.to_string()),
            ("skipped", state.skipped.to_string()),
            ("cursor_epoch", self.cursor.epoch.to_string()),
            ("cursor_position", self.cursor.position.to_string()),
            ("model_checksum", model_checksum),
            ("moments", state.first_moments.len().to_string()),
        ];
        if let Some(LossScale { scale, good_steps }) = state.loss_scale {
            optimiser.extend([("loss_scale", scale.to_string()), ("good_steps", good_steps.to_string())]);
        }
        let (optimiser, _) = complete_metadata(&optimiser, &beside);
        write_tensors(&optimiser_path(path), &beside, optimiser)?;
        write_tensors(path, state.model(), model)
    }
}

fn optimiser_path(model: &Path) -> PathBuf {
    model.with_extension(OPTIMISER_SUFFIX.trim_start_matches('.'))
}

fn strip(tensor: &NamedTensor, prefix: &str) -> Option<NamedTensor> {
    let name = tensor.name.strip_prefix(prefix)?.to_owned();
    Some(NamedTensor { name, ..tensor.clone() })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::train::config::Preset;

    fn tensor(name: &str, shape: &[usize], start: f32) -> NamedTensor {
        let count: usize = shape.iter().product();
        NamedTensor { name: name.into(), shape: shape.to_vec(), values: (0..count).map(|i| start + i as f32).collect() }
    }

    fn checkpoint(step: u32) -> Checkpoint {
        let tensors = |start: f32| vec![tensor("a.bias", &[3], start), tensor("a.weight", &[3, 2, 1], start + 0.1)];
        Checkpoint {
            config: RunConfig::preset(Preset::Tiny, None),
            state: TrainingState {
                parameters: tensors(step as f32),
                averages: None,
                first_moments: tensors(-1.0),
                second_moments: tensors(1e-9),
                steps: step,
                skipped: 1,
                loss_scale: Some(LossScale { scale: 2048.0, good_steps: 41 }),
            },
            cursor: Cursor { epoch: 3, position: 7 },
        }
    }

    fn best_at(step: u32) -> Index {
        Index { best: Some(Best { step, miou: 0.5 }), ..Index::default() }
    }

    fn folder() -> (tempfile::TempDir, CheckpointFolder) {
        let dir = tempfile::tempdir().unwrap();
        let folder = CheckpointFolder::new(dir.path().join("checkpoints"));
        (dir, folder)
    }

    fn sentence(result: Result<impl std::fmt::Debug>) -> String {
        let error = result.unwrap_err();
        assert_eq!(error.exit_code(), 3, "{error}");
        assert!(!error.to_string().contains('\n'), "{error}");
        error.to_string()
    }

    #[test]
    fn a_pair_comes_back_bit_for_bit() {
        let (_dir, folder) = folder();
        let saved = checkpoint(40);
        let path = folder.save(&saved, &best_at(40)).unwrap();
        assert_eq!(Checkpoint::load(&path).unwrap(), saved);
        let weights = Weights::load(&path).unwrap();
        assert_eq!((weights.step, &weights.parameters), (40, &saved.state.parameters));
        assert_eq!(folder.index().unwrap(), Index { latest: Some(40), ..best_at(40) });
        assert_eq!(folder.best_path().unwrap(), path);
    }

    #[test]
    fn moving_averages_are_the_model_and_what_is_trained_lies_beside_it() {
        let (_dir, folder) = folder();
        let mut saved = checkpoint(40);
        saved.state.averages = Some(checkpoint(39).state.parameters);
        // One of the parameters is not trained.
        saved.state.first_moments.remove(0);
        saved.state.second_moments.remove(0);
        let path = folder.save(&saved, &Index::default()).unwrap();
        assert_eq!(Checkpoint::load(&path).unwrap(), saved);
        assert_eq!(Weights::load(&path).unwrap().parameters, saved.state.averages.clone().unwrap());
        // One that is missing is noticed all the same.
        saved.state.second_moments.clear();
        let path = folder.save(&saved, &Index::default()).unwrap();
        assert!(sentence(Checkpoint::load(&path)).contains("lacks the tensor"));
    }

    #[test]
    fn the_last_and_the_best_of_now_and_before_are_kept() {
        let (_dir, folder) = folder();
        let index = Index { kept: vec![20], ..best_at(10) };
        for step in [10, 20, 30, 40, 50] {
            folder.save(&checkpoint(step), &index).unwrap();
            folder.prune(step, &index, 2).unwrap();
        }
        assert_eq!(folder.steps().unwrap(), [10, 20, 40, 50]);
        assert_eq!(folder.index().unwrap(), Index { latest: Some(50), ..index });
        folder.prune(40, &Index::default(), 1).unwrap();
        assert_eq!(folder.steps().unwrap(), [40]);
    }

    #[test]
    fn a_pair_that_is_not_finite_gives_way_to_the_one_before() {
        let (_dir, folder) = folder();
        let mut bad = checkpoint(20);
        bad.state.second_moments[1].values[0] = f32::NAN;
        folder.save(&bad, &Index::default()).unwrap();
        assert_eq!(folder.latest().unwrap_err().exit_code(), 6);
        folder.save(&checkpoint(10), &Index::default()).unwrap();
        let Newest { found, passed_over } = folder.latest().unwrap();
        assert_eq!(found.unwrap().1, checkpoint(10));
        assert!(passed_over.len() == 1 && passed_over[0].contains("NaN or infinity in a.weight"), "{passed_over:?}");
    }

    #[test]
    fn an_empty_folder_has_no_checkpoint() {
        let (_dir, folder) = folder();
        assert_eq!(folder.latest().unwrap(), Newest { found: None, passed_over: vec![] });
        assert!(sentence(folder.latest_path()).contains("no checkpoint yet"));
    }

    #[test]
    fn a_damaged_pair_gives_way_to_the_one_before() {
        for damage in 0..6 {
            let (_dir, folder) = folder();
            let old = folder.save(&checkpoint(10), &Index::default()).unwrap();
            let new = folder.save(&checkpoint(20), &Index::default()).unwrap();
            let optimiser = optimiser_path(&new);
            match damage {
                0 => fs::write(&new, &fs::read(&new).unwrap()[..200]).unwrap(),
                1 => fs::write(&optimiser, b"").unwrap(),
                // Killed between the two renames.
                2 => fs::remove_file(&new).unwrap(),
                3 => fs::remove_file(&optimiser).unwrap(),
                4 => fs::copy(&old, &new).map(|_| ()).unwrap(),
                _ => {
                    let mut bytes = fs::read(&new).unwrap();
                    *bytes.last_mut().unwrap() ^= 1;
                    fs::write(&new, bytes).unwrap();
                }
            }
            let Newest { found, passed_over } = folder.latest().unwrap();
            let (path, checkpoint) = found.unwrap();
            assert_eq!((path, checkpoint.state.steps, passed_over.len()), (old.clone(), 10, 1), "damage {damage}");
            fs::remove_file(optimiser_path(&old)).unwrap();
            let sentence = sentence(folder.latest());
            assert!(sentence.contains("no checkpoint in") && !sentence.contains("going back"), "{sentence}");
        }
    }

    #[test]
    fn each_defect_has_its_own_sentence() {
        let (_dir, folder) = folder();
        let saved = checkpoint(10);
        let path = folder.save(&saved, &Index::default()).unwrap();
        let rewrite = |metadata: &[(&str, &str)]| {
            let entries: Vec<(&str, String)> =
                metadata.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
            let (mut metadata, _) = complete_metadata(&entries, &saved.state.parameters);
            metadata.extend(entries.into_iter().map(|(key, value)| (key.to_owned(), value)));
            metadata.retain(|_, value| !value.is_empty());
            write_tensors(&path, &saved.state.parameters, metadata).unwrap();
            sentence(Weights::load(&path))
        };
        let config = saved.config.to_toml();
        assert!(rewrite(&[("format_version", "")]).contains("not written by sep4d"));
        assert!(rewrite(&[("format_version", "2")]).contains("format version \"2\""));
        assert!(rewrite(&[]).contains("no config"));
        assert!(rewrite(&[("config", &config), ("step", "x")]).contains("no number"));
        assert!(rewrite(&[("config", "[train]\nstep = 1")]).contains("the configuration in"));
        assert!(rewrite(&[("config", &config), ("checksum", "0")]).contains("checksum"));

        let expected = &saved.state.parameters;
        let conform = |have: &[NamedTensor]| sentence(conform(have, expected, &path));
        assert!(conform(&expected[..1]).contains("lacks the tensor a.weight"));
        assert!(conform(&[expected[0].clone(), tensor("a.weight", &[2, 3, 1], 0.0)]).contains("[2, 3, 1]"));
        let poisoned = [tensor("a.weight", &[2, 3, 1], 0.0), tensor("a.bias", &[1], f32::INFINITY)];
        let error = check_finite(&poisoned, &path).unwrap_err();
        assert!(error.exit_code() == 6 && error.to_string().contains("infinity in a.bias"), "{error}");
        check_finite(expected, &path).unwrap();
        let foreign = [expected.as_slice(), &[tensor("b", &[1], 0.0)]].concat();
        assert!(conform(&foreign).contains("has the tensor b"));
    }

    #[test]
    fn a_save_that_was_cut_off_is_no_damage() {
        let (_dir, folder) = folder();
        folder.save(&checkpoint(10), &Index::default()).unwrap();
        // What a kill between the two files of a pair leaves.
        fs::copy(optimiser_path(&folder.path_of(10)), optimiser_path(&folder.path_of(20))).unwrap();
        let newest = folder.latest().unwrap();
        assert_eq!((newest.found.unwrap().1, newest.passed_over), (checkpoint(10), vec![]));
        fs::remove_file(folder.path_of(10)).unwrap();
        assert!(sentence(folder.latest()).contains("step-00000010.safetensors"));
    }

    #[test]
    fn a_failed_save_leaves_the_old_pair() {
        let (_dir, folder) = folder();
        folder.save(&checkpoint(10), &Index::default()).unwrap();
        // A folder of that name stands in for whatever keeps the model file from being written.
        fs::create_dir(folder.path_of(20)).unwrap();
        assert!(sentence(folder.save(&checkpoint(20), &Index::default())).contains("cannot write"));
        assert_eq!(folder.index().unwrap().latest, Some(10));
        assert_eq!(folder.latest().unwrap().found.unwrap().1, checkpoint(10));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x.safetensors");
            fs::write(&path, bytes).unwrap();
            prop_assert_eq!(Checkpoint::load(&path).unwrap_err().exit_code(), 3);
        }

        #[test]
        fn a_flipped_or_cut_file_never_loads_as_something_else(at in any::<prop::sample::Index>(), bit in 0..8u8, cut: bool) {
            let (_dir, folder) = folder();
            let saved = checkpoint(10);
            let path = folder.save(&saved, &Index::default()).unwrap();
            let mut bytes = fs::read(&path).unwrap();
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
            fs::write(&path, bytes).unwrap();
            if let Ok(loaded) = Checkpoint::load(&path) {
                prop_assert_eq!(loaded, saved);
            }
        }
    }
}
