//! What was received and is not settled: which job is next, and how many more there is room for. Pure, no I/O.
//!
//! Each handler has a lane of its own, and the lanes take turns, so that a flood in one, or jobs that all take their full
//! timeout, do not starve another. A lane holds little more than its handler can start: what is worth some
//! [`AHEAD`] of its work, so that the queue is asked for hundreds of short jobs at a time and for long ones one by one.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use crate::handler::Handler;
use crate::queue::{Delivery, Demand};
use crate::registry::Registry;

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
    /// The lane that was served last: the next turn is the one behind it.
    last_served: Option<Arc<str>>,
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
    /// How many may run at a time.
    concurrency: u32,
    running: u32,
    /// Received and not settled: waiting, running, and run.
    in_flight: u32,
    /// How many more the last demand asked for, and how many were settled since.
    demanded: u32,
    settled_since_demand: u32,
    /// A running mean of how long an attempt takes, in microseconds; none before the first.
    mean_us: Option<f64>,
}

/// What it took to hand out a delivery, to be given back when its attempt is over.
#[derive(Debug, Clone)]
pub(crate) struct Turn {
    lane: Arc<str>,
    alone: bool,
}

// === impl Backlog ===

impl Backlog {
    /// Takes in what the queue handed over, for the handler `name`.
    pub(crate) fn push(&mut self, delivery: Delivery, name: &Arc<str>, concurrency: u32) {
        let lane = self.lanes.entry(Arc::clone(name)).or_insert_with(Lane::new);
        lane.concurrency = concurrency;
        lane.in_flight += 1;
        self.in_flight += 1;
        self.waiting += 1;
        self.waiting_bytes += delivery.job.body.len();
        lane.waiting.push_back(delivery);
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
                        lane.concurrency = handler.concurrency;
                        lane.waiting.push_back(delivery);
                    }
                    None => lane.waiting.push_back(delivery),
                }
            }
        }
        for (delivery, handler) in moved {
            let lane = self.lanes.entry(Arc::clone(&handler.name)).or_insert_with(Lane::new);
            lane.concurrency = handler.concurrency;
            lane.in_flight += 1;
            lane.waiting.push_back(delivery);
        }
    }

    /// The next delivery to run, if one may.
    pub(crate) fn next(&mut self) -> Option<(Delivery, Turn)> {
        if self.closed || self.waiting == 0 || self.running_alone {
            return None;
        }
        // Behind the lane that was served last, then round from the front.
        let last = self.last_served.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.lanes.range::<Arc<str>, _>((last, Bound::Unbounded));
        let (turn, _) = behind.chain(&self.lanes).find(|(_, lane)| lane.may_start())?;
        let turn = Arc::clone(turn);
        let lane = self.lanes.get_mut(&turn).expect("it was just found");
        let alone = lane.waiting.front().is_some_and(|delivery| delivery.alone);
        if alone && self.running > 0 {
            // Its turn has come: nothing else starts until what runs has ended.
            return None;
        }
        let delivery = lane.waiting.pop_front().expect("a lane that may start has one waiting");
        lane.running += 1;
        self.running += 1;
        self.waiting -= 1;
        self.waiting_bytes -= delivery.job.body.len();
        self.running_alone = alone;
        self.last_served = Some(Arc::clone(&turn));
        Some((delivery, Turn { lane: turn, alone }))
    }

    /// An attempt is over, after `duration`; its settlement is under way.
    pub(crate) fn ran(&mut self, turn: &Turn, duration: Option<Duration>) {
        self.running -= 1;
        self.running_alone &= !turn.alone;
        let lane = self.lane(turn);
        lane.running -= 1;
        if let Some(duration) = duration {
            let us = duration.as_secs_f64() * 1e6;
            lane.mean_us = Some(lane.mean_us.map_or(us, |mean| moved(mean, us)));
        }
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
    fn new() -> Lane {
        Lane {
            waiting: VecDeque::new(),
            concurrency: 1,
            running: 0,
            in_flight: 0,
            demanded: 0,
            settled_since_demand: 0,
            mean_us: None,
        }
    }

    fn may_start(&self) -> bool {
        !self.waiting.is_empty() && self.running < self.concurrency
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Job;
    use crate::queue::{Receipt, Release};

    #[derive(Debug)]
    struct NoQueue;

    impl Release for NoQueue {
        fn release(&self, _: Receipt) {}

        fn executing(&self, _: Receipt, _: bool) -> u32 {
            0
        }

        fn executed(&self, _: u32) {}
    }

    /// A backlog in which `a` may run two at a time and `b` one, with jobs pushed in this order: `a` and `b`, an upper case
    /// letter for one that must run alone.
    fn backlog(jobs: &str) -> Backlog {
        let mut backlog = Backlog::default();
        for (record, letter) in (1..).zip(jobs.chars()) {
            let name = letter.to_lowercase().to_string();
            let job = Job {
                id: format!("{letter}{record}"),
                job_type: name.clone(),
                body: "{}".into(),
                attempt: 1,
                ..Job::default()
            };
            let delivery = Delivery::new(job, letter.is_uppercase(), Receipt { record, fence: 1 }, Arc::new(NoQueue));
            let concurrency = if name == "a" { 2 } else { 1 };
            backlog.push(delivery, &name.into(), concurrency);
        }
        backlog
    }

    /// Hands out what may run, and answers the ids.
    fn start(backlog: &mut Backlog, turns: &mut Vec<Turn>) -> String {
        let mut ids = Vec::new();
        while let Some((delivery, turn)) = backlog.next() {
            ids.push(delivery.job.id.clone());
            turns.push(turn);
        }
        ids.join(" ")
    }

    #[test]
    fn lanes_take_turns_within_their_concurrency() {
        let (mut backlog, mut turns) = (backlog("aaaabb"), Vec::new());
        assert_eq!(start(&mut backlog, &mut turns), "a1 b5 a2");
        assert!(!backlog.has_next());
        backlog.ran(&turns[0], None);
        assert_eq!(start(&mut backlog, &mut turns), "a3");
        backlog.ran(&turns[1], None);
        backlog.ran(&turns[2], None);
        assert_eq!(start(&mut backlog, &mut turns), "b6 a4");
    }

    #[test]
    fn suspect_job_runs_alone() {
        let (mut backlog, mut turns) = (backlog("aAa"), Vec::new());
        assert_eq!(start(&mut backlog, &mut turns), "a1");
        backlog.ran(&turns[0], None);
        assert_eq!(start(&mut backlog, &mut turns), "A2");
        backlog.ran(&turns[1], None);
        assert_eq!(start(&mut backlog, &mut turns), "a3");
    }

    #[test]
    fn room_grows_with_the_shortness_of_jobs_and_shrinks_with_what_is_in_flight() {
        let (mut backlog, mut turns) = (backlog("aa"), Vec::new());
        let name = Arc::from("a");
        assert_eq!(backlog.room(&name, 2, 1), 0);
        start(&mut backlog, &mut turns);
        for turn in &turns {
            backlog.ran(turn, Some(Duration::from_secs(10)));
            backlog.settled(turn);
        }
        assert_eq!(backlog.room(&name, 2, 1), 2);
        assert_eq!(backlog.room(&name, 8, 4), 2);
        let mut backlog = super::tests::backlog("a");
        let (_, turn) = backlog.next().unwrap();
        backlog.ran(&turn, Some(Duration::from_millis(1)));
        backlog.settled(&turn);
        assert_eq!(backlog.room(&name, 2, 1), 102);
        assert_eq!(backlog.room(&"new".into(), 2, 1), 2);
    }

    #[test]
    fn closed_backlog_hands_out_nothing_and_gives_back_what_waited() {
        let (mut backlog, mut turns) = (backlog("aaab"), Vec::new());
        let first = backlog.next().unwrap();
        assert_eq!(backlog.close().len(), 3);
        assert_eq!(start(&mut backlog, &mut turns), "");
        assert_eq!(backlog.in_flight(), 1);
        backlog.ran(&first.1, None);
        backlog.settled(&first.1);
        assert_eq!(backlog.in_flight(), 0);
    }
}
