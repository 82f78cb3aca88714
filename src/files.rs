//! Files that are written whole or not at all, and what to say when reading or writing fails.

use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use tempfile::TempPath;

use crate::{Error, Result};

/// Stands in a folder as long as what is written there is not complete.
const INCOMPLETE: &str = "INCOMPLETE.txt";

/// Characters that tell the temporary files of one path apart.
const RANDOM_CHARACTERS: usize = 6;

/// A file that is written beside its place, under a hidden temporary name, and takes its place when it is whole. Dropped
/// before, it leaves nothing; a kill leaves the hidden file, which [`remove_leftovers`] finds.
#[derive(Debug)]
pub struct AtomicFile {
    file: BufWriter<File>,
    temporary: TempPath,
    path: PathBuf,
}

impl AtomicFile {
    /// Begins the file that is to stand at `path`.
    ///
    /// # Errors
    /// If its folder does not exist or takes no file.
    pub fn create(path: &Path) -> io::Result<AtomicFile> {
        let (Some(name), Some(folder)) = (path.file_name(), path.parent()) else {
            return Err(io::Error::from(ErrorKind::IsADirectory));
        };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let mut prefix = std::ffi::OsString::from(".");
        prefix.push(name);
        prefix.push(".");
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).rand_bytes(RANDOM_CHARACTERS);
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let (file, temporary) = builder.tempfile_in(folder)?.into_parts();
        if let Ok(old) = fs::metadata(path) {
            file.set_permissions(old.permissions())?;
        }
        Ok(AtomicFile { file: BufWriter::new(file), temporary, path: path.to_path_buf() })
    }

    /// Puts what was written into its place, where it survives a loss of power.
    ///
    /// # Errors
    /// If not everything can be written; the old file then stays as it was, unless only its folder could not be synced.
    pub fn commit(self) -> io::Result<()> {
        let AtomicFile { file, temporary, path } = self;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&temporary, &path)?;
        sync_folder(&temporary.keep()?)
    }
}

impl Write for AtomicFile {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.file.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Makes the names in the folder of `file` survive a loss of power. Some file systems (CIFS, VirtualBox's and WSL's shares)
/// cannot, and refuse; on these a rename is as durable as it gets.
fn sync_folder(file: &Path) -> io::Result<()> {
    let Some(folder) = file.parent().filter(|_| cfg!(unix)) else { return Ok(()) };
    match File::open(folder)?.sync_all() {
        Err(why) if matches!(why.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        synced => synced,
    }
}

/// Removes what writers of [`AtomicFile`] that were killed have left in `folder` of the files that `is_ours` names. Only for a
/// folder in which nobody else writes now.
pub fn remove_leftovers(folder: &Path, is_ours: impl Fn(&str) -> bool) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.filter_map(|entry| entry.ok()) {
        let name = entry.file_name();
        let is_leftover =
            name.to_str().and_then(|name| name.strip_prefix('.')?.rsplit_once('.')).is_some_and(|(file, random)| {
                is_ours(file)
                    && random.len() == RANDOM_CHARACTERS
                    && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
            });
        if is_leftover {
            // What cannot be removed costs space, nothing else.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The same in the tree of a folder whose writer was stopped, of files that a data set has.
fn remove_leftovers_below(folder: &Path) {
    const NAMES: [&str; 4] = ["calib.txt", "poses.txt", "times.txt", "voxels.toml"];
    const KINDS: [&str; 5] = ["bin", "json", "label", "npy", "npz"];
    let is_ours = |file: &str| file.rsplit_once('.').is_some_and(|(_, kind)| KINDS.contains(&kind));
    remove_leftovers(folder, |file| NAMES.contains(&file) || is_ours(file));
    let Ok(entries) = fs::read_dir(folder) else { return };
    let is_folder = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries.filter_map(|entry| entry.ok()).filter(is_folder).for_each(|entry| remove_leftovers_below(&entry.path()));
}

/// Writes `data` to `path`, whole or not at all: a failure leaves the old file as it was.
///
/// # Errors
/// [`Error::Data`] naming the path and the cause (no such folder, disk full, no permission).
pub fn write_atomically(path: &Path, data: &[u8]) -> Result<()> {
    let write = || -> io::Result<()> {
        let mut file = AtomicFile::create(path)?;
        file.write_all(data)?;
        file.commit()
    };
    write().map_err(|why| unwritable(path, &why))
}

/// Where things are kept that only make the next start faster; `None` if this user has no such place.
pub fn cache_folder() -> Option<PathBuf> {
    // A user without a home may have one all the same.
    let given = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let base = given.or_else(|| Some(directories::BaseDirs::new()?.cache_dir().to_path_buf()))?;
    Some(base.join("sep4d"))
}

/// Makes a folder and those above it.
///
/// # Errors
/// [`Error::Data`] naming the path and the cause.
pub fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|why| unwritable(path, &why))
}

/// Reads a whole regular file of at most `limit` bytes; a pipe or a device is refused rather than waited for.
///
/// # Errors
/// [`Error::Data`] naming the path and the cause.
pub fn read_at_most(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let metadata = fs::metadata(path).map_err(|why| unreadable(path, &why))?;
    if !metadata.is_file() {
        return Err(Error::Data(format!("{} is no regular file; restore it", path.display())));
    }
    let too_long = |bytes: u64| {
        Error::Data(format!(
            "{} has {bytes} bytes, far more than such a file needs; restore the original",
            path.display()
        ))
    };
    if metadata.len() > limit {
        return Err(too_long(metadata.len()));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|why| unreadable(path, &why))?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|why| unreadable(path, &why))?;
    if bytes.len() as u64 > limit { Err(too_long(bytes.len() as u64)) } else { Ok(bytes) }
}

/// Reads a whole text file of at most `limit` bytes, as [`read_at_most`] does.
///
/// # Errors
/// [`Error::Data`] naming the path and the cause.
pub fn read_text_at_most(path: &Path, limit: u64) -> Result<String> {
    text_of(read_at_most(path, limit)?, path)
}

/// What a text file says: UTF-8, without the byte-order mark that it may begin with.
///
/// # Errors
/// [`Error::Data`] naming the path if it is no text, or text of another encoding.
pub fn text_of(mut bytes: Vec<u8>, path: &Path) -> Result<String> {
    if bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF") {
        return Err(Error::Data(format!("{} is text in UTF-16; save it as UTF-8", path.display())));
    }
    if bytes.starts_with(b"\xEF\xBB\xBF") {
        bytes.drain(..3);
    }
    String::from_utf8(bytes)
        .map_err(|_| Error::Data(format!("{} is not a text file; restore or remove it", path.display())))
}

/// The error for a file or folder that cannot be written.
pub fn unwritable(path: &Path, why: &io::Error) -> Error {
    let advice = match why.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free some space, or choose another folder",
        ErrorKind::PermissionDenied => "change its permissions, or choose another folder",
        ErrorKind::FileTooLarge => "raise the limit (`ulimit -f`), or choose another folder",
        _ => "choose another folder",
    };
    Error::Data(format!("cannot write {}: {}; {advice}", path.display(), cause(why)))
}

/// The error for a file or folder that cannot be read: [`Error::Data`] if it is not there, else [`Error::Unreadable`].
pub fn unreadable(path: &Path, why: &io::Error) -> Error {
    let sentence = |advice: &str| format!("cannot read {}: {}; {advice}", path.display(), cause(why));
    match why.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Error::Data(sentence("check the path or restore it")),
        ErrorKind::PermissionDenied => Error::Unreadable(sentence("change its permissions")),
        _ => Error::Unreadable(sentence("see to the disk or the network, or restore it")),
    }
}

/// The bytes of a file, as [`read_at_most`] reads them; `None` if there is no such file.
///
/// # Errors
/// As for [`read_at_most`] if the file is there.
pub fn read_if_there(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    match fs::symlink_metadata(path) {
        Err(why) if matches!(why.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(why) => Err(unreadable(path, &why)),
        Ok(_) => read_at_most(path, limit).map(Some),
    }
}

/// Whether there is a regular file at `path`.
///
/// # Errors
/// [`Error::Unreadable`] if nobody can tell now.
pub fn is_file(path: &Path) -> Result<bool> {
    match fs::metadata(path) {
        Ok(found) => Ok(found.is_file()),
        Err(why) if matches!(why.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        Err(why) => Err(unreadable(path, &why)),
    }
}

/// What went wrong, in a few words.
pub fn cause(why: &io::Error) -> String {
    let known = match why.kind() {
        ErrorKind::NotFound => "there is no such file or folder",
        ErrorKind::PermissionDenied => "permission denied",
        ErrorKind::StorageFull => "the disk is full",
        ErrorKind::QuotaExceeded => "the disk quota is used up",
        ErrorKind::ReadOnlyFilesystem => "the file system is read-only",
        ErrorKind::FileTooLarge => "the file would be larger than this process or file system may write",
        ErrorKind::StaleNetworkFileHandle => "the network file system has lost it",
        ErrorKind::IsADirectory => "it is a folder",
        ErrorKind::NotADirectory => "a part of the path is a file, not a folder",
        ErrorKind::InvalidData => "it is not text",
        ErrorKind::BrokenPipe => "nobody reads it any more",
        _ => return why.to_string(),
    };
    known.into()
}

/// Checks, without making anything, that `path` can be a folder: it is one, or what exists above it is.
///
/// # Errors
/// [`Error::Data`] naming the file that is in the way.
pub fn check_can_be_folder(path: &Path) -> Result<()> {
    match path.ancestors().find(|ancestor| ancestor.symlink_metadata().is_ok()) {
        Some(found) if found == path && !found.is_dir() => {
            Err(Error::Data(format!("{} is a file, but a folder is to be made there; choose another", path.display())))
        }
        Some(found) if !found.is_dir() => Err(Error::Data(format!(
            "cannot make the folder {}: {} is a file; choose another folder",
            path.display(),
            found.display()
        ))),
        _ => Ok(()),
    }
}

/// What file managers, archivers and file systems leave behind, beside files whose names begin with a dot.
const LEFT_BEHIND: [&str; 7] =
    ["$RECYCLE.BIN", "@eaDir", "System Volume Information", "Thumbs.db", "__MACOSX", "desktop.ini", "lost+found"];

/// Whether a name is hidden or left behind by another system: `.DS_Store`, `._000000.label`, `Thumbs.db`.
pub fn is_left_behind(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".") || LEFT_BEHIND.iter().any(|left| name == *left)
}

/// Whether a folder has nothing in it, or is not there at all. What other systems leave behind does not count, nor the mark of
/// a writer that was stopped.
///
/// # Errors
/// [`Error::Data`] if it cannot be told.
pub fn is_vacant(folder: &Path) -> Result<bool> {
    let is_nothing = |name: &std::ffi::OsStr| name == INCOMPLETE || is_left_behind(name);
    match fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.all(|entry| entry.is_ok_and(|entry| is_nothing(&entry.file_name())))),
        Err(why) if why.kind() == ErrorKind::NotFound => Ok(true),
        Err(why) => Err(unreadable(folder, &why)),
    }
}

/// Whether the folder's writer, `sep4d synth` or `sep4d export`, did not come to its end.
pub fn is_incomplete(folder: &Path) -> bool {
    folder.join(INCOMPLETE).exists()
}

/// Marks a folder until its writer has come to its end: a data set that was cut off is not taken for a small one.
#[derive(Debug)]
pub struct IncompleteMark {
    path: PathBuf,
}

impl IncompleteMark {
    /// Makes the folder and marks it; `command` is what writes it.
    ///
    /// # Errors
    /// [`Error::Data`] if it cannot be written.
    pub fn set(folder: &Path, command: &str) -> Result<IncompleteMark> {
        let is_new = !folder.exists();
        make_folder(folder)?;
        remove_leftovers(folder, |file| file == INCOMPLETE);
        let path = folder.join(INCOMPLETE);
        // A mark that is there already needs no space on a full disk.
        if path.exists() {
            remove_leftovers_below(folder);
        } else {
            let text = format!("`{command}` is still writing this folder or was stopped; run it again.\n");
            write_atomically(&path, text.as_bytes()).inspect_err(|_| {
                if is_new {
                    let _ = fs::remove_dir(folder);
                }
            })?;
        }
        Ok(IncompleteMark { path })
    }

    /// Takes the mark away: the folder is complete.
    ///
    /// # Errors
    /// [`Error::Data`] if it cannot be removed.
    pub fn clear(self) -> Result<()> {
        fs::remove_file(&self.path).map_err(|why| unwritable(&self.path, &why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_writer_left_goes_when_its_folder_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let (out, below) = (folder.path().join("out"), folder.path().join("out/Val/Town/evaluation"));
        make_folder(&below).unwrap();
        let left = [out.join(".INCOMPLETE.txt.a1B2c3"), below.join(".000001.bin.2zimKO"), below.join(".a.npz.THiG3u")];
        let kept = [below.join("000001.bin"), below.join(".bashrc.backup"), below.join(".notes.txt.backup")];
        for path in left[1..].iter().chain(&kept) {
            fs::write(path, "").unwrap();
        }
        IncompleteMark::set(&out, "sep4d export").unwrap();
        assert!(
            left[1..].iter().chain(&kept).all(|path| path.exists()),
            "a folder without a mark is not ours to clear"
        );
        fs::write(&left[0], "").unwrap();
        IncompleteMark::set(&out, "sep4d export").unwrap().clear().unwrap();
        assert!(!left.iter().any(|path| path.exists()) && kept.iter().all(|path| path.exists()));
    }
}
