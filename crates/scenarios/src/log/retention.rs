//! Clients append, forget old events, by hand and by rules that they set and lift again, and send old appends once more: what
//! was known stays known, what is left keeps its place, and streams begin where they were told to.

use quorate_sim::check::api::{Append, Expected};
use serde_json::json;

use super::appends::{send, sent, told};
use crate::{
    cast::Cast,
    client::Call,
    hand::Hand,
    notes::{Action, Told},
};

const CLIENTS: usize = 3;
const ROUNDS: usize = 25;

/// Who takes part.
pub(crate) fn cast() -> Cast {
    (0..CLIENTS).fold(Cast::new(), |cast, n| cast.hand(&format!("client-{n}"), work))
}

async fn work(mut hand: Hand) {
    let (mut known, mut round): (Vec<Append>, _) = (Vec::new(), 0);
    while hand.goes_on(round, ROUNDS) {
        let stream = format!("order-{}", hand.below(2));
        match hand.below(11) {
            0 => truncate(&mut hand, &stream).await,
            1 => drop(hand.read_stream(&stream).await),
            2 => set_rule(&mut hand, &stream).await,
            3 => scavenge(&mut hand).await,
            4..=6 if !known.is_empty() => {
                let nth = hand.below(known.len());
                send(&mut hand, known[nth].clone()).await;
            }
            _ => {
                let id = format!("{}-{round}", hand.name);
                let append = Append::to(stream, Expected::Any, vec![sent(&id, None)]);
                send(&mut hand, append.clone()).await;
                known.push(append);
            }
        }
        hand.rest().await;
        round += 1;
    }
}

/// Looks where `stream` begins and ends, and returns its version.
async fn look(hand: &mut Hand, stream: &str) -> Option<u64> {
    let invoked = hand.notes.now();
    let head = hand.ask(&Call::get(format!("/v1/streams/{stream}"))).await?.value();
    let number = |member: &str| head[member].as_str().and_then(|text| text.parse::<u64>().ok());
    let (first, version) = (number("first")?, number("streamversion")?);
    hand.notes.add(&hand.name, invoked, Action::Head { stream: stream.to_owned(), first, version });
    Some(version)
}

/// Forgets all but the last events of `stream`.
async fn truncate(hand: &mut Hand, stream: &str) {
    let Some(version) = look(hand, stream).await.filter(|version| *version > 2) else { return };
    let before = version - 1;
    let call = Call::post(format!("/v1/streams/{stream}/truncate"));
    let call = call.json("application/json", &json!({ "before": before.to_string() }));
    let truncate = |told| Action::Truncate { stream: stream.to_owned(), before, told };
    let begun = hand.notes.begin(&hand.name, truncate(Told::Unknown));
    let told = once(hand, &call).await;
    hand.notes.end(begun, truncate(told));
}

/// Has `stream` keep its newest events alone, or all again.
async fn set_rule(hand: &mut Hand, stream: &str) {
    let max_count = Some(hand.rng.below(5)).filter(|count| *count > 0);
    let call = Call::put(format!("/v1/streams/{stream}/metadata"));
    let body = max_count.map_or_else(|| json!({}), |count| json!({ "max-count": count }));
    let call = call.json("application/json", &body);
    let set = |told| Action::SetRule { stream: stream.to_owned(), max_count, told };
    let begun = hand.notes.begin(&hand.name, set(Told::Unknown));
    let told = once(hand, &call).await;
    hand.notes.end(begun, set(told));
    look(hand, stream).await;
}

/// Has the node forget what no rule keeps.
async fn scavenge(hand: &mut Hand) {
    let invoked = hand.notes.now();
    let reply = hand.ask(&Call::post("/v1/store/scavenge")).await;
    let done = reply.is_some_and(|reply| reply.status.is_success());
    hand.notes.add(&hand.name, invoked, Action::Scavenged { done });
}

/// Makes a call once: repeated, it might have its effect again, after somebody else's.
async fn once(hand: &mut Hand, call: &Call) -> Told {
    match hand.ask(call).await {
        // No version of the stream is told, and none is judged.
        Some(reply) if reply.status.is_success() => Told::Done { version: 0, token: None },
        Some(reply) => told(&reply),
        None => Told::Unknown,
    }
}
