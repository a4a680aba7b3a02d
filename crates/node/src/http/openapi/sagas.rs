//! Sagas.

use serde_json::{Value, json};

use super::{content, json_reply, operation, parameter, reference, views::with_document_of, with_body};
use crate::http::{
    declaration::{TOML, YAML},
    reply,
};

pub(super) fn paths() -> Value {
    let text = || json!({ "type": "string" });
    let decide = |id: &str, summary: &str| {
        let decided = [("200", json_reply("It was decided, durably", "SagaDecided", &[]))];
        let post = with_body(operation("sagas", id, summary, &["idempotencyKey"], &decided), "SagaDecision");
        json!({ "parameters": [parameter("saga"), parameter("sagaId")], "post": post })
    };
    let started = [("202", json_reply("Its start is durable, and it runs", "SagaStarted", &["Location"]))];
    let start = operation(
        "sagas",
        "startSaga",
        "Starts a saga; the same id, input and key again is the same saga",
        &["idempotencyKey"],
        &started,
    );
    let told = [("200", json_reply("It was told, durably", "SagaTold", &[]))];
    let signal = operation(
        "sagas",
        "signalSaga",
        "Tells a saga something; the same id again tells nothing",
        &["idempotencyKey"],
        &told,
    );
    json!({
        "/v1/sagas": {
            "get": operation("sagas", "listSagas", "Lists sagas in order of their names and ids", &["sagaKey", "sagaStatus", "sagaParent", "afterSaga", "limit"],
                &[("200", json_reply("Sagas", "SagaList", &["Link"]))]),
        },
        "/v1/sagas/{name}": {
            "parameters": [parameter("saga")],
            "get": operation("sagas", "listSagasOf", "Lists the sagas of a definition in order of their ids", &["sagaKey", "sagaStatus", "sagaParent", "afterName", "limit"],
                &[("200", json_reply("Sagas", "SagaList", &["Link"]))]),
            "post": with_body(start, "SagaStart"),
        },
        "/v1/sagas/{name}/{id}": {
            "parameters": [parameter("saga"), parameter("sagaId")],
            "get": operation("sagas", "describeSaga", "Says how a saga stands; with `Prefer: wait=n` once it has ended or is stuck, or the time is over", &["prefer"],
                &[("200", json_reply("The saga", "Saga", &[]))]),
        },
        "/v1/sagas/{name}/{id}/signal": { "parameters": [parameter("saga"), parameter("sagaId")], "post": with_body(signal, "SagaSignal") },
        "/v1/sagas/{name}/{id}/retry": decide("retrySaga", "Tries a stuck step again, with as many attempts as it had"),
        "/v1/sagas/{name}/{id}/skip": decide("skipSagaStep", "Goes on as if a stuck step were done; it is not compensated later"),
        "/v1/sagas/{name}/{id}/mark-compensated": decide("markSagaStepCompensated", "Says that a stuck compensation was done by other means"),
        "/v1/sagas/{name}/{id}/mark-refused": decide("markSagaStepRefused", "Says that a stuck step was certainly not done: a saga whose pivot it is turns back"),
        "/v1/sagas/{name}/{id}/abort": decide("abortSaga", "Turns a saga back, unless its pivot is done or may be"),
        "/v1/sagas/{name}/{id}/force": decide("forceSaga", "Ends a stuck saga as it is"),
        "/v1/saga-definitions": {
            "get": operation("sagas", "listSagaDefinitions", "Lists the sagas that can be started, with their versions", &[],
                &[("200", json_reply("Definitions", "SagaDefinitionList", &[]))]),
        },
        "/v1/saga-definitions/{name}": {
            "parameters": [parameter("saga")],
            "put": with_document_of("SagaDocument", operation("sagas", "declareSaga",
                "Declares a version of a saga; the same again changes nothing, and a version never becomes another", &["idempotencyKey"],
                &[("201", json_reply("This version was not there", "SagaDeclared", &[])), ("200", json_reply("It was there", "SagaDeclared", &[]))])),
            "get": operation("sagas", "readSagaDocument", "Reads a document as it was declared", &["documentVersion"],
                &[("200", content("The document", &[], &[(TOML, text()), (YAML, text()), (reply::JSON, reference("SagaDocument"))]))]),
        },
        "/v1/saga-definitions/{name}/check": {
            "parameters": [parameter("saga")],
            "post": with_document_of("SagaDocument", operation("sagas", "checkSaga", "Reads a document as declaring it does, and changes nothing", &[],
                &[("200", json_reply("Nothing is wrong with it", "SagaChecked", &[]))])),
        },
    })
}

/// Parameters of sagas that steps started.
pub(super) fn parameters(one: fn(&str, &str, &str, &Value) -> Value) -> Value {
    let what = "Only those that steps of this saga started: its name, `/`, its id";
    json!({ "sagaParent": one("query", "parent", what, &json!({ "type": "string" })) })
}

pub(super) fn schemas() -> Value {
    let (open, closed) = (super::schemas::object, super::schemas::closed);
    let text = json!({ "type": "string" });
    let maybe = json!({ "type": ["string", "null"] });
    let flag = json!({ "type": "boolean" });
    let number = json!({ "type": "integer", "minimum": 0 });
    let version = json!({ "type": "integer", "minimum": 1 });
    let any = json!({ "description": "Any JSON" });
    let time = json!({ "type": "string", "format": "date-time" });
    let status = json!({ "enum": ["running", "compensating", "stuck", "completed", "compensated", "forced"] });
    let list = |of: Value| json!({ "type": "array", "items": of });
    let short = json!({
        "saga": text, "id": text, "version": version, "status": status, "stalled": { "type": "boolean", "description": "It waits for its version to be declared" },
        "trouble": { "type": ["string", "null"], "description": "Why what is next cannot be written, where that does not pass by itself" },
        "key": maybe, "started": time, "updated": time,
        "parent": { "description": "The step that started it", "anyOf": [reference("SagaParent"), { "type": "null" }] },
    });
    let mut whole = short.clone();
    for (name, schema) in [
        ("ended", flag.clone()),
        ("waiting", json!({ "type": "array", "description": "What it waits for", "items": reference("SagaAwaited") })),
        (
            "children",
            json!({ "type": "array", "description": "The sagas that its steps started, the first 1,000 of them: a list with `parent` has all", "items": reference("SagaSummary") }),
        ),
        ("input", any.clone()),
        ("output", any.clone()),
        ("abort", json!({ "type": ["string", "null"], "description": "Why it turned back, or is to" })),
        ("stuck", json!({ "type": ["string", "null"], "description": "Why its plan cannot go on" })),
        ("steps", list(reference("SagaStep"))),
        ("signals", list(open(&["id", "signal", "data"], json!({ "id": text, "signal": text, "data": any })))),
        ("stream", json!({ "type": "string", "description": "The stream of its events" })),
    ] {
        whole[name] = schema;
    }
    json!({
        "SagaDocument": { "type": "object", "description": "A saga: `saga`, `version` and `steps`, as the page on sagas describes it" },
        "SagaStart": closed(&["id"], json!({
            "id": { "type": "string", "description": "Unique among the sagas of this name, for ever" },
            "input": any, "key": { "type": ["string", "null"], "description": "What people look for it by" },
        })),
        "SagaStarted": open(&["saga", "id", "version", "repeated", "status"], json!({ "saga": text, "id": text, "version": version, "repeated": flag, "status": status })),
        "SagaSummary": open(&["saga", "id", "version", "status", "stalled", "trouble", "key", "parent", "started", "updated"], short),
        "SagaList": open(&["sagas"], json!({ "sagas": list(reference("SagaSummary")) })),
        "Saga": open(&["saga", "id", "version", "status", "stalled", "trouble", "waiting", "parent", "children", "ended", "steps", "signals"], whole),
        "SagaAwaited": open(&["for"], json!({
            "for": { "enum": ["decision", "answer", "child", "rest", "quiet", "signal", "timer", "deadline"] },
            "name": { "type": "string", "description": "The signal's or the timer's" }, "step": text,
            "way": { "enum": ["forward", "compensation"] }, "child": reference("SagaChild"),
            "until": { "type": "string", "format": "date-time", "description": "By the wall clock; spans go by the boot clock" },
        })),
        "SagaParent": open(&["saga", "id", "step"], json!({ "saga": text, "id": text, "step": text })),
        "SagaChild": open(&["saga", "id", "version"], json!({ "saga": text, "id": text, "version": version })),
        "SagaStep": open(&["step", "forward", "compensation"], json!({ "step": text, "forward": reference("SagaWay"), "compensation": reference("SagaWay") })),
        "SagaWay": open(&["state", "attempts"], json!({
            "state": { "enum": ["idle", "running", "resting", "done", "refused", "unknown", "skipped", "stuck"] },
            "attempts": number, "output": any, "child": reference("SagaChild"),
            "unkept": { "const": true, "description": "It answered more than is kept; the output is null" },
            "failure": open(&["kind", "reason"], json!({ "kind": { "enum": ["refused", "transient", "held", "unknown"] }, "reason": text })),
        })),
        "SagaSignal": closed(&["id", "signal"], json!({ "id": { "type": "string", "description": "Told again under this id, nothing happens" }, "signal": text, "data": any })),
        "SagaTold": open(&["saga", "id", "signal"], json!({ "saga": text, "id": text, "signal": text })),
        "SagaDecision": closed(&["by"], json!({
            "by": { "type": "string", "description": "Who decides" }, "step": { "type": ["string", "null"], "description": "Which step, where several are stuck" },
            "note": { "type": "string", "description": "Why" }, "output": { "description": "What a skipped step is to have answered" },
        })),
        "SagaDecided": open(&["saga", "id", "verb"], json!({ "saga": text, "id": text, "verb": text })),
        "SagaDeclared": open(&["saga", "version", "new"], json!({ "saga": text, "version": version, "new": flag })),
        "SagaChecked": open(&["saga", "version", "valid"], json!({ "saga": text, "version": version, "valid": { "const": true } })),
        "SagaDefinitionList": open(&["definitions"], json!({ "definitions": list(open(&["saga", "versions"], json!({ "saga": text, "versions": list(version) }))) })),
    })
}
