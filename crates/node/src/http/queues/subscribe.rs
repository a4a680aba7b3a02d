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
use quorate_communication::message_queue::{Consume, Consumer, Delivery, Lease, QueueError};

use super::{MAX_RECEIVE, Reply, beyond, show};
use crate::http::{
    Node, Shared,
    body_out::{Gone, Pieces, cut},
    memory::Shares,
    problem::Problem,
    request::{self, Params},
    sse::{OPENING, answer, closing},
};

/// `GET /v1/queues/{name}/subscribe`
pub(in crate::http) async fn subscribe(State(node): State<Shared>, request: Request) -> Reply {
    let name = request::queue(request.uri())?;
    let params = Params::of(request.uri(), &["window", "ttl"])?;
    let consumer = node.queues.consume(&name, consume(&params)?).await?;
    Ok(answer(&node, "consumer", |node, pieces| async move { run(&node, consumer, pieces).await }))
}

fn consume(params: &Params<'_>) -> Result<Consume, Problem> {
    let mut asked = Consume::default();
    if let Some(window) = params.number("window")? {
        asked.window = usize::try_from(window).unwrap_or(usize::MAX);
        if asked.window == 0 {
            return Err(request::wrong("window", format!("`window` is 1 to {MAX_RECEIVE}, 0 was asked for")));
        }
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
            // What it might yet be handed, or was handed just now, comes to others: dropping it gives that back.
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
                hand_over(&consumer, &deliveries, &pieces, |piece| share.with(piece)).await?;
            }
        }
        heartbeat_due = node.env.mono() + node.config.http.heartbeat;
        if node.env.buggify("queues: a consumer is let go") {
            pieces.send(closing("too-slow")).await?;
            return Ok(pieces);
        }
    }
}

/// Hands deliveries over as the connection asks for them. Where it goes away, those for which it never asked are given back.
async fn hand_over(
    consumer: &Consumer,
    deliveries: &[Delivery],
    pieces: &Pieces,
    held: impl Fn(Bytes) -> Bytes,
) -> Result<(), Gone> {
    for (n, delivery) in deliveries.iter().enumerate() {
        if pieces.send(held(frame(delivery))).await.is_err() {
            give_back(consumer, &deliveries[n..]).await;
            return Err(Gone);
        }
    }
    Ok(())
}

fn frame(delivery: &Delivery) -> Bytes {
    let mut buffer = BytesMut::new();
    buffer.put_slice(b"event: message\ndata: ");
    show::delivery(&mut buffer, delivery, show::event);
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

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use quorate_communication::message_queue::{Config, NewMessage, Queues, Receive};
    use quorate_data::{event::NewEvent, store::sqlite};
    use quorate_runtime::Env;

    use super::*;
    use crate::http::body_out::pieces;

    #[tokio::test]
    async fn what_a_connection_that_went_away_never_asked_for_is_others_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = sqlite::open(&Env::real(), sqlite::Config::at(folder.path().join("log.db"))).await.unwrap();
        let queues = Queues::open(&store).await.unwrap();
        let queue = queues.declare(&"mails".parse().unwrap(), Config::default()).await.unwrap();
        let message = |id: &str| NewMessage::of(NewEvent::new(id, "/test", "mail.due"));
        queue.send(["a", "b", "c"].map(message).to_vec()).await.unwrap();
        let mut consumer = queue.consume(Consume::default()).unwrap();
        let deliveries = consumer.next().await.unwrap();
        assert_eq!(deliveries.len(), 3);
        let (pieces, mut body) = pieces();
        let reads_one = async move {
            let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert!(first.starts_with(b"event: message"));
        };
        let (handed, ()) = tokio::join!(hand_over(&consumer, &deliveries, &pieces, |piece| piece), reads_one);
        assert_eq!(handed, Err(Gone));
        let others = queue.receive(Receive::of(9)).await.unwrap();
        let told: Vec<_> = others.iter().map(|one| (&*one.message.event.id, one.attempt)).collect();
        assert_eq!(told, [("b", 1), ("c", 1)]);
        store.close().await.unwrap();
    }
}
