//! Jobs that enqueue a job each, beside as many plain ones.

use anyhow::Result;

use super::drain::{completed, drained, fill, open_progress};
use super::runner::Runner;
use super::{Figure, Session, Target, median, subject};

pub(super) const NAMES: [&str; 1] = ["drain/follow-ups"];

/// What was promised: they cost at most 1.5 times as much.
const DRAIN: Target = Target::AtLeast(0.67);

/// The manifest of the handler that enqueues.
const MANIFEST: &str = "grants.enqueue = \"built-in\"\n";

pub(super) async fn measure(session: &mut Session<'_>) -> Result<()> {
    let [name] = NAMES;
    if !session.wants(name) {
        return Ok(());
    }
    let (runs, parents) = (session.bench.runs(3, 1), session.bench.sized(100_000, 25_000));
    let (plain, parent) = (session.bench.built_in().clone(), subject::follows());
    let (mut rates, mut limits) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        session.say(name);
        let folder = session.folder.inside()?;
        for subject in [&plain, &parent] {
            folder.write(&subject.file_name(), &subject.file)?;
        }
        folder.write(&format!("handlers/{}.toml", parent.name), MANIFEST.as_bytes())?;
        fill(session, folder.path(), &parent, parents, false).await?;
        Runner::start(folder.path(), &["--until-empty"])?.ended().await?;
        rates.push(completed(&open_progress(folder.path())?)?.rate());
        session.say("as many plain jobs");
        limits.push(drained(session, &plain, 2 * parents, false).await?.rate());
    }
    session.report(Figure::new(name, median(&rates), "jobs/s", median(&limits), DRAIN));
    Ok(())
}
