//! Messages that gave trouble: those that failed and come again, and those that are parked.
//!
//! One row each, which holds what the message said only while it is parked: until then the broker has it. `place` orders the parked messages of a consumer;
//! what is not parked has none.

use std::{borrow::Cow, sync::Arc};

use quorate_data::{
    event::NewEvent,
    store::{DynTx, RoomTables, Row, SqlError, Store, StoreError, Value},
};
use quorate_foundations::{name::Name, time::Wall};
use serde::{Deserialize, Serialize};

use super::InboxError;
use crate::{
    attributes::Attributes,
    message_queue::{Cause, Failure},
    transports::Incoming,
};

pub(crate) const TABLES: RoomTables = RoomTables {
    room: "inbox_message",
    versions: &["
        CREATE TABLE quorate_inbox_message (
            consumer TEXT NOT NULL,
            identity TEXT NOT NULL,
            order_key TEXT NOT NULL,
            place BIGINT,
            attempts BIGINT NOT NULL,
            failures TEXT NOT NULL,
            data_subject TEXT,
            event TEXT,
            data BLOB,
            PRIMARY KEY (consumer, identity));
        CREATE INDEX quorate_inbox_message_by_place ON quorate_inbox_message (consumer, place);
        CREATE INDEX quorate_inbox_message_by_key ON quorate_inbox_message (consumer, order_key, place)
    "],
};

/// A message that was set aside.
#[derive(Clone, Debug, PartialEq)]
pub struct Parked {
    /// Its place among the parked messages of its inbox: later ones have higher ones.
    pub place: u64,
    /// The message. Without data if its data subject was erased.
    pub message: Incoming,
    /// How often it was handled.
    pub attempts: u32,
    /// Its last failures, oldest first; the last one says why it is parked.
    pub failures: Vec<Failure>,
}

/// What is known of a message before it is handled.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing stands in its way.
    Free,
    /// It is parked itself.
    IsParked,
    /// A message of its key is parked.
    KeyIsParked,
}

/// What a parked message says but for its data. Field names are part of the format.
#[derive(Serialize, Deserialize)]
struct Said<'a> {
    id: Cow<'a, str>,
    source: Cow<'a, str>,
    #[serde(rename = "type")]
    kind: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    datacontenttype: Option<Arc<str>>,
    #[serde(flatten)]
    attributes: Attributes<'a>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    unreadable: Option<String>,
}

fn said(message: &Incoming) -> String {
    let event = &message.event;
    let said = Said {
        id: (&*event.id).into(),
        source: (&*event.source).into(),
        kind: (&*event.kind).into(),
        datacontenttype: event.content_type.clone(),
        attributes: Attributes::of(event),
        unreadable: message.unreadable.clone(),
    };
    serde_json::to_string(&said).unwrap_or_else(|_| unreachable!("plain data has a JSON form"))
}

const COLUMNS: &str = "identity, order_key, place, attempts, failures, data_subject, event, data";

fn parked(row: &Row) -> Result<Parked, InboxError> {
    let text = |at: usize| row.at(at).as_str().ok_or_else(|| InboxError::corrupt(format!("column {at} is no text")));
    let number = |at: usize| row.at(at).as_i64().and_then(|n| u64::try_from(n).ok());
    let number = |at: usize| number(at).ok_or_else(|| InboxError::corrupt(format!("column {at} is no number")));
    let Said { id, source, kind, datacontenttype, attributes, unreadable } =
        serde_json::from_str(text(6)?).map_err(InboxError::corrupt)?;
    let mut event = NewEvent::new(&*id, &*source, &*kind);
    event.content_type = datacontenttype;
    attributes.give(&mut event).map_err(InboxError::corrupt)?;
    event.data_subject = row.at(5).as_str().map(Into::into);
    event.data = row.at(7).as_bytes().cloned();
    let attempts = u32::try_from(number(3)?).unwrap_or(u32::MAX);
    let (identity, key) = (text(0)?.into(), text(1)?.into());
    let message = Incoming { identity, key, event, unreadable, redelivered: true, attempt: attempts.saturating_add(1) };
    Ok(Parked { place: number(2)?, message, attempts, failures: failures(text(4)?)? })
}

fn failures(text: &str) -> Result<Vec<Failure>, InboxError> {
    serde_json::from_str(text).map_err(InboxError::corrupt)
}

fn spelled(failures: &[Failure]) -> String {
    serde_json::to_string(failures).unwrap_or_else(|_| unreachable!("plain data has a JSON form"))
}

/// What is known of a message before it is handled.
pub(super) async fn known(tx: &mut DynTx, consumer: &Name, message: &Incoming) -> Result<Known, InboxError> {
    let sql = "SELECT
        EXISTS (SELECT 1 FROM quorate_inbox_message WHERE consumer = $1 AND identity = $2 AND place IS NOT NULL),
        EXISTS (SELECT 1 FROM quorate_inbox_message WHERE consumer = $1 AND order_key = $3 AND place IS NOT NULL)";
    let rows =
        tx.room_query(sql, &[consumer.into(), message.identity.clone().into(), message.key.clone().into()]).await?;
    let is = |at: usize| rows.first().is_some_and(|row| row.at(at).as_i64() == Some(1));
    Ok(if is(0) {
        Known::IsParked
    } else if is(1) {
        Known::KeyIsParked
    } else {
        Known::Free
    })
}

/// Writes down that a message is about to be handled once more, and tells for the how manieth time, counted from 1.
pub(super) async fn begin(tx: &mut DynTx, consumer: &Name, message: &Incoming) -> Result<u32, InboxError> {
    // A message that came before was begun then.
    let sql = "INSERT INTO quorate_inbox_message (consumer, identity, order_key, attempts, failures)
        VALUES ($1, $2, $3, 2, '[]') ON CONFLICT (consumer, identity) DO UPDATE SET attempts = quorate_inbox_message.attempts + 1";
    let identity = Value::from(message.identity.clone());
    tx.room_execute(sql, &[consumer.into(), identity.clone(), message.key.clone().into()]).await?;
    let sql = "SELECT attempts FROM quorate_inbox_message WHERE consumer = $1 AND identity = $2";
    let rows = tx.room_query(sql, &[consumer.into(), identity]).await?;
    let attempts = rows.first().and_then(|row| row.at(0).as_i64());
    attempts.and_then(|n| u32::try_from(n).ok()).ok_or_else(|| InboxError::corrupt("attempts are no number"))
}

/// The attempt that was begun last was none.
pub(super) async fn take_back(tx: &mut DynTx, consumer: &Name, identity: &str) -> Result<(), SqlError> {
    let sql = "UPDATE quorate_inbox_message SET attempts = attempts - 1
        WHERE consumer = $1 AND identity = $2 AND place IS NULL AND attempts > 1";
    tx.room_execute(sql, &[consumer.into(), identity.into()]).await.map(drop)
}

/// A message is done, or given up: nothing is kept of it here.
pub(super) async fn clear(tx: &mut DynTx, consumer: &Name, identity: &str) -> Result<bool, SqlError> {
    let sql = "DELETE FROM quorate_inbox_message WHERE consumer = $1 AND identity = $2";
    Ok(tx.room_execute(sql, &[consumer.into(), identity.into()]).await? > 0)
}

/// A message's failures so far and this one, the newest of them.
async fn failed(
    tx: &mut DynTx,
    consumer: &Name,
    message: &Incoming,
    failure: Failure,
) -> Result<(u32, String), InboxError> {
    let sql = "SELECT attempts, failures FROM quorate_inbox_message WHERE consumer = $1 AND identity = $2";
    let rows = tx.room_query(sql, &[consumer.into(), message.identity.clone().into()]).await?;
    let (attempts, mut all) = match rows.first() {
        Some(row) => (
            row.at(0).as_i64().and_then(|n| u32::try_from(n).ok()).unwrap_or(1),
            failures(row.at(1).as_str().unwrap_or("[]"))?,
        ),
        None => (1, Vec::new()),
    };
    all.push(Failure { attempt: attempts, ..failure });
    let old = all.len().saturating_sub(Failure::MAX_KEPT);
    all.drain(..old);
    Ok((attempts, spelled(&all)))
}

/// Keeps that a message failed, and comes again. Returns how often it was handled.
pub(super) async fn fail(
    tx: &mut DynTx,
    consumer: &Name,
    message: &Incoming,
    failure: Failure,
) -> Result<u32, InboxError> {
    let (attempts, failures) = failed(tx, consumer, message, failure).await?;
    // What is said of it may quote it, so that an erasure has to find it.
    let sql = "INSERT INTO quorate_inbox_message (consumer, identity, order_key, attempts, failures, data_subject)
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (consumer, identity) DO UPDATE SET failures = $5, data_subject = $6";
    let row = [
        consumer.into(),
        message.identity.clone().into(),
        message.key.clone().into(),
        attempts.into(),
        failures.into(),
        message.event.data_subject.clone().into(),
    ];
    tx.room_execute(sql, &row).await?;
    Ok(attempts)
}

/// Parks a message behind all that are parked. One that is parked stays where it is.
pub(super) async fn park(
    tx: &mut DynTx,
    consumer: &Name,
    message: &Incoming,
    (at, cause, reason): (Wall, Cause, &str),
    max: usize,
) -> Result<(), InboxError> {
    let counted = count(tx, consumer).await?;
    if counted >= max {
        return Err(InboxError::ParkedFull { parked: counted, max });
    }
    let (attempts, failures) = failed(tx, consumer, message, Failure::new(0, at, cause, reason)).await?;
    let sql = "SELECT max(place) FROM quorate_inbox_message WHERE consumer = $1 AND place IS NOT NULL";
    let rows = tx.room_query(sql, &[consumer.into()]).await?;
    let place = rows.first().and_then(|row| row.at(0).as_i64()).unwrap_or(0) + 1;
    let sql = "INSERT INTO quorate_inbox_message
            (consumer, identity, order_key, place, attempts, failures, data_subject, event, data)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        ON CONFLICT (consumer, identity) DO UPDATE SET place = $4, failures = $6, data_subject = $7, event = $8, data = $9";
    let row = [
        consumer.into(),
        message.identity.clone().into(),
        message.key.clone().into(),
        place.into(),
        attempts.into(),
        failures.into(),
        message.event.data_subject.clone().into(),
        said(message).into(),
        message.event.data.clone().into(),
    ];
    tx.room_execute(sql, &row).await?;
    Ok(())
}

async fn count(tx: &mut DynTx, consumer: &Name) -> Result<usize, InboxError> {
    let sql = "SELECT count(*) FROM quorate_inbox_message WHERE consumer = $1 AND place IS NOT NULL";
    let rows = tx.room_query(sql, &[consumer.into()]).await?;
    Ok(counted(&rows))
}

fn counted(rows: &[Row]) -> usize {
    rows.first().and_then(|row| row.at(0).as_i64()).and_then(|n| usize::try_from(n).ok()).unwrap_or(0)
}

/// How many messages are parked.
pub(super) async fn parked_count(store: &Store, consumer: &Name) -> Result<usize, InboxError> {
    let sql = "SELECT count(*) FROM quorate_inbox_message WHERE consumer = $1 AND place IS NOT NULL";
    Ok(counted(&store.room_query(sql, vec![consumer.into()]).await?))
}

/// The bytes of data at which a page of parked messages ends.
const PAGE_BYTES: i64 = 4 << 20;

/// Parked messages in order of their places: `limit` of those behind `after`, fewer where they are large, and at least one.
pub(super) async fn page(store: &Store, consumer: &Name, after: u64, limit: u32) -> Result<Vec<Parked>, InboxError> {
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let sizes = "SELECT place, length(data) FROM quorate_inbox_message WHERE consumer = $1 AND place > $2
        ORDER BY place LIMIT $3";
    let (mut up_to, mut bytes) = (after, 0);
    for row in store.room_query(sizes, vec![consumer.into(), after.into(), limit.into()]).await? {
        bytes += row.at(1).as_i64().unwrap_or(0);
        if up_to > after && bytes > PAGE_BYTES {
            break;
        }
        up_to = row.at(0).as_i64().unwrap_or(up_to);
    }
    let sql = format!(
        "SELECT {COLUMNS} FROM quorate_inbox_message WHERE consumer = $1 AND place > $2 AND place <= $3 ORDER BY place"
    );
    store.room_query(&sql, vec![consumer.into(), after.into(), up_to.into()]).await?.iter().map(parked).collect()
}

/// Keys of parked messages: `limit` of those behind `after`, in order.
pub(super) async fn keys(store: &Store, consumer: &Name, after: &str, limit: u32) -> Result<Vec<Arc<str>>, InboxError> {
    let sql = "SELECT DISTINCT order_key FROM quorate_inbox_message
        WHERE consumer = $1 AND order_key > $2 AND place IS NOT NULL ORDER BY order_key LIMIT $3";
    let rows = store.room_query(sql, vec![consumer.into(), after.into(), limit.into()]).await?;
    Ok(rows.iter().filter_map(|row| row.at(0).as_str().map(Into::into)).collect())
}

/// Places, identities and keys of parked messages, as [`page`] without what they say.
pub(super) async fn named(
    store: &Store,
    consumer: &Name,
    after: i64,
    limit: u32,
) -> Result<Vec<(i64, Arc<str>, Arc<str>)>, InboxError> {
    let sql = "SELECT place, identity, order_key FROM quorate_inbox_message WHERE consumer = $1 AND place > $2
        ORDER BY place LIMIT $3";
    let rows = store.room_query(sql, vec![consumer.into(), after.into(), limit.into()]).await?;
    let named = |row: &Row| Some((row.at(0).as_i64()?, row.at(1).as_str()?.into(), row.at(2).as_str()?.into()));
    rows.iter().map(|row| named(row).ok_or_else(|| InboxError::corrupt("a row is there and cannot be read"))).collect()
}

/// The first parked message of a key.
pub(super) async fn first_of(tx: &mut DynTx, consumer: &Name, key: &str) -> Result<Option<Parked>, InboxError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM quorate_inbox_message
        WHERE consumer = $1 AND order_key = $2 AND place IS NOT NULL ORDER BY place LIMIT 1"
    );
    tx.room_query(&sql, &[consumer.into(), key.into()]).await?.first().map(parked).transpose()
}

/// A parked message of that identity.
pub(super) async fn find(store: &Store, consumer: &Name, identity: &str) -> Result<Option<Parked>, InboxError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM quorate_inbox_message WHERE consumer = $1 AND identity = $2 AND place IS NOT NULL"
    );
    store.room_query(&sql, vec![consumer.into(), identity.into()]).await?.first().map(parked).transpose()
}

/// Forgets what parked messages about `subject` say, and what was said about them.
pub(super) async fn forget(store: Store, subject: Arc<str>) -> Result<(), StoreError> {
    let forgotten = store.transact(move |tx| {
        let subject = Value::from(subject.clone());
        Box::pin(async move {
            let sql = "UPDATE quorate_inbox_message SET data = NULL, failures = '[]' WHERE data_subject = $1";
            tx.room_execute(sql, &[subject]).await.map_err(InboxError::from)
        })
    });
    match forgotten.await.map_err(InboxError::of_transaction) {
        Ok(_) => Ok(()),
        Err(InboxError::Store(cause)) => Err(cause),
        Err(other) => Err(StoreError::Corrupt { place: "quorate_inbox_message".to_owned(), what: other.to_string() }),
    }
}

/// Takes a message off the list of parked ones; whether it was on it.
pub(super) async fn unpark(tx: &mut DynTx, consumer: &Name, identity: &str) -> Result<bool, SqlError> {
    let sql = "DELETE FROM quorate_inbox_message WHERE consumer = $1 AND identity = $2 AND place IS NOT NULL";
    Ok(tx.room_execute(sql, &[consumer.into(), identity.into()]).await? > 0)
}
