//! What was done in the last hour, by job type and minute: what the page charts. Pure: it is told the time.

use std::array;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::Serialize;
use utoipa::ToSchema;

use crate::clock::UnixMs;
use crate::handler::Handler;
use crate::job::Job;
use crate::observe::{End, Fate, Observer};
use crate::queue::{Settled, State, Stats};

mod durations;
#[cfg(test)]
mod tests;

use durations::Durations;

/// How many minutes are told, the one that goes on included.
pub const MINUTES: usize = 60;

/// The most job types that are counted by themselves; what comes beyond them is counted together, as `others`.
pub const TYPES_MAX: usize = 1_000;

/// How many minutes the percentiles cover, the one that goes on included: enough to hold still, few enough to show what is
/// so now.
const PERCENTILE_MINUTES: usize = 5;

const MINUTE: Duration = Duration::from_secs(60);

/// Counts what this runner does. What it counts is gone with the process.
#[derive(Debug)]
pub struct Activity {
    /// Swapped whole when a type comes or goes, which is seldom, so that no attempt waits for another here.
    series: ArcSwap<HashMap<Arc<str>, Arc<Series>>>,
    others: Series,
    /// When the minute that goes on began. Held while series come, go, or are moved on by a minute.
    minute: Mutex<UnixMs>,
}

/// What is counted of one type.
#[derive(Debug, Default)]
struct Series {
    present: Present,
    past: Mutex<Past>,
}

/// The minute that goes on. Each number is right by itself: a reader may see an attempt in one and not yet in another.
#[derive(Debug)]
struct Present {
    done: AtomicU32,
    failed: AtomicU32,
    retried: AtomicU32,
    buried: AtomicU32,
    waiting: AtomicU64,
    running: AtomicU64,
    slowest_us: AtomicU64,
    memory_peak_bytes: AtomicU64,
    durations: Durations<AtomicU32>,
}

/// The minutes that are over, the latest last.
#[derive(Debug, Default)]
struct Past {
    minutes: VecDeque<Minute>,
    durations: VecDeque<Durations<u32>>,
}

/// A minute, as it was or is so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Minute {
    done: u32,
    failed: u32,
    retried: u32,
    buried: u32,
    waiting: Option<u64>,
    running: Option<u64>,
    slowest_us: u64,
    memory_peak_bytes: u64,
}

/// What this runner did in the last hour. Every list has one number a minute, the oldest first; the last is the minute that
/// goes on.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct LastHour {
    /// When the minute that goes on began.
    #[schema(value_type = i64)]
    pub minute_ms: UnixMs,
    /// Job types, the busiest first.
    pub types: Vec<OfType>,
    /// How many more types there are than are told.
    pub types_omitted: usize,
}

/// The same of one job type.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct OfType {
    /// The type; none: all types beyond the first 1,000, together.
    pub job_type: Option<String>,
    /// Jobs completed.
    pub done: Vec<u32>,
    /// Attempts that failed and are made again.
    pub failed: Vec<u32>,
    /// Attempts that asked for another.
    pub retried: Vec<u32>,
    /// Jobs that became dead letters by an attempt.
    pub buried: Vec<u32>,
    /// Jobs that waited, in the whole queue; null where it was not looked at.
    pub waiting: Vec<Option<u64>>,
    /// Jobs that ran, in the whole queue; null where it was not looked at.
    pub running: Vec<Option<u64>>,
    /// Half of the attempts of the last five minutes took no longer, within an eighth; null: there were none.
    pub p50_us: Option<u64>,
    /// 99 of 100 of them took no longer, within an eighth.
    pub p99_us: Option<u64>,
    /// The longest attempt of the hour.
    pub slowest_us: u64,
    /// The most memory that an attempt of the hour had.
    pub memory_peak_bytes: u64,
}

// === impl Activity ===

impl Activity {
    /// Nothing was done yet.
    pub fn new(now: UnixMs) -> Activity {
        Activity { series: ArcSwap::default(), others: Series::default(), minute: Mutex::new(minute_of(now)) }
    }

    /// Begins a new minute, if it is time to. Whoever looks begins one too; called once a minute it keeps the minutes apart
    /// while nobody looks.
    pub fn tick(&self, now: UnixMs) {
        drop(self.at_minute_of(now));
    }

    /// Takes down how many jobs of each type wait and run.
    pub fn sampled(&self, stats: &Stats, now: UnixMs) {
        let mut jobs: HashMap<&str, (u64, u64)> = HashMap::new();
        for count in &stats.counts {
            let Some(job_type) = &count.job_type else { continue };
            let (waiting, running) = match count.state {
                State::Ready | State::Scheduled | State::Parked => (count.jobs, 0),
                State::Running => (0, count.jobs),
                State::Dead | State::Completed => continue,
            };
            let of_type = jobs.entry(job_type).or_default();
            *of_type = (of_type.0 + waiting, of_type.1 + running);
        }
        let minute = self.at_minute_of(now);
        self.add(jobs.keys().copied(), &minute);
        let series = self.series.load();
        let (mut other_waiting, mut other_running) = (0, 0);
        for (job_type, (waiting, running)) in &jobs {
            if !series.contains_key(*job_type) {
                (other_waiting, other_running) = (other_waiting + waiting, other_running + running);
            }
        }
        self.others.present.sample(other_waiting, other_running);
        for (job_type, series) in series.iter() {
            let (waiting, running) = jobs.get(&**job_type).copied().unwrap_or_default();
            series.present.sample(waiting, running);
        }
    }

    /// The last hour of at most `limit` types.
    pub fn last_hour(&self, now: UnixMs, limit: usize) -> LastHour {
        let minute = self.at_minute_of(now);
        let series = self.series.load();
        let mut types: Vec<(u64, &str, &Series)> =
            series.iter().map(|(job_type, series)| (series.work(), &**job_type, &**series)).collect();
        types.sort_unstable_by(|(work, name, _), (other_work, other, _)| other_work.cmp(work).then(name.cmp(other)));
        let mut told: Vec<OfType> =
            types.iter().take(limit).map(|(_, name, series)| series.last_hour(Some((*name).to_owned()))).collect();
        if self.others.work() > 0 {
            told.push(self.others.last_hour(None));
        }
        LastHour { minute_ms: *minute, types: told, types_omitted: types.len().saturating_sub(limit) }
    }

    fn at_minute_of(&self, now: UnixMs) -> MutexGuard<'_, UnixMs> {
        let mut minute = lock(&self.minute);
        let now = minute_of(now);
        let over = now.since(*minute).as_millis() / MINUTE.as_millis();
        // A clock that was set back names the minute that goes on anew.
        *minute = now;
        if over == 0 {
            return minute;
        }
        let series = self.series.load();
        for series in series.values().map(|series| &**series).chain([&self.others]) {
            (0..over.min(MINUTES as u128)).for_each(|_| series.end_minute());
        }
        if series.values().any(|series| series.work() == 0) {
            let still = series.iter().filter(|(_, series)| series.work() > 0);
            let still = still.map(|(job_type, series)| (Arc::clone(job_type), Arc::clone(series))).collect();
            // What is counted just now of a type that had nothing for an hour may be missing.
            self.series.store(Arc::new(still));
        }
        minute
    }

    fn attempted(&self, job_type: &str, duration: Duration, memory_peak_bytes: u64) {
        let duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.count(job_type, |present| present.attempt(duration_us, memory_peak_bytes));
    }

    /// Tells the counts of `job_type`.
    fn count(&self, job_type: &str, count: impl Fn(&Present)) {
        let series = self.series.load();
        match series.get(job_type) {
            Some(series) => return count(&series.present),
            None if series.len() >= TYPES_MAX => return count(&self.others.present),
            None => self.add([job_type], &lock(&self.minute)),
        }
        match self.series.load().get(job_type) {
            Some(series) => count(&series.present),
            None => count(&self.others.present),
        }
    }

    /// Begins to count types, as far as there is room.
    fn add<'a>(&self, job_types: impl IntoIterator<Item = &'a str>, _held: &MutexGuard<'_, UnixMs>) {
        let series = self.series.load();
        let room = TYPES_MAX.saturating_sub(series.len());
        let new: Vec<&str> =
            job_types.into_iter().filter(|job_type| !series.contains_key(*job_type)).take(room).collect();
        if new.is_empty() {
            return;
        }
        let mut more = HashMap::clone(&series);
        more.extend(new.into_iter().map(|job_type| (Arc::from(job_type), Arc::default())));
        self.series.store(Arc::new(more));
    }
}

impl Observer for Activity {
    fn ended(&self, _handler: &Handler, job: &Job, end: &End<'_>) {
        self.attempted(&job.job_type, end.duration, end.memory_peak_bytes);
    }

    fn settled(&self, job: &Job, fate: &Fate, settled: Settled) {
        if settled == Settled::Settled {
            self.count(&job.job_type, |present| present.note(fate));
        }
    }
}

// === impl Series ===

impl Series {
    /// How much there is to tell: what was done, and what waits.
    fn work(&self) -> u64 {
        let past = lock(&self.past);
        past.minutes.iter().map(Minute::work).sum::<u64>() + self.present.minute().work()
    }

    fn end_minute(&self) {
        let mut past = lock(&self.past);
        if past.minutes.len() == MINUTES - 1 {
            past.minutes.pop_front();
        }
        past.minutes.push_back(self.present.take());
        if past.durations.len() == PERCENTILE_MINUTES - 1 {
            past.durations.pop_front();
        }
        past.durations.push_back(self.present.durations.take());
    }

    fn last_hour(&self, job_type: Option<String>) -> OfType {
        let past = lock(&self.past);
        let mut durations = self.present.durations.look();
        past.durations.iter().for_each(|minute| durations.add(minute));
        let before = std::iter::repeat_n(Minute::default(), MINUTES - 1 - past.minutes.len());
        let minutes: Vec<Minute> = before.chain(past.minutes.iter().copied()).chain([self.present.minute()]).collect();
        OfType {
            job_type,
            done: minutes.iter().map(|minute| minute.done).collect(),
            failed: minutes.iter().map(|minute| minute.failed).collect(),
            retried: minutes.iter().map(|minute| minute.retried).collect(),
            buried: minutes.iter().map(|minute| minute.buried).collect(),
            waiting: minutes.iter().map(|minute| minute.waiting).collect(),
            running: minutes.iter().map(|minute| minute.running).collect(),
            p50_us: durations.percentile(50),
            p99_us: durations.percentile(99),
            slowest_us: minutes.iter().map(|minute| minute.slowest_us).max().unwrap_or(0),
            memory_peak_bytes: minutes.iter().map(|minute| minute.memory_peak_bytes).max().unwrap_or(0),
        }
    }
}

// === impl Present ===

/// Stands for a number of jobs that was not looked at.
const NOT_SAMPLED: u64 = u64::MAX;

impl Default for Present {
    fn default() -> Present {
        Present {
            done: AtomicU32::default(),
            failed: AtomicU32::default(),
            retried: AtomicU32::default(),
            buried: AtomicU32::default(),
            waiting: AtomicU64::new(NOT_SAMPLED),
            running: AtomicU64::new(NOT_SAMPLED),
            slowest_us: AtomicU64::default(),
            memory_peak_bytes: AtomicU64::default(),
            durations: Durations::of(array::from_fn(|_| AtomicU32::default())),
        }
    }
}

impl Present {
    fn attempt(&self, duration_us: u64, memory_peak_bytes: u64) {
        self.durations.count(duration_us);
        raise(&self.slowest_us, duration_us);
        raise(&self.memory_peak_bytes, memory_peak_bytes);
    }

    fn note(&self, fate: &Fate) {
        let count = match fate {
            Fate::Completed => &self.done,
            Fate::Failed(_) => &self.failed,
            Fate::Retried => &self.retried,
            Fate::Buried(_) => &self.buried,
            Fate::Released | Fate::Parked => return,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn sample(&self, waiting: u64, running: u64) {
        self.waiting.store(waiting, Ordering::Relaxed);
        self.running.store(running, Ordering::Relaxed);
    }

    /// The minute so far, but for its durations.
    fn minute(&self) -> Minute {
        self.read(|count| count.load(Ordering::Relaxed), |count, _| count.load(Ordering::Relaxed))
    }

    /// The minute that is over, but for its durations; another begins.
    fn take(&self) -> Minute {
        self.read(|count| count.swap(0, Ordering::Relaxed), |count, empty| count.swap(empty, Ordering::Relaxed))
    }

    fn read(&self, small: impl Fn(&AtomicU32) -> u32, large: impl Fn(&AtomicU64, u64) -> u64) -> Minute {
        let sample = |count| Some(large(count, NOT_SAMPLED)).filter(|count| *count != NOT_SAMPLED);
        Minute {
            done: small(&self.done),
            failed: small(&self.failed),
            retried: small(&self.retried),
            buried: small(&self.buried),
            waiting: sample(&self.waiting),
            running: sample(&self.running),
            slowest_us: large(&self.slowest_us, 0),
            memory_peak_bytes: large(&self.memory_peak_bytes, 0),
        }
    }
}

// === impl Minute ===

impl Minute {
    fn work(&self) -> u64 {
        let settled = [self.done, self.failed, self.retried, self.buried].into_iter().map(u64::from).sum::<u64>();
        settled + u64::from(self.slowest_us > 0) + self.waiting.unwrap_or(0) + self.running.unwrap_or(0)
    }
}

/// How long it is until another minute begins.
pub fn until_next_minute(now: UnixMs) -> Duration {
    MINUTE - now.since(minute_of(now))
}

fn minute_of(now: UnixMs) -> UnixMs {
    let minute_ms = i64::try_from(MINUTE.as_millis()).expect("a minute is short");
    UnixMs(now.0 - now.0.rem_euclid(minute_ms))
}

fn raise(most: &AtomicU64, value: u64) {
    // Read first: it seldom grows, and a write would take the line from the other threads.
    if value > most.load(Ordering::Relaxed) {
        most.fetch_max(value, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one, and if it did the counts would still be nearer the truth than none.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
