//! What can go wrong with webhooks.

use quorate_data::{
    store::{Retry, SqlError, StoreError, TransactError},
    subscription::SubscriptionError,
};
use quorate_foundations::name::Name;

use super::Forbidden;

/// What can go wrong with webhooks. Unless it says otherwise, nothing was changed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebhookError {
    /// There is none of that name; it may just have been deleted.
    #[error("there is no webhook `{name}`")]
    NotFound {
        /// The name.
        name: Name,
    },
    /// What was asked for differs in something that cannot be changed.
    #[error("`{field}` of webhook `{name}` cannot be changed: delete it and declare it anew")]
    Fixed {
        /// The name.
        name: Name,
        /// The field.
        field: &'static str,
    },
    /// The name was free when the call began, and somebody else has made another one of it, which is left as it is.
    #[error("somebody else has just made another webhook `{name}`")]
    Taken {
        /// The name.
        name: Name,
    },
    /// There are as many as a store keeps.
    #[error("a store keeps at most {max} webhooks")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// A field is out of its range, or cannot be read.
    #[error("{what}")]
    Invalid {
        /// Which one, and what is wrong.
        what: String,
    },
    /// The address may not be called.
    #[error("`url` cannot be called")]
    Forbidden(#[from] Forbidden),
    /// Others changed the webhook each time this call tried to.
    #[error("others keep changing webhook `{name}`")]
    Contended {
        /// The name.
        name: Name,
    },
    /// Its subscription says no.
    #[error(transparent)]
    Subscription(#[from] SubscriptionError),
    /// The store failed. After [`StoreError::OutcomeUnknown`] what was asked may have been done.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A table of the webhooks cannot be used.
    #[error("the webhooks' tables cannot be used")]
    Tables(#[source] SqlError),
}

impl WebhookError {
    pub(super) fn corrupt(what: impl std::fmt::Display) -> Self {
        Self::Store(StoreError::Corrupt { place: "quorate_webhook".to_owned(), what: what.to_string() })
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
            Self::Contended { .. } => Retry::Now,
            Self::Subscription(cause) => cause.retry(),
            Self::Store(cause) | Self::Tables(SqlError::Store(cause)) => cause.retry(),
            _ => Retry::Never,
        }
    }
}

impl From<SqlError> for WebhookError {
    fn from(failed: SqlError) -> Self {
        match failed {
            SqlError::Store(cause) => Self::Store(cause),
            other => Self::Tables(other),
        }
    }
}
