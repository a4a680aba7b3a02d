//! What is said of leases and of parked events: by subscriptions, webhooks and queues alike.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::{
    client::{Call, Client, JSON, Target},
    exit::Failure,
    output::Format,
    subscription::show,
};

/// Events or messages in a consumer's hands.
#[derive(Args, Debug)]
pub(crate) struct Held {
    /// The subscription or queue
    name: String,
    /// The leases, as they were printed
    #[arg(required = true, value_name = "LEASE")]
    leases: Vec<String>,
}

/// Which parked events.
#[derive(Args, Debug)]
pub(crate) struct Selected {
    /// The subscription or webhook
    name: String,
    /// Those of this key
    #[arg(long, value_name = "KEY", required_unless_present = "all", conflicts_with = "all")]
    key: Option<String>,
    /// All of them
    #[arg(long)]
    all: bool,
}

impl Held {
    /// Says `how` they are settled, and prints how many were.
    pub(crate) async fn settle(
        self,
        client: &Client,
        (collection, action): (&str, &str),
        mut how: Value,
        format: Format,
    ) -> Result<(), Failure> {
        how["leases"] = self.leases.into();
        show::count(&act(client, (collection, &self.name, action), &how).await?, "leases", format)
    }
}

impl Selected {
    /// Has them replayed or discarded, and prints how many there were.
    pub(crate) async fn act(
        self,
        client: &Client,
        (collection, action): (&str, &str),
        format: Format,
    ) -> Result<(), Failure> {
        let which = self.key.map_or_else(|| json!({ "all": true }), |key| json!({ "key": key }));
        show::count(&act(client, (collection, &self.name, action), &which).await?, "events", format)
    }
}

/// Posts `how` to `/v1/{collection}/{name}/{action}`.
pub(crate) async fn act(
    client: &Client,
    (collection, name, action): (&str, &str, &str),
    how: &Value,
) -> Result<Value, Failure> {
    client.answer(&Call::post(route(collection, name, Some(action)), JSON, how.to_string())).await
}

/// `/v1/{collection}/{name}`, or `/v1/{collection}/{name}/{action}`
pub(crate) fn route(collection: &str, name: &str, action: Option<&str>) -> Target {
    let segments: Vec<&str> = ["v1", collection, name].into_iter().chain(action).collect();
    Target::path(&segments)
}

/// A span as the node reads it.
pub(crate) fn span(span: Duration) -> String {
    humantime_serde::re::humantime::format_duration(span).to_string()
}

/// `body` with the span in `member`, if one is given.
pub(crate) fn with_span(mut body: Value, member: &str, given: Option<Duration>) -> Value {
    if let Some(given) = given {
        body[member] = span(given).into();
    }
    body
}
