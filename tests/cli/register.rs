//! `sep4d register` as a user or a script runs it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use sep4d::data::synth::{self, Level, SynthOptions};

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

#[test]
fn flagged_pairs_are_named_and_the_exit_code_is_3() {
    let dir = tempfile::tempdir().unwrap();
    let town = town(dir.path(), 4);
    // Of the third frame nothing was seen.
    let evaluation = town.join("Cartesian/Train/Town01_Light/cartesian/evaluation");
    for name in ["000002.label", "000002.bin"] {
        let path = evaluation.join(name);
        let zeros = vec![0; fs::metadata(&path).unwrap().len() as usize];
        fs::write(&path, zeros).unwrap();
    }
    let output = register(&town, &[]);
    let (stdout, stderr) = said(&output);
    assert_eq!(output.status.code(), Some(3), "{stdout}{stderr}");
    assert!(stdout.contains("Train/Town01_Light: too little stands still (frames 1-2, 2-3)"), "{stdout}");
    assert!(stderr.starts_with("error: 2 of 3 pairs of frames in") && stderr.lines().count() == 1, "{stderr}");
}
