//! Which kernels attention runs, with which blocks, and in which pieces.
//!
//! Where subgroups are known to have eight lanes (CPU adapters), eight of them share a sequence and load it together; elsewhere, and
//! where a sequence has too few queries for that, each invocation loads for itself. Few long sequences with few queries are cut
//! into parts of their keys, whose results are merged.

use std::f32::consts::LOG2_E;
use std::ops::Range;

use super::dropout::Dropout;
use crate::Result;
use crate::graph::{Kernel, OpContext, Operand, Program, WORD_BYTES};
use crate::layers::reduce::{Chunks, sum_chunks};

/// Invocations that load together.
const LANES: usize = 8;

/// Fewest tokens of a sequence for which as many lanes do not idle too much.
const FEWEST: usize = 4;

/// Tokens that an invocation takes in one turn of its loop, and most of them where they are all.
const TILE: usize = 4;
const LONGEST_TILE: usize = 8;

/// Most tokens that one of several lanes owns.
const MOST_OWNED: usize = 8;

/// What a turn costs besides the work for each own token, in such tokens: loads of other tokens.
const TURN_COST: usize = 2;

/// Sums of products that an invocation makes at the same time.
const AT_ONCE: usize = 16;

/// Invocations that keep a device busy: a GPU, a CPU adapter.
const BUSY: usize = 1 << 15;
const BUSY_CPU: usize = 1 << 10;

/// Of rng, in pairs.
const SEED_WORDS: usize = 4;

/// Fewest keys that are worth an invocation of their own.
const SHORTEST_PART: usize = 64;

/// Widest vectors of channels, in which there may be several heads.
const WIDEST_GROUP: usize = 16;

/// Sequences that several lanes take one after the other, since a workgroup costs as much as a short one; workgroups that keep every
/// core busy; and most turns of loops, far below the number after which software Vulkan gives up.
const IN_TURN: usize = 16;
const WORKGROUPS: usize = 64;
const MOST_TURNS: usize = 1 << 14;

/// Sizes of the operands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extents {
    /// S.
    pub sequences: usize,
    /// Nq.
    pub queries: usize,
    /// N.
    pub keys: usize,
    /// C.
    pub channels: usize,
    pub heads: usize,
}

impl Extents {
    /// Channels of a head.
    pub fn width(&self) -> usize {
        self.channels / self.heads
    }

    /// `S heads Nq N`.
    pub fn weights(&self) -> u128 {
        [self.sequences, self.heads, self.queries, self.keys].into_iter().map(|extent| extent as u128).product()
    }

    /// Channels that are loaded at once, and heads of an invocation: as many as whole vectors of four have, if that is few.
    fn vectors(&self) -> (usize, usize) {
        let group = match self.width() % 4 {
            0 => 1,
            2 => 2,
            _ => 4,
        };
        if self.channels.is_multiple_of(4) && group * self.width() <= WIDEST_GROUP { (4, group) } else { (1, 1) }
    }
}

/// One of the passes, over the sequences of a window.
struct Pass<'a> {
    context: &'a OpContext<'a>,
    extents: &'a Extents,
    dropout: Option<&'a Dropout>,
    window: Range<usize>,
}

/// How a kernel's work is cut.
struct Cut {
    /// Invocations that load together.
    lanes: usize,
    /// Tokens of a sequence, each with an invocation that owns it, and how many one owns.
    tokens: usize,
    block: usize,
    /// Tokens that it walks over, and how many it takes in a turn.
    others: usize,
    tile: usize,
    /// Parts of the keys, and keys of each.
    parts: usize,
    part_keys: usize,
}

impl<'a> Pass<'a> {
    fn all(context: &'a OpContext, extents: &'a Extents, dropout: Option<&'a Dropout>) -> Result<Vec<Pass<'a>>> {
        let Extents { sequences, queries, keys, channels, heads } = *extents;
        let rows = heads * queries;
        let units = [queries * channels, keys * channels, rows, 2 * rows];
        let windows = context.windows(sequences, &units)?;
        Ok(windows.into_iter().map(|window| Pass { context, extents, dropout, window }).collect())
    }

    /// That of a kernel whose invocations own queries, and walk over keys.
    fn cut_queries(&self) -> Cut {
        let Extents { queries, keys, channels, heads, .. } = *self.extents;
        let cut = self.cut(queries, keys, |_| true);
        if cut.lanes > 1 {
            return cut;
        }
        let invocations = self.window.len() * queries * heads / self.extents.vectors().1;
        let busy = if self.context.limits.policy.for_cpu { BUSY_CPU } else { BUSY };
        let bytes = WORD_BYTES * self.window.len() * queries * channels.max(2 * heads);
        let fitting = self.context.limits.max_storage_binding_bytes / bytes;
        let parts = (busy / invocations).min(keys / SHORTEST_PART).min(fitting).max(1);
        let part_keys = keys.div_ceil(parts).next_multiple_of(TILE);
        Cut { parts: keys.div_ceil(part_keys), part_keys, ..cut }
    }

    /// That of one whose invocations own keys, and walk over queries.
    fn cut_keys(&self) -> Cut {
        // A block of random words serves four keys.
        let whole = |block: usize| self.dropout.is_none() || block == 1 || block.is_multiple_of(4);
        self.cut(self.extents.keys, self.extents.queries, whole)
    }

    /// That of one in which each has a query to itself.
    fn cut_rows(&self) -> Cut {
        let Extents { queries, keys, .. } = *self.extents;
        Cut { lanes: 1, tokens: queries, block: 1, others: keys, tile: TILE, parts: 1, part_keys: keys }
    }

    /// For invocations that own `tokens`, so many each that `fits`, and walk over `others`.
    fn cut(&self, tokens: usize, others: usize, fits: impl Fn(usize) -> bool) -> Cut {
        let limits = self.context.limits;
        let tile = if limits.policy.for_cpu && others <= LONGEST_TILE { others } else { TILE };
        let cut = Cut { tokens, others, tile, ..self.cut_rows() };
        if !limits.policy.for_cpu || limits.min_subgroup_lanes < LANES || self.extents.queries < FEWEST {
            return cut;
        }
        let cost = |block: usize| tokens.div_ceil(LANES * block) * (block + TURN_COST);
        let block = (1..=MOST_OWNED).filter(|&block| fits(block)).min_by_key(|&block| cost(block)).unwrap_or(1);
        Cut { lanes: LANES, block, ..cut }
    }

    fn dispatch(&self, program: &mut Program, kernel: Kernel, cut: &Cut, operands: Vec<Operand>) {
        let Extents { queries, keys, channels, heads, .. } = *self.extents;
        let (vector, group) = self.extents.vectors();
        // With dropout, as many as have a block of random words.
        let at_once = if self.dropout.is_some() { 4 } else { (AT_ONCE / cut.tile).max(1) };
        let kernel = kernel
            .define("width", self.extents.width() as i64)
            .define("group", group as i64)
            .define("vector", vector as i64)
            .define("lanes", cut.lanes as i64)
            .define("block", cut.block as i64)
            .define("tile", cut.tile as i64)
            .define("exact", cut.tile == cut.others)
            .define("at_once", at_once as i64)
            .define("aligned", keys.is_multiple_of(4))
            .define("dropout", self.dropout.is_some());
        let sequences = self.window.len();
        let groups = heads / group;
        let (in_turn, [x, y, _]) = if cut.lanes > 1 {
            let blocks = cut.tokens.div_ceil(cut.lanes * cut.block);
            let turns = cut.others.div_ceil(cut.tile);
            let wanted = (sequences * blocks * groups / WORKGROUPS).min(IN_TURN).min(MOST_TURNS / turns).max(1);
            let in_turn = wanted.max(sequences.div_ceil(self.context.limits.max_workgroups_per_dimension));
            (in_turn, [sequences.div_ceil(in_turn) as u32, blocks as u32, 1])
        } else {
            (1, self.context.grid_for(cut.parts * sequences * cut.tokens))
        };
        let scale = (self.extents.width() as f32).powf(-0.5);
        let sizes = [sequences, in_turn, queries, keys, heads, channels / vector, cut.parts, cut.part_keys];
        let mut words: Vec<u32> = sizes.into_iter().map(|word| word as u32).collect();
        words.extend([scale.to_bits(), (scale * LOG2_E).to_bits(), self.window.start as u32]);
        let dropout = |dropout: &Dropout| [dropout.stream, dropout.threshold(), (dropout.kept() as f32).to_bits()];
        words.extend(self.dropout.map_or([0; 3], dropout));
        program.dispatch(kernel, words, operands, [x, y, groups as u32]);
    }

    /// The window of an operand with so many tokens a sequence.
    fn tokens(&self, operand: Operand, tokens: usize) -> Operand {
        operand.window(&self.window, tokens * self.extents.channels)
    }

    /// The window of `lse`.
    fn rows(&self, operand: Operand) -> Operand {
        operand.window(&self.window, self.extents.heads * self.extents.queries)
    }

    /// Two numbers for each query of each head, in each of so many parts, and the words of rng.
    fn row_stats(&self, program: &mut Program, parts: usize) -> Operand {
        let elements = 2 * parts * self.window.len() * self.extents.heads * self.extents.queries + SEED_WORDS;
        Operand::scratch(program.scratch(elements), elements)
    }

    /// So many results of the size of `q`.
    fn partial(&self, program: &mut Program, parts: usize) -> Operand {
        let elements = parts * self.window.len() * self.extents.queries * self.extents.channels;
        Operand::scratch(program.scratch(elements), elements)
    }
}

/// Inputs q, k, v and, with dropout, rng; outputs y and lse.
pub(super) fn forward(context: &OpContext, extents: &Extents, dropout: Option<&Dropout>) -> Result<Program> {
    let mut program = Program::default();
    for pass in Pass::all(context, extents, dropout)? {
        let cut = pass.cut_queries();
        let [q, y] = [context.input(0), context.output(0)].map(|operand| pass.tokens(operand, extents.queries));
        let [k, v] = [1, 2].map(|i| pass.tokens(context.input(i), extents.keys));
        let lse = pass.rows(context.output(1));
        let rng = dropout.map(|_| context.input(3));
        let kernel = Kernel::new("attention.wgsl", "attention_forward").define("split", cut.parts > 1);
        if cut.parts == 1 {
            let operands = [q, k, v, y, lse].into_iter().chain(rng).collect();
            pass.dispatch(&mut program, kernel, &cut, operands);
            continue;
        }
        let part_y = pass.partial(&mut program, cut.parts);
        let part_stats = pass.row_stats(&mut program, cut.parts);
        let operands = [q, k, v, part_y.clone(), part_stats.clone()].into_iter().chain(rng).collect();
        pass.dispatch(&mut program, kernel, &cut, operands);
        let merge = Kernel::new("attention.wgsl", "attention_merge");
        let cut = Cut { parts: cut.parts, ..pass.cut_rows() };
        pass.dispatch(&mut program, merge, &cut, vec![part_y, part_stats, y, lse]);
    }
    Ok(program)
}

/// Inputs q, k, v, y, lse, d_y and, with dropout, rng; outputs d_q, d_k and d_v.
pub(super) fn backward(context: &OpContext, extents: &Extents, dropout: Option<&Dropout>) -> Result<Program> {
    let mut program = Program::default();
    for pass in Pass::all(context, extents, dropout)? {
        let [q, y, d_y] = [0, 3, 5].map(|i| pass.tokens(context.input(i), extents.queries));
        let [k, v] = [1, 2].map(|i| pass.tokens(context.input(i), extents.keys));
        let d_q = pass.tokens(context.output(0), extents.queries);
        let [d_k, d_v] = [1, 2].map(|i| pass.tokens(context.output(i), extents.keys));
        let row_stats = pass.row_stats(&mut program, 1);
        let rows = Kernel::new("attention.wgsl", "attention_backward_rows");
        let operands = [y, d_y.clone(), pass.rows(context.input(4)), row_stats.clone()].into_iter();
        let operands = operands.chain(dropout.map(|_| context.input(6))).collect();
        pass.dispatch(&mut program, rows, &pass.cut_rows(), operands);

        let inputs = [q, k, v, d_y, row_stats];
        let cut = pass.cut_queries();
        let is_single = extents.queries == 1;
        let kernel = Kernel::new("attention.wgsl", "attention_backward_queries").define("single", is_single);
        let part = if cut.parts > 1 { pass.partial(&mut program, cut.parts) } else { d_q.clone() };
        let mut operands = [&inputs[..], std::slice::from_ref(&part)].concat();
        if is_single {
            operands.extend([d_k.clone(), d_v.clone()]);
        }
        pass.dispatch(&mut program, kernel, &cut, operands);
        if cut.parts > 1 {
            let count = d_q.elements.len();
            let chunks = Chunks { chunks: cut.parts, stride: count, first: 0, target: 0, count, accumulate: false };
            sum_chunks(&mut program, context, chunks, part, d_q);
        }
        if !is_single {
            let kernel = Kernel::new("attention.wgsl", "attention_backward_keys");
            pass.dispatch(&mut program, kernel, &pass.cut_keys(), [&inputs[..], &[d_k, d_v]].concat());
        }
    }
    Ok(program)
}
