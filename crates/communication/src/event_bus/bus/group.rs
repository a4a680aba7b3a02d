//! Groups: consumers that share the events they hear.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, StreamExt as _, stream::FuturesUnordered};
use quorate_data::{
    event::Recorded,
    schema::{upcast::Versioned, version_of},
    store::{Retry, StoreError},
    subscription::{Config, Delivery, Lease, Pull, Subscription, SubscriptionError},
};
use quorate_foundations::{name::Name, time::Mono};
use quorate_runtime::{BoxFuture, Env};

use super::{
    Bus, Handlers,
    handlers::{Held, Untold, told},
};
use crate::message_queue::Failed;

/// How long one pull waits.
const WAIT: Duration = Duration::from_secs(30);
/// How long the group rests when the store or the window does not let it go on.
const REST: Duration = Duration::from_secs(1);
/// How long handlers may go on when the process stops; what has not ended then is heard again when its lease has run.
const GRACE: Duration = Duration::from_secs(10);
/// How often settling is tried; then the lease has to run out.
const TRIES: u32 = 5;

/// Consumers that share the events they hear, in this process and in others. Cheap to clone.
#[derive(Clone)]
pub struct Group {
    bus: Bus,
    subscription: Subscription,
    concurrency: usize,
    counts: Arc<Counters>,
}

#[derive(Default)]
struct Counters {
    handled: AtomicU64,
    failed: AtomicU64,
    passed_over: AtomicU64,
}

/// What came of a group's events in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupCounts {
    /// Handlers that did their work.
    pub handled: u64,
    /// Attempts that did not.
    pub failed: u64,
    /// Events that no handler was for, or whose data is gone.
    pub passed_over: u64,
}

impl Group {
    pub(super) fn new(bus: Bus, subscription: Subscription) -> Self {
        Self { bus, subscription, concurrency: 16, counts: Arc::default() }
    }

    /// The same, hearing at most `events` at a time in this process (1 to 10,000; 16 unless told otherwise).
    #[must_use]
    pub fn with_concurrency(self, events: usize) -> Self {
        Self { concurrency: events.clamp(1, Config::MAX_WINDOW), ..self }
    }

    /// The subscription that it is: to see how it stands, and what is parked.
    pub fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    /// What came of its events in this process.
    pub fn counts(&self) -> GroupCounts {
        // Ordering: numbers for people.
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counters { handled, failed, passed_over } = &*self.counts;
        GroupCounts { handled: read(handled), failed: read(failed), passed_over: read(passed_over) }
    }

    /// Tells events to `handlers` until the tasks of `env` are told to stop, or the group is deleted. Handlers run beside one another, on the task
    /// that this is awaited on: one that computes for long gives others no time. While one runs, its event is held for it.
    ///
    /// # Cancel safety
    /// Dropping the future drops the handlers; their events are heard again when their leases have run. Stop it through `env` instead.
    pub async fn serve(self, handlers: Handlers, env: Env) {
        let stop = env.tasks().stop().clone();
        let mut running = FuturesUnordered::new();
        let mut pull: Option<BoxFuture<'_, Result<Vec<Delivery>, SubscriptionError>>> = None;
        let (mut stopping, mut paused) = (None, Mono::ZERO);
        loop {
            if stopping.is_some() && running.is_empty() {
                return;
            }
            let free = self.concurrency.saturating_sub(running.len());
            let is_paused = env.mono() < paused;
            if pull.is_none() && free > 0 && stopping.is_none() && !is_paused {
                let pulled = Pull::of(free).waiting(WAIT).by("bus");
                pull = Some(Box::pin(self.subscription.pull(pulled)));
            }
            tokio::select! {
                biased;
                () = stop.cancelled(), if stopping.is_none() => {
                    stopping = Some(env.mono() + GRACE);
                    // What it was handed just now goes back as if it had not been.
                    if let Some(Ok(handed)) = pull.take().and_then(FutureExt::now_or_never) {
                        let leases: Vec<Lease> = handed.iter().map(|one| one.lease).collect();
                        let _best_effort = self.subscription.give_back(&leases).await;
                    }
                }
                () = env.sleep_until(stopping.unwrap_or_default()), if stopping.is_some() => return,
                () = env.sleep_until(paused), if is_paused => {}
                Some(()) = running.next(), if !running.is_empty() => {}
                pulled = wait_for(&mut pull), if pull.is_some() => {
                    pull = None;
                    match pulled {
                        Ok(deliveries) => running.extend(deliveries.into_iter().map(|one| self.hear(one, &handlers, &env))),
                        Err(SubscriptionError::NotFound { .. } | SubscriptionError::Store(StoreError::Closed)) => {
                            stopping = Some(env.mono() + GRACE);
                        }
                        Err(cause) => {
                            tracing::warn!(group = self.subscription.name().as_str(), %cause, "nothing can be heard for the moment");
                            paused = env.mono() + REST;
                        }
                    }
                }
            }
        }
    }

    /// Tells one event to its handlers and settles it, and holds it until then.
    async fn hear(&self, delivery: Delivery, handlers: &Handlers, env: &Env) {
        let held = Arc::new(Held {
            delivery,
            subscription: self.subscription.clone(),
            settles_itself: AtomicBool::new(false),
            is_followed: AtomicBool::new(false),
        });
        let work = async {
            let fate = self.told(&held, handlers).await;
            self.settle(&held, &fate, env).await;
        };
        tokio::select! {
            biased;
            () = work => {}
            // Somebody else has it: what this one does could only be a second time.
            () = self.hold(&held, env) => {}
        }
    }

    /// Has the lease begin anew until it is lost to somebody else. Beside the work, which goes on meanwhile: it may be in a transaction that
    /// the lease's row waits for.
    async fn hold(&self, held: &Held, env: &Env) {
        loop {
            env.sleep(held.delivery.ttl / 3).await;
            let extended = self.subscription.extend(&[held.delivery.lease], None).await;
            if is_lost(&extended) {
                match held.settles_itself.load(Ordering::Acquire) {
                    true => std::future::pending().await,
                    false => return,
                }
            }
        }
    }

    async fn settle(&self, held: &Held, fate: &Result<(), Failed>, env: &Env) {
        let lease = held.delivery.lease;
        for tried in 1..=TRIES {
            let settled = match fate {
                Ok(()) => self.subscription.ack(&[lease]).await,
                Err(Failed::Again { reason, delay }) => {
                    let rest = delay.map(|delay| delay.min(Config::MAX_TTL));
                    self.subscription.nack(&[lease], rest, reason).await
                }
                Err(Failed::NotNow { reason }) => self.subscription.nack(&[lease], None, reason).await,
                Err(Failed::Park { reason }) => self.subscription.park(&[lease], reason).await,
            };
            // What its own transaction settled is lost to nobody else.
            if is_lost(&settled) && held.settles_itself.load(Ordering::Acquire) {
                return;
            }
            let Err(cause) = settled else { return };
            if tried == TRIES || cause.retry() == Retry::Never {
                tracing::warn!(group = self.subscription.name().as_str(), %cause, "an event could not be settled");
                return;
            }
            env.sleep(Duration::from_millis(100) * tried).await;
        }
    }

    async fn told(&self, held: &Arc<Held>, handlers: &Handlers) -> Result<(), Failed> {
        let said = match read(&held.delivery.event) {
            Ok(Some(stored)) => handlers.call(stored, held, &self.bus).await,
            Ok(None) => None,
            Err(untold) => Some(Err(Failed::park(told(&untold)))),
        };
        let count = match said {
            Some(Ok(())) => &self.counts.handled,
            Some(Err(_)) => &self.counts.failed,
            None => &self.counts.passed_over,
        };
        // Ordering: numbers for people.
        count.fetch_add(1, Ordering::Relaxed);
        said.unwrap_or(Ok(()))
    }
}

fn is_lost(settled: &Result<(), SubscriptionError>) -> bool {
    matches!(settled, Err(SubscriptionError::LeaseLost { .. }))
}

/// The event as upcasters take it; `None` where its data is gone.
fn read(event: &Recorded) -> Result<Option<Versioned>, Untold> {
    let Some(data) = event.data() else {
        // One that never had data says something by having happened.
        let is_gone = event.stub().is_some() || event.erased();
        return if is_gone { Ok(None) } else { versioned(event, serde_json::Value::Null).map(Some) };
    };
    versioned(event, serde_json::from_slice(data).map_err(Untold::Data)?).map(Some)
}

fn versioned(event: &Recorded, data: serde_json::Value) -> Result<Versioned, Untold> {
    let version = version_of(event.schema(), event.kind()).ok_or(Untold::Version)?;
    let event_type = Name::new(event.kind()).map_err(|_| Untold::Version)?;
    Ok(Versioned { event_type, version, data })
}

async fn wait_for<T>(pull: &mut Option<BoxFuture<'_, T>>) -> T {
    match pull {
        Some(pull) => pull.await,
        None => std::future::pending().await,
    }
}
