//! Sending one message.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;
use serde_json::{Value, json};

use super::{read, route, show, span};
use crate::{
    client::{Call, Client, JSON},
    exit::Failure,
    output::{Format, note},
    stream::{json_text, new_id},
};

/// One message.
#[derive(Args, Debug)]
pub(crate) struct Send {
    /// The queue
    name: String,
    /// The message's id: sending it again changes nothing. Without this flag a new UUID
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    #[command(flatten)]
    says: Says,
}

/// What a message says, and how the queue is to treat it.
#[derive(Args, Debug)]
pub(super) struct Says {
    /// What it is
    #[arg(long = "type", value_name = "TYPE")]
    kind: String,
    /// The message's data: JSON, `@FILE`, or `-` for standard input
    #[arg(long, value_name = "JSON|@FILE|-")]
    data: Option<String>,
    /// The data's media type, where it is not JSON
    #[arg(long, value_name = "TYPE", default_value = "application/json")]
    content_type: String,
    /// Who says so, a URI reference
    #[arg(long, value_name = "URI", default_value = "/quorate/cli")]
    source: String,
    /// Messages of a group are handed out in the order of sending, one at a time
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// 0 to 9; a higher one is handed out first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=9))]
    priority: Option<u8>,
    /// How long it rests before it is handed out
    #[arg(long, value_name = "SPAN", value_parser = crate::span)]
    delay: Option<Duration>,
    /// How long after sending it is of no use any more
    #[arg(long, value_name = "SPAN", value_parser = crate::span)]
    ttl: Option<Duration>,
    /// Not sent while another message with this key waits, rests or is worked on
    #[arg(long, value_name = "KEY")]
    unique: Option<String>,
}

impl Send {
    /// Sends the message and prints its id.
    pub(super) async fn run(&self, client: &Client, format: Format) -> Result<(), Failure> {
        let id = self.id.clone().unwrap_or_else(|| new_id(client.env()));
        let data = self.says.data(client).await?;
        let call = Call::post(route(&self.name, Some("messages")), JSON, self.body(&id, data.as_deref())?);
        let sent = client.answer(&call).await.inspect_err(|failure| {
            if failure.is_unknown() && self.id.is_none() {
                note(&format!("the message's id was {id}: repeat the command with --id {id}"));
            }
        })?;
        show::sent(&sent, format)
    }

    fn body(&self, id: &str, data: Option<&[u8]>) -> Result<String, Failure> {
        Ok(format!("{{\"messages\":[{}]}}", self.says.message(id, data)?))
    }
}

impl Says {
    /// The message's data, as it was given.
    pub(super) async fn data(&self, client: &Client) -> Result<Option<Vec<u8>>, Failure> {
        match &self.data {
            Some(text) => read(text, client).await.map(Some),
            None => Ok(None),
        }
    }

    /// The message in JSON, the data in it byte for byte as it was given.
    pub(super) fn message(&self, id: &str, data: Option<&[u8]>) -> Result<String, Failure> {
        let mut head = json!({ "specversion": "1.0", "id": id, "source": self.source, "type": self.kind });
        let data = match data {
            None => String::new(),
            Some(data) => {
                head["datacontenttype"] = self.content_type.as_str().into();
                let media = self.content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
                if media == "application/json" || media.ends_with("+json") {
                    format!(",\"data\":{}", json_text(data)?)
                } else {
                    format!(",\"data_base64\":\"{}\"", STANDARD.encode(data))
                }
            }
        };
        let head = head.to_string();
        let event = format!("{}{data}}}", head.trim_end_matches('}'));
        let how = [
            ("group", self.group.as_deref().map(Value::from)),
            ("priority", self.priority.map(Value::from)),
            ("delay", self.delay.map(|delay| span(delay).into())),
            ("ttl", self.ttl.map(|ttl| span(ttl).into())),
            ("unique", self.unique.as_deref().map(Value::from)),
        ];
        let how: String = how.into_iter().filter_map(|(name, value)| Some(format!(",\"{name}\":{}", value?))).collect();
        Ok(format!("{{\"event\":{event}{how}}}"))
    }
}
