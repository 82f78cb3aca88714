//! The program as a user or a batch system runs it: train, be killed, go on, evaluate, export.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use sep4d::data::{Dataset, DatasetOptions, Split};
use sep4d::train::checkpoint::{Checkpoint, CheckpointFolder};

use crate::common;

fn sep4d(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sep4d"));
    common::heeding_signals(&mut command).args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(args: &[&str]) -> Output {
    let output = sep4d(args).output().expect("the program starts");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

/// Reads the child's lines until one contains `words`; false if it ends before.
fn says(child: &mut Child, words: &str) -> bool {
    let stdout = child.stdout.as_mut().expect("stdout is piped");
    BufReader::new(stdout).lines().map_while(Result::ok).any(|line| line.contains(words))
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status();
    assert!(status.expect("kill is there").success());
}

fn final_checkpoint(run: &Path) -> Checkpoint {
    let newest = CheckpointFolder::new(run.join("checkpoints")).latest().expect("a checkpoint is whole");
    assert_eq!(newest.passed_over, [""; 0]);
    newest.found.expect("there is a checkpoint").1
}

#[test]
fn train_evaluate_export_render() {
    let dir = tempfile::tempdir().unwrap();
    let (town, out) = (common::town(dir.path()), dir.path().join("run"));
    let train = ["--train", "--preset", "tiny", "--data", text(&town), "--output", text(&out)];
    let set = ["--set", "train.steps=4", "--set", "train.validate_every=2"];
    run(&[train.as_slice(), set.as_slice()].concat());
    assert!(out.join("environment.json").is_file() && out.join("metrics.csv").is_file());

    let again = sep4d(&train).output().unwrap();
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&again.stderr).contains("already holds a run"));
    // The run's own configuration repeats it.
    let repeat = dir.path().join("repeat");
    run(&["--train", "--config", text(&out.join("config.toml")), "--output", text(&repeat)]);
    assert_eq!(final_checkpoint(&repeat).state, final_checkpoint(&out).state);

    let table = String::from_utf8(run(&["eval", text(&out)]).stdout).unwrap();
    assert!(table.contains("mIoU") && table.contains("Vehicle"), "{table}");
    let json = run(&["eval", text(&out), "--json", "--clips", "0", "--checkpoint", "last", "--split", "test"]).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!((json["step"].as_u64(), json["evaluation"]["clips"].as_u64()), (Some(4), Some(5)));

    let exported = dir.path().join("exported");
    let recognised = Dataset::open(&town, Split::Val, DatasetOptions::default()).unwrap().about();
    let told = String::from_utf8(run(&["export", text(&out), text(&exported)]).stdout).unwrap();
    assert!(told.contains(&recognised), "{told}");
    let dataset =
        Dataset::open(&exported, Split::Val, DatasetOptions { frames_per_clip: 6, ..Default::default() }).unwrap();
    assert_eq!((dataset.len(), dataset.grid().size), (1, [16, 16, 4]));
    dataset.clip(0).unwrap();
    let sequence = exported.join("Val").join(&dataset.clip(0).unwrap().sequence);
    let planes = npyz::npz::NpzArchive::open(sequence.join("latents/000000.npz")).unwrap();
    assert!(planes.array_names().any(|name| name == "xy_mu"));

    let pictures = run(&["render", text(&out)]);
    assert!(String::from_utf8(pictures.stderr).unwrap().contains(&recognised));
    let pictures = String::from_utf8(pictures.stdout).unwrap();
    let pictures: Vec<&Path> = pictures.lines().map(Path::new).collect();
    assert!(pictures.len() == 2 && pictures.iter().all(|path| path.is_file()));
    // What a drawing that was killed left goes with the next one of the same clip.
    let left = |name: &str| pictures[0].with_file_name(name);
    let killed = left(&format!(".{}.2zimKO", pictures[1].file_name().unwrap().to_str().unwrap()));
    let other = left(".another.gif.2zimKO");
    [&killed, &other].into_iter().for_each(|path| fs::write(path, "").unwrap());
    run(&["render", text(&out)]);
    assert!(!killed.exists() && other.exists());
}

#[test]
fn a_model_of_aligned_frames_needs_poses_and_exports_their_motion() {
    let dir = tempfile::tempdir().unwrap();
    let (town, out) = (common::town(dir.path()), dir.path().join("run"));
    let train = |out: &Path, align: &str| {
        let set = [format!("model.align={align}"), "train.steps=2".into(), "train.validate_every=2".into()];
        let set = set.iter().flat_map(|pair| ["--set", pair]);
        let args: Vec<&str> = ["--train", "--preset", "tiny", "--data", text(&town), "--output", text(out)].to_vec();
        sep4d(&args.into_iter().chain(set).collect::<Vec<_>>()).output().unwrap()
    };
    assert!(train(&out, "auto").status.success());
    let config = fs::read_to_string(out.join("config.toml")).unwrap();
    assert!(config.contains("align = \"pose\""), "{config}");
    let exported = dir.path().join("exported");
    run(&["export", text(&out), text(&exported), "--clips", "1"]);
    let options = DatasetOptions { frames_per_clip: 2, ..Default::default() };
    let set = Dataset::open(&exported, Split::Val, options.clone()).unwrap();
    let latents = exported.join("Val").join(set.clip(0).unwrap().sequence).join("latents/000000.npz");
    let mut latents = npyz::npz::NpzArchive::open(latents).unwrap();
    let motion = latents.by_name("motion").unwrap().unwrap();
    assert_eq!(motion.shape(), [2, 24]);
    let motion: Vec<f32> = motion.into_vec().unwrap();
    let given = Dataset::open(&town, Split::Val, options).unwrap();
    let motions = given.batch(&[given.clip(0).unwrap()]).unwrap().motions.unwrap();
    assert_eq!(motion, motions.iter().flat_map(|motion| motion.maps([0; 3])).collect::<Vec<_>>());

    // Without poses there is nothing to align by.
    for split in ["Train", "Val"] {
        for sequence in fs::read_dir(town.join(format!("Cartesian/{split}"))).unwrap() {
            fs::remove_file(sequence.unwrap().path().join("cartesian/poses.txt")).unwrap();
        }
    }
    let refused = |output: Output, code: i32, words: &str| {
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && told.contains(words), "{told}");
    };
    let none = dir.path().join("none");
    refused(train(&none, "pose"), 2, "not every sequence of the data has poses; set model.align to registered after");
    refused(sep4d(&["eval", text(&out)]).output().unwrap(), 3, "the model aligns frames by poses");
    assert!(train(&none, "auto").status.success());
    assert!(fs::read_to_string(none.join("config.toml")).unwrap().contains("align = \"none\""));
}

#[test]
fn a_model_of_codes_is_scored_and_exported_too() {
    let dir = tempfile::tempdir().unwrap();
    let (town, out) = (common::town(dir.path()), dir.path().join("run"));
    let train = ["--train", "--preset", "tiny", "--data", text(&town), "--output", text(&out)];
    let set = ["--set", "model.architecture=occ_sora", "--set", "train.steps=2", "--set", "train.validate_every=2"];
    run(&[train.as_slice(), set.as_slice()].concat());
    let csv = fs::read_to_string(out.join("metrics.csv")).unwrap();
    let used: Vec<&str> = csv.lines().last().unwrap().rsplit(',').take(2).collect();
    assert!(csv.lines().next().unwrap().ends_with("codes_used,perplexity"), "{csv}");
    assert!(used.iter().all(|number| (1.0..=32.0).contains(&number.parse::<f64>().unwrap())), "{csv}");
    let table = String::from_utf8(run(&["eval", text(&out)]).stdout).unwrap();
    assert!(table.contains(&format!("codes: {} of 32 occur, perplexity", used[1])), "{table}");

    let exported = dir.path().join("exported");
    run(&["export", text(&out), text(&exported), "--clips", "1"]);
    let options = DatasetOptions { frames_per_clip: 2, ..Default::default() };
    let sequence = Dataset::open(&exported, Split::Val, options).unwrap().clip(0).unwrap().sequence;
    let latents = exported.join("Val").join(sequence).join("latents/000000.npz");
    let mut latents = npyz::npz::NpzArchive::open(latents).unwrap();
    let codes = latents.by_name("codes").unwrap().unwrap();
    assert_eq!(codes.shape(), [1, 2, 2, 1]);
    let codes: Vec<f32> = codes.into_vec().unwrap();
    assert!(codes.iter().all(|code| code.fract() == 0.0 && (0.0..32.0).contains(code)), "{codes:?}");
}

#[test]
fn killed_at_any_moment_it_goes_on_to_the_same_end() {
    let dir = tempfile::tempdir().unwrap();
    let town = common::town(dir.path());
    let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
    let args = |out: &Path| -> Vec<String> {
        let set = ["train.checkpoint_every=1", "train.validate_every=8", "train.log_every=1"];
        let mut args: Vec<String> = ["--train", "--preset", "tiny"].map(str::to_owned).into();
        args.extend(["--data".into(), text(&town).into(), "--output".into(), text(out).into()]);
        args.extend(set.into_iter().flat_map(|pair| ["--set".to_owned(), pair.to_owned()]));
        args
    };
    let begin = |args: &[String]| sep4d(&args.iter().map(String::as_str).collect::<Vec<_>>()).spawn().unwrap();
    assert!(begin(&args(&whole)).wait_with_output().unwrap().status.success());

    let mut child = begin(&args(&killed));
    for (attempt, pause_ms) in [0, 3, 11, 27].into_iter().enumerate() {
        if !says(&mut child, "saved") {
            break;
        }
        std::thread::sleep(Duration::from_millis(pause_ms));
        // It may have ended just before.
        let _ = child.kill();
        child.wait().unwrap();
        let state = final_checkpoint(&killed).state;
        assert!(state.steps >= attempt as u32, "{} steps after attempt {attempt}", state.steps);
        child = begin(&["--train".into(), "--resume".into(), text(&killed).into()]);
    }
    assert!(child.wait_with_output().unwrap().status.success());
    let (a, b) = (final_checkpoint(&killed), final_checkpoint(&whole));
    assert_eq!((a.state, a.cursor), (b.state, b.cursor));
}

#[test]
fn signals_save_first() {
    let dir = tempfile::tempdir().unwrap();
    let town = common::town(dir.path());
    for (name, code) in [("INT", 130), ("TERM", 143)] {
        let out = dir.path().join(name);
        let set = ["--set", "train.steps=1000000", "--set", "train.validate_every=0"];
        let args = ["--train", "--preset", "tiny", "--data", text(&town), "--output", text(&out)];
        let mut child = sep4d(&[args.as_slice(), set.as_slice()].concat()).spawn().unwrap();
        assert!(says(&mut child, "step 1/"), "{name}");
        signal(&child, "USR1");
        let index = out.join("checkpoints/index.json");
        for _ in 0..600 {
            if index.is_file() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(index.is_file(), "SIGUSR1 saved nothing");
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stderr).contains("--resume"));
        assert!(final_checkpoint(&out).state.steps > 0);
    }
}
