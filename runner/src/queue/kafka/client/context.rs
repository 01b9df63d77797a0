//! What all our clients of one queue share: where librdkafka's log goes, and whether a broker can be reached.
//!
//! librdkafka says of each connection of each client, again and again, that it failed. People are told once, when no broker
//! answers at all, and once when one does again: what a client says only makes a thread of ours ask.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaErrorCode;

use super::{Options, reader, reason, token};
use crate::queue::health::Health;

/// Under which name librdkafka's own lines are in the log.
pub(super) const LOG_TARGET: &str = "sandhog::queue::kafka::librdkafka";

/// What our clients report to. Clones are the same.
#[derive(Clone)]
pub(crate) struct Context(Arc<Shared>);

struct Shared {
    brokers: String,
    topic: String,
    token_file: Option<PathBuf>,
    /// What to ask with whether a broker is there; none: nobody asks.
    asks_with: Option<ClientConfig>,
    state: Mutex<State>,
    health: Health,
}

#[derive(Default)]
struct State {
    /// Why a connection failed last.
    failure: Option<(RDKafkaErrorCode, String)>,
    /// The newest version of the heartbeat of KIP-848 that a broker has.
    heartbeat_version: Option<u32>,
    /// A thread asks whether a broker is there.
    watched: bool,
    /// When a broker answered it last.
    answered_at: Option<Instant>,
    /// None answers, and people know.
    away: bool,
}

/// What one of our clients hears: what all of them report, and what is its own.
pub(crate) struct With<T> {
    pub(crate) context: Context,
    pub(crate) own: T,
}

/// A client that says at once again that it reaches no broker, when one just answered, is not right.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Between two questions.
const HEAR_FOR: Duration = Duration::from_millis(200);

/// How long an answer may take before the broker is taken to be away.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

// === impl Context ===

impl Context {
    /// For the clients of a queue: says when no broker can be reached, and when one can be again.
    pub(crate) fn new(options: &Options) -> Context {
        Context::with(options, Some(reader(options)))
    }

    /// For a client that asks something and ends: what fails is only kept.
    pub(crate) fn quiet(options: &Options) -> Context {
        Context::with(options, None)
    }

    fn with(options: &Options, asks_with: Option<ClientConfig>) -> Context {
        Context(Arc::new(Shared {
            brokers: options.brokers.clone(),
            topic: options.topics.first().map(|topic| topic.name.clone()).unwrap_or_default(),
            token_file: options.oauth_token_file.clone(),
            asks_with,
            state: Mutex::default(),
            health: Health::default(),
        }))
    }

    /// For how long no broker answered, all in all.
    pub(crate) fn sick(&self) -> Duration {
        self.0.health.sick(Instant::now())
    }

    /// The file with the token for OAUTHBEARER.
    pub(super) fn token_file(&self) -> Option<&Path> {
        self.0.token_file.as_deref()
    }

    /// Why a connection failed last.
    pub(crate) fn failure(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.state().failure.clone()
    }

    /// The newest version of the heartbeat of KIP-848 that a broker said it has, to a client with `debug` on `feature`.
    pub(crate) fn heartbeat_version(&self) -> Option<u32> {
        self.state().heartbeat_version
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("nothing panics while it holds this lock")
    }

    /// Asks until a broker answers, on a thread of its own, unless one asks already.
    fn watch(&self) {
        let Some(config) = self.0.asks_with.clone() else { return };
        let mut state = self.state();
        let just_answered = state.answered_at.is_some_and(|at| at.elapsed() < ASK_AGAIN_AFTER);
        if just_answered || std::mem::replace(&mut state.watched, true) {
            return;
        }
        drop(state);
        let (queue, ask) = (Arc::downgrade(&self.0), Context::asking_for(&self.0));
        let watch = move || wait_for_broker(&queue, &config, ask);
        if let Err(e) = std::thread::Builder::new().name("queue-broker".to_owned()).spawn(watch) {
            tracing::warn!("cannot start the thread that waits for the broker: {e}");
            self.state().watched = false;
        }
    }

    fn asking_for(shared: &Shared) -> Context {
        Context(Arc::new(Shared {
            brokers: shared.brokers.clone(),
            topic: shared.topic.clone(),
            token_file: shared.token_file.clone(),
            asks_with: None,
            state: Mutex::default(),
            health: Health::default(),
        }))
    }
}

/// Ends when a broker answers, or when the queue is gone.
fn wait_for_broker(queue: &Weak<Shared>, config: &ClientConfig, ask: Context) {
    let started = Instant::now();
    let client: KafkaResult<BaseConsumer<Context>> = config.create_with_context(ask);
    while let Some(queue) = queue.upgrade().map(Context) {
        let client = match &client {
            Ok(client) => client,
            Err(error) => {
                tracing::warn!("cannot ask whether a Kafka broker is there: {error}");
                queue.note_back(started.elapsed());
                return;
            }
        };
        let answer = client.fetch_metadata(Some(&client.context().0.topic), ANSWER_TIMEOUT);
        let Err(error) = answer else {
            queue.note_back(started.elapsed());
            return;
        };
        let failure = client.context().failure().or_else(|| queue.failure());
        queue.note_away(&failure.map_or_else(|| reason(&error), |(_, text)| text));
        drop(queue);
        // Hears why connections fail. It has no group, so that no record comes.
        let until = Instant::now() + HEAR_FOR;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            drop(client.poll(left));
        }
    }
}

impl Context {
    fn note_away(&self, reason: &str) {
        if !std::mem::replace(&mut self.state().away, true) {
            self.0.health.falls_ill(Instant::now());
            let brokers = &self.0.brokers;
            tracing::warn!(kafka.brokers = %brokers, "no Kafka broker of `{brokers}` can be reached, and is waited for: {reason}");
        }
    }

    fn note_back(&self, after: Duration) {
        let mut state = self.state();
        state.watched = false;
        state.answered_at = Some(Instant::now());
        state.failure = None;
        let was_away = std::mem::take(&mut state.away);
        drop(state);
        if was_away {
            self.0.health.recovers(Instant::now());
            let (brokers, seconds) = (&self.0.brokers, after.as_secs());
            tracing::info!(kafka.brokers = %brokers, "Kafka at `{brokers}` is reached again, after {seconds} s");
        }
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, _level: RDKafkaLogLevel, facility: &str, line: &str) {
        if let Some(version) = heartbeat_version(facility, line) {
            self.state().heartbeat_version = Some(version);
        }
        // What matters of it comes as an error too, and is told in our words.
        tracing::debug!(target: LOG_TARGET, "{facility}: {line}");
    }

    fn stats_raw(&self, _statistics: &[u8]) {}

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: LOG_TARGET, "{error}: {reason}");
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => self.watch(),
            Some(
                code @ (RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::SSL
                | RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::OperationTimedOut),
            ) => self.state().failure = Some((code, without_circumstances(reason).to_owned())),
            _ => {}
        }
    }

    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        token::read(self.token_file())
    }
}

impl ConsumerContext for Context {}

impl<T: Send + Sync + 'static> ClientContext for With<T> {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = Context::ENABLE_REFRESH_OAUTH_TOKEN;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.context.log(level, facility, line);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.context.stats_raw(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.context.generate_oauth_token(config)
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("brokers", &self.0.brokers)
            .field("away", &self.state().away)
            .finish_non_exhaustive()
    }
}

/// Without the `(after 0ms in state CONNECT, 1 identical error(s) suppressed)` behind a reason.
fn without_circumstances(reason: &str) -> &str {
    reason.rsplit_once(" (after ").map_or(reason, |(reason, _)| reason)
}

/// The newest version of the heartbeat of KIP-848, if this line of librdkafka's log says it. It has no other way to tell what
/// a broker can do; a test asks a real one.
fn heartbeat_version(facility: &str, line: &str) -> Option<u32> {
    if facility != "APIVERSION" {
        return None;
    }
    let (_, versions) = line.split_once("ApiKey ConsumerGroupHeartbeat ")?.1.split_once(" Versions ")?;
    versions.split_once("..")?.1.trim().parse().ok()
}
