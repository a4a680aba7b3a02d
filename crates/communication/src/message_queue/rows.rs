//! The queues' tables, and their rows in and out.
//!
//! A message is one row that never changes, a row of `quorate_queue_known` that remembers its id, and, once it was handed
//! out, a small row of `quorate_queue_state` that says whose it is. Acknowledging deletes the first and the last. What a
//! consumer's own transaction does ([`ack`]) and what the queue does ([`settle`](super::rows::apply)) meet in the state's
//! row: whoever changes one that may have changed names the delivery it knows of. A message's number begins with its queue's
//! ([`numbers`]), so that the rows of a queue lie together, and are found, without an index.

mod apply;
mod insert;
mod known;
mod load;
mod numbers;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use quorate_data::{
    event::{Extensions, NewEvent, Tags},
    store::{DynTx, RoomTables, Row, SqlError, Store, StoreError, Value},
};
use quorate_foundations::{name::Name, time::Wall};
use serde::{Deserialize, Serialize};

use super::{
    Cause, Config, DeadLetter, Failure, Message, QueueError,
    machine::{Claim, Seq},
};
pub(super) use apply::{Batch, Write, apply};
pub(super) use insert::{Placed, insert};
pub(super) use known::{Known, known};
pub(super) use load::{Stored, load};
pub(super) use numbers::{Numbers, Opened, count_of, queue_of, within};

/// The tables, by version.
pub(super) const TABLES: RoomTables = RoomTables {
    room: "queue",
    versions: &["
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
    "],
};

/// What a state's row says of its message.
pub(super) const WAITING: i64 = 0;
pub(super) const RESTING: i64 = 1;
pub(super) const LEASED: i64 = 2;
pub(super) const PARKED: i64 = 3;

/// A queue's row.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) id: u64,
    pub(super) name: Name,
    pub(super) config: Config,
    /// Its messages are being deleted, and it is gone for everybody.
    pub(super) is_deleted: bool,
    /// Why its row says nothing of how it is.
    pub(super) damaged: Option<QueueError>,
}

/// Every queue.
#[derive(Debug, Default)]
pub(super) struct Heads {
    pub(super) heads: Vec<Head>,
    /// Numbers of those whose names cannot be read any more.
    pub(super) nameless: BTreeSet<u64>,
}

/// Queues whose rows are read at once.
const HEADS: usize = 1_000;

/// Every queue. A row that is damaged is in nobody else's way.
pub(super) async fn heads(store: &Store) -> Result<Heads, QueueError> {
    let sql = "SELECT id, name, config, deleted FROM quorate_queue WHERE id > $1 ORDER BY id LIMIT $2";
    let page = HEADS.min(store.limits().query_rows);
    let (mut all, mut after) = (Heads::default(), Value::from(i64::MIN));
    loop {
        let limit = i64::try_from(page).unwrap_or(i64::MAX);
        let rows = store.room_query(sql, vec![after, limit.into()]).await?;
        for row in &rows {
            let id = unsigned(row.at(0), "quorate_queue")?;
            match head(id, row) {
                Ok(head) => {
                    if let Some(cause) = &head.damaged {
                        tracing::warn!(queue = %head.name, %cause, "a queue cannot be used until it is declared again or deleted");
                    }
                    all.heads.push(head);
                }
                Err(cause) => {
                    tracing::warn!(id, %cause, "a queue's name cannot be read; it is left alone with its messages");
                    all.nameless.insert(id);
                }
            }
        }
        match rows.last() {
            Some(last) if rows.len() == page => after = last.at(0).clone(),
            _ => return Ok(all),
        }
    }
}

/// Writes a new queue's row. A number or a name that another one has is an error.
pub(super) async fn declare(tx: &mut DynTx, head: &Head) -> Result<(), QueueError> {
    let sql = "INSERT INTO quorate_queue (id, name, config, deleted) VALUES ($1, $2, $3, 0)";
    tx.room_execute(sql, &[number(head.id), (&head.name).into(), config_of(head)?]).await?;
    Ok(())
}

/// Writes another configuration of a queue that is not deleted.
pub(super) async fn configure(tx: &mut DynTx, head: &Head) -> Result<(), QueueError> {
    let sql = "UPDATE quorate_queue SET config = $3, deleted = 0 WHERE id = $1 AND name = $2";
    if tx.room_execute(sql, &[number(head.id), (&head.name).into(), config_of(head)?]).await? == 1 {
        return Ok(());
    }
    Err(QueueError::corrupt("quorate_queue", format!("no row says that {} is queue `{}`", head.id, head.name)))
}

fn config_of(head: &Head) -> Result<Value, QueueError> {
    let config = serde_json::to_string(&head.config).map_err(|wrong| QueueError::invalid(wrong.to_string()))?;
    Ok(config.into())
}

/// From this transaction on the queue is gone for everybody.
pub(super) async fn mark_deleted(tx: &mut DynTx, id: u64) -> Result<(), QueueError> {
    tx.room_execute("UPDATE quorate_queue SET deleted = 1 WHERE id = $1", &[number(id)]).await?;
    Ok(())
}

/// Deletes at most `limit` rows of each kind of a queue that is gone, and at last its own row. Whether that was all.
///
/// Nobody sends to the queue any more: what is not there now will never be.
pub(super) async fn delete_some(tx: &mut DynTx, id: u64, limit: u32) -> Result<bool, QueueError> {
    let numbers = within(id);
    let range = [number(*numbers.start()), number(*numbers.end()), limit.into()];
    let mut most = 0;
    for table in ["message", "state"] {
        let sql = format!(
            "DELETE FROM quorate_queue_{table} WHERE seq IN
             (SELECT seq FROM quorate_queue_{table} WHERE seq BETWEEN $1 AND $2 LIMIT $3)"
        );
        most = most.max(tx.room_execute(&sql, &range).await?);
    }
    let sql = "DELETE FROM quorate_queue_known WHERE (queue, id, source) IN
        (SELECT queue, id, source FROM quorate_queue_known WHERE queue = $1 LIMIT $2)";
    most = most.max(tx.room_execute(sql, &[number(id), limit.into()]).await?);
    let is_all = most < u64::from(limit);
    if is_all {
        tx.room_execute("DELETE FROM quorate_queue WHERE id = $1", &[number(id)]).await?;
    }
    Ok(is_all)
}

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

const MESSAGE: &str =
    "m.seq, m.group_key, m.priority, m.sent_ns, m.delay_ms, m.ttl_ms, m.source, m.id, m.kind, m.content_type,
    m.attributes, m.data";

/// The same of a message that cannot be read, without its attributes and its data.
const ENVELOPE: &str =
    "m.seq, CAST(m.group_key AS TEXT), CAST(m.priority AS INTEGER), CAST(m.sent_ns AS INTEGER), 0, NULL,
    CAST(m.source AS TEXT), CAST(m.id AS TEXT), CAST(m.kind AS TEXT), NULL, NULL, NULL";

/// Messages that were asked for by their numbers; those that are gone are left out.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    pub(super) found: Vec<(Seq, Arc<Message>)>,
    /// Those that cannot be read, and why.
    pub(super) unreadable: BTreeMap<Seq, QueueError>,
}

/// Messages by their numbers. At most [`CHUNK`] are asked for at once; one that cannot be read is in nobody else's way.
pub(super) async fn messages(store: &Store, seqs: &[Seq]) -> Result<Fetched, QueueError> {
    let mut fetched = Fetched::default();
    for seqs in seqs.chunks(CHUNK) {
        match some_messages(store, seqs).await {
            Ok(found) => fetched.found.extend(found),
            Err(cause) if is_of_rows(&cause) => {
                for seq in seqs {
                    match some_messages(store, &[*seq]).await {
                        Ok(found) => fetched.found.extend(found),
                        Err(cause) if is_of_rows(&cause) => drop(fetched.unreadable.insert(*seq, cause)),
                        Err(cause) => return Err(cause),
                    }
                }
            }
            Err(cause) => return Err(cause),
        }
    }
    Ok(fetched)
}

async fn some_messages(store: &Store, seqs: &[Seq]) -> Result<Vec<(Seq, Arc<Message>)>, QueueError> {
    let sql = format!("SELECT {MESSAGE} FROM quorate_queue_message m WHERE m.seq IN ({})", places(1));
    let rows = store.room_query(&sql, filled(seqs)).await?;
    rows.iter().map(|row| Ok((unsigned(row.at(0), "seq")?, Arc::new(message(row)?)))).collect()
}

/// Whether it is what was asked for that cannot be read, and others may be.
fn is_of_rows(cause: &QueueError) -> bool {
    matches!(cause, QueueError::Store(StoreError::Corrupt { .. } | StoreError::TooMuch { .. }))
}

/// Dead letters by their numbers, in order, and whether they end early: at least one, and no more than take `max_bytes`.
/// One whose content cannot be read comes without it.
pub(super) async fn dead_letters(
    store: &Store,
    seqs: &[Seq],
    max_bytes: usize,
) -> Result<(Vec<DeadLetter>, bool), QueueError> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    for seqs in seqs.chunks(LARGE) {
        let letters = match some_letters(store, seqs, MESSAGE).await {
            Err(cause) if is_of_rows(&cause) => {
                let mut letters = Vec::new();
                for seq in seqs {
                    letters.extend(match some_letters(store, &[*seq], MESSAGE).await {
                        Err(cause) if is_of_rows(&cause) => some_letters(store, &[*seq], ENVELOPE).await?,
                        one => one?,
                    });
                }
                letters
            }
            letters => letters?,
        };
        for letter in letters {
            bytes += letter.message.size() + letter.failures.iter().map(|one| one.reason.len() + 64).sum::<usize>();
            if bytes > max_bytes && !found.is_empty() {
                return Ok((found, true));
            }
            found.push(letter);
        }
    }
    Ok((found, false))
}

async fn some_letters(store: &Store, seqs: &[Seq], columns: &str) -> Result<Vec<DeadLetter>, QueueError> {
    let sql = format!(
        "SELECT {columns}, s.attempts, s.failures FROM quorate_queue_message m
         JOIN quorate_queue_state s ON s.seq = m.seq WHERE m.seq IN ({}) ORDER BY m.seq",
        places(1)
    );
    // What became of it is for people: where that cannot be read, they see so.
    let letter = |row: &Row| {
        Ok(DeadLetter {
            message: Arc::new(message(row)?),
            attempts: short(row.at(12), "attempts").unwrap_or_default(),
            failures: failures_in(row.at(13), Wall::from_unix_nanos(0)),
            seq: unsigned(row.at(0), "seq")?,
        })
    };
    store.room_query(&sql, filled(seqs)).await?.iter().map(letter).collect()
}

/// What a message is selected by.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) seq: Seq,
    pub(super) id: String,
    pub(super) source: String,
    pub(super) group: Option<String>,
    pub(super) kind: String,
}

/// What messages are selected by, by their numbers. Their content is not looked at.
pub(super) async fn named(store: &Store, seqs: &[Seq]) -> Result<Vec<Named>, QueueError> {
    let mut found = Vec::with_capacity(seqs.len());
    for seqs in seqs.chunks(CHUNK) {
        let sql = format!(
            "SELECT m.seq, CAST(m.id AS TEXT), CAST(m.source AS TEXT), CAST(m.group_key AS TEXT), CAST(m.kind AS TEXT)
             FROM quorate_queue_message m WHERE m.seq IN ({}) ORDER BY m.seq",
            places(1)
        );
        for row in &store.room_query(&sql, filled(seqs)).await? {
            let [id, source, group, kind] = [1, 2, 3, 4].map(|n| row.at(n).as_str().map(str::to_owned));
            found.push(Named {
                seq: unsigned(row.at(0), "seq")?,
                id: id.unwrap_or_default(),
                source: source.unwrap_or_default(),
                group,
                kind: kind.unwrap_or_default(),
            });
        }
    }
    Ok(found)
}

/// How many dead letters are read at once, with all they say.
const LARGE: usize = 4;

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

fn message(row: &Row) -> Result<Message, QueueError> {
    let optional = |n: usize| row.at(n).as_str().map(Arc::from);
    let mut event = NewEvent::new(text(row.at(7), "id")?, text(row.at(6), "source")?, text(row.at(8), "kind")?);
    event.content_type = optional(9);
    event.data = row.at(11).as_bytes().cloned();
    if let Some(text) = row.at(10).as_str() {
        let rest: Attributes<'_> =
            serde_json::from_str(text).map_err(|wrong| QueueError::corrupt("quorate_queue_message", wrong))?;
        rest.into_event(&mut event)?;
    }
    Ok(Message {
        event,
        group: optional(1),
        priority: u8::try_from(integer(row.at(2), "priority")?).unwrap_or_default(),
        sent_at: Wall::from_unix_nanos(integer(row.at(3), "sent_ns")?),
        delay: millis(row.at(4)).unwrap_or_default(),
        ttl: millis(row.at(5)),
    })
}

/// The attributes that few messages have. Field names are part of the format.
#[derive(Serialize, Deserialize)]
struct Attributes<'a> {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    subject: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    time: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    dataschema: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    correlationid: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    causationid: Option<Arc<str>>,
    #[serde(skip_serializing_if = "str::is_empty", default)]
    tags: std::borrow::Cow<'a, str>,
    #[serde(skip_serializing_if = "Extensions::is_empty", default)]
    extensions: Extensions,
}

impl Attributes<'_> {
    fn into_event(self, event: &mut NewEvent) -> Result<(), QueueError> {
        let wrong = |what: String| QueueError::corrupt("quorate_queue_message", what);
        event.subject = self.subject;
        event.time = self.time.map(|time| time.parse()).transpose().map_err(|cause| wrong(format!("{cause}")))?;
        event.schema = self.dataschema;
        event.correlation_id = self.correlationid;
        event.causation_id = self.causationid;
        event.tags = self.tags.parse::<Tags>().map_err(|cause| wrong(cause.to_string()))?;
        event.extensions = self.extensions;
        Ok(())
    }
}

/// The attributes of `event` that have no column of their own, if it has any.
pub(super) fn attributes(event: &NewEvent) -> Option<String> {
    let few = event.subject.is_none()
        && event.time.is_none()
        && event.schema.is_none()
        && event.correlation_id.is_none()
        && event.causation_id.is_none()
        && event.tags.as_str().is_empty()
        && event.extensions.is_empty();
    if few {
        return None;
    }
    let attributes = Attributes {
        subject: event.subject.clone(),
        time: event.time.as_ref().map(|time| time.as_str().into()),
        dataschema: event.schema.clone(),
        correlationid: event.correlation_id.clone(),
        causationid: event.causation_id.clone(),
        tags: event.tags.as_str().into(),
        extensions: event.extensions.clone(),
    };
    Some(serde_json::to_string(&attributes).unwrap_or_else(|_| unreachable!("plain data has a JSON form")))
}

fn failures(text: &str) -> Result<Vec<Failure>, QueueError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str(text).map_err(|wrong| QueueError::corrupt("quorate_queue_state", wrong))
}

/// The failures that a state's row tells; where they cannot be read, that.
pub(super) fn failures_in(value: &Value, now: Wall) -> Vec<Failure> {
    text(value, "failures").and_then(failures).unwrap_or_else(|cause| {
        let reason = format!("what happened to it before cannot be read: {cause}");
        vec![Failure::new(0, now, Cause::Parked, &reason)]
    })
}

/// The queue of this number.
///
/// # Errors
/// Its name cannot be read.
fn head(id: u64, row: &Row) -> Result<Head, QueueError> {
    let corrupt = |what: String| QueueError::corrupt("quorate_queue", what);
    let name = Name::new(text(row.at(1), "name")?).map_err(|wrong| corrupt(wrong.to_string()))?;
    let config = text(row.at(2), "config")
        .and_then(|text| serde_json::from_str(text).map_err(|wrong| corrupt(format!("`config` of `{name}`: {wrong}"))));
    let deleted = integer(row.at(3), "deleted").map(|deleted| deleted != 0);
    let is_deleted = *deleted.as_ref().unwrap_or(&false);
    // What is to be deleted is, whatever its configuration says.
    let damaged = deleted.err().or_else(|| config.as_ref().err().filter(|_| !is_deleted).cloned());
    Ok(Head { id, name, config: config.unwrap_or_default(), is_deleted, damaged })
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
