//! How a branch is ended: by one at a time, and as the log says.

use std::sync::atomic::Ordering;

use quorate_foundations::name::Name;

use super::Shared;
use crate::two_phase_commit::{
    Gid, Participant, ParticipantError, TxnError,
    log::{self, Ending, Heuristic},
};

/// What came of telling a participant how a transaction ends.
pub(super) enum Told {
    /// It has ended it so.
    Ended(Ending),
    /// It says that it had ended it otherwise, and that is recorded.
    Contradicted,
    /// Nobody knows how it ends: it may be that the log has lost it. It is left to people.
    Left,
    /// It did not answer, or could not.
    NotDone(ParticipantError),
    /// The log cannot be read, so that nobody was told anything.
    Unreadable(TxnError),
}

impl Shared {
    /// Tells a participant how a transaction ends, and nobody else tells it anything of that meanwhile.
    ///
    /// `decided`: how, for whoever decided it. The log is asked all the same where somebody may have ordered otherwise: always but
    /// the first time. What it says is never guessed: where it cannot be read nobody is told anything.
    pub(super) async fn tell(
        &self,
        (gid, name): (&Gid, &Name),
        participant: &dyn Participant,
        decided: Option<Ending>,
        is_first: bool,
    ) -> Told {
        let _turn = self.branches.take((*gid, name.clone())).await;
        let ending = match decided.filter(|_| is_first && !self.is_ordered(gid)) {
            Some(decided) => decided,
            None => match self.ending(gid, name, decided).await {
                Ok(Some(ending)) => ending,
                Ok(None) => return Told::Left,
                Err(cause) => {
                    tracing::warn!(%gid, %cause, "the log does not say how a transaction ends: nobody is told anything");
                    return Told::Unreadable(cause);
                }
            },
        };
        match self.end(gid, participant, ending).await {
            Ok(()) => Told::Ended(ending),
            Err(ParticipantError::Contradicted { what }) => {
                self.contradicted(gid, name, ending, &what).await;
                Told::Contradicted
            }
            Err(cause) => Told::NotDone(cause),
        }
    }

    /// Ends a branch so. Only for whoever has its turn.
    pub(super) async fn end(
        &self,
        gid: &Gid,
        participant: &dyn Participant,
        ending: Ending,
    ) -> Result<(), ParticipantError> {
        match ending {
            Ending::Commit => self.call(participant.commit(gid)).await,
            Ending::Abort => self.call(participant.abort(gid)).await,
        }
    }

    /// How a transaction ends at a participant, by the log: as somebody ordered, and otherwise as it was decided. None where the log
    /// may have lost the decision.
    pub(super) async fn ending(
        &self,
        gid: &Gid,
        participant: &Name,
        decided: Option<Ending>,
    ) -> Result<Option<Ending>, TxnError> {
        let record = log::record(&self.store, gid).await?;
        if let Some(known) = record.ordered(participant).or(decided) {
            return Ok(Some(known));
        }
        // On another timeline it may have been decided all the same.
        let is_certain = gid.coordinator == self.standing.id || record.is_decided;
        Ok(is_certain.then(|| record.decision()))
    }

    /// Whether somebody ordered through this coordinator how a transaction that is on its way ends.
    fn is_ordered(&self, gid: &Gid) -> bool {
        self.live(gid).is_some_and(|live| live.is_ordered.load(Ordering::Relaxed))
    }

    /// Writes down that a participant had ended a transaction otherwise.
    async fn contradicted(&self, gid: &Gid, participant: &Name, told: Ending, what: &str) {
        self.counts().contradicted += 1;
        tracing::error!(%gid, %participant, what, "a participant had ended a transaction otherwise: it was not atomic");
        let ending = if told == Ending::Commit { Ending::Abort } else { Ending::Commit };
        let (by, why) = (participant.to_string(), what.to_owned());
        let heuristic =
            Heuristic { participant: participant.clone(), ending, by, why, is_found: true, contradicts: true };
        if let Err(cause) = log::add_heuristic(&self.store, gid, heuristic).await {
            tracing::error!(%gid, %participant, %cause, "that could not be recorded");
        }
    }
}
