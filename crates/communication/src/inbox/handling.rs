//! One message: handled in a transaction that records it, and what becomes of it.

use std::sync::Arc;

use quorate_data::store::{self, TransactError};
use quorate_runtime::BoxFuture;

use super::{
    Failed, InboxError,
    rows::{self, Known},
    service::Work,
};
use crate::{
    message_queue::{Cause, Failure},
    transports::Incoming,
};

/// Does what a message says, in the consumer's transaction.
pub(super) type Handler = Arc<
    dyn for<'t> Fn(&'t mut store::DynTx, Arc<Incoming>) -> BoxFuture<'t, Result<(), Failed>> + Send + Sync + 'static,
>;

/// What became of a message.
#[derive(Debug)]
pub(super) enum Became {
    /// It took effect.
    Done,
    /// It had taken effect before.
    Repeated,
    /// It is parked, now or since earlier.
    Parked,
    /// It did not go this time: the broker is to hand it out again.
    Again {
        /// How often it was handled.
        attempts: u32,
        /// When; `None`: as the backoff says.
        delay: Option<std::time::Duration>,
        /// Why, for people.
        reason: String,
    },
}

/// Why a transaction of a message was rolled back.
enum Stop {
    Handler(Failed),
    Own(InboxError),
}

impl From<InboxError> for Stop {
    fn from(failed: InboxError) -> Self {
        Self::Own(failed)
    }
}

impl Work {
    /// Handles a message that came.
    ///
    /// # Errors
    /// What kept the store from saying what became of it, or the handler from what it needs: it is to come again, and this was no attempt.
    pub(super) async fn handle(&self, message: &Arc<Incoming>) -> Result<Became, InboxError> {
        // Whoever may have ended the process goes alone, from the note that it is tried to what came of it: should it happen again, nobody
        // else was there, and is charged with it.
        let (_alone, _with_others) = if message.redelivered {
            (Some(self.alone.write().await), None)
        } else {
            (None, Some(self.alone.read().await))
        };
        let attempts = if message.redelivered { self.begin(message).await? } else { 1 };
        let became = self.tried(message, attempts).await;
        if became.is_err() && message.redelivered {
            // It was none. Where that cannot be written either, the store will hardly have let it begin.
            let _taken_back = self.take_back(message).await;
        }
        became
    }

    async fn tried(&self, message: &Arc<Incoming>, attempts: u32) -> Result<Became, InboxError> {
        let max = self.config.max_attempts;
        if attempts > max {
            self.store.env().reached("inbox: a message that ends its process was parked");
            let reason = format!("it was handed out {attempts} times, and nobody told what became of it");
            return self.park(message, Cause::Expired, &reason).await;
        }
        if let Some(why) = &message.unreadable {
            return self.park(message, Cause::Parked, &format!("it cannot be read: {why}")).await;
        }
        match self.transact(message).await {
            Ok(became) => Ok(became),
            Err(Stop::Own(failed)) => Err(failed),
            Err(Stop::Handler(Failed::NotNow { reason })) => Err(InboxError::NotNow { what: reason }),
            Err(Stop::Handler(Failed::Park { reason })) => self.park(message, Cause::Parked, &reason).await,
            Err(Stop::Handler(Failed::Again { reason, .. })) if attempts >= max => {
                self.park(message, Cause::Nacked, &reason).await
            }
            Err(Stop::Handler(Failed::Again { reason, delay })) => {
                let attempts = self.fail(message, &reason).await?;
                Ok(Became::Again { attempts, delay, reason })
            }
        }
    }

    /// The transaction in which a message takes effect, unless it did before or something parked stands before it.
    async fn transact(&self, message: &Arc<Incoming>) -> Result<Became, Stop> {
        let (work, message) = (self.shared(), message.clone());
        let max = self.config.max_parked;
        let ended = self.store.transact(move |tx| {
            let (work, message) = (work.clone(), message.clone());
            Box::pin(async move {
                let consumer = &work.consumer;
                let known = rows::known(tx, consumer, &message).await?;
                if known == Known::IsParked {
                    return Ok(Became::Parked);
                }
                let taken = tx.taken(&work.ids, &message.identity).await.map_err(InboxError::from)?;
                if known == Known::KeyIsParked && taken.is_none() {
                    let why = (work.wall(), Cause::Parked, "an earlier message of its key is parked");
                    rows::park(tx, consumer, &message, why, max).await?;
                    return Ok(Became::Parked);
                }
                let is_repeat = tx.once(&work.ids, &message.identity).await.map_err(InboxError::from)?.is_repeat();
                if is_repeat {
                    let age = work.config.keep / 8;
                    tx.renew(&work.ids, &message.identity, age).await.map_err(InboxError::from)?;
                } else {
                    (work.handler)(&mut *tx, message.clone()).await.map_err(Stop::Handler)?;
                    work.store.env().reached("inbox: handled and not committed");
                }
                if message.redelivered {
                    rows::clear(tx, consumer, &message.identity).await.map_err(InboxError::from)?;
                }
                Ok::<_, Stop>(if is_repeat { Became::Repeated } else { Became::Done })
            })
        });
        ended.await.map_err(stopped)
    }

    /// Writes down that a message is handled once more. One that has taken effect needs none of that, and is left as it is.
    pub(super) async fn begin(&self, message: &Arc<Incoming>) -> Result<u32, InboxError> {
        let (work, message) = (self.shared(), message.clone());
        let begun = self.store.transact(move |tx| {
            let (work, message) = (work.clone(), message.clone());
            Box::pin(async move {
                let has_place = rows::known(tx, &work.consumer, &message).await? == Known::IsParked;
                if has_place || tx.taken(&work.ids, &message.identity).await?.is_some() {
                    return Ok(1);
                }
                rows::begin(tx, &work.consumer, &message).await
            })
        });
        begun.await.map_err(InboxError::of_transaction)
    }

    async fn take_back(&self, message: &Arc<Incoming>) -> Result<(), InboxError> {
        let (work, message) = (self.shared(), message.clone());
        let taken_back = self.store.transact(move |tx| {
            let (work, message) = (work.clone(), message.clone());
            Box::pin(
                async move { rows::take_back(tx, &work.consumer, &message.identity).await.map_err(InboxError::from) },
            )
        });
        taken_back.await.map_err(InboxError::of_transaction)
    }

    async fn fail(&self, message: &Arc<Incoming>, reason: &str) -> Result<u32, InboxError> {
        let (work, message) = (self.shared(), message.clone());
        let failure = Failure::new(0, work.wall(), Cause::Nacked, reason);
        let noted = self.store.transact(move |tx| {
            let (work, message, failure) = (work.clone(), message.clone(), failure.clone());
            Box::pin(async move { rows::fail(tx, &work.consumer, &message, failure).await })
        });
        noted.await.map_err(InboxError::of_transaction)
    }

    /// Parks a message, unless it took effect.
    pub(super) async fn park(&self, message: &Arc<Incoming>, cause: Cause, reason: &str) -> Result<Became, InboxError> {
        let (work, message, reason) = (self.shared(), message.clone(), reason.to_owned());
        let max = self.config.max_parked;
        let parked = self.store.transact(move |tx| {
            let (work, message, reason) = (work.clone(), message.clone(), reason.clone());
            Box::pin(async move {
                if tx.taken(&work.ids, &message.identity).await?.is_some() {
                    return Ok(Became::Repeated);
                }
                if rows::known(tx, &work.consumer, &message).await? != Known::IsParked {
                    rows::park(tx, &work.consumer, &message, (work.wall(), cause, &reason), max).await?;
                }
                Ok::<_, InboxError>(Became::Parked)
            })
        });
        parked.await.map_err(InboxError::of_transaction)
    }
}

/// What a transaction's end says of its message: what the handler does, panics included, is the message's; the store's ills are not.
fn stopped(ended: TransactError<Stop>) -> Stop {
    match ended {
        TransactError::Aborted(own) => own,
        TransactError::Store(cause) => Stop::Own(cause.into()),
        other => Stop::Handler(Failed::again(other.to_string())),
    }
}
