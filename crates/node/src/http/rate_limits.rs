//! Rate limits: how they stand, and forgetting what was taken.

use axum::extract::{Request, State};
use http::StatusCode;
use quorate_data::store::{SqlError, TransactError};
use quorate_foundations::name::Name;
use quorate_resilience::rate_limit::Rate;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Shared, document, percent,
    problem::{Code, Problem},
    reply,
    request::{self, Params},
    streams::once,
};
use crate::verbs::{LimitError, Limited};

type Reply = Result<axum::response::Response, Problem>;

impl From<LimitError> for Problem {
    fn from(error: LimitError) -> Self {
        match error {
            LimitError::NotFound { .. } => Self::of(Code::LimitNotFound, &error),
            LimitError::Store(cause) => Self::of_transaction(cause),
            LimitError::Count(cause) => match cause.0.downcast_ref() {
                Some(TransactError::<SqlError>::Store(cause) | TransactError::Aborted(SqlError::Store(cause))) => {
                    cause.clone().into()
                }
                _ => Self::of(Code::StoreFailed, &cause),
            },
        }
    }
}

/// A limit as JSON.
fn shown(limited: &Limited) -> Value {
    let of = |rate: &Rate| {
        let window = u64::try_from(rate.window.as_millis()).unwrap_or(u64::MAX);
        json!({ "name": limited.name().as_str(), "requests": rate.quota, "window-ms": window, "burst": rate.burst })
    };
    match limited {
        Limited::Clients(standing) => {
            let mut shown = of(&standing.rate);
            shown["of"] = "requests".into();
            shown["count"] = if standing.by_store { "store" } else { "process" }.into();
            shown["refused"] = standing.refused.to_string().into();
            if let Some(known) = standing.known {
                shown["keys"] = known.into();
                shown["crowded"] = standing.crowded.to_string().into();
            }
            if let Some(uncounted) = standing.uncounted {
                shown["uncounted"] = uncounted.to_string().into();
            }
            shown
        }
        Limited::Calls { rate, left, uncounted, refused, .. } => {
            let mut shown = of(rate);
            shown["of"] = "calls".into();
            shown["count"] = if uncounted.is_some() { "store" } else { "process" }.into();
            shown["refused"] = refused.to_string().into();
            if let Some(left) = left {
                shown["remaining"] = left.remaining.into();
                shown["reset-ms"] = u64::try_from(left.reset.as_millis()).unwrap_or(u64::MAX).into();
            }
            if let Some(uncounted) = uncounted {
                shown["uncounted"] = uncounted.to_string().into();
            }
            shown
        }
    }
}

/// `GET /v1/limits`
pub(super) async fn list(State(node): State<Shared>, request: Request) -> Reply {
    let params = Params::of(request.uri(), &["after", "limit"])?;
    let limit = params.limit(&node)?;
    let after = params.one("after")?.map(Name::new).transpose()?;
    let found = node.limits.list(after.as_ref(), limit);
    let all: Vec<Value> = found.iter().map(shown).collect();
    let mut response = reply::json(StatusCode::OK, &json!({ "limits": all }));
    if let Some(last) = found.last().filter(|_| found.len() == limit) {
        let mut next = format!("/v1/limits?limit={limit}&after=");
        percent::encode(last.name().as_str(), &mut next);
        reply::next(response.headers_mut(), &next);
    }
    Ok(reply::whole(response))
}

/// `GET /v1/limits/{name}`
pub(super) async fn describe(State(node): State<Shared>, request: Request) -> Reply {
    let name = request::rate_limit(request.uri())?;
    Params::of(request.uri(), &[])?;
    Ok(reply::whole(reply::json(StatusCode::OK, &shown(&node.limits.describe(&name)?))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// `POST /v1/limits/{name}/reset`
pub(super) async fn reset(State(node): State<Shared>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    let name = request::rate_limit(&head.uri)?;
    Params::of(&head.uri, &[])?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let Nothing {} = document::parsed(&received.bytes)?;
    let resetting = async { Ok(reply::json(StatusCode::OK, &shown(&node.limits.reset(&name).await?))) };
    once(&node, &head, &received.bytes, resetting).await
}
