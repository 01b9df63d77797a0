//! Bytes that come from outside, and what must hold whatever they are. The driver is `tests/fuzz.rs`.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use sandhog::config::{Config, Environment, Flags, quantity};
use sandhog::grants::Grants;
use sandhog::job::{self, Malformed};
use sandhog::limits::Limits;
use sandhog::manifest::Manifest;
use sandhog::outcome::Outcome;
use sandhog::sandbox::quiet::{self, Rewritten};
use sandhog::sandbox::{self, Component, Facts, GuestLog, Level, Sandbox, Source};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use wasmparser::{Validator, WasmFeatures};

use crate::fuzzing::fuzz;
use crate::inputs;
use crate::support::guests;

/// The largest body that is taken as a job here.
const BODY_BYTES: usize = 4_096;

static TIMERS: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());
static SANDBOX: LazyLock<Sandbox> = LazyLock::new(|| {
    let timers = TIMERS.handle().clone();
    let config = sandbox::Config {
        slots: 2,
        threads: 1,
        memory_ceiling_bytes: Limits::default().memory_bytes,
        compiled_dir: None,
        guests: timers.clone(),
        timers,
    };
    Sandbox::new(config).unwrap()
});

/// Hears nothing.
struct Deaf;

impl GuestLog for Deaf {
    fn line(&self, _: Option<&sandhog::job::Job>, _: Source, _: Level, line: &str) {
        assert!(!line.contains(|c: char| c.is_control() && c != '\t' && c != '\n'), "{line:?}");
    }
}

#[test]
fn what_is_taken_as_a_job_is_an_object_with_a_type_and_is_kept_byte_for_byte() {
    let ugly =
        inputs::bad().into_iter().map(|(bytes, ..)| bytes).chain(inputs::odd().into_iter().map(String::into_bytes));
    fuzz("job", ugly.filter(|bytes| bytes.len() <= BODY_BYTES).collect(), |bytes| {
        let of_type = job::parse_of_type(bytes, BODY_BYTES, "a");
        match job::parse(bytes, BODY_BYTES) {
            Ok((text, head)) => {
                assert_eq!(text.as_bytes(), bytes);
                assert!(job::name_fault(&head.job_type).is_none());
                let object: HashMap<String, &RawValue> = serde_json::from_str(text).expect("it is an object");
                assert_eq!(text_of(&object, "job_type").as_ref(), Some(&head.job_type));
                assert_eq!(text_of(&object, "job_id"), head.job_id);
                assert_eq!(of_type.is_ok(), head.job_type == "a");
            }
            Err(malformed) => {
                assert!(!malformed.to_string().is_empty() && malformed.to_string().len() < 2_000);
                let Ok(text) = std::str::from_utf8(bytes) else { return };
                // JSON by its grammar, and no text: half a character in a name.
                let half = text.to_ascii_lowercase().contains("\\ud");
                let is_json = serde_json::from_str::<IgnoredAny>(text).is_ok();
                match malformed {
                    Malformed::NotJson(_) => assert!(!is_json || half, "{malformed}"),
                    Malformed::Empty => assert!(text.trim_ascii().is_empty()),
                    Malformed::TooLarge { .. } => assert!(text.len() > BODY_BYTES),
                    _ => assert!(is_json, "{malformed}"),
                }
            }
        }
    });
}

/// The string that stands under a key, if it is one.
fn text_of(object: &HashMap<String, &RawValue>, key: &str) -> Option<String> {
    object.get(key).and_then(|raw| serde_json::from_str(raw.get()).ok())
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Environment { variables, cores: 2 }
}

#[test]
fn what_is_taken_as_a_manifest_stays_within_the_ceilings() {
    static CONFIG: LazyLock<Config> =
        LazyLock::new(|| Config::resolve(&Flags::default(), &environment(&[]), None).unwrap());
    fuzz("manifest", Vec::new(), |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let ceilings = &CONFIG.ceilings;
        match Manifest::parse(text, "resize", Path::new("/h"), &CONFIG) {
            Ok(manifest) => {
                let Manifest { job_types, concurrency, weight, limits, reuse, retry, grants } = &manifest;
                assert!(!job_types.is_empty() && job_types.iter().all(|name| job::name_fault(name).is_none()));
                assert!((1..=ceilings.concurrency).contains(concurrency) && (1..=1_000).contains(weight));
                assert!((Duration::from_millis(1)..=ceilings.timeout).contains(&limits.timeout));
                assert!((64 << 10..=ceilings.memory_bytes).contains(&limits.memory_bytes));
                assert!((1..=ceilings.max_failures).contains(&retry.max_failures));
                assert!(retry.expire_after <= ceilings.expire_after && retry.max_attempts != Some(0));
                assert!(retry.backoff.factor >= 1.0 && (0.0..=1.0).contains(&retry.backoff.jitter));
                assert!(retry.backoff.first <= retry.backoff.max);
                assert!(
                    reuse.as_ref().is_none_or(|reuse| {
                        (2..=ceilings.reuse).contains(&reuse.jobs) && reuse.idle <= ceilings.idle
                    })
                );
                let rest =
                    Limits { timeout: limits.timeout, memory_bytes: limits.memory_bytes, ..CONFIG.limits.clone() };
                assert_eq!(*limits, rest, "a manifest sets nothing else");
                assert!(grants.http.is_empty() && grants.tcp.is_empty(), "the operator allowed none");
            }
            Err(faults) => assert!(faults.0.iter().all(|fault| fault.message.len() > 3), "{faults:?}"),
        }
    });
}

/// A configuration as a file, and behind a line `---` variables, `NAME=VALUE`, and flags, `--NAME=VALUE`.
fn resolve(text: &str) -> Option<Config> {
    let (file, rest) = text.split_once("\n---\n").unwrap_or((text, ""));
    let (mut flags, mut variables) = (Flags::default(), Vec::new());
    for (name, value) in rest.lines().filter_map(|line| line.split_once('=')) {
        match name {
            "--queue" => flags.queue = Some(value.to_owned()),
            "--handlers" => flags.handlers = Some(value.to_owned()),
            "--drain-timeout" => flags.drain_timeout = Some(value.to_owned()),
            name => variables.push((name, value)),
        }
    }
    match Config::resolve(&flags, &environment(&variables), Some((Path::new("sandhog.toml"), file))) {
        Ok(config) => Some(config),
        Err(faults) => {
            assert!(!faults.0.is_empty() && faults.0.iter().all(|fault| fault.message.len() > 3), "{faults:?}");
            None
        }
    }
}

/// A file that says what `sandhog config show` does.
fn written(config: &Config) -> String {
    let quoted = |text: &str| toml::Value::from(text.replace("${", "$${")).to_string();
    let table = |file: &mut String, key: &str, pairs: &BTreeMap<String, String>| {
        for (name, value) in pairs {
            // No variables are looked for in names.
            let name = toml::Value::from(name.as_str());
            writeln!(file, "{key}.{name}={}", quoted(value)).unwrap();
        }
    };
    let keeps_nothing = config.effective.iter().any(|it| it.key == "queue.keep_completed" && it.value == "0");
    let mut file = String::new();
    let topics: Vec<String> = config.queue.kafka.topics.iter().map(|topic| quoted(&topic.name)).collect();
    writeln!(file, "queue.kafka.topics = [{}]", topics.join(", ")).unwrap();
    for topic in &config.queue.kafka.topics {
        if let Some(job_type) = &topic.job_type {
            let name = toml::Value::from(topic.name.as_str());
            writeln!(file, "queue.kafka.topic.{name}.job_type={}", quoted(job_type)).unwrap();
        }
    }
    for effective in &config.effective {
        let value = match effective.key {
            // Written as lists that are for people: a name may have a comma in it.
            "queue.kafka.topic_config" => {
                table(&mut file, effective.key, &config.queue.kafka.topic_config);
                continue;
            }
            "queue.kafka.client" => {
                table(&mut file, effective.key, &config.queue.kafka.client);
                continue;
            }
            "traces.headers" => {
                let headers = config.traces.headers.iter();
                let exposed = headers.map(|(name, value)| (name.clone(), value.expose().to_owned())).collect();
                table(&mut file, effective.key, &exposed);
                continue;
            }
            "traces.resource" => {
                table(&mut file, effective.key, &config.traces.resource);
                continue;
            }
            // A topic in the URL goes over these.
            "queue.kafka.topic" | "queue.kafka.topics" => continue,
            _ if effective.value.is_empty() => continue,
            // Said by its parts, unless it is nothing.
            "queue.keep_completed" if effective.value != "0" => continue,
            "queue.keep_completed.age" | "queue.keep_completed.bytes" if keeps_nothing => continue,
            // Lists.
            "admin.hosts" | "admin.listen" | "handlers.allow" | "hardening.read" | "hardening.write" => {
                effective.value.replace("${", "$${")
            }
            _ => quoted(&effective.value),
        };
        writeln!(file, "{} = {value}", effective.key).unwrap();
    }
    file
}

#[test]
fn what_is_taken_as_a_configuration_can_be_written_and_read_again() {
    fuzz("config", Vec::new(), |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let Some(mut config) = resolve(text) else { return };
        let file = written(&config);
        let mut again = resolve(&file).unwrap_or_else(|| panic!("not a configuration: {file}"));
        for config in [&mut config, &mut again] {
            config.effective.clear();
            // It is, once it is written.
            config.admin.listen_is_set = true;
            if config.queue.keep.age.is_zero() {
                config.queue.keep.bytes = 0;
            }
        }
        assert_eq!(config, again, "{file}");
    });
}

#[test]
fn durations_sizes_and_moments_are_written_as_they_are_read() {
    fuzz("quantity", Vec::new(), |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        if let Ok(duration) = quantity::parse_duration(text) {
            let written = quantity::format_duration(duration);
            assert_eq!(quantity::parse_duration(&written), Ok(duration), "{written}");
        }
        if let Ok(size) = quantity::parse_size(text) {
            let written = quantity::format_size(size);
            assert_eq!(quantity::parse_size(&written), Ok(size), "{written}");
        }
        let now = sandhog::clock::UnixMs(1_800_000_000_000);
        let moment = quantity::parse_moment(text, now);
        if let Ok(ago) = quantity::parse_duration(text) {
            assert_eq!(moment, Ok(now.minus(ago)));
        }
    });
}

/// Components and core modules of all kinds.
fn components() -> Vec<Vec<u8>> {
    let module = |name: &str| guests::module(&guests::text(name), &guests::contract(), "job-handler");
    let encoded = ["idle", "realloc", "memories", "start", "obedient"].map(guests::guest);
    let modules = ["idle", "preview1", "post_return"].map(module);
    encoded.into_iter().chain(modules).chain([guests::leaking_handles()]).collect()
}

#[test]
fn what_is_loaded_runs_an_attempt_and_what_is_not_says_why() {
    fuzz("component", components(), |bytes| {
        let limits = Limits { timeout: Duration::from_millis(100), ..Limits::default() };
        let inspection = SANDBOX.inspect(bytes, &limits, &Grants::default());
        match SANDBOX.load(bytes, &limits, &Grants::default()) {
            Ok(component) => {
                assert_eq!(inspection.error, None);
                assert_eq!(timeless(component.facts()), timeless(&inspection.facts));
                run_once(&component, &limits);
            }
            Err(error) => {
                assert!(!error.to_string().contains("broke down") && error.to_string().len() > 10, "{error}");
                assert_eq!(Some(error), inspection.error);
            }
        }
    });
}

fn run_once(component: &Component, limits: &Limits) {
    let job =
        Arc::new(job::Job { id: "7".into(), job_type: "a".into(), body: "complete".into(), ..job::Job::default() });
    let log: Arc<dyn GuestLog> = Arc::new(Deaf);
    let runtime = Builder::new_current_thread().build().unwrap();
    let attempt = runtime.block_on(component.run(&job, 1, limits, &CancellationToken::new(), &log));
    assert!(!matches!(attempt.outcome, Outcome::Interrupted { .. }), "{attempt:?}");
}

/// What is known of a file, but for how long it took to find out.
fn timeless(facts: &Facts) -> Facts {
    Facts { compile_time: Duration::ZERO, ..facts.clone() }
}

#[test]
fn rewritten_component_is_valid_and_what_is_not_rewritten_says_why() {
    fuzz("quiet", components(), |bytes| match quiet::rewrite(bytes, 4) {
        Rewritten::Rewritten { bytes: rewritten, modules } => {
            Validator::new_with_features(WasmFeatures::all()).validate_all(&rewritten).expect("it is valid");
            assert!(modules > 0 && rewritten.len() > bytes.len());
        }
        Rewritten::Unchanged { reason } => assert!(reason.len() > 5, "{reason}"),
    });
}
