//! What streams keep: metadata and archives.

use std::{collections::BTreeMap, time::Duration};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{append::Expect, route};
use crate::{
    client::{Call, Client, JSON},
    exit::{Exit, Failure},
    output::{Column, Format, Out, Table},
    store::LONG,
};

/// Verbs on a stream's metadata.
#[derive(Subcommand, Debug)]
pub(crate) enum Metadata {
    /// Show a stream's metadata: what it keeps, and values of your own
    Get {
        /// The stream
        stream: String,
    },
    /// Set a stream's metadata as a whole: what is not given here is no longer in them
    Set(Set),
}

/// What to set.
#[derive(Args, Debug)]
pub(crate) struct Set {
    /// The stream; it need not exist yet
    stream: String,
    /// Keep the newest so many events
    #[arg(long, value_name = "EVENTS", value_parser = clap::value_parser!(u64).range(1..))]
    max_count: Option<u64>,
    /// Keep events that were recorded at most so long ago, as `30days`
    #[arg(long, value_name = "SPAN", value_parser = crate::span)]
    max_age: Option<Duration>,
    /// A value of your own; can be repeated
    #[arg(long = "value", value_name = "KEY=VALUE")]
    values: Vec<String>,
    /// What the metadata must be like: their version, `none` (never set), `exists` or `any`
    #[arg(long, value_name = "WHAT", default_value = "any")]
    expect: Expect,
}

impl Metadata {
    /// Does what was asked.
    pub(crate) async fn run(self, client: &Client, format: Format) -> Result<(), Failure> {
        let call = match self {
            Self::Get { stream } => Call::get(route(&stream, "metadata")),
            Self::Set(set) => set.call()?,
        };
        let found = client.call(&call).await?.json(client.server())?;
        show(&found, format)
    }
}

impl Set {
    fn call(&self) -> Result<Call, Failure> {
        let mut document = json!({ "values": values(&self.values)? });
        if let Some(count) = self.max_count {
            document["max-count"] = count.into();
        }
        if let Some(age) = self.max_age {
            document["max-age"] = humantime_serde::re::humantime::format_duration(age).to_string().into();
        }
        self.expect.apply(Call::post(route(&self.stream, "metadata"), JSON, document.to_string()).put())
    }
}

fn values(pairs: &[String]) -> Result<BTreeMap<&str, &str>, Failure> {
    let mut values = BTreeMap::new();
    for pair in pairs {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(Failure::new(Exit::Usage, format!("`--value {pair}` is not KEY=VALUE")));
        };
        if values.insert(key, value).is_some() {
            return Err(Failure::new(Exit::Usage, format!("`--value {key}=…` stands there twice")));
        }
    }
    Ok(values)
}

fn show(found: &Value, format: Format) -> Result<(), Failure> {
    let mut out = Out::new();
    if format == Format::Json {
        out.json(found)?;
        return out.flush();
    }
    let mut table = Table::new([Column::Left("KEY"), Column::Left("VALUE")]);
    for member in ["stream", "metadataversion", "max-count", "max-age"] {
        if let Some(text) = found[member].as_str() {
            table.row([member, text]);
        }
    }
    for (key, value) in found["values"].as_object().into_iter().flatten() {
        table.row([format!("values.{key}").as_str(), value.as_str().unwrap_or_default()]);
    }
    table.print(&mut out)
}

/// Moves a stream's events to an archive.
pub(crate) async fn archive(
    client: &Client,
    stream: &str,
    before: Option<u64>,
    to: &str,
    format: Format,
) -> Result<(), Failure> {
    let client = client.clone().with_deadline(LONG);
    let mut document = json!({ "to": to });
    if let Some(before) = before {
        document["before"] = before.into();
    }
    let call = Call::post(route(stream, "archive"), JSON, document.to_string());
    let made = client.call(&call).await?.json(client.server())?;
    print(std::slice::from_ref(&made), &made, format)
}

/// Lists a stream's archives.
pub(crate) async fn archives(client: &Client, stream: &str, format: Format) -> Result<(), Failure> {
    let found = client.call(&Call::get(route(stream, "archive"))).await?.json(client.server())?;
    print(found["archives"].as_array().map_or(&[], Vec::as_slice), &found, format)
}

fn print(archives: &[Value], whole: &Value, format: Format) -> Result<(), Failure> {
    let mut out = Out::new();
    if format == Format::Json {
        out.json(whole)?;
        return out.flush();
    }
    let columns = [
        Column::Right("ARCHIVE"),
        Column::Left("STREAM"),
        Column::Right("FIRST"),
        Column::Right("LAST"),
        Column::Right("BYTES"),
        Column::Left("FILE"),
    ];
    let mut table = Table::new(columns);
    for archive in archives {
        let text = |member: &str| archive[member].as_str().unwrap_or_default();
        let bytes = archive["bytes"].to_string();
        table.row([text("archiveid"), text("stream"), text("first"), text("last"), &bytes, text("path")]);
    }
    table.print(&mut out)
}
