//! The product of a volume without a time index with one plane over time and each axis of space.

use super::case::Case;
use super::common::{expect, frame_windows};
use super::reduce::{Chunks, run_length, sum_chunks};
use crate::Result;
use crate::graph::program::vector_width;
use crate::graph::{CpuTensor, Graph, Kernel, Node, Op, OpContext, Operand, Program, Slot, TensorId, TensorSpec};

/// Names of the space-time planes.
const NAMES: [&str; 3] = ["P_tx", "P_ty", "P_tz"];

/// The sizes of one product.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    batch: usize,
    time: usize,
    /// Extents of x, y, z.
    cells: [usize; 3],
    channels: usize,
}

impl Sizes {
    /// From the shape of the product.
    fn of(product: &[usize]) -> Result<Sizes, String> {
        match *product {
            [batch, time, x, y, z, channels] => Ok(Sizes { batch, time, cells: [x, y, z], channels }),
            _ => Err(format!("the product is {product:?} but must be [B, T, X, Y, Z, D]")),
        }
    }

    fn still_shape(&self) -> Vec<usize> {
        let [x, y, z] = self.cells;
        vec![self.batch, x, y, z, self.channels]
    }

    fn plane_shape(&self, axis: usize) -> Vec<usize> {
        vec![self.batch, self.time, self.cells[axis], self.channels]
    }

    fn product_shape(&self) -> Vec<usize> {
        let [x, y, z] = self.cells;
        vec![self.batch, self.time, x, y, z, self.channels]
    }

    /// Elements of a frame of the product.
    fn frame(&self) -> usize {
        self.cells.iter().product::<usize>() * self.channels
    }

    /// Cells from one index to the next along each axis.
    fn strides(&self) -> [usize; 3] {
        [self.cells[1] * self.cells[2], self.cells[2], 1]
    }

    /// Channels of one invocation.
    fn width(&self) -> usize {
        vector_width(self.channels)
    }

    fn kernel(&self, entry: &'static str) -> Kernel {
        Kernel::new("plane_product.wgsl", entry).define("width", self.width() as i64)
    }

    /// Checks the planes but for that of the axis `without`.
    fn check_planes(&self, planes: &[TensorSpec], without: Option<usize>) -> Result<(), String> {
        let axes = (0..3).filter(|&axis| Some(axis) != without);
        axes.zip(planes).try_for_each(|(axis, plane)| expect(NAMES[axis], plane, &self.plane_shape(axis)))
    }

    /// Calls `visit` with the elements of the product, of the still volume and of each plane that belong together.
    fn for_each(&self, mut visit: impl FnMut(usize, usize, [usize; 3])) {
        let (frame, [x_stride, y_stride, _]) = (self.frame(), self.strides());
        for element in 0..self.batch * self.time * frame {
            let (n, cell, d) = (element / frame, element % frame / self.channels, element % self.channels);
            let at = [cell / x_stride, cell / y_stride % self.cells[1], cell % self.cells[2]];
            let planes = [0, 1, 2].map(|axis| (n * self.cells[axis] + at[axis]) * self.channels + d);
            visit(element, n / self.time * frame + element % frame, planes);
        }
    }

    /// The one launch a window of the passes that loop over frames; `operands` are the volume without time, the product and the
    /// planes.
    fn launch(
        &self,
        context: &OpContext,
        entry: &'static str,
        [still, product, planes @ ..]: [Operand; 5],
    ) -> Result<Program> {
        let (frame, width) = (self.frame(), self.width());
        let mut program = Program::default();
        for window in frame_windows(context, self.batch, self.time, frame, 0)? {
            let ([x, y, z], sequences) = (self.cells, window.sequences.len());
            let mut words = window.words(self.time);
            words.extend([sequences, x, y, z, self.channels / width].map(|word| word as u32));
            let mut operands = vec![still.clone(), product.clone().window(&window.frames, frame)];
            operands.extend(planes.clone());
            program.dispatch(self.kernel(entry), words, operands, context.grid_for(sequences * frame / width));
        }
        Ok(program)
    }
}

/// `y[b,t,x,y,z] = S[b,x,y,z] P_tx[b,t,x] P_ty[b,t,y] P_tz[b,t,z]`, channel by channel (torch `S[:, None] * P_tx[:, :, :, None,
/// None] * P_ty[:, :, None, :, None] * P_tz[:, :, None, None, :]`).
///
/// # Shapes
/// - `S`: `[B, X, Y, Z, D]`
/// - `P_tx`, `P_ty`, `P_tz`: `[B, T, X, D]`, `[B, T, Y, D]`, `[B, T, Z, D]`
/// - `y`: `[B, T, X, Y, Z, D]`
///
/// Saves all operands. The backward pass overwrites their gradients.
///
/// # Errors
/// [`crate::Error::Shape`] if the planes do not fit `S`.
#[derive(Debug)]
pub struct PlaneProduct;

/// Appends [`PlaneProduct`] to `graph`; `planes` are `P_tx`, `P_ty`, `P_tz`.
///
/// # Errors
/// [`crate::Error::Shape`] if the planes do not fit `still`.
pub fn plane_product(graph: &mut Graph, still: TensorId, planes: [TensorId; 3]) -> Result<TensorId> {
    graph.push_one(PlaneProduct, &[still, planes[0], planes[1], planes[2]])
}

impl Op for PlaneProduct {
    fn name(&self) -> &'static str {
        "plane_product_forward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [still, planes @ ..] = inputs else { return Err("needs 4 operands: S, P_tx, P_ty, P_tz".to_owned()) };
        if planes.len() != 3 {
            return Err(format!("{} planes given, P_tx, P_ty and P_tz needed", planes.len()));
        }
        let (&[batch, x, y, z, channels], &[_, time, ..]) = (&still.shape[..], &planes[0].shape[..]) else {
            return Err(format!("S is {still} and P_tx {} but must be [B, X, Y, Z, D] and [B, T, X, D]", planes[0]));
        };
        let sizes = Sizes { batch, time, cells: [x, y, z], channels };
        expect("S", still, &sizes.still_shape())?;
        sizes.check_planes(planes, None)?;
        Ok(vec![TensorSpec::f32(&sizes.product_shape())])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let mut y = vec![0.0; outputs[0].elements()];
        if let Ok(sizes) = Sizes::of(&outputs[0].shape) {
            sizes.for_each(|element, still, planes| {
                let of_planes: f64 = (0..3).map(|axis| inputs[1 + axis].data[planes[axis]]).product();
                y[element] = inputs[0].data[still] * of_planes;
            });
        }
        vec![y]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let sizes = Sizes::of(&context.outputs[0].shape).map_err(crate::Error::Shape)?;
        let [still, tx, ty, tz] = [0, 1, 2, 3].map(|i| context.input(i));
        sizes.launch(context, self.name(), [still, context.output(0), tx, ty, tz])
    }

    fn backward(
        &self,
        graph: &mut Graph,
        node: &Node,
        d_outputs: &[Option<TensorId>],
        needs: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        let mut d_inputs = vec![None; 4];
        let Some(d_y) = d_outputs[0] else { return Ok(d_inputs) };
        let &[still, tx, ty, tz] = &node.inputs[..] else { return Ok(d_inputs) };
        if needs[0] {
            d_inputs[0] = Some(graph.push_one(PlaneProductBackwardStill, &[d_y, tx, ty, tz])?);
        }
        for (axis, others) in [[ty, tz], [tx, tz], [tx, ty]].into_iter().enumerate() {
            if needs[1 + axis] {
                let operands = [still, d_y, others[0], others[1]];
                d_inputs[1 + axis] = Some(graph.push_one(PlaneProductBackwardPlane { axis }, &operands)?);
            }
        }
        Ok(d_inputs)
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(0) | Slot::Output(0))
    }

    fn flops(&self, _: &[TensorSpec], outputs: &[TensorSpec]) -> u64 {
        3 * outputs[0].elements() as u64
    }
}

/// `d_S = sum over t of d_y * P_tx * P_ty * P_tz`, from `d_y` and the planes.
#[derive(Debug)]
pub struct PlaneProductBackwardStill;

impl Op for PlaneProductBackwardStill {
    fn name(&self) -> &'static str {
        "plane_product_backward_still"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [d_y, planes @ ..] = inputs else { return Err("needs 4 operands: d_y, P_tx, P_ty, P_tz".to_owned()) };
        if planes.len() != 3 {
            return Err(format!("{} planes given, P_tx, P_ty and P_tz needed", planes.len()));
        }
        let sizes = Sizes::of(&d_y.shape)?;
        sizes.check_planes(planes, None)?;
        Ok(vec![TensorSpec::f32(&sizes.still_shape())])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let mut d_still = vec![0.0; outputs[0].elements()];
        if let Ok(sizes) = Sizes::of(inputs[0].shape) {
            sizes.for_each(|element, still, planes| {
                let of_planes: f64 = (0..3).map(|axis| inputs[1 + axis].data[planes[axis]]).product();
                d_still[still] += inputs[0].data[element] * of_planes;
            });
        }
        vec![d_still]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let sizes = Sizes::of(&context.inputs[0].shape).map_err(crate::Error::Shape)?;
        let [d_y, tx, ty, tz] = [0, 1, 2, 3].map(|i| context.input(i));
        sizes.launch(context, self.name(), [context.output(0), d_y, tx, ty, tz])
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(0) | Slot::Output(0))
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        4 * inputs[0].elements() as u64
    }
}

/// `d_P_ta = sum over the two axes of space other than a of d_y * S * the planes of these axes`, from `S`, `d_y` and these planes,
/// in two stages.
#[derive(Debug)]
pub struct PlaneProductBackwardPlane {
    /// The axis `a` of the plane: 0, 1, 2 for x, y, z.
    pub axis: usize,
}

impl PlaneProductBackwardPlane {
    /// The axes that are summed over.
    fn others(&self) -> [usize; 2] {
        [[1, 2], [0, 2], [0, 1]][self.axis]
    }
}

impl Op for PlaneProductBackwardPlane {
    fn name(&self) -> &'static str {
        "plane_product_backward_plane"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [still, d_y, planes @ ..] = inputs else {
            return Err("needs 4 operands: S, d_y and two planes".to_owned());
        };
        if self.axis > 2 || planes.len() != 2 {
            return Err(format!("axis {} and {} planes given, 0 to 2 and two needed", self.axis, planes.len()));
        }
        let sizes = Sizes::of(&d_y.shape)?;
        expect("S", still, &sizes.still_shape())?;
        sizes.check_planes(planes, Some(self.axis))?;
        Ok(vec![TensorSpec::f32(&sizes.plane_shape(self.axis))])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let mut d_plane = vec![0.0; outputs[0].elements()];
        if let Ok(sizes) = Sizes::of(inputs[1].shape) {
            let [i, j] = self.others();
            sizes.for_each(|element, still, planes| {
                let others = inputs[2].data[planes[i]] * inputs[3].data[planes[j]];
                d_plane[planes[self.axis]] += inputs[0].data[still] * inputs[1].data[element] * others;
            });
        }
        vec![d_plane]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let sizes = Sizes::of(&context.inputs[1].shape).map_err(crate::Error::Shape)?;
        let (frame, strides, cells) = (sizes.frame(), sizes.strides(), sizes.cells);
        let [i, j] = self.others();
        // A chunk is a range of i, and all of j.
        let i_per_chunk = (run_length(cells[i] * cells[j]) / cells[j]).clamp(1, cells[i]);
        let chunks = cells[i].div_ceil(i_per_chunk);
        let row = cells[self.axis] * sizes.channels;
        let windows = frame_windows(context, sizes.batch, sizes.time, frame, 0)?;
        let longest = windows.iter().map(|window| window.frames.len()).max().unwrap_or(0);

        let mut program = Program::default();
        let slot = program.scratch(chunks * longest * row);
        for window in windows {
            let count = window.frames.len() * row;
            let partial = Operand::scratch(slot, chunks * count);
            let mut words = window.words(sizes.time);
            words.extend(
                [
                    chunks,
                    i_per_chunk,
                    sizes.channels / sizes.width(),
                    cells.iter().product(),
                    cells[self.axis],
                    strides[self.axis],
                    cells[i],
                    strides[i],
                    cells[j],
                    strides[j],
                ]
                .map(|word| word as u32),
            );
            let operands = vec![
                context.input(0),
                context.input(1).window(&window.frames, frame),
                context.input(2),
                context.input(3),
                partial.clone(),
            ];
            let grid = context.grid_for(chunks * count / sizes.width());
            program.dispatch(sizes.kernel(self.name()), words, operands, grid);
            let target = window.frames.start * row;
            let sums = Chunks { chunks, stride: count, first: 0, target, count, accumulate: false };
            sum_chunks(&mut program, context, sums, partial, context.output(0));
        }
        Ok(program)
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(0 | 1))
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        3 * inputs[1].elements() as u64
    }
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    let case = |name: &str, [batch, time, x, y, z, d]: [usize; 6]| {
        Case::new(format!("plane_product {name}"), move |b| {
            let still = b.normal("still", &[batch, x, y, z, d]);
            let planes = [
                b.normal("p_tx", &[batch, time, x, d]),
                b.normal("p_ty", &[batch, time, y, d]),
                b.normal("p_tz", &[batch, time, z, d]),
            ];
            Ok(vec![plane_product(&mut b.graph, still, planes)?])
        })
    };
    vec![
        case("odd", [2, 3, 5, 3, 2, 5]),
        // Windows of six frames, one of which spans two sequences.
        case("windows", [2, 7, 5, 3, 2, 32]).windowed(24_000),
        case("several chunks", [1, 2, 17, 35, 3, 8]),
        case("one cell", [2, 1, 1, 1, 1, 3]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plane_of_another_volume_is_refused_with_both_shapes() {
        let mut graph = Graph::new();
        let shapes: [&[usize]; 4] = [&[1, 5, 4, 2, 3], &[1, 7, 5, 3], &[1, 7, 5, 3], &[1, 7, 2, 3]];
        let [still, planes @ ..] = shapes.map(|shape| graph.input("x", TensorSpec::f32(shape)));
        let message = plane_product(&mut graph, still, planes).unwrap_err().to_string();
        assert!(message.contains("P_ty is [1, 7, 5, 3] but must be [1, 7, 4, 3]"), "{message}");
    }
}
