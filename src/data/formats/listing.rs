//! What formats share that list their sequences when they are opened.

use std::path::{Path, PathBuf};

use crate::data::source::{self, Findings, OR_CHOOSE, Sequence, listed, name};
use crate::data::{Pose, Split, pose_of_rows};
use crate::{Error, Result};

/// Of so many sequences one is held out where a data set does not say which.
const HOLD_OUT: usize = 10;

/// A sequence that a format has found.
#[derive(Debug, Clone)]
pub(super) struct Listed<P> {
    pub split: Split,
    pub name: String,
    /// Where and what it is.
    pub part: P,
}

/// All sequences of a data set.
#[derive(Debug)]
pub(super) struct Listing<P> {
    base: PathBuf,
    all: Vec<Listed<P>>,
    /// What is to be said of the splits.
    held_out: &'static str,
}

impl<P: Clone> Listing<P> {
    /// Lists `all`; where all are there to train on, some are held out.
    pub fn new(base: &Path, mut all: Vec<Listed<P>>) -> Listing<P> {
        let mut held_out = "";
        if !all.is_empty() && all.iter().all(|listed| listed.split == Split::Train) {
            if let [only] = &all[..] {
                all.push(Listed { split: Split::Val, ..only.clone() });
                held_out = "; its only sequence is there to train and to validate on";
            } else {
                let first = all.len() - (all.len() / HOLD_OUT).max(1);
                all[first..].iter_mut().for_each(|listed| listed.split = Split::Val);
                held_out = "; the last tenth of its sequences is held out";
            }
        }
        Listing { base: base.to_path_buf(), all, held_out }
    }

    pub fn base(&self) -> &Path {
        &self.base
    }

    /// All sequences.
    pub fn all(&self) -> &[Listed<P>] {
        &self.all
    }

    /// What is to be said of the splits after the rest.
    pub fn held_out(&self) -> &'static str {
        self.held_out
    }

    pub fn place(&self, split: Split) -> String {
        format!("the {} split of {}", split.folder(), self.base.display())
    }

    pub fn has(&self, split: Split) -> bool {
        self.all.iter().any(|listed| listed.split == split)
    }

    /// The part of the sequence `name`.
    pub fn part(&self, name: &str) -> Option<&P> {
        self.all.iter().find(|listed| listed.name == name).map(|listed| &listed.part)
    }

    /// The sequences of a split that are wanted (all if none is named), as `read` makes them of what was listed.
    pub fn scan(
        &self,
        split: Split,
        wanted: &[String],
        findings: &mut Findings,
        mut read: impl FnMut(&Listed<P>, &mut Findings) -> Result<Sequence>,
    ) -> Vec<Sequence> {
        let names = |here: bool| -> Vec<String> {
            let of = self.all.iter().filter(|listed| (listed.split == split) == here);
            of.map(|listed| listed.name.clone()).collect()
        };
        let base = self.base.display().to_string();
        let chosen = source::choose(wanted, &names(true), || Ok(names(false)), [&base, &self.place(split)], findings);
        let Some(chosen) = findings.keep(chosen) else { return Vec::new() };
        let is_wanted = |name: &String| chosen.as_ref().is_none_or(|chosen| chosen.contains(name));
        let mut sequences: Vec<Sequence> = Vec::new();
        for listed in self.all.iter().filter(|listed| listed.split == split && is_wanted(&listed.name)) {
            let sequence = findings.about(&listed.name, |findings| {
                let advice = if chosen.is_some() { "" } else { OR_CHOOSE };
                let sequence = read(listed, findings).map_err(|why| Error::Data(format!("{why}{advice}")));
                let sequence = findings.keep(sequence)?;
                let (numbers, correct) = (&sequence.numbers, "its file");
                findings.judge_poses(sequence.poses.as_deref().unwrap_or_default(), numbers, &sequence.name, correct);
                findings.judge_times(&sequence.times_secs, numbers, &sequence.name, correct);
                Some(sequence)
            });
            sequences.extend(sequence);
        }
        if let Some((first, others)) = sequences.split_first() {
            for other in others.iter().filter(|other| other.grid != first.grid) {
                findings.grids_differ([(&first.name, &first.grid), (&other.name, &other.grid)]);
            }
        }
        let poseless: Vec<&str> = sequences.iter().filter(|s| s.poses.is_none()).map(|s| s.name.as_str()).collect();
        if !poseless.is_empty() {
            let poseless = listed(&poseless, "sequences");
            findings.notes.push(format!("no poses of {poseless}: clips from there have no poses"));
        }
        sequences
    }
}

/// The number that is the name of a file with this ending: 7 for `007_04.npz` with `_04.npz`.
pub(super) fn number(path: &Path, ending: &str) -> Option<usize> {
    let name = name(path);
    let digits = name.strip_suffix(ending)?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse::<u32>().ok().filter(|_| is_number).map(|number| number as usize)
}

/// The files in `files` that are named by a number and this ending, by their numbers.
pub(super) fn numbered(files: &[PathBuf], ending: &str) -> Vec<(usize, PathBuf)> {
    let mut frames: Vec<(usize, PathBuf)> =
        files.iter().filter_map(|path| Some((number(path, ending)?, path.clone()))).collect();
    frames.sort();
    frames.dedup_by_key(|frame| frame.0);
    frames
}

/// The motion of a 3x4 or 4x4 matrix.
pub(super) fn pose_of(values: &[f64]) -> Option<Pose> {
    let pose = pose_of_rows(values.get(..12)?.try_into().ok()?);
    pose.is_finite().then_some(pose)
}
