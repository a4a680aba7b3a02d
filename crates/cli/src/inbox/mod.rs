//! `quorate inbox`: which messages of others come in, as the configuration of the node says.

mod show;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    client::{Call, Client, JSON, Target},
    exit::Failure,
    output::Format,
    pages::{HowMany, list},
};

/// Verbs on inboxes.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// List inboxes by name
    List {
        #[command(flatten)]
        how_many: HowMany,
    },
    /// How an inbox stands: state, what it did, what is parked, what went wrong last
    Show {
        /// The inbox
        name: String,
    },
    /// List parked messages in order
    Parked {
        /// The inbox
        name: String,
        /// Begin behind this place
        #[arg(long, value_name = "PLACE", default_value_t = 0)]
        after: u64,
        #[command(flatten)]
        how_many: HowMany,
    },
    /// Take parked messages in again, of each key in order, until one fails
    Replay(Selected),
    /// Give parked messages up: they never take effect, also if they come again
    Discard(Selected),
}

/// Which parked messages.
#[derive(Args, Debug)]
pub(crate) struct Selected {
    /// The inbox
    name: String,
    #[command(flatten)]
    which: Which,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Which {
    /// Those of this key
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// This one; replaying it replays what is parked before it in its key, too
    #[arg(long, value_name = "IDENTITY")]
    identity: Option<String>,
    /// All of them
    #[arg(long)]
    all: bool,
}

impl Command {
    /// Does what was asked.
    pub(crate) async fn run(self, client: &Client, format: Format) -> Result<(), Failure> {
        match self {
            Self::List { how_many } => {
                show::inboxes(&list(client, Target::path(&["v1", "inboxes"]), "inboxes", how_many).await?, format)
            }
            Self::Show { name } => show::inbox(&answer(client, &Call::get(route(&name, None))).await?, format),
            Self::Parked { name, after, how_many } => {
                let target = route(&name, Some("parked")).with("after", after);
                show::parked(&list(client, target, "parked", how_many).await?, format)
            }
            Self::Replay(selected) => show::replayed(&selected.act(client, "replay").await?, format),
            Self::Discard(selected) => show::discarded(&selected.act(client, "discard").await?, format),
        }
    }
}

impl Selected {
    async fn act(self, client: &Client, action: &str) -> Result<Value, Failure> {
        let which = match self.which {
            Which { key: Some(key), .. } => json!({ "key": key }),
            Which { identity: Some(identity), .. } => json!({ "identity": identity }),
            Which { .. } => json!({ "all": true }),
        };
        answer(client, &Call::post(route(&self.name, Some(action)), JSON, which.to_string())).await
    }
}

async fn answer(client: &Client, call: &Call) -> Result<Value, Failure> {
    Ok(client.call(call).await?.json(client.server())?)
}

/// `/v1/inboxes/{name}`, or `/v1/inboxes/{name}/{action}`
fn route(name: &str, action: Option<&str>) -> Target {
    let segments: Vec<&str> = ["v1", "inboxes", name].into_iter().chain(action).collect();
    Target::path(&segments)
}
