//! The handle of a relay at work, and what it shares with the messenger.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use quorate_data::{
    store::Store,
    subscription::{self, Selection, Subscription, SubscriptionError, Subscriptions},
};
use quorate_foundations::{name::Name, time::Wall};
use quorate_runtime::tasks::Tasks;
use tokio::sync::{Mutex as AsyncMutex, Notify};

use super::{Paused, RelayConfig, RelayError, pause};
use crate::transports::Transport;

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

pub(super) struct Work {
    pub(super) store: Store,
    pub(super) subscription: Subscription,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) config: RelayConfig,
    pub(super) owner: Arc<str>,
    /// Rung when there may be something to do that the log does not tell of.
    pub(super) bell: Notify,
    /// Whether events may rest after a failure.
    pub(super) has_resting: AtomicBool,
    /// As last seen.
    pub(super) paused: Mutex<Option<Paused>>,
    /// Held while the store is asked whether it is paused, or told, until the answer is noted: an older one must not come behind a newer one.
    pub(super) looking: AsyncMutex<()>,
    /// Held during a round, so that whoever pauses it can wait for its end.
    pub(super) turn: AsyncMutex<()>,
    pub(super) standing: Mutex<(Standing, Option<(Wall, String)>)>,
    pub(super) published: AtomicU64,
    pub(super) repeated: AtomicU64,
    pub(super) unknown: AtomicU64,
    pub(super) given_back: AtomicU64,
    pub(super) held: AtomicU64,
    pub(super) unroutable: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) skipped: AtomicU64,
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
            looking: AsyncMutex::default(),
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

    /// Whether it has ended: it was stopped, or its subscription is gone.
    pub fn has_ended(&self) -> bool {
        self.work.standing.lock().unwrap_or_else(PoisonError::into_inner).0 == Standing::Stopped
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
    /// [`RelayError::Store`]: after [`StoreError::OutcomeUnknown`](quorate_data::store::StoreError::OutcomeUnknown) it may be paused.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait; it may be paused.
    pub async fn pause(&self, reason: &str) -> Result<(), RelayError> {
        let looking = self.work.looking.lock().await;
        let paused = pause::pause(&self.work.store, self.name(), reason).await?;
        self.work.is_paused(Some(paused));
        drop(looking);
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
        let looking = self.work.looking.lock().await;
        pause::resume(&self.work.store, self.name()).await?;
        self.work.is_paused(None);
        drop(looking);
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
    pub(super) fn counts(&self) -> RelayCounts {
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

    pub(super) fn paused(&self) -> Option<Paused> {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sees whether it is paused by now.
    pub(super) async fn look_at_pause(&self) -> Result<(), RelayError> {
        let _looking = self.looking.lock().await;
        let found = pause::read(&self.store, self.subscription.name()).await?;
        self.is_paused(found);
        Ok(())
    }

    pub(super) fn is_paused(&self, paused: Option<Paused>) {
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner) = paused;
    }

    pub(super) fn note(&self, standing: Standing, error: Option<String>) {
        let mut noted = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        noted.0 = standing;
        if let Some(what) = error {
            noted.1 = Some((self.store.env().wall(), what));
        }
    }
}
