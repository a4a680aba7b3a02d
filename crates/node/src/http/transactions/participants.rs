//! Who takes part in the node's transactions.

use axum::extract::{Request, State};
use http::StatusCode;
use quorate_consistency::two_phase_commit::Order;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Reply;
use crate::http::{
    Shared, document, reply,
    request::{self, Params},
    streams::once,
};

/// `GET /v1/participants`
pub(in crate::http) async fn list(State(node): State<Shared>, request: Request) -> Reply {
    Params::of(request.uri(), &[])?;
    let found = node.coordinating.participants().await?;
    let shown: Vec<Value> = found
        .iter()
        .map(|(name, is_database)| {
            json!({ "participant": name.as_str(), "kind": if *is_database { "database" } else { "service" } })
        })
        .collect();
    Ok(reply::whole(reply::json(StatusCode::OK, &json!({ "participants": shown }))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Removing {
    by: String,
    why: String,
}

/// `POST /v1/participants/{participant}/remove`
pub(in crate::http) async fn remove(State(node): State<Shared>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    let participant = request::participant(&head.uri)?;
    Params::of(&head.uri, &[])?;
    if node.coordinating.is_database(&participant) {
        let detail = format!("`{participant}` is a database of the node's settings, and is taken out of those");
        return Err(request::wrong("participant", detail));
    }
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let Removing { by, why } = document::parsed(&received.bytes)?;
    for (name, text) in [("by", &by), ("why", &why)] {
        let max = Order::MAX_REASON_BYTES;
        if text.trim().is_empty() || text.len() > max {
            let detail = format!("`{name}` is told in 1 to {max} bytes");
            return Err(request::wrong(name, detail));
        }
    }
    let effect = async {
        let removed = node.coordinating.remove(&participant, &by, &why).await?;
        Ok(reply::json(StatusCode::OK, &json!({ "participant": participant.as_str(), "removed": removed })))
    };
    once(&node, &head, &received.bytes, effect).await
}
