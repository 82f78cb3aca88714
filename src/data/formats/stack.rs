//! Reader of plain NumPy stacks: anybody's voxels.
//!
//! ```text
//! ROOT/NAME.npy or NAME.npz   labels of any type of number, [T, X, Y, Z] or [N, T, X, Y, Z]; one sequence, or N of them
//! ROOT/voxels.toml            what the numbers mean (optional; every key is optional)
//! ```
//!
//! An `.npz` may also hold a mask of the labels' shape (not 0 = observed), `poses` `[(N,) T, 3 or 4, 4]` (row major, sensor to
//! world) and `times` `[(N,) T]` (seconds). Files whose names begin with `val` or `test` are of those splits.
//!
//! ```toml
//! name = "My voxels"
//! voxel_size = [0.4, 0.4, 0.4]     # metres
//! min_bound = [-40.0, -40.0, -1.0] # the corner of voxel (0, 0, 0), metres from the sensor
//! handedness = "right"             # y points left; "left": y points right
//! labels = "semantics"             # names of arrays in .npz
//! mask = "mask_lidar"              # "" for none
//! fps = 10.0
//! free = 0                         # ids
//! ignore = [255]
//! [classes]                        # by id; without them every id that occurs is a class
//! 0 = "free"
//! 1 = "building"
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use super::listing::{Listed, Listing, pose_of};
use super::npz_frames::PLANES;
use super::volumes::{MOST_VOXELS, Volume};
use crate::data::classes::{IGNORED, MOST_CLASSES, color, safe_color};
use crate::data::folders::{entries, look};
use crate::data::npy::{self, Arrays, ONLY, Values};
use crate::data::source::{Exported, Findings, Sequence, Sink, Source, name};
use crate::data::{ClassSet, Grid, Handedness, Split, by};
use crate::files::{read_text_at_most, write_atomically};
use crate::{Error, Result};

/// The file that says what the numbers mean.
const MEANING: &str = "voxels.toml";
/// It is not longer.
const LONGEST_MEANING: u64 = 1 << 20;
/// No id is larger.
const LARGEST_ID: u64 = 65_535;
/// Names of arrays of labels and of masks, the likeliest first.
const LABELS: [&str; 6] = ["labels", "semantics", "voxels", "occ_label", "occupancy", "arr_0"];
const MASKS: [&str; 5] = ["mask", "observed", "mask_lidar", "mask_camera", "valid"];

/// What the numbers mean.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Meaning {
    name: Option<String>,
    voxel_size: Option<[f64; 3]>,
    min_bound: Option<[f64; 3]>,
    handedness: Handedness,
    labels: Option<String>,
    mask: Option<String>,
    fps: Option<f64>,
    free: u64,
    ignore: Vec<u64>,
    classes: BTreeMap<String, String>,
}

/// One sequence: where it stands in its file.
#[derive(Debug, Clone)]
struct Part {
    path: PathBuf,
    labels: String,
    mask: Option<String>,
    size: [usize; 3],
    /// The number of its first frame within the array, and of its frames.
    first: usize,
    frames: usize,
}

/// A folder of stacks.
#[derive(Debug)]
struct Stacks {
    listing: Listing<Part>,
    meaning: Meaning,
    classes: Arc<ClassSet>,
}

/// The data set at `root`, if `.npy` or `.npz` files stand there.
pub(super) fn open(root: &Path) -> Result<Option<Arc<dyn Source>>> {
    let is_array = |path: &PathBuf| {
        path.extension().is_some_and(|e| e.eq_ignore_ascii_case("npy") || e.eq_ignore_ascii_case("npz"))
            && look(path).map_or(true, |found| found.is_some_and(|found| !found.is_dir()))
    };
    let files: Vec<PathBuf> = entries(root)?.into_iter().filter(is_array).collect();
    if files.is_empty() {
        return Ok(None);
    }
    let meaning = Meaning::read(&root.join(MEANING))?;
    let mut all = Vec::new();
    for path in &files {
        all.extend(parts(path, &meaning)?);
    }
    let listing = Listing::new(root, all);
    let classes = Arc::new(meaning.classes(&listing)?);
    Ok(Some(Arc::new(Stacks { listing, meaning, classes })))
}

impl Meaning {
    fn read(path: &Path) -> Result<Meaning> {
        if look(path)?.is_none() {
            return Ok(Meaning::default());
        }
        let text = read_text_at_most(path, LONGEST_MEANING)?;
        let wrong = |why: String| Error::Data(format!("{}: {why}; correct it", path.display()));
        let meaning: Meaning = toml::from_str(&text)
            .map_err(|why: toml::de::Error| wrong(why.message().lines().collect::<Vec<_>>().join(", ")))?;
        let edges = meaning.voxel_size.unwrap_or([1.0; 3]);
        if !edges.iter().all(|edge| *edge > 0.0 && edge.is_finite()) {
            return Err(wrong(format!("voxel_size is {edges:?}, but the edges of a voxel are longer than 0")));
        }
        let bound = meaning.min_bound.unwrap_or_default();
        if !bound.iter().all(|bound| bound.is_finite()) {
            return Err(wrong(format!("min_bound is {bound:?}, which is no place")));
        }
        if !meaning.fps.is_none_or(|fps| fps > 0.0 && fps.is_finite()) {
            return Err(wrong("fps must be above 0".into()));
        }
        let ids = meaning.ids().map_err(wrong)?;
        if let Some(id) = ids.keys().chain(&meaning.ignore).chain([&meaning.free]).find(|id| **id > LARGEST_ID) {
            return Err(wrong(format!("the id {id} is above {LARGEST_ID}")));
        }
        if meaning.ignore.contains(&meaning.free) {
            return Err(wrong(format!("the id {} is both free and to be ignored", meaning.free)));
        }
        Ok(meaning)
    }

    /// The names of the classes by their ids.
    fn ids(&self) -> Result<BTreeMap<u64, String>, String> {
        let id = |(id, name): (&String, &String)| match id.trim().parse::<u64>() {
            Ok(id) => Ok((id, name.clone())),
            Err(_) => Err(format!("classes has {id:?}, which is no id")),
        };
        self.classes.iter().map(id).collect()
    }

    /// The classes, free space first; those that occur where none are named.
    fn classes(&self, listing: &Listing<Part>) -> Result<ClassSet> {
        let mut ids = self.ids().map_err(Error::Data)?;
        if ids.is_empty() {
            ids = occurring(listing, &self.ignore)?.into_iter().map(|id| (id, format!("Class {id}"))).collect();
            ids.insert(self.free, "Free".to_owned());
        }
        ids.entry(self.free).or_insert_with(|| "Free".to_owned());
        ids.retain(|id, _| !self.ignore.contains(id));
        let name = self.name.clone().unwrap_or_else(|| name(listing.base()));
        if !(2..=MOST_CLASSES).contains(&ids.len()) {
            return Err(Error::Data(format!(
                "{} has {} classes, free space included, but it takes from 2 to {MOST_CLASSES}; name them in {MEANING}",
                listing.base().display(),
                ids.len()
            )));
        }
        let free = (self.free, ids.remove(&self.free).unwrap_or_default());
        let rows: Vec<(u64, String)> = [free].into_iter().chain(ids).collect();
        let classes: Vec<_> =
            rows.iter().enumerate().map(|(class, row)| (row.1.clone(), color(class), safe_color(class))).collect();
        let ids = rows.iter().enumerate().map(|(class, row)| (row.0 as u16, class as u8));
        let ignored = self.ignore.iter().map(|id| (*id as u16, IGNORED));
        Ok(ClassSet::new(&name, self.handedness, classes, ids.chain(ignored)))
    }

    /// The grid of volumes of this size.
    fn grid(&self, size: [usize; 3]) -> Grid {
        let voxel_size_m = self.voxel_size.unwrap_or([1.0; 3]);
        let middle = |axis: usize| if axis == 2 { 0.0 } else { -(size[axis] as f64) * voxel_size_m[axis] / 2.0 };
        Grid { size, voxel_size_m, min_bound_m: self.min_bound.unwrap_or_else(|| std::array::from_fn(middle)) }
    }
}

/// Every id that occurs and is not ignored.
fn occurring(listing: &Listing<Part>, ignored: &[u64]) -> Result<Vec<u64>> {
    let of = |part: &Part| -> Result<Vec<bool>> {
        let mut found = vec![false; LARGEST_ID as usize + 1];
        let voxels: usize = part.size.iter().product();
        let (from, count) = (part.first * voxels, part.frames * voxels);
        Arrays::open(&part.path)?.each(&part.labels, from, count, |at, id| {
            let slot = if id >= 0.0 && id.fract() == 0.0 { found.get_mut(id as usize) } else { None };
            *slot.ok_or_else(|| {
                let (path, voxel) = (part.path.display(), from + at);
                Error::Data(format!(
                    "{path} has {id} as its value number {voxel}, which is no class id from 0 to {LARGEST_ID}; say in \
                     {MEANING} which array has the labels"
                ))
            })? = true;
            Ok(())
        })?;
        Ok(found)
    };
    let parts: Vec<&Part> = listing.all().iter().map(|listed| &listed.part).collect();
    let found: Vec<Result<Vec<bool>>> = parts.par_iter().map(|part| of(part)).collect();
    let mut all = vec![false; LARGEST_ID as usize + 1];
    for found in found {
        all.iter_mut().zip(found?).for_each(|(all, found)| *all |= found);
    }
    let ids = (0..=LARGEST_ID).filter(|id| all[*id as usize] && !ignored.contains(id)).collect::<Vec<_>>();
    Ok(ids)
}

/// The sequences of a file.
fn parts(path: &Path, meaning: &Meaning) -> Result<Vec<Listed<Part>>> {
    let mut arrays = Arrays::open(path)?;
    let names = arrays.names();
    let has = |name: &str| names.iter().any(|other| other == name);
    let labels = match &meaning.labels {
        _ if has(ONLY) => ONLY.to_owned(),
        Some(name) => name.clone(),
        None => {
            let known = LABELS.into_iter().find(|name| has(name)).map(str::to_owned);
            known.or_else(|| names.first().filter(|_| names.len() == 1).cloned()).ok_or_else(|| {
                Error::Data(format!(
                    "{} has the arrays {}, none of which is called {:?}; say in {MEANING} which has the labels: labels = \"...\"",
                    path.display(),
                    names.join(", "),
                    LABELS[0]
                ))
            })?
        }
    };
    let header = arrays.header(&labels)?.ok_or_else(|| npy::missing(path, &labels))?;
    let wrong = |why: &str| {
        let (path, shape) = (path.display(), &header.shape);
        Error::Data(format!("{path}: the labels have the shape {shape:?}, {why}; save them so"))
    };
    let (sequences, frames, size) = match header.shape[..] {
        [t, x, y, z] => (None, t, [x, y, z]),
        [n, t, x, y, z] => (Some(n), t, [x, y, z]),
        _ => return Err(wrong("which is neither [T, X, Y, Z] nor [N, T, X, Y, Z]")),
    };
    let voxels = size.iter().try_fold(1usize, |product, side| product.checked_mul(*side));
    if header.len() == 0 || voxels.is_none_or(|voxels| voxels > MOST_VOXELS) {
        return Err(wrong(&format!("and a frame has from 1 to {MOST_VOXELS} voxels")));
    }
    let mask = match &meaning.mask {
        Some(name) => (!name.is_empty() && labels != ONLY).then(|| name.clone()),
        None => MASKS.into_iter().find(|name| has(name)).map(str::to_owned),
    };
    if let Some(mask) = &mask {
        let of = arrays.header(mask)?.ok_or_else(|| npy::missing(path, mask))?;
        if of.shape != header.shape {
            return Err(wrong(&format!("but the mask {mask:?} has {:?}", of.shape)));
        }
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let lower = stem.to_lowercase();
    let is_of = |split: &Split| lower.starts_with(&split.folder().to_lowercase());
    let split = [Split::Val, Split::Test].into_iter().find(is_of).unwrap_or(Split::Train);
    let part = |n: usize| Listed {
        split,
        name: if sequences.is_some() { format!("{stem}-{n:03}") } else { stem.clone() },
        part: Part { path: path.into(), labels: labels.clone(), mask: mask.clone(), size, first: n * frames, frames },
    };
    Ok((0..sequences.unwrap_or(1)).map(part).collect())
}

impl Stacks {
    /// The values of the array `name` for each frame of a sequence, if there is such an array of so many values a frame.
    fn beside(&self, part: &Part, name: &str, widths: &[usize]) -> Result<Option<Vec<Vec<f64>>>> {
        let mut arrays = Arrays::open(&part.path)?;
        let Some(header) = arrays.header(name)? else { return Ok(None) };
        let all = arrays.header(&part.labels)?.map_or(0, |labels| labels.len()) / part.size.iter().product::<usize>();
        let Some(&width) = widths.iter().find(|width| all.checked_mul(**width) == Some(header.len())) else {
            return Err(Error::Data(format!(
                "{}: the array {name:?} has the shape {:?}, which does not fit {all} frames; correct or remove it",
                part.path.display(),
                header.shape
            )));
        };
        let mut rows = Vec::new();
        arrays.each(name, part.first * width, part.frames * width, |at, value| {
            if at % width == 0 {
                rows.push(Vec::new());
            }
            rows.last_mut().into_iter().for_each(|row: &mut Vec<f64>| row.push(value));
            Ok(())
        })?;
        match rows.iter().flatten().any(|value| !value.is_finite()) {
            true => Err(Error::Data(format!("{}: {name:?} has NaN or infinity; correct it", part.path.display()))),
            false => Ok(Some(rows)),
        }
    }

    fn sequence(&self, listed: &Listed<Part>) -> Result<Sequence> {
        let part = &listed.part;
        let numbers: Vec<usize> = (0..part.frames).collect();
        let poses = self.beside(part, "poses", &[12, 16])?;
        let times = self.beside(part, "times", &[1])?;
        let fps = self.meaning.fps.unwrap_or(10.0);
        let meaning = self.listing.base().join(MEANING);
        Ok(Sequence {
            name: listed.name.clone(),
            grid: self.meaning.grid(part.size),
            step: 1,
            labels: vec![part.path.clone(); part.frames],
            masks: Vec::new(),
            texts: look(&meaning)?.map(|_| meaning).into_iter().collect(),
            has_times: times.is_some() || self.meaning.fps.is_some(),
            times_secs: match times {
                Some(times) => times.into_iter().flatten().collect(),
                None => numbers.iter().map(|&number| number as f64 / fps).collect(),
            },
            poses: poses.and_then(|poses| poses.iter().map(|pose| pose_of(pose)).collect()),
            numbers,
        })
    }

    /// The volume `name` of frame `i` of a sequence.
    fn volume<'a>(&self, part: &'a Part, name: &'a str, sequence: &'a Sequence, i: usize) -> Volume<'a> {
        Volume { path: &part.path, name, from: part.first + i, grid: &sequence.grid }
    }

    fn part(&self, sequence: &Sequence) -> Result<&Part> {
        let gone = || Error::Data(format!("the sequence {} is not there any more", sequence.name));
        self.listing.part(&sequence.name).ok_or_else(gone)
    }
}

impl Source for Stacks {
    fn base(&self) -> &Path {
        self.listing.base()
    }

    fn about(&self) -> String {
        let masks = self.listing.all().iter().filter_map(|listed| listed.part.mask.as_ref()).next();
        let observed = match masks {
            Some(mask) => format!("a voxel is observed where {mask:?} is not 0"),
            None => "there is no mask, so every voxel counts as observed".to_owned(),
        };
        let named = if self.meaning.classes.is_empty() {
            format!("every id that occurs is a class, as {MEANING} names none")
        } else {
            format!("{} classes are named in {MEANING}", self.classes.len())
        };
        format!(
            "a folder of NumPy stacks; id {} is free and {named}; {observed}{}",
            self.meaning.free,
            self.listing.held_out()
        )
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
        self.listing.scan(split, wanted, findings, |listed, _| self.sequence(listed))
    }

    fn inspect(&self, _: &Sequence, _: usize) -> Result<()> {
        // The arrays' headers have been read.
        Ok(())
    }

    fn labels(&self, sequence: &Sequence, i: usize) -> Result<Vec<u8>> {
        let part = self.part(sequence)?;
        self.volume(part, &part.labels, sequence, i).labels(&self.classes)
    }

    fn observed(&self, sequence: &Sequence, i: usize) -> Result<Vec<bool>> {
        let part = self.part(sequence)?;
        match &part.mask {
            Some(mask) => self.volume(part, mask, sequence, i).mask(),
            None => Ok(vec![true; sequence.grid.voxels()]),
        }
    }

    fn sink(&self, out: &Path, grid: &Grid) -> Result<Box<dyn Sink>> {
        Ok(Box::new(Writer {
            out: out.to_path_buf(),
            grid: *grid,
            classes: self.classes.clone(),
            fps: self.meaning.fps,
            name: String::new(),
            frames: BTreeMap::new(),
        }))
    }
}

/// Writes an `.npz` a sequence, and what its numbers mean.
struct Writer {
    out: PathBuf,
    grid: Grid,
    classes: Arc<ClassSet>,
    fps: Option<f64>,
    /// The sequence whose frames wait, and these.
    name: String,
    frames: BTreeMap<usize, (Vec<u16>, Vec<u8>)>,
}

impl Writer {
    /// Writes the sequence that waits.
    fn write(&mut self) -> Result<()> {
        let frames = std::mem::take(&mut self.frames);
        if frames.is_empty() {
            return Ok(());
        }
        let [x, y, z] = self.grid.size;
        let shape = [frames.len(), x, y, z];
        let (ids, masks): (Vec<Vec<u16>>, Vec<Vec<u8>>) = frames.into_values().unzip();
        let path = self.out.join(format!("{}.npz", self.name));
        let (ids, masks) = (ids.concat(), masks.concat());
        npy::write(&path, &[(LABELS[0], &shape, Values::Words(&ids)), (MASKS[0], &shape, Values::Bytes(&masks))])
    }

    /// What the numbers mean.
    fn meaning(&self) -> String {
        let classes = &self.classes;
        let id = |class: usize| classes.id_of(class as u8);
        let named = classes.names.iter().enumerate();
        let named: toml::Table =
            named.map(|(class, name)| (id(class).to_string(), toml::Value::String(name.clone()))).collect();
        let handedness = if classes.handedness == Handedness::Left { "left" } else { "right" };
        format!(
            "name = {}\nvoxel_size = {:?}\nmin_bound = {:?}\nhandedness = \"{handedness}\"\n{}free = {}\n\n[classes]\n{named}",
            toml::Value::String(classes.name.clone()),
            self.grid.voxel_size_m,
            self.grid.min_bound_m,
            self.fps.map_or(String::new(), |fps| format!("fps = {fps:?}\n")),
            id(0)
        )
    }
}

impl Sink for Writer {
    fn put(&mut self, frame: &Exported) -> Result<()> {
        if self.name != frame.sequence {
            self.write()?;
            frame.sequence.clone_into(&mut self.name);
        }
        if frame.labels.len() != self.grid.voxels() {
            return Err(Error::Shape(format!("a frame does not fill the grid {}", by(self.grid.size))));
        }
        let ids = frame.labels.iter().map(|&class| self.classes.id_of(class)).collect();
        self.frames.insert(frame.number, (ids, frame.observed.iter().map(|&seen| seen.into()).collect()));
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.write()?;
        write_atomically(&self.out.join(MEANING), self.meaning().as_bytes())
    }

    fn beside(&self, _: Split, sequence: &str) -> PathBuf {
        self.out.join(PLANES).join(sequence)
    }
}
