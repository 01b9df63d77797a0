//! What was received and is not settled: which job is next, and how many more there is room for. Pure, no I/O.
//!
//! Each handler has a lane of its own, and the lanes share the time of the slots by weight, so that a flood in one, or jobs
//! that all take their full timeout, do not starve another. A lane holds little more than its handler can start: what is worth some
//! [`AHEAD`] of its work, so that the queue is asked for hundreds of short jobs at a time and for long ones one by one.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use crate::handler::Handler;
use crate::queue::{Delivery, Demand, Receipt};
use crate::registry::Registry;

#[cfg(test)]
mod tests;

/// How much work is fetched ahead: enough for the queue to answer in large batches, little enough that another runner, or
/// another handler, waits no longer for its turn.
const AHEAD: Duration = Duration::from_millis(50);

/// The most jobs that are received and not settled, over all lanes.
const IN_FLIGHT_MAX: u32 = 16_384;

/// The most bytes of bodies that wait to be started, over all lanes: once there are more, no more is asked for.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// What was received and is not settled.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    lanes: BTreeMap<Arc<str>, Lane>,
    /// The lane that was served last: of equals the next turn is the one behind it.
    last_served: Option<Arc<str>>,
    /// How much the lanes that were served had used by then. Who comes later begins there, without a claim to what others
    /// used while it wanted nothing.
    used_by_now_us: f64,
    waiting_bytes: usize,
    waiting: u32,
    running: u32,
    in_flight: u32,
    /// Whether a job that must run alone is running.
    running_alone: bool,
    /// Nothing is handed out any more.
    closed: bool,
}

/// The jobs of one handler.
#[derive(Debug)]
struct Lane {
    waiting: VecDeque<Delivery>,
    share: Share,
    running: u32,
    /// How long it had slots, over its weight, in microseconds: attempts that run count as long as one takes in the mean.
    used_us: f64,
    /// Received and not settled: waiting, running, and run.
    in_flight: u32,
    /// How many more the last demand asked for, and how many were settled since.
    demanded: u32,
    settled_since_demand: u32,
    /// A running mean of how long an attempt takes, in microseconds; none before the first.
    mean_us: Option<f64>,
}

/// What a handler may have of the slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    /// How many of its attempts may run at a time.
    pub(crate) concurrency: u32,
    /// How much of the slots' time is its own while others want some too, beside theirs.
    pub(crate) weight: u32,
}

/// What it took to hand out a delivery, to be given back when its attempt is over.
#[derive(Debug, Clone)]
pub(crate) struct Turn {
    lane: Arc<str>,
    alone: bool,
    /// How long the attempt was expected to take, in microseconds.
    expected_us: f64,
}

// === impl Backlog ===

impl Backlog {
    /// Takes in what the queue handed over, for the handler `name`.
    pub(crate) fn push(&mut self, delivery: Delivery, name: &Arc<str>, share: Share) {
        self.in_flight += 1;
        self.waiting += 1;
        self.waiting_bytes += delivery.job.body.len();
        self.add(delivery, name, share);
    }

    fn add(&mut self, delivery: Delivery, name: &Arc<str>, share: Share) {
        let lane = self.lanes.entry(Arc::clone(name)).or_insert_with(|| Lane::new(share));
        let could_start = lane.may_start();
        lane.share = share;
        lane.in_flight += 1;
        lane.waiting.push_back(delivery);
        lane.comes(could_start, self.used_by_now_us);
    }

    /// Another registry is served: what waits goes to the lane of the handler that will run it, which may run as many at a
    /// time as it says now. What nobody serves any more stays, to be parked when its turn comes.
    pub(crate) fn sort_anew(&mut self, registry: &Registry) {
        let mut moved = Vec::new();
        for (name, lane) in &mut self.lanes {
            for delivery in std::mem::take(&mut lane.waiting) {
                match registry.get(&delivery.job.job_type) {
                    Some(handler) if handler.name != *name => {
                        lane.in_flight -= 1;
                        moved.push((delivery, Arc::clone(handler)));
                    }
                    Some(handler) => {
                        lane.share = handler.share();
                        lane.waiting.push_back(delivery);
                    }
                    None => lane.waiting.push_back(delivery),
                }
            }
        }
        for (delivery, handler) in moved {
            self.add(delivery, &handler.name, handler.share());
        }
    }

    /// The next delivery to run, if one may.
    pub(crate) fn next(&mut self) -> Option<(Delivery, Turn)> {
        if self.closed || self.waiting == 0 || self.running_alone {
            return None;
        }
        // Who used least, by weight. Of equals, behind the lane that was served last, then round from the front.
        let last = self.last_served.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.lanes.range::<Arc<str>, _>((last, Bound::Unbounded));
        let may_start = behind.chain(&self.lanes).filter(|(_, lane)| lane.may_start());
        let (turn, _) = may_start.min_by(|(_, one), (_, other)| one.cmp_use(other))?;
        let turn = Arc::clone(turn);
        let lane = self.lanes.get_mut(&turn).expect("it was just found");
        let alone = lane.waiting.front().is_some_and(|delivery| delivery.alone);
        if alone && self.running > 0 {
            // Its turn has come: nothing else starts until what runs has ended.
            return None;
        }
        let delivery = lane.waiting.pop_front().expect("a lane that may start has one waiting");
        let expected_us = lane.mean_us.unwrap_or(0.0);
        self.used_by_now_us = self.used_by_now_us.max(lane.used_us);
        lane.uses(expected_us);
        lane.running += 1;
        self.running += 1;
        self.waiting -= 1;
        self.waiting_bytes -= delivery.job.body.len();
        self.running_alone = alone;
        self.last_served = Some(Arc::clone(&turn));
        Some((delivery, Turn { lane: turn, alone, expected_us }))
    }

    /// An attempt is over, after `duration`; its settlement is under way.
    pub(crate) fn ran(&mut self, turn: &Turn, duration: Option<Duration>) {
        self.running -= 1;
        self.running_alone &= !turn.alone;
        let used_by_now_us = self.used_by_now_us;
        let lane = self.lane(turn);
        let could_start = lane.may_start();
        lane.running -= 1;
        let us = duration.map_or(0.0, |duration| duration.as_secs_f64() * 1e6);
        lane.uses(us - turn.expected_us);
        if duration.is_some() {
            lane.mean_us = Some(lane.mean_us.map_or(us, |mean| moved(mean, us)));
        }
        lane.comes(could_start, used_by_now_us);
    }

    /// A delivery that was handed out is settled. Answers whether so much has left its lane since the last demand that it is
    /// worth asking for more: a part of it at a time, so that the queue hands over many, but at once where a slot may be
    /// idle; and twice as much as was asked for already and did not come yet.
    pub(crate) fn settled(&mut self, turn: &Turn) -> bool {
        self.in_flight -= 1;
        let closed = self.closed;
        let lane = self.lane(turn);
        lane.in_flight -= 1;
        lane.settled_since_demand += 1;
        let part = if lane.waiting.is_empty() { 1 } else { lane.in_flight / 3 };
        !closed && lane.settled_since_demand >= part.max(lane.demanded)
    }

    /// Takes out a delivery that was not handed out yet.
    pub(crate) fn remove(&mut self, receipt: Receipt) -> Option<Delivery> {
        let (lane, at) = self.lanes.values_mut().find_map(|lane| {
            let at = lane.waiting.iter().position(|delivery| delivery.receipt() == receipt)?;
            Some((lane, at))
        })?;
        let delivery = lane.waiting.remove(at)?;
        lane.in_flight -= 1;
        self.in_flight -= 1;
        self.waiting -= 1;
        self.waiting_bytes -= delivery.job.body.len();
        Some(delivery)
    }

    /// Hands out nothing any more, and gives back what waited.
    pub(crate) fn close(&mut self) -> Vec<Delivery> {
        self.closed = true;
        self.waiting = 0;
        self.waiting_bytes = 0;
        let mut waited = Vec::new();
        for lane in self.lanes.values_mut() {
            self.in_flight -= u32::try_from(lane.waiting.len()).expect("bounded by IN_FLIGHT_MAX");
            lane.in_flight -= u32::try_from(lane.waiting.len()).expect("bounded by IN_FLIGHT_MAX");
            waited.extend(lane.waiting.drain(..));
        }
        waited
    }

    /// What there is room for, by the types that `registry` serves.
    pub(crate) fn demand(&mut self, registry: &Registry) -> Demand {
        let room = |handler: &Handler| self.room(&handler.name, handler.concurrency, handler.job_types.len());
        let others = registry.others().filter(|handler| !handler.is_paused()).map(|handler| room(handler));
        let mut demand = Demand { others, ..Demand::default() };
        for (job_type, handler) in registry.types() {
            if handler.is_paused() {
                demand.paused.push(Arc::clone(job_type));
            } else {
                demand.types.push((Arc::clone(job_type), room(handler)));
            }
        }
        self.bound(&mut demand);
        for lane in self.lanes.values_mut() {
            (lane.demanded, lane.settled_since_demand) = (0, 0);
        }
        let by_type = demand.types.iter().filter_map(|(job_type, room)| Some((registry.get(job_type)?, *room)));
        for (handler, room) in by_type.chain(registry.others().zip(demand.others)) {
            if let Some(lane) = self.lanes.get_mut(&handler.name) {
                lane.demanded += room;
            }
        }
        demand
    }

    /// How many more jobs of each of its `types` job types the handler `name` can take on.
    fn room(&self, name: &Arc<str>, concurrency: u32, types: usize) -> u32 {
        let lane = self.lanes.get(name);
        let ahead = lane.and_then(|lane| lane.mean_us).map_or(0, |mean_us| ahead(mean_us, concurrency));
        let held = lane.map_or(0, |lane| lane.in_flight);
        concurrency.saturating_add(ahead).saturating_sub(held).div_ceil(u32::try_from(types.max(1)).unwrap_or(u32::MAX))
    }

    /// How many deliveries were received and are not settled.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// How many run now.
    pub(crate) fn running(&self) -> u32 {
        self.running
    }

    /// Whether nothing is handed out any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether a delivery could be handed out now.
    pub(crate) fn has_next(&self) -> bool {
        !self.closed && !self.running_alone && self.waiting > 0 && self.lanes.values().any(Lane::may_start)
    }

    /// Cuts `demand` to what is left of the bounds over all lanes, in equal parts.
    fn bound(&self, demand: &mut Demand) {
        let left =
            if self.waiting_bytes > WAITING_BYTES_MAX { 0 } else { IN_FLIGHT_MAX.saturating_sub(self.in_flight) };
        let rooms = demand.types.iter_mut().map(|(_, room)| room).chain(demand.others.as_mut());
        let mut rooms: Vec<&mut u32> = rooms.filter(|room| **room > 0).collect();
        rooms.sort();
        let (mut left, mut lanes) = (left, u32::try_from(rooms.len()).unwrap_or(u32::MAX));
        for room in rooms {
            *room = (*room).min(left.div_ceil(lanes));
            left -= *room;
            lanes -= 1;
        }
    }

    fn lane(&mut self, turn: &Turn) -> &mut Lane {
        self.lanes.get_mut(&turn.lane).expect("a lane stays while something of it is in flight")
    }
}

/// A running mean, with one more duration in it. A slow job weighs more than a fast one, since fetching too much ahead is the
/// worse mistake; but not by all its length: on a busy machine one job in a hundred is a thousand times slower than the rest.
fn moved(mean_us: f64, us: f64) -> f64 {
    let us = us.min(mean_us * 8.0);
    let weight = if us < mean_us { 0.05 } else { 0.1 };
    mean_us + (us - mean_us) * weight
}

/// How many jobs of this length keep `concurrency` slots busy for [`AHEAD`].
fn ahead(mean_us: f64, concurrency: u32) -> u32 {
    let jobs = AHEAD.as_secs_f64() * 1e6 / mean_us.max(1.0) * f64::from(concurrency);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded from both sides just here")]
    let jobs = jobs.clamp(0.0, f64::from(IN_FLIGHT_MAX / 2)) as u32;
    jobs
}

// === impl Lane ===

impl Lane {
    fn new(share: Share) -> Lane {
        Lane {
            waiting: VecDeque::new(),
            share,
            running: 0,
            used_us: 0.0,
            in_flight: 0,
            demanded: 0,
            settled_since_demand: 0,
            mean_us: None,
        }
    }

    fn may_start(&self) -> bool {
        !self.waiting.is_empty() && self.running < self.share.concurrency
    }

    /// It used, or is taken to use, a slot for so long.
    fn uses(&mut self, us: f64) {
        self.used_us += us / f64::from(self.share.weight);
    }

    /// If it can start one now, and could not before, it begins where the others are: what it did not want, or was not to
    /// have, it does not catch up on.
    fn comes(&mut self, could_start: bool, used_by_now_us: f64) {
        if !could_start && self.may_start() {
            self.used_us = self.used_us.max(used_by_now_us);
        }
    }

    /// Which of two has less of the slots, for its weight: in time, and, while nothing is known of that, at present.
    fn cmp_use(&self, other: &Lane) -> Ordering {
        let now = |lane: &Lane| f64::from(lane.running) / f64::from(lane.share.weight);
        self.used_us.total_cmp(&other.used_us).then(now(self).total_cmp(&now(other)))
    }
}
