//! Learning rates over a run.

use serde::{Deserialize, Serialize};

/// How the learning rate falls over a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// By a factor at fixed fractions of the run (torch `MultiStepLR`).
    #[default]
    Steps,
    /// Along half a cosine to 0 at the end of the run (torch `CosineAnnealingLR`).
    Cosine,
}

/// The learning rate `lr(step)` of each step of a run, which rises linearly over the first `warmup` steps (torch `LinearLR` from
/// `1 / warmup`) and falls as [`Decay`] says: with [`Decay::Steps`],
/// `lr(step) = initial * decay^(number of milestones m with step >= m * steps)`; with [`Decay::Cosine`],
/// `lr(step) = initial * (1 + cos(pi * (step - warmup) / (steps - warmup))) / 2`.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// The rate after the warm-up.
    pub initial: f64,
    /// How it falls.
    pub kind: Decay,
    /// Steps over which it rises; 0 for none.
    pub warmup: usize,
    /// Factor at each milestone.
    pub decay: f64,
    /// Fractions of the run, each in 0..=1.
    pub milestones: Vec<f64>,
    /// Length of the run.
    pub steps: usize,
}

impl Schedule {
    /// The rate of step `step` (counted from 0).
    pub fn at(&self, step: usize) -> f64 {
        let rate = match self.kind {
            Decay::Steps => {
                let is_passed = |m: &&f64| step >= (**m * self.steps as f64).round() as usize;
                self.initial * self.decay.powi(self.milestones.iter().filter(is_passed).count() as i32)
            }
            Decay::Cosine => {
                let (done, all) = (step.saturating_sub(self.warmup), self.steps.saturating_sub(self.warmup).max(1));
                let part = (done as f64 / all as f64).min(1.0);
                self.initial * 0.5 * (1.0 + (std::f64::consts::PI * part).cos())
            }
        };
        if step < self.warmup { rate * (step + 1) as f64 / self.warmup as f64 } else { rate }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: Schedule =
        Schedule { initial: 3e-3, kind: Decay::Steps, warmup: 0, decay: 0.7, milestones: vec![], steps: 10 };

    #[test]
    fn the_rate_drops_at_each_milestone() {
        let schedule = Schedule { initial: 1e-3, milestones: vec![0.5, 0.6, 0.7, 0.8, 0.9], steps: 100, ..STEPS };
        for (step, passed) in [(0, 0), (49, 0), (50, 1), (59, 1), (60, 2), (89, 4), (90, 5), (99, 5), (500, 5)] {
            let expected = 1e-3 * 0.7f64.powi(passed);
            assert!((schedule.at(step) - expected).abs() < 1e-15, "step {step}");
        }
    }

    #[test]
    fn without_milestones_the_rate_stays() {
        assert_eq!(STEPS.at(0).to_bits(), STEPS.at(9).to_bits());
    }

    #[test]
    fn the_rate_rises_first() {
        let schedule = Schedule { initial: 1.0, warmup: 4, milestones: vec![0.5], ..STEPS };
        let rates: Vec<f64> = (0..6).map(|step| schedule.at(step)).collect();
        assert_eq!(rates, [0.25, 0.5, 0.75, 1.0, 1.0, 0.7]);
    }

    #[test]
    fn a_cosine_ends_at_nothing() {
        let schedule = Schedule { initial: 2.0, kind: Decay::Cosine, warmup: 2, steps: 10, ..STEPS };
        assert_eq!([0, 1, 2].map(|step| schedule.at(step)), [1.0, 2.0, 2.0]);
        assert!((schedule.at(6) - 1.0).abs() < 1e-12);
        assert!((schedule.at(4) - (1.0 + 0.5f64.sqrt())).abs() < 1e-12);
        assert!(schedule.at(10).abs() < 1e-12 && schedule.at(1000).abs() < 1e-12);
        assert!(Schedule { warmup: 20, ..schedule }.at(9).is_finite());
    }
}
