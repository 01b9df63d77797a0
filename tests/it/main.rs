//! The one integration-test binary.

mod queue_contract;
mod sqlite;
mod sqlite_processes;
