//! Checking every stored byte.
//!
//! First every page of the file, in use or not, and what is live of the write-ahead log.
//!
//! Events are read once, in order: their blocks' checksums, their place, their link of the hash chain. On the way two
//! digests grow, one of what the index should say and one of what it says; they are sums of hashes, so that the order does
//! not matter and no event or row is kept. Memory grows with the number of streams, whose chains and names are: some 200
//! bytes and twice its name for each. Every index row has a checksum besides, which names the row that rotted.

mod retention;

use std::sync::Arc;

use bytes::Bytes;
use foldhash::quality::FixedState;
use hashbrown::HashMap;
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
    event::{ChainHash, Recorded},
    store::{Progress, StoreError, StreamHead, Verified, rooms::room_sum},
};

const CHECKING: &str = "checking the store";

/// Checks everything, as of one moment.
pub(super) fn run(connection: &Connection, keys: &KeyRing, progress: &Progress) -> Result<Verified, StoreError> {
    let mut check = Check::new(connection, keys, progress)?;
    match check.everything() {
        // Damage where the check itself begins is a finding too: what can be read besides was, or is not worth reading.
        Err(cause @ StoreError::Corrupt { .. }) => note(&mut check.found, &cause),
        checked => checked?,
    }
    Ok(check.found)
}

/// What a stream was like at the last event read.
struct Chain {
    version: u64,
    hash: ChainHash,
    /// The last version whose event is forgotten, wiped or not; zero if none is.
    forgotten: u64,
    /// The first version whose event is kept; zero if none is.
    kept: u64,
    /// The version and hash at the last event that the index knows: what the stream's row should say.
    indexed: (u64, ChainHash),
}

impl Default for Chain {
    fn default() -> Self {
        Self { version: 0, hash: ChainHash::START, forgotten: 0, kept: 0, indexed: (0, ChainHash::START) }
    }
}

impl Chain {
    /// What is wrong with a stream's row; what is forgotten is a stretch at its beginning, which can reach beyond the index.
    fn differs(&self, head: &StreamHead, hash: &ChainHash) -> Option<String> {
        let (version, first) = (self.indexed.0, self.forgotten + 1);
        if head.version.get() != version {
            return Some(format!("it says version {}, the log has {version}", head.version));
        }
        if *hash != self.indexed.1 {
            return Some("its hash is not that of the stream's last event".to_owned());
        }
        if head.first.get() != first {
            return Some(format!(
                "it says that events are whole from version {} on, they are from {first}",
                head.first
            ));
        }
        if self.kept > 0 && self.kept < first {
            return Some(format!("version {} is whole, although it is forgotten and nobody is to wipe it", self.kept));
        }
        let closed = head.tombstoned && first != self.version + 1;
        closed.then(|| "it is tombstoned and has whole events".to_owned())
    }
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
    keys: &'c KeyRing,
    progress: &'c Progress,
    found: Verified,
    chains: HashMap<Arc<str>, Chain, FixedState>,
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
    fn new(connection: &'c Connection, keys: &'c KeyRing, progress: &'c Progress) -> Result<Self, StoreError> {
        let mut found = Verified::default();
        let indexed = match tables::meta(connection, "indexed") {
            Ok(indexed) => indexed.cast_unsigned(),
            Err(cause) => {
                note(&mut found, &cause);
                0
            }
        };
        let chains = HashMap::with_hasher(FixedState::default());
        Ok(Self {
            connection,
            keys,
            progress,
            found,
            chains,
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
        self.blocks()?;
        self.found.streams = self.chains.len() as u64;
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
        self.keys.verify(&mut self.found)
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
            (check.progress)(first.cast_unsigned(), check.total.max(1));
            Ok(())
        })?;
        if next <= self.indexed {
            self.found.find("quorate_block", format!("no row holds position {next}"));
        }
        Ok(())
    }

    fn event(&mut self, event: &Recorded) {
        self.found.events += 1;
        let position = event.position().get();
        if !self.chains.contains_key(event.stream()) {
            self.chains.insert(event.stream().into(), Chain::default());
        }
        let Some(chain) = self.chains.get_mut(event.stream()) else { return };
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
        if position <= self.indexed {
            chain.indexed = (chain.version, chain.hash);
        }
        self.kept.event(event, &mut self.found);
        match self.keys.open(event.clone()) {
            Ok(_) => {}
            Err(StoreError::KeyMissing { .. }) => self.found.find(place(event), missing(event).to_string()),
            Err(cause) => note(&mut self.found, &cause),
        }
        if position <= self.indexed {
            let stream = event.stream().as_bytes();
            self.should_say[STREAMS].add(0, stream, event.version().get(), position);
            words(event).for_each(|(kind, word)| self.should_say[TERMS].add(kind as u8, word.as_bytes(), 0, position));
            self.should_say[IDS].add(0, &identity::key(event), 0, position);
        }
    }

    /// Stream rows against the log, and runs against both.
    fn stream_runs(&mut self) -> Result<Digest, StoreError> {
        // By the row's id: the stream, and how many events it should list.
        let mut names: HashMap<i64, (String, u64), FixedState> = HashMap::with_hasher(FixedState::default());
        let select = format!("SELECT {STREAM_COLUMNS} FROM quorate_stream");
        self.each(&select, |check, row| {
            let row = StreamRow::read(row)?;
            match row.check() {
                Ok(row) => {
                    let chain = check.chains.get(row.name.as_str());
                    let differs = match chain {
                        Some(chain) => chain.differs(&row.head, &row.hash),
                        None => Chain::default().differs(&row.head, &row.hash),
                    };
                    if let Some(what) = differs {
                        check.found.find(format!("quorate_stream, row {}", row.id), what);
                    }
                    check.kept.stream(&row);
                    names.insert(row.id, (row.name, row.head.version.get()));
                }
                Err(cause) => note(&mut check.found, &cause),
            }
            Ok(())
        })?;
        let mut says = Digest::default();
        self.runs(
            "SELECT stream, first, positions FROM quorate_stream_run",
            "quorate_stream_run",
            |list, first, positions| {
                let (name, unlisted) = names.get_mut(&list)?;
                *unlisted = unlisted.wrapping_sub(positions.len() as u64);
                (first..)
                    .zip(positions)
                    .for_each(|(version, position)| says.add(0, name.as_bytes(), version, *position));
                Some(())
            },
        )?;
        let odd = names.iter().filter(|(_, (_, unlisted))| *unlisted != 0).map(|(id, (name, _))| (*id, name)).min();
        if let Some((id, name)) = odd {
            let what = format!("the runs of `{name}` do not list as many events as it has");
            self.found.find(format!("quorate_stream, row {id}, or its quorate_stream_run"), what);
        }
        Ok(says)
    }

    fn term_runs(&mut self) -> Result<Digest, StoreError> {
        let mut words: HashMap<i64, (u8, String), FixedState> = HashMap::with_hasher(FixedState::default());
        self.each("SELECT id, kind, word, sum FROM quorate_term", |check, row| {
            let (id, kind, word): (i64, u8, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            if row.get::<_, u32>(3)? != term_sum(id, kind, &word) {
                check.found.find(format!("quorate_term, row {id}"), "the checksum does not match");
            }
            words.insert(id, (kind, word));
            Ok(())
        })?;
        let mut says = Digest::default();
        self.runs("SELECT term, first, positions FROM quorate_term_run", "quorate_term_run", |list, _, positions| {
            let (kind, word) = words.get(&list)?;
            positions.iter().for_each(|position| says.add(*kind, word.as_bytes(), 0, *position));
            Some(())
        })?;
        Ok(says)
    }

    fn runs(
        &mut self,
        select: &str,
        table: &str,
        mut take: impl FnMut(i64, u64, &[u64]) -> Option<()>,
    ) -> Result<(), StoreError> {
        self.each(select, |check, row| {
            let (list, first): (i64, i64) = (row.get(0)?, row.get(1)?);
            let place = || format!("{table}, row ({list}, {first})");
            match run::decode(&run::key(list, first), row.get_ref(2)?.as_blob()?) {
                Ok(positions) if take(list, first.cast_unsigned(), &positions).is_none() => {
                    check.found.find(place(), "it belongs to nothing");
                }
                Ok(_) => {}
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
                    self.found.rows += 1;
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

/// Takes `cause` down as a finding.
pub(super) fn note(found: &mut Verified, cause: &StoreError) {
    match cause {
        StoreError::Corrupt { place, what } => found.find(place.clone(), what.clone()),
        other => found.find("the store", other.to_string()),
    }
}
