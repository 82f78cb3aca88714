//! `sep4d completions SHELL`.

use clap::CommandFactory;
use sep4d::Result;

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

/// Prints the script.
///
/// # Errors
/// None.
pub fn run(args: Args) -> Result<()> {
    clap_complete::generate(args.shell, &mut super::Cli::command(), "sep4d", &mut std::io::stdout());
    Ok(())
}
