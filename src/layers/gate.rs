//! The gated product: per-cell gates weigh the space-time planes of each frame.

use super::case::Case;
use super::common::{expect, frame_windows};
use super::reduce::{Chunks, sum_chunks};
use crate::Result;
use crate::graph::{CpuTensor, Graph, Kernel, Node, Op, OpContext, Operand, Program, Slot, TensorId, TensorSpec};

/// `1 / sqrt(3)`, as in `lift`.
const SCALE: f64 = 0.577_350_269_189_625_8;

/// Terms that one invocation of a first-stage reduction adds up, roughly.
const TERMS: usize = 64;

/// Names of the space-time planes.
const NAMES: [&str; 3] = ["P_tx", "P_ty", "P_tz"];

/// The sizes of one gated product.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    batch: usize,
    time: usize,
    /// Extents of x, y, z.
    cells: [usize; 3],
    channels: usize,
}

impl Sizes {
    /// From the shape of `W`.
    fn of_product(w: &TensorSpec) -> Result<Sizes, String> {
        match w.shape[..] {
            [batch, time, x, y, z, channels] => Ok(Sizes { batch, time, cells: [x, y, z], channels }),
            _ => Err(format!("W is {w} but must be [B, T, X, Y, Z, D]")),
        }
    }

    fn gate_shape(&self) -> Vec<usize> {
        let [x, y, z] = self.cells;
        vec![self.batch, x, y, z, 3 * self.channels]
    }

    fn plane_shape(&self, axis: usize) -> Vec<usize> {
        vec![self.batch, self.time, self.cells[axis], self.channels]
    }

    fn product_shape(&self) -> Vec<usize> {
        let [x, y, z] = self.cells;
        vec![self.batch, self.time, x, y, z, self.channels]
    }

    /// Elements of a frame of `W`.
    fn frame(&self) -> usize {
        self.cells.iter().product::<usize>() * self.channels
    }

    /// Cells from one index to the next along each axis.
    fn strides(&self) -> [usize; 3] {
        [self.cells[1] * self.cells[2], self.cells[2], 1]
    }

    /// Calls `visit` with the indices of every term in plane `axis`, `psi` and `W`.
    fn for_each(&self, axis: usize, mut visit: impl FnMut(usize, usize, usize)) {
        let [x_end, y_end, z_end] = self.cells;
        for n in 0..self.batch * self.time {
            for x in 0..x_end {
                for y in 0..y_end {
                    for z in 0..z_end {
                        for d in 0..self.channels {
                            let cell = (x * y_end + y) * z_end + z;
                            let plane = (n * self.cells[axis] + [x, y, z][axis]) * self.channels + d;
                            let gate_cell = n / self.time * (x_end * y_end * z_end) + cell;
                            let gate = gate_cell * 3 * self.channels + axis * self.channels + d;
                            visit(plane, gate, (n * x_end * y_end * z_end + cell) * self.channels + d);
                        }
                    }
                }
            }
        }
    }

    /// The words after those of the frame window.
    fn words(&self, sequences: usize) -> Vec<u32> {
        let [x, y, z] = self.cells;
        [sequences, x, y, z, self.channels].map(|v| v as u32).to_vec()
    }
}

/// `W[b,t,x,y,z] = (psi_tx[b,x,y,z] P_tx[b,t,x] + psi_ty[b,x,y,z] P_ty[b,t,y] + psi_tz[b,x,y,z] P_tz[b,t,z]) / sqrt(3)`,
/// channel by channel (paper: the gated product (.) of Eq. 10).
///
/// # Shapes
/// - `psi`: `[B, X, Y, Z, 3D]`, the channels of tx, ty, tz one after the other
/// - `P_tx`, `P_ty`, `P_tz`: `[B, T, X, D]`, `[B, T, Y, D]`, `[B, T, Z, D]`
/// - `W`: `[B, T, X, Y, Z, D]`
///
/// Saves all operands. The backward pass overwrites their gradients.
///
/// # Errors
/// [`crate::Error::Shape`] if the planes do not fit `psi`.
#[derive(Debug)]
pub struct Gate;

/// Appends [`Gate`] to `graph`; `planes` are `P_tx`, `P_ty`, `P_tz`, the result is `W`.
///
/// # Errors
/// [`crate::Error::Shape`] if the planes do not fit `psi`.
pub fn gate(graph: &mut Graph, psi: TensorId, planes: [TensorId; 3]) -> Result<TensorId> {
    graph.push_one(Gate, &[psi, planes[0], planes[1], planes[2]])
}

impl Op for Gate {
    fn name(&self) -> &'static str {
        "gate_forward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [psi, planes @ ..] = inputs else { return Err("needs 4 operands: psi, P_tx, P_ty, P_tz".to_owned()) };
        if planes.len() != 3 {
            return Err(format!("{} planes given, P_tx, P_ty and P_tz needed", planes.len()));
        }
        let (&[batch, x, y, z, _], &[_, time, _, channels]) = (&psi.shape[..], &planes[0].shape[..]) else {
            return Err(format!("psi is {psi} and P_tx {} but must be [B, X, Y, Z, 3D] and [B, T, X, D]", planes[0]));
        };
        let sizes = Sizes { batch, time, cells: [x, y, z], channels };
        expect("psi", psi, &sizes.gate_shape())?;
        for (axis, plane) in planes.iter().enumerate() {
            expect(NAMES[axis], plane, &sizes.plane_shape(axis))?;
        }
        Ok(vec![TensorSpec::f32(&sizes.product_shape())])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let mut w = vec![0.0; outputs[0].elements()];
        if let Ok(sizes) = Sizes::of_product(&outputs[0]) {
            for axis in 0..3 {
                let (psi, p) = (inputs[0].data, inputs[1 + axis].data);
                sizes.for_each(axis, |plane, gate, product| w[product] += SCALE * psi[gate] * p[plane]);
            }
        }
        vec![w]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let sizes = Sizes::of_product(&context.outputs[0]).map_err(crate::Error::Shape)?;
        let frame = sizes.frame();
        let mut program = Program::default();
        for window in frame_windows(context, sizes.batch, sizes.time, frame, 3 * frame)? {
            let mut parameters = window.words(sizes.time);
            parameters.extend(sizes.words(window.sequences.len()));
            let operands = vec![
                window.still(context.input(0), sizes.time, 3 * frame),
                context.output(0).window(&window.frames, frame),
                context.input(1),
                context.input(2),
                context.input(3),
            ];
            let kernel = Kernel::new("gate.wgsl", "gate_forward");
            program.dispatch(kernel, parameters, operands, context.grid_for(window.sequences.len() * frame));
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
        let mut d_inputs = vec![None; 4];
        let Some(d_w) = d_outputs[0] else { return Ok(d_inputs) };
        if needs[0] {
            let operands = [node.inputs[1], node.inputs[2], node.inputs[3], d_w];
            d_inputs[0] = Some(graph.push_one(GateBackwardPsi, &operands)?);
        }
        for axis in 0..3 {
            if needs[1 + axis] {
                d_inputs[1 + axis] = Some(graph.push_one(GateBackwardPlane { axis }, &[node.inputs[0], d_w])?);
            }
        }
        Ok(d_inputs)
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(0) | Slot::Output(0))
    }

    fn flops(&self, _: &[TensorSpec], outputs: &[TensorSpec]) -> u64 {
        6 * outputs[0].elements() as u64
    }
}

/// `d_psi_ta = sum over t of d_W * P_ta / sqrt(3)` for `a` in x, y, z, from `P_tx`, `P_ty`, `P_tz` and `d_W`.
#[derive(Debug)]
pub struct GateBackwardPsi;

impl Op for GateBackwardPsi {
    fn name(&self) -> &'static str {
        "gate_backward_psi"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [planes @ .., d_w] = inputs else { return Err("needs 4 operands: P_tx, P_ty, P_tz, d_W".to_owned()) };
        if planes.len() != 3 {
            return Err(format!("{} planes given, P_tx, P_ty and P_tz needed", planes.len()));
        }
        let sizes = Sizes::of_product(d_w)?;
        for (axis, plane) in planes.iter().enumerate() {
            expect(NAMES[axis], plane, &sizes.plane_shape(axis))?;
        }
        Ok(vec![TensorSpec::f32(&sizes.gate_shape())])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let mut d_psi = vec![0.0; outputs[0].elements()];
        if let Ok(sizes) = Sizes::of_product(&TensorSpec::f32(inputs[3].shape)) {
            for axis in 0..3 {
                let (p, d_w) = (inputs[axis].data, inputs[3].data);
                sizes.for_each(axis, |plane, gate, product| d_psi[gate] += SCALE * p[plane] * d_w[product]);
            }
        }
        vec![d_psi]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let sizes = Sizes::of_product(&context.inputs[3]).map_err(crate::Error::Shape)?;
        let frame = sizes.frame();
        let mut program = Program::default();
        for window in frame_windows(context, sizes.batch, sizes.time, frame, 3 * frame)? {
            let mut parameters = window.words(sizes.time);
            parameters.extend(sizes.words(window.sequences.len()));
            let operands = vec![
                window.still(context.output(0), sizes.time, 3 * frame),
                context.input(3).window(&window.frames, frame),
                context.input(0),
                context.input(1),
                context.input(2),
            ];
            let kernel = Kernel::new("gate.wgsl", "gate_backward_psi");
            program.dispatch(kernel, parameters, operands, context.grid_for(window.sequences.len() * frame));
        }
        Ok(program)
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(3) | Slot::Output(0))
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        6 * inputs[3].elements() as u64
    }
}

/// `d_P_ta = sum over the two axes other than a of d_W * psi_ta / sqrt(3)`, from `psi` and `d_W`, in two stages.
#[derive(Debug)]
pub struct GateBackwardPlane {
    /// The axis `a` of the plane: 0, 1, 2 for x, y, z.
    pub axis: usize,
}

impl Op for GateBackwardPlane {
    fn name(&self) -> &'static str {
        "gate_backward_plane"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [psi, d_w] = inputs else { return Err("needs 2 operands: psi, d_W".to_owned()) };
        if self.axis > 2 {
            return Err(format!("axis {} given, 0 (x), 1 (y) or 2 (z) needed", self.axis));
        }
        let sizes = Sizes::of_product(d_w)?;
        expect("psi", psi, &sizes.gate_shape())?;
        Ok(vec![TensorSpec::f32(&sizes.plane_shape(self.axis))])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let mut d_p = vec![0.0; outputs[0].elements()];
        if let Ok(sizes) = Sizes::of_product(&TensorSpec::f32(inputs[1].shape)) {
            let (psi, d_w) = (inputs[0].data, inputs[1].data);
            sizes.for_each(self.axis, |plane, gate, product| d_p[plane] += SCALE * psi[gate] * d_w[product]);
        }
        vec![d_p]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let sizes = Sizes::of_product(&context.inputs[1]).map_err(crate::Error::Shape)?;
        let frame = sizes.frame();
        // i and j are the axes summed over, a chunk is a range of i.
        let [i, j] = match self.axis {
            0 => [1, 2],
            1 => [0, 2],
            _ => [0, 1],
        };
        let i_per_chunk = (TERMS / sizes.cells[j]).clamp(1, sizes.cells[i]);
        let chunks = sizes.cells[i].div_ceil(i_per_chunk);
        let row = sizes.cells[self.axis] * sizes.channels;
        let windows = frame_windows(context, sizes.batch, sizes.time, frame, 3 * frame)?;
        let longest = windows.iter().map(|window| window.frames.len()).max().unwrap_or(0);

        let mut program = Program::default();
        let slot = program.scratch(chunks * longest * row);
        for window in windows {
            let count = window.frames.len() * row;
            let partial = Operand::scratch(slot, chunks * count);
            let mut parameters = window.words(sizes.time);
            let strides = sizes.strides();
            parameters.extend(
                [
                    chunks,
                    i_per_chunk,
                    sizes.channels,
                    self.axis * sizes.channels,
                    sizes.cells.iter().product(),
                    sizes.cells[self.axis],
                    strides[self.axis],
                    sizes.cells[i],
                    strides[i],
                    sizes.cells[j],
                    strides[j],
                ]
                .map(|v| v as u32),
            );
            let psi = window.still(context.input(0), sizes.time, 3 * frame);
            let operands = vec![psi, context.input(1).window(&window.frames, frame), partial.clone()];
            let kernel = Kernel::new("gate.wgsl", "gate_backward_plane");
            program.dispatch(kernel, parameters, operands, context.grid_for(chunks * count));
            let sums =
                Chunks { chunks, stride: count, first: 0, target: window.frames.start * row, count, accumulate: false };
            sum_chunks(&mut program, context, sums, partial, context.output(0));
        }
        Ok(program)
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(_))
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        2 * inputs[1].elements() as u64
    }
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    let case = |name: &str, [batch, time, x, y, z, d]: [usize; 6]| {
        Case::new(name, move |b| {
            let psi = b.normal("psi", &[batch, x, y, z, 3 * d]);
            let planes = [
                b.normal("p_tx", &[batch, time, x, d]),
                b.normal("p_ty", &[batch, time, y, d]),
                b.normal("p_tz", &[batch, time, z, d]),
            ];
            Ok(vec![gate(&mut b.graph, psi, planes)?])
        })
    };
    vec![
        case("gate odd", [2, 3, 5, 3, 2, 5]),
        // Windows of six frames, one of which spans two sequences.
        case("gate windows", [2, 7, 5, 3, 2, 32]).windowed(24_000),
        // Each frame its own gates, of which windows hold those of some.
        case("gate frames apart", [9, 1, 5, 3, 2, 32]).windowed(24_000),
        case("gate several chunks", [1, 2, 17, 35, 3, 8]),
        case("gate one cell", [2, 1, 1, 1, 1, 3]),
    ]
}
