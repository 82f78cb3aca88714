//! The one op that graphs append themselves: the sum of gradients that meet.

use super::program::vector_width;
use super::{CpuTensor, Graph, Kernel, Node, Op, OpContext, Program, Slot, TensorId, TensorSpec};
use crate::Result;

/// `y = a + b`, element by element (torch `a + b`); may overwrite `a`.
///
/// # Errors
/// [`crate::Error::Shape`] if the operands differ in size.
#[derive(Debug, Clone, Copy)]
pub struct Add;

impl Op for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        match inputs {
            [a, b] if a.elements() == b.elements() => Ok(vec![a.clone()]),
            _ => Err("needs 2 operands of one size".to_owned()),
        }
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        vec![inputs[0].data.iter().zip(inputs[1].data).map(|(a, b)| a + b).collect()]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        elementwise(context, self.name(), 0.0)
    }

    fn backward(
        &self,
        _: &mut Graph,
        _: &Node,
        d_outputs: &[Option<TensorId>],
        _: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        Ok(vec![d_outputs[0]; 2])
    }

    fn in_place(&self) -> Option<(usize, usize)> {
        Some((0, 0))
    }

    fn takes_half(&self, _: Slot) -> bool {
        true
    }
}

/// The launches of a kernel of `shaders/pointwise.wgsl`: every input and the output element by element, with a constant.
///
/// # Errors
/// As for [`OpContext::windows`].
pub(crate) fn elementwise(context: &OpContext, entry: &'static str, constant: f32) -> Result<Program> {
    let count = context.outputs[0].elements();
    let width = vector_width(count);
    let mut program = Program::default();
    for window in context.windows(count, &[1])? {
        let vectors = window.len() / width;
        let mut bound: Vec<_> = (0..context.inputs.len()).map(|i| context.input(i).window(&window, 1)).collect();
        bound.push(context.output(0).window(&window, 1));
        let kernel = Kernel::new("pointwise.wgsl", entry).define("width", width as i64);
        program.dispatch(kernel, vec![vectors as u32, constant.to_bits()], bound, context.grid_for(vectors));
    }
    Ok(program)
}
