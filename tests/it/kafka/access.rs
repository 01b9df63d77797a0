//! What is there and fit before a runner starts, and what it says where it may not, cannot or is not let in.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use sandhog::queue::QueueError;
use sandhog::queue::kafka::{GroupProtocol, KafkaQueue, Options, Properties};
use tempfile::TempDir;

use super::{Broker, TIERS, Topic};
use crate::eventually;
use crate::support::TestRunner;

/// A queue on the topic, with options as `change` leaves them. Tried again as a runner does, where a busy broker did not answer
/// in time.
fn open(topic: &Topic, change: impl Fn(&mut Options)) -> Result<Arc<KafkaQueue>, QueueError> {
    eventually!(Some(open_once(topic, &change)).filter(|opened| !opened.as_ref().is_err_and(|error| error.transient)))
}

fn open_once(topic: &Topic, change: impl Fn(&mut Options)) -> Result<Arc<KafkaQueue>, QueueError> {
    let dir = TempDir::new().unwrap();
    let mut options = Options::new(topic.address.clone(), topic.name.clone(), dir.path());
    options.group.clone_from(&topic.group);
    change(&mut options);
    KafkaQueue::open(options)
}

/// What it says, with its hint, where it cannot be opened for good.
fn refused(topic: &Topic, change: impl Fn(&mut Options)) -> String {
    let error = open(topic, change).expect_err("it is refused");
    format!("{} ({})", error.message, error.hint.unwrap_or_default())
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn topics_are_made_as_the_documents_say() {
    let Some(broker) = Broker::shared() else { return };
    let topic = broker.unmade_topic();
    open(&topic, |options| {
        options.partitions = 3;
        options.topic_config = map(&[("max.message.bytes", "2000000"), ("min.insync.replicas", "1")]);
    })
    .unwrap();
    let jobs = topic.configuration("");
    assert_eq!((topic.partitions(""), jobs["retention.ms"].as_str()), (3, "604800000"));
    assert_eq!(jobs["max.message.bytes"], "2000000");
    for suffix in TIERS {
        let config = topic.configuration(suffix);
        assert_eq!((topic.partitions(suffix), config["cleanup.policy"].as_str()), (3, "delete"), "{suffix}");
        assert_eq!(config["retention.ms"], "2592000000");
        assert_eq!(config["max.message.bytes"], "4262144", "twice that of the jobs, and 256 KiB");
    }
    for suffix in [".parked", ".dead"] {
        let config = topic.configuration(suffix);
        assert_eq!((topic.partitions(suffix), config["cleanup.policy"].as_str()), (3, "compact"), "{suffix}");
        assert_eq!(config["max.message.bytes"], "4262144");
    }
    open(&topic, |_| {}).expect("what is there stays");
}

#[test]
fn topics_of_ours_grow_with_that_of_the_jobs() {
    let Some(broker) = Broker::shared() else { return };
    let topic = broker.topic(1);
    open(&topic, |_| {}).unwrap();
    topic.grow("", 4);
    eventually!(topic.partitions("") == 4);
    open(&topic, |_| {}).unwrap();
    for suffix in TIERS.into_iter().chain([".parked", ".dead"]) {
        assert_eq!(topic.partitions(suffix), 4, "{suffix}");
    }
}

#[test]
fn missing_topic_is_made_only_where_it_may_be() {
    let Some(broker) = Broker::shared() else { return };
    let topic = broker.unmade_topic();
    let name = &topic.name;
    assert_eq!(
        refused(&topic, |options| options.auto_create = false),
        format!(
            "topic `{name}` does not exist, and `queue.kafka.auto_create` is false (create it, or name another in \
             `queue.kafka.topic`)"
        )
    );
    assert_eq!(
        refused(&topic, |options| options.present_only = true),
        format!("there is no topic `{name}` (name it in `queue.url`; `sandhog enqueue` and `sandhog run` make one)")
    );
    assert_eq!(topic.partitions(""), 0, "neither made it");
    topic.create("", 1, &[]);
    open(&topic, |options| options.present_only = true).expect("ours may be missing");
    assert_eq!(topic.partitions(".dead"), 0, "who only looks makes nothing");
    open(&topic, |options| options.auto_create = false).expect("ours are made all the same");
    assert_eq!(topic.partitions(".dead"), 1);
}

#[test]
fn configuration_that_kafka_refuses_is_explained() {
    let Some(broker) = Broker::shared() else { return };
    let topic = broker.unmade_topic();
    let name = &topic.name;
    let said = |key: &str, value: &str| {
        refused(&topic, |options| options.topic_config = map(&[("retention.ms", "1000"), (key, value)]))
    };
    assert_eq!(
        said("message.timestamp.difference.max.ms", "60000"),
        format!(
            "cannot create topic `{name}`: `message.timestamp.difference.max.ms` of `queue.kafka.topic_config` is obsolete \
             (Kafka 4 has `message.timestamp.before.max.ms` and `message.timestamp.after.max.ms` in its place)"
        )
    );
    assert_eq!(
        said("retention.byte", "5"),
        format!(
            "cannot create topic `{name}`: Kafka has no topic configuration `retention.byte` (did you mean `retention.bytes`?)"
        )
    );
    assert_eq!(
        said("segment.ms", "soon"),
        format!(
            "cannot create topic `{name}`: Kafka does not take a value of its configuration, `retention.ms` = `1000`, \
             `segment.ms` = `soon` (look at `queue.kafka.topic_config`)"
        )
    );
    assert_eq!(
        refused(&topic, |options| options.replication = 5),
        format!(
            "cannot create topic `{name}`: there are fewer brokers than replicas (set `queue.kafka.replication` to at most the \
             number of brokers, or to 0 for their default)"
        )
    );
    open(&topic, |options| options.topic_config = map(&[("file.delete.delay.ms", "1000")]))
        .expect("it is not obsolete");
}

#[test]
fn topic_that_cannot_hold_what_it_must_is_refused() {
    let Some(broker) = Broker::shared() else { return };
    let topic = broker.topic(1);
    let name = &topic.name;
    topic.create(".dead", 1, &[("cleanup.policy", "compact"), ("max.message.bytes", "1048588")]);
    assert_eq!(
        refused(&topic, |_| {}),
        format!(
            "topic `{name}.dead` takes records of 1048588 bytes, and must take those of topic `{name}`, which have up to \
             1048588, with what is noted about each (set its `max.message.bytes` to 1310732 at least)"
        )
    );
    topic.configure(".dead", &[("cleanup.policy", "compact"), ("max.message.bytes", "1310732")]);
    open(&topic, |_| {}).expect("that is enough");
    topic.configure(".parked", &[("cleanup.policy", "delete"), ("max.message.bytes", "9000000")]);
    assert_eq!(
        refused(&topic, |_| {}),
        format!(
            "topic `{name}.parked` has `cleanup.policy` `delete`, and would lose jobs (set its `cleanup.policy` to `compact`)"
        )
    );
}

/// It is found out by the library's log, which has no other way to say it.
#[test]
fn broker_that_has_the_newer_group_protocol_is_known() {
    let Some(broker) = Broker::shared() else { return };
    let topic = broker.topic(1);
    let of = |change: &dyn Fn(&mut Options)| open(&topic, |options| change(options)).unwrap().group_protocol();
    assert_eq!(of(&|_| {}), GroupProtocol::Consumer);
    assert_eq!(of(&|options| options.group_protocol = GroupProtocol::Classic), GroupProtocol::Classic);
    let strategy = Properties(map(&[("partition.assignment.strategy", "range,roundrobin")]));
    assert_eq!(of(&|options| options.client = strategy.clone()), GroupProtocol::Classic);
}

#[test]
fn broker_without_the_newer_group_protocol_is_worked_with_the_classic_one() {
    // It says that it has it, and refuses it.
    let Some(broker) = Broker::own(1, "group.coordinator.rebalance.protocols=classic") else { return };
    let topic = broker.topic(1);
    topic.send([r#"{"job_type":"echo","do":"complete"}"#]);
    let mut runner = topic.runner("").handler("echo", "obedient").start();
    eventually!(topic.left() == 0);
    assert_eq!(runner.says("the runner goes on with the classic one"), 1);
    assert!(runner.stop().success());
}

#[test]
fn broker_that_is_away_is_waited_for_and_that_is_said_once() {
    let Some(broker) = Broker::own(1, "") else { return };
    let topic = broker.topic(1);
    broker.kill(1);
    let error = open_once(&topic, |_| {}).expect_err("it is away");
    assert!(error.transient, "{error}");
    assert!(error.message.contains(&format!("cannot connect to Kafka at `{}`: ", broker.address())), "{error}");
    assert!(error.message.ends_with("Connection refused"), "{error}");

    let mut runner = topic.runner("").handler("echo", "obedient");
    runner.spawn(&[]);
    eventually!(runner.says("the runner waits for it") == 1);
    broker.up(1);
    topic.send([r#"{"job_type":"echo","do":"complete"}"#]);
    eventually!(topic.left() == 0);
    assert_eq!(runner.says("the runner waits for it"), 1);

    broker.kill(1);
    eventually!(runner.says("no Kafka broker of") == 1);
    broker.up(1);
    eventually!(runner.says("is reached again") == 1);
    topic.send([r#"{"job_type":"echo","do":"complete"}"#]);
    eventually!(topic.left() == 0);
    assert_eq!(runner.says("no Kafka broker of"), 1);
    let warnings: Vec<_> = runner
        .log()
        .into_iter()
        .filter(|line| line["level"] == "WARN" && line.to_string().contains(broker.address()))
        .collect();
    assert_eq!(warnings.len(), 2, "{warnings:#?}");
    assert!(runner.stop().success());
}

#[test]
fn runner_that_waits_for_a_broker_stops_when_it_is_told_to() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut runner =
        TestRunner::new().config(&format!("queue.url = 'kafka://{address}/jobs'")).handler("echo", "obedient");
    runner.spawn(&[]);
    eventually!(runner.says("the runner waits for it") == 1);
    assert!(runner.stop().success());
}

/// A broker that lets in whom it knows, over SASL and over TLS. Who comes without either may do everything.
pub(super) struct Guarded {
    pub(super) broker: Broker,
    pub(super) sasl: String,
    tls: String,
    keys: TempDir,
}

impl Guarded {
    pub(super) fn start() -> Option<Guarded> {
        // A machine without Java has no broker either.
        let keys = TempDir::new().unwrap();
        make_keys(keys.path())?;
        let (sasl, tls) = (free_address(), free_address());
        let store = keys.path().join("store.p12");
        let properties = format!(
            r#"
listeners=PLAINTEXT://127.0.0.1:@PORT@,SASL://{sasl},TLS://{tls},CONTROLLER://127.0.0.1:@CONTROLLER@
advertised.listeners=PLAINTEXT://127.0.0.1:@PORT@,SASL://{sasl},TLS://{tls}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SSL
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512,OAUTHBEARER
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_root="right" user_guest="right";
listener.name.sasl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="root";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:root
ssl.keystore.type=PKCS12
ssl.keystore.location={}
ssl.keystore.password=changeit
"#,
            store.display()
        );
        let broker = Broker::formatted(1, &properties, "--add-scram SCRAM-SHA-512=[name=root,password=right]")?;
        Some(Guarded { broker, sasl, tls, keys })
    }

    /// A topic as it is reached by SASL.
    fn topic(&self) -> Topic {
        Topic { address: self.sasl.clone(), ..self.broker.unmade_topic() }
    }
}

/// A key and its certificate, for 127.0.0.1.
fn make_keys(folder: &Path) -> Option<()> {
    let keytool = |arguments: &[&str]| {
        let mut command = Command::new("keytool");
        command.current_dir(folder).args(arguments).args(["-keystore", "store.p12", "-storepass", "changeit"]);
        Some(command.output().ok()?.status.success())
    };
    let made = keytool(&[
        "-genkeypair",
        "-alias",
        "broker",
        "-keyalg",
        "RSA",
        "-dname",
        "CN=127.0.0.1",
        "-ext",
        "san=ip:127.0.0.1",
        "-storetype",
        "PKCS12",
        "-validity",
        "3650",
    ])?;
    assert!(made && keytool(&["-exportcert", "-rfc", "-alias", "broker", "-file", "ca.pem"])?);
    Some(())
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn sasl(mechanism: &str, user: &str, password: &str) -> Properties {
    Properties(map(&[
        ("security.protocol", "sasl_plaintext"),
        ("sasl.mechanism", mechanism),
        ("sasl.username", user),
        ("sasl.password", password),
    ]))
}

#[test]
fn who_is_not_let_in_is_told_why() {
    let Some(guarded) = Guarded::start() else { return };
    let topic = guarded.topic();
    for mechanism in ["PLAIN", "SCRAM-SHA-512"] {
        open(&topic, |options| options.client = sasl(mechanism, "root", "right")).expect(mechanism);
        let said = refused(&topic, |options| options.client = sasl(mechanism, "root", "wrong"));
        assert!(said.contains(&format!("cannot connect to Kafka at `{}`", guarded.sasl)), "{said}");
        assert!(said.contains("SASL authentication error: Authentication failed"), "{said}");
        assert!(said.contains("(look at `sasl.mechanism`, `sasl.username` and `sasl.password`"), "{said}");
        assert!(!said.contains("wrong"), "{said}");
    }
    let said = refused(&topic, |options| options.client = sasl("SCRAM-SHA-256", "root", "right"));
    assert!(said.contains("broker's supported mechanisms: PLAIN,SCRAM-SHA-512,OAUTHBEARER"), "{said}");

    by_token(&guarded);
    over_tls(&guarded);
    without_permission(&guarded);
}

fn by_token(guarded: &Guarded) {
    let topic = guarded.topic();
    let file = guarded.keys.path().join("token");
    let properties = Properties(map(&[("security.protocol", "sasl_plaintext"), ("sasl.mechanism", "OAUTHBEARER")]));
    let opened = || {
        open(&topic, |options| {
            options.client = properties.clone();
            options.oauth_token_file = Some(file.clone());
        })
    };
    std::fs::write(&file, token("root")).unwrap();
    opened().expect("the token is good");
    std::fs::write(&file, "nonsense").unwrap();
    let error = opened().expect_err("it is none");
    assert!(!error.transient && error.message.contains("authentic"), "{error:?}");
}

/// A token without a signature, which a broker takes that is told no better.
fn token(subject: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = format!(r#"{{"sub":"{subject}","iat":{now},"exp":{}}}"#, now + 3_600);
    format!("{}.{}.", base64(br#"{"alg":"none"}"#), base64(claims.as_bytes()))
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let letters = |three: &[u8]| {
        let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        let letter = move |at: usize| char::from(LETTERS[(bits >> (18 - 6 * at)) as usize & 63]);
        (0..=three.len()).map(letter).collect::<String>()
    };
    bytes.chunks(3).map(letters).collect()
}

fn over_tls(guarded: &Guarded) {
    let topic = Topic { address: guarded.tls.clone(), ..guarded.topic() };
    let ca = guarded.keys.path().join("ca.pem");
    let tls = Properties(map(&[("security.protocol", "ssl"), ("ssl.ca.location", ca.to_str().unwrap())]));
    open(&topic, |options| options.client = tls.clone()).expect("the certificate is good");

    let said = refused(&topic, |options| options.client = Properties(map(&[("security.protocol", "ssl")])));
    assert!(said.contains("certificate verify failed"), "{said}");
    assert!(said.contains("(look at `security.protocol` and the `ssl.` properties"), "{said}");

    let none = Properties(map(&[("security.protocol", "ssl"), ("ssl.ca.location", "/nowhere/ca.pem")]));
    let said = refused(&topic, |options| options.client = none.clone());
    assert!(
        said.starts_with("librdkafka does not take the properties in `queue.kafka.client`: ssl.ca.location"),
        "{said}"
    );
}

fn without_permission(guarded: &Guarded) {
    let topic = guarded.topic();
    open(&topic, |options| options.client = sasl("PLAIN", "root", "right")).unwrap();
    let said = refused(&topic, |options| options.client = sasl("PLAIN", "guest", "right"));
    let name = &topic.name;
    assert!(
        said.starts_with(&format!("cannot find topic `{name}`: this user has no permission for the topic")),
        "{said}"
    );
    assert!(said.contains("(allow this user to read, write, describe and create the topic"), "{said}");
}
