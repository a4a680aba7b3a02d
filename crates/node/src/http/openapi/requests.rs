//! Requests, their types and their responders.

use serde_json::{Value, json};

use super::{content, json_reply, operation, parameter, reference, with_body};
use crate::http::requests::MAX_WINDOW;

/// What is in a body is for callers and responders to agree on.
fn with_any_body(mut operation: Value) -> Value {
    operation["requestBody"] = json!({ "content": { "*/*": {} } });
    operation
}

pub(super) fn paths() -> Value {
    let described = [("200", json_reply("The type", "RequestType", &[]))];
    let receipt = [("200", json_reply("What became of it", "RequestReceipt", &[]))];
    let say = |id: &str, summary: &str| operation("requests", id, summary, &[], &receipt);
    let of_request = || json!([parameter("requestType"), parameter("request")]);
    json!({
        "/v1/request-types": {
            "get": operation("requests", "listRequestTypes", "Lists types of requests in order of their names", &["afterName", "limit"],
                &[("200", json_reply("Types of requests", "RequestTypeList", &["Link"]))]),
        },
        "/v1/request-types/{type}": {
            "parameters": [parameter("requestType")],
            "put": with_body(operation("requests", "declareRequestType", "Declares a type of requests, or changes it from now on; the same again changes nothing", &["idempotencyKey"], &described), "RequestTypeConfig"),
            "get": operation("requests", "describeRequestType", "Says what callers and responders of a type agree on, and how it stands at this node", &[], &described),
            "delete": operation("requests", "deleteRequestType", "Deletes a type of requests; its responders leave", &["idempotencyKey"],
                &[("200", json_reply("It is gone", "RequestTypeDeleted", &[]))]),
        },
        "/v1/request-types/{type}/serve": {
            "parameters": [parameter("requestType")],
            "get": operation("requests", "serveRequests", "Hands out requests by server-sent events as they come, no more than the window has room for, for as long as it is read", &["responderWindow"],
                &[("200", content("`event: request` with a `RequestAsked`; `event: stop` with the `request` that nobody waits for any more; `event: closing` before the node ends it", &[], &[("text/event-stream", reference("RequestAsked"))]))]),
        },
        "/v1/request-types/{type}/requests/{request}/answer": { "parameters": of_request(), "post": with_any_body(say("answerRequest", "Answers a request with the body, of any media type")) },
        "/v1/request-types/{type}/requests/{request}/fault": { "parameters": of_request(), "post": with_body(say("failRequest", "Says that a request has no answer, and why"), "RequestFault") },
        "/v1/request-types/{type}/requests/{request}/let-go": { "parameters": of_request(), "post": say("letGoOfRequest", "Says that a request is worked on no more: its caller does not know what came of it") },
        "/v1/requests/{type}": {
            "parameters": [parameter("requestType")],
            "post": with_any_body(operation("requests", "ask", "Asks with the body, of any media type, and waits for the answer: until `quorate-timeout`, or as long as the type allows. Leaving cancels. A durable request is kept, and not waited for", &["requestIdGiven", "requestCallback", "requestCallbackSecret"],
                &[("200", content("The answer, as its responder sent it", &[], &[("*/*", json!({}))])), ("202", json_reply("A message without an answer was handed to a responder, or a durable request is kept: `Location` says where it is told what became of it", "RequestHanded", &["Location"]))])),
        },
        "/v1/requests/{type}/{id}": {
            "parameters": [parameter("requestType"), parameter("requestId")],
            "get": operation("requests", "requestStatus", "Says what became of a durable request", &["requestWait"], &[("200", json_reply("What became of it", "RequestStatus", &[]))]),
        },
    })
}

pub(super) fn parameters(one: fn(&str, &str, &str, &Value) -> Value) -> Value {
    let text = json!({ "type": "string" });
    json!({
        "requestType": one("path", "type", "The type's name: 1 to 512 bytes of UTF-8; `/` is written `%2F`", &text),
        "request": one("path", "request", "What the request was handed out under", &text),
        "requestId": one("path", "id", "The id of a durable request: 1 to 512 bytes of UTF-8; `/` is written `%2F`", &text),
        "requestIdGiven": one("query", "id", "What a durable request is known by: asked again under it with the same body, it is the same one. The node draws one where there is none", &text),
        "requestCallback": one("query", "callback", "Where the outcome of a durable request is told: an `http` or `https` address, which is sent a signed CloudEvent of type `quorate.request.done`, `.failed` or `.unanswered`", &text),
        "requestCallbackSecret": one("header", "quorate-callback-secret", "What that is signed with, as Standard Webhooks: `whsec_` and the base64 of 24 to 64 bytes. Goes with `callback`", &text),
        "requestWait": one("query", "wait", "How long to wait until nothing more happens to it, such as `30s`; at most `http.max-wait`", &text),
        "responderWindow": one("query", "window", "How many requests the responder is handed at once", &json!({ "type": "integer", "minimum": 1, "maximum": MAX_WINDOW, "default": 16 })),
    })
}

pub(super) fn schemas() -> Value {
    let text = json!({ "type": "string" });
    let number = json!({ "type": "integer", "minimum": 0 });
    let (open, closed) = (super::schemas::object, super::schemas::closed);
    let exchange = json!({ "enum": ["answer", "best-effort", "durable"], "default": "answer", "description": "Whether there is an answer, and whether it is kept" });
    let limit = json!({ "type": "string", "default": "30s", "description": "How long one is worked on and waited for at most: more than nothing, at most an hour" });
    let idempotent = json!({ "type": "boolean", "default": false, "description": "Whether doing it twice is as doing it once, so that what is unknown may be repeated" });
    json!({
        "RequestTypeConfig": closed(&[], json!({ "exchange": exchange, "time-limit": limit, "idempotent": idempotent })),
        "RequestType": open(&["type", "exchange", "time-limit", "idempotent"], json!({
            "type": text,
            "exchange": exchange,
            "time-limit": limit,
            "idempotent": idempotent,
            "responders": { "type": "integer", "minimum": 0, "description": "Those who serve it at this node" },
            "waiting": { "type": "integer", "minimum": 0, "description": "Requests of this node that nobody has begun on" },
            "running": number,
            "queue": { "type": "string", "description": "The queue of a durable type, which says how its requests stand" },
        })),
        "RequestTypeList": open(&["request-types"], json!({ "request-types": { "type": "array", "items": reference("RequestType") } })),
        "RequestTypeDeleted": open(&["type", "deleted"], json!({ "type": text, "deleted": { "const": true } })),
        "RequestAsked": open(&["request"], json!({
            "request": text,
            "id": { "type": "string", "description": "The id of a durable request" },
            "attempt": { "type": "integer", "minimum": 1, "description": "How often a durable request has now been handed out" },
            "timeout": { "type": "string", "description": "What its caller has left, as `quorate-timeout` says it" },
            "content-type": text,
            "body": { "type": "string", "description": "The body where it is UTF-8" },
            "body-base64": { "type": "string", "description": "The body where it is not" },
        })),
        "RequestFault": closed(&["code"], json!({
            "code": { "type": "string", "minLength": 1, "maxLength": 64, "description": "What kind of fault it is, for programs" },
            "detail": { "type": "string", "maxLength": 1_024, "description": "What happened, for people" },
        })),
        "RequestReceipt": open(&["request", "receipt"], json!({ "request": text, "receipt": { "enum": ["taken", "late", "let-go"], "description": "`late`: nobody waited for it any more" } })),
        "RequestHanded": open(&["type"], json!({
            "type": text,
            "handed": { "const": true, "description": "It was handed to a responder" },
            "id": { "type": "string", "description": "The id of a durable request" },
            "repeated": { "type": "boolean", "description": "Whether the durable request had been asked before" },
        })),
        "RequestStatus": open(&["type", "id", "status"], json!({
            "type": text,
            "id": text,
            "status": { "enum": ["waiting", "running", "done", "failed", "unanswered"], "description": "`unanswered`: settled without an answer; it may have been done" },
            "attempts": { "type": "integer", "minimum": 0, "description": "How often it was handed out" },
            "answer": open(&[], json!({ "content-type": text, "body": text, "body-base64": text })),
            "fault": open(&["code", "detail"], json!({ "code": text, "detail": text })),
            "dead-letter": { "type": "string", "description": "Where it lies; it is asked again once somebody replays it" },
        })),
    })
}
