//! The reader against well-formed, odd and damaged folders.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use sep4d::Error;
use sep4d::data::{Cursor, Dataset, DatasetOptions, Loader, LoaderOptions, Split, pose_of_rows};
use tempfile::TempDir;

use crate::files::{VOXELS, expect, options, write_sequence, write_words};

/// The message of the data error that opening the data set and reading and counting all of it ends with.
fn failure(root: &Path, frames: usize) -> String {
    let read_all = || -> sep4d::Result<()> {
        let dataset = Dataset::open(root, Split::Train, options(frames))?;
        dataset.class_counts()?;
        for i in 0..dataset.len() {
            dataset.clip(i)?;
        }
        Ok(())
    };
    match read_all() {
        Err(Error::Data(message)) => message,
        other => panic!("expected a data error, got {other:?}"),
    }
}

#[test]
fn every_window_of_every_sequence_is_a_clip() {
    // The word "label" in a folder's name must not matter.
    let dir = TempDir::with_prefix("label.label").unwrap();
    write_sequence(dir.path(), "Train", "Town01_label_Light", 0..12);
    write_sequence(dir.path(), "Train", "Town02_Heavy", 0..5);
    for root in [dir.path().to_path_buf(), dir.path().join("Cartesian")] {
        let dataset = Dataset::open(root, Split::Train, options(4)).unwrap();
        assert_eq!((dataset.len(), dataset.frame_count()), (9 + 2, 17));
        assert!(dataset.warnings().is_empty(), "{:?}", dataset.warnings());
        assert_eq!(dataset.grid().size, [4, 4, 2]);
        assert_eq!(dataset.grid().voxel_size_m, [0.4, 0.4, 0.375]);
        let clip = dataset.clip(5).unwrap();
        assert_eq!((clip.sequence.as_str(), clip.first_frame), ("Town01_label_Light", 5));
        // Raw ids 5, 6, 7, 8 are Pole, RoadLine, Road, Sidewalk.
        let classes: Vec<u8> = clip.frames.iter().map(|frame| frame.labels[9]).collect();
        assert_eq!(classes, [5, 6, 6, 8]);
        assert!(!clip.frames[0].observed[0] && clip.frames[0].observed[1]);
        assert!((clip.times_secs[2] - 0.7).abs() < 1e-9);
        // Relative to the middle frame, number 7.
        let x: Vec<f64> = clip.poses.unwrap().iter().map(|pose| pose.translation.x).collect();
        assert_eq!(x, [-1.0, -0.5, 0.0, 0.5]);
        assert!(matches!(dataset.clip(dataset.len()), Err(Error::Usage(_))));
    }
}

#[test]
fn frames_are_ordered_by_number_and_clips_span_no_gap() {
    let dir = TempDir::new().unwrap();
    let evaluation = write_sequence(dir.path(), "Train", "A", 0..11).join("evaluation");
    for extension in ["label", "bin"] {
        // 2 and 10 without leading zeros: by name, 10 would come before 2; and 5 is missing.
        fs::rename(evaluation.join(format!("000002.{extension}")), evaluation.join(format!("2.{extension}"))).unwrap();
        fs::rename(evaluation.join(format!("000010.{extension}")), evaluation.join(format!("10.{extension}"))).unwrap();
        fs::remove_file(evaluation.join(format!("000005.{extension}"))).unwrap();
    }
    let dataset = Dataset::open(dir.path(), Split::Train, options(3)).unwrap();
    let firsts: Vec<usize> = (0..dataset.len()).map(|i| dataset.clip(i).unwrap().first_frame).collect();
    assert_eq!(firsts, [0, 1, 2, 6, 7, 8]);
    assert!((dataset.clip(5).unwrap().times_secs[2] - 1.0).abs() < 1e-9);
    expect(&dataset.warnings().join("\n"), &["A has gaps", "(5 missing)"]);
}

#[test]
fn what_is_optional_may_be_missing_and_is_reported_once() {
    let dir = TempDir::new().unwrap();
    for name in ["A", "B"] {
        let inner = write_sequence(dir.path(), "Test", name, 0..4);
        fs::remove_file(inner.join("poses.txt")).unwrap();
        fs::remove_file(inner.join("times.txt")).unwrap();
        fs::rename(inner.join("evaluation/params.json"), inner.join("params.json")).unwrap();
    }
    let dataset = Dataset::open(dir.path(), Split::Val, options(4)).unwrap();
    let clip = dataset.clip(1).unwrap();
    assert_eq!((dataset.split(), clip.poses), (Split::Test, None));
    assert!((clip.times_secs[3] - 0.3).abs() < 1e-9);
    assert_eq!(dataset.warnings().len(), 3, "{:?}", dataset.warnings());
    expect(&dataset.warnings().join("\n"), &["validating on Test", "no poses.txt in A and 1 more", "no times.txt"]);
}

#[test]
fn the_crop_is_applied_to_labels_mask_and_grid() {
    let dir = TempDir::new().unwrap();
    let evaluation = write_sequence(dir.path(), "Train", "A", 0..1).join("evaluation");
    write_words(&evaluation.join("000000.label"), (0..VOXELS as u32).map(|v| v % 23));
    let crop = DatasetOptions { frames_per_clip: 1, crop: Some([2, 2, 2]), ..Default::default() };
    let dataset = Dataset::open(dir.path(), Split::Train, crop).unwrap();
    let raw = [10, 11, 12, 13, 18, 19, 20, 21];
    let classes = raw.map(|id| dataset.classes().class_of(id).unwrap());
    assert_eq!(dataset.clip(0).unwrap().frames[0].labels, classes);
    assert_eq!(dataset.grid().min_bound_m, [-0.4, -0.4, -2.0]);
    assert_eq!(dataset.class_counts().unwrap().iter().sum::<u64>(), 8);
    let odd = DatasetOptions { frames_per_clip: 1, crop: Some([3, 2, 2]), ..Default::default() };
    let message = Dataset::open(dir.path(), Split::Train, odd).unwrap_err().to_string();
    expect(&message, &["3x2x2", "even"]);
    let large = DatasetOptions { frames_per_clip: 1, crop: Some([6, 2, 2]), ..Default::default() };
    let message = Dataset::open(dir.path(), Split::Train, large).unwrap_err().to_string();
    expect(&message, &["6x2x2", "4x4x2"]);
}

#[test]
fn counts_are_kept_and_renewed_when_a_file_changes() {
    let dir = TempDir::new().unwrap();
    let evaluation = write_sequence(dir.path(), "Train", "A", 0..4).join("evaluation");
    let count = || Dataset::open(dir.path(), Split::Train, options(1)).unwrap().class_counts().unwrap();
    let first = count();
    // One voxel of each frame was not observed, and counts as free.
    assert_eq!(first, [35, 31, 31, 31, 0, 0, 0, 0, 0, 0, 0]);
    let cache = dir.path().join("Cartesian/.sep4d-class-counts-train.json");
    assert!(cache.is_file());
    assert_eq!(count(), first);
    write_sequence(dir.path(), "Train", "A", 4..5);
    assert_eq!(count()[4], 31);
    let label = evaluation.join("000000.label");
    write_words(&label, std::iter::repeat_n(7, VOXELS));
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
    fs::File::options().write(true).open(&label).unwrap().set_modified(later).unwrap();
    assert_eq!(count()[6], 31);
    fs::write(&cache, "not json").unwrap();
    assert_eq!(count()[6], 31);
}

#[test]
fn errors_say_what_is_wrong_and_where() {
    let dir = TempDir::new().unwrap();
    let root = dir.path();
    expect(&failure(&root.join("none"), 1), &["none is not a folder", "sep4d synth"]);
    expect(&failure(root, 1), &["is empty", "no Train, Val or Test folder", "sep4d synth"]);
    fs::create_dir_all(root.join("Cartesian/Train")).unwrap();
    expect(&failure(root, 1), &["Train is missing or has no sequences", "sep4d synth"]);

    let inner = write_sequence(root, "Train", "Town01", 0..3);
    let evaluation = inner.join("evaluation");
    expect(&failure(root, 4), &["no sequence", "4 consecutive frames", "3 in all"]);

    let label = evaluation.join("000001.label");
    let intact = fs::read(&label).unwrap();
    fs::write(&label, &intact[..127]).unwrap();
    expect(&failure(root, 1), &["000001.label has 127 bytes", "4x4x2", "128"]);
    let mut damaged = intact.clone();
    damaged[4 * 13] = 23;
    fs::write(&label, &damaged).unwrap();
    expect(&failure(root, 1), &["000001.label", "class id 23 at voxel (1, 2, 1)", "0 to 22"]);
    fs::write(&label, &intact).unwrap();

    let mask = evaluation.join("000002.bin");
    let intact = fs::read(&mask).unwrap();
    let mut damaged = intact.clone();
    damaged[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&mask, &damaged).unwrap();
    expect(&failure(root, 1), &["000002.bin holds NaN at voxel (0, 0, 0)"]);
    fs::remove_file(&mask).unwrap();
    expect(&failure(root, 1), &["000002.bin is missing"]);
    fs::write(&mask, &intact).unwrap();

    let table = |name: &str, text: &str, parts: &[&str]| {
        let intact = fs::read(inner.join(name)).unwrap();
        fs::write(inner.join(name), text).unwrap();
        expect(&failure(root, 1), parts);
        fs::write(inner.join(name), intact).unwrap();
    };
    table("poses.txt", "1 0 0 0 0 1 0 0 0 0 1 0\n1 0 0\n", &["line 2 of", "poses.txt is not 12 finite numbers"]);
    table("poses.txt", "1 0 0 0 0 1 0 0 0 0 1 NaN\n", &["line 1 of", "12 finite numbers"]);
    table("poses.txt", "1 0 0 0 0 1 0 0 0 0 1 0\n", &["poses.txt has 1 lines, too few"]);
    table("poses.txt", &"0 0 0 0 0 0 0 0 0 0 0 0\n".repeat(3), &["pose of frames 0 to 2 of Town01", "no inverse"]);
    table("times.txt", "0\ninf\n0.2\n", &["line 2 of", "times.txt is not 1 finite number"]);
    let grid = |size: &str| format!(r#"{{"grid_size": {size}, "min_bound": [-1, -1, -2], "max_bound": [1, 1, 1]}}"#);
    table("evaluation/params.json", "{", &["params.json does not describe a grid"]);
    table("evaluation/params.json", &grid("[1e12, 4, 2]"), &["params.json does not describe a grid", "1000000000000"]);
    table("evaluation/params.json", &grid("[4.5, 4, 2]"), &["4.5"]);
    table("evaluation/params.json", &grid("[3, 4, 2]"), &["3x4x2", "even", "data.crop"]);
    table("evaluation/params.json", &grid("[4096, 4096, 4096]"), &["4096x4096x4096 are more than"]);
    table("evaluation/params.json", &grid("[4096, 4096, 8]"), &["128 bytes", "4096x4096x8"]);

    fs::write(evaluation.join("notes.label"), "").unwrap();
    expect(&failure(root, 1), &["notes.label is not named by a frame number"]);
    fs::remove_file(evaluation.join("notes.label")).unwrap();
    let other = write_sequence(root, "Train", "Town02", 0..1);
    fs::write(other.join("evaluation/params.json"), grid("[8, 8, 2]")).unwrap();
    expect(&failure(root, 1), &["Town01", "Town02", "different grids"]);
}

#[test]
fn a_resumed_loader_delivers_the_same_batches() {
    let dir = TempDir::new().unwrap();
    write_sequence(dir.path(), "Train", "A", 0..9);
    let dataset = Arc::new(Dataset::open(dir.path(), Split::Train, options(2)).unwrap());
    let from = |cursor| {
        let options = LoaderOptions { batch: 3, seed: 4, augment: true, cursor, prefetch: 2 };
        Loader::new(dataset.clone(), options).unwrap()
    };
    let mut loader = from(Cursor::default());
    let deliveries: Vec<_> = (0..8).map(|_| loader.next_batch().unwrap()).collect();
    assert_eq!(deliveries[0].batch.labels.len(), 3 * 2 * VOXELS);
    assert_eq!(deliveries[7].cursor, Cursor { epoch: 3, position: 0 });
    let mut resumed = from(deliveries[2].cursor);
    for delivery in &deliveries[3..] {
        assert_eq!(resumed.next_batch().unwrap().batch, delivery.batch);
    }
}

#[test]
fn a_loader_reports_a_broken_file_and_ends() {
    let dir = TempDir::new().unwrap();
    let evaluation = write_sequence(dir.path(), "Train", "A", 0..2).join("evaluation");
    let dataset = Arc::new(Dataset::open(dir.path(), Split::Train, options(2)).unwrap());
    fs::write(evaluation.join("000001.label"), "x").unwrap();
    let mut loader = Loader::new(dataset, LoaderOptions::default()).unwrap();
    expect(&loader.next_batch().unwrap_err().to_string(), &["000001.label has 1 bytes"]);
    assert!(loader.next_batch().is_err());
}

#[test]
fn the_poses_of_a_clip_compose_to_the_recorded_motion() {
    let dir = TempDir::new().unwrap();
    let inner = write_sequence(dir.path(), "Train", "A", 0..3);
    let pose = |yaw: f64, x: f64| {
        let (s, c) = yaw.sin_cos();
        [c, -s, 0.0, x, s, c, 0.0, 2.0 * x, 0.0, 0.0, 1.0, 0.0]
    };
    let poses = [pose(0.0, 0.0), pose(0.3, 1.0), pose(0.7, 3.0)];
    let line = |pose: &[f64; 12]| pose.map(|v| v.to_string()).join(" ") + "\n";
    fs::write(inner.join("poses.txt"), poses.iter().map(line).collect::<String>()).unwrap();
    let clip = Dataset::open(dir.path(), Split::Train, options(3)).unwrap().clip(0).unwrap();
    for (relative, pose) in clip.poses.unwrap().iter().zip(&poses) {
        assert!((pose_of_rows(&poses[1]) * *relative).abs_diff_eq(pose_of_rows(pose), 1e-9));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_give_one_error_or_valid_data(
        which in 0usize..5,
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        keep in 0usize..200,
        garbage in any::<bool>(),
    ) {
        let dir = TempDir::new().unwrap();
        let inner = write_sequence(dir.path(), "Train", "A", 0..2);
        let file = ["evaluation/000000.label", "evaluation/000000.bin", "evaluation/params.json", "poses.txt", "times.txt"];
        let path = inner.join(file[which]);
        let mut content = fs::read(&path).unwrap();
        if garbage {
            content = bytes;
        } else {
            // Truncated, or with something behind it.
            content.truncate(keep);
            content.extend(&bytes[..bytes.len().min(keep / 8)]);
        }
        fs::write(&path, content).unwrap();
        let result = Dataset::open(dir.path(), Split::Train, options(1)).and_then(|dataset| {
            dataset.class_counts()?;
            (0..dataset.len()).map(|i| dataset.clip(i)).collect::<Result<Vec<_>, _>>()
        });
        match result {
            Ok(clips) => {
                for frame in clips.iter().flat_map(|clip| &clip.frames) {
                    prop_assert!(frame.labels.len() == VOXELS && frame.labels.iter().all(|&class| class < 11));
                }
            }
            Err(Error::Data(message)) => prop_assert!(!message.contains('\n') && message.contains(file[which].rsplit('/').next().unwrap())
                || message.contains("000000"), "{}", message),
            Err(other) => prop_assert!(false, "{other:?}"),
        }
    }
}
