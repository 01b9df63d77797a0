//! One job after the other in an instance that is reused, beside a bare loop over one instance.

use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::sync::Mutex;

use super::attempt::{Pair, timed};
use super::{Figure, Session, Subject, Target, median};
use crate::job::Job;

/// What was promised.
const REUSED: Target = Target::AtMost(1.5);

/// As a manifest would have it.
const MANIFEST: &str = "instances = { reuse = 1000 }";

pub(super) fn name(handler: &str) -> String {
    format!("reused/{handler}")
}

pub(super) async fn measure(session: &mut Session<'_>, subject: &Subject) -> Result<()> {
    let name = name(&subject.name);
    if !session.wants(&name) {
        return Ok(());
    }
    session.say(&name);
    let pair = Arc::new(Pair::new(session, subject, true, MANIFEST)?);
    let bare = Arc::new(Mutex::new(pair.bare.instance().await?));
    let (mut times, mut bare_times) = (Vec::new(), Vec::new());
    for _ in 0..session.bench.runs(15, 5) {
        let (pair, bare) = (Arc::clone(&pair), Arc::clone(&bare));
        let timed = tokio::task::spawn_blocking(move || -> Result<(f64, f64)> {
            let sandbox = timed(1, &pair.job, &async |job: &Arc<Job>| pair.attempt(job).await)?;
            let bare = timed(1, &pair.job, &async |job: &Arc<Job>| Ok(bare.lock().await.attempt(job).await?))?;
            Ok((sandbox, bare))
        });
        let (time, bare_time) = timed.await.context("the threads that attempts run on broke down")??;
        times.push(time);
        bare_times.push(bare_time);
    }
    session.report(Figure::new(&name, median(&times), "µs", median(&bare_times), REUSED));
    Ok(())
}
