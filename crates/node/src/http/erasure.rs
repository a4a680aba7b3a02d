//! Data subjects: erase one, say whether one is erased, read and export the ledger.

use axum::extract::{Request, State};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use quorate_data::{
    event::Timestamp,
    store::{StoreError, erasure::Entry},
};
use serde_json::{Value, json};

use super::{
    Node, Shared,
    body_out::{Gone, Pieces, pieces},
    log,
    problem::Problem,
    reply,
    request::{self, Params},
    streams::once,
};
use crate::verbs::Erasures;

type Reply = Result<axum::response::Response, Problem>;

/// `POST /v1/subjects/{subject}/erase`
pub(super) async fn erase(State(node): State<Shared>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    let subject = request::data_subject(&head.uri)?;
    Params::of(&head.uri, &[])?;
    node.receive_nothing(&head, body, "an erasure takes no body: whom it is about stands in the address").await?;
    let effect = async {
        let erased = node.erasures.erase(&subject).await?;
        let document = json!({
            "subject": subject,
            "events": erased.events,
            "keys": erased.keys,
            "generation": erased.generation,
            "erased_at": erased.erased_at.map(|at| Timestamp::from(at).as_str().to_owned()),
            "entry": erased.entry.map(|entry| entry.to_string()),
        });
        Ok(reply::json(StatusCode::OK, &document))
    };
    once(&node, &head, &Bytes::new(), effect).await
}

/// `GET /v1/subjects/{subject}`
pub(super) async fn subject(State(node): State<Shared>, request: Request) -> Reply {
    let subject = request::data_subject(request.uri())?;
    Params::of(request.uri(), &[])?;
    let known = node.erasures.subject(&subject).await?;
    let document = json!({
        "subject": subject,
        "name": known.name.to_string(),
        "erased": known.is_erased(),
        "live": known.live,
        "key-missing": known.key_missing,
        "incomplete": known.incomplete,
        "erasure": known.erasure.as_ref().map(entry),
    });
    Ok(reply::whole(reply::json(StatusCode::OK, &document)))
}

/// `GET /v1/erasures`
pub(super) async fn ledger(State(node): State<Shared>, request: Request) -> Reply {
    let params = Params::of(request.uri(), &["after", "limit"])?;
    let (after, limit) = (params.number("after")?.unwrap_or_default(), page(&node, &params)?);
    let entries = node.erasures.ledger(after, limit).await?;
    let shown: Vec<Value> = entries.iter().map(entry).collect();
    let mut response = reply::json(StatusCode::OK, &json!({ "store": store(&node), "erasures": shown }));
    if let Some(last) = entries.last().filter(|_| entries.len() == limit) {
        reply::next(response.headers_mut(), &log::next(request.uri(), "after", last.number));
    }
    Ok(reply::whole(response))
}

/// How many entries a page shall have.
fn page(node: &Node, params: &Params<'_>) -> Result<usize, Problem> {
    params.limit_within(node, Erasures::MAX_PAGE)
}

fn entry(entry: &Entry) -> Value {
    json!({
        "entry": entry.number.to_string(),
        "subject": entry.erasure.subject.to_string(),
        "generation": entry.erasure.generation,
        "erased_at": Timestamp::from(entry.erasure.erased_at).as_str(),
    })
}

/// The store's id: 64 bits, which not every reader of JSON takes for a number.
fn store(node: &Node) -> String {
    node.erasures.store_id().to_string()
}

/// `GET /v1/erasures/export`: the whole ledger, in the form that a restore takes.
pub(super) async fn export(State(node): State<Shared>, request: Request) -> Reply {
    Params::of(request.uri(), &[])?;
    // Read before the headers leave: a store that cannot be read is told in a problem.
    let first = node.erasures.ledger(0, Erasures::MAX_PAGE).await?;
    let (pieces, body) = pieces();
    node.clone().env.tasks().spawn("ledger", async move {
        // Without an end the reply breaks off: half a ledger must not look like one.
        match send(&node, first, &pieces).await {
            Ok(()) => pieces.end().await,
            Err(Broken::Gone) => {}
            Err(Broken::Store(cause)) => tracing::warn!(%cause, "the export of the ledger broke off"),
        }
    });
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(reply::JSON));
    Ok(response)
}

/// Why an export did not come to its end.
enum Broken {
    Gone,
    Store(StoreError),
}

impl From<Gone> for Broken {
    fn from(Gone: Gone) -> Self {
        Self::Gone
    }
}

async fn send(node: &Node, first: Vec<Entry>, pieces: &Pieces) -> Result<(), Broken> {
    let mut text = format!("{{\"store\":\"{}\",\"erasures\":[", node.erasures.store_id());
    let mut page = first;
    while let Some(last) = page.last().map(|entry| entry.number) {
        for entry in &page {
            text.push_str(if entry.number == 1 { "\n" } else { ",\n" });
            text.push_str(&entry.erasure.to_json());
        }
        pieces.send(std::mem::take(&mut text).into()).await?;
        page = node.erasures.ledger(last, Erasures::MAX_PAGE).await.map_err(Broken::Store)?;
    }
    text.push_str("\n]}\n");
    Ok(pieces.send(text.into()).await?)
}
