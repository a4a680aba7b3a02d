//! What can go wrong with an inbox.

use std::time::Duration;

use quorate_data::store::{self, Retry, SqlError, StoreError, TransactError};

use crate::transports::TransportError;

/// What can go wrong with an inbox. Unless it says otherwise, nothing was changed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InboxError {
    /// A field is out of its range.
    #[error("{what}")]
    Invalid {
        /// Which one, and its range.
        what: String,
    },
    /// As many messages are parked as may be.
    #[error("{parked} messages are parked and the limit is {max}: replay or discard some first")]
    ParkedFull {
        /// How many are parked.
        parked: usize,
        /// The limit.
        max: usize,
    },
    /// No message of that identity is parked.
    #[error("no message `{identity}` is parked")]
    NotParked {
        /// The identity.
        identity: String,
    },
    /// What the handler needs is not to be had now.
    #[error("{what}")]
    NotNow {
        /// What is missing.
        what: String,
    },
    /// The transport failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The list of ids failed.
    #[error(transparent)]
    Ids(#[from] store::InboxError),
    /// The store failed. After [`StoreError::OutcomeUnknown`] what was asked may have been done.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A table of the inbox cannot be used.
    #[error("the inbox's tables cannot be used")]
    Tables(#[source] SqlError),
}

impl InboxError {
    pub(super) fn corrupt(what: impl ToString) -> Self {
        Self::Store(StoreError::Corrupt { place: "quorate_inbox_message".to_owned(), what: what.to_string() })
    }

    /// What became of a transaction that refused nothing by itself.
    pub(super) fn of_transaction(failed: TransactError<Self>) -> Self {
        match failed {
            TransactError::Aborted(own) => own,
            TransactError::Store(cause) => Self::Store(cause),
            other => Self::Tables(SqlError::Failed { what: other.to_string() }),
        }
    }

    /// Whether repeating can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::NotNow { .. } => Retry::After(Duration::from_secs(1)),
            Self::Transport(cause) => cause.retry(),
            Self::Store(cause) | Self::Tables(SqlError::Store(cause)) => cause.retry(),
            Self::Ids(store::InboxError::Store(cause)) => cause.retry(),
            _ => Retry::Never,
        }
    }
}

impl From<SqlError> for InboxError {
    fn from(failed: SqlError) -> Self {
        match failed {
            SqlError::Store(cause) => Self::Store(cause),
            other => Self::Tables(other),
        }
    }
}
