//! What is charted of an hour, by hand.

use super::*;
use crate::outcome::Kind;
use crate::queue::Count;

const START: UnixMs = UnixMs(1_800_000_000_000);

fn minutes(minutes: u64) -> UnixMs {
    START.plus(MINUTE * u32::try_from(minutes).unwrap())
}

fn job(job_type: &str) -> Job {
    Job { job_type: job_type.to_owned(), ..Job::default() }
}

fn settle(activity: &Activity, job_type: &str, fate: &Fate) {
    activity.settled(&job(job_type), fate, Settled::Settled);
}

fn end(activity: &Activity, job_type: &str, duration: Duration, memory_peak_bytes: u64) {
    activity.attempted(job_type, duration, memory_peak_bytes);
}

fn of<'a>(hour: &'a LastHour, job_type: &str) -> &'a OfType {
    hour.types.iter().find(|of| of.job_type.as_deref() == Some(job_type)).expect("the type is told")
}

#[test]
fn settlements_are_counted_by_what_became_of_the_job() {
    let activity = Activity::new(START);
    let fates = [
        Fate::Completed,
        Fate::Completed,
        Fate::Failed(Kind::Error),
        Fate::Retried,
        Fate::Buried(Kind::Trap),
        Fate::Released,
        Fate::Parked,
    ];
    fates.iter().for_each(|fate| settle(&activity, "a", fate));
    let hour = activity.last_hour(START, 10);
    let of = of(&hour, "a");
    let last = |minutes: &[u32]| *minutes.last().unwrap();
    assert_eq!([last(&of.done), last(&of.failed), last(&of.retried), last(&of.buried)], [2, 1, 1, 1]);
    assert!([&of.done, &of.failed].into_iter().all(|minutes| minutes.len() == MINUTES));
}

#[test]
fn settlement_that_came_too_late_counts_nothing() {
    let activity = Activity::new(START);
    activity.settled(&job("a"), &Fate::Completed, Settled::Fenced);
    activity.settled(&job("a"), &Fate::Completed, Settled::Conflicted);
    assert_eq!(activity.last_hour(START, 10).types, []);
}

#[test]
fn each_minute_is_counted_by_itself_for_an_hour() {
    let activity = Activity::new(START);
    for minute in 0..90 {
        activity.tick(minutes(minute));
        (0..minute).for_each(|_| settle(&activity, "a", &Fate::Completed));
    }
    let hour = activity.last_hour(minutes(89), 10);
    assert_eq!(hour.minute_ms, minute_of(minutes(89)));
    assert_eq!(of(&hour, "a").done, (30..90).collect::<Vec<u32>>());
}

#[test]
fn what_nobody_looked_at_for_some_minutes_is_in_the_right_one() {
    let activity = Activity::new(START);
    settle(&activity, "a", &Fate::Completed);
    let hour = activity.last_hour(minutes(3), 10);
    assert_eq!(of(&hour, "a").done[MINUTES - 4..], [1, 0, 0, 0]);
}

#[test]
fn type_with_nothing_for_an_hour_is_forgotten() {
    let activity = Activity::new(START);
    settle(&activity, "a", &Fate::Completed);
    assert_eq!(activity.last_hour(minutes(59), 10).types.len(), 1);
    assert_eq!(activity.last_hour(minutes(60), 10).types.len(), 0);
    settle(&activity, "a", &Fate::Completed);
    assert_eq!(activity.last_hour(minutes(60), 10).types.len(), 1);
}

#[test]
fn clock_that_is_set_back_forgets_nothing() {
    let activity = Activity::new(minutes(10));
    settle(&activity, "a", &Fate::Completed);
    let hour = activity.last_hour(START, 10);
    assert_eq!(of(&hour, "a").done.last(), Some(&1));
    assert_eq!(hour.minute_ms, minute_of(START));
}

#[test]
fn percentiles_are_of_the_last_minutes_and_extremes_of_the_hour() {
    let activity = Activity::new(START);
    end(&activity, "a", Duration::from_secs(8), 1 << 20);
    assert_eq!(of(&activity.last_hour(START, 10), "a").p50_us.map(|us| us / 1_000_000), Some(7));
    activity.tick(minutes(5));
    end(&activity, "a", Duration::from_millis(8), 1 << 10);
    let hour = activity.last_hour(minutes(5), 10);
    let of = of(&hour, "a");
    assert!(of.p99_us.unwrap() < 10_000, "{of:?}");
    assert_eq!((of.slowest_us, of.memory_peak_bytes), (8_000_000, 1 << 20));
}

#[test]
fn type_without_attempts_has_no_percentiles() {
    let activity = Activity::new(START);
    settle(&activity, "a", &Fate::Completed);
    assert_eq!(of(&activity.last_hour(START, 10), "a").p50_us, None);
}

#[test]
fn samples_are_of_the_minute_in_which_they_were_taken() {
    let activity = Activity::new(START);
    let count = |state, jobs| Count { job_type: Some("a".to_owned()), state, jobs };
    let counts = vec![
        count(State::Ready, 3),
        count(State::Scheduled, 4),
        count(State::Parked, 5),
        count(State::Running, 2),
        count(State::Dead, 100),
    ];
    activity.sampled(&Stats { counts, ..Stats::default() }, START);
    activity.sampled(&Stats::default(), minutes(2));
    let hour = activity.last_hour(minutes(2), 10);
    let of = of(&hour, "a");
    assert_eq!(of.waiting[MINUTES - 3..], [Some(12), None, Some(0)]);
    assert_eq!(of.running[MINUTES - 3..], [Some(2), None, Some(0)]);
}

#[test]
fn types_beyond_the_most_are_counted_together() {
    let activity = Activity::new(START);
    (0..TYPES_MAX + 5).for_each(|number| settle(&activity, &format!("type-{number}"), &Fate::Completed));
    let counts = vec![Count { job_type: Some("yet another".to_owned()), state: State::Ready, jobs: 7 }];
    activity.sampled(&Stats { counts, ..Stats::default() }, START);
    let hour = activity.last_hour(START, TYPES_MAX);
    assert_eq!(hour.types.len(), TYPES_MAX + 1);
    let others = hour.types.last().unwrap();
    assert_eq!((others.job_type.as_deref(), others.done.last()), (None, Some(&5)));
    assert_eq!(others.waiting.last(), Some(&Some(7)));
}

#[test]
fn the_busiest_are_told_first_and_the_rest_is_counted() {
    let activity = Activity::new(START);
    for (job_type, jobs) in [("some", 2), ("many", 3), ("few", 1)] {
        (0..jobs).for_each(|_| settle(&activity, job_type, &Fate::Completed));
    }
    let hour = activity.last_hour(START, 2);
    let names: Vec<_> = hour.types.iter().map(|of| of.job_type.as_deref().unwrap()).collect();
    assert_eq!((names, hour.types_omitted), (vec!["many", "some"], 1));
}

#[test]
fn counts_of_many_threads_are_all_there() {
    let activity = Activity::new(START);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let activity = &activity;
            scope.spawn(move || {
                for round in 0..5_000u64 {
                    settle(activity, ["a", "b"][usize::from(round % 2 == 0)], &Fate::Completed);
                    // Minutes go on meanwhile.
                    if thread == 0 && round % 500 == 0 {
                        activity.tick(minutes(round / 500));
                    }
                }
            });
        }
    });
    let hour = activity.last_hour(minutes(9), 10);
    assert_eq!(["a", "b"].map(|job_type| of(&hour, job_type).done.iter().sum::<u32>()), [10_000, 10_000]);
}
