//! Requests that outlive who asks, who answers, and the node: each is a message of the queue of its type's name.

mod responder;

use std::time::Duration;

use quorate_communication::{
    message_queue::{Config, Consume, Lease},
    request::{
        DeclareError, DurableRequests, Exchange, Payload, Status,
        callback::{Callback, Callbacks, QUEUE},
        machine::Verdict,
    },
};
use quorate_foundations::name::Name;
use quorate_runtime::Env;

pub use self::responder::DurableResponder;
use super::{RequestCare, RequestCareError, RequestType};

/// How long to wait before the queues are opened once more.
const AGAIN: Duration = Duration::from_secs(1);

impl RequestCare {
    /// Has there be a queue for durable requests of this type.
    pub(super) async fn declare_queue(&self, kind: &Name) -> Result<(), RequestCareError> {
        if kind.as_str() == QUEUE {
            let what = format!("no durable type is called `{QUEUE}`: that is the queue of outcomes that are told");
            return Err(DeclareError::Invalid { what }.into());
        }
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

    /// Asks a request of a durable type, and has `callback` told of its outcome. It is durable when this returns. Says whether it was asked before.
    ///
    /// # Errors
    /// [`RequestCareError::Durable`], and the store's.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the request: the outcome is then unknown.
    pub async fn ask_durably(
        &self,
        of: &RequestType,
        (id, body): (&Name, Payload),
        callback: Option<Callback>,
    ) -> Result<bool, RequestCareError> {
        let kept = self.kept(&of.name).await?;
        let asked = match callback {
            None => kept.ask(id, body).await?,
            Some(callback) => self.callbacks().await?.ask(&kept, id, body, callback).await?,
        };
        Ok(asked.repeated)
    }

    async fn callbacks(&self) -> Result<Callbacks, RequestCareError> {
        Ok(Callbacks::new(&self.queues.opened().await?, self.calls.clone()))
    }

    /// Tells of outcomes and delivers them until the tasks of `env` are told to stop.
    pub(crate) async fn call_back(self, env: Env) {
        let stop = env.tasks().stop().clone();
        loop {
            match self.callbacks().await {
                Ok(callbacks) => return callbacks.run(env).await,
                Err(cause) => tracing::warn!(%cause, "nobody can be told of outcomes of requests yet"),
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = env.sleep(AGAIN) => {}
            }
        }
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
