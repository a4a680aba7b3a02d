//! Why a process was not declared or looked at.

use std::sync::Arc;

use quorate_data::store::{AppendError, Retry, SqlError, StoreError, TransactError};
use quorate_foundations::name::Name;

/// Why a process was not declared, or nothing could be said of it. Nothing was changed, unless the outcome is unknown.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// It cannot be followed, or the question cannot be asked.
    #[error("{what}")]
    Invalid {
        /// What is wrong.
        what: String,
    },
    /// Its reactions lead back to themselves, alone or with those of other processes.
    #[error("the reactions lead back to themselves: {path}")]
    Cycle {
        /// On which way.
        path: String,
    },
    /// As many processes are declared as there may be.
    #[error("at most {max} processes are followed")]
    TooMany {
        /// How many.
        max: usize,
    },
    /// No process has this name.
    #[error("there is no process `{name}`")]
    Undeclared {
        /// The name.
        name: Name,
    },
    /// The process has no course of this key.
    #[error("process `{name}` has no course `{key}`")]
    NotFound {
        /// The process.
        name: Name,
        /// The key.
        key: Arc<str>,
    },
    /// A program declared the process, with process managers that no document has: it is not replaced by one.
    #[error("process `{name}` was declared by a program, and no document takes its place")]
    OfProgram {
        /// The process.
        name: Name,
    },
    /// The course does not go on.
    #[error("course `{key}` of process `{name}` does not go on: {why}")]
    Refused {
        /// The process.
        name: Name,
        /// The key.
        key: Arc<str>,
        /// Why.
        why: Arc<str>,
    },
    /// An event of a process could not be appended.
    #[error("an event of a process was refused by the log")]
    Append(#[source] Arc<AppendError>),
    /// A table of processes failed.
    #[error("a table of processes could not be read or written")]
    Sql(#[source] SqlError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ProcessError {
    /// Whether repeating the same call can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Store(cause) | Self::Sql(SqlError::Store(cause)) => cause.retry(),
            _ => Retry::Never,
        }
    }

    /// Whether it may have happened all the same. Repeating it is safe.
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

impl From<SqlError> for ProcessError {
    fn from(error: SqlError) -> Self {
        match error {
            SqlError::Store(cause) => Self::Store(cause),
            other => Self::Sql(other),
        }
    }
}

impl From<AppendError> for ProcessError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Store(cause) => Self::Store(cause),
            other => Self::Append(Arc::new(other)),
        }
    }
}
