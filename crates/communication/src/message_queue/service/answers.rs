//! Asking what became of a message, and saying it.

use std::time::Duration;

use quorate_data::store::{DynTx, Store};

use super::Queue;
#[cfg(feature = "webhooks")]
use crate::message_queue::answer::{Ends, Followed};
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

    /// As [`ack_in`](Self::ack_in), with an answer that is kept for as long as the queue remembers the message's id: for [`Config::dedupe`](crate::message_queue::Config::dedupe) from now on.
    pub(crate) async fn answer_in(&self, tx: &mut DynTx, lease: &Lease, answer: &Answer) -> Result<(), QueueError> {
        // An answer that comes late is there for as long as one that comes at once.
        rows::remember(tx, (self.core.id, lease.claim.seq), self.core.store.env().wall()).await?;
        self.ack_in(tx, lease).await?;
        Ok(rows::keep(tx, lease.claim.seq, answer).await?)
    }

    /// Whether the message that was handed out under `lease` is in the queue, whoever has it now.
    pub(in crate::message_queue) async fn is_there(&self, lease: &Lease) -> Result<bool, QueueError> {
        rows::is_there(&self.core.store, lease.claim.seq).await
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
            // Whoever drives the queue goes on for as long as somebody waits: leases run out, and other processes do things to it.
            core.ask(|reply| Work::Look { reply }).await?;
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

/// What those need who tell others of the ends of messages.
#[cfg(feature = "webhooks")]
impl Queue {
    /// Its number.
    pub(crate) fn number(&self) -> u64 {
        self.core.id
    }

    /// Whether this is the queue that `other` is, and not another one of its name.
    pub(crate) fn is(&self, other: &Self) -> bool {
        std::sync::Arc::ptr_eq(&self.core, &other.core)
    }

    /// Whether a message of this number would be one of its.
    pub(crate) fn numbers(&self, seq: u64) -> bool {
        rows::queue_of(seq) == self.core.id
    }

    /// Whether several processes work on it.
    pub(crate) fn is_shared(&self) -> bool {
        self.core.is_shared()
    }

    /// Has `ends` hear of every message that may be over with, once the queue was [looked at](Self::look), and as long as somebody drives it.
    pub(crate) fn follow(&self, ends: &std::sync::Arc<Ends>) -> Followed {
        Followed::of(&self.core, ends)
    }

    /// Has somebody drive it, for as long as it is followed.
    pub(crate) async fn look(&self) -> Result<(), QueueError> {
        self.core.ask(|reply| Work::Look { reply }).await.map(drop)
    }
}

#[cfg(feature = "webhooks")]
impl super::Queues {
    /// The store that they are in.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// The queue of this number, if it is there and can be used.
    pub(crate) fn numbered(&self, number: u64) -> Option<Queue> {
        let found = self.cores().values().find(|core| core.id == number).cloned();
        found.filter(|core| !core.is_deleted() && core.damaged.is_none()).map(|core| self.handle(core))
    }
}

#[cfg(test)]
impl Queue {
    /// How many wait for ends of its messages.
    pub(crate) fn core_waiters(&self) -> usize {
        self.core.waiters.len()
    }
}
