//! What a durable subscription hands out, in which order, and how patient it is.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::SubscriptionError;
use crate::{
    event::{Position, Recorded},
    store::{Query, QueryItem},
};

/// A durable subscription, as its creator wants it. It cannot be changed later: delete and create anew.
///
/// # Example
/// ```
/// use quorate_data::{store::{Query, QueryItem}, subscription::{Config, OrderKey}};
/// let billing = Config {
///     filter: Query::of([QueryItem::types(["order.placed"])]),
///     key: OrderKey::Tag("customer".into()),
///     ..Config::default()
/// };
/// assert!(billing.check().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which events. Default: all.
    pub filter: Query,
    /// Where to begin. Default: with the first event of the log.
    pub start: Start,
    /// Events with the same key are handed out in order, one at a time. Default: the stream.
    pub key: OrderKey,
    /// How long a consumer holds an event before it is handed out again. 100 ms to 12 h. Default 30 s.
    pub lease_ttl: Duration,
    /// How often an event is handed out before it is parked. 1 to 1,000. Default 10.
    pub max_attempts: u32,
    /// Events between the checkpoint and the last one handed out, settled or not. 1 to 10,000. Default 1,000.
    pub window: usize,
    /// Parked events; while there are that many nothing more is handed out. 1 to 10,000. Default 10,000.
    pub max_parked: usize,
    /// How long a refused event rests.
    pub backoff: Backoff,
}

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// With the first event of the log.
    #[default]
    Beginning,
    /// With the first event appended after the subscription was created.
    End,
    /// With the first event behind this position.
    After(#[serde(with = "position")] Position),
}

/// What makes two events belong together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OrderKey {
    /// Their stream.
    #[default]
    Stream,
    /// The value of the tag with this name: for `customer` the tag `customer:17`. The first one in order, if several;
    /// the stream, if none.
    Tag(String),
    /// The value of this extension attribute; the stream where it is missing.
    Extension(String),
    /// Nothing: every event stands alone, and **no order is kept**.
    Unordered,
}

/// How long an event rests after its `n`-th failure: `first` · 2ⁿ⁻¹, at most `max`, less up to a fifth so that events
/// that failed together do not return together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// After the first failure. Default 1 s.
    pub first: Duration,
    /// At most. Default 5 min.
    pub max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            filter: Query::EVERYTHING,
            start: Start::default(),
            key: OrderKey::default(),
            lease_ttl: Duration::from_secs(30),
            max_attempts: 10,
            window: 1_000,
            max_parked: 10_000,
            backoff: Backoff::default(),
        }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), max: Duration::from_secs(300) }
    }
}

impl Config {
    /// The shortest lease.
    pub const MIN_TTL: Duration = Duration::from_millis(100);
    /// The longest lease, and the longest rest.
    pub const MAX_TTL: Duration = Duration::from_secs(12 * 3_600);
    /// The most attempts.
    pub const MAX_ATTEMPTS: u32 = 1_000;
    /// The largest window, and the most parked events.
    pub const MAX_WINDOW: usize = 10_000;

    /// Whether every field is within its range.
    pub fn check(&self) -> Result<(), SubscriptionError> {
        self.filter.check().map_err(|cause| SubscriptionError::invalid(cause.to_string()))?;
        Self::check_ttl("lease-ttl", self.lease_ttl)?;
        within("max-attempts", u64::from(self.max_attempts), u64::from(Self::MAX_ATTEMPTS))?;
        within("window", self.window as u64, Self::MAX_WINDOW as u64)?;
        within("max-parked", self.max_parked as u64, Self::MAX_WINDOW as u64)?;
        self.backoff.check()?;
        self.key.check()
    }

    pub(super) fn check_ttl(what: &str, ttl: Duration) -> Result<(), SubscriptionError> {
        let (min, max) = (Self::MIN_TTL, Self::MAX_TTL);
        if (min..=max).contains(&ttl) {
            return Ok(());
        }
        Err(SubscriptionError::invalid(format!("`{what}` is {min:?} to {max:?}, {ttl:?} was asked for")))
    }

    /// As the text that is stored.
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(&Stored::from(self)).unwrap_or_else(|_| unreachable!("plain data has a JSON form"))
    }

    pub(super) fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str::<Stored>(text).map(Self::from)
    }
}

fn within(what: &str, asked: u64, max: u64) -> Result<(), SubscriptionError> {
    if (1..=max).contains(&asked) {
        return Ok(());
    }
    Err(SubscriptionError::invalid(format!("`{what}` is 1 to {max}, {asked} was asked for")))
}

impl OrderKey {
    fn check(&self) -> Result<(), SubscriptionError> {
        match self {
            Self::Tag(name) | Self::Extension(name) if name.is_empty() || name.len() > 256 => {
                Err(SubscriptionError::invalid("`key` names a tag or extension of 1 to 256 bytes".to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// The key of `event`. Keys of different kinds never meet.
    pub fn of(&self, event: &Recorded) -> Arc<str> {
        let stream = || Arc::from(event.stream());
        match self {
            Self::Stream => stream(),
            Self::Tag(name) => tagged(event, name).map_or_else(stream, |tag| format!("tag {tag}").into()),
            Self::Extension(name) => {
                let value = event.extensions().get(name).map(|value| format!("{name} {value:?}").into());
                value.unwrap_or_else(stream)
            }
            Self::Unordered => event.position().to_string().into(),
        }
    }
}

fn tagged<'e>(event: &'e Recorded, name: &str) -> Option<&'e str> {
    event.tags().find(|tag| tag.split_once(':').is_some_and(|(key, _)| key == name))
}

impl Backoff {
    fn check(&self) -> Result<(), SubscriptionError> {
        if self.first <= self.max && self.max <= Config::MAX_TTL {
            return Ok(());
        }
        Err(SubscriptionError::invalid(format!(
            "`backoff.first` ({:?}) is at most `backoff.max` ({:?}), and that at most {:?}",
            self.first,
            self.max,
            Config::MAX_TTL
        )))
    }

    /// How long to rest after failure number `failures` (from 1). `salt` spreads equals apart.
    pub fn delay(&self, failures: u32, salt: u64) -> Duration {
        let factor = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let full = self.first.saturating_mul(factor).min(self.max);
        let noise = (salt ^ u64::from(failures)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        full - full.mul_f64(0.2 * noise as f64 / f64::from(u32::MAX))
    }
}

/// The stored form: field names are part of the format.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Stored {
    filter: Vec<StoredItem>,
    start: Start,
    key: OrderKey,
    lease_ttl: Duration,
    max_attempts: u32,
    window: usize,
    max_parked: usize,
    backoff: Backoff,
}

#[derive(Serialize, Deserialize)]
struct StoredItem {
    types: Vec<String>,
    tags: Vec<String>,
    categories: Vec<String>,
}

impl From<&Config> for Stored {
    fn from(config: &Config) -> Self {
        let item = |item: &QueryItem| StoredItem {
            types: item.types.clone(),
            tags: item.tags.clone(),
            categories: item.categories.clone(),
        };
        Self {
            filter: config.filter.items.iter().map(item).collect(),
            start: config.start,
            key: config.key.clone(),
            lease_ttl: config.lease_ttl,
            max_attempts: config.max_attempts,
            window: config.window,
            max_parked: config.max_parked,
            backoff: config.backoff,
        }
    }
}

impl From<Stored> for Config {
    fn from(stored: Stored) -> Self {
        let item = |StoredItem { types, tags, categories }| QueryItem { types, tags, categories };
        Self {
            filter: Query::of(stored.filter.into_iter().map(item)),
            start: stored.start,
            key: stored.key,
            lease_ttl: stored.lease_ttl,
            max_attempts: stored.max_attempts,
            window: stored.window,
            max_parked: stored.max_parked,
            backoff: stored.backoff,
        }
    }
}

mod position {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::event::Position;

    pub(super) fn serialize<S: Serializer>(position: &Position, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(position.get())
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Position, D::Error> {
        u64::deserialize(from).map(Position::new)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Backoff, Config, OrderKey, Start};
    use crate::{
        event::Position,
        store::{Query, QueryItem},
    };

    #[test]
    fn a_config_survives_its_stored_form() {
        let config = Config {
            filter: Query::of([QueryItem::types(["a", "b"]).tagged(["x:1"]), QueryItem::categories(["order"])]),
            start: Start::After(Position::new(17)),
            key: OrderKey::Extension("tenant".into()),
            lease_ttl: Duration::from_millis(1_500),
            ..Config::default()
        };
        assert_eq!(Config::from_json(&config.to_json()).unwrap(), config);
    }

    #[test]
    fn a_field_out_of_range_is_named() {
        let said = |config: Config| config.check().unwrap_err().to_string();
        assert!(said(Config { window: 0, ..Config::default() }).contains("`window`"));
        assert!(said(Config { max_attempts: 1_001, ..Config::default() }).contains("`max-attempts`"));
        assert!(said(Config { lease_ttl: Duration::ZERO, ..Config::default() }).contains("`lease-ttl`"));
        let hasty = Backoff { first: Duration::from_secs(2), max: Duration::from_secs(1) };
        assert!(said(Config { backoff: hasty, ..Config::default() }).contains("`backoff.first`"));
    }

    #[test]
    fn backoff_doubles_up_to_its_limit_and_never_loses_more_than_a_fifth() {
        let backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(10) };
        for (failures, full) in [(1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 10.0), (900, 10.0)] {
            for salt in 0..50 {
                let delay = backoff.delay(failures, salt).as_secs_f64();
                assert!(delay <= full && delay >= 0.8 * full - 1e-9, "{failures} {salt} {delay}");
            }
        }
        assert_ne!(backoff.delay(1, 1), backoff.delay(1, 2));
    }
}
