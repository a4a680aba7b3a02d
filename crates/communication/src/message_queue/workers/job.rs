//! One message at work: its handler runs, its lease is renewed meanwhile, and it is settled by what came of it.

use std::{
    fmt,
    future::pending,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt as _;
use quorate_data::store::{DynTx, StoreError};
use tokio::sync::watch;

use super::Pool;
use crate::message_queue::{Answer, Delivery, Message, Queue, QueueError};

/// How often settling is tried while the store refuses, a second apart.
const TRIES: u32 = 30;
const AGAIN: Duration = Duration::from_secs(1);

/// Why a handler did not do its work.
///
/// Any error becomes one with `?`: the message then comes again as the queue's configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// It may go better the next time.
    Again {
        /// What went wrong, for people.
        reason: String,
        /// When the next time is; `None`: as the queue's backoff says.
        delay: Option<Duration>,
    },
    /// It never will: the message becomes a dead letter.
    Park {
        /// What is wrong with it, for people.
        reason: String,
    },
    /// What it needs is not to be had now, which is no fault of the message. An [`Inbox`](crate::inbox::Inbox) holds it and tries it again, with rests of up to 30 s,
    /// and counts no attempt; elsewhere this is [`Again`](Self::Again).
    NotNow {
        /// What is missing, for people.
        reason: String,
    },
}

impl Failed {
    /// It may go better the next time.
    pub fn again(reason: impl Into<String>) -> Self {
        Self::Again { reason: reason.into(), delay: None }
    }

    /// It may go better after `delay`.
    pub fn again_after(delay: Duration, reason: impl Into<String>) -> Self {
        Self::Again { reason: reason.into(), delay: Some(delay) }
    }

    /// It never will.
    pub fn park(reason: impl Into<String>) -> Self {
        Self::Park { reason: reason.into() }
    }

    /// What it needs is not to be had now.
    pub fn not_now(reason: impl Into<String>) -> Self {
        Self::NotNow { reason: reason.into() }
    }
}

impl<E: std::error::Error> From<E> for Failed {
    fn from(error: E) -> Self {
        let mut reason = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            reason = format!("{reason}: {inner}");
            cause = inner.source();
        }
        Self::again(reason)
    }
}

/// A message and the work that it asks for. Cheap to clone; clones are the same.
pub struct Job<T> {
    held: Arc<Held>,
    body: Arc<T>,
}

impl<T> Clone for Job<T> {
    fn clone(&self) -> Self {
        Self { held: self.held.clone(), body: self.body.clone() }
    }
}

impl<T: fmt::Debug> fmt::Debug for Job<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("delivery", &self.held.delivery).field("body", &self.body).finish_non_exhaustive()
    }
}

/// A message that is held.
pub(super) struct Held {
    pub(super) delivery: Delivery,
    queue: Queue,
    /// Whether a transaction of the handler's acknowledged it.
    is_settled: AtomicBool,
    /// Whether one that may have committed did, where nobody tells of commits.
    may_be_settled: AtomicBool,
}

impl<T> Job<T> {
    pub(super) fn new(held: Arc<Held>, body: T) -> Self {
        Self { held, body: Arc::new(body) }
    }

    /// What the message says.
    pub fn body(&self) -> &T {
        &self.body
    }

    /// The message with all its attributes.
    pub fn message(&self) -> &Message {
        &self.held.delivery.message
    }

    /// The message, its lease and its attempt.
    pub fn delivery(&self) -> &Delivery {
        &self.held.delivery
    }

    /// How often the message has now been handed out, counted from 1. Above 1, an earlier attempt may have done some or all of
    /// the work.
    pub fn attempt(&self) -> u32 {
        self.held.delivery.attempt
    }

    /// Acknowledges the message in the handler's transaction: the work and its acknowledgement become durable together. When
    /// the handler returns after that, nothing is left to settle, whatever it returns.
    ///
    /// # Errors
    /// [`QueueError::LeaseLost`]: somebody else has, or had, the message. Return it from the transaction's closure.
    pub async fn ack_in(&self, tx: &mut DynTx) -> Result<(), QueueError> {
        self.held.queue.ack_in(tx, &self.held.delivery.lease).await?;
        self.held.settled_in(tx)
    }

    /// The same with an answer.
    pub(crate) async fn answer_in(&self, tx: &mut DynTx, answer: &Answer) -> Result<(), QueueError> {
        self.held.queue.answer_in(tx, &self.held.delivery.lease, answer).await?;
        self.held.settled_in(tx)
    }
}

impl Held {
    fn settled_in(self: &Arc<Self>, tx: &mut DynTx) -> Result<(), QueueError> {
        if self.queue.core.is_shared() {
            // Nobody tells of commits there: whoever loses the lease from now on may have given it up itself.
            self.may_be_settled.store(true, Ordering::Release);
            return Ok(());
        }
        let held = self.clone();
        // Ordering: whoever reads it was told of the commit.
        tx.after_commit(move || held.is_settled.store(true, Ordering::Release))?;
        Ok(())
    }

    /// Whether losing its lease may be the doing of its own handler: a transaction of that acknowledged it, and it is gone.
    async fn may_have_settled(&self) -> bool {
        if self.is_settled.load(Ordering::Acquire) {
            return true;
        }
        // One that was rolled back left it there, for others. Where the store does not say, it may have committed.
        self.may_be_settled.load(Ordering::Acquire)
            && !self.queue.is_there(&self.delivery.lease).await.is_ok_and(|is_there| is_there)
    }
}

/// What came of a handler.
enum Ended {
    Done,
    Failed(Failed),
    Lost,
}

impl Pool {
    /// Has a message worked on, and settles it.
    pub(super) async fn handle(&self, delivery: Delivery, given_up: watch::Receiver<bool>) {
        let (is_settled, may_be_settled) = (AtomicBool::new(false), AtomicBool::new(false));
        let held = Arc::new(Held { delivery, queue: self.queue.clone(), is_settled, may_be_settled });
        let ended = self.work(&held, given_up).await;
        if held.is_settled.load(Ordering::Acquire) {
            self.done.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let (counted, settled) = match &ended {
            Ended::Done => (&self.done, self.settle(&held, None).await),
            Ended::Failed(failed @ (Failed::Again { .. } | Failed::NotNow { .. })) => {
                (&self.failed, self.settle(&held, Some(failed)).await)
            }
            Ended::Failed(failed @ Failed::Park { .. }) => (&self.parked, self.settle(&held, Some(failed)).await),
            Ended::Lost => (&self.lost, Ok(())),
        };
        // Ordering: counts.
        match settled {
            Ok(()) => counted.fetch_add(1, Ordering::Relaxed),
            Err(QueueError::LeaseLost { .. }) if matches!(ended, Ended::Done) && held.may_have_settled().await => {
                self.done.fetch_add(1, Ordering::Relaxed)
            }
            Err(QueueError::LeaseLost { .. }) => self.lost.fetch_add(1, Ordering::Relaxed),
            Err(cause) => {
                let (queue, id) = (self.queue.name(), &held.delivery.message.event.id);
                tracing::warn!(%queue, %id, %cause, "a message could not be settled; it comes again when its lease has run out");
                self.lost.fetch_add(1, Ordering::Relaxed)
            }
        };
    }

    async fn work(&self, held: &Arc<Held>, mut given_up: watch::Receiver<bool>) -> Ended {
        let work = match AssertUnwindSafe(async { (self.handler)(held) }).catch_unwind().await {
            Ok(Ok(work)) => work,
            Ok(Err(wrong)) => return Ended::Failed(Failed::park(format!("the message cannot be read: {wrong}"))),
            Err(panic) => return Ended::Failed(panicked(&*panic)),
        };
        let limit = self.config.time_limit;
        tokio::select! {
            biased;
            worked = AssertUnwindSafe(work).catch_unwind() => match worked {
                Ok(Ok(())) => Ended::Done,
                Ok(Err(failed)) => Ended::Failed(failed),
                Err(panic) => Ended::Failed(panicked(&*panic)),
            },
            () = self.hold(held) => Ended::Lost,
            () = self.queue.core.store.env().sleep(limit) => {
                Ended::Failed(Failed::again(format!("the handler took longer than {limit:?}")))
            }
            _ = given_up.wait_for(|given_up| *given_up) => {
                Ended::Failed(Failed::again_after(Duration::ZERO, "the worker stopped before the handler was done"))
            }
        }
    }

    /// Renews the lease well before it runs out, until it is lost.
    async fn hold(&self, held: &Held) {
        let (env, Delivery { lease, ttl, .. }) = (self.queue.core.store.env(), &held.delivery);
        loop {
            env.sleep(*ttl / 3).await;
            match self.queue.extend(&[*lease], Some(*ttl)).await {
                // The handler's own transaction may just have acknowledged it: its end is near.
                Err(QueueError::LeaseLost { .. }) if held.may_have_settled().await => pending().await,
                Err(QueueError::LeaseLost { .. }) => return,
                // Whatever the store suffers from: the lease may hold for a while, and its fence does in any case.
                Ok(()) | Err(_) => {}
            }
        }
    }

    /// Settles a message by what came of its handler, trying again where the store refuses.
    async fn settle(&self, held: &Held, failed: Option<&Failed>) -> Result<(), QueueError> {
        let leases = [held.delivery.lease];
        let mut tried = 1;
        loop {
            let settled = match failed {
                None => self.queue.ack(&leases).await,
                Some(Failed::Again { reason, delay }) => self.queue.nack(&leases, *delay, reason).await,
                Some(Failed::NotNow { reason }) => self.queue.nack(&leases, None, reason).await,
                Some(Failed::Park { reason }) => self.queue.park(&leases, reason).await,
            };
            match settled {
                Err(QueueError::Store(cause)) if !matches!(cause, StoreError::Closed) && tried < TRIES => {
                    tried += 1;
                    self.queue.core.store.env().sleep(AGAIN).await;
                }
                settled => return settled,
            }
        }
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Failed {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Failed::again(format!("the handler panicked: {}", text.unwrap_or("it did not say why")))
}
