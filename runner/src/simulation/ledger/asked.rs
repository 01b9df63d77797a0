//! Jobs as somebody asked for them: from outside, or in an attempt.

use super::{Key, Ledger};
use crate::clock::UnixMs;
use crate::queue::{Enqueued, NewJob, QueueError};

/// What was asked of the queue when a job was enqueued, and what became of that.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) process: usize,
    pub(super) run_at: Option<UnixMs>,
    pub(super) answer: Option<Answer>,
    pub(super) ended: bool,
    pub(super) follow_up: Option<FollowUp>,
}

/// What of a job is otherwise that an attempt enqueued.
#[derive(Debug)]
pub(super) struct FollowUp {
    /// It has an id that others may have: then it may not come.
    named: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Accepted,
    Duplicate,
    Refused,
}

impl Ledger {
    pub(crate) fn enqueues(&mut self, process: usize, number: usize, run_at: Option<UnixMs>) {
        self.jobs.insert(number, Asked { process, run_at, answer: None, ended: false, follow_up: None });
    }

    /// An attempt enqueues a job; answers its number.
    pub(crate) fn asks(&mut self, process: usize, key: Key, named: bool) -> usize {
        let number = self.jobs.len();
        let follow_up = Some(FollowUp { named });
        self.jobs.insert(number, Asked { process, run_at: None, answer: None, ended: false, follow_up });
        self.rights.get_mut(&key).expect("it is running").asked.push(number);
        number
    }

    pub(crate) fn enqueued(&mut self, numbers: &[usize], answer: &Result<Vec<Enqueued>, QueueError>) {
        for (at, number) in numbers.iter().enumerate() {
            let (row, job) = (self.rows.values().find(|row| row.number == *number), &self.jobs[number]);
            let answer = match answer {
                Ok(answers) if answers[at].duplicate => Answer::Duplicate,
                Ok(_) => Answer::Accepted,
                Err(_) => Answer::Refused,
            };
            if (answer == Answer::Accepted) != (row.is_some() || job.ended) {
                self.faults
                    .push(format!("the enqueue of job {number} was answered {answer:?}, and its row is {row:?}"));
            }
            self.jobs.get_mut(number).unwrap().answer = Some(answer);
        }
    }

    /// Follow-up jobs that did not come with their settlement never come: their ids were taken.
    pub(super) fn miss(&mut self) {
        for number in std::mem::take(&mut self.due) {
            let job = self.jobs.get_mut(&number).expect("an attempt asked for it");
            job.answer = Some(Answer::Duplicate);
            if !job.follow_up.as_ref().is_some_and(|follow_up| follow_up.named) {
                self.faults.push(format!("job {number} did not come with the settlement of its parent"));
            }
        }
    }
}

/// A job's number, and when it is to run.
pub(super) fn numbered(job: &NewJob) -> (usize, Option<UnixMs>) {
    match job {
        NewJob::Job { body, run_at, .. } => (number(body), *run_at),
        NewJob::Malformed { .. } => panic!("nobody enqueues what is malformed"),
    }
}

/// The number that a body begins with, behind what makes an object of it.
pub(crate) fn number(body: &str) -> usize {
    let digits: String = body.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a body begins with its job's number")
}
