//! Which sequences and frames a split has, and what is wrong with them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::file_bytes;
use super::folders::{entries, is_folder, look};
use super::text::{read_grid, read_table};
use crate::data::dataset::Sequence;
use crate::data::numbers::{self, frames_of};
use crate::data::pose::{invert, is_rigid};
use crate::data::{Grid, Pose, Split, by};
use crate::{Error, Result};

/// What a user can do about a sequence that is broken or has gone.
const OR_CHOOSE: &str = ", or list the sequences that are wanted in data.sequences";

/// What is wrong with a split, or odd about it, in a sentence each.
#[derive(Debug, Default)]
pub(in crate::data) struct Findings {
    /// What keeps it from being read.
    pub problems: Vec<Error>,
    /// What is wrong but leaves it readable.
    pub flaws: Vec<String>,
    /// What a reader should know.
    pub notes: Vec<String>,
    /// The sequences that problems and flaws are about.
    faulty: Vec<String>,
}

impl Findings {
    /// The value, unless there is a problem.
    fn keep<V>(&mut self, result: Result<V>) -> Option<V> {
        result.map_err(|why| self.problems.push(why)).ok()
    }

    /// Whether something is wrong with a sequence.
    pub fn is_about(&self, sequence: &Sequence) -> bool {
        self.faulty.contains(&sequence.name)
    }

    fn problem(&mut self, why: String) {
        self.problems.push(Error::Data(why));
    }
}

/// Lists the frames of every sequence of a split that is wanted (all if none is named), in order of the sequences' names.
pub(in crate::data) fn scan(base: &Path, split: Split, wanted: &[String], findings: &mut Findings) -> Vec<Sequence> {
    let folder = base.join(split.folder());
    let Some(mut paths) = findings.keep(entries(&folder)) else { return Vec::new() };
    let advice = match findings.keep(choose(base, split, wanted, &mut paths)) {
        Some(true) => "",
        Some(false) => {
            if !wanted.is_empty() {
                findings.notes.push(format!("data.sequences has none of {}: all of them are used", folder.display()));
            }
            OR_CHOOSE
        }
        None => return Vec::new(),
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
                let before = findings.problems.len() + findings.flaws.len();
                sequences.extend(read_sequence(&path, advice, findings));
                if findings.problems.len() + findings.flaws.len() > before {
                    findings.faulty.push(name(&path));
                }
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
fn choose(base: &Path, split: Split, wanted: &[String], paths: &mut Vec<PathBuf>) -> Result<bool> {
    let mut known: Vec<String> = paths.iter().map(|path| name(path)).collect();
    let is_known = |known: &[String], wanted: &String| known.contains(wanted);
    let some = wanted.iter().any(|wanted| is_known(&known, wanted));
    if !wanted.iter().all(|wanted| is_known(&known, wanted)) {
        for other in Split::ALL.into_iter().filter(|other| *other != split) {
            let folder = base.join(other.folder());
            if is_folder(&folder)? {
                known.extend(entries(&folder)?.iter().map(|path| name(path)));
            }
        }
    }
    if let Some(unknown) = wanted.iter().find(|wanted| !is_known(&known, wanted)) {
        return Err(Error::Data(format!(
            "there is no sequence {unknown:?} in {}, but {}; correct data.sequences",
            base.display(),
            listed(&known, "others")
        )));
    }
    if some {
        paths.retain(|path| wanted.contains(&name(path)));
    }
    Ok(some)
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
        findings.problem(format!(
            "{} and {} have different grids ({} of {:?} m and {} of {:?} m); keep only sequences of one grid{OR_CHOOSE}",
            owner.as_deref().unwrap_or_default(),
            sequence.name,
            by(common.size),
            common.voxel_size_m,
            by(sequence.grid.size),
            sequence.grid.voxel_size_m
        ));
        findings.faulty.push(sequence.name.clone());
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
        if !sequence.has("params.json") {
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
    let without = sequences.iter().map(|scanned| &scanned.sequence).filter(|sequence| !sequence.has("params.json"));
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
    let poseless = names(&|sequence| !sequence.has("poses.txt"));
    if !poseless.is_empty() {
        let poseless = listed(&poseless, "sequences");
        findings.notes.push(format!("no poses.txt in {poseless}: clips from there have no poses"));
    }
    let timeless = names(&|sequence| !sequence.has("times.txt"));
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
    let times = findings.keep(read_table::<1>(&times_path, &numbers)).flatten();
    judge_poses(poses.as_deref().unwrap_or_default(), &numbers, &name, &poses_path, findings);
    judge_times(times.as_deref().unwrap_or_default(), &numbers, &name, &times_path, findings);
    let texts = [evaluation.join("params.json"), inner.join("params.json"), poses_path, times_path];
    let is_there = |path: &PathBuf| look(path).is_ok_and(|found| found.is_some());
    let sequence = Sequence {
        grid: grid.unwrap_or(Grid::CARLA_SC),
        step: numbers::step(&numbers),
        labels,
        masks: masks_of_labels,
        texts: texts.into_iter().filter(is_there).collect(),
        times_secs: match times {
            Some(times) => times.into_iter().map(|[secs]| secs).collect(),
            None => numbers.iter().map(|&number| number as f64 * 0.1).collect(),
        },
        poses,
        numbers,
        name,
    };
    Some(Scanned { sequence, has_grid: grid.is_some() })
}

fn judge_poses(poses: &[Pose], numbers: &[usize], sequence: &str, path: &Path, findings: &mut Findings) {
    let frames = |odd: &dyn Fn(&Pose) -> bool| -> Vec<usize> {
        numbers.iter().zip(poses).filter(|(_, pose)| odd(pose)).map(|(&number, _)| number).collect()
    };
    let singular = frames(&|pose| invert(pose).is_none());
    if !singular.is_empty() {
        let frames = frames_of(&singular, sequence);
        findings.problem(format!("the pose of {frames} has no inverse; correct or remove {}", path.display()));
    }
    let bent = frames(&|pose| invert(pose).is_some() && !is_rigid(pose));
    if !bent.is_empty() {
        let frames = frames_of(&bent, sequence);
        findings.flaws.push(format!("the pose of {frames} is no rigid motion; correct {}", path.display()));
    }
}

fn judge_times(times: &[[f64; 1]], numbers: &[usize], sequence: &str, path: &Path, findings: &mut Findings) {
    let pairs = times.windows(2).zip(numbers.iter().skip(1));
    let falling: Vec<usize> = pairs.filter(|(pair, _)| pair[1] <= pair[0]).map(|(_, &number)| number).collect();
    if !falling.is_empty() {
        let frames = frames_of(&falling, sequence);
        findings.flaws.push(format!("the time of {frames} is not after the one before; correct {}", path.display()));
    }
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

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// "A", or "A and 3 more sequences".
pub(in crate::data) fn listed(names: &[impl AsRef<str>], what: &str) -> String {
    match names {
        [] => format!("no {what}"),
        [one] => one.as_ref().to_string(),
        [first, ..] => format!("{} and {} more {what}", first.as_ref(), names.len() - 1),
    }
}
