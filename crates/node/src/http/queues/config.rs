//! A queue's configuration in JSON.

use std::{num::NonZeroU32, time::Duration};

use humantime_serde::re::humantime::format_duration;
use quorate_communication::message_queue::{Backoff, Config, Rate};
use serde::Deserialize;
use serde_json::{Value, json};

/// As it is sent; what is left out has its default.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(super) struct Document {
    #[serde(with = "humantime_serde")]
    lease_ttl: Duration,
    max_attempts: u32,
    backoff: Rests,
    #[serde(with = "humantime_serde")]
    dedupe: Duration,
    max_messages: usize,
    max_in_flight: Option<NonZeroU32>,
    rate: Option<Allowed>,
    paused: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Rests {
    #[serde(with = "humantime_serde")]
    first: Duration,
    #[serde(with = "humantime_serde")]
    max: Duration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Allowed {
    count: NonZeroU32,
    #[serde(with = "humantime_serde")]
    per: Duration,
}

impl Default for Document {
    fn default() -> Self {
        let Config { lease_ttl, max_attempts, dedupe, max_messages, max_in_flight, paused, .. } = Config::default();
        let (backoff, rate) = (Rests::default(), None);
        Self { lease_ttl, max_attempts, backoff, dedupe, max_messages, max_in_flight, rate, paused }
    }
}

impl Default for Rests {
    fn default() -> Self {
        let Backoff { first, max } = Backoff::default();
        Self { first, max }
    }
}

impl From<Document> for Config {
    fn from(sent: Document) -> Self {
        Self {
            lease_ttl: sent.lease_ttl,
            max_attempts: sent.max_attempts,
            backoff: Backoff { first: sent.backoff.first, max: sent.backoff.max },
            dedupe: sent.dedupe,
            max_messages: sent.max_messages,
            max_in_flight: sent.max_in_flight,
            rate: sent.rate.map(|Allowed { count, per }| Rate { count, per }),
            paused: sent.paused,
        }
    }
}

/// `config` as it could be sent.
pub(super) fn shown(config: &Config) -> Value {
    let span = |span: Duration| format_duration(span).to_string();
    json!({
        "lease-ttl": span(config.lease_ttl),
        "max-attempts": config.max_attempts,
        "backoff": { "first": span(config.backoff.first), "max": span(config.backoff.max) },
        "dedupe": span(config.dedupe),
        "max-messages": config.max_messages,
        "max-in-flight": config.max_in_flight,
        "rate": config.rate.map(|Rate { count, per }| json!({ "count": count, "per": span(per) })),
        "paused": config.paused,
    })
}
