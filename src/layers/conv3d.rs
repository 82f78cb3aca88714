//! 3D convolution over channels-last tensors: with stride 1 and zero padding as ops, with strides and transposed by rearranging.

mod blocked;
mod program;
mod strided;
mod tiled;

pub(super) use program::{
    Pass, backward_data_program, backward_data_variants, backward_weight_program, backward_weight_variants,
    forward_program, forward_variants,
};
pub use strided::{ConvGeometry, conv_transpose3d, conv3d_with};

use super::case::Case;
use crate::Result;
use crate::graph::{CpuTensor, Graph, Node, Op, OpContext, Program, Slot, TensorId, TensorSpec, Variants};

/// `y = w * x + b`, `x` padded with zeros (torch `F.conv3d(F.pad(x, padding), weight, bias)`; with kernel `[1, 3, 3]`
/// `F.conv2d`).
///
/// # Shapes
/// - `x`: `[N, X, Y, Z, I]`
/// - `weight`: `[O, I, kx, ky, kz]` (or `[O, I, ky, kz]`), `bias`: `[O]` (an operand only if `bias` is set)
/// - `y`: `[N, X', Y', Z', O]`, `X' = before + X + after - (kx - 1)` and so on
///
/// Saves `x`.
#[derive(Debug)]
pub struct Conv3d {
    /// Extents along x, y, z, 1 to 7 each.
    pub kernel: [usize; 3],
    /// Layers of zeros before and after `x`, along x, y, z.
    pub padding: Padding,
    /// Whether there is a third operand.
    pub bias: bool,
}

/// Layers of zeros before and after a volume, along each axis.
pub type Padding = [[usize; 2]; 3];

/// The padding with which a kernel of odd extents keeps a volume's (torch `padding="same"`).
pub fn same_padding(kernel: [usize; 3]) -> Padding {
    kernel.map(|extent| [extent / 2; 2])
}

/// Sizes of one convolution.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Geometry {
    /// Frames.
    pub n: usize,
    /// X, Y, Z of y.
    pub size: [usize; 3],
    /// X, Y, Z of x.
    pub x_size: [usize; 3],
    /// Input channels.
    pub i: usize,
    /// Output channels.
    pub o: usize,
    /// Kernel extents.
    pub kernel: [usize; 3],
    /// Voxels from the one under the first tap to the one in whose place the result is; negative where data gradients of
    /// wide padding are cropped.
    pub before: [isize; 3],
}

impl Geometry {
    /// A convolution from a volume to one of the same size, with a kernel of odd extents.
    pub fn same(n: usize, size: [usize; 3], [i, o]: [usize; 2], kernel: [usize; 3]) -> Geometry {
        Geometry { n, size, x_size: size, i, o, kernel, before: kernel.map(|extent| extent as isize / 2) }
    }

    /// A linear layer: every row is a frame of one voxel. `weight` is `[O, I]`.
    pub fn rows(x: &TensorSpec, weight: &TensorSpec) -> Geometry {
        Geometry::same(x.rows(), [1; 3], [weight.shape[1], weight.shape[0]], [1; 3])
    }

    /// From `x` to `y`, both `[N, X, Y, Z, C]`.
    fn volumes(x: &[usize], y: &[usize], kernel: [usize; 3], padding: Padding) -> Geometry {
        let (x_size, size) = ([x[1], x[2], x[3]], [y[1], y[2], y[3]]);
        Geometry { n: x[0], size, x_size, i: x[4], o: y[4], kernel, before: padding.map(|[before, _]| before as isize) }
    }

    /// Voxels of y.
    fn voxels(&self) -> usize {
        self.size.iter().product()
    }

    /// Elements of a frame of x and of y.
    fn frame_elements(&self) -> [usize; 2] {
        [self.x_size.iter().product::<usize>() * self.i, self.voxels() * self.o]
    }

    fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// A result lies where the kernel's centre is, and x and y are equally large: what kernels are made for first of all.
    fn is_same(&self) -> bool {
        self.size == self.x_size && (0..3).all(|axis| 2 * self.before[axis] + 1 == self.kernel[axis] as isize)
    }

    /// Calls `f(voxel of y, voxel of x, tap)` for every pair inside the volumes.
    fn for_each_pair(&self, mut f: impl FnMut(usize, usize, usize)) {
        let voxel = |n: usize, [sx, sy, sz]: [usize; 3], [x, y, z]: [usize; 3]| ((n * sx + x) * sy + y) * sz + z;
        for n in 0..self.n {
            for at in cells(self.size) {
                for (tap, offset) in cells(self.kernel).enumerate() {
                    let from = [0, 1, 2].map(|axis| (at[axis] + offset[axis]).wrapping_add_signed(-self.before[axis]));
                    if (0..3).all(|axis| from[axis] < self.x_size[axis]) {
                        f(voxel(n, self.size, at), voxel(n, self.x_size, from), tap);
                    }
                }
            }
        }
    }
}

fn cells(size: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    (0..size[0]).flat_map(move |x| (0..size[1]).flat_map(move |y| (0..size[2]).map(move |z| [x, y, z])))
}

/// `[N, ..sizes(X, Y, Z), channels]` from a volume `[N, X, Y, Z, _]`.
fn resized(
    volume: &TensorSpec,
    channels: usize,
    size: impl Fn(usize, usize) -> Option<usize>,
) -> Result<TensorSpec, String> {
    let mut shape = volume.shape.clone();
    for axis in 0..3 {
        shape[axis + 1] = size(axis, shape[axis + 1])
            .filter(|&extent| extent > 0)
            .ok_or_else(|| format!("kernel and padding leave nothing of {} voxels along an axis", shape[axis + 1]))?;
    }
    shape[4] = channels;
    Ok(TensorSpec::f32(&shape))
}

/// Taps along an axis that the kernels have a bit each for (`taps_inside` in `shaders/conv3d/volume.wgsl`).
const MOST_TAPS: usize = 7;

fn check_weight(kernel: [usize; 3], weight: &TensorSpec) -> Result<(usize, usize), String> {
    if kernel.iter().any(|extent| !(1..=MOST_TAPS).contains(extent)) {
        return Err(format!("a kernel has one to at most {MOST_TAPS} taps along an axis, not {kernel:?}"));
    }
    let taps: usize = kernel.iter().product();
    match weight.shape.as_slice() {
        [o, i, ..] if weight.elements() == o * i * taps => Ok((*o, *i)),
        _ => Err(format!("needs a weight [O, I, {kernel:?}]")),
    }
}

impl Conv3d {
    fn geometry(&self, context: &OpContext) -> Geometry {
        Geometry::volumes(&context.inputs[0].shape, &context.outputs[0].shape, self.kernel, self.padding)
    }
}

impl Op for Conv3d {
    fn name(&self) -> &'static str {
        "conv3d_forward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        if inputs.len() != 2 + usize::from(self.bias) {
            return Err("needs x, weight and, with a bias, bias".into());
        }
        let (x, weight) = (&inputs[0], &inputs[1]);
        let (o, i) = check_weight(self.kernel, weight)?;
        if x.shape.len() != 5 || x.shape[4] != i {
            return Err(format!("x needs the shape [N, X, Y, Z, {i}]"));
        }
        if inputs.get(2).is_some_and(|bias| bias.elements() != o) {
            return Err(format!("the bias needs {o} elements"));
        }
        let padding = self.padding.map(|[before, after]| before + after);
        Ok(vec![resized(x, o, |axis, extent| (extent + padding[axis] + 1).checked_sub(self.kernel[axis]))?])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let g = Geometry::volumes(inputs[0].shape, &outputs[0].shape, self.kernel, self.padding);
        let taps = g.taps();
        let mut y = match inputs.get(2) {
            Some(bias) => bias.data.repeat(outputs[0].rows()),
            None => vec![0.0; outputs[0].elements()],
        };
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
        forward_program(context, &self.geometry(context), Pass { bias: self.bias, ..Pass::default() })
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
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None; node.inputs.len()]) };
        let Conv3d { kernel, padding, bias } = *self;
        let data = Conv3dBackwardData { kernel, padding };
        let d_x = if needs[0] { Some(graph.push_one(data, &[d_y, node.inputs[1]])?) } else { None };
        let gradients = graph.push(Conv3dBackwardWeight { kernel, padding, bias }, &[node.inputs[0], d_y])?;
        Ok(std::iter::once(d_x).chain(gradients.into_iter().map(Some)).collect())
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(0) | Slot::Output(0))
    }

    fn flops(&self, inputs: &[TensorSpec], outputs: &[TensorSpec]) -> u64 {
        2 * outputs[0].rows() as u64 * inputs[1].elements() as u64
    }
}

/// `d_x` from `d_y [N, X', Y', Z', O]` and the weight: the convolution with the flipped, transposed kernel, and with the
/// padding that the other one leaves of all taps but one.
#[derive(Debug)]
pub struct Conv3dBackwardData {
    /// That of the forward op.
    pub kernel: [usize; 3],
    /// That of the forward op.
    pub padding: Padding,
}

impl Conv3dBackwardData {
    fn geometry(&self, context: &OpContext) -> Geometry {
        Geometry::volumes(&context.outputs[0].shape, &context.inputs[0].shape, self.kernel, self.padding)
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
        let padding = self.padding.map(|[before, after]| before + after);
        Ok(vec![resized(d_y, i, |axis, extent| (extent + self.kernel[axis] - 1).checked_sub(padding[axis]))?])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let g = Geometry::volumes(&outputs[0].shape, inputs[0].shape, self.kernel, self.padding);
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

/// `d_weight [O, I, kx, ky, kz]` and, with a bias, `d_bias [O]` from `x` and `d_y`; both are overwritten.
#[derive(Debug)]
pub struct Conv3dBackwardWeight {
    /// That of the forward op.
    pub kernel: [usize; 3],
    /// That of the forward op.
    pub padding: Padding,
    /// Whether there is a second output.
    pub bias: bool,
}

impl Conv3dBackwardWeight {
    fn geometry(&self, context: &OpContext) -> Geometry {
        Geometry::volumes(&context.inputs[0].shape, &context.inputs[1].shape, self.kernel, self.padding)
    }
}

impl Op for Conv3dBackwardWeight {
    fn name(&self) -> &'static str {
        "conv3d_backward_weight"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [x, d_y] = inputs else { return Err("needs x and d_y".into()) };
        let fits = |axis: usize| {
            let [before, after] = self.padding[axis];
            x.shape[axis + 1] + before + after + 1 == d_y.shape[axis + 1] + self.kernel[axis]
        };
        if [x, d_y].iter().any(|spec| spec.shape.len() != 5) || x.shape[0] != d_y.shape[0] || !(0..3).all(fits) {
            return Err(
                "needs x and d_y [N, X, Y, Z, C], and d_y of the extents that the convolution makes of x's".into()
            );
        }
        let ([kx, ky, kz], o, i) = (self.kernel, d_y.channels(), x.channels());
        let mut outputs = vec![TensorSpec::f32(&[o, i, kx, ky, kz])];
        outputs.extend(self.bias.then(|| TensorSpec::f32(&[o])));
        Ok(outputs)
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let g = Geometry::volumes(inputs[0].shape, inputs[1].shape, self.kernel, self.padding);
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
        if self.bias { vec![d_w, d_b] } else { vec![d_w] }
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        backward_weight_program(context, &self.geometry(context), self.bias)
    }

    fn variants(&self, context: &OpContext) -> Option<Variants> {
        backward_weight_variants(context, &self.geometry(context))
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(_))
    }

    fn flops(&self, inputs: &[TensorSpec], outputs: &[TensorSpec]) -> u64 {
        2 * inputs[1].rows() as u64 * outputs[0].elements() as u64
    }
}

/// Appends the convolution of `x [N, X, Y, Z, I]` with a kernel of odd extents, padded to equal size.
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
    graph.push_one(Conv3d { kernel, padding: same_padding(kernel), bias: true }, &[x, weight, bias])
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
    let padded = |shape: [usize; 4], [i, o]: [usize; 2], kernel: [usize; 3], padding: Padding, bias: bool| {
        Case::new(format!("conv3d {kernel:?} {padding:?} {shape:?} {i}->{o}"), move |b| {
            let x = b.normal("x", &[&shape[..], &[i]].concat());
            let w = b.normal("weight", &[&[o, i], &kernel[..]].concat());
            let bias = bias.then(|| b.normal("bias", &[o]));
            let geometry = ConvGeometry { kernel, stride: [1; 3], padding };
            Ok(vec![conv3d_with(&mut b.graph, x, w, bias, geometry)?])
        })
    };
    let mut cases = vec![
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
        padded([2, 5, 3, 4], [3, 5], [2, 2, 2], [[1, 0], [0, 1], [1, 1]], true),
        // As many channels as the widest tiles take.
        padded([3, 5, 6, 4], [16, 64], [3, 2, 2], [[0, 1], [1, 1], [2, 1]], true).windowed(60_000),
        padded([2, 3, 4, 11], [8, 12], [2, 3, 4], [[1, 0], [0, 2], [1, 2]], false),
        // As large as before, but not centred.
        padded([1, 2, 3, 12], [8, 8], [3, 3, 3], [[2, 0], [0, 2], [2, 0]], true),
        // More padding than taps: results without any, and a gradient that is cropped.
        padded([2, 3, 2, 9], [5, 4], [1, 1, 2], [[1, 0], [0, 0], [3, 2]], true),
    ];
    // Enough products for Winograd's algorithm, of three taps and of two.
    cases.extend([
        padded([6, 7, 10, 5], [16, 16], [3, 3, 3], [[1, 0], [0, 1], [0, 1]], true).windowed(100_000),
        padded([9, 5, 9, 11], [16, 16], [2, 2, 2], [[0, 1], [1, 1], [1, 0]], true),
        padded([40, 4, 7, 4], [8, 32], [1, 3, 3], [[0, 0], [2, 2], [1, 1]], false),
    ]);
    cases.extend(strided::cases());
    cases
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
