//! 3D convolution, stride 1, zero-padded to equal size, over channels-last tensors.

mod blocked;
mod program;
mod tiled;

pub(super) use program::{
    Pass, backward_data_program, backward_data_variants, backward_weight_program, backward_weight_variants,
    forward_program, forward_variants,
};

use crate::Result;
use crate::graph::{CpuTensor, Graph, Node, Op, OpContext, Program, Slot, TensorId, TensorSpec, Variants};
use crate::selftest::Case;

/// `y = w * x + b` (torch `nn.Conv3d(I, O, kernel, padding=kernel/2)`; with kernel `[1, 3, 3]` `nn.Conv2d`).
///
/// # Shapes
/// - `x`: `[N, X, Y, Z, I]`
/// - `weight`: `[O, I, kx, ky, kz]` (or `[O, I, ky, kz]`), `bias`: `[O]`
/// - `y`: `[N, X, Y, Z, O]`
///
/// Saves `x`.
#[derive(Debug)]
pub struct Conv3d {
    /// Odd extents along x, y, z, at most 7.
    pub kernel: [usize; 3],
}

/// Sizes of one convolution.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Geometry {
    /// Frames.
    pub n: usize,
    /// X, Y, Z.
    pub size: [usize; 3],
    /// Input channels.
    pub i: usize,
    /// Output channels.
    pub o: usize,
    /// Kernel extents.
    pub kernel: [usize; 3],
}

impl Geometry {
    /// A linear layer: every row is a frame of one voxel. `weight` is `[O, I]`.
    pub fn rows(x: &TensorSpec, weight: &TensorSpec) -> Geometry {
        Geometry { n: x.rows(), size: [1; 3], i: weight.shape[1], o: weight.shape[0], kernel: [1; 3] }
    }

    fn volumes(x: &TensorSpec, weight: &TensorSpec, kernel: [usize; 3]) -> Geometry {
        let [n, sx, sy, sz, i] = five(x);
        Geometry { n, size: [sx, sy, sz], i, o: weight.shape[0], kernel }
    }

    fn voxels(&self) -> usize {
        self.size.iter().product()
    }

    fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Calls `f(voxel of y, voxel of x, tap)` for every pair inside the volume.
    fn for_each_pair(&self, mut f: impl FnMut(usize, usize, usize)) {
        let [sx, sy, sz] = self.size;
        let [kx, ky, kz] = self.kernel;
        for n in 0..self.n {
            for (x, y, z) in cells([sx, sy, sz]) {
                for (tap, (dx, dy, dz)) in cells([kx, ky, kz]).enumerate() {
                    let from = [x + dx, y + dy, z + dz];
                    let from =
                        [from[0].wrapping_sub(kx / 2), from[1].wrapping_sub(ky / 2), from[2].wrapping_sub(kz / 2)];
                    if from[0] < sx && from[1] < sy && from[2] < sz {
                        let voxel = |x: usize, y: usize, z: usize| ((n * sx + x) * sy + y) * sz + z;
                        f(voxel(x, y, z), voxel(from[0], from[1], from[2]), tap);
                    }
                }
            }
        }
    }
}

fn cells(size: [usize; 3]) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..size[0]).flat_map(move |x| (0..size[1]).flat_map(move |y| (0..size[2]).map(move |z| (x, y, z))))
}

fn five(spec: &TensorSpec) -> [usize; 5] {
    let s = &spec.shape;
    [s[0], s[1], s[2], s[3], s[4]]
}

/// Taps along an axis that the kernels have a bit each for (`taps_inside` in `shaders/conv3d/volume.wgsl`).
const MOST_TAPS: usize = 7;

fn check_weight(kernel: [usize; 3], weight: &TensorSpec) -> Result<(usize, usize), String> {
    if kernel.iter().any(|&extent| extent > MOST_TAPS) {
        return Err(format!("a kernel has at most {MOST_TAPS} taps along an axis, not {kernel:?}"));
    }
    let taps: usize = kernel.iter().product();
    match weight.shape.as_slice() {
        [o, i, ..] if weight.elements() == o * i * taps => Ok((*o, *i)),
        _ => Err(format!("needs a weight [O, I, {kernel:?}]")),
    }
}

impl Conv3d {
    fn geometry(&self, context: &OpContext) -> Geometry {
        Geometry::volumes(&context.inputs[0], &context.inputs[1], self.kernel)
    }
}

impl Op for Conv3d {
    fn name(&self) -> &'static str {
        "conv3d_forward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [x, weight, bias] = inputs else { return Err("needs x, weight and bias".into()) };
        let (o, i) = check_weight(self.kernel, weight)?;
        if x.shape.len() != 5 || x.shape[4] != i {
            return Err(format!("x needs the shape [N, X, Y, Z, {i}]"));
        }
        if bias.elements() != o {
            return Err(format!("the bias needs {o} elements"));
        }
        let [n, sx, sy, sz, _] = five(x);
        Ok(vec![TensorSpec::f32(&[n, sx, sy, sz, o])])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let g = Geometry::volumes(&TensorSpec::f32(inputs[0].shape), &TensorSpec::f32(inputs[1].shape), self.kernel);
        let taps = g.taps();
        let mut y = inputs[2].data.repeat(outputs[0].rows());
        g.for_each_pair(|to, from, tap| {
            for o in 0..g.o {
                for i in 0..g.i {
                    y[to * g.o + o] += inputs[1].data[(o * g.i + i) * taps + tap] * inputs[0].data[from * g.i + i];
                }
            }
        });
        vec![y]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        forward_program(context, &self.geometry(context), Pass { bias: true, ..Pass::default() })
    }

    fn variants(&self, context: &OpContext) -> Option<Variants> {
        forward_variants(context, &self.geometry(context))
    }

    fn backward(
        &self,
        graph: &mut Graph,
        node: &Node,
        d_outputs: &[Option<TensorId>],
        needs: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None; 3]) };
        let data = Conv3dBackwardData { kernel: self.kernel };
        let d_x = if needs[0] { Some(graph.push_one(data, &[d_y, node.inputs[1]])?) } else { None };
        let weight = Conv3dBackwardWeight { kernel: self.kernel };
        let gradients = graph.push(weight, &[node.inputs[0], d_y])?;
        Ok(vec![d_x, Some(gradients[0]), Some(gradients[1])])
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(0) | Slot::Output(0))
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        2 * inputs[0].rows() as u64 * inputs[1].elements() as u64
    }
}

/// `d_x` from `d_y [N, X, Y, Z, O]` and the weight: the convolution with the flipped, transposed kernel.
#[derive(Debug)]
pub struct Conv3dBackwardData {
    /// That of the forward op.
    pub kernel: [usize; 3],
}

impl Conv3dBackwardData {
    fn geometry(&self, context: &OpContext) -> Geometry {
        Geometry::volumes(&context.outputs[0], &context.inputs[1], self.kernel)
    }
}

impl Op for Conv3dBackwardData {
    fn name(&self) -> &'static str {
        "conv3d_backward_data"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [d_y, weight] = inputs else { return Err("needs d_y and weight".into()) };
        let (o, i) = check_weight(self.kernel, weight)?;
        if d_y.shape.len() != 5 || d_y.shape[4] != o {
            return Err(format!("d_y needs the shape [N, X, Y, Z, {o}]"));
        }
        let [n, sx, sy, sz, _] = five(d_y);
        Ok(vec![TensorSpec::f32(&[n, sx, sy, sz, i])])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let g = Geometry::volumes(&outputs[0], &TensorSpec::f32(inputs[1].shape), self.kernel);
        let taps = g.taps();
        let mut d_x = vec![0.0; outputs[0].elements()];
        g.for_each_pair(|to, from, tap| {
            for o in 0..g.o {
                for i in 0..g.i {
                    d_x[from * g.i + i] += inputs[1].data[(o * g.i + i) * taps + tap] * inputs[0].data[to * g.o + o];
                }
            }
        });
        vec![d_x]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        backward_data_program(context, &self.geometry(context), Pass { transposed: true, ..Pass::default() })
    }

    fn variants(&self, context: &OpContext) -> Option<Variants> {
        backward_data_variants(context, &self.geometry(context), Pass { transposed: true, ..Pass::default() })
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(0) | Slot::Output(0))
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        2 * inputs[0].rows() as u64 * inputs[1].elements() as u64
    }
}

/// `d_weight [O, I, kx, ky, kz]` and `d_bias [O]` from `x` and `d_y`; both are overwritten.
#[derive(Debug)]
pub struct Conv3dBackwardWeight {
    /// That of the forward op.
    pub kernel: [usize; 3],
}

impl Conv3dBackwardWeight {
    fn geometry(&self, context: &OpContext) -> Geometry {
        Geometry::volumes(&context.inputs[0], &context.outputs[0], self.kernel)
    }
}

impl Op for Conv3dBackwardWeight {
    fn name(&self) -> &'static str {
        "conv3d_backward_weight"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        match inputs {
            [x, d_y] if x.shape.len() == 5 && x.shape.len() == d_y.shape.len() && x.rows() == d_y.rows() => {
                let [kx, ky, kz] = self.kernel;
                let (o, i) = (d_y.channels(), x.channels());
                Ok(vec![TensorSpec::f32(&[o, i, kx, ky, kz]), TensorSpec::f32(&[o])])
            }
            _ => Err("needs x and d_y [N, X, Y, Z, C] of equal extents".into()),
        }
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let g = Geometry::volumes(&TensorSpec::f32(inputs[0].shape), &outputs[0], self.kernel);
        let taps = g.taps();
        let (mut d_w, mut d_b) = (vec![0.0; outputs[0].elements()], vec![0.0; g.o]);
        g.for_each_pair(|to, from, tap| {
            for o in 0..g.o {
                for i in 0..g.i {
                    d_w[(o * g.i + i) * taps + tap] += inputs[1].data[to * g.o + o] * inputs[0].data[from * g.i + i];
                }
            }
        });
        for d_y in inputs[1].data.chunks(g.o) {
            d_b.iter_mut().zip(d_y).for_each(|(b, d)| *b += d);
        }
        vec![d_w, d_b]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        backward_weight_program(context, &self.geometry(context), true)
    }

    fn variants(&self, context: &OpContext) -> Option<Variants> {
        backward_weight_variants(context, &self.geometry(context))
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(_))
    }

    fn flops(&self, inputs: &[TensorSpec], outputs: &[TensorSpec]) -> u64 {
        2 * inputs[0].rows() as u64 * outputs[0].elements() as u64
    }
}

/// Appends the convolution of `x [N, X, Y, Z, I]`.
///
/// # Errors
/// [`crate::Error::Shape`] if the operands do not fit.
pub fn conv3d(
    graph: &mut Graph,
    x: TensorId,
    weight: TensorId,
    bias: TensorId,
    kernel: [usize; 3],
) -> Result<TensorId> {
    graph.push_one(Conv3d { kernel }, &[x, weight, bias])
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    let case = |shape: [usize; 4], i: usize, o: usize, kernel: [usize; 3]| {
        Case::new(format!("conv3d {kernel:?} {shape:?} {i}->{o}"), move |b| {
            let x = b.normal("x", &[&shape[..], &[i]].concat());
            let w = b.normal("weight", &[&[o, i], &kernel[..]].concat());
            let bias = b.normal("bias", &[o]);
            Ok(vec![conv3d(&mut b.graph, x, w, bias, kernel)?])
        })
    };
    vec![
        case([2, 5, 3, 4], 3, 5, [3, 3, 3]),
        // Enough products for Winograd's algorithm.
        case([6, 6, 9, 4], 16, 16, [3, 3, 3]).windowed(70_000),
        case([1, 6, 8, 11], 42, 16, [3, 3, 3]),
        case([40, 2, 4, 4], 16, 16, [3, 3, 3]).windowed(70_000),
        case([4, 5, 7, 4], 20, 32, [3, 3, 3]),
        case([9, 9, 7, 5], 15, 32, [1, 3, 3]),
        case([2, 4, 6, 4], 16, 16, [3, 3, 3]),
        case([50, 2, 2, 4], 4, 8, [3, 3, 3]).windowed(15_000),
        case([60, 3, 3, 2], 16, 64, [3, 3, 3]).windowed(116_000),
        case([1, 7, 5, 3], 17, 11, [3, 3, 3]),
        case([1, 4, 4, 4], 32, 40, [3, 3, 3]),
        case([2, 3, 5, 8], 16, 16, [3, 3, 3]),
        case([1, 3, 2, 11], 12, 32, [3, 3, 3]),
        case([2, 1, 9, 7], 8, 12, [1, 3, 3]),
        case([3, 1, 5, 16], 4, 6, [1, 3, 3]),
        case([2, 3, 4, 9], 5, 64, [3, 1, 1]),
        case([3, 5, 2, 3], 9, 7, [1, 1, 1]),
        case([1, 4, 9, 2], 8, 16, [7, 7, 1]),
        case([1, 1, 1, 2], 5, 3, [3, 3, 3]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_with_more_taps_than_there_are_bits_is_refused() {
        let convolve = |taps: usize| {
            let mut graph = Graph::new();
            let x = graph.input("x", TensorSpec::f32(&[1, 9, 2, 2, 4]));
            let weight = graph.input("weight", TensorSpec::f32(&[4, 4, taps, 1, 1]));
            let bias = graph.input("bias", TensorSpec::f32(&[4]));
            conv3d(&mut graph, x, weight, bias, [taps, 1, 1])
        };
        assert!(convolve(7).is_ok());
        assert!(convolve(9).unwrap_err().to_string().contains("at most 7 taps along an axis"));
    }
}
