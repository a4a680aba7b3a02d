//! What the tables say of a queue, read when somebody first asks for it.

use quorate_data::store::{Row, Store};
use quorate_foundations::time::Wall;
use quorate_runtime::Env;

use super::{LEASED, Opened, PARKED, RESTING, integer, millis, number, short, unsigned, within};
use crate::message_queue::{
    QueueError,
    machine::{Entry, Phase, Seq},
};

/// A message as its rows have it.
#[derive(Clone, Debug)]
pub(in crate::message_queue) struct Stored {
    pub(in crate::message_queue) seq: Seq,
    pub(in crate::message_queue) entry: Entry,
}

const PAGE: usize = 5_000;

/// Hands every message of a queue to `found`, in order.
///
/// A lease runs its full time again. What rests has as long to rest as the wall clock says, but never longer than it was told to:
/// a clock that was set wrong cannot hold it for ever. Both count from now on, but where this is the first reading since the
/// queues were `opened`, and the message was there by then: from then on.
pub(in crate::message_queue) async fn load(
    store: &Store,
    queue: u64,
    opened: Option<Opened>,
    mut found: impl FnMut(Stored),
) -> Result<(), QueueError> {
    let sql = "SELECT m.seq, m.group_key, m.priority, m.sent_ns, m.delay_ms, m.ttl_ms, length(m.data),
            s.deliveries, s.attempts, s.phase, s.due_ns, s.span_ms
        FROM quorate_queue_message m LEFT JOIN quorate_queue_state s ON s.seq = m.seq
        WHERE m.seq > $1 AND m.seq <= $2 ORDER BY m.seq LIMIT $3";
    let page = PAGE.min(store.limits().query_rows);
    let numbers = within(queue);
    let (mut after, last) = (*numbers.start(), number(*numbers.end()));
    loop {
        let limit = i64::try_from(page).unwrap_or(i64::MAX);
        let rows = store.room_query(sql, vec![number(after), last.clone(), limit.into()]).await?;
        for row in &rows {
            let stored = stored(store.env(), row, opened)?;
            after = stored.seq;
            found(stored);
        }
        if rows.len() < page {
            return Ok(());
        }
    }
}

fn stored(env: &Env, row: &Row, opened: Option<Opened>) -> Result<Stored, QueueError> {
    let (now, boot) = (env.wall(), env.boot());
    let seq = unsigned(row.at(0), "seq")?;
    let since = opened.filter(|opened| opened.is_behind(seq)).map_or(boot, |opened| opened.at);
    let sent_ns = integer(row.at(3), "sent_ns")?;
    let sent = Wall::from_unix_nanos(sent_ns);
    let until = |due: Wall, span: std::time::Duration| (boot + due.saturating_since(now)).min(since + span);
    let expires = millis(row.at(5)).map(|ttl| until(sent + ttl, ttl));
    let delay = millis(row.at(4)).unwrap_or_default();
    let state = row.at(9).as_i64();
    let span = millis(row.at(11)).unwrap_or_default();
    let phase = match state {
        None if delay.is_zero() => Phase::Waiting { lapsed: false },
        None => Phase::Resting { until: until(sent + delay, delay) },
        Some(RESTING) => {
            let due = Wall::from_unix_nanos(integer(row.at(10), "due_ns")?);
            Phase::Resting { until: until(due, span) }
        }
        Some(LEASED) => Phase::Leased { until: since + span },
        Some(PARKED) => Phase::Parked,
        Some(_) => Phase::Waiting { lapsed: false },
    };
    let count = |n: usize, what| if state.is_some() { short(row.at(n), what) } else { Ok(0) };
    let bytes = row.at(6).as_i64().and_then(|n| u32::try_from(n).ok()).unwrap_or_default();
    Ok(Stored {
        seq,
        entry: Entry {
            group: row.at(1).as_str().map(Into::into),
            priority: u8::try_from(integer(row.at(2), "priority")?).unwrap_or_default(),
            deliveries: count(7, "deliveries")?,
            attempts: count(8, "attempts")?,
            phase,
            expires,
            bytes: bytes.saturating_add(256),
            sent_ns,
        },
    })
}
