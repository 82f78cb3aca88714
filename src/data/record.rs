//! What is kept of a data set from one start to the next, and how it is known that its files are the same.
//!
//! A record stands beside the data, or in the user's cache folder where the data are read-only.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rayon::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Result;
use crate::files::{cache_folder, make_folder, read_at_most, remove_leftovers, unreadable, write_atomically};
use crate::hash::Fingerprint;

/// No record is larger than this.
const LARGEST: u64 = 256 << 20;

/// `fingerprint` with the name below `root`, the size and the time of change of every file.
///
/// # Errors
/// [`crate::Error::Data`] if a file is not there any more.
pub(super) fn with_files(fingerprint: Fingerprint, root: &Path, files: &[&PathBuf]) -> Result<Fingerprint> {
    let line = |path: &&PathBuf| -> Result<String> {
        let wrong = |why: std::io::Error| unreadable(path, &why);
        let metadata = fs::metadata(path).map_err(wrong)?;
        let changed = metadata.modified().map_err(wrong)?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let relative = path.strip_prefix(root).unwrap_or(path);
        Ok(format!("{} {} {}", relative.display(), metadata.len(), changed.as_nanos()))
    };
    let lines = files.par_iter().map(line).collect::<Result<Vec<_>>>()?;
    Ok(lines.iter().fold(fingerprint, |fingerprint, line| fingerprint.and(line)))
}

/// Where the record `name` of the data set at `root` may stand, the best place first.
pub(super) fn places(root: &Path, name: &str) -> Vec<PathBuf> {
    // A folder marked read-only stays untouched even where this user could write to it all the same.
    let writable = fs::metadata(root).is_ok_and(|metadata| !metadata.permissions().readonly());
    let beside = root.join(format!(".sep4d-{name}.json"));
    let mut places: Vec<PathBuf> = writable.then_some(beside).into_iter().collect();
    if let Some(cache) = cache_folder() {
        let root = fs::canonicalize(root).unwrap_or_else(|_| root.to_path_buf());
        let root = Fingerprint::of(&root.to_string_lossy());
        places.push(cache.join(format!("{name}-{root}.json")));
    }
    places
}

/// The record at `path`, if there is one that can be used.
pub(super) fn load<R: DeserializeOwned>(path: &Path) -> Option<R> {
    serde_json::from_slice(&read_at_most(path, LARGEST).ok()?).ok()
}

/// Keeps a record in the first of `places` that takes it; returns whether one does.
pub(super) fn store(places: &[PathBuf], record: &impl Serialize) -> bool {
    let Ok(bytes) = serde_json::to_vec(record) else { return false };
    if bytes.len() as u64 > LARGEST {
        return false;
    }
    let keep = |place: &PathBuf| -> Result<()> {
        if let (Some(folder), Some(name)) = (place.parent(), place.file_name()) {
            make_folder(folder)?;
            // Of whoever was killed at this; another who is at it now finds the next place.
            remove_leftovers(folder, |file| file == name);
        }
        write_atomically(place, &bytes)
    };
    places.iter().any(|place| keep(place).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_takes_the_place_of_what_a_kill_left_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let (place, left) = (dir.path().join(".sep4d-x.json"), dir.path().join("..sep4d-x.json.a1B2c3"));
        fs::write(&left, "").unwrap();
        assert!(store(std::slice::from_ref(&place), &7));
        assert_eq!((load::<u32>(&place), left.exists()), (Some(7), false));
    }

    #[test]
    fn a_fingerprint_changes_with_name_size_and_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "1").unwrap();
        let of = |path: &PathBuf| with_files(Fingerprint::of("x"), dir.path(), &[path]).map(|f| f.to_string());
        let first = of(&path).unwrap();
        assert_eq!(of(&path).unwrap(), first);
        let later = fs::metadata(&path).unwrap().modified().unwrap() + std::time::Duration::from_secs(1);
        fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        let second = of(&path).unwrap();
        fs::rename(&path, dir.path().join("b")).unwrap();
        let third = of(&dir.path().join("b")).unwrap();
        assert!(first != second && second != third && of(&path).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_read_only_data_set_is_left_alone() {
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().unwrap();
        let beside = || places(dir.path(), "notes").iter().any(|place| place.starts_with(dir.path()));
        assert!(beside());
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o555)).unwrap();
        assert!(!beside());
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn a_record_that_cannot_be_used_counts_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("below/notes.json");
        assert!(load::<Vec<u32>>(&path).is_none());
        assert!(store(&[PathBuf::from("/dev/null/x"), path.clone()], &[1, 2]));
        assert_eq!(load::<Vec<u32>>(&path), Some(vec![1, 2]));
        fs::write(&path, "not json").unwrap();
        assert!(load::<Vec<u32>>(&path).is_none());
    }
}
