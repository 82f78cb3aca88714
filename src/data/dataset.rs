//! A data set on disk: which clips it has, and how they are read.

use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;

use super::classes::IGNORED;
use super::frames::FrameCache;
use super::numbers::{self, gaps, listed};
use super::register::{Trajectory, registered};
use super::source::{self, Findings, Sequence, Sink, Source};
use super::{Batch, ClassSet, Clip, Frame, Grid, Pose, Split, by, counts, formats, relative_to_middle};
use crate::figures::shell_quoted;
use crate::{Error, Result};

/// What voxels that nobody saw are to training. Metrics leave them out either way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unobserved {
    /// Free space.
    #[default]
    Free,
    /// Unknown: the model sees no class there, and no loss counts them.
    Ignore,
}

/// How a data set is cut into clips.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetOptions {
    /// T, the number of frames of a clip.
    pub frames_per_clip: usize,
    /// Keep only the middle part of this size (voxels; centred in x and y, from the bottom in z).
    pub crop: Option<[usize; 3]>,
    /// k: a clip takes every k-th frame of its sequence. Clips begin at every frame all the same.
    pub stride: usize,
    /// The sequences to use, by name. If there are none here, or none of the split, all of the split are used.
    pub sequences: Vec<String>,
    /// What voxels that nobody saw are to training.
    pub unobserved: Unobserved,
    /// Whether poses are those that [`register`](super::register) found, not those of the files. Clips across frames between which
    /// it found none are left out.
    pub registered: bool,
}

impl Default for DatasetOptions {
    fn default() -> Self {
        DatasetOptions {
            frames_per_clip: 4,
            crop: None,
            stride: 1,
            sequences: Vec::new(),
            unobserved: Unobserved::Free,
            registered: false,
        }
    }
}

/// Every window of T frames of one split of a data set on disk; frames are read when asked for.
///
/// The frames of a window are `stride` apart, in the numbers that the sequence has: 0, 5, 10... count as neighbours where
/// all its frames are numbered so. A window begins at every frame, so windows overlap.
#[derive(Debug, Clone)]
pub struct Dataset {
    pub(super) source: Arc<dyn Source>,
    pub(super) split: Split,
    options: DatasetOptions,
    pub(super) file_grid: Grid,
    pub(super) grid: Grid,
    first_voxel: [usize; 3],
    pub(super) sequences: Vec<Sequence>,
    /// (sequence, position of the first frame in it)
    windows: Vec<(usize, usize)>,
    /// Of each sequence, where poses are to be those of registration.
    registered: Option<Vec<Trajectory>>,
    warnings: Vec<String>,
}

impl Dataset {
    /// Opens the split of the data set at `root`, in whatever of the [`formats`] it is.
    ///
    /// Validation falls back to the test split where there is none, and says so in [`Dataset::warnings`].
    ///
    /// # Errors
    /// [`Error::Data`] if the folder, the split, its frames or their poses are missing, unreadable or inconsistent, no
    /// sequence has enough frames for a clip, or the (cropped) grid has an odd side; [`Error::Usage`] for zero frames per
    /// clip or a stride of zero.
    pub fn open(root: impl AsRef<Path>, split: Split, options: DatasetOptions) -> Result<Dataset> {
        if options.frames_per_clip == 0 || options.stride == 0 {
            let key = if options.stride == 0 { "data.stride" } else { "data.frames" };
            return Err(Error::Usage(format!("a clip needs at least one frame after another; set {key} to 1 or more")));
        }
        let mut warnings = Vec::new();
        let source = formats::recognise(root.as_ref())?;
        let split = available_split(&*source, split, &mut warnings)?;
        let mut findings = Findings::default();
        let sequences = source.scan(split, &options.sequences, &mut findings);
        let problems = findings.problems.len();
        if let Some(first) = findings.problems.into_iter().next() {
            return Err(match first {
                Error::Data(why) if problems > 1 => Error::Data(format!(
                    "{why} (the first of {problems} problems; `sep4d check {}` lists them)",
                    shell_quoted(root.as_ref())
                )),
                first => first,
            });
        }
        warnings.extend(findings.flaws.into_iter().chain(findings.notes));
        let no_window = || no_window(&source.place(split), &sequences, &options);
        let file_grid = sequences.first().ok_or_else(no_window)?.grid;
        let (grid, first_voxel) = file_grid.crop(options.crop.unwrap_or(file_grid.size))?;
        if grid.size.iter().any(|side| side % 2 == 1) {
            return Err(Error::Data(format!(
                "the grid of {} is {}, but every side must be even; set data.crop to even sizes",
                source.base().display(),
                by(grid.size)
            )));
        }
        // What can be seen without reading is told at once, not when a frame's turn comes.
        let frames: Vec<(&Sequence, usize)> =
            sequences.iter().flat_map(|s| (0..s.numbers.len()).map(move |i| (s, i))).collect();
        if let Some(why) = frames.par_iter().find_map_first(|(sequence, i)| source.inspect(sequence, *i).err()) {
            return Err(why);
        }
        let windows = windows(&sequences, &options, &mut warnings);
        if windows.is_empty() {
            return Err(no_window());
        }
        let registered = None;
        let mut set =
            Dataset { source, split, options, file_grid, grid, first_voxel, sequences, windows, registered, warnings };
        if set.options.registered {
            set.take_registered(root.as_ref())?;
        }
        Ok(set)
    }

    /// Takes the poses that registration found, and leaves out the clips for which it found none.
    fn take_registered(&mut self, root: &Path) -> Result<()> {
        let command = format!("`sep4d register {}`", shell_quoted(root));
        let found = registered(self);
        let missing = self.sequences.iter().zip(&found).find(|(_, trajectory)| trajectory.is_none());
        if let Some((sequence, _)) = missing {
            let name = &sequence.name;
            return Err(Error::Data(format!(
                "the sequence {name} has not been registered as it is now; run {command}"
            )));
        }
        let all = self.windows.len();
        self.registered = Some(found.into_iter().flatten().collect());
        let windows = std::mem::take(&mut self.windows).into_iter();
        let is_known = |&(number, start): &(usize, usize)| {
            self.places(number, start).is_some_and(|places| self.poses(number, &places).is_some())
        };
        let windows: Vec<(usize, usize)> = windows.filter(is_known).collect();
        self.windows = windows;
        match all - self.windows.len() {
            0 => {}
            lost if lost == all => {
                return Err(Error::Data(format!(
                    "registration has no clip of {} frames of which it can tell how they lie; use fewer frames per clip \
                     (data.frames), or align by nothing (model.align)",
                    self.options.frames_per_clip
                )));
            }
            lost => self.warnings.push(format!(
                "{lost} of {all} clips are left out: registration cannot tell how their frames lie ({command} lists them)"
            )),
        }
        Ok(())
    }

    /// The places of the frames of the clip that begins at `start` of sequence `number`.
    fn places(&self, number: usize, start: usize) -> Option<Vec<usize>> {
        let sequence = &self.sequences[number];
        numbers::clip(&sequence.numbers, start, self.options.frames_per_clip, self.apart(sequence))
    }

    /// The poses of frames of sequence `number` in one common frame, if they are known.
    fn poses(&self, number: usize, places: &[usize]) -> Option<Vec<Pose>> {
        let (&first, &last) = (places.first()?, places.last()?);
        let (poses, begin) = match &self.registered {
            Some(trajectories) => (trajectories[number].across(first..last + 1)?, first),
            None => (self.sequences[number].poses.as_deref()?, 0),
        };
        places.iter().map(|place| poses.get(place - begin).copied()).collect()
    }

    /// How many clips there are: every window of T frames within a sequence.
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    /// Whether the files have poses of every sequence.
    pub fn has_poses(&self) -> bool {
        self.sequences.iter().all(|sequence| sequence.poses.is_some())
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
    pub fn options(&self) -> &DatasetOptions {
        &self.options
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
    pub fn classes(&self) -> &Arc<ClassSet> {
        self.source.classes()
    }

    /// What was recognised, which id is free and what counts as observed: a sentence without its full stop.
    pub fn about(&self) -> String {
        format!("{} is {}", self.source.base().display(), self.source.about())
    }

    /// What writes frames of its clips into the folder `out`, in its own format.
    ///
    /// # Errors
    /// [`Error::Data`] if what belongs to the whole cannot be written.
    pub fn sink(&self, out: &Path) -> Result<Box<dyn Sink>> {
        self.source.sink(out, &self.grid)
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

    /// By how much frame numbers grow from one frame of clip `index` to the next; `None` if there is no such clip.
    pub fn frame_step(&self, index: usize) -> Option<usize> {
        let &(sequence, _) = self.windows.get(index)?;
        Some(self.apart(self.sequences.get(sequence)?))
    }

    /// By how much numbers grow within a clip of the sequence.
    fn apart(&self, sequence: &Sequence) -> usize {
        self.options.stride.saturating_mul(sequence.step)
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
        self.clip_through(index, None)
    }

    /// [`Dataset::clip`], with the frames that `kept` has taken from there; those that it has not are read side by side.
    pub(super) fn clip_through(&self, index: usize, kept: Option<&FrameCache>) -> Result<Clip> {
        let &(number, start) = self
            .windows
            .get(index)
            .ok_or_else(|| Error::Usage(format!("there is no clip {index}; the split has {}", self.len())))?;
        let sequence = &self.sequences[number];
        let apart = self.apart(sequence);
        let gone = || Error::Usage(format!("clip {index} of the sequence {} is incomplete", sequence.name));
        let places = self.places(number, start).ok_or_else(gone)?;
        let frame = |&i: &usize| match kept {
            Some(kept) => kept.get((number, i), || self.frame(sequence, i)),
            None => self.frame(sequence, i),
        };
        let frames: Vec<Result<Frame>> = places.par_iter().map(frame).collect();
        // Of several failures the first is told, whichever came first.
        let frames = frames.into_iter().collect::<Result<Vec<Frame>>>()?;
        let singular = || {
            let (number, name) = (sequence.numbers[places[places.len() / 2]], &sequence.name);
            Error::Data(format!(
                "the pose of frame {number} of sequence {name} has no inverse; correct or remove its poses.txt"
            ))
        };
        let poses = self.poses(number, &places);
        let poses = poses.map(|poses| relative_to_middle(&poses).ok_or_else(singular)).transpose()?;
        Ok(Clip {
            frames,
            poses,
            times_secs: places.iter().map(|&i| sequence.times_secs[i]).collect(),
            sequence: sequence.name.clone(),
            first_frame: sequence.numbers[start],
            frame_step: apart,
        })
    }

    /// Puts clips of this data set together as the model is to see them.
    ///
    /// # Errors
    /// [`Error::Shape`] as for [`Batch::from_clips`].
    pub fn batch(&self, clips: &[Clip]) -> Result<Batch> {
        let mut batch = Batch::from_clips(clips, &self.grid)?;
        // Whatever the files have there: in some data sets what nobody saw is labelled all the same.
        let unseen = match self.options.unobserved {
            Unobserved::Free => 0,
            Unobserved::Ignore => IGNORED,
        };
        let voxels = batch.labels.iter_mut().zip(&batch.observed);
        voxels.filter(|(_, observed)| **observed == 0).for_each(|(label, _)| *label = unseen);
        Ok(batch)
    }

    /// Reads clips side by side and keeps nothing: what is wrong with them is known then.
    ///
    /// # Errors
    /// As for [`Dataset::clip`], of the first that has one.
    pub fn read(&self, clips: &[usize]) -> Result<()> {
        clips.par_iter().find_map_first(|&clip| self.clip(clip).err()).map_or(Ok(()), Err)
    }

    /// How many voxels of each class all frames of the split hold (`[K]`), of those that are trained on: unobserved ones are
    /// included where they are trained as free space.
    ///
    /// Counts with all cores; the result is kept in a file beside the data, or in the user's cache folder where the data
    /// is read-only, and used again as long as no file has changed.
    ///
    /// # Errors
    /// [`Error::Data`] as for [`Dataset::clip`].
    pub fn class_counts(&self) -> Result<Vec<u64>> {
        counts::cached(self)
    }

    pub(super) fn frame(&self, sequence: &Sequence, i: usize) -> Result<Frame> {
        let Frame { labels, observed } = source::frame(&*self.source, sequence, i)?;
        Ok(Frame { labels: self.cut(labels), observed: self.cut(observed) })
    }

    /// The cropped part of a frame's array.
    pub(super) fn cut<V: Copy>(&self, values: Vec<V>) -> Vec<V> {
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

/// The split itself, or Test in place of a missing Val.
fn available_split(source: &dyn Source, split: Split, warnings: &mut Vec<String>) -> Result<Split> {
    if source.has(split)? {
        return Ok(split);
    }
    if split == Split::Val && source.has(Split::Test)? {
        warnings.push(format!("{} has no Val split: validating on Test", source.base().display()));
        return Ok(Split::Test);
    }
    // Of the other splits only those are proposed that can be read.
    let others = Split::ALL.into_iter().filter(|&other| source.has(other).unwrap_or(false));
    let others: Vec<&str> = others.map(Split::folder).collect();
    let advice = if others.is_empty() {
        "add sequences, or make a data set with `sep4d synth`".to_owned()
    } else {
        format!("choose a split that is there ({}), or add it", others.join(", "))
    };
    Err(Error::Data(format!("{} is missing or has no sequences; {advice}", source.place(split))))
}

/// Every clip, as the place of its sequence and that of its first frame in it.
fn windows(sequences: &[Sequence], options: &DatasetOptions, warnings: &mut Vec<String>) -> Vec<(usize, usize)> {
    let frames = options.frames_per_clip;
    let mut windows = Vec::new();
    for (s, Sequence { name, numbers, step, .. }) in sequences.iter().enumerate() {
        let before = windows.len();
        let apart = options.stride.saturating_mul(*step);
        let starts = (0..numbers.len()).filter(|&start| numbers::clip(numbers, start, frames, apart).is_some());
        windows.extend(starts.map(|start| (s, start)));
        let missing = gaps(numbers, *step);
        if windows.len() == before {
            let lack =
                if missing.is_empty() { String::new() } else { format!(" ({} missing)", listed(&missing, *step)) };
            warnings.push(format!(
                "sequence {name} is left out: it has {} frames{lack}, but none of its runs has the {frames} of a clip{}",
                numbers.len(),
                strided(options)
            ));
        } else if !missing.is_empty() {
            warnings.push(format!(
                "sequence {name} has gaps in its frame numbers ({} missing); clips that would hold them are left out",
                listed(&missing, *step)
            ));
        }
    }
    windows
}

/// What the stride adds to a message about clips.
fn strided(options: &DatasetOptions) -> String {
    if options.stride == 1 { String::new() } else { format!(" with data.stride = {}", options.stride) }
}

/// Why there is no clip at all.
fn no_window(place: &str, sequences: &[Sequence], options: &DatasetOptions) -> Error {
    let longest = sequences.iter().max_by_key(|sequence| sequence.numbers.len());
    let frames = longest.map_or(0, |sequence| sequence.numbers.len());
    let missing = longest.map(|sequence| listed(&gaps(&sequence.numbers, sequence.step), sequence.step));
    let (lack, advice) = match missing.filter(|missing| !missing.is_empty()) {
        Some(missing) => (format!(", but lacks {missing}"), "copy the missing frames, or use fewer frames per clip"),
        None if options.stride > 1 => (String::new(), "use fewer frames per clip or a smaller data.stride"),
        None => (String::new(), "use fewer frames per clip or longer sequences (`sep4d synth --frames`)"),
    };
    Error::Data(format!(
        "no sequence in {place} has {} consecutive frames{} (the longest has {frames} in all{lack}); {advice}",
        options.frames_per_clip,
        strided(options)
    ))
}
