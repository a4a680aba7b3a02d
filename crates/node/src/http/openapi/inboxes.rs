//! Inboxes.

use serde_json::{Value, json};

use super::{json_reply, operation, parameter, reference, with_body};

pub(super) fn paths() -> Value {
    let of = |action: &str| format!("/v1/inboxes/{{name}}/{action}");
    let post = |id: &str, summary: &str, reply: &str| {
        operation("inboxes", id, summary, &["idempotencyKey"], &[("200", json_reply("It was done", reply, &[]))])
    };
    let one = |operation: Value| json!({ "parameters": [parameter("inbox")], "post": operation });
    json!({
        "/v1/inboxes": {
            "get": operation("inboxes", "listInboxes", "Lists the inboxes of the configuration in order of their names", &["afterName", "limit"],
                &[("200", json_reply("Inboxes", "InboxList", &["Link"]))]),
        },
        "/v1/inboxes/{name}": {
            "parameters": [parameter("inbox")],
            "get": operation("inboxes", "describeInbox", "Says how an inbox stands", &[], &[("200", json_reply("The inbox", "Inbox", &[]))]),
        },
        of("parked"): {
            "parameters": [parameter("inbox")],
            "get": operation("inboxes", "listInboxParked", "Lists parked messages in order of their places; a page may end early where they are large", &["afterEntry", "limit"],
                &[("200", json_reply("Parked messages", "InboxParked", &["Link"]))]),
        },
        of("replay"): one(with_body(post("replayInbox", "Takes parked messages in again, of each key in order, until one fails", "InboxReplayed"), "InboxSelect")),
        of("discard"): one(with_body(post("discardInboxParked", "Gives parked messages up: they never take effect", "InboxDiscarded"), "InboxSelect")),
    })
}

pub(super) fn schemas() -> Value {
    let text = json!({ "type": "string" });
    let time = json!({ "type": "string", "format": "date-time" });
    let count = |what: &str| json!({ "type": "integer", "minimum": 0, "description": what });
    let open = super::schemas::object;
    let or_null = |schema: Value| json!({ "oneOf": [schema, { "type": "null" }] });
    let failure = open(
        &["attempt", "time", "cause", "reason"],
        json!({
            "attempt": { "type": "integer", "minimum": 0 },
            "time": time,
            "cause": { "enum": ["nacked", "expired", "parked", "replayed"] },
            "reason": text,
        }),
    );
    let messages = count("Messages");
    json!({
        "Inbox": open(&["inbox", "transport", "topic", "group", "stream", "queue", "state", "parked", "last-error", "counts"], json!({
            "inbox": text,
            "transport": { "type": "string", "description": "The broker's address, without a password" },
            "topic": text,
            "group": text,
            "stream": { "type": ["string", "null"], "description": "The stream that messages are appended to, with places for what they say" },
            "queue": { "type": ["string", "null"], "description": "The queue that messages are sent to" },
            "state": { "enum": ["starting", "receiving", "waiting", "stopped"] },
            "parked": { "type": ["integer", "null"], "minimum": 0, "description": "Messages that were set aside" },
            "last-error": or_null(open(&["time", "what"], json!({ "time": time, "what": text }))),
            "counts": or_null(open(&["done", "repeated", "failed", "parked", "held-back"], json!({
                "done": count("Messages that took effect"),
                "repeated": count("Messages that came once more, and had taken effect"),
                "failed": count("Attempts that failed"),
                "parked": count("Messages that were parked, or came again and were parked by then"),
                "held-back": count("Messages that the store could not take, so that the broker kept them"),
            }))),
        })),
        "InboxList": open(&["inboxes"], json!({ "inboxes": { "type": "array", "items": reference("Inbox") } })),
        "InboxParked": open(&["parked"], json!({
            "parked": { "type": "array", "items": open(&["place", "identity", "key", "unreadable", "event", "attempts", "failures"], json!({
                "place": reference("Count"),
                "identity": { "type": "string", "description": "What makes it the same message when it comes again" },
                "key": text,
                "unreadable": { "type": ["string", "null"], "description": "What keeps it from being read" },
                "event": { "type": "object", "description": "What it says, as a CloudEvent; of what cannot be read, what could be" },
                "attempts": { "type": "integer", "minimum": 0 },
                "failures": { "type": "array", "items": failure },
            })) },
        })),
        "InboxSelect": {
            "oneOf": [
                super::schemas::closed(&["key"], json!({ "key": text })),
                super::schemas::closed(&["identity"], json!({ "identity": { "type": "string", "description": "This one; replaying it replays what is parked before it in its key, too" } })),
                super::schemas::closed(&["all"], json!({ "all": { "const": true } })),
            ],
        },
        "InboxReplayed": open(&["messages", "failed-keys"], json!({ "messages": messages, "failed-keys": count("Keys whose next message failed again: it stays parked, with what is behind it") })),
        "InboxDiscarded": open(&["messages"], json!({ "messages": messages })),
    })
}
