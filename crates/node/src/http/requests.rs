//! Requests: their types, asking, and answering.

mod durable;
mod serve;

use std::{borrow::Cow, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode, Uri,
    header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
};
use humantime_serde::re::humantime::format_duration;
use quorate_communication::{
    message_queue::Lease,
    request::{
        Contract, Deadline, DeclareError, Exchange, Fault, NoTicket, Payload, RequestError, Ticket,
        machine::{Refusal, Unknown, Verdict},
    },
};
use quorate_foundations::name::Name;
use quorate_resilience::Scope;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Node, RETRY, Shared, document, percent,
    problem::{Code, Problem},
    reply,
    request::{self, Params},
    streams::once,
};
use crate::verbs::{RequestCareError, RequestType};
pub(super) use durable::status;
pub(super) use serve::{MAX_WINDOW, serve};

type Reply = Result<axum::response::Response, Problem>;

/// Whether a request asks for something that a responder is to answer, or what became of that, for which it may wait. It keeps its deadline itself: what nobody has begun on by then was not done.
pub(super) fn is_asking<B>(request: &http::Request<B>) -> bool {
    matches!(*request.method(), Method::POST | Method::GET) && request.uri().path().starts_with("/v1/requests/")
}

impl From<RequestCareError> for Problem {
    fn from(error: RequestCareError) -> Self {
        match error {
            RequestCareError::NotFound { ref kind } => {
                Self::of(Code::RequestTypeNotFound, &error).with("requesttype", kind.as_str())
            }
            RequestCareError::NotHeld { ref ticket, .. } => {
                Self::of(Code::RequestNotHeld, &error).with("request", ticket.to_string())
            }
            RequestCareError::Declare(cause) => match cause {
                DeclareError::TooMany { max } => Self::of(Code::TooManyRequestTypes, &cause).with("limit", max),
                DeclareError::TooManyResponders(ref many) => {
                    Self::of(Code::TooManyResponders, &cause).with("limit", many.max)
                }
                _ => Self::of(Code::InvalidParameter, &cause),
            },
            RequestCareError::Request(cause) => cause.into(),
            RequestCareError::Durable(cause) => cause.into(),
            RequestCareError::Queue(cause) => cause.into(),
            RequestCareError::NotDurable { ref kind } => {
                Self::of(Code::RequestNotFound, &error).with("requesttype", kind.as_str())
            }
            RequestCareError::Store(cause) => cause.into(),
            _ => Self::of(Code::StoreFailed, &error),
        }
    }
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        let told = |code, kind: &Name| Self::of(code, &error).retry(error.retry()).with("requesttype", kind.as_str());
        match &error {
            RequestError::NoResponder { kind } => told(Code::NoResponder, kind),
            RequestError::Refused { why: Refusal::Closing, .. } => {
                Self::new(Code::ShuttingDown, "the node is stopping; nobody has begun on the request").after(RETRY)
            }
            RequestError::Refused { kind, why } => {
                let reason = if *why == Refusal::Expired { "expired" } else { "full" };
                told(Code::RequestRefused, kind).with("reason", reason)
            }
            RequestError::Fault { kind, fault } => {
                let told = told(Code::RequestFault, kind).answered();
                told.with("fault", fault.code.as_str()).with("faultdetail", fault.detail.as_str())
            }
            RequestError::Unknown { kind, why, .. } => {
                let reason = match why {
                    Unknown::Deadline => "deadline",
                    Unknown::ResponderLeft => "responder-left",
                    _ => "let-go",
                };
                told(Code::RequestUnknown, kind).unknown().with("reason", reason)
            }
            RequestError::Invalid { kind, .. } => told(Code::TooLarge, kind),
            RequestError::Unreadable { kind, .. } => told(Code::RequestUnknown, kind).unknown(),
            _ => Self::of(Code::StoreFailed, &error).unknown(),
        }
    }
}

/// A type as it is sent; what is left out has its default.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Document {
    exchange: Kind,
    #[serde(with = "humantime_serde")]
    time_limit: Duration,
    idempotent: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    #[default]
    Answer,
    BestEffort,
    Durable,
}

impl Default for Document {
    fn default() -> Self {
        Self { exchange: Kind::default(), time_limit: DEFAULT_TIME_LIMIT, idempotent: false }
    }
}

/// How long a request is worked on and waited for where its type does not say.
const DEFAULT_TIME_LIMIT: Duration = Duration::from_secs(30);

impl Document {
    fn contract(self) -> Result<Contract, Problem> {
        let exchange = match self.exchange {
            Kind::Answer => Exchange::Answer { idempotent: self.idempotent },
            Kind::BestEffort | Kind::Durable if self.idempotent => {
                let what = "`idempotent` is about requests whose answer is waited for: nobody repeats what has none, and \
                            durable ones are repeated under their ids";
                return Err(request::wrong("idempotent", what.to_owned()));
            }
            Kind::BestEffort => Exchange::BestEffort,
            Kind::Durable => Exchange::Durable,
        };
        Ok(Contract { exchange, time_limit: self.time_limit })
    }
}

/// A type as JSON, and how it stands at this node; where a queue keeps its requests, that says how they stand.
fn shown(node: &Node, one: &RequestType) -> Value {
    let (exchange, idempotent) = match one.contract.exchange {
        Exchange::Answer { idempotent } => ("answer", idempotent),
        Exchange::Durable => ("durable", false),
        _ => ("best-effort", false),
    };
    let time_limit = format_duration(one.contract.time_limit).to_string();
    if exchange == "durable" {
        let mut queue = "/v1/queues/".to_owned();
        percent::encode(one.name.as_str(), &mut queue);
        return json!({ "type": one.name.as_str(), "exchange": exchange, "time-limit": time_limit, "idempotent": false, "queue": queue });
    }
    let standing = node.request_types.standing(&one.name);
    json!({
        "type": one.name.as_str(),
        "exchange": exchange,
        "time-limit": time_limit,
        "idempotent": idempotent,
        "responders": standing.responders,
        "waiting": standing.waiting,
        "running": standing.running,
    })
}

/// `PUT /v1/request-types/{type}`
pub(super) async fn declare(State(node): State<Shared>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    let kind = request::request_type(&head.uri)?;
    Params::of(&head.uri, &[])?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let contract = document::parsed::<Document>(&received.bytes)?.contract()?;
    let effect = async {
        let declared = node.request_types.declare(&kind, contract).await?;
        Ok(reply::json(StatusCode::OK, &shown(&node, &declared)))
    };
    once(&node, &head, &received.bytes, effect).await
}

/// `GET /v1/request-types/{type}`
pub(super) async fn describe(State(node): State<Shared>, request: Request) -> Reply {
    let kind = request::request_type(request.uri())?;
    Params::of(request.uri(), &[])?;
    let found = node.request_types.get(&kind).await?;
    Ok(reply::whole(reply::json(StatusCode::OK, &shown(&node, &found))))
}

/// `DELETE /v1/request-types/{type}`
pub(super) async fn delete(State(node): State<Shared>, request: Request) -> Reply {
    let (head, _) = request.into_parts();
    let kind = request::request_type(&head.uri)?;
    Params::of(&head.uri, &[])?;
    let effect = async {
        node.request_types.delete(&kind).await?;
        Ok(reply::json(StatusCode::OK, &json!({ "type": kind.as_str(), "deleted": true })))
    };
    once(&node, &head, &Bytes::new(), effect).await
}

/// `GET /v1/request-types`
pub(super) async fn list(State(node): State<Shared>, request: Request) -> Reply {
    let params = Params::of(request.uri(), &["after", "limit"])?;
    let limit = params.limit(&node)?;
    let after = params.one("after")?.map(Name::new).transpose()?;
    let found = node.request_types.list(after.as_ref(), limit).await?;
    let all: Vec<Value> = found.iter().map(|one| shown(&node, one)).collect();
    let mut response = reply::json(StatusCode::OK, &json!({ "request-types": all }));
    if let Some(last) = found.last().filter(|_| found.len() == limit) {
        let mut next = format!("/v1/request-types?limit={limit}&after=");
        percent::encode(last.name.as_str(), &mut next);
        reply::next(response.headers_mut(), &next);
    }
    Ok(reply::whole(response))
}

/// `POST /v1/requests/{type}`
pub(super) async fn ask(State(node): State<Shared>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    let kind = request::request_type(&head.uri)?;
    let params = Params::of(&head.uri, &["id", "callback"])?;
    let deadline = head.extensions.get::<Deadline>().copied().unwrap_or(Deadline::NEVER);
    let preparing = async {
        let declared = node.request_types.get(&kind).await?;
        let id = durable::id_for(&params, &declared)?;
        let callback = durable::callback_for(&params, &head.headers, &declared)?;
        let received = node.receive(&head, body).await?;
        Ok::<_, Problem>((declared, (id, callback), payload(&head.headers, &received.bytes)?))
    };
    let prepared = node.timers.within(node.env.mono(), deadline, Scope::Total, preparing).await;
    let (declared, (id, callback), body) = prepared.unwrap_or_else(|_| {
        let what = "the request's time was over before it had arrived; nobody has begun on it";
        Err(Problem::new(Code::DeadlinePassed, what))
    })?;
    if declared.contract.exchange == Exchange::Durable {
        return durable::ask(&node, &declared, (id, body, callback), deadline).await;
    }
    match node.request_types.ask(&declared, body, deadline).await? {
        Some(answer) => Ok(answered(answer)),
        None => {
            let handed = json!({ "type": kind.as_str(), "handed": true });
            Ok(reply::whole(reply::json(StatusCode::ACCEPTED, &handed)))
        }
    }
}

/// A body and what it is, in memory of its own: what was received may be a part of something larger.
fn payload(headers: &HeaderMap, body: &[u8]) -> Result<Payload, Problem> {
    let content_type = request::header(headers, &CONTENT_TYPE)?.map(|media| Cow::Owned(media.to_owned()));
    if content_type.as_ref().is_some_and(|media: &Cow<'static, str>| media.len() > Payload::MAX_CONTENT_TYPE) {
        let detail = format!("`content-type` has at most {} bytes here", Payload::MAX_CONTENT_TYPE);
        return Err(Problem::new(Code::InvalidParameter, detail).with("header", CONTENT_TYPE.as_str()));
    }
    Ok(Payload { content_type, bytes: Bytes::copy_from_slice(body) })
}

/// An answer as its responder sent it. A browser takes it for nothing else than it says, and runs nothing of it.
fn answered(Payload { content_type, bytes }: Payload) -> Response<Body> {
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    headers
        .extend(content_type.and_then(|media| HeaderValue::from_str(&media).ok()).map(|media| (CONTENT_TYPE, media)));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    response
}

/// `POST /v1/request-types/{type}/requests/{request}/answer`
pub(super) async fn answer(State(node): State<Shared>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    let (kind, ticket) = held(&head.uri)?;
    let received = node.receive(&head, body).await?;
    let (answer, max) = (payload(&head.headers, &received.bytes)?, node.request_types.max_body());
    if answer.bytes.len() > max {
        let detail = format!(
            "an answer has at most {max} bytes, this one has {}; its request is still yours",
            answer.bytes.len()
        );
        return Err(Problem::new(Code::TooLarge, detail).with("limit", max));
    }
    say(&node, &kind, ticket, Verdict::Answer(answer)).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Saying {
    code: String,
    #[serde(default)]
    detail: String,
}

/// `POST /v1/request-types/{type}/requests/{request}/fault`
pub(super) async fn fault(State(node): State<Shared>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    let (kind, ticket) = held(&head.uri)?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let Saying { code, detail } = document::parsed(&received.bytes)?;
    for (name, text, min, max) in
        [("code", &code, 1, Fault::MAX_CODE_BYTES), ("detail", &detail, 0, Fault::MAX_DETAIL_BYTES)]
    {
        if !(min..=max).contains(&text.len()) {
            return Err(request::wrong(
                name,
                format!("`{name}` has {min} to {max} bytes, this one has {}", text.len()),
            ));
        }
    }
    say(&node, &kind, ticket, Verdict::Fault(Fault::new(code, detail))).await
}

/// `POST /v1/request-types/{type}/requests/{request}/let-go`
pub(super) async fn let_go(State(node): State<Shared>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    let (kind, ticket) = held(&head.uri)?;
    node.receive_nothing(&head, body, "letting go says nothing: there is no body").await?;
    match ticket {
        Held::Here(ticket) => {
            node.request_types.let_go(&kind, ticket)?;
            Ok(receipt(ticket, "let-go"))
        }
        Held::Durable(lease) => durable::let_go(&node, &kind, lease).await,
    }
}

/// What a responder holds, as it was handed out.
enum Held {
    Here(Ticket),
    Durable(Lease),
}

/// The type and the request that a path names.
fn held(uri: &Uri) -> Result<(Name, Held), Problem> {
    let kind = request::request_type(uri)?;
    Params::of(uri, &[])?;
    let text = uri.path().split('/').nth(5).unwrap_or_default();
    // A lease has a sum: no ticket looks like one.
    if let Ok(lease) = text.parse() {
        return Ok((kind, Held::Durable(lease)));
    }
    let ticket: Result<Ticket, NoTicket> = text.parse();
    let ticket = ticket.map_err(|wrong| Problem::of(Code::InvalidParameter, &wrong).with("parameter", "request"))?;
    Ok((kind, Held::Here(ticket)))
}

async fn say(node: &Node, kind: &Name, held: Held, verdict: Verdict) -> Reply {
    let ticket = match held {
        Held::Here(ticket) => ticket,
        Held::Durable(lease) => return durable::say(node, kind, lease, verdict).await,
    };
    let was_waited_for = node.request_types.answer(kind, ticket, verdict)?;
    Ok(receipt(ticket, if was_waited_for { "taken" } else { "late" }))
}

fn receipt(ticket: Ticket, receipt: &str) -> Response<Body> {
    reply::whole(reply::json(StatusCode::OK, &json!({ "request": ticket.to_string(), "receipt": receipt })))
}
