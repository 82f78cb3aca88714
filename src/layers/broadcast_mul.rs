//! Products and copies that repeat a tensor along the axes of another that it lacks.

use std::ops::Range;

use super::case::Case;
use super::common::expect;
use super::reduce::{Chunks, run_length, sum_chunks};
use crate::graph::program::vector_width;
use crate::graph::{
    CpuTensor, Graph, Kernel, Node, Op, OpContext, Operand, Program, Slot, TensorId, TensorSpec, WORD_BYTES,
};
use crate::{Error, Result};

/// Most axes that are left when neighbours of one kind are merged.
const MAX_AXES: usize = 8;

/// An axis of the long tensor, or neighbouring ones merged.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Axis {
    extent: usize,
    /// The short tensor has it too.
    kept: bool,
}

/// How a tensor `short` repeats in a tensor `long`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axes {
    /// Outermost first; neighbours are of different kinds.
    axes: Vec<Axis>,
    /// Elements of the last axis that an invocation takes.
    width: usize,
}

impl Axes {
    pub fn new(long: &[usize], short: &[usize]) -> Result<Axes, String> {
        let fits = |(&long, &short): (&usize, &usize)| long > 0 && (short == long || short == 1);
        if long.len() != short.len() || !long.iter().zip(short).all(fits) {
            return Err(format!("{short:?} does not repeat in {long:?}: an extent must be the same, or 1"));
        }
        let mut axes: Vec<Axis> = Vec::new();
        for (&extent, &short) in long.iter().zip(short).filter(|&(&extent, _)| extent > 1) {
            let kept = short == extent;
            match axes.last_mut() {
                Some(last) if last.kept == kept => last.extent *= extent,
                _ => axes.push(Axis { extent, kept }),
            }
        }
        if axes.is_empty() {
            axes.push(Axis { extent: 1, kept: true });
        }
        if axes.len() > MAX_AXES {
            return Err(format!("{short:?} repeats along more axes of {long:?}, with others between, than supported"));
        }
        let width = vector_width(axes[axes.len() - 1].extent);
        Ok(Axes { axes, width })
    }

    /// Elements of the long tensor.
    fn long(&self) -> usize {
        elements(&self.axes, |_| true)
    }

    /// Elements of the short tensor.
    fn short(&self) -> usize {
        elements(&self.axes, |axis| axis.kept)
    }

    /// Elements of the short tensor that an invocation takes.
    fn short_width(&self) -> usize {
        if self.axes[self.axes.len() - 1].kept { self.width } else { 1 }
    }

    /// The axes with the last one in vectors.
    fn in_vectors(&self) -> Vec<Axis> {
        let mut axes = self.axes.clone();
        let last = axes.len() - 1;
        axes[last].extent /= self.width;
        axes
    }

    /// The element of the short tensor that element `i` of the long one belongs to.
    pub fn short_index(&self, mut i: usize) -> usize {
        let (mut index, mut stride) = (0, 1);
        for axis in self.axes.iter().rev() {
            if axis.kept {
                index += i % axis.extent * stride;
                stride *= axis.extent;
            }
            i /= axis.extent;
        }
        index
    }

    /// Parts of which each tensor has at most `most` elements; a part is whole along its inner axes.
    fn pieces(&self, most: usize) -> Vec<Piece> {
        let inner = strides(&self.axes, |_| true);
        let cut = inner.iter().position(|&unit| unit <= most).unwrap_or(0);
        let (Axis { extent, .. }, unit) = (self.axes[cut], inner[cut]);
        let mut pieces = Vec::new();
        for outer in (0..self.long()).step_by(extent * unit) {
            for start in (0..extent).step_by(most / unit) {
                let mut axes = Axes { axes: self.axes[cut..].to_vec(), width: self.width };
                axes.axes[0].extent = (most / unit).min(extent - start);
                let first = outer + start * unit;
                let short = self.short_index(first);
                let repeats = |(axis, stride): (&Axis, &usize)| !axis.kept && first / stride % axis.extent > 0;
                pieces.push(Piece {
                    long: first..first + axes.long(),
                    short: short..short + axes.short(),
                    is_first: !self.axes[..=cut].iter().zip(&inner).any(repeats),
                    axes,
                });
            }
        }
        pieces
    }

    fn dispatch(&self, program: &mut Program, context: &OpContext, entry: &'static str, launch: LaunchOf) {
        let vectors = self.in_vectors();
        let padded = |values: Vec<usize>| values.into_iter().chain(std::iter::repeat(1)).take(MAX_AXES);
        let is_forward = launch.chunks == 0;
        let words = padded(vectors.iter().map(|axis| axis.extent).collect())
            .chain(padded(strides(&vectors, |axis| axis.kept || !is_forward)))
            .chain([
                launch.count,
                launch.first_long / self.width,
                launch.first_short / self.short_width(),
                elements(&vectors, |axis| !axis.kept),
                launch.run,
                launch.chunks,
            ]);
        let kernel = Kernel::new("broadcast_mul.wgsl", entry)
            .define("axes", self.axes.len() as i64)
            .define("kept_first", self.axes[0].kept)
            .define("width", self.width as i64);
        let grid = context.grid_for(launch.count * launch.chunks.max(1));
        program.dispatch(kernel, words.map(|word| word as u32).collect(), launch.operands, grid);
    }
}

/// Product of the extents of some of the axes.
fn elements(axes: &[Axis], of: impl Fn(&Axis) -> bool) -> usize {
    axes.iter().filter(|axis| of(axis)).map(|axis| axis.extent).product()
}

/// For each axis, from one of its indices to the next in a tensor that has some of the axes.
fn strides(axes: &[Axis], of: impl Fn(&Axis) -> bool) -> Vec<usize> {
    (1..=axes.len()).map(|i| elements(&axes[i..], &of)).collect()
}

/// A part of a product.
#[derive(Debug, Clone, PartialEq)]
struct Piece {
    long: Range<usize>,
    short: Range<usize>,
    axes: Axes,
    /// None before it has the same elements of the short tensor.
    is_first: bool,
}

/// What a launch does apart from its axes; no chunks for the forward passes.
struct LaunchOf {
    count: usize,
    first_long: usize,
    first_short: usize,
    run: usize,
    chunks: usize,
    operands: Vec<Operand>,
}

/// Elements that every binding's start is a multiple of, whichever type they have.
fn alignment(context: &OpContext) -> usize {
    (context.limits.offset_alignment_bytes / 2).max(4)
}

/// The pieces of `axes` that fit bindings.
fn pieces(context: &OpContext, axes: &Axes) -> Result<Vec<Piece>> {
    let limit = context.limits.max_storage_binding_bytes / WORD_BYTES;
    if axes.long() <= limit {
        return Ok(axes.pieces(axes.long()));
    }
    // A binding begins at an aligned element, perhaps before the piece.
    match limit.saturating_sub(alignment(context)) / 4 * 4 {
        0 => Err(Error::Device(format!("this adapter binds at most {limit} elements, too few for a product"))),
        most => Ok(axes.pieces(most)),
    }
}

/// `elements` of `operand` from an aligned start on, and how many come before the first of them there.
fn bound(context: &OpContext, operand: Operand, elements: &Range<usize>) -> (Operand, usize) {
    let start = elements.start / alignment(context) * alignment(context);
    (operand.window(&(start..elements.end), 1), elements.start - start)
}

/// A pass that writes a long tensor: `inputs` are long, but the last.
pub(super) fn forward(context: &OpContext, entry: &'static str) -> Result<Program> {
    let last = context.inputs.len() - 1;
    let axes = Axes::new(&context.outputs[0].shape, &context.inputs[last].shape).map_err(Error::Shape)?;
    let mut program = Program::default();
    for piece in pieces(context, &axes)? {
        let (short, first_short) = bound(context, context.input(last), &piece.short);
        let (y, first_long) = bound(context, context.output(0), &piece.long);
        let mut operands: Vec<Operand> = (0..last).map(|i| bound(context, context.input(i), &piece.long).0).collect();
        operands.extend([short, y]);
        let count = piece.long.len() / axes.width;
        let launch = LaunchOf { count, first_long, first_short, run: 0, chunks: 0, operands };
        piece.axes.dispatch(&mut program, context, entry, launch);
    }
    Ok(program)
}

/// A pass that sums products of its long inputs.
fn sums(context: &OpContext, entry: &'static str) -> Result<Program> {
    let axes = Axes::new(&context.inputs[0].shape, &context.outputs[0].shape).map_err(Error::Shape)?;
    let pieces = pieces(context, &axes)?;
    let plan = |piece: &Piece| {
        let terms = elements(&piece.axes.in_vectors(), |axis| !axis.kept);
        let run = run_length(terms);
        (run, terms.div_ceil(run))
    };
    let mut program = Program::default();
    let is_direct = pieces.len() == 1 && plan(&pieces[0]).1 == 1;
    let partial_elements = pieces.iter().map(|piece| plan(piece).1 * piece.short.len()).max().unwrap_or(0);
    let slot = (!is_direct).then(|| program.scratch(partial_elements));
    for piece in pieces {
        let (run, chunks) = plan(&piece);
        let stride = piece.short.len();
        let partial = slot.map_or_else(|| context.output(0), |slot| Operand::scratch(slot, chunks * stride));
        let (first, first_long) = bound(context, context.input(0), &piece.long);
        let others = (1..context.inputs.len()).map(|i| bound(context, context.input(i), &piece.long).0);
        let operands = std::iter::once(first).chain(others).chain([partial.clone()]).collect();
        let count = stride / axes.short_width();
        let launch = LaunchOf { count, first_long, first_short: 0, run, chunks, operands };
        piece.axes.dispatch(&mut program, context, entry, launch);
        if !is_direct {
            let (target, first) = bound(context, context.output(0), &piece.short);
            let sums = Chunks { chunks, stride, first: 0, target: first, count: stride, accumulate: !piece.is_first };
            sum_chunks(&mut program, context, sums, partial, target);
        }
    }
    Ok(program)
}

/// `y = a * b`, where `b` repeats along the axes of which it has but one index (torch `a * b`).
///
/// # Shapes
/// - `a`, `y`: `[d_0, .., d_k]`
/// - `b`: of the same rank, with the extent of `a` or 1 along each axis: `[N, 1, 1, 1, C]` gates the channels of
///   `[N, X, Y, Z, C]`, `[B, 1, X, Y, 1, C]` is a plane of `[B, T, X, Y, Z, C]`, `[.., 1]` weighs cells of `[.., C]`
///
/// Saves `a` and `b`; may overwrite `a`. The backward pass overwrites `d_a` (perhaps in `d_y`'s place) and `d_b`.
///
/// # Errors
/// [`crate::Error::Shape`] if `b` does not repeat in `a`.
#[derive(Debug)]
pub struct BroadcastMul;

/// Appends [`BroadcastMul`] to `graph`.
///
/// # Errors
/// [`crate::Error::Shape`] if `b` does not repeat in `a`.
pub fn broadcast_mul(graph: &mut Graph, a: TensorId, b: TensorId) -> Result<TensorId> {
    graph.push_one(BroadcastMul, &[a, b])
}

impl Op for BroadcastMul {
    fn name(&self) -> &'static str {
        "broadcast_mul_forward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [a, b] = inputs else { return Err("needs 2 operands: a, b".to_owned()) };
        expect("a", a, &a.shape)?;
        expect("b", b, &b.shape)?;
        Axes::new(&a.shape, &b.shape)?;
        Ok(vec![a.clone()])
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let Ok(axes) = Axes::new(inputs[0].shape, inputs[1].shape) else { return Vec::new() };
        let b = inputs[1].data;
        vec![inputs[0].data.iter().enumerate().map(|(i, a)| a * b[axes.short_index(i)]).collect()]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        forward(context, self.name())
    }

    fn backward(
        &self,
        graph: &mut Graph,
        node: &Node,
        d_outputs: &[Option<TensorId>],
        needs: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        let mut d_inputs = vec![None; 2];
        let Some(d_y) = d_outputs[0] else { return Ok(d_inputs) };
        let (a, b) = (node.inputs[0], node.inputs[1]);
        if needs[1] {
            let sum = BroadcastSum { shape: graph.shape(b).to_vec(), product: true };
            d_inputs[1] = Some(graph.push_one(sum, &[a, d_y])?);
        }
        if needs[0] {
            d_inputs[0] = Some(broadcast_mul(graph, d_y, b)?);
        }
        Ok(d_inputs)
    }

    fn in_place(&self) -> Option<(usize, usize)> {
        Some((0, 0))
    }

    fn takes_half(&self, _: Slot) -> bool {
        true
    }
}

/// `x` repeated along the axes of which it has but one index (torch `x.expand(shape)`, as a tensor of its own).
///
/// # Shapes
/// - `x`: of the rank of `shape`, with its extent or 1 along each axis
/// - `y`: `shape`
///
/// Saves nothing. The backward pass overwrites `d_x` with sums of `d_y`.
///
/// # Errors
/// [`crate::Error::Shape`] if `x` does not repeat in `shape`.
#[derive(Debug)]
pub struct BroadcastTo {
    /// That of `y`.
    pub shape: Vec<usize>,
}

/// Appends [`BroadcastTo`] to `graph`.
///
/// # Errors
/// [`crate::Error::Shape`] if `x` does not repeat in `shape`.
pub fn broadcast_to(graph: &mut Graph, x: TensorId, shape: &[usize]) -> Result<TensorId> {
    graph.push_one(BroadcastTo { shape: shape.to_vec() }, &[x])
}

impl Op for BroadcastTo {
    fn name(&self) -> &'static str {
        "broadcast_mul_expand"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [x] = inputs else { return Err("needs 1 operand: x".to_owned()) };
        expect("x", x, &x.shape)?;
        Axes::new(&self.shape, &x.shape)?;
        Ok(vec![TensorSpec::f32(&self.shape)])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let Ok(axes) = Axes::new(&self.shape, inputs[0].shape) else { return Vec::new() };
        vec![(0..outputs[0].elements()).map(|i| inputs[0].data[axes.short_index(i)]).collect()]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        forward(context, self.name())
    }

    fn backward(
        &self,
        graph: &mut Graph,
        node: &Node,
        d_outputs: &[Option<TensorId>],
        _: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None]) };
        let sum = BroadcastSum { shape: graph.shape(node.inputs[0]).to_vec(), product: false };
        Ok(vec![Some(graph.push_one(sum, &[d_y])?)])
    }

    fn takes_half(&self, _: Slot) -> bool {
        true
    }

    fn flops(&self, _: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        0
    }
}

/// `d_b = sum of a * d_y` (or of `d_y`, its only operand) over the axes of which `d_b` has but one index, in two stages.
#[derive(Debug)]
pub struct BroadcastSum {
    /// That of `d_b`.
    pub shape: Vec<usize>,
    /// Whether the operands are `a` and `d_y`, or `d_y` alone.
    pub product: bool,
}

impl Op for BroadcastSum {
    fn name(&self) -> &'static str {
        if self.product { "broadcast_mul_backward" } else { "broadcast_mul_sum" }
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let Some(first) = inputs.first().filter(|_| inputs.len() == 1 + usize::from(self.product)) else {
            return Err("needs d_y, after a if it is a product".to_owned());
        };
        inputs.iter().try_for_each(|input| expect("an operand", input, &first.shape))?;
        Axes::new(&first.shape, &self.shape)?;
        Ok(vec![TensorSpec::f32(&self.shape)])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let Ok(axes) = Axes::new(inputs[0].shape, &self.shape) else { return Vec::new() };
        let mut d_b = vec![0.0; outputs[0].elements()];
        for i in 0..inputs[0].data.len() {
            d_b[axes.short_index(i)] += inputs.iter().map(|input| input.data[i]).product::<f64>();
        }
        vec![d_b]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        sums(context, self.name())
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(_))
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        inputs.iter().map(|input| input.elements() as u64).sum()
    }
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    let product = |name: &str, a: &'static [usize], b: &'static [usize]| {
        Case::new(format!("broadcast_mul {name}"), move |builder| {
            let (a, b) = (builder.normal("a", a), builder.normal("b", b));
            Ok(vec![broadcast_mul(&mut builder.graph, a, b)?])
        })
    };
    let copy = |name: &str, x: &'static [usize], shape: &'static [usize]| {
        Case::new(format!("broadcast_to {name}"), move |builder| {
            let x = builder.normal("x", x);
            Ok(vec![broadcast_to(&mut builder.graph, x, shape)?])
        })
    };
    vec![
        // Windows cut the cells of one frame, the second one also that of the frames.
        product("gate", &[3, 5, 7, 4, 8], &[3, 1, 1, 1, 8]).windowed(4096),
        product("gate odd", &[2, 5, 3, 2, 3], &[2, 1, 1, 1, 3]),
        product("plane", &[2, 3, 5, 3, 2, 12], &[2, 1, 5, 3, 1, 12]).windowed(4096),
        product("plane odd", &[2, 3, 5, 3, 2, 5], &[1, 1, 5, 1, 2, 1]).windowed(2048),
        product("weights of cells", &[3, 7, 5, 12], &[3, 7, 5, 1]).windowed(2048),
        product("weights of cells odd", &[3, 7, 5, 7], &[3, 1, 5, 1]),
        product("of equal shapes", &[5, 1, 41], &[5, 1, 41]),
        product("by one number", &[5, 7, 3], &[1, 1, 1]),
        product("of many terms", &[1, 9001, 4], &[1, 1, 4]).windowed(65_536),
        copy("volume", &[2, 1, 3, 1, 8], &[2, 5, 3, 9, 8]).windowed(4096),
        copy("odd", &[1, 7, 1], &[3, 7, 5]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_repeat_is_refused_with_both_shapes() {
        let mut graph = Graph::new();
        let [a, b, c] = [&[2, 3, 4][..], &[2, 2, 4], &[3, 4]].map(|shape| graph.input("x", TensorSpec::f32(shape)));
        for other in [b, c] {
            let message = broadcast_mul(&mut graph, a, other).unwrap_err().to_string();
            assert!(message.contains("does not repeat in [2, 3, 4]"), "{message}");
        }
        assert!(broadcast_to(&mut graph, b, &[2, 2, 5]).is_err());
    }

    #[test]
    fn pieces_cover_both_tensors() {
        let axes = Axes::new(&[2, 3, 5, 7, 4], &[2, 1, 5, 1, 4]).unwrap();
        for most in [8, 100, 300, 840] {
            let pieces = axes.pieces(most);
            assert!(pieces.iter().all(|piece| piece.long.len() <= most && piece.short.len() <= most));
            assert_eq!(pieces.iter().map(|piece| piece.long.len()).sum::<usize>(), 840);
            // Each element of the short tensor is first written once.
            let firsts = pieces.iter().filter(|piece| piece.is_first);
            assert_eq!(firsts.map(|piece| piece.short.len()).sum::<usize>(), 40);
        }
    }
}
