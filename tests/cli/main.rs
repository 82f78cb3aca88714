//! The program, run as by a user or a queue.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod bad_input;
mod check;
mod errors;
#[cfg(target_os = "linux")]
mod kills;
mod register;
mod reproduce;
mod runs;
mod train;
