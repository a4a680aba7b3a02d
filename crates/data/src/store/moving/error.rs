//! Why a store did not move.

use crate::{
    event::Position,
    store::{OpenError, Retry, StoreError, Verified},
};

/// Why a store did not move. Unless it says otherwise, the store is as it was, and the same call goes on where this one ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MoveError {
    /// Both are of one engine.
    #[error("both are of the {engine} engine: back the store up, and restore it where it is to be")]
    SameEngine {
        /// The engine.
        engine: &'static str,
    },
    /// There is no store to be moved.
    #[error("there is no store at {place}")]
    Absent {
        /// Where it was looked for.
        place: String,
    },
    /// It has what cannot go there. Nothing was begun.
    #[error("the store has what cannot go there: {}", obstacles.join("; "))]
    Refused {
        /// What, and what to do about each.
        obstacles: Vec<String>,
    },
    /// Something else is there.
    #[error("{place} holds something else already, and a move overwrites nothing")]
    Occupied {
        /// The destination.
        place: String,
    },
    /// The store was left for another place.
    #[error("the store has moved to {to} already")]
    Gone {
        /// Where it is.
        to: String,
    },
    /// The destination has an event that the store does not have there: it was restored, or is another one, since an earlier
    /// call. Nothing was changed.
    #[error("{place} took in an event at position {position} that the store does not have there")]
    Diverged {
        /// The destination.
        place: String,
        /// The position.
        position: Position,
    },
    /// A table does not hold on both sides what it should.
    #[error("table {table} does not arrive as it is: {what}")]
    Table {
        /// The table.
        table: String,
        /// What is wrong.
        what: String,
    },
    /// A check found damage.
    #[error("{place} is damaged: {}", first(verified))]
    Damaged {
        /// Which of the two stores.
        place: String,
        /// What was found.
        verified: Verified,
    },
    /// The store was left, and where it goes is not open yet, or not known to be. Neither takes writes until the same call is
    /// repeated and ends.
    #[error("the store was left, and {place} may not be open yet: repeat the same call")]
    Unfinished {
        /// The destination.
        place: String,
        /// What was in the way.
        #[source]
        cause: StoreError,
    },
    /// One of them cannot be opened.
    #[error(transparent)]
    Open(OpenError),
    /// One of them failed. After [`StoreError::OutcomeUnknown`] the store may have been left.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn first(verified: &Verified) -> String {
    verified.findings.first().map_or_else(String::new, ToString::to_string)
}

impl MoveError {
    /// Whether repeating can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unfinished { .. } => Retry::Now,
            Self::Store(cause) => cause.retry(),
            _ => Retry::Never,
        }
    }
}
