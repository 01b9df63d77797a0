//! The `sandhog` command.

fn main() -> std::process::ExitCode {
    sandhog::cli::main()
}
