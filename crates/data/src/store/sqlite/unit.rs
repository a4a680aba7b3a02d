//! A transaction's operations on the embedded store. They are done at once: a unit that awaits only them never waits.

use std::{
    future::ready,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use quorate_runtime::BoxFuture;

use super::{
    batch::Ready,
    connection::explained,
    core::Core,
    expiry, metadata,
    read::{self, Glance, Scan, Sight},
    retire, sql,
};
use crate::{
    event::Version,
    store::{
        AfterCommit, AppendError, Appended, CheckedBatch, ExpectedVersion, LogPage, MetadataError, ReadLog, ReadStream,
        Retire, Retired, Row, Scope, SetMetadata, SqlError, Step, StoreError, StreamMetadata, StreamPage, TxOps,
        UnitError, Value,
    },
};
use quorate_foundations::name::Name;

/// The operations of one unit.
pub(super) struct UnitTx {
    core: Arc<Mutex<Core>>,
}

impl UnitTx {
    pub(super) fn new(core: Arc<Mutex<Core>>) -> Self {
        Self { core }
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TxOps for UnitTx {
    fn append(&mut self, batch: CheckedBatch) -> BoxFuture<'_, Result<Appended, AppendError>> {
        let appended = within(&mut self.core(), |core| {
            let batch = batch.renewed(&core.shared.schemas);
            let batch = Ready::new(batch, &core.shared.limits, &core.shared.keys)?;
            core.charge(batch.bytes)?;
            core.append(&batch)
        });
        Box::pin(ready(appended))
    }

    fn read_stream(&mut self, read: ReadStream) -> BoxFuture<'_, Result<StreamPage, StoreError>> {
        Box::pin(ready(within(&mut self.core(), |core| read_stream(core, &read))))
    }

    fn read_log(&mut self, read: ReadLog) -> BoxFuture<'_, Result<LogPage, StoreError>> {
        Box::pin(ready(within(&mut self.core(), |core| read_log(core, read))))
    }

    fn retire(&mut self, stream: Name, what: Retire) -> BoxFuture<'_, Result<Retired, AppendError>> {
        Box::pin(ready(within(&mut self.core(), |core| retire::run(core, &stream, what))))
    }

    fn set_metadata(
        &mut self,
        stream: Name,
        expected: ExpectedVersion,
        metadata: StreamMetadata,
    ) -> BoxFuture<'_, Result<Version, MetadataError>> {
        let set = within(&mut self.core(), |core| metadata::set(core, &stream, expected, &metadata));
        Box::pin(ready(set.map(|head| head.metadata)))
    }

    fn metadata(&mut self, stream: Name) -> BoxFuture<'_, Result<SetMetadata, StoreError>> {
        Box::pin(ready(within(&mut self.core(), |core| metadata::read(&core.connection, &stream))))
    }

    fn execute<'t>(
        &'t mut self,
        sql: &'t str,
        params: &'t [Value],
        scope: Scope,
    ) -> BoxFuture<'t, Result<u64, SqlError>> {
        let (mut core, bytes) = (self.core(), params.iter().map(sql::large).sum());
        Box::pin(ready(statement(&mut core, bytes, scope, |core| {
            sql::execute(&core.connection, &core.guard, sql, params, scope)
        })))
    }

    fn query<'t>(
        &'t mut self,
        sql: &'t str,
        params: &'t [Value],
        scope: Scope,
    ) -> BoxFuture<'t, Result<Vec<Row>, SqlError>> {
        let (mut core, bytes) = (self.core(), params.iter().map(sql::large).sum());
        Box::pin(ready(statement(&mut core, bytes, scope, |core| {
            sql::query(&core.connection, &core.guard, sql, params, scope, &core.shared.limits)
        })))
    }

    fn execute_all<'t>(
        &'t mut self,
        steps: &'t [Step<'t>],
        scope: Scope,
    ) -> BoxFuture<'t, Result<(), (usize, SqlError)>> {
        let (mut core, mut at) = (self.core(), 0);
        let bytes = steps.iter().flat_map(|step| step.params).map(sql::large).sum();
        let done = statement(&mut core, bytes, scope, |core| {
            sql::execute_all(&core.connection, &core.guard, steps, scope, &mut at)
        });
        Box::pin(ready(done.map_err(|failed| (at, failed))))
    }

    fn query_all<'t>(
        &'t mut self,
        sql: &'t str,
        params: &'t [Vec<Value>],
        scope: Scope,
    ) -> BoxFuture<'t, Result<Vec<Vec<Row>>, SqlError>> {
        let (mut core, bytes) = (self.core(), params.iter().flatten().map(sql::large).sum());
        Box::pin(ready(statement(&mut core, bytes, scope, |core| {
            sql::query_all(&core.connection, &core.guard, (sql, params), scope, &core.shared.limits)
        })))
    }

    fn after_commit(&mut self, hook: AfterCommit) -> Result<(), StoreError> {
        self.core().hooks.push(hook);
        Ok(())
    }
}

/// Does something unless the transaction is lost: what followed would be written outside any.
///
/// SQLite ends the whole transaction by itself when the disk is full, when a write is interrupted, when reading fails, and
/// when a conflict clause of a statement says ROLLBACK.
fn within<T, E>(core: &mut Core, work: impl FnOnce(&mut Core) -> Result<T, E>) -> Result<T, E>
where
    E: From<StoreError> + Lost,
{
    if core.lost.is_some() {
        return Err(E::lost());
    }
    let outcome = work(core);
    if core.connection.is_autocommit() {
        core.lost = Some(outcome.as_ref().err().and_then(Lost::store).map_or_else(
            || UnitError::Constraint("a statement ended the transaction".to_owned()),
            |cause| UnitError::Store(cause.clone()),
        ));
    }
    outcome
}

/// An error that can say that an earlier operation ended the transaction.
trait Lost: std::fmt::Display {
    fn lost() -> Self;
    /// The store's own error, where it is one.
    fn store(&self) -> Option<&StoreError>;
}

const LOST: &str = "an earlier statement ended the transaction";

impl Lost for SqlError {
    fn lost() -> Self {
        Self::Failed { what: LOST.to_owned() }
    }

    fn store(&self) -> Option<&StoreError> {
        if let Self::Store(cause) = self { Some(cause) } else { None }
    }
}

impl Lost for AppendError {
    fn lost() -> Self {
        Self::Malformed { what: LOST.to_owned() }
    }

    fn store(&self) -> Option<&StoreError> {
        if let Self::Store(cause) = self { Some(cause) } else { None }
    }
}

impl Lost for MetadataError {
    fn lost() -> Self {
        Self::Store(StoreError::lost())
    }

    fn store(&self) -> Option<&StoreError> {
        if let Self::Store(cause) = self { Some(cause) } else { None }
    }
}

impl Lost for StoreError {
    fn lost() -> Self {
        Self::Engine { doing: "going on", cause: Arc::new(std::io::Error::other(LOST)) }
    }

    fn store(&self) -> Option<&StoreError> {
        Some(self)
    }
}

/// Runs a statement, or several, with so many bytes of parameters.
fn statement<T>(
    core: &mut Core,
    bytes: usize,
    scope: Scope,
    run: impl FnOnce(&Core) -> Result<T, SqlError>,
) -> Result<T, SqlError> {
    let mut failed = None;
    let outcome = within(core, |core| {
        if scope == Scope::Room {
            core.charge_room(bytes)?
        } else {
            core.charge(bytes)?
        }
        run(core).map_err(|cause| match cause {
            SqlError::Store(cause) => SqlError::Store(explained(&core.connection, cause)),
            other => {
                failed = Some(other.to_string());
                other
            }
        })
    });
    if let (Some(UnitError::Constraint(what)), Some(failed)) = (&mut core.lost, failed) {
        *what = failed;
    }
    outcome
}

fn read_stream(core: &Core, read: &ReadStream) -> Result<StreamPage, StoreError> {
    let shared = &core.shared;
    read::check_limit(&shared.limits, read.limit)?;
    // Nobody truncates while the writer is here; but events age.
    for _ in 0..read::LOOKS {
        let glance = read::glance(&shared.tail(), read, &shared.limits, &shared.expiry, Sight::Everything);
        let view = shared.view(&core.connection);
        let page = match glance {
            Glance::Page(page) => Some(page),
            Glance::Part(newer) => read::stream(shared, view, read, newer)?,
            Glance::Aging(head) => {
                expiry::judge(shared, view, &read.stream, head)?;
                None
            }
        };
        if let Some(page) = page {
            return Ok(StreamPage { events: shared.keys.open_all(page.events)?, ..page });
        }
    }
    Err(read::misplaced_stub(read))
}

fn read_log(core: &Core, read: ReadLog) -> Result<LogPage, StoreError> {
    let shared = &core.shared;
    read::check_limit(&shared.limits, read.limit)?;
    let mut scan = Scan::new(read, &shared.limits);
    loop {
        let glance = scan.tail(&shared.tail(), Sight::Everything);
        match glance {
            Ok(page) => return Ok(LogPage { events: shared.keys.open_all(page.events)?, ..page }),
            Err(until) => scan.indexed(shared, shared.view(&core.connection), until)?,
        }
    }
}
