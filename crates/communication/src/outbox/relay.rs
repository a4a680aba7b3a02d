//! The messenger: pulls events from its subscription, publishes them, and settles what was confirmed.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use quorate_data::{
    store::StoreError,
    subscription::{Delivery, Lease, Pull, SubscriptionError},
};
use quorate_runtime::tasks::Tasks;

use super::{
    Standing, envelope,
    held::{Held, Item},
    service::Work,
};
use crate::transports::{Confirmed, Label, PublishError};

/// How long a relay that has nothing to do sleeps at most: somebody else may have replayed something, or died with a lease.
const LOOK_AROUND: Duration = Duration::from_secs(5);
/// How long it sleeps at most while events rest after a failure.
const LOOK_AT_RESTING: Duration = Duration::from_millis(250);
/// How often it looks whether somebody paused or resumed it elsewhere.
const LOOK_AT_PAUSE: Duration = Duration::from_secs(1);
/// The first rest after a broker was found away.
pub(super) const FIRST_REST: Duration = Duration::from_millis(100);

/// What came of a round.
enum Round {
    /// There may be more.
    Busy,
    /// There is nothing to do.
    Idle,
    /// Something that is not the events' fault keeps it from working.
    Held(String),
    /// There is nothing to work on any more.
    Over,
}

impl Work {
    pub(super) async fn run(self: Arc<Self>, tasks: Tasks) {
        let (env, mut head) = (self.store.env().clone(), self.store.watch_head());
        let (mut rest, mut kept) = (FIRST_REST, Held::default());
        let ttl = self.config.subscription.lease_ttl;
        let mut looked_at = env.mono();
        while !tasks.stop().is_cancelled() {
            if env.mono().saturating_since(looked_at) >= LOOK_AT_PAUSE {
                looked_at = env.mono();
                if let Err(cause) = self.look_at_pause().await {
                    // What was last seen holds.
                    self.note(Standing::Resting, Some(cause.to_string()));
                }
            }
            // Ordering: the turn first, so that whoever pauses this and then waits for the turn knows that no round has begun since.
            let turn = self.turn.lock().await;
            if self.paused().is_some() {
                drop(turn);
                self.note(Standing::Paused, None);
                let _given_back = self.subscription.give_back(&kept.leases()).await;
                let there = self.subscription.describe().await;
                if there.is_err_and(|cause| is_over(&cause)) {
                    break;
                }
                tokio::select! {
                    biased;
                    () = tasks.stop().cancelled() => {}
                    () = self.bell.notified() => {}
                    () = env.sleep(LOOK_AT_PAUSE) => {}
                }
                continue;
            }
            // Ordering: marked as seen before the question, so that what is appended during it ends the wait below.
            head.mark_unchanged();
            let round = self.round(&mut kept).await;
            drop(turn);
            let (wakes, span) = match round {
                Round::Busy => {
                    rest = FIRST_REST;
                    self.note(Standing::Working, None);
                    continue;
                }
                Round::Idle => {
                    rest = FIRST_REST;
                    self.note(if kept.is_empty() { Standing::Working } else { Standing::Resting }, None);
                    let due = kept.wake_at(ttl);
                    let nap = self.nap().await;
                    (true, due.map_or(nap, |due| nap.min(due.saturating_since(env.boot()))))
                }
                Round::Held(what) => {
                    tracing::warn!(relay = %self.subscription.name(), what, "nothing can be published; it is tried again");
                    self.note(Standing::Resting, Some(what));
                    let span = rest;
                    rest = (rest * 2).min(self.config.longest_rest);
                    (false, span)
                }
                Round::Over => break,
            };
            tokio::select! {
                biased;
                () = tasks.stop().cancelled() => {}
                moved = head.changed(), if wakes => if moved.is_err() { break },
                () = self.bell.notified() => kept.wake(env.boot()),
                () = kept.rest(&self.subscription, &env, ttl, span) => {}
            }
        }
        // Best effort: what is not given back comes again when its lease has run out.
        let _given_back = self.subscription.give_back(&kept.leases()).await;
        self.note(Standing::Stopped, None);
    }

    /// How long nothing can become ready by itself.
    async fn nap(&self) -> Duration {
        let longest = LOOK_AROUND.min(self.config.subscription.lease_ttl);
        if self.has_resting.load(Ordering::Relaxed) {
            // Ordering: this task alone writes it.
            let resting = self.subscription.describe().await.map_or(1, |standing| standing.counts.resting);
            self.has_resting.store(resting > 0, Ordering::Relaxed);
            return if resting > 0 { LOOK_AT_RESTING.min(longest) } else { longest };
        }
        longest
    }

    /// Takes what there is, publishes it, and settles it by what came of that.
    async fn round(&self, kept: &mut Held) -> Round {
        let ttl = self.config.subscription.lease_ttl;
        kept.keep(&self.subscription, self.store.env().boot(), ttl).await;
        let (mut items, back) = kept.due(&self.store);
        let mut settle = Settle { back, ..Settle::default() };
        let room = self.config.batch.saturating_sub(items.len()).max(1);
        match self.subscription.pull(Pull::of(room).by(self.owner.clone())).await {
            Ok(deliveries) if deliveries.is_empty() && items.is_empty() && settle.back.is_empty() => {
                return Round::Idle;
            }
            Ok(deliveries) => items.extend(self.sealed(deliveries, &mut settle)),
            Err(over) if is_over(&over) => return Round::Over,
            Err(failed) if items.is_empty() => return Round::Held(failed.to_string()),
            // What is in hand can go on, and makes room.
            Err(failed) => self.note(Standing::Resting, Some(failed.to_string())),
        }
        let mut by_topic: BTreeMap<Label, Vec<Item>> = BTreeMap::new();
        for item in items {
            by_topic.entry(item.topic.name.clone()).or_default().push(item);
        }
        let published = join_all(by_topic.into_values().map(|items| self.publish(items)));
        for (item, outcome) in published.await.into_iter().flatten() {
            self.judge(item, outcome, kept, &mut settle);
        }
        self.settle(settle).await
    }

    /// Events as messages. What cannot be one is to be parked.
    fn sealed(&self, deliveries: Vec<Delivery>, settle: &mut Settle) -> Vec<Item> {
        let mut items = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            match envelope::seal(&self.config, &delivery) {
                Ok(Some(sealed)) => items.push(Item::new(&self.store, delivery.lease, sealed)),
                Ok(None) => {
                    self.skipped.fetch_add(1, Ordering::Relaxed);
                    settle.ack.push(delivery.lease);
                }
                Err(why) => settle.park.push((delivery.lease, why)),
            }
        }
        items
    }

    /// Publishes messages of one topic. What could not be settled within its lease any more is not published.
    async fn publish(&self, items: Vec<Item>) -> Vec<(Item, Result<Confirmed, PublishError>)> {
        let (now, half) = (self.store.env().boot(), self.config.subscription.lease_ttl / 2);
        let held_up = items.iter().map(|item| now.saturating_since(item.leased_at)).max().unwrap_or_default();
        let Some(topic) = items.first().map(|item| item.topic.clone()).filter(|_| held_up <= half) else {
            let late = PublishError::Unavailable { what: format!("the relay was held up for {held_up:?}") };
            return items.into_iter().map(|item| (item, Err(late.clone()))).collect();
        };
        let messages = items.iter().map(|item| item.message.clone()).collect();
        // A confirm that comes after the lease would settle nothing.
        let published = self.store.env().timeout(half, self.transport.publish(&topic, messages)).await;
        let late = || PublishError::Unknown { what: format!("no confirm came within {half:?}") };
        let outcomes = published.unwrap_or_else(|| items.iter().map(|_| Err(late())).collect());
        items.into_iter().zip(outcomes).collect()
    }

    fn judge(&self, item: Item, outcome: Result<Confirmed, PublishError>, kept: &mut Held, settle: &mut Settle) {
        // Ordering: counts.
        let count = |count: &AtomicU64| {
            count.fetch_add(1, Ordering::Relaxed);
        };
        match outcome {
            Ok(confirmed) => {
                count(&self.published);
                if confirmed.repeated {
                    count(&self.repeated);
                }
                settle.ack.push(item.lease);
            }
            Err(unroutable @ PublishError::Unroutable { .. }) => {
                count(&self.unroutable);
                settle.nack.push((item.lease, unroutable.to_string()));
            }
            Err(PublishError::Refused { what }) => {
                count(&self.refused);
                settle.park.push((item.lease, what));
            }
            Err(full @ PublishError::Full { .. }) => {
                count(&self.held);
                let (now, max) = (self.store.env().boot(), self.config.subscription.window / 2);
                self.note(Standing::Working, Some(full.to_string()));
                if let Err(lease) = kept.hold(item, now, self.config.longest_rest, max) {
                    settle.back.push(lease);
                    settle.held.get_or_insert_with(|| full.to_string());
                }
            }
            Err(broker) => {
                count(if broker.is_unknown() { &self.unknown } else { &self.given_back });
                if broker.is_unknown() {
                    self.store.env().reached("relay: a confirm did not come");
                }
                settle.back.push(item.lease);
                settle.held.get_or_insert_with(|| broker.to_string());
            }
        }
    }

    /// Settles all; what cannot be comes again when its lease has run out, and is published once more.
    async fn settle(&self, settle: Settle) -> Round {
        let Settle { ack, nack, park, back, held } = settle;
        let mut failed = None;
        let mut note = |settled: Result<(), SubscriptionError>| match settled {
            Ok(()) => {}
            // Somebody else has it, and publishes it once more: the same message.
            Err(SubscriptionError::LeaseLost { .. }) => self.store.env().reached("relay: a lease was lost"),
            Err(cause) => drop(failed.get_or_insert_with(|| cause.to_string())),
        };
        if !ack.is_empty() {
            self.store.env().reached("relay: published and not settled");
        }
        note(self.subscription.ack(&ack).await);
        for (lease, why) in nack {
            self.note(Standing::Working, Some(why.clone()));
            self.has_resting.store(true, Ordering::Relaxed);
            note(self.subscription.nack(&[lease], None, &why).await);
        }
        for (lease, why) in park {
            self.note(Standing::Working, Some(why.clone()));
            note(self.subscription.park(&[lease], &why).await);
        }
        if !back.is_empty() {
            note(self.subscription.give_back(&back).await);
        }
        held.or(failed).map_or(Round::Busy, Round::Held)
    }
}

/// Whether there is nothing to work on any more: the subscription was deleted, or the store closed.
fn is_over(cause: &SubscriptionError) -> bool {
    matches!(cause, SubscriptionError::NotFound { .. } | SubscriptionError::Store(StoreError::Closed))
}

/// What is to be done with the events of a round.
#[derive(Default)]
struct Settle {
    ack: Vec<Lease>,
    nack: Vec<(Lease, String)>,
    park: Vec<(Lease, String)>,
    back: Vec<Lease>,
    /// What is wrong with the broker.
    held: Option<String>,
}
