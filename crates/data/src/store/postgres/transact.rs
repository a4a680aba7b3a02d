//! Transactions with a closure: serializable, and run again where another one was in the way.

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc};

use futures_util::{FutureExt, future::join};
use quorate_foundations::name::Name;
use quorate_runtime::BoxFuture;
use tokio_postgres::types::{ToSql, Type};

use super::{
    backend::{ENGINE, RULES, Shared},
    connect::Lease,
    dialect::Statement,
    fault::Fault,
    group::{self, Own, Within},
    lanes, metadata, read,
    ready::Ready,
    schemas,
    sql::{self, Failed, Ran},
    words,
};
use crate::{
    event::Version,
    store::{
        Aborted, AppendError, Appended, CheckedBatch, Committed, DynTx, ExpectedVersion, LogPage, MetadataError,
        ReadLog, ReadStream, Retire, Retired, Row, Scope, SetMetadata, SqlError, StoreError, StreamMetadata,
        StreamPage, TxOps, Unit, UnitError, Value,
    },
};

const TRANSACTING: &str = "running a transaction";
/// How often a unit is run again because another one was in the way.
const ATTEMPTS: usize = 50;
/// How often it tries beside all others. Then it waits for its turn among those of this process that others were in the way
/// of: where hundreds want the same rows, most attempts would be in vain.
const BESIDE: usize = 3;

/// Runs `unit` until it ended for a reason of its own.
pub(super) async fn run(shared: &Arc<Shared>, unit: &dyn Unit) -> Result<Committed, UnitError> {
    let (mut last, mut turn, mut how) = (None, None, How::default());
    // Waiting for others again and again is no better than waiting for them once, and has an end.
    let (until, mut only_waited) = (shared.env.mono() + shared.patience.max(shared.limits.unit_time), true);
    for tried in 0..ATTEMPTS {
        if tried >= BESIDE && turn.is_none() {
            let mine = shared.env.timeout(shared.patience, shared.turn.lock()).await;
            turn = Some(mine.ok_or(StoreError::Busy)?);
        }
        match attempt(shared, unit, how).await? {
            Ended::Committed(newest) => {
                drop(turn);
                let _late = shared.catch_up().await;
                let append = newest.map_or_else(|| shared.sequencer.newest(), i64::cast_unsigned);
                return Ok(Committed { append });
            }
            Ended::InTheWay(fault) => {
                how.learn(&fault);
                only_waited &= fault.is_waiting() || fault.is_late() || matches!(fault, Fault::NotAlone);
                if only_waited && shared.env.mono() >= until {
                    return Err(fault.into_store(TRANSACTING).into());
                }
                if matches!(fault, Fault::Stale) {
                    // A registration that this waits for may be waiting for the turn.
                    turn = None;
                    schemas::refresh(shared).await?;
                }
                last = Some(fault);
            }
        }
        shared.env.reached("store: a transaction was run again");
        shared.env.sleep(shared.pause()).await;
    }
    let cause = last.filter(|fault| !fault.is_conflict()).map(|fault| fault.into_store(TRANSACTING));
    Err(cause.unwrap_or(StoreError::Busy).into())
}

/// What an attempt does that seldom has to be done: the one before ended for want of it.
#[derive(Clone, Copy, Default)]
struct How {
    /// Looks for events that are known before it appends.
    known: bool,
    /// Keeps every other closure out, so that it may register schemas.
    alone: bool,
}

impl How {
    fn learn(&mut self, fault: &Fault) {
        self.known |= matches!(fault, Fault::Known);
        self.alone |= matches!(fault, Fault::NotAlone);
    }
}

enum Ended {
    /// With the id of its last event, if it appended any.
    Committed(Option<i64>),
    /// Nothing came of it, because of somebody else.
    InTheWay(Fault),
}

/// A transaction in progress.
struct Inside {
    shared: Arc<Shared>,
    lease: Lease,
    how: How,
    /// What it appended.
    own: Own,
    /// The bytes it asked to write, and those that rooms did.
    asked: usize,
    asked_by_rooms: usize,
    /// Whether the server takes what comes next for the application's.
    as_application: bool,
    /// Whether there is a mark to go back to.
    is_marked: bool,
    /// Why nothing more can come of it.
    lost: Option<Fault>,
}

async fn attempt(shared: &Arc<Shared>, unit: &dyn Unit, how: How) -> Result<Ended, UnitError> {
    let failed = |fault: Fault| UnitError::Store(fault.into_store(TRANSACTING));
    let lease = shared.pool.lease().await.map_err(failed)?;
    let begin = if how.alone { &shared.sql.begin_unit_alone } else { &shared.sql.begin_unit };
    if let Err(refused) = lease.batch_execute(begin).await {
        let fault = Fault::from(refused);
        // A standby has nothing that is serializable.
        if fault.has_code("0A000") {
            return Err(StoreError::ReadOnly.into());
        }
        // A connection that lay idle may have ended without a word; and schemas are being registered, or closures at work.
        if fault.is_lost() || fault.is_late() {
            return Ok(Ended::InTheWay(fault));
        }
        let ended = if fault.is_conflict() { Ok(Ended::InTheWay(fault)) } else { Err(failed(fault)) };
        lease.roll_back().await;
        return ended;
    }
    let inside = Inside {
        shared: shared.clone(),
        lease,
        how,
        own: Own::default(),
        asked: 0,
        asked_by_rooms: 0,
        as_application: false,
        is_marked: false,
        lost: None,
    };
    let inside = Arc::new(tokio::sync::Mutex::new(inside));
    let mut tx = DynTx::new(Box::new(PgTx(inside.clone())));
    let limit = shared.limits.unit_time;
    let began = shared.env.mono();
    let ran = shared.env.timeout(limit, AssertUnwindSafe(unit.run(&mut tx)).catch_unwind()).await;
    drop(tx);
    let Ok(inside) = Arc::try_unwrap(inside).map(tokio::sync::Mutex::into_inner) else {
        unreachable!("the closure has ended, and its operations with it")
    };
    let late = ran.is_none() || shared.env.mono() > began + limit || inside.lost.as_ref().is_some_and(Fault::is_late);
    let verdict = match ran {
        _ if late => Err(UnitError::TooLong),
        Some(Err(panicked)) => Err(UnitError::Panicked(message(panicked.as_ref()))),
        _ if inside.asked.max(inside.asked_by_rooms) > shared.limits.unit_bytes() => Err(UnitError::TooLarge),
        Some(Ok(_)) if inside.lost.is_some() => Ok(None),
        Some(Ok(Err(Aborted))) => Err(UnitError::Aborted),
        Some(Ok(Ok(()))) => Ok(Some(())),
        None => Err(UnitError::TooLong),
    };
    match verdict {
        Ok(Some(())) => inside.commit().await,
        Ok(None) => match inside.lost {
            Some(fault) if fault.is_conflict() => {
                inside.lease.roll_back().await;
                Ok(Ended::InTheWay(fault))
            }
            Some(fault) => Err(failed(fault)),
            None => unreachable!("it was lost"),
        },
        Err(ended) => {
            if !late {
                inside.lease.roll_back().await;
            }
            Err(ended)
        }
    }
}

impl Inside {
    async fn commit(self) -> Result<Ended, UnitError> {
        const MARK: &str = "SELECT pg_current_xact_id_if_assigned()::text";
        // By its number a transaction can be asked about when the answer to the commit is lost.
        let (mark, committed) =
            futures_util::future::join(self.lease.query_typed_opt(MARK, &[]), self.lease.batch_execute("COMMIT")).await;
        let newest = self.own.ids.last().copied();
        let fault = match committed {
            Ok(()) => {
                self.lease.keep();
                return Ok(Ended::Committed(newest));
            }
            Err(failed) => Fault::from(failed),
        };
        if let Some(what) = fault.constraint() {
            let what = what.to_owned();
            self.lease.keep();
            return Err(UnitError::Constraint(what));
        }
        if fault.is_conflict() {
            self.lease.keep();
            return Ok(Ended::InTheWay(fault));
        }
        if !fault.is_lost() {
            return Err(UnitError::Store(fault.into_store(TRANSACTING)));
        }
        self.shared.env.reached("store: a commit was lost");
        let mark: Option<String> = mark.ok().flatten().and_then(|row| row.try_get(0).ok().flatten());
        let shared = self.shared.clone();
        drop(self);
        match mark {
            Some(mark) => resolve(&shared, &mark, newest).await,
            None => Err(StoreError::OutcomeUnknown.into()),
        }
    }
}

/// Asks what became of a transaction, by its number, until it has ended or patience has.
async fn resolve(shared: &Arc<Shared>, mark: &str, newest: Option<i64>) -> Result<Ended, UnitError> {
    let until = shared.env.mono() + shared.patience;
    while shared.env.mono() < until {
        if let Ok(lease) = shared.pool.lease().await {
            let status = lease.query_typed_opt("SELECT pg_xact_status($1::text::xid8)", &[(&mark, Type::TEXT)]).await;
            let status: Option<String> = status.ok().flatten().and_then(|row| row.try_get(0).ok().flatten());
            if status.is_some() {
                lease.keep();
            }
            match status.as_deref() {
                Some("committed") => return Ok(Ended::Committed(newest)),
                Some("aborted") => {
                    return Ok(Ended::InTheWay(Fault::Lost("the connection ended before the commit".to_owned())));
                }
                _ => {}
            }
        }
        shared.env.sleep(shared.pause()).await;
    }
    Err(StoreError::OutcomeUnknown.into())
}

fn message(panicked: &(dyn Any + Send)) -> String {
    let text = panicked.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panicked.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}

struct PgTx(Arc<tokio::sync::Mutex<Inside>>);

const LOST: &str = "an earlier statement ended the transaction";

impl Inside {
    /// Refuses where nothing more can come of the transaction.
    fn check(&self) -> Result<(), StoreError> {
        match &self.lost {
            None => Ok(()),
            Some(_) => Err(StoreError::Engine { doing: "going on", cause: Arc::new(std::io::Error::other(LOST)) }),
        }
    }

    fn lose(&mut self, fault: Fault) -> StoreError {
        let cause = fault.clone().into_store(TRANSACTING);
        self.lost.get_or_insert(fault);
        cause
    }

    async fn append(&mut self, batch: CheckedBatch) -> Result<Appended, AppendError> {
        self.check()?;
        let shared = self.shared.clone();
        let ground = shared.ground();
        let ready = Ready::new(batch.renewed(&shared.schemas), &shared.limits, shared.timeline.store)?;
        self.asked = self.asked.saturating_add(ready.bytes);
        self.within(self.asked)?;
        self.step_back().await?;
        let batches = [Arc::new(ready)];
        let known = self.how.known;
        let mut beside = None;
        if known || !batches[0].conditions.is_empty() {
            beside = Some(self.beside().await?);
        }
        let within = Within::Closure { own: &self.own, beside: beside.as_deref(), known };
        let decided = group::decide(&ground, &self.lease, &batches, within).await;
        let mut decided = decided.map_err(|fault| self.lose(fault))?;
        if decided.refuses() && !known {
            // A repeat is answered as the first time, whatever is in the way of something new.
            let beside = match &beside {
                Some(beside) => beside,
                None => beside.insert(self.beside().await?),
            };
            let within = Within::Closure { own: &self.own, beside: Some(beside), known: true };
            decided = group::decide(&ground, &self.lease, &batches, within).await.map_err(|fault| self.lose(fault))?;
        }
        if let Some(beside) = beside {
            beside.keep();
        }
        let mut ids = Vec::new();
        if !decided.is_empty() {
            let written = decided.write(&shared.sql, &self.lease, None).await.map_err(|fault| self.lose(fault))?;
            self.own.add(&written);
            ids = written.ids;
        }
        let answer = decided.answers.into_iter().next();
        let answer = answer.unwrap_or_else(|| unreachable!("one batch has one answer"));
        lanes::told(&shared, answer, &ids, false).await
    }

    /// Another connection, on which what others did is seen.
    async fn beside(&self) -> Result<Lease, StoreError> {
        self.shared.beside.lease().await.map_err(|fault| fault.into_store(TRANSACTING))
    }

    async fn read_stream(&mut self, read: &ReadStream) -> Result<StreamPage, StoreError> {
        self.check()?;
        self.step_back().await?;
        read::check_limit(&self.shared.limits, read.limit)?;
        let shared = self.shared.clone();
        let beside = self.beside().await?;
        let page = read::own_stream(&shared, &self.lease, &beside, &self.own.ids, read).await;
        let page = page.map_err(|fault| self.lose(fault))?;
        beside.keep();
        Ok(page)
    }

    async fn read_log(&mut self, read: &ReadLog) -> Result<LogPage, StoreError> {
        self.check()?;
        self.step_back().await?;
        read::log(&self.shared, &self.lease, read).await
    }

    async fn set_metadata(
        &mut self,
        stream: &Name,
        expected: ExpectedVersion,
        metadata: &StreamMetadata,
    ) -> Result<Version, MetadataError> {
        self.check()?;
        metadata.check()?;
        if !metadata.rules.is_empty() {
            return Err(StoreError::Unsupported { engine: ENGINE, what: RULES }.into());
        }
        self.asked = self.asked.saturating_add(metadata.bytes() + 160);
        self.within(self.asked)?;
        self.step_back().await?;
        let set = metadata::set(&self.lease, &self.shared.sql, stream, expected, &metadata.values).await;
        set.map_err(|fault| self.lose(fault))?
    }

    async fn metadata(&mut self, stream: &Name) -> Result<SetMetadata, StoreError> {
        self.check()?;
        self.step_back().await?;
        let found = metadata::read(&self.lease, &self.shared.sql, stream).await;
        found.map_err(|fault| self.lose(fault))
    }

    /// Refuses what would be more than one transaction may write.
    fn within(&self, asked: usize) -> Result<(), StoreError> {
        let max = self.shared.limits.unit_bytes();
        if asked <= max { Ok(()) } else { Err(StoreError::TooMuch { what: "a transaction's bytes", max, asked }) }
    }

    /// What follows is quorate's own.
    async fn step_back(&mut self) -> Result<(), StoreError> {
        if std::mem::take(&mut self.as_application)
            && let Err(failed) = self.lease.batch_execute(&self.shared.sql.as_own).await
        {
            return Err(self.lose(failed.into()));
        }
        Ok(())
    }

    /// Keeps everybody from appending, and counts a change of the schemas.
    async fn schemas_change(&mut self) -> Result<(), StoreError> {
        self.check()?;
        if !self.how.alone {
            return Err(self.lose(Fault::NotAlone));
        }
        self.step_back().await?;
        let (word, alone) = (vec![words::schemas(self.shared.timeline.store)], vec![true]);
        let params: [(&(dyn ToSql + Sync), Type); 2] = [(&word, Type::INT8_ARRAY), (&alone, Type::BOOL_ARRAY)];
        let sql = &self.shared.sql;
        let (locked, counted) =
            join(self.lease.query_typed(sql.words, &params), self.lease.batch_execute(&sql.schemas_change)).await;
        locked.map(drop).and(counted).map_err(|failed| self.lose(failed.into()))
    }

    /// Runs one statement of `scope`. One that fails for a reason of its own changed nothing, and the transaction goes on.
    async fn statement(
        &mut self,
        text: &str,
        params: &[Value],
        scope: Scope,
        wants_rows: bool,
    ) -> Result<Ran, SqlError> {
        self.check()?;
        let bytes = params.iter().map(sql::large).sum::<usize>();
        let counted = if scope == Scope::Room { &mut self.asked_by_rooms } else { &mut self.asked };
        *counted = counted.saturating_add(bytes);
        let asked = *counted;
        self.within(asked)?;
        let statement = Statement::new(text, scope)?;
        let begin = self.mark(scope);
        let limits = wants_rows.then_some(&self.shared.limits);
        let running = sql::run(&self.lease, &statement, params, scope, limits);
        let (marked, ran) = join(self.lease.batch_execute(&begin), running).await;
        if let Err(failed) = marked {
            return Err(self.lose(failed.into()).into());
        }
        let refused = match ran {
            Ok(ran) => return Ok(ran),
            Err(Failed::Answer(refused)) => refused,
            Err(Failed::Server(fault)) => match sql::said(fault.clone()) {
                SqlError::Store(_) => return Err(self.lose(fault).into()),
                own => own,
            },
        };
        match self.lease.batch_execute("ROLLBACK TO SAVEPOINT statement").await {
            Ok(()) => Err(refused),
            Err(failed) => Err(self.lose(failed.into()).into()),
        }
    }

    /// What comes before a statement: whose it is, and a mark to go back to. What was locked and written before stands outside
    /// of the new mark, so that going back gives up nothing of it.
    fn mark(&mut self, scope: Scope) -> String {
        let mut begin = String::new();
        if std::mem::replace(&mut self.is_marked, true) {
            begin.push_str("RELEASE SAVEPOINT statement; ");
        }
        let as_application = scope == Scope::Application;
        let was_application = std::mem::replace(&mut self.as_application, as_application);
        let sql = &self.shared.sql;
        // The application's role is set before each of its statements, whatever the one before may have done.
        if as_application {
            begin.push_str(&sql.as_application);
        } else if was_application {
            begin.push_str(&sql.as_own);
        }
        begin.push_str("SAVEPOINT statement");
        begin
    }
}

fn unsupported<T, E: From<StoreError> + Send + 'static>(what: &'static str) -> BoxFuture<'static, Result<T, E>>
where
    T: Send + 'static,
{
    Box::pin(std::future::ready(Err(StoreError::Unsupported { engine: ENGINE, what }.into())))
}

impl TxOps for PgTx {
    fn append(&mut self, batch: CheckedBatch) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(async move { self.0.lock().await.append(batch).await })
    }

    fn read_stream(&mut self, read: ReadStream) -> BoxFuture<'_, Result<StreamPage, StoreError>> {
        Box::pin(async move { self.0.lock().await.read_stream(&read).await })
    }

    fn read_log(&mut self, read: ReadLog) -> BoxFuture<'_, Result<LogPage, StoreError>> {
        Box::pin(async move { self.0.lock().await.read_log(&read).await })
    }

    fn retire(&mut self, _: Name, _: Retire) -> BoxFuture<'_, Result<Retired, AppendError>> {
        unsupported("forget events")
    }

    fn set_metadata(
        &mut self,
        stream: Name,
        expected: ExpectedVersion,
        metadata: StreamMetadata,
    ) -> BoxFuture<'_, Result<Version, MetadataError>> {
        Box::pin(async move { self.0.lock().await.set_metadata(&stream, expected, &metadata).await })
    }

    fn metadata(&mut self, stream: Name) -> BoxFuture<'_, Result<SetMetadata, StoreError>> {
        Box::pin(async move { self.0.lock().await.metadata(&stream).await })
    }

    fn execute<'t>(
        &'t mut self,
        sql: &'t str,
        params: &'t [Value],
        scope: Scope,
    ) -> BoxFuture<'t, Result<u64, SqlError>> {
        Box::pin(async move { Ok(self.0.lock().await.statement(sql, params, scope, false).await?.count) })
    }

    fn query<'t>(
        &'t mut self,
        sql: &'t str,
        params: &'t [Value],
        scope: Scope,
    ) -> BoxFuture<'t, Result<Vec<Row>, SqlError>> {
        Box::pin(async move { Ok(self.0.lock().await.statement(sql, params, scope, true).await?.rows) })
    }

    fn schemas_change(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.0.lock().await.schemas_change().await })
    }
}
