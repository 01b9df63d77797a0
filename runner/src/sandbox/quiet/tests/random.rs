//! Random modules, run as they are and with spare pages.

use std::convert::Infallible;

use arbitrary::Unstructured;
use wasm_encoder::reencode::{self, Reencode};
use wasm_encoder::{CodeSection, Instruction};
use wasm_smith::{Config, InstructionKind, InstructionKinds, MemoryOffsetChoices};
use wasmparser::FunctionBody;
use wasmtime::{Engine, Extern, Instance, Memory, Module, Store, Trap, Val, ValType};

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
    /// Instances of which the memory was larger in the end.
    grown: usize,
    /// Instances that were not followed further, see [`at_an_end`].
    at_an_end: usize,
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
    for round in 0..2_500 {
        let Some(module) = random_module(&mut random, round % 4 != 0) else { continue };
        let Rewritten::Rewritten { bytes, .. } = rewrite(&around(&module), SPARE) else { continue };
        let [plain, quiet] = [&module, inside(&bytes)].map(|module| Module::new(&engine, module).unwrap());
        seen.modules += 1;
        for export in plain.exports().filter(|export| export.ty().func().is_some()) {
            compare(&plain, &quiet, export.name(), &mut seen);
        }
    }
    assert!(seen.modules > 500 && seen.calls > 5_000 && seen.grown > 100, "too little is tried: {seen:?}");
}

/// Calls a function a few times in a fresh instance of either form.
fn compare(plain: &Module, quiet: &Module, function: &str, seen: &mut Seen) {
    let (mut plain, mut quiet) = match (Running::start(plain), Running::start(quiet)) {
        (Ok(plain), Ok(quiet)) => (plain, quiet),
        (plain, quiet) => {
            let (plain, quiet) = (plain.err(), quiet.err());
            if at_an_end(plain) || at_an_end(quiet) {
                seen.at_an_end += 1;
            } else {
                assert_eq!(plain, quiet, "how it started");
            }
            return;
        }
    };
    let pages = plain.pages();
    for parameter in [0, 1, 70_000] {
        let (ended, quiet_ended) = (plain.call(function, parameter), quiet.call(function, parameter));
        if at_an_end(ended.clone().err()) || at_an_end(quiet_ended.clone().err()) {
            seen.at_an_end += 1;
            return;
        }
        assert_eq!(quiet_ended, ended, "how `{function}` ended");
        assert_same_state(&mut plain, &mut quiet);
        seen.calls += 1;
        seen.traps += usize::from(ended.is_err());
    }
    seen.grown += usize::from(plain.pages() > pages);
}

/// Whether it was at the end of its memory or of the stack, where the two forms may differ.
fn at_an_end(trap: Option<Trap>) -> bool {
    matches!(trap, Some(Trap::MemoryOutOfBounds | Trap::StackOverflow))
}

/// Both have the same globals, and the same in their memory; the quiet one really grows as late as it can.
#[track_caller]
fn assert_same_state(plain: &mut Running, quiet: &mut Running) {
    assert_eq!(plain.globals(), quiet.globals());
    let (Some(of_plain), Some(of_quiet)) = (plain.memory(), quiet.memory()) else { return };
    let asked = of_plain.ty(&plain.store);
    let spare_end = (asked.minimum() + u64::from(SPARE)).min(asked.maximum().unwrap_or(65_536));
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
        allowed_instructions: InstructionKinds::new(&[
            InstructionKind::NumericInt,
            InstructionKind::Parametric,
            InstructionKind::Variable,
            InstructionKind::Memory,
            InstructionKind::Control,
        ]),
        canonicalize_nans: true,
        disallow_traps: trapless,
        exceptions_enabled: false,
        export_everything: true,
        gc_enabled: false,
        max_data_segments: 3,
        max_imports: 0,
        max_instructions: 200,
        memory_max_size_required: true,
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
    module.ensure_termination(2_000).ok()?;
    let mut modest = wasm_encoder::Module::new();
    let parser = wasmparser::Parser::new(0);
    ModestGrowth.parse_core_module(&mut modest, parser, &module.to_bytes()).unwrap();
    Some(modest.finish())
}

/// Cuts what a module asks for to 3 pages: a random number is nearly always more than there is.
struct ModestGrowth;

// === impl ModestGrowth ===

impl Reencode for ModestGrowth {
    type Error = Infallible;

    fn parse_function_body(
        &mut self,
        code: &mut CodeSection,
        body: FunctionBody<'_>,
    ) -> Result<(), reencode::Error<Infallible>> {
        let mut function = self.new_function_with_parsed_locals(&body)?;
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            let instruction = self.parse_instruction(&mut operators)?;
            if let Instruction::MemoryGrow(_) = instruction {
                function.instruction(&Instruction::I32Const(3)).instruction(&Instruction::I32And);
            }
            function.instruction(&instruction);
        }
        code.function(&function);
        Ok(())
    }
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
    fn start(module: &Module) -> Result<Self, Trap> {
        let mut store = Store::new(module.engine(), ());
        let instance = Instance::new(&mut store, module, &[]).map_err(|error| error.downcast().unwrap())?;
        Ok(Self { store, instance })
    }

    fn exports(&mut self) -> Vec<(String, Extern)> {
        let exports = self.instance.exports(&mut self.store);
        exports.map(|export| (export.name().to_owned(), export.into_extern())).collect()
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

    /// Calls a function with this in place of each integer.
    fn call(&mut self, name: &str, parameter: i32) -> Ended {
        let function = self.instance.get_func(&mut self.store, name).unwrap();
        let ty = function.ty(&self.store);
        let parameters: Vec<Val> = ty
            .params()
            .map(|ty| match ty {
                ValType::I32 => Val::I32(parameter),
                ValType::I64 => Val::I64(parameter.into()),
                ty => ty.default_value().unwrap(),
            })
            .collect();
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
