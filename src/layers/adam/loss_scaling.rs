//! The scale of the loss in mixed precision.

use crate::Result;
use crate::graph::{CpuTensor, Kernel, Op, OpContext, Program, TensorSpec};
use crate::layers::case::Case;

/// Keeps the gradients of a loss within the range of f16 (torch `GradScaler.update`): the loss' scale halves where a gradient
/// was not finite, and doubles after `interval` good steps. It is a power of two, so that it costs no digits.
///
/// A step that had to be skipped although the scale could not be lower counts as skipped; one that a lower scale may cure does
/// not.
///
/// # Shapes
/// - `state`: `[3]` from [`GradientNorm`](super::GradientNorm)
/// - `counters`: u32 `[2]` = (skipped steps, good steps since the scale last changed)
/// - outputs: the next scale `[1]`, and `counters`, which may be the input's memory
///
/// # Errors
/// [`crate::Error::Shape`] if the operands do not fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossScaling {
    /// The scale of the first step.
    pub start: f32,
    /// The scale is between 1 and this.
    pub most: f32,
    /// Good steps after which it doubles.
    pub interval: u32,
}

impl LossScaling {
    /// The loss as it is: for gradients in f32.
    pub const NONE: LossScaling = LossScaling { start: 1.0, most: 1.0, interval: 1 };
    /// For gradients in f16.
    pub const HALF: LossScaling = LossScaling { start: 65_536.0, most: 16_777_216.0, interval: 500 };
}

impl Op for LossScaling {
    fn name(&self) -> &'static str {
        "loss_scaling"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        match inputs {
            [state, counters] if state.elements() == 3 && *counters == TensorSpec::u32(&[2]) => {
                Ok(vec![TensorSpec::f32(&[1]), counters.clone()])
            }
            _ => Err("needs state [3] and counters u32 [2]".to_owned()),
        }
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let (finite, scale) = (inputs[0].data[1] > 0.5, inputs[0].data[2]);
        let [skipped, good] = [0, 1].map(|i| inputs[1].data[i]);
        let (scale, skipped, good) = if !finite {
            ((scale / 2.0).max(1.0), if scale > 1.0 { skipped } else { skipped + 1.0 }, 0.0)
        } else if good + 1.0 < f64::from(self.interval) {
            (scale, skipped, good + 1.0)
        } else {
            ((2.0 * scale).min(f64::from(self.most)), skipped, 0.0)
        };
        vec![vec![scale], vec![skipped, good]]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let mut program = Program::default();
        program.dispatch(
            Kernel::new("adam.wgsl", "loss_scaling"),
            vec![self.most.to_bits(), self.interval],
            vec![context.input(0), context.input(1), context.output(0), context.output(1)],
            [1, 1, 1],
        );
        Ok(program)
    }
}

/// Its cases for the self-test.
pub(super) fn cases() -> Vec<Case> {
    let case = |name: &str, scale: f64, finite: f64, counters: [u32; 2]| {
        Case::new(format!("loss_scaling {name}"), move |b| {
            let state = b.values("state", &[3], vec![1.5, finite, scale]);
            let counters = b.words("counters", &[2], &counters);
            b.graph.push(LossScaling { interval: 7, ..LossScaling::HALF }, &[state, counters])
        })
    };
    vec![
        case("waits", 8.0, 1.0, [3, 5]),
        case("doubles", 8.0, 1.0, [3, 6]),
        case("doubles no further", f64::from(LossScaling::HALF.most), 1.0, [3, 6]),
        case("halves", 8.0, 0.0, [3, 5]),
        case("halves no further", 1.0, 0.0, [3, 5]),
    ]
}
