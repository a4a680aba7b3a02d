//! `quorate breaker`: how circuit breakers stand, and what is asked of them.

use clap::Subcommand;
use serde_json::{Value, json};

use crate::{
    client::{Call, Client, JSON, Target},
    exit::Failure,
    output::{Column, Format, cell, print},
    pages::{HowMany, list},
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
        /// The breaker
        name: String,
    },
    /// Force a circuit open: everything is refused until `quorate breaker close`
    Open {
        /// The breaker
        name: String,
    },
    /// Close a circuit, forget what was counted, and let it follow its rules
    Close {
        /// The breaker
        name: String,
    },
    /// Close a circuit and forget what was counted; its mode stays
    Reset {
        /// The breaker
        name: String,
    },
    /// Let everything pass, and count nothing, until `quorate breaker close`
    Disable {
        /// The breaker
        name: String,
    },
    /// Follow the rules and say so, but refuse nothing, until `quorate breaker close`
    Observe {
        /// The breaker
        name: String,
    },
}

impl Command {
    /// Does what was asked.
    pub(crate) async fn run(self, client: &Client, format: Format) -> Result<(), Failure> {
        match self {
            Self::List { how_many } => {
                let all = list(client, Target::path(&["v1", "breakers"]), "breakers", how_many).await?;
                show(&all, &json!({ "breakers": all }), format)
            }
            Self::Show { name } => {
                let call = Call::get(Target::path(&["v1", "breakers", &name]));
                one(&answer(client, &call).await?, format)
            }
            Self::Open { name } => one(&operate(client, &name, "forced-open").await?, format),
            Self::Disable { name } => one(&operate(client, &name, "disabled").await?, format),
            Self::Observe { name } => one(&operate(client, &name, "metrics-only").await?, format),
            Self::Close { name } => {
                operate(client, &name, "automatic").await?;
                one(&reset(client, &name).await?, format)
            }
            Self::Reset { name } => one(&reset(client, &name).await?, format),
        }
    }
}

async fn answer(client: &Client, call: &Call) -> Result<Value, Failure> {
    Ok(client.call(call).await?.json(client.server())?)
}

async fn operate(client: &Client, name: &str, mode: &str) -> Result<Value, Failure> {
    let target = Target::path(&["v1", "breakers", name, "mode"]);
    answer(client, &Call::post(target, JSON, json!({ "mode": mode }).to_string()).put()).await
}

async fn reset(client: &Client, name: &str) -> Result<Value, Failure> {
    let target = Target::path(&["v1", "breakers", name, "reset"]);
    answer(client, &Call::post(target, JSON, "{}")).await
}

fn one(breaker: &Value, format: Format) -> Result<(), Failure> {
    show(std::slice::from_ref(breaker), breaker, format)
}

fn show(all: &[Value], whole: &Value, format: Format) -> Result<(), Failure> {
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
    let cells = |breaker: &Value| {
        ["name", "state", "mode", "calls", "failures", "slow", "refused", "remaining-ms"]
            .map(|member| cell(&breaker[member]))
    };
    print(all, whole, (columns, cells), format)
}
