//! The command line: one file a command.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::builder::Resettable;
use clap::{CommandFactory, Parser, Subcommand};
use sep4d::Result;
use sep4d::models::{ARCHITECTURE, ARCHITECTURES};
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
mod register;
mod render;
mod reproduce;
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
    /// Train a model, as `sep4d train` does
    #[arg(long)]
    train: bool,
    /// List the adapters, as `sep4d devices` does
    #[arg(long)]
    list_devices: bool,
    /// Open a data set, a run or a checkpoint in the window, as `sep4d PATH` does
    #[arg(long, value_name = "PATH", conflicts_with_all = ["train", "list_devices"])]
    open: Option<PathBuf>,
    #[command(flatten)]
    training: train::Args,
}

/// Train a model, as `sep4d --train` does
#[derive(Debug, clap::Args)]
#[command(mut_args(|arg| arg.help_heading(Resettable::Reset)), after_long_help = keys_help())]
struct Train {
    /// What the options require; [`spelt_out`] adds it.
    #[arg(long, hide = true, overrides_with = "train")]
    train: bool,
    #[command(flatten)]
    training: train::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    Train(Train),
    Synth(synth::Args),
    Check(check::Args),
    Register(register::Args),
    Eval(eval::Args),
    Export(export::Args),
    Render(render::Args),
    Reproduce(reproduce::Args),
    Selftest(selftest::Args),
    Bench(bench::Args),
    /// List the adapters and their limits
    Devices,
    Completions(completions::Args),
}

impl Cli {
    /// What the command line asks for. Ends the program if that is help, or cannot be understood.
    pub fn of_the_program() -> Cli {
        Cli::parse_from(spelt_out(std::env::args_os().collect()))
    }

    /// Runs what was asked for.
    ///
    /// # Errors
    /// Those of the command.
    pub fn run(self) -> Result<()> {
        match self.command {
            Some(Command::Train(args)) => train::run(args.training),
            Some(Command::Synth(args)) => synth::run(args),
            Some(Command::Check(args)) => check::run(args),
            Some(Command::Register(args)) => register::run(args),
            Some(Command::Eval(args)) => eval::run(args),
            Some(Command::Export(args)) => export::run(args),
            Some(Command::Render(args)) => render::run(args),
            Some(Command::Reproduce(args)) => reproduce::run(args),
            Some(Command::Selftest(args)) => selftest::run(args),
            Some(Command::Bench(args)) => bench::run(args),
            Some(Command::Devices) => devices::run(),
            Some(Command::Completions(args)) => completions::run(args),
            None if self.list_devices => devices::run(),
            None if self.train => train::run(self.training),
            None => open(self.open.as_deref()),
        }
    }
}

/// Opens the window.
#[cfg(feature = "desktop")]
fn open(path: Option<&Path>) -> Result<()> {
    sep4d::app::run(path, |why| output::tell(&format!("warning: {why}")))
}

/// Says what there is instead of the window.
#[cfg(not(feature = "desktop"))]
fn open(path: Option<&Path>) -> Result<()> {
    match path {
        None => output::put!("{}", Cli::command().render_help()),
        Some(path) => Err(sep4d::Error::Usage(format!(
            "this sep4d was built without the window, in which {0} would open; build it with the feature `desktop`, or see \
             `sep4d eval {0}` and `sep4d render {0}`",
            sep4d::figures::shell_quoted(path)
        ))),
    }
}

/// The command line with what may be left out: `sep4d PATH` is `sep4d --open PATH`, and the options of `sep4d train` are those
/// that require `--train`. A word that is neither a command nor looks like a path stays as it is, and clap proposes a command.
fn spelt_out(mut words: Vec<OsString>) -> Vec<OsString> {
    let is_command =
        |word: &OsStr| word == "help" || Cli::command().get_subcommands().any(|command| command.get_name() == word);
    match words.get(1) {
        Some(word) if word == "train" => words.insert(2, "--train".into()),
        Some(word) if !is_command(word) && looks_like_a_path(word) => words.insert(1, "--open".into()),
        _ => {}
    }
    words
}

fn looks_like_a_path(word: &OsStr) -> bool {
    let (path, text) = (Path::new(word), word.to_string_lossy());
    !text.starts_with('-') && (path.exists() || path.extension().is_some() || text.contains(std::path::is_separator))
}

/// All keys of the configuration, for `--help`.
fn keys_help() -> String {
    let preset = Preset::default();
    let indented = |text: &str| text.lines().map(|line| format!("  {line}\n")).collect::<String>();
    let usual = RunConfig::preset(preset, None);
    let of_others = ARCHITECTURES.iter().skip(1).filter_map(|model| {
        let config = usual.with_values([(ARCHITECTURE, model.name.into())]).ok()?;
        let differs = |key: &str| config.value(key).filter(|value| usual.value(key).as_ref() != Some(value));
        let rows = RunConfig::keys().filter_map(|(key, doc)| {
            let name = key.split_once('.').map_or(key, |(_, name)| name);
            Some(format!("# {doc}\n{name} = {}\n", differs(key)?))
        });
        Some(format!("Other with model.architecture = {:?}:\n\n{}\n", model.name, indented(&rows.collect::<String>())))
    });
    format!(
        "Configuration keys for --config (TOML) and --set, with the values of the preset {}:\n\n{}\n{}\
         Exit codes: 0 ok, 2 usage, 3 data, 4 device, 5 memory, 6 non-finite numbers, 7 run in use, 128 + n stopped\n\
         by signal n. What asks the program to end (SIGINT, SIGTERM, SIGHUP...) saves a checkpoint first; after 3 seconds\n\
         another such signal ends it at once. SIGUSR1 and SIGUSR2 save and go on.",
        preset.name(),
        indented(&usual.to_toml()),
        of_others.collect::<String>()
    )
}
