//! Callbacks: rows beside messages, from when a message is sent until somebody has been told what became of it.
//!
//! A row is inserted where its message is, is given the id of the message that tells of the end where that is sent, and is deleted where that is settled: each in one transaction.

use quorate_data::store::{DynTx, Row, SqlError, Store, Value};

use super::{CHUNK, filled, number, places, text, unsigned};
use crate::message_queue::{QueueError, machine::Seq};

const COLUMNS: &str = "seq, kind, id FROM quorate_queue_callback";

/// A message of whose end somebody is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) seq: Seq,
    pub(crate) kind: String,
    pub(crate) id: String,
}

/// Where somebody is told, and what proves that it was this node who told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) url: String,
    pub(crate) secret: String,
}

/// Has somebody be told of the end of a message, in the transaction that sends it.
pub(crate) async fn insert(tx: &mut DynTx, queue: u64, due: &Due, place: &Place) -> Result<(), SqlError> {
    let sql = "INSERT INTO quorate_queue_callback (seq, queue, kind, id, url, secret) VALUES ($1, $2, $3, $4, $5, $6)";
    let (Due { seq, kind, id }, Place { url, secret }) = (due, place);
    let params = [
        number(*seq),
        number(queue),
        kind.as_str().into(),
        id.as_str().into(),
        url.as_str().into(),
        secret.as_str().into(),
    ];
    tx.room_execute(sql, &params).await.map(drop)
}

/// The numbers of queues of whose messages somebody is still to be told.
pub(crate) async fn queues(store: &Store) -> Result<Vec<u64>, QueueError> {
    let sql = "SELECT DISTINCT queue FROM quorate_queue_callback WHERE told IS NULL";
    store.room_query(sql, Vec::new()).await?.iter().map(|row| unsigned(row.at(0), "queue")).collect()
}

/// At most `limit` messages of a queue behind `after` of whose end somebody is still to be told.
pub(crate) async fn due(store: &Store, queue: u64, after: Seq, limit: u32) -> Result<Vec<Due>, QueueError> {
    let sql = format!("SELECT {COLUMNS} WHERE queue = $1 AND seq > $2 AND told IS NULL ORDER BY seq LIMIT $3");
    let rows = store.room_query(&sql, vec![number(queue), number(after), limit.into()]).await?;
    rows.iter().map(read).collect()
}

/// Those of these messages of whose end somebody is still to be told.
pub(crate) async fn among(store: &Store, seqs: &[Seq]) -> Result<Vec<Due>, QueueError> {
    let (sql, mut found) =
        (format!("SELECT {COLUMNS} WHERE seq IN ({}) AND told IS NULL ORDER BY seq", places(1)), Vec::new());
    for chunk in seqs.chunks(CHUNK) {
        let rows = store.room_query(&sql, filled(chunk)).await?;
        found.extend(rows.iter().map(read).collect::<Result<Vec<_>, _>>()?);
    }
    Ok(found)
}

/// Says that the message `by` tells of the end of `seq`; whether nobody had said so before.
pub(crate) async fn tell(tx: &mut DynTx, seq: Seq, by: &str) -> Result<bool, SqlError> {
    let sql = "UPDATE quorate_queue_callback SET told = $2 WHERE seq = $1 AND told IS NULL";
    tx.room_execute(sql, &[number(seq), by.into()]).await.map(|rows| rows > 0)
}

/// Where the message `by` is to be delivered.
pub(crate) async fn place(store: &Store, by: &str) -> Result<Option<Place>, QueueError> {
    let sql = "SELECT url, secret FROM quorate_queue_callback WHERE told = $1";
    let rows = store.room_query(sql, vec![by.into()]).await?;
    let read = |row: &Row| {
        let (url, secret) = (text(row.at(0), "url")?.to_owned(), text(row.at(1), "secret")?.to_owned());
        Ok(Place { url, secret })
    };
    rows.first().map(read).transpose()
}

/// Whether some were told of, and may not have been delivered.
pub(crate) async fn are_told(store: &Store) -> Result<bool, QueueError> {
    let sql = "SELECT 1 FROM quorate_queue_callback WHERE told IS NOT NULL LIMIT 1";
    Ok(!store.room_query(sql, Vec::new()).await?.is_empty())
}

/// The message `by` was delivered.
pub(crate) async fn delivered(tx: &mut DynTx, by: &str) -> Result<(), SqlError> {
    tx.room_execute("DELETE FROM quorate_queue_callback WHERE told = $1", &[by.into()]).await.map(drop)
}

/// Forgets those whose messages were discarded from the queue of this number, or went with it.
pub(crate) async fn sweep(tx: &mut DynTx, queue: u64, source: &str) -> Result<u64, SqlError> {
    let sql = "DELETE FROM quorate_queue_callback WHERE told IS NOT NULL AND NOT EXISTS
        (SELECT 1 FROM quorate_queue_known k JOIN quorate_queue_message m ON m.seq = k.seq
         WHERE k.queue = $1 AND k.id = quorate_queue_callback.told AND k.source = $2)";
    tx.room_execute(sql, &[number(queue), Value::from(source)]).await
}

fn read(row: &Row) -> Result<Due, QueueError> {
    let (kind, id) = (text(row.at(1), "kind")?.to_owned(), text(row.at(2), "id")?.to_owned());
    Ok(Due { seq: unsigned(row.at(0), "seq")?, kind, id })
}
