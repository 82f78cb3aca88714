//! Every reader of the program as a function of the bytes of one file: what is around that file is valid. A reader may
//! refuse, in one sentence and with an exit code of its own, and nothing else may come of any input.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{SafeTensors, serialize};
use sep4d::data::{Cursor, Dataset, DatasetOptions, Exported, Split};
use sep4d::gpu::AdapterSummary;
use sep4d::graph::KernelLimits;
use sep4d::models::Terms;
use sep4d::train::checkpoint::{Best, Checkpoint, CheckpointFolder, Index, Weights, check_finite};
use sep4d::train::config::{Preset, RunConfig};
use sep4d::train::events::StepMetrics;
use sep4d::train::run_folder::{Row, RunFolder};
use sep4d::train::session::{NamedTensor, TrainingState};

/// A reader, by the name of its target and corpus.
pub struct Reader {
    /// Its name.
    pub name: &'static str,
    /// Reads one input.
    pub read: fn(&[u8]),
    /// Inputs that are accepted, to start from.
    pub valid: fn() -> Vec<Vec<u8>>,
}

/// All readers.
pub const READERS: [Reader; 15] = [
    Reader { name: "labels", read: labels, valid: || vec![vec![0; 32], words([0, 1, 2, 3, 4, 5, 6, 7])] },
    Reader {
        name: "masks",
        read: masks,
        valid: || vec![vec![0; 32], words([0, 0x3f80_0000, 0, 0x4040_0000, 1, 2, 3, 4])],
    },
    Reader { name: "params", read: params, valid: || vec![PARAMS.as_bytes().to_vec()] },
    Reader { name: "poses", read: poses, valid: || vec![POSES.as_bytes().to_vec()] },
    Reader { name: "times", read: times, valid: || vec![b"0.0\n0.1\n".to_vec(), b"0\n1e-1\n\n".to_vec()] },
    Reader { name: "npy", read: npy, valid: || vec![stack("|u1"), stack("<i2")] },
    Reader { name: "npz", read: npz, valid: || vec![archive()] },
    Reader { name: "voxels", read: voxels, valid: || vec![VOXELS.as_bytes().to_vec(), b"free = 0\n".to_vec()] },
    Reader { name: "annotations", read: annotations, valid: || vec![ANNOTATIONS.as_bytes().to_vec()] },
    Reader { name: "calibration", read: calibration, valid: || vec![CALIBRATION.as_bytes().to_vec()] },
    Reader { name: "config", read: config, valid: configurations },
    Reader { name: "model", read: model, valid: || vec![saved(".safetensors")] },
    Reader { name: "optimiser", read: optimiser, valid: || vec![saved(".optim.safetensors")] },
    Reader { name: "run_folder", read: run_folder, valid: run_folder_files },
    Reader {
        name: "metrics",
        read: metrics,
        valid: || vec![fs::read(run().join("metrics.jsonl")).unwrap_or_default()],
    },
];

const PARAMS: &str = r#"{"grid_size": [2.0, 2.0, 2.0], "min_bound": [0.0, -25.6, -2.0], "max_bound": [51.2, 25.6, 1.0], "num_channels": 25, "coordinates": "cartesian"}"#;
const POSES: &str = "1 0 0 0 0 1 0 0 0 0 1 0\n1 0 0 0.5 0 1 0 0 0 0 1 -1e-3\n";
const VOXELS: &str = "name = \"Mine\"\nvoxel_size = [0.4, 0.4, 0.4]\nmin_bound = [-1.0, -1.0, 0]\nhandedness = \"left\"\nfps = 2.5\nfree = 0\nignore = [255]\n[classes]\n0 = \"free\"\n1 = \"wall\"\n2 = \"car\"\n";
const ANNOTATIONS: &str = r#"{"train_split": ["s"], "val_split": [], "scene_infos": {"s": {
    "b": {"timestamp": "1533151603547590", "prev": "", "next": "a", "ego_pose": {"translation": [1, 2, 0.5], "rotation": [1, 0, 0, 0]}},
    "a": {"timestamp": 1533151604047590, "prev": "b", "next": "", "ego_pose": {"translation": [2, 2, 0.5], "rotation": [0.6, 0, 0, 0.8]}}}}}"#;
const CALIBRATION: &str = "P0: 7e2 0 6e2 0 0 7e2 1.8e2 0 0 0 1 0\nTr: 0 -1 0 -0.01 0 0 -1 -0.06 1 0 0 -0.28\n";
/// The step of the checkpoint of [`run`].
const STEP: &str = "step-00000010";

fn words(values: [u32; 8]) -> Vec<u8> {
    values.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// A refusal is one sentence with an exit code of its own.
fn judge<T>(result: sep4d::Result<T>) -> Option<T> {
    result
        .map_err(|why| {
            let text = why.to_string();
            assert!(!text.is_empty() && !text.contains('\n') && [2, 3, 6].contains(&why.exit_code()), "{text}");
        })
        .ok()
}

/// Where this process writes: in memory where there is a file system for it.
fn place() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
    parent.join(format!("sep4d-fuzz-{}", std::process::id()))
}

/// Removes what this process has written.
pub fn clean_up() {
    let _ = fs::remove_dir_all(place());
}

/// A folder of this process; `fill` makes what is in it, once.
fn folder(name: &str, fill: impl FnOnce(&Path)) -> PathBuf {
    let path = place().join(name);
    if !path.exists() {
        fs::create_dir_all(&path).expect("the folder can be made");
        fill(&path);
    }
    path
}

/// Reads a data set of two frames with `bytes` as one of its files.
fn dataset(file: &str, bytes: &[u8]) {
    let inner = "Train/Town/cartesian";
    let root = folder(file.rsplit('/').next().unwrap_or(file), |root| {
        let evaluation = root.join(inner).join("evaluation");
        fs::create_dir_all(&evaluation).expect("the folder can be made");
        for name in ["000000.label", "000000.bin", "000001.label", "000001.bin"] {
            fs::write(evaluation.join(name), [0; 32]).expect("the file can be written");
        }
        fs::write(evaluation.join("params.json"), PARAMS).expect("the file can be written");
    });
    fs::write(root.join(inner).join(file), bytes).expect("the file can be written");
    let options = DatasetOptions { frames_per_clip: 2, ..DatasetOptions::default() };
    if let Some(dataset) = judge(Dataset::open(&root, Split::Train, options)) {
        judge(dataset.clip(0));
        judge(dataset.class_counts());
    }
}

/// A frame's label file.
pub fn labels(bytes: &[u8]) {
    dataset("evaluation/000001.label", bytes);
}

/// A frame's mask file.
pub fn masks(bytes: &[u8]) {
    dataset("evaluation/000001.bin", bytes);
}

/// A sequence's params.json.
pub fn params(bytes: &[u8]) {
    dataset("evaluation/params.json", bytes);
}

/// A sequence's poses.txt.
pub fn poses(bytes: &[u8]) {
    dataset("poses.txt", bytes);
}

/// A sequence's times.txt.
pub fn times(bytes: &[u8]) {
    dataset("times.txt", bytes);
}

/// Reads the data set at `root`, whatever it is.
fn read_all(root: &Path) {
    let options = DatasetOptions { frames_per_clip: 2, ..DatasetOptions::default() };
    if let Some(dataset) = judge(Dataset::open(root, Split::Train, options)) {
        judge((0..dataset.len().min(2)).try_for_each(|clip| dataset.clip(clip).map(drop)));
        judge(dataset.class_counts());
    }
}

/// A .npy file of zeros: two frames of 2x2x2 voxels.
fn stack(descr: &str) -> Vec<u8> {
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (2, 2, 2, 2), }}\n");
    let values = [0, 1, 0, 0, 2, 0, 0, 0].repeat(if descr == "|u1" { 2 } else { 4 });
    [b"\x93NUMPY\x01\x00".as_slice(), &(text.len() as u16).to_le_bytes(), text.as_bytes(), &values].concat()
}

/// The same as an archive with a mask, as an export writes it.
fn archive() -> Vec<u8> {
    let from = folder("npz-from", |root| fs::write(root.join("a.npy"), stack("|u1")).expect("it can be written"));
    let to = folder("npz-to", |_| {});
    let options = DatasetOptions { frames_per_clip: 1, ..DatasetOptions::default() };
    let set = Dataset::open(&from, Split::Train, options).expect("it is a data set");
    let mut sink = set.sink(&to).expect("it can be written");
    for number in 0..2 {
        let frame = set.clip(number).expect("it can be read").frames.remove(0);
        let (labels, observed) = (&frame.labels[..], &frame.observed[..]);
        let exported = Exported { split: Split::Train, sequence: "a", number, labels, observed };
        sink.put(&exported).expect("it can be written");
    }
    sink.finish().expect("it can be written");
    fs::read(to.join("a.npz")).expect("it was written")
}

/// A stack as one array.
pub fn npy(bytes: &[u8]) {
    let root = folder("npy", |_| {});
    fs::write(root.join("a.npy"), bytes).expect("the file can be written");
    read_all(&root);
}

/// A stack as an archive of arrays.
pub fn npz(bytes: &[u8]) {
    let root = folder("npz", |_| {});
    fs::write(root.join("a.npz"), bytes).expect("the file can be written");
    read_all(&root);
}

/// What the numbers of a stack mean.
pub fn voxels(bytes: &[u8]) {
    let root = folder("voxels", |root| fs::write(root.join("a.npy"), stack("|u1")).expect("the file can be written"));
    fs::write(root.join("voxels.toml"), bytes).expect("the file can be written");
    read_all(&root);
}

/// The order, times and poses of Occ3D-nuScenes. Its labels are no archives, so that only the order is read.
pub fn annotations(bytes: &[u8]) {
    let root = folder("annotations", |root| {
        for token in ["a", "b"] {
            let frame = root.join("gts/s").join(token);
            fs::create_dir_all(&frame).expect("the folder can be made");
            fs::write(frame.join("labels.npz"), "").expect("the file can be written");
        }
    });
    fs::write(root.join("annotations.json"), bytes).expect("the file can be written");
    read_all(&root);
}

/// The scanner's place beside the camera in SemanticKITTI.
pub fn calibration(bytes: &[u8]) {
    let root = folder("calibration", |root| {
        let voxels = root.join("sequences/00/voxels");
        fs::create_dir_all(&voxels).expect("the folder can be made");
        for name in ["000000.label", "000005.label"] {
            let file = fs::File::create(voxels.join(name)).expect("the file can be made");
            file.set_len(2 * 256 * 256 * 32).expect("the file can be made longer");
        }
        fs::write(root.join("sequences/00/poses.txt"), "1 0 0 0 0 1 0 0 0 0 1 0\n".repeat(6))
            .expect("it can be written");
    });
    fs::write(root.join("sequences/00/calib.txt"), bytes).expect("the file can be written");
    judge(Dataset::open(&root, Split::Train, DatasetOptions { frames_per_clip: 2, ..DatasetOptions::default() }));
}

fn configurations() -> Vec<Vec<u8>> {
    let files = [Preset::Tiny, Preset::Paper].map(|preset| format!("f{}", RunConfig::preset(preset, None).to_toml()));
    let pairs = "strain.steps=1000\ndata.frames=4\ndata.crop=[64, 64, 8]\ntrain.milestones=[0.5]\ntrain.preset=base";
    files.into_iter().chain([pairs.to_owned()]).map(String::into_bytes).collect()
}

/// A configuration file (after `f`), or the pairs of `--set`, one a line (after anything else).
pub fn config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut letters = text.chars();
    let config = match letters.next() {
        Some('f') => judge(RunConfig::from_toml(letters.as_str(), "config.toml")),
        _ => {
            let pairs: Vec<String> = letters.as_str().split('\n').map(str::to_owned).collect();
            judge(RunConfig::preset(Preset::Tiny, None).resumed_with(&pairs));
            judge(RunConfig::resolve(None, None, &pairs))
        }
    };
    if let Some(config) = config.filter(|config| judge(config.validate()).is_some()) {
        let again = RunConfig::from_toml(&config.to_toml(), "config.toml").expect("what was written is read");
        assert_eq!(again, config);
        drop((config.step(), config.schedule().at(config.train.steps - 1), config.dataset_options(), config.device()));
    }
}

/// A run with one checkpoint, of a model of two parameters.
fn run() -> PathBuf {
    folder("run", |path| {
        let config = RunConfig::preset(Preset::Tiny, None);
        let (run, _lock) = RunFolder::create(path, &config).expect("the run can be made");
        let mut log = run.open_metrics(0).expect("the metrics can be opened");
        for step in [5, 10] {
            log.append(&Row::Step(step_metrics(step))).expect("the metrics can be written");
        }
        let tensors = || {
            let tensor = |name: &str, shape: &[usize], values: &[f32]| NamedTensor {
                name: name.into(),
                shape: shape.to_vec(),
                values: values.to_vec(),
            };
            vec![tensor("a.bias", &[2], &[0.5, -1.0]), tensor("a.weight", &[2, 1], &[1.0, 2.0])]
        };
        let state = TrainingState {
            parameters: tensors(),
            averages: None,
            first_moments: tensors(),
            second_moments: tensors(),
            steps: 10,
            skipped: 1,
            loss_scale: None,
        };
        let checkpoint = Checkpoint { config, state, cursor: Cursor { epoch: 1, position: 2 } };
        let index = Index { best: Some(Best { step: 10, miou: 0.25 }), ..Index::default() };
        run.checkpoints().save(&checkpoint, &index).expect("the checkpoint can be written");
    })
}

fn step_metrics(step: u32) -> StepMetrics {
    StepMetrics {
        step,
        elapsed_secs: 1.5,
        steps_per_sec: 2.0,
        learning_rate: 1e-3,
        loss: 1.25,
        cross_entropy: 0.5,
        lovasz: 0.75,
        terms: Terms::of([("kl", 0.1)]),
        gradient_norm: f32::NAN,
        loss_scale: 1.0,
        skipped: 0,
    }
}

fn checkpoint_file(suffix: &str) -> PathBuf {
    run().join("checkpoints").join(format!("{STEP}{suffix}"))
}

fn saved(suffix: &str) -> Vec<u8> {
    fs::read(checkpoint_file(suffix)).unwrap_or_default()
}

/// The file with a checksum that fits, if it is a safetensors file at all: what a fuzzer cannot guess. It is that of earlier
/// versions, which needs no SHA-256.
fn sealed(bytes: &[u8], model_checksum: Option<&str>) -> Option<Vec<u8>> {
    let (_, header) = SafeTensors::read_metadata(bytes).ok()?;
    let mut metadata: HashMap<String, String> = header.metadata().clone()?;
    metadata.remove("checksum");
    if let (Some(checksum), Some(old)) = (model_checksum, metadata.get_mut("model_checksum")) {
        *old = checksum.to_owned();
    }
    let file = SafeTensors::deserialize(bytes).ok()?;
    let mut tensors: Vec<(String, TensorView<'_>)> = file.tensors();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let mut hash = 0xCBF2_9CE4_8422_2325_u64;
    let mut feed = |word: u64| hash = (hash ^ word).wrapping_mul(0x100_0000_01B3);
    let mut entries: Vec<_> = metadata.iter().collect();
    entries.sort();
    for (key, value) in entries {
        key.bytes().chain(value.bytes()).for_each(|byte| feed(byte.into()));
    }
    for (name, tensor) in &tensors {
        name.bytes().for_each(|byte| feed(byte.into()));
        tensor.shape().iter().for_each(|&side| feed(side as u64));
        tensor.data().as_chunks::<4>().0.iter().for_each(|word| feed(u32::from_le_bytes(*word).into()));
    }
    metadata.insert("checksum".into(), format!("{hash:016x}"));
    serialize(tensors, Some(metadata)).ok()
}

/// A checkpoint's model file, as it is and with a checksum that fits.
pub fn model(bytes: &[u8]) {
    let path = folder("model", |_| {}).join(format!("{STEP}.safetensors"));
    for bytes in [Some(bytes.to_vec()), sealed(bytes, None)].into_iter().flatten() {
        fs::write(&path, bytes).expect("the file can be written");
        if let Some(weights) = judge(Weights::load(&path)) {
            judge(check_finite(&weights.parameters, &path));
        }
    }
}

/// A checkpoint's optimiser file, as it is and with checksums that fit, beside a model that is whole.
pub fn optimiser(bytes: &[u8]) {
    let folder = folder("optimiser", |path| {
        fs::write(path.join(format!("{STEP}.safetensors")), saved(".safetensors")).expect("the file can be written");
    });
    let model = folder.join(format!("{STEP}.safetensors"));
    let bytes_of_model = saved(".safetensors");
    let (_, header) = SafeTensors::read_metadata(&bytes_of_model).expect("the model is whole");
    let checksum = header.metadata().as_ref().and_then(|metadata| metadata.get("checksum")).map(String::as_str);
    for bytes in [Some(bytes.to_vec()), sealed(bytes, checksum)].into_iter().flatten() {
        fs::write(folder.join(format!("{STEP}.optim.safetensors")), bytes).expect("the file can be written");
        if let Some(Checkpoint { state, .. }) = judge(Checkpoint::load(&model)) {
            judge(check_finite(state.first_moments.iter().chain(&state.second_moments), &model));
        }
    }
}

fn run_folder_files() -> Vec<Vec<u8>> {
    let index = fs::read_to_string(run().join("checkpoints/index.json")).unwrap_or_default();
    let start = r#"[{"version":"0.1.0","system":"linux x86_64","cores":2,"adapter":"a","backend":"b","driver":"c 1","tuning":{"linear":"64x64"},"command_line":["sep4d"],"started_unix_secs":1,"from_step":0}]"#;
    vec![format!("i{index}").into_bytes(), format!("e{start}").into_bytes()]
}

/// A run's `index.json` (after `i`) or `environment.json` (after anything else).
pub fn run_folder(bytes: &[u8]) {
    let path = folder("of-a-run", |path| {
        let run = run();
        for part in ["config.toml", "metrics.jsonl"] {
            fs::copy(run.join(part), path.join(part)).expect("the file can be copied");
        }
        fs::create_dir(path.join("checkpoints")).expect("the folder can be made");
        for suffix in [".safetensors", ".optim.safetensors"] {
            let name = format!("checkpoints/{STEP}{suffix}");
            fs::copy(run.join(&name), path.join(&name)).expect("the file can be copied");
        }
    });
    let (kind, bytes) = bytes.split_first().unwrap_or((&b'i', &[]));
    let run = RunFolder::open(&path).expect("there is a run");
    if *kind == b'i' {
        fs::write(path.join("checkpoints/index.json"), bytes).expect("the file can be written");
        let checkpoints: CheckpointFolder = run.checkpoints();
        judge(checkpoints.index());
        judge(checkpoints.best_path());
        judge(checkpoints.latest());
    } else {
        fs::write(path.join("environment.json"), bytes).expect("the file can be written");
        let adapter = AdapterSummary {
            name: "a".into(),
            kind: "discrete",
            backend: "b".into(),
            driver: "c 1".into(),
            limits: KernelLimits::portable(),
            features: Vec::new(),
        };
        judge(run.tuning(&adapter));
        judge(run.scored_on());
    }
}

/// A run's metrics.jsonl.
pub fn metrics(bytes: &[u8]) {
    let path = folder("of-metrics", |path| {
        fs::copy(run().join("config.toml"), path.join("config.toml")).expect("the file can be copied");
    });
    fs::write(path.join("metrics.jsonl"), bytes).expect("the file can be written");
    let run = RunFolder::open(&path).expect("there is a run");
    let before = judge(run.metrics()).map_or(0, |rows| rows.len());
    judge(run.history());
    if let Some(mut log) = judge(run.open_metrics(u32::MAX)) {
        judge(log.append(&Row::Step(step_metrics(11))));
        let rows = run.metrics().expect("what was written is read");
        assert_eq!(rows.len(), before + 1);
    }
}
