//! What a relay publishes, and where.

use std::time::Duration;

use quorate_data::{
    store::{Retry, SqlError, StoreError},
    subscription::{self, Backoff, SubscriptionError},
};

use crate::transports::{Topic, TransportError};

/// A relay, as whoever starts it wants it.
///
/// # Example
/// ```
/// use quorate_communication::{outbox::RelayConfig, transports::Topic};
/// use quorate_data::{store::{Query, QueryItem}, subscription};
/// let mut relay = RelayConfig::to(Topic::new("orders".parse().unwrap()));
/// relay.subscription.filter = Query::of([QueryItem::categories(["order"])]);
/// assert!(relay.check().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayConfig {
    /// Which events, from where on, in order of what. Its `lease-ttl` is how long a relay that died holds up what it had in hand, at least 1 s; its
    /// attempts count for events that nobody would get. Default: all from the beginning, in order of their streams; 20 attempts.
    pub subscription: subscription::Config,
    /// Where to.
    pub route: Route,
    /// Events that are published at a time. 1 to 1,000. Default 100.
    pub batch: usize,
    /// The longest rest before a broker that was away is tried again. 100 ms to 1 h. Default 30 s.
    pub longest_rest: Duration,
    /// Whether to publish events about a data subject whose data is readable: nobody can erase them at the broker. Otherwise they are parked. Default: no.
    pub personal: bool,
}

/// Where events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// All to one topic.
    Topic(Topic),
    /// Each to the topic that is named as its stream's category, with the other numbers as here.
    ByCategory(Topic),
}

/// What can go wrong with a relay. Unless it says otherwise, nothing was changed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// A field is out of its range.
    #[error("{what}")]
    Invalid {
        /// Which one, and its range.
        what: String,
    },
    /// The topic cannot be used.
    #[error(transparent)]
    Topic(#[from] TransportError),
    /// Its subscription cannot be made.
    #[error(transparent)]
    Subscription(#[from] SubscriptionError),
    /// The store failed. After [`StoreError::OutcomeUnknown`] what was asked may have been done.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A table of the relays cannot be used.
    #[error("the relays' table cannot be used")]
    Tables(#[source] SqlError),
}

impl RelayError {
    /// Whether repeating can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Invalid { .. } => Retry::Never,
            Self::Topic(cause) => cause.retry(),
            Self::Subscription(cause) => cause.retry(),
            Self::Store(cause) | Self::Tables(SqlError::Store(cause)) => cause.retry(),
            Self::Tables(_) => Retry::Never,
        }
    }
}

impl From<SqlError> for RelayError {
    fn from(failed: SqlError) -> Self {
        match failed {
            SqlError::Store(cause) => Self::Store(cause),
            other => Self::Tables(other),
        }
    }
}

impl RelayConfig {
    /// The most events at a time.
    pub const MAX_BATCH: usize = 1_000;
    /// The shortest lease: a confirm has to fit in.
    pub const MIN_TTL: Duration = Duration::from_secs(1);

    /// A relay of all events to `topic`.
    pub fn to(topic: Topic) -> Self {
        let backoff = Backoff { first: Duration::from_millis(500), max: Duration::from_secs(300) };
        Self {
            subscription: subscription::Config { max_attempts: 20, backoff, ..subscription::Config::default() },
            route: Route::Topic(topic),
            batch: 100,
            longest_rest: Duration::from_secs(30),
            personal: false,
        }
    }

    /// Whether every field is within its range.
    ///
    /// # Errors
    /// [`RelayError::Invalid`] and others name the field and its range.
    pub fn check(&self) -> Result<(), RelayError> {
        self.subscription.check()?;
        let (Route::Topic(topic) | Route::ByCategory(topic)) = &self.route;
        topic.check()?;
        let invalid = |what: String| Err(RelayError::Invalid { what });
        if !(1..=Self::MAX_BATCH).contains(&self.batch) {
            return invalid(format!("`batch` is 1 to {}, {} was asked for", Self::MAX_BATCH, self.batch));
        }
        let (shortest, longest) = (Duration::from_millis(100), Duration::from_secs(3_600));
        if !(shortest..=longest).contains(&self.longest_rest) {
            let asked = self.longest_rest;
            return invalid(format!("`longest-rest` is {shortest:?} to {longest:?}, {asked:?} was asked for"));
        }
        if self.subscription.lease_ttl < Self::MIN_TTL {
            let asked = self.subscription.lease_ttl;
            return invalid(format!("a relay's `lease-ttl` is at least {:?}, {asked:?} was asked for", Self::MIN_TTL));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::RelayConfig;
    use crate::transports::Topic;

    #[test]
    fn a_field_out_of_range_is_named() {
        let good = RelayConfig::to(Topic::new("orders".parse().unwrap()));
        let said = |relay: RelayConfig| relay.check().unwrap_err().to_string();
        assert!(good.check().is_ok());
        assert!(said(RelayConfig { batch: 0, ..good.clone() }).contains("`batch`"));
        assert!(said(RelayConfig { longest_rest: Duration::ZERO, ..good.clone() }).contains("`longest-rest`"));
        let mut hasty = good;
        hasty.subscription.lease_ttl = Duration::from_millis(200);
        assert!(said(hasty).contains("`lease-ttl`"));
    }
}
