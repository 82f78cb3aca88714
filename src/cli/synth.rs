//! `sep4d synth OUT`: writes a procedural town as a data set.

use std::io::IsTerminal;
use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};
use sep4d::data::synth::{self, Level, SynthOptions};

use super::output::{put, say};
use super::signals;

/// Generate a town as a data set to train on
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder to write: new, empty, or an earlier result of this command
    out: PathBuf,
    /// The same seed gives the same bytes
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Voxels along x (forward), y (right) and z (up), all even
    #[arg(long, default_value = "128x128x8", value_parser = sides::<usize, 3>)]
    grid: [usize; 3],
    /// Size of a voxel in metres
    #[arg(long, default_value = "0.4x0.4x0.375", value_parser = sides::<f64, 3>)]
    voxel_size: [f64; 3],
    /// Towns to train on
    #[arg(long, default_value_t = 4)]
    towns: usize,
    /// Towns to validate on
    #[arg(long, default_value_t = 1)]
    val_towns: usize,
    /// Towns to test on
    #[arg(long, default_value_t = 1)]
    test_towns: usize,
    /// Sequences of every town, by their traffic
    #[arg(long, value_delimiter = ',', default_value = "light,medium,heavy", value_parser = level)]
    scenes: Vec<Level>,
    /// Frames of every sequence, 0.1 s apart
    #[arg(long, default_value_t = 50)]
    frames: usize,
    /// Print how often each class occurs, beside real data
    #[arg(long)]
    stats: bool,
}

/// Runs the command.
///
/// # Errors
/// What [`synth::grid`] and [`synth::write`] return.
pub fn run(args: Args) -> sep4d::Result<()> {
    let grid = synth::grid(args.grid, args.voxel_size)?;
    let levels = Level::ALL.into_iter().filter(|level| args.scenes.contains(level)).collect();
    let towns = [args.towns, args.val_towns, args.test_towns];
    let options = SynthOptions { grid, seed: args.seed, frames: args.frames, towns, levels };
    let total = towns.iter().fold(0usize, |sum, &count| sum.saturating_add(count));
    let total = total.saturating_mul(options.levels.len()).saturating_mul(args.frames);
    let mib = total.saturating_mul(grid.voxels() * 8) >> 20;
    signals::explain(format!("{} is not complete: run the command again to replace it", args.out.display()));
    let _ = say!("generating {total} frames ({mib} MiB) in {}", args.out.display());

    let start = std::time::Instant::now();
    let bar = std::io::stderr().is_terminal().then(|| ProgressBar::new(total as u64));
    if let Some(bar) = &bar
        && let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} frames, {per_sec}, {eta} left")
    {
        bar.set_style(style);
    }
    let mut tenth = 0;
    let summary = synth::write(&args.out, &options, |done| match &bar {
        Some(bar) => bar.set_position(done as u64),
        None if done * 10 / total.max(1) > tenth => {
            tenth = done * 10 / total.max(1);
            // The files matter more than whether somebody reads this.
            let _ = say!("{done}/{total} frames");
        }
        None => {}
    })?;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let secs = start.elapsed().as_secs_f64();
    say!("wrote {} frames in {secs:.1} s ({:.0} frames/s)", summary.frames, summary.frames as f64 / secs)?;
    if args.stats {
        put!("{}", summary.table(&grid))?;
    }
    Ok(())
}

/// Parses `AxB` or `AxBxC`.
pub fn sides<V: std::str::FromStr + Copy, const N: usize>(text: &str) -> Result<[V; N], String> {
    let parts: Option<Vec<V>> = text.split('x').map(|part| part.parse().ok()).collect();
    let example = if N == 2 { "1280x800" } else { "128x128x8" };
    parts.and_then(|parts| parts.try_into().ok()).ok_or_else(|| format!("{text} is not of the form {example}"))
}

fn level(text: &str) -> Result<Level, String> {
    let found = Level::ALL.into_iter().find(|level| level.name().eq_ignore_ascii_case(text));
    found.ok_or_else(|| format!("{text} is not light, medium or heavy"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_levels_are_parsed() {
        assert_eq!(sides::<usize, 3>("32x16x8"), Ok([32, 16, 8]));
        assert_eq!(sides::<f64, 3>("0.4x0.4x0.375"), Ok([0.4, 0.4, 0.375]));
        assert_eq!(sides::<u32, 2>("1280x800"), Ok([1280, 800]));
        for wrong in ["32x16", "32x16x8x4", "axbxc", "", "-1x2x3"] {
            assert!(sides::<usize, 3>(wrong).is_err());
        }
        assert_eq!(level("heavy"), Ok(Level::Heavy));
        assert!(level("rush").is_err());
    }
}
