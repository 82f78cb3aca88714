//! One writer a run folder: an advisory lock that the system frees however its holder ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::files::unwritable;
use crate::{Error, Result};

/// The locked file in a run folder; while it is locked, it names its holder.
pub(super) const LOCK_FILE: &str = "writer.lock";

/// How long a trainer of this very process that is on its way out is waited for: it saves first.
const PATIENCE: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(20);

/// Held for as long as a run folder is written. Readers need none.
#[derive(Debug)]
pub struct WriterLock {
    file: File,
    path: PathBuf,
    /// Whether the file system has locks at all; without them nobody else is kept out.
    pub is_enforced: bool,
}

impl WriterLock {
    /// Takes the lock of an existing folder.
    ///
    /// # Errors
    /// [`Error::Busy`] naming the process and the host that hold it, [`Error::Data`] if the folder takes no file.
    pub fn take(folder: &Path) -> Result<WriterLock> {
        let path = folder.join(LOCK_FILE);
        let began = Instant::now();
        loop {
            let unwritable = |why: std::io::Error| unwritable(&path, &why);
            let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            let mut file = open.map_err(unwritable)?;
            let is_enforced = match file.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => {
                    let holder = read_holder(&mut file);
                    if holder != this_process() || began.elapsed() > PATIENCE {
                        return Err(busy(folder, &holder));
                    }
                    std::thread::sleep(INTERVAL);
                    continue;
                }
                Err(TryLockError::Error(why)) if is_without_locks(&why) => false,
                Err(TryLockError::Error(why)) => return Err(unwritable(why)),
            };
            // Whoever held it before may have removed the file between our opening and locking it.
            if is_enforced && !is_at(&file, &path) {
                continue;
            }
            file.set_len(0).and_then(|()| file.write_all(this_process().as_bytes())).map_err(unwritable)?;
            return Ok(WriterLock { file, path, is_enforced });
        }
    }
}

impl Drop for WriterLock {
    fn drop(&mut self) {
        if is_at(&self.file, &self.path) {
            // A file that stays does no harm: it is not locked any more.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// As the lock file names it.
fn this_process() -> String {
    format!("process {} on {}", std::process::id(), gethostname::gethostname().display())
}

/// What a short text file says, made safe to print.
fn read_holder(file: &mut File) -> String {
    let mut bytes = Vec::new();
    let _ = file.take(512).read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).replace(char::is_control, "");
    if text.is_empty() { "another process".into() } else { text }
}

fn busy(folder: &Path, holder: &str) -> Error {
    Error::Busy(format!(
        "{} is being written by {holder}; wait until it ends or stop it, or choose another folder",
        folder.display()
    ))
}

/// ENOLCK and ENOSYS have no kind of their own on every system.
fn is_without_locks(why: &std::io::Error) -> bool {
    const ENOLCK: i32 = 37;
    matches!(why.kind(), ErrorKind::Unsupported | ErrorKind::InvalidInput)
        || cfg!(target_os = "linux") && why.raw_os_error() == Some(ENOLCK)
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    file.metadata().map(place).ok() == fs::metadata(path).map(place).ok()
}

#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_writer_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let first = WriterLock::take(dir.path()).unwrap();
        assert!(first.is_enforced);
        // As if another process had written its name.
        fs::write(dir.path().join(LOCK_FILE), "process 1 on elsewhere\n").unwrap();
        let why = WriterLock::take(dir.path()).unwrap_err();
        assert_eq!(why.exit_code(), 7);
        assert!(why.to_string().contains("written by process 1 on elsewhere;"), "{why}");
        fs::write(dir.path().join(LOCK_FILE), "").unwrap();
        assert!(WriterLock::take(dir.path()).unwrap_err().to_string().contains("another process"));
        drop(first);
        assert!(!dir.path().join(LOCK_FILE).exists());
        WriterLock::take(dir.path()).unwrap();
    }

    #[test]
    fn what_a_kill_leaves_is_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(LOCK_FILE), "process 1 on elsewhere").unwrap();
        let lock = WriterLock::take(dir.path()).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join(LOCK_FILE)).unwrap(), this_process());
        drop(lock);
    }

    #[test]
    fn a_trainer_of_this_process_that_is_leaving_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let first = WriterLock::take(dir.path()).unwrap();
        let folder = dir.path().to_path_buf();
        let second = std::thread::spawn(move || WriterLock::take(&folder).map(drop));
        std::thread::sleep(INTERVAL);
        drop(first);
        second.join().unwrap().unwrap();
    }
}
