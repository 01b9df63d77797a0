//! Drives a real runner with real work, as a user would: through its command line, and by files in its handlers folder.
//!
//! `make demo` calls it. It exits 0 only if every job ended where it should.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

mod interrupt;
mod load;
mod report;
mod runner;
mod sandhog;
mod story;

/// Drives a real runner with real work, and says whether all went well.
#[derive(Debug, Parser)]
pub struct Args {
    /// The program to drive.
    #[arg(long, default_value = "target/release/sandhog")]
    sandhog: PathBuf,
    /// Where `tools/build-guests` puts handlers.
    #[arg(long, default_value = "target/handlers")]
    built: PathBuf,
    /// Where the demo works. Emptied first, and left as it ends, to be looked at.
    #[arg(long, default_value = "target/demo")]
    folder: PathBuf,
    /// For how many seconds there shall be work, about.
    #[arg(long, default_value_t = 20)]
    seconds: u32,
}

fn main() -> ExitCode {
    match story::play(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}
