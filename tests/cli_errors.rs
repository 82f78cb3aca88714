//! What the program says and returns when something is wrong.

use assert_cmd::Command;

fn sep4d(args: &[&str]) -> assert_cmd::assert::Assert {
    Command::new(env!("CARGO_BIN_EXE_sep4d")).args(args).assert()
}

/// Runs with `args`, expects `code` and an error on stderr with `words` in it.
fn fails(args: &[&str], code: i32, words: &str) {
    let assert = sep4d(args).code(code);
    let stderr = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    assert!(stderr.contains("error: ") && stderr.contains(words), "{args:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
}

#[test]
#[cfg(all(feature = "desktop", target_os = "linux"))]
fn without_arguments_and_without_a_display_it_says_so() {
    let mut command = assert_cmd::Command::cargo_bin("sep4d").unwrap();
    for display in ["DISPLAY", "WAYLAND_DISPLAY", "WAYLAND_SOCKET"] {
        command.env_remove(display);
    }
    let assert = command.assert().code(4);
    let stderr = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    assert!(stderr.contains("there is no display") && stderr.contains("sep4d --train"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
#[cfg(feature = "desktop")]
fn what_cannot_be_opened_is_told_before_a_window_opens() {
    fails(&["--open", "/no/such/place"], 3, "neither a data set's folder");
    fails(&["--open", "/tmp", "--train"], 2, "cannot be used with");
}

#[test]
fn it_explains_itself() {
    let assert = sep4d(&["--help"]).success();
    let stdout = String::from_utf8_lossy(&assert.get_output().stdout).into_owned();
    for word in ["--train", "eval", "export", "render", "selftest", "devices", "synth", "check"] {
        assert!(stdout.contains(word), "{word} is missing in {stdout}");
    }
}

#[test]
fn help_lists_every_key() {
    let assert = sep4d(&["--train", "--help"]).success();
    let stdout = String::from_utf8_lossy(&assert.get_output().stdout).into_owned();
    for (key, doc) in sep4d::train::config::RunConfig::keys() {
        let name = key.split_once('.').map_or(key, |(_, name)| name);
        assert!(stdout.contains(&format!("{name} = ")) && stdout.contains(doc), "{key} is missing");
    }
}

#[test]
fn wrong_usage_is_2() {
    fails(&["--no-such-option"], 2, "--no-such-option");
    fails(&["--resume"], 2, "--train");
    fails(&["--train", "--preset", "huge"], 2, "huge");
    fails(&["--train", "--set", "train.step=5"], 2, "did you mean train.steps?");
    fails(&["--train", "--set", "train.steps=many"], 2, "must be a whole number");
    fails(&["--train", "--set", "data.frames=0"], 2, "2 to 64 frames");
    fails(&["--train", "--set", "data.crop=[15, 16, 4]"], 2, "even numbers");
    fails(&["--train", "--config", "/no/such/file.toml"], 2, "cannot be read");
    fails(&["--train"], 2, "--data DIR");
}

#[test]
fn wrong_data_is_3() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let nowhere = format!("{path}/nowhere");
    fails(&["--train", "--data", &nowhere, "--output", &format!("{path}/run")], 3, "nowhere");
    assert!(!dir.path().join("run").exists(), "a run folder was made for nothing");
    fails(&["--train", "--resume", &nowhere], 3, "holds no run");
    for command in ["eval", "render"] {
        fails(&[command, path], 3, "holds no run");
    }
    fails(&["export", path, &nowhere], 3, "holds no run");
}

#[test]
fn a_device_that_is_not_there_is_4() {
    fails(&["--train", "--dry-run", "--device", "no such adapter"], 4, "sep4d devices");
    fails(&["selftest", "--device", "99"], 4, "sep4d devices");
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let assert = sep4d(&["completions", shell]).success();
        assert!(String::from_utf8_lossy(&assert.get_output().stdout).contains("selftest"));
    }
}

#[test]
fn a_dry_run_needs_no_data() {
    let assert = sep4d(&["--train", "--dry-run", "--preset", "paper"]).success();
    let stdout = String::from_utf8_lossy(&assert.get_output().stdout).into_owned();
    assert!(stdout.contains("1,215,095 parameters") && stdout.contains("128x128x8"), "{stdout}");
    let rows: Vec<&str> = stdout.lines().skip_while(|line| !line.starts_with('T')).skip(1).collect();
    let frames: Vec<&str> = rows.iter().filter_map(|row| row.split_whitespace().next()).collect();
    assert_eq!(frames, ["4", "8", "16", "32", "64"]);
    assert!(rows[2].ends_with("<- configured"), "{stdout}");
}
