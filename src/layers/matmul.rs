//! Batched matrix products.

use super::case::Case;
use crate::Result;
use crate::graph::program::vector_width;
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
    graph.push_one(Matmul::default(), &[a, b])
}

/// `y = scale * A B` for each matrix of a batch (torch `scale * torch.bmm(a, b)`), where A is `a` or its transpose, B `b` or its own.
///
/// # Shapes
/// - `a`: `[.., M, K]`, or `[.., K, M]` if transposed
/// - `b`: `[.., K, N]`, or `[.., N, K]` if transposed; with the leading extents of `a`
/// - `y`: `[.., M, N]`
///
/// Of operands and results that are `beside`, the rows of the `heads` matrices of a group lie one after the other, as attention's
/// heads do: `y` is `[.., M, heads N]` then, and `a` and `b` accordingly. Of others the last leading extent is `heads`, if that is
/// not 1.
///
/// Saves `a` and `b`. The backward pass overwrites `d_a` and `d_b`, products with other transposes.
///
/// # Errors
/// [`crate::Error::Shape`] if the extents do not match, one is 0, or K is more than 32,768.
#[derive(Debug, Clone)]
pub struct Matmul {
    /// `a` holds the transpose of A.
    pub transpose_a: bool,
    /// `b` holds the transpose of B.
    pub transpose_b: bool,
    /// What the products are multiplied by.
    pub scale: f32,
    /// Matrices of a group.
    pub heads: usize,
    /// Whether those of `a`, `b` and `y` lie side by side.
    pub beside: [bool; 3],
}

impl Default for Matmul {
    /// `y = A B` of matrices one after the other.
    fn default() -> Self {
        Matmul { transpose_a: false, transpose_b: false, scale: 1.0, heads: 1, beside: [false; 3] }
    }
}

/// Extents of the products of a batch, which are in groups of `heads`.
#[derive(Debug, Clone, Copy)]
struct Extents {
    groups: usize,
    heads: usize,
    m: usize,
    n: usize,
    k: usize,
}

/// How the matrices of an operand lie.
#[derive(Debug, Clone, Copy)]
struct Lie {
    /// From one group to the next, from one matrix to the next, from one row to the next.
    group: usize,
    head: usize,
    row: usize,
}

/// Rows or columns of an invocation's block: what loads and computes least, in fours where they lie so `in_fours`.
fn block(extent: usize, in_fours: bool) -> usize {
    let sizes = (1..=MOST).filter(|size| !in_fours || size.is_multiple_of(4));
    // An invocation's loads cost as much as two more rows or columns would.
    sizes.min_by_key(|&size| (extent.div_ceil(size) * (size + 2), size)).unwrap_or(1)
}

impl Matmul {
    /// Leading extents, and the rows and columns of one matrix, of the operand `i` of this shape.
    fn matrix<'a>(&self, i: usize, shape: &'a [usize]) -> Option<(&'a [usize], usize, usize)> {
        let [leading @ .., rows, columns] = shape else { return None };
        if self.heads == 1 {
            Some((leading, *rows, *columns))
        } else if self.beside[i] {
            columns.is_multiple_of(self.heads).then(|| (leading, *rows, columns / self.heads))
        } else {
            leading.strip_suffix(&[self.heads]).map(|groups| (groups, *rows, *columns))
        }
    }

    fn extents(&self, a: &[usize], b: &[usize]) -> Option<Extents> {
        let ((groups_a, a0, a1), (groups_b, b0, b1)) = (self.matrix(0, a)?, self.matrix(1, b)?);
        let (m, k) = if self.transpose_a { (a1, a0) } else { (a0, a1) };
        let (n, inner) = if self.transpose_b { (b0, b1) } else { (b1, b0) };
        let groups = groups_a.iter().product();
        (groups_a == groups_b && inner == k).then_some(Extents { groups, heads: self.heads, m, n, k })
    }

    /// How operands and results lie.
    fn lies(&self, e: &Extents) -> [Lie; 3] {
        let a = if self.transpose_a { [e.k, e.m] } else { [e.m, e.k] };
        let b = if self.transpose_b { [e.n, e.k] } else { [e.k, e.n] };
        let lie = |i: usize, [rows, columns]: [usize; 2]| {
            let (head, row) = if self.beside[i] { (columns, e.heads * columns) } else { (rows * columns, columns) };
            Lie { group: e.heads * rows * columns, head, row }
        };
        [lie(0, a), lie(1, b), lie(2, [e.m, e.n])]
    }

    /// The kernel for such extents, and the results of one of its invocations or, if it is the tiled one, workgroups.
    fn kernel(&self, context: &OpContext, e: &Extents) -> (Kernel, [usize; 2]) {
        let padded = e.m.next_multiple_of(TILE) * e.n.next_multiple_of(TILE);
        // A CPU adapter has no fast memory to share.
        let is_tiled = !context.limits.policy.for_cpu && 3 * padded <= 4 * e.m * e.n;
        let (entry, size) = if is_tiled {
            ("matmul_tiled", [TILE, TILE])
        } else {
            let rows = block(e.m, self.transpose_a && e.m.is_multiple_of(4));
            ("matmul_blocked", [rows, block(e.n, e.n.is_multiple_of(4))])
        };
        let across = |extent: usize, size: usize| if size.is_multiple_of(4) { vector_width(extent) } else { 1 };
        let a_width = if self.transpose_a { across(e.m, size[0]) } else { vector_width(e.k) };
        let b_width = if self.transpose_b { vector_width(e.k) } else { across(e.n, size[1]) };
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
        let step = if has_vectors { vector_width(e.k) } else { 1 };
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
            let heads = if self.heads == 1 { String::new() } else { format!(", in {} heads", self.heads) };
            return Err(format!("needs a [.., {a}] and b [.., {b}] with equal leading extents{heads}"));
        };
        if k > LONGEST_INNER {
            return Err(format!("adds at most {LONGEST_INNER} products, not {k}"));
        }
        let groups = self.matrix(0, &a.shape).map_or(&[][..], |(groups, ..)| groups);
        let matrices = match (self.heads, self.beside[2]) {
            (1, _) => vec![m, n],
            (heads, true) => vec![m, heads * n],
            (heads, false) => vec![heads, m, n],
        };
        Ok(vec![TensorSpec::f32(&[groups, &matrices].concat())])
    }

    fn cpu(&self, inputs: &[CpuTensor], outputs: &[TensorSpec]) -> Vec<Vec<f64>> {
        let Some(e) = self.extents(inputs[0].shape, inputs[1].shape) else { return Vec::new() };
        let lies = self.lies(&e);
        let mut y = vec![0.0; outputs[0].elements()];
        for (group, head) in (0..e.groups * e.heads).map(|product| (product / e.heads, product % e.heads)) {
            let at = |i: usize, row: usize, column: usize| {
                group * lies[i].group + head * lies[i].head + row * lies[i].row + column
            };
            let a = |row, inner| inputs[0].data[if self.transpose_a { at(0, inner, row) } else { at(0, row, inner) }];
            let b = |inner, column| {
                inputs[1].data[if self.transpose_b { at(1, column, inner) } else { at(1, inner, column) }]
            };
            for (row, column) in (0..e.m * e.n).map(|i| (i / e.n, i % e.n)) {
                let sum: f64 = (0..e.k).map(|inner| a(row, inner) * b(inner, column)).sum();
                y[at(2, row, column)] = f64::from(self.scale) * sum;
            }
        }
        vec![y]
    }

    fn program(&self, context: &OpContext) -> Result<Program> {
        let mut program = Program::default();
        let Some(e) = self.extents(&context.inputs[0].shape, &context.inputs[1].shape) else { return Ok(program) };
        let (kernel, size) = self.kernel(context, &e);
        let lies = self.lies(&e);
        let units = lies.map(|lie| lie.group);
        for window in context.windows(e.groups, &units)? {
            let products = window.len() * e.heads;
            let mut words = [products, e.m, e.n, e.k, e.heads].map(|word| word as u32).to_vec();
            words.push(self.scale.to_bits());
            words.extend(lies.iter().flat_map(|lie| [lie.group, lie.head, lie.row]).map(|step| step as u32));
            let tasks = products * e.m.div_ceil(size[0]) * e.n.div_ceil(size[1]);
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
        let [of_a, of_b, of_y] = self.beside;
        let product = |transpose_a, transpose_b, beside| Matmul { transpose_a, transpose_b, beside, ..self.clone() };
        // dA = dY B^T and dB = A^T dY, or their transposes.
        let d_a = match (needs[0], self.transpose_a) {
            (false, _) => None,
            (true, false) => Some(graph.push_one(product(false, !self.transpose_b, [of_y, of_b, of_a]), &[d_y, b])?),
            (true, true) => Some(graph.push_one(product(self.transpose_b, true, [of_b, of_y, of_a]), &[b, d_y])?),
        };
        let d_b = match (needs[1], self.transpose_b) {
            (false, _) => None,
            (true, false) => Some(graph.push_one(product(!self.transpose_a, false, [of_a, of_y, of_b]), &[a, d_y])?),
            (true, true) => Some(graph.push_one(product(true, self.transpose_a, [of_y, of_a, of_b]), &[d_y, a])?),
        };
        Ok(vec![d_a, d_b])
    }

    fn takes_half(&self, _: Slot) -> bool {
        true
    }

    fn flops(&self, inputs: &[TensorSpec], _: &[TensorSpec]) -> u64 {
        let extents = self.extents(&inputs[0].shape, &inputs[1].shape);
        extents.map_or(0, |e| 2 * (e.groups * e.heads * e.m * e.n * e.k) as u64)
    }
}

/// The layer's cases for the self-test.
pub fn cases() -> Vec<Case> {
    let case = |batch: &'static [usize], [m, k, n]: [usize; 3], transposed: [bool; 2]| {
        let [transpose_a, transpose_b] = transposed;
        let op = Matmul { transpose_a, transpose_b, scale: 0.125, ..Matmul::default() };
        let marks = transposed.map(|transposed| if transposed { "^T" } else { "" });
        Case::new(format!("matmul {batch:?} {m}x{k}{} {k}x{n}{}", marks[0], marks[1]), move |b| {
            let a = if op.transpose_a { [k, m] } else { [m, k] };
            let other = if op.transpose_b { [n, k] } else { [k, n] };
            let x = [b.normal("a", &[batch, &a].concat()), b.normal("b", &[batch, &other].concat())];
            Ok(vec![b.graph.push_one(op.clone(), &x)?])
        })
    };
    // Weights of attention, and what they attend to.
    let heads = |s: usize, queries: usize, keys: usize, heads: usize, width: usize| {
        Case::new(format!("matmul {s} x {queries} of {keys}, {heads} heads of {width}"), move |b| {
            let q = b.normal("q", &[s, queries, heads * width]);
            let k = b.normal("k", &[s, keys, heads * width]);
            let op = Matmul { transpose_b: true, heads, beside: [true, true, false], ..Matmul::default() };
            let scores = b.graph.push_one(op, &[q, k])?;
            let op = Matmul { heads, beside: [false, true, true], ..Matmul::default() };
            Ok(vec![b.graph.push_one(op, &[scores, k])?])
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
        heads(130, 5, 7, 3, 6).windowed(40_000),
        heads(3, 62, 64, 2, 36),
    ]
}
