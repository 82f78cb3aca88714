//! Registration: how the sensor moved, from the labels alone, for data without poses.
//!
//! A pair of consecutive frames is laid over each other by the classes that stand still: all turns and shifts on a coarse grid
//! (`coarse`), then robust Gauss-Newton on smoothed class fields, to a part of a voxel (`field`, `fine`). Motions over two and over
//! four frames limit what the errors add up to, and contradict a pair that went wrong (`pairs`, `trajectory`).
//!
//! A motion turns about the vertical axis and shifts along x, y and z; pitch and roll, of which grids a few voxels high tell next to
//! nothing, are taken as 0. What cannot be trusted is flagged, with the reason ([`Flag`]), and no pose leads across it.

use std::path::Path;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::source::{self, Findings, Sequence, Source};
use super::{Pose, Split, formats, invert};
use crate::{Error, Result};

mod coarse;
mod field;
mod fine;
mod motion;
mod overlay;
mod pairs;
mod store;
#[cfg(test)]
mod tests;
mod trajectory;

pub use motion::Motion;
pub use overlay::{Overlay, overlay};
pub use pairs::Flag;
pub use store::registered;
pub use trajectory::{Pair, Trajectory};

use field::{Channels, Field};
use pairs::{LONGEST, Window};
use store::Store;

/// Fields that are kept at once take no more bytes than this, but for those that a few frames need.
const MOST_BYTES: usize = 512 << 20;
/// Frames that are worked on side by side.
const CHUNK: usize = 64;
/// So often what is registered is written.
const WRITTEN_EVERY: Duration = Duration::from_secs(20);
/// Frames of a sequence by which its channels are chosen.
const COUNTED: usize = 16;

/// What is told while a data set is registered.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// It has so many frames.
    Frames(usize),
    /// So many are done.
    Done(usize),
    /// A sequence is done.
    Sequence(Box<Registered>),
    /// Something that one should know: a sentence.
    Note(String),
}

/// A sequence that was registered.
#[derive(Debug, Clone, PartialEq)]
pub struct Registered {
    /// The split that it is from.
    pub split: Split,
    /// Its name.
    pub name: String,
    /// The numbers of its frames.
    pub numbers: Vec<usize>,
    /// How the sensor moved.
    pub trajectory: Trajectory,
    /// Where the data have poses: of each pair that is not flagged, how far the shift is from theirs, metres, and the turn, radians.
    pub errors: Option<Vec<[f64; 2]>>,
}

/// Registers all sequences of some splits (all if none is named) with all cores, and keeps each beside the data, or in the user's
/// cache folder where they are read-only. What is kept already, of files that have not changed, is not computed again.
///
/// # Errors
/// [`Error::Data`] if there is no data set at `root`, none of the splits is there, or a frame cannot be read.
pub fn register(root: &Path, splits: &[Split], mut tell: impl FnMut(Event)) -> Result<Vec<Registered>> {
    let source = formats::recognise(root)?;
    let source = &*source;
    let listed = listed(source, splits, &mut tell)?;
    tell(Event::Frames(listed.iter().map(|(_, sequence)| sequence.numbers.len()).sum()));
    let (mut done, mut registered, mut is_kept) = (0, Vec::new(), true);
    for of_split in listed.chunk_by(|a, b| a.0 == b.0) {
        let mut store = Store::open(source.base(), of_split[0].0);
        let mut written = Instant::now();
        for (i, (split, sequence)) in of_split.iter().enumerate() {
            let trajectory = match store.get(source, sequence) {
                Some(trajectory) => trajectory,
                None => {
                    // Of before it is read: what changes meanwhile has not been registered.
                    let key = store::key(source, sequence)?;
                    let trajectory = of_sequence(source, sequence, |frames| tell(Event::Done(done + frames)))?;
                    store.put(sequence, key, &trajectory);
                    trajectory
                }
            };
            // The record of a large split takes a while, too.
            if written.elapsed() > WRITTEN_EVERY || i + 1 == of_split.len() {
                is_kept &= store.write();
                written = Instant::now();
            }
            done += sequence.numbers.len();
            tell(Event::Done(done));
            let errors = sequence.poses.as_ref().map(|poses| errors(&trajectory, poses));
            let (name, numbers) = (sequence.name.clone(), sequence.numbers.clone());
            let sequence = Registered { split: *split, name, numbers, trajectory, errors };
            tell(Event::Sequence(Box::new(sequence.clone())));
            registered.push(sequence);
        }
    }
    if !is_kept {
        tell(Event::Note("the motions cannot be kept: neither the data's folder nor the cache takes a file".into()));
    }
    Ok(registered)
}

/// The sequences of the splits.
fn listed(source: &dyn Source, splits: &[Split], tell: &mut impl FnMut(Event)) -> Result<Vec<(Split, Sequence)>> {
    let mut listed = Vec::new();
    for split in Split::ALL.into_iter().filter(|split| splits.is_empty() || splits.contains(split)) {
        if !source.has(split)? {
            if !splits.is_empty() {
                let place = source.place(split);
                return Err(Error::Data(format!("{place} is missing or has no sequences; choose another --split")));
            }
            continue;
        }
        let mut findings = Findings::default();
        let sequences = source.scan(split, &[], &mut findings);
        if let Some(first) = findings.problems.into_iter().next() {
            return Err(first);
        }
        findings.notes.into_iter().for_each(|note| tell(Event::Note(note)));
        listed.extend(sequences.into_iter().map(|sequence| (split, sequence)));
    }
    Ok(listed)
}

/// The trajectory of a sequence; `progress` is told how many of its frames are done.
fn of_sequence(source: &dyn Source, sequence: &Sequence, mut progress: impl FnMut(usize)) -> Result<Trajectory> {
    let frames = sequence.numbers.len();
    let channels = channels(source, sequence)?;
    let read = |i: usize| Ok(Field::new(&source::frame(source, sequence, i)?, &sequence.grid, &channels));
    let mut edges = Vec::new();
    let mut fields: Vec<Field> = Vec::new();
    let (mut first, mut next, mut before) = (0, 0, None);
    while next < frames {
        let most = fields.first().map_or(LONGEST + 1, |field| MOST_BYTES / field.bytes().max(1));
        let last = frames.min(next + most.saturating_sub(fields.len()).clamp(LONGEST, CHUNK));
        let read: Vec<Result<Field>> = (next..last).into_par_iter().map(read).collect();
        fields.extend(read.into_iter().collect::<Result<Vec<_>>>()?);
        let found = Window { channels: &channels, first, fields: &fields }.edges(next, before);
        before = found.iter().rfind(|edge| edge.frames[0] + 1 == edge.frames[1]).map(|edge| edge.fit.motion);
        edges.extend(found);
        next = last;
        // What later frames are laid over.
        let over = fields.len().saturating_sub(LONGEST);
        fields.drain(..over);
        first += over;
        progress(next);
    }
    let [dx, dy, _] = sequence.grid.voxel_size_m;
    let times = sequence.has_times.then_some(sequence.times_secs.as_slice());
    Ok(Trajectory::new(trajectory::reconcile(&edges, dx.max(dy), times)))
}

/// The channels of a sequence, by some of its frames.
fn channels(source: &dyn Source, sequence: &Sequence) -> Result<Channels> {
    let classes = source.classes();
    let frames: Vec<usize> =
        (0..sequence.numbers.len()).step_by(sequence.numbers.len().div_ceil(COUNTED).max(1)).collect();
    let count = |&i: &usize| {
        let frame = source::frame(source, sequence, i)?;
        let mut counts = vec![0u64; classes.len()];
        let seen = frame.labels.iter().zip(&frame.observed).filter(|(_, observed)| **observed);
        seen.for_each(|(class, _)| counts[usize::from(*class)] += 1);
        Ok(counts)
    };
    let counts: Vec<Result<Vec<u64>>> = frames.par_iter().map(count).collect();
    let mut sums = vec![0; classes.len()];
    for counts in counts {
        sums.iter_mut().zip(counts?).for_each(|(sum, count)| *sum += count);
    }
    Ok(Channels::new(&sums, &classes.moves))
}

/// How far each pair that is not flagged is from the poses of the data: metres and radians.
fn errors(trajectory: &Trajectory, poses: &[Pose]) -> Vec<[f64; 2]> {
    let pairs = trajectory.pairs.iter().zip(poses.windows(2)).filter(|(pair, _)| pair.flag.is_none());
    let error = |(pair, poses): (&Pair, &[Pose])| {
        let known = invert(&poses[0])? * poses[1];
        let between = invert(&known)? * pair.motion.pose();
        let cosine = (between.matrix3.x_axis.x + between.matrix3.y_axis.y + between.matrix3.z_axis.z - 1.0) / 2.0;
        // By the sine, which tells small angles from none.
        let m = between.matrix3;
        let sine = glam::DVec3::new(m.y_axis.z - m.z_axis.y, m.z_axis.x - m.x_axis.z, m.x_axis.y - m.y_axis.x).length();
        Some([between.translation.length(), (sine / 2.0).atan2(cosine)])
    };
    pairs.filter_map(error).collect()
}
