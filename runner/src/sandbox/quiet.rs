//! Makes a component quiet: a small job of it changes no page tables.
//!
//! Most guests grow their memory by a page or two as soon as they allocate. Each growth changes the protection of some
//! pages, and taking those pages away when the attempt is over changes it again. Either change locks the memory map of
//! the whole process and interrupts the other cores, so that two workers get less done than one.
//!
//! So a component is rewritten when it is loaded. Each core module that owns its memory and grows it is given some
//! *spare pages* from the start, and goes on to believe in the size that it asked for:
//!
//! - the memory's minimum is raised by the spare pages;
//! - a new global holds the size in which the module believes;
//! - `memory.size` becomes a call to an added function that answers the believed size;
//! - `memory.grow` becomes a call to an added function that hands out spare pages first, and really grows the memory
//!   only for what they do not cover. It answers, and it fails, as `memory.grow` would have.
//!
//! All else stays byte for byte. The new type, functions and global stand behind those that were there, so every index
//! keeps its meaning, and so do the names of functions in a trap's frames.
//!
//! # What a guest can see
//!
//! - An access between the believed and the real end of the memory reads zeros (or what was written there before)
//!   instead of trapping. It is the module's own memory.
//! - Another module of the same component that imports the memory sees its real size. Should that module grow it, the
//!   page it gets is a new one, and the owner loses the spare pages that it has not used: it believes in the real size
//!   from then on, as it would have to after any growth by somebody else. No page is ever given twice.
//! - `memory.size` and `memory.grow` take a little of the stack, as calls do.
//!
//! Whoever limits memory sees the larger minimum.

mod module;
mod section;
#[cfg(test)]
mod tests;

use wasm_encoder::{Component, ComponentSectionId};
use wasmparser::{BinaryReaderError, Parser, Validator, WasmFeatures};

use self::module::{LeftAlone, Module};
use self::section::sections;

/// Part of the key under which compiled code is kept: changes when the rewrite does.
pub const VERSION: u32 = 1;

const MODULE: u8 = ComponentSectionId::CoreModule as u8;
const COMPONENT: u8 = ComponentSectionId::Component as u8;

/// How deep components may be nested in each other; what is deeper is left as it is.
const MAX_DEPTH: usize = 64;

/// What became of a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewritten {
    /// At least one of its modules has spare pages now.
    Rewritten {
        /// The component to compile instead.
        bytes: Vec<u8>,
        /// How many of its modules were rewritten.
        modules: usize,
    },
    /// It is to be compiled as it is.
    Unchanged {
        /// Why, for people.
        reason: String,
    },
}

type Result<T> = std::result::Result<T, BinaryReaderError>;

/// The walk through a component and those nested in it.
struct Walk {
    spare_pages: u32,
    rewritten: usize,
    /// Core modules met so far, to name them by their number.
    modules: usize,
    /// Why modules that own a memory are left alone.
    left_alone: Vec<String>,
}

/// Gives each core module of `component` that owns and grows one ordinary memory `spare_pages` more pages than it asks
/// for, as far as its maximum allows.
///
/// The spare pages must stay in memory between attempts for this to pay. Where the engine clears all that it keeps, and
/// not only the pages that were written, each spare page costs some time in every attempt: four are then better than
/// sixteen.
///
/// Never panics, whatever the bytes: a component that is not valid, or would not be afterwards, is left as it is.
pub fn rewrite(component: &[u8], spare_pages: u32) -> Rewritten {
    if !Parser::is_component(component) {
        return Rewritten::Unchanged { reason: "not a component".to_owned() };
    }
    if let Err(error) = validate(component) {
        return Rewritten::Unchanged { reason: format!("not a valid component: {error}") };
    }
    let mut walk = Walk { spare_pages, rewritten: 0, modules: 0, left_alone: Vec::new() };
    let bytes = match walk.component(component, 0) {
        Ok(bytes) => bytes,
        Err(error) => return Rewritten::Unchanged { reason: format!("cannot be read: {error}") },
    };
    if walk.rewritten == 0 {
        return Rewritten::Unchanged { reason: walk.reason() };
    }
    match validate(&bytes) {
        Ok(()) => Rewritten::Rewritten { bytes, modules: walk.rewritten },
        Err(error) => Rewritten::Unchanged { reason: format!("would not be valid with spare pages: {error}") },
    }
}

/// Accepts every proposal that the parser knows: which of them are allowed is decided by whoever compiles.
fn validate(component: &[u8]) -> Result<()> {
    Validator::new_with_features(WasmFeatures::all()).validate_all(component).map(drop)
}

// === impl Walk ===

impl Walk {
    /// The component with its modules rewritten; `depth` components are round it.
    fn component(&mut self, component: &[u8], depth: usize) -> Result<Vec<u8>> {
        let mut out = Component::new().finish();
        for section in sections(component)? {
            let contents = match section.id {
                MODULE => &self.module(section.contents)?,
                COMPONENT if depth < MAX_DEPTH => &self.component(section.contents, depth + 1)?,
                _ => section.contents,
            };
            section::write(section.id, contents, &mut out);
        }
        Ok(out)
    }

    /// The module rewritten, or as it was.
    fn module(&mut self, binary: &[u8]) -> Result<Vec<u8>> {
        let number = self.modules;
        self.modules += 1;
        let module = Module::read(binary)?;
        match module.memory_with_spare(self.spare_pages) {
            Ok(memory) => {
                self.rewritten += 1;
                module.rewrite(&memory)
            }
            Err(LeftAlone::Because(reason)) => {
                self.left_alone.push(format!("core module {number} {reason}"));
                Ok(binary.to_vec())
            }
            Err(LeftAlone::OwnsNoMemory) => Ok(binary.to_vec()),
        }
    }

    /// Why no module was rewritten.
    fn reason(&self) -> String {
        match self.left_alone.as_slice() {
            [] => "none of its core modules has a memory of its own".to_owned(),
            reasons => reasons.join("; "),
        }
    }
}
