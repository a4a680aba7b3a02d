//! A world for tests: a real store in a folder of its own, and a clock that moves when told to.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use quorate_foundations::{
    name::Name,
    time::{Boot, Mono, Wall},
};
use quorate_runtime::{
    BoxFuture, Env, EnvParts,
    blocking::{Blocking, Dedicated, Kick, Work},
    clock::Clocks,
    random::Random,
    tasks::Tasks,
};
use tokio::sync::watch;

use super::super::{Config, Delivery, Pull, Subscription, Subscriptions};
use crate::{
    event::{NewEvent, Position, Tags, Version},
    store::{AppendBatch, ExpectedVersion, Limits, Retire, Store, sqlite},
};

/// A store that can be closed and opened again, and the clocks it goes by.
pub(super) struct World {
    folder: tempfile::TempDir,
    clock: Clock,
    env: Env,
    pub(super) forgetting: Arc<Forgetting>,
    limits: Limits,
}

#[derive(Clone)]
struct Clock(Arc<watch::Sender<u64>>);

/// A day after the clocks' beginning, so that nothing holds only near zero.
const BEGINNING: u64 = 86_400_000_000_000;

impl Clocks for Clock {
    fn wall(&self) -> Wall {
        Wall::from_unix_nanos(self.0.borrow().cast_signed())
    }

    fn mono(&self) -> Mono {
        Mono::from_nanos(*self.0.borrow())
    }

    fn boot(&self) -> Boot {
        Boot::from_nanos(*self.0.borrow())
    }

    fn sleep_until(&self, due: Mono) -> BoxFuture<'static, ()> {
        let mut reading = self.0.subscribe();
        Box::pin(async move {
            let reached = reading.wait_for(|nanos| *nanos >= due.as_nanos()).await.is_ok();
            if !reached {
                std::future::pending::<()>().await;
            }
        })
    }
}

/// Something else that the store forgets after each of the next reads of its file.
#[derive(Default)]
pub(super) struct Forgetting {
    store: Mutex<Option<Store>>,
    left: AtomicU64,
    version: AtomicU64,
}

impl Forgetting {
    /// The stream that is truncated, event by event.
    pub(super) const STREAM: &str = "forgotten-all-the-time";

    /// After each of the next `reads` an event of [`STREAM`](Self::STREAM) is forgotten.
    pub(super) fn begin(&self, store: &Store, reads: u64) {
        *self.store.lock().unwrap_or_else(PoisonError::into_inner) = Some(store.clone());
        self.left.store(reads, Ordering::Relaxed);
    }

    /// Whether there was something to forget for every read.
    pub(super) fn goes_on(&self) -> bool {
        self.left.load(Ordering::Relaxed) > 0
    }

    async fn go_on(self: Arc<Self>) {
        let is_due = |left: u64| left.checked_sub(1);
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_due).is_err() {
            return;
        }
        // What it reads itself does not count.
        let Some(store) = self.store.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let before = Version::new(self.version.fetch_add(1, Ordering::Relaxed) + 2);
        store.retire(name(Self::STREAM), Retire::Truncate { before }).await.unwrap();
        *self.store.lock().unwrap_or_else(PoisonError::into_inner) = Some(store);
    }
}

/// Blocking work inline, and dedicated workers as tasks.
struct Inline(Tasks, Arc<Forgetting>);

impl Blocking for Inline {
    fn run(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        job();
        Box::pin(self.1.clone().go_on())
    }

    fn dedicate(&self, _name: &str, worker: Box<dyn Dedicated>) -> Kick {
        let (worker, tasks) = (Arc::new(Mutex::new(Some(worker))), self.0.clone());
        Kick::new(move || {
            let worker = worker.clone();
            tasks.spawn("worker", async move {
                let mut worker = worker.lock().unwrap_or_else(PoisonError::into_inner);
                if worker.as_mut().is_some_and(|worker| worker.work() == Work::Over) {
                    *worker = None;
                }
            });
        })
    }
}

impl World {
    pub(super) fn new() -> Self {
        let real = Env::real();
        let clock = Clock(Arc::new(watch::Sender::new(BEGINNING)));
        let forgetting = Arc::new(Forgetting::default());
        let env = Env::from_parts(EnvParts {
            clocks: Arc::new(clock.clone()),
            random: Random::from_seed([7; 32]),
            disk: real.disk().clone(),
            net: real.net().clone(),
            blocking: Arc::new(Inline(real.tasks().clone(), forgetting.clone())),
            tasks: real.tasks().clone(),
            metrics: Arc::default(),
            probe: Arc::new(quorate_runtime::probe::NoProbe),
            fatal: Arc::new(|why| panic!("{why}")),
        });
        Self { folder: tempfile::tempdir().unwrap(), clock, env, forgetting, limits: Limits::default() }
    }

    /// A world whose stores accept no more than that.
    pub(super) fn limited(limits: Limits) -> Self {
        Self { limits, ..Self::new() }
    }

    /// A world whose clocks are those of this machine.
    pub(super) fn of_this_machine() -> Self {
        Self { env: Env::real(), ..Self::new() }
    }

    pub(super) async fn open(&self) -> Store {
        let config = sqlite::Config::at(self.folder.path().join("log.db"));
        sqlite::open(&self.env, sqlite::Config { limits: self.limits.clone(), ..config }).await.unwrap()
    }

    pub(super) fn pass(&self, span: Duration) {
        self.clock.0.send_modify(|nanos| *nanos += u64::try_from(span.as_nanos()).unwrap());
    }

    /// A store, and a subscription in it.
    pub(super) async fn with(&self, config: Config) -> (Store, Subscription) {
        let store = self.open().await;
        let subscription = self.subscriptions(&store).await.create(&name("workers"), config).await.unwrap();
        (store, subscription)
    }

    pub(super) async fn subscriptions(&self, store: &Store) -> Subscriptions {
        Subscriptions::open(store).await.unwrap()
    }

    /// The subscription of [`with`](Self::with), after its process ended and another one began.
    pub(super) async fn restart(&self, store: Store) -> (Store, Subscription) {
        store.close().await.unwrap();
        let store = self.open().await;
        let subscription = self.subscriptions(&store).await.get(&name("workers")).await.unwrap();
        (store, subscription)
    }
}

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(super) fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Appends an event of type `kind` to `stream`.
pub(super) async fn append(store: &Store, stream: &str, kind: &str) {
    append_event(store, stream, NewEvent::new(store.event_id(), "/test", kind)).await;
}

/// Appends an event with these tags.
pub(super) async fn append_tagged(store: &Store, stream: &str, tags: &[&str]) {
    let event = NewEvent::new(store.event_id(), "/test", "happened").tagged(Tags::new(tags).unwrap());
    append_event(store, stream, event).await;
}

pub(super) async fn append_event(store: &Store, stream: &str, event: NewEvent) {
    store.append(AppendBatch::to(name(stream), ExpectedVersion::Any, vec![event])).await.unwrap();
}

/// Appends `count` events of type `kind` to `stream` at once.
pub(super) async fn append_many(store: &Store, stream: &str, kind: &str, count: usize) {
    let events = (0..count).map(|_| NewEvent::new(store.event_id(), "/test", kind)).collect();
    store.append(AppendBatch::to(name(stream), ExpectedVersion::Any, events)).await.unwrap();
}

pub(super) fn places(deliveries: &[Delivery]) -> Vec<u64> {
    deliveries.iter().map(|delivery| delivery.event.position().get()).collect()
}

pub(super) fn position(n: u64) -> Position {
    Position::new(n)
}

impl Subscription {
    /// Takes up to `max` events without waiting.
    pub(super) async fn takes(&self, max: usize) -> Vec<Delivery> {
        self.pull(Pull::of(max)).await.unwrap()
    }
}

/// The places of no deliveries.
pub(super) const NOTHING: [u64; 0] = [];
