//! What became of every voxel: correct, missed, invented or of the wrong class.

use super::geometry::ClassMask;
use super::palette::Palette;
use super::theme::{Rgb, Theme};
use crate::{Error, Result};

/// What a reconstruction made of one voxel of the original.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum VoxelOutcome {
    /// Free in both.
    Free = 0,
    /// Occupied in both, same class.
    Correct = 1,
    /// Occupied in the original only.
    Missed = 2,
    /// Occupied in the reconstruction only.
    Invented = 3,
    /// Occupied in both, another class.
    WrongClass = 4,
    /// Occupied in either, but never seen by the sensor: not judged.
    Unobserved = 5,
}

impl VoxelOutcome {
    /// The outcomes that are judged, in the order of the legend.
    pub const JUDGED: [VoxelOutcome; 4] =
        [VoxelOutcome::Correct, VoxelOutcome::Missed, VoxelOutcome::Invented, VoxelOutcome::WrongClass];

    /// The outcome of one voxel; class 0 is free.
    pub fn of(original: u8, reconstruction: u8, observed: bool) -> VoxelOutcome {
        match (original, reconstruction) {
            (0, 0) => VoxelOutcome::Free,
            _ if !observed => VoxelOutcome::Unobserved,
            (_, 0) => VoxelOutcome::Missed,
            (0, _) => VoxelOutcome::Invented,
            (a, b) if a == b => VoxelOutcome::Correct,
            _ => VoxelOutcome::WrongClass,
        }
    }

    /// The name in legends.
    pub fn name(self) -> &'static str {
        match self {
            VoxelOutcome::Free => "Free",
            VoxelOutcome::Correct => "Correct",
            VoxelOutcome::Missed => "Missed",
            VoxelOutcome::Invented => "Invented",
            VoxelOutcome::WrongClass => "Wrong class",
            VoxelOutcome::Unobserved => "Unobserved",
        }
    }

    /// The colour in `theme`; [`VoxelOutcome::Free`] is never drawn and has the page's.
    pub fn color(self, theme: Theme) -> Rgb {
        let colors = theme.colors();
        match self {
            VoxelOutcome::Free => colors.page,
            VoxelOutcome::Correct => colors.correct,
            VoxelOutcome::Missed => colors.missed,
            VoxelOutcome::Invented => colors.invented,
            VoxelOutcome::WrongClass => colors.wrong_class,
            VoxelOutcome::Unobserved => colors.unobserved,
        }
    }

    /// The palette under which a grid of outcomes is drawn.
    pub fn palette(theme: Theme) -> Palette {
        let mut palette = Palette::default();
        for outcome in VoxelOutcome::JUDGED.into_iter().chain([VoxelOutcome::Unobserved]) {
            palette.colors[outcome as usize] = outcome.color(theme);
        }
        for faint in [VoxelOutcome::Correct, VoxelOutcome::Unobserved] {
            palette.relief[faint as usize] = 0.45;
        }
        palette
    }
}

/// How many voxels had each outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ErrorCounts {
    counts: [u64; 6],
}

impl ErrorCounts {
    /// Voxels with this outcome.
    pub fn get(&self, outcome: VoxelOutcome) -> u64 {
        self.counts[outcome as usize]
    }

    /// Adds the counts of another frame.
    pub fn add(&mut self, other: &ErrorCounts) {
        for (sum, n) in self.counts.iter_mut().zip(other.counts) {
            *sum += n;
        }
    }

    /// Voxels judged and occupied in the original or the reconstruction.
    pub fn judged(&self) -> u64 {
        VoxelOutcome::JUDGED.iter().map(|&o| self.get(o)).sum()
    }

    /// Share of `outcome` among the judged voxels, 0..1; `None` when there are none.
    pub fn share(&self, outcome: VoxelOutcome) -> Option<f64> {
        (self.judged() > 0).then(|| self.get(outcome) as f64 / self.judged() as f64)
    }

    /// Intersection over union of occupied voxels, 0..1; `None` when nothing is occupied.
    pub fn occupancy_iou(&self) -> Option<f64> {
        let both = self.get(VoxelOutcome::Correct) + self.get(VoxelOutcome::WrongClass);
        (self.judged() > 0).then(|| both as f64 / self.judged() as f64)
    }
}

/// The outcome of every voxel, as a label grid of [`VoxelOutcome`] ids for the renderer, and their counts.
///
/// # Shapes
/// `original`, `reconstruction` and, where given, `observed` are `[X*Y*Z]` in one order; so is the result.
/// Without `observed` every voxel counts as seen.
///
/// # Errors
/// [`Error::Shape`] if the lengths differ.
pub fn outcomes(original: &[u8], reconstruction: &[u8], observed: Option<&[bool]>) -> Result<(Vec<u8>, ErrorCounts)> {
    let n = original.len();
    let observed_len = observed.map_or(n, <[bool]>::len);
    if reconstruction.len() != n || observed_len != n {
        return Err(Error::Shape(format!(
            "cannot compare grids of different sizes: the original has {n} voxels, the reconstruction {}, \
             the observed mask {observed_len}",
            reconstruction.len()
        )));
    }
    let mut counts = ErrorCounts::default();
    let labels = (0..n)
        .map(|i| {
            let outcome = VoxelOutcome::of(original[i], reconstruction[i], observed.is_none_or(|o| o[i]));
            counts.counts[outcome as usize] += 1;
            outcome as u8
        })
        .collect();
    Ok((labels, counts))
}

/// The outcomes `[X*Y*Z]` of voxels whose original or reconstructed class is among `classes`; the others are free.
pub fn visible_outcomes(
    original: &[u8],
    reconstruction: &[u8],
    observed: Option<&[bool]>,
    classes: &ClassMask,
) -> Vec<u8> {
    let outcome = |(i, (&original, &reconstruction)): (usize, (&u8, &u8))| {
        let shows = classes.contains(original) || classes.contains(reconstruction);
        let observed = observed.is_none_or(|observed| observed[i]);
        if shows { VoxelOutcome::of(original, reconstruction, observed) as u8 } else { VoxelOutcome::Free as u8 }
    };
    original.iter().zip(reconstruction).enumerate().map(outcome).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_labels_has_its_outcome() {
        let original = [0, 3, 3, 0, 3, 3, 0];
        let reconstruction = [0, 3, 0, 3, 4, 0, 3];
        let observed = [true, true, true, true, true, false, false];
        let (labels, counts) = outcomes(&original, &reconstruction, Some(&observed)).unwrap();
        assert_eq!(labels, [0, 1, 2, 3, 4, 5, 5]);
        assert_eq!(counts.get(VoxelOutcome::Unobserved), 2);
        assert_eq!(counts.judged(), 4);
        assert_eq!(counts.share(VoxelOutcome::Missed), Some(0.25));
        assert_eq!(counts.occupancy_iou(), Some(0.5));
        let (_, all_seen) = outcomes(&original, &reconstruction, None).unwrap();
        assert_eq!(all_seen.get(VoxelOutcome::Unobserved), 0);
        assert_eq!(all_seen.judged(), 6);
    }

    #[test]
    fn hidden_classes_take_their_errors_along() {
        let mut classes = ClassMask::none();
        classes.set(3, true);
        let outcomes = visible_outcomes(&[3, 4, 4, 0, 0], &[3, 3, 4, 3, 4], None, &classes);
        assert_eq!(outcomes, [1, 4, 0, 3, 0]);
    }

    #[test]
    fn nothing_occupied_has_no_share() {
        let (_, counts) = outcomes(&[0, 0], &[0, 0], None).unwrap();
        assert_eq!((counts.share(VoxelOutcome::Correct), counts.occupancy_iou()), (None, None));
    }

    #[test]
    fn different_lengths_are_refused() {
        assert!(matches!(outcomes(&[0; 3], &[0; 2], None), Err(Error::Shape(_))));
        assert!(matches!(outcomes(&[0; 3], &[0; 3], Some(&[true; 2])), Err(Error::Shape(_))));
    }

    #[test]
    fn outcomes_differ_in_lightness_too() {
        for theme in [Theme::Light, Theme::Dark] {
            let grey = |o: VoxelOutcome| {
                let [r, g, b] = o.color(theme).map(f32::from);
                0.299 * r + 0.587 * g + 0.114 * b
            };
            let errors = [VoxelOutcome::Missed, VoxelOutcome::Invented, VoxelOutcome::WrongClass].map(grey);
            for (i, a) in errors.iter().enumerate() {
                for b in &errors[..i] {
                    assert!((a - b).abs() > 15.0, "{theme:?}: {errors:?}");
                }
            }
        }
    }
}
