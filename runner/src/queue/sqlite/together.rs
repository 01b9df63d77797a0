//! One statement for many rows: each has a start and an end of its own, between which SQLite remembers where the last row
//! went.

use rusqlite::{Connection, Statement};

/// So many rows share a statement.
const ROWS: usize = 64;

/// A statement in two lengths: for many rows, and for one.
pub(super) struct Together {
    many: String,
    one: String,
}

// === impl Together ===

impl Together {
    /// The statement that `sql` writes for a number of rows.
    pub(super) fn of(sql: impl Fn(usize) -> String) -> Together {
        Together { many: sql(ROWS), one: sql(1) }
    }

    /// Executes it for all `rows`, in their order. `bind` fills in as many as it is given.
    pub(super) fn execute<T>(
        &self,
        connection: &Connection,
        rows: &[T],
        bind: impl Fn(&mut Statement<'_>, &[T]) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        let (many, rest) = rows.as_chunks::<ROWS>();
        let pieces = many.iter().map(|rows| (&self.many, rows.as_slice()));
        for (sql, rows) in pieces.chain(rest.iter().map(|row| (&self.one, std::slice::from_ref(row)))) {
            let mut statement = connection.prepare_cached(sql)?;
            bind(&mut statement, rows)?;
            statement.raw_execute()?;
        }
        Ok(())
    }
}
