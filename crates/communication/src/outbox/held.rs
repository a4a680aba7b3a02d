//! Events that a full topic keeps in a relay's hands: held under their leases and tried again, while others go on.

use std::time::Duration;

use quorate_data::{
    store::Store,
    subscription::{Lease, Subscription, SubscriptionError},
};
use quorate_foundations::time::Boot;
use quorate_runtime::Env;

use super::relay::FIRST_REST;
use crate::transports::{Outgoing, Topic};

/// An event in a relay's hands.
pub(super) struct Item {
    pub(super) lease: Lease,
    pub(super) topic: Topic,
    pub(super) message: Outgoing,
    /// Since when the lease runs.
    pub(super) leased_at: Boot,
    /// How often its topic was full.
    pub(super) tries: u32,
    /// What the store had forgotten by the time it was read.
    forgotten: u64,
    /// When it is tried again.
    due: Boot,
}

impl Item {
    pub(super) fn new(store: &Store, lease: Lease, (topic, message): (Topic, Outgoing)) -> Self {
        let now = store.env().boot();
        Self { lease, topic, message, leased_at: now, tries: 0, forgotten: store.forgotten(), due: now }
    }

    /// Whether it may be kept in memory: what could be erased meanwhile is read again.
    fn may_be_held(&self) -> bool {
        self.message.event.data_subject.is_none()
    }
}

/// Events that are held.
#[derive(Default)]
pub(super) struct Held(Vec<Item>);

impl Held {
    /// Holds `item` for a rest that grows up to `longest`, or gives it back where there are `max` already.
    pub(super) fn hold(&mut self, mut item: Item, now: Boot, longest: Duration, max: usize) -> Result<(), Lease> {
        if self.0.len() >= max || !item.may_be_held() {
            return Err(item.lease);
        }
        item.tries += 1;
        let rest = FIRST_REST.saturating_mul(1 << item.tries.min(16));
        item.due = now + rest.min(longest);
        self.0.push(item);
        Ok(())
    }

    /// Takes out what is to be tried again, and the leases of what has to be read again, since the store forgot something meanwhile.
    pub(super) fn due(&mut self, store: &Store) -> (Vec<Item>, Vec<Lease>) {
        let (now, forgotten) = (store.env().boot(), store.forgotten());
        let (due, later) = std::mem::take(&mut self.0).into_iter().partition(|item| item.due <= now);
        self.0 = later;
        let (fresh, stale): (Vec<Item>, Vec<Item>) =
            due.into_iter().partition(|item: &Item| item.forgotten == forgotten);
        (fresh, stale.into_iter().map(|item| item.lease).collect())
    }

    /// Renews leases that have run for a third of `ttl`. What somebody else has by now is dropped.
    pub(super) async fn keep(&mut self, subscription: &Subscription, now: Boot, ttl: Duration) {
        let is_old = |item: &Item| now.saturating_since(item.leased_at) >= ttl / 3;
        let leases: Vec<Lease> = self.0.iter().filter(|item| is_old(item)).map(|item| item.lease).collect();
        if leases.is_empty() {
            return;
        }
        match subscription.extend(&leases, None).await {
            Ok(()) => {}
            Err(SubscriptionError::LeaseLost { leases: lost }) => self.0.retain(|item| !lost.contains(&item.lease)),
            // Whatever the store suffers from: the leases may hold for a while, and their fences do in any case.
            Err(_) => return,
        }
        self.0.iter_mut().filter(|item| leases.contains(&item.lease)).for_each(|item| item.leased_at = now);
    }

    /// Rests for `span`, and keeps what is held meanwhile: it would otherwise be handed to others before this is over.
    ///
    /// # Cancel safety
    /// Dropping the future ends the rest; what is held may have been renewed or not.
    pub(super) async fn rest(&mut self, subscription: &Subscription, env: &Env, ttl: Duration, span: Duration) {
        let until = env.boot() + span;
        loop {
            let now = env.boot();
            let left = until.saturating_since(now);
            if left.is_zero() {
                return;
            }
            let renewal = self.0.iter().map(|item| item.leased_at + ttl / 3).min();
            // Where the store does not renew them, a little later.
            let nap = renewal.map_or(left, |at| at.saturating_since(now).max(FIRST_REST).min(left));
            env.sleep(nap).await;
            self.keep(subscription, env.boot(), ttl).await;
        }
    }

    /// Has all be tried at once.
    pub(super) fn wake(&mut self, now: Boot) {
        self.0.iter_mut().for_each(|item| item.due = now);
    }

    /// When there is something to do about one of them.
    pub(super) fn wake_at(&self, ttl: Duration) -> Option<Boot> {
        self.0.iter().map(|item| item.due.min(item.leased_at + ttl / 3)).min()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes all out.
    pub(super) fn leases(&mut self) -> Vec<Lease> {
        std::mem::take(&mut self.0).into_iter().map(|item| item.lease).collect()
    }
}
