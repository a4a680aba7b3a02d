//! The erasure ledger's table, and what ledger and keys learn from one another when a store is opened.

use quorate_foundations::time::Wall;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    connection::{corrupt, failed},
    keys::KeyFile,
    run,
};
use crate::store::{
    StoreError,
    erasure::{self, Erasure, SubjectHash},
};

const LEDGER: &str = "using the erasure ledger";
const COLUMNS: &str = "entry, subject, generation, erased_at, chain, sum";

/// A row of the table.
pub(super) struct Entry {
    entry: i64,
    erasure: Erasure,
    chain: i64,
}

impl Entry {
    /// Reads a row; `Err` inside says that it is not what was written.
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Result<Self, StoreError>> {
        let erasure = Erasure {
            subject: SubjectHash::from_bytes(row.get(1)?),
            generation: row.get(2)?,
            erased_at: Wall::from_unix_nanos(row.get(3)?),
        };
        let read = Self { entry: row.get(0)?, erasure, chain: row.get(4)? };
        let sound = row.get::<_, u32>(5)? == sum(read.entry, &erasure, read.chain);
        let place = format!("quorate_erasure, row {}", read.entry);
        Ok(if sound { Ok(read) } else { Err(corrupt(place, "the checksum does not match")) })
    }

    /// The entry.
    fn shown(&self) -> erasure::Entry {
        erasure::Entry { number: self.entry.cast_unsigned(), erasure: self.erasure }
    }

    /// Its chain, if it follows the entry whose chain is `previous`.
    pub(super) fn after(&self, previous: i64) -> Result<i64, StoreError> {
        let missing =
            || corrupt(format!("quorate_erasure, row {}", self.entry), "it does not follow from the one before");
        (self.chain == link(previous, &self.erasure)).then_some(self.chain).ok_or_else(missing)
    }
}

fn sum(entry: i64, erasure: &Erasure, chain: i64) -> u32 {
    run::checksum(&entry.to_le_bytes(), &bytes(chain, erasure))
}

/// What identifies a ledger: covers its last entry and, through the one before, all earlier ones.
fn link(previous: i64, erasure: &Erasure) -> i64 {
    let hash = blake3::hash(&bytes(previous, erasure));
    i64::from_le_bytes(*hash.as_bytes().first_chunk().unwrap_or_else(|| unreachable!("a hash has 32 bytes")))
}

fn bytes(chain: i64, erasure: &Erasure) -> Vec<u8> {
    let mut bytes = erasure.subject.as_bytes().to_vec();
    bytes.extend_from_slice(&erasure.generation.to_le_bytes());
    bytes.extend_from_slice(&erasure.erased_at.unix_nanos().to_le_bytes());
    bytes.extend_from_slice(&chain.to_le_bytes());
    bytes
}

/// The statement that reads all rows, for [`Entry::read`].
pub(super) fn select_all() -> String {
    format!("SELECT {COLUMNS} FROM quorate_erasure ORDER BY entry")
}

/// All entries, oldest first.
pub(super) fn all(connection: &Connection) -> Result<Vec<Erasure>, StoreError> {
    let mut select = connection.prepare(&select_all()).map_err(failed(LEDGER))?;
    let rows = select.query_map([], Entry::read).map_err(failed(LEDGER))?;
    rows.map(|row| Ok(row.map_err(failed(LEDGER))??.erasure)).collect()
}

/// At most `limit` entries behind entry `after`, oldest first.
pub(super) fn page(connection: &Connection, after: u64, limit: usize) -> Result<Vec<erasure::Entry>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM quorate_erasure WHERE entry > ?1 ORDER BY entry LIMIT ?2");
    let (after, limit) = (i64::try_from(after).unwrap_or(i64::MAX), i64::try_from(limit).unwrap_or(i64::MAX));
    let mut select = connection.prepare_cached(&sql).map_err(failed(LEDGER))?;
    let rows = select.query_map([after, limit], Entry::read).map_err(failed(LEDGER))?;
    rows.map(|row| Ok(row.map_err(failed(LEDGER))??.shown())).collect()
}

/// The newest entry of `subject`.
pub(super) fn newest(connection: &Connection, subject: &SubjectHash) -> Result<Option<erasure::Entry>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM quorate_erasure WHERE subject = ?1 ORDER BY generation DESC LIMIT 1");
    let mut select = connection.prepare_cached(&sql).map_err(failed(LEDGER))?;
    let mut rows = select.query_map([subject.as_bytes()], Entry::read).map_err(failed(LEDGER))?;
    rows.next().map(|row| Ok(row.map_err(failed(LEDGER))??.shown())).transpose()
}

/// Adds an entry, in the caller's transaction, unless it or a later one of the subject is there; whether it did.
pub(super) fn add(connection: &Connection, erasure: &Erasure) -> Result<bool, StoreError> {
    if newest(connection, &erasure.subject)?.is_some_and(|known| known.erasure.generation >= erasure.generation) {
        return Ok(false);
    }
    let Head { entries, chain } = head(connection)?;
    let (entry, chain) = (entries + 1, link(chain, erasure));
    let sql = format!("INSERT INTO quorate_erasure ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6)");
    let values = params![
        entry,
        erasure.subject.as_bytes(),
        erasure.generation,
        erasure.erased_at.unix_nanos(),
        chain,
        sum(entry, erasure, chain)
    ];
    let mut insert = connection.prepare_cached(&sql).map_err(failed(LEDGER))?;
    insert.execute(values).map(|_| true).map_err(failed(LEDGER))
}

/// Where a ledger ends.
pub(super) struct Head {
    /// How many entries it has.
    pub(super) entries: i64,
    /// What no ledger with other entries has.
    pub(super) chain: i64,
}

/// Where the ledger ends.
pub(super) fn head(connection: &Connection) -> Result<Head, StoreError> {
    let sql = "SELECT entry, chain FROM quorate_erasure ORDER BY entry DESC LIMIT 1";
    let mut select = connection.prepare_cached(sql).map_err(failed(LEDGER))?;
    let last = select.query_row([], |row| Ok(Head { entries: row.get(0)?, chain: row.get(1)? })).optional();
    Ok(last.map_err(failed(LEDGER))?.unwrap_or(Head { entries: 0, chain: 0 }))
}

/// Adds `erasures`, in a transaction of its own.
pub(super) fn add_all(connection: &Connection, erasures: &[Erasure]) -> Result<(), StoreError> {
    let run = |sql: &str| connection.execute_batch(sql).map_err(failed(LEDGER));
    run("BEGIN IMMEDIATE")?;
    let added = erasures.iter().try_for_each(|erasure| add(connection, erasure).map(|_| ()));
    match added.and_then(|()| run("COMMIT")) {
        Ok(()) => Ok(()),
        Err(cause) => {
            let _ = run("ROLLBACK");
            Err(cause)
        }
    }
}

/// Lets ledger and keys learn from one another what was erased: after a crash between the two, and after one of them was
/// restored from an older copy. Nothing is read from the store before this is done.
pub(super) fn reconcile(connection: &Connection, keys: &KeyFile) -> Result<(), StoreError> {
    if keys.followed()? == head(connection)?.chain {
        return Ok(());
    }
    // Ordering: the ledger first, as in every erasure, so that a key is never gone without a word why.
    add_all(connection, &keys.erasures()?)?;
    keys.destroy(all(connection)?, head(connection)?.chain)
}
