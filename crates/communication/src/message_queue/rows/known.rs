//! The ids that a queue remembers.

use quorate_data::store::{DynTx, Row, Store, Value};

use super::{answers, number};
use crate::message_queue::{QueueError, machine::Seq};

/// Ids that one statement forgets.
const AT_ONCE: usize = 8;

/// An id that the queue remembers.
#[derive(Clone, Debug)]
pub(in crate::message_queue) struct Known {
    id: Value,
    source: Value,
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
    let (id, source) = after.map_or(("".into(), "".into()), |known| (known.id.clone(), known.source.clone()));
    let rows = store.room_query(sql, vec![number(queue), id, source, limit.into()]).await?;
    // One that is damaged does not say whether its message is still here: it is remembered for ever.
    let known = |row: &Row| {
        let (seq, sent_ns) = row.at(2).as_i64().zip(row.at(3).as_i64()).unwrap_or((0, i64::MAX));
        Known { id: row.at(0).clone(), source: row.at(1).clone(), seq: seq.cast_unsigned(), sent_ns }
    };
    Ok(rows.iter().map(known).collect())
}

/// Forgets these ids, and what came of their messages, but for those whose end somebody is still to be told.
pub(super) async fn forget_outdated(tx: &mut DynTx, queue: u64, outdated: &[Known]) -> Result<(), QueueError> {
    for chunk in outdated.chunks(AT_ONCE) {
        let one = |at: usize| {
            let first = 3 * at + 2;
            format!("(id = ${first} AND source = ${} AND seq = ${})", first + 1, first + 2)
        };
        let these = (0..chunk.len()).map(one).collect::<Vec<_>>().join(" OR ");
        let mut params = vec![number(queue)];
        for Known { id, source, seq, .. } in chunk {
            params.extend([id.clone(), source.clone(), number(*seq)]);
        }
        // Another process may have sent the message just now, by a clock that is behind; or answered it since it was looked: that begins its time anew.
        let newest = chunk.iter().map(|known| known.sent_ns).max().unwrap_or(i64::MIN);
        params.push(newest.into());
        let sql = format!(
            "DELETE FROM quorate_queue_known WHERE queue = $1 AND ({these}) AND sent_ns <= ${}
            AND NOT EXISTS (SELECT 1 FROM quorate_queue_message m WHERE m.seq = quorate_queue_known.seq)
            AND NOT EXISTS (SELECT 1 FROM quorate_queue_callback c WHERE c.seq = quorate_queue_known.seq AND c.told IS NULL)",
            params.len()
        );
        let forgotten = tx.room_execute(&sql, &params).await?;
        let mut seqs: Vec<Seq> = chunk.iter().map(|known| known.seq).collect();
        if forgotten < seqs.len() as u64 {
            params.pop();
            let sql = format!("SELECT seq FROM quorate_queue_known WHERE queue = $1 AND ({these})");
            let kept = tx.room_query(&sql, &params).await?;
            let kept: Vec<i64> = kept.iter().filter_map(|row| row.at(0).as_i64()).collect();
            seqs.retain(|seq| !kept.contains(&seq.cast_signed()));
        }
        answers::forget(tx, &seqs).await?;
    }
    Ok(())
}
