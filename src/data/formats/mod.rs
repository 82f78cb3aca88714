//! The formats in which data sets are read and written: one file and one row each.

use std::path::Path;
use std::sync::Arc;

use super::folders::{entries, look};
use super::source::Source;
use crate::figures::shell_quoted;
use crate::files::is_incomplete;
use crate::{Error, Result};

pub mod carla_sc;
mod listing;
mod npz_frames;
mod occ3d_nuscenes;
mod occ3d_waymo;
mod semantic_kitti;
mod stack;
mod uniocc;
mod volumes;

/// A data set that was recognised.
type Opened = Arc<dyn Source>;

/// A format.
struct Format {
    /// What of it is recognised, for messages.
    sign: &'static str,
    /// The data set at a folder, if it is one in this format.
    open: fn(&Path) -> Result<Option<Opened>>,
}

/// Their names, in short.
pub const FORMAT_NAMES: &str = "CarlaSC, Occ3D, UniOcc, KITTI or NumPy files";

/// All formats, in the order in which they are tried.
const FORMATS: [Format; 6] = [
    Format { sign: "no Train, Val or Test folder (nor Cartesian/Train ...)", open: carla_sc::open },
    Format { sign: "no gts folder as of Occ3D-nuScenes", open: occ3d_nuscenes::open },
    Format { sign: "no training/*/*_04.npz as of Occ3D-Waymo", open: occ3d_waymo::open },
    Format { sign: "no sequences/*/voxels as of SemanticKITTI", open: semantic_kitti::open },
    Format { sign: "no numbered .npz files with an occ_label as of UniOcc", open: uniocc::open },
    Format { sign: "no .npy or .npz files", open: stack::open },
];

/// The data set at `root`, in whatever format it is.
///
/// # Errors
/// [`Error::Data`] if there is none, it is not complete, or cannot be looked at.
pub(super) fn recognise(root: &Path) -> Result<Arc<dyn Source>> {
    // The mark stands at the root, which may be given by its `Cartesian` folder.
    let whole = [Some(root), root.parent().filter(|_| root.ends_with("Cartesian"))];
    if let Some(folder) = whole.into_iter().flatten().find(|folder| is_incomplete(folder)) {
        return Err(Error::Data(format!(
            "{} is not complete: what wrote it was stopped or failed; run it again (see INCOMPLETE.txt there)",
            folder.display()
        )));
    }
    if !look(root)?.is_some_and(|found| found.is_dir()) {
        return Err(Error::Data(format!(
            "{} is not a folder; give the folder of a data set, or make one with `sep4d synth {}`",
            root.display(),
            shell_quoted(root)
        )));
    }
    for format in &FORMATS {
        if let Some(source) = (format.open)(root)? {
            return Ok(source);
        }
    }
    let signs: Vec<&str> = FORMATS.iter().map(|format| format.sign).collect();
    let signs = signs.join(", ");
    if entries(root)?.is_empty() {
        return Err(Error::Data(format!(
            "{} is empty, with {signs}; mount its disk, give the data set's root, or make one with `sep4d synth`",
            root.display()
        )));
    }
    Err(Error::Data(format!(
        "{} has {signs}; give the data set's root, or make one with `sep4d synth`",
        root.display()
    )))
}
