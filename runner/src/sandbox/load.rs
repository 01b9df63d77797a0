//! From a file's bytes to a component that attempts can be made of, with everything that can be wrong found out here and
//! not when a job runs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use super::compiled::{Code, Compiled};
use super::engine::{self, MEMORIES_MAX, TABLES_MAX};
use super::file::{self, Names};
use super::granted::Granted;
use super::host;
use super::network::Network;
use super::pools::{Pool, Pooled};
use super::quiet::{self, Rewritten};
use super::refusal::LoadError;
use super::shelf::Endings;
use super::{Config, Occupancy, SandboxError, encode, instance, trap};
use crate::generation::hex;
use crate::grants::Grants;
use crate::limits::Limits;

/// How far a memory is grown before a guest asks for it.
const SPARE_PAGES: u32 = 16;
/// The same where all that stays resident is cleared after an attempt, not only what was written: then each page costs.
const SPARE_PAGES_CLEARED: u32 = 4;
pub(super) const PAGE_BYTES: u64 = 64 << 10;

pub(super) const CONTRACT: &str = "sandhog:jobs";
pub(super) const VERSION: &str = "1.0.0";
pub(super) const HANDLER: &str = "sandhog:jobs/handler@1.0.0";
pub(super) const CONTEXT: &str = "sandhog:jobs/context@1.0.0";
pub(super) const FAILURE_HOOK: &str = "sandhog:jobs/failure-hook@1.0.0";

/// How far a memory is grown before a guest asks for it, by whether the kernel is asked which pages were written.
pub(super) fn spare_pages(scans_pages: bool) -> u32 {
    if scans_pages { SPARE_PAGES } else { SPARE_PAGES_CLEARED }
}

/// What is known of a file.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Facts {
    /// What the file is; none if it is no WebAssembly.
    pub kind: Option<FileKind>,
    /// Its size in bytes.
    pub file_bytes: usize,
    /// The language it was written in, by its own account.
    pub language: Option<String>,
    /// What the component imports, by name.
    pub imports: Vec<String>,
    /// What the component exports, by name.
    pub exports: Vec<String>,
    /// Whether an attempt can do without changes to page tables; none before that was tried.
    pub quiet: Option<Quiet>,
    /// The size of the compiled code in bytes.
    pub code_bytes: usize,
    /// How long compiling took, now or when the compiled code was kept.
    #[serde(rename = "compile_ms", serialize_with = "as_millis")]
    pub compile_time: Duration,
    /// Whether the compiled code was there already.
    pub from_cache: bool,
    /// How many memories it has, where that is known without starting it.
    pub memories: Option<u32>,
    /// The size of its largest memory at the start, in bytes, with the spare pages that made it quiet.
    pub memory_initial_bytes: Option<u64>,
    /// How many tables it has.
    pub tables: Option<u32>,
    /// The size of its largest table at the start, in elements.
    pub table_initial_elements: Option<u64>,
}

impl Facts {
    /// Whether it exports this interface of the contract.
    pub fn exports_contract(&self, interface: &str) -> bool {
        exported(&self.exports, interface).is_some()
    }
}

/// What a file of WebAssembly is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    /// A component.
    Component,
    /// A core module, of which a component is made if it carries its type.
    CoreModule,
}

/// Whether an attempt changes page tables, which costs most of the time of a short job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Quiet {
    /// It was rewritten so that it does not.
    Made {
        /// How many core modules in it were rewritten.
        modules: usize,
    },
    /// It is as it was found.
    Unchanged {
        /// Why: there was nothing to do, or it cannot be done.
        reason: String,
    },
}

/// What could be found out about a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// What is known of it.
    pub facts: Facts,
    /// Why it does not load; none if it does.
    pub error: Option<LoadError>,
}

/// What of the contract a component exports beside `handler`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exports {
    pub(super) context: bool,
    pub(super) failure_hook: bool,
}

/// Makes components.
pub(super) struct Loader {
    pools: Vec<Arc<Pool>>,
    pooled: bool,
    compiled: Option<Compiled>,
    timers: tokio::runtime::Handle,
    network: Mutex<Weak<Network>>,
    guests: tokio::runtime::Handle,
    endings: Arc<Endings>,
    scans_pages: bool,
    spare_pages: u32,
}

/// A component, ready for attempts.
pub(super) struct Prepared {
    /// The component in each pool.
    pub(super) pooled: Vec<Pooled>,
    pub(super) exports: Exports,
    pub(super) timers: tokio::runtime::Handle,
    pub(super) guests: tokio::runtime::Handle,
    pub(super) endings: Arc<Endings>,
    /// The runtime that a guest's own waiting is on: none if it never waits in a call to the host. It is spared then what all
    /// threads would write at each attempt, the count of those who entered it.
    pub(super) waits: Option<tokio::runtime::Handle>,
    /// The thread that is behind it, as long as there is a component that may use the network.
    _network: Option<Arc<Network>>,
    /// What was added to its memories, which does not count against its limit.
    pub(super) spare_bytes: u64,
    pub(super) facts: Facts,
}

// === impl Loader ===

impl Loader {
    pub(super) fn new(config: Config, may_scan: bool) -> Result<Loader, SandboxError> {
        let built = engine::build(&config, u64::from(SPARE_PAGES) * PAGE_BYTES, may_scan)?;
        engine::start_ticker(&built.engines)?;
        let spare_pages = spare_pages(built.scans_pages);
        let compiled = config.compiled_dir.and_then(|dir| Compiled::open(&dir, &built.engines[0], spare_pages));
        let pools =
            built.engines.into_iter().map(|engine| Pool::new(engine, built.places)).collect::<Result<_, _>>()?;
        Ok(Loader {
            pools,
            pooled: built.pooled,
            compiled,
            timers: config.timers,
            network: Mutex::default(),
            guests: config.guests,
            endings: Arc::default(),
            scans_pages: built.scans_pages,
            spare_pages,
        })
    }

    pub(super) fn swap_appeared(&self) -> bool {
        self.scans_pages && engine::swap_is_listed()
    }

    pub(super) fn occupancy(&self) -> Occupancy {
        let mut occupancy = Occupancy { busy: 0, waiting: 0, size: 0 };
        for pool in &self.pools {
            let (busy, waiting, places) = pool.occupancy();
            occupancy.busy += busy;
            occupancy.waiting += waiting;
            occupancy.size += if self.pooled { places } else { 0 };
        }
        occupancy
    }

    pub(super) fn endings(&self) -> &Endings {
        &self.endings
    }

    /// Everything from a file's bytes to a component that started once. `facts` has what was found out, even where it fails.
    pub(super) fn load(
        &self,
        bytes: &[u8],
        limits: &Limits,
        grants: &Grants,
        facts: &mut Facts,
    ) -> Result<Prepared, LoadError> {
        // Parsers and compilers meet bytes here that nobody has seen before: should one of them give up, only the file is
        // lost.
        catch_unwind(AssertUnwindSafe(|| self.prepare(bytes, limits, grants, facts)))
            .unwrap_or_else(|_| Err(LoadError::Invalid { reason: "the compiler broke down over it".to_owned() }))
    }

    fn prepare(
        &self,
        bytes: &[u8],
        limits: &Limits,
        grants: &Grants,
        facts: &mut Facts,
    ) -> Result<Prepared, LoadError> {
        facts.file_bytes = bytes.len();
        let kind = file::kind(bytes)?;
        facts.kind = Some(kind);
        file::validate(bytes)?;
        let mut names = file::names(bytes)?;
        facts.language = names.language.clone();
        let encoded = match kind {
            FileKind::Component => None,
            FileKind::CoreModule => Some(encode::component(bytes, &names)?),
        };
        if let Some(encoded) = &encoded {
            names = file::names(encoded)?;
        }
        facts.imports.clone_from(&names.imports);
        facts.exports.clone_from(&names.exports);
        let exports = check_names(&names, grants)?;
        let granted = Granted::open(grants, limits)?;

        let components = self.compile(bytes, encoded.as_deref().unwrap_or(bytes), facts)?;
        let spare_bytes = match &facts.quiet {
            Some(Quiet::Made { modules }) => u64::from(self.spare_pages) * PAGE_BYTES * *modules as u64,
            Some(Quiet::Unchanged { .. }) | None => 0,
        };
        check_resources(&components[0], limits, spare_bytes, facts)?;
        let prepare = |(pool, component): (&Arc<Pool>, &_)| pool.prepare(component, exports, &granted);
        let pooled = self.pools.iter().zip(&components).map(prepare);
        let pooled = pooled.collect::<Result<_, _>>()?;
        let (timers, guests, endings) = (self.timers.clone(), self.guests.clone(), Arc::clone(&self.endings));
        let network = self.network_for(&names, grants)?;
        let waits = match &network {
            Some(network) => Some(network.handle().clone()),
            None => imports(&names, "wasi:clocks/").then(|| timers.clone()),
        };
        let facts = facts.clone();
        let prepared =
            Prepared { pooled, exports, timers, guests, endings, waits, _network: network, spare_bytes, facts };
        instance::start_once(&prepared, limits)?;
        Ok(prepared)
    }

    /// The thread for connections, if the component may have any: one for all that are there at a time.
    fn network_for(&self, names: &Names, grants: &Grants) -> Result<Option<Arc<Network>>, LoadError> {
        let requests = !grants.http.is_empty() && imports(names, "wasi:http/");
        if !requests && (grants.tcp.is_empty() || !imports(names, "wasi:sockets/")) {
            return Ok(None);
        }
        let mut network = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(network) = network.upgrade() {
            return Ok(Some(network));
        }
        let started = Network::start().map_err(|error| LoadError::Network { reason: error.to_string() })?;
        let started = Arc::new(started);
        *network = Arc::downgrade(&started);
        Ok(Some(started))
    }

    /// Compiles, or takes what is in the cache; answers the component for each pool. `file` is as it was found, `component`
    /// as it was encoded.
    fn compile(&self, file: &[u8], component: &[u8], facts: &mut Facts) -> Result<Vec<Component>, LoadError> {
        let digest = hex(&Sha256::digest(file));
        if let Some((components, note, code_bytes)) =
            self.compiled.as_ref().and_then(|dir| dir.load(self.engines(), &digest))
        {
            facts.from_cache = true;
            facts.quiet = Some(note.quiet);
            facts.compile_time = note.compile_time;
            facts.code_bytes = code_bytes;
            return Ok(components);
        }
        let started = Instant::now();
        let (compiled, quiet) = self.compile_quiet(component)?;
        facts.compile_time = started.elapsed();
        let fault = |error: wasmtime::Error| LoadError::Start { failure: trap::host_fault(&error) };
        let mut code = Code::of(&compiled).map_err(fault)?;
        facts.code_bytes = code.len();
        if let Some(dir) = &self.compiled {
            dir.store(&digest, &mut code, &quiet, facts.compile_time);
        }
        facts.quiet = Some(quiet);
        let others = self.engines().skip(1).map(|engine| code.load(engine).map_err(fault));
        std::iter::once(Ok(compiled)).chain(others).collect()
    }

    fn engines(&self) -> impl Iterator<Item = &Engine> {
        self.pools.iter().map(|pool| &pool.engine)
    }

    /// Compiles the component as it was rewritten, or, should that not work, as it was.
    fn compile_quiet(&self, component: &[u8]) -> Result<(Component, Quiet), LoadError> {
        let (engine, spare_pages) = (&self.pools[0].engine, self.spare_pages);
        let rewritten = catch_unwind(|| quiet::rewrite(component, spare_pages))
            .unwrap_or_else(|_| Rewritten::Unchanged { reason: "rewriting it broke down".to_owned() });
        let quiet = match rewritten {
            Rewritten::Unchanged { reason } => Quiet::Unchanged { reason },
            Rewritten::Rewritten { bytes, modules } => match Component::from_binary(engine, &bytes) {
                Ok(compiled) => return Ok((compiled, Quiet::Made { modules })),
                Err(error) => Quiet::Unchanged { reason: format!("rewriting it went wrong: {error:#}") },
            },
        };
        let compiled = Component::from_binary(engine, component)
            .map_err(|error| LoadError::Invalid { reason: format!("{error:#}") })?;
        Ok((compiled, quiet))
    }
}

fn imports(names: &Names, package: &str) -> bool {
    names.imports.iter().any(|import| import.starts_with(package))
}

fn check_names(names: &Names, grants: &Grants) -> Result<Exports, LoadError> {
    let ours = |name: &&String| name.split('/').next() == Some(CONTRACT);
    let all = || names.imports.iter().chain(&names.exports);
    let other = |name: &&String| name.split_once('@').is_some_and(|(_, version)| !version.starts_with("1."));
    if let Some(found) = all().filter(ours).find(other) {
        let version = found.split_once('@').map_or("", |(_, version)| version);
        return Err(LoadError::WorldVersion { found: format!("{CONTRACT}@{version}") });
    }
    let (ungranted, lines) = host::not_granted(&names.imports, grants);
    if !ungranted.is_empty() {
        return Err(LoadError::NotGranted { names: ungranted, lines });
    }
    let missing: Vec<String> = names.imports.iter().filter(|name| !host::is_linked(name)).cloned().collect();
    if !missing.is_empty() {
        return Err(LoadError::Imports { names: missing });
    }
    let exports = |interface: &str| exported(&names.exports, interface);
    if exports("handler").is_none() {
        return Err(LoadError::NoHandler { found: names.exports.clone() });
    }
    Ok(Exports { context: exports("context").is_some(), failure_hook: exports("failure-hook").is_some() })
}

/// The interface of the contract among the exports.
fn exported<'a>(exports: &'a [String], interface: &str) -> Option<&'a String> {
    let named = |name: &&String| {
        let rest = name.strip_prefix(CONTRACT).and_then(|name| name.strip_prefix('/'));
        rest.and_then(|name| name.split_once('@')).is_some_and(|(name, _)| name == interface)
    };
    exports.iter().find(named)
}

fn check_resources(
    component: &Component,
    limits: &Limits,
    spare_bytes: u64,
    facts: &mut Facts,
) -> Result<(), LoadError> {
    let Some(needs) = component.resources_required() else { return Ok(()) };
    let memory_bytes = needs.max_initial_memory_size.map(|pages| pages.saturating_mul(PAGE_BYTES));
    facts.memories = Some(needs.num_memories);
    facts.memory_initial_bytes = memory_bytes;
    facts.tables = Some(needs.num_tables);
    facts.table_initial_elements = needs.max_initial_table_size;
    let memory_bytes = memory_bytes.unwrap_or(0).saturating_sub(spare_bytes);
    for (what, wanted, limit) in [
        ("memories", u64::from(needs.num_memories), u64::from(MEMORIES_MAX)),
        ("tables", u64::from(needs.num_tables), u64::from(TABLES_MAX)),
        ("bytes of memory", memory_bytes, limits.memory_bytes),
        ("table elements", needs.max_initial_table_size.unwrap_or(0), limits.table_elements),
    ] {
        if wanted > limit {
            return Err(LoadError::TooBig { what, wanted, limit });
        }
    }
    Ok(())
}

fn as_millis<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}
