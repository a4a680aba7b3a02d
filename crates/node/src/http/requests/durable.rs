//! Durable requests: asking, looking what became of it, and answering.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{Request, State},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri, header::LOCATION};
use quorate_communication::{
    event_bus::webhook::{Secret, SecretError},
    message_queue::Lease,
    request::{Deadline, DurableError, Exchange, Fault, Payload, Status, callback::Callback, machine::Verdict},
};
use quorate_foundations::name::Name;
use quorate_resilience::Scope;
use serde_json::{Map, Value, json};

use super::{Reply, serve};
use crate::{
    http::{
        Node, RETRY, Shared, percent,
        problem::{Code, Problem},
        reply,
        request::{self, Params},
    },
    verbs::{MessageQueues, RequestType},
};

impl From<DurableError> for Problem {
    fn from(error: DurableError) -> Self {
        let told = |code, kind: &Name, id: &Name| {
            Self::of(code, &error).retry(error.retry()).with("requesttype", kind.as_str()).with("id", id.as_str())
        };
        match &error {
            DurableError::Forgotten { kind, id, .. } => told(Code::RequestNotFound, kind, id),
            DurableError::AnotherBody { kind, id } => told(Code::RequestIdReused, kind, id),
            DurableError::TooLong { max, .. } => Self::of(Code::TooLarge, &error).with("limit", *max),
            DurableError::Queue(cause) => cause.clone().into(),
            DurableError::Callback(cause) => Self::from(cause.clone()).with("parameter", "callback"),
            _ => Self::of(Code::StoreFailed, &error),
        }
    }
}

/// The id that whoever asks gives a request, where its type keeps any.
pub(super) fn id_for(params: &Params<'_>, of: &RequestType) -> Result<Option<Name>, Problem> {
    let Some(id) = params.one("id")? else { return Ok(None) };
    if of.contract.exchange != Exchange::Durable {
        let what =
            format!("requests of type `{}` are not durable: nothing of them is kept, and they have no ids", of.name);
        return Err(request::wrong("id", what));
    }
    Ok(Some(Name::new(id)?))
}

/// What the outcome of a request is signed with.
const SECRET: HeaderName = HeaderName::from_static("quorate-callback-secret");

/// Whom whoever asks wants to be told of the outcome, where its type keeps any.
pub(super) fn callback_for(
    params: &Params<'_>,
    headers: &HeaderMap,
    of: &RequestType,
) -> Result<Option<Callback>, Problem> {
    let secret = request::header(headers, &SECRET)?;
    let wrong = |what: String| Problem::new(Code::InvalidParameter, what).with("header", SECRET.as_str());
    let (url, secret) = match (params.one("callback")?, secret) {
        (None, None) => return Ok(None),
        (Some(url), Some(secret)) => (url.to_owned(), secret),
        (None, Some(_)) => return Err(wrong(format!("`{SECRET}` signs what `callback` is told, which is missing"))),
        (Some(_), None) => {
            let what = format!("`callback` is told the outcome under a signature: say with what in `{SECRET}`");
            return Err(wrong(what));
        }
    };
    if of.contract.exchange != Exchange::Durable {
        let what = format!("requests of type `{}` are not durable: their callers wait for the answer", of.name);
        return Err(request::wrong("callback", what));
    }
    let secret: Secret = secret.parse().map_err(|no: SecretError| wrong(format!("`{SECRET}`: {no}")))?;
    Ok(Some(Callback { url, secret }))
}

/// `POST /v1/requests/{type}` of a durable type: what was received is asked.
pub(super) async fn ask(
    node: &Node,
    of: &RequestType,
    (id, body, callback): (Option<Name>, Payload, Option<Callback>),
    deadline: Deadline,
) -> Reply {
    // Whatever is told of it names it: what is unknown can be looked for, and asked again.
    let id = id.unwrap_or_else(|| node.request_types.new_request_id());
    let asking = node.request_types.ask_durably(of, (&id, body), callback);
    let asked = node.timers.within(node.env.mono(), deadline, Scope::Total, asking).await;
    let late =
        || Problem::new(Code::DeadlinePassed, "the request's time was over before it was known to be kept").unknown();
    let asked = asked.map_err(|_| late()).and_then(|asked| asked.map_err(Problem::from));
    let repeated = asked.map_err(|problem| problem.with("id", id.as_str()))?;
    let told = json!({ "type": of.name.as_str(), "id": id.as_str(), "repeated": repeated });
    let mut response = reply::json(StatusCode::ACCEPTED, &told);
    if let Ok(address) = HeaderValue::from_str(&address(&of.name, &id)) {
        response.headers_mut().insert(LOCATION, address);
    }
    Ok(reply::whole(response))
}

/// Where it is told what became of a request.
fn address(kind: &Name, id: &Name) -> String {
    let mut address = "/v1/requests/".to_owned();
    percent::encode(kind.as_str(), &mut address);
    address.push('/');
    percent::encode(id.as_str(), &mut address);
    address
}

/// `GET /v1/requests/{type}/{id}`
pub(in crate::http) async fn status(State(node): State<Shared>, request: Request) -> Reply {
    let (kind, id) = named(request.uri())?;
    let deadline = request.extensions().get::<Deadline>().copied().unwrap_or(Deadline::NEVER);
    let patience = patience(&node, &Params::of(request.uri(), &["wait"])?)?;
    // What is known by the deadline is told by it.
    let now = node.env.mono();
    let left = patience.min(deadline.remaining(now).mul_f64(0.9));
    let looking = node.request_types.status(&kind, &id, left);
    let looking = async {
        tokio::select! {
            biased;
            status = looking => status.map_err(Problem::from),
            () = node.env.tasks().stop().cancelled() => {
                Err(Problem::new(Code::ShuttingDown, "the node is stopping").after(RETRY))
            }
        }
    };
    let looked = node.timers.within(now, deadline, Scope::Total, looking).await;
    let status = looked.map_err(|_| Problem::new(Code::DeadlinePassed, "the request's time was over"))??;
    let share = match &status {
        Status::Done(answer) => Some(node.share_or_refuse(serve::weight(answer))?),
        _ => None,
    };
    let response = reply::whole(reply::json(StatusCode::OK, &shown(&kind, &id, status)));
    Ok(if let Some(share) = share { share.of(response) } else { response })
}

/// The type and the id that a path names.
fn named(uri: &Uri) -> Result<(Name, Name), Problem> {
    let kind = request::request_type(uri)?;
    let text = percent::decode(uri.path().split('/').nth(4).unwrap_or_default()).map_err(|wrong| {
        Problem::new(Code::InvalidName, format!("the request's id in the path cannot be read: {wrong}"))
    })?;
    Ok((kind, Name::new(&*text)?))
}

/// How long the caller would wait for the end.
fn patience(node: &Node, params: &Params<'_>) -> Result<Duration, Problem> {
    let Some(text) = params.one("wait")? else { return Ok(Duration::ZERO) };
    let wait = humantime_serde::re::humantime::parse_duration(text)
        .map_err(|cause| request::wrong("wait", format!("`wait={}`: {cause}; say 30s", request::short(text))))?;
    let most = node.config.http.max_wait.min(MessageQueues::MAX_WAIT);
    if wait > most {
        return Err(Problem::new(Code::LimitExceeded, format!("`wait` is at most {most:?}, {wait:?} was asked for")));
    }
    Ok(wait)
}

fn shown(kind: &Name, id: &Name, status: Status<Payload>) -> Value {
    let mut shown = Map::from_iter([("type".to_owned(), kind.as_str().into()), ("id".to_owned(), id.as_str().into())]);
    let mut put = |name: &str, value: Value| drop(shown.insert(name.to_owned(), value));
    match status {
        Status::Waiting { attempts } => {
            put("status", "waiting".into());
            put("attempts", attempts.into());
        }
        Status::Running { attempt } => {
            put("status", "running".into());
            put("attempts", attempt.into());
        }
        Status::Done(answer) => {
            put("status", "done".into());
            put("answer", body(answer));
        }
        Status::Failed { fault: Fault { code, detail, .. }, dead_letter } => {
            put("status", "failed".into());
            put("fault", json!({ "code": code, "detail": detail }));
            if let Some(place) = dead_letter {
                let mut address = "/v1/queues/".to_owned();
                percent::encode(kind.as_str(), &mut address);
                put("dead-letter", format!("{address}/parked?after={}&limit=1", place.saturating_sub(1)).into());
            }
        }
        _ => put("status", "unanswered".into()),
    }
    shown.into()
}

/// A body in JSON.
fn body(Payload { content_type, bytes }: Payload) -> Value {
    let mut shown = Map::new();
    shown.extend(content_type.map(|media| ("content-type".to_owned(), Value::from(media.into_owned()))));
    let (name, text) = match String::from_utf8(bytes.into()) {
        Ok(text) => ("body", text),
        Err(coded) => ("body-base64", STANDARD.encode(coded.as_bytes())),
    };
    shown.insert(name.to_owned(), text.into());
    shown.into()
}

/// What a responder says of what it was handed under a lease.
pub(super) async fn say(node: &Node, kind: &Name, lease: Lease, verdict: Verdict) -> Reply {
    node.request_types.answer_durably(kind, lease, verdict).await?;
    Ok(receipt(lease, "taken"))
}

/// A responder works no more on what it was handed under a lease.
pub(super) async fn let_go(node: &Node, kind: &Name, lease: Lease) -> Reply {
    node.request_types.let_go_durably(kind, lease).await?;
    Ok(receipt(lease, "let-go"))
}

fn receipt(lease: Lease, receipt: &str) -> Response<Body> {
    reply::whole(reply::json(StatusCode::OK, &json!({ "request": lease.to_string(), "receipt": receipt })))
}
