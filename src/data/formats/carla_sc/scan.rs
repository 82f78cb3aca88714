//! Which sequences and frames a split has, and what is wrong with them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::file_bytes;
use super::text::{read_grid, read_table};
use crate::data::folders::{entries, is_folder, look};
use crate::data::numbers::{self, frames_of};
use crate::data::source::{self, Findings, OR_CHOOSE, Sequence, listed, name};
use crate::data::{Grid, Split, by, pose_of_rows};
use crate::{Error, Result};

/// Lists the frames of every sequence of a split that is wanted (all if none is named), in order of the sequences' names.
pub(super) fn scan(base: &Path, split: Split, wanted: &[String], findings: &mut Findings) -> Vec<Sequence> {
    let folder = base.join(split.folder());
    let Some(mut paths) = findings.keep(entries(&folder)) else { return Vec::new() };
    let advice = match choose(base, split, wanted, &mut paths, findings) {
        Ok(true) => "",
        Ok(false) => OR_CHOOSE,
        Err(why) => {
            findings.problems.push(why);
            return Vec::new();
        }
    };
    let mut files = Vec::new();
    let mut sequences = Vec::new();
    for path in paths {
        match look(&path) {
            Ok(Some(found)) if !found.is_dir() => files.push(name(&path)),
            Ok(None) => {
                findings.problem(format!("{} has gone while it was listed; restore it{advice}", path.display()))
            }
            Ok(Some(_)) => {
                sequences.extend(findings.about(&name(&path), |findings| read_sequence(&path, advice, findings)));
            }
            Err(why) => findings.problem(format!("{why}{advice}")),
        }
    }
    if !files.is_empty() {
        let files = listed(&files, "files");
        findings.notes.push(format!("{} has {files} beside its sequences, which are not read", folder.display()));
    }
    if sequences.is_empty() && findings.problems.is_empty() {
        findings.problem(format!(
            "{} has no sequence with a cartesian/evaluation folder; check the layout, or make a data set with `sep4d synth`",
            folder.display()
        ));
    }
    let sequences = with_common_grid(sequences, findings);
    note_what_is_missing(&sequences, findings);
    sequences.into_iter().map(|scanned| scanned.sequence).collect()
}

/// Keeps the wanted ones among the sequences of a split, if it has any of them; returns whether it has.
fn choose(
    base: &Path,
    split: Split,
    wanted: &[String],
    paths: &mut Vec<PathBuf>,
    findings: &mut Findings,
) -> Result<bool> {
    let known: Vec<String> = paths.iter().map(|path| name(path)).collect();
    let elsewhere = || {
        let mut names = Vec::new();
        for other in Split::ALL.into_iter().filter(|other| *other != split) {
            let folder = base.join(other.folder());
            if is_folder(&folder)? {
                names.extend(entries(&folder)?.iter().map(|path| name(path)));
            }
        }
        Ok(names)
    };
    let place = base.join(split.folder()).display().to_string();
    let chosen = source::choose(wanted, &known, elsewhere, [&base.display().to_string(), &place], findings)?;
    if let Some(chosen) = &chosen {
        paths.retain(|path| chosen.contains(&name(path)));
    }
    Ok(chosen.is_some())
}

/// A sequence, and whether it says itself what its grid is.
struct Scanned {
    sequence: Sequence,
    has_grid: bool,
}

/// Gives the sequences without a params.json the grid of the others, or CarlaSC's, and finds those that do not fit.
fn with_common_grid(mut sequences: Vec<Scanned>, findings: &mut Findings) -> Vec<Scanned> {
    let first = sequences.iter().find(|scanned| scanned.has_grid).map(|scanned| &scanned.sequence);
    let (common, owner) = first.map_or((Grid::CARLA_SC, None), |first| (first.grid, Some(first.name.clone())));
    for Scanned { sequence, .. } in sequences.iter().filter(|s| s.has_grid && s.sequence.grid != common) {
        findings.grids_differ([(owner.as_deref().unwrap_or_default(), &common), (&sequence.name, &sequence.grid)]);
    }
    let whose = if owner.is_some() { "the other sequences" } else { "CarlaSC" };
    let grid = by(common.size);
    sequences.retain_mut(|Scanned { sequence, has_grid }| {
        if *has_grid {
            return true;
        }
        sequence.grid = common;
        let first = sequence.labels.first();
        let size = first.and_then(|path| look(path).ok().flatten()).filter(|found| found.is_file()).map(|f| f.len());
        let (Some(first), Some(size)) = (first, size.filter(|size| *size != file_bytes(&common))) else { return true };
        // That a file of it is there and cannot be read is known already.
        if !has(sequence, "params.json") {
            findings.problem(format!(
                "the sequence {} has no params.json, and {} has {size} bytes where the {grid} grid of {whose} needs {}; add \
                 its params.json",
                sequence.name,
                first.display(),
                file_bytes(&common)
            ));
        }
        false
    });
    let without = sequences.iter().map(|scanned| &scanned.sequence).filter(|sequence| !has(sequence, "params.json"));
    let without: Vec<&str> = without.map(|sequence| sequence.name.as_str()).collect();
    if !without.is_empty() {
        let without = listed(&without, "sequences");
        findings.notes.push(format!("no params.json in {without}: the grid is taken to be {grid}, that of {whose}"));
    }
    sequences
}

/// Notes which sequences lack poses or times, and which count their frames in steps.
fn note_what_is_missing(sequences: &[Scanned], findings: &mut Findings) {
    let names = |lacks: &dyn Fn(&Sequence) -> bool| -> Vec<&str> {
        sequences.iter().map(|s| &s.sequence).filter(|s| lacks(s)).map(|s| s.name.as_str()).collect()
    };
    let poseless = names(&|sequence| !has(sequence, "poses.txt"));
    if !poseless.is_empty() {
        let poseless = listed(&poseless, "sequences");
        findings.notes.push(format!("no poses.txt in {poseless}: clips from there have no poses"));
    }
    let timeless = names(&|sequence| !has(sequence, "times.txt"));
    if !timeless.is_empty() {
        let timeless = listed(&timeless, "sequences");
        findings.notes.push(format!("no times.txt in {timeless}: frame numbers are taken to count tenths of a second"));
    }
    let mut steps: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    for Scanned { sequence, .. } in sequences.iter().filter(|s| s.sequence.step > 1) {
        steps.entry(sequence.step).or_default().push(&sequence.name);
    }
    for (step, names) in steps {
        let names = listed(&names, "sequences");
        findings
            .notes
            .push(format!("frames are numbered in steps of {step} in {names}: they are taken as consecutive"));
    }
}

/// A sequence as far as it can be read; what is wrong with it becomes a finding.
fn read_sequence(path: &Path, advice: &str, findings: &mut Findings) -> Option<Scanned> {
    let inner = path.join("cartesian");
    let evaluation = inner.join("evaluation");
    let files = (|| {
        // One after the other, so that the one that is broken is named.
        if !is_folder(&inner)? || !is_folder(&evaluation)? {
            return Err(Error::Data(format!(
                "{} has no cartesian/evaluation folder; copy it, or remove the sequence",
                path.display()
            )));
        }
        entries(&evaluation)
    })();
    let files = findings.keep(files.map_err(|why| Error::Data(format!("{why}{advice}"))))?;
    let labels = by_number(&files, "label", findings);
    let mut masks = by_number(&files, "bin", findings);
    if labels.is_empty() {
        let evaluation = evaluation.display();
        findings.problem(format!("{evaluation} has no .label files; add them, or remove the sequence{advice}"));
        return None;
    }
    let name = name(path);
    let (numbers, labels): (Vec<usize>, Vec<PathBuf>) = labels.into_iter().unzip();
    // One that is missing keeps the name that it should have.
    let mask =
        |(number, label): (&usize, &PathBuf)| masks.remove(number).unwrap_or_else(|| label.with_extension("bin"));
    let masks_of_labels = numbers.iter().zip(&labels).map(mask).collect();
    if !masks.is_empty() {
        let alone: Vec<usize> = masks.into_keys().collect();
        findings.flaws.push(format!("{} has a .bin but no .label file and is left out", frames_of(&alone, &name)));
    }
    let grid = findings.keep(read_grid(&inner)).flatten();
    let [poses_path, times_path] = ["poses.txt", "times.txt"].map(|name| inner.join(name));
    let poses = findings.keep(read_table::<12>(&poses_path, &numbers)).flatten();
    let poses = poses.map(|rows| rows.iter().map(pose_of_rows).collect::<Vec<_>>());
    let times = findings.keep(read_table::<1>(&times_path, &numbers)).flatten();
    let times: Option<Vec<f64>> = times.map(|times| times.into_iter().map(|[secs]| secs).collect());
    let correct = [&poses_path, &times_path].map(|path| path.display().to_string());
    findings.judge_poses(poses.as_deref().unwrap_or_default(), &numbers, &name, &correct[0]);
    findings.judge_times(times.as_deref().unwrap_or_default(), &numbers, &name, &correct[1]);
    let is_there = |path: &PathBuf| look(path).is_ok_and(|found| found.is_some());
    let has_times = is_there(&times_path);
    let texts = [evaluation.join("params.json"), inner.join("params.json"), poses_path, times_path];
    let sequence = Sequence {
        grid: grid.unwrap_or(Grid::CARLA_SC),
        step: numbers::step(&numbers),
        labels,
        masks: masks_of_labels,
        texts: texts.into_iter().filter(is_there).collect(),
        has_times,
        times_secs: times.unwrap_or_else(|| numbers.iter().map(|&number| number as f64 * 0.1).collect()),
        poses,
        numbers,
        name,
    };
    Some(Scanned { sequence, has_grid: grid.is_some() })
}

/// Whether a sequence has a file of this name.
fn has(sequence: &Sequence, text: &str) -> bool {
    sequence.texts.iter().any(|path| path.ends_with(text))
}

/// The files of an extension, in whatever case, by the number that is their name.
fn by_number(files: &[PathBuf], extension: &str, findings: &mut Findings) -> BTreeMap<usize, PathBuf> {
    let mut found: BTreeMap<usize, PathBuf> = BTreeMap::new();
    for path in files.iter().filter(|path| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension))) {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let digits = stem.bytes().all(|byte| byte.is_ascii_digit());
        match stem.parse::<u32>().ok().filter(|_| digits) {
            Some(number) => {
                if let Some(other) = found.insert(number as usize, path.clone()) {
                    let (a, b) = (other.display(), path.display());
                    findings.problem(format!("{a} and {b} have the same frame number; remove one of them"));
                }
            }
            None => findings.problem(format!(
                "{} is not named by a frame number; name it like 000000.{extension} or remove it",
                path.display()
            )),
        }
    }
    found
}
