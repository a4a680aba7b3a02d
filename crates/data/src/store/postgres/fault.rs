//! What the server says, and what it means for whoever asked.

use std::sync::Arc;

use tokio_postgres::error::SqlState;

use crate::store::StoreError;

/// By this code a store that has moved refuses to be written to; the message is where it went.
pub(super) const MOVED: &str = "QM001";

/// What went wrong on a connection.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// The connection ended: what was on its way may have been done or not.
    Lost(String),
    /// The server refused a statement, and with it the transaction it was in.
    Refused { state: SqlState, what: String },
    /// What came back is not what was asked for.
    Strange(String),
    /// Schemas were registered that this process does not know yet.
    Stale,
    /// Some of a closure's events are known: it has to look at them first.
    Known,
    /// A closure registers schemas: nobody else's may be at work.
    NotAlone,
}

impl Fault {
    /// Another transaction was in the way: the same again may well pass.
    pub(super) fn is_conflict(&self) -> bool {
        const CONFLICTS: [&SqlState; 3] =
            [&SqlState::T_R_SERIALIZATION_FAILURE, &SqlState::T_R_DEADLOCK_DETECTED, &SqlState::LOCK_NOT_AVAILABLE];
        matches!(self, Self::Stale | Self::Known | Self::NotAlone)
            || matches!(self, Self::Refused { state, .. } if CONFLICTS.contains(&state))
    }

    /// Nothing came of it, and a new connection may do better.
    pub(super) fn is_lost(&self) -> bool {
        match self {
            Self::Lost(_) => true,
            // The server starts, stops, or hands over; or it ended the session because this node slept.
            Self::Refused { state, .. } => {
                let code = state.code();
                code.starts_with("57P") || code.starts_with("08") || code == "25P03" || code == "53300"
            }
            Self::Strange(_) | Self::Stale | Self::Known | Self::NotAlone => false,
        }
    }

    /// Somebody holds a lock for longer than this waited.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self, Self::Refused { state, .. } if *state == SqlState::LOCK_NOT_AVAILABLE)
    }

    /// The database takes no writes: it is a standby, or somebody made it so.
    pub(super) fn is_read_only(&self) -> bool {
        matches!(self, Self::Refused { state, .. } if *state == SqlState::READ_ONLY_SQL_TRANSACTION)
    }

    /// Whether the server refused it with this code.
    pub(super) fn has_code(&self, code: &str) -> bool {
        matches!(self, Self::Refused { state, .. } if state.code() == code)
    }

    /// A statement ran out of its time.
    pub(super) fn is_late(&self) -> bool {
        matches!(self, Self::Refused { state, .. } if *state == SqlState::QUERY_CANCELED)
    }

    /// A constraint that was to be looked at in the end does not hold.
    pub(super) fn constraint(&self) -> Option<&str> {
        match self {
            Self::Refused { state, what } if state.code().starts_with("23") => Some(what),
            _ => None,
        }
    }

    /// As an error of the store, where nothing was written.
    pub(super) fn into_store(self, doing: &'static str) -> StoreError {
        match &self {
            _ if self.is_read_only() => StoreError::ReadOnly,
            Self::Refused { what, .. } if self.has_code(MOVED) => StoreError::Moved { to: what.clone() },
            Self::Refused { state, .. } if *state == SqlState::DISK_FULL => StoreError::DiskFull,
            Self::Lost(what) => StoreError::Unreachable { what: what.clone() },
            Self::Refused { what, .. } if self.is_lost() => StoreError::Unreachable { what: what.clone() },
            Self::Refused { what, .. } if self.is_late() => StoreError::TimedOut { what: what.clone() },
            _ if self.is_conflict() => StoreError::Busy,
            _ => StoreError::Engine { doing, cause: Arc::new(std::io::Error::other(self.to_string())) },
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lost(what) | Self::Strange(what) => f.write_str(what),
            Self::Refused { state, what } => write!(f, "{what} ({})", state.code()),
            Self::Stale => f.write_str("schemas were registered meanwhile"),
            Self::Known => f.write_str("some of its events are known"),
            Self::NotAlone => f.write_str("it registers schemas, and others are at work"),
        }
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(failed: tokio_postgres::Error) -> Self {
        match failed.as_db_error() {
            // Whoever is in a transaction that failed is told so again and again; the first refusal says why.
            Some(said) => Self::Refused { state: said.code().clone(), what: said.message().to_owned() },
            None if is_decoding(&failed) => Self::Strange(told(&failed)),
            None => Self::Lost(told(&failed)),
        }
    }
}

/// Whether the connection is well and only a value is not what it should be.
fn is_decoding(failed: &tokio_postgres::Error) -> bool {
    let told = failed.to_string();
    ["error deserializing", "error serializing", "invalid column", "query returned an unexpected"]
        .iter()
        .any(|word| told.starts_with(word))
}

fn told(failed: &tokio_postgres::Error) -> String {
    use std::error::Error;
    failed.source().map_or_else(|| failed.to_string(), |cause| format!("{failed}: {cause}"))
}
