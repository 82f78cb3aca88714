//! What runs will take, before they start.

use std::sync::Arc;
use std::time::Instant;

use crate::Result;
use crate::data::Dataset;
use crate::gpu::Context;
use crate::models::BatchShape;
use crate::train::config::RunConfig;
use crate::train::session::{Planned, Preflight, Session};

/// Steps are timed for so long, seconds, or so many of them.
const TIMED: (f64, u32) = (1.0, 4);

/// What a run needs on the device.
///
/// # Errors
/// As for [`Planned::new`].
pub fn needs(context: &Context, config: &RunConfig, size: [usize; 3]) -> Result<Preflight> {
    Ok(Planned::new(&config.model, &shape(config, size), &config.step(), context.limits())?.preflight().clone())
}

/// Seconds that a training step takes on the first clips of `data`, measured.
///
/// # Errors
/// As for [`needs`], and what [`Session::train_step`] fails with.
pub fn seconds_of_a_step(context: &Arc<Context>, config: &RunConfig, data: &Dataset) -> Result<f64> {
    let planned = Planned::new(&config.model, &shape(config, data.grid().size), &config.step(), context.limits())?;
    context.build(&planned.preflight().kernels, |_| true)?;
    let mut session = Session::of(context, &planned, &vec![1.0; config.model.classes], config.train.seed)?;
    let clips = (0..config.train.batch).map(|i| data.clip(i % data.len())).collect::<Result<Vec<_>>>()?;
    let batches = vec![data.batch(&clips)?; config.train.accumulate];
    let mut step = || {
        session.train_step(&batches, config.train.learning_rate as f32)?;
        session.report().map(drop)
    };
    // The first one builds what was not built, and fills caches.
    step()?;
    let (start, mut steps) = (Instant::now(), 0);
    while steps < TIMED.1 && start.elapsed().as_secs_f64() < TIMED.0 {
        step()?;
        steps += 1;
    }
    Ok(start.elapsed().as_secs_f64() / f64::from(steps))
}

fn shape(config: &RunConfig, size: [usize; 3]) -> BatchShape {
    BatchShape { batch: config.train.batch, frames: config.data.frames, size }
}
