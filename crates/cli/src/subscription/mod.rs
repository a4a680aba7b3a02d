//! `quorate subscription`: durable subscriptions.

mod create;
pub(crate) mod show;

use std::time::Duration;

use clap::Subcommand;
use serde_json::json;

pub(crate) use create::{Key, Start};

use crate::{
    client::{Call, Client, JSON, Target},
    exit::Failure,
    output::Format,
    pages::{HowMany, list, positive},
    settling::{self, Held, Selected, span, with_span},
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

impl Command {
    /// Does what was asked.
    pub(crate) async fn run(self, client: &Client, format: Format) -> Result<(), Failure> {
        match self {
            Self::Create(create) => {
                let call = Call::post(route(&create.name, None), JSON, create.config().to_string()).put();
                show::subscription(&client.answer(&call).await?, format)
            }
            Self::List { how_many } => {
                let subscriptions = list(client, route_of_all(), "subscriptions", how_many).await?;
                show::subscriptions(&subscriptions, format)
            }
            Self::Show { name } => show::subscription(&client.answer(&Call::get(route(&name, None))).await?, format),
            Self::Delete { name } => show::deleted(&client.answer(&Call::delete(route(&name, None))).await?, format),
            Self::Pull { name, max, wait, owner } => {
                let body = json!({ "max": max, "wait": span(wait), "owner": owner });
                let call = Call::post(route(&name, Some("pull")), JSON, body.to_string());
                let client = client.clone().waiting(wait);
                show::deliveries(&client.call(&call).await?, client.server(), format)
            }
            Self::Ack { held } => held.settle(client, ("subscriptions", "ack"), json!({}), format).await,
            Self::Nack { held, delay, reason } => {
                let how = with_span(json!({ "reason": reason }), "delay", delay);
                held.settle(client, ("subscriptions", "nack"), how, format).await
            }
            Self::Extend { held, ttl } => {
                held.settle(client, ("subscriptions", "extend"), with_span(json!({}), "ttl", ttl), format).await
            }
            Self::Park { held, reason } => {
                held.settle(client, ("subscriptions", "park"), json!({ "reason": reason }), format).await
            }
            Self::Parked { name, after, how_many } => {
                let target = route(&name, Some("parked")).with("after", after);
                show::parked(&list(client, target, "parked", how_many).await?, format)
            }
            Self::Replay(selected) => selected.act(client, ("subscriptions", "replay"), format).await,
            Self::Discard(selected) => selected.act(client, ("subscriptions", "discard"), format).await,
        }
    }
}

fn route_of_all() -> Target {
    Target::path(&["v1", "subscriptions"])
}

/// `/v1/subscriptions/{name}`, or `/v1/subscriptions/{name}/{action}`
fn route(name: &str, action: Option<&str>) -> Target {
    settling::route("subscriptions", name, action)
}
