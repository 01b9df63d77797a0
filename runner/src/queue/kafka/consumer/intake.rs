//! What comes in: records out of the partitions, into lanes, out to whoever has room.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::message::{BorrowedMessage, Message};

use super::Consumer;
use crate::queue::kafka::flight::{Content, Flight};
use crate::queue::kafka::group::Partition;
use crate::queue::kafka::groups::Groups;
use crate::queue::kafka::record::{Read, Record};
use crate::queue::kafka::tier::{self, Then};
use crate::queue::kafka::topics::Role;
use crate::queue::kafka::write::Why;
use crate::queue::kafka::{Options, Shared};
use crate::queue::offsets::Offsets;

/// The most records that are taken in before other things have their turn.
const TAKEN_MAX: usize = 2_048;

/// The most of one partition at a time: the next one has its turn.
const QUANTUM: usize = 64;

/// The most that is in flight of a partition of jobs. What of it is done must fit beside its mark.
const WINDOW_MAX: usize = 4_096;

/// The least, so that each partition gets on.
const WINDOW_MIN: usize = 16;

/// The same of a tier's partition: its records wait in hand.
const TIER_WINDOW: usize = 1_024;

/// How long what crowds a partition waits elsewhere.
const CROWDED: Duration = Duration::from_secs(10);

impl Consumer {
    /// Takes in as much as there is room for. Answers whether there may be more.
    pub(super) fn take_in(&mut self) -> bool {
        let Consumer { shared, groups, flight, .. } = self;
        let windows = windows(groups, shared);
        let (mut taken, mut more) = (0, false);
        let mut written = Vec::new();
        for (tenure, partition) in groups.partitions() {
            let window = match partition.role {
                Role::Jobs(topic) => windows[topic],
                Role::Tier(..) => TIER_WINDOW,
            };
            let mut quantum = QUANTUM;
            while partition.reader.is_filled() && partition.has_room(window) && flight.has_room(&shared.options) {
                if quantum == 0 || taken == TAKEN_MAX {
                    more = true;
                    break;
                }
                match partition.reader.next() {
                    Some(Ok(message)) => {
                        let place = (tenure, partition.role, window);
                        let to_write = accept(&message, place, &mut partition.offsets, flight, shared);
                        partition.dirty |= to_write.is_none();
                        written.extend(to_write.flatten());
                    }
                    Some(Err(error)) => shared.hear(&error, "cannot read topic", &partition.topic),
                    None => break,
                }
                quantum -= 1;
                taken += 1;
            }
        }
        for (delivery, why) in written {
            self.write(delivery, why, None);
        }
        more
    }

    pub(super) fn hand_over(&mut self) {
        let Some(demand) = self.demand.as_ref().filter(|_| !self.stopped) else { return };
        if self.groups.iter().any(|group| group.verifying) {
            return;
        }
        let mut received = self.flight.hand_out(demand);
        for (delivery, deaths) in self.suspects.judge(&mut received) {
            self.bury_suspect(delivery, deaths);
        }
        if !received.is_empty() {
            self.demand = None;
            self.shared.right.hand_out(&received);
            self.shared.inbox.hand_over(received);
        }
    }
}

/// Takes a record in, and says what is to be written of it, if anything. None: it was done before.
#[expect(clippy::option_option, reason = "done before, or new; and of the new ones some are written elsewhere")]
fn accept(
    message: &BorrowedMessage<'_>,
    (tenure, role, window): (i64, Role, usize),
    offsets: &mut Offsets,
    flight: &mut Flight,
    shared: &Shared,
) -> Option<Option<(i64, Why)>> {
    let offset = message.offset();
    if !offsets.receive(offset) {
        return None;
    }
    let record = Record::of(message);
    let value = message.payload().unwrap_or_default();
    let topic = &shared.topics.jobs[role.topic()];
    let job = match record.content(value, topic.job_type.as_deref(), shared.options.body_bytes_max) {
        Read::Job(job) => job,
        Read::Malformed(why) => {
            let delivery = flight.add(tenure, offset, record, Content::Malformed(value.to_vec()));
            return Some(Some((delivery, Why::Malformed(why.to_string()))));
        }
    };
    let now = shared.options.clock.now();
    let then = match (role, record.envelope.as_ref().and_then(|envelope| envelope.due_at)) {
        (Role::Tier(_, tier), Some(due)) => tier::then(tier, record.place.timestamp, due),
        _ => Then::Run(now),
    };
    let job_type = job.job_type.clone();
    let delivery = flight.add(tenure, offset, record, Content::Job(Arc::new(job)));
    match then {
        Then::Run(at) if at <= now => {}
        then => {
            flight.wait_for_time(delivery, then);
            return Some(None);
        }
    }
    if !flight.may_serve(&job_type) {
        return Some(Some((delivery, Why::Unserved)));
    }
    if matches!(role, Role::Jobs(_)) && flight.crowds(&job_type, tenure, window, Instant::now()) {
        return Some(Some((delivery, Why::Crowded(now.plus(CROWDED)))));
    }
    flight.wait(delivery);
    Some(None)
}

/// How much of each job topic's partitions may be in flight: the same for all topics together, whatever they have.
fn windows(groups: &Groups, shared: &Shared) -> Vec<usize> {
    let topics = shared.topics.jobs.len();
    let mut held = vec![0; topics];
    for partition in groups.iter().flat_map(|group| group.partitions.values()) {
        if let Role::Jobs(topic) = partition.role {
            held[topic] += 1;
        }
    }
    let all = shared.options.in_flight as usize / topics.max(1);
    held.into_iter().map(|held| (all / std::cmp::max(held, 1)).clamp(WINDOW_MIN, WINDOW_MAX)).collect()
}

// === impl Partition ===

impl Partition {
    fn has_room(&self, window: usize) -> bool {
        !self.leaving && !self.overflows && self.offsets.in_flight() < window
    }
}

// === impl Flight ===

impl Flight {
    fn has_room(&self, options: &Options) -> bool {
        self.jobs() < options.in_flight as usize && (self.bytes() as u64) < options.in_flight_bytes
    }
}
