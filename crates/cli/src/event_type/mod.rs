//! `quorate event-type`: who sends which events, by which schemas, and who takes them.

mod show;

use std::time::Duration;

use clap::Subcommand;
use serde_json::Value;

use crate::{
    client::{Call, Client, Target},
    exit::Failure,
    output::{Format, cell, note},
    pages::{HowMany, list},
};

/// Verbs on event types.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// List event types of which the log holds events or that have a schema
    List {
        #[command(flatten)]
        how_many: HowMany,
    },
    /// Who sends events of a type, by which schemas, and who takes them
    Show {
        /// The event type
        #[arg(value_name = "TYPE")]
        event_type: String,
    },
    /// Print all event types with their schemas as an AsyncAPI 3.0 document
    Asyncapi,
}

/// The members of an AsyncAPI document that pages add to.
const PARTS: [&str; 4] = ["/channels", "/operations", "/components/messages", "/channels/append/messages"];
/// The list of messages that pages add to.
const RECEIVED: &str = "/operations/append/messages";

impl Command {
    /// Does what was asked.
    pub(crate) async fn run(self, client: &Client, format: Format) -> Result<(), Failure> {
        let is_all = read_on(client).await?;
        match self {
            Self::List { how_many } => {
                show::types(&list(client, Target::path(&["v1", "event-types"]), "event-types", how_many).await?, format)
            }
            Self::Show { event_type } => {
                let call = Call::get(Target::path(&["v1", "event-types", &event_type]));
                show::one(&client.answer(&call).await?, format)
            }
            Self::Asyncapi => show::document(&asyncapi(client, is_all).await?),
        }
    }
}

/// How often a node that does not read on is asked again, and how long it is left alone, the first time.
const PATIENCE: u32 = 8;
const REST: Duration = Duration::from_millis(100);

/// Has the node read the log to its end: each question reads on from where the one before stopped. Whether every event is counted under
/// its type then.
async fn read_on(client: &Client) -> Result<bool, Failure> {
    let (mut before, mut idle) = (None, 0);
    loop {
        let page = client.answer(&Call::get("/v1/event-types?limit=1".to_owned())).await?;
        if page["complete"] != false {
            return Ok(page["events-of-other-types"].as_u64().unwrap_or(0) == 0);
        }
        let so_far = format!("{} of {} events so far", cell(&page["scanned"]), cell(&page["head"]));
        match before.replace(page["scanned"].clone()) {
            None => note(&format!("the log is read to its end first: {so_far}")),
            // A store that is busy reads on in a moment.
            Some(before) if before == page["scanned"] && idle < PATIENCE => {
                idle += 1;
                client.env().sleep(REST * idle).await;
            }
            Some(before) if before == page["scanned"] => {
                note(&format!("the node cannot read the log on for the moment, and tells what it knows: {so_far}"));
                return Ok(false);
            }
            Some(_) => idle = 0,
        }
    }
}

/// The AsyncAPI document of all types, put together of its pages.
async fn asyncapi(client: &Client, is_all: bool) -> Result<Value, Failure> {
    let mut whole: Option<Value> = None;
    let mut next = Some("/v1/asyncapi.json".to_owned());
    while let Some(target) = next.take() {
        let reply = client.call(&Call::get(target)).await?;
        let page = reply.json(client.server())?;
        next = reply.next();
        match &mut whole {
            None => whole = Some(page),
            Some(whole) => add(whole, page),
        }
    }
    let mut whole = whole.unwrap_or_default();
    let part = if is_all { "" } else { " A part of them: events of others are only counted, or were not read yet." };
    whole["info"]["description"] =
        format!("The types of events that the log holds or that have a schema.{part}").into();
    Ok(whole)
}

/// Adds what stands in `page` to `whole`.
fn add(whole: &mut Value, mut page: Value) {
    // From the inside out, since what is for appending stands in every page.
    let received = page.pointer_mut(RECEIVED).and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
    if let Some(Value::Array(all)) = whole.pointer_mut(RECEIVED) {
        all.extend(received);
    }
    for part in PARTS.iter().rev() {
        let members = page.pointer_mut(part).and_then(Value::as_object_mut).map(std::mem::take).unwrap_or_default();
        if let Some(Value::Object(all)) = whole.pointer_mut(part) {
            for (name, member) in members {
                all.entry(name).or_insert(member);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::add;

    fn page(of: &str) -> Value {
        json!({
            "channels": { of: { "address": of }, "append": { "messages": { of: { "$ref": of } } } },
            "operations": { (format!("follow.{of}")): {}, "append": { "messages": [of] } },
            "components": { "messages": { of: { "name": of } } },
        })
    }

    #[test]
    fn pages_of_a_document_make_one() {
        let mut whole = page("a");
        add(&mut whole, page("b"));
        let names =
            |pointer: &str| whole.pointer(pointer).unwrap().as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(names("/channels"), ["a", "append", "b"]);
        assert_eq!(names("/channels/append/messages"), ["a", "b"]);
        assert_eq!(names("/operations"), ["append", "follow.a", "follow.b"]);
        assert_eq!(names("/components/messages"), ["a", "b"]);
        assert_eq!(whole["operations"]["append"]["messages"], json!(["a", "b"]));
    }
}
