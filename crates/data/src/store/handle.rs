//! `Store`: the handle everybody holds.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use quorate_foundations::name::Name;
use quorate_runtime::{BoxFuture, Env, random::Rng};
use tokio::sync::watch;

use super::{
    Aborted, AppendBatch, AppendError, Appended, Backend, Capabilities, CheckedBatch, DynTx, Limits, LogPage, Progress,
    ReadLog, ReadStream, Retire, Retired, Row, Scope, SqlError, Statistics, StoreError, StreamHead, StreamPage,
    StreamSummary, Timeline, Token, TransactError, Unit, UnitError, Value, Verified, checked,
    erasure::{EraseHook, SubjectHash},
    rooms::{RoomTables, upgrade},
};
use crate::{event::Position, schema::SchemaRegistry};

/// A store. Cheap to clone; clones are the same store.
#[derive(Clone)]
pub struct Store {
    pub(super) backend: Arc<dyn Backend>,
    env: Env,
    ids: Arc<Mutex<Rng>>,
    pub(super) erase_hooks: Arc<Mutex<Vec<(&'static str, EraseHook)>>>,
    pub(super) unfinished: Arc<Mutex<BTreeSet<SubjectHash>>>,
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
        }
    }

    /// What the engine can and cannot do.
    pub fn capabilities(&self) -> Capabilities {
        self.backend.capabilities()
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

    /// The world it lives in.
    pub fn env(&self) -> &Env {
        &self.env
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

    /// How often something was forgotten, by an erasure or by retiring events, since the store was opened.
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
        Token::new(self.timeline(), self.head().get())
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
    /// See [`AppendError`]. Repeating an append with the same event ids is always safe and answers as the first time.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the write: the outcome is then unknown.
    pub async fn append(&self, batch: AppendBatch) -> Result<Appended, AppendError> {
        let batch = self.check(batch).await;
        self.backend.append(batch).await
    }

    /// Holds a batch against the schemas in force, to be appended in a transaction with [`DynTx::append_checked`]: the
    /// writer, who runs transactions, then has less to do. Never needed: every append is checked.
    pub async fn check(&self, batch: AppendBatch) -> CheckedBatch {
        let schemas = self.schemas();
        if !checked::takes_long(&batch, schemas) {
            return CheckedBatch::of(batch, schemas);
        }
        let schemas = schemas.clone();
        self.env.run_blocking(move || CheckedBatch::of(batch, &schemas)).await
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

    /// Runs a read-only query over the application's tables; `$1`, `$2`, … stand for `params`.
    pub async fn query(&self, sql: &str, params: Vec<Value>) -> Result<Vec<Row>, SqlError> {
        self.backend.query(sql.to_owned(), params, Scope::Application).await
    }

    /// The same for quorate's own rooms, on the tables they declared.
    pub async fn room_query(&self, sql: &str, params: Vec<Value>) -> Result<Vec<Row>, SqlError> {
        self.backend.query(sql.to_owned(), params, Scope::Room).await
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

    /// Makes stubs of a stream's events: their data is forgotten, their place and hash stay.
    pub async fn retire(&self, stream: Name, what: Retire) -> Result<Retired, AppendError> {
        self.backend.retire(stream, what).await
    }

    /// Writes a consistent copy to the new file `to`, without keys of data subjects, while the store is in use. Returns its size in bytes.
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
