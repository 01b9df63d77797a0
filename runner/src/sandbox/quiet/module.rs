//! One core module: whether it can be given spare pages, and the rewrite that does it.

use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, Encode, Function, FunctionSection, GlobalSection, GlobalType, Instruction,
    MemorySection, MemoryType, SectionId, TypeSection, ValType,
};
use wasmparser::{
    CodeSectionReader, FunctionBody, ImportSectionReader, MemorySectionReader, Operator, TypeRef, TypeSectionReader,
};

use super::Result;
use super::section::{self, Section, sections};

/// A 32-bit memory has no more pages than this.
const MAX_PAGES: u64 = 65_536;

const CUSTOM: u8 = SectionId::Custom as u8;
const TYPE: u8 = SectionId::Type as u8;
const IMPORT: u8 = SectionId::Import as u8;
const FUNCTION: u8 = SectionId::Function as u8;
const MEMORY: u8 = SectionId::Memory as u8;
const GLOBAL: u8 = SectionId::Global as u8;
const EXPORT: u8 = SectionId::Export as u8;
const START: u8 = SectionId::Start as u8;
const ELEMENT: u8 = SectionId::Element as u8;
const DATA_COUNT: u8 = SectionId::DataCount as u8;
const CODE: u8 = SectionId::Code as u8;
const DATA: u8 = SectionId::Data as u8;

/// What there is to know about a module before it is rewritten.
pub(super) struct Module<'a> {
    sections: Vec<Section<'a>>,
    /// How many types it has: the index of the next one.
    types: u32,
    /// How many functions it has, imported ones included: the index of the next one.
    functions: u32,
    /// How many globals it has, imported ones included: the index of the next one.
    globals: u32,
    imports_memory: bool,
    memories: Vec<wasmparser::MemoryType>,
    grows: bool,
    has_dwarf: bool,
}

/// The memory of a module that can have spare pages.
pub(super) struct Memory {
    /// What the module asks for, and believes in at first.
    asked_pages: u32,
    /// What it gets: where the spare pages end.
    spare_end: u32,
    maximum: Option<u64>,
}

/// Why a module cannot have spare pages.
pub(super) enum LeftAlone {
    /// As nearly every component has some: adapters, and what holds tables. Nothing to speak of.
    OwnsNoMemory,
    /// A fragment that stands behind the module's name.
    Because(&'static str),
}

/// Where the additions stand.
struct Added {
    /// The global with the size in which the module believes.
    believed: u32,
    /// The function that stands for `memory.size`.
    size: u32,
    /// The function that stands for `memory.grow`.
    grow: u32,
}

// === impl Module ===

impl<'a> Module<'a> {
    /// Reads a valid module.
    pub(super) fn read(binary: &'a [u8]) -> Result<Self> {
        let sections = sections(binary)?;
        let mut module = Self {
            sections: Vec::new(),
            types: 0,
            functions: 0,
            globals: 0,
            imports_memory: false,
            memories: Vec::new(),
            grows: false,
            has_dwarf: false,
        };
        for section in &sections {
            module.survey(section)?;
        }
        Ok(Self { sections, ..module })
    }

    /// The memory as it will be, or why the module is left alone.
    pub(super) fn memory_with_spare(&self, spare_pages: u32) -> std::result::Result<Memory, LeftAlone> {
        let memory = match self.memories.as_slice() {
            [] => return Err(LeftAlone::OwnsNoMemory),
            [memory] if !self.imports_memory => memory,
            _ => return Err(LeftAlone::Because("has several memories")),
        };
        let most = memory.maximum.unwrap_or(MAX_PAGES).min(MAX_PAGES);
        let spare_end = memory.initial.saturating_add(u64::from(spare_pages)).min(most);
        let refused = if !self.grows {
            "never grows its memory"
        } else if memory.memory64 {
            "has a 64-bit memory"
        } else if memory.shared {
            "has a shared memory"
        } else if memory.page_size_log2.is_some() {
            "has a memory with pages of another size"
        } else if self.has_dwarf {
            "has debugging information, which names places in the code that would move"
        } else if spare_end <= memory.initial {
            "has a memory that cannot be larger than it is"
        } else {
            let pages = |pages: u64| u32::try_from(pages).expect("neither is above 65,536: `most` is not");
            return Ok(Memory {
                asked_pages: pages(memory.initial),
                spare_end: pages(spare_end),
                maximum: memory.maximum,
            });
        };
        Err(LeftAlone::Because(refused))
    }

    /// The module with this memory in place of its own.
    pub(super) fn rewrite(&self, memory: &Memory) -> Result<Vec<u8>> {
        let added = Added { believed: self.globals, size: self.functions, grow: self.functions + 1 };
        let (mut types, mut functions) = (TypeSection::new(), FunctionSection::new());
        types.ty().function([], [ValType::I32]);
        types.ty().function([ValType::I32], [ValType::I32]);
        functions.function(self.types).function(self.types + 1);

        let mut globals = Some(memory.believed());
        let mut out = wasm_encoder::Module::new().finish();
        for section in &self.sections {
            if follows_globals(section.id)
                && let Some(globals) = globals.take()
            {
                section::write(GLOBAL, &section::contents(&globals)?, &mut out);
            }
            match section.id {
                TYPE => section::write(TYPE, &section.appended(&types)?, &mut out),
                FUNCTION => section::write(FUNCTION, &section.appended(&functions)?, &mut out),
                MEMORY => section::write(MEMORY, &section::contents(&memory.section())?, &mut out),
                GLOBAL => {
                    let globals = globals.take().unwrap_or_default();
                    section::write(GLOBAL, &section.appended(&globals)?, &mut out);
                }
                CODE => section::write(CODE, &added.code(section, memory)?, &mut out),
                // Hints for the compiler. They name places in the code, which move; without them nothing changes.
                CUSTOM if section.custom_name()?.starts_with("metadata.code.") => {}
                id => section::write(id, section.contents, &mut out),
            }
        }
        Ok(out)
    }

    /// Takes in what one section says.
    fn survey(&mut self, section: &Section<'_>) -> Result<()> {
        match section.id {
            TYPE => {
                for group in TypeSectionReader::new(section.reader())? {
                    // A group of types that refer to each other is one item of the section, but several types.
                    self.types += group?.types().map(|_| 1).sum::<u32>();
                }
            }
            IMPORT => {
                for import in ImportSectionReader::new(section.reader())?.into_imports() {
                    match import?.ty {
                        TypeRef::Func(_) | TypeRef::FuncExact(_) => self.functions += 1,
                        TypeRef::Global(_) => self.globals += 1,
                        TypeRef::Memory(_) => self.imports_memory = true,
                        TypeRef::Table(_) | TypeRef::Tag(_) => {}
                    }
                }
            }
            FUNCTION => self.functions += section.count()?,
            GLOBAL => self.globals += section.count()?,
            MEMORY => {
                self.memories = MemorySectionReader::new(section.reader())?.into_iter().collect::<Result<_>>()?;
            }
            CODE => {
                for body in CodeSectionReader::new(section.reader())? {
                    self.grows = self.grows || grows(&body?)?;
                }
            }
            CUSTOM => self.has_dwarf |= section.custom_name()?.starts_with(".debug_"),
            _ => {}
        }
        Ok(())
    }
}

/// Whether a section of this kind stands behind that of the globals, which a module need not have. What grows its memory
/// has code, so that one such section comes.
fn follows_globals(id: u8) -> bool {
    matches!(id, EXPORT | START | ELEMENT | DATA_COUNT | CODE | DATA)
}

fn grows(body: &FunctionBody<'_>) -> Result<bool> {
    let mut operators = body.get_operators_reader()?;
    while !operators.eof() {
        if let Operator::MemoryGrow { .. } = operators.read()? {
            return Ok(true);
        }
    }
    Ok(false)
}

// === impl Memory ===

impl Memory {
    /// The memory, with the spare pages from the start.
    fn section(&self) -> MemorySection {
        let mut memories = MemorySection::new();
        memories.memory(MemoryType {
            minimum: u64::from(self.spare_end),
            maximum: self.maximum,
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
        memories
    }

    /// The global with the size in which the module believes.
    fn believed(&self) -> GlobalSection {
        let mut globals = GlobalSection::new();
        globals.global(
            GlobalType { val_type: ValType::I32, mutable: true, shared: false },
            &ConstExpr::i32_const(self.asked_pages.cast_signed()),
        );
        globals
    }
}

// === impl Added ===

impl Added {
    /// The code section: the bodies that were there, and the two that are added.
    fn code(&self, section: &Section<'_>, memory: &Memory) -> Result<Vec<u8>> {
        let mut bodies = CodeSection::new();
        for body in CodeSectionReader::new(section.reader())? {
            bodies.raw(&self.body(section, &body?)?);
        }
        bodies.function(&self.size_function(memory)).function(&self.grow_function());
        section::contents(&bodies)
    }

    /// A body with calls in place of `memory.size` and `memory.grow`.
    fn body(&self, section: &Section<'_>, body: &FunctionBody<'_>) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(body.as_bytes().len() + 8);
        let mut copied = body.range().start;
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            let start = operators.original_position();
            let stand_in = match operators.read()? {
                Operator::MemorySize { .. } => self.size,
                Operator::MemoryGrow { .. } => self.grow,
                _ => continue,
            };
            out.extend_from_slice(&section.contents[copied..start]);
            Instruction::Call(stand_in).encode(&mut out);
            copied = operators.original_position();
        }
        out.extend_from_slice(&section.contents[copied..body.range().end]);
        Ok(out)
    }

    /// `memory.size`: the size in which the module believes.
    ///
    /// The memory ends where the spare pages do, or where the module believes that it does, if it has used them up. If
    /// it ends elsewhere, somebody else has grown it: what is behind the spare pages is not the module's to give out, so
    /// it gives up what it has of them and believes in the real size.
    fn size_function(&self, memory: &Memory) -> Function {
        let spare_end = memory.spare_end.cast_signed();
        let real = 0;
        let mut function = Function::new([(1, ValType::I32)]);
        function
            .instructions()
            .memory_size(0)
            .local_tee(real)
            // The larger of the two ends.
            .global_get(self.believed)
            .i32_const(spare_end)
            .global_get(self.believed)
            .i32_const(spare_end)
            .i32_gt_u()
            .select()
            .i32_ne()
            .if_(BlockType::Empty)
            .local_get(real)
            .global_set(self.believed)
            .end()
            .global_get(self.believed)
            .end();
        function
    }

    /// `memory.grow`: the size in which the module believed, or -1.
    ///
    /// Pages are counted without a sign. Nothing overflows: what is spare is never more than the memory has, and what is
    /// missing is never more than what was wanted. The real growth fails exactly when that of the module as it was would
    /// have, since both end at the same size.
    fn grow_function(&self) -> Function {
        let (wanted, old, spare) = (0, 1, 2);
        let mut function = Function::new([(2, ValType::I32)]);
        function
            .instructions()
            .call(self.size)
            .local_set(old)
            // The spare pages that are left.
            .memory_size(0)
            .local_get(old)
            .i32_sub()
            .local_set(spare)
            // What they do not cover is a real growth.
            .local_get(wanted)
            .local_get(spare)
            .i32_gt_u()
            .if_(BlockType::Empty)
            .local_get(wanted)
            .local_get(spare)
            .i32_sub()
            .memory_grow(0)
            .i32_const(-1)
            .i32_eq()
            .if_(BlockType::Empty)
            .i32_const(-1)
            .return_()
            .end()
            .end()
            .local_get(old)
            .local_get(wanted)
            .i32_add()
            .global_set(self.believed)
            .local_get(old)
            .end();
        function
    }
}
