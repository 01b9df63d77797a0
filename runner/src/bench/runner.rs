//! A real runner: this program as a process of its own, with the defaults for everything, in a folder of its own.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::oneshot;

/// How long a start or an end is waited for. Far longer than either takes: beyond it something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is shown of the log of a runner that ended badly.
const LAST_LINES: usize = 15;

/// How many ticks the kernel counts a processor's second as, in `/proc`; the same on all systems.
const TICKS_A_SECOND: f64 = 100.0;

/// A line of the log, and when it came.
pub(super) type Hear = Box<dyn FnMut(Instant, &str) + Send>;

/// A process that is killed when this is dropped.
pub(super) struct Runner {
    child: Child,
    spawned: Instant,
    ready: Option<oneshot::Receiver<Instant>>,
    ended: oneshot::Receiver<()>,
    last_lines: Arc<Mutex<VecDeque<String>>>,
}

/// This program, with no setting from this environment, in the folder.
pub(super) fn command(folder: &Path, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("cannot tell which program this is")?);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SANDHOG_") {
            command.env_remove(name);
        }
    }
    // A Ctrl-C is for the benchmark, which then ends what it started.
    command.args(arguments).current_dir(folder).process_group(0).stdin(Stdio::null()).stdout(Stdio::null());
    Ok(command)
}

// === impl Runner ===

impl Runner {
    /// Starts one, on `handlers/` and `sandhog.db` of the folder.
    pub(super) fn start(folder: &Path, arguments: &[&str]) -> Result<Runner> {
        Runner::start_heard(folder, arguments, Box::new(|_, _| {}))
    }

    /// The same, with every line of its log given to `hear`, on a thread of its own.
    pub(super) fn start_heard(folder: &Path, arguments: &[&str], mut hear: Hear) -> Result<Runner> {
        let spawned = Instant::now();
        let mut child = command(folder, &[&["run"], arguments].concat())?
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start a runner")?;
        let log = child.stderr.take().expect("it was asked to be a pipe");
        let (ready_sender, ready) = oneshot::channel();
        let (ended_sender, ended) = oneshot::channel();
        let last_lines = Arc::new(Mutex::new(VecDeque::new()));
        let kept = Arc::clone(&last_lines);
        std::thread::spawn(move || {
            let mut ready_sender = Some(ready_sender);
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                let now = Instant::now();
                hear(now, &line);
                if line.contains(r#""message":"ready: "#)
                    && let Some(ready) = ready_sender.take()
                {
                    // Nobody may be waiting for it.
                    ready.send(now).ok();
                }
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() == LAST_LINES {
                    kept.pop_front();
                }
                kept.push_back(line);
            }
            ended_sender.send(()).ok();
        });
        Ok(Runner { child, spawned, ready: Some(ready), ended, last_lines })
    }

    /// Waits until it takes jobs, and answers how long that took from its start.
    pub(super) async fn ready(&mut self) -> Result<Duration> {
        let ready = self.ready.take().expect("it becomes ready once");
        match tokio::time::timeout(PATIENCE, ready).await {
            Ok(Ok(at)) => Ok(at.duration_since(self.spawned)),
            Ok(Err(_)) => bail!("the runner ended before it was ready{}", self.last_lines()),
            Err(_) => bail!("the runner is not ready after {PATIENCE:?}{}", self.last_lines()),
        }
    }

    /// Waits until it ends by itself.
    pub(super) async fn ended(mut self) -> Result<()> {
        // Its log ends with it. An error would say that the thread is gone, which is the same.
        (&mut self.ended).await.ok();
        self.check_end()
    }

    /// Has it drain, and waits for its end.
    pub(super) async fn stop(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).context("cannot signal the runner")?;
        if tokio::time::timeout(PATIENCE, &mut self.ended).await.is_err() {
            bail!("the runner did not stop within {PATIENCE:?}{}", self.last_lines());
        }
        self.check_end()
    }

    /// The time that it used of a processor so far, in seconds.
    pub(super) fn cpu_seconds(&self) -> Result<f64> {
        let stat = self.proc("stat")?;
        // Behind the name, which may hold anything: the 12th and 13th are the ticks as a user and in the system.
        let numbers = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        let ticks: f64 = numbers.skip(11).take(2).filter_map(|number| number.parse::<f64>().ok()).sum();
        Ok(ticks / TICKS_A_SECOND)
    }

    /// The memory that it has now, in megabytes.
    pub(super) fn resident_megabytes(&self) -> Result<f64> {
        self.status("VmRSS:")
    }

    /// The most memory that it had so far, in megabytes.
    pub(super) fn peak_megabytes(&self) -> Result<f64> {
        self.status("VmHWM:")
    }

    fn status(&self, name: &str) -> Result<f64> {
        let status = self.proc("status")?;
        let kibibytes =
            status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse::<f64>().ok());
        Ok(kibibytes.with_context(|| format!("the system does not tell a process's `{name}`"))? * 1024.0 / 1e6)
    }

    fn proc(&self, name: &str) -> Result<String> {
        let path = format!("/proc/{}/{name}", self.child.id());
        std::fs::read_to_string(&path).with_context(|| format!("cannot read `{path}`{}", self.last_lines()))
    }

    fn check_end(&mut self) -> Result<()> {
        let status: ExitStatus = self.child.wait().context("cannot wait for the runner")?;
        if !status.success() {
            bail!("the runner ended with {status}{}", self.last_lines());
        }
        Ok(())
    }

    fn last_lines(&self) -> String {
        let lines = self.last_lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().fold("; its last lines:".to_owned(), |text, line| text + "\n" + line)
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
