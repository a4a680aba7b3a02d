//! Views: how they stand, rebuild, pause, switch, what is parked.

pub(super) mod declared;
pub(super) mod effects;
mod follow;
mod query;
mod show;

use axum::extract::{Request, State};
use http::{StatusCode, Uri};
use quorate_data::{
    event::Position,
    materialized_view::{Build, Description, Switch, ViewName, Views},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    Node, Shared,
    document::{self, Count},
    log, percent,
    problem::{Code, Problem},
    reply,
    request::{self, Params},
    streams::once,
};

pub(super) use follow::follow;
pub(super) use query::{LINES, row, rows, sql, tables};
pub(super) use show::STANDINGS;

type Reply = Result<axum::response::Response, Problem>;

/// The view that a path names.
pub(super) fn named(uri: &Uri) -> Result<ViewName, Problem> {
    let segment = uri.path().split('/').nth(3).unwrap_or_default();
    let text = percent::decode(segment).map_err(|_| Problem::new(Code::InvalidName, "the name is not UTF-8"))?;
    ViewName::new(&*text).map_err(|cause| Problem::of(Code::InvalidName, &cause))
}

/// How many items a page shall have.
fn page(node: &Node, params: &Params<'_>) -> Result<u32, Problem> {
    Ok(params.limit_within(node, Views::MAX_PAGE as usize)?.try_into().unwrap_or(Views::MAX_PAGE))
}

/// `GET /v1/views`
pub(super) async fn list(State(node): State<Shared>, request: Request) -> Reply {
    let params = Params::of(request.uri(), &["after", "limit"])?;
    let limit = page(&node, &params)?;
    let after = params.one("after")?.map(ViewName::new).transpose();
    let after = after.map_err(|cause| Problem::of(Code::InvalidName, &cause))?;
    let found = node.views.list(after.as_ref(), limit as usize).await?;
    let mut shown = Vec::with_capacity(found.len());
    for described in &found {
        shown.push(whole(&node, described).await?);
    }
    let mut response = reply::json(StatusCode::OK, &json!({ "views": shown }));
    if let Some(last) = found.last().filter(|_| found.len() == limit as usize) {
        reply::next(response.headers_mut(), &format!("/v1/views?limit={limit}&after={}", last.name));
    }
    Ok(reply::whole(response))
}

/// `GET /v1/views/{name}`
pub(super) async fn describe(State(node): State<Shared>, request: Request) -> Reply {
    let name = named(request.uri())?;
    Params::of(request.uri(), &[])?;
    let described = node.views.describe(&name).await?;
    Ok(reply::whole(reply::json(StatusCode::OK, &whole(&node, &described).await?)))
}

/// How a view stands, with the versions that were declared.
async fn whole(node: &Node, described: &Description) -> Result<Value, Problem> {
    let mut shown = show::view(described);
    shown["declared"] = node.views.declared_versions(&described.name).await?.into();
    Ok(shown)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rebuilding {
    #[serde(default)]
    switch: When,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum When {
    #[default]
    WhenCaughtUp,
    Manual,
}

/// `POST /v1/views/{name}/rebuild`
pub(super) async fn rebuild(State(node): State<Shared>, request: Request) -> Reply {
    act(&node, request, async |name, Rebuilding { switch }| {
        let switch = match switch {
            When::WhenCaughtUp => Switch::WhenCaughtUp,
            When::Manual => Switch::Manual,
        };
        let build = node.views.rebuild(&name, switch).await?;
        Ok(reply::json(StatusCode::ACCEPTED, &json!({ "view": name.as_str(), "build": build.get() })))
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfBuild {
    build: Option<u32>,
}

/// `POST /v1/views/{name}/pause`
pub(super) async fn pause(State(node): State<Shared>, request: Request) -> Reply {
    act(&node, request, async |name, OfBuild { build }| {
        let build = node.views.pause(&name, build.map(Build::new)).await?;
        Ok(reply::json(StatusCode::OK, &json!({ "view": name.as_str(), "build": build.get(), "paused": true })))
    })
    .await
}

/// `POST /v1/views/{name}/resume`
pub(super) async fn resume(State(node): State<Shared>, request: Request) -> Reply {
    act(&node, request, async |name, OfBuild { build }| {
        let build = node.views.resume(&name, build.map(Build::new)).await?;
        Ok(reply::json(StatusCode::OK, &json!({ "view": name.as_str(), "build": build.get(), "paused": false })))
    })
    .await
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Switching {
    build: Option<u32>,
    #[serde(default)]
    accept_parked: bool,
}

/// `POST /v1/views/{name}/switch`
pub(super) async fn switch(State(node): State<Shared>, request: Request) -> Reply {
    act(&node, request, async |name, Switching { build, accept_parked }| {
        let (build, at) = node.views.switch(&name, build.map(Build::new), accept_parked).await?;
        let document = json!({ "view": name.as_str(), "build": build.get(), "logposition": at.to_string() });
        Ok(reply::json(StatusCode::OK, &document))
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Dropping {
    build: u32,
}

/// `POST /v1/views/{name}/drop`
pub(super) async fn drop_build(State(node): State<Shared>, request: Request) -> Reply {
    act(&node, request, async |name, Dropping { build }| {
        node.views.drop_build(&name, Build::new(build)).await?;
        Ok(reply::json(StatusCode::OK, &json!({ "view": name.as_str(), "build": build, "dropped": true })))
    })
    .await
}

/// `POST /v1/views/{name}/audit`
pub(super) async fn audit(State(node): State<Shared>, request: Request) -> Reply {
    act(&node, request, async |name, OfBuild { build }| {
        let audit = node.views.audit(&name, build.map(Build::new)).await?;
        Ok(reply::json(StatusCode::OK, &show::audit(&name, &audit)))
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Replaying {
    key: String,
    build: Option<u32>,
}

/// `POST /v1/views/{name}/replay`
pub(super) async fn replay(State(node): State<Shared>, request: Request) -> Reply {
    act(&node, request, async |name, Replaying { key, build }| {
        let events = node.views.replay(&name, build.map(Build::new), &key).await?;
        Ok(reply::json(StatusCode::OK, &json!({ "events": events })))
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Skipping {
    logposition: Count,
    build: Option<u32>,
    #[serde(default)]
    by: String,
}

/// `POST /v1/views/{name}/skip`
pub(super) async fn skip(State(node): State<Shared>, request: Request) -> Reply {
    act(&node, request, async |name, Skipping { logposition, build, by }| {
        const MAX_BY: usize = 256;
        if by.len() > MAX_BY {
            return Err(request::wrong("by", format!("`by` has at most {MAX_BY} bytes")));
        }
        let by = if by.is_empty() { "operator" } else { &by };
        node.views.skip(&name, build.map(Build::new), Position::new(logposition.0), by).await?;
        Ok(reply::json(StatusCode::OK, &json!({ "events": 1 })))
    })
    .await
}

/// Does what the request's body asks for, once per idempotency key.
async fn act<T: DeserializeOwned>(
    node: &Shared,
    request: Request,
    effect: impl AsyncFnOnce(ViewName, T) -> Result<http::Response<bytes::Bytes>, Problem>,
) -> Reply {
    let (head, body) = request.into_parts();
    let name = named(&head.uri)?;
    Params::of(&head.uri, &[])?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let wanted: T = document::parsed(&received.bytes)?;
    once(node, &head, &received.bytes, effect(name, wanted)).await
}

/// The build that a query names.
fn build_of(params: &Params<'_>) -> Result<Option<Build>, Problem> {
    let Some(number) = params.counted("build")? else { return Ok(None) };
    let build =
        u32::try_from(number).map_err(|_| request::wrong("build", "there are not so many builds".to_owned()))?;
    Ok(Some(Build::new(build)))
}

/// `GET /v1/views/{name}/parked`
pub(super) async fn parked(State(node): State<Shared>, request: Request) -> Reply {
    let name = named(request.uri())?;
    let params = Params::of(request.uri(), &["after", "limit", "build"])?;
    let (after, limit) = (params.number("after")?.unwrap_or_default(), page(&node, &params)?);
    let found = node.views.parked(&name, build_of(&params)?, Position::new(after), limit).await?;
    let shown: Vec<Value> = found.iter().map(show::parked).collect();
    let mut response = reply::json(StatusCode::OK, &json!({ "parked": shown }));
    if let Some(last) = found.last().filter(|_| found.len() == limit as usize) {
        reply::next(response.headers_mut(), &log::next(request.uri(), "after", last.position.get()));
    }
    Ok(reply::whole(response))
}

/// `GET /v1/views/{name}/skipped`
pub(super) async fn skipped(State(node): State<Shared>, request: Request) -> Reply {
    let name = named(request.uri())?;
    let params = Params::of(request.uri(), &["after", "limit", "build"])?;
    let (after, limit) = (params.number("after")?.unwrap_or_default(), page(&node, &params)?);
    let found = node.views.skipped(&name, build_of(&params)?, Position::new(after), limit).await?;
    let shown: Vec<Value> = found.iter().map(show::skipped).collect();
    let mut response = reply::json(StatusCode::OK, &json!({ "skipped": shown }));
    if let Some(last) = found.last().filter(|_| found.len() == limit as usize) {
        reply::next(response.headers_mut(), &log::next(request.uri(), "after", last.position.get()));
    }
    Ok(reply::whole(response))
}
