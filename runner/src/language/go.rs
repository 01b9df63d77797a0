//! Go.

use std::fs;
use std::path::Path;

use super::template::files;
use super::{Exports, File, Found, Language, Project, Tool, Work, WorkError, read_file};

/// Go, with its own compiler.
#[derive(Debug)]
pub(crate) struct Go;

/// The first release that has what the SDK uses.
const MINOR_MIN: u32 = 25;

const TOOLS: [Tool; 1] = [Tool {
    name: "go",
    why: "builds the handler: Go 1.25 or newer",
    install: "https://go.dev/dl/ has an installer for every system",
    find: |project| project.which("go").filter(is_new_enough),
}];

/// Folders below that are no part of what is built, and the SDK itself.
const OTHERS: [&str; 3] = ["sandhog", "testdata", "vendor"];

// === impl Go ===

impl Language for Go {
    fn name(&self) -> &'static str {
        "go"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["golang"]
    }

    fn title(&self) -> &'static str {
        "Go"
    }

    fn is_in(&self, project: &Project) -> bool {
        project.has("go.mod")
    }

    fn tools(&self, _: &Project) -> Vec<Tool> {
        TOOLS.to_vec()
    }

    fn template(&self) -> Vec<File> {
        let mut template = files!(
            "languages/go/template",
            "",
            [
                ".gitignore",
                "NAME.toml",
                "README.md",
                "go.mod",
                "handler.go",
                "handler_test.go",
                "jobs/greet.json",
                "jobs/later.json",
            ]
        )
        .to_vec();
        template.extend(files!(
            "languages/go/sdk",
            "sandhog/",
            [
                "context_wasip1.go",
                "contract_wasip1.go",
                "enqueue.go",
                "failure_hook_wasip1.go",
                "fetch.go",
                "fetch_wasip1.go",
                "grants.go",
                "grants_wasip1.go",
                "log.go",
                "memory_wasip1.go",
                "native.go",
                "nethttp/nethttp.go",
                "sandhog.go",
            ]
        ));
        template
    }

    fn exports(&self, project: &Project) -> Result<Exports, WorkError> {
        let mut exports = Exports::default();
        look_into(project.folder(), &mut exports).map(|()| exports)
    }

    fn build(&self, work: &mut Work<'_>) -> Result<Vec<u8>, WorkError> {
        let core = work.scratch("core.wasm")?;
        let mut tags = Vec::new();
        tags.extend(work.exports().context.then_some("sandhog_context"));
        tags.extend(work.exports().failure_hook.then_some("sandhog_failure_hook"));
        let mut go = work.command("go");
        go.env("GOOS", "wasip1").env("GOARCH", "wasm").args(["build", "-buildmode=c-shared", "-buildvcs=false"]);
        // The SDK calls the runtime's `sbrk`, which the linker would refuse. Without debug information a handler is small;
        // panics have their stack all the same.
        go.args(["-trimpath", "-ldflags=-s -w -checklinkname=0", "-tags", &tags.join(",")]);
        work.run(go.arg("-o").arg(&core).arg("."))?;
        read_file(&core)
    }
}

/// Whether it is new enough: `go1.26.8`. What says something else was built by somebody who knows what it is.
fn is_new_enough(go: &Found) -> bool {
    go.says(&["env", "GOVERSION"]).is_some_and(|version| minor(&version).is_none_or(|minor| minor >= MINOR_MIN))
}

fn minor(version: &str) -> Option<u32> {
    let rest = version.strip_prefix("go1.")?;
    rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())].parse().ok()
}

/// Notes which hooks the sources in a folder register.
fn look_into(folder: &Path, exports: &mut Exports) -> Result<(), WorkError> {
    let failed = |error| WorkError::File { what: "read", path: folder.to_owned(), error };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let kind = entry.file_type().map_err(failed)?;
        // As Go itself has it: what begins like this is not built.
        if name.starts_with(['.', '_']) || OTHERS.contains(&name.as_str()) {
            continue;
        }
        if kind.is_dir() {
            look_into(&path, exports)?;
        } else if name.ends_with(".go") && !name.ends_with("_test.go") {
            note(&String::from_utf8_lossy(&read_file(&path)?), exports);
        }
    }
    Ok(())
}

/// A call that stands in a comment does no harm: a hook that was not registered does nothing.
fn note(source: &str, exports: &mut Exports) {
    exports.context |= source.contains("sandhog.SetUp(") || source.contains("sandhog.TearDown(");
    exports.failure_hook |= source.contains("sandhog.JobFailed(");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read_as_go_says_it() {
        for (version, expected) in
            [("go1.26.8", Some(26)), ("go1.25", Some(25)), ("go1.27rc1", Some(27)), ("devel go1.27-abc", None)]
        {
            assert_eq!(minor(version), expected, "{version}");
        }
    }

    #[test]
    fn hooks_are_found_where_they_are_registered() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is ours");
            fs::write(path, text).expect("the folder is ours");
        };
        let exports = || Go.exports(&Project::open(folder.path()).expect("it is there")).expect("it can be read");
        write("handler.go", "func init() { sandhog.Handle(handle) }");
        write("handler_test.go", "sandhog.SetUp(x)");
        write("sandhog/sandhog.go", "// sandhog.SetUp(x) sandhog.JobFailed(y)");
        assert_eq!(exports(), Exports::default());
        write("hooks/hooks.go", "func init() { sandhog.JobFailed(tell) }");
        assert_eq!(exports(), Exports { context: false, failure_hook: true });
        write("handler.go", "func init() { sandhog.TearDown(end) }");
        assert_eq!(exports(), Exports { context: true, failure_hook: true });
    }

    #[test]
    fn sdk_in_the_template_has_all_its_files() {
        let template = Go.template();
        for folder in ["", "nethttp/"] {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../languages/go/sdk").join(folder);
            for entry in fs::read_dir(root).expect("the SDK is there") {
                let name = entry.expect("the SDK is there").file_name().to_string_lossy().into_owned();
                let path = format!("sandhog/{folder}{name}");
                let is = name == "nethttp" || template.iter().any(|file| file.path == path);
                assert!(is, "`{path}` is not in the template");
            }
        }
    }
}
