//! The coordinator: a handle, the transactions that have not ended, and the task that looks after what is in doubt.

mod begin;
mod course;
mod doubt;
mod ending;
mod signs;
mod sweep;
mod transaction;
mod turns;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use quorate_data::store::{Store, Token};
use quorate_foundations::{name::Name, time::Mono};
use quorate_runtime::Env;
use tokio::sync::{Notify, oneshot};

use super::{
    Config, CoordinatorId, Gid, Participant, Record, RequestId, TxnError, TxnId, log,
    standing::{self, Standing},
};
pub use doubt::{Doubt, Resolution, Standstill};
pub(crate) use signs::TABLES as SIGN_TABLES;
pub use sweep::Swept;
pub use transaction::Transaction;
use turns::Turns;

/// How many transactions end between two times that participants are told what they may forget.
const FORGET_EVERY: u64 = 1_024;

/// How a transaction ended, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All of it is done, or will be whatever dies.
    Committed,
    /// Nothing of it is left, or will be.
    Aborted {
        /// Which participant said no, or did not answer in time; otherwise the log did.
        by: Option<Name>,
        /// Why, for a person.
        why: String,
    },
    /// It may be either, and will be one of them. Its [record](Coordinator::record) tells later; of a participant that took part alone only
    /// that participant can.
    Unknown,
}

/// What the caller of a transaction is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its name.
    pub gid: Gid,
    /// How it ended.
    pub ended: Ended,
    /// Participants that were told to commit, and had not confirmed it yet. They are told until they do.
    pub unconfirmed: Vec<Name>,
    /// Participants that had ended it otherwise, by somebody's hand: it was not atomic. Its stream says so as well.
    pub contradicted: Vec<Name>,
    /// The decision, for whoever reads the events behind it.
    pub token: Option<Token>,
}

/// A transaction that has not ended.
struct Live {
    since: Mono,
    participants: Vec<Name>,
    is_decided: AtomicBool,
    /// A decision was sent whose answer did not come.
    may_be_decided: AtomicBool,
    /// Somebody ordered by hand how it ends at a participant.
    is_ordered: AtomicBool,
    /// Which participants have confirmed how it ended.
    branches: Vec<AtomicBool>,
}

impl Live {
    /// Whether a participant takes part, and has not confirmed how it ended.
    fn is_open_at(&self, participant: &Name) -> bool {
        let at = self.participants.iter().position(|name| name == participant);
        at.is_some_and(|at| !self.branches[at].load(Ordering::Relaxed))
    }
}

#[derive(Default)]
struct Unfinished {
    last: u64,
    live: BTreeMap<u64, Arc<Live>>,
    ended: u64,
}

/// Counts of what a coordinator did since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Transactions committed.
    pub committed: u64,
    /// Transactions aborted.
    pub aborted: u64,
    /// Transactions whose callers were told that the outcome is unknown.
    pub unknown: u64,
    /// Transactions that have not ended.
    pub unfinished: usize,
    /// Branches in doubt that a sweep committed or aborted.
    pub resolved: u64,
    /// Branches that were found ended otherwise than decided.
    pub contradicted: u64,
}

struct Shared {
    store: Store,
    env: Env,
    config: Config,
    standing: Standing,
    participants: RwLock<BTreeMap<Name, Arc<dyn Participant>>>,
    unfinished: Mutex<Unfinished>,
    counts: Mutex<Counts>,
    is_fenced: AtomicBool,
    /// What participants said of themselves when they were asked last.
    seen: Mutex<BTreeMap<Name, Swept>>,
    /// Requests that it is at, and how many times.
    requests: Mutex<BTreeMap<RequestId, usize>>,
    sweep: sweep::Asked,
    /// Of asking a participant what it holds.
    sweeping: Turns<Name>,
    /// Of telling a participant how a transaction ends.
    branches: Turns<(Gid, Name)>,
}

/// A coordinator. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct Coordinator {
    shared: Arc<Shared>,
}

impl Coordinator {
    /// Takes over the coordinator of [`Config::name`] in `store`: whoever had it before decides nothing any more, and what
    /// that one left behind is ended as it was decided, as soon as each participant is [registered](Self::register).
    ///
    /// Where [`Config::takeover`] is set it comes beside those that have the name open, and what they are at stays theirs. It ends what those left
    /// behind that are fenced, and fences whoever gives no sign of life. All of them register the same participants.
    ///
    /// # Errors
    /// [`TxnError::Store`] where the takeover could not be written.
    ///
    /// # Cancel safety
    /// Dropping the future may leave a takeover, which does no harm: take over again.
    pub async fn open(store: &Store, config: Config) -> Result<Self, TxnError> {
        config.check()?;
        let (name, patience) = (&config.name, config.decision_patience);
        let standing = match config.takeover {
            None => standing::take_over(store, name, patience).await?,
            Some(_) => {
                store.declare(SIGN_TABLES).await?;
                standing::join(store, name, patience).await?
            }
        };
        let env = store.env().scope("transactions");
        let shared = Arc::new(Shared {
            store: store.clone(),
            env,
            config,
            standing,
            participants: RwLock::default(),
            unfinished: Mutex::default(),
            counts: Mutex::default(),
            is_fenced: AtomicBool::new(false),
            seen: Mutex::default(),
            requests: Mutex::default(),
            sweep: Arc::new(Notify::new()),
            sweeping: Turns::default(),
            branches: Turns::default(),
        });
        shared.env.tasks().spawn("txn/sweep", sweep::run(Arc::downgrade(&shared), shared.env.clone()));
        if let Some(takeover) = shared.config.takeover {
            shared.env.tasks().spawn("txn/signs", signs::run(Arc::downgrade(&shared), shared.env.clone(), takeover));
        }
        Ok(Self { shared })
    }

    /// Whose transactions these are.
    pub fn id(&self) -> CoordinatorId {
        self.shared.standing.id
    }

    /// Whether these are its transactions: of its own, or of one that it was on an earlier timeline of its store.
    pub fn is_of(&self, id: CoordinatorId) -> bool {
        self.shared.ids().any(|own| own == id)
    }

    /// Under which takeover, counted from 1.
    pub fn takeover(&self) -> u64 {
        self.shared.standing.takeover
    }

    /// Whether somebody else has taken over, or fenced it, as far as was noticed: by a decision that was refused, or when the log was looked at every
    /// [`Config::sweep`].
    pub fn is_fenced(&self) -> bool {
        self.shared.is_fenced.load(Ordering::Relaxed)
    }

    /// Registers a participant under a name, which must stay the same: transactions that were decided name it. What is in
    /// doubt with it is ended at once, and looked for every [`Config::sweep`].
    ///
    /// # Errors
    /// [`TxnError::ParticipantTaken`] where there is one of that name.
    pub fn register(&self, name: Name, participant: Arc<dyn Participant>) -> Result<(), TxnError> {
        let mut known = self.shared.participants.write().unwrap_or_else(PoisonError::into_inner);
        if known.contains_key(&name) {
            return Err(TxnError::ParticipantTaken { name });
        }
        known.insert(name, participant);
        drop(known);
        self.shared.sweep.notify_one();
        Ok(())
    }

    /// The names of the participants.
    pub fn participants(&self) -> Vec<Name> {
        self.shared.participants.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// Whether there is a participant of that name.
    pub fn has(&self, participant: &Name) -> bool {
        self.shared.participant(participant).is_some()
    }

    /// Asks a participant no more. What it holds is ended once it is registered again.
    ///
    /// # Errors
    /// [`TxnError::InUse`] where something of it is on its way, it said when it was last asked that it holds something, or it was not
    /// asked yet.
    pub fn remove(&self, participant: &Name) -> Result<(), TxnError> {
        let holds = |swept: &Swept| !swept.held.is_empty();
        let mut known = self.shared.participants.write().unwrap_or_else(PoisonError::into_inner);
        let mut seen = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let is_live = self.shared.unfinished().live.values().any(|live| live.participants.contains(participant));
        if is_live || known.contains_key(participant) && seen.get(participant).is_none_or(holds) {
            return Err(TxnError::InUse { name: participant.clone() });
        }
        known.remove(participant);
        seen.remove(participant);
        Ok(())
    }

    /// Carries out a transaction: every participant does its work, and the events are in the log, or none of it.
    ///
    /// That it was aborted, and that its outcome is unknown, are answers: see [`Ended`]. Whatever dies afterwards, it ends on
    /// every participant as it was decided.
    ///
    /// # Errors
    /// [`TxnError::Stopped`]: *outcome unknown*. With any other, nothing was begun.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait, not the transaction: the outcome is then unknown.
    ///
    /// # Example
    /// See [the room](super).
    pub async fn run(&self, transaction: Transaction) -> Result<Receipt, TxnError> {
        let shared = &self.shared;
        transaction.check()?;
        if shared.env.tasks().stop().is_cancelled() {
            return Err(TxnError::Closed);
        }
        if self.is_fenced() {
            return Err(TxnError::Fenced);
        }
        let participants = shared.taking_part(&transaction)?;
        let (gid, live) = shared.begin(&transaction)?;
        let (reply, answer) = oneshot::channel();
        let course = course::Course::new(shared.clone(), gid, live, participants, transaction, reply);
        shared.env.tasks().spawn("txn", course.run());
        answer.await.map_err(|_| TxnError::Stopped { gid })
    }

    /// What the log says of a transaction. One that is not recorded, and is not under way, was aborted, or done in one phase, or never was.
    pub async fn record(&self, gid: &Gid) -> Result<Record, TxnError> {
        log::record(&self.shared.store, gid).await
    }

    /// Takes no more transactions, and waits until nothing of it runs; its store stays open. What has not ended is ended by whoever
    /// opens it next. One that has others beside it says that it leaves, and they end it at once.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait; nothing more is begun.
    pub async fn close(&self) {
        self.shared.env.tasks().shut_down().await;
        if self.shared.config.takeover.is_some() {
            self.shared.leave().await;
        }
    }

    /// What it did since it was opened.
    pub fn counts(&self) -> Counts {
        Counts { unfinished: self.shared.unfinished().live.len(), ..*self.shared.counts() }
    }
}

impl Shared {
    fn unfinished(&self) -> MutexGuard<'_, Unfinished> {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn participant(&self, name: &Name) -> Option<Arc<dyn Participant>> {
        self.participants.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn all(&self) -> Vec<(Name, Arc<dyn Participant>)> {
        let known = self.participants.read().unwrap_or_else(PoisonError::into_inner);
        known.iter().map(|(name, participant)| (name.clone(), participant.clone())).collect()
    }

    /// Itself, and who it was on earlier timelines.
    fn ids(&self) -> impl Iterator<Item = CoordinatorId> + '_ {
        std::iter::once(self.standing.id).chain(self.standing.former.iter().copied())
    }

    fn gid(&self, number: u64) -> Gid {
        Gid { coordinator: self.standing.id, txn: TxnId { takeover: self.standing.takeover, number } }
    }

    fn has_room(&self, unfinished: &Unfinished, transaction: &Transaction) -> Result<(), TxnError> {
        let (all, most) = (&unfinished.live, self.config.max_unfinished_of_one);
        if all.len() >= self.config.max_unfinished {
            return Err(TxnError::Overloaded { unfinished: all.len() });
        }
        if all.len() < most {
            return Ok(());
        }
        for (name, _) in &transaction.branches {
            let count = all.values().filter(|live| live.is_open_at(name)).count();
            if count >= most {
                return Err(TxnError::ParticipantOverloaded { name: name.clone(), unfinished: count });
            }
        }
        Ok(())
    }

    /// Gives a transaction its name. From now on no sweep touches it.
    fn begin(&self, transaction: &Transaction) -> Result<(Gid, Arc<Live>), TxnError> {
        let mut unfinished = self.unfinished();
        self.has_room(&unfinished, transaction)?;
        unfinished.last += 1;
        let live = Arc::new(Live {
            since: self.env.mono(),
            participants: transaction.branches.iter().map(|(name, _)| name.clone()).collect(),
            is_decided: AtomicBool::new(false),
            may_be_decided: AtomicBool::new(false),
            is_ordered: AtomicBool::new(false),
            branches: transaction.branches.iter().map(|_| AtomicBool::new(false)).collect(),
        });
        let number = unfinished.last;
        unfinished.live.insert(number, live.clone());
        Ok((self.gid(number), live))
    }

    /// One of this coordinator's own that is on its way.
    fn live(&self, gid: &Gid) -> Option<Arc<Live>> {
        let is_own = gid.coordinator == self.standing.id && gid.txn.takeover == self.standing.takeover;
        is_own.then(|| self.unfinished().live.get(&gid.txn.number).cloned()).flatten()
    }

    /// A transaction has ended. Whether it is time to tell participants what they may forget.
    fn forget_live(&self, gid: &Gid) -> bool {
        let mut unfinished = self.unfinished();
        unfinished.live.remove(&gid.txn.number);
        unfinished.ended += 1;
        unfinished.ended.is_multiple_of(FORGET_EVERY)
    }

    /// Below which transaction everything has ended as far as a participant is concerned.
    fn below(&self, participant: &Name) -> Gid {
        // What others beside this one are at is above it, and so is all of whoever has been there for longest.
        let longest = self.standing.holders().open().first().copied();
        if let Some(takeover) = longest.filter(|takeover| *takeover < self.standing.takeover) {
            return Gid { coordinator: self.standing.id, txn: TxnId { takeover, number: 1 } };
        }
        let unfinished = self.unfinished();
        let first = unfinished.live.iter().find(|(_, live)| live.is_open_at(participant)).map(|(number, _)| *number);
        self.gid(first.unwrap_or(unfinished.last + 1))
    }

    /// Waits for a participant, for as long as one call may take.
    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, super::ParticipantError>>,
    ) -> Result<T, super::ParticipantError> {
        within(&self.env, self.config.call_timeout, call).await
    }
}

async fn within<T>(
    env: &Env,
    span: Duration,
    call: impl Future<Output = Result<T, super::ParticipantError>>,
) -> Result<T, super::ParticipantError> {
    let what = || format!("it did not answer within {span:?}");
    env.timeout(span, call).await.unwrap_or_else(|| Err(super::ParticipantError::Unanswered { what: what() }))
}
