//! Durable requests as server-sent events, in the same form: what they are named by is the lease under which they were handed out, and it is renewed for as long as the stream lasts.
//!
//! With the stream ends its responder's right to what it holds: that is handed to others, under another attempt. Where the node stops, leases run on, so that whoever is
//! quick can still answer once it is back.

use bytes::Bytes;
use quorate_communication::{
    message_queue::{Delivery, QueueError},
    request::{Deadline, Exchange},
};
use quorate_foundations::{name::Name, time::Mono};
use serde_json::{Value, json};

use super::{frame, put_body, weight};
use crate::{
    http::{
        Node,
        body_out::{Gone, Pieces},
        memory::Shares,
        sse::{OPENING, closing},
    },
    verbs::{DurableResponder, RequestCareError},
};

/// What one turn brought.
enum Turn {
    Handed(Vec<Delivery>),
    Renew,
    Look,
    Over(&'static str),
    Gone,
}

/// Why a stream is over that the node ends because it stops.
const STOPPING: &str = "shutting-down";

pub(super) async fn run(
    node: &Node,
    kind: &Name,
    mut responder: DurableResponder,
    pieces: Pieces,
) -> Result<Pieces, Gone> {
    let over = turns(node, kind, &mut responder, &pieces).await;
    if over != Ok(Some(STOPPING)) {
        responder.leave().await;
    }
    if let Some(reason) = over? {
        pieces.send(closing(reason)).await?;
    }
    Ok(pieces)
}

/// Hands requests out until the stream is over. Why it is, where the responder was not told yet.
async fn turns(
    node: &Node,
    kind: &Name,
    responder: &mut DurableResponder,
    pieces: &Pieces,
) -> Result<Option<&'static str>, Gone> {
    pieces.send(Bytes::from_static(OPENING)).await?;
    let (mut deletions, mut shares) = (node.request_types.deletions(), Shares::of(node));
    let mut heartbeat_due = node.env.mono() + node.config.http.heartbeat;
    loop {
        let turn = tokio::select! {
            biased;
            () = node.env.tasks().stop().cancelled() => Turn::Over(STOPPING),
            () = pieces.gone() => Turn::Gone,
            _ = deletions.changed() => Turn::Look,
            next = responder.next() => match next {
                Ok(none) if none.is_empty() => Turn::Renew,
                Ok(deliveries) => Turn::Handed(deliveries),
                Err(QueueError::NotFound { .. }) => Turn::Over("type-gone"),
                Err(QueueError::Crowded { .. }) => Turn::Over("overloaded"),
                Err(cause) => {
                    tracing::warn!(%cause, "a responder of durable requests ended");
                    Turn::Over("store-failed")
                }
            },
            () = node.env.sleep_until(heartbeat_due) => Turn::Look,
        };
        match turn {
            Turn::Gone => return Err(Gone),
            Turn::Over(reason) => return Ok(Some(reason)),
            Turn::Renew => {
                let over = responder.renew().await;
                if over.is_empty() {
                    continue;
                }
                for lease in over {
                    pieces.send(frame("stop", &json!({ "request": lease.to_string() }))).await?;
                }
            }
            Turn::Handed(deliveries) => {
                let weight = deliveries.iter().map(|one| weight(&super::payload(&one.message.event))).sum();
                let Some(share) = shares.now(weight) else {
                    responder.give_back(&deliveries).await;
                    drop(deliveries);
                    if !shares.wait(weight, pieces).await? {
                        return Ok(None);
                    }
                    continue;
                };
                hand_over(node, responder, &deliveries, (pieces, |piece| share.with(piece))).await?;
            }
            Turn::Look => {
                // Another node may have deleted it, or declared it otherwise.
                match node.request_types.get(kind).await {
                    Ok(found) if found.contract.exchange != Exchange::Durable => return Ok(Some("type-gone")),
                    Err(RequestCareError::NotFound { .. }) => return Ok(Some("type-gone")),
                    _ => {}
                }
                pieces.send(Bytes::from_static(b": heartbeat\n\n")).await?;
            }
        }
        heartbeat_due = node.env.mono() + node.config.http.heartbeat;
        if node.env.buggify("requests: a durable responder is let go") {
            return Ok(Some("too-slow"));
        }
    }
}

/// Hands deliveries over as the connection asks for them. Where it goes away, those for which it never asked are given back.
async fn hand_over(
    node: &Node,
    responder: &mut DurableResponder,
    deliveries: &[Delivery],
    (pieces, held): (&Pieces, impl Fn(Bytes) -> Bytes),
) -> Result<(), Gone> {
    for (n, delivery) in deliveries.iter().enumerate() {
        let until = responder.hold(delivery);
        let framed = frame("request", &shown(delivery, until, node.env.mono()));
        if pieces.send(held(framed)).await.is_err() {
            responder.give_back(&deliveries[n..]).await;
            return Err(Gone);
        }
    }
    Ok(())
}

fn shown(delivery: &Delivery, until: Mono, now: Mono) -> Value {
    let event = &delivery.message.event;
    let mut shown = serde_json::Map::new();
    shown.insert("request".to_owned(), delivery.lease.to_string().into());
    shown.insert("id".to_owned(), (&*event.id).into());
    shown.insert("attempt".to_owned(), delivery.attempt.into());
    put_body(&mut shown, (Deadline::at(until), now), &super::payload(event));
    shown.into()
}
