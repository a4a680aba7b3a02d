//! `quorate limit`: rate limits of a node's clients, and of calls to dependencies.

use crate::{
    client::{Call, Client, JSON},
    collection::Collection,
    exit::Failure,
    output::{Column, Format},
    pages::HowMany,
};
use clap::Subcommand;

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
        let limits = limits();
        let call = match self {
            Self::List { how_many } => return limits.list(client, how_many, format).await,
            Self::Show { name } => Call::get(limits.at(&name, None)),
            Self::Reset { name } => Call::post(limits.at(&name, Some("reset")), JSON, "{}"),
        };
        limits.ask(client, &call, format).await
    }
}

fn limits() -> Collection<9> {
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
    let members = ["name", "of", "requests", "window-ms", "burst", "count", "refused", "keys", "remaining"];
    Collection { name: "limits", columns, members }
}
