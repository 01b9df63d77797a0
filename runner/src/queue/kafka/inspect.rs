//! What people ask the queue: the topics are read for it, by whoever asks.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::ops::ControlFlow;

use super::found::{Found, Place};
use super::groups::Side;
use super::scan::{Part, Scan};
use super::topics::Names;
use super::{Options, Topic};
use crate::clock::UnixMs;
use crate::queue::{Blocked, Count, Demand, Filter, Listed, QueueError, Shown, State, Stats};

/// So many records of each kind of topic are read for an answer.
const RECORDS_MAX: u64 = 1_000_000;

/// One who looks.
struct Look<'a> {
    options: &'a Options,
    scan: Scan,
    /// The same by the group that has the delays, when something waits there.
    delays: OnceCell<Scan>,
}

/// What was read of one kind of topic.
#[derive(Debug, Default)]
struct Walked {
    parts: Vec<Part>,
    /// Offsets that were left out, since there were too many.
    unread: u64,
}

/// The first of what is shown to it, in the order of its list.
struct First {
    limit: usize,
    after: Option<Age>,
    newest_first: bool,
    last_first: BinaryHeap<Aged>,
}

/// When a job was enqueued, and where its first record stands.
type Age = (UnixMs, String, i32, i64);

/// A line of a list, in its order.
#[derive(Debug)]
struct Aged {
    age: Age,
    newest_first: bool,
    listed: Listed,
}

/// Whether the brokers answer, and let this runner see its first topic.
///
/// # Errors
///
/// Says what could not be read.
pub(super) fn answers(options: &Options) -> Result<(), QueueError> {
    let scan = Scan::open(options, Side::Jobs)?;
    let first = options.topics.first().map(|topic| Names::new(&topic.name).jobs);
    scan.whole(&first.into_iter().collect::<Vec<_>>()).map(drop)
}

/// How many jobs there are, by type and state.
///
/// # Errors
///
/// Says what could not be read.
pub(super) fn stats(options: &Options, now: UnixMs) -> Result<Stats, QueueError> {
    let look = Look::open(options)?;
    let mut counts: BTreeMap<(Option<String>, State), u64> = BTreeMap::new();
    let mut stats = Stats::default();
    let mut unread = 0;
    for place in Place::ALL {
        let walked = look.walk(&[place], &mut |found| {
            let state = found.state(now);
            *counts.entry((found.job_type().map(str::to_owned), state)).or_default() += 1;
            match state {
                State::Ready => least(&mut stats.oldest_ready_at, found.ready_at()),
                State::Scheduled => least(&mut stats.next_due_at, found.ready_at()),
                _ => {}
            }
            ControlFlow::Continue(())
        })?;
        // What was not read waits, for all that is known; which of the parked and the dead are still there, nobody knows.
        if walked.unread > 0 && matches!(place, Place::Jobs | Place::Tier) {
            let state = if place == Place::Jobs { State::Ready } else { State::Scheduled };
            *counts.entry((None, state)).or_default() += walked.unread;
        }
        unread += walked.unread;
        stats.blocked.extend(walked.parts.iter().filter_map(blocked));
    }
    stats.counts = counts.into_iter().map(|((job_type, state), jobs)| Count { job_type, state, jobs }).collect();
    stats.notes.push("jobs that are running count as ready: only their runner knows".to_owned());
    if unread > 0 {
        stats.notes.push(format!(
            "only {RECORDS_MAX} records of each kind of topic were read: of {unread} more the type is unknown, and parked and \
             dead ones among them are not counted"
        ));
    }
    match look.scan.members()? {
        Some(members) => stats.runners = Some(members),
        None => stats.notes.push(
            "live runners are not known: nobody is in the consumer group, or it has the newer protocol (KIP-848), of which \
             this cannot be asked"
                .to_owned(),
        ),
    }
    Ok(stats)
}

/// Jobs that pass `filter`, in its order.
///
/// # Errors
///
/// Says what could not be read.
pub(super) fn list(options: &Options, filter: &Filter, now: UnixMs) -> Result<Vec<Listed>, QueueError> {
    let places: &[Place] = match (&filter.kind, filter.state) {
        (Some(_), _) | (None, Some(State::Dead)) => &[Place::Dead],
        (None, Some(State::Ready)) => &[Place::Jobs, Place::Tier],
        (None, Some(State::Scheduled)) => &[Place::Tier],
        (None, Some(State::Parked)) => &[Place::Parked],
        (None, Some(State::Running | State::Completed)) => &[],
        (None, None) => &Place::ALL,
    };
    let limit = filter.limit.map_or(usize::MAX, |limit| limit as usize);
    if places.is_empty() || limit == 0 {
        return Ok(Vec::new());
    }
    let after = filter.after.as_deref().map(of_cursor).transpose()?;
    let mut first = First { limit, after, newest_first: filter.newest_first, last_first: BinaryHeap::new() };
    let walked = Look::open(options)?.walk(places, &mut |found| {
        if found.passes(filter, now) {
            first.add(found, now);
        }
        ControlFlow::Continue(())
    })?;
    if walked.unread > 0 {
        let unread = walked.unread;
        tracing::warn!(records = unread, "the list is not whole: {unread} records more than were read");
    }
    Ok(first.last_first.into_sorted_vec().into_iter().map(Aged::into_listed).collect())
}

/// All that is known of the job that `id` names; of several, the one that was enqueued last.
///
/// # Errors
///
/// Says what could not be read.
pub(super) fn show(options: &Options, id: &str, now: UnixMs) -> Result<Option<Shown>, QueueError> {
    let filter = Filter { ids: vec![id.to_owned()], ..Filter::default() };
    let mut newest: Option<Shown> = None;
    let walked = Look::open(options)?.walk(&Place::ALL, &mut |found| {
        if found.passes(&filter, now) {
            let shown = found.shown(now);
            if newest.as_ref().is_none_or(|newest| newest.listed.enqueued_at <= shown.listed.enqueued_at) {
                newest = Some(shown);
            }
        }
        ControlFlow::Continue(())
    })?;
    if walked.unread > 0 && newest.is_none() {
        let unread = walked.unread;
        tracing::warn!(records = unread, "not everything was looked at: {unread} records more than were read");
    }
    Ok(newest)
}

/// Whether there is a job that a runner which serves `demand` would work now, or a record that it must look at.
///
/// # Errors
///
/// Says what could not be read.
pub(super) fn has_work(options: &Options, demand: &Demand, now: UnixMs) -> Result<bool, QueueError> {
    let here: HashSet<&str> = demand.types.iter().map(|(job_type, _)| &**job_type).collect();
    let paused: HashSet<&str> = demand.paused.iter().map(|job_type| &**job_type).collect();
    let serves = |job_type: &str| here.contains(job_type) || (demand.others.is_some() && !paused.contains(job_type));
    let mut any = false;
    let walked = Look::open(options)?.walk(&[Place::Jobs, Place::Tier, Place::Parked], &mut |found| {
        // What is malformed must be buried, by anybody.
        any = found.state(now) != State::Scheduled && found.job_type().is_none_or(serves);
        if any { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(any || walked.unread > 0)
}

fn least(least: &mut Option<UnixMs>, moment: UnixMs) {
    *least = Some(least.map_or(moment, |least| least.min(moment)));
}

/// What holds a partition up, if anything does.
fn blocked(part: &Part) -> Option<Blocked> {
    let blocked = part.noted.blocked.as_ref().filter(|blocked| blocked.offset >= part.from)?;
    let waiting = part.to - part.from - part.noted.count() - 1;
    Some(Blocked {
        topic: part.topic.clone(),
        partition: part.partition,
        offset: blocked.offset,
        reason: blocked.reason.clone(),
        stalls: u64::try_from(waiting).unwrap_or(0),
    })
}

// === impl Look ===

impl<'a> Look<'a> {
    fn open(options: &'a Options) -> Result<Look<'a>, QueueError> {
        Ok(Look { options, scan: Scan::open(options, Side::Jobs)?, delays: OnceCell::new() })
    }

    /// Shows each job that lies in `places` to `visit`, until that breaks off.
    fn walk(
        &self,
        places: &[Place],
        visit: &mut dyn FnMut(&Found<'_>) -> ControlFlow<()>,
    ) -> Result<Walked, QueueError> {
        let mut walked = Walked::default();
        let mut over = false;
        for place in places {
            let mut left = RECORDS_MAX;
            for topic in &self.options.topics {
                for name in place.topics(&topic.name) {
                    if over {
                        return Ok(walked);
                    }
                    let mut visit = |found: &Found<'_>| {
                        let flow = visit(found);
                        over = flow.is_break();
                        flow
                    };
                    left -= self.walk_topic(topic, *place, name, left, &mut visit, &mut walked)?.min(left);
                }
            }
        }
        Ok(walked)
    }

    /// The same for one topic; answers how many records that took.
    fn walk_topic(
        &self,
        topic: &Topic,
        place: Place,
        name: String,
        limit: u64,
        visit: &mut dyn FnMut(&Found<'_>) -> ControlFlow<()>,
        walked: &mut Walked,
    ) -> Result<u64, QueueError> {
        let name = [name];
        let compacted = matches!(place, Place::Parked | Place::Dead);
        let mut parts = self.scan.whole(&name)?;
        if !compacted && parts.iter().any(|part| part.from < part.to) {
            self.of_group(place)?.pass_over_settled(&mut parts)?;
        }
        let mut show = |message: &rdkafka::message::BorrowedMessage<'_>| {
            use rdkafka::Message;
            let part = parts.iter().find(|part| part.partition == message.partition());
            if part.is_some_and(|part| part.noted.is_done(message.offset())) {
                return ControlFlow::Continue(());
            }
            visit(&Found::read(message, place, topic, self.options.body_bytes_max))
        };
        let extent = match compacted {
            true => self.scan.read_live(&parts, limit, &mut show)?,
            false => self.scan.read(&parts, limit, &mut show)?,
        };
        walked.parts.extend(parts);
        walked.unread += extent.unread;
        Ok(extent.records)
    }

    /// What knows the offsets of a place.
    fn of_group(&self, place: Place) -> Result<&Scan, QueueError> {
        match (place, self.delays.get()) {
            (Place::Tier, Some(delays)) => Ok(delays),
            (Place::Tier, None) => {
                let delays = Scan::open(self.options, Side::Delays)?;
                Ok(self.delays.get_or_init(|| delays))
            }
            _ => Ok(&self.scan),
        }
    }
}

/// The age that a cursor names.
fn of_cursor(cursor: &str) -> Result<Age, QueueError> {
    let age = || {
        let mut parts = cursor.splitn(4, '/');
        let mut number = || parts.next()?.parse::<i64>().ok();
        let (enqueued_at, partition, offset) = (UnixMs(number()?), number()?, number()?);
        Some((enqueued_at, parts.next()?.to_owned(), i32::try_from(partition).ok()?, offset))
    };
    age().ok_or_else(|| QueueError::no_cursor(cursor))
}

// === impl First ===

impl First {
    fn add(&mut self, found: &Found<'_>, now: UnixMs) {
        let envelope = found.envelope();
        let source = &envelope.source;
        let age = (envelope.enqueued_at, source.topic.clone(), source.partition, source.offset);
        let is_before = |one: &Age, other: &Age| if self.newest_first { one > other } else { one < other };
        if self.after.as_ref().is_some_and(|after| !is_before(after, &age)) {
            return;
        }
        if self.last_first.len() >= self.limit {
            if self.last_first.peek().is_some_and(|last| !is_before(&age, &last.age)) {
                return;
            }
            self.last_first.pop();
        }
        let aged = Aged { age, newest_first: self.newest_first, listed: found.listed(now) };
        self.last_first.push(aged);
    }
}

// === impl Aged ===

impl Aged {
    fn into_listed(self) -> Listed {
        let (enqueued_at, topic, partition, offset) = self.age;
        let cursor = format!("{}/{partition}/{offset}/{topic}", enqueued_at.0);
        Listed { cursor: Some(cursor), ..self.listed }
    }
}

impl Ord for Aged {
    fn cmp(&self, other: &Aged) -> std::cmp::Ordering {
        let order = self.age.cmp(&other.age);
        if self.newest_first { order.reverse() } else { order }
    }
}

impl PartialOrd for Aged {
    fn partial_cmp(&self, other: &Aged) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Aged {
    fn eq(&self, other: &Aged) -> bool {
        self.age == other.age
    }
}

impl Eq for Aged {}

// === impl Place ===

impl Place {
    /// The topics that are one, beside the job topic `jobs`.
    fn topics(self, jobs: &str) -> Vec<String> {
        let names = Names::new(jobs);
        match self {
            Place::Jobs => vec![names.jobs],
            Place::Tier => names.tiers.into(),
            Place::Parked => vec![names.parked],
            Place::Dead => vec![names.dead],
        }
    }
}
