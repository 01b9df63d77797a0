//! What comes in: records out of the partitions, into lanes, out to whoever has room.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::message::{BorrowedMessage, Message};

use super::Consumer;
use crate::clock::UnixMs;
use crate::queue::kafka::flight::{Content, Flight, Room};
use crate::queue::kafka::group::{Group, Partition};
use crate::queue::kafka::groups::Groups;
use crate::queue::kafka::record::{Read, Record};
use crate::queue::kafka::tier::{self, TIERS, Then};
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

/// How far ahead a tier is read: what it holds comes due in its order, and what is due later is better kept there than here.
const TIER_AHEAD: Duration = Duration::from_secs(2);

/// The tiers in which what crowds a partition waits: each time it is set aside in a longer one.
const ASIDE: RangeInclusive<usize> = 1..=3;

/// How often is looked for what crowds its partition.
const LOOK_FOR_CROWDS: Duration = Duration::from_secs(1);

/// What became of a record that was read.
enum Taken {
    /// It was done before.
    DoneBefore,
    /// It waits until somebody has room for it.
    Waits,
    /// It waits for its time.
    WaitsUntil(UnixMs),
    /// It is to be written elsewhere.
    Written(i64, Why),
}

impl Consumer {
    /// Takes in as much as there is room for. Answers whether there may be more.
    pub(super) fn take_in(&mut self) -> bool {
        let Consumer { shared, groups, flight, .. } = self;
        let windows = windows(groups, shared);
        // Read once: for records by the hundred thousand a second a look at the clock is a cost.
        let now = (shared.options.clock.now(), Instant::now());
        let far = now.0.plus(TIER_AHEAD);
        let (mut taken, mut more) = (0, false);
        let mut written = Vec::new();
        for (tenure, partition) in groups.partitions() {
            let room = room(partition.role, &windows, &shared.options);
            let mut quantum = QUANTUM;
            while partition.has_room(room.window, far) && flight.has_room(&shared.options) {
                if quantum == 0 || taken == TAKEN_MAX {
                    more = true;
                    break;
                }
                match partition.reader.next() {
                    Some(Ok(message)) => {
                        let place = (tenure, partition.role, room);
                        match accept(&message, place, now, &mut partition.offsets, flight, shared) {
                            Taken::DoneBefore => partition.dirty = true,
                            Taken::Waits => {}
                            Taken::WaitsUntil(at) => partition.next_due = Some(at),
                            Taken::Written(delivery, why) => written.push((delivery, why)),
                        }
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

    /// Sets aside what cannot start now and fills its partition's window, so that what stands behind it comes through.
    pub(super) fn set_aside(&mut self) {
        if Instant::now() < self.look_for_crowds_at {
            return;
        }
        self.look_for_crowds_at = Instant::now() + LOOK_FOR_CROWDS;
        let Consumer { shared, groups, flight, .. } = self;
        let windows = windows(groups, shared);
        let roles: HashMap<i64, Role> = groups.partitions().map(|(tenure, held)| (tenure, held.role)).collect();
        let none = Room { window: 0, bytes: usize::MAX };
        let room_of = |tenure| roles.get(&tenure).map_or(none, |role| room(*role, &windows, &shared.options));
        for delivery in flight.surplus(room_of, Instant::now()) {
            let role = self.flight.get(delivery).and_then(|held| roles.get(&held.tenure));
            if let Some(role) = role {
                self.write(delivery, Why::Crowded(aside(*role)), None);
            }
        }
    }

    pub(super) fn hand_over(&mut self) {
        let Some(demand) = self.demand.as_ref().filter(|_| !self.stopped) else { return };
        if self.groups.iter().any(Group::is_doubted) {
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

/// Takes a record in.
fn accept(
    message: &BorrowedMessage<'_>,
    (tenure, role, room): (i64, Role, Room),
    (now, instant): (UnixMs, Instant),
    offsets: &mut Offsets,
    flight: &mut Flight,
    shared: &Shared,
) -> Taken {
    let offset = message.offset();
    if !offsets.receive(offset) {
        return Taken::DoneBefore;
    }
    let record = Record::of(message);
    let value = message.payload().unwrap_or_default();
    let topic = &shared.topics.jobs[role.topic()];
    let job = match record.content(value, topic.job_type.as_deref(), shared.options.body_bytes_max) {
        Read::Job(job) => job,
        Read::Malformed(why) => {
            let delivery = flight.add(tenure, offset, record, Content::Malformed(value.to_vec()));
            return Taken::Written(delivery, Why::Malformed(why.to_string()));
        }
    };
    let then = match (role, record.envelope.as_ref().and_then(|envelope| envelope.due_at)) {
        (Role::Tier(_, tier), Some(due)) => tier::then(tier, record.place.timestamp, due),
        _ => Then::Run(now),
    };
    let job_type = job.job_type.clone();
    let delivery = flight.add(tenure, offset, record, Content::Job(Arc::new(job)));
    match then {
        Then::Run(at) if at <= now => {}
        Then::Run(at) | Then::Move(at) => {
            flight.wait_for_time(delivery, then);
            return Taken::WaitsUntil(at);
        }
    }
    if !flight.may_serve(&job_type) {
        return Taken::Written(delivery, Why::Unserved);
    }
    if flight.crowds(&job_type, tenure, room, instant) {
        return Taken::Written(delivery, Why::Crowded(aside(role)));
    }
    flight.wait(delivery);
    Taken::Waits
}

/// For how long a record is set aside. In the last tier it stays for that long again and again, so that a million of them are not
/// written anew every few seconds.
fn aside(role: Role) -> Duration {
    let tier = match role {
        Role::Jobs(_) => *ASIDE.start(),
        Role::Tier(_, tier) => (tier + 1).clamp(*ASIDE.start(), *ASIDE.end()),
    };
    TIERS[tier].delay
}

fn room(role: Role, windows: &[usize], options: &Options) -> Room {
    let window = match role {
        Role::Jobs(topic) => windows[topic],
        Role::Tier(..) => TIER_WINDOW,
    };
    Room { window, bytes: usize::try_from(options.in_flight_bytes).unwrap_or(usize::MAX) }
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
    /// Whether there is something to be read, and room for it; of a tier only what is due before it is `far`.
    fn has_room(&self, window: usize, far: UnixMs) -> bool {
        self.reader.is_filled()
            && !self.leaving
            && !self.overflows
            && self.offsets.in_flight() < window
            && self.next_due.is_none_or(|due| due <= far)
    }
}

// === impl Flight ===

impl Flight {
    fn has_room(&self, options: &Options) -> bool {
        self.jobs() < options.in_flight as usize && (self.bytes() as u64) < options.in_flight_bytes
    }
}
