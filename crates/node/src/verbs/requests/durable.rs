//! Requests that outlive who asks, who answers, and the node: each is a message of the queue of its type's name.

mod responder;

use std::time::Duration;

use quorate_communication::{
    message_queue::{Config, Consume, Lease},
    request::{DurableRequests, Exchange, Payload, Status, machine::Verdict},
};
use quorate_foundations::name::Name;

pub use self::responder::DurableResponder;
use super::{RequestCare, RequestCareError, RequestType};

impl RequestCare {
    /// Has there be a queue for durable requests of this type.
    pub(super) async fn declare_queue(&self, kind: &Name) -> Result<(), RequestCareError> {
        self.queues.opened().await?.declare_if_absent(kind, Config::default()).await?;
        Ok(())
    }

    /// The requests of a type that is durable.
    async fn durable(&self, kind: &Name) -> Result<DurableRequests, RequestCareError> {
        if self.get(kind).await?.contract.exchange != Exchange::Durable {
            return Err(RequestCareError::NotDurable { kind: kind.clone() });
        }
        self.kept(kind).await
    }

    async fn kept(&self, kind: &Name) -> Result<DurableRequests, RequestCareError> {
        Ok(DurableRequests::of(kind, &self.queues.opened().await?.get(kind)?))
    }

    /// An id that no request has, for whoever gives none.
    pub fn new_request_id(&self) -> Name {
        let drawn = Name::new(format!("{:032x}", self.env.random("durable requests").u128()));
        drawn.unwrap_or_else(|_| unreachable!("invariant: digits are a name"))
    }

    /// Asks a request of a durable type. It is durable when this returns. Says whether it was asked before.
    ///
    /// # Errors
    /// [`RequestCareError::Durable`], and the store's.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the request: the outcome is then unknown.
    pub async fn ask_durably(&self, of: &RequestType, id: &Name, body: Payload) -> Result<bool, RequestCareError> {
        Ok(self.kept(&of.name).await?.ask(id, body).await?.repeated)
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
        Ok(self.durable(kind).await?.status(id, patience).await?)
    }

    /// Answers the durable request that was handed out under `lease`: its one answer, durable when this returns.
    ///
    /// # Errors
    /// [`QueueError::LeaseLost`](quorate_communication::message_queue::QueueError::LeaseLost) in a [`RequestCareError::Durable`]: it is not the caller's any more.
    /// [`RequestCareError::NotFound`], [`RequestCareError::NotDurable`], and the store's.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the answer: the outcome is then unknown.
    pub async fn answer_durably(&self, kind: &Name, lease: Lease, verdict: Verdict) -> Result<(), RequestCareError> {
        Ok(self.durable(kind).await?.answer(lease, verdict).await?)
    }

    /// A responder works no more on what it was handed under `lease`, and has nothing to say: it is handed out again as its queue says.
    ///
    /// # Errors
    /// As [`answer_durably`](Self::answer_durably).
    pub async fn let_go_durably(&self, kind: &Name, lease: Lease) -> Result<(), RequestCareError> {
        Ok(self.durable(kind).await?.queue().nack(&[lease], None, "its responder let go of it").await?)
    }

    /// A responder of a durable type, which holds at most `window` requests at once.
    ///
    /// # Errors
    /// [`RequestCareError::Queue`].
    pub async fn serve_durably(&self, of: &RequestType, window: usize) -> Result<DurableResponder, RequestCareError> {
        let consumer = self.kept(&of.name).await?.queue().consume(Consume { window, ttl: None })?;
        Ok(DurableResponder::of(&self.env, consumer, window, of.contract.time_limit))
    }
}
