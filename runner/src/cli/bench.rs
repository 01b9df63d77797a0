//! `sandhog bench`

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

use super::fault::Fault;
use super::terminal::{note, plain, write_pairs, write_table};
use crate::bench::{self, Figure, Listener, Target, UsageError};

/// Measure this machine.
///
/// Each figure stands beside a limit that is measured in the same run: what a bare program reaches here. The ratio of the
/// two can be compared between machines. A target that is missed is said, and is no failure.
///
/// It works in a fresh folder that is removed at the end, with runners of its own, and touches no queue of yours. The
/// machine should do nothing else meanwhile.
#[derive(Debug, Args)]
pub(super) struct Bench {
    /// A handler to measure beside the built-in one; its file's stem is its job type; may be repeated
    #[arg(long = "handler", value_name = "FILE")]
    handlers: Vec<PathBuf>,
    /// The body of all jobs, an object [default: one of 120 bytes]
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// Only the figure of this name, or all whose names begin so; may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// How often each is measured, the median counts [default: 15 for short ones, 3 for long ones]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    runs: Option<u32>,
    /// Fewer runs, of fewer jobs
    #[arg(long)]
    quick: bool,
    /// Where the folder is made: the disk that is measured
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// A Kafka to measure the queue on, too; the topics that are made there are deleted at the end
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// An array of objects; the conditions are an object in a line on stderr
    #[arg(long)]
    json: bool,
}

/// Says on stderr how far it is: a line that changes on a terminal, elsewhere a line a figure.
struct Teller {
    bar: ProgressBar,
    on_terminal: bool,
}

// === impl Bench ===

impl Bench {
    pub(super) fn run(self, out: &mut dyn Write) -> Result<(), Fault> {
        let json = self.json;
        let bench = bench::Bench::new(bench::Options {
            handlers: self.handlers,
            body: self.body,
            only: self.only,
            runs: self.runs,
            quick: self.quick,
            dir: self.dir,
            kafka: self.kafka,
        })?;
        let conditions = bench.conditions()?;
        if json {
            note(format_args!("{}", serde_json::to_string(&conditions).context("cannot write the conditions")?));
        } else {
            let pairs: Vec<_> = conditions.as_pairs().into_iter().map(|(name, value)| (name, plain(&value))).collect();
            write_pairs(out, &pairs)?;
            out.flush()?;
        }
        // One more thread than this one, so that what is timed here does not wait for other timers.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        let teller = Teller::new();
        let measured = runtime.block_on(async {
            // Heard from here on, before anything is made that would have to be removed.
            let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
            let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
            tokio::select! {
                measured = bench.measure(&teller) => Ok(measured?),
                _ = interrupt.recv() => Err(Fault::failed("interrupted")),
                _ = terminate.recv() => Err(Fault::failed("interrupted")),
            }
        });
        teller.bar.finish_and_clear();
        // A measurement that was interrupted goes on for up to a few seconds, for nobody.
        runtime.shutdown_background();
        write(&measured?, json, out)
    }
}

fn write(figures: &[Figure], json: bool, out: &mut dyn Write) -> Result<(), Fault> {
    if json {
        let figures = serde_json::to_string_pretty(figures).context("cannot write the figures")?;
        return Ok(writeln!(out, "{figures}")?);
    }
    writeln!(out)?;
    let header = ["FIGURE", "VALUE", "UNIT", "LIMIT", "RATIO", "TARGET", "MET"];
    write_table(out, &header, figures.iter().map(row).collect())?;
    let missed = figures.iter().filter(|figure| figure.met == Some(false)).count();
    let promised = figures.iter().filter(|figure| figure.met.is_some()).count();
    Ok(writeln!(out, "\n{} of {promised} targets met", promised - missed)?)
}

fn row(figure: &Figure) -> Vec<String> {
    let target = match figure.bound {
        Target::None => "-".to_owned(),
        Target::AtMost(most) => format!("≤ {most}"),
        Target::AtLeast(least) => format!("≥ {least}"),
    };
    let met = figure.met.map_or("-", |met| if met { "yes" } else { "NO" });
    let (value, limit, ratio) = (number(figure.value), number(figure.limit), format!("{:.2}", figure.ratio));
    vec![plain(&figure.name), value, figure.unit.to_owned(), limit, ratio, target, met.to_owned()]
}

/// As many digits as mean something.
fn number(value: f64) -> String {
    match value.abs() {
        1_000.0.. => format!("{value:.0}"),
        100.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

// === impl Teller ===

impl Teller {
    fn new() -> Teller {
        let on_terminal = io::stderr().is_terminal();
        let bar = if on_terminal {
            let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}").expect("the template is sound");
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style);
            bar.enable_steady_tick(std::time::Duration::from_millis(500));
            bar
        } else {
            ProgressBar::hidden()
        };
        Teller { bar, on_terminal }
    }
}

impl Listener for Teller {
    fn measuring(&self, what: &str) {
        self.bar.set_message(format!("measuring {}", plain(what)));
    }

    fn measured(&self, figure: &Figure) {
        let missed = if figure.met == Some(false) { ", missed" } else { "" };
        let Figure { name, unit, ratio, .. } = figure;
        let line = format!("{}: {} {unit}, {ratio:.2} of its limit{missed}", plain(name), number(figure.value));
        if self.on_terminal {
            self.bar.set_message(line);
        } else {
            note(format_args!("{line}"));
        }
    }
}

impl From<UsageError> for Fault {
    fn from(error: UsageError) -> Fault {
        Fault::Usage { message: error.message, hint: error.hint }
    }
}
