//! Relays of the configuration: see how they stand, pause and resume them, replay what is parked.

mod show;

use axum::extract::{Request, State};
use bytes::Bytes;
use http::{StatusCode, request::Parts};
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
use crate::verbs::{RelayCareError, RelayStanding};

type Reply = Result<axum::response::Response, Problem>;

/// `GET /v1/relays`
pub(super) async fn list(State(node): State<Shared>, request: Request) -> Reply {
    let params = Params::of(request.uri(), &["after", "limit"])?;
    let limit = subscriptions::page(&node, &params)? as usize;
    let after = params.one("after")?.map(Name::new).transpose()?;
    let found = node.relays.list(after.as_ref(), limit).await?;
    let shown: Vec<Value> = found.iter().map(show::relay).collect();
    let mut response = reply::json(StatusCode::OK, &json!({ "relays": shown }));
    if let Some(last) = found.last().filter(|_| found.len() == limit) {
        let mut address = format!("/v1/relays?limit={limit}&after=");
        percent::encode(last.spec.name.as_str(), &mut address);
        reply::next(response.headers_mut(), &address);
    }
    Ok(reply::whole(response))
}

/// `GET /v1/relays/{name}`
pub(super) async fn describe(State(node): State<Shared>, request: Request) -> Reply {
    let name = request::relay(request.uri())?;
    Params::of(request.uri(), &[])?;
    let described = node.relays.describe(&name).await?;
    Ok(reply::whole(reply::json(StatusCode::OK, &show::relay(&described))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pausing {
    #[serde(default)]
    reason: String,
}

/// `POST /v1/relays/{name}/pause`
pub(super) async fn pause(State(node): State<Shared>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    let name = request::relay(&head.uri)?;
    Params::of(&head.uri, &[])?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let Pausing { reason } = document::parsed(&received.bytes)?;
    act(&node, &head, &received.bytes, async { node.relays.pause(&name, &reason).await }).await
}

/// `POST /v1/relays/{name}/resume`
pub(super) async fn resume(State(node): State<Shared>, request: Request) -> Reply {
    let (head, _) = request.into_parts();
    let name = request::relay(&head.uri)?;
    Params::of(&head.uri, &[])?;
    act(&node, &head, &Bytes::new(), async { node.relays.resume(&name).await }).await
}

/// `POST /v1/relays/{name}/wake`
pub(super) async fn wake(State(node): State<Shared>, request: Request) -> Reply {
    let (head, _) = request.into_parts();
    let name = request::relay(&head.uri)?;
    Params::of(&head.uri, &[])?;
    act(&node, &head, &Bytes::new(), async { node.relays.wake(&name).await }).await
}

/// Does something to a relay, and answers with how it stands then.
async fn act(
    node: &Shared,
    head: &Parts,
    body: &Bytes,
    work: impl Future<Output = Result<RelayStanding, RelayCareError>> + Send,
) -> Reply {
    let effect = async { Ok(reply::json(StatusCode::OK, &show::relay(&work.await?))) };
    once(node, head, body, effect).await
}

/// `GET /v1/relays/{name}/parked`
pub(super) async fn parked(State(node): State<Shared>, request: Request) -> Reply {
    let name = request::relay(request.uri())?;
    let params = Params::of(request.uri(), &["after", "limit"])?;
    let (after, limit) = (params.number("after")?.unwrap_or_default(), subscriptions::page(&node, &params)?);
    let found = node.relays.parked(&name, Position::new(after), limit).await?;
    let shown: Vec<Value> = found.iter().map(subscriptions::show::parked).collect();
    let mut response = reply::json(StatusCode::OK, &json!({ "parked": shown }));
    if let Some(last) = found.last().filter(|_| found.len() == limit as usize) {
        reply::next(response.headers_mut(), &log::next(request.uri(), "after", last.position.get()));
    }
    Ok(reply::whole(response))
}

/// `POST /v1/relays/{name}/replay`
pub(super) async fn replay(State(node): State<Shared>, request: Request) -> Reply {
    let relays = node.relays.clone();
    let replay = |name: Name, which| async move { relays.replay(&name, which).await };
    settling::select(&node, request, |_, uri| request::relay(uri), replay).await
}

/// `POST /v1/relays/{name}/discard`
pub(super) async fn discard(State(node): State<Shared>, request: Request) -> Reply {
    let relays = node.relays.clone();
    let discard = |name: Name, which| async move { relays.discard(&name, which).await };
    settling::select(&node, request, |_, uri| request::relay(uri), discard).await
}
