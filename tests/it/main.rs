//! Integration tests: claims through the public surface, or the real binary.

mod cli;
mod sandbox;
mod support;
