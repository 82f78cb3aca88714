//! The sequences of the watched split. Clips are parts of them: the views hold one clip, and time leads from each to the next.

use std::ops::Range;

use super::scores::Place;
use crate::data::Dataset;

/// A sequence as its clips cover it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence<'a> {
    /// Its name.
    pub name: &'a str,
    /// Numbers of its clips.
    pub clips: Range<usize>,
    /// Numbers of its frames, from the first of its first clip to the last of its last one.
    pub frames: Range<usize>,
    /// By how much the numbers grow from one frame to the next.
    pub step: usize,
}

impl Sequence<'_> {
    /// How many frames it has, gaps included.
    pub fn count(&self) -> usize {
        self.frames.len().div_ceil(self.step)
    }
}

/// All sequences that have clips.
pub fn all(set: &Dataset) -> Vec<Sequence<'_>> {
    let mut found: Vec<Sequence<'_>> = Vec::new();
    for (clip, (name, first)) in (0..set.len()).map_while(|clip| Some((clip, set.origin(clip)?))) {
        let end = end(set, clip, first);
        match found.last_mut() {
            Some(last) if last.name == name => {
                last.clips.end = clip + 1;
                last.frames.end = end;
            }
            _ => {
                let step = set.frame_step(clip).unwrap_or(1) / set.options().stride;
                found.push(Sequence { name, clips: clip..clip + 1, frames: first..end, step: step.max(1) });
            }
        }
    }
    found
}

/// The number after the last frame of `clip`, which begins at `first`.
pub fn end(set: &Dataset, clip: usize, first: usize) -> usize {
    first + (set.frames_per_clip() - 1) * set.frame_step(clip).unwrap_or(1) + 1
}

/// The sequence of `clip`.
pub fn of(set: &Dataset, clip: usize) -> Option<Sequence<'_>> {
    all(set).into_iter().find(|sequence| sequence.clips.contains(&clip))
}

/// The clip of `sequence` whose middle is nearest to `frame`.
pub fn around(set: &Dataset, sequence: &Sequence<'_>, frame: usize) -> usize {
    let apart = set.frame_step(sequence.clips.start).unwrap_or(1);
    let first = frame.saturating_sub(set.frames_per_clip() / 2 * apart);
    let distance = |clip: &usize| set.origin(*clip).map_or(usize::MAX, |(_, start)| start.abs_diff(first));
    sequence.clips.clone().min_by_key(distance).unwrap_or(sequence.clips.start)
}

/// Where `by` frames on or back from frame `t` of `clip` lead: within the sequence, and to its ends at most.
pub fn step(set: &Dataset, clip: usize, t: usize, by: isize) -> Option<Place> {
    let sequence = of(set, clip)?;
    let first = |clip: usize| set.origin(clip).map(|(_, first)| first);
    let (most, apart) = (set.frames_per_clip() - 1, set.frame_step(clip)?);
    let at = first(clip)? + t * apart;
    let by_number = by.saturating_mul(isize::try_from(apart).unwrap_or(isize::MAX));
    let target = at.saturating_add_signed(by_number).clamp(sequence.frames.start, sequence.frames.end - 1);
    // On the way forward the next clip begins with the frame, on the way back the one before ends with it. Where frames are
    // left out, only some of the clips have it.
    let nearest = |has: &dyn Fn(usize) -> bool| {
        let mut clips = sequence.clips.clone();
        let leads = |clip: &usize| {
            first(*clip).is_some_and(|first| {
                has(first) && if by > 0 { first <= target } else { first + most * apart >= target }
            })
        };
        if by > 0 { clips.rfind(leads) } else { clips.find(leads) }
    };
    let clip = nearest(&|first| first.abs_diff(target) % apart == 0).or_else(|| nearest(&|_| true))?;
    Some(Place { clip, frame: (target.saturating_sub(first(clip)?) / apart).min(most) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::synth::{self, Level, SynthOptions};
    use crate::data::{DatasetOptions, Split};

    #[test]
    fn time_leads_through_whole_sequences_and_not_beyond() {
        let town = tempfile::tempdir().unwrap();
        let grid = synth::grid([8, 8, 4], [1.6, 1.6, 0.75]).unwrap();
        let levels = vec![Level::Light, Level::Medium];
        let options = SynthOptions { grid, frames: 8, towns: [0, 1, 0], levels, ..Default::default() };
        synth::write(town.path(), &options, |_| {}).unwrap();
        let set = Dataset::open(town.path(), Split::Val, DatasetOptions::default()).unwrap();
        let found = all(&set);
        assert_eq!(
            found.iter().map(|s| (s.clips.clone(), s.frames.clone())).collect::<Vec<_>>(),
            [(0..5, 0..8), (5..10, 0..8)]
        );
        assert_eq!(of(&set, 7).as_ref(), Some(&found[1]));
        let place = |clip, frame| Some(Place { clip, frame });
        assert_eq!(step(&set, 5, 3, 1), place(9, 0));
        assert_eq!(step(&set, 9, 0, -1), place(5, 3));
        assert_eq!(step(&set, 5, 3, 10), place(9, 3), "it ends with its sequence");
        assert_eq!(step(&set, 7, 0, -10), place(5, 0));
        let strided = DatasetOptions { frames_per_clip: 3, stride: 2, ..Default::default() };
        let every_other = Dataset::open(town.path(), Split::Val, strided).unwrap();
        let second = &all(&every_other)[1];
        assert_eq!((second.clips.clone(), second.frames.clone(), second.count()), (4..8, 0..8, 8));
        assert_eq!(step(&every_other, 4, 2, 1), place(6, 2), "from frame 4 to 6, which only the clip from 2 ends with");
        assert_eq!(step(&every_other, 7, 0, -1), place(5, 0), "from frame 3 to 1");
        assert_eq!([0, 4, 7].map(|frame| around(&set, &found[1], frame)), [5, 7, 9]);
    }
}
