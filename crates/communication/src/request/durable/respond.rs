//! Responders of durable requests: workers of their queue, whose answers are written in the transaction that settles the message.

use std::{sync::Arc, time::Duration};

use quorate_data::store::{DynTx, SqlError, StoreError, TransactError};
use quorate_runtime::BoxFuture;
use serde::{Serialize, de::DeserializeOwned};

use super::{Durable, DurableError, DurableRequests};
use crate::{
    message_queue::{Answer, Failed, Job, QueueError, WorkerConfig, Workers},
    request::{Fault, Payload, machine::Verdict},
};

/// How often an answer is written while the store refuses, a second apart.
const TRIES: u32 = 30;
const AGAIN: Duration = Duration::from_secs(1);

/// A durable request that was handed to a responder. Cheap to clone; clones are the same.
#[derive(Debug)]
pub struct Handed<Q> {
    job: Job<Q>,
}

impl<Q> Clone for Handed<Q> {
    fn clone(&self) -> Self {
        Self { job: self.job.clone() }
    }
}

impl<Q> Handed<Q> {
    /// The request's id.
    pub fn id(&self) -> &str {
        &self.job.message().event.id
    }

    /// What is asked.
    pub fn body(&self) -> &Q {
        self.job.body()
    }

    /// How often it has now been handed out, counted from 1. Above 1, an earlier responder may have done some or all of the work.
    pub fn attempt(&self) -> u32 {
        self.job.attempt()
    }
}

impl<Q, A> Durable<Q, A>
where
    Q: DeserializeOwned + Send + Sync + 'static,
    A: Serialize + Send + 'static,
{
    /// Has `handler` answer requests of this type, several at once. `config.time_limit` is the type's, whatever it says.
    ///
    /// `Ok(Ok(answer))` and `Ok(Err(fault))` are the request's answer: it is written in the transaction that settles the message, so that a request has one at most, whoever
    /// dies when. `Err` says that there is none this time ([`Failed`]; any error becomes one with `?`): it is handed out again as the queue's configuration says, and after
    /// the last attempt it is a dead letter. So is one that cannot be read as a `Q`, at once.
    ///
    /// The handler may run more than once for a request: one that died with it, or was too slow, may have done its work. What has to be done once is done in
    /// [`respond_in`](Self::respond_in).
    ///
    /// # Errors
    /// As [`Queue::work`](crate::message_queue::Queue::work).
    pub fn respond<F, R>(&self, config: WorkerConfig, handler: F) -> Result<Workers, QueueError>
    where
        F: Fn(Handed<Q>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Result<A, Fault>, Failed>> + Send + 'static,
    {
        let kept = self.kept.clone();
        let config = WorkerConfig { time_limit: self.time_limit, ..config };
        self.kept.queue().work(config, move |job: Job<Q>| {
            let (kept, answering) = (kept.clone(), handler(Handed { job: job.clone() }));
            async move {
                let said = answering.await?;
                settle(&kept, &job, kept.fitting(said)).await
            }
        })
    }

    /// The same where the work is done in the transaction that settles the message: the application's own tables, the answer and the acknowledgement change together or not at
    /// all, so that the work is done exactly once. A fault is an answer: what was written before it stays. `Err` takes everything back.
    ///
    /// `handler` may be run again when another writer was in the way, and is to await nothing but the transaction: see
    /// [`Store::transact`](quorate_data::store::Store::transact).
    ///
    /// # Errors
    /// As [`respond`](Self::respond).
    ///
    /// # Example
    /// ```
    /// # use quorate_communication::{message_queue::*, request::*};
    /// # fn example(bookings: Durable<u32, i64>) -> Result<(), QueueError> {
    /// let workers = bookings.respond_in(WorkerConfig::default(), |tx, handed| {
    ///     Box::pin(async move {
    ///         let sql = "UPDATE account SET cents = cents - $1 WHERE id = 1 AND cents >= $1";
    ///         let booked = tx.execute(sql, &[(*handed.body()).into()]).await?;
    ///         Ok(if booked == 1 { Ok(i64::from(*handed.body())) } else { Err(Fault::new("no-money", "")) })
    ///     })
    /// })?;
    /// # let _ = workers;
    /// # Ok(())
    /// # }
    /// ```
    pub fn respond_in<F>(&self, config: WorkerConfig, handler: F) -> Result<Workers, QueueError>
    where
        F: for<'t> Fn(&'t mut DynTx, Handed<Q>) -> BoxFuture<'t, Result<Result<A, Fault>, Failed>>
            + Send
            + Sync
            + 'static,
    {
        let (kept, handler) = (self.kept.clone(), Arc::new(handler));
        let config = WorkerConfig { time_limit: self.time_limit, ..config };
        self.kept.queue().work(config, move |job: Job<Q>| {
            let (kept, handler) = (kept.clone(), handler.clone());
            async move {
                let inner = kept.clone();
                let answering = kept.queue().store().transact(move |tx| {
                    let (kept, handler, job) = (inner.clone(), handler.clone(), job.clone());
                    Box::pin(async move {
                        let said = handler(tx, Handed { job: job.clone() }).await.map_err(Undone::Failed)?;
                        job.answer_in(tx, &kept.fitting(said)).await.map_err(Undone::Queue)
                    })
                });
                answering.await.map_err(|undone| match undone {
                    TransactError::Aborted(Undone::Failed(failed)) => failed,
                    TransactError::Aborted(Undone::Queue(cause)) => cause.into(),
                    // What a handler does to its transaction may be wrong in itself; the queue's limit of attempts ends that.
                    other => Failed::again(other.to_string()),
                })
            }
        })
    }
}

/// Why the transaction of a handler was taken back.
#[derive(Debug, thiserror::Error)]
enum Undone {
    #[error("the handler has no answer this time")]
    Failed(Failed),
    #[error(transparent)]
    Queue(QueueError),
}

impl DurableRequests {
    /// What a handler says as it is kept. An answer that cannot be kept is a fault that says so.
    fn fitting<A: Serialize>(&self, said: Result<A, Fault>) -> Answer {
        let verdict = match said.map(|answer| serde_json::to_vec(&answer)) {
            Ok(Ok(answer)) => Verdict::Answer(Payload::json(answer)),
            Ok(Err(wrong)) => {
                let detail = format!("the request was done, and its answer cannot be written: {wrong}");
                Verdict::Fault(Fault::new("unwritable", detail))
            }
            Err(fault) => Verdict::Fault(fault),
        };
        self.answer_of(verdict).unwrap_or_else(|refused: DurableError| {
            let fault = Fault::new("answer-too-long", format!("{refused}; the request was done"));
            let fitting = self.answer_of(Verdict::Fault(fault));
            fitting.unwrap_or_else(|_| unreachable!("invariant: a fault is short"))
        })
    }
}

/// Writes an answer and settles its message, trying again where the store refuses.
async fn settle<Q: Send + Sync + 'static>(kept: &DurableRequests, job: &Job<Q>, answer: Answer) -> Result<(), Failed> {
    let (store, answer) = (kept.queue().store(), Arc::new(answer));
    let mut tried = 1;
    loop {
        let (answering, inner) = (job.clone(), answer.clone());
        let settled = store.transact(move |tx| {
            let (job, answer) = (answering.clone(), inner.clone());
            Box::pin(async move { job.answer_in(tx, &answer).await })
        });
        match settled.await.map_err(QueueError::of_transaction) {
            Ok(()) => return Ok(()),
            // It may refuse a statement as well as the whole.
            Err(QueueError::Store(cause) | QueueError::Tables(SqlError::Store(cause)))
                if !matches!(cause, StoreError::Closed) && tried < TRIES =>
            {
                tried += 1;
                store.env().sleep(AGAIN).await;
            }
            Err(other) => return Err(other.into()),
        }
    }
}
