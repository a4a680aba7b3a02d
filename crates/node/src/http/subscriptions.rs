//! Durable subscriptions: create, describe, pull, settle, replay.

pub(super) mod config;
pub(super) mod show;

use std::time::Duration;

use axum::extract::{Request, State};
use bytes::Bytes;
use http::{StatusCode, Uri};
use quorate_communication::event_bus::webhook::Webhooks;
use quorate_data::{
    event::Position,
    subscription::{Delivery, Lease, Pull, SubscriptionError, Subscriptions},
};
use quorate_foundations::name::Name;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Node, RETRY, Shared, document, memory, percent,
    problem::{Code, Problem},
    reply,
    request::{self, Params},
    settling::{self, beyond},
    streams::once,
};
use crate::verbs::Settlement;

type Reply = Result<axum::response::Response, Problem>;

/// Refuses to touch what feeds a webhook or a relay.
fn nobodys_else(node: &Node, name: &Name) -> Result<(), Problem> {
    if node.relays.owns(name) {
        let detail = format!("`{name}` feeds the relay of that name, which would not publish what somebody else takes");
        return Err(Problem::new(Code::SubscriptionOfRelay, detail).with("subscription", name.as_str()));
    }
    of_no_webhook(name)
}

/// Refuses to touch what feeds a webhook.
fn of_no_webhook(name: &Name) -> Result<(), Problem> {
    if !Webhooks::owns(name) {
        return Ok(());
    }
    let detail = format!("`{name}` feeds a webhook, which would miss what somebody else takes");
    Err(Problem::new(Code::SubscriptionOfWebhook, detail).with("subscription", name.as_str()))
}

/// The subscription that a path names, if it feeds no webhook and no relay.
fn ours(node: &Node, uri: &Uri) -> Result<Name, Problem> {
    let name = request::subscription(uri)?;
    nobodys_else(node, &name)?;
    Ok(name)
}

/// The most events of one pull.
pub(crate) const MAX_PULL: usize = 256;

/// The most leases of one request.
pub(crate) const MAX_LEASES: usize = 1_000;

/// `PUT /v1/subscriptions/{name}`
pub(super) async fn create(State(node): State<Shared>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    let name = ours(&node, &head.uri)?;
    Params::of(&head.uri, &[])?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let wanted: config::Document = document::parsed(&received.bytes)?;
    let effect = async {
        let created = node.subscriptions.create(&name, wanted.into()).await?;
        Ok(reply::json(StatusCode::OK, &show::description(&created)))
    };
    once(&node, &head, &received.bytes, effect).await
}

/// `GET /v1/subscriptions/{name}`
pub(super) async fn describe(State(node): State<Shared>, request: Request) -> Reply {
    let name = request::subscription(request.uri())?;
    Params::of(request.uri(), &[])?;
    let described = node.subscriptions.describe(&name).await?;
    Ok(reply::whole(reply::json(StatusCode::OK, &show::description(&described))))
}

/// `DELETE /v1/subscriptions/{name}`
pub(super) async fn delete(State(node): State<Shared>, request: Request) -> Reply {
    let (head, _) = request.into_parts();
    let name = request::subscription(&head.uri)?;
    // One of a relay may go: it begins anew then.
    of_no_webhook(&name)?;
    Params::of(&head.uri, &[])?;
    let effect = async {
        node.subscriptions.delete(&name).await?;
        Ok(reply::json(StatusCode::OK, &json!({ "subscription": name.as_str(), "deleted": true })))
    };
    once(&node, &head, &Bytes::new(), effect).await
}

/// `GET /v1/subscriptions`
pub(super) async fn list(State(node): State<Shared>, request: Request) -> Reply {
    let params = Params::of(request.uri(), &["after", "limit"])?;
    let limit = page(&node, &params)?;
    let after = params.one("after")?.map(Name::new).transpose()?;
    let found = node.subscriptions.list(after.as_ref(), limit).await?;
    let shown: Vec<Value> = found.iter().map(show::summary).collect();
    let mut response = reply::json(StatusCode::OK, &json!({ "subscriptions": shown }));
    if let Some(last) = found.last().filter(|_| found.len() == limit as usize) {
        let mut address = format!("/v1/subscriptions?limit={limit}&after=");
        percent::encode(last.name.as_str(), &mut address);
        reply::next(response.headers_mut(), &address);
    }
    Ok(reply::whole(response))
}

/// How many items a page shall have.
pub(super) fn page(node: &Node, params: &Params<'_>) -> Result<u32, Problem> {
    Ok(params.limit_within(node, Subscriptions::MAX_PAGE as usize)?.try_into().unwrap_or(Subscriptions::MAX_PAGE))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pulling {
    #[serde(default = "one")]
    max: usize,
    #[serde(default, with = "humantime_serde")]
    wait: Duration,
    #[serde(default)]
    owner: String,
}

fn one() -> usize {
    1
}

/// `POST /v1/subscriptions/{name}/pull`
pub(super) async fn pull(State(node): State<Shared>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    let name = ours(&node, &head.uri)?;
    Params::of(&head.uri, &[])?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let pull = pull_of(&node, document::parsed(&received.bytes)?)?;
    let deliveries = tokio::select! {
        biased;
        pulled = node.subscriptions.pull(&name, pull) => pulled?,
        // The events it might yet be given stay where they are: dropping the pull gives them back.
        () = stopping(&node) => return Err(Problem::new(Code::ShuttingDown, "the node is stopping").after(RETRY)),
    };
    let weight = memory::weight(deliveries.iter().map(|one| &one.event)) + deliveries.len() * show::DELIVERY_BYTES;
    let Some(share) = node.share(weight) else { return Err(given_back(&node, &name, &deliveries).await) };
    Ok(share.of(reply::whole(reply::bytes(StatusCode::OK, reply::JSON, show::deliveries(&deliveries)))))
}

/// Gives back what there is no memory to hand out, as if nobody had asked for it.
async fn given_back(node: &Node, name: &Name, deliveries: &[Delivery]) -> Problem {
    let leases: Vec<Lease> = deliveries.iter().map(|one| one.lease).collect();
    match node.subscriptions.give_back(name, &leases).await {
        Ok(()) => memory::taken(),
        Err(cause) => {
            tracing::warn!(%cause, "events that could not be handed out come again when their leases have expired");
            memory::taken().unknown()
        }
    }
}

fn pull_of(node: &Node, Pulling { max, wait, owner }: Pulling) -> Result<Pull, Problem> {
    if max > MAX_PULL {
        return Err(beyond("max", MAX_PULL, max));
    }
    let patience = node.config.http.max_wait.min(Pull::MAX_WAIT);
    if wait > patience {
        let detail = format!("`wait` is at most {patience:?}, {wait:?} was asked for");
        return Err(Problem::new(Code::LimitExceeded, detail));
    }
    Ok(Pull::of(max).waiting(wait).by(owner))
}

async fn stopping(node: &Node) {
    node.env.tasks().stop().cancelled().await;
}

/// `POST /v1/subscriptions/{name}/ack`
pub(super) async fn ack(State(node): State<Shared>, request: Request) -> Reply {
    settle(&node, request, settling::acking).await
}

/// `POST /v1/subscriptions/{name}/nack`
pub(super) async fn nack(State(node): State<Shared>, request: Request) -> Reply {
    settle(&node, request, settling::nacking).await
}

/// `POST /v1/subscriptions/{name}/extend`
pub(super) async fn extend(State(node): State<Shared>, request: Request) -> Reply {
    settle(&node, request, settling::extending).await
}

/// `POST /v1/subscriptions/{name}/park`
pub(super) async fn park(State(node): State<Shared>, request: Request) -> Reply {
    settle(&node, request, settling::parking).await
}

async fn settle(node: &Shared, request: Request, read: settling::Read) -> Reply {
    let subscriptions = node.subscriptions.clone();
    let apply = |name: Name, leases: Vec<Lease>, how: Settlement| async move {
        let settled = subscriptions.settle(&name, &leases, &how).await;
        settled.map_err(|refused| {
            let lost = if let SubscriptionError::LeaseLost { leases } = &refused { Some(leases.len()) } else { None };
            settling::partly(refused, lost, leases.len())
        })
    };
    settling::settle(node, request, ours, (read, MAX_LEASES), apply).await
}

/// `GET /v1/subscriptions/{name}/parked`
pub(super) async fn parked(State(node): State<Shared>, request: Request) -> Reply {
    let name = request::subscription(request.uri())?;
    let params = Params::of(request.uri(), &["after", "limit"])?;
    let (after, limit) = (params.number("after")?.unwrap_or_default(), page(&node, &params)?);
    let found = node.subscriptions.parked(&name, Position::new(after), limit).await?;
    Ok(settling::parked(request.uri(), &found, limit))
}

/// `POST /v1/subscriptions/{name}/replay`
pub(super) async fn replay(State(node): State<Shared>, request: Request) -> Reply {
    let subscriptions = node.subscriptions.clone();
    let replay = |name: Name, which| async move { subscriptions.replay(&name, which).await };
    settling::select(&node, request, ours, replay).await
}

/// `POST /v1/subscriptions/{name}/discard`
pub(super) async fn discard(State(node): State<Shared>, request: Request) -> Reply {
    let subscriptions = node.subscriptions.clone();
    let discard = |name: Name, which| async move { subscriptions.discard(&name, which).await };
    settling::select(&node, request, ours, discard).await
}
