//! A handler on the SDK that parses its body and completes: what a job costs before it does anything.

use sandhog_guest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Numbers {
    n: u64,
    a: u64,
}

fn handle(job: Job) -> Result<Outcome, Error> {
    let numbers: Numbers = job.parse()?;
    // Used, so that nobody can leave the parsing out.
    if numbers.n == numbers.a {
        bail!("both numbers are {}", numbers.n);
    }
    Ok(Outcome::done())
}

sandhog_guest::handler!(handle);
