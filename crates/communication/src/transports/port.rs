//! The port: what any transport does.

use std::{sync::Arc, time::Duration};

use quorate_runtime::BoxFuture;

use super::{Delivery, Label, Outgoing, PublishError, Topic, TransportError};

/// A way for messages between services. See the [room](super) for what holds.
pub trait Transport: Send + Sync {
    /// What it can and cannot do.
    fn capabilities(&self) -> Capabilities;

    /// Makes the topic if it is not there. Publishers call it when they begin; joining does it as well.
    ///
    /// # Errors
    /// [`TransportError::Invalid`] for a topic that is there with other numbers, where the broker tells.
    fn declare<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<(), TransportError>>;

    /// Publishes messages of different keys side by side, and returns what became of each, in their order.
    ///
    /// Of a key there must be at most one: what is behind one that was refused would otherwise be published before it.
    ///
    /// # Cancel safety
    /// Dropping the future leaves each message published or not.
    fn publish<'a>(
        &'a self,
        topic: &'a Topic,
        messages: Vec<Outgoing>,
    ) -> BoxFuture<'a, Vec<Result<Confirmed, PublishError>>>;

    /// A receiver in the group `group`, which is made if it is not there: what is published from then on is for it, too. Where a queue of ours keeps a group, the topic's numbers are those that
    /// a new one is made with; one that is there stays as it is, and is declared anew where queues are declared. A receiver holds its messages for as long as its own topic says in any case.
    fn join<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Label,
    ) -> BoxFuture<'a, Result<Box<dyn Receiver>, TransportError>>;

    /// A receiver of the messages of a group that the broker itself has given up on; `None` where it gives up on none, or keeps them where
    /// other commands show them.
    fn join_given_up<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Label,
    ) -> BoxFuture<'a, Result<Option<Box<dyn Receiver>>, TransportError>> {
        let _ = (topic, group);
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Removes the group with what waits for it. Fine if it is not there.
    fn remove<'a>(&'a self, topic: &'a Topic, group: &'a Label) -> BoxFuture<'a, Result<(), TransportError>>;
}

/// One member of a group.
pub trait Receiver: Send {
    /// The next message: waits until there is one, however long that takes.
    ///
    /// # Errors
    /// [`TransportError::Unavailable`] when the connection broke; call it again, and it connects anew. Rest in between.
    /// Any other: the group is not as it was made (its queue was deleted, say); [join](Transport::join) again.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: what it would have been handed comes with the next call.
    fn next(&mut self) -> BoxFuture<'_, Result<Delivery, TransportError>>;
}

/// The right to settle one message: the port behind [`Delivery`].
pub trait Hold: Send + Sync {
    /// See [`Delivery::ack`].
    fn ack(&self) -> BoxFuture<'_, Result<(), TransportError>>;
    /// See [`Delivery::nack`].
    fn nack<'a>(&'a self, delay: Duration, reason: &'a str) -> BoxFuture<'a, Result<(), TransportError>>;
    /// See [`Delivery::extend`].
    fn extend(&self) -> BoxFuture<'_, Result<(), TransportError>>;
}

/// A message was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// Whether the broker had it already and dropped this copy.
    pub repeated: bool,
}

/// What a transport can and cannot do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Its name.
    pub name: &'static str,
    /// What a confirm is worth.
    pub confirms: Confirms,
    /// For how long it drops copies, at most; `None`: it does not.
    pub dedupe: Option<Duration>,
    /// When a message that is not settled comes again.
    pub holds: Holds,
    /// Whether it waits by itself before a message comes again.
    pub delays: bool,
    /// The largest message, in bytes of attributes and data. A broker may be set to less, and then refuses.
    pub max_message_bytes: usize,
    /// Whether it refuses a topic that is there with another number of partitions; otherwise the number means nothing to it.
    pub compares_partitions: bool,
    /// Where it keeps the messages that it gives up on, for people; `None` where it gives up on none.
    pub gives_up: Option<Arc<str>>,
}

/// What a confirmed message survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirms {
    /// The loss of power: it was synced.
    Synced,
    /// The end of the broker's process. The operating system syncs it later; replicas make up for that.
    Written,
}

/// When a message that is not settled comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// After [`Topic::hold`], unless it is extended.
    ForAWhile,
    /// When its receiver's connection ends.
    WhileConnected,
}
