//! Looking at a Kafka queue, and its dead letters. The records are written here as a runner would write them, and as others do:
//! their form is public.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use sandhog::clock::{Clock, SystemClock, UnixMs};
use sandhog::outcome::Kind;
use sandhog::queue::kafka::{KafkaQueue, Options};
use sandhog::queue::{Demand, Filter, Listed, Queue, QueueError, Shown, State, Stats};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Broker, Record, Topic};
use crate::support::now_ms;

/// A job topic with all that goes with it, and one who looks.
struct Looking {
    topic: Topic,
    queue: Arc<KafkaQueue>,
    _folder: TempDir,
}

impl Looking {
    fn new(partitions: i32) -> Option<Looking> {
        Looking::with(partitions, |_| {})
    }

    fn with(partitions: i32, change: impl FnOnce(&mut Options)) -> Option<Looking> {
        let topic = Broker::shared()?.topic(partitions);
        let folder = TempDir::new().unwrap();
        let mut options = Options::new(&topic.address, &topic.name, folder.path());
        options.group.clone_from(&topic.group);
        change(&mut options);
        Some(Looking { topic, queue: KafkaQueue::open(options).unwrap(), _folder: folder })
    }

    fn name(&self) -> &str {
        &self.topic.name
    }

    /// Writes a job as anybody does.
    fn job(&self, job_type: &str) {
        self.topic.send([Record::from(format!(r#"{{"job_type":"{job_type}"}}"#)).partition(0)]);
    }

    /// Writes what a runner writes of a job into the topic `suffix`.
    fn write(&self, suffix: &str, envelope: &Value, body: &str) {
        let key = envelope["record"].as_str().unwrap();
        let record = Record::from(body).key(key).header("color", "red").header("sandhog", envelope.to_string());
        self.beside(suffix).send([record.partition(0)]);
    }

    fn bury(&self, id: &str, job_type: Option<&str>, change: impl FnOnce(&mut Value)) {
        let kind = if job_type.is_some() { "trap" } else { "malformed" };
        let mut envelope = self.envelope(id, job_type);
        envelope["buried"] = json!({"at_ms": now_ms(), "failure": {"kind": kind, "message": "why"}});
        change(&mut envelope);
        self.write(".dead", &envelope, &format!(r#"{{"job_type":"t","n":"{id}"}}"#));
    }

    fn envelope(&self, id: &str, job_type: Option<&str>) -> Value {
        json!({
            "record": format!("{}/0/{id}@1790000000000", self.name()), "id": id, "job_type": job_type,
            "source": {"topic": self.name(), "partition": 0, "offset": 7, "timestamp_ms": 1_790_000_000_000_u64},
            "attempts": 3, "failures": 2, "retries_requested": 1, "enqueued_at_ms": now_ms(),
            "first_started_at_ms": now_ms(),
        })
    }

    /// One of the topics beside that of the jobs.
    fn beside(&self, suffix: &str) -> Topic {
        Topic { name: format!("{}{suffix}", self.name()), ..self.topic.clone() }
    }

    fn commit(&self, offset: i64, note: &str) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.topic.address).set("group.id", &self.topic.group);
        let consumer: BaseConsumer = config.create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(self.name(), 0, Offset::Offset(offset)).unwrap();
        list.find_partition(self.name(), 0).unwrap().set_metadata(note);
        consumer.commit(&list, CommitMode::Sync).unwrap();
    }

    fn stats(&self) -> Stats {
        wait(self.queue.stats()).unwrap()
    }

    fn count(&self, job_type: Option<&str>, state: State) -> u64 {
        let counts = self.stats().counts;
        counts.iter().find(|count| count.job_type.as_deref() == job_type && count.state == state).map_or(0, |c| c.jobs)
    }

    fn list(&self, filter: &Filter) -> Vec<String> {
        ids(&wait(self.queue.list(filter.clone())).unwrap())
    }

    fn show(&self, id: &str) -> Option<Shown> {
        wait(self.queue.show(id)).unwrap()
    }

    fn has_work(&self, demand: &Demand) -> bool {
        wait(self.queue.has_work(demand)).unwrap()
    }

    fn requeue(&self, filter: &Filter) -> Result<Vec<String>, QueueError> {
        let mut ids = ids(&wait(self.queue.requeue_dead(filter.clone(), false))?);
        ids.sort();
        Ok(ids)
    }

    fn delete(&self, filter: &Filter) -> Vec<String> {
        ids(&wait(self.queue.delete_dead(filter.clone(), false)).unwrap())
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn ids(listed: &[Listed]) -> Vec<String> {
    listed.iter().map(|job| job.id.clone()).collect()
}

/// A failed attempt, as it is written.
fn failed(message: &str) -> Value {
    json!({
        "number": 3, "started_at_ms": 5, "duration_us": 6, "memory_peak_bytes": 7, "generation": "abcdefabcdef",
        "failure": {"kind": "trap", "message": message},
    })
}

fn state(state: State) -> Filter {
    Filter { state: Some(state), ..Filter::default() }
}

fn only(id: &str) -> Filter {
    Filter { ids: vec![id.into()], ..Filter::default() }
}

fn of_type(job_type: &str) -> Filter {
    Filter { job_type: Some(job_type.into()), ..Filter::default() }
}

fn demand(job_type: &str) -> Demand {
    Demand { types: vec![(job_type.into(), 0)], ..Demand::default() }
}

#[test]
fn counts_are_what_lies_in_the_topics_and_is_not_done() {
    let Some(queue) = Looking::new(1) else { return };
    assert_eq!(queue.stats().counts, []);
    for job_type in ["a", "b", "a", "b", "b"] {
        queue.job(job_type);
    }
    queue.topic.send(["no job"]);
    // 0 is done, 1 is not, 2 and 3 are: `s1.` and lengths by turns.
    queue.commit(1, "s1.BC");
    let later = now_ms() + 60_000;
    for (id, due) in [("over", now_ms() - 5_000), ("due", later)] {
        let mut envelope = queue.envelope(id, Some("a"));
        envelope["due_at_ms"] = json!(due);
        queue.write(".retry.1m", &envelope, r#"{"job_type":"a"}"#);
    }
    queue.write(".parked", &queue.envelope("p", Some("nobody")), r#"{"job_type":"nobody"}"#);
    queue.bury("d", Some("t"), |_| {});
    queue.bury("m", None, |_| {});
    let stats = queue.stats();
    let counts: BTreeMap<_, u64> =
        stats.counts.iter().map(|count| ((count.job_type.as_deref(), count.state), count.jobs)).collect();
    let expected = [
        ((None, State::Ready), 1),
        ((Some("b"), State::Ready), 2),
        ((Some("a"), State::Ready), 1),
        ((Some("a"), State::Scheduled), 1),
        ((Some("nobody"), State::Parked), 1),
        ((Some("t"), State::Dead), 1),
        ((None, State::Dead), 1),
    ];
    assert_eq!(counts, BTreeMap::from(expected));
    assert_eq!(stats.next_due_at, Some(UnixMs(later)));
    assert!(stats.oldest_ready_at.is_some_and(|at| at.0 < now_ms()));
    assert!(stats.notes.iter().any(|note| note.contains("running")), "{:?}", stats.notes);
    assert_eq!(stats.blocked, []);
}

#[test]
fn partition_that_is_held_up_is_said_with_its_reason() {
    let Some(queue) = Looking::new(1) else { return };
    for _ in 0..10 {
        queue.job("a");
    }
    queue.commit(2, "s1.BC;blocked 2 no topic `x.dead`");
    let [blocked] = queue.stats().blocked.try_into().unwrap();
    assert_eq!((blocked.topic.as_str(), blocked.partition, blocked.offset), (queue.name(), 0, 2));
    assert_eq!((blocked.reason.as_str(), blocked.stalls), ("no topic `x.dead`", 5));
}

#[test]
fn jobs_are_found_wherever_they_wait() {
    let Some(queue) = Looking::new(1) else { return };
    let text = Record::from("any text").key(*b"\xff").header("job_type", "text").header("id", "mine");
    queue.topic.send([text.header("bin", b"\xff\0").header_named_by_bytes(b"\xfe".to_vec(), "name")]);
    queue.job("a");
    queue.write(".parked", &queue.envelope("p", Some("nobody")), r#"{"job_type":"nobody"}"#);
    queue.bury("d", Some("t"), |envelope| {
        envelope["failed_attempts"] = json!([failed("unreachable")]);
    });
    let now = SystemClock.now();
    let show = |id: &str| queue.show(id);
    let text = show("mine").unwrap();
    assert_eq!((text.body.as_slice(), text.listed.job_type.as_deref()), (&b"any text"[..], Some("text")));
    assert_eq!((text.listed.state, text.source), (State::Ready, format!("{}/0/0", queue.name())));
    let says = |name: &str, value: &str| text.metadata.iter().any(|pair| pair.0 == name && pair.1 == value);
    assert!(says("queue", queue.name()) && says("header-base64.bin", "/wA="), "{:?}", text.metadata);
    assert_eq!(show(&format!("{}/0/1", queue.name())).unwrap().listed.job_type.as_deref(), Some("a"));
    assert_eq!(show("p").unwrap().listed.state, State::Parked);
    let dead = show("d").unwrap();
    assert_eq!((dead.listed.state, dead.listed.attempt, dead.listed.failures), (State::Dead, 3, 2));
    assert_eq!((dead.body.as_slice(), dead.failed_attempts.len()), (&br#"{"job_type":"t","n":"d"}"#[..], 1));
    assert!(show("nothing").is_none());
    assert_eq!(queue.list(&Filter::default()).len(), 4);
    assert_eq!(queue.list(&Filter { limit: Some(1), ..Filter::default() }), ["mine"], "the oldest");
    assert_eq!(queue.list(&state(State::Dead)), ["d"]);
    let kind = |kind| Filter { kind: Some(kind), ..Filter::default() };
    assert_eq!((queue.list(&kind(Kind::Trap)), queue.list(&kind(Kind::Timeout))), (vec!["d".to_owned()], vec![]));
    assert_eq!(queue.list(&of_type("nobody")), ["p"]);
    let since = Filter { since: Some(now.plus(crate::queue_contract::PATIENCE)), ..Filter::default() };
    assert_eq!(queue.list(&since), [""; 0]);
}

#[test]
fn job_that_a_retry_changed_is_shown_with_both_bodies() {
    let Some(queue) = Looking::new(1) else { return };
    let envelope = queue.envelope("c", Some("t"));
    let record = Record::from("changed").header("sandhog", envelope.to_string());
    queue.beside(".retry.1s").send([record.header("sandhog-original", r#"{"job_type":"t"}"#)]);
    let shown = queue.show("c").unwrap();
    assert_eq!((shown.body.as_slice(), shown.changed_body.as_deref()), (&br#"{"job_type":"t"}"#[..], Some("changed")));
}

#[test]
fn there_is_work_only_for_who_serves_what_waits() {
    let Some(queue) = Looking::new(2) else { return };
    assert!(!queue.has_work(&demand("a")));
    queue.job("a");
    assert!(queue.has_work(&demand("a")) && !queue.has_work(&demand("b")));
    let others = |paused: &[&str]| Demand {
        others: Some(1),
        paused: paused.iter().map(|name| (*name).into()).collect(),
        ..Demand::default()
    };
    assert!(queue.has_work(&others(&[])) && !queue.has_work(&others(&["a"])));
    queue.commit(1, "");
    assert!(!queue.has_work(&demand("a")));
    let mut envelope = queue.envelope("later", Some("a"));
    envelope["due_at_ms"] = json!(now_ms() + 60_000);
    queue.write(".retry.1m", &envelope, r#"{"job_type":"a"}"#);
    assert!(!queue.has_work(&demand("a")), "it is not due");
    queue.write(".parked", &queue.envelope("p", Some("b")), r#"{"job_type":"b"}"#);
    assert!(queue.has_work(&demand("b")));
}

#[test]
fn requeued_dead_letter_is_a_new_record_of_the_same_job() {
    let Some(queue) = Looking::new(1) else { return };
    queue.bury("d", Some("t"), |envelope| envelope["key"] = json!({"text": "customer-7"}));
    queue.bury("e", Some("t"), |_| {});
    assert_eq!(ids(&wait(queue.queue.requeue_dead(only("d"), true)).unwrap()), ["d"]);
    assert_eq!(queue.count(Some("t"), State::Dead), 2, "a dry run changes nothing");
    assert_eq!(queue.requeue(&only("d")).unwrap(), ["d"]);
    assert_eq!(queue.requeue(&only("d")).unwrap(), [""; 0], "it is dead no more");
    assert_eq!((queue.count(Some("t"), State::Dead), queue.count(Some("t"), State::Ready)), (1, 1));
    let [record] = queue.topic.read("").try_into().unwrap();
    assert_eq!(record.value.as_deref(), Some(&br#"{"job_type":"t","n":"d"}"#[..]));
    assert_eq!((record.key.as_deref(), record.header("color")), (Some(&b"customer-7"[..]), Some(&b"red"[..])));
    let envelope = record.envelope();
    let kept = ["id", "record", "attempts", "enqueued_at_ms"].map(|name| !envelope[name].is_null());
    assert_eq!((kept, &envelope["requeues"], &envelope["failures"]), ([true; 4], &json!(1), &json!(0)));
    assert!(envelope["buried"].is_null() && envelope["first_started_at_ms"].is_null());
    let shown = queue.show("d").unwrap();
    assert_eq!((shown.listed.state, shown.listed.requeues), (State::Ready, 1));
}

#[test]
fn thousands_are_requeued_once_each_and_deleted_for_good() {
    let Some(queue) = Looking::new(3) else { return };
    let records = (0..1_300).map(|n| {
        let mut envelope = queue.envelope(&format!("n{n}"), Some(if n % 2 == 0 { "even" } else { "odd" }));
        envelope["buried"] = json!({"at_ms": now_ms(), "failure": {"kind": "trap", "message": "why"}});
        let key = envelope["record"].as_str().unwrap();
        Record::from("{}").key(key).header("sandhog", envelope.to_string()).partition(n % 3)
    });
    queue.beside(".dead").send(records);
    assert_eq!(queue.requeue(&of_type("even")).unwrap().len(), 650);
    assert_eq!(queue.requeue(&of_type("even")).unwrap().len(), 0);
    let stats = queue.stats();
    let count = |state| stats.counts.iter().filter(|count| count.state == state).map(|count| count.jobs).sum::<u64>();
    assert_eq!((count(State::Ready), count(State::Dead)), (650, 650));
    assert_eq!(queue.delete(&of_type("odd")).len(), 650);
    assert_eq!(queue.list(&state(State::Dead)).len(), 0);
    assert_eq!(queue.list(&Filter { limit: Some(700), ..state(State::Ready) }).len(), 650);
}

#[test]
fn two_who_requeue_at_the_same_time_send_nothing_back_twice() {
    let Some(queue) = Looking::new(1) else { return };
    let records = (0..3_000).map(|n| {
        let envelope = queue.envelope(&format!("n{n}"), Some("t"));
        Record::from("{}").key(envelope["record"].as_str().unwrap()).header("sandhog", envelope.to_string())
    });
    queue.beside(".dead").send(records);
    let ended: Vec<Result<Vec<String>, QueueError>> = std::thread::scope(|scope| {
        let both: Vec<_> = (0..2).map(|_| scope.spawn(|| queue.requeue(&Filter::default()))).collect();
        both.into_iter().map(|one| one.join().unwrap()).collect()
    });
    // Whoever comes second fences the first, who says so and may run it again; or finds nothing any more.
    for error in ended.iter().filter_map(|end| end.as_ref().err()) {
        assert!(error.transient && error.message.contains("somebody else"), "{error}");
    }
    assert!(ended.iter().any(Result::is_ok));
    let sent: Vec<Value> = queue.topic.read("").iter().map(|record| record.envelope()["id"].clone()).collect();
    assert_eq!(sent.len(), 3_000);
    assert_eq!(sent.iter().collect::<std::collections::HashSet<_>>().len(), 3_000);
    assert_eq!(queue.topic.dead().len(), 0);
}

#[test]
fn dead_letter_that_was_requeued_ten_times_goes_back_only_by_its_id() {
    let Some(queue) = Looking::new(1) else { return };
    for (id, requeues) in [("nine", 9), ("ten", 10)] {
        queue.bury(id, Some("t"), |envelope| envelope["requeues"] = json!(requeues));
    }
    assert_eq!(queue.requeue(&of_type("t")).unwrap(), ["nine"]);
    assert_eq!(queue.requeue(&only("ten")).unwrap(), ["ten"]);
}

#[test]
fn malformed_dead_letter_is_not_requeued_and_can_be_deleted() {
    let Some(queue) = Looking::new(1) else { return };
    queue.bury("m", None, |_| {});
    queue.bury("d", Some("t"), |_| {});
    let both = Filter { ids: vec!["d".into(), "m".into()], ..Filter::default() };
    let error = queue.requeue(&both).unwrap_err();
    assert!(error.message.contains("`m`") && error.message.contains("malformed"), "{error}");
    assert_eq!(queue.list(&state(State::Dead)).len(), 2, "nothing was changed");
    assert_eq!(queue.requeue(&Filter::default()).unwrap(), ["d"]);
    assert_eq!(queue.delete(&Filter::default()), ["m"]);
}

#[test]
fn dead_letter_that_the_topic_refuses_is_named_and_stays() {
    let Some(queue) = Looking::new(1) else { return };
    queue.bury("small", Some("t"), |_| {});
    queue.bury("large", Some("t"), |envelope| envelope["failed_attempts"] = json!([failed(&"y".repeat(900))]));
    queue.topic.configure("", &[("max.message.bytes", "1000")]);
    let error = queue.requeue(&Filter::default()).unwrap_err();
    assert!(error.message.contains("`large`") && error.message.contains("larger"), "{error}");
    assert!(error.message.contains("after 1 dead letters were requeued"), "{error}");
    assert_eq!(
        (queue.list(&state(State::Dead)), queue.list(&state(State::Ready))),
        (vec!["large".into()], vec!["small".into()])
    );
}

#[test]
fn what_is_not_there_is_not_made_by_looking() {
    let Some(queue) = Looking::new(1) else { return };
    queue.topic.delete(".dead");
    assert_eq!(queue.stats().counts, []);
    assert_eq!(queue.requeue(&Filter::default()).unwrap(), [""; 0]);
    assert_eq!(queue.topic.partitions(".dead"), 0);
}

#[test]
fn topic_with_a_type_of_its_own_holds_any_text() {
    let Some(queue) = Looking::with(1, |options| options.topics[0].job_type = Some("messages".into())) else { return };
    queue.topic.send([&b"hello"[..], b"\xff"]);
    assert_eq!((queue.count(Some("messages"), State::Ready), queue.count(None, State::Ready)), (1, 1));
}

#[test]
#[ignore = "a measurement"]
fn million_is_counted_in_about_two_seconds() {
    let Some(queue) = Looking::new(8) else { return };
    let body = format!(r#"{{"job_type":"t","payload":"{}"}}"#, "x".repeat(90));
    queue.topic.send((0..1_100_000).map(|n| Record::from(body.as_str()).partition(n % 8)));
    let begun = Instant::now();
    let stats = queue.stats();
    eprintln!("stats: {:?} {:?} {:?}", begun.elapsed(), stats.counts, stats.notes);
    let begun = Instant::now();
    eprintln!("list: {} {:?}", queue.list(&Filter { limit: Some(51), ..Filter::default() }).len(), begun.elapsed());
    for job_type in ["t", "u"] {
        let begun = Instant::now();
        eprintln!("has_work: {} {:?}", queue.has_work(&demand(job_type)), begun.elapsed());
    }
    let records = (0..100_000).map(|n| {
        let envelope = queue.envelope(&format!("n{n}"), Some("t"));
        Record::from(body.as_str()).key(envelope["record"].as_str().unwrap()).header("sandhog", envelope.to_string())
    });
    queue.beside(".dead").send(records);
    let begun = Instant::now();
    eprintln!("requeued: {} {:?}", queue.requeue(&Filter::default()).unwrap().len(), begun.elapsed());
}
