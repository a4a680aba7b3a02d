//! A subscription's configuration in JSON.

use std::time::Duration;

use humantime_serde::re::humantime::format_duration;
use quorate_data::{
    event::Position,
    store::{Query, QueryItem},
    subscription::{Backoff, Config, OrderKey, Start},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::document::Count;

/// As it is sent; what is left out has its default.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(super) struct Document {
    filter: Filter,
    start: From,
    key: Key,
    #[serde(with = "humantime_serde")]
    lease_ttl: Duration,
    max_attempts: u32,
    window: usize,
    max_parked: usize,
    backoff: Rests,
}

/// Which events.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Filter {
    #[serde(default)]
    items: Vec<Item>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Item {
    types: Vec<String>,
    tags: Vec<String>,
    categories: Vec<String>,
}

/// Where to begin.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::http) enum From {
    #[default]
    Beginning,
    End,
    After(Count),
}

/// What is handed out in order.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::http) enum Key {
    #[default]
    Stream,
    Tag(String),
    Extension(String),
    Unordered,
}

/// How long a refused event rests.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::http) struct Rests {
    #[serde(with = "humantime_serde")]
    pub(in crate::http) first: Duration,
    #[serde(with = "humantime_serde")]
    pub(in crate::http) max: Duration,
}

impl Default for Document {
    fn default() -> Self {
        let Config { lease_ttl, max_attempts, window, max_parked, .. } = Config::default();
        let (filter, start, key, backoff) = (Filter::default(), From::default(), Key::default(), Rests::default());
        Self { filter, start, key, lease_ttl, max_attempts, window, max_parked, backoff }
    }
}

impl Default for Rests {
    fn default() -> Self {
        let Backoff { first, max } = Backoff::default();
        Self { first, max }
    }
}

impl std::convert::From<Filter> for Query {
    fn from(sent: Filter) -> Self {
        let item = |Item { types, tags, categories }| QueryItem { types, tags, categories };
        Self::of(sent.items.into_iter().map(item))
    }
}

impl std::convert::From<From> for Start {
    fn from(sent: From) -> Self {
        match sent {
            From::Beginning => Self::Beginning,
            From::End => Self::End,
            From::After(Count(position)) => Self::After(Position::new(position)),
        }
    }
}

impl std::convert::From<Key> for OrderKey {
    fn from(sent: Key) -> Self {
        match sent {
            Key::Stream => Self::Stream,
            Key::Tag(name) => Self::Tag(name),
            Key::Extension(name) => Self::Extension(name),
            Key::Unordered => Self::Unordered,
        }
    }
}

impl std::convert::From<Rests> for Backoff {
    fn from(sent: Rests) -> Self {
        Self { first: sent.first, max: sent.max }
    }
}

impl std::convert::From<Document> for Config {
    fn from(sent: Document) -> Self {
        Self {
            filter: sent.filter.into(),
            start: sent.start.into(),
            key: sent.key.into(),
            lease_ttl: sent.lease_ttl,
            max_attempts: sent.max_attempts,
            window: sent.window,
            max_parked: sent.max_parked,
            backoff: sent.backoff.into(),
        }
    }
}

/// `config` as it could be sent.
pub(super) fn shown(config: &Config) -> Value {
    json!({
        "filter": filter_shown(&config.filter),
        "start": start_shown(config.start),
        "key": key_shown(&config.key),
        "lease-ttl": span(config.lease_ttl),
        "max-attempts": config.max_attempts,
        "window": config.window,
        "max-parked": config.max_parked,
        "backoff": rests_shown(config.backoff),
    })
}

pub(in crate::http) fn filter_shown(filter: &Query) -> Value {
    let item = |item: &QueryItem| json!({ "types": item.types, "tags": item.tags, "categories": item.categories });
    json!({ "items": filter.items.iter().map(item).collect::<Vec<_>>() })
}

pub(in crate::http) fn start_shown(start: Start) -> Value {
    match start {
        Start::Beginning => json!("beginning"),
        Start::End => json!("end"),
        Start::After(position) => json!({ "after": position.to_string() }),
    }
}

pub(in crate::http) fn key_shown(key: &OrderKey) -> Value {
    match key {
        OrderKey::Stream => json!("stream"),
        OrderKey::Tag(name) => json!({ "tag": name }),
        OrderKey::Extension(name) => json!({ "extension": name }),
        OrderKey::Unordered => json!("unordered"),
    }
}

pub(in crate::http) fn rests_shown(backoff: Backoff) -> Value {
    json!({ "first": span(backoff.first), "max": span(backoff.max) })
}

pub(in crate::http) fn span(span: Duration) -> String {
    format_duration(span).to_string()
}

#[cfg(test)]
mod tests {
    use super::{Config, Document, shown};

    #[test]
    fn a_configuration_survives_being_shown_and_sent_again() {
        let sent = r#"{"filter":{"items":[{"types":["a"],"tags":["x:1"]}]},"start":{"after":"17"},"key":{"tag":"x"},
            "lease-ttl":"1s 500ms","max-attempts":3,"window":7,"max-parked":5,"backoff":{"first":"10ms","max":"2m"}}"#;
        for text in [sent, "{}", r#"{"start":"end","key":{"extension":"tenant"}}"#, r#"{"key":"unordered"}"#] {
            let config = Config::from(serde_json::from_str::<Document>(text).unwrap());
            let again = serde_json::from_value::<Document>(shown(&config)).unwrap();
            assert_eq!(Config::from(again), config, "{text}");
        }
        assert_eq!(Config::from(serde_json::from_str::<Document>("{}").unwrap()), Config::default());
    }
}
