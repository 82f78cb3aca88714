//! The metrics of a run, as the plots draw them.

use std::path::PathBuf;

use crate::Result;
use crate::train::events::{StepMetrics, ValidationMetrics};
use crate::train::run_folder::RunFolder;

/// The pace is measured over so many reports.
const PACE_OVER: usize = 20;

/// Every step and validation that was told, in order.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// What legends call the run.
    pub name: String,
    /// Where it lies.
    pub folder: PathBuf,
    /// Steps after which it has seen each of its clips once, if that is known.
    pub steps_per_epoch: Option<f64>,
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
        let crate::train::run_folder::History { steps, validations } = folder.history()?;
        Ok(History { steps, validations, ..History::new(folder.path().to_path_buf()) })
    }

    /// Adds a step; one that was told before and comes again replaces what followed it.
    pub fn step(&mut self, metrics: StepMetrics) {
        self.steps.truncate(self.steps.partition_point(|earlier| earlier.step < metrics.step));
        self.steps.push(metrics);
    }

    /// Adds a validation, as [`History::step`].
    pub fn validation(&mut self, metrics: ValidationMetrics) {
        self.validations.truncate(self.validations.partition_point(|earlier| earlier.step < metrics.step));
        self.validations.push(metrics);
    }

    /// Drops what came after `step`: the run goes on from there.
    pub fn forget_after(&mut self, step: u32) {
        self.steps.truncate(self.steps.partition_point(|metrics| metrics.step <= step));
        self.validations.truncate(self.validations.partition_point(|metrics| metrics.step <= step));
    }

    /// Steps a second of late, without the time that validations and pauses took.
    pub fn pace(&self) -> Option<f64> {
        let (mut steps, mut secs) = (0.0, 0.0);
        for pair in self.steps.windows(2).rev().take(PACE_OVER) {
            let [before, after] = pair else { break };
            if after.elapsed_secs < before.elapsed_secs {
                // What came before a resume may have been another machine.
                break;
            }
            let taken = f64::from(after.step - before.step);
            steps += taken;
            secs += taken / after.steps_per_sec;
        }
        let pace = if steps > 0.0 { steps / secs } else { self.steps.last()?.steps_per_sec };
        Some(pace).filter(|pace| pace.is_finite() && *pace > 0.0)
    }

    /// Seconds until step `last`, by the pace of late.
    pub fn secs_left(&self, last: u32) -> Option<f64> {
        let done = self.steps.last()?.step;
        Some(f64::from(last.saturating_sub(done)) / self.pace()?)
    }

    /// The best mIoU so far, with its step.
    pub fn best(&self) -> Option<(u32, f64)> {
        let scored = self.validations.iter().filter_map(|v| v.evaluation.total.miou.map(|miou| (v.step, miou)));
        scored.max_by(|a, b| a.1.total_cmp(&b.1))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::models::Terms;
    use crate::train::metrics::{Confusion, Evaluation, Scores};

    /// A run as it usually goes, the same at every call.
    pub fn course() -> History {
        let mut history = History::new("runs/demo-t4-001".into());
        for i in 1..=60u32 {
            let left = (-f64::from(i) / 20.0).exp() as f32;
            let wave = (f64::from(i) * 1.7).sin() as f32 * 0.1;
            let metrics = step(i * 10, f64::from(i), 0.1);
            let learning_rate = 3e-3 * 0.7f64.powi(i as i32 / 20);
            history.step(StepMetrics {
                loss: 0.6 + 2.0 * left + wave,
                cross_entropy: 0.3 + left,
                learning_rate,
                ..metrics
            });
            if i.is_multiple_of(10) {
                history.validation(validation(i * 10, f64::from(0.4 * (1.0 - left))));
            }
        }
        history
    }

    /// A step that took `secs_per_step`, `elapsed_secs` after the start.
    pub fn step(step: u32, elapsed_secs: f64, secs_per_step: f64) -> StepMetrics {
        StepMetrics {
            step,
            elapsed_secs,
            steps_per_sec: 1.0 / secs_per_step,
            learning_rate: 1e-3,
            loss: 2.0,
            cross_entropy: 1.0,
            lovasz: 0.5,
            terms: Terms::of([("kl", 1.5)]),
            gradient_norm: 0.7,
            loss_scale: 1.0,
            skipped: 0,
        }
    }

    /// A validation with `miou` and twice the IoU.
    pub fn validation(step: u32, miou: f64) -> ValidationMetrics {
        let total = Scores { miou: Some(miou), iou: Some(2.0 * miou), ..Confusion::new(2).scores() };
        ValidationMetrics {
            step,
            seconds: 1.0,
            is_best: false,
            evaluation: Evaluation { total, ..Evaluation::default() },
            confusion: Confusion::default(),
            clips: Vec::new(),
        }
    }

    fn history(steps: &[StepMetrics]) -> History {
        let mut history = History::default();
        steps.iter().for_each(|metrics| history.step(*metrics));
        history
    }

    #[test]
    fn steps_that_come_again_replace_what_followed_them() {
        let mut history = history(&[step(10, 1.0, 0.1), step(20, 2.0, 0.1), step(30, 3.0, 0.1)]);
        history.validation(validation(20, 0.25));
        history.validation(validation(30, 0.5));
        history.step(step(20, 0.5, 0.1));
        assert_eq!(history.steps.iter().map(|m| m.step).collect::<Vec<_>>(), [10, 20]);
        assert_eq!(history.steps[1].elapsed_secs, 0.5);
        history.forget_after(20);
        assert_eq!(history.best(), Some((20, 0.25)));
        history.forget_after(19);
        assert_eq!((history.steps.len(), history.best()), (1, None));
    }

    #[test]
    fn time_that_is_left_follows_from_the_pace_since_the_last_resume() {
        assert_eq!(history(&[]).secs_left(100), None);
        // Ten seconds a step before the resume, half a second after it; the validation between the last two does not count.
        let resumed = history(&[step(10, 100.0, 10.0), step(12, 1.0, 0.5), step(14, 2.0, 0.5), step(16, 33.0, 0.5)]);
        assert_eq!(resumed.pace(), Some(2.0));
        assert_eq!(resumed.secs_left(26), Some(5.0));
        assert_eq!(resumed.secs_left(3), Some(0.0));
        // Long steps weigh as much as they take: 1 step in 1 s and 9 steps in 9 * 3 s.
        let uneven = history(&[step(1, 1.0, 1.0), step(2, 2.0, 1.0), step(11, 29.0, 3.0)]);
        assert!((uneven.pace().unwrap() - 10.0 / 28.0).abs() < 1e-12);
        assert_eq!(history(&[step(1, 1.0, 0.0)]).pace(), None, "an impossible pace is none");
    }
}
