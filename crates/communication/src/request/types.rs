//! Types of requests as values: what is asked, and what is answered.

use std::{marker::PhantomData, time::Duration};

use quorate_data::store::DynTx;
use quorate_foundations::name::Name;
use quorate_resilience::deadline::Deadline;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Asked, Contract, DeclareError, Exchange, Fault, Payload, RequestError, Requests, Responder, machine::Seat,
    responder,
};
use crate::message_queue::{Failed, Job, NewMessage, Queue, QueueError, Sent, WorkerConfig, Workers};
use quorate_data::event::NewEvent;

/// How requests of a type are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answering {
    /// How long one is worked on and waited for at most. More than nothing, at most [`Contract::MAX_TIME_LIMIT`].
    pub time_limit: Duration,
    /// Whether doing it twice is as doing it once, so that what is unknown may be repeated.
    pub idempotent: bool,
}

/// Requests that ask a `Q` and are answered with an `A`, both as JSON.
pub struct RequestType<Q, A> {
    requests: Requests,
    kind: Name,
    contract: Contract,
    says: PhantomData<fn(Q) -> A>,
}

/// Messages of a `Q` without an answer, which nothing keeps: best effort.
pub struct BestEffort<Q> {
    requests: Requests,
    kind: Name,
    contract: Contract,
    says: PhantomData<fn(Q)>,
}

/// Messages of a `Q` without an answer, which a queue keeps until they are done.
pub struct AfterCommit<Q> {
    queue: Queue,
    kind: Name,
    time_limit: Duration,
    says: PhantomData<fn(Q)>,
}

macro_rules! handle {
    ($name:ident<$($param:ident),+>, $($field:ident),+) => {
        impl<$($param),+> Clone for $name<$($param),+> {
            fn clone(&self) -> Self {
                Self { $($field: self.$field.clone(),)+ says: PhantomData }
            }
        }

        impl<$($param),+> std::fmt::Debug for $name<$($param),+> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).field("kind", &self.kind).finish_non_exhaustive()
            }
        }
    };
}

handle!(RequestType<Q, A>, requests, kind, contract);
handle!(BestEffort<Q>, requests, kind, contract);
handle!(AfterCommit<Q>, queue, kind, time_limit);

impl Requests {
    /// Declares requests with an answer. The same again is the same type.
    ///
    /// # Errors
    /// [`DeclareError::Disagrees`] if it was declared otherwise; [`DeclareError::Invalid`]; [`DeclareError::TooMany`].
    pub fn declare<Q, A>(&self, kind: &Name, answering: Answering) -> Result<RequestType<Q, A>, DeclareError> {
        let Answering { time_limit, idempotent } = answering;
        let contract = Contract { exchange: Exchange::Answer { idempotent }, time_limit };
        self.agree(kind, &contract, None)?;
        Ok(RequestType { requests: self.clone(), kind: kind.clone(), contract, says: PhantomData })
    }

    /// Declares messages without an answer that are handed to a responder that is there, within `time_limit`, or lost and counted.
    ///
    /// # Errors
    /// As [`declare`](Self::declare).
    pub fn declare_best_effort<Q>(&self, kind: &Name, time_limit: Duration) -> Result<BestEffort<Q>, DeclareError> {
        let contract = Contract { exchange: Exchange::BestEffort, time_limit };
        self.agree(kind, &contract, None)?;
        Ok(BestEffort { requests: self.clone(), kind: kind.clone(), contract, says: PhantomData })
    }

    /// Declares messages without an answer that `queue`, which no other type of this process may have, keeps until they are done. A handler that takes longer than `time_limit` has failed that time.
    ///
    /// # Errors
    /// As [`declare`](Self::declare).
    pub fn declare_after_commit<Q>(
        &self,
        kind: &Name,
        time_limit: Duration,
        queue: &Queue,
    ) -> Result<AfterCommit<Q>, DeclareError> {
        self.agree(kind, &Contract { exchange: Exchange::AfterCommit, time_limit }, Some(queue.name()))?;
        Ok(AfterCommit { queue: queue.clone(), kind: kind.clone(), time_limit, says: PhantomData })
    }

    /// `value` as it travels.
    fn written<Q: Serialize>(kind: &Name, value: &Q) -> Result<Payload, RequestError> {
        let written = serde_json::to_vec(value).map(Payload::json);
        written.map_err(|wrong| RequestError::Invalid { kind: kind.clone(), what: wrong.to_string() })
    }
}

impl<Q, A> RequestType<Q, A> {
    /// What its callers and responders agree on.
    pub fn contract(&self) -> &Contract {
        &self.contract
    }
}

impl<Q: Serialize, A: DeserializeOwned> RequestType<Q, A> {
    /// Asks `value`, and waits for the answer until `deadline`, or as long as the type allows, whichever is sooner.
    ///
    /// Somebody who serves the type has it at most once: it is never handed out a second time by itself.
    ///
    /// # Errors
    /// [`RequestError::NoResponder`] at once, and [`RequestError::Refused`]: it was not done. [`RequestError::Fault`]: the responder says no.
    /// [`RequestError::Unknown`]: it may have been done; so may one whose process ended. [`RequestError::Unreadable`]: it was done. [`RequestError::Invalid`]: nothing was sent.
    ///
    /// # Cancel safety
    /// Dropping the future cancels: what was not handed out never is, and the handler of what was is dropped where it waits. It may have been done in part.
    pub async fn request(&self, value: &Q, deadline: Deadline) -> Result<A, RequestError> {
        let body = Requests::written(&self.kind, value)?;
        let answer = self.requests.call(&self.kind, &self.contract, body, deadline).await?;
        let answer = answer.unwrap_or_else(|| unreachable!("invariant: what is awaited is answered"));
        serde_json::from_slice(&answer.bytes)
            .map_err(|wrong| RequestError::Unreadable { kind: self.kind.clone(), what: wrong.to_string() })
    }
}

impl<Q: DeserializeOwned + 'static, A: Serialize + 'static> RequestType<Q, A> {
    /// Has `handler` answer requests of this type, at most `window` at once: 1 to [`Requests::MAX_WINDOW`]. Of several responders the least busy has the next.
    ///
    /// The handler's future is dropped at the deadline, when its caller leaves, and when the [`Responder`] is dropped. One that panics leaves its caller with [`RequestError::Unknown`].
    ///
    /// # Errors
    /// [`DeclareError::Invalid`] for the window; [`DeclareError::TooManyResponders`].
    pub fn respond<F, R>(&self, window: usize, handler: F) -> Result<Responder, DeclareError>
    where
        F: Fn(Asked<Q>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<A, Fault>> + Send + 'static,
    {
        let serving = self.requests.serve(&self.kind, Seat::Here, window)?;
        Ok(responder::start(serving, self.requests.env().tasks(), handler))
    }
}

impl<Q: Serialize> BestEffort<Q> {
    /// Hands `value` to whoever serves the type. What becomes of it is counted ([`Counts::delivered`](super::Counts::delivered),
    /// [`Counts::lost`](super::Counts::lost)), and told to nobody: `Ok` says that a responder was there, not that it was done.
    ///
    /// # Errors
    /// [`RequestError::NoResponder`], [`RequestError::Refused`]: it is lost. [`RequestError::Invalid`]: nothing was sent.
    ///
    /// # Cancel safety
    /// It is handed over when the future is first polled, and that is all.
    pub async fn tell(&self, value: &Q) -> Result<(), RequestError> {
        let body = Requests::written(&self.kind, value)?;
        self.requests.call(&self.kind, &self.contract, body, Deadline::NEVER).await.map(drop)
    }
}

impl<Q: DeserializeOwned + 'static> BestEffort<Q> {
    /// Has `handler` do what messages of this type say, at most `window` at once. As [`RequestType::respond`].
    ///
    /// # Errors
    /// As [`RequestType::respond`].
    pub fn respond<F, R>(&self, window: usize, handler: F) -> Result<Responder, DeclareError>
    where
        F: Fn(Asked<Q>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), Fault>> + Send + 'static,
    {
        let serving = self.requests.serve(&self.kind, Seat::Here, window)?;
        Ok(responder::start(serving, self.requests.env().tasks(), handler))
    }
}

impl<Q: Serialize> AfterCommit<Q> {
    /// Sends `value` as the message `id`: it is durable when this returns. The same id again is the same message, as long as the queue remembers ids.
    ///
    /// # Errors
    /// As [`Queue::send`].
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the message: the outcome is then unknown.
    pub async fn tell(&self, id: &str, value: &Q) -> Result<Sent, QueueError> {
        let sent = self.queue.send(vec![self.message(id, value)?]).await?;
        Ok(sent.into_iter().next().unwrap_or_else(|| unreachable!("invariant: as many are sent as were given")))
    }

    /// The same in the caller's transaction: the message is there once it has committed, and never if it rolls back.
    ///
    /// # Errors
    /// As [`Queue::send_in`].
    pub async fn tell_in(&self, tx: &mut DynTx, id: &str, value: &Q) -> Result<Sent, QueueError> {
        let sent = self.queue.send_in(tx, vec![self.message(id, value)?]).await?;
        Ok(sent.into_iter().next().unwrap_or_else(|| unreachable!("invariant: as many are sent as were given")))
    }

    fn message(&self, id: &str, value: &Q) -> Result<NewMessage, QueueError> {
        let body = serde_json::to_vec(value).map_err(|wrong| QueueError::Invalid { what: wrong.to_string() })?;
        Ok(NewMessage::of(NewEvent::new(id, "/requests", self.kind.as_str()).json(body)))
    }
}

impl<Q: DeserializeOwned + Send + Sync + 'static> AfterCommit<Q> {
    /// Has `handler` do what messages of this type say, as [`Queue::work`] does. `config.time_limit` is the type's, whatever it says.
    ///
    /// # Errors
    /// As [`Queue::work`].
    pub fn respond<F, R>(&self, config: WorkerConfig, handler: F) -> Result<Workers, QueueError>
    where
        F: Fn(Job<Q>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), Failed>> + Send + 'static,
    {
        self.queue.work(WorkerConfig { time_limit: self.time_limit, ..config }, handler)
    }
}
