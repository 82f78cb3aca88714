//! What formats share that have one `.npz` file a frame, all of one known grid.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use super::listing::{Listing, pose_of};
use super::volumes::{Volume, embedded};
use crate::data::folders::look;
use crate::data::npy::{self, Arrays, Values};
use crate::data::numbers::step;
use crate::data::source::{Exported, Findings, Sequence, Sink, Source};
use crate::data::{ClassSet, Grid, Pose, Split, rows_of_pose};
use crate::files::make_folder;
use crate::{Error, Result};

/// The folder beside exported frames for what is no frame.
pub(super) const PLANES: &str = "planes";

/// A recording as its format lists it.
#[derive(Debug, Clone, Default)]
pub(super) struct Recording {
    /// The number and the file of each frame, by rising numbers.
    pub frames: Vec<(usize, PathBuf)>,
    /// When each frame was taken, if that is known, seconds.
    pub times_secs: Option<Vec<f64>>,
    /// The motion of each frame's sensor into the world, if that is known.
    pub poses: Option<Vec<Pose>>,
}

/// A data set with one `.npz` file a frame.
#[derive(Debug)]
pub(super) struct NpzFrames {
    pub listing: Listing<Recording>,
    /// What was recognised, before what is said of ids and masks.
    pub format: String,
    pub classes: Arc<ClassSet>,
    pub grid: Grid,
    /// Names of the arrays of labels, of the mask, and of the pose of a frame.
    pub labels: &'static str,
    pub mask: &'static str,
    /// Whether there are masks; without them every voxel counts as observed.
    pub has_mask: bool,
    pub pose: Option<&'static str>,
    /// From one frame to the next, where nothing else tells.
    pub secs: f64,
    /// A file of the whole that goes with every copy.
    pub whole: Option<PathBuf>,
}

/// The pose that the file of a frame holds in its array `name`, if it has it.
fn read_pose(path: &Path, name: &str) -> Result<Option<Pose>> {
    let mut arrays = Arrays::open(path)?;
    let Some(header) = arrays.header(name)? else { return Ok(None) };
    let wrong = || {
        let path = path.display();
        Error::Data(format!("{path}: the array {name:?} is no 4 x 4 matrix of finite numbers; copy the file again"))
    };
    if header.shape != [4, 4] {
        return Err(wrong());
    }
    let mut values = Vec::new();
    arrays.each(name, 0, header.len(), |_, value| {
        values.push(value);
        Ok(())
    })?;
    pose_of(&values).ok_or_else(wrong).map(Some)
}

impl NpzFrames {
    fn sequence(&self, name: &str, recording: &Recording) -> Result<Sequence> {
        let (numbers, labels): (Vec<usize>, Vec<PathBuf>) = recording.frames.iter().cloned().unzip();
        let step = step(&numbers);
        let first = numbers.first().copied().unwrap_or(0);
        let poses = match (&recording.poses, self.pose) {
            (None, Some(name)) => {
                let poses: Vec<_> = labels.par_iter().map(|path| read_pose(path, name)).collect();
                poses.into_iter().collect::<Result<Option<Vec<Pose>>>>()?
            }
            (poses, _) => poses.clone(),
        };
        Ok(Sequence {
            name: name.to_owned(),
            grid: self.grid,
            step,
            has_times: recording.times_secs.is_some(),
            times_secs: recording.times_secs.clone().unwrap_or_else(|| {
                numbers.iter().map(|number| (number - first) as f64 / step as f64 * self.secs).collect()
            }),
            labels,
            masks: Vec::new(),
            texts: self.whole.iter().cloned().collect(),
            poses,
            numbers,
        })
    }
}

impl Source for NpzFrames {
    fn base(&self) -> &Path {
        self.listing.base()
    }

    fn about(&self) -> String {
        let observed = match self.has_mask {
            true => format!("a voxel is observed where {} is not 0", self.mask),
            false => "there is no mask, so every voxel counts as observed".to_owned(),
        };
        format!("{}; id {} is free; {observed}{}", self.format, self.classes.id_of(0), self.listing.held_out())
    }

    fn classes(&self) -> &Arc<ClassSet> {
        &self.classes
    }

    fn place(&self, split: Split) -> String {
        self.listing.place(split)
    }

    fn has(&self, split: Split) -> Result<bool> {
        Ok(self.listing.has(split))
    }

    fn scan(&self, split: Split, wanted: &[String], findings: &mut Findings) -> Vec<Sequence> {
        self.listing.scan(split, wanted, findings, |listed, _| self.sequence(&listed.name, &listed.part))
    }

    fn inspect(&self, sequence: &Sequence, i: usize) -> Result<()> {
        let path = &sequence.labels[i];
        match look(path)? {
            Some(found) if found.is_file() => Ok(()),
            _ => Err(Error::Data(format!("{} is missing or no regular file; copy it again", path.display()))),
        }
    }

    fn labels(&self, sequence: &Sequence, i: usize) -> Result<Vec<u8>> {
        Volume::of(&sequence.labels[i], self.labels, &self.grid).labels(&self.classes)
    }

    fn observed(&self, sequence: &Sequence, i: usize) -> Result<Vec<bool>> {
        if !self.has_mask {
            return Ok(vec![true; self.grid.voxels()]);
        }
        Volume::of(&sequence.labels[i], self.mask, &self.grid).mask()
    }

    fn sink(&self, out: &Path, grid: &Grid) -> Result<Box<dyn Sink>> {
        if let Some(whole) = &self.whole {
            let copy = out.join(whole.strip_prefix(self.base()).unwrap_or(whole));
            make_folder(out)?;
            std::fs::copy(whole, &copy).map_err(|why| crate::files::unwritable(&copy, &why))?;
        }
        Ok(Box::new(Writer {
            out: out.to_path_buf(),
            base: self.base().to_path_buf(),
            recordings: self.listing.all().iter().map(|of| (of.split, of.name.clone(), of.part.clone())).collect(),
            classes: self.classes.clone(),
            part: *grid,
            whole: self.grid,
            names: [self.labels, self.mask],
            pose: self.pose,
        }))
    }
}

/// Writes each frame to where its original stands.
struct Writer {
    out: PathBuf,
    base: PathBuf,
    recordings: Vec<(Split, String, Recording)>,
    classes: Arc<ClassSet>,
    /// The grid of the frames, and that of the files.
    part: Grid,
    whole: Grid,
    names: [&'static str; 2],
    pose: Option<&'static str>,
}

impl Sink for Writer {
    fn put(&mut self, frame: &Exported) -> Result<()> {
        let of = |(split, name, _): &&(Split, String, Recording)| *split == frame.split && name == frame.sequence;
        let recording = self.recordings.iter().find(of).map(|(_, _, recording)| recording);
        let place = |recording: &Recording| recording.frames.binary_search_by_key(&frame.number, |frame| frame.0).ok();
        let Some((recording, at)) = recording.and_then(|recording| Some((recording, place(recording)?))) else {
            let (number, sequence) = (frame.number, frame.sequence);
            return Err(Error::Data(format!("there is no frame {number} of {sequence} to write the like of")));
        };
        let original = &recording.frames[at].1;
        let path = self.out.join(original.strip_prefix(&self.base).unwrap_or(original));
        path.parent().map_or(Ok(()), make_folder)?;
        let classes = &self.classes;
        let ids: Vec<u8> = frame.labels.iter().map(|&class| classes.id_of(class) as u8).collect();
        let observed: Vec<u8> = frame.observed.iter().map(|&seen| seen.into()).collect();
        let ids = embedded(&ids, &self.part, &self.whole, classes.id_of(0) as u8)?;
        let observed = embedded(&observed, &self.part, &self.whole, 0)?;
        let size = &self.whole.size;
        let [labels, mask] = self.names;
        let mut arrays = vec![(labels, &size[..], Values::Bytes(&ids)), (mask, &size[..], Values::Bytes(&observed))];
        let pose = self.pose.map_or(Ok(None), |name| read_pose(original, name))?;
        let pose = pose.map(|pose| [&rows_of_pose(&pose)[..], &[0.0, 0.0, 0.0, 1.0]].concat());
        if let (Some(name), Some(pose)) = (self.pose, &pose) {
            arrays.push((name, &[4, 4], Values::Floats(pose)));
        }
        npy::write(&path, &arrays)
    }

    fn beside(&self, _: Split, sequence: &str) -> PathBuf {
        self.out.join(PLANES).join(sequence)
    }
}
