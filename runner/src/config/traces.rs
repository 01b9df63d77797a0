//! `[traces]`: which spans are sent, and where; and the variables that OpenTelemetry's programs share.

use std::collections::BTreeMap;

use super::settings::{Origin, Settings};
use crate::grants::Secret;

/// Where spans of attempts are sent.
#[derive(Debug, Clone, PartialEq)]
pub struct TracesConfig {
    /// The whole URL of a receiver of OTLP; none: there are no spans.
    pub endpoint: Option<String>,
    /// Headers of each request.
    pub headers: BTreeMap<String, Secret>,
    /// Which attempts have spans that are sent.
    pub sampler: Sampler,
    /// The part of them, from 0 to 1, where the sampler goes by one.
    pub sample_ratio: f64,
    /// What the runner is called in them.
    pub service_name: String,
    /// What else is said of the runner.
    pub resource: BTreeMap<String, String>,
}

/// Who decides whether an attempt has a span that is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampler {
    /// The enqueuer, where it said so; else the ratio.
    ParentOrRatio,
    /// The enqueuer; else all have one.
    ParentOrAll,
    /// The enqueuer; else none has one.
    ParentOrNone,
    /// The ratio.
    Ratio,
    /// All have one.
    All,
    /// None has one.
    None,
}

/// As OpenTelemetry calls them.
const SAMPLERS: [(&str, Sampler); 6] = [
    ("parentbased_traceidratio", Sampler::ParentOrRatio),
    ("parentbased_always_on", Sampler::ParentOrAll),
    ("parentbased_always_off", Sampler::ParentOrNone),
    ("traceidratio", Sampler::Ratio),
    ("always_on", Sampler::All),
    ("always_off", Sampler::None),
];

/// Where receivers take traces.
const PATH: &str = "/v1/traces";

// === impl TracesConfig ===

impl TracesConfig {
    pub(super) fn read(settings: &mut Settings, application_name: &str) -> TracesConfig {
        TracesConfig {
            endpoint: settings.text_if_any("traces.endpoint").map(whole),
            headers: settings.map("traces.headers", |_| false).into_iter().map(secret).collect(),
            sampler: settings.choice("traces.sampler", &SAMPLERS),
            sample_ratio: settings.number("traces.sample_ratio", 1.0),
            service_name: settings.text("traces.service_name", application_name.to_owned()),
            resource: settings.map("traces.resource", |_| true),
        }
    }

    pub(super) fn check(&self, settings: &mut Settings) {
        let ratio = self.sample_ratio;
        settings.require("traces.sample_ratio", (0.0..=1.0).contains(&ratio), || format!("{ratio} is not from 0 to 1"));
        for (name, value) in &self.headers {
            let is_one =
                name.parse::<http::HeaderName>().is_ok() && value.expose().parse::<http::HeaderValue>().is_ok();
            settings.require("traces.headers", is_one, || format!("`{name}`, or its value, can be no header of HTTP"));
        }
        let Some(endpoint) = &self.endpoint else { return };
        settings.require("traces.endpoint", is_endpoint(endpoint), || {
            "is no URL like `http://localhost:4318` or `https://HOST/PATH`; a password belongs into `traces.headers`".into()
        });
    }
}

/// A receiver's URL, with the path where it takes traces if there is none.
fn whole(endpoint: String) -> String {
    let rest = endpoint.split_once("://").map_or(&*endpoint, |(_, rest)| rest);
    match rest.split_once('/') {
        None => format!("{endpoint}{PATH}"),
        Some((_, "")) => format!("{}{PATH}", endpoint.trim_end_matches('/')),
        Some(_) => endpoint,
    }
}

fn is_endpoint(endpoint: &str) -> bool {
    let Ok(uri) = endpoint.parse::<http::Uri>() else { return false };
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    matches!(uri.scheme_str(), Some("http" | "https")) && !authority.is_empty() && !authority.contains('@')
}

fn secret((name, value): (String, String)) -> (String, Secret) {
    (name, Secret::new(value))
}

/// Adds what the variables say that OpenTelemetry's programs have in common, where our own variables say nothing. What they
/// say and we do not know (a sampler of somebody else's) is left out: they are set for many programs at a time.
pub(super) fn add_standard(variables: &BTreeMap<String, String>, settings: &mut Settings) {
    let get = |name: &'static str| {
        let value = variables.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
        value.map(|value| (name, value.to_owned()))
    };
    let mut add = |key: &'static str, found: Option<(&'static str, String)>| {
        let Some((name, value)) = found else { return };
        if !matches!(settings.origin(key), Some(Origin::Variable(_))) {
            settings.add(key, value, Origin::Variable(name.to_owned()));
        }
    };
    let is = |name, word: &str| get(name).is_some_and(|(_, value)| value.eq_ignore_ascii_case(word));
    if !is("OTEL_SDK_DISABLED", "true") && !is("OTEL_TRACES_EXPORTER", "none") {
        let below = get("OTEL_EXPORTER_OTLP_ENDPOINT");
        let below = below.map(|(name, base)| (name, format!("{}{PATH}", base.trim_end_matches('/'))));
        add("traces.endpoint", get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or(below));
    }
    let is_list = |(_, pairs): &(&str, String)| pairs.split(',').all(|pair| pair.contains('='));
    let headers = get("OTEL_EXPORTER_OTLP_TRACES_HEADERS").or(get("OTEL_EXPORTER_OTLP_HEADERS")).filter(is_list);
    add("traces.headers", headers.map(|(name, pairs)| (name, unescaped(&pairs))));
    let resource = get("OTEL_RESOURCE_ATTRIBUTES").filter(is_list);
    let named = resource.as_ref().and_then(|(name, pairs)| {
        let service = pairs.split(',').find_map(|pair| pair.trim().strip_prefix("service.name="))?;
        Some((*name, unescaped(service)))
    });
    add("traces.resource", resource.map(|(name, pairs)| (name, unescaped(&pairs))));
    add("traces.service_name", get("OTEL_SERVICE_NAME").or(named));
    let known = |(_, word): &(&str, String)| SAMPLERS.iter().any(|(sampler, _)| sampler == word);
    add("traces.sampler", get("OTEL_TRACES_SAMPLER").filter(known));
    let is_ratio = |(_, text): &(&str, String)| text.parse().is_ok_and(|ratio: f64| (0.0..=1.0).contains(&ratio));
    add("traces.sample_ratio", get("OTEL_TRACES_SAMPLER_ARG").filter(is_ratio));
}

/// A list of pairs whose values are escaped as in URLs.
fn unescaped(pairs: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), pairs.as_bytes());
    while let Some((first, behind)) = rest.split_first() {
        let hex = behind.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        // A comma would end the pair: the list is split later.
        match byte.filter(|byte| *byte != b',') {
            Some(byte) => (bytes.push(byte), rest = &behind[2..]).1,
            None => (bytes.push(*first), rest = behind).1,
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| pairs.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Environment, Flags};

    fn config(variables: &[(&str, &str)], file: &str) -> Config {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let environment = Environment { variables, cores: 2 };
        Config::resolve(&Flags::default(), &environment, Some((Path::new("sandhog.toml"), file))).unwrap()
    }

    #[test]
    fn nothing_is_sent_unless_somebody_says_where_to() {
        let traces = config(&[("OTEL_TRACES_SAMPLER", "always_on")], "").traces;
        assert_eq!(traces.endpoint, None);
        let off = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"), ("OTEL_SDK_DISABLED", "true")];
        assert_eq!(config(&off, "").traces.endpoint, None);
    }

    #[test]
    fn standard_variables_are_heard_after_ours_and_before_the_file() {
        let standard = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20s3cret,x-a=b"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=orders,deployment.environment=test"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ];
        let file = "[traces]\nendpoint = 'http://other:1'\nsample_ratio = 0.5";
        let config = config(&[&standard[..], &[("SANDHOG_TRACES__SAMPLE_RATIO", "0.75")]].concat(), file);
        let traces = &config.traces;
        assert_eq!(traces.endpoint.as_deref(), Some("http://collector:4318/v1/traces"));
        assert_eq!(traces.headers["authorization"].expose(), "Bearer s3cret");
        assert_eq!((traces.service_name.as_str(), &*traces.resource["deployment.environment"]), ("orders", "test"));
        assert_eq!((traces.sampler, traces.sample_ratio), (Sampler::Ratio, 0.75));
        let shown = config.effective.iter().find(|value| value.key == "traces.headers").unwrap();
        assert_eq!(shown.value, "authorization=***,x-a=***");
        assert!(!format!("{config:?}").contains("s3cret"), "a secret is in what is printed for people who debug");
    }

    #[test]
    fn endpoint_without_a_path_is_where_receivers_take_traces() {
        for (written, meant) in [
            ("http://c:4318", "http://c:4318/v1/traces"),
            ("http://c:4318/", "http://c:4318/v1/traces"),
            ("https://c/otlp/v1/traces", "https://c/otlp/v1/traces"),
        ] {
            assert_eq!(whole(written.to_owned()), meant);
        }
        for bad in ["c:4318", "ftp://c", "http://user:password@c", "http://"] {
            assert!(!is_endpoint(&whole(bad.to_owned())), "{bad}");
        }
    }
}
