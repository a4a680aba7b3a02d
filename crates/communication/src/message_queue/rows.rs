//! The queues' tables, and their rows in and out.
//!
//! A message is one row that never changes, a row of `quorate_queue_known` that remembers its id, and, once it was handed
//! out, a small row of `quorate_queue_state` that says whose it is. Acknowledging deletes the first and the last. What a
//! consumer's own transaction does ([`ack`]) and what the queue does ([`settle`](super::rows::apply)) meet in the state's
//! row: whoever changes one that may have changed names the delivery it knows of. A message's number begins with its queue's
//! ([`numbers`]), so that the rows of a queue lie together, and are found, without an index. What a message was answered with lies under
//! its number in `quorate_queue_answer`, and goes with its id. Only unique keys have one; that of
//! a dead letter stands in another column, so that whoever sends looks past none of them, however many there are.

mod answers;
mod apply;
#[cfg(feature = "webhooks")]
pub(crate) mod callbacks;
mod columns;
mod heads;
mod insert;
mod known;
mod load;
mod messages;
mod numbers;
pub(super) mod schedules;
pub(super) mod turn;

use std::time::Duration;

use quorate_data::store::{DynTx, RoomTables, SqlError, Value};

use super::{
    QueueError,
    machine::{Claim, Seq},
};
pub(super) use answers::{is_there, keep, progress, remember};
pub(super) use apply::{Batch, Replayed, Write, apply, discard, replay};
use columns::give;
pub(super) use columns::{attributes, failures_in};
pub(super) use heads::{Head, Heads, configure, declare, delete_some, heads, mark_deleted};
pub(super) use insert::{Placed, insert};
pub(super) use known::{Known, known};
pub(super) use load::{Stored, UNKNOWN_DELIVERIES, load};
pub(super) use messages::{Fetched, Named, dead_letters, messages, named};
pub(super) use numbers::{Numbers, Opened, count_of, queue_of, within};

/// The tables, by version.
pub(crate) const TABLES: RoomTables = RoomTables {
    room: "queue",
    versions: &[
        "
        CREATE TABLE quorate_queue (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            config TEXT NOT NULL,
            deleted BIGINT NOT NULL);
        CREATE TABLE quorate_queue_numbers (
            one INTEGER PRIMARY KEY,
            block BIGINT NOT NULL);
        CREATE TABLE quorate_queue_message (
            seq INTEGER PRIMARY KEY,
            group_key TEXT,
            priority BIGINT NOT NULL,
            sent_ns BIGINT NOT NULL,
            delay_ms BIGINT NOT NULL,
            ttl_ms BIGINT,
            source TEXT NOT NULL,
            id TEXT NOT NULL,
            kind TEXT NOT NULL,
            content_type TEXT,
            attributes TEXT,
            data BLOB);
        CREATE TABLE quorate_queue_state (
            seq INTEGER PRIMARY KEY,
            deliveries BIGINT NOT NULL,
            attempts BIGINT NOT NULL,
            phase BIGINT NOT NULL,
            due_ns BIGINT NOT NULL,
            span_ms BIGINT NOT NULL,
            failures TEXT NOT NULL);
        CREATE TABLE quorate_queue_known (
            queue BIGINT NOT NULL,
            id TEXT NOT NULL,
            source TEXT NOT NULL,
            seq BIGINT NOT NULL,
            sum BIGINT NOT NULL,
            sent_ns BIGINT NOT NULL,
            PRIMARY KEY (queue, id, source)) WITHOUT ROWID
    ",
        "
        ALTER TABLE quorate_queue_message ADD COLUMN unique_key TEXT;
        ALTER TABLE quorate_queue_message ADD COLUMN parked_key TEXT;
        CREATE INDEX quorate_queue_unique ON quorate_queue_message (unique_key) WHERE unique_key IS NOT NULL;
        CREATE TABLE quorate_queue_schedule (
            queue BIGINT NOT NULL,
            name TEXT NOT NULL,
            spec TEXT NOT NULL,
            data BLOB,
            done_ns BIGINT NOT NULL,
            PRIMARY KEY (queue, name)) WITHOUT ROWID
    ",
        "
        CREATE TABLE quorate_queue_answer (
            seq INTEGER PRIMARY KEY,
            label TEXT NOT NULL,
            content_type TEXT,
            data BLOB)
    ",
        // Who is to be told when the message `seq` is over with. `told`: the id of the message that tells, once there is one.
        "
        CREATE TABLE quorate_queue_callback (
            seq INTEGER PRIMARY KEY,
            queue BIGINT NOT NULL,
            kind TEXT NOT NULL,
            id TEXT NOT NULL,
            url TEXT NOT NULL,
            secret TEXT NOT NULL,
            told TEXT);
        CREATE INDEX quorate_queue_callback_due ON quorate_queue_callback (queue, seq) WHERE told IS NULL;
        CREATE UNIQUE INDEX quorate_queue_callback_told ON quorate_queue_callback (told) WHERE told IS NOT NULL
    ",
    ],
};

/// What a state's row says of its message.
pub(super) const WAITING: i64 = 0;
pub(super) const RESTING: i64 = 1;
pub(super) const LEASED: i64 = 2;
pub(super) const PARKED: i64 = 3;

/// Settles a message in the caller's transaction; whether the claim holds.
pub(super) async fn ack(tx: &mut DynTx, claim: Claim) -> Result<bool, SqlError> {
    let sql = "DELETE FROM quorate_queue_state WHERE seq = $1 AND deliveries = $2 AND phase = $3";
    let params = [number(claim.seq), claim.delivery.into(), LEASED.into()];
    if tx.room_execute(sql, &params).await? == 0 {
        return Ok(false);
    }
    tx.room_execute("DELETE FROM quorate_queue_message WHERE seq = $1", &[number(claim.seq)]).await?;
    Ok(true)
}

/// How many numbers one statement names.
pub(super) const CHUNK: usize = 16;

/// `$n, $n+1, …`: as many as a chunk has.
pub(super) fn places(first: usize) -> String {
    let places: Vec<String> = (first..first + CHUNK).map(|n| format!("${n}")).collect();
    places.join(", ")
}

/// A chunk's numbers as parameters; the last one stands for those that are missing.
pub(super) fn filled(seqs: &[Seq]) -> Vec<Value> {
    let last = seqs.last().copied().unwrap_or_default();
    seqs.iter().copied().chain(std::iter::repeat(last)).take(CHUNK).map(number).collect()
}

pub(super) fn number(n: u64) -> Value {
    Value::Integer(n.cast_signed())
}

fn integer(value: &Value, what: &str) -> Result<i64, QueueError> {
    value.as_i64().ok_or_else(|| QueueError::corrupt("quorate_queue", format!("`{what}` is no number")))
}

fn unsigned(value: &Value, what: &str) -> Result<u64, QueueError> {
    integer(value, what).map(i64::cast_unsigned)
}

fn short(value: &Value, what: &str) -> Result<u32, QueueError> {
    let wrong = |_| QueueError::corrupt("quorate_queue", format!("`{what}` is too large"));
    integer(value, what).and_then(|n| u32::try_from(n).map_err(wrong))
}

fn text<'v>(value: &'v Value, what: &str) -> Result<&'v str, QueueError> {
    value.as_str().ok_or_else(|| QueueError::corrupt("quorate_queue", format!("`{what}` is no text")))
}

fn millis(value: &Value) -> Option<Duration> {
    value.as_i64().and_then(|n| u64::try_from(n).ok()).map(Duration::from_millis)
}

pub(super) fn in_millis(span: Duration) -> Value {
    Value::Integer(i64::try_from(span.as_millis()).unwrap_or(i64::MAX))
}
