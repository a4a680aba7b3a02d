//! Answers: rows beside those of remembered ids, under the numbers of the messages that they answer.

use quorate_data::store::{DynTx, Row, SqlError, Store, Value};
use quorate_foundations::time::Wall;

use super::{
    CHUNK, LEASED, PARKED, RESTING, WAITING, count_of, failures_in, filled, integer, number, places, short, unsigned,
};
use crate::message_queue::{
    QueueError,
    answer::{Answer, Kept, Progress},
    machine::Seq,
};

/// Has the id of a message be remembered from `now` on for as long as if it were sent now: before the transaction settles it.
pub(in crate::message_queue) async fn remember(
    tx: &mut DynTx,
    (queue, seq): (u64, Seq),
    now: Wall,
) -> Result<(), SqlError> {
    let sql = "UPDATE quorate_queue_known SET sent_ns = $3 WHERE queue = $1 AND seq = $2 AND sent_ns < $3
        AND id = (SELECT m.id FROM quorate_queue_message m WHERE m.seq = $2)
        AND source = (SELECT m.source FROM quorate_queue_message m WHERE m.seq = $2)";
    tx.room_execute(sql, &[number(queue), number(seq), now.unix_nanos().into()]).await.map(drop)
}

/// Keeps what came of a message, in the transaction that settles it.
pub(in crate::message_queue) async fn keep(tx: &mut DynTx, seq: Seq, answer: &Answer) -> Result<(), SqlError> {
    let sql = "INSERT INTO quorate_queue_answer (seq, label, content_type, data) VALUES ($1, $2, $3, $4)";
    let Answer { label, content_type, data } = answer.clone();
    tx.room_execute(sql, &[number(seq), label.into(), content_type.into(), data.into()]).await.map(drop)
}

/// Whether the message is still there.
pub(in crate::message_queue) async fn is_there(store: &Store, seq: Seq) -> Result<bool, QueueError> {
    let sql = "SELECT 1 FROM quorate_queue_message WHERE seq = $1";
    Ok(!store.room_query(sql, vec![number(seq)]).await?.is_empty())
}

/// Forgets what came of these messages.
pub(super) async fn forget(tx: &mut DynTx, seqs: &[Seq]) -> Result<(), SqlError> {
    let sql = format!("DELETE FROM quorate_queue_answer WHERE seq IN ({})", places(1));
    for chunk in seqs.chunks(CHUNK) {
        tx.room_execute(&sql, &filled(chunk)).await?;
    }
    Ok(())
}

/// How far the message is that was sent under this source and id, all of it as of one moment. `None` if the queue does not remember it.
pub(in crate::message_queue) async fn progress(
    store: &Store,
    queue: u64,
    source: &str,
    id: &str,
) -> Result<Option<(Seq, Progress)>, QueueError> {
    store.env().reached("queue: it was looked how far a message is");
    let sql = "SELECT k.seq, m.seq, s.phase, s.attempts, s.failures, a.label, a.content_type, a.data
        FROM quorate_queue_known k LEFT JOIN quorate_queue_message m ON m.seq = k.seq
        LEFT JOIN quorate_queue_state s ON s.seq = k.seq LEFT JOIN quorate_queue_answer a ON a.seq = k.seq
        WHERE k.queue = $1 AND k.id = $2 AND k.source = $3";
    let rows = store.room_query(sql, vec![number(queue), id.into(), source.into()]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let seq = unsigned(row.at(0), "seq")?;
    let Some(label) = row.at(5).as_str() else {
        return Ok(Some((seq, unanswered(row, seq)?)));
    };
    let content_type = row.at(6).as_str().map(Into::into);
    let data = row.at(7).as_bytes().cloned().unwrap_or_default();
    Ok(Some((seq, Progress::Answered(Kept { label: label.into(), content_type, data }))))
}

fn unanswered(row: &Row, seq: Seq) -> Result<Progress, QueueError> {
    if *row.at(1) == Value::Null {
        return Ok(Progress::Settled);
    }
    if *row.at(2) == Value::Null {
        return Ok(Progress::Waiting { attempts: 0 });
    }
    let attempts = short(row.at(3), "attempts");
    match integer(row.at(2), "phase") {
        Ok(WAITING | RESTING) => Ok(Progress::Waiting { attempts: attempts? }),
        Ok(LEASED) => Ok(Progress::Running { attempt: attempts? }),
        // What became of it is for people: where that cannot be read, they see so.
        phase => {
            let failures = failures_in(row.at(4), Wall::from_unix_nanos(0));
            let reason = match (phase, failures.last()) {
                (Ok(PARKED), Some(last)) if last.reason.is_empty() => {
                    "the last attempt came to no end: its lease ran out".to_owned()
                }
                (Ok(PARKED), Some(last)) => last.reason.clone(),
                _ => "what became of it cannot be read".to_owned(),
            };
            Ok(Progress::Parked { attempts: attempts.unwrap_or_default(), reason, place: count_of(seq) })
        }
    }
}
