//! What came out of it: a table, the dead letters, and whether every job ended where it should.

use std::collections::BTreeMap;
use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use hdrhistogram::Histogram;

use crate::load::ODD;
use crate::sandhog::{Listed, Sandhog};

/// All jobs of one type.
#[derive(Default)]
struct Summary {
    completed: u64,
    retried: u64,
    dead: u64,
    /// From enqueue to the start of the last attempt, in microseconds.
    waits: Vec<u64>,
    /// Of the last attempt, in microseconds.
    runs: Vec<u64>,
    /// How many jobs each generation ran.
    generations: BTreeMap<String, u64>,
}

/// How much of a generation's digest is shown.
const DIGEST_CHARS: usize = 8;

/// Prints the table and the dead letters.
pub(crate) fn print(jobs: &[Listed]) {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY).set_header([
        "type",
        "completed",
        "retried",
        "dead",
        "wait p50",
        "p99",
        "run p50",
        "p99",
        "generation × jobs",
    ]);
    for (job_type, summary) in summaries(jobs) {
        let (waits, runs) = (histogram(&summary.waits), histogram(&summary.runs));
        let generations: Vec<_> = summary
            .generations
            .iter()
            .map(|(digest, jobs)| format!("{} × {jobs}", digest.chars().take(DIGEST_CHARS).collect::<String>()))
            .collect();
        table.add_row([
            job_type,
            summary.completed.to_string(),
            summary.retried.to_string(),
            summary.dead.to_string(),
            quantile(&waits, 0.5),
            quantile(&waits, 0.99),
            quantile(&runs, 0.5),
            quantile(&runs, 0.99),
            generations.join("\n"),
        ]);
    }
    for column in table.column_iter_mut().skip(1).take(7) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("\n{table}\n");
    print_dead(jobs);
}

fn print_dead(jobs: &[Listed]) {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY).set_header(["dead letter", "kind", "reason"]);
    for job in jobs.iter().filter(|job| job.state == "dead") {
        let (kind, message) = job.failure.as_ref().map_or(("?", "?"), |f| (f.kind.as_str(), f.message.as_str()));
        let first_line = message.lines().next().unwrap_or_default();
        table.add_row([type_of(job), kind, &first_line.chars().take(90).collect::<String>()]);
    }
    println!("{table}\n");
}

/// What is not as it should be: `render` jobs of `render-markdown` were enqueued, and the odd ones.
pub(crate) fn faults(jobs: &[Listed], render: u64) -> Vec<String> {
    let mut faults = Vec::new();
    let summaries = summaries(jobs);
    let none = Summary::default();
    let of = |job_type: &str| summaries.get(job_type).unwrap_or(&none);
    let mut claim = |holds: bool, fault: String| {
        if !holds {
            faults.push(fault);
        }
    };
    let rendered = of("render-markdown");
    claim(
        rendered.completed == render,
        format!("{} of {render} jobs of type `render-markdown` completed", rendered.completed),
    );
    let by_two = rendered.generations.len() == 2;
    claim(by_two, format!("{} generations of `render-markdown` completed jobs, not 2", rendered.generations.len()));
    for odd in ODD {
        let name = odd.job_type.unwrap_or(MALFORMED);
        let found = of(name);
        let (completed, dead) = if odd.dead.is_none() { (odd.jobs, 0) } else { (0, odd.jobs) };
        claim(
            (found.completed, found.dead) == (completed, dead),
            format!(
                "of `{name}` {} completed and {} are dead letters, not {completed} and {dead}",
                found.completed, found.dead
            ),
        );
        let retries = odd.jobs * u64::from(odd.retries);
        claim(found.retried == retries, format!("`{name}` asked for {} retries, not {retries}", found.retried));
    }
    for job in jobs.iter().filter(|job| job.state == "dead") {
        let expected = ODD.iter().find(|odd| odd.job_type == job.job_type.as_deref()).and_then(|odd| odd.dead);
        let found = job.failure.as_ref().map(|failure| failure.kind.as_str());
        claim(found == expected, format!("a `{}` was buried as {found:?}, not {expected:?}", type_of(job)));
    }
    let expected = render + ODD.iter().map(|odd| odd.jobs).sum::<u64>();
    claim(jobs.len() as u64 == expected, format!("there are {} jobs, not {expected}", jobs.len()));
    faults
}

/// Prints whether all is well.
pub(crate) fn print_verdict(faults: &[String]) {
    if faults.is_empty() {
        println!("Every job ended where it should, and both generations completed jobs.\n");
    } else {
        println!("Not as it should be:");
        for fault in faults {
            println!("  {fault}");
        }
        println!();
    }
}

/// Prints three commands to go on with.
pub(crate) fn print_what_next(sandhog: &Sandhog, handlers: &Path, folder: &Path) {
    let (program, queue, handlers) = (sandhog.program.display(), &sandhog.queue, handlers.display());
    println!("To go on (all of it is in `{}`, and may be deleted):", folder.display());
    println!("  {program} dead list --queue {queue}");
    println!("  {program} jobs list --queue {queue} --type poll");
    println!("  {program} run --queue {queue} --handlers {handlers}");
}

/// How bytes that are no job are listed.
const MALFORMED: &str = "(no job)";

fn type_of(job: &Listed) -> &str {
    job.job_type.as_deref().unwrap_or(MALFORMED)
}

fn summaries(jobs: &[Listed]) -> BTreeMap<String, Summary> {
    let mut summaries: BTreeMap<String, Summary> = BTreeMap::new();
    for job in jobs {
        if !summaries.contains_key(type_of(job)) {
            summaries.insert(type_of(job).to_owned(), Summary::default());
        }
        let summary = summaries.get_mut(type_of(job)).expect("it was put in a line before");
        match job.state.as_str() {
            "completed" => summary.completed += 1,
            "dead" => summary.dead += 1,
            _ => {}
        }
        summary.retried += u64::from(job.retries_requested);
        if let Some(started_at) = job.started_at {
            summary.waits.push(u64::try_from(started_at - job.enqueued_at).unwrap_or(0) * 1000);
        }
        summary.runs.extend(job.duration_us);
        if let Some(generation) = &job.generation {
            *summary.generations.entry(generation.clone()).or_default() += 1;
        }
    }
    summaries
}

fn histogram(values: &[u64]) -> Histogram<u64> {
    let mut histogram = Histogram::new(3).expect("3 digits are within what it can do");
    for value in values {
        histogram.record(*value).expect("it grows with what it is given");
    }
    histogram
}

fn quantile(histogram: &Histogram<u64>, quantile: f64) -> String {
    if histogram.is_empty() {
        return "-".to_owned();
    }
    let microseconds = histogram.value_at_quantile(quantile);
    match microseconds {
        0..1_000 => format!("{microseconds} µs"),
        1_000..1_000_000 => format!("{:.1} ms", microseconds as f64 / 1e3),
        _ => format!("{:.1} s", microseconds as f64 / 1e6),
    }
}
