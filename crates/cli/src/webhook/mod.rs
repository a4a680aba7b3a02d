//! `quorate webhook`: services that are called with every event they asked for.

mod declare;
mod show;

use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use crate::{
    client::{Call, Client, JSON, Target},
    exit::{Exit, Failure},
    input,
    output::Format,
    pages::{HowMany, list},
    settling::{self, Selected, span},
    subscription,
};

/// Verbs on webhooks.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Declare a webhook, or change how it is; the same again changes nothing
    ///
    /// Prints the secret of a new one, which is shown this once. What is not said has the node's default, also for a webhook that is
    /// there: say all of it again.
    Declare(Box<declare::Declare>),
    /// List webhooks by name
    List {
        #[command(flatten)]
        how_many: HowMany,
    },
    /// How a webhook stands: state, lag, what rests and is parked
    Show {
        /// The webhook
        name: String,
    },
    /// Delete a webhook with all that is known of it
    Delete {
        /// The webhook
        name: String,
    },
    /// Send events again, from where it was
    Enable {
        /// The webhook
        name: String,
    },
    /// Send nothing until it is enabled; its events wait
    Disable {
        /// The webhook
        name: String,
        /// Why, for people to read
        #[arg(long, value_name = "WHY", default_value = "")]
        reason: String,
    },
    /// Sign with another secret, and for a while with those before; prints the new one
    Rotate {
        /// The webhook
        name: String,
        /// The file that holds the new secret, `-` for standard input; without it one is drawn
        #[arg(long, value_name = "FILE")]
        secret_file: Option<String>,
        /// How long those before sign as well
        #[arg(long, value_name = "SPAN", value_parser = crate::span)]
        overlap: Option<Duration>,
    },
    /// Send an event that is in no log, once; exits with 1 if it is not taken
    Test {
        /// The webhook
        name: String,
    },
    /// List the last attempts, the newest first
    Attempts {
        /// The webhook
        name: String,
        #[command(flatten)]
        how_many: HowMany,
    },
    /// List parked events in order of position
    Parked {
        /// The webhook
        name: String,
        /// Begin behind this position
        #[arg(long, value_name = "POSITION", default_value_t = 0)]
        after: u64,
        #[command(flatten)]
        how_many: HowMany,
    },
    /// Let parked events be sent again, in order
    Replay(Selected),
    /// Give parked events up
    Discard(Selected),
}

impl Command {
    /// Does what was asked.
    pub(crate) async fn run(self, client: &Client, format: Format) -> Result<(), Failure> {
        match self {
            Self::Declare(declare) => {
                let document = declare.document(client).await?;
                let call = Call::post(route(&declare.name, None), JSON, document.to_string()).put();
                show::webhook(&client.answer(&call).await?, format)
            }
            Self::List { how_many } => {
                let webhooks = list(client, Target::path(&["v1", "webhooks"]), "webhooks", how_many).await?;
                show::webhooks(&webhooks, format)
            }
            Self::Show { name } => show::webhook(&client.answer(&Call::get(route(&name, None))).await?, format),
            Self::Delete { name } => show::deleted(&client.answer(&Call::delete(route(&name, None))).await?, format),
            Self::Enable { name } => show::webhook(&act(client, (&name, "enable"), &json!({})).await?, format),
            Self::Disable { name, reason } => {
                show::webhook(&act(client, (&name, "disable"), &json!({ "reason": reason })).await?, format)
            }
            Self::Rotate { name, secret_file, overlap } => {
                let mut how = json!({});
                if let Some(secret) = secret(client, secret_file.as_deref()).await? {
                    how["secret"] = secret.into();
                }
                if let Some(overlap) = overlap {
                    how["overlap"] = span(overlap).into();
                }
                show::secret(&act(client, (&name, "secrets"), &how).await?, format)
            }
            Self::Test { name } => {
                let tested = act(client, (&name, "test"), &json!({})).await?;
                show::tested(&tested, format)?;
                if tested["delivered"] == true {
                    return Ok(());
                }
                Err(Failure::new(Exit::Refused, format!("`{name}` did not take the event")))
            }
            Self::Attempts { name, how_many } => {
                let attempts = list(client, route(&name, Some("attempts")), "attempts", how_many).await?;
                show::attempts(&attempts, format)
            }
            Self::Parked { name, after, how_many } => {
                let target = route(&name, Some("parked")).with("after", after);
                subscription::show::parked(&list(client, target, "parked", how_many).await?, format)
            }
            Self::Replay(selected) => selected.act(client, ("webhooks", "replay"), format).await,
            Self::Discard(selected) => selected.act(client, ("webhooks", "discard"), format).await,
        }
    }
}

/// The secret in a file, without what stands around it.
pub(crate) async fn secret(client: &Client, file: Option<&str>) -> Result<Option<String>, Failure> {
    let Some(file) = file else { return Ok(None) };
    let bytes = input::read(file, client.env()).await?;
    let text = String::from_utf8(bytes).map_err(|_| Failure::new(Exit::BadInput, format!("{file} is not UTF-8")))?;
    Ok(Some(text.trim().to_owned()))
}

async fn act(client: &Client, (name, action): (&str, &str), how: &Value) -> Result<Value, Failure> {
    settling::act(client, ("webhooks", name, action), how).await
}

/// `/v1/webhooks/{name}`, or `/v1/webhooks/{name}/{action}`
fn route(name: &str, action: Option<&str>) -> Target {
    settling::route("webhooks", name, action)
}
