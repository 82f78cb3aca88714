//! What stands in a folder: nothing that is there is taken for absent, and nothing that other systems leave behind is taken
//! for data.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::files::{is_left_behind, unreadable};
use crate::{Error, Result};

/// What stands at `path`, through links; `None` only if there is nothing of that name.
///
/// # Errors
/// [`Error::Data`] if it cannot be told, or a link on the way leads nowhere, as to a disk that is not mounted.
pub(crate) fn look(path: &Path) -> Result<Option<Metadata>> {
    let why = match fs::metadata(path) {
        Ok(metadata) => return Ok(Some(metadata)),
        Err(why) => why,
    };
    if why.kind() != ErrorKind::NotFound {
        return Err(unreadable(path, &why));
    }
    let leads_nowhere = |path: &&Path| fs::symlink_metadata(path).is_ok_and(|link| link.is_symlink() && !path.exists());
    let Some(link) = path.ancestors().find(leads_nowhere) else { return Ok(None) };
    let target = fs::read_link(link).map_err(|why| unreadable(link, &why))?;
    Err(Error::Data(format!(
        "{} is a link to {}, which is not there; mount its disk, or correct the link",
        link.display(),
        target.display()
    )))
}

/// Whether there is a folder at `path`.
///
/// # Errors
/// As for [`look`], and [`Error::Data`] if something else is there.
pub(crate) fn is_folder(path: &Path) -> Result<bool> {
    match look(path)? {
        Some(found) if !found.is_dir() => {
            Err(Error::Data(format!("{} is a file where a folder is expected; restore the folder", path.display())))
        }
        found => Ok(found.is_some()),
    }
}

/// The paths in a folder, sorted by name, without what other systems leave behind.
///
/// # Errors
/// [`Error::Data`] if it cannot be read to its end.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = || -> std::io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if !is_left_behind(&entry.file_name()) {
                paths.push(entry.path());
            }
        }
        paths.sort();
        Ok(paths)
    };
    read().map_err(|why| unreadable(folder, &why))
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_what_is_not_there_is_absent() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        assert!(look(&at("nothing")).unwrap().is_none() && !is_folder(&at("nothing")).unwrap());
        fs::write(at("file"), "").unwrap();
        fs::create_dir(at("folder")).unwrap();
        symlink(at("folder"), at("link")).unwrap();
        assert!(is_folder(&at("folder")).unwrap() && is_folder(&at("link")).unwrap());
        symlink(at("unmounted"), at("dangling")).unwrap();
        symlink(at("loop"), at("loop")).unwrap();
        for (path, words) in [
            (at("file"), "is a file where a folder is expected"),
            (at("file/below"), "a part of the path is a file"),
            (at("dangling"), "unmounted, which is not there"),
            (at("dangling/below"), "dangling is a link to"),
            (at("loop"), "symbolic links"),
            (at(&"long".repeat(200)), "too long"),
        ] {
            let why = is_folder(&path).unwrap_err().to_string();
            assert!(why.contains(words), "{why}");
        }
    }

    #[test]
    fn what_other_systems_leave_behind_is_not_listed() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b", "a", ".DS_Store", "._a", "Thumbs.db", "lost+found"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(entries(dir.path()).unwrap(), ["a", "b"].map(|name| dir.path().join(name)));
        assert!(entries(&dir.path().join("none")).is_err());
    }
}
