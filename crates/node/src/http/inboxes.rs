//! Inboxes of the configuration: see how they stand, replay and discard what is parked.

mod show;

use axum::extract::{Request, State};
use http::StatusCode;
use quorate_communication::inbox::Selection;
use quorate_foundations::name::Name;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Shared, document, log, percent,
    problem::Problem,
    reply,
    request::{self, Params},
    streams::once,
    subscriptions,
};

type Reply = Result<axum::response::Response, Problem>;

/// `GET /v1/inboxes`
pub(super) async fn list(State(node): State<Shared>, request: Request) -> Reply {
    let params = Params::of(request.uri(), &["after", "limit"])?;
    let limit = subscriptions::page(&node, &params)? as usize;
    let after = params.one("after")?.map(Name::new).transpose()?;
    let found = node.inboxes.list(after.as_ref(), limit).await?;
    let shown: Vec<Value> = found.iter().map(show::inbox).collect();
    let mut response = reply::json(StatusCode::OK, &json!({ "inboxes": shown }));
    if let Some(last) = found.last().filter(|_| found.len() == limit) {
        let mut address = format!("/v1/inboxes?limit={limit}&after=");
        percent::encode(last.spec.name.as_str(), &mut address);
        reply::next(response.headers_mut(), &address);
    }
    Ok(reply::whole(response))
}

/// `GET /v1/inboxes/{name}`
pub(super) async fn describe(State(node): State<Shared>, request: Request) -> Reply {
    let name = request::inbox(request.uri())?;
    Params::of(request.uri(), &[])?;
    let described = node.inboxes.describe(&name).await?;
    Ok(reply::whole(reply::json(StatusCode::OK, &show::inbox(&described))))
}

/// `GET /v1/inboxes/{name}/parked`
pub(super) async fn parked(State(node): State<Shared>, request: Request) -> Reply {
    let name = request::inbox(request.uri())?;
    let params = Params::of(request.uri(), &["after", "limit"])?;
    let (after, limit) = (params.number("after")?.unwrap_or_default(), subscriptions::page(&node, &params)?);
    let found = node.inboxes.parked(&name, after, limit).await?;
    let share = node.share_or_refuse(show::weight(&found))?;
    let mut response = reply::bytes(StatusCode::OK, reply::JSON, show::parked(&found));
    // A page may end early where messages are large.
    if let Some(last) = found.last() {
        reply::next(response.headers_mut(), &log::next(request.uri(), "after", last.place));
    }
    Ok(share.of(reply::whole(response)))
}

/// Which parked messages.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Selecting {
    key: Option<String>,
    identity: Option<String>,
    #[serde(default)]
    all: bool,
}

impl Selecting {
    fn selection(self) -> Result<Selection, Problem> {
        match self {
            Self { key: Some(key), identity: None, all: false } => Ok(Selection::Key(key.into())),
            Self { key: None, identity: Some(identity), all: false } => Ok(Selection::Message(identity.into())),
            Self { key: None, identity: None, all: true } => Ok(Selection::All),
            _ => Err(request::wrong("key", "name a `key` or an `identity`, or say `\"all\": true`".to_owned())),
        }
    }
}

/// `POST /v1/inboxes/{name}/replay`
pub(super) async fn replay(State(node): State<Shared>, request: Request) -> Reply {
    select(&node, request, Fate::Replay).await
}

/// `POST /v1/inboxes/{name}/discard`
pub(super) async fn discard(State(node): State<Shared>, request: Request) -> Reply {
    select(&node, request, Fate::Discard).await
}

enum Fate {
    Replay,
    Discard,
}

/// Lets the parked messages that the request's body selects meet their `fate`.
async fn select(node: &Shared, request: Request, fate: Fate) -> Reply {
    let (head, body) = request.into_parts();
    let name = request::inbox(&head.uri)?;
    Params::of(&head.uri, &[])?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let which = document::parsed::<Selecting>(&received.bytes)?.selection()?;
    let effect = async {
        let done = match fate {
            Fate::Replay => {
                let replayed = node.inboxes.replay(&name, &which).await?;
                json!({ "messages": replayed.done, "failed-keys": replayed.failed })
            }
            Fate::Discard => json!({ "messages": node.inboxes.discard(&name, &which).await? }),
        };
        Ok(reply::json(StatusCode::OK, &done))
    };
    once(node, &head, &received.bytes, effect).await
}
