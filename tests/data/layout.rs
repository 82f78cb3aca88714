//! The reader against what people's disks hold: links that lead nowhere, files of other systems, frames with a stride.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::files::{VOXELS, expect, inner, options, write_sequence, write_words};
use sep4d::Error;
use sep4d::data::{Dataset, DatasetOptions, Split};
use tempfile::TempDir;

fn open(root: &Path, options: DatasetOptions) -> Dataset {
    Dataset::open(root, Split::Train, options).unwrap()
}

fn choice(sequences: &[&str]) -> DatasetOptions {
    DatasetOptions { sequences: sequences.iter().map(|name| (*name).to_owned()).collect(), ..options(2) }
}

/// Opens the train split and expects a data error with `parts` in its one sentence.
fn refused(root: &Path, options: DatasetOptions, parts: &[&str]) {
    match Dataset::open(root, Split::Train, options) {
        Err(Error::Data(message)) => {
            assert!(!message.contains('\n'), "{message}");
            expect(&message, parts);
        }
        other => panic!("expected a data error with {parts:?}, got {other:?}"),
    }
}

fn names(dataset: &Dataset) -> Vec<&str> {
    dataset.sequences().map(|(name, _)| name).collect()
}

#[test]
fn a_sequence_that_has_gone_is_told_and_not_dropped() {
    let dir = TempDir::new().unwrap();
    let root = dir.path();
    for name in ["A", "B"] {
        write_sequence(root, "Train", name, 0..4);
    }
    write_sequence(root, "Val", "V", 0..4);
    let broken = root.join("Cartesian/Train/C");
    let expected = |parts: &[&str]| {
        refused(root, options(2), &[parts, &["list the sequences that are wanted in data.sequences"]].concat());
        let chosen = open(root, choice(&["A", "B"]));
        assert_eq!((names(&chosen), chosen.len()), (vec!["A", "B"], 6));
        assert!(chosen.warnings().is_empty(), "{:?}", chosen.warnings());
        // One that is wanted must be there.
        refused(root, choice(&["A", "C"]), parts);
    };
    symlink("/mnt/unplugged/C", &broken).unwrap();
    expected(&["Train/C is a link to /mnt/unplugged/C, which is not there"]);
    fs::remove_file(&broken).unwrap();
    symlink(&broken, &broken).unwrap();
    expected(&["cannot read", "Train/C", "symbolic links"]);
    fs::remove_file(&broken).unwrap();
    fs::create_dir(&broken).unwrap();
    expected(&["Train/C has no cartesian/evaluation folder"]);
    symlink("/mnt/unplugged", broken.join("cartesian")).unwrap();
    expected(&["C/cartesian is a link to /mnt/unplugged"]);
    fs::remove_file(broken.join("cartesian")).unwrap();
    fs::write(broken.join("cartesian"), "").unwrap();
    expected(&["C/cartesian is a file where a folder is expected"]);
    fs::remove_file(broken.join("cartesian")).unwrap();
    fs::create_dir_all(broken.join("cartesian/evaluation")).unwrap();
    expected(&["C/cartesian/evaluation has no .label files"]);

    refused(root, choice(&["A", "D"]), &["there is no sequence \"D\"", "data.sequences"]);
}

#[test]
fn a_choice_that_names_none_of_a_split_leaves_it_whole() {
    let dir = TempDir::new().unwrap();
    for name in ["A", "B"] {
        write_sequence(dir.path(), "Train", name, 0..4);
    }
    write_sequence(dir.path(), "Val", "V", 0..4);
    let held_out = Dataset::open(dir.path(), Split::Val, choice(&["A"])).unwrap();
    assert_eq!(names(&held_out), ["V"]);
    expect(&held_out.warnings().join("\n"), &["data.sequences has none of", "Val"]);
    assert_eq!(names(&open(dir.path(), choice(&["B"]))), ["B"]);
    // Each choice has counts of its own.
    let counts = |sequences: &[&str]| open(dir.path(), choice(sequences)).class_counts().unwrap().iter().sum::<u64>();
    assert_eq!([counts(&[]), counts(&["B"]), counts(&[])], [256, 128, 256]);
}

#[test]
fn several_problems_are_counted() {
    let dir = TempDir::new().unwrap();
    write_sequence(dir.path(), "Train", "A", 0..2);
    for name in ["B", "C"] {
        symlink("/mnt/unplugged", dir.path().join("Cartesian/Train").join(name)).unwrap();
    }
    refused(dir.path(), options(2), &["Train/B is a link", "the first of 2 problems", "`sep4d check "]);
}

#[test]
fn every_file_that_leads_nowhere_is_named() {
    let dir = TempDir::new().unwrap();
    let inner = write_sequence(dir.path(), "Train", "A", 0..2);
    let kept = dir.path().join("kept");
    for file in [
        "evaluation/params.json",
        "poses.txt",
        "times.txt",
        "evaluation/000001.label",
        "evaluation/000001.bin",
        "evaluation",
        "../../A",
        "../../../Train",
        "../../../../Cartesian",
    ] {
        let path = inner.join(file);
        let at = path.parent().unwrap().canonicalize().unwrap().join(path.file_name().unwrap());
        fs::rename(&at, &kept).unwrap();
        // A link to where it is now is as good as itself.
        symlink(&kept, &at).unwrap();
        assert_eq!(open(dir.path(), options(2)).len(), 1);
        fs::remove_file(&at).unwrap();
        symlink("/mnt/unplugged", &at).unwrap();
        let name = at.file_name().unwrap().to_str().unwrap();
        refused(dir.path(), options(2), &[&format!("{name} is a link to /mnt/unplugged, which is not there")]);
        fs::remove_file(&at).unwrap();
        fs::rename(&kept, &at).unwrap();
    }
    let gone = dir.path().join("gone");
    symlink("/mnt/unplugged", &gone).unwrap();
    refused(&gone, options(2), &["gone is a link to /mnt/unplugged"]);
    fs::create_dir(dir.path().join("mountpoint")).unwrap();
    refused(&dir.path().join("mountpoint"), options(2), &["mountpoint is empty", "mount its disk"]);
    refused(&inner.join("poses.txt"), options(2), &["poses.txt is not a folder"]);
}

#[test]
fn what_other_systems_leave_behind_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let inner = write_sequence(dir.path(), "Train", "A", 0..3);
    let evaluation = inner.join("evaluation");
    let before = open(dir.path(), options(2)).clip(1).unwrap();
    for path in [
        inner.join("../../../.DS_Store"),
        inner.join("../../._A"),
        inner.join("../../Thumbs.db"),
        evaluation.join("._000000.label"),
        evaluation.join("._000000.bin"),
        evaluation.join("desktop.ini"),
    ] {
        fs::write(path, "of another system").unwrap();
    }
    fs::create_dir(inner.join("../../.Trash-1000")).unwrap();
    fs::create_dir(inner.join("../../lost+found")).unwrap();
    for name in ["poses.txt", "times.txt", "evaluation/params.json"] {
        let text = fs::read_to_string(inner.join(name)).unwrap();
        fs::write(inner.join(name), format!("\u{feff}{}", text.replace('\n', "\r\n"))).unwrap();
    }
    for (from, to) in [("000001.label", "000001.LABEL"), ("000001.bin", "1.BIN")] {
        fs::rename(evaluation.join(from), evaluation.join(to)).unwrap();
    }
    let dataset = open(dir.path(), options(2));
    assert!(dataset.warnings().is_empty(), "{:?}", dataset.warnings());
    assert_eq!((dataset.len(), dataset.clip(1).unwrap()), (2, before));

    fs::write(inner.join("times.txt"), [0xFE, 0xFF, 0, b'0']).unwrap();
    refused(dir.path(), options(2), &["times.txt is text in UTF-16; save it as UTF-8"]);
    fs::write(inner.join("times.txt"), "0\n1\n2\n").unwrap();
    write_words(&evaluation.join("1.label"), std::iter::repeat_n(0, VOXELS));
    refused(dir.path(), options(2), &["000001.LABEL and", "1.label have the same frame number"]);
}

#[test]
fn a_missing_grid_is_that_of_the_other_sequences() {
    let dir = TempDir::new().unwrap();
    let without = write_sequence(dir.path(), "Train", "A", 0..2);
    fs::remove_file(without.join("evaluation/params.json")).unwrap();
    write_sequence(dir.path(), "Train", "B", 0..2);
    let dataset = open(dir.path(), options(2));
    assert_eq!((dataset.grid().size, dataset.len()), ([4, 4, 2], 2));
    expect(&dataset.warnings().join("\n"), &["no params.json in A", "4x4x2, that of the other sequences"]);
    for n in 0..2 {
        write_words(&without.join(format!("evaluation/{n:06}.label")), std::iter::repeat_n(0, 64));
    }
    refused(dir.path(), options(2), &["A has no params.json", "000000.label has 256 bytes", "4x4x2", "128"]);
    fs::remove_file(inner(dir.path(), "Train", "B").join("evaluation/params.json")).unwrap();
    refused(dir.path(), options(2), &["A has no params.json", "the 128x128x8 grid of CarlaSC"]);
}

#[test]
fn what_is_wrong_with_a_file_is_known_when_the_data_are_opened() {
    let dir = TempDir::new().unwrap();
    let inner = write_sequence(dir.path(), "Train", "A", 0..6);
    let evaluation = inner.join("evaluation");
    let changed = |name: &str, text: &str, parts: &[&str]| {
        let intact = fs::read(inner.join(name)).unwrap();
        fs::write(inner.join(name), text).unwrap();
        refused(dir.path(), options(2), parts);
        fs::write(inner.join(name), intact).unwrap();
    };
    changed("evaluation/000004.label", "", &["000004.label has 0 bytes"]);
    changed("evaluation/000005.bin", "x", &["000005.bin has 1 bytes"]);
    let pose = "1 0 0 0 0 1 0 0 0 0 1 0\n";
    changed("poses.txt", &(pose.repeat(4) + &"0 ".repeat(12) + "\n" + pose), &["pose of frame 4 of A has no inverse"]);
    let cylindrical = r#"{"grid_size": [4, 4, 2], "min_bound": [0, -3.2, -2], "max_bound": [25.6, 3.2, 1], "coordinates": "cylindrical"}"#;
    changed("evaluation/params.json", cylindrical, &["params.json", "cylindrical", "only cartesian"]);
    fs::remove_file(evaluation.join("000003.bin")).unwrap();
    refused(dir.path(), options(2), &["000003.bin is missing", "its .label and its .bin"]);
    fs::remove_file(evaluation.join("000003.label")).unwrap();
    // What goes after that is told when it is read.
    let dataset = open(dir.path(), options(2));
    fs::remove_file(evaluation.join("000001.label")).unwrap();
    expect(&dataset.clip(0).unwrap_err().to_string(), &["000001.label is missing"]);
}

#[test]
fn what_is_odd_but_readable_is_a_warning() {
    let dir = TempDir::new().unwrap();
    let inner = write_sequence(dir.path(), "Train", "A", 0..4);
    fs::remove_file(inner.join("evaluation/000003.label")).unwrap();
    fs::write(inner.join("times.txt"), "0\n0.2\n0.1\n0.3\n").unwrap();
    let (pose, mirror) = ("1 0 0 0 0 1 0 0 0 0 1 0\n", "1 0 0 0 0 1 0 0 0 0 -1 0\n");
    fs::write(inner.join("poses.txt"), pose.to_owned() + mirror + mirror + pose).unwrap();
    fs::write(inner.join("../../notes.txt"), "").unwrap();
    let warnings = open(dir.path(), options(2)).warnings().join("\n");
    expect(&warnings, &["frame 3 of A has a .bin but no .label", "time of frame 2 of A is not after"]);
    expect(&warnings, &["pose of frames 1, 2 of A is no rigid motion", "notes.txt beside its sequences"]);
}

#[test]
fn frames_with_a_constant_step_are_neighbours() {
    let dir = TempDir::new().unwrap();
    write_sequence(dir.path(), "Train", "00", (0..60).step_by(5));
    write_sequence(dir.path(), "Train", "01", (0..60).step_by(5).filter(|n| ![20, 25, 40].contains(n)));
    let dataset = open(dir.path(), options(4));
    // 12 frames in a row, and rows of 4, 2 and 3.
    assert_eq!(dataset.len(), 9 + 1);
    expect(
        &dataset.warnings().join("\n"),
        &["numbered in steps of 5 in 00 and 1 more", "01 has gaps", "(20, 25, 40 missing)"],
    );
    let clip = dataset.clip(2).unwrap();
    assert_eq!((clip.first_frame, clip.frame_step), (10, 5));
    assert_eq!(clip.numbers().collect::<Vec<_>>(), [10, 15, 20, 25]);
    assert_eq!((dataset.origin(2), dataset.frame_step(2)), (Some(("00", 10)), Some(5)));
    // The lines of poses and times belong to the numbers.
    assert!((clip.times_secs[1] - 1.5).abs() < 1e-9);
    assert_eq!(clip.poses.unwrap().iter().map(|pose| pose.translation.x).collect::<Vec<_>>(), [-5.0, -2.5, 0.0, 2.5]);
    let classes: Vec<u8> = clip.frames.iter().map(|frame| frame.labels[1]).collect();
    assert_eq!(classes, [10, 15, 20, 2].map(|raw| dataset.classes().class_of(raw).unwrap()));
    refused(dir.path(), options(13), &["13 consecutive frames", "the longest has 12 in all"]);
}

#[test]
fn a_stride_takes_every_kth_frame_from_every_start() {
    let dir = TempDir::new().unwrap();
    write_sequence(dir.path(), "Train", "A", 0..10);
    write_sequence(dir.path(), "Train", "B", (0..40).step_by(4));
    let strided = |stride: usize| open(dir.path(), DatasetOptions { stride, ..options(3) });
    let whole = strided(1);
    assert_eq!((whole.len(), whole.frame_step(0), whole.frame_step(8)), (16, Some(1), Some(4)));
    let dataset = strided(3);
    assert_eq!(dataset.len(), 2 * 4);
    let of = |index: usize| dataset.clip(index).unwrap().numbers().collect::<Vec<_>>();
    assert_eq!([of(0), of(1), of(3), of(4)], [[0, 3, 6], [1, 4, 7], [3, 6, 9], [0, 12, 24]]);
    let clip = dataset.clip(1).unwrap();
    assert!((clip.times_secs[2] - 0.7).abs() < 1e-9);
    assert_eq!(clip.poses.unwrap().iter().map(|pose| pose.translation.x).collect::<Vec<_>>(), [-1.5, 0.0, 1.5]);
    assert_eq!(dataset.class_counts().unwrap(), whole.class_counts().unwrap(), "all frames are in clips as before");
    let zero = Dataset::open(dir.path(), Split::Train, DatasetOptions { stride: 0, ..options(3) });
    assert!(matches!(zero, Err(Error::Usage(message)) if message.contains("data.stride")));
    refused(
        dir.path(),
        DatasetOptions { stride: 5, ..options(3) },
        &["3 consecutive frames with data.stride = 5", "a smaller data.stride"],
    );
}

#[test]
fn missing_frames_are_named_where_no_clip_is_left() {
    let dir = TempDir::new().unwrap();
    write_sequence(dir.path(), "Train", "A", [0, 1, 3, 7, 8]);
    refused(dir.path(), options(4), &["has 5 in all, but lacks 2, 4 to 6", "copy the missing frames"]);
    write_sequence(dir.path(), "Train", "B", 0..4);
    let warnings = open(dir.path(), options(4)).warnings().join("\n");
    expect(&warnings, &["sequence A is left out: it has 5 frames (2, 4 to 6 missing)", "the 4 of a clip"]);
}
