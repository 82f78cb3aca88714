//! Reading a whole data set: every problem is told, and what was read is remembered until a file changes.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::files::{VOXELS, expect, inner, options, write_sequence, write_words};
use sep4d::data::check::{Event, Summary, check, doubts};
use sep4d::data::synth::{self, Level, SynthOptions};
use sep4d::data::{Dataset, Split};
use tempfile::TempDir;

fn read(root: &Path) -> (Summary, Vec<String>, Vec<String>) {
    let (mut problems, mut notes) = (Vec::new(), Vec::new());
    let summary = check(root, |event| match event {
        Event::Problem(why) => problems.push(why),
        Event::Note(note) => notes.push(note),
        Event::Frames(_) | Event::Read(_) => {}
    });
    (summary.unwrap(), problems, notes)
}

fn doubt(root: &Path) -> Option<String> {
    let open = |split| Dataset::open(root, split, options(2)).unwrap();
    let (train, val) = (open(Split::Train), open(Split::Val));
    doubts(root, &[&train, &val])
}

#[test]
fn every_problem_of_every_split_is_told() {
    let dir = TempDir::new().unwrap();
    let root = dir.path();
    let train = write_sequence(root, "Train", "A", 0..6);
    let held_out = write_sequence(root, "Val", "V", 0..4);
    let test = write_sequence(root, "Test", "T", 0..4);
    write_words(&train.join("evaluation/000001.label"), std::iter::repeat_n(99, VOXELS));
    write_words(&train.join("evaluation/000001.bin"), std::iter::repeat_n(f32::NAN.to_bits(), VOXELS));
    fs::write(train.join("evaluation/000004.label"), "short").unwrap();
    fs::remove_file(train.join("evaluation/000005.bin")).unwrap();
    fs::write(train.join("poses.txt"), "0 ".repeat(12).trim_end().to_owned() + "\n1 0\nnan\n").unwrap();
    fs::write(held_out.join("times.txt"), "0\n0.1\n0.1\n0.2\n").unwrap();
    let (pose, bent) = ("1 0 0 0 0 1 0 0 0 0 1 0\n", "2 0 0 0 0 1 0 0 0 0 1 0\n");
    fs::write(held_out.join("poses.txt"), pose.repeat(3) + bent).unwrap();
    fs::write(test.join("poses.txt"), pose.repeat(2) + &("0 ".repeat(12) + "\n").repeat(2)).unwrap();
    fs::write(test.join("times.txt"), "0\n").unwrap();
    fs::create_dir_all(root.join("Cartesian/Test/Empty")).unwrap();

    let grid = r#"{"grid_size": [4, 8, 1], "min_bound": [0, 0, 0], "max_bound": [1, 1, 1]}"#;
    fs::write(test.join("evaluation/params.json"), grid).unwrap();
    let (summary, problems, notes) = read(root);
    assert_eq!(notes.len(), 2, "what is there but wrong is not missing: {notes:#?}");
    expect(&notes.join("\n"), &["the grid of Test, 4x8x1, has an odd side", "the grids of Train and Test differ"]);
    let expected = [
        "poses.txt are not 12 finite numbers",
        "the time of frame 2 of V is not after",
        "the pose of frame 3 of V is no rigid motion",
        "Test/Empty has no cartesian/evaluation folder",
        "T/cartesian/times.txt has 1 lines, too few",
        "the pose of frames 2, 3 of T has no inverse",
        "000001.label has the class id 99",
        "000001.bin holds NaN",
        "000004.label has 5 bytes",
        "000005.bin is missing",
    ];
    for part in expected {
        assert_eq!(problems.iter().filter(|problem| problem.contains(part)).count(), 1, "{part}: {problems:#?}");
    }
    assert_eq!((problems.len(), summary.problems), (expected.len(), expected.len()));
    let train = &summary.splits[0];
    assert_eq!((train.split, train.sequences, train.frames), (Split::Train, 1, 6));
    assert_eq!(train.class_counts.iter().sum::<u64>(), 4 * 32, "the labels of 0, 2, 3 and 5");
    assert_eq!((train.masked, train.observed), (4 * 32, 4 * 31), "the masks of 0, 2, 3 and 4");
    assert_eq!((train.with_poses, train.with_times), (0, 1));
    assert!(check(&root.join("none"), |_| {}).is_err());
}

#[test]
fn what_was_read_is_remembered_until_it_changes() {
    let dir = TempDir::new().unwrap();
    let root = dir.path();
    for split in ["Train", "Val"] {
        write_sequence(root, split, &format!("{split}1"), 0..3);
    }
    expect(&doubt(root).unwrap(), &["never checked", &format!("`sep4d check {}`", root.display())]);
    assert_eq!(read(root).0.problems, 0);
    assert_eq!(doubt(root), None);
    // One file of each kind, and the files that are read but not trained on.
    for name in ["evaluation/000001.label", "evaluation/000002.bin", "evaluation/params.json", "poses.txt", "times.txt"]
    {
        let file = fs::File::options().write(true).open(inner(root, "Val", "Val1").join(name)).unwrap();
        let before = file.metadata().unwrap().modified().unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(7)).unwrap();
        expect(&doubt(root).unwrap(), &["Val/Val1 changed after the data were checked", "`sep4d check "]);
        file.set_modified(before).unwrap();
        assert_eq!(doubt(root), None, "{name}");
    }
    let mask = inner(root, "Train", "Train1").join("evaluation/000000.bin");
    write_words(&mask, std::iter::repeat_n(f32::INFINITY.to_bits(), VOXELS));
    expect(&doubt(root).unwrap(), &["Train/Train1 changed"]);
    assert_eq!(read(root).0.problems, 1);
    expect(&doubt(root).unwrap(), &["found problems in Train/Train1"]);
    // A name with a space is proposed as a shell takes it.
    let spaced = root.join("my data");
    fs::create_dir(&spaced).unwrap();
    fs::rename(root.join("Cartesian"), spaced.join("Cartesian")).unwrap();
    expect(&doubt(&spaced).unwrap(), &["my data'`"]);
}

#[test]
fn a_generated_town_needs_no_check() {
    let dir = TempDir::new().unwrap();
    let grid = synth::grid([4, 4, 4], [0.8, 0.8, 0.375]).unwrap();
    let options = SynthOptions { grid, frames: 3, towns: [1, 1, 0], levels: vec![Level::Light], ..Default::default() };
    synth::write(dir.path(), &options, |_| {}).unwrap();
    assert_eq!(doubt(dir.path()), None);
    let (summary, problems, notes) = read(dir.path());
    assert_eq!((summary.splits.len(), problems.len(), notes.len()), (2, 0, 0), "{problems:?} {notes:?}");
    synth::write(dir.path(), &SynthOptions { seed: 1, ..options }, |_| {}).unwrap();
    assert_eq!(doubt(dir.path()), None, "nor does one that replaced it");
}
