//! What a queue shall be like.

use std::{str::FromStr, time::Duration};

use clap::Args;
use serde_json::{Map, Value, json};

use super::span;

/// Declares a queue. What is not said has the node's default, also where the queue is there already.
#[derive(Args, Debug)]
pub(crate) struct Declare {
    /// The queue
    pub(super) name: String,
    /// How long a consumer holds a message before another one gets it
    #[arg(long, value_name = "SPAN", value_parser = crate::span)]
    lease_ttl: Option<Duration>,
    /// How often a message is handed out before it becomes a dead letter
    #[arg(long, value_name = "N")]
    max_attempts: Option<u32>,
    /// How long a message rests after its first failure; doubled after each further one
    #[arg(long, value_name = "SPAN", value_parser = crate::span)]
    backoff_first: Option<Duration>,
    /// How long it rests at most
    #[arg(long, value_name = "SPAN", value_parser = crate::span)]
    backoff_max: Option<Duration>,
    /// How long ids are remembered, at least, so that a message is not sent twice
    #[arg(long, value_name = "SPAN", value_parser = crate::span)]
    dedupe: Option<Duration>,
    /// How many messages the queue takes, dead letters included
    #[arg(long, value_name = "N")]
    max_messages: Option<u32>,
    /// How many messages are in consumers' hands at once
    #[arg(long, value_name = "N")]
    max_in_flight: Option<u32>,
    /// How many messages are handed out in how long, as `100/1s`
    #[arg(long, value_name = "N/SPAN")]
    rate: Option<Rate>,
    /// Hand nothing out until it is declared without this flag
    #[arg(long)]
    paused: bool,
}

/// A rate, as the node reads it.
#[derive(Clone, Debug)]
struct Rate(Value);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (count, per) = text.split_once('/').ok_or("a number and a span, as `100/1s`")?;
        let count: u32 = count.parse().map_err(|_| "a number from 1 before the `/`")?;
        Ok(Self(json!({ "count": count, "per": span(crate::span(per)?) })))
    }
}

impl Declare {
    /// The configuration as the node reads it.
    pub(super) fn config(&self) -> Value {
        let backoff = [("first", self.backoff_first), ("max", self.backoff_max)];
        let backoff: Map<String, Value> =
            backoff.into_iter().filter_map(|(name, rest)| Some((name.to_owned(), span(rest?).into()))).collect();
        let members = [
            ("lease-ttl", self.lease_ttl.map(|ttl| span(ttl).into())),
            ("max-attempts", self.max_attempts.map(Value::from)),
            ("backoff", (!backoff.is_empty()).then(|| backoff.into())),
            ("dedupe", self.dedupe.map(|dedupe| span(dedupe).into())),
            ("max-messages", self.max_messages.map(Value::from)),
            ("max-in-flight", self.max_in_flight.map(Value::from)),
            ("rate", self.rate.as_ref().map(|rate| rate.0.clone())),
            ("paused", self.paused.then(|| true.into())),
        ];
        members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}
