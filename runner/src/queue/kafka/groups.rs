//! The two groups of a runner, and its memberships of them: one takes jobs, the other what waits for its time.
//!
//! In one group their partitions would be counted together, and some runners would have all of the jobs. What is done about a
//! job of the one is never committed with what is done about one of the other, so they know nothing of each other.

use super::Options;
use super::group::{Group, Partition};
use super::topics::Topics;

/// Which of the two groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The job topics: the group that somebody named, where others may be too.
    Jobs,
    /// Their tiers: a group of our own.
    Delays,
}

/// The memberships: none of either before the first demand, and between two of one.
#[derive(Default)]
pub(super) struct Groups([Option<Group>; Side::BOTH.len()]);

// === impl Side ===

impl Side {
    pub(super) const BOTH: [Side; 2] = [Side::Jobs, Side::Delays];

    /// What the group is called.
    pub(super) fn group(self, options: &Options) -> String {
        match self {
            Side::Jobs => options.group.clone(),
            Side::Delays => format!("{}.delays", options.group),
        }
    }

    /// The topics that it consumes.
    pub(super) fn topics(self, topics: &Topics) -> Vec<&str> {
        let names = topics.jobs.iter().map(|topic| &topic.names);
        match self {
            Side::Jobs => names.map(|names| names.jobs.as_str()).collect(),
            Side::Delays => names.flat_map(|names| &names.tiers).map(String::as_str).collect(),
        }
    }
}

// === impl Groups ===

impl Groups {
    pub(super) fn get(&self, side: Side) -> Option<&Group> {
        self.0[side as usize].as_ref()
    }

    pub(super) fn get_mut(&mut self, side: Side) -> Option<&mut Group> {
        self.0[side as usize].as_mut()
    }

    pub(super) fn join(&mut self, side: Side, group: Group) {
        self.0[side as usize] = Some(group);
    }

    pub(super) fn take(&mut self, side: Side) -> Option<Group> {
        self.0[side as usize].take()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Group> {
        self.0.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Group> {
        self.0.iter_mut().flatten()
    }

    /// The membership with this number, if it is not over.
    pub(super) fn numbered(&mut self, number: i64) -> Option<&mut Group> {
        self.iter_mut().find(|group| group.number == number)
    }

    /// The membership by which a tenure's partition is held.
    pub(super) fn of(&mut self, tenure: i64) -> Option<&mut Group> {
        self.iter_mut().find(|group| group.partitions.contains_key(&tenure))
    }

    /// The partition of a tenure, if it is held.
    pub(super) fn partition(&self, tenure: i64) -> Option<&Partition> {
        self.iter().find_map(|group| group.partitions.get(&tenure))
    }

    /// The same, for what changes in it.
    pub(super) fn partition_mut(&mut self, tenure: i64) -> Option<&mut Partition> {
        self.iter_mut().find_map(|group| group.partitions.get_mut(&tenure))
    }

    /// All partitions that are held, by their tenure.
    pub(super) fn partitions(&mut self) -> impl Iterator<Item = (i64, &mut Partition)> {
        self.iter_mut().flat_map(|group| &mut group.partitions).map(|(tenure, partition)| (*tenure, partition))
    }

    /// Whether all that is done is committed.
    pub(super) fn are_committed(&self) -> bool {
        self.iter().flat_map(|group| group.partitions.values()).all(Partition::is_committed)
    }
}
