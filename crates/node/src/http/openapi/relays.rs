//! Relays.

use serde_json::{Value, json};

use super::{json_reply, operation, parameter, reference, with_body};

pub(super) fn paths() -> Value {
    let of = |action: &str| format!("/v1/relays/{{name}}/{action}");
    let post = |id: &str, summary: &str, reply: &str| {
        operation("relays", id, summary, &["idempotencyKey"], &[("200", json_reply("It was done", reply, &[]))])
    };
    let one = |operation: Value| json!({ "parameters": [parameter("relay")], "post": operation });
    json!({
        "/v1/relays": {
            "get": operation("relays", "listRelays", "Lists the relays of the configuration in order of their names", &["afterName", "limit"],
                &[("200", json_reply("Relays", "RelayList", &["Link"]))]),
        },
        "/v1/relays/{name}": {
            "parameters": [parameter("relay")],
            "get": operation("relays", "describeRelay", "Says how a relay stands", &[], &[("200", json_reply("The relay", "Relay", &[]))]),
        },
        of("pause"): one(with_body(post("pauseRelay", "Publishes nothing until it is resumed, also after a restart and at every node over the store", "Relay"), "RelayPausing")),
        of("resume"): one(post("resumeRelay", "Publishes again, from where it was", "Relay")),
        of("wake"): one(post("wakeRelay", "Tries the broker again at once, whatever it rests for", "Relay")),
        of("parked"): {
            "parameters": [parameter("relay")],
            "get": operation("relays", "listRelayParked", "Lists parked events in order of position", &["after", "limit"],
                &[("200", json_reply("Parked events", "ParkedList", &["Link"]))]),
        },
        of("replay"): one(with_body(post("replayRelay", "Lets parked events be published again, in order", "Selected"), "Select")),
        of("discard"): one(with_body(post("discardRelayParked", "Gives parked events up", "Selected"), "Select")),
    })
}

pub(super) fn schemas() -> Value {
    let text = json!({ "type": "string" });
    let time = json!({ "type": "string", "format": "date-time" });
    let count = |what: &str| json!({ "type": "integer", "minimum": 0, "description": what });
    let open = super::schemas::object;
    let closed = super::schemas::closed;
    let or_null = |schema: Value| json!({ "oneOf": [schema, { "type": "null" }] });
    let counts = json!({
        "published": count("Events that were confirmed"),
        "repeated": count("Of those, events that the broker had already"),
        "unknown": count("Confirms that did not come, so that events were published once more"),
        "given-back": count("Events that were given back, since the broker was away"),
        "held": count("Times that an event was held, since its topic was full"),
        "unroutable": count("Attempts at events that nobody would get"),
        "refused": count("Events that were parked because no broker takes them"),
        "skipped": count("Events that were not published, since their data subject was erased"),
    });
    let all = ["published", "repeated", "unknown", "given-back", "held", "unroutable", "refused", "skipped"];
    json!({
        "Relay": open(&["relay", "transport", "topic", "state", "paused", "last-error", "counts", "subscription"], json!({
            "relay": text,
            "transport": { "type": "string", "description": "The broker's address, without a password" },
            "topic": { "type": ["string", "null"], "description": "Null where each event goes to the topic named as its stream's category" },
            "state": { "enum": ["starting", "working", "resting", "paused", "stopped"] },
            "paused": or_null(open(&["since", "reason"], json!({ "since": time, "reason": text }))),
            "last-error": or_null(open(&["time", "what"], json!({ "time": time, "what": text }))),
            "counts": or_null(open(&all, counts)),
            "subscription": or_null(reference("Subscription")),
        })),
        "RelayList": open(&["relays"], json!({ "relays": { "type": "array", "items": reference("Relay") } })),
        "RelayPausing": closed(&[], json!({ "reason": text })),
    })
}
