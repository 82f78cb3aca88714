//! The command line: one file a command.

use clap::{Parser, Subcommand};
use sep4d::Result;
use sep4d::train::config::{Preset, RunConfig};

mod bench;
mod bench_view;
mod check;
mod completions;
mod console;
mod devices;
mod dry_run;
mod eval;
mod export;
mod model;
pub mod output;
mod render;
mod selftest;
mod signals;
mod synth;
mod table;
mod train;

/// Trains SEP-4D, a variational auto-encoder of moving 3D semantic occupancy
#[derive(Debug, Parser)]
#[command(name = "sep4d", version, args_conflicts_with_subcommands = true, after_long_help = keys_help())]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Train a model
    #[arg(long)]
    train: bool,
    /// List the adapters, as `sep4d devices` does
    #[arg(long)]
    list_devices: bool,
    /// Open a data set, a run or a checkpoint in the window
    #[cfg(feature = "desktop")]
    #[arg(long, value_name = "PATH", conflicts_with_all = ["train", "list_devices"])]
    open: Option<std::path::PathBuf>,
    #[command(flatten)]
    training: train::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    Synth(synth::Args),
    Check(check::Args),
    Eval(eval::Args),
    Export(export::Args),
    Render(render::Args),
    Selftest(selftest::Args),
    Bench(bench::Args),
    /// List the adapters and their limits
    Devices,
    Completions(completions::Args),
}

impl Cli {
    /// Runs what was asked for.
    ///
    /// # Errors
    /// Those of the command.
    pub fn run(self) -> Result<()> {
        match self.command {
            Some(Command::Synth(args)) => synth::run(args),
            Some(Command::Check(args)) => check::run(args),
            Some(Command::Eval(args)) => eval::run(args),
            Some(Command::Export(args)) => export::run(args),
            Some(Command::Render(args)) => render::run(args),
            Some(Command::Selftest(args)) => selftest::run(args),
            Some(Command::Bench(args)) => bench::run(args),
            Some(Command::Devices) => devices::run(),
            Some(Command::Completions(args)) => completions::run(args),
            None if self.list_devices => devices::run(),
            None if self.train => train::run(self.training),
            #[cfg(feature = "desktop")]
            None => sep4d::app::run(self.open.as_deref()),
            #[cfg(not(feature = "desktop"))]
            None => {
                output::put!("{}", <Cli as clap::CommandFactory>::command().render_help())
            }
        }
    }
}

/// All keys of the configuration, for `--help`.
fn keys_help() -> String {
    let defaults = RunConfig::preset(Preset::default(), None).to_toml();
    format!(
        "Configuration keys for --config (TOML) and --set, with the values of the preset {}:\n\n{}\n\
         Exit codes: 0 ok, 2 usage, 3 data, 4 device, 5 memory, 6 non-finite numbers, 7 run in use, 128 + n stopped\n\
         by signal n. What asks the program to end (SIGINT, SIGTERM, SIGHUP...) saves a checkpoint first; after 3 seconds\n\
         another such signal ends it at once. SIGUSR1 and SIGUSR2 save and go on.",
        Preset::default().name(),
        defaults.lines().map(|line| format!("  {line}\n")).collect::<String>()
    )
}
