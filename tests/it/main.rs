//! Integration tests: through the public surface, or the real binary.

mod cli;
mod support;
