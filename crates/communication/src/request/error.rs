//! What can go wrong with a request, and what a responder says when it has no answer.

use std::time::Duration;

use quorate_data::store::Retry;
use quorate_foundations::name::Name;
use serde::{Deserialize, Serialize};

use super::machine::{Refusal, TooManyResponders, Unknown};

/// Why a responder has no answer: it was asked, and says no.
///
/// An error of the handler's own becomes one by [`Fault::new`], with a code that callers can match on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{code}: {detail}")]
#[non_exhaustive]
pub struct Fault {
    /// What kind of fault it is, for programs: 1 to [`Fault::MAX_CODE_BYTES`].
    pub code: String,
    /// What happened, for people: at most [`Fault::MAX_DETAIL_BYTES`].
    pub detail: String,
}

impl Fault {
    /// The longest code; what is beyond it is cut off.
    pub const MAX_CODE_BYTES: usize = 64;
    /// The longest detail; what is beyond it is cut off.
    pub const MAX_DETAIL_BYTES: usize = 1_024;

    /// A fault of this code, for this reason.
    pub fn new(code: impl Into<String>, detail: impl Into<String>) -> Self {
        let cut = |mut text: String, max| {
            text.truncate(text.floor_char_boundary(max));
            text
        };
        Self { code: cut(code.into(), Self::MAX_CODE_BYTES), detail: cut(detail.into(), Self::MAX_DETAIL_BYTES) }
    }
}

/// Why a request has no answer. Each says whether it was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Nobody serves the type. It was not done.
    #[error("nobody serves requests of type `{kind}`")]
    NoResponder {
        /// The type.
        kind: Name,
    },
    /// Nobody has begun on it, so it was not done.
    #[error("nobody has begun on a request of type `{kind}`")]
    Refused {
        /// The type.
        kind: Name,
        /// Why.
        #[source]
        why: Refusal,
    },
    /// The responder says no. What it did before is for its fault to say.
    #[error("the responder of `{kind}` has no answer")]
    Fault {
        /// The type.
        kind: Name,
        /// Why.
        #[source]
        fault: Fault,
    },
    /// *Outcome unknown*: a responder had begun on it, and it may have been done, in part or whole.
    #[error("it is not known what became of a request of type `{kind}`")]
    Unknown {
        /// The type.
        kind: Name,
        /// Why.
        #[source]
        why: Unknown,
        /// Whether the type says that doing it twice is as doing it once.
        idempotent: bool,
    },
    /// The request was done, and its answer is not what the type says.
    #[error("the answer of a request of type `{kind}` cannot be read: {what}")]
    Unreadable {
        /// The type.
        kind: Name,
        /// What is wrong with it.
        what: String,
    },
    /// The value cannot be sent: it is no JSON, or too long. Nothing was sent.
    #[error("a request of type `{kind}` cannot be sent: {what}")]
    Invalid {
        /// The type.
        kind: Name,
        /// What is wrong with it.
        what: String,
    },
}

impl RequestError {
    /// Whether repeating can help, and is safe, with a deadline that has not passed.
    pub fn retry(&self) -> Retry {
        match self {
            // This process takes none any more.
            Self::Refused { why: Refusal::Closing, .. } => Retry::Never,
            Self::NoResponder { .. }
            | Self::Refused { .. }
            | Self::Unknown { why: Unknown::Deadline, idempotent: true, .. } => Retry::After(Duration::from_secs(1)),
            Self::Unknown { idempotent: true, .. } => Retry::Now,
            Self::Fault { .. } | Self::Unknown { .. } | Self::Unreadable { .. } | Self::Invalid { .. } => Retry::Never,
        }
    }
}

/// Why a type is not declared, or not served. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeclareError {
    /// It was declared before, as something else, or its queue is that of another type.
    #[error("`{kind}` was declared before with another contract, or its queue is that of another type")]
    Disagrees {
        /// The type.
        kind: Name,
    },
    /// A field is out of its range.
    #[error("{what}")]
    Invalid {
        /// Which one, and its range.
        what: String,
    },
    /// There are as many types as there may be.
    #[error("{max} types are declared, which is all there may be")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// There are as many responders as there may be.
    #[error(transparent)]
    TooManyResponders(#[from] TooManyResponders),
}
