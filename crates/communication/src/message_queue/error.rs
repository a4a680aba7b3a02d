//! What can go wrong with a queue.

use std::time::Duration;

use quorate_data::{
    event::InvalidEvent,
    store::{Retry, SqlError, StoreError, TransactError},
};
use quorate_foundations::name::Name;

use super::Lease;

/// What can go wrong with a queue. Unless it says otherwise, nothing was changed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// There is none of that name; it may just have been deleted.
    #[error("there is no queue `{name}`")]
    NotFound {
        /// The name.
        name: Name,
    },
    /// There are as many as a store keeps.
    #[error("a store keeps at most {max} queues")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// A field is out of its range, or asks for what there is not.
    #[error("{what}")]
    Invalid {
        /// Which one, and its range.
        what: String,
    },
    /// A message breaks a rule of CloudEvents or one of our limits.
    #[error("message {index} cannot be sent")]
    Message {
        /// Which one of the batch, counted from 0.
        index: usize,
        /// What is wrong.
        #[source]
        cause: InvalidEvent,
    },
    /// The queue has sent a message with this source and id before, and it was another one.
    #[error("message `{id}` of `{source_uri}` was sent before with other content")]
    IdReused {
        /// Which one of the batch, counted from 0.
        index: usize,
        /// Its source.
        source_uri: String,
        /// Its id.
        id: String,
    },
    /// As many messages are in the queue as it takes.
    #[error("{messages} messages are in queue `{name}`, which takes {max}")]
    Full {
        /// The queue.
        name: Name,
        /// How many there are.
        messages: usize,
        /// The limit.
        max: usize,
    },
    /// More consumers wait than a queue lets wait.
    #[error("{max} consumers wait for queue `{name}` already")]
    Crowded {
        /// The queue.
        name: Name,
        /// The limit.
        max: usize,
    },
    /// These messages are no longer the caller's: others have, or had, them. What was asked for the *other* leases of the
    /// same call was done.
    #[error("{} of the leases are lost: their messages were handed out again, parked or settled", leases.len())]
    LeaseLost {
        /// The lost leases.
        leases: Vec<Lease>,
    },
    /// There is no dead letter of that id.
    #[error("queue `{name}` has no dead letter `{id}`")]
    NotParked {
        /// The queue.
        name: Name,
        /// The message's id.
        id: String,
    },
    /// The queue has no schedule of that name.
    #[error("queue `{queue}` has no schedule `{name}`")]
    NoSchedule {
        /// The queue.
        queue: Name,
        /// The schedule's name.
        name: Name,
    },
    /// There are as many schedules as a store keeps.
    #[error("a store keeps at most {max} schedules")]
    TooManySchedules {
        /// The limit.
        max: usize,
    },
    /// The store failed. After [`StoreError::OutcomeUnknown`] what was asked may have been done.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A table of the queues cannot be used.
    #[error("the queues' tables cannot be used")]
    Tables(#[source] SqlError),
}

impl QueueError {
    pub(super) fn invalid(what: String) -> Self {
        Self::Invalid { what }
    }

    pub(crate) fn corrupt(place: impl Into<String>, what: impl std::fmt::Display) -> Self {
        Self::Store(StoreError::Corrupt { place: place.into(), what: what.to_string() })
    }

    /// What became of a transaction that refused nothing by itself.
    pub(crate) fn of_transaction(failed: TransactError<Self>) -> Self {
        match failed {
            TransactError::Aborted(own) => own,
            TransactError::Store(cause) => Self::Store(cause),
            // It was rolled back: another process may stand still inside its own.
            TransactError::TooLong { .. } => Self::Store(StoreError::Busy),
            other => Self::Tables(SqlError::Failed { what: other.to_string() }),
        }
    }

    /// Whether repeating can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Full { .. } | Self::Crowded { .. } => Retry::After(Duration::from_secs(1)),
            Self::Store(cause) | Self::Tables(SqlError::Store(cause)) => cause.retry(),
            _ => Retry::Never,
        }
    }
}

impl From<SqlError> for QueueError {
    fn from(failed: SqlError) -> Self {
        match failed {
            SqlError::Store(cause) => Self::Store(cause),
            other => Self::Tables(other),
        }
    }
}
