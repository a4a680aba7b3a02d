//! Schemas: register, check, list, show.

use axum::extract::{Request, State};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode, Uri,
    header::{CONTENT_TYPE, LOCATION},
    request::Parts,
};
use quorate_data::schema::{Compatibility, Finding, Incompatibility, SchemaSize, SchemaVersion, address};
use quorate_foundations::name::Name;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Node, Shared,
    body_in::Received,
    cloud_events::essence,
    document, percent,
    problem::{Code, Problem},
    reply,
    request::{self, Params},
    streams::once,
};
use crate::verbs::{Foreseen, SchemaSummary};

type Reply = Result<axum::response::Response, Problem>;

/// The media type of a schema.
pub(super) const SCHEMA: &str = "application/schema+json";

/// `GET /v1/schemas`
pub(super) async fn list(State(node): State<Shared>, request: Request) -> Reply {
    let params = Params::of(request.uri(), &["after", "limit"])?;
    let limit = params.limit(&node)?;
    let after = params.one("after")?.map(Name::new).transpose()?;
    let found = node.schemas.list(after.as_ref().map(Name::as_str), limit);
    let shown: Vec<Value> = found.iter().map(summary).collect();
    let mut response = reply::json(StatusCode::OK, &json!({ "schemas": shown }));
    if let Some(last) = found.last().filter(|_| found.len() == limit) {
        let mut address = format!("/v1/schemas?limit={limit}&after=");
        percent::encode(last.event_type.as_str(), &mut address);
        reply::next(response.headers_mut(), &address);
    }
    Ok(reply::whole(response))
}

/// `GET /v1/schemas/{type}`
pub(super) async fn describe(State(node): State<Shared>, request: Request) -> Reply {
    let event_type = request::event_type(request.uri())?;
    Params::of(request.uri(), &[])?;
    let (one, versions) = node.schemas.describe(event_type.as_str()).ok_or_else(|| unknown(&event_type))?;
    let mut shown = summary(&one);
    shown["versions"] = versions.iter().map(|one| version(&event_type, one)).collect();
    Ok(reply::whole(reply::json(StatusCode::OK, &shown)))
}

/// `GET /v1/schemas/{type}/versions/{version}`: the schema itself.
pub(super) async fn show(State(node): State<Shared>, request: Request) -> Reply {
    let event_type = request::event_type(request.uri())?;
    Params::of(request.uri(), &[])?;
    let number = version_of(request.uri())?;
    let missing = || {
        let latest = node.schemas.describe(event_type.as_str()).map(|(one, _)| one.latest);
        latest.map_or_else(
            || unknown(&event_type),
            |latest| {
                let detail = format!("the event type `{event_type}` has no version {number}; its latest is {latest}");
                Problem::new(Code::SchemaNotFound, detail).with("eventtype", event_type.as_str())
            },
        )
    };
    let row = node.schemas.version(event_type.as_str(), number).ok_or_else(missing)?;
    Ok(reply::whole(reply::bytes(StatusCode::OK, SCHEMA, row.schema.into())))
}

/// `POST /v1/schemas/{type}/versions`: 201 if it is new, 200 if the type has had it.
pub(super) async fn register(State(node): State<Shared>, request: Request) -> Reply {
    let (sent, head, received) = sent(&node, request).await?;
    once(&node, &head, &received.bytes, registered(&node, sent)).await
}

async fn registered(node: &Node, Sent { event_type, schema, mode }: Sent) -> Result<Response<Bytes>, Problem> {
    let registered = node.schemas.register(&event_type, schema, mode).await?;
    let address = address(event_type.as_str(), registered.version);
    let document = json!({
        "type": event_type.as_str(),
        "version": registered.version.get(),
        "mode": registered.compatibility.as_str(),
        "new": registered.new,
        "schema": address,
    });
    let status = if registered.new { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = reply::json(status, &document);
    if let Ok(address) = HeaderValue::from_str(&address) {
        response.headers_mut().insert(LOCATION, address);
    }
    Ok(response)
}

/// `POST /v1/schemas/{type}/check`: what registering it would come to.
pub(super) async fn check(State(node): State<Shared>, request: Request) -> Reply {
    let (Sent { event_type, schema, mode }, ..) = sent(&node, request).await?;
    let (foreseen, mode) = node.schemas.check(&event_type, schema, mode).await?;
    let (version, new, with, not_compared) = match foreseen {
        Foreseen::Existing(version) => (Some(version), false, Vec::new(), 0),
        Foreseen::New(version) => (Some(version), true, Vec::new(), 0),
        Foreseen::Incompatible { with, not_compared } => (None, true, with, not_compared),
    };
    let document = json!({
        "type": event_type.as_str(),
        "mode": mode.as_str(),
        "compatible": version.is_some(),
        "version": version.map(SchemaVersion::get),
        "new": new,
        "incompatible": incompatible(&with),
        "notcompared": not_compared,
    });
    Ok(reply::whole(reply::json(StatusCode::OK, &document)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Setting {
    mode: Compatibility,
}

/// `PUT /v1/schemas/{type}/mode`
pub(super) async fn set_mode(State(node): State<Shared>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    let event_type = request::event_type(&head.uri)?;
    Params::of(&head.uri, &[])?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let Setting { mode } = document::parsed(&received.bytes)?;
    let effect = async {
        node.schemas.set_mode(&event_type, mode).await?;
        Ok(reply::json(StatusCode::OK, &json!({ "type": event_type.as_str(), "mode": mode.as_str() })))
    };
    once(&node, &head, &received.bytes, effect).await
}

/// A schema that is sent, for an event type.
struct Sent {
    event_type: Name,
    schema: Value,
    mode: Option<Compatibility>,
}

/// What a request sends, and the request.
async fn sent(node: &Node, request: Request) -> Result<(Sent, Parts, Received), Problem> {
    let (head, body) = request.into_parts();
    let event_type = request::event_type(&head.uri)?;
    let params = Params::of(&head.uri, &["mode"])?;
    let mode = params.one("mode")?.map(mode).transpose()?;
    is_schema(&head.headers)?;
    let received = node.receive(&head, body).await?;
    within(&received.bytes, node.config.schemas.limits.schema_bytes)?;
    Ok((Sent { event_type, schema: document::parsed(&received.bytes)?, mode }, head, received))
}

fn mode(text: &str) -> Result<Compatibility, Problem> {
    text.parse().map_err(|_| {
        let known: Vec<&str> = Compatibility::ALL.into_iter().map(Compatibility::as_str).collect();
        request::wrong("mode", format!("`mode={}` is none of {}", request::short(text), known.join(", ")))
    })
}

fn is_schema(headers: &HeaderMap) -> Result<(), Problem> {
    let given = request::header(headers, &CONTENT_TYPE)?.unwrap_or_default();
    if [SCHEMA, reply::JSON].iter().any(|known| essence(given).eq_ignore_ascii_case(known)) {
        return Ok(());
    }
    let detail = format!("`content-type: {}` is neither {SCHEMA} nor {}", request::short(given), reply::JSON);
    Err(Problem::new(Code::UnsupportedMediaType, detail))
}

/// Looked at before it is parsed: JSON takes many times its length in memory.
fn within(body: &Bytes, limit: usize) -> Result<(), Problem> {
    if body.len() <= limit {
        return Ok(());
    }
    let detail = format!("a schema has at most {limit} bytes, this one has {}", body.len());
    Err(Problem::new(Code::TooLarge, detail).with("limit", limit))
}

/// The version in a path: its fifth segment.
fn version_of(uri: &Uri) -> Result<SchemaVersion, Problem> {
    let segment = uri.path().split('/').nth(5).unwrap_or_default();
    let number = request::whole(segment).and_then(|number| u32::try_from(number).ok()).and_then(SchemaVersion::new);
    number.ok_or_else(|| {
        let detail = format!("`{}` is no version of a schema: a whole number from 1", request::short(segment));
        request::wrong("version", detail)
    })
}

fn unknown(event_type: &Name) -> Problem {
    let detail = format!("the event type `{event_type}` has no schema");
    Problem::new(Code::SchemaNotFound, detail).with("eventtype", event_type.as_str())
}

fn summary(one: &SchemaSummary) -> Value {
    json!({ "type": one.event_type.as_str(), "mode": one.mode.as_str(), "latest": one.latest.get() })
}

fn version(event_type: &Name, one: &SchemaSize) -> Value {
    json!({
        "version": one.version.get(),
        "mode": one.compatibility.as_str(),
        "bytes": one.bytes,
        "schema": address(event_type.as_str(), one.version),
    })
}

/// With which versions a schema does not go together, and why.
pub(super) fn incompatible(with: &[Incompatibility]) -> Value {
    let one = |with: &Incompatibility| {
        let findings: Vec<Value> = with.findings.iter().map(finding).collect();
        json!({ "version": with.version.get(), "findings": findings })
    };
    with.iter().map(one).collect()
}

fn finding(one: &Finding) -> Value {
    json!({
        "path": one.new,
        "before": one.old,
        "direction": one.direction,
        "certainty": one.certainty,
        "was": one.was,
        "became": one.became,
        "message": one.to_string(),
    })
}
