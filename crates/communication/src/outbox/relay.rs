//! The messenger: pulls events from its subscription, publishes them, and settles what was confirmed.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use quorate_data::{
    store::{Store, StoreError},
    subscription::{self, Delivery, Lease, Pull, Selection, Subscription, SubscriptionError, Subscriptions},
};
use quorate_foundations::{name::Name, time::Wall};
use quorate_runtime::tasks::Tasks;
use tokio::sync::{Mutex as AsyncMutex, Notify};

use super::{
    Paused, RelayConfig, RelayError, envelope,
    held::{Held, Item},
    pause,
};
use crate::transports::{Confirmed, Label, PublishError, Transport};

/// How long a relay that has nothing to do sleeps at most: somebody else may have replayed something, or died with a lease.
const LOOK_AROUND: Duration = Duration::from_secs(5);
/// How long it sleeps at most while events rest after a failure.
const LOOK_AT_RESTING: Duration = Duration::from_millis(250);
/// How often it looks whether somebody paused or resumed it elsewhere.
const LOOK_AT_PAUSE: Duration = Duration::from_secs(1);
/// The first rest after a broker was found away.
pub(super) const FIRST_REST: Duration = Duration::from_millis(100);

/// A relay at work. Cheap to clone; clones are the same. Dropping it stops nothing: it works until it is [stopped](Self::stop), its subscription is
/// deleted, or the environment's tasks are told to stop.
#[derive(Clone)]
pub struct Relay {
    work: Arc<Work>,
    tasks: Tasks,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("name", self.name()).field("counts", &self.counts()).finish_non_exhaustive()
    }
}

/// What a relay did since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayCounts {
    /// Events that were confirmed.
    pub published: u64,
    /// Of those, events that the broker had already.
    pub repeated: u64,
    /// Confirms that did not come, so that events were published once more.
    pub unknown: u64,
    /// Events that were given back, since the broker was away.
    pub given_back: u64,
    /// Times that an event was held, since its topic was full.
    pub held: u64,
    /// Attempts at events that nobody would get.
    pub unroutable: u64,
    /// Events that were parked because no broker takes them.
    pub refused: u64,
    /// Events that were not published since their data subject was erased.
    pub skipped: u64,
}

/// What a relay does right now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It publishes, or has nothing to publish.
    Working,
    /// It waits before it tries again.
    Resting,
    /// It publishes nothing until it is resumed.
    Paused,
    /// It has ended.
    Stopped,
}

/// How a relay stands.
#[derive(Clone, Debug)]
pub struct Description {
    /// What it does.
    pub standing: Standing,
    /// Its transport.
    pub transport: &'static str,
    /// What went wrong last, and when, by the wall clock.
    pub last_error: Option<(Wall, String)>,
    /// Since when it is paused, if it is.
    pub paused: Option<Paused>,
    /// What it did since it was started.
    pub counts: RelayCounts,
    /// How far it is, what it lags behind, and what is parked.
    pub subscription: subscription::Description,
}

struct Work {
    store: Store,
    subscription: Subscription,
    transport: Arc<dyn Transport>,
    config: RelayConfig,
    owner: Arc<str>,
    /// Rung when there may be something to do that the log does not tell of.
    bell: Notify,
    /// Whether events may rest after a failure.
    has_resting: AtomicBool,
    /// As last seen.
    paused: Mutex<Option<Paused>>,
    /// Held during a round, so that whoever pauses it can wait for its end.
    turn: AsyncMutex<()>,
    standing: Mutex<(Standing, Option<(Wall, String)>)>,
    published: AtomicU64,
    repeated: AtomicU64,
    unknown: AtomicU64,
    given_back: AtomicU64,
    held: AtomicU64,
    unroutable: AtomicU64,
    refused: AtomicU64,
    skipped: AtomicU64,
}

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

impl Relay {
    /// Starts the relay `name`, whose subscription of the same name is made if it is not there.
    ///
    /// The broker may be away: then the relay waits for it.
    ///
    /// # Errors
    /// [`RelayError`], also where the subscription is there with another configuration.
    pub async fn start(
        store: &Store,
        name: &Name,
        transport: Arc<dyn Transport>,
        config: RelayConfig,
    ) -> Result<Self, RelayError> {
        config.check()?;
        let subscription = Subscriptions::open(store).await?.create(name, config.subscription.clone()).await?;
        store.declare(pause::TABLES).await?;
        let paused = pause::read(store, name).await?;
        let tasks = store.env().tasks().child("relay");
        let work = Arc::new(Work {
            store: store.clone(),
            subscription,
            transport,
            config,
            owner: format!("relay {name}").chars().take(64).collect::<String>().into(),
            bell: Notify::new(),
            has_resting: AtomicBool::new(true),
            paused: Mutex::new(paused),
            turn: AsyncMutex::default(),
            standing: Mutex::new((Standing::Working, None)),
            published: AtomicU64::default(),
            repeated: AtomicU64::default(),
            unknown: AtomicU64::default(),
            given_back: AtomicU64::default(),
            held: AtomicU64::default(),
            unroutable: AtomicU64::default(),
            refused: AtomicU64::default(),
            skipped: AtomicU64::default(),
        });
        tasks.spawn("relay", work.clone().run(tasks.clone()));
        Ok(Self { work, tasks })
    }

    /// Its name, and that of its subscription.
    pub fn name(&self) -> &Name {
        self.work.subscription.name()
    }

    /// As it was started.
    pub fn config(&self) -> &RelayConfig {
        &self.work.config
    }

    /// The subscription that it follows the log by: what is parked is there. Replay through [`replay`](Self::replay), so that the relay hears of it at once.
    pub fn subscription(&self) -> &Subscription {
        &self.work.subscription
    }

    /// What it did since it was started.
    pub fn counts(&self) -> RelayCounts {
        self.work.counts()
    }

    /// How it stands.
    pub async fn describe(&self) -> Result<Description, SubscriptionError> {
        let subscription = self.work.subscription.describe().await?;
        let (standing, last_error) = self.work.standing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (transport, counts) = (self.work.transport.capabilities().name, self.counts());
        Ok(Description { standing, transport, last_error, paused: self.work.paused(), counts, subscription })
    }

    /// Has it publish nothing until it is [resumed](Self::resume), also after a restart, and in other processes that share the store within
    /// a second or two. Durable when this returns, and what this process was publishing is settled by then.
    ///
    /// Pausing it again changes the reason alone. `reason`: for people, cut off behind 1,024 bytes.
    ///
    /// # Errors
    /// [`RelayError::Store`]: after [`StoreError::OutcomeUnknown`] it may be paused.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait; it may be paused.
    pub async fn pause(&self, reason: &str) -> Result<(), RelayError> {
        pause::pause(&self.work.store, self.name(), reason).await?;
        self.work.look_at_pause().await?;
        self.work.bell.notify_one();
        drop(self.work.turn.lock().await);
        Ok(())
    }

    /// Has it go on from where it was. Fine if it is not paused.
    ///
    /// # Errors
    /// As [`pause`](Self::pause).
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait; it may be resumed.
    pub async fn resume(&self) -> Result<(), RelayError> {
        pause::resume(&self.work.store, self.name()).await?;
        self.work.look_at_pause().await?;
        self.work.bell.notify_one();
        Ok(())
    }

    /// Has parked events published again, in order of their keys. Returns how many.
    pub async fn replay(&self, which: Selection) -> Result<usize, SubscriptionError> {
        let replayed = self.work.subscription.replay(which).await?;
        self.work.bell.notify_one();
        Ok(replayed)
    }

    /// Tries the broker again at once, whatever it rests for.
    pub fn wake(&self) {
        self.work.bell.notify_one();
    }

    /// Stops it and waits until it has: what it has published by then is settled.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait; it still stops.
    pub async fn stop(&self) {
        self.tasks.shut_down().await;
    }
}

impl Work {
    fn counts(&self) -> RelayCounts {
        // Ordering: counts; nobody relies on them agreeing.
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        RelayCounts {
            published: count(&self.published),
            repeated: count(&self.repeated),
            unknown: count(&self.unknown),
            given_back: count(&self.given_back),
            held: count(&self.held),
            unroutable: count(&self.unroutable),
            refused: count(&self.refused),
            skipped: count(&self.skipped),
        }
    }

    fn paused(&self) -> Option<Paused> {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sees whether it is paused by now.
    async fn look_at_pause(&self) -> Result<(), RelayError> {
        let found = pause::read(&self.store, self.subscription.name()).await?;
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner) = found;
        Ok(())
    }

    fn note(&self, standing: Standing, error: Option<String>) {
        let mut noted = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        noted.0 = standing;
        if let Some(what) = error {
            noted.1 = Some((self.store.env().wall(), what));
        }
    }

    async fn run(self: Arc<Self>, tasks: Tasks) {
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
            Err(SubscriptionError::NotFound { .. } | SubscriptionError::Store(StoreError::Closed)) => {
                return Round::Over;
            }
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
