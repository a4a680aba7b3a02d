//! The OpenAPI 3.1 document: written beside the routes and held against them by tests.

use std::sync::LazyLock;

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{
    cloud_events::{BATCH, STRUCTURED},
    problem::{Code, PROBLEM, Problem},
    reply,
    views::LINES,
};

mod breakers;
mod erasure;
mod event_schemas;
mod event_types;
mod inboxes;
mod policies;
mod processes;
mod queues;
mod relays;
mod requests;
mod retention;
mod sagas;
mod schemas;
mod subscriptions;
mod transactions;
mod views;
mod webhooks;

static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| build().to_string().into());

/// `GET /openapi.json`
pub(super) async fn document() -> Result<axum::response::Response, Problem> {
    Ok(reply::whole(reply::bytes(StatusCode::OK, reply::JSON, DOCUMENT.clone())))
}

fn build() -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "quorate",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "An event store: append, read and follow streams of CloudEvents. Any request may say in the header `quorate-timeout` (or `grpc-timeout`) how long its caller waits, as in `1500m`: it is given up then, with the problem `deadline-passed`.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "tags": [
            { "name": "streams", "description": "Events of one stream, in the order of their versions" },
            { "name": "log", "description": "All events, in the order of their positions" },
            { "name": "subscriptions", "description": "Durable subscriptions: shared among consumers, settled event by event" },
            { "name": "queues", "description": "Message queues: work left for others, done once, in order where it matters" },
            { "name": "requests", "description": "Requests with an answer and messages without one: asked of responders that are there" },
            { "name": "sagas", "description": "Sagas: business transactions over several services that always end: done, undone, or visibly stuck" },
            { "name": "processes", "description": "Choreographed processes: what nobody leads, what is overdue in it, and what led to what" },
            { "name": "transactions", "description": "Two-phase commit: beginning a transaction, what is in doubt, what became of one, ending one by hand" },
            { "name": "inboxes", "description": "Inboxes: which messages of brokers come in, as the configuration says" },
            { "name": "relays", "description": "Relays: what of the log is published to brokers, as the configuration says" },
            { "name": "webhooks", "description": "Webhooks: services that are called with every event they asked for" },
            { "name": "views", "description": "Materialized views: how they stand, rebuilding beside what readers have, parked events" },
            { "name": "event-types", "description": "Event types: who sends them, by which schemas, and who takes them" },
            { "name": "schemas", "description": "JSON Schemas of event types: what every append is held against" },
            { "name": "erasure", "description": "Data subjects: people whose data is forgotten on demand" },
            { "name": "breakers", "description": "Circuit breakers of this process: how they stand, and forcing them" },
            { "name": "policies", "description": "Resilience policies: what calls to a dependency pass, and how they stand" },
            { "name": "limits", "description": "Rate limits of this node's clients, and of calls to dependencies" },
            { "name": "store", "description": "Care for the store" },
            { "name": "node", "description": "How the node is" },
        ],
        "paths": merged([
            paths(),
            retention::paths(),
            subscriptions::paths(),
            queues::paths(),
            requests::paths(),
            sagas::paths(),
            processes::paths(),
            transactions::paths(),
            webhooks::paths(),
            relays::paths(),
            inboxes::paths(),
            event_schemas::paths(),
            event_types::paths(),
            erasure::paths(),
            views::paths(),
            breakers::paths(),
            policies::paths(),
        ]),
        "components": {
            "schemas": merged([
                schemas::schemas(),
                retention::schemas(),
                subscriptions::schemas(),
                queues::schemas(),
                requests::schemas(),
                sagas::schemas(),
                processes::schemas(),
                transactions::schemas(),
                webhooks::schemas(),
                relays::schemas(),
                inboxes::schemas(),
                event_schemas::schemas(),
                event_types::schemas(),
                erasure::schemas(),
                views::schemas(),
                breakers::schemas(),
                policies::schemas(),
            ]),
            "parameters": parameters(),
            "headers": headers(),
            "responses": { "Problem": problem() },
        },
    })
}

/// The members of all objects.
fn merged<const N: usize>(objects: [Value; N]) -> Value {
    let members = objects.into_iter().filter_map(|object| match object {
        Value::Object(members) => Some(members),
        _ => None,
    });
    Value::Object(members.flatten().collect())
}

fn paths() -> Value {
    json!({
        "/v1/streams/{stream}/events": {
            "parameters": [parameter("stream")],
            "post": append_to_stream(),
            "get": operation("streams", "readStream", "Reads a page of a stream",
                &["from", "limit", "direction", "at", "recordedAt", "token", "prefer"],
                &[("200", page("StreamPage", &["ETag", "Quorate-Token", "Link"]))]),
        },
        "/v1/streams/{stream}/events/{version}": {
            "parameters": [parameter("stream"), parameter("version")],
            "get": operation("streams", "readEvent", "Reads one event: as JSON, or in binary mode for who accepts the type of its data",
                &["token", "prefer"],
                &[("200", content("The event", &["ETag", "Quorate-Token"], &[(STRUCTURED, reference("RecordedEvent")), ("*/*", json!({}))]))]),
        },
        "/v1/streams/{stream}/subscribe": {
            "parameters": [parameter("stream")],
            "get": operation("streams", "subscribeToStream", "Follows a stream by server-sent events", &["from", "after", "lastEventId", "token", "prefer"],
                &[("200", events())]),
        },
        "/v1/streams/{stream}": {
            "parameters": [parameter("stream")],
            "get": operation("streams", "describeStream", "Says what a stream is like", &["token", "prefer"],
                &[("200", json_reply("The stream", "Stream", &["ETag", "Quorate-Token"]))]),
        },
        "/v1/streams": {
            "get": operation("streams", "listStreams", "Lists streams in order of their names", &["prefix", "afterName", "limit", "token", "prefer"],
                &[("200", json_reply("Streams", "StreamList", &["Quorate-Token", "Link"]))]),
        },
        "/v1/events": {
            "post": with_body(operation("log", "appendToStreams", "Appends to several streams, on conditions, all or nothing", &["idempotencyKey"],
                &[("201", json_reply("All was appended", "AppendedToStreams", &["ETag", "Quorate-Token"]))]), "AppendToStreams"),
            "get": operation("log", "readLog", "Reads a page of the log", &["after", "limit", "type", "tag", "category", "at", "recordedAt", "token", "prefer"],
                &[("200", page("LogPage", &["Quorate-Token", "Link"]))]),
        },
        "/v1/events/subscribe": {
            "get": operation("log", "subscribeToLog", "Follows the log by server-sent events", &["after", "lastEventId", "type", "tag", "category", "token", "prefer"],
                &[("200", events())]),
        },
        "/v1/store/verify": {
            "post": operation("store", "verifyStore", "Checks every stored byte, and tells its progress line by line", &[],
                &[("200", content("Lines of JSON, the last one with what was found", &[], &[(LINES, json!({ "type": "string" }))]))]),
        },
        "/v1/store/backup": {
            "post": with_body(operation("store", "backUpStore", "Writes a consistent copy into the folder for backups", &["idempotencyKey"],
                &[("200", content("For whoever accepts lines: JSON, how far it is, and on the last one the copy, or the problem", &[], &[(LINES, json!({ "type": "string" }))])),
                  ("201", json_reply("The copy", "BackedUp", &[]))]), "Backup"),
        },
        "/v1/store/backup-keys": {
            "post": with_body(operation("store", "backUpKeys", "Writes a consistent copy of data subjects' keys into the folder for backups of keys", &["idempotencyKey"],
                &[("201", json_reply("The copy", "BackedUp", &[]))]), "Backup"),
        },
        "/livez": { "get": operation("node", "live", "Whether the process is alive", &[], &[("200", json_reply("It is", "Health", &[]))]) },
        "/readyz": { "get": operation("node", "ready", "Whether it takes requests", &[],
            &[("200", json_reply("It does", "Health", &[])), ("503", json_reply("It does not", "Health", &[]))]) },
        "/startupz": { "get": operation("node", "started", "Whether it has started", &[], &[("200", json_reply("It has", "Health", &[]))]) },
        "/metrics": { "get": operation("node", "metrics", "What it counts", &[],
            &[("200", content("OpenMetrics", &[], &[("application/openmetrics-text", json!({ "type": "string" }))]))]) },
        "/openapi.json": { "get": operation("node", "openapi", "This document", &[],
            &[("200", content("OpenAPI 3.1", &[], &[(reply::JSON, json!({ "type": "object" }))]))]) },
        "/errors/{code}": {
            "parameters": [parameter("code")],
            "get": operation("node", "explainError", "Says what an error means and what to do", &[],
                &[("200", content("A page", &[], &[("text/html", json!({ "type": "string" }))]))]),
        },
        "/": { "get": operation("node", "index", "A page of links", &[],
            &[("200", content("A page", &[], &[("text/html", json!({ "type": "string" }))]))]) },
    })
}

fn append_to_stream() -> Value {
    let created = json_reply("The events were appended, or had been", "Appended", &["ETag", "Quorate-Token"]);
    let parameters = ["ifMatch", "ifNoneMatch", "idempotencyKey"];
    let what = "Appends one event (structured or binary mode) or a batch to a stream";
    let mut operation = operation("streams", "appendToStream", what, &parameters, &[("201", created)]);
    operation["requestBody"] = json!({
        "required": true,
        "content": {
            STRUCTURED: { "schema": reference("Event") },
            BATCH: { "schema": { "type": "array", "minItems": 1, "items": reference("Event") } },
            "*/*": { "schema": { "description": "Binary mode: attributes as `ce-…` headers, data as the body" } },
        },
    });
    operation
}

fn operation(tag: &str, id: &str, summary: &str, parameters: &[&str], replies: &[(&str, Value)]) -> Value {
    let mut responses: Map<String, Value> =
        replies.iter().map(|(status, reply)| ((*status).to_owned(), reply.clone())).collect();
    responses.insert("default".to_owned(), json!({ "$ref": "#/components/responses/Problem" }));
    json!({
        "tags": [tag],
        "operationId": id,
        "summary": summary,
        "parameters": parameters.iter().map(|name| parameter(name)).collect::<Vec<_>>(),
        "responses": responses,
    })
}

fn with_body(mut operation: Value, schema: &str) -> Value {
    operation["requestBody"] = json!({ "required": true, "content": { reply::JSON: { "schema": reference(schema) } } });
    operation
}

fn parameter(name: &str) -> Value {
    json!({ "$ref": format!("#/components/parameters/{name}") })
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn json_reply(description: &str, schema: &str, headers: &[&str]) -> Value {
    content(description, headers, &[(reply::JSON, reference(schema))])
}

fn page(schema: &str, headers: &[&str]) -> Value {
    let batch = json!({ "type": "array", "items": reference("RecordedEvent") });
    content("A page of events", headers, &[(reply::JSON, reference(schema)), (BATCH, batch)])
}

fn events() -> Value {
    let what = "Events as `data:` with their position as `id:`; then `event: caught-up`, and live ones; `event: closing` ends it";
    content(what, &[], &[("text/event-stream", json!({ "type": "string" }))])
}

fn plain(description: &str) -> Value {
    json!({ "description": description })
}

fn content(description: &str, headers: &[&str], media: &[(&str, Value)]) -> Value {
    let schemas: Map<String, Value> =
        media.iter().map(|(media, schema)| ((*media).to_owned(), json!({ "schema": schema }))).collect();
    let headers: Map<String, Value> = headers
        .iter()
        .map(|name| ((*name).to_owned(), json!({ "$ref": format!("#/components/headers/{name}") })))
        .collect();
    json!({ "description": description, "headers": headers, "content": schemas })
}

fn problem() -> Value {
    content("It was not done; `type` says why", &[], &[(PROBLEM, reference("Problem"))])
}

fn parameters() -> Value {
    let text = json!({ "type": "string" });
    let time = json!({ "type": "string", "format": "date-time" });
    let count = json!({ "type": "integer", "format": "int64", "minimum": 1 });
    let list = json!({ "type": "array", "items": { "type": "string" } });
    let one: fn(&str, &str, &str, &Value) -> Value = |place, name, what, schema| json!({ "in": place, "name": name, "description": what, "required": place == "path", "schema": schema });
    let mut all = json!({
        "stream": one("path", "stream", "The stream's name: 1 to 512 bytes of UTF-8; `/` is written `%2F`", &text),
        "subscription": one("path", "name", "The subscription's name: 1 to 512 bytes of UTF-8; `/` is written `%2F`", &text),
        "schedule": one("path", "schedule", "The schedule's name: 1 to 512 bytes of UTF-8; `/` is written `%2F`", &text),
        "window": one("query", "window", "How many messages the consumer holds at most: those it was handed that are not settled, and whose leases run", &json!({ "type": "integer", "minimum": 1, "maximum": queues::MAX_WINDOW, "default": 16 })),
        "leaseTtl": one("query", "ttl", "How long each message is held; without it, as the queue's configuration says", &text),
        "queue": one("path", "name", "The queue's name: 1 to 512 bytes of UTF-8; `/` is written `%2F`", &text),
        "saga": one("path", "name", "The saga's name: at most 128 bytes of UTF-8 without `:` and `/`", &text),
        "sagaId": one("path", "id", "The saga's id: 1 to 256 bytes of UTF-8 without `/`", &text),
        "sagaKey": one("query", "key", "Only those with this business key", &text),
        "sagaStatus": one("query", "status", "Only those that stand so", &json!({ "enum": ["running", "compensating", "stuck", "completed", "compensated", "forced"] })),
        "afterSaga": one("query", "after", "Begin behind this saga: its name, `/`, its id", &text),
        "webhook": one("path", "name", "The webhook's name: 1 to 480 bytes of UTF-8; `/` is written `%2F`", &text),
        "beforeNumber": one("query", "before", "Begin before this number, downwards", &json!({ "type": "integer", "format": "int64", "minimum": 0 })),
        "breaker": one("path", "name", "The breaker's name: 1 to 512 bytes of UTF-8; `/` is written `%2F`", &text),
        "policy": one("path", "name", "The policy's name: 1 to 512 bytes of UTF-8; `/` is written `%2F`", &text),
        "rateLimit": one("path", "name", "The limit's name: 1 to 512 bytes of UTF-8; `/` is written `%2F`", &text),
        "eventType": one("path", "type", "The event type: 1 to 512 bytes of UTF-8; `/` is written `%2F`", &text),
        "mode": one("query", "mode", "What this one registration has to keep, other than the mode of its type", &event_schemas::modes()),
        "code": one("path", "code", "The last part of a problem's `type`", &text),
        "from": one("query", "from", "The version to begin with, included", &count),
        "after": one("query", "after", "Begin behind this position", &json!({ "type": "integer", "format": "int64", "minimum": 0 })),
        "dataSubject": one("path", "subject", "A data subject, as events name it: 1 to 512 bytes of UTF-8; `/` is written `%2F`", &text),
        "afterEntry": one("query", "after", "Begin behind this entry; entries count from 1", &json!({ "type": "integer", "format": "int64", "minimum": 0 })),
        "afterName": one("query", "after", "Begin behind this name", &text),
        "limit": one("query", "limit", "How many at most; beyond the node's maximum is an error", &count),
        "eventTypeLimit": one("query", "limit", "How many types at most", &event_types::limit()),
        "direction": one("query", "direction", "Which way to read", &json!({ "enum": ["forward", "backward"] })),
        "at": one("query", "at", "Only what had happened by then: events whose `time` (the recorded time where there is none) is not later. A page may then be empty and still have a next one", &time),
        "recordedAt": one("query", "recordedat", "Only what was known by then: events whose recorded time is not later", &time),
        "prefix": one("query", "prefix", "What the streams' names begin with", &text),
        "type": one("query", "type", "Any of these types", &list),
        "tag": one("query", "tag", "All of these tags", &list),
        "category": one("query", "category", "Any of these categories: streams' names up to the first `-`", &list),
        "token": one("header", "Quorate-Token", "The write that the reply must include", &text),
        "prefer": one("header", "Prefer", "`wait=n`: how many seconds to wait for that write", &text),
        "lastEventId": one("header", "Last-Event-ID", "The `id` of the last thing that was told; a position alone will do, but does not notice a restore", &text),
        "idempotencyKey": one("header", "Idempotency-Key", "Makes a repeated request be answered as the first was", &text),
        "ifMatch": one("header", "If-Match", "`\"n\"`: the stream's version; `*`: it exists", &text),
        "ifNoneMatch": one("header", "If-None-Match", "`*`: the stream does not exist yet", &json!({ "const": "*" })),
        "ifNoneMatchRead": one("header", "If-None-Match", "The `ETag` of the rows that the client has", &text),
    });
    let more = [
        parameters_of_views(one),
        transactions::parameters(one),
        parameters_of_brokers(one),
        processes::parameters(one),
        requests::parameters(one),
        sagas::parameters(one),
    ];
    for mut more in more {
        if let (Some(all), Some(more)) = (all.as_object_mut(), more.as_object_mut()) {
            all.append(more);
        }
    }
    for name in ["type", "tag", "category", "where", "key"] {
        all[name]["explode"] = true.into();
    }
    all
}

fn parameters_of_brokers(one: fn(&str, &str, &str, &Value) -> Value) -> Value {
    let text = json!({ "type": "string" });
    json!({
        "inbox": one("path", "name", "The inbox's name: 1 to 512 bytes of UTF-8; `/` is written `%2F`", &text),
        "relay": one("path", "name", "The relay's name: 1 to 512 bytes of UTF-8; `/` is written `%2F`", &text),
    })
}

fn parameters_of_views(one: fn(&str, &str, &str, &Value) -> Value) -> Value {
    let text = json!({ "type": "string" });
    let count = json!({ "type": "integer", "format": "int64", "minimum": 1 });
    let list = json!({ "type": "array", "items": { "type": "string" } });
    json!({
        "view": one("path", "name", "The view's name: small letters and digits in words joined by `-`", &text),
        "viewTable": one("path", "table", "The table of the view", &text),
        "rowKey": one("path", "key", "The values of the key's columns, with commas between them; a comma in a value is written `%2C`", &text),
        "where": one("query", "where", "Conditions that all hold: `column.test.value` with a test of eq, ne, lt, lte, gt, gte, in, starts, is", &list),
        "order": one("query", "order", "Columns, each with `.desc` where it goes down; the key comes behind them", &list),
        "columns": one("query", "columns", "The columns to show; all of them without it", &list),
        "afterCursor": one("query", "after", "Where the page before ended: its `next`", &text),
        "afterChange": one("query", "after", "The `id` of the last thing that was told; `Last-Event-ID` goes before it", &text),
        "lastChangeId": one("header", "Last-Event-ID", "The `id` of the last thing that was told", &text),
        "maxLag": one("query", "maxlag", "How old an event may be that matters to the view and is not in its rows yet, such as `5s`", &text),
        "beyond": one("query", "beyond", "What becomes of an answer that is older: `refuse` (a problem), or `flag` (`stale` is true)", &json!({ "enum": ["refuse", "flag"] })),
        "build": one("query", "build", "A build of the view; without it the one that readers have", &count),
        "version": one("path", "version", "A version, counted from 1", &count),
        "documentVersion": one("query", "version", "A version of the document; without it the newest one", &count),
        "table": one("query", "table", "A table of the view", &text),
        "key": one("query", "key", "The values of the columns of the table's key, in order", &list),
    })
}

fn headers() -> Value {
    let text = json!({ "type": "string" });
    json!({
        "ETag": { "description": "The version of the stream, or of its metadata, quoted", "schema": text },
        "Quorate-Token": { "description": "Presents everything that this reply shows to a later read", "schema": text },
        "Quorate-Position": { "description": "The position of the log that the answer is as of", "schema": text },
        "Quorate-Feed-Lag": { "description": "Seconds that the view is behind the source that stands worst, by its own time, or `unknown`; only where its document names sources", "schema": text },
        "Quorate-Lag": { "description": "Positions of the log behind that", "schema": text },
        "Quorate-Build": { "description": "The build of the view that was read", "schema": text },
        "Location": { "description": "Where it is served", "schema": text },
        "Link": { "description": "`<…>; rel=\"next\"`: the next page, while there is more", "schema": text },
    })
}

/// The problems' types, for the schema of a problem.
fn types() -> Value {
    Code::ALL.iter().map(|code| Value::from(code.address())).collect()
}

#[cfg(test)]
mod tests;
