//! The same handler as `sdk`, as a toolchain makes it: plain bindings of the contract, and Rust's own stack of 1 MiB.
#![cfg(target_arch = "wasm32")]

use sandhog_guest::bindings::exports::sandhog::jobs::handler::Guest;
use sandhog_guest::bindings::sandhog::jobs::types::{Job, Outcome};
use serde::Deserialize;

#[derive(Deserialize)]
struct Numbers {
    n: u64,
    a: u64,
}

struct Ordinary;

impl Guest for Ordinary {
    fn handle_job(job: Job) -> Result<Outcome, String> {
        let numbers: Numbers = serde_json::from_str(&job.body).map_err(|e| e.to_string())?;
        // Used, so that nobody can leave the parsing out.
        if numbers.n == numbers.a {
            return Err(format!("both numbers are {}", numbers.n));
        }
        Ok(Outcome::Complete(None))
    }
}

sandhog_guest::bindings::export!(Ordinary with_types_in sandhog_guest::bindings);
