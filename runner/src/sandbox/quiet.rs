//! Rewrites components so that an attempt changes no page tables. (A stub: leaves everything as it is.)

/// Names the rewriting, in the key of the compiled code.
pub const VERSION: u32 = 0;

/// What became of a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewritten {
    /// A new one.
    Rewritten {
        /// It.
        bytes: Vec<u8>,
        /// How many core modules were rewritten.
        modules: usize,
    },
    /// The same.
    Unchanged {
        /// Why.
        reason: String,
    },
}

/// Rewrites a component.
pub fn rewrite(_component: &[u8], _spare_pages: u32) -> Rewritten {
    Rewritten::Unchanged { reason: "not implemented".to_owned() }
}
