//! What a handler keeps from one job to another: who stores it, and what an attempt changes in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::queue::QueueError;

mod draft;

pub use draft::{Draft, Number, Refused};

/// Stores the state of handlers: keys and values, for each handler its own.
pub trait StateStore: std::fmt::Debug + Send + Sync {
    /// What `handler` has, as it is with the first question. It never changes, and holds up nobody who writes.
    fn snapshot(&self, handler: &str) -> Box<dyn Snapshot>;

    /// Which handlers have something that outlives the process, and how much, by name. It blocks.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    fn kept(&self) -> Result<Vec<(String, Size)>, QueueError> {
        Ok(Vec::new())
    }

    /// Deletes that of a handler; answers how much that was. An attempt that runs meanwhile relies on what it read before: if
    /// it counted, it runs again. It blocks.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    fn forget(&self, _handler: &str) -> Result<Size, QueueError> {
        Ok(Size::default())
    }
}

/// What a handler had at one moment.
pub trait Snapshot: Send {
    /// A value.
    ///
    /// # Errors
    ///
    /// It cannot be read, which says nothing about whether it is there.
    fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>, QueueError>;

    /// A value's length in bytes.
    ///
    /// # Errors
    ///
    /// As [`Snapshot::get`].
    fn length(&mut self, key: &str) -> Result<Option<u64>, QueueError>;

    /// All keys.
    ///
    /// # Errors
    ///
    /// As [`Snapshot::get`].
    fn keys(&mut self) -> Result<Vec<String>, QueueError>;

    /// How much all of it is.
    ///
    /// # Errors
    ///
    /// As [`Snapshot::get`].
    fn size(&mut self) -> Result<Size, QueueError>;
}

/// A state in memory, by default an empty one: every attempt finds the same, and what it leaves is forgotten.
#[derive(Debug, Clone, Default)]
pub struct Given(pub BTreeMap<String, Vec<u8>>);

/// How much a handler keeps, or may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Keys.
    pub keys: u64,
    /// Bytes of keys and values together.
    pub bytes: u64,
}

/// What an attempt changes, applied with its settlement: all of it, or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Whose state it is: the handler's name.
    pub handler: Arc<str>,
    /// What it may have in all.
    pub quota: Size,
    /// The values that the attempt leaves; none: the key goes.
    pub writes: BTreeMap<String, Option<Vec<u8>>>,
    /// What must still be so: otherwise another attempt was faster, and this one must see what it did.
    pub expected: BTreeMap<String, Option<Vec<u8>>>,
}

// === impl Given ===

impl StateStore for Given {
    fn snapshot(&self, _: &str) -> Box<dyn Snapshot> {
        Box::new(self.clone())
    }
}

impl Snapshot for Given {
    fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>, QueueError> {
        Ok(self.0.get(key).cloned())
    }

    fn length(&mut self, key: &str) -> Result<Option<u64>, QueueError> {
        Ok(self.0.get(key).map(|value| value.len() as u64))
    }

    fn keys(&mut self) -> Result<Vec<String>, QueueError> {
        Ok(self.0.keys().cloned().collect())
    }

    fn size(&mut self) -> Result<Size, QueueError> {
        let bytes = self.0.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum();
        Ok(Size { keys: self.0.len() as u64, bytes })
    }
}

// === impl Size ===

impl Size {
    /// The size with one value put in another's place.
    #[must_use]
    pub fn with(self, key: &str, before: Option<u64>, after: Option<u64>) -> Size {
        let of = |value: Option<u64>| value.map_or(0, |length| length.saturating_add(key.len() as u64));
        let count = |value: Option<u64>| u64::from(value.is_some());
        Size {
            keys: (self.keys + count(after)).saturating_sub(count(before)),
            bytes: self.bytes.saturating_add(of(after)).saturating_sub(of(before)),
        }
    }

    /// Whether it is within `quota`, or at least no more than `before`: who has too much may make it less.
    pub fn fits(self, quota: Size, before: Size) -> bool {
        self.keys <= quota.keys.max(before.keys) && self.bytes <= quota.bytes.max(before.bytes)
    }
}
