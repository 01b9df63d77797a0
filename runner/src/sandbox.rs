//! The wall round wasmtime.

pub mod quiet;
