//! Event types.

use serde_json::{Value, json};

use super::{json_reply, operation, parameter, reference, schemas::object};
use crate::verbs::EventTypes;

pub(super) fn paths() -> Value {
    json!({
        "/v1/event-types": {
            "get": operation("event-types", "listEventTypes", "Lists event types of which the log holds events or that have a schema, in order of their names; reads the log on, for a moment, from where the last question stopped", &["afterName", "eventTypeLimit"],
                &[("200", json_reply("Event types, and how far the log was read", "EventTypeList", &["Link"]))]),
        },
        "/v1/event-types/{type}": {
            "parameters": [parameter("eventType")],
            "get": operation("event-types", "describeEventType", "Says who sends events of a type, by which schemas, and who takes them", &[],
                &[("200", json_reply("The event type", "EventType", &[]))]),
        },
        "/v1/asyncapi.json": {
            "get": operation("event-types", "describeEvents", "Describes event types, their schemas and how to follow them, as AsyncAPI 3.0", &["afterName", "eventTypeLimit"],
                &[("200", json_reply("The AsyncAPI document", "AsyncApi", &["Link"]))]),
        },
    })
}

/// How many types at most.
pub(super) fn limit() -> Value {
    json!({ "type": "integer", "minimum": 1, "maximum": EventTypes::MAX_PAGE, "default": EventTypes::MAX_PAGE })
}

pub(super) fn schemas() -> Value {
    let text = json!({ "type": "string" });
    let number = json!({ "type": "integer", "minimum": 0 });
    let or_null = |schema: Value| json!({ "oneOf": [schema, { "type": "null" }] });
    let time = json!({ "type": "string", "format": "date-time" });
    let count = |what: &str| json!({ "type": "integer", "minimum": 0, "description": what });
    let schema = object(
        &["dataschema", "version", "registered", "events"],
        json!({
            "dataschema": { "type": ["string", "null"], "description": "Null: its events name none" },
            "version": { "type": ["integer", "null"], "minimum": 1, "description": "Null: it is no schema of this store's" },
            "registered": { "type": "boolean" },
            "bytes": number,
            "events": or_null(count("Null: unknown, since `more-schemas` or `events-of-other-producers` may be of it, or since the type was not seen and not every event is counted under its type")),
        }),
    );
    let producer = object(
        &["source", "events", "last", "last-recorded"],
        json!({
            "source": text,
            "events": number,
            "last": reference("Count"),
            "last-recorded": time,
        }),
    );
    let consumer = object(
        &["kind", "name", "names-the-type"],
        json!({
            "kind": { "enum": ["subscription", "relay", "webhook", "view"] },
            "name": text,
            "names-the-type": { "type": "boolean", "description": "Otherwise it takes events of any type" },
        }),
    );
    let reach = object(
        &["scanned", "head", "complete", "events-of-other-types"],
        json!({
            "scanned": { "description": "Everything up to here is counted", "allOf": [reference("Count")] },
            "head": { "description": "The last position of the log", "allOf": [reference("Count")] },
            "complete": { "type": "boolean", "description": "Whether the log was read to its end; ask again where it was not" },
            "events-of-other-types": count("Events of types that are too many or too long to be named"),
        }),
    );
    json!({
        "EventTypeReach": reach,
        "EventType": object(&["type", "events", "schemas", "producers", "consumers"], json!({
            "type": text,
            "events": or_null(count("Null: none was seen, and not every event of the log is counted under its type")),
            "first": or_null(reference("Count")),
            "last": or_null(reference("Count")),
            "last-recorded": or_null(time),
            "mode": { "type": ["string", "null"], "description": "What registrations of its schema have to keep; null: it has none" },
            "schemas": { "type": "array", "items": schema },
            "more-schemas": count("Schemas that this listing does not name"),
            "producers": { "type": "array", "items": producer },
            "more-producers": count("Producers that this listing does not name"),
            "events-of-other-producers": count("Events of producers and schemas that are too many or too long to be named"),
            "consumers": { "type": "array", "items": consumer, "description": "Who names the type first" },
            "more-consumers": count("Consumers that are not named"),
            "catalogue": reference("EventTypeReach"),
        })),
        "EventTypeList": { "allOf": [reference("EventTypeReach"), object(&["event-types"], json!({
            "event-types": { "type": "array", "items": reference("EventType") },
        }))] },
        "AsyncApi": object(&["asyncapi", "info", "channels", "operations"], json!({
            "asyncapi": { "const": "3.0.0" },
            "info": { "type": "object" },
            "channels": { "type": "object" },
            "operations": { "type": "object" },
        })),
    })
}
