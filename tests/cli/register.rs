//! `sep4d register` as a user or a script runs it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use sep4d::data::synth::{self, Level, SynthOptions};
use sep4d::data::{Dataset, DatasetOptions, Split};

fn register(town: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sep4d"));
    command.arg("register").arg(town).args(more).output().unwrap()
}

fn said(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// A town of one sequence with so many frames.
fn town(parent: &Path, frames: usize) -> std::path::PathBuf {
    let out = parent.join("town");
    let grid = synth::grid([32, 32, 8], [0.8, 0.8, 0.375]).unwrap();
    let options = SynthOptions { grid, seed: 0, frames, towns: [1, 0, 0], levels: vec![Level::Light] };
    synth::write(&out, &options, |_| {}).unwrap();
    out
}

#[test]
fn motions_are_summed_up_drawn_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let town = town(dir.path(), 6);
    let picture = dir.path().join("frames.png");
    let first = register(&town, &["--picture", picture.to_str().unwrap()]);
    let (stdout, stderr) = said(&first);
    assert!(first.status.success() && stderr.is_empty(), "{stdout}{stderr}");
    let row = stdout.lines().find(|line| line.starts_with("Train/Town01_Light")).unwrap();
    // Name, frames, two motions, two turns, flagged, and two errors each of the shift and of the turn, with their units.
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!((cells[1], cells[10], cells.len()), ("6", "none", 19), "{stdout}");
    assert!(cells[11].parse::<f64>().unwrap() < 0.1 && cells[15].parse::<f64>().unwrap() < 0.2, "{stdout}");
    assert!(fs::read(&picture).unwrap().starts_with(b"\x89PNG") && stdout.trim_end().ends_with("frames.png"));
    // What is kept is printed alike.
    let again = register(&town, &["--split", "train"]);
    assert_eq!(said(&again).0.lines().next_back(), Some(row));
}

/// Makes of a frame one of which nothing was seen.
fn blind(town: &Path, frame: usize) {
    let evaluation = town.join("Cartesian/Train/Town01_Light/cartesian/evaluation");
    for ending in ["label", "bin"] {
        let path = evaluation.join(format!("{frame:06}.{ending}"));
        let zeros = vec![0; fs::metadata(&path).unwrap().len() as usize];
        fs::write(&path, zeros).unwrap();
    }
}

#[test]
fn frames_are_aligned_by_what_was_registered() {
    let dir = tempfile::tempdir().unwrap();
    let town = town(dir.path(), 6);
    let open = |registered| {
        let options = DatasetOptions { frames_per_clip: 3, registered, ..Default::default() };
        Dataset::open(&town, Split::Train, options)
    };
    let train = |name: &str| {
        let set = ["model.align=registered", "train.steps=1", "train.validate_every=0", "data.frames=3"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_sep4d"));
        command.args(["--train", "--preset", "tiny", "--data"]).arg(&town).arg("--output").arg(dir.path().join(name));
        command.args(set.iter().flat_map(|pair| ["--set", pair])).output().unwrap()
    };
    let why = open(true).unwrap_err().to_string();
    assert!(why.contains("Town01_Light has not been registered as it is now; run `sep4d register "), "{why}");
    assert_eq!(train("early").status.code(), Some(3));

    assert!(register(&town, &[]).status.success());
    let known = open(false).unwrap().clip(1).unwrap().poses.unwrap();
    fs::remove_file(town.join("Cartesian/Train/Town01_Light/cartesian/poses.txt")).unwrap();
    let set = open(true).unwrap();
    assert!(!set.has_poses() && open(false).unwrap().clip(1).unwrap().poses.is_none());
    let found = set.clip(1).unwrap().poses.unwrap();
    for (known, found) in known.iter().zip(&found) {
        assert!(known.translation.distance(found.translation) < 0.3, "{known:?} {found:?}");
    }
    let output = train("run");
    assert!(output.status.success(), "{}", said(&output).1);

    // What leads across a flagged pair is left out.
    blind(&town, 4);
    assert_eq!(register(&town, &[]).status.code(), Some(3));
    let set = open(true).unwrap();
    let told = set.warnings().join(" ");
    assert!(set.len() == 2 && told.contains("2 of 4 clips are left out"), "{} {told}", set.len());
}

#[test]
fn flagged_pairs_are_named_and_the_exit_code_is_3() {
    let dir = tempfile::tempdir().unwrap();
    let town = town(dir.path(), 4);
    blind(&town, 2);
    let output = register(&town, &[]);
    let (stdout, stderr) = said(&output);
    assert_eq!(output.status.code(), Some(3), "{stdout}{stderr}");
    assert!(stdout.contains("Train/Town01_Light: too little stands still (frames 1-2, 2-3)"), "{stdout}");
    assert!(stderr.starts_with("error: 2 of 3 pairs of frames in") && stderr.lines().count() == 1, "{stderr}");
}
