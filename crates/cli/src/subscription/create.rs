//! What a new subscription shall be like.

use std::{str::FromStr, time::Duration};

use clap::Args;
use serde_json::{Map, Value, json};

use super::span;

/// Creates a subscription. What is not said has the node's default.
#[derive(Args, Debug)]
pub(crate) struct Create {
    /// The subscription
    pub(super) name: String,
    /// Only events of this type, or of another one named so
    #[arg(long = "type", value_name = "TYPE")]
    kinds: Vec<String>,
    /// Only events with this tag, and with every other one named so
    #[arg(long = "tag", value_name = "KEY:VALUE")]
    tags: Vec<String>,
    /// Only streams of this category (their names up to the first `-`), or of another one named so
    #[arg(long = "category", value_name = "CATEGORY")]
    categories: Vec<String>,
    /// Where to begin: `beginning`, `end`, or behind a position
    #[arg(long, value_name = "WHERE")]
    start: Option<Start>,
    /// What is handed out in order: `stream`, `tag:NAME`, `extension:NAME` or `unordered`
    #[arg(long, value_name = "WHAT")]
    key: Option<Key>,
    /// How long a consumer holds an event before another one gets it
    #[arg(long, value_name = "SPAN", value_parser = crate::span)]
    lease_ttl: Option<Duration>,
    /// How often an event is handed out before it is parked
    #[arg(long, value_name = "N")]
    max_attempts: Option<u32>,
    /// How many events may be behind the checkpoint and ahead of the last one handed out
    #[arg(long, value_name = "N")]
    window: Option<u32>,
    /// How many events may be parked before nothing more is handed out
    #[arg(long, value_name = "N")]
    max_parked: Option<u32>,
    /// How long an event rests after its first failure; doubled after each further one
    #[arg(long, value_name = "SPAN", value_parser = crate::span)]
    backoff_first: Option<Duration>,
    /// How long it rests at most
    #[arg(long, value_name = "SPAN", value_parser = crate::span)]
    backoff_max: Option<Duration>,
}

/// Where to begin, as the node reads it.
#[derive(Clone, Debug)]
pub(crate) struct Start(pub(crate) Value);

/// What is handed out in order, as the node reads it.
#[derive(Clone, Debug)]
pub(crate) struct Key(pub(crate) Value);

impl FromStr for Start {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let "beginning" | "end" = text {
            return Ok(Self(text.into()));
        }
        let after: u64 = text.parse().map_err(|_| "`beginning`, `end` or a position")?;
        Ok(Self(json!({ "after": after })))
    }
}

impl FromStr for Key {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.split_once(':')) {
            ("stream" | "unordered", _) => Ok(Self(text.into())),
            (_, Some((kind @ ("tag" | "extension"), name))) => Ok(Self(json!({ kind: name }))),
            _ => Err("`stream`, `tag:NAME`, `extension:NAME` or `unordered`"),
        }
    }
}

impl Create {
    /// The configuration as the node reads it.
    pub(super) fn config(&self) -> Value {
        let backoff = [("first", self.backoff_first), ("max", self.backoff_max)];
        let backoff: Map<String, Value> =
            backoff.into_iter().filter_map(|(name, rest)| Some((name.to_owned(), span(rest?).into()))).collect();
        let members = [
            ("filter", self.filter()),
            ("start", self.start.as_ref().map(|start| start.0.clone())),
            ("key", self.key.as_ref().map(|key| key.0.clone())),
            ("lease-ttl", self.lease_ttl.map(|ttl| span(ttl).into())),
            ("max-attempts", self.max_attempts.map(Value::from)),
            ("window", self.window.map(Value::from)),
            ("max-parked", self.max_parked.map(Value::from)),
            ("backoff", (!backoff.is_empty()).then(|| backoff.into())),
        ];
        members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }

    fn filter(&self) -> Option<Value> {
        let item = json!({ "types": self.kinds, "tags": self.tags, "categories": self.categories });
        let chosen = [&self.kinds, &self.tags, &self.categories].iter().any(|words| !words.is_empty());
        chosen.then(|| json!({ "items": [item] }))
    }
}
