//! Workers: a pool that takes messages, calls a handler with what they say, and settles them, so that nobody writes that loop.

mod job;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use quorate_data::store::StoreError;
use quorate_runtime::{BoxFuture, tasks::Tasks};
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, watch};

use self::job::Held;
pub use self::job::{Failed, Job};
use super::{Config, Delivery, Message, Queue, QueueError, Receive};

/// How long the pool waits for a message before it asks again.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it rests after the store failed.
const REST: Duration = Duration::from_secs(1);

/// How a pool works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerConfig {
    /// Handlers that run at once; no more messages are held. 1 to [`Receive::MAX`]. Default 4.
    pub concurrency: usize,
    /// How long a message is held at a time; that is renewed for as long as its handler runs. `None`: as the queue says.
    pub lease_ttl: Option<Duration>,
    /// How long a handler may take before its message counts as failed this time. Default 10 min.
    pub time_limit: Duration,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self { concurrency: 4, lease_ttl: None, time_limit: Duration::from_secs(600) }
    }
}

impl WorkerConfig {
    fn check(&self) -> Result<(), QueueError> {
        let max = Receive::MAX;
        if !(1..=max).contains(&self.concurrency) {
            let asked = self.concurrency;
            return Err(QueueError::invalid(format!("`concurrency` is 1 to {max}, {asked} was asked for")));
        }
        self.lease_ttl.map_or(Ok(()), |ttl| Config::check_ttl("lease-ttl", ttl))
    }
}

/// What came of the messages that a pool was handed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerCounts {
    /// Handlers that run.
    pub running: usize,
    /// Messages that are done.
    pub done: u64,
    /// Attempts that failed: the handler said so, panicked, or took too long.
    pub failed: u64,
    /// Messages that were set aside: the handler said so, or nobody could read them.
    pub parked: u64,
    /// Messages that somebody else had before their handler was done, so that it was stopped.
    pub lost: u64,
}

/// A pool at work. Dropping this stops nothing: it works until it is [drained](Self::drain), its queue is deleted or the
/// environment's tasks are told to stop; in the last case handlers that run are waited for.
pub struct Workers {
    pool: Arc<Pool>,
    /// The pool's branch of the task tree.
    tasks: Tasks,
    given_up: watch::Sender<bool>,
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers")
            .field("queue", self.pool.queue.name())
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

impl Workers {
    /// What came of the messages so far.
    pub fn counts(&self) -> WorkerCounts {
        self.pool.counts()
    }

    /// Takes no more messages and waits until the handlers that run are done. Those that still run after `patience` are stopped, and their
    /// messages can be handed to others at once; the attempt counts. Returns how many those were.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait; the pool takes no more messages, and its handlers run to their end.
    pub async fn drain(self, patience: Duration) -> usize {
        let env = self.pool.queue.core.store.env().clone();
        if env.timeout(patience, self.tasks.shut_down()).await.is_some() {
            return 0;
        }
        let stopped = self.pool.counts().running;
        self.given_up.send_replace(true);
        self.tasks.shut_down().await;
        stopped
    }
}

/// Does a message's work.
type Handler = Box<dyn Fn(&Arc<Held>) -> Result<BoxFuture<'static, Result<(), Failed>>, String> + Send + Sync>;

/// What all tasks of a pool share.
struct Pool {
    queue: Queue,
    config: WorkerConfig,
    handler: Handler,
    running: AtomicUsize,
    done: AtomicU64,
    failed: AtomicU64,
    parked: AtomicU64,
    lost: AtomicU64,
}

impl Queue {
    /// Has `handler` do the work of messages whose data is JSON of a `T`, several at once.
    ///
    /// A message is acknowledged when its handler returns `Ok`, unless the handler did that in a transaction of its own
    /// ([`Job::ack_in`]): its work is then done exactly once. What fails comes again as the queue's configuration says; a
    /// handler that panics or takes too long has failed. Data that is no `T` makes a dead letter at once: it would be none the next time.
    /// While a handler runs, its message is held; if it is lost all the same, the handler's future is dropped where it waits.
    ///
    /// # Errors
    /// [`QueueError::Invalid`] for a configuration that is out of range.
    ///
    /// # Panics
    /// Outside of a runtime, where no task can be spawned.
    ///
    /// # Example
    /// ```
    /// # use quorate_communication::message_queue::*;
    /// # use quorate_data::store::Store;
    /// #[derive(serde::Deserialize)]
    /// struct Mail {
    ///     to: String,
    /// }
    ///
    /// # fn example(store: Store, mails: Queue) -> Result<(), QueueError> {
    /// let workers = mails.work(WorkerConfig::default(), move |job: Job<Mail>| {
    ///     let store = store.clone();
    ///     async move {
    ///         let counting = job.clone();
    ///         let counted = store.transact(move |tx| {
    ///             let job = counting.clone();
    ///             Box::pin(async move {
    ///                 tx.execute("INSERT INTO sent (address) VALUES ($1)", &[job.body().to.as_str().into()]).await?;
    ///                 job.ack_in(tx).await
    ///             })
    ///         });
    ///         counted.await?;
    ///         Ok(())
    ///     }
    /// })?;
    /// # let _ = workers;
    /// # Ok(())
    /// # }
    /// ```
    pub fn work<T, F, R>(&self, config: WorkerConfig, handler: F) -> Result<Workers, QueueError>
    where
        T: DeserializeOwned + Send + Sync + 'static,
        F: Fn(Job<T>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), Failed>> + Send + 'static,
    {
        self.work_as(
            config,
            |message| serde_json::from_slice(message.event.data.as_deref().unwrap_or(b"null")),
            handler,
        )
    }

    /// As [`work`](Self::work), with the message as it is.
    pub fn work_on_messages<F, R>(&self, config: WorkerConfig, handler: F) -> Result<Workers, QueueError>
    where
        F: Fn(Job<Arc<Message>>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), Failed>> + Send + 'static,
    {
        self.work_as(config, |message| Ok::<_, std::convert::Infallible>(message.clone()), handler)
    }

    fn work_as<T, E, F, R>(
        &self,
        config: WorkerConfig,
        read: fn(&Arc<Message>) -> Result<T, E>,
        handler: F,
    ) -> Result<Workers, QueueError>
    where
        T: Send + Sync + 'static,
        E: std::fmt::Display + 'static,
        F: Fn(Job<T>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), Failed>> + Send + 'static,
    {
        config.check()?;
        let handler: Handler = Box::new(move |held| {
            let body = read(&held.delivery.message).map_err(|wrong| wrong.to_string())?;
            Ok(Box::pin(handler(Job::new(held.clone(), body))))
        });
        let pool = Arc::new(Pool {
            queue: self.clone(),
            config,
            handler,
            running: AtomicUsize::default(),
            done: AtomicU64::default(),
            failed: AtomicU64::default(),
            parked: AtomicU64::default(),
            lost: AtomicU64::default(),
        });
        let tasks = self.core.store.env().tasks().child("workers");
        let given_up = watch::Sender::new(false);
        tasks.spawn("workers", pool.clone().run(tasks.clone(), given_up.subscribe()));
        Ok(Workers { pool, tasks, given_up })
    }
}

impl Pool {
    fn counts(&self) -> WorkerCounts {
        // Ordering: counts; nobody relies on them agreeing.
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        WorkerCounts {
            running: self.running.load(Ordering::Relaxed),
            done: count(&self.done),
            failed: count(&self.failed),
            parked: count(&self.parked),
            lost: count(&self.lost),
        }
    }

    /// Takes messages and has each worked on by a task of its own, until it is told to stop.
    async fn run(self: Arc<Self>, tasks: Tasks, given_up: watch::Receiver<bool>) {
        let places = Arc::new(Semaphore::new(self.config.concurrency));
        loop {
            let taken = tokio::select! {
                biased;
                () = tasks.stop().cancelled() => return,
                taken = self.take(&places) => taken,
            };
            match taken {
                Ok(deliveries) => {
                    for delivery in deliveries {
                        // Nobody else takes places: there are as many as messages were asked for.
                        let Ok(place) = places.clone().try_acquire_owned() else { continue };
                        let (pool, given_up) = (self.clone(), given_up.clone());
                        // Ordering: a count.
                        self.running.fetch_add(1, Ordering::Relaxed);
                        tasks.spawn("job", async move {
                            pool.handle(delivery, given_up).await;
                            pool.running.fetch_sub(1, Ordering::Relaxed);
                            drop(place);
                        });
                    }
                }
                Err(QueueError::NotFound { .. } | QueueError::Store(StoreError::Closed)) => return,
                Err(cause) => {
                    tracing::warn!(queue = %self.queue.name(), %cause, "no messages could be taken; it is tried again");
                    tokio::select! {
                        () = tasks.stop().cancelled() => return,
                        () = self.queue.core.store.env().sleep(REST) => {}
                    }
                }
            }
        }
    }

    /// Waits for a free place, and then for messages, of which there are no more than places.
    async fn take(&self, places: &Semaphore) -> Result<Vec<Delivery>, QueueError> {
        // Nobody closes it.
        drop(places.acquire().await);
        let receive = Receive { max: places.available_permits().max(1), wait: PATIENCE, ttl: self.config.lease_ttl };
        self.queue.receive(receive).await
    }
}
