//! PostgreSQL behind the [`Backend`] port.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join3;
use quorate_foundations::name::Name;
use quorate_runtime::{BoxFuture, Env, tasks::Tasks};
use tokio::sync::{Notify, watch};
use tokio_postgres::types::Type;

use super::{
    connect::Pool,
    dialect::Statement,
    group::Ground,
    lanes::{self, Lanes},
    metadata, read,
    ready::Ready,
    sequencer::{End, Sequencer},
    sql::{self, Failed},
    statements::Statements,
    transact, verify,
};
use crate::{
    event::Position,
    schema::SchemaRegistry,
    store::{
        AppendError, Appended, Archive, ArchiveError, ArchiveOrder, Backend, Capabilities, CheckedBatch, Committed,
        Follower, Limits, LogPage, Progress, ReadLog, ReadStream, Row, Scope, SetMetadata, SqlError, Statistics,
        StoreError, StreamPage, StreamSummary, Timeline, Unit, UnitError, Value, Verified,
        erasure::{DataSubject, Entry, Erased},
    },
};

pub(super) const ENGINE: &str = "postgres";

/// What this engine can and cannot do.
pub const CAPABILITIES: Capabilities = Capabilities {
    engine: ENGINE,
    durable_before_reply: true,
    several_writers: true,
    application_tables: true,
    view_tables: false,
    online_backup: false,
    erasure: false,
    metadata: true,
    retention: false,
    inline_views: false,
    tokens_are_positions: false,
    own_log_in_transaction: false,
};

/// What everything in an open store shares.
pub(super) struct Shared {
    pub(super) env: Env,
    pub(super) sql: Statements,
    pub(super) timeline: Timeline,
    pub(super) limits: Limits,
    pub(super) schemas: SchemaRegistry,
    /// How many changes of the schemas are in the registry.
    pub(super) schemas_known: AtomicU64,
    pub(super) patience: Duration,
    pub(super) sequencer: Arc<Sequencer>,
    pub(super) pool: Arc<Pool>,
    /// Connections for whoever already has one: they never wait for those who wait for them.
    pub(super) beside: Arc<Pool>,
    pub(super) lanes: Lanes,
    /// Whose turn it is among transactions that others were in the way of.
    pub(super) turn: tokio::sync::Mutex<()>,
    tasks: Tasks,
    gate: Arc<Gate>,
    forgotten: watch::Sender<u64>,
    commits: AtomicU64,
    dice: std::sync::Mutex<quorate_runtime::random::Rng>,
}

/// Counts who is inside.
#[derive(Default)]
struct Gate {
    is_closed: AtomicBool,
    inside: AtomicUsize,
    left: Notify,
}

/// Somebody inside.
pub(super) struct Pass(Arc<Gate>);

impl Drop for Pass {
    fn drop(&mut self) {
        if self.0.inside.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.left.notify_waiters();
        }
    }
}

impl Shared {
    #[expect(clippy::too_many_arguments, reason = "opening puts it together from everything there is")]
    pub(super) fn new(
        env: Env,
        sql: Statements,
        timeline: Timeline,
        limits: Limits,
        schemas: SchemaRegistry,
        schemas_known: u64,
        patience: Duration,
        sequencer: Arc<Sequencer>,
        pool: Arc<Pool>,
        beside: Arc<Pool>,
        tasks: Tasks,
    ) -> Self {
        let dice = std::sync::Mutex::new(env.random("store/pauses"));
        Self {
            env,
            sql,
            timeline,
            limits,
            schemas,
            schemas_known: AtomicU64::new(schemas_known),
            patience,
            sequencer,
            lanes: Lanes::new(pool.connections),
            pool,
            beside,
            turn: tokio::sync::Mutex::default(),
            tasks,
            gate: Arc::default(),
            forgotten: watch::Sender::new(0),
            commits: AtomicU64::new(0),
            dice,
        }
    }

    /// Lets somebody in, unless the store is closed.
    pub(super) fn enter(&self) -> Result<Pass, StoreError> {
        // Ordering: one total order of who came in and the closing: either it is counted, or it sees that it is too late.
        self.gate.inside.fetch_add(1, Ordering::SeqCst);
        let pass = Pass(self.gate.clone());
        if self.gate.is_closed.load(Ordering::SeqCst) { Err(StoreError::Closed) } else { Ok(pass) }
    }

    /// What appends need to know, as of now.
    pub(super) fn ground(&self) -> Ground<'_> {
        Ground {
            // Ordering: read before anything is held against the registry, which then has these changes or more.
            schemas_known: self.schemas_known.load(Ordering::Acquire),
            schemas: &self.schemas,
            sql: &self.sql,
            store: self.timeline.store,
            now: self.env.wall(),
        }
    }

    /// How long to wait before trying again, so that those who were in each other's way are not again.
    pub(super) fn pause(&self) -> Duration {
        let mut dice = self.dice.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Duration::from_micros(500 + dice.below(20_000))
    }

    /// Waits until everything that was committed before has a position.
    pub(super) async fn catch_up(&self) -> Result<(), StoreError> {
        let done = self.env.timeout(self.patience, self.sequencer.catch_up()).await;
        done.unwrap_or_else(|| Err(StoreError::Unreachable { what: "no positions were given in time".to_owned() }))
    }

    /// The position of a committed event.
    pub(super) async fn position_of(&self, event: i64) -> Result<Position, StoreError> {
        self.catch_up().await?;
        Ok(self.place(event).await?.unwrap_or(Position::ZERO))
    }

    async fn place(&self, event: i64) -> Result<Option<Position>, StoreError> {
        const PLACING: &str = "looking for an event's position";
        let lease = self.beside.lease().await.map_err(|fault| fault.into_store(PLACING))?;
        let failed = |failed: tokio_postgres::Error| super::fault::Fault::from(failed).into_store(PLACING);
        let row = lease.query_typed_opt(&self.sql.places, &[(&vec![event], Type::INT8_ARRAY)]).await.map_err(failed)?;
        lease.keep();
        let position: Option<i64> = row.map(|row| row.try_get(1)).transpose().map_err(failed)?;
        Ok(position.map(|position| {
            let end = End { position: position.cast_unsigned(), event: event.cast_unsigned() };
            self.sequencer.saw(end);
            Position::new(end.position)
        }))
    }

    pub(super) fn count_commit(&self) {
        // Ordering: a count for people; nothing is decided by it.
        self.commits.fetch_add(1, Ordering::Relaxed);
    }
}

pub(super) struct PostgresBackend {
    shared: Arc<Shared>,
}

impl PostgresBackend {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl Drop for PostgresBackend {
    fn drop(&mut self) {
        // Whoever did not close gets what close does, without the wait: what was accepted is still finished.
        self.shared.gate.is_closed.store(true, Ordering::SeqCst);
        let shared = self.shared.clone();
        self.shared.env.tasks().spawn("store/closing", async move { shut(&shared).await });
    }
}

async fn shut(shared: &Shared) {
    loop {
        let left = shared.gate.left.notified();
        tokio::pin!(left);
        left.as_mut().enable();
        if shared.gate.inside.load(Ordering::SeqCst) == 0 {
            break;
        }
        left.await;
    }
    shared.tasks.stop().cancel();
    shared.pool.close();
    shared.beside.close();
    shared.sequencer.wake();
}

fn unsupported<T: Send + 'static, E: From<StoreError> + Send + 'static>(
    what: &'static str,
) -> BoxFuture<'static, Result<T, E>> {
    Box::pin(std::future::ready(Err(StoreError::Unsupported { engine: ENGINE, what }.into())))
}

/// What it cannot do for views.
pub(super) const VIEWS: &str = "keep tables of views";
const ARCHIVES: &str = "archive events";
const ERASURE: &str = "erase data subjects";
/// What it cannot do with streams' metadata.
pub(super) const RULES: &str = "forget events by rules of their streams";
const READING: &str = "reading";
const CONNECTIONS_TRIED: usize = 4;

/// Reads on a connection, and on another one where that turns out to have ended while it lay idle.
macro_rules! reading {
    ($shared:expr, |$client:ident| $read:expr) => {{
        let mut tried = 1;
        loop {
            let lease = $shared.pool.lease().await.map_err(|fault| fault.into_store(READING))?;
            let $client: &tokio_postgres::Client = &lease;
            match $read.await {
                Err(StoreError::Unreachable { .. }) if tried < CONNECTIONS_TRIED => tried += 1,
                outcome => {
                    lease.keep();
                    break outcome;
                }
            }
        }
    }};
}

/// Runs a statement that only reads, in a transaction that always ends. What is its own fault stands inside.
async fn query(
    shared: &Shared,
    client: &tokio_postgres::Client,
    statement: &Statement<'_>,
    params: &[Value],
    scope: Scope,
) -> Result<Result<Vec<Row>, SqlError>, StoreError> {
    let as_whom = if scope == Scope::Application { &shared.sql.as_application } else { &shared.sql.as_own };
    let begin = format!("{}{as_whom}", shared.sql.begin_query);
    let running = sql::run(client, statement, params, scope, Some(&shared.limits));
    let (begun, ran, ended) = join3(client.batch_execute(&begin), running, client.batch_execute("ROLLBACK")).await;
    let store = |failed: tokio_postgres::Error| super::fault::Fault::from(failed).into_store(READING);
    begun.map_err(store)?;
    ended.map_err(store)?;
    Ok(match ran {
        Ok(ran) => Ok(ran.rows),
        Err(Failed::Answer(refused)) => Err(refused),
        Err(Failed::Server(fault)) if fault.is_late() => {
            Err(SqlError::Failed { what: format!("it took longer than {:?}", shared.limits.unit_time) })
        }
        Err(Failed::Server(fault)) if fault.has_code("25006") => {
            Err(SqlError::Refused { what: "change anything".to_owned() })
        }
        Err(Failed::Server(fault)) => match sql::said(fault) {
            SqlError::Store(cause) => return Err(cause),
            own => Err(own),
        },
    })
}

impl Backend for PostgresBackend {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    fn timeline(&self) -> Timeline {
        self.shared.timeline
    }

    fn statistics(&self) -> Statistics {
        let commits = self.shared.commits.load(Ordering::Relaxed);
        Statistics { commits, waiting: self.shared.lanes.waiting(), ..Statistics::default() }
    }

    fn check_writes(&self) -> Result<(), StoreError> {
        if self.shared.gate.is_closed.load(Ordering::SeqCst) {
            return Err(StoreError::Closed);
        }
        if self.shared.sequencer.is_read_only() { Err(StoreError::ReadOnly) } else { Ok(()) }
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.shared.sequencer.head()
    }

    fn forgotten(&self) -> watch::Receiver<u64> {
        self.shared.forgotten.subscribe()
    }

    fn newest(&self) -> u64 {
        self.shared.sequencer.newest()
    }

    fn place(&self, append: u64) -> BoxFuture<'_, Result<Option<Position>, StoreError>> {
        Box::pin(async move {
            let _pass = self.shared.enter()?;
            match append {
                0 => Ok(Some(Position::ZERO)),
                append => {
                    let event = append.cast_signed();
                    if let Some(place) = self.shared.place(event).await? {
                        return Ok(Some(place));
                    }
                    // Committed perhaps, by another node, and without a position yet. On a standby nobody can give it one.
                    match self.shared.catch_up().await {
                        Ok(()) => self.shared.place(event).await,
                        Err(StoreError::ReadOnly) => Ok(None),
                        Err(cause) => Err(cause),
                    }
                }
            }
        })
    }

    fn schemas(&self) -> &SchemaRegistry {
        &self.shared.schemas
    }

    fn append(&self, batch: CheckedBatch) -> BoxFuture<'_, Result<Appended, AppendError>> {
        let batch = batch.renewed(&self.shared.schemas);
        let submitted = Ready::new(batch, &self.shared.limits, self.shared.timeline.store)
            .and_then(|ready| Ok(lanes::submit(&self.shared, ready)?));
        Box::pin(async move {
            // Every batch that was taken is answered; without an answer whoever had it died on the way.
            submitted?.await.unwrap_or_else(|_| Err(StoreError::OutcomeUnknown.into()))
        })
    }

    fn transact(&self, unit: Arc<dyn Unit>) -> BoxFuture<'_, Result<Committed, UnitError>> {
        let entered = self.shared.enter();
        Box::pin(async move {
            let pass = entered?;
            let (reply, answer) = tokio::sync::oneshot::channel();
            let shared = self.shared.clone();
            // In a task of its own: whoever asked may go away, and a commit under way has to be followed to its end.
            self.shared.env.tasks().spawn("store/unit", async move {
                let committed = transact::run(&shared, unit.as_ref()).await;
                if committed.is_ok() {
                    shared.count_commit();
                }
                drop(pass);
                let _gone = reply.send(committed);
            });
            answer.await.unwrap_or_else(|_| Err(StoreError::OutcomeUnknown.into()))
        })
    }

    fn follow(&self, _: Arc<dyn Follower>) -> Result<(), StoreError> {
        Err(StoreError::Unsupported { engine: ENGINE, what: "keep a view in the transactions that append" })
    }

    fn read_stream(&self, read: ReadStream) -> BoxFuture<'_, Result<StreamPage, StoreError>> {
        Box::pin(async move {
            let _pass = self.shared.enter()?;
            reading!(self.shared, |client| read::stream(&self.shared, client, &read))
        })
    }

    fn read_log(&self, read: ReadLog) -> BoxFuture<'_, Result<LogPage, StoreError>> {
        Box::pin(async move {
            let _pass = self.shared.enter()?;
            reading!(self.shared, |client| read::log(&self.shared, client, &read))
        })
    }

    fn streams(
        &self,
        prefix: String,
        after: Option<Name>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<StreamSummary>, StoreError>> {
        Box::pin(async move {
            let _pass = self.shared.enter()?;
            read::check_limit(&self.shared.limits, limit)?;
            match self.shared.catch_up().await {
                // What has no position yet is not there for readers.
                Ok(()) | Err(StoreError::ReadOnly) => {}
                Err(cause) => return Err(cause),
            }
            reading!(self.shared, |client| read::streams(&self.shared, client, &prefix, after.as_ref(), limit))
        })
    }

    fn query(&self, sql: String, params: Vec<Value>, scope: Scope) -> BoxFuture<'_, Result<Vec<Row>, SqlError>> {
        Box::pin(async move {
            let _pass = self.shared.enter()?;
            let statement = Statement::new(&sql, scope)?;
            reading!(self.shared, |client| query(&self.shared, client, &statement, &params, scope))?
        })
    }

    fn settle(&self, _: Option<Name>) -> BoxFuture<'_, Result<(), StoreError>> {
        // Nothing is ever forgotten here, so nothing is left to be.
        Box::pin(std::future::ready(Ok(())))
    }

    fn metadata(&self, stream: Name) -> BoxFuture<'_, Result<SetMetadata, StoreError>> {
        Box::pin(async move {
            let _pass = self.shared.enter()?;
            reading!(self.shared, |client| async {
                let found = metadata::read(client, &self.shared.sql, &stream).await;
                found.map_err(|fault| fault.into_store(READING))
            })
        })
    }

    fn ruled(&self, _: Option<Name>, _: usize) -> BoxFuture<'_, Result<Vec<StreamSummary>, StoreError>> {
        unsupported(RULES)
    }

    fn archive(&self, _: ArchiveOrder) -> BoxFuture<'_, Result<Archive, ArchiveError>> {
        unsupported(ARCHIVES)
    }

    fn archives(&self, _: Name) -> BoxFuture<'_, Result<Vec<Archive>, StoreError>> {
        unsupported(ARCHIVES)
    }

    fn erase(&self, _: Arc<str>) -> BoxFuture<'_, Result<Erased, StoreError>> {
        unsupported(ERASURE)
    }

    fn erasures(&self, _: u64, _: usize) -> BoxFuture<'_, Result<Vec<Entry>, StoreError>> {
        unsupported(ERASURE)
    }

    fn data_subject(&self, _: Arc<str>) -> BoxFuture<'_, Result<DataSubject, StoreError>> {
        unsupported(ERASURE)
    }

    fn wipe(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        unsupported(ERASURE)
    }

    fn backup_keys(&self, _: PathBuf) -> BoxFuture<'_, Result<u64, StoreError>> {
        unsupported(ERASURE)
    }

    fn backup(&self, _: PathBuf, _: Progress) -> BoxFuture<'_, Result<u64, StoreError>> {
        unsupported("copy itself: take a base backup, or pg_dump")
    }

    fn verify(&self, progress: Progress) -> BoxFuture<'_, Result<Verified, StoreError>> {
        Box::pin(async move {
            let _pass = self.shared.enter()?;
            let lease = self.shared.pool.lease().await.map_err(|fault| fault.into_store(READING))?;
            let verified = verify::run(&self.shared, &lease, &progress).await?;
            lease.keep();
            Ok(verified)
        })
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            if self.shared.gate.is_closed.swap(true, Ordering::SeqCst) {
                return Err(StoreError::Closed);
            }
            shut(&self.shared).await;
            Ok(())
        })
    }
}
