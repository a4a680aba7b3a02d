//! Message queues by name.

use std::{sync::Arc, time::Duration};

use quorate_communication::message_queue::{
    Config, Consume, Consumer, DeadLetters, Delivery, Description, Lease, NewMessage, Planned, Queue, QueueError,
    Queues, Receive, Schedule, Selection, Sent, Summary,
};
use quorate_data::{
    event::NewEvent,
    store::{Store, StoreError},
};
use quorate_foundations::name::Name;
use tokio::sync::OnceCell;

use super::Settlement;

/// The verbs on message queues. Cheap to clone.
///
/// Every verb on one queue fails with [`QueueError::NotFound`] if there is none of that name.
#[derive(Clone)]
pub struct MessageQueues {
    store: Store,
    all: Arc<OnceCell<Queues>>,
}

impl MessageQueues {
    /// The verbs on the queues of `store`, whose tables are made if they are not there.
    ///
    /// Where the disk is too full for that, or the store too busy, this succeeds all the same: each verb then tries again, and
    /// says what is in the way.
    pub async fn open(store: &Store) -> Result<Self, QueueError> {
        let queues = Self { store: store.clone(), all: Arc::default() };
        match queues.all().await {
            Err(QueueError::Store(
                cause @ (StoreError::DiskFull | StoreError::Busy | StoreError::Overloaded { .. }),
            )) => {
                tracing::warn!(%cause, "the message queues are opened once somebody asks for them and the store lets us");
            }
            opened => drop(opened?),
        }
        Ok(queues)
    }

    /// The queues, as other nodes left them.
    async fn all(&self) -> Result<&Queues, QueueError> {
        let all = self.all.get_or_try_init(|| Queues::open(&self.store)).await?;
        all.refresh().await?;
        Ok(all)
    }

    /// The queues themselves, opened.
    pub async fn opened(&self) -> Result<Queues, QueueError> {
        Ok(self.all().await?.clone())
    }

    async fn get(&self, name: &Name) -> Result<Queue, QueueError> {
        self.all().await?.get(name)
    }

    /// Declares a queue, or changes how it is. The same again changes nothing.
    pub async fn declare(&self, name: &Name, config: Config) -> Result<Description, QueueError> {
        self.all().await?.declare(name, config).await?.describe().await
    }

    /// Deletes a queue with all its messages.
    pub async fn delete(&self, name: &Name) -> Result<(), QueueError> {
        self.all().await?.delete(name).await
    }

    /// At most `limit` queues behind `after`, in order of their names.
    pub async fn list(&self, after: Option<&Name>, limit: usize) -> Result<Vec<Summary>, QueueError> {
        self.all().await?.list(after, limit)
    }

    /// How the first `max` queues stand, in order of their names, as far as that is known without reading their messages. Those
    /// of the others are read behind this call, one queue after the other: ask again later. Queues that cannot be read are
    /// left out.
    pub async fn standing(&self, max: usize) -> Result<Vec<Description>, QueueError> {
        let (all, mut standing) = (self.all().await?, Vec::new());
        for Summary { name, .. } in all.list(None, max.min(Queues::MAX_PAGE))? {
            if let Ok(queue) = all.get(&name) {
                standing.extend(queue.describe_if_read().await.ok().flatten());
            }
        }
        Ok(standing)
    }

    /// How a queue stands right now.
    pub async fn describe(&self, name: &Name) -> Result<Description, QueueError> {
        self.get(name).await?.describe().await
    }

    /// Sends messages, all or none. Durable when this returns.
    pub async fn send(&self, name: &Name, messages: Vec<NewMessage>) -> Result<Vec<Sent>, QueueError> {
        self.get(name).await?.send(messages).await
    }

    /// Hands out messages; each is leased before this returns.
    ///
    /// # Cancel safety
    /// Dropping the future gives back what it would have been handed.
    pub async fn receive(&self, name: &Name, receive: Receive) -> Result<Vec<Delivery>, QueueError> {
        self.get(name).await?.receive(receive).await
    }

    /// A consumer that is handed messages as they come, as many as its window has room for.
    pub async fn consume(&self, name: &Name, consume: Consume) -> Result<Consumer, QueueError> {
        self.get(name).await?.consume(consume)
    }

    /// Declares a schedule of a queue, or changes it. The same again changes nothing.
    pub async fn schedule(&self, queue: &Name, name: &Name, schedule: Schedule) -> Result<Planned, QueueError> {
        self.get(queue).await?.schedule(name, schedule).await
    }

    /// The schedule of that name.
    pub async fn scheduled(&self, queue: &Name, name: &Name) -> Result<Planned, QueueError> {
        self.get(queue).await?.scheduled(name)
    }

    /// At most `limit` schedules of a queue behind `after`, in order of their names.
    pub async fn schedules(
        &self,
        queue: &Name,
        after: Option<&Name>,
        limit: usize,
    ) -> Result<Vec<Planned>, QueueError> {
        self.get(queue).await?.schedules(after, limit)
    }

    /// Deletes a schedule. Messages that it sent stay.
    pub async fn unschedule(&self, queue: &Name, name: &Name) -> Result<(), QueueError> {
        self.get(queue).await?.unschedule(name).await
    }

    /// Does with the messages held under `leases` what their holder says. Durable when this returns.
    ///
    /// # Errors
    /// [`QueueError::LeaseLost`] names those that are not the caller's any more; for the others it was done.
    pub async fn settle(&self, name: &Name, leases: &[Lease], how: &Settlement) -> Result<(), QueueError> {
        let queue = self.get(name).await?;
        match how {
            Settlement::Ack => queue.ack(leases).await,
            Settlement::Nack { delay, reason } => queue.nack(leases, *delay, reason).await,
            Settlement::Extend { ttl } => queue.extend(leases, *ttl).await,
            Settlement::Park { reason } => queue.park(leases, reason).await,
        }
    }

    /// Gives messages back that nobody has seen, as if they had not been handed out.
    pub async fn give_back(&self, name: &Name, leases: &[Lease]) -> Result<(), QueueError> {
        self.get(name).await?.give_back(leases).await
    }

    /// At most `limit` dead letters behind the place `after`, in the order in which they were sent; fewer where they are large.
    pub async fn dead_letters(&self, name: &Name, after: u64, limit: usize) -> Result<DeadLetters, QueueError> {
        self.get(name).await?.dead_letters(after, limit).await
    }

    /// Lets dead letters be handed out again. Returns how many.
    pub async fn replay(&self, name: &Name, which: &Selection) -> Result<usize, QueueError> {
        self.get(name).await?.replay(which).await
    }

    /// Lets the dead letter of `event`'s id and source be handed out again, saying `event`.
    pub async fn replay_edited(&self, name: &Name, event: NewEvent) -> Result<(), QueueError> {
        self.get(name).await?.replay_edited(event).await
    }

    /// Gives dead letters up. Returns how many.
    pub async fn discard(&self, name: &Name, which: &Selection) -> Result<usize, QueueError> {
        self.get(name).await?.discard(which).await
    }

    /// The longest wait for a message.
    pub const MAX_WAIT: Duration = Receive::MAX_WAIT;
}
