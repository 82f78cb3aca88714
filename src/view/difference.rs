//! Which of two models is right, voxel by voxel.

use super::geometry::ClassMask;
use super::palette::Palette;
use super::theme::{Rgb, Theme};

/// Which of two reconstructions gives a voxel its true class, free space included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Verdict {
    /// Free in all three, or never seen by the sensor: not judged.
    None = 0,
    /// Both.
    Both = 1,
    /// The first alone.
    First = 2,
    /// The second alone.
    Second = 3,
    /// Neither.
    Neither = 4,
}

impl Verdict {
    /// Those that are judged, in the order of the legend.
    pub const JUDGED: [Verdict; 4] = [Verdict::Both, Verdict::First, Verdict::Second, Verdict::Neither];

    /// That on one voxel; class 0 is free.
    pub fn of(original: u8, [first, second]: [u8; 2], observed: bool) -> Verdict {
        match (first == original, second == original) {
            _ if !observed || [original, first, second] == [0; 3] => Verdict::None,
            (true, true) => Verdict::Both,
            (true, false) => Verdict::First,
            (false, true) => Verdict::Second,
            (false, false) => Verdict::Neither,
        }
    }

    /// The colour in `theme`; blue and orange are told apart by everybody.
    pub fn color(self, theme: Theme) -> Rgb {
        match self {
            Verdict::None => theme.colors().page,
            Verdict::Both => theme.colors().correct,
            Verdict::First => [0, 114, 178],
            Verdict::Second => [230, 159, 0],
            Verdict::Neither => [204, 121, 167],
        }
    }

    /// The palette under which a grid of verdicts is drawn.
    pub fn palette(theme: Theme) -> Palette {
        let mut palette = Palette::default();
        Verdict::JUDGED.into_iter().for_each(|verdict| palette.colors[verdict as usize] = verdict.color(theme));
        palette.relief[Verdict::Both as usize] = 0.45;
        palette
    }
}

/// The verdict on every voxel `[X*Y*Z]` of which one of the three classes is among `classes`; the others are not judged.
pub fn verdicts(original: &[u8], [first, second]: [&[u8]; 2], observed: &[bool], classes: &ClassMask) -> Vec<u8> {
    let labels = original.iter().zip(first.iter().zip(second)).zip(observed);
    let verdict = |((&original, (&first, &second)), &observed): ((&u8, (&u8, &u8)), &bool)| {
        let shows = [original, first, second].into_iter().any(|class| classes.contains(class));
        if shows { Verdict::of(original, [first, second], observed) as u8 } else { Verdict::None as u8 }
    };
    labels.map(verdict).collect()
}

/// How many voxels of `verdicts` have each of [`Verdict::JUDGED`].
pub fn count(verdicts: &[u8]) -> [u64; 4] {
    let mut counts = [0; 5];
    verdicts.iter().for_each(|&verdict| counts[usize::from(verdict).min(4)] += 1);
    [counts[1], counts[2], counts[3], counts[4]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_its_verdict() {
        let original = [0, 0, 3, 3, 3, 3, 0, 3];
        let first = [0, 3, 3, 3, 0, 4, 0, 3];
        let second = [0, 0, 3, 0, 3, 5, 5, 0];
        let observed = [true, true, true, true, true, true, true, false];
        let found = verdicts(&original, [&first, &second], &observed, &ClassMask::all());
        assert_eq!(found, [0, 3, 1, 2, 3, 4, 2, 0]);
        assert_eq!(count(&found), [1, 2, 2, 1]);
        // A hidden class takes its voxels along, unless a visible one stands there too.
        let mut classes = ClassMask::none();
        classes.set(5, true);
        assert_eq!(verdicts(&original, [&first, &second], &observed, &classes), [0, 0, 0, 0, 0, 4, 2, 0]);
    }
}
