//! Reading all of a data set before a run depends on it, and remembering that it was read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::classes::IGNORED;
use super::dataset::Dataset;
use super::numbers::{gaps, listed};
use super::record;
use super::source::{self, Findings, Sequence, Source};
use super::{ClassSet, Grid, Split, by, formats};
use crate::Result;
use crate::figures::shell_quoted;
use crate::hash::Fingerprint;

/// Frames that are read side by side before their problems are told in order.
const CHUNK: usize = 256;

/// The record's name.
const RECORD: &str = "checked";

/// What is told while a data set is read.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// So many frames will be read.
    Frames(usize),
    /// So many have been read.
    Read(usize),
    /// Something is wrong: a sentence that names the file.
    Problem(String),
    /// Something that one should know: a sentence.
    Note(String),
}

/// What a split holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SplitSummary {
    /// Which split it is.
    pub split: Split,
    /// Its sequences that could be listed.
    pub sequences: usize,
    /// Their frames.
    pub frames: usize,
    /// The grid of its frames, if there are any.
    pub grid: Option<Grid>,
    /// Voxels of each class in the label files that could be read, `[K]`.
    pub class_counts: Vec<u64>,
    /// Voxels of the mask files that could be read.
    pub masked: u64,
    /// Those of them that were observed.
    pub observed: u64,
    /// Sequences with poses.
    pub with_poses: usize,
    /// Sequences with times.
    pub with_times: usize,
}

/// What a data set holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// What was recognised, which id is free and what counts as observed: a sentence without its full stop.
    pub about: String,
    /// What its labels mean.
    pub classes: Arc<ClassSet>,
    /// The splits that there are.
    pub splits: Vec<SplitSummary>,
    /// How many problems were told.
    pub problems: usize,
}

/// What is remembered of one sequence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Verdict {
    /// Fingerprint of its files when it was read.
    files: String,
    /// How many problems it had.
    problems: usize,
}

/// What is remembered of a data set, by split and sequence.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    sequences: BTreeMap<String, Verdict>,
}

impl Record {
    fn add(&mut self, split: Split, sequence: &Sequence, files: Fingerprint, problems: usize) {
        let verdict = Verdict { files: files.to_string(), problems };
        self.sequences.insert(key(split, sequence), verdict);
    }
}

fn key(split: Split, sequence: &Sequence) -> String {
    format!("{}/{}", split.folder(), sequence.name)
}

/// The fingerprint of all files of a sequence.
fn fingerprint(base: &Path, sequence: &Sequence) -> Result<Fingerprint> {
    let Sequence { labels, masks, texts, .. } = sequence;
    let files: Vec<&PathBuf> = labels.iter().chain(masks).chain(texts).collect();
    record::with_files(Fingerprint::default(), base, &files)
}

/// Reads all frames of all splits with all cores and tells every problem; what was read is remembered, so that
/// [`doubts`] has none as long as no file changes.
///
/// # Errors
/// [`crate::Error::Data`] if there is no data set at `root`.
pub fn check(root: &Path, mut tell: impl FnMut(Event)) -> Result<Summary> {
    let source = formats::recognise(root)?;
    let (base, classes) = (source.base(), source.classes());
    let mut problems = 0;
    let mut tell = |event: Event| {
        problems += usize::from(matches!(event, Event::Problem(_)));
        tell(event);
    };
    let mut splits = Vec::new();
    for split in Split::ALL {
        match source.has(split) {
            Ok(false) => {}
            Ok(true) => {
                let mut findings = Findings::default();
                let sequences = source.scan(split, &[], &mut findings);
                let faulty: Vec<bool> = sequences.iter().map(|sequence| findings.is_about(sequence)).collect();
                findings.problems.iter().for_each(|why| tell(Event::Problem(why.to_string())));
                findings.flaws.into_iter().for_each(|why| tell(Event::Problem(why)));
                findings.notes.into_iter().for_each(|note| tell(Event::Note(note)));
                splits.push((split, sequences, faulty));
            }
            Err(why) => tell(Event::Problem(why.to_string())),
        }
    }
    for note in grid_notes(splits.iter().filter_map(|(split, sequences, _)| Some((*split, sequences.first()?.grid)))) {
        tell(Event::Note(note));
    }
    tell(Event::Frames(splits.iter().flat_map(|(_, sequences, _)| sequences).map(|s| s.numbers.len()).sum()));
    let mut record = Record::default();
    let mut read = 0;
    let mut summaries = Vec::new();
    for (split, sequences, faulty) in splits {
        let mut summary = SplitSummary::of(split, &sequences, classes.len());
        for (sequence, faulty) in sequences.iter().zip(faulty) {
            // Of before it is read: what changes meanwhile has not been read.
            let files = fingerprint(base, sequence);
            let mut wrong = usize::from(faulty);
            let missing = gaps(&sequence.numbers, sequence.step);
            if !missing.is_empty() {
                let missing = listed(&missing, sequence.step);
                tell(Event::Note(format!("{}/{} lacks the frames {missing}", split.folder(), sequence.name)));
            }
            let frames: Vec<usize> = (0..sequence.numbers.len()).collect();
            for chunk in frames.chunks(CHUNK) {
                let seen: Vec<Seen> = chunk.par_iter().map(|&i| Seen::of(&*source, sequence, i)).collect();
                for frame in seen {
                    wrong += frame.problems.len();
                    summary.add(&frame);
                    frame.problems.into_iter().for_each(|why| tell(Event::Problem(why)));
                }
                read += chunk.len();
                tell(Event::Read(read));
            }
            if let Ok(files) = files {
                record.add(split, sequence, files, wrong);
            }
        }
        summaries.push(summary);
    }
    if !record::store(&record::places(base, RECORD), &record) {
        let why = "it cannot be remembered that the data were checked: neither their folder nor the cache takes a file";
        tell(Event::Note(why.into()));
    }
    let about = format!("{} is {}", base.display(), source.about());
    Ok(Summary { about, classes: classes.clone(), splits: summaries, problems })
}

/// What is odd about the grids of the splits.
fn grid_notes(grids: impl Iterator<Item = (Split, Grid)>) -> Vec<String> {
    let mut notes = Vec::new();
    let mut first: Option<(Split, Grid)> = None;
    for (split, grid) in grids {
        let (here, size) = (split.folder(), by(grid.size));
        if grid.size.iter().any(|side| side % 2 == 1) {
            notes.push(format!("the grid of {here}, {size}, has an odd side; training on it needs data.crop"));
        }
        let (other, common) = *first.get_or_insert((split, grid));
        if common.size != grid.size {
            let (there, common) = (other.folder(), by(common.size));
            notes
                .push(format!("the grids of {there} and {here} differ ({common}, {size}); using both needs data.crop"));
        } else if common != grid {
            notes.push(format!("the voxels of {} and {here} differ in size or place", other.folder()));
        }
    }
    notes
}

/// What a frame's files hold, and what is wrong with them.
struct Seen {
    class_counts: Vec<u64>,
    masked: u64,
    observed: u64,
    problems: Vec<String>,
}

impl Seen {
    fn of(source: &dyn Source, sequence: &Sequence, i: usize) -> Seen {
        let class_counts = vec![0; source.classes().len()];
        let mut seen = Seen { class_counts, masked: 0, observed: 0, problems: Vec::new() };
        let labels = source.labels(sequence, i).map_err(|why| seen.problems.push(why.to_string())).ok();
        let observed = source.observed(sequence, i).map_err(|why| seen.problems.push(why.to_string())).ok();
        let is_ignored = |v: usize| labels.as_ref().is_some_and(|labels| labels[v] == IGNORED);
        if let Some(observed) = observed {
            seen.masked = observed.len() as u64;
            seen.observed = (0..observed.len()).filter(|&v| observed[v] && !is_ignored(v)).count() as u64;
        }
        for class in labels.unwrap_or_default() {
            if let Some(count) = seen.class_counts.get_mut(usize::from(class)) {
                *count += 1;
            }
        }
        seen.problems.dedup();
        seen
    }
}

impl SplitSummary {
    fn of(split: Split, sequences: &[Sequence], classes: usize) -> SplitSummary {
        SplitSummary {
            split,
            sequences: sequences.len(),
            frames: sequences.iter().map(|sequence| sequence.numbers.len()).sum(),
            grid: sequences.first().map(|sequence| sequence.grid),
            class_counts: vec![0; classes],
            masked: 0,
            observed: 0,
            with_poses: sequences.iter().filter(|sequence| sequence.poses.is_some()).count(),
            with_times: sequences.iter().filter(|sequence| sequence.has_times).count(),
        }
    }

    fn add(&mut self, frame: &Seen) {
        self.class_counts.iter_mut().zip(&frame.class_counts).for_each(|(sum, count)| *sum += count);
        self.masked += frame.masked;
        self.observed += frame.observed;
    }

    /// What can be said of the grid in a few words.
    pub fn grid_text(&self) -> String {
        self.grid.map_or_else(String::new, |grid| {
            let [x, y, z] = grid.voxel_size_m;
            format!("{} voxels of {x} x {y} x {z} m", by(grid.size))
        })
    }
}

/// Remembers a data set as sound without reading it: for who has just written it.
///
/// # Errors
/// [`crate::Error::Data`] if it is not there.
pub(crate) fn vouch(root: &Path) -> Result<()> {
    let source = formats::recognise(root)?;
    let base = source.base();
    let mut record = Record::default();
    for split in Split::ALL {
        if source.has(split)? {
            for sequence in source.scan(split, &[], &mut Findings::default()) {
                record.add(split, &sequence, fingerprint(base, &sequence)?, 0);
            }
        }
    }
    record::store(&record::places(base, RECORD), &record);
    Ok(())
}

/// Why it is not known that all frames of `sets`, splits of the data set at `root`, can be read: a sentence, or `None`
/// if [`check`] has read them as they are and found nothing wrong.
pub fn doubts(root: &Path, sets: &[&Dataset]) -> Option<String> {
    let (mut unknown, mut changed, mut faulty) = (Vec::new(), Vec::new(), Vec::new());
    for (i, set) in sets.iter().enumerate() {
        if sets[..i].iter().any(|other| other.split == set.split) {
            continue;
        }
        let base = set.source.base();
        let places = record::places(base, RECORD);
        let records: Vec<Record> = places.iter().filter_map(|place| record::load(place)).collect();
        for sequence in &set.sequences {
            let key = key(set.split, sequence);
            let files = fingerprint(base, sequence).map(|files| files.to_string()).unwrap_or_default();
            let verdicts: Vec<&Verdict> = records.iter().filter_map(|record| record.sequences.get(&key)).collect();
            match verdicts.iter().find(|verdict| verdict.files == files) {
                Some(verdict) if verdict.problems == 0 => {}
                Some(_) => faulty.push(key),
                None if verdicts.is_empty() => unknown.push(key),
                None => changed.push(key),
            }
        }
    }
    let command = format!("`sep4d check {}`", shell_quoted(root));
    if !faulty.is_empty() {
        let faulty = source::listed(&faulty, "sequences");
        Some(format!("{command} found problems in {faulty}, which may end the run; run it again to see them"))
    } else if !changed.is_empty() {
        let changed = source::listed(&changed, "sequences");
        Some(format!("{changed} changed after the data were checked; run {command}, or a damaged file may end the run"))
    } else if !unknown.is_empty() {
        Some(format!(
            "the data were never checked; run {command}, or a damaged file may end the run when its turn comes"
        ))
    } else {
        None
    }
}
