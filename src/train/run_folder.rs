//! The folder of a run: configuration, environment, metrics, checkpoints, renders.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::checkpoint::{Best, CheckpointFolder, Index};
use super::config::RunConfig;
use crate::figures::shell_quoted;
use crate::files::{
    check_can_be_folder, is_file, make_folder, read_if_there, read_text_at_most, remove_leftovers, unwritable,
    write_atomically,
};
use crate::gpu::AdapterSummary;
use crate::graph::Tuning;
use crate::{Error, Result};

mod environment;
mod lock;
mod log;

pub use environment::{Environment, ScoredOn};
use lock::LOCK_FILE;
pub use lock::WriterLock;
pub use log::{History, MetricsLog, Row};

/// Folders of a run.
const PARTS: [&str; 2] = ["checkpoints", "renders"];
/// No config.toml has more bytes.
const LONGEST_CONFIG: u64 = 1 << 20;
/// No record of starts or metrics has more bytes.
const LONGEST_RECORD: u64 = 16 << 30;

/// A run's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Makes the folder of a new run, and locks it.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is a run already, [`Error::Busy`] if another process is making one, [`Error::Data`] if
    /// something cannot be written.
    pub fn create(path: &Path, config: &RunConfig) -> Result<(RunFolder, WriterLock)> {
        RunFolder::check_free(path)?;
        make_folder(path)?;
        let lock = WriterLock::take(path)?;
        // Somebody may have been faster.
        RunFolder::check_free(path)?;
        let folder = RunFolder { path: path.to_path_buf() };
        folder.remove_leftovers();
        let make = || {
            for part in PARTS {
                make_folder(&path.join(part))?;
            }
            folder.write_config(config)
        };
        make().inspect_err(|_| folder.discard())?;
        Ok((folder, lock))
    }

    /// Removes what a writer that was killed has left. Only for who holds the lock.
    pub fn remove_leftovers(&self) {
        for folder in [&self.path, &self.path.join("checkpoints")] {
            remove_leftovers(folder, |file| file.contains('.'));
        }
    }

    /// What the checkpoints up to `step`, the newest of use, amount to. Its save may have been cut off before the index.
    ///
    /// # Errors
    /// [`Error::Unreadable`] if the index or the metrics cannot be read now.
    pub fn index_up_to(&self, step: u32) -> Result<Index> {
        let mut index = self.checkpoints().index()?;
        index.best = index.best.filter(|best| best.step <= step);
        if index.latest.is_none_or(|latest| latest < step) {
            let best = self.metrics()?.into_iter().rev().find_map(|row| match row {
                Row::Validation(metrics) if metrics.step == step && metrics.is_best => metrics.evaluation.total.miou,
                _ => None,
            });
            index.best = best.map(|miou| Best { step, miou }).or(index.best);
        }
        Ok(index)
    }

    /// Checks, without making anything, that a run can be begun at `path`.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is a run already, [`Error::Data`] if a file is in the way.
    pub fn check_free(path: &Path) -> Result<()> {
        if is_file(&path.join("config.toml"))? {
            return Err(Error::Usage(format!(
                "{} already holds a run; go on with it by --resume {}, or choose another --output",
                path.display(),
                shell_quoted(path)
            )));
        }
        check_can_be_folder(path)
    }

    /// Takes back what was made for a run that could not begin. What else the folder holds stays.
    pub fn discard(&self) {
        // What cannot be removed does no harm: without config.toml it is no run.
        for file in ["config.toml", "environment.json", "metrics.jsonl", "metrics.csv", LOCK_FILE] {
            let _ = fs::remove_file(self.path.join(file));
        }
        for part in PARTS {
            let _ = fs::remove_dir(self.path.join(part));
        }
        let _ = fs::remove_dir(&self.path);
    }

    /// An existing run's folder.
    ///
    /// # Errors
    /// [`Error::Data`] if there is no run, [`Error::Unreadable`] if nobody can tell now.
    pub fn open(path: &Path) -> Result<RunFolder> {
        RunFolder::find(path)?.ok_or_else(|| {
            Error::Data(format!("{} holds no run: it has no config.toml; give a run folder", path.display()))
        })
    }

    /// A run's folder; `None` if there is no run.
    ///
    /// # Errors
    /// [`Error::Unreadable`] if nobody can tell now.
    pub fn find(path: &Path) -> Result<Option<RunFolder>> {
        Ok(is_file(&path.join("config.toml"))?.then(|| RunFolder { path: path.to_path_buf() }))
    }

    /// The run in `parent` that was written to last, if there is any.
    pub fn newest(parent: &Path) -> Option<PathBuf> {
        let entries = fs::read_dir(parent).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
        let changed = |path: &PathBuf| {
            let newest = |name: &str| fs::metadata(path.join(name)).and_then(|file| file.modified()).ok();
            newest("metrics.jsonl").max(newest("config.toml"))
        };
        entries.filter(|path| path.join("config.toml").is_file()).max_by_key(changed)
    }

    /// Makes the first folder `parent/name-001`, `-002`... that does not exist. Of several that ask at once each gets its own.
    ///
    /// # Errors
    /// [`Error::Data`] if no folder can be made.
    pub fn claim(parent: &Path, name: &str) -> Result<PathBuf> {
        make_folder(parent)?;
        let mut number = 1;
        loop {
            let path = parent.join(format!("{name}-{number:03}"));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(path),
                Err(why) if why.kind() == ErrorKind::AlreadyExists => number += 1,
                Err(why) => return Err(unwritable(&path, &why)),
            }
        }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of its checkpoints.
    pub fn checkpoints(&self) -> CheckpointFolder {
        CheckpointFolder::new(self.path.join("checkpoints"))
    }

    /// The folder of its pictures.
    pub fn renders(&self) -> PathBuf {
        self.path.join("renders")
    }

    /// Its configuration.
    ///
    /// # Errors
    /// [`Error::Data`] if the file is unreadable, [`Error::Usage`] if something in it is wrong.
    pub fn config(&self) -> Result<RunConfig> {
        let path = self.path.join("config.toml");
        RunConfig::from_toml(&read_text_at_most(&path, LONGEST_CONFIG)?, &path.display().to_string())
    }

    /// Writes its configuration.
    ///
    /// # Errors
    /// [`Error::Data`] if it cannot be written.
    pub fn write_config(&self, config: &RunConfig) -> Result<()> {
        write_atomically(&self.path.join("config.toml"), config.to_toml().as_bytes())
    }

    /// Adds where the run is running now to `environment.json`, a list of one entry a start.
    ///
    /// # Errors
    /// [`Error::Data`] if it cannot be written.
    pub fn add_environment(&self, environment: Environment) -> Result<()> {
        let path = self.path.join("environment.json");
        let mut all: Vec<serde_json::Value> = self.environments()?;
        let json = |why: serde_json::Error| Error::Data(format!("{} cannot be written: {why}", path.display()));
        all.push(serde_json::to_value(environment).map_err(json)?);
        write_atomically(&path, &serde_json::to_vec_pretty(&all).map_err(json)?)
    }

    /// All starts; none if the file is missing or damaged.
    fn environments<T: DeserializeOwned>(&self) -> Result<Vec<T>> {
        match read_if_there(&self.path.join("environment.json"), LONGEST_RECORD) {
            Ok(text) => Ok(text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()),
            Err(why @ Error::Unreadable(_)) => Err(why),
            Err(_) => Ok(Vec::new()),
        }
    }

    /// The variants of kernels with which this program last ran on `adapter` here: with them a run goes on to the same bits.
    /// Empty if the last start was another's.
    ///
    /// # Errors
    /// [`Error::Unreadable`] if it cannot be read now.
    pub fn tuning(&self, adapter: &AdapterSummary) -> Result<Tuning> {
        let same = |last: &Environment| {
            (last.version.as_str(), &last.adapter, &last.backend, &last.driver)
                == (env!("CARGO_PKG_VERSION"), &adapter.name, &adapter.backend, &adapter.driver)
        };
        Ok(self.environments()?.pop().filter(same).map(|last| last.tuning).unwrap_or_default())
    }

    /// What the model was last scored on, if that is known.
    ///
    /// # Errors
    /// [`Error::Unreadable`] if it cannot be read now.
    pub fn scored_on(&self) -> Result<Option<ScoredOn>> {
        Ok(self.environments::<Environment>()?.into_iter().rev().find_map(|start| start.scored_on))
    }

    /// All rows of `metrics.jsonl`; a line that was cut off or damaged is left out.
    ///
    /// # Errors
    /// [`Error::Data`] if the file is unreadable.
    pub fn metrics(&self) -> Result<Vec<Row>> {
        let bytes = read_if_there(&self.path.join("metrics.jsonl"), LONGEST_RECORD)?.unwrap_or_default();
        Ok(bytes.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }

    /// All of `metrics.jsonl` in order of the steps, as curves.
    ///
    /// # Errors
    /// As for [`RunFolder::metrics`].
    pub fn history(&self) -> Result<History> {
        let mut history = History::default();
        for row in self.metrics()? {
            match row {
                Row::Step(metrics) => history.steps.push(metrics),
                Row::Validation(metrics) => history.validations.push(metrics),
            }
        }
        Ok(history)
    }

    /// Opens both metrics files for appending, without the rows after `step`.
    ///
    /// # Errors
    /// [`Error::Data`] if they cannot be read or written.
    pub fn open_metrics(&self, step: u32) -> Result<MetricsLog> {
        let rows: Vec<Row> = self.metrics()?.into_iter().filter(|row| row.step() <= step).collect();
        MetricsLog::write(&self.path, &rows)
    }
}

#[cfg(test)]
mod tests {
    use super::log::json_line;
    use super::*;
    use crate::graph::KernelLimits;
    use crate::models::Terms;
    use crate::train::config::Preset;
    use crate::train::events::{StepMetrics, ValidationMetrics};
    use crate::train::metrics::{ClipScores, CodeUse, Confusion, Evaluation, Scores};

    fn step(step: u32) -> Row {
        Row::Step(StepMetrics {
            step,
            elapsed_secs: 1.5,
            steps_per_sec: 2.0,
            learning_rate: 1e-3,
            loss: 1.25,
            cross_entropy: 0.5,
            lovasz: 0.75,
            terms: Terms::of([("kl", 0.1)]),
            gradient_norm: 3.0,
            loss_scale: 1.0,
            skipped: 0,
        })
    }

    fn validation(step: u32) -> Row {
        let total = Scores { iou: Some(0.5), miou: Some(0.25), per_class: vec![None, Some(0.25)] };
        let codes = vec![CodeUse { latent: "codes".into(), codes: 4, used: 3, perplexity: 2.5 }];
        let evaluation = Evaluation { clips: 2, total, per_frame: vec![], codes };
        let mut confusion = Confusion::new(2);
        confusion.add(&[1, 2, 3, 4]);
        Row::Validation(ValidationMetrics { step, seconds: 0.5, is_best: true, evaluation, confusion, clips: vec![] })
    }

    #[test]
    fn a_run_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let config = RunConfig::preset(Preset::Tiny, None);
        let path = RunFolder::claim(dir.path(), "tiny").unwrap();
        assert!(path.ends_with("tiny-001"));
        assert_eq!(RunFolder::open(&path).unwrap_err().exit_code(), 3);
        let (folder, _lock) = RunFolder::create(&path, &config).unwrap();
        assert_eq!(folder.config().unwrap(), config);
        let error = RunFolder::create(&path, &config).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("--resume"), "{error}");
        assert!(RunFolder::claim(dir.path(), "tiny").unwrap().ends_with("tiny-002"));
        let below_a_file = RunFolder::check_free(&path.join("config.toml/run")).unwrap_err();
        assert!(below_a_file.exit_code() == 3 && below_a_file.to_string().contains("is a file"), "{below_a_file}");
        assert_eq!(RunFolder::newest(dir.path()), Some(path));
    }

    #[test]
    fn a_run_that_could_not_begin_leaves_nothing_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let config = RunConfig::preset(Preset::Tiny, None);
        let (new, old) = (dir.path().join("new"), dir.path().join("old"));
        RunFolder::create(&new, &config).unwrap().0.discard();
        assert!(!new.exists());
        fs::create_dir(&old).unwrap();
        fs::write(old.join("notes.txt"), "mine").unwrap();
        RunFolder::create(&old, &config).unwrap().0.discard();
        assert_eq!(fs::read_dir(&old).unwrap().count(), 1);
    }

    #[test]
    fn metrics_are_cut_back_to_the_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, _lock) = RunFolder::create(dir.path(), &RunConfig::preset(Preset::Tiny, None)).unwrap();
        let mut log = folder.open_metrics(0).unwrap();
        for row in [step(10), validation(10), step(20), step(30)] {
            log.append(&row).unwrap();
        }
        fs::write(
            dir.path().join("metrics.jsonl"),
            fs::read_to_string(dir.path().join("metrics.jsonl")).unwrap() + "\u{0}\n{\"kind\":\"st",
        )
        .unwrap();
        let mut log = folder.open_metrics(20).unwrap();
        log.append(&step(25)).unwrap();
        assert_eq!(folder.metrics().unwrap(), [step(10), validation(10), step(20), step(25)]);
        let csv = fs::read_to_string(dir.path().join("metrics.csv")).unwrap();
        let columns: Vec<usize> = csv.lines().map(|line| line.split(',').count()).collect();
        assert_eq!(columns, [17; 5]);
        assert!(csv.lines().nth(2).unwrap().ends_with(",0.25,0.5,3,2.5"), "{csv}");
    }

    #[test]
    fn a_best_model_whose_save_was_cut_off_before_the_index_is_still_the_best() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, _lock) = RunFolder::create(dir.path(), &RunConfig::preset(Preset::Tiny, None)).unwrap();
        let mut log = folder.open_metrics(0).unwrap();
        for row in [validation(10), step(15), validation(20)] {
            log.append(&row).unwrap();
        }
        let best = |step| Some(Best { step, miou: 0.25 });
        let index = Index { latest: Some(10), best: best(10), ..Index::default() };
        fs::write(dir.path().join("checkpoints/index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
        let best_up_to = |step| folder.index_up_to(step).unwrap().best;
        assert_eq!(
            [best_up_to(20), best_up_to(15), best_up_to(10), best_up_to(5)],
            [best(20), best(10), best(10), None]
        );
    }

    #[test]
    fn a_history_is_read_from_a_run_that_was_killed() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, _lock) = RunFolder::create(dir.path(), &RunConfig::preset(Preset::Tiny, None)).unwrap();
        assert_eq!(folder.history().unwrap(), History::default());
        let mut log = folder.open_metrics(0).unwrap();
        let Row::Validation(written) = validation(10) else { return };
        let clips = vec![ClipScores { clip: 3, per_frame: vec![], confusion: vec![] }];
        for row in [step(5), step(10), Row::Validation(ValidationMetrics { clips, ..written.clone() }), step(15)] {
            log.append(&row).unwrap();
        }
        // A row of the time before the counts were kept, and a line that was cut off.
        let path = dir.path().join("metrics.jsonl");
        let text = fs::read_to_string(&path).unwrap();
        let row = text.lines().nth(2).unwrap();
        let old = format!("{}}}", &row[..row.find(",\"confusion\"").unwrap()]);
        fs::write(&path, format!("{text}{old}\n{}", &row[..40])).unwrap();
        let history = folder.history().unwrap();
        assert_eq!(history.steps.iter().map(|metrics| metrics.step).collect::<Vec<_>>(), [5, 10, 15]);
        let before = ValidationMetrics { confusion: Confusion::default(), ..written.clone() };
        assert_eq!(history.validations, [written, before]);
    }

    #[test]
    fn what_is_not_a_number_survives() {
        let Row::Step(metrics) = step(1) else { return };
        let line = json_line(&Row::Step(StepMetrics { loss: f32::NAN, ..metrics })).unwrap();
        let Row::Step(back) = serde_json::from_str(&line).unwrap() else { return };
        assert!(back.loss.is_nan() && back.terms == metrics.terms);
    }

    #[test]
    fn every_start_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, _lock) = RunFolder::create(dir.path(), &RunConfig::preset(Preset::Tiny, None)).unwrap();
        let environment = started(&adapter());
        folder.add_environment(environment.clone()).unwrap();
        folder.add_environment(Environment { from_step: 20, ..environment }).unwrap();
        let all: Vec<Environment> =
            serde_json::from_str(&fs::read_to_string(dir.path().join("environment.json")).unwrap()).unwrap();
        assert_eq!((all.len(), all[1].from_step), (2, 20));
    }

    #[test]
    fn a_run_goes_on_with_the_kernels_it_began_with_where_they_mean_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, _lock) = RunFolder::create(dir.path(), &RunConfig::preset(Preset::Tiny, None)).unwrap();
        let adapter = adapter();
        assert!(folder.tuning(&adapter).unwrap().is_empty());
        let tuning = Tuning::from([("conv3d_forward 3x3x3 64->64".to_owned(), "128x64".to_owned())]);
        let version = env!("CARGO_PKG_VERSION").to_owned();
        folder.add_environment(Environment { tuning: tuning.clone(), version, ..started(&adapter) }).unwrap();
        assert_eq!(folder.tuning(&adapter).unwrap(), tuning);
        assert!(folder.tuning(&AdapterSummary { driver: "c 2".into(), ..adapter.clone() }).unwrap().is_empty());
        folder.add_environment(Environment { tuning, ..started(&adapter) }).unwrap();
        assert!(folder.tuning(&adapter).unwrap().is_empty(), "another version's kernels are others");
    }

    fn adapter() -> AdapterSummary {
        AdapterSummary {
            name: "a".into(),
            kind: "discrete",
            backend: "b".into(),
            driver: "c 1".into(),
            limits: KernelLimits::portable(),
            features: Vec::new(),
        }
    }

    fn started(adapter: &AdapterSummary) -> Environment {
        Environment {
            version: "another".into(),
            system: "linux".into(),
            cores: 2,
            adapter: adapter.name.clone(),
            backend: adapter.backend.clone(),
            driver: adapter.driver.clone(),
            tuning: Tuning::new(),
            command_line: vec!["sep4d".into()],
            started_unix_secs: 0,
            from_step: 0,
            scored_on: None,
        }
    }
}
