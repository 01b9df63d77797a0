//! What is committed, and what follows when it is not.

use std::sync::Arc;

use super::Consumer;
use crate::queue::Settled;
use crate::queue::kafka::commit::{Committed, Refused};
use crate::queue::kafka::flight::{Flight, Stage};
use crate::queue::kafka::group::Group;

/// A transaction is full with so many records; those of one delivery are never divided.
const TRANSACTION_MAX: usize = 1_000;

/// The same for their bytes, which the library holds meanwhile.
const TRANSACTION_BYTES_MAX: usize = 64 << 20;

impl Consumer {
    pub(super) fn committed(&mut self, committed: Committed) {
        let Committed { group: number, writes, result } = committed;
        // Of a membership that is over, it says nothing any more.
        let Some(group) = self.groups.numbered(number) else { return };
        let says = group.committed(result.is_ok());
        match &result {
            Ok(()) => self.all_there(number, writes),
            Err(refused) => self.none_there(number, writes, refused),
        }
        if says {
            self.verified(number, result.as_ref().err().map(|refused| &refused.error));
        }
    }

    /// A transaction is committed.
    fn all_there(&mut self, group: i64, writes: Vec<i64>) {
        let Some(group) = self.groups.numbered(group) else { return };
        for (tenure, told) in std::mem::take(&mut group.batch.telling) {
            // Who is not told hears that the right was lost.
            if group.partitions.contains_key(&tenure) {
                told.tell(Settled::Settled);
            }
        }
        for delivery in writes {
            self.all_written(delivery, None);
        }
    }

    /// A transaction is not: what was in it goes into the next, but for what was refused, which is left out for a while.
    fn none_there(&mut self, group: i64, writes: Vec<i64>, refused: &Refused) {
        let Some(group) = self.groups.numbered(group) else { return };
        group.batch.told.append(&mut group.batch.telling);
        for delivery in &writes {
            let Some(held) = self.flight.get(*delivery) else { continue };
            if let Some(partition) = group.partitions.get_mut(&held.tenure) {
                partition.offsets.not_done(held.offset);
            }
            if refused.delivery != Some(*delivery) {
                group.batch.writes.push_back(*delivery);
            }
        }
        if let Some(delivery) = refused.delivery {
            self.all_written(delivery, Some(&refused.error));
        }
    }

    pub(super) fn commit(&mut self) {
        let asked = !self.commit_for.is_empty() || self.closing.is_some();
        for group in self.groups.iter_mut() {
            let at_once = asked || group.batch.is_full();
            commit_now(group, &mut self.flight, at_once);
        }
        if self.commit_for.is_empty() || self.groups.iter().any(|group| !group.batch.is_empty()) {
            return;
        }
        if self.groups.are_committed() {
            for told in self.commit_for.drain(..) {
                told.send(()).ok();
            }
        }
    }
}

/// Has what is done by one membership committed, unless a commit is under way.
pub(super) fn commit_now(group: &mut Group, flight: &mut Flight, at_once: bool) {
    if !group.may_commit(at_once) {
        return;
    }
    let (mut writes, mut bytes) = (Vec::new(), 0);
    while writes.len() < TRANSACTION_MAX && bytes < TRANSACTION_BYTES_MAX {
        let Some(delivery) = group.batch.writes.pop_front() else { break };
        let Some(held) = flight.get(delivery) else { continue };
        let Some(partition) = group.partitions.get_mut(&held.tenure) else { continue };
        let Stage::Writing(writing) = &held.stage else { continue };
        writes.extend(writing.writes().map(|write| (delivery, Arc::clone(write))));
        bytes += writing.bytes();
        partition.offsets.done(held.offset);
        partition.dirty = true;
    }
    group.batch.telling.append(&mut group.batch.told);
    group.commit(writes);
}
