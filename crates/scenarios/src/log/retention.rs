//! Clients append, forget old events, and send old appends once more: what was known stays known, and what is left keeps its
//! place.

use serde_json::{Value, json};

use super::appends::{event, insist, told};
use crate::{
    cast::Cast,
    client::Call,
    hand::Hand,
    notes::{Action, Expected, Told},
};

const CLIENTS: usize = 3;
const ROUNDS: usize = 25;

/// Who takes part.
pub(crate) fn cast() -> Cast {
    (0..CLIENTS).fold(Cast::new(), |cast, n| cast.hand(&format!("client-{n}"), work))
}

async fn work(mut hand: Hand) {
    let mut sent: Vec<(String, String)> = Vec::new();
    for round in 0..ROUNDS {
        let stream = format!("order-{}", hand.below(2));
        match hand.below(6) {
            0 => truncate(&mut hand, &stream).await,
            1 | 2 if !sent.is_empty() => {
                let nth = hand.below(sent.len());
                let (stream, id) = sent[nth].clone();
                append(&mut hand, &stream, &id).await;
            }
            _ => {
                let id = format!("{}-{round}", hand.name);
                append(&mut hand, &stream, &id).await;
                sent.push((stream, id));
            }
        }
        hand.rest().await;
    }
}

/// Appends the event `id`; also when it was appended before.
async fn append(hand: &mut Hand, stream: &str, id: &str) {
    let call = Call::post(format!("/v1/streams/{stream}/events"));
    let call = call.json("application/cloudevents-batch+json", &Value::Array(vec![event(id, None)]));
    let invoked = hand.notes.now();
    let told = insist(hand, &call).await;
    let ids = vec![id.to_owned()];
    hand.notes.add(
        &hand.name,
        invoked,
        Action::Append { stream: stream.to_owned(), ids, expected: Expected::Any, told },
    );
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
    let invoked = hand.notes.now();
    let told = match hand.ask(&call).await {
        Some(reply) if reply.status.is_success() => Told::Done { version },
        Some(reply) => told(&reply),
        None => Told::Unknown,
    };
    hand.notes.add(&hand.name, invoked, Action::Truncate { stream: stream.to_owned(), before, told });
}
