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

/// So many are enough to see where they were.
const MOVES_SHOWN: usize = 8;

/// What the jobs of an account do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Each reports when it begins and when it ends, and works for a while between.
    Plain,
    /// Of four, one fails once before it does so, and one is rejected: there are retries and dead letters.
    Mixed,
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
    /// When each heard that its group had taken it for dead, and its partitions were others'.
    put_out: BTreeMap<(usize, usize), Vec<i64>>,
    /// Whether what ended was committed soon: not where brokers die as well.
    commits_soon: bool,
    /// How many dead letters each job has, in the order in which they were written: none was compacted yet.
    buried: BTreeMap<String, usize>,
    /// Jobs that were set aside for a while, so that others come through.
    aside: BTreeSet<String>,
    /// Records that are no jobs, and are dead letters.
    pub(super) malformed: BTreeSet<String>,
    /// Jobs that ran twice, each with how it stood when the first of two runs was cut off.
    pub(super) again: Again,
    /// The first few that ran again though their process lived on.
    moves: Vec<String>,
    faults: Vec<String>,
}

/// Jobs that ran again, by how the run before stood.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Again {
    /// Its process was killed while it ran.
    pub(super) executing: usize,
    /// It had ended, and its process was killed before that was committed.
    pub(super) uncommitted: usize,
    /// It was written twice, as a retry or to be set aside: what was so before a death, and not committed, was so again.
    pub(super) retried: usize,
    /// Its process lived on, and gave the partition up, or stopped.
    pub(super) moved: usize,
    /// Its process lived on, and its group took it for dead: a machine too busy to answer in time.
    pub(super) put_out: usize,
    /// Of all of these, those that ran at the same time as the run before.
    pub(super) overlapping: usize,
}

// === impl Kind ===

impl Kind {
    /// The record of the job with this number, which counts to so many millions.
    pub(super) fn job(self, id: usize, millions: usize) -> Record {
        let command = match (self, id % 4) {
            (Kind::Mixed, 1) => format!("fail-before 2 report {millions}"),
            (Kind::Mixed, 3) => "reject".to_owned(),
            _ => format!("report {millions}"),
        };
        Record::from(format!(r#"{{"job_type":"obey","job_id":"j{id}","do":"{command}"}}"#))
    }

    fn is_rejected(self, id: usize) -> bool {
        self == Kind::Mixed && id % 4 == 3
    }
}

// === impl Account ===

impl Account {
    /// Reads the logs of all members. `deaths` are the times of kills, of each member in their order.
    pub(super) fn of(
        topic: &Topic,
        kind: Kind,
        accepted: usize,
        commits_soon: bool,
        members: &[(&TestRunner, &[i64])],
    ) -> Account {
        let mut account = Account { accepted, commits_soon, ..Account::default() };
        for letter in topic.read(".dead") {
            let envelope = letter.envelope();
            if envelope["job_type"].is_null() {
                account.malformed.insert(envelope["record"].as_str().expect("each has one").to_owned());
                continue;
            }
            let id = envelope["id"].as_str().expect("a job has an id").to_owned();
            *account.buried.entry(id).or_default() += 1;
        }
        for record in [".retry.1s", ".retry.10s"].iter().flat_map(|suffix| topic.read(suffix)) {
            let envelope = record.envelope();
            if envelope["attempts"].as_u64().unwrap_or(0) == 0 {
                account.aside.insert(envelope["id"].as_str().expect("a job has an id").to_owned());
            }
        }
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
        account.judge(kind);
        account
    }

    fn read(&mut self, process: (usize, usize), line: &Value) {
        if line["level"] == "ERROR" || (line.is_string() && message(line).contains("panicked")) {
            self.faults.push(format!("{process:?}: {line}"));
        }
        let put_out = ["partitions lost", "put this runner out"].iter().any(|text| message(line).contains(text));
        if !put_out && (line["target"] != "guest" || message(line) != "begun") {
            return;
        }
        let at: Timestamp = line["timestamp"].as_str().and_then(|at| at.parse().ok()).expect("a line has its time");
        let at = at.as_millisecond();
        if put_out {
            return self.put_out.entry(process).or_default().push(at);
        }
        let attempt = line["attempt"].as_u64().expect("a guest's line has it");
        let runs = self.runs.entry(line["job.id"].as_str().expect("a guest's line has it").to_owned()).or_default();
        let open = |run: &&mut Run| run.process == process && run.attempt == attempt && run.ended.is_none();
        match runs.iter_mut().rev().find(open) {
            Some(run) => run.ended = Some(at),
            None => runs.push(Run { process, attempt, began: at, ended: None }),
        }
    }

    fn judge(&mut self, kind: Kind) {
        let (rejected, expected): (Vec<usize>, Vec<usize>) = (0..self.accepted).partition(|&id| kind.is_rejected(id));
        let named = |ids: Vec<usize>| ids.into_iter().map(|id| format!("j{id}")).collect::<BTreeSet<String>>();
        for (what, expected, found) in [
            ("ran", named(expected), self.runs.keys().cloned().collect::<BTreeSet<String>>()),
            ("was buried", named(rejected), self.buried.keys().cloned().collect()),
        ] {
            let never: Vec<&String> = expected.difference(&found).collect();
            if !never.is_empty() {
                self.faults.push(format!("of {} jobs none {what}: {:?}", never.len(), &never[..never.len().min(5)]));
            }
            self.faults
                .extend(found.difference(&expected).map(|id| format!("`{id}` {what}, and should not have been")));
        }
        for (id, runs) in &self.runs {
            if runs.iter().all(|run| run.ended.is_none()) {
                self.faults.push(format!("`{id}` began, and never ended: {runs:?}"));
            }
            for pair in runs.windows(2) {
                let (first, second) = (&pair[0], &pair[1]);
                let death = self.deaths.get(&first.process).copied();
                let heard = self.put_out.get(&first.process);
                let put_out =
                    heard.is_some_and(|heard| heard.iter().any(|at| (first.began..=second.began).contains(at)));
                let retried = first.attempt == second.attempt && (first.attempt > 1 || self.aside.contains(id));
                match (death, first.ended) {
                    (Some(_), None) => self.again.executing += 1,
                    (Some(death), Some(ended)) if !self.commits_soon || death - ended <= COMMITTED_MS => {
                        self.again.uncommitted += 1
                    }
                    _ if put_out => self.again.put_out += 1,
                    _ if retried => self.again.retried += 1,
                    (Some(death), Some(ended)) => self.faults.push(format!(
                        "`{id}` had ended {} ms before its runner was killed, and ran again: {runs:?}",
                        death - ended
                    )),
                    (None, _) => {
                        self.again.moved += 1;
                        if self.moves.len() < MOVES_SHOWN {
                            self.moves.push(format!("\n`{id}` ran again: {runs:?}"));
                        }
                    }
                }
                let over = first.ended.or(death).unwrap_or(i64::MAX);
                self.again.overlapping += usize::from(second.began < over);
            }
        }
    }

    /// No job was lost or made, none ran again that had long ended, and no runner said that something is wrong.
    pub(super) fn assert_adds_up(&self) {
        let faults = &self.faults;
        assert!(faults.is_empty(), "{self}\n{}", faults.iter().take(20).cloned().collect::<Vec<_>>().join("\n"));
    }

    /// How many jobs ran again.
    pub(super) fn repeated(&self) -> usize {
        self.runs.values().map(|runs| runs.len() - 1).sum()
    }

    /// How many dead letters were written again.
    pub(super) fn buried_again(&self) -> usize {
        self.buried.values().map(|letters| letters - 1).sum()
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
            "{} accepted; {} ran, {} of them again {:?}; {once} ended once, {more} more than once, {} were buried, {} letters written again{}",
            self.accepted,
            self.runs.len(),
            self.repeated(),
            self.again,
            self.buried.len(),
            self.buried_again(),
            self.moves.concat()
        )
    }
}
