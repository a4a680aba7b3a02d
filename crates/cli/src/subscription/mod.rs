//! `quorate subscription`: durable subscriptions.

mod create;
pub(crate) mod show;

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

pub(crate) use create::{Key, Start};

use crate::{
    client::{Call, Client, JSON, Target},
    exit::Failure,
    output::Format,
    pages::{HowMany, list, positive},
};

/// Verbs on durable subscriptions.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Create a subscription; the same again changes nothing
    Create(Box<create::Create>),
    /// List subscriptions by name
    List {
        #[command(flatten)]
        how_many: HowMany,
    },
    /// How a subscription stands: checkpoint, lag, what is in flight and parked
    Show {
        /// The subscription
        name: String,
    },
    /// Delete a subscription with all it knows
    Delete {
        /// The subscription
        name: String,
    },
    /// Take events to work on, each under a lease
    Pull {
        /// The subscription
        name: String,
        /// How many events at most
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
        max: usize,
        /// How long to wait for the first one
        #[arg(long, value_name = "SPAN", default_value = "0s", value_parser = crate::span)]
        wait: Duration,
        /// Who asks, for people to read
        #[arg(long, value_name = "WHO", default_value = "")]
        owner: String,
    },
    /// Settle events: they are done
    Ack {
        #[command(flatten)]
        held: Held,
    },
    /// Give events back after a failure
    Nack {
        #[command(flatten)]
        held: Held,
        /// How long they rest; without it, as the configuration says
        #[arg(long, value_name = "SPAN", value_parser = crate::span)]
        delay: Option<Duration>,
        /// Why, for people to read
        #[arg(long, value_name = "WHY", default_value = "")]
        reason: String,
    },
    /// Hold events for longer
    Extend {
        #[command(flatten)]
        held: Held,
        /// How long from now on; without it, as the configuration says
        #[arg(long, value_name = "SPAN", value_parser = crate::span)]
        ttl: Option<Duration>,
    },
    /// Set events aside, with everything of their keys behind them
    Park {
        #[command(flatten)]
        held: Held,
        /// Why, for people to read
        #[arg(long, value_name = "WHY", default_value = "")]
        reason: String,
    },
    /// List parked events in order of position
    Parked {
        /// The subscription
        name: String,
        /// Begin behind this position
        #[arg(long, value_name = "POSITION", default_value_t = 0)]
        after: u64,
        #[command(flatten)]
        how_many: HowMany,
    },
    /// Let parked events be handed out again, in order
    Replay(Selected),
    /// Give parked events up
    Discard(Selected),
}

/// Events in a consumer's hands.
#[derive(Args, Debug)]
pub(crate) struct Held {
    /// The subscription
    name: String,
    /// The leases, as `pull` printed them
    #[arg(required = true, value_name = "LEASE")]
    leases: Vec<String>,
}

/// Which parked events.
#[derive(Args, Debug)]
pub(crate) struct Selected {
    /// The subscription
    name: String,
    /// Those of this key
    #[arg(long, value_name = "KEY", required_unless_present = "all", conflicts_with = "all")]
    key: Option<String>,
    /// All of them
    #[arg(long)]
    all: bool,
}

impl Command {
    /// Does what was asked.
    pub(crate) async fn run(self, client: &Client, format: Format) -> Result<(), Failure> {
        match self {
            Self::Create(create) => {
                let call = Call::post(route(&create.name, None), JSON, create.config().to_string()).put();
                show::subscription(&answer(client, &call).await?, format)
            }
            Self::List { how_many } => {
                let subscriptions = list(client, route_of_all(), "subscriptions", how_many).await?;
                show::subscriptions(&subscriptions, format)
            }
            Self::Show { name } => show::subscription(&answer(client, &Call::get(route(&name, None))).await?, format),
            Self::Delete { name } => show::deleted(&answer(client, &Call::delete(route(&name, None))).await?, format),
            Self::Pull { name, max, wait, owner } => {
                let body = json!({ "max": max, "wait": span(wait), "owner": owner });
                let call = Call::post(route(&name, Some("pull")), JSON, body.to_string());
                let client = client.clone().waiting(wait);
                show::deliveries(&client.call(&call).await?, client.server(), format)
            }
            Self::Ack { held } => held.settle(client, "ack", json!({}), format).await,
            Self::Nack { held, delay, reason } => {
                let how = with_span(json!({ "reason": reason }), "delay", delay);
                held.settle(client, "nack", how, format).await
            }
            Self::Extend { held, ttl } => held.settle(client, "extend", with_span(json!({}), "ttl", ttl), format).await,
            Self::Park { held, reason } => held.settle(client, "park", json!({ "reason": reason }), format).await,
            Self::Parked { name, after, how_many } => {
                let target = route(&name, Some("parked")).with("after", after);
                show::parked(&list(client, target, "parked", how_many).await?, format)
            }
            Self::Replay(selected) => selected.act(client, "replay", format).await,
            Self::Discard(selected) => selected.act(client, "discard", format).await,
        }
    }
}

impl Held {
    async fn settle(self, client: &Client, action: &str, mut how: Value, format: Format) -> Result<(), Failure> {
        how["leases"] = self.leases.into();
        let call = Call::post(route(&self.name, Some(action)), JSON, how.to_string());
        show::count(&answer(client, &call).await?, "leases", format)
    }
}

impl Selected {
    async fn act(self, client: &Client, action: &str, format: Format) -> Result<(), Failure> {
        let which = self.key.map_or_else(|| json!({ "all": true }), |key| json!({ "key": key }));
        let call = Call::post(route(&self.name, Some(action)), JSON, which.to_string());
        show::count(&answer(client, &call).await?, "events", format)
    }
}

async fn answer(client: &Client, call: &Call) -> Result<Value, Failure> {
    Ok(client.call(call).await?.json(client.server())?)
}

fn route_of_all() -> Target {
    Target::path(&["v1", "subscriptions"])
}

/// `/v1/subscriptions/{name}`, or `/v1/subscriptions/{name}/{action}`
fn route(name: &str, action: Option<&str>) -> Target {
    let segments: Vec<&str> = ["v1", "subscriptions", name].into_iter().chain(action).collect();
    Target::path(&segments)
}

/// A span as the node reads it.
fn span(span: Duration) -> String {
    humantime_serde::re::humantime::format_duration(span).to_string()
}

fn with_span(mut body: Value, member: &str, given: Option<Duration>) -> Value {
    if let Some(given) = given {
        body[member] = span(given).into();
    }
    body
}
