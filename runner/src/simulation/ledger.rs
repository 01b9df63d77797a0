//! What must be true: the books that a schedule keeps beside the queue, and its complaints.
//!
//! The ledger hears of every enqueue, claim, start, end and settlement, and sees all rows after each piece of work that a
//! writer does. Each change of a row must follow from what it heard (`ledger/change.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub(crate) use self::asked::number;
use self::asked::{Answer, Asked, numbered};
use self::change::{Change, How};
use crate::clock::UnixMs;
use crate::job::Job;
use crate::outcome::{Disposition, Kind, Outcome, RetryAfter};
use crate::queue::sqlite::simulation::Row;
use crate::queue::{Delivery, Demand, Receipt, Settled, Settlement};

mod asked;
mod change;

/// A runner that renewed its lease less than this ago is alive.
const LEASE: Duration = Duration::from_secs(30);

/// The books of one schedule.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Whether dead letters are reported.
    pub(crate) reports: bool,
    /// Whether completed rows may be deleted.
    pub(crate) forgets: bool,
    jobs: BTreeMap<usize, Asked>,
    rows: BTreeMap<i64, Row>,
    rights: BTreeMap<Key, Right>,
    processes: Vec<Member>,
    /// Which process has which runner's number, and when its lease was last seen to move.
    owners: BTreeMap<i64, usize>,
    leases: BTreeMap<i64, (i64, Duration)>,
    /// Dead letters that a person sends back or deletes, at any time from now on: who is told to may stand still.
    pub(crate) touched: BTreeSet<i64>,
    /// The last delivery whose execution began.
    last_started: Option<Key>,
    /// Follow-up jobs and reports that must come with what a writer's piece of work settled and buried.
    due: Vec<usize>,
    /// Answers to settlements that were not looked at yet.
    answers: Vec<(Receipt, Settled)>,
    faults: Vec<String>,
}

/// A record and a fence.
type Key = (i64, i64);

/// The right to a job that a claim gives.
#[derive(Debug, Default)]
struct Right {
    handed_out: bool,
    alone: bool,
    /// Its execution began while the right held.
    started: bool,
    executed: bool,
    max_failures: u32,
    outcome: Option<Outcome>,
    /// The jobs that its attempt enqueued, and those of them that are settled with it.
    asked: Vec<usize>,
    published: Vec<usize>,
    fate: Option<Fate>,
    how: Option<How>,
}

/// What its holder wants.
#[derive(Debug, Clone)]
enum Fate {
    Settled(Box<Settlement>),
    Dropped,
    /// It was told that nothing is applied.
    Withdrawn,
}

/// A process, from its start to its end.
#[derive(Debug, Default)]
struct Member {
    name: String,
    dead: bool,
    closed: bool,
    slots: usize,
    executing: BTreeSet<Key>,
    alone: Option<Key>,
    /// What was asked since `receive` last answered.
    asked: Vec<Demand>,
    /// How many attempts of a handler run, and may run.
    running: BTreeMap<String, u32>,
    concurrency: BTreeMap<String, u32>,
    unanswered: u32,
}

/// What a writer's piece of work left behind.
pub(crate) struct Seen {
    pub(crate) process: usize,
    pub(crate) rows: Vec<Row>,
    pub(crate) runners: Vec<(i64, i64)>,
    /// The process's number as a runner, and whether it has closed the queue.
    pub(crate) runner: Option<i64>,
    pub(crate) closed: bool,
    pub(crate) now: UnixMs,
    pub(crate) elapsed: Duration,
}

// === impl Ledger ===

impl Ledger {
    /// The first thing that was found wrong.
    pub(crate) fn fault(&self) -> Option<&String> {
        self.faults.first()
    }

    pub(crate) fn complain(&mut self, fault: impl Into<String>) {
        self.faults.push(fault.into());
    }

    /// A process starts; answers its number.
    pub(crate) fn begins(&mut self, name: &str, slots: usize) -> usize {
        self.processes.push(Member { name: name.to_owned(), slots, ..Member::default() });
        self.processes.len() - 1
    }

    /// Whether a number was once a runner's.
    pub(crate) fn knows(&self, runner: i64) -> bool {
        self.owners.contains_key(&runner)
    }

    /// A process dies, or is done.
    pub(crate) fn dies(&mut self, process: usize) {
        self.processes[process].dead = true;
    }

    /// A process has closed the queue: its lock is gone, and whoever sees that takes over what it could not give up.
    pub(crate) fn closes(&mut self, process: usize) {
        self.processes[process].closed = true;
    }

    /// How many answers a process waits for.
    pub(crate) fn unanswered(&self, process: usize) -> u32 {
        self.processes[process].unanswered
    }

    /// A process serves a handler from now on.
    pub(crate) fn serves(&mut self, process: usize, handler: &str, concurrency: u32) {
        let most = self.processes[process].concurrency.entry(handler.to_owned()).or_default();
        *most = concurrency.max(*most);
    }

    /// How many jobs were asked for.
    pub(crate) fn asked(&self) -> usize {
        self.jobs.len()
    }

    /// How many jobs have begun to exist and have not ended.
    pub(crate) fn unfinished(&self) -> usize {
        self.rows.values().filter(|row| row.state < 4).count()
    }

    /// How many attempts run, in processes that live.
    pub(crate) fn still_executing(&self) -> usize {
        self.processes.iter().filter(|member| !member.dead).map(|member| member.executing.len()).sum()
    }

    /// The latest moment at which a job is due.
    pub(crate) fn last_due(&self) -> UnixMs {
        UnixMs(self.rows.values().filter(|row| row.state < 4).map(|row| row.run_at_ms).max().unwrap_or(0))
    }

    /// The records of dead letters.
    pub(crate) fn dead(&self) -> Vec<i64> {
        self.rows.values().filter(|row| row.state == 4).map(|row| row.record).collect()
    }

    pub(crate) fn received(&mut self, process: usize, asked: &Demand, deliveries: Option<&[Delivery]>) {
        let member = &mut self.processes[process];
        let Some(deliveries) = deliveries else { return member.asked.push(asked.clone()) };
        let mut by_type: BTreeMap<&str, u32> = BTreeMap::new();
        for delivery in deliveries {
            *by_type.entry(&delivery.job.job_type).or_default() += 1;
        }
        let room = |of: &dyn Fn(&Demand) -> Option<u32>| member.asked.iter().filter_map(of).max().unwrap_or(0);
        let mut others = 0;
        let mut faults = Vec::new();
        for (job_type, count) in by_type {
            let named = |demand: &Demand| demand.types.iter().find(|(named, _)| **named == *job_type).map(|(_, n)| *n);
            let excess = count.saturating_sub(room(&named));
            others += excess;
            if excess > 0 && member.asked.iter().all(|demand| named(demand).is_some()) {
                faults.push(format!("{} was given {count} jobs of `{job_type}`, more than it asked for", member.name));
            }
        }
        if others > room(&|demand| demand.others) {
            faults.push(format!("{} was given {others} jobs of other types, more than it asked for", member.name));
        }
        member.asked.clear();
        self.faults.append(&mut faults);
    }

    /// A delivery is handed to a process.
    pub(crate) fn handed_out(&mut self, process: usize, receipt: Receipt, alone: bool) {
        let key = (receipt.record, receipt.fence);
        let name = &self.processes[process].name;
        match self.rights.get_mut(&key) {
            Some(right) if !right.handed_out && right.alone == alone => right.handed_out = true,
            right => self.faults.push(format!("{name} was handed {key:?} (alone: {alone}) by the right {right:?}")),
        }
    }

    pub(crate) fn executing(&mut self, process: usize, receipt: Receipt) {
        let key = (receipt.record, receipt.fence);
        let member = &mut self.processes[process];
        let right = self.rights.get_mut(&key).expect("it was handed out");
        if right.started || !member.executing.insert(key) {
            self.faults.push(format!("{key:?} was executed twice by one right"));
        }
        // What begins after the right was lost counts for nobody.
        right.started = right.how.is_none();
        if right.alone {
            member.alone = Some(key);
        }
        if member.alone.is_some() && member.executing.len() > 1 {
            self.faults.push(format!("a suspect did not run alone: {:?}", member.executing));
        }
        if member.executing.len() > member.slots {
            self.faults.push(format!("{} jobs run in {} slots", member.executing.len(), member.slots));
        }
        self.last_started = Some(key);
    }

    pub(crate) fn executed(&mut self, process: usize, receipt: Receipt) {
        let key = (receipt.record, receipt.fence);
        let member = &mut self.processes[process];
        if member.dead {
            return;
        }
        member.executing.remove(&key);
        member.alone = member.alone.filter(|alone| *alone != key);
        self.rights.get_mut(&key).expect("it was executing").executed = true;
    }

    /// An attempt begins in its handler; answers the right by which it does.
    pub(crate) fn runs(&mut self, process: usize, handler: &str, max_failures: u32, number: usize, job: &Job) -> Key {
        let key = self.last_started.take().expect("its execution was noted just before");
        let right = self.rights.get_mut(&key).expect("it was handed out");
        right.max_failures = max_failures;
        // Where the right was lost, the row is somebody else's by now.
        if let Some(row) = self.rows.get(&key.0).filter(|_| right.how.is_none()) {
            let told = (job.attempt, job.failures, job.interruptions, job.retries_requested);
            let known = (row.counts.attempt + 1, row.counts.failures, row.counts.interruptions, row.counts.retries);
            if row.number != number || told != known {
                self.faults.push(format!("job {number} was told {told:?}, and is {known:?} of job {}", row.number));
            }
        }
        let member = &mut self.processes[process];
        let running = member.running.entry(handler.to_owned()).or_default();
        *running += 1;
        let allowed = member.concurrency.get(handler).copied().unwrap_or(0);
        if *running > allowed {
            self.faults.push(format!("{running} attempts of `{handler}` run at a time, and {allowed} may"));
        }
        key
    }

    /// An attempt is over, if it came to an outcome with that.
    pub(crate) fn ran(&mut self, process: usize, handler: &str, key: Key, outcome: Option<&Outcome>) {
        *self.processes[process].running.get_mut(handler).expect("it was running") -= 1;
        self.rights.get_mut(&key).expect("it was running").outcome = outcome.cloned();
    }

    pub(crate) fn dropped(&mut self, process: usize, receipt: Receipt) {
        if !self.processes[process].dead {
            let right = self.rights.get_mut(&(receipt.record, receipt.fence)).expect("it was handed out");
            right.fate = Some(Fate::Dropped);
        }
    }

    pub(crate) fn settling(&mut self, process: usize, receipt: Receipt, settlement: &Settlement) {
        let key = (receipt.record, receipt.fence);
        let right = self.rights.get_mut(&key).expect("it was handed out");
        let number = settlement.attempt.as_ref().map(|attempt| attempt.number);
        if let Some(row) = self.rows.get(&key.0).filter(|_| right.how.is_none())
            && !(follows(right, row.counts.failures, settlement)
                && number.is_none_or(|number| number == row.counts.attempt + 1))
        {
            self.faults.push(format!("{:?} does not follow from {right:?} of {row:?}", settlement.disposition));
        }
        let publishes = right.outcome.as_ref().is_some_and(Outcome::is_answer);
        let expected: &[usize] = if publishes { &right.asked } else { &[] };
        let published: Vec<(usize, Option<UnixMs>)> = settlement.follow_ups.iter().map(numbered).collect();
        if !published.iter().map(|(number, _)| number).eq(expected) {
            self.faults.push(format!("{:?} is settled with the jobs {published:?}, and asked for {expected:?}", key));
        }
        right.published = published.iter().map(|(number, _)| *number).collect();
        for (number, run_at) in published {
            self.jobs.get_mut(&number).expect("an attempt asked for it").run_at = run_at;
        }
        right.fate = Some(Fate::Settled(Box::new(settlement.clone())));
        self.processes[process].unanswered += 1;
    }

    /// A settlement is answered. What the writer did is not known yet: that is looked at when it has ended its step.
    pub(crate) fn settled(&mut self, process: usize, receipt: Receipt, answer: Settled) {
        let member = &mut self.processes[process];
        member.unanswered -= 1;
        if !member.dead {
            self.answers.push((receipt, answer));
        }
    }

    /// Looks at the answers that a writer gave.
    pub(crate) fn review(&mut self) {
        for (receipt, answer) in std::mem::take(&mut self.answers) {
            self.answered(receipt, answer);
        }
    }

    fn answered(&mut self, receipt: Receipt, answer: Settled) {
        let key = (receipt.record, receipt.fence);
        let right = self.rights.get_mut(&key).expect("it was handed out");
        match answer {
            Settled::Settled if right.how == Some(How::Applied) => {}
            Settled::Fenced if right.how != Some(How::Applied) => right.fate = Some(Fate::Withdrawn),
            Settled::Settled | Settled::Fenced | Settled::Conflicted => {
                self.faults.push(format!("the settlement of {key:?} was answered {answer:?}, and it ended {right:?}"));
            }
        }
    }

    /// Looks at what a writer left behind.
    pub(crate) fn check(&mut self, seen: Seen) {
        let Seen { process, rows, runners, runner, closed, now, elapsed } = seen;
        if let Some(runner) = runner {
            self.owners.entry(runner).or_insert(process);
        }
        self.check_runners(process, &runners, elapsed);
        let rows: BTreeMap<i64, Row> = rows.into_iter().map(|row| (row.record, row)).collect();
        let old = std::mem::take(&mut self.rows);
        let records: BTreeSet<i64> = old.keys().chain(rows.keys()).copied().collect();
        let changes = records.into_iter().flat_map(|record| {
            let (before, after) = (old.get(&record), rows.get(&record));
            // The record of a row that is gone may come again.
            let another = before.zip(after).is_some_and(|(before, after)| before.number != after.number);
            if another { [(before, None), (None, after)] } else { [(before, after), (None, None)] }
        });
        let changes = changes.filter(|(before, after)| before != after);
        // What comes may follow from what was settled.
        let (come, changed): (Vec<_>, Vec<_>) = changes.partition(|(before, _)| before.is_none());
        for (before, after) in changed.into_iter().chain(come) {
            let change = Change { ledger: self, process, runner, closed, now, runners: &runners };
            match change.explain(before, after) {
                Ok(explained) => self.enter(process, before, after, explained),
                Err(why) => self.faults.push(format!("{why}: {before:?} became {after:?}")),
            }
        }
        self.rows = rows;
        self.miss();
    }

    /// Writes down how a row changed.
    fn enter(&mut self, process: usize, before: Option<&Row>, after: Option<&Row>, how: Option<How>) {
        if let (Some(how), Some(before)) = (how, before) {
            let right = self.rights.get_mut(&(before.record, before.fence)).expect("it was claimed");
            right.how = Some(how);
            if how == How::Applied {
                self.due.extend(&right.published);
            }
        }
        let row = after.or(before).expect("a change is of something");
        let ended = after.is_none_or(|after| after.state >= 4);
        let job = self.jobs.get_mut(&row.number).expect("every row was asked for");
        job.ended = ended;
        if before.is_none() && job.follow_up.is_some() {
            job.answer = Some(Answer::Accepted);
            self.due.retain(|number| *number != row.number);
        }
        if let Some(after) = after.filter(|after| after.state == 4) {
            self.buries(process, after);
        }
        if let Some(after) = after.filter(|after| after.state == 3) {
            let right = Right { alone: after.counts.deaths >= 2, ..Right::default() };
            self.rights.insert((after.record, after.fence), right);
        }
    }

    /// Nobody is taken for dead who renewed a lease.
    fn check_runners(&mut self, process: usize, runners: &[(i64, i64)], elapsed: Duration) {
        for (id, until) in runners {
            let lease = self.leases.entry(*id).or_insert((*until, elapsed));
            if lease.0 != *until {
                *lease = (*until, elapsed);
            }
        }
        for (id, (_, seen)) in self.leases.extract_if(.., |id, _| !runners.iter().any(|(known, _)| known == id)) {
            let owner = self.owners.get(&id).copied();
            let alive = owner.is_some_and(|owner| owner != process && !self.processes[owner].is_gone());
            if alive && elapsed.saturating_sub(seen) < LEASE {
                self.faults.push(format!("runner {id} was taken for dead, and had renewed its lease at {seen:?}"));
            }
        }
    }

    /// What must be true when everything was left to run out.
    pub(crate) fn check_end(&mut self) {
        for (number, job) in &self.jobs {
            let row = self.rows.values().find(|row| row.number == *number);
            let accepted = job.answer == Some(Answer::Accepted);
            if accepted && !job.ended || row.is_some_and(|row| row.state < 4) {
                self.faults.push(format!("job {number} did not end: {row:?}"));
            }
        }
    }
}

// === impl Member ===

impl Member {
    fn is_gone(&self) -> bool {
        self.dead || self.closed
    }
}

/// Whether a settlement is what the design says for what came before.
fn follows(right: &Right, failures: u32, settlement: &Settlement) -> bool {
    let disposition = &settlement.disposition;
    match &right.outcome {
        None => *disposition == Disposition::Park && settlement.attempt.is_none(),
        Some(Outcome::Complete { .. }) => matches!(disposition, Disposition::Ack { .. }),
        Some(Outcome::Reject { .. }) => matches!(disposition, Disposition::Bury(why) if why.kind == Kind::Rejected),
        Some(Outcome::Cancelled) => matches!(disposition, Disposition::Bury(why) if why.kind == Kind::Cancelled),
        Some(Outcome::NotReady { .. }) => matches!(disposition, Disposition::Park),
        Some(Outcome::Interrupted { .. }) => matches!(disposition, Disposition::Release { started: true, .. }),
        Some(Outcome::Failed(failure)) => match disposition {
            Disposition::Bury(why) => why == failure && failures + 1 >= right.max_failures,
            Disposition::Retry { after: RetryAfter::Failure(why), .. } => {
                why == failure && failures + 1 < right.max_failures
            }
            _ => false,
        },
        Some(Outcome::Retry(_)) => match disposition {
            Disposition::Bury(why) => matches!(why.kind, Kind::OutOfAttempts | Kind::Expired),
            Disposition::Retry { after, .. } => matches!(after, RetryAfter::Request { .. }),
            _ => false,
        },
    }
}
