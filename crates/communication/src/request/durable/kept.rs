//! Durable requests as their queue keeps them: bodies and answers of any media type.

use std::{borrow::Cow, sync::Arc, time::Duration};

use quorate_data::{
    event::NewEvent,
    store::{DynTx, TransactError},
};
use quorate_foundations::name::Name;

use super::{DurableError, Status};
use crate::{
    message_queue::{Answer, Kept, Lease, NewMessage, Progress, Queue, QueueError, Sent},
    request::{Fault, Payload, machine::Verdict},
};

/// The source of all messages that are requests: their ids are all that tells them apart.
const SOURCE: &str = "/requests";
/// What answers and faults are kept as.
const ANSWER: &str = "answer";
const FAULT: &str = "fault";

/// Durable requests of a type, as they travel: for whoever has no Rust types for them. Cheap to clone; clones are the same.
#[derive(Clone, Debug)]
pub struct DurableRequests {
    queue: Queue,
    kind: Name,
}

impl DurableRequests {
    /// The requests of type `kind` that `queue` keeps. Whether another type has the queue is not looked at.
    pub fn of(kind: &Name, queue: &Queue) -> Self {
        Self { queue: queue.clone(), kind: kind.clone() }
    }

    /// What their type is called.
    pub fn kind(&self) -> &Name {
        &self.kind
    }

    /// The queue that keeps them.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Asks: see [`Durable::ask`](super::Durable::ask).
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn ask(&self, id: &Name, body: Payload) -> Result<Sent, DurableError> {
        let sent = self.queue.send(vec![self.message(id, body)]).await;
        self.first(id, sent)
    }

    /// Asks in the caller's transaction: see [`Durable::ask_in`](super::Durable::ask_in).
    ///
    /// # Errors
    /// As there.
    pub async fn ask_in(&self, tx: &mut DynTx, id: &Name, body: Payload) -> Result<Sent, DurableError> {
        let sent = self.queue.send_in(tx, vec![self.message(id, body)]).await;
        self.first(id, sent)
    }

    pub(in crate::request) fn message(&self, id: &Name, Payload { content_type, bytes }: Payload) -> NewMessage {
        let mut event = NewEvent::new(id.as_str(), SOURCE, self.kind.as_str());
        // An attribute that says nothing is left out.
        event.content_type = content_type.filter(|media| !media.is_empty()).map(Into::into);
        event.data = Some(bytes);
        NewMessage::of(event)
    }

    pub(in crate::request) fn first(
        &self,
        id: &Name,
        sent: Result<Vec<Sent>, QueueError>,
    ) -> Result<Sent, DurableError> {
        match sent {
            Ok(sent) => {
                Ok(sent.into_iter().next().unwrap_or_else(|| unreachable!("invariant: as many are sent as were given")))
            }
            Err(QueueError::IdReused { .. }) => {
                Err(DurableError::AnotherBody { kind: self.kind.clone(), id: id.clone() })
            }
            Err(other) => Err(other.into()),
        }
    }

    /// What became of a request, once it is over or `patience` has passed: see [`DurableRequest::wait`](super::DurableRequest::wait).
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn status(&self, id: &Name, patience: Duration) -> Result<Status<Payload>, DurableError> {
        let Some(progress) = self.queue.progress((SOURCE, id.as_str()), patience).await? else {
            let remembered = self.queue.config().dedupe;
            return Err(DurableError::Forgotten { kind: self.kind.clone(), id: id.clone(), remembered });
        };
        Ok(match progress {
            Progress::Waiting { attempts } => Status::Waiting { attempts },
            Progress::Running { attempt } => Status::Running { attempt },
            Progress::Answered(kept) => answered(kept),
            Progress::Parked { attempts, reason, place } => {
                let fault = Fault::new(Status::<Payload>::DEAD_LETTER, format!("attempt {attempts}: {reason}"));
                Status::Failed { fault, dead_letter: Some(place) }
            }
            Progress::Settled => Status::Unanswered,
        })
    }

    /// Answers the request that was handed out under `lease`.
    ///
    /// # Errors
    /// [`QueueError::LeaseLost`]: it is not the caller's any more, and nothing was changed; where an earlier call's outcome was unknown, that may have answered it.
    /// [`DurableError::TooLong`]: it still is the caller's.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the answer: the outcome is then unknown.
    pub async fn answer(&self, lease: Lease, verdict: Verdict) -> Result<(), DurableError> {
        let (queue, answer) = (self.queue.clone(), Arc::new(self.answer_of(verdict)?));
        let answering = self.queue.store().transact(move |tx| {
            let (queue, answer) = (queue.clone(), answer.clone());
            Box::pin(async move { queue.answer_in(tx, &lease, &answer).await })
        });
        answering.await.map_err(|failed: TransactError<QueueError>| QueueError::of_transaction(failed).into())
    }

    /// A verdict as it is kept.
    pub(super) fn answer_of(&self, verdict: Verdict) -> Result<Answer, DurableError> {
        let (max, max_media) = (self.queue.store().limits().event_bytes, Payload::MAX_CONTENT_TYPE);
        match verdict {
            Verdict::Answer(Payload { content_type, bytes }) => {
                if bytes.len() > max || content_type.as_ref().is_some_and(|media| media.len() > max_media) {
                    return Err(DurableError::TooLong { max, max_media });
                }
                Ok(Answer { label: ANSWER, content_type: content_type.map(Into::into), data: bytes })
            }
            // What was made by hand, or read, has no limits of its own.
            Verdict::Fault(Fault { code, detail }) => {
                let written = serde_json::to_vec(&Fault::new(code, detail));
                let data = written.unwrap_or_else(|_| unreachable!("plain data has a JSON form")).into();
                Ok(Answer { label: FAULT, content_type: None, data })
            }
        }
    }
}

/// What a kept answer says. A fault that cannot be read is one all the same.
fn answered(Kept { label, content_type, data }: Kept) -> Status<Payload> {
    if &*label == ANSWER {
        let content_type = content_type.map(|media| Cow::Owned(media.as_ref().to_owned()));
        return Status::Done(Payload { content_type, bytes: data });
    }
    let fault = serde_json::from_slice(&data)
        .unwrap_or_else(|wrong| Fault::new("unreadable", format!("what the responder said cannot be read: {wrong}")));
    Status::Failed { fault, dead_letter: None }
}
