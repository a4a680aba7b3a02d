//! A round's transaction.

use std::{sync::Arc, time::Duration};

use quorate_data::store::{DynTx, SqlError, StoreError, TransactError};

use super::super::{Core, turns::Turning};
use crate::message_queue::{
    QueueError,
    machine::Seq,
    message::Summed,
    rows::{self, Batch, Placed, turn},
};

/// For how long a round whose transaction found no room is tried again, and how often. A store that waited for others by itself
/// was patient enough.
const BRIEFLY: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(5);

/// What came of writing a round.
#[derive(Default)]
pub(super) struct Written {
    /// Of each sending, what became of its messages.
    pub(super) sent: Vec<Result<Vec<Placed>, QueueError>>,
    /// Messages that were to be handed out again and were settled meanwhile.
    pub(super) settled: Vec<Seq>,
    /// The news that it made, and of which messages.
    pub(super) told: Option<(i64, Vec<Seq>)>,
}

/// Why nothing was written.
pub(super) enum Unwritten {
    /// Another process took the turn.
    Overtaken,
    Failed(QueueError),
}

impl<E: Into<QueueError>> From<E> for Unwritten {
    fn from(cause: E) -> Self {
        Self::Failed(cause.into())
    }
}

pub(in crate::message_queue::driver) fn is_closed(cause: &QueueError) -> bool {
    matches!(cause, QueueError::Store(StoreError::Closed))
}

/// Whether nothing of the round can have been written.
pub(super) fn is_untouched(cause: &QueueError) -> bool {
    use StoreError::{Busy, Closed, DiskFull, Overloaded};
    matches!(cause, QueueError::Store(Busy | Closed | DiskFull | Overloaded { .. }) | QueueError::NotFound { .. })
}

/// What is to be written.
#[derive(Clone)]
pub(super) struct Writing {
    /// What was decided.
    pub(super) batch: Batch,
    /// What is sent.
    pub(super) sends: Vec<Vec<Summed>>,
    /// The turn that it takes, where several processes work on the queue and memory decided something.
    pub(super) turn: Option<Turning>,
}

/// Writes a round in one transaction, and gives back what was to be written.
pub(super) async fn write(core: &Arc<Core>, writing: Arc<Writing>) -> (Result<Written, Unwritten>, Writing) {
    let env = core.store.env();
    let until = env.mono() + BRIEFLY;
    let written = loop {
        let (unit, inner) = (core.clone(), writing.clone());
        let written = core.store.transact(move |tx| {
            let (core, writing) = (unit.clone(), inner.clone());
            Box::pin(async move { write_in(tx, &core, &writing).await })
        });
        match written.await {
            Ok(written) => break Ok(written),
            Err(TransactError::Store(StoreError::Overloaded { .. } | StoreError::Busy)) if env.mono() < until => {
                env.sleep(PAUSE).await;
            }
            Err(TransactError::Aborted(own)) => break Err(own),
            Err(TransactError::Store(cause)) => break Err(cause.into()),
            // It was rolled back: another process may stand still inside its own.
            Err(TransactError::TooLong { .. }) => break Err(StoreError::Busy.into()),
            Err(other) => {
                break Err(QueueError::Tables(SqlError::Failed { what: other.to_string() }).into());
            }
        }
    };
    (written, Arc::try_unwrap(writing).unwrap_or_else(|shared| (*shared).clone()))
}

async fn write_in(tx: &mut DynTx, core: &Core, writing: &Writing) -> Result<Written, Unwritten> {
    let Writing { batch, sends, turn } = writing;
    // Ordering: the transaction that deletes the queue marks it before this one's turn comes, or finds what this one writes.
    if core.is_deleted() {
        return Err(core.not_found().into());
    }
    if let Some(Turning { revision, ahead, news, .. }) = turn {
        if !turn::take(tx, core.id, *revision, *ahead).await? {
            return Err(Unwritten::Overtaken);
        }
        turn::seal(tx, news).await?;
    }
    if core.is_shared() && !sends.is_empty() && !turn::is_there(tx, core.id, &core.name).await? {
        return Err(core.not_found().into());
    }
    #[cfg(feature = "museum")]
    let batch = &planted(tx, core, batch).await?;
    // A unique key that was free let another process replay one without a turn.
    if !rows::discard(tx, &batch.discarded).await? {
        return Err(Unwritten::Overtaken);
    }
    let settled = rows::apply(tx, core.id, batch).await?;
    let mut sent = Vec::with_capacity(sends.len());
    for messages in sends {
        match rows::insert(tx, &core.numbers, core.id, messages).await {
            Err(failed @ (QueueError::Store(_) | QueueError::Tables(_))) => return Err(failed.into()),
            placed => sent.push(placed),
        }
    }
    let told = if core.is_shared() { tell(tx, core, turn.as_ref(), &sent).await? } else { None };
    Ok(Written { sent, settled, told })
}

/// Tells other processes which messages this transaction touches: under its turn, or as news.
async fn tell(
    tx: &mut DynTx,
    core: &Core,
    turn: Option<&Turning>,
    sent: &[Result<Vec<Placed>, QueueError>],
) -> Result<Option<(i64, Vec<Seq>)>, QueueError> {
    let placed = sent.iter().flatten().flatten();
    let new = placed.filter_map(|placed| if let Placed::New(seq) = placed { Some(*seq) } else { None });
    match turn {
        Some(Turning { revision, seqs, .. }) => {
            let seqs: Vec<Seq> = seqs.iter().copied().chain(new).collect();
            turn::note(tx, core.id, revision + 1, &seqs).await?;
            Ok(None)
        }
        None => {
            let seqs: Vec<Seq> = new.collect();
            if seqs.is_empty() {
                return Ok(None);
            }
            Ok(Some((turn::tell(tx, core.id, &seqs).await?, seqs)))
        }
    }
}

/// What is written of a round where bugs are planted.
#[cfg(feature = "museum")]
async fn planted(tx: &mut DynTx, core: &Core, batch: &Batch) -> Result<Batch, QueueError> {
    let mut batch = batch.clone();
    if core.store.env().planted("queue-lease-in-memory") {
        batch.first.clear();
    }
    if core.store.env().planted("queue-dedupe-until-done") {
        let sql = "DELETE FROM quorate_queue_known WHERE seq = $1";
        for seq in &batch.gone {
            tx.room_execute(sql, &[rows::number(*seq)]).await?;
        }
    }
    Ok(batch)
}
