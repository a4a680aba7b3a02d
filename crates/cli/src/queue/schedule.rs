//! Schedules of a queue.

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{send::Says, show};
use crate::{
    client::{Call, Client, JSON, Target},
    exit::Failure,
    output::Format,
};

/// Has a message sent by the clock. The same again changes nothing; anything else counts from now on.
#[derive(Args, Debug)]
pub(crate) struct Schedule {
    /// The queue
    queue: String,
    /// The schedule's name; ids of its messages are this, an `@`, and the moment
    name: String,
    /// Minute, hour, day of the month, month, day of the week, as `30 2 * * *`; or `@daily`
    #[arg(long, value_name = "PATTERN")]
    cron: String,
    /// Whose wall clock counts, as `Europe/Berlin`
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    time_zone: String,
    /// What becomes of moments whose messages could not be sent within a minute
    #[arg(long, value_name = "HOW", default_value = "once")]
    missed: Missed,
    #[command(flatten)]
    says: Says,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Missed {
    /// Nothing is sent for them
    Skip,
    /// The last one is sent
    Once,
    /// All are sent, at most the last thousand
    All,
}

impl Schedule {
    /// Declares the schedule and prints when it is due next.
    pub(super) async fn run(&self, client: &Client, format: Format) -> Result<(), Failure> {
        let missed = match self.missed {
            Missed::Skip => "skip",
            Missed::Once => "once",
            Missed::All => "all",
        };
        let data = self.says.data(client).await?;
        let message = self.says.message(&self.name, data.as_deref())?;
        let when = json!({ "cron": self.cron, "time-zone": self.time_zone, "missed": missed }).to_string();
        let body = format!("{},\"message\":{message}}}", when.trim_end_matches('}'));
        let call = Call::post(route(&self.queue, Some(&self.name)), JSON, body).put();
        let planned = client.answer(&call).await?;
        show::schedules(std::slice::from_ref(&planned), &planned, format)
    }
}

/// `/v1/queues/{queue}/schedules`, or `/v1/queues/{queue}/schedules/{name}`
pub(super) fn route(queue: &str, name: Option<&str>) -> Target {
    let segments: Vec<&str> = ["v1", "queues", queue, "schedules"].into_iter().chain(name).collect();
    Target::path(&segments)
}
