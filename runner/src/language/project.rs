//! The folder of a handler's source.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::tool::Found;

/// The folder of a handler's source.
#[derive(Debug, Clone)]
pub(crate) struct Project {
    folder: PathBuf,
    name: String,
    manifest: Option<String>,
    imports: Imports,
    /// Where programs are looked for, before anywhere else first.
    search: Option<OsString>,
}

/// What a handler may import beyond the contract, because its manifest grants it. Components of some languages import all
/// that their world has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Imports {
    /// `wasi:http`.
    pub(crate) http: bool,
    /// `wasi:config`.
    pub(crate) config: bool,
    /// `wasi:keyvalue`.
    pub(crate) state: bool,
    /// `wasi:filesystem`. Only where a language does not import it of itself.
    pub(crate) folders: bool,
}

/// The scratch folder in a project's folder. What is in it can be deleted at any time.
const SCRATCH: &str = ".sandhog";

/// Files that end in `.toml` and are other programs'.
const OTHERS: [&str; 9] =
    ["Cargo", "biome", "bunfig", "clippy", "pyproject", "ruff", "rust-toolchain", "rustfmt", "sandhog"];

// === impl Project ===

impl Project {
    /// Opens a folder. Its handler is called what its manifest is called, or else what the folder is called.
    ///
    /// # Errors
    ///
    /// It is no folder, or its manifest cannot be read.
    pub(crate) fn open(folder: &Path) -> io::Result<Project> {
        let folder = folder.canonicalize()?;
        let files = files_in(&folder)?;
        let own = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut manifests: Vec<&str> =
            files.iter().filter_map(|file| file.strip_suffix(".toml")).filter(|stem| !OTHERS.contains(stem)).collect();
        // A manifest of the folder's own name is the one, whatever other files there are.
        if manifests.len() != 1 && manifests.contains(&own.as_str()) {
            manifests = vec![&own];
        }
        let name = match manifests.as_slice() {
            [name] => (*name).to_owned(),
            _ => own.clone(),
        };
        let manifest = match fs::read_to_string(folder.join(format!("{name}.toml"))) {
            Ok(text) => Some(text),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        let imports = manifest.as_deref().map(Imports::granted_by).unwrap_or_default();
        let search = search_path(&folder);
        Ok(Project { folder, name, manifest, imports, search })
    }

    /// Where it is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the handler is called.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The manifest, as found.
    pub(crate) fn manifest(&self) -> Option<&str> {
        self.manifest.as_deref()
    }

    /// What the manifest grants of what can be imported.
    pub(crate) fn imports(&self) -> Imports {
        self.imports
    }

    /// A place in the scratch folder.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.folder.join(SCRATCH).join(name)
    }

    /// Whether it has this file.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.folder.join(path).is_file()
    }

    /// The names of the files in the folder itself that end like this, sorted: `ts`.
    pub(crate) fn files(&self, extension: &str) -> Vec<String> {
        let is_it = |name: &String| Path::new(name).extension().is_some_and(|found| found == extension);
        files_in(&self.folder).unwrap_or_default().into_iter().filter(is_it).collect()
    }

    /// The names of the files in a folder of the project, sorted; none if it is not there.
    pub(crate) fn files_in(&self, folder: &str) -> Vec<String> {
        files_in(&self.folder.join(folder)).unwrap_or_default()
    }

    /// A program: in the project's `node_modules/.bin` or `.venv/bin`, in `$VIRTUAL_ENV`, or on `$PATH`.
    pub(crate) fn which(&self, program: &str) -> Option<Found> {
        let found = which::which_in(program, self.search.as_deref(), &self.folder).ok()?;
        Some(Found::program(found))
    }
}

/// The names of the files in a folder, sorted. What is hidden is not listed.
fn files_in(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string()
            && !name.starts_with('.')
            && entry.path().is_file()
        {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn search_path(folder: &Path) -> Option<OsString> {
    let own = [folder.join("node_modules/.bin"), folder.join(".venv/bin")];
    let virtual_env = std::env::var_os("VIRTUAL_ENV").map(|env| PathBuf::from(env).join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(own.into_iter().chain(virtual_env).chain(std::env::split_paths(&path))).ok()
}

// === impl Imports ===

impl Imports {
    /// What a manifest grants. One that cannot be read grants nothing here, and is reported when the handler is checked.
    fn granted_by(manifest: &str) -> Imports {
        let table = manifest.parse::<toml::Table>().unwrap_or_default();
        let grant = |name: &str| table.get("grants").and_then(|grants| grants.get(name));
        let is_any = |value: &toml::Value| match value {
            toml::Value::Array(list) => !list.is_empty(),
            _ => true,
        };
        Imports {
            http: grant("http").is_some_and(is_any),
            config: grant("config").is_some(),
            state: grant("state").and_then(toml::Value::as_bool).unwrap_or(false),
            folders: grant("read").or(grant("write")).is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_what_the_manifest_grants() {
        let all = Imports { http: true, config: true, state: true, folders: true };
        let text = "grants.state = true\n[grants.config]\na = 'b'\n[grants]\n";
        assert_eq!(
            Imports::granted_by(
                "[grants]\nhttp = ['https://a.b']\nconfig = { a = 'b' }\nstate = true\nwrite.'/o' = 'o'"
            ),
            all
        );
        assert_eq!(Imports::granted_by("grants.http = []\ngrants.state = false"), Imports::default());
        assert_eq!(Imports::granted_by(text), Imports::default(), "what is no TOML grants nothing");
    }

    #[test]
    fn handler_is_called_what_its_manifest_is_called() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = root.path().join("here");
        fs::create_dir(&folder).expect("a folder");
        let name = || Project::open(&folder).expect("it is there").name().to_owned();
        assert_eq!(name(), "here");
        for (file, expected) in [("Cargo.toml", "here"), ("resize.toml", "resize"), ("here.toml", "here")] {
            fs::write(folder.join(file), "").expect("the folder is ours");
            assert_eq!(name(), expected);
        }
    }
}
