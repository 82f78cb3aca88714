//! `sep4d completions SHELL`.

use clap::CommandFactory;
use sep4d::Result;

use super::output::put;

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

/// Prints the script.
///
/// # Errors
/// [`sep4d::Error::Data`] if standard output takes no more.
pub fn run(args: Args) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "sep4d", &mut script);
    put!("{}", String::from_utf8_lossy(&script))
}
