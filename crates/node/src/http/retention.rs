//! What streams keep: truncate, tombstone, metadata, archives, scavenging.

use std::{collections::BTreeMap, time::Duration};

use axum::extract::{Request, State};
use bytes::Bytes;
use http::{Response, StatusCode, request::Parts};
use humantime_serde::re::humantime::format_duration;
use quorate_data::{
    event::{Position, Timestamp, Version},
    store::{
        AppendError, Archive, Direction, DynTx, ExpectedVersion, MetadataError, ReadStream, Retire, Retired, Retry,
        Rules, SetMetadata, StoreError, StreamMetadata, TransactError,
    },
};
use quorate_foundations::name::Name;
use quorate_runtime::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Shared,
    document::{self, Count},
    idempotency,
    problem::{Code, Problem},
    processes::not_a_processes,
    reply,
    request::{self, Params},
    sagas::not_an_open_sagas,
    streams::once,
    transactions::not_a_coordinators,
};

type Reply = Result<axum::response::Response, Problem>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Truncate {
    before: Count,
}

/// `POST /v1/streams/{stream}/truncate`
pub(super) async fn truncate(State(node): State<Shared>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    let stream = request::stream(&head.uri)?;
    not_an_open_sagas(&node, &stream).await?;
    not_a_coordinators(&stream)?;
    Params::of(&head.uri, &[])?;
    let expected = request::expected(&head.headers)?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let Truncate { before: Count(before) } = document::parsed(&received.bytes)?;
    let before = counted("before", before)?;
    let (what, document) = (Retire::Truncate { before }, json!({ "before": before.to_string() }));
    retire(&node, &head, &received.bytes, stream, (expected, what), document).await
}

fn counted(member: &str, version: u64) -> Result<Version, Problem> {
    match version {
        0 => Err(request::wrong(member, format!("`{member}` counts from 1: the first version to keep"))),
        version => Ok(Version::new(version)),
    }
}

/// `POST /v1/streams/{stream}/tombstone`
pub(super) async fn tombstone(State(node): State<Shared>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    let stream = request::stream(&head.uri)?;
    not_an_open_sagas(&node, &stream).await?;
    not_a_processes(&stream)?;
    not_a_coordinators(&stream)?;
    Params::of(&head.uri, &[])?;
    let expected = request::expected(&head.headers)?;
    let received = node.receive(&head, body).await?;
    if !received.bytes.is_empty() {
        return Err(Problem::new(Code::InvalidJson, "a tombstone takes no body: what it expects stands in `If-Match`"));
    }
    // The store holds this one against the stream itself: a stream that is closed already stays so.
    let what = (ExpectedVersion::Any, Retire::Tombstone { expected });
    retire(&node, &head, &received.bytes, stream, what, json!({ "tombstoned": true })).await
}

/// Forgets events of a stream that is as expected, with the reply in the same transaction where it is kept; answers when
/// their data has left the files.
async fn retire(
    node: &Shared,
    head: &Parts,
    body: &Bytes,
    stream: Name,
    (expected, what): (ExpectedVersion, Retire),
    document: Value,
) -> Reply {
    let of_effect = (node.clone(), stream.clone());
    let reply = in_transaction(node, head, body, move |tx| {
        let ((node, stream), document) = (of_effect.clone(), document.clone());
        Box::pin(async move {
            match retire_if(tx, &stream, expected, what).await {
                Ok(retired) => Ok(Ok(retirement(&node, &stream, retired, document))),
                Err(AppendError::Store(cause)) => Err(cause),
                Err(refusal) => Ok(Err(refusal.into())),
            }
        })
    });
    let reply = reply.await?;
    node.streams.store().wipe(stream).await?;
    Ok(reply)
}

async fn retire_if(
    tx: &mut DynTx,
    stream: &Name,
    expected: ExpectedVersion,
    what: Retire,
) -> Result<Retired, AppendError> {
    if expected != ExpectedVersion::Any {
        let newest = ReadStream { direction: Direction::Backward, ..ReadStream::forward(stream.clone(), 1) };
        let actual = tx.read_stream(newest).await?.head.version;
        if !expected.accepts(actual) {
            return Err(AppendError::VersionConflict { stream: stream.clone(), expected, actual });
        }
    }
    tx.retire(stream, what).await
}

fn retirement(node: &Shared, stream: &Name, retired: Retired, mut document: Value) -> Response<Bytes> {
    let token = node.streams.token(Position::ZERO);
    document["stream"] = stream.as_str().into();
    document["retired"] = retired.events.into();
    document["token"] = token.to_string().into();
    let mut response = reply::json(StatusCode::OK, &document);
    reply::token(response.headers_mut(), &token);
    response
}

/// Runs `effect` in one transaction; under an idempotency key its reply, also a refusal by the store's state, is kept in it.
async fn in_transaction<F>(node: &Shared, head: &Parts, body: &Bytes, effect: F) -> Reply
where
    F: for<'t> Fn(&'t mut DynTx) -> BoxFuture<'t, Result<Result<Response<Bytes>, Problem>, StoreError>>
        + Send
        + Sync
        + 'static,
{
    let Some(key) = idempotency::key(head, body)? else {
        let done = node.streams.store().transact(effect).await;
        return done.map_err(uncommitted)?.map(reply::whole);
    };
    let effect = std::sync::Arc::new(effect);
    let kept = node.idempotency.once(key, move |tx| {
        let effect = effect.clone();
        Box::pin(async move {
            let reply = effect(tx).await?;
            Ok(idempotency::kept(&reply.unwrap_or_else(|refusal| refusal.render())))
        })
    });
    idempotency::told(kept.await?)
}

fn uncommitted(failed: TransactError<StoreError>) -> Problem {
    match failed {
        TransactError::Aborted(cause) | TransactError::Store(cause) => cause.into(),
        TransactError::TooLong { .. } => Problem::of(Code::Overloaded, &failed).retry(Retry::Now),
        _ => Problem::of(Code::StoreFailed, &failed),
    }
}

/// A stream's metadata as they are sent: as a reply has them, so that what was read can be changed and sent back.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Metadata {
    /// The stream of the path, if it is said.
    stream: Option<String>,
    /// The version that they were read at, if it is said: what they are expected to be at still.
    #[serde(rename = "metadataversion")]
    version: Option<Count>,
    max_count: Option<Count>,
    #[serde(with = "humantime_serde")]
    max_age: Option<Duration>,
    values: BTreeMap<String, String>,
}

impl Metadata {
    /// What the metadata of `stream` have to be at, of which the preconditions say `expected`.
    fn expected(&self, stream: &Name, expected: ExpectedVersion) -> Result<ExpectedVersion, Problem> {
        if let Some(said) = self.stream.as_deref().filter(|said| *said != stream.as_str()) {
            let said = request::short(said);
            let detail = format!("`stream` is `{said}`, and the path names `{stream}`: leave it out, or send it there");
            return Err(request::wrong("stream", detail));
        }
        let Some(Count(read_at)) = self.version else { return Ok(expected) };
        if !expected.accepts(Version::new(read_at)) {
            let detail = format!(
                "`metadataversion` is {read_at}, and the header asks for something else: leave one of them out"
            );
            return Err(Problem::new(Code::InvalidPrecondition, detail));
        }
        Ok(match read_at {
            0 => ExpectedVersion::NoStream,
            version => ExpectedVersion::Exact(Version::new(version)),
        })
    }
}

impl From<Metadata> for StreamMetadata {
    fn from(sent: Metadata) -> Self {
        let rules = Rules { max_count: sent.max_count.map(|Count(count)| count), max_age: sent.max_age };
        Self { rules, values: sent.values }
    }
}

/// `GET /v1/streams/{stream}/metadata`
pub(super) async fn metadata(State(node): State<Shared>, request: Request) -> Reply {
    let stream = request::stream(request.uri())?;
    Params::of(request.uri(), &[])?;
    request::reach_token(&node, request.headers()).await?;
    let found = node.streams.metadata(stream.clone()).await?;
    Ok(reply::whole(described(&stream, &found)))
}

/// `PUT /v1/streams/{stream}/metadata`
pub(super) async fn set_metadata(State(node): State<Shared>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    let stream = request::stream(&head.uri)?;
    not_an_open_sagas(&node, &stream).await?;
    not_a_coordinators(&stream)?;
    Params::of(&head.uri, &[])?;
    let expected: ExpectedVersion = request::expected(&head.headers)?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let sent: Metadata = document::parsed(&received.bytes)?;
    let expected = sent.expected(&stream, expected)?;
    let metadata = StreamMetadata::from(sent);
    metadata.check().map_err(|wrong| Problem::of(Code::InvalidParameter, &wrong))?;
    in_transaction(&node, &head, &received.bytes, move |tx| {
        let (stream, metadata) = (stream.clone(), metadata.clone());
        Box::pin(async move {
            match tx.set_metadata(&stream, expected, metadata.clone()).await {
                Ok(version) => Ok(Ok(described(&stream, &SetMetadata { version, metadata }))),
                Err(MetadataError::Store(cause)) => Err(cause),
                Err(refusal) => Ok(Err(refusal.into())),
            }
        })
    })
    .await
}

fn described(stream: &Name, found: &SetMetadata) -> Response<Bytes> {
    let Rules { max_count, max_age } = found.metadata.rules;
    let mut document = json!({
        "stream": stream.as_str(),
        "metadataversion": found.version.to_string(),
        "values": found.metadata.values,
    });
    if let Some(count) = max_count {
        document["max-count"] = count.to_string().into();
    }
    if let Some(age) = max_age {
        document["max-age"] = format_duration(age).to_string().into();
    }
    let mut response = reply::json(StatusCode::OK, &document);
    if found.version > Version::ZERO {
        reply::tag(response.headers_mut(), found.version);
    }
    response
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToArchive {
    to: String,
    before: Option<Count>,
}

/// `POST /v1/streams/{stream}/archive`
pub(super) async fn archive(State(node): State<Shared>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    let stream = request::stream(&head.uri)?;
    not_an_open_sagas(&node, &stream).await?;
    not_a_coordinators(&stream)?;
    Params::of(&head.uri, &[])?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let ToArchive { to, before } = document::parsed(&received.bytes)?;
    let before = before.map(|Count(before)| counted("before", before)).transpose()?;
    let effect = async {
        let archive = node.archives.archive(stream.clone(), before, &to).await?;
        Ok(reply::json(StatusCode::CREATED, &shown(&node, &archive)))
    };
    once(&node, &head, &received.bytes, effect).await
}

/// `GET /v1/streams/{stream}/archive`
pub(super) async fn archives(State(node): State<Shared>, request: Request) -> Reply {
    let stream = request::stream(request.uri())?;
    Params::of(request.uri(), &[])?;
    let archives = node.archives.of(stream.clone()).await?;
    if archives.is_empty() {
        // Says so where there is no such stream.
        node.streams.head(stream).await?;
    }
    let shown: Vec<Value> = archives.iter().map(|archive| shown(&node, archive)).collect();
    Ok(reply::whole(reply::json(StatusCode::OK, &json!({ "archives": shown }))))
}

/// An archive, as it is listed.
pub(super) fn shown(node: &Shared, archive: &Archive) -> Value {
    json!({
        "archiveid": archive.id.to_string(),
        "to": archive.name,
        "path": node.archives.path(&archive.name).to_string_lossy(),
        "stream": archive.stream.as_str(),
        "first": archive.first.to_string(),
        "last": archive.last.to_string(),
        "hash": archive.hash.to_string(),
        "bytes": archive.bytes,
        "made": Timestamp::from(archive.made_at).as_str(),
    })
}

/// `POST /v1/store/scavenge`
pub(super) async fn scavenge(State(node): State<Shared>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    Params::of(&head.uri, &[])?;
    node.receive_nothing(&head, body, "a scavenge takes no body: what it forgets is in the rules of streams").await?;
    let effect = async {
        let done = node.streams.scavenge().await?;
        Ok(reply::json(StatusCode::OK, &json!({ "streams": done.streams, "retired": done.events })))
    };
    once(&node, &head, &Bytes::new(), effect).await
}
