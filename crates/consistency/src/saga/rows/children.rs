//! What the rows say of sagas that steps of others started.
//!
//! A child's row names the step, and says with `unheard` that whoever is above waits for its end. So what wakes the saga above is written in the
//! transaction in which the child ends, and taken away in the one in which the step does.

use std::sync::Arc;

use quorate_data::{
    event::{NewEvent, Recorded, Version},
    store::{AppendError, DynTx, ReadStream, Row, SqlError, Store, StoreError},
};
use quorate_foundations::{name::Name, time::Wall};

use super::{Owner, SagaKey, Status, Unwritten, text};
use crate::saga::SagaError;

/// The step that started a saga.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Above {
    /// The definition of the saga whose step it is.
    pub name: Name,
    /// That saga's id.
    pub id: Arc<str>,
    /// The step.
    pub step: Arc<str>,
}

/// The step that a row names from column `n` on.
pub(super) fn above(row: &Row, n: usize) -> Result<Option<Above>, SagaError> {
    let Some(name) = row.at(n).as_str() else { return Ok(None) };
    let corrupt =
        |_| StoreError::Corrupt { place: "quorate_saga".to_owned(), what: "a parent's name is none".to_owned() };
    let name = Name::new(name).map_err(corrupt)?;
    Ok(Some(Above { name, id: text(row, n + 1)?, step: text(row, n + 2)? }))
}

/// The step has taken in what became of a child.
pub(in crate::saga) async fn heard(tx: &mut DynTx, child: &SagaKey) -> Result<(), SqlError> {
    let sql = "UPDATE quorate_saga SET unheard = 0 WHERE name = $1 AND id = $2 AND unheard = 1";
    tx.room_execute(sql, &[(&child.name).into(), child.id.clone().into()]).await.map(drop)
}

/// The saga was ended as it is: nobody above hears of its open children any more.
pub(in crate::saga) async fn left_alone(tx: &mut DynTx, saga: &SagaKey) -> Result<(), SqlError> {
    let sql = "UPDATE quorate_saga SET unheard = 0 WHERE parent_name = $1 AND parent_id = $2 AND unheard = 1";
    tx.room_execute(sql, &[(&saga.name).into(), saga.id.clone().into()]).await.map(drop)
}

/// How many sagas there are of the family of `saga`, up to `most`: of the one that no step started, and all below it, ended ones as well.
pub(in crate::saga) async fn family(tx: &mut DynTx, saga: &SagaKey, most: usize) -> Result<usize, SqlError> {
    let sql = "WITH RECURSIVE
        above (name, id, parent_name, parent_id) AS (
            SELECT name, id, parent_name, parent_id FROM quorate_saga WHERE name = $1 AND id = $2
            UNION ALL
            SELECT s.name, s.id, s.parent_name, s.parent_id FROM quorate_saga s
                JOIN above a ON s.name = a.parent_name AND s.id = a.parent_id
        ),
        family (name, id) AS (
            SELECT name, id FROM above WHERE parent_name IS NULL
            UNION ALL
            SELECT c.name, c.id FROM quorate_saga c JOIN family f ON c.parent_name = f.name AND c.parent_id = f.id
        )
        SELECT count(*) FROM (SELECT name FROM family LIMIT $3) AS counted";
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let rows = tx.room_query(sql, &[(&saga.name).into(), saga.id.clone().into(), most.into()]).await?;
    let count = rows.first().and_then(|row| row.at(0).as_i64()).unwrap_or_default();
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// Has a child that completed turn back, `event` saying so. `Err` in it: why that cannot be.
///
/// Nobody runs what has ended, so nobody is disturbed; of two who want it one is first.
pub(in crate::saga) async fn reopen(
    tx: &mut DynTx,
    child: &SagaKey,
    event: NewEvent,
    owner: Owner,
    now: Wall,
) -> Result<Result<(), &'static str>, Unwritten> {
    let sql = "SELECT status, undoable FROM quorate_saga WHERE name = $1 AND id = $2";
    let rows = tx.room_query(sql, &[(&child.name).into(), child.id.clone().into()]).await?;
    let Some(row) = rows.first() else { return Ok(Err("is gone")) };
    match row.at(0).as_i64().and_then(Status::of_code) {
        Some(Status::Completed) if row.at(1).as_i64() == Some(1) => {}
        Some(Status::Completed) if row.at(1).as_i64().is_none() => {
            return Ok(Err(
                "completed at a node that did not say whether it is past its pivot: nobody but a person knows",
            ));
        }
        Some(Status::Completed) => return Ok(Err("is past its pivot: it cannot be undone")),
        Some(Status::Forced) => return Ok(Err("was ended as it was: nobody but a person knows what to undo")),
        _ => return Ok(Err("has not completed")),
    }
    const FORGOTTEN: &str = "cannot be undone: its events were forgotten";
    let stream = child.stream()?;
    let first = tx.read_stream(ReadStream::forward(stream.clone(), 1).from(Version::new(1))).await?;
    if first.events.first().map(Recorded::version) != Some(Version::new(1)) {
        return Ok(Err(FORGOTTEN));
    }
    let appended = match tx.room_append(&stream, Default::default(), vec![event]).await {
        Err(AppendError::Tombstoned { .. }) => return Ok(Err(FORGOTTEN)),
        appended => appended?,
    };
    let sql = "UPDATE quorate_saga SET status = $3, owner = $4, at = $5, updated_at = $6, unheard = 1, undoable = NULL
        WHERE name = $1 AND id = $2 AND status = $7";
    let row = [
        (&child.name).into(),
        child.id.clone().into(),
        Status::Compensating.code().into(),
        owner.0.into(),
        appended.version().get().cast_signed().into(),
        now.unix_nanos().into(),
        Status::Completed.code().into(),
    ];
    if tx.room_execute(sql, &row).await? == 0 {
        return Err(Unwritten::Overtaken);
    }
    Ok(Ok(()))
}

/// How a saga stands, and whose step it is; `None` if there is none.
pub(in crate::saga) async fn standing(
    store: &Store,
    saga: &SagaKey,
) -> Result<Option<(Status, Option<SagaKey>)>, SagaError> {
    let sql = "SELECT status, parent_name, parent_id, parent_step FROM quorate_saga WHERE name = $1 AND id = $2";
    let rows = store.room_query(sql, vec![(&saga.name).into(), saga.id.clone().into()]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let Some(status) = row.at(0).as_i64().and_then(Status::of_code) else { return Ok(None) };
    let above = above(row, 1)?.map(|above| SagaKey { name: above.name, id: above.id });
    Ok(Some((status, above)))
}

/// Open sagas of `owner` with children whose end they have not taken in, behind `after`, in order.
pub(in crate::saga) async fn to_be_told(
    store: &Store,
    owner: Owner,
    after: (Arc<str>, Arc<str>),
    limit: i64,
) -> Result<Vec<(Arc<str>, Arc<str>)>, SagaError> {
    let sql = "SELECT DISTINCT c.parent_name, c.parent_id FROM quorate_saga c
        JOIN quorate_saga p ON p.name = c.parent_name AND p.id = c.parent_id
        WHERE c.unheard = 1 AND c.status >= 10 AND p.owner = $1 AND p.status < 10
            AND (c.parent_name > $2 OR (c.parent_name = $2 AND c.parent_id > $3))
        ORDER BY c.parent_name, c.parent_id LIMIT $4";
    let rows = store.room_query(sql, vec![owner.0.into(), after.0.into(), after.1.into(), limit.into()]).await?;
    rows.iter().map(|row| Ok((text(row, 0)?, text(row, 1)?))).collect()
}

/// Open sagas of steps that are `owner`'s, with their versions, behind `after`, in order.
pub(in crate::saga) async fn own(
    store: &Store,
    owner: Owner,
    after: (Arc<str>, Arc<str>),
    limit: i64,
) -> Result<Vec<(Arc<str>, Arc<str>, Option<u32>)>, SagaError> {
    let sql = "SELECT name, id, version FROM quorate_saga
        WHERE status < 10 AND parent_name IS NOT NULL AND owner = $1 AND (name > $2 OR (name = $2 AND id > $3))
        ORDER BY name, id LIMIT $4";
    let rows = store.room_query(sql, vec![owner.0.into(), after.0.into(), after.1.into(), limit.into()]).await?;
    rows.iter()
        .map(|row| {
            let version = row.at(2).as_i64().and_then(|version| u32::try_from(version).ok());
            Ok((text(row, 0)?, text(row, 1)?, version))
        })
        .collect()
}
