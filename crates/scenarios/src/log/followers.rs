//! Clients append while others follow the log by server-sent events, and come back with `Last-Event-ID` whenever the stream breaks.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use quorate_sim::Sim;

use super::appends;
use crate::{
    Report,
    client::Call,
    notes::{Action, Seen},
    world::{self, Hand, LogWorld},
};

const WRITERS: usize = 3;
const FOLLOWERS: usize = 2;
const ROUNDS: usize = 25;
/// Silence after which a follower looks for itself; longer than the node's heartbeat.
const SILENCE: std::time::Duration = std::time::Duration::from_secs(25);

/// Runs the scenario.
pub(crate) fn run(sim: Sim) -> Report {
    let mut world = LogWorld::new(sim);
    for n in 0..WRITERS {
        world.hand(&format!("writer-{n}"), write);
    }
    for n in 0..FOLLOWERS {
        world.follower(&format!("follower-{n}"), follow);
    }
    world.run(|_| Vec::new())
}

async fn write(mut hand: Hand) {
    for round in 0..ROUNDS {
        let stream = format!("order-{}", hand.below(2));
        appends::append(&mut hand, &stream, round).await;
        hand.rest().await;
    }
}

/// Follows the log until it has been told of everything that there is once nobody writes any more.
async fn follow(mut hand: Hand, busy: Arc<AtomicUsize>) -> Result<(), String> {
    let mut last = 0;
    let mut end = None;
    loop {
        if end.is_none() && busy.load(Ordering::Relaxed) == 0 {
            end = length(&mut hand).await;
        }
        if end.is_some_and(|end| last >= end) {
            return Ok(());
        }
        let call = Call::get("/v1/events/subscribe").header("last-event-id", &last.to_string());
        match hand.another().open(&call).await {
            Ok((status, body)) if status.is_success() => listen(&mut hand, body, &mut last, end, &busy).await?,
            Ok((status, _)) if status.is_client_error() => {
                return Err(format!("following from {last} was refused: {status}"));
            }
            _ => hand.rest().await,
        }
    }
}

/// How long the log is.
async fn length(hand: &mut Hand) -> Option<u64> {
    let reply = hand.ask(&Call::get("/v1/events?limit=1000")).await?;
    Some(world::seen(&reply.value()).last().map_or(0, |event| event.position))
}

/// Reads frames until the stream breaks, or there is nothing more to wait for.
async fn listen(
    hand: &mut Hand,
    mut body: Incoming,
    last: &mut u64,
    end: Option<u64>,
    busy: &AtomicUsize,
) -> Result<(), String> {
    let mut buffer = Vec::new();
    loop {
        let frame = hand.env.timeout(SILENCE, body.frame()).await;
        let Some(Some(Ok(frame))) = frame else { return Ok(()) };
        buffer.extend_from_slice(&frame.into_data().unwrap_or_else(|_| Bytes::new()));
        while let Some(at) = buffer.windows(2).position(|pair| pair == b"\n\n") {
            let text: Vec<u8> = buffer.drain(..at + 2).collect();
            if let Some(event) = event_of(&String::from_utf8_lossy(&text)) {
                *last = event.position;
                let what = Action::Told { subscription: hand.name.clone(), event };
                hand.notes.add(&hand.name, hand.notes.now(), what);
            }
        }
        // While others write there is more to come; afterwards the caller looks how much there is.
        let over = end.map_or(busy.load(Ordering::Relaxed) == 0, |end| *last >= end);
        if over {
            return Ok(());
        }
    }
}

/// The event that a frame carries; `None` for heartbeats and signals.
fn event_of(frame: &str) -> Option<Seen> {
    let signal = frame.lines().any(|line| line.starts_with("event:"));
    let data = frame.lines().find_map(|line| line.strip_prefix("data:")).filter(|_| !signal)?;
    serde_json::from_str(data.trim()).ok().map(|value| world::event(&value))
}
