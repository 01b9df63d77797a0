//! What the rewrite promises, through `rewrite` and an engine.

mod random;

use std::ops::Range;

use wasmparser::Payload;
use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Instance, Module, Store, Trap};

use self::random::Random;
use super::{Rewritten, rewrite};

const SPARE: u32 = 16;

/// A core module that owns a memory and grows it, and another that imports the same memory and grows it as well. What
/// the other does is exported with `others-` in front.
const GROWER: &str = r#"
    (core module $owner
        (memory (export "memory") MEMORY)
        (func (export "size") (result i32) memory.size)
        (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
        (func (export "load") (param i32) (result i32) (i32.load (local.get 0)))
        (func (export "store") (param i32 i32) (i32.store (local.get 0) (local.get 1))))
    (core module $other
        (import "owner" "memory" (memory 0))
        (func (export "size") (result i32) memory.size)
        (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0))))
    (core instance $owner (instantiate $owner))
    (core instance $other (instantiate $other (with "owner" (instance $owner))))
    (func (export "size") (result u32) (canon lift (core func $owner "size")))
    (func (export "grow") (param "pages" u32) (result s32) (canon lift (core func $owner "grow")))
    (func (export "load") (param "at" u32) (result u32) (canon lift (core func $owner "load")))
    (func (export "store") (param "at" u32) (param "value" u32) (canon lift (core func $owner "store")))
    (func (export "others-size") (result u32) (canon lift (core func $other "size")))
    (func (export "others-grow") (param "pages" u32) (result s32) (canon lift (core func $other "grow")))
"#;

/// An instance of [`GROWER`].
struct Grower {
    store: Store<()>,
    instance: wasmtime::component::Instance,
}

impl Grower {
    fn start(component: &[u8]) -> Self {
        let engine = Engine::default();
        let component = Component::from_binary(&engine, component).unwrap();
        let mut store = Store::new(&engine, ());
        let instance = Linker::new(&engine).instantiate(&mut store, &component).unwrap();
        Self { store, instance }
    }

    /// The same component as it was written and with spare pages.
    fn both(memory: &str) -> [Self; 2] {
        let component = wat(&GROWER.replace("MEMORY", memory));
        [Self::start(&component), Self::start(&rewritten(&component, 1))]
    }

    fn call(&mut self, name: &str, pages: u32) -> i32 {
        let grow = self.instance.get_typed_func::<(u32,), (i32,)>(&mut self.store, name).unwrap();
        grow.call(&mut self.store, (pages,)).unwrap().0
    }

    fn grow(&mut self, pages: u32) -> i32 {
        self.call("grow", pages)
    }

    fn others_grow(&mut self, pages: u32) -> i32 {
        self.call("others-grow", pages)
    }

    fn ask(&mut self, name: &str) -> u32 {
        let size = self.instance.get_typed_func::<(), (u32,)>(&mut self.store, name).unwrap();
        size.call(&mut self.store, ()).unwrap().0
    }

    fn size(&mut self) -> u32 {
        self.ask("size")
    }

    fn others_size(&mut self) -> u32 {
        self.ask("others-size")
    }

    fn load(&mut self, at: u32) -> Result<u32, Trap> {
        let load = self.instance.get_typed_func::<(u32,), (u32,)>(&mut self.store, "load").unwrap();
        load.call(&mut self.store, (at,)).map(|(value,)| value).map_err(|error| error.downcast().unwrap())
    }

    fn store(&mut self, at: u32, value: u32) {
        let store = self.instance.get_typed_func::<(u32, u32), ()>(&mut self.store, "store").unwrap();
        store.call(&mut self.store, (at, value)).unwrap();
    }
}

fn wat(component: &str) -> Vec<u8> {
    wat::parse_str(format!("(component {component})")).unwrap()
}

/// A component round one core module, which is not instantiated.
fn around(module: &[u8]) -> Vec<u8> {
    let mut component = wasm_encoder::Component::new();
    component
        .section(&wasm_encoder::RawSection { id: wasm_encoder::ComponentSectionId::CoreModule as u8, data: module });
    component.finish()
}

/// The first core module of a component.
fn inside(component: &[u8]) -> &[u8] {
    let range = wasmparser::Parser::new(0)
        .parse_all(component)
        .find_map(|payload| match payload.unwrap() {
            Payload::ModuleSection { unchecked_range, .. } => Some(unchecked_range),
            _ => None,
        })
        .unwrap();
    &component[range]
}

#[track_caller]
fn rewritten(component: &[u8], count: usize) -> Vec<u8> {
    match rewrite(component, SPARE) {
        Rewritten::Rewritten { bytes, modules } => {
            assert_eq!(modules, count);
            bytes
        }
        Rewritten::Unchanged { reason } => panic!("left as it was: {reason}"),
    }
}

#[track_caller]
fn rewritten_module(module: &str) -> Vec<u8> {
    inside(&rewritten(&around(&wat::parse_str(module).unwrap()), 1)).to_vec()
}

#[track_caller]
fn assert_left_alone(module: &str, reason: &str) {
    assert_eq!(
        rewrite(&around(&wat::parse_str(module).unwrap()), SPARE),
        Rewritten::Unchanged { reason: format!("core module 0 {reason}") }
    );
}

/// Grows both forms by each of these and asserts that nothing can be told apart. Returns what was answered.
#[track_caller]
fn assert_same_growth(memory: &str, steps: &[u32]) -> Vec<i32> {
    let [mut plain, mut quiet] = Grower::both(memory);
    let mut answers = Vec::new();
    for pages in steps {
        let answer = plain.grow(*pages);
        assert_eq!(quiet.grow(*pages), answer, "growth by {pages} of a memory of {memory}");
        assert_eq!(quiet.size(), plain.size(), "size after a growth by {pages} of a memory of {memory}");
        answers.push(answer);
    }
    answers
}

#[test]
fn growth_answers_the_believed_size() {
    assert_eq!(assert_same_growth("0", &[0, 1, 0, 4, 800]), [0, 0, 1, 1, 5]);
    assert_eq!(assert_same_growth("2", &[1, 14, 1, 1, 1]), [2, 3, 17, 18, 19]);
}

#[test]
fn growth_across_the_end_of_the_spare_pages_takes_them_first() {
    let [_, mut quiet] = Grower::both("1");
    assert_eq!(quiet.others_size(), 1 + SPARE);
    assert_eq!(quiet.grow(10), 1);
    assert_eq!(quiet.others_size(), 1 + SPARE);
    assert_eq!(quiet.grow(10), 11);
    assert_eq!((quiet.size(), quiet.others_size()), (21, 21));
}

#[test]
fn growth_past_the_maximum_fails_and_changes_nothing() {
    assert_eq!(assert_same_growth("0 10", &[0, 1, 1, 2, 6, 0, 1, 0x10000]), [0, 0, 1, 2, 4, 10, -1, -1]);
    assert_eq!(assert_same_growth("1 2", &[2, 1, 1, 0]), [-1, 1, -1, 2]);
    assert_eq!(assert_same_growth("1 40", &[40, 39, 1, 0]), [-1, 1, -1, 40]);
    assert_eq!(assert_same_growth("1 17", &[17, 16, 1]), [-1, 1, -1]);
    assert_eq!(assert_same_growth("1 18", &[18, 16, 1, 1]), [-1, 1, 17, -1]);
}

#[test]
fn growth_by_a_huge_or_negative_number_fails() {
    let huge = [u32::MAX, u32::MAX - 1, u32::MAX - SPARE, u32::MAX - SPARE - 1, 1 << 31, (1 << 31) - 1, 65_537, 65_536];
    assert_eq!(assert_same_growth("1", &huge), [-1; 8]);
    assert_eq!(assert_same_growth("1", &[3]), [1]);
    assert_eq!(assert_same_growth("65535", &[2, u32::MAX, 1, 1, 0]), [-1, -1, 65_535, -1, 65_536]);
}

#[test]
fn memory_grows_to_all_of_its_address_space() {
    assert_eq!(assert_same_growth("1", &[65_536, 65_535, 1, 0]), [-1, 1, -1, 65_536]);
}

#[test]
fn random_growth_is_told_apart_by_nothing() {
    let mut random = Random(0x5eed);
    for _ in 0..60 {
        let (minimum, room) = (random.below(20), random.below(60));
        let memory = format!("{minimum} {}", minimum + room + 1);
        let steps: Vec<u32> = (0..20).map(|_| random.below(8)).collect();
        assert_same_growth(&memory, &steps);
    }
}

#[test]
fn page_that_somebody_else_took_is_never_given_again() {
    let [_, mut quiet] = Grower::both("1");
    assert_eq!(quiet.grow(1), 1);
    assert_eq!(quiet.others_grow(3), 17);
    assert_eq!(quiet.size(), 20);
    assert_eq!(quiet.grow(1), 20);
    assert_eq!(quiet.others_grow(1), 21);
    assert_eq!(quiet.grow(30), 22);
    assert_eq!((quiet.size(), quiet.others_size()), (52, 52));
}

#[test]
fn growth_by_nothing_of_somebody_else_costs_no_spare_page() {
    let [_, mut quiet] = Grower::both("1");
    assert_eq!(quiet.others_grow(0), 17);
    assert_eq!(quiet.grow(1), 1);
}

#[test]
fn random_growth_by_two_gives_no_page_twice() {
    let mut random = Random(0xfeed);
    for _ in 0..40 {
        let [_, mut quiet] = Grower::both("1 80");
        let mut taken = vec![Range { start: 0, end: 1 }];
        for _ in 0..25 {
            let pages = random.below(6);
            let first = if random.below(4) == 0 { quiet.others_grow(pages) } else { quiet.grow(pages) };
            let Ok(first) = u32::try_from(first) else { continue };
            let given = first..first + pages;
            if given.is_empty() {
                continue;
            }
            assert!(taken.iter().all(|old| given.start >= old.end || given.end <= old.start));
            assert!(given.end <= quiet.others_size());
            assert!(given.end <= quiet.size());
            taken.push(given);
        }
    }
}

#[test]
fn memory_is_kept_when_it_grows() {
    for mut grower in Grower::both("1") {
        grower.store(65_532, 7);
        assert_eq!(grower.grow(1), 1);
        assert_eq!(grower.load(65_536), Ok(0));
        grower.store(131_068, 9);
        assert_eq!(grower.grow(40), 2);
        assert_eq!((grower.load(65_532), grower.load(131_068), grower.load(131_072)), (Ok(7), Ok(9), Ok(0)));
    }
}

#[test]
fn access_behind_the_believed_end_reads_zeros_and_behind_the_real_end_traps() {
    let [mut plain, mut quiet] = Grower::both("1");
    assert_eq!(plain.load(65_536), Err(Trap::MemoryOutOfBounds));
    assert_eq!(quiet.load(65_536), Ok(0));
    assert_eq!(quiet.load((1 + SPARE) * 65_536), Err(Trap::MemoryOutOfBounds));
}

#[test]
fn module_without_globals_gets_a_section_for_them() {
    let module = rewritten_module(
        r#"(module (memory 1) (func (export "grow") (result i32) (memory.grow (i32.const 2)))
            (start $s) (func $s) (table 2 funcref) (elem (i32.const 0) $s) (data "a")
            (func (memory.init 0 (i32.const 0) (i32.const 0) (i32.const 0))))"#,
    );
    assert_eq!(call_i32(&module, "grow"), 1);
}

#[test]
fn module_that_imports_functions_and_globals_keeps_its_indices() {
    let component = wat(r#"
        (core module $lender
            (func (export "seven") (result i32) (i32.const 7)) (global (export "forty") i32 (i32.const 40)))
        (core module $borrower
            (type $pair (func (param i32) (result i32)))
            (import "lender" "seven" (func $seven (result i32)))
            (import "lender" "forty" (global $forty i32))
            (memory 1) (table 1 funcref) (elem (i32.const 0) $sum) (global $two (mut i32) (i32.const 2))
            (func $sum (type $pair)
                (i32.add (i32.add (call $seven) (global.get $forty)) (i32.add (local.get 0) (global.get $two))))
            (func (export "run") (result i32) (call_indirect (type $pair) (memory.grow (i32.const 3)) (i32.const 0))))
        (core instance $lender (instantiate $lender))
        (core instance $borrower (instantiate $borrower (with "lender" (instance $lender))))
        (func (export "size") (result u32) (canon lift (core func $borrower "run")))
    "#);
    assert_eq!(Grower::start(&component).size(), 50);
    assert_eq!(Grower::start(&rewritten(&component, 1)).size(), 50);
}

#[test]
fn component_inside_another_is_rewritten_too() {
    let component = wat(&format!(
        r#"(component $inner {}) (instance $inner (instantiate $inner))
           (export "size" (func $inner "size")) (export "grow" (func $inner "grow"))"#,
        GROWER.replace("MEMORY", "3")
    ));
    let mut grower = Grower::start(&rewritten(&component, 1));
    assert_eq!((grower.grow(5), grower.size()), (3, 8));
}

#[test]
fn names_of_functions_are_kept() {
    let module = rewritten_module("(module (memory 1) (func $a (drop (memory.grow (i32.const 1)))) (func $b))");
    let names = names(&module);
    assert_eq!(names, [(0, "a".to_owned()), (1, "b".to_owned())]);
}

#[test]
fn hints_that_name_places_in_the_code_are_dropped() {
    let module = rewritten_module(
        r#"(module (memory 1) (@custom "metadata.code.branch_hint" "\00") (@custom "kept" "as it was")
            (func (drop (memory.grow (i32.const 1)))))"#,
    );
    let customs: Vec<String> = wasmparser::Parser::new(0)
        .parse_all(&module)
        .filter_map(|payload| match payload.unwrap() {
            Payload::CustomSection(section) => Some(section.name().to_owned()),
            _ => None,
        })
        .collect();
    assert_eq!(customs, ["kept"]);
}

#[test]
fn what_has_nothing_to_spare_is_left_alone() {
    let grow = "(func (drop (memory.grow (i32.const 1))))";
    assert_left_alone("(module (memory 1) (func (drop (memory.size))))", "never grows its memory");
    assert_left_alone(&format!("(module (memory 1) (memory 1) {grow})"), "has several memories");
    assert_left_alone(&format!(r#"(module (import "" "" (memory 1)) (memory 1) {grow})"#), "has several memories");
    assert_left_alone("(module (memory i64 1) (func (drop (memory.grow (i64.const 1)))))", "has a 64-bit memory");
    assert_left_alone(&format!("(module (memory 1 2 shared) {grow})"), "has a shared memory");
    assert_left_alone(&format!("(module (memory 1 (pagesize 1)) {grow})"), "has a memory with pages of another size");
    assert_left_alone(&format!("(module (memory 3 3) {grow})"), "has a memory that cannot be larger than it is");
    assert_left_alone(&format!("(module (memory 65536) {grow})"), "has a memory that cannot be larger than it is");
    assert_left_alone(
        &format!(r#"(module (memory 1) {grow} (@custom ".debug_info" ""))"#),
        "has debugging information, which names places in the code that would move",
    );
}

#[test]
fn component_without_a_memory_of_its_own_is_left_alone() {
    let grow = "(func (drop (memory.grow (i32.const 1))))";
    let component = wat(&format!(r#"(core module (import "" "" (memory 1)) {grow}) (core module)"#));
    let reason = "none of its core modules has a memory of its own".to_owned();
    assert_eq!(rewrite(&component, SPARE), Rewritten::Unchanged { reason: reason.clone() });
    assert_eq!(rewrite(&wat(""), SPARE), Rewritten::Unchanged { reason });
}

#[test]
fn no_spare_page_leaves_a_component_alone() {
    let component = wat(&GROWER.replace("MEMORY", "1"));
    let reason = "core module 0 has a memory that cannot be larger than it is";
    assert_eq!(rewrite(&component, 0), Rewritten::Unchanged { reason: reason.to_owned() });
}

#[test]
fn any_number_of_spare_pages_is_cut_to_what_the_memory_can_have() {
    let component = wat(&GROWER.replace("MEMORY", "1 30"));
    let Rewritten::Rewritten { bytes, .. } = rewrite(&component, u32::MAX) else { panic!("left as it was") };
    let mut grower = Grower::start(&bytes);
    assert_eq!((grower.others_size(), grower.size(), grower.grow(29), grower.grow(1)), (30, 1, 1, -1));
}

#[test]
fn what_is_no_component_is_left_alone() {
    for bytes in [b"".as_slice(), b"\0asm", b"\0asm\x01\0\0\0", b"no WebAssembly at all"] {
        assert_eq!(rewrite(bytes, SPARE), Rewritten::Unchanged { reason: "not a component".to_owned() });
    }
}

#[test]
fn mutilated_component_never_panics_and_is_never_made_invalid() {
    let component = wat(&format!("(component {0}) {0}", GROWER.replace("MEMORY", "1 20")));
    let mut random = Random(0xbad);
    let mut survivors = 0;
    for _ in 0..4_000 {
        let mut bytes = component.clone();
        for _ in 0..=random.below(3) {
            mutilate(&mut bytes, &mut random);
        }
        if let Rewritten::Rewritten { bytes, .. } = rewrite(&bytes, SPARE) {
            wasmparser::Validator::new_with_features(wasmparser::WasmFeatures::all()).validate_all(&bytes).unwrap();
            survivors += 1;
        }
    }
    assert!(survivors > 100, "only {survivors} mutilated components were still valid: nothing is tried that way");
}

#[test]
fn deeply_nested_component_does_not_exhaust_the_stack() {
    let mut component = wat("");
    for _ in 0..2_000 {
        let mut outer = wasm_encoder::Component::new();
        outer.section(&wasm_encoder::RawSection { id: super::COMPONENT, data: &component });
        component = outer.finish();
    }
    assert!(matches!(rewrite(&component, SPARE), Rewritten::Unchanged { .. }));
}

/// Changes, cuts out or doubles some bytes.
fn mutilate(bytes: &mut Vec<u8>, random: &mut Random) {
    let end = u32::try_from(bytes.len()).unwrap();
    if end < 2 {
        return;
    }
    let at = random.below(end) as usize;
    let until = bytes.len().min(at + random.below(12) as usize);
    match random.below(6) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..until)),
        2 => {
            let doubled = bytes[at..until].to_vec();
            bytes.splice(at..at, doubled);
        }
        3 => bytes[at] ^= 1 << random.below(8),
        4 => bytes[at] = bytes[at].wrapping_add(1),
        _ => bytes[at] = random.next().to_le_bytes()[0],
    }
}

/// Instantiates a core module and calls what it exports.
fn call_i32(module: &[u8], name: &str) -> i32 {
    let engine = Engine::default();
    let module = Module::new(&engine, module).unwrap();
    let mut store = Store::new(&engine, ());
    let instance = Instance::new(&mut store, &module, &[]).unwrap();
    instance.get_typed_func::<(), i32>(&mut store, name).unwrap().call(&mut store, ()).unwrap()
}

/// The names of functions in a module's name section.
fn names(module: &[u8]) -> Vec<(u32, String)> {
    let mut names = Vec::new();
    for payload in wasmparser::Parser::new(0).parse_all(module) {
        let Payload::CustomSection(section) = payload.unwrap() else { continue };
        let wasmparser::KnownCustom::Name(section) = section.as_known() else { continue };
        for subsection in section {
            if let wasmparser::Name::Function(functions) = subsection.unwrap() {
                names.extend(functions.into_iter().map(|naming| {
                    let naming = naming.unwrap();
                    (naming.index, naming.name.to_owned())
                }));
            }
        }
    }
    names
}
