//! `quorate view follow`: the rows of a table as they change.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, value::RawValue};

use super::query::spelled;
use crate::{
    client::{Client, ClientError, Follow, Follower, Target, Told},
    exit::Failure,
    output::{Format, Out, note},
};

/// Follows a table: all rows first, then each that is inserted, updated or deleted, one per line.
#[derive(Args, Debug)]
pub(crate) struct Following {
    /// The view
    name: String,
    /// The table
    #[arg(long, value_name = "TABLE")]
    table: String,
    /// A condition, as of `quorate view query`
    #[arg(long = "where", value_name = "CONDITION")]
    conditions: Vec<String>,
    /// The columns to show, with commas; all of them without it
    #[arg(long, value_name = "COLUMNS")]
    columns: Option<String>,
    /// Go on behind what was told with this cursor
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// End once all rows, or all changes, were told
    #[arg(long)]
    until_caught_up: bool,
    /// How long to keep dialling a node that went away
    #[arg(long, value_name = "SPAN", default_value = "5m", value_parser = crate::span)]
    patience: Duration,
    /// Silence after which a connection counts as broken; longer than the node's `http.heartbeat`
    #[arg(long, value_name = "SPAN", default_value = "45s", value_parser = crate::span)]
    silence: Duration,
}

impl Following {
    /// Follows, and prints what is told.
    pub(super) async fn run(self, client: &Client, format: Format) -> Result<(), Failure> {
        let mut target = Target::path(&["v1", "views", &self.name, "tables", &self.table, "follow"]);
        for condition in &self.conditions {
            target = target.with("where", spelled(condition)?);
        }
        for (name, value) in [("columns", &self.columns), ("after", &self.after)] {
            if let Some(value) = value {
                target = target.with(name, value);
            }
        }
        let Self { silence, patience, .. } = self;
        let mut follower = Follower::new(client, Follow { target: target.into(), silence, patience });
        let mut out = Out::new();
        loop {
            let told = follower.next(&mut |text| note(text)).await?;
            print(client, &mut out, &told, format)?;
            if self.until_caught_up && told.event == "caught-up" {
                return out.flush();
            }
        }
    }
}

/// What a message holds, as it was sent.
#[derive(serde::Deserialize)]
struct Message<'m> {
    #[serde(borrow, default)]
    key: Option<&'m RawValue>,
    #[serde(borrow, default)]
    row: Option<&'m RawValue>,
    #[serde(default)]
    change: String,
}

fn print(client: &Client, out: &mut Out, told: &Told, format: Format) -> Result<(), Failure> {
    let strange = |wrong: serde_json::Error| ClientError::Strange {
        server: client.server().clone(),
        what: format!("a change that is none: {wrong}"),
    };
    match (&*told.event, format) {
        ("row" | "gone" | "reset" | "caught-up", Format::Json) => {
            // Everything is told, so that a program that keeps rows knows when to forget them, and where to go on.
            out.line(&format!("{{\"event\":\"{}\",\"data\":{}}}", told.event, told.data))?;
        }
        ("row" | "gone", Format::Table) => {
            let Message { key, row, change } = serde_json::from_str(&told.data).map_err(strange)?;
            let shown = row.or(key).map_or("", RawValue::get);
            out.line(&format!("{change:<8}  {shown}"))?;
        }
        ("reset", Format::Table) => {
            let why: Value = serde_json::from_str(&told.data).map_err(strange)?;
            note(&format!("all rows follow: {}", why["reason"].as_str().unwrap_or("begun")));
        }
        _ => return Ok(()),
    }
    out.flush()
}
