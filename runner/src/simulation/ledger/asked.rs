//! Jobs as somebody asked for them: from outside, in an attempt, or by a burial.

use super::{Key, Ledger};
use crate::clock::UnixMs;
use crate::queue::sqlite::simulation::{Row, report_number};
use crate::queue::{Enqueued, NewJob, QueueError};
use crate::simulation::guest::REPORT;

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

    /// A job was buried: a report of it must come with that, if it is reported.
    pub(super) fn buries(&mut self, process: usize, row: &Row) {
        if !self.reports || row.of_report || row.job_type == REPORT {
            return;
        }
        let number = report_number(row.number, row.counts.requeues as usize);
        let follow_up = Some(FollowUp { named: false });
        let asked = Asked { process, run_at: None, answer: None, ended: false, follow_up };
        if self.jobs.insert(number, asked).is_some() {
            self.faults.push(format!("job {} was buried twice without a requeue", row.number));
        }
        self.due.push(number);
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

/// The number that a body begins with, behind what makes an object of it; of a report, one of its own.
pub(crate) fn number(body: &str) -> usize {
    if body.starts_with(r#"{"job_type":"report""#) {
        // A retry may have put something behind it.
        let body = serde_json::Deserializer::from_str(body).into_iter::<serde_json::Value>().next();
        let letter = &body.expect("it is not empty").expect("it is JSON")["dead_letter"];
        let requeues = letter["requeues"].as_u64().expect("it is a number");
        return report_number(number(letter["body"].as_str().expect("it is text")), requeues as usize);
    }
    let digits: String = body.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a body begins with its job's number")
}
