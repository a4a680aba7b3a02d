//! Circuit breakers.

use serde_json::{Value, json};

use super::{json_reply, operation, parameter, reference, with_body};
use crate::http::breakers::{MODES, STATES};

pub(super) fn paths() -> Value {
    let replies = || [("200", json_reply("How it stands", "Breaker", &[]))];
    json!({
        "/v1/breakers": {
            "get": operation("breakers", "listBreakers", "Lists circuit breakers in order of their names", &["afterName", "limit"],
                &[("200", json_reply("Circuit breakers", "BreakerList", &["Link"]))]),
        },
        "/v1/breakers/{name}": {
            "parameters": [parameter("breaker")],
            "get": operation("breakers", "describeBreaker", "Says how a circuit breaker stands", &[], &replies()),
        },
        "/v1/breakers/{name}/mode": {
            "parameters": [parameter("breaker")],
            "put": with_body(operation("breakers", "operateBreaker",
                "Forces a circuit open, disables it, has it only count, or lets it follow its rules", &["idempotencyKey"],
                &replies()), "BreakerMode"),
        },
        "/v1/breakers/{name}/reset": {
            "parameters": [parameter("breaker")],
            "post": with_body(operation("breakers", "resetBreaker",
                "Closes a circuit, and those of a dependency's endpoints and operations with its own, and forgets what was counted; the \
                 mode of each stays", &["idempotencyKey"], &replies()), "BreakerReset"),
        },
    })
}

pub(super) fn schemas() -> Value {
    let (open, closed) = (super::schemas::object, super::schemas::closed);
    let required = ["name", "state", "mode", "generation", "calls", "failures", "slow", "refused"];
    let count = reference("Count");
    json!({
        "Breaker": open(&required, json!({
            "name": { "type": "string" },
            "state": { "enum": STATES },
            "mode": { "enum": MODES },
            "generation": count,
            "calls": count,
            "failures": count,
            "slow": count,
            "refused": count,
            "remaining-ms": { "type": "integer", "minimum": 0, "description": "How long until a call may try, while it is open" },
        })),
        "BreakerList": open(&["breakers"], json!({ "breakers": { "type": "array", "items": reference("Breaker") } })),
        "BreakerMode": closed(&["mode"], json!({ "mode": { "enum": MODES } })),
        "BreakerReset": closed(&[], json!({})),
    })
}
