//! What the model makes of each voxel, small enough to be read back: three classes, their probabilities, the entropy.

use super::case::{Case, CaseBuilder};
use crate::Result;
use crate::graph::{CpuTensor, DType, Graph, Kernel, Op, OpContext, Program, TensorId, TensorSpec};

/// Steps of an entropy.
const ENTROPY_LEVELS: u32 = 255;
/// Steps of a probability.
const PROBABILITY_LEVELS: u32 = 1023;
/// Most classes: their numbers fit a byte, and so does [`Likely::NO_CLASS`].
const MAX_CLASSES: usize = 255;

/// The three most probable classes of a voxel, their probabilities, and how undecided the model is.
///
/// Word 0 has three classes and the entropy in a byte each, word 1 three probabilities in ten bits each, lowest bits first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct Likely(pub [u32; 2]);

impl Likely {
    /// In place of a class where the model has fewer than three.
    pub const NO_CLASS: u8 = 255;

    /// The most probable class first, the lowest of equals.
    pub fn classes(self) -> [u8; 3] {
        let [first, second, third, _] = self.0[0].to_le_bytes();
        [first, second, third]
    }

    /// Probabilities of [`Likely::classes`], in steps of 1/1023; 0 for [`Likely::NO_CLASS`].
    pub fn probabilities(self) -> [f32; 3] {
        [0, 10, 20].map(|shift| (self.0[1] >> shift & PROBABILITY_LEVELS) as f32 / PROBABILITY_LEVELS as f32)
    }

    /// Entropy over all classes, 0 (certain) to 1 (all classes alike), in steps of 1/255.
    pub fn entropy(self) -> f32 {
        (self.0[0] >> 24) as f32 / ENTROPY_LEVELS as f32
    }
}

/// Appends [`LikelyClasses`].
///
/// # Errors
/// [`crate::Error::Shape`] as [`LikelyClasses`].
pub fn likely(graph: &mut Graph, logits: TensorId) -> Result<TensorId> {
    graph.push_one(LikelyClasses, &[logits])
}

/// The three largest of `softmax(logits_v)`, the lowest index first among equals, and `-sum_k p_k ln p_k / ln K`, as
/// [`Likely`] packs them.
///
/// # Shapes
/// - `logits`: `[R.., K]`
/// - `y`: u32 `[R.., 2]`
///
/// # Errors
/// [`crate::Error::Shape`] if `logits` has no channels or more than 255.
#[derive(Debug)]
pub struct LikelyClasses;

/// 1 / ln K; a single class leaves nothing undecided.
fn entropy_scale(classes: usize) -> f64 {
    if classes > 1 { 1.0 / (classes as f64).ln() } else { 0.0 }
}

/// Classes in order of falling probability with three probabilities and the entropy, in steps before rounding.
fn unrounded(logits: &[f64]) -> (Vec<usize>, [f64; 4]) {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    let highest = logits[order[0]];
    let total: f64 = logits.iter().map(|l| (l - highest).exp()).sum();
    let weighted: f64 = logits.iter().map(|l| (l - highest).exp() * (l - highest)).sum();
    let entropy = (total.ln() - weighted / total) * entropy_scale(logits.len());
    let probability = |rank: usize| {
        let p = order.get(rank).map_or(0.0, |&class| (logits[class] - highest).exp() / total);
        p * f64::from(PROBABILITY_LEVELS)
    };
    let levels = [probability(0), probability(1), probability(2), entropy * f64::from(ENTROPY_LEVELS)];
    (order, levels)
}

impl Op for LikelyClasses {
    fn name(&self) -> &'static str {
        "likely"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        match inputs {
            [logits] if logits.dtype == DType::F32 && logits.elements() > 0 && !logits.shape.is_empty() => {
                if logits.channels() > MAX_CLASSES {
                    return Err(format!("tells at most {MAX_CLASSES} classes apart, not {}", logits.channels()));
                }
                let rows = &logits.shape[..logits.shape.len() - 1];
                Ok(vec![TensorSpec::u32(&[rows, &[2]].concat())])
            }
            _ => Err("needs f32 logits [R.., K]".to_owned()),
        }
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let classes = inputs[0].shape.last().copied().unwrap_or(1);
        let words = inputs[0].data.chunks_exact(classes).flat_map(|logits| {
            let (order, levels) = unrounded(logits);
            let class = |rank: usize| order.get(rank).map_or(u32::from(Likely::NO_CLASS), |&class| class as u32);
            let [first, second, third, entropy] = levels.map(|level| level.round() as u32);
            [class(0) | class(1) << 8 | class(2) << 16 | entropy << 24, first | second << 10 | third << 20]
        });
        vec![words.map(f64::from).collect()]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let classes = context.inputs[0].channels();
        let kernel = Kernel::new("likely.wgsl", "likely").define("CLASSES", classes as i64);
        let mut program = Program::default();
        for window in context.windows(context.inputs[0].rows(), &[classes, 2])? {
            program.dispatch(
                kernel.clone(),
                vec![window.len() as u32, (entropy_scale(classes) as f32).to_bits()],
                vec![context.input(0).window(&window, classes), context.output(0).window(&window, 2)],
                context.grid_for(window.len()),
            );
        }
        Ok(program)
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        4 * inputs[0].elements() as u64
    }
}

/// `rows` rows of logits in which no rounding hangs on the last bits of f32, so that kernel and twin agree to the bit.
fn clear_logits(b: &mut CaseBuilder, rows: usize, classes: usize) -> Vec<f64> {
    let mut logits = Vec::with_capacity(rows * classes);
    while logits.len() < rows * classes {
        let row: Vec<f64> = (0..classes).map(|_| f64::from(2.0 * b.rng.normal() as f32)).collect();
        let is_clear = |level: f64| (level.fract() - 0.5).abs() > 0.02;
        if unrounded(&row).1.into_iter().all(is_clear) {
            logits.extend(row);
        }
    }
    logits
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    let case = |rows: usize, classes: usize| {
        Case::new(format!("likely k{classes}"), move |b| {
            let values = clear_logits(b, rows, classes);
            let logits = b.values("logits", &[rows, classes], values);
            Ok(vec![likely(&mut b.graph, logits)?])
        })
    };
    let ties = Case::new("likely ties", |b| {
        let values = (0..67 * 4).map(|_| b.rng.below(2) as f64).collect();
        let logits = b.values("logits", &[67, 4], values);
        Ok(vec![likely(&mut b.graph, logits)?])
    });
    vec![case(1203, 11).windowed(16_384), case(130, 64), case(65, 3), case(65, 2), case(3, 1), ties]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(logits: &[f64]) -> Likely {
        let shape = [logits.len()];
        let words = LikelyClasses.cpu(&[CpuTensor { shape: &shape, data: logits }], &[]).remove(0);
        Likely([words[0] as u32, words[1] as u32])
    }

    #[test]
    fn what_is_packed_comes_out_again() {
        let likely = of(&[0.0, 0.7_f64.ln(), 0.2_f64.ln() - 40.0, 0.1_f64.ln()]);
        assert_eq!(likely.classes(), [0, 1, 3]);
        for (have, want) in likely.probabilities().into_iter().zip([1.0 / 1.8, 0.7 / 1.8, 0.1 / 1.8]) {
            assert!((have - want).abs() <= 0.5 / 1023.0, "{have} {want}");
        }
        let entropy = -[1.0, 0.7, 0.1].iter().map(|q: &f32| q / 1.8 * (q / 1.8).ln()).sum::<f32>() / 4.0_f32.ln();
        assert!((likely.entropy() - entropy).abs() <= 0.5 / 255.0, "{} {entropy}", likely.entropy());
    }

    #[test]
    fn the_certain_and_the_undecided() {
        let certain = of(&[-200.0, 200.0, -200.0]);
        assert_eq!((certain.classes(), certain.probabilities(), certain.entropy()), ([1, 0, 2], [1.0, 0.0, 0.0], 0.0));
        let undecided = of(&[3.0; 5]);
        assert_eq!((undecided.classes(), undecided.entropy()), ([0, 1, 2], 1.0));
    }

    #[test]
    fn fewer_than_three_classes_leave_places_empty() {
        let none = Likely::NO_CLASS;
        assert_eq!(of(&[1.0, 1.0]).classes(), [0, 1, none]);
        let single = of(&[1.0]);
        assert_eq!(
            (single.classes(), single.probabilities(), single.entropy()),
            ([0, none, none], [1.0, 0.0, 0.0], 0.0)
        );
    }

    #[test]
    fn too_many_classes_are_refused() {
        let mut graph = Graph::new();
        let logits = graph.input("logits", TensorSpec::f32(&[2, 256]));
        assert!(likely(&mut graph, logits).unwrap_err().to_string().contains("at most 255"));
    }
}
