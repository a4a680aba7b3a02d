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
    let (mut changes, mut shares) = (node.request_types.changes(), Shares::of(node));
    let mut heartbeat_due = node.env.mono() + node.config.http.heartbeat;
    loop {
        let turn = tokio::select! {
            biased;
            () = node.env.tasks().stop().cancelled() => Turn::Over(STOPPING),
            () = pieces.gone() => Turn::Gone,
            _ = changes.changed() => Turn::Look,
            // At its time, however much there is to hand out: it is also the look at what other nodes declared.
            () = node.env.sleep_until(heartbeat_due) => Turn::Look,
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
        };
        match turn {
            Turn::Gone => return Err(Gone),
            Turn::Over(reason) => return Ok(Some(reason)),
            Turn::Renew => {
                responder.renew().await;
                let Some(first) = responder.next_over() else { continue };
                let mut over = Some(first);
                while let Some(lease) = over {
                    let stop = frame("stop", &json!({ "request": lease.to_string() }));
                    responder.renewing(pieces.send(stop)).await?;
                    over = responder.next_over();
                }
            }
            Turn::Handed(deliveries) => {
                let weight = deliveries.iter().map(|one| weight(&super::payload(&one.message.event))).sum();
                let Some(share) = shares.now(weight) else {
                    responder.give_back(&deliveries).await;
                    drop(deliveries);
                    if !responder.renewing(shares.wait(weight, pieces)).await? {
                        return Ok(None);
                    }
                    continue;
                };
                hand_over(responder, &deliveries, (pieces, |piece| share.with(piece))).await?;
            }
            Turn::Look => {
                heartbeat_due = node.env.mono() + node.config.http.heartbeat;
                // Another node may have deleted it, or declared it otherwise.
                match node.request_types.get(kind).await {
                    Ok(found) if found.contract.exchange != Exchange::Durable => return Ok(Some("type-gone")),
                    Ok(found) => responder.set_time_limit(found.contract.time_limit),
                    Err(RequestCareError::NotFound { .. }) => return Ok(Some("type-gone")),
                    _ => {}
                }
                responder.renewing(pieces.send(Bytes::from_static(b": heartbeat\n\n"))).await?;
            }
        }
        if node.env.buggify("requests: a durable responder is let go") {
            return Ok(Some("too-slow"));
        }
    }
}

/// Hands deliveries over as the connection asks for them, and renews leases meanwhile. Where it goes away, those for which it never asked are given back.
async fn hand_over(
    responder: &mut DurableResponder,
    deliveries: &[Delivery],
    (pieces, held): (&Pieces, impl Fn(Bytes) -> Bytes),
) -> Result<(), Gone> {
    for (n, delivery) in deliveries.iter().enumerate() {
        let asked = responder.renewing(pieces.asked()).await;
        let handed = asked.and_then(|asked| {
            let Some(left) = responder.begin(&delivery.lease) else { return Ok(()) };
            asked.send(held(frame("request", &shown(delivery, left))))
        });
        if handed.is_err() {
            responder.give_back(&deliveries[n..]).await;
            return Err(Gone);
        }
    }
    Ok(())
}

fn shown(delivery: &Delivery, left: (Deadline, Mono)) -> Value {
    let event = &delivery.message.event;
    let mut shown = serde_json::Map::new();
    shown.insert("request".to_owned(), delivery.lease.to_string().into());
    shown.insert("id".to_owned(), (&*event.id).into());
    shown.insert("attempt".to_owned(), delivery.attempt.into());
    put_body(&mut shown, left, &super::payload(event));
    shown.into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt;
    use quorate_communication::{
        event_bus::webhook::Calls,
        message_queue::{Config, Receive},
        request::{Contract, Payload},
    };
    use quorate_data::store::sqlite;
    use quorate_runtime::Env;

    use super::*;
    use crate::{
        http::body_out::pieces,
        verbs::{MessageQueues, RequestCare},
    };

    #[tokio::test]
    async fn what_a_slow_connection_has_not_taken_yet_is_renewed_with_what_it_has() {
        let (env, folder) = (Env::real(), tempfile::tempdir().unwrap());
        let store = sqlite::open(&env, sqlite::Config::at(folder.path().join("log.db"))).await.unwrap();
        let queues = MessageQueues::open(&store).await.unwrap();
        let care = RequestCare::open(&env, &store, &queues, Calls::new(&env)).await.unwrap();
        let (kind, time_limit) = ("report".parse().unwrap(), Duration::from_secs(3_600));
        let ttl = Duration::from_secs(5);
        let config = Config { lease_ttl: ttl, ..Config::default() };
        let queue = queues.opened().await.unwrap().declare(&kind, config).await.unwrap();
        let of = care.declare(&kind, Contract { exchange: Exchange::Durable, time_limit }).await.unwrap();
        for id in ["1", "2", "3"] {
            care.ask_durably(&of, (&id.parse().unwrap(), Payload::json("1")), None).await.unwrap();
        }
        let mut responder = care.serve_durably(&of, 4).await.unwrap();
        let deliveries = responder.next().await.unwrap();
        let (pieces, mut body) = pieces();
        let slow = async {
            let mut told = Vec::new();
            while told.len() < 3 {
                let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
                told.push(String::from_utf8(piece.to_vec()).unwrap());
                if told.len() == 1 {
                    env.sleep(ttl + Duration::from_secs(1)).await;
                    assert_eq!(queue.receive(Receive::of(9)).await.unwrap().len(), 0, "another has it");
                }
            }
            told
        };
        let (handed, told) = tokio::join!(hand_over(&mut responder, &deliveries, (&pieces, |piece| piece)), slow);
        assert_eq!(handed, Ok(()));
        assert!(told.iter().all(|piece| piece.contains("\"attempt\":1")), "{told:?}");
        let leases: Vec<_> = deliveries.iter().map(|one| one.lease).collect();
        queue.ack(&leases).await.unwrap();
        store.close().await.unwrap();
    }
}
