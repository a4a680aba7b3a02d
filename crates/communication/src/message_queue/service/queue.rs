//! One queue: sending, receiving, settling.

use std::{sync::Arc, time::Duration};

use quorate_data::store::DynTx;
use quorate_foundations::{name::Name, time::Wall};

use super::Room;
use crate::message_queue::{
    Config, Delivery, Lease, Message, NewMessage, QueueError, Sent,
    driver::{Core, How, Work},
    machine::{Claim, Counts, Seq},
    message::Summed,
    rows::{self, Placed, turn},
};

/// Messages of one call that one round settles at most, where several processes work on the queue.
const SETTLED_AT_ONCE: usize = 64;

/// One queue. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct Queue {
    pub(in crate::message_queue) core: Arc<Core>,
    /// Held, so that nobody reads the queue's messages into another memory.
    pub(in crate::message_queue) room: Arc<Room>,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&self.core, f)
    }
}

/// What a consumer asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receive {
    /// At most so many messages: 1 to [`Receive::MAX`]. Where several processes share the queue, no more than 128 come at once.
    pub max: usize,
    /// How long to wait for the first one. At most [`Receive::MAX_WAIT`].
    pub wait: Duration,
    /// How long to hold them; `None`: as the queue's configuration says.
    pub ttl: Option<Duration>,
}

/// How a queue stands.
#[derive(Clone, Debug)]
pub struct Description {
    /// Its name.
    pub name: Name,
    /// As it was declared last.
    pub config: Arc<Config>,
    /// How many messages are where.
    pub counts: Counts,
    /// How long ago the oldest message that is no dead letter was sent, by the wall clock.
    pub age: Option<Duration>,
    /// Consumers that wait for a message in this process.
    pub consumers: usize,
}

impl Receive {
    /// The most messages at once.
    pub const MAX: usize = 1_000;
    /// The longest wait.
    pub const MAX_WAIT: Duration = Duration::from_secs(300);

    /// At most `max` messages, at once.
    pub fn of(max: usize) -> Self {
        Self { max, wait: Duration::ZERO, ttl: None }
    }

    /// The same, waiting for the first one up to `wait`.
    #[must_use]
    pub fn waiting(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// The same, held for `ttl`.
    #[must_use]
    pub fn holding(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    fn check(&self) -> Result<(), QueueError> {
        let (max, wait) = (Self::MAX, Self::MAX_WAIT);
        if !(1..=max).contains(&self.max) {
            return Err(QueueError::invalid(format!("`max` is 1 to {max}, {} was asked for", self.max)));
        }
        if self.wait > wait {
            return Err(QueueError::invalid(format!("`wait` is at most {wait:?}, {:?} was asked for", self.wait)));
        }
        self.ttl.map_or(Ok(()), |ttl| Config::check_ttl("ttl", ttl))
    }
}

impl Queue {
    /// The most messages of one call.
    pub const MAX_BATCH: usize = 1_000;
    /// The most bytes of one call's messages.
    pub const MAX_BATCH_BYTES: usize = 4 << 20;

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.core.name
    }

    /// As it was declared last.
    pub fn config(&self) -> Arc<Config> {
        self.core.config()
    }

    /// Sends messages: all of them become durable together, in this order, or none does.
    ///
    /// A message whose source and id were sent to this queue before is not sent again, as long as the queue remembers
    /// it ([`Config::dedupe`]); [`Sent::repeated`] says so. So repeating a call whose outcome is unknown is safe. One whose
    /// [unique key](method@NewMessage::unique) another message has is not sent, and [`Sent::held_by`] names that one; the others of
    /// the call are.
    ///
    /// # Errors
    /// [`QueueError::Full`], [`QueueError::IdReused`], [`QueueError::Message`]: nothing was sent.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the messages: the outcome is then unknown.
    pub async fn send(&self, messages: Vec<NewMessage>) -> Result<Vec<Sent>, QueueError> {
        let (messages, bytes) = self.prepared(messages)?;
        self.core.ask(|reply| Work::Send { messages, bytes, reply }).await
    }

    /// Sends messages in the caller's transaction: they are there once it has committed, and never if it rolls back.
    /// A transaction and its messages become durable together.
    ///
    /// [`Config::max_messages`] counts what is known: of a queue that nobody asked for anything since the store was opened,
    /// messages are counted from the first transaction on that sends it some. What transactions send counts before they
    /// commit, and no more once they are rolled back. Where several processes send, each counts what it has heard of: a
    /// second ago, or what the queue was last asked.
    ///
    /// # Errors
    /// As [`send`](Self::send); the transaction can go on after a refusal, which wrote nothing.
    pub async fn send_in(&self, tx: &mut DynTx, messages: Vec<NewMessage>) -> Result<Vec<Sent>, QueueError> {
        Ok(self.placed_in(tx, messages).await?.0)
    }

    /// As [`send_in`](Self::send_in), with the numbers of those that were not sent before.
    pub(crate) async fn placed_in(
        &self,
        tx: &mut DynTx,
        messages: Vec<NewMessage>,
    ) -> Result<(Vec<Sent>, Vec<Seq>), QueueError> {
        let (messages, _) = self.prepared(messages)?;
        let mut reserved = self.core.reserve(messages.len())?;
        let is_shared = self.core.is_shared();
        let is_gone = is_shared && !turn::is_there(tx, self.core.id, self.name()).await?;
        if self.core.is_deleted() || is_gone {
            return Err(self.core.not_found());
        }
        let placed = rows::insert(tx, &self.core.numbers, self.core.id, &messages).await?;
        let (mut sent, mut new) = (Vec::with_capacity(messages.len()), Vec::new());
        for ((message, _), placed) in messages.into_iter().zip(placed) {
            sent.push(placed.told(&message));
            if let Placed::New(seq) = placed {
                new.push((seq, message));
            }
        }
        reserved.shrink(new.len());
        let seqs: Vec<Seq> = new.iter().map(|(seq, _)| *seq).collect();
        if is_shared {
            if !seqs.is_empty() {
                turn::tell(tx, self.core.id, &seqs).await?;
            }
            self.core.look_soon();
            return Ok((sent, seqs));
        }
        let core = self.core.clone();
        tx.after_commit(move || {
            drop(reserved);
            core.hear_of_sent(new);
        })?;
        Ok((sent, seqs))
    }

    /// Messages as they are kept, with what tells each from another of the same id, and their bytes.
    fn prepared(&self, messages: Vec<NewMessage>) -> Result<(Vec<Summed>, usize), QueueError> {
        let (max, bytes) = (Self::MAX_BATCH, messages.iter().map(NewMessage::size).sum());
        if messages.is_empty() || messages.len() > max {
            return Err(QueueError::invalid(format!("a call sends 1 to {max} messages, not {}", messages.len())));
        }
        if messages.len() > 1 && bytes > Self::MAX_BATCH_BYTES {
            let max = Self::MAX_BATCH_BYTES;
            return Err(QueueError::invalid(format!("a call sends at most {max} bytes of messages, not {bytes}")));
        }
        let (wall, max_bytes) = (self.core.store.env().wall(), self.core.store.limits().event_bytes);
        let prepared = messages.into_iter().enumerate().map(|(index, message)| {
            message.check(index, max_bytes)?;
            let message = Message::new(message, wall);
            let sum = message.sum();
            Ok((Arc::new(message), sum))
        });
        Ok((prepared.collect::<Result<_, QueueError>>()?, bytes))
    }

    /// Hands out messages: at least one, unless there is none for as long as the consumer waits.
    ///
    /// Each was counted as attempted, and leased under a fence of its own, durably before this returns. Of one group there
    /// is never more than one.
    ///
    /// # Cancel safety
    /// Dropping the future gives back what it would have been handed, as if it had not been; where that cannot be written,
    /// it comes again once its lease has expired.
    pub async fn receive(&self, receive: Receive) -> Result<Vec<Delivery>, QueueError> {
        receive.check()?;
        let Receive { max, wait, ttl } = receive;
        let until = (!wait.is_zero()).then(|| self.core.now() + wait);
        self.core.take(max, ttl, until, None).await
    }

    /// Settles messages: they will not be handed out again. Durable when this returns.
    ///
    /// # Errors
    /// [`QueueError::LeaseLost`] names those that were not the caller's any more; the others are settled.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the acknowledgement. That holds for all settling calls.
    pub async fn ack(&self, leases: &[Lease]) -> Result<(), QueueError> {
        self.settle(leases, How::Ack).await
    }

    /// Settles a message in the caller's transaction: the work and its acknowledgement become durable together, so that the
    /// work is done exactly once.
    ///
    /// # Errors
    /// [`QueueError::LeaseLost`]: somebody else has, or had, the message. Return it from the transaction's closure, and
    /// nothing of the work remains.
    ///
    /// # Example
    /// ```
    /// # use quorate_data::store::Store;
    /// # use quorate_communication::message_queue::*;
    /// # async fn example(store: Store, mails: Queue) -> Result<(), Box<dyn std::error::Error>> {
    /// for delivery in mails.receive(Receive::of(10)).await? {
    ///     let mails = mails.clone();
    ///     store.transact(move |tx| {
    ///         let (mails, lease) = (mails.clone(), delivery.lease);
    ///         Box::pin(async move {
    ///             tx.execute("UPDATE account SET mails = mails + 1", &[]).await?;
    ///             mails.ack_in(tx, &lease).await
    ///         })
    ///     }).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn ack_in(&self, tx: &mut DynTx, lease: &Lease) -> Result<(), QueueError> {
        let lost = || QueueError::LeaseLost { leases: vec![*lease] };
        let claim = self.claim(lease).ok_or_else(lost)?;
        if !rows::ack(tx, claim).await? {
            return Err(lost());
        }
        if self.core.is_shared() {
            turn::tell(tx, self.core.id, &[claim.seq]).await?;
            return Ok(());
        }
        let core = self.core.clone();
        tx.after_commit(move || core.hear_of_settled(claim))?;
        Ok(())
    }

    /// Gives messages back after a failure: they are handed out again after `delay`, or as the configuration's backoff
    /// says; after the last attempt they become dead letters. `reason` is for people.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub async fn nack(&self, leases: &[Lease], delay: Option<Duration>, reason: &str) -> Result<(), QueueError> {
        if delay.is_some_and(|delay| delay > Config::MAX_TTL) {
            return Err(QueueError::invalid(format!("`delay` is at most {:?}", Config::MAX_TTL)));
        }
        self.settle(leases, How::Nack { delay, reason: reason.to_owned() }).await
    }

    /// Holds messages for `ttl` from now on, or as long as the configuration says.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub async fn extend(&self, leases: &[Lease], ttl: Option<Duration>) -> Result<(), QueueError> {
        ttl.map_or(Ok(()), |ttl| Config::check_ttl("ttl", ttl))?;
        self.settle(leases, How::Extend { ttl }).await
    }

    /// Sets messages aside as dead letters, with what stands in their groups behind them, until somebody replays or discards
    /// them.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub async fn park(&self, leases: &[Lease], reason: &str) -> Result<(), QueueError> {
        self.settle(leases, How::Park { reason: reason.to_owned() }).await
    }

    /// Gives messages back that nobody has seen, as if they had not been handed out: this was no attempt, and others may be
    /// given them at once. A lease that is no longer the caller's is passed over.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not what it waits for.
    pub async fn give_back(&self, leases: &[Lease]) -> Result<(), QueueError> {
        match self.settle(leases, How::Back).await {
            Err(QueueError::LeaseLost { .. }) => Ok(()),
            done => done,
        }
    }

    async fn settle(&self, leases: &[Lease], how: How) -> Result<(), QueueError> {
        if leases.len() > Self::MAX_BATCH {
            return Err(QueueError::invalid(format!("a call settles at most {} messages", Self::MAX_BATCH)));
        }
        let claims: Vec<Claim> = leases.iter().filter_map(|lease| self.claim(lease)).collect();
        let strangers = leases.iter().filter(|lease| self.claim(lease).is_none());
        let mut lost: Vec<Lease> = strangers.copied().collect();
        // Where each statement is a journey, no round is to take too long.
        let at_once = if self.core.is_shared() && how != How::Ack { SETTLED_AT_ONCE } else { Self::MAX_BATCH };
        for claims in claims.chunks(at_once) {
            let (claims, how) = (claims.to_vec(), how.clone());
            let refused = self.core.ask(|reply| Work::Settle { claims, how, reply }).await?;
            lost.extend(leases.iter().filter(|lease| self.claim(lease).is_some_and(|claim| refused.contains(&claim))));
        }
        if lost.is_empty() {
            return Ok(());
        }
        self.core.store.env().reached("queue: a lease was lost");
        Err(QueueError::LeaseLost { leases: lost })
    }

    /// What `lease` claims; `None` if it is of another queue or another life of the store.
    fn claim(&self, lease: &Lease) -> Option<Claim> {
        let epoch = self.core.store.timeline().epoch;
        let is_ours = lease.queue == self.core.id && rows::queue_of(lease.claim.seq) == self.core.id;
        (is_ours && lease.epoch == epoch).then_some(lease.claim)
    }

    /// How it stands right now, if that is known without reading its messages. Otherwise they are read behind this call, one
    /// queue at a time: ask again later.
    pub async fn describe_if_read(&self) -> Result<Option<Description>, QueueError> {
        if self.core.is_known() {
            return self.describe().await.map(Some);
        }
        self.core.read_soon();
        Ok(None)
    }

    /// How it stands right now.
    pub async fn describe(&self) -> Result<Description, QueueError> {
        let standing = self.core.ask(|reply| Work::Look { reply }).await?;
        let now = self.core.store.env().wall();
        let age = standing.oldest_ns.map(|sent| now.saturating_since(Wall::from_unix_nanos(sent)));
        let (name, config) = (self.name().clone(), self.config());
        Ok(Description { name, config, counts: standing.counts, age, consumers: standing.consumers })
    }
}
