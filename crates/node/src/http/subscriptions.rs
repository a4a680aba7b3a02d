//! Durable subscriptions: create, describe, pull, settle, replay.

pub(super) mod config;
pub(super) mod show;

use std::{collections::BTreeSet, time::Duration};

use axum::extract::{Request, State};
use bytes::Bytes;
use http::StatusCode;
use quorate_communication::event_bus::webhook::Webhooks;
use quorate_data::{
    event::Position,
    subscription::{Delivery, Lease, Pull, Selection, SubscriptionError, Subscriptions},
};
use quorate_foundations::name::Name;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Node, RETRY, Shared, document, log, memory, percent,
    problem::{Code, Problem},
    reply,
    request::{self, Params},
    streams::once,
};
use crate::verbs::Settlement;

type Reply = Result<axum::response::Response, Problem>;

/// Refuses to touch what feeds a webhook.
fn nobodys_else(name: &Name) -> Result<(), Problem> {
    if !Webhooks::owns(name) {
        return Ok(());
    }
    let detail = format!("`{name}` feeds a webhook, which would miss what somebody else takes");
    Err(Problem::new(Code::SubscriptionOfWebhook, detail).with("subscription", name.as_str()))
}

/// The most events of one pull.
pub(crate) const MAX_PULL: usize = 256;

/// The most leases of one request.
pub(crate) const MAX_LEASES: usize = 1_000;

/// `PUT /v1/subscriptions/{name}`
pub(super) async fn create(State(node): State<Shared>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    let name = request::subscription(&head.uri)?;
    nobodys_else(&name)?;
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
    nobodys_else(&name)?;
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
    let (limit, max) = (params.limit(node)?, Subscriptions::MAX_PAGE);
    let within = u32::try_from(limit).ok().filter(|limit| *limit <= max);
    within.ok_or_else(|| beyond("limit", max as usize, limit))
}

fn beyond(what: &str, max: usize, asked: usize) -> Problem {
    Problem::new(Code::LimitExceeded, format!("`{what}` is at most {max}, {asked} was asked for")).with("limit", max)
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
    let name = request::subscription(&head.uri)?;
    nobodys_else(&name)?;
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Acking {
    leases: Vec<String>,
}

/// `POST /v1/subscriptions/{name}/ack`
pub(super) async fn ack(State(node): State<Shared>, request: Request) -> Reply {
    settle(&node, request, |Acking { leases }| (leases, Settlement::Ack)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nacking {
    leases: Vec<String>,
    #[serde(default, with = "humantime_serde")]
    delay: Option<Duration>,
    #[serde(default)]
    reason: String,
}

/// `POST /v1/subscriptions/{name}/nack`
pub(super) async fn nack(State(node): State<Shared>, request: Request) -> Reply {
    settle(&node, request, |Nacking { leases, delay, reason }| (leases, Settlement::Nack { delay, reason })).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Extending {
    leases: Vec<String>,
    #[serde(default, with = "humantime_serde")]
    ttl: Option<Duration>,
}

/// `POST /v1/subscriptions/{name}/extend`
pub(super) async fn extend(State(node): State<Shared>, request: Request) -> Reply {
    settle(&node, request, |Extending { leases, ttl }| (leases, Settlement::Extend { ttl })).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parking {
    leases: Vec<String>,
    #[serde(default)]
    reason: String,
}

/// `POST /v1/subscriptions/{name}/park`
pub(super) async fn park(State(node): State<Shared>, request: Request) -> Reply {
    settle(&node, request, |Parking { leases, reason }| (leases, Settlement::Park { reason })).await
}

/// Does what `read` finds in the request's body.
async fn settle<T: for<'b> Deserialize<'b>>(
    node: &Shared,
    request: Request,
    read: fn(T) -> (Vec<String>, Settlement),
) -> Reply {
    let (head, body) = request.into_parts();
    let name = request::subscription(&head.uri)?;
    nobodys_else(&name)?;
    Params::of(&head.uri, &[])?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let (texts, how) = read(document::parsed(&received.bytes)?);
    let leases = leases(&texts)?;
    let effect = async {
        let settled = node.subscriptions.settle(&name, &leases, &how).await;
        settled.map_err(|refused| partly(refused, leases.len()))?;
        Ok(reply::json(StatusCode::OK, &json!({ "leases": leases.len() })))
    };
    once(node, &head, &received.bytes, effect).await
}

/// The leases, each of which may stand there once.
fn leases(texts: &[String]) -> Result<Vec<Lease>, Problem> {
    if texts.len() > MAX_LEASES {
        return Err(beyond("leases", MAX_LEASES, texts.len()));
    }
    let wrong =
        |index: usize, what: &str| request::wrong("leases", format!("lease {index}: {what}")).with("index", index);
    let mut seen = BTreeSet::new();
    for (index, text) in texts.iter().enumerate() {
        let lease: Lease = text.parse().map_err(|_| wrong(index, "this is not a lease that quorate gave out"))?;
        if !seen.insert(lease) {
            return Err(wrong(index, "it stands there twice"));
        }
    }
    if seen.is_empty() {
        return Err(request::wrong("leases", "`leases` names at least one".to_owned()));
    }
    Ok(seen.into_iter().collect())
}

/// `refused` as a problem that says whether something of the `asked` leases was done all the same.
fn partly(refused: SubscriptionError, asked: usize) -> Problem {
    let some = matches!(&refused, SubscriptionError::LeaseLost { leases } if leases.len() < asked);
    let problem = Problem::from(refused);
    if some { problem.partial() } else { problem }
}

/// `GET /v1/subscriptions/{name}/parked`
pub(super) async fn parked(State(node): State<Shared>, request: Request) -> Reply {
    let name = request::subscription(request.uri())?;
    let params = Params::of(request.uri(), &["after", "limit"])?;
    let (after, limit) = (params.number("after")?.unwrap_or_default(), page(&node, &params)?);
    let found = node.subscriptions.parked(&name, Position::new(after), limit).await?;
    let shown: Vec<Value> = found.iter().map(show::parked).collect();
    let mut response = reply::json(StatusCode::OK, &json!({ "parked": shown }));
    if let Some(last) = found.last().filter(|_| found.len() == limit as usize) {
        reply::next(response.headers_mut(), &log::next(request.uri(), "after", last.position.get()));
    }
    Ok(reply::whole(response))
}

/// Which parked events.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Selecting {
    key: Option<String>,
    #[serde(default)]
    all: bool,
}

impl Selecting {
    pub(super) fn selection(self) -> Result<Selection, Problem> {
        match self {
            Self { key: Some(key), all: false } => Ok(Selection::Key(key.into())),
            Self { key: None, all: true } => Ok(Selection::All),
            _ => Err(request::wrong("key", "name a `key`, or say `\"all\": true`".to_owned())),
        }
    }
}

/// `POST /v1/subscriptions/{name}/replay`
pub(super) async fn replay(State(node): State<Shared>, request: Request) -> Reply {
    select(&node, request, Fate::Replay).await
}

/// `POST /v1/subscriptions/{name}/discard`
pub(super) async fn discard(State(node): State<Shared>, request: Request) -> Reply {
    select(&node, request, Fate::Discard).await
}

enum Fate {
    Replay,
    Discard,
}

/// Lets the parked events that the request's body selects meet their `fate`.
async fn select(node: &Shared, request: Request, fate: Fate) -> Reply {
    let (head, body) = request.into_parts();
    let name = request::subscription(&head.uri)?;
    nobodys_else(&name)?;
    Params::of(&head.uri, &[])?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let which = document::parsed::<Selecting>(&received.bytes)?.selection()?;
    let effect = async {
        let events = match fate {
            Fate::Replay => node.subscriptions.replay(&name, which).await?,
            Fate::Discard => node.subscriptions.discard(&name, which).await?,
        };
        Ok(reply::json(StatusCode::OK, &json!({ "events": events })))
    };
    once(node, &head, &received.bytes, effect).await
}
