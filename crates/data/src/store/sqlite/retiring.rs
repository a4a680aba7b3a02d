//! What is forgotten already and still lies in the blocks.
//!
//! To forget a stream's events is two things. That they are gone is one row: it commits with the transaction that says so,
//! at once, however many they are. Taking their data out of the blocks is work without a bound, and is done behind it in
//! *slices*, a transaction each, so that nobody waits for long. Until a slice reaches them, the events stand here: whoever
//! reads the log gets the stub that they are going to be.
//!
//! Ordering for readers: a range is looked up before the database is, and leaves this list after the blocks without its
//! data are committed and those with it have left the cache. So each reader finds the range, or blocks that were rewritten.

use std::{collections::BTreeMap, sync::Arc};

use rusqlite::{Connection, Row, params};

use super::{
    connection::{corrupt, failed},
    run,
};
use crate::{
    event::{ArchiveId, Recorded, Stub},
    store::StoreError,
};

const KEEPING: &str = "keeping what is to be forgotten";

/// Versions of one stream that become stubs of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    /// Its row.
    pub(super) id: i64,
    /// The first version that still lies in the blocks.
    pub(super) next: u64,
    pub(super) last: u64,
    pub(super) stub: Stub,
}

/// Ranges by stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Retiring(BTreeMap<Arc<str>, Vec<Range>>);

impl Retiring {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether events of `stream` still lie in the blocks.
    pub(super) fn holds(&self, stream: &str) -> bool {
        self.0.contains_key(stream)
    }

    pub(super) fn add(&mut self, stream: &Arc<str>, range: Range) {
        self.0.entry(stream.clone()).or_default().push(range);
    }

    /// What is to be done next: at most `count` ranges.
    pub(super) fn first(&self, count: usize) -> Vec<(Arc<str>, Range)> {
        let ranges = self.0.iter().flat_map(|(stream, ranges)| ranges.iter().map(|range| (stream.clone(), *range)));
        ranges.take(count).collect()
    }

    /// The versions before `next` of a range are done.
    pub(super) fn advance(&mut self, stream: &str, id: i64, next: u64) {
        let Some(ranges) = self.0.get_mut(stream) else { return };
        ranges.iter_mut().filter(|range| range.id == id).for_each(|range| range.next = next);
        ranges.retain(|range| range.next <= range.last);
        if ranges.is_empty() {
            self.0.remove(stream);
        }
    }

    /// What the log shows of `event`, if that is not what lies in its block.
    pub(super) fn shown(&self, event: &Recorded) -> Option<Recorded> {
        if self.0.is_empty() || event.stub().is_some() {
            return None;
        }
        self.range(event).map(|range| event.to_stub(range.stub))
    }

    /// Whether `event` is one of those that still lie in the blocks.
    pub(super) fn covers(&self, event: &Recorded) -> bool {
        self.range(event).is_some()
    }

    fn range(&self, event: &Recorded) -> Option<&Range> {
        let version = event.version().get();
        self.0.get(event.stream())?.iter().find(|range| (range.next..=range.last).contains(&version))
    }
}

/// Writes down that `stream` forgets versions.
pub(super) fn insert(
    connection: &Connection,
    stream: &str,
    (first, last): (u64, u64),
    stub: Stub,
) -> Result<Range, StoreError> {
    // Not the largest id ever: a range that is gone leaves no reference to its id.
    let id: i64 = connection
        .prepare_cached("SELECT coalesce(max(id), 0) + 1 FROM quorate_retiring")
        .and_then(|mut select| select.query_row([], |row| row.get(0)))
        .map_err(failed(KEEPING))?;
    let range = Range { id, next: first, last, stub };
    put(connection, stream, &range)?;
    Ok(range)
}

/// Writes down how far a range is; one that is done is deleted.
pub(super) fn put(connection: &Connection, stream: &str, range: &Range) -> Result<(), StoreError> {
    if range.next > range.last {
        return connection
            .prepare_cached("DELETE FROM quorate_retiring WHERE id = ?1")
            .and_then(|mut delete| delete.execute([range.id]))
            .map(|_| ())
            .map_err(failed(KEEPING));
    }
    let archive = range.stub.archive().unwrap_or_default().get().cast_signed();
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO quorate_retiring (id, stream, next, last, stub, archive, sum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )
        .and_then(|mut insert| {
            let (next, last) = (range.next.cast_signed(), range.last.cast_signed());
            insert.execute(params![range.id, stream, next, last, range.stub.bits(), archive, sum(stream, range)])
        })
        .map(|_| ())
        .map_err(failed(KEEPING))
}

fn sum(stream: &str, range: &Range) -> u32 {
    let mut bytes = range.next.to_le_bytes().to_vec();
    bytes.extend_from_slice(&range.last.to_le_bytes());
    bytes.push(range.stub.bits());
    bytes.extend_from_slice(&range.stub.archive().unwrap_or_default().get().to_le_bytes());
    bytes.extend_from_slice(stream.as_bytes());
    run::checksum(&range.id.to_le_bytes(), &bytes)
}

/// The columns of a range's row, as [`read`] takes them.
pub(super) const SELECT: &str = "SELECT id, stream, next, last, stub, archive, sum FROM quorate_retiring ORDER BY id";

/// Reads and judges a row.
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Result<(Arc<str>, Range), StoreError>> {
    let stream: Arc<str> = row.get::<_, String>(1)?.into();
    let (bits, archive): (u8, i64) = (row.get(4)?, row.get(5)?);
    let stub = match bits {
        1 => Stub::Truncated,
        2 => Stub::Tombstoned,
        _ => Stub::Archived(ArchiveId::new(archive.cast_unsigned())),
    };
    let number = |n| row.get::<_, i64>(n).map(i64::cast_unsigned);
    let range = Range { id: row.get(0)?, next: number(2)?, last: number(3)?, stub };
    let named = stub.archive().unwrap_or_default().get().cast_signed();
    if row.get::<_, u32>(6)? != sum(&stream, &range) || bits != stub.bits() || archive != named {
        let place = format!("quorate_retiring, row {}", range.id);
        return Ok(Err(corrupt(place, "the checksum does not match")));
    }
    Ok(Ok((stream, range)))
}

/// Everything that is still to be done.
pub(super) fn load(connection: &Connection) -> Result<Retiring, StoreError> {
    let mut select = connection.prepare(SELECT).map_err(failed(KEEPING))?;
    let mut rows = select.query([]).map_err(failed(KEEPING))?;
    let mut retiring = Retiring::default();
    while let Some(row) = rows.next().map_err(failed(KEEPING))? {
        let (stream, range) = read(row).map_err(failed(KEEPING))??;
        retiring.add(&stream, range);
    }
    Ok(retiring)
}
