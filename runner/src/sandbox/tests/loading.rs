//! Claims about loading.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

#[track_caller]
fn refused(file: &[u8]) -> LoadError {
    SANDBOX.load(file, &limits(), &Grants::default()).expect_err("this file is no handler")
}

fn module(wit: &str, world: &str) -> Vec<u8> {
    guests::module(&guests::text("idle"), wit, world)
}

#[test]
fn components_and_core_modules_load_and_say_what_they_are() {
    let component = load("idle");
    assert_eq!(component.facts().kind, Some(FileKind::Component));
    assert!(component.facts().exports.contains(&"sandhog:jobs/handler@1.0.0".to_owned()));
    assert_eq!((component.facts().memories, component.facts().from_cache), (Some(1), false));
    let module = SANDBOX.load(&module(&guests::contract(), "job-handler"), &limits(), &Grants::default()).unwrap();
    assert_eq!(module.facts().kind, Some(FileKind::CoreModule));
    assert_eq!(run(&module, "", &limits()).0.outcome, Outcome::Complete { result: None });
    assert!(PREVIEW1.facts().imports.iter().any(|import| import.starts_with("wasi:cli/exit@0.2.")));
}

#[test]
fn what_is_no_component_is_called_by_its_name() {
    assert_eq!(refused(b""), LoadError::Empty);
    assert_eq!(refused(b"hello"), LoadError::NotWasm { what: "text" });
    let what = "WebAssembly as text, which has to be assembled first";
    assert_eq!(refused(b"(module)"), LoadError::NotWasm { what });
    assert_eq!(refused(b"\x7fELF\x02\x01\x01"), LoadError::NotWasm { what: "a native program" });
    assert_eq!(refused(b"\xff\xfe"), LoadError::NotWasm { what: "bytes of another kind" });
    assert!(matches!(refused(b"\0asm\x0d\0"), LoadError::Cut { .. }));
    assert!(matches!(refused(b"\0asm\x09\0\x07\0"), LoadError::NotWasm { .. }));
    let compiled = wasmtime::Engine::default().precompile_component(&guests::guest("idle")).unwrap();
    assert_eq!(refused(&compiled), LoadError::Precompiled);
    let size = file::FILE_BYTES_MAX + 1;
    assert_eq!(refused(&vec![0; size]), LoadError::TooLarge { size, limit: file::FILE_BYTES_MAX });
}

#[test]
fn cut_and_mangled_files_are_refused() {
    for file in [guests::guest("obedient"), module(&guests::contract(), "job-handler")] {
        for at in 0..100 {
            let error = refused(&file[..file.len() * at / 100]);
            assert!(!error.to_string().is_empty());
        }
        for at in (8..file.len()).step_by(file.len() / 100) {
            let mut mangled = file.clone();
            mangled[at] ^= 0x55;
            // It may still be a handler. What counts is that there is an answer.
            drop(SANDBOX.load(
                &mangled,
                &Limits { timeout: Duration::from_millis(200), ..limits() },
                &Grants::default(),
            ));
        }
    }
}

#[test]
fn core_module_without_a_type_is_refused_with_what_to_do() {
    let module = wat::parse_str(r#"(module (@producers (language "Rust" "1.95")) (func (export "f")))"#).unwrap();
    let error = refused(&module);
    assert_eq!(error.to_string(), "a core module (written in Rust) that does not carry a component type");
    assert!(error.hint().unwrap().contains("wasm32-wasip2"));
}

#[test]
fn another_version_of_the_contract_is_named() {
    let wit = guests::contract().replace("sandhog:jobs@1.0.0", "sandhog:jobs@2.0.0");
    let wat = guests::text("idle").replace("sandhog:jobs/handler@1.0.0", "sandhog:jobs/handler@2.0.0");
    let error = refused(&guests::module(&wat, &wit, "job-handler"));
    assert_eq!(error.to_string(), "made for `sandhog:jobs@2.0.0`, where this runner speaks `sandhog:jobs@1.0.0`");
    // A later version of the same track is the same contract.
    let wit = guests::contract().replace("sandhog:jobs@1.0.0", "sandhog:jobs@1.3.0");
    let wat = guests::text("idle").replace("sandhog:jobs/handler@1.0.0", "sandhog:jobs/handler@1.3.0");
    SANDBOX.load(&guests::module(&wat, &wit, "job-handler"), &limits(), &Grants::default()).unwrap();
}

#[test]
fn component_without_the_handler_is_refused() {
    let component = wat::parse_str("(component)").unwrap();
    assert_eq!(refused(&component), LoadError::NoHandler { found: Vec::new() });
}

#[test]
fn handler_of_another_type_is_refused() {
    let wit = guests::contract().replace("max-failures: u32,", "failures-max: u32,");
    let error = refused(&module(&wit, "job-handler"));
    assert!(matches!(error, LoadError::ImportTypes { .. } | LoadError::ExportTypes { .. }), "{error:?}");
}

#[test]
fn import_that_is_not_granted_is_refused_by_its_name_with_the_line_that_grants_it() {
    let wit = format!(
        "{}\nworld w {{ include job-handler; import wasi:http/outgoing-handler@0.2.0; }}
        package wasi:http@0.2.0 {{ interface outgoing-handler {{ handle: func(); }} }}",
        guests::contract()
    );
    let wat = guests::text("idle")
        .replace("(module", r#"(module (import "wasi:http/outgoing-handler@0.2.0" "handle" (func))"#);
    let error = refused(&guests::module(&wat, &wit, "w"));
    let names = vec!["wasi:http/outgoing-handler@0.2.0".to_owned()];
    assert_eq!(error, LoadError::NotGranted { names, lines: vec![r#"http = ["https://HOST"]"#] });
    let hint = r#"write into `[grants]` of its manifest: http = ["https://HOST"]"#;
    assert_eq!(error.hint().as_deref(), Some(hint));
    let inspection = SANDBOX.inspect(&guests::module(&wat, &wit, "w"), &limits(), &Grants::default());
    assert_eq!(inspection.error, Some(error));
    assert_eq!(inspection.facts.imports, ["wasi:http/outgoing-handler@0.2.0", "sandhog:jobs/types@1.0.0"]);
    assert!(inspection.facts.exports.contains(&"sandhog:jobs/handler@1.0.0".to_owned()));
}

#[test]
fn import_that_is_not_offered_is_refused_by_its_name() {
    let wit = format!(
        "{}\nworld w {{ include job-handler; import wasi:nn/graph@0.2.0; }}
        package wasi:nn@0.2.0 {{ interface graph {{ load: func(); }} }}",
        guests::contract()
    );
    let wat = guests::text("idle").replace("(module", r#"(module (import "wasi:nn/graph@0.2.0" "load" (func))"#);
    let error = refused(&guests::module(&wat, &wit, "w"));
    assert_eq!(error, LoadError::Imports { names: vec!["wasi:nn/graph@0.2.0".to_owned()] });
}

#[test]
fn exports_of_the_contract_must_be_of_its_type() {
    let wat = guests::text("idle").replace(
        "(memory",
        r#"(func (export "sandhog:jobs/context@1.0.0#set-up") (result i32) (i32.const 0))
           (func (export "sandhog:jobs/context@1.0.0#tear-down"))
           (memory"#,
    );
    let contract = guests::contract().replace("tear-down: func();", "tear-down: func() -> u32;");
    let wat = wat.replace("#tear-down\")", "#tear-down\") (result i32) (i32.const 0)");
    let error = refused(&guests::module(&wat, &contract, "job-handler-with-context"));
    assert!(matches!(error, LoadError::ExportTypes { export: "sandhog:jobs/context@1.0.0", .. }), "{error:?}");
}

#[test]
fn component_that_needs_more_than_its_limits_is_refused() {
    let limits = Limits { memory_bytes: 64 << 10, ..limits() };
    let error = SANDBOX.load(&guests::guest("idle"), &limits, &Grants::default()).unwrap_err();
    let (wanted, limit) = (128 << 10, 64 << 10);
    assert_eq!(error, LoadError::TooBig { what: "bytes of memory", wanted, limit });
    let limits = Limits { table_elements: 0, ..super::limits() };
    assert!(matches!(
        SANDBOX.load(&guests::guest("obedient"), &limits, &Grants::default()),
        Err(LoadError::TooBig { what: "table elements", .. })
    ));
}

#[test]
fn component_that_does_not_start_is_refused() {
    let error = SANDBOX.load(&guests::guest("start"), &short(), &Grants::default()).unwrap_err();
    assert_eq!(error.to_string(), "cannot be instantiated: timeout: 100 ms");
}

#[test]
fn compiled_code_is_kept_and_a_damaged_file_only_costs_compiling_again() {
    let dir = tempfile::tempdir().unwrap();
    let compiled = dir.path().join("compiled");
    let sandbox = || Sandbox::new(Config { slots: 1, compiled_dir: Some(compiled.clone()), ..config() }).unwrap();
    let load = || sandbox().load(&guests::guest("obedient"), &limits(), &Grants::default()).unwrap();
    assert!(!load().facts().from_cache);
    assert_eq!(fs::metadata(&compiled).unwrap().permissions().mode() & 0o777, 0o700);
    let kept = load();
    assert!(kept.facts().from_cache && kept.facts().code_bytes > 0);
    assert_eq!(run(&kept, "result 1", &limits()).0.outcome, complete("1"));

    let paths: Vec<_> = fs::read_dir(&compiled).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(paths.len(), 2);
    for path in paths {
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x55;
        fs::write(&path, &bytes).unwrap();
        assert!(!load().facts().from_cache, "{}", path.display());
        assert!(load().facts().from_cache);
        fs::write(&path, &bytes[..middle]).unwrap();
        assert!(!load().facts().from_cache, "{}", path.display());
    }
}

#[test]
fn compiled_code_that_was_not_used_for_longest_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("compiled");
    let kept = compiled::Compiled::open(&dir, &wasmtime::Engine::default(), 0).unwrap();
    for (name, age) in [("a", 1), ("b", 3), ("c", 2)] {
        fs::write(dir.join(name), [0; 1000]).unwrap();
        let modified = std::time::SystemTime::now() - Duration::from_secs(age * 60);
        fs::File::open(dir.join(name)).unwrap().set_modified(modified).unwrap();
    }
    kept.shrink(2500).unwrap();
    assert!(!dir.join("b").exists());
    kept.shrink(1000).unwrap();
    let left: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["a"]);
}

#[test]
fn compiled_code_is_not_kept_where_others_could_write() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o770)).unwrap();
    let config = Config { slots: 1, compiled_dir: Some(dir.path().to_owned()), ..config() };
    let sandbox = Sandbox::new(config).unwrap();
    sandbox.load(&guests::guest("idle"), &limits(), &Grants::default()).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn whatever_stands_in_the_cache_only_what_was_written_there_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let compiled = dir.path().join("compiled");
    let sandbox = Sandbox::new(Config { slots: 1, compiled_dir: Some(compiled.clone()), ..config() }).unwrap();
    sandbox.load(&guests::guest("idle"), &limits(), &Grants::default()).unwrap();
    let paths = fs::read_dir(&compiled).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    // `.cwasm` before `.json`.
    files.sort();
    let seeds = files.iter().map(|(_, bytes)| bytes.clone()).collect();
    crate::fuzzing::fuzz("compiled", seeds, |bytes| {
        for (path, written) in &files {
            fs::write(path, written).unwrap();
        }
        // A note is JSON; code is not.
        let spoiled = &files[usize::from(bytes.starts_with(b"{"))];
        fs::write(&spoiled.0, bytes).unwrap();
        let component =
            sandbox.load(&guests::guest("idle"), &limits(), &Grants::default()).expect("it is compiled again");
        let code = fs::read(&files[0].0).unwrap();
        assert!(!component.facts().from_cache || code == files[0].1, "code that was not written by us");
        assert_eq!(run(&component, "", &limits()).0.outcome, Outcome::Complete { result: None });
    });
}
