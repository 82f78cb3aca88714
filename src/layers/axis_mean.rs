//! Mean of a plane over one of its two axes.

use super::case::Case;
use crate::Result;
use crate::graph::{CpuTensor, Graph, Kernel, Node, Op, OpContext, Program, TensorId, TensorSpec};

/// Longest axis: an invocation adds all of it.
const LONGEST_AXIS: usize = 16_384;

/// Appends [`AxisMean`] and returns the mean of `x` over `axis`.
///
/// # Errors
/// [`crate::Error::Shape`] if `x` is not `[B, A1, A2, D]` or `axis` neither 1 nor 2.
pub fn axis_mean(graph: &mut Graph, x: TensorId, axis: usize) -> Result<TensorId> {
    graph.push_one(AxisMean { axis }, &[x])
}

/// Mean over one axis (torch `x.mean(axis)`; paper: the planes that condition the geometry-aware phi).
///
/// # Shapes
/// - `x`: `[B, A1, A2, D]`
/// - `y`: `[B, A2, D]` for axis 1, `[B, A1, D]` for axis 2
///
/// Saves nothing. The backward pass overwrites `d_x`.
///
/// # Errors
/// [`crate::Error::Shape`] if `x` has not four axes or `axis` is neither 1 nor 2.
#[derive(Debug)]
pub struct AxisMean {
    /// 1 or 2.
    pub axis: usize,
}

/// `[outer, extent, inner]`: the axes before, at and after the one averaged.
fn extents(shape: &[usize], axis: usize) -> [usize; 3] {
    [shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product()]
}

/// One launch per window of batches; `long` is `[B, A1, A2, D]`.
fn program(context: &OpContext, long: &[usize], axis: usize, entry: &'static str) -> Result<Program> {
    let batches = long[0];
    let units = [context.inputs[0].elements() / batches, context.outputs[0].elements() / batches];
    let [outer, extent, inner] = extents(long, axis);
    let mut program = Program::default();
    for window in context.windows(batches, &units)? {
        let words = [outer / batches * window.len(), extent, inner].map(|word| word as u32);
        let operands = vec![context.input(0).window(&window, units[0]), context.output(0).window(&window, units[1])];
        let kernel = Kernel::new("axis_mean.wgsl", entry);
        program.dispatch(kernel, words.to_vec(), operands, context.grid_for(window.len() * units[1]));
    }
    Ok(program)
}

impl Op for AxisMean {
    fn name(&self) -> &'static str {
        "axis_mean_forward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [x] = inputs else { return Err("needs one operand".into()) };
        if x.shape.len() != 4 || !(1..=2).contains(&self.axis) {
            return Err("needs [B, A1, A2, D] and axis 1 or 2".into());
        }
        let extent = x.shape[self.axis];
        if x.elements() == 0 || extent > LONGEST_AXIS {
            return Err(format!("averages 1 to {LONGEST_AXIS} elements, not {extent}"));
        }
        let mut shape = x.shape.clone();
        shape.remove(self.axis);
        Ok(vec![TensorSpec::f32(&shape)])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let [_, extent, inner] = extents(inputs[0].shape, self.axis);
        let mean = |i: usize| {
            let first = i / inner * extent * inner + i % inner;
            (0..extent).map(|k| inputs[0].data[first + k * inner]).sum::<f64>() / extent as f64
        };
        vec![(0..outputs[0].elements()).map(mean).collect()]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        program(context, &context.inputs[0].shape, self.axis, "axis_mean_forward")
    }

    fn backward(
        &self,
        graph: &mut Graph,
        node: &Node,
        d_outputs: &[Option<TensorId>],
        _: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None]) };
        let extent = graph.shape(node.inputs[0])[self.axis];
        Ok(vec![Some(graph.push_one(AxisMeanBackward { axis: self.axis, extent }, &[d_y])?)])
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        inputs[0].elements() as u64
    }
}

/// `d_x = d_y / extent`, repeated along the axis.
#[derive(Debug)]
pub struct AxisMeanBackward {
    /// That of the forward op.
    pub axis: usize,
    /// The axis' extent in `x`.
    pub extent: usize,
}

impl Op for AxisMeanBackward {
    fn name(&self) -> &'static str {
        "axis_mean_backward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [d_y] = inputs else { return Err("needs one operand".into()) };
        if d_y.shape.len() != 3 || !(1..=2).contains(&self.axis) {
            return Err("needs [B, A, D] and axis 1 or 2".into());
        }
        let mut shape = d_y.shape.clone();
        shape.insert(self.axis, self.extent);
        Ok(vec![TensorSpec::f32(&shape)])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let [_, extent, inner] = extents(&outputs[0].shape, self.axis);
        let share = |i: usize| inputs[0].data[i / (extent * inner) * inner + i % inner] / extent as f64;
        vec![(0..outputs[0].elements()).map(share).collect()]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        program(context, &context.outputs[0].shape, self.axis, "axis_mean_backward")
    }
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    let case = |name: &str, shape: &'static [usize], axis: usize| {
        Case::new(format!("axis_mean {name}"), move |b| {
            let x = b.normal("x", shape);
            Ok(vec![axis_mean(&mut b.graph, x, axis)?])
        })
    };
    vec![
        case("axis 1", &[2, 5, 3, 17], 1),
        case("axis 2", &[2, 5, 3, 17], 2),
        case("one batch, long", &[1, 7, 200, 32], 2),
        case("in windows", &[5, 4, 6, 32], 1).windowed(8192),
    ]
}
