//! The handle of an inbox at work.

use std::sync::{
    Arc, Mutex, PoisonError, Weak,
    atomic::{AtomicU64, Ordering},
};

use quorate_data::store::{self, DynTx, Store};
use quorate_foundations::{name::Name, time::Wall};
use quorate_runtime::{BoxFuture, tasks::Tasks};
use tokio::sync::{Mutex as AsyncMutex, RwLock, watch};

use super::{
    Failed, InboxConfig, InboxError, Parked,
    handling::{Became, Handler},
    rows,
};
use crate::transports::{Incoming, Transport};

/// An inbox at work. Cheap to clone; clones are the same. Dropping it stops nothing: it works until it is [stopped](Self::stop), or the environment's tasks are
/// told to stop.
#[derive(Clone)]
pub struct Inbox {
    pub(super) work: Arc<Work>,
    tasks: Tasks,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").field("name", self.name()).field("counts", &self.counts()).finish_non_exhaustive()
    }
}

/// What an inbox did since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InboxCounts {
    /// Messages that took effect.
    pub done: u64,
    /// Messages that came once more, and had taken effect.
    pub repeated: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Messages that were parked, or came again and were parked by then.
    pub parked: u64,
    /// Messages that the store could not take, so that the broker kept them.
    pub held_back: u64,
}

/// What an inbox does right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It receives, or waits for messages.
    Receiving,
    /// It waits for the broker, or for the store.
    Waiting,
    /// It has ended.
    Stopped,
}

/// How an inbox stands.
#[derive(Clone, Debug)]
pub struct Description {
    /// What it does.
    pub standing: Standing,
    /// Its transport.
    pub transport: &'static str,
    /// What went wrong last, and when, by the wall clock.
    pub last_error: Option<(Wall, String)>,
    /// What it did since it was started.
    pub counts: InboxCounts,
    /// How many messages are parked.
    pub parked: usize,
}

pub(super) struct Work {
    pub(super) store: Store,
    pub(super) ids: store::Inbox,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) consumer: Name,
    pub(super) config: InboxConfig,
    pub(super) handler: Handler,
    /// Held by every message that is handled, with others; by one that may have ended the process before, alone.
    pub(super) alone: RwLock<()>,
    /// Held while parked messages are handled or given up.
    pub(super) replaying: AsyncMutex<()>,
    /// How many deliveries were settled.
    pub(super) bell: watch::Sender<u64>,
    me: Weak<Work>,
    standing: Mutex<(Standing, Option<(Wall, String)>)>,
    done: AtomicU64,
    repeated: AtomicU64,
    failed: AtomicU64,
    parked: AtomicU64,
    held_back: AtomicU64,
}

impl Inbox {
    /// The most entries of a listing.
    pub const MAX_PAGE: u32 = 1_000;

    /// Starts an inbox. `handler` does what a message says, in the transaction that records it; it may be run again, and must await nothing but the
    /// transaction.
    ///
    /// The broker may be away: then the inbox waits for it.
    ///
    /// # Errors
    /// [`InboxError`] for a configuration that is out of range, and where the store cannot keep the tables.
    pub async fn start<F>(
        store: &Store,
        transport: Arc<dyn Transport>,
        config: InboxConfig,
        handler: F,
    ) -> Result<Self, InboxError>
    where
        F: for<'t> Fn(&'t mut DynTx, Arc<Incoming>) -> BoxFuture<'t, Result<(), Failed>> + Send + Sync + 'static,
    {
        config.check()?;
        store.declare(rows::TABLES).await?;
        store.on_erase("inbox", Arc::new(|store, subject| Box::pin(rows::forget(store, subject))));
        let consumer = config.consumer.clone();
        let ids = store::Inbox::open(store, consumer.clone()).await?;
        let work = Arc::new_cyclic(|me| Work {
            store: store.clone(),
            ids,
            transport,
            consumer,
            config,
            handler: Arc::new(handler),
            alone: RwLock::default(),
            replaying: AsyncMutex::default(),
            bell: watch::Sender::new(0),
            me: me.clone(),
            standing: Mutex::new((Standing::Waiting, None)),
            done: AtomicU64::default(),
            repeated: AtomicU64::default(),
            failed: AtomicU64::default(),
            parked: AtomicU64::default(),
            held_back: AtomicU64::default(),
        });
        // The group is there when this returns, unless the broker is away: what is published from then on is for it.
        if let Err(cause) = work.transport.join(&work.config.topic, &work.config.group).await {
            work.note(Standing::Waiting, Some(cause.to_string()));
        }
        let tasks = store.env().tasks().child("inbox");
        tasks.spawn("inbox", work.clone().receive(tasks.clone()));
        tasks.spawn("inbox: given up", work.clone().bring_in(tasks.clone()));
        tasks.spawn("inbox: old ids", work.clone().sweep(tasks.clone()));
        Ok(Self { work, tasks })
    }

    /// Under which name it keeps ids and parked messages.
    pub fn name(&self) -> &Name {
        &self.work.consumer
    }

    /// As it was started.
    pub fn config(&self) -> &InboxConfig {
        &self.work.config
    }

    /// What it did since it was started.
    pub fn counts(&self) -> InboxCounts {
        // Ordering: counts; nobody relies on them agreeing.
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let work = &self.work;
        InboxCounts {
            done: count(&work.done),
            repeated: count(&work.repeated),
            failed: count(&work.failed),
            parked: count(&work.parked),
            held_back: count(&work.held_back),
        }
    }

    /// How it stands.
    pub async fn describe(&self) -> Result<Description, InboxError> {
        let parked = rows::parked_count(&self.work.store, &self.work.consumer).await?;
        let (standing, last_error) = self.work.standing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let transport = self.work.transport.capabilities().name;
        Ok(Description { standing, transport, last_error, counts: self.counts(), parked })
    }

    /// Parked messages in order of their places: `limit` (1 to [`MAX_PAGE`](Self::MAX_PAGE)) of those behind `after`.
    pub async fn parked(&self, after: u64, limit: u32) -> Result<Vec<Parked>, InboxError> {
        let max = Self::MAX_PAGE;
        if !(1..=max).contains(&limit) {
            return Err(InboxError::Invalid { what: format!("`limit` is 1 to {max}, {limit} was asked for") });
        }
        rows::page(&self.work.store, &self.work.consumer, after, limit).await
    }

    /// Waits until so many deliveries were settled since it was started, however that went. For tests, and for those who count.
    pub async fn settled(&self, count: u64) {
        let mut bell = self.work.bell.subscribe();
        // It ends with the inbox at the latest, which this handle holds.
        let _reached = bell.wait_for(|settled| *settled >= count).await;
    }

    /// Takes no more messages and waits until those that are being handled are settled.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait; it still stops.
    pub async fn stop(&self) {
        self.tasks.shut_down().await;
    }
}

impl Work {
    /// Itself, for a transaction that may outlive whoever waits for it.
    pub(super) fn shared(&self) -> Arc<Self> {
        self.me.upgrade().unwrap_or_else(|| unreachable!("invariant: whoever calls this holds it"))
    }

    pub(super) fn wall(&self) -> Wall {
        self.store.env().wall()
    }

    pub(super) fn note(&self, standing: Standing, error: Option<String>) {
        let mut noted = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        noted.0 = standing;
        if let Some(what) = error {
            noted.1 = Some((self.wall(), what));
        }
    }

    pub(super) fn count(&self, became: &Result<Became, InboxError>) {
        let counter = match became {
            Ok(Became::Done) => &self.done,
            Ok(Became::Repeated) => &self.repeated,
            Ok(Became::Parked) => &self.parked,
            Ok(Became::Again { reason, .. }) => {
                tracing::debug!(inbox = %self.consumer, reason, "a message failed and comes again");
                &self.failed
            }
            Err(_) => &self.held_back,
        };
        // Ordering: a count.
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
