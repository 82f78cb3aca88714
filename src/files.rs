//! Files that are written whole or not at all.

use std::io::Write;
use std::path::Path;

use atomic_write_file::AtomicWriteFile;

use crate::{Error, Result};

/// Writes `data` to a sibling temporary file, syncs it and renames it to `path`; a failure leaves the old file as it was.
///
/// # Errors
/// [`Error::Data`] naming the path and the cause (no such folder, disk full, no permission).
pub fn write_atomically(path: &Path, data: &[u8]) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = AtomicWriteFile::open(path)?;
        file.write_all(data)?;
        file.commit()
    };
    write().map_err(|why| {
        Error::Data(format!("cannot write {}: {why}; free some space or choose another folder", path.display()))
    })
}
