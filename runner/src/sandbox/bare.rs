//! An attempt with nothing around it: what the engine itself takes, to measure the sandbox against.
//!
//! The same component after the same rewrite, in a tuned engine of its own: a pool, copy-on-write images, pre-linked
//! instances, slots that stay resident, the page-map scan where it is safe. No deadline, no signal to stop, no outcome, no
//! log, no catching of panics. It shares with the sandbox what is not the thing measured: how a file becomes a component, the
//! pool's numbers, and the generated code that passes a job.

use wasmtime::component::{Component, HasSelf, InstancePre, Linker, ResourceTable};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, Store, StoreLimits, StoreLimitsBuilder};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::host::bindings::{JobHandlerFull, sandhog::jobs};
use super::host::handler;
use super::load::{FileKind, PAGE_BYTES, spare_pages};
use super::quiet::{self, Rewritten};
use super::refusal::LoadError;
use super::{encode, engine, file};
use crate::job::Job;

/// A limit that no guest reaches: asking for it is what an attempt pays.
const MEMORY_BYTES_MAX: usize = 4 << 30;

/// Ticks that nobody counts here: the check for them is what an attempt pays.
const TICKS: u64 = 200;

/// A component, and the engine that it was compiled for.
pub(crate) struct Bare {
    pre: InstancePre<State>,
    handler: handler::GuestIndices,
}

/// An instance of it, with its store.
pub(crate) struct BareInstance {
    store: Store<State>,
    guest: handler::Guest,
}

/// What went wrong, for people.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BareError(String);

/// What a store has: a limit on memory, and a WASI for the guest that asks for one.
struct State {
    limits: StoreLimits,
    wasi: Option<Box<(WasiCtx, ResourceTable)>>,
}

// === impl Bare ===

impl Bare {
    /// Compiles a file, for `slots` attempts at a time with memories of up to `memory_bytes`. Without `scan` the kernel is
    /// never asked which pages were written.
    ///
    /// # Errors
    ///
    /// What is wrong with the file or the engine.
    pub(crate) fn new(file: &[u8], slots: u32, memory_bytes: u64, scan: bool) -> Result<Bare, BareError> {
        let scans_pages = scan && engine::page_map_scan_is_safe();
        let spare_pages = spare_pages(scans_pages);
        let pool = engine::pool(slots, memory_bytes, u64::from(spare_pages) * PAGE_BYTES, scans_pages);
        let mut config = Config::new();
        config
            .concurrency_support(false)
            .epoch_interruption(true)
            .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        let engine = Engine::new(&config)?;

        let encoded = match file::kind(file)? {
            FileKind::Component => None,
            FileKind::CoreModule => Some(encode::component(file, &file::names(file)?)?),
        };
        let component = encoded.as_deref().unwrap_or(file);
        let component = match quiet::rewrite(component, spare_pages) {
            Rewritten::Rewritten { bytes, .. } => Component::from_binary(&engine, &bytes)?,
            Rewritten::Unchanged { .. } => Component::from_binary(&engine, component)?,
        };
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        JobHandlerFull::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
        let pre = linker.instantiate_pre(&component)?;
        let handler = handler::GuestIndices::new(&pre)?;
        component.initialize_copy_on_write_image()?;
        Ok(Bare { pre, handler })
    }

    /// One attempt, in a fresh instance.
    ///
    /// # Errors
    ///
    /// That it did not complete.
    pub(crate) async fn attempt(&self, job: &Job) -> Result<(), BareError> {
        self.instance().await?.attempt(job).await
    }

    /// An instance.
    ///
    /// # Errors
    ///
    /// That none could be made.
    pub(crate) async fn instance(&self) -> Result<BareInstance, BareError> {
        let limits = StoreLimitsBuilder::new().memory_size(MEMORY_BYTES_MAX).build();
        let mut store = Store::new(self.pre.engine(), State { limits, wasi: None });
        store.limiter(|state| &mut state.limits);
        store.set_epoch_deadline(TICKS);
        store.epoch_deadline_async_yield_and_update(TICKS);
        let instance = self.pre.instantiate_async(&mut store).await?;
        let guest = self.handler.load(&mut store, &instance)?;
        Ok(BareInstance { store, guest })
    }
}

// === impl BareInstance ===

impl BareInstance {
    /// One attempt, after others in the same instance.
    ///
    /// # Errors
    ///
    /// That it did not complete.
    pub(crate) async fn attempt(&mut self, job: &Job) -> Result<(), BareError> {
        // The guest is to have the same work as in a runner.
        let metadata: Vec<_> = job.metadata.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let job = handler::Job {
            id: &job.id,
            job_type: &job.job_type,
            body: &job.body,
            attempt: 1,
            failures: 0,
            max_failures: 1,
            enqueued_at_ms: 0,
            timeout_ms: 0,
            metadata: &metadata,
        };
        match self.guest.call_handle_job(&mut self.store, job).await? {
            Ok(handler::Outcome::Complete(_)) => Ok(()),
            Ok(_) => Err(BareError("it answered something else than complete".to_owned())),
            Err(message) => Err(BareError(format!("it failed: {message}"))),
        }
    }
}

// === impl State ===

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = self.wasi.get_or_insert_with(|| Box::new((WasiCtx::builder().build(), ResourceTable::new())));
        let (ctx, table) = &mut **wasi;
        WasiCtxView { ctx, table }
    }
}

impl jobs::types::Host for State {}

impl jobs::log::Host for State {
    fn log(&mut self, _: jobs::log::Level, _: String) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl jobs::queue::Host for State {
    fn enqueue(&mut self, _: String, _: Vec<(String, String)>) -> wasmtime::Result<Result<String, String>> {
        Ok(Err("nothing is granted".to_owned()))
    }
}

// === impl BareError ===

impl From<wasmtime::Error> for BareError {
    fn from(error: wasmtime::Error) -> BareError {
        BareError(format!("{error:#}"))
    }
}

impl From<LoadError> for BareError {
    fn from(error: LoadError) -> BareError {
        BareError(error.to_string())
    }
}
