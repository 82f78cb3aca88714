//! Standard output and standard error, which may be closed or full at any time.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

use sep4d::{Error, Result, files};

/// Prints to standard output as `print!` does, but returns what goes wrong instead of panicking.
macro_rules! put {
    ($($part:tt)*) => { $crate::cli::output::write(format_args!($($part)*)) };
}

/// Prints a line to standard output as `println!` does, but returns what goes wrong instead of panicking.
macro_rules! say {
    () => { $crate::cli::output::write(format_args!("\n")) };
    ($($part:tt)*) => { $crate::cli::output::write(format_args!("{}\n", format_args!($($part)*))) };
}

pub(super) use {put, say};

/// What the macros come to. A reader that has had enough, such as `head`, is no error.
///
/// # Errors
/// [`Error::Data`] if standard output takes no more.
pub fn write(text: Arguments<'_>) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Err(why) if why.kind() != ErrorKind::BrokenPipe => {
            Err(Error::Data(format!("cannot write to standard output: {}; send it elsewhere", files::cause(&why))))
        }
        _ => Ok(()),
    }
}

/// Prints a line to standard error, if that is possible.
pub fn tell(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
