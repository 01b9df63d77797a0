//! JavaScript and TypeScript: esbuild makes one module of the handler, and componentize-qjs a component of that, with `QuickJS` in
//! it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use wasmparser::{Parser, Payload};

use super::template::files;
use super::work::{output, write_file};
use super::{Exports, File, Imports, Language, Project, Tool, WORLD, Work, WorkError, read_file};

/// JavaScript.
#[derive(Debug)]
pub(crate) struct JavaScript;

/// TypeScript, whose types are dropped.
#[derive(Debug)]
pub(crate) struct TypeScript;

/// What esbuild says of what it made.
#[derive(Deserialize)]
struct Metafile {
    outputs: std::collections::BTreeMap<String, Output>,
}

#[derive(Deserialize)]
struct Output {
    exports: Vec<String>,
}

/// What of `package.json` is looked at.
#[derive(Deserialize)]
struct Package {
    main: Option<String>,
}

const INSTALL: &str = "npm install --save-dev componentize-qjs@0.4.5 esbuild@0.28.2";

const TOOLS: [Tool; 2] = [
    Tool {
        name: "componentize-qjs",
        why: "puts the handler and a JavaScript engine into a component",
        install: INSTALL,
        find: |project| project.which("componentize-qjs"),
    },
    Tool {
        name: "esbuild",
        why: "makes one module of the handler and its packages",
        install: INSTALL,
        find: |project| project.which("esbuild"),
    },
];

/// Where a handler is looked for, if `package.json` does not say.
const SOURCES: [&str; 6] = ["handler.ts", "src/handler.ts", "handler.js", "src/handler.js", "handler.mjs", "index.js"];

/// `QuickJS` waits for no promise in a call from outside. So functions that are async become generators, and the SDK brings promises that it
/// works off itself.
const BUNDLE: [&str; 12] = [
    "--bundle",
    "--format=esm",
    "--platform=neutral",
    "--main-fields=module,main",
    "--external:sandhog:*",
    "--external:wasi:*",
    "--external:w4si:*",
    "--supported:async-await=false",
    "--supported:async-generator=false",
    "--supported:for-await=false",
    "--supported:top-level-await=false",
    "--log-level=warning",
];

const WASI_WIT: &str = include_str!("../../../languages/javascript/wit/wasi.wit");
const HTTP_WIT: &str = include_str!("../../../languages/javascript/wit/http.wit");

const ENTRY: &str = include_str!("../../../languages/javascript/build/entry.js");
const HOST: (&str, &str) = ("host.js", include_str!("../../../languages/javascript/build/host.js"));
const CONFIG: (&str, &str) = ("config.js", include_str!("../../../languages/javascript/build/config.js"));
const FOLDERS: (&str, &str) = ("folders.js", include_str!("../../../languages/javascript/build/folders.js"));
const HTTP: (&str, &str) = ("http.js", include_str!("../../../languages/javascript/build/http.js"));
const STATE: (&str, &str) = ("state.js", include_str!("../../../languages/javascript/build/state.js"));

// === impl JavaScript ===

impl Language for JavaScript {
    fn name(&self) -> &'static str {
        "javascript"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["js"]
    }

    fn title(&self) -> &'static str {
        "JavaScript"
    }

    fn is_in(&self, project: &Project) -> bool {
        source(project).is_some()
    }

    fn tools(&self, _: &Project) -> Vec<Tool> {
        TOOLS.to_vec()
    }

    fn template(&self) -> Vec<File> {
        let mut template = files!(
            "languages/javascript/template",
            "",
            [
                ".gitignore",
                "NAME.toml",
                "README.md",
                "handler.js",
                "handler.test.js",
                "jobs/greet.json",
                "jobs/later.json",
                "package.json",
            ]
        )
        .to_vec();
        template.extend(sdk());
        template
    }

    fn exports(&self, project: &Project) -> Result<Exports, WorkError> {
        exports(project)
    }

    fn build(&self, work: &mut Work<'_>) -> Result<Vec<u8>, WorkError> {
        build(work)
    }
}

// === impl TypeScript ===

impl Language for TypeScript {
    fn name(&self) -> &'static str {
        "typescript"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["ts"]
    }

    fn title(&self) -> &'static str {
        "TypeScript"
    }

    fn is_in(&self, project: &Project) -> bool {
        source(project).is_some_and(|source| source.extension() == Some(OsStr::new("ts")))
    }

    fn tools(&self, _: &Project) -> Vec<Tool> {
        TOOLS.to_vec()
    }

    fn template(&self) -> Vec<File> {
        let mut template = files!(
            "languages/typescript/template",
            "",
            [
                ".gitignore",
                "NAME.toml",
                "README.md",
                "handler.test.ts",
                "handler.ts",
                "jobs/greet.json",
                "jobs/later.json",
                "package.json",
                "tsconfig.json",
            ]
        )
        .to_vec();
        template.extend(sdk());
        template
    }

    fn exports(&self, project: &Project) -> Result<Exports, WorkError> {
        exports(project)
    }

    fn build(&self, work: &mut Work<'_>) -> Result<Vec<u8>, WorkError> {
        build(work)
    }
}

fn sdk() -> [File; 2] {
    files!("languages/javascript/sdk", "", ["sandhog.d.ts", "sandhog.js"])
}

/// The module that is the handler.
fn source(project: &Project) -> Option<PathBuf> {
    let package = std::fs::read(project.folder().join("package.json")).ok();
    let package = package.and_then(|text| serde_json::from_slice::<Package>(&text).ok());
    let main = package.and_then(|package| package.main).filter(|main| project.has(main));
    let found = main.or_else(|| SOURCES.iter().find(|source| project.has(source)).map(|&source| source.to_owned()))?;
    Some(project.folder().join(found))
}

/// What the module exports, in esbuild's words: what it exports of other modules too.
fn exports(project: &Project) -> Result<Exports, WorkError> {
    let source = source(project).expect("the language was recognised by it");
    let metafile = project.scratch("exports.json");
    let mut esbuild = project.which("esbuild").expect("a build starts when all its tools are found").command();
    esbuild.current_dir(project.folder()).arg(&source).args(BUNDLE).arg("--packages=external");
    esbuild.arg(option("--outfile", &project.scratch("exports.js"))).arg(option("--metafile", &metafile));
    output(&mut esbuild)?;
    let made: Metafile = serde_json::from_slice(&read_file(&metafile)?)
        .map_err(|error| WorkError::Source(format!("esbuild does not say what the handler exports: {error}")))?;
    let names: Vec<String> = made.outputs.into_values().flat_map(|output| output.exports).collect();
    let has = |name: &str| names.iter().any(|found| found == name);
    if !has("handle") {
        let path = source.strip_prefix(project.folder()).unwrap_or(&source).display();
        return Err(WorkError::Source(format!("`{path}` exports no function `handle`")));
    }
    Ok(Exports { context: has("setUp") || has("tearDown"), failure_hook: has("jobFailed") })
}

fn build(work: &mut Work<'_>) -> Result<Vec<u8>, WorkError> {
    let project = work.project();
    let source = source(project).expect("the language was recognised by it");
    let sdk = source.with_file_name("sandhog.js");
    if !sdk.is_file() {
        let folder = source.parent().expect("a file is in a folder").display();
        return Err(WorkError::Source(format!(
            "there is no `sandhog.js` in `{folder}`: take it from what `sandhog new` writes"
        )));
    }
    let entry = write_entry(work, &source, &sdk)?;
    let (bundle, made) = (work.scratch("bundle.js")?, work.scratch("made.wasm")?);
    work.run(work.command("esbuild").arg(&entry).args(BUNDLE).arg(option("--outfile", &bundle)))?;
    let wit = write_wit(work)?;
    let mut componentize = work.command("componentize-qjs");
    componentize.args(["--sync", "--world", "javascript", "--wit"]).arg(&wit);
    componentize.arg("--module-root").arg(bundle.parent().expect("a file is in a folder"));
    componentize.arg("--js").arg(&bundle).arg("--output").arg(&made);
    work.run_talkative(&mut componentize)?;
    Ok(with_real_names(read_file(&made)?))
}

/// `--outfile=PATH`.
fn option(name: &str, path: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push("=");
    option.push(path);
    option
}

/// Writes the module that is the component's, and what it takes of the sandbox.
fn write_entry(work: &Work<'_>, source: &Path, sdk: &Path) -> Result<PathBuf, WorkError> {
    let granted = granted(work.project().imports());
    let lines: String = granted.iter().map(|(name, _)| format!("import \"./{name}\";\n")).collect();
    for (name, text) in granted.iter().chain([&HOST]) {
        write_file(&work.scratch(name)?, text.as_bytes())?;
    }
    let text = ENTRY
        .replace("{{granted}}", &lines)
        .replace("{{sdk}}", &specifier(sdk))
        .replace("{{source}}", &specifier(source));
    let entry = work.scratch("entry.js")?;
    write_file(&entry, text.as_bytes())?;
    Ok(entry)
}

/// A path inside quotation marks.
fn specifier(path: &Path) -> String {
    let quoted = serde_json::Value::from(path.to_string_lossy()).to_string();
    quoted.trim_matches('"').to_owned()
}

fn granted(imports: Imports) -> Vec<(&'static str, &'static str)> {
    let all = [(imports.config, CONFIG), (imports.folders, FOLDERS), (imports.http, HTTP), (imports.state, STATE)];
    all.into_iter().filter(|(is, _)| *is).map(|(_, file)| file).collect()
}

/// Writes the WIT: the project's world, and one with what the SDK uses of WASI.
fn write_wit(work: &Work<'_>) -> Result<PathBuf, WorkError> {
    let imports = work.project().imports();
    // It comes under another name.
    let folder = work.wit_for(Imports { http: false, ..imports })?;
    let wanted = [
        (true, "wasi:cli/environment@0.2.12"),
        (true, "wasi:clocks/monotonic-clock@0.2.12"),
        (true, "wasi:random/random@0.2.12"),
        (imports.folders, "wasi:filesystem/types@0.2.12"),
        (imports.folders, "wasi:filesystem/preopens@0.2.12"),
        (imports.http, "w4si:http/outgoing-handler@0.2.11"),
    ];
    let lines: String =
        wanted.iter().filter(|(is, _)| *is).map(|(_, interface)| format!("  import {interface};\n")).collect();
    let world = format!("package sandhog:build;\n\nworld javascript {{\n  include {WORLD};\n{lines}}}\n");
    for (name, text) in [("javascript.wit", world.as_str()), ("deps/wasi.wit", WASI_WIT), ("deps/w4si.wit", HTTP_WIT)] {
        write_file(&folder.join(name), text.as_bytes())?;
    }
    Ok(folder)
}

/// Gives imports their real names: `wasi:` for `w4si:`, which is as long. They stand in imports, and where components inside are given
/// what they import; what core modules call them among themselves is their own.
fn with_real_names(mut component: Vec<u8>) -> Vec<u8> {
    let sections: Vec<_> = Parser::new(0)
        .parse_all(&component)
        .filter_map(|payload| match payload {
            Ok(Payload::ComponentImportSection(imports)) => Some(imports.range()),
            Ok(Payload::ComponentInstanceSection(instances)) => Some(instances.range()),
            Ok(Payload::ComponentTypeSection(types)) => Some(types.range()),
            _ => None,
        })
        .collect();
    for range in sections {
        let section = &mut component[range];
        let found: Vec<usize> =
            section.windows(5).enumerate().filter(|(_, name)| name == b"w4si:").map(|(at, _)| at).collect();
        for at in found {
            section[at + 1] = b'a';
        }
    }
    component
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(files: &[(&str, &str)]) -> (tempfile::TempDir, Project) {
        let folder = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            write_file(&folder.path().join(path), text.as_bytes()).expect("the folder is ours");
        }
        let project = Project::open(folder.path()).expect("it is there");
        (folder, project)
    }

    #[test]
    fn package_says_where_the_handler_is_or_its_name_does() {
        let place = |files: &[(&str, &str)]| {
            let (_folder, project) = project(files);
            source(&project).map(|path| path.strip_prefix(project.folder()).expect("below").to_owned())
        };
        assert_eq!(
            place(&[("package.json", r#"{"main": "lib/a.js"}"#), ("lib/a.js", ""), ("handler.js", "")]),
            Some("lib/a.js".into())
        );
        assert_eq!(
            place(&[("package.json", r#"{"main": "gone.js"}"#), ("src/handler.ts", "")]),
            Some("src/handler.ts".into())
        );
        assert_eq!(place(&[("package.json", "{"), ("handler.js", "")]), Some("handler.js".into()));
        assert_eq!(place(&[("package.json", "{}"), ("main.py", "")]), None);
    }

    #[test]
    fn imports_get_their_real_names_and_nothing_else_is_touched() {
        let text = r#"(component
            (import "w4si:io/error@0.2.11" (instance))
            (import "sandhog:jobs/log@1.0.0" (instance))
            (core module (memory 1) (data (i32.const 0) "w4si:"))
            (import "w4si:io/poll@0.2.11" (instance $poll))
            (component $inside (import "w4si:io/poll@0.2.11" (instance)))
            (instance (instantiate $inside (with "w4si:io/poll@0.2.11" (instance $poll)))))"#;
        let component = with_real_names(wat::parse_str(text).expect("the text is right"));
        let count = |name: &[u8]| component.windows(name.len()).filter(|found| *found == name).count();
        assert_eq!((count(b"wasi:io/error@0.2.11"), count(b"wasi:io/poll@0.2.11"), count(b"w4si:")), (1, 3, 1));
        assert!(wasmparser::Validator::new().validate_all(&component).is_ok(), "they fit each other");
    }
}
