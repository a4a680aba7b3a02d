//! The shapes of what is sent and served.

use serde_json::{Value, json};

use super::{reference, types};

pub(super) fn schemas() -> Value {
    let text = json!({ "type": "string" });
    let count = json!({ "type": "string", "pattern": "^[0-9]+$" });
    let given = json!({ "oneOf": [{ "type": "integer", "format": "int64", "minimum": 0 }, reference("Count")] });
    let list = json!({ "type": "array", "items": text });
    json!({
        "Count": { "type": "string", "pattern": "^[0-9]+$", "description": "A version or position, in decimal digits" },
        "Event": event(),
        "RecordedEvent": {
            "description": "An event as the log serves it",
            "allOf": [reference("Event"), object(&["stream", "streamversion", "logposition", "recordedtime"], json!({
                "stream": text,
                "streamversion": count,
                "logposition": count,
                "recordedtime": { "type": "string", "format": "date-time" },
                "stub": { "enum": ["truncated", "tombstoned", "archived", "erased"], "description": "Why its data is gone" },
                "archiveid": { "description": "Which archive it was moved to", "allOf": [reference("Count")] },
            }))],
        },
        "LogPage": object(&["events", "scanned", "head"], json!({
            "events": { "type": "array", "items": reference("RecordedEvent") },
            "scanned": { "description": "Every event up to here was looked at", "allOf": [reference("Count")] },
            "head": { "description": "The last position of the log when the page was read", "allOf": [reference("Count")] },
        })),
        "StreamPage": object(&["events", "stream", "streamversion"], json!({
            "events": { "type": "array", "items": reference("RecordedEvent") },
            "stream": text,
            "streamversion": count,
        })),
        "Stream": object(&["stream", "streamversion", "first", "tombstoned", "metadataversion"], json!({
            "stream": text,
            "streamversion": count,
            "first": { "description": "The first version that is still there", "allOf": [reference("Count")] },
            "tombstoned": { "type": "boolean" },
            "metadataversion": { "description": "How often the stream's metadata were set", "allOf": [reference("Count")] },
        })),
        "StreamList": object(&["streams"], json!({ "streams": { "type": "array", "items": reference("Stream") } })),
        "Appended": object(&["stream", "streamversion", "token"], json!({ "stream": text, "streamversion": count, "token": text })),
        "AppendedToStreams": object(&["streams", "token"], json!({
            "streams": { "type": "array", "items": object(&["stream", "streamversion"], json!({ "stream": text, "streamversion": count })) },
            "token": text,
        })),
        "AppendToStreams": closed(&["streams"], json!({
            "streams": { "type": "array", "minItems": 1, "items": closed(&["stream", "events"], json!({
                "stream": text,
                "expected": { "oneOf": [
                    { "enum": ["any", "none", "exists"] },
                    closed(&["version"], json!({ "version": given })),
                ] },
                "events": { "type": "array", "minItems": 1, "items": reference("Event") },
            })) },
            "conditions": { "type": "array", "items": closed(&["failIfEventsMatch"], json!({
                "failIfEventsMatch": closed(&["items"], json!({
                    "items": { "type": "array", "items": closed(&[], json!({ "types": list, "tags": list, "categories": list })) },
                })),
                "after": given,
            })) },
        })),
        "Backup": closed(&["to"], json!({ "to": { "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$" } })),
        "BackedUp": object(&["to", "path", "bytes"], json!({ "to": text, "path": text, "bytes": { "type": "integer" } })),
        "Health": object(&["status"], json!({ "status": { "enum": ["pass", "warn", "fail"] }, "checks": { "type": "object" } })),
        "Problem": problem(),
    })
}

/// An event as it is handed in: CloudEvents 1.0.
fn event() -> Value {
    let text = json!({ "type": "string" });
    let mut event = object(
        &["specversion", "id", "source", "type"],
        json!({
            "specversion": { "const": "1.0" },
            "id": { "type": "string", "minLength": 1, "description": "With `source`, unique in its stream" },
            "source": { "type": "string", "minLength": 1, "format": "uri-reference" },
            "type": { "type": "string", "minLength": 1 },
            "subject": text,
            "time": { "type": "string", "format": "date-time" },
            "datacontenttype": text,
            "dataschema": { "type": "string", "format": "uri" },
            "correlationid": text,
            "causationid": text,
            "datasubject": { "type": "string", "minLength": 1, "maxLength": 512, "description": "Whose data it is: encrypted, and erased with the subject. Use a pseudonym" },
            "tags": { "type": "string", "description": "Tags such as `account:17`, with a blank between them" },
            "data": { "description": "Any JSON" },
            "data_base64": { "type": "string", "contentEncoding": "base64" },
        }),
    );
    event["additionalProperties"] = json!({ "type": ["string", "boolean", "integer", "null"] });
    event["description"] = "A CloudEvent 1.0 in JSON; further members are extension attributes".into();
    event
}

fn problem() -> Value {
    object(
        &["type", "title", "status", "detail", "retry", "outcome"],
        json!({
            "type": { "enum": types(), "description": "The page that explains it" },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "detail": { "type": "string", "description": "What happened this time, for people" },
            "retry": { "enum": ["never", "now", "after"], "description": "Whether repeating the same request can help" },
            "retryafter": { "type": "string", "description": "How long to wait before repeating, such as `100ms`" },
            "outcome": { "enum": ["unchanged", "unknown", "partial", "done", "answered"], "description": "Whether anything may have changed; `partial`: all was done but what the problem names; `done`: only the reply is missing; `answered`: whoever was asked says no, and says what it did" },
            "trace": { "type": "string", "description": "The trace id of the request's `traceparent`" },
        }),
    )
}

pub(super) fn object(required: &[&str], properties: Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties })
}

/// An object without any other members.
pub(super) fn closed(required: &[&str], properties: Value) -> Value {
    let mut schema = object(required, properties);
    schema["additionalProperties"] = false.into();
    schema
}
