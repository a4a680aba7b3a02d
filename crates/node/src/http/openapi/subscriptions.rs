//! Durable subscriptions.

use serde_json::{Value, json};

use super::{json_reply, operation, parameter, reference, with_body};
use crate::http::subscriptions::{MAX_LEASES, MAX_PULL};

pub(super) fn paths() -> Value {
    let action = |id: &str, summary: &str, body: &str, reply: &str| {
        let replies = [("200", json_reply("It was done", reply, &[]))];
        let post = operation("subscriptions", id, summary, &["idempotencyKey"], &replies);
        json!({ "parameters": [parameter("subscription")], "post": with_body(post, body) })
    };
    let described = [("200", json_reply("The subscription", "Subscription", &[]))];
    let pulled = [(
        "200",
        json_reply("Events, each under a lease; none if there was none for the whole wait", "Deliveries", &[]),
    )];
    let pull = operation("subscriptions", "pull", "Hands out events, and waits for the first one", &[], &pulled);
    json!({
        "/v1/subscriptions": {
            "get": operation("subscriptions", "listSubscriptions", "Lists durable subscriptions in order of their names", &["afterName", "limit"],
                &[("200", json_reply("Subscriptions", "SubscriptionList", &["Link"]))]),
        },
        "/v1/subscriptions/{name}": {
            "parameters": [parameter("subscription")],
            "put": with_body(operation("subscriptions", "createSubscription", "Creates a durable subscription; the same again changes nothing", &["idempotencyKey"], &described), "SubscriptionConfig"),
            "get": operation("subscriptions", "describeSubscription", "Says how a subscription stands", &[], &described),
            "delete": operation("subscriptions", "deleteSubscription", "Deletes a subscription with all it knows", &["idempotencyKey"],
                &[("200", json_reply("It is gone", "SubscriptionDeleted", &[]))]),
        },
        "/v1/subscriptions/{name}/pull": { "parameters": [parameter("subscription")], "post": with_body(pull, "Pull") },
        "/v1/subscriptions/{name}/ack": action("ack", "Settles events: they are not handed out again", "Ack", "Settled"),
        "/v1/subscriptions/{name}/nack": action("nack", "Gives events back after a failure, to be handed out again later", "Nack", "Settled"),
        "/v1/subscriptions/{name}/extend": action("extend", "Holds events for longer", "Extend", "Settled"),
        "/v1/subscriptions/{name}/park": action("park", "Sets events aside, with everything of their keys behind them", "Park", "Settled"),
        "/v1/subscriptions/{name}/parked": {
            "parameters": [parameter("subscription")],
            "get": operation("subscriptions", "listParked", "Lists parked events in order of position", &["after", "limit"],
                &[("200", json_reply("Parked events", "ParkedList", &["Link"]))]),
        },
        "/v1/subscriptions/{name}/replay": action("replay", "Lets parked events be handed out again, in order", "Select", "Selected"),
        "/v1/subscriptions/{name}/discard": action("discard", "Gives parked events up", "Select", "Selected"),
    })
}

pub(super) fn schemas() -> Value {
    let text = json!({ "type": "string" });
    let number = json!({ "type": "integer", "minimum": 0 });
    let span = json!({ "type": "string", "description": "A span such as `500ms`, `30s`, `5m`" });
    let list = json!({ "type": "array", "items": text });
    let leases = json!({ "type": "array", "minItems": 1, "maxItems": MAX_LEASES, "uniqueItems": true, "items": text });
    let given = json!({ "oneOf": [{ "type": "integer", "format": "int64", "minimum": 0 }, reference("Count")] });
    let open = super::schemas::object;
    let closed = super::schemas::closed;
    let standing = json!({
        "subscription": text,
        "config": reference("SubscriptionConfig"),
        "checkpoint": { "description": "Every event up to here was settled or parked", "allOf": [reference("Count")] },
    });
    let described = json!({
        "head": reference("Count"),
        "scanned": reference("Count"),
        "lag-events": number,
        "lag-seconds": { "type": "number", "description": "How long ago the oldest unsettled event was recorded" },
        "oldest": { "oneOf": [reference("Count"), { "type": "null" }], "description": "The oldest unsettled event" },
        "in-flight": number,
        "resting": number,
        "waiting": number,
        "parked": number,
        "settled-ahead": number,
        "passed-over": { "type": "integer", "minimum": 0, "description": "Events that were truncated or archived before their turn" },
        "stall": { "enum": ["window", "parked", null], "description": "What holds it up" },
    });
    json!({
        "SubscriptionConfig": closed(&[], json!({
            "filter": closed(&[], json!({
                "items": { "type": "array", "items": closed(&[], json!({ "types": list, "tags": list, "categories": list })) },
            })),
            "start": { "oneOf": [{ "enum": ["beginning", "end"] }, closed(&["after"], json!({ "after": given }))] },
            "key": {
                "description": "Events with the same key are handed out in order, one at a time",
                "oneOf": [
                    { "enum": ["stream", "unordered"] },
                    closed(&["tag"], json!({ "tag": text })),
                    closed(&["extension"], json!({ "extension": text })),
                ],
            },
            "lease-ttl": span,
            "max-attempts": { "type": "integer", "minimum": 1, "maximum": 1_000 },
            "window": { "type": "integer", "minimum": 1, "maximum": 10_000 },
            "max-parked": { "type": "integer", "minimum": 1, "maximum": 10_000 },
            "backoff": closed(&[], json!({ "first": span, "max": span })),
        })),
        "SubscriptionSummary": open(&["subscription", "config", "checkpoint"], standing),
        "Subscription": { "allOf": [reference("SubscriptionSummary"), open(&["head", "lag-events", "lag-seconds"], described)] },
        "SubscriptionList": open(&["subscriptions"], json!({
            "subscriptions": { "type": "array", "items": reference("SubscriptionSummary") },
        })),
        "SubscriptionDeleted": open(&["subscription", "deleted"], json!({ "subscription": text, "deleted": { "const": true } })),
        "Pull": closed(&[], json!({
            "max": { "type": "integer", "minimum": 1, "maximum": MAX_PULL, "default": 1 },
            "wait": span,
            "owner": { "type": "string", "description": "Who asks, for people: at most 256 bytes" },
        })),
        "Deliveries": open(&["deliveries"], json!({
            "deliveries": { "type": "array", "items": open(&["event", "lease", "attempt", "key", "ttl"], json!({
                "event": reference("RecordedEvent"),
                "lease": text,
                "attempt": { "type": "integer", "minimum": 1 },
                "key": text,
                "ttl": span,
            })) },
        })),
        "Ack": closed(&["leases"], json!({ "leases": leases })),
        "Nack": closed(&["leases"], json!({ "leases": leases, "delay": span, "reason": text })),
        "Extend": closed(&["leases"], json!({ "leases": leases, "ttl": span })),
        "Park": closed(&["leases"], json!({ "leases": leases, "reason": text })),
        "Settled": open(&["leases"], json!({ "leases": { "type": "integer", "description": "How many" } })),
        "ParkedList": open(&["parked"], json!({
            "parked": { "type": "array", "items": open(&["logposition", "key", "attempts", "failures"], json!({
                "logposition": reference("Count"),
                "key": text,
                "attempts": number,
                "failures": { "type": "array", "items": open(&["attempt", "time", "cause", "reason"], json!({
                    "attempt": number,
                    "time": { "type": "string", "format": "date-time" },
                    "cause": { "enum": ["nacked", "expired", "parked", "behind"] },
                    "reason": text,
                })) },
            })) },
        })),
        "Select": { "oneOf": [closed(&["key"], json!({ "key": text })), closed(&["all"], json!({ "all": { "const": true } }))] },
        "Selected": open(&["events"], json!({ "events": { "type": "integer", "description": "How many" } })),
    })
}
