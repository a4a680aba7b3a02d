//! What can go wrong with a durable request, beside what its status says.

use std::time::Duration;

use quorate_data::store::{Retry, SqlError};
use quorate_foundations::name::Name;

use crate::message_queue::QueueError;

/// What can go wrong with a durable request, beside what its [`Status`](super::Status) says.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DurableError {
    /// It is not known: it was never asked, or so long ago that it was forgotten.
    #[error("no request `{id}` of type `{kind}` is remembered: it was not asked, or longer than {remembered:?} ago")]
    Forgotten {
        /// The type.
        kind: Name,
        /// The id.
        id: Name,
        /// For how long they are remembered, at least.
        remembered: Duration,
    },
    /// The id was used for another body. Nothing was asked.
    #[error("request `{id}` of type `{kind}` was asked before with another body")]
    AnotherBody {
        /// The type.
        kind: Name,
        /// The id.
        id: Name,
    },
    /// It was done, and its answer is not what the type says.
    #[error("the answer to request `{id}` of type `{kind}` cannot be read: {what}")]
    Unreadable {
        /// The type.
        kind: Name,
        /// The id.
        id: Name,
        /// What is wrong with it.
        what: String,
    },
    /// An answer, or its media type, is longer than may be. Nothing was changed.
    #[error("an answer has at most {max} bytes, and its media type at most {max_media}")]
    TooLong {
        /// The limit of the answer.
        max: usize,
        /// The limit of the media type.
        max_media: usize,
    },
    /// Whom to tell of its end cannot be told there. Nothing was asked.
    #[cfg(feature = "webhooks")]
    #[error("`callback`: {0}")]
    Callback(crate::event_bus::webhook::WebhookError),
    /// Its queue, or the store. [`QueueError::LeaseLost`]: whoever answers was handed it so long ago that it is another's by now; nothing of the answer remains.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

impl DurableError {
    /// Whether repeating can help.
    pub fn retry(&self) -> Retry {
        if let Self::Queue(cause) = self { cause.retry() } else { Retry::Never }
    }
}

impl From<SqlError> for DurableError {
    fn from(failed: SqlError) -> Self {
        Self::Queue(failed.into())
    }
}
