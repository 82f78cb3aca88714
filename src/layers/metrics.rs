//! What evaluation counts: the predicted class of each voxel, and how often each class was taken for which.

use super::case::Case;
use crate::Result;
use crate::graph::program::WORKGROUP;
use crate::graph::{CpuTensor, DType, Graph, Kernel, Op, OpContext, Program, TensorId, TensorSpec};

/// Most classes of a confusion matrix: one fits a workgroup's memory.
pub const MAX_CLASSES: usize = 64;

/// Voxels of one invocation of `confusion`; a workgroup touches each of its counters once for 64 times as many.
const VOXELS_PER_INVOCATION: usize = 32;

/// Appends [`Argmax`].
///
/// # Errors
/// [`crate::Error::Shape`] as [`Argmax`].
pub fn argmax(graph: &mut Graph, logits: TensorId) -> Result<TensorId> {
    graph.push_one(Argmax, &[logits])
}

/// Appends [`Confusion`].
///
/// # Errors
/// [`crate::Error::Shape`] as [`Confusion`].
pub fn confusion(
    graph: &mut Graph,
    predicted: TensorId,
    labels: TensorId,
    observed: TensorId,
    frames: usize,
    classes: usize,
) -> Result<TensorId> {
    graph.push_one(Confusion { frames, classes }, &[predicted, labels, observed])
}

/// `y_v = argmax_k logits_vk`, the lowest index among equals (torch `argmax(-1)`).
///
/// # Shapes
/// - `logits`: `[R.., K]`
/// - `y`: u32 `[R..]`
///
/// # Errors
/// [`crate::Error::Shape`] if `logits` has no channels.
#[derive(Debug)]
pub struct Argmax;

/// `counts[n, i, j]` = observed voxels of frame `n` with label `i` that were predicted as `j`.
///
/// A label or prediction of `K` or more counts nowhere.
///
/// # Shapes
/// - `predicted`, `labels`: u32 `[R..]`, `R = N * X * Y * Z`
/// - `observed`: u32 `[R..]`, 0 where a voxel does not count
/// - `counts`: u32 `[N, K, K]`, overwritten
///
/// # Errors
/// [`crate::Error::Shape`] if the operands differ in size, `N` does not divide them, or `K` exceeds [`MAX_CLASSES`].
#[derive(Debug)]
pub struct Confusion {
    /// `N`.
    pub frames: usize,
    /// `K`.
    pub classes: usize,
}

fn kernel(entry: &'static str, classes: usize) -> Kernel {
    Kernel::new("metrics.wgsl", entry).define("CLASSES", classes as i64).define("CONFUSION", entry == "confusion")
}

impl Op for Argmax {
    fn name(&self) -> &'static str {
        "argmax"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        match inputs {
            [logits] if logits.dtype == DType::F32 && logits.elements() > 0 && !logits.shape.is_empty() => {
                Ok(vec![TensorSpec::u32(&logits.shape[..logits.shape.len() - 1])])
            }
            _ => Err("needs f32 logits [R.., K]".to_owned()),
        }
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let classes = inputs[0].shape.last().copied().unwrap_or(1);
        let best = |row: &[f64]| (1..classes).fold(0, |best, c| if row[c] > row[best] { c } else { best });
        vec![inputs[0].data.chunks_exact(classes).map(|row| best(row) as f64).collect()]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let classes = context.inputs[0].channels();
        let mut program = Program::default();
        for window in context.windows(context.inputs[0].rows(), &[classes, 1])? {
            program.dispatch(
                kernel("argmax", classes),
                vec![window.len() as u32, 0, 0, 0, 0],
                vec![context.input(0).window(&window, classes), context.output(0).window(&window, 1)],
                context.grid_for(window.len()),
            );
        }
        Ok(program)
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        inputs[0].elements() as u64
    }
}

impl Op for Confusion {
    fn name(&self) -> &'static str {
        "confusion"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [predicted, labels, observed] = inputs else { return Err("needs three operands".to_owned()) };
        let voxels = predicted.elements();
        if inputs.iter().any(|i| i.dtype != DType::U32) || labels.elements() != voxels || observed.elements() != voxels
        {
            return Err("predicted, labels and observed must be u32 and of one size".to_owned());
        }
        if self.frames == 0 || voxels == 0 || !voxels.is_multiple_of(self.frames) {
            return Err(format!("{voxels} voxels are no {} frames", self.frames));
        }
        if self.classes == 0 || self.classes > MAX_CLASSES {
            return Err(format!("counts 1 to {MAX_CLASSES} classes, not {}", self.classes));
        }
        Ok(vec![TensorSpec::u32(&[self.frames, self.classes, self.classes])])
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let [predicted, labels, observed] = inputs else { return Vec::new() };
        let classes = self.classes;
        let per_frame = labels.data.len() / self.frames;
        let mut counts = vec![0.0; self.frames * classes * classes];
        for v in 0..labels.data.len() {
            let (truth, guess) = (labels.data[v] as usize, predicted.data[v] as usize);
            if observed.data[v] != 0.0 && truth < classes && guess < classes {
                counts[(v / per_frame * classes + truth) * classes + guess] += 1.0;
            }
        }
        vec![counts]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let per_frame = context.inputs[0].elements() / self.frames;
        let groups_per_frame = per_frame.div_ceil(WORKGROUP * VOXELS_PER_INVOCATION);
        let mut program = Program::default();
        program.clear(context.output(0));
        for window in context.windows(self.frames, &[per_frame])? {
            let mut operands: Vec<_> = (0..3).map(|i| context.input(i).window(&window, per_frame)).collect();
            operands.push(context.output(0));
            program.dispatch(
                kernel("confusion", self.classes),
                vec![
                    per_frame as u32,
                    VOXELS_PER_INVOCATION as u32,
                    groups_per_frame as u32,
                    window.len() as u32,
                    window.start as u32,
                ],
                operands,
                context.grid(window.len() * groups_per_frame),
            );
        }
        Ok(program)
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        inputs[0].elements() as u64
    }
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    let counted = |name: &str, frames: usize, voxels: usize, classes: usize| {
        Case::new(name, move |b| {
            let shape = [frames, voxels];
            // Some labels and predictions are no class.
            let predicted = b.labels("predicted", &shape, classes + 1);
            let labels = b.labels("labels", &shape, classes + 2);
            let observed = b.labels("observed", &shape, 3);
            Ok(vec![confusion(&mut b.graph, predicted, labels, observed, frames, classes)?])
        })
    };
    vec![
        Case::new("argmax k11", |b| {
            let logits = b.constant_normal("logits", &[3, 401, 11]);
            Ok(vec![argmax(&mut b.graph, logits)?])
        })
        .windowed(16_384),
        Case::new("argmax ties", |b| {
            let values = (0..67 * 3).map(|_| b.rng.below(2) as f64).collect();
            let logits = b.values("logits", &[67, 3], values);
            Ok(vec![argmax(&mut b.graph, logits)?])
        }),
        counted("confusion k3", 5, 64 * 37, 3).windowed(2 * 64 * 37 * 4),
        counted("confusion k11", 2, 4999, 11),
        counted("confusion one voxel", 1, 1, 11),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misfits_are_named() {
        let mut graph = Graph::new();
        let words: Vec<TensorId> = (0..3).map(|_| graph.input("words", TensorSpec::u32(&[10]))).collect();
        let floats = graph.input("floats", TensorSpec::f32(&[10]));
        let message = |result: Result<TensorId>| result.unwrap_err().to_string();
        assert!(message(confusion(&mut graph, words[0], words[1], words[2], 3, 4)).contains("no 3 frames"));
        assert!(message(confusion(&mut graph, words[0], words[1], floats, 1, 4)).contains("of one size"));
        assert!(message(confusion(&mut graph, words[0], words[1], words[2], 1, 65)).contains("not 65"));
        assert!(message(argmax(&mut graph, words[0])).contains("logits"));
    }
}
