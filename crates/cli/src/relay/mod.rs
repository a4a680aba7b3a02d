//! `quorate relay`: what of the log is published to brokers, as the configuration of the node says.

mod show;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    client::{Call, Client, JSON, Target},
    exit::Failure,
    output::Format,
    pages::{HowMany, list},
    subscription,
};

/// Verbs on relays.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// List relays by name
    List {
        #[command(flatten)]
        how_many: HowMany,
    },
    /// How a relay stands: state, lag, what is parked, what went wrong last
    Show {
        /// The relay
        name: String,
    },
    /// Publish nothing until it is resumed, also after a restart and at every node over the store
    Pause {
        /// The relay
        name: String,
        /// Why, for people to read
        #[arg(long, value_name = "WHY", default_value = "")]
        reason: String,
    },
    /// Publish again, from where it was
    Resume {
        /// The relay
        name: String,
    },
    /// Try the broker again at once, whatever the relay rests for
    Wake {
        /// The relay
        name: String,
    },
    /// List parked events in order of position
    Parked {
        /// The relay
        name: String,
        /// Begin behind this position
        #[arg(long, value_name = "POSITION", default_value_t = 0)]
        after: u64,
        #[command(flatten)]
        how_many: HowMany,
    },
    /// Let parked events be published again, in order
    Replay(Selected),
    /// Give parked events up
    Discard(Selected),
}

/// Which parked events.
#[derive(Args, Debug)]
pub(crate) struct Selected {
    /// The relay
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
            Self::List { how_many } => {
                show::relays(&list(client, Target::path(&["v1", "relays"]), "relays", how_many).await?, format)
            }
            Self::Show { name } => show::relay(&answer(client, &Call::get(route(&name, None))).await?, format),
            Self::Pause { name, reason } => {
                show::relay(&act(client, (&name, "pause"), &json!({ "reason": reason })).await?, format)
            }
            Self::Resume { name } => show::relay(&act(client, (&name, "resume"), &json!({})).await?, format),
            Self::Wake { name } => show::relay(&act(client, (&name, "wake"), &json!({})).await?, format),
            Self::Parked { name, after, how_many } => {
                let target = route(&name, Some("parked")).with("after", after);
                subscription::show::parked(&list(client, target, "parked", how_many).await?, format)
            }
            Self::Replay(selected) => selected.act(client, "replay", format).await,
            Self::Discard(selected) => selected.act(client, "discard", format).await,
        }
    }
}

impl Selected {
    async fn act(self, client: &Client, action: &str, format: Format) -> Result<(), Failure> {
        let which = self.key.map_or_else(|| json!({ "all": true }), |key| json!({ "key": key }));
        subscription::show::count(&act(client, (&self.name, action), &which).await?, "events", format)
    }
}

async fn act(client: &Client, (name, action): (&str, &str), how: &Value) -> Result<Value, Failure> {
    answer(client, &Call::post(route(name, Some(action)), JSON, how.to_string())).await
}

async fn answer(client: &Client, call: &Call) -> Result<Value, Failure> {
    Ok(client.call(call).await?.json(client.server())?)
}

/// `/v1/relays/{name}`, or `/v1/relays/{name}/{action}`
fn route(name: &str, action: Option<&str>) -> Target {
    let segments: Vec<&str> = ["v1", "relays", name].into_iter().chain(action).collect();
    Target::path(&segments)
}
