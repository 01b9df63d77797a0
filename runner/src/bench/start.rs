//! How soon a runner takes jobs after its start.

use anyhow::Result;

use super::runner::Runner;
use super::{Figure, Session, Target, median, millis, subject};

pub(super) const NAMES: [&str; 1] = ["start/20-handlers"];

/// The budget, which the ratio must keep to.
const START_MS: f64 = 500.0;
const WITHIN: Target = Target::AtMost(1.0);

const HANDLERS: u32 = 20;

pub(super) async fn measure(session: &mut Session<'_>) -> Result<()> {
    let [name] = NAMES;
    if !session.wants(name) {
        return Ok(());
    }
    session.say(name);
    let folder = session.folder.inside()?;
    for number in 1..=HANDLERS {
        folder.write(&format!("handlers/no-op-{number}.wasm"), &subject::no_op(number))?;
    }
    // The first start compiles them, and does not count.
    let mut times = Vec::new();
    for _ in 0..=session.bench.runs(5, 3) {
        let mut runner = Runner::start(folder.path(), &[])?;
        times.push(millis(runner.ready().await?));
        runner.stop().await?;
    }
    session.report(Figure::new(name, median(&times[1..]), "ms", START_MS, WITHIN));
    Ok(())
}
