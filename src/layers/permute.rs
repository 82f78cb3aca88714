//! Rearranged copies: axis permutation, and repetition of parameter-sized tensors.

use super::case::Case;
use super::common::expect;
use super::reduce::{Chunks, sum_chunks};
use crate::Result;
use crate::graph::{CpuTensor, Graph, Kernel, Node, Op, OpContext, Program, Slot, TensorId, TensorSpec};

/// Most axes of a tensor that [`Permute`] takes.
const MAX_RANK: usize = 8;

/// `y` is `x` with its axes in another order: axis `i` of `y` is axis `axes[i]` of `x` (torch `x.permute(axes)`).
///
/// # Shapes
/// - `x`: any of rank 1 to 8; what lies behind the first axes that stay in place must fit one binding
/// - `y`: `[x.shape[axes[0]], x.shape[axes[1]], ..]`
///
/// Saves nothing. The backward pass overwrites `d_x` with the inverse permutation of `d_y`.
///
/// # Errors
/// [`crate::Error::Shape`] if `axes` does not name each axis of `x` once.
#[derive(Debug)]
pub struct Permute {
    /// For each axis of `y`, the axis of `x`.
    pub axes: Vec<usize>,
}

/// Appends [`Permute`] to `graph`.
///
/// # Errors
/// [`crate::Error::Shape`] if `axes` does not name each axis of `x` once.
pub fn permute(graph: &mut Graph, x: TensorId, axes: &[usize]) -> Result<TensorId> {
    graph.push_one(Permute { axes: axes.to_vec() }, &[x])
}

impl Permute {
    /// For each axis of `y`, how far apart its neighbours are in `x`.
    fn strides(&self, shape: &[usize]) -> Vec<usize> {
        self.axes.iter().map(|&axis| shape[axis + 1..].iter().product()).collect()
    }

    fn inverse(&self) -> Permute {
        let mut axes = vec![0; self.axes.len()];
        self.axes.iter().enumerate().for_each(|(i, &axis)| axes[axis] = i);
        Permute { axes }
    }

    /// Extents of `y` and strides in `x`, those of axes that stay neighbours as of one.
    fn merged(&self, x: &[usize]) -> (Vec<usize>, Vec<usize>) {
        let (mut extents, mut strides): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
        for (i, (&axis, stride)) in self.axes.iter().zip(self.strides(x)).enumerate() {
            if i > 0 && axis == self.axes[i - 1] + 1 {
                let last = extents.len() - 1;
                extents[last] *= x[axis];
                strides[last] = stride;
            } else {
                extents.push(x[axis]);
                strides.push(stride);
            }
        }
        (extents, strides)
    }
}

/// Where four neighbours of the result lie in the operand from the first of them on, if that is the same for every four; then
/// extents and strides become those of fours.
fn gathered(extents: &mut Vec<usize>, strides: &mut Vec<usize>) -> Option<[usize; 4]> {
    let last = extents.len() - 1;
    let stride = strides[last];
    if extents[last].is_multiple_of(4) {
        extents[last] /= 4;
        strides[last] *= 4;
        return Some([0, stride, 2 * stride, 3 * stride]);
    }
    if last == 0 || extents[last] != 2 || !extents[last - 1].is_multiple_of(2) {
        return None;
    }
    let before = strides[last - 1];
    extents.truncate(last);
    strides.truncate(last);
    extents[last - 1] /= 2;
    strides[last - 1] *= 2;
    Some([0, stride, before, before + stride])
}

impl Op for Permute {
    fn name(&self) -> &'static str {
        "permute"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [x] = inputs else { return Err(format!("{} operands given, 1 needed", inputs.len())) };
        expect("x", x, &x.shape)?;
        let rank = x.shape.len();
        let mut sorted = self.axes.clone();
        sorted.sort_unstable();
        if !(1..=MAX_RANK).contains(&rank) || sorted != (0..rank).collect::<Vec<_>>() {
            return Err(format!(
                "axes {:?} given for x {x}; needed is each axis below {rank} once, {MAX_RANK} axes at most",
                self.axes
            ));
        }
        Ok(vec![TensorSpec::f32(&self.axes.iter().map(|&axis| x.shape[axis]).collect::<Vec<_>>())])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let strides = self.strides(inputs[0].shape);
        let source = |mut index: usize| {
            let axes = outputs[0].shape.iter().zip(&strides).rev();
            axes.fold(0, |source, (extent, stride)| {
                let along = index % extent;
                index /= extent;
                source + along * stride
            })
        };
        vec![(0..outputs[0].elements()).map(|index| inputs[0].data[source(index)]).collect()]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let x = &context.inputs[0].shape;
        let (mut extents, mut strides) = self.merged(x);
        // The first axes that stay are cut into windows.
        let staying = self.axes.iter().enumerate().take_while(|&(i, &axis)| i == axis).count();
        let parts = x[..staying].iter().product::<usize>();
        let part = context.outputs[0].elements() / parts;

        let rank = extents.len();
        let in_fours = rank > 1 && strides[rank - 1] == 1 && extents[rank - 1].is_multiple_of(4);
        let steps = if in_fours {
            extents[rank - 1] /= 4;
            strides[..rank - 1].iter_mut().for_each(|stride| *stride /= 4);
            None
        } else if part.is_multiple_of(4) {
            gathered(&mut extents, &mut strides)
        } else {
            None
        };
        let width = if in_fours || steps.is_some() { 4 } else { 1 };
        let kernel = Kernel::new("permute.wgsl", "permute")
            .define("rank", extents.len() as i64)
            .define("width", if in_fours { 4 } else { 1 })
            .define("gathers", steps.is_some());
        // Eight words each, two vec4.
        let padded = |values: Vec<usize>| values.into_iter().chain(std::iter::repeat(1)).take(8);
        let words = padded(extents).chain(padded(strides)).chain(steps.unwrap_or_default());
        let words: Vec<u32> = words.map(|word| word as u32).collect();
        let mut program = Program::default();
        for window in context.windows(parts, &[part])? {
            let count = window.len() * part / width;
            let words = words.iter().copied().chain([count as u32]).collect();
            let operands = vec![context.input(0).window(&window, part), context.output(0).window(&window, part)];
            program.dispatch(kernel.clone(), words, operands, context.grid_for(count));
        }
        Ok(program)
    }

    fn backward(
        &self,
        graph: &mut Graph,
        _: &Node,
        d_outputs: &[Option<TensorId>],
        _: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None]) };
        Ok(vec![Some(graph.push_one(self.inverse(), &[d_y])?)])
    }

    fn takes_half(&self, _: Slot) -> bool {
        true
    }

    fn flops(&self, _: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        0
    }
}

/// `y[c*M + i] = x[i]`: `copies` copies one after the other (torch `x.repeat(copies)`).
///
/// # Shapes
/// - `x`: `[M]`
/// - `y`: `[copies*M]`
///
/// Saves nothing. The backward pass overwrites `d_x` with the sum over the copies.
///
/// # Errors
/// [`crate::Error::Shape`] if `x` has several axes or `copies` is 0.
#[derive(Debug)]
pub struct Tile {
    /// How many.
    pub copies: usize,
}

/// Appends [`Tile`] to `graph`.
///
/// # Errors
/// [`crate::Error::Shape`] if `x` has several axes or `copies` is 0.
pub fn tile(graph: &mut Graph, x: TensorId, copies: usize) -> Result<TensorId> {
    graph.push_one(Tile { copies }, &[x])
}

impl Op for Tile {
    fn name(&self) -> &'static str {
        "tile_forward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        match inputs {
            [x] if x.shape.len() == 1 && self.copies > 0 => {
                expect("x", x, &x.shape)?;
                Ok(vec![TensorSpec::f32(&[self.copies * x.shape[0]])])
            }
            _ => Err(format!("needs one operand [M] and at least one copy; {} copies given", self.copies)),
        }
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        vec![inputs[0].data.repeat(self.copies)]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let (length, count) = (context.inputs[0].elements(), context.outputs[0].elements());
        let mut program = Program::default();
        let kernel = Kernel::new("permute.wgsl", "tile_forward").define("width", 1).define("gathers", false);
        let operands = vec![context.input(0), context.output(0)];
        program.dispatch(kernel, vec![count as u32, length as u32], operands, context.grid_for(count));
        Ok(program)
    }

    fn backward(
        &self,
        graph: &mut Graph,
        _: &Node,
        d_outputs: &[Option<TensorId>],
        _: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None]) };
        Ok(vec![Some(graph.push_one(TileBackward { copies: self.copies }, &[d_y])?)])
    }

    fn flops(&self, _: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        0
    }
}

/// `d_x[i] = sum over c of d_y[c*M + i]`.
#[derive(Debug)]
pub struct TileBackward {
    /// That of the forward op.
    pub copies: usize,
}

impl Op for TileBackward {
    fn name(&self) -> &'static str {
        "tile_backward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        match inputs {
            [d_y] if d_y.shape.len() == 1 && self.copies > 0 && d_y.elements().is_multiple_of(self.copies) => {
                expect("d_y", d_y, &d_y.shape)?;
                Ok(vec![TensorSpec::f32(&[d_y.elements() / self.copies])])
            }
            _ => Err(format!("needs one operand of {} equal copies", self.copies)),
        }
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let mut d_x = vec![0.0; outputs[0].elements()];
        for copy in inputs[0].data.chunks(d_x.len()) {
            d_x.iter_mut().zip(copy).for_each(|(sum, d)| *sum += d);
        }
        vec![d_x]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let count = context.outputs[0].elements();
        let sums = Chunks { chunks: self.copies, stride: count, first: 0, target: 0, count, accumulate: false };
        let mut program = Program::default();
        sum_chunks(&mut program, context, sums, context.input(0), context.output(0));
        Ok(program)
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        inputs[0].elements() as u64
    }
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    let case = |name: &str, shape: &'static [usize], axes: &'static [usize]| {
        Case::new(name, move |b| {
            let x = b.normal("x", shape);
            Ok(vec![permute(&mut b.graph, x, axes)?])
        })
    };
    vec![
        case("permute rank 6", &[2, 3, 5, 2, 3, 7], &[3, 0, 5, 1, 4, 2]),
        case("permute rank 8", &[2, 3, 2, 3, 2, 1, 2, 2], &[0, 3, 5, 7, 1, 2, 4, 6]),
        case("permute conv weight", &[5, 7, 2, 2, 2], &[2, 3, 4, 1, 0]),
        case("permute transposed", &[33, 65], &[1, 0]),
        case("permute transposed in fours", &[12, 7], &[1, 0]),
        case("permute rank 1", &[9], &[0]),
        case("permute windows", &[2, 3, 5, 7, 2, 8], &[0, 1, 4, 2, 3, 5]).windowed(10_000),
        case("permute in vectors", &[3, 5, 7, 12], &[2, 0, 1, 3]),
        Case::new("tile", |b| {
            let x = b.normal("x", &[13]);
            Ok(vec![tile(&mut b.graph, x, 8)?])
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_that_are_no_permutation_are_refused() {
        for axes in [&[0, 0][..], &[0], &[0, 2], &[0, 1, 2]] {
            let mut graph = Graph::new();
            let x = graph.input("x", TensorSpec::f32(&[2, 3]));
            let message = permute(&mut graph, x, axes).unwrap_err().to_string();
            assert!(message.contains("each axis below 2 once"), "{message}");
        }
    }
}
