//! What the writer and the readers share.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension};
use tokio::sync::watch;

use super::{
    block::Block,
    cache::{BlockCache, Epoch},
    connection::{self, corrupt, failed},
    expiry::Expiry,
    inquire,
    keys::KeyRing,
    moves::Moves,
    sql::Guard,
    tail::Tail,
};
use crate::{
    event::{Position, Recorded},
    schema::SchemaRegistry,
    store::{Follower, Limits, StoreError, Timeline},
};

/// Connections for reading that are kept for reuse.
const IDLE_READERS: usize = Limits::READERS;

/// What the writer and the readers share.
pub(super) struct Shared {
    pub(super) path: PathBuf,
    pub(super) limits: Limits,
    pub(super) timeline: Timeline,
    pub(super) cache: BlockCache,
    pub(super) keys: KeyRing,
    pub(super) expiry: Expiry,
    pub(super) schemas: SchemaRegistry,
    pub(super) head: watch::Sender<Position>,
    /// Counts what was forgotten; see [`forget`](Self::forget).
    pub(super) forgotten: watch::Sender<u64>,
    /// Who follows single streams.
    pub(super) streams: Moves,
    /// Whether data that was forgotten may still stand in the write-ahead log.
    pub(super) lingering: AtomicBool,
    /// Transactions made durable since the store was opened.
    pub(super) commits: AtomicU64,
    followers: RwLock<Arc<[Arc<dyn Follower>]>>,
    closed: AtomicBool,
    /// Why nothing more is written, if so.
    refusal: RwLock<Option<StoreError>>,
    tail: RwLock<Tail>,
    readers: Mutex<Vec<Reader>>,
    askers: Mutex<Vec<Reader>>,
}

/// A connection that only reads, with its guard.
pub(super) struct Reader {
    pub(super) connection: Connection,
    pub(super) guard: Guard,
    epoch: Epoch,
}

/// The database as of one moment.
#[derive(Clone, Copy)]
pub(super) struct View<'c> {
    pub(super) connection: &'c Connection,
    /// Taken before that moment: a block that was changed since must not be cached as it was then.
    epoch: Epoch,
}

impl Reader {
    /// A connection outside any transaction.
    pub(super) fn open(shared: &Shared) -> rusqlite::Result<Self> {
        let mut connection = connection::reader(&shared.path)?;
        connection::bound_values(&connection, &shared.limits)?;
        let guard = Guard::watch(&mut connection)?;
        Ok(Self { connection, guard, epoch: shared.cache.epoch() })
    }

    /// A connection for the statements of readers.
    fn for_inquiries(shared: &Shared) -> rusqlite::Result<Self> {
        let reader = Self::open(shared)?;
        inquire::restrict(&reader.connection)?;
        Ok(reader)
    }

    /// What it sees.
    pub(super) fn view(&self) -> View<'_> {
        View { connection: &self.connection, epoch: self.epoch }
    }

    /// Interrupts statements once `late` says so; `None` lets them run.
    pub(super) fn interrupt_when<F: Fn() -> bool + Send + 'static>(&self, late: Option<F>) {
        self.guard.interrupt_when(late);
    }

    fn run(&self, sql: &'static str) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare_cached(sql).map_err(failed(sql))?;
        statement.raw_execute().map(|_| ()).map_err(failed(sql))
    }
}

impl Shared {
    pub(super) fn new(
        path: PathBuf,
        limits: Limits,
        timeline: Timeline,
        tail: Tail,
        keys: KeyRing,
        expiry: Expiry,
        schemas: SchemaRegistry,
    ) -> Self {
        let head = watch::Sender::new(Position::new(tail.published()));
        let cache = BlockCache::new(limits.cache_bytes);
        Self {
            path,
            limits,
            timeline,
            cache,
            keys,
            expiry,
            schemas,
            head,
            forgotten: watch::Sender::new(0),
            streams: Moves::new(),
            // The process before may have died between forgetting and wiping.
            lingering: AtomicBool::new(true),
            commits: AtomicU64::new(0),
            followers: RwLock::new(Arc::new([])),
            closed: AtomicBool::new(false),
            refusal: RwLock::default(),
            tail: RwLock::new(tail),
            readers: Mutex::default(),
            askers: Mutex::default(),
        }
    }

    /// The tail, to read. Held for moments: nobody awaits or touches the disk meanwhile.
    pub(super) fn tail(&self) -> RwLockReadGuard<'_, Tail> {
        self.tail.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tail, to change. Only the writer does.
    pub(super) fn tail_mut(&self) -> RwLockWriteGuard<'_, Tail> {
        self.tail.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lends a connection for reading to `read`, which sees the database as of one moment.
    ///
    /// One read transaction for all of its statements: beginning one costs system calls, and often the page cache.
    pub(super) fn reading<T, E: From<StoreError>>(
        &self,
        read: impl FnOnce(&mut Reader) -> Result<T, E>,
    ) -> Result<T, E> {
        self.lend(&self.readers, Reader::open, read)
    }

    /// The same for an inquiry: its statements are somebody else's, and the connection keeps none of them.
    pub(super) fn asking<T, E: From<StoreError>>(&self, ask: impl FnOnce(&mut Reader) -> Result<T, E>) -> Result<T, E> {
        self.lend(&self.askers, Reader::for_inquiries, ask)
    }

    fn lend<T, E: From<StoreError>>(
        &self,
        idle: &Mutex<Vec<Reader>>,
        open: fn(&Self) -> rusqlite::Result<Reader>,
        read: impl FnOnce(&mut Reader) -> Result<T, E>,
    ) -> Result<T, E> {
        self.check_open()?;
        let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut reader = kept.map_or_else(|| open(self), Ok).map_err(failed("opening a reader"))?;
        reader.epoch = self.cache.epoch();
        reader.run("BEGIN")?;
        let result = read(&mut reader);
        let ended = reader.run("COMMIT");
        let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
        // A connection left inside a transaction would pin the write-ahead log.
        if idle.len() < IDLE_READERS && ended.is_ok() && self.check_open().is_ok() {
            idle.push(reader);
        }
        result
    }

    /// Who takes in events in the transactions that append them.
    pub(super) fn followers(&self) -> Arc<[Arc<dyn Follower>]> {
        self.followers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds a follower.
    pub(super) fn follow(&self, follower: Arc<dyn Follower>) {
        let mut followers = self.followers.write().unwrap_or_else(PoisonError::into_inner);
        let going_on = followers.iter().filter(|follower| !follower.is_over()).cloned();
        *followers = going_on.chain([follower]).collect();
    }

    /// Tells whoever holds events in memory to let go of them.
    ///
    /// Ordering: after no reader that begins now can read the data any more, and before anybody is told that it is gone.
    pub(super) fn forget(&self) {
        self.forgotten.send_modify(|times| *times += 1);
    }

    /// Why nothing more is written, if so.
    pub(super) fn refusal(&self) -> Option<StoreError> {
        self.refusal.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says why nothing more is written, or that it is.
    pub(super) fn refuse(&self, why: Option<StoreError>) {
        *self.refusal.write().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Refuses once the store is closed.
    pub(super) fn check_open(&self) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Acquire) { Err(StoreError::Closed) } else { Ok(()) }
    }

    /// Refuses readers from now on, and closes the connections that wait for reuse and the file of keys.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        for idle in [&self.readers, &self.askers] {
            idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        self.keys.close();
        self.head.send_modify(|_| {});
        self.streams.wake_all();
    }

    /// What the writer's connection sees.
    pub(super) fn view<'c>(&self, connection: &'c Connection) -> View<'c> {
        View { connection, epoch: self.cache.epoch() }
    }

    /// The event at `position`, from the tail, the cache, or the database.
    pub(super) fn event(&self, view: View<'_>, position: u64) -> Result<Recorded, StoreError> {
        if let Some(event) = self.tail().event(position) {
            return Ok(event.clone());
        }
        let block = match self.cache.get(position) {
            Some(block) => block,
            None => self.load(view, position)?,
        };
        in_block(&block, position)
    }

    /// The events at `positions`, all of them indexed.
    pub(super) fn events<'a>(
        &'a self,
        view: View<'a>,
        positions: &'a [u64],
    ) -> impl DoubleEndedIterator<Item = Result<Recorded, StoreError>> + 'a {
        let cached = self.cache.get_all(positions);
        positions.iter().zip(cached).map(move |(position, block)| {
            let block = block.map_or_else(|| self.load(view, *position), Ok)?;
            in_block(&block, *position)
        })
    }

    fn load(&self, view: View<'_>, position: u64) -> Result<Block, StoreError> {
        let block = block_of(view.connection, position)?;
        self.cache.put(block.clone(), view.epoch);
        Ok(block)
    }
}

/// The event at `position` of its block.
pub(super) fn in_block(block: &Block, position: u64) -> Result<Recorded, StoreError> {
    block
        .event(position)
        .map_err(|what| corrupt(format!("quorate_block, row {}, event {position}", block.first()), what))
}

/// Reads the block that holds `position` from the database.
pub(super) fn block_of(connection: &Connection, position: u64) -> Result<Block, StoreError> {
    const READING: &str = "reading a block";
    let mut select = connection
        .prepare_cached("SELECT first, body FROM quorate_block WHERE first <= ?1 ORDER BY first DESC LIMIT 1")
        .map_err(failed(READING))?;
    let row: Option<(i64, Bytes)> = select
        .query_row([position.cast_signed()], |row| {
            Ok((row.get(0)?, Bytes::copy_from_slice(row.get_ref(1)?.as_blob()?)))
        })
        .optional()
        .map_err(failed(READING))?;
    let missing = || corrupt("quorate_block", format!("no row holds position {position}"));
    let (first, body) = row.ok_or_else(missing)?;
    let block = check(first, body)?;
    if block.end() > position { Ok(block) } else { Err(missing()) }
}

/// Checks a row of `quorate_block`.
pub(super) fn check(first: i64, body: Bytes) -> Result<Block, StoreError> {
    Block::check(first.cast_unsigned(), body).map_err(|what| corrupt(format!("quorate_block, row {first}"), what))
}
