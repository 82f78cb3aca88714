//! Blocks of voxels as channels and back, with which a strided convolution is one without strides; and the taps of a kernel in
//! reverse order, for transposed ones.

use super::case::Case;
use super::common::expect;
use crate::Result;
use crate::graph::{CpuTensor, Graph, Kernel, Node, Op, OpContext, Program, Slot, TensorId, TensorSpec};

/// `y[n, block, (sub, c)] = x[n, stride * block + sub - before, c]`, zero outside of `x`: each block of `stride` voxels becomes
/// channels, the sub-voxels in the order x, y, z (torch `F.pad` and `pixel_unshuffle`, channels last).
///
/// # Shapes
/// - `x`: `[N, X, Y, Z, C]`
/// - `y`: `[N, ..blocks, sx*sy*sz*C]`
///
/// Saves nothing. The backward pass overwrites `d_x` by [`DepthToSpace`].
///
/// # Errors
/// [`crate::Error::Shape`] if `x` is no volume, or an extent is 0.
#[derive(Debug, Clone)]
pub struct SpaceToDepth {
    /// Voxels of a block along x, y, z.
    pub stride: [usize; 3],
    /// Voxels of the first block that lie before `x`.
    pub before: [usize; 3],
    /// Blocks along x, y, z.
    pub blocks: [usize; 3],
}

/// `y[n, voxel, c] = x[n, block, (sub, c)]` with `voxel + before = stride * block + sub`, zero outside of `x`: the adjoint of
/// [`SpaceToDepth`] (torch `pixel_shuffle` and a crop, channels last).
///
/// # Shapes
/// - `x`: `[N, X', Y', Z', sx*sy*sz*C]`
/// - `y`: `[N, ..size, C]`
///
/// Saves nothing. The backward pass overwrites `d_x` by [`SpaceToDepth`].
///
/// # Errors
/// [`crate::Error::Shape`] if `x` is no volume of such channels, or an extent is 0.
#[derive(Debug, Clone)]
pub struct DepthToSpace {
    /// Voxels of a block along x, y, z.
    pub stride: [usize; 3],
    /// Voxels of the first block that lie before `y`.
    pub before: [usize; 3],
    /// X, Y, Z of `y`.
    pub size: [usize; 3],
}

/// How blocks lie in a volume.
struct Layout {
    n: usize,
    stride: [usize; 3],
    before: [usize; 3],
    size: [usize; 3],
    blocks: [usize; 3],
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

impl Layout {
    /// Elements of a frame of voxels and of blocks.
    fn frame_elements(&self) -> [usize; 2] {
        let of = |extents: [usize; 3]| extents.iter().product::<usize>() * self.channels;
        [of(self.size), of(self.blocks) * self.stride.iter().product::<usize>()]
    }

    /// Calls `f(element of the volume, element of the blocks)` for every pair.
    fn for_each_pair(&self, mut f: impl FnMut(usize, usize)) {
        let place = |[ex, ey, ez]: [usize; 3], n: usize, [x, y, z]: [usize; 3]| ((n * ex + x) * ey + y) * ez + z;
        let voxels = self.size.iter().product::<usize>();
        for voxel in 0..self.n * voxels {
            let [_, y, z] = self.size;
            let position = [voxel / (y * z) % self.size[0], voxel / z % y, voxel % z];
            let shifted = [0, 1, 2].map(|axis| position[axis] + self.before[axis]);
            let block = [0, 1, 2].map(|axis| shifted[axis] / self.stride[axis]);
            let sub = [0, 1, 2].map(|axis| shifted[axis] % self.stride[axis]);
            if (0..3).all(|axis| block[axis] < self.blocks[axis]) {
                let block = place(self.blocks, voxel / voxels, block);
                let deep = block * self.stride.iter().product::<usize>() + place(self.stride, 0, sub);
                (0..self.channels).for_each(|c| f(voxel * self.channels + c, deep * self.channels + c));
            }
        }
    }

    /// The launches of `entry`, from the op's input to its output; its result is the blocks if `to_blocks`, or else the volume.
    fn program(&self, context: &OpContext, entry: &'static str, to_blocks: bool) -> Result<Program> {
        let width = if self.channels.is_multiple_of(4) { 4 } else { 1 };
        let [sx, sy, sz] = self.stride.map(|extent| extent as i64);
        let kernel = Kernel::new("space_to_depth.wgsl", entry).define("width", width as i64);
        let kernel = kernel.define("sx", sx).define("sy", sy).define("sz", sz);
        let frames = self.frame_elements();
        let (from, to) = if to_blocks { (frames[0], frames[1]) } else { (frames[1], frames[0]) };
        let mut program = Program::default();
        for window in context.windows(self.n, &[from, to])? {
            let count = window.len() * to / width;
            let [size, blocks, before] = [self.size, self.blocks, self.before];
            let words = [&size[..], &[self.channels / width], &blocks[..], &[count], &before[..]].concat();
            let operands = vec![context.input(0).window(&window, from), context.output(0).window(&window, to)];
            let words = words.into_iter().map(|word| word as u32).collect();
            program.dispatch(kernel.clone(), words, operands, context.grid_for(count));
        }
        Ok(program)
    }
}

impl SpaceToDepth {
    fn layout(&self, x: &[usize]) -> Layout {
        let SpaceToDepth { stride, before, blocks } = *self;
        Layout { n: x[0], stride, before, size: [x[1], x[2], x[3]], blocks, channels: x[4] }
    }
}

impl Op for SpaceToDepth {
    fn name(&self) -> &'static str {
        "space_to_depth"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [x] = inputs else { return Err("needs one operand".into()) };
        let (n, _, c) = volume(x)?;
        let [bx, by, bz] = self.blocks;
        let y = TensorSpec::f32(&[n, bx, by, bz, self.stride.iter().product::<usize>() * c]);
        expect("y", &y, &y.shape)?;
        Ok(vec![y])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let mut y = vec![0.0; outputs[0].elements()];
        self.layout(inputs[0].shape).for_each_pair(|voxel, deep| y[deep] = inputs[0].data[voxel]);
        vec![y]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        self.layout(&context.inputs[0].shape).program(context, self.name(), true)
    }

    fn backward(
        &self,
        graph: &mut Graph,
        node: &Node,
        d_outputs: &[Option<TensorId>],
        needs: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        let Some(d_y) = d_outputs[0].filter(|_| needs[0]) else { return Ok(vec![None]) };
        let size = self.layout(graph.shape(node.inputs[0])).size;
        Ok(vec![Some(depth_to_space(graph, d_y, DepthToSpace { stride: self.stride, before: self.before, size })?)])
    }

    fn takes_half(&self, _: Slot) -> bool {
        true
    }

    fn flops(&self, _: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        0
    }
}

impl DepthToSpace {
    fn layout(&self, x: &[usize]) -> Layout {
        let DepthToSpace { stride, before, size } = *self;
        let channels = x[4] / stride.iter().product::<usize>();
        Layout { n: x[0], stride, before, size, blocks: [x[1], x[2], x[3]], channels }
    }
}

impl Op for DepthToSpace {
    fn name(&self) -> &'static str {
        "depth_to_space"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [x] = inputs else { return Err("needs one operand".into()) };
        let (n, _, deep) = volume(x)?;
        let ([sx, sy, sz], voxels) = (self.size, self.stride.iter().product::<usize>());
        if voxels == 0 || deep % voxels != 0 {
            return Err(format!("x has {deep} channels, which are no blocks of {:?} voxels", self.stride));
        }
        let y = TensorSpec::f32(&[n, sx, sy, sz, deep / voxels]);
        expect("y", &y, &y.shape)?;
        Ok(vec![y])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let mut y = vec![0.0; outputs[0].elements()];
        self.layout(inputs[0].shape).for_each_pair(|voxel, deep| y[voxel] = inputs[0].data[deep]);
        vec![y]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        self.layout(&context.inputs[0].shape).program(context, self.name(), false)
    }

    fn backward(
        &self,
        graph: &mut Graph,
        node: &Node,
        d_outputs: &[Option<TensorId>],
        needs: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        let Some(d_y) = d_outputs[0].filter(|_| needs[0]) else { return Ok(vec![None]) };
        let blocks = self.layout(graph.shape(node.inputs[0])).blocks;
        Ok(vec![Some(space_to_depth(graph, d_y, SpaceToDepth { stride: self.stride, before: self.before, blocks })?)])
    }

    fn takes_half(&self, _: Slot) -> bool {
        true
    }

    fn flops(&self, _: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        0
    }
}

/// Appends [`SpaceToDepth`] to `graph`.
///
/// # Errors
/// [`crate::Error::Shape`] if `x` is no volume, or an extent is 0.
pub fn space_to_depth(graph: &mut Graph, x: TensorId, op: SpaceToDepth) -> Result<TensorId> {
    graph.push_one(op, &[x])
}

/// Appends [`DepthToSpace`] to `graph`.
///
/// # Errors
/// [`crate::Error::Shape`] if `x` is no volume of such channels, or an extent is 0.
pub fn depth_to_space(graph: &mut Graph, x: TensorId, op: DepthToSpace) -> Result<TensorId> {
    graph.push_one(op, &[x])
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
        let count = x.elements();
        let words = [count, x.shape[1], x.shape[2]].map(|word| word as u32);
        let mut program = Program::default();
        let operands = vec![context.input(0), context.output(0)];
        let kernel = Kernel::new("space_to_depth.wgsl", self.name());
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
            Ok(vec![space_to_depth(&mut b.graph, x, SpaceToDepth { stride, before, blocks })?])
        })
    };
    let to_space = |x: [usize; 5], stride: [usize; 3], before: [usize; 3], size: [usize; 3]| {
        Case::new(format!("depth_to_space {x:?} by {stride:?}"), move |b| {
            let x = b.normal("x", &x);
            Ok(vec![depth_to_space(&mut b.graph, x, DepthToSpace { stride, before, size })?])
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
        Case::new("flip", |b| {
            let x = b.normal("x", &[7, 5, 3]);
            Ok(vec![b.graph.push_one(Flip, &[x])?])
        }),
    ]
}
