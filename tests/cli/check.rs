//! `sep4d check` as a user or a script runs it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common;

const NOBODY: u32 = 65534;

fn sep4d(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sep4d"));
    command.args(args);
    command
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn said(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// The evaluation folder of the town's only sequence of a split.
fn evaluation(town: &Path, split: &str) -> PathBuf {
    let mut entries = fs::read_dir(town.join("Cartesian").join(split)).unwrap();
    entries.next().unwrap().unwrap().path().join("cartesian/evaluation")
}

#[test]
fn sound_data_are_summed_up() {
    let dir = tempfile::tempdir().unwrap();
    let town = common::town(dir.path());
    let output = sep4d(&["check", text(&town)]).output().unwrap();
    let (stdout, stderr) = said(&output);
    assert!(output.status.success() && stderr.is_empty(), "{stdout}{stderr}");
    let rows: Vec<Vec<&str>> = stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    let train = rows.iter().find(|row| row.first() == Some(&"Train")).unwrap();
    assert_eq!(train[1..3], ["1", "6"], "{stdout}");
    assert!(stdout.contains("16x16x4 voxels of 1.6 x 1.6 x 0.75 m"), "{stdout}");
    assert!(rows.iter().any(|row| row.first() == Some(&"Building") && row.len() == 1 + 3 * 3), "{stdout}");
    let output = sep4d(&["check", "--json", text(&town)]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success());
    assert_eq!((json["problem_count"].as_u64(), json["splits"].as_array().unwrap().len()), (Some(0), 3));
    assert_eq!((json["splits"][0]["split"].as_str(), json["splits"][0]["frames"].as_u64()), (Some("train"), Some(6)));
    assert_eq!(json["splits"][0]["class_counts"].as_array().unwrap().len(), json["classes"].as_array().unwrap().len());
}

#[test]
fn every_problem_is_printed_and_the_exit_code_is_3() {
    let dir = tempfile::tempdir().unwrap();
    let town = common::town(dir.path());
    let spaced = dir.path().join("my town");
    fs::rename(&town, &spaced).unwrap();
    for split in ["Train", "Val", "Test"] {
        fs::write(evaluation(&spaced, split).join("000003.bin"), f32::NAN.to_le_bytes().repeat(1024)).unwrap();
        fs::write(evaluation(&spaced, split).join("000004.label"), "").unwrap();
    }
    let output = sep4d(&["check", text(&spaced)]).output().unwrap();
    let (stdout, stderr) = said(&output);
    assert_eq!(output.status.code(), Some(3), "{stdout}{stderr}");
    assert_eq!((stdout.matches("000003.bin holds NaN").count(), stdout.matches("000004.label has 0").count()), (3, 3));
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("error: 6 problems were found in") && stderr.contains("my town'`"), "{stderr}");
    let output = sep4d(&["check", "--json", text(&spaced)]).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert_eq!((json["problem_count"].as_u64(), json["problems"].as_array().unwrap().len()), (Some(6), 6));
    let output = sep4d(&["check", text(&dir.path().join("none"))]).output().unwrap();
    assert!(output.status.code() == Some(3) && said(&output).1.contains("none is not a folder"));
}

#[test]
fn what_may_not_be_read_is_named_with_the_true_reason() {
    let dir = tempfile::tempdir().unwrap();
    let town = common::town(dir.path());
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let evaluation = evaluation(&town, "Train");
    let sequence = evaluation.parent().unwrap().parent().unwrap().to_path_buf();
    // Nothing is forbidden to root, so root becomes nobody where it can.
    let as_nobody = |args: &[&str]| {
        let mut command = sep4d(args);
        command.env("HOME", "/nonexistent").env_remove("XDG_CACHE_HOME");
        if dir.path().metadata().unwrap().uid() == 0 {
            command.uid(NOBODY).gid(NOBODY);
        }
        command.output()
    };
    // The program itself may stand where nobody may look.
    if as_nobody(&["--version"]).is_err() {
        return;
    }
    for (path, name) in [
        (sequence.clone(), "cartesian: permission denied"),
        (evaluation.parent().unwrap().to_path_buf(), "evaluation: permission denied"),
        (evaluation.clone(), "permission denied"),
        (evaluation.join("000002.label"), "000002.label: permission denied"),
        (evaluation.join("000002.bin"), "000002.bin: permission denied"),
        (evaluation.join("params.json"), "params.json: permission denied"),
        (evaluation.parent().unwrap().join("poses.txt"), "poses.txt: permission denied"),
        (town.join("Cartesian/Val"), "permission denied"),
        (town.join("Cartesian"), "permission denied"),
    ] {
        let before = path.metadata().unwrap().permissions();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).unwrap();
        let output = as_nobody(&["check", text(&town)]).unwrap();
        fs::set_permissions(&path, before).unwrap();
        let (stdout, stderr) = said(&output);
        assert_eq!(output.status.code(), Some(3), "{stdout}{stderr}");
        let all = stdout + &stderr;
        assert!(all.contains(name) && !all.contains("has no cartesian/evaluation"), "{name} is not in {all}");
    }
    let output = as_nobody(&["check", text(&town)]).unwrap();
    assert!(output.status.success(), "{:?}", said(&output));
}
