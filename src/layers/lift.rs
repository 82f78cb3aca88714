//! Outer-product lift-and-add: three spatial planes, each times a factor along its missing axis, become one volume.

use super::case::Case;
use super::common::expect;
use super::reduce::{Chunks, sum_chunks};
use crate::Result;
use crate::graph::{CpuTensor, Graph, Kernel, Node, Op, OpContext, Operand, Program, Slot, TensorId, TensorSpec};

/// `1 / sqrt(3)`: three independent terms of unit variance add up to unit variance.
const SCALE: f64 = 0.577_350_269_189_625_8;

/// A spatial plane, named by the axes that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plane {
    /// `[B, X, Y, D]`, lifted along z.
    Xy,
    /// `[B, X, Z, D]`, lifted along y.
    Xz,
    /// `[B, Y, Z, D]`, lifted along x.
    Yz,
}

/// All planes, in the order of [`Lift`]'s operands.
const PLANES: [Plane; 3] = [Plane::Xy, Plane::Xz, Plane::Yz];

impl Plane {
    /// Its two axes and the missing one, as numbers of x, y, z.
    fn axes(self) -> [usize; 3] {
        match self {
            Plane::Xy => [0, 1, 2],
            Plane::Xz => [0, 2, 1],
            Plane::Yz => [1, 2, 0],
        }
    }
}

/// A volume `[B, X, Y, Z, D]` seen from one plane.
#[derive(Debug, Clone, Copy)]
struct View {
    batch: usize,
    channels: usize,
    cells: usize,
    /// Extents of the plane's two axes and of the missing one.
    extents: [usize; 3],
    /// Cells from one index to the next along these axes.
    strides: [usize; 3],
}

impl View {
    fn new(shape: &[usize], plane: Plane) -> Result<View, String> {
        let &[batch, x, y, z, channels] = shape else {
            return Err(format!("the volume is {shape:?} but must be [B, X, Y, Z, D]"));
        };
        let axes = plane.axes();
        Ok(View {
            batch,
            channels,
            cells: x * y * z,
            extents: axes.map(|axis| [x, y, z][axis]),
            strides: axes.map(|axis| [y * z, z, 1][axis]),
        })
    }

    fn plane_shape(&self) -> Vec<usize> {
        vec![self.batch, self.extents[0], self.extents[1], self.channels]
    }

    fn factor_shape(&self) -> Vec<usize> {
        vec![self.batch, self.extents[2], self.channels]
    }

    /// Calls `visit` with the indices of every element in plane, factor and volume.
    fn for_each(&self, mut visit: impl FnMut(usize, usize, usize)) {
        let ([i_end, j_end, m_end], [i_stride, j_stride, m_stride]) = (self.extents, self.strides);
        for b in 0..self.batch {
            for i in 0..i_end {
                for j in 0..j_end {
                    for m in 0..m_end {
                        for d in 0..self.channels {
                            let cell = b * self.cells + i * i_stride + j * j_stride + m * m_stride;
                            let plane = ((b * i_end + i) * j_end + j) * self.channels + d;
                            visit(plane, (b * m_end + m) * self.channels + d, cell * self.channels + d);
                        }
                    }
                }
            }
        }
    }

    fn words(&self) -> Vec<u32> {
        let sizes = [self.batch, self.cells, self.channels];
        sizes.into_iter().chain(self.extents).chain(self.strides).map(|v| v as u32).collect()
    }
}

/// `V[b,x,y,z] = (phi_xy[b,z] P_xy[b,x,y] + phi_xz[b,y] P_xz[b,x,z] + phi_yz[b,x] P_yz[b,y,z]) / sqrt(3)`, channel by
/// channel (paper: the outer product (x) of Eq. 9).
///
/// # Shapes
/// - `phi_xy`, `P_xy`: `[B, Z, D]`, `[B, X, Y, D]`
/// - `phi_xz`, `P_xz`: `[B, Y, D]`, `[B, X, Z, D]`
/// - `phi_yz`, `P_yz`: `[B, X, D]`, `[B, Y, Z, D]`
/// - `V`: `[B, X, Y, Z, D]`
///
/// Saves all operands. The backward pass overwrites their gradients.
///
/// # Errors
/// [`crate::Error::Shape`] if the planes and factors are not those of one volume.
#[derive(Debug)]
pub struct Lift;

/// Appends [`Lift`] to `graph`; operands `[phi_xy, P_xy, phi_xz, P_xz, phi_yz, P_yz]`, result `V`.
///
/// # Errors
/// [`crate::Error::Shape`] as described at [`Lift`].
pub fn lift(graph: &mut Graph, operands: [TensorId; 6]) -> Result<TensorId> {
    graph.push_one(Lift, &operands)
}

impl Op for Lift {
    fn name(&self) -> &'static str {
        "lift_forward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [phi_xy, p_xy, ..] = inputs else {
            return Err("needs 6 operands: phi_xy, P_xy, phi_xz, P_xz, phi_yz, P_yz".to_owned());
        };
        let (&[batch, x, y, d], &[_, z, _]) = (&p_xy.shape[..], &phi_xy.shape[..]) else {
            return Err(format!("phi_xy is {phi_xy} and P_xy {p_xy} but must be [B, Z, D] and [B, X, Y, D]"));
        };
        if inputs.len() != 6 {
            return Err(format!("{} operands given, 6 needed", inputs.len()));
        }
        let volume = [batch, x, y, z, d];
        for (k, plane) in PLANES.into_iter().enumerate() {
            let view = View::new(&volume, plane)?;
            expect(&format!("phi of plane {plane:?}"), &inputs[2 * k], &view.factor_shape())?;
            expect(&format!("plane {plane:?}"), &inputs[2 * k + 1], &view.plane_shape())?;
        }
        Ok(vec![TensorSpec::f32(&volume)])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let mut v = vec![0.0; outputs[0].elements()];
        for (k, plane) in PLANES.into_iter().enumerate() {
            if let Ok(view) = View::new(&outputs[0].shape, plane) {
                let (phi, p) = (inputs[2 * k].data, inputs[2 * k + 1].data);
                view.for_each(|in_plane, in_phi, in_v| v[in_v] += SCALE * phi[in_phi] * p[in_plane]);
            }
        }
        vec![v]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let volume = &context.outputs[0];
        let parameters = volume.shape.iter().map(|&v| v as u32).collect();
        let operands = (0..6).map(|i| context.input(i)).chain([context.output(0)]).collect();
        let mut program = Program::default();
        let kernel = Kernel::new("lift.wgsl", "lift_forward");
        program.dispatch(kernel, parameters, operands, context.grid_for(volume.elements()));
        Ok(program)
    }

    fn backward(
        &self,
        graph: &mut Graph,
        node: &Node,
        d_outputs: &[Option<TensorId>],
        needs: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        let mut d_inputs = vec![None; 6];
        let Some(d_v) = d_outputs[0] else { return Ok(d_inputs) };
        for (k, plane) in PLANES.into_iter().enumerate() {
            let (phi, p) = (2 * k, 2 * k + 1);
            if needs[phi] {
                d_inputs[phi] = Some(graph.push_one(LiftBackwardFactor { plane }, &[node.inputs[p], d_v])?);
            }
            if needs[p] {
                d_inputs[p] = Some(graph.push_one(LiftBackwardPlane { plane }, &[node.inputs[phi], d_v])?);
            }
        }
        Ok(d_inputs)
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Output(0))
    }

    fn flops(&self, _: &[TensorSpec], outputs: &[TensorSpec]) -> u64 {
        6 * outputs[0].elements() as u64
    }
}

/// `d_phi = sum over the plane's two axes of P * d_V / sqrt(3)` from `P` and `d_V`, in two stages.
#[derive(Debug)]
pub struct LiftBackwardFactor {
    /// The plane that `phi` lifts.
    pub plane: Plane,
}

impl Op for LiftBackwardFactor {
    fn name(&self) -> &'static str {
        "lift_backward_factor"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [p, d_v] = inputs else { return Err("needs 2 operands: P, d_V".to_owned()) };
        let view = View::new(&d_v.shape, self.plane)?;
        expect("P", p, &view.plane_shape())?;
        Ok(vec![TensorSpec::f32(&view.factor_shape())])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let mut d_phi = vec![0.0; outputs[0].elements()];
        let (p, d_v) = (inputs[0].data, inputs[1].data);
        if let Ok(view) = View::new(inputs[1].shape, self.plane) {
            view.for_each(|in_plane, in_phi, in_v| d_phi[in_phi] += SCALE * p[in_plane] * d_v[in_v]);
        }
        vec![d_phi]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let view = View::new(&context.inputs[1].shape, self.plane).map_err(crate::Error::Shape)?;
        let count = context.outputs[0].elements();
        let chunks = view.extents[0];
        let mut program = Program::default();
        let slot = program.scratch(chunks * count);
        let partial = Operand::scratch(slot, chunks * count);
        let kernel = Kernel::new("lift.wgsl", "lift_backward_factor");
        let operands = vec![context.input(0), context.input(1), partial.clone()];
        program.dispatch(kernel, view.words(), operands, context.grid_for(chunks * count));
        let sums = Chunks { chunks, stride: count, first: 0, target: 0, count, accumulate: false };
        sum_chunks(&mut program, context, sums, partial, context.output(0));
        Ok(program)
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(1))
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        2 * inputs[1].elements() as u64
    }
}

/// `d_P = sum over the missing axis of phi * d_V / sqrt(3)` from `phi` and `d_V`.
#[derive(Debug)]
pub struct LiftBackwardPlane {
    /// Which plane.
    pub plane: Plane,
}

impl Op for LiftBackwardPlane {
    fn name(&self) -> &'static str {
        "lift_backward_plane"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [phi, d_v] = inputs else { return Err("needs 2 operands: phi, d_V".to_owned()) };
        let view = View::new(&d_v.shape, self.plane)?;
        expect("phi", phi, &view.factor_shape())?;
        Ok(vec![TensorSpec::f32(&view.plane_shape())])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let mut d_p = vec![0.0; outputs[0].elements()];
        let (phi, d_v) = (inputs[0].data, inputs[1].data);
        if let Ok(view) = View::new(inputs[1].shape, self.plane) {
            view.for_each(|in_plane, in_phi, in_v| d_p[in_plane] += SCALE * phi[in_phi] * d_v[in_v]);
        }
        vec![d_p]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let view = View::new(&context.inputs[1].shape, self.plane).map_err(crate::Error::Shape)?;
        let mut program = Program::default();
        let kernel = Kernel::new("lift.wgsl", "lift_backward_plane");
        let operands = vec![context.input(0), context.input(1), context.output(0)];
        program.dispatch(kernel, view.words(), operands, context.grid_for(context.outputs[0].elements()));
        Ok(program)
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(1))
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        2 * inputs[1].elements() as u64
    }
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    let case = |name: &str, [batch, x, y, z, d]: [usize; 5]| {
        Case::new(name, move |b| {
            let operands = [
                b.normal("phi_xy", &[batch, z, d]),
                b.normal("p_xy", &[batch, x, y, d]),
                b.normal("phi_xz", &[batch, y, d]),
                b.normal("p_xz", &[batch, x, z, d]),
                b.normal("phi_yz", &[batch, x, d]),
                b.normal("p_yz", &[batch, y, z, d]),
            ];
            Ok(vec![lift(&mut b.graph, operands)?])
        })
    };
    vec![case("lift odd", [2, 5, 3, 2, 5]), case("lift D=32", [2, 7, 9, 4, 32]), case("lift one cell", [1, 1, 1, 1, 3])]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plane_of_another_volume_is_refused_with_both_shapes() {
        let mut graph = Graph::new();
        let shapes: [&[usize]; 6] = [&[1, 2, 3], &[1, 5, 4, 3], &[1, 4, 3], &[1, 5, 2, 3], &[1, 5, 3], &[1, 4, 9, 3]];
        let operands = shapes.map(|shape| graph.input("x", TensorSpec::f32(shape)));
        let message = lift(&mut graph, operands).unwrap_err().to_string();
        assert!(message.contains("plane Yz is [1, 4, 9, 3] but must be [1, 4, 2, 3]"), "{message}");
    }
}
