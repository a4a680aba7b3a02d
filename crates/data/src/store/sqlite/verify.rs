//! Checking every stored byte.
//!
//! First every page of the file, in use or not, and what is live of the write-ahead log.
//!
//! Events are read in order: their blocks' checksums, their place, their link of the hash chain. On the way two digests
//! grow, one of what the index should say and one of what it says; they are sums of hashes, so that the order does not matter
//! and no event or row is kept. What is kept of streams, to hold the next event and the stream's row against it, is
//! bounded: where there are more of them than that, the log is read again for the rest ([`chains`](crate::store::chains)). Rows that belong
//! together are read side by side. So memory does not grow with the store, but for its archives, some 200 bytes each.
//! Every index row has a checksum besides, which names the row that rotted.

mod retention;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use rusqlite::{Connection, Row, ffi::SQLITE_IOERR_DATA};

use super::{
    connection::{extended_code, failed},
    identity,
    index::{STREAM_COLUMNS, StreamRow, term_sum},
    keys::{KeyRing, missing, place},
    ledger, run, schemas, shared,
    sql::CORE,
    tables,
    tail::words,
    vfs,
};
use crate::{
    event::Recorded,
    store::{
        Progress, StoreError, Verified,
        chains::{self, Chains, key},
        rooms::room_sum,
    },
};

const CHECKING: &str = "checking the store";

/// Checks everything, as of one moment.
pub(super) fn run(connection: &Connection, keys: &KeyRing, progress: &Progress) -> Result<Verified, StoreError> {
    run_with(connection, Some(keys), progress, chains::MOST).map(|(found, _)| found)
}

/// Checks everything but whether sealed data can be opened, and returns how many events have some.
pub(super) fn run_without_keys(connection: &Connection, progress: &Progress) -> Result<(Verified, u64), StoreError> {
    run_with(connection, None, progress, chains::MOST)
}

fn run_with(
    connection: &Connection,
    keys: Option<&KeyRing>,
    progress: &Progress,
    most_streams: usize,
) -> Result<(Verified, u64), StoreError> {
    let mut check = Check::new(connection, keys, progress, most_streams)?;
    match check.everything() {
        // Damage where the check itself begins is a finding too: what can be read besides was, or is not worth reading.
        Err(cause @ StoreError::Corrupt { .. }) => note(&mut check.found, &cause),
        checked => checked?,
    }
    Ok((check.found, check.sealed))
}

/// An order-independent digest of a set: the sum of its members' hashes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Digest(u128);

impl Digest {
    fn add(&mut self, kind: u8, word: &[u8], ordinal: u64, position: u64) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[kind]);
        hasher.update(&ordinal.to_le_bytes());
        hasher.update(&position.to_le_bytes());
        hasher.update(word);
        let mut short = [0; 16];
        short.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        self.0 = self.0.wrapping_add(u128::from_le_bytes(short));
    }
}

struct Check<'c> {
    connection: &'c Connection,
    keys: Option<&'c KeyRing>,
    progress: &'c Progress,
    found: Verified,
    /// Events whose data is sealed and was not opened.
    sealed: u64,
    chains: Chains,
    /// What is read for the rest of the streams was looked at before, but for their chains.
    again: bool,
    indexed: u64,
    total: u64,
    should_say: [Digest; 3],
    kept: retention::Kept,
}

/// Which table a digest is of.
const STREAMS: usize = 0;
const TERMS: usize = 1;
const IDS: usize = 2;

impl<'c> Check<'c> {
    fn new(
        connection: &'c Connection,
        keys: Option<&'c KeyRing>,
        progress: &'c Progress,
        most_streams: usize,
    ) -> Result<Self, StoreError> {
        let mut found = Verified::default();
        let indexed = match tables::meta(connection, "indexed") {
            Ok(indexed) => indexed.cast_unsigned(),
            Err(cause) => {
                note(&mut found, &cause);
                0
            }
        };
        Ok(Self {
            connection,
            keys,
            progress,
            found,
            sealed: 0,
            chains: Chains::new(most_streams, u64::MAX),
            again: false,
            indexed,
            total: 0,
            should_say: Default::default(),
            kept: Default::default(),
        })
    }

    fn everything(&mut self) -> Result<(), StoreError> {
        let scanned = vfs::scan(self.connection, |place, what| self.found.find(place, what));
        scanned.map_err(failed(CHECKING))?;
        self.structure()?;
        self.retention()?;
        self.total = self.last_position()?;
        self.log()?;
        let says = [self.stream_runs()?, self.term_runs()?, self.event_ids()?];
        let tables = ["quorate_stream_run", "quorate_term_run", "quorate_event_id"];
        for (n, table) in tables.into_iter().enumerate() {
            if says[n] != self.should_say[n] && self.found.findings.is_empty() {
                self.found.find(table, "its entries are not those of the log");
            }
        }
        self.metadata()?;
        self.meta()?;
        self.rooms()?;
        schemas::verify(self.connection, &mut self.found)?;
        self.ledger()?;
        self.keys.map_or(Ok(()), |keys| keys.verify(&mut self.found))
    }

    /// What SQLite itself can say about its pages.
    fn structure(&mut self) -> Result<(), StoreError> {
        let mut check = self.connection.prepare("PRAGMA integrity_check(20)").map_err(failed(CHECKING))?;
        let lines = check.query_map([], |row| row.get::<_, String>(0)).map_err(failed(CHECKING))?;
        for line in lines {
            match line {
                Ok(line) if line == "ok" => {}
                Ok(line) => self.found.find("the file", line),
                Err(cause) => self.unreadable("the file", cause),
            }
        }
        Ok(())
    }

    /// Takes down what kept something from being read.
    fn unreadable(&mut self, place: &str, cause: rusqlite::Error) {
        if extended_code(&cause) == Some(SQLITE_IOERR_DATA) {
            note(&mut self.found, &failed(CHECKING)(cause));
        } else {
            self.found.find(place, cause.to_string());
        }
    }

    fn last_position(&self) -> Result<u64, StoreError> {
        let sql = "SELECT coalesce(max(first), 0) FROM quorate_block";
        let first: i64 = self.connection.query_row(sql, [], |row| row.get(0)).map_err(failed(CHECKING))?;
        Ok(first.cast_unsigned())
    }

    /// The log, and streams against it.
    fn log(&mut self) -> Result<(), StoreError> {
        loop {
            self.blocks()?;
            self.streams()?;
            self.found.streams += self.chains.len() as u64;
            if !self.chains.next_pass() {
                self.again = false;
                return Ok(());
            }
            self.again = true;
        }
    }

    fn blocks(&mut self) -> Result<(), StoreError> {
        let mut next = 1_u64;
        self.each("SELECT first, body FROM quorate_block ORDER BY first", |check, row| {
            let first: i64 = row.get(0)?;
            let body = Bytes::copy_from_slice(row.get_ref(1)?.as_blob()?);
            if first.cast_unsigned() != next {
                check.found.find(format!("quorate_block, row {first}"), format!("position {next} should follow here"));
            }
            match shared::check(first, body) {
                Ok(block) => {
                    next = block.end();
                    for position in block.first()..block.end() {
                        match shared::in_block(&block, position) {
                            Ok(event) => check.event(&event),
                            Err(cause) => note(&mut check.found, &cause),
                        }
                    }
                }
                Err(cause) => {
                    note(&mut check.found, &cause);
                    next = first.cast_unsigned().wrapping_add(1);
                }
            }
            let total = check.total.max(1);
            (check.progress)(check.chains.progress(first.cast_unsigned(), total), total);
            Ok(())
        })?;
        if next <= self.indexed {
            self.found.find("quorate_block", format!("no row holds position {next}"));
        }
        Ok(())
    }

    fn event(&mut self, event: &Recorded) {
        self.link(event);
        if self.again {
            return;
        }
        self.found.events += 1;
        let position = event.position().get();
        self.kept.event(event, &mut self.found);
        match self.keys.map(|keys| keys.open(event.clone())) {
            None => self.sealed += u64::from(event.is_encrypted()),
            Some(Ok(_)) => {}
            Some(Err(StoreError::KeyMissing { .. })) => self.found.find(place(event), missing(event).to_string()),
            Some(Err(cause)) => note(&mut self.found, &cause),
        }
        if position <= self.indexed {
            let stream = event.stream().as_bytes();
            self.should_say[STREAMS].add(0, stream, event.version().get(), position);
            words(event).for_each(|(kind, word)| self.should_say[TERMS].add(kind as u8, word.as_bytes(), 0, position));
            self.should_say[IDS].add(0, &identity::key(event), 0, position);
        }
    }

    /// Holds an event against the one before it in its stream, if this pass is about that.
    fn link(&mut self, event: &Recorded) {
        let is_indexed = event.position().get() <= self.indexed;
        let Some(chain) = self.chains.stream(key(event.stream()), is_indexed) else { return };
        if event.version().get() != chain.version + 1 {
            self.found.find(place(event), format!("version {} should follow here", chain.version + 1));
        } else if !event.follows(&chain.hash) {
            self.found.find(place(event), "its hash does not follow from the event before");
        }
        (chain.version, chain.hash) = (event.version().get(), event.hash());
        if self.kept.is_forgotten(event) {
            chain.forgotten = chain.version;
        } else if chain.kept == 0 {
            chain.kept = chain.version;
        }
    }

    /// Rows of streams against the log.
    fn streams(&mut self) -> Result<(), StoreError> {
        let select = format!("SELECT {STREAM_COLUMNS} FROM quorate_stream");
        self.each(&select, |check, row| {
            match StreamRow::read(row)?.check() {
                Ok(row) => {
                    if let Some(what) = check.chains.differs(&row.name, &row.head, &row.hash) {
                        check.found.find(format!("quorate_stream, row {}", row.id), what);
                    }
                }
                Err(cause) => note(&mut check.found, &cause),
            }
            Ok(())
        })
    }

    /// Runs of streams against their rows and the log.
    fn stream_runs(&mut self) -> Result<Digest, StoreError> {
        let (mut says, mut last) = (Digest::default(), Listed::default());
        self.runs(
            "SELECT r.stream, r.first, r.positions, s.name, s.version FROM quorate_stream_run r
             LEFT JOIN quorate_stream s ON s.id = r.stream ORDER BY r.stream, r.first",
            "quorate_stream_run",
            |found, row, first, positions| {
                let (id, Some(name)) = (row.get(0)?, row.get::<_, Option<String>>(3)?) else { return Ok(false) };
                if last.id != id {
                    std::mem::replace(&mut last, Listed { id, unlisted: row.get(4)?, name: name.clone() }).check(found);
                }
                last.unlisted = last.unlisted.wrapping_sub(i64::try_from(positions.len()).unwrap_or(i64::MAX));
                for (version, position) in (first..).zip(positions) {
                    says.add(0, name.as_bytes(), version, *position);
                }
                Ok(true)
            },
        )?;
        last.check(&mut self.found);
        let without = "SELECT id, name, version FROM quorate_stream s WHERE version > 0
            AND NOT EXISTS (SELECT 1 FROM quorate_stream_run WHERE stream = s.id)";
        self.each(without, |check, row| {
            Listed { id: row.get(0)?, name: row.get(1)?, unlisted: row.get(2)? }.check(&mut check.found);
            Ok(())
        })?;
        Ok(says)
    }

    fn term_runs(&mut self) -> Result<Digest, StoreError> {
        self.each("SELECT id, kind, word, sum FROM quorate_term", |check, row| {
            let (id, kind, word): (i64, u8, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            if row.get::<_, u32>(3)? != term_sum(id, kind, &word) {
                check.found.find(format!("quorate_term, row {id}"), "the checksum does not match");
            }
            Ok(())
        })?;
        let mut says = Digest::default();
        self.runs(
            "SELECT r.term, r.first, r.positions, t.kind, t.word FROM quorate_term_run r
             LEFT JOIN quorate_term t ON t.id = r.term ORDER BY r.term, r.first",
            "quorate_term_run",
            |_, row, _, positions| {
                let (Some(kind), Some(word)) = (row.get(3)?, row.get::<_, Option<String>>(4)?) else {
                    return Ok(false);
                };
                positions.iter().for_each(|position| says.add(kind, word.as_bytes(), 0, *position));
                Ok(true)
            },
        )?;
        Ok(says)
    }

    /// Decodes runs, and has `take` hold each against its row: whether there is one whose it is.
    fn runs(
        &mut self,
        select: &str,
        table: &str,
        mut take: impl FnMut(&mut Verified, &Row<'_>, u64, &[u64]) -> rusqlite::Result<bool>,
    ) -> Result<(), StoreError> {
        self.each(select, |check, row| {
            let (list, first): (i64, i64) = (row.get(0)?, row.get(1)?);
            let place = || format!("{table}, row ({list}, {first})");
            match run::decode(&run::key(list, first), row.get_ref(2)?.as_blob()?) {
                Ok(positions) => {
                    if !take(&mut check.found, row, first.cast_unsigned(), &positions)? {
                        check.found.find(place(), "it belongs to nothing");
                    }
                }
                Err(what) => check.found.find(place(), what.to_string()),
            }
            Ok(())
        })
    }

    fn event_ids(&mut self) -> Result<Digest, StoreError> {
        let mut says = Digest::default();
        self.each("SELECT key, position, sum FROM quorate_event_id", |check, row| {
            let (key, position): (Vec<u8>, i64) = (row.get(0)?, row.get(1)?);
            if row.get::<_, u32>(2)? != identity::checksum(&key, position) {
                check
                    .found
                    .find(format!("quorate_event_id, the row of position {position}"), "the checksum does not match");
            }
            says.add(0, &key, 0, position.cast_unsigned());
            Ok(())
        })?;
        Ok(says)
    }

    fn meta(&mut self) -> Result<(), StoreError> {
        self.each("SELECT key, value, sum FROM quorate_meta", |check, row| {
            let (key, value): (String, i64) = (row.get(0)?, row.get(1)?);
            if row.get::<_, u32>(2)? != tables::meta_sum(&key, value) {
                check.found.find(format!("quorate_meta, row `{key}`"), "the checksum does not match");
            }
            Ok(())
        })
    }

    fn rooms(&mut self) -> Result<(), StoreError> {
        let mut rooms: Vec<String> = Vec::new();
        self.each("SELECT room, version, sum FROM quorate_room", |check, row| {
            let (room, version): (String, i64) = (row.get(0)?, row.get(1)?);
            if row.get::<_, i64>(2)? != room_sum(&room, version) {
                check.found.find(format!("quorate_room, row `{room}`"), "the checksum does not match");
            }
            rooms.push(room);
            Ok(())
        })?;
        let belongs = |table: &str| {
            let rest = table.strip_prefix("quorate_").unwrap_or_default();
            rooms
                .iter()
                .any(|room| rest.strip_prefix(room.as_str()).is_some_and(|r| r.is_empty() || r.starts_with('_')))
        };
        self.each("SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB 'quorate_*'", |check, row| {
            let table: String = row.get(0)?;
            if !CORE.contains(&table.as_str()) && table != "quorate_room" && !belongs(&table) {
                check.found.find("quorate_room", format!("no row tells whose table {table} is"));
            }
            Ok(())
        })
    }

    fn ledger(&mut self) -> Result<(), StoreError> {
        let mut chain = 0;
        self.each(&ledger::select_all(), |check, row| {
            match ledger::Entry::read(row)?.and_then(|entry| entry.after(chain)) {
                Ok(link) => chain = link,
                Err(cause) => note(&mut check.found, &cause),
            }
            Ok(())
        })
    }

    /// Reads rows one by one. A row that cannot be read is a finding, not the end.
    fn each(
        &mut self,
        select: &str,
        mut look: impl FnMut(&mut Self, &Row<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare(select).map_err(failed(CHECKING))?;
        let mut rows = statement.query([]).map_err(failed(CHECKING))?;
        loop {
            match rows.next() {
                Ok(Some(row)) => {
                    self.found.rows += u64::from(!self.again);
                    if let Err(cause) = look(self, row) {
                        self.unreadable(&format!("a row of {select}"), cause);
                    }
                }
                Ok(None) => return Ok(()),
                Err(cause) => {
                    self.unreadable(&format!("the rows of {select}"), cause);
                    return Ok(());
                }
            }
        }
    }
}

/// A stream whose runs are being read.
#[derive(Default)]
struct Listed {
    id: i64,
    name: String,
    /// How many of its events no run has listed.
    unlisted: i64,
}

impl Listed {
    fn check(self, found: &mut Verified) {
        if self.unlisted != 0 {
            let what = format!("the runs of `{}` do not list as many events as it has", self.name);
            found.find(format!("quorate_stream, row {}, or its quorate_stream_run", self.id), what);
        }
    }
}

/// Takes `cause` down as a finding.
pub(super) fn note(found: &mut Verified, cause: &StoreError) {
    match cause {
        StoreError::Corrupt { place, what } => found.find(place.clone(), what.clone()),
        other => found.find("the store", other.to_string()),
    }
}
