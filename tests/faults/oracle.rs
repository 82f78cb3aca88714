//! What is demanded after a fault: nothing from before is lost, what was announced is there, and the end is the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use sep4d::train::checkpoint::{Checkpoint, CheckpointFolder};
use sep4d::train::run_folder::{Row, RunFolder};

use crate::Outcome;

/// A folder's files, by their path in it, as far as two runs to the same end agree.
pub type Contents = BTreeMap<PathBuf, String>;

/// What is said of the data where standard output is for the names of pictures.
const RECOGNISED: &str = " is CarlaSC's layout; ";

/// At most one sentence of error, and it is the last thing said.
pub fn one_sentence(outcome: &Outcome, refused: bool) -> Result<(), String> {
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    let errors = lines.iter().filter(|line| line.starts_with("error: ")).count();
    let is_expected = |line: &&str| ["error: ", "warning: "].iter().any(|kind| line.starts_with(kind));
    let others = lines.iter().any(|line| !is_expected(line) && (refused || !line.contains(RECOGNISED)));
    if others || errors != usize::from(refused) || refused && !lines.last().is_some_and(|l| l.starts_with("error: ")) {
        return Err(format!("said: {}", outcome.stderr));
    }
    Ok(())
}

/// Every checkpoint from before is whole, unless newer ones have taken its place; configuration and metrics are there.
pub fn nothing_lost(before: &Path, after: &Path) -> Result<(), String> {
    let [old, new] = [before, after].map(|run| CheckpointFolder::new(run.join("checkpoints")));
    let newest = |folder: &CheckpointFolder| match folder.latest() {
        Ok(newest) if newest.passed_over.is_empty() => Ok(newest.found.map(|(_, checkpoint)| checkpoint.state.steps)),
        Ok(newest) => Err(newest.passed_over.join("; ")),
        Err(why) => Err(why.to_string()),
    };
    let (had, have) = (newest(&old)?, newest(&new)?);
    if have < had {
        return Err(format!("the newest checkpoint was {had:?} and is {have:?}"));
    }
    for name in models(before) {
        let path = after.join("checkpoints").join(&name);
        if path.exists() {
            // One that newer ones have replaced may have been on its way out.
            Checkpoint::load(&path).map(drop).or_else(|why| if have > had { Ok(()) } else { Err(why.to_string()) })?;
        } else if have == had {
            return Err(format!("{name} is gone and nothing newer is there"));
        }
    }
    let best = |folder: &CheckpointFolder| folder.index().map(|index| index.best).map_err(|why| why.to_string());
    let model = |step: u32| after.join(format!("checkpoints/step-{step:08}.safetensors"));
    if let Some(was) = best(&old)?
        && best(&new)?.is_none_or(|is| !model(is.step).exists())
    {
        return Err(format!("step {} was the best, and none is now", was.step));
    }
    RunFolder::open(after).and_then(|run| run.config()).map_err(|why| why.to_string())?;
    let (had, have) = (rows(before), rows(after));
    if !had.iter().all(|row| have.contains(row)) {
        return Err(format!("{} rows of metrics were there and {} are", had.len(), have.len()));
    }
    Ok(())
}

/// What was announced as saved is whole, or newer ones have taken its place.
pub fn announced(stdout: &str) -> Result<(), String> {
    let saved = stdout.lines().filter_map(|line| line.strip_prefix("saved ")).next_back();
    match saved.map(|path| Checkpoint::load(Path::new(path))) {
        Some(Err(why)) => Err(format!("announced, but {why}")),
        _ => Ok(()),
    }
}

/// The names of a run's model files.
fn models(run: &Path) -> Vec<String> {
    let entries = fs::read_dir(run.join("checkpoints")).into_iter().flatten();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".safetensors") && !name.contains(".optim") && !name.starts_with('.')).collect()
}

/// No file of a save that was cut off is left.
pub fn no_leftovers(contents: &Contents) -> Result<(), String> {
    let hidden = |path: &&PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    contents.keys().find(hidden).map_or(Ok(()), |left| Err(format!("{} is left", left.display())))
}

/// The steps and losses of all rows of the metrics.
fn rows(run: &Path) -> Vec<String> {
    let rows = RunFolder::open(run).and_then(|run| run.metrics()).unwrap_or_default();
    let text = |row: &Row| match row {
        Row::Step(step) => format!("{} {}", step.step, step.loss),
        Row::Validation(validation) => format!("{} {:?}", validation.step, validation.evaluation.total.miou),
    };
    rows.iter().map(text).collect()
}

/// All files with what counts of each: checkpoints and metrics without times and places, anything else byte by byte.
pub fn contents(folder: &Path) -> Contents {
    let mut all = Contents::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(inner) = folders.pop() {
        for entry in fs::read_dir(&inner).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().to_path_buf();
            if path.is_dir() {
                if !name.ends_with("cache") {
                    folders.push(path);
                }
                continue;
            }
            let text = match path.file_name().unwrap().to_str().unwrap() {
                // It may stay; it is a lock only while a process holds it.
                "writer.lock" => continue,
                // When each file was written, and that none of them need be read again.
                ".sep4d-checked.json" => continue,
                "environment.json" | "metrics.csv" | "config.toml" => String::new(),
                "metrics.jsonl" => rows(&inner).join("\n"),
                name if name.ends_with(".optim.safetensors") => String::new(),
                name if name.ends_with(".safetensors") => Checkpoint::load(&path).map_or_else(
                    |why| why.to_string(),
                    |Checkpoint { state, cursor, .. }| fingerprint(format!("{state:?} {cursor:?}").as_bytes()),
                ),
                // An archive holds the time at which it was written.
                name if name.ends_with(".npz") => format!("{} bytes", fs::metadata(&path).unwrap().len()),
                _ => fingerprint(&fs::read(&path).unwrap()),
            };
            all.insert(name, text);
        }
    }
    all
}

fn fingerprint(bytes: &[u8]) -> String {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    format!("{:016x}", hasher.finish())
}

pub fn same(have: &Contents, want: &Contents) -> Result<(), String> {
    let names: BTreeSet<&PathBuf> = have.keys().chain(want.keys()).collect();
    let wrong = names.into_iter().find(|name| have.get(*name) != want.get(*name));
    wrong.map_or(Ok(()), |name| Err(format!("{} is {:?}, not {:?}", name.display(), have.get(name), want.get(name))))
}
