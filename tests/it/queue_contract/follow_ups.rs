//! What every queue must do with the jobs that an attempt enqueued.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sandhog::clock::{Clock, SystemClock, UnixMs};
use sandhog::outcome::{Disposition, Failure, Kind, RetryAfter};
use sandhog::queue::{Delivery, Demand, NewJob, Queue, Settled, Settlement, State};

use super::{Claims, attempt, counted, demand, enqueue, new_job, receive_one, settle, settle_all, settling, within};
use crate::eventually;

/// Holds a queue to all claims about follow-ups.
pub(crate) async fn exercise<F: Future<Output = Arc<dyn Queue>>>(make: impl Fn() -> F) {
    let mut claims = Claims::default();
    let mut claim = async |name, held| claims.hold(name, held).await;
    claim("they come with any answer", Box::pin(they_come_with_any_answer(make().await))).await;
    claim("they may be for later", Box::pin(they_may_be_for_later(make().await))).await;
    claim("waiting receive hears of them", Box::pin(waiting_receive_hears_of_them(make().await))).await;
    claim("those of thousands come once each", Box::pin(those_of_thousands_come_once_each(make().await))).await;
    claim("they may be a thousand", Box::pin(they_may_be_a_thousand(make().await))).await;
    claims.check();
}

/// A follow-up of `parent`, as an attempt makes it.
pub(crate) fn follow_up(parent: &Delivery, n: usize, run_at: Option<UnixMs>) -> NewJob {
    let metadata = [("parent", parent.job.id.as_str()), ("depth", "1"), ("traceparent", "00-1"), ("header.a", "b")];
    NewJob::Job {
        job_type: "follow".into(),
        body: r#"{"job_type":"follow"}"#.into(),
        id: Some(format!("{}/{}/{n}", parent.job.id, parent.job.attempt)),
        run_at,
        metadata: metadata.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        keep: None,
    }
}

/// A settlement with so many follow-ups.
pub(crate) fn with_follow_ups(parent: &Delivery, disposition: Disposition, count: usize) -> Settlement {
    let follow_ups = (1..=count).map(|n| follow_up(parent, n, None)).collect();
    Settlement { follow_ups, ..Settlement::new(disposition, Some(attempt(parent, None))) }
}

async fn they_come_with_any_answer(queue: Arc<dyn Queue>) {
    let at = SystemClock.now();
    let answers = [
        Disposition::Ack { result: None },
        Disposition::Retry { at, body: None, after: RetryAfter::Request { reason: None } },
        Disposition::Bury(Failure::new(Kind::Rejected, "no")),
    ];
    for answer in answers {
        enqueue(&*queue, vec![new_job("t")]).await;
        let parent = receive_one(&*queue, "t").await;
        let (id, attempt) = (parent.job.id.clone(), parent.job.attempt);
        let comes_again = matches!(answer, Disposition::Retry { .. });
        let settlement = with_follow_ups(&parent, answer, 2);
        assert_eq!(settle(&*queue, parent, settlement).await, Settled::Settled);
        let mut ids = HashSet::new();
        for _ in 0..2 {
            let child = receive_one(&*queue, "follow").await;
            let known = |name: &str, value: &str| child.job.metadata.iter().any(|(n, v)| n == name && v == value);
            assert!(known("parent", &id) && known("depth", "1") && known("traceparent", "00-1"), "{:?}", child.job);
            assert!(known("header.a", "b"), "{:?}", child.job);
            assert_eq!((child.job.attempt, child.job.body.as_str()), (1, r#"{"job_type":"follow"}"#));
            ids.insert(child.job.id.clone());
            settle_all(&*queue, vec![child]).await;
        }
        assert_eq!(ids, HashSet::from([format!("{id}/{attempt}/1"), format!("{id}/{attempt}/2")]));
        if comes_again {
            let again = receive_one(&*queue, "t").await;
            assert_eq!(again.job.id, id);
            settle_all(&*queue, vec![again]).await;
        }
    }
}

async fn they_may_be_for_later(queue: Arc<dyn Queue>) {
    enqueue(&*queue, vec![new_job("t")]).await;
    let parent = receive_one(&*queue, "t").await;
    let due = SystemClock.now().plus(Duration::from_millis(1_500));
    let follow_ups =
        vec![follow_up(&parent, 1, Some(due)), follow_up(&parent, 2, Some(due.plus(Duration::from_secs(3_600))))];
    let id = format!("{}/1/1", parent.job.id);
    let settlement = Settlement { follow_ups, ..Settlement::new(Disposition::Ack { result: None }, None) };
    assert_eq!(settle(&*queue, parent, settlement).await, Settled::Settled);
    eventually!(counted(&*queue, State::Scheduled).await >= 1);
    let child = receive_one(&*queue, "follow").await;
    assert!(SystemClock.now() >= due);
    assert_eq!(child.job.id, id);
    let parent = ("parent".to_owned(), id.trim_end_matches("/1/1").to_owned());
    assert!(child.job.metadata.contains(&parent), "what is written anew keeps them: {:?}", child.job);
    settle_all(&*queue, vec![child]).await;
    eventually!(counted(&*queue, State::Scheduled).await == 1);
}

async fn waiting_receive_hears_of_them(queue: Arc<dyn Queue>) {
    enqueue(&*queue, vec![new_job("t")]).await;
    let parent = receive_one(&*queue, "t").await;
    let receiver = Arc::clone(&queue);
    let received = tokio::spawn(async move { receive_one(&*receiver, "follow").await });
    tokio::task::yield_now().await;
    let settlement = with_follow_ups(&parent, Disposition::Ack { result: None }, 1);
    assert_eq!(settle(&*queue, parent, settlement).await, Settled::Settled);
    settle_all(&*queue, vec![received.await.unwrap()]).await;
}

async fn those_of_thousands_come_once_each(queue: Arc<dyn Queue>) {
    const PARENTS: usize = 1_000;
    enqueue(&*queue, (0..PARENTS).map(|_| new_job("t")).collect()).await;
    let wanted = Demand { types: vec![("t".into(), 200), ("follow".into(), 200)], ..Demand::default() };
    let (mut parents, mut children) = (HashSet::new(), HashSet::new());
    while children.len() < 3 * PARENTS {
        let received = within(queue.receive(&wanted)).await.unwrap();
        let settled: Vec<_> = received
            .into_iter()
            .map(|delivery| {
                let job = &delivery.job;
                let count = if job.job_type == "t" { 3 } else { 0 };
                let seen = if count > 0 { &mut parents } else { &mut children };
                assert!(seen.insert(job.id.clone()), "`{}` came twice", job.id);
                let settlement = with_follow_ups(&delivery, Disposition::Ack { result: None }, count);
                settling(&*queue, delivery, settlement)
            })
            .collect();
        for settled in settled {
            assert_eq!(within(settled).await, Settled::Settled);
        }
    }
    let expected = |id: &String| (1..=3).all(|n| children.contains(&format!("{id}/1/{n}")));
    assert!(parents.len() == PARENTS && parents.iter().all(expected));
    eventually!(!queue.has_work(&wanted).await.unwrap());
}

/// As many as one attempt may enqueue.
async fn they_may_be_a_thousand(queue: Arc<dyn Queue>) {
    enqueue(&*queue, vec![new_job("t")]).await;
    let parent = receive_one(&*queue, "t").await;
    let settlement = with_follow_ups(&parent, Disposition::Ack { result: None }, 1_000);
    assert_eq!(settle(&*queue, parent, settlement).await, Settled::Settled);
    let mut ids = HashSet::new();
    while ids.len() < 1_000 {
        let received = within(queue.receive(&demand("follow", 100))).await.unwrap();
        assert!(received.iter().all(|delivery| ids.insert(delivery.job.id.clone())), "one came twice");
        settle_all(&*queue, received).await;
    }
}
