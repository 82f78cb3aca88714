//! Padding and cropping of volumes.

use super::case::Case;
use super::common::expect;
use crate::Result;
use crate::graph::program::vector_width;
use crate::graph::{CpuTensor, Graph, Kernel, Node, Op, OpContext, Program, Slot, TensorId, TensorSpec};

/// Most padded cells that copy one cell: the backward pass adds them in one invocation.
const MOST_COPIES: usize = 16_384;

/// What padded cells hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PadMode {
    /// 0 (torch mode `constant`).
    Zero,
    /// The nearest cell's channels (torch mode `replicate`).
    Replicate,
}

/// Cells to add along x, y and z; negative numbers take cells away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Padding {
    /// Before the first cell.
    pub before: [isize; 3],
    /// After the last cell.
    pub after: [isize; 3],
    /// What they hold.
    pub mode: PadMode,
}

impl Padding {
    /// The extents of the padded volume.
    fn padded(&self, size: [usize; 3]) -> Result<[usize; 3], String> {
        let mut padded = [0; 3];
        for axis in 0..3 {
            let extent = size[axis] as isize + self.before[axis] + self.after[axis];
            if extent < 1 {
                return Err(format!("{self:?} leaves nothing of {size:?} cells"));
            }
            padded[axis] = extent as usize;
        }
        Ok(padded)
    }

    /// The cell along `axis` that padded cell `at` copies; `None` for 0.
    fn source(&self, axis: usize, at: usize, extent: usize) -> Option<usize> {
        let source = at as isize - self.before[axis];
        let nearest = source.clamp(0, extent as isize - 1);
        (self.mode == PadMode::Replicate || source == nearest).then_some(nearest as usize)
    }

    /// Calls `visit` with each element of the padded volume that copies one of the other, and that one.
    fn for_each(&self, inner: &[usize], outer: &[usize], mut visit: impl FnMut(usize, usize)) {
        let channels = inner[4];
        for n in 0..inner[0] {
            for x in 0..outer[1] {
                for y in 0..outer[2] {
                    for z in 0..outer[3] {
                        let at = [x, y, z];
                        let [i, j, k] = [0, 1, 2].map(|axis| self.source(axis, at[axis], inner[axis + 1]));
                        let (Some(i), Some(j), Some(k)) = (i, j, k) else { continue };
                        let padded = ((n * outer[1] + x) * outer[2] + y) * outer[3] + z;
                        let source = ((n * inner[1] + i) * inner[2] + j) * inner[3] + k;
                        (0..channels).for_each(|c| visit(padded * channels + c, source * channels + c));
                    }
                }
            }
        }
    }
}

fn size(shape: &[usize]) -> Result<[usize; 3], String> {
    match *shape {
        [_, x, y, z, _] => Ok([x, y, z]),
        _ => Err(format!("the volume is {shape:?} but must be [N, X, Y, Z, C]")),
    }
}

fn resized(shape: &[usize], [x, y, z]: [usize; 3]) -> TensorSpec {
    TensorSpec::f32(&[shape[0], x, y, z, shape[4]])
}

/// One launch per window of frames.
fn program(context: &OpContext, entry: &'static str, padding: &Padding, shapes: [&[usize]; 2]) -> Result<Program> {
    let frames = shapes[0][0];
    let units = [context.inputs[0].elements() / frames, context.outputs[0].elements() / frames];
    let channels = shapes[0][4];
    let width = vector_width(channels);
    let mut program = Program::default();
    for window in context.windows(frames, &units)? {
        let count = window.len() * units[1] / width;
        let mut words: Vec<u32> = Vec::new();
        for shape in shapes {
            words.extend([shape[1], shape[2], shape[3], 0].map(|extent| extent as u32));
        }
        words.extend(padding.before.map(|cells| cells as i32 as u32));
        words.extend([0, count as u32, (channels / width) as u32]);
        let operands = vec![context.input(0).window(&window, units[0]), context.output(0).window(&window, units[1])];
        let kernel = Kernel::new("pad3d.wgsl", entry)
            .define("width", width as i64)
            .define("replicate", padding.mode == PadMode::Replicate);
        program.dispatch(kernel, words, operands, context.grid_for(count));
    }
    Ok(program)
}

/// `y` is `x` with cells added around it or taken away (torch `nn.functional.pad`).
///
/// # Shapes
/// - `x`: `[N, X, Y, Z, C]`
/// - `y`: `[N, X + before + after, .., C]`
///
/// Saves nothing. The backward pass overwrites `d_x`: each cell's is the sum over its copies.
///
/// # Errors
/// [`crate::Error::Shape`] if `x` is no volume, nothing is left of it, or a cell would have too many copies.
#[derive(Debug)]
pub struct Pad3d {
    /// How much, and of what.
    pub padding: Padding,
}

/// Appends [`Pad3d`] to `graph`.
///
/// # Errors
/// [`crate::Error::Shape`] as [`Pad3d`].
pub fn pad3d(graph: &mut Graph, x: TensorId, padding: Padding) -> Result<TensorId> {
    graph.push_one(Pad3d { padding }, &[x])
}

impl Op for Pad3d {
    fn name(&self) -> &'static str {
        "pad3d_forward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [x] = inputs else { return Err("needs 1 operand: x".to_owned()) };
        let inner = size(&x.shape)?;
        expect("x", x, &x.shape)?;
        let outer = self.padding.padded(inner)?;
        let copies: usize = (0..3).map(|axis| outer[axis].saturating_sub(inner[axis]) + 1).product();
        if self.padding.mode == PadMode::Replicate && copies > MOST_COPIES {
            return Err(format!(
                "{:?} may copy a cell {copies} times, at most {MOST_COPIES} are supported",
                self.padding
            ));
        }
        Ok(vec![resized(&x.shape, outer)])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let mut y = vec![0.0; outputs[0].elements()];
        self.padding.for_each(inputs[0].shape, &outputs[0].shape, |to, from| y[to] = inputs[0].data[from]);
        vec![y]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        program(context, self.name(), &self.padding, [&context.inputs[0].shape, &context.outputs[0].shape])
    }

    fn backward(
        &self,
        graph: &mut Graph,
        node: &Node,
        d_outputs: &[Option<TensorId>],
        _: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None]) };
        let size = size(graph.shape(node.inputs[0])).map_err(crate::Error::Shape)?;
        Ok(vec![Some(graph.push_one(Pad3dBackward { padding: self.padding, size }, &[d_y])?)])
    }

    fn takes_half(&self, _: Slot) -> bool {
        true
    }

    fn flops(&self, _: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        0
    }
}

/// `d_x` of a cell is the sum of `d_y` over the padded cells that copy it.
#[derive(Debug)]
pub struct Pad3dBackward {
    /// That of the forward op.
    pub padding: Padding,
    /// X, Y, Z of `d_x`.
    pub size: [usize; 3],
}

impl Op for Pad3dBackward {
    fn name(&self) -> &'static str {
        "pad3d_backward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [d_y] = inputs else { return Err("needs 1 operand: d_y".to_owned()) };
        size(&d_y.shape)?;
        expect("d_y", d_y, &resized(&d_y.shape, self.padding.padded(self.size)?).shape)?;
        Ok(vec![resized(&d_y.shape, self.size)])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let mut d_x = vec![0.0; outputs[0].elements()];
        self.padding.for_each(&outputs[0].shape, inputs[0].shape, |from, to| d_x[to] += inputs[0].data[from]);
        vec![d_x]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        program(context, self.name(), &self.padding, [&context.outputs[0].shape, &context.inputs[0].shape])
    }

    fn takes_half(&self, _: Slot) -> bool {
        true
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        inputs[0].elements() as u64
    }
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    let case = |name: &str, shape: [usize; 5], before: [isize; 3], after: [isize; 3]| {
        [PadMode::Zero, PadMode::Replicate].map(|mode| {
            Case::new(format!("pad3d {name} {mode:?}").to_lowercase(), move |b| {
                let x = b.normal("x", &shape);
                Ok(vec![pad3d(&mut b.graph, x, Padding { before, after, mode })?])
            })
        })
    };
    let windowed = case("windows", [4, 4, 6, 2, 8], [1, 0, 2], [0, 2, 2]).map(|case| case.windowed(16_384));
    [
        windowed,
        case("odd", [2, 3, 5, 2, 5], [1, 2, 0], [3, 0, 1]),
        case("and crop", [2, 5, 4, 3, 4], [-2, 1, -1], [1, -2, -1]),
        case("one cell", [1, 1, 1, 1, 3], [2, 0, 1], [0, 1, 1]),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_nothing_or_copies_too_much_is_refused() {
        let mut graph = Graph::new();
        let x = graph.input("x", TensorSpec::f32(&[1, 2, 3, 4, 5]));
        let flat = graph.input("x", TensorSpec::f32(&[2, 3]));
        let crop = Padding { before: [-1, 0, 0], after: [-1, 0, 0], mode: PadMode::Zero };
        let many = Padding { before: [30; 3], after: [0; 3], mode: PadMode::Replicate };
        let mut message = |x, padding| pad3d(&mut graph, x, padding).unwrap_err().to_string();
        assert!(message(x, crop).contains("leaves nothing of [2, 3, 4]"));
        assert!(message(x, many).contains("29791 times"));
        assert!(message(flat, crop).contains("must be [N, X, Y, Z, C]"));
    }
}
