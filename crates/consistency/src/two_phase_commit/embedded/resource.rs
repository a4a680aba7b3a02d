//! What an application's reservations are, and those of SQL.

use std::sync::Arc;

use quorate_data::store::{DynTx, Value};
use quorate_runtime::BoxFuture;

use crate::two_phase_commit::{
    Gid, Work,
    sql::{Param, SqlWork, Statement},
};

/// What a reservation is, in one application's own tables: each of these runs inside the transaction that records it.
///
/// Each may be run again, and awaits nothing but `tx`.
pub trait Resource: Send + Sync + 'static {
    /// What the work names, so that nobody else prepares anything that names the same until it has ended.
    ///
    /// # Errors
    /// [`Unprepared::No`] for work that makes no sense.
    fn claims(&self, work: &Work) -> Result<Vec<Arc<str>>, Unprepared>;

    /// What kinds of things the work would do at its end. Kinds that were not seen before are tried when they are first asked for, both
    /// the commit and the abort, and taken back: what cannot be done is a *no*, and not a promise that nobody can keep. None: nothing is
    /// tried. A kind of more than 4 KiB is not remembered, but tried each time; so are those that 1,024 others have come after.
    fn kinds(&self, work: &Work) -> Vec<Arc<str>> {
        let _ = work;
        Vec::new()
    }

    /// Sets aside what the work asks for, so that neither [`commit`](Self::commit) nor [`abort`](Self::abort) can fail.
    ///
    /// # Errors
    /// [`Unprepared`]: everything it did is rolled back.
    fn prepare<'t>(
        &'t self,
        tx: &'t mut DynTx,
        gid: &'t Gid,
        work: &'t Work,
    ) -> BoxFuture<'t, Result<Reserved, Unprepared>>;

    /// Makes good what was set aside. An error is rolled back and tried again: the transaction stays in doubt here.
    fn commit<'t>(&'t self, tx: &'t mut DynTx, gid: &'t Gid, work: &'t Work) -> BoxFuture<'t, Result<(), Unprepared>>;

    /// Gives back what was set aside. An error is rolled back and tried again: the transaction stays in doubt here.
    fn abort<'t>(&'t self, tx: &'t mut DynTx, gid: &'t Gid, work: &'t Work) -> BoxFuture<'t, Result<(), Unprepared>>;
}

/// Whether something was set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// Something was.
    Something,
    /// Nothing had to be: what was changed, if anything, is rolled back.
    Nothing,
}

/// Why a resource did not do it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unprepared {
    /// A rule of the application forbids it.
    #[error("{why}")]
    No {
        /// Which one, for a person.
        why: String,
    },
    /// A statement failed.
    #[error("a statement failed: {what}")]
    Failed {
        /// What the store said of it.
        what: String,
    },
}

impl Unprepared {
    /// What the store said of a statement, or of an append.
    pub fn failed(cause: impl std::fmt::Display) -> Self {
        Self::Failed { what: cause.to_string() }
    }
}

/// The resource whose work is [`SqlWork`].
#[derive(Clone, Copy, Debug, Default)]
pub struct SqlResource;

impl Resource for SqlResource {
    fn claims(&self, work: &Work) -> Result<Vec<Arc<str>>, Unprepared> {
        Ok(sql(work)?.claims)
    }

    fn kinds(&self, work: &Work) -> Vec<Arc<str>> {
        let Ok(work) = sql(work) else { return Vec::new() };
        work.commit.into_iter().chain(work.abort).map(|statement| statement.sql).collect()
    }

    fn prepare<'t>(
        &'t self,
        tx: &'t mut DynTx,
        _: &'t Gid,
        work: &'t Work,
    ) -> BoxFuture<'t, Result<Reserved, Unprepared>> {
        Box::pin(async move {
            let work = sql(work)?;
            run(tx, &work.prepare).await?;
            let is_nothing = work.commit.is_empty() && work.abort.is_empty() && work.claims.is_empty();
            Ok(if is_nothing && work.prepare.is_empty() { Reserved::Nothing } else { Reserved::Something })
        })
    }

    fn commit<'t>(&'t self, tx: &'t mut DynTx, _: &'t Gid, work: &'t Work) -> BoxFuture<'t, Result<(), Unprepared>> {
        Box::pin(async move { run(tx, &sql(work)?.commit).await })
    }

    fn abort<'t>(&'t self, tx: &'t mut DynTx, _: &'t Gid, work: &'t Work) -> BoxFuture<'t, Result<(), Unprepared>> {
        Box::pin(async move { run(tx, &sql(work)?.abort).await })
    }
}

fn sql(work: &Work) -> Result<SqlWork, Unprepared> {
    SqlWork::read(work).map_err(|cause| Unprepared::No { why: cause.to_string() })
}

async fn run(tx: &mut DynTx, statements: &[Statement]) -> Result<(), Unprepared> {
    for statement in statements {
        let params: Vec<Value> = statement.params.iter().map(value).collect();
        let changed = tx.execute(&statement.sql, &params).await.map_err(Unprepared::failed)?;
        if let Some(why) = statement.objection(changed) {
            return Err(Unprepared::No { why });
        }
    }
    Ok(())
}

fn value(param: &Param) -> Value {
    match param {
        Param::Null => Value::Null,
        Param::Boolean(b) => (*b).into(),
        Param::Integer(n) => (*n).into(),
        Param::Real(x) => (*x).into(),
        Param::Text(text) => text.clone().into(),
    }
}
