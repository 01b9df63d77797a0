//! The `sandhog` command.

/// Jobs are made on one thread and thrown away on another, which costs the system's allocator a sixth of all the time of a small
/// job: see `docs/decisions/015-allocator.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    sandhog::cli::main()
}
