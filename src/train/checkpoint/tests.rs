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
            first_moments: tensors(-1.0),
            second_moments: tensors(1e-9),
            steps: step,
            skipped: 1,
        },
        cursor: Cursor { epoch: 3, position: 7 },
    }
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
    let path = folder.save(&saved, Some(Best { step: 40, miou: 0.5 })).unwrap();
    assert_eq!(Checkpoint::load(&path).unwrap(), saved);
    let weights = Weights::load(&path).unwrap();
    assert_eq!((weights.step, &weights.parameters), (40, &saved.state.parameters));
    assert_eq!(weights.into_state().first_moments[0].values, [0.0; 3]);
    assert_eq!(folder.index(), Index { latest: Some(40), best: Some(Best { step: 40, miou: 0.5 }) });
    assert_eq!(folder.best_path().unwrap(), path);
}

#[test]
fn the_last_and_the_best_are_kept() {
    let (_dir, folder) = folder();
    for step in [10, 20, 30, 40] {
        folder.save(&checkpoint(step), Some(Best { step: 10, miou: 0.5 })).unwrap();
        folder.prune(step, Some(10), 2).unwrap();
    }
    assert_eq!(folder.steps().unwrap(), [10, 30, 40]);
    folder.prune(30, None, 1).unwrap();
    assert_eq!(folder.steps().unwrap(), [30]);
}

#[test]
fn an_empty_folder_has_no_checkpoint() {
    let (_dir, folder) = folder();
    assert_eq!(folder.latest().unwrap(), Newest { found: None, damaged: vec![] });
    assert!(sentence(folder.latest_path()).contains("no checkpoint yet"));
}

#[test]
fn a_damaged_pair_gives_way_to_the_one_before() {
    for damage in 0..6 {
        let (_dir, folder) = folder();
        let old = folder.save(&checkpoint(10), None).unwrap();
        let new = folder.save(&checkpoint(20), None).unwrap();
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
        let Newest { found, damaged } = folder.latest().unwrap();
        let (path, checkpoint) = found.unwrap();
        assert_eq!((path, checkpoint.state.steps, damaged.len()), (old.clone(), 10, 1), "damage {damage}");
        fs::remove_file(optimiser_path(&old)).unwrap();
        assert!(sentence(folder.latest()).contains("no checkpoint in"));
    }
}

#[test]
fn each_defect_has_its_own_sentence() {
    let (_dir, folder) = folder();
    let saved = checkpoint(10);
    let path = folder.save(&saved, None).unwrap();
    let rewrite = |metadata: &[(&str, &str)]| {
        let entries: Vec<(&str, String)> = metadata.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
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
    let foreign = [expected.as_slice(), &[tensor("b", &[1], 0.0)]].concat();
    assert!(conform(&foreign).contains("has the tensor b"));
}

#[test]
fn a_failed_save_leaves_the_old_pair() {
    let (_dir, folder) = folder();
    folder.save(&checkpoint(10), None).unwrap();
    // A folder of that name stands in for whatever keeps the model file from being written.
    fs::create_dir(folder.path_of(20)).unwrap();
    assert!(sentence(folder.save(&checkpoint(20), None)).contains("cannot write"));
    assert_eq!(folder.index().latest, Some(10));
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
        let path = folder.save(&saved, None).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
        fs::write(&path, bytes).unwrap();
        if let Ok(loaded) = Checkpoint::load(&path) {
            prop_assert_eq!(loaded, saved);
        }
    }
}
