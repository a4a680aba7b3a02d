//! `quorate queue`: message queues.

mod declare;
mod schedule;
mod send;
mod show;
mod subscribe;

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    client::{Call, Client, JSON, Target},
    exit::Failure,
    input,
    output::Format,
    pages::{HowMany, list, positive},
    settling::{self, Held, span, with_span},
};

/// Verbs on message queues.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Declare a queue, or change how it is; what is not said has the node's default
    Declare(Box<declare::Declare>),
    /// List queues by name
    List {
        #[command(flatten)]
        how_many: HowMany,
    },
    /// How a queue stands: how many messages are ready, waiting, in flight and parked, and how old the oldest is
    Show {
        /// The queue
        name: String,
    },
    /// Delete a queue with all its messages
    Delete {
        /// The queue
        name: String,
    },
    /// Send a message
    Send(Box<send::Send>),
    /// Take messages to work on, each under a lease
    Receive {
        /// The queue
        name: String,
        /// How many messages at most
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
        max: usize,
        /// How long to wait for the first one
        #[arg(long, value_name = "SPAN", default_value = "0s", value_parser = crate::span)]
        wait: Duration,
        /// How long to hold them; without it, as the configuration says
        #[arg(long, value_name = "SPAN", value_parser = crate::span)]
        ttl: Option<Duration>,
    },
    /// Take messages as they come, each under a lease
    Subscribe(subscribe::Subscribe),
    /// Have a message sent by the clock
    Schedule(Box<schedule::Schedule>),
    /// List a queue's schedules, and when each is due next
    Schedules {
        /// The queue
        name: String,
        #[command(flatten)]
        how_many: HowMany,
    },
    /// Delete a schedule; messages that it sent stay
    Unschedule {
        /// The queue
        queue: String,
        /// The schedule
        name: String,
    },
    /// Settle messages: they are done
    Ack {
        #[command(flatten)]
        held: Held,
    },
    /// Give messages back after a failure
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
    /// Hold messages for longer
    Extend {
        #[command(flatten)]
        held: Held,
        /// How long from now on; without it, as the configuration says
        #[arg(long, value_name = "SPAN", value_parser = crate::span)]
        ttl: Option<Duration>,
    },
    /// Set messages aside as dead letters
    Park {
        #[command(flatten)]
        held: Held,
        /// Why, for people to read
        #[arg(long, value_name = "WHY", default_value = "")]
        reason: String,
    },
    /// List dead letters in the order in which they were sent
    Parked {
        /// The queue
        name: String,
        #[command(flatten)]
        how_many: HowMany,
    },
    /// Let dead letters be handed out again, in their old places
    Replay {
        #[command(flatten)]
        selected: Selected,
        /// One of them, saying something else: a CloudEvent of its id and source as JSON, `@FILE`, or `-` for standard input
        #[arg(long, value_name = "JSON|@FILE|-", conflicts_with_all = ["id", "group", "kind", "all"])]
        event: Option<String>,
    },
    /// Give dead letters up
    Discard {
        #[command(flatten)]
        selected: Selected,
    },
}

/// Which dead letters.
#[derive(Args, Debug)]
pub(crate) struct Selected {
    /// The queue
    name: String,
    /// The one with this id
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Those of this group
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Those of this type
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// All of them
    #[arg(long, conflicts_with_all = ["id", "group", "kind"])]
    all: bool,
}

impl Command {
    /// Does what was asked.
    pub(crate) async fn run(self, client: &Client, format: Format) -> Result<(), Failure> {
        match self {
            Self::Declare(declare) => {
                let call = Call::post(route(&declare.name, None), JSON, declare.config().to_string()).put();
                show::queue(&client.answer(&call).await?, format)
            }
            Self::List { how_many } => {
                let queues = list(client, Target::path(&["v1", "queues"]), "queues", how_many).await?;
                show::queues(&queues, format)
            }
            Self::Show { name } => show::queue(&client.answer(&Call::get(route(&name, None))).await?, format),
            Self::Delete { name } => show::deleted(&client.answer(&Call::delete(route(&name, None))).await?, format),
            Self::Send(send) => send.run(client, format).await,
            Self::Receive { name, max, wait, ttl } => {
                let body = with_span(json!({ "max": max, "wait": span(wait) }), "ttl", ttl);
                let call = Call::post(route(&name, Some("receive")), JSON, body.to_string());
                let client = client.clone().waiting(wait);
                show::deliveries(&client.call(&call).await?, client.server(), format)
            }
            Self::Subscribe(subscribe) => subscribe.run(client, format).await,
            Self::Schedule(schedule) => schedule.run(client, format).await,
            Self::Schedules { name, how_many } => {
                let all = list(client, schedule::route(&name, None), "schedules", how_many).await?;
                show::schedules(&all, &json!({ "schedules": all }), format)
            }
            Self::Unschedule { queue, name } => {
                let gone = client.answer(&Call::delete(schedule::route(&queue, Some(&name)))).await?;
                show::unscheduled(&gone, format)
            }
            Self::Ack { held } => held.settle(client, ("queues", "ack"), json!({}), format).await,
            Self::Nack { held, delay, reason } => {
                let how = with_span(json!({ "reason": reason }), "delay", delay);
                held.settle(client, ("queues", "nack"), how, format).await
            }
            Self::Extend { held, ttl } => {
                held.settle(client, ("queues", "extend"), with_span(json!({}), "ttl", ttl), format).await
            }
            Self::Park { held, reason } => {
                held.settle(client, ("queues", "park"), json!({ "reason": reason }), format).await
            }
            Self::Parked { name, how_many } => {
                show::parked(&list(client, route(&name, Some("parked")), "parked", how_many).await?, format)
            }
            Self::Replay { selected, event: None } => selected.act(client, "replay", format).await,
            Self::Replay { selected, event: Some(text) } => {
                let event = read(&text, client).await?;
                let event = String::from_utf8_lossy(&event);
                let body = format!("{{\"event\":{}}}", event.trim());
                let call = Call::post(route(&selected.name, Some("replay")), JSON, body);
                show::count(&client.answer(&call).await?, "messages", format)
            }
            Self::Discard { selected } => selected.act(client, "discard", format).await,
        }
    }
}

impl Selected {
    async fn act(self, client: &Client, action: &str, format: Format) -> Result<(), Failure> {
        let members = [("id", self.id), ("group", self.group), ("type", self.kind)];
        let mut which: Value = members.into_iter().filter_map(|(name, text)| Some((name, text?))).collect();
        if self.all {
            which["all"] = true.into();
        }
        let call = Call::post(route(&self.name, Some(action)), JSON, which.to_string());
        show::count(&client.answer(&call).await?, "messages", format)
    }
}

/// What an argument stands for: itself, a file's content after `@`, or standard input.
async fn read(text: &str, client: &Client) -> Result<Vec<u8>, Failure> {
    let from = if text == "-" { Some("-") } else { text.strip_prefix('@') };
    match from {
        Some(path) => input::read(path, client.env()).await,
        None => Ok(text.as_bytes().to_vec()),
    }
}

/// `/v1/queues/{name}`, or `/v1/queues/{name}/{action}`
fn route(name: &str, action: Option<&str>) -> Target {
    settling::route("queues", name, action)
}
