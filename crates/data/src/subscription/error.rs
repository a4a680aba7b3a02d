//! What can go wrong with a durable subscription.

use std::time::Duration;

use quorate_foundations::name::Name;

use super::Lease;
use crate::store::{Retry, SqlError, StoreError, TransactError};

/// What can go wrong with a durable subscription. Unless it says otherwise, nothing was changed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubscriptionError {
    /// There is none of that name; it may just have been deleted.
    #[error("there is no subscription `{name}`")]
    NotFound {
        /// The name.
        name: Name,
    },
    /// There is one of that name with another configuration.
    #[error("subscription `{name}` exists with another configuration")]
    Exists {
        /// The name.
        name: Name,
    },
    /// There are as many as a store keeps.
    #[error("a store keeps at most {max} subscriptions")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// A field is out of its range.
    #[error("{what}")]
    Invalid {
        /// Which one, and its range.
        what: String,
    },
    /// These events are no longer the caller's: others have, or had, them. What was asked for the *other* leases of the
    /// same call was done.
    #[error("{} of the leases are lost: their events were handed out again, parked or settled", leases.len())]
    LeaseLost {
        /// The lost leases.
        leases: Vec<Lease>,
    },
    /// There are events to hand out, but too many before them are unsettled.
    #[error("{unsettled} events are unsettled and the window is {window}: settle some first")]
    WindowFull {
        /// How many count.
        unsettled: usize,
        /// The limit.
        window: usize,
    },
    /// Too many events are parked.
    #[error("{parked} events are parked and the limit is {max}: replay or discard some first")]
    ParkedFull {
        /// How many are parked.
        parked: usize,
        /// The limit.
        max: usize,
    },
    /// Other processes changed the subscription each time this one tried to.
    #[error("other processes keep changing the subscription")]
    Contended,
    /// The store failed. After [`StoreError::OutcomeUnknown`] what was asked may have been done.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A table of the subscription cannot be used.
    #[error("the subscription's tables cannot be used")]
    Tables(#[source] SqlError),
}

impl SubscriptionError {
    pub(super) fn invalid(what: String) -> Self {
        Self::Invalid { what }
    }

    pub(super) fn corrupt(place: impl Into<String>, what: impl std::fmt::Display) -> Self {
        Self::Store(StoreError::Corrupt { place: place.into(), what: what.to_string() })
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
            Self::WindowFull { .. } => Retry::After(Duration::from_secs(1)),
            Self::Contended => Retry::Now,
            Self::Store(cause) | Self::Tables(SqlError::Store(cause)) => cause.retry(),
            _ => Retry::Never,
        }
    }
}

impl From<SqlError> for SubscriptionError {
    fn from(failed: SqlError) -> Self {
        match failed {
            SqlError::Store(cause) => Self::Store(cause),
            other => Self::Tables(other),
        }
    }
}
