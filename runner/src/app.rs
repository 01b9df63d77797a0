//! `sandhog run`: puts the runner together, and takes it apart again.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::activity::{self, Activity};
use crate::admin;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Origin, Place};
use crate::dispatch::{Dispatcher, Parts, given_up};
use crate::events::Events;
use crate::hardening;
use crate::metrics::Metrics;
use crate::observe::Observer;
use crate::queue::{self, Queue, State};
use crate::registry::Registry;
use crate::reload::Reload;
use crate::reload::overview::Overview;
use crate::sampler::Sampler;
use crate::sandbox::{self, Sandbox};
use crate::supervisor;
use crate::traces::Traces;

/// How long a runner that stops waits for the last spans to be sent.
const SPANS_PATIENCE: Duration = Duration::from_secs(3);

/// Why a runner ended.
#[derive(Debug, PartialEq)]
enum End {
    /// A signal, or an empty queue.
    Done,
    /// The machine can swap memory out now, under a sandbox that was set up for one that cannot.
    SwapAppeared,
}

/// Works jobs until a signal says otherwise, or until the queue is empty if `until_empty`.
///
/// # Errors
///
/// Whatever keeps it from starting, and what the queue says will not pass by itself.
pub fn run(config: Config, until_empty: bool) -> Result<()> {
    let config = Arc::new(config);
    raise_open_files();
    ensure_folder(&config)?;
    // Before any other thread is there: each has the rules of the one that started it.
    hardening::apply(&config)?;
    let main =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    // Guests have a runtime of their own: a hundred of them that spin delay neither the queue nor a timer.
    let guests = tokio::runtime::Builder::new_multi_thread()
        .thread_name("guest")
        .enable_all()
        .build()
        .context("cannot start the guests' runtime")?;
    let ended = main.block_on(async {
        let signals = Signals::listen()?;
        tokio::spawn(supervisor::bury_orphans());
        tokio::spawn(supervisor::say_stopping(signals.drain.clone()));
        let admin = admin::Server::start(&config)?;
        if !config.enabled {
            return look_on(&config, &signals, &admin, guests.handle(), until_empty).await;
        }
        while work(&config, &signals, &admin, guests.handle(), until_empty).await? == End::SwapAppeared {
            tracing::warn!("swap space appeared: the runner starts anew with a sandbox that is safe with it");
        }
        Ok(())
    });
    guests.shutdown_timeout(Duration::from_secs(1));
    // A component that is still being compiled is not waited for.
    main.shutdown_background();
    ended
}

/// Lets the process open as many files as it may have: handlers with folders or connections hold some of them.
fn raise_open_files() {
    let files = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }) {
        tracing::debug!(error = %error, "the limit on open files stays as it is");
    }
}

/// Makes sure that there is a handlers' folder to watch. Only the default one is made: one that somebody named and that is
/// not there is more likely a slip.
fn ensure_folder(config: &Config) -> Result<()> {
    let folder = &config.handlers.dir;
    let named = config.effective.iter().any(|value| value.key == "handlers.dir" && value.origin != Origin::Default);
    if !named {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the handlers' folder `{}`", folder.display()))?;
    }
    let metadata = std::fs::metadata(folder)
        .with_context(|| format!("cannot read the handlers' folder `{}`", folder.display()))?;
    anyhow::ensure!(metadata.is_dir(), "the handlers' folder `{}` is not a folder", folder.display());
    Ok(())
}

async fn work(
    config: &Arc<Config>,
    signals: &Signals,
    admin: &admin::Server,
    guests: &tokio::runtime::Handle,
    until_empty: bool,
) -> Result<End> {
    let Some(queue) = open(config, signals).await? else { return Ok(End::Done) };
    let life = AbortOnDropHandle::new(tokio::spawn(supervisor::show_life(Arc::downgrade(&queue))));
    let sandbox = Sandbox::new(sandbox::Config {
        slots: config.slots,
        threads: u32::try_from(guests.metrics().num_workers()).unwrap_or(u32::MAX),
        memory_ceiling_bytes: config.ceilings.memory_bytes,
        compiled_dir: Some(config.state_dir.join("compiled")),
        timers: tokio::runtime::Handle::current(),
        guests: guests.clone(),
    })
    .context("cannot set up the sandbox")?;
    let traces = Traces::start(&config.traces).unwrap_or_else(|error| {
        tracing::warn!("{error}: the runner goes on without traces");
        None
    });
    let assembled = assemble(config, &queue, guests, traces);
    let Assembled { registry, dispatcher, .. } = &assembled;
    let to_dispatcher = Arc::clone(dispatcher);
    let changed = move || to_dispatcher.registry_changed();
    let mut reload = Reload::new(Arc::clone(config), sandbox.clone(), queue.state(), Arc::clone(registry), changed);
    admin.serve(admin::Runner {
        sandbox: Some(sandbox.clone()),
        loads: Some(reload.tally()),
        ..assembled.runner(config, &queue, signals)
    });
    let drain = signals.drain.child_token();
    dispatcher.expect_handlers(true);
    let ended = tokio::select! {
        biased;
        // A handler's jobs run as soon as it is loaded, whatever the others take; and who wants to stop waits for none.
        ended = dispatcher.run(&drain, &signals.stop, config.drain_timeout, until_empty) => ended,
        () = reload.follow(|| assembled.ready(config)) => unreachable!("it follows as long as it is polled"),
        () = assembled.count_minutes(config) => unreachable!("minutes go on"),
        () = drain_when_swap_appears(&sandbox, &drain) => unreachable!("it waits on when it has drained"),
    };
    reload.note_standings().await;
    // With the last that hold them the handlers go, and what waits for jobs is torn down.
    registry.store(Arc::default());
    drop(reload);
    tokio::select! {
        biased;
        () = sandbox.torn_down() => {}
        () = given_up(&SystemClock, &signals.stop, config.drain_timeout) => {
            tracing::warn!("instances take too long to be torn down: they are broken off");
            sandbox.stop_tearing_down();
            sandbox.torn_down().await;
        }
    }
    // Jobs could be enqueued until here.
    admin.retire().await;
    if let Some(traces) = &assembled.traces {
        traces.close(SPANS_PATIENCE.min(config.drain_timeout)).await;
    }
    let listed = if until_empty && ended.is_ok() { list_what_waits(queue.as_ref()).await } else { Ok(()) };
    tokio::select! {
        () = queue.close() => {}
        () = given_up(&SystemClock, &signals.stop, config.drain_timeout) => tracing::warn!(
            "the queue does not close: the next runner takes over what this one holds"
        ),
    }
    drop(life);
    ended?;
    listed?;
    if drain.is_cancelled() && !signals.drain.is_cancelled() {
        return Ok(End::SwapAppeared);
    }
    tracing::info!("stopped");
    Ok(End::Done)
}

/// What works jobs, and what hears of it.
struct Assembled {
    registry: Arc<ArcSwap<Registry>>,
    dispatcher: Arc<Dispatcher>,
    loaded: Arc<AtomicBool>,
    events: Arc<Events>,
    activity: Arc<Activity>,
    sampler: Arc<Sampler>,
    metrics: Arc<Metrics>,
    traces: Option<Arc<Traces>>,
}

fn assemble(
    config: &Config,
    queue: &Arc<dyn Queue>,
    guests: &tokio::runtime::Handle,
    traces: Option<Arc<Traces>>,
) -> Assembled {
    let registry = Arc::new(ArcSwap::from_pointee(Registry::default()));
    let metrics = Arc::new(Metrics::new(Arc::clone(&registry), guests.metrics().num_workers()));
    let events = Events::new();
    let activity = Arc::new(Activity::new(SystemClock.now()));
    let dispatcher = Dispatcher::new(Parts {
        queue: Arc::clone(queue),
        registry: Arc::clone(&registry),
        slots: config.slots,
        clock: Arc::new(SystemClock),
        jitter: Box::new(random_jitter),
        guests: Box::new(guests.clone()),
        keep_logs: config.queue.keep_logs,
        observers: vec![
            Arc::clone(&events) as Arc<dyn Observer>,
            Arc::clone(&activity) as _,
            Arc::clone(&metrics) as _,
        ],
        traces: traces.clone(),
    });
    let sampler = Arc::new(Sampler::new(Arc::clone(queue)));
    Assembled { registry, dispatcher, loaded: Arc::default(), events, activity, sampler, metrics, traces }
}

/// Opens the queue. Kafka that cannot be reached is waited for, unless a signal comes: none then.
async fn open(config: &Config, signals: &Signals) -> Result<Option<Arc<dyn Queue>>> {
    /// Between two tries, each of which takes its time already where it can pass.
    const TRY_AGAIN: Duration = Duration::from_secs(1);
    let waitable = matches!(config.queue.place, Place::Kafka(_));
    let mut waits = false;
    loop {
        let opened = tokio::select! {
            opened = queue::open(config) => opened,
            () = signals.drain.cancelled() => return Ok(None),
        };
        match opened {
            Ok(queue) => {
                if waits {
                    tracing::info!("the queue is there now");
                }
                return Ok(Some(queue));
            }
            Err(error) if !error.transient || !waitable => return Err(error.into()),
            Err(error) if !std::mem::replace(&mut waits, true) => tracing::warn!("{error}: the runner waits for it"),
            Err(error) => tracing::debug!("still: {error}"),
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

/// Works no jobs: they can be enqueued and looked at.
async fn look_on(
    config: &Arc<Config>,
    signals: &Signals,
    admin: &admin::Server,
    guests: &tokio::runtime::Handle,
    until_empty: bool,
) -> Result<()> {
    tracing::info!("`enabled` is false: jobs can be enqueued and looked at, none is worked");
    if until_empty {
        return Ok(());
    }
    let Some(queue) = open(config, signals).await? else { return Ok(()) };
    let assembled = assemble(config, &queue, guests, None);
    assembled.loaded.store(true, Ordering::Release);
    admin.serve(assembled.runner(config, &queue, signals));
    supervisor::ready("`enabled` is false: jobs can be enqueued and looked at, none is worked");
    let life = AbortOnDropHandle::new(tokio::spawn(supervisor::show_life(Arc::downgrade(&queue))));
    signals.drain.cancelled().await;
    admin.retire().await;
    queue.close().await;
    drop(life);
    Ok(())
}

/// Drains when memory can be swapped out under a sandbox that was set up for a machine where it cannot.
async fn drain_when_swap_appears(sandbox: &Sandbox, drain: &CancellationToken) {
    /// As often as the handlers' folder is looked at.
    const LOOK_AGAIN: Duration = Duration::from_secs(10);
    while !sandbox.swap_appeared() {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    drain.cancel();
    std::future::pending::<()>().await;
}

/// Says what `--until-empty` did not wait for.
async fn list_what_waits(queue: &dyn Queue) -> Result<()> {
    let stats = queue.stats().await?;
    for state in [State::Scheduled, State::Parked] {
        for count in stats.counts.iter().filter(|count| count.state == state) {
            let job_type = count.job_type.as_deref().unwrap_or("?");
            tracing::info!(job.type = %job_type, jobs = count.jobs, "jobs of type `{job_type}` that stay {}: {}", state.as_str(), count.jobs);
        }
    }
    Ok(())
}

/// A random number from -1 to 1, good enough to spread retries.
fn random_jitter() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    f64::from((random >> 32) as u32) / f64::from(u32::MAX) * 2.0 - 1.0
}

// === impl Assembled ===

impl Assembled {
    /// What the HTTP API reaches.
    fn runner(&self, config: &Arc<Config>, queue: &Arc<dyn Queue>, signals: &Signals) -> admin::Runner {
        admin::Runner {
            config: Arc::clone(config),
            queue: Arc::clone(queue),
            registry: Arc::clone(&self.registry),
            dispatcher: Arc::clone(&self.dispatcher),
            drain: signals.drain.clone(),
            loaded: Arc::clone(&self.loaded),
            sampler: Arc::clone(&self.sampler),
            events: Arc::clone(&self.events),
            activity: Arc::clone(&self.activity),
            metrics: Arc::clone(&self.metrics),
            traces: self.traces.clone(),
            sandbox: None,
            loads: None,
            started: Instant::now(),
            handlers: Arc::new(Overview::new(config)),
            room: admin::Room::default(),
        }
    }

    /// Keeps the minutes of what is done apart, and looks once in each how much waits. A Kafka queue would have to read its
    /// topics for that: there it is known only while somebody looks.
    async fn count_minutes(&self, config: &Config) {
        loop {
            tokio::time::sleep(activity::until_next_minute(SystemClock.now())).await;
            self.activity.tick(SystemClock.now());
            if !matches!(config.queue.place, Place::Kafka(_))
                && let Ok(sample) = self.sampler.sample().await
            {
                self.activity.sampled(&sample.stats, SystemClock.now());
            }
        }
    }

    /// All handlers are loaded that lay there at the start.
    fn ready(&self, config: &Config) {
        self.dispatcher.expect_handlers(false);
        self.loaded.store(true, Ordering::Release);
        let (handlers, queue) = (config.handlers.dir.display(), &config.queue.url);
        let ready = format!("ready: handlers from `{handlers}`, jobs from `{queue}`, {} slots", config.slots);
        tracing::info!("{ready}");
        supervisor::ready(&ready);
    }
}

/// The first SIGTERM or SIGINT drains, the second stops at once.
struct Signals {
    drain: CancellationToken,
    stop: CancellationToken,
}

// === impl Signals ===

impl Signals {
    fn listen() -> Result<Signals> {
        let signals = Signals { drain: CancellationToken::new(), stop: CancellationToken::new() };
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        // Unheard, a file that grows over the process's limit would end it. Heard, that is an error of the write.
        let too_large = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
        drop(signal(too_large).context("cannot listen for SIGXFSZ")?);
        let (drain, stop) = (signals.drain.clone(), signals.stop.clone());
        tokio::spawn(async move {
            for token in [drain, stop] {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                tracing::info!("signal received");
                token.cancel();
            }
        });
        Ok(signals)
    }
}
