//! What an operator sees of transactions in doubt, and does about them.

use std::{
    sync::{PoisonError, atomic::Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use quorate_foundations::{name::Name, time::Mono};

use super::{Coordinator, Shared};
use crate::two_phase_commit::{
    Gid, ParticipantError, Prepared, TxnError,
    log::{self, Ending, Heuristic},
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
    /// What was decided cannot be read.
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
    pub const MAX_REASON_BYTES: usize = 1_024;

    /// Asks every participant what is in doubt with it, and says of each branch why. A participant that cannot be asked says why not.
    pub async fn in_doubt(&self) -> Vec<(Name, Result<Vec<Doubt>, ParticipantError>)> {
        let all = self.shared.all();
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
    /// # Errors
    /// [`TxnError::UnderWay`] while this coordinator may still decide it. [`TxnError::Participant`]: it is recorded, and the participant could
    /// not do it; the next sweep that reaches it does.
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
        let max = Self::MAX_REASON_BYTES;
        if [by, why].iter().any(|text| text.trim().is_empty() || text.len() > max) {
            let what = format!("who resolves a transaction by hand, and why, is told in 1 to {max} bytes each");
            return Err(TxnError::Invalid { what });
        }
        if !self.shared.ids().any(|id| id == gid.coordinator) {
            let what = format!("transaction {gid} is another coordinator's: this one is {}", self.id());
            return Err(TxnError::Invalid { what });
        }
        let shared = &self.shared;
        let unknown = || TxnError::UnknownParticipant { name: participant.clone() };
        let known = shared.participant(participant).ok_or_else(unknown)?;
        if shared.may_be_decided(gid) {
            return Err(TxnError::UnderWay { gid: *gid });
        }
        // Nothing is written of what nobody has heard of: a mistyped name would end a transaction that is still to come.
        if !log::record(&shared.store, gid).await?.is_known() {
            let cause_of = |cause| TxnError::Participant { name: participant.clone(), cause };
            let held = shared.call(known.in_doubt(gid.coordinator)).await.map_err(cause_of)?;
            if !held.iter().any(|one| one.gid == *gid) {
                let what = format!(
                    "participant `{participant}` holds nothing of transaction {gid}, and the log does not know it"
                );
                return Err(TxnError::Invalid { what });
            }
        }
        let (by, why) = (by.to_owned(), why.to_owned());
        let done = Heuristic { participant: participant.clone(), ending, by, why, is_found: false, contradicts: false };
        let Heuristic { contradicts, .. } = log::add_heuristic(&shared.store, gid, done).await?;
        let done = match ending {
            Ending::Commit => shared.call(known.commit(gid)).await,
            Ending::Abort => shared.call(known.abort(gid)).await,
        };
        match done {
            Ok(()) => Ok(Resolution { contradicts }),
            Err(cause) => Err(TxnError::Participant { name: participant.clone(), cause }),
        }
    }
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
        let is_own = gid.coordinator == self.standing.id;
        let standstill = if is_own && gid.txn.takeover > self.standing.takeover {
            Standstill::Newer
        } else if self.may_be_decided(&gid) {
            Standstill::UnderWay
        } else {
            match log::record(&self.store, &gid).await {
                Ok(record) if !is_own && !record.is_decided && record.ordered(name).is_none() => {
                    Standstill::OlderTimeline
                }
                Ok(record) => Standstill::Ending(record.ending(name)),
                Err(_) => Standstill::Unreadable,
            }
        };
        Doubt { prepared, known_for, standstill }
    }

    /// Whether this coordinator may still decide it.
    fn may_be_decided(&self, gid: &Gid) -> bool {
        if gid.coordinator != self.standing.id {
            return false;
        }
        let is_newer = gid.txn.takeover > self.standing.takeover;
        let live = (gid.txn.takeover == self.standing.takeover)
            .then(|| self.unfinished().live.get(&gid.txn.number).cloned())
            .flatten();
        is_newer || live.is_some_and(|live| !live.is_decided.load(Ordering::Relaxed))
    }
}
