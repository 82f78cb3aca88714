//! Learning rates over a run.

/// The learning rate drops by a factor at fixed fractions of the run (torch `MultiStepLR`):
/// `lr(step) = initial * decay^(number of milestones m with step >= m * steps)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// The rate before the first milestone.
    pub initial: f64,
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
        let passed = self.milestones.iter().filter(|&&m| step >= (m * self.steps as f64).round() as usize).count();
        self.initial * self.decay.powi(passed as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_drops_at_each_milestone() {
        let schedule = Schedule { initial: 1e-3, decay: 0.7, milestones: vec![0.5, 0.6, 0.7, 0.8, 0.9], steps: 100 };
        for (step, passed) in [(0, 0), (49, 0), (50, 1), (59, 1), (60, 2), (89, 4), (90, 5), (99, 5), (500, 5)] {
            let expected = 1e-3 * 0.7f64.powi(passed);
            assert!((schedule.at(step) - expected).abs() < 1e-15, "step {step}");
        }
    }

    #[test]
    fn without_milestones_the_rate_stays() {
        let schedule = Schedule { initial: 3e-3, decay: 0.7, milestones: vec![], steps: 10 };
        assert_eq!(schedule.at(0).to_bits(), schedule.at(9).to_bits());
    }
}
