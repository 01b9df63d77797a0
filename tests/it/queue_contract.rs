//! What every queue must do: one suite of claims, for each implementation.
//!
//! A queue may say a moment later what it has done: a log is read anew for every question. What it is asked about is waited
//! for; what comes to a runner is not.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandhog::clock::{Clock, SystemClock, UnixMs};
use sandhog::generation::Generation;
use sandhog::outcome::{Disposition, Failure, Kind, RetryAfter};
use sandhog::queue::{AttemptRecord, Delivery, Demand, Enqueued, NewJob, Queue, Settled, Settlement, Shown, State};

use crate::eventually;

mod dead;
pub(crate) mod follow_ups;
mod looking;
pub(crate) mod reports;
pub(crate) mod state;

/// How long anything here may take before it is called a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Holds a queue to all claims, and names all that it does not keep. `make` makes a new one for each, with nothing in it.
pub(crate) async fn exercise<F: Future<Output = Arc<dyn Queue>>>(make: impl Fn() -> F) {
    let mut claims = Claims::default();
    let mut claim = async |name, held| claims.hold(name, held).await;
    claim("job comes as it was enqueued", Box::pin(job_comes_as_it_was_enqueued(make().await))).await;
    claim("completed job does not come again", Box::pin(completed_job_does_not_come_again(make().await))).await;
    claim("nothing is received without room", Box::pin(nothing_is_received_without_room(make().await))).await;
    claim("waiting receive hears of a new job", Box::pin(waiting_receive_hears_of_a_new_job(make().await))).await;
    claim("dropped receive loses nothing", Box::pin(dropped_receive_loses_nothing(make().await))).await;
    claim("failed job comes again with its count", Box::pin(failed_job_comes_again(make().await))).await;
    claim("asked retry brings its body", Box::pin(asked_retry_brings_its_body(make().await))).await;
    claim("job for later comes when it is due", Box::pin(job_for_later_comes_when_it_is_due(make().await))).await;
    claim("dropped delivery comes again", Box::pin(dropped_delivery_comes_again(make().await))).await;
    claim("dropped execution counts as a start", Box::pin(dropped_execution_counts(make().await))).await;
    claim("released job counts only if started", Box::pin(released_job_counts_only_if_started(make().await))).await;
    claim("buried job is a dead letter", Box::pin(dead::buried_job_is_a_dead_letter(make().await))).await;
    claim("requeued dead letter runs again", Box::pin(dead::requeued_dead_letter_runs_again(make().await))).await;
    claim("hopeless job goes back by force alone", Box::pin(dead::hopeless_job_goes_back_by_force(make().await))).await;
    claim("list comes in pages", Box::pin(looking::list_comes_in_pages(make().await))).await;
    let said = looking::dead_letter_has_what_the_guest_said(make().await);
    claim("dead letter has what the guest said", Box::pin(said)).await;
    claim("deleted dead letter is gone", Box::pin(dead::deleted_dead_letter_is_gone(make().await))).await;
    claim("malformed bytes are kept", Box::pin(dead::malformed_bytes_are_kept(make().await))).await;
    claim("unserved type waits", Box::pin(unserved_type_waits(make().await))).await;
    claim("others take what nobody serves", Box::pin(others_take_what_nobody_serves(make().await))).await;
    claim("paused type waits for others too", Box::pin(paused_type_waits_for_others_too(make().await))).await;
    claim("thousands come once each", Box::pin(thousands_come_once_each(make().await))).await;
    claim("stopped queue still settles", Box::pin(stopped_queue_still_settles(make().await))).await;
    claims.check();
}

/// Names the claims that a queue does not keep.
#[derive(Default)]
struct Claims(Vec<&'static str>);

impl Claims {
    async fn hold(&mut self, name: &'static str, held: Pin<Box<dyn Future<Output = ()> + Send>>) {
        let began = Instant::now();
        if tokio::spawn(within(held)).await.is_err() {
            self.0.push(name);
        }
        eprintln!("claim, in {:?}: {name}", began.elapsed());
    }

    fn check(self) {
        assert!(self.0.is_empty(), "claims that are not kept: {:#?}", self.0);
    }
}

async fn job_comes_as_it_was_enqueued(queue: Arc<dyn Queue>) {
    let body = "{ \"job_type\":\"t\",\"n\": 1.50, \"s\":\"\u{1F980}\\u0000\" }";
    let metadata = vec![("header.a".to_owned(), "1".to_owned()), ("header.a".to_owned(), "2".to_owned())];
    let before = SystemClock.now();
    let new = NewJob::Job {
        job_type: "t".into(),
        body: body.into(),
        id: None,
        run_at: None,
        metadata: metadata.clone(),
        keep: None,
    };
    let enqueued = enqueue(&*queue, vec![new]).await.remove(0);
    let delivery = receive_one(&*queue, "t").await;
    let job = &delivery.job;
    assert_eq!((job.id.as_str(), job.body.as_str(), job.job_type.as_str()), (enqueued.id.as_str(), body, "t"));
    assert_eq!((job.attempt, job.failures, job.interruptions, job.first_started_at), (1, 0, 0, None));
    assert!(job.enqueued_at >= before && job.enqueued_at <= SystemClock.now());
    assert!(metadata.iter().all(|pair| job.metadata.contains(pair)));
    assert!(job.metadata.iter().any(|(name, value)| name == "queue" && !value.is_empty()));
    assert_eq!(settle(&*queue, delivery, complete()).await, Settled::Settled);
}

async fn completed_job_does_not_come_again(queue: Arc<dyn Queue>) {
    let id = enqueue(&*queue, vec![new_job("t")]).await.remove(0).id;
    let delivery = receive_one(&*queue, "t").await;
    let attempt = attempt(&delivery, None);
    let settlement = Settlement::new(Disposition::Ack { result: Some(r#"{"n":1}"#.into()) }, Some(attempt));
    assert_eq!(settle(&*queue, delivery, settlement).await, Settled::Settled);
    let last = enqueue(&*queue, vec![new_job("t")]).await.remove(0).id;
    let next = receive_one(&*queue, "t").await;
    assert_eq!(next.job.id, last);
    assert_eq!(settle(&*queue, next, complete()).await, Settled::Settled);
    let open = |state| !matches!(state, State::Completed | State::Dead);
    eventually!(!queue.show(&id).await.unwrap().is_some_and(|shown| open(shown.listed.state)));
    if let Some(shown) = queue.show(&id).await.unwrap() {
        assert_eq!(shown.listed.state, State::Completed);
        assert_eq!(shown.result.unwrap().get(), r#"{"n":1}"#);
        assert_eq!((shown.listed.attempt, shown.listed.failures), (1, 0));
        assert_eq!(shown.listed.generation, Some(Generation::named("abcdefabcdef")));
    }
}

async fn nothing_is_received_without_room(queue: Arc<dyn Queue>) {
    enqueue(&*queue, vec![new_job("full"), new_job("free"), new_job("free")]).await;
    let demand = Demand { types: vec![("full".into(), 0), ("free".into(), 1)], ..Demand::default() };
    let received = queue.receive(&demand).await.unwrap();
    assert_eq!(received.iter().map(|delivery| delivery.job.job_type.as_str()).collect::<Vec<_>>(), ["free"]);
    settle_all(&*queue, received).await;
}

async fn waiting_receive_hears_of_a_new_job(queue: Arc<dyn Queue>) {
    let receiver = Arc::clone(&queue);
    let received = tokio::spawn(async move { receive_one(&*receiver, "t").await });
    tokio::task::yield_now().await;
    let id = enqueue(&*queue, vec![new_job("t")]).await.remove(0).id;
    let delivery = received.await.unwrap();
    assert_eq!(delivery.job.id, id);
    assert_eq!(settle(&*queue, delivery, complete()).await, Settled::Settled);
}

async fn dropped_receive_loses_nothing(queue: Arc<dyn Queue>) {
    let mut ids = HashSet::new();
    let demand = demand("t", 1);
    let mut dropped = 0;
    while dropped < 50 {
        ids.insert(enqueue(&*queue, vec![new_job("t")]).await.remove(0).id);
        // Polled once: what it takes then, nobody picks up.
        let receive = queue.receive(&demand);
        tokio::select! {
            biased;
            received = receive => {
                for delivery in received.unwrap() {
                    ids.remove(&delivery.job.id);
                    settle(&*queue, delivery, complete()).await;
                }
            }
            () = std::future::ready(()) => {}
        }
        dropped += 1;
    }
    while !ids.is_empty() {
        for delivery in queue.receive(&demand).await.unwrap() {
            assert!(ids.remove(&delivery.job.id));
            settle(&*queue, delivery, complete()).await;
        }
    }
}

async fn failed_job_comes_again(queue: Arc<dyn Queue>) {
    let id = enqueue(&*queue, vec![new_job("t")]).await.remove(0).id;
    let mut first_started_at = None;
    for number in 1..=20 {
        let delivery = receive_one(&*queue, "t").await;
        assert_eq!((delivery.job.attempt, delivery.job.failures), (number, number - 1));
        if number > 1 {
            assert_eq!(delivery.job.first_started_at, first_started_at, "it is told when it was first started");
        }
        let failure = Failure::new(Kind::Trap, format!("failure {number}"));
        let record = attempt(&delivery, Some(failure.clone()));
        first_started_at = first_started_at.or(Some(record.started_at));
        let at = SystemClock.now();
        let disposition = Disposition::Retry { at, body: None, after: RetryAfter::Failure(failure) };
        let settlement = Settlement::new(disposition, Some(record));
        assert_eq!(settle(&*queue, delivery, settlement).await, Settled::Settled);
    }
    let delivery = receive_one(&*queue, "t").await;
    assert_eq!(settle(&*queue, delivery, bury(Kind::Error, "enough")).await, Settled::Settled);
    let shown = ended(&*queue, &id).await;
    let numbers: Vec<u32> = shown.failed_attempts.iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, [1, 2, 3, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]);
    assert_eq!(shown.failed_attempts_omitted, 7);
    assert_eq!(shown.listed.failures, 20);
}

async fn asked_retry_brings_its_body(queue: Arc<dyn Queue>) {
    let id = enqueue(&*queue, vec![new_job("t")]).await.remove(0).id;
    let delivery = receive_one(&*queue, "t").await;
    let original = delivery.job.body.clone();
    let disposition = Disposition::Retry {
        at: SystemClock.now().plus(Duration::from_millis(30)),
        body: Some("page 2".into()),
        after: RetryAfter::Request { reason: None },
    };
    let at = SystemClock.now().plus(Duration::from_millis(30));
    let settlement = Settlement::new(disposition, Some(attempt(&delivery, None)));
    assert_eq!(settle(&*queue, delivery, settlement).await, Settled::Settled);
    let delivery = receive_one(&*queue, "t").await;
    assert!(SystemClock.now() >= at.minus(Duration::from_millis(5)), "it came before its time");
    assert_eq!((delivery.job.attempt, delivery.job.failures), (2, 0));
    assert_eq!(delivery.job.body, "page 2");
    assert_eq!(settle(&*queue, delivery, bury(Kind::Rejected, "no")).await, Settled::Settled);
    let shown = ended(&*queue, &id).await;
    assert_eq!(shown.body, original.as_bytes(), "a dead letter keeps the original");
    assert_eq!(shown.changed_body.as_deref(), Some("page 2"));
    assert_eq!(shown.listed.retries_requested, 1);
}

async fn job_for_later_comes_when_it_is_due(queue: Arc<dyn Queue>) {
    // As long as it takes to enqueue and count on a busy machine.
    let due = SystemClock.now().plus(Duration::from_secs(4));
    enqueue(&*queue, vec![later("t", Some(due)), later("t", Some(due.plus(Duration::from_secs(3600))))]).await;
    let stats = queue.stats().await.unwrap();
    assert!(stats.counts.iter().all(|count| count.state == State::Scheduled), "{stats:?}");
    assert_eq!(counted(&*queue, State::Scheduled).await, 2);
    let delivery = receive_one(&*queue, "t").await;
    assert!(SystemClock.now() >= due);
    assert_eq!(settle(&*queue, delivery, complete()).await, Settled::Settled);
    eventually!(counted(&*queue, State::Scheduled).await == 1);
    eventually!(!queue.has_work(&demand("t", 0)).await.unwrap());
    let stats = queue.stats().await.unwrap();
    assert_eq!(stats.next_due_at, Some(due.plus(Duration::from_secs(3600))));
}

async fn dropped_delivery_comes_again(queue: Arc<dyn Queue>) {
    enqueue(&*queue, vec![new_job("t")]).await;
    let delivery = receive_one(&*queue, "t").await;
    drop(delivery);
    let delivery = receive_one(&*queue, "t").await;
    assert_eq!((delivery.job.attempt, delivery.job.interruptions), (1, 0), "it had not been started");
    assert_eq!(settle(&*queue, delivery, complete()).await, Settled::Settled);
}

async fn dropped_execution_counts(queue: Arc<dyn Queue>) {
    enqueue(&*queue, vec![new_job("t")]).await;
    let delivery = receive_one(&*queue, "t").await;
    drop(delivery.executing());
    drop(delivery);
    let delivery = receive_one(&*queue, "t").await;
    assert_eq!((delivery.job.attempt, delivery.job.interruptions, delivery.job.failures), (2, 1, 0));
    assert!(delivery.job.first_started_at.is_some());
    assert_eq!(settle(&*queue, delivery, complete()).await, Settled::Settled);
}

async fn released_job_counts_only_if_started(queue: Arc<dyn Queue>) {
    enqueue(&*queue, vec![new_job("t")]).await;
    for (started, attempt, interruptions) in [(false, 1, 0), (true, 2, 1)] {
        let delivery = receive_one(&*queue, "t").await;
        let disposition = Disposition::Release { at: SystemClock.now(), started };
        let settled = settle(&*queue, delivery, Settlement::new(disposition, None)).await;
        assert_eq!(settled, Settled::Settled);
        let delivery = receive_one(&*queue, "t").await;
        assert_eq!((delivery.job.attempt, delivery.job.interruptions), (attempt, interruptions));
        drop(delivery);
    }
}

async fn unserved_type_waits(queue: Arc<dyn Queue>) {
    enqueue(&*queue, vec![new_job("nobody"), new_job("t")]).await;
    let delivery = receive_one(&*queue, "t").await;
    eventually!(counted(&*queue, State::Parked).await == 1);
    assert!(queue.has_work(&demand("t", 0)).await.unwrap());
    settle(&*queue, delivery, complete()).await;
    eventually!(!queue.has_work(&demand("t", 0)).await.unwrap());
    assert!(queue.has_work(&demand("nobody", 0)).await.unwrap());
    // Its handler has come: it had no attempt.
    let delivery = receive_one(&*queue, "nobody").await;
    assert_eq!(delivery.job.attempt, 1);
    settle(&*queue, delivery, Settlement::new(Disposition::Park, None)).await;
    let delivery = receive_one(&*queue, "nobody").await;
    assert_eq!(delivery.job.attempt, 1, "parking is no attempt");
    settle(&*queue, delivery, complete()).await;
}

async fn others_take_what_nobody_serves(queue: Arc<dyn Queue>) {
    enqueue(&*queue, ["a", "b", "c", "c"].map(new_job).into()).await;
    let demand = Demand { types: vec![("b".into(), 0)], others: Some(10), ..Demand::default() };
    let mut types = Vec::new();
    while types.len() < 3 {
        let received = queue.receive(&demand).await.unwrap();
        types.extend(received.iter().map(|delivery| delivery.job.job_type.clone()));
        settle_all(&*queue, received).await;
    }
    types.sort();
    assert_eq!(types, ["a", "c", "c"]);
}

async fn paused_type_waits_for_others_too(queue: Arc<dyn Queue>) {
    enqueue(&*queue, ["a", "b"].map(new_job).into()).await;
    let paused = Demand { others: Some(10), paused: vec!["a".into()], ..Demand::default() };
    let received = queue.receive(&paused).await.unwrap();
    assert_eq!(received.iter().map(|delivery| &*delivery.job.job_type).collect::<Vec<_>>(), ["b"]);
    settle_all(&*queue, received).await;
    eventually!(!queue.has_work(&paused).await.unwrap());
    eventually!({
        let counts = queue.stats().await.unwrap().counts;
        let waiting: Vec<_> = counts.iter().filter(|count| count.job_type.as_deref() == Some("a")).collect();
        waiting.len() == 1 && (waiting[0].state, waiting[0].jobs) == (State::Parked, 1)
    });
    let resumed = Demand { others: Some(10), ..Demand::default() };
    assert!(queue.has_work(&resumed).await.unwrap());
    let received = queue.receive(&resumed).await.unwrap();
    assert_eq!(received.len(), 1);
    settle_all(&*queue, received).await;
}

async fn thousands_come_once_each(queue: Arc<dyn Queue>) {
    let jobs: Vec<NewJob> = (0..5_000).map(|at| new_job(["a", "b", "c"][at % 3])).collect();
    let mut expected: HashSet<String> = enqueue(&*queue, jobs).await.into_iter().map(|job| job.id).collect();
    assert_eq!(expected.len(), 5_000);
    let demand = Demand { types: ["a", "b", "c"].map(|name| (name.into(), 200)).into(), ..Demand::default() };
    while !expected.is_empty() {
        let received = queue.receive(&demand).await.unwrap();
        assert!(received.iter().all(|delivery| expected.remove(&delivery.job.id)), "one came twice");
        settle_all(&*queue, received).await;
    }
    eventually!(!queue.has_work(&demand).await.unwrap());
}

async fn stopped_queue_still_settles(queue: Arc<dyn Queue>) {
    enqueue(&*queue, vec![new_job("t"), new_job("t")]).await;
    let delivery = receive_one(&*queue, "t").await;
    queue.stop_receiving().await;
    assert!(queue.receive(&demand("t", 1)).await.is_err());
    assert_eq!(settle(&*queue, delivery, complete()).await, Settled::Settled);
    queue.close().await;
    assert!(queue.enqueue(vec![new_job("t")]).await.is_err());
}

/// Fails what takes longer than anybody's patience.
pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it takes too long")
}

pub(crate) fn demand(job_type: &str, room: u32) -> Demand {
    Demand { types: vec![(job_type.into(), room)], ..Demand::default() }
}

pub(crate) async fn receive_one(queue: &dyn Queue, job_type: &str) -> Delivery {
    let mut received = within(queue.receive(&demand(job_type, 1))).await.unwrap();
    assert_eq!(received.len(), 1);
    received.remove(0)
}

pub(crate) async fn enqueue(queue: &dyn Queue, jobs: Vec<NewJob>) -> Vec<Enqueued> {
    within(queue.enqueue(jobs)).await.unwrap()
}

pub(crate) async fn settle(queue: &dyn Queue, delivery: Delivery, settlement: Settlement) -> Settled {
    within(settling(queue, delivery, settlement)).await
}

/// Settles it from the call on, and answers how that ended.
pub(crate) fn settling(
    queue: &dyn Queue,
    delivery: Delivery,
    settlement: Settlement,
) -> impl Future<Output = Settled> + use<> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let tell = move |settled| {
        // Whoever asked may have gone away.
        tell.send(settled).ok();
    };
    queue.settle(delivery, settlement, Box::new(tell));
    async { told.await.expect("a queue tells how each settlement ended") }
}

pub(crate) async fn settle_all(queue: &dyn Queue, deliveries: Vec<Delivery>) {
    let settled: Vec<_> = deliveries.into_iter().map(|delivery| settling(queue, delivery, complete())).collect();
    for settled in settled {
        assert_eq!(within(settled).await, Settled::Settled);
    }
}

/// What is known of the job, once it is shown as ended.
pub(crate) async fn ended(queue: &dyn Queue, id: &str) -> Shown {
    let has_ended = |shown: &Shown| matches!(shown.listed.state, State::Completed | State::Dead);
    eventually!(queue.show(id).await.unwrap().filter(has_ended))
}

pub(crate) async fn counted(queue: &dyn Queue, state: State) -> u64 {
    let stats = queue.stats().await.unwrap();
    stats.counts.iter().filter(|count| count.state == state).map(|count| count.jobs).sum()
}

pub(crate) fn new_job(job_type: &str) -> NewJob {
    later(job_type, None)
}

pub(crate) fn named(job_type: &str, id: &str) -> NewJob {
    let NewJob::Job { job_type, body, run_at, metadata, .. } = new_job(job_type) else { unreachable!() };
    NewJob::Job { job_type, body, id: Some(id.into()), run_at, metadata, keep: None }
}

fn later(job_type: &str, run_at: Option<UnixMs>) -> NewJob {
    NewJob::Job {
        job_type: job_type.into(),
        body: format!(r#"{{"job_type":"{job_type}"}}"#),
        id: None,
        run_at,
        metadata: Vec::new(),
        keep: None,
    }
}

pub(crate) fn attempt(delivery: &Delivery, failure: Option<Failure>) -> AttemptRecord {
    AttemptRecord {
        number: delivery.job.attempt,
        started_at: SystemClock.now(),
        duration_us: 1_234,
        memory_peak_bytes: 65_536,
        generation: Generation::named("abcdefabcdef"),
        failure,
    }
}

pub(crate) fn complete() -> Settlement {
    Settlement::new(Disposition::Ack { result: None }, None)
}

pub(crate) fn bury(kind: Kind, message: &str) -> Settlement {
    Settlement::new(Disposition::Bury(Failure::new(kind, message)), None)
}
