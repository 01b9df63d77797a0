//! `sandhog run`, as a process that is never left behind.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::interrupt::Interrupt;
use crate::sandhog::Sandhog;

/// A running `sandhog run`. Dropped, it is killed, which loses no job.
#[derive(Debug)]
pub(crate) struct Runner {
    child: Child,
    log: PathBuf,
}

/// How long a drain may take: the runner's own 30 s, and some.
const STOP_PATIENCE: Duration = Duration::from_secs(40);

// === impl Runner ===

impl Runner {
    /// Starts it with its log in a file.
    pub(crate) fn start(sandhog: &Sandhog, handlers: &Path, config: &Path, log: &Path) -> Result<Runner> {
        let file = File::create(log).with_context(|| format!("cannot write `{}`", log.display()))?;
        let mut command = sandhog.command(&["run"]);
        command.arg("--handlers").arg(handlers).arg("--config").arg(config);
        command.stdout(file.try_clone()?).stderr(file);
        // A Ctrl-C is meant for the demo, which then stops the runner.
        command.process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start `{}`", sandhog.program.display()))?;
        Ok(Runner { child, log: log.to_owned() })
    }

    /// An error, with the end of its log, if it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the runner ended with {status}\n{}", self.last_words());
        }
        Ok(())
    }

    /// Asks it to drain, with SIGTERM, and waits for its end.
    pub(crate) fn stop(mut self, interrupt: &Interrupt) -> Result<ExitStatus> {
        self.check()?;
        kill_process(Pid::from_child(&self.child), Signal::TERM).context("cannot signal the runner")?;
        let asked = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if asked.elapsed() > STOP_PATIENCE {
                bail!("the runner did not stop within {STOP_PATIENCE:?} and is killed\n{}", self.last_words());
            }
            interrupt.pause(Duration::from_millis(20))?;
        }
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<_> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(15)..].join("\n");
        format!("the end of its log, `{}`:\n{last}", self.log.display())
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        if let Err(e) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("error: cannot kill the runner, process {}: {e}", self.child.id());
        }
    }
}
