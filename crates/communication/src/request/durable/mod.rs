//! Requests that outlive their callers and their responders: each is a message of a queue, and its answer is kept beside the message's id.

mod error;
mod kept;
mod respond;
mod status;

use std::{marker::PhantomData, time::Duration};

use quorate_data::store::DynTx;
use quorate_foundations::name::Name;
use serde::{Serialize, de::DeserializeOwned};

use super::{Contract, DeclareError, Exchange, Payload, Requests};
use crate::message_queue::{Queue, QueueError, Sent};
pub use error::DurableError;
pub use kept::DurableRequests;
pub use respond::Handed;
pub use status::Status;

/// Requests that ask a `Q` and are answered with an `A`, both as JSON, which a queue keeps until they are answered, and their answers for as long as it remembers their ids.
///
/// # Example
/// ```
/// use std::time::Duration;
///
/// use quorate_communication::{
///     message_queue::{Config, Queues, WorkerConfig},
///     request::{Fault, Handed, Limits, Requests, Status},
/// };
/// use quorate_data::store::sqlite;
/// use quorate_runtime::Env;
///
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("shop.db");
/// let env = Env::real();
/// let store = sqlite::open(&env, sqlite::Config::at(path)).await?;
/// let queue = Queues::open(&store).await?.declare(&"report".parse()?, Config::default()).await?;
/// let requests = Requests::new(&env, Limits::default());
/// let reports = requests.declare_durable::<u32, u32>(&"report".parse()?, Duration::from_secs(60), &queue)?;
///
/// // Nobody is there yet.
/// let asked = reports.ask(&"of-may".parse()?, &5).await?;
/// assert_eq!(asked.status().await?, Status::Waiting { attempts: 0 });
///
/// let workers = reports.respond(WorkerConfig::default(), |handed: Handed<u32>| async move {
///     Ok(handed.body().checked_mul(2).ok_or_else(|| Fault::new("too-large", "it has no double")))
/// })?;
/// assert_eq!(asked.wait(Duration::from_secs(60)).await?, Status::Done(10));
/// // Whoever knows the id can ask for it, also after a restart.
/// assert_eq!(reports.asked(&"of-may".parse()?).status().await?, Status::Done(10));
/// # workers.drain(Duration::from_secs(1)).await;
/// # store.close().await?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub struct Durable<Q, A> {
    kept: DurableRequests,
    time_limit: Duration,
    says: PhantomData<fn(Q) -> A>,
}

/// A durable request, by its id. Cheap to clone; there may be many of one, in any process that has the store.
pub struct DurableRequest<A> {
    kept: DurableRequests,
    id: Name,
    says: PhantomData<fn() -> A>,
}

impl<Q, A> Clone for Durable<Q, A> {
    fn clone(&self) -> Self {
        Self { kept: self.kept.clone(), time_limit: self.time_limit, says: PhantomData }
    }
}

impl<A> Clone for DurableRequest<A> {
    fn clone(&self) -> Self {
        Self { kept: self.kept.clone(), id: self.id.clone(), says: PhantomData }
    }
}

impl<Q, A> std::fmt::Debug for Durable<Q, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Durable").field("kept", &self.kept).finish_non_exhaustive()
    }
}

impl<A> std::fmt::Debug for DurableRequest<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DurableRequest").field("kept", &self.kept).field("id", &self.id).finish_non_exhaustive()
    }
}

impl Requests {
    /// Declares requests that `queue`, which no other type of this process may have, keeps until they are answered. Their answers are kept for as long as the
    /// queue remembers ids ([`Config::dedupe`](crate::message_queue::Config::dedupe)). A responder that takes longer than `time_limit` for one has failed that time.
    ///
    /// # Errors
    /// As [`declare`](Self::declare).
    pub fn declare_durable<Q, A>(
        &self,
        kind: &Name,
        time_limit: Duration,
        queue: &Queue,
    ) -> Result<Durable<Q, A>, DeclareError> {
        self.agree(kind, &Contract { exchange: Exchange::Durable, time_limit }, Some(queue.name()))?;
        Ok(Durable { kept: DurableRequests::of(kind, queue), time_limit, says: PhantomData })
    }
}

impl<Q, A> Durable<Q, A> {
    /// The request of this id, whether or not it was ever asked.
    pub fn asked(&self, id: &Name) -> DurableRequest<A> {
        DurableRequest { kept: self.kept.clone(), id: id.clone(), says: PhantomData }
    }
}

impl<Q: Serialize, A> Durable<Q, A> {
    /// Asks `value` under `id`: it is durable when this returns, whether or not anybody is there to answer. The same again is the same request, for as long as the
    /// queue remembers the id: so repeating what is unknown is safe.
    ///
    /// # Errors
    /// [`DurableError::AnotherBody`]: the id was used for another one. [`DurableError::Queue`]: the queue is full, or the store failed; what that says of the
    /// outcome holds here. Otherwise nothing was asked.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the request: the outcome is then unknown.
    pub async fn ask(&self, id: &Name, value: &Q) -> Result<DurableRequest<A>, DurableError> {
        let _sent: Sent = self.kept.ask(id, written(value)?).await?;
        Ok(self.asked(id))
    }

    /// The same in the caller's transaction: it is asked once that has committed, and never if it rolls back.
    ///
    /// # Errors
    /// As [`ask`](Self::ask); the transaction can go on after [`DurableError::AnotherBody`], which wrote nothing.
    pub async fn ask_in(&self, tx: &mut DynTx, id: &Name, value: &Q) -> Result<DurableRequest<A>, DurableError> {
        let _sent: Sent = self.kept.ask_in(tx, id, written(value)?).await?;
        Ok(self.asked(id))
    }
}

impl<A: DeserializeOwned> DurableRequest<A> {
    /// Its id.
    pub fn id(&self) -> &Name {
        &self.id
    }

    /// What became of it so far, as the store says at this moment.
    ///
    /// # Errors
    /// [`DurableError::Forgotten`]: it was never asked, or so long ago that it is not remembered. [`DurableError::Unreadable`]: it was done, and its answer is no `A`.
    pub async fn status(&self) -> Result<Status<A>, DurableError> {
        self.wait(Duration::ZERO).await
    }

    /// The same once it [is over](Status::is_over) or `patience` has passed. Nothing is asked of the store meanwhile, but where several processes share it: there
    /// one query each tenth of a second for all that a process waits for.
    ///
    /// # Errors
    /// As [`status`](Self::status). [`QueueError::Crowded`]: as many wait for requests of the type as may.
    ///
    /// # Cancel safety
    /// Cancel safe: the request goes on, whoever waits for it.
    pub async fn wait(&self, patience: Duration) -> Result<Status<A>, DurableError> {
        self.kept.status(&self.id, patience).await?.map(|answer| {
            serde_json::from_slice(&answer.bytes).map_err(|wrong| DurableError::Unreadable {
                kind: self.kept.kind().clone(),
                id: self.id.clone(),
                what: wrong.to_string(),
            })
        })
    }
}

fn written<Q: Serialize>(value: &Q) -> Result<Payload, DurableError> {
    let written = serde_json::to_vec(value).map(Payload::json);
    written.map_err(|wrong| QueueError::Invalid { what: wrong.to_string() }.into())
}

#[cfg(test)]
mod tests;
