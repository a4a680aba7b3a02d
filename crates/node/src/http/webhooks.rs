//! Webhooks: declare, describe, test, rotate secrets, see attempts, replay.

mod config;
mod show;

use std::time::Duration;

use axum::extract::{Request, State};
use bytes::Bytes;
use http::StatusCode;
use quorate_communication::event_bus::webhook::{Secret, SecretError, Webhooks};
use quorate_data::event::Position;
use quorate_foundations::name::Name;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Shared, document, log, percent,
    problem::Problem,
    reply,
    request::{self, Params},
    settling,
    streams::once,
    subscriptions,
};

type Reply = Result<axum::response::Response, Problem>;

/// `PUT /v1/webhooks/{name}`
pub(super) async fn declare(State(node): State<Shared>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    let name = request::webhook(&head.uri)?;
    Params::of(&head.uri, &[])?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let wanted: config::Document = document::parsed(&received.bytes)?;
    let (config, secret) = wanted.read()?;
    let declared = node.webhooks.declare(&name, config, secret).await?;
    let status = if declared.is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(reply::whole(reply::json(status, &show::declared(&declared))))
}

/// `GET /v1/webhooks/{name}`
pub(super) async fn describe(State(node): State<Shared>, request: Request) -> Reply {
    let name = request::webhook(request.uri())?;
    Params::of(request.uri(), &[])?;
    let described = node.webhooks.describe(&name).await?;
    Ok(reply::whole(reply::json(StatusCode::OK, &show::description(&described))))
}

/// `DELETE /v1/webhooks/{name}`
pub(super) async fn delete(State(node): State<Shared>, request: Request) -> Reply {
    let name = request::webhook(request.uri())?;
    Params::of(request.uri(), &[])?;
    node.webhooks.delete(&name).await?;
    Ok(reply::whole(reply::json(StatusCode::OK, &json!({ "webhook": name.as_str(), "deleted": true }))))
}

/// `GET /v1/webhooks`
pub(super) async fn list(State(node): State<Shared>, request: Request) -> Reply {
    let params = Params::of(request.uri(), &["after", "limit"])?;
    let limit = subscriptions::page(&node, &params)?;
    let after = params.one("after")?.map(Name::new).transpose()?;
    let found = node.webhooks.list(after.as_ref(), limit).await?;
    let shown: Vec<Value> = found.iter().map(show::summary).collect();
    let mut response = reply::json(StatusCode::OK, &json!({ "webhooks": shown }));
    if let Some(last) = found.last().filter(|_| found.len() == limit as usize) {
        let mut address = format!("/v1/webhooks?limit={limit}&after=");
        percent::encode(last.name.as_str(), &mut address);
        reply::next(response.headers_mut(), &address);
    }
    Ok(reply::whole(response))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotating {
    secret: Option<String>,
    #[serde(default = "overlap", with = "humantime_serde")]
    overlap: Duration,
}

fn overlap() -> Duration {
    Webhooks::OVERLAP
}

/// `POST /v1/webhooks/{name}/secrets`
pub(super) async fn rotate(State(node): State<Shared>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    let name = request::webhook(&head.uri)?;
    Params::of(&head.uri, &[])?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let Rotating { secret, overlap } = document::parsed(&received.bytes)?;
    let secret = node.webhooks.rotate(&name, secret_of(secret)?, overlap).await?;
    let shown = json!({ "webhook": name.as_str(), "secret": secret.reveal(), "fingerprint": secret.fingerprint() });
    Ok(reply::whole(reply::json(StatusCode::OK, &shown)))
}

/// The secret that is written as `text`.
fn secret_of(text: Option<String>) -> Result<Option<Secret>, Problem> {
    let read = text.map(|text| text.parse()).transpose();
    read.map_err(|wrong: SecretError| request::wrong("secret", wrong.to_string()))
}

/// `POST /v1/webhooks/{name}/test`
pub(super) async fn test(State(node): State<Shared>, request: Request) -> Reply {
    let (head, _) = request.into_parts();
    let name = request::webhook(&head.uri)?;
    Params::of(&head.uri, &[])?;
    let effect = async { Ok(reply::json(StatusCode::OK, &show::tested(&node.webhooks.test(&name).await?))) };
    once(&node, &head, &Bytes::new(), effect).await
}

/// `POST /v1/webhooks/{name}/enable`
pub(super) async fn enable(State(node): State<Shared>, request: Request) -> Reply {
    let (head, _) = request.into_parts();
    let name = request::webhook(&head.uri)?;
    Params::of(&head.uri, &[])?;
    let effect = async { Ok(reply::json(StatusCode::OK, &show::description(&node.webhooks.enable(&name).await?))) };
    once(&node, &head, &Bytes::new(), effect).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Disabling {
    #[serde(default)]
    reason: String,
}

/// `POST /v1/webhooks/{name}/disable`
pub(super) async fn disable(State(node): State<Shared>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    let name = request::webhook(&head.uri)?;
    Params::of(&head.uri, &[])?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let Disabling { reason } = document::parsed(&received.bytes)?;
    let effect = async {
        let disabled = node.webhooks.disable(&name, &reason).await?;
        Ok(reply::json(StatusCode::OK, &show::description(&disabled)))
    };
    once(&node, &head, &received.bytes, effect).await
}

/// `GET /v1/webhooks/{name}/attempts`
pub(super) async fn attempts(State(node): State<Shared>, request: Request) -> Reply {
    let name = request::webhook(request.uri())?;
    let params = Params::of(request.uri(), &["before", "limit"])?;
    let (before, limit) = (params.number("before")?.unwrap_or(u64::MAX), subscriptions::page(&node, &params)?);
    let found = node.webhooks.attempts(&name, before, limit).await?;
    let shown: Vec<Value> = found.iter().map(show::attempt).collect();
    let mut response = reply::json(StatusCode::OK, &json!({ "attempts": shown }));
    if let Some(last) = found.last().filter(|_| found.len() == limit as usize) {
        reply::next(response.headers_mut(), &log::next(request.uri(), "before", last.number));
    }
    Ok(reply::whole(response))
}

/// `GET /v1/webhooks/{name}/parked`
pub(super) async fn parked(State(node): State<Shared>, request: Request) -> Reply {
    let name = request::webhook(request.uri())?;
    let params = Params::of(request.uri(), &["after", "limit"])?;
    let (after, limit) = (params.number("after")?.unwrap_or_default(), subscriptions::page(&node, &params)?);
    let found = node.webhooks.parked(&name, Position::new(after), limit).await?;
    Ok(settling::parked(request.uri(), &found, limit))
}

/// `POST /v1/webhooks/{name}/replay`
pub(super) async fn replay(State(node): State<Shared>, request: Request) -> Reply {
    let webhooks = node.webhooks.clone();
    let replay = |name: Name, which| async move { webhooks.replay(&name, which).await };
    settling::select(&node, request, |_, uri| request::webhook(uri), replay).await
}

/// `POST /v1/webhooks/{name}/discard`
pub(super) async fn discard(State(node): State<Shared>, request: Request) -> Reply {
    let webhooks = node.webhooks.clone();
    let discard = |name: Name, which| async move { webhooks.discard(&name, which).await };
    settling::select(&node, request, |_, uri| request::webhook(uri), discard).await
}
