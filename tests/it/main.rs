//! Integration tests: claims through the public surface, or the real binary.

mod cli;
mod queue_contract;
mod sandbox;
mod sqlite;
mod support;
