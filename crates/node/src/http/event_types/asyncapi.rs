//! The AsyncAPI 3.0 document: what of the catalogue a program can be written against.
//!
//! Each type is a channel, at the address where its events can be followed, and each registered version of its schema a message: the
//! event as CloudEvents JSON, whose `data` follows that schema. The node *sends* events to who follows them, and *receives* them on one
//! channel for all, where they are appended.

use std::fmt::Write as _;

use axum::extract::{Request, State};
use http::StatusCode;
use quorate_data::schema::{SchemaSize, SchemaVersion, address};
use serde_json::{Map, Value, json};

use super::{Reply, next, page};
use crate::{
    http::{Shared, cloud_events::STRUCTURED, percent, reply, request::Params},
    verbs::{EventSchemas, EventType},
};

/// Bytes of schemas that one document holds, unless a single one is larger.
const MAX_SCHEMA_BYTES: usize = 1 << 20;
/// The format of the payloads' schemas.
const FORMAT: &str = "application/schema+json;version=draft-2020-12";
/// The channel on which events are appended.
const APPEND: &str = "append";

/// `GET /v1/asyncapi.json`
pub(in crate::http) async fn document(State(node): State<Shared>, request: Request) -> Reply {
    let params = Params::of(request.uri(), &["after", "limit"])?;
    let (after, limit) = (params.one("after")?, page(&params)?);
    let reach = node.event_types.look().await?;
    let found = node.event_types.list(after, limit).await?;
    let mut document = Document::default();
    let mut shown = 0;
    while let Some(one) = found.get(shown).filter(|_| document.has_room()) {
        document.add(one, &node.schemas);
        shown += 1;
    }
    let is_partial = shown < found.len() || found.len() == limit as usize;
    let mut response =
        reply::json(StatusCode::OK, &document.whole(reach.knows_all() && !is_partial && after.is_none()));
    if let Some(last) = shown.checked_sub(1).and_then(|last| found.get(last)).filter(|_| is_partial) {
        reply::next(response.headers_mut(), &next("/v1/asyncapi.json", limit, &last.name));
    }
    Ok(reply::whole(response))
}

/// A document that is being put together.
#[derive(Default)]
struct Document {
    channels: Map<String, Value>,
    operations: Map<String, Value>,
    messages: Map<String, Value>,
    appended: Map<String, Value>,
    schema_bytes: usize,
}

impl Document {
    fn has_room(&self) -> bool {
        self.schema_bytes < MAX_SCHEMA_BYTES
    }

    /// Adds a type with the newest versions of its schema, as many as there is room for, or one message where it has none.
    fn add(&mut self, one: &EventType, schemas: &EventSchemas) {
        let (key, mut messages) = (key(&one.name), Map::new());
        let versions = one.schema.as_ref().map_or(&[][..], |(_, versions)| versions);
        if versions.is_empty() {
            self.message(&mut messages, key.clone(), message(&one.name, None));
        }
        let mut left_out = 0;
        for SchemaSize { version, bytes, .. } in versions.iter().rev() {
            let Some(row) = schemas.version(&one.name, *version).filter(|_| self.has_room() || messages.is_empty())
            else {
                left_out += 1;
                continue;
            };
            self.schema_bytes += bytes;
            let schema = serde_json::from_str(&row.schema).unwrap_or(Value::Bool(true));
            self.message(&mut messages, format!("{key}_v{version}"), message(&one.name, Some((*version, schema))));
        }
        let mut following = "/v1/events/subscribe?type=".to_owned();
        percent::encode(&one.name, &mut following);
        let mut channel = json!({
            "address": following,
            "title": one.name,
            "messages": messages,
            "x-producers": one.seen.as_ref().map_or(&[][..], |seen| &seen.producers).iter().map(|one| &*one.source).collect::<Value>(),
            "x-consumers": one.consumers.iter().map(super::consumer).collect::<Value>(),
        });
        if left_out > 0 {
            channel["description"] = format!("{left_out} earlier versions of its schema are left out here").into();
        }
        let sent: Value = messages.keys().map(|message| reference(&["channels", &key, "messages", message])).collect();
        self.operations.insert(
            format!("follow.{key}"),
            json!({
                "action": "send",
                "channel": reference(&["channels", &key]),
                "summary": format!("Sends events of the type {} to who follows them", one.name),
                "messages": sent,
            }),
        );
        self.channels.insert(key, channel);
    }

    fn message(&mut self, of_channel: &mut Map<String, Value>, key: String, message: Value) {
        let there = reference(&["components", "messages", &key]);
        of_channel.insert(key.clone(), there.clone());
        self.appended.insert(key.clone(), there);
        self.messages.insert(key, message);
    }

    fn whole(mut self, is_complete: bool) -> Value {
        let received: Value =
            self.appended.keys().map(|message| reference(&["channels", APPEND, "messages", message])).collect();
        self.channels.insert(
            APPEND.to_owned(),
            json!({
                "address": "/v1/streams/{stream}/events",
                "title": "Append to a stream",
                "parameters": { "stream": { "description": "The stream's name; `/` is written `%2F`" } },
                "messages": self.appended,
            }),
        );
        self.operations.insert(
            APPEND.to_owned(),
            json!({
                "action": "receive",
                "channel": reference(&["channels", APPEND]),
                "summary": "Takes events, by POST, and answers when they are durable",
                "messages": received,
            }),
        );
        let part = if is_complete {
            "All of them."
        } else {
            "A part of them: `Link` leads to more, the log is not read to its end yet, or it holds events of more types than are named."
        };
        json!({
            "asyncapi": "3.0.0",
            "info": {
                "title": "Events of this store",
                "version": env!("CARGO_PKG_VERSION"),
                "description": format!("The types of events that the log holds or that have a schema. {part}"),
            },
            "defaultContentType": STRUCTURED,
            "channels": self.channels,
            "operations": self.operations,
            "components": { "messages": self.messages },
        })
    }
}

/// An event of a type as CloudEvents JSON, whose data follows `schema` where there is one.
fn message(name: &str, schema: Option<(SchemaVersion, Value)>) -> Value {
    let text = json!({ "type": "string", "minLength": 1 });
    let mut properties = json!({
        "specversion": { "const": "1.0" },
        "id": text,
        "source": text,
        "type": { "const": name },
        "time": { "type": "string", "format": "date-time" },
    });
    let mut required = vec!["specversion", "id", "source", "type"];
    let mut message = json!({ "name": name, "title": name, "contentType": STRUCTURED });
    if let Some((version, schema)) = schema {
        let address = address(name, version);
        message["title"] = format!("{name}, version {version}").into();
        properties["dataschema"] = json!({ "const": address });
        properties["data"] = embedded(schema, &address);
        // Events that name no schema are of the first version.
        if version != SchemaVersion::FIRST {
            required.push("dataschema");
        }
    }
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": required,
        "properties": properties,
    });
    message["payload"] = json!({ "schemaFormat": FORMAT, "schema": schema });
    message
}

/// A schema as a part of another one: with an address of its own, so that what it refers to within itself is found there.
fn embedded(mut schema: Value, address: &str) -> Value {
    if let Value::Object(members) = &mut schema {
        members.entry("$id").or_insert_with(|| address.into());
    }
    schema
}

fn reference(path: &[&str]) -> Value {
    json!({ "$ref": path.iter().fold("#".to_owned(), |pointer, part| pointer + "/" + part) })
}

/// What a type is called within the document: letters, digits, `.` and `-` as they are, everything else as `_` and two hexadecimal digits
/// for each byte, so that no two types meet. A `_` before anything else is nobody's: behind one stands the version of a message.
fn key(name: &str) -> String {
    let mut key = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' => key.push(char::from(byte)),
            other => {
                let _ = write!(key, "_{other:02x}");
            }
        }
    }
    // The name of the channel that is no type's.
    if key == APPEND { format!("{key}_") } else { key }
}

#[cfg(test)]
mod tests {
    use super::key;

    #[test]
    fn no_two_types_are_called_the_same() {
        let names = ["a/b", "a_2fb", "a b", "a.b", "a-b", "ä", "append", "append_", "a"];
        let keys: std::collections::BTreeSet<String> = names.iter().map(|name| key(name)).collect();
        assert_eq!(keys.len(), names.len(), "{keys:?}");
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        assert!(keys.iter().all(|key| key.bytes().all(is_plain)), "{keys:?}");
    }
}
