//! `sandhog build`: a folder of source becomes a component. The steps that are the same for every language.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use self::sources::Sources;
use crate::language::{self, Exports, Project, Tool, WORLD, Work, WorkError};
use crate::sandbox::{self, LoadError};

pub(crate) mod sources;
pub(crate) mod world;

/// A handler that was built.
#[derive(Debug)]
pub(crate) struct Built {
    /// The component.
    pub(crate) component: Vec<u8>,
    /// The language that it was written in.
    pub(crate) language: &'static str,
    /// What the tools said all the same: warnings.
    pub(crate) said: String,
    /// How long it took, all in all.
    pub(crate) took: Duration,
    /// When the sources were looked at first.
    began_at: SystemTime,
}

/// Why nothing was built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    /// No language is recognised.
    #[error("`{}` holds no source of a language that handlers can be written in", .0.display())]
    NoLanguage(PathBuf),
    /// Programs are not there.
    #[error("{} needs what is not on this machine: {}", .language, tool_names(.tools))]
    Missing {
        /// For which language.
        language: &'static str,
        /// All that are missing.
        tools: Vec<Tool>,
    },
    /// A tool, a file or the source.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// What the compiler made is no core module of the world.
    #[error("what the compiler made does not fit the world: {0}")]
    World(String),
    /// What the compiler made is nothing that can be loaded.
    #[error("what the compiler made cannot be used: {0}")]
    File(#[from] LoadError),
}

/// When what lies in the project's folder was begun, this file in the scratch folder says by its time.
const STAMP: &str = "built";

/// Builds the handler in a folder.
///
/// # Errors
///
/// Why there is no component.
pub(crate) fn build(project: &Project) -> Result<Built, BuildError> {
    let (started, began_at) = (Instant::now(), SystemTime::now());
    let language = language::of(project).ok_or_else(|| BuildError::NoLanguage(project.folder().to_owned()))?;
    let tools = Work::find(project, &language.tools(project))
        .map_err(|tools| BuildError::Missing { language: language.title(), tools })?;
    let mut work = Work::new(project, tools, language.exports(project)?);
    make_scratch(project)?;
    let made = language.build(&mut work)?;
    let component = component(&made, project)?;
    Ok(Built { component, language: language.title(), said: work.into_said(), took: started.elapsed(), began_at })
}

/// Whether the component in the project's folder is of the sources that are there now.
pub(crate) fn is_fresh(project: &Project) -> bool {
    let modified = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let component = project.folder().join(format!("{}.wasm", project.name()));
    match modified(&project.scratch(STAMP)) {
        Some(stamp) if component.is_file() => Sources::of(project).newest().is_some_and(|newest| newest < stamp),
        _ => false,
    }
}

/// Puts a built handler and its manifest into a folder, as a runner that watches the folder likes it: the manifest first, each
/// by a rename, and only what is not there already. Answers where the component is.
///
/// # Errors
///
/// It cannot be written.
pub(crate) fn install(built: &Built, project: &Project, folder: &Path) -> Result<PathBuf, BuildError> {
    fs::create_dir_all(folder).map_err(|error| failed("make", folder, error))?;
    let manifest = folder.join(format!("{}.toml", project.name()));
    match project.manifest() {
        Some(text) => replace(&manifest, text.as_bytes())?,
        // One that is left from before would be taken for this handler's.
        None => match fs::remove_file(&manifest) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &manifest, error)),
            _ => {}
        },
    }
    let component = folder.join(format!("{}.wasm", project.name()));
    replace(&component, &built.component)?;
    if folder.canonicalize().is_ok_and(|folder| folder == project.folder()) {
        let stamp = project.scratch(STAMP);
        let stamped = fs::File::create(&stamp).and_then(|file| file.set_modified(built.began_at));
        stamped.map_err(|error| failed("write", &stamp, error))?;
    }
    Ok(component)
}

/// The scratch folder is nobody's source.
fn make_scratch(project: &Project) -> Result<(), WorkError> {
    let ignored = project.scratch(".gitignore");
    if ignored.is_file() { Ok(()) } else { language::write_file(&ignored, b"*\n") }
}

/// A component as it is; a core module with its type put in, if it has none, and encoded.
fn component(made: &[u8], project: &Project) -> Result<Vec<u8>, BuildError> {
    let Some(exports) = sandbox::exports_without_type(made)? else {
        return Ok(sandbox::component_of(made)?);
    };
    let has = |interface: &str| exports.iter().any(|name| name.starts_with(&format!("sandhog:jobs/{interface}@")));
    let exports = Exports { context: has("context"), failure_hook: has("failure-hook") };
    let mut module = made.to_vec();
    embed(&mut module, project, exports).map_err(|error| BuildError::World(format!("{error:#}")))?;
    Ok(sandbox::component_of(&module)?)
}

fn embed(module: &mut Vec<u8>, project: &Project, exports: Exports) -> anyhow::Result<()> {
    let mut resolve = Resolve::default();
    let folder = project.scratch("world");
    for (name, text) in world::files(exports, project.imports()) {
        language::write_file(&folder.join(name), text.as_bytes())?;
    }
    let (package, _) = resolve.push_path(&folder)?;
    let world = resolve.select_world(&[package], Some(WORLD))?;
    embed_component_metadata(module, &resolve, world, StringEncoding::UTF8)
}

/// Writes a file under another name first, and only if it differs.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), BuildError> {
    if fs::read(path).is_ok_and(|found| found == bytes) {
        return Ok(());
    }
    let name = path.file_name().expect("it is a file's").to_string_lossy();
    let new = path.with_file_name(format!(".{name}.new"));
    fs::write(&new, bytes).map_err(|error| failed("write", &new, error))?;
    fs::rename(&new, path).map_err(|error| failed("write", path, error))
}

fn failed(what: &'static str, path: &Path, error: io::Error) -> BuildError {
    WorkError::File { what, path: path.to_owned(), error }.into()
}

fn tool_names(tools: &[Tool]) -> String {
    tools.iter().map(|tool| format!("`{}`", tool.name)).collect::<Vec<_>>().join(", ")
}

// === impl BuildError ===

impl BuildError {
    /// What to do about it, where that can be said.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            BuildError::NoLanguage(_) => {
                Some(format!("`sandhog new NAME --lang LANG` writes one; languages: {}", language::names()))
            }
            BuildError::File(error) => error.hint(),
            _ => None,
        }
    }
}
