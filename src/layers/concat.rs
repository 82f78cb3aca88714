//! Concatenation and slices along the channel axis.

use super::case::Case;
use super::common::expect;
use crate::Result;
use crate::graph::{CpuTensor, Graph, Kernel, Node, Op, OpContext, Operand, Program, Slot, TensorId, TensorSpec};

/// Most operands of [`Concat`].
const MAX_OPERANDS: usize = 6;

/// Appends the dispatches that copy between a `narrow` tensor `[R.., channels]` and the channels from `start` on of a
/// `wide` one, in windows of rows.
fn copy(
    program: &mut Program,
    context: &OpContext,
    entry: &'static str,
    [narrow, wide]: [(Operand, &TensorSpec); 2],
    start: usize,
) -> Result<()> {
    let (channels, all) = (narrow.1.channels(), wide.1.channels());
    let width = if [channels, all, start].iter().all(|count| count.is_multiple_of(4)) { 4 } else { 1 };
    let kernel = Kernel::new("concat.wgsl", entry).define("width", width as i64);
    for window in context.windows(narrow.1.rows(), &[channels, all])? {
        let written = if entry == "concat_backward_slice" { all } else { channels };
        let parameters = [window.len(), channels / width, all / width, start / width].map(|v| v as u32).to_vec();
        let operands = vec![narrow.0.clone().window(&window, channels), wide.0.clone().window(&window, all)];
        let grid = context.grid_for(window.len() * written / width);
        program.dispatch(kernel.clone(), parameters, operands, grid);
    }
    Ok(())
}

fn leading(spec: &TensorSpec) -> Result<&[usize], String> {
    match &spec.shape[..] {
        [rows @ .., _] => Ok(rows),
        [] => Err("a scalar has no channel axis".to_owned()),
    }
}

fn with_channels(spec: &TensorSpec, channels: usize) -> Result<TensorSpec, String> {
    let shape: Vec<usize> = leading(spec)?.iter().copied().chain([channels]).collect();
    Ok(TensorSpec::f32(&shape))
}

/// `y` has the channels of all operands, one operand after the other (torch `torch.cat(xs, -1)`).
///
/// # Shapes
/// - `x_i`: `[R.., C_i]`, one to six of them
/// - `y`: `[R.., C_0 + C_1 + ..]`
///
/// Saves nothing. The backward pass overwrites each `d_x_i` with a [`Slice`] of `d_y`.
///
/// # Errors
/// [`crate::Error::Shape`] if the operands differ in more than their channels.
#[derive(Debug)]
pub struct Concat;

/// Appends [`Concat`] to `graph`.
///
/// # Errors
/// [`crate::Error::Shape`] if the operands differ in more than their channels.
pub fn concat(graph: &mut Graph, operands: &[TensorId]) -> Result<TensorId> {
    graph.push_one(Concat, operands)
}

impl Op for Concat {
    fn name(&self) -> &'static str {
        "concat_forward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let Some(first) = inputs.first().filter(|_| inputs.len() <= MAX_OPERANDS) else {
            return Err(format!("{} operands given, 1 to {MAX_OPERANDS} needed", inputs.len()));
        };
        for (i, input) in inputs.iter().enumerate() {
            expect(&format!("operand {i}"), input, &with_channels(first, input.channels())?.shape)?;
        }
        Ok(vec![with_channels(first, inputs.iter().map(TensorSpec::channels).sum())?])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let mut y = Vec::with_capacity(outputs[0].elements());
        for row in 0..outputs[0].rows() {
            for input in inputs {
                let channels = input.shape.last().copied().unwrap_or(1);
                y.extend_from_slice(&input.data[row * channels..(row + 1) * channels]);
            }
        }
        vec![y]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let mut program = Program::default();
        let channels: Vec<usize> = context.inputs.iter().map(TensorSpec::channels).collect();
        let all = context.outputs[0].channels();
        let units = [&channels[..], &[all]].concat();
        for window in context.windows(context.outputs[0].rows(), &units)? {
            let mut parameters = vec![0; 12];
            parameters[..2].copy_from_slice(&[window.len() as u32, all as u32]);
            // Vectors begin at a multiple of four words.
            for i in 0..channels.len() {
                parameters[4 + i] = channels[..=i].iter().sum::<usize>() as u32;
            }
            let mut operands: Vec<Operand> =
                channels.iter().enumerate().map(|(i, &channels)| context.input(i).window(&window, channels)).collect();
            operands.push(context.output(0).window(&window, all));
            let kernel = Kernel::new("concat.wgsl", "concat_forward").define("operands", channels.len() as i64);
            program.dispatch(kernel, parameters, operands, context.grid_for(window.len() * all));
        }
        Ok(program)
    }

    fn backward(
        &self,
        graph: &mut Graph,
        node: &Node,
        d_outputs: &[Option<TensorId>],
        needs: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        let mut d_inputs = vec![None; node.inputs.len()];
        let Some(d_y) = d_outputs[0] else { return Ok(d_inputs) };
        let mut start = 0;
        for (i, &input) in node.inputs.iter().enumerate() {
            let channels = graph.tensor(input).spec.channels();
            if needs[i] {
                d_inputs[i] = Some(graph.push_one(Slice { start, channels }, &[d_y])?);
            }
            start += channels;
        }
        Ok(d_inputs)
    }

    fn flops(&self, _: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        0
    }
}

/// `y` has the channels `start..start + channels` of `x` (torch `x[..., start:start + channels]`).
///
/// # Shapes
/// - `x`: `[R.., C]`
/// - `y`: `[R.., channels]`
///
/// Saves nothing. The backward pass overwrites `d_x`, which is zero outside the slice.
///
/// # Errors
/// [`crate::Error::Shape`] if `x` has fewer channels.
#[derive(Debug)]
pub struct Slice {
    /// First channel.
    pub start: usize,
    /// Number of channels.
    pub channels: usize,
}

/// Appends [`Slice`] to `graph`.
///
/// # Errors
/// [`crate::Error::Shape`] if `x` has fewer channels.
pub fn slice(graph: &mut Graph, x: TensorId, start: usize, channels: usize) -> Result<TensorId> {
    graph.push_one(Slice { start, channels }, &[x])
}

impl Op for Slice {
    fn name(&self) -> &'static str {
        "concat_slice"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [x] = inputs else { return Err(format!("{} operands given, 1 needed", inputs.len())) };
        expect("x", x, &x.shape)?;
        if self.channels == 0 || self.start + self.channels > x.channels() {
            let (first, end) = (self.start, self.start + self.channels);
            return Err(format!("channels {first}..{end} wanted of x {x}, which has {}", x.channels()));
        }
        Ok(vec![with_channels(x, self.channels)?])
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let all = inputs[0].shape.last().copied().unwrap_or(1);
        vec![inputs[0].data.chunks(all).flat_map(|row| &row[self.start..self.start + self.channels]).copied().collect()]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let mut program = Program::default();
        let operands = [(context.output(0), &context.outputs[0]), (context.input(0), &context.inputs[0])];
        copy(&mut program, context, "concat_slice", operands, self.start)?;
        Ok(program)
    }

    fn backward(
        &self,
        graph: &mut Graph,
        node: &Node,
        d_outputs: &[Option<TensorId>],
        _: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None]) };
        let total = graph.tensor(node.inputs[0]).spec.channels();
        Ok(vec![Some(graph.push_one(SliceBackward { start: self.start, total }, &[d_y])?)])
    }

    fn takes_half(&self, _: Slot) -> bool {
        true
    }

    fn flops(&self, _: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        0
    }
}

/// `d_x` is `d_y` in the channels from `start` on, and zero in the others.
#[derive(Debug)]
pub struct SliceBackward {
    /// First channel.
    pub start: usize,
    /// Channels of `d_x`.
    pub total: usize,
}

impl Op for SliceBackward {
    fn name(&self) -> &'static str {
        "concat_backward_slice"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [d_y] = inputs else { return Err(format!("{} operands given, 1 needed", inputs.len())) };
        expect("d_y", d_y, &d_y.shape)?;
        if self.start + d_y.channels() > self.total {
            return Err(format!("d_y {d_y} from channel {} on does not fit {} channels", self.start, self.total));
        }
        Ok(vec![with_channels(d_y, self.total)?])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let channels = inputs[0].shape.last().copied().unwrap_or(1);
        let mut d_x = vec![0.0; outputs[0].elements()];
        for (d_x, d_y) in d_x.chunks_mut(self.total).zip(inputs[0].data.chunks(channels)) {
            d_x[self.start..self.start + channels].copy_from_slice(d_y);
        }
        vec![d_x]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let mut program = Program::default();
        let operands = [(context.input(0), &context.inputs[0]), (context.output(0), &context.outputs[0])];
        copy(&mut program, context, "concat_backward_slice", operands, self.start)?;
        Ok(program)
    }

    fn takes_half(&self, _: Slot) -> bool {
        true
    }

    fn flops(&self, _: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        0
    }
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    let case = |name: &str, rows: &'static [usize], channels: &'static [usize]| {
        Case::new(name, move |b| {
            let mut operands = Vec::new();
            for &channels in channels {
                let shape: Vec<usize> = rows.iter().copied().chain([channels]).collect();
                operands.push(b.normal("x", &shape));
            }
            Ok(vec![concat(&mut b.graph, &operands)?])
        })
    };
    vec![
        case("concat two", &[2, 3, 5], &[9, 4]),
        case("concat six windows", &[3, 67], &[1, 2, 3, 5, 8, 13]).windowed(16_384),
        Case::new("concat_slice windows", |b| {
            let x = b.normal("x", &[5, 61, 7]);
            Ok(vec![slice(&mut b.graph, x, 0, 3)?, slice(&mut b.graph, x, 3, 4)?])
        })
        .windowed(4_096),
        Case::new("concat_slice in vectors", |b| {
            let x = b.normal("x", &[37, 16]);
            Ok(vec![slice(&mut b.graph, x, 4, 8)?])
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_of_different_rows_are_refused_with_both_shapes() {
        let mut graph = Graph::new();
        let operands = [[2, 3], [4, 3]].map(|shape| graph.input("x", TensorSpec::f32(&shape)));
        let message = concat(&mut graph, &operands).unwrap_err().to_string();
        assert!(message.contains("operand 1 is [4, 3] but must be [2, 3]"), "{message}");
    }
}
