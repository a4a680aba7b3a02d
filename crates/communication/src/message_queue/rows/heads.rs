//! The queues' own rows.

use std::collections::BTreeSet;

use quorate_data::store::{DynTx, Store, Value};
use quorate_foundations::name::Name;

use super::{integer, number, text, turn, unsigned, within};
use crate::message_queue::{Config, QueueError};

/// A queue's row.
#[derive(Clone, Debug)]
pub(in crate::message_queue) struct Head {
    pub(in crate::message_queue) id: u64,
    pub(in crate::message_queue) name: Name,
    pub(in crate::message_queue) config: Config,
    /// Its messages are being deleted, and it is gone for everybody.
    pub(in crate::message_queue) is_deleted: bool,
    /// Why its row says nothing of how it is.
    pub(in crate::message_queue) damaged: Option<QueueError>,
}

/// Every queue.
#[derive(Debug, Default)]
pub(in crate::message_queue) struct Heads {
    pub(in crate::message_queue) heads: Vec<Head>,
    /// Numbers of those whose names cannot be read any more.
    pub(in crate::message_queue) nameless: BTreeSet<u64>,
}

/// Queues whose rows are read at once.
const HEADS: usize = 1_000;

/// Every queue. A row that is damaged is in nobody else's way.
pub(in crate::message_queue) async fn heads(store: &Store) -> Result<Heads, QueueError> {
    let sql = "SELECT id, name, config, deleted FROM quorate_queue WHERE id > $1 ORDER BY id LIMIT $2";
    let page = HEADS.min(store.limits().query_rows);
    let (mut all, mut after) = (Heads::default(), Value::from(i64::MIN));
    loop {
        let limit = i64::try_from(page).unwrap_or(i64::MAX);
        let rows = store.room_query(sql, vec![after, limit.into()]).await?;
        for row in &rows {
            let id = unsigned(row.at(0), "quorate_queue")?;
            match head(id, [row.at(1), row.at(2), row.at(3)]) {
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
pub(in crate::message_queue) async fn declare(tx: &mut DynTx, head: &Head) -> Result<(), QueueError> {
    let sql = "INSERT INTO quorate_queue (id, name, config, deleted) VALUES ($1, $2, $3, 0)";
    tx.room_execute(sql, &[number(head.id), (&head.name).into(), config_of(head)?]).await?;
    Ok(())
}

/// Writes another configuration of a queue that is not deleted.
pub(in crate::message_queue) async fn configure(tx: &mut DynTx, head: &Head) -> Result<(), QueueError> {
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
pub(in crate::message_queue) async fn mark_deleted(tx: &mut DynTx, id: u64) -> Result<(), QueueError> {
    tx.room_execute("UPDATE quorate_queue SET deleted = 1 WHERE id = $1", &[number(id)]).await?;
    Ok(())
}

/// Deletes at most `limit` rows of each kind of a queue that is gone, and at last its own row. Whether that was all.
///
/// Nobody sends to the queue any more: what is not there now will never be.
pub(in crate::message_queue) async fn delete_some(
    tx: &mut DynTx,
    id: u64,
    limit: u32,
    is_shared: bool,
) -> Result<bool, QueueError> {
    // Another process may have cleared it away before, and declared another one under its number.
    let is_another = "SELECT 1 FROM quorate_queue WHERE id = $1 AND deleted = 0";
    if !tx.room_query(is_another, &[number(id)]).await?.is_empty() {
        return Ok(true);
    }
    let numbers = within(id);
    let range = [number(*numbers.start()), number(*numbers.end()), limit.into()];
    let mut most = 0;
    for table in ["message", "state", "answer"] {
        let sql = format!(
            "DELETE FROM quorate_queue_{table} WHERE seq IN
             (SELECT seq FROM quorate_queue_{table} WHERE seq BETWEEN $1 AND $2 LIMIT $3)"
        );
        most = most.max(tx.room_execute(&sql, &range).await?);
    }
    let sql = "DELETE FROM quorate_queue_known WHERE (queue, id, source) IN
        (SELECT queue, id, source FROM quorate_queue_known WHERE queue = $1 LIMIT $2)";
    most = most.max(tx.room_execute(sql, &[number(id), limit.into()]).await?);
    let sql = "DELETE FROM quorate_queue_callback WHERE seq IN
        (SELECT seq FROM quorate_queue_callback WHERE queue = $1 AND told IS NULL LIMIT $2)";
    most = most.max(tx.room_execute(sql, &[number(id), limit.into()]).await?);
    let sql = "DELETE FROM quorate_queue_schedule WHERE (queue, name) IN
        (SELECT queue, name FROM quorate_queue_schedule WHERE queue = $1 LIMIT $2)";
    most = most.max(tx.room_execute(sql, &[number(id), limit.into()]).await?);
    let is_all = most < u64::from(limit);
    if is_all {
        if is_shared {
            turn::forget(tx, id).await?;
        }
        tx.room_execute("DELETE FROM quorate_queue WHERE id = $1", &[number(id)]).await?;
    }
    Ok(is_all)
}

/// The queue of this number, by its name, its configuration and whether it is deleted.
///
/// # Errors
/// Its name cannot be read.
pub(super) fn head(id: u64, [name, config, deleted]: [&Value; 3]) -> Result<Head, QueueError> {
    let corrupt = |what: String| QueueError::corrupt("quorate_queue", what);
    let name = Name::new(text(name, "name")?).map_err(|wrong| corrupt(wrong.to_string()))?;
    let config = text(config, "config")
        .and_then(|text| serde_json::from_str(text).map_err(|wrong| corrupt(format!("`config` of `{name}`: {wrong}"))));
    let deleted = integer(deleted, "deleted").map(|deleted| deleted != 0);
    let is_deleted = *deleted.as_ref().unwrap_or(&false);
    // What is to be deleted is, whatever its configuration says.
    let damaged = deleted.err().or_else(|| config.as_ref().err().filter(|_| !is_deleted).cloned());
    Ok(Head { id, name, config: config.unwrap_or_default(), is_deleted, damaged })
}
