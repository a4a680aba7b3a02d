//! Clients append, forget old events, and send old appends once more: what was known stays known, and what is left keeps its
//! place.

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
        match hand.below(7) {
            0 => truncate(&mut hand, &stream).await,
            1 => drop(hand.read_stream(&stream).await),
            2 | 3 if !known.is_empty() => {
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

/// Forgets all but the last events of `stream`.
async fn truncate(hand: &mut Hand, stream: &str) {
    let Some(head) = hand.ask(&Call::get(format!("/v1/streams/{stream}"))).await else { return };
    let version = head.value()["streamversion"].as_str().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    if version < 3 {
        return;
    }
    let before = version - 1;
    let call = Call::post(format!("/v1/streams/{stream}/truncate"));
    let call = call.json("application/json", &json!({ "before": before.to_string() }));
    let truncate = |told| Action::Truncate { stream: stream.to_owned(), before, told };
    let begun = hand.notes.begin(&hand.name, truncate(Told::Unknown));
    let told = match hand.ask(&call).await {
        Some(reply) if reply.status.is_success() => Told::Done { version },
        Some(reply) => told(&reply),
        None => Told::Unknown,
    };
    hand.notes.end(begun, truncate(told));
}
