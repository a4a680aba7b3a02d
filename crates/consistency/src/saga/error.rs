//! What can go wrong with sagas.

use std::sync::Arc;

use quorate_data::store::{AppendError, Retry, SqlError, StoreError, TransactError};
use quorate_foundations::name::Name;

use super::machine::Refusal;

/// Why nothing came of what was asked of sagas. A saga that runs is never lost by any of these.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SagaError {
    /// A definition, a name or a setting breaks a rule.
    #[error("{what}")]
    Invalid {
        /// What is wrong, and what would be right.
        what: String,
    },
    /// Nobody has defined such a saga here.
    #[error("no saga `{name}` is defined")]
    Undefined {
        /// Its name.
        name: Name,
    },
    /// There is no such saga.
    #[error("there is no saga `{name}` with the id `{id}`")]
    NotFound {
        /// Its definition.
        name: Name,
        /// Its id.
        id: Arc<str>,
    },
    /// The id was used for a saga that was started with something else.
    #[error("saga `{name}` `{id}` was started with another input")]
    IdReused {
        /// Its definition.
        name: Name,
        /// Its id.
        id: Arc<str>,
    },
    /// The version of the definition is registered here already, with these steps or others.
    #[error("version {version} of saga `{name}` is defined already: raise the version with every change")]
    AlreadyDefined {
        /// Its name.
        name: Name,
        /// The version.
        version: u32,
    },
    /// The saga is there, and nobody here can run it: its version of the definition is not registered.
    #[error("saga `{name}` `{id}` is of version {version}, which is not defined here: it waits until it is")]
    Stalled {
        /// Its definition.
        name: Name,
        /// Its id.
        id: Arc<str>,
        /// Its version.
        version: u32,
    },
    /// What was asked does not fit how the saga stands.
    #[error("saga `{name}` `{id}`: {cause}")]
    Refused {
        /// Its definition.
        name: Name,
        /// Its id.
        id: Arc<str>,
        /// Why.
        #[source]
        cause: Refusal,
    },
    /// As many sagas run as may.
    #[error("{running} sagas are open, which is the limit: nothing was started")]
    Full {
        /// How many.
        running: usize,
    },
    /// Somebody else moved the saga on. Look how it stands, and ask again.
    #[error("saga `{name}` `{id}` was moved on by somebody else")]
    Overtaken {
        /// Its definition.
        name: Name,
        /// Its id.
        id: Arc<str>,
    },
    /// What is written of a saga cannot be read.
    #[error("the journal of saga `{name}` `{id}` cannot be read: {what}")]
    Unreadable {
        /// Its definition.
        name: Name,
        /// Its id.
        id: Arc<str>,
        /// What is wrong with it.
        what: String,
    },
    /// An event of a saga was not taken: a schema, a tombstone or a view is in the way.
    #[error("an event of the saga was refused by the log")]
    Append(#[source] Arc<AppendError>),
    /// The table of sagas failed.
    #[error("the table of sagas could not be read or written")]
    Sql(#[source] SqlError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SagaError {
    /// Whether repeating the same call can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Store(cause) | Self::Sql(SqlError::Store(cause)) => cause.retry(),
            Self::Overtaken { .. } => Retry::Now,
            Self::Full { .. } => Retry::After(std::time::Duration::from_secs(1)),
            _ => Retry::Never,
        }
    }

    /// Whether it may have happened all the same.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::Store(StoreError::OutcomeUnknown) | Self::Sql(SqlError::Store(StoreError::OutcomeUnknown)))
    }

    pub(super) fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into() }
    }

    pub(super) fn of_transaction(failed: TransactError<Self>) -> Self {
        match failed {
            TransactError::Aborted(own) => own,
            TransactError::Store(cause) => cause.into(),
            other => Self::Sql(SqlError::Failed { what: other.to_string() }),
        }
    }
}

impl From<SqlError> for SagaError {
    fn from(error: SqlError) -> Self {
        match error {
            SqlError::Store(cause) => Self::Store(cause),
            other => Self::Sql(other),
        }
    }
}

impl From<AppendError> for SagaError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Store(cause) => Self::Store(cause),
            other => Self::Append(Arc::new(other)),
        }
    }
}
