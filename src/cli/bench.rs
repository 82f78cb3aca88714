//! `sep4d bench`: how long a training step takes on this adapter, and where the time goes.

use std::collections::HashMap;
use std::time::Instant;

use sep4d::Result;
use sep4d::data::{Batch, synth};
use sep4d::gpu::Context;
use sep4d::graph::tune::tuned;
use sep4d::models::sep4d::BatchShape;
use sep4d::train::config::{Preset, RunConfig};
use sep4d::train::session::{Session, graphs, preflight};

use super::bench_view;
use super::output::{put, say};
use super::synth::sides;
use super::table::table;
use sep4d::figures::{bytes, thousands};

/// Time a training step and its kernels, or the compare view
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Model and batch
    #[arg(long, default_value = "demo")]
    preset: Preset,
    /// T, frames of a clip [default: the preset's]; with --view, pictures to draw [default: 200]
    #[arg(long)]
    frames: Option<usize>,
    /// Voxels along x, y and z, all even [default: 32x32x8; with --view, 128x128x8]
    #[arg(long, value_parser = sides::<usize, 3>)]
    grid: Option<[usize; 3]>,
    /// Steps to time after the first
    #[arg(long, default_value_t = 10)]
    steps: usize,
    /// Adapter: its number or a part of its name (see `sep4d devices`)
    #[arg(long, default_value = "best")]
    device: String,
    /// Time two linked views of a town instead, the camera moving from picture to picture
    #[arg(long, conflicts_with_all = ["preset", "steps"])]
    view: bool,
    /// Size of the window of these views, pixels
    #[arg(long, default_value = "1280x800", value_parser = sides::<u32, 2>, requires = "view")]
    size: [u32; 2],
}

/// Prints step times, memory, and a row a kernel; or what [`bench_view`] does.
///
/// # Errors
/// As [`Session::new`] and its steps, or [`bench_view::run`].
pub fn run(args: Args) -> Result<()> {
    let Ok(choice) = args.device.parse();
    if args.view {
        let size = args.grid.unwrap_or([128, 128, 8]);
        return bench_view::run(&*Context::open(&choice)?, size, args.size, args.frames.unwrap_or(200));
    }
    let size = args.grid.unwrap_or([32, 32, 8]);
    let config = RunConfig::preset(args.preset, args.frames);
    config.validate()?;
    let shape = BatchShape { batch: config.train.batch, frames: config.data.frames, size };
    shape.check()?;
    let context = tuned(Context::open(&choice)?, &graphs(&config.model, &shape, &config.optimiser())?)?;
    // Tells at once what does not fit, before clips are drawn.
    preflight(&config.model, &shape, &config.optimiser(), context.limits())?;
    let grid = synth::grid(size, [0.4, 0.4, 0.375])?;
    let clips: Vec<_> = (0..shape.batch).map(|seed| synth::clip(&grid, seed as u64, shape.frames)).collect();
    let batch = Batch::from_clips(&clips, shape.size)?;

    let weights = vec![1.0; config.model.classes];
    let mut session = Session::new(&context, &config.model, &shape, &config.optimiser(), &weights, 0)?;
    let plan = session.preflight().clone();
    let gflop = plan.flops_per_step as f64 * 1e-9;
    let [x, y, z] = size;
    say!(
        "{} preset, B = {}, T = {}, {x}x{y}x{z} on {}",
        args.preset.name(),
        shape.batch,
        shape.frames,
        context.adapter.name
    )?;
    say!(
        "{} parameters, {} planned, {gflop:.1} GFLOP a step",
        thousands(plan.parameters as u64),
        bytes(plan.peak_bytes as u64)
    )?;

    let mut seconds = Vec::new();
    for step in 0..=args.steps {
        let start = Instant::now();
        session.train_step(&batch, 1e-3)?;
        session.report()?;
        let elapsed = start.elapsed().as_secs_f64();
        match step {
            0 => say!("first step {elapsed:.2} s (the driver compiles the kernels)")?,
            _ => seconds.push(elapsed),
        }
    }
    seconds.sort_by(f64::total_cmp);
    if let (Some(fastest), Some(median)) = (seconds.first(), seconds.get(seconds.len() / 2)) {
        say!(
            "step {:.1} ms median, {:.1} ms fastest of {}; {:.1} GFLOP/s",
            median * 1e3,
            fastest * 1e3,
            seconds.len(),
            gflop / median
        )?;
    }

    let mut kernels: HashMap<&str, (usize, f64)> = HashMap::new();
    for row in session.profile()? {
        let (launches, elapsed) = kernels.entry(row.kernel).or_default();
        *launches += 1;
        *elapsed += row.elapsed_secs;
    }
    let mut kernels: Vec<_> = kernels.into_iter().collect();
    kernels.sort_by(|a, b| b.1.1.total_cmp(&a.1.1));
    let total: f64 = kernels.iter().map(|(_, (_, elapsed))| elapsed).sum();
    let rows: Vec<Vec<String>> = kernels
        .iter()
        .map(|(kernel, (launches, elapsed))| {
            let share = 100.0 * elapsed / total;
            vec![(*kernel).into(), launches.to_string(), format!("{:.2}", elapsed * 1e3), format!("{share:.1}")]
        })
        .collect();
    say!()?;
    put!("{}", table(&["kernel", "launches", "ms", "%"], &rows))?;
    Ok(())
}
