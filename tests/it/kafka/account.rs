//! An account of many jobs, independent of the queue: what was acknowledged to its producer, what guests said they did, and in
//! which processes; held against the dead letters, and against what may come twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use serde_json::Value;

use super::{Record, Topic};
use crate::support::{TestRunner, message};

/// A completion is committed within so many milliseconds, busy machines allowed for: a job that ended longer before its runner
/// died does not run again. The runner commits every 100 ms.
const COMMITTED_MS: i64 = 2_000;

/// A record of a job that reports when it begins and when it ends, and works for a while between.
pub(super) fn job(id: usize, work: usize) -> Record {
    Record::from(format!(r#"{{"job_type":"obey","job_id":"j{id}","do":"report {work}"}}"#))
}

/// One start of a job, by the word of its guest.
#[derive(Debug, Clone)]
struct Run {
    /// The member, and which of its processes.
    process: (usize, usize),
    attempt: u64,
    began: i64,
    ended: Option<i64>,
}

/// What became of all jobs.
#[derive(Debug, Default)]
pub(super) struct Account {
    accepted: usize,
    /// By id, in the order of their beginnings.
    runs: BTreeMap<String, Vec<Run>>,
    /// When each process was killed, as far as the test knows.
    deaths: BTreeMap<(usize, usize), i64>,
    dead: usize,
    /// Jobs that ran twice, each with how it stood when the first of two runs was cut off.
    pub(super) again: Again,
    faults: Vec<String>,
}

/// Jobs that ran again, by how the run before stood.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Again {
    /// Its process was killed while it ran.
    pub(super) executing: usize,
    /// It had ended, and its process was killed before that was committed.
    pub(super) uncommitted: usize,
    /// Its process lived on: it lost the partition, or stopped.
    pub(super) moved: usize,
    /// Of all of these, those that ran at the same time as the run before.
    pub(super) overlapping: usize,
}

// === impl Account ===

impl Account {
    /// Reads the logs of all members. `deaths` are the times of kills, of each member in their order.
    pub(super) fn of(topic: &Topic, accepted: usize, members: &[(&TestRunner, &[i64])]) -> Account {
        let mut account = Account { accepted, dead: topic.dead().len(), ..Account::default() };
        for (member, (runner, deaths)) in members.iter().enumerate() {
            for (process, at) in deaths.iter().enumerate() {
                account.deaths.insert((member, process), *at);
            }
            for (process, lines) in runner.log_by_process().iter().enumerate() {
                lines.iter().for_each(|line| account.read((member, process), line));
            }
        }
        for runs in account.runs.values_mut() {
            runs.sort_by_key(|run| run.began);
        }
        account.judge();
        account
    }

    fn read(&mut self, process: (usize, usize), line: &Value) {
        if line["level"] == "ERROR" || (line.is_string() && message(line).contains("panicked")) {
            self.faults.push(format!("{process:?}: {line}"));
        }
        if line["target"] != "guest" || message(line) != "begun" {
            return;
        }
        let at: Timestamp = line["timestamp"].as_str().and_then(|at| at.parse().ok()).expect("a line has its time");
        let (at, attempt) = (at.as_millisecond(), line["attempt"].as_u64().expect("a guest's line has it"));
        let runs = self.runs.entry(line["job.id"].as_str().expect("a guest's line has it").to_owned()).or_default();
        let open = |run: &&mut Run| run.process == process && run.attempt == attempt && run.ended.is_none();
        match runs.iter_mut().rev().find(open) {
            Some(run) => run.ended = Some(at),
            None => runs.push(Run { process, attempt, began: at, ended: None }),
        }
    }

    fn judge(&mut self) {
        let expected: BTreeSet<String> = (0..self.accepted).map(|id| format!("j{id}")).collect();
        let ran: BTreeSet<String> = self.runs.keys().cloned().collect();
        let never: Vec<&String> = expected.difference(&ran).collect();
        if !never.is_empty() {
            self.faults.push(format!("{} jobs never ran: {:?}", never.len(), &never[..never.len().min(5)]));
        }
        self.faults.extend(ran.difference(&expected).map(|id| format!("`{id}` ran, and nobody enqueued it")));
        for (id, runs) in &self.runs {
            if runs.iter().all(|run| run.ended.is_none()) {
                self.faults.push(format!("`{id}` began, and never ended: {runs:?}"));
            }
            for pair in runs.windows(2) {
                let (first, second) = (&pair[0], &pair[1]);
                let death = self.deaths.get(&first.process).copied();
                match (death, first.ended) {
                    (Some(_), None) => self.again.executing += 1,
                    (Some(death), Some(ended)) if death - ended <= COMMITTED_MS => self.again.uncommitted += 1,
                    (Some(death), Some(ended)) => self.faults.push(format!(
                        "`{id}` had ended {} ms before its runner was killed, and ran again: {runs:?}",
                        death - ended
                    )),
                    (None, _) => self.again.moved += 1,
                }
                let over = first.ended.or(death).unwrap_or(i64::MAX);
                self.again.overlapping += usize::from(second.began < over);
            }
        }
    }

    /// No job was lost or made, none ended twice otherwise than by running twice, and no runner said that something is wrong.
    pub(super) fn assert_adds_up(&self) {
        let faults = &self.faults;
        assert!(faults.is_empty(), "{self}\n{}", faults.iter().take(20).cloned().collect::<Vec<_>>().join("\n"));
        assert_eq!(self.dead, 0, "{self}");
    }

    /// How many jobs ran again.
    pub(super) fn repeated(&self) -> usize {
        self.runs.values().map(|runs| runs.len() - 1).sum()
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ends = self.runs.values().map(|runs| runs.iter().filter(|run| run.ended.is_some()).count());
        let (mut once, mut more) = (0, 0);
        for ends in ends {
            once += usize::from(ends == 1);
            more += usize::from(ends > 1);
        }
        write!(
            f,
            "{} accepted; {} ran, {} of them again {:?}; {once} ended once, {more} more than once, {} dead letters",
            self.accepted,
            self.runs.len(),
            self.repeated(),
            self.again,
            self.dead
        )
    }
}
