//! The `sep4d` program: parses the command line, runs one command, prints what went wrong.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    quieten_device_select();
    sep4d::signals::survive_file_limits();
    match cli::Cli::of_the_program().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cli::output::tell(&format!("error: {error}"));
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1))
        }
    }
}

/// On machines without a desktop, Mesa's device-select layer complains on standard error about `XDG_RUNTIME_DIR`, as if the
/// program had failed. sep4d orders adapters itself, so the layer is not needed there.
fn quieten_device_select() {
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}
