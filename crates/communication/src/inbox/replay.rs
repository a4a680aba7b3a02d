//! Parked messages: handled again, or given up.

use std::{collections::BTreeSet, sync::Arc};

use quorate_data::store::TransactError;

use super::{Failed, Inbox, InboxError, rows, service::Work};
use crate::{
    message_queue::{Cause, Failure},
    transports::Incoming,
};

/// Which parked messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All.
    All,
    /// Those of a key.
    Key(Arc<str>),
    /// One, by its identity. Replaying it replays what is parked before it in its key too: order is kept.
    Message(Arc<str>),
}

/// What came of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Messages that took effect, or had before.
    pub done: usize,
    /// Keys whose next message failed again: it stays parked, with what is behind it.
    pub failed: usize,
}

/// What came of one parked message.
enum One {
    Done { place: u64 },
    Failed(Arc<Incoming>, String),
    None,
}

impl Inbox {
    /// Handles parked messages again, of each key in order, until one of it fails. Each takes effect in a transaction of its own, in which it leaves the
    /// list.
    ///
    /// # Errors
    /// [`InboxError::NotParked`] for a message that is not.
    ///
    /// # Cancel safety
    /// Dropping the future leaves some handled and some not.
    pub async fn replay(&self, which: &Selection) -> Result<Replayed, InboxError> {
        let work = &self.work;
        let _alone = work.replaying.lock().await;
        let (keys, up_to) = match which {
            Selection::All => (work.keys().await?, u64::MAX),
            Selection::Key(key) => (BTreeSet::from([key.clone()]), u64::MAX),
            Selection::Message(identity) => {
                let found = rows::find(&work.store, &work.consumer, identity).await?;
                let found = found.ok_or_else(|| InboxError::NotParked { identity: identity.to_string() })?;
                (BTreeSet::from([found.message.key]), found.place)
            }
        };
        let mut replayed = Replayed::default();
        for key in keys {
            loop {
                match work.replay_first(&key, up_to).await? {
                    One::Done { place } => {
                        replayed.done += 1;
                        if place >= up_to {
                            break;
                        }
                    }
                    One::Failed(message, reason) => {
                        replayed.failed += 1;
                        work.note_failure(&message, &reason).await?;
                        break;
                    }
                    One::None => break,
                }
            }
        }
        Ok(replayed)
    }

    /// Gives parked messages up: they never take effect, also if they come once more. Returns how many. What is behind them in their keys stays parked.
    ///
    /// # Errors
    /// [`InboxError::NotParked`] for a message that is not.
    pub async fn discard(&self, which: &Selection) -> Result<usize, InboxError> {
        let work = &self.work;
        let _alone = work.replaying.lock().await;
        let mut discarded = 0;
        match which {
            Selection::Message(identity) => {
                if !work.give_up(identity.clone()).await? {
                    return Err(InboxError::NotParked { identity: identity.to_string() });
                }
                discarded += 1;
            }
            Selection::All | Selection::Key(_) => {
                let mut after = 0;
                loop {
                    let page = rows::named(&work.store, &work.consumer, after, Work::PAGE).await?;
                    let Some((last, ..)) = page.last() else { break };
                    after = *last;
                    for (_, identity, key) in page {
                        let wanted = !matches!(which, Selection::Key(only) if *only != key);
                        discarded += usize::from(wanted && work.give_up(identity).await?);
                    }
                }
            }
        }
        Ok(discarded)
    }
}

impl Work {
    const PAGE: u32 = 100;

    /// The keys of parked messages.
    async fn keys(&self) -> Result<BTreeSet<Arc<str>>, InboxError> {
        let (mut keys, mut after) = (BTreeSet::new(), Arc::from(""));
        loop {
            let page = rows::keys(&self.store, &self.consumer, &after, Self::PAGE).await?;
            let Some(last) = page.last() else { return Ok(keys) };
            after = last.clone();
            keys.extend(page);
        }
    }

    /// Handles the first parked message of a key, if its place is at most `up_to`.
    async fn replay_first(&self, key: &Arc<str>, up_to: u64) -> Result<One, InboxError> {
        let (work, of) = (self.shared(), key.clone());
        let handled = self.store.transact(move |tx| {
            let (work, key) = (work.clone(), of.clone());
            Box::pin(async move {
                let first = rows::first_of(tx, &work.consumer, &key).await.map_err(Refused::Own)?;
                let Some(parked) = first.filter(|parked| parked.place <= up_to) else { return Ok(One::None) };
                let message = Arc::new(parked.message);
                let first = tx.once(&work.ids, &message.identity).await.map_err(|cause| Refused::Own(cause.into()))?;
                if let Some(why) = message.unreadable.as_ref().filter(|_| !first.is_repeat()) {
                    let reason = format!("it cannot be read: {why}");
                    return Err(Refused::Handler(message.clone(), Failed::park(reason)));
                }
                if !first.is_repeat() {
                    let done = (work.handler)(&mut *tx, message.clone()).await;
                    done.map_err(|failed| Refused::Handler(message.clone(), failed))?;
                }
                rows::clear(tx, &work.consumer, &message.identity).await.map_err(|cause| Refused::Own(cause.into()))?;
                Ok::<_, Refused>(One::Done { place: parked.place })
            })
        });
        match handled.await {
            Ok(one) => Ok(one),
            Err(TransactError::Aborted(Refused::Own(cause))) => Err(cause),
            Err(TransactError::Aborted(Refused::Handler(message, failed))) => {
                let (Failed::Again { reason, .. } | Failed::Park { reason } | Failed::NotNow { reason }) = failed;
                Ok(One::Failed(message, reason))
            }
            Err(TransactError::Store(cause)) => Err(cause.into()),
            // It panicked, took too long, or the like: what the handler does is the message's.
            Err(other) => match self.first_of(key).await? {
                Some(message) => Ok(One::Failed(Arc::new(message), other.to_string())),
                None => Ok(One::None),
            },
        }
    }

    async fn first_of(&self, key: &Arc<str>) -> Result<Option<Incoming>, InboxError> {
        let (work, key) = (self.shared(), key.clone());
        let found = self.store.transact(move |tx| {
            let (work, key) = (work.clone(), key.clone());
            Box::pin(async move { rows::first_of(tx, &work.consumer, &key).await })
        });
        Ok(found.await.map_err(InboxError::of_transaction)?.map(|parked| parked.message))
    }

    async fn note_failure(&self, message: &Arc<Incoming>, reason: &str) -> Result<(), InboxError> {
        let (work, message) = (self.shared(), message.clone());
        let failure = Failure::new(0, work.wall(), Cause::Replayed, reason);
        let noted = self.store.transact(move |tx| {
            let (work, message, failure) = (work.clone(), message.clone(), failure.clone());
            Box::pin(async move { rows::fail(tx, &work.consumer, &message, failure).await })
        });
        noted.await.map(drop).map_err(InboxError::of_transaction)
    }

    /// Has a parked message never take effect; whether it was parked.
    async fn give_up(&self, identity: Arc<str>) -> Result<bool, InboxError> {
        let work = self.shared();
        let given_up = self.store.transact(move |tx| {
            let (work, identity) = (work.clone(), identity.clone());
            Box::pin(async move {
                if !rows::unpark(tx, &work.consumer, &identity).await? {
                    return Ok(false);
                }
                let _recorded = tx.once(&work.ids, &identity).await?;
                Ok::<_, InboxError>(true)
            })
        });
        given_up.await.map_err(InboxError::of_transaction)
    }
}

/// Why a parked message was not handled.
enum Refused {
    Own(InboxError),
    Handler(Arc<Incoming>, Failed),
}
