//! Following a stream or the log across broken connections and restarts of the node.

use std::time::Duration;

use clap::Args;

use crate::{
    client::{Client, Follow, Follower, Target, Told},
    event::{Event, one_line},
    exit::Failure,
    output::{Format, Out, note},
    pages::positive,
};

/// How long to follow.
#[derive(Args, Debug)]
pub(crate) struct Following {
    /// End after so many events
    #[arg(long, value_name = "N", value_parser = positive)]
    limit: Option<usize>,
    /// End as soon as everything that is there has been shown
    #[arg(long)]
    until_caught_up: bool,
    /// How long to keep dialling a node that went away
    #[arg(long, value_name = "SPAN", default_value = "5m", value_parser = crate::span)]
    patience: Duration,
    /// Silence after which a connection counts as broken; longer than the node's `http.heartbeat`
    #[arg(long, value_name = "SPAN", default_value = "45s", value_parser = crate::span)]
    silence: Duration,
}

/// What a message means.
enum Means {
    Event(String),
    CaughtUp,
    Tombstoned,
    Nothing,
}

/// Follows `target`, printing one line per event.
pub(crate) async fn tail(
    client: &Client,
    target: Target,
    following: &Following,
    format: Format,
) -> Result<(), Failure> {
    let Following { silence, patience, .. } = *following;
    let mut follower = Follower::new(client, Follow { target: target.into(), silence, patience });
    let mut out = Out::new();
    let mut left = following.limit.unwrap_or(usize::MAX);
    while left > 0 {
        match meaning(follower.next(&mut |text| note(text)).await?) {
            Means::Event(json) => {
                print(&mut out, &json, format)?;
                left -= 1;
            }
            Means::CaughtUp if following.until_caught_up => break,
            Means::Tombstoned => {
                note("the stream was closed for good");
                break;
            }
            Means::CaughtUp | Means::Nothing => {}
        }
    }
    out.flush()
}

fn meaning(Told { event, data }: Told) -> Means {
    match event.as_str() {
        "" | "message" => Means::Event(data),
        "caught-up" => Means::CaughtUp,
        "closing" if data.contains("\"tombstoned\"") => Means::Tombstoned,
        // Any other end is mended by coming back.
        _ => Means::Nothing,
    }
}

/// Each event is handed over at once: somebody is waiting for it.
fn print(out: &mut Out, json: &str, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => out.line(&one_line(json)?)?,
        Format::Table => {
            let [position, stream, version, time, kind, data] = Event::of(json)?.cells();
            out.line(&format!("{position:>8}  {stream}@{version}  {time}  {kind}  {data}"))?;
        }
    }
    out.flush()
}
