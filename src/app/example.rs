//! The example that comes with the program (`assets/welcome`): a clip of a generated town, a model that our own training made,
//! and what the model makes of the clip. Written to the user's data folder once, it is a data set and a run like any other.

use std::fs;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use npyz::zip::ZipArchive;

use super::shown::Shown;
use crate::data::synth::read_labels;
use crate::data::{Dataset, check};
use crate::files::{make_folder, unwritable, write_atomically};
use crate::train::checkpoint::{Best, Index, Weights};
use crate::train::config::RunConfig;
use crate::train::events::ReconstructedClip;
use crate::train::metrics::Confusion;
use crate::train::run_folder::RunFolder;
use crate::train::validation::confusions;
use crate::{Error, Result};

const MODEL: &[u8] = include_bytes!("../../assets/welcome/model.safetensors");
const FILES: &[u8] = include_bytes!("../../assets/welcome/example.zip");

/// Where the example's data set and its run lie below the folder that they are written to.
const DATA: &str = "example-town";
const RUN: &str = "example-run";
/// Steps that the model was trained for.
const STEP: u32 = 1500;

/// The example on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    folder: PathBuf,
}

impl Example {
    /// Writes the example below `data`, or below the folder for temporary files where that cannot be written.
    ///
    /// # Errors
    /// [`Error::Data`] if neither can be written.
    pub fn unpack(data: Option<&Path>) -> Result<Example> {
        let temporary = std::env::temp_dir().join("sep4d");
        let places = data.into_iter().chain([temporary.as_path()]);
        let mut failure = None;
        for place in places {
            match Example::write(&place.join("welcome")) {
                Ok(example) => return Ok(example),
                Err(why) => failure = Some(why),
            }
        }
        Err(failure.unwrap_or_else(|| Error::Data("the example has no place to be written to".into())))
    }

    fn write(folder: &Path) -> Result<Example> {
        let example = Example { folder: folder.to_path_buf() };
        // Written last, so it says that the rest is whole; another program version brings another example.
        let mark = folder.join("version");
        let version = format!("{} {} {}", env!("CARGO_PKG_VERSION"), MODEL.len(), FILES.len());
        if fs::read(&mark).is_ok_and(|found| found == version.as_bytes()) && example.run().join("config.toml").is_file()
        {
            return Ok(example);
        }
        example.extract()?;
        check::vouch(&example.data())?;
        let checkpoints = example.run().join("checkpoints");
        make_folder(&checkpoints)?;
        make_folder(&example.run().join("renders"))?;
        write_atomically(&example.checkpoint(), MODEL)?;
        write_atomically(&example.run().join("config.toml"), example.config()?.to_toml().as_bytes())?;
        let index = serde_json::to_vec(&Index { latest: Some(STEP), best: example.best()?, ..Index::default() });
        let index = index.map_err(|why| Error::Data(format!("the example's index cannot be written: {why}")))?;
        write_atomically(&checkpoints.join("index.json"), &index)?;
        write_atomically(&mark, version.as_bytes())?;
        Ok(example)
    }

    /// Writes the data set and the run's metrics. The only clip is there to train on, too, so that training can be tried.
    fn extract(&self) -> Result<()> {
        let damaged = |why: &dyn std::fmt::Display| Error::Data(format!("the example cannot be unpacked: {why}"));
        let mut archive = ZipArchive::new(Cursor::new(FILES)).map_err(|why| damaged(&why))?;
        for i in 0..archive.len() {
            let mut file = archive.by_index(i).map_err(|why| damaged(&why))?;
            let name = file.enclosed_name().ok_or_else(|| damaged(&"a path leads out of it"))?.to_path_buf();
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map_err(|why| damaged(&why))?;
            let held_out = Path::new(DATA).join("Val");
            let twin = name.strip_prefix(&held_out).ok().map(|rest| Path::new(DATA).join("Train").join(rest));
            for name in twin.iter().chain([&name]) {
                let path = self.folder.join(name);
                make_folder(path.parent().unwrap_or(&self.folder))?;
                fs::write(&path, &bytes).map_err(|why| unwritable(&path, &why))?;
            }
        }
        Ok(())
    }

    /// The folder of its data set.
    pub fn data(&self) -> PathBuf {
        self.folder.join(DATA)
    }

    /// The folder of its run.
    pub fn run(&self) -> PathBuf {
        self.folder.join(RUN)
    }

    fn checkpoint(&self) -> PathBuf {
        self.run().join(format!("checkpoints/step-{:08}.safetensors", STEP))
    }

    /// What the run's own metrics say of the model.
    fn best(&self) -> Result<Option<Best>> {
        let validations = RunFolder::open(&self.run())?.history()?.validations;
        let scored = validations.iter().rfind(|metrics| metrics.step == STEP);
        let scored = scored.and_then(|metrics| metrics.evaluation.total.miou);
        Ok(scored.map(|miou| Best { step: STEP, miou }))
    }

    fn config(&self) -> Result<RunConfig> {
        let mut config = Weights::load(&self.checkpoint())?.config;
        config.data.root = self.data();
        config.output.dir = self.run();
        Ok(config)
    }

    /// Its clip and the recorded reconstruction, which need no GPU.
    ///
    /// # Errors
    /// [`Error::Data`] if somebody has damaged the files.
    pub fn shown(&self) -> Result<Shown> {
        let config = RunFolder::open(&self.run())?.config()?;
        let set = Dataset::open(&config.data.root, config.data.val_split, config.dataset_options())?;
        let clip = set.clip(0)?;
        let paths = clip.numbers().map(|frame| self.run().join(format!("reconstruction/{frame:06}.label")));
        let labels = paths.map(|path| read_labels(&path, &set.grid())).collect::<Result<Vec<_>>>()?.concat();
        let confusion = confusions(&clip, &labels, set.classes().len());
        let clip = ReconstructedClip {
            step: STEP,
            clip: 0,
            frames: clip.frames.len(),
            size: set.grid().size,
            truth: clip.frames.iter().flat_map(|frame| frame.labels.iter().copied()).collect(),
            observed: clip.frames.iter().flat_map(|frame| frame.observed.iter().copied()).collect(),
            labels,
            likely: Vec::new(),
            scores: confusion.iter().map(Confusion::scores).collect(),
            confusion,
            latents: Vec::new(),
            sequence: clip.sequence,
            first_frame: clip.first_frame,
            frame_step: clip.frame_step,
            times_secs: clip.times_secs,
            poses: clip.poses,
            seconds: 0.0,
        };
        Shown::of_model(1, clip, set.grid(), set.classes().clone())
    }

    /// Whether `path` is a part of the example.
    pub fn holds(&self, path: &Path) -> bool {
        path.starts_with(&self.folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{Context, DeviceChoice};
    use crate::models::BatchShape;
    use crate::train::inference::Inference;
    use crate::train::validation::reconstruct;

    #[test]
    fn the_model_makes_of_the_clip_what_is_recorded() {
        assert!(MODEL.len() <= 1 << 20, "the model has {} bytes", MODEL.len());
        let folder = tempfile::tempdir().unwrap();
        let example = Example::unpack(Some(folder.path())).unwrap();
        let recorded = example.shown().unwrap().model.unwrap();
        let weights = Weights::load(&example.checkpoint()).unwrap();
        let config = example.config().unwrap();
        let set = Dataset::open(example.data(), config.data.val_split, config.dataset_options()).unwrap();
        let gpu = Context::open(&DeviceChoice::Best).unwrap();
        let shape = BatchShape { batch: 1, frames: config.data.frames, size: set.grid().size };
        let mut model = Inference::new(&gpu, &config.model, &shape).unwrap();
        model.import(&weights.parameters, weights.step).unwrap();
        let clip = reconstruct(&mut model, &set, 0).unwrap();
        let equal = clip.labels.iter().zip(&recorded.labels).filter(|(now, then)| now == then).count();
        assert!(equal as f64 >= 0.999 * recorded.labels.len() as f64, "{equal} of {}", recorded.labels.len());
        assert_eq!(weights.step, STEP);
    }

    #[test]
    fn what_was_damaged_is_written_again_and_what_is_whole_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let example = Example::unpack(Some(folder.path())).unwrap();
        let run = RunFolder::open(&example.run()).unwrap();
        assert_eq!(run.checkpoints().best_path().unwrap(), example.checkpoint());
        assert!(run.history().unwrap().steps.len() > 100);
        let mark = example.run().join("notes.txt");
        fs::write(&mark, "mine").unwrap();
        fs::remove_file(example.run().join("config.toml")).unwrap();
        assert_eq!(Example::unpack(Some(folder.path())).unwrap(), example);
        assert!(example.shown().is_ok() && mark.is_file());
        let file = folder.path().join("a file");
        fs::write(&file, "").unwrap();
        assert!(Example::unpack(Some(&file)).unwrap().run().starts_with(std::env::temp_dir()));
    }
}
