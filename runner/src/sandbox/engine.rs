//! The engine: what is allowed at all, the pool that instances come from, and the clock that interrupts them.

use std::num::NonZeroUsize;
use std::time::Duration;

use wasmtime::{Enabled, Engine, EngineWeak, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::pools::{POOLS_MAX, places};
use super::{Config, SandboxError};

/// How often a running guest is looked at. A guest that runs for longer gives its thread back each time.
const TICK: Duration = Duration::from_millis(10);

/// Instances beyond the slots and those of components that are being loaded.
const SPARE_SLOTS: u32 = 4;

/// The most components that are loaded at one time, however many cores there are: each may take a file's memory several
/// times, and a compiler uses all cores anyway.
const LOADS_MAX: usize = 16;

/// The most memories that one component may have. Python has three.
pub(super) const MEMORIES_MAX: u32 = 4;
/// The most tables that one component may have. Python has three.
pub(super) const TABLES_MAX: u32 = 8;
/// The most core instances in one component: a language runtime that is linked from libraries has dozens.
const CORE_INSTANCES_MAX: u32 = 64;
/// The most elements of one table.
pub(super) const TABLE_ELEMENTS_MAX: u64 = 100_000;
/// The description of a large language runtime's instance is over a megabyte, which is the engine's own limit.
const INSTANCE_BYTES_MAX: usize = 16 << 20;

/// What is cleared by hand after an attempt and stays in memory, instead of being given back to the system: that would
/// change page tables, which does not scale over threads.
const MEMORY_RESIDENT_BYTES: usize = 2 << 20;
const TABLE_RESIDENT_BYTES: usize = 64 << 10;
const STACK_RESIDENT_BYTES: usize = 16 << 10;

const WASM_STACK_BYTES: usize = 512 << 10;
const FRAMES_MAX: NonZeroUsize = NonZeroUsize::new(20).expect("20 is not zero");

/// Engines that are alike, and how they were set up.
pub(super) struct Built {
    pub(super) engines: Vec<Engine>,
    /// Whether they have pools; else instances are made on demand.
    pub(super) pooled: bool,
    /// How many attempts each has room for.
    pub(super) places: u32,
    /// Whether the kernel is asked which pages a guest wrote. It does not tell of pages that were swapped out, so this is
    /// safe only without swap.
    pub(super) scans_pages: bool,
}

/// Sets the engines up, one for each thread that attempts run on. `spare_bytes` is what `quiet` adds to a memory beyond its
/// limit. The kernel is asked which pages were written where that is safe, and if `may_scan`.
pub(super) fn build(config: &Config, spare_bytes: u64, may_scan: bool) -> Result<Built, SandboxError> {
    let scans_pages = may_scan && page_map_scan_is_safe();
    let pools = config.threads.clamp(1, POOLS_MAX);
    // Should address space be short, one pool may still find room.
    let fewer = if pools > 1 { vec![pools, 1] } else { vec![1] };
    for pools in fewer {
        let places = places(config.slots, pools);
        let mut pooled = settings();
        // As many again wait for their next jobs, where instances are reused.
        let pool = pool(2 * places, config.memory_ceiling_bytes, spare_bytes, scans_pages);
        pooled.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        // Setting an engine up reserves its pool's address space: this is the probe.
        match (0..pools).map(|_| Engine::new(&pooled)).collect() {
            Ok(engines) => return Ok(Built { engines, pooled: true, places, scans_pages }),
            Err(error) => tracing::warn!(
                error = format!("{error:#}"),
                slots = config.slots,
                pools,
                "no room for a pool of sandboxes for each thread: there are fewer or none, which is slower"
            ),
        }
    }
    let mut on_demand = settings();
    on_demand.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    let engine = Engine::new(&on_demand).map_err(|e| SandboxError::Engine(format!("{e:#}")))?;
    Ok(Built { engines: vec![engine], pooled: false, places: config.slots, scans_pages: false })
}

/// Starts the thread that makes running guests look at the clock. It ends when the engines are gone.
pub(super) fn start_ticker(engines: &[Engine]) -> Result<(), SandboxError> {
    let engines: Vec<EngineWeak> = engines.iter().map(Engine::weak).collect();
    let thread = std::thread::Builder::new().name("sandbox-clock".to_owned()).spawn(move || tick(&engines));
    // The thread is not joined: it ends by itself.
    thread.map(drop).map_err(|e| SandboxError::Ticker(e.to_string()))
}

/// Whether the kernel can be asked which pages a guest wrote: it does not tell of those that were swapped out.
pub(crate) fn page_map_scan_is_safe() -> bool {
    PoolingAllocationConfig::is_pagemap_scan_available() && !swap_is_listed()
}

/// How many components are loaded at one time: one a core, and two at least, so that one guest whose start function spins
/// holds up no other.
pub fn loads_at_once() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    u32::try_from(cores.clamp(2, LOADS_MAX)).expect("it is small")
}

/// Whether this system may swap a page out. What cannot be found out is a yes.
pub(crate) fn swap_is_listed() -> bool {
    std::fs::read_to_string("/proc/swaps").map_or(true, |swaps| swaps.lines().count() > 1)
}

fn tick(engines: &[EngineWeak]) {
    while engines.iter().filter_map(EngineWeak::upgrade).map(|engine| engine.increment_epoch()).count() > 0 {
        // Nobody unparks this thread; should it wake early, a tick is short.
        std::thread::park_timeout(TICK);
    }
}

fn settings() -> wasmtime::Config {
    let mut config = wasmtime::Config::new();
    config
        // No guest is called concurrently; the machinery for it costs microseconds a call, and most advisories are in it.
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK_BYTES)
        .wasm_memory64(false)
        .relaxed_simd_deterministic(true)
        .wasm_backtrace_details(wasmtime::WasmBacktraceDetails::Enable)
        .wasm_backtrace_max_frames(Some(FRAMES_MAX))
        .native_unwind_info(false)
        .parallel_compilation(true);
    config
}

pub(super) fn pool(slots: u32, memory_bytes: u64, spare_bytes: u64, scans_pages: bool) -> PoolingAllocationConfig {
    let slots = slots.saturating_add(SPARE_SLOTS).saturating_add(loads_at_once());
    let memory_bytes = memory_bytes.saturating_add(spare_bytes).min(4 << 30);
    let memories = slots.saturating_mul(MEMORIES_MAX);
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(slots)
        .total_core_instances(slots.saturating_mul(CORE_INSTANCES_MAX))
        .total_memories(memories)
        .total_tables(slots.saturating_mul(TABLES_MAX))
        .total_stacks(slots)
        .max_memories_per_component(MEMORIES_MAX)
        .max_memories_per_module(MEMORIES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_tables_per_module(TABLES_MAX)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_core_instance_size(INSTANCE_BYTES_MAX)
        .max_component_instance_size(INSTANCE_BYTES_MAX)
        .max_memory_size(usize::try_from(memory_bytes).unwrap_or(usize::MAX))
        .table_elements(usize::try_from(TABLE_ELEMENTS_MAX).expect("fits on every platform"))
        .linear_memory_keep_resident(MEMORY_RESIDENT_BYTES)
        .table_keep_resident(TABLE_RESIDENT_BYTES)
        .async_stack_keep_resident(STACK_RESIDENT_BYTES)
        .max_unused_warm_slots(memories)
        .decommit_batch_size(32)
        .pagemap_scan(if scans_pages { Enabled::Yes } else { Enabled::No });
    pool
}
