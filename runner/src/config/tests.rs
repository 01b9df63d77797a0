//! The configuration, read from text.

use super::*;
use crate::queue::Keep;

const DOCUMENT: &str = include_str!("../../../docs/configuration.md");

fn environment(variables: &[(&str, &str)]) -> Environment {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Environment { variables, cores: 2 }
}

fn resolve(text: &str, variables: &[(&str, &str)], flags: &Flags) -> Result<Config, ConfigErrors> {
    Config::resolve(flags, &environment(variables), Some((Path::new("sandhog.toml"), text)))
}

fn config(text: &str) -> Config {
    resolve(text, &[], &Flags::default()).unwrap_or_else(|faults| panic!("{text}: {faults}"))
}

/// The faults of a file, a line each.
fn faults(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let Err(faults) = resolve(text, variables, &Flags::default()) else { panic!("{text} has no fault") };
    faults.0.iter().map(ToString::to_string).collect()
}

fn check(text: &str, fault: &str) {
    let faults = faults(text, &[]);
    assert_eq!(faults, [fault], "{text}");
}

#[test]
fn nothing_at_all_is_a_configuration() {
    let config = Config::resolve(&Flags::default(), &environment(&[]), None).expect("defaults are sound");
    assert_eq!(config, self::config(""));
    assert!(config.enabled);
    assert_eq!(config.queue.place, Place::File("sandhog.db".into()));
    assert_eq!(config.state_dir, Path::new("sandhog.db.state"));
    assert_eq!(config.handlers.dir, Path::new("./handlers"));
    assert_eq!(config.slots, 8);
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.retry, Policy::default());
    assert_eq!(config.body_bytes_max, 8 << 20);
    assert_eq!(config.queue.keep, Keep { age: Duration::from_secs(3_600), bytes: 256 << 20 });
    assert_eq!(config.queue.kafka.consumer_group, "job_queue_consumer");
    assert_eq!(config.queue.kafka.topics[0].name, "sandhog_job_queue");
    assert!(config.queue.kafka.auto_create);
}

#[test]
fn file_says_what_is_otherwise() {
    let config = config(
        r#"
        enabled = false
        application_name = "Openstack VIM Driver!"
        slots = 3
        [queue]
        url = "sqlite:/var/lib/jobs.db"
        keep_completed = { age = "2h", bytes = "1GiB" }
        [queue.kafka.topic_config]
        "retention.ms" = 60000
        [limits]
        timeout = "1m"
        body = "16MiB"
        [retry]
        max_failures = 25
        max_attempts = 7
        backoff = { first = "2s", factor = 3, jitter = 0 }
        [log]
        format = "json"
        level = "warn,sandhog=debug"
        "#,
    );
    assert!(!config.enabled);
    assert_eq!(config.queue.kafka.topics[0].name, "Openstack_VIM_Driver_job_queue");
    assert_eq!(config.queue.kafka.topic_config["retention.ms"], "60000");
    assert_eq!(config.slots, 3);
    assert_eq!(config.state_dir, Path::new("/var/lib/jobs.db.state"));
    assert_eq!(config.queue.keep, Keep { age: Duration::from_secs(7_200), bytes: 1 << 30 });
    assert_eq!(config.limits.timeout, Duration::from_secs(60));
    assert_eq!(config.limits.host_call_bytes, 32 << 20, "a handler can pass a body through");
    assert_eq!((config.retry.max_failures, config.retry.max_attempts), (25, Some(7)));
    assert_eq!(config.retry.backoff.first, Duration::from_secs(2));
    assert_eq!((config.retry.backoff.factor, config.retry.backoff.jitter), (3.0, 0.0));
    assert_eq!(config.log.format, Format::Json);
}

#[test]
fn flags_go_over_variables_and_these_over_the_file() {
    let text = "drain_timeout = '1s'\nslots = 1\n[queue]\nurl = 'sqlite:file.db'\n[limits]\nlog_line = '1KiB'";
    let variables = [
        ("SANDHOG_QUEUE", "sqlite:env.db"),
        ("SANDHOG_SLOTS", "2"),
        ("SANDHOG_LIMITS__LOG_LINE", "2KiB"),
        ("SANDHOG_HANDLERS", "h"),
    ];
    let flags = Flags { queue: Some("sqlite:flag.db".into()), ..Flags::default() };
    let config = resolve(text, &variables, &flags).expect("sound");
    let found = |key: &str| {
        let effective = config.effective.iter().find(|effective| effective.key == key).expect(key);
        format!("{} from {}", effective.value, effective.origin)
    };
    assert_eq!(found("queue.url"), "sqlite:flag.db from flag --queue");
    assert_eq!(found("slots"), "2 from environment SANDHOG_SLOTS");
    assert_eq!(found("limits.log_line"), "2KiB from environment SANDHOG_LIMITS__LOG_LINE");
    assert_eq!(found("handlers.dir"), "h from environment SANDHOG_HANDLERS");
    assert_eq!(found("drain_timeout"), "1s from sandhog.toml:1");
    assert_eq!(found("queue.park_for"), "7d from default");
}

#[test]
fn keep_completed_is_a_table_or_0() {
    assert_eq!(config("queue.keep_completed = 0").queue.keep.age, Duration::ZERO);
    let text = "queue.keep_completed.age = '2h'";
    let none = resolve(text, &[("SANDHOG_QUEUE__KEEP_COMPLETED", "0")], &Flags::default()).expect("sound");
    assert_eq!(none.queue.keep.age, Duration::ZERO);
    let text = "queue.keep_completed = 0";
    let some = resolve(text, &[("SANDHOG_QUEUE__KEEP_COMPLETED__AGE", "5m")], &Flags::default()).expect("sound");
    assert_eq!(some.queue.keep.age, Duration::from_secs(300));
    let shown = some.effective.iter().find(|it| it.key == "queue.keep_completed").expect("every key is shown");
    assert_eq!(shown.value, "{ age = \"5m\", bytes = \"256MiB\" }", "what is in force");
    check(
        "queue.keep_completed = '1h'",
        "sandhog.toml:1: `queue.keep_completed` is neither 0 nor a table of `age` and `bytes`",
    );
}

#[test]
fn strings_take_variables_in() {
    let of = |text: &str| resolve(text, &[("DIR", "/srv"), ("N", "5")], &Flags::default());
    assert_eq!(of("handlers.dir = '${DIR}/a$${DIR}'").expect("sound").handlers.dir, Path::new("/srv/a${DIR}"));
    assert_eq!(of("slots = '${N}'").expect("sound").slots, 5);
    check(
        "handlers.dir = '${NONE}'",
        "sandhog.toml:1: `handlers.dir` the environment has no variable `NONE` for `${NONE}` (a literal `${` is written `$${`)",
    );
    check("handlers.dir = 'a${B'", "sandhog.toml:1: `handlers.dir`: `a${B` has a `${` without its `}`");
    let verbatim = resolve("", &[("SANDHOG_HANDLERS", "${X}")], &Flags::default()).expect("variables are not expanded");
    assert_eq!(verbatim.handlers.dir, Path::new("${X}"));
}

#[test]
fn every_fault_is_reported_at_once() {
    let text =
        "slots = 0\ndrain_timeout = 'soon'\n[limits]\ntimout = '1s'\nmemory = '1TiB'\n[retry]\nmax_failures = -1\n";
    assert_eq!(
        faults(text, &[("SANDHOG_ENABLED", "maybe"), ("SANDHOG_SLOT", "1")]),
        [
            "sandhog.toml:1: `slots` 0 is not from 1 to 4096",
            "sandhog.toml:2: `drain_timeout`: `soon` is no duration: write one like `500ms`, `30s`, `10m`, `1h 30m` or `7d`",
            "sandhog.toml:4: `limits.timout` is unknown",
            "sandhog.toml:5: `limits.memory` 1024GiB is over the ceiling of 512MiB (`ceilings.memory`)",
            "sandhog.toml:7: `retry.max_failures`: `-1` is no whole number from 0 to 4294967295",
            "environment SANDHOG_ENABLED: `enabled`: `maybe` is neither `true` nor `false`",
            "environment SANDHOG_SLOT: `slot` is unknown",
        ]
    );
}

#[test]
fn unknown_key_is_refused_with_the_nearest_name() {
    for (text, hint) in [
        ("limits.timout = '1s'", Some("limits.timeout")),
        ("timeout = '1s'", Some("limits.timeout")),
        ("slotz = 1", Some("slots")),
        ("[retry.backof]\nfirst = '1s'", Some("retry.backoff.first")),
        ("zzz = 1", None),
    ] {
        let faults = resolve(text, &[], &Flags::default()).expect_err(text);
        let hint = hint.map(|name| format!("did you mean `{name}`?"));
        assert_eq!(faults.0.iter().map(|fault| fault.hint.clone()).collect::<Vec<_>>(), [hint], "{text}");
    }
}

#[test]
fn nonsense_is_refused_with_its_reason() {
    check("slots = [1]", "sandhog.toml:1: `slots` is a list, where one value is wanted");
    check("slots = 1.5", "sandhog.toml:1: `slots`: `1.5` is no whole number from 0 to 4294967295");
    check("limits = 5", "sandhog.toml:1: `limits` is a table of settings and has no value of its own");
    check("slots.a = 1", "sandhog.toml:1: `slots.a` is unknown: `slots` is a value and no table");
    check("limits.timeout = 30", "sandhog.toml:1: `limits.timeout`: `30` has no unit: write `30s` for seconds");
    check("queue.url = ''", "sandhog.toml:1: `queue.url` is empty");
    check("queue.url = 'sqlite:'", "sandhog.toml:1: `queue.url`: `sqlite:` names no file");
    check(
        "queue.url = 'redis://x'",
        "sandhog.toml:1: `queue.url` is no queue: write `sqlite:FILE` or `kafka://HOST:PORT/TOPIC`",
    );
    check("log.format = 'xml'", "sandhog.toml:1: `log.format` is none of `auto`, `text` and `json`");
    check("retry.backoff.jitter = 2", "sandhog.toml:1: `retry.backoff.jitter` 2 is not from 0 to 1");
    check("retry.backoff.factor = nan", "sandhog.toml:1: `retry.backoff.factor`: `NaN` is no number");
    check("ceilings.timeout = '10s'", "default: `limits.timeout` 30s is over the ceiling of 10s (`ceilings.timeout`)");
    check("failures.job_type = ''", "sandhog.toml:1: `failures.job_type` is empty");
    check("failures.job_type = 5", "sandhog.toml:1: `failures.job_type`: `5` is no string: put it in quotes");
    check("failures.job_type = \"a\\u0000\"", "sandhog.toml:1: `failures.job_type` has a control character in it");
    check(
        "failures.job_type = '*'",
        "sandhog.toml:1: `failures.job_type` is no job type: `*` stands for all that nobody else serves",
    );
    check(
        "failures.job_type = 'report'\nlimits.body = '1KiB'",
        "sandhog.toml:2: `limits.body` 1KiB is too little for reports of dead letters (`failures.job_type`), which need 16KiB",
    );
    assert!(faults("slots = = 1\n", &[])[0].starts_with("sandhog.toml:1: not TOML: "));
    assert!(faults("slots = 1\nslots = 2\n", &[])[0].starts_with("sandhog.toml:2: not TOML: duplicate key"));
}

#[test]
fn two_names_of_one_key_are_refused() {
    let variables = [("SANDHOG_QUEUE", "sqlite:a.db"), ("SANDHOG_QUEUE__URL", "sqlite:b.db")];
    let faults = faults("", &variables);
    assert_eq!(
        faults,
        ["environment SANDHOG_QUEUE__URL: `queue.url` is set by two variables, its short and its long name"]
    );
}

#[test]
fn variables_of_others_and_empty_ones_are_left_alone() {
    let variables =
        [("SANDHOG_PORT_80_TCP", "x"), ("SANDHOG_SERVICE_HOST", "x"), ("SANDHOG_SLOTS", ""), ("OTHER", "x")];
    assert_eq!(resolve("", &variables, &Flags::default()).expect("sound").slots, 8);
}

#[test]
fn topic_is_named_after_the_application() {
    for (name, topic) in [
        ("Openstack VIM Driver", "Openstack_VIM_Driver_job_queue"),
        ("a.b/c:d!", "abcd_job_queue"),
        ("über-app_1", "ber-app_1_job_queue"),
    ] {
        assert_eq!(topic_name(name), topic);
    }
}

#[test]
fn document_has_every_key_with_its_default_and_variable() {
    let config = Config::resolve(&Flags::default(), &environment(&[]), None).expect("defaults are sound");
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect::<Vec<_>>();
    // | key | default | variable | meaning |
    let rows: Vec<Vec<String>> = DOCUMENT.lines().filter(|line| line.starts_with("| `")).map(cells).collect();
    let documented: Vec<&str> = rows.iter().map(|row| row[1].as_str()).collect();
    let known: Vec<&str> = config.effective.iter().map(|effective| effective.key).collect();
    let sorted = |mut keys: Vec<&str>| {
        keys.sort_unstable();
        keys.join("\n")
    };
    assert_eq!(sorted(documented), sorted(known));
    for effective in config.effective {
        let row = rows.iter().find(|row| row[1] == effective.key).expect("compared above");
        assert_eq!(row[3], variable_name(effective.key));
        // The one default that is the machine's.
        let default = if effective.key == "slots" { "4 × cores, at most 256" } else { effective.value.as_str() };
        assert_eq!(row[2], default, "{}", effective.key);
    }
}

#[test]
fn sample_in_the_document_is_sound() {
    let sample = DOCUMENT.split("```toml").nth(1).and_then(|rest| rest.split("```").next()).expect("there is a sample");
    config(sample);
}
