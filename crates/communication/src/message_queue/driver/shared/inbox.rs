//! The inbox, as the task that drives the queue sees it.

use std::{
    collections::VecDeque,
    sync::{PoisonError, atomic::Ordering},
    time::Duration,
};

use quorate_data::store::StoreError;
use quorate_foundations::time::Boot;

use super::{Core, News};
use crate::message_queue::{
    QueueError,
    driver::{ROUND_BYTES, ROUND_MESSAGES, ROUND_STATEMENTS, Work, live::Live},
};

impl Core {
    /// Takes what one round has room for, and all news.
    pub(in crate::message_queue::driver) fn take_inbox(&self) -> (Vec<Work>, Vec<News>) {
        let mut inbox = self.inbox();
        let (mut messages, mut bytes, most) = (0, 0, self.round_bytes());
        let is_shared = self.is_shared();
        let fits = |work: &&Work| {
            messages += if is_shared { work.statements() } else { work.messages() };
            bytes += if let Work::Send { bytes, .. } = work { *bytes } else { 0 };
            messages <= if is_shared { ROUND_STATEMENTS } else { ROUND_MESSAGES } && bytes <= most
        };
        let count = inbox.works.iter().take_while(fits).count();
        let count = count.max(1).min(inbox.works.len());
        // What it says is in the depth before it is in the news no more.
        let there = (self.depth.load(Ordering::Relaxed) + inbox.sent).saturating_sub(inbox.settled);
        self.depth.store(there, Ordering::Relaxed);
        let news = inbox.take_news();
        (inbox.works.drain(..count).collect(), news)
    }

    /// The bytes of one round: with room to spare in the store's limit of a transaction.
    pub(in crate::message_queue::driver) fn round_bytes(&self) -> usize {
        ROUND_BYTES.min(self.store.limits().unit_bytes / 2)
    }

    /// The task ends without having anything to hand over: what is to be known has to be read. Returns what nobody does now.
    pub(in crate::message_queue::driver) fn leave(&self) -> VecDeque<Work> {
        let mut inbox = self.inbox();
        inbox.is_driven = false;
        inbox.take_news();
        std::mem::take(&mut inbox.works)
    }

    /// Leaves what is known of the messages for the next task, unless there is work for this one.
    pub(in crate::message_queue::driver) fn hand_over(&self, live: &mut Option<Live>) -> bool {
        let mut inbox = self.inbox();
        let idle = inbox.works.is_empty();
        if idle {
            *self.live.lock().unwrap_or_else(PoisonError::into_inner) = live.take().filter(|_| !inbox.is_deleted);
            inbox.is_driven = false;
            self.lookout.iter().for_each(|lookout| lookout.forget(self.id));
        }
        idle
    }

    pub(in crate::message_queue::driver) fn why_no_more(&self) -> QueueError {
        if self.is_deleted() { self.not_found() } else { StoreError::Closed.into() }
    }

    pub(in crate::message_queue::driver) async fn sleep_until(&self, due: Option<Boot>) {
        match due {
            // A little more, so that the timer is due when it is looked at.
            Some(due) => self.store.env().sleep(due.saturating_since(self.now()) + Duration::from_micros(100)).await,
            None => std::future::pending().await,
        }
    }
}
