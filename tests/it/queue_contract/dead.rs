//! What every queue does with dead letters.

use std::sync::Arc;

use sandhog::clock::{Clock, SystemClock};
use sandhog::outcome::{Disposition, Failure, Kind};
use sandhog::queue::{Filter, NewJob, Queue, REQUEUES_MAX, Requeue, Settled, Settlement, State};

use super::{PATIENCE, attempt, bury, counted, ended, enqueue, new_job, receive_one, settle, settle_all};
use crate::eventually;

pub(super) async fn buried_job_is_a_dead_letter(queue: Arc<dyn Queue>) {
    let id = enqueue(&*queue, vec![new_job("t")]).await.remove(0).id;
    let delivery = receive_one(&*queue, "t").await;
    let body = delivery.job.body.clone();
    let failure = Failure::new(Kind::Limit("handles".into()), "1,001 handles");
    let record = attempt(&delivery, Some(failure.clone()));
    let settlement = Settlement::new(Disposition::Bury(failure.clone()), Some(record));
    assert_eq!(settle(&*queue, delivery, settlement).await, Settled::Settled);
    let dead = queue.list(Filter { state: Some(State::Dead), ..Filter::default() }).await.unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].id.as_str(), dead[0].job_type.as_deref()), (id.as_str(), Some("t")));
    assert_eq!((dead[0].failure.as_ref(), dead[0].failures, dead[0].attempt), (Some(&failure), 1, 1));
    assert!(dead[0].ended_at.is_some());
    let shown = ended(&*queue, &id).await;
    assert_eq!(shown.body, body.as_bytes());
    let of = |filter: Filter| queue.list(filter);
    let kind = |kind| Filter { kind: Some(kind), ..Filter::default() };
    assert_eq!(of(kind(failure.kind.clone())).await.unwrap().len(), 1);
    assert_eq!(of(kind(Kind::Trap)).await.unwrap().len(), 0);
    let since = |at| Filter { since: Some(at), ..Filter::default() };
    assert_eq!(of(since(SystemClock.now().plus(PATIENCE))).await.unwrap().len(), 0);
    assert_eq!(of(since(SystemClock.now().minus(PATIENCE))).await.unwrap().len(), 1);
}

pub(super) async fn requeued_dead_letter_runs_again(queue: Arc<dyn Queue>) {
    let id = enqueue(&*queue, vec![new_job("t")]).await.remove(0).id;
    enqueue(&*queue, vec![new_job("t")]).await;
    for _ in 0..2 {
        let delivery = receive_one(&*queue, "t").await;
        let failure = Failure::new(Kind::Trap, "unreachable");
        let record = attempt(&delivery, Some(failure.clone()));
        settle(&*queue, delivery, Settlement::new(Disposition::Bury(failure), Some(record))).await;
    }
    let only = Filter { ids: vec![id.clone()], ..Filter::default() };
    assert_eq!(
        queue.requeue_dead(only.clone(), Requeue { dry_run: true, ..Requeue::default() }).await.unwrap().letters.len(),
        1
    );
    assert_eq!(counted(&*queue, State::Dead).await, 2, "a dry run changes nothing");
    assert_eq!(queue.requeue_dead(only.clone(), Requeue::default()).await.unwrap().letters.len(), 1);
    assert_eq!(queue.requeue_dead(only, Requeue::default()).await.unwrap().letters.len(), 0, "it is dead no more");
    let delivery = receive_one(&*queue, "t").await;
    assert_eq!(delivery.job.id, id);
    assert_eq!((delivery.job.attempt, delivery.job.failures, delivery.job.first_started_at), (2, 0, None));
    assert_eq!(settle(&*queue, delivery, bury(Kind::Error, "again")).await, Settled::Settled);
    assert_eq!(ended(&*queue, &id).await.listed.requeues, 1);
}

pub(super) async fn hopeless_job_goes_back_by_force(queue: Arc<dyn Queue>) {
    let id = enqueue(&*queue, vec![new_job("t")]).await.remove(0).id;
    let mut requeues = 0;
    loop {
        let delivery = receive_one(&*queue, "t").await;
        settle(&*queue, delivery, bury(Kind::Error, "hopeless")).await;
        if queue.requeue_dead(Filter::default(), Requeue::default()).await.unwrap().letters.is_empty() {
            break;
        }
        requeues += 1;
    }
    assert_eq!(requeues, REQUEUES_MAX);
    let only = Filter { ids: vec![id], ..Filter::default() };
    let requeued = queue.requeue_dead(only.clone(), Requeue::default()).await.unwrap();
    assert_eq!((requeued.letters.len(), requeued.stay), (0, 1), "by its id neither");
    let force = Requeue { force: true, ..Requeue::default() };
    assert_eq!(queue.requeue_dead(only, force).await.unwrap().letters.len(), 1);
    settle_all(&*queue, vec![receive_one(&*queue, "t").await]).await;
}

pub(super) async fn deleted_dead_letter_is_gone(queue: Arc<dyn Queue>) {
    let id = enqueue(&*queue, vec![new_job("t")]).await.remove(0).id;
    let delivery = receive_one(&*queue, "t").await;
    settle(&*queue, delivery, bury(Kind::Error, "no")).await;
    assert_eq!(queue.delete_dead(Filter::default(), true).await.unwrap().len(), 1);
    assert_eq!(queue.delete_dead(Filter::default(), false).await.unwrap().len(), 1);
    eventually!(queue.show(&id).await.unwrap().is_none());
}

pub(super) async fn malformed_bytes_are_kept(queue: Arc<dyn Queue>) {
    let bytes = b"\xff\0not a job".to_vec();
    let malformed = NewJob::Malformed { bytes: bytes.clone(), reason: "not UTF-8: byte 0 is no character".into() };
    let id = enqueue(&*queue, vec![malformed]).await.remove(0).id;
    let shown = ended(&*queue, &id).await;
    assert_eq!((shown.body, shown.listed.state, shown.listed.job_type), (bytes, State::Dead, None));
    assert_eq!(shown.listed.failure.unwrap().kind, Kind::Malformed);
    assert!(queue.requeue_dead(Filter { ids: vec![id], ..Filter::default() }, Requeue::default()).await.is_err());
    assert_eq!(queue.requeue_dead(Filter::default(), Requeue::default()).await.unwrap().letters.len(), 0);
}
