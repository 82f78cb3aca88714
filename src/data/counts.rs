//! Class frequencies: counted with all cores, kept on disk, and turned into loss weights.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rayon::prelude::*;

use super::{Dataset, carla_sc};
use crate::Result;
use crate::files::unreadable;

/// What the cache file holds.
#[derive(serde::Serialize, serde::Deserialize)]
struct Stored {
    /// Fingerprint of the files that were counted.
    key: String,
    counts: Vec<u64>,
}

/// The weights of the cross entropy, `w_c = (max f / f_c)^(1/3)`, from voxel counts `[K]`.
///
/// A class that never occurs is counted as one voxel, and no weight exceeds 100 (the cube root of 1e6), so all weights
/// are finite.
pub fn class_weights(counts: &[u64]) -> Vec<f32> {
    let most = counts.iter().copied().max().unwrap_or(1).max(1) as f64;
    counts.iter().map(|&count| (most / count.max(1) as f64).cbrt().min(100.0) as f32).collect()
}

/// Counts from the cache if nothing has changed since, else from the files.
pub(super) fn cached(dataset: &Dataset) -> Result<Vec<u64>> {
    let key = key(dataset)?;
    let places = places(dataset);
    for place in &places {
        if let Some(stored) = load(place)
            && stored.key == key
            && stored.counts.len() == dataset.classes().len()
        {
            return Ok(stored.counts);
        }
    }
    let counts = count(dataset)?;
    let stored = Stored { key, counts };
    // A cache that cannot be written costs time on the next start, nothing else.
    let _ = places.iter().find(|place| store(place, &stored).is_ok());
    Ok(stored.counts)
}

fn count(dataset: &Dataset) -> Result<Vec<u64>> {
    let k = dataset.classes().len();
    let files: Vec<&PathBuf> = dataset.sequences.iter().flat_map(|s| &s.labels).collect();
    files
        .par_iter()
        .map(|path| {
            let mut counts = vec![0u64; k];
            for class in dataset.cut(carla_sc::read_labels(path, &dataset.file_grid)?) {
                counts[usize::from(class)] += 1;
            }
            Ok(counts)
        })
        .try_reduce(|| vec![0; k], |a, b| Ok(a.iter().zip(&b).map(|(a, b)| a + b).collect()))
}

/// A fingerprint of path, crop, and every label file's name, size and time of change.
fn key(dataset: &Dataset) -> Result<String> {
    let root = fs::canonicalize(&dataset.root).unwrap_or_else(|_| dataset.root.clone());
    let mut text = format!("{}\n{:?}\n{:?}\n", root.display(), dataset.split, dataset.grid);
    for path in dataset.sequences.iter().flat_map(|s| &s.labels) {
        let wrong = |why: std::io::Error| unreadable(path, &why);
        let metadata = fs::metadata(path).map_err(wrong)?;
        let changed = metadata.modified().map_err(wrong)?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let relative = path.strip_prefix(&dataset.root).unwrap_or(path);
        text += &format!("{} {} {}\n", relative.display(), metadata.len(), changed.as_nanos());
    }
    Ok(format!("{}-{:016x}", dataset.frame_count(), fingerprint(text.as_bytes())))
}

/// FNV-1a.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3))
}

/// Where the cache may stand: beside the data, then in the user's cache folder.
fn places(dataset: &Dataset) -> Vec<PathBuf> {
    let split = dataset.split.folder().to_lowercase();
    let crop =
        if dataset.grid == dataset.file_grid { String::new() } else { format!("-{}", super::by(dataset.grid.size)) };
    // A folder marked read-only stays untouched even where this user could write to it all the same.
    let writable = fs::metadata(&dataset.root).is_ok_and(|metadata| !metadata.permissions().readonly());
    let beside = dataset.root.join(format!(".sep4d-class-counts-{split}{crop}.json"));
    let mut places: Vec<PathBuf> = writable.then_some(beside).into_iter().collect();
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(cache) = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache"))) {
        let root = fs::canonicalize(&dataset.root).unwrap_or_else(|_| dataset.root.clone());
        let root = fingerprint(root.to_string_lossy().as_bytes());
        places.push(cache.join(format!("sep4d/class-counts-{root:016x}-{split}{crop}.json")));
    }
    places
}

fn load(path: &Path) -> Option<Stored> {
    let small = fs::metadata(path).ok()?.len() < 64 << 10;
    (small && path.is_file()).then(|| serde_json::from_slice(&fs::read(path).ok()?).ok()).flatten()
}

fn store(path: &Path, stored: &Stored) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = atomic_write_file::AtomicWriteFile::open(path)?;
    file.write_all(&serde_json::to_vec(stored)?)?;
    file.commit()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::classes::CARLA_SC;

    #[test]
    fn weights_are_the_cube_root_of_the_rarity_and_finite() {
        assert_eq!(class_weights(&[8000, 1000, 8]), [1.0, 2.0, 10.0]);
        assert_eq!(class_weights(&[u64::MAX, 0]), [1.0, 100.0]);
        assert_eq!(class_weights(&[0, 0]), [1.0, 1.0]);
        assert!(class_weights(&CARLA_SC.published_counts()).iter().all(|w| (1.0..=100.0).contains(w)));
    }

    #[cfg(unix)]
    #[test]
    fn a_read_only_data_set_is_left_alone() {
        use std::os::unix::fs::PermissionsExt;

        use crate::data::{DatasetOptions, Split, synth};

        let dir = tempfile::TempDir::new().unwrap();
        let grid = synth::grid([4, 4, 4], [0.8, 0.8, 0.375]).unwrap();
        let options = synth::SynthOptions { grid, frames: 1, towns: [1, 0, 0], ..Default::default() };
        synth::write(dir.path(), &options, |_| {}).unwrap();
        let options = DatasetOptions { frames_per_clip: 1, crop: None };
        let dataset = Dataset::open(dir.path(), Split::Train, options).unwrap();
        let beside = |dataset: &Dataset| places(dataset).iter().any(|place| place.starts_with(dir.path()));
        assert!(beside(&dataset));
        fs::set_permissions(&dataset.root, fs::Permissions::from_mode(0o555)).unwrap();
        assert!(!beside(&dataset));
        fs::set_permissions(&dataset.root, fs::Permissions::from_mode(0o755)).unwrap();
    }
}
