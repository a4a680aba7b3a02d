//! What a round of the queue decided, written in one transaction.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use quorate_data::{
    event::NewEvent,
    store::{DynTx, SqlError, Value},
};
use quorate_foundations::time::Wall;

use super::{
    CHUNK, Known, LEASED, PARKED, RESTING, WAITING, attributes, failures_in, filled, in_millis, insert::holder,
    integer, known::forget_outdated, load::UNKNOWN_DELIVERIES, number, places, short,
};
use crate::message_queue::{
    Failure, QueueError,
    machine::{Claim, Seq},
};

/// What a round decided, but for the messages that are sent.
#[derive(Clone, Debug, Default)]
pub(in crate::message_queue) struct Batch {
    /// Messages that are handed out for the first time, and for how long.
    pub(in crate::message_queue) first: Vec<(Duration, Vec<Seq>)>,
    /// Messages that are gone: acknowledged, outdated, given up.
    pub(in crate::message_queue) gone: Vec<Seq>,
    /// Those of them that were dead letters, where another process may replay one meanwhile.
    pub(in crate::message_queue) discarded: Vec<Seq>,
    /// Everything else.
    pub(in crate::message_queue) writes: Vec<Write>,
    /// Ids that need not be remembered any more.
    pub(in crate::message_queue) outdated: Vec<Known>,
}

/// A change of one message's state.
#[derive(Clone, Debug)]
pub(in crate::message_queue) enum Write {
    /// It is handed out again. A transaction may have settled it meanwhile.
    Again { claim: Claim, attempt: u32, ttl: Duration, failure: Option<Failure> },
    /// It rests until `due_ns` of the wall clock, which is so long from now.
    Rests { claim: Claim, due_ns: i64, rest: Duration, failure: Failure },
    /// It never reached its holder.
    Back { claim: Claim, attempts: u32 },
    /// Its holder has it for so long from now.
    Held { claim: Claim, ttl: Duration },
    /// It is a dead letter.
    Parked { claim: Claim, failure: Failure },
    /// It is one no more, and may say something else now. It was handed out so often, ever.
    Replayed { claim: Claim, failure: Failure, edited: Option<Arc<NewEvent>> },
}

impl Batch {
    pub(in crate::message_queue) fn is_empty(&self) -> bool {
        !self.decides() && self.outdated.is_empty()
    }

    /// Whether it was decided by what memory says of messages.
    pub(in crate::message_queue) fn decides(&self) -> bool {
        !(self.first.is_empty() && self.gone.is_empty() && self.writes.is_empty())
    }

    /// The messages that it ends: nobody is handed them any more, unless somebody lets them be.
    pub(in crate::message_queue) fn ended(&self) -> impl Iterator<Item = Seq> + '_ {
        let parked = |write: &Write| if let Write::Parked { claim, .. } = write { Some(claim.seq) } else { None };
        self.gone.iter().copied().chain(self.writes.iter().filter_map(parked))
    }

    /// The messages that it touches.
    pub(in crate::message_queue) fn seqs(&self) -> impl Iterator<Item = Seq> + '_ {
        let first = self.first.iter().flat_map(|(_, seqs)| seqs);
        first.chain(&self.gone).copied().chain(self.writes.iter().map(Write::seq))
    }
}

impl Write {
    fn seq(&self) -> Seq {
        match self {
            Self::Again { claim, .. }
            | Self::Rests { claim, .. }
            | Self::Back { claim, .. }
            | Self::Held { claim, .. }
            | Self::Parked { claim, .. }
            | Self::Replayed { claim, .. } => claim.seq,
        }
    }
}

/// Gives up dead letters. `false`: some are none any more.
pub(in crate::message_queue) async fn discard(tx: &mut DynTx, seqs: &[Seq]) -> Result<bool, SqlError> {
    let sql = format!("DELETE FROM quorate_queue_state WHERE seq IN ({}) AND phase = {PARKED}", places(1));
    let mut count = 0;
    for chunk in seqs.chunks(CHUNK) {
        count += tx.room_execute(&sql, &filled(chunk)).await?;
    }
    Ok(count == seqs.len() as u64)
}

/// Writes what a round decided. Returns the messages that were to be handed out again and were settled meanwhile.
pub(in crate::message_queue) async fn apply(tx: &mut DynTx, queue: u64, batch: &Batch) -> Result<Vec<Seq>, QueueError> {
    for (ttl, seqs) in &batch.first {
        lease_first(tx, *ttl, seqs).await?;
    }
    delete(tx, &batch.gone).await?;
    let mut settled = Vec::new();
    for write in &batch.writes {
        let changed = change(tx, write).await?;
        if let (0, Write::Again { claim, .. }) = (changed, write) {
            settled.push(claim.seq);
        }
    }
    forget_outdated(tx, queue, &batch.outdated).await?;
    Ok(settled)
}

/// What came of replaying a dead letter that has a unique key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::message_queue) enum Replayed {
    /// It is handed out again, and has its key.
    Yes,
    /// Another message has its key.
    Held,
    /// It is no dead letter.
    Gone,
}

/// Lets a dead letter be handed out again whose unique key others may have by now.
pub(in crate::message_queue) async fn replay(
    tx: &mut DynTx,
    queue: u64,
    seq: Seq,
    failure: &Failure,
    edited: Option<&Arc<NewEvent>>,
) -> Result<Replayed, QueueError> {
    let sql = "SELECT COALESCE(m.unique_key, m.parked_key), s.deliveries, s.phase FROM quorate_queue_message m
        JOIN quorate_queue_state s ON s.seq = m.seq WHERE m.seq = $1";
    let rows = tx.room_query(sql, &[number(seq)]).await?;
    let Some(row) = rows.first() else { return Ok(Replayed::Gone) };
    if let Some(key) = row.at(0).as_str()
        && holder(tx, queue, key).await?.is_some()
    {
        return Ok(Replayed::Held);
    }
    // What cannot be read makes a dead letter, whatever else it says.
    let delivery = match (short(row.at(1), "deliveries"), integer(row.at(2), "phase")) {
        (Ok(deliveries), Ok(PARKED)) => deliveries,
        (_, Ok(WAITING | RESTING | LEASED)) => return Ok(Replayed::Gone),
        _ => UNKNOWN_DELIVERIES,
    };
    let (failure, edited) = (failure.clone(), edited.cloned());
    change(tx, &Write::Replayed { claim: Claim { seq, delivery }, failure, edited }).await?;
    Ok(Replayed::Yes)
}

async fn lease_first(tx: &mut DynTx, ttl: Duration, seqs: &[Seq]) -> Result<(), QueueError> {
    static WHOLE: OnceLock<String> = OnceLock::new();
    const HEAD: &str =
        "INSERT INTO quorate_queue_state (seq, deliveries, attempts, phase, due_ns, span_ms, failures) VALUES ";
    let row = |n: usize| format!("(${n}, 1, 1, {LEASED}, 0, $1, '')");
    let (chunks, rest) = seqs.as_chunks::<CHUNK>();
    for chunk in chunks {
        let sql = WHOLE.get_or_init(|| {
            let rows: Vec<String> = (2..2 + CHUNK).map(row).collect();
            format!("{HEAD}{}", rows.join(", "))
        });
        let mut params = vec![in_millis(ttl)];
        params.extend(chunk.iter().copied().map(number));
        tx.room_execute(sql, &params).await?;
    }
    for seq in rest {
        static ONE: OnceLock<String> = OnceLock::new();
        let sql = ONE.get_or_init(|| format!("{HEAD}{}", row(2)));
        tx.room_execute(sql, &[in_millis(ttl), number(*seq)]).await?;
    }
    Ok(())
}

async fn delete(tx: &mut DynTx, seqs: &[Seq]) -> Result<(), QueueError> {
    static SQL: OnceLock<[String; 2]> = OnceLock::new();
    let sql = SQL.get_or_init(|| {
        ["message", "state"].map(|table| format!("DELETE FROM quorate_queue_{table} WHERE seq IN ({})", places(1)))
    });
    for chunk in seqs.chunks(CHUNK) {
        let params = filled(chunk);
        for sql in sql {
            tx.room_execute(sql, &params).await?;
        }
    }
    Ok(())
}

async fn change(tx: &mut DynTx, write: &Write) -> Result<u64, QueueError> {
    let (sql, params) = match write {
        Write::Again { claim, attempt, ttl, failure } => {
            let failures = with_failure(tx, claim.seq, failure.as_ref()).await?;
            (
                "UPDATE quorate_queue_state SET deliveries = $2, attempts = $3, phase = $4, span_ms = $5, failures = $6
                 WHERE seq = $1 AND deliveries = $2 - 1",
                vec![
                    number(claim.seq),
                    claim.delivery.into(),
                    (*attempt).into(),
                    LEASED.into(),
                    in_millis(*ttl),
                    failures,
                ],
            )
        }
        Write::Rests { claim, due_ns, rest, failure } => {
            let failures = with_failure(tx, claim.seq, Some(failure)).await?;
            let state = vec![RESTING.into(), (*due_ns).into(), in_millis(*rest), failures];
            (
                "UPDATE quorate_queue_state SET phase = $3, due_ns = $4, span_ms = $5, failures = $6
                 WHERE seq = $1 AND deliveries = $2",
                [of(*claim), state].concat(),
            )
        }
        Write::Back { claim, attempts } => (
            "UPDATE quorate_queue_state SET phase = $3, attempts = $4 WHERE seq = $1 AND deliveries = $2",
            [of(*claim), vec![WAITING.into(), (*attempts).into()]].concat(),
        ),
        Write::Held { claim, ttl } => (
            "UPDATE quorate_queue_state SET span_ms = $3 WHERE seq = $1 AND deliveries = $2",
            [of(*claim), vec![in_millis(*ttl)]].concat(),
        ),
        Write::Parked { claim, failure } => {
            // A transaction may have settled it meanwhile: then it has no row, and needs no key.
            let sql = "UPDATE quorate_queue_message SET parked_key = unique_key, unique_key = NULL
                WHERE seq = $1 AND unique_key IS NOT NULL";
            tx.room_execute(sql, &[number(claim.seq)]).await?;
            let failures = with_failure(tx, claim.seq, Some(failure)).await?;
            (
                "UPDATE quorate_queue_state SET phase = $3, failures = $4 WHERE seq = $1 AND deliveries = $2",
                [of(*claim), vec![PARKED.into(), failures]].concat(),
            )
        }
        Write::Replayed { claim, failure, edited } => {
            let seq = &claim.seq;
            if let Some(event) = edited {
                let sql = "UPDATE quorate_queue_message SET kind = $2, content_type = $3, attributes = $4, data = $5
                    WHERE seq = $1";
                let (kind, content_type, data) = (event.kind.clone(), event.content_type.clone(), event.data.clone());
                let params = [number(*seq), kind.into(), content_type.into(), attributes(event).into(), data.into()];
                tx.room_execute(sql, &params).await?;
            }
            let failures = with_failure(tx, *seq, Some(failure)).await?;
            // Whoever replays it wants it done, however late it is.
            let sql = "UPDATE quorate_queue_message SET ttl_ms = NULL,
                unique_key = COALESCE(unique_key, parked_key), parked_key = NULL WHERE seq = $1";
            tx.room_execute(sql, &[number(*seq)]).await?;
            (
                "UPDATE quorate_queue_state SET deliveries = $2, phase = $3, attempts = 0, failures = $4 WHERE seq = $1",
                [of(*claim), vec![WAITING.into(), failures]].concat(),
            )
        }
    };
    Ok(tx.room_execute(sql, &params).await?)
}

fn of(claim: Claim) -> Vec<Value> {
    vec![number(claim.seq), claim.delivery.into()]
}

/// The message's failures and this one, in the form that is stored.
async fn with_failure(tx: &mut DynTx, seq: Seq, failure: Option<&Failure>) -> Result<Value, QueueError> {
    let rows = tx.room_query("SELECT failures FROM quorate_queue_state WHERE seq = $1", &[number(seq)]).await?;
    let Some(row) = rows.first() else { return Ok("".into()) };
    let Some(failure) = failure else { return Ok(row.at(0).clone()) };
    let mut kept = failures_in(row.at(0), Wall::from_unix_nanos(failure.at));
    kept.push(failure.clone());
    let beyond = kept.len().saturating_sub(Failure::MAX_KEPT);
    let text = serde_json::to_string(&kept[beyond..]).unwrap_or_else(|_| unreachable!("plain data has a JSON form"));
    Ok(text.into())
}
