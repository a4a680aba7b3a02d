//! What can go wrong between a service and its transport.

use std::time::Duration;

use quorate_data::store::Retry;

use super::Topic;

/// Why a message was not confirmed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// Nobody would get it: the topic has no group, or nobody has made the topic. Not published.
    #[error("nobody would get what is published to topic `{topic}`: it has no group")]
    Unroutable {
        /// The topic.
        topic: String,
    },
    /// As many messages wait as the topic takes. Not published, or not to every group.
    #[error("topic `{topic}` is full: {what}")]
    Full {
        /// The topic.
        topic: String,
        /// What the broker said.
        what: String,
    },
    /// The broker, or the transport, cannot take this message. Not published, or not to every group, and it would not be the next time.
    #[error("the message cannot be published: {what}")]
    Refused {
        /// What is wrong with it.
        what: String,
    },
    /// The broker is away. Not published.
    #[error("the broker is away: {what}")]
    Unavailable {
        /// What was tried.
        what: String,
    },
    /// The confirm did not come: it may have been published. Publish it again under the same id.
    #[error("no confirm came, so that it may or may not have been published: {what}")]
    Unknown {
        /// What was seen.
        what: String,
    },
}

/// What went wrong with a transport. Unless it says otherwise, repeating is safe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The broker is away, or the connection to it broke.
    #[error("the broker is away: {what}")]
    Unavailable {
        /// What was tried.
        what: String,
    },
    /// The message is not the caller's any more: its hold ended. It comes again, to somebody.
    #[error("the message's hold has ended, so that it comes again: {what}")]
    Lost {
        /// What was seen.
        what: String,
    },
    /// A number is out of its range, or another than the topic was made with.
    #[error("{what}")]
    Invalid {
        /// Which one.
        what: String,
    },
    /// The broker does not do what was asked.
    #[error("the broker refuses: {what}")]
    Refused {
        /// What it said.
        what: String,
    },
}

impl PublishError {
    pub(super) fn unroutable(topic: &Topic) -> Self {
        Self::Unroutable { topic: topic.name.to_string() }
    }

    pub(super) fn full(topic: &Topic, what: impl ToString) -> Self {
        Self::Full { topic: topic.name.to_string(), what: what.to_string() }
    }

    pub(super) fn refused(what: impl ToString) -> Self {
        Self::Refused { what: what.to_string() }
    }

    pub(super) fn unavailable(what: impl ToString) -> Self {
        Self::Unavailable { what: what.to_string() }
    }

    pub(super) fn unknown(what: impl ToString) -> Self {
        Self::Unknown { what: what.to_string() }
    }

    /// Whether the message may have been published all the same.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }

    /// Whether it is the message that is at fault, and not the broker or its set-up.
    pub fn is_of_message(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// Whether repeating can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Refused { .. } => Retry::Never,
            Self::Unknown { .. } => Retry::Now,
            Self::Unroutable { .. } | Self::Full { .. } | Self::Unavailable { .. } => {
                Retry::After(Duration::from_secs(1))
            }
        }
    }
}

impl TransportError {
    pub(super) fn unavailable(what: impl ToString) -> Self {
        Self::Unavailable { what: what.to_string() }
    }

    pub(super) fn lost(what: impl ToString) -> Self {
        Self::Lost { what: what.to_string() }
    }

    pub(super) fn refused(what: impl ToString) -> Self {
        Self::Refused { what: what.to_string() }
    }

    /// Whether repeating can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unavailable { .. } => Retry::After(Duration::from_secs(1)),
            Self::Lost { .. } | Self::Invalid { .. } | Self::Refused { .. } => Retry::Never,
        }
    }
}

impl From<TransportError> for PublishError {
    /// What kept a message from being sent at all.
    fn from(failed: TransportError) -> Self {
        match failed {
            TransportError::Unavailable { what } => Self::Unavailable { what },
            TransportError::Lost { what } | TransportError::Invalid { what } | TransportError::Refused { what } => {
                Self::Unavailable { what }
            }
        }
    }
}
