//! What can go wrong with publishing, and with groups.

use std::sync::Arc;

use quorate_data::{
    event::TagError,
    store::{AppendError, StoreError},
    subscription::SubscriptionError,
};
use quorate_foundations::name::Name;

/// Why nothing was published. Nothing was changed, unless the cause says otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The event's data cannot be written as JSON.
    #[error("an event of type `{kind}` cannot be written as JSON")]
    Encode {
        /// Its type.
        kind: &'static str,
        /// Why.
        #[source]
        cause: Arc<serde_json::Error>,
    },
    /// A tag cannot be.
    #[error("an event of type `{kind}` has a tag that cannot be")]
    Tag {
        /// Its type.
        kind: &'static str,
        /// Why.
        #[source]
        cause: TagError,
    },
    /// The store refused the append.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// What can go wrong with a group, and with finding a moment in the log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// Subscriptions with such names feed webhooks, and those that feed none are swept away.
    #[error("a group cannot be called `{name}`: names that begin with `webhook:` are those of webhooks")]
    Reserved {
        /// The name.
        name: Name,
    },
    /// Its subscription says no.
    #[error(transparent)]
    Subscription(#[from] SubscriptionError),
    /// The log cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}
