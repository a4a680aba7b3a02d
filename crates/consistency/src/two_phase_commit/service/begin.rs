//! Beginning a transaction under its caller's name, and telling what became of it.

use std::{
    collections::btree_map::Entry,
    sync::{Arc, PoisonError},
};

use quorate_data::store::StoreError;
use quorate_foundations::name::Name;
use tokio::sync::oneshot;

use super::{Coordinator, Ended, Participant, Shared, Transaction, course};
use crate::two_phase_commit::{
    Gid, TxnError,
    requests::{self, Begun, Request, RequestId, Requested},
    standing,
};

impl Coordinator {
    /// Carries out a transaction once under its caller's name: whoever asks again with the same is told what became of the first, also after
    /// a crash. How it ends stands in the log, also where it is aborted, and where one participant alone takes part.
    ///
    /// Before a participant is asked it is written down that the transaction was begun. If its coordinator dies before it is decided, it is
    /// aborted, and stays so: take another name to try again.
    ///
    /// # Errors
    /// [`TxnError::IdReused`]: under that name something else was asked for. [`TxnError::Stopped`], and
    /// [`StoreError::OutcomeUnknown`](quorate_data::store::StoreError::OutcomeUnknown): *outcome unknown*, ask again under the same
    /// name. With any other, nothing was begun by this call; [`begun`](Self::begun) tells whether something was before.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the transaction.
    pub async fn begin(&self, request: Request) -> Result<Requested, TxnError> {
        let shared = self.shared.clone();
        self.may_begin(&request)?;
        let (reply, answer) = oneshot::channel();
        // Whoever asked may go: what is written down as begun is carried out all the same.
        self.shared.env.tasks().spawn("txn/begin", async move {
            let stop = shared.env.tasks().stop().clone();
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                begun = shared.clone().begin_request(request) => {
                    let _gone = reply.send(begun);
                }
            }
        });
        answer.await.unwrap_or_else(|_| Err(StoreError::OutcomeUnknown.into()))
    }

    /// Whether a request would be begun, if `joining` were registered as well. It asks nobody, and changes nothing.
    ///
    /// # Errors
    /// Those of [`begin`](Self::begin) with which nothing is begun.
    pub fn admits(&self, request: &Request, joining: &[Name]) -> Result<(), TxnError> {
        self.may_begin(request)?;
        let is_known = |name: &Name| joining.contains(name) || self.has(name);
        if let Some((name, _)) = request.transaction.branches.iter().find(|(name, _)| !is_known(name)) {
            return Err(TxnError::UnknownParticipant { name: name.clone() });
        }
        self.shared.has_room(&self.shared.unfinished(), &request.transaction)
    }

    fn may_begin(&self, request: &Request) -> Result<(), TxnError> {
        request.transaction.check()?;
        if self.shared.env.tasks().stop().is_cancelled() {
            return Err(TxnError::Closed);
        }
        if self.is_fenced() {
            return Err(TxnError::Fenced);
        }
        Ok(())
    }

    /// What became of what was begun under that name with that digest, for whoever would begin it: none where nothing was.
    ///
    /// # Errors
    /// [`TxnError::IdReused`]: under that name something else was asked for. [`TxnError::Store`] where the log does not say.
    pub async fn begun(&self, id: &RequestId, digest: &[u8; 32]) -> Result<Option<Requested>, TxnError> {
        self.shared.requested(id, Some(&requests::in_hex(digest))).await
    }

    /// What became of a transaction that was begun under that name; none where none was. One that its coordinator left undecided is
    /// aborted, which is then written down.
    ///
    /// # Errors
    /// [`TxnError::Store`] where the log does not say.
    pub async fn requested(&self, id: &RequestId) -> Result<Option<Requested>, TxnError> {
        self.shared.requested(id, None).await
    }
}

/// A request that this coordinator is at: for as long as this lives nobody else writes down how it ended.
struct AtIt<'s> {
    shared: &'s Shared,
    id: RequestId,
}

impl<'s> AtIt<'s> {
    fn new(shared: &'s Shared, id: &RequestId) -> Self {
        *shared.requests.lock().unwrap_or_else(PoisonError::into_inner).entry(id.clone()).or_default() += 1;
        Self { shared, id: id.clone() }
    }
}

impl Drop for AtIt<'_> {
    fn drop(&mut self) {
        let mut all = self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = all.entry(self.id.clone()) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl Shared {
    /// Everybody who takes part, in the order of the transaction.
    pub(super) fn taking_part(&self, transaction: &Transaction) -> Result<Vec<Arc<dyn Participant>>, TxnError> {
        let known = self.participants.read().unwrap_or_else(PoisonError::into_inner);
        let one =
            |name: &Name| known.get(name).cloned().ok_or_else(|| TxnError::UnknownParticipant { name: name.clone() });
        transaction.branches.iter().map(|(name, _)| one(name)).collect()
    }

    fn not_begun(&self, gid: &Gid) {
        self.unfinished().live.remove(&gid.txn.number);
    }

    async fn begin_request(self: Arc<Self>, request: Request) -> Result<Requested, TxnError> {
        let Request { id, digest, mut transaction } = request;
        let patience = self.config.decision_patience;
        let names: Vec<Name> = transaction.branches.iter().map(|(name, _)| name.clone()).collect();
        let at_it = AtIt::new(&self, &id);
        let named = self.begin(&transaction).and_then(|(gid, live)| {
            // Ordering: it is under way before it is looked who takes part, so that nobody is removed meanwhile.
            let participants = self.taking_part(&transaction).inspect_err(|_| self.not_begun(&gid))?;
            Ok((gid, live, participants))
        });
        let (gid, live, participants) = match named {
            Ok(named) => named,
            Err(refused) => {
                drop(at_it);
                // Now it cannot be begun; that says nothing of what was begun before.
                return self.requested(&id, Some(&digest)).await?.ok_or(refused);
            }
        };
        let begun = Begun::new(&gid, &self.config.name, &names, &digest);
        let is_first = begun.write(&self.store, &id, patience).await;
        if !matches!(is_first, Ok(true)) {
            // Nobody was asked for anything. Where it is there all the same, whoever asks for it aborts it.
            self.not_begun(&gid);
            drop(at_it);
            is_first?;
            let known = self.requested(&id, Some(&digest)).await?;
            let what = "what was begun under that id is not to be read yet".to_owned();
            return known.ok_or(TxnError::Store(StoreError::Unreachable { what }));
        }
        self.env.reached("txn: a request was begun");
        // It is in the log whatever the participants say, and not done in one phase.
        transaction.events.push(requests::committed(&id));
        let (reply, answer) = oneshot::channel();
        self.env
            .tasks()
            .spawn("txn", course::Course::new(self.clone(), gid, live, participants, transaction, reply).run());
        let receipt = answer.await.map_err(|_| TxnError::Stopped { gid })?;
        let mut ended = receipt.ended.clone();
        if let Ended::Aborted { by, why } = &receipt.ended {
            match requests::abort(&self.store, &id, (by.clone(), why), patience).await {
                Ok(written) => ended = written,
                // It is aborted, and will be: only why is lost.
                Err(cause) => tracing::warn!(%gid, %cause, "why a transaction was aborted could not be written down"),
            }
        }
        Ok(Requested { gid, participants: names, ended, receipt: Some(receipt) })
    }

    /// `digest`: of what is asked for under that id, for whoever would begin it.
    async fn requested(&self, id: &RequestId, digest: Option<&str>) -> Result<Option<Requested>, TxnError> {
        let Some(found) = requests::found(&self.store, id).await? else { return Ok(None) };
        if digest.is_some_and(|digest| digest != found.digest) {
            return Err(TxnError::IdReused { id: id.clone() });
        }
        let ended = match &found.ended {
            Some(ended) => ended.clone(),
            None if self.may_be_decided(id, &found.coordinator, &found.gid).await? => Ended::Unknown,
            None => {
                let why = (None, requests::STOPPED);
                requests::abort(&self.store, id, why, self.config.decision_patience).await?
            }
        };
        Ok(Some(found.told(ended)))
    }

    async fn may_be_decided(&self, id: &RequestId, coordinator: &Name, gid: &Gid) -> Result<bool, TxnError> {
        let is_own = gid.coordinator == self.standing.id && gid.txn.takeover == self.standing.takeover;
        if !is_own {
            return Ok(!standing::is_replaced(&self.store, coordinator, gid).await?);
        }
        // Ordering: a course is there before its request is not any more.
        let is_at_it = self.requests.lock().unwrap_or_else(PoisonError::into_inner).contains_key(id);
        Ok(is_at_it || self.live(gid).is_some())
    }
}
