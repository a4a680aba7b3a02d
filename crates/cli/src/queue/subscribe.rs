//! Taking messages as they come.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::{route, span};
use crate::{
    client::{Client, ClientError, Follow, Follower},
    exit::Failure,
    output::{Format, Out, cell, note},
    pages::positive,
};

/// Takes messages as they come, each under a lease, one per line.
#[derive(Args, Debug)]
pub(crate) struct Subscribe {
    /// The queue
    name: String,
    /// How many messages are held at most: those that are not settled, and whose leases run
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = positive)]
    window: usize,
    /// How long to hold each; without it, as the configuration says
    #[arg(long, value_name = "SPAN", value_parser = crate::span)]
    ttl: Option<Duration>,
    /// End after so many messages
    #[arg(long, value_name = "N", value_parser = positive)]
    limit: Option<usize>,
    /// How long to keep dialling a node that went away
    #[arg(long, value_name = "SPAN", default_value = "5m", value_parser = crate::span)]
    patience: Duration,
    /// Silence after which a connection counts as broken; longer than the node's `http.heartbeat`
    #[arg(long, value_name = "SPAN", default_value = "45s", value_parser = crate::span)]
    silence: Duration,
}

impl Subscribe {
    /// Takes messages, and prints them: for programs what was sent, byte for byte.
    pub(super) async fn run(self, client: &Client, format: Format) -> Result<(), Failure> {
        let mut target = route(&self.name, Some("subscribe")).with("window", self.window.to_string());
        if let Some(ttl) = self.ttl {
            target = target.with("ttl", span(ttl));
        }
        let Self { silence, patience, limit, .. } = self;
        let mut follower = Follower::new(client, Follow { target: target.into(), silence, patience });
        let (mut out, mut told) = (Out::new(), 0);
        while limit.is_none_or(|limit| told < limit) {
            let one = follower.next(&mut |text| note(text)).await?;
            if one.event != "message" {
                continue;
            }
            told += 1;
            match format {
                Format::Json => out.line(&one.data)?,
                Format::Table => {
                    let shown: Value = serde_json::from_str(&one.data).map_err(|wrong| ClientError::Strange {
                        server: client.server().clone(),
                        what: format!("a message that is none: {wrong}"),
                    })?;
                    let event = &shown["event"];
                    let cells = [&shown["lease"], &shown["attempt"], &shown["group"], &event["id"], &event["type"]];
                    out.line(&cells.map(cell).join("  "))?;
                }
            }
            out.flush()?;
        }
        Ok(())
    }
}
