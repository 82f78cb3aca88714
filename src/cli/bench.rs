//! `sep4d bench`: how long a training step takes on this adapter, where the time goes, and what the adapter could do.

use sep4d::Result;
use sep4d::data::{Batch, synth};
use sep4d::gpu::Context;
use sep4d::graph::tune::tuned;
use sep4d::models::BatchShape;
use sep4d::roofline::Ceilings;
use sep4d::train::config::{Preset, RunConfig};
use sep4d::train::session::{Planned, Session, graphs};

use super::bench_view;
use super::console::Console;
use super::output::say;
use super::synth::sides;

mod profile;
mod report;

use profile::By;
use report::{Report, Subject};

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
    /// Set one key of the run's configuration, such as train.precision=f16
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Steps to time after the first
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// What a row of the table is
    #[arg(long, value_enum, default_value = "kernel")]
    by: By,
    /// Print one JSON object with all figures instead of text
    #[arg(long)]
    json: bool,
    /// Adapter: its number or a part of its name (see `sep4d devices`)
    #[arg(long, default_value = "best")]
    device: String,
    /// Time two linked views of a town instead, the camera moving from picture to picture
    #[arg(long, conflicts_with_all = ["preset", "set", "steps", "by", "json"])]
    view: bool,
    /// Size of the window of these views, pixels
    #[arg(long, default_value = "1280x800", value_parser = sides::<u32, 2>, requires = "view")]
    size: [u32; 2],
}

/// Prints step times, memory, ceilings and a row a kernel; or what [`bench_view`] does.
///
/// # Errors
/// As [`Session::of`] and its steps, or [`bench_view::run`].
pub fn run(args: Args) -> Result<()> {
    let Ok(choice) = args.device.parse();
    if args.view {
        let size = args.grid.unwrap_or([128, 128, 8]);
        return bench_view::run(&*Context::open(&choice)?, size, args.size, args.frames.unwrap_or(200));
    }
    let size = args.grid.unwrap_or([32, 32, 8]);
    let mut config = RunConfig::preset(args.preset, args.frames).with(&args.set)?;
    // Generated clips have poses.
    config.model = config.model.for_data(true)?;
    let shape = BatchShape { batch: config.train.batch, frames: config.data.frames, size };
    shape.check()?;
    let console = Console::new(0, "kinds of kernels measured");
    let context = tuned(Context::open(&choice)?, &graphs(&config.model, &shape, &config.step())?, |done, all| {
        if done == 0 {
            console.begin(0, all as u64);
        }
        console.advance(done as u64, String::new());
        true
    })?;
    console.end();
    // Tells at once what does not fit, before clips are drawn.
    let planned = Planned::new(&config.model, &shape, &config.step(), context.limits())?;
    let grid = synth::grid(size, [0.4, 0.4, 0.375])?;
    let clips: Vec<_> = (0..shape.batch).map(|seed| synth::clip(&grid, seed as u64, shape.frames)).collect();
    let batches = vec![Batch::from_clips(&clips, &grid)?; config.train.accumulate];
    // Before the session, which may leave no memory for it.
    let ceilings = Ceilings::measure(&context)?;

    context.build(&planned.preflight().kernels, |_| true)?;
    let weights = vec![1.0; config.model.classes];
    let session = Session::of(&context, &planned, &weights, 0)?;
    let subject = Subject::new(&config, &shape, &context.adapter);
    let report = Report::measure(subject, ceilings, session, &batches, args.steps, args.by)?;
    match args.json {
        true => say!("{}", report.json()),
        false => report.print(),
    }
}
