//! The port that every storage engine implements.

use std::{future::ready, path::PathBuf, sync::Arc};

use quorate_foundations::name::Name;
use quorate_runtime::BoxFuture;
use tokio::sync::watch;

use super::{
    AppendBatch, AppendError, Appended, Archive, ArchiveError, CheckedBatch, DynTx, ExpectedVersion, Findings,
    Follower, Inquiry, Limits, LogPage, Looked, ReadLog, ReadStream, Row, Scope, SetMetadata, SqlError, StoreError,
    StreamPage, TableColumn, Timeline, Value, Verified,
    erasure::{DataSubject, Entry, Erased},
};
use crate::{
    event::{ArchiveId, Position, Version},
    schema::SchemaRegistry,
};

/// A storage engine. Everybody else talks to [`Store`](super::Store), which wraps one.
pub trait Backend: Send + Sync {
    /// What it can and cannot do.
    fn capabilities(&self) -> Capabilities;
    /// What it accepts at most.
    fn limits(&self) -> &Limits;
    /// Which store and timeline this is.
    fn timeline(&self) -> Timeline;
    /// What it has done since it was opened.
    fn statistics(&self) -> Statistics;
    /// Whether it takes writes, as far as it knows without trying; see [`Store::check_writes`](super::Store::check_writes).
    fn check_writes(&self) -> Result<(), StoreError> {
        Ok(())
    }
    /// The last position of the log, and every later one as it becomes readable. Closing wakes whoever waits.
    fn head(&self) -> watch::Receiver<Position>;
    /// How often something was forgotten so far, and every later time: see [`Store::forgotten`](super::Store::forgotten).
    fn forgotten(&self) -> watch::Receiver<u64>;
    /// Changes whenever `stream` may have; see [`Store::watch_stream`](super::Store::watch_stream). An engine that cannot tell
    /// streams apart wakes everybody.
    fn stream_moves(&self, stream: &Name) -> watch::Receiver<Position> {
        let _ = stream;
        self.head()
    }
    /// The schemas in force, as they were stored when it was opened and as they were registered since.
    fn schemas(&self) -> &SchemaRegistry;
    /// Appends without a closure: the fast path. A batch that was not held against the schemas that are in force when it
    /// is about to be written is held against them then, and what they object to is refused unless the log knows it.
    fn append(&self, batch: CheckedBatch) -> BoxFuture<'_, Result<Appended, AppendError>>;
    /// Finds out about a batch's conditions what can be known before the writer's turn, so that it has less to do. An engine
    /// without a turn to wait for finds out nothing.
    fn look_ahead<'b>(&'b self, batch: &'b AppendBatch) -> BoxFuture<'b, Looked> {
        let _ = batch;
        Box::pin(ready(Looked::default()))
    }
    /// Runs `unit` in a transaction. It may be run several times; only the last run counts.
    fn transact(&self, unit: Arc<dyn Unit>) -> BoxFuture<'_, Result<Committed, UnitError>>;
    /// Has `follower` take in events in the transactions that append them, from now on; see
    /// [`inline_views`](Capabilities::inline_views).
    fn follow(&self, follower: Arc<dyn Follower>) -> Result<(), StoreError>;
    /// The newest append that is readable: what [`Store::token`](super::Store::token) stands for.
    fn newest(&self) -> u64 {
        self.head().borrow().get()
    }
    /// Where in the log append number `append` ends; `None` while it is not readable. Where appends are numbered by
    /// positions, each is its own place.
    fn place(&self, append: u64) -> BoxFuture<'_, Result<Option<Position>, StoreError>> {
        let place = Position::new(append);
        let readable = *self.head().borrow() >= place;
        Box::pin(std::future::ready(Ok(readable.then_some(place))))
    }
    /// Reads a page of a stream.
    fn read_stream(&self, read: ReadStream) -> BoxFuture<'_, Result<StreamPage, StoreError>>;
    /// Reads a page of the log.
    fn read_log(&self, read: ReadLog) -> BoxFuture<'_, Result<LogPage, StoreError>>;
    /// Reads names of streams in order, those behind `after` that begin with `prefix`.
    fn streams(
        &self,
        prefix: String,
        after: Option<Name>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<StreamSummary>, StoreError>>;
    /// Runs a read-only query.
    fn query(&self, sql: String, params: Vec<Value>, scope: Scope) -> BoxFuture<'_, Result<Vec<Row>, SqlError>>;
    /// Answers an inquiry, all of it as of one moment, on a connection that only reads. Dropping the future stops it soon.
    /// An engine that cannot keep a statement within its bounds refuses it.
    fn inquire(&self, inquiry: Inquiry) -> BoxFuture<'_, Result<Findings, SqlError>> {
        drop(inquiry);
        let what = format!("be asked of {}: it cannot be kept within its bounds there", self.capabilities().engine);
        Box::pin(ready(Err(SqlError::Refused { what })))
    }
    /// The columns of a table, in order; none where there is no such table, or where the engine has no tables for views.
    fn table_columns(&self, table: String) -> BoxFuture<'_, Result<Vec<TableColumn>, StoreError>> {
        drop(table);
        Box::pin(ready(Ok(Vec::new())))
    }
    /// Waits until the data that a stream, or any stream, forgot has left the store's files.
    fn settle(&self, stream: Option<Name>) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Reads a stream's metadata.
    fn metadata(&self, stream: Name) -> BoxFuture<'_, Result<SetMetadata, StoreError>>;
    /// Streams that have rules, in order of their names, those behind `after`. Their `first` is the first event that is
    /// not forgotten yet, whatever the rules say.
    fn ruled(&self, after: Option<Name>, limit: usize) -> BoxFuture<'_, Result<Vec<StreamSummary>, StoreError>>;
    /// Moves a stream's events to an archive: the file is durable before an event becomes a stub.
    fn archive(&self, order: ArchiveOrder) -> BoxFuture<'_, Result<Archive, ArchiveError>>;
    /// The archives of a stream, in order of their versions.
    fn archives(&self, stream: Name) -> BoxFuture<'_, Result<Vec<Archive>, StoreError>>;
    /// At most `limit` archives of any stream behind archive `after`, in order of their ids; those whose rows are damaged are
    /// left out. An engine without archives has none.
    fn all_archives(&self, after: ArchiveId, limit: usize) -> BoxFuture<'_, Result<Vec<Archive>, StoreError>> {
        let _ = (after, limit);
        Box::pin(ready(Ok(Vec::new())))
    }
    /// Destroys every key of a data subject. Durable in the ledger and in the keys when it returns.
    fn erase(&self, subject: Arc<str>) -> BoxFuture<'_, Result<Erased, StoreError>>;
    /// At most `limit` entries of the erasure ledger behind entry `after`, oldest first.
    fn erasures(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Entry>, StoreError>>;
    /// What is known of a data subject.
    fn data_subject(&self, subject: Arc<str>) -> BoxFuture<'_, Result<DataSubject, StoreError>>;
    /// Has what was deleted wiped out of the store's files: now, or as soon as no reader stands in the way.
    fn wipe(&self) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Writes a consistent copy of the keys of data subjects to `to`, while the store is in use.
    fn backup_keys(&self, to: PathBuf) -> BoxFuture<'_, Result<u64, StoreError>>;
    /// Writes a consistent copy of the store to `to`, without keys, while it is in use.
    fn backup(&self, to: PathBuf, progress: Progress) -> BoxFuture<'_, Result<u64, StoreError>>;
    /// Checks every stored byte.
    fn verify(&self, progress: Progress) -> BoxFuture<'_, Result<Verified, StoreError>>;
    /// Finishes what was accepted and closes.
    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// Called now and then with how much is done and how much there is.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// What a store has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Transactions made durable, each with one sync: a group of appends counts once. Checkpoints come on top.
    pub commits: u64,
    /// Writes that wait right now.
    pub waiting: usize,
    /// The size of the write-ahead log in bytes; zero where there is none. It is emptied and filled again without
    /// shrinking; that it keeps growing means that a long read holds it, or that nothing else fits on the disk.
    pub wal_bytes: u64,
    /// Stretches of streams that are forgotten while their data is still in the store's files.
    pub forgetting: u64,
    /// How many of these are left alone, because something is in the way of wiping them: see [`StoreError::NotWiped`].
    pub not_wiped: u64,
}

/// Code to run in a transaction.
pub trait Unit: Send + Sync {
    /// Runs it once. `Err` rolls back.
    fn run<'t>(&'t self, tx: &'t mut DynTx) -> BoxFuture<'t, Result<(), Aborted>>;
}

/// A unit's own decision not to commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aborted;

/// A transaction that committed durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The number of the newest append the transaction made or saw.
    pub append: u64,
}

/// Why a unit did not commit: [`TransactError`](super::TransactError) without the unit's own error.
#[derive(Clone, Debug)]
pub enum UnitError {
    /// It said no.
    Aborted,
    /// It awaited something else.
    ForeignAwait,
    /// It took too long.
    TooLong,
    /// It asked to write too much.
    TooLarge,
    /// It panicked, saying so.
    Panicked(String),
    /// A deferred constraint does not hold.
    Constraint(String),
    /// A [`Follower`] of that name cannot take in what it appends, and says why.
    Follower(Arc<str>, String),
    /// The store failed.
    Store(StoreError),
}

/// What to archive, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveOrder {
    /// The stream.
    pub stream: Name,
    /// The first version to keep; `None` moves everything.
    pub before: Option<Version>,
    /// The file to write.
    pub to: PathBuf,
    /// The name by which the store remembers the file.
    pub name: String,
}

/// What to do with a stream's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retire {
    /// Forget the data of events before this version.
    Truncate {
        /// The first version to keep.
        before: Version,
    },
    /// Forget the data of events that the stream's rules no longer keep.
    Expired,
    /// Forget all data and close the stream for good.
    Tombstone {
        /// What the stream must be like.
        expected: ExpectedVersion,
    },
}

/// What retiring did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retired {
    /// How many events became stubs.
    pub events: u64,
}

/// A stream in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSummary {
    /// Its name.
    pub stream: Name,
    /// What it is like.
    pub head: super::StreamHead,
}

/// What a backend can and cannot do. Nothing degrades silently: what is false here is refused when it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The engine's name.
    pub engine: &'static str,
    /// A write is on disk before it is acknowledged.
    pub durable_before_reply: bool,
    /// Several processes may write at once.
    pub several_writers: bool,
    /// The application's tables share the transaction.
    pub application_tables: bool,
    /// Views have tables of their own, which are asked within bounds.
    pub view_tables: bool,
    /// A consistent copy can be taken while it is in use.
    pub online_backup: bool,
    /// A data subject can be erased, and events can be sealed with its key.
    pub erasure: bool,
    /// Streams have metadata: values of their users' own, and a version.
    pub metadata: bool,
    /// Streams have rules in their metadata, and can be truncated, closed and archived.
    pub retention: bool,
    /// A [`Follower`] takes in events in the transaction that appends them.
    pub inline_views: bool,
    /// An append's number, which its token carries, is the position of its last event.
    pub tokens_are_positions: bool,
    /// Inside a transaction the log ends with the transaction's own appends. Where it is false, these have no position
    /// ([`Position::ZERO`]) before the commit, and are read from their streams alone.
    pub own_log_in_transaction: bool,
}

impl Capabilities {
    /// Each capability by its name, and whether it is there: in the order in which they are shown.
    pub const fn list(&self) -> [(&'static str, bool); 11] {
        [
            ("durable-before-reply", self.durable_before_reply),
            ("several-writers", self.several_writers),
            ("application-tables", self.application_tables),
            ("view-tables", self.view_tables),
            ("inline-views", self.inline_views),
            ("metadata", self.metadata),
            ("retention", self.retention),
            ("erasure", self.erasure),
            ("online-backup", self.online_backup),
            ("tokens-are-positions", self.tokens_are_positions),
            ("own-log-in-transaction", self.own_log_in_transaction),
        ]
    }
}
