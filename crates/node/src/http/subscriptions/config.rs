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

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
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

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum From {
    #[default]
    Beginning,
    End,
    After(Count),
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Key {
    #[default]
    Stream,
    Tag(String),
    Extension(String),
    Unordered,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Rests {
    #[serde(with = "humantime_serde")]
    first: Duration,
    #[serde(with = "humantime_serde")]
    max: Duration,
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

impl std::convert::From<Document> for Config {
    fn from(sent: Document) -> Self {
        let item = |Item { types, tags, categories }| QueryItem { types, tags, categories };
        Self {
            filter: Query::of(sent.filter.items.into_iter().map(item)),
            start: match sent.start {
                From::Beginning => Start::Beginning,
                From::End => Start::End,
                From::After(Count(position)) => Start::After(Position::new(position)),
            },
            key: match sent.key {
                Key::Stream => OrderKey::Stream,
                Key::Tag(name) => OrderKey::Tag(name),
                Key::Extension(name) => OrderKey::Extension(name),
                Key::Unordered => OrderKey::Unordered,
            },
            lease_ttl: sent.lease_ttl,
            max_attempts: sent.max_attempts,
            window: sent.window,
            max_parked: sent.max_parked,
            backoff: Backoff { first: sent.backoff.first, max: sent.backoff.max },
        }
    }
}

/// `config` as it could be sent.
pub(super) fn shown(config: &Config) -> Value {
    let span = |span: Duration| format_duration(span).to_string();
    let item = |item: &QueryItem| json!({ "types": item.types, "tags": item.tags, "categories": item.categories });
    json!({
        "filter": { "items": config.filter.items.iter().map(item).collect::<Vec<_>>() },
        "start": match config.start {
            Start::Beginning => json!("beginning"),
            Start::End => json!("end"),
            Start::After(position) => json!({ "after": position.to_string() }),
        },
        "key": match &config.key {
            OrderKey::Stream => json!("stream"),
            OrderKey::Tag(name) => json!({ "tag": name }),
            OrderKey::Extension(name) => json!({ "extension": name }),
            OrderKey::Unordered => json!("unordered"),
        },
        "lease-ttl": span(config.lease_ttl),
        "max-attempts": config.max_attempts,
        "window": config.window,
        "max-parked": config.max_parked,
        "backoff": { "first": span(config.backoff.first), "max": span(config.backoff.max) },
    })
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
