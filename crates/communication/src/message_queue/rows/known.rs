//! The ids that a queue remembers.

use quorate_data::store::{DynTx, Row, Store};

use super::{integer, number, text, unsigned};
use crate::message_queue::{QueueError, machine::Seq};

/// An id that the queue remembers.
#[derive(Clone, Debug)]
pub(in crate::message_queue) struct Known {
    pub(in crate::message_queue) id: String,
    pub(in crate::message_queue) source: String,
    pub(in crate::message_queue) seq: Seq,
    pub(in crate::message_queue) sent_ns: i64,
}

/// At most `limit` ids that the queue remembers, in order, behind the last one that was looked at.
pub(in crate::message_queue) async fn known(
    store: &Store,
    queue: u64,
    after: Option<&Known>,
    limit: u32,
) -> Result<Vec<Known>, QueueError> {
    let sql = "SELECT id, source, seq, sent_ns FROM quorate_queue_known
        WHERE queue = $1 AND (id, source) > ($2, $3) ORDER BY id, source LIMIT $4";
    let (id, source) = after.map_or(("", ""), |known| (&known.id, &known.source));
    let rows = store.room_query(sql, vec![number(queue), id.into(), source.into(), limit.into()]).await?;
    let known = |row: &Row| {
        Ok(Known {
            id: text(row.at(0), "id")?.to_owned(),
            source: text(row.at(1), "source")?.to_owned(),
            seq: unsigned(row.at(2), "seq")?,
            sent_ns: integer(row.at(3), "sent_ns")?,
        })
    };
    rows.iter().map(known).collect()
}

/// Forgets these ids.
pub(super) async fn forget_outdated(tx: &mut DynTx, queue: u64, outdated: &[Known]) -> Result<(), QueueError> {
    let sql = "DELETE FROM quorate_queue_known WHERE queue = $1 AND id = $2 AND source = $3 AND seq = $4";
    for Known { id, source, seq, .. } in outdated {
        let key = [number(queue), id.as_str().into(), source.as_str().into(), number(*seq)];
        tx.room_execute(sql, &key).await?;
    }
    Ok(())
}
