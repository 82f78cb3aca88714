//! Two clips' latents mixed and decoded while the user looks on.
//!
//! At most one order of each kind is under way: what is wanted next goes out when the answer has come.

use std::sync::Arc;

use super::engine::Phase;
use super::state::State;
use crate::models::LatentKind;
use crate::train::events::{Command, DecodeRequest, DecodedClip, Likely, ReconstructedClip};
use crate::train::inference::Latent;

/// What a mixed latent means, in the place of the reconstruction.
#[derive(Debug, Clone, PartialEq)]
pub struct Mixed {
    /// Tells one mix from the next.
    pub version: u64,
    /// The clip in whose place it is shown.
    pub clip: usize,
    /// Classes according to the model, `[T, X, Y, Z]`.
    pub labels: Vec<u8>,
    /// What the model makes of each voxel.
    pub likely: Vec<Likely>,
    /// Seconds that decoding took.
    pub seconds: f64,
}

/// What a decoded latent was made from.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Recipe {
    shown: u64,
    clip: usize,
    other: usize,
    other_step: u32,
    spatial: f32,
    temporal: f32,
}

/// The other clip's part.
#[derive(Debug, Clone)]
struct Other {
    clip: usize,
    step: u32,
    latents: Vec<Latent>,
}

/// The mix that is wanted, and what is on its way to it. Clip A is the one in view.
#[derive(Debug, Default)]
pub struct Mix {
    /// Whether the mix is shown.
    pub on: bool,
    /// Clip B.
    pub other: Option<usize>,
    /// Somebody looks at the panel; said anew in each frame.
    pub is_watched: bool,
    /// How much of B the latents have that do not change in time, 0..1.
    pub spatial: f32,
    /// How much of B those have that do, 0..1.
    pub temporal: f32,
    loaded: Option<Other>,
    asked: Option<usize>,
    last: Option<Recipe>,
    last_id: u64,
    waiting: bool,
}

/// `(1 - w) A + w B` of what is decoded of each latent, `w` being `spatial` or `temporal`, and of codes, between which there is
/// nothing, a part `w` from B and the others from A; exactly A or B at the ends. `None` if they differ in extent.
pub fn interpolate(a: &[Latent], b: &[Latent], spatial: f32, temporal: f32) -> Option<Vec<Vec<f32>>> {
    let fits = a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.shape == b.shape && a.mu.len() == b.mu.len());
    let mixed = |(a, b): (&Latent, &Latent)| {
        let w = if a.spec.is_temporal() { temporal } else { spatial };
        let part_of_b = |i: usize| match a.spec.kind {
            LatentKind::Code { .. } => f32::from(u8::from(turn(i) < f64::from(w))),
            LatentKind::Gaussian | LatentKind::Plain => w,
            // Half of two motions is none: the clip in view keeps its own.
            LatentKind::Motion => 0.0,
        };
        let values = a.mu.iter().zip(&b.mu).enumerate();
        values.map(|(i, (a, b))| (1.0 - part_of_b(i)) * a + part_of_b(i) * b).collect()
    };
    fits.then(|| a.iter().zip(b).map(mixed).collect())
}

/// When the i-th code becomes that of B, 0..1: multiples of the golden ratio, which spread evenly over time and cells.
fn turn(i: usize) -> f64 {
    (i as f64 * 0.618_033_988_749_895).fract()
}

impl Mix {
    /// Whether something is still on its way.
    pub fn is_waiting(&self) -> bool {
        self.on && (self.waiting || self.asked.is_some())
    }

    /// Whether B's latents are still to come.
    pub fn wants_other(&self) -> bool {
        self.on && self.loaded.as_ref().is_none_or(|other| Some(other.clip) != self.other)
    }

    /// Shows clip A's own reconstruction again.
    pub fn clear(&mut self, state: &mut State) {
        self.on = false;
        self.last = None;
        [self.spatial, self.temporal] = [0.0; 2];
        state.mixed = None;
    }

    /// Another model is at work: what the last one was asked will never be answered.
    pub fn forget(&mut self, state: &mut State) {
        let Mix { on, other, spatial, temporal, last_id, .. } = *self;
        *self = Mix { on, other, spatial, temporal, last_id, ..Mix::default() };
        state.mixed = None;
    }

    /// Takes in a reconstruction, if it is clip B's.
    pub fn offer(&mut self, clip: &ReconstructedClip) {
        if self.asked == Some(clip.clip) {
            self.asked = None;
        }
        if self.other == Some(clip.clip) {
            self.loaded = Some(Other { clip: clip.clip, step: clip.step, latents: clip.latents.clone() });
        }
    }

    /// Takes in a decoded latent.
    pub fn decoded(&mut self, clip: DecodedClip, state: &mut State) {
        if clip.id != self.last_id {
            return;
        }
        self.waiting = false;
        if let Some(recipe) = self.last
            && self.on
        {
            let DecodedClip { id, labels, likely, seconds, .. } = clip;
            state.mixed = Some(Mixed { version: id, clip: recipe.clip, labels, likely, seconds });
        }
    }

    /// Orders what is missing for the mix that is wanted; to be called once a frame.
    pub fn keep_up(&mut self, state: &mut State) {
        let shown = state.shown.as_ref().and_then(|shown| Some((shown, shown.model.as_ref()?)));
        let (Some((shown, model)), Some(other), true) = (shown, self.other, self.on) else {
            state.mixed = None;
            return;
        };
        if state.mixed.as_ref().is_some_and(|mixed| mixed.clip != shown.clip) || other == shown.clip {
            state.mixed = None;
        }
        // B's latents cost a run as much as A's, so while nobody looks the mix stays what it is.
        let is_watched = std::mem::take(&mut self.is_watched);
        let rests = matches!(state.engine.phase, Phase::Training) && !is_watched;
        if other == shown.clip || rests {
            return;
        }
        let fresh = self.loaded.as_ref().filter(|loaded| loaded.clip == other);
        let is_stale = fresh.is_none_or(|loaded| loaded.step != model.step);
        if is_stale && self.asked != Some(other) && state.engine.send(Command::Reconstruct { clip: other }) {
            self.asked = Some(other);
            // What was asked for last is also shown after each validation; that is to be the clip in view again.
            if matches!(state.engine.phase, Phase::Paused) {
                state.engine.send(Command::Reconstruct { clip: shown.clip });
            }
        }
        let Some(loaded) = fresh.filter(|_| !self.waiting) else { return };
        let recipe = Recipe {
            shown: shown.version,
            clip: shown.clip,
            other,
            other_step: loaded.step,
            spatial: self.spatial,
            temporal: self.temporal,
        };
        if self.last == Some(recipe) {
            return;
        }
        let Some(latents) = interpolate(&model.latents, &loaded.latents, self.spatial, self.temporal) else { return };
        let id = self.last_id + 1;
        if state.engine.send(Command::Decode(Arc::new(DecodeRequest { id, latents }))) {
            (self.last_id, self.last, self.waiting) = (id, Some(recipe), true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::panels::sample;
    use super::*;
    use crate::models::LatentSpec;

    fn latents(value: f32) -> Vec<Latent> {
        let latent = |axes| Latent {
            spec: LatentSpec { name: axes, axes, kind: LatentKind::Gaussian },
            shape: vec![1, 1, 2, 1],
            mu: vec![value, 2.0 * value],
            logvar: vec![0.0; 2],
        };
        ["xy", "tz", "yz"].into_iter().map(latent).collect()
    }

    #[test]
    fn space_and_time_are_mixed_apart() {
        let mixed = interpolate(&latents(1.0), &latents(3.0), 0.25, 1.0).unwrap();
        assert_eq!(mixed, [[1.5, 3.0], [3.0, 6.0], [1.5, 3.0]]);
    }

    #[test]
    fn the_ends_are_the_clips_themselves_to_the_bit() {
        let (a, b) = (latents(0.1), latents(0.7));
        let mu = |latents: &[Latent]| latents.iter().map(|latent| latent.mu.clone()).collect::<Vec<_>>();
        assert_eq!(interpolate(&a, &b, 0.0, 0.0).unwrap(), mu(&a));
        assert_eq!(interpolate(&a, &b, 1.0, 1.0).unwrap(), mu(&b));
    }

    #[test]
    fn codes_are_taken_from_one_clip_or_the_other() {
        let codes = |first: u8| Latent {
            spec: LatentSpec { name: "codes", axes: "txy", kind: LatentKind::Code { codes: 256, channels: 8 } },
            shape: vec![1, 1, 10, 10, 1],
            mu: (0..100).map(|i| f32::from(first + i)).collect(),
            logvar: Vec::new(),
        };
        let (a, b) = (codes(0), codes(100));
        for (w, of_b) in [(0.0, 0..=0), (0.3, 28..=32), (1.0, 100..=100)] {
            let mixed = &interpolate(std::slice::from_ref(&a), std::slice::from_ref(&b), 0.5, w).unwrap()[0];
            assert!(mixed.iter().zip(&a.mu).zip(&b.mu).all(|((mixed, a), b)| mixed == a || mixed == b));
            assert!(of_b.contains(&mixed.iter().zip(&b.mu).filter(|(mixed, b)| mixed == b).count()), "{w}");
        }
    }

    #[test]
    fn latents_of_other_extents_are_not_mixed() {
        let mut b = latents(1.0);
        b[1].shape = vec![1, 2, 1, 1];
        assert_eq!(interpolate(&latents(1.0), &b, 0.5, 0.5), None);
        assert_eq!(interpolate(&latents(1.0), &b[..2], 0.5, 0.5), None);
    }

    #[test]
    fn the_mix_leaves_the_views_with_its_clip_and_when_cleared() {
        let mut state = sample::state();
        let mut mix = Mix { on: true, other: Some(5), ..Mix::default() };
        let mixed = Mixed { version: 1, clip: 2, labels: Vec::new(), likely: Vec::new(), seconds: 0.1 };
        state.mixed = Some(mixed.clone());
        mix.keep_up(&mut state);
        assert!(state.mixed.is_some());
        state.shown.as_mut().unwrap().clip = 3;
        mix.keep_up(&mut state);
        assert!(state.mixed.is_none());
        state.mixed = Some(mixed);
        mix.clear(&mut state);
        assert!(state.mixed.is_none() && !mix.on);
    }

    #[test]
    fn answers_to_earlier_orders_are_not_shown() {
        let mut state = sample::state();
        let mut mix = Mix { on: true, other: Some(5), last_id: 4, waiting: true, ..Mix::default() };
        let recipe = Recipe { shown: 1, clip: 2, other: 5, other_step: 0, spatial: 0.0, temporal: 1.0 };
        mix.last = Some(recipe);
        let answer =
            |id| DecodedClip { id, frames: 1, size: [2; 3], labels: vec![1], likely: Vec::new(), seconds: 0.1 };
        mix.decoded(answer(3), &mut state);
        assert!(state.mixed.is_none() && mix.is_waiting());
        mix.decoded(answer(4), &mut state);
        assert_eq!(state.mixed.as_ref().map(|mixed| (mixed.version, mixed.clip)), Some((4, 2)));
        assert!(!mix.is_waiting());
    }
}
