//! Dead letters that go back, and those that go for good.

use std::sync::Arc;

use sandhog::outcome::Disposition;
use sandhog::outcome::{Failure, Kind};
use sandhog::queue::{Filter, Queue, REQUEUES_MAX, Requeue, Settled, Settlement, State};

use super::{attempt, bury, counted, ended, enqueue, new_job, receive_one, settle, settle_all};
use crate::eventually;

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
