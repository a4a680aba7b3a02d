//! The index tables: where a stream's and a term's events are, for everything behind the tail.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    connection::{corrupt, failed},
    identity::{self, Largest},
    run::{self, MAX_POSITIONS},
    tables,
    tail::{Slot, Tail, TermKind},
};
use crate::{
    event::{ChainHash, Version},
    store::{Rules, StoreError, StreamHead},
};

const READING: &str = "reading the index";

/// The columns of `quorate_stream`, as [`StreamRow::read`] takes them.
pub(super) const STREAM_COLUMNS: &str = "id, name, version, first, tombstoned, hash, max_count, max_age, metadata, sum";

/// A row of `quorate_stream`.
#[derive(Clone, Debug)]
pub(super) struct StreamRow {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) head: StreamHead,
    pub(super) hash: ChainHash,
    sum: u32,
}

impl StreamRow {
    /// Reads the [`STREAM_COLUMNS`] without judging them.
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let head = StreamHead {
            version: Version::new(row.get::<_, i64>(2)?.cast_unsigned()),
            first: Version::new(row.get::<_, i64>(3)?.cast_unsigned()),
            tombstoned: row.get(4)?,
            rules: Rules {
                // Zero is no rule, so that it can stand for none.
                max_count: Some(row.get::<_, i64>(6)?.cast_unsigned()).filter(|count| *count > 0),
                max_age: Some(Duration::from_nanos(row.get::<_, i64>(7)?.cast_unsigned())).filter(|age| !age.is_zero()),
            },
            metadata: Version::new(row.get::<_, i64>(8)?.cast_unsigned()),
        };
        let hash = ChainHash::from_bytes(row.get(5)?);
        Ok(Self { id: row.get(0)?, name: row.get(1)?, head, hash, sum: row.get(9)? })
    }

    /// Whether the row is what was written.
    pub(super) fn check(self) -> Result<Self, StoreError> {
        if self.sum == stream_sum(&self.name, &self.head, &self.hash) {
            return Ok(self);
        }
        Err(corrupt(format!("quorate_stream, row {}", self.id), "the checksum does not match"))
    }
}

fn stream_sum(name: &str, head: &StreamHead, hash: &ChainHash) -> u32 {
    let mut bytes = hash.as_bytes().to_vec();
    bytes.extend_from_slice(&head.version.get().to_le_bytes());
    bytes.extend_from_slice(&head.first.get().to_le_bytes());
    bytes.push(head.tombstoned.into());
    bytes.extend_from_slice(&head.rules.max_count.unwrap_or(0).to_le_bytes());
    bytes.extend_from_slice(&nanos(head.rules.max_age).to_le_bytes());
    bytes.extend_from_slice(&head.metadata.get().to_le_bytes());
    run::checksum(name.as_bytes(), &bytes)
}

fn nanos(span: Option<Duration>) -> i64 {
    span.map_or(0, |span| i64::try_from(span.as_nanos()).unwrap_or(i64::MAX))
}

/// What the tables say of `stream`.
pub(super) fn stream(connection: &Connection, stream: &str) -> Result<Option<StreamRow>, StoreError> {
    let sql = format!("SELECT {STREAM_COLUMNS} FROM quorate_stream WHERE name = ?1");
    let mut select = connection.prepare_cached(&sql).map_err(failed(READING))?;
    let row = select.query_row([stream], StreamRow::read).optional().map_err(failed(READING))?;
    row.map(StreamRow::check).transpose()
}

/// Writes what is known of `stream` and returns the row's id.
pub(super) fn put_stream(
    connection: &Connection,
    stream: &str,
    head: &StreamHead,
    hash: &ChainHash,
) -> rusqlite::Result<i64> {
    connection
        .prepare_cached(
            "INSERT INTO quorate_stream (name, version, first, tombstoned, hash, max_count, max_age, metadata, sum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (name) DO UPDATE SET version = ?2, first = ?3,
             tombstoned = ?4, hash = ?5, max_count = ?6, max_age = ?7, metadata = ?8, sum = ?9 RETURNING id",
        )?
        .query_row(
            params![
                stream,
                head.version.get().cast_signed(),
                head.first.get().cast_signed(),
                head.tombstoned,
                hash.as_bytes(),
                head.rules.max_count.unwrap_or(0).cast_signed(),
                nanos(head.rules.max_age),
                head.metadata.get().cast_signed(),
                stream_sum(stream, head, hash)
            ],
            |row| row.get(0),
        )
}

/// A stretch of a list of positions.
pub(super) struct Run {
    /// The version (of a stream's list) or position (of a term's) that it begins with.
    pub(super) first: u64,
    pub(super) positions: Vec<u64>,
}

fn read_run(table: &'static str, list: i64, first: i64, bytes: &[u8]) -> Result<Run, StoreError> {
    let positions = run::decode(&run::key(list, first), bytes)
        .map_err(|what| corrupt(format!("{table}, row ({list}, {first})"), what))?;
    Ok(Run { first: first.cast_unsigned(), positions })
}

/// Positions of a stream's events with versions from `from` to `to`, ascending, at most `limit`.
pub(super) fn versions(
    connection: &Connection,
    stream: i64,
    from: u64,
    to: u64,
    limit: usize,
) -> Result<Vec<u64>, StoreError> {
    let mut select = connection
        .prepare_cached(
            "SELECT first, positions FROM quorate_stream_run WHERE stream = ?1 AND first <= ?3 AND first >= coalesce(
                (SELECT max(first) FROM quorate_stream_run WHERE stream = ?1 AND first <= ?2), 0) ORDER BY first",
        )
        .map_err(failed(READING))?;
    let mut rows = select.query(params![stream, from.cast_signed(), to.cast_signed()]).map_err(failed(READING))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(failed(READING))? {
        let (first, bytes) = run_columns(row).map_err(failed(READING))?;
        let run = read_run("quorate_stream_run", stream, first, bytes)?;
        let wanted = (run.first..).zip(&run.positions).filter(|(version, _)| (from..=to).contains(version));
        for (version, position) in wanted {
            if version != from + found.len() as u64 {
                let what = format!("version {} should follow here", from + found.len() as u64);
                return Err(corrupt(format!("quorate_stream_run, row ({stream}, {first})"), what));
            }
            found.push(*position);
        }
        if found.len() >= limit {
            break;
        }
    }
    found.truncate(limit);
    // A run that is missing, or stands under another key, must not look like a stream with fewer events.
    let expected = usize::try_from((to + 1).saturating_sub(from)).unwrap_or(usize::MAX).min(limit);
    if found.len() < expected {
        let missing = from + found.len() as u64;
        return Err(corrupt("quorate_stream_run", format!("stream {stream} lists no version {missing}")));
    }
    Ok(found)
}

fn run_columns<'r>(row: &'r Row<'_>) -> rusqlite::Result<(i64, &'r [u8])> {
    Ok((row.get(0)?, row.get_ref(1)?.as_blob()?))
}

/// The id of a term; `None` where no indexed event carries it.
pub(super) fn term(connection: &Connection, kind: TermKind, word: &str) -> Result<Option<i64>, StoreError> {
    let mut select = connection
        .prepare_cached("SELECT id, sum FROM quorate_term WHERE kind = ?1 AND word = ?2")
        .map_err(failed(READING))?;
    let row: Option<(i64, u32)> = select
        .query_row(params![kind as u8, word], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
        .map_err(failed(READING))?;
    match row {
        Some((id, sum)) if sum != term_sum(id, kind as u8, word) => {
            Err(corrupt(format!("quorate_term, row {id}"), "the checksum does not match"))
        }
        found => Ok(found.map(|(id, _)| id)),
    }
}

pub(super) fn term_sum(id: i64, kind: u8, word: &str) -> u32 {
    run::checksum(&run::key(id, i64::from(kind)), word.as_bytes())
}

/// The run of a term's positions that holds the first one behind `after`.
pub(super) fn postings(connection: &Connection, term: i64, after: u64) -> Result<Option<Run>, StoreError> {
    let mut select = connection
        .prepare_cached(
            "SELECT first, positions FROM quorate_term_run WHERE term = ?1 AND first >= coalesce(
                (SELECT max(first) FROM quorate_term_run WHERE term = ?1 AND first <= ?2), 0) ORDER BY first LIMIT 2",
        )
        .map_err(failed(READING))?;
    let mut rows = select.query(params![term, after.cast_signed()]).map_err(failed(READING))?;
    while let Some(row) = rows.next().map_err(failed(READING))? {
        let (first, bytes) = run_columns(row).map_err(failed(READING))?;
        let run = read_run("quorate_term_run", term, first, bytes)?;
        if run.positions.last().is_some_and(|last| *last > after) {
            return Ok(Some(run));
        }
    }
    Ok(None)
}

/// Writes the whole tail into the tables. The caller commits, and drops the tail after.
pub(super) fn write(connection: &Connection, tail: &Tail, largest: &mut Largest) -> rusqlite::Result<()> {
    write_streams(connection, tail)?;
    for kind in TermKind::ALL {
        write_terms(connection, tail, kind)?;
    }
    identity::insert(connection, largest, tail.events_after(tail.indexed()))?;
    tables::set_meta(connection, "indexed", tail.published().cast_signed())
}

fn write_streams(connection: &Connection, tail: &Tail) -> rusqlite::Result<()> {
    let mut changed: Vec<(&str, &Slot)> =
        tail.streams().filter(|(_, slot)| !slot.positions.is_empty()).map(|(name, slot)| (&**name, slot)).collect();
    changed.sort_unstable_by_key(|(name, _)| *name);
    let mut runs = Vec::with_capacity(changed.len());
    for (name, slot) in changed {
        let head = StreamHead { version: slot.version(), ..slot.base };
        runs.push((put_stream(connection, name, &head, &slot.hash())?, slot));
    }
    runs.sort_unstable_by_key(|(id, _)| *id);
    let mut insert =
        connection.prepare_cached("INSERT INTO quorate_stream_run (stream, first, positions) VALUES (?1, ?2, ?3)")?;
    for (id, slot) in runs {
        let firsts = (slot.base.version.get() + 1..).step_by(MAX_POSITIONS);
        for (first, positions) in firsts.zip(slot.positions.chunks(MAX_POSITIONS)) {
            let first = first.cast_signed();
            insert.execute(params![id, first, run::encode(&run::key(id, first), positions)])?;
        }
    }
    Ok(())
}

fn write_terms(connection: &Connection, tail: &Tail, kind: TermKind) -> rusqlite::Result<()> {
    let mut words: Vec<(&str, &[u64])> =
        tail.terms(kind).iter().map(|(word, positions)| (&**word, positions.as_slice())).collect();
    words.sort_unstable();
    let mut runs = Vec::with_capacity(words.len());
    for (word, positions) in words {
        runs.push((put_term(connection, kind, word)?, positions));
    }
    runs.sort_unstable();
    let mut insert =
        connection.prepare_cached("INSERT INTO quorate_term_run (term, first, positions) VALUES (?1, ?2, ?3)")?;
    for (id, positions) in runs {
        for positions in positions.chunks(MAX_POSITIONS) {
            let first = positions[0].cast_signed();
            insert.execute(params![id, first, run::encode(&run::key(id, first), positions)])?;
        }
    }
    Ok(())
}

fn put_term(connection: &Connection, kind: TermKind, word: &str) -> rusqlite::Result<i64> {
    let known = connection
        .prepare_cached("SELECT id FROM quorate_term WHERE kind = ?1 AND word = ?2")?
        .query_row(params![kind as u8, word], |row| row.get(0))
        .optional()?;
    if let Some(id) = known {
        return Ok(id);
    }
    let id: i64 = connection
        .prepare_cached("SELECT coalesce(max(id), 0) + 1 FROM quorate_term")?
        .query_row([], |row| row.get(0))?;
    connection
        .prepare_cached("INSERT INTO quorate_term (id, kind, word, sum) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![id, kind as u8, word, term_sum(id, kind as u8, word)])?;
    Ok(id)
}
