//! Registration of generated towns and of scenes that tell nothing.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::data::synth::{self, Level, SynthOptions};
use crate::data::{Dataset, DatasetOptions, Frame, Grid};

const ROAD: u8 = 6;
const BUILDING: u8 = 1;
const POLE: u8 = 5;
const VEHICLE: u8 = 10;
const GRID: Grid = Grid { size: [48, 48, 4], voxel_size_m: [0.8, 0.8, 0.75], min_bound_m: [-19.2, -19.2, -2.0] };

/// A town of one sequence with so much traffic.
fn town(parent: &Path, level: Level, frames: usize) -> PathBuf {
    let grid = synth::grid([32, 32, 8], [0.8, 0.8, 0.375]).unwrap();
    let out = parent.join("town");
    let options = SynthOptions { grid, seed: 0, frames, towns: [1, 0, 0], levels: vec![level] };
    synth::write(&out, &options, |_| {}).unwrap();
    out
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A frame of a world seen from `at`, with the heading `yaw`: what `world` has at a height and a place.
fn seen(at: [f64; 2], yaw: f64, world: impl Fn([f64; 2], usize) -> u8) -> Frame {
    let motion = Motion { shift_m: [at[0], at[1], 0.0], yaw };
    let mut labels = vec![0; GRID.voxels()];
    for x in 0..GRID.size[0] {
        for y in 0..GRID.size[1] {
            let place = [x, y].map(|i| (i as f64 + 0.5) * 0.8 - 19.2);
            let [wx, wy, _] = motion.apply([place[0], place[1], 0.0]);
            (0..GRID.size[2]).for_each(|z| labels[GRID.index(x, y, z)] = world([wx, wy], z));
        }
    }
    Frame { observed: vec![true; labels.len()], labels }
}

/// The pairs of some frames.
fn pairs(frames: &[Frame]) -> Vec<Pair> {
    let classes = &synth::CLASSES;
    let mut counts = vec![0; classes.len()];
    frames.iter().flat_map(|frame| &frame.labels).for_each(|&class| counts[usize::from(class)] += 1);
    let channels = Channels::new(&counts, &classes.moves);
    let fields: Vec<Field> = frames.iter().map(|frame| Field::new(frame, &GRID, &channels)).collect();
    let edges = Window { channels: &channels, first: 0, fields: &fields }.edges(0, None);
    trajectory::reconcile(&edges, 0.8, None)
}

/// Houses at some places along a street, poles between them.
fn street([x, y]: [f64; 2], z: usize) -> u8 {
    let is_house = y.abs() > 8.0 && y.abs() < 14.0 && (x + 0.4 * y).rem_euclid(13.0) < 7.3 + 0.2 * y;
    let is_pole = (y.abs() - 6.5).abs() < 0.5 && (x + y).rem_euclid(9.7) < 0.9;
    match z {
        _ if is_house => BUILDING,
        _ if is_pole => POLE,
        0 => ROAD,
        _ => 0,
    }
}

#[test]
fn a_town_is_registered_to_a_part_of_a_voxel_and_kept_as_long_as_no_file_changes() {
    let dir = tempfile::tempdir().unwrap();
    let town = town(dir.path(), Level::Light, 8);
    let options = DatasetOptions { crop: Some([16, 16, 8]), ..DatasetOptions::default() };
    let open = || Dataset::open(&town, Split::Train, options.clone()).unwrap();
    assert_eq!(registered(&open()), [None]);
    let mut done = Vec::new();
    let first = register(&town, &[], |event| match event {
        Event::Done(frames) => done.push(frames),
        Event::Note(note) => panic!("{note}"),
        _ => {}
    });
    let first = first.unwrap();
    let [sequence] = &first[..] else { panic!("there is one sequence") };
    let errors = sequence.errors.as_ref().unwrap();
    assert_eq!((errors.len(), sequence.trajectory.flagged().len(), done.last()), (7, 0, Some(&8)));
    assert!(sequence.trajectory.pairs.iter().any(|pair| pair.motion.length_m() > 0.4), "the sensor moves");
    assert!(median(errors.iter().map(|error| error[0])) < 0.1);
    assert!(median(errors.iter().map(|error| error[1].to_degrees())) < 0.2);
    let kept = registered(&open());
    assert_eq!(kept, [Some(sequence.trajectory.clone())]);
    assert_eq!(kept[0].as_ref().unwrap().whole().unwrap().len(), 8);
    assert_eq!(register(&town, &[Split::Train], |_| {}).unwrap(), first);
    let shown = overlay(&town, &first, 4).unwrap().unwrap();
    let occupied = |labels: &[u8]| labels.iter().filter(|label| **label != 0).count();
    assert!(occupied(&shown.aligned) > 0 && shown.frames[1] - shown.frames[0] == 3);
    let label = town.join("Cartesian/Train/Town01_Light/cartesian/evaluation/000003.label");
    let later = fs::metadata(&label).unwrap().modified().unwrap() + std::time::Duration::from_secs(1);
    fs::File::options().write(true).open(&label).unwrap().set_modified(later).unwrap();
    assert_eq!(registered(&open()), [None], "a file has changed");
}

#[test]
fn what_moves_does_not_mislead() {
    // Lorries on both lanes, larger than all that stands still beside the houses, drive twice as fast as the sensor.
    let frames: Vec<Frame> = (0..6)
        .map(|t| {
            let t = f64::from(t);
            let world = |[x, y]: [f64; 2], z: usize| {
                let is_lorry = y.abs() < 5.0 && (x - 2.2 * t).rem_euclid(14.0) < 9.0;
                if is_lorry && z > 0 { VEHICLE } else { street([x, y], z) }
            };
            seen([1.1 * t, 0.05 * t], 0.02 * t, world)
        })
        .collect();
    for pair in pairs(&frames) {
        let [x, y, _] = pair.motion.shift_m;
        assert!(pair.flag.is_none(), "{pair:?}");
        assert!((x - 1.1).abs() < 0.15 && y.abs() < 0.15 && (pair.motion.yaw - 0.02).abs() < 0.006, "{pair:?}");
    }
}

#[test]
fn a_scene_that_does_not_tell_is_flagged() {
    let empty: Vec<Frame> = (0..4).map(|t| seen([f64::from(t), 0.0], 0.0, |_, z| u8::from(z == 0) * ROAD)).collect();
    assert!(pairs(&empty).iter().all(|pair| pair.flag == Some(Flag::Featureless)));
    let nothing = vec![Frame { labels: vec![0; GRID.voxels()], observed: vec![false; GRID.voxels()] }; 3];
    assert!(pairs(&nothing).iter().all(|pair| pair.flag == Some(Flag::Featureless)));
    // Between two endless walls nobody knows how far he went.
    let walls = |[_, y]: [f64; 2], z: usize| if y.abs() > 8.0 { BUILDING } else { u8::from(z == 0) * ROAD };
    let canyon: Vec<Frame> = (0..4).map(|t| seen([0.7 * f64::from(t), 0.0], 0.0, walls)).collect();
    assert!(pairs(&canyon).iter().all(|pair| matches!(pair.flag, Some(Flag::Loose | Flag::Ambiguous))));
    // Nor between houses that all look alike, where the search meets the next one.
    let alike =
        |[x, y]: [f64; 2], z: usize| if x.rem_euclid(4.0) < 2.0 { walls([x, y], z) } else { u8::from(z == 0) * ROAD };
    let row: Vec<Frame> = (0..4).map(|t| seen([0.8 * f64::from(t), 0.0], 0.0, alike)).collect();
    let found = pairs(&row);
    assert!(found.iter().any(|pair| pair.flag == Some(Flag::Ambiguous)), "{found:?}");
    // Two places that have nothing in common.
    let there = [seen([0.0, 0.0], 0.0, street), seen([500.0, 300.0], 1.0, |p, z| street([p[1], 31.0 - 1.3 * p[0]], z))];
    assert!(pairs(&there).iter().all(|pair| pair.flag.is_some()));
}

#[test]
fn a_data_set_that_cannot_be_registered_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(register(dir.path(), &[], |_| {}), Err(Error::Data(_))));
    let town = town(dir.path(), Level::Light, 2);
    let refused = register(&town, &[Split::Val], |_| {}).unwrap_err();
    assert!(refused.to_string().contains("choose another --split"), "{refused}");
}
