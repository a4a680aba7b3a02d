//! The answers that are kept, each in the transaction of what it answers.

use std::{sync::Arc, time::Duration};

use quorate_data::store::{DynTx, RoomTables, SqlError, Store, StoreError, TransactError, Value};
use quorate_foundations::{name::Name, time::Wall};

use super::Key;

/// The table.
pub(crate) const TABLES: RoomTables = RoomTables {
    room: "command",
    versions: &[
        "
        CREATE TABLE quorate_command (
            stream TEXT NOT NULL,
            command_key TEXT NOT NULL,
            fingerprint TEXT NOT NULL,
            answer TEXT NOT NULL,
            version BIGINT NOT NULL,
            token BIGINT NOT NULL,
            events BIGINT NOT NULL,
            expires_ns BIGINT NOT NULL,
            PRIMARY KEY (stream, command_key));
        CREATE INDEX quorate_command_expires ON quorate_command (expires_ns)
    ",
        "
        ALTER TABLE quorate_command ADD COLUMN kept_ns BIGINT NOT NULL DEFAULT 0;
        CREATE INDEX quorate_command_kept ON quorate_command (kept_ns)
    ",
    ],
};

/// Answers that are forgotten with each new one: more than come in.
const SWEEP: i64 = 4;
/// Answers that one transaction forgets because of an erasure.
const AT_ONCE: i64 = 500;

/// An answer as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    /// What the command was.
    pub(super) fingerprint: String,
    /// The rejection as JSON; empty where it was carried out.
    pub(super) answer: String,
    pub(super) version: u64,
    /// The append that its token stands for.
    pub(super) token: u64,
    pub(super) events: u64,
}

/// The answer to the command with this key, if it has not expired.
pub(super) async fn find(tx: &mut DynTx, stream: &Name, key: &Key, now: Wall) -> Result<Option<Kept>, SqlError> {
    let sql = "SELECT fingerprint, answer, version, token, events FROM quorate_command
        WHERE stream = $1 AND command_key = $2 AND expires_ns > $3";
    let found = tx.room_query(sql, &[stream.into(), key.as_str().into(), now.unix_nanos().into()]).await?;
    let Some(row) = found.first() else { return Ok(None) };
    let text = |n: usize| row.at(n).as_str().map(str::to_owned);
    let number = |n: usize| row.at(n).as_i64().and_then(|n| u64::try_from(n).ok());
    let read = || {
        Some(Kept {
            fingerprint: text(0)?,
            answer: text(1)?,
            version: number(2)?,
            token: number(3)?,
            events: number(4)?,
        })
    };
    let corrupt = || StoreError::Corrupt { place: "quorate_command".to_owned(), what: "no such answer".to_owned() };
    Ok(Some(read().ok_or_else(corrupt)?))
}

/// Keeps an answer, and forgets some that have expired.
pub(super) async fn keep(
    tx: &mut DynTx,
    stream: &Name,
    key: &Key,
    kept: &Kept,
    now: Wall,
    span: Duration,
) -> Result<(), SqlError> {
    let sql = "DELETE FROM quorate_command WHERE (stream, command_key) IN
        (SELECT stream, command_key FROM quorate_command WHERE expires_ns <= $1 ORDER BY expires_ns LIMIT $2)";
    tx.room_execute(sql, &[now.unix_nanos().into(), SWEEP.into()]).await?;
    let expires = now.unix_nanos().saturating_add(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX));
    let sql = "INSERT INTO quorate_command
        (stream, command_key, fingerprint, answer, version, token, events, expires_ns, kept_ns)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (stream, command_key) DO UPDATE
        SET fingerprint = $3, answer = $4, version = $5, token = $6, events = $7, expires_ns = $8, kept_ns = $9";
    let params: [Value; 9] = [
        stream.into(),
        key.as_str().into(),
        kept.fingerprint.as_str().into(),
        kept.answer.as_str().into(),
        kept.version.cast_signed().into(),
        kept.token.cast_signed().into(),
        kept.events.cast_signed().into(),
        expires.into(),
        now.unix_nanos().into(),
    ];
    tx.room_execute(sql, &params).await.map(|_| ())
}

/// Forgets what was kept up to then: an answer may quote whoever is erased, and a fingerprint tells whoever guesses the command
/// that the guess was right.
pub(super) async fn forget(store: Store, until_ns: i64) -> Result<(), StoreError> {
    loop {
        let forgotten = store.transact(move |tx| {
            Box::pin(async move {
                let sql = "DELETE FROM quorate_command WHERE (stream, command_key) IN
                    (SELECT stream, command_key FROM quorate_command WHERE kept_ns <= $1 ORDER BY kept_ns LIMIT $2)";
                tx.room_execute(sql, &[until_ns.into(), AT_ONCE.into()]).await
            })
        });
        match forgotten.await {
            // Fewer than could be: that was all. What others keep meanwhile was decided after the erasure, and stays.
            Ok(some) if some < AT_ONCE.unsigned_abs() => return Ok(()),
            Ok(_) => {}
            Err(TransactError::Store(cause) | TransactError::Aborted(SqlError::Store(cause))) => return Err(cause),
            Err(other) => return Err(StoreError::Engine { doing: "forgetting answers", cause: Arc::new(other) }),
        }
    }
}
