//! The database's tables, and the checks that opening makes.

use std::path::Path;

use quorate_runtime::disk::Disk;
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    connection::{self, APPLICATION_ID, corrupt, extended_code, failed},
    mark, run, vfs,
};
use crate::store::{OpenError, StoreError, Timeline, moving::Gone};

/// The schema's version. Forward only: a newer one is refused. So is 1, which stands for what changed from day to day before
/// the first release.
pub(super) const VERSION: u32 = 2;

// Every row of ours carries a checksum in which its key takes part: `verify` can name the row that rotted.
const TABLES: &str = "
    -- What the store knows of itself.
    CREATE TABLE quorate_meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL, sum INTEGER NOT NULL) WITHOUT ROWID;
    -- The log: see block.rs.
    CREATE TABLE quorate_block (first INTEGER PRIMARY KEY, body BLOB NOT NULL);
    -- Streams as of the `indexed` mark.
    CREATE TABLE quorate_stream (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, version INTEGER NOT NULL,
        first INTEGER NOT NULL, tombstoned INTEGER NOT NULL, hash BLOB NOT NULL, max_count INTEGER NOT NULL,
        max_age INTEGER NOT NULL, metadata INTEGER NOT NULL, sum INTEGER NOT NULL);
    CREATE INDEX quorate_stream_ruled ON quorate_stream (name) WHERE max_count > 0 OR max_age > 0;
    -- The values in a stream's metadata; one row for each stream that has metadata.
    CREATE TABLE quorate_stream_values (stream INTEGER PRIMARY KEY, body TEXT NOT NULL, sum INTEGER NOT NULL);
    -- Versions that are forgotten already, and still to be taken out of the blocks: see retiring.rs.
    CREATE TABLE quorate_retiring (id INTEGER PRIMARY KEY, stream TEXT NOT NULL, next INTEGER NOT NULL,
        last INTEGER NOT NULL, stub INTEGER NOT NULL, archive INTEGER NOT NULL, sum INTEGER NOT NULL);
    -- Archives that were made: see archive.rs. `before` is what the order said, or 0 where it asked for everything.
    CREATE TABLE quorate_archive (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, stream TEXT NOT NULL,
        first INTEGER NOT NULL, last INTEGER NOT NULL, before INTEGER NOT NULL, hash BLOB NOT NULL,
        bytes INTEGER NOT NULL, made_at INTEGER NOT NULL, sum INTEGER NOT NULL);
    CREATE INDEX quorate_archive_by_stream ON quorate_archive (stream, first);
    -- The positions of a stream's events, from version `first` on: see run.rs.
    CREATE TABLE quorate_stream_run (stream INTEGER NOT NULL, first INTEGER NOT NULL, positions BLOB NOT NULL,
        PRIMARY KEY (stream, first)) WITHOUT ROWID;
    -- Types (1), tags (2), categories (3) and data subjects (4) of events.
    CREATE TABLE quorate_term (id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, word TEXT NOT NULL, sum INTEGER NOT NULL,
        UNIQUE (kind, word));
    -- The positions of a term's events, from position `first` on.
    CREATE TABLE quorate_term_run (term INTEGER NOT NULL, first INTEGER NOT NULL, positions BLOB NOT NULL,
        PRIMARY KEY (term, first)) WITHOUT ROWID;
    -- Which events are known: see identity.rs.
    CREATE TABLE quorate_event_id (key BLOB PRIMARY KEY, position INTEGER NOT NULL, sum INTEGER NOT NULL) WITHOUT ROWID;
    -- Who was erased: see ledger.rs. `entry` counts from 1.
    CREATE TABLE quorate_erasure (entry INTEGER PRIMARY KEY, subject BLOB NOT NULL, generation INTEGER NOT NULL,
        erased_at INTEGER NOT NULL, chain INTEGER NOT NULL, sum INTEGER NOT NULL, UNIQUE (subject, generation));
    -- The tables of rooms, by version.
    CREATE TABLE quorate_room (room TEXT PRIMARY KEY, version INTEGER NOT NULL, sum INTEGER NOT NULL) WITHOUT ROWID;
";

/// The version of a store that has moved away. It has one table more, and an older quorate takes it for a newer one.
pub(super) const MOVED: u32 = 3;

/// Makes the tables if the file is new, and checks that they are ours otherwise. `store` becomes a new store's id.
pub(super) fn prepare(disk: &dyn Disk, path: &Path, store: u64) -> Result<Connection, OpenError> {
    prepare_if(disk, path, store, recognise)
}

/// As [`prepare`], and a store that has moved is taken for what it was.
pub(super) fn prepare_though_moved(disk: &dyn Disk, path: &Path, store: u64) -> Result<Connection, OpenError> {
    prepare_if(disk, path, store, recognise_though_moved)
}

fn prepare_if(
    disk: &dyn Disk,
    path: &Path,
    store: u64,
    recognise: fn(&Path, &Connection) -> Result<(), OpenError>,
) -> Result<Connection, OpenError> {
    let io = |cause: rusqlite::Error| open_error(path, cause);
    let connection = connection::writer(path).map_err(io)?;
    let application: i32 = pragma(&connection, "application_id").map_err(io)?;
    let version: u32 = pragma(&connection, "user_version").map_err(io)?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(io)?;
    let log = vfs::check_log(&connection).and_then(|()| mark::check(disk, path, &connection));
    log.map_err(|cause| super::open::damaged(path, cause))?;
    match (application, version) {
        (0, 0) if tables == 0 && vfs::is_checked(&connection) => {
            connection::claim(&connection).map_err(io)?;
            create(&connection, store).map_err(io)?;
        }
        _ => {
            recognise(path, &connection)?;
            connection::claim(&connection).map_err(io)?;
        }
    }
    Ok(connection)
}

/// Checks that the database is a store of this version, and here to stay.
pub(super) fn recognise(path: &Path, connection: &Connection) -> Result<(), OpenError> {
    recognise_though_moved(path, connection)?;
    match gone(connection).map_err(|cause| super::open::damaged(path, cause))? {
        None => Ok(()),
        Some(Gone { to, .. }) => Err(OpenError::Moved { path: path.to_owned(), to }),
    }
}

/// Where the store went, if it did.
pub(super) fn gone(connection: &Connection) -> Result<Option<Gone>, StoreError> {
    const READING: &str = "reading quorate_moved";
    if pragma::<u32>(connection, "user_version").map_err(failed(READING))? != MOVED {
        return Ok(None);
    }
    let row = connection
        .query_row("SELECT destination, arrival, sum FROM quorate_moved", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, u32>(2)?))
        })
        .optional()
        .map_err(failed(READING))?;
    let (to, arrival, sum) = row.ok_or_else(|| corrupt("quorate_moved", "its row is missing"))?;
    if sum != meta_sum(&to, arrival) {
        return Err(corrupt("quorate_moved, its row", "the checksum does not match"));
    }
    Ok(Some(Gone { to, arrival: arrival.cast_unsigned() }))
}

/// Notes that the store has moved, in the transaction that is open.
pub(super) fn go(connection: &Connection, gone: &Gone) -> rusqlite::Result<()> {
    connection.execute_batch(
        "CREATE TABLE quorate_moved (one INTEGER PRIMARY KEY, destination TEXT NOT NULL, arrival INTEGER NOT NULL,
             sum INTEGER NOT NULL)",
    )?;
    let arrival = gone.arrival.cast_signed();
    connection.execute(
        "INSERT INTO quorate_moved (one, destination, arrival, sum) VALUES (1, ?1, ?2, ?3)",
        params![gone.to, arrival, meta_sum(&gone.to, arrival)],
    )?;
    connection.pragma_update(None, "user_version", MOVED)
}

/// Checks that the database is a store of this version, whether or not it has moved.
pub(super) fn recognise_though_moved(path: &Path, connection: &Connection) -> Result<(), OpenError> {
    let io = |cause: rusqlite::Error| open_error(path, cause);
    let (path, known) = (path.to_owned(), VERSION);
    match (pragma(connection, "application_id").map_err(io)?, pragma(connection, "user_version").map_err(io)?) {
        (APPLICATION_ID, VERSION | MOVED) => Ok(()),
        (APPLICATION_ID, found) if found < VERSION => Err(OpenError::Older { path, found, known }),
        (APPLICATION_ID, found) => Err(OpenError::Newer { path, found, known }),
        _ => Err(OpenError::Foreign { path }),
    }
}

fn create(connection: &Connection, store: u64) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    connection.execute_batch(TABLES)?;
    set_meta(connection, "store", store.cast_signed())?;
    set_meta(connection, "epoch", 1)?;
    set_meta(connection, "indexed", 0)?;
    set_meta(connection, "sealed", 0)?;
    set_meta(connection, "clock", 0)?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", VERSION)?;
    connection.execute_batch("COMMIT")
}

fn pragma<T: rusqlite::types::FromSql>(connection: &Connection, name: &str) -> rusqlite::Result<T> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

pub(super) fn open_error(path: &Path, cause: rusqlite::Error) -> OpenError {
    let code = extended_code(&cause).unwrap_or(0);
    match code & 0xff {
        rusqlite::ffi::SQLITE_NOTADB => {
            OpenError::Corrupt { path: path.into(), what: "it is not an SQLite database".to_owned() }
        }
        rusqlite::ffi::SQLITE_CORRUPT => OpenError::Corrupt { path: path.into(), what: cause.to_string() },
        rusqlite::ffi::SQLITE_BUSY | rusqlite::ffi::SQLITE_LOCKED => OpenError::Locked { path: path.into() },
        rusqlite::ffi::SQLITE_CANTOPEN | rusqlite::ffi::SQLITE_PERM | rusqlite::ffi::SQLITE_READONLY => {
            OpenError::Io { path: path.into(), cause: std::io::Error::other(cause) }
        }
        _ => super::open::damaged(path, failed("opening the store")(cause)),
    }
}

/// Reads one of the numbers that the store knows of itself.
pub(super) fn meta(connection: &Connection, key: &'static str) -> Result<i64, StoreError> {
    let value = meta_if_any(connection, key)?;
    value.ok_or_else(|| corrupt(format!("quorate_meta, row `{key}`"), "it is missing"))
}

/// Reads one that not every store has.
pub(super) fn meta_if_any(connection: &Connection, key: &'static str) -> Result<Option<i64>, StoreError> {
    let mut select = connection
        .prepare_cached("SELECT value, sum FROM quorate_meta WHERE key = ?1")
        .map_err(failed("reading quorate_meta"))?;
    let row: Option<(i64, u32)> = select
        .query_row([key], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
        .map_err(failed("reading quorate_meta"))?;
    match row {
        Some((value, sum)) if sum != meta_sum(key, value) => {
            Err(corrupt(format!("quorate_meta, row `{key}`"), "the checksum does not match"))
        }
        row => Ok(row.map(|(value, _)| value)),
    }
}

pub(super) fn meta_sum(key: &str, value: i64) -> u32 {
    run::checksum(key.as_bytes(), &value.to_le_bytes())
}

/// Writes one of the numbers that the store knows of itself.
pub(super) fn set_meta(connection: &Connection, key: &'static str, value: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO quorate_meta (key, value, sum) VALUES (?1, ?2, ?3)")?
        .execute(params![key, value, meta_sum(key, value)])
        .map(|_| ())
}

/// Which store and timeline the database is.
pub(super) fn timeline(connection: &Connection) -> Result<Timeline, StoreError> {
    let epoch = u32::try_from(meta(connection, "epoch")?).map_err(|e| corrupt("quorate_meta, row `epoch`", e))?;
    Ok(Timeline { store: meta(connection, "store")?.cast_unsigned(), epoch })
}
