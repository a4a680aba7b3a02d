//! The loops: receiving, bringing in what the broker gave up on, and forgetting old ids.

use std::{sync::Arc, time::Duration};

use quorate_runtime::tasks::Tasks;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    InboxConfig, InboxError,
    handling::Became,
    service::{Standing, Work},
};
use crate::{
    message_queue::Cause,
    transports::{Delivery, Hold, Incoming, Receiver, TransportError},
};

/// The right to be handled.
type Place = OwnedSemaphorePermit;

/// Messages in hand, handled or waiting for that; beyond it no more are received. Brokers hand out fewer by themselves.
const IN_HAND: usize = 1_024;

/// Rests after the broker was found away.
const RESTS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];
/// Rests of a message that the store could not take, or whose key is held back since too many are parked.
const STORE_RESTS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// How often old ids are forgotten.
const SWEEP: Duration = Duration::from_secs(3_600);

impl Work {
    /// Receives until it is told to stop, and then waits for the handlers that run.
    pub(super) async fn receive(self: Arc<Self>, tasks: Tasks) {
        let places = Arc::new(Semaphore::new(self.config.concurrency));
        let mut rest = RESTS[0];
        while !tasks.stop().is_cancelled() {
            let failed = match self.transport.join(&self.config.topic, &self.config.group).await {
                Ok(mut receiver) => self.take_from(&mut *receiver, &tasks, &places, &mut rest).await,
                Err(failed) => failed,
            };
            if tasks.stop().is_cancelled() {
                break;
            }
            self.is_ill(&failed.to_string());
            self.pause(&tasks, rest).await;
            rest = (rest * 2).min(RESTS[1]);
        }
        self.note(Standing::Stopped, None);
    }

    /// Takes messages for as long as the receiver is worth keeping. It is held until the handlers are done: at some brokers its end gives back
    /// what they work on.
    async fn take_from(
        self: &Arc<Self>,
        receiver: &mut dyn Receiver,
        tasks: &Tasks,
        places: &Arc<Semaphore>,
        rest: &mut Duration,
    ) -> TransportError {
        let stopped = TransportError::Unavailable { what: "the inbox was stopped".to_owned() };
        self.note(Standing::Receiving, None);
        let hands = Arc::new(Semaphore::new(IN_HAND));
        let ended = loop {
            let hand = tokio::select! {
                biased;
                () = tasks.stop().cancelled() => break stopped,
                // Nobody closes it.
                hand = hands.clone().acquire_owned() => hand.ok(),
            };
            let next = tokio::select! {
                biased;
                () = tasks.stop().cancelled() => break stopped,
                next = receiver.next() => next,
            };
            match next {
                Ok(delivery) => {
                    *rest = RESTS[0];
                    self.note(Standing::Receiving, None);
                    let (work, tasks, places) = (self.clone(), tasks.clone(), places.clone());
                    tasks.clone().spawn("message", async move {
                        work.settle(delivery, &tasks, &places).await;
                        drop(hand);
                    });
                }
                // It connects anew by itself.
                Err(TransportError::Unavailable { what }) => {
                    self.is_ill(&what);
                    self.pause(tasks, *rest).await;
                    *rest = (*rest * 2).min(RESTS[1]);
                }
                Err(failed) => break failed,
            }
        };
        let all = u32::try_from(self.config.concurrency).unwrap_or(u32::MAX);
        drop(places.acquire_many(all).await);
        ended
    }

    /// Handles a message and tells the broker. What the store cannot take is not given back, for a broker may count that: it is held, and tried
    /// again, and leaves its place to others meanwhile.
    async fn settle(&self, delivery: Delivery, tasks: &Tasks, places: &Arc<Semaphore>) {
        let Delivery { message, hold } = delivery;
        let message = Arc::new(message);
        let mut rest = STORE_RESTS[0];
        let told = loop {
            let Some((became, place)) = self.renewing(&*hold, self.in_turn(&message, tasks, places)).await else {
                break hold.nack(Duration::ZERO, "the inbox was stopped").await;
            };
            self.count(&became);
            match became {
                Ok(Became::Done | Became::Repeated | Became::Parked) => {
                    self.store.env().reached("inbox: committed and not acknowledged");
                    break hold.ack().await;
                }
                Ok(Became::Again { attempts, delay, reason }) => {
                    let salt = crc32fast::hash(message.identity.as_bytes());
                    let delay = delay.unwrap_or_else(|| self.config.backoff.delay(attempts, salt.into()));
                    break hold.nack(delay.min(InboxConfig::MAX_REST), &reason).await;
                }
                Err(failed) => {
                    let what = failed.to_string();
                    self.is_ill(&what);
                    drop(place);
                    if let Err(cause) = self.hold_for(rest, &*hold, tasks).await {
                        break Err(cause);
                    }
                    if tasks.stop().is_cancelled() {
                        break hold.nack(Duration::ZERO, &what).await;
                    }
                    rest = (rest * 2).min(STORE_RESTS[1]);
                }
            }
        };
        if let Err(cause) = told {
            // It comes again, and is known by then.
            tracing::debug!(inbox = %self.consumer, %cause, identity = %message.identity, "the broker was not told");
            self.store.env().reached("inbox: the broker was not told");
        }
        self.bell.send_modify(|settled| *settled += 1);
    }

    /// Handles a message once there is a place for it, which is returned with what became of it: to be kept until the broker is told. `None`: it was told
    /// to stop first.
    async fn in_turn(
        &self,
        message: &Arc<Incoming>,
        tasks: &Tasks,
        places: &Arc<Semaphore>,
    ) -> Option<(Result<Became, InboxError>, Place)> {
        let place = tokio::select! {
            biased;
            () = tasks.stop().cancelled() => return None,
            // Nobody closes it.
            place = places.clone().acquire_owned() => place.ok()?,
        };
        Some((self.handle(message).await, place))
    }

    /// Does `work`, and holds a message meanwhile, however long that takes. One that is lost all the same takes effect once: it comes again, and is known.
    async fn renewing<T>(&self, hold: &dyn Hold, work: impl Future<Output = T>) -> T {
        let renew = async {
            loop {
                self.store.env().sleep(self.config.topic.hold / 3).await;
                if let Err(TransportError::Lost { .. }) = hold.extend().await {
                    return std::future::pending::<T>().await;
                }
            }
        };
        tokio::select! {
            biased;
            done = work => done,
            never = renew => never,
        }
    }

    /// Holds a message for `span`, or until it is told to stop.
    async fn hold_for(&self, span: Duration, hold: &dyn Hold, tasks: &Tasks) -> Result<(), TransportError> {
        let until = self.store.env().mono() + span;
        while !tasks.stop().is_cancelled() {
            let left = until.saturating_since(self.store.env().mono());
            if left.is_zero() {
                break;
            }
            self.pause(tasks, left.min(self.config.topic.hold / 3)).await;
            hold.extend().await?;
        }
        Ok(())
    }

    /// Parks what the broker itself gave up on.
    pub(super) async fn bring_in(self: Arc<Self>, tasks: Tasks) {
        let mut rest = RESTS[0];
        while !tasks.stop().is_cancelled() {
            match self.transport.join_given_up(&self.config.topic, &self.config.group).await {
                Ok(None) => return,
                Ok(Some(mut receiver)) => {
                    let next = tokio::select! {
                        biased;
                        () = tasks.stop().cancelled() => return,
                        next = self.bring(&mut *receiver, &mut rest) => next,
                    };
                    tracing::debug!(inbox = %self.consumer, cause = %next, "what the broker gave up on cannot be had now");
                }
                Err(cause) => self.is_ill(&cause.to_string()),
            }
            self.pause(&tasks, rest).await;
            rest = (rest * 2).min(RESTS[1]);
        }
    }

    async fn bring(&self, receiver: &mut dyn Receiver, rest: &mut Duration) -> TransportError {
        loop {
            let Delivery { message, hold } = match receiver.next().await {
                Ok(delivery) => delivery,
                Err(failed) => return failed,
            };
            *rest = RESTS[0];
            let became = self.park(&Arc::new(message), Cause::Parked, "the broker gave up on it").await;
            self.count(&became);
            let told = match became {
                Ok(_) => hold.ack().await,
                Err(failed) => {
                    self.is_ill(&failed.to_string());
                    hold.nack(STORE_RESTS[1], &failed.to_string()).await
                }
            };
            if let Err(failed) = told {
                return failed;
            }
        }
    }

    /// Forgets ids that are older than is kept.
    pub(super) async fn sweep(self: Arc<Self>, tasks: Tasks) {
        while !tasks.stop().is_cancelled() {
            if let Err(cause) = self.ids.forget(self.config.keep).await {
                tracing::warn!(inbox = %self.consumer, %cause, "old ids could not be forgotten; it is tried again in an hour");
            }
            self.pause(&tasks, SWEEP).await;
        }
    }

    fn is_ill(&self, what: &str) {
        tracing::warn!(inbox = %self.consumer, what, "messages cannot be received or taken; it is tried again");
        self.note(Standing::Waiting, Some(what.to_owned()));
    }

    async fn pause(&self, tasks: &Tasks, span: Duration) {
        tokio::select! {
            biased;
            () = tasks.stop().cancelled() => {}
            () = self.store.env().sleep(span) => {}
        }
    }
}
