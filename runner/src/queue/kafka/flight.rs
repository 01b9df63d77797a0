//! What was received and is not settled: which of it waits to be handed out, which for its time, which for a write.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::inbox::Received;
use super::record::Record;
use super::slots::Mark;
use super::tier::Then;
use super::write::Writing;
use crate::clock::UnixMs;
use crate::job::Job;
use crate::queue::{Demand, Receipt};

/// What a record costs beside its bytes.
const OVERHEAD_BYTES: usize = 512;

/// A lane out of which nothing went for so long cannot start now. A machine that is busy for a second is none of that: to set jobs
/// aside costs a write for each, and where their runner dies before that is committed they run twice.
const STUCK: Duration = Duration::from_secs(3);

/// All that is in flight, by the number of its delivery.
#[derive(Debug, Default)]
pub(super) struct Flight {
    held: HashMap<i64, Held>,
    last: i64,
    lanes: HashMap<Arc<str>, Lane>,
    timers: BinaryHeap<Reverse<(UnixMs, i64)>>,
    served: Served,
    /// How many count against what may be in flight: all but those that wait for their time.
    jobs: usize,
    bytes: usize,
}

/// One record that is in flight.
#[derive(Debug)]
pub(super) struct Held {
    /// The tenure of its partition.
    pub(super) tenure: i64,
    pub(super) offset: i64,
    pub(super) record: Record,
    pub(super) content: Content,
    pub(super) stage: Stage,
    bytes: usize,
}

/// What its value is.
#[derive(Debug)]
pub(super) enum Content {
    Job(Arc<Job>),
    /// Bytes that are no job.
    Malformed(Vec<u8>),
}

/// How far it has come.
#[derive(Debug)]
pub(super) enum Stage {
    /// In its type's lane.
    Waiting,
    /// In a tier.
    Timed(Then),
    /// Handed out.
    Out,
    /// A record of ours is to be there before it is done.
    Writing(Box<Writing>),
}

/// The jobs of one type that wait.
#[derive(Debug)]
struct Lane {
    waiting: VecDeque<i64>,
    /// How many of them are of each partition, by tenure.
    of: HashMap<i64, usize>,
    /// What they hold.
    bytes: usize,
    /// When one last went out, or the lane began.
    moved: Instant,
}

/// How much may be held.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Jobs of the partition.
    pub(super) window: usize,
    /// Bytes, of all partitions together.
    pub(super) bytes: usize,
}

/// Which types are served.
#[derive(Debug, Clone, Default)]
pub(super) struct Served {
    types: HashSet<Arc<str>>,
    others: bool,
    paused: HashSet<Arc<str>>,
    /// Others may be in a moment.
    loading: bool,
}

// === impl Flight ===

impl Flight {
    /// How many jobs are in flight, but for those that wait for their time.
    pub(super) fn jobs(&self) -> usize {
        self.jobs
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn get(&self, delivery: i64) -> Option<&Held> {
        self.held.get(&delivery)
    }

    pub(super) fn get_mut(&mut self, delivery: i64) -> Option<&mut Held> {
        self.held.get_mut(&delivery)
    }

    /// Takes a record in; where it goes is said next.
    pub(super) fn add(&mut self, tenure: i64, offset: i64, record: Record, content: Content) -> i64 {
        self.last += 1;
        let bytes = OVERHEAD_BYTES + content.len() + record.bytes();
        self.jobs += 1;
        self.bytes += bytes;
        self.held.insert(self.last, Held { tenure, offset, record, content, stage: Stage::Out, bytes });
        self.last
    }

    /// It is done, or somebody else's.
    pub(super) fn remove(&mut self, delivery: i64) -> Option<Held> {
        let held = self.held.remove(&delivery)?;
        self.bytes -= held.bytes;
        match &held.stage {
            Stage::Timed(_) => {}
            Stage::Waiting => {
                self.jobs -= 1;
                self.leave_lane(&held, delivery);
            }
            Stage::Out | Stage::Writing(_) => self.jobs -= 1,
        }
        Some(held)
    }

    /// It waits until somebody has room for it.
    pub(super) fn wait(&mut self, delivery: i64) {
        self.stage(delivery, Stage::Waiting);
        let Some(held) = self.held.get(&delivery) else { return };
        let Content::Job(job) = &held.content else { return };
        match self.lanes.get_mut(job.job_type.as_str()) {
            Some(lane) => lane.push(delivery, held),
            None => {
                let served = self.served.types.get(job.job_type.as_str());
                let job_type = served.cloned().unwrap_or_else(|| job.job_type.as_str().into());
                let mut lane = Lane::new();
                lane.push(delivery, held);
                self.lanes.insert(job_type, lane);
            }
        }
    }

    /// It waits for its time.
    pub(super) fn wait_for_time(&mut self, delivery: i64, then: Then) {
        let (Then::Run(at) | Then::Move(at)) = then;
        self.stage(delivery, Stage::Timed(then));
        self.timers.push(Reverse((at, delivery)));
    }

    /// It is done when a record of ours is there.
    pub(super) fn write(&mut self, delivery: i64, writing: Writing) {
        if let Some(held) = self.held.get_mut(&delivery) {
            let bytes = writing.bytes();
            held.bytes += bytes;
            self.bytes += bytes;
        }
        self.stage(delivery, Stage::Writing(Box::new(writing)));
    }

    /// Looks at it again at that time.
    pub(super) fn look_again(&mut self, delivery: i64, at: UnixMs) {
        self.timers.push(Reverse((at, delivery)));
    }

    /// The next delivery whose time has come.
    pub(super) fn due(&mut self, now: UnixMs) -> Option<i64> {
        let Reverse((at, _)) = self.timers.peek()?;
        if *at > now {
            return None;
        }
        self.timers.pop().map(|Reverse((_, delivery))| delivery)
    }

    /// When the next one's time comes.
    pub(super) fn next_due(&self) -> Option<UnixMs> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// Which types are served from now on. Answers those deliveries that wait and are of none, and whether more are served
    /// than before; nothing where nothing changed.
    pub(super) fn serve(&mut self, demand: &Demand) -> Option<(Vec<i64>, bool)> {
        let same = self.served.loading == demand.loading
            && self.served.others == demand.others.is_some()
            && self.served.types.len() == demand.types.len()
            && demand.types.iter().all(|(job_type, _)| self.served.types.contains(job_type))
            && self.served.paused.len() == demand.paused.len()
            && demand.paused.iter().all(|job_type| self.served.paused.contains(job_type));
        if same {
            return None;
        }
        let before = std::mem::replace(
            &mut self.served,
            Served {
                types: demand.types.iter().map(|(job_type, _)| Arc::clone(job_type)).collect(),
                others: demand.others.is_some(),
                paused: demand.paused.iter().cloned().collect(),
                loading: demand.loading,
            },
        );
        let grown = self.served.types.iter().any(|job_type| !before.serves(job_type))
            || self.served.others && (!before.others || before.paused.iter().any(|job_type| self.serves(job_type)))
            // What was read while it was not known yet what is served was passed over.
            || before.loading && !self.served.loading;
        let unserved = self.lanes.iter().filter(|(job_type, _)| !self.serves(job_type) && !self.served.loading);
        Some((unserved.flat_map(|(_, lane)| lane.waiting.iter().copied()).collect(), grown))
    }

    /// Which types are served.
    pub(super) fn served(&self) -> &Served {
        &self.served
    }

    /// Whether a job of this type may be run here, or may be in a moment.
    pub(super) fn may_serve(&self, job_type: &str) -> bool {
        self.served.loading || self.serves(job_type)
    }

    /// Whether a job of this type may be run here.
    pub(super) fn serves(&self, job_type: &str) -> bool {
        self.served.serves(job_type)
    }

    /// Whether jobs of this type cannot start now and fill so much, of a partition's window or of all that may be held, that no
    /// more of them are to be held.
    pub(super) fn crowds(&self, job_type: &str, tenure: i64, room: Room, now: Instant) -> bool {
        if !self.lanes.get(job_type).is_some_and(|lane| lane.is_stuck(now)) {
            return false;
        }
        let stuck = self.lanes.values().filter(|lane| lane.is_stuck(now));
        let here = |lane: &Lane| lane.of.get(&tenure).copied().unwrap_or(0);
        let (jobs, bytes) = stuck.fold((0, 0), |(jobs, bytes), lane| (jobs + here(lane), bytes + lane.bytes));
        jobs >= room.window / 2 || bytes >= room.bytes / 2
    }

    /// The same of what is held already: what is too much, the newest of each type first.
    pub(super) fn surplus(&self, room: impl Fn(i64) -> Room, now: Instant) -> Vec<i64> {
        let stuck = || self.lanes.values().filter(|lane| lane.is_stuck(now));
        let mut bytes: usize = stuck().map(|lane| lane.bytes).sum();
        let mut over: HashMap<i64, usize> = HashMap::new();
        for (tenure, jobs) in stuck().flat_map(|lane| &lane.of) {
            *over.entry(*tenure).or_default() += jobs;
        }
        for (tenure, over) in &mut over {
            *over = over.saturating_sub(room(*tenure).window / 2);
        }
        let mut surplus = Vec::new();
        for delivery in stuck().flat_map(|lane| lane.waiting.iter().rev()) {
            let held = &self.held[delivery];
            let over = over.entry(held.tenure).or_default();
            if *over > 0 || bytes > room(held.tenure).bytes / 2 {
                *over = over.saturating_sub(1);
                bytes -= held.bytes;
                surplus.push(*delivery);
            }
        }
        surplus
    }

    /// Hands out as much as there is room for.
    pub(super) fn hand_out(&mut self, demand: &Demand) -> Vec<Received> {
        let mut out = Vec::new();
        for (job_type, room) in &demand.types {
            self.hand_out_of(job_type, *room, &mut out);
        }
        let Some(mut room) = demand.others.filter(|room| *room > 0) else { return out };
        let others = self.lanes.iter().filter(|(job_type, lane)| {
            !lane.waiting.is_empty()
                && !self.served.types.contains(*job_type)
                && !self.served.paused.contains(*job_type)
        });
        let others: Vec<Arc<str>> = others.map(|(job_type, _)| Arc::clone(job_type)).collect();
        for job_type in others {
            let before = out.len();
            self.hand_out_of(&job_type, room, &mut out);
            room -= u32::try_from(out.len() - before).unwrap_or(u32::MAX);
        }
        out
    }

    fn hand_out_of(&mut self, job_type: &Arc<str>, room: u32, out: &mut Vec<Received>) {
        let Some(lane) = self.lanes.get_mut(job_type) else { return };
        let count = lane.waiting.len().min(room as usize);
        if count == 0 {
            return;
        }
        lane.moved = Instant::now();
        for delivery in lane.waiting.drain(..count) {
            let held = self.held.get_mut(&delivery).expect("what waits in a lane is held");
            let Content::Job(job) = &held.content else { continue };
            held.stage = Stage::Out;
            lane.bytes -= held.bytes;
            if let Some(of) = lane.of.get_mut(&held.tenure) {
                *of -= 1;
            }
            let receipt = Receipt { record: delivery, fence: held.tenure };
            out.push(Received { job: Arc::clone(job), alone: false, receipt, mark: Mark::of(&held.record) });
        }
        if lane.waiting.is_empty() {
            // Types are somebody else's to name: nothing may be left of those that are gone.
            self.lanes.remove(job_type);
        }
    }

    /// All that is held of some partitions.
    pub(super) fn of(&self, tenure: impl Fn(i64) -> bool) -> Vec<i64> {
        self.held.iter().filter(|(_, held)| tenure(held.tenure)).map(|(delivery, _)| *delivery).collect()
    }

    /// All that is held.
    pub(super) fn all(&self) -> Vec<i64> {
        self.held.keys().copied().collect()
    }

    fn stage(&mut self, delivery: i64, stage: Stage) {
        let Some(held) = self.held.get_mut(&delivery) else { return };
        let counted = |stage: &Stage| usize::from(!matches!(stage, Stage::Timed(_)));
        self.jobs = self.jobs + counted(&stage) - counted(&held.stage);
        let before = std::mem::replace(&mut held.stage, stage);
        if matches!(before, Stage::Waiting) {
            let held = self.held.remove(&delivery).expect("it was just there");
            self.leave_lane(&held, delivery);
            self.held.insert(delivery, held);
        }
    }

    fn leave_lane(&mut self, held: &Held, delivery: i64) {
        let Content::Job(job) = &held.content else { return };
        let Some(lane) = self.lanes.get_mut(job.job_type.as_str()) else { return };
        if let Some(at) = lane.waiting.iter().position(|waiting| *waiting == delivery) {
            lane.waiting.remove(at);
            lane.bytes -= held.bytes;
            if let Some(of) = lane.of.get_mut(&held.tenure) {
                *of -= 1;
            }
        }
        if lane.waiting.is_empty() {
            self.lanes.remove(job.job_type.as_str());
        }
    }
}

// === impl Content ===

impl Content {
    fn len(&self) -> usize {
        match self {
            Content::Job(job) => job.body.len(),
            Content::Malformed(bytes) => bytes.len(),
        }
    }

    /// The bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Content::Job(job) => job.body.as_bytes(),
            Content::Malformed(bytes) => bytes,
        }
    }

    /// The job, if it is one.
    pub(super) fn job(&self) -> Option<&Arc<Job>> {
        match self {
            Content::Job(job) => Some(job),
            Content::Malformed(_) => None,
        }
    }
}

// === impl Lane ===

impl Lane {
    fn new() -> Lane {
        Lane { waiting: VecDeque::new(), of: HashMap::new(), bytes: 0, moved: Instant::now() }
    }

    fn push(&mut self, delivery: i64, held: &Held) {
        self.waiting.push_back(delivery);
        *self.of.entry(held.tenure).or_default() += 1;
        self.bytes += held.bytes;
    }

    /// Whether nothing of it can start now, so far as one can tell.
    fn is_stuck(&self, now: Instant) -> bool {
        now.duration_since(self.moved) >= STUCK
    }
}

// === impl Served ===

impl Served {
    /// Whether handlers are still being loaded.
    pub(super) fn is_loading(&self) -> bool {
        self.loading
    }

    pub(super) fn serves(&self, job_type: &str) -> bool {
        !self.paused.contains(job_type) && (self.others || self.types.contains(job_type))
    }
}
