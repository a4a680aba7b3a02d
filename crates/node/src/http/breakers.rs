//! Circuit breakers: how they stand, and what an operator asks of them.

use axum::extract::{Request, State};
use http::{StatusCode, Uri};
use quorate_foundations::name::Name;
use quorate_resilience::circuit_breaker::{Mode, Snapshot, State as Circuit};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    Shared, document, percent,
    problem::{Code, Problem},
    reply,
    request::Params,
    streams::once,
};
use crate::verbs::NoBreaker;

type Reply = Result<axum::response::Response, Problem>;

/// The words for where a circuit stands.
pub(super) const STATES: [&str; 3] = ["closed", "open", "half-open"];
/// The words for what an operator asked for.
pub(super) const MODES: [&str; 4] = ["automatic", "forced-open", "disabled", "metrics-only"];

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Wanted {
    Automatic,
    ForcedOpen,
    Disabled,
    MetricsOnly,
}

impl From<Wanted> for Mode {
    fn from(wanted: Wanted) -> Self {
        match wanted {
            Wanted::Automatic => Self::Automatic,
            Wanted::ForcedOpen => Self::ForcedOpen,
            Wanted::Disabled => Self::Disabled,
            Wanted::MetricsOnly => Self::MetricsOnly,
        }
    }
}

/// The breaker that a path names.
fn named(uri: &Uri) -> Result<Name, Problem> {
    let segment = uri.path().split('/').nth(3).unwrap_or_default();
    let text = percent::decode(segment).map_err(|_| Problem::new(Code::InvalidName, "the name is not UTF-8"))?;
    Name::new(&*text).map_err(|cause| Problem::of(Code::InvalidName, &cause))
}

fn missing(cause: NoBreaker) -> Problem {
    Problem::of(Code::BreakerNotFound, &cause)
}

/// A breaker as JSON.
pub(super) fn shown(name: &Name, snapshot: &Snapshot) -> Value {
    let state = match snapshot.state {
        Circuit::Closed => STATES[0],
        Circuit::Open => STATES[1],
        Circuit::HalfOpen => STATES[2],
    };
    let mode = match snapshot.mode {
        Mode::Automatic => MODES[0],
        Mode::ForcedOpen => MODES[1],
        Mode::Disabled => MODES[2],
        Mode::MetricsOnly => MODES[3],
    };
    let mut shown = json!({
        "name": name.as_str(),
        "state": state,
        "mode": mode,
        "generation": snapshot.generation.to_string(),
        "calls": snapshot.counts.calls.to_string(),
        "failures": snapshot.counts.failures.to_string(),
        "slow": snapshot.counts.slow.to_string(),
        "refused": snapshot.refused.to_string(),
    });
    if let Some(remaining) = snapshot.remaining {
        shown["remaining-ms"] = u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX).into();
    }
    shown
}

/// `GET /v1/breakers`
pub(super) async fn list(State(node): State<Shared>, request: Request) -> Reply {
    let params = Params::of(request.uri(), &["after", "limit"])?;
    let limit = params.limit(&node)?;
    let after = params.one("after")?.map(Name::new).transpose();
    let after = after.map_err(|cause| Problem::of(Code::InvalidName, &cause))?;
    let found = node.breakers.list(after.as_ref(), limit);
    let all: Vec<Value> = found.iter().map(|(name, snapshot)| shown(name, snapshot)).collect();
    let mut response = reply::json(StatusCode::OK, &json!({ "breakers": all }));
    if let Some((last, _)) = found.last().filter(|_| found.len() == limit) {
        let mut next = format!("/v1/breakers?limit={limit}&after=");
        percent::encode(last.as_str(), &mut next);
        reply::next(response.headers_mut(), &next);
    }
    Ok(reply::whole(response))
}

/// `GET /v1/breakers/{name}`
pub(super) async fn describe(State(node): State<Shared>, request: Request) -> Reply {
    let name = named(request.uri())?;
    Params::of(request.uri(), &[])?;
    let snapshot = node.breakers.describe(&name).map_err(missing)?;
    Ok(reply::whole(reply::json(StatusCode::OK, &shown(&name, &snapshot))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Operating {
    mode: Wanted,
}

/// `PUT /v1/breakers/{name}/mode`
pub(super) async fn set_mode(State(node): State<Shared>, request: Request) -> Reply {
    act(&node, request, async |name, Operating { mode }| {
        let snapshot = node.breakers.operate(&name, mode.into()).map_err(missing)?;
        Ok(reply::json(StatusCode::OK, &shown(&name, &snapshot)))
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// `POST /v1/breakers/{name}/reset`
pub(super) async fn reset(State(node): State<Shared>, request: Request) -> Reply {
    act(&node, request, async |name, Nothing {}| {
        let snapshot = node.breakers.reset(&name).map_err(missing)?;
        Ok(reply::json(StatusCode::OK, &shown(&name, &snapshot)))
    })
    .await
}

/// Does what the request's body asks for, once per idempotency key.
async fn act<T: DeserializeOwned>(
    node: &Shared,
    request: Request,
    effect: impl AsyncFnOnce(Name, T) -> Result<http::Response<bytes::Bytes>, Problem>,
) -> Reply {
    let (head, body) = request.into_parts();
    let name = named(&head.uri)?;
    Params::of(&head.uri, &[])?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let wanted: T = document::parsed(&received.bytes)?;
    once(node, &head, &received.bytes, effect(name, wanted)).await
}
