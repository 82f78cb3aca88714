//! What came of a run: measured once on the test split, with its last step's model, and kept beside it.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::data::{Dataset, Split};
use crate::files::{read_if_there, write_atomically};
use crate::gpu::Context;
use crate::models::BatchShape;
use crate::train::checkpoint::Weights;
use crate::train::config::RunConfig;
use crate::train::events::StepMetrics;
use crate::train::inference::Inference;
use crate::train::metrics::Evaluation;
use crate::train::run_folder::{History, RunFolder, ScoredOn};
use crate::train::session::preflight;
use crate::train::validation::{evaluate, evenly_spaced};
use crate::{Error, Result};

/// Its file in the run folder.
const FILE: &str = "outcome.json";
/// No outcome has more bytes.
const LONGEST: u64 = 1 << 24;

/// What may differ between a run and what is wanted of it.
const ELSEWHERE: [&str; 6] =
    ["model.classes", "data.root", "output.dir", "train.device", "train.memory_budget", "train.prefetch"];

/// The scores of a finished run, and what they cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Steps that the model was trained for.
    pub steps: u32,
    /// Seconds that they took, validations and checkpoints left out.
    pub seconds: f64,
    /// The adapter.
    pub adapter: String,
    /// Version of the program that measured it.
    pub version: String,
    /// Parameters of the model.
    pub parameters: usize,
    /// Device memory that training plans for.
    pub planned_bytes: usize,
    /// Floats of a clip's latents.
    pub latent_floats: usize,
    /// Bits that those of them take that are codes.
    pub code_bits: f64,
    /// C.R.: voxels of a clip for each of these floats.
    pub compression_ratio: f64,
    /// What it was scored on.
    pub data: ScoredOn,
    /// Names of the classes, free space first.
    pub classes: Vec<String>,
    /// Those of them that move.
    #[serde(default)]
    pub movers: Vec<usize>,
    /// Scores on the test split.
    pub evaluation: Evaluation,
}

/// How far a run has come.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// There is nothing of it.
    Open,
    /// It was begun.
    Begun,
    /// It was trained to its end and measured.
    Finished(Box<Outcome>),
}

impl State {
    /// That of the run in `folder`, which `config` is wanted of, to be scored on `data` if these are at hand.
    ///
    /// # Errors
    /// [`Error::Usage`] if it was begun with other settings or scored on other data, [`Error::Data`] if a file is damaged or cannot be
    /// read.
    pub fn of(folder: &Path, config: &RunConfig, data: Option<&ScoredOn>) -> Result<State> {
        let Some(run) = RunFolder::find(folder)? else { return Ok(State::Open) };
        let begun = run.config()?;
        let mut keys = RunConfig::keys().map(|(key, _)| key).filter(|key| !ELSEWHERE.contains(key));
        if let Some(key) = keys.find(|key| begun.value(key) != config.value(key)) {
            let value = |config: &RunConfig| config.value(key).map_or("nothing".into(), |value| value.to_string());
            return Err(Error::Usage(format!(
                "{} was begun with {key} = {}, not {}; give another --output, or remove it",
                folder.display(),
                value(&begun),
                value(config)
            )));
        }
        let path = folder.join(FILE);
        let Some(bytes) = read_if_there(&path, LONGEST)? else { return Ok(State::Begun) };
        let outcome: Outcome = serde_json::from_slice(&bytes)
            .map_err(|why| Error::Data(format!("{} is damaged ({why}); remove it", path.display())))?;
        if let Some(data) = data.filter(|data| **data != outcome.data) {
            return Err(Error::Usage(format!(
                "{} was scored on {}, not on {data}; give another --output, or remove it",
                folder.display(),
                outcome.data
            )));
        }
        Ok(if outcome.steps as usize == config.train.steps { State::Finished(outcome.into()) } else { State::Begun })
    }
}

impl Outcome {
    /// Scores the last model of the run in `folder` on `clips` clips of the test split of `data` (0 for all), and writes that down.
    ///
    /// Asks `proceed(done, all)` before each clip; `None` if it says no.
    ///
    /// # Errors
    /// [`Error::Data`] if a file cannot be read or written, [`Error::Device`] or [`Error::Memory`] from the adapter.
    pub fn measure(
        context: &Arc<Context>,
        folder: &Path,
        data: &Path,
        clips: usize,
        mut proceed: impl FnMut(usize, usize) -> bool,
    ) -> Result<Option<Outcome>> {
        let run = RunFolder::open(folder)?;
        let (config, file) = (run.config()?, run.checkpoints().latest_path()?);
        let weights = Weights::load(&file)?;
        let dataset = Dataset::open(data, Split::Test, config.dataset_options())?;
        let size = dataset.grid().size;
        let mut model = Inference::trained(context, &weights, &file, size)?;
        let chosen = evenly_spaced(dataset.len(), if clips == 0 { dataset.len() } else { clips });
        let Some(tally) = evaluate(&mut model, &dataset, &chosen, |done| proceed(done, chosen.len()))? else {
            return Ok(None);
        };
        let shape = BatchShape { batch: config.train.batch, frames: config.data.frames, size };
        let plan = preflight(&config.model, &shape, &config.step(), context.limits())?;
        let (latent_floats, code_bits) = config.model.latent_size(&shape)?;
        let voxels = shape.frames * size.iter().product::<usize>();
        let outcome = Outcome {
            steps: weights.step,
            seconds: seconds_of_steps(&run.history()?).last().map_or(0.0, |(_, seconds)| *seconds),
            adapter: context.adapter.name.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            parameters: plan.parameters,
            planned_bytes: plan.peak_bytes,
            latent_floats,
            code_bits,
            compression_ratio: voxels as f64 / latent_floats as f64,
            data: ScoredOn::of(&dataset),
            classes: dataset.classes().names.clone(),
            movers: (0..dataset.classes().len()).filter(|&class| dataset.classes().moves[class]).collect(),
            evaluation: tally.evaluation(),
        };
        let text = serde_json::to_string_pretty(&outcome).map_err(|why| Error::Data(why.to_string()))?;
        write_atomically(&folder.join(FILE), text.as_bytes())?;
        Ok(Some(outcome))
    }
}

/// The steps that were logged, each with the seconds that it and all before it took; validations, checkpoints and pauses are left out.
pub(super) fn seconds_of_steps(history: &History) -> Vec<(u32, f64)> {
    let (mut step, mut seconds) = (0, 0.0);
    let until = |metrics: &StepMetrics| {
        seconds += f64::from(metrics.step.saturating_sub(step)) / metrics.steps_per_sec;
        step = metrics.step;
        (step, seconds)
    };
    history.steps.iter().map(until).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_steps_take_time() {
        let row = |step: u32, steps_per_sec: f64, elapsed_secs: f64| {
            let json = serde_json::json!({
                "step": step, "elapsed_secs": elapsed_secs, "steps_per_sec": steps_per_sec, "learning_rate": 1e-3, "loss": 1.0,
                "cross_entropy": 1.0, "lovasz": 0.5, "gradient_norm": 1.0, "skipped": 0
            });
            serde_json::from_value(json).unwrap()
        };
        // A validation of 90 seconds lies between.
        let steps = vec![row(10, 5.0, 2.0), row(20, 10.0, 93.0), row(25, 5.0, 94.0)];
        let history = History { steps, ..History::default() };
        assert_eq!(seconds_of_steps(&history), [(10, 2.0), (20, 3.0), (25, 4.0)]);
    }
}
