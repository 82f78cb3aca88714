//! Reductions in two stages: how long the runs of the first are, and the kernel of the second.

use crate::graph::{Kernel, OpContext, Operand, Program};

/// Terms that an invocation adds even where fewer would do: below this a second stage costs more than it gains.
const SHORTEST_RUN: usize = 64;

/// Length of the runs in which `count` terms are added first; the runs' results are merged by a second launch.
///
/// Both stages stay near the square root of `count`, far below the 65,535 iterations at which some software drivers end an
/// invocation's loops without a word.
pub(crate) fn run_length(count: usize) -> usize {
    let runs = count.div_ceil(count.isqrt().max(SHORTEST_RUN)).max(1);
    count.div_ceil(runs).max(1)
}

/// Partial sums `[chunks, stride]` of which `count` columns from `offset` on are added up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunks {
    /// Number of partial sums of each column.
    pub chunks: usize,
    /// Elements from one chunk to the next.
    pub stride: usize,
    /// First column.
    pub first: usize,
    /// Where the first sum goes in the target.
    pub target: usize,
    /// Number of columns.
    pub count: usize,
    /// Adds to what `target` holds instead of overwriting it.
    pub accumulate: bool,
}

/// Appends `target[at + i] (+)= sum over chunks of partial[chunk, first + i]`: the second stage of a reduction.
pub(super) fn sum_chunks(
    program: &mut Program,
    context: &OpContext,
    chunks: Chunks,
    partial: Operand,
    target: Operand,
) {
    let Chunks { chunks: chunk_count, stride, first, target: at, count, accumulate } = chunks;
    let parameters = [count, chunk_count, stride, first, at, usize::from(accumulate)].map(|v| v as u32);
    let grid = context.grid_for(chunks.count);
    program.dispatch(Kernel::new("reduce.wgsl", "reduce_chunks"), parameters.to_vec(), vec![partial, target], grid);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_stages_are_short() {
        for count in [0, 1, 63, 64, 65, 129, 4096, 16_384, 131_072, 4_000_000] {
            let run = run_length(count);
            let runs = count.div_ceil(run);
            assert!(run <= 64.max(count.isqrt() + 1) && runs <= count.isqrt() + 1, "{count}: {runs} runs of {run}");
        }
    }
}
