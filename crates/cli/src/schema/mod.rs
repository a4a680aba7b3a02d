//! `quorate schema`: the schemas of event types.

mod show;

use clap::{Args, Subcommand, builder::PossibleValuesParser};
use quorate_data::schema::Compatibility;
use serde_json::{Value, json};

use crate::{
    client::{Call, Client, JSON, Target},
    exit::{Exit, Failure},
    input,
    output::Format,
    pages::{HowMany, list},
};

/// Verbs on schemas.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Register a schema as the next version of an event type; the same again changes nothing
    Register(Sent),
    /// List event types that have a schema
    List {
        #[command(flatten)]
        how_many: HowMany,
    },
    /// An event type's versions, or with --version the schema itself
    #[command(disable_version_flag = true)]
    Show {
        /// The event type
        #[arg(value_name = "TYPE")]
        event_type: String,
        /// Which version's schema to print
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        version: Option<u32>,
    },
    /// Say whether a schema could be registered, and what stands in its way; exits with 1 if something does
    Check(Sent),
    /// Say what registrations of an event type have to keep from now on
    Mode {
        /// The event type
        #[arg(value_name = "TYPE")]
        event_type: String,
        /// The mode
        #[arg(value_parser = modes())]
        mode: String,
    },
}

/// A schema for an event type.
#[derive(Args, Debug)]
pub(crate) struct Sent {
    /// The event type
    #[arg(value_name = "TYPE")]
    event_type: String,
    /// The file with the JSON Schema; `-` is standard input
    #[arg(value_name = "FILE|-")]
    file: String,
    /// What this one has to keep, where that is not the mode of its type
    #[arg(long, value_parser = modes())]
    mode: Option<String>,
}

fn modes() -> PossibleValuesParser {
    Compatibility::ALL.map(Compatibility::as_str).into()
}

impl Command {
    /// Does what was asked.
    pub(crate) async fn run(self, client: &Client, format: Format) -> Result<(), Failure> {
        match self {
            Self::Register(sent) => show::registered(&sent.send(client, "versions").await?, format),
            Self::List { how_many } => {
                show::types(&list(client, Target::path(&["v1", "schemas"]), "schemas", how_many).await?, format)
            }
            Self::Show { event_type, version: None } => {
                show::versions(&client.answer(&Call::get(route(&event_type, &[]))).await?, format)
            }
            Self::Show { event_type, version: Some(version) } => {
                let target = route(&event_type, &["versions", &version.to_string()]);
                show::schema(&client.answer(&Call::get(target)).await?)
            }
            Self::Check(sent) => {
                let checked = sent.send(client, "check").await?;
                show::checked(&checked, format)?;
                if checked["compatible"] == true {
                    return Ok(());
                }
                let what = format!("the schema is not {} compatible", checked["mode"].as_str().unwrap_or_default());
                Err(Failure::new(Exit::Refused, what))
            }
            Self::Mode { event_type, mode } => {
                let call = Call::post(route(&event_type, &["mode"]), JSON, json!({ "mode": mode }).to_string()).put();
                show::mode(&client.answer(&call).await?, format)
            }
        }
    }
}

impl Sent {
    async fn send(&self, client: &Client, action: &str) -> Result<Value, Failure> {
        let bytes = input::read(&self.file, client.env()).await?;
        let name = if self.file == "-" { "standard input" } else { &self.file };
        let schema: Result<serde::de::IgnoredAny, _> = serde_json::from_slice(&bytes);
        schema.map_err(|wrong| Failure::new(Exit::BadInput, format!("{name} is not JSON: {wrong}")))?;
        let target = route(&self.event_type, &[action]).with_some("mode", self.mode.as_deref());
        client.answer(&Call::post(target, JSON, bytes)).await
    }
}

/// `/v1/schemas/{type}/…`
fn route(event_type: &str, rest: &[&str]) -> Target {
    Target::path(&[&["v1", "schemas", event_type], rest].concat())
}
