//! Volumes of moving frames brought into one grid that stands still, and back.

mod poses;
#[cfg(test)]
mod tests;

use std::ops::Range;

use self::poses::{IDENTITY, POSES, Setting, TILTED, TUMBLED};
use super::case::Case;
use super::common::{FrameWindow, expect};
use crate::Result;
use crate::graph::program::vector_width;
use crate::graph::{CpuTensor, Graph, Kernel, Node, Op, OpContext, Operand, Program, Slot, TensorId, TensorSpec};

/// Numbers of a frame's motion: two maps of three rows of four.
pub const MOTION: usize = 24;

/// Numbers of one of its maps.
const MAP: usize = 12;

/// Most frames whose terms one invocation adds to the gradient of a still volume in a launch (`shaders/resample.wgsl`).
const MOST_FRAMES: usize = 64;

/// What [`only_seen`] takes from the score of a frame that never saw the place.
pub const UNSEEN: f64 = 16.0;

/// Which way a volume is brought, and so which of a frame's maps says where it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the grids of the frames into the canonical one, by the first map.
    ToCanonical,
    /// From the canonical grid into those of the frames, by the last map.
    ToFrames,
}

impl Direction {
    /// The map from cells of the result to places in the volume that is read.
    fn map(self, motion: &[f64], frame: usize) -> &[f64] {
        &motion[frame * MOTION + self.rows() * 4..][..MAP]
    }

    /// Its first row.
    fn rows(self) -> usize {
        match self {
            Direction::ToCanonical => 0,
            Direction::ToFrames => 3,
        }
    }
}

/// The place to which a map puts `cell`.
fn mapped(map: &[f64], cell: [usize; 3]) -> [f64; 3] {
    let [x, y, z] = cell.map(|at| at as f64);
    [0, 1, 2].map(|axis| {
        let row = &map[4 * axis..];
        row[0] * x + row[1] * y + row[2] * z + row[3]
    })
}

/// The cells of a volume of `size` next to `place`, with their weights.
fn cells_at(place: [f64; 3], size: [usize; 3]) -> impl Iterator<Item = (usize, f64)> {
    (0..8).filter_map(move |corner| {
        let (mut cell, mut weight) = (0, 1.0);
        for axis in 0..3 {
            let at = place[axis].floor() + f64::from(corner >> axis & 1);
            if !(0.0..size[axis] as f64).contains(&at) {
                return None;
            }
            cell = cell * size[axis] + at as usize;
            weight *= (1.0 - (place[axis] - at).abs()).max(0.0);
        }
        Some((cell, weight))
    })
}

fn cells(size: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    let [x, y, z] = size;
    (0..x * y * z).map(move |i| [i / (y * z), i / z % y, i % z])
}

/// The sizes of `y`, which is read from `x`.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    batch: usize,
    time: usize,
    channels: usize,
    /// Extents of `x` and of `y`.
    x: [usize; 3],
    y: [usize; 3],
    /// All frames read one volume of `x`.
    is_still: bool,
}

impl Sizes {
    fn new(x: &[usize], y: &[usize]) -> Result<Sizes, String> {
        match (x, y) {
            (&[batch, volumes, x_x, x_y, x_z, channels], &[_, time, y_x, y_y, y_z, _]) => {
                Ok(Sizes { batch, time, channels, x: [x_x, x_y, x_z], y: [y_x, y_y, y_z], is_still: volumes != time })
            }
            _ => Err(format!("{x:?} and {y:?} must be [B, T, X, Y, Z, C]")),
        }
    }

    /// Of `x`, `y` and the motion.
    fn specs(&self) -> [TensorSpec; 3] {
        let Sizes { batch, time, channels, .. } = *self;
        let volumes = if self.is_still { 1 } else { time };
        let shape = |frames: usize, [x, y, z]: [usize; 3]| TensorSpec::f32(&[batch, frames, x, y, z, channels]);
        [shape(volumes, self.x), shape(time, self.y), TensorSpec::f32(&[batch, time, MOTION])]
    }

    /// Elements of a frame of a tensor with these extents.
    fn frame(&self, size: [usize; 3]) -> usize {
        size.iter().product::<usize>() * self.channels
    }

    /// Calls `visit` with the rows of `x` and of `y` that belong together and the weight of the one in the other.
    fn for_each(&self, direction: Direction, motion: &[f64], mut visit: impl FnMut(Range<usize>, Range<usize>, f64)) {
        let (x_cells, y_cells) = (self.frame(self.x) / self.channels, self.frame(self.y) / self.channels);
        let row = |cell: usize| cell * self.channels..(cell + 1) * self.channels;
        for n in 0..self.batch * self.time {
            let volume = if self.is_still { n / self.time } else { n };
            for (i, cell) in cells(self.y).enumerate() {
                for (at, weight) in cells_at(mapped(direction.map(motion, n), cell), self.x) {
                    visit(row(volume * x_cells + at), row(n * y_cells + i), weight);
                }
            }
        }
    }

    /// Windows of frames of `y`, with those of `x` unless it is still.
    fn windows(&self, context: &OpContext) -> Result<Vec<FrameWindow>> {
        let units = [self.frame(self.y), self.frame(self.x)];
        let windows = context.windows(self.batch * self.time, &units[..if self.is_still { 1 } else { 2 }])?;
        Ok(windows.into_iter().map(|frames| FrameWindow::of(frames, self.time)).collect())
    }

    /// Appends a launch for the frames of `part`, which are among those of `y` from frame `bound` on that are bound, of `count`
    /// elements.
    fn dispatch(&self, program: &mut Program, context: &OpContext, launch: LaunchOf) {
        let LaunchOf { entry, direction, part, bound, count, operands } = launch;
        let width = vector_width(self.channels);
        // A place is as much work as some loads, which a CPU adapter has no faster from neighbours.
        let vectors = match self.channels / width {
            vectors if context.limits.policy.for_cpu => [4, 2].into_iter().find(|&n| vectors.is_multiple_of(n)),
            _ => None,
        };
        let vectors = vectors.unwrap_or(1);
        let taken = width * vectors;
        let mut words = part.words(self.time);
        for [x, y, z] in [self.x, self.y] {
            words.extend([x, y, z, 0].map(|extent| extent as u32));
        }
        words.extend([count / taken, self.channels / taken, direction.rows(), bound].map(|word| word as u32));
        let kernel = Kernel::new("resample.wgsl", entry)
            .define("width", width as i64)
            .define("vectors", vectors as i64)
            .define("still", self.is_still);
        program.dispatch(kernel, words, operands, context.grid_for(count / taken));
    }
}

/// One launch.
struct LaunchOf {
    entry: &'static str,
    direction: Direction,
    part: FrameWindow,
    bound: usize,
    count: usize,
    operands: Vec<Operand>,
}

/// `y[b,t,p] = sum over the cells q around u of max(0, 1 - |u - q|) x[b,t,q]`, the product of what is so along x, y and z, where
/// `u` is the place in `x` to which the frame's map puts cell `p`; cells outside of `x` count as zeros (torch `grid_sample` of
/// volumes with `align_corners=True`, in cells instead of -1..1).
///
/// # Shapes
/// - `x`: `[B, S, X, Y, Z, C]`, S being T, or 1 if all frames read the same volume
/// - `motion`: `[B, T, 24]`, for each frame two affine maps of cells, three rows of four numbers each: from the canonical grid to
///   places in the frame's, and back. Centres of cells have whole numbers.
/// - `y`: `[B, T, .., C]` with the extents of the op
///
/// Where a map puts a cell on a cell, `y` has the bits of `x` there. A map that is not finite puts all cells outside.
///
/// Saves `motion`, which has no gradient. The backward pass overwrites `d_x`, and looks for the cells that read one of `x` around
/// the place to which the frame's other map puts it. So `d_x` is exact as long as the maps are each other's inverse and, for
/// each row `A` of the other one, `|A_0| + |A_1| + |A_2|` is at most 3.99: for motions of rigid bodies as long as cells
/// are no flatter than 3/8 of their width, and flatter ones where the motion hardly tilts. Beyond that it lacks what comes from
/// cells of `y` farther than that along an axis.
///
/// # Errors
/// [`crate::Error::Shape`] if `x` has no such shape, `motion` does not fit it, or an extent is 0.
#[derive(Debug, Clone)]
pub struct Resample {
    /// Which of the maps is followed.
    pub direction: Direction,
    /// X, Y, Z of `y`.
    pub extents: [usize; 3],
}

/// Appends [`Resample`] to `graph` and returns `y`, with these `extents`.
///
/// # Errors
/// [`crate::Error::Shape`] as [`Resample`].
pub fn resample(
    graph: &mut Graph,
    x: TensorId,
    motion: TensorId,
    direction: Direction,
    extents: [usize; 3],
) -> Result<TensorId> {
    graph.push_one(Resample { direction, extents }, &[x, motion])
}

impl Op for Resample {
    fn name(&self) -> &'static str {
        "resample_forward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [x, motion] = inputs else { return Err("needs 2 operands: x, motion".to_owned()) };
        let (&[batch, volumes, .., channels], &[_, time, _]) = (&x.shape[..], &motion.shape[..]) else {
            return Err(format!("x is {x} and motion {motion} but must be [B, S, X, Y, Z, C] and [B, T, {MOTION}]"));
        };
        let [x_size, y_size, z_size] = self.extents;
        let sizes = Sizes::new(&x.shape, &[batch, time, x_size, y_size, z_size, channels])?;
        if volumes != time && volumes != 1 {
            return Err(format!("x has {volumes} volumes a sequence; for {time} frames it must have as many, or 1"));
        }
        if self.extents.contains(&0) {
            return Err(format!("extents {:?} wanted, but none may be 0", self.extents));
        }
        let [needed, y, needed_motion] = sizes.specs();
        expect("x", x, &needed.shape)?;
        expect("motion", motion, &needed_motion.shape)?;
        Ok(vec![y])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let mut y = vec![0.0; outputs[0].elements()];
        if let Ok(sizes) = Sizes::new(inputs[0].shape, &outputs[0].shape) {
            sizes.for_each(self.direction, inputs[1].data, |from, to, weight| {
                y[to].iter_mut().zip(&inputs[0].data[from]).for_each(|(y, x)| *y += weight * x);
            });
        }
        vec![y]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let sizes = Sizes::new(&context.inputs[0].shape, &context.outputs[0].shape).map_err(crate::Error::Shape)?;
        let frame = sizes.frame(sizes.y);
        let mut program = Program::default();
        for window in sizes.windows(context)? {
            let x = context.input(0);
            let x = if sizes.is_still { x } else { x.window(&window.frames, sizes.frame(sizes.x)) };
            let launch = LaunchOf {
                entry: self.name(),
                direction: self.direction,
                bound: window.frames.start,
                count: window.frames.len() * frame,
                operands: vec![x, context.output(0).window(&window.frames, frame), context.input(1)],
                part: window,
            };
            sizes.dispatch(&mut program, context, launch);
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
        let Some(d_y) = d_outputs[0].filter(|_| needs[0]) else { return Ok(vec![None; 2]) };
        let shape = graph.shape(node.inputs[0]).to_vec();
        let backward = ResampleBackward { direction: self.direction, shape };
        Ok(vec![Some(graph.push_one(backward, &[d_y, node.inputs[1]])?), None])
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(0) | Slot::Output(0))
    }

    fn flops(&self, _: &[TensorSpec], outputs: &[TensorSpec]) -> u64 {
        16 * outputs[0].elements() as u64
    }
}

/// `d_x[b,t,q] = sum over the cells p of d_y that read q, of the weight of q there * d_y[b,t,p]`, and over all frames in order
/// where they read one volume; from `d_y` and `motion`.
#[derive(Debug, Clone)]
pub struct ResampleBackward {
    /// That of the forward op.
    pub direction: Direction,
    /// The shape of `x`.
    pub shape: Vec<usize>,
}

impl Op for ResampleBackward {
    fn name(&self) -> &'static str {
        "resample_backward"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [d_y, motion] = inputs else { return Err("needs 2 operands: d_y, motion".to_owned()) };
        let [d_x, needed, needed_motion] = Sizes::new(&self.shape, &d_y.shape)?.specs();
        expect("d_y", d_y, &needed.shape)?;
        expect("motion", motion, &needed_motion.shape)?;
        if d_x.shape != self.shape {
            return Err(format!("x is {:?} but must be {d_x}", self.shape));
        }
        Ok(vec![d_x])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let mut d_x = vec![0.0; outputs[0].elements()];
        if let Ok(sizes) = Sizes::new(&outputs[0].shape, inputs[0].shape) {
            sizes.for_each(self.direction, inputs[1].data, |to, from, weight| {
                d_x[to].iter_mut().zip(&inputs[0].data[from]).for_each(|(d_x, d_y)| *d_x += weight * d_y);
            });
        }
        vec![d_x]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let sizes = Sizes::new(&context.outputs[0].shape, &context.inputs[0].shape).map_err(crate::Error::Shape)?;
        let (x_frame, y_frame) = (sizes.frame(sizes.x), sizes.frame(sizes.y));
        // A clip that is longer than an invocation can add up takes several launches.
        let most = if sizes.is_still && sizes.time > MOST_FRAMES { MOST_FRAMES } else { usize::MAX };
        let mut program = Program::default();
        for FrameWindow { frames, .. } in sizes.windows(context)? {
            for start in frames.clone().step_by(most.min(frames.len())) {
                let part = FrameWindow::of(start..frames.end.min(start.saturating_add(most)), sizes.time);
                let d_x = context.output(0);
                let (d_x, volumes) = if sizes.is_still {
                    (d_x, part.sequences.len())
                } else {
                    (d_x.window(&frames, x_frame), frames.len())
                };
                let launch = LaunchOf {
                    entry: self.name(),
                    direction: self.direction,
                    part,
                    bound: frames.start,
                    count: volumes * x_frame,
                    operands: vec![d_x, context.input(0).window(&frames, y_frame), context.input(1)],
                };
                sizes.dispatch(&mut program, context, launch);
            }
        }
        Ok(program)
    }

    fn takes_half(&self, operand: Slot) -> bool {
        // The sum over the frames of a still volume may take several launches.
        operand == Slot::Input(0) || operand == Slot::Output(0) && self.shape[1] > 1
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        16 * inputs[0].elements() as u64
    }
}

/// `y[b,t,p] = scores[b,t,p] - 16 (1 - w[b,t,p])`, where `w` is how much of cell `p` of the canonical grid frame t saw: the sum of
/// the weights in [`Resample`] of those cells around its place that lie inside the frame's grid. A softmax over t then
/// leaves out the frames that never saw the place.
///
/// # Shapes
/// - `scores`, `y`: `[B, T, U, V, W, C]` on the canonical grid
/// - `motion`: `[B, T, 24]` as that of [`Resample`]
///
/// Saves nothing; may overwrite `scores`. Where a frame saw all, `y` has the bits of `scores`. Their gradient is that of `y`;
/// `motion` has none.
///
/// # Errors
/// [`crate::Error::Shape`] if `scores` has no such shape, `motion` does not fit it, or an extent is 0.
#[derive(Debug, Clone)]
pub struct OnlySeen {
    /// X, Y, Z of the frames' grids.
    pub source_extents: [usize; 3],
}

/// Appends [`OnlySeen`] to `graph` and returns `y`, for frames of these extents.
///
/// # Errors
/// [`crate::Error::Shape`] as [`OnlySeen`].
pub fn only_seen(
    graph: &mut Graph,
    scores: TensorId,
    motion: TensorId,
    source_extents: [usize; 3],
) -> Result<TensorId> {
    graph.push_one(OnlySeen { source_extents }, &[scores, motion])
}

impl OnlySeen {
    /// Those of resampling volumes of the frames.
    fn sizes(&self, scores: &[usize]) -> Result<Sizes, String> {
        Ok(Sizes { x: self.source_extents, ..Sizes::new(scores, scores)? })
    }
}

impl Op for OnlySeen {
    fn name(&self) -> &'static str {
        "resample_only_seen"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [scores, motion] = inputs else { return Err("needs 2 operands: scores, motion".to_owned()) };
        let [_, y, needed] = self.sizes(&scores.shape)?.specs();
        expect("scores", scores, &y.shape)?;
        expect("motion", motion, &needed.shape)?;
        if self.source_extents.contains(&0) {
            return Err(format!("frames of {:?} cells given, but no extent may be 0", self.source_extents));
        }
        Ok(vec![y])
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let mut y = inputs[0].data.to_vec();
        if let Ok(sizes) = self.sizes(inputs[0].shape) {
            for (n, frame) in y.chunks_mut(sizes.frame(sizes.y)).enumerate() {
                let map = Direction::ToCanonical.map(inputs[1].data, n);
                for (cell, scores) in cells(sizes.y).zip(frame.chunks_mut(sizes.channels)) {
                    let seen: f64 = cells_at(mapped(map, cell), sizes.x).map(|(_, weight)| weight).sum();
                    scores.iter_mut().for_each(|score| *score -= UNSEEN * (1.0 - seen));
                }
            }
        }
        vec![y]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let sizes = self.sizes(&context.outputs[0].shape).map_err(crate::Error::Shape)?;
        let frame = sizes.frame(sizes.y);
        let mut program = Program::default();
        for frames in context.windows(sizes.batch * sizes.time, &[frame])? {
            let launch = LaunchOf {
                entry: self.name(),
                direction: Direction::ToCanonical,
                bound: frames.start,
                count: frames.len() * frame,
                operands: vec![
                    context.input(0).window(&frames, frame),
                    context.output(0).window(&frames, frame),
                    context.input(1),
                ],
                part: FrameWindow::of(frames, sizes.time),
            };
            sizes.dispatch(&mut program, context, launch);
        }
        Ok(program)
    }

    fn backward(
        &self,
        _: &mut Graph,
        _: &Node,
        d_outputs: &[Option<TensorId>],
        _: &[bool],
    ) -> Result<Vec<Option<TensorId>>> {
        Ok(vec![d_outputs[0], None])
    }

    fn in_place(&self) -> Option<(usize, usize)> {
        Some((0, 0))
    }

    fn takes_half(&self, operand: Slot) -> bool {
        matches!(operand, Slot::Input(0) | Slot::Output(0))
    }

    fn flops(&self, _: &[TensorSpec], outputs: &[TensorSpec]) -> u64 {
        2 * outputs[0].elements() as u64
    }
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    let cube = [1.0; 3];
    let flat = [1.0, 1.0, 0.5];
    let odd = Setting { batch: 2, channels: 3, canonical: [7, 6, 3], frame: [5, 4, 3], edges: cube, poses: &POSES };
    let four = Setting { channels: 4, canonical: [9, 8, 2], frame: [6, 7, 2], ..odd };
    let tilted =
        Setting { batch: 1, channels: 13, edges: flat, canonical: [6, 6, 5], frame: [6, 5, 4], poses: &TILTED };
    let tumbled = Setting { channels: 1, canonical: [5, 6, 9], frame: [5, 4, 10], poses: &TUMBLED, ..tilted };
    let windowed = Setting { channels: 32, canonical: [6, 4, 2], frame: [4, 3, 2], ..odd };
    let both = |name: &str, setting: Setting, is_still: bool| {
        [Direction::ToCanonical, Direction::ToFrames].map(|direction| {
            let whither = if direction == Direction::ToFrames { "back" } else { "there" };
            let volumes = if is_still { "one volume" } else { "volumes" };
            Case::new(format!("resample {name} {volumes} {whither}"), move |b| setting.resample(b, direction, is_still))
        })
    };
    let seen = |name: &str, setting: Setting| Case::new(format!("only_seen {name}"), move |b| setting.only_seen(b));
    let mut cases = Vec::new();
    for is_still in [false, true] {
        cases.extend(both("odd", odd, is_still));
        cases.extend(both("C=4", four, is_still));
        cases.extend(both("tilted", tilted, is_still));
        cases.extend(both("tumbled", tumbled, is_still));
        cases.extend(both("windows", windowed, is_still).map(|case| case.windowed(20_480)));
    }
    cases.push(Case::new("resample identity", move |b| {
        let setting = Setting { canonical: four.frame, channels: 8, poses: &[IDENTITY; 3], ..four };
        setting.resample(b, Direction::ToCanonical, false)
    }));
    cases.push(Case::new("resample many frames", move |b| {
        let setting =
            Setting { batch: 2, channels: 1, canonical: [2, 2, 1], frame: [3, 2, 1], poses: &[TILTED[2]; 70], ..odd };
        setting.resample(b, Direction::ToFrames, true)
    }));
    cases.push(Case::new("resample broken maps", move |b| {
        let x = b.normal("x", &[1, 4, 3, 3, 2, 4]);
        let mut values = IDENTITY.motion([3, 3, 2], [3, 3, 2], cube).repeat(4);
        values[5] = f64::NAN;
        values[MOTION + 3] = f64::INFINITY;
        values[2 * MOTION..][..MOTION].iter_mut().for_each(|value| *value *= 1e30);
        let motion = b.values("motion", &[1, 4, MOTION], values);
        let there = resample(&mut b.graph, x, motion, Direction::ToCanonical, [3, 3, 2])?;
        let scores = only_seen(&mut b.graph, x, motion, [3, 3, 2])?;
        Ok(vec![there, scores])
    }));
    cases.extend([
        seen("odd", odd),
        seen("tilted", tilted),
        seen("windows", windowed).windowed(20_480),
        seen("one channel", Setting { channels: 1, ..four }),
    ]);
    cases
}
