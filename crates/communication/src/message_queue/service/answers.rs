//! Asking what became of a message, and saying it.

use std::time::Duration;

use quorate_data::store::{DynTx, Store};

use super::Queue;
use crate::message_queue::{
    Lease, QueueError,
    answer::{Answer, Progress, Waiter, Waiters},
    driver::Work,
    rows,
};

impl Queue {
    /// The store that it is in.
    pub(crate) fn store(&self) -> &Store {
        &self.core.store
    }

    /// As [`ack_in`](Self::ack_in), with an answer that is kept for as long as the queue remembers the message's id.
    pub(crate) async fn answer_in(&self, tx: &mut DynTx, lease: &Lease, answer: &Answer) -> Result<(), QueueError> {
        self.ack_in(tx, lease).await?;
        Ok(rows::keep(tx, lease.claim.seq, answer).await?)
    }

    /// How far the message is that was sent under this source and id. Waits for up to `patience` until it is over with it. `None`: the queue does not remember it.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn progress(
        &self,
        (source, id): (&str, &str),
        patience: Duration,
    ) -> Result<Option<Progress>, QueueError> {
        let core = &self.core;
        let look = async || {
            if core.is_deleted() {
                return Err(core.not_found());
            }
            rows::progress(&core.store, core.id, source, id).await
        };
        let Some((seq, found)) = look().await? else { return Ok(None) };
        if found.is_over() || patience.is_zero() {
            return Ok(Some(found));
        }
        let env = core.store.env();
        let until = env.mono() + patience;
        // Ordering: before the next look, so that whatever happens behind that wakes it.
        let crowded = || QueueError::Crowded { name: self.name().clone(), max: Waiters::MAX };
        let mut waiter = Waiter::of(core, seq).ok_or_else(crowded)?;
        loop {
            if core.is_shared() {
                // Whoever drives the queue follows what other processes do to it, for as long as somebody waits.
                core.ask(|reply| Work::Look { reply }).await?;
            }
            let found = look().await?.map(|(_, found)| found);
            if found.as_ref().is_none_or(Progress::is_over) {
                return Ok(found);
            }
            tokio::select! {
                () = waiter.woken() => {}
                () = env.sleep_until(until) => return Ok(found),
                () = env.tasks().stop().cancelled() => return Ok(found),
            }
        }
    }
}

#[cfg(test)]
impl Queue {
    /// How many wait for ends of its messages.
    pub(crate) fn core_waiters(&self) -> usize {
        self.core.waiters.len()
    }
}
