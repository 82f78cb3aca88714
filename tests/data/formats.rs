//! Data sets in every format but CarlaSC's: what is recognised, read, told and written.

use std::fs;
use std::path::{Path, PathBuf};

use npyz::WriterBuilder;
use npyz::npz::NpzWriter;
use npyz::zip::write::FileOptions;
use sep4d::data::check::{self, Event};
use sep4d::data::{Dataset, DatasetOptions, Exported, Handedness, Split, Unobserved};
use tempfile::TempDir;

/// Of Occ3D's and UniOcc's grid.
const VOXELS: usize = 200 * 200 * 16;
/// A voxel that is occupied in every frame.
const MARK: usize = 77_777;

/// Writes arrays of bytes, or of doubles where the name is that of a pose or of times.
fn npz(path: &Path, arrays: &[(&str, &[u64], Vec<f64>)]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = NpzWriter::create(path).unwrap();
    for (name, shape, values) in arrays {
        if ["poses", "times", "ego_to_world_transformation"].contains(name) {
            let array = file.array::<f64>(name, FileOptions::default()).unwrap().default_dtype().shape(shape);
            let mut array = array.begin_nd().unwrap();
            array.extend(values.iter().copied()).unwrap();
            array.finish().unwrap();
        } else {
            let array = file.array::<i32>(name, FileOptions::default()).unwrap().default_dtype().shape(shape);
            let mut array = array.begin_nd().unwrap();
            array.extend(values.iter().map(|value| *value as i32)).unwrap();
            array.finish().unwrap();
        }
    }
}

/// A frame of Occ3D's grid that is all `free` but for `id` at the mark; all but the last voxel is seen.
fn frame(path: &Path, [labels, mask]: [&str; 2], free: f64, id: f64) {
    let mut ids = vec![free; VOXELS];
    ids[MARK] = id;
    let mut seen = vec![1.0; VOXELS];
    seen[VOXELS - 1] = 0.0;
    npz(path, &[(labels, &[200, 200, 16], ids), (mask, &[200, 200, 16], seen)]);
}

fn options(frames: usize) -> DatasetOptions {
    DatasetOptions { frames_per_clip: frames, ..Default::default() }
}

fn open(root: &Path, split: Split, frames: usize) -> Dataset {
    Dataset::open(root, split, options(frames)).unwrap()
}

/// Expects a refusal in one sentence with these parts, whoever reads it.
fn refused(root: &Path, parts: &[&str]) {
    let read = || -> sep4d::Result<()> {
        let set = Dataset::open(root, Split::Train, options(2))?;
        (0..set.len()).try_for_each(|index| set.clip(index).map(drop))
    };
    let why = read().unwrap_err().to_string();
    assert!(!why.contains('\n'), "{why}");
    for part in parts {
        assert!(why.contains(part), "{part:?} is not in: {why}");
    }
}

/// Expects no problem, and the numbers of frames of the splits.
fn checks(root: &Path, frames: &[(Split, usize)]) -> Vec<String> {
    let mut told = Vec::new();
    let summary = check::check(root, |event| match event {
        Event::Problem(why) => panic!("{why}"),
        Event::Note(note) => told.push(note),
        _ => {}
    });
    let summary = summary.unwrap();
    let found: Vec<(Split, usize)> = summary.splits.iter().map(|split| (split.split, split.frames)).collect();
    assert_eq!(found, frames);
    told.push(summary.about);
    told
}

/// Writes all clips of a split in its own format and reads them again: the labels and what was seen must be the same.
fn survives_export(set: &Dataset) {
    let dir = TempDir::new().unwrap();
    let mut sink = set.sink(dir.path()).unwrap();
    let mut written = Vec::new();
    for index in 0..set.len() {
        let clip = set.clip(index).unwrap();
        for (number, frame) in clip.numbers().zip(&clip.frames) {
            if !written.contains(&(clip.sequence.clone(), number)) {
                written.push((clip.sequence.clone(), number));
                let (labels, observed) = (&frame.labels[..], &frame.observed[..]);
                let sequence = &clip.sequence;
                sink.put(&Exported { split: set.split(), sequence, number, labels, observed }).unwrap();
            }
        }
        // What else is written must not be taken for frames.
        let beside = sink.beside(set.split(), &clip.sequence).join("latents");
        npz(&beside.join("000000.npz"), &[("xy_mu", &[1], vec![0.0])]);
    }
    sink.finish().unwrap();
    let back = Split::ALL.into_iter().find_map(|split| {
        Dataset::open(dir.path(), split, set.options().clone()).ok().filter(|back| back.split() == split)
    });
    let back = back.expect("what was written is a data set");
    let meaning = |set: &Dataset| {
        let classes = set.classes();
        let ids: Vec<u16> = (0..classes.len()).map(|class| classes.id_of(class as u8)).collect();
        (classes.name.clone(), classes.names.clone(), classes.handedness, ids)
    };
    assert_eq!(meaning(&back), meaning(set));
    assert_eq!((back.len(), back.grid()), (set.len(), set.grid()));
    for index in 0..set.len() {
        assert_eq!(back.clip(index).unwrap().frames, set.clip(index).unwrap().frames);
    }
}

/// A stack of two sequences of four frames of 4x4x2 voxels; frame t of sequence n holds ids n and 10 t.
fn stack(path: &Path) {
    let ids = |i: usize| ((i / 32) % 4 * 10 * usize::from(i.is_multiple_of(2)) + i / 128 * (i % 2)) as f64;
    let poses = (0..8).flat_map(|t| [1.0, 0.0, 0.0, f64::from(t), 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    npz(
        path,
        &[
            ("labels", &[2, 4, 4, 4, 2], (0..256).map(ids).collect()),
            ("mask", &[2, 4, 4, 4, 2], (0..256).map(|i| f64::from(u8::from(i % 32 != 5))).collect()),
            ("poses", &[2, 4, 3, 4], poses.collect()),
        ],
    );
}

#[test]
fn a_stack_needs_nothing_else() {
    let dir = TempDir::new().unwrap();
    stack(&dir.path().join("mine.npz"));
    let notes = checks(dir.path(), &[(Split::Train, 4), (Split::Val, 4)]);
    let about = notes.last().unwrap();
    assert!(about.contains("id 0 is free") && about.contains("\"mask\" is not 0"), "{about}");
    assert!(about.contains("the last tenth of its sequences is held out"), "{about}");
    let set = open(dir.path(), Split::Val, 3);
    assert_eq!((set.len(), set.frame_count(), set.grid().size), (2, 4, [4, 4, 2]));
    assert_eq!(set.classes().names, ["Free", "Class 1", "Class 10", "Class 20", "Class 30"]);
    let clip = set.clip(1).unwrap();
    assert_eq!((clip.sequence.as_str(), clip.first_frame), ("mine-001", 1));
    assert_eq!((clip.frames[2].labels[0], clip.frames[2].labels[1]), (4, 1));
    assert!(!clip.frames[0].observed[5] && clip.frames[0].observed[4]);
    assert_eq!(clip.poses.unwrap().iter().map(|pose| pose.translation.x).collect::<Vec<_>>(), [-1.0, 0.0, 1.0]);
    // But for one voxel of each frame, which was not observed.
    assert_eq!(set.class_counts().unwrap()[1], 60);
    survives_export(&open(dir.path(), Split::Val, 3));
}

#[test]
fn a_toml_says_what_a_stack_means() {
    let dir = TempDir::new().unwrap();
    let ids: Vec<f64> = (0..96).map(|i| f64::from([255, 7, 2, 9][i % 4])).collect();
    npz(&dir.path().join("train.npz"), &[("a", &[3, 4, 4, 2], ids.clone()), ("seen", &[3, 4, 4, 2], vec![1.0; 96])]);
    npz(&dir.path().join("val.npz"), &[("a", &[3, 4, 4, 2], ids), ("seen", &[3, 4, 4, 2], vec![0.0; 96])]);
    let say = |text: &str| fs::write(dir.path().join("voxels.toml"), text).unwrap();
    let text = "name = \"Mine\"\nvoxel_size = [0.2, 0.2, 0.1]\nmin_bound = [0.0, -0.4, -1.0]\nhandedness = \"left\"\n\
                labels = \"a\"\nmask = \"seen\"\nfps = 4.0\nfree = 7\nignore = [255]\n[classes]\n2 = \"wall\"\n9 = \"car\"\n";
    say(text);
    let set = open(dir.path(), Split::Train, 2);
    let classes = set.classes().clone();
    assert_eq!((classes.name.as_str(), classes.handedness), ("Mine", Handedness::Left));
    assert_eq!(classes.names, ["Free", "wall", "car"]);
    assert_eq!((set.grid().voxel_size_m, set.grid().min_bound_m), ([0.2, 0.2, 0.1], [0.0, -0.4, -1.0]));
    let clip = set.clip(0).unwrap();
    assert_eq!(clip.frames[0].labels[..4], [0, 0, 1, 2]);
    assert_eq!(clip.frames[0].observed[..4], [false, true, true, true], "what is to be ignored was not seen");
    assert_eq!(clip.times_secs, [0.0, 0.25]);
    assert!(open(dir.path(), Split::Val, 2).clip(0).unwrap().frames[0].observed.iter().all(|seen| !seen));
    survives_export(&set);
    for (from, to, expected) in [
        ("labels = \"a\"", "", "say in voxels.toml which has the labels"),
        ("labels = \"a\"", "labels = \"b\"", "has no array \"b\""),
        ("mask = \"seen\"", "mask = \"b\"", "has no array \"b\""),
        ("9 = \"car\"", "", "has the class id 9 at voxel (0, 1, 1), which Mine does not have"),
        ("9 = \"car\"", "x = \"car\"", "classes has \"x\", which is no id"),
        ("fps = 4.0", "fps = 0.0", "fps must be above 0"),
        ("fps = 4.0", "frames_per_second = 4.0", "unknown field"),
        ("free = 7", "free = 70000", "the id 70000 is above 65535"),
        ("free = 7", "free = 255", "both free and to be ignored"),
        ("voxel_size = [0.2, 0.2, 0.1]", "voxel_size = [0.2, 0.2, 0.0]", "longer than 0"),
    ] {
        say(&text.replace(from, to));
        refused(dir.path(), &[expected]);
    }
}

#[test]
fn what_nobody_saw_is_free_or_unknown() {
    let dir = TempDir::new().unwrap();
    stack(&dir.path().join("mine.npz"));
    let open = |unobserved| {
        let options = DatasetOptions { frames_per_clip: 2, unobserved, ..Default::default() };
        Dataset::open(dir.path(), Split::Val, options).unwrap()
    };
    let (free, ignore) = (open(Unobserved::Free), open(Unobserved::Ignore));
    let clips = [free.clip(1).unwrap()];
    assert_eq!(ignore.clip(1).unwrap(), clips[0], "views and metrics see the same");
    let (free_batch, batch) = (free.batch(&clips).unwrap(), ignore.batch(&clips).unwrap());
    assert_eq!(batch.labels.iter().filter(|label| **label == 255).count(), 2, "one voxel a frame");
    for ((unknown, plain), observed) in batch.labels.iter().zip(&free_batch.labels).zip(&batch.observed) {
        match observed {
            0 => assert_eq!((*unknown, *plain), (255, 0)),
            _ => assert_eq!(unknown, plain),
        }
    }
    // Voxel 5 of each of the four frames is of class 1 in the file.
    let (all, seen) = (free.class_counts().unwrap(), ignore.class_counts().unwrap());
    assert_eq!((all[0] - seen[0], all[1] - seen[1]), (4, 0));
    assert_eq!((all.iter().sum::<u64>(), seen.iter().sum::<u64>()), (128, 124));
}

#[test]
fn stacks_that_are_none_are_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.npz");
    npz(&path, &[("labels", &[4, 4, 2], vec![1.0; 32])]);
    refused(dir.path(), &["a.npz", "[4, 4, 2]", "neither [T, X, Y, Z] nor [N, T, X, Y, Z]"]);
    npz(&path, &[("labels", &[1, 4, 4, 2], vec![-1.0; 32])]);
    refused(dir.path(), &["has -1 as its value number 0", "voxels.toml"]);
    npz(&path, &[("labels", &[1, 4, 4, 2], vec![0.0; 32])]);
    refused(dir.path(), &["has 1 classes, free space included"]);
    npz(&path, &[("labels", &[2, 4, 4, 2], vec![1.0; 64]), ("mask", &[64], vec![1.0; 64])]);
    refused(dir.path(), &["but the mask \"mask\" has [64]"]);
    npz(&path, &[("labels", &[2, 4, 4, 2], vec![1.0; 64]), ("poses", &[7], vec![1.0; 7])]);
    refused(dir.path(), &["\"poses\" has the shape [7], which does not fit 2 frames"]);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    refused(dir.path(), &["a.npz cannot be read"]);
}

/// Two scenes with three frames each, whose tokens stand in the wrong order.
fn occ3d(root: &Path, free: f64) -> PathBuf {
    let mut scenes = serde_json::Map::new();
    for scene in ["scene-0001", "scene-0003"] {
        let mut infos = serde_json::Map::new();
        let tokens = ["c", "a", "b"];
        for (t, token) in tokens.into_iter().enumerate() {
            frame(
                &root.join("gts").join(scene).join(token).join("labels.npz"),
                ["semantics", "mask_lidar"],
                free,
                t as f64 + 1.0,
            );
            infos.insert(
                token.into(),
                serde_json::json!({
                    "timestamp": (1_500_000_000_000_000u64 + 500_000 * t as u64).to_string(),
                    "prev": if t > 0 { tokens[t - 1] } else { "" },
                    "next": tokens.get(t + 1).unwrap_or(&""),
                    "ego_pose": { "translation": [t as f64, 0.0, 0.0], "rotation": [1.0, 0.0, 0.0, 0.0] },
                    "camera_sensor": {},
                }),
            );
        }
        scenes.insert(scene.into(), infos.into());
    }
    let text = serde_json::json!({ "train_split": ["scene-0001"], "val_split": ["scene-0003"], "scene_infos": scenes });
    let path = root.join("annotations.json");
    fs::write(&path, text.to_string()).unwrap();
    path
}

#[test]
fn annotations_order_the_frames_of_occ3d() {
    let dir = TempDir::new().unwrap();
    let path = occ3d(dir.path(), 17.0);
    let notes = checks(dir.path(), &[(Split::Train, 3), (Split::Val, 3)]);
    let about = notes.last().unwrap();
    assert!(about.contains("Occ3D-nuScenes") && about.contains("id 17 is free"), "{about}");
    assert!(about.contains("a voxel is observed where mask_lidar is not 0"), "{about}");
    for root in [dir.path().to_path_buf(), dir.path().join("gts")] {
        let set = open(&root, Split::Val, 3);
        let clip = set.clip(0).unwrap();
        // Ids 1, 2 and 3 are the second, third and fourth class after free space.
        assert_eq!(clip.frames.iter().map(|frame| frame.labels[MARK]).collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!((clip.frames[0].labels[0], clip.frames[0].observed[VOXELS - 1]), (0, false));
        assert_eq!(clip.times_secs, [0.0, 0.5, 1.0]);
        assert_eq!(clip.poses.unwrap().iter().map(|pose| pose.translation.x).collect::<Vec<_>>(), [-1.0, 0.0, 1.0]);
        assert_eq!((set.classes().names[0].as_str(), set.classes().names[5].as_str()), ("Free", "Car"));
        assert_eq!(set.classes().handedness, Handedness::Right);
    }
    survives_export(&open(dir.path(), Split::Val, 2));
    let crop = DatasetOptions { frames_per_clip: 3, crop: Some([100, 100, 8]), ..Default::default() };
    survives_export(&Dataset::open(dir.path(), Split::Train, crop).unwrap());
    // Without timestamps the chain orders them; a frame without labels is a gap.
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("timestamp", "when")).unwrap();
    let labels =
        |split| open(dir.path(), split, 3).clip(0).unwrap().frames.iter().map(|f| f.labels[MARK]).collect::<Vec<_>>();
    assert_eq!(labels(Split::Train), [2, 3, 4]);
    fs::remove_dir_all(dir.path().join("gts/scene-0001/a")).unwrap();
    refused(dir.path(), &["no sequence in the Train split of", "lacks 1"]);
    fs::write(&path, text.replace("timestamp", "when").replace("next", "after")).unwrap();
    refused(dir.path(), &["annotations.json: the frames of scene-0001 have no timestamps and are no chain"]);
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    refused(dir.path(), &["annotations.json does not describe scenes"]);
    fs::remove_file(&path).unwrap();
    refused(dir.path(), &["annotations.json is not there", "do not order the frames"]);
}

#[test]
fn open_occ_is_told_by_its_free_space() {
    let dir = TempDir::new().unwrap();
    occ3d(dir.path(), 16.0);
    let set = open(dir.path(), Split::Train, 3);
    assert!(set.about().contains("OpenOcc-v2") && set.about().contains("id 16 is free"), "{}", set.about());
    assert_eq!(set.classes().names[..4], ["Free", "Car", "Truck", "Trailer"]);
    assert_eq!(set.clip(0).unwrap().frames[0].labels[MARK], 2, "id 1 is a truck");
    survives_export(&set);
    occ3d(dir.path(), 3.0);
    refused(dir.path(), &["is mostly of the id 3, where free space is 17 in Occ3D-nuScenes and 16 in OpenOcc-v2"]);
}

#[test]
fn a_damaged_frame_of_occ3d_is_named() {
    let dir = TempDir::new().unwrap();
    occ3d(dir.path(), 17.0);
    let path = dir.path().join("gts/scene-0001/b/labels.npz");
    let seen = ("mask_lidar", &[200, 200, 16][..], vec![1.0; VOXELS]);
    npz(&path, &[("semantics", &[200, 200, 8], vec![17.0; VOXELS / 2]), seen.clone()]);
    refused(dir.path(), &["b/labels.npz", "[200, 200, 8]", "the grid is 200x200x16"]);
    npz(&path, &[("semantics", &[200, 200, 16], vec![18.0; VOXELS]), seen.clone()]);
    refused(dir.path(), &["b/labels.npz has the class id 18 at voxel (0, 0, 0)", "Occ3D-nuScenes does not have"]);
    npz(&path, &[seen]);
    refused(dir.path(), &["b/labels.npz has no array \"semantics\""]);
    npz(&path, &[("semantics", &[200, 200, 16], vec![17.0; VOXELS])]);
    refused(dir.path(), &["b/labels.npz has no array \"mask_lidar\""]);
    fs::write(&path, "").unwrap();
    refused(dir.path(), &["b/labels.npz cannot be read"]);
}

#[test]
fn free_space_of_waymo_may_have_either_id() {
    for free in [15.0, 23.0] {
        let dir = TempDir::new().unwrap();
        for (split, scenes) in [("training", ["000", "001"]), ("validation", ["000", "001"])] {
            for (scene, t) in scenes.iter().flat_map(|scene| (0..2).map(move |t| (scene, t))) {
                let path = dir.path().join(split).join(scene).join(format!("{t:03}_04.npz"));
                frame(&path, ["voxel_label", "origin_voxel_state"], free, 14.0 - f64::from(t));
            }
        }
        // That of 0.1 m is another matter.
        fs::write(dir.path().join("training/000/000.npz"), "").unwrap();
        let notes = checks(dir.path(), &[(Split::Train, 4), (Split::Val, 4)]);
        assert!(notes.last().unwrap().contains(&format!("Occ3D-Waymo; id {free} is free")), "{notes:?}");
        let set = open(dir.path(), Split::Val, 2);
        assert_eq!((set.len(), set.classes().len()), (2, 16));
        let clip = set.clip(1).unwrap();
        assert_eq!((clip.sequence.as_str(), &clip.times_secs[..]), ("001", &[0.0, 0.1][..]));
        assert_eq!([clip.frames[0].labels[MARK], clip.frames[1].labels[MARK], clip.frames[0].labels[0]], [15, 14, 0]);
        survives_export(&set);
    }
}

#[test]
fn uniocc_is_ordered_by_numbers_and_has_poses() {
    let dir = TempDir::new().unwrap();
    for (name, scene) in [("Carla-10Hz-train", "scene_1"), ("Carla-10Hz-val", "scene_1")] {
        for t in 1..=11 {
            let mut ids = vec![10.0; VOXELS];
            ids[MARK] = f64::from(t % 10);
            let mut pose = vec![0.0; 16];
            [pose[0], pose[5], pose[10], pose[15], pose[3]] = [1.0, 1.0, 1.0, 1.0, 0.5 * f64::from(t)];
            npz(
                &dir.path().join(name).join(scene).join(format!("{t}.npz")),
                &[
                    ("occ_label", &[200, 200, 16], ids),
                    ("occ_mask_camera", &[200, 200, 16], vec![1.0; VOXELS]),
                    ("ego_to_world_transformation", &[4, 4], pose),
                ],
            );
        }
        fs::write(dir.path().join(name).join("scene_infos.pkl"), "a pickle").unwrap();
    }
    let notes = checks(dir.path(), &[(Split::Train, 11), (Split::Val, 11)]);
    assert!(notes.last().unwrap().contains("UniOcc; id 10 is free"), "{notes:?}");
    let set = open(dir.path(), Split::Val, 3);
    assert_eq!((set.len(), set.classes().len()), (9, 11));
    let clip = set.clip(8).unwrap();
    assert_eq!((clip.sequence.as_str(), clip.first_frame), ("Carla-10Hz-val-scene_1", 9));
    assert_eq!(clip.frames.iter().map(|frame| frame.labels[MARK]).collect::<Vec<_>>(), [10, 1, 2]);
    assert_eq!(clip.poses.unwrap().iter().map(|pose| pose.translation.x).collect::<Vec<_>>(), [-0.5, 0.0, 0.5]);
    assert!((clip.times_secs[1] - clip.times_secs[0] - 0.1).abs() < 1e-9);
    survives_export(&set);
    // One of its parts is a data set, too.
    let part = open(&dir.path().join("Carla-10Hz-train"), Split::Val, 3);
    assert!(part.about().contains("its only sequence"), "{}", part.about());
    assert_eq!(part.clip(0).unwrap().sequence, "scene_1");
    let bent = dir.path().join("Carla-10Hz-train/scene_1/3.npz");
    npz(
        &bent,
        &[("occ_label", &[200, 200, 16], vec![10.0; VOXELS]), ("ego_to_world_transformation", &[4], vec![0.0; 4])],
    );
    refused(dir.path(), &["3.npz: the array \"ego_to_world_transformation\" is no 4 x 4 matrix"]);
}

/// A sequence of SemanticKITTI with every fifth scan.
fn kitti(root: &Path, name: &str) -> PathBuf {
    let folder = root.join("sequences").join(name);
    fs::create_dir_all(folder.join("voxels")).unwrap();
    for (t, id) in [(0, 10u16), (5, 252), (10, 52)] {
        let mut bytes = vec![0; 256 * 256 * 32 * 2];
        bytes[2 * MARK..2 * MARK + 2].copy_from_slice(&id.to_le_bytes());
        fs::write(folder.join(format!("voxels/{t:06}.label")), bytes).unwrap();
        let mut bits = vec![0u8; 256 * 256 * 32 / 8];
        // The most significant bit of the second byte is voxel 8.
        bits[1] = 0x80;
        fs::write(folder.join(format!("voxels/{t:06}.invalid")), bits).unwrap();
    }
    // The camera looks along the scanner's x: its z is x, its x is -y, its y is -z.
    fs::write(folder.join("calib.txt"), "P0: 1 0 0 0 0 1 0 0 0 0 1 0\nTr: 0 -1 0 0 0 0 -1 0 1 0 0 0\n").unwrap();
    let poses: String = (0..11).map(|t| format!("1 0 0 0 0 1 0 0 0 0 1 {t}\n")).collect();
    fs::write(folder.join("poses.txt"), poses).unwrap();
    folder
}

#[test]
fn semantic_kitti_has_bits_merged_ids_and_every_fifth_scan() {
    let dir = TempDir::new().unwrap();
    kitti(dir.path(), "00");
    let folder = kitti(dir.path(), "08");
    let notes = checks(dir.path(), &[(Split::Train, 3), (Split::Val, 3)]);
    assert!(notes.last().unwrap().contains("SemanticKITTI's voxels; id 0 is free"), "{notes:?}");
    let set = open(dir.path(), Split::Val, 3);
    assert_eq!((set.grid().size, set.classes().len()), ([256, 256, 32], 20));
    let clip = set.clip(0).unwrap();
    assert_eq!((clip.sequence.as_str(), clip.frame_step), ("08", 5));
    assert_eq!(clip.frames.iter().map(|frame| frame.labels[MARK]).collect::<Vec<_>>(), [1, 1, 0]);
    assert_eq!(clip.frames.iter().map(|frame| frame.observed[MARK]).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(clip.frames[0].observed[7..10], [true, false, true]);
    assert_eq!(clip.poses.unwrap().iter().map(|pose| pose.translation.x).collect::<Vec<_>>(), [-5.0, 0.0, 5.0]);
    let crop = DatasetOptions { frames_per_clip: 3, crop: Some([64, 64, 32]), ..Default::default() };
    survives_export(&Dataset::open(dir.path(), Split::Train, crop).unwrap());
    let label = folder.parent().unwrap().join("00/voxels/000005.label");
    let bytes = fs::read(&label).unwrap();
    fs::write(&label, bytes.iter().map(|byte| byte / 2).collect::<Vec<u8>>()).unwrap();
    refused(dir.path(), &["000005.label has the class id 126 at voxel", "SemanticKITTI does not have"]);
    fs::write(&label, &bytes[1..]).unwrap();
    refused(dir.path(), &["000005.label has 4194303 bytes", "needs 4194304"]);
    fs::write(&label, &bytes).unwrap();
    fs::write(label.with_extension("invalid"), "").unwrap();
    refused(dir.path(), &["000005.invalid has 0 bytes", "needs 262144"]);
    fs::write(label.with_extension("invalid"), vec![0; 262_144]).unwrap();
    fs::write(label.parent().unwrap().parent().unwrap().join("calib.txt"), "Tr: 0 0 0\n").unwrap();
    refused(dir.path(), &["calib.txt has no line `Tr:`"]);
}
