//! Requests as server-sent events: each is handed out as soon as there is one, and no more of them than the responder's window has room for.
//!
//! `event: request` says what is asked, under a name (`request`) by which it is answered on any connection, and how long its caller waits
//! (`timeout`, to be sent on as `quorate-timeout`); `event: stop`, that nobody waits any more: room is made by answering or letting go all the same.
//! The stream is the responder's presence: with it ends what it had begun on, *unknown* to its callers. What was not sent any more goes to others.
//! Heartbeats, `event: closing` and slow clients are as for [events](crate::http::sse). There is no `id:`: there is no place to come back to.

mod durable;

use axum::extract::{Request, State};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use quorate_communication::request::{Asking, Deadline, Exchange, Payload, Remote, Requests, Told};
use quorate_data::event::NewEvent;
use quorate_foundations::{name::Name, time::Mono};
use serde_json::{Map, Value, json};

use super::Reply;
use crate::{
    http::{
        Node, Shared,
        body_out::{Gone, Pieces},
        json::{base64_bytes, string_bytes, string_or_base64_bytes},
        memory::Shares,
        problem::Problem,
        request::{self, Params},
        settling::beyond,
        sse::{OPENING, answer, closing},
    },
    verbs::RequestCareError,
};

/// The largest window of a responder.
pub(in crate::http) const MAX_WINDOW: usize = Requests::MAX_WINDOW;
/// How many requests a responder is handed at once where it does not say.
const DEFAULT_WINDOW: usize = 16;

/// `GET /v1/request-types/{type}/serve`
pub(in crate::http) async fn serve(State(node): State<Shared>, request: Request) -> Reply {
    let kind = request::request_type(request.uri())?;
    let window = window(&Params::of(request.uri(), &["window"])?)?;
    let of = node.request_types.get(&kind).await?;
    if of.contract.exchange == Exchange::Durable {
        let responder = node.request_types.serve_durably(&of, window).await?;
        let run = |node: Shared, pieces| async move { durable::run(&node, &kind, responder, pieces).await };
        return Ok(answer(&node, "responder", run));
    }
    let remote = node.request_types.serve(&kind, window).await?;
    Ok(answer(&node, "responder", |node, pieces| async move { run(&node, &kind, remote, pieces).await }))
}

fn window(params: &Params<'_>) -> Result<usize, Problem> {
    match params.number("window")?.map(|window| usize::try_from(window).unwrap_or(usize::MAX)) {
        None => Ok(DEFAULT_WINDOW),
        Some(0) => Err(request::wrong("window", format!("`window` is 1 to {MAX_WINDOW}, 0 was asked for"))),
        Some(window) if window > MAX_WINDOW => Err(beyond("window", MAX_WINDOW, window)),
        Some(window) => Ok(window),
    }
}

/// What one turn brought.
enum Turn {
    Told(Told),
    Look,
    Silence,
    Stopping,
    Over(&'static str),
    Gone,
}

async fn run(node: &Node, kind: &Name, mut remote: Remote, pieces: Pieces) -> Result<Pieces, Gone> {
    pieces.send(Bytes::from_static(OPENING)).await?;
    let (mut changes, mut shares) = (node.request_types.changes(), Shares::of(node));
    // Told to stop, the node still takes answers: responders are there until it dismisses them.
    let mut is_stopping = false;
    let mut heartbeat_due = node.env.mono() + node.config.http.heartbeat;
    loop {
        let turn = tokio::select! {
            biased;
            () = node.request_types.dismissed() => Turn::Over("shutting-down"),
            () = node.env.tasks().stop().cancelled(), if !is_stopping => Turn::Stopping,
            () = pieces.gone() => Turn::Gone,
            _ = changes.changed() => Turn::Look,
            told = remote.next() => told.map_or(Turn::Over("shutting-down"), Turn::Told),
            () = node.env.sleep_until(heartbeat_due) => Turn::Silence,
        };
        match turn {
            Turn::Gone => return Err(Gone),
            Turn::Over(reason) => {
                pieces.send(closing(reason)).await?;
                return Ok(pieces);
            }
            Turn::Stopping => {
                remote.close();
                is_stopping = true;
                continue;
            }
            Turn::Told(Told::Asked(asking)) => {
                if !hand_over(node, &remote, asking, (&mut shares, &pieces)).await? {
                    return Ok(pieces);
                }
            }
            Turn::Told(Told::Stop(ticket)) => {
                pieces.send(frame("stop", &json!({ "request": ticket.to_string() }))).await?;
            }
            Turn::Look | Turn::Silence => {
                // Another node may have deleted it, or declared it otherwise.
                let is_gone = match node.request_types.get(kind).await {
                    Ok(found) => found.contract.exchange == Exchange::Durable,
                    Err(cause) => matches!(cause, RequestCareError::NotFound { .. }),
                };
                if is_gone {
                    pieces.send(closing("type-gone")).await?;
                    return Ok(pieces);
                }
                pieces.send(Bytes::from_static(b": heartbeat\n\n")).await?;
            }
        }
        heartbeat_due = node.env.mono() + node.config.http.heartbeat;
        if node.env.buggify("requests: a responder is let go") {
            pieces.send(closing("too-slow")).await?;
            return Ok(pieces);
        }
    }
}

/// Hands a request over when the connection asks for it, if somebody still waits for it then. `false` where there is no memory to send it: it is over.
async fn hand_over(
    node: &Node,
    remote: &Remote,
    asking: Asking,
    (shares, pieces): (&mut Shares<'_>, &Pieces),
) -> Result<bool, Gone> {
    let weight = weight(&asking.body);
    let (asked, share) = loop {
        let asked = pieces.asked().await?;
        if let Some(share) = shares.now(weight) {
            break (asked, share);
        }
        // It asks on; whoever waits for memory may have to tell it that there is none.
        drop(asked);
        if !shares.wait(weight, pieces).await? {
            return Ok(false);
        }
    };
    if remote.begin(asking.ticket) {
        asked.send(share.with(frame("request", &shown(&asking, node.env.mono()))))?;
    }
    Ok(true)
}

/// Bytes that a request takes together with its JSON, whose buffer is up to twice as large: it doubles when it is full.
pub(super) fn weight(body: &Payload) -> usize {
    let media = body.content_type.as_deref().map_or(0, |media| string_bytes(media.as_bytes()));
    base64_bytes(&body.bytes) + 2 * (512 + media + string_or_base64_bytes(&body.bytes))
}

fn shown(asking: &Asking, now: Mono) -> Value {
    let Asking { ticket, body, deadline } = asking;
    let mut shown = Map::from_iter([("request".to_owned(), ticket.to_string().into())]);
    put_body(&mut shown, (*deadline, now), body);
    shown.into()
}

/// Says what is asked, and how long there is for it.
fn put_body(shown: &mut Map<String, Value>, (deadline, now): (Deadline, Mono), body: &Payload) {
    let mut put = |name: &str, value: Option<String>| shown.extend(value.map(|text| (name.to_owned(), text.into())));
    put("timeout", deadline.to_wire(now));
    put("content-type", body.content_type.as_deref().map(ToOwned::to_owned));
    match std::str::from_utf8(&body.bytes) {
        Ok(text) => put("body", Some(text.to_owned())),
        Err(_) => put("body-base64", Some(STANDARD.encode(&body.bytes))),
    }
}

/// What a message of a queue asks.
fn payload(event: &NewEvent) -> Payload {
    let content_type = event.content_type.as_deref().map(|media| media.to_owned().into());
    Payload { content_type, bytes: event.data.clone().unwrap_or_default() }
}

fn frame(event: &str, data: &Value) -> Bytes {
    Bytes::from(format!("event: {event}\ndata: {data}\n\n"))
}

#[cfg(test)]
mod tests {
    use super::{Asking, Bytes, Mono, Payload, frame, shown, weight};
    use quorate_communication::request::Deadline;

    #[test]
    fn whatever_a_body_holds_a_request_takes_no_more_than_was_counted() {
        let ticket = format!("{:032x}-{}", u128::MAX, u64::MAX).parse().unwrap();
        let media = "\u{1}".repeat(Payload::MAX_CONTENT_TYPE);
        for byte in [0_u8, 0x1f, b'"', b'a', 0xff] {
            for len in [0, 1, 100, 100_000] {
                let body = Payload { content_type: Some(media.clone().into()), bytes: Bytes::from(vec![byte; len]) };
                let (counted, decoded) = (weight(&body), body.bytes.len());
                let asking =
                    Asking { ticket, body, deadline: Deadline::at(Mono::ZERO + std::time::Duration::from_secs(3_600)) };
                let framed = frame("request", &shown(&asking, Mono::ZERO)).len();
                assert!(
                    decoded + framed <= counted && counted <= 4 * framed + 4_096,
                    "{byte} {len}: {framed} {counted}"
                );
            }
        }
    }
}
