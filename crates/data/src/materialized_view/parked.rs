//! Parked events: looked at, replayed in order, or skipped.

use std::sync::Arc;

use quorate_foundations::time::Wall;

use super::{
    ApplyError, Build, Namespace, ViewError, ViewName, ViewTx, advance::Halt, effects, erasure, registered::Registered,
    rows,
};
use crate::{
    event::{Position, Recorded},
    store::{DynTx, Query, ReadLog, Row, Store, TransactError, Value},
};

/// Events that one transaction replays.
const REPLAY_AT_ONCE: u32 = 50;

/// An event that was put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedEvent {
    /// Where it stands in the log.
    pub position: Position,
    /// What it belongs to.
    pub key: String,
    /// Its type.
    pub kind: String,
    /// Why it is parked.
    pub reason: String,
    /// How often it was tried; 0 where it only waits behind an earlier one of its key.
    pub attempts: u32,
    /// When it was parked.
    pub parked_at: Wall,
}

/// An event that was left out, for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedEvent {
    /// Where it stands in the log.
    pub position: Position,
    /// What it belongs to.
    pub key: String,
    /// Its type.
    pub kind: String,
    /// Why it could not be applied.
    pub reason: String,
    /// Who left it out: `policy`, or whoever said so.
    pub skipped_by: String,
    /// When.
    pub skipped_at: Wall,
}

/// Parked events of a build behind `after`, in order of position.
pub(super) async fn list(
    store: &Store,
    build: Build,
    after: Position,
    limit: u32,
) -> Result<Vec<ParkedEvent>, ViewError> {
    let sql = "SELECT position, order_key, kind, reason, attempts, parked_ns FROM quorate_view_parked
        WHERE build = $1 AND position > $2 ORDER BY position LIMIT $3";
    let rows = store.room_query(sql, vec![rows::of(build), rows::position(after), limit.into()]).await?;
    rows.iter().map(parked).collect()
}

/// Skipped events of a build behind `after`, in order of position.
pub(super) async fn skipped(
    store: &Store,
    build: Build,
    after: Position,
    limit: u32,
) -> Result<Vec<SkippedEvent>, ViewError> {
    let sql = "SELECT position, order_key, kind, reason, skipped_by, skipped_ns FROM quorate_view_skipped
        WHERE build = $1 AND position > $2 ORDER BY position LIMIT $3";
    let rows = store.room_query(sql, vec![rows::of(build), rows::position(after), limit.into()]).await?;
    let one = |row: &Row| {
        Ok(SkippedEvent {
            position: Position::new(rows::unsigned(row.at(0), "position")?),
            key: rows::string(row.at(1), "order_key")?.to_owned(),
            kind: rows::string(row.at(2), "kind")?.to_owned(),
            reason: rows::string(row.at(3), "reason")?.to_owned(),
            skipped_by: rows::string(row.at(4), "skipped_by")?.to_owned(),
            skipped_at: Wall::from_unix_nanos(row.at(5).as_i64().unwrap_or_default()),
        })
    };
    rows.iter().map(one).collect()
}

fn parked(row: &Row) -> Result<ParkedEvent, ViewError> {
    Ok(ParkedEvent {
        position: Position::new(rows::unsigned(row.at(0), "position")?),
        key: rows::string(row.at(1), "order_key")?.to_owned(),
        kind: rows::string(row.at(2), "kind")?.to_owned(),
        reason: rows::string(row.at(3), "reason")?.to_owned(),
        attempts: u32::try_from(rows::unsigned(row.at(4), "attempts")?).unwrap_or(u32::MAX),
        parked_at: Wall::from_unix_nanos(row.at(5).as_i64().unwrap_or_default()),
    })
}

/// What a part of a replay came to.
enum Part {
    /// So many were applied, and there may be more.
    Applied(u64),
    /// None is left.
    Done,
}

/// Applies the parked events of a key, in order, until none is left or one fails again. Returns how many were applied.
///
/// # Errors
/// [`ViewError::StillPoison`]; what was applied before it stays applied.
pub(super) async fn replay(
    store: &Store,
    code: &Arc<Registered>,
    namespace: &Namespace,
    key: &str,
) -> Result<u64, ViewError> {
    let (mut applied, mut at_once) = (0, REPLAY_AT_ONCE);
    loop {
        let (code, namespace, key): (_, _, Arc<str>) = (code.clone(), namespace.clone(), key.into());
        let (tried, limit) = (namespace.clone(), at_once);
        let in_tx = key.clone();
        let part = store.transact(move |tx| {
            let (code, namespace, key) = (code.clone(), namespace.clone(), in_tx.clone());
            Box::pin(async move { replay_part(tx, &code, &namespace, &key, limit).await })
        });
        match part.await.map_err(|failed| (matches!(failed, TransactError::Aborted(Halt::Apply(_))), failed)) {
            Ok(Part::Done) => return Ok(applied),
            Ok(Part::Applied(count)) => applied += count,
            // Which of them it was, one alone will tell.
            Err((_, TransactError::Aborted(Halt::Apply(_)) | TransactError::TooLong { .. })) if at_once > 1 => {
                at_once = 1
            }
            Err((true, TransactError::Aborted(Halt::Apply(failed)))) => {
                return Err(note_failure(store, &tried, &key, failed).await);
            }
            Err((_, failed)) => return Err(of_halt(failed)),
        }
    }
}

fn of_halt(failed: TransactError<Halt>) -> ViewError {
    match Halt::of(failed) {
        Some(Halt::View(failed)) => failed,
        Some(Halt::Apply(ApplyError::Sql(cause))) => cause.into(),
        Some(other) => ViewError::invalid(format!("the events could not be replayed: {other:?}")),
        None => ViewError::invalid("applying one event takes longer, or writes more, than a transaction may"),
    }
}

async fn replay_part(
    tx: &mut DynTx,
    code: &Registered,
    namespace: &Namespace,
    key: &str,
    limit: u32,
) -> Result<Part, Halt> {
    let build = rows::build(tx, namespace.build()).await?.ok_or(Halt::Gone)?;
    let sql = "SELECT position, shard FROM quorate_view_parked WHERE build = $1 AND order_key = $2
        ORDER BY position LIMIT $3";
    let found = tx.room_query(sql, &[rows::of(namespace.build()), key.into(), limit.into()]).await?;
    let Some(first) = found.first() else { return Ok(Part::Done) };
    let shard = u32::try_from(rows::unsigned(first.at(1), "shard")?).unwrap_or(u32::MAX);
    let mut events = Vec::with_capacity(found.len());
    for row in &found {
        events.push(event_at(tx, Position::new(rows::unsigned(row.at(0), "position")?)).await?);
    }
    let mut view = ViewTx::new(tx, namespace);
    code.apply(&mut view, &events).await.map_err(Halt::Apply)?;
    let requested = view.into_effects();
    if !requested.is_empty() {
        let threshold = effects::Threshold::of(tx, &build).await?;
        effects::keep(tx, code, &build, &threshold, &events, requested).await?;
    }
    erasure::note(tx, code, namespace.build(), &events).await?;
    for event in &events {
        remove(tx, namespace.build(), event.position()).await?;
    }
    let count = events.len() as u64;
    let sql = "UPDATE quorate_view_shard SET parked = parked - $1, applied = applied + $1, revision = revision + 1
        WHERE build = $2 AND shard = $3";
    tx.room_execute(sql, &[rows::number(count), rows::of(namespace.build()), shard.into()]).await?;
    Ok(Part::Applied(count))
}

pub(super) async fn event_at(tx: &mut DynTx, position: Position) -> Result<Recorded, ViewError> {
    let after = Position::new(position.get().saturating_sub(1));
    let page = tx.read_log(ReadLog { query: Query::EVERYTHING, after, limit: 1 }).await?;
    let found = page.events.into_iter().find(|event| event.position() == position);
    found.ok_or_else(|| ViewError::corrupt("the log", format!("no event at position {position}")))
}

async fn remove(tx: &mut DynTx, build: Build, position: Position) -> Result<(), ViewError> {
    let sql = "DELETE FROM quorate_view_parked WHERE build = $1 AND position = $2";
    tx.room_execute(sql, &[rows::of(build), rows::position(position)]).await?;
    Ok(())
}

/// Writes down that the first parked event of a key failed once more.
async fn note_failure(store: &Store, namespace: &Namespace, key: &Arc<str>, failed: ApplyError) -> ViewError {
    if let Some(cause) = failed.store() {
        return cause.clone().into();
    }
    let reason = match &failed {
        ApplyError::Event { reason, .. } => reason.clone(),
        other @ ApplyError::Sql(_) => other.to_string(),
    };
    let (build, key, said) = (namespace.build(), key.clone(), reason.clone());
    let noted = store.transact(move |tx| {
        let (key, said) = (key.clone(), said.clone());
        Box::pin(async move {
            let sql = "SELECT min(position) FROM quorate_view_parked WHERE build = $1 AND order_key = $2";
            let first = tx.room_query(sql, &[rows::of(build), key.into()]).await?;
            let first: Value = first.first().map_or(Value::Null, |row| row.at(0).clone());
            // It may have been erased since it was tried.
            let sql = "UPDATE quorate_view_parked SET attempts = attempts + 1,
                reason = CASE WHEN reason = 'erased' THEN reason ELSE $1 END WHERE build = $2 AND position = $3";
            tx.room_execute(sql, &[said.into(), rows::of(build), first.clone()]).await?;
            Ok::<_, ViewError>(first)
        })
    });
    match noted.await {
        Ok(first) => ViewError::StillPoison {
            position: Position::new(first.as_i64().map(i64::cast_unsigned).unwrap_or_default()),
            reason,
        },
        Err(failed) => ViewError::of_transaction(failed),
    }
}

/// Leaves out an event that is parked, or that stops a shard, and keeps a record of who said so.
///
/// # Errors
/// [`ViewError::Invalid`] where the event is neither.
pub(super) async fn skip(
    tx: &mut DynTx,
    view: &ViewName,
    build: Build,
    position: Position,
    by: &str,
    now: Wall,
) -> Result<(), ViewError> {
    let sql =
        "SELECT shard, order_key, kind, reason, subject FROM quorate_view_parked WHERE build = $1 AND position = $2";
    let at = [rows::of(build), rows::position(position)];
    let found = tx.room_query(sql, &at).await?;
    let Some(row) = found.first() else { return order_skip(tx, view, build, position, by).await };
    remove(tx, build, position).await?;
    let sql =
        "INSERT INTO quorate_view_skipped (build, position, order_key, kind, reason, subject, skipped_by, skipped_ns)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    let what = [1, 2, 3, 4].map(|n| row.at(n).clone());
    let params: Vec<Value> = at.into_iter().chain(what).chain([by.into(), now.unix_nanos().into()]).collect();
    tx.room_execute(sql, &params).await?;
    let sql = "UPDATE quorate_view_shard SET parked = parked - 1, skipped = skipped + 1, revision = revision + 1
        WHERE build = $1 AND shard = $2";
    tx.room_execute(sql, &[rows::of(build), row.at(0).clone()]).await?;
    Ok(())
}

/// Has the owner of the shard that stopped before this event leave it out.
async fn order_skip(
    tx: &mut DynTx,
    view: &ViewName,
    build: Build,
    position: Position,
    by: &str,
) -> Result<(), ViewError> {
    let sql = "UPDATE quorate_view_shard SET ordered = 'skip', ordered_by = $3, revision = revision + 1
        WHERE build = $1 AND trouble = $2 AND checkpoint < $2";
    if tx.room_execute(sql, &[rows::of(build), rows::position(position), by.into()]).await? == 0 {
        let what = format!("position {position} is neither parked nor what stops build {build} of view `{view}`");
        return Err(ViewError::invalid(what));
    }
    Ok(())
}
