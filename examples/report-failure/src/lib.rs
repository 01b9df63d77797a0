//! A handler that watches all others: each dead letter comes to it as a job, and it says in a line of its log what that is.
//!
//! What it does with the line is yours: with a grant for it, it could post it somewhere, or enqueue a job.

use sandhog_guest::prelude::*;
use serde::Deserialize;

/// The job. The documentation has all that stands in it.
#[derive(Deserialize)]
struct Report {
    dead_letter: DeadLetter,
}

#[derive(Deserialize)]
struct DeadLetter {
    id: String,
    /// None: its bytes are no job.
    job_type: Option<String>,
    attempt: u32,
    failure: Why,
}

#[derive(Deserialize)]
struct Why {
    kind: String,
    message: String,
}

fn handle(job: Job) -> Result<Outcome, Error> {
    let DeadLetter { id, job_type, attempt, failure } = job.parse::<Report>()?.dead_letter;
    let job_type = job_type.unwrap_or_else(|| "no job".to_owned());
    let line = format!("{id} ({job_type}) is dead: {}: {}, after {attempt} starts", failure.kind, failure.message);
    error!("{line}");
    Outcome::complete(&line)
}

sandhog_guest::handler!(handle);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn dead_letter_becomes_a_line() {
        let failure = json!({ "kind": "trap", "message": "unreachable" });
        let letter = json!({ "id": "7", "job_type": "resize", "attempt": 3, "failure": failure });
        let report = json!({ "job_type": "report-failure", "dead_letter": letter });
        let line = "7 (resize) is dead: trap: unreachable, after 3 starts";
        assert_eq!(handle(Job::new("report-failure", report)).unwrap(), Outcome::complete(&line).unwrap());
    }
}
