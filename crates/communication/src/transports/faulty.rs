//! A transport that fails as brokers do, by seed: for tests and simulation.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quorate_runtime::{BoxFuture, Env, random::Rng};

use super::{
    Capabilities, Confirmed, Delivery, Hold, Label, Outgoing, PublishError, Receiver, Topic, Transport, TransportError,
};

/// How often what goes wrong, each in a thousand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The broker is away: nothing is published.
    pub away: u64,
    /// The message is published, and its confirm is lost.
    pub lost_confirms: u64,
    /// The connection breaks where a receiver waits.
    pub broken: u64,
    /// The acknowledgement is lost: the message comes again.
    pub lost_acks: u64,
}

/// `inner`, with faults drawn from the environment's randomness: one seed, one course of events.
#[derive(Clone)]
pub struct Faulty<T> {
    inner: T,
    dice: Arc<Dice>,
}

struct Dice {
    faults: Faults,
    rng: Mutex<Rng>,
}

impl Dice {
    fn falls(&self, per_mille: u64) -> bool {
        per_mille > 0 && self.rng.lock().unwrap_or_else(PoisonError::into_inner).below(1_000) < per_mille
    }
}

impl<T> Faulty<T> {
    /// `inner`, failing that often.
    pub fn new(env: &Env, inner: T, faults: Faults) -> Self {
        Self { inner, dice: Arc::new(Dice { faults, rng: Mutex::new(env.random("transports/faulty")) }) }
    }
}

impl<T: Transport> Transport for Faulty<T> {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn declare<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<(), TransportError>> {
        self.inner.declare(topic)
    }

    fn publish<'a>(
        &'a self,
        topic: &'a Topic,
        messages: Vec<Outgoing>,
    ) -> BoxFuture<'a, Vec<Result<Confirmed, PublishError>>> {
        Box::pin(async move {
            if self.dice.falls(self.dice.faults.away) {
                return messages.iter().map(|_| Err(PublishError::unavailable("a fault was drawn"))).collect();
            }
            let outcomes = self.inner.publish(topic, messages).await;
            let lose = |outcome| match outcome {
                Ok(_) if self.dice.falls(self.dice.faults.lost_confirms) => {
                    Err(PublishError::unknown("a fault was drawn"))
                }
                outcome => outcome,
            };
            outcomes.into_iter().map(lose).collect()
        })
    }

    fn join<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Label,
    ) -> BoxFuture<'a, Result<Box<dyn Receiver>, TransportError>> {
        Box::pin(async move {
            let inner = self.inner.join(topic, group).await?;
            Ok(Box::new(Member { inner, dice: self.dice.clone() }) as Box<dyn Receiver>)
        })
    }

    fn join_given_up<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Label,
    ) -> BoxFuture<'a, Result<Option<Box<dyn Receiver>>, TransportError>> {
        self.inner.join_given_up(topic, group)
    }

    fn remove<'a>(&'a self, topic: &'a Topic, group: &'a Label) -> BoxFuture<'a, Result<(), TransportError>> {
        self.inner.remove(topic, group)
    }
}

struct Member {
    inner: Box<dyn Receiver>,
    dice: Arc<Dice>,
}

impl Receiver for Member {
    fn next(&mut self) -> BoxFuture<'_, Result<Delivery, TransportError>> {
        Box::pin(async move {
            if self.dice.falls(self.dice.faults.broken) {
                return Err(TransportError::unavailable("a fault was drawn"));
            }
            let Delivery { message, hold } = self.inner.next().await?;
            Ok(Delivery { message, hold: Box::new(Held { inner: hold, dice: self.dice.clone() }) })
        })
    }
}

struct Held {
    inner: Box<dyn Hold>,
    dice: Arc<Dice>,
}

impl Hold for Held {
    fn ack(&self) -> BoxFuture<'_, Result<(), TransportError>> {
        if self.dice.falls(self.dice.faults.lost_acks) {
            // As when the connection breaks: the broker hands it to somebody else.
            return Box::pin(async move {
                self.inner.nack(Duration::ZERO, "its acknowledgement was lost").await?;
                Err(TransportError::unavailable("a fault was drawn"))
            });
        }
        self.inner.ack()
    }

    fn nack<'a>(&'a self, delay: Duration, reason: &'a str) -> BoxFuture<'a, Result<(), TransportError>> {
        self.inner.nack(delay, reason)
    }

    fn extend(&self) -> BoxFuture<'_, Result<(), TransportError>> {
        self.inner.extend()
    }
}
