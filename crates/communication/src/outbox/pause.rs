//! Relays that are paused: written down, so that a pause outlives its process, and holds for every process that shares the store.

use std::sync::Arc;

use quorate_data::store::{RoomTables, SqlError, Store, StoreError, TransactError, Value};
use quorate_foundations::{name::Name, time::Wall};

use super::RelayError;

pub(crate) const TABLES: RoomTables = RoomTables {
    room: "relay",
    versions: &["
        CREATE TABLE quorate_relay (
            name TEXT NOT NULL PRIMARY KEY,
            paused_ns BIGINT NOT NULL,
            reason TEXT NOT NULL)
    "],
};

/// The longest reason that is kept, in bytes; what is beyond it is cut off.
const MAX_REASON_BYTES: usize = 1_024;

/// Since when a relay publishes nothing, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paused {
    /// Since when, by the wall clock.
    pub since: Wall,
    /// Why, for people; at most 1,024 bytes.
    pub reason: Arc<str>,
}

/// Whether the relay `name` is paused.
pub(super) async fn read(store: &Store, name: &Name) -> Result<Option<Paused>, RelayError> {
    let sql = "SELECT paused_ns, reason FROM quorate_relay WHERE name = $1";
    let rows = store.room_query(sql, vec![name.into()]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (Some(since), Some(reason)) = (row.at(0).as_i64(), row.at(1).as_str()) else {
        let what = "a row is there and cannot be read".to_owned();
        return Err(StoreError::Corrupt { place: "quorate_relay".to_owned(), what }.into());
    };
    Ok(Some(Paused { since: Wall::from_unix_nanos(since), reason: reason.into() }))
}

/// Pauses the relay `name`, and returns since when and why it is. One that is paused stays so since it was, for the new reason.
pub(super) async fn pause(store: &Store, name: &Name, reason: &str) -> Result<Paused, RelayError> {
    let mut end = reason.len().min(MAX_REASON_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let sql = "INSERT INTO quorate_relay (name, paused_ns, reason) VALUES ($1, $2, $3)
        ON CONFLICT (name) DO UPDATE SET reason = $3";
    let now = store.env().wall();
    write(store, sql, vec![name.into(), now.unix_nanos().into(), Value::from(reason[..end].to_owned())]).await?;
    // It is paused now, whether that can be read or not.
    let known = read(store, name).await.ok().flatten();
    Ok(known.unwrap_or_else(|| Paused { since: now, reason: reason[..end].into() }))
}

/// Lets the relay `name` go on.
pub(super) async fn resume(store: &Store, name: &Name) -> Result<(), RelayError> {
    write(store, "DELETE FROM quorate_relay WHERE name = $1", vec![name.into()]).await
}

async fn write(store: &Store, sql: &'static str, params: Vec<Value>) -> Result<(), RelayError> {
    let params: Arc<[Value]> = params.into();
    let written = store.transact(move |tx| {
        let params = params.clone();
        Box::pin(async move { tx.room_execute(sql, &params).await.map(drop) })
    });
    written.await.map_err(|failed| match failed {
        TransactError::Aborted(cause) => cause.into(),
        TransactError::Store(cause) => cause.into(),
        other => RelayError::Tables(SqlError::Failed { what: other.to_string() }),
    })
}
