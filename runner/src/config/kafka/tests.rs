//! The settings of a Kafka queue, read from text.

use std::path::Path;

use super::super::{Config, Environment, Flags, Place};
use super::*;

fn resolve(text: &str, variables: &[(&str, &str)], queue: Option<&str>) -> Result<Config, Vec<String>> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let flags = Flags { queue: queue.map(str::to_owned), ..Flags::default() };
    let environment = Environment { variables, cores: 2 };
    Config::resolve(&flags, &environment, Some((Path::new("sandhog.toml"), text)))
        .map_err(|faults| faults.0.iter().map(super::super::Fault::with_hint).collect())
}

fn config(text: &str) -> Config {
    resolve(text, &[], None).unwrap_or_else(|faults| panic!("{text}: {faults:?}"))
}

fn check(text: &str, fault: &str) {
    assert_eq!(resolve(text, &[], None).expect_err(text), [format!("sandhog.toml:1: {fault}")], "{text}");
}

/// The topics as `NAME` or `NAME=JOB_TYPE`.
fn topics(config: &Config) -> Vec<String> {
    let show = |topic: &Topic| match &topic.job_type {
        Some(job_type) => format!("{}={job_type}", topic.name),
        None => topic.name.clone(),
    };
    config.queue.kafka.topics.iter().map(show).collect()
}

fn shown(config: &Config, key: &str) -> String {
    config.effective.iter().find(|effective| effective.key == key).expect(key).value.clone()
}

#[test]
fn url_names_brokers_and_a_topic() {
    for (url, brokers, topic) in [
        ("kafka://host", "host:9092", "sandhog_job_queue"),
        ("kafka://host/", "host:9092", "sandhog_job_queue"),
        ("kafka://host:19092/jobs", "host:19092", "jobs"),
        ("kafka://a,b:1,c.example.org/t.x-y_z", "a:9092,b:1,c.example.org:9092", "t.x-y_z"),
        ("kafka://[::1]:19092,[fe80::2]/t", "[::1]:19092,[fe80::2]:9092", "t"),
        ("kafka://10.0.0.1/t", "10.0.0.1:9092", "t"),
    ] {
        let config = config(&format!("queue.url = '{url}'"));
        assert_eq!(config.queue.place, Place::Kafka(brokers.to_owned()), "{url}");
        assert_eq!(topics(&config), [topic], "{url}");
        assert_eq!(config.state_dir, Path::new("./sandhog.state"));
    }
}

#[test]
fn url_that_is_none_is_refused() {
    for (url, fault) in [
        ("kafka:host", "`queue.url` is no Kafka URL: write `kafka://HOST:PORT/TOPIC`"),
        ("kafka://", "`queue.url` has `` where a host belongs: write `kafka://HOST:PORT/TOPIC`"),
        ("kafka://a,,b", "`queue.url` has `` where a host belongs: write `kafka://HOST:PORT/TOPIC`"),
        ("kafka://user:secret@host", "`queue.url` has credentials in it: they belong into `queue.kafka.client`"),
        ("kafka://host:0", "`queue.url` has `0` where a port belongs, in `host:0` (IPv6 addresses stand in brackets)"),
        ("kafka://::1", "`queue.url` has `::1` where a host belongs: write `kafka://HOST:PORT/TOPIC`"),
        ("kafka://[::1", "`queue.url` has a `[` without its `]` in `[::1`"),
        ("kafka://[host]:1", "`queue.url` has no IPv6 address in the brackets of `[host]:1`"),
    ] {
        check(&format!("queue.url = '{url}'"), fault);
    }
    check(
        "queue.url = 'kafka://host/a/b'",
        "`queue.url`: `a/b` is no topic name: up to 239 letters, digits, `.`, `_` and `-`",
    );
}

#[test]
fn topics_are_named_in_four_ways() {
    for (text, expected) in [
        ("", &["sandhog_job_queue"][..]),
        ("queue.kafka.topic = 'jobs'", &["jobs"]),
        ("queue.kafka.topics = ['b', 'a']", &["b", "a"]),
        ("[queue.kafka.topic.events]\njob_type = 'resize'", &["events=resize"]),
        ("[queue.kafka]\ntopics = ['jobs', 'a.b']\n[queue.kafka.topic.'a.b']\njob_type = 'x'", &["jobs", "a.b=x"]),
    ] {
        assert_eq!(topics(&config(text)), expected, "{text}");
    }
    let of = |text, variables: &[_], queue| topics(&resolve(text, variables, queue).expect(text));
    let file = "queue.kafka.topics = ['a', 'b']\nqueue.kafka.topic.b.job_type = 'x'";
    assert_eq!(of(file, &[], Some("kafka://h/b")), ["b=x"]);
    assert_eq!(of(file, &[], Some("kafka://h/other")), ["other"], "a flag that says otherwise is no fault of the file");
    assert_eq!(of(file, &[("SANDHOG_QUEUE__KAFKA__TOPICS", "c, b")], None), ["c", "b=x"]);
    let several = resolve(file, &[], None).expect("sound");
    assert_eq!(shown(&several, "queue.kafka.topic"), "a,b=x");
    assert_eq!(shown(&several, "queue.kafka.topics"), r#"["a", "b"]"#);
    assert_eq!(of("", &[("SANDHOG_QUEUE__KAFKA__TOPIC__EVENTS__JOB_TYPE", "resize")], None), ["events=resize"]);
}

#[test]
fn topics_that_make_no_sense_are_refused() {
    check(
        "queue.kafka.topic = 'a b'",
        "`queue.kafka.topic`: `a b` is no topic name: up to 239 letters, digits, `.`, `_` and `-`",
    );
    check("queue.kafka.topics = ['a', 'a']", "`queue.kafka.topics` has `a` twice");
    check(
        "queue.kafka.topics = ['a', 'a.retry.1m']",
        "`queue.kafka.topics` has `a.retry.1m`, which is the queue's own beside `a`",
    );
    check(
        "queue.kafka.topic.a.jobtype = 'x'",
        "`queue.kafka.topic.a.jobtype` is unknown: in a table of `queue.kafka.topic` stands `job_type`",
    );
    check(
        "queue.kafka = { topics = ['a'], topic.b.job_type = 'x' }",
        "`queue.kafka.topic.b` is none of the topics that jobs are taken from (name it in `queue.kafka.topics`)",
    );
    check("queue.kafka = { topic = 'a', topics = ['b'] }", "`queue.kafka.topics` and `queue.kafka.topic` are both set");
    check("queue.kafka.topics = []", "`queue.kafka.topics` names none");
}

#[test]
fn secrets_are_taken_and_not_shown() {
    let text = r#"
        [queue.kafka.client]
        "security.protocol" = "sasl_ssl"
        sasl.username = "me"
        sasl.password = "${PASSWORD}"
        ssl.key.password.file = "/run/secrets/key"
        "#;
    let config = resolve(text, &[("PASSWORD", "hunter2")], None).expect("sound");
    let client = &config.queue.kafka.client;
    assert_eq!(client["sasl.password"], "hunter2");
    assert_eq!(client["ssl.key.password.file"], "/run/secrets/key");
    assert_eq!(
        shown(&config, "queue.kafka.client"),
        "sasl.password=***,sasl.username=me,security.protocol=sasl_ssl,ssl.key.password.file=/run/secrets/key"
    );
    assert!(!format!("{config:?}").contains("hunter2"));
    let variables = [("SANDHOG_QUEUE__KAFKA__CLIENT__SASL__PASSWORD", "hunter2")];
    let config = resolve("", &variables, None).expect("sound");
    assert_eq!(config.queue.kafka.client["sasl.password"], "hunter2");
}

#[test]
fn properties_are_checked_one_by_one() {
    check(
        "queue.kafka.client.'sasl.pasword' = 'x'",
        "`queue.kafka.client.sasl.pasword` is no property of librdkafka that can be set here (did you mean `sasl.password`?)",
    );
    check(
        "queue.kafka.client.'group.id' = 'x'",
        "`queue.kafka.client.group.id` is the queue's own: it is `queue.kafka.consumer_group`",
    );
    check(
        "queue.kafka = { group_protocol = 'consumer', client = { 'session.timeout.ms' = 6000 } }",
        "`queue.kafka.group_protocol`: `consumer` does not go with `session.timeout.ms` in `queue.kafka.client`",
    );
    let faults = resolve("queue.kafka.client.'sasl.mechanism' = 'OAUTHBEARER'", &[], None).expect_err("no token");
    let expected =
        "default: `queue.kafka.oauth_token_file` is not set, and `sasl.mechanism` is OAUTHBEARER, which needs it";
    assert_eq!(faults, [expected]);
}

#[test]
fn words_are_refused_with_those_that_there_are() {
    check(
        "queue.kafka.delivery = 'exactly-once'",
        "`queue.kafka.delivery` is none of `at-least-once` and `exactly-once-in-kafka`",
    );
    check("queue.kafka.group_protocol = 1", "`queue.kafka.group_protocol` is none of `auto`, `consumer` and `classic`");
    let config = config("[queue.kafka]\ndelivery = 'exactly-once-in-kafka'\ngroup_protocol = 'classic'");
    assert_eq!(config.queue.kafka.delivery, Guarantee::ExactlyOnceInKafka);
    assert_eq!(config.queue.kafka.group_protocol, GroupProtocol::Classic);
}
