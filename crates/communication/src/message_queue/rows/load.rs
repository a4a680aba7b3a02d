//! What the tables say, read once when the store is opened.

use quorate_data::store::{Row, Store};
use quorate_foundations::time::Wall;
use quorate_runtime::Env;

use super::{LEASED, PARKED, RESTING, integer, millis, number, short, unsigned};
use crate::message_queue::{
    QueueError,
    machine::{Entry, Phase, Seq},
};

/// A message as its rows have it.
#[derive(Clone, Debug)]
pub(in crate::message_queue) struct Stored {
    pub(in crate::message_queue) queue: u64,
    pub(in crate::message_queue) seq: Seq,
    pub(in crate::message_queue) entry: Entry,
}

const PAGE: usize = 5_000;

/// Hands every message, of all queues or of one, to `found`.
///
/// A lease runs its full time again from now on. What rests has as long to rest as the wall clock says, but never longer than it
/// was told to: a clock that was set wrong cannot hold it for ever.
pub(in crate::message_queue) async fn load(
    store: &Store,
    queue: Option<u64>,
    mut found: impl FnMut(Stored),
) -> Result<(), QueueError> {
    let sql = "SELECT m.seq, m.queue, m.group_key, m.priority, m.sent_ns, m.delay_ms, m.ttl_ms, length(m.data),
            s.deliveries, s.attempts, s.phase, s.due_ns, s.span_ms
        FROM quorate_queue_message m LEFT JOIN quorate_queue_state s ON s.seq = m.seq
        WHERE m.seq > $1 ORDER BY m.seq LIMIT $2";
    let page = PAGE.min(store.limits().query_rows);
    let mut after = 0;
    loop {
        let limit = i64::try_from(page).unwrap_or(i64::MAX);
        let rows = store.room_query(sql, vec![number(after), limit.into()]).await?;
        for row in &rows {
            let stored = stored(store.env(), row)?;
            after = stored.seq;
            if queue.is_none_or(|queue| queue == stored.queue) {
                found(stored);
            }
        }
        if rows.len() < page {
            return Ok(());
        }
    }
}

fn stored(env: &Env, row: &Row) -> Result<Stored, QueueError> {
    let (now, boot) = (env.wall(), env.boot());
    let sent_ns = integer(row.at(4), "sent_ns")?;
    let sent = Wall::from_unix_nanos(sent_ns);
    let left = |due: Wall, span: std::time::Duration| due.saturating_since(now).min(span);
    let expires = millis(row.at(6)).map(|ttl| boot + left(sent + ttl, ttl));
    let delay = millis(row.at(5)).unwrap_or_default();
    let state = row.at(10).as_i64();
    let span = millis(row.at(12)).unwrap_or_default();
    let phase = match state {
        None if delay.is_zero() => Phase::Waiting { lapsed: false },
        None => Phase::Resting { until: boot + left(sent + delay, delay) },
        Some(RESTING) => {
            let due = Wall::from_unix_nanos(integer(row.at(11), "due_ns")?);
            Phase::Resting { until: boot + left(due, span) }
        }
        Some(LEASED) => Phase::Leased { until: boot + span },
        Some(PARKED) => Phase::Parked,
        Some(_) => Phase::Waiting { lapsed: false },
    };
    let count = |n: usize, what| if state.is_some() { short(row.at(n), what) } else { Ok(0) };
    let bytes = row.at(7).as_i64().and_then(|n| u32::try_from(n).ok()).unwrap_or_default();
    Ok(Stored {
        seq: unsigned(row.at(0), "seq")?,
        queue: unsigned(row.at(1), "queue")?,
        entry: Entry {
            group: row.at(2).as_str().map(Into::into),
            priority: u8::try_from(integer(row.at(3), "priority")?).unwrap_or_default(),
            deliveries: count(8, "deliveries")?,
            attempts: count(9, "attempts")?,
            phase,
            expires,
            bytes: bytes.saturating_add(256),
            sent_ns,
        },
    })
}
