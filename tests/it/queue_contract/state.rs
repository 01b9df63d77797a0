//! What every queue must do with the state of handlers.

use std::future::Future;
use std::sync::Arc;

use sandhog::clock::{Clock, SystemClock};
use sandhog::outcome::{Disposition, RetryAfter};
use sandhog::queue::{Delivery, Queue, Settled, Settlement};
use sandhog::state::{Draft, Refused, Size};

use super::{Claims, attempt, enqueue, new_job, receive_one, settle, settle_all};

/// Holds a queue to all claims about state.
pub(crate) async fn exercise<F: Future<Output = Arc<dyn Queue>>>(make: impl Fn() -> F) {
    let mut claims = Claims::default();
    let mut claim = async |name, held| claims.hold(name, held).await;
    claim("it changes with the settlement", Box::pin(it_changes_with_the_settlement(make().await))).await;
    claim("each handler has its own", Box::pin(each_handler_has_its_own(make().await))).await;
    claim("snapshot does not change", Box::pin(snapshot_does_not_change(make().await))).await;
    claim("slower attempt runs again", Box::pin(slower_attempt_runs_again(make().await))).await;
    claim("quota holds for all together", Box::pin(quota_holds_for_all_together(make().await))).await;
    claim("it is forgotten when it is told to", Box::pin(it_is_forgotten_when_it_is_told_to(make().await))).await;
    claims.check();
}

fn draft_of(queue: &dyn Queue, handler: &str) -> Draft {
    Draft::new(&*queue.state(), handler.into(), Size { keys: 3, bytes: 1_000 })
}

fn seen(queue: &dyn Queue, key: &str) -> Option<Vec<u8>> {
    draft_of(queue, "h").get(key).unwrap()
}

fn with_state(parent: &Delivery, disposition: Disposition, draft: Draft) -> Settlement {
    let state = draft.into_changes().map(Box::new);
    Settlement { state, ..Settlement::new(disposition, Some(attempt(parent, None))) }
}

fn ack() -> Disposition {
    Disposition::Ack { result: None }
}

async fn running(queue: &dyn Queue) -> Delivery {
    enqueue(queue, vec![new_job("t")]).await;
    receive_one(queue, "t").await
}

async fn it_changes_with_the_settlement(queue: Arc<dyn Queue>) {
    let delivery = running(&*queue).await;
    let mut draft = draft_of(&*queue, "h");
    draft.set("a".into(), b"\xff\0".to_vec()).unwrap();
    assert_eq!(draft.increment("n".into(), 7u64).unwrap(), 7);
    assert_eq!(seen(&*queue, "a"), None, "nobody sees it before");
    let settlement = with_state(&delivery, ack(), draft);
    assert_eq!(settle(&*queue, delivery, settlement).await, Settled::Settled);
    assert_eq!((seen(&*queue, "a"), seen(&*queue, "n")), (Some(b"\xff\0".to_vec()), Some(b"7".to_vec())));
    // With a retry too.
    let delivery = running(&*queue).await;
    let mut draft = draft_of(&*queue, "h");
    draft.delete("a".into()).unwrap();
    assert_eq!(draft.increment("n".into(), 1u64).unwrap(), 8);
    let at = SystemClock.now();
    let retry = Disposition::Retry { at, body: None, after: RetryAfter::Request { reason: None } };
    let settlement = with_state(&delivery, retry, draft);
    assert_eq!(settle(&*queue, delivery, settlement).await, Settled::Settled);
    assert_eq!((seen(&*queue, "a"), seen(&*queue, "n")), (None, Some(b"8".to_vec())));
    settle_all(&*queue, vec![receive_one(&*queue, "t").await]).await;
}

async fn each_handler_has_its_own(queue: Arc<dyn Queue>) {
    let delivery = running(&*queue).await;
    let mut draft = draft_of(&*queue, "h");
    draft.set("a".into(), b"1".to_vec()).unwrap();
    let settlement = with_state(&delivery, ack(), draft);
    assert_eq!(settle(&*queue, delivery, settlement).await, Settled::Settled);
    assert_eq!(draft_of(&*queue, "other").get("a").unwrap(), None);
    assert_eq!(draft_of(&*queue, "other").keys(0).unwrap().0.len(), 0);
    assert_eq!(draft_of(&*queue, "h").keys(0).unwrap().0, ["a"]);
}

async fn it_is_forgotten_when_it_is_told_to(queue: Arc<dyn Queue>) {
    assert_eq!(queue.state().kept().unwrap(), []);
    assert_eq!(queue.state().forget("h").unwrap(), Size::default());
    for handler in ["h", "other"] {
        let delivery = running(&*queue).await;
        let mut draft = draft_of(&*queue, handler);
        draft.set("a".into(), b"123".to_vec()).unwrap();
        let settlement = with_state(&delivery, ack(), draft);
        assert_eq!(settle(&*queue, delivery, settlement).await, Settled::Settled);
    }
    let four = Size { keys: 1, bytes: 4 };
    assert_eq!(queue.state().kept().unwrap(), [("h".to_owned(), four), ("other".to_owned(), four)]);
    // One that relied on what is forgotten runs again.
    let delivery = running(&*queue).await;
    let mut draft = draft_of(&*queue, "h");
    draft.increment("a".into(), 1_u64).unwrap();
    assert_eq!(queue.state().forget("h").unwrap(), four);
    let settlement = with_state(&delivery, ack(), draft);
    assert_eq!(settle(&*queue, delivery, settlement).await, Settled::Conflicted);
    settle_all(&*queue, vec![receive_one(&*queue, "t").await]).await;
    assert_eq!(seen(&*queue, "a"), None);
    assert_eq!(queue.state().kept().unwrap(), [("other".to_owned(), four)]);
}

async fn snapshot_does_not_change(queue: Arc<dyn Queue>) {
    let mut before = draft_of(&*queue, "h");
    assert_eq!(before.get("a").unwrap(), None);
    let delivery = running(&*queue).await;
    let mut draft = draft_of(&*queue, "h");
    draft.set("a".into(), b"1".to_vec()).unwrap();
    draft.set("b".into(), b"1".to_vec()).unwrap();
    let settlement = with_state(&delivery, ack(), draft);
    assert_eq!(settle(&*queue, delivery, settlement).await, Settled::Settled);
    assert_eq!((before.get("a").unwrap(), before.get("b").unwrap()), (None, None), "it shows one moment");
    drop(before);
    assert_eq!(seen(&*queue, "b"), Some(b"1".to_vec()), "and is not shown to the next");
}

async fn slower_attempt_runs_again(queue: Arc<dyn Queue>) {
    let (one, other) = (running(&*queue).await, running(&*queue).await);
    let mut drafts = [draft_of(&*queue, "h"), draft_of(&*queue, "h")];
    for draft in &mut drafts {
        assert_eq!(draft.increment("n".into(), 1u64).unwrap(), 1);
        draft.set("beside".into(), b"1".to_vec()).unwrap();
    }
    let [first, second] = drafts;
    let (first, second) = (with_state(&one, ack(), first), with_state(&other, ack(), second));
    assert_eq!(settle(&*queue, one, first).await, Settled::Settled);
    assert_eq!(settle(&*queue, other, second).await, Settled::Conflicted);
    assert_eq!(seen(&*queue, "n"), Some(b"1".to_vec()));
    let again = receive_one(&*queue, "t").await;
    assert_eq!((again.job.attempt, again.job.failures), (2, 0), "that is nobody's failure");
    let mut draft = draft_of(&*queue, "h");
    assert_eq!(draft.increment("n".into(), 1u64).unwrap(), 2);
    let settlement = with_state(&again, ack(), draft);
    assert_eq!(settle(&*queue, again, settlement).await, Settled::Settled);
    assert_eq!(seen(&*queue, "n"), Some(b"2".to_vec()));
}

async fn quota_holds_for_all_together(queue: Arc<dyn Queue>) {
    let (one, other) = (running(&*queue).await, running(&*queue).await);
    let mut drafts = [draft_of(&*queue, "h"), draft_of(&*queue, "h")];
    for (draft, keys) in drafts.iter_mut().zip([["a", "b"], ["c", "d"]]) {
        keys.into_iter().for_each(|key| draft.set(key.into(), Vec::new()).unwrap());
    }
    let [first, second] = drafts;
    let (first, second) = (with_state(&one, ack(), first), with_state(&other, ack(), second));
    assert_eq!(settle(&*queue, one, first).await, Settled::Settled);
    assert_eq!(settle(&*queue, other, second).await, Settled::Conflicted);
    let again = receive_one(&*queue, "t").await;
    let mut draft = draft_of(&*queue, "h");
    draft.set("c".into(), Vec::new()).unwrap();
    assert!(matches!(draft.set("d".into(), Vec::new()), Err(Refused::TooManyKeys(3))));
    let settlement = with_state(&again, ack(), draft);
    assert_eq!(settle(&*queue, again, settlement).await, Settled::Settled);
    assert_eq!(draft_of(&*queue, "h").keys(0).unwrap().0, ["a", "b", "c"]);
}
