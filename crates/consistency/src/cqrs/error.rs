//! How a command can end other than well: with a no, or without an answer.

use std::{fmt::Debug, sync::Arc};

use quorate_data::store::{Retry, SqlError, StoreError, Token, TransactError};

use super::Key;
use crate::event_sourcing::HandleError;

/// How a command can end other than well. Nothing was written, unless it says that the outcome is unknown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError<R: Debug> {
    /// A rule of the domain forbids it. This is an answer: repeated with its key, the command is answered so again.
    #[error("the command was rejected: {rejection:?}")]
    Rejected {
        /// The rule.
        rejection: R,
        /// The newest append that the rejection was decided on: presented to a question, it shows why.
        token: Token,
        /// Whether it had been rejected before: this is the answer of the first time.
        repeated: bool,
    },
    /// The key was used for another command.
    #[error("key `{key}` was used for another command")]
    KeyReused {
        /// The key.
        key: Key,
    },
    /// A view that is kept in the append's transaction cannot take in what the command would have written.
    #[error("view `{view}` refuses what the command would have written: {what}")]
    View {
        /// The view.
        view: Arc<str>,
        /// Why.
        what: String,
    },
    /// It could not be carried out, for no fault of its own.
    #[error("the command could not be carried out")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>, Failure),
}

/// What a failure means for whoever sent the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Whether repeating can help, with the same key.
    pub retry: Retry,
    /// Whether it may have been carried out all the same.
    pub outcome_unknown: bool,
}

/// Why commands cannot be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// A field is out of its range.
    #[error("{what}")]
    Invalid {
        /// Which one, and its range.
        what: String,
    },
    /// The room's table cannot be used.
    #[error("the kept answers cannot be used")]
    Tables(#[from] SqlError),
}

impl<R: Debug> CommandError<R> {
    /// Whether repeating the command can help, always with the same key.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Failed(_, failure) => failure.retry,
            _ => Retry::Never,
        }
    }

    /// Whether it may have been carried out although this is an error: repeat it with its key to find out.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::Failed(_, Failure { outcome_unknown: true, .. }))
    }

    pub(super) fn store(cause: StoreError) -> Self {
        let outcome_unknown = matches!(cause, StoreError::OutcomeUnknown);
        let failure = Failure { retry: cause.retry(), outcome_unknown };
        Self::Failed(Box::new(cause), failure)
    }

    pub(super) fn sql(cause: SqlError) -> Self {
        match cause {
            SqlError::Store(cause) => Self::store(cause),
            other => Self::Failed(Box::new(other), Failure { retry: Retry::Never, outcome_unknown: false }),
        }
    }
}

impl<R: Debug + Send + Sync + 'static> CommandError<R> {
    pub(super) fn handling(failed: HandleError<R>) -> Self {
        let failure = Failure { retry: failed.retry(), outcome_unknown: failed.is_outcome_unknown() };
        Self::Failed(Box::new(failed), failure)
    }

    /// What became of the transaction of a command.
    pub(super) fn of_transaction(failed: TransactError<Self>) -> Self {
        match failed {
            TransactError::Aborted(own) => own,
            TransactError::Store(cause) => Self::store(cause),
            TransactError::View { view, what } => Self::View { view, what },
            other => Self::sql(SqlError::Failed { what: other.to_string() }),
        }
    }
}
