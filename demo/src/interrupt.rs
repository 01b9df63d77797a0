//! Ctrl-C and SIGTERM, as something to wait for.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

/// Says when somebody wants the demo to end.
#[derive(Debug)]
pub(crate) struct Interrupt(Receiver<()>);

// === impl Interrupt ===

impl Interrupt {
    /// From now on these signals no longer end the process by themselves, which would leave the runner behind.
    pub(crate) fn listen() -> Result<Interrupt> {
        let (heard, receiver) = channel();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().build().context("cannot listen for signals")?;
        let (mut interrupt, mut terminate) = {
            let _inside = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        thread::spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    if heard.send(()).is_err() {
                        return;
                    }
                }
            });
        });
        Ok(Interrupt(receiver))
    }

    /// Waits for `pause`; an error if the demo is to end.
    pub(crate) fn pause(&self, pause: Duration) -> Result<()> {
        match self.0.recv_timeout(pause) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => bail!("interrupted"),
        }
    }
}
