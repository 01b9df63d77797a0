//! Sandhog: a job runner that gives every job a WebAssembly sandbox of its own.
//!
//! `ARCHITECTURE.md` tells the life of one job; the modules stand here in the order in which it meets them.

pub mod clock;
pub mod generation;
pub mod job;
pub mod limits;
pub mod outcome;
pub mod queue;
pub mod retry;
pub mod sandbox;
