//! Looking at a Kafka queue from outside, and its dead letters. The records are written here as a runner would write them, and
//! as others do: their form is public.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use sandhog::clock::{Clock, SystemClock, UnixMs};
use sandhog::outcome::Kind;
use sandhog::queue::kafka::{Options, Topic, dead, inspect};
use sandhog::queue::{Demand, Filter, Listed, State, Stats};
use serde_json::{Value, json};

use crate::support::now_ms;

const PATIENCE: Duration = Duration::from_secs(30);

/// A job topic with all that goes with it, of a name of its own.
struct Queue {
    options: Options,
    producer: BaseProducer,
}

/// A record to be written.
#[derive(Default)]
struct New<'a> {
    topic: &'a str,
    partition: i32,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: Vec<(&'a str, Vec<u8>)>,
}

const TIERS: [&str; 6] = ["1s", "10s", "1m", "10m", "1h", "12h"];

/// The address of a broker; none where there is none, which is said.
fn broker() -> Option<String> {
    let address = std::env::var("SANDHOG_TEST_KAFKA").ok();
    if address.is_none() {
        eprintln!("NOT TESTED: looking at a Kafka queue (no broker: SANDHOG_TEST_KAFKA is not set)");
    }
    address
}

impl Queue {
    fn new(partitions: i32) -> Option<Queue> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let broker = broker()?;
        let name = format!("looking-{}-{}-{}", std::process::id(), now_ms(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut options = Options::new(&broker, &name, std::env::temp_dir());
        options.group = format!("{name}-group");
        let admin: AdminClient<DefaultClientContext> = client(&broker).create().unwrap();
        let tiers = TIERS.map(|tier| format!("{name}.retry.{tier}"));
        let compacted = [format!("{name}.parked"), format!("{name}.dead")];
        let plain = tiers.iter().chain([&name]).map(|name| NewTopic::new(name, partitions, TopicReplication::Fixed(-1)));
        let compacted = compacted.iter().map(|name| {
            NewTopic::new(name, partitions, TopicReplication::Fixed(-1)).set("cleanup.policy", "compact")
        });
        let new: Vec<NewTopic<'_>> = plain.chain(compacted).collect();
        let made = admin.create_topics(&new, &AdminOptions::new());
        let made = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(made).unwrap();
        assert!(made.iter().all(Result::is_ok), "{made:?}");
        let producer = client(&broker).set("linger.ms", "5").set("queue.buffering.max.messages", "2000000").create().unwrap();
        Some(Queue { options, producer })
    }

    fn name(&self) -> &str {
        &self.options.topics[0].name
    }

    fn of(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.name())
    }

    fn send(&self, new: &New<'_>) {
        let mut headers = OwnedHeaders::new();
        for (name, value) in &new.headers {
            headers = headers.insert(Header { key: name, value: Some(value) });
        }
        loop {
            let mut record = BaseRecord::to(new.topic).partition(new.partition).headers(headers.clone());
            record.key = new.key;
            record.payload = new.value;
            match self.producer.send(record) {
                Ok(()) => return,
                Err((KafkaError::MessageProduction(rdkafka::types::RDKafkaErrorCode::QueueFull), _)) => {
                    self.producer.poll(Duration::from_millis(10));
                }
                Err((e, _)) => panic!("{e}"),
            }
        }
    }

    fn flush(&self) {
        self.producer.flush(PATIENCE).unwrap();
    }

    fn job(&self, job_type: &str) {
        let body = format!(r#"{{"job_type":"{job_type}"}}"#);
        self.send(&New { topic: self.name(), value: Some(body.as_bytes()), ..New::default() });
        self.flush();
    }

    /// Writes what a runner writes of a job into the topic `suffix`.
    fn write(&self, suffix: &str, envelope: &Value, body: &[u8]) {
        let topic = self.of(suffix);
        let record = envelope["record"].as_str().unwrap();
        let headers = vec![("color", b"red".to_vec()), ("sandhog", envelope.to_string().into_bytes())];
        let new = New { topic: &topic, key: Some(record.as_bytes()), value: Some(body), headers, ..New::default() };
        self.send(&new);
        self.flush();
    }

    fn bury(&self, id: &str, job_type: Option<&str>, change: impl FnOnce(&mut Value)) {
        let kind = if job_type.is_some() { "trap" } else { "malformed" };
        let mut envelope = self.envelope(id, job_type);
        envelope["buried"] = json!({"at_ms": now_ms(), "failure": {"kind": kind, "message": "why"}});
        change(&mut envelope);
        self.write("dead", &envelope, format!(r#"{{"job_type":"t","n":"{id}"}}"#).as_bytes());
    }

    fn envelope(&self, id: &str, job_type: Option<&str>) -> Value {
        json!({
            "record": format!("{}/0/{id}@1790000000000", self.name()), "id": id, "job_type": job_type,
            "source": {"topic": self.name(), "partition": 0, "offset": 7, "timestamp_ms": 1_790_000_000_000_u64},
            "attempts": 3, "failures": 2, "retries_requested": 1, "enqueued_at_ms": now_ms(),
            "first_started_at_ms": now_ms(),
        })
    }

    fn stats(&self) -> Stats {
        inspect::stats(&self.options, SystemClock.now()).unwrap()
    }

    fn count(&self, job_type: Option<&str>, state: State) -> u64 {
        let counts = self.stats().counts;
        counts.iter().find(|count| count.job_type.as_deref() == job_type && count.state == state).map_or(0, |c| c.jobs)
    }

    fn list(&self, filter: &Filter) -> Vec<String> {
        ids(&inspect::list(&self.options, filter, SystemClock.now()).unwrap())
    }

    fn requeue(&self, filter: &Filter) -> Vec<String> {
        let mut ids = ids(&dead::requeue(&self.options, filter, false).unwrap());
        ids.sort();
        ids
    }

    fn has_work(&self, demand: &Demand) -> bool {
        inspect::has_work(&self.options, demand, SystemClock.now()).unwrap()
    }

    /// All that a reader of committed records sees in a topic.
    fn read(&self, topic: &str) -> Vec<OwnedMessage> {
        let mut config = client(&self.options.brokers);
        config.set("group.id", "reader").set("enable.partition.eof", "true").set("isolation.level", "read_committed");
        let consumer: BaseConsumer = config.create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        let mut read = Vec::new();
        loop {
            match consumer.poll(PATIENCE).expect("the broker answers") {
                Ok(message) => read.push(message.detach()),
                Err(KafkaError::PartitionEOF(_)) => return read,
                Err(e) => panic!("{e}"),
            }
        }
    }

    fn commit(&self, offset: i64, note: &str) {
        let consumer: BaseConsumer = client(&self.options.brokers).set("group.id", &self.options.group).create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(self.name(), 0, Offset::Offset(offset)).unwrap();
        list.find_partition(self.name(), 0).unwrap().set_metadata(note);
        consumer.commit(&list, CommitMode::Sync).unwrap();
    }
}

fn client(broker: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker);
    config
}

fn ids(listed: &[Listed]) -> Vec<String> {
    listed.iter().map(|job| job.id.clone()).collect()
}

fn header<'a>(message: &'a OwnedMessage, name: &str) -> Option<&'a [u8]> {
    message.headers()?.iter().find(|header| header.key == name)?.value
}

fn state(state: State) -> Filter {
    Filter { state: Some(state), ..Filter::default() }
}

fn demand(job_type: &str) -> Demand {
    Demand { types: vec![(job_type.into(), 0)], ..Demand::default() }
}

#[test]
fn counts_are_what_lies_in_the_topics_and_is_not_done() {
    let Some(queue) = Queue::new(1) else { return };
    assert_eq!(queue.stats().counts, []);
    for job_type in ["a", "b", "a", "b", "b"] {
        queue.job(job_type);
    }
    queue.send(&New { topic: queue.name(), value: Some(b"no job"), ..New::default() });
    queue.flush();
    // 0 is done, 1 is not, 2 and 3 are: `s1.` and lengths by turns.
    queue.commit(1, "s1.BC");
    let later = now_ms() + 60_000;
    for (id, due) in [("over", now_ms() - 5_000), ("due", later)] {
        let mut envelope = queue.envelope(id, Some("a"));
        envelope["due_at_ms"] = json!(due);
        queue.write("retry.1m", &envelope, br#"{"job_type":"a"}"#);
    }
    queue.write("parked", &queue.envelope("p", Some("nobody")), br#"{"job_type":"nobody"}"#);
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
    let Some(queue) = Queue::new(1) else { return };
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
    let Some(queue) = Queue::new(1) else { return };
    queue.send(&New {
        topic: queue.name(),
        key: Some(b"\xff"),
        value: Some(b"any text"),
        headers: vec![("job_type", b"text".to_vec()), ("id", b"mine".to_vec()), ("bin", b"\xff\0".to_vec())],
        ..New::default()
    });
    queue.job("a");
    queue.write("parked", &queue.envelope("p", Some("nobody")), br#"{"job_type":"nobody"}"#);
    queue.bury("d", Some("t"), |envelope| {
        envelope["failed_attempts"] = json!([{
            "number": 3, "started_at_ms": 5, "duration_us": 6, "memory_peak_bytes": 7, "generation": "abcdefabcdef",
            "failure": {"kind": "trap", "message": "unreachable"},
        }]);
    });
    let now = SystemClock.now();
    let show = |id: &str| inspect::show(&queue.options, id, now).unwrap();
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
    assert_eq!(queue.list(&Filter { job_type: Some("nobody".into()), ..Filter::default() }), ["p"]);
    let since = Filter { since: Some(now.plus(PATIENCE)), ..Filter::default() };
    assert_eq!(queue.list(&since), [""; 0]);
}

#[test]
fn job_that_a_retry_changed_is_shown_with_both_bodies() {
    let Some(queue) = Queue::new(1) else { return };
    let envelope = queue.envelope("c", Some("t"));
    let topic = queue.of("retry.1s");
    let headers =
        vec![("sandhog", envelope.to_string().into_bytes()), ("sandhog-original", b"{\"job_type\":\"t\"}".to_vec())];
    queue.send(&New { topic: &topic, value: Some(b"changed"), headers, ..New::default() });
    queue.flush();
    let shown = inspect::show(&queue.options, "c", SystemClock.now()).unwrap().unwrap();
    assert_eq!((shown.body.as_slice(), shown.changed_body.as_deref()), (&br#"{"job_type":"t"}"#[..], Some("changed")));
}

#[test]
fn there_is_work_only_for_who_serves_what_waits() {
    let Some(queue) = Queue::new(2) else { return };
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
    queue.write("retry.1m", &envelope, br#"{"job_type":"a"}"#);
    assert!(!queue.has_work(&demand("a")), "it is not due");
    queue.write("parked", &queue.envelope("p", Some("b")), br#"{"job_type":"b"}"#);
    assert!(queue.has_work(&demand("b")));
}

#[test]
fn requeued_dead_letter_is_a_new_record_of_the_same_job() {
    let Some(queue) = Queue::new(1) else { return };
    queue.bury("d", Some("t"), |envelope| envelope["key"] = json!({"text": "customer-7"}));
    queue.bury("e", Some("t"), |_| {});
    let only = Filter { ids: vec!["d".into()], ..Filter::default() };
    assert_eq!(ids(&dead::requeue(&queue.options, &only, true).unwrap()), ["d"]);
    assert_eq!(queue.count(Some("t"), State::Dead), 2, "a dry run changes nothing");
    assert_eq!(queue.requeue(&only), ["d"]);
    assert_eq!(queue.requeue(&only), [""; 0], "it is dead no more");
    assert_eq!((queue.count(Some("t"), State::Dead), queue.count(Some("t"), State::Ready)), (1, 1));
    let [record] = queue.read(queue.name()).try_into().unwrap();
    assert_eq!(record.payload(), Some(&br#"{"job_type":"t","n":"d"}"#[..]));
    assert_eq!((record.key(), header(&record, "color")), (Some(&b"customer-7"[..]), Some(&b"red"[..])));
    let envelope: Value = serde_json::from_slice(header(&record, "sandhog").unwrap()).unwrap();
    let kept = ["id", "record", "attempts", "enqueued_at_ms"].map(|name| !envelope[name].is_null());
    assert_eq!((kept, &envelope["requeues"], &envelope["failures"]), ([true; 4], &json!(1), &json!(0)));
    assert!(envelope["buried"].is_null() && envelope["first_started_at_ms"].is_null());
    let shown = inspect::show(&queue.options, "d", SystemClock.now()).unwrap().unwrap();
    assert_eq!((shown.listed.state, shown.listed.requeues), (State::Ready, 1));
}

#[test]
fn thousands_are_requeued_once_each_and_deleted_for_good() {
    let Some(queue) = Queue::new(3) else { return };
    let topic = queue.of("dead");
    for n in 0..1_300 {
        let mut envelope = queue.envelope(&format!("n{n}"), Some(if n % 2 == 0 { "even" } else { "odd" }));
        envelope["buried"] = json!({"at_ms": now_ms(), "failure": {"kind": "trap", "message": "why"}});
        let (key, header) = (envelope["record"].as_str().unwrap(), envelope.to_string().into_bytes());
        let headers = vec![("sandhog", header)];
        let partition = n % 3;
        queue.send(&New { topic: &topic, partition, key: Some(key.as_bytes()), value: Some(b"{}"), headers });
    }
    queue.flush();
    let of = |job_type: &str| Filter { job_type: Some(job_type.into()), ..Filter::default() };
    assert_eq!(queue.requeue(&of("even")).len(), 650);
    assert_eq!(queue.requeue(&of("even")).len(), 0);
    let stats = queue.stats();
    let count = |state| stats.counts.iter().filter(|count| count.state == state).map(|count| count.jobs).sum::<u64>();
    assert_eq!((count(State::Ready), count(State::Dead)), (650, 650));
    assert_eq!(dead::delete(&queue.options, &of("odd"), false).unwrap().len(), 650);
    assert_eq!(queue.list(&state(State::Dead)).len(), 0);
    assert_eq!(queue.list(&Filter { limit: Some(700), ..state(State::Ready) }).len(), 650);
}

#[test]
fn malformed_dead_letter_is_not_requeued_and_can_be_deleted() {
    let Some(queue) = Queue::new(1) else { return };
    queue.bury("m", None, |_| {});
    queue.bury("d", Some("t"), |_| {});
    let both = Filter { ids: vec!["d".into(), "m".into()], ..Filter::default() };
    let error = dead::requeue(&queue.options, &both, false).unwrap_err();
    assert!(error.message.contains("`m`") && error.message.contains("malformed"), "{error}");
    assert_eq!(queue.list(&state(State::Dead)).len(), 2, "nothing was changed");
    assert_eq!(queue.requeue(&Filter::default()), ["d"]);
    assert_eq!(ids(&dead::delete(&queue.options, &Filter::default(), false).unwrap()), ["m"]);
}

#[test]
fn dead_letter_that_was_requeued_ten_times_goes_back_only_by_its_id() {
    let Some(queue) = Queue::new(1) else { return };
    for (id, requeues) in [("nine", 9), ("ten", 10)] {
        queue.bury(id, Some("t"), |envelope| envelope["requeues"] = json!(requeues));
    }
    assert_eq!(queue.requeue(&Filter { job_type: Some("t".into()), ..Filter::default() }), ["nine"]);
    assert_eq!(queue.requeue(&Filter { ids: vec!["ten".into()], ..Filter::default() }), ["ten"]);
}

#[test]
fn requeue_that_cannot_be_ended_changes_nothing_of_its_batch() {
    let Some(queue) = Queue::new(1) else { return };
    let large = vec![b'x'; 1_000_000];
    let fits = queue.envelope("fits", Some("t"));
    let mut over = queue.envelope("over", Some("t"));
    over["failed_attempts"] = json!([{
        "number": 3, "started_at_ms": 5, "duration_us": 6, "memory_peak_bytes": 7, "generation": "abcdefabcdef",
        "failure": {"kind": "trap", "message": "y".repeat(60_000)},
    }]);
    let topic = queue.of("dead");
    let producer: BaseProducer = client(&queue.options.brokers).set("message.max.bytes", "3000000").create().unwrap();
    let admin: AdminClient<DefaultClientContext> = client(&queue.options.brokers).create().unwrap();
    let config = rdkafka::admin::AlterConfig::new(rdkafka::admin::ResourceSpecifier::Topic(&topic))
        .set("max.message.bytes", "3000000")
        .set("cleanup.policy", "compact");
    let options = AdminOptions::new();
    let altered = admin.alter_configs([&config], &options);
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(altered).unwrap();
    for envelope in [fits, over] {
        let mut envelope = envelope;
        envelope["buried"] = json!({"at_ms": now_ms(), "failure": {"kind": "trap", "message": "why"}});
        let headers = OwnedHeaders::new().insert(Header { key: "sandhog", value: Some(&envelope.to_string()) });
        let key = envelope["record"].as_str().unwrap().to_owned();
        producer.send(BaseRecord::to(&topic).partition(0).key(&key).payload(&large).headers(headers)).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
    let error = dead::requeue(&queue.options, &Filter::default(), false).unwrap_err();
    assert!(error.message.contains("`over`") && error.message.contains("larger"), "{error}");
    assert_eq!(queue.list(&state(State::Dead)).len(), 2);
    assert_eq!(queue.read(queue.name()).len(), 0);
}

#[test]
fn what_is_missing_is_empty_and_stays_missing() {
    let Some(broker) = broker() else { return };
    let name = format!("looking-missing-{}", now_ms());
    let options = Options::new(&broker, &name, std::env::temp_dir());
    let stats = inspect::stats(&options, SystemClock.now()).unwrap();
    assert_eq!(stats.counts, []);
    assert_eq!(dead::requeue(&options, &Filter::default(), false).unwrap(), []);
    let consumer: BaseConsumer = client(&broker).create().unwrap();
    let all = consumer.fetch_metadata(None, PATIENCE).unwrap();
    assert!(!all.topics().iter().any(|topic| topic.name().starts_with(&name)), "looking made a topic");
}

#[test]
fn broker_that_is_away_is_an_error_within_seconds() {
    let options = Options::new("127.0.0.1:1", "looking-away", std::env::temp_dir());
    let begun = Instant::now();
    let error = inspect::stats(&options, SystemClock.now()).unwrap_err();
    assert!(error.transient && error.message.contains("looking-away"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[test]
fn headers_that_are_no_text_and_topics_with_a_type_of_their_own_are_read() {
    let Some(mut queue) = Queue::new(1) else { return };
    queue.options.topics = vec![Topic { name: queue.name().to_owned(), job_type: Some("messages".into()) }];
    queue.send(&New { topic: queue.name(), value: Some(b"hello"), ..New::default() });
    queue.send(&New { topic: queue.name(), value: Some(b"\xff"), ..New::default() });
    queue.flush();
    assert_eq!((queue.count(Some("messages"), State::Ready), queue.count(None, State::Ready)), (1, 1));
}

#[test]
#[ignore = "a measurement"]
fn million_is_counted_in_about_two_seconds() {
    let Some(queue) = Queue::new(8) else { return };
    let body = format!(r#"{{"job_type":"t","payload":"{}"}}"#, "x".repeat(90));
    for n in 0..1_100_000 {
        let partition = n % 8;
        queue.send(&New { topic: queue.name(), partition, value: Some(body.as_bytes()), ..New::default() });
        if n % 1_000 == 0 {
            queue.producer.poll(Duration::ZERO);
        }
    }
    queue.flush();
    let begun = Instant::now();
    let stats = queue.stats();
    eprintln!("stats: {:?} {:?} {:?}", begun.elapsed(), stats.counts, stats.notes);
    let begun = Instant::now();
    eprintln!("list: {} {:?}", queue.list(&Filter { limit: Some(51), ..Filter::default() }).len(), begun.elapsed());
    let begun = Instant::now();
    eprintln!("has_work: {} {:?}", queue.has_work(&demand("t")), begun.elapsed());
    let begun = Instant::now();
    eprintln!("has_no_work: {} {:?}", queue.has_work(&demand("u")), begun.elapsed());
}
