//! The roofline of an adapter: what it computes and moves at best, measured with our own kernels, and how close an op comes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::gpu::Context;
use crate::graph::execute::{Executor, Memory, OpProfile};
use crate::graph::plan::Plan;
use crate::graph::{Graph, TensorId, TensorSpec, WORD_BYTES};
use crate::layers::ceiling;
use crate::{Error, Result};

/// Each is timed again until that long after its first run, as a GPU takes its time to raise its clock; the fastest counts.
const WARM_UP: Duration = Duration::from_millis(500);
const TRIES: usize = 5;

/// The multiply-adds are timed once they take that long.
const LONG_ENOUGH_SECS: f64 = 0.02;

/// Rows of 64 elements: enough invocations for any GPU.
const ROWS: usize = 1 << 14;

/// Loop iterations at first and at most, and the factor between two attempts.
const ITERATIONS: (usize, usize) = (16, 1 << 14);
const GROWTH: usize = 8;

/// What is copied: more than any cache holds.
const COPIED_BYTES: usize = 128 << 20;

/// Rates that nothing on this adapter exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ceilings {
    /// Of f32 multiply-adds from registers, counted as two operations.
    pub flops_per_sec: f64,
    /// The same of the matrix units, if there are some.
    pub matrix_flops_per_sec: Option<f64>,
    /// Of a copy, bytes read and bytes written together.
    pub bytes_per_sec: f64,
}

impl Ceilings {
    /// Measures them.
    ///
    /// # Errors
    /// [`Error::Memory`] or [`Error::Device`] from the adapter.
    pub fn measure(context: &Arc<Context>) -> Result<Ceilings> {
        let flops_per_sec = computing(context, ceiling::multiply_add)?;
        let has_units = context.limits().has_matrix_units;
        let matrix_flops_per_sec = has_units.then(|| computing(context, ceiling::multiply_matrices)).transpose()?;
        let limits = context.limits();
        let bytes = COPIED_BYTES.min(limits.max_storage_binding_bytes).min(limits.max_buffer_bytes / 2);
        let (secs, op) = fastest(context, bytes / (ceiling::ROW * WORD_BYTES), ceiling::copy)?;
        Ok(Ceilings { flops_per_sec, matrix_flops_per_sec, bytes_per_sec: op.bytes as f64 / secs })
    }

    /// Fewest seconds in which this adapter can compute `flops`, on its matrix units or not, and move `bytes`, and whether
    /// computing takes longer.
    pub fn least_secs(&self, flops: u64, on_matrix_units: bool, bytes: u64) -> (f64, bool) {
        let flops_per_sec = self.matrix_flops_per_sec.filter(|_| on_matrix_units).unwrap_or(self.flops_per_sec);
        let (computing, moving) = (flops as f64 / flops_per_sec, bytes as f64 / self.bytes_per_sec);
        (computing.max(moving), computing > moving)
    }
}

/// Operations a second of the op that `build` appends with a number of iterations.
fn computing(context: &Arc<Context>, build: impl Fn(&mut Graph, TensorId, usize) -> Result<TensorId>) -> Result<f64> {
    let mut iterations = ITERATIONS.0;
    loop {
        let (secs, op) = fastest(context, ROWS, |g, x| build(g, x, iterations))?;
        if secs >= LONG_ENOUGH_SECS || iterations >= ITERATIONS.1 {
            return Ok(op.flops as f64 / secs);
        }
        iterations = (iterations * GROWTH).min(ITERATIONS.1);
    }
}

/// The shortest time of the op that `build` appends to an input of `rows` rows.
fn fastest(
    context: &Arc<Context>,
    rows: usize,
    build: impl Fn(&mut Graph, TensorId) -> Result<TensorId>,
) -> Result<(f64, OpProfile)> {
    let mut graph = Graph::new();
    let x = graph.input("x", TensorSpec::f32(&[rows, ceiling::ROW]));
    let y = build(&mut graph, x)?;
    graph.keep(y);
    let plan = Plan::new(&graph, context.limits())?;
    let memory = Memory::new(context, &[&plan])?;
    let executor = Executor::new(context, graph, plan, &memory)?;
    let values: Vec<f32> = (0..rows * ceiling::ROW).map(|i| (i % 97) as f32 / 97.0).collect();
    executor.write(x, &values)?;
    executor.run()?;
    let mut best: Option<(f64, OpProfile)> = None;
    let start = Instant::now();
    for tries in 0.. {
        if tries >= TRIES && start.elapsed() >= WARM_UP {
            break;
        }
        for op in executor.profile()? {
            let secs = op.elapsed_secs();
            if secs > 0.0 && best.as_ref().is_none_or(|(least, _)| secs < *least) {
                best = Some((secs, op));
            }
        }
    }
    best.ok_or_else(|| Error::Device(format!("{} measures no time at all", context.adapter.name)))
}
