//! Schedules' rows.

use std::sync::Arc;

use quorate_data::{
    event::NewEvent,
    store::{DynTx, Row, Store, Value},
};
use quorate_foundations::{name::Name, time::Wall};
use serde::{Deserialize, Serialize};

use super::{attributes, give, integer, number, text, unsigned};
use crate::message_queue::{Missed, NewMessage, QueueError, Schedule};

/// A schedule's row.
#[derive(Debug)]
pub(in crate::message_queue) struct Kept {
    pub(in crate::message_queue) queue: u64,
    pub(in crate::message_queue) name: Name,
    pub(in crate::message_queue) schedule: Result<Schedule, QueueError>,
}

/// What a row says beside the message's data. Field names are part of the format.
#[derive(Serialize, Deserialize)]
struct Spec {
    cron: Arc<str>,
    time_zone: Arc<str>,
    missed: Missed,
    group: Option<Arc<str>>,
    unique: Option<Arc<str>>,
    priority: u8,
    delay_ms: u64,
    ttl_ms: Option<u64>,
    source: Arc<str>,
    id: Arc<str>,
    kind: Arc<str>,
    content_type: Option<Arc<str>>,
    attributes: Option<String>,
}

/// Schedules that are read at once.
const PAGE: usize = 16;

/// Every schedule. A row that is damaged is in nobody else's way.
pub(in crate::message_queue) async fn all(store: &Store) -> Result<Vec<Kept>, QueueError> {
    let sql = "SELECT queue, name, spec, data FROM quorate_queue_schedule
        WHERE (queue, name) > ($1, $2) ORDER BY queue, name LIMIT $3";
    let page = PAGE.min(store.limits().query_rows);
    let mut all = Vec::new();
    let (mut queue, mut name) = (Value::from(i64::MIN), Value::from(""));
    loop {
        let limit = i64::try_from(page).unwrap_or(i64::MAX);
        let rows = store.room_query(sql, vec![queue, name, limit.into()]).await?;
        for row in &rows {
            let named = text(row.at(1), "name").map(Name::new);
            match (unsigned(row.at(0), "queue"), named) {
                (Ok(queue), Ok(Ok(name))) => all.push(Kept { queue, name, schedule: schedule(row) }),
                _ => tracing::warn!("a schedule's name cannot be read; it sends nothing"),
            }
        }
        match rows.last() {
            Some(last) if rows.len() == page => (queue, name) = (last.at(0).clone(), last.at(1).clone()),
            _ => return Ok(all),
        }
    }
}

/// A schedule, and up to which moment its messages were sent; `None` if it is not there.
pub(in crate::message_queue) async fn one(
    store: &Store,
    queue: u64,
    name: &Name,
) -> Result<Option<(Result<Schedule, QueueError>, Wall)>, QueueError> {
    let sql = "SELECT queue, name, spec, data, done_ns FROM quorate_queue_schedule WHERE queue = $1 AND name = $2";
    let rows = store.room_query(sql, vec![number(queue), name.into()]).await?;
    let read = |row: &Row| Ok((schedule(row), Wall::from_unix_nanos(integer(row.at(4), "done_ns")?)));
    rows.first().map(read).transpose()
}

/// Writes a schedule, new or changed, whose moments up to `done` are over.
pub(in crate::message_queue) async fn put(
    tx: &mut DynTx,
    queue: u64,
    name: &Name,
    schedule: &Schedule,
    done: Wall,
) -> Result<(), QueueError> {
    let Schedule { cron, time_zone, missed, message } = schedule;
    let event = &message.event;
    let millis = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let spec = Spec {
        cron: cron.clone(),
        time_zone: time_zone.clone(),
        missed: *missed,
        group: message.group.clone(),
        unique: message.unique.clone(),
        priority: message.priority,
        delay_ms: millis(message.delay),
        ttl_ms: message.ttl.map(millis),
        source: event.source.clone(),
        id: event.id.clone(),
        kind: event.kind.clone(),
        content_type: event.content_type.clone(),
        attributes: attributes(event),
    };
    let spec = serde_json::to_string(&spec).unwrap_or_else(|_| unreachable!("plain data has a JSON form"));
    let sql = "INSERT INTO quorate_queue_schedule (queue, name, spec, data, done_ns) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (queue, name) DO UPDATE SET spec = $3, data = $4, done_ns = $5";
    let row = [number(queue), name.into(), spec.into(), event.data.clone().into(), done.unix_nanos().into()];
    tx.room_execute(sql, &row).await?;
    Ok(())
}

/// Notes that the messages of all moments up to `until` were sent. Whether those up to `done` had been, and no later ones.
pub(in crate::message_queue) async fn advance(
    tx: &mut DynTx,
    queue: u64,
    name: &Name,
    (done, until): (Wall, Wall),
) -> Result<bool, QueueError> {
    let sql = "UPDATE quorate_queue_schedule SET done_ns = $4 WHERE queue = $1 AND name = $2 AND done_ns = $3";
    let row = [number(queue), name.into(), done.unix_nanos().into(), until.unix_nanos().into()];
    Ok(tx.room_execute(sql, &row).await? == 1)
}

/// Deletes a schedule.
pub(in crate::message_queue) async fn delete(tx: &mut DynTx, queue: u64, name: &Name) -> Result<(), QueueError> {
    let sql = "DELETE FROM quorate_queue_schedule WHERE queue = $1 AND name = $2";
    tx.room_execute(sql, &[number(queue), name.into()]).await?;
    Ok(())
}

fn schedule(row: &Row) -> Result<Schedule, QueueError> {
    let corrupt = |what: String| QueueError::corrupt("quorate_queue_schedule", what);
    let spec: Spec = serde_json::from_str(text(row.at(2), "spec")?).map_err(|wrong| corrupt(wrong.to_string()))?;
    let mut event = NewEvent::new(spec.id, spec.source, spec.kind);
    event.content_type = spec.content_type;
    event.data = row.at(3).as_bytes().cloned();
    if let Some(text) = &spec.attributes {
        give(text, &mut event)?;
    }
    let millis = std::time::Duration::from_millis;
    let message = NewMessage {
        event,
        group: spec.group,
        priority: spec.priority,
        delay: millis(spec.delay_ms),
        ttl: spec.ttl_ms.map(millis),
        unique: spec.unique,
    };
    Ok(Schedule { cron: spec.cron, time_zone: spec.time_zone, missed: spec.missed, message })
}
