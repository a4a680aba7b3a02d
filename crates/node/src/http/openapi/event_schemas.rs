//! Schemas of event types.

use quorate_data::schema::Compatibility;
use serde_json::{Value, json};

use super::{
    content, json_reply, operation, parameter, reference,
    schemas::{closed, object},
    with_body,
};
use crate::http::{reply, schemas::SCHEMA};

pub(super) fn paths() -> Value {
    let of_type = || json!([parameter("eventType")]);
    let registered = |what| json_reply(what, "RegisteredSchema", &["Location"]);
    let register = operation(
        "schemas",
        "registerSchema",
        "Registers a schema as the next version of an event type; every later append is held against it",
        &["mode", "idempotencyKey"],
        &[("201", registered("It is registered and in force")), ("200", registered("The type has had it before"))],
    );
    let check = operation(
        "schemas",
        "checkSchema",
        "Says what registering a schema would come to, and changes nothing",
        &["mode"],
        &[("200", json_reply("What it would come to", "CheckedSchema", &[]))],
    );
    let set = operation(
        "schemas",
        "setSchemaMode",
        "Says what registrations of a type have to keep from now on",
        &["idempotencyKey"],
        &[("200", json_reply("It is set", "SchemaMode", &[]))],
    );
    json!({
        "/v1/schemas": {
            "get": operation("schemas", "listSchemas", "Lists event types that have a schema, in order of their names", &["afterName", "limit"],
                &[("200", json_reply("Event types", "SchemaList", &["Link"]))]),
        },
        "/v1/schemas/{type}": {
            "parameters": of_type(),
            "get": operation("schemas", "describeSchema", "Says which versions an event type has, and its mode", &[],
                &[("200", json_reply("The event type", "SchemaVersions", &[]))]),
        },
        "/v1/schemas/{type}/versions": { "parameters": of_type(), "post": with_schema(register) },
        "/v1/schemas/{type}/versions/{version}": {
            "parameters": [parameter("eventType"), parameter("version")],
            "get": operation("schemas", "readSchema", "Reads one version: the JSON Schema itself", &[],
                &[("200", content("The schema", &[], &[(SCHEMA, reference("JsonSchema"))]))]),
        },
        "/v1/schemas/{type}/check": { "parameters": of_type(), "post": with_schema(check) },
        "/v1/schemas/{type}/mode": { "parameters": of_type(), "put": with_body(set, "SetSchemaMode") },
    })
}

fn with_schema(mut operation: Value) -> Value {
    let schema = json!({ "schema": reference("JsonSchema") });
    operation["requestBody"] = json!({ "required": true, "content": { SCHEMA: schema, reply::JSON: schema } });
    operation
}

/// The modes by name.
pub(super) fn modes() -> Value {
    json!({ "enum": Compatibility::ALL.map(Compatibility::as_str) })
}

pub(super) fn schemas() -> Value {
    let text = json!({ "type": "string" });
    let number = json!({ "type": "integer", "minimum": 1 });
    let pointer = json!({ "type": "string", "format": "json-pointer" });
    let incompatible = json!({
        "type": "array",
        "items": object(&["version", "findings"], json!({
            "version": number,
            "findings": { "type": "array", "items": object(&["path", "before", "direction", "certainty", "message"], json!({
                "path": pointer,
                "before": pointer,
                "direction": { "enum": ["backward", "forward"], "description": "Who reads whose events" },
                "certainty": { "enum": ["refused", "unproved"], "description": "`unproved`: it may be harmless, and no proof was found" },
                "was": text,
                "became": text,
                "message": text,
            })) },
        })),
        "description": "With which versions it does not go together, and why; the newest of them first, four at most",
    });
    let summary = json!({ "type": text, "mode": modes(), "latest": number });
    json!({
        "JsonSchema": { "type": ["object", "boolean"], "description": "A JSON Schema 2020-12 that refers to nothing outside of it" },
        "SchemaSummary": object(&["type", "mode", "latest"], summary),
        "SchemaList": object(&["schemas"], json!({ "schemas": { "type": "array", "items": reference("SchemaSummary") } })),
        "SchemaVersions": { "allOf": [reference("SchemaSummary"), object(&["versions"], json!({
            "versions": { "type": "array", "items": object(&["version", "mode", "bytes", "schema"], json!({
                "version": number,
                "mode": modes(),
                "bytes": { "type": "integer" },
                "schema": { "type": "string", "format": "uri-reference" },
            })) },
        }))] },
        "RegisteredSchema": object(&["type", "version", "mode", "new", "schema"], json!({
            "type": text,
            "version": number,
            "mode": modes(),
            "new": { "type": "boolean" },
            "schema": { "type": "string", "format": "uri-reference", "description": "Where it is served: what an event's `dataschema` names" },
        })),
        "CheckedSchema": object(&["type", "mode", "compatible", "version", "new", "incompatible", "notcompared"], json!({
            "type": text,
            "mode": modes(),
            "compatible": { "type": "boolean" },
            "version": { "type": ["integer", "null"], "description": "The version it has or would have" },
            "new": { "type": "boolean", "description": "Whether the type has not had it before" },
            "incompatible": incompatible,
            "notcompared": { "type": "integer", "minimum": 0, "description": "How many earlier versions it was not compared with any more" },
        })),
        "SetSchemaMode": closed(&["mode"], json!({ "mode": modes() })),
        "SchemaMode": object(&["type", "mode"], json!({ "type": text, "mode": modes() })),
    })
}
