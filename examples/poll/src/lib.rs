//! A handler that is not finished at once: it asks for another attempt, and notes in the body how far it came.
//!
//! `{"job_type": "poll"}` completes at its third attempt, with `{"polls": 3}`. In earnest it would ask another service
//! whether something is ready yet.

use sandhog_guest::prelude::*;
use serde::{Deserialize, Serialize};

const POLLS: u32 = 3;

#[derive(Serialize, Deserialize)]
struct Poll {
    /// How often it was asked so far.
    #[serde(default)]
    polls: u32,
}

fn handle(job: Job) -> Result<Outcome, Error> {
    let mut poll: Poll = job.parse()?;
    poll.polls += 1;
    if poll.polls < POLLS {
        // Not a failure, so that it may go on for hours. The next attempt sees the changed body.
        let retry = Retry::after(Duration::from_millis(200)).because("not ready yet").with_body(&poll)?;
        return Ok(retry.into());
    }
    Outcome::complete(&poll)
}

sandhog_guest::handler!(handle);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn first_attempt_asks_for_another_and_notes_how_far_it_came() {
        let outcome = handle(Job::new("poll", json!({ "job_type": "poll" }))).unwrap();
        let retry = Retry::after(Duration::from_millis(200)).because("not ready yet");
        assert_eq!(outcome, retry.with_body(&json!({ "polls": 1 })).unwrap().into());
    }

    #[test]
    fn third_attempt_completes() {
        let outcome = handle(Job::new("poll", json!({ "polls": 2 }))).unwrap();
        assert_eq!(outcome, Outcome::complete(&json!({ "polls": 3 })).unwrap());
    }
}
