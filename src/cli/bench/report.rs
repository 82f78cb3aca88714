//! The figures of `sep4d bench`, and how they are printed.

use std::time::Instant;

use serde::Serialize;

use sep4d::Result;
use sep4d::data::Batch;
use sep4d::figures::{bytes, thousands};
use sep4d::gpu::{AdapterSummary, MemoryUse};
use sep4d::models::BatchShape;
use sep4d::roofline::Ceilings;
use sep4d::train::config::RunConfig;
use sep4d::train::session::{Precision, Session};

use super::super::output::{put, say};
use super::profile::{By, Row, median_of, profile, render};

const LEARNING_RATE: f32 = 1e-3;

/// What is timed, and on what.
#[derive(Debug, Clone, Serialize)]
pub struct Subject {
    preset: &'static str,
    precision: Precision,
    batch: usize,
    frames: usize,
    grid: [usize; 3],
    adapter: String,
    driver: String,
}

impl Subject {
    /// A training step of a run on batches of `shape`.
    pub fn new(config: &RunConfig, shape: &BatchShape, adapter: &AdapterSummary) -> Subject {
        Subject {
            preset: config.train.preset.name(),
            precision: config.train.precision,
            batch: shape.batch,
            frames: shape.frames,
            grid: shape.size,
            adapter: adapter.name.clone(),
            driver: adapter.driver.trim().to_owned(),
        }
    }
}

/// Everything that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    subject: Subject,
    parameters: usize,
    flops: u64,
    planned_bytes: u64,
    memory: Option<MemoryUse>,
    ceilings: Ceilings,
    first_secs: f64,
    step: Times,
    /// The same with each step's losses waited for and read back before the next.
    read_back: Times,
    /// Share of the step in which the host writes labels, encodes and submits.
    host_share: f64,
    /// Share of the step in which the device is not at it; unknown without timestamp queries.
    idle_share: Option<f64>,
    #[serde(skip)]
    by: By,
    rows: Vec<Row>,
}

/// Of several steps, seconds.
#[derive(Debug, Clone, Serialize)]
struct Times {
    steps: usize,
    median_secs: f64,
    fastest_secs: f64,
}

impl Times {
    fn of(secs: Vec<f64>) -> Times {
        let fastest_secs = secs.iter().copied().fold(f64::INFINITY, f64::min);
        Times { steps: secs.len(), median_secs: median_of(secs), fastest_secs }
    }
}

impl Report {
    /// Takes all figures of a session that has not taken a step yet.
    ///
    /// # Errors
    /// As the session's steps.
    pub fn measure(
        subject: Subject,
        ceilings: Ceilings,
        mut session: Session,
        batches: &[Batch],
        steps: u32,
        by: By,
    ) -> Result<Report> {
        let context = session.context().clone();
        let start = Instant::now();
        session.train_step(batches, LEARNING_RATE)?;
        session.report()?;
        let first_secs = start.elapsed().as_secs_f64();

        // As in training, where a GPU always has the next step waiting.
        let mut paced_step = || {
            session.train_step(batches, LEARNING_RATE)?;
            session.pace()
        };
        paced_step()?;
        let step = Times::of(timed(steps, paced_step)?);
        let memory = context.memory_use();
        context.wait()?;
        let read_back = Times::of(timed(steps, || {
            session.train_step(batches, LEARNING_RATE)?;
            session.report()
        })?);
        // The device is idle here, so that only the host's own work is timed.
        let mut host = Vec::new();
        for _ in 0..steps {
            context.wait()?;
            host.extend(timed(1, || session.train_step(batches, LEARNING_RATE))?);
        }
        context.wait()?;
        let device = (0..steps).map(|_| session.device_secs()).collect::<Result<Option<Vec<f64>>>>()?;
        let preflight = session.preflight();
        Ok(Report {
            subject,
            parameters: preflight.parameters,
            flops: preflight.flops_per_step,
            planned_bytes: preflight.peak_bytes as u64,
            memory,
            ceilings,
            first_secs,
            host_share: median_of(host) / step.median_secs,
            idle_share: device.map(|secs| (1.0 - median_of(secs) / step.median_secs).max(0.0)),
            step,
            read_back,
            by,
            rows: profile(&mut session, &ceilings, by)?,
        })
    }

    /// One JSON object.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// A few lines and a table.
    ///
    /// # Errors
    /// As [`super::super::output::write`].
    pub fn print(&self) -> Result<()> {
        let Subject { preset, precision, batch, frames, grid: [x, y, z], adapter, driver } = &self.subject;
        say!(
            "{preset} preset in {}, B = {batch}, T = {frames}, {x}x{y}x{z} on {adapter} ({driver})",
            precision.name()
        )?;
        let gflop = self.flops as f64 * 1e-9;
        say!("model     {} parameters, {gflop:.1} GFLOP a step", thousands(self.parameters as u64))?;
        let used = self.memory.map_or("use not told by this driver".to_owned(), |memory| {
            let more = 100.0 * (memory.allocated_bytes as f64 / self.planned_bytes as f64 - 1.0);
            let (used, reserved) = (bytes(memory.allocated_bytes), bytes(memory.reserved_bytes));
            format!("{used} used ({more:+.1} %), {reserved} reserved by the driver")
        });
        say!("memory    {} planned, {used}", bytes(self.planned_bytes))?;
        let Ceilings { flops_per_sec, matrix_flops_per_sec, bytes_per_sec } = self.ceilings;
        let giga = |rate: f64| rate * 1e-9;
        let units = matrix_flops_per_sec.map_or(String::new(), |rate| format!(" ({:.0} by matrix units)", giga(rate)));
        say!("ceilings  {:.0} GFLOP/s multiply-add{units}, {:.1} GB/s copy", giga(flops_per_sec), giga(bytes_per_sec))?;
        let ms = |secs: f64| secs * 1e3;
        say!(
            "step      {:.1} ms median, {:.1} ms fastest of {}; {:.1} GFLOP/s; the first took {:.2} s",
            ms(self.step.median_secs),
            ms(self.step.fastest_secs),
            self.step.steps,
            gflop / self.step.median_secs,
            self.first_secs
        )?;
        let idle = self.idle_share.map_or("unknown".to_owned(), |share| format!("{:.1} %", 100.0 * share));
        say!(
            "waiting   host encodes {:.1} % of the step; device idle {idle}; {:.1} ms median with every loss read back",
            100.0 * self.host_share,
            ms(self.read_back.median_secs)
        )?;
        say!()?;
        put!("{}", render(&self.rows, self.by))
    }
}

/// Seconds of each of `count` calls.
fn timed<R>(count: u32, mut call: impl FnMut() -> Result<R>) -> Result<Vec<f64>> {
    (0..count)
        .map(|_| {
            let start = Instant::now();
            call()?;
            Ok(start.elapsed().as_secs_f64())
        })
        .collect()
}
