//! Messages as server-sent events: each is handed out under a lease as soon as there is one, and no more of them than the
//! consumer's window has room for.
//!
//! `event: message` carries what a delivery of `receive` does; room is made by settling it with the calls for that, on any
//! connection, and when its lease runs out. Who loses the connection comes back: what it holds it may still settle, and what it does
//! not is handed out again when its lease has run out. What was leased and could not be sent any more is given back at once.
//! Heartbeats, `event: closing` and slow clients are as for [events](crate::http::sse). There is no `id:`, for there is no place
//! to come back to: what was settled is gone.

use std::time::Duration;

use axum::extract::{Request, State};
use bytes::{BufMut, Bytes, BytesMut};
use http::{
    HeaderName, HeaderValue, Response,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use quorate_communication::message_queue::{Consume, Consumer, Delivery, Lease, QueueError};

use super::{MAX_RECEIVE, Reply, beyond, show};
use crate::http::{
    Node, Shared,
    body_out::{Gone, Pieces, cut, pieces},
    memory::Shares,
    problem::Problem,
    request::{self, Params},
    sse::{OPENING, closing},
};

/// `GET /v1/queues/{name}/subscribe`
pub(in crate::http) async fn subscribe(State(node): State<Shared>, request: Request) -> Reply {
    let name = request::queue(request.uri())?;
    let params = Params::of(request.uri(), &["window", "ttl"])?;
    let consumer = node.queues.consume(&name, consume(&params)?).await?;
    let (pieces, body) = pieces();
    let node_of_task = node.clone();
    node.env.tasks().spawn("consumer", async move {
        let _counted = node_of_task.metrics.subscriber();
        if let Ok(pieces) = run(&node_of_task, consumer, pieces).await {
            pieces.end().await;
        }
    });
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

fn consume(params: &Params<'_>) -> Result<Consume, Problem> {
    let mut asked = Consume::default();
    if let Some(window) = params.number("window")? {
        asked.window = usize::try_from(window).unwrap_or(usize::MAX);
        if asked.window > MAX_RECEIVE {
            return Err(beyond("window", MAX_RECEIVE, asked.window));
        }
    }
    asked.ttl = params.one("ttl")?.map(span).transpose()?;
    Ok(asked)
}

fn span(text: &str) -> Result<Duration, Problem> {
    let span = humantime_serde::re::humantime::parse_duration(text);
    span.map_err(|cause| request::wrong("ttl", format!("`ttl={}`: {cause}; say 30s", request::short(text))))
}

/// What one turn brought.
enum Turn {
    Messages(Vec<Delivery>),
    Silence,
    Over(&'static str),
    Gone,
}

async fn run(node: &Node, mut consumer: Consumer, pieces: Pieces) -> Result<Pieces, Gone> {
    pieces.send(Bytes::from_static(OPENING)).await?;
    let mut heartbeat_due = node.env.mono() + node.config.http.heartbeat;
    let mut shares = Shares::of(node);
    loop {
        let turn = tokio::select! {
            biased;
            // What it might yet be handed stays where it is: dropping it gives that back.
            () = node.env.tasks().stop().cancelled() => Turn::Over("shutting-down"),
            () = pieces.gone() => Turn::Gone,
            next = consumer.next() => match next {
                Ok(deliveries) => Turn::Messages(deliveries),
                Err(QueueError::NotFound { .. }) => Turn::Over("queue-gone"),
                Err(QueueError::Crowded { .. }) => Turn::Over("overloaded"),
                Err(cause) => {
                    tracing::warn!(%cause, "a consumer of a queue ended");
                    Turn::Over("store-failed")
                }
            },
            () = node.env.sleep_until(heartbeat_due) => Turn::Silence,
        };
        match turn {
            Turn::Gone => return Err(Gone),
            Turn::Over(reason) => {
                pieces.send(closing(reason)).await?;
                return Ok(pieces);
            }
            Turn::Silence => pieces.send(Bytes::from_static(b": heartbeat\n\n")).await?,
            Turn::Messages(deliveries) => {
                let weight = show::weight(deliveries.iter().map(|one| &one.message));
                let Some(share) = shares.now(weight) else {
                    give_back(&consumer, &deliveries).await;
                    drop(deliveries);
                    if shares.wait(weight, &pieces).await? {
                        continue;
                    }
                    return Ok(pieces);
                };
                for (n, delivery) in deliveries.iter().enumerate() {
                    if pieces.send(share.with(frame(delivery))).await.is_err() {
                        // It may have seen this one; those behind it nobody has.
                        give_back(&consumer, &deliveries[n + 1..]).await;
                        return Err(Gone);
                    }
                }
            }
        }
        heartbeat_due = node.env.mono() + node.config.http.heartbeat;
        if node.env.buggify("queues: a consumer is let go") {
            pieces.send(closing("too-slow")).await?;
            return Ok(pieces);
        }
    }
}

fn frame(delivery: &Delivery) -> Bytes {
    let mut buffer = BytesMut::new();
    buffer.put_slice(b"event: message\ndata: ");
    show::delivery(&mut buffer, delivery);
    buffer.put_slice(b"\n\n");
    cut(&mut buffer)
}

/// Gives back what nobody has seen.
async fn give_back(consumer: &Consumer, deliveries: &[Delivery]) {
    let leases: Vec<Lease> = deliveries.iter().map(|one| one.lease).collect();
    if leases.is_empty() {
        return;
    }
    if let Err(cause) = consumer.queue().give_back(&leases).await {
        tracing::warn!(%cause, "messages that could not be handed out come again when their leases have expired");
    }
}
