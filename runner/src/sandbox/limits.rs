//! Counts what a guest allocates, over all its memories and tables, against its limits.

use wasmtime::ResourceLimiter;

use super::engine::{MEMORIES_MAX, TABLES_MAX};
use crate::limits::Limits;

/// What one attempt allocates.
#[derive(Debug)]
pub(super) struct Meter {
    memory: Gauge,
    tables: Gauge,
    /// What `quiet` adds to the guest's memories, which the guest did not ask for.
    spare_bytes: u64,
}

/// What was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// Memory: what it would have been altogether, and the limit, in bytes.
    Memory { wanted: u64, limit: u64 },
    /// Tables: the same in elements.
    TableElements { wanted: u64, limit: u64 },
}

/// One sum.
#[derive(Debug)]
struct Gauge {
    limit: u64,
    used: u64,
    peak: u64,
    /// The growth that was allowed last, in case it fails after all.
    last: u64,
    refused: Option<u64>,
}

// === impl Meter ===

impl Meter {
    pub(super) fn new(limits: &Limits, spare_bytes: u64) -> Meter {
        Meter {
            memory: Gauge::new(limits.memory_bytes.saturating_add(spare_bytes)),
            tables: Gauge::new(limits.table_elements),
            spare_bytes,
        }
    }

    /// Another job begins in the same memories and tables.
    pub(super) fn begin(&mut self) {
        for gauge in [&mut self.memory, &mut self.tables] {
            (gauge.peak, gauge.refused) = (gauge.used, None);
        }
    }

    pub(super) fn memory_peak_bytes(&self) -> u64 {
        self.memory.peak
    }

    /// What was refused last, memory before tables.
    pub(super) fn refused(&self) -> Option<Refused> {
        if let Some(wanted) = self.memory.refused {
            return Some(Refused::Memory { wanted, limit: self.memory.limit.saturating_sub(self.spare_bytes) });
        }
        self.tables.refused.map(|wanted| Refused::TableElements { wanted, limit: self.tables.limit })
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let allowed = self.memory.grow(current, desired);
        if let Some(wanted) = self.memory.refused.as_mut().filter(|_| !allowed && current == 0) {
            // At its start a memory has its spare pages beyond what the guest asked for; when it grows, they are used up.
            *wanted = wanted.saturating_sub(self.spare_bytes);
        }
        Ok(allowed)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.memory.undo();
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.tables.grow(current, desired))
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.tables.undo();
        Ok(())
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX as usize
    }

    fn tables(&self) -> usize {
        TABLES_MAX as usize
    }
}

// === impl Gauge ===

impl Gauge {
    fn new(limit: u64) -> Gauge {
        Gauge { limit, used: 0, peak: 0, last: 0, refused: None }
    }

    fn grow(&mut self, current: usize, desired: usize) -> bool {
        let growth = desired.saturating_sub(current) as u64;
        let wanted = self.used.saturating_add(growth);
        if wanted > self.limit {
            self.last = 0;
            self.refused = Some(wanted);
            return false;
        }
        self.last = growth;
        self.used = wanted;
        self.peak = self.peak.max(wanted);
        true
    }

    /// The peak may stay too high for it, which is of no consequence.
    fn undo(&mut self) {
        self.used -= std::mem::take(&mut self.last);
    }
}
