//! The configuration: `sandhog.toml`, the environment and flags, in rising order, checked whole before anything is opened.
//!
//! `docs/configuration.md` has every key; a test compares it with this file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::grants::Allow;
use crate::job::name_fault;
use crate::limits::Limits;
use crate::registry::OTHERS;
use crate::report::{self, Reports};
use crate::retry::{Backoff, Policy};
use crate::state::Size;
use crate::telemetry::Format;

mod admin;
mod environment;
mod fault;
mod hardening;
mod kafka;
pub mod quantity;
mod queue;
mod raw;
pub mod settings;
mod traces;

pub use admin::{AdminConfig, Listen, Token};
pub use environment::{Environment, Flags, variable_name};
pub use hardening::{HardeningConfig, Wanted};
pub use kafka::KafkaConfig;
pub use queue::{Place, QueueConfig};
pub use settings::{Effective, Fault, Faults as ConfigErrors, Origin};
pub use traces::{Sampler, TracesConfig};

use settings::Settings;

/// The file that is read where none is named, if it is there.
pub const FILE_NAME: &str = "sandhog.toml";

/// The configuration, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Whether `run` works jobs. If not, jobs can be enqueued and looked at.
    pub enabled: bool,
    /// What the queue's topic is named after.
    pub application_name: String,
    /// How many attempts run at one time, over all handlers.
    pub slots: u32,
    /// How long a drain waits for attempts to end.
    pub drain_timeout: Duration,
    /// Compiled code, the last generations of handlers, runner locks.
    pub state_dir: PathBuf,
    /// The handlers.
    pub handlers: HandlersConfig,
    /// The queue.
    pub queue: QueueConfig,
    /// Who is told of dead letters; none: nobody.
    pub reports: Option<Reports>,
    /// The limits of handlers whose manifest does not say otherwise.
    pub limits: Limits,
    /// The largest body, in bytes.
    pub body_bytes_max: usize,
    /// How far a manifest may go.
    pub ceilings: Ceilings,
    /// The retry policy of handlers whose manifest does not say otherwise.
    pub retry: Policy,
    /// The HTTP API.
    pub admin: AdminConfig,
    /// Where spans of attempts are sent.
    pub traces: TracesConfig,
    /// The runner's own log.
    pub log: LogConfig,
    /// What a runner gives up at its start.
    pub hardening: HardeningConfig,
    /// Every key with its value and where it came from, in the order of the documentation.
    pub effective: Vec<Effective>,
}

/// Where handlers are.
#[derive(Debug, Clone, PartialEq)]
pub struct HandlersConfig {
    /// The folder that is watched.
    pub dir: PathBuf,
    /// Whether a new generation that only fails is paused.
    pub brake: bool,
    /// What manifests may grant beyond what needs nobody's leave.
    pub allow: Allow,
}

/// How far a manifest may go, whoever wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct Ceilings {
    /// The longest timeout.
    pub timeout: Duration,
    /// The most memory, in bytes. It sizes the sandbox's pool too.
    pub memory_bytes: u64,
    /// The highest `concurrency`.
    pub concurrency: u32,
    /// The most jobs for one instance.
    pub reuse: u32,
    /// The longest time that an instance may wait for its next job.
    pub idle: Duration,
    /// The highest `max_failures`.
    pub max_failures: u32,
    /// The longest `expire_after`.
    pub expire_after: Duration,
}

/// The runner's own log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// How a line looks.
    pub format: Format,
    /// What is logged: a level, or directives as `info,sandhog::queue=debug`.
    pub level: String,
}

/// The name of the topic of an application: letters, digits, `-`, `_` and spaces of its name stay, spaces become `_`, and
/// `_job_queue` stands behind.
pub fn topic_name(application_name: &str) -> String {
    let stays = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ' ');
    let name: String = application_name.chars().filter(stays).map(|c| if c == ' ' { '_' } else { c }).collect();
    format!("{name}_job_queue")
}

/// A linear memory of 32-bit WebAssembly has no more.
const MEMORY_BYTES_MAX: u64 = 4 << 30;

/// What the contract's `timeout-ms` can hold is 49 days.
const TIMEOUT_MAX: Duration = Duration::from_secs(49 * 86_400);

/// Bodies stand in memory, several times while they are enqueued.
const BODY_BYTES_MAX: u64 = 512 << 20;

/// Each slot reserves address space in the sandbox's pool.
const SLOTS_MAX: u32 = 4_096;

// === impl Config ===

impl Config {
    /// Reads the file that `flags` or the environment names, else `sandhog.toml` if it is there, and resolves.
    ///
    /// # Errors
    ///
    /// All that is wrong with it, at once.
    pub fn load(flags: &Flags, environment: &Environment) -> Result<Config, ConfigErrors> {
        let named = flags.config.clone().or_else(|| environment.get("SANDHOG_CONFIG").map(PathBuf::from));
        let path = named.clone().unwrap_or_else(|| PathBuf::from(FILE_NAME));
        match std::fs::read_to_string(&path) {
            Ok(text) => Config::resolve(flags, environment, Some((&path, &text))),
            Err(e) if named.is_none() && e.kind() == std::io::ErrorKind::NotFound => {
                Config::resolve(flags, environment, None)
            }
            Err(e) => {
                let message = format!("cannot read configuration `{}`: {e}", path.display());
                Err(settings::Faults(vec![Fault { key: None, origin: None, message, hint: None }]))
            }
        }
    }

    /// Resolves what is given; `file` is a path and its text. Reads nothing else.
    ///
    /// # Errors
    ///
    /// All that is wrong with it, at once.
    pub fn resolve(
        flags: &Flags,
        environment: &Environment,
        file: Option<(&Path, &str)>,
    ) -> Result<Config, ConfigErrors> {
        let mut settings = Settings::new(environment.variables.clone());
        if let Some((path, text)) = file {
            settings.add_file(&path.display().to_string(), text);
        }
        environment.add_to(&mut settings);
        flags.add_to(&mut settings);
        let mut config = Config::read(&mut settings, environment);
        config.check(&mut settings);
        config.effective = settings.finish()?;
        Ok(config)
    }

    fn read(settings: &mut Settings, environment: &Environment) -> Config {
        let enabled = settings.truth("enabled", true);
        let application_name = settings.text("application_name", "sandhog".to_owned());
        // Beyond 256 attempts at a time the cores are long busy, and the pool's memory is not free.
        let slots = settings.whole("slots", environment.cores.saturating_mul(4).clamp(1, 256));
        let drain_timeout = settings.duration("drain_timeout", Duration::from_secs(30));
        let queue = QueueConfig::read(settings, &application_name);
        let state_dir = settings.text("state_dir", queue.place.state_dir().display().to_string());
        let handlers_dir = settings.text("handlers.dir", "./handlers".to_owned());
        let brake = settings.truth("handlers.brake", true);
        let allow = Allow::read(settings, &environment.variables);
        let (limits, body_bytes_max) = read_limits(settings);
        let reports = settings.text_if_any("failures.job_type").map(|job_type| Reports { job_type, body_bytes_max });
        Config {
            enabled,
            slots,
            drain_timeout,
            state_dir: state_dir.into(),
            handlers: HandlersConfig { dir: handlers_dir.into(), brake, allow },
            queue,
            reports,
            limits,
            body_bytes_max,
            ceilings: Ceilings::read(settings),
            retry: read_retry(settings, Policy::default()),
            admin: AdminConfig::read(settings, body_bytes_max),
            hardening: HardeningConfig::read(settings),
            traces: TracesConfig::read(settings, &application_name),
            log: LogConfig::read(settings),
            application_name,
            effective: Vec::new(),
        }
    }

    fn check(&self, settings: &mut Settings) {
        let slots = self.slots;
        settings.require("slots", (1..=SLOTS_MAX).contains(&slots), || format!("{slots} is not from 1 to {SLOTS_MAX}"));
        let body = self.body_bytes_max as u64;
        settings.require("limits.body", (1..=BODY_BYTES_MAX).contains(&body), || {
            format!("{} is not from 1B to {}", quantity::format_size(body), quantity::format_size(BODY_BYTES_MAX))
        });
        check_reports(settings, self.reports.as_ref());
        let ceiling = self.ceilings.memory_bytes;
        settings.require("ceilings.memory", ceiling <= MEMORY_BYTES_MAX, || {
            let most = quantity::format_size(MEMORY_BYTES_MAX);
            format!("{} is more than a guest can have, which is {most}", quantity::format_size(ceiling))
        });
        settings.require("ceilings.timeout", self.ceilings.timeout <= TIMEOUT_MAX, || {
            let most = quantity::format_duration(TIMEOUT_MAX);
            format!("{} is longer than {most}", quantity::format_duration(self.ceilings.timeout))
        });
        settings.require("ceilings.concurrency", self.ceilings.concurrency >= 1, || "0 lets no job run".to_owned());
        check_limits(settings, LIMIT_KEYS, &self.limits, &self.ceilings);
        check_retry(settings, &self.retry, &self.ceilings);
        settings.require("application_name", topic_name(&self.application_name) != "_job_queue", || {
            format!("`{}` has no letter or digit to name a topic after", self.application_name)
        });
        self.queue.kafka.check(settings);
        self.admin.check(settings);
        self.traces.check(settings);
        let level = &self.log.level;
        settings.require("log.level", tracing_subscriber::EnvFilter::try_new(level).is_ok(), || {
            format!("`{level}` is no filter: write a level like `info`, or directives like `info,sandhog::queue=debug`")
        });
    }
}

fn read_limits(settings: &mut Settings) -> (Limits, usize) {
    let default = Limits::default();
    let body = settings.size("limits.body", default.body_bytes as u64);
    let body_bytes = usize::try_from(body).unwrap_or(usize::MAX);
    // A handler must be able to pass a body through, whatever the limit on bodies.
    let passed_through = body.saturating_mul(2);
    let limits = Limits {
        timeout: settings.duration("limits.timeout", default.timeout),
        memory_bytes: settings.size("limits.memory", default.memory_bytes),
        table_elements: settings.whole("limits.table_elements", default.table_elements as u32).into(),
        handles: settings.whole("limits.handles", default.handles),
        result_bytes: settings.size("limits.result", default.result_bytes),
        host_call_bytes: settings.size("limits.host_call", default.host_call_bytes.max(passed_through)),
        http_calls: settings.whole("limits.http_calls", default.http_calls),
        http_request_bytes: settings.size("limits.http_request", default.http_request_bytes),
        http_response_bytes: settings.size("limits.http_response", default.http_response_bytes),
        http_wait: settings.duration("limits.http_wait", default.http_wait),
        host_calls: settings.whole("limits.host_calls", default.host_calls as u32).into(),
        log_bytes: settings.size("limits.log", default.log_bytes),
        log_line_bytes: usize::try_from(settings.size("limits.log_line", default.log_line_bytes as u64))
            .unwrap_or(usize::MAX),
        body_bytes,
        follow_ups: settings.whole("limits.follow_ups", default.follow_ups),
        follow_up_bytes: settings.size("limits.follow_up_bytes", default.follow_up_bytes.max(passed_through)),
        state: Size {
            keys: settings.whole("limits.state_keys", default.state.keys as u32).into(),
            bytes: settings.size("limits.state", default.state.bytes),
        },
        follow_up_depth: settings.whole("limits.follow_up_depth", default.follow_up_depth),
    };
    (limits, body_bytes)
}

fn check_reports(settings: &mut Settings, reports: Option<&Reports>) {
    const KEY: &str = "failures.job_type";
    let Some(Reports { job_type, body_bytes_max }) = reports else { return };
    if let Some(fault) = name_fault(job_type) {
        settings.require(KEY, false, || fault.to_owned());
    }
    settings
        .require(KEY, job_type != OTHERS, || "is no job type: `*` stands for all that nobody else serves".to_owned());
    let (body, least) = (*body_bytes_max as u64, report::BODY_BYTES_MIN as u64);
    settings.require("limits.body", body >= least, || {
        let (body, least) = (quantity::format_size(body), quantity::format_size(least));
        format!("{body} is too little for reports of dead letters (`{KEY}`), which need {least}")
    });
}

/// Reads `[retry]`, of the configuration or of a manifest.
pub(crate) fn read_retry(settings: &mut Settings, default: Policy) -> Policy {
    let max_attempts = settings.whole("retry.max_attempts", default.max_attempts.unwrap_or(0));
    Policy {
        max_failures: settings.whole("retry.max_failures", default.max_failures),
        max_attempts: (max_attempts > 0).then_some(max_attempts),
        expire_after: settings.duration("retry.expire_after", default.expire_after),
        backoff: Backoff {
            first: settings.duration("retry.backoff.first", default.backoff.first),
            factor: settings.number("retry.backoff.factor", default.backoff.factor),
            max: settings.duration("retry.backoff.max", default.backoff.max),
            jitter: settings.number("retry.backoff.jitter", default.backoff.jitter),
        },
    }
}

/// The keys of timeout and memory in the configuration; in a manifest they stand at the top.
const LIMIT_KEYS: (&str, &str) = ("limits.timeout", "limits.memory");

/// Checks timeout and memory, of the configuration or of a manifest, whose keys differ.
pub(crate) fn check_limits(
    settings: &mut Settings,
    (timeout_key, memory_key): (&'static str, &'static str),
    limits: &Limits,
    ceilings: &Ceilings,
) {
    let (timeout, longest) = (limits.timeout, ceilings.timeout);
    settings.require(timeout_key, timeout >= Duration::from_millis(1), || "is less than 1ms".to_owned());
    settings.require(timeout_key, timeout <= longest, || {
        let (timeout, longest) = (quantity::format_duration(timeout), quantity::format_duration(longest));
        format!("{timeout} is over the ceiling of {longest} (`ceilings.timeout`)")
    });
    let (memory, most) = (limits.memory_bytes, ceilings.memory_bytes);
    settings.require(memory_key, memory >= 64 << 10, || "is less than one page, which is 64KiB".to_owned());
    settings.require(memory_key, memory <= most, || {
        let (memory, most) = (quantity::format_size(memory), quantity::format_size(most));
        format!("{memory} is over the ceiling of {most} (`ceilings.memory`)")
    });
}

/// Checks `[retry]`, of the configuration or of a manifest.
pub(crate) fn check_retry(settings: &mut Settings, policy: &Policy, ceilings: &Ceilings) {
    let (failures, most) = (policy.max_failures, ceilings.max_failures);
    settings.require("retry.max_failures", failures >= 1, || "0 is too few: 1 buries a job at its first".to_owned());
    settings.require("retry.max_failures", failures <= most, || {
        format!("{failures} is over the ceiling of {most} (`ceilings.max_failures`)")
    });
    let (expire, longest) = (policy.expire_after, ceilings.expire_after);
    settings.require("retry.expire_after", expire <= longest, || {
        let (expire, longest) = (quantity::format_duration(expire), quantity::format_duration(longest));
        format!("{expire} is over the ceiling of {longest} (`ceilings.expire_after`)")
    });
    let Backoff { first, factor, max, jitter } = policy.backoff;
    settings.require("retry.backoff.factor", factor >= 1.0, || format!("{factor} is less than 1"));
    settings.require("retry.backoff.jitter", (0.0..=1.0).contains(&jitter), || format!("{jitter} is not from 0 to 1"));
    settings.require("retry.backoff.max", max >= first, || {
        let (first, max) = (quantity::format_duration(first), quantity::format_duration(max));
        format!("{max} is less than `retry.backoff.first`, which is {first}")
    });
}

// === impl Ceilings ===

impl Ceilings {
    fn read(settings: &mut Settings) -> Ceilings {
        Ceilings {
            timeout: settings.duration("ceilings.timeout", Duration::from_secs(60 * 60)),
            memory_bytes: settings.size("ceilings.memory", 512 << 20),
            concurrency: settings.whole("ceilings.concurrency", 1_024),
            reuse: settings.whole("ceilings.reuse", 1_000_000),
            idle: settings.duration("ceilings.idle", Duration::from_secs(60 * 60)),
            max_failures: settings.whole("ceilings.max_failures", 1_000),
            expire_after: settings.duration("ceilings.expire_after", Duration::from_secs(30 * 86_400)),
        }
    }
}

// === impl LogConfig ===

impl LogConfig {
    fn read(settings: &mut Settings) -> LogConfig {
        let formats = [("auto", Format::Auto), ("text", Format::Text), ("json", Format::Json)];
        LogConfig {
            format: settings.choice("log.format", &formats),
            level: settings.text("log.level", "info".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests;
