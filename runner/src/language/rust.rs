//! Rust.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::template::files;
use super::{File, Language, Project, Tool, Work, WorkError, read_file};

/// Rust, with cargo.
#[derive(Debug)]
pub(crate) struct Rust;

/// What a compiler builds for, and with which standard library.
#[derive(Debug, PartialEq)]
enum Target {
    /// A component comes out.
    Wasip2,
    /// A core module comes out.
    Unknown,
    /// The same, by a compiler apart, whose standard library is built on the way.
    Apart { rustc: PathBuf, linker: PathBuf },
}

/// What cargo says of something that it built.
#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    manifest_path: PathBuf,
    #[serde(default)]
    target: CrateTarget,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

#[derive(Default, Deserialize)]
struct CrateTarget {
    #[serde(default)]
    crate_types: Vec<String>,
}

const TOOLS: [Tool; 2] = [
    Tool {
        name: "cargo",
        why: "builds the handler",
        install: "curl --proto '=https' -sSf https://sh.rustup.rs | sh",
        find: |project| project.which("cargo"),
    },
    Tool {
        name: "wasm32-wasip2",
        why: "the standard library for WebAssembly",
        install: "rustup target add wasm32-wasip2",
        find: |project| Target::of(project).and_then(|_| project.which("rustc")),
    },
];

// === impl Rust ===

impl Language for Rust {
    fn name(&self) -> &'static str {
        "rust"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["rs"]
    }

    fn title(&self) -> &'static str {
        "Rust"
    }

    fn is_in(&self, project: &Project) -> bool {
        project.has("Cargo.toml")
    }

    fn tools(&self, _: &Project) -> Vec<Tool> {
        TOOLS.to_vec()
    }

    fn template(&self) -> Vec<File> {
        let mut template = files!(
            "languages/rust/template",
            "",
            [
                ".cargo/config.toml",
                ".gitignore",
                "Cargo.lock",
                "Cargo.toml",
                "NAME.toml",
                "README.md",
                "jobs/greet.json",
                "jobs/later.json",
                "src/lib.rs",
            ]
        )
        .to_vec();
        template.extend(files!("languages/rust/sdk", "sandhog-guest/", ["Cargo.toml"]));
        template.extend(files!(
            "guest-sdk",
            "sandhog-guest/",
            [
                "src/bindings.rs",
                "src/bindings_full.rs",
                "src/config.rs",
                "src/config/bindings.rs",
                "src/context.rs",
                "src/error.rs",
                "src/http.rs",
                "src/http/bindings.rs",
                "src/http/guest.rs",
                "src/http/native.rs",
                "src/job.rs",
                "src/lib.rs",
                "src/log.rs",
                "src/outcome.rs",
                "src/queue.rs",
                "src/sandbox.rs",
                "src/state.rs",
                "src/state/bindings.rs",
                "src/state/native.rs",
            ]
        ));
        template
    }

    fn build(&self, work: &mut Work<'_>) -> Result<Vec<u8>, WorkError> {
        let target = Target::of(work.project()).expect("it was there when tools were looked for");
        let mut cargo = work.command("cargo");
        cargo.args(["build", "--quiet", "--release", "--lib", "--message-format=json-render-diagnostics"]);
        match &target {
            Target::Wasip2 => cargo.args(["--target", "wasm32-wasip2"]),
            Target::Unknown => cargo.args(["--target", "wasm32-unknown-unknown"]),
            Target::Apart { rustc, linker } => cargo
                .args(["--target", "wasm32-unknown-unknown", "-Zbuild-std=std,panic_abort"])
                .env("RUSTC", rustc)
                .env("RUSTC_BOOTSTRAP", "1")
                .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker),
        };
        let messages = work.run(&mut cargo)?;
        let manifest = work.project().folder().join("Cargo.toml");
        let built = built_library(&messages, &manifest).ok_or_else(|| {
            WorkError::Source("the crate makes no library: write `crate-type = [\"cdylib\"]` under `[lib]`".to_owned())
        })?;
        read_file(&built)
    }
}

/// The library among what cargo built of the crate of this manifest.
fn built_library(messages: &[u8], manifest: &Path) -> Option<PathBuf> {
    let messages = String::from_utf8_lossy(messages);
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Message>(line).ok());
    let is_ours = |message: &Message| {
        message.reason == "compiler-artifact"
            && message.target.crate_types.iter().any(|kind| kind == "cdylib")
            && message.manifest_path.canonicalize().is_ok_and(|path| path == manifest)
    };
    messages
        .filter(is_ours)
        .flat_map(|message| message.filenames)
        .find(|file| file.extension().is_some_and(|extension| extension == "wasm"))
}

// === impl Target ===

impl Target {
    /// What the project's compiler can build for: the same choice as `tools/build-guests` makes.
    fn of(project: &Project) -> Option<Target> {
        let rustc = project.which("rustc")?;
        let mut sysroot = rustc.command();
        sysroot.args(["--print", "sysroot"]).current_dir(project.folder());
        let output = sysroot.output().ok().filter(|output| output.status.success())?;
        let libraries = Path::new(String::from_utf8_lossy(&output.stdout).trim()).join("lib/rustlib");
        if libraries.join("wasm32-wasip2").is_dir() {
            return Some(Target::Wasip2);
        }
        if libraries.join("wasm32-unknown-unknown").is_dir() {
            return Some(Target::Unknown);
        }
        // Debian's compiler, which carries the sources of its library; where `tools/build-guests` puts it.
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
        let rustc = Some(cache.join("sandhog/wasm-compiler/rustc")).filter(|path| path.is_file())?;
        let hosts = std::fs::read_dir(libraries).ok()?.flatten();
        let linker = hosts.map(|host| host.path().join("bin/rust-lld")).find(|path| path.is_file())?;
        Some(Target::Apart { rustc, linker })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn library_of_the_crate_itself_is_found_among_what_cargo_built() {
        let folder = tempfile::tempdir().expect("a folder");
        let manifest = folder.path().canonicalize().expect("it is there").join("Cargo.toml");
        std::fs::write(&manifest, "").expect("the folder is ours");
        let line = |manifest: &Path, kind: &str, file: &str| {
            serde_json::json!({
                "reason": "compiler-artifact", "manifest_path": manifest, "filenames": [file],
                "target": { "crate_types": [kind] },
            })
            .to_string()
        };
        let messages = [
            line(Path::new("/other/Cargo.toml"), "cdylib", "/t/other.wasm"),
            line(&manifest, "custom-build", "/t/build-script"),
            "no JSON".to_owned(),
            line(&manifest, "cdylib", "/t/own.wasm"),
        ];
        assert_eq!(built_library(messages.join("\n").as_bytes(), &manifest), Some("/t/own.wasm".into()));
        assert_eq!(built_library(messages[..3].join("\n").as_bytes(), &manifest), None);
    }

    #[test]
    fn sdk_in_the_template_has_all_its_files() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest-sdk/src");
        let mut folders = vec![root.clone()];
        let template = Rust.template();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("the SDK is there") {
                let path = entry.expect("the SDK is there").path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let name = format!("sandhog-guest/src/{}", path.strip_prefix(&root).expect("below").display());
                assert!(template.iter().any(|file| file.path == name), "`{name}` is not in the template");
            }
        }
    }
}
