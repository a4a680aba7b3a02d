//! `quorate breaker`: how circuit breakers stand, and what is asked of them.

use clap::Subcommand;
use serde_json::json;

use crate::{
    client::{Call, Client, JSON},
    collection::Collection,
    exit::Failure,
    output::{Column, Format},
    pages::HowMany,
};

/// Verbs on circuit breakers.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// List circuit breakers by name
    List {
        #[command(flatten)]
        how_many: HowMany,
    },
    /// How a circuit breaker stands
    Show {
        /// The breaker: a dependency's name, or `dependency/endpoint/operation`
        name: String,
    },
    /// Force a circuit open: everything is refused until `quorate breaker close`. What is asked of a dependency's own circuit
    /// holds for those of its endpoints and operations as well
    Open {
        /// The breaker: a dependency's name, or `dependency/endpoint/operation`
        name: String,
    },
    /// Close a circuit, forget what was counted, and let it follow its rules. A dependency's own closes those of its endpoints and
    /// operations as well; what was asked of one of these by itself stays
    Close {
        /// The breaker: a dependency's name, or `dependency/endpoint/operation`
        name: String,
    },
    /// Close a circuit and forget what was counted, also of its endpoints and operations; the mode of each stays
    Reset {
        /// The breaker: a dependency's name, or `dependency/endpoint/operation`
        name: String,
    },
    /// Let everything pass, and count nothing, until `quorate breaker close`
    Disable {
        /// The breaker: a dependency's name, or `dependency/endpoint/operation`
        name: String,
    },
    /// Follow the rules and say so, but refuse nothing, until `quorate breaker close`
    Observe {
        /// The breaker: a dependency's name, or `dependency/endpoint/operation`
        name: String,
    },
}

impl Command {
    /// Does what was asked.
    pub(crate) async fn run(self, client: &Client, format: Format) -> Result<(), Failure> {
        let breakers = breakers();
        let mode = |name: &str, mode: &str| {
            Call::post(breakers.at(name, Some("mode")), JSON, json!({ "mode": mode }).to_string()).put()
        };
        let reset = |name: &str| Call::post(breakers.at(name, Some("reset")), JSON, "{}");
        let call = match self {
            Self::List { how_many } => return breakers.list(client, how_many, format).await,
            Self::Show { name } => Call::get(breakers.at(&name, None)),
            Self::Open { name } => mode(&name, "forced-open"),
            Self::Disable { name } => mode(&name, "disabled"),
            Self::Observe { name } => mode(&name, "metrics-only"),
            Self::Close { name } => {
                client.call(&mode(&name, "automatic")).await?;
                reset(&name)
            }
            Self::Reset { name } => reset(&name),
        };
        breakers.ask(client, &call, format).await
    }
}

fn breakers() -> Collection<8> {
    let columns = [
        Column::Left("BREAKER"),
        Column::Left("STATE"),
        Column::Left("MODE"),
        Column::Right("CALLS"),
        Column::Right("FAILURES"),
        Column::Right("SLOW"),
        Column::Right("REFUSED"),
        Column::Right("REMAINING MS"),
    ];
    let members = ["name", "state", "mode", "calls", "failures", "slow", "refused", "remaining-ms"];
    Collection { name: "breakers", columns, members }
}
