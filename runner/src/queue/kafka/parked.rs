//! Jobs whose type nobody serves: they lie in a topic of their own, and cost nothing until a handler comes.
//!
//! A thread follows that topic from where it has read it, and from its beginning when more types are served than before, and
//! now and then. What is served here it moves to this runner's own partitions of the shortest tier: record and tombstone in
//! one transaction. One runner does that at a time: whoever begins ends the others, who leave it to him for a while.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::message::BorrowedMessage;

use super::client::explain;
use super::envelope::{Buried, Envelope};
use super::flight::Served;
use super::groups::Side;
use super::record::{Record, written};
use super::scan::{Part, Scan};
use super::topics::JobTopic;
use super::transaction::{self, Transactions, Undone, is_too_large};
use super::write::Write;
use super::{Options, Shared, report};
use crate::clock::UnixMs;
use crate::outcome::{Failure, Kind};
use crate::queue::QueueError;

/// How often it is looked for what others have parked.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// How often everything is looked at again: for what waited too long.
const LOOK_AT_ALL_EVERY: Duration = Duration::from_secs(60 * 60);

/// How long it is left to whoever ended this runner's moves.
const LEAVE_TO_OTHERS: Duration = Duration::from_secs(20);

/// So many jobs are moved in one transaction, two records each, and a report where they are buried.
const BATCH: usize = 300;

/// And so many bytes, about.
const BATCH_BYTES: usize = 8 << 20;

/// What the consumer's thread says of what is served here.
#[derive(Debug, Default)]
pub(super) struct Parking {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    served: Arc<Served>,
    /// More is served than when all was last looked at.
    grown: bool,
    /// The partitions of the shortest tiers that are held, by job topic.
    tiers: Vec<(usize, i32)>,
    closed: bool,
}

/// The thread.
struct Mover {
    shared: Arc<Shared>,
    /// Up to where each partition was read.
    read: HashMap<(String, i32), i64>,
    looked_at_all: Option<Instant>,
    not_before: Instant,
    /// Job topics that are gone, and were said to be.
    gone: HashSet<String>,
}

/// What is to become of a parked job.
enum Fate {
    Run,
    Bury,
}

/// Moves of one job topic's parked jobs.
struct Moves<'a> {
    shared: &'a Shared,
    topic: &'a JobTopic,
    /// Which of the job topics it is.
    at: usize,
    tiers: Vec<i32>,
    transactions: Transactions,
    batch: Vec<Arc<Write>>,
    batch_bytes: usize,
    /// Of so many jobs.
    jobs: usize,
    moved: u64,
}

/// Starts the thread. It ends when the queue is closed.
///
/// # Errors
///
/// No thread is to be had.
pub(super) fn start(shared: &Arc<Shared>) -> Result<(), QueueError> {
    let mover = Mover {
        shared: Arc::clone(shared),
        read: HashMap::new(),
        looked_at_all: None,
        not_before: Instant::now(),
        gone: HashSet::new(),
    };
    std::thread::Builder::new()
        .name("queue-parked".to_owned())
        .spawn(move || mover.run())
        .map(drop)
        .map_err(|e| QueueError::lasting(format!("cannot start the thread for parked jobs: {e}")))
}

// === impl Parking ===

impl Parking {
    /// What is served from now on, and whether that is more than before.
    pub(super) fn serve(&self, served: Served, grown: bool) {
        let mut state = self.lock();
        state.served = Arc::new(served);
        state.grown |= grown;
        drop(state);
        if grown {
            self.changed.notify_all();
        }
    }

    /// Which partitions of the shortest tiers are held, by job topic.
    pub(super) fn hold(&self, tiers: Vec<(usize, i32)>) {
        self.lock().tiers = tiers;
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Waits until there is something to look at. Answers what is served, and whether that is more; none: it is closed.
    fn wait(&self) -> Option<(Arc<Served>, bool)> {
        let until = Instant::now() + LOOK_EVERY;
        let mut state = self.lock();
        while !state.closed && !state.grown {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.changed.wait_timeout(state, left).expect("nobody panics while holding what is served").0;
        }
        let grown = std::mem::take(&mut state.grown);
        (!state.closed).then(|| (Arc::clone(&state.served), grown))
    }

    fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn tiers(&self, topic: usize) -> Vec<i32> {
        self.lock().tiers.iter().filter(|(of, _)| *of == topic).map(|(_, partition)| *partition).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding what is served")
    }
}

// === impl Mover ===

impl Mover {
    fn run(mut self) {
        let mut grown = false;
        while let Some((served, more)) = self.shared.parking.wait() {
            grown |= more;
            if Instant::now() < self.not_before || served.is_loading() {
                continue;
            }
            let all = grown || self.looked_at_all.is_none_or(|at| at.elapsed() >= LOOK_AT_ALL_EVERY);
            match self.look(&served, all) {
                Ok(true) => grown = false,
                Ok(false) => self.leave_to_others(),
                Err(error) => {
                    tracing::debug!("cannot look at parked jobs: {error}");
                    self.leave_to_others();
                }
            }
        }
    }

    fn leave_to_others(&mut self) {
        // Not all at the same time again.
        let spread = Duration::from_millis(u64::from(std::process::id() % 7) * 700);
        self.not_before = Instant::now() + LEAVE_TO_OTHERS + spread;
    }

    /// Looks at what was parked since, or at all of it, and moves what is served. Answers whether it came to its end: not if
    /// another runner has begun to move.
    fn look(&mut self, served: &Served, all: bool) -> Result<bool, QueueError> {
        let shared = Arc::clone(&self.shared);
        let scan = Scan::open(&shared.options, Side::Jobs)?;
        for (at, topic) in shared.topics.jobs.iter().enumerate() {
            self.miss(&topic.names.jobs, scan.is_there(&topic.names.jobs)?);
            let parts = self.parts(&scan, &topic.names.parked, all)?;
            let now = shared.options.clock.now();
            let mut wanted = false;
            scan.read_live(&parts, u64::MAX, &mut |message| {
                wanted = fate(message, served, &shared.options, now).is_some();
                if wanted || shared.parking.is_closed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            if wanted && !self.move_served(&scan, (at, topic), &parts, served)? {
                return Ok(false);
            }
            for part in parts {
                self.read.insert((part.topic, part.partition), part.to);
            }
        }
        if all {
            self.looked_at_all = Some(Instant::now());
        }
        Ok(true)
    }

    /// Says once that a job topic is gone, and that it is there again: the library waits for it without a word.
    fn miss(&mut self, topic: &str, is_there: bool) {
        if is_there && self.gone.remove(topic) {
            tracing::info!(kafka.topic = topic, "topic `{topic}` is there again");
        } else if !is_there && self.gone.insert(topic.to_owned()) {
            tracing::warn!(kafka.topic = topic, "topic `{topic}` is gone: its jobs are worked when it is there again");
        }
    }

    fn parts(&self, scan: &Scan, parked: &String, all: bool) -> Result<Vec<Part>, QueueError> {
        let mut parts = scan.whole(std::slice::from_ref(parked))?;
        for part in parts.iter_mut().filter(|_| !all) {
            let read = self.read.get(&(part.topic.clone(), part.partition)).copied().unwrap_or(0);
            part.from = part.from.max(read).min(part.to);
        }
        Ok(parts)
    }

    fn move_served(
        &self,
        scan: &Scan,
        (at, topic): (usize, &JobTopic),
        parts: &[Part],
        served: &Served,
    ) -> Result<bool, QueueError> {
        let shared = &*self.shared;
        let id = format!("{}.{}", shared.options.group, topic.names.parked);
        let transactions = match Transactions::open(&shared.options, &id, transaction::PATIENCE) {
            Ok(transactions) => transactions,
            Err(Undone::Fenced) => return Ok(false),
            Err(Undone::Refused(_, error) | Undone::Failed(error)) => {
                return Err(explain(&error, "move the parked jobs of", &topic.names.parked));
            }
        };
        // Looked at again only now: whoever moved before is fenced, and what he did is either done or undone.
        let ends = scan.whole(std::slice::from_ref(&topic.names.parked))?;
        let mut parts = parts.to_vec();
        for part in &mut parts {
            part.to = ends.iter().find(|end| end.partition == part.partition).map_or(part.to, |end| end.to);
        }
        let now = shared.options.clock.now();
        let tiers = shared.parking.tiers(at);
        let (batch, batch_bytes, jobs) = (Vec::new(), 0, 0);
        let mut moves = Moves { shared, topic, at, tiers, transactions, batch, batch_bytes, jobs, moved: 0 };
        let mut undone = None;
        scan.read_live(&parts, u64::MAX, &mut |message| {
            let moved = match fate(message, served, &shared.options, now) {
                Some((fate, record, envelope)) => moves.add(message, &record, envelope, &fate, now),
                None => Ok(()),
            };
            match moved {
                Ok(()) if shared.parking.is_closed() => ControlFlow::Break(()),
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    undone = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        let ended = match undone {
            Some(undone) => Err(undone),
            None => moves.commit(),
        };
        if moves.moved > 0 {
            let (jobs, parked) = (moves.moved, &topic.names.parked);
            tracing::info!(jobs, kafka.topic = %parked, "{jobs} parked jobs go on: their type is served now, or they waited too long");
        }
        match ended {
            Ok(()) => Ok(true),
            Err(Undone::Fenced) => Ok(false),
            Err(Undone::Refused(_, error) | Undone::Failed(error)) => {
                Err(explain(&error, "move the parked jobs of", &topic.names.parked))
            }
        }
    }
}

/// What is to become of a parked record now, if anything.
fn fate(
    message: &BorrowedMessage<'_>,
    served: &Served,
    options: &Options,
    now: UnixMs,
) -> Option<(Fate, Record, Envelope)> {
    let record = Record::of(message);
    let envelope = record.envelope.as_deref()?;
    let is_served = envelope.job_type.as_deref().is_some_and(|job_type| served.serves(job_type));
    let since = envelope.parked_at.unwrap_or(record.place.timestamp);
    let fate = if is_served {
        Fate::Run
    } else if now.since(since) >= options.park_for {
        Fate::Bury
    } else {
        return None;
    };
    let envelope = envelope.clone();
    Some((fate, record, envelope))
}

// === impl Moves ===

impl Moves<'_> {
    fn add(
        &mut self,
        message: &BorrowedMessage<'_>,
        record: &Record,
        mut envelope: Envelope,
        fate: &Fate,
        now: UnixMs,
    ) -> Result<(), Undone> {
        let names = &self.topic.names;
        envelope.parked_at = None;
        let (topic, partition, key) = match fate {
            Fate::Run => {
                envelope.due_at = Some(now);
                let own = self.tiers.get(self.jobs % self.tiers.len().max(1)).copied();
                (names.tiers[0].clone(), own, None)
            }
            Fate::Bury => {
                let seconds = self.shared.options.park_for.as_secs();
                let failure = Failure::new(Kind::Expired, format!("no handler of its type for {seconds} s"));
                envelope.buried = Some(Buried { at: now, failure });
                (names.dead.clone(), None, Some(envelope.record.clone().into_bytes()))
            }
        };
        let value = message.payload().unwrap_or_default().to_vec();
        self.batch_bytes += value.len();
        let headers = written(&record.headers, &envelope, record.original.as_deref());
        let moved = Write { topic, partition, key, value: Some(value), headers: Some(headers), shorter: None };
        if let Some(report) = report::of(&moved, &self.shared.options, &self.shared.topics, self.at, now) {
            self.batch_bytes += report.bytes();
            self.batch.push(Arc::new(report));
        }
        self.batch.push(Arc::new(moved));
        self.batch.push(Arc::new(Write {
            topic: names.parked.clone(),
            partition: Some(message.partition()),
            key: message.key().map(<[u8]>::to_vec),
            ..Write::default()
        }));
        self.jobs += 1;
        if self.jobs >= BATCH || self.batch_bytes >= BATCH_BYTES { self.commit() } else { Ok(()) }
    }

    fn commit(&mut self) -> Result<(), Undone> {
        while !self.batch.is_empty() {
            match self.transactions.commit(&self.batch.iter().map(|write| &**write).collect::<Vec<_>>()) {
                Ok(()) => break,
                Err(Undone::Refused(at, error)) if is_too_large(&error) => {
                    let shorter = self.batch.get(at).and_then(|write| write.shorter.clone());
                    self.batch[at] = shorter.ok_or(Undone::Refused(at, error))?;
                }
                Err(undone) => return Err(undone),
            }
        }
        self.moved += self.jobs as u64;
        self.jobs = 0;
        self.batch.clear();
        self.batch_bytes = 0;
        Ok(())
    }
}
