//! Webhooks.

use quorate_communication::event_bus::webhook::Config;
use serde_json::{Value, json};

use super::{json_reply, operation, parameter, reference, with_body};

pub(super) fn paths() -> Value {
    let of = |action: &str| format!("/v1/webhooks/{{name}}/{action}");
    let post = |id: &str, summary: &str, reply: &str| {
        operation("webhooks", id, summary, &["idempotencyKey"], &[("200", json_reply("It was done", reply, &[]))])
    };
    let one = |operation: Value| json!({ "parameters": [parameter("webhook")], "post": operation });
    let described = json_reply("The webhook; with its secret where that was drawn just now", "Webhook", &[]);
    let declared = [("200", described.clone()), ("201", described.clone())];
    let rotated = [("200", json_reply("The new secret, which is shown this once", "WebhookSecret", &[]))];
    let rotate = operation(
        "webhooks",
        "rotateWebhookSecret",
        "Signs with another secret, and for a while with those before",
        &[],
        &rotated,
    );
    json!({
        "/v1/webhooks": {
            "get": operation("webhooks", "listWebhooks", "Lists webhooks in order of their names", &["afterName", "limit"],
                &[("200", json_reply("Webhooks", "WebhookList", &["Link"]))]),
        },
        "/v1/webhooks/{name}": {
            "parameters": [parameter("webhook")],
            "put": with_body(operation("webhooks", "declareWebhook", "Declares a webhook, or changes how it is; the same again changes nothing", &[], &declared), "WebhookConfig"),
            "get": operation("webhooks", "describeWebhook", "Says how a webhook stands", &[], &[("200", described)]),
            "delete": operation("webhooks", "deleteWebhook", "Deletes a webhook with all that is known of it", &[],
                &[("200", json_reply("It is gone", "WebhookDeleted", &[]))]),
        },
        of("secrets"): one(with_body(rotate, "WebhookRotation")),
        of("test"): one(post("testWebhook", "Sends an event that is in no log, once, also to a webhook that is disabled", "WebhookTested")),
        of("enable"): one(post("enableWebhook", "Sends events again, from where it was", "Webhook")),
        of("disable"): one(with_body(post("disableWebhook", "Sends nothing until it is enabled; its events wait", "Webhook"), "WebhookDisabling")),
        of("attempts"): {
            "parameters": [parameter("webhook")],
            "get": operation("webhooks", "listWebhookAttempts", "Lists the last attempts, the newest first", &["beforeNumber", "limit"],
                &[("200", json_reply("Attempts", "WebhookAttempts", &["Link"]))]),
        },
        of("parked"): {
            "parameters": [parameter("webhook")],
            "get": operation("webhooks", "listWebhookParked", "Lists parked events in order of position", &["after", "limit"],
                &[("200", json_reply("Parked events", "ParkedList", &["Link"]))]),
        },
        of("replay"): one(with_body(post("replayWebhook", "Lets parked events be sent again, in order", "Selected"), "Select")),
        of("discard"): one(with_body(post("discardWebhookParked", "Gives parked events up", "Selected"), "Select")),
    })
}

pub(super) fn schemas() -> Value {
    let text = json!({ "type": "string" });
    let time = json!({ "type": "string", "format": "date-time" });
    let seconds = json!({ "type": "number", "minimum": 0 });
    let span = json!({ "type": "string", "description": "A span such as `500ms`, `30s`, `5m`" });
    let secret = json!({ "type": "string", "description": "`whsec_` and the base64 of 24 to 64 bytes" });
    let status = json!({ "type": ["integer", "null"], "description": "The answer's status, if there was one" });
    let of_subscription =
        |member: &str| json!({ "$ref": format!("#/components/schemas/SubscriptionConfig/properties/{member}") });
    let open = super::schemas::object;
    let closed = super::schemas::closed;
    let or_null = |schema: Value| json!({ "oneOf": [schema, { "type": "null" }] });
    let standing = json!({
        "webhook": text,
        "config": reference("WebhookConfig"),
        "state": { "enum": ["active", "failing", "disabled", "deleting"] },
        "disabled": or_null(open(&["since", "reason", "automatic"], json!({
            "since": time,
            "reason": text,
            "automatic": { "type": "boolean", "description": "Whether the node did it: then another address or secret lifts it" },
        }))),
        "failing-since": or_null(time.clone()),
        "paused-until": { "oneOf": [time, { "type": "null" }], "description": "Until when it asked to be left alone" },
    });
    let described = json!({
        "secrets": { "type": "array", "items": open(&["fingerprint", "until"], json!({
            "fingerprint": text,
            "until": { "oneOf": [time, { "type": "null" }], "description": "Until when it signs" },
        })) },
        "secret": secret,
        "breaker": { "enum": ["closed", "open", "half-open", null], "description": "Null while nothing was sent in this process" },
        "subscription": or_null(reference("Subscription")),
    });
    json!({
        "WebhookConfig": closed(&["url"], json!({
            "url": { "type": "string", "format": "uri", "maxLength": Config::MAX_URL_BYTES },
            "secret": secret,
            "filter": of_subscription("filter"),
            "start": of_subscription("start"),
            "key": of_subscription("key"),
            "content": { "enum": ["structured", "binary"], "default": "structured" },
            "timeout": span,
            "places": { "type": "integer", "minimum": 1, "maximum": Config::MAX_PLACES, "default": 8 },
            "max-attempts": { "type": "integer", "minimum": 1, "maximum": 1_000, "default": 18 },
            "backoff": of_subscription("backoff"),
            "window": of_subscription("window"),
            "max-parked": of_subscription("max-parked"),
            "disable-after": span,
        })),
        "WebhookSummary": open(&["webhook", "config", "state"], standing),
        "Webhook": { "allOf": [reference("WebhookSummary"), open(&["secrets", "breaker", "subscription"], described)] },
        "WebhookList": open(&["webhooks"], json!({ "webhooks": { "type": "array", "items": reference("WebhookSummary") } })),
        "WebhookDeleted": open(&["webhook", "deleted"], json!({ "webhook": text, "deleted": { "const": true } })),
        "WebhookRotation": closed(&[], json!({ "secret": secret, "overlap": span })),
        "WebhookSecret": open(&["webhook", "secret", "fingerprint"], json!({ "webhook": text, "secret": secret, "fingerprint": text })),
        "WebhookDisabling": closed(&[], json!({ "reason": text })),
        "WebhookTested": open(&["webhook-id", "delivered", "outcome", "took-seconds"], json!({
            "webhook-id": text,
            "delivered": { "type": "boolean" },
            "status": status,
            "outcome": text,
            "took-seconds": seconds,
        })),
        "WebhookAttempts": open(&["attempts"], json!({
            "attempts": { "type": "array", "items": open(&["number", "logposition", "webhook-id", "attempt", "time", "outcome"], json!({
                "number": reference("Count"),
                "logposition": reference("Count"),
                "webhook-id": text,
                "type": text,
                "attempt": { "type": "integer", "minimum": 1 },
                "time": time,
                "took-seconds": seconds,
                "status": status,
                "outcome": text,
            })) },
        })),
    })
}
