//! The subscription's tables, and their rows in and out.
//!
//! `revision` is the compare-and-set: whoever changes a subscription writes `revision + 1` if the row still says
//! `revision`. Rows of events are guarded once more by their own `changed` and `phase`, because a settling transaction
//! ([`settle`]) changes the one row of its event and nothing else, so that consumers do not queue for the subscription.

use std::{sync::Arc, time::Duration};

use quorate_foundations::name::Name;

use super::{
    Claim, Config, SubscriptionError,
    forget::without_reasons,
    machine::{Changes, Failure, Phase, Saved, Stored},
};
use crate::{
    event::Position,
    store::{DynTx, RoomTables, Row, SqlError, Store, StoreError, Value},
};

/// The tables, by version.
pub(crate) const TABLES: RoomTables = RoomTables {
    room: "subscription",
    versions: &[
        "
        CREATE TABLE quorate_subscription (
            id BIGINT PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            config TEXT NOT NULL,
            revision BIGINT NOT NULL,
            checkpoint BIGINT NOT NULL,
            fence BIGINT NOT NULL);
        CREATE TABLE quorate_subscription_event (
            subscription BIGINT NOT NULL,
            position BIGINT NOT NULL,
            order_key TEXT NOT NULL,
            phase BIGINT NOT NULL,
            attempts BIGINT NOT NULL,
            forgiven BIGINT NOT NULL,
            fence BIGINT NOT NULL,
            owner TEXT NOT NULL,
            span_ms BIGINT NOT NULL,
            failures TEXT NOT NULL,
            changed BIGINT NOT NULL,
            PRIMARY KEY (subscription, position))
    ",
        "ALTER TABLE quorate_subscription ADD COLUMN passed_over BIGINT NOT NULL DEFAULT 0",
    ],
};

const EVENT_COLUMNS: &str = "position, order_key, phase, attempts, forgiven, fence, owner, span_ms, failures, changed";
const PAGE_ROWS: usize = 2_000;

/// A subscription's row.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) id: u64,
    pub(super) name: Name,
    pub(super) config: Config,
    pub(super) revision: u64,
    pub(super) checkpoint: Position,
    pub(super) fence: u64,
    pub(super) passed_over: u64,
}

/// Inserts a subscription unless there is one of that name; whether it did.
pub(super) async fn insert(tx: &mut DynTx, head: &Head) -> Result<bool, SqlError> {
    let sql = "INSERT INTO quorate_subscription (id, name, config, revision, checkpoint, fence)
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (name) DO NOTHING";
    let params = [
        number(head.id),
        Value::from(&head.name),
        head.config.to_json().into(),
        number(head.revision),
        number(head.checkpoint.get()),
        number(head.fence),
    ];
    tx.room_execute(sql, &params).await.map(|rows| rows > 0)
}

/// Deletes a subscription and everything known of its events; whether there was one.
pub(super) async fn delete(tx: &mut DynTx, name: &Name) -> Result<bool, SqlError> {
    let found = tx.room_query("SELECT id FROM quorate_subscription WHERE name = $1", &[name.into()]).await?;
    let Some(id) = found.first().map(|row| row.at(0).clone()) else { return Ok(false) };
    tx.room_execute("DELETE FROM quorate_subscription_event WHERE subscription = $1", std::slice::from_ref(&id))
        .await?;
    tx.room_execute("DELETE FROM quorate_subscription WHERE id = $1", &[id]).await.map(|rows| rows > 0)
}

/// How many subscriptions there are.
pub(super) async fn count(tx: &mut DynTx) -> Result<usize, SqlError> {
    let rows = tx.room_query("SELECT count(*) FROM quorate_subscription", &[]).await?;
    Ok(rows.first().and_then(|row| row.at(0).as_i64()).and_then(|n| usize::try_from(n).ok()).unwrap_or(0))
}

/// The subscription of that name, inside a transaction.
pub(super) async fn find_in(tx: &mut DynTx, name: &Name) -> Result<Option<Head>, SubscriptionError> {
    let sql =
        "SELECT id, name, config, revision, checkpoint, fence, passed_over FROM quorate_subscription WHERE name = $1";
    tx.room_query(sql, &[name.into()]).await?.first().map(head).transpose()
}

/// The subscription of that name.
pub(super) async fn find(store: &Store, name: &Name) -> Result<Option<Head>, SubscriptionError> {
    let sql =
        "SELECT id, name, config, revision, checkpoint, fence, passed_over FROM quorate_subscription WHERE name = $1";
    store.room_query(sql, vec![name.into()]).await?.first().map(head).transpose()
}

/// Subscriptions in order of their names.
pub(super) async fn list(store: &Store, after: Option<&Name>, limit: u32) -> Result<Vec<Head>, SubscriptionError> {
    let sql = "SELECT id, name, config, revision, checkpoint, fence, passed_over FROM quorate_subscription
        WHERE name > $1 ORDER BY name LIMIT $2";
    let rows = store.room_query(sql, vec![after.map_or("", Name::as_str).into(), limit.into()]).await?;
    rows.iter().map(head).collect()
}

/// The revision a subscription is at; `None` if it was deleted.
pub(super) async fn revision(store: &Store, id: u64) -> Result<Option<u64>, SubscriptionError> {
    let rows = store.room_query("SELECT revision FROM quorate_subscription WHERE id = $1", vec![number(id)]).await?;
    rows.first().map(|row| unsigned(row.at(0), "revision")).transpose()
}

/// A subscription with everything known of its events, all as of one revision. `None` if it was deleted.
pub(super) async fn load(store: &Store, id: u64) -> Result<Option<(Head, Vec<Stored>)>, SubscriptionError> {
    loop {
        let sql =
            "SELECT id, name, config, revision, checkpoint, fence, passed_over FROM quorate_subscription WHERE id = $1";
        let rows = store.room_query(sql, vec![number(id)]).await?;
        let Some(head) = rows.first().map(head).transpose()? else { return Ok(None) };
        let events = all_events(store, id).await?;
        // Pages are read one by one: what was written between them would not fit together.
        if revision(store, id).await? == Some(head.revision) {
            return Ok(Some((head, events)));
        }
    }
}

async fn all_events(store: &Store, id: u64) -> Result<Vec<Stored>, SubscriptionError> {
    let sql = format!(
        "SELECT {EVENT_COLUMNS} FROM quorate_subscription_event
         WHERE subscription = $1 AND position > $2 ORDER BY position LIMIT $3"
    );
    let mut events: Vec<Stored> = Vec::new();
    loop {
        let after = events.last().map_or(0, |event| event.position.get());
        let (rows, all) = page(store, &sql, vec![number(id), number(after)], PAGE_ROWS).await?;
        for row in &rows {
            events.push(stored(row)?);
        }
        if all {
            return Ok(events);
        }
    }
}

/// At most `limit` rows of a query whose last parameter, to be added, says how many; fewer where so many are more than an
/// answer holds. Whether these are all.
async fn page(store: &Store, sql: &str, params: Vec<Value>, limit: usize) -> Result<(Vec<Row>, bool), SqlError> {
    let mut limit = limit;
    loop {
        let rows = Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX));
        match store.room_query(sql, params.iter().cloned().chain([rows]).collect()).await {
            Err(SqlError::Store(StoreError::TooMuch { .. })) if limit > 1 => limit /= 2,
            Err(cause) => return Err(cause),
            Ok(rows) => {
                let all = rows.len() < limit;
                return Ok((rows, all));
            }
        }
    }
}

/// Parked events in order of position.
pub(super) async fn parked(
    store: &Store,
    id: u64,
    after: Position,
    limit: u32,
) -> Result<Vec<Stored>, SubscriptionError> {
    let sql = format!(
        "SELECT {EVENT_COLUMNS} FROM quorate_subscription_event
         WHERE subscription = $1 AND position > $2 AND phase = $3 ORDER BY position LIMIT $4"
    );
    let (mut parked, limit): (Vec<Stored>, _) = (Vec::new(), limit as usize);
    loop {
        let after = parked.last().map_or(after, |last| last.position);
        let params = vec![number(id), number(after.get()), phase(Phase::Parked)];
        let (rows, all) = page(store, &sql, params, limit - parked.len()).await?;
        for row in &rows {
            parked.push(stored(row)?);
        }
        if all || parked.len() >= limit {
            return Ok(parked);
        }
    }
}

/// An event of a subscription that failed before.
pub(super) struct Failed {
    pub(super) subscription: u64,
    pub(super) position: Position,
    pub(super) failures: Vec<Failure>,
}

/// At most `limit` events that failed before, of all subscriptions, behind the place `after`.
pub(super) async fn with_failures(
    store: &Store,
    (subscription, after): (u64, Position),
    limit: usize,
) -> Result<Vec<Failed>, SubscriptionError> {
    let sql = "SELECT subscription, position, failures FROM quorate_subscription_event
        WHERE failures <> '' AND (subscription > $1 OR (subscription = $1 AND position > $2))
        ORDER BY subscription, position LIMIT $3";
    let (rows, _all) = page(store, sql, vec![number(subscription), number(after.get())], limit).await?;
    let failed = |row: &Row| {
        Ok(Failed {
            subscription: unsigned(row.at(0), "subscription")?,
            position: Position::new(unsigned(row.at(1), "position")?),
            failures: failures_from_text(text(row.at(2), "failures")?)?,
        })
    };
    rows.iter().map(failed).collect()
}

/// Forgets what consumers said of the events at `positions`. As a revision of its own: whoever knows the rows as they
/// were reads them again before it writes.
pub(super) async fn forget_reasons(
    tx: &mut DynTx,
    subscription: u64,
    positions: &[Position],
) -> Result<(), SubscriptionError> {
    let raise = "UPDATE quorate_subscription SET revision = revision + 1 WHERE id = $1";
    if tx.room_execute(raise, &[number(subscription)]).await? == 0 {
        return Ok(());
    }
    let sql = "SELECT revision FROM quorate_subscription WHERE id = $1";
    let revision = tx.room_query(sql, &[number(subscription)]).await?;
    let revision = revision.first().map_or(Value::Null, |row| row.at(0).clone());
    for position in positions {
        let place = [number(subscription), number(position.get())];
        let sql = "SELECT failures FROM quorate_subscription_event WHERE subscription = $1 AND position = $2";
        let found = tx.room_query(sql, &place).await?;
        let Some(row) = found.first() else { continue };
        let silent = without_reasons(&failures_from_text(text(row.at(0), "failures")?)?);
        let [id, at] = place;
        let params = [id, at, failures_to_text(&silent).into(), revision.clone()];
        let sql = "UPDATE quorate_subscription_event SET failures = $3, changed = $4
            WHERE subscription = $1 AND position = $2";
        tx.room_execute(sql, &params).await?;
    }
    Ok(())
}

/// Events that a transaction settled and whose rows nobody has cleared away yet.
pub(super) async fn settled(store: &Store, id: u64) -> Result<Vec<Claim>, SubscriptionError> {
    let sql = "SELECT position, fence FROM quorate_subscription_event
        WHERE subscription = $1 AND phase = $2 AND fence > 0 ORDER BY position LIMIT $3";
    let (rows, _all) = page(store, sql, vec![number(id), phase(Phase::Settled)], PAGE_ROWS).await?;
    let claim =
        |row: &Row| Ok(Claim::new(Position::new(unsigned(row.at(0), "position")?), unsigned(row.at(1), "fence")?));
    rows.iter().map(claim).collect()
}

/// Settles a leased event in somebody's transaction; whether the claim still held.
pub(super) async fn settle(tx: &mut DynTx, id: u64, claim: Claim) -> Result<bool, SqlError> {
    let sql = "UPDATE quorate_subscription_event SET phase = $1
        WHERE subscription = $2 AND position = $3 AND phase = $4 AND fence = $5";
    let params =
        [phase(Phase::Settled), number(id), number(claim.position.get()), phase(Phase::Leased), number(claim.fence)];
    tx.room_execute(sql, &params).await.map(|rows| rows > 0)
}

/// Writes `changes` if everything still is as they assume; `false` if not, and then the transaction must roll back.
pub(super) async fn write(tx: &mut DynTx, id: u64, changes: &Changes) -> Result<bool, SqlError> {
    let sql = "UPDATE quorate_subscription SET revision = $1, checkpoint = $2, fence = $3, passed_over = $6
        WHERE id = $4 AND revision = $5";
    let params = [
        number(changes.based_on + 1),
        number(changes.checkpoint.get()),
        number(changes.fence),
        number(id),
        number(changes.based_on),
        number(changes.passed_over),
    ];
    if tx.room_execute(sql, &params).await? == 0 {
        return Ok(false);
    }
    for (event, known) in &changes.put {
        if !put(tx, id, event, *known).await? {
            return Ok(false);
        }
    }
    for (position, known) in &changes.delete {
        if !clear(tx, id, *position, *known).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn put(tx: &mut DynTx, id: u64, event: &Stored, known: Option<Saved>) -> Result<bool, SqlError> {
    let mut params = vec![
        number(id),
        number(event.position.get()),
        event.key.clone().into(),
        phase(event.phase),
        event.attempts.into(),
        event.forgiven.into(),
        number(event.fence),
        event.owner.clone().into(),
        millis(event.span),
        failures_to_text(&event.failures).into(),
        number(event.changed),
    ];
    let sql = match known {
        None => {
            "INSERT INTO quorate_subscription_event (subscription, position, order_key, phase, attempts, forgiven, fence,
             owner, span_ms, failures, changed) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
             ON CONFLICT (subscription, position) DO NOTHING"
        }
        Some(known) => {
            params.extend([number(known.changed), phase(known.state)]);
            "UPDATE quorate_subscription_event SET order_key = $3, phase = $4, attempts = $5, forgiven = $6, fence = $7,
             owner = $8, span_ms = $9, failures = $10, changed = $11
             WHERE subscription = $1 AND position = $2 AND changed = $12 AND phase = $13"
        }
    };
    tx.room_execute(sql, &params).await.map(|rows| rows > 0)
}

async fn clear(tx: &mut DynTx, id: u64, position: Position, known: Saved) -> Result<bool, SqlError> {
    let sql = "DELETE FROM quorate_subscription_event
        WHERE subscription = $1 AND position = $2 AND changed = $3 AND phase = $4";
    let params = [number(id), number(position.get()), number(known.changed), phase(known.state)];
    tx.room_execute(sql, &params).await.map(|rows| rows > 0)
}

fn head(row: &Row) -> Result<Head, SubscriptionError> {
    let name = text(row.at(1), "name")?.parse().map_err(|cause| corrupt("name", cause))?;
    Ok(Head {
        id: unsigned(row.at(0), "id")?,
        name,
        config: Config::from_json(text(row.at(2), "config")?).map_err(|cause| corrupt("config", cause))?,
        revision: unsigned(row.at(3), "revision")?,
        checkpoint: Position::new(unsigned(row.at(4), "checkpoint")?),
        fence: unsigned(row.at(5), "fence")?,
        passed_over: unsigned(row.at(6), "passed_over")?,
    })
}

fn stored(row: &Row) -> Result<Stored, SubscriptionError> {
    let count = |n: usize, column| u32::try_from(unsigned(row.at(n), column)?).map_err(|cause| corrupt(column, cause));
    let number = row.at(2).as_i64().and_then(Phase::from_number);
    Ok(Stored {
        position: Position::new(unsigned(row.at(0), "position")?),
        key: text(row.at(1), "order_key")?.into(),
        phase: number.ok_or_else(|| corrupt("phase", "no such phase"))?,
        attempts: count(3, "attempts")?,
        forgiven: count(4, "forgiven")?,
        fence: unsigned(row.at(5), "fence")?,
        owner: text(row.at(6), "owner")?.into(),
        span: Duration::from_millis(unsigned(row.at(7), "span_ms")?),
        failures: failures_from_text(text(row.at(8), "failures")?)?,
        changed: unsigned(row.at(9), "changed")?,
    })
}

fn failures_to_text(failures: &[Failure]) -> Arc<str> {
    if failures.is_empty() {
        return "".into();
    }
    serde_json::to_string(failures).unwrap_or_else(|_| unreachable!("plain data has a JSON form")).into()
}

fn failures_from_text(text: &str) -> Result<Vec<Failure>, SubscriptionError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str(text).map_err(|cause| corrupt("failures", cause))
}

fn number(n: u64) -> Value {
    Value::Integer(n.cast_signed())
}

fn phase(phase: Phase) -> Value {
    Value::Integer(phase as i64)
}

/// Rounded up: a lease is never shorter than promised.
fn millis(span: Duration) -> Value {
    Value::Integer(i64::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX))
}

fn unsigned(value: &Value, column: &'static str) -> Result<u64, SubscriptionError> {
    value.as_i64().map(i64::cast_unsigned).ok_or_else(|| corrupt(column, "it is not a number"))
}

fn text<'v>(value: &'v Value, column: &'static str) -> Result<&'v str, SubscriptionError> {
    value.as_str().ok_or_else(|| corrupt(column, "it is not a text"))
}

fn corrupt(column: &'static str, what: impl std::fmt::Display) -> SubscriptionError {
    SubscriptionError::corrupt(format!("quorate_subscription or quorate_subscription_event, column `{column}`"), what)
}
