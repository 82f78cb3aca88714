//! Convolutions with strides and transposed ones, by rearranging: a block of `stride` voxels becomes channels, so that a kernel
//! of k taps is one of ceil(k / stride) without strides (the same with `F.pixel_unshuffle` in torch).

use super::{Conv3d, Padding};
use crate::graph::{Graph, TensorId};
use crate::layers::case::Case;
use crate::layers::concat::{concat, slice};
use crate::layers::linear::linear;
use crate::layers::permute::{permute, tile};
use crate::layers::space_to_depth::{Flip, depth_to_space, space_to_depth};
use crate::{Error, Result};

/// How a kernel goes over a volume; along x, y, z.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvGeometry {
    /// Taps.
    pub kernel: [usize; 3],
    /// Voxels from one place of the kernel to the next.
    pub stride: [usize; 3],
    /// Zeros before and after the volume; of a transposed convolution, voxels of the result that are left out there.
    pub padding: Padding,
}

impl ConvGeometry {
    /// With as much padding before as after (torch's `kernel_size`, `stride` and `padding`).
    pub fn new(kernel: [usize; 3], stride: [usize; 3], padding: [usize; 3]) -> ConvGeometry {
        ConvGeometry { kernel, stride, padding: padding.map(|layers| [layers; 2]) }
    }

    /// Taps of the convolution of blocks.
    fn taps(&self) -> [usize; 3] {
        self.map(|axis| self.kernel[axis].div_ceil(self.stride[axis]))
    }

    fn map(&self, f: impl Fn(usize) -> usize) -> [usize; 3] {
        [0, 1, 2].map(f)
    }

    fn block(&self) -> usize {
        self.stride.iter().product()
    }
}

/// The extents of a volume `[N, X, Y, Z, C]`, and a kernel that has taps and moves on.
fn volume_size(graph: &Graph, x: TensorId, geometry: &ConvGeometry) -> Result<[usize; 3]> {
    let ConvGeometry { kernel, stride, .. } = geometry;
    if kernel.iter().chain(stride).any(|&extent| extent == 0) {
        return Err(Error::Shape(format!("kernel {kernel:?} and stride {stride:?} must be at least 1")));
    }
    match graph.shape(x) {
        &[_, x, y, z, _] => Ok([x, y, z]),
        _ => Err(Error::Shape(format!("{} is no volume [N, X, Y, Z, C]", graph.describe(x)))),
    }
}

/// The weight `[A, B, kx, ky, kz]` as `[A, B, taps, sub-voxels of a block]`, zero where a block has no tap, with these axes in
/// another order.
fn blocked_weight(graph: &mut Graph, weight: TensorId, geometry: &ConvGeometry, order: [usize; 4]) -> Result<TensorId> {
    let [kx, ky, kz] = geometry.kernel;
    let (a, b) = match graph.shape(weight) {
        &[a, b, ..] if graph.tensor(weight).spec.elements() == a * b * kx * ky * kz => (a, b),
        _ => {
            let given = graph.describe(weight);
            return Err(Error::Shape(format!("{given} is no weight [.., .., {kx}, {ky}, {kz}]")));
        }
    };
    let (taps, sub) = (geometry.taps(), geometry.block());
    let extents = [a, b, taps.iter().product(), sub];
    if taps.iter().zip(geometry.stride).map(|(taps, stride)| taps * stride).eq(geometry.kernel) {
        // Every block has all of its taps.
        let [sx, sy, sz] = geometry.stride;
        let apart = graph.reshape(weight, &[a, b, taps[0], sx, taps[1], sy, taps[2], sz])?;
        let axes = order.iter().flat_map(|&axis| [&[0][..], &[1], &[2, 4, 6], &[3, 5, 7]][axis]);
        let blocked = permute(graph, apart, &axes.copied().collect::<Vec<_>>())?;
        return graph.reshape(blocked, &order.map(|axis| extents[axis]));
    }
    let mut blocked = graph.reshape(weight, &[a * b, kx, ky, kz, 1])?;
    if sub > 1 {
        blocked = space_to_depth(graph, blocked, geometry.stride, [0; 3], taps)?;
    }
    let blocked = graph.reshape(blocked, &extents)?;
    permute(graph, blocked, &order)
}

/// A convolution without strides: a linear layer where it has one tap.
fn convolution(
    graph: &mut Graph,
    x: TensorId,
    weight: TensorId,
    bias: Option<TensorId>,
    kernel: [usize; 3],
    padding: Padding,
) -> Result<TensorId> {
    if kernel == [1; 3] && padding == [[0; 2]; 3] {
        let rows = graph.shape(weight)[..2].to_vec();
        let weight = graph.reshape(weight, &rows)?;
        return linear(graph, x, weight, bias, false);
    }
    in_parts(graph, x, weight, bias, Conv3d { kernel, padding, bias: bias.is_some() }, MOST_WEIGHTS)
}

/// Elements of a weight, at most: kernels keep it whole, in an image on some adapters.
const MOST_WEIGHTS: usize = 1 << 23;

/// The convolution with a weight `[O, ..]`, by as many of its outputs at a time as have `most` elements of it.
fn in_parts(
    graph: &mut Graph,
    x: TensorId,
    weight: TensorId,
    bias: Option<TensorId>,
    conv: Conv3d,
    most: usize,
) -> Result<TensorId> {
    let shape = graph.shape(weight).to_vec();
    let (outputs, row): (usize, usize) = (shape[0], shape[1..].iter().product());
    let part = (most / row.max(1)).clamp(1, outputs.max(1));
    let mut parts = Vec::new();
    for start in (0..outputs).step_by(part) {
        let count = part.min(outputs - start);
        let (mut weight, mut bias) = (weight, bias);
        if count < outputs {
            let flat = graph.reshape(weight, &[1, outputs * row])?;
            let rows = slice(graph, flat, start * row, count * row)?;
            weight = graph.reshape(rows, &[&[count], &shape[1..]].concat())?;
            bias = bias.map(|bias| slice(graph, bias, start, count)).transpose()?;
        }
        let operands: Vec<TensorId> = [x, weight].into_iter().chain(bias).collect();
        parts.push(graph.push_one(Conv3d { ..conv }, &operands)?);
    }
    match parts.as_slice() {
        [one] => Ok(*one),
        several => concat(graph, several),
    }
}

/// Appends the convolution of `x [N, X, Y, Z, I]` with a weight `[O, I, kx, ky, kz]` and a bias `[O]` (torch `F.conv3d`), which
/// has `(before + X + after - kx) / stride + 1` voxels along x, rounded down, and so on.
///
/// # Errors
/// [`Error::Shape`] if the operands do not fit.
pub fn conv3d_with(
    graph: &mut Graph,
    x: TensorId,
    weight: TensorId,
    bias: Option<TensorId>,
    geometry: ConvGeometry,
) -> Result<TensorId> {
    let ConvGeometry { kernel, stride, padding } = geometry;
    let size = volume_size(graph, x, &geometry)?;
    if stride == [1; 3] {
        return convolution(graph, x, weight, bias, kernel, padding);
    }
    let padded = geometry.map(|axis| size[axis] + padding[axis][0] + padding[axis][1]);
    if (0..3).any(|axis| padded[axis] < kernel[axis]) {
        return Err(Error::Shape(format!("the kernel {kernel:?} is larger than the padded volume {padded:?}")));
    }
    let taps = geometry.taps();
    let blocks = geometry.map(|axis| (padded[axis] - kernel[axis]) / stride[axis] + taps[axis]);
    let before = padding.map(|[before, _]| before);
    let x = space_to_depth(graph, x, stride, before, blocks)?;
    let weight = blocked_weight(graph, weight, &geometry, [0, 3, 1, 2])?;
    let &[o, sub, i, _] = graph.shape(weight) else { return Ok(weight) };
    let weight = graph.reshape(weight, &[o, sub * i, taps[0], taps[1], taps[2]])?;
    convolution(graph, x, weight, bias, taps, [[0; 2]; 3])
}

/// Appends the transposed convolution of `x [N, X, Y, Z, I]` with a weight `[I, O, kx, ky, kz]` and a bias `[O]` (torch
/// `F.conv_transpose3d`), the adjoint of a convolution: it has `(X - 1) stride + kx - before - after` voxels along x and so on.
///
/// # Errors
/// [`Error::Shape`] if the operands do not fit, or if more padding than `kernel - 1` would be cut off.
pub fn conv_transpose3d(
    graph: &mut Graph,
    x: TensorId,
    weight: TensorId,
    bias: Option<TensorId>,
    geometry: ConvGeometry,
) -> Result<TensorId> {
    let ConvGeometry { kernel, stride, padding } = geometry;
    let size = volume_size(graph, x, &geometry)?;
    if (0..3).any(|axis| padding[axis].iter().any(|&layers| layers >= kernel[axis])) {
        return Err(Error::Shape(format!("a kernel {kernel:?} takes less padding than it has taps, not {padding:?}")));
    }
    let (taps, all_taps) = (geometry.taps(), geometry.taps().iter().product());
    let mut weight = blocked_weight(graph, weight, &geometry, [3, 1, 0, 2])?;
    let &[sub, o, i, _] = graph.shape(weight) else { return Ok(weight) };
    if all_taps > 1 {
        let rows = graph.reshape(weight, &[sub * o * i, all_taps, 1])?;
        weight = graph.push_one(Flip, &[rows])?;
    }
    let weight = graph.reshape(weight, &[sub * o, i, taps[0], taps[1], taps[2]])?;
    let bias = bias.map(|bias| if sub > 1 { tile(graph, bias, sub) } else { Ok(bias) }).transpose()?;
    // Blocks that are left out as a whole are not computed.
    let around = [0, 1, 2].map(|axis| {
        let [before, after] = padding[axis];
        [taps[axis] - 1 - before / stride[axis], (kernel[axis] - 1 - after) / stride[axis]]
    });
    let y = convolution(graph, x, weight, bias, taps, around)?;
    if sub == 1 {
        return Ok(y);
    }
    let before = geometry.map(|axis| padding[axis][0] % stride[axis]);
    let full = geometry.map(|axis| (size[axis] - 1) * stride[axis] + kernel[axis]);
    let size = geometry.map(|axis| full[axis].saturating_sub(padding[axis][0] + padding[axis][1]));
    depth_to_space(graph, y, stride, before, size)
}

/// Cases of both for the self-test.
pub(super) fn cases() -> Vec<Case> {
    type Build = fn(&mut Graph, TensorId, TensorId, Option<TensorId>, ConvGeometry) -> Result<TensorId>;
    let case = |name: &str, build: Build, shape: [usize; 4], [i, o]: [usize; 2], geometry: ConvGeometry, bias: bool| {
        let ConvGeometry { kernel, stride, padding } = geometry;
        let name = format!("{name} {kernel:?} by {stride:?} {padding:?} {shape:?} {i}->{o}");
        let weight = if name.starts_with("conv_t") { [i, o] } else { [o, i] };
        Case::new(name, move |b| {
            let x = b.normal("x", &[&shape[..], &[i]].concat());
            let w = b.normal("weight", &[&weight[..], &kernel[..]].concat());
            let bias = bias.then(|| b.normal("bias", &[o]));
            Ok(vec![build(&mut b.graph, x, w, bias, geometry)?])
        })
    };
    let forward = |shape, channels, geometry, bias| case("conv3d", conv3d_with, shape, channels, geometry, bias);
    let transposed =
        |shape, channels, geometry, bias| case("conv_transpose3d", conv_transpose3d, shape, channels, geometry, bias);
    let strided =
        |kernel: usize, stride: usize, padding: usize| ConvGeometry::new([kernel; 3], [stride; 3], [padding; 3]);
    let asymmetric = ConvGeometry { kernel: [3, 4, 2], stride: [2, 2, 1], padding: [[1, 0], [2, 1], [0, 1]] };
    let along_x = ConvGeometry::new([2, 1, 1], [2, 1, 1], [0; 3]);
    vec![
        forward([2, 6, 4, 4], [4, 8], strided(4, 2, 1), true),
        forward([1, 5, 6, 3], [3, 5], asymmetric, false),
        // Kernel and stride are equal, so it is a linear layer; the last voxel has no result.
        forward([2, 5, 4, 3], [5, 4], along_x, true),
        transposed([2, 3, 2, 2], [8, 4], strided(4, 2, 1), true),
        transposed([1, 3, 2, 3], [5, 3], asymmetric, false),
        transposed([2, 3, 4, 2], [4, 5], along_x, true),
        transposed([1, 3, 2, 2], [6, 4], strided(2, 2, 0), true),
        transposed([1, 4, 3, 2], [4, 6], strided(3, 1, 1), true),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::TensorSpec;
    use crate::graph::interpret::{self, Values};
    use crate::rng::Rng;

    #[test]
    fn a_large_weight_is_taken_in_parts() {
        let mut graph = Graph::new();
        let x = graph.input("x", TensorSpec::f32(&[1, 2, 3, 2, 3]));
        let weight = graph.input("weight", TensorSpec::f32(&[5, 3, 2, 1, 2]));
        let bias = graph.input("bias", TensorSpec::f32(&[5]));
        let conv = || Conv3d { kernel: [2, 1, 2], padding: [[0, 1], [0, 0], [1, 0]], bias: true };
        let whole = in_parts(&mut graph, x, weight, Some(bias), conv(), 60).unwrap();
        let parts = in_parts(&mut graph, x, weight, Some(bias), conv(), 24).unwrap();
        let mut values = Values::default();
        for (id, seed) in [(x, 1), (weight, 2), (bias, 3)] {
            let mut rng = Rng::new(seed, 0);
            let elements = graph.tensor(id).spec.elements();
            values.set(&graph, id, (0..elements).map(|_| rng.uniform(-1.0, 1.0)).collect());
        }
        interpret::run(&graph, &mut values).unwrap();
        assert!(graph.nodes().len() > 3);
        assert_eq!(values.get(&graph, whole).unwrap(), values.get(&graph, parts).unwrap());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut graph = Graph::new();
        let x = graph.input("x", TensorSpec::f32(&[1, 2, 4, 4, 3]));
        let weight = graph.input("weight", TensorSpec::f32(&[3, 3, 4, 4, 4]));
        let refusal =
            |build: fn(&mut Graph, TensorId, TensorId, Option<TensorId>, ConvGeometry) -> Result<TensorId>,
             stride: usize,
             padding: usize| {
                let geometry = ConvGeometry::new([4; 3], [stride; 3], [padding; 3]);
                build(&mut graph.clone(), x, weight, None, geometry).unwrap_err().to_string()
            };
        assert!(refusal(conv3d_with, 2, 0).contains("larger than the padded volume [2, 4, 4]"));
        assert!(refusal(conv3d_with, 1, 0).contains("leave nothing of 2 voxels"));
        assert!(refusal(conv3d_with, 0, 1).contains("must be at least 1"));
        assert!(refusal(conv_transpose3d, 2, 4).contains("takes less padding than it has taps"));
    }
}
