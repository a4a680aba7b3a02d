//! Materialized views.

use serde_json::{Value, json};

use super::{content, json_reply, operation, parameter, plain, reference, with_body};
use crate::http::{
    declaration::{TOML, YAML},
    reply,
    schemas::SCHEMA,
    views::{LINES, STANDINGS},
};

pub(super) fn paths() -> Value {
    let replied = |id: &str, summary: &str, body: &str, status: &str, reply: &str| {
        let replies = [(status, json_reply("It was done", reply, &[]))];
        let post = operation("views", id, summary, &["idempotencyKey"], &replies);
        json!({ "parameters": [parameter("view")], "post": with_body(post, body) })
    };
    let action = |id: &str, summary: &str, body: &str, reply: &str| replied(id, summary, body, "200", reply);
    let listed = |id: &str, summary: &str, reply: &str| {
        let replies = [("200", json_reply("Events", reply, &["Link"]))];
        json!({ "parameters": [parameter("view")], "get": operation("views", id, summary, &["build", "after", "limit"], &replies) })
    };
    json!({
        "/v1/views": {
            "get": operation("views", "listViews", "Lists views in order of their names", &["afterName", "limit"],
                &[("200", json_reply("Views", "ViewList", &["Link"]))]),
        },
        "/v1/views/{name}": {
            "parameters": [parameter("view")],
            "delete": operation("views", "deleteView", "Deletes a view with its documents and all its builds", &["idempotencyKey"],
                &[("200", json_reply("It is deleted", "ViewDeleted", &[]))]),
            "get": operation("views", "describeView", "Says how a view and each of its builds stand", &[],
                &[("200", json_reply("The view", "View", &[]))]),
        },
        "/v1/views/{name}/document": {
            "parameters": [parameter("view")],
            "put": with_document(operation("views", "declareView", "Declares a view: it is kept up to date as the document says, from now on and after every restart", &["idempotencyKey"],
                &[("201", json_reply("This version is new", "ViewDeclared", &[])), ("200", json_reply("This version is known", "ViewDeclared", &[]))])),
            "get": operation("views", "readViewDocument", "Reads a document as it was declared", &["documentVersion"],
                &[("200", content("The document", &["ETag"], &[(TOML, json!({ "type": "string" })), (YAML, json!({ "type": "string" })), (reply::JSON, reference("ViewDocument"))]))]),
        },
        "/v1/views/{name}/check": {
            "parameters": [parameter("view")],
            "post": with_document(operation("views", "checkView", "Checks a document as declaring it does, and changes nothing", &[],
                &[("200", json_reply("Nothing is wrong with it", "ViewChecked", &[]))])),
        },
        "/v1/views/{name}/explain": {
            "parameters": [parameter("view")],
            "get": operation("views", "explainViewRow", "Says which events made a row of a declared view", &["table", "key"],
                &[("200", json_reply("The events", "ViewExplanation", &[]))]),
        },
        "/view.schema.json": {
            "get": operation("views", "viewDocumentSchema", "The JSON Schema of documents that declare views", &[],
                &[("200", content("The schema", &[], &[(SCHEMA, reference("JsonSchema"))]))]),
        },
        "/v1/views/{name}/tables": {
            "parameters": [parameter("view")],
            "get": operation("views", "listViewTables", "Lists the tables that readers have, with their columns and keys", &[],
                &[("200", json_reply("The tables", "ViewTables", &[]))]),
        },
        "/v1/views/{name}/tables/{table}/rows": {
            "parameters": [parameter("view"), parameter("viewTable")],
            "get": operation("views", "readViewRows", "Reads a page of a table, as of one moment",
                &["where", "order", "columns", "limit", "afterCursor", "maxLag", "beyond", "token", "prefer", "ifNoneMatchRead"],
                &[("200", rows()), ("304", plain("The client has these rows already"))]),
        },
        "/v1/views/{name}/tables/{table}/rows/{key}": {
            "parameters": [parameter("view"), parameter("viewTable"), parameter("rowKey")],
            "get": operation("views", "readViewRow", "Reads the row with a key, as of one moment",
                &["maxLag", "beyond", "token", "prefer", "ifNoneMatchRead"],
                &[("200", json_reply("The row", "ViewRow", &AS_OF)), ("304", plain("The client has this row already"))]),
        },
        "/v1/views/{name}/tables/{table}/follow": {
            "parameters": [parameter("view"), parameter("viewTable")],
            "get": operation("views", "followViewRows", "Follows the rows of a table as they change, by server-sent events",
                &["where", "columns", "afterChange", "lastChangeId", "token", "prefer"], &[("200", followed())]),
        },
        "/v1/views/{name}/query": {
            "parameters": [parameter("view")],
            "post": with_body(operation("views", "queryView",
                "Asks a view by read-only SQL over its own tables, within limits. It changes nothing and may be repeated",
                &["maxLag", "beyond", "token", "prefer"], &[("200", rows())]), "ViewQuery"),
        },
        "/v1/views/{name}/rebuild": replied("rebuildView", "Begins another build beside the one readers have", "ViewRebuild", "202", "ViewBuildBegun"),
        "/v1/views/{name}/pause": action("pauseView", "Pauses a build: its rows stay as they are", "ViewBuildNamed", "ViewPaused"),
        "/v1/views/{name}/resume": action("resumeView", "Has a build go on that was paused, or that stopped before an event", "ViewBuildNamed", "ViewPaused"),
        "/v1/views/{name}/switch": action("switchView", "Gives readers a build that has caught up", "ViewSwitch", "ViewSwitched"),
        "/v1/views/{name}/drop": action("dropViewBuild", "Drops a build that readers do not have", "ViewDrop", "ViewDropped"),
        "/v1/views/{name}/audit": action("auditView", "Recounts the log: whether a build missed an event, or took one twice", "ViewBuildNamed", "ViewAudit"),
        "/v1/views/{name}/parked": listed("listViewParked", "Lists parked events in order of position", "ViewParkedList"),
        "/v1/views/{name}/skipped": listed("listViewSkipped", "Lists events that were left out, in order of position", "ViewSkippedList"),
        "/v1/views/{name}/effects": {
            "parameters": [parameter("view")],
            "get": operation("views", "listViewEffects", "Lists effects that wait or were given up, in order", &["afterCursor", "limit"],
                &[("200", json_reply("Effects", "ViewEffectList", &["Link"]))]),
        },
        "/v1/views/{name}/effects/retry": action("retryViewEffects", "Has all effects that were given up tried anew", "ViewEffectRetry", "ViewEffectsChanged"),
        "/v1/views/{name}/effects/skip": action("skipViewEffect", "Leaves out, for good, an effect that waits or was given up", "ViewEffectSkip", "ViewEffectsChanged"),
        "/v1/views/{name}/replay": action("replayView", "Applies the parked events of a key, in order", "ViewReplay", "Selected"),
        "/v1/views/{name}/skip": action("skipViewEvent", "Leaves out an event that is parked, or that a build stopped before, on record", "ViewSkip", "Selected"),
    })
}

fn with_document(operation: Value) -> Value {
    with_document_of("ViewDocument", operation)
}

/// With a body that is a document, in whichever of the three it is written.
pub(super) fn with_document_of(schema: &str, mut operation: Value) -> Value {
    let text = json!({ "schema": { "type": "string", "description": "The same in TOML or YAML" } });
    let json = json!({ "schema": reference(schema) });
    operation["requestBody"] = json!({ "required": true, "content": { TOML: text, YAML: text, reply::JSON: json } });
    operation
}

/// What says as of when an answer is.
const AS_OF: [&str; 6] =
    ["ETag", "Quorate-Token", "Quorate-Position", "Quorate-Lag", "Quorate-Feed-Lag", "Quorate-Build"];

fn rows() -> Value {
    let headers: Vec<&str> = AS_OF.into_iter().chain(["Link"]).collect();
    let media =
        [(reply::JSON, reference("ViewRows")), (LINES, json!({ "type": "string", "description": "A row per line" }))];
    content("Rows, and as of when they are", &headers, &media)
}

fn followed() -> Value {
    let what = "`event: reset` (forget all rows, and why), `event: row` (one that is there, inserted or updated), `event: gone` (the key of one \
        that is not there any more), `event: caught-up` (together they are the view as of `logposition`); `id:` is where to come back to; \
        `event: closing` ends it";
    content(what, &[], &[("text/event-stream", json!({ "type": "string" }))])
}

pub(super) fn schemas() -> Value {
    let text = json!({ "type": "string" });
    let time = json!({ "type": "string", "format": "date-time" });
    let flag = json!({ "type": "boolean" });
    let number = json!({ "type": "integer", "minimum": 0 });
    let build = json!({ "type": "integer", "minimum": 1, "description": "The build; where it is left out, the newest one, or for parked events the one that readers have" });
    let given = json!({ "oneOf": [{ "type": "integer", "format": "int64", "minimum": 0 }, reference("Count")] });
    let (open, closed) = (super::schemas::object, super::schemas::closed);
    let event = |more: Value| {
        let all = json!({ "logposition": reference("Count"), "key": text, "type": text, "reason": text });
        json!({ "type": "array", "items": open(&["logposition", "key", "type", "reason"], super::merged([all, more])) })
    };
    let unaccounted = json!({
        "type": "integer",
        "minimum": 0,
        "description": "By how much applied, parked, skipped and filtered are not the checkpoint, or not what was read: 0 unless something was lost, or taken twice",
    });
    let shard = open(
        &["shard", "epoch", "checkpoint", "standing"],
        json!({
            "shard": number,
            "epoch": number,
            "checkpoint": reference("Count"),
            "applied": number,
            "parked": number,
            "skipped": number,
            "filtered": { "type": "integer", "minimum": 0, "description": "Positions that were looked at and do not matter to it" },
            "unaccounted": unaccounted,
            "standing": { "enum": STANDINGS, "description": "How it stands with its owner in this process" },
            "stopped-at": reference("Count"),
            "reason": text,
        }),
    );
    let row = json!({ "type": ["object", "null"], "description": "By column; null: there is none" });
    let change = open(
        &["logposition", "stream", "streamversion", "type", "id", "before", "after"],
        json!({
            "logposition": reference("Count"),
            "stream": text,
            "streamversion": reference("Count"),
            "type": text,
            "id": text,
            "before": row,
            "after": row,
        }),
    );
    let columns = json!({ "type": "array", "items": open(&["name", "type"], json!({
        "name": text,
        "type": { "type": ["string", "null"], "description": "How its values are shown and compared; null: as they are" },
    })) });
    let feeds = json!({ "type": "array", "description": "How the sources stand that the view is made of; only where its document names some", "items": open(
        &["source", "time", "heard", "lag-seconds", "stale"],
        json!({
            "source": text,
            "time": { "type": ["string", "null"], "format": "date-time", "description": "The latest time it has said; null: it never said any" },
            "heard": { "type": ["string", "null"], "format": "date-time", "description": "When its newest event arrived" },
            "lag-seconds": { "type": ["number", "null"], "description": "How far the view is behind it, by that time; null: nobody knows" },
            "stale": { "type": "boolean", "description": "That is more than the view's contract allows" },
        }),
    ) });
    let as_of = json!({
        "view": text,
        "build": number,
        "version": number,
        "logposition": { "description": "The rows hold every event up to here that matters to the view, and none behind; where its code keeps it in several shards, those of some may hold later ones", "allOf": [reference("Count")] },
        "lag-events": number,
        "lag-seconds": { "type": ["number", "null"] },
        "feeds": feeds,
        "parked": number,
        "stale": { "type": "boolean", "description": "It is older than was asked for" },
    });
    json!({
        "ViewDocument": { "type": "object", "description": "A view without code: its tables and how events change them. Its JSON Schema is served at /view.schema.json" },
        "ViewDeclared": open(&["view", "version", "new"], json!({ "view": text, "version": number, "new": flag })),
        "ViewChecked": open(&["view", "version", "valid"], json!({ "view": text, "version": number, "valid": { "const": true } })),
        "ViewDeleted": open(&["view", "deleted"], json!({ "view": text, "deleted": { "const": true } })),
        "ViewExplanation": open(&["view", "table", "key", "build", "version", "logposition", "row", "total", "events"], json!({
            "view": text,
            "table": text,
            "key": { "type": "array", "items": text },
            "build": build,
            "version": number,
            "logposition": { "description": "The build holds every event up to here that matters to it", "allOf": [reference("Count")] },
            "row": row,
            "total": { "type": "integer", "minimum": 0, "description": "How many events changed the row; `events` has the newest 1,000" },
            "events": { "type": "array", "items": change },
        })),
        "View": open(&["view", "head", "live", "builds"], json!({
            "view": text,
            "head": reference("Count"),
            "live": { "type": ["integer", "null"], "description": "The build that readers have" },
            "effects-waiting": number,
            "effects-given-up": number,
            "declared": { "type": "array", "items": number, "description": "The versions that were declared by documents; none for a view that is kept by code" },
            "not-started": {
                "type": "array",
                "description": "Declared versions that this node could not start: readers keep what their builds had",
                "items": open(&["version", "reason"], json!({ "version": number, "reason": text })),
            },
            "builds": { "type": "array", "items": reference("ViewBuild") },
        })),
        "ViewBuild": open(&["build", "version", "live", "paused", "logposition"], json!({
            "build": build,
            "version": number,
            "fingerprint": { "type": "string", "description": "Tells the code that made it from other code" },
            "live": flag,
            "paused": flag,
            "mode": { "enum": ["async", "inline"] },
            "tables": { "type": "array", "items": text },
            "logposition": { "description": "It holds every event up to here that matters to it", "allOf": [reference("Count")] },
            "lag-events": number,
            "lag-seconds": { "type": ["number", "null"], "description": "How long ago the oldest event behind that was recorded; null where its code does not run here" },
            "feeds": feeds,
            "applied": number,
            "parked": number,
            "skipped": number,
            "unaccounted": unaccounted,
            "shards": { "type": "array", "items": shard },
        })),
        "ViewTables": open(&["view", "tables"], json!({
            "view": text,
            "tables": { "type": "array", "items": open(&["table", "columns", "key"], json!({
                "table": text,
                "columns": columns,
                "key": { "type": "array", "items": text, "description": "The columns of its key, in order; empty where it has none" },
            })) },
        })),
        "ViewRows": open(&["rows", "view", "build", "version", "logposition"], super::merged([json!({
            "rows": { "type": "array", "items": { "type": "object", "description": "A member for each column" } },
            "table": text,
            "columns": columns,
            "next": { "type": ["string", "null"], "description": "`after` of the next page; null where this is the last one" },
        }), as_of.clone()])),
        "ViewRow": open(&["row", "view", "build", "version", "logposition"], super::merged([
            json!({ "row": { "type": "object", "description": "A member for each column" }, "table": text, "columns": columns }),
            as_of,
        ])),
        "ViewQuery": closed(&["sql"], json!({
            "sql": { "type": "string", "description": "One statement over the view's tables by their names, with `$1`, `$2`, … for parameters" },
            "params": { "type": "array", "items": { "type": ["string", "number", "boolean", "null"] } },
        })),
        "ViewList": open(&["views"], json!({ "views": { "type": "array", "items": reference("View") } })),
        "ViewRebuild": closed(&[], json!({ "switch": { "enum": ["when-caught-up", "manual"], "default": "when-caught-up" } })),
        "ViewBuildBegun": open(&["view", "build"], json!({ "view": text, "build": build })),
        "ViewBuildNamed": closed(&[], json!({ "build": build })),
        "ViewPaused": open(&["view", "build", "paused"], json!({ "view": text, "build": build, "paused": flag })),
        "ViewSwitch": closed(&[], json!({ "build": build, "accept-parked": flag })),
        "ViewSwitched": open(&["view", "build", "logposition"], json!({ "view": text, "build": build, "logposition": reference("Count") })),
        "ViewDrop": closed(&["build"], json!({ "build": build })),
        "ViewDropped": open(&["view", "build", "dropped"], json!({ "view": text, "build": build, "dropped": flag })),
        "ViewAudit": open(&["view", "build", "expected", "handled", "whole"], json!({ "view": text, "build": build, "expected": number, "handled": number, "whole": flag })),
        "ViewReplay": closed(&["key"], json!({ "key": text, "build": build })),
        "ViewSkip": closed(&["logposition"], json!({ "logposition": given, "build": build, "by": { "type": "string", "description": "Who says so, for the record: at most 256 bytes" } })),
        "ViewEffectList": open(&["effects"], json!({ "effects": { "type": "array", "items": open(
            &["logposition", "ordinal", "kind", "key", "payload", "attempts", "reason", "given-up"],
            json!({
                "logposition": reference("Count"), "ordinal": number, "kind": text, "payload": text, "attempts": number, "given-up": flag,
                "key": { "type": "string", "description": "The idempotency key under which it is carried out" },
                "reason": { "type": "string", "description": "Why it failed last; empty where it was not tried" },
            }),
        ) } })),
        "ViewEffectRetry": closed(&[], json!({})),
        "ViewEffectSkip": closed(&["logposition", "ordinal"], json!({
            "logposition": given, "ordinal": { "type": "integer", "minimum": 0, "description": "Which effect of that event it is, from 0" },
        })),
        "ViewEffectsChanged": open(&["effects"], json!({ "effects": number })),
        "ViewParkedList": open(&["parked"], json!({ "parked": event(json!({ "attempts": number, "parked": time })) })),
        "ViewSkippedList": open(&["skipped"], json!({ "skipped": event(json!({ "by": text, "skipped": time })) })),
    })
}
