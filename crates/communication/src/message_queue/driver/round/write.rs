//! A round's transaction.

use std::{sync::Arc, time::Duration};

use quorate_data::store::{DynTx, StoreError, TransactError};

use super::super::Core;
use crate::message_queue::{
    QueueError,
    machine::Seq,
    message::Summed,
    rows::{self, Batch, Placed},
};

/// How often a round whose transaction found no room is tried again, and after how long.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(5);

/// What came of writing a round.
pub(super) struct Written {
    /// Of each sending, what became of its messages.
    pub(super) sent: Vec<Result<Vec<Placed>, QueueError>>,
    /// Messages that were to be handed out again and were settled meanwhile.
    pub(super) settled: Vec<Seq>,
}

pub(super) fn is_closed(cause: &QueueError) -> bool {
    matches!(cause, QueueError::Store(StoreError::Closed))
}

/// Whether nothing of the round can have been written.
pub(super) fn is_untouched(cause: &QueueError) -> bool {
    use StoreError::{Busy, Closed, DiskFull, Overloaded};
    matches!(cause, QueueError::Store(Busy | Closed | DiskFull | Overloaded { .. }) | QueueError::NotFound { .. })
}

/// What is to be written: what was decided, and what is sent.
type Writing = (Batch, Vec<Vec<Summed>>);

/// Writes a round in one transaction, and gives back what was sent.
pub(super) async fn write(core: &Arc<Core>, writing: Arc<Writing>) -> Result<(Written, Vec<Vec<Summed>>), QueueError> {
    let mut attempt = 0;
    loop {
        let (unit, inner) = (core.clone(), writing.clone());
        let written = core.store.transact(move |tx| {
            let (core, writing) = (unit.clone(), inner.clone());
            Box::pin(async move { write_in(tx, &core, &writing).await })
        });
        match written.await {
            Ok(written) => {
                let (_, sends) = Arc::try_unwrap(writing).unwrap_or_else(|shared| (*shared).clone());
                return Ok((written, sends));
            }
            Err(TransactError::Store(StoreError::Overloaded { .. } | StoreError::Busy)) if attempt < ATTEMPTS => {
                attempt += 1;
                core.store.env().sleep(PAUSE).await;
            }
            Err(cause) => return Err(QueueError::of_transaction(cause)),
        }
    }
}

async fn write_in(tx: &mut DynTx, core: &Core, (batch, sends): &Writing) -> Result<Written, QueueError> {
    // Ordering: the transaction that deletes the queue marks it before this one's turn comes, or finds what this one writes.
    if core.is_deleted() {
        return Err(core.not_found());
    }
    #[cfg(feature = "museum")]
    let batch = &planted(tx, core, batch).await?;
    let settled = rows::apply(tx, core.id, batch).await?;
    let mut sent = Vec::with_capacity(sends.len());
    for messages in sends {
        match rows::insert(tx, &core.numbers, core.id, messages).await {
            Err(failed @ (QueueError::Store(_) | QueueError::Tables(_))) => return Err(failed),
            placed => sent.push(placed),
        }
    }
    Ok(Written { sent, settled })
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
