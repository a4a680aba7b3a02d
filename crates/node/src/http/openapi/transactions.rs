//! Transactions of two-phase commit.

use quorate_consistency::two_phase_commit::{Order, RequestId, Transaction};
use serde_json::{Value, json};

use super::{json_reply, operation, parameter, reference, with_body};

pub(super) fn paths() -> Value {
    let begin = "Carries out a transaction once under its id: every participant does its work and the events are in the log, or none of it";
    let begun = |what| json_reply(what, "TransactionBegun", &["Quorate-Token"]);
    let begun =
        [("200", begun("It has ended, as `status` says")), ("202", begun("It may be either: ask for it under its id"))];
    let participants = "Lists who may take part in transactions that the node coordinates";
    let remove = "Takes a service away that will not come back, and records who did it and why";
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
        "/v1/participants": {
            "get": operation("transactions", "listParticipants", participants, &[], &[("200", json_reply("The participants", "ParticipantList", &[]))]),
        },
        "/v1/participants/{participant}/remove": {
            "parameters": [parameter("participant")],
            "post": with_body(operation("transactions", "removeParticipant", remove, &["idempotencyKey"],
                &[("200", json_reply("It is not asked any more", "ParticipantRemoved", &[]))]), "ParticipantRemoval"),
        },
        "/v1/transactions": {
            "post": with_body(operation("transactions", "beginTransaction", begin, &[], &begun), "TransactionToBegin"),
            "get": operation("transactions", "listTransactions", list, &["afterTransaction", "limit"],
                &[("200", json_reply("Transactions in doubt", "TransactionList", &["Link"]))]),
        },
        "/v1/transactions/{transaction}": {
            "parameters": [parameter("transaction")],
            "get": operation("transactions", "describeTransaction", show, &["prefer"], &[("200", json_reply("The transaction", "Transaction", &[]))]),
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
        "transaction": one("path", "transaction", "The transaction's name, `quorate:<uuid>:<takeover>-<number>`, or the id that it was begun under; `/` is written `%2F`", &text),
        "participant": one("path", "participant", "The participant: a service's address; `/` is written `%2F`", &text),
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
    let nullable = |what: &str| json!({ "type": ["string", "null"], "description": what });
    let status = json!({
        "enum": ["committed", "aborted", "in-doubt"],
        "description": "How it ended: `in-doubt` may be either, and will be one of them",
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
            "id": { "type": "string", "description": "The id that it was begun under, where that was asked for; so are the members below" },
            "status": status, "ended": flag("It can be nothing else any more"), "by": nullable("Who said no"), "why": nullable("Why it was aborted"),
        })),
        "TransactionToBegin": closed(&["id", "participants"], json!({
            "id": { "type": "string", "minLength": 1, "maxLength": RequestId::MAX_BYTES, "description": "The caller's own name for it, for ever; it does not begin with `quorate:`" },
            "participants": { "type": "array", "minItems": 1, "maxItems": Transaction::MAX_PARTICIPANTS, "items": reference("TransactionParticipant") },
            "events": { "type": "array", "items": closed(&["stream", "events"], json!({
                "stream": text, "expected": { "description": "As in an append to several streams" },
                "events": { "type": "array", "minItems": 1, "items": reference("Event") },
            })), "description": "Appended to the node's log by the decision itself; what does not hold then aborts it" },
            "answer": { "enum": ["applied", "decided"], "default": "applied", "description": "When to answer: once all have done it, or soon after that was decided; or at once" },
        })),
        "TransactionParticipant": closed(&["work"], json!({
            "url": { "type": "string", "format": "uri", "description": "The address of a service that answers `POST …/prepare` (`{\"gid\", \"work\"}`), `POST …/commit` and `POST …/abort` (`{\"gid\"}`) and `GET …/in-doubt?coordinator={uuid}&limit={n}`" },
            "participant": { "type": "string", "description": "Or the name of a database in the node's settings" },
            "work": { "description": "What it is asked to prepare, in its own words; SQL for a database" },
        })),
        "TransactionBegun": open(&["id", "transaction", "status", "participants", "by", "why", "unconfirmed", "contradicted"], json!({
            "id": text, "transaction": text, "status": status, "participants": list(text.clone()),
            "by": nullable("Who said no; null also where the log did"), "why": nullable("Why it was aborted"),
            "unconfirmed": { "type": ["array", "null"], "items": text, "description": "Who had not confirmed the commit yet, and is told until it does; null where this was read in the log" },
            "contradicted": { "type": ["array", "null"], "items": text, "description": "Who had ended it otherwise by somebody's hand" },
        })),
        "ParticipantList": open(&["participants"], json!({
            "participants": list(open(&["participant", "kind"], json!({ "participant": text, "kind": { "enum": ["service", "database"] } }))),
        })),
        "ParticipantRemoval": closed(&["by", "why"], json!({ "by": reason, "why": reason })),
        "ParticipantRemoved": open(&["participant", "removed"], json!({ "participant": text, "removed": flag("It was there") })),
        "TransactionOrder": closed(&["participant", "ending", "by", "why"], json!({
            "participant": { "type": "string", "description": "By its coordinator's name for it" }, "ending": ending, "by": reason, "why": reason,
        })),
        "TransactionResolved": open(&["transaction", "participant", "ending", "done", "waits", "contradicts"], json!({
            "transaction": text, "participant": text, "ending": ending, "done": flag("The participant has done it"),
            "waits": { "type": ["string", "null"], "description": "Why it has not" }, "contradicts": contradicts,
        })),
    })
}
