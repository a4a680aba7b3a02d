//! Streams: read, list, follow.

use axum::extract::{Request, State};
use bytes::Bytes;
use http::{
    HeaderMap, Response, StatusCode, Uri,
    header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
    request::Parts,
};
use quorate_data::{
    event::{Position, Recorded, Version},
    store::{Direction, ReadStream, StreamHead, StreamPage},
};
use quorate_foundations::name::Name;
use serde_json::{Value, json};

use super::{
    Shared, accept,
    cloud_events::{self, STRUCTURED, essence},
    found::Found,
    idempotency, log, page, percent,
    problem::{Code, Problem},
    reply,
    request::{self, Params},
    sse,
};
use crate::verbs::{ReadError, Source, Streams};

type Reply = Result<axum::response::Response, Problem>;

/// How often a page is begun at most, where something is forgotten each time.
const READINGS: usize = 8;

/// `GET /v1/streams/{stream}/events`
pub(super) async fn read(State(node): State<Shared>, request: Request) -> Reply {
    let (uri, headers) = (request.uri(), request.headers());
    let stream = request::stream(uri)?;
    let params = Params::of(uri, &["from", "limit", "direction", "at", "recordedat"])?;
    let direction = match params.one("direction")? {
        None | Some("forward") => Direction::Forward,
        Some("backward") => Direction::Backward,
        Some(other) => {
            let detail = format!("`direction={}` is neither forward nor backward", request::short(other));
            return Err(request::wrong("direction", detail));
        }
    };
    let (from, limit) = (params.counted("from")?.map(Version::new), params.limit(&node)?);
    let moment = params.moment()?;
    let found = Found::new(&node, limit, moment);
    request::reach_token(&node, headers).await?;
    let read = ReadStream { stream: stream.clone(), from, direction, limit: found.step() };
    let (since, first) = beginning(&node.streams, || node.streams.read(read.clone())).await?;
    if moment.is_any() {
        let span = Span { from, direction, limit: limit as u64 };
        return answer(&node, (uri, headers), &stream, since, first, &span);
    }
    of_moment(&node, (uri, headers), read, since, first, found).await
}

/// Reads the beginning of a page as its stream was at one moment, and says since when it is read.
///
/// What is forgotten while it is read does not leave the node any more. A page that was begun before that and is told without it
/// would be one that the stream never was: of what it had all may be gone, and what was appended before that is not on it. So it
/// is begun anew, up to [`READINGS`] times; beyond them it is told without what is gone.
async fn beginning<F>(streams: &Streams, read: impl Fn() -> F) -> Result<(page::Since, StreamPage), ReadError>
where
    F: Future<Output = Result<StreamPage, ReadError>>,
{
    let mut readings = 1;
    loop {
        let since = page::Since::now(streams, false);
        let first = read().await?;
        if readings == READINGS || !since.is_stale() {
            return Ok((since, first));
        }
        readings += 1;
    }
}

/// A page of the events that were there at a moment of the past.
async fn of_moment(
    node: &Shared,
    of: (&Uri, &HeaderMap),
    mut read: ReadStream,
    since: page::Since,
    mut page: StreamPage,
    mut found: Found,
) -> Reply {
    loop {
        let left = found.take(node, page.events)?;
        read.from = left.first().map(Recorded::version).or(page.next);
        if read.from.is_none() || found.is_enough(node) {
            break;
        }
        page = node.streams.read(read.clone()).await?;
    }
    let next = read.from.map(Version::get);
    let page = Page { stream: &read.stream, head: page.head, since, events: found.split(), next };
    page_reply(node, of, page)
}

/// What a request asks for: `limit` versions from `from` on.
struct Span {
    from: Option<Version>,
    direction: Direction,
    limit: u64,
}

impl Span {
    /// The last version of the page, which shows the stream as it was when the page was begun: what is appended while it is
    /// sent is not on it.
    fn last(&self, head: StreamHead) -> Version {
        Version::new(match self.direction {
            Direction::Forward => {
                let first = self.from.unwrap_or_default().max(head.first).max(Version::new(1));
                first.get().saturating_add(self.limit - 1).min(head.version.get())
            }
            Direction::Backward => {
                let first = self.from.unwrap_or(head.version).min(head.version);
                first.get().saturating_sub(self.limit - 1).max(1)
            }
        })
    }

    /// The first version of the next page.
    fn next(&self, head: StreamHead) -> Option<u64> {
        let last = self.last(head);
        match self.direction {
            Direction::Forward => (last < head.version).then(|| last.get() + 1),
            Direction::Backward => (last > head.first && last.get() > 1).then(|| last.get() - 1),
        }
    }
}

fn answer(
    node: &Shared,
    of: (&Uri, &HeaderMap),
    stream: &Name,
    since: page::Since,
    mut first: StreamPage,
    span: &Span,
) -> Reply {
    let last = span.last(first.head);
    first.events.retain(|event| !page::beyond(event.version(), last, span.direction));
    let rest = page::Rest::of_stream(&first, stream, last, span.direction);
    let (head, events, next) = (first.head, page::Events::of(first.events, rest), span.next(first.head));
    page_reply(node, of, Page { stream, head, since, events, next })
}

/// A page of a stream, and the version that the next one begins with.
struct Page<'s> {
    stream: &'s Name,
    head: StreamHead,
    since: page::Since,
    events: page::Events,
    next: Option<u64>,
}

fn page_reply(node: &Shared, (uri, headers): (&Uri, &HeaderMap), page: Page<'_>) -> Reply {
    let Page { stream, head, since, events, next } = page;
    let seen = events.first.iter().map(Recorded::position).max().unwrap_or_default();
    let mut members = String::from(",\"stream\":");
    members.push_str(&Value::from(stream.as_str()).to_string());
    members.push_str(&format!(",\"streamversion\":\"{}\"", head.version));
    let mut response = page::reply(node, page::Form::of(headers), since, events, &members)?;
    reply::tag(response.headers_mut(), head.version);
    reply::token(response.headers_mut(), &node.streams.token(seen));
    if let Some(from) = next {
        reply::next(response.headers_mut(), &log::next(uri, "from", from));
    }
    Ok(response)
}

/// `GET /v1/streams/{stream}/events/{version}`
pub(super) async fn event(State(node): State<Shared>, request: Request) -> Reply {
    let (uri, headers) = (request.uri(), request.headers());
    let stream = request::stream(uri)?;
    Params::of(uri, &[])?;
    let segment = uri.path().rsplit('/').next().unwrap_or_default();
    let version = request::whole(segment).filter(|version| *version > 0).ok_or_else(|| {
        let detail = format!("`{}` is no version: a whole number from 1", request::short(segment));
        request::wrong("version", detail)
    })?;
    request::reach_token(&node, headers).await?;
    let event = node.streams.event(stream, Version::new(version)).await?;
    let mut response = rendered(headers, &event)?;
    reply::tag(response.headers_mut(), event.version());
    reply::token(response.headers_mut(), &node.streams.token(event.position()));
    Ok(reply::whole(response))
}

/// One event: as JSON, or in binary mode for who likes its data's own type better than events.
fn rendered(headers: &HeaderMap, event: &Recorded) -> Result<Response<Bytes>, Problem> {
    let own = event.content_type().map_or("application/octet-stream", essence);
    let mut response = match accept::accepted(headers, &[STRUCTURED, own]) {
        Some(0) => {
            let mut buffer = bytes::BytesMut::new();
            cloud_events::Renderer::new(cloud_events::Layout::AsReceived).event(&mut buffer, event);
            reply::bytes(StatusCode::OK, STRUCTURED, buffer.freeze())
        }
        Some(_) => binary(event),
        None => {
            let detail = format!("this event comes as {STRUCTURED} or, in binary mode, as {own}");
            return Err(Problem::new(Code::NotAcceptable, detail));
        }
    };
    accept::varies(response.headers_mut());
    Ok(response)
}

fn binary(event: &Recorded) -> Response<Bytes> {
    let mut response = Response::new(event.data_bytes().unwrap_or_default());
    cloud_events::to_headers(event, response.headers_mut());
    if !response.headers().contains_key(CONTENT_TYPE) {
        response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/octet-stream"));
    }
    // The data is anybody's: a browser that takes it for a page must run none of it as a page of this node.
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_SECURITY_POLICY,
        http::HeaderValue::from_static("sandbox; default-src 'none'; frame-ancestors 'none'"),
    );
    headers.insert(X_CONTENT_TYPE_OPTIONS, http::HeaderValue::from_static("nosniff"));
    response
}

/// `GET /v1/streams/{stream}/subscribe`
pub(super) async fn subscribe(State(node): State<Shared>, request: Request) -> Reply {
    let stream = request::stream(request.uri())?;
    let params = Params::of(request.uri(), &["after", "from"])?;
    let from = params.counted("from")?.map(Version::new);
    let source = match (sse::resume(&node, &params, request.headers())?, from) {
        (Some(_), Some(_)) if params.one("after")?.is_some() => {
            return Err(request::wrong(
                "from",
                "`from` (a version) and `after` (a position) exclude each other".to_owned(),
            ));
        }
        // A reader that comes back resumes where it was, whatever its address still says.
        (Some(after), _) => Source::StreamAfter { stream, after },
        (None, from) => Source::Stream { stream, from: from.unwrap_or(Version::new(1)) },
    };
    request::reach_token(&node, request.headers()).await?;
    sse::follow(&node, source).await
}

/// `GET /v1/streams`
pub(super) async fn list(State(node): State<Shared>, request: Request) -> Reply {
    let params = Params::of(request.uri(), &["prefix", "after", "limit"])?;
    let (prefix, limit) = (params.one("prefix")?.unwrap_or_default(), params.limit(&node)?);
    let after = params.one("after")?.map(Name::new).transpose()?;
    request::reach_token(&node, request.headers()).await?;
    let streams = node.streams.list(prefix, after, limit).await?;
    let last = streams.last().filter(|_| streams.len() == limit).map(|last| last.stream.clone());
    let shown: Vec<Value> = streams.iter().map(|one| summary(&one.stream, one.head)).collect();
    let mut response = reply::json(StatusCode::OK, &json!({ "streams": shown }));
    reply::token(response.headers_mut(), &node.streams.token(Position::ZERO));
    if let Some(last) = last {
        let mut address = format!("/v1/streams?limit={limit}&prefix=");
        percent::encode(prefix, &mut address);
        address.push_str("&after=");
        percent::encode(last.as_str(), &mut address);
        reply::next(response.headers_mut(), &address);
    }
    Ok(reply::whole(response))
}

/// `GET /v1/streams/{stream}`
pub(super) async fn head(State(node): State<Shared>, request: Request) -> Reply {
    let stream = request::stream(request.uri())?;
    Params::of(request.uri(), &[])?;
    request::reach_token(&node, request.headers()).await?;
    let head = node.streams.head(stream.clone()).await?;
    let mut response = reply::json(StatusCode::OK, &summary(&stream, head));
    reply::tag(response.headers_mut(), head.version);
    reply::token(response.headers_mut(), &node.streams.token(Position::ZERO));
    Ok(reply::whole(response))
}

fn summary(stream: &Name, head: StreamHead) -> Value {
    json!({
        "stream": stream.as_str(),
        "streamversion": head.version.to_string(),
        "first": head.first.to_string(),
        "tombstoned": head.tombstoned,
        "metadataversion": head.metadata.to_string(),
    })
}

/// Does `effect`, which is harmless to repeat, under the request's idempotency key if it has one.
pub(super) async fn once(
    node: &Shared,
    head: &Parts,
    body: &Bytes,
    effect: impl Future<Output = Result<Response<Bytes>, Problem>>,
) -> Reply {
    let Some(key) = idempotency::key(head, body)? else { return effect.await.map(reply::whole) };
    let kept = async { effect.await.map(|response| idempotency::kept(&response)) };
    idempotency::told(node.idempotency.once_around::<Problem>(key, kept).await?)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use quorate_data::{
        event::NewEvent,
        store::{AppendBatch, ExpectedVersion, Retire, Store, sqlite},
    };
    use quorate_runtime::Env;

    use super::*;

    fn stream() -> Name {
        "s".parse().unwrap()
    }

    /// Has `s` go from `first` to `last`, of which it has those up to `known`.
    async fn move_on(store: &Store, known: u64, first: u64, last: u64) {
        let events = (known + 1..=last).map(|n| NewEvent::new(n.to_string(), "/s", "t")).collect();
        store.append(AppendBatch::to(stream(), ExpectedVersion::Any, events)).await.unwrap();
        store.retire(stream(), Retire::Truncate { before: Version::new(first) }).await.unwrap();
    }

    /// Begins a page of `s`, which was cut to its versions 4 and 5; behind each of the first `times` readings two events are
    /// appended and all before them forgotten. Returns the versions on the page, the stream's, how often it was read, and
    /// whether something was forgotten since.
    async fn begun(times: u64) -> (Vec<u64>, u64, u64, bool) {
        let folder = tempfile::tempdir().unwrap();
        let store = sqlite::open(&Env::real(), sqlite::Config::at(folder.path().join("log.db"))).await.unwrap();
        move_on(&store, 0, 4, 5).await;
        let (streams, read) = (Streams::new(store.clone()), Cell::new(0));
        let reading = || async {
            let page = streams.read(ReadStream::forward(stream(), page::STEP)).await?;
            let last = page.head.version.get();
            if read.replace(read.get() + 1) < times {
                move_on(&store, last, last + 1, last + 2).await;
            }
            Ok(page)
        };
        let (since, page) = beginning(&streams, reading).await.unwrap();
        let versions = page.events.iter().map(|event| event.version().get()).collect();
        (versions, page.head.version.get(), read.get(), since.is_stale())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_page_of_which_everything_is_forgotten_while_it_is_read_shows_what_the_stream_has_become() {
        assert_eq!(begun(0).await, (vec![4, 5], 5, 1, false));
        assert_eq!(begun(1).await, (vec![6, 7], 7, 2, false));
        assert_eq!(begun(3).await, (vec![10, 11], 11, 4, false));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_page_is_begun_so_often_and_no_more_however_fast_a_stream_is_forgotten() {
        let (_, _, read, is_stale) = begun(u64::MAX).await;
        assert_eq!((read, is_stale), (READINGS as u64, true));
    }
}
