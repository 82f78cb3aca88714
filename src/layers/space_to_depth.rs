//! Blocks of voxels as channels and back, with which a strided convolution is one without strides; and the taps of a kernel in
//! reverse order, for transposed ones.

use super::case::Case;
use super::common::expect;
use crate::Result;
use crate::graph::program::vector_width;
use crate::graph::{CpuTensor, Graph, Kernel, Node, Op, OpContext, Program, Slot, TensorId, TensorSpec};

/// `deep[n, block, (sub, c)] = volume[n, stride * block + sub - before, c]`, zero outside of the volume: each block of `stride`
/// voxels is channels, the sub-voxels in the order x, y, z. From a volume to its blocks (torch `F.pad` and `pixel_unshuffle`,
/// channels last), or from blocks to a volume, zero where there is no block (`pixel_shuffle` and a crop): each is the adjoint of
/// the other.
///
/// # Shapes
/// - the volume: `[N, ..size, C]`
/// - the blocks: `[N, ..blocks, sx*sy*sz*C]`
///
/// Saves nothing. The backward pass overwrites `d_x` by the op in the other direction.
///
/// # Errors
/// [`crate::Error::Shape`] if the operand has other extents, or one is 0.
#[derive(Debug, Clone)]
pub struct Rearrange {
    /// Voxels of a block along x, y, z.
    pub stride: [usize; 3],
    /// Voxels of the first block that lie before the volume.
    pub before: [usize; 3],
    /// Of the volume.
    pub size: [usize; 3],
    /// Blocks along x, y, z.
    pub blocks: [usize; 3],
    /// Whether the operand is the volume, and not the blocks.
    pub to_depth: bool,
}

/// How blocks lie in a volume.
struct Layout<'a> {
    op: &'a Rearrange,
    n: usize,
    /// Of a voxel.
    channels: usize,
}

/// `[N, X, Y, Z, C]` as N, the extents and C.
fn volume(spec: &TensorSpec) -> Result<(usize, [usize; 3], usize), String> {
    expect("x", spec, &spec.shape)?;
    match spec.shape[..] {
        [n, x, y, z, c] => Ok((n, [x, y, z], c)),
        _ => Err(format!("x is {spec} but must be [N, X, Y, Z, C]")),
    }
}

impl Layout<'_> {
    /// Elements of a frame of voxels and of blocks.
    fn frame_elements(&self) -> [usize; 2] {
        let of = |extents: [usize; 3]| extents.iter().product::<usize>() * self.channels;
        [of(self.op.size), of(self.op.blocks) * self.op.sub_voxels()]
    }

    /// Calls `f(element of the volume, element of the blocks)` for every pair.
    fn for_each_pair(&self, mut f: impl FnMut(usize, usize)) {
        let Rearrange { stride, before, size, blocks, .. } = *self.op;
        let place = |[ex, ey, ez]: [usize; 3], n: usize, [x, y, z]: [usize; 3]| ((n * ex + x) * ey + y) * ez + z;
        let voxels = size.iter().product::<usize>();
        for voxel in 0..self.n * voxels {
            let [_, y, z] = size;
            let position = [voxel / (y * z) % size[0], voxel / z % y, voxel % z];
            let shifted = [0, 1, 2].map(|axis| position[axis] + before[axis]);
            let block = [0, 1, 2].map(|axis| shifted[axis] / stride[axis]);
            let sub = [0, 1, 2].map(|axis| shifted[axis] % stride[axis]);
            if (0..3).all(|axis| block[axis] < blocks[axis]) {
                let block = place(blocks, voxel / voxels, block);
                let deep = block * self.op.sub_voxels() + place(stride, 0, sub);
                (0..self.channels).for_each(|c| f(voxel * self.channels + c, deep * self.channels + c));
            }
        }
    }
}

impl Rearrange {
    fn name(&self) -> &'static str {
        if self.to_depth { "space_to_depth" } else { "depth_to_space" }
    }

    fn sub_voxels(&self) -> usize {
        self.stride.iter().product()
    }

    fn layout(&self, x: &[usize]) -> Layout<'_> {
        let channels = if self.to_depth { x[4] } else { x[4] / self.sub_voxels() };
        Layout { op: self, n: x[0], channels }
    }
}

impl Op for Rearrange {
    fn name(&self) -> &'static str {
        self.name()
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [x] = inputs else { return Err("needs one operand".into()) };
        let (n, extents, channels) = volume(x)?;
        let (needed, (ax, ay, az), channels) = if self.to_depth {
            (self.size, self.blocks.into(), channels * self.sub_voxels())
        } else {
            if self.sub_voxels() == 0 || channels % self.sub_voxels() != 0 {
                return Err(format!("x has {channels} channels, which are no blocks of {:?} voxels", self.stride));
            }
            (self.blocks, self.size.into(), channels / self.sub_voxels())
        };
        if extents != needed {
            return Err(format!("x is {x}, but its extents must be {needed:?}"));
        }
        let y = TensorSpec::f32(&[n, ax, ay, az, channels]);
        expect("y", &y, &y.shape)?;
        Ok(vec![y])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let (x, mut y) = (inputs[0].data, vec![0.0; outputs[0].elements()]);
        self.layout(inputs[0].shape).for_each_pair(|voxel, deep| match self.to_depth {
            true => y[deep] = x[voxel],
            false => y[voxel] = x[deep],
        });
        vec![y]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let layout = self.layout(&context.inputs[0].shape);
        let width = vector_width(layout.channels);
        let [sx, sy, sz] = self.stride.map(|extent| extent as i64);
        let kernel = Kernel::new("space_to_depth.wgsl", self.name()).define("width", width as i64);
        let kernel = kernel.define("sx", sx).define("sy", sy).define("sz", sz);
        let [volume, blocks] = layout.frame_elements();
        let (from, to) = if self.to_depth { (volume, blocks) } else { (blocks, volume) };
        let mut program = Program::default();
        for window in context.windows(layout.n, &[from, to])? {
            let count = window.len() * to / width;
            let words =
                [&self.size[..], &[layout.channels / width], &self.blocks[..], &[count], &self.before[..]].concat();
            let operands = vec![context.input(0).window(&window, from), context.output(0).window(&window, to)];
            let words = words.into_iter().map(|word| word as u32).collect();
            program.dispatch(kernel.clone(), words, operands, context.grid_for(count));
        }
        Ok(program)
    }

    fn backward(
        &self,
        graph: &mut Graph,
        _: &Node,
        d_outputs: &[Option<TensorId>],
        needs: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        let Some(d_y) = d_outputs[0].filter(|_| needs[0]) else { return Ok(vec![None]) };
        let back = Rearrange { to_depth: !self.to_depth, ..self.clone() };
        Ok(vec![Some(graph.push_one(back, &[d_y])?)])
    }

    fn takes_half(&self, _: Slot) -> bool {
        true
    }

    fn flops(&self, _: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        0
    }
}

/// Appends the blocks of `x [N, X, Y, Z, C]`, each of `stride` voxels, with `before` voxels of the first before `x`.
///
/// # Errors
/// [`crate::Error::Shape`] if `x` is no volume, or an extent is 0.
pub fn space_to_depth(
    graph: &mut Graph,
    x: TensorId,
    stride: [usize; 3],
    before: [usize; 3],
    blocks: [usize; 3],
) -> Result<TensorId> {
    let size = extents(graph, x);
    graph.push_one(Rearrange { stride, before, size, blocks, to_depth: true }, &[x])
}

/// Appends the volume of extents `size` that the blocks `x [N, X', Y', Z', sx*sy*sz*C]` make, with `before` voxels of the first
/// before it.
///
/// # Errors
/// [`crate::Error::Shape`] if `x` is no volume of such channels, or an extent is 0.
pub fn depth_to_space(
    graph: &mut Graph,
    x: TensorId,
    stride: [usize; 3],
    before: [usize; 3],
    size: [usize; 3],
) -> Result<TensorId> {
    let blocks = extents(graph, x);
    graph.push_one(Rearrange { stride, before, size, blocks, to_depth: false }, &[x])
}

/// X, Y and Z of a volume; of anything else zeros, which the op refuses.
fn extents(graph: &Graph, x: TensorId) -> [usize; 3] {
    if let [_, x, y, z, _] = graph.shape(x) { [*x, *y, *z] } else { [0; 3] }
}

/// `y[r, t, c] = x[r, T - 1 - t, c]` (torch `x.flip(1)`), for tensors of a parameter's size.
///
/// # Shapes
/// - `x`, `y`: `[R, T, C]`
///
/// Saves nothing. The backward pass overwrites `d_x` by the same op.
///
/// # Errors
/// [`crate::Error::Shape`] if `x` has other than three axes.
#[derive(Debug)]
pub struct Flip;

impl Op for Flip {
    fn name(&self) -> &'static str {
        "flip"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [x] = inputs else { return Err("needs one operand".into()) };
        expect("x", x, &x.shape)?;
        if x.shape.len() != 3 {
            return Err(format!("x is {x} but must be [R, T, C]"));
        }
        Ok(vec![x.clone()])
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let (taps, channels) = (inputs[0].shape[1], inputs[0].shape[2]);
        let rows = inputs[0].data.chunks(taps * channels);
        vec![rows.flat_map(|row| row.chunks(channels).rev().flatten().copied()).collect()]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let x = &context.inputs[0];
        let (taps, channels) = (x.shape[1], x.shape[2]);
        let taps_in_fours = channels == 1 && taps.is_multiple_of(4);
        let width = if taps_in_fours { 4 } else { vector_width(channels) };
        let count = x.elements() / width;
        let (taps, channels) = if taps_in_fours { (taps / width, channels) } else { (taps, channels / width) };
        let words = [count, taps, channels].map(|word| word as u32);
        let mut program = Program::default();
        let operands = vec![context.input(0), context.output(0)];
        let kernel = Kernel::new("space_to_depth.wgsl", self.name())
            .define("width", width as i64)
            .define("taps_in_fours", taps_in_fours);
        program.dispatch(kernel, words.to_vec(), operands, context.grid_for(count));
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
        Ok(vec![Some(graph.push_one(Flip, &[d_y])?)])
    }

    fn flops(&self, _: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        0
    }
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    let to_depth = |x: [usize; 5], stride: [usize; 3], before: [usize; 3], blocks: [usize; 3]| {
        Case::new(format!("space_to_depth {x:?} by {stride:?}"), move |b| {
            let x = b.normal("x", &x);
            Ok(vec![space_to_depth(&mut b.graph, x, stride, before, blocks)?])
        })
    };
    let to_space = |x: [usize; 5], stride: [usize; 3], before: [usize; 3], size: [usize; 3]| {
        Case::new(format!("depth_to_space {x:?} by {stride:?}"), move |b| {
            let x = b.normal("x", &x);
            Ok(vec![depth_to_space(&mut b.graph, x, stride, before, size)?])
        })
    };
    let flip = |x: [usize; 3]| {
        Case::new(format!("flip {x:?}"), move |b| {
            let x = b.normal("x", &x);
            Ok(vec![b.graph.push_one(Flip, &[x])?])
        })
    };
    vec![
        to_depth([2, 4, 6, 2, 8], [2; 3], [0; 3], [2, 3, 1]),
        // Blocks reach beyond the volume on one side or the other, or end within it.
        to_depth([2, 5, 6, 3, 3], [2, 2, 1], [1, 0, 2], [3, 4, 3]),
        to_depth([1, 7, 4, 5, 4], [3, 2, 2], [2, 1, 0], [3, 2, 2]),
        to_depth([7, 4, 4, 2, 4], [2, 1, 1], [1, 0, 0], [3, 4, 2]).windowed(2_048),
        to_space([2, 2, 3, 1, 64], [2; 3], [0; 3], [4, 6, 2]),
        to_space([2, 3, 4, 3, 12], [2, 2, 1], [1, 0, 2], [5, 9, 2]),
        to_space([9, 2, 4, 2, 8], [2, 1, 1], [1, 0, 0], [3, 4, 2]).windowed(2_048),
        flip([7, 5, 3]),
        flip([5, 12, 1]),
        flip([3, 5, 8]),
    ]
}
