//! Requests that outlive who asks, who answers, and the node: each is a message of the queue of its type's name.

use std::{collections::BTreeMap, time::Duration};

use quorate_communication::{
    message_queue::{Config, Consume, Consumer, Delivery, Lease, Queue, QueueError},
    request::{DurableRequests, Exchange, Payload, Status, machine::Verdict},
};
use quorate_foundations::{name::Name, time::Mono};
use quorate_runtime::Env;

use super::{RequestCare, RequestCareError, RequestType};

impl RequestCare {
    /// Has there be a queue for durable requests of this type.
    pub(super) async fn declare_queue(&self, kind: &Name) -> Result<(), RequestCareError> {
        let queues = self.queues.opened().await?;
        match queues.get(kind) {
            Err(QueueError::NotFound { .. }) => queues.declare(kind, Config::default()).await.map(drop)?,
            found => drop(found?),
        }
        Ok(())
    }

    async fn kept(&self, kind: &Name) -> Result<DurableRequests, RequestCareError> {
        Ok(DurableRequests::of(kind, &self.queues.opened().await?.get(kind)?))
    }

    /// Asks a request of a durable type, under an id of its own where none is given. It is durable when this returns. Says its id, and whether it was asked before.
    ///
    /// # Errors
    /// [`RequestCareError::Durable`], and the store's.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the request: the outcome is then unknown.
    pub async fn ask_durably(
        &self,
        of: &RequestType,
        id: Option<Name>,
        body: Payload,
    ) -> Result<(Name, bool), RequestCareError> {
        let drawn = || Name::new(format!("{:032x}", self.env.random("durable requests").u128()));
        let id = id.map_or_else(drawn, Ok).unwrap_or_else(|_| unreachable!("invariant: digits are a name"));
        let sent = self.kept(&of.name).await?.ask(&id, body).await?;
        Ok((id, sent.repeated))
    }

    /// What became of a durable request, once it is over or `patience` has passed.
    ///
    /// # Errors
    /// [`RequestCareError::NotDurable`], [`RequestCareError::Durable`], and the store's.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn status(
        &self,
        kind: &Name,
        id: &Name,
        patience: Duration,
    ) -> Result<Status<Payload>, RequestCareError> {
        if self.get(kind).await?.contract.exchange != Exchange::Durable {
            return Err(RequestCareError::NotDurable { kind: kind.clone() });
        }
        Ok(self.kept(kind).await?.status(id, patience).await?)
    }

    /// Answers the durable request that was handed out under `lease`: its one answer, durable when this returns.
    ///
    /// # Errors
    /// [`QueueError::LeaseLost`] in a [`RequestCareError::Durable`]: it is not the caller's any more. The store's.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the answer: the outcome is then unknown.
    pub async fn answer_durably(&self, kind: &Name, lease: Lease, verdict: Verdict) -> Result<(), RequestCareError> {
        Ok(self.kept(kind).await?.answer(lease, verdict).await?)
    }

    /// A responder works no more on what it was handed under `lease`, and has nothing to say: it is handed out again as its queue says.
    ///
    /// # Errors
    /// As [`answer_durably`](Self::answer_durably).
    pub async fn let_go_durably(&self, kind: &Name, lease: Lease) -> Result<(), RequestCareError> {
        Ok(self.kept(kind).await?.queue().nack(&[lease], None, "its responder let go of it").await?)
    }

    /// A responder of a durable type, which holds at most `window` requests at once.
    ///
    /// # Errors
    /// [`RequestCareError::Queue`].
    pub async fn serve_durably(&self, of: &RequestType, window: usize) -> Result<DurableResponder, RequestCareError> {
        let queue = self.kept(&of.name).await?.queue().clone();
        let consumer = queue.consume(Consume { window, ttl: None })?;
        let (env, time_limit, held) = (self.env.clone(), of.contract.time_limit, BTreeMap::new());
        Ok(DurableResponder { env, queue, consumer, time_limit, held, renewal: None })
    }
}

/// A responder of durable requests, whose leases are renewed for as long as it is there, each for the type's time limit at most. Dropping it ends nothing: what it was
/// handed can be answered for as long as the last lease holds, and then is another's.
pub struct DurableResponder {
    env: Env,
    queue: Queue,
    consumer: Consumer,
    time_limit: Duration,
    /// What it was handed, and until when it may work on it.
    held: BTreeMap<Lease, Mono>,
    /// When the leases are renewed next, and for how long they last.
    renewal: Option<(Mono, Duration)>,
}

impl std::fmt::Debug for DurableResponder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DurableResponder").field("queue", &self.queue).field("held", &self.held).finish_non_exhaustive()
    }
}

impl DurableResponder {
    /// Requests to hand over, as soon as there are some and room in the window; none where [`renew`](Self::renew) is due.
    ///
    /// # Errors
    /// As [`Consumer::next`].
    ///
    /// # Cancel safety
    /// Dropping the future gives back what it would have been handed.
    pub async fn next(&mut self) -> Result<Vec<Delivery>, QueueError> {
        let due = self.renewal.iter().map(|(at, _)| *at).chain(self.held.values().copied()).min();
        let due = async {
            match due {
                Some(at) if !self.held.is_empty() => self.env.sleep_until(at).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = due => Ok(Vec::new()),
            deliveries = self.consumer.next() => deliveries,
        }
    }

    /// Holds a request that is about to be handed over, and says until when.
    pub fn hold(&mut self, delivery: &Delivery) -> Mono {
        let now = self.env.mono();
        self.held.insert(delivery.lease, now + self.time_limit);
        self.renewal.get_or_insert((now + delivery.ttl / 3, delivery.ttl));
        now + self.time_limit
    }

    fn forget(&mut self, leases: &[Lease]) {
        for lease in leases {
            self.held.remove(lease);
        }
    }

    /// Renews the leases of what it holds. Returns those of requests that are not its own any more: answered, another's, or worked on for too long.
    pub async fn renew(&mut self) -> Vec<Lease> {
        let now = self.env.mono();
        let mut over: Vec<Lease> =
            self.held.iter().filter(|(_, until)| **until <= now).map(|(held, _)| *held).collect();
        self.forget(&over);
        if !over.is_empty() {
            let reason = format!("the responder took longer than {:?}", self.time_limit);
            // Where that cannot be written, the lease runs out.
            let _settled = self.queue.nack(&over, None, &reason).await;
        }
        let Some((_, ttl)) = self.renewal.filter(|(at, _)| *at <= now) else { return over };
        let held: Vec<Lease> = self.held.keys().copied().collect();
        if !held.is_empty()
            && let Err(QueueError::LeaseLost { leases }) = self.queue.extend(&held, Some(ttl)).await
        {
            self.forget(&leases);
            over.extend(leases);
        }
        // Whatever the store suffers from: there are two more renewals before a lease runs out, and its fence holds in any case.
        self.renewal = (!self.held.is_empty()).then_some((now + ttl / 3, ttl));
        over
    }

    /// Gives back what was never handed over.
    pub async fn give_back(&mut self, deliveries: &[Delivery]) {
        let leases: Vec<Lease> = deliveries.iter().map(|one| one.lease).collect();
        self.forget(&leases);
        if !leases.is_empty()
            && let Err(cause) = self.queue.give_back(&leases).await
        {
            tracing::warn!(%cause, "requests that could not be handed out come again when their leases have expired");
        }
    }

    /// Leaves: what it holds is handed to others as the queue says.
    pub async fn leave(self) {
        let leases: Vec<Lease> = self.held.keys().copied().collect();
        // What it answered is not its own any more; the others' leases run out where this cannot be written.
        if !leases.is_empty() {
            let _settled = self.queue.nack(&leases, None, "its responder left").await;
        }
    }
}
