//! The library's one error type. Every message says on one line what is wrong, where, and what to do about it.

use crate::figures::one_line;

/// Short for a result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong, grouped by the exit code the program ends with.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A wrong command line, configuration key or value (exit code 2).
    #[error("{}", one_line(.0))]
    Usage(String),
    /// Shapes that do not fit together while a graph is built (exit code 2).
    #[error("{}", one_line(.0))]
    Shape(String),
    /// Unreadable, missing or inconsistent files (exit code 3).
    #[error("{}", one_line(.0))]
    Data(String),
    /// A file that is there but cannot be read now, whatever it holds (exit code 3).
    #[error("{}", one_line(.0))]
    Unreadable(String),
    /// No adapter, a lost device, a failed kernel, or limits that are too small (exit code 4).
    #[error("{}", one_line(.0))]
    Device(String),
    /// A plan that does not fit the memory budget or the adapter (exit code 5).
    #[error("{}", one_line(.0))]
    Memory(String),
    /// Training produced NaN or infinity too often (exit code 6).
    #[error("{}", one_line(.0))]
    NonFinite(String),
    /// A run folder that another process is writing (exit code 7).
    #[error("{}", one_line(.0))]
    Busy(String),
    /// Ended by a signal after the state was saved (exit code 128 + signal).
    #[error("stopped by signal {signal}; {saved}")]
    Interrupted {
        /// The signal's number.
        signal: i32,
        /// What was saved, and how to go on.
        saved: String,
    },
}

impl Error {
    /// The exit code of the program for this error.
    pub fn exit_code(&self) -> i32 {
        match self {
            Error::Usage(_) | Error::Shape(_) => 2,
            Error::Data(_) | Error::Unreadable(_) => 3,
            Error::Device(_) => 4,
            Error::Memory(_) => 5,
            Error::NonFinite(_) => 6,
            Error::Busy(_) => 7,
            Error::Interrupted { signal, .. } => 128 + signal,
        }
    }
}
