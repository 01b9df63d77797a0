//! What somebody forgot to permit: it is said which permission is missing and what to do, and work goes on when it is given.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use super::access::Guarded;
use super::{Record, Topic};
use crate::eventually;
use crate::support::{TestRunner, message};

const GUEST: &str = "queue.kafka.client = { 'security.protocol' = 'sasl_plaintext', 'sasl.mechanism' = 'PLAIN', \
                     'sasl.username' = 'guest', 'sasl.password' = 'right' }";

/// A rule of the broker's authorizer about the user `guest`, in the protocol's numbers.
#[derive(Debug, Clone, Copy)]
struct Rule<'a> {
    resource: i8,
    name: &'a str,
    pattern: i8,
    operation: i8,
    permission: i8,
}

const TOPIC: i8 = 2;
const GROUP: i8 = 3;
const CLUSTER: i8 = 4;
const TRANSACTIONAL_ID: i8 = 5;
const EXACTLY: i8 = 3;
const PREFIXED: i8 = 4;
const ALL: i8 = 2;
const READ: i8 = 3;
const WRITE: i8 = 4;
const DENY: i8 = 2;
const ALLOW: i8 = 3;

const CREATE_ACLS: i16 = 30;
const DELETE_ACLS: i16 = 31;

// === impl Rule ===

impl Rule<'_> {
    /// Takes effect before anything is asked that comes later. Whoever comes without a password may do everything.
    fn make(self, broker: &str) {
        self.ask(broker, CREATE_ACLS);
    }

    fn undo(self, broker: &str) {
        self.ask(broker, DELETE_ACLS);
    }

    /// One request of Kafka's protocol: version 1 of both has the same fields.
    fn ask(self, broker: &str, request: i16) {
        let text = |text: &str| [&i16::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat();
        let mut body = [&request.to_be_bytes()[..], &1_i16.to_be_bytes(), &7_i32.to_be_bytes(), &text("test")].concat();
        body.extend(1_i32.to_be_bytes());
        body.push(self.resource.to_be_bytes()[0]);
        body.extend(text(self.name));
        body.push(self.pattern.to_be_bytes()[0]);
        body.extend(text("User:guest"));
        body.extend(text("*"));
        body.extend([self.operation.to_be_bytes()[0], self.permission.to_be_bytes()[0]]);
        let mut stream = TcpStream::connect(broker).unwrap();
        stream.write_all(&[&u32::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat()).unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut answer).unwrap();
        // Its number, a throttle, one result, and how it ended.
        assert_eq!(answer[..4], 7_i32.to_be_bytes());
        assert_eq!(answer[8..14], [0, 0, 0, 1, 0, 0], "{self:?}: {answer:?}");
    }
}

/// A topic on a broker that lets `guest` do all that a runner does, as everybody sees it and as he does.
fn permitted(guarded: &Guarded) -> (Topic, Topic) {
    let topic = guarded.broker.topic(1);
    for (resource, name, pattern) in [
        (TOPIC, topic.name.as_str(), PREFIXED),
        (GROUP, topic.group.as_str(), EXACTLY),
        (TRANSACTIONAL_ID, topic.group.as_str(), PREFIXED),
        (CLUSTER, "kafka-cluster", EXACTLY),
    ] {
        Rule { resource, name, pattern, operation: ALL, permission: ALLOW }.make(guarded.broker.address());
    }
    let as_guest = Topic { address: guarded.sasl.clone(), ..topic.clone() };
    (topic, as_guest)
}

fn runner(as_guest: &Topic, config: &str) -> TestRunner {
    let retry = "[retry]\nmax_failures = 3\nbackoff = { first = '20ms', factor = 1, max = '20ms' }\n";
    as_guest.runner(&format!("{GUEST}\n{config}")).handler("obey", "obedient").manifest("obey", retry)
}

fn job(command: &str) -> Record {
    Record::from(format!(r#"{{"job_type":"obey","do":"{command}"}}"#))
}

fn of_writing(runner: &TestRunner) -> Vec<String> {
    let log = runner.log();
    let loud = log.iter().filter(|line| line["level"] == "WARN").map(message);
    loud.filter(|message| message.starts_with("cannot ")).map(str::to_owned).collect()
}

#[test]
fn missing_permission_is_named_and_work_goes_on_when_it_is_given() {
    let Some(guarded) = Guarded::start() else { return };
    may_not_write(&guarded, "", ".retry.1s", "fail-before 2 report 0");
    may_not_write(&guarded, "", ".dead", "reject");
    may_not_make_transactions(&guarded);
    may_not_start(&guarded, |topic| (GROUP, topic.group.clone()), "the consumer group");
    may_not_start(&guarded, |topic| (TOPIC, topic.name.clone()), "the topic");
}

/// The job is held, and another process sees why; it goes on by itself.
fn may_not_write(guarded: &Guarded, config: &str, suffix: &str, command: &str) {
    let (topic, as_guest) = permitted(guarded);
    let mut runner = runner(&as_guest, config).start();
    eventually!(topic.partitions(suffix) == 1);
    let name = format!("{}{suffix}", topic.name);
    let denied = Rule { resource: TOPIC, name: &name, pattern: EXACTLY, operation: WRITE, permission: DENY };
    denied.make(guarded.broker.address());
    topic.send([job(command), job("report 0")]);
    let blocked: Value = eventually!(runner.stats()["blocked"].as_array().and_then(|all| all.first().cloned()));
    let reason = blocked["reason"].as_str().unwrap();
    assert!(reason.contains(&name) && reason.contains("no permission for the topic"), "{reason}");
    let said = of_writing(&runner);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains(&name) && said[0].contains("allow this user to"), "{said:?}");
    denied.undo(guarded.broker.address());
    eventually!(topic.left() == 0);
    assert!(runner.stop().success());
}

fn may_not_make_transactions(guarded: &Guarded) {
    let (topic, as_guest) = permitted(guarded);
    let group = topic.group.as_str();
    let denied =
        Rule { resource: TRANSACTIONAL_ID, name: group, pattern: PREFIXED, operation: WRITE, permission: DENY };
    denied.make(guarded.broker.address());
    let mut runner = runner(&as_guest, "queue.kafka.delivery = 'exactly-once-in-kafka'").start();
    topic.send([job("fail-before 2 report 0"), job("reject"), job("report 0")]);
    eventually!(!of_writing(&runner).is_empty());
    denied.undo(guarded.broker.address());
    eventually!(topic.left() == 0);
    let said = of_writing(&runner);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("no permission for the transactional id") && said[0].contains(group), "{said:?}");
    assert!(said[0].contains("allow this user to"), "{said:?}");
    assert_eq!(topic.dead().len(), 1);
    assert!(runner.stop().success());
}

/// The runner ends, and says why; it works when it is started again.
fn may_not_start(guarded: &Guarded, what: impl Fn(&Topic) -> (i8, String), said: &str) {
    let (topic, as_guest) = permitted(guarded);
    let (resource, name) = what(&topic);
    let denied = Rule { resource, name: &name, pattern: EXACTLY, operation: READ, permission: DENY };
    denied.make(guarded.broker.address());
    let mut runner = runner(&as_guest, "");
    runner.spawn(&[]);
    assert!(!runner.wait().success());
    let log = runner.log();
    let ended: Vec<&str> =
        log.iter().map(message).filter(|line| line.contains("this user has no permission")).collect();
    assert!(ended.iter().any(|line| line.contains(said) && line.contains(&name)), "{log:#?}");
    assert_eq!(runner.says("allow this user to read"), 1, "{log:#?}");
    denied.undo(guarded.broker.address());
    topic.send([job("report 0")]);
    runner.restart(&[]);
    eventually!(topic.left() == 0);
    assert!(runner.stop().success());
}
