//! Zig; and its compiler, which is that of C and C++ too.

use std::process::Command;

use super::template::files;
use super::{File, Found, Language, Project, Tool, Work, WorkError, read_file};

/// Zig, with its own compiler.
#[derive(Debug)]
pub(crate) struct Zig;

/// The compiler, by itself or as Python's package.
pub(super) const ZIG: Tool = Tool {
    name: "zig",
    why: "builds the handler: a compiler with its libraries for WebAssembly",
    install: "python3 -m pip install ziglang",
    find: |project| project.which("zig").or_else(|| python_package(project)),
};

/// What a handler's stack has, in bytes. It is cleared for every attempt, so that its compiler's 16 MiB would be dear.
pub(super) const STACK: u32 = 64 << 10;

const SOURCE: &str = "handler.zig";

// === impl Zig ===

impl Language for Zig {
    fn name(&self) -> &'static str {
        "zig"
    }

    fn title(&self) -> &'static str {
        "Zig"
    }

    fn is_in(&self, project: &Project) -> bool {
        !project.files("zig").is_empty()
    }

    fn tools(&self, _: &Project) -> Vec<Tool> {
        vec![ZIG]
    }

    fn template(&self) -> Vec<File> {
        let template = files!(
            "languages/zig/template",
            "",
            [".gitignore", "NAME.toml", "README.md", "handler.zig", "jobs/greet.json", "jobs/later.json"]
        );
        [template.as_slice(), &files!("languages/zig/sdk", "", ["sandhog.zig", "sandhog_http.zig"])].concat()
    }

    fn build(&self, work: &mut Work<'_>) -> Result<Vec<u8>, WorkError> {
        if !work.project().has(SOURCE) {
            return Err(WorkError::Source(format!("there is no `{SOURCE}`, in which a handler in Zig begins")));
        }
        let core = work.scratch("core.wasm")?;
        let mut zig = command(work)?;
        zig.args(["build-exe", SOURCE, "-target", "wasm32-wasi", "-mexec-model=reactor", "-lc"]);
        zig.args(["-O", "ReleaseSmall", "-rdynamic", "-fstrip", "--stack", &STACK.to_string()]);
        work.run(zig.arg(format!("-femit-bin={}", core.display())))?;
        read_file(&core)
    }
}

/// A run of the compiler, with what it keeps in the scratch folder.
pub(super) fn command(work: &Work<'_>) -> Result<Command, WorkError> {
    let mut zig = work.command(ZIG.name);
    zig.env("ZIG_LOCAL_CACHE_DIR", work.scratch("zig-cache")?);
    Ok(zig)
}

fn python_package(project: &Project) -> Option<Found> {
    let python = project.which("python3")?.with(&["-m", "ziglang"]);
    python.says(&["version"]).map(|_| python)
}
