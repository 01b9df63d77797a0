//! A real broker on this machine: the one that all tests share, or one that a test may harm.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::topic::Topic;
use crate::support::project;

/// The variable with the address of a broker that is there already, so that it is started once for all test binaries.
const VARIABLE: &str = "SANDHOG_TEST_KAFKA";

/// What the script exits with where there is no Java, or no Maven to fetch Kafka.
const CANNOT_BE_HAD: i32 = 3;

/// How long the broker may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A broker, or three.
#[derive(Debug)]
pub(crate) struct Broker {
    address: String,
    /// None: somebody else's, which is not to be harmed.
    own: Option<Own>,
}

/// `tools/kafka/broker serve`, which ends its nodes when we end, however we do: its input ends then.
#[derive(Debug)]
struct Own {
    folder: PathBuf,
    serving: Child,
}

// === impl Broker ===

impl Broker {
    /// The one that all tests share. Nobody stops it.
    ///
    /// None where none can be had, as on a machine without Java: that is said, loudly, and the test has nothing to do.
    pub(crate) fn shared() -> Option<&'static Broker> {
        static SHARED: OnceLock<Option<Broker>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| match std::env::var(VARIABLE) {
            Ok(address) if !address.is_empty() => Some(Broker { address, own: None }),
            _ => Broker::own(1, ""),
        });
        shared.as_ref()
    }

    /// One of so many nodes for one test alone, which ends with this value. `properties` are lines of its
    /// `server.properties`; the script says what may stand in them.
    pub(crate) fn own(nodes: u32, properties: &str) -> Option<Broker> {
        Broker::formatted(nodes, properties, "")
    }

    /// The same with arguments for Kafka's `format`.
    pub(crate) fn formatted(nodes: u32, properties: &str, format: &str) -> Option<Broker> {
        let mut command = Command::new(project("tools/kafka/broker"));
        command.args(["serve", &nodes.to_string()]).env("KAFKA_CONF", properties).env("KAFKA_FORMAT", format);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut serving = command.spawn().expect("the script is there");
        let mut said = String::new();
        BufReader::new(serving.stdout.as_mut().expect("it is piped")).read_line(&mut said).expect("it is text");
        let Some((folder, address)) = said.trim().split_once(' ') else {
            let mut why = String::new();
            serving.stderr.take().expect("it is piped").read_to_string(&mut why).expect("it is text");
            let status = serving.wait().expect("it is our child");
            assert_eq!(status.code(), Some(CANNOT_BE_HAD), "there could be a broker, and it does not start: {why}");
            not_tested(why.trim());
            return None;
        };
        let own = Own { folder: folder.into(), serving };
        Some(Broker { address: address.to_owned(), own: Some(own) })
    }

    /// `HOST:PORT`, several with commas.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// A new topic of jobs with so many partitions, with names of its own for itself and its group.
    pub(crate) fn topic(&self, partitions: i32) -> Topic {
        let topic = self.unmade_topic();
        topic.create("", partitions, &[]);
        topic
    }

    /// The same, and the topic is not there yet.
    pub(crate) fn unmade_topic(&self) -> Topic {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // A broker may see several runs of the tests: the process's number tells them apart.
        let name = format!("jobs-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Topic::named(self.address.clone(), name)
    }

    /// The names of all topics.
    pub(crate) fn topics(&self) -> Vec<String> {
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", &self.address).create().expect("the settings are sound");
        let metadata = consumer.fetch_metadata(None, ANSWER_WITHIN).expect("the broker answers");
        metadata.topics().iter().map(|topic| topic.name().to_owned()).collect()
    }

    /// The folder of a node of its own: `data`, `log`, `server.properties`.
    pub(crate) fn folder(&self, node: u32) -> PathBuf {
        self.own.as_ref().expect("only one's own may be harmed").folder.join(node.to_string())
    }

    /// SIGKILL.
    pub(crate) fn kill(&self, node: u32) {
        self.tell("kill", node);
    }

    /// Starts a node again, and waits until it is ready.
    pub(crate) fn up(&self, node: u32) {
        self.tell("up", node);
    }

    fn tell(&self, word: &str, node: u32) {
        let folder = &self.own.as_ref().expect("only one's own may be harmed").folder;
        let mut command = Command::new(project("tools/kafka/broker"));
        let output = command.arg(word).arg(folder).arg(node.to_string()).stdin(Stdio::null()).output();
        let output = output.expect("the script is there");
        assert!(output.status.success(), "{word} {node}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        drop(self.serving.stdin.take());
        self.serving.wait().ok();
    }
}

/// Says that something is not tested, past the test harness, which shows nothing of what passes. `make test` says it again at
/// its end.
fn not_tested(why: &str) {
    writeln!(std::io::stderr(), "NOT TESTED: the Kafka queue ({why})").expect("there is a standard error");
}
