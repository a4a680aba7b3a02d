//! What streams are like, and what ends them.

use http::header;
use serde_json::{Value, json};

use super::{append::Expect, route};
use crate::{
    client::{Call, Client, JSON, Target},
    exit::Failure,
    output::{Column, Format, Out, Table, note},
    pages::{HowMany, Pages},
};

/// Lists streams by name.
pub(crate) async fn list(
    client: &Client,
    prefix: Option<&str>,
    how_many: HowMany,
    format: Format,
) -> Result<(), Failure> {
    let target = Target::path(&["v1", "streams"]).with_some("prefix", prefix);
    let mut pages = Pages::new(client, target, how_many.page());
    let mut streams: Vec<Value> = Vec::new();
    while streams.len() < how_many.max()
        && let Some(page) = pages.next("streams").await?
    {
        streams.extend(page.items()?.iter().filter_map(|item| serde_json::from_str(item.get()).ok()));
    }
    let more = pages.has_next() || streams.len() > how_many.max();
    streams.truncate(how_many.max());
    print(&streams, &json!({ "streams": streams }), format)?;
    if more {
        note("there may be more: see --limit and --all");
    }
    Ok(())
}

/// Shows one stream.
pub(crate) async fn show(client: &Client, stream: &str, format: Format) -> Result<(), Failure> {
    let call = Call::get(Target::path(&["v1", "streams", stream]));
    let head = client.call(&call).await?.json(client.server())?;
    print(std::slice::from_ref(&head), &head, format)
}

fn print(streams: &[Value], whole: &Value, format: Format) -> Result<(), Failure> {
    let mut out = Out::new();
    if format == Format::Json {
        out.json(whole)?;
        return out.flush();
    }
    let columns = [Column::Left("STREAM"), Column::Right("VERSION"), Column::Right("FIRST"), Column::Left("STATE")];
    let mut table = Table::new(columns);
    for stream in streams {
        let text = |member: &str| stream[member].as_str().unwrap_or_default();
        let state = if stream["tombstoned"] == true { "tombstoned" } else { "open" };
        table.row([text("stream"), text("streamversion"), text("first"), state]);
    }
    table.print(&mut out)
}

/// Forgets the data of a stream's events before `before`.
pub(crate) async fn truncate(
    client: &Client,
    stream: &str,
    before: u64,
    expect: Expect,
    format: Format,
) -> Result<(), Failure> {
    let body = json!({ "before": before }).to_string();
    retire(client, &expect.apply(Call::post(route(stream, "truncate"), JSON, body))?, format).await
}

/// Forgets all data of a stream and closes it for good.
pub(crate) async fn tombstone(client: &Client, stream: &str, expect: Expect, format: Format) -> Result<(), Failure> {
    let call = expect.apply(Call::post(route(stream, "tombstone"), JSON, ""))?;
    retire(client, &call.header(header::ACCEPT, JSON)?, format).await
}

async fn retire(client: &Client, call: &Call, format: Format) -> Result<(), Failure> {
    let retired = client.call(call).await?.json(client.server())?;
    let mut out = Out::new();
    if format == Format::Json {
        out.json(&retired)?;
        return out.flush();
    }
    let mut table = Table::new([Column::Left("STREAM"), Column::Right("EVENTS FORGOTTEN"), Column::Left("TOKEN")]);
    let text = |member: &str| retired[member].as_str().unwrap_or_default();
    table.row([text("stream"), &retired["retired"].to_string(), text("token")]);
    table.print(&mut out)
}
