//! Event types: which there are, who sends them, by which schemas, and who listens.

mod asyncapi;

use std::collections::BTreeMap;

pub(super) use asyncapi::document;
use axum::extract::{Request, State};
use http::StatusCode;
use quorate_communication::event_bus::catalogue::{Followed, Producer, Reach};
use quorate_data::{
    event::Timestamp,
    schema::{SchemaVersion, address, version_of},
};
use quorate_foundations::time::Wall;
use serde_json::{Value, json};

use super::{
    Shared, percent,
    problem::{Code, Problem},
    reply,
    request::{self, Params},
};
use crate::verbs::{Consumer, EventType, EventTypes};

type Reply = Result<axum::response::Response, Problem>;

/// `GET /v1/event-types`
pub(super) async fn list(State(node): State<Shared>, request: Request) -> Reply {
    let params = Params::of(request.uri(), &["after", "limit"])?;
    let (after, limit) = (params.one("after")?, page(&params)?);
    let reach = node.event_types.look().await?;
    let found = node.event_types.list(after, limit).await?;
    let mut shown = reached(&reach);
    shown["event-types"] = found.iter().map(|one| event_type(one, &reach)).collect();
    let mut response = reply::json(StatusCode::OK, &shown);
    if let Some(last) = found.last().filter(|_| found.len() == limit as usize) {
        reply::next(response.headers_mut(), &next("/v1/event-types", limit, &last.name));
    }
    Ok(reply::whole(response))
}

/// `GET /v1/event-types/{type}`
pub(super) async fn describe(State(node): State<Shared>, request: Request) -> Reply {
    let name = request::any_event_type(request.uri())?;
    Params::of(request.uri(), &[])?;
    let reach = node.event_types.look().await?;
    let found = node.event_types.describe(&name).await?.ok_or_else(|| unknown(&name, &reach))?;
    let mut shown = event_type(&found, &reach);
    shown["catalogue"] = reached(&reach);
    Ok(reply::whole(reply::json(StatusCode::OK, &shown)))
}

fn unknown(name: &str, reach: &Reach) -> Problem {
    let far = match (reach.is_all(), reach.others) {
        (true, 0) => "the log",
        (true, _) => "what is named of the log (events of other types are only counted)",
        _ => "what was read of the log so far",
    };
    let detail = format!("there is no event of the type `{}` in {far}, and no schema for it", request::short(name));
    let problem = Problem::new(Code::EventTypeNotFound, detail).with("eventtype", request::short(name));
    problem.with("scanned", reach.scanned.to_string()).with("head", reach.head.to_string())
}

/// How many types a page shall have.
fn page(params: &Params<'_>) -> Result<u32, Problem> {
    let max = EventTypes::MAX_PAGE;
    let Some(limit) = params.counted("limit")? else { return Ok(max) };
    u32::try_from(limit).ok().filter(|limit| *limit <= max).ok_or_else(|| {
        let detail = format!("`limit` is at most {max}, {limit} was asked for");
        Problem::new(Code::LimitExceeded, detail).with("limit", u64::from(max))
    })
}

fn next(path: &str, limit: u32, last: &str) -> String {
    let mut address = format!("{path}?limit={limit}&after=");
    percent::encode(last, &mut address);
    address
}

fn reached(reach: &Reach) -> Value {
    json!({
        "scanned": reach.scanned.to_string(),
        "head": reach.head.to_string(),
        "complete": reach.is_all(),
        "events-of-other-types": reach.others,
    })
}

fn event_type(one: &EventType, reach: &Reach) -> Value {
    let seen = one.seen.as_ref();
    // Of a type that has no card there is no event, or nobody knows.
    let none = reach.knows_all().then_some(0);
    json!({
        "type": one.name,
        "events": seen.map_or(none, |seen| Some(seen.events)),
        "first": seen.map(|seen| seen.first.to_string()),
        "last": seen.map(|seen| seen.last.to_string()),
        "last-recorded": seen.map(|seen| time(seen.recorded)),
        "mode": one.schema.as_ref().map(|(summary, _)| summary.mode.as_str()),
        "schemas": schemas(one, none),
        "more-schemas": seen.map_or(0, |seen| seen.more_schemas),
        "producers": seen.map_or(&[][..], |seen| &seen.producers).iter().map(producer).collect::<Value>(),
        "more-producers": seen.map_or(0, |seen| seen.more_producers),
        "events-of-other-producers": seen.map_or(0, |seen| seen.others),
        "consumers": one.consumers.iter().map(consumer).collect::<Value>(),
        "more-consumers": one.more_consumers,
    })
}

/// The versions that are registered, the oldest first, then what else events say they follow. A version that nothing is told of has `none`
/// if the type was not seen, and an unknown number of events where what was seen is not told whole.
fn schemas(one: &EventType, none: Option<u64>) -> Value {
    let followed = one.seen.as_ref().map_or(&[][..], |seen| &seen.schemas);
    let version = |one_of: &Followed| version_of(one_of.dataschema.as_deref(), &one.name);
    let mut by_version = BTreeMap::<SchemaVersion, u64>::new();
    for one in followed {
        if let Some(version) = version(one) {
            *by_version.entry(version).or_default() += one.events;
        }
    }
    // What is not told producer by producer may be of any version.
    let is_whole = one.seen.as_ref().is_none_or(|seen| seen.others == 0);
    let none = one.seen.as_ref().map_or(none, |seen| (seen.more_schemas == 0 && is_whole).then_some(0));
    let registered = one.schema.iter().flat_map(|(_, versions)| versions).map(|size| {
        json!({
            "dataschema": address(&one.name, size.version),
            "version": size.version.get(),
            "registered": true,
            "bytes": size.bytes,
            "events": by_version.get(&size.version).copied().filter(|_| is_whole).or(none),
        })
    });
    let known = |version: &SchemaVersion| one.schema.iter().any(|(summary, _)| *version <= summary.latest);
    let others = followed.iter().filter(|one| version(one).is_none_or(|version| !known(&version))).map(|one| {
        json!({
            "dataschema": one.dataschema,
            "version": version(one).map(SchemaVersion::get),
            "registered": false,
            "events": one.events,
        })
    });
    registered.chain(others).collect()
}

fn producer(one: &Producer) -> Value {
    json!({
        "source": one.source,
        "events": one.events,
        "last": one.last.to_string(),
        "last-recorded": time(one.recorded),
    })
}

fn consumer(one: &Consumer) -> Value {
    json!({ "kind": one.kind.as_str(), "name": one.name, "names-the-type": one.names_the_type })
}

fn time(at: Wall) -> String {
    Timestamp::from(at).as_str().to_owned()
}
