//! Who started the runner, and wants to know how it goes: systemd, or another that speaks its protocol. And what is expected of
//! the first process of a container.

use std::sync::Weak;
use std::time::Duration;

use rustix::process::{WaitOptions, wait};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::queue::Queue;

/// A queue whose thread has been at one thing for so long is stuck: it waits for brokers and locked files for seconds, and turns.
const STUCK: Duration = Duration::from_secs(60);

/// Says that jobs are worked.
pub(crate) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Says, when that comes, that the runner stops.
pub(crate) async fn say_stopping(drain: CancellationToken) {
    drain.cancelled().await;
    tell(&[NotifyState::Stopping, NotifyState::Status("draining: what runs may end, nothing new is started")]);
}

/// Shows signs of life, as often as the supervisor wants, as long as there are any: that this is polled says that the main
/// runtime turns, and with it the dispatcher; and of the queue it is asked. To be awaited there.
pub(crate) async fn show_life(queue: Weak<dyn Queue>) {
    let Some(patience) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    let mut ticks = tokio::time::interval(patience / 3);
    let mut said = false;
    loop {
        ticks.tick().await;
        let stands = queue.upgrade().map_or(Duration::ZERO, |queue| queue.stands());
        if stands < STUCK {
            tell(&[NotifyState::Watchdog]);
            said = false;
        } else if !std::mem::replace(&mut said, true) {
            let stands = stands.as_secs();
            tracing::error!(
                stands_s = stands,
                "the queue's thread has not turned for {stands} s: the supervisor is not told of life"
            );
        }
    }
}

fn tell(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        tracing::warn!(error = %error, "the supervisor cannot be told how the runner goes: {error}");
    }
}

/// As the first process of a container it gets the children of those that died, and must bury them. To be awaited on the main
/// runtime, for as long as the runner runs; it does nothing elsewhere, where its own would be somebody else's to await.
pub(crate) async fn bury_orphans() {
    if std::process::id() != 1 {
        return;
    }
    let mut deaths = match signal(SignalKind::child()) {
        Ok(deaths) => deaths,
        Err(error) => {
            tracing::warn!(error = %error, "cannot listen for SIGCHLD: orphans stay as zombies: {error}");
            return;
        }
    };
    loop {
        // First, since some may have died before.
        while let Ok(Some((orphan, _))) = wait(WaitOptions::NOHANG) {
            tracing::debug!(pid = orphan.as_raw_nonzero().get(), "an orphan ended");
        }
        if deaths.recv().await.is_none() {
            return;
        }
    }
}
