//! Class frequencies: counted with all cores, kept on disk, and turned into loss weights.

use std::fs;
use std::path::PathBuf;

use rayon::prelude::*;

use super::dataset::Dataset;
use super::record;
use super::{Unobserved, by};
use crate::Result;
use crate::hash::Fingerprint;

/// What the cache file holds.
#[derive(serde::Serialize, serde::Deserialize)]
struct Stored {
    /// Fingerprint of the files that were counted.
    key: String,
    counts: Vec<u64>,
}

/// How much the classes count in the cross entropy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassWeights {
    /// `w_c = (max f / f_c)^(1/3)` of voxel counts f. A class that never occurs is counted as one voxel, and no weight exceeds
    /// 100 (the cube root of 1e6), so all weights are finite.
    CubeRoot,
    /// All alike.
    None,
}

impl ClassWeights {
    /// The weights `[K]` of classes that have so many voxels.
    pub fn of(self, counts: &[u64]) -> Vec<f32> {
        let most = counts.iter().copied().max().unwrap_or(1).max(1) as f64;
        let weight = |&count: &u64| match self {
            ClassWeights::CubeRoot => (most / count.max(1) as f64).cbrt().min(100.0) as f32,
            ClassWeights::None => 1.0,
        };
        counts.iter().map(weight).collect()
    }
}

/// Counts from the cache if nothing has changed since, else from the files.
pub(super) fn cached(dataset: &Dataset) -> Result<Vec<u64>> {
    let key = key(dataset)?;
    let places = record::places(dataset.source.base(), &name(dataset));
    let is_valid = |stored: &Stored| stored.key == key && stored.counts.len() == dataset.classes().len();
    let found = places.iter().filter_map(|place| record::load(place)).find(is_valid);
    if let Some(Stored { counts, .. }) = found {
        return Ok(counts);
    }
    let stored = Stored { key, counts: count(dataset)? };
    // A cache that cannot be written costs time on the next start, nothing else.
    record::store(&places, &stored);
    Ok(stored.counts)
}

fn count(dataset: &Dataset) -> Result<Vec<u64>> {
    let k = dataset.classes().len();
    let frames: Vec<_> = dataset.sequences.iter().flat_map(|s| (0..s.numbers.len()).map(move |i| (s, i))).collect();
    frames
        .par_iter()
        .map(|&(sequence, i)| {
            let mut counts = vec![0u64; k];
            let frame = dataset.frame(sequence, i)?;
            let seen = frame.labels.iter().zip(&frame.observed).filter(|(_, observed)| **observed);
            seen.for_each(|(class, _)| counts[usize::from(*class)] += 1);
            if dataset.options().unobserved == Unobserved::Free {
                counts[0] += frame.observed.iter().filter(|observed| !**observed).count() as u64;
            }
            Ok(counts)
        })
        .try_reduce(|| vec![0; k], |a, b| Ok(a.iter().zip(&b).map(|(a, b)| a + b).collect()))
}

/// The name of the record: several crops and choices of sequences are kept side by side.
fn name(dataset: &Dataset) -> String {
    let mut name = format!("class-counts-{}", dataset.split.folder().to_lowercase());
    if dataset.grid != dataset.file_grid {
        name += &format!("-{}", by(dataset.grid.size));
    }
    if dataset.options().unobserved == Unobserved::Ignore {
        name += "-observed";
    }
    if !dataset.options().sequences.is_empty() {
        let names: String = dataset.sequences.iter().map(|sequence| format!("{}\n", sequence.name)).collect();
        name += &format!("-{}", Fingerprint::of(&names));
    }
    name
}

/// What the counts depend on: path, split, crop, classes, and every file's name, size and time of change.
fn key(dataset: &Dataset) -> Result<String> {
    let base = dataset.source.base();
    let root = fs::canonicalize(base).unwrap_or_else(|_| base.to_path_buf());
    let classes = dataset.classes();
    let start = format!("{}\n{:?}\n{:?}\n{classes:?}\n", root.display(), dataset.split, dataset.grid);
    let labels = dataset.sequences.iter().flat_map(|s| &s.labels);
    let masks = dataset.sequences.iter().flat_map(|s| &s.masks);
    let files: Vec<&PathBuf> = labels.chain(masks).collect();
    let fingerprint = record::with_files(Fingerprint::of(&start), base, &files)?;
    Ok(format!("{}-{fingerprint}", dataset.frame_count()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::formats::carla_sc::published_counts;

    #[test]
    fn weights_are_the_cube_root_of_the_rarity_and_finite() {
        assert_eq!(ClassWeights::CubeRoot.of(&[8000, 1000, 8]), [1.0, 2.0, 10.0]);
        assert_eq!(ClassWeights::CubeRoot.of(&[u64::MAX, 0]), [1.0, 100.0]);
        assert_eq!(ClassWeights::CubeRoot.of(&[0, 0]), [1.0, 1.0]);
        assert!(ClassWeights::CubeRoot.of(&published_counts()).iter().all(|w| (1.0..=100.0).contains(w)));
    }
}
