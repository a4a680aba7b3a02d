//! Resilience policies and rate limits.

use serde_json::{Value, json};

use super::{content, json_reply, operation, parameter, reference, views::with_document_of, with_body};
use crate::http::{
    declaration::{TOML, YAML},
    reply,
    schemas::SCHEMA,
};

pub(super) fn paths() -> Value {
    let text = || json!({ "type": "string" });
    json!({
        "/v1/policies": {
            "get": operation("policies", "listPolicies", "Lists resilience policies in order of their names, and how calls stand", &["afterName", "limit"],
                &[("200", json_reply("Policies", "PolicyList", &["Link"]))]),
        },
        "/v1/policies/{name}": {
            "parameters": [parameter("policy")],
            "get": operation("policies", "describePolicy", "Says how the calls stand that pass a policy", &[],
                &[("200", json_reply("The policy", "Policy", &[]))]),
            "delete": operation("policies", "deletePolicy", "Takes a policy out of force that was declared here", &["idempotencyKey"],
                &[("200", json_reply("It is deleted", "PolicyDeleted", &[]))]),
        },
        "/v1/policies/{name}/document": {
            "parameters": [parameter("policy")],
            "put": with_document_of("PolicyDocument", operation("policies", "declarePolicy",
                "Declares a policy: it is in force beside all others, or nothing changes. What circuits, limits and budgets remember stays", &["idempotencyKey"],
                &[("201", json_reply("There was none of this name", "PolicyDeclared", &[])), ("200", json_reply("It takes the place of another", "PolicyDeclared", &[]))])),
            "get": operation("policies", "readPolicyDocument", "Reads a document as it was declared", &[],
                &[("200", content("The document", &[], &[(TOML, text()), (YAML, text()), (reply::JSON, reference("PolicyDocument"))]))]),
        },
        "/v1/policies/{name}/check": {
            "parameters": [parameter("policy")],
            "post": with_document_of("PolicyDocument", operation("policies", "checkPolicy", "Checks a document as declaring it does, and changes nothing", &[],
                &[("200", json_reply("Nothing is wrong with it", "PolicyChecked", &[]))])),
        },
        "/policy.schema.json": {
            "get": operation("policies", "policyDocumentSchema", "The JSON Schema of documents of policies", &[],
                &[("200", content("The schema", &[], &[(SCHEMA, reference("JsonSchema"))]))]),
        },
        "/v1/limits": {
            "get": operation("limits", "listLimits", "Lists rate limits in order of their names", &["afterName", "limit"],
                &[("200", json_reply("Rate limits", "LimitList", &["Link"]))]),
        },
        "/v1/limits/{name}": {
            "parameters": [parameter("rateLimit")],
            "get": operation("limits", "describeLimit", "Says how a rate limit stands", &[],
                &[("200", json_reply("How it stands", "Limit", &[]))]),
        },
        "/v1/limits/{name}/reset": {
            "parameters": [parameter("rateLimit")],
            "post": with_body(operation("limits", "resetLimit", "Forgets what was taken from a rate limit, by everybody", &["idempotencyKey"],
                &[("200", json_reply("How it stands", "Limit", &[]))]), "LimitReset"),
        },
    })
}

fn described(mut schema: Value, text: &str) -> Value {
    schema["description"] = text.into();
    schema
}

pub(super) fn schemas() -> Value {
    let (open, closed) = (super::schemas::object, super::schemas::closed);
    let (count, name) = (reference("Count"), json!({ "type": "string" }));
    let number = json!({ "type": "integer", "minimum": 0 });
    let list = |of: Value| json!({ "type": "array", "items": of });
    json!({
        "PolicyDocument": { "type": "object", "description": "A ResiliencePolicy, as `/policy.schema.json` describes it" },
        "Policy": open(&["name", "dependencies"], json!({
            "name": name,
            "file": { "type": "string", "description": "The file it stands in, where it is to be changed; absent if it was declared here" },
            "dependencies": list(reference("Dependency")),
        })),
        "Dependency": open(&["name", "calls"], json!({
            "name": name,
            "calls": { "type": "object", "description": "What became of calls", "additionalProperties": count },
            "breaker": reference("Breaker"),
            "circuits": described(open(&["known", "open", "half-open", "crowded"], json!({ "known": number, "open": number, "half-open": number, "crowded": count })),
                "Where each endpoint or operation has a circuit: how many there are beside the dependency's own, which `breaker` then is, and how often there was no room for another. `/v1/breakers` names them"),
            "concurrency": open(&["limit", "in-flight", "waiting", "refused"], json!({ "limit": number, "in-flight": number, "waiting": number, "refused": count })),
            "retries": open(&["retries", "over-budget", "budget-left"], json!({ "retries": count, "over-budget": count, "budget-left": number })),
            "limit": open(&["remaining", "burst", "reset-ms"], json!({ "remaining": number, "burst": number, "reset-ms": number })),
        })),
        "PolicyList": open(&["policies"], json!({ "policies": list(reference("Policy")) })),
        "PolicyChanges": open(&["added", "changed", "removed"], json!({ "added": list(name.clone()), "changed": list(name.clone()), "removed": list(name.clone()) })),
        "PolicyDeclared": open(&["policy", "new", "changes"], json!({ "policy": name, "new": { "type": "boolean" }, "changes": reference("PolicyChanges") })),
        "PolicyDeleted": open(&["policy", "deleted", "changes"], json!({ "policy": name, "deleted": { "const": true }, "changes": reference("PolicyChanges") })),
        "PolicyChecked": open(&["policy", "valid"], json!({ "policy": name, "valid": { "const": true } })),
        "Limit": open(&["name", "of", "count", "requests", "window-ms", "burst", "refused"], json!({
            "name": name,
            "of": { "enum": ["requests", "calls"], "description": "Requests that are made to this node, or calls to a dependency" },
            "count": { "enum": ["process", "store"], "description": "Who counts" },
            "requests": number,
            "window-ms": number,
            "burst": number,
            "refused": count,
            "remaining": number,
            "reset-ms": number,
            "keys": { "type": "integer", "minimum": 0, "description": "Clients or tenants that are remembered" },
            "crowded": reference("Count"),
            "uncounted": described(reference("Count"), "Where the store counts: requests or calls that were decided without its count"),
        })),
        "LimitList": open(&["limits"], json!({ "limits": list(reference("Limit")) })),
        "LimitReset": closed(&[], json!({})),
    })
}
