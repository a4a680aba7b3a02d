//! `Store`: the handle everybody holds.

mod forgetting;

use std::{
    any::{Any, TypeId},
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use quorate_foundations::name::Name;
use quorate_runtime::{BoxFuture, Env, random::Rng};
use tokio::sync::watch;

use super::{
    Aborted, AppendBatch, AppendError, Appended, Backend, Capabilities, CheckedBatch, DynTx, Findings, Follower,
    Inquiry, Limits, LogPage, Progress, ReadLog, ReadStream, Row, Scope, SqlError, Statistics, StoreError, StreamHead,
    StreamPage, StreamSummary, TableColumn, Timeline, Token, TransactError, Unit, UnitError, Value, Verified,
    checked::{self, Looked},
    erasure::{EraseHook, SubjectHash},
    reserved,
    rooms::{RoomTables, upgrade},
};
use crate::{
    event::Position,
    materialized_view::{Build, Presence},
    schema::SchemaRegistry,
};

/// A store. Cheap to clone; clones are the same store.
#[derive(Clone)]
pub struct Store {
    pub(super) backend: Arc<dyn Backend>,
    env: Env,
    ids: Arc<Mutex<Rng>>,
    pub(super) erase_hooks: Arc<Mutex<Vec<(&'static str, EraseHook)>>>,
    pub(super) unfinished: Arc<Mutex<BTreeSet<SubjectHash>>>,
    presence: Presence,
    rooms: Arc<Mutex<BTreeMap<TypeId, Weak<dyn Any + Send + Sync>>>>,
}

impl Store {
    /// A store on `backend`.
    pub fn new(env: &Env, backend: Arc<dyn Backend>) -> Self {
        Self {
            backend,
            env: env.clone(),
            ids: Arc::new(Mutex::new(env.random("store/ids"))),
            erase_hooks: Arc::default(),
            unfinished: Arc::default(),
            presence: Presence::new(env),
            rooms: Arc::default(),
        }
    }

    /// What the engine can and cannot do.
    pub fn capabilities(&self) -> Capabilities {
        self.backend.capabilities()
    }

    /// Refuses what the engine cannot do, before anything is begun: `has` says whether it can.
    ///
    /// # Errors
    /// [`StoreError::Unsupported`] with `what`.
    ///
    /// # Example
    /// ```
    /// # use quorate_data::store::{Store, StoreError};
    /// # fn example(store: &Store) -> Result<(), StoreError> {
    /// store.require(|engine| engine.retention, "archive events")
    /// # }
    /// ```
    pub fn require(&self, has: impl FnOnce(&Capabilities) -> bool, what: &'static str) -> Result<(), StoreError> {
        let found = self.capabilities();
        if has(&found) { Ok(()) } else { Err(StoreError::Unsupported { engine: found.engine, what }) }
    }

    /// What it accepts at most.
    pub fn limits(&self) -> &Limits {
        self.backend.limits()
    }

    /// Which store and timeline this is.
    pub fn timeline(&self) -> Timeline {
        self.backend.timeline()
    }

    /// What it has done since it was opened.
    pub fn statistics(&self) -> Statistics {
        self.backend.statistics()
    }

    /// Whether it takes writes, as far as it knows without trying: the error says why it does not, or that it is closed.
    ///
    /// # Errors
    /// [`StoreError::Stuck`] while damage keeps appends from being taken in, [`StoreError::ReadOnly`] while the database is a
    /// standby or takes no writes, as far as was known a second ago.
    pub fn check_writes(&self) -> Result<(), StoreError> {
        self.backend.check_writes()
    }

    /// The world it lives in.
    pub fn env(&self) -> &Env {
        &self.env
    }

    /// What a room keeps in memory about this store: one `T`, whoever asks, for as long as somebody holds it.
    ///
    /// For rooms whose memory must be the only one of its kind, however often they are opened.
    pub fn room<T: Default + Send + Sync + 'static>(&self) -> Arc<T> {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let known = rooms.get(&TypeId::of::<T>()).and_then(Weak::upgrade).and_then(|room| room.downcast().ok());
        known.unwrap_or_else(|| {
            let room = Arc::<T>::default();
            let shared: Arc<dyn Any + Send + Sync> = room.clone();
            rooms.insert(TypeId::of::<T>(), Arc::downgrade(&shared));
            room
        })
    }

    /// Who in this process keeps views of this store up to date.
    pub(crate) fn presence(&self) -> &Presence {
        &self.presence
    }

    /// The last readable position of the log.
    pub fn head(&self) -> Position {
        *self.backend.head().borrow()
    }

    /// The last readable position, as it moves. A receiver that lags sees only the newest value: nothing piles up. It is also
    /// woken, with the same value, when the store closes.
    pub fn watch_head(&self) -> watch::Receiver<Position> {
        self.backend.head()
    }

    /// How often something was forgotten, by an erasure, by retiring events or by a stricter rule of a stream's metadata, since
    /// the store was opened. Metadata that hides nothing more does not count.
    ///
    /// For whoever keeps events in memory: take the number *before* reading them, and compare before handing them on. As
    /// long as it is the same, everything acknowledged as forgotten was gone when they were read; once it has moved, read
    /// them again. It moves before the erasure, truncation or tombstone is answered.
    pub fn forgotten(&self) -> u64 {
        *self.backend.forgotten().borrow()
    }

    /// The same number, as it moves.
    pub fn watch_forgotten(&self) -> watch::Receiver<u64> {
        self.backend.forgotten()
    }

    /// Changes whenever `stream` may have become another: appended to, truncated, tombstoned, or closed with the store. It may
    /// change for other streams too; what it holds says nothing about this one.
    pub fn watch_stream(&self, stream: &Name) -> watch::Receiver<Position> {
        self.backend.stream_moves(stream)
    }

    /// The token of the newest readable append.
    pub fn token(&self) -> Token {
        Token::new(self.timeline(), self.backend.newest())
    }

    /// The token of the newest readable append, and at least of the one at `seen`, a position that was read from here.
    pub fn token_from(&self, seen: Position) -> Token {
        // Where tokens are no positions, whoever read `seen` moved the head there.
        let newest = self.backend.newest();
        let is_place = self.capabilities().tokens_are_positions;
        Token::new(self.timeline(), if is_place { newest.max(seen.get()) } else { newest })
    }

    /// Waits until the append of `token` is readable here, for at most `patience`, and tells where in the log it ends; `None`
    /// where it did not become readable. As for [`place`](Self::place), compare timelines first.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn reach(&self, token: Token, patience: Duration) -> Result<Option<Position>, StoreError> {
        let mut head = self.watch_head();
        let until = self.env.mono() + patience;
        loop {
            head.mark_unchanged();
            if let Some(place) = self.place(token).await? {
                return Ok(Some(place));
            }
            let left = until.saturating_since(self.env.mono());
            if !matches!(self.env.timeout(left, head.changed()).await, Some(Ok(()))) {
                return Ok(None);
            }
        }
    }

    /// Where in the log the append of `token` ends; `None` while it is not readable here. A token of another
    /// [timeline](Self::timeline) means nothing here: compare first.
    pub async fn place(&self, token: Token) -> Result<Option<Position>, StoreError> {
        self.backend.place(token.append()).await
    }

    /// A new event id: a UUID version 7, so that ids of later events sort later.
    pub fn event_id(&self) -> Arc<str> {
        let millis = u64::try_from(self.env.wall().unix_nanos() / 1_000_000).unwrap_or(0);
        let mut noise = [0; 10];
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).fill(&mut noise);
        let id = uuid::Builder::from_unix_timestamp_millis(millis, &noise).into_uuid();
        let mut text = uuid::Uuid::encode_buffer();
        Arc::from(&*id.hyphenated().encode_lower(&mut text))
    }

    /// Appends a batch: all of it becomes durable and visible together, or nothing does.
    ///
    /// Many appends share one sync of the disk. Events keep the order given; positions follow the order of commits.
    ///
    /// # Errors
    /// See [`AppendError`]; [`AppendError::Reserved`] for streams that are [a room's own](super::reserved_for). Repeating an append with the same event ids is always safe and answers as the first time.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the write: the outcome is then unknown.
    pub async fn append(&self, batch: AppendBatch) -> Result<Appended, AppendError> {
        reserved::check(&batch)?;
        let batch = self.check(batch).await;
        self.backend.append(batch).await
    }

    /// Holds a batch against the schemas in force, and its conditions against the events there are, to be appended in a
    /// transaction with [`DynTx::append_checked`]: the writer, who runs transactions, then has less to do. Never needed, every
    /// append is checked; but the writer looks at fewer events ([`AppendBatch::MAX_LOOKS_OF_WRITER`]) than this does
    /// ([`AppendBatch::MAX_LOOKS`]) before it refuses a batch.
    pub async fn check(&self, batch: AppendBatch) -> CheckedBatch {
        let looked =
            if batch.conditions.is_empty() { Looked::default() } else { self.backend.look_ahead(&batch).await };
        let schemas = self.schemas();
        if !checked::takes_long(&batch, schemas) {
            return CheckedBatch::of(batch, looked, schemas);
        }
        let schemas = schemas.clone();
        self.env.run_blocking(move || CheckedBatch::of(batch, looked, &schemas)).await
    }

    /// The schemas that every append is held against; to register one, see [`Registrar`](crate::schema::Registrar).
    pub fn schemas(&self) -> &SchemaRegistry {
        self.backend.schemas()
    }

    /// Runs `unit` in a transaction and commits it if it returns `Ok`.
    ///
    /// `unit` may be run again when another writer was in the way, so it must be free of side effects of its own.
    /// Inside, await nothing but the transaction. One unit has at most [`Limits::unit_time`]
    /// and [`Limits::unit_bytes`](field@Limits::unit_bytes); beyond either it alone is rolled back.
    ///
    /// # Errors
    /// [`TransactError::Aborted`] with the closure's own error; nothing was written.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the transaction: the outcome is then unknown.
    ///
    /// # Example
    /// ```
    /// # use quorate_data::{event::NewEvent, store::*};
    /// # async fn example(store: Store) -> Result<(), Box<dyn std::error::Error>> {
    /// let seats = store.transact(|tx| Box::pin(async move {
    ///     let taken = NewEvent::new("e-9", "/shop", "seat.taken");
    ///     tx.append(&"show-7".parse().unwrap(), ExpectedVersion::Any, vec![taken]).await.map_err(|e| e.to_string())?;
    ///     tx.execute("UPDATE show SET free = free - 1 WHERE id = $1", &[7.into()]).await.map_err(|e| e.to_string())
    /// })).await?;
    /// assert_eq!(seats, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn transact<T, E, F>(&self, unit: F) -> Result<T, TransactError<E>>
    where
        F: for<'t> Fn(&'t mut DynTx) -> BoxFuture<'t, Result<T, E>> + Send + Sync + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        self.transact_with_token(unit).await.map(|(value, _)| value)
    }

    /// As [`transact`](Self::transact), and returns the token of the newest append the transaction made or saw.
    pub async fn transact_with_token<T, E, F>(&self, unit: F) -> Result<(T, Token), TransactError<E>>
    where
        F: for<'t> Fn(&'t mut DynTx) -> BoxFuture<'t, Result<T, E>> + Send + Sync + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let closure = Arc::new(Closure { unit, outcome: Mutex::new(None) });
        let ended = self.backend.transact(closure.clone()).await;
        let outcome = closure.outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (ended, outcome) {
            (Ok(committed), Some(Ok(value))) => Ok((value, Token::new(self.timeline(), committed.append))),
            (Err(UnitError::Aborted), Some(Err(own))) => Err(TransactError::Aborted(own)),
            (Err(UnitError::ForeignAwait), _) => Err(TransactError::ForeignAwait),
            (Err(UnitError::TooLong), _) => Err(TransactError::TooLong { limit: self.limits().unit_time }),
            (Err(UnitError::TooLarge), _) => Err(TransactError::TooLarge { limit: self.limits().unit_bytes() }),
            (Err(UnitError::Panicked(what)), _) => Err(TransactError::Panicked { what }),
            (Err(UnitError::Constraint(what)), _) => Err(TransactError::Constraint { what }),
            (Err(UnitError::Follower(view, what)), _) => Err(TransactError::View { view, what }),
            (Err(UnitError::Store(cause)), _) => Err(TransactError::Store(cause)),
            (Ok(_) | Err(UnitError::Aborted), _) => unreachable!("a backend reports what the unit returned last"),
        }
    }

    /// Reads a page of a stream. A stream that does not exist is empty.
    ///
    /// Sees every append acknowledged before the call. Memory is bounded by [`Limits::page_bytes`].
    pub async fn read_stream(&self, read: ReadStream) -> Result<StreamPage, StoreError> {
        self.backend.read_stream(read).await
    }

    /// What a stream is like right now.
    pub async fn stream_head(&self, stream: &Name) -> Result<StreamHead, StoreError> {
        Ok(self.read_stream(ReadStream::backward(stream.clone(), 1)).await?.head)
    }

    /// Reads a page of the log, oldest first. A page without a match still advances: see [`LogPage::scanned`].
    ///
    /// # Errors
    /// [`StoreError::InvalidQuery`] for a query that [`Query::check`](super::Query::check) refuses.
    pub async fn read_log(&self, read: ReadLog) -> Result<LogPage, StoreError> {
        read.query.check()?;
        self.backend.read_log(read).await
    }

    /// Streams in order of their names: those behind `after` that begin with `prefix`.
    pub async fn streams(
        &self,
        prefix: &str,
        after: Option<Name>,
        limit: usize,
    ) -> Result<Vec<StreamSummary>, StoreError> {
        self.backend.streams(prefix.to_owned(), after, limit).await
    }

    /// Has `follower` take in events in the transactions that append them, from now on and until the store closes.
    ///
    /// # Errors
    /// [`StoreError::Unsupported`] where the engine has no [`inline_views`](Capabilities::inline_views).
    pub fn follow(&self, follower: Arc<dyn Follower>) -> Result<(), StoreError> {
        self.backend.follow(follower)
    }

    /// Runs a read-only query over the application's tables; `$1`, `$2`, … stand for `params`.
    pub async fn query(&self, sql: &str, params: Vec<Value>) -> Result<Vec<Row>, SqlError> {
        self.backend.query(sql.to_owned(), params, Scope::Application).await
    }

    /// The same for quorate's own rooms, on the tables they declared.
    pub async fn room_query(&self, sql: &str, params: Vec<Value>) -> Result<Vec<Row>, SqlError> {
        self.backend.query(sql.to_owned(), params, Scope::Room).await
    }

    /// Runs a read-only query over the tables of one build of a view, and nothing else.
    pub async fn view_query(&self, build: Build, sql: &str, params: Vec<Value>) -> Result<Vec<Row>, SqlError> {
        self.backend.query(sql.to_owned(), params, Scope::View(build)).await
    }

    /// Answers an inquiry, all of it as of one moment. It never waits for a writer, and no writer for it.
    ///
    /// # Errors
    /// [`SqlError::Exceeded`] where the reader's own statement would take more time or memory than its bounds allow.
    ///
    /// # Cancel safety
    /// Dropping the future stops the statement soon.
    pub async fn inquire(&self, inquiry: Inquiry) -> Result<Findings, SqlError> {
        self.backend.inquire(inquiry).await
    }

    /// The columns of a table, in order; none where there is no such table.
    pub async fn table_columns(&self, table: &str) -> Result<Vec<TableColumn>, StoreError> {
        self.backend.table_columns(table.to_owned()).await
    }

    /// Creates or upgrades the tables of one of quorate's rooms. Running it again changes nothing.
    ///
    /// # Errors
    /// [`SqlError::Refused`] when a newer quorate has already upgraded them further.
    pub async fn declare(&self, tables: RoomTables) -> Result<(), SqlError> {
        let declared = self.transact(move |tx| Box::pin(upgrade(tx, tables))).await;
        declared.map_err(|failed| match failed {
            TransactError::Aborted(cause) => cause,
            TransactError::Store(cause) => SqlError::Store(cause),
            other => SqlError::Failed { what: other.to_string() },
        })
    }

    /// Writes a consistent copy to the new file `to`, without keys of data subjects, while the store is in use. Returns its size in bytes.
    ///
    /// It has its name once it is complete and durable. Copies of a store are written one at a time: another waits for its turn.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not a copy that has begun.
    pub async fn backup(&self, to: PathBuf, progress: Progress) -> Result<u64, StoreError> {
        self.backend.backup(to, progress).await
    }

    /// Checks everything: positions dense, bytes and hash chains intact, every index in agreement.
    pub async fn verify(&self, progress: Progress) -> Result<Verified, StoreError> {
        self.backend.verify(progress).await
    }

    /// Finishes what was accepted and closes. Later calls fail with [`StoreError::Closed`].
    pub async fn close(&self) -> Result<(), StoreError> {
        self.backend.close().await
    }
}

/// The closure's own error, or the store's, of a transaction of ours.
fn own<E: From<StoreError>>(failed: TransactError<E>, doing: &'static str) -> E {
    match failed {
        TransactError::Aborted(own) => own,
        TransactError::Store(cause) => cause.into(),
        other => StoreError::Engine { doing, cause: Arc::new(std::io::Error::other(other.to_string())) }.into(),
    }
}

struct Closure<F, T, E> {
    unit: F,
    outcome: Mutex<Option<Result<T, E>>>,
}

impl<F, T, E> Unit for Closure<F, T, E>
where
    F: for<'t> Fn(&'t mut DynTx) -> BoxFuture<'t, Result<T, E>> + Send + Sync,
    T: Send,
    E: Send,
{
    fn run<'t>(&'t self, tx: &'t mut DynTx) -> BoxFuture<'t, Result<(), Aborted>> {
        Box::pin(async move {
            let outcome = (self.unit)(tx).await;
            let ended = outcome.as_ref().map(|_| ()).map_err(|_| Aborted);
            *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
            ended
        })
    }
}
