//! What several test programs need.

use std::path::{Path, PathBuf};

use sep4d::data::synth::{self, Level, SynthOptions};

/// A small town in `parent`: 16x16x4 voxels, 6 frames each to train, validate and test on.
pub fn town(parent: &Path) -> PathBuf {
    let grid = synth::grid([16, 16, 4], [1.6, 1.6, 0.75]).expect("the grid is even");
    let options = SynthOptions { grid, seed: 3, frames: 6, towns: [1, 1, 1], levels: vec![Level::Light] };
    let out = parent.join("town");
    synth::write(&out, &options, |_| {}).expect("the town can be written");
    out
}
