//! The languages that handlers are written in: how each is recognised, what it needs, what `sandhog new` writes for it, and
//! how it becomes a component. What is the same for all is in `build`.

mod c;
mod go;
mod javascript;
mod project;
mod python;
mod rust;
mod template;
#[expect(dead_code, reason = "for Zig, which may be a module of Python")]
mod tool;
mod work;
mod zig;

pub(crate) use self::project::{Imports, Project};
pub(crate) use self::template::{File, name_fault, write};
pub(crate) use self::tool::{Found, Tool};
pub(crate) use self::work::{Exports, WORLD, Work, WorkError, read_file, write_file};

/// All of them. A folder that could be of several is of the first: what is more particular stands before what any folder may
/// have.
pub(crate) const LANGUAGES: &[&dyn Language] = &[
    &rust::Rust,
    &go::Go,
    &javascript::TypeScript,
    &javascript::JavaScript,
    &python::Python,
    &zig::Zig,
    &c::Cpp,
    &c::C,
];

/// A language that handlers are written in.
pub(crate) trait Language: Sync {
    /// What it is called on the command line.
    fn name(&self) -> &'static str;

    /// Other words for it.
    fn aliases(&self) -> &'static [&'static str] {
        &[]
    }

    /// What people call it.
    fn title(&self) -> &'static str;

    /// Whether the handler in this folder is written in it.
    fn is_in(&self, project: &Project) -> bool;

    /// What it needs to build the handler in this folder.
    fn tools(&self, project: &Project) -> Vec<Tool>;

    /// What `sandhog new` writes. In texts `{{name}}` is the handler's name, in paths `NAME`.
    fn template(&self) -> Vec<File>;

    /// What the source has beside the handler itself, where that must be known before it is built. A core module that comes
    /// out of `build` without a type is asked for it instead: it exports what it has.
    fn exports(&self, _project: &Project) -> Result<Exports, WorkError> {
        Ok(Exports::default())
    }

    /// Builds the handler: a component, or a core module that becomes one by its type, or by that of the world.
    fn build(&self, work: &mut Work<'_>) -> Result<Vec<u8>, WorkError>;
}

/// The language of this name.
pub(crate) fn named(name: &str) -> Option<&'static dyn Language> {
    let is_it = |language: &&&dyn Language| language.name() == name || language.aliases().contains(&name);
    LANGUAGES.iter().find(is_it).copied()
}

/// The names of all, for people.
pub(crate) fn names() -> String {
    LANGUAGES.iter().map(|language| language.name()).collect::<Vec<_>>().join(", ")
}

/// The language of the handler in a folder.
pub(crate) fn of(project: &Project) -> Option<&'static dyn Language> {
    LANGUAGES.iter().find(|language| language.is_in(project)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_language_has_a_name_of_its_own_and_a_template_with_a_manifest_and_a_case() {
        let mut names: Vec<&str> = LANGUAGES
            .iter()
            .flat_map(|language| std::iter::once(language.name()).chain(language.aliases().iter().copied()))
            .collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "{names:?}");
        for language in LANGUAGES {
            let template = language.template();
            for path in ["NAME.toml", "README.md", ".gitignore"] {
                assert!(template.iter().any(|file| file.path == path), "{}: no `{path}`", language.name());
            }
            assert!(template.iter().any(|file| file.path.starts_with("jobs/")), "{}: no case", language.name());
        }
    }

    #[test]
    fn template_is_recognised_as_what_it_is() {
        for language in LANGUAGES {
            let folder = tempfile::tempdir().expect("a folder");
            let folder = folder.path().join("sample");
            write(&folder, "sample", &language.template()).expect("nothing is there yet");
            let project = Project::open(&folder).expect("it is there");
            assert_eq!(project.name(), "sample");
            assert_eq!(of(&project).map(|found| found.name()), Some(language.name()));
        }
    }
}
