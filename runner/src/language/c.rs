//! C and C++.

use std::path::Path;
use std::process::Command;

use super::template::files;
use super::zig::{STACK, ZIG, command};
use super::{File, Language, Project, Tool, Work, WorkError, read_file};

/// C, with the compiler of Zig.
#[derive(Debug)]
pub(crate) struct C;

/// C++, with the same.
#[derive(Debug)]
pub(crate) struct Cpp;

/// Where the SDK is in a project.
const SDK: &str = "sandhog";

/// Flags for the compiler, one a line, for the handler's own sources. Editors read the file too.
const FLAGS: &str = "compile_flags.txt";

const CPP_EXTENSIONS: [&str; 3] = ["cpp", "cc", "cxx"];

// === impl C ===

impl Language for C {
    fn name(&self) -> &'static str {
        "c"
    }

    fn title(&self) -> &'static str {
        "C"
    }

    fn is_in(&self, project: &Project) -> bool {
        !project.files("c").is_empty()
    }

    fn tools(&self, _: &Project) -> Vec<Tool> {
        vec![ZIG]
    }

    fn template(&self) -> Vec<File> {
        let template = files!(
            "languages/c/template",
            "",
            [
                ".gitignore",
                "NAME.toml",
                "README.md",
                "compile_flags.txt",
                "handler.c",
                "jobs/greet.json",
                "jobs/later.json",
            ]
        );
        [template.as_slice(), &sdk()].concat()
    }

    fn build(&self, work: &mut Work<'_>) -> Result<Vec<u8>, WorkError> {
        let mut objects = compile(work, SDK, "cc", &["c"], &[])?;
        let flags = flags(work.project())?;
        objects.extend(compile(work, "", "cc", &["c"], &flags.lines().collect::<Vec<_>>())?);
        link(work, "cc", &objects)
    }
}

// === impl Cpp ===

impl Language for Cpp {
    fn name(&self) -> &'static str {
        "cpp"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["c++"]
    }

    fn title(&self) -> &'static str {
        "C++"
    }

    fn is_in(&self, project: &Project) -> bool {
        CPP_EXTENSIONS.iter().any(|extension| !project.files(extension).is_empty())
    }

    fn tools(&self, _: &Project) -> Vec<Tool> {
        vec![ZIG]
    }

    fn template(&self) -> Vec<File> {
        let template = files!(
            "languages/cpp/template",
            "",
            [
                ".gitignore",
                "NAME.toml",
                "README.md",
                "compile_flags.txt",
                "handler.cpp",
                "jobs/greet.json",
                "jobs/later.json",
            ]
        );
        [template.as_slice(), &sdk()].concat()
    }

    fn build(&self, work: &mut Work<'_>) -> Result<Vec<u8>, WorkError> {
        let flags = flags(work.project())?;
        let mut flags: Vec<&str> = flags.lines().collect();
        let mut objects = compile(work, SDK, "cc", &["c"], &[])?;
        objects.extend(compile(work, "", "cc", &["c"], &flags)?);
        // The sandbox has no exceptions.
        flags.extend(["-fno-exceptions", "-fno-rtti"]);
        objects.extend(compile(work, "", "c++", &CPP_EXTENSIONS, &flags)?);
        link(work, "c++", &objects)
    }
}

fn sdk() -> [File; 4] {
    files!("languages/c/sdk", "sandhog/", ["sandhog.c", "sandhog.h", "sandhog_http.c", "sandhog_json.c"])
}

/// One a line.
fn flags(project: &Project) -> Result<String, WorkError> {
    if !project.has(FLAGS) {
        return Ok(format!("-I{SDK}"));
    }
    Ok(String::from_utf8_lossy(&read_file(&project.folder().join(FLAGS))?).into_owned())
}

/// Compiles the sources of a folder of the project, one by one; answers the objects.
fn compile(
    work: &mut Work<'_>,
    folder: &str,
    compiler: &str,
    extensions: &[&str],
    flags: &[&str],
) -> Result<Vec<String>, WorkError> {
    let mut objects = Vec::new();
    for source in work.project().files_in(folder) {
        let extension = Path::new(&source).extension().unwrap_or_default().to_string_lossy();
        if !extensions.contains(&&*extension) {
            continue;
        }
        let object = work.scratch(&format!("objects/{folder}/{source}.o"))?.display().to_string();
        let mut zig = run(work, compiler)?;
        zig.args(["-O2", "-ffunction-sections", "-fdata-sections", "-D_GNU_SOURCE"]);
        zig.args(flags).arg("-c").arg(Path::new(folder).join(&source));
        work.run(zig.args(["-o", &object]))?;
        objects.push(object);
    }
    Ok(objects)
}

fn link(work: &mut Work<'_>, compiler: &str, objects: &[String]) -> Result<Vec<u8>, WorkError> {
    let core = work.scratch("core.wasm")?;
    let mut zig = run(work, compiler)?;
    zig.args(["-mexec-model=reactor", "-s", "-Wl,--gc-sections", &format!("-Wl,-z,stack-size={STACK}")]);
    work.run(zig.args(objects).arg("-o").arg(&core))?;
    read_file(&core)
}

fn run(work: &Work<'_>, compiler: &str) -> Result<Command, WorkError> {
    let mut zig = command(work)?;
    zig.args([compiler, "-target", "wasm32-wasi"]);
    Ok(zig)
}
