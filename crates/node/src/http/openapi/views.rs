//! Materialized views.

use serde_json::{Value, json};

use super::{json_reply, operation, parameter, reference, with_body};
use crate::http::views::STANDINGS;

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
            "get": operation("views", "describeView", "Says how a view and each of its builds stand", &[],
                &[("200", json_reply("The view", "View", &[]))]),
        },
        "/v1/views/{name}/rebuild": replied("rebuildView", "Begins another build beside the one readers have", "ViewRebuild", "202", "ViewBuildBegun"),
        "/v1/views/{name}/pause": action("pauseView", "Pauses a build: its rows stay as they are", "ViewBuildNamed", "ViewPaused"),
        "/v1/views/{name}/resume": action("resumeView", "Has a build go on that was paused, or that stopped before an event", "ViewBuildNamed", "ViewPaused"),
        "/v1/views/{name}/switch": action("switchView", "Gives readers a build that has caught up", "ViewSwitch", "ViewSwitched"),
        "/v1/views/{name}/drop": action("dropViewBuild", "Drops a build that readers do not have", "ViewDrop", "ViewDropped"),
        "/v1/views/{name}/audit": action("auditView", "Recounts the log: whether a build missed an event, or took one twice", "ViewBuildNamed", "ViewAudit"),
        "/v1/views/{name}/parked": listed("listViewParked", "Lists parked events in order of position", "ViewParkedList"),
        "/v1/views/{name}/skipped": listed("listViewSkipped", "Lists events that were left out, in order of position", "ViewSkippedList"),
        "/v1/views/{name}/replay": action("replayView", "Applies the parked events of a key, in order", "ViewReplay", "Selected"),
        "/v1/views/{name}/skip": action("skipViewEvent", "Leaves out an event that is parked, or that a build stopped before, on record", "ViewSkip", "Selected"),
    })
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
    let shard = open(
        &["shard", "epoch", "checkpoint", "standing"],
        json!({
            "shard": number,
            "epoch": number,
            "checkpoint": reference("Count"),
            "standing": { "enum": STANDINGS, "description": "How it stands with its owner in this process" },
            "stopped-at": reference("Count"),
            "reason": text,
        }),
    );
    json!({
        "View": open(&["view", "head", "live", "builds"], json!({
            "view": text,
            "head": reference("Count"),
            "live": { "type": ["integer", "null"], "description": "The build that readers have" },
            "effects-waiting": number,
            "effects-given-up": number,
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
            "applied": number,
            "parked": number,
            "skipped": number,
            "shards": { "type": "array", "items": shard },
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
        "ViewParkedList": open(&["parked"], json!({ "parked": event(json!({ "attempts": number, "parked": time })) })),
        "ViewSkippedList": open(&["skipped"], json!({ "skipped": event(json!({ "by": text, "skipped": time })) })),
    })
}
