//! The metrics of a run, as the plots draw them.

use std::path::PathBuf;

use crate::Result;
use crate::train::events::{StepMetrics, ValidationMetrics};
use crate::train::run_folder::{Row, RunFolder};

/// Every step and validation that was told, in order.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// What legends call the run.
    pub name: String,
    /// Where it lies.
    pub folder: PathBuf,
    /// Losses of steps.
    pub steps: Vec<StepMetrics>,
    /// Scores on held-out clips.
    pub validations: Vec<ValidationMetrics>,
}

impl History {
    /// An empty history of the run in `folder`.
    pub fn new(folder: PathBuf) -> History {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        History { name, folder, ..History::default() }
    }

    /// Reads what a run has written.
    ///
    /// # Errors
    /// [`crate::Error::Data`] if the run's metrics cannot be read.
    pub fn read(folder: &RunFolder) -> Result<History> {
        let mut history = History::new(folder.path().to_path_buf());
        for row in folder.metrics()? {
            match row {
                Row::Step(metrics) => history.step(metrics),
                Row::Validation(metrics) => history.validation(metrics),
            }
        }
        Ok(history)
    }

    /// Adds a step; one that was told before and came again after a resume replaces what followed it.
    pub fn step(&mut self, metrics: StepMetrics) {
        self.steps.truncate(self.steps.partition_point(|earlier| earlier.step < metrics.step));
        self.steps.push(metrics);
    }

    /// Adds a validation, as [`History::step`].
    pub fn validation(&mut self, metrics: ValidationMetrics) {
        self.validations.truncate(self.validations.partition_point(|earlier| earlier.step < metrics.step));
        self.validations.push(metrics);
    }

    /// The best mIoU so far, with its step.
    pub fn best(&self) -> Option<(u32, f64)> {
        let scored = self.validations.iter().filter_map(|v| v.evaluation.total.miou.map(|miou| (v.step, miou)));
        scored.max_by(|a, b| a.1.total_cmp(&b.1))
    }
}
