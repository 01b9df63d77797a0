//! How metrics are written: as `OpenMetrics`, or in Prometheus' older text format. No numbers are made here.

use std::fmt::{self, Write};
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

/// A metric: what it is called, without the runner's prefix and the `_total` of counters, and what it says.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) samples: Samples,
}

/// Its values, each with what stands for its labels' names. All of one family have the same labels.
#[derive(Debug)]
pub(super) enum Samples {
    Counter(Labels, Vec<(Values, f64)>),
    Gauge(Labels, Vec<(Values, f64)>),
    Histogram(Labels, Vec<(Values, Distribution)>),
}

/// The names of labels.
pub(super) type Labels = &'static [&'static str];

/// The values of labels, in the order of their names.
pub(super) type Values = Vec<Arc<str>>;

/// What a histogram says. The buckets are not cumulative; the last one's bound is infinite.
#[derive(Debug, Clone)]
pub(super) struct Distribution {
    pub(super) sum: f64,
    pub(super) count: u64,
    pub(super) buckets: Vec<(f64, u64)>,
}

#[derive(Debug)]
struct Families(Vec<Family>);

const PREFIX: &str = "sandhog";

/// Writes them all. Families without a value are left out.
pub(super) fn write(families: Vec<Family>, openmetrics: bool) -> String {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Families(families)));
    let mut text = String::new();
    encode(&mut text, &registry).expect("a string takes all that is written to it");
    if openmetrics { text } else { older(&text) }
}

/// The same in the older format, in which a counter is called as its samples are, and which has no end mark.
fn older(text: &str) -> String {
    let mut older = String::with_capacity(text.len() + 1_024);
    let mut help = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let total = if kind == "counter" { "_total" } else { "" };
            let help = help.take().map_or("", |(_, help)| help);
            writeln!(older, "# HELP {name}{total} {help}\n# TYPE {name}{total} {kind}").expect("a string takes all");
        } else if !line.starts_with('#') {
            older.push_str(line);
            older.push('\n');
        }
    }
    older
}

// === impl Families ===

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Family { name, help, samples } in self.0.iter().filter(|family| !family.samples.is_empty()) {
            let mut encoder = encoder.encode_descriptor(name, help, None, samples.kind())?;
            samples.encode(&mut encoder)?;
        }
        Ok(())
    }
}

// === impl Samples ===

impl Samples {
    fn is_empty(&self) -> bool {
        match self {
            Samples::Counter(_, samples) | Samples::Gauge(_, samples) => samples.is_empty(),
            Samples::Histogram(_, samples) => samples.is_empty(),
        }
    }

    fn kind(&self) -> MetricType {
        match self {
            Samples::Counter(..) => MetricType::Counter,
            Samples::Gauge(..) => MetricType::Gauge,
            Samples::Histogram(..) => MetricType::Histogram,
        }
    }

    fn encode(&self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        match self {
            Samples::Counter(labels, samples) => each(encoder, labels, samples, |encoder, value| {
                encoder.encode_counter::<NoLabelSet, f64, f64>(value, None)
            }),
            Samples::Gauge(labels, samples) => {
                each(encoder, labels, samples, |encoder, value| encoder.encode_gauge(value))
            }
            Samples::Histogram(labels, samples) => each(encoder, labels, samples, |encoder, value| {
                encoder.encode_histogram::<NoLabelSet>(value.sum, value.count, &value.buckets, None)
            }),
        }
    }
}

fn each<T>(
    encoder: &mut MetricEncoder<'_>,
    labels: Labels,
    samples: &[(Values, T)],
    write: impl Fn(&mut MetricEncoder<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (values, value) in samples {
        let pairs: Vec<(&str, &str)> = labels.iter().copied().zip(values.iter().map(|value| &**value)).collect();
        if pairs.is_empty() {
            write(encoder, value)?;
        } else {
            write(&mut encoder.encode_family(&pairs)?, value)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_say_the_same_in_their_own_words() {
        let families = || {
            let label = vec!["a\"b\\".into()];
            vec![
                Family { name: "things", help: "What.", samples: Samples::Counter(&["x"], vec![(label, 2.0)]) },
                Family { name: "none", help: "Nothing.", samples: Samples::Gauge(&[], Vec::new()) },
                Family { name: "level", help: "How high.", samples: Samples::Gauge(&[], vec![(Vec::new(), 0.5)]) },
            ]
        };
        assert_eq!(
            write(families(), true),
            "# HELP sandhog_things What.\n# TYPE sandhog_things counter\nsandhog_things_total{x=\"a\\\"b\\\\\"} 2.0\n\
             # HELP sandhog_level How high.\n# TYPE sandhog_level gauge\nsandhog_level 0.5\n# EOF\n"
        );
        assert_eq!(
            write(families(), false),
            "# HELP sandhog_things_total What.\n# TYPE sandhog_things_total counter\nsandhog_things_total{x=\"a\\\"b\\\\\"} 2.0\n\
             # HELP sandhog_level How high.\n# TYPE sandhog_level gauge\nsandhog_level 0.5\n"
        );
    }
}
