//! Bytes of the host as words of the device: kernels have no bytes, and words would be four times as long under way.

use super::case::Case;
use crate::Result;
use crate::graph::{CpuTensor, DType, Graph, Kernel, Op, OpContext, Program, TensorId, TensorSpec, WORD_BYTES};

/// `y[.., 4 i + k]` is byte `k` of `x[.., i]`, the lowest first.
///
/// # Shapes
/// - `x`: `[.., W]` in u32
/// - `y`: `[.., 4 W]` in u32
#[derive(Debug)]
pub struct UnpackBytes;

/// Appends [`UnpackBytes`].
///
/// # Errors
/// [`crate::Error::Shape`] if `x` is not in words.
pub fn unpack_bytes(graph: &mut Graph, x: TensorId) -> Result<TensorId> {
    graph.push_one(UnpackBytes, &[x])
}

impl Op for UnpackBytes {
    fn name(&self) -> &'static str {
        "unpack_bytes"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        match inputs {
            [x] if x.dtype == DType::U32 && !x.shape.is_empty() => {
                let [axes @ .., words] = x.shape.as_slice() else { return Ok(Vec::new()) };
                Ok(vec![TensorSpec::u32(&[axes, &[WORD_BYTES * words]].concat())])
            }
            _ => Err("needs one operand of words".into()),
        }
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        vec![inputs[0].data.iter().flat_map(|&word| (word as u32).to_le_bytes().map(f64::from)).collect()]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let words = context.inputs[0].channels();
        let mut program = Program::default();
        for window in context.windows(context.inputs[0].rows(), &[words, WORD_BYTES * words])? {
            let count = window.len() * words;
            let operands =
                vec![context.input(0).window(&window, words), context.output(0).window(&window, WORD_BYTES * words)];
            let kernel = Kernel::new("unpack.wgsl", self.name());
            program.dispatch(kernel, vec![count as u32], operands, context.grid_for(count));
        }
        Ok(program)
    }

    fn flops(&self, _: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        0
    }
}

/// The cases for the self-test.
pub fn cases() -> Vec<Case> {
    let case = |name: &str, shape: [usize; 2]| {
        Case::new(format!("unpack_bytes {name}"), move |b| {
            let words: Vec<u32> = (0..shape[0] * shape[1]).map(|i| (i as u32).wrapping_mul(0x9e37_79b9)).collect();
            let x = b.words("x", &shape, &words);
            Ok(vec![unpack_bytes(&mut b.graph, x)?])
        })
    };
    vec![case("one", [1, 1]), case("odd", [37, 3]), case("in windows", [200, 2]).windowed(2048)]
}
