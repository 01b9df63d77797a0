//! What is committed, and what follows when it is not.

use std::sync::Arc;

use super::{Batch, Consumer};
use crate::queue::Settled;
use crate::queue::kafka::commit::{Committed, Refused};
use crate::queue::kafka::flight::Stage;
use crate::queue::kafka::inbox::Written;

/// The most records in one transaction.
const TRANSACTION_MAX: usize = 1_000;

impl Consumer {
    pub(super) fn committed(&mut self, committed: Committed) {
        let Committed { writes, result } = committed;
        let Some(group) = &mut self.group else { return };
        group.committed(result.is_ok());
        match &result {
            Ok(()) => self.all_there(writes),
            Err(refused) => self.none_there(writes, refused),
        }
        if self.verifying {
            self.verified(result.as_ref().err().map(|refused| &refused.error));
        }
    }

    /// A transaction is committed.
    pub(super) fn all_there(&mut self, writes: Vec<i64>) {
        for (tenure, told) in std::mem::take(&mut self.batch.telling) {
            // Who is not told hears that the right was lost.
            if self.group.as_ref().is_some_and(|group| group.partitions.contains_key(&tenure)) {
                told.tell(Settled::Settled);
            }
        }
        for delivery in writes {
            self.written(Written { delivery, result: Ok(()) });
        }
    }

    /// A transaction is not: what was in it goes into the next, but for what was refused, which is left out for a while.
    pub(super) fn none_there(&mut self, writes: Vec<i64>, refused: &Refused) {
        let telling = std::mem::take(&mut self.batch.telling);
        self.batch.told.extend(telling);
        for delivery in writes {
            let Some(held) = self.flight.get_mut(delivery) else { continue };
            let partition = self.group.as_mut().and_then(|group| group.partitions.get_mut(&held.tenure));
            if let Some(partition) = partition {
                partition.offsets.not_done(held.offset);
            }
            if refused.delivery == Some(delivery) {
                self.written(Written { delivery, result: Err(refused.error.clone()) });
            } else {
                self.batch.writes.push_back(delivery);
            }
        }
    }

    pub(super) fn commit(&mut self) {
        let at_once = !self.commit_for.is_empty() || self.closing.is_some() || self.batch.is_full();
        self.commit_now(at_once);
        let Some(group) = &self.group else {
            self.commit_for.clear();
            return;
        };
        if self.commit_for.is_empty() || !self.batch.is_empty() {
            return;
        }
        let all: Vec<i64> = group.partitions.keys().copied().collect();
        if group.is_committed(&all) {
            for told in self.commit_for.drain(..) {
                told.send(()).ok();
            }
        }
    }

    pub(super) fn commit_now(&mut self, at_once: bool) {
        let Some(group) = self.group.as_mut().filter(|group| group.may_commit(at_once)) else { return };
        let mut writes = Vec::new();
        while writes.len() < TRANSACTION_MAX {
            let Some(delivery) = self.batch.writes.pop_front() else { break };
            let Some(held) = self.flight.get_mut(delivery) else { continue };
            let Some(partition) = group.partitions.get_mut(&held.tenure) else { continue };
            let Stage::Writing(writing) = &held.stage else { continue };
            writes.push((delivery, Arc::clone(&writing.write)));
            partition.offsets.done(held.offset);
            partition.dirty = true;
        }
        self.batch.telling.append(&mut self.batch.told);
        group.commit(writes);
    }
}

// === impl Batch ===

impl Batch {
    fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.told.is_empty() && self.telling.is_empty()
    }

    /// Whether it is worth a transaction at once. What waits for one holds up others: a runner receives so much, and no more
    /// before that is settled.
    fn is_full(&self) -> bool {
        self.writes.len() >= TRANSACTION_MAX || self.told.len() >= TRANSACTION_MAX
    }
}
