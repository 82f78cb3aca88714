//! Batched matrix products.

use super::case::Case;
use crate::Result;
use crate::graph::{CpuTensor, DType, Graph, Kernel, Node, Op, OpContext, Program, Slot, TensorId, TensorSpec};

/// Longest inner dimension: an invocation adds all of it.
const LONGEST_INNER: usize = 32_768;

/// Rows and columns of a workgroup's tile.
const TILE: usize = 64;

/// Most rows and columns of an invocation's block: with more it runs out of registers.
const MOST: usize = 8;

/// Appends [`Matmul`] of `a` and `b` as they are.
///
/// # Errors
/// [`crate::Error::Shape`] as [`Matmul`].
pub fn matmul(graph: &mut Graph, a: TensorId, b: TensorId) -> Result<TensorId> {
    graph.push_one(Matmul { transpose_a: false, transpose_b: false, scale: 1.0 }, &[a, b])
}

/// `y = scale * A B` for each matrix of a batch (torch `scale * torch.bmm(a, b)`), where A is `a` or its transpose, B `b` or its own.
///
/// # Shapes
/// - `a`: `[.., M, K]`, or `[.., K, M]` if transposed
/// - `b`: `[.., K, N]`, or `[.., N, K]` if transposed; with the leading extents of `a`
/// - `y`: `[.., M, N]`
///
/// Saves `a` and `b`. The backward pass overwrites `d_a` and `d_b`, products with other transposes.
///
/// # Errors
/// [`crate::Error::Shape`] if the extents do not match, one is 0, or K is more than 32,768.
#[derive(Debug, Clone, Copy)]
pub struct Matmul {
    /// `a` holds the transpose of A.
    pub transpose_a: bool,
    /// `b` holds the transpose of B.
    pub transpose_b: bool,
    /// What the products are multiplied by.
    pub scale: f32,
}

/// Extents of the products of a batch.
#[derive(Debug, Clone, Copy)]
struct Extents {
    batch: usize,
    m: usize,
    n: usize,
    k: usize,
}

/// How an operand's numbers are loaded: one or four at a time.
fn width(extent: usize) -> usize {
    if extent.is_multiple_of(4) { 4 } else { 1 }
}

/// Rows or columns of an invocation's block: what loads and computes least, in fours where they lie so `in_fours`.
fn block(extent: usize, in_fours: bool) -> usize {
    let sizes = (1..=MOST).filter(|size| !in_fours || size.is_multiple_of(4));
    // An invocation's loads cost as much as two more rows or columns would.
    sizes.min_by_key(|&size| (extent.div_ceil(size) * (size + 2), size)).unwrap_or(1)
}

impl Matmul {
    fn extents(&self, a: &[usize], b: &[usize]) -> Option<Extents> {
        let ([batch_a @ .., a0, a1], [batch_b @ .., b0, b1]) = (a, b) else { return None };
        let (m, k) = if self.transpose_a { (*a1, *a0) } else { (*a0, *a1) };
        let (n, inner) = if self.transpose_b { (*b0, *b1) } else { (*b1, *b0) };
        (batch_a == batch_b && inner == k).then(|| Extents { batch: batch_a.iter().product(), m, n, k })
    }

    /// Element `[row, inner]` of A.
    fn index_a(&self, e: &Extents, row: usize, inner: usize) -> usize {
        if self.transpose_a { inner * e.m + row } else { row * e.k + inner }
    }

    /// Element `[inner, column]` of B.
    fn index_b(&self, e: &Extents, inner: usize, column: usize) -> usize {
        if self.transpose_b { column * e.k + inner } else { inner * e.n + column }
    }

    /// The kernel for such extents, and the results of one of its invocations or, if it is the tiled one, workgroups.
    fn kernel(&self, context: &OpContext, e: &Extents) -> (Kernel, [usize; 2]) {
        let padded = e.m.next_multiple_of(TILE) * e.n.next_multiple_of(TILE);
        // A CPU adapter has no fast memory to share.
        let is_tiled = !context.limits.is_cpu && 3 * padded <= 4 * e.m * e.n;
        let (entry, size) = if is_tiled {
            ("matmul_tiled", [TILE, TILE])
        } else {
            let rows = block(e.m, self.transpose_a && e.m.is_multiple_of(4));
            ("matmul_blocked", [rows, block(e.n, e.n.is_multiple_of(4))])
        };
        let across = |extent: usize, size: usize| if size.is_multiple_of(4) { width(extent) } else { 1 };
        let a_width = if self.transpose_a { across(e.m, size[0]) } else { width(e.k) };
        let b_width = if self.transpose_b { width(e.k) } else { across(e.n, size[1]) };
        let kernel = Kernel::new("matmul.wgsl", entry)
            .define("transpose_a", self.transpose_a)
            .define("transpose_b", self.transpose_b)
            .define("a_width", a_width as i64)
            .define("b_width", b_width as i64)
            .define("y_width", across(e.n, size[1]) as i64);
        if is_tiled {
            return (kernel, size);
        }
        let has_vectors = !self.transpose_a || self.transpose_b;
        let step = if has_vectors { width(e.k) } else { 1 };
        (kernel.define("bm", size[0] as i64).define("bn", size[1] as i64).define("step", step as i64), size)
    }
}

impl Op for Matmul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn outputs(&self, inputs: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        let [a, b] = inputs else { return Err("needs 2 operands: a, b".into()) };
        if [a, b].iter().any(|operand| operand.dtype != DType::F32 || operand.elements() == 0) {
            return Err("needs f32 operands without an extent of 0".into());
        }
        let Some(Extents { m, n, k, .. }) = self.extents(&a.shape, &b.shape) else {
            let of = |transpose, axes: [&str; 2]| if transpose { [axes[1], axes[0]] } else { axes }.join(", ");
            let (a, b) = (of(self.transpose_a, ["M", "K"]), of(self.transpose_b, ["K", "N"]));
            return Err(format!("needs a [.., {a}] and b [.., {b}] with equal leading extents"));
        };
        if k > LONGEST_INNER {
            return Err(format!("adds at most {LONGEST_INNER} products, not {k}"));
        }
        Ok(vec![TensorSpec::f32(&[&a.shape[..a.shape.len() - 2], &[m, n]].concat())])
    }

    fn cpu(&self, inputs: &[CpuTensor], _: &[TensorSpec]) -> Vec<Vec<f64>> {
        let Some(e) = self.extents(inputs[0].shape, inputs[1].shape) else { return Vec::new() };
        let matrices = inputs[0].data.chunks(e.m * e.k).zip(inputs[1].data.chunks(e.k * e.n));
        let y = matrices.flat_map(|(a, b)| {
            let sum = move |row, column| -> f64 {
                (0..e.k).map(|inner| a[self.index_a(&e, row, inner)] * b[self.index_b(&e, inner, column)]).sum()
            };
            (0..e.m * e.n).map(move |i| f64::from(self.scale) * sum(i / e.n, i % e.n))
        });
        vec![y.collect()]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let mut program = Program::default();
        let Some(e) = self.extents(&context.inputs[0].shape, &context.inputs[1].shape) else { return Ok(program) };
        let (kernel, size) = self.kernel(context, &e);
        let units = [e.m * e.k, e.k * e.n, e.m * e.n];
        for window in context.windows(e.batch, &units)? {
            let mut words = [window.len(), e.m, e.n, e.k].map(|word| word as u32).to_vec();
            words.push(self.scale.to_bits());
            let tasks = window.len() * e.m.div_ceil(size[0]) * e.n.div_ceil(size[1]);
            let grid = if kernel.entry == "matmul_tiled" { context.grid(tasks) } else { context.grid_for(tasks) };
            let tensors = [context.input(0), context.input(1), context.output(0)].into_iter().zip(units);
            let operands = tensors.map(|(tensor, unit)| tensor.window(&window, unit)).collect();
            program.dispatch(kernel.clone(), words, operands, grid);
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
        let Some(d_y) = d_outputs[0] else { return Ok(vec![None; 2]) };
        let (a, b) = (node.inputs[0], node.inputs[1]);
        let product = |transpose_a, transpose_b| Matmul { transpose_a, transpose_b, scale: self.scale };
        // dA = dY B^T and dB = A^T dY, or their transposes.
        let d_a = match (needs[0], self.transpose_a) {
            (false, _) => None,
            (true, false) => Some(graph.push_one(product(false, !self.transpose_b), &[d_y, b])?),
            (true, true) => Some(graph.push_one(product(self.transpose_b, true), &[b, d_y])?),
        };
        let d_b = match (needs[1], self.transpose_b) {
            (false, _) => None,
            (true, false) => Some(graph.push_one(product(!self.transpose_a, false), &[a, d_y])?),
            (true, true) => Some(graph.push_one(product(true, self.transpose_a), &[d_y, a])?),
        };
        Ok(vec![d_a, d_b])
    }

    fn takes_half(&self, _: Slot) -> bool {
        true
    }

    fn flops(&self, inputs: &[TensorSpec], outputs: &[TensorSpec]) -> u64 {
        let inner = inputs[0].shape[inputs[0].shape.len() - if self.transpose_a { 2 } else { 1 }];
        2 * outputs[0].elements() as u64 * inner as u64
    }
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    let case = |batch: &'static [usize], [m, k, n]: [usize; 3], transposed: [bool; 2]| {
        let op = Matmul { transpose_a: transposed[0], transpose_b: transposed[1], scale: 0.125 };
        let marks = transposed.map(|transposed| if transposed { "^T" } else { "" });
        Case::new(format!("matmul {batch:?} {m}x{k}{} {k}x{n}{}", marks[0], marks[1]), move |b| {
            let a = if op.transpose_a { [k, m] } else { [m, k] };
            let other = if op.transpose_b { [n, k] } else { [k, n] };
            let x = [b.normal("a", &[batch, &a].concat()), b.normal("b", &[batch, &other].concat())];
            Ok(vec![b.graph.push_one(op, &x)?])
        })
    };
    // Attention of few and of many tokens, tiles with and without rests, vectors along every axis and none; backward passes
    // take other transposes.
    vec![
        case(&[3, 11], [5, 8, 5], [false, true]),
        case(&[7], [13, 7, 9], [false, false]),
        case(&[7], [13, 7, 9], [true, true]),
        case(&[5], [12, 24, 20], [false, false]),
        case(&[5], [12, 24, 20], [true, true]),
        case(&[2], [65, 16, 68], [true, false]),
        case(&[1, 2], [126, 33, 122], [false, false]),
        case(&[2], [61, 34, 63], [true, true]),
        case(&[307], [5, 8, 7], [false, true]).windowed(30_000),
        case(&[5], [64, 36, 64], [true, false]).windowed(60_000),
        case(&[], [1, 3000, 2], [false, false]),
    ]
}
