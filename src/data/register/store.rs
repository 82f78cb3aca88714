//! What was registered, kept beside the data or in the user's cache.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::trajectory::{Pair, Trajectory};
use crate::Result;
use crate::data::source::{Sequence, Source};
use crate::data::{Dataset, Split, record};
use crate::hash::Fingerprint;

/// Changes with what is computed: what another version has kept is not used.
const ALGORITHM: u32 = 2;

/// What is kept of one sequence.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
struct Kept {
    /// Fingerprint of its files, its grid and the algorithm when it was registered.
    key: String,
    pairs: Vec<Pair>,
}

/// The record of a split: its sequences by name.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Store {
    sequences: BTreeMap<String, Kept>,
    #[serde(skip)]
    places: Vec<PathBuf>,
}

impl Store {
    /// What is kept of a split of the data set at `base`; of several records the first one that has the most.
    pub fn open(base: &Path, split: Split) -> Store {
        let places = record::places(base, &format!("registered-{}", split.folder().to_lowercase()));
        let records = places.iter().filter_map(|place| record::load::<Store>(place));
        let largest = records.reduce(|a, b| if b.sequences.len() > a.sequences.len() { b } else { a });
        Store { places, ..largest.unwrap_or_default() }
    }

    /// The trajectory of a sequence, if it is known for its files as they are.
    pub fn get(&self, source: &dyn Source, sequence: &Sequence) -> Option<Trajectory> {
        let kept = self.sequences.get(&sequence.name)?;
        let is_whole = kept.pairs.len() + 1 == sequence.numbers.len().max(1);
        let is_same = || key(source, sequence).is_ok_and(|key| key == kept.key);
        (is_whole && is_same()).then(|| Trajectory::new(kept.pairs.clone()))
    }

    /// Adds the trajectory of a sequence whose files had this key.
    pub fn put(&mut self, sequence: &Sequence, key: String, trajectory: &Trajectory) {
        self.sequences.insert(sequence.name.clone(), Kept { key, pairs: trajectory.pairs.clone() });
    }

    /// Writes the record; returns whether it can be kept.
    pub fn write(&self) -> bool {
        record::store(&self.places, self)
    }
}

/// What a trajectory depends on.
///
/// # Errors
/// [`crate::Error::Data`] if a file is not there any more.
pub(super) fn key(source: &dyn Source, sequence: &Sequence) -> Result<String> {
    let mut files: Vec<&PathBuf> = sequence.labels.iter().chain(&sequence.masks).collect();
    // Stacks name one file for all of their frames.
    files.dedup();
    let times = sequence.has_times.then_some(&sequence.times_secs);
    let start = format!("{ALGORITHM}\n{:?}\n{:?}\n{times:?}\n{:?}", sequence.grid, sequence.numbers, source.classes());
    Ok(record::with_files(Fingerprint::of(&start), source.base(), &files)?.to_string())
}

/// What `sep4d register` found for each sequence of a data set, in the order of [`Dataset::sequences`]: its trajectory, or `None`
/// if it was not registered, or its files have changed since.
///
/// A trajectory has a pose for each frame of its sequence, in that order, whatever the crop and the stride of the data set;
/// [`Trajectory::across`] refuses frames between which the motion is not known.
pub fn registered(dataset: &Dataset) -> Vec<Option<Trajectory>> {
    let source = &*dataset.source;
    let store = Store::open(source.base(), dataset.split);
    dataset.sequences.iter().map(|sequence| store.get(source, sequence)).collect()
}
