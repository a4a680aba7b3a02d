//! `quorate request`: requests with an answer, and messages without one.

mod send;
mod serve;
mod show;
mod status;

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    client::{Call, Client, JSON, Target},
    exit::Failure,
    output::Format,
    pages::{HowMany, list},
    settling::{self, with_span},
};

/// Verbs on requests and their types.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Declare a type of requests, or change it from now on; what is not said has the node's default
    Declare(Declare),
    /// List types of requests by name, and how they stand at the node
    List {
        #[command(flatten)]
        how_many: HowMany,
    },
    /// What callers and responders of a type agree on, and how it stands at the node
    Show {
        /// The type
        name: String,
    },
    /// Delete a type of requests; its responders leave
    Delete {
        /// The type
        name: String,
    },
    /// Ask, and print the answer byte for byte
    ///
    /// Whoever waits is told by `--deadline` at the latest what became of it: exits with 1 if the responder says no, with 4 if nobody
    /// has begun on it, and with 5 if it may have been done. A request of a durable type is kept, and what is printed says its id: `status` tells what became of it.
    Send(send::Send),
    /// What became of a durable request
    ///
    /// With `--answer`, exits with 1 if it has none, with 4 if it has none yet, and with 5 if it was settled without one.
    Status(status::Status),
    /// Answer requests by running a command for each: the request is its standard input, its standard output the answer
    ///
    /// A command that exits with another code than 0 has no answer: the fault `exit-N`, with the end of what it wrote to standard error. An
    /// answer of more than 1 MiB is the fault `answer-too-long`, one that the node does not take `answer-refused`; the request was done
    /// then. One that is killed leaves its caller not knowing. At the deadline, and when the caller leaves, the command is killed with all that it
    /// started. It finds in its environment REQUEST, REQUEST_TIMEOUT (what is left, as `1500m`), and REQUEST_CONTENT_TYPE.
    Serve(serve::Serve),
}

/// What a type is.
#[derive(Args, Debug)]
pub(crate) struct Declare {
    /// The type
    name: String,
    /// How long one is worked on and waited for at most
    #[arg(long, value_name = "SPAN", value_parser = crate::span)]
    time_limit: Option<Duration>,
    /// Doing it twice is as doing it once: what is unknown may be repeated
    #[arg(long, conflicts_with = "best_effort")]
    idempotent: bool,
    /// There is no answer: it is handed to a responder that is there, or lost
    #[arg(long)]
    best_effort: bool,
    /// The request is kept in the queue of the type's name until it is answered, and the answer for as long as the queue remembers ids
    #[arg(long, conflicts_with_all = ["idempotent", "best_effort"])]
    durable: bool,
}

impl Command {
    /// Does what was asked.
    pub(crate) async fn run(self, client: &Client, format: Format) -> Result<(), Failure> {
        match self {
            Self::Declare(Declare { name, time_limit, idempotent, best_effort, durable }) => {
                let exchange = match (best_effort, durable) {
                    (true, _) => "best-effort",
                    (_, true) => "durable",
                    _ => "answer",
                };
                let config =
                    with_span(json!({ "exchange": exchange, "idempotent": idempotent }), "time-limit", time_limit);
                let call = Call::post(route(&name, None), JSON, config.to_string()).put();
                show::kind(&client.answer(&call).await?, format)
            }
            Self::List { how_many } => {
                let target = Target::path(&["v1", "request-types"]);
                show::kinds(&list(client, target, "request-types", how_many).await?, format)
            }
            Self::Show { name } => show::kind(&client.answer(&Call::get(route(&name, None))).await?, format),
            Self::Delete { name } => show::deleted(&client.answer(&Call::delete(route(&name, None))).await?, format),
            Self::Send(send) => send.run(client).await,
            Self::Status(status) => status.run(client, format).await,
            Self::Serve(serve) => serve.run(client, format).await,
        }
    }
}

/// `/v1/request-types/{name}`, or `/v1/request-types/{name}/{action}`
fn route(name: &str, action: Option<&str>) -> Target {
    settling::route("request-types", name, action)
}
