//! Every bad input ends with one clear sentence on stderr and its own exit code, and leaves nothing half-written.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use sep4d::data::{Cursor, Sampler};
use tempfile::TempDir;

use crate::common;

const RUN: [&str; 4] = ["train.steps=2", "train.checkpoint_every=1", "train.keep_last=2", "train.validate_every=0"];

/// A town and a run of two steps and two checkpoints, made once.
static MADE: LazyLock<(TempDir, PathBuf, PathBuf)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("there is a temporary folder");
    let (town, run) = (common::town(dir.path()), dir.path().join("run"));
    let mut args = vec!["--train", "--preset", "tiny", "--data", text(&town), "--output", text(&run)];
    args.extend(RUN.iter().flat_map(|pair| ["--set", pair]));
    let output = sep4d(&args);
    assert!(output.status.success(), "{}", stderr(&output));
    (dir, town, run)
});

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sep4d"));
    common::heeding_signals(&mut command);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits for the program, but not for ever.
fn outcome(mut command: Command) -> Output {
    let mut child = command.spawn().expect("the program starts");
    let mut stdout = child.stdout.take().expect("stdout is piped");
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stdout.read_to_end(&mut bytes);
        bytes
    });
    let start = Instant::now();
    while child.try_wait().expect("the program can be waited for").is_none() {
        if start.elapsed() > Duration::from_secs(120) {
            child.kill().expect("the program can be killed");
            panic!("{command:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut output = child.wait_with_output().expect("the program has ended");
    output.stdout = reader.join().expect("the reader does not panic");
    output
}

fn sep4d(args: &[&str]) -> Output {
    outcome(command(args))
}

/// Expects `code` and one line on stderr that begins with `error: ` and has all `words` in it.
fn is_refused(output: &Output, code: i32, words: &[&str]) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    let errors: Vec<&str> = said.lines().filter(|line| !line.starts_with("warning: ")).collect();
    assert!(errors.len() == 1 && errors[0].starts_with("error: "), "{said}");
    for word in words {
        assert!(errors[0].contains(word), "{word:?} is not in: {said}");
    }
}

/// Trains on `data`, expects to be refused, and that nothing is left of the run.
fn training_is_refused(data: &Path, set: &[&str], code: i32, words: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let mut args = vec!["--train", "--preset", "tiny", "--data", text(data), "--output", text(&run)];
    args.extend(set.iter().flat_map(|pair| ["--set", *pair]));
    is_refused(&sep4d(&args), code, words);
    assert!(!run.exists(), "{set:?} on {}: a run folder was made for nothing", data.display());
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &target) } else { fs::copy(&path, &target).map(|_| ()).unwrap() }
    }
}

/// A copy of the town or the run, changed by `change`.
fn changed(original: &Path, change: impl FnOnce(&Path)) -> TempDir {
    // The word "label" in a path means nothing.
    let dir = tempfile::Builder::new().prefix("000001.label").tempdir().unwrap();
    copy(original, dir.path());
    change(dir.path());
    dir
}

/// The folder of the only sequence of a split.
fn sequence(town: &Path, split: &str) -> PathBuf {
    let mut entries = fs::read_dir(town.join("Cartesian").join(split)).unwrap();
    entries.next().unwrap().unwrap().path().join("cartesian")
}

fn checkpoint(run: &Path, name: &str) -> PathBuf {
    run.join("checkpoints").join(name)
}

#[test]
fn data_that_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let odd = dir.path().join("odd");
    training_is_refused(&dir.path().join("nowhere"), &[], 3, &["nowhere is not a folder", "sep4d synth"]);
    training_is_refused(dir.path(), &[], 3, &["no Train, Val or Test folder"]);
    fs::create_dir_all(odd.join("Train/Town01")).unwrap();
    training_is_refused(&odd, &[], 3, &["Town01 has no cartesian/evaluation folder", "data.sequences"]);

    let damaged = |file: &str, bytes: &[u8], words: &[&str]| {
        let town = changed(&MADE.1, |town| fs::write(sequence(town, "Train").join(file), bytes).unwrap());
        training_is_refused(town.path(), &[], 3, words);
    };
    damaged("evaluation/000001.label", b"abc", &["000001.label has 3 bytes", "needs 4096"]);
    damaged("evaluation/000001.label", &[23; 4096], &["class id 387389207", "0 to 22"]);
    damaged("poses.txt", b"1 0 0 0 0 1 0 0 0 0 1 nan\n", &["line 1 of", "poses.txt is not 12 finite numbers"]);
    damaged("poses.txt", b"1 0 0 0 0 1 0 0 0 0 1 0\n", &["poses.txt has 1 lines, too few"]);
    damaged("poses.txt", b"\xff\x00", &["poses.txt is not a text file"]);
    damaged("poses.txt", b"\xff\xfe1\x00", &["poses.txt is text in UTF-16"]);
    damaged("poses.txt", &b"0 0 0 0 0 0 0 0 0 0 0 0\n".repeat(6), &["the pose of frames 0 to 5 of", "no inverse"]);
    damaged("evaluation/000005.bin", b"", &["000005.bin has 0 bytes"]);
    damaged(
        "evaluation/000003.bin",
        &f32::NAN.to_le_bytes().repeat(1024),
        &["000003.bin holds NaN at voxel (0, 0, 0)"],
    );
    damaged("evaluation/params.json", b"{", &["params.json does not describe a grid"]);
    let grid = |size: &str| format!(r#"{{"grid_size": {size}, "min_bound": [-1, -1, -1], "max_bound": [1, 1, 1]}}"#);
    damaged("evaluation/params.json", grid("[15, 16, 4]").as_bytes(), &["15x16x4", "every side must be even"]);
    damaged("evaluation/params.json", grid("[4096, 4096, 8]").as_bytes(), &["has 4096 bytes", "correct params.json"]);
    damaged("evaluation/params.json", grid("[4096, 4096, 4096]").as_bytes(), &["4096x4096x4096 are more than"]);
    let round = grid("[16, 16, 4]").replace('}', r#", "coordinates": "cylindrical"}"#);
    damaged("evaluation/params.json", round.as_bytes(), &["\"cylindrical\" coordinates", "only cartesian"]);
    let unplugged = changed(&MADE.1, |town| {
        std::os::unix::fs::symlink("/mnt/unplugged", town.join("Cartesian/Train/Town09_Light")).unwrap();
    });
    let link = ["Town09_Light is a link to /mnt/unplugged, which is not there", "data.sequences"];
    training_is_refused(unplugged.path(), &[], 3, &link);
    training_is_refused(unplugged.path(), &["data.sequences=Town7"], 3, &["no sequence \"Town7\""]);
    let held_out = changed(&MADE.1, |town| {
        let mask = sequence(town, "Val").join("evaluation/000002.bin");
        fs::write(mask, f32::NAN.to_le_bytes().repeat(1024)).unwrap();
    });
    training_is_refused(held_out.path(), &[], 3, &["000002.bin holds NaN", "train.validate_every=0"]);

    let gone = changed(&MADE.1, |town| fs::remove_file(sequence(town, "Train").join("evaluation/000001.bin")).unwrap());
    training_is_refused(gone.path(), &[], 3, &["000001.bin is missing"]);
    let pipe = changed(&MADE.1, |town| {
        let label = sequence(town, "Train").join("evaluation/000002.label");
        fs::remove_file(&label).unwrap();
        assert!(Command::new("mkfifo").arg(&label).status().unwrap().success());
    });
    training_is_refused(pipe.path(), &[], 3, &["000002.label is no regular file"]);
    let half = changed(&MADE.1, |town| fs::write(town.join("INCOMPLETE.txt"), "").unwrap());
    training_is_refused(half.path(), &[], 3, &["is not complete", "run it again"]);
    training_is_refused(&half.path().join("Cartesian"), &[], 3, &["is not complete"]);
    training_is_refused(&MADE.1, &["data.frames=7"], 3, &["7 consecutive frames", "the longest has 6"]);
    training_is_refused(&MADE.1, &["data.crop=[32, 32, 8]"], 3, &["crop 32x32x8", "16x16x4"]);
}

#[test]
fn what_is_found_in_the_middle_of_a_run_costs_no_step() {
    // Training meets a mask that was damaged after the classes were counted and looks the same from outside, as on a disk that
    // fails; only a check would have found it. Poses are missing, which is told once.
    let mut order = Sampler::new(5, 0, Cursor::default());
    let order: Vec<usize> = (0..5).map(|_| order.next_index()).collect();
    let damaged = (order[0] + 3) % 6;
    let steps = order.iter().position(|clip| (*clip..clip + 2).contains(&damaged)).unwrap();
    let town = changed(&MADE.1, |town| fs::remove_file(sequence(town, "Train").join("poses.txt")).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let (first, run) = (dir.path().join("first"), dir.path().join("run"));
    let args = ["--train", "--preset", "tiny", "--data", text(town.path())];
    let counted = ["--output", text(&first), "--set", "train.steps=1"];
    let set = ["--set", "train.validate_every=0", "--set", "train.checkpoint_every=0"];
    assert!(sep4d(&[&args[..], &counted, &set].concat()).status.success());
    let mask = sequence(town.path(), "Train").join(format!("evaluation/{damaged:06}.bin"));
    let changed_at = fs::metadata(&mask).unwrap().modified().unwrap();
    fs::write(&mask, f32::NAN.to_le_bytes().repeat(1024)).unwrap();
    fs::File::options().write(true).open(&mask).unwrap().set_modified(changed_at).unwrap();
    let output = sep4d(&[&args[..], &["--output", text(&run)], &set].concat());
    is_refused(&output, 3, &["holds NaN at voxel (0, 0, 0)"]);
    assert_eq!(stderr(&output).matches("no poses.txt").count(), 1, "{}", stderr(&output));
    assert!(stderr(&output).contains("`sep4d check "), "{}", stderr(&output));
    assert!(steps > 0 && checkpoint(&run, &format!("step-{steps:08}.optim.safetensors")).is_file());
    assert!(String::from_utf8_lossy(&output.stdout).contains("--resume"));
}

#[test]
fn data_that_cannot_be_registered() {
    let dir = tempfile::tempdir().unwrap();
    is_refused(&sep4d(&["register", text(&dir.path().join("nowhere"))]), 3, &["nowhere is not a folder"]);
    let wrong = dir.path().join("missing/frames.png");
    is_refused(
        &sep4d(&["register", text(&MADE.1), "--picture", text(&wrong)]),
        2,
        &["frames.png", "a folder that exists"],
    );
    let damaged = changed(&MADE.1, |town| {
        fs::write(sequence(town, "Train").join("evaluation/000001.label"), [23; 4096]).unwrap()
    });
    is_refused(&sep4d(&["register", text(damaged.path())]), 3, &["000001.label", "class id 387389207"]);
}

#[test]
fn configurations_that_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |file: &[u8], words: &[&str]| {
        let path = dir.path().join("config.toml");
        fs::write(&path, file).unwrap();
        is_refused(&sep4d(&["--train", "--config", text(&path)]), 2, words);
    };
    refused(b"[train]\nlerning_rate = 1\n", &["config.toml", "did you mean train.learning_rate?"]);
    refused(b"[train]\nsteps = \"many\"\n", &["config.toml", "train.steps must be a whole number"]);
    refused(b"[train\n", &["config.toml, line 1"]);
    refused(b"\xff\xfe", &["it is not text"]);
    is_refused(&sep4d(&["--train", "--config", text(dir.path())]), 2, &["it is a folder"]);
    is_refused(&sep4d(&["--train", "--config", "/dev/zero"]), 2, &["far longer than a configuration"]);
    let set = |pair: &str, words: &[&str]| is_refused(&sep4d(&["--train", "--dry-run", "--set", pair]), 2, words);
    for frames in [0, 1, 65] {
        set(&format!("data.frames={frames}"), &["2 to 64 frames"]);
    }
    for wrong in [["--size", "10x10"], ["--frames", "0"]] {
        is_refused(&sep4d(&[&["bench", "--view"][..], &wrong].concat()), 2, &["--frames 200 --size 1280x800"]);
    }
    let odd = ["--train", "--dry-run", "--set", "model.architecture=dynamic_city", "--set", "data.frames=5"];
    is_refused(&sep4d(&odd), 2, &["data.frames is 5", "an even one"]);
    set("data.crop=[31, 32, 8]", &["three even numbers"]);
    set("data.stride=0", &["data.stride is 0"]);
    set("data.stride=9999", &["data.stride is 9999", "at most 1000"]);
    set("train.steps", &["key=value"]);
    set("train.steps=1\ntrain.seed=2", &["a whole number"]);
    set("train.learning_rate=1e30", &["train.learning_rate has 1e30", "at most 1"]);
    for key in ["model.hidden", "train.batch", "train.prefetch"] {
        set(&format!("{key}=9223372036854775807"), &[key, "at most"]);
    }
    use std::os::unix::ffi::OsStrExt;
    let odd = std::ffi::OsStr::from_bytes(b"/tmp/\xff");
    for option in ["--data", "--output"] {
        let mut train = command(&["--train", option]);
        train.arg(odd);
        is_refused(&outcome(train), 2, &["not UTF-8"]);
    }
}

#[test]
fn folders_that_cannot_be_written() {
    let (_, town, run) = &*MADE;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let below = file.join("below");
    training_is_refused(town, &["train.memory_budget=0.001"], 5, &["MiB", "train.memory_budget"]);
    let train = ["--train", "--preset", "tiny", "--data", text(town), "--output"];
    is_refused(&sep4d(&[&train[..], &[text(&below)]].concat()), 3, &["is a file"]);
    is_refused(&sep4d(&[&train[..], &[text(run)]].concat()), 2, &["already holds a run", "--resume"]);
    is_refused(&sep4d(&["synth", text(&below)]), 3, &["is a file"]);
    is_refused(&sep4d(&["synth", text(run)]), 2, &["was not written by `sep4d synth`"]);
    is_refused(&sep4d(&["synth", text(&dir.path().join("x")), "--frames", "99999999999999"]), 2, &["at most 1000000"]);
    is_refused(&sep4d(&["export", text(run), text(&file)]), 3, &["is a file"]);
    is_refused(&sep4d(&["export", text(run), text(town)]), 2, &["is not empty"]);
    is_refused(&sep4d(&["render", text(run), "--split", "val", "--out", text(&below)]), 3, &["is a file"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

    // An export that was stopped is begun again, and is complete only at its end.
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("INCOMPLETE.txt"), "").unwrap();
    let output = sep4d(&["export", text(run), text(&out), "--clips", "1"]);
    assert!(output.status.success() && !out.join("INCOMPLETE.txt").exists(), "{}", stderr(&output));
}

#[test]
fn runs_and_checkpoints_that_cannot_be_used() {
    let run = &MADE.2;
    let models = ["step-00000001.safetensors", "step-00000002.safetensors"];
    let truncated = changed(run, |run| {
        for name in models {
            let bytes = fs::read(checkpoint(run, name)).unwrap();
            fs::write(checkpoint(run, name), &bytes[..500]).unwrap();
        }
    });
    let truncated = text(truncated.path());
    for args in [&["eval", truncated][..], &["--train", "--resume", truncated]] {
        is_refused(&sep4d(args), 3, &["no checkpoint in", "damaged or cut off", "start a new run"]);
    }
    let garbage = changed(run, |run| models.iter().for_each(|m| fs::write(checkpoint(run, m), [0xFF; 400]).unwrap()));
    is_refused(&sep4d(&["render", text(garbage.path())]), 3, &["no whole safetensors file"]);
    let without_moments = changed(run, |run| {
        for step in [1, 2] {
            fs::remove_file(checkpoint(run, &format!("step-0000000{step}.optim.safetensors"))).unwrap();
        }
    });
    is_refused(&sep4d(&["--train", "--resume", text(without_moments.path())]), 3, &["optim.safetensors"]);
    let wider = changed(run, |run| {
        let config = run.join("config.toml");
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.replace("hidden = 8", "hidden = 12").replace("steps = 2", "steps = 3")).unwrap();
    });
    is_refused(&sep4d(&["--train", "--resume", text(wider.path())]), 3, &["but the model needs [12"]);
    let garbled = changed(run, |run| fs::write(run.join("config.toml"), "garbage").unwrap());
    is_refused(&sep4d(&["--train", "--resume", text(garbled.path())]), 2, &["config.toml, line 1"]);

    let run = text(run);
    is_refused(&sep4d(&["eval", run, "--checkpoint", "newest"]), 3, &["no checkpoint newest", "best, last"]);
    let moments = checkpoint(&MADE.2, "step-00000002.optim.safetensors");
    is_refused(&sep4d(&["eval", run, "--checkpoint", text(&moments)]), 3, &["no sep4d model"]);
    is_refused(&sep4d(&["eval", run, "--data", "/nowhere"]), 3, &["/nowhere is not a folder"]);
    is_refused(&sep4d(&["render", run, "--clip", "999"]), 2, &["no clip 999", "has 5"]);
    assert!(!MADE.2.join("renders").read_dir().unwrap().any(|entry| entry.is_ok()));
    let others = ["data.stride=2", "data.sequences=Town01_Light"];
    for pair in others {
        is_refused(&sep4d(&["--train", "--resume", run, "--set", pair]), 2, &["cannot change", "data.s"]);
    }
    let half = changed(&MADE.1, |town| fs::remove_dir_all(town.join("Cartesian/Test")).unwrap());
    let data = text(half.path());
    is_refused(&sep4d(&["eval", run, "--split", "test", "--data", data]), 3, &["Test is missing", "Train, Val"]);
    is_refused(&sep4d(&["--train", "--resume", data]), 3, &["holds no run"]);
}

#[test]
fn a_finished_or_damaged_run_goes_on_where_it_can() {
    // The newest pair is cut off, and so is a line of the metrics: the run goes on from the pair before.
    let run = changed(&MADE.2, |run| {
        fs::write(checkpoint(run, "step-00000002.optim.safetensors"), "x").unwrap();
        fs::write(run.join("metrics.jsonl"), b"\xff{").unwrap();
    });
    let output = sep4d(&["--train", "--resume", text(run.path())]);
    assert!(output.status.success(), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.lines().count() == 1 && said.contains("the one before is used"), "{said}");
    let before = fs::read(run.path().join("config.toml")).unwrap();
    let output = sep4d(&["--train", "--resume", text(run.path())]);
    assert!(output.status.success() && stderr(&output).contains("train.steps is 2"), "{}", stderr(&output));
    assert_eq!(fs::read(run.path().join("config.toml")).unwrap(), before);
}

#[test]
fn values_that_are_not_finite_are_6() {
    let run = changed(&MADE.2, |run| {
        let path = checkpoint(run, "step-00000002.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        // A checksum of the same length that is not looked at, for the file of another program may lack it.
        let header = String::from_utf8_lossy(&bytes).find("\"checksum\"").unwrap();
        bytes[header + 1] = b'C';
        let last = bytes.len() - 4;
        bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
        fs::write(&path, bytes).unwrap();
    });
    is_refused(&sep4d(&["eval", text(run.path()), "--checkpoint", "last"]), 6, &["NaN or infinity", "train.clip_norm"]);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let args = ["--train", "--preset", "tiny", "--data", text(&MADE.1), "--output", text(&out)];
    let wild = ["train.learning_rate=1", "train.milestones=[]", "train.cross_entropy=1e6", "train.max_skipped=3"];
    let set: Vec<&str> = wild.iter().flat_map(|pair| ["--set", pair]).collect();
    is_refused(&sep4d(&[&args[..], &set].concat()), 6, &["train.learning_rate", "train.clip_norm", "--resume"]);
}

#[test]
fn without_an_adapter_it_says_why() {
    let (_, town, run) = &*MADE;
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    for args in [
        &["devices"][..],
        &["selftest"],
        &["eval", text(run)],
        &["--train", "--data", text(town), "--output", text(&out)],
    ] {
        let mut without = command(args);
        without.env("VK_DRIVER_FILES", "/nonexistent").env("VK_ICD_FILENAMES", "/nonexistent");
        is_refused(&outcome(without), 4, &["VK_DRIVER_FILES=/nonexistent", "unset it"]);
    }
    for device in ["7", "nosuch"] {
        let args = ["--train", "--data", text(town), "--output", text(&out), "--device", device];
        is_refused(&sep4d(&args), 4, &[device, "sep4d devices"]);
        is_refused(&sep4d(&["--train", "--dry-run", "--device", device]), 4, &[device, "sep4d devices"]);
    }
    assert!(!out.exists());
}

#[test]
fn nobody_has_to_read_what_it_prints() {
    let reader_gone = |args: &[&str]| {
        let mut child = command(args).spawn().unwrap();
        drop(child.stdout.take());
        child.wait_with_output().unwrap()
    };
    for args in [&["completions", "bash"][..], &["--help"], &["devices"]] {
        let output = reader_gone(args);
        assert!(output.status.success() && output.stderr.is_empty(), "{args:?}: {}", stderr(&output));
    }
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let train = ["--train", "--preset", "tiny", "--data", text(&MADE.1), "--output", text(&run)];
    let output = reader_gone(&[&train[..], &["--set", "train.steps=1"]].concat());
    assert!(output.status.success() && checkpoint(&run, "index.json").is_file(), "{}", stderr(&output));
    if let Ok(full) = fs::File::options().write(true).open("/dev/full") {
        let mut devices = command(&["devices"]);
        let output = devices.stdout(full).output().unwrap();
        is_refused(&output, 3, &["standard output", "disk is full"]);
    }
}

#[test]
fn signals_before_there_is_anything_to_save() {
    let dir = tempfile::tempdir().unwrap();
    let signal = |child: &std::process::Child, name: &str| {
        assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
    };
    let first_words = |child: &mut std::process::Child| {
        let mut word = [0; 3];
        child.stdout.as_mut().unwrap().read_exact(&mut word).unwrap();
    };
    let run = dir.path().join("run");
    // Reading the data set, counting and building kernels takes a while; the signal comes at its very beginning.
    let mut child = command(&["--train", "--data", text(&MADE.1), "--output", text(&run)]).spawn().unwrap();
    first_words(&mut child);
    signal(&child, "-TERM");
    let output = child.wait_with_output().unwrap();
    // On a busy machine the signal may be late; then there is a run to go on with.
    is_refused(&output, 143, &[if run.exists() { "--resume" } else { "nothing was written" }]);

    let town = dir.path().join("town");
    let mut child = command(&["synth", text(&town), "--grid", "64x64x8"]).spawn().unwrap();
    while !town.join("sep4d_synth.json").is_file() {
        std::thread::sleep(Duration::from_millis(1));
        assert!(child.try_wait().unwrap().is_none());
    }
    signal(&child, "-INT");
    is_refused(&child.wait_with_output().unwrap(), 130, &["is not complete", "run the command again"]);
    training_is_refused(&town, &[], 3, &["is not complete"]);
    let small = ["--grid", "16x16x4", "--frames", "1", "--scenes", "light", "--towns", "1"];
    assert!(sep4d(&[&["synth", text(&town)], &small[..]].concat()).status.success());
    assert!(!town.join("INCOMPLETE.txt").exists());
}
