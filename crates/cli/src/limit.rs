//! `quorate limit`: rate limits of a node's clients, and of calls to dependencies.

use clap::Subcommand;
use serde_json::{Value, json};

use crate::{
    client::{Call, Client, JSON, Target},
    exit::Failure,
    output::{Column, Format, cell, print},
    pages::{HowMany, list},
};

/// Verbs on rate limits.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// List rate limits by name
    List {
        #[command(flatten)]
        how_many: HowMany,
    },
    /// How a rate limit stands
    Show {
        /// The limit: a dependency's name, `http/clients` or `http/tenants`
        name: String,
    },
    /// Forget what was taken from a rate limit, by everybody
    Reset {
        /// The limit
        name: String,
    },
}

impl Command {
    /// Does what was asked.
    pub(crate) async fn run(self, client: &Client, format: Format) -> Result<(), Failure> {
        let call = match self {
            Self::List { how_many } => {
                let all = list(client, Target::path(&["v1", "limits"]), "limits", how_many).await?;
                return show(&all, &json!({ "limits": all }), format);
            }
            Self::Show { name } => Call::get(Target::path(&["v1", "limits", &name])),
            Self::Reset { name } => Call::post(Target::path(&["v1", "limits", &name, "reset"]), JSON, "{}"),
        };
        let limit = client.call(&call).await?.json(client.server())?;
        show(std::slice::from_ref(&limit), &limit, format)
    }
}

fn show(all: &[Value], whole: &Value, format: Format) -> Result<(), Failure> {
    let columns = [
        Column::Left("LIMIT"),
        Column::Left("OF"),
        Column::Right("REQUESTS"),
        Column::Right("IN MS"),
        Column::Right("BURST"),
        Column::Left("COUNTED BY"),
        Column::Right("REFUSED"),
        Column::Right("KEYS"),
        Column::Right("LEFT"),
    ];
    let cells = |limit: &Value| {
        ["name", "of", "requests", "window-ms", "burst", "count", "refused", "keys", "remaining"]
            .map(|member| cell(&limit[member]))
    };
    print(all, whole, (columns, cells), format)
}
