//! Following queues: who hears of every message that may be over with, without waiting for each of them.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::message_queue::{driver::Core, machine::Seq};

/// What was heard of queues that are followed, by whoever follows them.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    heard: Mutex<Heard>,
    woken: Notify,
}

/// Messages that may be over with since it was last asked.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) seqs: BTreeSet<Seq>,
    /// Whether any may be, because not all were heard of, or nobody drives one of the queues any more.
    pub(crate) missed: bool,
}

impl Ends {
    /// Messages that are remembered; beyond it they are missed.
    const MAX: usize = 10_000;

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hear(&self, seqs: &[Seq]) {
        let mut heard = self.heard();
        heard.seqs.extend(seqs);
        if heard.seqs.len() > Self::MAX {
            *heard = Heard { missed: true, seqs: BTreeSet::new() };
        }
        self.woken.notify_one();
    }

    /// Something was missed.
    pub(crate) fn miss(&self) {
        self.heard().missed = true;
        self.woken.notify_one();
    }

    /// What was heard since the last time.
    pub(crate) fn take(&self) -> Heard {
        std::mem::take(&mut *self.heard())
    }

    /// Returns once something was heard.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(crate) async fn woken(&self) {
        self.woken.notified().await;
    }
}

/// A queue that is followed, until this is dropped: time passes in it, and other processes are heard of.
pub(crate) struct Followed {
    core: Arc<Core>,
    ends: Arc<Ends>,
}

impl Followed {
    pub(in crate::message_queue) fn of(core: &Arc<Core>, ends: &Arc<Ends>) -> Self {
        let mut waiting = core.waiters.waiting();
        waiting.count += 1;
        waiting.followers.push(ends.clone());
        Self { core: core.clone(), ends: ends.clone() }
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        let mut waiting = self.core.waiters.waiting();
        waiting.count -= 1;
        if let Some(at) = waiting.followers.iter().position(|follower| Arc::ptr_eq(follower, &self.ends)) {
            waiting.followers.swap_remove(at);
        }
        let is_last = waiting.count == 0;
        drop(waiting);
        if is_last {
            self.core.kick.notify_one();
        }
    }
}
