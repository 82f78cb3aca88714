//! The window, driven as by a user.

#![cfg(feature = "desktop")]
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod analysis;
mod compare;
mod example;
mod shell;
#[cfg(target_os = "linux")]
mod start;
mod training;
mod views;
mod wait;
