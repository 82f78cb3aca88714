//! What the tests of the reader share: small data sets in CarlaSC's layout.

use std::fs;
use std::path::{Path, PathBuf};

use sep4d::data::DatasetOptions;

/// Of a grid of 4x4x2.
pub const VOXELS: usize = 32;

/// Where the files of a sequence stand.
pub fn inner(root: &Path, split: &str, name: &str) -> PathBuf {
    root.join("Cartesian").join(split).join(name).join("cartesian")
}

/// Writes four bytes a word, little endian.
pub fn write_words(path: &Path, words: impl Iterator<Item = u32>) {
    fs::write(path, words.flat_map(u32::to_le_bytes).collect::<Vec<u8>>()).unwrap();
}

/// A sequence of 4x4x2 frames of these numbers; frame n is all of raw id n % 23, and its first voxel is unobserved. Poses and
/// times have a line for every number from 0 on.
pub fn write_sequence(root: &Path, split: &str, name: &str, frames: impl IntoIterator<Item = u32>) -> PathBuf {
    let frames: Vec<u32> = frames.into_iter().collect();
    let inner = inner(root, split, name);
    let evaluation = inner.join("evaluation");
    fs::create_dir_all(&evaluation).unwrap();
    fs::write(
        evaluation.join("params.json"),
        r#"{"grid_size": [4.0, 4.0, 2.0], "min_bound": [-0.800000011920929, -0.800000011920929, -2.0],
           "max_bound": [0.800000011920929, 0.800000011920929, -1.25], "num_channels": 25, "coordinates": "cartesian"}"#,
    )
    .unwrap();
    let (mut poses, mut times) = (String::new(), String::new());
    for n in 0..=frames.iter().copied().max().unwrap() {
        poses += &format!("1 0 0 {} 0 1 0 0 0 0 1 0\n", f64::from(n) * 0.5);
        times += &format!("{:.3}\n", f64::from(n) * 0.1);
    }
    fs::write(inner.join("poses.txt"), poses).unwrap();
    fs::write(inner.join("times.txt"), times).unwrap();
    for n in frames {
        write_words(&evaluation.join(format!("{n:06}.label")), std::iter::repeat_n(n % 23, VOXELS));
        let rays = |v: usize| if v == 0 { 0.0f32 } else { 3.0 };
        write_words(&evaluation.join(format!("{n:06}.bin")), (0..VOXELS).map(|v| rays(v).to_bits()));
    }
    inner
}

/// Clips of so many frames of the whole grid.
pub fn options(frames_per_clip: usize) -> DatasetOptions {
    DatasetOptions { frames_per_clip, ..Default::default() }
}

/// Expects all of `parts` in a message.
pub fn expect(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}
