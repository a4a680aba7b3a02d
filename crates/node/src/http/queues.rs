//! Message queues: declare, send, receive, settle, replay.

mod config;
pub(super) mod schedules;
pub(super) mod show;
mod subscribe;

use std::time::Duration;

use axum::extract::{Request, State};
use bytes::Bytes;
use http::StatusCode;
use quorate_communication::message_queue::{
    Delivery, Lease, NewMessage, Queue, QueueError, Queues, Receive, Selection,
};
use quorate_foundations::name::Name;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{
    Node, RETRY, Shared,
    cloud_events::{self, BATCH, Fault, STRUCTURED, essence},
    document, log, memory, percent,
    problem::{Code, Problem},
    reply,
    request::{self, Params},
    settling::{self, beyond},
    streams::once,
};
pub(super) use subscribe::subscribe;

use crate::verbs::{MessageQueues, Settlement};

type Reply = Result<axum::response::Response, Problem>;

/// The most messages of one receive.
pub(super) const MAX_RECEIVE: usize = 256;

/// The most leases of one request.
pub(super) const MAX_LEASES: usize = Queue::MAX_BATCH;

/// `PUT /v1/queues/{name}`
pub(super) async fn declare(State(node): State<Shared>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    let name = request::queue(&head.uri)?;
    Params::of(&head.uri, &[])?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let wanted: config::Document = document::parsed(&received.bytes)?;
    let effect = async {
        let declared = node.queues.declare(&name, wanted.into()).await?;
        Ok(reply::json(StatusCode::OK, &show::description(&declared)))
    };
    once(&node, &head, &received.bytes, effect).await
}

/// `GET /v1/queues/{name}`
pub(super) async fn describe(State(node): State<Shared>, request: Request) -> Reply {
    let name = request::queue(request.uri())?;
    Params::of(request.uri(), &[])?;
    let described = node.queues.describe(&name).await?;
    Ok(reply::whole(reply::json(StatusCode::OK, &show::description(&described))))
}

/// `DELETE /v1/queues/{name}`
pub(super) async fn delete(State(node): State<Shared>, request: Request) -> Reply {
    let (head, _) = request.into_parts();
    let name = request::queue(&head.uri)?;
    Params::of(&head.uri, &[])?;
    let effect = async {
        node.queues.delete(&name).await?;
        Ok(reply::json(StatusCode::OK, &json!({ "queue": name.as_str(), "deleted": true })))
    };
    once(&node, &head, &Bytes::new(), effect).await
}

/// `GET /v1/queues`
pub(super) async fn list(State(node): State<Shared>, request: Request) -> Reply {
    let params = Params::of(request.uri(), &["after", "limit"])?;
    let limit = page(&node, &params)?;
    let after = params.one("after")?.map(Name::new).transpose()?;
    let found = node.queues.list(after.as_ref(), limit).await?;
    let shown: Vec<Value> = found.iter().map(show::summary).collect();
    let mut response = reply::json(StatusCode::OK, &json!({ "queues": shown }));
    if let Some(last) = found.last().filter(|_| found.len() == limit) {
        let mut address = format!("/v1/queues?limit={limit}&after=");
        percent::encode(last.name.as_str(), &mut address);
        reply::next(response.headers_mut(), &address);
    }
    Ok(reply::whole(response))
}

/// How many items a page shall have.
fn page(node: &Node, params: &Params<'_>) -> Result<usize, Problem> {
    params.limit_within(node, Queues::MAX_PAGE)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sending<'b> {
    #[serde(borrow)]
    messages: Vec<Item<'b>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item<'b> {
    #[serde(borrow)]
    event: &'b RawValue,
    group: Option<String>,
    priority: Option<u8>,
    #[serde(default, with = "humantime_serde")]
    delay: Option<Duration>,
    #[serde(default, with = "humantime_serde")]
    ttl: Option<Duration>,
    unique: Option<String>,
}

/// `POST /v1/queues/{name}/messages`
pub(super) async fn send(State(node): State<Shared>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    let name = request::queue(&head.uri)?;
    Params::of(&head.uri, &[])?;
    let media = request::header(&head.headers, &http::header::CONTENT_TYPE)?.map(essence).unwrap_or_default();
    let received = node.receive(&head, body).await?;
    let messages = if media.eq_ignore_ascii_case(STRUCTURED) {
        vec![NewMessage::of(cloud_events::event(&received.bytes, &received.bytes)?)]
    } else if media.eq_ignore_ascii_case(BATCH) {
        let events = cloud_events::batch(&received.bytes, &received.bytes, Queue::MAX_BATCH)?;
        events.into_iter().map(NewMessage::of).collect()
    } else {
        document::is_json(&head.headers)?;
        messages(&received.bytes)?
    };
    let effect = async {
        let sent = node.queues.send(&name, messages).await?;
        Ok(reply::json(StatusCode::CREATED, &show::sent(&sent)))
    };
    once(&node, &head, &received.bytes, effect).await
}

fn messages(body: &Bytes) -> Result<Vec<NewMessage>, Problem> {
    let Sending { messages } = document::envelope(body)?;
    if messages.len() > Queue::MAX_BATCH {
        return Err(beyond("messages", Queue::MAX_BATCH, messages.len()));
    }
    let message = |(index, item): (usize, Item<'_>)| {
        message_of(body, item).map_err(|fault| Fault { index: Some(index), ..fault }.into())
    };
    messages.into_iter().enumerate().map(message).collect()
}

/// The message that stands as `item` in `body`.
fn message_of(body: &Bytes, item: Item<'_>) -> Result<NewMessage, Fault> {
    let mut message = NewMessage::of(cloud_events::event(body, item.event.get().as_bytes())?);
    message.group = item.group.map(Into::into);
    message.priority = item.priority.unwrap_or(NewMessage::DEFAULT_PRIORITY);
    message.delay = item.delay.unwrap_or_default();
    message.ttl = item.ttl;
    message.unique = item.unique.map(Into::into);
    Ok(message)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Receiving {
    #[serde(default = "one")]
    max: usize,
    #[serde(default, with = "humantime_serde")]
    wait: Duration,
    #[serde(default, with = "humantime_serde")]
    ttl: Option<Duration>,
    #[serde(default)]
    data: Data,
}

/// How the data of messages is shown.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Data {
    /// JSON and text as such.
    #[default]
    Plain,
    /// All of it byte for byte.
    Base64,
}

fn one() -> usize {
    1
}

/// `POST /v1/queues/{name}/receive`
pub(super) async fn receive(State(node): State<Shared>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    let name = request::queue(&head.uri)?;
    Params::of(&head.uri, &[])?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let asked: Receiving = document::parsed(&received.bytes)?;
    let write = if asked.data == Data::Base64 { show::event_exactly } else { show::event };
    let receive = receive_of(&node, asked)?;
    let deliveries = tokio::select! {
        biased;
        got = node.queues.receive(&name, receive) => got?,
        // What it might yet be handed stays where it is: dropping it gives that back.
        () = node.env.tasks().stop().cancelled() => {
            return Err(Problem::new(Code::ShuttingDown, "the node is stopping").after(RETRY));
        }
    };
    let mut deliveries = deliveries;
    // As many as there is memory for: the others are the next ones' to ask.
    let share = loop {
        match node.share(show::weight(deliveries.iter().map(|one| &one.message))) {
            Some(share) => break share,
            None if deliveries.len() > 1 => {
                let rest = deliveries.split_off(deliveries.len().div_ceil(2));
                let _told_by_what_is_handed_out = given_back(&node, &name, &rest).await;
            }
            None => return Err(given_back(&node, &name, &deliveries).await),
        }
    };
    Ok(share.of(reply::whole(reply::bytes(StatusCode::OK, reply::JSON, show::deliveries(&deliveries, write)))))
}

/// Gives back what there is no memory to hand out, as if nobody had asked for it.
async fn given_back(node: &Node, name: &Name, deliveries: &[Delivery]) -> Problem {
    let leases: Vec<Lease> = deliveries.iter().map(|one| one.lease).collect();
    match node.queues.give_back(name, &leases).await {
        Ok(()) => memory::taken(),
        Err(cause) => {
            tracing::warn!(%cause, "messages that could not be handed out come again when their leases have expired");
            memory::taken().unknown()
        }
    }
}

fn receive_of(node: &Node, Receiving { max, wait, ttl, data: _ }: Receiving) -> Result<Receive, Problem> {
    if max > MAX_RECEIVE {
        return Err(beyond("max", MAX_RECEIVE, max));
    }
    let patience = node.config.http.max_wait.min(MessageQueues::MAX_WAIT);
    if wait > patience {
        let detail = format!("`wait` is at most {patience:?}, {wait:?} was asked for");
        return Err(Problem::new(Code::LimitExceeded, detail));
    }
    Ok(Receive { max, wait, ttl })
}

/// `POST /v1/queues/{name}/ack`
pub(super) async fn ack(State(node): State<Shared>, request: Request) -> Reply {
    settle(&node, request, settling::acking).await
}

/// `POST /v1/queues/{name}/nack`
pub(super) async fn nack(State(node): State<Shared>, request: Request) -> Reply {
    settle(&node, request, settling::nacking).await
}

/// `POST /v1/queues/{name}/extend`
pub(super) async fn extend(State(node): State<Shared>, request: Request) -> Reply {
    settle(&node, request, settling::extending).await
}

/// `POST /v1/queues/{name}/park`
pub(super) async fn park(State(node): State<Shared>, request: Request) -> Reply {
    settle(&node, request, settling::parking).await
}

async fn settle(node: &Shared, request: Request, read: settling::Read) -> Reply {
    let queues = node.queues.clone();
    let apply = |name: Name, leases: Vec<Lease>, how: Settlement| async move {
        let settled = queues.settle(&name, &leases, &how).await;
        settled.map_err(|refused| {
            let lost = if let QueueError::LeaseLost { leases } = &refused { Some(leases.len()) } else { None };
            settling::partly(refused, lost, leases.len())
        })
    };
    settling::settle(node, request, |_, uri| request::queue(uri), (read, MAX_LEASES), apply).await
}

/// `GET /v1/queues/{name}/parked`
pub(super) async fn parked(State(node): State<Shared>, request: Request) -> Reply {
    let name = request::queue(request.uri())?;
    let params = Params::of(request.uri(), &["after", "limit"])?;
    let (after, limit) = (params.number("after")?.unwrap_or_default(), page(&node, &params)?);
    let found = node.queues.dead_letters(&name, after, limit).await?;
    let share = node.share_or_refuse(show::weight_of_dead(&found.letters))?;
    let mut response = reply::bytes(StatusCode::OK, reply::JSON, show::dead_letters(&found.letters));
    if let Some(place) = found.next {
        reply::next(response.headers_mut(), &log::next(request.uri(), "after", place));
    }
    Ok(share.of(reply::whole(response)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Selecting<'b> {
    id: Option<String>,
    group: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    all: bool,
    #[serde(borrow)]
    event: Option<&'b RawValue>,
}

impl Selecting<'_> {
    fn selection(self) -> Result<Selection, Problem> {
        let Self { id, group, kind, all, event } = self;
        let some = id.is_some() || group.is_some() || kind.is_some();
        if some == all || event.is_some() {
            let what = "name an `id`, a `group` or a `type`, or say `\"all\": true`".to_owned();
            return Err(request::wrong("all", what));
        }
        Ok(Selection { id, group, kind })
    }
}

/// `POST /v1/queues/{name}/replay`
pub(super) async fn replay(State(node): State<Shared>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    let name = request::queue(&head.uri)?;
    Params::of(&head.uri, &[])?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let selecting: Selecting<'_> = document::envelope(&received.bytes)?;
    let event = match selecting {
        Selecting { id: None, group: None, kind: None, all: false, event: Some(event) } => {
            Ok(cloud_events::event(&received.bytes, event.get().as_bytes())?)
        }
        other => Err(other.selection()?),
    };
    let effect = async {
        let messages = match event {
            Ok(event) => node.queues.replay_edited(&name, event).await.map(|()| 1)?,
            Err(selection) => node.queues.replay(&name, &selection).await?,
        };
        Ok(reply::json(StatusCode::OK, &json!({ "messages": messages })))
    };
    once(&node, &head, &received.bytes, effect).await
}

/// `POST /v1/queues/{name}/discard`
pub(super) async fn discard(State(node): State<Shared>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    let name = request::queue(&head.uri)?;
    Params::of(&head.uri, &[])?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let which = document::parsed::<Selecting<'_>>(&received.bytes)?.selection()?;
    let effect = async {
        let messages = node.queues.discard(&name, &which).await?;
        Ok(reply::json(StatusCode::OK, &json!({ "messages": messages })))
    };
    once(&node, &head, &received.bytes, effect).await
}
