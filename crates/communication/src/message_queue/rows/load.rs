//! What the tables say of a queue, read when somebody first asks for it.

use std::time::Duration;

use quorate_data::store::{Row, Store, Value};
use quorate_foundations::time::{Boot, Wall};
use quorate_runtime::Env;

use super::{LEASED, Opened, PARKED, RESTING, count_of, integer, millis, number, short, unsigned, within};
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

/// How often a message was handed out of which that cannot be read: more often than any was, so that no earlier lease on it holds.
pub(in crate::message_queue) const UNKNOWN_DELIVERIES: u32 = 1 << 30;

const SELECT: &str = "SELECT m.seq, CAST(m.group_key AS TEXT), m.priority, m.sent_ns, m.delay_ms, m.ttl_ms,
        COALESCE(LENGTH(m.data), 0) + COALESCE(LENGTH(m.attributes), 0),
        s.deliveries, s.attempts, s.phase, s.due_ns, s.span_ms, s.seq
    FROM quorate_queue_message m LEFT JOIN quorate_queue_state s ON s.seq = m.seq";

/// Hands messages by their numbers to `found`, in order; those that are gone are left out. A lease runs its full time from now on.
pub(super) async fn some(store: &Store, seqs: &[Seq], mut found: impl FnMut(Stored)) -> Result<(), QueueError> {
    let numbers: Vec<String> = seqs.iter().map(|seq| seq.cast_signed().to_string()).collect();
    let sql = format!("{SELECT} WHERE m.seq IN ({}) ORDER BY m.seq", numbers.join(", "));
    for row in &store.room_query(&sql, vec![]).await? {
        found(stored(store.env(), row, None)?);
    }
    Ok(())
}

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
    let sql = format!("{SELECT} WHERE m.seq > $1 AND m.seq <= $2 ORDER BY m.seq LIMIT $3");
    let page = PAGE.min(store.limits().query_rows);
    let numbers = within(queue);
    let (mut after, last) = (*numbers.start(), number(*numbers.end()));
    loop {
        let limit = i64::try_from(page).unwrap_or(i64::MAX);
        let rows = store.room_query(&sql, vec![number(after), last.clone(), limit.into()]).await?;
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

/// What its rows say of a message. Where they are damaged it is in nobody's way: what only its own row says is made up, for it is
/// set aside when it is read; where it cannot be told whose it is, it is a dead letter.
fn stored(env: &Env, row: &Row, opened: Option<Opened>) -> Result<Stored, QueueError> {
    let (now, boot) = (env.wall(), env.boot());
    let seq = unsigned(row.at(0), "seq")?;
    let since = opened.filter(|opened| opened.is_behind(seq)).map_or(boot, |opened| opened.at);
    let sent_ns = row.at(3).as_i64();
    let sent = sent_ns.map_or(now, Wall::from_unix_nanos);
    let until = |due: Wall, span: Duration| (boot + due.saturating_since(now)).min(since + span);
    let expires = millis(row.at(5)).filter(|_| sent_ns.is_some()).map(|ttl| until(sent + ttl, ttl));
    let delay = millis(row.at(4)).unwrap_or_default();
    let (deliveries, attempts, phase) = if row.at(12) == &Value::Null {
        let rests = Phase::Resting { until: until(sent + delay, delay) };
        (0, 0, if delay.is_zero() { Phase::Waiting { lapsed: false } } else { rests })
    } else {
        state(row, since, until).unwrap_or_else(|cause| {
            let message = count_of(seq);
            tracing::warn!(message, %cause, "whose a message is cannot be read; it is a dead letter until it is replayed");
            (UNKNOWN_DELIVERIES, 0, Phase::Parked)
        })
    };
    let bytes = row.at(6).as_i64().and_then(|n| u32::try_from(n).ok()).unwrap_or_default();
    Ok(Stored {
        seq,
        entry: Entry {
            group: row.at(1).as_str().map(Into::into),
            priority: row.at(2).as_i64().and_then(|n| u8::try_from(n).ok()).unwrap_or_default(),
            deliveries,
            attempts,
            phase,
            expires,
            bytes: bytes.saturating_add(256),
            sent_ns: sent.unix_nanos(),
        },
    })
}

/// What the state's row says: how often it was handed out, ever and since it was sent or replayed, and where it is.
fn state(row: &Row, since: Boot, until: impl Fn(Wall, Duration) -> Boot) -> Result<(u32, u32, Phase), QueueError> {
    let span = millis(row.at(11)).unwrap_or_default();
    let phase = match integer(row.at(9), "phase")? {
        RESTING => Phase::Resting { until: until(Wall::from_unix_nanos(integer(row.at(10), "due_ns")?), span) },
        LEASED => Phase::Leased { until: since + span },
        PARKED => Phase::Parked,
        _ => Phase::Waiting { lapsed: false },
    };
    let (deliveries, attempts) = (short(row.at(7), "deliveries")?, short(row.at(8), "attempts")?);
    if matches!(phase, Phase::Leased { .. }) && (deliveries == 0 || attempts == 0) {
        return Err(QueueError::corrupt("quorate_queue", "a message is leased that was never handed out".to_owned()));
    }
    Ok((deliveries, attempts, phase))
}
