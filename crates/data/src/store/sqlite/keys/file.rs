//! The second file: `<store>.keys`, a small database of its own.
//!
//! One connection, which locks the file for itself. A row is a subject: the key of today, if any, and up to which
//! generation keys are destroyed. A destroyed key is overwritten with zeros in its page (`secure_delete`), and the
//! write-ahead log is emptied, before an erasure is acknowledged.

use std::{
    cell::Cell,
    path::{Path, PathBuf},
};

use quorate_foundations::time::Wall;
use quorate_runtime::random::Rng;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};

use super::{
    super::{
        connection::{BUSY, corrupt, explained, failed, is_fatal},
        open::damaged,
        run, tables,
        verify::note,
        vfs,
    },
    cache::Subject,
};
use crate::store::{
    OpenError, StoreError, Verified,
    erasure::{Erasure, SubjectHash, SubjectKey},
};

/// Marks a database as a quorate store's keys: "quok".
pub(in crate::store::sqlite) const APPLICATION_ID: i32 = 0x7175_6f6b;
const VERSION: u32 = 1;
const KEYS: &str = "using the keys";
/// The log is written back once it has so many pages.
const CHECKPOINT_FRAMES: usize = 1_000;

const TABLES: &str = "
    -- What the file knows of itself: whose keys these are, which ledger it follows, and how many keys were ever made.
    CREATE TABLE quorate_keys_meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL, sum INTEGER NOT NULL) WITHOUT ROWID;
    -- `secret` is NULL once destroyed; `erased` is the last generation that was, zero before the first.
    CREATE TABLE quorate_key (subject BLOB PRIMARY KEY, generation INTEGER NOT NULL, secret BLOB,
        erased INTEGER NOT NULL, erased_at INTEGER NOT NULL, sum INTEGER NOT NULL) WITHOUT ROWID;
";

/// The open file.
pub(in crate::store::sqlite) struct KeyFile {
    connection: Connection,
    /// How many keys were ever made in it, those included that are destroyed.
    made: Cell<i64>,
}

/// Where the keys of the store at `store` are.
pub(in crate::store::sqlite) fn path_of(store: &Path) -> PathBuf {
    let mut path = store.as_os_str().to_owned();
    path.push(".keys");
    path.into()
}

/// Whether the file at `path` is none, or one that nothing was ever written to.
pub(in crate::store::sqlite) fn holds_nothing(path: &Path) -> Result<bool, OpenError> {
    let io = |cause: rusqlite::Error| tables::open_error(path, cause);
    let connection = connect(path).map_err(io)?;
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(io);
    for sql in ["PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_schema"] {
        if number(sql)? != 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A row of `quorate_key`.
struct KeyRow {
    subject: SubjectHash,
    generation: u32,
    secret: Option<[u8; 32]>,
    erased: u32,
    erased_at: i64,
}

impl KeyRow {
    const COLUMNS: &str = "subject, generation, secret, erased, erased_at, sum";

    fn new(subject: SubjectHash) -> Self {
        Self { subject, generation: 0, secret: None, erased: 0, erased_at: 0 }
    }

    /// Reads a row; `Err` inside says that it is not what was written.
    fn read(row: &Row<'_>) -> rusqlite::Result<Result<Self, StoreError>> {
        let read = Self {
            subject: SubjectHash::from_bytes(row.get(0)?),
            generation: row.get(1)?,
            secret: row.get(2)?,
            erased: row.get(3)?,
            erased_at: row.get(4)?,
        };
        let sum: u32 = row.get(5)?;
        let place = || format!("quorate_key, row {}", read.subject);
        Ok(if sum == read.sum() { Ok(read) } else { Err(corrupt(place(), "the checksum does not match")) })
    }

    fn sum(&self) -> u32 {
        let mut bytes = self.secret.map_or_else(Vec::new, |secret| secret.to_vec());
        bytes.extend_from_slice(&self.generation.to_le_bytes());
        bytes.extend_from_slice(&self.erased.to_le_bytes());
        bytes.extend_from_slice(&self.erased_at.to_le_bytes());
        run::checksum(self.subject.as_bytes(), &bytes)
    }

    fn subject(&self) -> Subject {
        let key = |secret| SubjectKey::new(self.generation, &secret).into();
        Subject { erased: self.erased, live: self.secret.map(key) }
    }
}

impl KeyFile {
    /// Opens the file of `store`'s keys. One that is not there, or has nothing in it, is made where it `may_begin`: an empty
    /// one is what a copy leaves that found no room.
    pub(in crate::store::sqlite) fn open(path: &Path, store: u64, may_begin: bool) -> Result<Self, OpenError> {
        let io = |cause: rusqlite::Error| tables::open_error(path, cause);
        let connection = connect(path).map_err(io)?;
        let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(io)?;
        let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(io)?;
        let tables: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(io)?;
        vfs::check_log(&connection).map_err(|cause| damaged(path, cause))?;
        let file = Self { connection, made: Cell::new(0) };
        match (application, version) {
            (0, 0) if tables == 0 && !may_begin => return Err(OpenError::KeysMissing { path: path.into() }),
            (0, 0) if tables == 0 && vfs::is_checked(&file.connection) => file.create(store).map_err(io)?,
            (APPLICATION_ID, VERSION) => {}
            (APPLICATION_ID, found) => return Err(OpenError::Newer { path: path.into(), found, known: VERSION }),
            _ => return Err(OpenError::Foreign { path: path.into() }),
        }
        let damaged = |cause| damaged(path, cause);
        let found = file.meta("store").map_err(damaged)?.cast_unsigned();
        if found != store {
            return Err(OpenError::KeysOfAnotherStore { path: path.into(), found, expected: store });
        }
        file.made.set(file.count_made().map_err(damaged)?);
        vfs::tidy_at_close(&file.connection, true).map_err(io)?;
        Ok(file)
    }

    fn create(&self, store: u64) -> rusqlite::Result<()> {
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        self.connection.execute_batch(TABLES)?;
        self.set_meta("store", store.cast_signed())?;
        self.set_meta("followed", 0)?;
        self.connection.pragma_update(None, "application_id", APPLICATION_ID)?;
        self.connection.pragma_update(None, "user_version", VERSION)?;
        self.connection.execute_batch("COMMIT")
    }

    /// How many keys were ever made. Only a copy of the file that is older says fewer.
    pub(in crate::store::sqlite) fn made(&self) -> i64 {
        self.made.get()
    }

    fn count_made(&self) -> Result<i64, StoreError> {
        // Files of earlier builds do not say so; as many rows there are at least.
        let rows = || self.connection.query_row("SELECT count(*) FROM quorate_key", [], |row| row.get(0));
        self.meta_if_there("made")?.map_or_else(|| rows().map_err(failed(KEYS)), Ok)
    }

    /// What the file says of `subject`.
    pub(in crate::store::sqlite) fn find(&self, subject: &SubjectHash) -> Result<Option<Subject>, StoreError> {
        Ok(self.row(subject)?.map(|row| row.subject()))
    }

    fn row(&self, subject: &SubjectHash) -> Result<Option<KeyRow>, StoreError> {
        let sql = format!("SELECT {} FROM quorate_key WHERE subject = ?1", KeyRow::COLUMNS);
        let mut select = self.connection.prepare_cached(&sql).map_err(failed(KEYS))?;
        select.query_row([subject.as_bytes()], KeyRow::read).optional().map_err(failed(KEYS))?.transpose()
    }

    fn put(&self, row: &KeyRow) -> Result<(), StoreError> {
        let sql = format!("INSERT OR REPLACE INTO quorate_key ({}) VALUES (?1, ?2, ?3, ?4, ?5, ?6)", KeyRow::COLUMNS);
        let secret = row.secret.as_ref().map(|secret| &secret[..]);
        let values = params![row.subject.as_bytes(), row.generation, secret, row.erased, row.erased_at, row.sum()];
        let mut put = self.connection.prepare_cached(&sql).map_err(failed(KEYS))?;
        put.execute(values).map(|_| ()).map_err(failed(KEYS))
    }

    /// The living keys of `subjects`, in their order; makes those that are not there. They are durable afterwards.
    pub(in crate::store::sqlite) fn live(
        &self,
        subjects: impl IntoIterator<Item = SubjectHash>,
        random: &mut Rng,
    ) -> Result<Vec<(SubjectHash, Subject)>, StoreError> {
        let (found, made) = self.in_transaction(|| {
            let (mut found, mut made) = (Vec::new(), self.made.get());
            for subject in subjects {
                let mut row = self.row(&subject)?.unwrap_or_else(|| KeyRow::new(subject));
                if row.secret.is_none() {
                    let mut secret = [0; 32];
                    random.fill(&mut secret);
                    row = KeyRow { generation: row.generation.max(row.erased) + 1, secret: Some(secret), ..row };
                    self.put(&row)?;
                    made += 1;
                }
                found.push((subject, row.subject()));
            }
            if made > self.made.get() {
                self.set_meta("made", made).map_err(failed(KEYS))?;
            }
            Ok((found, made))
        })?;
        self.made.set(made);
        Ok(found)
    }

    /// Destroys the keys of `erasures`, for good, and takes note of the ledger they stand in.
    pub(in crate::store::sqlite) fn destroy(
        &self,
        erasures: impl IntoIterator<Item = Erasure>,
        followed: i64,
    ) -> Result<(), StoreError> {
        self.in_transaction(|| {
            for erasure in erasures {
                let row = self.row(&erasure.subject)?.unwrap_or_else(|| KeyRow::new(erasure.subject));
                if row.erased < erasure.generation {
                    let secret = row.secret.filter(|_| row.generation > erasure.generation);
                    let (erased, erased_at) = (erasure.generation, erasure.erased_at.unix_nanos());
                    self.put(&KeyRow { secret, erased, erased_at, ..row })?;
                }
            }
            self.set_meta("followed", followed).map_err(failed(KEYS))
        })?;
        self.scrub()
    }

    /// Empties the write-ahead log, in which a destroyed key may stand. Nobody else reads the file: nobody is in the way.
    fn scrub(&self) -> Result<(), StoreError> {
        let busy: i64 = self
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
            .map_err(failed("destroying a key"))?;
        assert_eq!(busy, 0, "invariant: the keys have one connection");
        Ok(())
    }

    /// Every erasure that the file knows of.
    pub(in crate::store::sqlite) fn erasures(&self) -> Result<Vec<Erasure>, StoreError> {
        let sql = format!("SELECT {} FROM quorate_key WHERE erased > 0 ORDER BY erased_at", KeyRow::COLUMNS);
        let mut select = self.connection.prepare(&sql).map_err(failed(KEYS))?;
        let rows = select.query_map([], KeyRow::read).map_err(failed(KEYS))?;
        let erasure = |row: KeyRow| Erasure {
            subject: row.subject,
            generation: row.erased,
            erased_at: Wall::from_unix_nanos(row.erased_at),
        };
        rows.map(|row| row.map_err(failed(KEYS))?.map(erasure)).collect()
    }

    /// The chain of the ledger that it follows: see `ledger::Head`.
    pub(in crate::store::sqlite) fn followed(&self) -> Result<i64, StoreError> {
        self.meta("followed")
    }

    fn meta(&self, key: &'static str) -> Result<i64, StoreError> {
        let missing = || corrupt(format!("quorate_keys_meta, row `{key}`"), "it is missing");
        self.meta_if_there(key)?.ok_or_else(missing)
    }

    fn meta_if_there(&self, key: &'static str) -> Result<Option<i64>, StoreError> {
        const READING: &str = "reading quorate_keys_meta";
        let sql = "SELECT value, sum FROM quorate_keys_meta WHERE key = ?1";
        let mut select = self.connection.prepare_cached(sql).map_err(failed(READING))?;
        let row: Option<(i64, u32)> =
            select.query_row([key], |row| Ok((row.get(0)?, row.get(1)?))).optional().map_err(failed(READING))?;
        match row {
            Some((value, sum)) if sum != tables::meta_sum(key, value) => {
                Err(corrupt(format!("quorate_keys_meta, row `{key}`"), "the checksum does not match"))
            }
            row => Ok(row.map(|(value, _)| value)),
        }
    }

    fn set_meta(&self, key: &'static str, value: i64) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO quorate_keys_meta (key, value, sum) VALUES (?1, ?2, ?3)")?
            .execute(params![key, value, tables::meta_sum(key, value)])
            .map(|_| ())
    }

    fn in_transaction<T>(&self, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let run = |sql: &str| self.connection.execute_batch(sql).map_err(failed(KEYS));
        run("BEGIN IMMEDIATE")?;
        let done = work().and_then(|value| run("COMMIT").map(|()| value));
        if done.is_err() && !self.connection.is_autocommit() {
            let _ = run("ROLLBACK");
        }
        let value = done.map_err(|cause| explained(&self.connection, cause))?;
        self.checkpoint_if_due()?;
        Ok(value)
    }

    /// Writes the log back once it has grown, and empties it. What could not be written is in the log still; only a failed
    /// sync matters. Nobody reads beside, so that nothing stays in the log that is in the file as well: a newest transaction
    /// that rots there cannot put older pages before newer ones, against which the store has its mark.
    fn checkpoint_if_due(&self) -> Result<(), StoreError> {
        if vfs::log_frames(&self.connection) < CHECKPOINT_FRAMES {
            return Ok(());
        }
        match self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(failed(KEYS)) {
            Err(cause) if is_fatal(&cause) => Err(cause),
            _ => Ok(()),
        }
    }

    /// Writes a copy to `to`.
    pub(in crate::store::sqlite) fn copy(&self, to: &str) -> Result<(), StoreError> {
        let copied = self.connection.execute("VACUUM INTO ?1", [to]);
        copied.map(|_| ()).map_err(|cause| explained(&self.connection, failed("writing a backup of the keys")(cause)))
    }

    /// Checks every stored byte.
    pub(in crate::store::sqlite) fn verify(&self, found: &mut Verified) -> Result<(), StoreError> {
        let scanned = vfs::scan(&self.connection, |place, what| found.find(format!("the file of keys, {place}"), what));
        scanned.map_err(failed(KEYS))?;
        let mut check = self.connection.prepare("PRAGMA integrity_check(20)").map_err(failed(KEYS))?;
        let lines = check.query_map([], |row| row.get::<_, String>(0)).map_err(failed(KEYS))?;
        for line in lines {
            let line = line.unwrap_or_else(|cause| cause.to_string());
            if line != "ok" {
                found.find("the file of keys", line);
            }
        }
        let sql = format!("SELECT {} FROM quorate_key", KeyRow::COLUMNS);
        let mut select = self.connection.prepare(&sql).map_err(failed(KEYS))?;
        for row in select.query_map([], KeyRow::read).map_err(failed(KEYS))? {
            found.rows += 1;
            match row {
                Ok(Ok(_)) => {}
                Ok(Err(cause)) => note(found, &cause),
                Err(cause) => found.find("a row of quorate_key", cause.to_string()),
            }
        }
        for key in ["store", "followed"] {
            found.rows += 1;
            self.meta(key).map_or_else(|cause| note(found, &cause), |_| ());
        }
        self.meta_if_there("made").map_or_else(|cause| note(found, &cause), |_| ());
        Ok(())
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = vfs::connect(path, flags)?;
    connection.busy_timeout(BUSY)?;
    // The lock comes before the journal mode: then no other process ever maps the write-ahead log's index.
    connection.execute_batch(
        "PRAGMA locking_mode = EXCLUSIVE; PRAGMA page_size = 4096; PRAGMA secure_delete = ON;
         PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -2048; PRAGMA temp_store = MEMORY;
         PRAGMA mmap_size = 0; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;",
    )?;
    Ok(connection)
}
