//! The procedural town: what it writes, that it repeats, and that it resembles CarlaSC.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use sep4d::Error;
use sep4d::data::formats::carla_sc;
use sep4d::data::synth::{self, Level, SynthOptions};
use sep4d::data::{Dataset, DatasetOptions, Grid, Split};
use tempfile::TempDir;

fn small(seed: u64) -> SynthOptions {
    SynthOptions {
        grid: synth::grid([24, 16, 8], [0.8, 0.8, 0.375]).unwrap(),
        seed,
        frames: 5,
        towns: [1, 0, 1],
        levels: vec![Level::Light, Level::Heavy],
    }
}

/// All files but hidden ones, which hold when the others were written.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.file_name().unwrap().to_string_lossy().starts_with('.') {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                found.insert(name, fs::read(path).unwrap());
            }
        }
    }
    found
}

#[test]
fn the_seed_alone_decides_every_byte() {
    let written = |seed: u64, threads: usize| {
        let dir = TempDir::new().unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let summary = pool.install(|| synth::write(dir.path(), &small(seed), |_| {})).unwrap();
        (files(dir.path()), summary)
    };
    let first = written(1, 1);
    assert!(first == written(1, 3), "the number of threads changed the files");
    let other = written(2, 1);
    assert_eq!(first.0.keys().collect::<Vec<_>>(), other.0.keys().collect::<Vec<_>>());
    let label = "Cartesian/Train/Town01_Heavy/cartesian/evaluation/000003.label";
    assert_ne!(first.0[label], other.0[label]);
    assert_ne!(first.0[label], first.0[&label.replace("Train/Town01", "Test/Town02")], "the test town is a train town");
}

#[test]
fn the_reader_reads_it_back_without_a_warning() {
    let dir = TempDir::new().unwrap();
    let mut calls = Vec::new();
    let summary = synth::write(dir.path(), &small(3), |done| calls.push(done)).unwrap();
    assert_eq!((summary.frames, calls.last()), (20, Some(&20)));
    let mut counts = vec![0; 11];
    for split in [Split::Train, Split::Test] {
        let dataset =
            Dataset::open(dir.path(), split, DatasetOptions { frames_per_clip: 4, ..Default::default() }).unwrap();
        assert!(dataset.warnings().is_empty(), "{:?}", dataset.warnings());
        assert_eq!((dataset.len(), dataset.grid()), (4, small(3).grid));
        counts.iter_mut().zip(dataset.class_counts().unwrap()).for_each(|(sum, count)| *sum += count);
        let clip = dataset.clip(0).unwrap();
        assert_eq!(clip.times_secs, [0.0, 0.1, 0.2, 0.3]);
        assert_eq!(clip.poses.unwrap().len(), 4);
        for frame in &clip.frames {
            let hidden = frame.labels.iter().zip(&frame.observed).filter(|(_, observed)| !**observed);
            assert!(hidden.clone().count() > 0 && hidden.into_iter().all(|(&class, _)| class == 0));
        }
    }
    assert_eq!(counts, summary.class_counts);
}

#[test]
fn only_its_own_folder_is_written_over() {
    let dir = TempDir::new().unwrap();
    synth::write(dir.path(), &small(1), |_| {}).unwrap();
    synth::write(dir.path(), &SynthOptions { frames: 2, ..small(1) }, |_| {}).unwrap();
    assert!(!files(dir.path()).keys().any(|name| name.contains("000002")), "frames of the earlier result remain");

    let foreign = TempDir::new().unwrap();
    fs::write(foreign.path().join("thesis.txt"), "mine").unwrap();
    let error = synth::write(foreign.path(), &small(1), |_| {}).unwrap_err();
    assert!(matches!(&error, Error::Usage(message) if message.contains("not empty")), "{error}");
    assert_eq!(files(foreign.path()).len(), 1);
    // What a file manager leaves in a new folder is nobody's work.
    let looked_at = TempDir::new().unwrap();
    fs::write(looked_at.path().join(".DS_Store"), "").unwrap();
    synth::write(looked_at.path(), &small(1), |_| {}).unwrap();
    let nothing = SynthOptions { levels: vec![], ..small(1) };
    assert!(matches!(synth::write(&dir.path().join("new"), &nothing, |_| {}), Err(Error::Usage(_))));
}

#[test]
fn class_shares_resemble_those_of_carla_sc() {
    let dir = TempDir::new().unwrap();
    let options = SynthOptions { frames: 2, towns: [14, 0, 0], ..SynthOptions::default() };
    let summary = synth::write(dir.path(), &options, |_| {}).unwrap();
    let total = summary.class_counts.iter().sum::<u64>() as f64;
    let published = carla_sc::published_frequencies();
    let occupied = 1.0 - summary.class_counts[0] as f64 / total;
    assert!((0.09..0.14).contains(&occupied), "{occupied}\n{}", summary.table(&options.grid));
    for (count, want) in summary.class_counts.iter().zip(published) {
        let ratio = *count as f64 / total / want;
        assert!((0.5..2.0).contains(&ratio), "{}", summary.table(&options.grid));
    }
}

#[test]
fn the_static_world_moves_with_the_poses() {
    let grid = Grid::CARLA_SC;
    let clip = synth::clip(&grid, 11, 12);
    let building = 1;
    let (mut held, mut total) = (0, 0);
    let middle = &clip.frames[6];
    for (frame, pose) in clip.frames.iter().zip(clip.poses.as_ref().unwrap()) {
        for (i, _) in frame.labels.iter().enumerate().filter(|(_, class)| **class == building) {
            let voxel = [i / 1024, i / 8 % 128, i % 8];
            let p: [f64; 3] =
                std::array::from_fn(|a| grid.min_bound_m[a] + (voxel[a] as f64 + 0.5) * grid.voxel_size_m[a]);
            let moved = pose.transform_point3(p.into());
            let at: [f64; 3] =
                std::array::from_fn(|a| ((moved[a] - grid.min_bound_m[a]) / grid.voxel_size_m[a]).floor());
            if (1.0..127.0).contains(&at[0]) && (1.0..127.0).contains(&at[1]) {
                total += 1;
                let near = |x: usize, y: usize| middle.labels[grid.index(x, y, voxel[2])] == building;
                let [x, y] = [at[0] as usize, at[1] as usize];
                held += usize::from((x - 1..=x + 1).any(|x| (y - 1..=y + 1).any(|y| near(x, y))));
            }
        }
    }
    let travelled = clip.poses.as_ref().unwrap().iter().map(|pose| pose.translation.x.abs()).fold(0.0, f64::max);
    assert!(travelled > 1.0, "the ego stood still, so nothing was tested");
    assert!(total > 1000 && held * 100 > total * 95, "{held} of {total} building voxels stay in place");
}

#[test]
fn every_grid_gives_a_scene() {
    for (size, voxel) in [
        ([2, 2, 2], [0.4, 0.4, 0.375]),
        ([32, 32, 8], [1.2, 1.2, 0.375]),
        ([32, 64, 4], [0.8, 0.4, 0.75]),
        ([64, 64, 16], [0.2, 0.2, 0.2]),
        ([130, 130, 8], [5.0, 5.0, 0.375]),
    ] {
        let grid = synth::grid(size, voxel).unwrap();
        let clip = synth::clip(&grid, 4, 2);
        for frame in &clip.frames {
            assert_eq!((frame.labels.len(), frame.observed.len()), (grid.voxels(), grid.voxels()));
            let occupied = frame.labels.iter().filter(|&&class| class != 0).count();
            // Far more than the nearest street cannot be seen in a grid of 650 m.
            assert!(occupied * 400 > grid.voxels() && occupied * 4 < grid.voxels() * 3, "{size:?}: {occupied}");
        }
    }
    assert!(synth::grid([31, 32, 8], [0.4; 3]).is_err());
    assert!(synth::grid([1 << 20, 1 << 20, 8], [0.4; 3]).is_err());
    assert!(synth::grid([32, 32, 8], [0.4, f64::NAN, 0.4]).is_err());
    assert_eq!(synth::grid([128, 128, 8], [0.4, 0.4, 0.375]).unwrap(), Grid::CARLA_SC);
}

#[test]
fn a_town_is_known_again_by_its_options_and_only_when_it_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let grid = synth::grid([8, 8, 4], [0.8, 0.8, 0.375]).unwrap();
    let options = SynthOptions { grid, frames: 2, towns: [1, 0, 0], levels: vec![Level::Light], ..Default::default() };
    assert!(!synth::is_written(folder.path(), &options));
    synth::write(folder.path(), &options, |_| {}).unwrap();
    assert!(synth::is_written(folder.path(), &options));
    assert!(!synth::is_written(folder.path(), &SynthOptions { seed: 1, ..options.clone() }));
    std::fs::write(folder.path().join("INCOMPLETE.txt"), "").unwrap();
    assert!(!synth::is_written(folder.path(), &options));
    // What a kill leaves goes; what looks like it and is somebody's stays.
    let hidden = |name: &str| folder.path().join(name);
    std::fs::write(hidden(".INCOMPLETE.txt.a1B2c3"), "").unwrap();
    std::fs::write(hidden(".notes.txt.backup"), "").unwrap();
    synth::write(folder.path(), &options, |_| {}).unwrap();
    assert!(synth::is_written(folder.path(), &options));
    assert!(!hidden(".INCOMPLETE.txt.a1B2c3").exists() && hidden(".notes.txt.backup").exists());
}
