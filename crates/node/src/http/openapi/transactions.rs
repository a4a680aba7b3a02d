//! Transactions of two-phase commit.

use quorate_consistency::two_phase_commit::Order;
use serde_json::{Value, json};

use super::{json_reply, operation, parameter, reference, with_body};

pub(super) fn paths() -> Value {
    let list = "Lists the transactions that are in doubt, in the order of their names: what a participant holds and was not told the end of";
    let show = "Says what the log has of a transaction, and who holds something of it";
    let resolve = "Ends a transaction at one participant by hand, and records who ordered it and why before it does";
    let resolved = [
        ("200", json_reply("It is recorded, and done", "TransactionResolved", &[])),
        (
            "202",
            json_reply(
                "It is recorded, and done when the coordinator next reaches the participant",
                "TransactionResolved",
                &[],
            ),
        ),
    ];
    json!({
        "/v1/transactions": {
            "get": operation("transactions", "listTransactions", list, &["afterTransaction", "limit"],
                &[("200", json_reply("Transactions in doubt", "TransactionList", &["Link"]))]),
        },
        "/v1/transactions/{transaction}": {
            "parameters": [parameter("transaction")],
            "get": operation("transactions", "describeTransaction", show, &[], &[("200", json_reply("The transaction", "Transaction", &[]))]),
        },
        "/v1/transactions/{transaction}/resolve": {
            "parameters": [parameter("transaction")],
            "post": with_body(operation("transactions", "resolveTransaction", resolve, &["idempotencyKey"], &resolved), "TransactionOrder"),
        },
    })
}

pub(super) fn parameters(one: impl Fn(&str, &str, &str, &Value) -> Value) -> Value {
    let text = json!({ "type": "string" });
    json!({
        "transaction": one("path", "transaction", "The transaction's name, `quorate:<uuid>:<takeover>-<number>`", &text),
        "afterTransaction": one("query", "after", "Begin behind this transaction", &text),
    })
}

pub(super) fn schemas() -> Value {
    let (open, closed) = (super::schemas::object, super::schemas::closed);
    let text = json!({ "type": "string" });
    let list = |of: Value| json!({ "type": "array", "items": of });
    let ending = json!({ "enum": ["commit", "abort"] });
    let flag = |what: &str| json!({ "type": "boolean", "description": what });
    let decision = json!({
        "enum": ["commit", "none", "unreadable"],
        "description": "What this store's log says: `none` is under way, or aborted, or of a coordinator with another log",
    });
    let reason = json!({ "type": "string", "minLength": 1, "maxLength": Order::MAX_REASON_BYTES });
    let contradicts = flag("It differs from what was decided, so that the transaction was not atomic");
    let standing = json!({
        "enum": ["under-way", "committing", "aborting", "of-successor", "of-older-timeline", "unreadable", "uncoordinated"],
        "description": "Why it has not ended: `uncoordinated` where its coordinator does not run in this process, or was not told of it by the participant",
    });
    json!({
        "TransactionBranch": open(&["participant", "age-ms", "held", "standing"], json!({
            "participant": text, "age-ms": { "type": ["integer", "null"], "minimum": 0 },
            "held": { "type": "array", "items": text, "description": "What it keeps others from, in the participant's words" },
            "standing": standing,
        })),
        "TransactionInDoubt": open(&["transaction", "decision", "branches"], json!({
            "transaction": text, "decision": decision, "branches": list(reference("TransactionBranch")),
        })),
        "TransactionList": open(&["transactions", "silent"], json!({
            "transactions": list(reference("TransactionInDoubt")),
            "silent": list(open(&["participant", "why"], json!({ "participant": text, "why": text }))),
        })),
        "TransactionHeuristic": open(&["participant", "ending", "by", "why", "ordered", "contradicts"], json!({
            "participant": text, "ending": ending, "by": text, "why": text,
            "ordered": flag("Somebody ordered it; otherwise the participant said that it had been done"), "contradicts": contradicts,
        })),
        "Transaction": open(&["transaction", "coordinator", "decision", "participants", "heuristics", "branches", "stream"], json!({
            "transaction": text, "coordinator": text, "decision": decision, "participants": list(text.clone()),
            "heuristics": list(reference("TransactionHeuristic")), "branches": list(reference("TransactionBranch")),
            "stream": { "type": "string", "description": "The stream of its events" },
        })),
        "TransactionOrder": closed(&["participant", "ending", "by", "why"], json!({
            "participant": { "type": "string", "description": "By its coordinator's name for it" }, "ending": ending, "by": reason, "why": reason,
        })),
        "TransactionResolved": open(&["transaction", "participant", "ending", "done", "waits", "contradicts"], json!({
            "transaction": text, "participant": text, "ending": ending, "done": flag("The participant has done it"),
            "waits": { "type": ["string", "null"], "description": "Why it has not" }, "contradicts": contradicts,
        })),
    })
}
