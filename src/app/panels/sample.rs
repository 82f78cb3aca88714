//! A made-up clip with what a middling model might make of it.
#![cfg(test)]

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::app::shown::Shown;
use crate::app::state::{Page, State};
use crate::data::{Clip, Grid, synth};
use crate::models::{LatentKind, LatentSpec};
use crate::rng::Rng;
use crate::train::events::{ClipScores, Likely, ReconstructedClip, ValidationMetrics};
use crate::train::inference::Latent;
use crate::train::metrics::{Confusion, Tally};

/// Packs three classes with their probabilities and an entropy of 0..1.
pub fn likely(classes: [u8; 3], probabilities: [f32; 3], entropy: f32) -> Likely {
    let level = |value: f32, most: f32| (value * most).round() as u32;
    let [a, b, c] = classes.map(u32::from);
    let [p, q, r] = probabilities.map(|probability| level(probability, 1023.0));
    Likely([a | b << 8 | c << 16 | level(entropy, 255.0) << 24, p | q << 10 | r << 20])
}

/// The class that a model might see instead of `truth`.
fn mistaken(truth: u8, rng: &mut Rng) -> u8 {
    let alike: &[u8] = match truth {
        0 => &[6, 9, 1],
        4 | 5 => &[0, 0, 3],
        6 => &[8, 7],
        8 => &[6, 6, 7],
        9 => &[0, 1],
        10 => &[3, 0],
        _ => &[0, 3, 9],
    };
    alike[rng.below(alike.len())]
}

type Reconstructed = (ReconstructedClip, Grid);
/// Clips by what they were made of: number, size and frames.
type Made = BTreeMap<(usize, [usize; 3], usize), Reconstructed>;

/// A clip, which is made once for all tests that ask for it.
fn reconstructed(index: usize, size: [usize; 3], frames: usize) -> Reconstructed {
    static MADE: Mutex<Made> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    made.entry((index, size, frames)).or_insert_with(|| make(index, size, frames)).clone()
}

fn make(index: usize, size: [usize; 3], frames: usize) -> Reconstructed {
    let grid = synth::grid(size, [0.8, 0.8, 0.375]).unwrap();
    let Clip { frames: truth, poses, times_secs, .. } = synth::clip(&grid, 3 + index as u64, frames);
    let mut rng = Rng::new(7, index as u64);
    let mut clip = ReconstructedClip {
        step: 1240,
        clip: index,
        sequence: "Town04_Medium".into(),
        first_frame: 12 * index,
        frame_step: 1,
        frames,
        size,
        truth: truth.iter().flat_map(|frame| frame.labels.clone()).collect(),
        observed: truth.iter().flat_map(|frame| frame.observed.clone()).collect(),
        labels: Vec::new(),
        likely: Vec::new(),
        scores: Vec::new(),
        confusion: Vec::new(),
        latents: latents(size, frames, index),
        times_secs,
        poses,
        seconds: 0.2,
    };
    for (t, frame) in truth.iter().enumerate() {
        let mut confusion = Confusion::new(synth::CLASSES.len());
        let chance = 0.08 + 0.25 * (t as f64 - frames as f64 / 2.0).abs() / frames as f64;
        for (&truth, &observed) in frame.labels.iter().zip(&frame.observed) {
            let chance =
                if truth == 0 { 0.01 * chance } else { chance * if truth == 4 || truth == 5 { 2.5 } else { 1.0 } };
            let label = if rng.chance(chance) { mistaken(truth, &mut rng) } else { truth };
            let p = if label == truth { rng.uniform(0.7, 0.99) } else { rng.uniform(0.4, 0.6) } as f32;
            let second = if label == truth { mistaken(truth, &mut rng) } else { truth };
            let third = (0..11u8).find(|class| *class != label && *class != second).unwrap();
            let q = (1.0 - p) * 0.8;
            clip.labels.push(label);
            clip.likely.push(likely([label, second, third], [p, q, (1.0 - p) * 0.15], (1.0 - p) * 0.9));
            if observed {
                confusion.count_one(truth, label);
            }
        }
        clip.scores.push(confusion.scores());
        clip.confusion.push(confusion);
    }
    (clip, grid)
}

fn latents([x, y, z]: [usize; 3], frames: usize, index: usize) -> Vec<Latent> {
    let extents = [
        ("xy", [x / 2, y / 2]),
        ("xz", [x / 2, z / 2]),
        ("yz", [y / 2, z / 2]),
        ("tx", [frames, x / 2]),
        ("ty", [frames, y / 2]),
        ("tz", [frames, z / 2]),
    ];
    let channels = 6;
    let latent = |(i, (axes, [first, second])): (usize, (&'static str, [usize; 2]))| {
        let (mut mu, mut logvar) = (Vec::new(), Vec::new());
        for a in 0..first {
            for b in 0..second {
                for c in 0..channels {
                    let (u, v) = (a as f32 / first as f32, b as f32 / second as f32);
                    let wave =
                        (7.0 * u * (1.0 + c as f32 * 0.4) + i as f32 + index as f32).sin() * (9.0 * v + c as f32).cos();
                    mu.push(1.6 * wave);
                    logvar.push(-1.5 - 2.0 * wave.abs());
                }
            }
        }
        let spec = LatentSpec { name: axes, axes, kind: LatentKind::Gaussian };
        Latent { spec, shape: vec![1, first, second, channels], mu, logvar }
    };
    extents.into_iter().enumerate().map(latent).collect()
}

/// The clips that a validation scored, those of a tiny grid.
fn validation(step: u32, clips: usize) -> ValidationMetrics {
    let mut tally = Tally::new(synth::CLASSES.len(), 6);
    for index in 0..clips {
        let (clip, _) = reconstructed(3 * index, [16, 16, 8], 6);
        let counts: Vec<u64> = clip.confusion.iter().flat_map(|frame| frame.counts().to_vec()).collect();
        tally.add_clip(3 * index, &counts);
    }
    let clips: Vec<ClipScores> = tally.clips().to_vec();
    let (evaluation, confusion) = (tally.evaluation(), tally.total().clone());
    ValidationMetrics { step, seconds: 1.0, is_best: true, evaluation, confusion, clips }
}

/// Clip 2 in view with a model, a validation of five others, and a history of six validations.
pub fn state() -> State {
    of_size([32, 32, 8], 6)
}

/// [`state`] with a grid of `size` and `frames` frames.
pub fn of_size(size: [usize; 3], frames: usize) -> State {
    let (clip, grid) = reconstructed(2, size, frames);
    let shown = Shown::of_model(1, clip, grid, synth::CLASSES.clone()).unwrap();
    let last = validation(1200, 5);
    let mut state = State { page: Page::Workspace, shown: Some(shown), wanted_clip: 2, ..State::default() };
    for part in 1..=6u32 {
        let mut earlier = last.clone();
        earlier.step = 200 * part;
        for iou in earlier.evaluation.total.per_class.iter_mut().flatten() {
            *iou *= 1.0 - (-f64::from(part) / 2.0).exp();
        }
        state.history.validation(earlier);
    }
    state.validation = Some(last);
    state.playback.frame = 2;
    state
}
