//! What an operator sees of transactions in doubt, and does about them.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use quorate_foundations::{name::Name, time::Mono};

use super::{Coordinator, Live, Shared};
use crate::two_phase_commit::{
    Gid, Participant, ParticipantError, Prepared, TxnError, TxnId,
    log::{self, Ending, Heuristic},
    orders::Order,
};

/// Why a branch that is prepared has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standstill {
    /// It is being voted on, or decided.
    UnderWay,
    /// It will be committed, or aborted, as soon as the participant does it.
    Ending(Ending),
    /// A coordinator that took over from this one will end it.
    Newer,
    /// It is from before the store was restored or moved, and this log has no decision, which may be missing: somebody has to
    /// [resolve](Coordinator::resolve) it.
    OlderTimeline,
    /// What was decided cannot be read: nobody is told anything until it can.
    Unreadable,
}

/// A branch in doubt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// What the participant says of it.
    pub prepared: Prepared,
    /// For how long this coordinator has known of it.
    pub known_for: Option<Duration>,
    /// Why it has not ended.
    pub standstill: Standstill,
}

/// What came of resolving a branch by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// Whether that differs from what was decided, so that the transaction was not atomic.
    pub contradicts: bool,
}

impl Coordinator {
    /// The longest name of who resolves something, and the longest reason, in bytes.
    pub const MAX_REASON_BYTES: usize = Order::MAX_REASON_BYTES;

    /// Asks every participant what is in doubt with it, and says of each branch why. A participant that cannot be asked says why not.
    pub async fn in_doubt(&self) -> Vec<(Name, Result<Vec<Doubt>, ParticipantError>)> {
        self.asked(self.shared.all()).await
    }

    /// The same of these participants alone; nothing is said of those that are not registered.
    pub async fn in_doubt_at(&self, participants: &[Name]) -> Vec<(Name, Result<Vec<Doubt>, ParticipantError>)> {
        let mut asked = self.shared.all();
        asked.retain(|(name, _)| participants.contains(name));
        self.asked(asked).await
    }

    async fn asked(&self, all: Vec<(Name, Arc<dyn Participant>)>) -> Vec<(Name, Result<Vec<Doubt>, ParticipantError>)> {
        let asked = all.into_iter().map(|(name, participant)| async move {
            let found = self.shared.all_in_doubt(&*participant).await;
            let told = match found {
                Ok(found) => Ok(join_all(found.into_iter().map(|prepared| self.shared.doubt(&name, prepared))).await),
                Err(cause) => Err(cause),
            };
            (name, told)
        });
        join_all(asked).await
    }

    /// Ends a branch by hand, whatever was decided, and records who did it and why before it is done. Needed only where a
    /// participant or the coordinator's log will not come back.
    ///
    /// It waits for its turn: nobody else ends that branch meanwhile.
    ///
    /// # Errors
    /// [`TxnError::Invalid`]: nobody knows of such a branch, and nothing is recorded. The log must name the participant, or the participant
    /// must hold something of the transaction. [`TxnError::UnderWay`] while this coordinator may still decide it, and [`TxnError::Fenced`] where another
    /// one has taken over. [`TxnError::NotAsked`] where the participant would have to say that, and does not answer: nothing is recorded. [`TxnError::Participant`]: it is recorded, and the participant could not do it; the next sweep that reaches it does.
    /// [`TxnError::TooManyOrders`]: there are [so many](Order::MAX_PER_PARTICIPANT) for that participant, and nothing is recorded.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the record without the act: the next sweep does it.
    pub async fn resolve(
        &self,
        gid: &Gid,
        participant: &Name,
        ending: Ending,
        by: &str,
        why: &str,
    ) -> Result<Resolution, TxnError> {
        let order = Order::new(participant, ending, by, why)?;
        let shared = &self.shared;
        if !shared.ids().any(|id| id == gid.coordinator) {
            let what = format!("transaction {gid} is another coordinator's: this one is {}", self.id());
            return Err(TxnError::Invalid { what });
        }
        let unknown = || TxnError::UnknownParticipant { name: participant.clone() };
        let known = shared.participant(participant).ok_or_else(unknown)?;
        if shared.config.takeover.is_some() {
            // Who may decide by now: others come and go.
            shared.is_replaced().await;
        }
        match shared.stage(gid) {
            Stage::Behind => {}
            // Once it is recorded nobody decides it otherwise.
            Stage::Elsewhere if log::record(&shared.store, gid).await?.concerns(participant) => {}
            Stage::Open | Stage::Elsewhere => return Err(TxnError::UnderWay { gid: *gid }),
            Stage::ToCome if shared.is_replaced().await => return Err(TxnError::Fenced),
            Stage::ToCome => {
                return Err(TxnError::Invalid { what: format!("transaction {gid} has not been begun") });
            }
        }
        let _turn = shared.branches.take((*gid, participant.clone())).await;
        // Nothing is written of what nobody has heard of: a mistyped name would be told as done.
        if !log::record(&shared.store, gid).await?.concerns(participant) {
            let not_asked = |cause| TxnError::NotAsked { name: participant.clone(), cause };
            let held = shared.call(known.in_doubt(gid.coordinator)).await.map_err(not_asked)?;
            if !held.iter().any(|one| one.gid == *gid) {
                return Err(order.of_nothing(gid));
            }
        }
        // Before it is written: if this call is dropped meanwhile, or its outcome is unknown, it may stand there all the same, and
        // whoever ends the branch next asks the log.
        if let Some(live) = shared.live(gid) {
            live.is_ordered.store(true, Ordering::Relaxed);
        }
        let Heuristic { contradicts, .. } = log::add_heuristic(&shared.store, gid, order.into()).await?;
        let not_done = |cause| TxnError::Participant { name: participant.clone(), cause };
        shared.end(gid, &*known, ending).await.map_err(not_done)?;
        Ok(Resolution { contradicts })
    }
}

/// Where a transaction is, seen from a coordinator.
enum Stage {
    /// It has not been begun, as far as this one knows.
    ToCome,
    /// It may still be decided.
    Open,
    /// It is another one's that has the name open beside this one.
    Elsewhere,
    /// Nobody decides it any more.
    Behind,
}

impl Shared {
    /// Since when this coordinator has known that a participant holds a transaction that it could not end.
    fn known_since(&self, participant: &Name, gid: &Gid) -> Option<Mono> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        Some(seen.get(participant)?.held.get(gid)?.0)
    }

    async fn doubt(&self, name: &Name, prepared: Prepared) -> Doubt {
        let gid = prepared.gid;
        let known_for = self.known_since(name, &gid).map(|since| self.env.mono().saturating_since(since));
        let standstill = match self.stage(&gid) {
            Stage::ToCome => Standstill::Newer,
            Stage::Open => Standstill::UnderWay,
            Stage::Elsewhere => match log::record(&self.store, &gid).await {
                Ok(record) if record.concerns(name) => Standstill::Ending(record.ending(name)),
                Ok(_) => Standstill::UnderWay,
                Err(_) => Standstill::Unreadable,
            },
            Stage::Behind => match self.ending(&gid, name, None).await {
                Ok(Some(ending)) => Standstill::Ending(ending),
                Ok(None) => Standstill::OlderTimeline,
                Err(_) => Standstill::Unreadable,
            },
        };
        Doubt { prepared, known_for, standstill }
    }

    fn stage(&self, gid: &Gid) -> Stage {
        let TxnId { takeover, number } = gid.txn;
        let holders = self.standing.holders();
        if gid.coordinator != self.standing.id || holders.is_behind(takeover) {
            return Stage::Behind;
        }
        let is_beside = self.config.takeover.is_some() && takeover != self.standing.takeover;
        if is_beside && holders.may_decide(takeover) {
            return Stage::Elsewhere;
        }
        let unfinished = self.unfinished();
        if takeover > self.standing.takeover || number > unfinished.last {
            return Stage::ToCome;
        }
        let is_open = |live: &Arc<Live>| !live.is_decided.load(Ordering::Relaxed);
        if unfinished.live.get(&number).is_some_and(is_open) { Stage::Open } else { Stage::Behind }
    }
}
