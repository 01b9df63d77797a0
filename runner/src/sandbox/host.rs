//! What a guest may call: the contract's `log` and `queue`, and a WASI in which there is nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio_util::bytes::Bytes;
use wasmtime::component::{HasSelf, Linker, ResourceTable};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_config::WasiConfig;
use wasmtime_wasi_http::{WasiHttpCtxView, WasiHttpView};

use super::denials::Denials;
use super::granted::Granted;
use super::http::Http;
use super::keyvalue::{self, HandlerState};
use super::limits::Meter;
use super::lines::Lines;
use super::sockets::{self, Sockets};
use super::{GuestLog, Level, Source};
use crate::follow_up::FollowUps;
use crate::grants::Grants;
use crate::job::Job;
use crate::limits::Limits;
use crate::queue::AttemptLines;
use crate::state::{Changes, Draft};

pub(super) mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "job-handler-full",
        imports: { default: trappable },
        exports: { default: async },
        ownership: Borrowing { duplicate_if_necessary: false },
    });
}

pub(super) use self::bindings::exports::sandhog::jobs::{context, failure_hook, handler};
use self::bindings::sandhog::jobs::{log, queue, types};

/// How much of stdout or stderr a guest may write at once. It may all be line ends, and nobody can interrupt their being
/// logged.
const STREAM_BYTES: usize = 4 << 10;

/// The host's side of an instance. What counts for one job begins anew with each.
pub(super) struct Host {
    pub(super) meter: Meter,
    /// When what runs now is interrupted.
    pub(super) deadline: Instant,
    pub(super) limits: Limits,
    /// What it works, or worked last; none while it is set up or torn down.
    pub(super) job: Option<Arc<Job>>,
    log: Arc<dyn GuestLog>,
    granted: Arc<Granted>,
    calls: u64,
    /// What the guest asked to be enqueued.
    pub(super) follow_ups: FollowUps,
    /// Where the handler's state is, if it has any; and what this job sees of it, made with its first question.
    kept: Option<HandlerState>,
    state: Option<Box<Draft>>,
    /// Made with the first line, as most attempts write none.
    lines: Option<Arc<Mutex<Lines>>>,
    /// Made with the first use, as most guests use none.
    wasi: Option<Box<Wasi>>,
    /// The same.
    http: Option<Box<Http>>,
}

/// A limit of ours, by its name, that a guest ran into in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("over the limit `{0}`")]
pub(super) struct Exceeded(pub(super) &'static str);

struct Wasi {
    ctx: WasiCtx,
    table: ResourceTable,
    sockets: Sockets,
    denials: Arc<Denials>,
}

/// A guest's stdout or stderr.
#[derive(Clone)]
struct Stream {
    source: Source,
    lines: Arc<Mutex<Lines>>,
}

/// Everything that any guest may import.
pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    keyvalue::link(linker)?;
    sockets::link(linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
    wasmtime_wasi_config::add_to_linker(linker, |host| WasiConfig::from(&*host.granted.config))?;
    bindings::JobHandlerFull::add_to_linker::<Host, HasSelf<Host>>(linker, |host| host)
}

/// Whether an import is among what is linked, by its name.
pub(super) fn is_linked(import: &str) -> bool {
    let Some((interface, version)) = import.split_once('@') else { return false };
    match interface.split_once('/') {
        Some(("sandhog:jobs", name)) => matches!(name, "types" | "log" | "queue") && version.starts_with("1."),
        Some(("wasi:cli" | "wasi:io" | "wasi:clocks" | "wasi:filesystem" | "wasi:random" | "wasi:sockets", _)) => {
            version.starts_with("0.2.")
        }
        Some(("wasi:keyvalue", "store" | "atomics")) => matches!(version, "0.2.0-draft" | "0.2.0-draft2"),
        Some(("wasi:http", "types" | "outgoing-handler")) => version.starts_with("0.2."),
        Some(("wasi:config", "store")) => version == "0.2.0-rc.1",
        _ => false,
    }
}

/// Which imports the handler's grants do not cover, and the lines of a manifest that would grant them. What language runtimes
/// import whether they use it or not is none of these: it denies when it is used.
pub(super) fn not_granted(imports: &[String], grants: &Grants) -> (Vec<String>, Vec<&'static str>) {
    let (mut names, mut lines) = (Vec::new(), Vec::new());
    for import in imports {
        let (granted, line) = match import.split('/').next() {
            Some("wasi:http") => (!grants.http.is_empty(), r#"http = ["https://HOST"]"#),
            Some("wasi:config") => (!grants.config.is_empty(), r#"config = { NAME = "VALUE" }"#),
            Some("wasi:keyvalue") => (grants.state, "state = true"),
            _ => continue,
        };
        if !granted {
            names.push(import.clone());
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    (names, lines)
}

// === impl Host ===

impl Host {
    pub(super) fn new(
        job: Option<Arc<Job>>,
        log: Arc<dyn GuestLog>,
        limits: &Limits,
        granted: Arc<Granted>,
        spare_bytes: u64,
        deadline: Instant,
    ) -> Host {
        let meter = Meter::new(limits, spare_bytes);
        Host {
            meter,
            deadline,
            limits: limits.clone(),
            job,
            log,
            granted,
            calls: 0,
            follow_ups: FollowUps::default(),
            kept: None,
            state: None,
            lines: None,
            wasi: None,
            http: None,
        }
    }

    /// Another job begins in the same instance, or what is none.
    pub(super) fn begin(&mut self, job: Option<Arc<Job>>, deadline: Instant) {
        self.meter.begin();
        (self.job, self.deadline, self.calls) = (job, deadline, 0);
        self.follow_ups = FollowUps::default();
        self.state = None;
        self.http = None;
        if let Some(wasi) = &mut self.wasi {
            wasi.denials.begin();
            wasi.sockets.begin();
        }
        // The guest may hold a stream that writes to them, so that they stay where they are.
        if let Some(lines) = &self.lines {
            *lock(lines) = self.new_lines();
        }
    }

    /// Ends what the guest said, and answers its last words, if it said any.
    pub(super) fn finish(&mut self) -> Option<String> {
        let mut lines = lock(self.lines.as_ref()?);
        lines.finish();
        lines.last_words()
    }

    /// What the guest said at last in this attempt, if it said anything.
    pub(super) fn take_lines(&mut self, attempt: u32) -> Option<Box<AttemptLines>> {
        lock(self.lines.as_ref()?).take_kept(attempt)
    }

    /// Lets it have its handler's state.
    pub(super) fn keep(&mut self, kept: HandlerState) {
        self.kept = Some(kept);
    }

    /// What is seen of the handler's state; none if it has none, or works no job.
    pub(super) fn state(&mut self) -> Option<&mut Draft> {
        self.job.as_ref()?;
        if self.state.is_none() {
            let HandlerState { store, handler, quota } = self.kept.as_ref()?;
            self.state = Some(Box::new(Draft::new(&**store, Arc::clone(handler), *quota)));
        }
        self.state.as_deref_mut()
    }

    /// What the guest changed of its handler's state. What it saw of it is let go.
    pub(super) fn take_state(&mut self) -> Option<Box<Changes>> {
        self.state.take().and_then(|draft| draft.into_changes()).map(Box::new)
    }

    /// How often it reached for what was not granted.
    pub(super) fn denied(&self) -> u32 {
        self.wasi.as_ref().map_or(0, |wasi| wasi.denials.count())
    }

    /// What the attempt knows of the network, and where it is said what it may not.
    pub(super) fn sockets_of_attempt(&mut self) -> (&mut Sockets, Arc<Denials>) {
        let wasi = self.wasi();
        (&mut wasi.sockets, Arc::clone(&wasi.denials))
    }

    fn wasi(&mut self) -> &mut Wasi {
        if self.wasi.is_none() {
            let lines = Arc::clone(self.lines());
            self.wasi = Some(Box::new(Wasi::new(lines, &self.limits, &self.granted)));
        }
        self.wasi.as_deref_mut().expect("it was made above")
    }

    /// Says something of ours among the guest's lines.
    pub(super) fn remark(&mut self, remark: &str) {
        lock(self.lines()).remark(Source::Log, remark);
    }

    fn lines(&mut self) -> &Arc<Mutex<Lines>> {
        if self.lines.is_none() {
            self.lines = Some(Arc::new(Mutex::new(self.new_lines())));
        }
        self.lines.as_ref().expect("they were made above")
    }

    fn new_lines(&self) -> Lines {
        let begun = self.deadline.checked_sub(self.limits.timeout).unwrap_or(self.deadline);
        Lines::new(self.job.clone(), Arc::clone(&self.log), begun, &self.limits)
    }

    pub(super) fn count_call(&mut self) -> wasmtime::Result<()> {
        self.calls += 1;
        if self.calls > self.limits.host_calls { Err(Exceeded("host-calls").into()) } else { Ok(()) }
    }
}

impl types::Host for Host {}

impl log::Host for Host {
    fn log(&mut self, level: log::Level, message: String) -> wasmtime::Result<()> {
        self.count_call()?;
        lock(self.lines()).message(level.into(), &message);
        Ok(())
    }
}

impl queue::Host for Host {
    fn enqueue(&mut self, job: String, options: Vec<(String, String)>) -> wasmtime::Result<Result<String, String>> {
        self.count_call()?;
        let Some(parent) = &self.job else {
            return Ok(Err("set-up and tear-down are part of no job, and cannot enqueue any".to_owned()));
        };
        let granted = |job_type: &str| self.granted.grants.enqueue.iter().any(|granted| granted == job_type);
        let asked = self.follow_ups.ask(parent, job, options, granted, &self.limits);
        Ok(asked.map_err(|refused| refused.to_string()))
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let Wasi { ctx, table, .. } = self.wasi();
        WasiCtxView { ctx, table }
    }
}

impl WasiHttpView for Host {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        if self.http.is_none() {
            let denials = Arc::clone(&self.wasi().denials);
            self.http = Some(Box::new(Http::new(&self.granted, &denials, &self.limits, self.job.as_deref())));
        }
        let wasi = self.wasi.as_deref_mut().expect("it was made above");
        self.http.as_deref_mut().expect("it was made above").view(&mut wasi.table)
    }
}

// === impl Wasi ===

impl Wasi {
    /// The time, random numbers, stdout and stderr, and what is granted. Else no files, no environment, no network, nothing to
    /// read.
    fn new(lines: Arc<Mutex<Lines>>, limits: &Limits, granted: &Granted) -> Wasi {
        let mut builder = WasiCtx::builder();
        for (name, value) in &granted.grants.env {
            builder.env(name, value.expose());
        }
        let denials = Denials::new(Arc::clone(&lines));
        let sockets = Sockets::new(&granted.grants, &denials, &mut builder);
        let mut ctx = builder
            .stdout(Stream { source: Source::Stdout, lines: Arc::clone(&lines) })
            .stderr(Stream { source: Source::Stderr, lines })
            .max_random_size(limits.host_call_bytes)
            .build();
        ctx.filesystem().clone_from(&granted.filesystem);
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles as usize);
        Wasi { ctx, table, sockets, denials }
    }
}

// === impl Stream ===

impl IsTerminal for Stream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stream {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        // WASI 0.3 only, which is not linked.
        Box::new(tokio::io::empty())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for Stream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        lock(&self.lines).write(self.source, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(STREAM_BYTES)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Stream {
    async fn ready(&mut self) {}
}

// === impl Level ===

impl From<log::Level> for Level {
    fn from(level: log::Level) -> Level {
        match level {
            log::Level::Trace => Level::Trace,
            log::Level::Debug => Level::Debug,
            log::Level::Info => Level::Info,
            log::Level::Warn => Level::Warn,
            log::Level::Error => Level::Error,
        }
    }
}

/// Lines are whole after every call, so a panic in between (of whoever takes them) does no harm.
fn lock(lines: &Arc<Mutex<Lines>>) -> MutexGuard<'_, Lines> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}
