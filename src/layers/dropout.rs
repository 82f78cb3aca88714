//! Dropout whose mask is drawn again instead of being stored.

use super::case::Case;
use crate::Result;
use crate::graph::{CpuTensor, DType, Graph, Kernel, Node, Op, OpContext, Program, Slot, TensorId, TensorSpec};
use crate::rng::philox;

/// Elements of a block of random words.
const BLOCK: usize = 4;

/// The last word of a block's counter; samples of distributions have 0 there, so their streams may have the same numbers.
const DOMAIN: u32 = 1;

/// `y_i = x_i / (1 - probability)` where element `i` is kept, else 0 (torch `dropout(x, probability, training=True)`).
///
/// An element is dropped where word `i % 4` of [`philox`]`([i / 4, stream, step, 1], seed)` is below `2^32 * probability`, on
/// every device alike. The backward pass is the same op on `d_y`. Evaluation leaves the op out.
///
/// # Shapes
/// - `x`, `y`: `[..]`
/// - `rng`: u32 `[3]` = (seed low, seed high, step), written by the host before each step
///
/// Saves nothing; may overwrite `x`.
///
/// # Errors
/// [`crate::Error::Shape`] if `probability` is not in `[0, 1)` or `rng` is not three words.
#[derive(Debug, Clone)]
pub struct Dropout {
    /// Which stream of random numbers; each layer has one of its own.
    pub stream: u32,
    /// That of an element to be dropped.
    pub probability: f32,
}

/// Appends [`Dropout`] to `graph`.
///
/// # Errors
/// [`crate::Error::Shape`] as [`Dropout`].
pub fn dropout(graph: &mut Graph, x: TensorId, rng: TensorId, stream: u32, probability: f32) -> Result<TensorId> {
    graph.push_one(Dropout { stream, probability }, &[x, rng])
}

impl Dropout {
    /// Words below it drop an element.
    pub(super) fn threshold(&self) -> u32 {
        (f64::from(self.probability) * 4_294_967_296.0) as u32
    }

    /// What elements that are kept are multiplied by.
    pub(super) fn kept(&self) -> f64 {
        1.0 / (1.0 - f64::from(self.probability))
    }

    /// Checks the probability and the spec of the seed and the step.
    pub(super) fn check(&self, rng: &TensorSpec) -> Result<(), String> {
        if *rng != TensorSpec::u32(&[3]) {
            return Err("rng must be u32 [3]: seed low, seed high, step".to_owned());
        }
        if !(0.0..1.0).contains(&self.probability) {
            return Err(format!("the probability is {}; needs 0 <= p < 1", self.probability));
        }
        Ok(())
    }

    /// What element `i` is multiplied by; `rng` are the values of the seed and the step.
    pub(super) fn factor(&self, rng: &[f64], i: usize) -> f64 {
        self.factors(rng, i / BLOCK)[i % BLOCK]
    }

    fn factors(&self, rng: &[f64], block: usize) -> [f64; BLOCK] {
        let [low, high, step] = [0, 1, 2].map(|i| rng[i] as u32);
        let words = philox([block as u32, self.stream, step, DOMAIN], [low, high]);
        words.map(|word| if word < self.threshold() { 0.0 } else { self.kept() })
    }
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [x, rng] = inputs else { return Err("needs 2 operands: x, rng".to_owned()) };
        self.check(rng)?;
        if x.dtype != DType::F32 {
            return Err(format!("x is {x}; needs f32"));
        }
        Ok(vec![x.clone()])
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let blocks = inputs[0].data.chunks(BLOCK).enumerate();
        let dropped = blocks
            .flat_map(|(block, x)| x.iter().zip(self.factors(inputs[1].data, block)).map(|(x, factor)| factor * x));
        vec![dropped.collect()]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let count = context.outputs[0].elements();
        let width = if count.is_multiple_of(BLOCK) { BLOCK } else { 1 };
        let mut program = Program::default();
        for window in context.windows(count.div_ceil(BLOCK), &[BLOCK])? {
            let elements = window.start * BLOCK..count.min(window.end * BLOCK);
            let words = vec![
                elements.len() as u32,
                window.start as u32,
                self.stream,
                self.threshold(),
                (self.kept() as f32).to_bits(),
            ];
            let operands =
                vec![context.input(0).window(&elements, 1), context.input(1), context.output(0).window(&elements, 1)];
            let kernel = Kernel::new("dropout.wgsl", "dropout").define("width", width as i64);
            program.dispatch(kernel, words, operands, context.grid_for(window.len()));
        }
        Ok(program)
    }

    fn backward(
        &self,
        graph: &mut Graph,
        node: &Node,
        d_outputs: &[Option<TensorId>],
        _: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None; 2]) };
        Ok(vec![Some(graph.push_one(self.clone(), &[d_y, node.inputs[1]])?), None])
    }

    fn in_place(&self) -> Option<(usize, usize)> {
        Some((0, 0))
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(0) | Slot::Output(0))
    }
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    let case = |name: &str, shape: &'static [usize], probability: f32| {
        Case::new(name, move |b| {
            let x = b.normal("x", shape);
            let rng = b.words("rng", &[3], &[0x9e37_79b9, 17, 70_000]);
            Ok(vec![dropout(&mut b.graph, x, rng, 3, probability)?])
        })
        .windowed(1024)
    };
    vec![
        case("dropout odd", &[9, 41, 3], 0.3),
        case("dropout in fours", &[9, 41, 4], 0.9),
        case("dropout of nothing", &[5], 0.0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_dropped_elements_is_the_probability() {
        let x = vec![1.0; 100_000];
        let key = [1.0, 2.0, 3.0];
        let inputs = [CpuTensor { shape: &[100_000], data: &x }, CpuTensor { shape: &[3], data: &key }];
        let y = Dropout { stream: 0, probability: 0.2 }.cpu(&inputs, &[]).remove(0);
        let dropped = y.iter().filter(|&&y| y == 0.0).count();
        assert!((19_500..20_500).contains(&dropped), "{dropped}");
        assert!((y.iter().sum::<f64>() / 1e5 - 1.0).abs() < 0.01);
    }

    #[test]
    fn misfits_are_named() {
        let mut graph = Graph::new();
        let (x, rng) = (graph.input("x", TensorSpec::f32(&[4])), graph.input("rng", TensorSpec::u32(&[3])));
        let message = |result: Result<TensorId>| result.unwrap_err().to_string();
        assert!(message(dropout(&mut graph, x, rng, 0, 1.0)).contains("0 <= p < 1"));
        assert!(message(dropout(&mut graph, x, x, 0, 0.5)).contains("seed low"));
    }
}
