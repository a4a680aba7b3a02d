//! What a webhook shall be like.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::{secret, span};
use crate::{
    client::Client,
    exit::Failure,
    subscription::{Key, Start},
};

/// Declares a webhook.
#[derive(Args, Debug)]
pub(crate) struct Declare {
    /// The webhook
    pub(super) name: String,
    /// Who is called, as https://billing.example/hooks
    url: String,
    /// Only events of this type, or of another one named so
    #[arg(long = "type", value_name = "TYPE")]
    kinds: Vec<String>,
    /// Only events with this tag, and with every other one named so
    #[arg(long = "tag", value_name = "KEY:VALUE")]
    tags: Vec<String>,
    /// Only streams of this category (their names up to the first `-`), or of another one named so
    #[arg(long = "category", value_name = "CATEGORY")]
    categories: Vec<String>,
    /// Where to begin: `beginning`, `end` (what is appended from now on), or behind a position
    #[arg(long, value_name = "WHERE")]
    start: Option<Start>,
    /// What is sent in order: `stream`, `tag:NAME`, `extension:NAME` or `unordered`
    #[arg(long, value_name = "WHAT")]
    key: Option<Key>,
    /// How an event is written
    #[arg(long, value_enum, value_name = "HOW")]
    content: Option<Content>,
    /// The file that holds its secret, `-` for standard input; without it a new webhook is given one
    #[arg(long, value_name = "FILE")]
    secret_file: Option<String>,
    /// How long one attempt may take
    #[arg(long, value_name = "SPAN", value_parser = crate::span)]
    timeout: Option<Duration>,
    /// How many events are sent at one time
    #[arg(long, value_name = "N")]
    places: Option<u32>,
    /// How often an event is sent before it is parked
    #[arg(long, value_name = "N")]
    max_attempts: Option<u32>,
    /// How long an event rests after its first failure; doubled after each further one
    #[arg(long, value_name = "SPAN", value_parser = crate::span, requires = "backoff_max")]
    backoff_first: Option<Duration>,
    /// How long it rests at most
    #[arg(long, value_name = "SPAN", value_parser = crate::span, requires = "backoff_first")]
    backoff_max: Option<Duration>,
    /// How many events may lie between the first one that is neither taken nor parked and the last one sent
    #[arg(long, value_name = "N")]
    window: Option<u32>,
    /// How many events may be parked before nothing more is sent
    #[arg(long, value_name = "N")]
    max_parked: Option<u32>,
    /// After how long without any success nothing is sent any more
    #[arg(long, value_name = "SPAN", value_parser = crate::span)]
    disable_after: Option<Duration>,
}

/// How an event is written.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Content {
    /// As one JSON document
    Structured,
    /// Attributes as `ce-…` headers, data as the body
    Binary,
}

impl Declare {
    /// The configuration as the node reads it.
    pub(super) async fn document(&self, client: &Client) -> Result<Value, Failure> {
        let backoff = self.backoff_first.zip(self.backoff_max);
        let content = self.content.map(|content| match content {
            Content::Structured => "structured",
            Content::Binary => "binary",
        });
        let members = [
            ("url", Some(self.url.as_str().into())),
            ("secret", secret(client, self.secret_file.as_deref()).await?.map(Value::from)),
            ("filter", self.filter()),
            ("start", self.start.as_ref().map(|start| start.0.clone())),
            ("key", self.key.as_ref().map(|key| key.0.clone())),
            ("content", content.map(Value::from)),
            ("timeout", self.timeout.map(|timeout| span(timeout).into())),
            ("places", self.places.map(Value::from)),
            ("max-attempts", self.max_attempts.map(Value::from)),
            ("backoff", backoff.map(|(first, max)| json!({ "first": span(first), "max": span(max) }))),
            ("window", self.window.map(Value::from)),
            ("max-parked", self.max_parked.map(Value::from)),
            ("disable-after", self.disable_after.map(|after| span(after).into())),
        ];
        Ok(members
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect::<Map<_, _>>()
            .into())
    }

    fn filter(&self) -> Option<Value> {
        let item = json!({ "types": self.kinds, "tags": self.tags, "categories": self.categories });
        let chosen = [&self.kinds, &self.tags, &self.categories].iter().any(|words| !words.is_empty());
        chosen.then(|| json!({ "items": [item] }))
    }
}
