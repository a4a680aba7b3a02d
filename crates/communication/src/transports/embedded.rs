//! The embedded transport: one message queue of the store for each group of a topic.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::future::join_all;
use quorate_data::store::{Store, StoreError, TransactError};
use quorate_foundations::name::Name;
use quorate_runtime::BoxFuture;

use super::{
    Capabilities, Confirmed, Confirms, Delivery, Hold, Holds, Incoming, Label, Outgoing, PublishError, Receiver, Topic,
    Transport, TransportError, message,
};
use crate::message_queue::{
    self as queue, Config, Consume, Consumer, Lease, NewMessage, Queue, QueueError, Queues, Sent,
};

/// Messages that a receiver holds at most.
const WINDOW: usize = 64;
/// How often the broker itself hands a message out before it gives up on it.
const ATTEMPTS: u32 = Config::MAX_ATTEMPTS;

/// The transport over a store's message queues: a group `billing` of topic `orders` is the queue `orders.billing`. Cheap to
/// clone; clones are the same.
#[derive(Clone)]
pub struct Embedded {
    store: Store,
    queues: Queues,
}

impl Embedded {
    /// The transport over `queues`, which are those of `store`.
    pub fn new(store: &Store, queues: Queues) -> Self {
        Self { store: store.clone(), queues }
    }

    /// The queues of a topic's groups.
    async fn boxes(&self, topic: &Topic) -> Result<Vec<Queue>, QueueError> {
        // A group may have joined at another process just now.
        self.queues.refresh().await?;
        let prefix = format!("{}.", topic.name);
        let mut found = Vec::new();
        let mut after = Name::new(prefix.as_str()).ok();
        loop {
            let page = self.queues.list(after.as_ref(), Queues::MAX_PAGE)?;
            for summary in &page {
                if !summary.name.as_str().starts_with(&prefix) {
                    return Ok(found);
                }
                match self.queues.get(&summary.name) {
                    Ok(queue) => found.push(queue),
                    // It was deleted meanwhile.
                    Err(QueueError::NotFound { .. }) => {}
                    Err(damaged) => return Err(damaged),
                }
            }
            if page.len() < Queues::MAX_PAGE {
                return Ok(found);
            }
            after = page.last().map(|last| last.name.clone());
        }
    }

    /// Sends a message to all groups, or to none.
    async fn send(&self, topic: &Topic, boxes: &[Queue], message: Outgoing) -> Result<Confirmed, PublishError> {
        let Outgoing { key, event } = message::for_a_queue(message, self.capabilities().max_message_bytes)?;
        let message = NewMessage::of(event).in_group(key);
        let sent: Result<Vec<Sent>, QueueError> = match boxes {
            [] => return Err(PublishError::unroutable(topic)),
            [only] => only.send(vec![message]).await,
            _ => {
                let boxes: Arc<[Queue]> = boxes.into();
                let sent = self.store.transact(move |tx| {
                    let (boxes, message) = (boxes.clone(), message.clone());
                    Box::pin(async move {
                        let mut sent = Vec::with_capacity(boxes.len());
                        for one in boxes.iter() {
                            sent.extend(one.send_in(tx, vec![message.clone()]).await?);
                        }
                        Ok::<_, QueueError>(sent)
                    })
                });
                sent.await.map_err(|failed| match failed {
                    TransactError::Aborted(own) => own,
                    TransactError::Store(cause) => QueueError::Store(cause),
                    other => QueueError::Invalid { what: other.to_string() },
                })
            }
        };
        match sent {
            Ok(sent) => Ok(Confirmed { repeated: sent.iter().all(|one| one.repeated) }),
            Err(QueueError::Full { messages, max, .. }) => {
                Err(PublishError::full(topic, format!("{messages} messages wait and {max} may")))
            }
            Err(QueueError::NotFound { .. }) => Err(PublishError::unroutable(topic)),
            Err(QueueError::Store(StoreError::OutcomeUnknown)) => {
                Err(PublishError::unknown(StoreError::OutcomeUnknown))
            }
            Err(refused @ (QueueError::Invalid { .. } | QueueError::IdReused { .. })) => {
                Err(PublishError::refused(refused))
            }
            Err(QueueError::Message { cause, .. }) => Err(PublishError::refused(cause)),
            Err(other) => Err(PublishError::unavailable(other)),
        }
    }
}

impl Transport for Embedded {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "embedded",
            confirms: Confirms::Synced,
            dedupe: Some(Config::default().dedupe),
            holds: Holds::ForAWhile,
            delays: true,
            max_message_bytes: self.store.limits().event_bytes,
            compares_partitions: false,
            gives_up: Some("the dead letters of the group's queue".into()),
        }
    }

    fn declare<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<(), TransportError>> {
        Box::pin(std::future::ready(topic.check()))
    }

    fn publish<'a>(
        &'a self,
        topic: &'a Topic,
        messages: Vec<Outgoing>,
    ) -> BoxFuture<'a, Vec<Result<Confirmed, PublishError>>> {
        Box::pin(async move {
            match self.boxes(topic).await {
                Ok(boxes) => join_all(messages.into_iter().map(|message| self.send(topic, &boxes, message))).await,
                Err(cause) => messages.iter().map(|_| Err(PublishError::unavailable(&cause))).collect(),
            }
        })
    }

    fn join<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Label,
    ) -> BoxFuture<'a, Result<Box<dyn Receiver>, TransportError>> {
        Box::pin(async move {
            topic.check()?;
            let max_messages = usize::try_from(topic.max_messages).unwrap_or(Config::MAX_MESSAGES);
            let config = Config { lease_ttl: topic.hold, max_attempts: ATTEMPTS, max_messages, ..Config::default() };
            // One that is there stays as whoever operates it has declared it: paused, or with another limit.
            let queue = self.queues.declare_if_absent(&name(topic, group)?, config).await.map_err(told)?;
            let consumer = queue.consume(Consume { window: WINDOW, ttl: Some(topic.hold) }).map_err(told)?;
            Ok(Box::new(Member { consumer, hold: topic.hold, handed: VecDeque::new() }) as Box<dyn Receiver>)
        })
    }

    fn remove<'a>(&'a self, topic: &'a Topic, group: &'a Label) -> BoxFuture<'a, Result<(), TransportError>> {
        Box::pin(async move {
            match self.queues.delete(&name(topic, group)?).await {
                Ok(()) | Err(QueueError::NotFound { .. }) => Ok(()),
                Err(failed) => Err(told(failed)),
            }
        })
    }
}

fn name(topic: &Topic, group: &Label) -> Result<Name, TransportError> {
    Name::new(format!("{}.{group}", topic.name)).map_err(TransportError::refused)
}

fn told(failed: QueueError) -> TransportError {
    match failed {
        QueueError::LeaseLost { .. } | QueueError::NotFound { .. } => TransportError::lost(failed),
        QueueError::Store(_) | QueueError::Tables(_) | QueueError::Crowded { .. } => {
            TransportError::unavailable(failed)
        }
        other => TransportError::refused(other),
    }
}

/// A receiver: a consumer of the group's queue, and what it was handed beyond the message that was asked for.
struct Member {
    consumer: Consumer,
    hold: Duration,
    handed: VecDeque<queue::Delivery>,
}

impl Receiver for Member {
    fn next(&mut self) -> BoxFuture<'_, Result<Delivery, TransportError>> {
        Box::pin(async move {
            while self.handed.is_empty() {
                self.handed.extend(self.consumer.next().await.map_err(told)?);
            }
            let handed = self.handed.pop_front().unwrap_or_else(|| unreachable!("invariant: it is not empty"));
            Ok(delivery((self.consumer.queue().clone(), self.hold), handed))
        })
    }
}

fn delivery((queue, hold): (Queue, Duration), handed: queue::Delivery) -> Delivery {
    let event = message::under_its_own_id(handed.message.event.clone());
    let identity = message::identity(&event);
    let key = handed.message.group.clone().unwrap_or_else(|| event.id.clone());
    let (attempt, redelivered) = (handed.attempt, handed.attempt > 1);
    let message = Incoming { identity, key, event, unreadable: None, redelivered, attempt };
    Delivery { message, hold: Box::new(Held { queue, lease: handed.lease, hold }) }
}

struct Held {
    queue: Queue,
    lease: Lease,
    /// For how long it is held, whatever others of the group told the queue.
    hold: Duration,
}

impl Hold for Held {
    fn ack(&self) -> BoxFuture<'_, Result<(), TransportError>> {
        Box::pin(async move { self.queue.ack(&[self.lease]).await.map_err(told) })
    }

    fn nack<'a>(&'a self, delay: Duration, reason: &'a str) -> BoxFuture<'a, Result<(), TransportError>> {
        Box::pin(async move { self.queue.nack(&[self.lease], Some(delay), reason).await.map_err(told) })
    }

    fn extend(&self) -> BoxFuture<'_, Result<(), TransportError>> {
        Box::pin(async move { self.queue.extend(&[self.lease], Some(self.hold)).await.map_err(told) })
    }
}
