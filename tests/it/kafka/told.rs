//! What the guest `teller` was given, as it said in its log.

use crate::eventually;
use crate::support::{TestRunner, message};

/// One attempt of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) id: String,
    pub(super) attempt: u64,
    pub(super) job_type: String,
    /// Its first 4,000 bytes.
    pub(super) body: String,
    pub(super) metadata: Vec<(String, String)>,
}

// === impl Told ===

impl Told {
    /// What the runner's guests have told, as far as it is complete when nothing runs.
    pub(super) fn all(runner: &TestRunner) -> Vec<Told> {
        let log = runner.log();
        let mut attempts: Vec<(String, u64, Vec<&str>)> = Vec::new();
        for line in log.iter().filter(|line| line["target"] == "guest") {
            let (id, attempt) = (line["job.id"].as_str().unwrap(), line["attempt"].as_u64().unwrap());
            match attempts.iter_mut().rev().find(|(of, number, _)| of == id && *number == attempt) {
                Some((_, _, said)) => said.push(message(line)),
                None => attempts.push((id.to_owned(), attempt, vec![message(line)])),
            }
        }
        let told = attempts.into_iter().filter(|(_, _, said)| said.len() >= 3).map(|(id, attempt, said)| {
            assert_eq!(said[0], id, "the guest is given the id that the log has");
            let metadata = said[3..].chunks_exact(2).map(|pair| (pair[0].to_owned(), pair[1].to_owned()));
            Told { id, attempt, job_type: said[1].to_owned(), body: said[2].to_owned(), metadata: metadata.collect() }
        });
        told.collect()
    }

    /// What was told of so many attempts, once that many have completed.
    pub(super) fn until(runner: &TestRunner, attempts: usize) -> Vec<Told> {
        eventually!(runner.says("` completed") >= attempts);
        let told = Told::all(runner);
        assert_eq!(told.len(), attempts, "{told:#?}");
        told
    }

    /// The values of a name, in their order.
    pub(super) fn of(&self, name: &str) -> Vec<&str> {
        self.metadata.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str()).collect()
    }
}
