//! Sandhog: a job runner that gives every job a WebAssembly sandbox of its own.
//!
//! `ARCHITECTURE.md` tells the life of one job; the modules stand here in the order in which it meets them.

pub mod activity;
pub mod admin;
pub mod app;
pub(crate) mod bench;
pub(crate) mod build;
pub(crate) mod cases;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dispatch;
pub mod events;
pub mod follow_up;
#[cfg(test)]
#[path = "../../tests/fuzz.rs"]
mod fuzzing;
pub mod generation;
pub mod grants;
pub mod handler;
pub mod hardening;
pub mod job;
pub(crate) mod language;
pub mod limits;
pub mod manifest;
pub mod metrics;
pub mod observe;
pub mod outcome;
pub mod queue;
pub mod readiness;
pub mod registry;
pub mod reload;
pub mod report;
pub mod retry;
pub mod sampler;
pub mod sandbox;
#[cfg(test)]
mod simulation;
pub mod state;
pub(crate) mod supervisor;
pub mod telemetry;
pub mod traces;
pub mod trial;
pub mod watch;
