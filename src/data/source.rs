//! What a data set is to all that does not know its format.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::classes::IGNORED;
use super::numbers::frames_of;
use super::pose::{invert, is_rigid};
use super::{ClassSet, Frame, Grid, Pose, Split, by};
use crate::{Error, Result};

/// What a user can do about a sequence that is broken or has gone.
pub(super) const OR_CHOOSE: &str = ", or list the sequences that are wanted in data.sequences";

/// A data set on disk, in one of the [`formats`](super::formats).
pub(crate) trait Source: Debug + Send + Sync {
    /// The folder of which messages and records speak.
    fn base(&self) -> &Path;

    /// What was recognised, which id is free and what counts as observed: a sentence without its full stop.
    fn about(&self) -> String;

    /// What the labels mean.
    fn classes(&self) -> &Arc<ClassSet>;

    /// How a message names a split.
    fn place(&self, split: Split) -> String;

    /// Whether a split has anything that could be a sequence.
    ///
    /// # Errors
    /// [`Error::Data`] if it cannot be told.
    fn has(&self, split: Split) -> Result<bool>;

    /// Lists the frames of every sequence of a split that is wanted (all if none is named), in order of their names.
    fn scan(&self, split: Split, wanted: &[String], findings: &mut Findings) -> Vec<Sequence>;

    /// Finds what is wrong with frame `i` of a sequence as far as that can be seen without reading it.
    ///
    /// # Errors
    /// [`Error::Data`], naming the file.
    fn inspect(&self, sequence: &Sequence, i: usize) -> Result<()>;

    /// Reads the classes of frame `i` of a sequence, [`IGNORED`] where the files say so, `[X, Y, Z]` in C order.
    ///
    /// # Errors
    /// [`Error::Data`], naming the file, if it is unreadable, damaged, or holds an id that the classes lack.
    fn labels(&self, sequence: &Sequence, i: usize) -> Result<Vec<u8>>;

    /// Reads which voxels of frame `i` of a sequence were observed, `[X, Y, Z]` in C order.
    ///
    /// # Errors
    /// [`Error::Data`], naming the file, if it is unreadable or damaged.
    fn observed(&self, sequence: &Sequence, i: usize) -> Result<Vec<bool>>;

    /// What writes frames on `grid` into the folder `out` in this format.
    ///
    /// # Errors
    /// [`Error::Data`] if what belongs to the whole cannot be written.
    fn sink(&self, out: &Path, grid: &Grid) -> Result<Box<dyn Sink>>;
}

/// Reads frame `i` of a sequence. What the files say to ignore is free and counts as unobserved.
///
/// # Errors
/// As for [`Source::labels`] and [`Source::observed`].
pub(super) fn frame(source: &dyn Source, sequence: &Sequence, i: usize) -> Result<Frame> {
    let mut labels = source.labels(sequence, i)?;
    let mut observed = source.observed(sequence, i)?;
    for (label, observed) in labels.iter_mut().zip(&mut observed) {
        if *label == IGNORED {
            (*label, *observed) = (0, false);
        }
    }
    Ok(Frame { labels, observed })
}

/// One recording: its frames in order, with their files, times and poses.
#[derive(Debug, Clone)]
pub(crate) struct Sequence {
    pub name: String,
    pub grid: Grid,
    pub numbers: Vec<usize>,
    /// By how much the numbers grow, but for gaps.
    pub step: usize,
    /// The file of each frame's labels.
    pub labels: Vec<PathBuf>,
    /// The file of each frame's mask; none at all where it stands in that of the labels.
    pub masks: Vec<PathBuf>,
    /// The other files that it depends on.
    pub texts: Vec<PathBuf>,
    /// From the frames' numbers where nothing else tells.
    pub times_secs: Vec<f64>,
    /// Whether the data set has the times.
    pub has_times: bool,
    /// Relative to the sequence's own origin.
    pub poses: Option<Vec<Pose>>,
}

/// One reconstructed frame, to be written.
#[derive(Debug, Clone, Copy)]
pub struct Exported<'a> {
    /// The split that it is from.
    pub split: Split,
    /// The name of its sequence.
    pub sequence: &'a str,
    /// Its number within the sequence.
    pub number: usize,
    /// Class of every voxel, `[X, Y, Z]` in C order.
    pub labels: &'a [u8],
    /// Whether the original was observed, in the same order.
    pub observed: &'a [bool],
}

/// Writes frames in a format; each frame comes once, those of a sequence after each other.
pub trait Sink {
    /// Writes a frame.
    ///
    /// # Errors
    /// [`Error::Data`] if a file cannot be written.
    fn put(&mut self, frame: &Exported) -> Result<()>;

    /// Writes what is still to be written.
    ///
    /// # Errors
    /// [`Error::Data`] if a file cannot be written.
    fn finish(&mut self) -> Result<()> {
        Ok(())
    }

    /// The folder for what else is written of a sequence; readers of the format pass it over.
    fn beside(&self, split: Split, sequence: &str) -> PathBuf;
}

/// What is wrong with a split, or odd about it, in a sentence each.
#[derive(Debug, Default)]
pub(crate) struct Findings {
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
    pub fn keep<V>(&mut self, result: Result<V>) -> Option<V> {
        result.map_err(|why| self.problems.push(why)).ok()
    }

    /// Whether something is wrong with a sequence.
    pub fn is_about(&self, sequence: &Sequence) -> bool {
        self.faulty.contains(&sequence.name)
    }

    /// Adds a problem.
    pub fn problem(&mut self, why: String) {
        self.problems.push(Error::Data(why));
    }

    /// Adds a problem of one sequence.
    pub fn problem_of(&mut self, sequence: &str, why: String) {
        self.problem(why);
        self.faulty.push(sequence.to_owned());
    }

    /// What `read` makes of a sequence; what it finds is about that sequence.
    pub fn about<V>(&mut self, sequence: &str, read: impl FnOnce(&mut Findings) -> V) -> V {
        let before = self.problems.len() + self.flaws.len();
        let value = read(self);
        if self.problems.len() + self.flaws.len() > before {
            self.faulty.push(sequence.to_owned());
        }
        value
    }

    /// Judges the poses of frames; `correct` says what to do about them.
    pub fn judge_poses(&mut self, poses: &[Pose], numbers: &[usize], sequence: &str, correct: &str) {
        let frames = |odd: &dyn Fn(&Pose) -> bool| -> Vec<usize> {
            numbers.iter().zip(poses).filter(|(_, pose)| odd(pose)).map(|(&number, _)| number).collect()
        };
        let singular = frames(&|pose| invert(pose).is_none());
        if !singular.is_empty() {
            let frames = frames_of(&singular, sequence);
            self.problem(format!("the pose of {frames} has no inverse; correct or remove {correct}"));
        }
        let bent = frames(&|pose| invert(pose).is_some() && !is_rigid(pose));
        if !bent.is_empty() {
            let frames = frames_of(&bent, sequence);
            self.flaws.push(format!("the pose of {frames} is no rigid motion; correct {correct}"));
        }
    }

    /// Judges the times of frames, seconds; `correct` says what to do about them.
    pub fn judge_times(&mut self, times: &[f64], numbers: &[usize], sequence: &str, correct: &str) {
        let pairs = times.windows(2).zip(numbers.iter().skip(1));
        let falling: Vec<usize> = pairs.filter(|(pair, _)| pair[1] <= pair[0]).map(|(_, &number)| number).collect();
        if !falling.is_empty() {
            let frames = frames_of(&falling, sequence);
            self.flaws.push(format!("the time of {frames} is not after the one before; correct {correct}"));
        }
    }

    /// Finds that two sequences of a data set have different grids.
    pub fn grids_differ(&mut self, [a, b]: [(&str, &Grid); 2]) {
        let text = |grid: &Grid| format!("{} of {:?} m", by(grid.size), grid.voxel_size_m);
        let why = format!(
            "{} and {} have different grids ({} and {}); keep only sequences of one grid{OR_CHOOSE}",
            a.0,
            b.0,
            text(a.1),
            text(b.1)
        );
        self.problem_of(b.0, why);
    }
}

/// Which of the sequences `known` of a split are wanted: `Some` of them, or `None` if it has none of those, so that all are
/// used, which `findings` notes.
///
/// # Errors
/// [`Error::Data`] if a wanted one is in no split; `elsewhere` names those of the other splits.
pub(super) fn choose(
    wanted: &[String],
    known: &[String],
    elsewhere: impl FnOnce() -> Result<Vec<String>>,
    [base, place]: [&str; 2],
    findings: &mut Findings,
) -> Result<Option<Vec<String>>> {
    let mut all = known.to_vec();
    if !wanted.iter().all(|wanted| all.contains(wanted)) {
        all.extend(elsewhere()?);
    }
    if let Some(unknown) = wanted.iter().find(|wanted| !all.contains(wanted)) {
        return Err(Error::Data(format!(
            "there is no sequence {unknown:?} in {base}, but {}; correct data.sequences",
            listed(&all, "others")
        )));
    }
    let chosen: Vec<String> = known.iter().filter(|name| wanted.contains(name)).cloned().collect();
    if chosen.is_empty() && !wanted.is_empty() {
        findings.notes.push(format!("data.sequences has none of {place}: all of them are used"));
    }
    Ok((!chosen.is_empty()).then_some(chosen))
}

/// "A", or "A and 3 more sequences".
pub(super) fn listed(names: &[impl AsRef<str>], what: &str) -> String {
    match names {
        [] => format!("no {what}"),
        [one] => one.as_ref().to_string(),
        [first, ..] => format!("{} and {} more {what}", first.as_ref(), names.len() - 1),
    }
}

/// The last part of a path.
pub(super) fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
