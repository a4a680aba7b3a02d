//! Callbacks: whoever asks a durable request names an address, and the outcome is sent there once there is one.
//!
//! Think of leaving a telephone number at the workshop instead of waiting on its bench. What became of the car is in the workshop's book all the same; the call only spares the
//! looking. Nobody answers: the workshop rings again, later and later, and in the end puts a note where everybody sees it.
//!
//! *When not to use it*: where the caller can hold a connection ([`DurableRequest::wait`](super::DurableRequest::wait) costs nothing while nothing happens); for many who want to know (publish
//! an event, and declare a [webhook]).
//!
//! # What holds when things go wrong
//! * **Nothing is told before it is so, and nothing is forgotten.** The address is written in the transaction that asks. Once the outcome is durable, one transaction notes that it is told and sends
//!   a message to the queue [`QUEUE`]; that is acknowledged where the address has taken it (2xx). A process that dies between any two of these goes on there.
//! * **The first end is told, once.** An answer, a fault, a dead letter (no responder came to an end with it, or its time was over), or a message that was settled without an answer. What becomes of
//!   a dead letter that is replayed afterwards is for the status to say.
//! * **At least once**, and repeats can be told: [`webhook-id`](crate::event_bus::webhook::ID) is the same for every attempt, and so is the body.
//! * **An address that does not answer** is called again for about a day, as a webhook is: `Retry-After` is heeded, 410 ends it. Then the message is a dead letter of the queue, with what was said last, and
//!   can be replayed there. Addresses are judged as those of webhooks ([`Allowed`](crate::event_bus::webhook::Allowed)), when the request is asked and when the socket is dialled.
//! * **No order** between callbacks, and no breaker for an address: [`PLACES`] are called at one time, by each process.
//! * **Deleting the type's queue** deletes its requests, and with them who was to be told.
//!
//! # What is sent
//! A POST with a CloudEvent in JSON: `type` is `quorate.request.done`, `.failed` or `.unanswered`, `source` the request's status resource, `subject` its id, `data` the answer as it was given, or the fault. An outcome that is
//! too long for a message is sent without data and says so in `dataomitted`. It is signed as Standard Webhooks, with the secret that came with the request.
//!
//! Sources: Hohpe and Woolf, *Enterprise Integration Patterns* (2003), "Return Address"; Standard Webhooks 1.0; ADR 25.

mod deliver;
mod outcome;
mod service;
mod tell;

use std::{fmt, sync::Arc};

use quorate_data::{
    event::Scalar,
    store::{DynTx, SqlError, StoreError, TransactError},
};
use quorate_foundations::name::Name;
use tokio::sync::Notify;

use super::{DurableError, DurableRequests, Payload};
use crate::{
    event_bus::webhook::{self, Calls, Secret},
    message_queue::{QueueError, Queues, Sent, callbacks as rows},
};
pub use deliver::PLACES;
pub use outcome::{DONE, FAILED, UNANSWERED};

/// The queue of outcomes that are on their way: it is declared with the first of them. Pause it, look through its dead letters, replay and discard them as those of any other.
pub const QUEUE: &str = "request-callbacks";

/// Who is told of the outcome of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callback {
    /// Where: an absolute `http` or `https` address of at most 2,048 bytes.
    pub url: String,
    /// What the outcome is signed with. It is kept with the store until that is delivered.
    pub secret: Secret,
}

/// The callbacks of a store. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct Callbacks {
    queues: Queues,
    calls: Calls,
    room: Arc<Room>,
}

/// What is kept in memory of a store's callbacks.
#[derive(Debug, Default)]
struct Room {
    /// Somebody asked to be told.
    asked: Notify,
}

impl fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callbacks").field("calls", &self.calls).finish_non_exhaustive()
    }
}

impl Callbacks {
    /// The callbacks of the store that `queues` are in, which call whom `calls` may call.
    pub fn new(queues: &Queues, calls: Calls) -> Self {
        Self { queues: queues.clone(), calls, room: queues.store().room() }
    }

    /// Asks as [`DurableRequests::ask`], and has `callback` told of the outcome. The same again is the same request; with another callback it is another one.
    ///
    /// # Errors
    /// As there, and [`DurableError::Callback`]: the address may not be called.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the request: the outcome is then unknown.
    pub async fn ask(
        &self,
        of: &DurableRequests,
        id: &Name,
        body: Payload,
        callback: Callback,
    ) -> Result<Sent, DurableError> {
        let (callbacks, of, id) = (self.clone(), of.clone(), id.clone());
        let asking = self.queues.store().transact(move |tx| {
            let (callbacks, of, id) = (callbacks.clone(), of.clone(), id.clone());
            let (body, callback) = (body.clone(), callback.clone());
            Box::pin(async move { callbacks.ask_in(tx, &of, &id, body, callback).await })
        });
        let asked = asking.await.map_err(|failed| match failed {
            TransactError::Aborted(own) => own,
            TransactError::Store(cause) => QueueError::Store(cause).into(),
            // It was rolled back: another process may stand still inside its own.
            TransactError::TooLong { .. } => QueueError::Store(StoreError::Busy).into(),
            other => SqlError::Failed { what: other.to_string() }.into(),
        })?;
        self.room.asked.notify_one();
        Ok(asked)
    }

    /// The same in the caller's transaction: see [`DurableRequests::ask_in`]. Where several processes share the store, it may take two seconds until the first of them follows the request.
    ///
    /// # Errors
    /// As [`ask`](Self::ask); the transaction can go on after [`DurableError::AnotherBody`] and [`DurableError::Callback`], which wrote nothing.
    pub async fn ask_in(
        &self,
        tx: &mut DynTx,
        of: &DurableRequests,
        id: &Name,
        body: Payload,
        Callback { url, secret }: Callback,
    ) -> Result<Sent, DurableError> {
        webhook::Config::to(url.as_str()).check(self.calls.allowed()).map_err(DurableError::Callback)?;
        let mut message = of.message(id, body);
        // So that the same id with another callback is another request, for as long as the id is remembered.
        let said = [("callback", url.clone()), ("callbackkey", secret.fingerprint())];
        message.event.extensions.extend(said.map(|(name, value)| (name.to_owned(), Scalar::Text(value))));
        let (sent, seqs) = match of.queue().placed_in(tx, vec![message]).await {
            Ok((sent, seqs)) => (of.first(id, Ok(sent))?, seqs),
            Err(refused) => return of.first(id, Err(refused)),
        };
        if let Some(seq) = seqs.first() {
            let due = rows::Due { seq: *seq, kind: of.kind().to_string(), id: id.to_string() };
            let place = rows::Place { url, secret: secret.reveal() };
            rows::insert(tx, of.queue().number(), &due, &place).await?;
            if !of.queue().is_shared() {
                let room = self.room.clone();
                tx.after_commit(move || room.asked.notify_one()).map_err(QueueError::Store)?;
            }
        }
        Ok(sent)
    }
}

#[cfg(test)]
mod tests;
