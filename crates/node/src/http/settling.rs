//! What holders and operators say about events and messages that were handed out: one form for subscriptions, webhooks and queues.

use std::{collections::BTreeSet, str::FromStr, time::Duration};

use axum::extract::Request;
use http::{StatusCode, Uri};
use quorate_data::subscription::{ParkedEvent, Selection};
use quorate_foundations::name::Name;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Node, Shared, document, log,
    problem::{Code, Problem},
    reply,
    request::{self, Params},
    streams::once,
    subscriptions::show,
};
use crate::verbs::Settlement;

type Reply = Result<axum::response::Response, Problem>;

/// What is asked for is more than there may be.
pub(super) fn beyond(what: &str, max: usize, asked: usize) -> Problem {
    Problem::new(Code::LimitExceeded, format!("`{what}` is at most {max}, {asked} was asked for")).with("limit", max)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Acking {
    leases: Vec<String>,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Extending {
    leases: Vec<String>,
    #[serde(default, with = "humantime_serde")]
    ttl: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parking {
    leases: Vec<String>,
    #[serde(default)]
    reason: String,
}

/// How a request's body is read: leases, and what is said about them.
pub(super) type Read = fn(&[u8]) -> Result<(Vec<String>, Settlement), Problem>;

/// `…/ack`
pub(super) fn acking(body: &[u8]) -> Result<(Vec<String>, Settlement), Problem> {
    document::parsed(body).map(|Acking { leases }| (leases, Settlement::Ack))
}

/// `…/nack`
pub(super) fn nacking(body: &[u8]) -> Result<(Vec<String>, Settlement), Problem> {
    document::parsed(body).map(|Nacking { leases, delay, reason }| (leases, Settlement::Nack { delay, reason }))
}

/// `…/extend`
pub(super) fn extending(body: &[u8]) -> Result<(Vec<String>, Settlement), Problem> {
    document::parsed(body).map(|Extending { leases, ttl }| (leases, Settlement::Extend { ttl }))
}

/// `…/park`
pub(super) fn parking(body: &[u8]) -> Result<(Vec<String>, Settlement), Problem> {
    document::parsed(body).map(|Parking { leases, reason }| (leases, Settlement::Park { reason }))
}

/// Does what the request's body says of at most `max` leases of whatever `named` names. `apply` does it, and says where it could not.
pub(super) async fn settle<L, F>(
    node: &Shared,
    request: Request,
    named: fn(&Node, &Uri) -> Result<Name, Problem>,
    (read, max): (Read, usize),
    apply: impl FnOnce(Name, Vec<L>, Settlement) -> F + Send,
) -> Reply
where
    L: FromStr + Ord + Send,
    F: Future<Output = Result<(), Problem>> + Send,
{
    let (head, body) = request.into_parts();
    let name = named(node, &head.uri)?;
    Params::of(&head.uri, &[])?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let (texts, how) = read(&received.bytes)?;
    let leases: Vec<L> = leases(&texts, max)?;
    let count = leases.len();
    let effect = async {
        apply(name, leases, how).await?;
        Ok(reply::json(StatusCode::OK, &json!({ "leases": count })))
    };
    once(node, &head, &received.bytes, effect).await
}

/// The leases, each of which may stand there once.
fn leases<L: FromStr + Ord>(texts: &[String], max: usize) -> Result<Vec<L>, Problem> {
    if texts.len() > max {
        return Err(beyond("leases", max, texts.len()));
    }
    let wrong =
        |index: usize, what: &str| request::wrong("leases", format!("lease {index}: {what}")).with("index", index);
    let mut seen = BTreeSet::new();
    for (index, text) in texts.iter().enumerate() {
        let lease: L = text.parse().map_err(|_| wrong(index, "this is not a lease that quorate gave out"))?;
        if !seen.insert(lease) {
            return Err(wrong(index, "it stands there twice"));
        }
    }
    if seen.is_empty() {
        return Err(request::wrong("leases", "`leases` names at least one".to_owned()));
    }
    Ok(seen.into_iter().collect())
}

/// `refused` as a problem, which says so where of `asked` leases no more than `lost` were lost: then something was done all the same.
pub(super) fn partly(refused: impl Into<Problem>, lost: Option<usize>, asked: usize) -> Problem {
    let problem = refused.into();
    if lost.is_some_and(|lost| lost < asked) { problem.partial() } else { problem }
}

/// A page of parked events.
pub(super) fn parked(uri: &Uri, found: &[ParkedEvent], limit: u32) -> axum::response::Response {
    let shown: Vec<Value> = found.iter().map(show::parked).collect();
    let mut response = reply::json(StatusCode::OK, &json!({ "parked": shown }));
    if let Some(last) = found.last().filter(|_| found.len() == limit as usize) {
        reply::next(response.headers_mut(), &log::next(uri, "after", last.position.get()));
    }
    reply::whole(response)
}

/// Which parked events.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Selecting {
    key: Option<String>,
    #[serde(default)]
    all: bool,
}

impl Selecting {
    fn selection(self) -> Result<Selection, Problem> {
        match self {
            Self { key: Some(key), all: false } => Ok(Selection::Key(key.into())),
            Self { key: None, all: true } => Ok(Selection::All),
            _ => Err(request::wrong("key", "name a `key`, or say `\"all\": true`".to_owned())),
        }
    }
}

/// Has `meet` decide about the parked events that the request's body selects, and says how many there were.
pub(super) async fn select<F, E>(
    node: &Shared,
    request: Request,
    named: fn(&Node, &Uri) -> Result<Name, Problem>,
    meet: impl FnOnce(Name, Selection) -> F + Send,
) -> Reply
where
    F: Future<Output = Result<usize, E>> + Send,
    E: Into<Problem>,
{
    let (head, body) = request.into_parts();
    let name = named(node, &head.uri)?;
    Params::of(&head.uri, &[])?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let which = document::parsed::<Selecting>(&received.bytes)?.selection()?;
    let effect = async {
        let events = meet(name, which).await.map_err(Into::into)?;
        Ok(reply::json(StatusCode::OK, &json!({ "events": events })))
    };
    once(node, &head, &received.bytes, effect).await
}
