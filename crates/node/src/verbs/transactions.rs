//! Transactions of two-phase commit: what is in doubt, what became of one, and ending one by hand.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures_util::future::join_all;
use quorate_consistency::two_phase_commit::{
    Coordinator, Counts, Ending, Gid, Ledger, Order, ParticipantError, Promise, Record, Standstill, TxnError,
};
use quorate_data::store::Store;
use quorate_foundations::{name::Name, time::Wall};

/// What a node knows of transactions: what stands in its store, and what the coordinators say that the program around it runs. Cheap to
/// clone; clones are the same.
///
/// The node's own [coordinator](super::Coordinating) is among these, once it is opened. A program that has one lends it ([`attach`](Self::attach)): then its
/// participants are asked, and what is ordered is done at once. Without it there are the records of the store's log and the promises of its embedded participants, and
/// an order waits in the log for the coordinator.
#[derive(Clone)]
pub struct Transactions {
    ledger: Ledger,
    coordinators: Arc<RwLock<Vec<Coordinator>>>,
}

/// What was decided of a transaction, as far as it can be told here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// To commit it.
    Commit,
    /// Nothing: it is under way, or was aborted, or its coordinator keeps another log.
    None,
    /// The log cannot be read.
    Unreadable,
}

/// A part of a transaction that a participant holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// The participant, by its coordinator's name for it; where none is here, by what it calls itself.
    pub participant: Name,
    /// For how long, where that is known.
    pub age: Option<Duration>,
    /// What it keeps others from.
    pub held: Vec<String>,
    /// Why it has not ended; none where its coordinator is not here, or was not told by the participant.
    pub standstill: Option<Standstill>,
}

/// A transaction in doubt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubtful {
    /// Which one.
    pub gid: Gid,
    /// What was decided.
    pub decision: Decision,
    /// Who holds something of it.
    pub branches: Vec<Branch>,
}

/// What is in doubt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InDoubt {
    /// In the order of their names.
    pub transactions: Vec<Doubtful>,
    /// Participants that did not say what they hold, and why.
    pub silent: Vec<(Name, ParticipantError)>,
    /// Whether there are more.
    pub has_more: bool,
}

/// What became of ending a branch by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Whether it differs from what was decided, so that the transaction was not atomic.
    pub contradicts: bool,
    /// Why it is not done yet; it is recorded, and done when its coordinator next reaches the participant.
    pub waits: Option<String>,
}

/// How much is in doubt, for alarms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Promises in the store.
    pub promised: u64,
    /// For how long the oldest thing has been in doubt: a promise in the store, or what a coordinator here could not end.
    pub oldest: Option<Duration>,
    /// What the coordinators here did, together; none where there are none.
    pub counts: Option<Counts>,
}

impl Transactions {
    /// The most transactions that are listed at a time.
    pub const MAX_PAGE: usize = 1_000;

    /// Those that `store` knows of.
    pub fn of(store: &Store) -> Self {
        Self { ledger: Ledger::of(store), coordinators: Arc::default() }
    }

    /// Shows what `coordinator` has in doubt as well, lets it be resolved through this node, and counts what it does. It takes the place of one with
    /// the same identity.
    pub fn attach(&self, coordinator: &Coordinator) {
        let mut all = self.coordinators.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known| known.id() != coordinator.id());
        all.push(coordinator.clone());
    }

    fn coordinators(&self) -> Vec<Coordinator> {
        self.coordinators.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is in doubt behind `after`: at most `most` transactions. Every participant of a coordinator here is asked, each within its call's
    /// time.
    ///
    /// # Errors
    /// [`TxnError::Store`] where the store cannot be read.
    pub async fn in_doubt(&self, after: Option<Gid>, most: usize) -> Result<InDoubt, TxnError> {
        let asked_at = self.ledger.store().env().wall();
        let (mut found, silent) = self.held(None).await;
        found.retain(|gid, _| after.is_none_or(|after| *gid > after));
        for promise in self.ledger.promises(after, most + 1).await? {
            self.add(&mut found, promise, asked_at);
        }
        let has_more = found.len() > most;
        let shown = found
            .into_iter()
            .take(most)
            .map(|(gid, branches)| async move { Doubtful { gid, decision: self.decision(&gid).await, branches } });
        Ok(InDoubt { transactions: join_all(shown).await, silent, has_more })
    }

    /// What the log says of a transaction, and who holds something of it. None where nobody knows of it: it was aborted, or done in one phase, or never
    /// was.
    ///
    /// # Errors
    /// [`TxnError::Store`] where the store cannot be read.
    pub async fn get(&self, gid: &Gid) -> Result<Option<(Record, Vec<Branch>)>, TxnError> {
        self.described(gid, None).await
    }

    /// The same of one of which it is known who takes part: nobody else is asked.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn get_among(&self, gid: &Gid, participants: &[Name]) -> Result<Option<(Record, Vec<Branch>)>, TxnError> {
        self.described(gid, Some(participants)).await
    }

    async fn described(&self, gid: &Gid, among: Option<&[Name]>) -> Result<Option<(Record, Vec<Branch>)>, TxnError> {
        let record = self.ledger.record(gid).await?;
        let asked_at = self.ledger.store().env().wall();
        let mut found = self.held(among).await.0;
        found.retain(|known, _| known == gid);
        for promise in self.ledger.promises_of(gid).await? {
            self.add(&mut found, promise, asked_at);
        }
        let branches = found.remove(gid).unwrap_or_default();
        let is_known = record != Record::default() || !branches.is_empty();
        Ok(is_known.then_some((record, branches)))
    }

    /// Ends a transaction at a participant by hand: through its coordinator if that is here, and otherwise by an order that waits for it in the
    /// log. Who orders it and why is recorded before anything is done.
    ///
    /// # Errors
    /// As [`Coordinator::resolve`] and [`Order::record`]; that a participant could not do it is none.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the order, which is carried out.
    pub async fn resolve(&self, gid: &Gid, order: Order) -> Result<Resolved, TxnError> {
        let (participant, ending) = (order.participant().clone(), order.ending());
        let coordinators = self.coordinators();
        let here = coordinators
            .iter()
            .find(|one| one.is_of(gid.coordinator) && !one.is_fenced() && one.participants().contains(&participant));
        let Some(coordinator) = here else {
            let contradicts = order.record(self.ledger.store(), gid).await?;
            let waits = Some(
                "its coordinator is not in this process: it is done when that next asks the participant".to_owned(),
            );
            return Ok(Resolved { contradicts, waits });
        };
        match coordinator.resolve(gid, &participant, ending, order.by(), order.why()).await {
            Ok(done) => Ok(Resolved { contradicts: done.contradicts, waits: None }),
            Err(TxnError::Participant { cause, .. }) if !matches!(cause, ParticipantError::Contradicted { .. }) => {
                let decision = self.ledger.record(gid).await.map_or(Ending::Abort, |record| record.decision());
                Ok(Resolved { contradicts: decision != ending, waits: Some(cause.to_string()) })
            }
            Err(failed) => Err(failed),
        }
    }

    /// How much is in doubt.
    ///
    /// # Errors
    /// [`TxnError::Store`] where the store cannot be read.
    pub async fn standing(&self) -> Result<Standing, TxnError> {
        let promised = self.ledger.promised().await?;
        let now = self.ledger.store().env().wall();
        let coordinators = self.coordinators();
        let oldest = coordinators.iter().filter_map(Coordinator::oldest_doubt).max();
        let oldest = oldest.max(promised.oldest.map(|since| now.saturating_since(since)));
        let counts = coordinators.iter().map(Coordinator::counts).reduce(|one, other| Counts {
            committed: one.committed + other.committed,
            aborted: one.aborted + other.aborted,
            unknown: one.unknown + other.unknown,
            unfinished: one.unfinished + other.unfinished,
            resolved: one.resolved + other.resolved,
            contradicted: one.contradicted + other.contradicted,
        });
        Ok(Standing { promised: promised.count, oldest, counts })
    }

    /// What the participants of the coordinators here hold: all, or these.
    async fn held(&self, among: Option<&[Name]>) -> (BTreeMap<Gid, Vec<Branch>>, Vec<(Name, ParticipantError)>) {
        let coordinators = self.coordinators();
        let asked = coordinators.iter().map(|one| async move {
            match among {
                Some(among) => one.in_doubt_at(among).await,
                None => one.in_doubt().await,
            }
        });
        let asked = join_all(asked).await;
        let (mut held, mut silent) = (BTreeMap::<_, Vec<_>>::new(), Vec::new());
        for (participant, said) in asked.into_iter().flatten() {
            match said {
                Ok(doubts) => {
                    for doubt in doubts {
                        let (age, standstill) = (doubt.prepared.age.or(doubt.known_for), Some(doubt.standstill));
                        let (participant, held_there) = (participant.clone(), doubt.prepared.held);
                        let branch = Branch { participant, age, held: held_there, standstill };
                        held.entry(doubt.prepared.gid).or_default().push(branch);
                    }
                }
                Err(cause) => silent.push((participant, cause)),
            }
        }
        (held, silent)
    }

    /// Adds a promise that stands in the store, unless a coordinator here told of what it holds, or has begun it since its participants
    /// were asked. One that is here may not have the participant any more, or not yet: then it does not tell.
    fn add(&self, found: &mut BTreeMap<Gid, Vec<Branch>>, promise: Promise, asked_at: Wall) {
        let held: Vec<String> = promise.claims.iter().map(ToString::to_string).collect();
        let is_it = |one: &Branch| one.standstill.is_some() && one.held == held;
        let is_told = found.get(&promise.gid).is_some_and(|told| told.iter().any(is_it));
        let is_here = || self.coordinators().iter().any(|one| one.is_of(promise.gid.coordinator));
        if is_told || (promise.since >= asked_at && is_here()) {
            return;
        }
        let age = Some(self.ledger.store().env().wall().saturating_since(promise.since));
        let branch = Branch { participant: promise.participant, age, held, standstill: None };
        found.entry(promise.gid).or_default().push(branch);
    }

    async fn decision(&self, gid: &Gid) -> Decision {
        match self.ledger.record(gid).await {
            Ok(record) if record.is_decided => Decision::Commit,
            Ok(_) => Decision::None,
            Err(_) => Decision::Unreadable,
        }
    }
}
