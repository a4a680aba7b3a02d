//! What [`Store`] does about data subjects.

use std::{
    collections::BTreeSet,
    ops::Not as _,
    path::PathBuf,
    sync::{Arc, MutexGuard, PoisonError},
};

use quorate_runtime::BoxFuture;
use tokio::sync::oneshot;

use super::{DataSubject, Entry, Erased, Ledger, SubjectHash};
use crate::{
    event::{InvalidEvent, check_data_subject},
    store::{Store, StoreError},
};

/// Forgets what a room derived from the data of a data subject, whose name it is given beside the store. It may be called
/// again for the same subject. It must not hold the store, which holds it.
pub type EraseHook = Arc<dyn Fn(Store, Arc<str>) -> BoxFuture<'static, Result<(), StoreError>> + Send + Sync>;

/// Why an erasure is not complete. Repeat it: what was done stays done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EraseError {
    /// The name is no data subject's.
    #[error("no event can name this data subject")]
    Invalid(#[source] InvalidEvent),
    /// The log's data may or may not be unreadable yet.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log's data is unreadable, but copies of it remain.
    #[error("the subject's key is destroyed, but {room} could not forget what it derived")]
    Copies {
        /// The room that keeps them.
        room: &'static str,
        /// Why it could not.
        #[source]
        cause: StoreError,
    },
}

impl Store {
    /// Erases the data subject `subject`: destroys its key, so that the data of its events, here and in every backup, can
    /// never be read again, and has every copy forgotten that a room [derived](Self::on_erase) from it.
    ///
    /// The events stay, with their attributes, their places and their links of the hash chain. An erasure is durable when
    /// this returns `Ok`; see [`erasure`](super) for what else an operator does.
    ///
    /// # Errors
    /// See [`EraseError`]. Repeating is always safe.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the erasure, which goes on to its end.
    ///
    /// # Example
    /// ```
    /// # use quorate_data::{event::NewEvent, store::*};
    /// # async fn example(store: Store) -> Result<(), Box<dyn std::error::Error>> {
    /// let moved = NewEvent::new("e-9", "/crm", "customer.moved").json(&br#"{"to": "Elm Street"}"#[..]).about("c-17");
    /// store.append(AppendBatch::to("customer-17".parse()?, ExpectedVersion::Any, vec![moved])).await?;
    /// assert_eq!(store.erase("c-17").await?.events, 1);
    /// let page = store.read_stream(ReadStream::forward("customer-17".parse()?, 1)).await?;
    /// assert!(page.events[0].erased() && page.events[0].data().is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn erase(&self, subject: &str) -> Result<Erased, EraseError> {
        check_data_subject(subject).map_err(EraseError::Invalid)?;
        self.require(|engine| engine.erasure, "erase data subjects")?;
        let (reply, answer) = oneshot::channel();
        let (store, subject) = (self.clone(), Arc::from(subject));
        // In a task of its own: whoever asked may go away, and half an erasure must not stay behind.
        self.env().tasks().spawn("erasure", async move {
            let _gone = reply.send(store.erase_to_the_end(subject).await);
        });
        answer.await.unwrap_or(Err(EraseError::Store(StoreError::OutcomeUnknown)))
    }

    async fn erase_to_the_end(self, subject: Arc<str>) -> Result<Erased, EraseError> {
        let name = self.erasure_name(&subject);
        // Ordering: before the key is destroyed, so that nobody is told of an erasure whose copies are still there.
        self.unfinished().insert(name);
        let erased = self.backend.erase(subject.clone()).await;
        if let Err(cause) = &erased
            && !self.may_have_begun(&subject, cause).await
        {
            self.unfinished().remove(&name);
        }
        let erased = erased?;
        self.forget_copies(&subject).await.inspect_err(|_| {
            self.unfinished().insert(name);
        })?;
        self.unfinished().remove(&name);
        Ok(erased)
    }

    /// Whether an erasure that failed with `cause` may have destroyed a key all the same.
    async fn may_have_begun(&self, subject: &Arc<str>, cause: &StoreError) -> bool {
        match cause {
            StoreError::Overloaded { .. } | StoreError::Closed => false,
            _ => self.backend.data_subject(subject.clone()).await.is_ok_and(|known| known.erasure.is_none()).not(),
        }
    }

    async fn forget_copies(&self, subject: &Arc<str>) -> Result<(), EraseError> {
        let hooks = self.erase_hooks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (room, forget) in hooks {
            forget(self.clone(), subject.clone()).await.map_err(|cause| EraseError::Copies { room, cause })?;
        }
        // The copies' pages are old ones now. Where they cannot be wiped at once, it is done as soon as they can.
        let _later = self.backend.wipe().await;
        Ok(())
    }

    /// Data subjects whose copies are being forgotten, or could not be.
    fn unfinished(&self) -> MutexGuard<'_, BTreeSet<SubjectHash>> {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has `forget` called on every [`erase`](Self::erase), after the key is destroyed and before the erasure is answered.
    ///
    /// For whoever keeps copies of events' data, or what was made of it; `room` names it in errors. Hooks run in the order
    /// they were registered, also when an erasure is repeated, and on each handle of this store.
    pub fn on_erase(&self, room: &'static str, forget: EraseHook) {
        self.erase_hooks.lock().unwrap_or_else(PoisonError::into_inner).push((room, forget));
    }

    /// The erasure ledger: to be exported after every erasure, and given to a restore. Also for rooms that catch up with
    /// erasures after a crash: [`erasure_name`](Self::erasure_name) says under which name a subject stands in it.
    pub async fn erasures(&self) -> Result<Ledger, StoreError> {
        let mut erasures = Vec::new();
        loop {
            let page = self.backend.erasures(erasures.len() as u64, self.limits().page_events).await?;
            if page.is_empty() {
                return Ok(Ledger { store: self.timeline().store, erasures });
            }
            erasures.extend(page.into_iter().map(|entry| entry.erasure));
        }
    }

    /// A page of the ledger: at most `limit` entries (1 to [`Limits::page_events`](crate::store::Limits::page_events)) behind entry `after`, oldest first.
    pub async fn erasures_after(&self, after: u64, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.backend.erasures(after, limit).await
    }

    /// What is known of the data subject `subject`: whether it was erased, and whether there is data about it since.
    ///
    /// # Errors
    /// [`EraseError::Invalid`] and [`EraseError::Store`].
    pub async fn data_subject(&self, subject: &str) -> Result<DataSubject, EraseError> {
        check_data_subject(subject).map_err(EraseError::Invalid)?;
        let known = self.backend.data_subject(subject.into()).await?;
        let unfinished = known.erasure.is_some() && self.unfinished().contains(&known.name);
        Ok(DataSubject { incomplete: known.incomplete || unfinished, ..known })
    }

    /// The name of the data subject `subject` in the ledger.
    pub fn erasure_name(&self, subject: &str) -> SubjectHash {
        SubjectHash::of(self.timeline().store, subject)
    }

    /// Writes a consistent copy of the data subjects' keys to the new file `to` while the store is in use. Returns its size
    /// in bytes. Keep it apart from the store's backups, and not for long: see [`erasure`](super). It takes its turn with
    /// [`backup`](Self::backup), and is as safe to abandon.
    pub async fn backup_keys(&self, to: PathBuf) -> Result<u64, StoreError> {
        self.backend.backup_keys(to).await
    }
}
