//! How long reductions are split in two stages.

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
