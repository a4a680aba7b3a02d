//! Effects of views that were not carried out yet: listed, tried anew, left out.

use axum::extract::{Request, State};
use http::StatusCode;
use quorate_data::event::Position;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    super::{Shared, document::Count, reply, request, request::Params},
    Reply, act, named, page, show,
};

/// `GET /v1/views/{name}/effects`
pub(in crate::http) async fn list(State(node): State<Shared>, request: Request) -> Reply {
    let name = named(request.uri())?;
    let params = Params::of(request.uri(), &["after", "limit"])?;
    let limit = page(&node, &params)?;
    let wrong =
        || request::wrong("after", "`after` is what `next` of the page before says: POSITION-ORDINAL".to_owned());
    let after = params.one("after")?.map(|text| behind(text).ok_or_else(wrong)).transpose()?;
    let found = node.views.effects(&name, after, limit).await?;
    let shown: Vec<Value> = found.iter().map(show::effect).collect();
    let mut response = reply::json(StatusCode::OK, &json!({ "effects": shown }));
    if let Some(last) = found.last().filter(|_| found.len() == limit as usize) {
        let (at, ordinal) = (last.effect.position, last.effect.ordinal);
        let next = format!("/v1/views/{name}/effects?limit={limit}&after={at}-{ordinal}");
        reply::next(response.headers_mut(), &next);
    }
    Ok(reply::whole(response))
}

/// An effect's place: the position of its event, and which of that event's effects it is.
fn behind(text: &str) -> Option<(Position, u32)> {
    let (position, ordinal) = text.split_once('-')?;
    let position: u64 = position.parse().ok().filter(|position| i64::try_from(*position).is_ok())?;
    Some((Position::new(position), ordinal.parse().ok()?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Retrying {}

/// `POST /v1/views/{name}/effects/retry`
pub(in crate::http) async fn retry(State(node): State<Shared>, request: Request) -> Reply {
    act(&node, request, async |name, Retrying {}| {
        let effects = node.views.retry_effects(&name).await?;
        Ok(reply::json(StatusCode::OK, &json!({ "effects": effects })))
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Skipping {
    logposition: Count,
    ordinal: u32,
}

/// `POST /v1/views/{name}/effects/skip`
pub(in crate::http) async fn skip(State(node): State<Shared>, request: Request) -> Reply {
    act(&node, request, async |name, Skipping { logposition, ordinal }| {
        let skipped = node.views.skip_effect(&name, Position::new(logposition.0), ordinal).await?;
        Ok(reply::json(StatusCode::OK, &json!({ "effects": u64::from(skipped) })))
    })
    .await
}
