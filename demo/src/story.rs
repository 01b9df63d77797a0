//! What happens, in order.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use crate::Args;
use crate::interrupt::Interrupt;
use crate::load::{self, ODD, Round};
use crate::report;
use crate::runner::Runner;
use crate::sandhog::Sandhog;

/// Where everything is, and who plays.
struct Stage {
    built: PathBuf,
    handlers: PathBuf,
    folder: PathBuf,
    sandhog: Sandhog,
    runner: Runner,
    interrupt: Interrupt,
}

/// For how long nothing may end before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much waits at most, in bytes: it lies on the disk twice, once as jobs and once as results.
const WAITING_BYTES_MAX: u64 = 512 << 20;
/// A file of jobs is enqueued as often as it takes; this is about its size in bytes.
const FILE_BYTES: u64 = 16 << 20;
/// What the runner is told beyond its defaults. All that completes is kept, so that all of it can be counted.
const CONFIG: &str = "log.level = \"warn\"\n\n[queue]\nkeep_completed = { bytes = \"8GiB\" }\n";

/// Plays it. Answers whether every job ended where it should.
pub(crate) fn play(args: &Args) -> Result<bool> {
    let round = load::gather()?;
    println!("{} READMEs, {} KB, are one round of work", round.jobs, round.lines.len() / 1000);
    let mut stage = Stage::set(args)?;
    let (rate, warm) = stage.calibrate(&round)?;
    let wanted = rate * f64::from(args.seconds) / round.jobs as f64;
    let rounds = (wanted as u64).clamp(10, WAITING_BYTES_MAX / round.lines.len() as u64);
    println!("about {rate:.0} jobs a second here: {rounds} rounds more");

    let enqueued = warm + stage.enqueue(&round, rounds)?;
    let begun = Instant::now();
    stage.watch(warm, enqueued)?;
    println!("all ended, {:.1} s after the last was enqueued", begun.elapsed().as_secs_f64());

    let jobs = stage.sandhog.jobs()?;
    let Stage { runner, interrupt, sandhog, handlers, folder, .. } = stage;
    let status = runner.stop(&interrupt)?;
    report::print(&jobs);
    let mut faults = report::faults(&jobs, enqueued);
    if !status.success() {
        faults.push(format!("the runner was asked to drain, and ended with {status}"));
    }
    report::print_verdict(&faults);
    report::print_what_next(&sandhog, &handlers, &folder);
    Ok(faults.is_empty())
}

// === impl Stage ===

impl Stage {
    /// Empties the folder, puts the first handlers in, and starts the runner.
    fn set(args: &Args) -> Result<Stage> {
        ensure!(args.sandhog.is_file(), "there is no `{}`\nhint: `make demo` builds it", args.sandhog.display());
        if args.folder.exists() {
            fs::remove_dir_all(&args.folder).with_context(|| format!("cannot empty `{}`", args.folder.display()))?;
        }
        let handlers = args.folder.join("handlers");
        fs::create_dir_all(&handlers).with_context(|| format!("cannot make `{}`", handlers.display()))?;
        let config = args.folder.join("sandhog.toml");
        fs::write(&config, CONFIG).with_context(|| format!("cannot write `{}`", config.display()))?;
        for name in ["render-markdown", "poll", "hostile"] {
            install(&args.built, name, &args.folder, &handlers, name)?;
        }
        let queue = format!("sqlite:{}", args.folder.join("sandhog.db").display());
        let sandhog = Sandhog { program: args.sandhog.clone(), queue };
        // Before the runner: a signal from now on ends the demo by an error, which stops the runner.
        let interrupt = Interrupt::listen()?;
        let runner = Runner::start(&sandhog, &handlers, &config, &args.folder.join("runner.log"))?;
        Ok(Stage { built: args.built.clone(), handlers, folder: args.folder.clone(), sandhog, runner, interrupt })
    }

    /// Finds out how many jobs a second this machine does: by ever more rounds, until they take a second. Answers that, and
    /// how many jobs it took.
    fn calibrate(&mut self, round: &Round) -> Result<(f64, u64)> {
        // The first round is slow: the handlers are still being compiled.
        let mut enqueued = self.enqueue(round, 1)?;
        self.await_ended(enqueued)?;
        let mut rounds = 4;
        loop {
            let begun = Instant::now();
            enqueued += self.enqueue(round, rounds)?;
            self.await_ended(enqueued)?;
            let seconds = begun.elapsed().as_secs_f64();
            if seconds > 1.0 || rounds > 200 {
                return Ok(((rounds * round.jobs) as f64 / seconds, enqueued));
            }
            rounds *= 3;
        }
    }

    /// Enqueues so many rounds, in files of a handy size. Answers how many jobs that is.
    fn enqueue(&mut self, round: &Round, rounds: u64) -> Result<u64> {
        let file = self.folder.join("jobs.ndjson");
        let in_file = (FILE_BYTES / round.lines.len() as u64).clamp(1, rounds);
        load::write(&file, round, in_file)?;
        for _ in 0..rounds / in_file {
            self.sandhog.enqueue_file(&file, &[])?;
        }
        let rest = rounds % in_file;
        if rest > 0 {
            load::write(&file, round, rest)?;
            self.sandhog.enqueue_file(&file, &[])?;
        }
        fs::remove_file(&file).with_context(|| format!("cannot remove `{}`", file.display()))?;
        Ok(rounds * round.jobs)
    }

    fn await_ended(&mut self, jobs: u64) -> Result<()> {
        let mut patience = Patience::new();
        loop {
            let ended = self.sandhog.stats()?.ended();
            if ended >= jobs {
                return Ok(());
            }
            self.wait(&mut patience, ended, Duration::from_millis(20))?;
        }
    }

    /// Follows the work to its end, and does to the runner what people do: `warm` jobs had ended before, `render` are
    /// enqueued with these.
    fn watch(&mut self, warm: u64, render: u64) -> Result<()> {
        let odd: u64 = ODD.iter().map(|odd| odd.jobs).sum();
        // What ended before there was a bar is no measure of how fast the rest goes.
        let bar = ProgressBar::new(render + odd).with_style(style()?).with_position(self.sandhog.stats()?.ended());
        bar.reset_eta();
        let (mut swapped, mut late) = (false, false);
        let mut patience = Patience::new();
        loop {
            let stats = self.sandhog.stats()?;
            let ended = stats.ended();
            bar.set_position(ended);
            if !swapped && ended >= warm + (render - warm) / 10 {
                install(&self.built, "render-markdown+smart", &self.folder, &self.handlers, "render-markdown")?;
                bar.suspend(|| println!("swapped `render-markdown.wasm` for its second build, under load"));
                self.send_odd()?;
                bar.suspend(|| println!("sent {odd} odd jobs through, one of them not JSON"));
                swapped = true;
            } else if swapped && !late && ended >= warm + (render - warm) / 2 {
                install(&self.built, "greet", &self.folder, &self.handlers, "greet")?;
                bar.suspend(|| println!("dropped `greet.wasm` in, for whose type jobs were waiting"));
                late = true;
            } else if late && stats.unfinished() == 0 {
                bar.finish_and_clear();
                return Ok(());
            }
            self.wait(&mut patience, ended, Duration::from_millis(250))?;
        }
    }

    fn send_odd(&self) -> Result<()> {
        let file = self.folder.join("odd.ndjson");
        load::write_odd(&file)?;
        self.sandhog.enqueue_file(&file, &["--bury-bad"])
    }

    fn wait(&mut self, patience: &mut Patience, ended: u64, pause: Duration) -> Result<()> {
        self.runner.check()?;
        if patience.is_over(ended) {
            bail!("no job has ended for {PATIENCE:?}, {ended} had before\n{}", self.runner.last_words());
        }
        self.interrupt.pause(pause)
    }
}

/// Notices when nothing goes on any more.
struct Patience {
    ended: u64,
    since: Instant,
}

// === impl Patience ===

impl Patience {
    fn new() -> Patience {
        Patience { ended: 0, since: Instant::now() }
    }

    fn is_over(&mut self, ended: u64) -> bool {
        if ended != self.ended {
            *self = Patience { ended, since: Instant::now() };
        }
        self.since.elapsed() > PATIENCE
    }
}

/// Puts a handler into the runner's folder as one should: its manifest first, then the component, by a rename from the same
/// disk, so that nobody sees half a file.
fn install(built: &Path, from: &str, folder: &Path, handlers: &Path, to: &str) -> Result<()> {
    let copy = |extension: &str| -> Result<()> {
        let (from, new) = (built.join(format!("{from}.{extension}")), folder.join(format!("{to}.{extension}.new")));
        let hint = "hint: `tools/build-guests` builds it";
        fs::copy(&from, &new).with_context(|| format!("cannot copy `{}`\n{hint}", from.display()))?;
        let to = handlers.join(format!("{to}.{extension}"));
        fs::rename(&new, &to).with_context(|| format!("cannot put `{}` into place", to.display()))
    };
    if built.join(format!("{from}.toml")).exists() {
        copy("toml")?;
    }
    copy("wasm")
}

fn style() -> Result<ProgressStyle> {
    let template = "{bar:40} {pos}/{len} jobs, {per_sec:0}, {eta} to go";
    ProgressStyle::with_template(template).context("the progress bar's template is wrong")
}
