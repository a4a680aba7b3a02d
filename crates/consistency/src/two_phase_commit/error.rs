//! Why a transaction could not be begun, or asked about.

use std::time::Duration;

use quorate_data::store::{AppendError, Retry, SqlError, StoreError};
use quorate_foundations::name::Name;

use super::{Gid, ParticipantError, RequestId};

/// Why a coordinator did not do what it was asked. Unless it says otherwise nothing was begun, and no participant holds anything.
///
/// That a transaction was aborted is no error: see [`Ended`](super::Ended).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TxnError {
    /// A setting or a transaction breaks a rule.
    #[error("{what}")]
    Invalid {
        /// Which one, and what it may be.
        what: String,
    },
    /// It names a participant that this coordinator does not know.
    #[error("participant `{name}` is not registered with this coordinator")]
    UnknownParticipant {
        /// The name.
        name: Name,
    },
    /// Something of the participant is on its way, or it holds something.
    #[error("participant `{name}` takes part in something that has not ended, or holds something")]
    InUse {
        /// The name.
        name: Name,
    },
    /// Another one of that name was registered.
    #[error("participant `{name}` is registered already")]
    ParticipantTaken {
        /// The name.
        name: Name,
    },
    /// Somebody else has taken over: this coordinator decides nothing any more.
    #[error("another coordinator has taken over")]
    Fenced,
    /// This coordinator was closed.
    #[error("the coordinator is closed")]
    Closed,
    /// So many transactions have not ended.
    #[error("{unfinished} transactions have not ended yet: nothing was begun")]
    Overloaded {
        /// How many.
        unfinished: usize,
    },
    /// Of so many transactions the participant has not confirmed how they end.
    #[error("participant `{name}` has not confirmed the end of {unfinished} transactions yet: nothing was begun")]
    ParticipantOverloaded {
        /// The participant.
        name: Name,
        /// How many.
        unfinished: usize,
    },
    /// It is still being prepared, decided or told: there is nothing to resolve by hand.
    #[error("transaction {gid} is under way: wait for it to end, or for this coordinator to be replaced")]
    UnderWay {
        /// Which one.
        gid: Gid,
    },
    /// The coordinator stopped while it was on its way: it may end either way, and will be ended by whoever takes over.
    #[error("the coordinator stopped: the outcome of transaction {gid} is unknown")]
    Stopped {
        /// Which one.
        gid: Gid,
    },
    /// Something else was begun under that name.
    #[error("transaction `{id}` was begun with something else")]
    IdReused {
        /// The name.
        id: RequestId,
    },
    /// So many participants are known by their addresses.
    #[error("{most} participants are known by their addresses: take those away that will not come back")]
    TooManyParticipants {
        /// How many.
        most: usize,
    },
    /// A participant could not be asked whether it holds anything of the transaction: nothing was recorded.
    #[error("participant `{name}` could not be asked whether it holds anything of the transaction")]
    NotAsked {
        /// Which one.
        name: Name,
        /// What it said.
        #[source]
        cause: ParticipantError,
    },
    /// So many orders were recorded for one participant of a transaction: nothing more is. The last one stands.
    #[error("participant `{participant}` was ordered {most} times how transaction {gid} ends: no more is taken")]
    TooManyOrders {
        /// Which transaction.
        gid: Gid,
        /// At which participant.
        participant: Name,
        /// How many.
        most: usize,
    },
    /// A participant did not do what was ordered. The order is recorded.
    #[error("participant `{name}` did not do it")]
    Participant {
        /// Which one.
        name: Name,
        /// What it said.
        #[source]
        cause: ParticipantError,
    },
    /// The coordinator's log refused it.
    #[error("the coordinator's log refused it")]
    Refused(#[source] AppendError),
    /// A table of the participant in this store cannot be used.
    #[error("the participant's tables cannot be used")]
    Tables(#[source] SqlError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl TxnError {
    /// Whether repeating can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Overloaded { .. } => Retry::After(Duration::from_millis(100)),
            Self::UnderWay { .. } | Self::ParticipantOverloaded { .. } => Retry::After(Duration::from_secs(1)),
            Self::NotAsked { .. }
            | Self::Participant {
                cause: ParticipantError::Unanswered { .. } | ParticipantError::Failed { .. }, ..
            } => Retry::After(Duration::from_secs(1)),
            Self::Store(cause) | Self::Tables(SqlError::Store(cause)) => cause.retry(),
            _ => Retry::Never,
        }
    }

    /// Whether a transaction may have been carried out although this is an error.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::Stopped { .. } | Self::Store(StoreError::OutcomeUnknown))
    }
}

impl From<AppendError> for TxnError {
    fn from(failed: AppendError) -> Self {
        match failed {
            AppendError::Store(cause) => Self::Store(cause),
            other => Self::Refused(other),
        }
    }
}

impl From<SqlError> for TxnError {
    fn from(failed: SqlError) -> Self {
        match failed {
            SqlError::Store(cause) => Self::Store(cause),
            other => Self::Tables(other),
        }
    }
}
