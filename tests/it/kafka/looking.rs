//! Looking at a Kafka queue, and its dead letters. The records are written here as a runner would write them, and as others do:
//! their form is public.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use sandhog::clock::{Clock, SystemClock, UnixMs};
use sandhog::outcome::Kind;
use sandhog::queue::kafka::{KafkaQueue, Options};
use sandhog::queue::{Demand, Filter, Listed, Queue, QueueError, Requeue, Shown, State, Stats};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Broker, Record, Topic};
use crate::eventually;
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
        let mut ids = ids(&wait(self.queue.requeue_dead(filter.clone(), Requeue::default()))?.letters);
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
    let Some(looking) = Looking::new(1) else { return };
    assert_eq!(looking.stats().counts, []);
    for job_type in ["a", "b", "a", "b", "b"] {
        looking.job(job_type);
    }
    looking.topic.send(["no job"]);
    // 0 is done, 1 is not, 2 and 3 are: `s1.` and lengths by turns.
    looking.commit(1, "s1.BC");
    let later = now_ms() + 60_000;
    for (id, due) in [("over", now_ms() - 5_000), ("due", later)] {
        let mut envelope = looking.envelope(id, Some("a"));
        envelope["due_at_ms"] = json!(due);
        looking.write(".retry.1m", &envelope, r#"{"job_type":"a"}"#);
    }
    looking.write(".parked", &looking.envelope("p", Some("nobody")), r#"{"job_type":"nobody"}"#);
    looking.bury("d", Some("t"), |_| {});
    looking.bury("m", None, |_| {});
    let stats = looking.stats();
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
    let Some(looking) = Looking::new(1) else { return };
    for _ in 0..10 {
        looking.job("a");
    }
    looking.commit(2, "s1.BC;blocked 2 no topic `x.dead`");
    let [blocked] = looking.stats().blocked.try_into().unwrap();
    assert_eq!((blocked.topic.as_str(), blocked.partition, blocked.offset), (looking.name(), 0, 2));
    assert_eq!((blocked.reason.as_str(), blocked.stalls), ("no topic `x.dead`", 5));
}

#[test]
fn commands_say_what_waits_what_is_blocked_and_what_cannot_be_known() {
    let Some(looking) = Looking::new(1) else { return };
    looking.job("a");
    looking.topic.send(["no job"]);
    looking.bury("d", Some("t"), |envelope| envelope["requeues"] = json!(10));
    looking.bury("e", Some("t"), |_| {});
    looking.commit(0, "s1.;blocked 0 no topic `x.dead`");
    let person = looking.topic.runner("");
    let says = |arguments: &[&str]| {
        let output = person.sandhog(arguments);
        assert!(output.status.success(), "{output:?}");
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (stats, _) = says(&["stats"]);
    for text in ["(unknown)", "BLOCKED", "no topic `x.dead`", "running count as ready"] {
        assert!(stats.contains(text), "{text}: {stats}");
    }
    let json: Value = serde_json::from_str(&says(&["stats", "--json"]).0).unwrap();
    assert_eq!((&json["blocked"][0]["stalls"], &json["runners"]), (&json!(1), &json!(0)));
    let (requeued, said) = says(&["dead", "requeue", "--all"]);
    assert!(requeued.contains("\ne ") && !requeued.contains("\nd "), "{requeued}");
    assert!(said.contains("requeued 1 dead letter\n") && said.contains("1 stay, "), "{said}");
    let (shown, _) = says(&["dead", "show", "d", "--body"]);
    assert_eq!(shown.trim(), r#"{"job_type":"t","n":"d"}"#);
}

#[test]
fn members_of_a_group_are_counted_where_they_can_be() {
    let Some(looking) = Looking::new(1) else { return };
    assert_eq!(looking.stats().runners, None);
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &looking.topic.address).set("group.id", &looking.topic.group);
    let member: BaseConsumer = config.create().unwrap();
    member.subscribe(&[looking.name()]).unwrap();
    eventually!(member.poll(Duration::ZERO).is_none() && member.assignment().unwrap().count() == 1);
    let stats = looking.stats();
    assert_eq!(stats.runners, Some(1));
    assert!(!stats.notes.iter().any(|note| note.contains("runners")), "{:?}", stats.notes);
}

#[test]
fn jobs_are_found_wherever_they_wait() {
    let Some(looking) = Looking::new(1) else { return };
    let text = Record::from("any text").key(*b"\xff").header("job_type", "text").header("id", "mine");
    looking.topic.send([text.header("bin", b"\xff\0").header_named_by_bytes(b"\xfe".to_vec(), "name")]);
    looking.job("a");
    looking.write(".parked", &looking.envelope("p", Some("nobody")), r#"{"job_type":"nobody"}"#);
    looking.bury("d", Some("t"), |envelope| {
        envelope["failed_attempts"] = json!([failed("unreachable")]);
    });
    let now = SystemClock.now();
    let show = |id: &str| looking.show(id);
    let text = show("mine").unwrap();
    assert_eq!((text.body.as_slice(), text.listed.job_type.as_deref()), (&b"any text"[..], Some("text")));
    assert_eq!((text.listed.state, text.source.to_string()), (State::Ready, format!("{}/0/0", looking.name())));
    let says = |name: &str, value: &str| text.metadata.iter().any(|pair| pair.0 == name && pair.1 == value);
    assert!(says("queue", looking.name()) && says("header-base64.bin", "/wA="), "{:?}", text.metadata);
    assert_eq!(show(&format!("{}/0/1", looking.name())).unwrap().listed.job_type.as_deref(), Some("a"));
    assert_eq!(show("p").unwrap().listed.state, State::Parked);
    let dead = show("d").unwrap();
    assert_eq!((dead.listed.state, dead.listed.attempt, dead.listed.failures), (State::Dead, 3, 2));
    assert_eq!((dead.body.as_slice(), dead.failed_attempts.len()), (&br#"{"job_type":"t","n":"d"}"#[..], 1));
    assert!(show("nothing").is_none());
    assert_eq!(looking.list(&Filter::default()).len(), 4);
    assert_eq!(looking.list(&Filter { limit: Some(1), ..Filter::default() }), ["mine"], "the oldest");
    assert_eq!(looking.list(&state(State::Dead)), ["d"]);
    let kind = |kind| Filter { kind: Some(kind), ..Filter::default() };
    assert_eq!((looking.list(&kind(Kind::Trap)), looking.list(&kind(Kind::Timeout))), (vec!["d".to_owned()], vec![]));
    assert_eq!(looking.list(&of_type("nobody")), ["p"]);
    let since = Filter { since: Some(now.plus(crate::queue_contract::PATIENCE)), ..Filter::default() };
    assert_eq!(looking.list(&since), [""; 0]);
}

#[test]
fn job_that_a_retry_changed_is_shown_with_both_bodies() {
    let Some(looking) = Looking::new(1) else { return };
    let envelope = looking.envelope("c", Some("t"));
    let record = Record::from("changed").header("sandhog", envelope.to_string());
    looking.beside(".retry.1s").send([record.header("sandhog-original", r#"{"job_type":"t"}"#)]);
    let shown = looking.show("c").unwrap();
    assert_eq!((shown.body.as_slice(), shown.changed_body.as_deref()), (&br#"{"job_type":"t"}"#[..], Some("changed")));
}

#[test]
fn there_is_work_only_for_who_serves_what_waits() {
    let Some(looking) = Looking::new(2) else { return };
    assert!(!looking.has_work(&demand("a")));
    looking.job("a");
    assert!(looking.has_work(&demand("a")) && !looking.has_work(&demand("b")));
    let others = |paused: &[&str]| Demand {
        others: Some(1),
        paused: paused.iter().map(|name| (*name).into()).collect(),
        ..Demand::default()
    };
    assert!(looking.has_work(&others(&[])) && !looking.has_work(&others(&["a"])));
    looking.commit(1, "");
    assert!(!looking.has_work(&demand("a")));
    let mut envelope = looking.envelope("later", Some("a"));
    envelope["due_at_ms"] = json!(now_ms() + 60_000);
    looking.write(".retry.1m", &envelope, r#"{"job_type":"a"}"#);
    assert!(!looking.has_work(&demand("a")), "it is not due");
    looking.write(".parked", &looking.envelope("p", Some("b")), r#"{"job_type":"b"}"#);
    assert!(looking.has_work(&demand("b")));
}

#[test]
fn requeued_dead_letter_is_a_new_record_of_the_same_job() {
    let Some(looking) = Looking::new(1) else { return };
    looking.bury("d", Some("t"), |envelope| envelope["key"] = json!({"text": "customer-7"}));
    looking.bury("e", Some("t"), |_| {});
    assert_eq!(
        ids(&wait(looking.queue.requeue_dead(only("d"), Requeue { dry_run: true, ..Requeue::default() }))
            .unwrap()
            .letters),
        ["d"]
    );
    assert_eq!(looking.count(Some("t"), State::Dead), 2, "a dry run changes nothing");
    assert_eq!(looking.requeue(&only("d")).unwrap(), ["d"]);
    assert_eq!(looking.requeue(&only("d")).unwrap(), [""; 0], "it is dead no more");
    assert_eq!((looking.count(Some("t"), State::Dead), looking.count(Some("t"), State::Ready)), (1, 1));
    let [record] = looking.topic.read("").try_into().unwrap();
    assert_eq!(record.value.as_deref(), Some(&br#"{"job_type":"t","n":"d"}"#[..]));
    assert_eq!((record.key.as_deref(), record.header("color")), (Some(&b"customer-7"[..]), Some(&b"red"[..])));
    let envelope = record.envelope();
    let kept = ["id", "record", "attempts", "enqueued_at_ms"].map(|name| !envelope[name].is_null());
    assert_eq!((kept, &envelope["requeues"], &envelope["failures"]), ([true; 4], &json!(1), &json!(0)));
    assert!(envelope["buried"].is_null() && envelope["first_started_at_ms"].is_null());
    let shown = looking.show("d").unwrap();
    assert_eq!((shown.listed.state, shown.listed.requeues), (State::Ready, 1));
}

#[test]
fn thousands_are_requeued_once_each_and_deleted_for_good() {
    let Some(looking) = Looking::new(3) else { return };
    let records = (0..1_300).map(|n| {
        let mut envelope = looking.envelope(&format!("n{n}"), Some(if n % 2 == 0 { "even" } else { "odd" }));
        envelope["buried"] = json!({"at_ms": now_ms(), "failure": {"kind": "trap", "message": "why"}});
        let key = envelope["record"].as_str().unwrap();
        Record::from("{}").key(key).header("sandhog", envelope.to_string()).partition(n % 3)
    });
    looking.beside(".dead").send(records);
    assert_eq!(looking.requeue(&of_type("even")).unwrap().len(), 650);
    assert_eq!(looking.requeue(&of_type("even")).unwrap().len(), 0);
    let stats = looking.stats();
    let count = |state| stats.counts.iter().filter(|count| count.state == state).map(|count| count.jobs).sum::<u64>();
    assert_eq!((count(State::Ready), count(State::Dead)), (650, 650));
    assert_eq!(looking.delete(&of_type("odd")).len(), 650);
    assert_eq!(looking.list(&state(State::Dead)).len(), 0);
    assert_eq!(looking.list(&Filter { limit: Some(700), ..state(State::Ready) }).len(), 650);
}

#[test]
fn two_who_requeue_at_the_same_time_send_nothing_back_twice() {
    let Some(looking) = Looking::new(1) else { return };
    let records = (0..3_000).map(|n| {
        let envelope = looking.envelope(&format!("n{n}"), Some("t"));
        Record::from("{}").key(envelope["record"].as_str().unwrap()).header("sandhog", envelope.to_string())
    });
    looking.beside(".dead").send(records);
    let ended: Vec<Result<Vec<String>, QueueError>> = std::thread::scope(|scope| {
        let both: Vec<_> = (0..2).map(|_| scope.spawn(|| looking.requeue(&Filter::default()))).collect();
        both.into_iter().map(|one| one.join().unwrap()).collect()
    });
    // Whoever comes second fences the first, who says so and may run it again; or finds nothing any more.
    for error in ended.iter().filter_map(|end| end.as_ref().err()) {
        assert!(error.transient && error.message.contains("somebody else"), "{error}");
    }
    assert!(ended.iter().any(Result::is_ok));
    let sent: Vec<Value> = looking.topic.read("").iter().map(|record| record.envelope()["id"].clone()).collect();
    assert_eq!(sent.len(), 3_000);
    assert_eq!(sent.iter().collect::<std::collections::HashSet<_>>().len(), 3_000);
    assert_eq!(looking.topic.dead().len(), 0);
}

#[test]
fn dead_letter_that_was_requeued_three_times_goes_back_only_by_force() {
    let Some(looking) = Looking::new(1) else { return };
    for (id, requeues) in [("two", 2), ("three", 3)] {
        looking.bury(id, Some("t"), |envelope| envelope["requeues"] = json!(requeues));
    }
    assert_eq!(looking.requeue(&of_type("t")).unwrap(), ["two"]);
    assert_eq!(looking.requeue(&only("three")).unwrap(), [""; 0]);
    let force = Requeue { force: true, ..Requeue::default() };
    assert_eq!(ids(&wait(looking.queue.requeue_dead(only("three"), force)).unwrap().letters), ["three"]);
}

#[test]
fn malformed_dead_letter_is_not_requeued_and_can_be_deleted() {
    let Some(looking) = Looking::new(1) else { return };
    looking.bury("m", None, |_| {});
    looking.bury("d", Some("t"), |_| {});
    let both = Filter { ids: vec!["d".into(), "m".into()], ..Filter::default() };
    let error = looking.requeue(&both).unwrap_err();
    assert!(error.message.contains("`m`") && error.message.contains("malformed"), "{error}");
    assert_eq!(looking.list(&state(State::Dead)).len(), 2, "nothing was changed");
    assert_eq!(looking.requeue(&Filter::default()).unwrap(), ["d"]);
    assert_eq!(looking.delete(&Filter::default()), ["m"]);
}

#[test]
fn dead_letter_that_the_topic_refuses_is_named_and_stays() {
    let Some(looking) = Looking::new(1) else { return };
    looking.bury("small", Some("t"), |_| {});
    looking.bury("large", Some("t"), |envelope| envelope["failed_attempts"] = json!([failed(&"y".repeat(900))]));
    looking.topic.configure("", &[("max.message.bytes", "1000")]);
    let error = looking.requeue(&Filter::default()).unwrap_err();
    assert!(error.message.contains("`large`") && error.message.contains("larger"), "{error}");
    assert!(error.message.contains("after 1 dead letters were requeued"), "{error}");
    assert_eq!(
        (looking.list(&state(State::Dead)), looking.list(&state(State::Ready))),
        (vec!["large".into()], vec!["small".into()])
    );
}

#[test]
fn what_is_not_there_is_not_made_by_looking() {
    let Some(looking) = Looking::new(1) else { return };
    looking.topic.delete(".dead");
    assert_eq!(looking.stats().counts, []);
    assert_eq!(looking.requeue(&Filter::default()).unwrap(), [""; 0]);
    assert_eq!(looking.topic.partitions(".dead"), 0);
}

#[test]
fn topic_with_a_type_of_its_own_holds_any_text() {
    let Some(looking) = Looking::with(1, |options| options.topics[0].job_type = Some("messages".into())) else {
        return;
    };
    looking.topic.send([&b"hello"[..], b"\xff"]);
    assert_eq!((looking.count(Some("messages"), State::Ready), looking.count(None, State::Ready)), (1, 1));
}

#[test]
#[ignore = "a measurement"]
fn million_is_counted_in_about_two_seconds() {
    let Some(looking) = Looking::new(8) else { return };
    let body = format!(r#"{{"job_type":"t","payload":"{}"}}"#, "x".repeat(90));
    looking.topic.send((0..1_100_000).map(|n| Record::from(body.as_str()).partition(n % 8)));
    let begun = Instant::now();
    let stats = looking.stats();
    eprintln!("stats: {:?} {:?} {:?}", begun.elapsed(), stats.counts, stats.notes);
    let begun = Instant::now();
    eprintln!("list: {} {:?}", looking.list(&Filter { limit: Some(51), ..Filter::default() }).len(), begun.elapsed());
    for job_type in ["t", "u"] {
        let begun = Instant::now();
        eprintln!("has_work: {} {:?}", looking.has_work(&demand(job_type)), begun.elapsed());
    }
    let records = (0..100_000).map(|n| {
        let envelope = looking.envelope(&format!("n{n}"), Some("t"));
        Record::from(body.as_str()).key(envelope["record"].as_str().unwrap()).header("sandhog", envelope.to_string())
    });
    looking.beside(".dead").send(records);
    let begun = Instant::now();
    eprintln!("requeued: {} {:?}", looking.requeue(&Filter::default()).unwrap().len(), begun.elapsed());
}
