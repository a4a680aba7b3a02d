//! What can go wrong with a store itself.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::InvalidQuery;
use crate::event::{Position, Version};

/// Whether repeating a call can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Repeating changes nothing; something else must change first.
    Never,
    /// At once.
    Now,
    /// After so long.
    After(Duration),
}

/// What can go wrong with a store, whatever was asked of it. Unless it says otherwise, nothing was changed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk is full, a quota is exhausted, or a file may not grow. Nothing acknowledged is lost; the store goes on by itself when there is space again.
    #[error("the disk is full: nothing was written")]
    DiskFull,
    /// More work is waiting than the store accepts.
    #[error("{waiting} writes are waiting already: nothing was written")]
    Overloaded {
        /// How many are waiting.
        waiting: usize,
    },
    /// More is forgotten than has been taken out of the store's files: whoever forgets has to wait for that.
    #[error("the data of {waiting} forgotten stretches of streams is still being wiped: nothing more was forgotten")]
    Forgetting {
        /// How many stretches wait.
        waiting: usize,
    },
    /// Events are forgotten, for good and for everybody, but their data could not be taken out of the store's file. It is
    /// tried again by whoever asks for it, and when the store is opened.
    #[error("events of stream `{stream}` are forgotten, but their data could not be wiped out of the store's file")]
    NotWiped {
        /// Their stream.
        stream: Arc<str>,
        /// What was in the way.
        #[source]
        cause: Arc<StoreError>,
    },
    /// A scavenge forgot events of some streams, for good, and came no further. Repeating it goes on with the others.
    #[error("events of {streams} streams are forgotten, {events} of them, and those of others are not")]
    PartlyForgotten {
        /// How many streams that is.
        streams: u64,
        /// How many events.
        events: u64,
        /// What was in the way of the others.
        #[source]
        cause: Arc<StoreError>,
    },
    /// Damage keeps what was written from where it belongs, and nothing more of the kind is taken in: it would fill the memory,
    /// or be lost with a log that cannot be opened again. What was acknowledged is there, and can be read. Tried again by
    /// itself.
    #[error("{what}: nothing was written")]
    Stuck {
        /// What cannot go on.
        what: &'static str,
        /// What is in the way.
        #[source]
        cause: Arc<StoreError>,
    },
    /// Others were in the way each time: another program that holds the store's file locked, although only one may write (a
    /// backup tool, or a shell), or, on an engine with several writers, transactions that changed what this one had read.
    #[error(
        "other transactions were in the way, or another program that holds the store's file locked: nothing was written"
    )]
    Busy,
    /// The store is shutting down, or has.
    #[error("the store is closed")]
    Closed,
    /// The outcome is unknown: it may have happened. Repeat with the same ids or key to find out.
    #[error("the outcome is unknown: it may have been written")]
    OutcomeUnknown,
    /// Stored bytes are not what was written.
    #[error("corrupt data in {place}: {what}")]
    Corrupt {
        /// The table and row, or the file.
        place: String,
        /// What is wrong with it.
        what: String,
    },
    /// An event is sealed with a key that is not there, although its data subject was not erased. The file of keys is older
    /// than the event, or was tampered with: put the right one in place, or erase the subject.
    #[error("the key of event {position} (stream `{stream}`, version {version}) is not there, and nobody erased it")]
    KeyMissing {
        /// Where the event stands in the log.
        position: Position,
        /// Its stream.
        stream: Arc<str>,
        /// Its version.
        version: Version,
    },
    /// A page or batch asks for more than the limit.
    #[error("{what} is limited to {max}, {asked} were asked for")]
    TooMuch {
        /// What is limited.
        what: &'static str,
        /// The limit.
        max: usize,
        /// What was asked for.
        asked: usize,
    },
    /// A query breaks a rule.
    #[error("the query was refused")]
    InvalidQuery(#[from] InvalidQuery),
    /// The database could not be reached in time.
    #[error("the database cannot be reached ({what}): nothing was written")]
    Unreachable {
        /// What came of the last attempt.
        what: String,
    },
    /// The database gave up in the middle: what was asked of it took longer than it allows.
    #[error("the database took too long ({what}): nothing was written")]
    TimedOut {
        /// What it said.
        what: String,
    },
    /// The database accepts no writes: it is a standby, or somebody made it read-only.
    #[error("the database is read-only: nothing was written")]
    ReadOnly,
    /// It has moved away: nothing more is written here.
    #[error("the store has moved to {to}: nothing was written")]
    Moved {
        /// Where it is.
        to: String,
    },
    /// This engine cannot do it: see [`Capabilities`](super::Capabilities).
    #[error("the {engine} store cannot {what}")]
    Unsupported {
        /// The engine.
        engine: &'static str,
        /// What it cannot do.
        what: &'static str,
    },
    /// The engine failed otherwise.
    #[error("the storage engine failed while {doing}")]
    Engine {
        /// What it was doing.
        doing: &'static str,
        /// What it said.
        #[source]
        cause: Arc<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    /// `cause` was in the way of wiping what `stream` forgot.
    pub(super) fn not_wiped(stream: Arc<str>, cause: Self) -> Self {
        if matches!(cause, Self::NotWiped { .. }) { cause } else { Self::NotWiped { stream, cause: Arc::new(cause) } }
    }

    /// Whether repeating can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::DiskFull | Self::ReadOnly => Retry::After(Duration::from_secs(5)),
            Self::Overloaded { .. } | Self::Forgetting { .. } | Self::Busy => Retry::After(Duration::from_millis(100)),
            Self::OutcomeUnknown => Retry::Now,
            Self::Closed | Self::Unreachable { .. } | Self::TimedOut { .. } => Retry::After(Duration::from_secs(1)),
            Self::NotWiped { cause, .. } | Self::PartlyForgotten { cause, .. } | Self::Stuck { cause, .. } => {
                cause.retry()
            }
            Self::Corrupt { .. }
            | Self::KeyMissing { .. }
            | Self::TooMuch { .. }
            | Self::InvalidQuery(_)
            | Self::Moved { .. }
            | Self::Unsupported { .. }
            | Self::Engine { .. } => Retry::Never,
        }
    }
}

/// Why a store could not be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process writes to it.
    #[error("`{path}` is open in another process: stop that one, or give this one a data directory of its own")]
    Locked {
        /// The store's file.
        path: PathBuf,
    },
    /// It lives where locks and syncs cannot be trusted.
    #[error("`{path}` lives on {kind}, a network file system: the embedded store needs a local disk")]
    NetworkFilesystem {
        /// The store's file.
        path: PathBuf,
        /// The file system.
        kind: &'static str,
    },
    /// The address of a database is none, or asks for what this store does not do.
    #[error("this is no address of a database that can be used: {what}")]
    Address {
        /// What is wrong with it.
        what: String,
    },
    /// The database cannot hold a store as it is.
    #[error("the database cannot hold a store: {what}")]
    Unsuitable {
        /// What is in the way, and what to do.
        what: String,
    },
    /// A newer quorate made it.
    #[error("`{path}` has schema version {found}, this quorate knows up to {known}: use a newer quorate")]
    Newer {
        /// The store's file.
        path: PathBuf,
        /// Its schema version.
        found: u32,
        /// The newest this code knows.
        known: u32,
    },
    /// A quorate from before the first release made it.
    #[error(
        "`{path}` has schema version {found}, from before the first release; this quorate knows version {known}: export its streams with the quorate that made it, and import them into a new store"
    )]
    Older {
        /// The store's file.
        path: PathBuf,
        /// Its schema version.
        found: u32,
        /// The one this code knows.
        known: u32,
    },
    /// It is a database, but not a quorate store.
    #[error("`{path}` is an SQLite database that quorate did not make")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// There is no store, and a restore or a move was begun that did not end: an empty store would be taken for what was to be there.
    #[error(
        "a restore or a move into `{path}` did not end: repeat it, or remove `{partial}`, which is what it left, to begin an empty store"
    )]
    Unrestored {
        /// The store's file, which is not there.
        path: PathBuf,
        /// What it left.
        partial: PathBuf,
    },
    /// It has moved away, and takes nothing in any more.
    #[error("the store `{path}` has moved to {to}: start there, and remove this one once that has a backup")]
    Moved {
        /// The store's file, or its schema.
        path: PathBuf,
        /// Where it is.
        to: String,
    },
    /// A move into it was begun and did not end.
    #[error("a move into `{path}` did not end: repeat it, or remove what it left to begin an empty store")]
    Arriving {
        /// The store's schema.
        path: PathBuf,
    },
    /// There was a store, and its file is gone or empty: a new one would be begun over what is left of it.
    #[error(
        "`{path}` is missing or empty, and `{left}` of the store that was there lies beside it: put the file back, or move what \
         is left away and restore a backup; only to begin an empty store, remove `{left}`"
    )]
    Lost {
        /// The store's file.
        path: PathBuf,
        /// What is left.
        left: PathBuf,
    },
    /// The disk is full. While a store is open, the index of its write-ahead log is a file of 32 KiB beside it, which a store that
    /// was closed in order does not have: what is there can be read once there is room for that.
    #[error("`{path}` cannot be opened on a full disk: starting needs 32 KiB free; make room and start again")]
    NoRoom {
        /// The store's file.
        path: PathBuf,
    },
    /// What should be restored is no backup but a store's file, without what is in its log.
    #[error(
        "`{path}` is not all of a store: what `{log}` holds would be missing. Start a node on it once and stop it, which leaves \
         the file whole, or take a backup of it"
    )]
    NotABackup {
        /// The file.
        path: PathBuf,
        /// Its log.
        log: PathBuf,
    },
    /// It has data of data subjects, and their keys are not there.
    #[error("`{path}` is missing, which holds the keys of data subjects: put it, or a copy of it, in place")]
    KeysMissing {
        /// Where the keys should be.
        path: PathBuf,
    },
    /// The keys beside it are another store's.
    #[error("`{path}` holds the keys of store {found}, not those of store {expected}")]
    KeysOfAnotherStore {
        /// The file of keys.
        path: PathBuf,
        /// Whose keys it holds.
        found: u64,
        /// Whose keys it should hold.
        expected: u64,
    },
    /// The erasure ledger is another store's.
    #[error("the erasure ledger is of store {found}, not of store {expected}")]
    LedgerOfAnotherStore {
        /// The store that the ledger is of.
        found: u64,
        /// The store that is being restored.
        expected: u64,
    },
    /// Its bytes are damaged.
    #[error("`{path}` is damaged: {what}; restore a backup")]
    Corrupt {
        /// The store's file.
        path: PathBuf,
        /// What is wrong, and where.
        what: String,
    },
    /// The disk failed.
    #[error("`{path}` cannot be opened")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// The engine failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
