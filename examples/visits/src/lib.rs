//! A handler that keeps something from one job to the next, and enqueues a job.
//!
//! `{"job_type": "visits", "page": "/", "greet_at": 3}` completes with how many visits the page has had; the third visitor is
//! greeted, by a job of the type `greet`. Both are there exactly when this job is settled.

use sandhog_guest::prelude::*;
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Visit {
    page: String,
    /// The visitor who is greeted.
    greet_at: Option<u64>,
}

fn handle(job: Job) -> Result<Outcome, Error> {
    let visit: Visit = job.parse()?;
    let visits = state::increment(&format!("visits of {}", visit.page), 1)?;
    if visit.greet_at == Some(visits) {
        queue::enqueue("greet", &json!({ "name": format!("visitor {visits} of {}", visit.page) }))?;
    }
    Outcome::complete(&json!({ "page": visit.page, "visits": visits }))
}

sandhog_guest::handler!(handle);

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(page: &str) -> Outcome {
        handle(Job::new("visits", json!({ "job_type": "visits", "page": page, "greet_at": 2 }))).unwrap()
    }

    #[test]
    fn each_page_has_its_counter_and_its_second_visitor_is_greeted() {
        state::clear();
        assert_eq!(visit("/"), Outcome::complete(&json!({ "page": "/", "visits": 1 })).unwrap());
        assert_eq!(visit("/about"), Outcome::complete(&json!({ "page": "/about", "visits": 1 })).unwrap());
        assert_eq!(queue::take_recorded(), []);
        assert_eq!(visit("/"), Outcome::complete(&json!({ "page": "/", "visits": 2 })).unwrap());
        let greeting = FollowUp::new("greet", &json!({ "name": "visitor 2 of /" })).unwrap();
        assert_eq!(queue::take_recorded(), [greeting]);
    }
}
