//! Resilience policies: documents in and out, and how the calls stand that pass them.

use axum::extract::{Request, State as Given};
use bytes::Bytes;
use http::{StatusCode, request::Parts};
use quorate_foundations::{document::Fault, name::Name};
use quorate_resilience::{
    circuit_breaker::State,
    policy::{ApplyError, Changes, SCHEMA as POLICY_SCHEMA, Standing},
};
use serde_json::{Value, json};

use super::{
    Node, Shared, breakers,
    declaration::{self, Declaration},
    percent,
    problem::{Code, Problem},
    reply,
    request::{self, Params},
    schemas::SCHEMA,
    streams::once,
};
use crate::verbs::{Described, Misfit, Policies, PolicyError};

type Reply = Result<axum::response::Response, Problem>;

impl From<PolicyError> for Problem {
    fn from(error: PolicyError) -> Self {
        let told = |code| Self::of(code, &error);
        match &error {
            PolicyError::Unreadable(faults) => {
                let list: Vec<Value> = faults.list.iter().map(fault).collect();
                told(Code::InvalidPolicy).with("faults", list).with("more", faults.more)
            }
            PolicyError::Impossible(misfits) => {
                let list: Vec<Value> = misfits.iter().map(misfit).collect();
                told(Code::ImpossiblePolicy).with("faults", list)
            }
            PolicyError::Other { .. } => told(Code::InvalidPolicy),
            PolicyError::InFile { file, .. } => told(Code::PolicyInFile).with("file", file.display().to_string()),
            PolicyError::NotFound { .. } => told(Code::PolicyNotFound),
            PolicyError::Refused(ApplyError::TooMany { .. } | ApplyError::Breakers(_))
            | PolicyError::TooLarge { .. } => told(Code::TooManyPolicies),
            PolicyError::Refused(_) => told(Code::PolicyTaken),
            PolicyError::Store(cause) => cause.clone().into(),
            PolicyError::Keeping(_) => told(Code::StoreFailed),
        }
    }
}

pub(super) fn fault(fault: &Fault) -> Value {
    json!({ "line": fault.line, "column": fault.column, "field": fault.field, "message": fault.what })
}

fn misfit(misfit: &Misfit) -> Value {
    let mut shown = fault(&misfit.fault);
    shown["policy"] = misfit.policy.as_str().into();
    if let Some(file) = &misfit.file {
        shown["file"] = file.display().to_string().into();
    }
    shown
}

/// A policy as JSON.
fn shown(described: &Described) -> Value {
    let dependencies: Vec<Value> = described.dependencies.iter().map(dependency).collect();
    let mut shown = json!({ "name": described.name.as_str(), "dependencies": dependencies });
    if let Some(file) = &described.file {
        shown["file"] = file.display().to_string().into();
    }
    shown
}

fn dependency(standing: &Standing) -> Value {
    let calls: serde_json::Map<String, Value> =
        standing.outcomes.iter().map(|(word, count)| ((*word).to_owned(), count.to_string().into())).collect();
    let mut shown = json!({ "name": standing.dependency.as_str(), "calls": calls });
    if let Some(breaker) = &standing.breaker {
        shown["breaker"] = breakers::shown(&standing.dependency, breaker);
    }
    if let Some(circuits) = &standing.circuits {
        let of = |state| circuits.all.iter().filter(|(_, circuit)| circuit.state == state).count();
        let (open, half_open) = (of(State::Open), of(State::HalfOpen));
        shown["circuits"] = json!({ "known": circuits.all.len(), "open": open, "half-open": half_open, "crowded": circuits.crowded.to_string() });
    }
    if let Some(bulkhead) = &standing.bulkhead {
        let (limit, in_flight, waiting) = (bulkhead.limit, bulkhead.in_flight, bulkhead.waiting);
        let refused: u64 = bulkhead.refused.iter().map(|(_, count)| count).sum();
        shown["concurrency"] =
            json!({ "limit": limit, "in-flight": in_flight, "waiting": waiting, "refused": refused.to_string() });
    }
    if let Some(retries) = &standing.retries {
        let (retries, over_budget, left) = (retries.retries, retries.over_budget, retries.usage.left);
        shown["retries"] =
            json!({ "retries": retries.to_string(), "over-budget": over_budget.to_string(), "budget-left": left });
    }
    if let Some(limit) = &standing.limit {
        let reset = u64::try_from(limit.reset.as_millis()).unwrap_or(u64::MAX);
        shown["limit"] = json!({ "remaining": limit.remaining, "burst": limit.burst, "reset-ms": reset });
    }
    shown
}

fn changes(changes: &Changes) -> Value {
    let names = |names: &[Name]| names.iter().map(|name| name.as_str().into()).collect::<Vec<Value>>();
    let Changes { added, changed, removed } = changes;
    json!({ "added": names(added), "changed": names(changed), "removed": names(removed) })
}

/// `GET /policy.schema.json`: the JSON Schema of documents.
pub(super) async fn schema() -> Reply {
    Ok(reply::whole(reply::bytes(StatusCode::OK, SCHEMA, POLICY_SCHEMA.as_bytes().into())))
}

/// `GET /v1/policies`
pub(super) async fn list(Given(node): Given<Shared>, request: Request) -> Reply {
    let params = Params::of(request.uri(), &["after", "limit"])?;
    let limit = params.limit(&node)?;
    let after = params.one("after")?.map(Name::new).transpose()?;
    let found = node.policies.list(after.as_ref(), limit).await;
    let all: Vec<Value> = found.iter().map(shown).collect();
    let mut response = reply::json(StatusCode::OK, &json!({ "policies": all }));
    if let Some(last) = found.last().filter(|_| found.len() == limit) {
        let mut next = format!("/v1/policies?limit={limit}&after=");
        percent::encode(last.name.as_str(), &mut next);
        reply::next(response.headers_mut(), &next);
    }
    Ok(reply::whole(response))
}

/// `GET /v1/policies/{name}`
pub(super) async fn describe(Given(node): Given<Shared>, request: Request) -> Reply {
    let name = request::policy(request.uri())?;
    Params::of(request.uri(), &[])?;
    Ok(reply::whole(reply::json(StatusCode::OK, &shown(&node.policies.describe(&name).await?))))
}

/// `DELETE /v1/policies/{name}`
pub(super) async fn delete(Given(node): Given<Shared>, request: Request) -> Reply {
    let (head, _) = request.into_parts();
    let name = request::policy(&head.uri)?;
    Params::of(&head.uri, &[])?;
    let effect = async {
        let changed = node.policies.delete(&name).await?;
        let shown = json!({ "policy": name.as_str(), "deleted": true, "changes": changes(&changed) });
        Ok(reply::json(StatusCode::OK, &shown))
    };
    once(&node, &head, &Bytes::new(), effect).await
}

/// `PUT /v1/policies/{name}/document`: 201 if there was none of this name, 200 if there was.
pub(super) async fn declare(Given(node): Given<Shared>, request: Request) -> Reply {
    let (name, sent, head) = sent(&node, request).await?;
    let effect = async {
        let declared = node.policies.declare(&name, sent.text(), sent.format).await?;
        let status = if declared.new { StatusCode::CREATED } else { StatusCode::OK };
        let changes = changes(&declared.changes);
        let shown = json!({ "policy": declared.name.as_str(), "new": declared.new, "changes": changes });
        Ok(reply::json(status, &shown))
    };
    once(&node, &head, sent.bytes(), effect).await
}

/// `POST /v1/policies/{name}/check`: what declaring it would find wrong.
pub(super) async fn check(Given(node): Given<Shared>, request: Request) -> Reply {
    let (name, sent, _) = sent(&node, request).await?;
    node.policies.check(&name, sent.text(), sent.format).await?;
    Ok(reply::whole(reply::json(StatusCode::OK, &json!({ "policy": name.as_str(), "valid": true }))))
}

/// `GET /v1/policies/{name}/document`: as it was declared.
pub(super) async fn document(Given(node): Given<Shared>, request: Request) -> Reply {
    let name = request::policy(request.uri())?;
    Params::of(request.uri(), &[])?;
    let kept = node.policies.document(&name).await?;
    Ok(reply::whole(declaration::sent_back(kept.format, kept.text().to_owned())))
}

/// The document in a request's body, and the name in its path.
async fn sent(node: &Node, request: Request) -> Result<(Name, Declaration, Parts), Problem> {
    let (head, body) = request.into_parts();
    let name = request::policy(&head.uri)?;
    Params::of(&head.uri, &[])?;
    let document = Declaration::receive(node, &head, body, Policies::MAX_BYTES, Code::InvalidPolicy).await?;
    Ok((name, document, head))
}
