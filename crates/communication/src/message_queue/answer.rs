//! What became of a message, for whoever asked for it by its id.
//!
//! An answer is kept beside the id under which its message was sent, in the transaction that settles the message: so there is one for each id at most, and it is
//! there for exactly as long as the queue remembers the id.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::watch;

use super::{driver::Core, machine::Seq};
#[cfg(feature = "webhooks")]
pub(crate) use ends::{Ends, Followed, Heard};

#[cfg(feature = "webhooks")]
mod ends;

/// What a consumer says of a message that it is done with. What its parts mean is for whoever sent the message to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// What kind of answer it is.
    pub(crate) label: &'static str,
    /// The media type of `data`.
    pub(crate) content_type: Option<Arc<str>>,
    pub(crate) data: Bytes,
}

/// An answer as it was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) label: Arc<str>,
    pub(crate) content_type: Option<Arc<str>>,
    pub(crate) data: Bytes,
}

/// How far a message is whose id the queue remembers, as its rows say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nobody has it now; it was handed out so often.
    Waiting { attempts: u32 },
    /// It was handed out for the `attempt`th time, and what came of that is not known yet. Its lease may have run out.
    Running { attempt: u32 },
    /// It was settled with an answer.
    Answered(Kept),
    /// It is a dead letter.
    Parked { attempts: u32, reason: String, place: u64 },
    /// It was settled without an answer.
    Settled,
}

impl Progress {
    /// Whether nothing more happens to it by itself.
    pub(crate) fn is_over(&self) -> bool {
        !matches!(self, Self::Waiting { .. } | Self::Running { .. })
    }
}

/// Who waits for the ends of messages of one queue.
#[derive(Debug, Default)]
pub(super) struct Waiters(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    by_message: BTreeMap<Seq, watch::Sender<()>>,
    /// Who hears of every end.
    #[cfg(feature = "webhooks")]
    followers: Vec<Arc<Ends>>,
    count: usize,
}

impl Waiters {
    /// The most that wait at once.
    pub(super) const MAX: usize = 10_000;

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting().count == 0
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.waiting().count
    }

    /// Has those who wait for these messages look at them again.
    pub(super) fn wake(&self, seqs: impl IntoIterator<Item = Seq>) {
        let waiting = self.waiting();
        if waiting.count == 0 {
            return;
        }
        let seqs: Vec<Seq> = seqs.into_iter().collect();
        if !seqs.is_empty() {
            #[cfg(feature = "webhooks")]
            waiting.followers.iter().for_each(|follower| follower.hear(&seqs));
            let woken = seqs.into_iter().filter_map(|seq| waiting.by_message.get(&seq));
            woken.for_each(|waiter| waiter.send_replace(()));
        }
    }

    /// Has everybody look again.
    pub(super) fn wake_all(&self) {
        let waiting = self.waiting();
        #[cfg(feature = "webhooks")]
        waiting.followers.iter().for_each(|follower| follower.miss());
        waiting.by_message.values().for_each(|waiter| waiter.send_replace(()));
    }
}

/// One who waits, until this is dropped.
pub(super) struct Waiter {
    core: Arc<Core>,
    seq: Seq,
    woken: watch::Receiver<()>,
}

impl Waiter {
    /// One for the end of the message `seq`, woken by whatever happens from now on. `None` where as many wait as may.
    pub(super) fn of(core: &Arc<Core>, seq: Seq) -> Option<Self> {
        let mut waiting = core.waiters.waiting();
        if waiting.count >= Waiters::MAX {
            return None;
        }
        waiting.count += 1;
        let woken = waiting.by_message.entry(seq).or_insert_with(|| watch::Sender::new(())).subscribe();
        Some(Self { core: core.clone(), seq, woken })
    }

    /// Returns once it was woken since the last time.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(super) async fn woken(&mut self) {
        // Nobody drops the sender while this is there.
        let _ = self.woken.changed().await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiting = self.core.waiters.waiting();
        waiting.count -= 1;
        // This one still counts as one of them.
        if waiting.by_message.get(&self.seq).is_some_and(|waiter| waiter.receiver_count() <= 1) {
            waiting.by_message.remove(&self.seq);
        }
        let is_last = waiting.count == 0;
        drop(waiting);
        if is_last {
            // The task that drives the queue went on for those who waited.
            self.core.kick.notify_one();
        }
    }
}
