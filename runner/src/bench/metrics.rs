//! What a scraper waits for.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::drain::{open_progress, open_queue};
use super::runner::Runner;
use super::{Figure, Session, Target, median, subject};
use crate::queue::NewJob;

pub(super) const NAMES: [&str; 1] = ["metrics/scrape-1000-types"];

/// The budget, which the ratio must keep to.
const SCRAPE_MS: f64 = 20.0;
const WITHIN: Target = Target::AtMost(1.0);

const TYPES: usize = 1_000;

/// Between two looks whether the jobs are done.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Between two scrapes: more than the queue's counts are shared for, so that each scrape waits for new ones.
const SCRAPE_AGAIN: Duration = Duration::from_millis(1_100);

pub(super) async fn measure(session: &mut Session<'_>) -> Result<()> {
    let [name] = NAMES;
    if !session.wants(name) {
        return Ok(());
    }
    session.say(name);
    let folder = session.folder.inside()?;
    let types: Vec<String> = (0..TYPES).map(|number| format!("type-{number}")).collect();
    folder.write("handlers/many.wasm", &subject::no_op(0))?;
    folder.write("handlers/many.toml", format!("job_types = {types:?}").as_bytes())?;
    let queue = open_queue(session, folder.path()).await?;
    let job = |job_type: &String| NewJob::Job {
        job_type: job_type.clone(),
        body: "{}".to_owned(),
        id: None,
        run_at: None,
        metadata: Vec::new(),
        keep: None,
    };
    queue.enqueue(types.iter().map(job).collect()).await?;
    queue.close().await;
    let mut runner = Runner::start(folder.path(), &[])?;
    runner.ready().await?;
    let progress = open_progress(folder.path())?;
    while progress.spans()?.len() < TYPES {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let socket = socket(folder.path())?;
    let mut times = Vec::new();
    for _ in 0..session.bench.runs(10, 5) {
        tokio::time::sleep(SCRAPE_AGAIN).await;
        let begun = Instant::now();
        let text = scrape(&socket)?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        let counted = text.matches("outcome=\"completed\"").count();
        ensure!(counted == TYPES, "the runner tells of {counted} types");
    }
    session.report(Figure::new(name, median(&times), "ms", SCRAPE_MS, WITHIN));
    runner.stop().await
}

/// The socket of a folder's only runner.
fn socket(folder: &Path) -> Result<PathBuf> {
    let sockets = folder.join("sandhog.db.state/admin");
    let mut entries = std::fs::read_dir(&sockets).with_context(|| format!("cannot read `{}`", sockets.display()))?;
    Ok(entries.next().context("the runner has no socket for commands")??.path())
}

fn scrape(socket: &Path) -> Result<String> {
    let mut stream = UnixStream::connect(socket).context("the runner cannot be reached")?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("the runner does not answer")?;
    Ok(answer)
}
