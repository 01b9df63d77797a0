//! The job's log.
//!
//! A line goes to the runner's log, with the job's id, type and attempt beside it. Natively it is printed to stderr.
//! Write what an operator needs, and never the body or a secret.

use std::fmt;

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every step, for whoever follows one job.
    Trace,
    /// Decisions, for whoever looks for a fault.
    Debug,
    /// What happened.
    Info,
    /// Something is not as it should be, and was coped with.
    Warn,
    /// Somebody should look.
    Error,
}

/// Writes one line. The macros of the same names as the levels call it.
pub fn write(level: Level, line: fmt::Arguments<'_>) {
    match line.as_str() {
        Some(line) => put(level, line),
        None => put(level, &line.to_string()),
    }
}

#[cfg(target_arch = "wasm32")]
fn put(level: Level, line: &str) {
    crate::sandbox::log(level, line);
}

#[cfg(not(target_arch = "wasm32"))]
fn put(level: Level, line: &str) {
    eprintln!("{level:?}: {line}");
}

/// Writes a line to the job's log at level `trace`, as `println!` would: `trace!("byte {at}")`.
#[macro_export]
macro_rules! trace {
    ($($text:tt)+) => { $crate::log::write($crate::log::Level::Trace, ::core::format_args!($($text)+)) };
}

/// Writes a line to the job's log at level `debug`, as `println!` would: `debug!("{n} rows")`.
#[macro_export]
macro_rules! debug {
    ($($text:tt)+) => { $crate::log::write($crate::log::Level::Debug, ::core::format_args!($($text)+)) };
}

/// Writes a line to the job's log at level `info`, as `println!` would: `info!("sent {n} mails")`.
#[macro_export]
macro_rules! info {
    ($($text:tt)+) => { $crate::log::write($crate::log::Level::Info, ::core::format_args!($($text)+)) };
}

/// Writes a line to the job's log at level `warn`, as `println!` would: `warn!("no address, skipped")`.
#[macro_export]
macro_rules! warn {
    ($($text:tt)+) => { $crate::log::write($crate::log::Level::Warn, ::core::format_args!($($text)+)) };
}

/// Writes a line to the job's log at level `error`, as `println!` would: `error!("the disk is full")`.
#[macro_export]
macro_rules! error {
    ($($text:tt)+) => { $crate::log::write($crate::log::Level::Error, ::core::format_args!($($text)+)) };
}
