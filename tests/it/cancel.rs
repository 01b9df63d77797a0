//! Jobs that a person cancels: those that wait, and those that run, here or in another process; and what a waiter is spared.

use std::sync::Arc;
use std::time::Duration;

use sandhog::clock::{Clock, SystemClock};
use sandhog::outcome::{Disposition, Kind, RetryAfter};
use sandhog::queue::sqlite::{Options, SqliteQueue};
use sandhog::queue::{Cancelled, Delivery, Filter, Keep, NewJob, Queue, Settled, Settlement, State};
use tempfile::TempDir;

use crate::eventually;
use crate::queue_contract::{
    attempt, bury, complete, demand, ended, enqueue, named, new_job, receive_one, settle, within,
};
use crate::sqlite::options;
use crate::support::TestRunner;

/// A job that one process runs, and a person in another cancelled.
struct Asked {
    _dir: TempDir,
    runner: Arc<SqliteQueue>,
    person: Arc<SqliteQueue>,
    id: String,
    delivery: Delivery,
}

async fn asked() -> Asked {
    let dir = TempDir::new().unwrap();
    let runner = SqliteQueue::open(options(dir.path())).unwrap();
    let person = SqliteQueue::open(options(dir.path())).unwrap();
    let id = enqueue(&*person, vec![new_job("t")]).await.remove(0).id;
    let delivery = receive_one(&*runner, "t").await;
    assert_eq!(person.cancel(&id).await.unwrap(), Cancelled::Asked);
    Asked { _dir: dir, runner, person, id, delivery }
}

#[tokio::test]
async fn job_that_waits_is_buried_at_once() {
    let dir = TempDir::new().unwrap();
    let queue = SqliteQueue::open(options(dir.path())).unwrap();
    let id = enqueue(&*queue, vec![new_job("t")]).await.remove(0).id;
    assert_eq!(queue.cancel(&id).await.unwrap(), Cancelled::Buried);
    let shown = ended(&*queue, &id).await;
    assert_eq!((shown.listed.state, shown.listed.attempt), (State::Dead, 0));
    assert_eq!(shown.listed.failure.map(|failure| failure.kind), Some(Kind::Cancelled));
    assert_eq!(queue.cancel(&id).await.unwrap(), Cancelled::Ended(State::Dead));
    assert_eq!(queue.cancel("order-8").await.unwrap(), Cancelled::Unknown);
}

#[tokio::test]
async fn runner_in_another_process_is_told_of_what_it_runs() {
    let Asked { _dir, runner, person, id, delivery } = asked().await;
    assert_eq!(within(runner.cancellations()).await, [delivery.receipt()]);
    // It ended by itself before it could be broken off.
    assert_eq!(settle(&*runner, delivery, complete()).await, Settled::Settled);
    assert_eq!(person.cancel(&id).await.unwrap(), Cancelled::Ended(State::Completed));
}

#[tokio::test]
async fn cancelled_job_that_would_be_retried_is_buried() {
    let dir = TempDir::new().unwrap();
    let queue = SqliteQueue::open(options(dir.path())).unwrap();
    let id = enqueue(&*queue, vec![new_job("t")]).await.remove(0).id;
    let delivery = receive_one(&*queue, "t").await;
    assert_eq!(queue.cancel(&id).await.unwrap(), Cancelled::Asked);
    let (at, after) = (SystemClock.now(), RetryAfter::Request { reason: None });
    let retry = Settlement::new(Disposition::Retry { at, body: None, after }, Some(attempt(&delivery, None)));
    assert_eq!(settle(&*queue, delivery, retry).await, Settled::Settled);
    let shown = ended(&*queue, &id).await;
    assert_eq!(shown.listed.failure.map(|failure| failure.kind), Some(Kind::Cancelled));
}

#[tokio::test]
async fn cancelled_job_whose_runner_ends_is_buried() {
    let Asked { _dir, runner, person, id, delivery } = asked().await;
    drop(delivery);
    runner.close().await;
    // Another one comes, and finds it.
    enqueue(&*person, vec![named("t", "other")]).await;
    let other = within(person.receive(&demand("t", 2))).await.unwrap().remove(0);
    assert_eq!(other.job.id, "other");
    assert_eq!(ended(&*person, &id).await.listed.state, State::Dead);
}

#[tokio::test]
async fn job_that_is_waited_for_outlives_what_is_kept() {
    let dir = TempDir::new().unwrap();
    let keep = Keep { age: Duration::ZERO, bytes: 0 };
    let queue = SqliteQueue::open(Options { keep, ..options(dir.path()) }).unwrap();
    let hour = Duration::from_secs(3_600);
    let kept = NewJob::Job {
        job_type: "t".into(),
        body: "{}".into(),
        id: Some("kept".into()),
        run_at: None,
        metadata: Vec::new(),
        keep: Some(hour),
    };
    enqueue(&*queue, vec![kept, named("t", "waited"), named("t", "plain")]).await;
    queue.keep("waited", SystemClock.now().plus(hour)).await.unwrap();
    for _ in 0..3 {
        let delivery = receive_one(&*queue, "t").await;
        settle(&*queue, delivery, complete()).await;
    }
    let left = queue.list(Filter::default()).await.unwrap();
    assert_eq!(left.iter().map(|job| job.id.as_str()).collect::<Vec<_>>(), ["kept", "waited"]);
    assert!(queue.departed("plain").await.unwrap().is_some_and(|departed| departed.ended_at.is_some()));
    assert_eq!(queue.departed("kept").await.unwrap(), None, "it is there");
    assert_eq!(queue.departed("never").await.unwrap(), None);
}

#[tokio::test]
async fn automatic_id_of_a_job_that_is_gone_is_remembered() {
    let dir = TempDir::new().unwrap();
    let queue = SqliteQueue::open(options(dir.path())).unwrap();
    let id = enqueue(&*queue, vec![new_job("t")]).await.remove(0).id;
    assert_eq!(queue.departed(&id).await.unwrap(), None, "it is there");
    let delivery = receive_one(&*queue, "t").await;
    settle(&*queue, delivery, bury(Kind::Error, "no")).await;
    queue.delete_dead(Filter::default(), false).await.unwrap();
    assert!(queue.departed(&id).await.unwrap().is_some());
    assert_eq!(queue.departed("00000000-0000-7000-8000-000000000000").await.unwrap(), None, "of long ago");
}

#[test]
fn attempt_that_runs_is_broken_off_and_what_it_said_is_kept() {
    let runner = TestRunner::obeying();
    let id = runner.ask("begin-spin");
    eventually!(runner.log().iter().any(|line| line["target"] == "guest"));
    let asked = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let queue =
            SqliteQueue::open(Options::new(runner.path("sandhog.db"), runner.path("sandhog.db.state"))).unwrap();
        queue.cancel(&id).await.unwrap()
    });
    assert_eq!(asked, Cancelled::Asked);
    let job = runner.ended(&id);
    assert_eq!((job.state.as_str(), job.failures), ("dead", 0));
    assert_eq!(job.failure.expect("it was buried").kind, "cancelled");
    let shown = runner.sandhog(&["jobs", "show", &id]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("what attempt 1 said") && shown.contains("begun"), "{shown}");
}
