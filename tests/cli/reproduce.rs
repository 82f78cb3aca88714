//! `sep4d reproduce`: what it plans, that it goes on after a kill and keeps what is finished, and what its report holds.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sep4d"));
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(args: &[&str]) -> (Option<i32>, String) {
    let output = program(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

fn report(output: &Path) -> Value {
    serde_json::from_slice(&fs::read(output.join("report/report.json")).unwrap()).unwrap()
}

#[test]
fn it_is_killed_begun_again_and_shared_and_its_report_holds_what_was_measured() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let steps = "train.steps=4";
    let order = ["reproduce", "table4", "figure3", "--scale", "tiny", "--seeds", "1", "--set", steps];
    let order: Vec<&str> = order.into_iter().chain(["--set", "train.validate_every=2", "--output"]).collect();
    let order: Vec<&str> = order.into_iter().chain([output.to_str().unwrap()]).collect();

    let (code, text) = run(&[&order[..], &["--list"]].concat());
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("sep4d-bev-t16-seed0") && text.contains("runs to go") && !text.contains("finished"),
        "{text}"
    );
    assert!(!output.join("runs").exists());

    // Killed once it has a run.
    let mut child = program(&order).spawn().unwrap();
    let begun = output.join("runs");
    let start = Instant::now();
    while !begun.exists() && start.elapsed() < Duration::from_secs(300) {
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();

    // One of several machines.
    let (code, text) = run(&[&order[..], &["--only", "2"]].concat());
    assert_eq!(code, Some(0), "{text}");
    let first = report(&output)["runs"][0].clone();
    assert!(report(&output)["about"][0].as_str().unwrap().contains(" of 5 runs"), "{text}");

    let (code, text) = run(&order);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = run(&[&order[..], &["--list"]].concat());
    assert!(code == Some(0) && text.contains("all 5 runs are finished"), "{text}");
    let found = report(&output);
    assert!(found["runs"].as_array().unwrap().contains(&first), "what was finished was measured again");
    assert_eq!(found["runs"].as_array().unwrap().len(), 5);
    for run in found["runs"].as_array().unwrap() {
        assert_eq!((run["steps"].as_u64(), run["frames"].as_u64(), run["seed"].as_u64()), (Some(4), Some(16), Some(0)));
        let voxels = 16.0 * 16.0 * 16.0 * 8.0;
        let ratio = voxels / run["latent_floats"].as_f64().unwrap();
        assert!((run["compression_ratio"].as_f64().unwrap() - ratio).abs() < 1e-9);
        assert_eq!(run["evaluation"]["per_frame"].as_array().unwrap().len(), 16);
    }
    // What the table says of a run is what the run came to, and what was published stands beside it.
    let table = &found["tables"][0];
    let last = table["rows"].as_array().unwrap().last().unwrap();
    let ours = found["runs"].as_array().unwrap().iter().find(|run| run["name"] == "sep4d-t16-seed0").unwrap();
    let miou = ours["evaluation"]["total"]["miou"].as_f64().unwrap();
    assert!((last[7][0]["mean"].as_f64().unwrap() - 100.0 * miou).abs() < 1e-9);
    assert_eq!(last[9], "76.41");
    let read = |name: &str| fs::read(output.join("report").join(name)).unwrap();
    let (page, markdown) =
        (String::from_utf8(read("report.html")).unwrap(), String::from_utf8(read("report.md")).unwrap());
    assert!(page.contains("<table>") && page.contains("data:image/png;base64,") && !page.contains("http"));
    assert!(markdown.contains("46.74") && markdown.contains("(figure3.png)"));
    assert!(String::from_utf8(read("table4.csv")).unwrap().contains("\"mIoU, %\""));
    assert!(image::load_from_memory(&read("figure3.png")).unwrap().height() > 500);

    // Runs of other settings are not mixed with these.
    let other: Vec<&str> = order.iter().map(|word| if *word == steps { "train.steps=5" } else { *word }).collect();
    let (code, text) = run(&other);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("was begun with train.steps = 4, not 5; give another --output"), "{text}");
}

#[test]
fn wrong_orders_get_one_sentence_and_write_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let refused = |args: &[&str], expected: &str| {
        let (code, text) = run(&[args, &["--output", output.to_str().unwrap()]].concat());
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(expected), "{text}");
        assert!(!output.join("runs").exists());
    };
    refused(&["reproduce", "table1", "--scale", "paper"], "give the folder of a data set by --data DIR");
    refused(&["reproduce", "table4", "--scale", "tiny", "--only", "4"], "--only 4: there are runs 1 to 3");
    refused(&["reproduce", "table4", "--scale", "tiny", "--set", "train.stops=3"], "did you mean train.steps?");
    refused(&["reproduce", "table4", "--scale", "tiny", "--set", "train.seed=3"], "runs differ by this");
    for of_the_runs in ["model.align=pose", "model.features=8"] {
        refused(&["reproduce", "ablation", "--scale", "tiny", "--set", of_the_runs], "runs differ by this");
    }
    refused(&["reproduce", "table9"], "table9");
}
