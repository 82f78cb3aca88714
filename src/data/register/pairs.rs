//! Pairs of frames: which motion, and how far it is to be trusted.

use rayon::prelude::*;

use super::coarse::Table;
use super::field::{Channels, Field};
use super::fine::{Fit, Template};
use super::motion::Motion;

/// How many frames apart the pairs of a sequence are. The longer ones limit what small errors add up to.
pub(super) const SPANS: [usize; 3] = [1, 2, 4];
/// Frames before the present one that are needed at once.
pub(super) const LONGEST: usize = SPANS[SPANS.len() - 1];

/// Places of the coarse search from which the fine one sets out.
const STARTS: usize = 4;
/// Motions that differ by more than so many voxels and so many radians are not the same.
const APART: f64 = 1.5;
const TURNED: f64 = 0.045;
/// The shift to each side that must cost more, voxels.
const AROUND: f64 = 1.5;
/// With fewer telling points nothing can be said.
const LEAST_SAMPLES: usize = 60;
/// The least overlap.
const LEAST_OVERLAP: f64 = 0.25;
/// No misfit counts as smaller than this.
const LEAST_MISFIT: f64 = 0.02;
/// By how much of its misfit the best motion must be better than any other.
const LEAST_CONTRAST: f64 = 0.15;
/// The most that the shift may be uncertain by, voxels, and the turn, radians.
const LOOSEST: f64 = 0.5;
const LOOSEST_TURN: f64 = 0.02;

/// Why a motion is not to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flag {
    /// There is hardly anything that stands still and has a shape.
    Featureless,
    /// The frames have too little in common.
    Apart,
    /// Along some direction, or in its turn, the motion is not told by what is there.
    Loose,
    /// Another motion explains the frames about as well.
    Ambiguous,
    /// It contradicts motions over several frames, or no vehicle changes its speed so much.
    Contradicted,
}

impl Flag {
    /// What it means, in a few words.
    pub fn text(self) -> &'static str {
        match self {
            Flag::Featureless => "too little stands still",
            Flag::Apart => "too little in common",
            Flag::Loose => "not told in some direction",
            Flag::Ambiguous => "another motion fits as well",
            Flag::Contradicted => "contradicted by other frames",
        }
    }
}

/// The motion from one frame to another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edge {
    /// The place of the earlier frame, and of the later one.
    pub frames: [usize; 2],
    pub fit: Fit,
    /// By how much of its misfit it is better than any other motion.
    pub contrast: f64,
    pub flag: Option<Flag>,
}

/// The frames of a part of a sequence, and the pairs within it.
pub(super) struct Window<'a> {
    pub channels: &'a Channels,
    /// The place of the first field in the sequence.
    pub first: usize,
    pub fields: &'a [Field],
}

impl Window<'_> {
    /// The edges that lead to the frames from place `from` on, by their spans; `before` is the motion of the pair before those.
    pub fn edges(&self, from: usize, before: Option<Motion>) -> Vec<Edge> {
        let frames: Vec<usize> = (from.max(self.first + 1)..self.first + self.fields.len()).collect();
        let searched: Vec<Vec<Fit>> = frames.par_iter().map(|&later| self.search(later)).collect();
        let best: Vec<Motion> = searched.iter().filter_map(|fits| best(fits)).map(|fit| fit.motion).collect();
        // What a pair's neighbours do is a good guess where the search went astray.
        let pairs: Vec<Edge> = (frames.par_iter().zip(searched).enumerate())
            .map(|(i, (&later, mut fits))| {
                let template = self.template(later);
                let earlier = self.field(later - 1);
                let last = if i == 0 { before } else { best.get(i - 1).copied() };
                let guesses = last.into_iter().chain(best.get(i + 1).copied());
                fits.extend(guesses.map(|guess| template.fit(earlier, guess)));
                self.judged([later - 1, later], &template, &fits)
            })
            .collect();
        let longer = |&later: &usize| -> Vec<Edge> {
            let template = self.template(later);
            let spans = SPANS.iter().skip(1).filter(|&&span| later >= self.first + span && later - span + 1 >= from);
            let edge = |&span: &usize| {
                let chain = pairs.get(later - span + 1 - frames[0]..=later - frames[0])?;
                let start = chain.iter().fold(Motion::default(), |sum, pair| sum.after(pair.fit.motion));
                let fit = template.fit(self.field(later - span), start);
                Some(self.judged([later - span, later], &template, &[fit]))
            };
            spans.filter_map(edge).collect()
        };
        let longer: Vec<Vec<Edge>> = frames.par_iter().map(longer).collect();
        pairs.iter().copied().chain(longer.into_iter().flatten()).collect()
    }

    fn field(&self, place: usize) -> &Field {
        &self.fields[place - self.first]
    }

    fn template(&self, place: usize) -> Template<'_> {
        Template::new(self.field(place), self.channels)
    }

    /// The motions from which the pair that ends with this frame may have come.
    fn search(&self, later: usize) -> Vec<Fit> {
        let (earlier, template) = (self.field(later - 1), self.template(later));
        let starts = Table::new(earlier, self.channels).candidates(self.field(later), STARTS);
        starts.into_iter().chain([Motion::default()]).map(|start| template.fit(earlier, start)).collect()
    }

    /// The best of some fits, and what is wrong with it.
    fn judged(&self, frames: [usize; 2], template: &Template, fits: &[Fit]) -> Edge {
        let (earlier, later) = (self.field(frames[0]), self.field(frames[1]));
        let fit = best(fits).copied().unwrap_or_else(|| template.fit(earlier, Motion::default()));
        let voxel = later.grid.voxel_size_m[0].max(later.grid.voxel_size_m[1]);
        let is_other = |other: &&Fit| differ(fit.motion, other.motion, APART * voxel, TURNED);
        let others = fits.iter().filter(is_other).filter(|other| other.overlap > LEAST_OVERLAP).map(Fit::misfit);
        let around = (0..8).map(|k| {
            let (s, c) = (f64::from(k) * std::f64::consts::FRAC_PI_4).sin_cos();
            let beside = Motion { shift_m: [AROUND * voxel * c, AROUND * voxel * s, 0.0], yaw: 0.0 };
            template.misfit(earlier, fit.motion.after(beside))
        });
        let next = others.chain(around).fold(f64::INFINITY, f64::min);
        let contrast = (next - fit.misfit()) / fit.misfit().max(LEAST_MISFIT);
        let (shift, turn) = fit.deviation();
        let flag = if later.samples.len().min(earlier.samples.len()) < LEAST_SAMPLES {
            Some(Flag::Featureless)
        } else if fit.overlap < LEAST_OVERLAP {
            Some(Flag::Apart)
        } else if shift > LOOSEST * voxel || turn > LOOSEST_TURN {
            Some(Flag::Loose)
        } else if contrast < LEAST_CONTRAST {
            Some(Flag::Ambiguous)
        } else {
            None
        };
        Edge { frames, fit, contrast, flag }
    }
}

fn best(fits: &[Fit]) -> Option<&Fit> {
    fits.iter().min_by(|a, b| a.cost.total_cmp(&b.cost))
}

/// Whether two motions differ by more than so many metres in the plane or so many radians.
pub(super) fn differ(a: Motion, b: Motion, shift_m: f64, turn: f64) -> bool {
    let between = a.inverse().after(b);
    between.length_m() > shift_m || between.yaw.abs() > turn
}
