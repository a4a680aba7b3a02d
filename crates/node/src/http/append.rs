//! Appending: to one stream, or to several on conditions.

use axum::extract::{Request, State};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Response, StatusCode, header::CONTENT_TYPE, request::Parts};
use quorate_data::{
    event::{NewEvent, Position, Version},
    store::{AppendBatch, AppendCondition, AppendError, Appended, ExpectedVersion, Query, QueryItem, StreamAppend},
};
use quorate_foundations::name::Name;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Node, Shared,
    body_in::Received,
    cloud_events::{self, BATCH, STRUCTURED, essence},
    document::{self, Count},
    idempotency, json,
    problem::{Code, Problem},
    reply, request,
    sagas::not_a_sagas,
    transactions::not_of_coordinators,
};

/// `POST /v1/streams/{stream}/events`
pub(super) async fn to_stream(
    State(node): State<Shared>,
    request: Request,
) -> Result<axum::response::Response, Problem> {
    let (head, body) = request.into_parts();
    request::Params::of(&head.uri, &[])?;
    let stream = request::stream(&head.uri)?;
    let expected = request::expected(&head.headers)?;
    not_a_sagas(&stream)?;
    let received = node.receive(&head, body).await?;
    let events = events(&node, &head.headers, &received.bytes)?;
    let batch = AppendBatch::to(stream, expected, events);
    append(&node, &head, &received, batch, one_stream).await
}

/// `POST /v1/events`
pub(super) async fn to_streams(
    State(node): State<Shared>,
    request: Request,
) -> Result<axum::response::Response, Problem> {
    let (head, body) = request.into_parts();
    request::Params::of(&head.uri, &[])?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let batch = several(&node, &received.bytes)?;
    for of_stream in &batch.streams {
        not_a_sagas(&of_stream.stream)?;
    }
    append(&node, &head, &received, batch, several_streams).await
}

async fn append(
    node: &Node,
    head: &Parts,
    received: &Received,
    batch: AppendBatch,
    shape: fn(&Appended) -> Response<Bytes>,
) -> Result<axum::response::Response, Problem> {
    within_limits(node, &batch)?;
    not_of_coordinators(&batch.streams)?;
    let share = node.share_or_refuse(reply_bytes(&batch))?;
    let Some(key) = idempotency::key(head, &received.bytes)? else {
        return Ok(share.of(reply::whole(shape(&node.streams.append(batch).await?))));
    };
    // The writer, who runs the transaction, is not to be held up by it.
    let batch = node.streams.check(batch).await;
    let done = node.idempotency.once(key, move |tx| {
        let batch = batch.clone();
        Box::pin(async move {
            match tx.append_checked(batch).await {
                Ok(appended) => Ok(idempotency::kept(&shape(&appended))),
                Err(AppendError::Store(cause)) => Err(cause),
                // The store's state decided: the first answer to this key stands.
                Err(refused) => Ok(idempotency::kept(&Problem::from(refused).render())),
            }
        })
    });
    idempotency::told(done.await?).map(|told| share.of(told))
}

/// The most bytes that the reply to an append of `batch` may have.
fn reply_bytes(batch: &AppendBatch) -> usize {
    // A byte of a name is six in JSON at most, as `\u0007`.
    batch.streams.iter().map(|part| 64 + 6 * part.stream.as_str().len()).sum::<usize>() + 160
}

/// The events of a body in whichever of the three modes it is.
fn events(node: &Node, headers: &HeaderMap, body: &Bytes) -> Result<Vec<NewEvent>, Problem> {
    if cloud_events::is_binary(headers) {
        return Ok(vec![cloud_events::from_headers(headers, body.clone())?]);
    }
    let media = request::header(headers, &CONTENT_TYPE)?.unwrap_or_default();
    let media_type = essence(media);
    utf8(media)?;
    if media_type.eq_ignore_ascii_case(STRUCTURED) {
        return Ok(vec![cloud_events::event(body, body)?]);
    }
    if media_type.eq_ignore_ascii_case(BATCH) {
        return not_empty(cloud_events::batch(body, body, node.config.limits.batch_events)?);
    }
    let detail = format!(
        "`content-type: {}` is none of {STRUCTURED}, {BATCH}, or, with the event's attributes as `ce-…` headers, its data's own",
        request::short(media)
    );
    Err(Problem::new(Code::UnsupportedMediaType, detail))
}

/// JSON travels as UTF-8 only.
fn utf8(media: &str) -> Result<(), Problem> {
    let charset = media.split(';').skip(1).find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    });
    match charset {
        Some(charset) if !charset.eq_ignore_ascii_case("utf-8") => {
            let detail = format!("events in JSON are UTF-8, not `{}`", request::short(charset));
            Err(Problem::new(Code::UnsupportedMediaType, detail))
        }
        _ => Ok(()),
    }
}

fn not_empty(events: Vec<NewEvent>) -> Result<Vec<NewEvent>, Problem> {
    if events.is_empty() {
        return Err(Problem::new(Code::InvalidBatch, "a batch holds at least one event"));
    }
    Ok(events)
}

/// Holds a batch against the store's limits, so that what is too large is told as such.
pub(super) fn within_limits(node: &Node, batch: &AppendBatch) -> Result<(), Problem> {
    let limits = &node.config.limits;
    let (mut events, mut bytes) = (0, 0);
    for part in &batch.streams {
        for (index, event) in part.events.iter().enumerate() {
            let data = event.data.as_ref().map_or(0, Bytes::len);
            if data > limits.event_bytes {
                let max = limits.event_bytes;
                let detail =
                    format!("event {index}, `data`: an event's data has at most {max} bytes, this one has {data}");
                return Err(Problem::new(Code::TooLarge, detail).with("index", index).with("limit", max));
            }
            (events, bytes) = (events + 1, bytes + event.size());
        }
    }
    for (what, is, max) in [("events", events, limits.batch_events), ("bytes", bytes, limits.batch_bytes)] {
        if is > max {
            let detail = format!("one append has at most {max} {what}, this one has {is}");
            return Err(Problem::new(Code::TooLarge, detail).with("limit", max));
        }
    }
    Ok(())
}

fn one_stream(appended: &Appended) -> Response<Bytes> {
    let mut body = BytesMut::with_capacity(160);
    if let Some((stream, version)) = appended.versions.first() {
        body.put_slice(b"{\"stream\":");
        summary(&mut body, stream, *version);
    }
    finish(body, appended)
}

fn several_streams(appended: &Appended) -> Response<Bytes> {
    let mut body = BytesMut::with_capacity(96 + 64 * appended.versions.len());
    body.put_slice(b"{\"streams\":[");
    for (n, (stream, version)) in appended.versions.iter().enumerate() {
        body.put_slice(if n == 0 { b"{\"stream\":" } else { b",{\"stream\":" });
        summary(&mut body, stream, *version);
        body.put_u8(b'}');
    }
    body.put_u8(b']');
    finish(body, appended)
}

fn summary(body: &mut BytesMut, stream: &Name, version: Version) {
    json::write_string(body, stream.as_str());
    body.put_slice(b",\"streamversion\":\"");
    json::write_number(body, version.get());
    body.put_u8(b'"');
}

fn finish(mut body: BytesMut, appended: &Appended) -> Response<Bytes> {
    body.put_slice(b",\"token\":\"");
    body.put_slice(appended.token.to_string().as_bytes());
    body.put_slice(b"\"}");
    let mut response = reply::bytes(StatusCode::CREATED, reply::JSON, body.freeze());
    if let [(_, version)] = appended.versions[..] {
        reply::tag(response.headers_mut(), version);
    }
    reply::token(response.headers_mut(), &appended.token);
    response
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Several<'b> {
    #[serde(borrow)]
    streams: Vec<Part<'b>>,
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part<'b> {
    stream: String,
    #[serde(default)]
    expected: Expected,
    #[serde(borrow)]
    events: &'b RawValue,
}

/// `{"version": 17}`, or one of the words.
#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expected {
    #[default]
    Any,
    None,
    Exists,
    Version(Count),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Condition {
    fail_if_events_match: Match,
    #[serde(default)]
    after: Count,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Match {
    items: Vec<Item>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Item {
    types: Vec<String>,
    tags: Vec<String>,
    categories: Vec<String>,
}

fn several(node: &Node, body: &Bytes) -> Result<AppendBatch, Problem> {
    let several: Several<'_> = document::envelope(body)?;
    if several.streams.is_empty() {
        return Err(Problem::new(Code::InvalidBatch, "`streams` holds at least one stream"));
    }
    let max = node.config.limits.batch_events;
    let part = |(n, part): (usize, &Part<'_>)| one_part(body, part, max).map_err(|problem| problem.with("part", n));
    Ok(AppendBatch {
        streams: several.streams.iter().enumerate().map(part).collect::<Result<_, _>>()?,
        conditions: several.conditions.into_iter().map(condition).collect::<Result<_, _>>()?,
    })
}

pub(super) fn one_part(body: &Bytes, part: &Part<'_>, max: usize) -> Result<StreamAppend, Problem> {
    let expected = match part.expected {
        Expected::Any => ExpectedVersion::Any,
        Expected::None => ExpectedVersion::NoStream,
        Expected::Exists => ExpectedVersion::StreamExists,
        Expected::Version(Count(0)) => {
            let detail = "`expected: {\"version\": 0}` names no version; `\"none\"` asks that there is no stream yet";
            return Err(Problem::new(Code::InvalidPrecondition, detail));
        }
        Expected::Version(Count(version)) => ExpectedVersion::Exact(Version::new(version)),
    };
    let events = cloud_events::batch(body, part.events.get().as_bytes(), max)?;
    Ok(StreamAppend { stream: part.stream.parse()?, expected, events: not_empty(events)? })
}

fn condition(given: Condition) -> Result<AppendCondition, Problem> {
    let item = |item: Item| QueryItem { types: item.types, tags: item.tags, categories: item.categories };
    let query = Query::of(given.fail_if_events_match.items.into_iter().map(item));
    query.check()?;
    Ok(AppendCondition { fail_if_match: query, after: Position::new(given.after.0) })
}
