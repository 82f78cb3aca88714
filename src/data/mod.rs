//! Moving voxel scenes: what a frame, a clip and a data set are, how they are read, batched and generated.
//!
//! This module knows files and numbers only; it never sees the GPU.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

pub mod batch;
pub mod carla_sc;
pub mod classes;
mod counts;
pub mod loader;
pub mod sampler;
pub mod synth;

pub use batch::Batch;
pub use classes::ClassSet;
pub use counts::class_weights;
pub use loader::{Delivery, Loader, LoaderOptions};
pub use sampler::{Cursor, Sampler};

/// A rigid motion as a 3x4 matrix, row major: `[r00 r01 r02 tx, r10 r11 r12 ty, r20 r21 r22 tz]`, metres.
pub type Pose = [f64; 12];

/// A voxel grid around the sensor: x forward, y right, z up, in the sensor's frame.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Grid {
    /// Voxels along x, y and z.
    pub size: [usize; 3],
    /// Edge lengths of one voxel, metres.
    pub voxel_size_m: [f64; 3],
    /// The corner of voxel (0, 0, 0), metres from the sensor.
    pub min_bound_m: [f64; 3],
}

impl Grid {
    /// The grid of CarlaSC: 128 x 128 x 8 voxels of 0.4 x 0.4 x 0.375 m.
    pub const CARLA_SC: Grid =
        Grid { size: [128, 128, 8], voxel_size_m: [0.4, 0.4, 0.375], min_bound_m: [-25.6, -25.6, -2.0] };

    /// How many voxels the grid has.
    pub fn voxels(&self) -> usize {
        self.size.iter().product()
    }

    /// The place of voxel (x, y, z) in a frame's arrays.
    pub fn index(&self, x: usize, y: usize, z: usize) -> usize {
        (x * self.size[1] + y) * self.size[2] + z
    }

    /// The corner opposite to `min_bound_m`, metres.
    pub fn max_bound_m(&self) -> [f64; 3] {
        std::array::from_fn(|a| self.min_bound_m[a] + self.size[a] as f64 * self.voxel_size_m[a])
    }

    /// The middle part of the grid: centred in x and y, from the bottom in z. Also returns the part's first voxel.
    ///
    /// # Errors
    /// [`Error::Data`] if the part is larger than the grid or empty.
    pub fn crop(&self, size: [usize; 3]) -> Result<(Grid, [usize; 3])> {
        if (0..3).any(|a| size[a] == 0 || size[a] > self.size[a]) {
            return Err(Error::Data(format!(
                "the crop {} does not fit into the grid {}; set data.crop to at most the grid, or remove it",
                by(size),
                by(self.size)
            )));
        }
        let first = [(self.size[0] - size[0]) / 2, (self.size[1] - size[1]) / 2, 0];
        let min_bound_m = std::array::from_fn(|a| self.min_bound_m[a] + first[a] as f64 * self.voxel_size_m[a]);
        Ok((Grid { size, min_bound_m, ..*self }, first))
    }
}

/// One moment: a class and a visibility flag for every voxel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Class of every voxel, `[X, Y, Z]` in C order.
    pub labels: Vec<u8>,
    /// Whether the sensors saw the voxel, `[X, Y, Z]` in C order. Unobserved voxels count as Free in training and are
    /// left out of the metrics.
    pub observed: Vec<bool>,
}

/// Consecutive frames of one sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Clip {
    /// The T frames.
    pub frames: Vec<Frame>,
    /// The motion that takes a point in frame t's sensor frame into that of the middle frame (`T / 2`), if poses are known.
    pub poses: Option<Vec<Pose>>,
    /// When each frame was taken, seconds.
    pub times_secs: Vec<f64>,
    /// The sequence's name.
    pub sequence: String,
    /// The number of the first frame within its sequence.
    pub first_frame: usize,
}

/// A part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// What is trained on.
    Train,
    /// What is validated on.
    Val,
    /// What is tested on.
    Test,
}

impl Split {
    /// The name of the split's folder.
    pub fn folder(self) -> &'static str {
        match self {
            Split::Train => "Train",
            Split::Val => "Val",
            Split::Test => "Test",
        }
    }
}

/// How a data set is cut into clips.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatasetOptions {
    /// T, the number of frames of a clip.
    pub frames_per_clip: usize,
    /// Keep only the middle part of this size (voxels; centred in x and y, from the bottom in z).
    pub crop: Option<[usize; 3]>,
}

impl Default for DatasetOptions {
    fn default() -> Self {
        DatasetOptions { frames_per_clip: 4, crop: None }
    }
}

/// One recording: the files of its frames in order, with their times and poses.
#[derive(Debug, Clone)]
pub(crate) struct Sequence {
    pub name: String,
    pub numbers: Vec<usize>,
    pub labels: Vec<PathBuf>,
    pub masks: Vec<PathBuf>,
    pub times_secs: Vec<f64>,
    /// Relative to the sequence's own origin.
    pub poses: Option<Vec<Pose>>,
}

/// Every window of T consecutive frames of one split of a data set on disk; frames are read when asked for.
#[derive(Debug, Clone)]
pub struct Dataset {
    root: PathBuf,
    split: Split,
    options: DatasetOptions,
    file_grid: Grid,
    grid: Grid,
    first_voxel: [usize; 3],
    sequences: Vec<Sequence>,
    /// (sequence, position of the first frame in it)
    windows: Vec<(usize, usize)>,
    warnings: Vec<String>,
}

impl Dataset {
    /// Opens the split of a data set in CarlaSC's layout (see [`carla_sc`]) at its root or its `Cartesian` folder.
    ///
    /// Validation falls back to the test split where there is none, and says so in [`Dataset::warnings`].
    ///
    /// # Errors
    /// [`Error::Data`] if the folder, the split or its frames are missing or inconsistent, no sequence has
    /// `frames_per_clip` frames, or the (cropped) grid has an odd side; [`Error::Usage`] for zero frames per clip.
    pub fn open(root: impl AsRef<Path>, split: Split, options: DatasetOptions) -> Result<Dataset> {
        if options.frames_per_clip == 0 {
            return Err(Error::Usage("a clip needs at least one frame; set data.frames to 1 or more".into()));
        }
        let mut warnings = Vec::new();
        let base = carla_sc::base(root.as_ref())?;
        let split = carla_sc::available_split(&base, split, &mut warnings)?;
        let (file_grid, sequences) = carla_sc::scan(&base, split, &mut warnings)?;
        let (grid, first_voxel) = file_grid.crop(options.crop.unwrap_or(file_grid.size))?;
        if grid.size.iter().any(|side| side % 2 == 1) {
            return Err(Error::Data(format!(
                "the grid of {} is {}, but every side must be even; set data.crop to even sizes",
                base.display(),
                by(grid.size)
            )));
        }
        // A wrong grid is told at once, not when the first frame is read.
        for sequence in &sequences {
            for path in sequence.labels.first().into_iter().chain(sequence.masks.first()) {
                carla_sc::check_size(path, &file_grid)?;
            }
        }
        let windows = windows(&sequences, options.frames_per_clip, &mut warnings);
        if windows.is_empty() {
            let longest = sequences.iter().map(|s| s.numbers.len()).max().unwrap_or(0);
            return Err(Error::Data(format!(
                "no sequence in {} has {} consecutive frames (the longest has {longest} in all); use fewer frames per clip or longer \
                 sequences (`sep4d synth --frames`)",
                base.join(split.folder()).display(),
                options.frames_per_clip
            )));
        }
        Ok(Dataset { root: base, split, options, file_grid, grid, first_voxel, sequences, windows, warnings })
    }

    /// How many clips there are: every stride-1 window of T frames within a sequence.
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    /// Whether there are no clips (an opened data set always has some).
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// The grid of the clips, after cropping.
    pub fn grid(&self) -> Grid {
        self.grid
    }

    /// X, Y, Z of the files, before cropping.
    pub fn file_size(&self) -> [usize; 3] {
        self.file_grid.size
    }

    /// How it is cut into clips.
    pub fn options(&self) -> DatasetOptions {
        self.options
    }

    /// The split that was opened (Test where Val was asked for and is missing).
    pub fn split(&self) -> Split {
        self.split
    }

    /// The number of frames of a clip.
    pub fn frames_per_clip(&self) -> usize {
        self.options.frames_per_clip
    }

    /// What the labels mean.
    pub fn classes(&self) -> &'static ClassSet {
        &classes::CARLA_SC
    }

    /// What was odd about the data but did not stop it from being read.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// How many frames the split has in all.
    pub fn frame_count(&self) -> usize {
        self.sequences.iter().map(|s| s.numbers.len()).sum()
    }

    /// The sequence of clip `index` and the number of its first frame, without reading it; `None` if there is no such clip.
    pub fn origin(&self, index: usize) -> Option<(&str, usize)> {
        let &(sequence, start) = self.windows.get(index)?;
        let sequence = self.sequences.get(sequence)?;
        Some((&sequence.name, *sequence.numbers.get(start)?))
    }

    /// Each sequence with the numbers of its frames.
    pub fn sequences(&self) -> impl ExactSizeIterator<Item = (&str, &[usize])> {
        self.sequences.iter().map(|sequence| (sequence.name.as_str(), sequence.numbers.as_slice()))
    }

    /// Reads clip `index` (`0..len()`).
    ///
    /// # Errors
    /// [`Error::Data`] if a file is unreadable, has the wrong size, or holds a wrong id or NaN; [`Error::Usage`] if there
    /// is no such clip.
    pub fn clip(&self, index: usize) -> Result<Clip> {
        let &(sequence, start) = self
            .windows
            .get(index)
            .ok_or_else(|| Error::Usage(format!("there is no clip {index}; the split has {}", self.len())))?;
        let sequence = &self.sequences[sequence];
        let range = start..start + self.options.frames_per_clip;
        let frames = range.clone().map(|i| self.frame(sequence, i)).collect::<Result<Vec<_>>>()?;
        let poses = match &sequence.poses {
            Some(poses) => Some(relative_to_middle(&poses[range.clone()]).ok_or_else(|| {
                Error::Data(format!(
                    "the pose of frame {} of sequence {} has no inverse; correct or remove its poses.txt",
                    sequence.numbers[start + self.options.frames_per_clip / 2],
                    sequence.name
                ))
            })?),
            None => None,
        };
        Ok(Clip {
            frames,
            poses,
            times_secs: sequence.times_secs[range].to_vec(),
            sequence: sequence.name.clone(),
            first_frame: sequence.numbers[start],
        })
    }

    /// How many voxels of each class all frames of the split hold (`[K]`), unobserved ones included.
    ///
    /// Counts with all cores; the result is kept in a file beside the data, or in the user's cache folder where the data
    /// is read-only, and used again as long as no file has changed.
    ///
    /// # Errors
    /// [`Error::Data`] as for [`Dataset::clip`].
    pub fn class_counts(&self) -> Result<Vec<u64>> {
        counts::cached(self)
    }

    fn frame(&self, sequence: &Sequence, i: usize) -> Result<Frame> {
        let labels = carla_sc::read_labels(&sequence.labels[i], &self.file_grid)?;
        let observed = carla_sc::read_mask(&sequence.masks[i], &self.file_grid)?;
        Ok(Frame { labels: self.cut(labels), observed: self.cut(observed) })
    }

    /// The cropped part of a frame's array.
    fn cut<V: Copy>(&self, values: Vec<V>) -> Vec<V> {
        if self.grid.size == self.file_grid.size {
            return values;
        }
        let mut part = Vec::with_capacity(self.grid.voxels());
        for x in 0..self.grid.size[0] {
            for y in 0..self.grid.size[1] {
                let from = self.file_grid.index(x + self.first_voxel[0], y + self.first_voxel[1], self.first_voxel[2]);
                part.extend_from_slice(&values[from..from + self.grid.size[2]]);
            }
        }
        part
    }
}

/// Every run of `frames` consecutively numbered frames.
fn windows(sequences: &[Sequence], frames: usize, warnings: &mut Vec<String>) -> Vec<(usize, usize)> {
    let mut windows = Vec::new();
    for (s, sequence) in sequences.iter().enumerate() {
        let numbers = &sequence.numbers;
        let before = windows.len();
        for start in 0..(numbers.len() + 1).saturating_sub(frames) {
            if numbers[start + frames - 1] - numbers[start] == frames - 1 {
                windows.push((s, start));
            }
        }
        if windows.len() == before {
            warnings.push(format!(
                "sequence {} is left out: it has {} frames, but none of its runs has the {frames} of a clip",
                sequence.name,
                numbers.len()
            ));
        } else if numbers[numbers.len() - 1] - numbers[0] != numbers.len() - 1 {
            warnings.push(format!("sequence {} has gaps in its frame numbers; no clip spans a gap", sequence.name));
        }
    }
    windows
}

/// Sizes in the form `128x128x8`.
pub(crate) fn by(size: [usize; 3]) -> String {
    format!("{}x{}x{}", size[0], size[1], size[2])
}

/// `a * b`: first `b`, then `a`.
pub fn compose(a: &Pose, b: &Pose) -> Pose {
    std::array::from_fn(|i| {
        let (row, column) = (i / 4, i % 4);
        let product: f64 = (0..3).map(|k| a[4 * row + k] * b[4 * k + column]).sum();
        if column == 3 { product + a[4 * row + 3] } else { product }
    })
}

/// The inverse motion, or `None` if the matrix has none.
pub fn invert(p: &Pose) -> Option<Pose> {
    let m = |r: usize, c: usize| p[4 * (r % 3) + c % 3];
    let cofactor = |r: usize, c: usize| m(r + 1, c + 1) * m(r + 2, c + 2) - m(r + 1, c + 2) * m(r + 2, c + 1);
    let determinant: f64 = (0..3).map(|c| m(0, c) * cofactor(0, c)).sum();
    if !determinant.is_finite() || determinant.abs() < 1e-9 {
        return None;
    }
    let rotation = |r: usize, c: usize| cofactor(c, r) / determinant;
    Some(std::array::from_fn(|i| {
        let (row, column) = (i / 4, i % 4);
        if column < 3 { rotation(row, column) } else { -(0..3).map(|k| rotation(row, k) * p[4 * k + 3]).sum::<f64>() }
    }))
}

/// The motions that take every frame of a clip into its middle frame, from poses in a common frame.
pub(crate) fn relative_to_middle(poses: &[Pose]) -> Option<Vec<Pose>> {
    let inverse = invert(poses.get(poses.len() / 2)?)?;
    Some(poses.iter().map(|pose| compose(&inverse, pose)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pose_times_its_inverse_is_the_identity() {
        let (s, c) = 0.7f64.sin_cos();
        let pose = [c, -s, 0.0, 3.0, s, c, 0.0, -2.0, 0.0, 0.0, 1.0, 0.5];
        let product = compose(&pose, &invert(&pose).unwrap());
        let identity = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0];
        for (have, want) in product.iter().zip(identity) {
            assert!((have - want).abs() < 1e-12, "{product:?}");
        }
        assert!(invert(&[0.0; 12]).is_none());
    }

    #[test]
    fn the_crop_is_centred_and_stands_on_the_floor() {
        let (grid, first) = Grid::CARLA_SC.crop([64, 32, 4]).unwrap();
        assert_eq!(first, [32, 48, 0]);
        assert_eq!(grid.size, [64, 32, 4]);
        assert!((grid.min_bound_m[0] + 12.8).abs() < 1e-9 && grid.min_bound_m[2] == -2.0);
        assert!(Grid::CARLA_SC.crop([130, 2, 2]).is_err());
    }
}
