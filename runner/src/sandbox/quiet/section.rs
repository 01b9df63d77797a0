//! The sections of which a module and a component are made: what is not changed is copied byte for byte.

use wasm_encoder::Encode;
use wasmparser::BinaryReader;

use super::Result;

/// A module and a component alike start with a magic number and a version, of eight bytes together.
const HEADER_BYTES: usize = 8;

/// One section of a module or a component.
#[derive(Clone, Copy)]
pub(super) struct Section<'a> {
    pub(super) id: u8,
    pub(super) contents: &'a [u8],
}

/// The sections of a module or a component, in their order.
pub(super) fn sections(binary: &[u8]) -> Result<Vec<Section<'_>>> {
    let mut reader = BinaryReader::new(binary, 0);
    reader.read_bytes(HEADER_BYTES)?;
    let mut sections = Vec::new();
    while !reader.eof() {
        let id = reader.read_u8()?;
        let size = reader.read_var_u32()? as usize;
        sections.push(Section { id, contents: reader.read_bytes(size)? });
    }
    Ok(sections)
}

/// The contents of a section that was newly made: it encodes itself with its size in front.
pub(super) fn contents(new: &impl Encode) -> Result<Vec<u8>> {
    let mut encoded = Vec::new();
    new.encode(&mut encoded);
    let mut reader = BinaryReader::new(&encoded, 0);
    let size = reader.read_var_u32()? as usize;
    Ok(reader.read_bytes(size)?.to_vec())
}

// === impl Section ===

impl<'a> Section<'a> {
    /// How many items the section has. Not every section is a list of them.
    pub(super) fn count(&self) -> Result<u32> {
        BinaryReader::new(self.contents, 0).read_var_u32()
    }

    /// A reader of the contents, for the parser's section readers.
    pub(super) fn reader(&self) -> BinaryReader<'a> {
        BinaryReader::new(self.contents, 0)
    }

    /// The name of a custom section.
    pub(super) fn custom_name(&self) -> Result<&'a str> {
        self.reader().read_string()
    }

    /// The contents with the items of a new section of the same kind behind their own.
    pub(super) fn appended(&self, new: &impl Encode) -> Result<Vec<u8>> {
        let new = contents(new)?;
        let (mut old_items, mut new_items) = (self.reader(), BinaryReader::new(&new, 0));
        let items = old_items.read_var_u32()? + new_items.read_var_u32()?;
        let mut out = Vec::with_capacity(self.contents.len() + new.len());
        items.encode(&mut out);
        out.extend_from_slice(old_items.read_bytes(old_items.bytes_remaining())?);
        out.extend_from_slice(new_items.read_bytes(new_items.bytes_remaining())?);
        Ok(out)
    }
}

/// Writes a section.
pub(super) fn write(id: u8, contents: &[u8], out: &mut Vec<u8>) {
    out.push(id);
    contents.encode(out);
}
