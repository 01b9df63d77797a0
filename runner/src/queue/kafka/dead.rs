//! What people do with dead letters.

use std::ops::ControlFlow;

use rdkafka::Message;

use super::client::explain;
use super::found::{Found, Place};
use super::groups::Side;
use super::scan::Scan;
use super::topics::Names;
use super::transaction::{self, Transactions, Undone, is_too_large};
use super::write::Write;
use super::{Options, Topic, record};
use crate::queue::{Filter, Listed, QueueError, REQUEUES_MAX, Requeue, Requeued, State};

/// So many dead letters are requeued or deleted in one transaction: two records each.
const BATCH: usize = 500;

/// And so many bytes, about.
const BATCH_BYTES: usize = 8 << 20;

/// Requeue, or delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// By force or not.
    Requeue {
        force: bool,
    },
    Delete,
}

/// A change of the dead letters of one job topic.
struct Change<'a> {
    act: Act,
    topic: &'a Topic,
    names: Names,
    /// None: nothing is changed, only said.
    transactions: Option<Transactions>,
    batch: Vec<Write>,
    batch_bytes: usize,
    /// What the batch is about.
    pending: Vec<Listed>,
    /// What was changed.
    done: Vec<Listed>,
}

/// Sends the dead letters that pass `filter` back: each a record in the topic of jobs, as it was enqueued, and a tombstone,
/// in one transaction. Answers which.
///
/// # Errors
///
/// Says how many were sent back before it.
pub(super) fn requeue(options: &Options, filter: &Filter, how: Requeue) -> Result<Requeued, QueueError> {
    let Requeue { dry_run, force } = how;
    let act = Act::Requeue { force };
    if !filter.ids.is_empty() {
        // Before anything is changed.
        let named = change(options, filter, act, true)?;
        if let Some(malformed) = named.letters.iter().find(|job| job.job_type.is_none()) {
            let message = format!("cannot requeue `{}`: it is malformed, and would be again", malformed.id);
            return Err(QueueError::lasting(message).with_hint("enqueue what it should have been, and delete it"));
        }
        if dry_run {
            return Ok(named);
        }
    }
    change(options, filter, act, dry_run)
}

/// Deletes the dead letters that pass `filter`, for good: a tombstone each. Answers which.
///
/// # Errors
///
/// Says how many were deleted before it.
pub(super) fn delete(options: &Options, filter: &Filter, dry_run: bool) -> Result<Vec<Listed>, QueueError> {
    Ok(change(options, filter, Act::Delete, dry_run)?.letters)
}

fn change(options: &Options, filter: &Filter, act: Act, dry_run: bool) -> Result<Requeued, QueueError> {
    let filter = Filter { state: Some(State::Dead), ..filter.clone() };
    let now = options.clock.now();
    let scan = Scan::open(options, Side::Jobs)?;
    let mut changed: Vec<Listed> = Vec::new();
    let mut stay = 0;
    for topic in &options.topics {
        let names = Names::new(&topic.name);
        if scan.whole(std::slice::from_ref(&names.dead))?.is_empty() {
            continue;
        }
        let mut change = Change::open(options, topic, names, act, dry_run, changed)?;
        // Looked at only now: whoever changed them before is fenced, and what he did is either done or undone.
        let parts = scan.whole(std::slice::from_ref(&change.names.dead))?;
        let mut failed = None;
        // All of them, however many: a dead letter whose tombstone lies behind a limit would be taken twice.
        scan.read_live(&parts, u64::MAX, &mut |message| {
            let found = Found::read(message, Place::Dead, topic, options.body_bytes_max);
            if !found.passes(&filter, now) {
                return ControlFlow::Continue(());
            }
            let listed = found.listed(now);
            if let Act::Requeue { force } = act {
                if listed.job_type.is_none() && filter.ids.is_empty() {
                    return ControlFlow::Continue(());
                }
                if !force && listed.requeues >= REQUEUES_MAX {
                    stay += 1;
                    return ControlFlow::Continue(());
                }
            }
            if filter.limit.is_some_and(|limit| change.count() >= limit as usize) {
                return ControlFlow::Break(());
            }
            match change.add(&found, listed) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        })
        .map_err(|error| change.interrupted(error))?;
        if let Some(error) = failed {
            return Err(error);
        }
        changed = change.finish()?;
    }
    changed.sort_by_key(|job| job.enqueued_at);
    Ok(Requeued { letters: changed, stay })
}

// === impl Change ===

impl<'a> Change<'a> {
    fn open(
        options: &Options,
        topic: &'a Topic,
        names: Names,
        act: Act,
        dry_run: bool,
        done: Vec<Listed>,
    ) -> Result<Change<'a>, QueueError> {
        let mut change = Change {
            act,
            topic,
            names,
            transactions: None,
            batch: Vec::new(),
            batch_bytes: 0,
            pending: Vec::new(),
            done,
        };
        if !dry_run {
            let id = format!("{}.{}", options.group, change.names.dead);
            change.transactions =
                Some(Transactions::open(options, &id, transaction::PATIENCE).map_err(|undone| change.explain(undone))?);
        }
        Ok(change)
    }

    fn count(&self) -> usize {
        self.done.len() + self.pending.len()
    }

    fn add(&mut self, found: &Found<'_>, listed: Listed) -> Result<(), QueueError> {
        self.pending.push(listed);
        if self.transactions.is_none() {
            return Ok(());
        }
        if matches!(self.act, Act::Requeue { .. }) {
            self.batch_bytes += found.message.payload().map_or(0, <[u8]>::len);
            self.batch.push(requeued(found, &self.topic.name));
        }
        self.batch.push(tombstone(found));
        if self.pending.len() >= BATCH || self.batch_bytes >= BATCH_BYTES { self.commit() } else { Ok(()) }
    }

    fn commit(&mut self) -> Result<(), QueueError> {
        let committed = match &self.transactions {
            Some(transactions) if !self.batch.is_empty() => transactions.commit(&self.batch.iter().collect::<Vec<_>>()),
            _ => Ok(()),
        };
        match committed {
            Ok(()) => self.done.append(&mut self.pending),
            // The topic's limit is on what is sent to it at a time, too: each by itself shows which is too large.
            Err(Undone::Refused(_, error)) if is_too_large(&error) && self.pending.len() > 1 => self.commit_singly()?,
            Err(undone) => return Err(self.explain(undone)),
        }
        self.batch.clear();
        self.batch_bytes = 0;
        Ok(())
    }

    /// Each dead letter in a transaction of its own.
    fn commit_singly(&mut self) -> Result<(), QueueError> {
        let transactions = self.transactions.as_ref().expect("something was refused");
        for writes in self.batch.chunks(self.act.records()) {
            transactions.commit(&writes.iter().collect::<Vec<_>>()).map_err(|undone| self.explain(undone))?;
            self.done.push(self.pending.remove(0));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Listed>, QueueError> {
        self.commit()?;
        Ok(self.done)
    }

    /// Says what has been done before an error.
    fn interrupted(&self, error: QueueError) -> QueueError {
        let (done, verb) = (self.done.len(), self.act.done());
        if self.transactions.is_none() || done == 0 {
            return error;
        }
        let message = format!("{} after {done} dead letters were {verb}", error.message);
        let hint = error.hint.unwrap_or_else(|| RUN_AGAIN.to_owned());
        QueueError { message, hint: Some(hint), ..error }
    }

    fn explain(&self, undone: Undone) -> QueueError {
        let dead = &self.names.dead;
        let error = match undone {
            Undone::Fenced => {
                let message = format!("somebody else began to change the dead letters of `{dead}`");
                QueueError { transient: true, ..QueueError::lasting(message) }.with_hint(RUN_AGAIN)
            }
            Undone::Refused(at, error) if is_too_large(&error) => {
                let topic = &self.topic.name;
                let id = self.pending.get(at / self.act.records()).map(|listed| listed.id.as_str()).unwrap_or_default();
                QueueError::lasting(format!(
                    "cannot requeue `{id}`: with its history it is larger than `{topic}` takes"
                ))
                .with_hint(format!("raise `max.message.bytes` of `{topic}` by some KiB"))
            }
            Undone::Refused(_, error) | Undone::Failed(error) => explain(&error, "change the dead letters of", dead),
        };
        self.interrupted(error)
    }
}

const RUN_AGAIN: &str = "run it again: what was changed is not changed twice";

// === impl Act ===

impl Act {
    /// How many records it takes for a dead letter.
    fn records(self) -> usize {
        match self {
            Act::Requeue { .. } => 2,
            Act::Delete => 1,
        }
    }

    fn done(self) -> &'static str {
        match self {
            Act::Requeue { .. } => "requeued",
            Act::Delete => "deleted",
        }
    }
}

/// The record that sends a dead letter back: as it was enqueued, with no failures and a new clock.
fn requeued(found: &Found<'_>, topic: &str) -> Write {
    let mut envelope = found.envelope().into_owned();
    envelope.failures = 0;
    envelope.retries_requested = 0;
    envelope.requeues = envelope.requeues.saturating_add(1);
    envelope.first_started_at = None;
    envelope.due_at = None;
    envelope.parked_at = None;
    envelope.buried = None;
    envelope.lines = None;
    Write {
        topic: topic.to_owned(),
        partition: None,
        key: envelope.key.as_ref().and_then(|key| key.bytes()),
        value: (!envelope.null).then(|| found.original().to_vec()),
        headers: Some(record::written(&found.record.headers, &envelope, None)),
        shorter: None,
    }
}

/// The record that ends a dead letter, in the same partition as it.
fn tombstone(found: &Found<'_>) -> Write {
    Write {
        topic: found.message.topic().to_owned(),
        partition: Some(found.message.partition()),
        key: found.message.key().map(<[u8]>::to_vec),
        ..Write::default()
    }
}
