//! `sandhog bench`: measures this machine, beside limits that are measured in the same run.
//!
//! A figure alone says little: the same program is twice as fast on another machine. So each stands beside a limit, which
//! is what a bare program reaches here that does only the thing itself, and what is promised is the ratio of the two. Both
//! are measured alternately, so that a machine that slows down slows both.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use self::folder::Folder;
pub(crate) use self::machine::Conditions;
pub(crate) use self::report::{Figure, Target};
pub(crate) use self::subject::Subject;
use crate::config::{Config, Environment};

mod api;
mod attempt;
mod backlog;
mod drain;
mod enqueue;
mod folder;
mod follow_ups;
mod http;
mod idle;
mod kafka;
mod machine;
mod metrics;
mod report;
mod reused;
mod runner;
mod start;
mod subject;

/// What is to be measured.
#[derive(Debug)]
pub(crate) struct Options {
    /// Handlers beside the built-in one.
    pub(crate) handlers: Vec<PathBuf>,
    /// The body of all jobs, in place of the built-in one.
    pub(crate) body: Option<PathBuf>,
    /// Names of figures, or how names begin. Empty: all.
    pub(crate) only: Vec<String>,
    /// How often each figure is measured.
    pub(crate) runs: Option<u32>,
    /// Fewer runs, of fewer jobs.
    pub(crate) quick: bool,
    /// Where the work's files are made.
    pub(crate) dir: PathBuf,
    /// `HOST:PORT` of a Kafka that is to be measured too.
    pub(crate) kafka: Option<String>,
}

/// Options that make no sense.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct UsageError {
    /// What is wrong.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) hint: Option<String>,
}

/// Hears how far it is.
pub(crate) trait Listener {
    /// These figures are being measured now.
    fn measuring(&self, what: &str);
    /// This one is done.
    fn measured(&self, figure: &Figure);
}

/// A run of the benchmark.
pub(crate) struct Bench {
    subjects: Vec<Subject>,
    /// Those that send HTTP requests.
    fetching: Vec<Subject>,
    /// The names of the figures that were asked for.
    wanted: HashSet<String>,
    quick: bool,
    runs: Option<u32>,
    dir: PathBuf,
    kafka: Option<String>,
    /// The defaults, which no file and no variable changes.
    config: Config,
    cores: u32,
}

/// What the measurements have in common.
struct Session<'a> {
    bench: &'a Bench,
    folder: Folder,
    listener: &'a dyn Listener,
    figures: Vec<Figure>,
}

// === impl Bench ===

impl Bench {
    /// Reads the handlers and checks the names.
    ///
    /// # Errors
    ///
    /// Says which option makes no sense.
    pub(crate) fn new(options: Options) -> Result<Bench, UsageError> {
        let Environment { cores, .. } = Environment::of_process();
        let nothing = Environment { variables: std::collections::BTreeMap::new(), cores };
        let config = Config::resolve(&crate::config::Flags::default(), &nothing, None).expect("the defaults are sound");
        let subjects = subject::read(&options.handlers, options.body.as_deref(), config.body_bytes_max)?;
        let Options { only, quick, runs, dir, kafka, .. } = options;
        let (fetching, subjects): (Vec<_>, Vec<_>) = subjects.into_iter().partition(Subject::fetches);
        let wanted = wanted(names(&subjects, &fetching, kafka.is_some()), &only)?;
        Ok(Bench { subjects, fetching, wanted, quick, runs, dir, kafka, config, cores })
    }

    /// What the figures depend on.
    ///
    /// # Errors
    ///
    /// That the folder cannot be written to.
    pub(crate) fn conditions(&self) -> Result<Conditions> {
        let folder = Folder::new(&self.dir)?;
        Conditions::look(folder.path(), self.cores)
    }

    /// Measures. Dropped in between, it ends what it started and removes what it made.
    ///
    /// # Errors
    ///
    /// What went wrong; a target that is missed is none.
    pub(crate) async fn measure(&self, listener: &dyn Listener) -> Result<Vec<Figure>> {
        let folder = Folder::new(&self.dir)?;
        let mut session = Session { bench: self, folder, listener, figures: Vec::new() };
        for subject in &self.subjects {
            attempt::measure(&mut session, subject)
                .await
                .with_context(|| format!("cannot measure `attempt/{}`", subject.name))?;
        }
        for subject in &self.subjects {
            reused::measure(&mut session, subject)
                .await
                .with_context(|| format!("cannot measure `reused/{}`", subject.name))?;
        }
        for subject in &self.fetching {
            http::measure(&mut session, subject)
                .await
                .with_context(|| format!("cannot measure `http/{}`", subject.name))?;
        }
        for subject in &self.subjects {
            drain::measure(&mut session, subject)
                .await
                .with_context(|| format!("cannot measure `drain/{}`", subject.name))?;
        }
        follow_ups::measure(&mut session).await.context("cannot measure `drain/follow-ups`")?;
        enqueue::measure(&mut session).await.context("cannot measure `enqueue`")?;
        api::measure(&mut session).await.context("cannot measure jobs over HTTP")?;
        idle::measure(&mut session).await.context("cannot measure `idle`")?;
        backlog::measure(&mut session).await.context("cannot measure `backlog`")?;
        start::measure(&mut session).await.context("cannot measure `start`")?;
        metrics::measure(&mut session).await.context("cannot measure `metrics`")?;
        if let Some(brokers) = &self.kafka {
            kafka::measure(&mut session, brokers).await.context("cannot measure `kafka`")?;
        }
        Ok(session.figures)
    }

    /// How often a figure is measured: as was asked for, else `full` times, or `quick` times.
    fn runs(&self, full: u32, quick: u32) -> u32 {
        self.runs.unwrap_or(if self.quick { quick } else { full })
    }

    /// The one or the other.
    fn sized<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// The built-in handler.
    fn built_in(&self) -> &Subject {
        self.subjects.first().expect("the built-in handler is always the first")
    }
}

// === impl Session ===

impl Session<'_> {
    /// Whether a figure was asked for.
    fn wants(&self, name: &str) -> bool {
        self.bench.wanted.contains(name)
    }

    /// Whether any of them was.
    fn wants_any<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> bool {
        names.into_iter().any(|name| self.wants(name))
    }

    /// Says what comes next.
    fn say(&self, what: &str) {
        self.listener.measuring(what);
    }

    /// Adds a figure, if it was asked for.
    fn report(&mut self, figure: Figure) {
        if self.wants(&figure.name) {
            self.listener.measured(&figure);
            self.figures.push(figure);
        }
    }
}

/// The names of all figures, in the order in which they are measured.
fn names(subjects: &[Subject], fetching: &[Subject], kafka: bool) -> Vec<String> {
    let mut names: Vec<String> = subjects.iter().flat_map(|subject| attempt::names(&subject.name)).collect();
    names.extend(subjects.iter().map(|subject| reused::name(&subject.name)));
    names.extend(fetching.iter().map(|subject| http::name(&subject.name)));
    names.extend(subjects.iter().flat_map(|subject| drain::names(&subject.name)));
    let fixed = [
        &follow_ups::NAMES[..],
        &enqueue::NAMES,
        &api::NAMES,
        &idle::NAMES,
        &backlog::NAMES,
        &start::NAMES,
        &metrics::NAMES,
    ];
    names.extend(fixed.into_iter().flatten().map(|&name| name.to_owned()));
    if kafka {
        names.extend(subjects.iter().flat_map(|subject| kafka::drain_names(&subject.name)));
        names.extend(kafka::NAMES.map(str::to_owned));
    }
    names
}

/// Those of `names` that are meant: each by its name, or all that begin alike; without a word all.
fn wanted(names: Vec<String>, only: &[String]) -> Result<HashSet<String>, UsageError> {
    let mut wanted = HashSet::new();
    for only in only {
        let exact = names.contains(only);
        let meant: Vec<&String> =
            names.iter().filter(|name| if exact { *name == only } else { name.starts_with(only) }).collect();
        wanted.extend(meant.iter().map(|&name| name.clone()));
        if meant.is_empty() {
            return Err(UsageError {
                message: format!("there is no figure `{only}`"),
                hint: Some(format!("there are {}", names.join(", "))),
            });
        }
    }
    Ok(if only.is_empty() { names.into_iter().collect() } else { wanted })
}

/// The middle one of some measurements, at least one.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// The value that so many of some measurements are not above.
fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_meant_by_name_or_by_their_beginning() {
        let names = || ["drain/a", "drain/a/unique-ids", "idle/cpu"].map(str::to_owned).to_vec();
        let meant = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(|&only| only.to_owned()).collect();
            wanted(names(), &only).map(|wanted| names().iter().map(|name| wanted.contains(name)).collect::<Vec<_>>())
        };
        assert_eq!(meant(&[]).unwrap(), [true, true, true]);
        assert_eq!(meant(&["drain/a"]).unwrap(), [true, false, false]);
        assert_eq!(meant(&["drain/", "drain/a"]).unwrap(), [true, true, false]);
        assert_eq!(meant(&["i"]).unwrap(), [false, false, true]);
        assert_eq!(meant(&["idle", "nothing"]).unwrap_err().message, "there is no figure `nothing`");
    }

    #[test]
    fn middle_and_quantiles_of_few_are_among_them() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0]), 2.5);
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!((quantile(&hundred, 0.5), quantile(&hundred, 0.99)), (50.0, 99.0));
        assert_eq!(quantile(&[7.0], 0.99), 7.0);
    }
}
