//! Data subjects.

use serde_json::{Value, json};

use super::{json_reply, operation, parameter, reference};

pub(super) fn paths() -> Value {
    json!({
        "/v1/subjects/{subject}": {
            "parameters": [parameter("dataSubject")],
            "get": operation("erasure", "describeDataSubject", "Says whether a data subject was erased", &[],
                &[("200", json_reply("What is known of it", "DataSubject", &[]))]),
        },
        "/v1/subjects/{subject}/erase": {
            "parameters": [parameter("dataSubject")],
            "post": operation("erasure", "eraseDataSubject", "Destroys a data subject's keys: what its events said can never be read again", &["idempotencyKey"],
                &[("200", json_reply("It is erased, by this request or an earlier one", "Erased", &[]))]),
        },
        "/v1/erasures": {
            "get": operation("erasure", "listErasures", "Reads a page of the erasure ledger, oldest first", &["afterEntry", "limit"],
                &[("200", json_reply("Entries", "ErasureList", &["Link"]))]),
        },
        "/v1/erasures/export": {
            "get": operation("erasure", "exportErasures", "The whole ledger, as a restore takes it", &[],
                &[("200", json_reply("The ledger", "Ledger", &[]))]),
        },
    })
}

pub(super) fn schemas() -> Value {
    let open = super::schemas::object;
    let text = json!({ "type": "string" });
    let count = json!({ "type": "integer", "minimum": 0 });
    let time = json!({ "type": "string", "format": "date-time" });
    let name = json!({ "type": "string", "pattern": "^[0-9a-f]{64}$", "description": "The data subject's name in the ledger: a hash, salted with the store's id" });
    let generation =
        json!({ "type": "integer", "minimum": 1, "description": "Keys of the subject up to this one are destroyed" });
    json!({
        "Erased": open(&["subject", "events", "keys", "generation", "erased_at", "entry"], json!({
            "subject": text,
            "events": { "type": "integer", "description": "How many events became unreadable by this request" },
            "keys": { "type": "integer", "description": "How many keys it destroyed; 0: it was done already, or nothing was ever sealed" },
            "generation": count,
            "erased_at": { "oneOf": [time, { "type": "null" }] },
            "entry": { "oneOf": [reference("Count"), { "type": "null" }], "description": "The ledger's entry that says so" },
        })),
        "DataSubject": open(&["subject", "name", "erased", "live", "key-missing", "incomplete", "erasure"], json!({
            "subject": text,
            "name": name,
            "erased": { "type": "boolean", "description": "It was erased completely, and nothing was written about it since" },
            "live": { "type": "boolean", "description": "A key of it lives: data about it can be read" },
            "key-missing": { "type": "boolean", "description": "An event about it is sealed with a key that is not here although it was not erased: put the right file of keys back" },
            "incomplete": { "type": "boolean", "description": "An erasure has begun and is not complete: repeat it" },
            "erasure": { "oneOf": [reference("Erasure"), { "type": "null" }], "description": "Its newest entry in the ledger" },
        })),
        "Erasure": open(&["entry", "subject", "generation", "erased_at"], json!({
            "entry": reference("Count"),
            "subject": name,
            "generation": generation,
            "erased_at": time,
        })),
        "ErasureList": open(&["store", "erasures"], json!({
            "store": reference("Count"),
            "erasures": { "type": "array", "items": reference("Erasure") },
        })),
        "Ledger": open(&["store", "erasures"], json!({
            "store": reference("Count"),
            "erasures": { "type": "array", "items": open(&["subject", "generation", "erased_at"], json!({
                "subject": name,
                "generation": generation,
                "erased_at": time,
            })) },
        })),
    })
}
