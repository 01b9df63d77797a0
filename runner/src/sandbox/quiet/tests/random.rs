//! Random modules, run as they are and with spare pages.

use arbitrary::Unstructured;
use wasm_smith::{Config, MemoryOffsetChoices};
use wasmtime::{Engine, Extern, Instance, Memory, Module, Store, Trap, Val};

use super::{around, inside};
use crate::sandbox::quiet::{Rewritten, rewrite};

/// Few, so that growth often goes past them.
const SPARE: u32 = 2;

const PAGE_BYTES: usize = 65_536;

/// Numbers that are the same in every run (xorshift).
pub(super) struct Random(pub(super) u64);

/// What the comparison of random modules has seen.
#[derive(Debug, Default)]
struct Seen {
    modules: usize,
    calls: usize,
    traps: usize,
    /// Modules of which the memory was larger in the end.
    grown: usize,
    /// Modules that ran into the end of their memory, where the two forms may differ.
    out_of_bounds: usize,
}

/// A core module that was started.
struct Running {
    store: Store<()>,
    instance: Instance,
}

/// How a call ended: its results, or its trap.
type Ended = Result<Vec<String>, Trap>;

#[test]
fn random_modules_do_the_same_with_spare_pages_and_without() {
    let mut random = Random(0xd1ff);
    let mut seen = Seen::default();
    let engine = Engine::default();
    for round in 0..600 {
        if let Some(module) = random_module(&mut random, round % 4 != 0) {
            compare(&engine, &module, &mut seen);
        }
    }
    assert!(seen.modules > 100 && seen.calls > 1_000 && seen.grown > 30, "too little is tried: {seen:?}");
}

/// Calls everything that a module exports, twice, in both forms.
fn compare(engine: &Engine, module: &[u8], seen: &mut Seen) {
    let Rewritten::Rewritten { bytes, .. } = rewrite(&around(module), SPARE) else { return };
    seen.modules += 1;
    let (mut plain, mut quiet) = match (Running::start(engine, module), Running::start(engine, inside(&bytes))) {
        (Ok(plain), Ok(quiet)) => (plain, quiet),
        (Err(Trap::MemoryOutOfBounds), _) => {
            seen.out_of_bounds += 1;
            return;
        }
        (plain, quiet) => {
            assert_eq!(plain.err(), quiet.err(), "how it started");
            return;
        }
    };
    let functions = plain.functions();
    let asked = plain.pages();
    for name in functions.iter().chain(&functions) {
        let ended = plain.call(name);
        if ended == Err(Trap::MemoryOutOfBounds) {
            seen.out_of_bounds += 1;
            return;
        }
        assert_eq!(quiet.call(name), ended, "how `{name}` ended");
        assert_same_state(&mut plain, &mut quiet, asked);
        seen.calls += 1;
        seen.traps += usize::from(ended.is_err());
    }
    seen.grown += usize::from(plain.pages() > asked);
}

/// Both have the same globals, and the same in their memory; the quiet one really grows as late as it can.
#[track_caller]
fn assert_same_state(plain: &mut Running, quiet: &mut Running, asked: u64) {
    assert_eq!(plain.globals(), quiet.globals());
    let (Some(of_plain), Some(of_quiet)) = (plain.memory(), quiet.memory()) else { return };
    let most = of_plain.ty(&plain.store).maximum().unwrap_or(65_536);
    let spare_end = (asked + u64::from(SPARE)).min(most);
    assert_eq!(quiet.pages(), plain.pages().max(spare_end));
    let (plain, quiet) = (of_plain.data(&plain.store), of_quiet.data(&quiet.store));
    let (believed, spare) = quiet.split_at(plain.len());
    assert!(plain == believed, "the memory differs");
    assert_eq!(spare.len() % PAGE_BYTES, 0);
    assert!(spare.iter().all(|byte| *byte == 0), "something was written behind the believed end");
}

/// A module that ends by itself, if these bytes make one.
fn random_module(random: &mut Random, trapless: bool) -> Option<Vec<u8>> {
    let seed: Vec<u8> = (0..500).flat_map(|_| random.next().to_le_bytes()).collect();
    let config = Config {
        allow_start_export: true,
        canonicalize_nans: true,
        disallow_traps: trapless,
        exceptions_enabled: false,
        export_everything: true,
        gc_enabled: false,
        max_data_segments: 3,
        max_imports: 0,
        max_instructions: 200,
        max_memory32_bytes: 40 * PAGE_BYTES as u64,
        max_table_elements: 100,
        memory64_enabled: false,
        memory_offset_choices: MemoryOffsetChoices(90, 9, 1),
        min_funcs: 3,
        min_memories: 1,
        // An engine without a collector takes no `externref`.
        reference_types_enabled: false,
        relaxed_simd_enabled: false,
        threads_enabled: false,
        ..Config::default()
    };
    let mut module = wasm_smith::Module::new(config, &mut Unstructured::new(&seed)).ok()?;
    module.ensure_termination(1_000).ok()?;
    Some(module.to_bytes())
}

// === impl Random ===

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: u32) -> u32 {
        u32::try_from((self.next() >> 32) % u64::from(end)).unwrap()
    }
}

// === impl Running ===

impl Running {
    fn start(engine: &Engine, module: &[u8]) -> Result<Self, Trap> {
        let module = Module::new(engine, module).unwrap();
        let mut store = Store::new(engine, ());
        let instance = Instance::new(&mut store, &module, &[]).map_err(|error| error.downcast().unwrap())?;
        Ok(Self { store, instance })
    }

    fn exports(&mut self) -> Vec<(String, Extern)> {
        let exports = self.instance.exports(&mut self.store);
        exports.map(|export| (export.name().to_owned(), export.into_extern())).collect()
    }

    fn functions(&mut self) -> Vec<String> {
        let exports = self.exports().into_iter();
        exports.filter(|(_, export)| export.clone().into_func().is_some()).map(|(name, _)| name).collect()
    }

    fn memory(&mut self) -> Option<Memory> {
        self.exports().into_iter().find_map(|(_, export)| export.into_memory())
    }

    fn pages(&mut self) -> u64 {
        self.memory().map_or(0, |memory| memory.size(&self.store))
    }

    fn globals(&mut self) -> Vec<String> {
        let globals: Vec<_> = self.exports().into_iter().filter_map(|(_, export)| export.into_global()).collect();
        globals.into_iter().map(|global| shown(&global.get(&mut self.store))).collect()
    }

    fn call(&mut self, name: &str) -> Ended {
        let function = self.instance.get_func(&mut self.store, name).unwrap();
        let ty = function.ty(&self.store);
        let parameters: Vec<Val> = ty.params().map(|ty| ty.default_value().unwrap()).collect();
        let mut results = vec![Val::I32(0); ty.results().len()];
        match function.call(&mut self.store, &parameters, &mut results) {
            Ok(()) => Ok(results.iter().map(shown).collect()),
            Err(error) => Err(error.downcast().unwrap()),
        }
    }
}

/// A value without the addresses that differ from store to store.
fn shown(value: &Val) -> String {
    match value {
        Val::FuncRef(function) => format!("a function: {}", function.is_some()),
        Val::ExternRef(_) | Val::AnyRef(_) => "a reference".to_owned(),
        value => format!("{value:?}"),
    }
}
