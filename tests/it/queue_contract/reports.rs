//! What every queue must do with the reports of dead letters, where somebody wants them.

use std::future::Future;
use std::sync::Arc;

use sandhog::outcome::{Disposition, Failure, Kind};
use sandhog::queue::{Delivery, Filter, NewJob, Queue, Requeue, Settled, Settlement, State};
use sandhog::report::Reports;
use serde_json::{Value, json};

use super::follow_ups::with_follow_ups;
use super::{
    Claims, attempt, bury, complete, demand, ended, enqueue, new_job, receive_one, settle, settle_all, within,
};
use crate::eventually;

/// How reports are asked for of the queues that are held to these claims.
pub(crate) fn wanted() -> Option<Reports> {
    Some(Reports { job_type: "report".into(), body_bytes_max: 100_000 })
}

/// Holds a queue that makes reports as [`wanted`] to all claims about them.
pub(crate) async fn exercise<F: Future<Output = Arc<dyn Queue>>>(make: impl Fn() -> F) {
    let mut claims = Claims::default();
    let mut claim = async |name, held| claims.hold(name, held).await;
    claim("burial is reported", Box::pin(burial_is_reported(make().await))).await;
    claim("malformed bytes are reported", Box::pin(malformed_bytes_are_reported(make().await))).await;
    claim("each burial is reported", Box::pin(each_burial_is_reported(make().await))).await;
    claim("report feeds on no report", Box::pin(report_feeds_on_no_report(make().await))).await;
    claim("large body is left out", Box::pin(large_body_is_left_out(make().await))).await;
    claim("follow-ups come beside it", Box::pin(follow_ups_come_beside_it(make().await))).await;
    claim("those of thousands come once each", Box::pin(those_of_thousands_come_once_each(make().await))).await;
    claims.check();
}

/// What a report says.
fn letter(report: &Delivery) -> Value {
    let body: Value = serde_json::from_str(&report.job.body).unwrap();
    assert_eq!((body["job_type"].as_str(), report.job.job_type.as_str()), (Some("report"), "report"));
    body["dead_letter"].clone()
}

fn metadata<'a>(job: &'a Delivery, name: &str) -> Option<&'a str> {
    job.job.metadata.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// Completes a job of the type `last` that was enqueued just now: whatever came before it would have come.
async fn nothing_else(queue: &dyn Queue) {
    enqueue(queue, vec![new_job("last")]).await;
    let wanted = [("report".into(), 10), ("last".into(), 1)];
    let wanted = sandhog::queue::Demand { types: wanted.into(), ..Default::default() };
    let received = within(queue.receive(&wanted)).await.unwrap();
    let types: Vec<&str> = received.iter().map(|delivery| delivery.job.job_type.as_str()).collect();
    assert_eq!(types, ["last"]);
    settle_all(queue, received).await;
}

async fn burial_is_reported(queue: Arc<dyn Queue>) {
    let metadata_of_it = [("depth", "2"), ("traceparent", "00-1"), ("header.a", "b")];
    let job = NewJob::Job {
        job_type: "t".into(),
        body: "{\"job_type\":\"t\",\"s\":\"\\u0000\u{1F980}\"}".into(),
        id: Some("order-7".into()),
        run_at: None,
        metadata: metadata_of_it.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        keep: None,
    };
    enqueue(&*queue, vec![job]).await;
    let delivery = receive_one(&*queue, "t").await;
    let failure = Failure::new(Kind::Trap, "unreachable");
    let record = attempt(&delivery, Some(failure.clone()));
    let settlement = Settlement::new(Disposition::Bury(failure), Some(record));
    assert_eq!(settle(&*queue, delivery, settlement).await, Settled::Settled);
    let report = receive_one(&*queue, "report").await;
    let shown = ended(&*queue, "order-7").await;
    assert_eq!(letter(&report), shown.to_json(true), "a report is what people are shown");
    let letter = letter(&report);
    assert_eq!((&letter["failure"]["kind"], &letter["state"]), (&json!("trap"), &json!("dead")));
    assert_eq!(letter["failed_attempts"][0]["duration_us"], 1_234);
    assert_eq!(report.job.id, "order-7/report/1");
    let expected = [("parent", "order-7"), ("depth", "3"), ("traceparent", "00-1"), ("report-of", "order-7")];
    for (name, value) in expected {
        assert_eq!(metadata(&report, name), Some(value), "{:?}", report.job);
    }
    assert_eq!(metadata(&report, "header.a"), None);
    settle_all(&*queue, vec![report]).await;
    for ends_well in [complete(), Settlement::new(Disposition::Park, None)] {
        enqueue(&*queue, vec![new_job("other")]).await;
        let other = receive_one(&*queue, "other").await;
        assert_eq!(settle(&*queue, other, ends_well).await, Settled::Settled);
    }
    nothing_else(&*queue).await;
}

async fn malformed_bytes_are_reported(queue: Arc<dyn Queue>) {
    let bad = NewJob::Malformed { bytes: b"\xff\0".to_vec(), reason: "not UTF-8".into() };
    let id = enqueue(&*queue, vec![new_job("t"), bad]).await.remove(1).id;
    let report = receive_one(&*queue, "report").await;
    let letter = letter(&report);
    assert_eq!((letter["id"].as_str(), letter["body_base64"].as_str()), (Some(id.as_str()), Some("/wA=")));
    assert_eq!((&letter["job_type"], &letter["failure"]["kind"]), (&Value::Null, &json!("malformed")));
    settle_all(&*queue, vec![report]).await;
    nothing_else(&*queue).await;
}

async fn each_burial_is_reported(queue: Arc<dyn Queue>) {
    enqueue(&*queue, vec![super::named("t", "order-8")]).await;
    for burial in 1..=3 {
        let delivery = receive_one(&*queue, "t").await;
        assert_eq!(settle(&*queue, delivery, bury(Kind::Rejected, "no")).await, Settled::Settled);
        let report = receive_one(&*queue, "report").await;
        assert_eq!(report.job.id, format!("order-8/report/{burial}"));
        assert_eq!(letter(&report)["requeues"], burial - 1);
        settle_all(&*queue, vec![report]).await;
        let filter = Filter { ids: vec!["order-8".into()], ..Filter::default() };
        eventually!(queue.requeue_dead(filter.clone(), Requeue::default()).await.unwrap().letters.len() == 1);
    }
    nothing_else(&*queue).await;
}

async fn report_feeds_on_no_report(queue: Arc<dyn Queue>) {
    enqueue(&*queue, vec![new_job("t"), new_job("report")]).await;
    // Of the type, though nobody's report.
    let by_hand = receive_one(&*queue, "report").await;
    assert_eq!(settle(&*queue, by_hand, bury(Kind::Error, "no")).await, Settled::Settled);
    let job = receive_one(&*queue, "t").await;
    assert_eq!(settle(&*queue, job, bury(Kind::Error, "no")).await, Settled::Settled);
    let report = receive_one(&*queue, "report").await;
    let mut settlement = with_follow_ups(&report, Disposition::Bury(Failure::new(Kind::Rejected, "no")), 1);
    if let NewJob::Job { metadata, .. } = &mut settlement.follow_ups[0] {
        // As it is inherited.
        metadata.extend(report.job.metadata.iter().filter(|(name, _)| name == "report-of").cloned());
    }
    assert_eq!(settle(&*queue, report, settlement).await, Settled::Settled);
    let follow_up = receive_one(&*queue, "follow").await;
    assert!(metadata(&follow_up, "report-of").is_some());
    assert_eq!(settle(&*queue, follow_up, bury(Kind::Error, "no")).await, Settled::Settled);
    nothing_else(&*queue).await;
    eventually!(super::counted(&*queue, State::Dead).await == 4);
}

async fn large_body_is_left_out(queue: Arc<dyn Queue>) {
    let NewJob::Job { job_type, id, run_at, metadata, .. } = new_job("t") else { unreachable!() };
    let body = format!(r#"{{"job_type":"t","x":"{}"}}"#, "x".repeat(150_000));
    let bytes = body.len();
    enqueue(&*queue, vec![NewJob::Job { job_type, body, id, run_at, metadata, keep: None }]).await;
    let delivery = receive_one(&*queue, "t").await;
    assert_eq!(settle(&*queue, delivery, bury(Kind::Rejected, "no")).await, Settled::Settled);
    let report = receive_one(&*queue, "report").await;
    let letter = letter(&report);
    assert_eq!((&letter["body"], &letter["body_omitted"]), (&Value::Null, &json!(true)));
    assert_eq!((&letter["body_bytes"], &letter["failure"]["message"]), (&json!(bytes), &json!("no")));
    settle_all(&*queue, vec![report]).await;
}

async fn follow_ups_come_beside_it(queue: Arc<dyn Queue>) {
    enqueue(&*queue, vec![new_job("t")]).await;
    let parent = receive_one(&*queue, "t").await;
    let settlement = with_follow_ups(&parent, Disposition::Bury(Failure::new(Kind::Rejected, "no")), 2);
    assert_eq!(settle(&*queue, parent, settlement).await, Settled::Settled);
    for job_type in ["report", "follow", "follow"] {
        let job = receive_one(&*queue, job_type).await;
        settle_all(&*queue, vec![job]).await;
    }
    nothing_else(&*queue).await;
}

async fn those_of_thousands_come_once_each(queue: Arc<dyn Queue>) {
    const JOBS: usize = 2_000;
    let enqueued = enqueue(&*queue, (0..JOBS).map(|_| new_job("t")).collect()).await;
    let mut left = JOBS;
    while left > 0 {
        let received = within(queue.receive(&demand("t", 500))).await.unwrap();
        left -= received.len();
        let settled = received.into_iter().map(|one| super::settling(&*queue, one, bury(Kind::Error, "no")));
        for settled in settled.collect::<Vec<_>>() {
            assert_eq!(within(settled).await, Settled::Settled);
        }
    }
    let mut reported = Vec::new();
    while reported.len() < JOBS {
        let received = within(queue.receive(&demand("report", 500))).await.unwrap();
        reported.extend(received.iter().map(|report| report.job.id.clone()));
        settle_all(&*queue, received).await;
    }
    let mut expected: Vec<String> = enqueued.iter().map(|job| format!("{}/report/1", job.id)).collect();
    reported.sort();
    expected.sort();
    assert_eq!(reported, expected);
}
