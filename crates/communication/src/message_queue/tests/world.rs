//! A world for tests: a real store in a folder of its own, and a clock that moves when told to.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quorate_data::{
    event::NewEvent,
    store::{DynTx, Limits, Store, TransactError, Value, sqlite},
};
use quorate_foundations::{
    name::Name,
    time::{Boot, Mono, Wall},
};
use quorate_runtime::{
    BoxFuture, Env, EnvParts,
    blocking::{Blocking, Dedicated, Kick, Work},
    clock::Clocks,
    probe::Probe,
    random::Random,
    tasks::Tasks,
};
use tokio::sync::watch;

use crate::message_queue::{Config, Delivery, NewMessage, Queue, QueueError, Queues, Receive, Sent};

/// A store that can be closed and opened again, and the clocks it goes by.
pub(crate) struct World {
    folder: tempfile::TempDir,
    clock: Clock,
    env: Env,
    limits: Limits,
    reached: Reached,
}

/// How often states were reached.
#[derive(Clone, Default)]
struct Reached(Arc<Mutex<BTreeMap<&'static str, usize>>>);

impl Probe for Reached {
    fn buggify(&self, _: &'static str) -> bool {
        false
    }

    fn reached(&self, state: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(state).or_default() += 1;
    }
}

/// The steady clocks, and how far the wall clock was set away from them.
#[derive(Clone)]
struct Clock(Arc<watch::Sender<u64>>, Arc<Mutex<i64>>);

/// A day after the clocks' beginning, so that nothing holds only near zero.
const BEGINNING: u64 = 86_400_000_000_000;

impl Clocks for Clock {
    fn wall(&self) -> Wall {
        let away = *self.1.lock().unwrap_or_else(PoisonError::into_inner);
        Wall::from_unix_nanos(self.0.borrow().cast_signed() + away)
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

/// Blocking work inline, and dedicated workers as tasks.
struct Inline(Tasks);

impl Blocking for Inline {
    fn run(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        job();
        Box::pin(std::future::ready(()))
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
    pub(crate) fn new() -> Self {
        let real = Env::real();
        let clock = Clock(Arc::new(watch::Sender::new(BEGINNING)), Arc::default());
        let reached = Reached::default();
        let env = Env::from_parts(EnvParts {
            clocks: Arc::new(clock.clone()),
            random: Random::from_seed([7; 32]),
            disk: real.disk().clone(),
            net: real.net().clone(),
            blocking: Arc::new(Inline(real.tasks().clone())),
            tasks: real.tasks().clone(),
            metrics: Arc::default(),
            probe: Arc::new(reached.clone()),
            fatal: Arc::new(|why| panic!("{why}")),
        });
        Self { folder: tempfile::tempdir().unwrap(), clock, env, limits: Limits::default(), reached }
    }

    /// A world whose store answers an application's query with at most 128 KiB, as a node's does.
    pub(crate) fn of_small_pages() -> Self {
        Self { limits: Limits { page_bytes: 128 << 10, ..Limits::default() }, ..Self::new() }
    }

    /// A world whose clocks and threads are those of this machine.
    pub(crate) fn of_this_machine() -> Self {
        Self { env: Env::real(), ..Self::new() }
    }

    pub(crate) async fn open(&self) -> Store {
        let config = sqlite::Config::at(self.folder.path().join("log.db"));
        sqlite::open(&self.env, sqlite::Config { limits: self.limits.clone(), ..config }).await.unwrap()
    }

    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    /// How often `state` was reached.
    pub(crate) fn reached(&self, state: &str) -> usize {
        self.reached.0.lock().unwrap().get(state).copied().unwrap_or_default()
    }

    /// Lets so much time pass on all clocks.
    pub(crate) fn pass(&self, span: Duration) {
        self.clock.0.send_modify(|nanos| *nanos += u64::try_from(span.as_nanos()).unwrap());
    }

    /// Sets the wall clock so many seconds forward, or back.
    pub(crate) fn set_wall(&self, seconds: i64) {
        *self.clock.1.lock().unwrap() += seconds * 1_000_000_000;
    }

    /// A store, and a queue in it.
    pub(crate) async fn with(&self, config: Config) -> (Store, Queue) {
        let store = self.open().await;
        let queue = Queues::open(&store).await.unwrap().declare(&name("work"), config).await.unwrap();
        (store, queue)
    }

    /// The queue of [`with`](Self::with), after its process ended and another one began.
    pub(crate) async fn restart(&self, store: Store) -> (Store, Queue) {
        store.close().await.unwrap();
        let store = self.open().await;
        let queue = Queues::open(&store).await.unwrap().get(&name("work")).unwrap();
        (store, queue)
    }
}

/// Runs `task` beside the test; its result arrives by itself.
pub(crate) fn beside<T: Send + 'static>(
    store: &Store,
    task: impl Future<Output = T> + Send + 'static,
) -> tokio::sync::oneshot::Receiver<T> {
    let (reply, result) = tokio::sync::oneshot::channel();
    store.env().tasks().spawn("beside", async move { drop(reply.send(task.await)) });
    result
}

/// A consumer that waits so many seconds for a message, once it does. There must be none for it.
pub(crate) async fn waits(
    store: &Store,
    queue: &Queue,
    patience: u64,
) -> tokio::sync::oneshot::Receiver<Result<Vec<Delivery>, QueueError>> {
    let waiter = queue.clone();
    let waiting = beside(store, async move { waiter.receive(Receive::of(1).waiting(seconds(patience))).await });
    while queue.describe().await.unwrap().consumers == 0 {
        tokio::task::yield_now().await;
    }
    waiting
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A message of this id.
pub(crate) fn message(id: &str) -> NewMessage {
    NewMessage::of(NewEvent::new(id, "/test", "work.due").json(format!(r#"{{"id":"{id}"}}"#)))
}

/// The ids of deliveries.
pub(crate) fn ids(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|delivery| &*delivery.message.event.id).collect()
}

/// What the application's table counted, by id.
pub(crate) async fn done(store: &Store) -> Vec<(String, i64)> {
    let rows = store.query("SELECT id, times FROM done ORDER BY id", vec![]).await.unwrap();
    rows.iter().map(|row| (row.at(0).as_str().unwrap().to_owned(), row.at(1).as_i64().unwrap())).collect()
}

/// Makes the application's table.
pub(crate) async fn with_table(store: &Store) {
    let made = store.transact(|tx| {
        Box::pin(async move {
            tx.execute("CREATE TABLE IF NOT EXISTS done (id TEXT PRIMARY KEY, times BIGINT NOT NULL)", &[]).await
        })
    });
    made.await.unwrap();
}

/// Counts a message in the application's table.
pub(crate) async fn count(tx: &mut DynTx, id: &str) -> Result<(), QueueError> {
    let sql = "INSERT INTO done (id, times) VALUES ($1, 1) ON CONFLICT (id) DO UPDATE SET times = times + 1";
    tx.execute(sql, &[Value::from(id)]).await?;
    Ok(())
}

/// Does a message's work, and settles it in the same transaction.
pub(crate) async fn work(store: &Store, queue: &Queue, delivery: &Delivery) -> Result<(), TransactError<QueueError>> {
    let (queue, lease, id) = (queue.clone(), delivery.lease, delivery.message.event.id.clone());
    let unit = store.transact(move |tx| {
        let (queue, id) = (queue.clone(), id.clone());
        Box::pin(async move {
            count(tx, &id).await?;
            queue.ack_in(tx, &lease).await
        })
    });
    unit.await
}

impl Queue {
    /// Takes up to `max` messages without waiting.
    pub(crate) async fn takes(&self, max: usize) -> Vec<Delivery> {
        self.receive(Receive::of(max)).await.unwrap()
    }

    /// Sends messages of these ids.
    pub(crate) async fn sends(&self, ids: &[&str]) -> Vec<Sent> {
        self.send(ids.iter().map(|id| message(id)).collect()).await.unwrap()
    }

    /// How many messages are in it.
    pub(crate) async fn holds(&self) -> usize {
        self.describe().await.unwrap().counts.messages
    }
}
