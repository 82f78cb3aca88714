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
    assert!(stderr.contains("there is no display") && stderr.contains("sep4d train"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
#[cfg(feature = "desktop")]
fn what_cannot_be_opened_is_told_before_a_window_opens() {
    fails(&["--open", "/no/such/place"], 3, "/no/such/place is not there");
    fails(&["/no/such/place"], 3, "/no/such/place is not there");
    fails(&["no-such.safetensors"], 3, "no-such.safetensors is not there");
    fails(&["Cargo.toml"], 3, "neither a data set's folder");
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
    for args in [["--train", "--help"], ["train", "--help"], ["help", "train"]] {
        let assert = sep4d(&args).success();
        let stdout = String::from_utf8_lossy(&assert.get_output().stdout).into_owned();
        for (key, doc) in sep4d::train::config::RunConfig::keys() {
            let name = key.split_once('.').map_or(key, |(_, name)| name);
            assert!(stdout.contains(&format!("{name} = ")) && stdout.contains(doc), "{args:?}: {key} is missing");
        }
        assert!(stdout.contains("--preset") && stdout.contains("--resume"), "{stdout}");
    }
}

#[test]
fn train_is_a_command_too() {
    fails(&["train"], 2, "--data DIR");
    fails(&["train", "--train", "--set", "train.steps=many"], 2, "must be a whole number");
    fails(&["train", "--set", "train.lr=1"], 2, "did you mean train.learning_rate?");
    fails(&["train", "runs/x"], 2, "unexpected argument 'runs/x'");
    let assert = sep4d(&["train", "--dry-run", "--preset", "tiny"]).success();
    assert!(String::from_utf8_lossy(&assert.get_output().stdout).contains("preset tiny"));
}

#[test]
fn a_mistyped_command_gets_a_hint() {
    fails(&["evall", "runs/x"], 2, "a similar subcommand exists: 'eval'");
    fails(&["trian", "--preset", "tiny"], 2, "a similar subcommand exists: 'train'");
    fails(&["selftset"], 2, "selftest");
}

#[test]
#[cfg(not(feature = "desktop"))]
fn a_path_without_the_window_leads_on() {
    for args in [vec!["/no such/place"], vec!["--open", "/no such/place"]] {
        fails(&args, 2, "`sep4d eval '/no such/place'`");
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
fn what_the_environment_says_of_adapters_is_named_if_it_is_the_cause() {
    let told = |name: &str, value: &str, code: i32| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sep4d"));
        for name in ["WGPU_BACKEND", "VK_DRIVER_FILES", "VK_ICD_FILENAMES"] {
            command.env_remove(name);
        }
        let assert = command.arg("devices").env(name, value).assert().code(code);
        String::from_utf8_lossy(&assert.get_output().stderr).into_owned()
    };
    for backend in ["gl", "foo", "noop"] {
        let said = told("WGPU_BACKEND", backend, 4);
        assert!(said.contains(&format!("WGPU_BACKEND={backend} leaves none")) && said.lines().count() == 1, "{said}");
    }
    let said = told("VK_DRIVER_FILES", "/nowhere", 4);
    assert!(said.contains("VK_DRIVER_FILES=/nowhere hides") && said.lines().count() == 1, "{said}");
    for (name, value) in
        [("WGPU_BACKEND", ""), ("WGPU_ADAPTER_NAME", "foo"), ("WGPU_POWER_PREF", "foo"), ("WGPU_DX12_COMPILER", "foo")]
    {
        assert_eq!(told(name, value, 0), "");
    }
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
    assert!(stdout.contains("1,248,343 parameters") && stdout.contains("128x128x8"), "{stdout}");
    assert!(stdout.contains("latent of a clip: 107,520 floats, C.R. 19.5\n"), "{stdout}");
    let rows: Vec<&str> = stdout.lines().skip_while(|line| !line.starts_with('T')).skip(1).collect();
    let frames: Vec<&str> = rows.iter().filter_map(|row| row.split_whitespace().next()).collect();
    assert_eq!(frames, ["4", "8", "16", "32", "64"]);
    assert!(rows[2].ends_with("<- configured"), "{stdout}");
}

#[test]
fn a_dry_run_tells_what_codes_take() {
    let set = ["--set", "model.architecture=occ_sora"];
    let assert = sep4d(&[&["--train", "--dry-run", "--preset", "paper"], &set[..]].concat()).success();
    let stdout = String::from_utf8_lossy(&assert.get_output().stdout).into_owned();
    assert!(stdout.contains("133,175,320 parameters"), "{stdout}");
    assert!(stdout.contains("latent of a clip: 65,536 floats, C.R. 32.0, 4,608 bits as codes\n"), "{stdout}");
}
