//! What the tests of the window share.

use sep4d::app::App;
use sep4d::app::shown::Shown;
use sep4d::app::state::Page;
use sep4d::data::formats::carla_sc::CARLA_SC;
use sep4d::data::{Grid, synth};
use sep4d::train::events::{Likely, ReconstructedClip};
use sep4d::train::metrics::Confusion;

/// Voxels of the example's grid.
pub const GRID: [usize; 3] = [64, 64, 8];

/// Shows a generated clip beside a reconstruction with made-up errors: the same at every call.
pub fn open_example(app: &mut App) {
    let grid = synth::grid(GRID, [0.4, 0.4, 0.375]).unwrap();
    app.state.shown = Some(Shown::of_model(1, reconstructed(&grid), grid, CARLA_SC.clone()).unwrap());
    app.state.page = Page::Workspace;
}

fn reconstructed(grid: &Grid) -> ReconstructedClip {
    let clip = synth::clip(grid, 3, 4);
    let truth: Vec<u8> = clip.frames.iter().flat_map(|frame| frame.labels.iter().copied()).collect();
    let observed: Vec<bool> = clip.frames.iter().flat_map(|frame| frame.observed.iter().copied()).collect();
    let labels: Vec<u8> = truth.iter().enumerate().map(|(i, &label)| mistake(i, label)).collect();
    let voxels = grid.voxels();
    let confusion: Vec<Confusion> = (0..clip.frames.len())
        .map(|t| {
            let mut counts = vec![0; CARLA_SC.len() * CARLA_SC.len()];
            for at in (t * voxels..(t + 1) * voxels).filter(|&at| observed[at]) {
                counts[usize::from(truth[at]) * CARLA_SC.len() + usize::from(labels[at])] += 1;
            }
            let mut confusion = Confusion::new(CARLA_SC.len());
            confusion.add(&counts);
            confusion
        })
        .collect();
    ReconstructedClip {
        step: 1240,
        clip: 0,
        sequence: clip.sequence,
        first_frame: 12,
        frame_step: 1,
        frames: clip.frames.len(),
        size: grid.size,
        likely: labels.iter().enumerate().map(|(i, &label)| likely(i, label)).collect(),
        labels,
        truth,
        observed,
        scores: confusion.iter().map(Confusion::scores).collect(),
        confusion,
        latents: Vec::new(),
        times_secs: clip.times_secs,
        poses: clip.poses,
        seconds: 0.1,
    }
}

/// A number that looks random but is not.
fn hash(i: usize) -> usize {
    (i.wrapping_mul(2_654_435_761) >> 7) % 1000
}

fn mistake(i: usize, label: u8) -> u8 {
    match (label, hash(i)) {
        (0, 0..2) => 6,
        (0, _) => 0,
        (_, 0..30) => 0,
        (_, 30..70) => 1 + (hash(i + 1) % 10) as u8,
        _ => label,
    }
}

fn likely(i: usize, label: u8) -> Likely {
    let sure = 600 + (hash(i + 2) % 400) as u32;
    let others = [(label + 1) % 11, (label + 2) % 11].map(u32::from);
    let entropy = 255 - (sure * 255 / 1023);
    let second = (1023 - sure) * 2 / 3;
    Likely([
        u32::from(label) | others[0] << 8 | others[1] << 16 | entropy << 24,
        sure | second << 10 | (1023 - sure - second) << 20,
    ])
}
