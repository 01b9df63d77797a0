//! Which metrics there are: each with its name, what it says, and its values now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::by_type::{BEYOND, BOUNDS_US, OUTCOMES, Sum, TYPES_MAX, UNKNOWN};
use super::exposition::{Distribution, Family, Labels, Samples, Values};
use super::{Metrics, Readings, handlers};
use crate::queue::{State, Stats};
use crate::registry::{OTHERS, Registry};

/// What an attempt is taken to last where none has ended yet.
const FIRST_GUESS: Duration = Duration::from_secs(1);

type Sums = BTreeMap<Arc<str>, Sum>;

/// All that is known.
pub(super) fn of(metrics: &Metrics, readings: &Readings) -> Vec<Family> {
    let (sums, registry) = (metrics.by_type.sums(), metrics.registry.load());
    let mut families = of_attempts(&sums);
    families.extend(of_jobs(metrics, &sums));
    families.extend(of_runner(readings));
    families.extend(of_handlers(readings, &registry));
    if let Some((stats, age)) = &readings.stats {
        families.extend(of_queue(stats, *age, readings, &sums, &registry));
    }
    if let Some(counts) = &readings.traces {
        families.push(counter(
            "spans",
            "Spans of attempts, by what became of them.",
            &["result"],
            vec![
                (labels(&["exported"]), counts.exported as f64),
                (labels(&["dropped"]), counts.dropped as f64),
                (labels(&["refused"]), counts.refused as f64),
            ],
        ));
    }
    families
}

fn of_attempts(sums: &Sums) -> Vec<Family> {
    let mut ended = Vec::new();
    for (job_type, sum) in sums {
        for (outcome, count) in OUTCOMES.iter().zip(sum.ended) {
            // Those that are most asked for begin with 0, so that their first is an increase.
            if count > 0 || matches!(*outcome, "completed" | "failed") {
                ended.push((vec![Arc::clone(job_type), (*outcome).into()], count as f64));
            }
        }
    }
    let by_type = |value: &dyn Fn(&Sum) -> Option<f64>| -> Vec<(Values, f64)> {
        sums.iter().filter_map(|(job_type, sum)| Some((vec![Arc::clone(job_type)], value(sum)?))).collect()
    };
    vec![
        counter("attempts", "Attempts that ended, by job type and by how.", &["job_type", "outcome"], ended),
        Family {
            name: "attempt_duration_seconds",
            help: "How long attempts took, from before the instance was made to after it was thrown away.",
            samples: Samples::Histogram(&["job_type"], sums.iter().map(distribution).collect()),
        },
        gauge(
            "attempt_duration_mean_seconds",
            "A running mean of how long attempts take.",
            &["job_type"],
            by_type(&|sum| sum.mean.map(|mean| mean.as_secs_f64())),
        ),
        gauge(
            "instance_memory_peak_bytes",
            "The most memory that an attempt had since the runner started.",
            &["job_type"],
            by_type(&|sum| Some(sum.memory_peak_bytes as f64)),
        ),
        counter(
            "host_calls_denied",
            "How often attempts reached for what was not granted to them.",
            &["job_type"],
            by_type(&|sum| Some(sum.denied as f64)),
        ),
    ]
}

fn distribution((job_type, sum): (&Arc<str>, &Sum)) -> (Values, Distribution) {
    let bounds = BOUNDS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(sum.buckets).collect();
    let count = sum.buckets.iter().sum();
    (vec![Arc::clone(job_type)], Distribution { sum: sum.run_time.as_secs_f64(), count, buckets })
}

fn of_jobs(metrics: &Metrics, sums: &Sums) -> Vec<Family> {
    let dead = sums.iter().flat_map(|(job_type, sum)| {
        sum.dead.iter().map(|(kind, count)| (vec![Arc::clone(job_type), (&**kind).into()], *count as f64))
    });
    let alone = |value: &std::sync::atomic::AtomicU64| vec![(Vec::new(), value.load(Relaxed) as f64)];
    vec![
        counter("jobs_received", "Jobs that the queue handed to this runner.", &[], alone(&metrics.received)),
        counter("jobs_enqueued", "Jobs that this runner's API added.", &[], alone(&metrics.enqueued)),
        counter(
            "settlements",
            "Jobs given back to the queue: durably, too late (fenced), or against another change of state (conflicted).",
            &["result"],
            vec![
                (labels(&["settled"]), metrics.settled.load(Relaxed) as f64),
                (labels(&["fenced"]), metrics.fenced.load(Relaxed) as f64),
                (labels(&["conflicted"]), metrics.conflicted.load(Relaxed) as f64),
            ],
        ),
        counter(
            "dead_letters",
            "Jobs that this runner's attempts buried, by job type and kind.",
            &["job_type", "kind"],
            dead.collect(),
        ),
    ]
}

fn of_runner(readings: &Readings) -> Vec<Family> {
    let mut families = vec![
        gauge(
            "build_info",
            "Always 1: the version is a label.",
            &["version"],
            vec![(labels(&[env!("CARGO_PKG_VERSION")]), 1.0)],
        ),
        one("uptime_seconds", "How long the runner has been there.", readings.uptime.as_secs_f64()),
        one("draining", "1 while the runner ends what runs and takes nothing new.", truth(readings.draining)),
        one("slots", "How many attempts may run at one time.", readings.slots.into()),
        one("slots_busy", "How many attempts run.", readings.running.into()),
        one(
            "jobs_in_flight",
            "Jobs received and not settled: waiting, running or being settled.",
            readings.in_flight.into(),
        ),
        counter(
            "queue_sick_seconds",
            "For how long the queue could not be written or reached.",
            &[],
            vec![(Vec::new(), readings.queue_sick.as_secs_f64())],
        ),
    ];
    if let Some(pool) = &readings.pool {
        families.extend([
            gauge(
                "sandbox_pool_instances",
                "Instances in the pool: those of attempts, and those that wait for their next job.",
                &["state"],
                vec![(labels(&["busy"]), pool.busy.into()), (labels(&["waiting"]), pool.waiting.into())],
            ),
            one(
                "sandbox_pool_size",
                "How many instances the pool has room for; 0 where there is no pool.",
                pool.size.into(),
            ),
        ]);
    }
    families
}

fn of_handlers(readings: &Readings, registry: &Registry) -> Vec<Family> {
    let refused = readings.loads.as_ref().map_or(0, |loads| loads.refused_now());
    let states = handlers(registry, refused);
    let states = states.into_iter().map(|(state, count)| (labels(&[state]), count as f64)).collect();
    let mut families = vec![gauge(
        "handlers",
        "Handlers by state; refused ones lie in the folder and do not load.",
        &["state"],
        states,
    )];
    if let Some(loads) = &readings.loads {
        let reloads = loads.reloads().map(|(result, count)| (labels(&[result]), count as f64)).into();
        families.extend([
            counter("handler_reloads", "Generations of handlers that were loaded, or refused.", &["result"], reloads),
            counter(
                "handler_load_seconds",
                "Time spent loading what is served now or was.",
                &[],
                vec![(Vec::new(), loads.load_time().as_secs_f64())],
            ),
            counter(
                "handler_compiles",
                "Components that were compiled, not taken from the cache.",
                &[],
                vec![(Vec::new(), loads.compiles() as f64)],
            ),
            counter(
                "handler_compile_seconds",
                "Time spent compiling them.",
                &[],
                vec![(Vec::new(), loads.compile_time().as_secs_f64())],
            ),
        ]);
    }
    families
}

fn of_queue(stats: &Stats, age: Duration, readings: &Readings, sums: &Sums, registry: &Registry) -> Vec<Family> {
    let depth = depth(stats, registry);
    let work = work(&depth, sums);
    let since = |at: Option<crate::clock::UnixMs>| at.map_or(0.0, |at| (readings.now.0 - at.0).max(0) as f64 / 1e3);
    // The sum of nothing is a negative zero.
    let all = work.values().fold(0.0, |all, seconds| all + seconds);
    let depth = depth.into_iter();
    let depth = depth.map(|((job_type, state), jobs)| (vec![job_type, state.as_str().into()], jobs as f64)).collect();
    let mut families = vec![
        gauge(
            "queue_depth",
            "Jobs in the queue, of all runners, by job type and state.",
            &["job_type", "state"],
            depth,
        ),
        one(
            "queue_oldest_ready_seconds",
            "How long the oldest ready job has waited; 0 where none is ready.",
            since(stats.oldest_ready_at),
        ),
        gauge(
            "queue_backlog_by_type_seconds",
            "Estimated work that is ready, by job type: jobs times the mean time of an attempt.",
            &["job_type"],
            work.into_iter().map(|(job_type, seconds)| (vec![job_type], seconds)).collect(),
        ),
        one("queue_backlog_seconds", "Estimated work that is ready, of all types: what to scale by.", all),
        one("queue_blocked_partitions", "Partitions of Kafka that cannot go on.", stats.blocked.len() as f64),
        one("queue_stats_age_seconds", "How long ago the queue could be asked for these.", age.as_secs_f64()),
    ];
    if let Some(runners) = stats.runners {
        families.push(one("queue_runners", "Live runners on the queue.", runners.into()));
    }
    if let Some(fenced) = stats.fenced_total {
        families.push(counter(
            "queue_fenced_settlements",
            "Settlements of all runners that came after the right to the job was lost.",
            &[],
            vec![(Vec::new(), fenced as f64)],
        ));
    }
    families
}

/// Jobs by label and state. A type that nobody serves here by name has no label of its own.
fn depth(stats: &Stats, registry: &Registry) -> BTreeMap<(Arc<str>, State), u64> {
    let (mut depth, mut labelled) = (BTreeMap::new(), BTreeSet::new());
    for count in &stats.counts {
        let label = match count.job_type.as_deref() {
            Some(job_type) if registry.claims(job_type) => {
                if labelled.len() < TYPES_MAX {
                    labelled.insert(job_type);
                }
                if labelled.contains(job_type) { job_type } else { BEYOND }
            }
            Some(_) if registry.others().is_some() => OTHERS,
            Some(_) | None => UNKNOWN,
        };
        *depth.entry((label.into(), count.state)).or_default() += count.jobs;
    }
    depth
}

/// Seconds of work by label. A type of which no attempt ended here yet takes as long as the mean of the others.
fn work(depth: &BTreeMap<(Arc<str>, State), u64>, sums: &Sums) -> BTreeMap<Arc<str>, f64> {
    let (time, attempts) = sums.values().fold((Duration::ZERO, 0_u64), |(time, attempts), sum| {
        (time + sum.run_time, attempts + sum.buckets.iter().sum::<u64>())
    });
    let guess = if attempts > 0 { time.as_secs_f64() / attempts as f64 } else { FIRST_GUESS.as_secs_f64() };
    let ready = depth.iter().filter(|((_, state), _)| *state == State::Ready);
    let mean = |job_type| sums.get(job_type).and_then(|sum| sum.mean).map_or(guess, |mean| mean.as_secs_f64());
    ready.map(|((job_type, _), jobs)| (Arc::clone(job_type), *jobs as f64 * mean(job_type))).collect()
}

fn counter(name: &'static str, help: &'static str, labels: Labels, samples: Vec<(Values, f64)>) -> Family {
    Family { name, help, samples: Samples::Counter(labels, samples) }
}

fn gauge(name: &'static str, help: &'static str, labels: Labels, samples: Vec<(Values, f64)>) -> Family {
    Family { name, help, samples: Samples::Gauge(labels, samples) }
}

/// A gauge without labels.
fn one(name: &'static str, help: &'static str, value: f64) -> Family {
    gauge(name, help, &[], vec![(Vec::new(), value)])
}

fn labels(values: &[&str]) -> Values {
    values.iter().map(|value| Arc::from(*value)).collect()
}

fn truth(is_so: bool) -> f64 {
    if is_so { 1.0 } else { 0.0 }
}
